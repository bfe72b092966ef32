"""Inner loops of `core.isolate`."""

from __future__ import annotations

import numpy as np

from tracklearn.core.kernels.compiled import kernel

SHORT = 256  # frames up to which a tracklet's similarities are computed here, not by BLAS

# Squared lengths of rows whose float32 products neither overflow nor lose to underflow what would count.
_SMALLEST, _LARGEST = 2.0**-60, 2.0**60


@kernel(fastmath={"reassoc", "contract"})
def dot(x, y):
    """x·y in float64; the same for (x, y) and (y, x)."""
    total = 0.0
    for i in range(x.shape[0]):
        total += np.float64(x[i]) * np.float64(y[i])
    return total


@kernel()
def lengths(x, out):
    """Fills `out` (n,) float64 with the lengths of the rows."""
    for i in range(x.shape[0]):
        out[i] = np.sqrt(dot(x[i], x[i]))


@kernel(fastmath={"reassoc", "contract"})
def tile(x, i, j, out):
    """Fills out[i : i + 4, j : j + 4] with products of rows, float32; the last row stands for those beyond.

    Sixteen sums at once, each a vector along the width: two loads for four multiplications. BLAS, made for
    large matrices, first copies both factors, and takes longer than this up to some hundred rows.
    """
    last = x.shape[0] - 1
    a0, a1, a2, a3 = x[i], x[min(i + 1, last)], x[min(i + 2, last)], x[min(i + 3, last)]
    b0, b1, b2, b3 = x[j], x[min(j + 1, last)], x[min(j + 2, last)], x[min(j + 3, last)]
    s00 = s01 = s02 = s03 = np.float32(0)
    s10 = s11 = s12 = s13 = np.float32(0)
    s20 = s21 = s22 = s23 = np.float32(0)
    s30 = s31 = s32 = s33 = np.float32(0)
    for c in range(x.shape[1]):
        s00 += a0[c] * b0[c]
        s01 += a0[c] * b1[c]
        s02 += a0[c] * b2[c]
        s03 += a0[c] * b3[c]
        s10 += a1[c] * b0[c]
        s11 += a1[c] * b1[c]
        s12 += a1[c] * b2[c]
        s13 += a1[c] * b3[c]
        s20 += a2[c] * b0[c]
        s21 += a2[c] * b1[c]
        s22 += a2[c] * b2[c]
        s23 += a2[c] * b3[c]
        s30 += a3[c] * b0[c]
        s31 += a3[c] * b1[c]
        s32 += a3[c] * b2[c]
        s33 += a3[c] * b3[c]
    out[i, j], out[i, j + 1], out[i, j + 2], out[i, j + 3] = s00, s01, s02, s03
    out[i + 1, j], out[i + 1, j + 1], out[i + 1, j + 2], out[i + 1, j + 3] = s10, s11, s12, s13
    out[i + 2, j], out[i + 2, j + 1], out[i + 2, j + 2], out[i + 2, j + 3] = s20, s21, s22, s23
    out[i + 3, j], out[i + 3, j + 1], out[i + 3, j + 2], out[i + 3, j + 3] = s30, s31, s32, s33


@kernel()
def is_near(x, y, least):
    """Whether the cosine of two rows is at least `least`, in float64."""
    return dot(x, y) >= least * (np.sqrt(dot(x, x)) * np.sqrt(dot(y, y)))


@kernel()
def mark(product, scale, first, x, least, slack, near, degree):
    """Sets the bits of the pairs (i, j), i < j, whose cosine is at least `least`, and counts them per row.

    product (r, n − first) float32 holds row first + i times row first + j; divided by scale[first + i] and
    scale[first + j] it is the cosine to within `slack`. What that leaves open is computed from the rows `x`.
    near (n, ⌈n / 64⌉) uint64: bit j % 64 of near[i, j // 64]; degree (n,) int64.
    """
    n = near.shape[0]
    for i in range(first, first + product.shape[0]):
        row = product[i - first]
        for j in range(i + 1, n):
            size = scale[i] * scale[j]
            if row[j - first] >= (least - slack) * size and (
                row[j - first] >= (least + slack) * size or is_near(x[i], x[j], least)
            ):
                near[i, j >> 6] |= np.uint64(1) << np.uint64(j & 63)
                near[j, i >> 6] |= np.uint64(1) << np.uint64(i & 63)
                degree[i] += 1
                degree[j] += 1


@kernel()
def label_bits(near, degree, min_samples, part):
    """Fills `part` (n,) with DBSCAN labels from the neighbours that `mark` found; without a core, not at all.

    Clusters are numbered by their lowest core row; a border point goes to the lowest cluster in reach.
    degree (n,) counts each row as its own neighbour.
    """
    n, words = near.shape
    open_rows = np.full(words, ~np.uint64(0))
    stack = np.empty(n, np.int64)
    label = np.full(n, -1, np.int64)
    cluster = 0
    for i in range(n):
        if label[i] != -1 or degree[i] < min_samples:
            continue
        label[i] = cluster
        open_rows[i >> 6] &= ~(np.uint64(1) << np.uint64(i & 63))
        stack[0] = i
        size = 1
        while size:
            size -= 1
            row = stack[size]
            for w in range(words):
                found = near[row, w] & open_rows[w]
                open_rows[w] &= ~found
                j = 64 * w
                while found:
                    if found & np.uint64(1):
                        label[j] = cluster
                        if degree[j] >= min_samples:
                            stack[size] = j
                            size += 1
                    found >>= np.uint64(1)
                    j += 1
        cluster += 1
    if cluster:
        part[:] = label


@kernel()
def label_short(x, edge, least, slack, min_samples, part, length, done):
    """Fills `part` (n,) for the tracklets x[edge[q] : edge[q + 1]], float32 rows, and `length` roughly.

    `length` tells rows that are not finite or all zero: NaN, infinity or 0. done[q] is False, and the rows
    are left as they were, for more than SHORT frames and for rows whose float32 products might be wrong.
    """
    longest = 0
    for q in range(edge.shape[0] - 1):
        if edge[q + 1] - edge[q] <= SHORT:
            longest = max(longest, edge[q + 1] - edge[q])
    product = np.empty((longest + 3, longest + 3), np.float32)
    for q in range(edge.shape[0] - 1):
        lo, hi = edge[q], edge[q + 1]
        n = hi - lo
        own, scale = x[lo:hi], np.empty(n)
        done[q] = True
        if n < max(min_samples, 2):
            lengths(own, length[lo:hi])
            continue
        if n > SHORT:
            done[q] = False
            continue
        for i in range(0, n, 4):
            for j in range(i, n, 4):
                tile(own, i, j, product)
        for i in range(n):
            done[q] &= _SMALLEST <= product[i, i] <= _LARGEST
            scale[i] = np.sqrt(np.float64(product[i, i]))
        if not done[q]:
            continue
        length[lo:hi] = scale
        near = np.zeros((n, (n + 63) // 64), np.uint64)
        degree = np.ones(n, np.int64)
        mark(product[:n], scale, 0, own, least, slack, near, degree)
        label_bits(near, degree, min_samples, part[lo:hi])
