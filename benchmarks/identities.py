"""Joining tracklets to people: time, memory and how right, by number of tracklets.

    python -m benchmarks.identities [--small] [--sizes N ...] [--out DIR]

Features are made: 512 wide, 50 cameras, cosine of two tracklets of one person about 0.7 within a camera and
0.6 across, 20 tracklets of a person; those whom one camera sees at the same moment, two on average, are known
as two people. Each size in a fresh process.

Prints the table; writes identities.json and .png to DIR (benchmarks/results; with --small only where --out is
given).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from tracklearn.core.identities import Evidence, Limits, link
from tracklearn.core.whereabouts import Whereabouts, seen_at_once

SIZES = (3_000, 10_000, 30_000, 100_000)
SMALL_SIZES = (500, 2_000)
WIDTH, CAMERAS, PER_PERSON = 512, 50, 20
PERSON, CAMERA = 0.6, 0.1  # shares of a feature's squared length
LIMITS = Limits(0.4, 0.35)
SECONDS = 20.0  # in view


def made(t: int, seed: int = 0) -> tuple[Evidence, np.ndarray]:
    """Evidence and the person of each tracklet."""
    rng = np.random.default_rng(seed)

    def directions(count: int, share: float) -> np.ndarray:
        rows = rng.standard_normal((count, WIDTH), dtype=np.float32)
        return rows * (np.sqrt(share) / np.linalg.norm(rows, axis=1, keepdims=True))

    people = max(1, t // PER_PERSON)
    pid, camid = rng.integers(0, people, t), rng.integers(0, CAMERAS, t)
    mean = directions(people, PERSON)[pid] + directions(t, 1 - PERSON - CAMERA)
    mean += directions(CAMERAS, CAMERA)[camid]
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    begin = rng.uniform(0, t / CAMERAS * SECONDS / 2, t)  # two people in view of a camera, on average
    apart = []
    for camera in range(CAMERAS):
        own = np.flatnonzero(camid == camera)
        here = Whereabouts(np.zeros(len(own), np.int64), begin[own], begin[own] + SECONDS)
        pair = own[seen_at_once(here, (0, 0))]
        apart.append(pair[pid[pair[:, 0]] != pid[pair[:, 1]]])
    weight = rng.integers(4, 200, t)
    none = np.zeros((0, 2), np.int64)
    return Evidence(mean, weight, camid, LIMITS, np.concatenate(apart), none), pid


def prepare(t: int, path: Path) -> tuple[Any, Path]:
    """Input of `run` for `measure.peak_memory`, after a small run has loaded all that a run needs."""
    link(made(200)[0])
    return made(t), path


def run(given: tuple[Any, Path]) -> None:
    """One linkage; what it took and how right it is are written to the path, as JSON."""
    (known, pid), path = given
    wall, cpu = time.perf_counter(), time.process_time()
    label = link(known)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    precision, recall, f1 = pair_rates(label, pid)
    found = {"identities": int(label.max()) + 1, "people": len(np.unique(pid)), "barred": len(known.apart)}
    rates = {"precision": precision, "recall": recall, "f1": f1}
    path.write_text(measure.to_json({"wall_s": wall, "cpu_s": cpu, **found, **rates}))


def pair_rates(label: np.ndarray, pid: np.ndarray) -> tuple[float, float, float]:
    """Precision, recall and F1 of pairs of tracklets in one identity."""

    def pairs(*columns: np.ndarray) -> float:
        count = np.unique(np.stack(columns), axis=1, return_counts=True)[1].astype(float)
        return float((count * (count - 1)).sum() / 2)

    right, said, true = pairs(label, pid), pairs(label), pairs(pid)
    return right / max(said, 1.0), right / max(true, 1.0), 2 * right / max(said + true, 1.0)


def measure_size(t: int) -> dict[str, Any]:
    """All measurements at one size."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.json"
        peak = measure.peak_memory(prepare, run, t, path)
        return {"t": t, **json.loads(path.read_text()), "memory_total_bytes": peak.total}


def bars(sizes: Sequence[dict[str, Any]]) -> list[measure.Bar]:
    """What was aimed at, beside what was measured; sizes not run have no value."""
    at = {size["t"]: size for size in sizes}.get(100_000)
    return [
        measure.Bar("100,000: wall (s)", 300, at and at["wall_s"]),
        measure.Bar("100,000: memory in all (GB)", 3, at and at["memory_total_bytes"] * 1e-9),
    ]


def draw(sizes: Sequence[dict[str, Any]], path: Path) -> None:
    """Processor time and memory by number of tracklets."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    at = [size["t"] for size in sizes]
    for axes, name, unit, scale, bar in zip(
        figure.subplots(1, 2),
        ("cpu_s", "memory_total_bytes"),
        ("seconds of processor time", "GB in all"),
        (1.0, 1e-9),
        (2 * 300, 3),
        strict=True,
    ):
        values = [size[name] * scale for size in sizes]
        axes.loglog(at, values, "o-", color="tab:blue", label="measured")
        largest = values[-1]
        for power, style in ((1, (1, 2)), (2, (5, 2))):
            line = [largest * (t / at[-1]) ** power for t in at]
            axes.plot(
                at, line, color="0.6", dashes=style, label="as t" + ("²" if power == 2 else ""), zorder=0
            )
        axes.plot(100_000, bar, "_", color="tab:red", markersize=18, label="bar at 100,000, two cores")
        axes.set(xlabel="tracklets", ylabel=unit)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks(at)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(fontsize="small", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


COLUMNS = (
    "t", "wall_s", "cpu_s", "memory_total_bytes", "barred",
    "people", "identities", "precision", "recall", "f1",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="500 and 2,000 tracklets, in seconds")
    parser.add_argument("--sizes", type=int, nargs="+", help="numbers of tracklets")
    parser.add_argument("--out", type=Path, help="folder for identities.json and identities.png")
    given = parser.parse_args(arguments)
    wanted = sorted(given.sizes or (SMALL_SIZES if given.small else SIZES))
    folder = given.out or (None if given.small else measure.RESULTS)
    sizes = []
    for t in wanted:
        print(f"t = {t:,} ...", file=sys.stderr, flush=True)
        sizes.append(measure_size(t))
    print(measure.table(COLUMNS, [tuple(size[name] for name in COLUMNS) for size in sizes]))
    print(measure.bars_table(bars(sizes)))
    if folder is not None:
        settings = {"sizes": wanted, "seed": 0, "width": WIDTH, "cameras": CAMERAS, "per_person": PER_PERSON}
        measure.save("identities", {"sizes": sizes, "bars": bars(sizes)}, settings=settings, folder=folder)
        draw(sizes, folder / "identities.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
