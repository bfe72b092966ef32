"""Files of an exported network, and each of them opened again as who gets it would open it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn import runtimes
from tracklearn.core import threads
from tracklearn.store import weights
from tracklearn.store.detect import first_contact, model_files
from tracklearn.store.files import first_line, hash_file, sync_file, write_atomic
from tracklearn.types import Array, Crops, Refusal

if TYPE_CHECKING:
    from tracklearn.learn.network import Network

Run = Callable[[Array], Array]  # pictures (n, 3, h, w) float32, as the file takes them, to features (n, d)
Pixels = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation applied outside
_BATCH = 16
_PART = 64


def notes(network: Network, pixels: Pixels, more: Mapping[str, str]) -> dict[str, str]:
    """What an .onnx file says of itself; `ExportedModel` reads the first three."""
    mean, std = (" ".join(f"{value:g}" for value in values) for values in pixels)
    given = {"pixel_mean": mean, "pixel_std": std, "interpolation": "bicubic"}
    return {**given, "architecture": network.config.backbone, **more}


def annotated(data: bytes, said: Mapping[str, str]) -> bytes:
    """An .onnx file with these notes and no others, found sound.

    Raises:
        ValueError: the package `onnx` is missing.
    """
    onnx = runtimes.load("onnx")
    model = onnx.load_from_string(data)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(said))
    onnx.checker.check_model(model)
    return model.SerializeToString()


def open_onnx(path: Path) -> Run:
    """By onnxruntime, with as many threads as torch has."""
    first_contact.try_out("onnxruntime", path)
    return _batched(model_files.open_onnx(path, n_threads=threads.n_threads()).run, _BATCH)


def write_openvino(data: bytes, path: Path, *, shape: tuple[int, ...]) -> None:
    """The IR, .xml and .bin, of an .onnx file, for one picture at a time and in full precision.

    Raises:
        ValueError: OpenVINO is missing, or does not read the network.
    """
    openvino = runtimes.load("openvino")
    source = path.with_suffix(".onnx")
    source.write_bytes(data)
    try:
        model = openvino.convert_model(str(source))
        model.reshape([1, *shape])
        openvino.save_model(model, str(path), compress_to_fp16=False)
    except RuntimeError as error:
        raise Refusal(f"OpenVINO cannot convert the network: {first_line(error)}") from error
    finally:
        source.unlink()
    for file in (path, path.with_suffix(".bin")):
        sync_file(file)


def open_openvino(path: Path) -> Run:
    """Picture by picture, as the file is made."""
    first_contact.try_out("openvino", path)
    return _batched(model_files.open_openvino(path).run, 1)


def open_torchscript(path: Path) -> Run:
    """The file's own module."""
    import torch

    from tracklearn.learn import export

    module = export.read_torchscript(path.read_bytes())

    def run(given: Array) -> list[Array]:
        with torch.no_grad():
            return [module(torch.from_numpy(given)).numpy()]

    return _batched(run, _BATCH)


def open_arrays(path: Path, like: Network) -> Run:
    """A network built anew from the arrays of a file, with its neck where the file has one."""
    from tracklearn.app.pipeline.starts import load_weights
    from tracklearn.learn import backbone

    arrays, info = weights.load(path, backbone=like.config.backbone)
    network = backbone.build(like.config, seed=0)
    loaded = load_weights(network, arrays, info)
    return partial(run_network, network.eval(), neck=loaded.neck)


def run_network(network: Network, given: Array, *, neck: bool) -> Array:
    """(n, d) unit features of pictures by torch, behind the neck or before it."""
    import torch

    from tracklearn.learn import embed

    def run(part: Array) -> list[Array]:
        images = torch.from_numpy(part).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            found = network(images)
            return [(network.neck(found) if neck else found).numpy()]

    found = _batched(run, _BATCH)(given)
    return embed.pool(found, np.arange(len(found)), len(found))


def features(run: Run, crops: Crops, rows: Array, pixels: Pixels) -> Array:
    """(n, d) of crops, a few at a time."""
    parts = [rows[low : low + _PART] for low in range(0, len(rows), _PART)]
    return np.concatenate([run(pictures(crops.read(part), pixels)) for part in parts])


def _batched(run: Callable[[Array], list[Array]], batch: int) -> Run:
    def whole(given: Array) -> Array:
        return np.concatenate([run(given[low : low + batch])[0] for low in range(0, len(given), batch)])

    return whole


def write(path: Path, data: bytes) -> None:
    """Put one file of an export in its place."""
    write_atomic(path, data)


def pictures(images: Array, pixels: Pixels) -> Array:
    """(b, 3, h, w) float32 as a file takes them, of crops (b, h, w, 3) uint8 RGB."""
    mean, std = (np.array(values, np.float32) for values in pixels)
    return np.ascontiguousarray(((images.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2))


def record(path: Path) -> dict[str, Any]:
    """Name, size and sum of a file."""
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": hash_file(path)}
