"""Where "another person" begins, for one network on one set of films: learned from pairs that come free.

The two halves of a stretch that nothing casts doubt on are one person; two such stretches in view of one
camera at the same moment, apart, are two (`moments`). Their distances are two distributions, and a threshold
between them holds for this network and this footage, without a label. So does how probable one person is at a
distance, and a threshold for a wished rate of false merges.

From camera to camera no pair comes free. What is assumed there says `crossing`.

Source: ours (METHODS 3.2, "a threshold a little below the 1 % quantile of the distances of frames seen at the
same moment in one camera"; METHODS 3.3).
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

Statistic = Literal["mean", "nearest", "crop"]

FEWEST = 30  # pairs of either kind below which nothing is concluded
MOST = 4096  # pairs of either kind that are compared
SPREAD = 32  # frames of a half that stand for it where all of them are compared
TAIL = 0.05  # share of pairs at the end of either kind that is not asked where the kinds are well apart
# Share of pairs on the wrong side of the best threshold from which the two kinds overlap too much to be told
# apart: of ten cuts three would then be between two pictures of one person.
OVERLAP = 0.15
# Greatest difference of the two kinds of chance pairs, as shares, from which a camera's features are not
# those of another one moved: the calibration within cameras then says nothing of pairs across them.
UNLIKE = 0.15


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
        statistic: "mean", of the groups' unit means; "nearest", of the two nearest frames of the groups;
            "crop", of two single crops (`mixture.unmix`).
        same, different: (p,), (q,) float32, sorted, 0-2.
        threshold: distance at which as large a share of `same` lies above as of `different` below; of single
            crops as many pairs, of those that tracklets have: where hardly any is mixed, hardly any is cut.
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

    @property
    def curve(self) -> Curve:
        """How probable one person is at a distance."""
        return Curve.of(self.same, self.different)

    def limit(self, false_merges: float) -> float:
        """The greatest distance below which at most this share of pairs of two people is to be expected.

        Of q pairs the k-th nearest, k = ⌊share · (q + 1)⌋: another pair of two people, drawn as these were,
        lies below it with a probability of at most k/(q + 1), whatever the distribution.

        Args:
            false_merges: share of pairs of two people that may be taken for one, 0-1.

        Raises:
            ValueError: no share, or one that so few pairs cannot tell.

        Source: the argument of conformal prediction; Vovk, Gammerman, Shafer, "Algorithmic Learning in a
        Random World", 2005, section 2.2.
        """
        if not 0 < false_merges < 1:
            raise Refusal(f"the rate of false merges is {false_merges:g}, expected a share between 0 and 1")
        q = len(self.different)
        k = int(np.floor(false_merges * (q + 1) + 1e-9))
        if k < 1:
            raise Refusal(
                f"{q} pairs of two people cannot tell a rate of {100 * false_merges:g} % of false merges: "
                f"ask for {np.ceil(1e4 / (q + 1)) / 100:g} % or more"
            )
        return float(self.different[k - 1])

    def rare(self, false_merges: float) -> float:
        """The distance below which a share of pairs of two people is to be expected, however small it is.

        The cosines of two people are taken to be distributed normally towards the similar ones, as those of
        vectors of many dimensions are: median and 95 % quantile of the pairs give that half. It says where
        `limit` has too few pairs to say, as a model and not as a bound.

        Args:
            false_merges: share of pairs of two people, above 0 and at most 0.5.
        """
        from scipy.stats import norm

        middle, sigma = self.tail
        return float(np.sqrt(np.clip(2 - 2 * (middle + norm.isf(false_merges) * sigma), 0, 4)))

    @property
    def tail(self) -> tuple[float, float]:
        """Middle and deviation of the normal distribution that `rare` takes for the cosines of two people."""
        from scipy.stats import norm

        cosine = 1 - np.asarray(self.different, np.float64) ** 2 / 2
        middle, high = np.quantile(cosine, [0.5, 0.95])
        return float(middle), float((high - middle) / norm.isf(0.05))

    def moved(self, shift: float) -> Calibration:
        """The same with so much more in all squared distances; see `crossing`."""
        same, different = (
            np.sqrt(np.clip(np.asarray(kind, np.float64) ** 2 + shift, 0, 4)).astype(np.float32)
            for kind in (self.same, self.different)
        )
        return Calibration(self.statistic, same, different, *equal_error(same, different))

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


@dataclass(frozen=True, eq=False)
class Curve:
    """How probable it is that two groups of frames show one person, by their distance.

    As likely as not is what is taken before the distance is known: one person and two weigh the same however
    many pairs there are of either.

    Args:
        at: (k,) float64 distances, increasing.
        chance: (k,) float64 probabilities, never increasing, strictly between 0 and 1.
    """

    at: Array
    chance: Array

    def __call__(self, distance: Array | float) -> Array:
        """Probabilities of distances of any shape: straight between the points, constant beyond them."""
        return np.interp(np.asarray(distance, np.float64), self.at, self.chance)

    @classmethod
    def of(cls, same: Array, different: Array) -> Curve:
        """The curve that falls with the distance and fits known pairs best, in squares.

        Where one kind is alone, it is as sure as its number of pairs allows: n of n pairs leave 1/(n + 2).

        Args:
            same, different: (p,), (q,) distances, p and q at least 1.

        >>> Curve.of(np.array([0.1, 0.3]), np.array([0.6, 0.7, 0.8]))(np.array([0.2, 0.4])).round(2).tolist()
        [0.75, 0.57]

        Source: isotonic regression: Ayer et al., "An Empirical Distribution Function for Sampling with
        Incomplete Information", 1955; for probabilities: Zadrozny, Elkan, KDD 2002. The bounds: Laplace.
        """
        from scipy.optimize import isotonic_regression

        p, q = len(same), len(different)
        at = np.r_[np.asarray(same, np.float64), np.asarray(different, np.float64)]
        is_same = np.r_[np.ones(p), np.zeros(q)]
        weight = np.r_[np.full(p, 0.5 / p), np.full(q, 0.5 / q)]
        at, group = np.unique(at, return_inverse=True)  # equal distances have one probability
        total = np.bincount(group, weight)
        fit = isotonic_regression(
            np.bincount(group, weight * is_same) / total, weights=total, increasing=False
        )
        chance = np.clip(fit.x, 1 / (q + 2), 1 - 1 / (p + 2))
        # First and last distance of each level say all of it.
        step = np.diff(chance) != 0
        ends = np.r_[True, step] | np.r_[step, True]
        return cls(at[ends], chance[ends])


@dataclass(frozen=True, eq=False)
class Crossing:
    """What the way from one camera to another adds to distances.

    Args:
        shift: what it adds to squared distances, of one person's groups as of two's; not below 0.
        unlike: greatest difference between the shares of pairs across cameras and of pairs known as two
            people below a distance, the shift taken out, over the distances above their medians; 0-1.
        n: pairs across cameras that were looked at.
    """

    shift: float
    unlike: float
    n: int

    @property
    def holds(self) -> bool:
        """Whether pairs across cameras lie as the assumption has it, as far as that can be seen."""
        return self.unlike <= UNLIKE


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
    row, edge = _halves(span)
    same = np.arange(2 * len(span)).reshape(-1, 2)
    # Each stretch a tracklet of its own, in the order of its rows: who of them is in view together?
    part = np.full(tracklets.n_crops, -1, np.int64)
    part[row] = np.repeat(np.arange(len(span)), span[:, 1] - span[:, 0])
    pair = moments(replace(tracklets, crop=np.arange(tracklets.n_crops)).split(part)).pair
    # The first half of one and the second of the other: as many frames, as far apart in time, as of `same`.
    different = np.stack([2 * pair[:, 0], 2 * pair[:, 1] + 1], 1)
    return FreePairs(row, edge, _evenly(same), _evenly(different))


def chance_pairs(tracklets: Tracklets) -> FreePairs:
    """Groups of frames of one tracklet, and of two tracklets of one camera taken by chance.

    For sets that know no moments, such as folders of crops: a tracklet is taken to be one person, and two
    tracklets to be two. The second is wrong as often as there are few people, one time in their number; with
    so few that it matters (`Calibration.separates` is off by about 7 people), nothing can be learned.

    Args:
        tracklets: of any number of cameras; those of fewer than 4 crops are left out.

    Returns:
        FreePairs as of `free_pairs`. The same at every call.
    """
    long = np.flatnonzero(tracklets.length >= 4)
    span = np.stack([tracklets.start[long], tracklets.start[long + 1]], 1)
    row, edge = _halves(span)
    rng = np.random.default_rng(0)
    drawn = []
    camid = tracklets.camid[long]
    for camera in np.unique(camid):
        own = np.flatnonzero(camid == camera)
        pair = rng.choice(own, (min(4 * len(own), 4 * MOST), 2))
        source = tracklets.source[long[pair]]
        drawn.append(pair[source[:, 0] != source[:, 1]])
    pair = np.concatenate(drawn) if drawn else np.zeros((0, 2), np.int64)
    pair = np.unique(np.sort(pair, axis=1), axis=0)
    different = np.stack([2 * pair[:, 0], 2 * pair[:, 1] + 1], 1)
    return FreePairs(row, edge, _evenly(np.arange(2 * len(span)).reshape(-1, 2)), _evenly(different))


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
    if statistic not in ("mean", "nearest"):  # of single crops nothing is known: `mixture.unmix`
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


def crossing(mean: Array, camid: Array, within: Calibration) -> Crossing | None:
    """What the way from camera to camera adds to distances, without a label.

    Pairs of one person across cameras do not come free. Assumed is that what is left of a camera in the
    features, after `normalise.per_camera`, is the camera's alone and not the person's: then it adds as much
    to the squared distance of a person to himself as to somebody else. The second can be measured, for of
    tracklets of two cameras taken by chance most are two people: the median of their squared distances,
    against that of pairs known to be two within a camera. Nothing is taken away: where the first is smaller,
    two people of one camera are further apart because its mean has been taken out, which does nothing to one
    person's distance. What a camera does to some people and not to others (a back here, a face there) is not
    seen by this and makes one person's distances greater than is said.

    That the two distributions are alike but for the shift is looked at above their medians, where hardly a
    pair is one person.

    Args:
        mean: (t, d) unit features of tracklets, camera-normalised as those of `within` were.
        camid: (t,) int.
        within: of pairs within cameras.

    Returns:
        Crossing; None where fewer than FEWEST pairs of different cameras can be made.

    Source: ours (METHODS 3.3).
    """
    t = len(mean)
    if t < 2:
        return None
    rng = np.random.default_rng(0)
    pair = rng.integers(0, t, (8 * MOST, 2))
    pair = np.unique(np.sort(pair[camid[pair[:, 0]] != camid[pair[:, 1]]], axis=1), axis=0)
    if len(pair) < FEWEST:
        return None
    pair = _evenly(pair)
    x = np.asarray(mean, np.float64)
    across = 2 - 2 * np.einsum("ij,ij->i", x[pair[:, 0]], x[pair[:, 1]])
    known = np.asarray(within.different, np.float64) ** 2
    difference = float(np.median(across) - np.median(known))
    moved, across = np.sort(known + difference), np.sort(across)
    at = np.r_[moved[len(moved) // 2 :], across[len(across) // 2 :]]
    below = [np.searchsorted(kind, at, side="right") / len(kind) for kind in (moved, across)]
    return Crossing(max(0.0, difference), float(np.abs(below[0] - below[1]).max()), len(pair))


def of_one_crop(pairs: FreePairs) -> FreePairs:
    """The same pairs, but of the first crop alone of the first group of each, as a track that begins has.

    Args:
        pairs: of `free_pairs` or `chance_pairs`.
    """
    n = len(pairs.edge) - 1
    kept, single = np.diff(pairs.edge), np.zeros(n, bool)
    single[np.r_[pairs.same[:, 0], pairs.different[:, 0]]] = True
    length = np.where(single, 1, kept)
    row = [pairs.row[a : a + k] for a, k in zip(pairs.edge[:-1], length, strict=True)]
    return FreePairs(
        np.concatenate([np.zeros(0, np.int64), *row]),
        np.r_[0, np.cumsum(length)],
        pairs.same,
        pairs.different,
    )


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


def _halves(span: Array) -> tuple[Array, Array]:
    """Rows of the two halves of stretches (s, 2), one after the other, and the edges of the halves."""
    if not len(span):
        return np.zeros(0, np.int64), np.zeros(1, np.int64)
    middle = span.sum(1) // 2
    row = np.concatenate([np.arange(a, b) for a, b in span])
    length = np.stack([middle - span[:, 0], span[:, 1] - middle], 1).reshape(-1)
    return row, np.r_[0, np.cumsum(length)]


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
