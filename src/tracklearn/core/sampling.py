"""Choosing tracklets in time and space so that a person gives at most one of them in each camera.

Nothing here looks at pictures: two tracklets alive at the same moment in different places are two persons,
and two moments far enough apart show other persons, as long as nobody stays that long.

Source: Wu et al., "Unsupervised Graph Association for Person Re-identification", ICCV 2019, which takes it
from Li, Zhu, Gong, "Unsupervised Person Re-identification by Deep Learning Tracklet Association", ECCV 2018
(sparse space-time tracklet sampling, SSTT); METHODS 4.1. The rules below are ours where these are silent.
"""

from __future__ import annotations

import numpy as np

from tracklearn.types import Array, Refusal

# A tracklet begins or ends at a moment where it misses it by less than this share of the period.
_ROUNDING = 1e-9


def usual_period(
    tracklet: Array, time: Array, camid: Array, *, quantile: float = 0.95, factor: float = 2.0
) -> Array:
    """A time in each camera that is longer than a person's usual stay, guessed from lengths of tracklets.

    A tracklet lasts no longer than the stay it belongs to, and often less, since trackers break them: the
    guess is `factor` times a high quantile of the lengths. How much trackers broke cannot be seen here; where
    tracklets are short pieces of long stays the guess is too low, and a stay known from watching is better.

    Args:
        tracklet: (n,) int, of each crop, in any order.
        time: (n,) seconds.
        camid: (t,) int, of each tracklet, from 0.
        quantile: 0-1. factor: above 0.

    Returns:
        (cameras,) float64 seconds by camid; nan where a camera has no crops.

    Raises:
        ValueError: shapes disagree, times are not finite, or the quantile of some camera is 0 s.

    Example:
        >>> usual_period(np.array([0, 0, 1, 1]), np.array([0.0, 4, 3, 7]), np.array([0, 0]))
        array([8.])

    Source: chosen.
    """
    tracklet, time, camid = _checked(tracklet, time, camid)
    begin, end, _ = _spans(tracklet, time, len(camid))
    out = np.full(int(camid.max(initial=-1)) + 1, np.nan)
    for camera in np.unique(camid[np.isfinite(begin)]).tolist():
        own = np.isfinite(begin) & (camid == camera)
        out[camera] = factor * np.quantile((end - begin)[own], quantile)
        if out[camera] <= 0:
            raise Refusal(
                f"period cannot be guessed in camera {camera}, whose tracklets last 0 s: set period in "
                'seconds, or sampling to "all"'
            )
    return out


def spatio_temporal(
    tracklet: Array,
    time: Array,
    box: Array,
    camid: Array,
    *,
    clock: Array | None = None,
    period: float | Array | None = None,
    distance: float = 0.5,
) -> Array:
    """Which tracklets to keep so that one person gives at most one tracklet in each camera.

    In each camera, and on each clock, by itself: those alive at the moments S, S + P, S + 2P, … where at each
    moment, of tracklets too near each other, the one of most crops stays (the lower number among equals). One
    that was kept at an earlier moment keeps its place, and is there only once. S is the phase at which the
    most tracklets are alive at some moment, the earliest of those; so every camera with crops keeps one.

    It holds as far as its assumptions do, and cannot see where they fail: a person who stays longer than P or
    comes back is kept again; two tracks of one person at one moment, farther apart than `distance`, are both
    kept; and who is seen on two clocks of a camera, such as recordings of unknown beginning, is kept on each.

    Args:
        tracklet: (n,) int, of each crop, in any order.
        time: (n,) seconds.
        box: (n, 4) pixels (x1, y1, x2, y2).
        camid: (t,) int, of each tracklet, from 0.
        clock: (t,) int, which clock its times are of, where they are not all of one in its camera.
        period: P in seconds, one for all or (cameras,) by camid; None: `usual_period`.
        distance: tracklets are too near where the centres of their boxes, each the nearest in time to the
            moment, are at most this share of their mean height apart.

    Returns:
        (t,) bool. Memory O(n) and O(pairs of a tracklet and a moment at which it is alive).

    Raises:
        ValueError: shapes disagree; times or boxes are not finite; all boxes are the same, which says nothing
            of places; period or distance out of range; the period cannot be guessed.

    Example:
        >>> box = np.array([[0, 0, 10, 20], [50, 0, 60, 20], [51, 0, 61, 20]])
        >>> spatio_temporal(np.arange(3), np.zeros(3), box, np.zeros(3, int), period=60)
        array([ True,  True, False])

    Source: METHODS 4.1; P, S and what is near are chosen.
    """
    tracklet, time, camid = _checked(tracklet, time, camid)
    box = np.asarray(box, np.float64)
    if box.shape != (len(tracklet), 4):
        raise Refusal(f"box has shape {box.shape}, expected ({len(tracklet)}, 4): one per crop")
    if not np.isfinite(box).all():
        raise Refusal("box is not finite: places cannot be compared")
    if not distance >= 0:
        raise Refusal(f"distance is {distance}, expected at least 0: a share of the height of a box")
    if len(np.unique(tracklet)) > 1 and (box == box[0]).all():
        raise Refusal('all boxes are the same, which says nothing of places: set sampling to "all"')
    clock = np.zeros(len(camid), np.int64) if clock is None else np.asarray(clock)
    if clock.shape != camid.shape:
        raise Refusal(f"clock has shape {clock.shape}, expected {camid.shape}: one per tracklet")
    begin, end, length = _spans(tracklet, time, len(camid))
    if period is None:
        period = usual_period(tracklet, time, camid)
    seconds = np.broadcast_to(np.asarray(period, np.float64), (int(camid.max(initial=-1)) + 1,))
    whose: list[Array] = [np.zeros(0, np.int64)]
    moment: list[Array] = [np.zeros(0, np.int64)]
    at: list[Array] = [np.zeros(0)]
    _, together = np.unique(np.stack([camid, clock], 1), axis=0, return_inverse=True)
    for group in np.unique(together[length > 0]).tolist():
        own = np.flatnonzero((length > 0) & (together == group))
        camera = int(camid[own[0]])
        every = float(seconds[camera])
        if not (every > 0 and np.isfinite(every)):
            raise Refusal(f"period is {every} s in camera {camera}, expected seconds above 0")
        first = _phase(begin[own], end[own], every)
        low = np.ceil((begin[own] - first) / every - _ROUNDING).astype(np.int64)
        high = np.floor((end[own] - first) / every + _ROUNDING).astype(np.int64)
        n = np.maximum(high - low + 1, 0)
        whose.append(np.repeat(own, n))
        moment.append(np.arange(n.sum()) - np.repeat(np.cumsum(n) - n - low, n))
        at.append(first + moment[-1] * every)
    alive, number, now = np.concatenate(whose), np.concatenate(moment), np.concatenate(at)
    turn = np.lexsort((alive, -length[alive], number, together[alive]))
    alive, number, now = alive[turn], number[turn], now[turn]
    shown = box[_nearest(tracklet, time, alive, now)]
    centre, height = (shown[:, :2] + shown[:, 2:]) / 2, shown[:, 3] - shown[:, 1]
    keep = np.zeros(len(camid), bool)
    other = np.flatnonzero((np.diff(number) != 0) | (np.diff(together[alive]) != 0)) + 1
    for rows in np.split(np.arange(len(alive)), other):
        _choose(keep, alive[rows], centre[rows], height[rows], distance)
    return keep


