"""What is asked of labels: which clusters to keep, and how far two labellings agree."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tracklearn.types import Array, Refusal


@dataclass(frozen=True, eq=False)
class Selection:
    """Clusters that were kept, and how many were not.

    Args:
        label: (n,) int64, cluster of each item, numbered from 0 without gaps, −1 noise and dropped.
        n_small: clusters dropped for their size.
        n_few_cameras: clusters large enough, dropped for the number of their cameras.
    """

    label: Array
    n_small: int
    n_few_cameras: int


def select_clusters(label: Array, camid: Array, *, min_size: int = 4, min_cameras: int = 2) -> Selection:
    """The labels without the clusters that are too small or seen by too few cameras.

    A cluster of one camera teaches nothing about how a person changes from camera to camera.

    Args:
        label: (n,) int, −1 noise. camid: (n,) int, camera of each item.
        min_size: items that a cluster keeps at least, at least 1.
        min_cameras: cameras that it is seen by at least, at least 1.

    Returns:
        Selection; the kept clusters are renumbered from 0 in their old order.

    Raises:
        ValueError: lengths differ; a label below −1; min_size or min_cameras below 1.

    Example:
        >>> select_clusters(np.array([5, 5, 7, 7, -1]), np.array([0, 1, 0, 0, 1]), min_size=2).label.tolist()
        [0, 0, -1, -1, -1]

    Source: Pereira, de Campos, "Learn by Guessing: Multi-Step Pseudo-Label Refinement for Person
    Re-Identification", VISAPP 2022, cluster selection: at least 4 images (K of its batches), two cameras.
    """
    label, camid = np.asarray(label), np.asarray(camid)
    if label.ndim != 1 or camid.shape != label.shape:
        raise Refusal(f"camid has shape {camid.shape}, label {label.shape}, expected one (n,)")
    if label.min(initial=-1) < -1:
        raise Refusal(f"label holds {label.min()}, expected clusters from 0 and −1 for noise")
    for name, value in (("min_size", min_size), ("min_cameras", min_cameras)):
        if value < 1:
            raise Refusal(f"{name} is {value}, expected at least 1")
    clustered = label >= 0
    cluster, of, size = np.unique(label[clustered], return_inverse=True, return_counts=True)
    seen = np.unique(np.stack([of, camid[clustered]], 1), axis=0)[:, 0]
    cameras = np.bincount(seen, minlength=len(cluster))
    large = size >= min_size
    keep = large & (cameras >= min_cameras)
    new = np.full(len(label), -1, np.int64)
    new[clustered] = np.where(keep, np.cumsum(keep) - 1, -1)[of]
    return Selection(new, int((~large).sum()), int((large & ~keep).sum()))


def agreement(label_a: Array, label_b: Array) -> float:
    """Adjusted Rand index of two labellings over the items that both of them cluster.

    Args:
        label_a: (n,) int, −1 noise. label_b: (n,) int, −1 noise.

    Returns:
        1 for the same partition, about 0 for unrelated ones, negative for worse than chance. 1 also where
        both put everything together, or both put everything apart. NaN with fewer than two common items.

    Raises:
        ValueError: the lengths differ.

    Example:
        >>> agreement(np.array([0, 0, 1, 1, -1]), np.array([5, 5, 3, 3, 3]))
        1.0

    Source: Hubert, Arabie, "Comparing Partitions", Journal of Classification, 1985.
    """
    label_a, label_b = np.asarray(label_a), np.asarray(label_b)
    if label_a.shape != label_b.shape or label_a.ndim != 1:
        raise Refusal(f"label_a has shape {label_a.shape}, label_b {label_b.shape}, expected one (n,)")
    both = (label_a >= 0) & (label_b >= 0)
    n = int(both.sum())
    if n < 2:
        return float("nan")
    together = _pairs(np.stack([label_a, label_b], 1)[both])
    in_a, in_b = _pairs(label_a[both]), _pairs(label_b[both])
    expected = in_a * in_b / math.comb(n, 2)
    most = (in_a + in_b) / 2
    return 1.0 if most == expected else (together - expected) / (most - expected)


def _pairs(label: Array) -> int:
    """Number of pairs of items with the same label."""
    count = np.unique(label, axis=0, return_counts=True)[1]
    return int((count * (count - 1) // 2).sum())


def one_track(label: Array, track: Array) -> int:
    """Number of clusters of several tracklets that are all parts of one track.

    Args:
        label: (n,) int, cluster of each tracklet, −1 noise.
        track: (n,) int, of which track each is a part (`Tracklets.source`).

    >>> one_track(np.array([0, 0, 1, 1, 2, -1]), np.array([5, 5, 6, 7, 8, 9]))
    1
    """
    label, track = np.asarray(label), np.asarray(track)
    inside = label >= 0
    if not inside.any():
        return 0
    size = np.bincount(label[inside])
    pairs = np.unique(np.stack([label[inside], track[inside]]), axis=1)
    return int(((np.bincount(pairs[0], minlength=len(size)) == 1) & (size > 1)).sum())
