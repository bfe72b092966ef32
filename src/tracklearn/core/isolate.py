"""Isolation: finding the parts of a tracklet that show one person each.

By DBSCAN over a tracklet's frames, the paper's way, by change points in their order (`change_point`), or by
average linkage of single frames (`pieces`).

Source: Teng et al., "A Free Lunch to Person Re-identification", arXiv 2204.00891, section 3.2 (intra-tracklet
isolation).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from tracklearn.core import threads
from tracklearn.core.cluster import dbscan
from tracklearn.core.features import as_matrix, check_lengths, exact_dtype, is_tensor, row_lengths
from tracklearn.core.frames import check_rows, spans_of
from tracklearn.core.jaccard import jaccard_distance
from tracklearn.types import Array, Refusal

if TYPE_CHECKING:
    from torch import Tensor

Method = Literal["dbscan", "change-point", "linkage"]
Metric = Literal["euclidean", "cosine", "jaccard"]
METHODS: tuple[Method, ...] = ("dbscan", "change-point", "linkage")
METRICS: tuple[Metric, ...] = ("euclidean", "cosine", "jaccard")

_ADJACENT = 1 << 19  # numbers whose neighbours are compared at a time: 4 MB in float64
_CELLS = 1 << 24  # float32 similarities of one long tracklet's frames held at a time: 64 MB


class _Settings(NamedTuple):
    """How to isolate; `eps`, `min_samples` and `metric` are DBSCAN's, `penalty` that of change points."""

    method: str
    eps: float
    min_samples: int
    metric: str
    penalty: float | None
    join: float | None
    least: int


def isolate(
    features: Array | Tensor,
    tracklet: Array,
    *,
    frame: Array,
    time: Array | None = None,
    method: Method = "dbscan",
    eps: float = 0.6,
    min_samples: int = 2,
    metric: Metric = "euclidean",
    penalty: float | None = None,
    join: float | None = None,
    least: int = 1,
) -> Array:
    """The part of its tracklet that each crop belongs to, by DBSCAN, by change points or by average linkage.

    DBSCAN: a tracklet that is all noise, or shorter than `min_samples`, is kept whole as part 0.
    Change points (see `core.change_point`): no frame is dropped. Frames in which somebody covers the person
    stay with the person while they are few, and are a part of their own where that is worth two cuts.
    Linkage: every frame is a piece of its own, whatever their order, and `join` says what is joined. No frame
    is dropped but by `least`.

    Args:
        features: (n, d), any lengths but zero: rows are normalised here. A torch tensor is compared on its
            device, with the same labels.
        tracklet: (n,) int, non-decreasing.
        frame: (n,) int, non-decreasing inside a tracklet.
        time: (n,) seconds. A frame less than a tenth of a second after the one before tells less that is new,
            and change points count it for that time; where time does not go on, it is taken as unknown.
            DBSCAN does not use it.
        method: "dbscan" (the paper's), "change-point" or "linkage".
        eps: greatest distance of neighbours, above 0. The paper's best values are 0.5 for tracklets of 1.2
            persons on average and 0.6 for 1.5; 0.7 joins everybody (on Euclidean distances).
        min_samples: neighbours that make a frame the core of a part, itself included, at least 1.
        metric: "euclidean" of unit rows; "cosine", 1 − cosine; "jaccard", the k-reciprocal distance inside
            the tracklet with k1 a quarter of its length, 1-30, and k2 a fifth of k1, 1-6.
        penalty: of change points, above 0: one must save this times the logarithm of the tracklet's frames,
            at least 2, in squared distances of frames to the mean of their stretch. None takes
            `change_point.typical_penalty` of these features.
        join: pieces that were cut, and runs of frames that were dropped, are joined again by average linkage
            while the Euclidean distance of their unit means is below this: where another person begins
            (`calibration.Calibration.joins_below`). None leaves them.
        least: with `join`, parts of fewer frames are dropped where their tracklet has a longer one.

    Returns:
        part (n,) int64: numbers within each tracklet, from 0 in the order of their first (core) frame; −1 for
        noise. `Tracklets.split` takes it as it is.
        DBSCAN's labels are scikit-learn's of each tracklet. Exact: two frames are neighbours where their
        cosine in float64 reaches that of eps less 1e-12; float32 decides only the pairs that its rounding
        cannot bring to the other side.
        Memory for float32 rows in C order: a few MB per thread and, for the L frames of the longest
        tracklet of more than 256, their unit rows in float32, L² / 8 bytes, and a block of similarities of
        at most 64 MB (beyond 262,144 frames: 256 · L bytes). Rows of another kind are copied, a few MB or
        one such tracklet at a time: to float32 where it holds them (float16, small integers), otherwise to
        float64. The Jaccard metric: one tracklet in float64 and what `jaccard_distance` needs for it.
        On a device: 512 MB, or the longest tracklet twice in float64 and 64 rows of its similarities where
        that is more; the Jaccard metric brings a tensor to the host.
        Change points: the cheapest of all segmentations, its costs rounded to float32 products. Memory: a few
        MB per thread and, for each tracklet of more than 256 frames in work, its rows in float32, a block of
        products of at most 16 MB (beyond 131,072 frames: 128 bytes a frame) and 8 bytes for every pair of
        stretches. A tensor is brought to the host.
        Linkage: beside the result, the unit rows of the longest tracklet in float64 and 16 MB. A tensor is
        brought to the host.

    Raises:
        ValueError: shapes disagree; rows not sorted; features not finite or all zero (names rows); an unknown
            method or metric; eps, min_samples or penalty out of range; linkage without `join`.

    Example:
        >>> import numpy as np
        >>> x = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]])
        >>> isolate(x, np.zeros(4, int), frame=np.arange(4))
        array([0, 0, 1, 1])
        >>> isolate(x, np.zeros(4, int), frame=np.arange(4), method="change-point", penalty=0.4)
        array([0, 0, 1, 1])

    Source: TMC section 3.2; metric and min_samples are our choice where the paper is silent.
    """
    features = as_matrix(features)
    tracklet = check_rows(features, tracklet, frame, time)
    given = _check_settings(_Settings(method, eps, min_samples, metric, penalty, join, least))
    if method == "change-point" and penalty is None:
        from tracklearn.core.change_point import typical_penalty

        given = given._replace(penalty=typical_penalty(features, tracklet, time=time))
    part = _parts(features, tracklet, time, given)
    if join is None:
        return part
    from tracklearn.core.pieces import joined

    return joined(features, _edges(tracklet), part, join, least)


