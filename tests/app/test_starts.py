"""What `--weights` names: runs to go on from, published networks, and what the next run says of them."""

import json
import shutil
import warnings

import numpy as np
import pytest

import tracklearn as tl
from tests.app.conftest import QUICK
from tracklearn.app.pipeline.plan import plan_training
from tracklearn.learn import backbone
from tracklearn.store import published, weights
from tracklearn.store.files import hash_file, read_arrays, read_json
from tracklearn.store.runs import Run, RunWriter
from tracklearn.store.sealed import write_sealed

SETTINGS = [part for setting in QUICK for part in ("--set", setting)]
SIZE = {"height": 96, "width": 48}


def made_run(path, *seeds, labels=(), **settings):
    """A finished run with a network of each seed, as training leaves it."""
    networks = [backbone.build(backbone.Config(**SIZE, **settings), seed=seed) for seed in seeds]
    manifest = {
        "digest": "0" * 64,
        "method": "tmc",
        "network": networks[0].config.model_dump(mode="json"),
        "labels_used": list(labels),
        "set": {"path": "../set", "digest": "5e7"},
    }
    with RunWriter(path, manifest) as writer:
        writer.finish([network.arrays() for network in networks], networks[0].metadata(), seconds={})
    return networks


def planned(spec, *overrides, method="tmc", **options):
    options = {"preset": "cpu", "device": "cpu", **options}
    return plan_training("no-set", method=method, weights=str(spec), overrides=overrides, **options)


def test_a_run_gives_its_teacher_its_network_and_its_crop_size(tmp_path):
    (network,) = made_run(tmp_path / "day1", 5, backbone="tiny", last_stride=1, pooling="gem")
    plan = planned(tmp_path / "day1")
    assert plan.network == network.config  # the preset alone would take 128 × 64
    (start,) = plan.starts
    assert start.arrays.keys() == network.arrays().keys()
    assert all(np.array_equal(start.arrays[k], v) for k, v in network.arrays().items())  # the neck too
    assert plan.weights == {
        "name": "day1/weights.safetensors",
        "sha256": hash_file(tmp_path / "day1" / "weights.safetensors"),
    }
    made = plan.network_of(start, seed=0)
    assert (made.start, made.pool.p.item()) == ("loaded", 3.0)


@pytest.mark.parametrize("preset", ["cpu", "gpu"])
def test_what_a_preset_says_of_networks_does_not_hold_for_osnet_s_weights(tmp_path, preset):
    made = backbone.build(backbone.Config(backbone="osnet_x0_25"), seed=3)
    path = weights.save(tmp_path / "osnet.safetensors", made.arrays(), made.metadata())
    assert planned(path, preset=preset).network == made.config  # 256×128, mean pooling, stride 2
    own = planned(path, "network.height=160", "network.width=80", preset=preset).network
    assert (own.height, own.width, own.pooling, own.last_stride) == (160, 80, "avg", 2)
    bare = planned("none", "network.backbone=osnet_x0_25", preset="cpu").network
    assert (bare.height, bare.width) == (128, 64)


def test_the_user_s_own_settings_stand_above_the_run_s(tmp_path):
    made_run(tmp_path / "day1", 5, backbone="tiny", last_stride=1, pooling="gem")
    (tmp_path / "own.toml").write_text("[network]\nheight = 128\nlast_stride = 2\n")
    plan = planned(
        tmp_path / "day1", "network.width=64", "network.pooling=avg", config_file=tmp_path / "own.toml"
    )
    chosen = plan.network
    assert (chosen.height, chosen.width, chosen.last_stride, chosen.pooling) == (128, 64, 2, "avg")
    assert "pool.p" not in plan.starts[0].arrays
    extra = {"network": {"height": 160}}
    assert planned(tmp_path / "day1", extra=extra).network.height == 160
    given = backbone.Config(backbone="tiny", height=64, width=32)
    with pytest.raises(ValueError, match=r"unknown: pool\.p\): set network\.pooling = gem"):
        planned(tmp_path / "day1", network=given)
    plan = planned(tmp_path / "day1", network=given.model_copy(update={"pooling": "gem"}))
    assert plan.network.height == 64
    with pytest.raises(ValueError, match="are of tiny, not resnet50"):
        planned(tmp_path / "day1", "network.backbone=resnet50")


