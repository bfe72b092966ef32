"""Inner loops of `core.jaccard`."""

from __future__ import annotations

import numpy as np

from tracklearn.core.kernels.compiled import kernel
from tracklearn.core.kernels.neighbors import squared_distance


@kernel()
def mutual(index, width, half, low, high):
    """Is row i, of low..high−1, among the first neighbours of its own p-th neighbour?

    Returns (high − low, width) bool for the first `width` neighbours, and the same for the first `half`.
    """
    wide = np.zeros((high - low, width), np.bool_)
    narrow = np.zeros((high - low, half), np.bool_)
    for i in range(low, high):
        for p in range(width):
            j = index[i, p]
            for q in range(width):
                if index[j, q] == i:
                    wide[i - low, p] = True
                    if p < half and q < half:
                        narrow[i - low, p] = True
                    break
    return wide, narrow


@kernel()
def encode(index, squared, features, scale, wide, narrow, low, high):
    """k-reciprocal encoding of rows low..high−1: weights exp(−scale·d), each row's sum 1; columns unsorted.

    `wide` and `narrow` are `mutual` of all rows: the reciprocal sets, and those they are expanded by.
    Returns (count, column, weight).
    """
    n = index.shape[0]
    width = wide.shape[1]
    half = narrow.shape[1]
    stamp = np.full(n, -1, np.int32)  # == i: already a member of row i
    core = np.full(n, -1, np.int32)  # == i: in R(i, k1) before expansion
    known = np.empty(n, np.int32)  # place of a row among the neighbours of i, where known_of == i
    known_of = np.full(n, -1, np.int32)
    member = np.empty(width * (half + 1), np.int32)
    count = np.zeros(high - low, np.int32)
    column = np.empty(2 * width * (high - low), np.int32)
    weight = np.empty(column.shape[0], np.float64)
    filled = 0
    for i in range(low, high):
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
            column = _grown(column, filled, size)
            weight = _grown(weight, filled, size)
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
        count[i - low] = size
    return count, column[:filled].copy(), weight[:filled].copy()


@kernel()
def overlap(start, column, weight, t_start, t_row, t_weight, low, high, max_distance):
    """Jaccard distances under `max_distance` between rows low..high−1 and the rows after each of them.

    The encoding comes by rows (`start`, `column`, `weight`) and by columns (`t_*`), which may hold other
    rows only: a row is compared with every later one that stands in a column of its own. Both are sorted, so
    the shares of a pair are added by rising column, whatever the range.
    Returns (count, column, distance); the columns of a row come in no order.
    """
    n = start.shape[0] - 1
    t_row = t_row.view(np.uint32)  # unsigned indices are not tested for counting from the end: a third faster
    shared = np.zeros(n, np.float64)  # 0: not met by this row
    touched = np.empty(n, np.uint32)
    after = np.empty(n, t_start.dtype)  # first entry of each column below the present row
    for c in range(n):
        at = t_start[c]
        end = t_start[c + 1]
        while at < end:
            middle = (at + end) >> 1
            if t_row[middle] < low:
                at = middle + 1
            else:
                end = middle
        after[c] = at
    # J < max_distance needs m > 2 (1 − J) / (2 − J); a little less, for what rounding to float32 may hide.
    least = 2.0 * (1.0 - max_distance) / (2.0 - max_distance) - 1e-6
    count = np.zeros(high - low, np.int32)
    out = np.empty(16 * (high - low), np.int32)
    distance = np.empty(out.shape[0], np.float32)
    filled = 0
    for i in range(low, high):
        size = np.uintp(0)
        for a in range(start[i], start[i + 1]):
            c = column[a]
            w = weight[a]
            at = after[c]
            end = t_start[c + 1]
            while at < end and t_row[at] <= i:
                at += 1
            after[c] = at
            for b in range(at, end):
                j = t_row[b]
                other = t_weight[b]
                before = shared[j]
                touched[size] = j
                size += np.uintp(before == 0.0)  # weights are above 0
                shared[j] = before + (other if other < w else w)
        if filled + size > out.shape[0]:
            out = _grown(out, filled, size)
            distance = _grown(distance, filled, size)
        for t in range(size):
            j = touched[t]
            m = shared[j]
            shared[j] = 0.0
            if m > least:
                value = 1.0 - m / (2.0 - m)
                if value < 1e-12:  # rows encoded alike are at 0, whatever their sums rounded to
                    value = 0.0
                rounded = np.float32(value)
                if rounded < max_distance:
                    out[filled] = j
                    distance[filled] = rounded
                    filled += 1
                    count[i - low] += 1
    return count, out[:filled].copy(), distance[:filled].copy()


@kernel()
def mirror_lower(low, count, column, distance, place, out_column, out_distance):
    """Puts the pairs (i, j), i < j, of rows low.. into row j, at `place[j]`, which moves on."""
    at = 0
    for r in range(count.shape[0]):
        for _ in range(count[r]):
            j = column[at]
            out_column[place[j]] = low + r
            out_distance[place[j]] = distance[at]
            place[j] += 1
            at += 1


@kernel()
def mirror_upper(start, place, out_column, out_distance):
    """Completes sorted rows of which the part before the diagonal is there: it ends where `place` stands.

    Going down the rows puts the entries after each diagonal in order without sorting.
    """
    n = place.shape[0]
    end = place.copy()
    for i in range(n):
        out_column[place[i]] = i
        out_distance[place[i]] = 0.0
        place[i] += 1
    for j in range(n):
        for at in range(start[j], end[j]):
            i = out_column[at]
            out_column[place[i]] = j
            out_distance[place[i]] = out_distance[at]
            place[i] += 1


@kernel()
def _grown(array, filled, more):
    """A copy of the filled part with room for `more` and half as much again."""
    out = np.empty(filled + filled // 2 + more, array.dtype)
    out[:filled] = array[:filled]
    return out
