"""What all detectors do with their boxes: clip them to the picture, drop doubles, put the best first."""

from __future__ import annotations

import numpy as np

from tracklearn.core.boxes import iou
from tracklearn.types import Array


def empty() -> tuple[Array, Array]:
    """No detection: box (0, 4), score (0,), float32."""
    return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)


def tidy(box: Array, score: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Boxes clipped to a picture of `shape` (h, w, ...), best first; under a pixel wide or high is dropped.

    Returns:
        box (k, 4) float32, score (k,) float32; rows that are not finite are dropped too.
    """
    height, width = shape[:2]
    box = np.asarray(box, np.float32).reshape(-1, 4)
    score = np.asarray(score, np.float32).reshape(-1)
    fine = np.isfinite(box).all(1) & np.isfinite(score)
    box, score = box[fine], score[fine]
    box = np.clip(box, 0, np.array([width, height, width, height], np.float32))
    keep = (box[:, 2] - box[:, 0] >= 1) & (box[:, 3] - box[:, 1] >= 1)
    box, score = box[keep], score[keep]
    order = np.argsort(-score, kind="stable")
    return box[order], score[order]


def suppress(box: Array, score: Array, *, max_iou: float) -> Array:
    """Greedy non-maximum suppression: rows to keep, best first; none overlaps a better one by over `max_iou`.

    Args:
        box: (k, 4) float. score: (k,) float; ties go to the earlier row.

    Returns:
        (m,) int64 rows.
    """
    order = np.argsort(-np.asarray(score), kind="stable")
    overlap = iou(box[order], box[order]) > max_iou
    keep = np.ones(len(order), bool)
    for i in range(len(order)):
        if keep[i]:
            keep[i + 1 :] &= ~overlap[i, i + 1 :]
    return order[keep]
