"""k-reciprocal Jaccard distance in sparse form.

Source: Zhong, Zheng, Cao, Li, "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017,
sections 3.2-3.4, on unit features, for clustering one set (query = gallery).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from tracklearn.core.features import check_unit
from tracklearn.core.neighbors import k_nearest, k_nearest_and_farthest

Array = NDArray[Any]
Mode = Literal["tracklearn", "mmt", "spcl"]
MODES: tuple[Mode, ...] = ("tracklearn", "mmt", "spcl")

_ROWS = 4096  # rows whose distances are gathered at a time


def jaccard_distance(
    features: Array,
    k1: int = 30,
    k2: int = 6,
    *,
    max_distance: float = 1.0,
    mode: Mode = "tracklearn",
) -> sparse.csr_array:
    """Jaccard distances between k-reciprocal neighbourhoods; what is not stored is 1.

    With d = 2 − 2 x·y and N(i, k) the k + 1 nearest rows of i, itself included (ties to the lower row):

    1. R(i, k) = {j in N(i, k): i in N(j, k)};
    2. R*(i) = R(i, k1) joined by every R(j, h), j in R(i, k1), h = k1 / 2 rounded half to even, of which more
       than 2/3 lies in R(i, k1);
    3. V(i, j) = exp(−d(i, j)) for j in R*(i), else 0; each row divided by its sum; then the mean of the rows
       of the k2 nearest of i, itself included (left out for k2 = 1);
    4. J(i, j) = 1 − m / (2 − m), m = sum over c of min(V(i, c), V(j, c)).

    Only pairs that share a neighbour in V have J < 1: just these are computed and stored.

    The exception to "itself included": of more than k1 + 1 identical rows the later ones have only the first
    in their lists, not themselves. Step 3 gives them the mean of those, so identical rows are at distance 0
    there too; with k2 = 1 they are at 1 from everything. (Forcing each row into its own list would put
    identical rows up to 2/3 apart.)

    Args:
        features: (n, d) unit rows.
        k1: neighbours of the reciprocal sets, at least 1; more than n − 1 act as n − 1 (h does not shrink).
        k2: neighbours averaged over, itself included, at least 1; clipped to n.
        max_distance: only entries below it are stored; in (0, 1].
        mode: "tracklearn" as above. "mmt" divides d by the greatest d of its row before exp, as the MMT and
            re-ranking codes do. "spcl" takes k1 with the row itself: N(i, k1) holds k1 rows, h as above.

    Returns:
        (n, n) float32, symmetric, sorted indices; zeros and the whole diagonal (0) stored explicitly.
        Memory: O(n · neighbours).

    Raises:
        ValueError: k1, k2 or max_distance out of range; an unknown mode; features not finite or not unit.

    Example:
        >>> import numpy as np
        >>> x = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
        >>> jaccard_distance(x, k1=1, k2=1).nnz
        8

    Source: the paper named at the top of the module. The "mmt" code divides by the column-wise maximum and
    transposes, which on symmetric d is the row's maximum.
    """
    check_settings(k1, k2, mode)
    if not 0 < max_distance <= 1:
        raise ValueError(f"max_distance is {max_distance}, expected a value in (0, 1]")
    features = check_unit(features)
    n = len(features)
    if n == 0:
        return sparse.csr_array((0, 0), dtype=np.float32)

    return _distances(reciprocal_encoding(features, k1, k2, mode=mode), max_distance)


def check_settings(k1: int, k2: int, mode: str) -> None:
    """Raise ValueError where k1 or k2 is below 1, or the mode is none of `MODES`."""
    if mode not in MODES:
        raise ValueError(f'mode is "{mode}", expected one of {", ".join(MODES)}')
    for name, value in (("k1", k1), ("k2", k2)):
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")


def reciprocal_encoding(
    features: Array, k1: int, k2: int, *, mode: Mode, known: tuple[Array, Array, Array] | None = None
) -> sparse.csr_array:
    """Each row's weights over its k-reciprocal neighbours, averaged over its k2 nearest.

    Args:
        features: (n, d) float32 unit rows, already checked, n ≥ 1.
        k1, k2, mode: as in `jaccard_distance`, already checked.
        known: `k_nearest_and_farthest` of at least `columns_needed` neighbours, where the caller has it.

    Returns:
        (n, n) float64 with sorted indices; rows sum to 1. Memory: O(n · neighbours).
    """
    from tracklearn.core.kernels.jaccard import encode

    n = len(features)
    width = min(n, k1 if mode == "spcl" else k1 + 1)
    half = min(width, int(np.rint(k1 / 2)) + 1)
    wanted = columns_needed(n, k1, k2, mode)
    if known is not None:
        index, squared, far = known
    elif mode == "mmt":
        index, squared, far = k_nearest_and_farthest(features, wanted)
    else:
        index, squared = k_nearest(features, wanted)
        far = np.ones(n)
    scale = 1 / far if mode == "mmt" else np.ones(n)
    start, column, weight = encode(index, squared, features, scale, width, half)
    encoding = sparse.csr_array((weight, column, start), shape=(n, n))
    if k2 > 1:
        encoding = _mean_of_nearest(encoding, index[:, :k2])
    encoding.sort_indices()
    return encoding


def columns_needed(n: int, k1: int, k2: int, mode: str) -> int:
    """Neighbours per row, itself included, that the encoding of n rows is made from."""
    return min(n, max(k1 if mode == "spcl" else k1 + 1, k2))


def _mean_of_nearest(encoding: sparse.csr_array, index: Array) -> sparse.csr_array:
    """Local query expansion: each row becomes the mean of the rows in its line of `index` (n, k2)."""
    n, k = index.shape
    mean = sparse.csr_array((np.full(n * k, 1 / k), index.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
    return mean @ encoding


def _distances(encoding: sparse.csr_array, max_distance: float) -> sparse.csr_array:
    from tracklearn.core.kernels.jaccard import overlap

    n = encoding.shape[0]
    by_column = encoding.tocsc()  # its rows come out sorted
    rows = (encoding.indptr.astype(np.int64), encoding.indices.astype(np.int32), encoding.data)
    columns = (by_column.indptr.astype(np.int64), by_column.indices.astype(np.int32), by_column.data)
    limit = np.float32(max_distance)
    parts = [overlap(*rows, *columns, lo, min(n, lo + _ROWS), limit) for lo in range(0, n, _ROWS)]
    count, column, distance = (np.concatenate(part) for part in zip(*parts, strict=True))
    out = sparse.csr_array((distance, column, np.r_[0, np.cumsum(count)]), shape=(n, n))
    out.sort_indices()
    return out
