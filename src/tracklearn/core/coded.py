"""Who may be the nearest rows of every row, by 8-bit products that are compared where they arise.

Rows are rotated and rounded to 8 bits, up or down at random, so that the error of a product is a sum of
independent errors of mean 0 that Hoeffding's inequality bounds. They are put into an order in which near rows
stand together. Then each row has a floor at once, by what its own window holds, and pairs of windows are
compared in turn, the nearest first, so that floors are high when far windows come. A product that reaches no
floor is written nowhere (`kernels.products`).

Where rows are many and spread along few directions, the far windows are compared by leading numbers first:
places along those directions, and what is left of the length. They bound a product, and only pairs whose
bound reaches a floor are multiplied out.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition
from typing import TYPE_CHECKING

import numpy as np

from tracklearn.core.features import product_error
from tracklearn.core.threads import each, n_threads
from tracklearn.types import Array

if TYPE_CHECKING:
    from tracklearn.core.kernels import coded as kernels

WINDOW = 512  # rows, whole panels: two windows of 512 numbers a row fit into a core's cache
_FEW = 2_000  # rows below which the order and its floors cost more than they spare
_PER_CENTRE, _CENTRES = 128, 1024  # rows to one of those that tell who stands together, and most of these
_ROOM = 6  # times k: candidates of a row that are kept
_RAISED = 0.15  # share of the pairs of windows after which floors are raised by what was found
_PASSED = 256  # pairs that are put off at most while others go on
_LEADING, _SAMPLE = 128, 1280  # leading numbers, and the rows that their axes are found by
# Where they are of use: the share of squared length that lies along no axis; rows times their numbers beyond
# so many; the share of pairs that may be left.
_REST, _ALL_ALONG, _MANY, _LEFT = 0.4, 200, 10_000_000, 0.25
ALIKE = 0.01  # share of rows whose lists may overflow before all are compared by float32
_DOUBT = 1e-12  # chance that rounding at random hides a neighbour anywhere in the set


@dataclass(frozen=True, eq=False)
class Candidates:
    """Rows in an order, each with those that may be its nearest.

    Args:
        order: (n,) int64, which row stands where.
        proposed: in that order: slack (n,) float32, twice what similarities of a row can be off; count (n,)
            int64, −1 for rows that have too many; candidate (n, c) int32, rows; value (n, c) float32.
    """

    order: Array
    proposed: tuple[Array, Array, Array, Array]


def possible(n: int, width: int) -> bool:
    """Whether it is worth it for so many rows of such a width, and this processor can."""
    from tracklearn.core.kernels.products import available

    return n >= _FEW and width >= 8 and available


def candidates(features: Array, k: int, *, exclude_self: bool = False) -> Candidates | None:
    """Those of unit rows (n, d) float32, n ≥ k ≥ 1: all of the k nearest are among them.

    None where the nearest of many rows lie closer together than 8 bits tell, as before a network has learned:
    lists would not hold them.

    Memory: n (d + 8 (6 k + 32) + 40) bytes, 50 (n / 512)² and 4 MB a thread; n (d + 640) more with leading
    numbers.
    """
    return _Search(features).nearest(k, exclude_self=exclude_self)


def nearest_and_farthest(features: Array, k: int) -> tuple[Candidates, Candidates] | None:
    """`candidates`, and those for the farthest row of each, by their similarity to its opposite, −x.

    None where either are too many.
    """
    search = _Search(features)
    far = search.farthest()  # first: where it is in vain, that is known after the first pairs of windows
    near = None if far is None else search.nearest(k)
    return None if near is None or far is None else (near, far)


class _Search:
    """Rows in 8 bits, in their order, and the windows that are compared."""

    def __init__(self, features: Array) -> None:
        n, width = features.shape
        self.features = features
        self.order = _together(features)
        self.axes = axes_of(features)
        self.rows, self.code = encoded(features, self.order, by_row=self.axes is not None)
        self.error = errors(self.rows.scale[:n], width)
        self.edge = [*range(0, n, WINDOW), len(self.rows.scale)]
        self.pairs = _nearest_first(features, self.order, self.edge)

    def nearest(self, k: int, *, exclude_self: bool = False) -> Candidates | None:
        """As `candidates`."""
        itself = None if exclude_self else np.einsum("ij,ij->i", self.features, self.features)[self.order]
        return self._found(k, self.rows, self.pairs, itself, self.axes)

    def farthest(self) -> Candidates | None:
        """Those of each row that may be the nearest to its opposite."""
        opposite = self.rows._replace(other=-self.rows.scale)
        return self._found(1, opposite, self.pairs[::-1], None, None)

    def _found(
        self, k: int, rows: kernels.Rows, pairs: Array, itself: Array | None, axes: Array | None
    ) -> Candidates | None:
        """Compare the windows; `itself` (n,) of each row, None where it is not among those it looks for."""
        from tracklearn.core.kernels import coded as kernels

        n, order, edge = len(self.features), self.order, self.edge
        slack = 2 * self.error
        # They are read by whole panels, past the last row too: nothing reaches the floors there.
        floor = np.full(len(rows.scale), np.inf, np.float32)
        room = min(n, _ROOM * k + 32)
        candidate, value = np.empty((n, room), np.int32), np.empty((n, room), np.float32)
        count = np.zeros(n, np.int64)
        held = k, slack, np.full(n, -np.inf, np.float32) if itself is None else itself
        lists = floor, count, candidate, value

        def begin(w: int) -> None:
            kernels.first_floors(n, rows, *held, edge[w], edge[w + 1], floor)

        def offer(a: int, b: int) -> None:
            kernels.offer(n, rows, order, *held, (edge[a], edge[a + 1]), (edge[b], edge[b + 1]), *lists)

        windows = range(len(edge) - 1)
        each(begin, windows)
        each(lambda w: offer(w, w), windows)
        first = int(_RAISED * len(pairs))
        apart(pairs[:first], offer)
        _in_parts(n, lambda lo, hi: kernels.tighten(k, slack, lo, hi, floor, count, candidate, value))
        if (count < 0).sum() > ALIKE * n:
            return None
        if axes is None:
            apart(pairs[first:], offer)
            return Candidates(order, (slack, count, candidate, value))

        led, off = led_by(axes, self.features, order)
        # Whom a row must find has a product of at least floor + error with it, and by leading numbers less by
        # at most `off`.
        gap = off - self.error
        least = floor.copy()
        least[:n] -= gap

        def offer_led(a: int, b: int) -> None:
            both = (edge[a], edge[a + 1]), (edge[b], edge[b + 1])
            kernels.offer_led(n, rows, led, self.code, least, gap, most_left(), order, *held, *both, *lists)

        apart(pairs[first:], offer_led)
        return Candidates(order, (slack, count, candidate, value))


def encoded(features: Array, order: Array, *, by_row: bool = False) -> tuple[kernels.Rows, Array]:
    """Rows in 8 bits, and the same row by row.

    Args:
        features: (n, d) float32 unit rows. order: (m,) int64, which row stands where; −1 for none.

    Returns:
        Rows of m places in whole panels; (m, w) int8, with w = 0 unless asked for `by_row`.
    """
    from tracklearn.core.kernels import coded as kernels
    from tracklearn.core.kernels.products import AT_ONCE, COLUMNS

    n, width = len(order), features.shape[1]
    panels = -(-n // COLUMNS)
    scale = np.zeros(panels * COLUMNS, np.float32)
    rows = kernels.Rows(
        _aligned((panels, -(-width // 4), COLUMNS, 4)), scale, np.zeros(panels * COLUMNS, np.int32), scale
    )
    code = _aligned((n, -(-width // AT_ONCE) * AT_ONCE if by_row else 0))
    block = width & -width  # the largest power of two that divides it
    _in_parts(n, lambda lo, hi: kernels.encode(features, order, block, lo, hi, rows, code))
    return rows, code


def axes_of(features: Array) -> Array | None:
    """(d, _LEADING − 1) float32, orthonormal, along which the rows spread most; None where it is of no use.

    By one step of subspace iteration on a sample (Halko, Martinsson, Tropp, "Finding structure with
    randomness", 2011). They need not be the best: any orthonormal ones give bounds.
    """
    n, width = features.shape
    if width <= _LEADING or n * (width - _ALL_ALONG) < _MANY:
        return None
    sample = features[np.linspace(0, n - 1, _SAMPLE).astype(np.int64)]
    judged, sample = sample[::5], sample[np.arange(_SAMPLE) % 5 > 0]
    found = np.random.default_rng(0).standard_normal((width, _LEADING + 16), dtype=np.float32)
    found = (sample.T @ (sample @ found)).astype(np.float64)
    # Its columns made orthonormal, then turned to where the sample spreads most.
    value, turn = np.linalg.eigh(found.T @ found)
    found = (found @ (turn / np.sqrt(np.maximum(value, value[-1] * 1e-12)))).astype(np.float32)
    along = (sample @ found).astype(np.float64)
    turn = np.linalg.eigh(along.T @ along)[1][:, 1 - _LEADING :]
    axes = np.linalg.qr(found @ turn)[0].astype(np.float32)
    left = 1 - np.square(judged @ axes).sum(1).mean()
    return axes if left < _REST else None


def led_by(axes: Array, features: Array, order: Array) -> tuple[kernels.Rows, Array]:
    """Rows by their places along axes and, as a last number, what is left of their length.

    With a = Vᵀx and r² = ‖x‖² − ‖a‖², x·y ≤ a·b + r s: the product of these is never smaller, but for errors.

    Args:
        axes: of `axes_of`. features, order: as for `encoded`.

    Returns:
        The rows, and (m,) float32, how far off their products can be.
    """
    n, width = features.shape
    place = np.empty((n, _LEADING), np.float32)
    # At worst: of float32 sums along all axes together and of lengths, and of axes not quite orthonormal.
    off = 1.2 * product_error(width) * math.sqrt(_LEADING) + 2e-5

    def work(lo: int, hi: int) -> None:
        rows = features[lo:hi]
        along = rows @ axes
        place[lo:hi, :-1] = along
        left = np.einsum("ij,ij->i", rows, rows) - np.einsum("ij,ij->i", along, along)
        place[lo:hi, -1] = np.sqrt(np.maximum(left, 0) + 2 * off)

    _in_parts(n, work)
    rows, _ = encoded(place, order)
    return rows, errors(rows.scale[: len(order)], _LEADING, 1.001 + off) + np.float32(2 * off)


def most_left() -> int:
    """Pairs of a block's rows with a window that leading numbers may leave, or all numbers are multiplied."""
    from tracklearn.core.kernels.products import ROWS

    return int(_LEFT * ROWS * WINDOW)


def errors(scale: Array, width: int, longest: float = 1.001) -> Array:
    """(n,) float32, how far off the similarities of each row can be, but for a chance of 1e-12 anywhere.

    Args:
        scale: (n,) float32, step of each row. width: numbers of a row. longest: length of a row at most.
    """
    n = len(scale)
    # x·y is off by a sum of independent errors of mean 0, each in an interval as wide as the scale of x
    # times |y_c|, and likewise for y with the rounded x, whose length is at most `length`.
    coarsest = float(scale.max())
    length = longest + coarsest * math.sqrt(width)
    spread = np.square(scale.astype(np.float64) * longest) + (coarsest * length) ** 2
    # Half of the doubt is for leading numbers.
    error = np.sqrt(math.log(2 * n * max(n, 2) / _DOUBT) / 2 * spread)
    # Chances are multiples of 2^-16, and added to numbers below 128 in float32: the mean is off by less.
    bias = 2.0**-15 * coarsest * math.sqrt(width) * (1 + length)
    # Float32 in the rotation, up to log2(width) additions deep, in the scales, and in the products.
    rounding = (2 * math.log2(width) + 14 + 4 * length**2) * 2.0**-24
    return (error + bias + rounding + 1e-9).astype(np.float32)


def _in_parts(n: int, work: Callable[[int, int], None]) -> None:
    step = min(1024, -(-n // n_threads()))
    each(lambda lo: work(lo, min(n, lo + step)), range(0, n, step))


def _aligned(shape: tuple[int, ...]) -> Array:
    """Zeros of int8 at a multiple of 64, as whole registers are read."""
    size = math.prod(shape)
    raw = np.zeros(size + 64, np.int8)
    first = -raw.ctypes.data % 64
    return raw[first : first + size].reshape(shape)


def _together(features: Array) -> Array:
    """(n,) int64, the rows in an order in which near ones stand together.

    Each goes to the nearest of some of them, and these follow one another like neighbours in a chain.
    """
    n = len(features)
    centre = features[np.linspace(0, n - 1, max(1, min(_CENTRES, n // _PER_CENTRE))).astype(np.int64)]
    near = centre @ centre.T
    left = np.zeros(len(centre), np.float32)
    at, chain = 0, []
    for _ in range(len(centre)):
        chain.append(at)
        left[at] = -np.inf
        at = int(np.argmax(near[at] + left))
    centre = np.ascontiguousarray(centre[chain].T)
    own = np.empty(n, np.int32)

    def assign(lo: int, hi: int) -> None:
        own[lo:hi] = (features[lo:hi] @ centre).argmax(1)

    _in_parts(n, assign)
    return np.argsort(own, kind="stable")


def apart(pairs: Array, work: Callable[[int, int], None]) -> None:
    """Work on pairs of windows, about in their order, and on no window by two threads at once."""
    free, changed = set(np.unique(pairs).tolist()), Condition()
    passed: deque[tuple[int, int]] = deque()  # pairs whose turn came while one of their windows was taken
    coming = ((int(a), int(b)) for a, b in pairs)

    def taken() -> tuple[int, int] | None:
        """The next pair that is free; None where all are done or begun."""
        while True:
            for _ in range(len(passed)):
                a, b = passed.popleft()
                if a in free and b in free:
                    return a, b
                passed.append((a, b))
            while len(passed) < _PASSED and (pair := next(coming, None)) is not None:
                a, b = pair
                if a in free and b in free:
                    return a, b
                passed.append((a, b))
            if not passed:
                return None
            changed.wait()

    def run(_: int) -> None:
        while True:
            with changed:
                pair = taken()
                if pair is None:
                    return
                free.difference_update(pair)
            try:
                work(*pair)
            finally:
                with changed:
                    free.update(pair)
                    changed.notify_all()

    each(run, range(n_threads()))


def _nearest_first(features: Array, order: Array, edge: list[int]) -> Array:
    """(m, 2) all pairs of two windows, by the products of their means."""
    n, windows = len(features), len(edge) - 1
    # An eighth of the rows tells it.
    mean = np.stack([features[order[edge[w] : min(n, edge[w + 1]) : 8]].mean(0) for w in range(windows)])
    a, b = np.triu_indices(windows, 1)
    by_product = np.argsort(-(mean @ mean.T)[a, b], kind="stable")
    return np.stack([a[by_product], b[by_product]], 1)
