"""Whether boxes fit the pictures that they are said to lie in, and what is probable where they do not."""

from __future__ import annotations

import numpy as np

from tracklearn.types import Array

MOST = 0.1  # share of boxes that may leave the picture without a word
_EDGE = 1.0  # pixels: files that count pixels from 1 leave by so much
_FACTORS = (1.25, 4 / 3, 1.5, 2, 2.25, 2.5, 8 / 3, 3, 4, 6, 8, 12, 16)


def misfit(box: Array, width: int, height: int) -> str:
    """What is wrong with `box` on a picture of this size, and the probable reason; "" where it fits.

    Args:
        box: (n, 4), (x1, y1, x2, y2) in pixels.
        width, height: pixels of the picture.
    """
    box = box[np.isfinite(box).all(1)]
    if not len(box):
        return ""
    size = box[:, 2:] - box[:, :2]
    if float(np.mean((size <= 1.5).all(1) & (np.abs(box) <= 3).all(1))) > 1 - MOST:
        return (
            "the boxes are smaller than a pixel: they are probably fractions of the picture (0 to 1): "
            f"multiply left and width by {width}, top and height by {height}"
        )
    share = _leaving(box, width, height)
    if share <= MOST:
        return ""
    what = f"{share:.0%} of the boxes leave the picture of {width}x{height}"
    corners = np.hstack([box[:, :2], size])
    in_order = float(np.mean((corners[:, 2:] > corners[:, :2]).all(1)))
    if in_order > 0.98 and _leaving(corners, width, height) <= share / 4:
        return f"{what}: columns 5 and 6 are probably x2,y2: subtract left and top to get width and height"
    if _leaving(box - np.tile(size / 2, 2), width, height) <= share / 4:
        return f"{what}: columns 3 and 4 are probably the centres of boxes: subtract half of width and height"
    away = (box[:, 0] >= width) | (box[:, 1] >= height) | (box[:, 2] <= 0) | (box[:, 3] <= 0)
    extent = max(np.quantile(box[:, 2], 0.995) / width, np.quantile(box[:, 3], 0.995) / height)
    if extent > 1.1 and away.mean() > MOST / 3:
        factor = next((f for f in _FACTORS if f >= 0.97 * extent), float(extent))
        return (
            f"{what}: they were probably found in a larger picture, about {factor:.3g} times as large "
            f"({width * factor:.0f}x{height * factor:.0f}): divide columns 3 to 6 by {factor:.3g}, or "
            "give that video"
        )
    return f"{what}: whole persons at its border, or results of another video"


def outside(box: Array, width: int, height: int) -> bool:
    """Whether no box has any part in the picture."""
    seen = (box[:, 0] < width) & (box[:, 1] < height) & (box[:, 2] > 0) & (box[:, 3] > 0)
    return bool(len(box)) and not seen.any()


def _leaving(box: Array, width: int, height: int) -> float:
    """Share of boxes with an edge outside the picture."""
    limit = np.array([width, height])
    return float(((box[:, :2] < -_EDGE) | (box[:, 2:] > limit + _EDGE)).any(1).mean())
