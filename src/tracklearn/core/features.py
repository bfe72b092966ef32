"""Feature matrices at the door: what may come in, and rows scaled to unit length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn.core.threads import each
from tracklearn.types import Array, Refusal

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import TypeIs


_BLOCK = 1 << 17  # numbers looked at together: their float64 copy, 1 MB, stays in the cache of a core
_STEPS = 32  # blocks that a thread takes at a time


def is_tensor(value: object) -> TypeIs[Tensor]:
    """Whether it is a torch tensor; torch is not imported to find out."""
    return not isinstance(value, np.ndarray) and any(
        kind.__module__ == "torch" and kind.__name__ == "Tensor" for kind in type(value).__mro__
    )


def on_host(value: Any) -> Any:
    """A tensor as an array in the host's memory, which is the tensor's own where it lies there (bfloat16,
    which numpy lacks, as float32); anything else as it is.
    """
    if not is_tensor(value):
        return value
    if str(value.dtype) == "torch.bfloat16":
        value = value.float()
    return value.numpy(force=True)


def check_unit(features: Array | Tensor, name: str = "features") -> Array:
    """`features` as float32 in row order, after checking that every row is finite and of unit length.

    Args:
        features: (n, d) numbers, L2-normalised rows; a tensor is brought to the host.
        name: what the error message calls them.

    Returns:
        (n, d) float32, C-contiguous; the input itself where it already is that.

    Raises:
        ValueError: not two-dimensional; rows with NaN or infinity; all-zero rows; rows whose length differs
            from 1 by more than 1e-3. The message names up to five rows.
    """
    features, length = row_lengths(features, name)
    check_unit_lengths(length, name)
    return np.ascontiguousarray(features, dtype=np.float32)


def check_unit_lengths(length: Array, name: str = "features") -> None:
    """Refuses lengths (n,) that differ from 1 by more than 1e-3.

    Raises:
        ValueError: there are such; the message names up to five rows.
    """
    off = np.flatnonzero(np.abs(length - 1) > 1e-3)
    if len(off):
        raise Refusal(
            f"{name} must have rows of unit length (within 1e-3), but {rows(off)} "
            f"(row {off[0]} has length {length[off[0]]:.4g}): divide each row by its L2 norm"
        )


def unit_rows(features: Array | Tensor, name: str = "features") -> Array:
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
    step = _step(features)
    for lo in range(0, len(features), step):
        hi = lo + step
        out[lo:hi] = features[lo:hi].astype(np.float64) / length[lo:hi, None]
    return out


def rows(index: Array) -> str:
    """Up to five row numbers for an error message: "3 rows are not: 1, 2, 7"."""
    index = np.asarray(index)
    shown = ", ".join(str(i) for i in index[:5]) + (", ..." if len(index) > 5 else "")
    return f"{len(index)} row{' is' if len(index) == 1 else 's are'} not: {shown}"


def row_lengths(features: Array | Tensor, name: str = "features") -> tuple[Array, Array]:
    """The matrix as an array on the host and the length of each row, after refusing what has no direction.

    Args:
        features: (n, d) numbers.
        name: what the error message calls them.

    Returns:
        features (n, d), not copied where it is an array, and length (n,) float64.

    Raises:
        ValueError: not two-dimensional; rows with NaN or infinity; all-zero rows. The message names them.
    """
    matrix: Array = on_host(as_matrix(features, name))
    length = np.empty(len(matrix))
    step = _step(matrix)

    def measure(first: int) -> None:
        for lo in range(first, min(len(matrix), first + _STEPS * step), step):
            block = matrix[lo : lo + step].astype(np.float64)
            length[lo : lo + step] = np.sqrt(np.einsum("ij,ij->i", block, block))

    starts = range(0, len(matrix), _STEPS * step)
    if len(starts) > 1:
        each(measure, starts)
    else:  # not worth the start of a thread
        measure(0)
    check_lengths(length, name)
    return matrix, length


def as_matrix(features: Array | Tensor, name: str = "features") -> Any:
    """`features` as a two-dimensional array of numbers, not copied where it is one; a tensor as it is.

    Raises:
        ValueError: not two-dimensional; not real numbers.
    """
    if not is_tensor(features):
        features = np.asarray(features)
    if features.ndim != 2:
        raise Refusal(f"{name} has shape {tuple(features.shape)}, expected (n, d): one row per item")
    if on_host(features[:0]).dtype.kind not in "fiu":
        raise Refusal(f"{name} has dtype {features.dtype}, expected real numbers")
    return features


def check_lengths(length: Array, name: str = "features") -> None:
    """Refuses the lengths (n,) of rows that have no direction.

    Raises:
        ValueError: NaN, infinity or 0. The message names up to five rows.
    """
    bad = np.flatnonzero(~np.isfinite(length))
    if len(bad):
        raise Refusal(f"{name} must be finite, but {rows(bad)}: look for NaN in what made them")
    zero = np.flatnonzero(length == 0)
    if len(zero):
        raise Refusal(
            f"{name} must have a direction, but {rows(zero)} (all zeros): drop them, or look for blank input"
        )


def _step(features: Array) -> int:
    """Rows to look at together."""
    return max(1, _BLOCK // max(1, features.shape[1]))


def exact_dtype(dtype: np.dtype[Any]) -> type[np.floating[Any]]:
    """The smaller of float32 and float64 that holds every number of `dtype`; float64 where none does."""
    return np.float32 if np.can_cast(dtype, np.float32) else np.float64


def product_error(width: int) -> float:
    """How far a float32 product of unit rows can be from the true one, whatever the order of its sums."""
    return 1.05 * (width + 2) * 2.0**-24 + 1e-9
