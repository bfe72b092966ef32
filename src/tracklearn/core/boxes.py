"""Boxes: how much of one lies in another."""

from __future__ import annotations

import numpy as np

from tracklearn.types import Array


def iou(a: Array, b: Array) -> Array:
    """(n, m) float64 intersection over union of boxes `a` (n, 4) and `b` (m, 4); 0 for boxes without area.

    >>> iou(np.array([[0, 0, 2, 2]]), np.array([[1, 0, 3, 2], [0, 0, 2, 2]])).round(2).tolist()
    [[0.33, 1.0]]
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    corner = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    both = corner.clip(0).prod(2)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).clip(0).prod(1) for x in (a, b))
    union = area_a[:, None] + area_b[None] - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)
