"""Inner loops of `core.moments`."""

from __future__ import annotations

import numpy as np

from tracklearn.core.kernels.compiled import kernel


@kernel()
def meet(start, film, frame, box, share, pairs, count):
    """Goes through the tracklets that are in view of one camera together, and what their boxes share.

    start (t + 1,): rows of each tracklet, in an order in which those of one film stand together, by their
    first frames. film (t,): which film each is of. frame (n,), box (n, 4) float64: of the rows.
    share (n,) gets the most of the smaller of two boxes that each shares with another of its moment.
    pairs (p, 2) and count (p, 2) get the pairs with a moment at which their boxes do not touch, and their
    moments apart and touching, while there is room; returns how many pairs there are.
    """
    n = 0
    for i in range(film.shape[0]):
        end = frame[start[i + 1] - 1]
        for j in range(i + 1, film.shape[0]):
            if film[j] != film[i] or frame[start[j]] > end:
                break
            apart = touching = 0
            a, b = start[i], start[j]
            while a < start[i + 1] and b < start[j + 1]:
                if frame[a] < frame[b]:
                    a += 1
                    continue
                if frame[a] > frame[b]:
                    b += 1
                    continue
                both = _shared(box[a], box[b])
                if both > 0:
                    touching += 1
                    share[a] = max(share[a], both)
                    share[b] = max(share[b], both)
                else:
                    apart += 1
                a += 1
                b += 1
            if apart:
                if n < pairs.shape[0]:
                    pairs[n, 0], pairs[n, 1] = i, j
                    count[n, 0], count[n, 1] = apart, touching
                n += 1
    return n


@kernel()
def _shared(a, b):
    """Share of the smaller box that lies in the other, 0-1; 1 where a box has no area."""
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    least = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    if not least > 0:
        return 1.0
    return wide * high / least if wide > 0 and high > 0 else 0.0


@kernel()
def steady(box, last, out):
    """Fills out (n,): intersection over union of each box and the row's before; 0 where `last` is False."""
    for i in range(box.shape[0]):
        out[i] = 0.0
        if i == 0 or not last[i]:
            continue
        wide = min(box[i, 2], box[i - 1, 2]) - max(box[i, 0], box[i - 1, 0])
        high = min(box[i, 3], box[i - 1, 3]) - max(box[i, 1], box[i - 1, 1])
        if wide > 0 and high > 0:
            area = np.float64(0)
            for k in (i, i - 1):
                area += (box[k, 2] - box[k, 0]) * (box[k, 3] - box[k, 1])
            out[i] = wide * high / (area - wide * high)
