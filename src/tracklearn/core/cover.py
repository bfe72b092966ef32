"""Covered frames: a box that another person's box hides, told from the boxes alone."""

from __future__ import annotations

import numpy as np

from tracklearn.types import Array, Refusal


def covered(camera: Array, frame: Array, box: Array) -> Array:
    """How much of each box lies under one other box of the same picture that is nearer to the camera.

    Of two people who stand on the ground the one whose lower edge is lower in the picture is nearer. A person
    whom the tracker has no box for covers nobody here.

    Args:
        camera: (n,) int, number of the camera that each box is from.
        frame: (n,) int, frame number there.
        box: (n, 4) x1, y1, x2, y2 in pixels.

    Returns:
        (n,) float64 share of the box's area, 0–1; 0 for a box without an area.

    Raises:
        ValueError: shapes disagree.

    >>> covered(np.zeros(2, int), np.zeros(2, int), np.array([[0, 0, 10, 20], [5, 10, 15, 30]]))
    array([0.25, 0.  ])
    """
    from tracklearn.core.kernels import cover

    box = np.ascontiguousarray(box, np.float64)
    n = len(box)
    if box.shape != (n, 4) or np.shape(camera) != (n,) or np.shape(frame) != (n,):
        raise Refusal(
            f"camera, frame and box have shapes {np.shape(camera)}, {np.shape(frame)} and {box.shape}, "
            "expected (n,), (n,) and (n, 4)"
        )
    order = np.lexsort((frame, camera))
    picture = np.stack([camera, frame])[:, order]
    edge = np.r_[0, 1 + np.flatnonzero((np.diff(picture) != 0).any(0)), n]
    share = np.zeros(n)
    found = np.zeros(n)
    cover.covered(box[order], edge, found)
    share[order] = found
    return share
