"""A network as onnxruntime computes it in evaluation, on the CPU: the same function, in less time.

Its convolutions keep maps in the processor's own order from one to the next, and a few pictures at a time
stay in the cache. Every thread has pictures of its own, as many as they would be with one thread, so that no
number depends on the threads. Rounding differs from torch's, by 1e-6 to 1e-5 of a feature's length.

It is for the many crops of an epoch. Torch writes down the operations of a network once in a process, which
takes as long as the features of some hundred crops; after that weights of networks built alike are put in.
"""

from __future__ import annotations

import copy
import logging
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from tracklearn import runtimes
from tracklearn.core import threads
from tracklearn.learn import export, subnormals
from tracklearn.learn.network import Network
from tracklearn.types import Refusal

logger = logging.getLogger(__name__)

MANY = 2_000  # crops from which the time to make the form is a small part of what it spares
_NEEDED = ("onnx", "onnxruntime")
_PIXELS = 1 << 17  # of the pictures that are computed at a time: four of 256 × 128


def chosen(features: Literal["auto", "torch", "onnxruntime"], n_crops: int, device: torch.device) -> bool:
    """Whether the features of an epoch are computed so, as the setting has it (`compute.Config.features`).

    By "auto" libraries that are installed and do not work are told of, once in a process.
    """
    if features != "auto":
        return features == "onnxruntime"
    there = device.type == "cpu" and all(map(runtimes.installed, _NEEDED))
    return there and n_crops >= MANY and _fault() is None


def require(device: torch.device) -> None:
    """Raise ValueError, with what to do, where features cannot be computed so."""
    if device.type != "cpu":
        raise Refusal(
            f"train.features is onnxruntime, which computes on a CPU here, not on {device}: set it to auto"
        )
    for name in _NEEDED:
        runtimes.load(name)
    if (fault := _fault()) is not None:
        raise Refusal(f"train.features is onnxruntime, which does not work here ({fault}): set it to torch")


class Session:
    """The evaluation form of one network by onnxruntime, as its weights are now.

    Memory: four times the weights while it is made, twice afterwards.

    Args:
        network: in evaluation mode; read, not changed. Weights that change later are not seen.
    """

    def __init__(self, network: Network) -> None:
        height, width = network.config.height, network.config.width
        self._shape = (height, width, 3)
        self._at_a_time = max(1, _PIXELS // (height * width))
        self._scale, self._shift = (v.cpu().numpy().copy() for v in network.pixel_line)
        self._width = network.feature_dim
        # No conversion of a surrounding autocast is to be written down.
        with torch.autocast("cpu", enabled=False):
            body = export.Body(network, mean=network.pixel_mean, std=network.pixel_std).eval()
            subnormals.clear(body)
            alike = (type(network), network.config, network.asymmetric_padding, repr(body))
            self._session = _opened(_filled(body, alike, self._shape))

    def __call__(self, images: Tensor) -> Tensor:
        """Pre-BN features (b, d) float32 of pictures (b, h, w, 3) uint8; on as many threads as torch has."""
        from tracklearn.core.kernels.pictures import to_planes

        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != self._shape:
            raise Refusal(
                f"images are {images.dtype} {tuple(images.shape)}, expected torch.uint8 (b, h, w, 3) of "
                f"{self._shape[0]} × {self._shape[1]} pixels"
            )
        pictures = images.numpy()
        out = np.empty((len(pictures), self._width), np.float32)

        def some(first: int) -> None:
            part = pictures[first : first + self._at_a_time]
            planes = np.empty((len(part), 3, *part.shape[1:3]), np.float32)
            to_planes(part, self._scale, self._shift, planes)
            out[first : first + len(part)] = self._session.run(None, {"images": planes})[0]

        # Threads that begin here take over that subnormal numbers are zero, and end here.
        with threads.limit(torch.get_num_threads()):
            threads.each(some, range(0, len(pictures), self._at_a_time))
        return torch.from_numpy(out)


# The operations of networks built alike, as an ONNX model without weights; None where they must be in it.
_graphs: dict[Any, Any] = {}


def _filled(body: nn.Module, alike: Any, shape: tuple[int, int, int]) -> bytes:
    """An ONNX file of a module with its weights; those of equal `alike` have the same operations."""
    if alike not in _graphs:
        _graphs[alike] = _graph(body, shape)
    if _graphs[alike] is None:
        return _written(body, shape)
    arrays = body.state_dict()
    model = runtimes.load("onnx").ModelProto()
    model.CopyFrom(_graphs[alike])
    for each in model.graph.initializer:
        if each.name in arrays:
            each.raw_data = arrays[each.name].numpy().tobytes()
    filled: bytes = model.SerializeToString()
    return filled


def _graph(body: nn.Module, shape: tuple[int, int, int]) -> Any:
    """The ONNX model of a module, its arrays left out; None where they have not all kept their names."""
    # Values that are all different: the exporter would take equal arrays for one.
    stand_in, draw = copy.deepcopy(body), torch.Generator().manual_seed(0)
    arrays = {name: value for name, value in stand_in.state_dict().items() if value.is_floating_point()}
    for value in arrays.values():
        value.copy_(torch.rand(value.shape, generator=draw) + 0.5)
    model = runtimes.load("onnx").load_model_from_string(_written(stand_in, shape, folded=False))
    used = {each.name: each for each in model.graph.initializer if each.name in arrays}
    for each in used.values():
        each.ClearField("raw_data")
    return model if used.keys() == arrays.keys() - {"scale", "shift"} else None


def _written(body: nn.Module, shape: tuple[int, int, int], *, folded: bool = True) -> bytes:
    height, width, channels = shape
    return export.onnx_bytes(body, (channels, height, width), names=("images", "features"), folded=folded)


def _opened(data: bytes) -> Any:
    """onnxruntime's session of an ONNX file, one thread to each call."""
    runtime = runtimes.load("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


@cache
def _fault() -> str | None:
    """Why the installed libraries do not work, found on a layer of three numbers; None where they do."""
    try:
        for name in _NEEDED:
            runtimes.load(name)
        layer = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()).eval()
        given = torch.linspace(-1, 1, 24).view(2, 3, 2, 2)
        with torch.no_grad():
            want = layer(given).numpy()
        got = _opened(_filled(layer, "a layer", (2, 2, 3))).run(None, {"images": given.numpy()})[0]
        if np.allclose(got, want, atol=1e-5):
            return None
        fault = f"it gives {got.flat[0]:.6g} where torch gives {want.flat[0]:.6g}"
    except Exception as error:  # a damaged or foreign install raises anything: no ImportError alone
        fault = f"{type(error).__name__}: {error}"
    logger.warning("onnxruntime is installed but does not work, so torch computes features: %s", fault)
    return fault
