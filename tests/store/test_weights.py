import errno
import json
import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.numpy import save as encode

from tracklearn.learn.network import NAMES
from tracklearn.store import weights

RNG = np.random.default_rng(0)


def mobilenet_like(**extra):
    return {
        "features.18.0.weight": RNG.normal(size=(4, 2, 1, 1)).astype(np.float32),
        "features.18.1.weight": np.full(4, 1.5, np.float32),
        "features.18.1.bias": np.ones(4, np.float32),
        "features.18.1.running_mean": np.zeros(4, np.float32),
        "features.18.1.running_var": np.ones(4, np.float32),
        **extra,
    }


def test_none_is_open_and_empty():
    arrays, info = weights.load("none", backbone="tiny")
    assert arrays == {}
    assert (info.name, info.path, info.backbone, info.sha256) == ("none", None, "tiny", "")


def test_safetensors_round_trip_with_its_header(tmp_path):
    path = tmp_path / "w.safetensors"
    scrambled = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)
    header = {"pixel_mean": "[0.5, 0.4, 0.3]", "pixel_std": "[0.1, 0.2, 0.3]", "asymmetric_padding": "true"}
    assert weights.save(path, mobilenet_like(extra=scrambled), header) == path
    arrays, info = weights.load(path, backbone=None)
    assert np.array_equal(arrays["extra"], scrambled)
    assert info.backbone == "mobilenet_v2"
    assert (info.pixel_mean, info.pixel_std) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    assert info.asymmetric_padding
    assert not info.folded
    assert info.name == "w.safetensors"
    assert len(info.sha256) == 64
    assert info.to_dict()["path"] == str(path)
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    weights.save(path, mobilenet_like(), {})
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="the disk is full"):
        weights.save(path, mobilenet_like(more=np.ones(9, np.float32)), {})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_notes_come_back_as_the_text_they_were(tmp_path):
    notes = {
        "n": "[1, 2]",
        "flag": "true",
        "words": 'a \u00e9 "b"',
        "number": "1e3",
        "meta": "{}",
        "empty": "",
    }
    weights.save(tmp_path / "w.safetensors", mobilenet_like(), notes)
    assert weights.load(tmp_path / "w.safetensors", backbone=None)[1].metadata == notes


def test_equal_weights_are_equal_files(tmp_path):
    arrays = mobilenet_like()
    notes = {name: str(i) for i, name in enumerate("abcdefgh")}
    first = weights.save(tmp_path / "1.safetensors", arrays, notes)
    second = weights.save(
        tmp_path / "2.safetensors", dict(reversed(arrays.items())), dict(reversed(notes.items()))
    )
    assert first.read_bytes() == second.read_bytes()


def test_a_saved_file_may_be_read_by_whom_the_umask_lets(tmp_path):
    before = os.umask(0o022)
    try:
        path = weights.save(tmp_path / "w.safetensors", mobilenet_like(), {})
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_notes_of_lists_and_flags_are_read(tmp_path):
    path = tmp_path / "weights.safetensors"
    notes = {"kind": "teacher", "pixel_mean": [0.5] * 3, "pixel_std": [0.5] * 3, "asymmetric_padding": True}
    path.write_bytes(encode(mobilenet_like(), metadata={"meta": json.dumps(notes)}))
    info = weights.load(path, backbone=None)[1]
    assert info.pixel_std == (0.5, 0.5, 0.5)
    assert info.asymmetric_padding
    assert info.metadata["kind"] == "teacher"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('["tracklets were made with labels"]', "are of a run: tracklets were made with labels"),
        ('["the starting weights were trained with labels on X"]', "were trained with labels on X"),
        ("none, honestly", "are of a run: none, honestly"),
        ("[" * 2000, "are of a run: " + "[" * 200),
    ],
)
def test_what_a_file_owes_to_labels_is_read(tmp_path, text, told):
    weights.save(tmp_path / "w.safetensors", mobilenet_like(), {"labels_used": text})
    assert weights.load(tmp_path / "w.safetensors", backbone=None)[1].labels == (
        f"the starting weights {told}",
    )


@pytest.mark.parametrize("text", ["made by hand", "[1]", "3"])
def test_another_program_s_meta_is_kept_as_it_is(tmp_path, text):
    path = tmp_path / "w.safetensors"
    path.write_bytes(encode(mobilenet_like(), metadata={"meta": text, "author": "x"}))
    assert weights.load(path, backbone=None)[1].metadata == {"meta": text, "author": "x"}


