"""Isolation of tensors: the neighbours of a tracklet's frames, exact as the host's."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tracklearn.core.device.tensors import lengths, placed
from tracklearn.core.features import on_host
from tracklearn.types import Array

_NUMBERS = 1 << 25  # float64 numbers of tracklets, their frames and similarities, held at a time: 256 MB


def parts(features: Tensor, edge: Array, least: float, min_samples: int) -> Array:
    """The parts that `isolate` finds by cosines, from similarities of whole batches of tracklets.

    Args:
        features: (n, d) numbers, any lengths but zero.
        edge: (t + 1,) where tracklets start and end.
        least: cosine of neighbours.
        min_samples: neighbours of a core frame, itself included.

    Returns:
        part (n,) int64. Memory on the device: 512 MB, or two times the longest tracklet in float64 and 64 of
        its rows of similarities where that is more.

    Raises:
        ValueError: features not finite or all zero.
    """
    from tracklearn.core.kernels.isolate import label_bits

    length = lengths(features)
    features = features.detach()
    part = np.zeros(len(features), np.int64)
    size = np.diff(edge)
    # Longest first: tracklets of a batch are padded to its first.
    left = np.flatnonzero(size >= max(min_samples, 2))
    left = left[np.argsort(-size[left], kind="stable")]
    while len(left):
        longest = int(size[left[0]])
        taken = max(1, _NUMBERS // (longest * (features.shape[1] + 2 * longest)))
        batch, left = left[:taken], left[taken:]
        near, degree = _neighbourhoods(features, length, edge[batch], size[batch], least)
        for b, q in enumerate(batch):
            label_bits(near[b, : size[q]], degree[b, : size[q]], min_samples, part[edge[q] : edge[q + 1]])
    return part


def _neighbourhoods(
    features: Tensor, length: Tensor, start: Array, size: Array, least: float
) -> tuple[Array, Array]:
    """For tracklets of rows start[b]..start[b] + size[b] − 1 what `kernels.isolate.mark` finds.

    Returns:
        near (b, l, w) uint64, neighbours as bits, and degree (b, l) int64, for l the longest.
    """
    device, width = features.device, features.shape[1]
    longest = int(size.max())
    frame = torch.arange(longest, device=device)
    inside = frame < placed(size, device)[:, None]
    row = (placed(start, device)[:, None] + frame).where(inside, 0)
    x = features[row].to(torch.float64)  # (b, l, d)
    own = length[row].where(inside, torch.nan)  # frames beyond the end are near nothing
    # Two float64 products of rows of this width, summed in any order, and their lengths.
    doubt = 4 * (width + 16) * 2.0**-53
    bit = 2 ** torch.arange(8, dtype=torch.uint8, device=device)
    padding = -longest % 64
    step = max(64, _NUMBERS // (2 * longest * len(size)))
    near, degree, open_pairs = [], [], []
    for lo in range(0, longest, step):
        scale = own[:, lo : lo + step, None] * own[:, None]
        gap = (x[:, lo : lo + step] @ x.mT).sub_(scale, alpha=least)  # (b, r, l)
        found = gap >= 0
        found.diagonal(lo, 1, 2).fill_(True)
        unsure = gap.abs_() <= scale.mul_(doubt)
        unsure.diagonal(lo, 1, 2).fill_(False)
        degree.append(on_host(found.sum(2)))
        grouped = functional.pad(found, (0, padding)).unflatten(2, (-1, 8))
        near.append(on_host((grouped * bit).sum(3, dtype=torch.uint8)))
        open_pairs.append(on_host(unsure.nonzero()) + np.array([0, lo, 0]))
    bits, count = np.concatenate(near, 1), np.concatenate(degree, 1)
    _decide(features, start, size, least, np.concatenate(open_pairs), bits, count)
    return bits.view(np.uint64), count


def _decide(
    features: Tensor, start: Array, size: Array, least: float, pairs: Array, bits: Array, degree: Array
) -> None:
    """Corrects the neighbours among `pairs` (m, 3), tracklet and two frames, by the host's arithmetic."""
    from tracklearn.core.features import exact_dtype
    from tracklearn.core.kernels.isolate import is_near

    for b in np.unique(pairs[:, 0]):
        rows = on_host(features[start[b] : start[b] + size[b]])
        rows = np.ascontiguousarray(rows, exact_dtype(rows.dtype))
        for i, j in pairs[pairs[:, 0] == b, 1:]:
            flag = np.uint8(1 << (j & 7))
            was = bool(bits[b, i, j >> 3] & flag)
            if is_near(rows[i], rows[j], least) != was:
                bits[b, i, j >> 3] ^= flag
                degree[b, i] += -1 if was else 1
