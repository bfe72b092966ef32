"""Where "another person" begins, for one network on one set of films: learned from pairs that come free.

The two halves of a stretch that nothing casts doubt on are one person; two such stretches in view of one
camera at the same moment, apart, are two (`moments`). Their distances are two distributions, and a threshold
between them holds for this network and this footage, without a label.

Source: ours (METHODS 3.2, "a threshold a little below the 1 % quantile of the distances of frames seen at the
same moment in one camera").
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tracklearn.core.features import as_matrix, on_host
from tracklearn.core.moments import Moments, beyond_doubt, moments
from tracklearn.types import Array, Refusal, Tracklets

if TYPE_CHECKING:
    from torch import Tensor

Statistic = Literal["mean", "nearest"]

FEWEST = 30  # pairs of either kind below which nothing is concluded
MOST = 4096  # pairs of either kind that are compared
SPREAD = 32  # frames of a half that stand for it where all of them are compared
TAIL = 0.05  # share of pairs at the end of either kind that is not asked where the kinds are well apart
# Share of pairs on the wrong side of the best threshold from which the two kinds overlap too much to be told
# apart: of ten cuts three would then be between two pictures of one person.
OVERLAP = 0.15


@dataclass(frozen=True, eq=False)
class FreePairs:
    """Pairs of groups of rows of one set.

    Args:
        row: (m,) int64 rows of the set, group by group.
        edge: (g + 1,) int64: group k is row[edge[k]:edge[k + 1]].
        same: (p, 2) int64 groups that show one person.
        different: (q, 2) int64 groups that show two.
    """

    row: Array
    edge: Array
    same: Array
    different: Array


@dataclass(frozen=True, eq=False)
class Calibration:
    """Distances of unit features between groups of frames known to be of one person, and of two.

    Args:
        statistic: "mean", of the groups' unit means; "nearest", of the two nearest frames of the groups.
        same, different: (p,), (q,) float32, sorted, 0-2.
        threshold: distance at which as large a share of `same` lies above as of `different` below.
        error: that share, about 0-0.5: 0 where they do not overlap.
    """

    statistic: Statistic
    same: Array
    different: Array
    threshold: float
    error: float

    @property
    def separates(self) -> bool:
        """Whether the two kinds overlap little enough for a threshold to mean something."""
        return self.error <= OVERLAP

    @property
    def joins_below(self) -> float:
        """Distance below which two groups are taken for one person.

        The threshold; where the kinds overlap too much, a distance that 95 of 100 pairs of one person keep: a
        cut that is not likelier a change of person than of pose is none.
        """
        return self.threshold if self.separates else max(self.threshold, self.quantile("same", 0.95))

    def quantile(self, kind: Literal["same", "different"], share: float) -> float:
        """The distance below which this share of the pairs of one person, or of two, lie."""
        return float(np.quantile(self.same if kind == "same" else self.different, share))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the record: counts, threshold, error and a few quantiles."""
        shares = (0.01, 0.05, 0.5, 0.95, 0.99)
        return {
            "statistic": self.statistic,
            "threshold": self.threshold,
            "joins_below": self.joins_below,
            "error": self.error,
            "separates": self.separates,
            "same": {"n": len(self.same), **{f"{q:g}": self.quantile("same", q) for q in shares}},
            "different": {
                "n": len(self.different),
                **{f"{q:g}": self.quantile("different", q) for q in shares},
            },
        }


def free_pairs(tracklets: Tracklets, found: Moments | None = None) -> FreePairs:
    """Groups of frames that show one person or two, told from boxes and times alone.

    Args:
        tracklets: a tracker's, of films.
        found: what `moments` gives for them, where that is known.

    Returns:
        FreePairs; at most MOST of either kind, evenly spread. None of two people in sets without
        boxes of a film, or where nobody is ever seen beside another.
    """
    found = found or moments(tracklets)
    span = beyond_doubt(tracklets, found.shared)
    none = np.zeros((0, 2), np.int64)
    if not len(span):
        return FreePairs(np.zeros(0, np.int64), np.zeros(1, np.int64), none, none)
    middle = span.sum(1) // 2
    row = np.concatenate([np.arange(a, b) for a, b in span])
    length = np.stack([middle - span[:, 0], span[:, 1] - middle], 1).reshape(-1)
    edge = np.r_[0, np.cumsum(length)]
    same = np.arange(2 * len(span)).reshape(-1, 2)
    # Each stretch a tracklet of its own, in the order of its rows: who of them is in view together?
    part = np.full(tracklets.n_crops, -1, np.int64)
    part[row] = np.repeat(np.arange(len(span)), span[:, 1] - span[:, 0])
    pair = moments(replace(tracklets, crop=np.arange(tracklets.n_crops)).split(part)).pair
    # The first half of one and the second of the other: as many frames, as far apart in time, as of `same`.
    different = np.stack([2 * pair[:, 0], 2 * pair[:, 1] + 1], 1)
    return FreePairs(row, edge, _evenly(same), _evenly(different))


