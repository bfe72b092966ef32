"""Clustering of tracklets: Jaccard distance, eps from the data and DBSCAN, beside the dense textbook.

    python -m benchmarks.clustering [--small] [--network] [--sizes N ...] [--repeats R] [--out DIR]

Features are made: 2,048 wide, 625 people in 6 cameras, cosine of two tracklets of one person about 0.6; below
8,298 tracklets fewer people, so that 13 tracklets show each. With --network they have the shares of variance
along their directions that a network has which was adapted to Market-1501 (`benchmarks.gallery`). Measured at
every size, in one run:

- seconds, CPU-seconds and peak memory of `cluster.associate`, with each exact way to find neighbours;
- one full float32 GEMM n × n × 2,048: what any dense method must pay at least, and half of it, what a method
  must pay that computes each pair once;
- up to 8,298 tracklets the textbook with scikit-learn (`benchmarks.textbook`), in turns with ours, and
  whether every distance agrees to 1e-6 and every label.

Prints the tables and writes clustering.json and clustering.png, with --network clustering_network.json and
.png, to DIR (benchmarks/results; with --small only where --out is given). Exit code 1 where anything that
must be equal is not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks import gallery, measure, textbook
from tracklearn.core import cluster
from tracklearn.core.jaccard import jaccard_distance
from tracklearn.core.labels import agreement

Array = NDArray[Any]

# Ways to find neighbours, as arguments of `associate`.
METHODS: dict[str, dict[str, Any]] = {
    "exact": {},
    "int8": {"neighbors": "int8"},
}
TEXTBOOK = "textbook"
SIZES = (2_000, 4_000, 8_298, 16_000, 22_000, 45_000, 100_000)
SMALL_SIZES = (1_000, 2_000)
TEXTBOOK_UP_TO = 8_298  # rows: beyond, it takes minutes and tens of gigabytes
ONE_RUN_FROM = 30_000  # rows from which one timed run must do
WIDTH, PEOPLE, CAMERAS, PER_PERSON = 2_048, 625, 6, 13
K1, K2, MIN_SAMPLES = 30, 6, 4
TOLERANCE = 1e-6
_ROWS = 1_024  # rows compared at a time
_LOADS = 2_100  # rows from which 8-bit products are made, and their kernels loaded


def make_features(n: int, seed: int = 0, *, network: bool = False) -> tuple[Array, Array]:
    """Unit features of n tracklets with the person of each: what a trained network might give.

    A row is the sum of a direction of its person (0.6 of its squared length), of its camera (0.05) and noise;
    or one of `gallery.people_like_a_network`.

    Returns:
        features (n, WIDTH) float32 and pid (n,) int64.
    """
    if network:
        return gallery.people_like_a_network(n, WIDTH, n_people(n), seed)
    rng = np.random.default_rng(seed)

    def directions(count: int, squared_length: float) -> Array:
        rows = rng.standard_normal((count, WIDTH), dtype=np.float32)
        return rows * (np.sqrt(squared_length) / np.linalg.norm(rows, axis=1, keepdims=True))

    people = n_people(n)
    person, camera = directions(people, 0.6), directions(CAMERAS, 0.05)
    pid, camid = rng.integers(0, people, n), rng.integers(0, CAMERAS, n)
    features = np.empty((n, WIDTH), np.float32)
    for lo in range(0, n, _ROWS):
        rows = slice(lo, lo + _ROWS)
        block = person[pid[rows]] + camera[camid[rows]] + directions(len(pid[rows]), 0.35)
        features[rows] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return features, pid


def n_people(n: int) -> int:
    """People among n tracklets."""
    return max(1, min(PEOPLE, n // PER_PERSON))


def rho(n: int) -> float:
    """Share of the pairs that set eps: that of true pairs, which at 625 people is the usual 1.6e-3."""
    return 1 / n_people(n)


def ours(features: Array, method: str) -> cluster.Association:
    """Tracklearn's clustering, its settings as they are."""
    n = len(features)
    return cluster.associate(
        features, k1=K1, k2=K2, rho=rho(n), min_samples=MIN_SAMPLES, fit_to_size=False, **METHODS[method]
    )


