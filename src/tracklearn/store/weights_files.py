"""Arrays by name out of .safetensors and .pth files that anyone may have written.

Nothing in a file is run, and no file makes the program take much more memory than its own size. What is no
plain array of real numbers is refused with a word on how to save it instead.
"""

from __future__ import annotations

import errno
import json
import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn.store.files import cannot_map, first_line, is_text
from tracklearn.types import Array, Refusal

if TYPE_CHECKING:
    from torch import Tensor

# Under these keys trainers keep the state dict beside other things.
WRAPPERS = ("state_dict", "model", "network")

# What a network's arrays come in; integers are batch counters, of which the network knows its own.
DTYPES = ("float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64")

# A file may hold one array under several names; one that claims more than this is not to be believed.
MOST_SHARED = 8

# What an unpickler makes of bytes that are not what they claim depends on the first wrong one.
_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    struct.error,
    zipfile.BadZipFile,
)

# Numbers of numpy's that trainers keep beside the state dict, such as a rank-1 score, pickled by these names.
_NUMBERS = (
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "_codecs.encode",
)

_ALTERNATIVE = "use a state dict, or convert it to safetensors where you trust it"


def read(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """Arrays by name, and the texts of a file's header (none in a .pth file).

    Args:
        path: .safetensors, .pth or .pt. Of a .pth file only tensors and plain containers are unpickled, never
            code; single numbers of numpy's beside them are left out.

    Returns:
        (arrays, header). Arrays are in C order and keep the file's precision, but bfloat16 is widened to
        float32; a leading `module.` is taken off their names. Memory: that of the arrays twice.

    Raises:
        ValueError: another kind of file, a damaged one, or arrays that no network can use; the line names the
            file and what to do.
        MemoryError: the file asks for more memory than there is.
    """
    try:
        if path.suffix == ".safetensors":
            tensors, header = _read_safetensors(path)
            return _arrays(tensors, path), header
        if path.suffix in (".pth", ".pt"):
            return _arrays(_read_torch(path).items(), path), {}
    except MemoryError as error:
        raise _needs_memory(path) from error
    except OSError as error:
        # Libraries let the system's own words through (a disk's fault, a place before the file's start).
        if error.filename is not None or error.errno in (errno.ENOMEM, None):
            raise
        raise Refusal(f"weights {path} cannot be read ({error.strerror})") from error
    raise Refusal(f"weights {path}: unknown kind {path.suffix or 'of file'}, expected .safetensors or .pth")


def three_floats(text: str) -> tuple[float, float, float]:
    """The three finite numbers of a header's JSON list.

    Raises:
        ValueError: it is anything else.
    """
    found = _json(text)
    if not isinstance(found, list) or len(found) != 3 or not all(isinstance(x, (int, float)) for x in found):
        raise Refusal(f"expected three numbers, got {text[:60]}")
    first, second, third = (float(x) for x in found)
    if not np.isfinite([first, second, third]).all():
        raise Refusal(f"expected three finite numbers, got {text[:60]}")
    return first, second, third


def _read_safetensors(path: Path) -> tuple[list[tuple[str, Tensor]], dict[str, str]]:
    from safetensors import SafetensorError

    try:
        try:
            arrays, header = _mapped_safetensors(path) if is_text(path) else _whole_safetensors(path)
        except OSError as error:
            if not cannot_map(error):
                raise
            arrays, header = _whole_safetensors(path)
        notes = _notes(header.get("meta", ""))
        if notes is not None:
            del header["meta"]
            header |= notes
        return arrays, header
    except (SafetensorError, TypeError, AttributeError, RuntimeError) as error:
        _memory(error, path)
        raise Refusal(f"weights {path} cannot be read as safetensors ({_reason(error)})") from error


def _mapped_safetensors(path: Path) -> tuple[list[tuple[str, Tensor]], dict[str, str]]:
    from safetensors import safe_open

    # As torch tensors: numpy has no bfloat16, and the library fails on what numpy lacks.
    with safe_open(str(path), framework="pt") as file:
        return [(name, file.get_tensor(name)) for name in file.keys()], dict(file.metadata() or {})  # noqa: SIM118


def _whole_safetensors(path: Path) -> tuple[list[tuple[str, Tensor]], dict[str, str]]:
    """Likewise, where the file can only be read, or has a name that the library does not open."""
    from safetensors.torch import load

    data = path.read_bytes()
    tensors = list(load(data).items())
    return tensors, json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})


def _notes(text: str) -> dict[str, str] | None:
    """Text by name of the JSON object that `save` keeps under one key; None where `text` is no such thing."""
    try:
        notes = _json(text)
    except ValueError:
        return None
    if not isinstance(notes, dict):
        return None
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in notes.items()}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise Refusal("nested too deeply") from None


