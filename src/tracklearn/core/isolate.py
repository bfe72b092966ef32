"""Isolation: finding the parts of a tracklet that show one person each.

By DBSCAN over a tracklet's frames, the paper's way, or by change points in their order (`change_point`).

Source: Teng et al., "A Free Lunch to Person Re-identification", arXiv 2204.00891, section 3.2 (intra-tracklet
isolation).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from tracklearn.core import threads
from tracklearn.core.cluster import dbscan
from tracklearn.core.features import as_matrix, check_lengths, is_tensor, row_lengths, unit_rows
from tracklearn.core.jaccard import jaccard_distance
from tracklearn.types import Array

if TYPE_CHECKING:
    from torch import Tensor

Method = Literal["dbscan", "change-point"]
Metric = Literal["euclidean", "cosine", "jaccard"]
METHODS: tuple[Method, ...] = ("dbscan", "change-point")
METRICS: tuple[Metric, ...] = ("euclidean", "cosine", "jaccard")

_CELLS = 1 << 24  # float32 similarities of one long tracklet's frames held at a time: 64 MB
_SPAN = 1 << 20  # numbers of short tracklets that one thread takes at a time: 4 MB


class _Settings(NamedTuple):
    """How to isolate; `eps`, `min_samples` and `metric` are DBSCAN's, `penalty` that of change points."""

    method: str
    eps: float
    min_samples: int
    metric: str
    penalty: float | None


