"""The one line that a command ends with when the user's files, settings or machine are the reason."""

from __future__ import annotations

import errno
import os
import tempfile
import traceback
from pathlib import Path

from tracklearn.types import Refusal

_MEMORY = errno.ENOMEM
_FULL = (errno.ENOSPC, errno.EDQUOT)

# How the libraries beneath say that memory is short, where they do not raise MemoryError.
_MEMORY_WORDS = (
    "can't allocate memory",  # torch on the CPU
    "not enough memory",  # torch on Windows
    "out of memory",  # CUDA
    "ALLOC_FAILED",  # cuBLAS and cuDNN
    "Insufficient memory",  # OpenCV
    "Failed to allocate",  # ONNX Runtime, OpenCV
    "bad allocation",
    "bad_alloc",
    "can't start new thread",  # a thread's stack did not fit
)

_LOWER = {
    "ingest": "ingest fewer cameras at a time, or pictures of fewer pixels",
    "index": "index a smaller set",
    "search": "search a smaller gallery",
    "report": "write the report on a machine with more",
    "evaluate": "evaluate a smaller split",
}
_LOWER_TRAINING = (
    "lower train.cache_bytes, the crop size (network.height, network.width) or the batch "
    "(tmc.clusters_per_batch, uga.tracklets_per_batch, …); train --dry-run says what is needed"
)


def refusal(error: Exception, *, command: str = "") -> str | None:
    """What to tell the user, or None where the error is a defect of the program.

    Args:
        error: what ended the command.
        command: its name, by which the remedy is chosen.
    """
    if out_of_memory(error):
        return _memory_line(error, command)
    if isinstance(error, OSError):
        return _disk_line(error)
    if isinstance(error, (Refusal, ImportError)):
        return str(error)
    return None


def defect(error: BaseException) -> str:
    """One line on an error that is the program's own; the traceback goes to a file that it names.

    What people can do is report it, and the file is what a report needs: it holds no picture, but names of
    files and settings.
    """
    said = " ".join(str(error).split())[:160]
    what = f"this is a defect of the program: {type(error).__name__}{f': {said}' if said else ''}"
    text = "".join(traceback.format_exception(error))
    try:
        handle, name = tempfile.mkstemp(prefix="tracklearn-defect-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except OSError:  # no place to write to: better long than lost
        return f"{what}\n{text}"
    return f"{what}; please report it with the traceback in {Path(name)}"


def printable(text: str) -> str:
    """`text` without what steers a terminal: names out of foreign files may hold anything.

    >>> printable("a\\x1b[2Jb")
    'a\ufffd[2Jb'
    """
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of any library says that the machine or the device has too little memory."""
    if isinstance(error, MemoryError):  # numpy's, pyarrow's and PyAV's own are kinds of it
        return True
    if isinstance(error, OSError):
        return error.errno == _MEMORY
    if isinstance(error, ImportError):  # of a compiled library that found no room
        return "failed to map segment" in str(error) or "cannot allocate memory" in str(error)
    # RuntimeErrors of torch, and others of compiled libraries that are kinds of nothing in particular.
    foreign = type(error).__module__.partition(".")[0] in ("cv2", "onnxruntime", "torch")
    return (isinstance(error, RuntimeError) or foreign) and any(w in str(error) for w in _MEMORY_WORDS)


def _memory_line(error: BaseException, command: str) -> str:
    device = "CUDA" in str(error) or type(error).__name__ == "OutOfMemoryError"
    what = "the device is out of memory" if device else "out of memory"
    said = str(error).strip().splitlines()
    # Ours name a file; what libraries say is of their allocators.
    detail = f" ({said[0][:160]})" if said and type(error) is MemoryError else ""
    return f"{what}{detail}: close other programs, or {_LOWER.get(command, _LOWER_TRAINING)}"


def _disk_line(error: OSError) -> str:
    remedy = ": make room, then run the same command with --resume" if error.errno in _FULL else ""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}{remedy}"
