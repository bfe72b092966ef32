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

from tracklearn.types import Array, Refusal

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# A folder's entry cannot be synced on some file systems (SMB, FUSE, some container mounts): there the rename
# itself is all that can be had.
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF}
MAX_NAME = 255  # bytes of a file's name
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}


class DamagedError(Refusal):
    """A file is not what was written; the message names it and says what to do."""


def beside(path: Path, *, before: str = "", after: str = "") -> Path:
    """`path` with a few letters more before or behind its name, which is shortened if it would be too long.

    >>> beside(Path("a/set"), before=".", after=".lock").as_posix()
    'a/.set.lock'
    """
    whole, room = os.fsencode(path.name), MAX_NAME - len(before) - len(after)
    if len(whole) <= room:
        return path.with_name(f"{before}{path.name}{after}")
    mark = hashlib.sha256(whole).hexdigest()[:16]
    kept = whole[: room - len(mark) - 1].decode(errors="ignore")
    return path.with_name(f"{before}{kept}-{mark}{after}")


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

    Raises:
        OSError: the disk is full or failing; the message names the file.
    """
    temporary, file = _new_beside(path)
    try:
        with named(path):
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                # While it is still open and locked: nobody may take the name for a leftover.
                if os.name != "nt":
                    temporary.replace(path)
            if os.name == "nt":
                temporary.replace(path)
            sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _new_beside(path: Path) -> tuple[Path, IO[bytes]]:
    """An empty file open for writing whose name tells what it is to become.

    The name is always the same, so that the leftover of a killed process is written over by the next one;
    only while another process is writing to it is another name taken.
    """
    with named(path):
        temporary = beside(path, before=".", after=".tmp")
        if fcntl is not None:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if is_at(descriptor, temporary):
                    os.ftruncate(descriptor, 0)
                    return temporary, os.fdopen(descriptor, "wb")
            except OSError as error:
                if error.errno not in {errno.EWOULDBLOCK, errno.EACCES, *NO_LOCKS}:
                    os.close(descriptor)
                    raise
            os.close(descriptor)
        temporary = beside(path, before=".", after=f".{secrets.token_hex(4)}.tmp")
        return temporary, temporary.open("xb")


def is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def sync_file(path: Path) -> None:
    """Have what another library wrote to a file on the disk itself."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        with named(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Make the names in the folder `path` safe on disk; nothing where the system cannot (Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise disk_error(error, Path(os.path.abspath(path))) from error
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """The folder `path` and those above it, there and safe on disk."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)


def move(path: Path, to: Path) -> None:
    """Give a file or folder another name, safe on disk; a file that is there gives way."""
    path.replace(to)
    sync_folder(to.parent)


def put_folder(temporary: Path, path: Path) -> None:
    """Give a finished folder, whose files are synced, its name, so that it is there whole or not at all."""
    sync_folder(temporary)
    with named(path):
        temporary.rename(path)
    sync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Delete a folder that this program wrote, and all in it; one that is not there is none.

    Raises:
        OSError: it cannot be; the message names it whole (the library's own name a bare file).
    """
    if not path.is_dir():
        return
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise OSError(error.errno, f"cannot be removed ({error.strerror})", str(path)) from error
    sync_folder(path.parent)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Errors of the disk that arise in the block say where: not all writers name their file."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise disk_error(error, path) from error
        raise


def disk_error(error: OSError, path: Path) -> OSError:
    """`error` with the file named and a full disk called so; same errno."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OSError(error.errno, "the disk is full", str(path))
    return OSError(error.errno or errno.EIO, f"cannot be written ({error.strerror or error})", str(path))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_atomic(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """`value` as the bytes of an indented JSON file."""
    return (plain_json(value, indent=2) + "\n").encode("utf-8", "replace")


def plain_json(value: Any, *, indent: int | None = None) -> str:
    """`value` as JSON: numpy values and paths as plain ones, NaN and infinities as null."""
    return json.dumps(_plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def read_json(path: Path) -> Any:
    """The JSON value in `path`.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: the file is not JSON; the message names it.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged (not JSON: {error}): make it again") from error


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


def pack_arrays(arrays: Mapping[str, Array], meta: Mapping[str, Any] | None = None) -> bytes:
    """Named arrays as a safetensors file, with `meta` as JSON in its header."""
    from safetensors.numpy import save

    header = {"meta": plain_json(meta)} if meta is not None else None
    # safetensors writes an array's memory as it lies, so it must be in C order; `ascontiguousarray` would
    # make rows of single numbers.
    return save({k: np.require(v, requirements=["C"]) for k, v in arrays.items()}, metadata=header)


def write_arrays(path: Path, arrays: Mapping[str, Array], meta: Mapping[str, Any] | None = None) -> None:
    """Write named arrays as safetensors with `meta` as JSON in the header, atomically."""
    write_atomic(path, pack_arrays(arrays, meta))


def read_arrays(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays and meta of a file written by `write_arrays`.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: the file is damaged; the message names it.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    if not is_text(path):  # the library opens no other name
        return _unpack_arrays(path)
    try:
        with safe_open(str(path), framework="numpy") as handle:
            meta = json.loads((handle.metadata() or {}).get("meta", "{}"))
            return {name: handle.get_tensor(name) for name in handle.keys()}, meta  # noqa: SIM118
    except OSError as error:
        if not cannot_map(error):
            raise
        return _unpack_arrays(path)
    except (SafetensorError, json.JSONDecodeError) as error:
        raise DamagedError(f"{path} is damaged ({error}): make it again") from error


def _unpack_arrays(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """As `read_arrays`, all of it read into memory."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = path.read_bytes()
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
        return load(data), json.loads(header.get("meta", "{}"))
    except (SafetensorError, ValueError) as error:
        raise DamagedError(f"{path} is damaged ({error}): make it again") from error


def is_text(path: str | Path) -> bool:
    """Whether a name is UTF-8: other bytes come from the file system as lone surrogates."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def cannot_map(error: OSError) -> bool:
    """Whether an error means that files of this file system cannot be mapped into memory, only read."""
    return error.errno == errno.ENODEV or os.strerror(errno.ENODEV) in str(error)


def hash_file(path: Path) -> str:
    """sha256 of a file's content, read in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file, one a line; none where it is missing.

    Raises:
        DamagedError: a line is none.
    """
    if not path.is_file():
        return []
    try:
        lines = [json.loads(line) for line in path.read_bytes().decode("utf-8").splitlines()]
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged ({error}): make it again") from error
    if not all(isinstance(line, dict) for line in lines):
        raise DamagedError(f"{path} is damaged (a line is no JSON object): make it again")
    return lines


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its kind where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def relative(path: str | Path, folder: str | Path) -> str:
    """`path` as seen from `folder`, so that both may move together; links are followed first."""
    return os.path.relpath(Path(path).resolve(), Path(folder).resolve())
