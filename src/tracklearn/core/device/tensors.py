"""Tensors at the door: placed on one device, multiplied in float32 whatever is set, measured.

Nothing is decided here that could come out otherwise on the host: products propose neighbours, which the
host's kernels then settle; whatever is within rounding of a border goes to the host too. So the results are
those of arrays, on any device.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tracklearn.core.features import as_matrix, check_lengths, on_host
from tracklearn.types import Array

_BLOCK = 1 << 22  # numbers looked at in float64 at a time


def placed(value: Array | Tensor, device: torch.device) -> Tensor:
    """`value` on that device, apart from any graph of gradients."""
    if not isinstance(value, Tensor):
        # torch refuses steps backwards and foreign byte order, and warns of arrays that cannot be written
        # to, though nothing here writes to them.
        value = np.asarray(value)
        value = torch.from_numpy(np.require(value, value.dtype.newbyteorder("="), ["C", "W"]))
    return value.detach().to(device)


@contextmanager
def float32_products(device: torch.device) -> Iterator[None]:
    """Float32 matrix products in float32: neither TF32 nor bfloat16 nor autocast, whatever is set.

    torch has an older setting for the whole process and a newer one per backend, and refuses to work where
    they contradict each other: both are set, and both put back.
    """
    backends: list[Any] = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)]
    places = [place for place in backends if hasattr(place, "fp32_precision")]
    before = [place.fp32_precision for place in places]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some versions warn of the older setting
        for place in places:
            place.fp32_precision = "ieee"
        older = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            with torch.autocast(device.type, enabled=False):
                yield
        finally:
            torch.set_float32_matmul_precision(older)
            for place, precision in zip(places, before, strict=True):
                place.fp32_precision = precision


def lengths(features: Tensor, name: str = "features") -> Tensor:
    """The length of each row, float64, after refusing what has no direction.

    Args:
        features: (n, d) numbers.
        name: what the error message calls them.

    Returns:
        (n,) float64 on the device of `features`.

    Raises:
        ValueError: as `features.row_lengths`.
    """
    features = as_matrix(features, name).detach()
    n, width = features.shape
    step = max(1, _BLOCK // max(1, width))
    length = torch.empty(n, dtype=torch.float64, device=features.device)
    for lo in range(0, n, step):
        length[lo : lo + step] = features[lo : lo + step].to(torch.float64).square().sum(1).sqrt()
    check_lengths(on_host(length), name)
    return length


def joined(pieces: Sequence[Any]) -> Tensor:
    """The pieces one below the other, a new tensor on the device of the first, which is a tensor."""
    device = pieces[0].device
    return torch.cat([placed(piece, device) for piece in pieces])
