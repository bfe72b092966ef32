"""Which rows the report shows, and how they are grouped."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from tracklearn.types import Array, Tracklets

STRIPS = 4  # film strips shown
_MIXED_SHARE = 0.1  # a part counts as weighty when it holds this share of its tracklet,
_MIXED_CROPS = 6  # and this many crops: parts of short tracklets are splinters more often than persons
_BINS = (1, 2, 5, 10, 30, 100, 300)  # lower edges of tracklet lengths


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


def tile(tracklets: Tracklets) -> tuple[int, int]:
    """Size of a thumbnail in pixels: the crops' usual shape, 144 high."""
    box = tracklets.box[spread(tracklets.n_crops, 10_000)].astype(np.float64)
    width, height = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
    good = (width > 0) & (height > 0)
    shape = float(np.median(width[good] / height[good])) if good.any() else 0.5
    return round(144 * min(max(shape, 0.36), 0.75)), 144


def spread(n: int, most: int) -> Array:
    """At most `most` of the rows 0..n−1, evenly spaced."""
    if n == 0:
        return np.zeros(0, np.int64)
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))


def frames(part: Array, most: int) -> Array:
    """At most `most` positions of a strip: evenly spaced, and of each run of equal parts the first."""
    if len(part) <= most:
        return np.arange(len(part))
    runs = np.flatnonzero(np.r_[True, np.diff(part) != 0])
    runs = runs[spread(len(runs), most // 2)]
    even = np.setdiff1d(spread(len(part), most), runs)
    return np.sort(np.r_[runs, even[spread(len(even), most - len(runs))]])


def letters(person: Array) -> dict[int, str]:
    """A, B, C … for the persons in order of appearance; ? for nobody known."""
    known = dict.fromkeys(int(p) for p in person if p >= 0)
    return {p: chr(65 + i) if i < 26 else str(i + 1) for i, p in enumerate(known)} | {-1: "?"}


def length_bins(longest: int) -> tuple[Array, list[str]]:
    """Edges (b + 1,) and names (b,) of bins for lengths of tracklets up to `longest`; the last is open."""
    edges = [e for e in _BINS if e <= longest]
    names = [f"{a}" if b - a == 1 else f"{a}–{b - 1}" for a, b in pairwise(edges)]
    return np.array([*edges, np.inf]), [*names, f"{edges[-1]}+"]
