"""Training that is killed, and training that torchrun starts: the run on disk is the uninterrupted one's."""

import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.app.conftest import QUICK
from tracklearn.app import pipeline
from tracklearn.store.files import read_arrays
from tracklearn.store.runs import Run

SETTINGS = [*QUICK, "tmc.epochs=3", "tmc.iterations=6", "train.checkpoint_every=2"]
N_KILLS = 20


def train(set_path, out, resume):
    """In a process of its own: one run, to its end."""
    import torch

    torch.set_num_threads(1)
    plan = pipeline.plan_training(set_path, weights="none", device="cpu", preset="cpu", overrides=SETTINGS)
    for _ in pipeline.train(plan, out, resume=resume):
        pass


@pytest.fixture(scope="module")
def processes():
    """Processes that have the modules loaded: a kill should meet training, not imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "tracklearn.learn.train", "tracklearn.learn.methods.tmc"])
    return context


def digests(folder):
    """sha256 of every file but the times."""
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.iterdir()
        if p.name != "times.jsonl"
    }


def test_killed_at_random_moments_and_resumed_it_is_the_same_run(done, tmp_path, processes):
    set_path = done["out"] / "set"

    def start(out):
        process = processes.Process(target=train, args=(set_path, out, True))
        process.start()
        return process

    start(tmp_path / "warm").join()  # compiled kernels are read from disk once the server has them
    began = time.perf_counter()
    whole = start(tmp_path / "whole")
    whole.join()
    lasts = time.perf_counter() - began
    assert whole.exitcode == 0
    want = digests(tmp_path / "whole")
    assert want.keys() == {
        "manifest.json",
        "rounds.jsonl",
        "isolation.safetensors",
        "labels.safetensors",
        "start.safetensors",
        "weights.safetensors",
    }
    assert want == digests(tmp_path / "warm")
    rng = np.random.default_rng(0)
    kills = chain = 0
    found = set()
    while kills < N_KILLS:
        out = tmp_path / f"killed{chain}"
        chain += 1
        for _ in range(N_KILLS):
            process = start(out)
            process.join(rng.uniform(0.1, 0.9) * lasts)
            if process.exitcode is not None:
                assert process.exitcode == 0
                break
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
            found |= {p.name for p in out.glob("state-*")} if out.is_dir() else set()
        else:
            last = start(out)
            last.join()
            assert last.exitcode == 0
        assert digests(out) == want
    assert len(found) >= 2  # kills met more than one phase of the run


def torchrun(n, *arguments):
    """(exit code, standard output, standard error) of a training by n processes, none of which stays."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(n)),
            *("--standalone", "-m", "tracklearn"),
            *map(str, arguments),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        out, said = process.communicate(timeout=180)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, said


def test_two_processes_of_torchrun_train_the_run_of_one(done, tmp_path):
    settings = [*QUICK, "tmc.isolate=false", "tmc.samples_per_bn=6", "tmc.clusters_per_batch=4"]
    options = [part for text in settings for part in ("--set", text)]
    set_path, out = done["out"] / "set", tmp_path / "two"
    code, printed, said = torchrun(
        2, "train", set_path, "--out", out, "--weights", "none", "--preset", "cpu", "--json", *options
    )
    assert code == 0, said[-2000:]
    (line,) = printed.splitlines()  # the first process alone speaks
    two = Run(out)
    assert json.loads(line)["rounds"] == two.rounds
    assert two.manifest["processes"] == 2
    plan = pipeline.plan_training(set_path, weights="none", device="cpu", preset="cpu", overrides=settings)
    for _ in pipeline.train(plan, tmp_path / "one"):
        pass
    one = Run(tmp_path / "one")
    assert one.manifest["digest"] == two.manifest["digest"]
    np.testing.assert_array_equal(one.labels, two.labels)
    for a, b in zip(one.rounds, two.rounds, strict=True):
        for name, value in a["losses"].items():
            assert b["losses"][name] == pytest.approx(value, rel=1e-3), name
    ours, theirs = (read_arrays(run.weights_path())[0] for run in (one, two))
    for name, value in ours.items():
        np.testing.assert_allclose(theirs[name], value, rtol=1e-2, atol=2e-3, err_msg=name)


def test_torchrun_is_for_training(call, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, said = call("index", "a", "b")
    assert code == 2
    assert "torchrun is for tracklearn train alone" in said
