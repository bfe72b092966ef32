"""Weights files that others wrote: read rightly, or refused in one line that says what to do."""

import io
import json
import os
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save as encode

from tracklearn.store import weights, weights_files

KEY = "layer2.conv2.weight"  # names the tiny backbone
W = torch.arange(-8.0, 8.0).reshape(4, 4)


def saved(path, content, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, path, **options)
    return path


def raw_safetensors(path, header, body=bytes(4)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


READ = {
    "a parameter": torch.nn.Parameter(W),
    "bfloat16": W.bfloat16(),
    "float16": W.half(),
    "float64": W.double(),
    "turned": W.t().contiguous().t(),
    "part of a larger one": torch.cat([W, W + 1])[:4],
    "repeated": W[:1].expand(4, 4),
    "negated in place": torch._neg_view(-W),
}


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("what", READ)
def test_usual_and_unusual_tensors_are_read_as_their_numbers(tmp_path, what, suffix):
    tensor = READ[what]
    expected = tensor.detach().resolve_neg().float().numpy()
    path = tmp_path / f"w.{suffix}"
    if suffix == "pth":
        saved(path, {KEY: tensor})
    else:
        path.write_bytes(encode({KEY: tensor.detach().resolve_neg().contiguous()}))
    array = weights.load(path, backbone="tiny")[0][KEY]
    assert np.array_equal(array, expected)
    assert array.flags["C_CONTIGUOUS"]
    assert array.flags["OWNDATA"]


def test_arrays_stay_when_the_file_is_written_over(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(encode({KEY: W}))
    array = weights.load(path, backbone=None)[0][KEY]
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert np.array_equal(array, W.numpy())


def test_two_names_of_one_array_are_two_arrays(tmp_path):
    path = saved(tmp_path / "w.pth", {KEY: W, "other": W})
    arrays, _ = weights.load(path, backbone=None)
    arrays["other"][:] = 0
    assert np.array_equal(arrays[KEY], W.numpy())


REFUSED = {
    "quantised": (lambda: torch.quantize_per_tensor(W, 0.1, 0, torch.qint8), r"dequantize\(\)"),
    "meta": (lambda: W.to("meta"), "on the device meta, without its numbers"),
    "sparse": (lambda: W.to_sparse(), r"sparse: save tensor\.to_dense\(\)"),
    "compressed rows": (lambda: W.to_sparse_csr(), "sparse"),
    "complex": (lambda: torch.complex(W, W), r"complex64: save real numbers"),
    "conjugated": (lambda: torch.complex(W, W).conj(), "complex64"),
    "of truths": (lambda: W > 0, "bool"),
    "float8": (lambda: W.to(torch.float8_e4m3fn), r"float8_e4m3fn: save real numbers"),
    "uint16": (lambda: W.abs().to(torch.uint16), "uint16"),
    "larger than its file": (lambda: torch.ones(1).expand(10**12), r"more than the file holds: .*clone\(\)"),
    "nan": (lambda: W * float("nan"), "not finite"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_plain_array_is_refused_with_what_to_save(tmp_path, what):
    make, message = REFUSED[what]
    path = saved(tmp_path / "w.pth", {KEY: W, "other.weight": make()})
    with pytest.raises(ValueError, match=message) as caught:
        weights.load(path, backbone=None)
    assert str(path) in str(caught.value)
    assert "other.weight" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "name"),
    [("F8_E4M3", "float8"), ("C64", "complex64"), ("BOOL", "bool"), ("U16", "uint16"), ("F8_E5M2", "float8")],
)
def test_the_same_holds_of_safetensors(tmp_path, dtype, name):
    n = {"C64": 1, "U16": 4}.get(dtype, 8)
    header = {KEY: {"dtype": dtype, "shape": [n], "data_offsets": [0, 8]}}
    with pytest.raises(ValueError, match=rf"w\.safetensors: {KEY} is of type {name}.*save real numbers"):
        weights.load(raw_safetensors(tmp_path / "w.safetensors", header, bytes(8)), backbone=None)


LOOP: dict = {"epoch": 1}
LOOP["state_dict"] = LOOP


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({KEY: W, 3: W}, "name an array 3, which is no text"),
        ({KEY: W, (1, "a"): W}, "which is no text"),
        ({KEY: W, f"module.{KEY}": W}, f"hold {KEY} twice, with `module.` and without"),
        ({"student": {KEY: W}, "teacher": {KEY: W}}, r"state_dict, model, network \(they hold student, t"),
        ({"state_dict": [W]}, "they hold state_dict"),
        (LOOP, "they hold epoch, state_dict"),
        ({}, "they hold nothing"),
        ("words", "they hold one str"),
        (None, "they hold one NoneType"),
        (W, "they hold one Tensor"),
        ({KEY: W.numpy()}, r"Unsupported global: GLOBAL numpy.*convert it to safetensors"),
    ],
)
def test_other_containers_are_named(tmp_path, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        weights.load(saved(tmp_path / "w.pth", content), backbone=None)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_program_and_a_module_are_called_so(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.ReLU()), str(tmp_path / "jit.pth"))
    torch.save(torch.nn.ReLU(), tmp_path / "module.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, message in (("jit.pth", "a TorchScript program"), ("module.pth", "GLOBAL torch.nn.*ReLU")):
            with pytest.raises(ValueError, match=message):
                weights.load(tmp_path / name, backbone=None)


@pytest.mark.parametrize("entry", ["archive/data.pkl", "archive/data/0"])
def test_a_zip_bomb_is_never_unpacked(tmp_path, entry):
    buffer = io.BytesIO()
    torch.save({KEY: torch.zeros(1 << 22)}, buffer)
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in whole.namelist():
            packed.writestr(name, bytes(1 << 24) if name == entry else whole.read(name))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"unpack to \d+.*save the state dict again"):
        weights.load(path, backbone=None)
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


