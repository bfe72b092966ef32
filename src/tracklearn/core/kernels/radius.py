"""Inner loops of `core.radius`."""

from __future__ import annotations

import numpy as np

from tracklearn.core.kernels.compiled import kernel
from tracklearn.core.kernels.neighbors import squared_distance


@kernel()
def cosine_distances(features, row, column, steps, out):
    """`out` (m,) = 1 − x·y of the pairs of rows, in float64, to the nearest of `steps` steps in 1."""
    for e in range(row.shape[0]):
        distance = squared_distance(features[row[e]], features[column[e]]) / 2.0
        out[e] = max(0.0, np.rint(distance * steps) / steps)
