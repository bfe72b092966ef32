"""The nearest rows of a matrix that is read block by block: what a block adds to what was found before.

Blocks of float32 rows are scored by products (`merge`), blocks of 8-bit rows by 8-bit ones (`Scan`), after
their heads where there are some; all find what brute force in float64 finds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tracklearn.core.features import product_error
from tracklearn.types import Array


def merge(
    query: Array,
    rows: Array,
    score: Array,
    offset: int,
    index: Array,
    distance: Array,
    *,
    group: Array | None = None,
) -> None:
    """Merge a block's best into what one query has found so far, in place; exact by the Euclidean distance.

    Args:
        query: (d,) float32, of length 1 to 1e-3.
        rows: (n, d) float32, the block, likewise.
        score: (n,) float32, q·r − |r|²/2, which is larger for nearer rows; −inf leaves a row out.
        offset: number of the block's first row.
        index, distance: (k,) int64 and float64, nearest first, ties to the lower row; −1 and inf where
            there is none.
        group: (t,) int, the group of every row, of which only the nearest row is kept; None keeps all.

    Memory: O(n d) at most, where whole groups of the block are near.
    """
    k = len(index)
    floor = _floor(score, k, None if group is None else group[offset : offset + len(score)])
    if np.isfinite(distance[-1]):  # nothing farther than the worst kept so far can enter
        squared = float(np.square(query, dtype=np.float64).sum())
        floor = max(floor, (squared - float(distance[-1]) ** 2) / 2)
    near = np.flatnonzero((score >= floor - slack(len(query))) & (score > -np.inf))
    if len(near):
        _settle(query, rows[near], near + offset, index, distance, group)


def _settle(
    query: Array, rows: Array, number: Array, index: Array, distance: Array, group: Array | None
) -> None:
    """Measure some rows, (m, d) of these numbers (m,), in float64, and keep what is nearest, in place."""
    k = len(index)
    exact = np.linalg.norm(rows.astype(np.float64) - query, axis=1)
    kept = index >= 0
    all_rows = np.concatenate([index[kept], number])
    all_distances = np.concatenate([distance[kept], exact])
    order = np.lexsort((all_rows, all_distances))
    if group is not None:
        _, first = np.unique(group[all_rows[order]], return_index=True)
        order = order[np.sort(first)]
    order = order[:k]
    index[: len(order)] = all_rows[order]
    distance[: len(order)] = all_distances[order]


def _floor(score: Array, k: int, group: Array | None) -> float:
    """A score that k rows reach, of k groups where these are given; −inf where there are fewer.

    Twice as many rows are looked at each time that they are of too few groups.
    """
    wanted = k
    while wanted < len(score):
        floor = float(np.partition(score, len(score) - wanted)[len(score) - wanted])
        if group is None or floor == -np.inf or len(np.unique(group[score >= floor])) >= k:
            return floor
        wanted *= 2
    return -np.inf


def slack(width: int) -> float:
    """How far two scores of rows of that width can stand in the wrong order.

    Each errs by the rounding of its product, and by that of the half squared length and of their difference,
    both below 1.1 and rounded to float32. Lengths are 1 to 1e-3, which the factor covers.
    """
    return 2 * (1.01 * product_error(width) + 4 * 2.0**-24)


def quantise(rows: Array) -> tuple[Array, Array]:
    """Rows as 8-bit numbers, and how far off these are.

    Args:
        rows: (n, d) float32, of length 1 to 1e-3.

    Returns:
        code (n, d) int8 and bound (n, 3) float32: the scale s of each row, a bound of |r − s·code|, which is
        rounded up, and |r|²/2.

    Memory: a few float64 copies of `rows`: give it blocks.
    """
    exact = rows.astype(np.float64)
    scale = (np.abs(exact).max(1) / 127).astype(np.float32)
    scale = np.maximum(scale, np.float32(1e-30))
    code = np.clip(np.rint(exact / scale[:, None]), -127, 127)
    off = np.linalg.norm(exact - code * scale[:, None].astype(np.float64), axis=1)
    half = np.square(exact).sum(1) / 2
    error = np.nextafter((off * (1 + 1e-9)).astype(np.float32), np.float32(np.inf))
    return code.astype(np.int8), np.stack([scale, error, half.astype(np.float32)], 1).astype(np.float32)


_NONE = np.zeros(0, bool)
_SAMPLED = 1 << 14  # values that a large one of many is guessed from
_AT_ONCE = 1 << 16  # 8-bit rows in memory at a time


def _about(values: Array, n: int) -> float:
    """A value that about n of these values reach, from some of them, evenly spaced."""
    some = values[:: max(1, len(values) // _SAMPLED)]
    at = max(1, min(len(some), round(n * len(some) / len(values))))
    return float(np.partition(some, len(some) - at)[len(some) - at])


def _picked(rows: Callable[[Array], Array], number: Array) -> Callable[[Array], Array]:
    return lambda found: rows(number[found])


class Scan:
    """One query on its way through blocks of 8-bit rows; the answer is that of `merge` on the rows
    themselves.

    Every row's score is known to within a bound that no rounding exceeds (Cauchy-Schwarz on what was rounded
    away); the rows that may be among the k nearest are measured in float64.

    Args:
        query: (d,) float32, of length 1 to 1e-3.
        k: how many rows are wanted.
        grouped: only the nearest row of each group counts.
    """

    def __init__(self, query: Array, k: int, *, grouped: bool = False) -> None:
        exact = query.astype(np.float64)
        # Of int32 sums of int8 × int16 none may run over: |code| ≤ 127, and the steps of the query are chosen
        # so.
        self.scale = max(np.abs(exact).max() / 32767, np.abs(exact).sum() / 1.6e7, 1e-30)
        self.code = np.rint(exact / self.scale).astype(np.int16)
        self.error = float(np.linalg.norm(exact - self.code * self.scale)) + 1e-12
        self.query, self.length = query, float(np.linalg.norm(exact))
        self.grouped = grouped
        self.index = np.full(k, -1, np.int64)
        self.distance = np.full(k, np.inf)
        self._best = np.full(k, -np.inf)
        self._whose = np.full(k, -1, np.int64)

    def block(
        self,
        code: Array,
        bound: Array,
        rows: Callable[[Array], Array],
        offset: int,
        *,
        allowed: Array | None = None,
        group: Array | None = None,
    ) -> None:
        """Take in a block.

        Args:
            code: (n, d) int8, bound: (n, 3) float32, as of `quantise`.
            rows: numbers in the block -> their rows, float32.
            offset: number of the block's first row.
            allowed: (n,) bool, the rows that may be found; None for all.
            group: (t,) int64, the group of every row of all blocks.
        """
        self._look(code, bound, rows, np.arange(offset, offset + len(code)), allowed, group)

    def heads(
        self,
        upper: Array,
        coded: Callable[[Array], tuple[Array, Array]],
        rows: Callable[[Array], Array],
        offset: int,
        *,
        group: Array | None = None,
    ) -> None:
        """Take in rows of whose score an upper bound is known, of 8 bits only those that it leaves in.

        Args:
            upper: (n,) float32, as of `heads.reach`; −inf for rows that may not be found. Changed.
            coded: numbers among these rows -> their 8-bit rows and bounds, as of `quantise`.
            rows: numbers -> their rows, float32.
            offset: number of the first of these rows among all.
            group: (t,) int64, the group of every row of all.
        """
        wanted = 4 * len(self.index)
        while wanted < len(upper):
            # The likeliest are measured first: few of the others come near them.
            first = np.flatnonzero(upper >= max(_about(upper, wanted), np.finfo(np.float32).min))
            if len(first):
                _settle(self.query, rows(first), first + offset, self.index, self.distance, group)
                upper[first] = -np.inf
            if np.isfinite(self.distance[-1]) or not len(first):
                break
            wanted *= 4
        near = np.flatnonzero((upper >= self._floor()) & (upper > -np.inf))
        for lo in range(0, len(near), _AT_ONCE):
            some = near[lo : lo + _AT_ONCE]
            self._look(*coded(some), _picked(rows, some), some + offset, None, group)

    def _floor(self) -> float:
        """A score below which nothing is among the nearest."""
        if not np.isfinite(self.distance[-1]):
            return -np.inf
        return (self.length**2 - float(self.distance[-1]) ** 2) / 2 - 1e-9

    def _look(
        self,
        code: Array,
        bound: Array,
        rows: Callable[[Array], Array],
        number: Array,
        allowed: Array | None,
        group: Array | None,
    ) -> None:
        """Take in 8-bit rows of these numbers (n,) among all."""
        from tracklearn.core.kernels.scan import nearby

        n = len(code)
        upper, near = np.empty(n), np.empty(n, np.int64)
        own = np.zeros(0, np.int64) if group is None else np.ascontiguousarray(group[number])
        count, _ = nearby(
            code, bound, self.code, self.scale, self.error, self.length,
            _NONE if allowed is None else allowed, own, self._floor(), self._best, self._whose, upper, near,
        )  # fmt: skip
        if count:
            found = near[:count]
            _settle(self.query, rows(found), number[found], self.index, self.distance, group)
