"""The cross-view graph of tracklets, beside the dense textbook.

    python -m benchmarks.graph [--small] [--network] [--sizes N ...] [--repeats R] [--out DIR]

Features are made: 2,048 wide, 50 cameras, cosine of two tracklets of one person about 0.7, 20 tracklets of a
person; the same in every direction, or, with --network, with the shares of variance along their directions
that a network has which was adapted to Market-1501 (`benchmarks.gallery`). Measured at every size, each run
in a fresh process:

- seconds, CPU-seconds and peak memory of `core.graph.cross_view` with its usual settings, by float32 and by
  8-bit products;
- the floor: one float32 BLAS product for each pair of tracklets of different cameras, by the speed that a
  GEMM of 4,096 rows has just before;
- up to 8,000 tracklets the textbook: all similarities in one matrix and the best of each camera for each row;
  in float32, for time and memory, and in float64, which must give the same edges and weights.

Also how long the measures of the graph take, and what they are. Prints the tables and writes graph.json, or
graph_network.json, to DIR (benchmarks/results; with --small only where --out is given). Exit code 1 where
anything that must be equal is not.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks import gallery, measure
from tracklearn.core import graph, threads
from tracklearn.core.graph import Graph

Array = NDArray[Any]

OURS, CODED, TEXTBOOK = "cross_view", "cross_view, int8", "textbook"
SIZES = (2_000, 8_000, 25_000, 100_000)
SMALL_SIZES = (1_000, 2_000)
TEXTBOOK_UP_TO = 8_000  # rows: its matrix takes gigabytes beyond
ONE_RUN_FROM = 50_000  # rows from which one timed run must do
WIDTH, CAMERAS, PER_PERSON = 2_048, 50, 20
K, THRESHOLD = 1, 0.6
TOLERANCE = 1e-6  # of weights
_GEMM = 4_096  # rows of the GEMM that the floor is told by
_ROWS = 1_024  # rows made at a time
_LOADS = 6_500  # rows with which 8-bit products load all that they need


class Set(NamedTuple):
    """Features (t, WIDTH) float32 unit rows; camid, pid (t,) int64."""

    features: Array
    camid: Array
    pid: Array


def make_set(t: int, seed: int = 0, *, network: bool = False) -> Set:
    """What a trained network might give.

    A row is the sum of a direction of its person (0.7 of its squared length), of its camera (0.03) and noise;
    or one of `gallery.people_like_a_network`.
    """
    rng = np.random.default_rng(seed)
    if network:
        features, pid = gallery.people_like_a_network(t, WIDTH, max(1, t // PER_PERSON), seed)
        return Set(features, rng.integers(0, CAMERAS, t), pid)

    def directions(count: int, squared_length: float) -> Array:
        rows = rng.standard_normal((count, WIDTH), dtype=np.float32)
        return rows * (np.sqrt(squared_length) / np.linalg.norm(rows, axis=1, keepdims=True))

    people = max(1, t // PER_PERSON)
    person, camera = directions(people, 0.7), directions(CAMERAS, 0.03)
    pid, camid = rng.integers(0, people, t), rng.integers(0, CAMERAS, t)
    features = np.empty((t, WIDTH), np.float32)
    for lo in range(0, t, _ROWS):
        rows = slice(lo, lo + _ROWS)
        block = person[pid[rows]] + camera[camid[rows]] + directions(len(pid[rows]), 0.27)
        features[rows] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return Set(features, camid, pid)


def ours(given: Set) -> Graph:
    """Tracklearn's graph."""
    return graph.cross_view(given.features, given.camid, k=K, threshold=THRESHOLD)


def coded(given: Set) -> Graph:
    """The same by 8-bit products."""
    return graph.cross_view(given.features, given.camid, k=K, threshold=THRESHOLD, method="int8")


def textbook(given: Set, dtype: type = np.float32) -> Graph:
    """The graph from one matrix of all similarities, products made in `dtype`."""
    x = given.features.astype(dtype)
    similarity = x @ x.T
    near = np.zeros(similarity.shape, bool)
    for camera in np.unique(given.camid):
        column = np.flatnonzero(given.camid == camera)
        best = column[similarity[:, column].argmax(1)]
        near[np.arange(len(x)), best] = given.camid != camera
    i, j = np.nonzero(near & near.T & (similarity > THRESHOLD))
    start = np.searchsorted(i, np.arange(len(x) + 1))
    return Graph(start, j, similarity[i, j].astype(np.float32))


CALLS: dict[str, Callable[[Set], Graph]] = {OURS: ours, CODED: coded, TEXTBOOK: textbook}


def same(one: Graph, other: Graph) -> bool:
    """Whether two graphs have the same edges, and weights to within TOLERANCE."""
    return (
        np.array_equal(one.start, other.start)
        and np.array_equal(one.to, other.to)
        and bool((np.abs(one.weight - other.weight) <= TOLERANCE).all())
    )


def prepare(t: int, seed: int, network: bool, name: str, path: Path) -> tuple[Set, str, Path]:
    """Input of `run` for `measure.peak_memory`, after a small run has loaded all that a run needs."""
    small = make_set(_LOADS if name == CODED else 200, seed, network=network)
    judge(CALLS[name](small), small)
    return make_set(t, seed, network=network), name, path


def run(given: tuple[Set, str, Path]) -> None:
    """One graph; what it took and what it is like are written to the path, as JSON."""
    data, name, path = given
    wall, cpu = time.perf_counter(), time.process_time()
    found = CALLS[name](data)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    path.write_text(measure.to_json({"wall": wall, "cpu": cpu, "graph": judge(found, data)}))


