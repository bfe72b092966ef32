"""Who is who among real people: Market-1501's test persons, joined without labels and judged by them.

    python -m benchmarks.market_identities --market DIR --weights FILE --cache DIR [--out DIR]

A tracklet is the images of bounding_box_test of one person, camera and sequence, in the order of frames; junk
and distractors are left out. It is pure by construction, so that only links are judged. Features are those of
published weights, not trained here, extracted once and kept in --cache. Times are not used, and no pair is
known as two people by them: appearance decides alone.

The limit is the one that `tracklearn identities` takes by itself: pairs by chance (folders of crops have no
moments), features normalised by camera, limits for as many people as were found at first. Beside it the F1 of
pairs of tracklets at every distance, of which the best is known only in hindsight.

Prints the table, writes market_identities.json and .png to DIR (benchmarks/results).
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.identities import pair_rates
from tracklearn.app.identities.calibrated import Calibrated, learn
from tracklearn.app.model.open import open_weights
from tracklearn.core.identities import Evidence, Limits, link, mistakes
from tracklearn.store.files import hash_file
from tracklearn.store.picture.images import ImageFiles
from tracklearn.types import Array, Tracklets

DISTANCES = np.round(np.arange(0.5, 1.4001, 0.02), 2)
AIM = 0.95  # of the best F1 in hindsight
# Some images of the published archive, all of person 1488 among them, have the ending twice.
_NAME = re.compile(r"(\d{4})_c(\d)s(\d)_(\d{6})_(\d\d)\.jpg(?:\.jpg)?")
_NONE = np.zeros((0, 2), np.int64)


def read(names: Sequence[str]) -> tuple[list[str], Tracklets, Array]:
    """File names in the order of rows, the tracklets of them, and the person of each tracklet.

    Args:
        names: of a folder's files, in any order; junk, distractors and other files are left out.
    """
    rows = []
    for name in names:
        found = _NAME.fullmatch(name)
        if found and int(found[1]) > 0:
            pid, camera, sequence, frame, number = map(int, found.groups())
            rows.append((pid, camera, sequence, frame, number, name))
    rows.sort()
    keys = np.array([row[:4] for row in rows], np.int64).reshape(-1, 4)
    begins = np.r_[True, (np.diff(keys[:, :3], axis=0) != 0).any(1)] if len(rows) else np.zeros(0, bool)
    first = np.flatnonzero(begins)
    n = len(rows)
    # As of a folder of crops: one box for all, no time.
    tracklets = Tracklets(
        tracklet=np.cumsum(begins) - 1,
        frame=keys[:, 3],
        time=np.zeros(n),
        box=np.tile(np.array([0, 0, 64, 128], np.float32), (n, 1)),
        score=np.ones(n),
        crop=np.arange(n),
        camid=keys[first, 1] - 1,
        source=np.arange(len(first)),
    )
    return [row[5] for row in rows], tracklets, keys[first, 0]


def features_of(root: Path, names: Sequence[str], weights: Path, cache: Path) -> tuple[Array, float]:
    """(n, d) unit features of the images, kept in `cache`; and the seconds of processor time they took."""
    kept = cache / f"market-{hash_file(weights)[:12]}-{len(names)}.npz"
    if not kept.is_file():
        model = open_weights(str(weights), device="cpu")
        began = time.process_time()
        crops = ImageFiles(root, names).crops(model.height, model.width, cache_bytes=0)
        made = model.extract(crops, np.arange(len(names)))
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(kept, feature=made, seconds=time.process_time() - began)
    found = np.load(kept)
    return found["feature"], float(found["seconds"])


def joined(found: Calibrated, tracklets: Tracklets, limits: Limits) -> tuple[Evidence, Array]:
    """The evidence at some limits, and the identity of each tracklet."""
    evidence = Evidence(found.mean, tracklets.length, tracklets.camid, limits, _NONE, _NONE)
    return evidence, link(evidence)


def across(label: Array, pid: Array, camid: Array) -> float:
    """F1 of the pairs of tracklets of different cameras."""

    def pairs(*columns: Array) -> float:
        def count(*by: Array) -> float:
            n = np.unique(np.stack(by), axis=1, return_counts=True)[1].astype(float)
            return float((n * (n - 1)).sum() / 2)

        return count(*columns) - count(*columns, camid)

    return 2 * pairs(label, pid) / max(pairs(label) + pairs(pid), 1.0)


def judged(label: Array, pid: Array, camid: Array) -> dict[str, float]:
    """What ground truth says of a labelling."""
    precision, recall, f1 = pair_rates(label, pid)
    identities = int(label.max()) + 1
    return {
        "identities": identities,
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "f1_across": across(label, pid, camid),
    }


def measured(features: Array, tracklets: Tracklets, pid: Array) -> dict[str, Any]:
    """The label-free limit and what it comes to, and the same at every distance."""
    found = learn(SimpleNamespace(tracks=tracklets, parts=tracklets), features)  # type: ignore[arg-type]
    limits = found.limits()
    assert limits is not None
    assert found.linking is not None
    label = joined(found, tracklets, limits)[1]
    first, people = limits, int(label.max()) + 1
    limits = found.limits(people=people)
    assert limits is not None
    evidence, label = joined(found, tracklets, limits)
    expected = mistakes(evidence, found.linking.same, _NONE)  # no pair is known as two people
    curve = []
    for distance in DISTANCES.tolist():
        at = joined(found, tracklets, Limits.of(distance, found.shift))[1]
        curve.append({"distance": distance, **judged(at, pid, tracklets.camid)})
    return {
        "tracklets": len(tracklets),
        "images": tracklets.n_crops,
        "people": len(np.unique(pid)),
        "error": found.linking.error,
        "trusted": found.trusted,
        "shift": found.shift,
        "unlike": None if found.across is None else found.across.unlike,
        "first": {"distance": first.distances()["within_distance"], "people": people},
        "label_free": {
            "distance": limits.distances()["within_distance"],
            "expected_split": expected.split,
            **judged(label, pid, tracklets.camid),
        },
        "curve": curve,
    }


def bars(found: Mapping[str, Any]) -> list[measure.Bar]:
    """F1 at the label-free limit, as a share of the best in hindsight."""
    own = found["label_free"]
    return [
        measure.Bar(
            f"{what}, of the best in hindsight",
            AIM,
            own[name] / max(row[name] for row in found["curve"]),
            at_least=True,
        )
        for name, what in (("f1", "F1 of pairs"), ("f1_across", "F1 of pairs across cameras"))
    ]


def table(found: Mapping[str, Any]) -> str:
    """Label-free, and the best distances in hindsight."""
    columns = ("limit", "distance", "identities", "precision", "recall", "f1", "f1_across")
    best = {name: max(found["curve"], key=lambda row: row[name]) for name in ("f1", "f1_across")}
    rows = [
        (name, *(row[c] for c in columns[1:]))
        for name, row in (
            ("label-free", found["label_free"]),
            ("best F1 in hindsight", best["f1"]),
            ("best F1 across in hindsight", best["f1_across"]),
        )
    ]
    return measure.table(columns, rows)


def draw(found: Mapping[str, Any], path: Path) -> None:
    """F1, precision and recall by the distance, with the label-free limit."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    at = [row["distance"] for row in found["curve"]]
    for name, colour, style, label in (
        ("f1", "tab:blue", "-", "F1 of pairs of tracklets"),
        ("f1_across", "tab:green", "-", "F1 across cameras"),
        ("precision", "0.45", "--", "precision"),
        ("recall", "0.45", ":", "recall"),
    ):
        axes.plot(at, [row[name] for row in found["curve"]], style, color=colour, label=label)
    own = found["label_free"]["distance"]
    axes.axvline(own, color="tab:red", linewidth=1, label=f"limit without labels, {own:.2f}")
    axes.set(
        xlabel="joined below this distance of unit features",
        ylim=(0, 1),
        xlim=(at[0], at[-1]),
        title=f"Market-1501, {found['people']} test persons, {found['tracklets']:,} tracklets",
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize="small", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--market", type=Path, required=True, help="folder of Market-1501")
    parser.add_argument("--weights", type=Path, required=True, help="published weights of a re-ID network")
    parser.add_argument("--cache", type=Path, required=True, help="folder for features")
    parser.add_argument("--out", type=Path, default=measure.RESULTS, help="folder of the results")
    given = parser.parse_args(arguments)
    root = given.market / "bounding_box_test"
    names, tracklets, pid = read(sorted(path.name for path in root.iterdir()))
    features, seconds = features_of(root, names, given.weights, given.cache)
    found = measured(features, tracklets, pid)
    print(table(found))
    print(measure.bars_table(bars(found)))
    settings = {"weights": given.weights.name, "distances": [DISTANCES[0], DISTANCES[-1], len(DISTANCES)]}
    result = {**found, "extraction_cpu_s": seconds, "bars": bars(found)}
    measure.save("market_identities", result, settings=settings, folder=given.out)
    draw(found, given.out / "market_identities.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
