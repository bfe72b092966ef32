"""k-reciprocal Jaccard distance in sparse form.

Source: Zhong, Zheng, Cao, Li, "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017,
sections 3.2-3.4, on unit features, for clustering one set (query = gallery).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import sparse

from tracklearn.core.features import check_unit, is_tensor
from tracklearn.core.neighbors import Method, k_nearest, k_nearest_and_farthest
from tracklearn.core.threads import each
from tracklearn.types import Array, Refusal

if TYPE_CHECKING:
    from torch import Tensor

Mode = Literal["tracklearn", "mmt", "spcl"]
MODES: tuple[Mode, ...] = ("tracklearn", "mmt", "spcl")

_PARTS = 16  # ranges of rows that threads take in turn, at most
_ROWS = 256  # rows of a range, at least


def jaccard_distance(
    features: Array | Tensor,
    k1: int = 30,
    k2: int = 6,
    *,
    max_distance: float = 1.0,
    mode: Mode = "tracklearn",
    neighbors: Method = "exact",
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
    there too; with k2 = 1 they are at 1 from everything, and with k2 above k1 + 1, where the mean takes in
    rows that have no weights, above 0. (Forcing each row into its own list would put identical rows up to
    2/3 apart.)

    Args:
        features: (n, d) unit rows. A torch tensor's neighbours are found on its device; the distances are
            the same to the bit (with "mmt", whose greatest d is known to 1e-6, to about as much).
        k1: neighbours of the reciprocal sets, at least 1; more than n − 1 act as n − 1 (h does not shrink).
        k2: neighbours averaged over, itself included, at least 1; clipped to n.
        max_distance: only entries below it are stored; in (0, 1].
        mode: "tracklearn" as above. "mmt" divides d by the greatest d of its row before exp, as the MMT and
            re-ranking codes do. "spcl" takes k1 with the row itself: N(i, k1) holds k1 rows, h as above.
        neighbors: how neighbours are found, as `method` of `k_nearest`: "exact", "int8" (the same result;
            with "mmt", whose farthest row is known otherwise, to about 1e-7) or "ann" (approximate; exact
            with "mmt", which needs the farthest row too).

    Returns:
        (n, n) float32, symmetric, sorted indices; zeros and the whole diagonal (0) stored explicitly.
        Memory: about 1.5 of the result, and O(n · neighbours). Where features tell nobody apart, nearly all
        pairs share some neighbour: of 6,000 random rows 5,800 are below 1, but 33 below 0.96.

    Raises:
        ValueError: k1, k2 or max_distance out of range; an unknown mode; features not finite or not unit.

    Example:
        >>> import numpy as np
        >>> x = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
        >>> jaccard_distance(x, k1=1, k2=1).nnz
        8

    Source: the paper named at the top of the module. The "mmt" code divides by the column-wise maximum and
    transposes, which on symmetric d is the row's maximum. torchreid's re_ranking is the same computation on
    the squares of the distances it is given: "mmt" where those are Euclidean. Its own engine gives it
    squared ones, whose squares are in the exponent then; the neighbours are the same.
    """
    check_settings(k1, k2, mode)
    if not 0 < max_distance <= 1:
        raise Refusal(f"max_distance is {max_distance}, expected a value in (0, 1]")
    host = check_unit(features)
    features = features if is_tensor(features) else host
    n = len(features)
    if n == 0:
        return sparse.csr_array((0, 0), dtype=np.float32)

    encoding = reciprocal_encoding(features, k1, k2, mode=mode, neighbors=neighbors, host=host)
    return encoding_distance(encoding, max_distance)


def check_settings(k1: int, k2: int, mode: str) -> None:
    """Raise ValueError where k1 or k2 is below 1, or the mode is none of `MODES`."""
    if mode not in MODES:
        raise Refusal(f'mode is "{mode}", expected one of {", ".join(MODES)}')
    for name, value in (("k1", k1), ("k2", k2)):
        if value < 1:
            raise Refusal(f"{name} is {value}, expected at least 1")


def reciprocal_encoding(
    features: Array | Tensor,
    k1: int,
    k2: int,
    *,
    mode: Mode,
    neighbors: Method = "exact",
    host: Array | None = None,
    known: tuple[Array, Array, Array] | None = None,
) -> sparse.csr_array:
    """Each row's weights over its k-reciprocal neighbours, averaged over its k2 nearest.

    Args:
        features: (n, d) float32 unit rows, already checked, or a tensor; n ≥ 1.
        k1, k2, mode, neighbors: as in `jaccard_distance`, already checked.
        host: of a tensor, what `features.check_unit` gave for it, where the caller has it.
        known: `k_nearest_and_farthest` of at least `columns_needed` neighbours, where the caller has it.

    Returns:
        (n, n) float64 with sorted indices; rows sum to 1, or to less among more than k1 + 1 identical rows
        where k2 is 1 or above k1 + 1. Memory: O(n · neighbours).
    """
    n = len(features)
    width = min(n, k1 if mode == "spcl" else k1 + 1)
    half = min(width, int(np.rint(k1 / 2)) + 1)
    wanted = columns_needed(n, k1, k2, mode)
    if is_tensor(features):
        rows = check_unit(features) if host is None else host
    else:
        rows = features
    if known is not None:
        index, squared, far = known
    elif mode == "mmt":
        kind: Literal["exact", "int8"] = "int8" if neighbors == "int8" else "exact"
        index, squared, far = k_nearest_and_farthest(features, wanted, method=kind, host=rows)
    else:
        index, squared = k_nearest(features, wanted, method=neighbors, host=rows)
        far = np.ones(n)
    scale = 1 / far if mode == "mmt" else np.ones(n)
    encoding = _encode(rows, index, squared, scale, width, half)
    if k2 > 1:
        return _mean_of_nearest(encoding, index[:, :k2])
    encoding.sort_indices()
    return encoding