@pytest.mark.parametrize("place", ["all", "meta"])
def test_deep_json_is_not_followed(tmp_path, place):
    deep = b"[" * 100_000 + b"]" * 100_000
    entry = {KEY: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    if place == "all":
        with pytest.raises(ValueError, match="recursion limit"):
            weights.load(raw_safetensors(tmp_path / "w.safetensors", b'{"a":' + deep + b"}"), backbone=None)
        return
    header = {"__metadata__": {"meta": deep.decode()}, **entry}
    info = weights.load(raw_safetensors(tmp_path / "w.safetensors", header), backbone=None)[1]
    assert info.metadata["meta"] == deep.decode()  # another program's, kept as it is


@pytest.mark.parametrize(
    "text", ["x", "null", "3", '["a", "b", "c"]', "[NaN, 0, 0]", "[[1], [2], [3]]", "[1e999, 1, 1]", "[1, 1]",
             "[" * 100_000, "[" + "9" * 5000 + ", 1, 1]", "[0, 1, 1]"],
)  # fmt: skip
def test_a_header_s_pixels_are_three_numbers_or_refused(tmp_path, text):
    path = weights.save(
        tmp_path / "w.safetensors", {KEY: W.numpy()}, {"pixel_mean": "[0.5, 0.5, 0.5]", "pixel_std": text}
    )
    with pytest.raises(ValueError, match=r"w\.safetensors: pixel_.* in the header.*") as caught:
        weights.load(path, backbone=None)
    assert len(str(caught.value)) < 600


def test_norms_without_a_variance_are_not_folded():
    arrays = {"a.running_mean": np.zeros(2), "a.bias": np.ones(2)}
    assert not weights.is_folded(arrays)


@pytest.mark.parametrize("reader", ["pth", "safetensors"])
def test_a_lack_of_memory_is_not_called_damage(tmp_path, monkeypatch, reader):
    def short(*args, **options):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    monkeypatch.setattr(torch, "load", short)
    monkeypatch.setattr("safetensors.safe_open", short)
    path = tmp_path / f"w.{reader}"
    path.write_bytes(b"")
    with pytest.raises(MemoryError, match=f"w.{reader} need more memory"):
        weights_files.read(path)


@pytest.mark.parametrize("suffix", ["pth", "safetensors", "legacy.pth"])
def test_a_damaged_file_is_read_or_refused_but_never_a_traceback(tmp_path, suffix):
    """Bytes changed, cut and doubled at random places; every outcome is numbers or one line."""
    rng = np.random.default_rng(0)
    path = tmp_path / f"w.{suffix}"
    if suffix == "safetensors":
        path.write_bytes(encode({KEY: W, "layer2.bn.weight": W[0].clone()}))
    else:
        saved(path, {KEY: W, "n": torch.tensor(3)}, _use_new_zipfile_serialization=suffix == "pth")
    whole, refused = path.read_bytes(), []
    for _ in range(300):
        broken = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 800), rng.integers(1, 4)):
            broken[place] = rng.integers(0, 256)
        if rng.random() < 0.3:
            del broken[int(rng.integers(1, len(broken))) :]
        path.write_bytes(broken)
        try:
            weights.load(path, backbone=None)
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) > 50
    assert all(str(path) in line and "\n" not in line for line in refused)


def test_an_archive_that_cannot_be_listed_is_refused_and_not_tried(tmp_path, monkeypatch):
    """torch unpacks by a library of its own: what the bound cannot look into must not get past it."""
    import torch

    path = tmp_path / "w.pth"
    torch.save({KEY: torch.zeros(3)}, path)

    def unlistable(*_):
        raise zipfile.BadZipFile("Bad magic number for central directory")

    monkeypatch.setattr(zipfile.ZipFile, "infolist", unlistable)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch was asked"))
    with pytest.raises(ValueError, match=r"w\.pth are a damaged archive \(Bad magic number"):
        weights_files.read(path)


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs a file that opens and cannot be read")
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_whose_disk_fails_is_named(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    path.symlink_to("/proc/self/mem")
    with pytest.raises(ValueError, match=rf"weights \S*w\{suffix} cannot be read \("):
        weights_files.read(path)
