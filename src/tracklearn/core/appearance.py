"""How alike two looks of a person are, for tracking again: limits that pairs tell, small linkage, scraps.

Source: ours (METHODS 8a); average linkage as in `identities`, what is known of time as in `whereabouts`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tracklearn.core.calibration import Calibration
from tracklearn.core.whereabouts import LEAST_MOMENTS, LEAST_SHARE, SCRAP, SCRAP_CROPS
from tracklearn.types import Array, Refusal

FEW = 4  # crops below which a piece is compared as one crop is
PEOPLE = 13  # powers of two for which there are limits: up to 4,096
DOUBLE = 5  # common moments with touching boxes from which a piece may be a detector's second box of somebody


@dataclass(frozen=True)
class Limit:
    """Distance of unit means below which what begins is somebody known.

    Args:
        threshold: the greatest, however few people are known; 0-2.
        by_people: for 1, 2, 4, 8, … known people; none: `threshold` for any number.
    """

    threshold: float
    by_people: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for distance in (self.threshold, *self.by_people):
            if not 0 < distance < 2:
                raise Refusal(f"the distance is {distance:g}, expected one of unit features above 0, below 2")

    @classmethod
    def of(cls, found: Calibration) -> Limit:
        """The limits that pairs tell.

        With n people known, n may be taken for the one who comes: the limit is where as many errors of either
        kind are to be expected of the search, n times the share of pairs of two people below it and the share
        of pairs of one above; at most the threshold. The former are taken to be distributed as
        `Calibration.rare` has it.
        """
        from scipy.stats import norm

        middle, sigma = found.tail
        at = np.linspace(0, found.threshold, 1001)[1:]
        missed = 1 - np.searchsorted(found.same, at, side="right") / len(found.same)
        other = norm.sf((1 - at**2 / 2 - middle) / max(sigma, 1e-9))
        limits = []
        for n in 2 ** np.arange(PEOPLE):
            over = np.flatnonzero(n * other >= missed)
            limits.append(float(at[over[0]] if len(over) else at[-1]))
        return cls(found.threshold, tuple(limits))

    def cosine(self, people: int) -> float:
        """The cosine at the limit where so many are known."""
        distance = self.threshold
        if self.by_people:
            at = int(np.ceil(np.log2(max(people, 1))))
            distance = self.by_people[min(at, len(self.by_people) - 1)]
        return 1 - distance**2 / 2


@dataclass(frozen=True)
class Bounds:
    """Where one person ends, for `Relinker`.

    Args:
        piece: of a piece of at least FEW crops and a person. crop: of a single crop and a person.
        join: distance of unit means below which pieces of one track are one person's.
        penalty: of change points, as `isolate` takes it; None: told by the film, as far as it was seen.
    """

    piece: Limit
    crop: Limit
    join: float
    penalty: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, which `of_dict` takes."""
        return asdict(self)

    @classmethod
    def of_dict(cls, said: Any) -> Bounds:
        """The bounds that `to_dict` wrote.

        Raises:
            ValueError, KeyError, TypeError: they are none.
        """
        penalty = said["penalty"]
        return cls(
            piece=Limit(float(said["piece"]["threshold"]), tuple(map(float, said["piece"]["by_people"]))),
            crop=Limit(float(said["crop"]["threshold"]), tuple(map(float, said["crop"]["by_people"]))),
            join=float(said["join"]),
            penalty=None if penalty is None else float(penalty),
        )

    @classmethod
    def at(cls, distance: float) -> Bounds:
        """The same distance for everything."""
        return cls(Limit(distance), Limit(distance), distance)


def grouped(mean: Array, weight: Array, barred: Array, *, few: float, many: float) -> Array:
    """(n,) int64 group of each of a few items, by weighted average linkage under limits.

    What `identities.link` does, for items that are compared all with all, of means that need not be unit:
    those of a group whose members are not known any more.

    Args:
        mean: (n, d) means of unit features.
        weight: (n,) crops.
        barred: (n, n) bool, symmetric: who is not who.
        few, many: mean cosines above which groups are joined, where one has fewer than FEW crops, and else.

    Returns:
        Numbers of the groups, those of their first members.
    """
    mean, weight, barred = np.array(mean, np.float64), np.array(weight), barred.copy()
    group = np.arange(len(mean))
    np.fill_diagonal(barred, True)
    while len(mean) > 1:
        small = weight < FEW
        score = mean @ mean.T - np.where(small[:, None] | small[None], few, many)
        score[barred] = -np.inf
        a, b = sorted(divmod(int(np.argmax(score)), len(score)))
        if not score[a, b] > 0:
            break
        share = weight[[a, b]] / (weight[a] + weight[b])
        mean[a] = share[0] * mean[a] + share[1] * mean[b]
        weight[a] += weight[b]
        barred[a] |= barred[b]
        barred[:, a] |= barred[:, b]
        barred[b], barred[:, b] = True, True
        group[group == b] = a
    return group


def unit(total: Array | None) -> Array:
    """A vector (d,) divided by its length, float64."""
    vector = np.asarray(total, np.float64)
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def apart(frame: Array, box: Array, other_frame: Array, other_box: Array) -> bool:
    """Whether two pieces of two tracks are in view at once as two people are.

    As in `whereabouts.seen_apart`; and where they have few moments in common, touching too, unless those are
    few of the rows of either: one track then took over from the other.

    Args:
        frame: (n,) int, increasing. box: (n, 4). other_frame: (m,). other_box: (m, 4).
    """
    _, a, b = np.intersect1d(frame, other_frame, assume_unique=True, return_indices=True)
    if not len(a):
        return False
    left, right = box[a], other_box[b]
    corner = np.minimum(left[:, 2:], right[:, 2:]) - np.maximum(left[:, :2], right[:, :2])
    n_apart = int((corner <= 0).any(1).sum())
    if n_apart >= max(LEAST_MOMENTS, LEAST_SHARE * len(a)):
        return True
    return len(a) < DOUBLE and len(a) >= LEAST_SHARE * min(len(frame), len(other_frame))


def without_scraps(part: Array, time: Array, *, goes_on: bool) -> Array:
    """The pieces (n,) of a track's rows, those too short to show anybody given to the nearest in time.

    As `whereabouts.scraps`; and rows that isolation dropped (−1). The last piece of a track that goes on may
    still grow.
    """
    size = np.bincount(part[part >= 0], minlength=1)
    long = np.zeros(len(size), bool)
    for value in range(len(size)):
        rows = np.flatnonzero(part == value)
        if len(rows):
            in_view = float(time[rows[-1]] - time[rows[0]])
            grows = goes_on and rows[-1] == len(part) - 1
            long[value] = grows or len(rows) >= SCRAP_CROPS or in_view >= SCRAP
    kept = part >= 0
    if (long[part] & kept).any():
        kept &= long[part]
    if kept.all() or not kept.any():
        return np.maximum(part, 0)
    out = part.copy()
    for value in np.unique(part[~kept]):
        rows = np.flatnonzero((part == value) & ~kept)
        for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if value < 0 else [rows]:
            gap = [
                (float(np.abs(time[run][:, None] - time[kept & (part == host)][None]).min(1).mean()), host)
                for host in np.unique(part[kept])
            ]
            out[run] = min(gap)[1]
    return out
