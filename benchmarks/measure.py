"""How the benchmarks measure: paired timings, peak memory, the GEMM floor, and what machine it was.

A comparison is a ratio of runs made in turns in one process; a lone number of seconds means little on a
machine that does other things too. Time is given as wall seconds and as CPU seconds of all threads.
"""

from __future__ import annotations

import ctypes
import datetime
import gc
import json
import multiprocessing
import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

RESULTS = Path(__file__).parent / "results"
LOAD_AT_START = os.getloadavg()[0]  # the benchmark's own threads raise it later
PACKAGES = ("numpy", "scipy", "torch", "numba", "scikit-learn")

_TILE = 4096  # rows and columns of one tile of the GEMM: 64 MB of products


@dataclass(frozen=True)
class Timing:
    """Seconds of every timed run of one callable, in the order they were made.

    Args:
        wall: wall seconds. cpu: CPU seconds of all threads of this process.
        result: what the last call returned.
    """

    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    result: Any = field(default=None, repr=False, compare=False)

    def median(self, clock: Literal["wall", "cpu"] = "wall") -> float:
        """The median of the runs, in seconds."""
        return float(np.median(getattr(self, clock)))

    def to_dict(self) -> dict[str, Any]:
        """Medians and all runs, for JSON."""
        return {
            "wall_s": self.median("wall"),
            "cpu_s": self.median("cpu"),
            "wall_runs": self.wall,
            "cpu_runs": self.cpu,
        }


def alternate(
    callables: Mapping[str, Callable[[], Any]], repeats: int, *, warm_up: bool = True
) -> dict[str, Timing]:
    """Times callables in turns, after one untimed call of each.

    Every second pass goes in reverse order, so that what follows what, and a machine that slows down, weigh
    on all alike.

    Args:
        callables: name -> function without arguments.
        repeats: timed runs of each, at least 1.
        warm_up: False leaves the untimed calls out, for runs so long that what a first call loads and
            compiles was better loaded by a smaller one.

    Returns:
        name -> Timing. Run i of one and run i of another were made in the same pass.

    Raises:
        ValueError: repeats < 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}, expected at least 1")
    result = {name: function() for name, function in callables.items()} if warm_up else {}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in callables}
    for i in range(repeats):
        for name in list(callables)[:: -1 if i % 2 else 1]:
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            result[name] = callables[name]()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: Timing(tuple(w for w, _ in runs), tuple(c for _, c in runs), result[name])
        for name, runs in seconds.items()
    }


def ratio(slow: Timing, fast: Timing, clock: Literal["wall", "cpu"] = "wall") -> float:
    """How many times longer `slow` took: the median over the passes of `alternate` of slow / fast.

    Raises:
        ValueError: the two have different numbers of runs, so they were not made in the same passes.
    """
    return float(np.median([a / b for a, b in zip(getattr(slow, clock), getattr(fast, clock), strict=True)]))


class Peak(NamedTuple):
    """Greatest resident memory of a process during a call, in bytes.

    `above`: more than it was just before the call. `total`: of the whole process, interpreter, imports and
    inputs included.
    """

    above: int
    total: int


def peak_memory(setup: Callable[..., Any], function: Callable[[Any], Any], *args: Any) -> Peak:
    """Memory that `function(setup(*args))` takes at its peak, in a fresh process.

    `setup` makes the input; what it loads and keeps does not count in `above`. So it should also call the
    function once on a small input: imports, compiled kernels and the buffers of BLAS are then in place.
    Input that is mapped from a file counts as far as it is read.

    Args:
        setup, function: defined at the top level of a module, as the fresh process finds them by name.
        args: of `setup`; picklable.

    Returns:
        Peak. Linux only: it resets and reads the process's high-water mark under /proc/self.

    Raises:
        What `setup` or `function` raises; BrokenProcessPool where the process was killed.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, setup, function, args).result()


def _peak(setup: Callable[..., Any], function: Callable[[Any], Any], args: tuple[Any, ...]) -> Peak:
    given = setup(*args)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what setup freed must not serve the call for nothing
    Path("/proc/self/clear_refs").write_text("5")
    before = _high_water()
    result = function(given)
    after = _high_water()
    del result
    return Peak(after - before, after)


def _high_water() -> int:
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise OSError("/proc/self/status has no VmHWM: peak memory is measured on Linux only")
    return int(found[1]) << 10


