"""A network file is first loaded and run once, on a blank picture, in a process of its own.

There it may loop for ever, take all memory or crash: the process has a time limit and no more memory than is
free, and its end is one line here. That costs some tenths of a second a file. To spare it for files without
loops would need trust in the rest, and plain operations can ask for any time and memory as well.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tracklearn import runtimes
from tracklearn.store import child, memory
from tracklearn.store.detect import model_files
from tracklearn.types import Array, Refusal

_REFUSED = 3  # exit code of the child with its reason on standard output
_USUAL = (1, 3, 256, 128)
_GRACE = 10

_OPEN = {"onnxruntime": model_files.open_onnx, "openvino": model_files.open_openvino}
_passed: set[tuple[Any, ...]] = set()


def try_out(runtime: str, path: str | Path) -> None:
    """Return if the network in `path` loads and runs once; what did so for this process is not tried again.

    Args:
        runtime: "onnxruntime" or "openvino".
        path: the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the runtime is not installed or refuses the file, the run did not end in time, needed more
            memory than is free, or brought the runtime down.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    runtimes.load(runtime)
    found = path.stat()
    key = (runtime, path.resolve(), found.st_size, found.st_mtime_ns)
    if key in _passed:
        return
    seconds = model_files.seconds_allowed()
    command, environment = child.own(__name__, [runtime, str(path)])
    try:
        tried = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise Refusal(f"{path}: {model_files.too_slow(seconds)}") from None
    if tried.returncode == 0:
        _passed.add(key)
        return
    said = tried.stdout if tried.returncode == _REFUSED else tried.stderr
    last = said.decode(errors="replace").strip().rpartition("\n")[2]
    if tried.returncode == _REFUSED:
        raise Refusal(last)
    end = f"signal {-tried.returncode}" if tried.returncode < 0 else f"exit code {tried.returncode}"
    raise Refusal(
        f"{path}: {runtime} ended in the middle of a first run ({', '.join(filter(None, (end, last)))}): the "
        "file is damaged, made to do so, or needs more memory than there is"
    )


def main(runtime: str, path: str) -> int:
    """Load and run the network once; the exit code, 0 or `_REFUSED` after printing why."""
    _bound(model_files.seconds_allowed())
    try:
        model = _OPEN[runtime](path)
        if model.dtype is not None:  # otherwise the caller refuses it
            model.run(_blank(model.shape, model.dtype))
    except MemoryError:
        print(f"{path}: the network needs more memory than is free for one picture")
        return _REFUSED
    except ValueError as error:
        print(" ".join(str(error).split()))
        return _REFUSED
    return 0


def _blank(shape: tuple[Any, ...], dtype: Any) -> Array:
    """A black picture; an open side is that of a person's crop."""
    usual = _USUAL if len(shape) == len(_USUAL) else (1,) * len(shape)
    sides = [given if isinstance(given, int) else side for given, side in zip(shape, usual, strict=True)]
    try:
        return np.zeros(sides, dtype)
    except ValueError as error:
        raise Refusal(f"the input has shape {sides}: {error}") from None


def _bound(seconds: float) -> None:
    """Let this process neither outlive its parent for long nor take memory that is not there."""
    if hasattr(signal, "alarm"):
        signal.alarm(int(seconds) + _GRACE)
    with suppress(ImportError):  # Windows
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        free = memory.available()
        if free is not None:
            _, most = resource.getrlimit(resource.RLIMIT_DATA)
            bound = free if most == resource.RLIM_INFINITY else min(free, most)
            resource.setrlimit(resource.RLIMIT_DATA, (bound, most))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
