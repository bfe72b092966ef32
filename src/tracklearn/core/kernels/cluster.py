"""Inner loops of `core.cluster`, over symmetric sparse distances by rows (`start`, `column`, `distance`)."""

from __future__ import annotations

import numpy as np

from tracklearn.core.kernels.compiled import kernel

BINS = 4096


@kernel()
def dbscan(start, column, distance, eps, min_samples, kind):
    """DBSCAN labels (n,), −1 noise; clusters numbered by their lowest core row.

    kind (n,): of neighbours of one kind (0, 1, …) one counts.
    """
    n = start.shape[0] - 1
    parent = np.full(n, -1, np.int64)  # −1: no core point; a root is the lowest core of its cluster
    counted = np.full(n, -1, np.int64)  # by kind, the last row that counted it
    for i in range(n):
        others, d = column[start[i] : start[i + 1]], distance[start[i] : start[i + 1]]
        near = 1
        counted[kind[i]] = i
        for e in range(d.shape[0]):
            if d[e] <= eps and counted[kind[others[e]]] != i:
                counted[kind[others[e]]] = i
                near += 1
        if near >= min_samples:
            parent[i] = i
    for i in range(n):
        if parent[i] >= 0:
            others, d = column[start[i] : start[i + 1]], distance[start[i] : start[i + 1]]
            for e in range(d.shape[0]):
                if d[e] <= eps and others[e] < i and parent[others[e]] >= 0:
                    a, b = _root(parent, i), _root(parent, others[e])
                    parent[max(a, b)] = min(a, b)
    label = np.full(n, -1, np.int64)
    n_clusters = 0
    for i in range(n):
        if parent[i] >= 0:
            root = _root(parent, i)
            if root == i:
                label[i] = n_clusters
                n_clusters += 1
            else:
                label[i] = label[root]
    for i in range(n):
        if parent[i] < 0:
            best = n
            others, d = column[start[i] : start[i + 1]], distance[start[i] : start[i + 1]]
            for e in range(d.shape[0]):
                if d[e] <= eps and parent[others[e]] >= 0:
                    best = min(best, label[others[e]])
            if best < n:
                label[i] = best
    return label


@kernel()
def _root(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel()
def histogram(start, column, distance):
    """Numbers of the pairs (i, j), i < j, by distance.

    Returns count (BINS + 2,): [b / BINS, (b + 1) / BINS) for b below BINS, without exact zeros; exactly 1;
    above 1. And the number of exact zeros.
    """
    count = np.zeros(BINS + 2, np.int64)
    zero = 0
    for i in range(start.shape[0] - 1):
        others, d = column[start[i] : start[i + 1]], distance[start[i] : start[i + 1]]
        for e in range(d.shape[0]):
            if others[e] > i:
                value = d[e]
                if value == 0:
                    zero += 1
                elif value > 1:
                    count[BINS + 1] += 1
                else:
                    count[np.uint32(value * BINS)] += 1
    return count, zero


@kernel()
def sum_below(start, column, distance, lower, upper, n_between):
    """Sum of the pairs' distances below `lower`, and the `n_between` of them in [lower, upper).

    Exact zeros are in neither; infinity is above every `upper`, and fills what stays empty for it.
    """
    between = np.full(n_between, np.inf)
    found = 0
    total = 0.0
    for i in range(start.shape[0] - 1):
        others, d = column[start[i] : start[i + 1]], distance[start[i] : start[i + 1]]
        for e in range(d.shape[0]):
            value = d[e]
            if value < upper and others[e] > i:  # in this order: few are below
                if value < lower or value == 0:
                    total += value
                else:
                    between[found] = value
                    found += 1
    return total, between
