"""Inner loops of `core.coded`: rows in 8 bits, where they stand near each other, and who may be a neighbour.

Rows are named by their place in an order in which near rows stand together; `order` leads back.
"""

from __future__ import annotations

import numpy as np

from tracklearn.core.kernels.compiled import kernel
from tracklearn.core.kernels.neighbors import make_room
from tracklearn.core.kernels.products import COLUMNS, ROWS, reached, trailing_zeros

_TURNS = 12  # halvings on the way to a limit that some of a window reach


@kernel(inline="always")
def _random_bits(number):
    """splitmix64 (Steele, Lea, Flood 2014): 64 bits that look independent from number to number."""
    z = (np.uint64(number) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@kernel()
def encode(features, order, block, low, high, panel, scale, start):
    """Rows low..high−1 of the order, rotated, and rounded to 8 bits at random, right on average.

    The rotation is one for all rows, so products stay: signs drawn at random, then a Walsh-Hadamard
    transform of every `block` numbers. It spreads a few large numbers over their block. The random numbers
    come from row and column alone: equal calls give equal results.

    Args:
        features: (n, d) float32. block: the largest power of two that divides d.
        panel: (p, w / 4, COLUMNS, 4) int8, zeros; see `kernels.products`.
        scale: (n,) float32, the step of each row. start: (n,) int32, −128 times the sum of its numbers.
    """
    width = features.shape[1]
    row = np.empty(width, np.float32)
    number = np.empty((width + 3) // 4 * 4, np.int8)
    number[:] = 0
    four = number.view(np.int32)
    fours = panel.view(np.int32)
    sign = np.empty(width, np.float32)
    root = np.float32(1) / np.sqrt(np.float32(block))
    for c in range(width):
        sign[c] = root if _random_bits(c) >> np.uint64(63) else -root
    for p in range(low, high):
        i = order[p]
        for c in range(width):
            row[c] = features[i, c] * sign[c]
        for first in range(0, width, block):
            half = 1
            while half < block:
                for lo in range(first, first + block, 2 * half):
                    left = row[lo : lo + half]
                    right = row[lo + half : lo + 2 * half]
                    for c in range(half):
                        a = left[c]
                        b = right[c]
                        left[c] = a + b
                        right[c] = a - b
                half *= 2
        largest = np.float32(1e-30)
        for c in range(width):
            largest = max(largest, abs(row[c]))
        scale[p] = largest / np.float32(126)
        inverse = np.float32(1) / scale[p]
        total = np.int32(0)
        seed = (np.uint64(i) + np.uint64(4)) * np.uint64(four.shape[0])  # beyond those of the signs
        for c in range(0, width, 4):
            bits = _random_bits(seed + np.uint64(c >> 2))
            for part in range(min(4, width - c)):
                chance = np.float32((bits >> np.uint64(16 * part)) & np.uint64(0xFFFF))
                chance = (chance + np.float32(0.5)) * np.float32(2.0**-16)
                number[c + part] = np.int8(np.floor(row[c + part] * inverse + chance))
                total += np.int32(number[c + part])
        start[p] = np.int32(-128) * total
        at, lane = p // COLUMNS, p % COLUMNS
        for c in range(four.shape[0]):
            fours[at, c, lane, 0] = four[c]


@kernel()
def first_floors(n, panel, scale, start, k, slack, itself, low, high, floor):
    """Floors of the rows low..high−1, whole panels: what k of them reach, less the slack.

    Found by halving; −inf where there are fewer than k. `itself` as for `offer`.
    """
    there = min(high, n) - low
    nothing = np.full(high, np.inf, np.float32)
    similar = np.empty((ROWS, high - low), np.float32)
    word = np.empty((ROWS, (high - low) // COLUMNS), np.uint32)
    for p in range(low, min(high, n), ROWS):
        for at in range(low, high, COLUMNS):
            _compare(panel, scale, start, nothing, p, at, similar, word, at - low)
        for r in range(min(ROWS, n - p)):
            value = similar[r, :there]
            value[p + r - low] = itself[p + r]
            reached_by_k = np.float32(-np.inf)
            top = np.float32(1.1)
            limit = np.float32(-1.1)
            for _ in range(_TURNS):
                count = np.int32(0)
                for c in range(there):
                    count += np.int32(value[c] >= limit)
                if count < k:
                    top = limit
                else:
                    reached_by_k = limit
                    if count <= k + 1:
                        break
                limit = (max(reached_by_k, np.float32(-1.1)) + top) / np.float32(2)
            floor[p + r] = reached_by_k - slack[p + r]


@kernel(inline="always")
def _compare(panel, scale, start, floor, p, b, similar, word, column):
    """`reached` of the rows p.. with the panel of the rows b..; their column in `similar` is `column`."""
    reached(
        panel[p // COLUMNS, 0, p % COLUMNS].ctypes.data, panel[b // COLUMNS].ctypes.data, panel.shape[1],
        start[p:].ctypes.data, scale[p:].ctypes.data, floor[p:].ctypes.data, scale[b:].ctypes.data,
        floor[b:].ctypes.data, similar[0, column:].ctypes.data, word[0, column // COLUMNS :].ctypes.data,
        4 * word.shape[1],
    )  # fmt: skip


@kernel()
def tighten(k, slack, low, high, floor, count, index, value):
    """Raises the floors of rows low..high−1 to what their candidates say."""
    heap = np.empty(k, np.float32)
    for p in range(low, high):
        if count[p] > k:
            make_room(p, heap, slack, floor, count, index, value)


@kernel()
def offer(n, panel, scale, start, order, k, slack, itself, near, far, floor, count, index, value):
    """Offers the pairs of two windows of rows to both of them, as `kernels.neighbors.offer` does.

    Args:
        itself: (n,) float32, similarity of each row to itself, whose errors in 8 bits are not independent;
            −inf where it may not be its own neighbour.
        near, far: (first, end) of the windows, whole panels; the same twice for the pairs within one.
    """
    heap = np.empty(k, np.float32)
    words = (far[1] - far[0]) // COLUMNS
    word = np.empty((ROWS, words), np.uint32)
    similar = np.empty((ROWS, words * COLUMNS), np.float32)
    within = near[0] == far[0]
    for p in range(near[0], min(near[1], n), ROWS):
        skipped = (p - near[0]) // COLUMNS if within else 0
        for w in range(skipped, words):
            _compare(panel, scale, start, floor, p, far[0] + w * COLUMNS, similar, word, w * COLUMNS)
        for r in range(min(ROWS, n - p)):
            a = p + r
            if within and itself[a] >= floor[a] and count[a] == index.shape[1]:
                make_room(a, heap, slack, floor, count, index, value)
            if within and itself[a] >= floor[a] and itself[a] > -np.inf:
                index[a, count[a]] = order[a]
                value[a, count[a]] = itself[a]
                count[a] += 1
            for w in range(skipped, words):
                bits = word[r, w]
                while bits:
                    c = w * COLUMNS + trailing_zeros(bits)
                    b = far[0] + c
                    bits &= bits - np.uint32(1)
                    if b >= n or (within and b <= a):
                        continue
                    # Written out twice: handing the arrays to a function costs more than the work.
                    if similar[r, c] >= floor[a]:
                        if count[a] == index.shape[1]:
                            make_room(a, heap, slack, floor, count, index, value)
                        if similar[r, c] >= floor[a]:
                            index[a, count[a]] = order[b]
                            value[a, count[a]] = similar[r, c]
                            count[a] += 1
                    if similar[r, c] >= floor[b]:
                        if count[b] == index.shape[1]:
                            make_room(b, heap, slack, floor, count, index, value)
                        if similar[r, c] >= floor[b]:
                            index[b, count[b]] = order[a]
                            value[b, count[b]] = similar[r, c]
                            count[b] += 1
