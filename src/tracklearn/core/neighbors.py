"""Exact k nearest neighbours of unit vectors, by blocks, without an n × n matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracklearn.core.features import check_unit

Array = NDArray[Any]

_CELLS = 1 << 24  # similarities held at a time: 64 MB


def k_nearest(features: Array, k: int, *, exclude_self: bool = False) -> tuple[Array, Array]:
    """The k nearest rows of every row, nearest first, by the squared Euclidean distance 2 − 2 x·y.

    Exact: float32 products only propose; whatever their rounding could hide is computed again in float64.
    Distances closer than about 1e-12 are ties, and ties go to the lower row, so a row is not always its own
    first neighbour: its duplicates may come before it.

    Args:
        features: (n, d) unit rows.
        k: neighbours asked for, at least 1. There are at most n (n − 1 with `exclude_self`): more are
            clipped, and the result has that many columns.
        exclude_self: leave each row out of its own list.

    Returns:
        index (n, min(k, n)) int64 and squared_distance of the same shape, float32, not negative.
        Memory: 64 MB above input and output.

    Raises:
        ValueError: k < 1; features not finite, not of unit length (within 1e-3), or all zero: names rows.

    Example:
        >>> import numpy as np
        >>> x = np.array([[1, 0], [0, 1], [0.8, 0.6]], np.float32)
        >>> k_nearest(x, 2)[0].tolist()
        [[0, 2], [1, 2], [2, 0]]
    """
    features = check_unit(features)
    return _nearest(features, features, k, exclude_self=exclude_self)


def k_nearest_and_farthest(features: Array, k: int) -> tuple[Array, Array, Array]:
    """What `k_nearest` gives, and how far away from each row the farthest one is, in one pass.

    Args:
        features: (n, d) unit rows.
        k: as for `k_nearest`.

    Returns:
        index and squared_distance as `k_nearest`; farthest (n,) float64, the greatest squared distance of
        each row to about 1e-6, 1 where all rows are the same.

    Raises:
        ValueError: as `k_nearest`.
    """
    features = check_unit(features)
    index, squared = _nearest(features, features, k, exclude_self=False)
    step = max(1, _CELLS // max(1, len(features)))
    least = [(features[lo : lo + step] @ features.T).min(1) for lo in range(0, len(features), step)]
    far = 2 - 2 * np.concatenate([np.zeros(0), *least])
    return index, squared, np.where(far > 1e-6, far, 1.0)


def k_nearest_of(query: Array, gallery: Array, k: int) -> tuple[Array, Array]:
    """The k nearest gallery rows of every query, as `k_nearest` finds them.

    Args:
        query: (q, d) unit rows.
        gallery: (n, d) unit rows.
        k: neighbours asked for, at least 1; clipped to n.

    Returns:
        index (q, min(k, n)) int64 and squared_distance float32, nearest first, ties to the lower row.

    Raises:
        ValueError: as for `k_nearest`, or the widths differ.
    """
    query, gallery = check_unit(query, "query"), check_unit(gallery, "gallery")
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query has width {query.shape[1]} and gallery {gallery.shape[1]}: "
            "features of two networks cannot be compared"
        )
    return _nearest(query, gallery, k, exclude_self=False)


def _nearest(query: Array, gallery: Array, k: int, *, exclude_self: bool) -> tuple[Array, Array]:
    if k < 1:
        raise ValueError(f"k is {k}, expected at least 1")
    q, n, width = len(query), len(gallery), gallery.shape[1]
    k = max(0, min(k, n - exclude_self))
    index = np.empty((q, k), np.int64)
    squared = np.empty((q, k), np.float32)
    if not index.size:
        return index, squared

    from tracklearn.core.kernels.neighbors import select

    # A float32 dot product of unit vectors of width d errs by at most d·2^-24; two of them are compared,
    # and 1e-9 covers the steps in which the kernel compares distances.
    slack = 2.1 * (width + 2) * 2.0**-24 + 1e-9
    step = max(1, min(q, _CELLS // n))
    for lo in range(0, q, step):
        block = query[lo : lo + step]
        similarity = block @ gallery.T
        if exclude_self:
            own = np.arange(len(block))
            similarity[own, lo + own] = -np.inf
        select(similarity, block, gallery, slack, index[lo : lo + step], squared[lo : lo + step])
    return index, squared