def test_a_neck_of_another_feature_is_begun_anew(tmp_path):
    made_run(tmp_path / "day1", 5, backbone="osnet_x0_25")
    plan = planned(tmp_path / "day1", "network.feature=pooled")
    assert plan.network_of(plan.starts[0], seed=0).feature_dim == 128
    assert not any(name.startswith("neck.") for name in plan.starts[0].arrays)
    made_run(tmp_path / "day2", 5, backbone="osnet_x0_25", feature="pooled")
    assert planned(tmp_path / "day2").network.feature == "pooled"
    with pytest.raises(ValueError, match=r"fc\.1\.bias, …\): set network\.feature = pooled, with which"):
        planned(tmp_path / "day2", "network.feature=embedding")
    file = tmp_path / "day1" / "weights.safetensors"  # a file does not tell what its neck stood behind
    with pytest.raises(
        ValueError, match=r"neck\.bias \(512,\) for \(128,\).*: set network\.feature as it was"
    ):
        planned(file, "network.feature=pooled")


def test_two_networks_go_to_a_method_with_two(tmp_path):
    made_run(tmp_path / "day1", 5, 6, backbone="tiny")
    made_run(tmp_path / "day2", 7, backbone="tiny")
    one, two = tmp_path / "day1", tmp_path / "day2"
    assert [s.info.name for s in planned(one, method="mmt").starts] == [
        "day1/weights.safetensors",
        "day1/weights2.safetensors",
    ]
    assert [s.info.name for s in planned(one).starts] == ["day1/weights.safetensors"]
    assert [s.info.name for s in planned(two, method="mmt").starts] == ["day2/weights.safetensors"]
    assert [s.info.name for s in planned(f"{one},{two}", method="mmt").starts] == [
        "day1/weights.safetensors",
        "day2/weights.safetensors",
    ]
    mixed = planned(f"{two / 'weights.safetensors'},{one}", method="mmt")
    assert [s.info.name for s in mixed.starts] == ["weights.safetensors", "day1/weights.safetensors"]
    assert mixed.network.height == 96
    with pytest.raises(ValueError, match=r"are 2 files, method tmc trains 1 network"):
        planned(f"{one},{two}")


