"""What place and time say of who is who: who cannot be whom, and to whom a scrap of a track belongs.

A person is in one place at a time. Two tracklets of one camera in view at the same moment, with boxes that
do not cover each other, are two people; two of different cameras only where these are known to share no
view, or where nobody could have gone from the one to the other in the time between. Being in the right
place at the right time is never taken for a sign of being the same person.

Source: ours (METHODS 8).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tracklearn.core.moments import Moments
from tracklearn.types import Array, Refusal, Tracklets

LEAST_MOMENTS, LEAST_SHARE = 2, 0.2  # moments apart that make two people of two tracklets
SCRAP = 1.5  # seconds in view below which a part of a longer track is a scrap,
SCRAP_CROPS = 12  # if it has fewer crops too: features of so few are still those of a pose
CONFIDENT, LEAST_LINKS = 0.95, 20  # links between two cameras that a travel time is learned from
PRUDENT = 0.5  # share of the shortest way seen that is taken for the least there is


def seen_apart(found: Moments) -> Array:
    """(p, 2) int64 pairs of tracklets of one camera that are two people, by their common moments.

    Their boxes do not touch in at least 2 of their common moments and in a fifth of them: a detector's
    second box of a person covers him, and a part that holds a few frames of somebody else is not told apart
    by those.
    """
    enough = found.apart >= LEAST_MOMENTS
    return found.pair[enough & (found.apart >= LEAST_SHARE * (found.apart + found.touching))]


@dataclass(frozen=True, eq=False)
class Whereabouts:
    """When each tracklet was in view, and by which camera.

    Args:
        camid: (t,) int64.
        begin, end: (t,) float64 seconds on one clock, nan where they are on none.
    """

    camid: Array
    begin: Array
    end: Array

    def __post_init__(self) -> None:
        if not self.camid.shape == self.begin.shape == self.end.shape:
            raise Refusal(
                f"camid, begin and end have shapes {self.camid.shape}, {self.begin.shape} and "
                f"{self.end.shape}, expected one of each per tracklet"
            )


def seen_at_once(where: Whereabouts, cameras: tuple[int, int]) -> Array:
    """(p, 2) int64 pairs of tracklets of two cameras that are in view at the same time.

    They are two people where these cameras share no view.
    """
    return _within(where, *cameras, 0.0, inclusive=True)


def too_far(where: Whereabouts, cameras: tuple[int, int], least: float) -> Array:
    """(p, 2) int64 tracklets of the first camera and of the second between which nobody could have gone.

    In view of the second less than `least` seconds after the first, or at the same time.

    Args:
        where: of t tracklets.
        cameras: from, to.
        least: seconds that the way takes at least; 0 says nothing.
    """
    return _within(where, *cameras, least, inclusive=False) if least > 0 else np.zeros((0, 2), np.int64)


def _within(where: Whereabouts, first: int, second: int, seconds: float, *, inclusive: bool) -> Array:
    """Pairs (i of one camera, j of another): j begins before i's end + seconds and ends after i begins."""
    known = np.isfinite(where.begin) & np.isfinite(where.end)
    a = np.flatnonzero((where.camid == first) & known)
    b = np.flatnonzero((where.camid == second) & known)
    b = b[np.argsort(where.begin[b], kind="stable")]
    if not len(a) or not len(b):
        return np.zeros((0, 2), np.int64)
    begin, longest = where.begin[b], float((where.end[b] - where.begin[b]).max())
    low = np.searchsorted(begin, where.begin[a] - longest, side="left")
    high = np.searchsorted(begin, where.end[a] + seconds, side="right" if inclusive else "left")
    count = np.maximum(high - low, 0)
    i = np.repeat(np.arange(len(a)), count)
    j = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
    still = where.end[b[j]] >= where.begin[a[i]]
    return np.stack([a[i[still]], b[j[still]]], 1)


