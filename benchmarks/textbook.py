"""The dense clustering that papers describe and re-ranking codes run: the reference for `clustering`.

Written from Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017,
sections 3.2-3.4, in the way the public codes go about it: a full n × n distance matrix, every row sorted,
Python loops over rows, a dense matrix of weights, and one list of rows for each of its columns. float32
throughout, as there. The convention is this project's (`core.jaccard`), so that both give the same distances:
unit rows, d = 2 − 2 x·y not divided by its greatest value, N(i, k) with i itself, ties to the lower row.

Memory: O(n²), at 8,298 rows 1-2 GB.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_UNSURE = 4e-6  # float32 products of unit rows err less: distances further apart than this are in order
_STEPS = 2.0**40  # distances in float64 that round to the same step are ties


class Clusters(NamedTuple):
    """`distance` (n, n) float32, the `eps` taken from it, and `label` (n,) int64, −1 noise."""

    distance: Array
    eps: float
    label: Array


def associate(features: Array, *, k1: int, k2: int, rho: float, min_samples: int) -> Clusters:
    """Jaccard distance, eps from the data, and scikit-learn's DBSCAN.

    Args:
        features: (n, d) float32 unit rows, n > k1.
        k1, k2, rho, min_samples: as in `tracklearn.core.cluster.associate`.
    """
    from sklearn.cluster import DBSCAN

    distance = jaccard_distance(features, k1, k2)
    eps = data_dependent_eps(distance, rho)
    label = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(distance)
    return Clusters(distance, eps, label.astype(np.int64))


def jaccard_distance(features: Array, k1: int, k2: int) -> Array:
    """(n, n) float32 Jaccard distances between k-reciprocal neighbourhoods.

    Args:
        features: (n, d) float32 unit rows, n > k1.
        k1: neighbours of the reciprocal sets. k2: neighbours averaged over, itself included.
    """
    n = len(features)
    squared = features @ features.T
    squared *= -2
    squared += 2
    rank = np.argsort(squared, axis=1).astype(np.int32)
    _settle_ties(rank, squared, features, max(k1 + 1, k2))

    half = int(np.around(k1 / 2))
    weight = np.zeros((n, n), np.float32)
    for i in range(n):
        members = _reciprocal(rank, i, k1)
        expanded = members
        for j in members:
            candidates = _reciprocal(rank, j, half)
            if 3 * len(np.intersect1d(candidates, members)) > 2 * len(candidates):
                expanded = np.append(expanded, candidates)
        expanded = np.unique(expanded)
        near = np.exp(-np.maximum(squared[i, expanded], 0))
        weight[i, expanded] = near / near.sum()
    del squared

    if k2 > 1:
        mean = np.zeros_like(weight)
        for i in range(n):
            mean[i] = weight[rank[i, :k2]].mean(axis=0)
        weight = mean
        del mean
    del rank

    rows_with = [np.flatnonzero(weight[:, c]) for c in range(n)]
    distance = np.zeros((n, n), np.float32)
    for i in range(n):
        shared = np.zeros(n)
        for c in np.flatnonzero(weight[i]):
            rows = rows_with[c]
            shared[rows] += np.minimum(weight[i, c], weight[rows, c])
        distance[i] = 1 - shared / (2 - shared)
    distance[distance < 1e-6] = 0  # rows encoded alike, but for rounding
    np.fill_diagonal(distance, 0)
    return distance


def _reciprocal(rank: Array, i: int, k: int) -> Array:
    """R(i, k): the rows among the k + 1 nearest of i that have i among theirs."""
    forward = rank[i, : k + 1]
    backward = rank[forward, : k + 1]
    return forward[np.where(backward == i)[0]]


def _settle_ties(rank: Array, squared: Array, features: Array, k: int) -> None:
    """Ranks again, in float64, the first k of every row in which float32 leaves the order open."""
    for i in range(len(rank)):
        in_order = squared[i, rank[i, : k + 1]]
        if np.diff(in_order).min() > _UNSURE:
            continue
        near = np.flatnonzero(squared[i] <= in_order[-1] + _UNSURE)
        exact = 2 - 2 * (features[near].astype(np.float64) @ features[i].astype(np.float64))
        order = np.argsort(np.rint(exact * _STEPS), kind="stable")  # `near` grows: ties to the lower row
        rank[i, :k] = near[order[:k]]


def data_dependent_eps(distance: Array, rho: float) -> float:
    """The mean of the smallest share `rho` of the distances above the diagonal that are not 0."""
    upper = np.triu(distance, 1)
    upper = np.sort(upper[np.nonzero(upper)])
    return float(upper[: round(rho * len(upper))].mean(dtype=np.float64))