def book(features: Array) -> textbook.Clusters:
    """The dense reference with the same settings."""
    return textbook.associate(features, k1=K1, k2=K2, rho=rho(len(features)), min_samples=MIN_SAMPLES)


def run(given: tuple[Array, str]) -> Any:
    """One clustering of given features, by name: a method of ours or the textbook."""
    features, name = given
    return book(features) if name == TEXTBOOK else ours(features, name)


def prepare(n: int, seed: int, network: bool, name: str) -> tuple[Array, str]:
    """Input of `run` for `measure.peak_memory`, after a small run has loaded all that a run needs."""
    run((make_features(200 if name == TEXTBOOK else _LOADS, seed, network=network)[0], name))
    return make_features(n, seed, network=network)[0], name


def largest_difference(stored: sparse.csr_array, dense: Array, *, beyond: float = 1.0) -> float:
    """The largest difference on any pair; where `stored` has no entry, `dense` must reach `beyond`."""
    largest = 0.0
    for lo in range(0, len(dense), _ROWS):
        part = stored[lo : lo + _ROWS]
        row = np.repeat(np.arange(part.shape[0]), np.diff(part.indptr))
        difference = np.maximum(beyond - dense[lo : lo + _ROWS].astype(np.float64), 0)
        difference[row, part.indices] = np.abs(part.data - dense[lo + row, part.indices])
        largest = max(largest, float(difference.max()))
    return largest


def compare(features: Array, found: Mapping[str, Any]) -> dict[str, Any]:
    """Whether what the textbook and our methods found for the same features is the same.

    Args:
        features: (n, d).
        found: name -> Association of a method, and Clusters of the textbook where it was run.

    Returns:
        `same`: whether all of it is; `labels_differ`: the number of labels that do; `eps_differs` and, with
        the textbook, `distance_differs`: the largest difference from it, over all n² pairs.
    """
    want = found.get(TEXTBOOK)
    first = found[next(iter(METHODS))]
    label, eps = (want.label, want.eps) if want else (first.label, first.start_eps)
    differs = {
        "labels_differ": max(int((found[m].label != label).sum()) for m in METHODS),
        "eps_differs": max(abs(found[m].start_eps - eps) for m in METHODS),
    }
    if want:
        # All pairs, and those that clustering asks for.
        limits = (1.0, cluster.STORED)
        differs["distance_differs"] = max(
            largest_difference(distances(features, limit, method), want.distance, beyond=limit)
            for limit in limits
            for method in METHODS
        )
    same = differs["labels_differ"] == 0 and all(value <= TOLERANCE for value in differs.values())
    return {"same": same, **differs}


def distances(features: Array, max_distance: float, method: str) -> sparse.csr_array:
    """Our distances below `max_distance`."""
    return jaccard_distance(features, K1, K2, max_distance=max_distance, **METHODS[method])


def measure_size(n: int, *, repeats: int, seed: int = 0, network: bool = False) -> dict[str, Any]:
    """All measurements at one size."""
    names = [*METHODS, *([TEXTBOOK] if n <= TEXTBOOK_UP_TO else [])]
    repeats = 1 if n >= ONE_RUN_FROM else repeats
    for name in names:
        prepare(1, seed, network, name)  # warms up
    features, pid = make_features(n, seed, network=network)
    timing = measure.alternate(
        {name: partial(run, (features, name)) for name in names}, repeats, warm_up=False
    )
    equal = compare(features, {name: timing[name].result for name in names})
    first = timing[next(iter(METHODS))].result
    del features
    gemm = measure.gemm(n, WIDTH, repeats=repeats)
    out: dict[str, Any] = {
        "n": n,
        "features_bytes": 4 * n * WIDTH,
        "gemm_s": gemm,
        "equal": equal,
        "n_clusters": first.n_clusters,
        "agreement_with_people": agreement(first.label, pid),
    }
    if TEXTBOOK in timing:  # its distances are dense
        timing = {name: measure.Timing(t.wall, t.cpu) for name, t in timing.items()}
    for name in names:
        peak = measure.peak_memory(prepare, run, n, seed, network, name)
        out[name] = {
            **timing[name].to_dict(),
            "per_gemm": timing[name].median() / gemm,
            "per_floor": timing[name].median() / (gemm / 2),
            "memory_bytes": peak.above,
            "memory_total_bytes": peak.total,
        }
    if TEXTBOOK in names:
        for name in METHODS:
            out[name]["textbook_ratio"] = {
                "wall": measure.ratio(timing[TEXTBOOK], timing[name]),
                "cpu": measure.ratio(timing[TEXTBOOK], timing[name], "cpu"),
                "memory": out[TEXTBOOK]["memory_bytes"] / out[name]["memory_bytes"],
            }
    return out


