"""Inner loops of `core.jaccard`."""

from __future__ import annotations

import numpy as np
from numba import njit

from tracklearn.core.kernels.neighbors import squared_distance


@njit(cache=True, nogil=True)
def _mutual(index, width):
    """(n, width) bool: is i among the first `width` neighbours of its own p-th neighbour?"""
    n = index.shape[0]
    mask = np.zeros((n, width), np.bool_)
    for i in range(n):
        for p in range(width):
            j = index[i, p]
            for q in range(width):
                if index[j, q] == i:
                    mask[i, p] = True
                    break
    return mask


@njit(cache=True, nogil=True)
def encode(index, squared, features, scale, width, half):
    """k-reciprocal encoding: sparse rows of weights exp(−scale·d), each summing to 1; columns unsorted.

    Reciprocal sets use the first `width` columns of `index`, their expansion the first `half`.
    Returns (start (n + 1,), column, weight).
    """
    n = index.shape[0]
    wide = _mutual(index, width)
    narrow = _mutual(index, half)
    stamp = np.full(n, -1, np.int64)  # == i: already a member of row i
    core = np.full(n, -1, np.int64)  # == i: in R(i, k1) before expansion
    known = np.full(n, -1, np.int64)  # place of a row among the neighbours of i, where known_of == i
    known_of = np.full(n, -1, np.int64)
    member = np.empty(width * (half + 1), np.int64)
    start = np.zeros(n + 1, np.int64)
    column = np.empty(64 * n + member.shape[0], np.int32)
    weight = np.empty(column.shape[0], np.float64)
    filled = 0
    for i in range(n):
        size = 0
        for p in range(width):
            j = index[i, p]
            known[j] = p
            known_of[j] = i
            if wide[i, p]:
                stamp[j] = i
                core[j] = i
                member[size] = j
                size += 1
        for c in range(size):  # size of the core set: the members added below are not expanded again
            j = member[c]
            common = 0
            total = 0
            for q in range(half):
                if narrow[j, q]:
                    total += 1
                    if core[index[j, q]] == i:
                        common += 1
            if 3 * common > 2 * total:
                for q in range(half):
                    other = index[j, q]
                    if narrow[j, q] and stamp[other] != i:
                        stamp[other] = i
                        member[size] = other
                        size += 1
        if filled + size > column.shape[0]:
            grown = 2 * column.shape[0] + size
            more_column = np.empty(grown, np.int32)
            more_column[:filled] = column[:filled]
            column = more_column
            more_weight = np.empty(grown, np.float64)
            more_weight[:filled] = weight[:filled]
            weight = more_weight
        total_weight = 0.0
        for c in range(size):
            j = member[c]
            if known_of[j] == i:
                d = np.float64(squared[i, known[j]])
            else:
                d = max(squared_distance(features[i], features[j]), 0.0)
            value = np.exp(-d * scale[i])
            column[filled + c] = j
            weight[filled + c] = value
            total_weight += value
        for c in range(size):
            weight[filled + c] /= total_weight
        filled += size
        start[i + 1] = filled
    return start, column[:filled].copy(), weight[:filled].copy()


@njit(cache=True, nogil=True)
def overlap(start, column, weight, t_start, t_row, t_weight, low, high, max_distance):
    """Jaccard distances of rows low..high−1 to all rows, entries under `max_distance` and the diagonal.

    The encoding comes by rows (`start`, `column`, `weight`) and by columns (`t_*`). Both are sorted, so
    that (i, j) and (j, i) add the same numbers in the same order. Returns (count, column, distance).
    """
    n = start.shape[0] - 1
    shared = np.zeros(n, np.float64)
    seen = np.full(n, -1, np.int64)
    touched = np.empty(n, np.int64)
    count = np.zeros(high - low, np.int64)
    out = np.empty(256 * (high - low), np.int32)
    distance = np.empty(out.shape[0], np.float32)
    filled = 0
    for i in range(low, high):
        seen[i] = i
        shared[i] = 0.0
        touched[0] = i
        size = 1
        for a in range(start[i], start[i + 1]):
            c = column[a]
            w = weight[a]
            for b in range(t_start[c], t_start[c + 1]):
                j = t_row[b]
                if seen[j] != i:
                    seen[j] = i
                    shared[j] = 0.0
                    touched[size] = j
                    size += 1
                shared[j] += min(w, t_weight[b])
        if filled + size > out.shape[0]:
            grown = 2 * out.shape[0] + size
            more_out = np.empty(grown, np.int32)
            more_out[:filled] = out[:filled]
            out = more_out
            more_distance = np.empty(grown, np.float32)
            more_distance[:filled] = distance[:filled]
            distance = more_distance
        for t in range(size):
            j = touched[t]
            value = 1.0 - shared[j] / (2.0 - shared[j])
            if j == i or value < 1e-12:  # rows encoded alike are at 0, whatever their sums rounded to
                value = 0.0
            rounded = np.float32(value)
            if rounded < max_distance or j == i:
                out[filled] = j
                distance[filled] = rounded
                filled += 1
                count[i - low] += 1
    return count, out[:filled].copy(), distance[:filled].copy()