def calibrate(
    features: Array | Tensor, pairs: FreePairs, *, statistic: Statistic = "mean"
) -> Calibration | None:
    """Distances of free pairs, and the threshold between the two kinds.

    Args:
        features: (n, d) of all rows of the set, any lengths but zero.
        pairs: of `free_pairs`.
        statistic: which distance of two groups.

    Returns:
        Calibration; None where there are fewer than FEWEST pairs of either kind.
    """
    if statistic not in ("mean", "nearest"):
        raise Refusal(f'statistic is "{statistic}", expected "mean" or "nearest"')
    if min(len(pairs.same), len(pairs.different)) < FEWEST:
        return None
    x = on_host(as_matrix(features))
    distances = _of_means if statistic == "mean" else _of_nearest
    same, different = (
        np.sort(distances(x, pairs, kind)).astype(np.float32) for kind in (pairs.same, pairs.different)
    )
    threshold, error = equal_error(same, different)
    return Calibration(statistic, same, different, threshold, error)


def equal_error(same: Array, different: Array) -> tuple[float, float]:
    """The threshold with as large a share of `same` above it as of `different` below, and that share.

    Where the share is below TAIL, one pair more or less would move the threshold over the whole gap between
    the two kinds: then it is the middle of the distances that TAIL of either kind go beyond.

    >>> threshold, error = equal_error(np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.7]))
    >>> round(threshold, 2), error
    (0.4, 0.0)
    """
    same, different = np.sort(np.asarray(same, float)), np.sort(np.asarray(different, float))
    at = np.unique(np.r_[same, different])
    above = 1 - np.searchsorted(same, at, side="right") / len(same)
    below = np.searchsorted(different, at, side="left") / len(different)
    first = int(np.argmax(below >= above))  # below rises, above falls; at the last value above is 0
    error = float((above[first] + below[first]) / 2)
    tail = max(error, TAIL)
    return float(np.quantile(same, 1 - tail) + np.quantile(different, tail)) / 2, error


def _of_means(x: Array, pairs: FreePairs, kind: Array) -> Array:
    """(p,) distances of the unit means of pairs of groups."""
    used = np.unique(kind)
    mean = np.empty((len(pairs.edge) - 1, x.shape[1]))
    for k in used:
        rows = _unit(x[pairs.row[pairs.edge[k] : pairs.edge[k + 1]]])
        mean[k] = rows.mean(0)
    mean[used] = _unit(mean[used])
    cosine = np.einsum("ij,ij->i", mean[kind[:, 0]], mean[kind[:, 1]])
    return np.sqrt(np.maximum(0, 2 - 2 * cosine))


def _of_nearest(x: Array, pairs: FreePairs, kind: Array) -> Array:
    """(p,) distances of the nearest two frames of pairs of groups."""
    out = np.empty(len(kind))
    for i, (a, b) in enumerate(kind):
        left, right = (_unit(x[_some(pairs.row[pairs.edge[k] : pairs.edge[k + 1]])]) for k in (a, b))
        out[i] = np.sqrt(max(0.0, 2 - 2 * float((left @ right.T).max())))
    return out


def _unit(rows: Array) -> Array:
    rows = np.asarray(rows, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _some(rows: Array) -> Array:
    """At most SPREAD of these rows, evenly spread."""
    return rows if len(rows) <= SPREAD else rows[np.linspace(0, len(rows) - 1, SPREAD).astype(np.int64)]


def _evenly(pairs: Array) -> Array:
    """At most MOST of these pairs, evenly spread."""
    return pairs if len(pairs) <= MOST else pairs[np.linspace(0, len(pairs) - 1, MOST).astype(np.int64)]