def test_what_is_no_finished_run_is_one_line(tmp_path):
    made_run(tmp_path / "work" / "run", 5, backbone="tiny")
    run = tmp_path / "work" / "run"

    def refused(path):
        with pytest.raises(ValueError) as caught:
            planned(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert f"did you mean {run}?" in refused(tmp_path / "work")
    (tmp_path / "empty").mkdir()
    assert "is not a run" in refused(tmp_path / "empty")
    manifest = read_json(run / "manifest.json")
    for change, message in (
        ({"status": "training"}, "is not finished: go on with"),
        ({"kind": "gallery"}, "is not a run but a gallery"),
        ({"schema": 99}, "update to read it"),
        ({"network": None}, "is damaged ('network' is NoneType)"),
        ({"network": {**manifest["network"], "depth": 3}}, "setting network.depth is unknown"),
    ):
        write_sealed(run / "manifest.json", {**manifest, **change})
        assert message in refused(run)
    write_sealed(run / "manifest.json", manifest)
    whole = (run / "weights.safetensors").read_bytes()
    (run / "weights.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "weights.safetensors is damaged" in refused(run)
    (run / "weights.safetensors").unlink()
    assert "weights.safetensors is damaged" in refused(run)
    assert "no weights at" in _missing(tmp_path / "nothing")


def _missing(path):
    with pytest.raises(FileNotFoundError) as caught:
        planned(path)
    return str(caught.value)


def test_what_a_run_owes_to_labels_is_told_of_those_after_it(tmp_path):
    noise = "tracklets were made with labels: noise at r_FM 1.7, r_SW 1.2"
    msmt = "the starting weights were trained with labels on MSMT17"
    made_run(tmp_path / "day1", 5, backbone="tiny", labels=[noise, msmt])
    once = (f"the starting weights are of a run: {noise}", msmt)
    (start,) = planned(tmp_path / "day1").starts
    assert start.info.labels == once
    made_run(tmp_path / "day2", 5, backbone="tiny", labels=once)
    assert planned(tmp_path / "day2").starts[0].info.labels == once


@pytest.fixture
def author_s_file(tmp_path, monkeypatch):
    """The named network's file as if it had been downloaded."""
    cache = tmp_path / "cache"
    cache.mkdir()
    network = backbone.build(backbone.Config(backbone="osnet_x0_25"), seed=3)
    import torch

    torch.save(network.state_dict(), cache / published.NAMED["osnet_x0_25"].name)
    monkeypatch.setenv("TRACKLEARN_CACHE", str(cache))


def test_a_published_network_is_told_of_and_recorded(done, call, author_s_file):
    tracklets = done["out"] / "set"
    code, out, err = call("train", tracklets, "--out", "run", "--weights", "osnet_x0_25", *SETTINGS, "--json")
    assert code == 0, err
    line = "the starting weights were trained with labels on MSMT17"
    assert err.count(f"{line}: know the terms of that data set") == 1
    assert json.loads(out)["labels_used"] == [line]
    manifest = Run("run").manifest
    assert (manifest["weights"]["name"], manifest["network"]["backbone"]) == ("osnet_x0_25", "osnet_x0_25")
    assert manifest["earlier_sets"] == []
    # The file says so too, wherever it goes.
    assert weights.load("run/weights.safetensors", backbone=None)[1].labels == (line,)
    # From Python it is a warning.
    with pytest.warns(UserWarning, match="trained with labels on MSMT17: know"):
        tl.train(tracklets, out="other", weights="osnet_x0_25", settings=QUICK, device="cpu", preset="cpu")


def test_training_goes_on_from_yesterday(done, call, tmp_path):
    yesterday, tracklets = done["out"] / "run", done["out"] / "set"
    options = ["--weights", yesterday, "--set", "tmc.epochs=1", "--set", "tmc.iterations=2"]
    code, _, err = call("train", tracklets, "--out", "run", *options)
    assert code == 0, err
    today = Run("run")
    assert today.manifest["network"] == Run(yesterday).manifest["network"]
    assert today.manifest["weights"] == {
        "name": "run/weights.safetensors",
        "sha256": hash_file(yesterday / "weights.safetensors"),
    }
    before, start = (
        read_arrays(path)[0] for path in (yesterday / "weights.safetensors", today.path / "start.safetensors")
    )
    assert before.keys() == start.keys()
    assert all(np.array_equal(before[name], start[name]) for name in before)
    (seen,) = today.manifest["earlier_sets"]
    assert (today.path / seen["path"]).resolve() == tracklets.resolve()
    # A run that follows it knows both sets; here they are the same.
    code, _, err = call("train", tracklets, "--out", "next", *options[2:], "--weights", "run")
    assert code == 0, err
    assert Run("next").manifest["earlier_sets"] == [{**seen, "path": seen["path"]}]


def test_a_run_is_not_written_over_the_one_it_starts_from(done, call, sources, tmp_path):
    shutil.copytree(done["out"], "work")
    before = (tmp_path / "work" / "run" / "manifest.json").read_bytes()
    for options in (["run", *sources, "--out", "work"], ["train", "work/set", "--out", "work/run"]):
        code, _, err = call(*options, "--resume", "--weights", "work/run", *SETTINGS)
        assert code == 2
        assert "lies in work/run, which the training is to write: choose another --out" in err
    assert (tmp_path / "work" / "run" / "manifest.json").read_bytes() == before


def test_named_weights_are_no_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("none", "osnet_x0_25"):
        (tmp_path / name).mkdir()
        assert weights.is_name(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert planned("none").starts[0].info.name == "none"
