"""Retrieval: distances, re-ranking, search, and the scores CMC and mAP."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tracklearn.core import threads
from tracklearn.core.features import check_unit, is_tensor, on_host
from tracklearn.core.jaccard import Mode, check_settings, columns_needed, reciprocal_encoding
from tracklearn.core.neighbors import k_nearest_and_farthest, k_nearest_of
from tracklearn.types import Array, Matches, Refusal, Scores

if TYPE_CHECKING:
    from torch import Tensor

AveragePrecision = Literal["hits", "trapezoid", "sklearn"]
AP: tuple[AveragePrecision, ...] = ("hits", "trapezoid", "sklearn")
Protocol = Literal["official", "gallery-excludes-queries"]
PROTOCOLS: tuple[Protocol, ...] = ("official", "gallery-excludes-queries")

_BLOCK = 1024  # rows of features multiplied at a time in float64
_CELLS = 1 << 24  # distances held at a time where the whole matrix must not be: 64 MB
_QUERIES = 512  # queries re-ranked at a time
_SLACK = 2.0  # in units of what a float32 product of unit rows can err by: |error| <= width · 2^-24
_ROWS = 64  # rows of a distance matrix scored at a time


def distance(query: Array | Tensor, gallery: Array | Tensor) -> Any:
    """Euclidean distances of unit rows.

    Computed in float64 by blocks, so that the distance of equal rows is 0 and not the 3e-4 that float32
    products leave.

    Args:
        query: (q, d) unit rows. Where it is a torch tensor, its device computes.
        gallery: (g, d) unit rows.

    Returns:
        (q, g) float32, 0-2; a tensor on the device of `query` where that is one. Memory: the result and, per
        thread, two blocks of 1,024 rows in float64 (on a device, of 4,096).

    Raises:
        ValueError: features not finite, not of unit length (within 1e-3) or all zero; widths differ.

    Example:
        >>> import numpy as np
        >>> distance(np.eye(2), np.eye(2)).round(3).tolist()
        [[0.0, 1.4140000343322754], [1.4140000343322754, 0.0]]
    """
    if is_tensor(query):
        from tracklearn.core.device import rank as device

        return device.distance(*device.check_pair(query, gallery))
    query, gallery = _check_pair(query, gallery)
    out = np.empty((len(query), len(gallery)), np.float32)

    def fill(low: int) -> None:
        out[low : low + _BLOCK] = _distance_of(query[low : low + _BLOCK], gallery)

    threads.each(fill, range(0, len(query), _BLOCK))
    return out


def _check_pair(query: Array | Tensor, gallery: Array | Tensor) -> tuple[Array, Array]:
    query, gallery = check_unit(query, "query"), check_unit(gallery, "gallery")
    if query.shape[1] != gallery.shape[1]:
        raise Refusal(
            f"query has width {query.shape[1]} and gallery {gallery.shape[1]}: "
            "features of two networks cannot be compared"
        )
    return query, gallery


def _distance_of(query: Array, gallery: Array) -> Array:
    """`distance` of a block of checked queries."""
    out = np.empty((len(query), len(gallery)), np.float32)
    a = query.astype(np.float64)
    a_length = np.einsum("ij,ij->i", a, a)[:, None]
    for low in range(0, len(gallery), _BLOCK):
        b = gallery[low : low + _BLOCK].astype(np.float64)
        squared = a_length + np.einsum("ij,ij->i", b, b) - 2 * (a @ b.T)
        # Below the rounding of the sums above, equal is all that can be said.
        squared[squared < 1e-14] = 0
        out[:, low : low + _BLOCK] = np.sqrt(squared)
    return out


def rerank(
    query: Array | Tensor,
    gallery: Array | Tensor,
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    mode: Mode = "mmt",
    neighbors: Literal["exact", "int8"] = "exact",
    known: tuple[Array, Array, Array] | None = None,
) -> Array:
    """Distances re-ranked by k-reciprocal neighbourhoods, (1 − λ) · Jaccard + λ · original.

    Neighbourhoods are looked for among queries and gallery together, queries first, so the distances of one
    query depend on what else is asked. The original distance is the squared Euclidean one divided by the
    greatest from that query to any row. The Jaccard distance is that of `jaccard.jaccard_distance`, its note
    on identical rows included. Small = similar; `evaluate` and `nearest(..., distance=)` take the result.

    Args:
        query: (q, d) unit rows. Where it is a torch tensor, its device finds the neighbours.
        gallery: (g, d) unit rows.
        k1: neighbours of the reciprocal sets, at least 1; more than q + g − 1 act as q + g − 1.
        k2: neighbours averaged over, itself included, at least 1; clipped to q + g.
        lambda_value: weight λ of the original distance, 0-1.
        mode: what the Jaccard part is made of, as in `jaccard_distance`. "mmt", the default, is the authors'
            own code: exp of the divided distance; "tracklearn": of the distance itself; "spcl": so, with k1
            neighbours in which the row itself counts.
        neighbors: how neighbours are found, as `method` of `neighbors.k_nearest_and_farthest`; by "int8"
            distances differ by about 1e-7.
        known: what `neighbors.k_nearest_and_farthest` gives for queries and gallery put together, queries
            first, with at least `jaccard.columns_needed` neighbours, where the caller has it; looking for
            them is most of the work.

    Returns:
        (q, g) float32, 0-1 up to rounding; equal rows with equal neighbourhoods are at 0. The same whatever
        the number of threads. Memory above it: a copy of the features, O((q + g) · neighbours) for the
        Jaccard part, and, where `known` is not given, what finding it takes.

    Raises:
        ValueError: k1, k2 or lambda_value out of range; an unknown mode; features not finite, not of unit
            length (within 1e-3) or all zero; widths differ; `known` of another shape, with too few
            neighbours or with rows that do not exist.

    Example:
        >>> import numpy as np
        >>> x = np.array([[1, 0], [0.6, 0.8], [0, 1]])
        >>> rerank(x[:1], x, k1=1, k2=1).argsort().tolist()
        [[0, 1, 2]]

    Source: Zhong, Zheng, Cao, Li, "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR
    2017, section 3; the division is that of the authors' code, by the column-wise maximum before transposing.
    """
    check_settings(k1, k2, mode)
    if not 0 <= lambda_value <= 1:
        raise Refusal(f"lambda_value is {lambda_value}, expected a weight in 0-1")
    given = query, gallery
    query, gallery = _check_pair(query, gallery)
    q, g = len(query), len(gallery)
    wanted = columns_needed(q + g, k1, k2, mode)
    if known is not None:
        _check_known(known, q + g, wanted)
    out = np.empty((q, g), np.float32)
    if not out.size:
        return out

    from tracklearn.core.kernels.rank import blend

    features = np.concatenate([query, gallery])
    if known is None:
        known = k_nearest_and_farthest(_put_together(given, features), wanted, method=neighbors)
    encoding = reciprocal_encoding(features, k1, k2, mode=mode, known=known)
    encoding_start, column = encoding.indptr.astype(np.int64), encoding.indices.astype(np.int32)
    by_column = encoding[q:].tocsc()  # only gallery rows are looked up
    turned = by_column.indptr.astype(np.int64), by_column.indices.astype(np.int32), by_column.data
    length = (np.einsum("ij,ij->i", features, features, dtype=np.float64) - 1).astype(np.float32)
    scale, share = (lambda_value / known[2]).astype(np.float32), np.float32(1 - lambda_value)
    slack = np.float32(_SLACK * (features.shape[1] + 2) * 2.0**-24)

    def fill(low: int) -> None:
        rows = slice(low, min(q, low + _QUERIES))
        np.matmul(query[rows], gallery.T, out=out[rows])
        own = encoding_start[low : rows.stop + 1], column, encoding.data
        blend(
            out[rows], query[rows], gallery, length[rows], length[q:], slack, scale[rows], share, *own, turned
        )

    threads.each(fill, range(0, q, _QUERIES))
    return out


def _put_together(given: tuple[Array | Tensor, Array | Tensor], features: Array) -> Array | Tensor:
    """`features`, the rows of both in one array, or that as a tensor where the first is one."""
    if not is_tensor(given[0]):
        return features

    from tracklearn.core.device.tensors import joined

    return joined(given)


def _check_known(known: tuple[Array, Array, Array], n: int, wanted: int) -> None:
    index, squared, far = known
    if len(index) != n or index.shape != squared.shape or far.shape != (n,) or index.shape[1] < wanted:
        raise Refusal(
            f"known has shapes {index.shape}, {squared.shape} and {far.shape}, expected ({n}, k), ({n}, k) "
            f"and ({n},) with k at least {wanted}: the neighbours of queries and gallery put together"
        )
    if index.size and (index.min() < 0 or index.max() >= n):
        raise Refusal(f"known names rows {index.min()} to {index.max()}, expected 0 to {n - 1}")


def nearest(
    query: Array | Tensor, gallery: Array | Tensor, k: int, *, distance: Array | Tensor | None = None
) -> Matches:
    """The k nearest gallery rows of each query, nearest first, ties to the lower row.

    Distances are √(2 − 2 x·y): equal rows read 0 to 3e-4, as far as their float32 lengths are from 1.

    Args:
        query: (q, d) unit rows. Where it is a torch tensor, its device searches.
        gallery: (g, d) unit rows.
        k: number of matches, at least 1.
        distance: (q, g), small = similar, such as `rerank` gives; decides in place of the features' own
            distance and is what the matches then carry. Inf allowed, NaN not.

    Returns:
        Matches (q, k); where the gallery has fewer than k rows the rest is index −1, distance inf.

    Raises:
        ValueError: k < 1; features not finite, not of unit length (within 1e-3) or all zero; widths differ;
            `distance` of another shape or with NaN.
    """
    if distance is None:
        found, squared = k_nearest_of(query, gallery, k)
        near = np.sqrt(squared)
    else:
        found, near = _smallest(distance, (len(query), len(gallery)), k)
    index = np.full((len(found), k), -1, np.int64)
    far = np.full((len(found), k), np.inf, np.float32)
    index[:, : found.shape[1]] = found
    far[:, : found.shape[1]] = near
    return Matches(index, far)


def _smallest(distance: Array | Tensor, shape: tuple[int, int], k: int) -> tuple[Array, Array]:
    """Columns and values of the k smallest entries of each row, ties to the lower column."""
    distance = np.asarray(on_host(distance))
    if distance.shape != shape:
        raise Refusal(f"distance has shape {distance.shape}, expected (query, gallery) = {shape}")
    _refuse_nan(distance)
    if k < 1:
        raise Refusal(f"k is {k}, expected at least 1")
    k = min(k, shape[1])
    index = np.empty((shape[0], k), np.int64)
    if k:
        for i, row in enumerate(distance):
            # All that tie with the k-th stay in, so that the stable sort can choose the lower rows.
            close = np.flatnonzero(row <= np.partition(row, k - 1)[k - 1])
            index[i] = close[np.argsort(row[close], kind="stable")[:k]]
    return index, np.take_along_axis(distance, index, axis=1)


def evaluate(
    distance: Array | Tensor | tuple[Array | Tensor, Array | Tensor],
    query_pid: Array,
    gallery_pid: Array,
    query_camid: Array,
    gallery_camid: Array,
    *,
    protocol: Protocol = "official",
    query_row: Array | None = None,
    same_camera: bool = False,
    ap: AveragePrecision = "hits",
    max_rank: int = 50,
    note: str = "",
) -> Scores:
    """CMC and mAP of a distance matrix, or of features.

    Left out of each query's gallery: junk (negative pid); what the protocol says; and, unless `same_camera`,
    entries of the query's person in the query's camera. Distractors (pid 0 on MARS and Market-1501) stay, and
    so do other persons in the query's camera. A query of negative pid, or without a match in what is left, is
    skipped and counted.

    Protocols. "official": the gallery is all its rows, those of the queries included; only a query's own row
    is left out of its own gallery. "gallery-excludes-queries": the rows of all queries are left out of every
    gallery. On MARS, with query_row into the 12,180 test tracklets, the first has 1,980 valid queries and the
    second 1,840 and 140 skipped. For a gallery that holds no queries, as that of Market-1501, they are the
    same.

    Ties: a true match ranks behind every wrong entry at the same distance, so the scores do not depend on
    the order of the gallery, and a model that puts everything at one distance gets the worst score, not a
    lucky one.

    Args:
        distance: (q, g), small = similar; inf allowed, NaN not; float32 in row order is fastest, and what is
            neither floating-point nor integers of up to 32 bits is compared as float64. Or a tuple of unit
            features, (q, d) of the queries and (g, d) of the gallery: the same scores as those of
            `rank.distance` of the two, which is then never held whole. Of a torch tensor, or a tuple that
            begins with one, its device counts: the same scores for the same distances.
        query_pid: (q,) int. gallery_pid: (g,) int.
        query_camid: (q,) int. gallery_camid: (g,) int.
        protocol: "official" or "gallery-excludes-queries", as above.
        query_row: (q,) int, the gallery row that is the query itself, −1 where there is none; nowhere by
            default. Needed for "gallery-excludes-queries".
        same_camera: count matches in the query's own camera too (give `query_row` then, or the query may
            find itself).
        ap: "hits", the mean of the precision at each true match; "trapezoid", the mean of the precisions at
            and just before it (MARS and Market-1501 MATLAB code); "sklearn", scikit-learn's
            average_precision_score, which differs from "hits" only where true matches tie with one another:
            each then gets the precision after the last of them.
        max_rank: length of the CMC curve at most; it is no longer than the gallery.
        note: put before the names of protocol, camera rule and AP in the result.

    Returns:
        Scores. mAP and cmc are NaN where no query is valid. The same whatever the number of threads.
        Memory: O(q + g); from features, per thread, 64 MB or 64 · g floats where that is more, and two
        blocks of 1,024 rows in float64. On a device 600 MB, or 40 · g bytes where that is more.

    Raises:
        ValueError: shapes disagree; NaN distances; distances, persons or cameras that are not numbers of
            their kind; an unknown `ap` or `protocol`; max_rank < 1; `query_row` missing or out of range;
            features that `rank.distance` refuses.

    Example:
        >>> import numpy as np
        >>> d = np.array([[0.1, 0.2, 0.3]])
        >>> evaluate(d, np.array([7]), np.array([5, 7, 7]), np.array([0]), np.array([1, 1, 1])).mAP
        0.5833333333333333

    Source: Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015 (protocol);
    "MARS", ECCV 2016.
    """
    if ap not in AP:
        raise Refusal(f'ap is "{ap}", expected one of {", ".join(AP)}')
    if protocol not in PROTOCOLS:
        raise Refusal(f'protocol is "{protocol}", expected one of {", ".join(PROTOCOLS)}')
    if max_rank < 1:
        raise Refusal(f"max_rank is {max_rank}, expected at least 1")
    block, (q, g), kind, step = _rows_of(distance)
    query_pid = _labels(query_pid, "query_pid", q, (q, g))
    gallery_pid = _labels(gallery_pid, "gallery_pid", g, (q, g))
    query_camid = _labels(query_camid, "query_camid", q, (q, g))
    gallery_camid = _labels(gallery_camid, "gallery_camid", g, (q, g))
    own = _check_query_row(query_row, protocol, (q, g))

    hidden = gallery_pid < 0
    if protocol == "gallery-excludes-queries":
        hidden[own[own >= 0]] = True
    hide: Array = np.where(hidden, np.nan, 0).astype(kind)
    shown = np.flatnonzero(~hidden)
    member = shown[np.argsort(gallery_pid[shown], kind="stable")]
    first = np.searchsorted(gallery_pid[member], query_pid, side="left")
    last = np.searchsorted(gallery_pid[member], query_pid, side="right")

    from tracklearn.core.kernels.rank import score, score_counted

    precision, ahead = np.zeros(q), np.zeros(q, np.int64)
    rule = bool(same_camera), AP.index(ap)

    def fill(low: int) -> None:
        rows = slice(low, min(q, low + step))
        asked = first[rows], last[rows], query_camid[rows], own[rows]
        score(block(rows), hide, member, gallery_camid, *asked, *rule, precision[rows], ahead[rows])

    if _is_torch(distance):
        from tracklearn.core.device.rank import counts

        for low in range(0, q, step):  # one at a time: a device has memory for one, and threads of its own
            rows = slice(low, min(q, low + step))
            asked = first[rows], last[rows], query_pid[rows], query_camid[rows], own[rows]
            counted = counts(block(rows), hidden, gallery_pid, gallery_camid, member, asked, rule[0])
            score_counted(*counted, rule[1], precision[rows], ahead[rows])
    else:
        threads.each(fill, range(0, q, step))
    _refuse_rows(np.flatnonzero(ahead == -2))
    valid = ahead >= 0
    n_valid = int(valid.sum())
    length = min(max_rank, g)
    first_hits = np.bincount(ahead[valid & (ahead < length)], minlength=length)
    camera = "same camera allowed" if same_camera else "cross-camera"
    return Scores(
        mAP=float(np.mean(precision[valid])) if n_valid else float("nan"),
        cmc=np.cumsum(first_hits) / n_valid if n_valid else np.full(length, np.nan),
        n_valid=n_valid,
        n_skipped=q - n_valid,
        protocol=", ".join(filter(None, [note, protocol, camera, f"AP {ap}"])),
    )


def _is_torch(distance: object) -> bool:
    """Whether it is a tensor, or a tuple that begins with one."""
    return is_tensor(distance[0] if isinstance(distance, tuple) else distance)


def _rows_of(
    distance: Array | Tensor | tuple[Array | Tensor, Array | Tensor],
) -> tuple[Callable[[slice], Any], tuple[int, int], type, int]:
    """The distances of a range of queries, the shape of all, their type, and the range to take at a time."""
    if _is_torch(distance):
        from tracklearn.core.device.rank import rows_of

        return rows_of(distance)
    if isinstance(distance, tuple):
        query, gallery = _check_pair(*distance)
        g = len(gallery)
        step = max(_ROWS, min(_BLOCK, _CELLS // max(1, g)))
        return lambda rows: _distance_of(query[rows], gallery), (len(query), g), np.float32, step
    matrix = np.asarray(distance)
    if matrix.ndim != 2:
        raise Refusal(f"distance has shape {matrix.shape}, expected (query, gallery)")
    if matrix.dtype.kind not in "fiub":
        raise Refusal(f"distance has dtype {matrix.dtype}, expected real numbers")
    kind = np.float32 if matrix.dtype.kind == "f" and matrix.dtype.itemsize <= 4 else np.float64
    return lambda rows: np.ascontiguousarray(matrix[rows], kind), matrix.shape, kind, _ROWS


def _labels(value: Array, name: str, size: int, shape: tuple[int, int]) -> Array:
    value = np.asarray(on_host(value))
    if value.shape != (size,):
        raise Refusal(f"{name} has shape {value.shape}, expected ({size},) to go with distance {shape}")
    if size and value.dtype.kind not in "iub":
        raise Refusal(f"{name} has dtype {value.dtype}, expected integers")
    return value.astype(np.int64)


def _check_query_row(query_row: Array | None, protocol: Protocol, shape: tuple[int, int]) -> Array:
    q, g = shape
    if query_row is None:
        if protocol == "gallery-excludes-queries":
            raise Refusal(
                f'protocol "{protocol}" needs query_row: the gallery row of each query, −1 where it has none'
            )
        return np.full(q, -1)
    own = _labels(query_row, "query_row", q, shape)
    if q and (own.max() >= g or own.min() < -1):
        raise Refusal(
            f"query_row runs from {own.min()} to {own.max()}, expected gallery rows 0..{g - 1} or −1"
        )
    return own


def _refuse_nan(distance: Array) -> None:
    _refuse_rows(np.flatnonzero(np.isnan(distance).any(1)))


def _refuse_rows(bad: Array) -> None:
    if len(bad):
        raise Refusal(f"distance holds NaN in {len(bad)} rows, the first is query {bad[0]}")
