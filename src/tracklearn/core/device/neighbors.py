"""Candidates for the nearest neighbours of tensors, which the host's kernels settle."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tracklearn.core.device.tensors import float32_products, placed
from tracklearn.core.features import on_host, product_error
from tracklearn.types import Array

_CELLS = 1 << 27  # float32 similarities held at a time: 512 MB


_SPARE = 32  # candidates of a row beyond twice its neighbours


def candidates(
    query: Tensor,
    gallery: Array | Tensor,
    k: int,
    *,
    exclude_self: bool = False,
    least: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Gallery rows that float32 rounding lets be among the k nearest of each query.

    Args:
        query: (q, d) unit rows, checked.
        gallery: (n, d) unit rows, checked; brought to the device of `query`.
        k: neighbours asked for, 1 to n (n − 1 with `exclude_self`).
        exclude_self: row i of `query` is row i of `gallery` and is left out.
        least: (q,) float32, lowered to the smallest float32 similarity of each row.

    Returns:
        count (q,) int64, −1 where more rows may be among the nearest than are named; candidate (q, c) int32
        and value (q, c) float32, their float32 similarities. Memory: 512 MB on the device and 8 · c · q bytes
        on the host, c = 2 · k + 32.
    """
    query = query.detach()
    gallery = placed(gallery, query.device).to(torch.float32)
    q, n = len(query), len(gallery)
    available = n - exclude_self
    kept = min(available, 2 * k + _SPARE)
    candidate = np.empty((q, kept), np.int32)
    value = np.empty((q, kept), np.float32)
    step = max(1, _CELLS // n)
    with float32_products(query.device):
        for lo in range(0, q, step):
            similarity = query[lo : lo + step].to(torch.float32) @ gallery.T
            rows = slice(lo, lo + len(similarity))
            if least is not None:
                np.minimum(least[rows], on_host(similarity.amin(1)), out=least[rows])
            if exclude_self:
                similarity.diagonal(lo).fill_(-torch.inf)
            best, index = similarity.topk(kept, dim=1)
            candidate[rows], value[rows] = on_host(index), on_host(best)
    count = np.full(q, kept, np.int64)
    if kept < available:
        # What is not named is at most as similar as the last one that is.
        slack = 2 * product_error(query.shape[1])
        count[value[:, -1] >= value[:, k - 1].astype(np.float64) - slack] = -1
    return count, candidate, value