def bars(sizes: Mapping[int, Mapping[str, Any]], method: str) -> list[measure.Bar]:
    """What was promised, beside what was measured with one method; sizes not run have no value."""

    def value(n: int, *keys: str, scale: float = 1.0) -> float | None:
        at: Any = sizes.get(n, {}).get(method)
        for key in keys:
            at = at and at.get(key)
        return at and at * scale

    mb, gb = 1e-6, 1e-9
    bar, ratio = measure.Bar, partial(measure.Bar, at_least=True)
    return [
        bar("8,298: wall (s)", 1.0, value(8_298, "wall_s")),
        bar("8,298: memory above the features (MB)", 120, value(8_298, "memory_bytes", scale=mb)),
        ratio("8,298: textbook / ours, wall", 30, value(8_298, "textbook_ratio", "wall")),
        ratio("8,298: textbook / ours, CPU", 12, value(8_298, "textbook_ratio", "cpu")),
        ratio("8,298: textbook / ours, memory", 20, value(8_298, "textbook_ratio", "memory")),
        bar("22,000: wall (s)", 5.0, value(22_000, "wall_s")),
        bar("22,000: memory above the features (MB)", 250, value(22_000, "memory_bytes", scale=mb)),
        bar("100,000: wall (s)", 120, value(100_000, "wall_s")),
        bar("100,000: memory in all (GB)", 2.5, value(100_000, "memory_total_bytes", scale=gb)),
    ]


def growth(
    sizes: Mapping[int, Mapping[str, Any]], name: str, key: str, *, start: int = 8_000
) -> float | None:
    """Exponent p of key ~ n^p, fitted over the sizes from `start` on; None with fewer than two of them."""
    points = [(n, at[name][key]) for n, at in sizes.items() if n >= start and name in at]
    if len(points) < 2:
        return None
    log_n, log_value = np.log(points).T
    return float(np.polyfit(log_n, log_value, 1)[0])


def size_table(sizes: Mapping[int, Mapping[str, Any]]) -> str:
    """One line for each size and way."""
    header = (
        "n",
        "",
        "wall s",
        "CPU s",
        "/ GEMM",
        "/ half GEMM",
        "MB above",
        "MB in all",
        "clusters",
        "equal",
    )
    rows = [
        (
            n, name, at[name]["wall_s"], at[name]["cpu_s"], at[name]["per_gemm"], at[name]["per_floor"],
            round(at[name]["memory_bytes"] / 1e6), round(at[name]["memory_total_bytes"] / 1e6),
            at["n_clusters"], at["equal"]["same"],
        )
        for n, at in sizes.items()
        for name in (*METHODS, TEXTBOOK)
        if name in at
    ]  # fmt: skip
    return measure.table(header, rows)


