"""The inner loop of `core.scan`: products of 8-bit rows with a query, and which rows these leave in."""

from __future__ import annotations

import numpy as np

from tracklearn.core.kernels.compiled import kernel

_PART = 1024  # products that are taken together into their bounds


@kernel()
def _product(row, query):
    """Sum of products of an int8 row and an int16 query in int32; the caller sees to it that it fits."""
    total = np.int32(0)
    for c in range(row.shape[0]):
        # By way of int16, for which there is an instruction that multiplies and adds pairs.
        total = np.int32(total + np.int32(np.int32(np.int16(row[c])) * np.int32(query[c])))
    return total


@kernel()
def nearby(code, bound, query, scale, error, length, allowed, group, floor, best, whose, upper, near):
    """Writes the rows whose score may reach the floor to `near` (n,); returns how many, and the floor.

    A row's score lies within `margin` of what the 8-bit product says. The floor is what the k-th best group
    reaches at least: `best` (k,) holds the largest lower bounds so far, of the groups `whose` (k,); both are
    changed.

    Args:
        code: (n, d) int8; bound: (n, 3) float32, as of `scan.quantise`.
        query: (d,) int16; times `scale` it is within `error` of the query, whose length is `length`.
        allowed: (n,) bool, or empty for all.
        group: (n,) int64, or empty: each row is a group of its own.
        floor: a score that is known to be reached already.
        upper: (n,) float64, for its own use.
    """
    n = code.shape[0]
    k = best.shape[0]
    least = 0
    for j in range(k):
        if best[j] < best[least]:
            least = j
    for i in range(n):
        if allowed.shape[0] and not allowed[i]:
            upper[i] = -np.inf
            continue
        step = np.float64(bound[i, 0])
        off = np.float64(bound[i, 1])
        score = scale * step * _product(code[i], query) - np.float64(bound[i, 2])
        # Cauchy-Schwarz: q·(r − sc) and (q − tg)·sc; then the half squared length in float32.
        margin = length * off + error * (1.002 + off) + 1e-7
        upper[i] = score + margin
        low = score - margin
        if low > best[least]:
            own = group[i] if group.shape[0] else np.int64(i)
            at = least
            if group.shape[0]:
                for j in range(k):
                    if whose[j] == own:
                        at = j
            if low > best[at]:
                best[at] = low
                whose[at] = own
                least = 0
                for j in range(k):
                    if best[j] < best[least]:
                        least = j
    floor = max(floor, best[least])
    count = 0
    for i in range(n):
        if upper[i] >= floor and upper[i] > -np.inf:
            near[count] = i
            count += 1
    return count, floor


@kernel()
def reach(code, bound, query, step, error, length, rest, extra, allowed, upper):
    """Fills `upper` (n,) float32 with what the score of each row cannot exceed, by its head; −inf for none.

    Args:
        code: (n, L) int8; bound: (4, n) float32, the columns of `heads.encode`.
        query: (L,) int16; times `step` it is within `error` of the query's coordinates, whose length is
            `length`; what they leave of it is `rest` long.
        extra: what else a score may be off by. Float32 sums here are off by less than 2e-6, which is added.
        allowed: (n,) bool, or empty for all.
    """
    n = code.shape[0]
    product = np.empty(_PART, np.int32)
    step, error, length, rest = np.float32(step), np.float32(error), np.float32(length), np.float32(rest)
    more = np.float32(extra + 1.003 * error + 2e-6)
    for lo in range(0, n, _PART):
        size = min(n - lo, _PART)
        for i in range(size):
            product[i] = _product(code[lo + i], query)
        scale, off = bound[0, lo : lo + size], bound[1, lo : lo + size]
        left, half = bound[2, lo : lo + size], bound[3, lo : lo + size]
        out = upper[lo : lo + size]
        for i in range(size):
            score = step * scale[i] * np.float32(product[i]) - half[i]
            out[i] = score + (length + error) * off[i] + rest * left[i] + more
    if allowed.shape[0]:
        for i in range(n):
            if not allowed[i]:
                upper[i] = -np.inf