class _LeftOut:
    """Stands where a file names something that weights do not need, and makes nothing of it: one for all."""

    _only: _LeftOut | None = None

    def __new__(cls, *args: Any) -> _LeftOut:
        if cls._only is None:
            cls._only = super().__new__(cls)
        return cls._only

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _read_torch(path: Path) -> dict[Any, Any]:
    """The tensors of a torch checkpoint by name."""
    import torch

    _refuse_packed(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they speak to programmers; a file is read here or refused
            with torch.serialization.safe_globals([(_LeftOut, name) for name in _NUMBERS]):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        _memory(error, path)
        reason = _reason(error)
        if "TorchScript" in reason:
            reason = "a TorchScript program"
        raise Refusal(
            f"weights {path} are not a torch file of plain tensors ({reason}): {_ALTERNATIVE}"
        ) from error
    seen: set[int] = set()  # a container may hold itself
    while isinstance(content, dict) and id(content) not in seen:
        seen.add(id(content))
        inner = [content[key] for key in WRAPPERS if key in content]
        if not inner or not isinstance(inner[0], dict):
            break
        content = inner[0]
    held = content if isinstance(content, dict) else {}
    tensors = {key: value for key, value in held.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        some = ", ".join(str(key)[:30] for key in list(held)[:4])
        has = some or ("nothing" if isinstance(content, dict) else f"one {type(content).__name__}")
        raise Refusal(
            f"weights {path} hold no tensors by name, at the top or under {', '.join(WRAPPERS)} (they hold "
            f"{has}): expected a state dict"
        )
    return tensors


def _refuse_packed(path: Path) -> None:
    """Refuse a zip whose contents are more than the file itself: torch packs nothing.

    A megabyte of packed zeros would become gigabytes.
    """
    size = path.stat().st_size
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as file:
            claimed = sum(entry.file_size for entry in file.infolist())
            scripted = any("/code/" in entry.filename for entry in file.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, LookupError, struct.error) as error:
        # All of these zipfile itself raises on a damaged directory (found by fuzzing). Torch reads archives
        # by a library of its own: what cannot be listed here cannot be bounded, so it is refused and named.
        raise Refusal(
            f"weights {path} are a damaged archive ({first_line(error)}): fetch or save them again"
        ) from error
    if claimed > size and not scripted:  # TorchScript packs its code, and is refused for what it is
        raise Refusal(
            f"weights {path} are {size} bytes that unpack to {claimed}: torch.save packs nothing, so this is "
            "no file of its making; save the state dict again"
        )


def _arrays(tensors: Iterable[tuple[Any, Tensor]], path: Path) -> dict[str, Array]:
    """Each tensor as an array of its own under its plain name, or the reason why not."""
    found: dict[str, Array] = {}
    left = MOST_SHARED * path.stat().st_size
    for key, tensor in tensors:
        if not isinstance(key, str):
            raise Refusal(
                f"weights {path} name an array {key!r:.60}, which is no text: expected a state dict"
            )
        name = key.removeprefix("module.")
        if name in found:
            raise Refusal(
                f"weights {path} hold {name} twice, with `module.` and without: keep one of the two"
            )
        if (wrong := _unusable(tensor)) is not None:
            raise Refusal(f"weights {path}: {name} is {wrong}")
        left -= tensor.numel() * tensor.element_size()
        if left < 0:
            raise Refusal(
                f"weights {path}: {name} of shape {tuple(tensor.shape)} is more than the file holds: "
                "save the state dict again, with tensor.clone()"
            )
        found[name] = _array(tensor)
    return found


def _unusable(tensor: Tensor) -> str | None:
    """What keeps a tensor from being an array of real numbers, and what to do; None where nothing does."""
    import torch

    if tensor.is_nested:
        return "a nested tensor: save plain ones"
    if tensor.layout != torch.strided:
        return "sparse: save tensor.to_dense()"
    if tensor.is_quantized:
        return f"quantised ({_dtype(tensor)}): save tensor.dequantize(), or what was there before"
    if tensor.device.type != "cpu":
        return f"on the device {tensor.device.type}, without its numbers: save it from a CPU or GPU"
    if _dtype(tensor) not in DTYPES:
        return f"of type {_dtype(tensor)}: save real numbers, such as tensor.float()"
    return None


def _array(tensor: Tensor) -> Array:
    import torch

    plain = tensor.detach().resolve_neg()
    if plain.dtype == torch.bfloat16:
        plain = plain.float()
    # A copy: the tensor may lie in the file itself, or share its numbers with another.
    return np.array(plain.numpy(), order="C")


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _memory(error: BaseException, path: Path) -> None:
    """Raise MemoryError where a library calls a lack of memory by another name."""
    if "allocate memory" in str(error) or "not enough memory" in str(error):
        raise _needs_memory(path) from error


def _needs_memory(path: Path) -> MemoryError:
    return MemoryError(f"weights {path} need more memory than there is")


def _reason(error: BaseException) -> str:
    """What went wrong, in a few words."""
    text = str(error)
    # torch says first what a programmer could do about it, and only then what it met.
    text = text.partition("WeightsUnpickler error:")[2] or text
    lines = text.strip().splitlines()
    return lines[0].strip()[:120] if lines else type(error).__name__
