"""Isolation by change points: a tracklet's frames are ordered, and a switch happens at a moment.

Every tracklet is cut into stretches so that the spread inside them, plus a price for every cut, is as small
as it can be: with rows of weight w and unit direction x, a stretch of weight W has the spread
W − |Σ w x|² / W. The price is a penalty times the logarithm of the tracklet's weight, at least 2 (Schwarz's
criterion: Yao, "Estimating the number of change-points via Schwarz' criterion", 1988). The dynamic programme
over all cuts is exact. Stretches of one tracklet that could be one person's (A, B and A again) are then
joined by Ward's method while that adds less spread than half the price.

Source: ours; METHODS 3.2 has the first form, windows on both sides of every frame.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tracklearn.core import threads
from tracklearn.core.features import as_matrix, check_lengths, exact_dtype, on_host
from tracklearn.core.frames import check_rows, spans_of
from tracklearn.types import Array

RATE = 10.0  # frames a second that count in full: of frames that follow faster, each counts for its time
REJOIN = 0.5  # share of a cut's price below which stretches are one person's

_CELLS = 1 << 22  # float32 products of one long tracklet's rows held at a time: 16 MB
_LAG = 0.475  # seconds after which a change counts for the penalty: half a second, and times jitter
_LEAST = 0.01  # that a frame counts, however soon it comes


def typical_penalty(features: Any, tracklet: Array, *, time: Array | None = None) -> float:
    """A penalty for isolation from the data itself: what changes in half a second.

    It is the mean of 1 − cosine over all frames and the first one of the tracklet that comes half a second
    later, or the last. Over less time a person who stands or is filmed at a high rate hardly changes, and one
    who walks away would be cut; the mean heeds the few who move more than the median. No labels are used.
    [chosen]

    Args:
        features: (n, d), any lengths but zero; a torch tensor is brought to the host.
        tracklet: (n,) int, non-decreasing, rows in the order of frames.
        time: (n,) seconds; without it all frames are taken to be a tenth of a second apart.

    Returns:
        The mean, or 0.18 (the paper's distance of 0.6) where no tracklet has two crops or the mean is 0.

    Raises:
        ValueError: shapes disagree; `tracklet` decreases; features not finite or all zero (names rows).
    """
    from tracklearn.core.kernels.change_point import steps

    features = on_host(as_matrix(features))
    tracklet = check_rows(features, tracklet, None, time)
    edge = np.r_[0, np.flatnonzero(np.diff(tracklet)) + 1, len(tracklet)]
    clock = np.cumsum(_seconds(time, len(tracklet)))
    length, out = np.ones(len(tracklet)), np.full(len(tracklet), np.nan)

    def measure(span: tuple[int, int]) -> None:
        lo, hi = edge[span[0]], edge[span[1]]
        steps(_rows(features[lo:hi]), tracklet[lo:hi], clock[lo:hi], _LAG, length[lo:hi], out[lo:hi])

    threads.each(measure, spans_of(edge, features.shape[1]))
    check_lengths(length)
    known = out[np.isfinite(out)]
    step = max(float(np.mean(known)), 0.0) if len(known) else 0.0
    return step if step > 1e-6 else 0.18


def parts(features: Any, edge: Array, time: Array | None, penalty: float) -> Array:
    """Parts (n,) of tracklets of rows edge[q]:edge[q + 1].

    Raises:
        ValueError: features not finite or all zero (names rows).
    """
    from tracklearn.core.kernels.change_point import SHORT, label_short

    features = on_host(features)
    weight = _weights(edge, time, len(features))
    part, length = np.zeros(len(features), np.int64), np.ones(len(features))

    def label_span(span: tuple[int, int]) -> list[int]:
        first, last = span
        lo, hi = edge[first], edge[last]
        done = np.zeros(last - first, bool)
        label_short(
            _rows(features[lo:hi]),
            weight[lo:hi],
            edge[first : last + 1] - lo,
            penalty,
            REJOIN,
            part[lo:hi],
            length[lo:hi],
            done,
        )
        left = first + np.flatnonzero(~done)
        return list(left[edge[left + 1] - edge[left] > SHORT])

    def label_long(q: int) -> None:
        lo, hi = edge[q], edge[q + 1]
        _label_blocks(_rows(features[lo:hi]), weight[lo:hi], penalty, part[lo:hi], length[lo:hi])

    found = threads.each(label_span, spans_of(edge, features.shape[1]))
    # Under `each` BLAS has one thread: its rounding, and so a cut, could depend on how many there are.
    threads.each(label_long, [q for left in found for q in left])
    check_lengths(length)
    return part


def _label_blocks(rows: Array, weight: Array, penalty: float, part: Array, length: Array) -> None:
    from tracklearn.core.kernels.change_point import extend, label_stretches, price, scale

    n = len(rows)
    unit = np.empty(rows.shape, np.float32)
    scale(rows, weight, length, unit)
    if not (length.min() > 0 and length.max() < np.inf):
        return
    weight_sum = np.r_[0.0, np.cumsum(weight)]
    best, back, squared = np.empty(n + 1), np.zeros(n + 1, np.int64), np.zeros(n)
    cost = price(penalty, weight_sum[-1])
    best[0] = -cost
    step = max(32, min(512, _CELLS // n))
    for lo in range(0, n, step):
        hi = min(lo + step, n)
        extend(unit[lo:hi] @ unit[:hi].T, lo, weight_sum, cost, squared, best, back)
    label_stretches(unit, weight_sum, back, REJOIN * cost, part)


def _weights(edge: Array, time: Array | None, n: int) -> Array:
    """(n,) what each row counts: tenths of a second since the row before in its tracklet, at most 1."""
    weight = np.clip(_seconds(time, n) * RATE, _LEAST, 1)
    length = np.diff(edge)
    weight[edge[:-1][length == 1]] = 1
    first = edge[:-1][length > 1]
    weight[first] = weight[first + 1]
    return weight


def _seconds(time: Array | None, n: int) -> Array:
    """(n,) since the row before; a tenth where that is unknown: no times, or times that do not go on."""
    step = np.full(n, 1 / RATE)
    if time is not None and n > 1:
        given = np.diff(np.asarray(time, np.float64))
        step[1:] = np.where(given > 0, given, step[1:])  # NaN is not above 0
    return step


def _rows(features: Array) -> Array:
    """The rows in C order, float32 where that holds them and float64 otherwise."""
    return np.ascontiguousarray(features, exact_dtype(features.dtype))
