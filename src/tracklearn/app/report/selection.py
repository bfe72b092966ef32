"""Which rows the report shows, and how they are grouped."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from tracklearn.core.shown import spread
from tracklearn.types import Array, Tracklets

_BINS = (1, 2, 5, 10, 30, 100, 300)  # lower edges of lengths


def tile(tracklets: Tracklets) -> tuple[int, int]:
    """Size of a thumbnail in pixels: the crops' usual shape, 144 high."""
    box = tracklets.box[spread(tracklets.n_crops, 10_000)].astype(np.float64)
    width, height = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
    good = (width > 0) & (height > 0)
    shape = float(np.median(width[good] / height[good])) if good.any() else 0.5
    return round(144 * min(max(shape, 0.36), 0.75)), 144


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
    """Edges (b + 1,) and names (b,) of bins for lengths of tracks up to `longest`; the last is open."""
    edges = [e for e in _BINS if e <= longest]
    names = [f"{a}" if b - a == 1 else f"{a}–{b - 1}" for a, b in pairwise(edges)]
    return np.array([*edges, np.inf]), [*names, f"{edges[-1]}+"]
