"""Features without what their cameras add to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tracklearn.core.features import row_lengths
from tracklearn.types import Array, Refusal

if TYPE_CHECKING:
    from torch import Tensor


LEAST = 1e-12  # floor of a standard deviation


def per_camera(features: Array | Tensor, camid: Array) -> Array:
    """Each feature as its distance from the mean of its camera, in standard deviations, per dimension.

    What all pictures of a camera share, its colours, its light, its angle, is a shift and a scale of its
    features. Taken out, a person looks more alike from camera to camera. Nothing about people is used, but
    cameras that see other people, or other shares of them, lose that difference too.

    Args:
        features: (n, d) numbers.
        camid: (n,) int, camera of each row.

    Returns:
        (n, d) float32: (f − μ)/σ with mean and population standard deviation over the rows of the camera,
        computed in float64, σ at least 1e-12. 0 in a dimension that is constant over the camera. A camera's
        only row is set against mean and deviation of all rows. Memory: a float64 copy of the rows of
        the largest camera beside the result.

    Raises:
        ValueError: as `features.row_lengths`; camid has another length.

    Example:
        >>> per_camera(np.array([[1.0, 5], [3, 5], [10, 1], [30, 2]]), np.array([0, 0, 1, 1])).tolist()
        [[-1.0, 0.0], [1.0, 0.0], [-1.0, -1.0], [1.0, 1.0]]

    Source: Pereira, de Campos, "Learn by Guessing: Multi-Step Pseudo-Label Refinement for Person
    Re-Identification", VISAPP 2022, camera-guided normalisation. A camera with one row is not in the paper.
    """
    features, _ = row_lengths(features)
    camid = np.asarray(camid)
    if camid.shape != (len(features),):
        raise Refusal(f"camid has shape {camid.shape}, expected ({len(features)},): one per feature")
    out = np.empty(features.shape, np.float32)
    for camera in np.unique(camid):
        row = np.flatnonzero(camid == camera)
        own = features[row].astype(np.float64)
        out[row] = (own - _mean(own)) / _deviation(own) if len(row) > 1 else 0
    _, first, count = np.unique(camid, return_index=True, return_counts=True)
    alone = first[count == 1]
    if len(alone):
        mean, deviation = _mean(features), _deviation(features)
        out[alone] = (features[alone] - mean) / deviation
    return out


def _mean(rows: Array) -> Array:
    """Mean of every column; of a constant one that constant, not what rounding makes of it."""
    mean: Array = rows.mean(0, dtype=np.float64)
    return np.where(np.ptp(rows, 0) == 0, rows[0], mean)


def _deviation(rows: Array) -> Array:
    deviation: Array = rows.std(0, dtype=np.float64)
    return np.maximum(deviation, LEAST)
