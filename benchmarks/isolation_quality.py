"""How well isolation parts the persons of a tracklet: DBSCAN's whole eps curve beside change points.

    python -m benchmarks.isolation_quality --cache DIR [--data DIR] [--market DIR] [--seeds N] [--out DIR]

Material (`isolation_material`), its features kept in the cache folder after the first run:

- visits: pets09 along its ground truth, cut into segments of 10-120 frames that are joined at random to
  tracklets of 1-3 segments, several seeds; the first half of the film chose the constants of change points,
  the second was held out. Also at a third and a seventh of the frame rate;
- pets, one-by-one, people: a detector's and ByteTrack's tracklets on real videos, the last two without truth;
- worlds 11 and 12 (which chose the constants too), 0 (held out), 13 and 14 (first looked at when all was
  fixed), with the demo's detector, tracker and starting network. The other features are ImageNet
  MobileNetV2's at 256×128;
- market: (person, camera) groups of Market-1501 joined likewise, where its folder is given.

A true switch is where two runs of at least 6 frames (market: 1) of different known persons follow each other;
it is found if a cut lies within 5 frames of it. All other cuts are false. Impure are the kept frames of known
persons that do not show the person most frequent in their part; lost, those dropped or impure.

The penalty of change points and the eps of DBSCAN are multiples of what each set's unlabelled features
give: the factors are the curves, and 1 is the default. As cutting alone makes parts purer, as many cuts
at equal distances stand beside the default. Prints the tables, writes
isolation_quality.json and .png. Exit code 1 where change points by default lose more frames than DBSCAN at
its best eps on a set that has truth.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import measure
from benchmarks.isolation_material import Material, every, half, join, load
from tracklearn.core import noise
from tracklearn.core.change_point import typical_penalty
from tracklearn.core.isolate import adjacent_similarity, isolate, typical_step

Array = NDArray[Any]
Row = dict[str, Any]

NEAR = 5  # frames from a cut to the switch it finds
DBSCAN = (0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4)  # of the typical step
CHANGE_POINT = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0)  # of the typical change
WINDOWS = ((1.5, 0.08), (0.86, 0.10))  # seconds and threshold of METHODS 3.2
COLUMNS = ("dropped", "impure", "lost", "parts", "persons", "found", "false_cuts", "switches")
USED = "worlds: tiny, random, norms measured on the set; all others: mobilenet_v2_imagenet_float at 256×128"
SHOWN = ("visits, held out", "pets, tracker", "world 0")


def switches(pid: Array, min_run: int) -> list[tuple[int, int]]:
    """Of one tracklet's persons (n,), −1 for nobody known: where a run ends and where another's begins.

    Runs of less than `min_run` rows are passed over; −1 parts runs.
    """
    edge = np.r_[0, np.flatnonzero(np.diff(pid)) + 1, len(pid)]
    runs = [(pid[a], a, b) for a, b in pairwise(edge) if pid[a] >= 0 and b - a >= min_run]
    return [(before[2], after[1]) for before, after in pairwise(runs) if before[0] != after[0]]


def judge(given: Material, part: Array, *, min_run: int = 6) -> Row:
    """The columns of the table; what needs truth is None without any known person."""
    edge = np.r_[0, np.flatnonzero(np.diff(given.tracklet)) + 1, len(given)]
    n_switches = n_found = n_false = n_parts = 0
    for lo, hi in pairwise(edge):
        own = part[lo:hi]
        kept = np.flatnonzero(own >= 0)
        n_parts += len(np.unique(own[kept]))
        cuts = kept[1:][np.diff(own[kept]) != 0]
        explained = np.zeros(len(cuts), bool)
        for end, begin in switches(given.pid[lo:hi], min_run):
            near = (cuts >= end - NEAR) & (cuts <= begin + NEAR)
            explained |= near
            n_switches += 1
            n_found += bool(near.any())
        n_false += int((~explained).sum())
    keep, known = part >= 0, given.pid >= 0
    row: Row = {"dropped": float(1 - keep.mean()), "parts": n_parts / (len(edge) - 1)}
    row |= {"false_cuts": 1000 * n_false / len(given), "switches": n_switches}
    if not known.any():
        return {**dict.fromkeys(COLUMNS), **row, "switches": None}
    held = given.tracklet * (part.max() + 2) + part
    seen = keep & known
    impure = noise.impure_fraction(held[seen], given.pid[seen])
    persons = np.unique(np.stack([held[seen], given.pid[seen]]), axis=1)
    return row | {
        "impure": impure,
        "lost": float(1 - seen.sum() / known.sum() * (1 - impure)),
        "persons": persons.shape[1] / len(np.unique(persons[0])),
        "found": n_found / n_switches if n_switches else None,
    }


def windows(given: Material, seconds: float, threshold: float) -> Array:
    """Parts (n,) by METHODS 3.2: cosine distance of the means of windows before and after each frame."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    part = np.zeros(len(given), np.int64)
    edge = np.r_[0, np.flatnonzero(np.diff(given.tracklet)) + 1, len(given)]
    step = np.median(np.diff(given.time)[np.diff(given.tracklet) == 0])
    w = max(3, round(seconds / step))
    for lo, hi in pairwise(edge):
        n = hi - lo
        total = np.vstack([np.zeros(given.features.shape[1]), np.cumsum(given.features[lo:hi], 0, float)])
        distance = np.zeros(n)
        for i in range(3, n - 2):
            before, after = total[i] - total[max(i - w, 0)], total[min(i + w, n)] - total[i]
            distance[i] = 1 - before @ after / np.linalg.norm(before) / np.linalg.norm(after)
        reach = max(1, w // 2)
        high = np.flatnonzero(distance > threshold)
        cuts = [
            i for i in high if i == max(i - reach, 0) + distance[max(i - reach, 0) : i + reach + 1].argmax()
        ]
        bounds = np.r_[0, cuts, n].astype(int)
        label = np.ones(1, np.int64)
        if cuts:
            stretch = total[bounds[1:]] - total[bounds[:-1]]
            label = fcluster(linkage(pdist(stretch, "cosine"), "average"), threshold, "distance")
        part[lo:hi] = np.repeat(label - 1, np.diff(bounds))
    return part


def even(given: Material, part: Array) -> Array:
    """Parts (n,) of equal lengths, as many in each tracklet as `part` has stretches: cuts made blindly."""
    edge = np.r_[0, np.flatnonzero(np.diff(given.tracklet)) + 1, len(given)]
    return np.concatenate(
        [
            np.arange(hi - lo) * (1 + np.count_nonzero(np.diff(part[lo:hi]))) // (hi - lo)
            for lo, hi in pairwise(edge)
        ]
    )


def judged(sets: Sequence[Material], *, min_run: int = 6) -> dict[str, Row]:
    """Every variant on sets of one kind, columns averaged over the sets; rows by name."""
    rows: dict[str, list[Row]] = {}
    for given in sets:

        def add(name: str, part: Array, given: Material = given) -> None:
            rows.setdefault(name, []).append(judge(given, part, min_run=min_run))

        by = {"frame": given.frame, "time": given.time}
        add("whole", np.zeros(len(given), np.int64))
        eps = typical_step(adjacent_similarity(given.features, given.tracklet))
        for factor in DBSCAN:
            add(f"dbscan {factor:g}", isolate(given.features, given.tracklet, **by, eps=factor * eps))
        penalty = typical_penalty(given.features, given.tracklet, time=given.time)
        for factor in CHANGE_POINT:
            found = isolate(
                given.features, given.tracklet, **by, method="change-point", penalty=factor * penalty
            )
            add(f"change-point {factor:g}", found)
            if factor == 1:
                add("as many even cuts", even(given, found))
        for seconds, threshold in WINDOWS:
            add(f"windows {seconds:g} s {threshold:g}", windows(given, seconds, threshold))
    return {name: _mean(found) for name, found in rows.items()}


def _mean(rows: Sequence[Row]) -> Row:
    known = {name: [row[name] for row in rows if row[name] is not None] for name in COLUMNS}
    return {name: float(np.mean(values)) if values else None for name, values in known.items()}


def collect(cache: Path, data: Path, market: Path | None, seeds: int) -> dict[str, dict[str, Row]]:
    """All tables by the name of their set."""
    visits = load("visits", cache, data)
    pets = load("pets", cache, data)
    found = {
        "visits, first half": judged([join(half(visits, "first"), s) for s in range(seeds)]),
        "visits, held out": judged([join(half(visits, "second"), s) for s in range(seeds)]),
        "visits, held out, 2.3 fps": judged(
            [join(every(half(visits, "second"), 3), s, segment=(4, 40)) for s in range(seeds)], min_run=3
        ),
        "visits, held out, 1 fps": judged(
            [join(every(half(visits, "second"), 7), s, segment=(2, 17)) for s in range(seeds)], min_run=2
        ),
        "pets, tracker": judged([pets]),
        "pets, tracker, held out": judged([half(pets, "second")]),
    }
    for name in ("one-by-one", "people"):
        found[f"{name}, tracker"] = judged([load(name, cache, data)])
    for seed in (11, 12, 0, 13, 14):
        found[f"world {seed}"] = judged([load(f"world-{seed}", cache, data)])
    if market is not None:
        groups = load("market", cache, data, market)
        found["market"] = judged([join(groups, s, segment=(2, 1000)) for s in range(seeds)], min_run=1)
    return found


def bars(found: Mapping[str, Mapping[str, Row]]) -> list[measure.Bar]:
    """Frames lost by change points by default, beside the fewest that DBSCAN loses, where truth is known."""
    return [
        measure.Bar(
            f"{name}: frames lost, % (limit: DBSCAN at its best eps)",
            100 * min(row["lost"] for variant, row in rows.items() if variant.startswith("dbscan")),
            100 * rows["change-point 1"]["lost"],
        )
        for name, rows in found.items()
        if rows["whole"]["lost"] is not None
    ]


def report(found: Mapping[str, Mapping[str, Row]]) -> str:
    """The tables."""
    header = (
        "", "dropped %", "impure %", "lost %", "parts a tracklet", "persons a part", "switches found %",
        "false cuts / 1000", "switches",
    )  # fmt: skip
    scale = {"dropped": 100, "impure": 100, "lost": 100, "found": 100}
    pages = []
    for name, rows in found.items():
        lines = [
            (variant, *(None if row[c] is None else scale.get(c, 1) * row[c] for c in COLUMNS))
            for variant, row in rows.items()
        ]
        pages.append(f"{name}\n{measure.table(header, lines)}")
    return "\n\n".join([f"weights: {USED}", *pages, measure.bars_table(bars(found))])


def draw(found: Mapping[str, Mapping[str, Row]], path: Path) -> None:
    """Dropped against impure frames of both methods, a panel for each set of SHOWN."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(SHOWN)), SHOWN, strict=True):
        rows = found[name]
        for kind, colour, label in (
            ("dbscan", "tab:blue", "DBSCAN, every eps"),
            ("change-point", "tab:red", "change points, every penalty"),
        ):
            curve = [row for variant, row in rows.items() if variant.startswith(kind)]
            x, y = ([100 * row[c] for row in curve] for c in ("dropped", "impure"))
            axes.plot(x, y, "o-", color=colour, label=label, markersize=4, clip_on=False)
        for variant, colour in (("dbscan 1", "tab:blue"), ("change-point 1", "tab:red")):
            row = rows[variant]
            axes.plot(
                100 * row["dropped"], 100 * row["impure"], "*", color=colour, markersize=15, clip_on=False,
                markeredgecolor="black", label="default" if colour == "tab:red" else "eps auto",
            )  # fmt: skip
        whole = rows["whole"]["impure"]
        axes.plot(0, 100 * whole, "kx", label="no isolation", clip_on=False)
        axes.set(title=name, xlabel="frames dropped, %", xlim=(-1, None), ylim=(0, None))
    figure.axes[0].set_ylabel("impure frames, %")
    figure.axes[-1].legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, help="folder for videos' sets and features")
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("TRACKLEARN_TEST_DATA", "../shared/data"))
    )
    parser.add_argument("--market", type=Path, help="folder of Market-1501")
    parser.add_argument("--seeds", type=int, default=5, help="random joins of each set")
    parser.add_argument("--out", type=Path, default=measure.RESULTS, help="folder of the results")
    arguments = parser.parse_args(argv)
    found = collect(arguments.cache, arguments.data, arguments.market, arguments.seeds)
    print(report(found))
    settings = {"seeds": arguments.seeds, "near": NEAR, "weights": USED}
    measure.save(
        "isolation_quality", {"sets": found, "bars": bars(found)}, settings=settings, folder=arguments.out
    )
    draw(found, arguments.out / "isolation_quality.png")
    return 0 if all(bar.met for bar in bars(found)) else 1


if __name__ == "__main__":
    sys.exit(main())
