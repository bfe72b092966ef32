"""Pictures made to fit where they are shown."""

from __future__ import annotations

import numpy as np

from tracklearn.types import Array, Refusal


def fit(picture: Array, width: int, height: int) -> Array:
    """The picture as uint8 RGB (height, width, 3), its shape kept.

    A picture whose shape is near the tile's fills it (at most a tenth is cut away); any other is shown whole
    on a grey ground.

    Raises:
        ValueError: not a uint8 RGB picture.
    """
    import cv2

    picture = np.asarray(picture)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
        raise Refusal(f"picture is {picture.dtype} {picture.shape}, expected uint8 (h, w, 3) RGB")
    h, w = picture.shape[:2]
    across, down = width / w, height / h
    scale = max(across, down) if max(across, down) <= 1.11 * min(across, down) else min(across, down)
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = cv2.resize(np.ascontiguousarray(picture), size, interpolation=method)
    tile = np.full((height, width, 3), 142, np.uint8)
    dx, dy = (size[0] - width) // 2, (size[1] - height) // 2
    inside = scaled[max(dy, 0) : max(dy, 0) + height, max(dx, 0) : max(dx, 0) + width]
    y, x = max(-dy, 0), max(-dx, 0)
    tile[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return tile
