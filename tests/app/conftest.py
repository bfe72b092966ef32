"""A small filmed world and a run trained on it, made once for all tests of the application."""

import sys

import pytest

from tests.app.made_files import put, write_onnx
from tests.optional import needs
from tracklearn import world
from tracklearn.app.demo.films import write_videos
from tracklearn.app.pipeline import run as pipeline
from tracklearn.app.pipeline.plan import plan_training

# One epoch of a few batches: enough to walk every path, not to learn.
QUICK = [
    "tmc.epochs=2",
    "tmc.iterations=2",
    "tmc.clusters_per_batch=4",
    "tmc.frames_cluster=4",
    "network.height=64",
    "network.width=32",
]


@pytest.fixture(scope="session")
def films(tmp_path_factory):
    """Two cameras' videos with ground truth beside them."""
    folder = tmp_path_factory.mktemp("films")
    write_videos(world.Config(n_people=6, n_cameras=2, seconds=20, people_seed=4), folder)
    return folder


@pytest.fixture(scope="session")
def sources(films):
    return [f"{path.stem}={path}" for path in sorted(films.glob("*.mp4"))]


@pytest.fixture(scope="session")
def done(films, sources, tmp_path_factory):
    """A finished `run`: its result, and the arguments that made it."""
    from tracklearn.store.ingest.ingest import Config

    out = tmp_path_factory.mktemp("done") / "work"

    def plan(set_path):
        return plan_training(set_path, weights="none", device="cpu", preset="cpu", overrides=QUICK)

    rounds = []
    arguments = {"ingest_config": Config(), "plan": plan}
    result = pipeline.run(sources, out, **arguments, on_round=rounds.append)
    return {"out": out, "result": result, "arguments": arguments, "rounds": rounds}


@pytest.fixture
def call(request, monkeypatch, capsys, tmp_path):
    """Run a command line in an empty folder; returns (exit code, standard output, standard error).

    A test module names the command whose arguments it gives in `COMMAND`.
    """
    from tracklearn.app import cli

    monkeypatch.chdir(tmp_path)

    def run(*args):
        command = getattr(request.module, "COMMAND", [])
        monkeypatch.setattr(sys, "argv", ["tracklearn", *command, *map(str, args)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


@pytest.fixture
def run(tmp_path):
    """Make a finished run of a random network, trained on the set it is given."""
    import os

    from tracklearn.learn import backbone
    from tracklearn.store.runs import RunWriter
    from tracklearn.store.sets.tracklets import open_set

    def make(set_path, name="run", **more):
        config = backbone.Config(backbone="tiny", height=64, width=32)
        network, start = backbone.build(config, seed=1), backbone.build(config, seed=2)
        manifest = {
            "digest": "0" * 64,
            "method": "tmc",
            "seed": 0,
            "network": config.model_dump(),
            "set": {"path": os.path.relpath(set_path, tmp_path / name), "digest": open_set(set_path).digest},
            **more,
        }
        writer = RunWriter(tmp_path / name, manifest)
        writer.write_start(start.arrays(), start.metadata())
        writer.finish([network.arrays()], network.metadata(), seconds={})
        return tmp_path / name

    return make


@pytest.fixture
def onnx(tmp_path):
    needs("onnxruntime")
    return write_onnx(tmp_path / "means.onnx")


@pytest.fixture
def market(tmp_path):
    """Six persons, of whom 6 has no match, three distractors, two junk images."""
    root = tmp_path / "Market"
    number = 0
    for folder, people, cameras in (
        ("bounding_box_train", (50, 51), (1, 2)),
        ("query", (1, 2, 3, 4, 5), (1, 2)),
        ("query", (6,), (3,)),
        ("bounding_box_test", (1, 2, 3, 4, 5), (1, 2, 3)),
        ("bounding_box_test", (6,), (3,)),
        ("bounding_box_test", (0,), (1, 2, 3)),
        ("bounding_box_test", (-1,), (1, 2)),
    ):
        for pid in people:
            for camera in cameras:
                number += 1
                name = f"{pid:04d}" if pid >= 0 else "-1"
                put(root / folder / f"{name}_c{camera}s1_{number:06d}_00.jpg", pid % 64, number)
    return root
