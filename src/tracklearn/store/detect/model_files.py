"""Networks of other programs, .onnx and .xml files: opened, described and run, every fault one line.

A file's network may run for ever, ask for any amount of memory, or bring its runtime down. So a file meets a
process of its own first (`first_contact.py`): what does not load and run once there is refused.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tracklearn import runtimes
from tracklearn.store.files import first_line
from tracklearn.types import Array, Refusal

_SECONDS = 120.0  # far above what a network of this trade needs for one picture on a slow, busy machine
_VARIABLE = "TRACKLEARN_MODEL_SECONDS"

_NUMPY = {
    "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8,
    "f32": np.float32, "f16": np.float16, "u8": np.uint8,
}  # fmt: skip


@dataclass(frozen=True)
class ModelFile:
    """A network with one input.

    Args:
        shape: of the input; None (OpenVINO) or a name (ONNX) where it is open.
        kind: the runtime's word for the type of the input.
        dtype: numpy's, of the input; None for one that is no picture's.
        outputs: shapes of the outputs.
        run: takes an array, returns one array for each output; raises ValueError where it cannot.
        notes: the file's metadata, text by name.
    """

    shape: tuple[Any, ...]
    kind: str
    dtype: Any
    outputs: list[tuple[Any, ...]]
    run: Callable[[Array], list[Array]]
    notes: Mapping[str, str] = field(default_factory=dict)


def seconds_allowed() -> float:
    """Seconds that a network may take for one run: `$TRACKLEARN_MODEL_SECONDS`, otherwise 120.

    Raises:
        ValueError: the variable is no number above 0.
    """
    text = os.environ.get(_VARIABLE, str(_SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise Refusal(f"{_VARIABLE} is {text!r}, expected a number of seconds above 0")
    return seconds


def open_openvino(path: str | Path) -> ModelFile:
    """An OpenVINO network, to run on the CPU.

    Raises:
        ValueError: OpenVINO is not installed, cannot load the file, or the network has not one input.
    """
    openvino = runtimes.load("openvino")
    core = openvino.Core()
    try:
        model = core.read_model(str(path))
        if len(model.inputs) != 1:
            raise Refusal(f"{path}: the model has {len(model.inputs)} inputs, expected 1")
        # Full precision wherever it runs: newer CPUs would take bfloat16 and give other boxes.
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    except RuntimeError as error:
        _raise_if_memory(path, error)
        raise Refusal(f"{path}: not a model OpenVINO can load: {first_line(error)}") from None
    request = compiled.create_infer_request()

    def run(values: Array) -> list[Array]:
        try:
            found = request.infer([values])
        except RuntimeError as error:
            _raise_if_memory(path, error)
            raise Refusal(f"{path}: does not run on {values.shape}: {first_line(error)}") from None
        return [found[output] for output in compiled.outputs]

    shape, *outputs = (
        tuple(x.get_length() if x.is_static else None for x in port.partial_shape)
        for port in (*compiled.inputs, *compiled.outputs)
    )
    kind = compiled.inputs[0].element_type.to_string()
    return ModelFile(shape, kind, _NUMPY.get(kind), outputs, run)


def open_onnx(path: str | Path, *, n_threads: int | None = None) -> ModelFile:
    """An ONNX network, to run on the CPU by onnxruntime; a run may take `seconds_allowed()`.

    Args:
        path: the file.
        n_threads: that share a layer; all CPUs if None.

    Raises:
        ValueError: onnxruntime is not installed, cannot load the file, or the network has not one input.
    """
    onnxruntime = runtimes.load("onnxruntime")
    state = runtimes.load("onnxruntime.capi.onnxruntime_pybind11_state")
    refusals = tuple(x for x in vars(state).values() if isinstance(x, type) and issubclass(x, Exception))
    seconds = seconds_allowed()
    options = onnxruntime.SessionOptions()
    # What goes wrong is told once, in the exception.
    options.log_severity_level = 4
    if n_threads is not None:
        options.intra_op_num_threads = options.inter_op_num_threads = n_threads
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except refusals as error:
        raise Refusal(f"{path}: not a model onnxruntime can load: {first_line(error)}") from None
    if len(session.get_inputs()) != 1:
        raise Refusal(f"{path}: the model has {len(session.get_inputs())} inputs, expected 1")
    entry = session.get_inputs()[0]

    def run(values: Array) -> list[Array]:
        # How often a loop turns may depend on the picture: no earlier run shows that this one ends.
        run_options = onnxruntime.RunOptions()
        stop = threading.Timer(seconds, setattr, (run_options, "terminate", True))
        stop.daemon = True
        stop.start()
        try:
            return session.run(None, {entry.name: values}, run_options)
        except refusals as error:
            if run_options.terminate:
                raise Refusal(f"{path}: {too_slow(seconds)}") from None
            raise Refusal(f"{path}: does not run on {values.shape}: {first_line(error)}") from None
        finally:
            stop.cancel()

    return ModelFile(
        tuple(entry.shape),
        entry.type,
        _NUMPY.get(entry.type),
        [tuple(x.shape) for x in session.get_outputs()],
        run,
        session.get_modelmeta().custom_metadata_map,
    )


def too_slow(seconds: float) -> str:
    """What is said of a network that does not end."""
    return (
        f"one run did not end within {seconds:g} s: the network may loop for ever; where it is only slow, "
        f"set {_VARIABLE} to more"
    )


def _raise_if_memory(path: str | Path, error: RuntimeError) -> None:
    """OpenVINO says "out of memory" by the C++ library's words; that is no fault of the file."""
    if "bad_alloc" in str(error) or "bad allocation" in str(error):
        raise MemoryError(f"{path} needs more memory than there is") from error