def test_shared_file_with_norms_of_its_own_is_recognised(data):
    arrays, info = weights.load(data / "weights" / "mobilenet_v2_imagenet_float.safetensors", backbone=None)
    assert (info.backbone, info.folded, info.asymmetric_padding) == ("mobilenet_v2", False, False)
    assert (info.pixel_mean, info.pixel_std) == (weights.IMAGENET_MEAN, weights.IMAGENET_STD)
    assert arrays["features.0.0.weight"].dtype == np.float32


def test_shared_file_with_folded_norms_is_recognised(data):
    arrays, info = weights.load(data / "weights" / "mobilenet_v2_imagenet.safetensors", backbone=None)
    assert info.backbone == "mobilenet_v2"
    assert info.folded
    assert info.asymmetric_padding
    assert info.pixel_mean == info.pixel_std == (0.5, 0.5, 0.5)
    assert arrays["features.0.0.weight"].dtype == np.float16
    with pytest.raises(ValueError, match="are of mobilenet_v2, not resnet50"):
        weights.load(info.path, backbone="resnet50")


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        ("osnet_x0_25_imagenet", "osnet_x0_25"),
        ("osnet_x0_25_msmt17_combineall", "osnet_x0_25"),
        ("osnet_x0_5_msmt17", "osnet_x0_5"),
    ],
)
def test_shared_osnets_are_recognised(data, name, backbone):
    arrays, info = weights.load(data / "weights" / f"{name}.safetensors", backbone=None)
    assert (len(arrays), info.backbone, info.folded) == (485, backbone, True)
    assert info.pixel_mean == weights.IMAGENET_MEAN


def test_unknown_preprocessing_is_refused(tmp_path):
    weights.save(tmp_path / "w.safetensors", mobilenet_like(), {"preprocess": "BGR, x-104"})
    with pytest.raises(ValueError, match="BGR, x-104"):
        weights.load(tmp_path / "w.safetensors", backbone=None)


@pytest.mark.parametrize(
    ("change", "folded"),
    [
        ({"features.18.1.weight": np.ones(4)}, True),
        ({"features.18.1.weight": np.ones(4), "features.18.1.bias": np.zeros(4)}, False),
        ({"features.18.1.weight": np.ones(4), "features.18.1.running_mean": np.ones(4)}, False),
        ({"features.18.1.weight": np.ones(4), "features.18.1.running_var": np.full(4, 2)}, False),
        ({"features.18.1.weight": np.ones(4), "neck.running_mean": np.ones(4)}, True),
        ({"features.18.1.weight": np.ones(4), "fc.1.running_mean": np.ones(4)}, True),
        ({}, False),
    ],
)
def test_folded_norms_are_told_by_content(change, folded):
    assert weights.is_folded(mobilenet_like(**change)) is folded


@pytest.mark.parametrize(
    ("names", "backbone"),
    [
        (["layer1.0.bn3.weight", "layer1.0.bn1.weight"], "resnet50"),
        (["layer1.0.bn3.weight", "layer1.0.bn1.IN.weight"], "ibn_resnet50_a"),
        (["features.18.0.weight"], "mobilenet_v2"),
        (["layer2.conv2.weight"], "tiny"),
        (["layer1.0.bn3.weight", "layer3.6.conv1.weight"], None),
        (["blocks.0.attn.qkv.weight"], None),
        ([], None),
    ],
)
def test_backbone_is_inferred_from_names(names, backbone):
    assert weights.infer_backbone(dict.fromkeys(names)) == backbone


