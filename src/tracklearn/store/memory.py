"""How much memory this process may count on, and how much of it is left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_MACHINE = Path("/")


def total(root: Path = _MACHINE) -> int | None:
    """Bytes of memory: the machine's, or less where a control group or a limit on address space says so.

    None where nobody says. `root` is where /proc and /sys are found.
    """
    bounds = [limit for limit, _ in _limits(root)]
    physical = _meminfo(root, "MemTotal")
    if physical is None and root == _MACHINE:
        with suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
            physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # macOS
    return min([*bounds, *([] if physical is None else [physical])], default=None)


def available(root: Path = _MACHINE) -> int | None:
    """Bytes that may still be taken without swapping, within every limit that `total` heeds.

    The machine counts as available what it would give up of files; a control group, what it has not used of
    late. None where nobody says.
    """
    left = [limit - used for limit, used in _limits(root)]
    if (free := _meminfo(root, "MemAvailable")) is not None:
        left.append(free)
    return max(0, min(left)) if left else None


def reset_peak(root: Path = _MACHINE) -> None:
    """Begin to count the peak of this process anew, where the system can (Linux)."""
    with suppress(OSError):
        (root / "proc/self/clear_refs").write_text("5")


def peak(root: Path = _MACHINE) -> int | None:
    """The most bytes of memory that this process has had since `reset_peak`; None where nobody says."""
    for line in _lines(root / "proc/self/status"):
        if line.startswith("VmHWM:"):
            return 1024 * number if (number := _number(line.split()[1:2])) is not None else None
    return None


def _meminfo(root: Path, name: str) -> int | None:
    """Bytes from /proc/meminfo."""
    for line in _lines(root / "proc/meminfo"):
        if line.startswith(f"{name}:"):
            return 1024 * number if (number := _number(line.split()[1:2])) is not None else None
    return None


def _limits(root: Path) -> Iterator[tuple[int, int]]:
    """(limit, used) of the process's address space and of the control groups around it, of both versions.

    A container may see its own group at the top of the hierarchy and yet be told the machine's path to it:
    folders that are not there are passed over, and the top is always looked at.
    """
    if root == _MACHINE and (bound := _address_space()) is not None:
        yield bound, (_number(_lines(root / "proc/self/statm")) or 0) * os.sysconf("SC_PAGE_SIZE")
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            top, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        parts = Path(path.lstrip("/")).parts
        for depth in range(len(parts) + 1):
            folder = top.joinpath(*parts[:depth])
            limit, used = (_number(_lines(folder / name)) for name in names[:2])
            if limit is None or limit <= 0 or used is None:  # "max", or no such group
                continue
            stat = (each.split() for each in _lines(folder / "memory.stat"))
            idle = next((words[1:] for words in stat if words[:1] == [names[2]]), [])
            yield limit, used - (_number(idle) or 0)


def _address_space() -> int | None:
    """Bytes that `ulimit -v` or a batch system allows this process to map."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    bound = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if bound in (resource.RLIM_INFINITY, -1) else bound


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _number(words: list[str]) -> int | None:
    """The whole number that a text begins with."""
    word = words[0].split()[0] if words and words[0].split() else ""
    return int(word) if word.isdecimal() else None
