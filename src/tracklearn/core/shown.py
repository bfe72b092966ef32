"""Which rows stand for the rest where a person looks: the worst mixed, the spread, the representative."""

from __future__ import annotations

import numpy as np

from tracklearn.types import Array, Tracklets

STRIPS = 4  # film strips shown


_MIXED_SHARE = 0.1  # a part counts as weighty when it holds this share of its tracklet,


_MIXED_CROPS = 6  # and this many crops: parts of short tracklets are splinters more often than persons


def worst_mixed(tracklets: Tracklets, part: Array, similarity: Array, *, n: int = STRIPS) -> Array:
    """The tracklets, at most n, that isolation found most mixed; none that it left whole.

    Most parts holding a tenth of the tracklet and 6 crops or more come first, then most parts, then the
    lowest similarity between adjacent frames: a guess without truth.

    Args:
        tracklets: before isolation.
        part: (n_crops,) part of each row, −1 dropped.
        similarity: (n_crops,) adjacent-frame cosine, NaN at firsts.
        n: how many.
    """
    part = np.asarray(part)
    t = len(tracklets)
    kept = part >= 0
    owner, which = tracklets.tracklet[kept], part[kept]
    width = int(which.max()) + 1 if len(which) else 1
    key, count = np.unique(owner * width + which, return_counts=True)
    of = key // width
    n_parts = np.bincount(of, minlength=t)
    least = np.maximum(_MIXED_SHARE * tracklets.length[of], _MIXED_CROPS)
    weighty = np.bincount(of[count >= least], minlength=t)
    lowest = np.full(t, np.inf)
    np.fmin.at(lowest, tracklets.tracklet, np.asarray(similarity, np.float64))
    order = np.lexsort((lowest, -n_parts, -weighty))
    return order[n_parts[order] > 1][:n]


def numbers(tracklet: int, owner: Array, part: Array) -> Array:
    """The numbers that people know a tracklet of the set by: what isolation made of it, as search has them.

    Args:
        tracklet: its number before isolation.
        owner: (n,) int, those of all crops.
        part: (n,) int, their parts, −1 dropped.

    Returns:
        (p,) int64, one for each of its parts, in their order.
    """
    pairs = np.unique(np.stack([owner, part], 1)[np.asarray(part) >= 0], axis=0)
    return np.flatnonzero(pairs[:, 0] == tracklet)


def called(found: Array) -> str:
    """Those numbers in words.

    >>> called(numbers(1, np.array([0, 0, 1, 1, 1]), np.array([0, -1, 0, 1, 1])))
    'tracklets 1–2'
    """
    if not len(found):
        return "a tracklet that was dropped"
    return f"tracklet {found[0]}" if len(found) == 1 else f"tracklets {found[0]}–{found[-1]}"


def spread(n: int, most: int) -> Array:
    """At most `most` of the rows 0..n−1, evenly spaced."""
    if n == 0:
        return np.zeros(0, np.int64)
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))


def representative(tracklets: Tracklets) -> Array:
    """(t,) int64, for each tracklet the row of the crop that shows it best; −1 for an empty tracklet.

    Among the middle half of the frames, away from where people enter and leave, the one with the greatest
    detection score × box area; of equals the one nearest the middle.
    """
    t, n = len(tracklets), tracklets.n_crops
    best = np.full(t, -1, np.int64)
    if not n:
        return best
    length, tracklet = tracklets.length, tracklets.tracklet
    position = np.arange(n) - tracklets.start[tracklet]
    first = length // 4
    middle = (position >= first[tracklet]) & (position < (length - first)[tracklet])
    side = np.maximum(tracklets.box[:, 2:] - tracklets.box[:, :2], 0).astype(np.float64)
    worth = np.nan_to_num(side[:, 0] * side[:, 1] * tracklets.score, nan=0.0)
    rows = np.flatnonzero(middle)
    off_centre = np.abs(2 * position - length[tracklet] + 1)
    rows = rows[np.lexsort((rows, off_centre[rows], -worth[rows], tracklet[rows]))]
    owner, at = np.unique(tracklet[rows], return_index=True)
    best[owner] = rows[at]
    return best
