"""Whatever can be refused is refused before video is read, and leaves nothing behind."""

import numpy as np
import pytest
import torch

import tracklearn as tl
from tests.app.conftest import QUICK
from tracklearn.app.model.of_run import load_network
from tracklearn.app.pipeline import run as pipeline
from tracklearn.learn import backbone
from tracklearn.store import memory, weights

SETTINGS = [part for setting in QUICK for part in ("--set", setting)]


def tiny_weights(path, **change):
    network = backbone.build(backbone.Config(backbone="tiny", height=64, width=32), seed=1)
    arrays = {**network.arrays(), **change}
    return weights.save(path, {k: v for k, v in arrays.items() if v is not None}, network.metadata())


@pytest.fixture
def never_ingested(monkeypatch):
    from tracklearn.store.ingest import ingest

    def ingested(*args, **options):
        raise AssertionError("video was read before everything was checked")

    monkeypatch.setattr(ingest, "ingest", ingested)


def refused(call, tmp_path, *arguments):
    code, out, err = call(*arguments)
    assert (code, out) == (2, ""), err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists()
    return err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer2.conv2.weight": np.zeros((3, 3), np.float32)}, "conv2.weight (3, 3) for (96, 96, 3, 3)"),
        ({"layer2.bn2.weight": None}, "1 missing: layer2.bn2.weight"),
        ({"more": np.zeros(2)}, "1 unknown: more"),
        ({"conv1.weight": np.zeros((48, 3, 3, 3), np.int32)}, "conv1.weight int32"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit(call, sources, tmp_path, never_ingested, change, message):
    path = tiny_weights(tmp_path / "w.safetensors", **change)
    err = refused(call, tmp_path, "run", *sources, "--out", "new", "--weights", path, *SETTINGS)
    assert message in err
    assert str(path) in err


def test_the_second_of_two_weights_files_is_looked_at_too(call, sources, tmp_path, never_ingested):
    good, bad = (
        tiny_weights(tmp_path / "a.safetensors"),
        tiny_weights(tmp_path / "b.safetensors", more=np.zeros(2)),
    )
    err = refused(
        call, tmp_path, "run", *sources, "--out", "new", "--method", "mmt", "--weights", f"{good},{bad}"
    )
    assert "b.safetensors" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "tmc.epochs=0"], "set to train for 0 epochs: set 1 or more"),
        (["--method", "uga", "--set", "uga.epochs_intra=0", "--set", "uga.epochs_inter=0"], "0 epochs"),
        (["--method", "msplr", "--source", "none"], "none"),
        (["--method", "tmc", "--source", "none"], "does not learn from a labelled source"),
        (["--set", "tmc.samples_per_bn=1", "--set", "tmc.frames_train=1"], "samples_per_bn"),
        (["--out", "film.txt/new"], "film.txt"),
    ],
)
def test_settings_that_could_only_fail(call, sources, tmp_path, never_ingested, arguments, message):
    (tmp_path / "film.txt").write_text("")
    out = [] if "--out" in arguments else ["--out", "new"]
    assert message in refused(call, tmp_path, "run", *sources, *out, "--weights", "none", *arguments)


def test_a_labelled_source_needs_its_truth(call, sources, done, tmp_path, never_ingested):
    err = refused(
        call, tmp_path, "run", *sources, "--out", "new", "--weights", "none", "--method", "msplr",
        "--source", done["out"] / "set",
    )  # fmt: skip
    assert "no ground truth" in err


@pytest.mark.parametrize("method", ["uga", "msplr"])
def test_one_camera_is_too_few_where_cameras_are_compared(call, sources, tmp_path, never_ingested, method):
    arguments = ["--out", "new", "--weights", "none", "--method", method]
    err = refused(call, tmp_path, "run", sources[0], *arguments)
    assert f"the set has one camera, method {method} learns across 2 or more" in err
    twice = [f"same={source.partition('=')[2]}" for source in sources]  # two films of one camera
    assert "one camera" in refused(call, tmp_path, "run", *twice, *arguments)


def test_one_camera_is_refused_before_crops_are_read(call, sources, tmp_path, monkeypatch):
    from tracklearn.learn import embed

    assert call("ingest", sources[0], "--out", "set")[0] == 0
    monkeypatch.setattr(embed, "extract", lambda *args, **options: pytest.fail("crops were read"))
    assert "one camera" in refused(
        call, tmp_path, "train", "set", "--out", "new", "--weights", "none", "--method", "uga"
    )


def test_a_mistyped_set_does_not_wait_for_weights(call, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "load", lambda *args, **options: pytest.fail("weights were fetched"))
    assert "set" in refused(call, tmp_path, "train", "no-set", "--out", "new")


def test_a_damaged_run_s_weights_are_named(done, tmp_path):
    import shutil

    shutil.copytree(done["out"] / "run", tmp_path / "run")
    opened = pipeline.Run(tmp_path / "run")
    state = torch.zeros(3)
    path = tiny_weights(tmp_path / "other.safetensors", **{"conv1.weight": state.numpy()})
    opened.weights_path = lambda which: path
    with pytest.raises(ValueError, match=r"other\.safetensors: weights do not fit tiny"):
        load_network(opened)


def test_a_network_that_cannot_fit_is_refused_while_there_is_memory_to_say_so(
    call, sources, tmp_path, monkeypatch
):
    """Libraries that run out of memory hang or abort: what is left is looked at before anything is read."""
    tl.ingest(sources, tmp_path / "set")
    monkeypatch.setattr(memory, "available", lambda: 600_000_000)
    options = ("--weights", "none", "--preset", "cpu", "--device", "cpu", *SETTINGS)
    err = refused(call, tmp_path, "train", "set", "--out", "new", *options, "--backbone", "resnet50")
    assert "out of memory (training resnet50 takes 0.7 GB at the very least, and 0.6 GB are left)" in err
    assert call("train", "set", "--out", "small", *options)[0] == 0
    monkeypatch.setattr(memory, "available", lambda: None)  # no system that tells
    assert call("train", "set", "--out", "unknown", *options)[0] == 0
