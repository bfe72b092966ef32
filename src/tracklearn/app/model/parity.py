"""Whether an exported network is still the network: both on the same real crops of a run's set.

What is compared comes free with every film (`core.calibration.free_pairs`): halves of stretches of tracks
that show one person, and tracks seen at the same moment, which show two. No label is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tracklearn.core import rank
from tracklearn.core.calibration import Calibration, FreePairs, calibrate, free_pairs
from tracklearn.types import Array, Refusal, Tracklets

MOST = 64  # stretches that are compared
OF_HALF = 4  # crops of either half
TURNS = 3  # of timing, of which the fastest counts


@dataclass(frozen=True)
class Bounds:
    """What an export may differ by, on the features of the same crops.

    Args:
        cosine: mean cosine of a crop's two features at least.
        difference: of any of their values at most.
        rank1: share of queries lost at most, above one query.
    """

    cosine: float
    difference: float
    rank1: float


# float32 differs by the order of sums; int8 rounds everything [chosen: ten times what was measured; the aim].
FLOAT = Bounds(cosine=0.9999, difference=1e-3, rank1=0.0)
INT8 = Bounds(cosine=0.98, difference=2.0, rank1=0.015)


@dataclass(frozen=True, eq=False)
class Sample:
    """Crops of stretches, first halves and second halves.

    Args:
        row: (n,) int64 rows of the set's crops.
        track: (n,) int64 track of each.
        asked: (n,) bool, whether it is of a first half.
        pairs: each crop of a first half with the second half of its own stretch (one person), and of those in
            view beside it (two); rows of `pairs` are positions in `row`.
    """

    row: Array
    track: Array
    asked: Array
    pairs: FreePairs


@dataclass(frozen=True)
class Parity:
    """How near an export is to the network.

    Args:
        n: crops compared. max_difference: of a value of the unit features.
        cosine, least_cosine: mean and least over crops.
        rank1, rank1_torch, rank1_search: share of crops of first halves whose nearest crop of all second
            halves is of the same track, of the export, of the same features by torch, and of the features
            that search uses, which are others where a format has no place for the neck. n_queries: of how
            many.
    """

    n: int
    max_difference: float
    cosine: float
    least_cosine: float
    rank1: float
    rank1_torch: float
    rank1_search: float
    n_queries: int

    def to_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)

    def check(self, bounds: Bounds, what: str) -> None:
        """Refuse an export that differs by more.

        Raises:
            ValueError: it does; the line says by what.
        """
        lost = self.rank1_torch - self.rank1
        if (
            self.cosine >= bounds.cosine
            and self.max_difference <= bounds.difference
            and lost <= max(bounds.rank1, 1 / self.n_queries) + 1e-9
        ):
            return
        raise Refusal(
            f"{what} differs too much from the network: cosine {self.cosine:.4f} (at least "
            f"{bounds.cosine:g}), largest difference {self.max_difference:.2g} (at most "
            f"{bounds.difference:g}), rank-1 {100 * self.rank1:.1f} instead of {100 * self.rank1_torch:.1f} "
            f"on {self.n} crops of the set; nothing was written"
        )


def draw(tracklets: Tracklets) -> Sample:
    """Crops to compare on: those of stretches beyond doubt, of whole tracks where boxes tell of none.

    Args:
        tracklets: a set's own, before isolation.

    Raises:
        ValueError: there are not two tracks of two crops.
    """
    found = free_pairs(tracklets)
    if len(found.same) < 2:
        found = _halves(tracklets)
    if len(found.same) < 2:
        raise Refusal(
            "the set has not two tracks of two crops, there is nothing to compare the export on: give "
            "another set by --crops"
        )
    kept = found.same[_evenly(len(found.same), MOST)]
    row: list[int] = []
    size: list[int] = []
    asked: list[bool] = []
    crop_of: dict[int, list[int]] = {}  # groups that are one crop each, by the half that they are of
    half_of: dict[int, int] = {}
    for first, second in kept:
        a, b = (_some(found.row[found.edge[k] : found.edge[k + 1]]) for k in (first, second))
        crop_of[int(first)] = list(range(len(size), len(size) + len(a)))
        half_of[int(second)] = len(size) + len(a)
        row += [*a, *b]
        size += [*([1] * len(a)), len(b)]
        asked += [*([True] * len(a)), *([False] * len(b))]

    def crossed(pairs: Array) -> Array:
        out = [
            (crop, half_of[int(b)])
            for a, b in pairs
            if int(a) in crop_of and int(b) in half_of
            for crop in crop_of[int(a)]
        ]
        return np.array(out, np.int64).reshape(-1, 2)

    rows = np.array(row, np.int64)
    edge = np.r_[0, np.cumsum(size)].astype(np.int64)
    pairs = FreePairs(np.arange(len(rows)), edge, crossed(kept), crossed(found.different))
    return Sample(tracklets.crop[rows], tracklets.tracklet[rows], np.array(asked), pairs)


def others(tracklets: Tracklets, sample: Sample, n: int) -> Array:
    """(up to n,) rows of crops, evenly spread over the set, of which none is compared; all of a tiny set."""
    free = np.setdiff1d(tracklets.crop, sample.row)
    return free[_evenly(len(free), n)] if len(free) >= min(n, 16) else sample.row[:n]


def compare(wanted: Array, got: Array, sample: Sample, *, search: Array | None = None) -> Parity:
    """How near the features `got` are to `wanted`.

    Args:
        wanted, got: (n, d) float32 unit features of the sample's crops.
        search: (n, e) unit features that search uses, where these are not `wanted`.

    Raises:
        ValueError: the two are of another width.
    """
    if wanted.shape != got.shape:
        raise Refusal(f"the export gives features of shape {got.shape}, expected {wanted.shape}")
    cosine = np.einsum("ij,ij->i", wanted.astype(np.float64), got.astype(np.float64))
    return Parity(
        n=len(got),
        max_difference=float(np.abs(wanted - got).max()),
        cosine=float(cosine.mean()),
        least_cosine=float(cosine.min()),
        rank1=_rank1(got, sample),
        rank1_torch=_rank1(wanted, sample),
        rank1_search=_rank1(wanted if search is None else search, sample),
        n_queries=int(sample.asked.sum()),
    )


def thresholds(features: Array, sample: Sample) -> Calibration | None:
    """Where "another person" begins for one crop against what is remembered of a track, as trackers compare.

    None where there are too few pairs, as in sets without a film.
    """
    return calibrate(features, sample.pairs)


def speeds(runs: Mapping[str, Callable[[], Any]], n: int) -> dict[str, float]:
    """Images a second of each of `runs`, which take n images a call; in turns, the fastest of each counts."""
    seconds = dict.fromkeys(runs, float("inf"))
    for _ in range(TURNS):
        for name, call in runs.items():
            began = time.perf_counter()
            call()
            seconds[name] = min(seconds[name], time.perf_counter() - began)
    return {name: n / max(value, 1e-9) for name, value in seconds.items()}


def _rank1(features: Array, sample: Sample) -> float:
    query, gallery = sample.asked, ~sample.asked
    pid = sample.track + 1
    camid = np.zeros(len(pid), np.int64)
    scores = rank.evaluate(
        (features[query], features[gallery]),
        pid[query],
        pid[gallery],
        camid[query],
        camid[gallery],
        same_camera=True,
        max_rank=1,
    )
    return float(scores.cmc[0])


def _halves(tracklets: Tracklets) -> FreePairs:
    """Halves of whole tracks of two crops or more."""
    kept = np.flatnonzero(tracklets.length >= 2)
    start, length = tracklets.start[kept], tracklets.length[kept]
    size = np.stack([length // 2, length - length // 2], 1).reshape(-1)
    row = [np.arange(a, a + n) for a, n in zip(start, length, strict=True)]
    return FreePairs(
        np.concatenate([np.zeros(0, np.int64), *row]),
        np.r_[0, np.cumsum(size)].astype(np.int64),
        np.arange(2 * len(kept)).reshape(-1, 2),
        np.zeros((0, 2), np.int64),
    )


def _some(rows: Array) -> Array:
    return rows[_evenly(len(rows), OF_HALF)]


def _evenly(n: int, most: int) -> Array:
    """Up to `most` of 0..n − 1, evenly spread."""
    return np.unique(np.linspace(0, max(n - 1, 0), min(n, most)).astype(np.int64)) if n else np.arange(0)
