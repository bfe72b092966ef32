"""One writer at a time: a lock for every set, run, gallery and output folder. Readers need none."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracklearn.store.files import NO_LOCKS, beside, is_at, make_folder, named
from tracklearn.types import Refusal

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class InUseError(Refusal):
    """Another process is writing there."""


@dataclass
class _Held:
    descriptor: int | None  # the open lock file, where it is locked by the kernel
    times: int = 0


_held: dict[Path, _Held] = {}  # what this process has locked


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Keep every other process from writing to the set, run, gallery or folder `path` meanwhile.

    The lock is the file `.NAME.lock` beside it, locked by the kernel, so that it ends with the process
    however that ends; where a file system has no locks, the process that the file names is asked for. A
    process may lock what it has locked.

    Raises:
        InUseError: another process is writing there; the message says which.
        OSError: the folder around it cannot be written to.
    """
    path = Path(os.path.realpath(path))
    file = beside(path, before=".", after=".lock")
    if path not in _held:
        make_folder(path.parent)
        _held[path] = _Held(_take(file, path))
    held = _held[path]
    held.times += 1
    try:
        yield
    finally:
        held.times -= 1
        if not held.times:
            del _held[path]
            # Unlinked while it is held: whoever has the file open, waiting, finds that it has gone.
            file.unlink(missing_ok=True)
            if held.descriptor is not None:
                os.close(held.descriptor)


def _take(file: Path, path: Path) -> int | None:
    """The open, locked lock file; None where only its being there says that it is taken."""
    while fcntl is not None:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                os.close(descriptor)
                if error.errno in NO_LOCKS:
                    break
                raise
            holder = os.read(descriptor, 4096)
            os.close(descriptor)
            raise in_use(path, holder) from None
        if is_at(descriptor, file):
            with named(file):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, own_mark())
            return descriptor
        os.close(descriptor)  # its holder has just removed it
    while True:
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            holder = file.read_bytes() if file.is_file() else b""
            if holder and not is_over(holder):
                raise in_use(path, holder, file) from None
            file.unlink(missing_ok=True)
            continue
        with named(file):
            os.write(descriptor, own_mark())
        os.close(descriptor)
        return None


def own_mark() -> bytes:
    """What a lock says of the process that holds it: this one."""
    mark = {"pid": os.getpid(), "host": socket.gethostname(), "born": _born(os.getpid())}
    return json.dumps({**mark, "since": time.strftime("%Y-%m-%d %H:%M:%S")}).encode()


def _born(pid: int) -> str:
    """When a process began, in the kernel's ticks: numbers of processes are used again. "" if not known."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _mark(holder: bytes) -> dict[str, Any]:
    try:
        mark = json.loads(holder)
    except ValueError:
        return {}
    return mark if isinstance(mark, dict) else {}


def is_over(holder: bytes) -> bool:
    """Whether the process that a lock file names is surely no more."""
    mark = _mark(holder)
    if mark.get("host") != socket.gethostname() or not isinstance(mark.get("pid"), int):
        return not mark
    try:
        os.kill(mark["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return _born(mark["pid"]) not in ("", mark.get("born"))


def in_use(path: object, holder: bytes, file: object = None) -> InUseError:
    """The error of a place that another process writes to; `file`: the lock, where it may be a left one."""
    mark = _mark(holder)
    who = "another process"
    if mark:
        who = f"process {mark.get('pid')} on {mark.get('host')}, since {mark.get('since')}"
    remedy = f"; if it runs no more, delete {file}" if file is not None else ""
    return InUseError(f"{path} is being written by {who}: wait for it, or stop it, then try again{remedy}")
