"""Heads of rows: where they lie along the few directions that hold most of them, in 8 bits.

Features of a trained network lie mostly along a few directions. With a = Vᵀr along L of them, and the length
of what they leave, ‖r − Va‖, a query's product with a row is known to within that of what is left of both:

    q·r  =  (Vᵀq)·a + (q − VVᵀq)·(r − Va)  ≤  (Vᵀq)·a + ‖q − VVᵀq‖ ‖r − Va‖

by Cauchy and Schwarz. `core.scan` reads heads first: an eighth of the bytes of 8-bit rows, or less, and the
rows themselves only where this bound leaves them in.

Source: filters by partial products and the norms of the rest are known from the search for inner products,
e.g. Teflioudi, Gemulla, "Exact and approximate maximum inner product search with LEMP", TODS 2016.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tracklearn.types import Array

WIDTHS = (32, 48, 64, 96, 128, 192)  # numbers of directions to choose from
SAMPLE = 8192  # rows that directions and their worth are read off
_PROBES = 256  # of them, whose neighbours among them are looked at
_ROUNDS = 3  # of subspace iteration
# In bytes of a scan: what a row costs beside its numbers, and what one number of a row that is left in costs,
# which lies somewhere in memory.
_BESIDE, _LEFT = 16, 10.0
_PAYS = 0.6  # of reading all 8-bit rows, at most


@dataclass(frozen=True, eq=False)
class Directions:
    """Along what heads lie.

    Args:
        axes: (d, L) float32, nearly orthonormal columns.
        skew: a bound of |VᵀV − 1|.
    """

    axes: Array
    skew: float

    @classmethod
    def of(cls, axes: Array) -> Directions:
        """Those of some columns."""
        exact = axes.astype(np.float64)
        return cls(axes, float(np.linalg.norm(exact.T @ exact - np.eye(axes.shape[1]))) + 1e-12)


@dataclass(frozen=True, eq=False)
class QueryHead:
    """A query along the directions of a set of heads.

    Args:
        code: (L,) int16, coordinates in steps of `step`, off by `error` together.
        length: of the coordinates. rest: of what they leave of the query.
        skew: of the directions.
    """

    code: Array
    step: float
    error: float
    length: float
    rest: float
    skew: float


def directions(rows: Array, n: int) -> Array:
    """(d, n) float32, nearly orthonormal columns that hold about as much of the rows as n columns can.

    By subspace iteration; the columns that hold most come first. The same for equal rows.
    """
    rng = np.random.default_rng(0)
    found = rng.standard_normal((rows.shape[1], n)).astype(np.float32)
    for _ in range(_ROUNDS):
        found = np.linalg.qr(rows.T @ (rows @ found))[0]
    along = rows @ found
    turn = np.linalg.eigh((along.T @ along).astype(np.float64))[1][:, ::-1]
    return np.linalg.qr(found.astype(np.float64) @ turn)[0].astype(np.float32)


def choose(sample: Array, n: int, *, k: int = 10) -> Directions | None:
    """The directions whose heads make a scan cheapest; None where they do not pay.

    Args:
        sample: (s, d) float32 rows of about unit length, drawn from the n that are to be scanned.
        n: rows that are to be scanned.
        k: neighbours that are asked for.
    """
    s, width = sample.shape
    widths = [w for w in WIDTHS if 2 * w <= width]
    if not widths or s < 4 * widths[-1]:
        return None
    axes = directions(sample, widths[-1])
    probe = np.linspace(0, s - 1, min(s, _PROBES)).astype(np.int64)
    exact = sample[probe] @ sample.T
    exact[np.arange(len(probe)), probe] = -np.inf
    wanted = _as_near(exact, k * s / n)[:, None]
    along = sample @ axes
    held = np.cumsum(np.square(along), axis=1)
    best, found = _PAYS * (width + _BESIDE), None
    for w in widths:
        rest = np.sqrt(np.maximum(1 - held[:, w - 1], 0))
        rounding = np.abs(along[:, :w]).max(1) / 127 * math.sqrt(w / 12)
        bound = along[probe, :w] @ along[:, :w].T + np.outer(rest[probe], rest) + rounding
        cost = w + _BESIDE + _LEFT * width * float((bound >= wanted).mean())
        if cost < best:
            best, found = cost, axes[:, :w]
    return None if found is None else Directions.of(np.ascontiguousarray(found))


def _as_near(product: Array, rank: float) -> Array:
    """(p,) what the rank-th largest of each row of products is about, where the rank may be below 1.

    Then it is drawn on from the 8th and the 1st: products are about even in the logarithm of the rank.
    """
    at = max(1, round(rank))
    nearest = np.partition(product, (-at, -8), axis=1)
    found = nearest[:, -at]
    if rank < 1:
        found = found + (found - nearest[:, -8]) * (math.log(1 / rank) / math.log(8))
    return np.minimum(found, 1.0)


def encode(rows: Array, along: Directions) -> tuple[Array, Array]:
    """Heads of rows as 8-bit numbers, and how far off these are.

    Args:
        rows: (n, d) float32, of length 1 to 1e-3.
        along: d by L.

    Returns:
        code (n, L) int8 and bound (n, 4) float32: the scale s of each row, a bound of |Vᵀr − s·code|, a bound
        of |r − VVᵀr|, and |r|²/2.

    Memory: a few float64 copies of `rows`: give it blocks.
    """
    exact = rows.astype(np.float64)
    place = exact @ along.axes
    scale = np.maximum((np.abs(place).max(1) / 127).astype(np.float32), np.float32(1e-30))
    code = np.clip(np.rint(place / scale[:, None]), -127, 127)
    off = np.linalg.norm(place - code * scale[:, None].astype(np.float64), axis=1)
    whole, held = np.square(exact).sum(1), np.square(place).sum(1)
    # |r − Va|² = |r|² − 2 |a|² + aᵀVᵀVa, and VᵀV is the identity up to the skew.
    rest = np.sqrt(np.maximum(whole - (1 - along.skew) * held, 0) + 1e-12)
    bound = np.stack([scale, _up(off), _up(rest), (whole / 2).astype(np.float32)], 1)
    return code.astype(np.int8), bound.astype(np.float32)


def of_query(query: Array, along: Directions) -> QueryHead:
    """A query (d,) float32 of length 1 to 1e-3, along the directions of heads."""
    exact = query.astype(np.float64)
    place = exact @ along.axes
    # Of int32 sums of int8 × int16 none may run over: |code| ≤ 127, and the steps of the query are chosen so.
    step = max(np.abs(place).max() / 32767, np.abs(place).sum() / 1.6e7, 1e-30)
    code = np.rint(place / step).astype(np.int16)
    return QueryHead(
        code=code,
        step=float(step),
        error=float(np.linalg.norm(place - code * step)) + 1e-12,
        length=float(np.linalg.norm(place)),
        rest=float(np.linalg.norm(exact - along.axes @ place)) + 1e-12,
        skew=along.skew,
    )


def reach(
    code: Array, bound: Array, of_query: QueryHead, out: Array, *, allowed: Array | None = None
) -> None:
    """Fills `out` (n,) float32 with what the score q·r − |r|²/2 of each row cannot exceed, by its head.

    Args:
        code: (n, L) int8, bound: (4, n) float32, of `encode`, the columns of its bound as rows.
        of_query: the query along the same directions.
        allowed: (n,) bool, rows that count; the others get −inf. None for all.
    """
    from tracklearn.core.kernels.scan import reach as fill

    extra = 1.01 * of_query.length * of_query.skew + 1e-7
    some = np.zeros(0, bool) if allowed is None else allowed
    fill(
        code, bound, of_query.code, of_query.step, of_query.error, of_query.length, of_query.rest,
        extra, some, out,
    )  # fmt: skip


def _up(values: Array) -> Array:
    return np.nextafter((values * (1 + 1e-9)).astype(np.float32), np.float32(np.inf))