def learned_ways(where: Whereabouts, pair: Array, chance: Array) -> dict[tuple[int, int], float]:
    """Least seconds from camera to camera, from tracklets that are almost surely one person.

    Half of the shortest gap of at least 20 pairs with a probability of 0.95, where none of these is in view
    of both at once: a pair that is wrong makes the time shorter, which forbids less.

    Args:
        where: of t tracklets.
        pair: (p, 2) int64 tracklets. chance: (p,) probability that they are one person.

    Returns:
        (from, to) -> seconds above 0; pairs of cameras of which nothing was learned are missing.
    """
    sure = pair[np.asarray(chance) >= CONFIDENT]
    sure = sure[np.isfinite(where.begin[sure] + where.end[sure]).all(1)]
    sure = np.concatenate([sure, sure[:, ::-1]])
    gap = where.begin[sure[:, 1]] - where.end[sure[:, 0]]
    camera = where.camid[sure]
    ways: dict[tuple[int, int], float] = {}
    for first, second in np.unique(camera[camera[:, 0] != camera[:, 1]], axis=0).tolist():
        own = (camera == (first, second)).all(1)
        both = (gap[own] <= 0) & (where.end[sure[own, 1]] >= where.begin[sure[own, 0]])
        after = gap[own][gap[own] > 0]
        if len(after) >= LEAST_LINKS and not both.any():
            ways[int(first), int(second)] = PRUDENT * float(after.min())
    return ways


def scraps(tracklets: Tracklets) -> tuple[Array, Array]:
    """Parts too short to show who somebody is, and the part of the same track that each belongs to.

    A part that never stays for 12 crops in a row, nor for 1.5 seconds by so many crops and the film's usual
    step, whose track has one that does: what isolation cuts off so short is a person half hidden more often
    than another one, and what it puts together of such moments is no person either. It goes with the part
    whose frames are nearest in time on average, of equals the longer.

    Args:
        tracklets: as isolation left them; `source` names their tracks.

    Returns:
        scrap (t,) bool; host (t,) int64: itself for the others. In sets without times nothing is a scrap.
    """
    t = len(tracklets)
    host = np.arange(t)
    if not t:
        return np.zeros(0, bool), host
    run = _longest_run(tracklets)
    seconds = run * _step(tracklets)
    timed = seconds > 0
    long = ~timed | (seconds >= SCRAP) | (run >= SCRAP_CROPS)
    has_long = np.zeros(int(tracklets.source.max()) + 1, bool)
    has_long[tracklets.source[long]] = True
    scrap = ~long & has_long[tracklets.source]
    start = tracklets.start
    for i in np.flatnonzero(scrap):
        own = tracklets.time[start[i] : start[i + 1]]
        others = np.flatnonzero(long & (tracklets.source == tracklets.source[i]))
        gap = [_gap(own, tracklets.time[start[j] : start[j + 1]]) for j in others]
        host[i] = others[np.lexsort((-tracklets.length[others], np.round(gap, 6)))[0]]
    return scrap, host


def _longest_run(tracklets: Tracklets) -> Array:
    """(t,) most crops of a part in a row: with none of another part of its track between them."""
    order = np.lexsort((tracklets.frame, tracklets.source[tracklets.tracklet]))
    own = tracklets.tracklet[order]
    first = np.flatnonzero(np.diff(own, prepend=-1))
    run = np.zeros(len(tracklets), np.int64)
    np.maximum.at(run, own[first], np.diff(first, append=len(own)))
    return run


def _gap(own: Array, other: Array) -> float:
    """Mean seconds from each time to the nearest of the others, which are in order."""
    after = np.searchsorted(other, own)
    near = [np.abs(own - other[np.clip(after + k, 0, len(other) - 1)]) for k in (-1, 0)]
    return float(np.minimum(*near).mean())


def _step(tracklets: Tracklets) -> Array:
    """(t,) seconds between frames as usual in the tracklet's camera and film; 0 where there are no times."""
    step = np.diff(tracklets.time)
    inside = (np.diff(tracklets.tracklet) == 0) & (step > 0)
    film = np.unique(np.stack([tracklets.camid, tracklets.clock]), axis=1, return_inverse=True)[1].reshape(-1)
    owner = film[tracklets.tracklet[1:]][inside]
    usual = np.zeros(int(film.max()) + 1)
    for number in np.unique(owner):
        usual[number] = np.median(step[inside][owner == number])
    return usual[film]
