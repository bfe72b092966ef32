"""Inner loops of `core.neighbors`."""

from __future__ import annotations

import numpy as np
from numba import njit

# Distances are compared in steps of 2**-40 (9e-13): sums of the same numbers in another order, and so
# mathematically equal distances, then tie instead of being told apart by rounding.
_STEPS = 2.0**40


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"}, inline="always")
def squared_distance(x, y):
    """2 − 2 x·y in float64; the same for (x, y) and (y, x)."""
    total = 0.0
    for i in range(x.shape[0]):
        total += np.float64(x[i]) * np.float64(y[i])
    return 2.0 - 2.0 * total


@njit(cache=True, nogil=True)
def select(similarity, query, gallery, slack, index, squared):
    """Fills `index` and `squared` with the nearest gallery rows of each query, exactly.

    `similarity` (b, n) float32 holds query·gallery to within `slack` / 2. Everything that could be among
    the k nearest at that precision is computed again in float64.
    """
    n = similarity.shape[1]
    k = index.shape[1]
    heap = np.empty(k, np.float32)  # the k largest so far, smallest first
    best = np.empty(k, np.float64)
    for r in range(similarity.shape[0]):
        heap[:] = -np.inf
        for j in range(n):
            value = similarity[r, j]
            if value > heap[0]:
                at = 0
                while True:
                    child = 2 * at + 1
                    if child >= k:
                        break
                    if child + 1 < k and heap[child + 1] < heap[child]:
                        child += 1
                    if heap[child] >= value:
                        break
                    heap[at] = heap[child]
                    at = child
                heap[at] = value
        bound = np.float64(heap[0]) - slack
        found = 0
        for j in range(n):
            if similarity[r, j] >= bound:
                d = np.rint(squared_distance(query[r], gallery[j]) * _STEPS) / _STEPS
                if found < k:
                    at = found
                    found += 1
                elif d < best[k - 1]:
                    at = k - 1
                else:
                    continue
                # j grows, so an equal distance stays behind: ties go to the lower row.
                while at > 0 and best[at - 1] > d:
                    best[at] = best[at - 1]
                    index[r, at] = index[r, at - 1]
                    at -= 1
                best[at] = d
                index[r, at] = j
        for i in range(k):
            squared[r, i] = max(best[i], 0.0)
