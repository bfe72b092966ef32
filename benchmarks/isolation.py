"""Isolation of tracklets by DBSCAN, beside a loop that calls scikit-learn for each tracklet.

    python -m benchmarks.isolation [--tracklets N] [--width D] [--repeats R] [--eps E] [--out DIR]

Features are made: tracklets of 41-81 frames, 1-3 persons each, one after another, unit rows in float32, the
cosine of two frames of one person about 0.7. In one run, in turns:

- `core.isolate.isolate`;
- the loop: `DBSCAN(eps, min_samples).fit` of each tracklet's rows, with the threads it starts by itself.
  These wait busily for each other: its CPU-seconds grow several times on a machine that does other things
  too. So once more with BLAS and OpenMP on one thread, which wastes nothing;
- the floor: one float32 BLAS pass over the same products, a matrix per tracklet, on one thread.

Peak memory above the input is that of fresh processes. Prints the tables and writes isolation.json to DIR
(benchmarks/results). Exit code 1 where labels differ from scikit-learn's, or with the number of threads.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks import measure
from tracklearn.core import threads
from tracklearn.core.isolate import isolate

Array = NDArray[Any]

OURS, LOOP, LOOP_ONE, FLOOR = "isolate", "loop", "loop_one_thread", "floor"
BAR = 25  # times fewer CPU-seconds than the loop
SHORTEST, LONGEST = 41, 81  # frames of a tracklet
PERSONS = 3  # at most, in a tracklet
COSINE = 0.7  # of two frames of one person
MIN_SAMPLES = 2


class Set(NamedTuple):
    """Features (n, d) float32 unit rows; tracklet, frame (n,); edge (t + 1,), first row of each tracklet."""

    features: Array
    tracklet: Array
    frame: Array
    edge: Array


def make_set(n_tracklets: int, width: int, seed: int) -> Set:
    """Tracklets whose frames show their persons one after another."""
    rng = np.random.default_rng(seed)
    length = rng.integers(SHORTEST, LONGEST + 1, n_tracklets)
    edge = np.r_[0, np.cumsum(length)]
    features = np.empty((edge[-1], width), np.float32)
    for lo, hi in pairwise(edge):
        n = rng.integers(1, PERSONS + 1)
        person = rng.standard_normal((n, width), dtype=np.float32)
        noise = rng.standard_normal((hi - lo, width), dtype=np.float32)
        rows = person[np.sort(rng.integers(0, n, hi - lo))] + np.float32((1 / COSINE - 1) ** 0.5) * noise
        features[lo:hi] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    frame = np.arange(edge[-1]) - np.repeat(edge[:-1], length)
    return Set(features, np.repeat(np.arange(n_tracklets), length), frame, edge)


def ours(given: Set, eps: float) -> Array:
    """Parts by `isolate`."""
    return isolate(given.features, given.tracklet, frame=given.frame, eps=eps, min_samples=MIN_SAMPLES)


def loop(given: Set, eps: float) -> Array:
    """Parts as a user of scikit-learn would find them; tracklets of noise alone are kept whole."""
    from sklearn.cluster import DBSCAN

    part = np.zeros(len(given.features), np.int64)
    for lo, hi in pairwise(given.edge):
        label = DBSCAN(eps=eps, min_samples=MIN_SAMPLES).fit(given.features[lo:hi]).labels_
        if (label >= 0).any():
            part[lo:hi] = label
    return part


def loop_one_thread(given: Set, eps: float) -> Array:
    """The loop with BLAS and OpenMP on one thread."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return loop(given, eps)


