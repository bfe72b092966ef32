"""The nearest rows of a matrix that is read block by block: what a block adds to what was found before."""

from __future__ import annotations

import numpy as np

from tracklearn.core.features import product_error
from tracklearn.types import Array


def merge(
    query: Array,
    rows: Array,
    score: Array,
    offset: int,
    index: Array,
    distance: Array,
    *,
    group: Array | None = None,
) -> None:
    """Merge a block's best into what one query has found so far, in place; exact by the Euclidean distance.

    Args:
        query: (d,) float32, of length 1 to 1e-3.
        rows: (n, d) float32, the block, likewise.
        score: (n,) float32, q·r − |r|²/2, which is larger for nearer rows; −inf leaves a row out.
        offset: number of the block's first row.
        index, distance: (k,) int64 and float64, nearest first, ties to the lower row; −1 and inf where
            there is none.
        group: (t,) int, the group of every row, of which only the nearest row is kept; None keeps all.

    Memory: O(n d) at most, where whole groups of the block are near.
    """
    k = len(index)
    floor = _floor(score, k, None if group is None else group[offset : offset + len(score)])
    if np.isfinite(distance[-1]):  # nothing farther than the worst kept so far can enter
        squared = float(np.square(query, dtype=np.float64).sum())
        floor = max(floor, (squared - float(distance[-1]) ** 2) / 2)
    near = np.flatnonzero((score >= floor - slack(len(query))) & (score > -np.inf))
    if not len(near):
        return
    exact = np.linalg.norm(rows[near].astype(np.float64) - query, axis=1)
    kept = index >= 0
    all_rows = np.concatenate([index[kept], near + offset])
    all_distances = np.concatenate([distance[kept], exact])
    order = np.lexsort((all_rows, all_distances))
    if group is not None:
        _, first = np.unique(group[all_rows[order]], return_index=True)
        order = order[np.sort(first)]
    order = order[:k]
    index[: len(order)] = all_rows[order]
    distance[: len(order)] = all_distances[order]


def _floor(score: Array, k: int, group: Array | None) -> float:
    """A score that k rows reach, of k groups where these are given; −inf where there are fewer.

    Twice as many rows are looked at each time that they are of too few groups.
    """
    wanted = k
    while wanted < len(score):
        floor = float(np.partition(score, len(score) - wanted)[len(score) - wanted])
        if group is None or floor == -np.inf or len(np.unique(group[score >= floor])) >= k:
            return floor
        wanted *= 2
    return -np.inf


def slack(width: int) -> float:
    """How far two scores of rows of that width can stand in the wrong order.

    Each errs by the rounding of its product, and by that of the half squared length and of their difference,
    both below 1.1 and rounded to float32. Lengths are 1 to 1e-3, which the factor covers.
    """
    return 2 * (1.01 * product_error(width) + 4 * 2.0**-24)
