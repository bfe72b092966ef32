"""Retrieval: distances, re-ranking, search, and the scores CMC and mAP."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tracklearn.core.features import check_unit
from tracklearn.core.jaccard import Mode, check_settings, columns_needed, reciprocal_encoding
from tracklearn.core.neighbors import k_nearest_and_farthest, k_nearest_of
from tracklearn.types import Matches, Scores

Array = NDArray[Any]
AveragePrecision = Literal["hits", "trapezoid", "sklearn"]
AP: tuple[AveragePrecision, ...] = ("hits", "trapezoid", "sklearn")

_BLOCK = 1024


def distance(query: Array, gallery: Array) -> Array:
    """Euclidean distances of unit rows.

    Computed in float64 by blocks, so that the distance of equal rows is 0 and not the 3e-4 that float32
    products leave.

    Args:
        query: (q, d) unit rows.
        gallery: (g, d) unit rows.

    Returns:
        (q, g) float32, 0-2. Memory: the result and two blocks of 1,024 rows in float64.

    Raises:
        ValueError: features not finite, not of unit length (within 1e-3) or all zero; widths differ.

    Example:
        >>> import numpy as np
        >>> distance(np.eye(2), np.eye(2)).round(3).tolist()
        [[0.0, 1.4140000343322754], [1.4140000343322754, 0.0]]
    """
    query, gallery = check_unit(query, "query"), check_unit(gallery, "gallery")
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query has width {query.shape[1]} and gallery {gallery.shape[1]}: "
            "features of two networks cannot be compared"
        )
    out = np.empty((len(query), len(gallery)), np.float32)
    for left in range(0, len(query), _BLOCK):
        a = query[left : left + _BLOCK].astype(np.float64)
        for right in range(0, len(gallery), _BLOCK):
            b = gallery[right : right + _BLOCK].astype(np.float64)
            squared = np.einsum("ij,ij->i", a, a)[:, None] + np.einsum("ij,ij->i", b, b) - 2 * (a @ b.T)
            # Below the rounding of the sums above, equal is all that can be said.
            squared[squared < 1e-14] = 0
            out[left : left + _BLOCK, right : right + _BLOCK] = np.sqrt(squared)
    return out


def rerank(
    query: Array,
    gallery: Array,
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    mode: Mode = "mmt",
) -> Array:
    """Distances re-ranked by k-reciprocal neighbourhoods, (1 − λ) · Jaccard + λ · original.

    Neighbourhoods are looked for among queries and gallery together, queries first, so the distances of one
    query depend on what else is asked. The original distance is the squared Euclidean one divided by the
    greatest from that query to any row. The Jaccard distance is that of `jaccard.jaccard_distance`, its note
    on identical rows included. Small = similar; `evaluate` and `nearest(..., distance=)` take the result.

    Args:
        query: (q, d) unit rows.
        gallery: (g, d) unit rows.
        k1: neighbours of the reciprocal sets, at least 1; more than q + g − 1 act as q + g − 1.
        k2: neighbours averaged over, itself included, at least 1; clipped to q + g.
        lambda_value: weight λ of the original distance, 0-1.
        mode: what the Jaccard part is made of, as in `jaccard_distance`. "mmt", the default, is the authors'
            own code: exp of the divided distance; "tracklearn": of the distance itself; "spcl": so, with k1
            neighbours in which the row itself counts.

    Returns:
        (q, g) float32, 0-1 up to rounding. Memory above it: a copy of the features,
        O((q + g) · neighbours) for the Jaccard part, and blocks of under 100 MB.

    Raises:
        ValueError: k1, k2 or lambda_value out of range; an unknown mode; features not finite, not of unit
            length (within 1e-3) or all zero; widths differ.

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
        raise ValueError(f"lambda_value is {lambda_value}, expected a weight in 0-1")
    out = distance(query, gallery)
    if not out.size:
        return out
    q = len(out)
    features = np.concatenate([check_unit(query, "query"), check_unit(gallery, "gallery")])
    known = k_nearest_and_farthest(features, columns_needed(len(features), k1, k2, mode))
    far = known[2]
    np.multiply(out, out, out=out)
    out *= (lambda_value * (1 / far)[:q, None]).astype(np.float32)
    out += np.float32(1 - lambda_value)

    from tracklearn.core.kernels.jaccard import overlap

    encoding = reciprocal_encoding(features, k1, k2, mode=mode, known=known)
    rows = (encoding.indptr.astype(np.int64), encoding.indices.astype(np.int32), encoding.data)
    turned = encoding[q:].tocsc()  # only gallery rows are looked up
    columns = (turned.indptr.astype(np.int64), (turned.indices + q).astype(np.int32), turned.data)
    for lo in range(0, q, _BLOCK):
        hi = min(q, lo + _BLOCK)
        count, column, jaccard = overlap(*rows, *columns, lo, hi, np.float32(1))
        row = np.repeat(np.arange(lo, hi), count)
        found = column >= q  # the kernel gives each row its own diagonal entry too
        # Pairs that share no neighbour are at Jaccard distance 1, which `out` holds already.
        out[row[found], column[found] - q] -= np.float32(1 - lambda_value) * (1 - jaccard[found])
    return out