@pytest.mark.parametrize(
    ("change", "backbone"),
    [
        ({"conv1.conv.weight": np.ones((64, 3, 7, 7))}, "osnet_x1_0"),
        ({"conv1.conv.weight": np.ones((48, 3, 7, 7))}, "osnet_x0_75"),
        ({"conv1.conv.weight": np.ones((32, 3, 7, 7))}, "osnet_x0_5"),
        ({"conv1.conv.weight": np.ones((16, 3, 7, 7))}, "osnet_x0_25"),
        ({"conv1.conv.weight": np.ones((96, 3, 7, 7))}, None),
        ({"conv1.conv.weight": np.ones(())}, None),
        ({"conv1.conv.weight": np.ones((64, 3, 7, 7)), "conv2.0.IN.weight": np.ones(256)}, None),  # OSNet-IBN
        ({}, None),
    ],
)
def test_osnets_width_is_told_by_its_stem(change, backbone):
    arrays = {"conv2.0.conv2d.3.conv2.weight": np.ones((4, 1, 3, 3)), **change}
    assert weights.infer_backbone(arrays) == backbone


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
def test_torch_files_are_unwrapped(tmp_path, wrap):
    state = {f"module.{k}": torch.from_numpy(v) for k, v in mobilenet_like().items()}
    state["module.features.18.1.bias"] = state["module.features.18.1.bias"].bfloat16()
    path = tmp_path / "w.pth"
    torch.save({wrap: state, "epoch": 3} if wrap else state, path)
    arrays, info = weights.load(path, backbone="mobilenet_v2")
    assert arrays.keys() == mobilenet_like().keys()
    assert arrays["features.18.1.bias"].dtype == np.float32
    assert info.pixel_mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("zipped", [True, False])
def test_scores_beside_the_state_dict_are_left_out(tmp_path, zipped):
    """torchreid keeps rank-1, numpy's number, and the state of its optimiser."""
    state = {k: torch.from_numpy(v) for k, v in mobilenet_like().items()}
    kept = {
        "rank1": np.float32(0.5),
        "mAP": np.float64(0.25),
        "epoch": np.int64(150),
        "optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.0015, "params": [0]}]},
    }
    path = tmp_path / "w.pth"
    torch.save({"state_dict": state, **kept}, path, _use_new_zipfile_serialization=zipped)
    arrays = weights.load(path, backbone="mobilenet_v2")[0]
    assert arrays.keys() == state.keys()
    assert all(np.array_equal(arrays[k], mobilenet_like()[k]) for k in ("features.18.1.weight",))
    torch.save({**state, "features.18.1.weight": np.float32(0.5)}, path)
    assert "features.18.1.weight" not in weights.load(path, backbone="mobilenet_v2")[0]


class Malicious:
    def __reduce__(self):
        return os.system, ("touch harmed",)


@pytest.mark.parametrize("content", [Malicious(), {"state_dict": {"features.18.0.weight": Malicious()}}])
def test_code_in_a_pickle_is_never_run(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(content, protocol=2))
    torch.save(content, tmp_path / "zip.pth")
    for name in ("raw.pth", "zip.pth"):
        with pytest.raises(ValueError, match="not a torch file of plain tensors") as caught:
            weights.load(tmp_path / name, backbone=None)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 broken", b"\x80\x02}q\x00", b"plain text, no weights", b"\0" * 99]
)
def test_garbage_is_one_clear_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name) as caught:
        weights.load(tmp_path / name, backbone=None)
    assert "\n" not in str(caught.value)


def test_cut_off_files_are_refused(tmp_path):
    weights.save(tmp_path / "w.safetensors", mobilenet_like(), {})
    torch.save({k: torch.from_numpy(v) for k, v in mobilenet_like().items()}, tmp_path / "w.pth")
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(ValueError, match=path.name):
            weights.load(path, backbone=None)


def test_other_faults_of_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a file, a run, `imagenet`, `osnet_x0_25`, .*or `none`"):
        weights.load(tmp_path / "absent.pth", backbone=None)
    (tmp_path / "w.onnx").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"unknown kind \.onnx"):
        weights.load(tmp_path / "w.onnx", backbone=None)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="no tensors by name"):
        weights.load(tmp_path / "list.pth", backbone=None)
    weights.save(tmp_path / "vit.safetensors", {"blocks.0.attn": np.ones(2)}, {})
    with pytest.raises(ValueError, match=r"no known backbone \(it holds blocks\.0\.attn"):
        weights.load(tmp_path / "vit.safetensors", backbone=None)
    weights.save(tmp_path / "nan.safetensors", mobilenet_like(bad=np.array([1, np.nan])), {})
    with pytest.raises(ValueError, match="bad has values that are not finite"):
        weights.load(tmp_path / "nan.safetensors", backbone=None)


def test_every_backbone_is_known_by_its_arrays():
    """What is left out there trains to its end, and then nothing can open the run."""
    assert set(weights.BACKBONES) == set(NAMES)
