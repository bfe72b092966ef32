"""Inner loops of `core.coded`: rows in 8 bits, where they stand near each other, and who may be a neighbour.

Rows are named by their place in an order in which near rows stand together; `order` leads back.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tracklearn.core.kernels.compiled import kernel
from tracklearn.core.kernels.neighbors import make_room, reached_by
from tracklearn.core.kernels.products import (
    AT_ONCE,
    COLUMNS,
    LANES,
    ROWS,
    butterfly,
    product,
    reached,
    trailing_zeros,
)
from tracklearn.types import Array


class Rows(NamedTuple):
    """Rows in 8 bits, by their places.

    Args:
        panel: (p, w / 4, COLUMNS, 4) int8; see `kernels.products`.
        scale: (p COLUMNS,) float32, the step of each row.
        start: (p COLUMNS,) int32, −128 times the sum of its numbers.
        other: (p COLUMNS,) float32, the step of a row as the second of two: −scale where similarities to
            opposite rows are meant, else scale.
    """

    panel: Array
    scale: Array
    start: Array
    other: Array


@kernel(inline="always")
def _random_bits(number):
    """splitmix64 (Steele, Lea, Flood 2014): 64 bits that look independent from number to number."""
    z = (np.uint64(number) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@kernel()
def encode(features, order, block, low, high, rows, code):
    """Rows low..high−1 of the order, rotated, and rounded to 8 bits at random, right on average.

    The rotation is one for all rows, so products stay: signs drawn at random, then a Walsh-Hadamard
    transform of every `block` numbers. It spreads a few large numbers over their block. The random numbers
    come from row and column alone: equal calls give equal results.

    Args:
        features: (n, d) float32. order: (m,) int64, −1 where there is no row. block: the largest power of
            two that divides d.
        rows: `Rows` of zeros, which are filled.
        code: (n, w) int8 zeros, filled with the same numbers row by row, where w is not 0.
    """
    width = features.shape[1]
    row = np.empty(width, np.float32)
    turned = np.empty(width, np.float32)
    number = np.zeros((width + 3) // 4 * 4, np.int8)
    four = number.view(np.int32)
    fours = rows.panel.view(np.int32)
    bits = np.empty(four.shape[0], np.uint64)
    chance = bits.view(np.uint16)
    sign = np.empty(width, np.float32)
    root = np.float32(1) / np.sqrt(np.float32(block))
    for c in range(width):
        sign[c] = root if _random_bits(c) >> np.uint64(63) else -root
    for p in range(low, high):
        i = order[p]
        if i < 0:
            continue
        for c in range(width):
            row[c] = features[i, c] * sign[c]
        for first in range(0, width, block):
            _transform(row[first : first + block], turned[first : first + block])
        rows.scale[p] = _largest(turned) / np.float32(126)
        inverse = np.float32(1) / rows.scale[p]
        seed = (np.uint64(i) + np.uint64(4)) * np.uint64(four.shape[0])  # beyond those of the signs
        for c in range(four.shape[0]):
            bits[c] = _random_bits(seed + np.uint64(c))
        total = np.int32(0)
        for c in range(width):
            up = (np.float32(chance[c]) + np.float32(0.5)) * np.float32(2.0**-16)
            number[c] = np.int8(np.floor(turned[c] * inverse + up))
            total += np.int32(number[c])
        rows.start[p] = np.int32(-128) * total
        if code.shape[1]:
            code[p, : number.shape[0]] = number
        at, lane = p // COLUMNS, p % COLUMNS
        for c in range(four.shape[0]):
            fours[at, c, lane, 0] = four[c]


@kernel()
def _transform(row, out):
    """Walsh-Hadamard transform of a power of two of numbers, without its factor, in another order.

    Steps between numbers far apart go many lanes at a time. So, half of the steps done, the numbers are laid
    out the other way round, and those near each other are far apart.
    """
    size = row.shape[0]
    short = 1
    while short * short < size:
        short *= 2
    long = size // short
    _steps(row, short)
    for at in range(long):
        for c in range(short):
            out[c * long + at] = row[at * short + c]
    _steps(out, long)


@kernel()
def _steps(row, half):
    """Sums and differences of numbers `half` and more apart."""
    size = row.shape[0]
    while half < size:
        if half >= LANES:
            # Named by their addresses: nothing then has to be asked about arrays that may overlap.
            first = row.ctypes.data
            for lo in range(0, size, 2 * half):
                for c in range(lo, lo + half, LANES):
                    butterfly(first + 4 * c, first + 4 * (c + half))
        else:
            for lo in range(0, size, 2 * half):
                for c in range(lo, lo + half):
                    a = row[c]
                    b = row[c + half]
                    row[c] = a + b
                    row[c + half] = a - b
        half *= 2


@kernel(fastmath={"nnan", "nsz"})
def _largest(row):
    """The greatest of the absolute values, 1e-30 at least."""
    largest = np.float32(1e-30)
    for number in row:
        largest = max(largest, abs(number))
    return largest


@kernel()
def first_floors(n, rows, k, slack, itself, low, high, floor):
    """Floors of the rows low..high−1, whole panels: what k of them reach, less the slack.

    −inf where there are fewer than k. `itself` as for `offer`.
    """
    there = min(high, n) - low
    nothing = np.full(high, np.inf, np.float32)
    similar = np.empty((ROWS, high - low), np.float32)
    word = np.empty((ROWS, (high - low) // COLUMNS), np.uint32)
    for p in range(low, min(high, n), ROWS):
        for at in range(low, high, COLUMNS):
            _compare(rows, nothing, p, at, similar, word, at - low)
        for r in range(min(ROWS, n - p)):
            value = similar[r]
            value[p + r - low] = itself[p + r]
            floor[p + r] = reached_by(k, value, there) - slack[p + r]


@kernel(inline="always")
def _compare(rows, floor, p, b, similar, word, column):
    """`reached` of the rows p.. with the panel of the rows b..; their column in `similar` is `column`."""
    panel, scale, start = rows.panel, rows.scale, rows.start
    reached(
        panel[p // COLUMNS, 0, p % COLUMNS].ctypes.data, panel[b // COLUMNS].ctypes.data, panel.shape[1],
        start[p:].ctypes.data, scale[p:].ctypes.data, floor[p:].ctypes.data, rows.other[b:].ctypes.data,
        floor[b:].ctypes.data, similar[0, column:].ctypes.data, word[0, column // COLUMNS :].ctypes.data,
        4 * word.shape[1],
    )  # fmt: skip


@kernel()
def tighten(k, slack, low, high, floor, count, index, value):
    """Raises the floors of rows low..high−1 to what their candidates say."""
    for p in range(low, high):
        if count[p] > k:
            make_room(p, k, slack, floor, count, index, value)


@kernel()
def offer(n, rows, order, k, slack, itself, near, far, floor, count, index, value):
    """Offers the pairs of two windows of rows to both of them, as `kernels.neighbors.offer` does.

    Args:
        order: (n,) int64, what to call each row; −1 where there is none.
        itself: (n,) float32, similarity of each row to itself, whose errors in 8 bits are not independent;
            −inf where it may not be its own neighbour.
        near, far: (first, end) of the windows, whole panels; the same twice for the pairs within one.
    """
    words = (far[1] - far[0]) // COLUMNS
    word = np.empty((ROWS, words), np.uint32)
    similar = np.empty((ROWS, words * COLUMNS), np.float32)
    within = near[0] == far[0]
    for p in range(near[0], min(near[1], n), ROWS):
        skipped = (p - near[0]) // COLUMNS if within else 0
        for w in range(skipped, words):
            _compare(rows, floor, p, far[0] + w * COLUMNS, similar, word, w * COLUMNS)
        for r in range(min(ROWS, n - p)):
            a = p + r
            if order[a] < 0:
                continue
            if within and itself[a] >= floor[a] and count[a] == index.shape[1]:
                make_room(a, k, slack, floor, count, index, value)
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
                    if b >= n or order[b] < 0 or (within and b <= a):
                        continue
                    # Written out twice: handing the arrays to a function costs more than the work.
                    if similar[r, c] >= floor[a]:
                        if count[a] == index.shape[1]:
                            make_room(a, k, slack, floor, count, index, value)
                        if similar[r, c] >= floor[a]:
                            index[a, count[a]] = order[b]
                            value[a, count[a]] = similar[r, c]
                            count[a] += 1
                    if similar[r, c] >= floor[b]:
                        if count[b] == index.shape[1]:
                            make_room(b, k, slack, floor, count, index, value)
                        if similar[r, c] >= floor[b]:
                            index[b, count[b]] = order[a]
                            value[b, count[b]] = similar[r, c]
                            count[b] += 1


@kernel()
def offer_led(
    n, rows, lead, code, least, gap, most, order, k, slack, itself, near, far, floor, count, index, value
):
    """What `offer` does for two different windows, by leading numbers first.

    Args:
        lead: `Rows` of fewer numbers, whose products are never smaller than those of all, but for errors.
        code: (n, w) int8, the numbers of `rows` row by row.
        least: (p COLUMNS,) float32, floors for those products. gap: (n,) float32, how far below `floor`.
        most: pairs left of ROWS rows above which the rest of the windows is compared by all numbers.
    """
    words = (far[1] - far[0]) // COLUMNS
    word = np.empty((ROWS, words), np.uint32)
    similar = np.empty((ROWS, words * COLUMNS), np.float32)
    steps = code.shape[1] // AT_ONCE
    for p in range(near[0], min(near[1], n), ROWS):
        for w in range(words):
            _compare(lead, least, p, far[0] + w * COLUMNS, similar, word, w * COLUMNS)
        left = 0
        for r in range(min(ROWS, n - p)):
            a = p + r
            if order[a] < 0:
                continue
            here = code[a].ctypes.data
            for w in range(words):
                bits = word[r, w]
                while bits:
                    b = far[0] + w * COLUMNS + trailing_zeros(bits)
                    bits &= bits - np.uint32(1)
                    if b >= n or order[b] < 0:
                        continue
                    left += 1
                    total = product(here, code[b].ctypes.data, steps, rows.start[a])
                    similarity = np.float32(total) * (rows.scale[a] * rows.other[b])
                    # Written out for both, as in `offer`.
                    if similarity >= floor[a]:
                        if count[a] == index.shape[1]:
                            make_room(a, k, slack, floor, count, index, value)
                            least[a] = floor[a] - gap[a]
                        if similarity >= floor[a]:
                            index[a, count[a]] = order[b]
                            value[a, count[a]] = similarity
                            count[a] += 1
                    if similarity >= floor[b]:
                        if count[b] == index.shape[1]:
                            make_room(b, k, slack, floor, count, index, value)
                            least[b] = floor[b] - gap[b]
                        if similarity >= floor[b]:
                            index[b, count[b]] = order[a]
                            value[b, count[b]] = similarity
                            count[b] += 1
        if left > most and p + ROWS < near[1]:
            rest = (p + ROWS, near[1])
            offer(n, rows, order, k, slack, itself, rest, far, floor, count, index, value)
            for a in range(near[0], min(near[1], n)):
                least[a] = floor[a] - gap[a]
            for b in range(far[0], min(far[1], n)):
                least[b] = floor[b] - gap[b]
            return


@kernel()
def close(n, rows, least, near, far, i, j):
    """Pairs of two windows whose products reach their floors.

    Args:
        least: (p COLUMNS,) float32. near, far: as for `offer`; the same twice for the pairs within one.
        i, j: (m,) int32, filled with the places of each pair.

    Returns:
        How many pairs there are: where they are more than m, those beyond are not written.
    """
    found = 0
    words = (far[1] - far[0]) // COLUMNS
    word = np.empty((ROWS, words), np.uint32)
    similar = np.empty((ROWS, words * COLUMNS), np.float32)
    within = near[0] == far[0]
    for p in range(near[0], min(near[1], n), ROWS):
        for w in range(words):
            _compare(rows, least, p, far[0] + w * COLUMNS, similar, word, w * COLUMNS)
        for r in range(min(ROWS, n - p)):
            for w in range(words):
                bits = word[r, w]
                while bits:
                    b = far[0] + w * COLUMNS + trailing_zeros(bits)
                    bits &= bits - np.uint32(1)
                    if b >= n or (within and b <= p + r):
                        continue
                    if found < len(i):
                        i[found] = p + r
                        j[found] = b
                    found += 1
    return found