def draw(sizes: Mapping[int, Mapping[str, Any]], path: Path) -> None:
    """Time and memory against the number of tracklets, on logarithmic axes, as PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    look = {
        "exact": ("ours, float32", "#0072B2", "o"),
        "int8": ("ours, int8", "#009E73", "s"),
        TEXTBOOK: ("textbook + scikit-learn", "#D55E00", "^"),
    }
    figure = Figure(figsize=(11.5, 4.8), layout="constrained", dpi=130)
    time, memory = figure.subplots(1, 2)
    number = list(sizes)
    for axes, key, scale in ((time, "wall_s", 1.0), (memory, "memory_bytes", 1e-6)):
        for name, (label, colour, marker) in look.items():
            points = [(n, at[name][key] * scale) for n, at in sizes.items() if name in at]
            if points:
                power = growth(sizes, name, key)
                text = label if power is None else f"{label} (n^{power:.1f})"
                axes.plot(*zip(*points, strict=True), color=colour, marker=marker, label=text)
    gemm = np.array([at["gemm_s"] for at in sizes.values()])
    time.plot(number, gemm, color="0.35", dashes=(5, 2), label="one float32 GEMM n × n × 2,048")
    time.plot(number, gemm / 2, color="0.35", dashes=(1, 2), label="half of it: each pair once")
    squares = [4e-6 * n * n for n in number]
    memory.plot(number, squares, color="0.35", dashes=(5, 2), label="one n × n float32 matrix")
    features = [at["features_bytes"] * 1e-6 for at in sizes.values()]
    memory.plot(number, features, color="0.35", dashes=(1, 2), label="the features (not counted in ours)")
    for axes, title in ((time, "Wall time (s)"), (memory, "Peak memory above the features (MB)")):
        axes.set(xscale="log", yscale="log", xlabel="tracklets", ylabel=title)
        axes.set_xticks(number, [f"{n / 1000:.3g}k" for n in number])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,g}"))
        axes.grid(which="major", color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8.5, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    figure.savefig(path)


def measure_all(
    sizes: Iterable[int], *, repeats: int, seed: int = 0, network: bool = False
) -> dict[int, dict[str, Any]]:
    """`measure_size` of each size; says on standard error how far it is."""
    out = {}
    for n in sizes:
        print(f"n = {n:,} ...", file=sys.stderr, flush=True)
        out[n] = measure_size(n, repeats=repeats, seed=seed, network=network)
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="1,000 and 2,000 tracklets, in seconds")
    parser.add_argument("--network", action="store_true", help="features with the spectrum of a network")
    parser.add_argument("--sizes", type=int, nargs="+", help="numbers of tracklets")
    parser.add_argument(
        "--repeats", type=int, help="timed runs of each below 30,000 tracklets (3; --small 1)"
    )
    parser.add_argument("--out", type=Path, help="folder for clustering.json and clustering.png")
    given = parser.parse_args(arguments)
    wanted = sorted(given.sizes or (SMALL_SIZES if given.small else SIZES))
    if wanted[0] <= K1:
        parser.error(f"--sizes must be above {K1}")
    repeats = given.repeats or (1 if given.small else 3)
    folder = given.out or (None if given.small else measure.RESULTS)

    sizes = measure_all(wanted, repeats=repeats, network=given.network)
    exponent = {
        name: {key: growth(sizes, name, key) for key in ("wall_s", "cpu_s", "memory_bytes")}
        for name in METHODS
    }
    print(size_table(sizes))
    for method in METHODS:
        print(f"\nThe bars, with method {method}:\n{measure.bars_table(bars(sizes, method))}")
    if folder is not None:
        result = {
            "sizes": list(sizes.values()),
            "bars": {method: bars(sizes, method) for method in METHODS},
            "growth_exponent": exponent,
        }
        settings = {
            "sizes": wanted, "repeats": repeats, "seed": 0, "width": WIDTH, "people": PEOPLE,
            "cameras": CAMERAS, "k1": K1, "k2": K2, "min_samples": MIN_SAMPLES, "rho": "1 / people",
        }  # fmt: skip
        name = "clustering_network" if given.network else "clustering"
        measure.save(name, result, settings=settings, folder=folder)
        draw(sizes, folder / f"{name}.png")
    different = [n for n, at in sizes.items() if not at["equal"]["same"]]
    for n in different:
        print(f"NOT EQUAL at n = {n:,}: {sizes[n]['equal']}", file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
