"""Files of this program: written whole or not at all, synced before they count, read with clear words.

A file is written under a temporary name, synced, renamed, and its folder synced, so that a crash, a full disk
or a loss of power leaves the old file or the new one and never half of one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from tracklearn.types import Array


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that a crash leaves either the old file or the new one.

    Raises:
        OSError: the disk is full or failing; the old file, if any, is as it was.
    """
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file beside `path` that takes its place when the block ends well, and goes when it does not.

    Its permissions are those of any new file (the umask decides).
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in the folder `path` safe on disk; on Windows, which cannot open one, nothing."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_atomic(path, (plain_json(value, indent=2) + "\n").encode())


def plain_json(value: Any, *, indent: int | None = None) -> str:
    """`value` as JSON: numpy values and paths as plain ones, NaN and infinities as null."""
    return json.dumps(_plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def read_json(path: Path) -> Any:
    """The JSON value in `path`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not JSON; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged (not JSON: {error}): make it again") from error


def write_arrays(path: Path, arrays: Mapping[str, Array], meta: Mapping[str, Any] | None = None) -> None:
    """Write named arrays as safetensors with `meta` as JSON in the header, atomically."""
    from safetensors.numpy import save

    header = {"meta": plain_json(meta)} if meta is not None else None
    write_atomic(path, save({k: np.ascontiguousarray(v) for k, v in arrays.items()}, metadata=header))


def read_arrays(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays and meta of a file written by `write_arrays`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged; the message names it.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with safe_open(str(path), framework="numpy") as handle:
            meta = json.loads((handle.metadata() or {}).get("meta", "{}"))
            return {name: handle.get_tensor(name) for name in handle.keys()}, meta  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): make it again") from error


def _plain(value: Any) -> Any:
    """Numpy scalars, arrays, paths and tuples as JSON values, all the way down."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file, one a line; none where it is missing."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def remove_folder(path: Path) -> None:
    """Delete a folder that this program wrote and is about to write anew."""
    if path.is_dir():
        shutil.rmtree(path)


def disk_error(error: OSError, path: Path) -> OSError:
    """`error` with the file named and a full disk called so; same errno."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OSError(error.errno, "the disk is full", str(path))
    return OSError(error.errno or errno.EIO, f"cannot be written ({error.strerror or error})", str(path))


def hash_file(path: Path) -> str:
    """sha256 of a file's content, read in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