def isolate(
    features: Array | Tensor,
    tracklet: Array,
    *,
    frame: Array,
    time: Array | None = None,
    box: Array | None = None,
    method: Method = "dbscan",
    eps: float = 0.6,
    min_samples: int = 2,
    metric: Metric = "euclidean",
    penalty: float | None = None,
) -> Array:
    """The part of its tracklet that each crop belongs to, by DBSCAN or by change points.

    DBSCAN: a tracklet that is all noise, or shorter than `min_samples`, is kept whole as part 0.
    Change points (see `core.change_point`): no frame is dropped. Frames in which somebody covers the person
    stay with the person while they are few, and are a part of their own where that is worth two cuts.

    Args:
        features: (n, d), any lengths but zero: rows are normalised here. A torch tensor is compared on its
            device, with the same labels.
        tracklet: (n,) int, non-decreasing.
        frame: (n,) int, non-decreasing inside a tracklet.
        time: (n,) seconds. A frame less than a tenth of a second after the one before tells less that is new,
            and change points count it for that time; where time does not go on, it is taken as unknown.
            box: (n, 4) pixels, not used. DBSCAN uses neither.
        method: "dbscan" (the paper's) or "change-point".
        eps: greatest distance of neighbours, above 0. The paper's best values are 0.5 for tracklets of 1.2
            persons on average and 0.6 for 1.5; 0.7 joins everybody (on Euclidean distances).
        min_samples: neighbours that make a frame the core of a part, itself included, at least 1.
        metric: "euclidean" of unit rows; "cosine", 1 − cosine; "jaccard", the k-reciprocal distance inside
            the tracklet with k1 a quarter of its length, 1-30, and k2 a fifth of k1, 1-6.
        penalty: of change points, above 0: one must save this times the logarithm of the tracklet's frames,
            at least 2, in squared distances of frames to the mean of their stretch. None takes
            `change_point.typical_penalty` of these features.

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

    Raises:
        ValueError: shapes disagree; rows not sorted; features not finite or all zero (names rows); an unknown
            method or metric; eps, min_samples or penalty out of range.

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
    tracklet = _check_rows(features, tracklet, frame, time, box)
    given = _check_settings(_Settings(method, eps, min_samples, metric, penalty))
    if method == "change-point" and penalty is None:
        from tracklearn.core.change_point import typical_penalty

        given = given._replace(penalty=typical_penalty(features, tracklet, time=time))
    return _parts(features, tracklet, time, given)


def isolate_chunks(
    chunks: Iterable[tuple[Array | Tensor, Array, Array] | tuple[Array | Tensor, Array, Array, Array]],
    *,
    method: Method = "dbscan",
    eps: float = 0.6,
    min_samples: int = 2,
    metric: Metric = "euclidean",
    penalty: float | None = None,
) -> Iterator[Array]:
    """The parts that `isolate` finds, from rows that come in pieces, as a stream.

    A piece may end anywhere, also inside a tracklet: the rows of the tracklet that is unfinished are kept
    until another one begins. So features can be extracted in batches of a fixed size, and those of a whole
    set need not be in memory at once.

    Args:
        chunks: (features (b, d), tracklet (b,), frame (b,)) or, with time (b,) as a fourth, of successive
            rows, any b, sorted by (tracklet, frame) from one piece to the next too; all with time or none. An
            array may be used again for the next piece. Features may be torch tensors, all of one device, as
            for `isolate`.
        method, eps, min_samples, metric, penalty: as for `isolate`, but change points need a penalty: a
            stream has no whole to take it from.

    Yields:
        After each chunk the part (m,) int64 of the rows of every tracklet that has ended, m possibly 0, and
        one array more for the last tracklet. Put together they are `isolate` of all rows put together.
        Memory: one chunk, the unfinished tracklet twice, and what `isolate` needs for one tracklet.

    Raises:
        ValueError: a setting is wrong (at the call); while iterating, what `isolate` refuses, with the number
            of the chunk, from 0, and the row in it; a tracklet or frame lower than in the chunk before; a
            chunk of another width, or with time where one before had none.

    Example:
        >>> import numpy as np
        >>> x = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]])
        >>> rows = [(x[:3], np.zeros(3, int), np.arange(3)), (x[3:], np.zeros(1, int), np.array([3]))]
        >>> np.concatenate(list(isolate_chunks(rows)))
        array([0, 0, 1, 1])
    """
    given = _check_settings(_Settings(method, eps, min_samples, metric, penalty))
    if method == "change-point" and penalty is None:
        raise ValueError(
            "change points in a stream need a penalty: give them change_point.typical_penalty of a sample"
        )
    return _stream(chunks, given)


class _Rows(NamedTuple):
    """Successive rows: features (b, d), tracklet (b,), time (b,) or None."""

    features: Array | Tensor
    tracklet: Array
    time: Array | None

    def part(self, lo: int, hi: int) -> _Rows:
        return _Rows(
            self.features[lo:hi], self.tracklet[lo:hi], None if self.time is None else self.time[lo:hi]
        )


def _stream(chunks: Iterable[Sequence[Any]], given: _Settings) -> Iterator[Array]:
    open_rows: list[_Rows] = []  # of the unfinished tracklet
    last = (0, 0)  # tracklet and frame of the row before this chunk
    for number, (features, tracklet, frame, *more) in enumerate(chunks):
        time = np.asarray(more[0]) if more else None
        try:
            features = _checked(features)
            tracklet = _check_rows(features, tracklet, frame, time, None)
        except ValueError as error:
            raise ValueError(f"chunk {number}: {error}") from error
        if not len(tracklet):
            yield np.zeros(0, np.int64)
            continue
        rows = _Rows(features, tracklet, time)
        first = (int(tracklet[0]), int(frame[0]))
        if open_rows:
            _check_follows(number, rows, first, open_rows[-1], last)
        last = (int(tracklet[-1]), int(frame[-1]))
        # Rows before `head` go on with the unfinished tracklet, rows from `tail` on stay unfinished.
        head = int(np.searchsorted(tracklet, open_rows[0].tracklet[0], side="right")) if open_rows else 0
        tail = int(np.searchsorted(tracklet, tracklet[-1]))
        done = []
        if open_rows and head < len(tracklet):
            done.append(_close([*open_rows, rows.part(0, head)], given))
            open_rows = []
        if head < tail:
            done.append(_parts(*rows.part(head, tail), given))
        # Copies: a view would keep the whole chunk alive, and the caller may fill it again.
        open_rows.append(_joined([rows.part(tail, len(tracklet))]))
        yield np.concatenate([np.zeros(0, np.int64), *done])
    yield _close(open_rows, given)


def _check_follows(
    number: int, rows: _Rows, first: tuple[int, int], before: _Rows, last: tuple[int, int]
) -> None:
    """Refuses a chunk that cannot follow the rows `before`, which end at (tracklet, frame) `last`."""
    if first < last:
        raise ValueError(
            f"chunk {number} starts at (tracklet, frame) {first} after {last}: "
            "sort the rows by (tracklet, frame)"
        )
    if rows.features.shape[1] != before.features.shape[1]:
        raise ValueError(
            f"chunk {number} has features of width {rows.features.shape[1]}, those before "
            f"{before.features.shape[1]}: features of two networks cannot be compared"
        )
    if (rows.time is None) != (before.time is None):
        raise ValueError(f"chunk {number} and those before differ in having times: give all of them, or none")


def _close(pieces: list[_Rows], given: _Settings) -> Array:
    """Parts of the one tracklet that came in these pieces."""
    return _parts(*_joined(pieces), given) if pieces else np.zeros(0, np.int64)


def _checked(features: Array | Tensor) -> Array | Tensor:
    """Features whose rows all have a direction."""
    if not is_tensor(features):
        return row_lengths(features)[0]

    from tracklearn.core import device

    device.lengths(features)
    return features


def _joined(pieces: list[_Rows]) -> _Rows:
    """The pieces one below the other, in memory of their own."""
    features, tracklet, time = zip(*pieces, strict=True)
    together_time = None if time[0] is None else np.concatenate(time)
    if not is_tensor(features[0]):
        return _Rows(np.concatenate(features), np.concatenate(tracklet), together_time)

    from tracklearn.core import device

    return _Rows(device.joined(features), np.concatenate(tracklet), together_time)


def adjacent_similarity(features: Array | Tensor, tracklet: Array) -> Array:
    """Cosine similarity of each crop to the one before it in its tracklet.

    Args:
        features: (n, d), any lengths but zero; a torch tensor is brought to the host.
        tracklet: (n,) int, non-decreasing, rows in the order of frames.

    Returns:
        (n,) float32, −1 to 1; NaN at the first crop of a tracklet.

    Raises:
        ValueError: the lengths differ; `tracklet` decreases; features not finite or all zero (names rows).
    """
    features = unit_rows(features)
    tracklet = _check_rows(features, tracklet, None, None, None)
    out = np.full(len(features), np.nan, np.float32)
    out[1:] = np.clip(np.einsum("ij,ij->i", features[1:], features[:-1]), -1, 1)
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
        raise ValueError(
            "eps from the data is defined for euclidean and cosine: give eps a number for jaccard"
        )
    known = similarity[np.isfinite(similarity)]
    cosine = 1.0 - float(np.median(known.astype(np.float64))) if len(known) else 0.0
    step = max(cosine, 0.0) if metric == "cosine" else math.sqrt(max(2.0 * cosine, 0.0))
    return step if step > 0 else 0.6


def _parts(features: Array | Tensor, tracklet: Array, time: Array | None, given: _Settings) -> Array:
    """Parts (n,) of a matrix whose rows may still turn out not finite or all zero."""
    edge = np.r_[0, np.flatnonzero(np.diff(tracklet)) + 1, len(tracklet)]
    if given.penalty is not None and given.method == "change-point":
        from tracklearn.core import change_point

        return change_point.parts(features, edge, time, given.penalty)
    eps, min_samples, metric = given.eps, given.min_samples, given.metric
    if metric == "jaccard":
        return _jaccard_parts(features, edge, eps, min_samples)

    # Both metrics ask for a cosine of at least `least`; 1e-12 keeps the border inside against rounding.
    least = (1 - eps**2 / 2 if metric == "euclidean" else 1 - eps) - 1e-12
    if is_tensor(features):
        from tracklearn.core import device

        return device.parts(features, edge, least, min_samples)

    from tracklearn.core.kernels.isolate import SHORT, label_short, lengths

    part = np.zeros(len(tracklet), np.int64)
    length = np.empty(len(tracklet))
    slack = _slack(features.shape[1])

    def label_alone(q: int) -> None:
        lo, hi = edge[q], edge[q + 1]
        rows = np.ascontiguousarray(features[lo:hi], _exact(features.dtype))
        lengths(rows, length[lo:hi])
        if hi - lo >= max(min_samples, 2) and length[lo:hi].min() > 0 and length[lo:hi].max() < np.inf:
            _label_blocks(rows, length[lo:hi], least, slack, min_samples, part[lo:hi])

    def label_span(span: tuple[int, int]) -> list[int]:
        first, last = span
        lo, hi = edge[first], edge[last]
        done = np.zeros(last - first, bool)
        if _exact(features.dtype) == np.float32:
            rows = np.ascontiguousarray(features[lo:hi], np.float32)
            label_short(
                rows, edge[first : last + 1] - lo, least, slack, min_samples, part[lo:hi], length[lo:hi], done
            )
        left = first + np.flatnonzero(~done)
        long = edge[left + 1] - edge[left] > SHORT
        for q in left[~long]:
            label_alone(q)
        return list(left[long])

    spans = _spans(edge, features.shape[1])
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


def _exact(dtype: np.dtype[Any]) -> type[np.floating[Any]]:
    """The smaller of float32 and float64 that holds every number of `dtype`; float64 where none does."""
    return np.float32 if np.can_cast(dtype, np.float32) else np.float64


def _spans(edge: Array, width: int) -> list[tuple[int, int]]:
    """First and last-plus-one tracklet of runs of about `_SPAN` numbers."""
    group = edge[:-1] // max(1, _SPAN // max(1, width))
    cut = np.r_[0, np.flatnonzero(np.diff(group)) + 1, len(group)]
    return [(int(a), int(b)) for a, b in pairwise(cut) if b > a]


def _check_settings(given: _Settings) -> _Settings:
    if given.method not in METHODS:
        raise ValueError(f'method is "{given.method}", expected one of {", ".join(METHODS)}')
    if given.metric not in METRICS:
        raise ValueError(f'metric is "{given.metric}", expected one of {", ".join(METRICS)}')
    if not given.eps > 0:
        raise ValueError(f"eps is {given.eps}, expected a distance above 0")
    if given.min_samples < 1:
        raise ValueError(f"min_samples is {given.min_samples}, expected at least 1")
    if given.penalty is not None and not 0 < given.penalty < math.inf:
        raise ValueError(f"penalty is {given.penalty}, expected a finite number above 0")
    return given


def _check_rows(
    features: Array | Tensor, tracklet: Array, frame: Array | None, time: Array | None, box: Array | None
) -> Array:
    n = len(features)
    for name, value, shape in (
        ("tracklet", tracklet, (n,)),
        ("frame", frame, (n,)),
        ("time", time, (n,)),
        ("box", box, (n, 4)),
    ):
        if value is not None and np.shape(value) != shape:
            raise ValueError(f"{name} has shape {np.shape(value)}, expected {shape}: one row per crop")
    tracklet = np.asarray(tracklet)
    # Compared, not subtracted: differences of unsigned numbers are never negative.
    if (tracklet[1:] < tracklet[:-1]).any():
        raise ValueError("tracklet decreases: sort the rows by (tracklet, frame)")
    if frame is not None:
        frame = np.asarray(frame)
        back = np.flatnonzero((frame[1:] < frame[:-1]) & (tracklet[1:] == tracklet[:-1]))
        if len(back):
            raise ValueError(
                f"frame decreases inside a tracklet at row {back[0] + 1}: sort the rows by (tracklet, frame)"
            )
    return tracklet
