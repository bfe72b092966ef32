"""An 8-bit ONNX network: static quantisation by onnxruntime, calibrated on real crops.

Convolutions and what follows them in their pass are rounded, weights per channel; gates, sums, the last
linear layer and the tail stay float32: they take little time, and of the features' error most. Where that is
not enough the first convolutions stay too: their maps are the largest and their values the smallest.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tracklearn import runtimes
from tracklearn.learn import export
from tracklearn.learn.network import Network
from tracklearn.store.detect import model_files
from tracklearn.store.files import first_line
from tracklearn.types import Array, Refusal

CROPS = 128  # that ranges and the tail are taken from
_BATCH = 8
_FIRST_LEFT = (0, 2, 4, 8, 16)  # convolutions that stay float32, in turn
# Mean cosine on the crops of the calibration from which no more layers are tried; above the least one wanted,
# since other crops differ a little more.
_ENOUGH = 0.985
_ROUNDED = ["Conv", "Clip", "Relu", "MaxPool", "AveragePool"]


def quantised(network: Network, pictures: Array, *, pixels: tuple[Any, Any]) -> tuple[bytes, dict[str, Any]]:
    """The bytes of an 8-bit .onnx file as `learn.export.whole` computes it, and what was done.

    Args:
        network: the trained one.
        pictures: (n, 3, h, w) float32 as the file takes them, of which ranges are learned.
        pixels: mean and standard deviation that are applied outside.

    Returns:
        The file, and {"float_layers", "layers", "cosine"}: convolutions left float32, of how many, and the
        mean cosine on these pictures.

    Raises:
        ValueError: a package is missing, or onnxruntime cannot quantise the network.
    """
    with tempfile.TemporaryDirectory(prefix="tracklearn-") as folder, _quietly():
        return _best(network, pictures, Path(folder), pixels)


def _best(
    network: Network, pictures: Array, folder: Path, pixels: tuple[Any, Any]
) -> tuple[bytes, dict[str, Any]]:
    onnx = runtimes.load("onnx")
    quantization = runtimes.load("onnxruntime.quantization")
    shape = pictures.shape[1:]
    body = export.Body(network, mean=pixels[0], std=pixels[1]).eval()
    plain, ready, rounded = (folder / f"{name}.onnx" for name in ("body", "ready", "rounded"))
    plain.write_bytes(export.onnx_bytes(body, shape, names=("images", "pooled")))
    wanted = _run(plain, pictures)
    best: tuple[float, bytes, dict[str, Any]] | None = None
    quantization.shape_inference.quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
    order = [(node.name, node.op_type) for node in onnx.load(str(ready)).graph.node]
    n_layers = sum(kind == "Conv" for _, kind in order)
    for n_left in _FIRST_LEFT:
        if n_left > n_layers // 3:
            break
        left = _first(order, n_left)
        try:
            quantization.quantize_static(
                str(ready),
                str(rounded),
                _reader(quantization, pictures),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=_ROUNDED,
                nodes_to_exclude=left,
            )
        except (RuntimeError, ValueError) as error:
            raise Refusal(
                f"onnxruntime cannot quantise this network: {first_line(error)}; leave --quantize out"
            ) from error
        tail = export.Tail(network)
        got = _run(rounded, pictures)
        tail.correct(wanted, got)
        cosine = _cosine(export.Tail(network), wanted, tail, got)
        if best is None or cosine > best[0]:
            end = export.onnx_bytes(tail, wanted.shape[1:], names=("pooled", "features"))
            whole = _joined(onnx, rounded, end)
            best = cosine, whole, {"float_layers": n_left, "layers": n_layers, "cosine": cosine}
        if cosine >= _ENOUGH:
            break
    assert best is not None
    return best[1], best[2]


def _first(order: list[tuple[str, str]], n: int) -> list[str]:
    """Names of the first n convolutions and of what stands between and behind them."""
    names, seen = [], 0
    for name, kind in order:
        seen += kind == "Conv"
        if seen > n:
            break
        names.append(name)
    return names if n else []


def _joined(onnx: Any, body: Path, tail: bytes) -> bytes:
    """One network of two, the second behind the first."""
    first, second = onnx.load(str(body)), onnx.load_from_string(tail)
    second.ir_version = first.ir_version
    second = onnx.compose.add_prefix(second, "tail/", rename_inputs=False, rename_outputs=False)
    for opset in first.opset_import:
        if opset.domain in ("", "ai.onnx"):
            second.opset_import[0].version = opset.version
    return onnx.compose.merge_models(first, second, io_map=[("pooled", "pooled")]).SerializeToString()


def _reader(quantization: Any, pictures: Array) -> Any:
    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left: Iterator[int] = iter(range(0, len(pictures), _BATCH))

        def get_next(self) -> dict[str, Array] | None:
            low = next(self.left, None)
            return None if low is None else {"images": pictures[low : low + _BATCH]}

    return Reader()


def _run(path: Path, pictures: Array) -> Array:
    model = model_files.open_onnx(path)
    parts = [model.run(pictures[low : low + _BATCH])[0] for low in range(0, len(pictures), _BATCH)]
    return np.concatenate(parts).astype(np.float32)


def _cosine(plain: export.Tail, wanted: Array, tail: export.Tail, got: Array) -> float:
    import torch

    a, b = plain(torch.from_numpy(wanted)), tail(torch.from_numpy(got))
    return float((a * b).sum(1).mean())


@contextmanager
def _quietly() -> Iterator[None]:
    """The library speaks by the root logger of steps that are taken here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
