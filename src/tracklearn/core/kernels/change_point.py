"""Inner loops of `core.change_point`."""

from __future__ import annotations

import numpy as np

from tracklearn.core.kernels.compiled import kernel
from tracklearn.core.kernels.isolate import SHORT, dot, lengths, tile

# Of a stretch with weight W, q is the squared length of the sum of its weighted rows. The spread of unit rows
# around their mean, Σ w |x − mean|², is W − q / W, and the W of all stretches are the same for every cutting.


@kernel()
def price(penalty, weight):
    """Of one cut in a tracklet of this weight: more frames have more places where chance saves something."""
    return penalty * max(2.0, np.log(weight))


@kernel()
def extend(product, first, weight_sum, cost, squared, best, back):
    """Goes on with the cheapest segmentation by the rows first, first + 1, … of `product`.

    product (r, ≥ first + r) float32: weighted row first + i times weighted row 0, 1, … up to itself.
    weight_sum (n + 1,): of the rows before each. squared (n,): of stretches that begin at each row and end
    before `first`. best (n + 1,): spread and cuts, at `cost` each, of the rows before each, less their
    weight; best[0] is −cost. back (n + 1,): where the last stretch of that begins. Of equal totals the
    longer last stretch is taken.
    """
    for i in range(product.shape[0]):
        row, j = product[i], first + i
        own = np.float64(row[j])
        since, least = 0.0, np.inf
        squared[j] = 0.0
        for a in range(j, -1, -1):
            if a < j:
                since += row[a]
            squared[a] += own + 2 * since
            total = best[a] - squared[a] / (weight_sum[j + 1] - weight_sum[a])
            if total <= least:
                least = total
                back[j + 1] = a
        best[j + 1] = least + cost


@kernel()
def label_stretches(x, weight_sum, back, least, part):
    """Fills `part` (n,) with the stretches that `extend` found, those of one person joined again.

    x (n, d) float32, weighted rows. Two groups of stretches are joined while the spread that this adds, the
    smallest of all pairs, is below `least` (Ward's method). Parts are numbered by their first rows.
    """
    n = x.shape[0]
    count, j = 0, n
    while j > 0:
        j = back[j]
        count += 1
    edge = np.empty(count + 1, np.int64)
    edge[count] = n
    for k in range(count - 1, -1, -1):
        edge[k] = back[edge[k + 1]]
    group = np.arange(count)
    if count > 2:
        total = np.zeros((count, x.shape[1]))
        weight = np.empty(count)
        for k in range(count):
            weight[k] = weight_sum[edge[k + 1]] - weight_sum[edge[k]]
            for i in range(edge[k], edge[k + 1]):
                for c in range(x.shape[1]):
                    total[k, c] += x[i, c]
        _rejoin(total, weight, least, group)
    number = np.full(count, -1)
    found = 0
    for k in range(count):
        if number[group[k]] < 0:
            number[group[k]] = found
            found += 1
        part[edge[k] : edge[k + 1]] = number[group[k]]


@kernel()
def _rejoin(total, weight, least, group):
    """Ward's method on groups of rows with these sums and weights; `group` gets the lowest of each."""
    n = len(weight)
    added = np.full((n, n), np.inf)  # to the spread by joining k < l
    for k in range(n):
        for m in range(k):
            product = dot(total[k], total[m]) / (weight[k] * weight[m])
            own = dot(total[k], total[k]) / weight[k] ** 2 + dot(total[m], total[m]) / weight[m] ** 2
            added[m, k] = weight[k] * weight[m] / (weight[k] + weight[m]) * (own - 2 * product)
    while True:
        low, high, smallest = 0, 0, least
        for k in range(n):
            for m in range(k + 1, n):
                if added[k, m] < smallest:
                    low, high, smallest = k, m, added[k, m]
        if high == 0:
            return
        for k in range(n):
            if k in (low, high):
                continue
            to_low = added[min(k, low), max(k, low)]
            to_high = added[min(k, high), max(k, high)]
            added[min(k, low), max(k, low)] = (
                (weight[k] + weight[low]) * to_low
                + (weight[k] + weight[high]) * to_high
                - weight[k] * smallest
            ) / (weight[k] + weight[low] + weight[high])
        weight[low] += weight[high]
        added[high, :] = np.inf
        added[:, high] = np.inf
        for k in range(n):
            if group[k] == high:
                group[k] = low


@kernel(error_model="numpy")
def scale(x, weight, length, out):
    """Fills `out` (n, d) float32 with the rows of `x` at the lengths `weight`; `length` with their own."""
    lengths(x, length)
    for i in range(x.shape[0]):
        factor = weight[i] / length[i]
        for c in range(x.shape[1]):
            out[i, c] = x[i, c] * factor


@kernel()
def label_short(x, weight, edge, penalty, rejoin, part, length, done):
    """Fills `part` (n,) for the tracklets x[edge[q] : edge[q + 1]] and `length` (n,) with the rows' lengths.

    Stretches are one person's below `rejoin` times the price of a cut.
    done[q] is False, and `part` left as it was, for more than SHORT rows and for rows without a direction.
    """
    longest = 1
    for q in range(edge.shape[0] - 1):
        if edge[q + 1] - edge[q] <= SHORT:
            longest = max(longest, edge[q + 1] - edge[q])
    product = np.empty((longest + 3, longest + 3), np.float32)
    unit = np.empty((longest, x.shape[1]), np.float32)
    weight_sum, squared = np.zeros(longest + 1), np.zeros(longest)
    best, back = np.empty(longest + 1), np.empty(longest + 1, np.int64)
    for q in range(edge.shape[0] - 1):
        lo, hi = edge[q], edge[q + 1]
        n = hi - lo
        if n > SHORT:
            done[q] = False
            continue
        own = unit[:n]
        scale(x[lo:hi], weight[lo:hi], length[lo:hi], own)
        done[q] = True
        for i in range(lo, hi):
            done[q] &= 0 < length[i] < np.inf
        if not done[q] or n < 2:
            continue
        for j in range(0, n, 4):
            for i in range(0, j + 4, 4):
                tile(own, j, i, product)
        for i in range(n):
            weight_sum[i + 1] = weight_sum[i] + weight[lo + i]
        cost = price(penalty, weight_sum[n])
        best[0] = -cost
        extend(product[:n], 0, weight_sum, cost, squared, best, back)
        label_stretches(own, weight_sum[: n + 1], back, rejoin * cost, part[lo:hi])


@kernel(error_model="numpy")
def steps(x, tracklet, clock, lag, length, out):
    """Fills `out` (n,): 1 − cosine of each row and the first of its tracklet `lag` later, or the last.

    NaN at the last row of a tracklet. `length` (n,) gets the lengths of the rows.
    """
    n = x.shape[0]
    lengths(x, length)
    j = 0
    for i in range(n):
        j = max(j, i + 1)
        while j + 1 < n and tracklet[j + 1] == tracklet[i] and clock[j] - clock[i] < lag:
            j += 1
        out[i] = np.nan
        if j < n and tracklet[j] == tracklet[i]:
            out[i] = 1 - dot(x[i], x[j]) / (length[i] * length[j])
