"""What time knows: who is in view of one camera at the same moment, and where a track is beyond doubt.

Two tracklets of one camera that are there at the same moment, with boxes that do not touch, are two people,
whatever they look like; and a track that nobody comes near, and whose box moves smoothly, is one person for
that long. Both come free with every film.

Source: ours (METHODS 6a, "Cannot-links from time").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tracklearn.types import Array, Tracklets

TOUCHED = 0.2  # share of the smaller box from which another box puts a frame in doubt
SMOOTH = 0.3  # least intersection over union of two successive boxes of one person
PAUSE = 3.5  # of a film's usual steps between frames: a longer one is a gap


@dataclass(frozen=True, eq=False)
class Moments:
    """Tracklets seen together.

    Args:
        pair: (p, 2) int64, tracklets i < j of one camera with a moment at which their boxes do not touch,
            sorted.
        apart, touching: (p,) int64, their common moments without and with a touch.
        shared: (n,) float64, of each row: the most of the smaller of two boxes that its box shares with
            another one of its moment, 0-1.
    """

    pair: Array
    apart: Array
    touching: Array
    shared: Array


def moments(tracklets: Tracklets) -> Moments:
    """Who is in view of a camera at the same moments, from boxes alone.

    A moment is a frame of one film: where two recordings do not share a clock, nothing is compared. Sets
    whose boxes and frames are none of a film (folders of crops, simulated noise) have one box for all, which
    touches itself, and give no pair.

    Args:
        tracklets: of any number of cameras.

    Returns:
        Moments. Time O(Σ k²) over frames with k boxes; memory O(n + pairs).
    """
    from tracklearn.core.kernels.moments import meet

    t, n = len(tracklets), tracklets.n_crops
    if t > 1 and (tracklets.box == tracklets.box[0]).all():
        none = np.zeros(0, np.int64)
        return Moments(none.reshape(0, 2), none, none, np.ones(n))
    start, length = tracklets.start, tracklets.length
    shared = np.zeros(n)
    film = _films(tracklets)
    kept = np.flatnonzero(length > 0)
    order = kept[np.lexsort((tracklets.frame[start[kept]], film[kept]))]
    edge = np.r_[0, np.cumsum(length[order])]
    row = np.repeat(start[order] - edge[:-1], length[order]) + np.arange(n)
    frame = np.ascontiguousarray(tracklets.frame[row])
    box = np.ascontiguousarray(tracklets.box[row], np.float64)
    own, room = np.zeros(n), max(1024, 8 * t)
    while True:
        pair, count = np.empty((room, 2), np.int64), np.empty((room, 2), np.int64)
        found = meet(edge, np.ascontiguousarray(film[order]), frame, box, own, pair, count)
        if found <= room:
            break
        room = found
    shared[row] = own
    pair, count = np.sort(order[pair[:found]], axis=1), count[:found]
    by = np.lexsort(pair.T[::-1])
    return Moments(pair[by], count[by, 0], count[by, 1], shared)


def beyond_doubt(tracklets: Tracklets, shared: Array, *, least: int = 4) -> Array:
    """Stretches of tracklets in which nobody comes near and the box moves smoothly.

    Args:
        tracklets: a set's.
        shared: (n,) of `moments`.
        least: rows of a stretch at least.

    Returns:
        (s, 2) int64: rows first and last + 1 of each, in order.
    """
    from tracklearn.core.kernels.moments import steady

    n = tracklets.n_crops
    if not n:
        return np.zeros((0, 2), np.int64)
    inside = np.r_[False, np.diff(tracklets.tracklet) == 0]
    step = np.r_[0.0, np.diff(tracklets.time)]
    film, usual = _films(tracklets)[tracklets.tracklet], np.zeros(n)
    for number in np.unique(film):
        known = step[inside & (step > 0) & (film == number)]
        usual[film == number] = np.median(known) if len(known) else 0.0
    smooth = np.empty(n)
    steady(np.ascontiguousarray(tracklets.box, np.float64), inside, smooth)
    clear = shared <= TOUCHED
    goes_on = inside & (smooth >= SMOOTH) & (step <= PAUSE * usual) & clear & np.r_[False, clear[:-1]]
    edge = np.flatnonzero(~goes_on)
    span = np.stack([edge, np.r_[edge[1:], n]], 1)
    return span[clear[span[:, 0]] & (span[:, 1] - span[:, 0] >= least)]


def _films(tracklets: Tracklets) -> Array:
    """(t,) number of the film that each tracklet is of: a camera, a clock, and when the film began on it."""
    named = np.stack([tracklets.camid, tracklets.clock, tracklets.offset.view(np.int64)])
    return np.unique(named, axis=1, return_inverse=True)[1].reshape(-1)
