"""Pieces of one tracklet that are one person, joined again; and leftovers too short to show anybody.

Cutting finds more than persons: a turn, a shadow, somebody who passes in front. What it leaves is compared by
its mean, and joined by average linkage while the distance stays below that at which another person
begins (`calibration`).

A part may be set aside: a method that trains on a sample of the tracklets leaves it out of its training, and
it is somebody all the same. Part p is −2 − p then, to whatever asks for parts from 0 as good as dropped.

Source: METHODS 3.2 ("parts re-joined"); average linkage: Sokal, Michener, "A statistical method for
evaluating systematic relationships", 1958.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from tracklearn.core.features import on_host
from tracklearn.types import Array

if TYPE_CHECKING:
    from torch import Tensor

_TOGETHER = 2048  # pieces compared at a time: 16 MB of distances


def joined(features: Array | Tensor, edge: Array, part: Array, below: float, least: int) -> Array:
    """Parts (n,) of tracklets of rows edge[q]:edge[q + 1], their pieces joined.

    Args:
        features: (n, d), finite, any lengths but zero.
        edge: (t + 1,) first rows of the tracklets.
        part: (n,) the pieces, numbered from 0 within each tracklet; runs of dropped rows (−1) are pieces too.
        below: greatest mean distance of two groups that are joined, of unit means.
        least: rows of a part at least. A tracklet's shorter parts are dropped where it has a longer one.

    Returns:
        (n,) int64, numbered by first rows; −1 dropped.
    """
    out = np.zeros(len(part), np.int64)
    x = on_host(features)
    for lo, hi in pairwise(edge):
        own = part[lo:hi]
        if hi - lo < 2 or (own == 0).all():
            continue
        piece = _pieces(own)
        count = int(piece.max()) + 1
        if count > 1:
            piece = _groups(_means(x[lo:hi], piece, count), below)[piece]
        size = np.bincount(piece)
        kept = size[piece] >= least
        out[lo:hi] = _in_order(np.where(kept, piece, -1) if kept.any() else piece)
    return out


def set_aside(part: Array, rows: Array) -> Array:
    """The same parts, those of some rows set aside for training.

    Args:
        part: (n,) int, part of each row in its tracklet, −1 dropped, below set aside already.
        rows: (n,) bool.

    >>> set_aside(np.array([0, 0, 1, -1, 0]), np.array([False, False, True, True, True])).tolist()
    [0, 0, -3, -1, -2]
    """
    return np.where(rows & (part >= 0), -2 - part, part)


def taken_in(part: Array) -> Array:
    """The same parts, none set aside; −1 stays dropped.

    >>> taken_in(np.array([0, 0, -3, -1, -2])).tolist()
    [0, 0, 1, -1, 0]
    """
    return np.where(part < -1, -2 - part, part)


def _pieces(part: Array) -> Array:
    """Piece of each row: its part, or the run of dropped rows that it is in."""
    dropped = part < 0
    begins = dropped & ~np.r_[False, dropped[:-1]]
    return np.where(dropped, part.max() + np.cumsum(begins), part)


def _means(x: Array, piece: Array, count: int) -> Array:
    """(count, d) unit means of unit rows."""
    rows = x.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    order = np.argsort(piece, kind="stable")
    first = np.searchsorted(piece[order], np.arange(count))
    total = np.add.reduceat(rows[order], first, axis=0)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def _groups(mean: Array, below: float) -> Array:
    """(k,) group of each piece by average linkage; of many pieces neighbours come first."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    if len(mean) < 2:
        return np.zeros(len(mean), np.int64)
    if len(mean) > _TOGETHER:
        block = np.arange(len(mean)) // _TOGETHER
        inner = np.concatenate([_groups(mean[block == b], below) for b in range(int(block[-1]) + 1)])
        group = np.unique(np.stack([block, inner]), axis=1, return_inverse=True)[1].reshape(-1)
        count = int(group.max()) + 1
        if count == len(mean):
            return group
        return _groups(_means(mean, group, count), below)[group]
    # fcluster joins at the threshold itself; a distance of exactly that is another person.
    return fcluster(linkage(pdist(mean), "average"), np.nextafter(below, 0), "distance") - 1


def _in_order(part: Array) -> Array:
    """The same parts, numbered by their first rows; −1 stays."""
    kept = part[part >= 0]
    value, first = np.unique(kept, return_index=True)
    number = np.empty(int(part.max()) + 1, np.int64)
    number[value[np.argsort(first)]] = np.arange(len(value))
    return np.where(part >= 0, number[part], -1)
