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


def part_numbers(track: Array) -> Array:
    """(n,) int64, the number of each part in its track, from 1 in the order of the rows.

    Args:
        track: (n,) int, of which track each is a part (`Tracklets.source`).

    >>> part_numbers(np.array([0, 4, 4, 4, 7])).tolist()
    [1, 1, 2, 3, 1]
    """
    track = np.asarray(track)
    order = np.argsort(track, kind="stable")
    ordered = track[order]
    number = np.empty(len(track), np.int64)
    number[order] = np.arange(len(track)) - np.searchsorted(ordered, ordered) + 1
    return number


def called(track: int, part: int, n_parts: int) -> str:
    """What people call a part: by its track's number, and by its own where the track has several.

    >>> called(12, 1, 1), called(12, 2, 3)
    ('12', '12.2')
    """
    return f"{track}" if n_parts == 1 else f"{track}.{part}"


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