def _nearest(tracklet: Array, time: Array, wanted: Array, at: Array) -> Array:
    """The row of each wanted tracklet (m,) nearest in time to `at` (m,), the earlier of equally near ones."""
    order = np.lexsort((time, tracklet))
    tracklet, time = tracklet[order], time[order]
    start, stop = np.searchsorted(tracklet, wanted), np.searchsorted(tracklet, wanted, side="right")
    # Tracklet and time as one number that is sorted: one search finds both.
    base, span = time.min(initial=np.inf), np.ptp(time) + 1 if len(time) else 1.0
    right = np.searchsorted(tracklet * span + (time - base), wanted * span + (at - base))
    right = right.clip(start, stop - 1)
    left = np.maximum(right - 1, start)
    return order[np.where(at - time[left] <= time[right] - at, left, right)]


def _choose(keep: Array, alive: Array, centre: Array, height: Array, distance: float) -> None:
    """Of those alive at one moment, in order of preference, keep those far from all that are kept."""
    chosen = keep[alive]
    if chosen.all():
        return
    apart = np.linalg.norm(centre[:, None] - centre[None, :], axis=2)
    near = apart <= distance * (height[:, None] + height[None, :]) / 2
    for i in np.flatnonzero(~chosen).tolist():
        chosen[i] = not near[i, chosen].any()
    keep[alive] = chosen


def _phase(begin: Array, end: Array, period: float) -> float:
    """The first of the moments, one period apart, at which the most of the tracklets are alive."""
    base = float(begin.min())
    start, length = (begin - base) % period, end - begin
    phase = np.sort(start)  # only where a tracklet begins are there more than before
    short = length < period  # the others are alive at some moment of every phase
    start, stop = np.sort(start[short]), np.sort((start + length)[short])
    n = np.searchsorted(start, phase, side="right") - np.searchsorted(stop, phase)
    n += len(stop) - np.searchsorted(stop, phase + period)  # those that last into the next period
    return base + float(phase[np.argmax(n)])


def _spans(tracklet: Array, time: Array, t: int) -> tuple[Array, Array, Array]:
    """First and last time of each tracklet (inf and −inf without crops), and its number of crops."""
    begin, end = np.full(t, np.inf), np.full(t, -np.inf)
    np.minimum.at(begin, tracklet, time)
    np.maximum.at(end, tracklet, time)
    return begin, end, np.bincount(tracklet, minlength=t)


def _checked(tracklet: Array, time: Array, camid: Array) -> tuple[Array, Array, Array]:
    tracklet, time, camid = np.asarray(tracklet), np.asarray(time, np.float64), np.asarray(camid)
    if time.shape != tracklet.shape or time.ndim != 1:
        raise Refusal(f"time has shape {time.shape}, tracklet {tracklet.shape}, expected (n,) both")
    if not np.isfinite(time).all():
        raise Refusal("time is not finite: give seconds")
    if len(tracklet) and (tracklet.min() < 0 or tracklet.max() >= len(camid)):
        raise Refusal(f"tracklet reaches {tracklet.max()}, camid has {len(camid)} rows: one per tracklet")
    return tracklet, time, camid