def judge(found: Graph, data: Set) -> dict[str, Any]:
    """The measures of a graph, and the seconds that they take."""
    start = time.process_time()
    precision, recall = graph.precision_recall(found, data.pid, data.camid)
    values = {
        "n_edges": len(found.to) // 2,
        "n_components": int(graph.components(found).max(initial=-1)) + 1,
        "links_of_two_cameras": float(graph.links(found, data.camid).sum() / (CAMERAS * (CAMERAS - 1))),
        "transitivity": graph.transitivity(found, data.camid),
        "precision": precision,
        "recall": recall,
    }
    values = {name: None if value != value else value for name, value in values.items()}
    return {**values, "judged_in_cpu_s": time.process_time() - start}


def timed(t: int, name: str, repeats: int, seed: int, *, network: bool) -> dict[str, Any]:
    """Medians of runs in fresh processes, and the greatest of their peaks."""
    runs, peaks = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            path = Path(folder) / "run.json"
            peaks.append(measure.peak_memory(prepare, run, t, seed, network, name, path))
            runs.append(json.loads(path.read_text()))
    timing = measure.Timing(tuple(r["wall"] for r in runs), tuple(r["cpu"] for r in runs))
    return {
        **timing.to_dict(),
        "memory_bytes": max(peak.above for peak in peaks),
        "memory_total_bytes": max(peak.total for peak in peaks),
        "graph": runs[-1]["graph"],
    }


def measure_size(t: int, *, repeats: int, seed: int = 0, network: bool = False) -> dict[str, Any]:
    """All measurements at one size."""
    repeats = 1 if t >= ONE_RUN_FROM else repeats
    pairs = t**2 * (1 - 1 / CAMERAS) / 2
    floor = measure.gemm(_GEMM, WIDTH, repeats=3) * pairs / _GEMM**2
    out: dict[str, Any] = {"t": t, "features_bytes": 4 * t * WIDTH, "floor_s": floor}
    out[OURS] = timed(t, OURS, repeats, seed, network=network)
    out[CODED] = timed(t, CODED, repeats, seed, network=network)
    out["per_floor"] = out[OURS]["wall_s"] / floor
    if t <= TEXTBOOK_UP_TO:
        out[TEXTBOOK] = timed(t, TEXTBOOK, repeats, seed, network=network)
        out["textbook_ratio"] = {
            key: out[TEXTBOOK][key] / out[OURS][key] for key in ("wall_s", "cpu_s", "memory_bytes")
        }
        data = make_set(t, seed, network=network)
        found = ours(data)
        with threads.limit(1):
            alone = ours(data)
        by_bytes = coded(data)
        out["equal"] = {
            "by 8-bit products": same(found, by_bytes) and np.array_equal(found.weight, by_bytes.weight),
            "to the textbook in float64": same(found, textbook(data, np.float64)),
            "on one thread": same(found, alone) and np.array_equal(found.weight, alone.weight),
        }
    return out


def bars(sizes: Iterable[Mapping[str, Any]]) -> list[measure.Bar]:
    """What was promised, beside what was measured; sizes not run have no value."""
    at = {size["t"]: size[OURS] for size in sizes}.get(100_000)
    return [
        measure.Bar("100,000: wall (s)", 180, at and at["wall_s"]),
        measure.Bar("100,000: memory in all (GB)", 3, at and at["memory_total_bytes"] * 1e-9),
    ]


def report(sizes: Sequence[Mapping[str, Any]]) -> str:
    """The tables."""
    rows = [
        (
            size["t"], name, at["wall_s"], at["cpu_s"], at["wall_s"] / size["floor_s"],
            round(at["memory_bytes"] / 1e6), round(at["memory_total_bytes"] / 1e6),
            all(size["equal"].values()) if "equal" in size else None,
        )
        for size in sizes
        for name in CALLS
        if (at := size.get(name))
    ]  # fmt: skip
    header = ("t", "", "wall s", "CPU s", "/ floor", "MB above", "MB in all", "equal")
    names = list(sizes[0][OURS]["graph"])
    graphs = [(size["t"], *(size[OURS]["graph"][name] for name in names)) for size in sizes]
    return "\n\n".join(
        [measure.table(header, rows), measure.table(("t", *names), graphs), measure.bars_table(bars(sizes))]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="1,000 and 2,000 tracklets, in seconds")
    parser.add_argument("--network", action="store_true", help="features with the spectrum of a network")
    parser.add_argument("--sizes", type=int, nargs="+", help="numbers of tracklets")
    parser.add_argument(
        "--repeats", type=int, help="timed runs of each below 50,000 tracklets (3; --small 1)"
    )
    parser.add_argument("--out", type=Path, help="folder for graph.json")
    given = parser.parse_args(arguments)
    wanted = sorted(given.sizes or (SMALL_SIZES if given.small else SIZES))
    repeats = given.repeats or (1 if given.small else 3)
    folder = given.out or (None if given.small else measure.RESULTS)

    sizes = []
    for t in wanted:
        print(f"t = {t:,} ...", file=sys.stderr, flush=True)
        sizes.append(measure_size(t, repeats=repeats, network=given.network))
    print(report(sizes))
    if folder is not None:
        settings = {
            "sizes": wanted, "repeats": repeats, "seed": 0, "width": WIDTH, "cameras": CAMERAS,
            "per_person": PER_PERSON, "k": K, "threshold": THRESHOLD, "network": given.network,
        }  # fmt: skip
        name = "graph_network" if given.network else "graph"
        measure.save(name, {"sizes": sizes, "bars": bars(sizes)}, settings=settings, folder=folder)
    different = [(size["t"], size["equal"]) for size in sizes if not all(size.get("equal", {}).values())]
    for t, equal in different:
        print(f"NOT EQUAL at t = {t:,}: {equal}", file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
