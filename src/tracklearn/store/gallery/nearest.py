"""The nearest rows of a gallery's segments, exactly: heads, 8-bit rows or products first, float64 at last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tracklearn.core.heads import of_query, reach
from tracklearn.core.scan import Scan, merge
from tracklearn.store.gallery.segment import Segment
from tracklearn.types import Array, Matches, Refusal

_BLOCK_VALUES = 2**22  # gallery values scored at a time: 32 MB when a block is compared in float64
_CODED_ROWS = 2**16  # 8-bit rows looked at by one query at a time
_HEADS = 2**15  # heads looked at by all queries in turn: they stay in a core's cache
_QUERIES = 256  # queries scored at a time
_FEW = 4  # queries that read 8-bit rows; more are faster in one float32 product
_SOME = 64  # queries that read heads, likewise
_TOGETHER = 16  # of them at a time


def nearest(
    segments: Sequence[Segment],
    query: Array,
    k: int,
    *,
    wanted: Array | None,
    exclude: Array,
    group: Array | None,
    halves: dict[tuple[int, int], Array],
) -> Matches:
    """The k nearest rows of each query, nearest first; equal distances by the lower row.

    Args:
        segments: of t rows together, numbered one after the other.
        query: (q, d) unit float32.
        k: number of neighbours.
        wanted: (t,) bool, rows that may be found; None for all.
        exclude: (q, e) int64, rows left out for each query, t for none; see `exclusions`.
        group: (t,) int64, of each group only its nearest row is found; None for all.
        halves: half the squared lengths of rows, kept here from search to search.

    Returns:
        Matches of shape (q, k); −1 and inf fill up where fewer than k rows are left.

    Memory: one block of scores and features, whatever t is; with heads 4 bytes a row and query, 16 at a time.
    """
    scans = [Scan(each, k) for each in query]
    start = 0
    for segment in segments:
        if segment.along is not None and len(query) <= _SOME:
            for q0 in range(0, len(query), _TOGETHER):
                some = slice(q0, q0 + _TOGETHER)
                _scan_heads(segment, start, scans[some], wanted, exclude[some], group)
        elif segment.code is not None and len(query) <= _FEW:
            _scan_coded(segment, start, scans, wanted, exclude, group)
        else:
            _scan_rows(segment, start, query, scans, wanted, exclude, group, halves)
        start += len(segment)
    index = np.array([scan.index for scan in scans], np.int64).reshape(len(query), k)
    distance = np.array([scan.distance for scan in scans]).reshape(len(query), k)
    return Matches(index, distance.astype(np.float32))


def _scan_rows(
    segment: Segment,
    start: int,
    query: Array,
    scans: Sequence[Scan],
    wanted: Array | None,
    exclude: Array,
    group: Array | None,
    halves: dict[tuple[int, int], Array],
) -> None:
    """Score a set's float32 rows against all queries, block by block."""
    block = max(1, _BLOCK_VALUES // query.shape[1])
    for lo in range(0, len(segment), block):
        rows = segment.rows(lo, min(lo + block, len(segment)))
        g0 = start + lo
        half = _half_squared_lengths(g0, rows, halves)
        for q0 in range(0, len(query), _QUERIES):
            # The order of the distances: |q − r|² = |q|² − 2 (q·r − |r|²/2). Rows are unit to 1e-3 only.
            score = query[q0 : q0 + _QUERIES] @ rows.T - half
            if wanted is not None:
                score[:, ~wanted[g0 : g0 + len(rows)]] = -np.inf
            for i, line in enumerate(score, start=q0):
                here = exclude[i] - g0
                line[here[(here >= 0) & (here < len(rows))]] = -np.inf
                merge(query[i], rows, line, g0, scans[i].index, scans[i].distance, group=group)


def _scan_coded(
    segment: Segment,
    start: int,
    scans: Sequence[Scan],
    wanted: Array | None,
    exclude: Array,
    group: Array | None,
) -> None:
    """Score a set's 8-bit rows, block by block; what may be near is looked at as float32."""
    for lo in range(0, len(segment), _CODED_ROWS):
        code, bound = segment.coded(lo, min(lo + _CODED_ROWS, len(segment)))
        for scan, gone in zip(scans, exclude, strict=True):
            allowed = _allowed(start + lo, len(code), wanted, gone)
            rows = partial(_at, segment.rows_at, lo)
            scan.block(code, bound, rows, start + lo, allowed=allowed, group=group)


def _scan_heads(
    segment: Segment,
    start: int,
    scans: Sequence[Scan],
    wanted: Array | None,
    exclude: Array,
    group: Array | None,
) -> None:
    """Score the heads of a set's rows; what may be near is looked at in 8 bits, then as float32."""
    assert segment.along is not None
    along = [of_query(scan.query, segment.along) for scan in scans]
    upper = np.empty((len(scans), len(segment)), np.float32)
    for lo in range(0, len(segment), _HEADS):
        code, bound = segment.heads(lo, min(lo + _HEADS, len(segment)))
        for out, each, gone in zip(upper, along, exclude, strict=True):
            allowed = _allowed(start + lo, len(code), wanted, gone)
            reach(code, bound, each, out[lo : lo + len(code)], allowed=allowed)
    for scan, out in zip(scans, upper, strict=True):
        scan.heads(out, segment.coded_at, segment.rows_at, start, group=group)


def _allowed(first: int, n: int, wanted: Array | None, gone: Array) -> Array | None:
    """(n,) bool, which of the rows from `first` on may be found; None for all."""
    allowed = None if wanted is None else wanted[first : first + n]
    here = gone - first
    here = here[(here >= 0) & (here < n)]
    if len(here):
        allowed = np.ones(n, bool) if allowed is None else allowed.copy()
        allowed[here] = False
    return allowed


def _half_squared_lengths(first: int, rows: Array, halves: dict[tuple[int, int], Array]) -> Array:
    """(n,) float32, |r|²/2 of these rows, the first of which is row `first`; computed once."""
    key = (first, len(rows))
    if key not in halves:
        squared = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
        halves[key] = (squared / 2).astype(np.float32)
    return halves[key]


def _at(read: Callable[[Array], Any], first: int, near: Array) -> Any:
    return read(near + first)


def exclusions(exclude: Array | None, q: int, t: int) -> Array:
    """(q, e) int64: the rows left out for each of q queries, as a search is told of them; t is no row.

    Raises:
        ValueError: another shape, or no rows of a gallery of t.
    """
    if exclude is None:
        return np.empty((q, 0), np.int64)
    rows = np.asarray(exclude, np.int64)
    rows = rows[:, None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or len(rows) != q:
        raise Refusal(
            f"exclude has shape {np.shape(exclude)}, expected ({q},) or ({q}, e): one row per query"
        )
    if rows.size and (rows.min() < -1 or rows.max() >= t):
        raise Refusal(f"exclude holds {rows.min()}..{rows.max()}, expected gallery rows in 0..{t - 1} or -1")
    return np.where(rows < 0, t, rows)
