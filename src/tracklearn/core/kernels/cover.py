"""Inner loop of `core.cover`."""

from __future__ import annotations

from tracklearn.core.kernels.compiled import kernel


@kernel()
def covered(box, edge, share):
    """Fills `share` (n,): of each box's area, the most that lies under one box with a lower lower edge.

    box (n, 4) float64 x1, y1, x2, y2; those of one picture are edge[q] to edge[q + 1] − 1.
    """
    for q in range(edge.shape[0] - 1):
        for i in range(edge[q], edge[q + 1]):
            share[i] = 0.0
            area = (box[i, 2] - box[i, 0]) * (box[i, 3] - box[i, 1])
            if not area > 0:
                continue
            for j in range(edge[q], edge[q + 1]):
                if box[j, 3] > box[i, 3]:
                    wide = min(box[i, 2], box[j, 2]) - max(box[i, 0], box[j, 0])
                    high = box[i, 3] - max(box[i, 1], box[j, 1])
                    if wide > 0 and high > 0:
                        share[i] = max(share[i], wide * high / area)