def encoding_distance(encoding: sparse.csr_array, max_distance: float) -> sparse.csr_array:
    """Jaccard distances between the rows of an encoding.

    Args:
        encoding: (n, n) from `reciprocal_encoding`.
        max_distance: as in `jaccard_distance`, already checked.

    Returns:
        As `jaccard_distance`. Memory: two copies of the encoding, and 1.5 of the result.
    """
    from tracklearn.core.kernels.jaccard import mirror_lower, mirror_upper

    n = encoding.shape[0]
    ranges = _ranges(n, triangle=True)
    parts = _pairs(encoding, np.float32(max_distance), ranges)
    del encoding  # unless the caller keeps it, its memory is free for the result
    above = np.concatenate([count for count, _, _ in parts])
    below = np.zeros(n, np.int64)
    for _, column, _ in parts:
        below += np.bincount(column, minlength=n)
    start = _starts(below + 1 + above)
    place = start[:-1].copy()
    out_column, out_distance = np.empty(start[-1], np.int32), np.empty(start[-1], np.float32)
    for low, _ in ranges:
        count, column, distance = parts.pop(0)
        mirror_lower(low, count, column, distance, place, out_column, out_distance)
    mirror_upper(start, place, out_column, out_distance)
    return sparse.csr_array((out_distance, out_column, start), shape=(n, n))


def columns_needed(n: int, k1: int, k2: int, mode: str) -> int:
    """Neighbours per row, itself included, that the encoding of n rows is made from."""
    return min(n, max(k1 if mode == "spcl" else k1 + 1, k2))


def _encode(
    features: Array, index: Array, squared: Array, scale: Array, width: int, half: int
) -> sparse.csr_array:
    """Weights exp(−scale·d) over the expanded reciprocal sets, rows summing to 1; indices not sorted.

    The sets use the first `width` columns of `index`, their expansion the first `half`.
    """
    from tracklearn.core.kernels.jaccard import encode, mutual

    n = len(index)
    ranges = _ranges(n)
    masks = _each(lambda low, high: mutual(index, width, half, low, high), ranges)
    wide, narrow = (np.concatenate(mask) for mask in zip(*masks, strict=True))
    parts = _each(lambda low, high: encode(index, squared, features, scale, wide, narrow, low, high), ranges)
    count, column, weight = (np.concatenate(part) for part in zip(*parts, strict=True))
    return sparse.csr_array((weight, column, _starts(count)), shape=(n, n))


def _mean_of_nearest(encoding: sparse.csr_array, index: Array) -> sparse.csr_array:
    """Local query expansion: each row becomes the mean of the rows in its line of `index` (n, k2), sorted."""
    n, k = index.shape
    column = index.astype(np.int32)

    def part(low: int, high: int) -> sparse.csr_array:
        size = high - low
        start = _starts(np.full(size, k))
        mean = sparse.csr_array((np.full(size * k, 1 / k), column[low:high].ravel(), start), shape=(size, n))
        rows = mean @ encoding
        rows.sort_indices()
        return rows

    return sparse.vstack(_each(part, _ranges(n)), format="csr")


def _pairs(encoding: sparse.csr_array, limit: np.float32, ranges: list[tuple[int, int]]) -> list[Any]:
    """For each range (count, column, distance): its rows' distances below `limit` to the rows after them."""
    from tracklearn.core.kernels.jaccard import overlap

    rows = (encoding.indptr, encoding.indices, encoding.data)
    by_column = encoding.tocsc()  # its rows come out sorted
    columns = (by_column.indptr, by_column.indices, by_column.data)
    return _each(lambda low, high: overlap(*rows, *columns, low, high, limit), ranges)


def _each(function: Callable[[int, int], Any], ranges: list[tuple[int, int]]) -> list[Any]:
    """`function` of every range on threads; a lone one is not worth their start."""
    return each(lambda rows: function(*rows), ranges) if len(ranges) > 1 else [function(*ranges[0])]


def _ranges(n: int, *, triangle: bool = False) -> list[tuple[int, int]]:
    """Consecutive row ranges of about equal work, where a row meets all rows or (triangle) the later ones."""
    share = np.linspace(0, 1, 1 + min(_PARTS, -(-n // _ROWS)))
    edges = np.unique(np.rint(n * (1 - np.sqrt(1 - share)) if triangle else n * share).astype(int)).tolist()
    return list(pairwise(edges))


def _starts(count: Array) -> Array:
    """Where the rows of a sparse matrix start; int32 as long as that holds its entries."""
    start = np.zeros(len(count) + 1, np.int64)
    np.cumsum(count, out=start[1:])
    return start.astype(np.int32) if start[-1] < 2**31 else start