def adjacent_similarity(features: Array | Tensor, tracklet: Array) -> Array:
    """Cosine similarity of each crop to the one before it in its tracklet.

    Args:
        features: (n, d), any lengths but zero; a torch tensor is brought to the host.
        tracklet: (n,) int, non-decreasing, rows in the order of frames.

    Returns:
        (n,) float32, −1 to 1; NaN at the first crop of a tracklet. Memory: a few MB beside it.

    Raises:
        ValueError: the lengths differ; `tracklet` decreases; features not finite or all zero (names rows).
    """
    features, length = row_lengths(features)
    tracklet = check_rows(features, tracklet, None, None)
    out = np.full(len(features), np.nan, np.float32)
    step = max(1, _ADJACENT // max(1, features.shape[1]))
    for lo in range(1, len(features), step):
        hi = min(lo + step, len(features))
        unit = (features[lo - 1 : hi].astype(np.float64) / length[lo - 1 : hi, None]).astype(np.float32)
        out[lo:hi] = np.clip(np.einsum("ij,ij->i", unit[1:], unit[:-1]), -1, 1)
    out[1:][np.diff(tracklet) != 0] = np.nan
    return out


def typical_step(similarity: Array, *, metric: Metric = "euclidean") -> float:
    """An eps for isolation from the data itself: the median distance of adjacent frames of one tracklet.

    Half of all frames then lie within eps of their neighbour in time, and a frame needs only one such
    neighbour among all frames of its person. A fixed eps belongs to one network at one crop size: with
    ImageNet MobileNetV2 the median is 0.52 on 256×128 crops, where 0.5 is the published optimum, and 0.65
    on 128×64. No labels are used. [chosen; METHODS 3.1]

    Args:
        similarity: (n,) cosines by `adjacent_similarity`, NaN at first crops.
        metric: "euclidean" or "cosine".

    Returns:
        The median, or 0.6 (the paper's) where no tracklet has two crops or the median is 0.

    Raises:
        ValueError: the Jaccard metric, which adjacent frames alone do not define.
    """
    if metric == "jaccard":
        raise Refusal("eps from the data is defined for euclidean and cosine: give eps a number for jaccard")
    known = similarity[np.isfinite(similarity)]
    cosine = 1.0 - float(np.median(known.astype(np.float64))) if len(known) else 0.0
    step = max(cosine, 0.0) if metric == "cosine" else math.sqrt(max(2.0 * cosine, 0.0))
    return step if step > 0 else 0.6


def _parts(features: Array | Tensor, tracklet: Array, time: Array | None, given: _Settings) -> Array:
    """Parts (n,) of a matrix whose rows may still turn out not finite or all zero."""
    edge = _edges(tracklet)
    if given.method == "linkage":
        row_lengths(features)  # names the rows that have none
        return np.arange(len(tracklet)) - np.repeat(edge[:-1], np.diff(edge))
    if given.penalty is not None and given.method == "change-point":
        from tracklearn.core import change_point

        return change_point.parts(features, edge, time, given.penalty)
    eps, min_samples, metric = given.eps, given.min_samples, given.metric
    if metric == "jaccard":
        return _jaccard_parts(features, edge, eps, min_samples)

    # Both metrics ask for a cosine of at least `least`; 1e-12 keeps the border inside against rounding.
    least = (1 - eps**2 / 2 if metric == "euclidean" else 1 - eps) - 1e-12
    if is_tensor(features):
        from tracklearn.core.device.isolate import parts

        return parts(features, edge, least, min_samples)

    from tracklearn.core.kernels.isolate import SHORT, label_short, lengths

    part = np.zeros(len(tracklet), np.int64)
    length = np.empty(len(tracklet))
    slack = _slack(features.shape[1])

    def label_alone(q: int) -> None:
        lo, hi = edge[q], edge[q + 1]
        rows = np.ascontiguousarray(features[lo:hi], exact_dtype(features.dtype))
        lengths(rows, length[lo:hi])
        if hi - lo >= max(min_samples, 2) and length[lo:hi].min() > 0 and length[lo:hi].max() < np.inf:
            _label_blocks(rows, length[lo:hi], least, slack, min_samples, part[lo:hi])

    def label_span(span: tuple[int, int]) -> list[int]:
        first, last = span
        lo, hi = edge[first], edge[last]
        done = np.zeros(last - first, bool)
        if exact_dtype(features.dtype) == np.float32:
            rows = np.ascontiguousarray(features[lo:hi], np.float32)
            label_short(
                rows, edge[first : last + 1] - lo, least, slack, min_samples, part[lo:hi], length[lo:hi], done
            )
        left = first + np.flatnonzero(~done)
        long = edge[left + 1] - edge[left] > SHORT
        for q in left[~long]:
            label_alone(q)
        return list(left[long])

    spans = spans_of(edge, features.shape[1])
    # One span needs no pool, whose start would take longer than the work on a small chunk of a stream.
    found = threads.each(label_span, spans) if len(spans) > 1 else map(label_span, spans)
    # Long tracklets come one after another, so that memory is needed for one; BLAS has all threads for it.
    for left in found:
        for q in left:
            label_alone(q)
    check_lengths(length)
    return part


def _label_blocks(
    rows: Array, length: Array, least: float, slack: float, min_samples: int, part: Array
) -> None:
    """DBSCAN of one tracklet's rows, float32 or float64, into `part`, by blocks of similarities."""
    from tracklearn.core.kernels.isolate import label_bits, mark

    n = len(rows)
    unit = np.empty(rows.shape, np.float32)
    np.divide(rows, length[:, None], out=unit, casting="same_kind")
    near = np.zeros((n, -(-n // 64)), np.uint64)
    degree = np.ones(n, np.int64)
    step = max(64, min(2048, _CELLS // n))
    for lo in range(0, n, step):
        mark(unit[lo : lo + step] @ unit[lo:].T, np.ones(n), lo, rows, least, slack, near, degree)
    label_bits(near, degree, min_samples, part)


def _jaccard_parts(features: Array | Tensor, edge: Array, eps: float, min_samples: int) -> Array:
    features, length = row_lengths(features)
    part = np.zeros(len(features), np.int64)
    for lo, hi in pairwise(edge):
        if hi - lo < max(min_samples, 2) or eps >= 1:  # no Jaccard distance is above 1
            continue
        unit = features[lo:hi].astype(np.float64) / length[lo:hi, None]
        k1 = min(30, max(1, len(unit) // 4))
        label = dbscan(jaccard_distance(unit, k1, min(6, max(1, k1 // 5))), eps, min_samples)
        if (label >= 0).any():
            part[lo:hi] = label
    return part


def _edges(tracklet: Array) -> Array:
    """(t + 1,) first row of each tracklet, and the number of rows."""
    return np.r_[0, np.flatnonzero(np.diff(tracklet)) + 1, len(tracklet)]


def _slack(width: int) -> float:
    """How far a cosine from float32 products can be from the one that float64 gives.

    With u = 2^-24 and g = d u, a float32 product of two rows of width d, summed in any order, errs by at
    most G |x| |y|, G = g / (1 − g) (Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1).
    Lengths taken from products of rows with themselves make |x| |y| wrong by as much again, so the cosine
    errs by at most 2 G / (1 − G) = 2 g / (1 − 2 g). For rows divided by their true lengths and rounded it is
    G + 2 u and a little. d + 16 in place of d covers that, underflow, and the rounding of float64.
    """
    g = (width + 16) * 2.0**-24
    return 2 * g / (1 - 2 * g) if g < 0.25 else math.inf


def _check_settings(given: _Settings) -> _Settings:
    if given.method not in METHODS:
        raise Refusal(f'method is "{given.method}", expected one of {", ".join(METHODS)}')
    if given.metric not in METRICS:
        raise Refusal(f'metric is "{given.metric}", expected one of {", ".join(METRICS)}')
    if not given.eps > 0:
        raise Refusal(f"eps is {given.eps}, expected a distance above 0")
    if given.min_samples < 1:
        raise Refusal(f"min_samples is {given.min_samples}, expected at least 1")
    if given.penalty is not None and not 0 < given.penalty < math.inf:
        raise Refusal(f"penalty is {given.penalty}, expected a finite number above 0")
    if given.join is not None and not 0 < given.join <= 2:
        raise Refusal(f"join is {given.join}, expected a distance of unit features, above 0 and at most 2")
    if given.method == "linkage" and given.join is None:
        raise Refusal("linkage joins frames while they are nearer than join: give join a distance")
    if given.least < 1:
        raise Refusal(f"least is {given.least}, expected at least 1 frame")
    return given
