"""Inner loops of `core.isolate`."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def label_packed(adjacent, core):
    """DBSCAN labels (n,) from packed adjacency rows (n, ceil(n/8)) uint8, least bit first.

    Clusters are numbered by their lowest core row; a border point goes to the lowest cluster in reach.
    """
    n = core.shape[0]
    label = np.full(n, -1, np.int64)
    stack = np.empty(n, np.int64)
    cluster = 0
    for i in range(n):
        if label[i] != -1 or not core[i]:
            continue
        label[i] = cluster
        stack[0] = i
        size = 1
        while size:
            size -= 1
            row = stack[size]
            for b in range(adjacent.shape[1]):
                bits = adjacent[row, b]
                if bits == 0:
                    continue
                for s in range(8):
                    j = 8 * b + s
                    if (bits >> s) & 1 and label[j] == -1:
                        label[j] = cluster
                        if core[j]:
                            stack[size] = j
                            size += 1
        cluster += 1
    return label
