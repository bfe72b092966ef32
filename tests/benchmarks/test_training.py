"""The training benchmark on a small case: it runs, and its figures mean what they say."""

import json
from contextlib import closing

import numpy as np
import pytest
import torch

from benchmarks import measure, training

SMALL = training.Case("tiny", 64, 32)
ON_DISK = ("stored", "decoded")


@pytest.fixture(scope="module", autouse=True)
def few_tracklets():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "CLUSTERS", 8)
        yield


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return training.write_set(tmp_path_factory.mktemp("training") / "set", seed=0)


@pytest.fixture(scope="module")
def rig():
    crops = training.open_crops("memory", SMALL, None, 0)
    return training.Rig(SMALL, crops, 0)


@pytest.mark.long
def test_writes_what_it_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "cases", lambda device: [SMALL])
    monkeypatch.setattr(training, "EXTRACTED", 32)
    assert training.main(["--quick", "--out", str(tmp_path)]) == 0
    saved = json.loads((tmp_path / "training.json").read_text())
    assert saved["settings"]["threads"] == torch.get_num_threads()
    assert saved["machine"]["versions"]["torch"]
    (result,) = saved["result"]["cases"].values()
    assert result["case"]["preset"] == "cpu"
    assert list(result["sources"]) == sorted(training.SOURCES)
    for found in result["sources"].values():
        assert found["n_images"] == 64
        bare, fed, whole = found["bare"], found["fed"], found["whole"]
        assert bare["images_per_s"] == pytest.approx(64 / bare["wall_s"])
        assert found["overhead"] == pytest.approx(whole["wall_s"] / bare["wall_s"] - 1)
        assert found["overhead_fed"] == pytest.approx(whole["wall_s"] / fed["wall_s"] - 1)
        # the lower quartile of the two steps of one pair of networks, whose median is beside it
        assert all([at["wall_s"]] == at["wall_rigs"] for at in (bare, fed, whole))
        assert all(at["wall_s"] <= at["wall_median_s"] for at in (bare, fed, whole))
        assert found["speed"] == pytest.approx(1 / (1 + found["overhead"]))
        assert 0 < found["optimiser_s"] < whole["wall_s"]
        assert 0 <= found["waiting"] < 1
        assert found["extract_images_per_s"] > 0
    assert [bar["what"].partition(", ")[2] for bar in saved["result"]["bars"]] == [
        *(
            f"{source}: {what} (%)"
            for source in ("memory", "stored")
            for what in ("overhead", "images/s of bare", "waiting for pictures")
        ),
        "decoded: overhead over fed (%)",
        "decoded: waiting for pictures (%)",
    ]
    out = capsys.readouterr().out
    assert "overhead %" in out
    assert "extract img/s" in out


def test_unknown_network_of_a_device_is_refused(capsys):
    with pytest.raises(SystemExit):
        training.main(["--quick", "--networks", "resnet50"])
    assert "cpu has" in capsys.readouterr().err


def test_cuda_has_precisions_and_compilation():
    found = [(c.precision, c.compile) for c in training.cases("cuda:0")]
    assert found == [("float32", False), ("float32", True), ("bfloat16", False), ("bfloat16", True)]


def test_sources_hold_the_same_tracklets(stored):
    for source in training.SOURCES:
        crops = training.open_crops(source, SMALL, stored, 0)
        assert len(crops) == training.make_tracklets().n_crops
        assert crops.read([0, 3]).shape == (2, 64, 32, 3)
    a, b = (training.open_crops(s, SMALL, stored, 0).read([5, 6]).astype(int) for s in ON_DISK)
    assert np.array_equal(a, b)
    assert a.std() > 20


def test_the_whole_step_learns_and_the_bare_one_does_not(rig):
    before = rig.student.arrays()
    next(rig.bare())
    same = [np.array_equal(value, before[name]) for name, value in rig.student.arrays().items()]
    weights = ["running" not in name and "num_batches" not in name for name in before]
    assert all(s for s, is_weight in zip(same, weights, strict=True) if is_weight)
    steps = rig.fit.pairs.step
    with closing(rig.whole()) as running:
        for _ in range(3):
            next(running)
    assert rig.fit.pairs.step == steps + 3
    changed = [not np.array_equal(value, before[name]) for name, value in rig.student.arrays().items()]
    assert any(c for c, is_weight in zip(changed, weights, strict=True) if is_weight)


@pytest.mark.parametrize("n", ["0", str(training.PLANNED - training.AHEAD)])
def test_more_steps_than_batches_are_refused(n, capsys):
    with pytest.raises(SystemExit):
        training.main(["--quick", "--steps", n])
    assert f"--steps: {n}, expected 1 to" in capsys.readouterr().err


def test_the_fed_step_reads_the_batches_of_the_whole(rig, monkeypatch):
    def read_in(steps):
        asked, real = [], training.ArrayCrops.read

        def read(crops, rows):
            asked.append(rows)
            return real(crops, rows)

        with monkeypatch.context() as patch:
            patch.setattr(training.ArrayCrops, "read", read)
            with closing(steps()) as running:
                for _ in range(3):
                    next(running)
        return asked[:3]  # further ones may be ahead

    for fed, whole in zip(read_in(rig.fed), read_in(rig.whole), strict=True):
        assert np.array_equal(fed, whole)


def test_memory_counts_both_steps(monkeypatch):
    asked = []

    def peak(setup, function, case, which, seed):
        asked.append(which)
        function(setup(case, which, seed))
        return measure.Peak(len(asked), 0)

    monkeypatch.setattr(training.measure, "peak_memory", peak)
    assert training.memory(SMALL, 0) == {"bare_memory_bytes": 1, "whole_memory_bytes": 2}
    assert asked == ["bare", "whole"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_resnet50_waits_for_no_pictures(tmp_path):
    """64 tracklets × 4 frames in float32 and bfloat16: images a second, and the bar on waiting holds."""
    few = ["--rigs", "1", "--steps", "4"]
    training.main(["--device", "cuda", *few, "--out", str(tmp_path)])
    cases = json.loads((tmp_path / "training.json").read_text())["result"]["cases"]
    assert {case["case"]["precision"] for case in cases.values()} == {"float32", "bfloat16"}
    for case in cases.values():
        for source in case["sources"].values():
            assert source["waiting"] < 0.05
            assert source["whole"]["images_per_s"] > 0
