"""Inner loops of `core.neighbors`, some of them shared with `core.graph`."""

from __future__ import annotations

import numpy as np

from tracklearn.core.kernels.compiled import kernel

# Distances are compared in steps of 2**-40 (9e-13): sums of the same numbers in another order, and so
# mathematically equal distances, then tie instead of being told apart by rounding.
_STEPS = 2.0**40

_TURNS = 20  # halvings on the way to a limit that k of a list reach
_LANES = 64  # similarities tested against their floors together: one vector test, no branch per number


@kernel(fastmath={"reassoc", "contract"})
def squared_distance(x, y):
    """2 − 2 x·y in float64; the same for (x, y) and (y, x)."""
    total = 0.0
    for i in range(x.shape[0]):
        total += np.float64(x[i]) * np.float64(y[i])
    return 2.0 - 2.0 * total


@kernel()
def comparable_distance(x, y):
    """The squared distance in the steps that ties are decided by."""
    return np.rint(squared_distance(x, y) * _STEPS) / _STEPS


@kernel()
def keep_largest(heap, value):
    """Puts `value` in the place of the smallest of `heap`, which stands first."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= heap.shape[0]:
            break
        if child + 1 < heap.shape[0] and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = value


@kernel()
def insert(best, index, found, d, j):
    """Puts (d, j) into its place among the `found` pairs sorted so far; returns their new number."""
    if found < best.shape[0]:
        at = found
        found += 1
    else:
        at = found - 1
        if d > best[at] or (d == best[at] and j > index[at]):
            return found
    while at > 0 and (best[at - 1] > d or (best[at - 1] == d and index[at - 1] > j)):
        best[at] = best[at - 1]
        index[at] = index[at - 1]
        at -= 1
    best[at] = d
    index[at] = j
    return found


@kernel()
def select(similarity, query, gallery, slack, index, squared):
    """Fills `index` and `squared` with the nearest gallery rows of each query, exactly.

    `similarity` (b, n) float32 holds query·gallery to within `slack` / 2. Everything that could be among
    the k nearest at that precision is computed again in float64.
    """
    n = similarity.shape[1]
    k = index.shape[1]
    heap = np.empty(k, np.float32)
    best = np.empty(k, np.float64)
    row = np.empty(query.shape[1], np.float64)
    chosen = np.empty(n, np.int64)
    for r in range(similarity.shape[0]):
        heap[:] = -np.inf
        for j in range(n):
            if similarity[r, j] > heap[0]:
                keep_largest(heap, similarity[r, j])
        bound = np.float64(heap[0]) - slack
        m = 0
        for j in range(n):
            if similarity[r, j] >= bound:
                chosen[m] = j
                m += 1
        row[:] = query[r]
        _insert_all(row, gallery, chosen[:m], best, index[r], 0)
        for i in range(k):
            squared[r, i] = max(best[i], 0.0)


@kernel()
def open_floors(tile, first_row, k, slack, floor):
    """Sets the floors of the rows of a tile by what the tile holds: the k-th largest less `slack` (n,)."""
    heap = np.empty(k, np.float32)
    for r in range(tile.shape[0]):
        heap[:] = -np.inf
        for similarity in tile[r]:
            if similarity > heap[0]:
                keep_largest(heap, similarity)
        floor[first_row + r] = heap[0] - slack[first_row + r]


@kernel()
def offer(tile, first_row, first_column, k, slack, floor, count, index, value):
    """Offers tile[r, c], the similarity of rows first_row + r and first_column + c, to both of them.

    A tile on the diagonal holds each pair twice and is offered to its rows alone. A row takes what reaches
    its floor, the k-th largest so far less `slack` (n,), as one of its `count` (n,) candidates in index,
    value (n, capacity). A row whose candidates do not fit gets the count −1.
    """
    capacity = index.shape[1]
    height, width = tile.shape
    if first_row == first_column:
        opposite = np.full(width, np.inf, np.float32)
    else:
        opposite = floor[first_column : first_column + width]
    for r in range(height):
        i = first_row + r
        for lo in range(0, width, _LANES):
            if lo + _LANES <= width:
                # A fixed number of lanes without a branch inside: few of these tests find anything.
                least = floor[i]
                near = tile[r, lo : lo + _LANES]
                far = opposite[lo : lo + _LANES]
                hits = np.int32(0)
                for c in range(_LANES):
                    hits |= np.int32((near[c] >= least) | (near[c] >= far[c]))
                if not hits:
                    continue
            for c in range(lo, min(width, lo + _LANES)):
                similarity = tile[r, c]
                # Written out twice: handing the arrays to a function costs more than the work.
                if similarity >= floor[i]:
                    if count[i] == capacity:
                        make_room(i, k, slack, floor, count, index, value)
                    if similarity >= floor[i]:
                        at = count[i]
                        index[i, at] = first_column + c
                        value[i, at] = similarity
                        count[i] = at + 1
                if similarity >= opposite[c]:
                    j = first_column + c
                    if count[j] == capacity:
                        make_room(j, k, slack, floor, count, index, value)
                    if similarity >= opposite[c]:
                        at = count[j]
                        index[j, at] = i
                        value[j, at] = similarity
                        count[j] = at + 1


@kernel()
def make_room(i, k, slack, floor, count, index, value):
    """Raises the floor of row i to what its candidates say and drops those below it."""
    floor[i] = max(floor[i], reached_by(k, value[i], count[i]) - slack[i])
    kept = 0
    for c in range(count[i]):
        if value[i, c] >= floor[i]:
            index[i, kept] = index[i, c]
            value[i, kept] = value[i, c]
            kept += 1
    count[i] = kept
    if index.shape[1] - kept < max(1, k // 2):
        # Too many lie within the slack of the k-th: the caller looks at this row in another way.
        count[i] = -1
        floor[i] = np.inf


@kernel()
def settle(query, order, gallery, slack, count, candidate, value, low, high, index, squared):
    """Fills `index` and `squared` of the queries order[low..high−1], computed again in float64.

    `candidate` (q, c) holds `count` (q,) gallery rows for each query in that order, at least k or −1: those
    queries are passed over. `value` is exact to within `slack` / 2: what cannot reach the k-th nearest of the
    k largest is left alone.
    """
    k = index.shape[1]
    row = np.empty(query.shape[1], np.float64)
    chosen = np.empty(candidate.shape[1], np.int64)
    best = np.empty(k, np.float64)
    for i in range(low, high):
        if count[i] < 0:
            continue
        row[:] = query[order[i]]
        least = reached_by(k, value[i], count[i])
        n = 0
        for c in range(count[i]):
            if value[i, c] >= least:
                chosen[n] = candidate[i, c]
                n += 1
        line = index[order[i]]
        found = _insert_all(row, gallery, chosen[:n], best, line, 0)
        bound = 1.0 - best[k - 1] / 2
        n = 0
        for c in range(count[i]):
            if value[i, c] < least and value[i, c] + slack[i] / 2 >= bound:
                chosen[n] = candidate[i, c]
                n += 1
        _insert_all(row, gallery, chosen[:n], best, line, found)
        for c in range(k):
            squared[order[i], c] = max(best[c], 0.0)


@kernel()
def settle_farthest(rows, order, count, candidate, low, high, least):
    """Fills `least` of the rows order[low..high−1] with the smallest x·y to their candidates, in float64.

    Arguments as for `settle`; rows of a count of −1 are passed over.
    """
    for i in range(low, high):
        own = order[i]
        for c in range(count[i]):
            product = 1.0 - squared_distance(rows[own], rows[candidate[i, c]]) / 2
            least[own] = min(least[own], product)


@kernel()
def reached_by(k, values, n):
    """A limit that k of the first n of `values` float32 in [−1.1, 1.1] reach, near to the k-th largest.

    Found by halving: a tenth of a heap's time, as it has few branches. −inf where n < k.
    """
    best = np.float32(-np.inf)
    low, high = np.float32(-1.1), np.float32(1.1)
    limit = low
    for _ in range(_TURNS):
        count = np.int32(0)
        for c in range(n):
            count += np.int32(values[c] >= limit)
        if count < k:
            high = limit
        else:
            best = low = limit
            if count <= k + 1:
                break
        limit = (low + high) / np.float32(2)
    return best


@kernel()
def _insert_all(row, gallery, chosen, best, line, found):
    """Puts the gallery rows `chosen` in their places; `row` (d,) is in float64. Returns the new number.

    All of them by one function, so that equal rows have equal sums.
    """
    # Four at a time: their rows come from far away, and the processor waits for all of them at once.
    last = chosen.shape[0] - 1
    for c in range(0, last + 1, 4):
        four = _four_squared(
            row,
            gallery,
            chosen[c],
            chosen[min(c + 1, last)],
            chosen[min(c + 2, last)],
            chosen[min(c + 3, last)],
        )
        for part in range(min(4, last + 1 - c)):
            d = np.rint(four[part] * _STEPS) / _STEPS
            found = insert(best, line, found, d, chosen[c + part])
    return found


@kernel(fastmath={"reassoc", "contract"})
def _four_squared(x, y, a, b, c, d):
    """`squared_distance` of x and four rows of y."""
    to_a = to_b = to_c = to_d = 0.0
    for i in range(x.shape[0]):
        to_a += x[i] * np.float64(y[a, i])
        to_b += x[i] * np.float64(y[b, i])
        to_c += x[i] * np.float64(y[c, i])
        to_d += x[i] * np.float64(y[d, i])
    return 2.0 - 2.0 * to_a, 2.0 - 2.0 * to_b, 2.0 - 2.0 * to_c, 2.0 - 2.0 * to_d
