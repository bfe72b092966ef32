"""Cannot-links: pairs of tracklets that are two people, kept out of one cluster.

Source: ours (METHODS 6a, "Cannot-links from time").
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from tracklearn.types import Array

_ROUNDS = 4  # in which the two sides of a cluster settle


def without(distance: sparse.csr_array, pair: Array) -> sparse.csr_array:
    """Sparse distances without those of these pairs, in which a missing one is the largest there is.

    Args:
        distance: (n, n) sparse, symmetric.
        pair: (p, 2) int.

    Returns:
        A new matrix; memory O(entries).
    """
    rows = sparse.csr_array(distance)
    n = rows.shape[0]
    line = np.repeat(np.arange(n), np.diff(rows.indptr))
    asked = np.concatenate([pair[:, 0] * n + pair[:, 1], pair[:, 1] * n + pair[:, 0]])
    kept = ~np.isin(line * n + rows.indices, asked)
    start = np.r_[0, np.cumsum(np.bincount(line[kept], minlength=n))]
    return sparse.csr_array((rows.data[kept], rows.indices[kept], start), shape=rows.shape)


def split(label: Array, features: Array, pair: Array, *, alone: bool = False) -> tuple[Array, int]:
    """Labels of which no cluster holds a pair; and how many clusters held one.

    A cluster is parted at the pair whose features are furthest apart: each of the others goes to the nearer
    side by the mean features, unless somebody of that side is known to be another person. So it goes on
    inside the sides.

    Args:
        label: (n,) int64, cluster of each tracklet, −1 noise.
        features: (n, d) unit rows.
        pair: (p, 2) int, tracklets that are two people.
        alone: a side of a single tracklet is a cluster too; otherwise it is noise, as it tells nothing of who
            comes back.

    Returns:
        (label (n,) int64, from 0 in the order of the old ones; number of clusters that were split). Time
        O(n d) for each level of splits; memory O(largest cluster · d).
    """
    if not len(pair):
        return label, 0
    both = label[pair[:, 0]]
    held = (both >= 0) & (both == label[pair[:, 1]])
    broken = np.unique(both[held])
    if not len(broken):
        return label, 0
    out, fresh = label.astype(np.int64), int(label.max()) + 1
    for value in broken:
        member = np.flatnonzero(label == value)
        inside = np.searchsorted(member, pair[held & (both == value)])
        side = _sides(np.asarray(features[member], np.float64), inside)
        size = np.bincount(side)
        first = int(np.argmax(size))  # the largest side keeps the number
        number = np.where((size > 1) | alone, fresh + np.arange(len(size)), -1)
        if size[first] > 1 or alone:
            number[first] = value
        fresh += len(size)
        out[member] = number[side]
    known = out >= 0
    # Numbered anew in the order of their first tracklets, as DBSCAN does.
    value, first_row = np.unique(out[known], return_index=True)
    rank = np.empty(len(value), np.int64)
    rank[np.argsort(first_row)] = np.arange(len(value))
    out[known] = rank[np.searchsorted(value, out[known])]
    return out, len(broken)


def _sides(x: Array, pair: Array) -> Array:
    """(m,) side of each row of one cluster, from 0; no side holds one of the pairs."""
    side = np.zeros(len(x), np.int64)
    count = 1
    open_sides = [0]
    while open_sides:
        here = open_sides.pop()
        held = pair[(side[pair[:, 0]] == here) & (side[pair[:, 1]] == here)]
        if not len(held):
            continue
        apart = ((x[held[:, 0]] - x[held[:, 1]]) ** 2).sum(1)
        a, b = held[int(np.argmax(apart))]
        member = np.flatnonzero(side == here)
        second = _second(x, member, int(a), int(b), held)
        side[second] = count
        open_sides += [here, count]
        count += 1
    return side


def _second(x: Array, member: Array, a: int, b: int, held: Array) -> Array:
    """Those of `member` that are on the side of b, not of a."""
    # +1 where somebody is known not to be a, −1 where not to be b.
    bound = np.zeros(len(x), np.int64)
    for seed, towards in ((a, 1), (b, -1)):
        others = np.r_[held[held[:, 0] == seed, 1], held[held[:, 1] == seed, 0]]
        bound[others] += towards
    bound[a], bound[b] = -2, 2
    mean_a, mean_b = x[a], x[b]
    to_b = np.zeros(len(member), bool)
    for _ in range(_ROUNDS):
        nearer = ((x[member] - mean_b) ** 2).sum(1) < ((x[member] - mean_a) ** 2).sum(1)
        now = np.where(bound[member] != 0, bound[member] > 0, nearer)
        if np.array_equal(now, to_b):
            break
        to_b = now
        mean_a, mean_b = x[member[~to_b]].mean(0), x[member[to_b]].mean(0)
    return member[to_b]