def nearest(query: Array, gallery: Array, k: int, *, distance: Array | None = None) -> Matches:
    """The k nearest gallery rows of each query, nearest first, ties to the lower row.

    Distances are √(2 − 2 x·y): equal rows read 0 to 3e-4, as far as their float32 lengths are from 1.

    Args:
        query: (q, d) unit rows.
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


def _smallest(distance: Array, shape: tuple[int, int], k: int) -> tuple[Array, Array]:
    """Columns and values of the k smallest entries of each row, ties to the lower column."""
    distance = np.asarray(distance)
    if distance.shape != shape:
        raise ValueError(f"distance has shape {distance.shape}, expected (query, gallery) = {shape}")
    _refuse_nan(distance)
    if k < 1:
        raise ValueError(f"k is {k}, expected at least 1")
    k = min(k, shape[1])
    index = np.empty((shape[0], k), np.int64)
    if k:
        for i, row in enumerate(distance):
            # All that tie with the k-th stay in, so that the stable sort can choose the lower rows.
            close = np.flatnonzero(row <= np.partition(row, k - 1)[k - 1])
            index[i] = close[np.argsort(row[close], kind="stable")[:k]]
    return index, np.take_along_axis(distance, index, axis=1)


def evaluate(
    distance: Array,
    query_pid: Array,
    gallery_pid: Array,
    query_camid: Array,
    gallery_camid: Array,
    *,
    same_camera: bool = False,
    exclude: Array | None = None,
    ap: AveragePrecision = "hits",
    max_rank: int = 50,
    protocol: str = "",
) -> Scores:
    """CMC and mAP of a distance matrix.

    Left out of each query's gallery: junk (pid −1); the row named by `exclude`; and, unless `same_camera`,
    entries of the query's person in the query's camera. Distractors (pid 0 on MARS and Market-1501) stay.
    A query of pid −1, or without a match in what is left, is skipped and counted.

    Ties: a true match ranks behind every wrong entry at the same distance, so the scores do not depend on
    the order of the gallery, and a model that puts everything at one distance gets the worst score, not a
    lucky one.

    Args:
        distance: (q, g), small = similar; inf allowed, NaN not.
        query_pid: (q,) int. gallery_pid: (g,) int.
        query_camid: (q,) int. gallery_camid: (g,) int.
        same_camera: count matches in the query's own camera too (give `exclude` then, or the query may find
            itself).
        exclude: (q,) int, gallery row to drop for each query (the query itself), −1 for none.
        ap: "hits", the mean of the precision at each true match; "trapezoid", the mean of the precisions at
            and just before it (MARS and Market-1501 MATLAB code); "sklearn", scikit-learn's
            average_precision_score, which differs from "hits" only where true matches tie with one another:
            each then gets the precision after the last of them.
        max_rank: length of the CMC curve at most; it is no longer than the gallery.
        protocol: a name for the gallery's make-up, kept in the result beside the camera rule and the AP.

    Returns:
        Scores. mAP and cmc are NaN where no query is valid.

    Raises:
        ValueError: shapes disagree; NaN distances; an unknown `ap`; max_rank < 1; `exclude` out of range.

    Example:
        >>> import numpy as np
        >>> d = np.array([[0.1, 0.2, 0.3]])
        >>> evaluate(d, np.array([7]), np.array([5, 7, 7]), np.array([0]), np.array([1, 1, 1])).mAP
        0.5833333333333333

    Source: Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015 (protocol);
    "MARS", ECCV 2016.
    """
    distance, exclude = _check(
        distance, query_pid, gallery_pid, query_camid, gallery_camid, exclude, ap, max_rank
    )
    query_pid, gallery_pid = np.asarray(query_pid), np.asarray(gallery_pid)
    query_camid, gallery_camid = np.asarray(query_camid), np.asarray(gallery_camid)
    known = gallery_pid >= 0
    length = min(max_rank, len(gallery_pid))
    first_hits = np.zeros(length, np.int64)
    precisions = []
    for i, row in enumerate(distance):
        true = known & (gallery_pid == query_pid[i])
        wrong = known & ~true
        if not same_camera:
            true &= gallery_camid != query_camid[i]
        if exclude[i] >= 0:
            true[exclude[i]] = wrong[exclude[i]] = False
        hit = np.sort(row[true])
        if not len(hit):
            continue
        # A wrong entry stands before the first match that is not nearer, and before all later ones.
        before = np.cumsum(np.bincount(np.searchsorted(hit, row[wrong]), minlength=len(hit) + 1)[: len(hit)])
        precisions.append(_average_precision(hit, before, ap))
        if before[0] < length:
            first_hits[before[0]] += 1
    n_valid = len(precisions)
    return Scores(
        mAP=float(np.mean(precisions)) if n_valid else float("nan"),
        cmc=np.cumsum(first_hits) / n_valid if n_valid else np.full(length, np.nan),
        n_valid=n_valid,
        n_skipped=len(distance) - n_valid,
        protocol=", ".join(
            filter(None, [protocol, "same camera allowed" if same_camera else "cross-camera", f"AP {ap}"])
        ),
    )


def _average_precision(hit: Array, before: Array, ap: AveragePrecision) -> float:
    """AP of one query from the sorted distances of its matches and the wrong entries before each."""
    found = np.arange(1, len(hit) + 1)
    if ap == "sklearn":
        found = np.searchsorted(hit, hit, side="right")
    precision = found / (found + before)
    if ap == "trapezoid":
        earlier = found - 1 + before
        precision = (precision + np.where(earlier > 0, (found - 1) / np.maximum(earlier, 1), 1.0)) / 2
    return float(precision.mean())


def _refuse_nan(distance: Array) -> None:
    bad = np.flatnonzero(np.isnan(distance).any(1))
    if len(bad):
        raise ValueError(f"distance holds NaN in {len(bad)} rows, the first is query {bad[0]}")


def _check(
    distance: Array,
    query_pid: Array,
    gallery_pid: Array,
    query_camid: Array,
    gallery_camid: Array,
    exclude: Array | None,
    ap: str,
    max_rank: int,
) -> tuple[Array, Array]:
    distance = np.asarray(distance)
    if distance.ndim != 2:
        raise ValueError(f"distance has shape {distance.shape}, expected (query, gallery)")
    q, g = distance.shape
    for name, value, size in (
        ("query_pid", query_pid, q),
        ("gallery_pid", gallery_pid, g),
        ("query_camid", query_camid, q),
        ("gallery_camid", gallery_camid, g),
        ("exclude", np.full(q, -1) if exclude is None else exclude, q),
    ):
        if np.shape(value) != (size,):
            raise ValueError(
                f"{name} has shape {np.shape(value)}, expected ({size},) to go with distance ({q}, {g})"
            )
    _refuse_nan(distance)
    if ap not in AP:
        raise ValueError(f'ap is "{ap}", expected one of {", ".join(AP)}')
    if max_rank < 1:
        raise ValueError(f"max_rank is {max_rank}, expected at least 1")
    exclude = np.full(q, -1) if exclude is None else np.asarray(exclude)
    if q and (exclude.max() >= g or exclude.min() < -1):
        raise ValueError(
            f"exclude runs from {exclude.min()} to {exclude.max()}, expected gallery rows 0..{g - 1} or −1"
        )
    return distance, exclude
