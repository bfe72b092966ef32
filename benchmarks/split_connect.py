"""The baseline of identities: tracklets split by DBSCAN and connected by mean distance.

Written from its description alone: a tracklet's frames are split by DBSCAN on cosine distance (0.6, 10
neighbours) into at most 3 parts, noise going to the nearest part; then the two parts with the least mean
pairwise cosine distance are connected while that is below 0.4, never two that overlap in time.

Source: Sun et al., "GTA: Global Tracklet Association for Multi-Object Tracking in Sports" (GTA-Link), 2024.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from tracklearn.core.isolate import isolate
from tracklearn.types import Array, Tracklets

EPS, MIN_SAMPLES, MOST_PARTS, BELOW = 0.6, 10, 3, 0.4


def split(features: Array, tracklets: Tracklets) -> Array:
    """(n,) int64 part of each row in its tracklet, from 0.

    Args:
        features: (n, d) unit, by row of the tracklets.
    """
    part = isolate(
        features, tracklets.tracklet, frame=tracklets.frame, eps=EPS, min_samples=MIN_SAMPLES, metric="cosine"
    )
    out = np.zeros(len(part), np.int64)
    for lo, hi in pairwise(tracklets.start):
        own, x = part[lo:hi], features[lo:hi].astype(np.float64)
        value, size = np.unique(own[own >= 0], return_counts=True)
        kept = value[np.lexsort((value, -size))][:MOST_PARTS]
        if len(kept) < 2:
            continue
        place = np.searchsorted(np.sort(kept), own)
        left = ~np.isin(own, kept)
        mean = np.stack([x[own == v].mean(0) for v in np.sort(kept)])
        place[left] = np.argmax(x[left] @ mean.T, axis=1)
        out[lo:hi] = place
    return out


def connect(features: Array, parts: Tracklets) -> Array:
    """(t,) int64 number of each part after connecting.

    Args:
        features: (n, d) unit, by row of the parts.
        parts: of one camera or several; moments of two cameras never overlap.
    """
    t = len(parts)
    count = parts.length.astype(np.float64)
    total = np.add.reduceat(features.astype(np.float64), parts.start[:-1], axis=0)
    in_view = [
        {(camera, frame) for frame in parts.frame[lo:hi].tolist()}
        for camera, (lo, hi) in zip(parts.camid.tolist(), pairwise(parts.start), strict=True)
    ]
    barred = np.array([[bool(a & b) for b in in_view] for a in in_view], bool).reshape(t, t)
    np.fill_diagonal(barred, True)
    label = np.arange(t)
    while t > 1:
        mean = total / count[:, None]
        distance = 1 - mean @ mean.T
        distance[barred] = np.inf
        a, b = sorted(divmod(int(np.argmin(distance)), t))
        if not distance[a, b] < BELOW:
            break
        total[a], count[a] = total[a] + total[b], count[a] + count[b]
        barred[a] |= barred[b]
        barred[:, a] |= barred[:, b]
        barred[b], barred[:, b] = True, True
        label[label == b] = a
    return label
