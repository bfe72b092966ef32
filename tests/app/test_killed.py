"""Training that is killed, and training that torchrun starts: the run on disk is the uninterrupted one's."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.app.conftest import QUICK
from tests.faults.crash_journal import OPEN, RENAME, UNLINK, Disk, read_journal, read_tree, write_tree
from tests.faults.crash_server import KILL, Server, why_not
from tracklearn.app.model.of_run import load_network
from tracklearn.app.pipeline.plan import plan_training
from tracklearn.app.pipeline.training import train
from tracklearn.store.files import read_arrays
from tracklearn.store.runs import Run

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1200),
]  # seconds of an idle machine, but nobody promises one

SETTINGS = [*QUICK, "tmc.iterations=3", "train.checkpoint_every=2"]


class Killer:
    """Trains on one set in processes that are killed before the call to the disk that is named."""

    def __init__(self, server, set_path, folder):
        self.server, self.set_path, self.folder = server, set_path, folder

    def __call__(self, out, call=0, here=False):
        """One `train --resume`; how it ended.

        `call`: the number of the call before which it is killed. `here`: in the server, warm then for all.
        """
        options = ["--weights", "none", "--preset", "cpu", "--device", "cpu"]
        options += [part for text in SETTINGS for part in ("--set", text)]
        return self.server.run(
            ("train", str(self.set_path), "--out", str(out), "--resume", *options),
            cwd=self.folder,
            watch=out.parent,
            mode=KILL,
            call=call,
            journal=self.folder / "journal",
            here=here,
        )

    def calls(self):
        """The calls of the last training, paths from the folder that the run lies in."""
        found = read_journal(self.folder / "journal", self.folder)
        return [call for call in found if not call.path.startswith("server/")]  # what was said, not written


@pytest.fixture(scope="module")
def kill(done, tmp_path_factory):
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("killed").resolve()
    with Server(folder / "server") as server:
        killer = Killer(server, done["out"] / "set", folder)
        assert killer(folder / "warm", here=True).code == 0
        yield killer


@pytest.fixture(scope="module")
def whole(kill):
    """The run that nothing disturbed: its files, and the calls that wrote them."""
    out = kill.folder / "whole"
    ended = kill(out)
    assert ended.code == 0, ended.err
    return files(out), kill.calls()


def files(out):
    """The content of every file of a run but the times."""
    found = read_tree(out)
    del found["times.jsonl"]
    return found


def test_a_whole_run_leaves_these_files_and_the_same_bytes_every_time(kill, whole):
    want, _ = whole
    assert want.keys() == {
        "manifest.json",
        "rounds.jsonl",
        "isolation.safetensors",
        "labels.safetensors",
        "start.safetensors",
        "weights.safetensors",
    }
    assert kill(kill.folder / "again").code == 0
    assert files(kill.folder / "again") == want


def before_the_end(calls):
    """Calls at which training is over and the run is not: no state will follow, the manifest is to come."""
    state = max(n for n, c in enumerate(calls, 1) if c.kind == RENAME and "state-" in c.target)
    manifest = max(
        n for n, c in enumerate(calls, 1) if c.kind == RENAME and c.target.endswith("manifest.json")
    )
    assert state < manifest
    return state + 1, (state + manifest) // 2, manifest


def left_before(calls, n, out):
    """Put into `out` what the whole run's process would have left, killed before its n-th call."""
    disk = Disk({})
    for call in calls[: n - 1]:
        disk.apply(call)
    # The lock lies beside the run: left by a dead process, and of another name here.
    tree = {path[6:]: data for path, data in disk.tree().items() if path.startswith("whole/")}
    if "whole" in disk.tree():
        write_tree(out, tree)


def test_killed_before_any_call_and_resumed_it_is_the_same_run(kill, whole):
    want, calls = whole
    made = [n for n, c in enumerate(calls, 1) if c.kind == OPEN]
    gone = [n for n, c in enumerate(calls, 1) if c.kind == UNLINK and not c.error]
    states = set()
    for n in sorted({1, *made[1::10], gone[0], gone[-1], *before_the_end(calls)}):
        out = kill.folder / f"killed{n}"
        left_before(calls, n, out)
        states.add(len(list(out.glob("state-*"))))
        ended = kill(out)
        assert ended.code == 0, f"killed before call {n}, {calls[n - 1]}: {ended.err}"
        assert files(out) == want, f"killed before call {n}, {calls[n - 1]}"
        load_network(Run(out))  # weights that nothing loads would be of no use, whatever their bytes
    assert len(states) >= 2  # before the first state and after it


def test_killed_three_times_on_its_way_it_still_comes_to_the_same_run(kill, whole):
    want, calls = whole
    out = kill.folder / "chain"
    met = []
    for part in (2, 3, 4):  # the resumed ones have less to do
        ended = kill(out, call=len(calls) // part)
        assert ended.code in (0, -signal.SIGKILL), ended.err
        met.append(ended.code)
    assert met[:2] == [-signal.SIGKILL] * 2
    assert kill(out).code == 0
    assert files(out) == want


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
    # Two clusters or four: batches of 8 or 16 tracklets, which two processes normalise in the same groups.
    settings = [*QUICK, "tmc.isolate=false", "tmc.samples_per_bn=4", "tmc.clusters_per_batch=4"]
    settings += ["tmc.time_tells=false", "tmc.frames_cluster=32"]
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
    plan = plan_training(set_path, weights="none", device="cpu", preset="cpu", overrides=settings)
    for _ in train(plan, tmp_path / "one"):
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
