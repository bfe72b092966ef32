"""Feature matrices at the door: what may come in, and rows scaled to unit length."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_BLOCK = 4096  # rows looked at together, so that a float64 copy never holds the whole matrix


def check_unit(features: Array, name: str = "features") -> Array:
    """`features` as float32 in row order, after checking that every row is finite and of unit length.

    Args:
        features: (n, d) numbers, L2-normalised rows.
        name: what the error message calls them.

    Returns:
        (n, d) float32, C-contiguous; the input itself where it already is that.

    Raises:
        ValueError: not two-dimensional; rows with NaN or infinity; all-zero rows; rows whose length differs
            from 1 by more than 1e-3. The message names up to five rows.
    """
    features, length = row_lengths(features, name)
    off = np.flatnonzero(np.abs(length - 1) > 1e-3)
    if len(off):
        raise ValueError(
            f"{name} must have rows of unit length (within 1e-3), but {rows(off)} "
            f"(row {off[0]} has length {length[off[0]]:.4g}): divide each row by its L2 norm"
        )
    return np.ascontiguousarray(features, dtype=np.float32)


def unit_rows(features: Array, name: str = "features") -> Array:
    """The rows of `features` divided by their lengths.

    Args:
        features: (n, d) numbers.
        name: what the error message calls them.

    Returns:
        (n, d) float32, a new array.

    Raises:
        ValueError: not two-dimensional; rows with NaN or infinity; all-zero rows. The message names them.
    """
    features, length = row_lengths(features, name)
    out = np.empty(features.shape, np.float32)
    for lo in range(0, len(features), _BLOCK):
        hi = lo + _BLOCK
        out[lo:hi] = features[lo:hi].astype(np.float64) / length[lo:hi, None]
    return out


def rows(index: Array) -> str:
    """Up to five row numbers for an error message: "3 rows are not: 1, 2, 7"."""
    index = np.asarray(index)
    shown = ", ".join(str(i) for i in index[:5]) + (", ..." if len(index) > 5 else "")
    return f"{len(index)} row{' is' if len(index) == 1 else 's are'} not: {shown}"


def row_lengths(features: Array, name: str = "features") -> tuple[Array, Array]:
    """The matrix as an array and the length of each row, after refusing what has no direction.

    Args:
        features: (n, d) numbers.
        name: what the error message calls them.

    Returns:
        features (n, d), not copied where it is an array, and length (n,) float64.

    Raises:
        ValueError: not two-dimensional; rows with NaN or infinity; all-zero rows. The message names them.
    """
    features = np.asarray(features)
    if features.ndim != 2:
        raise ValueError(f"{name} has shape {features.shape}, expected (n, d): one row per item")
    if features.dtype.kind not in "fiu":
        raise ValueError(f"{name} has dtype {features.dtype}, expected real numbers")
    length = np.empty(len(features))
    for lo in range(0, len(features), _BLOCK):
        block = features[lo : lo + _BLOCK].astype(np.float64)
        length[lo : lo + _BLOCK] = np.sqrt(np.einsum("ij,ij->i", block, block))
    bad = np.flatnonzero(~np.isfinite(length))
    if len(bad):
        raise ValueError(f"{name} must be finite, but {rows(bad)}: look for NaN in what made them")
    zero = np.flatnonzero(length == 0)
    if len(zero):
        raise ValueError(
            f"{name} must have a direction, but {rows(zero)} (all zeros): drop them, or look for blank input"
        )
    return features, length