def floor(given: Set) -> None:
    """The products of every tracklet's rows with each other, by BLAS on one thread, thrown away."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        for lo, hi in pairwise(given.edge):
            rows = given.features[lo:hi]
            rows @ rows.T


CALLS: dict[str, Callable[[Set, float], Array]] = {
    OURS: ours,
    LOOP: loop,
    LOOP_ONE: loop_one_thread,
}


def run(given: tuple[Set, float, str]) -> Array:
    """One of CALLS by name."""
    data, eps, name = given
    return CALLS[name](data, eps)


def prepare(n_tracklets: int, width: int, seed: int, eps: float, name: str) -> tuple[Set, float, str]:
    """Input of `run` for `measure.peak_memory`, after a small run has loaded all that a run needs."""
    run((make_set(20, width, seed), eps, name))
    return make_set(n_tracklets, width, seed), eps, name


def measured(n_tracklets: int, width: int, repeats: int, eps: float, seed: int) -> dict[str, Any]:
    """All figures, and whether what must be equal is."""
    given = make_set(n_tracklets, width, seed)
    timing = measure.alternate(
        {
            **{name: partial(call, given, eps) for name, call in CALLS.items()},
            FLOOR: partial(floor, given),
        },
        repeats,
    )
    part = timing[OURS].result
    with threads.limit(1):
        alone = ours(given, eps)
    with threads.limit(2):
        together = ours(given, eps)
    return {
        "n_rows": len(given.features),
        "threads": threads.n_threads(),
        "times": timing,
        "loop_over_ours": {
            name: {clock: measure.ratio(timing[name], timing[OURS], clock) for clock in ("wall", "cpu")}
            for name in (LOOP, LOOP_ONE)
        },
        "ours_over_floor": {
            "cpu": measure.ratio(timing[OURS], timing[FLOOR], "cpu"),
        },
        "peak_memory": {
            name: measure.peak_memory(prepare, run, n_tracklets, width, seed, eps, name).above / 1e6
            for name in (OURS, LOOP)
        },
        "parts_per_tracklet": float(np.mean([part[lo:hi].max() + 1 for lo, hi in pairwise(given.edge)])),
        "noise_fraction": float((part < 0).mean()),
        "equal": {
            "to scikit-learn": bool(np.array_equal(part, timing[LOOP].result)),
            "on 1 and 2 threads": bool(np.array_equal(alone, together) and np.array_equal(alone, part)),
        },
    }


def report(result: dict[str, Any]) -> str:
    """The tables."""
    times, memory = result["times"], result["peak_memory"]
    rows = [
        (
            name,
            timing.median("wall"),
            timing.median("cpu"),
            measure.ratio(timing, times[OURS], "wall"),
            measure.ratio(timing, times[OURS], "cpu"),
            memory.get(name),
        )
        for name, timing in times.items()
    ]
    header = ("", "wall s", "CPU-s", "wall / ours", "CPU / ours", "peak MB")
    bar = measure.Bar(
        "CPU-seconds of the loop / ours", BAR, result["loop_over_ours"][LOOP]["cpu"], at_least=True
    )
    equal = "\n".join(
        f"labels equal {what}: {'yes' if same else 'NO'}" for what, same in result["equal"].items()
    )
    facts = (
        f"{result['n_rows']:,} rows, {result['parts_per_tracklet']:.2f} parts a tracklet, "
        f"{result['noise_fraction']:.2%} noise, {result['threads']} threads"
    )
    return "\n\n".join([facts, measure.table(header, rows), measure.bars_table([bar]), equal])


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; the exit code is 1 where labels differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tracklets", type=int, default=1500)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--eps", type=float, default=0.78, help="greatest Euclidean distance of neighbours")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=measure.RESULTS, help="folder of isolation.json")
    arguments = parser.parse_args(argv)
    settings = {
        "n_tracklets": arguments.tracklets,
        "width": arguments.width,
        "repeats": arguments.repeats,
        "eps": arguments.eps,
        "seed": arguments.seed,
    }
    result = measured(**settings)
    print(report(result))
    measure.save("isolation", result, settings={**settings, "min_samples": MIN_SAMPLES}, folder=arguments.out)
    return 0 if all(result["equal"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
