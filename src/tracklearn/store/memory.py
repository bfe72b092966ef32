"""How much memory the machine has and has left, and a container's limits on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_MACHINE = Path("/")


def total(root: Path = _MACHINE) -> int | None:
    """Bytes of memory this process may count on: the machine's, or less where a control group limits it.

    None where nobody says. `root` is where /proc and /sys are found.
    """
    physical = _meminfo(root).get("MemTotal")
    if physical is None and root == _MACHINE:  # macOS
        try:
            physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, ValueError, OSError):  # Windows has no sysconf
            return None
    limits = [limit for limit, _ in _groups(root)]
    return min([*limits, *([] if physical is None else [physical])], default=None)


def available(root: Path = _MACHINE) -> int | None:
    """Bytes that may still be taken without swapping, of the machine and of every control group around it.

    What the system holds of files, and would give up, counts as available. None where nobody says.
    """
    left = [limit - used for limit, used in _groups(root)]
    if (free := _meminfo(root).get("MemAvailable")) is not None:
        left.append(free)
    return max(0, min(left)) if left else None


def _meminfo(root: Path) -> dict[str, int]:
    """Bytes by name from /proc/meminfo; empty where there is none."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return {}
    fields = (line.replace(":", " ").split() for line in lines)
    return {name: 1024 * int(value) for name, value, *_ in fields}


def _groups(root: Path) -> Iterator[tuple[int, int]]:
    """(limit, bytes used and not given up on demand) of the control groups around this process.

    A container may see its own group at the top of the hierarchy and yet be told the machine's path to it:
    folders that are not there are passed over, and the top is always looked at. Both versions are read.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        parts = Path(path.lstrip("/")).parts
        for depth in range(len(parts) + 1):
            found = _group(top.joinpath(*parts[:depth]), *names)
            if found is not None:
                yield found


def _group(folder: Path, limit: str, usage: str, idle: str) -> tuple[int, int] | None:
    """One group's limit and use; None where it has no limit or tells nothing."""
    try:
        bound = (folder / limit).read_text().strip()
        if bound == "max":
            return None
        used = int((folder / usage).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return int(bound), used - int(stat.get(idle, 0))