def gemm(n: int, d: int, *, repeats: int = 1) -> float:
    """Wall seconds of all products x·y of n float32 rows of width d: one full GEMM, n × n × d.

    By tiles, so that no n × n matrix is held. A computation that needs each unordered pair once can do with
    half of it: that is the symmetric floor.

    Args:
        n, d: rows and width. repeats: runs, of which the median counts.

    Returns:
        Seconds. Memory: n · d floats and one tile (64 MB).
    """
    x = np.random.default_rng(0).standard_normal((n, d), dtype=np.float32)
    tile = np.empty(min(n, _TILE) ** 2, np.float32)

    def products(rows: int) -> None:
        for lo in range(0, rows, _TILE):
            for at in range(0, rows, _TILE):
                a, b = x[lo : lo + _TILE], x[at : at + _TILE]
                np.matmul(a, b.T, out=tile[: len(a) * len(b)].reshape(len(a), len(b)))

    products(min(n, _TILE))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        products(n)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def machine() -> dict[str, Any]:
    """What a measurement depends on, and nothing that tells whose machine it is."""
    from threadpoolctl import threadpool_info

    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    memory = "SC_PHYS_PAGES" in os.sysconf_names
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)
    blas = [
        {key: pool.get(key) for key in ("internal_api", "version", "architecture", "num_threads")}
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    ]
    return {
        "cpu": model[1].strip() if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "vnni": bool(flags and {"avx512_vnni", "avx_vnni"} & set(flags[1].split())),
        "ram_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
        if memory
        else None,
        "blas": blas,
        "load_at_start": LOAD_AT_START,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def save(
    name: str, result: Mapping[str, Any], *, settings: Mapping[str, Any], folder: Path = RESULTS
) -> Path:
    """Writes a result with its settings, the machine and the day to `folder`/NAME.json.

    Args:
        name: file name without the ending.
        result: what was measured; numpy numbers, tuples and objects with `to_dict` are fine.
        settings: all that repeats the measurement: sizes, seeds, repeats.

    Returns:
        The path written. Keys are sorted, so that two results can be compared line by line.

    Raises:
        ValueError: NaN or infinity, which JSON does not have; a path of this machine in the result.
    """
    content = {
        "result": result,
        "settings": settings,
        "machine": machine(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    text = to_json(content)
    for private in (str(Path.home()), os.getcwd()):
        if len(private) > 1 and private in text:
            raise ValueError(f"the result names {private}: results are published, leave paths out")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(text + "\n")
    return path


def to_json(content: Any) -> str:
    """JSON text with sorted keys; numpy values and objects with `to_dict` become plain ones.

    Raises:
        ValueError: NaN or infinity. TypeError: something JSON does not have.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, np.generic | np.ndarray):
            return value.tolist()
        if hasattr(value, "to_dict"):
            return value.to_dict()
        raise TypeError(f"{type(value).__name__} cannot be written as JSON")

    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False, default=plain)


@dataclass(frozen=True)
class Bar:
    """A promise, and what was measured.

    Args:
        what: what is measured, with its unit. limit: the bar. value: measured; None where it was not.
        at_least: whether more is better; otherwise the value must lie below the limit.
    """

    what: str
    limit: float
    value: float | None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None where nothing was measured."""
        if self.value is None:
            return None
        return self.value >= self.limit if self.at_least else self.value < self.limit

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "what": self.what,
            "bar": f"{'>=' if self.at_least else '<'} {self.limit:g}",
            "value": self.value,
            "met": self.met,
        }


def bars_table(bars: Iterable[Bar]) -> str:
    """The bars beside the measured values, as a printable table."""
    word = {True: "met", False: "NOT MET", None: "not measured"}
    rows = [(b.what, b.to_dict()["bar"], b.value, word[b.met]) for b in bars]
    return table(("bar", "wanted", "measured", ""), rows)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as text: words to the left, numbers to the right with three digits, None as a dash."""
    rows = [list(row) for row in rows]
    lines = [list(header), *([_cell(value) for value in row] for row in rows)]
    width = [max(len(line[c]) for line in lines) for c in range(len(header))]
    number = [
        any(_is_number(row[c]) for row in rows) and not any(isinstance(row[c], str) for row in rows)
        for c in range(len(header))
    ]
    lines.insert(1, ["-" * w for w in width])
    return "\n".join(
        "  ".join(
            text.rjust(w) if right else text.ljust(w)
            for text, w, right in zip(line, width, number, strict=True)
        ).rstrip()
        for line in lines
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return f"{value:.3g}" if abs(float(value)) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if _is_number(value) else str(value)
