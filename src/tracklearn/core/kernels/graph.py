"""Inner loops of `core.graph`: edges from similarities, and counts over the edges (`start`, `to`)."""

from __future__ import annotations

import numpy as np

from tracklearn.core.kernels.compiled import kernel
from tracklearn.core.kernels.neighbors import comparable_distance, insert, keep_largest, offer


@kernel()
def new_lists(n_a, n_b, k, least):
    """Empty lists for `offer` of the rows of two cameras, those of the second after those of the first.

    They take similarities from `least` on: floor (n,), count (n,), index and value (n, capacity).
    """
    n = n_a + n_b
    capacity = min(max(n_a, n_b), 3 * k + 32)
    floor = np.full(n, least, np.float32)
    count = np.zeros(n, np.int64)
    return floor, count, np.empty((n, capacity), np.int32), np.empty((n, capacity), np.float32)


@kernel()
def between(x_a, x_b, k, slack, threshold, count, index, value):
    """Edges between the rows of two cameras, from their full lists.

    Rows i of a and j of b are joined where each is among the k nearest of the other and their product is
    above the threshold; similarities that lie within `slack` of each other are decided in float64.

    Returns:
        pair (m, 2) int64, rows of a and b; weight (m,) float32, their product.
    """
    n_a, n_b = len(x_a), len(x_b)
    limit = np.rint((2.0 - 2.0 * threshold) * 2.0**40) / 2.0**40  # in the steps of comparable_distance
    bound = np.empty(n_a + n_b, np.float32)  # what is below is not among the k nearest
    heap = np.empty(k, np.float32)
    for i in range(n_a + n_b):
        heap[:] = -np.inf
        for c in range(count[i]):
            if value[i, c] > heap[0]:
                keep_largest(heap, value[i, c])
        bound[i] = heap[0] - slack

    pair = np.empty((16, 2), np.int64)
    weight = np.empty(16, np.float32)
    m = 0
    best = np.empty(k, np.float64)
    at = np.empty(k, np.int64)
    settled = np.zeros(n_a + n_b, np.bool_)
    last = np.empty(n_a + n_b, np.float64)  # the k-th nearest of a settled row: its distance and number
    last_at = np.empty(n_a + n_b, np.int64)
    for i in range(n_a):
        # A row without a list, as too many lie within the slack of its k-th, is compared with all.
        listed = count[i] >= 0
        for c in range(count[i] if listed else n_b):
            j = index[i, c] - n_a if listed else c
            other = n_a + j
            if listed:
                if value[i, c] < bound[i] or value[i, c] < bound[other]:
                    continue
            elif not _may_be_near(i, count[other], index[other], value[other], bound[other]):
                continue
            d = comparable_distance(x_a[i], x_b[j])
            if d >= limit:
                continue
            if not settled[i]:
                settled[i] = True
                last[i], last_at[i] = _last(
                    x_a[i], x_b, n_a, count[i], index[i], value[i], bound[i], best, at
                )
            if d > last[i] or (d == last[i] and j > last_at[i]):
                continue
            if not settled[other]:
                settled[other] = True
                last[other], last_at[other] = _last(
                    x_b[j], x_a, 0, count[other], index[other], value[other], bound[other], best, at
                )
            if d > last[other] or (d == last[other] and i > last_at[other]):
                continue
            if m == len(weight):
                pair = np.concatenate((pair, np.empty_like(pair)))
                weight = np.concatenate((weight, np.empty_like(weight)))
            pair[m, 0], pair[m, 1] = i, j
            weight[m] = 1.0 - d / 2.0
            m += 1
    return pair[:m], weight[:m]


@kernel()
def _may_be_near(row, count, index, value, bound):
    """Whether a list holds `row` above its bound; a count of −1 stands for a list of all rows."""
    for c in range(count):
        if index[c] == row:
            return value[c] >= bound
    return count < 0


@kernel()
def _last(own, others, first, count, index, value, bound, best, at):
    """Distance and row of the k-th nearest; (infinity, 0) where no more than k reach the bound.

    `index` holds rows of `others`, counted from `first`; a count of −1 stands for a list of all of them.
    """
    near = 0
    for c in range(count):
        near += value[c] >= bound
    if count >= 0 and near <= len(best):
        return np.inf, 0
    found = 0
    for c in range(count if count >= 0 else len(others)):
        if count < 0 or value[c] >= bound:
            j = index[c] - first if count >= 0 else c
            found = insert(best, at, found, comparable_distance(own, others[j]), j)
    return best[found - 1], at[found - 1]


@kernel()
def between_all(tile, x, row_edge, column_edge, k, error, threshold):
    """Edges between the cameras of a tile's rows and the later ones among those of its columns.

    Camera a of the rows has the rows row_edge[a]..row_edge[a + 1]−1 of x, and likewise the columns;
    `tile` holds their products, all of them, to within `error`.

    Returns:
        pair (m, 2) int64, rows of x; weight (m,) float32.
    """
    n_a, n_b = np.diff(row_edge).max(), np.diff(column_edge).max()
    floor, count, index, value = new_lists(n_a, n_b, k, threshold - error)
    slack = np.full(n_a + n_b, 2 * error, np.float32)
    pair = np.empty((16, 2), np.int64)
    weight = np.empty(16, np.float32)
    m = 0
    for a in range(len(row_edge) - 1):
        lo, hi = row_edge[a], row_edge[a + 1]
        rows = tile[lo - row_edge[0] : hi - row_edge[0]]
        for b in range(len(column_edge) - 1):
            left, right = column_edge[b], column_edge[b + 1]
            if left < hi:
                continue
            if len(column_edge) > 2:  # rows must lie without gaps for the kernel to be fast
                part = rows[:, left - column_edge[0] : right - column_edge[0]].copy()
            else:
                part = rows
            n = hi - lo + right - left
            floor[:n] = threshold - error
            count[:n] = 0
            offer(part, 0, hi - lo, k, slack, floor, count, index, value)
            found, heavy = between(
                x[lo:hi], x[left:right], k, 2 * error, threshold, count[:n], index[:n], value[:n]
            )
            while m + len(heavy) > len(weight):
                pair = np.concatenate((pair, np.empty_like(pair)))
                weight = np.concatenate((weight, np.empty_like(weight)))
            pair[m : m + len(heavy), 0] = found[:, 0] + lo
            pair[m : m + len(heavy), 1] = found[:, 1] + left
            weight[m : m + len(heavy)] = heavy
            m += len(heavy)
    return pair[:m], weight[:m]


@kernel()
def count_paths(start, to, camera):
    """Paths i-j-k over three different cameras, each counted once, and those of them with an edge i-k."""
    n = len(start) - 1
    mark = np.full(n, -1, np.int64)
    paths = closed = 0
    for i in range(n):
        near = to[start[i] : start[i + 1]]
        for j in near:
            mark[j] = i
        for j in near:
            if camera[j] == camera[i]:
                continue
            for k in to[start[j] : start[j + 1]]:
                if k > i and camera[k] != camera[i] and camera[k] != camera[j]:
                    paths += 1
                    closed += mark[k] == i
    return paths, closed
