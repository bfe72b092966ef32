"""Where another person begins, where no pair is known: from tracklets that may be mixed, and strangers.

`calibration` learns it from pairs that come free with films. Folders of crops have none: there the share of
pairs that show two people is told first, and what is left of the others is one person.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tracklearn.core.calibration import MOST, Calibration, equal_error
from tracklearn.core.features import as_matrix, on_host, row_lengths
from tracklearn.types import Array, Tracklets

if TYPE_CHECKING:
    from torch import Tensor

FEWEST = 100  # tracklets from which how mixed they are is told; of fewer it is chance
STRANGERS = 4  # of each tracklet


@dataclass(frozen=True, eq=False)
class Mixture:
    """What pairs of crops of one tracklet and of strangers tell, where no pair is known.

    Args:
        calibration: of single crops. `same` are not pairs that were seen: they have the distribution that is
            left of the pairs of one tracklet once those of two people are taken away.
        two: share of the pairs of crops of one tracklet that show two people, 0-1.
        n: pairs of one tracklet that were looked at.
    """

    calibration: Calibration
    two: float
    n: int


def unmix(features: Array | Tensor, tracklets: Tracklets) -> Mixture | None:
    """Where another person begins, for tracklets without moments that may be mixed, as folders of crops.

    Two crops of one tracklet, taken by chance, show one person or two; two crops of two tracklets of one
    camera show two, but for one time in the number of people. The distances of the first are a mixture in
    which those of the second have an unknown share. It is at most S(d) / T(d), of either kind the share of
    pairs beyond d, whatever d; and that is the share where d is so great that no pair of one person is left.
    So the least of these quotients is taken, with what chance may have taken from it, over the middle of the
    strangers' distances, and their distribution, times that share, is taken out of the mixture's. What is
    left is that of one person.

    Wrong where strangers of one camera are further apart than those whom a tracker confuses (then too few are
    taken to be two), where features of one person reach as far as those of two (too many), and with few
    people, as `chance_pairs`; pieces of one very long track count as strangers.

    Args:
        features: (n, d) of all rows of the set, any lengths but zero.
        tracklets: of any number of cameras; those of one crop say nothing of one person.

    Returns:
        Mixture; None where fewer than FEWEST tracklets have two crops and strangers, or next to none
        show one person.
        The same at every call.

    Source: ours. The share as the least quotient: Blanchard, Lee, Scott, "Semi-Supervised Novelty Detection",
    JMLR 2010, section 5.
    """
    x = on_host(as_matrix(features))
    rng = np.random.default_rng(0)
    order = np.argsort(tracklets.camid, kind="stable")
    begin, end = (
        np.searchsorted(tracklets.camid[order], tracklets.camid, side) for side in ("left", "right")
    )
    # Of cameras that have strangers, and each camera as often among these as among the others.
    several = np.flatnonzero((tracklets.length >= 2) & (end - begin >= 2))
    if len(several) < FEWEST:
        return None
    if len(several) > MOST:
        several = several[np.linspace(0, len(several) - 1, MOST).astype(np.int64)]
    length, first = tracklets.length, tracklets.start
    one = rng.integers(0, length[several])
    other = (one + rng.integers(1, length[several])) % length[several]
    mate = order[rng.integers(begin[several], end[several], (STRANGERS, len(several)))]
    apart = tracklets.source[mate] != tracklets.source[several]
    pair = np.stack([np.broadcast_to(several, mate.shape)[apart], mate[apart]], 1)
    if not len(pair):
        return None
    pair = first[pair] + rng.integers(0, length[pair])
    mixed = np.sort(_distances(x, first[several] + one, first[several] + other))
    different = np.sort(_distances(x, pair[:, 0], pair[:, 1]))
    at = np.unique(np.r_[mixed, different])
    below_mixed, below = (np.searchsorted(kind, at, side="right") / len(kind) for kind in (mixed, different))
    middle = (below >= 0.2) & (below <= 0.8)
    # The least of many quotients is one that came out small by chance: each is taken one deviation greater.
    beyond = tuple((1 - b[middle]) * len(k) for b, k in ((below_mixed, mixed), (below, different)))
    beyond = tuple((n + 1) / (len(k) + 1) for n, k in zip(beyond, (mixed, different), strict=True))
    spread = sum((1 - s) / np.maximum(s * len(k), 1) for s, k in zip(beyond, (mixed, different), strict=True))
    quotient = beyond[0] / beyond[1] * (1 + np.sqrt(spread))
    two = float(min(1.0, quotient.min())) if len(quotient) else 1.0
    n_same = round((1 - two) * len(mixed))
    if n_same < FEWEST:
        return None
    left = np.maximum.accumulate(np.clip((below_mixed - two * below) / (1 - two), 0, 1))
    at_share = np.searchsorted(left / left[-1], (np.arange(n_same) + 0.5) / n_same)
    same, different = at[at_share].astype(np.float32), different.astype(np.float32)
    cut = (1 - two) * (1 - np.searchsorted(same, at, side="right") / n_same)
    joined = two * np.searchsorted(different, at, side="left") / len(different)
    threshold, (_, error) = float(at[np.argmax(joined >= cut)]), equal_error(same, different)
    return Mixture(Calibration("crop", same, different, threshold, error), two, len(mixed))


def _distances(x: Array, one: Array, other: Array) -> Array:
    """(p,) distances of pairs of rows, in float64."""
    (a, b), lengths = zip(*(row_lengths(x[rows]) for rows in (one, other)), strict=True)
    cosine = np.einsum("ij,ij->i", a, b, dtype=np.float64) / (lengths[0] * lengths[1])
    return np.sqrt(np.maximum(0, 2 - 2 * cosine))
