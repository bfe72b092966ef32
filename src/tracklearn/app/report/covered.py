"""The report's section on covered frames: where another person hid the one of the track."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracklearn.app.report import charts
from tracklearn.core.cover import covered
from tracklearn.core.shown import spread
from tracklearn.types import Array, Tracklets

HIDDEN = 0.5  # share of a box under another one from which a frame counts as covered
_EXAMPLES, _SHOWN, _AROUND = 6, 12, 2  # examples; frames of one; frames shown before and after a cover


def section(
    tracklets: Tracklets, film: Array, part: Array, cameras: Sequence[str], shot: Callable[[int], str]
) -> dict[str, Any]:
    """What the template shows of covered frames: how many, what isolation did with them, examples.

    A covered frame was dropped; or is in a part of its own, one of several of its track, which holds more
    covered frames than others; or stayed with the person of the frames around it.

    Args:
        tracklets: before isolation.
        film: (t,) number of the film that each tracklet is from; below 0 nothing is known to be covered.
        part: (n_crops,) part of each row, −1 dropped.
        cameras: names by camid.
        shot: picture row -> data URI.
    """
    share = np.zeros(tracklets.n_crops)
    owner = tracklets.tracklet
    seen = film[owner] >= 0
    share[seen] = covered(film[owner[seen]], tracklets.frame[seen], tracklets.box[seen])
    hidden, kept = share >= HIDDEN, part >= 0
    width = int(np.max(part, initial=0)) + 1
    key, inverse = np.unique(owner[kept] * width + part[kept], return_inverse=True)
    n_hidden, n_all = np.bincount(inverse, hidden[kept]), np.bincount(inverse)
    several = np.bincount(key // width, minlength=len(tracklets)) > 1
    own = np.zeros(len(part), bool)
    own[kept] = (several[key // width] & (2 * n_hidden > n_all))[inverse]
    return {
        "n": int(hidden.sum()),
        "share": float(hidden.mean()) if len(hidden) else 0.0,
        "dropped": int((hidden & ~kept).sum()),
        "own": int((hidden & own).sum()),
        "stayed": int((hidden & kept & ~own).sum()),
        "examples": [
            _example(tracklets, part, share, cameras, shot, first, end)
            for first, end in _longest(tracklets, hidden)
        ],
    }


def _longest(tracklets: Tracklets, hidden: Array) -> list[tuple[int, int]]:
    """First and last-plus-one row of the longest covers, one of each tracklet, in the order of the rows."""
    owner = tracklets.tracklet
    inside = np.r_[False, hidden[1:] & hidden[:-1] & (owner[1:] == owner[:-1])] if len(hidden) else hidden
    first = np.flatnonzero(hidden & ~inside)
    end = np.r_[np.flatnonzero(~inside), len(hidden)]
    end = end[np.searchsorted(end, first, side="right")]
    order = np.lexsort((first, first - end))
    _, once = np.unique(owner[first[order]], return_index=True)
    chosen = np.sort(order[np.sort(once)[:_EXAMPLES]])
    return list(zip(first[chosen].tolist(), end[chosen].tolist(), strict=True))


def _example(
    tracklets: Tracklets,
    part: Array,
    share: Array,
    cameras: Sequence[str],
    shot: Callable[[int], str],
    first: int,
    end: int,
) -> dict[str, Any]:
    tracklet = int(tracklets.tracklet[first])
    rows = np.arange(
        max(first - _AROUND, tracklets.start[tracklet]), min(end + _AROUND, tracklets.start[tracklet + 1])
    )
    rows = rows[spread(len(rows), _SHOWN)]
    return {
        "name": f"track {tracklet}",
        "camera": cameras[int(tracklets.camid[tracklet])],
        "n": end - first,
        "shots": [
            {
                "src": shot(int(tracklets.crop[row])),
                "colour": charts.part_colour(int(part[row])),
                "dropped": bool(part[row] < 0),
                "frame": int(tracklets.frame[row]),
                "share": float(share[row]),
            }
            for row in rows
        ],
    }
