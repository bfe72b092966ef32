"""Distances of tensors, and what the scores of retrieval count of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tracklearn.core.device.tensors import lengths, placed
from tracklearn.core.features import check_unit_lengths, on_host
from tracklearn.types import Array, Refusal

_COMPARED = 4096  # rows whose distances are computed together in float64


_SORTED = 1 << 24  # distances sorted at a time: with all that goes with them up to 600 MB


def check_pair(query: Tensor, gallery: Array | Tensor) -> tuple[Tensor, Tensor]:
    """Both as float32 on the device of `query`, checked as `rank.distance` does.

    Raises:
        ValueError: features not finite, not of unit length (within 1e-3) or all zero; widths differ.
    """
    checked = []
    for value, name in ((query, "query"), (gallery, "gallery")):
        tensor = placed(value, query.device)
        check_unit_lengths(on_host(lengths(tensor, name)), name)
        checked.append(tensor.to(torch.float32))
    if checked[0].shape[1] != checked[1].shape[1]:
        raise Refusal(
            f"query has width {checked[0].shape[1]} and gallery {checked[1].shape[1]}: "
            "features of two networks cannot be compared"
        )
    return checked[0], checked[1]


def distance(query: Tensor, gallery: Tensor) -> Tensor:
    """What `rank.distance` gives, of checked features, on their device.

    Returns:
        (q, g) float32. Memory: the result, two blocks of 4,096 rows in float64 and their distances.
    """
    out = torch.empty(len(query), len(gallery), dtype=torch.float32, device=query.device)
    for top in range(0, len(query), _COMPARED):
        a = query[top : top + _COMPARED].to(torch.float64)
        for low in range(0, len(gallery), _COMPARED):
            b = gallery[low : low + _COMPARED].to(torch.float64)
            squared = (a @ b.T).mul_(-2).add_(a.square().sum(1)[:, None]).add_(b.square().sum(1))
            # Below the rounding of the sums above, equal is all that can be said.
            squared[squared < 1e-14] = 0
            out[top : top + _COMPARED, low : low + _COMPARED] = squared.sqrt_()
    return out


def rows_of(given: Any) -> tuple[Callable[[slice], Tensor], tuple[int, int], type, int]:
    """What `rank._rows_of` gives, of a matrix, or of a tuple of features that begins with a tensor."""
    if isinstance(given, tuple):
        query, gallery = check_pair(*given)
        step = max(1, _SORTED // max(1, len(gallery)))
        return lambda rows: distance(query[rows], gallery), (len(query), len(gallery)), np.float32, step
    matrix = given.detach()
    if matrix.ndim != 2:
        raise Refusal(f"distance has shape {tuple(matrix.shape)}, expected (query, gallery)")
    if matrix.dtype.is_complex:
        raise Refusal(f"distance has dtype {matrix.dtype}, expected real numbers")
    narrow = matrix.dtype.is_floating_point and matrix.dtype.itemsize <= 4
    kind = torch.float32 if narrow else torch.float64
    step = max(1, _SORTED // max(1, matrix.shape[1]))
    shape = (len(matrix), matrix.shape[1])
    return lambda rows: matrix[rows].to(kind), shape, np.float32 if narrow else np.float64, step


def counts(
    distance: Tensor,
    hidden: Array,
    gallery_pid: Array,
    gallery_camid: Array,
    member: Array,
    asked: tuple[Array, Array, Array, Array, Array],
    same_camera: bool,
) -> tuple[Array, Array, Array]:
    """The true matches of each query and the wrong entries at or before each of them.

    Args:
        distance: (b, g) float32 or float64.
        hidden: (g,) rows that are in no query's gallery. gallery_pid, gallery_camid: (g,).
        member: rows that are not hidden, by person.
        asked: of each query (b,) the range of `member` that is its person, first and last, its pid, its
            camid, and the row left out of its gallery, −1 for none.
        same_camera: whether matches in the query's camera count.

    Returns:
        n (b,) int64, true matches, −2 where the distances hold NaN; hit (b, m), their distances, ascending;
        before (b, m) int64. Columns from n on mean nothing.
    """
    where = distance.device
    first, last, pid, camid, own = (placed(value, where)[:, None] for value in asked)
    seen_by, by_person = placed(gallery_camid, where), placed(member, where)
    place = first + torch.arange(int((asked[1] - asked[0]).max(initial=0)), device=where)
    inside = place < last
    found = by_person[place.where(inside, 0)] if len(member) else place
    kept = inside & (found != own)
    if not same_camera:
        kept &= seen_by[found] != camid
    hit = distance.gather(1, found).masked_fill(~kept, torch.inf).sort(1).values
    column = torch.arange(distance.shape[1], device=where)
    wrong = (placed(gallery_pid, where) != pid) & placed(~hidden, where)
    wrong &= column != own
    ranked = distance.masked_fill(~wrong, torch.inf).sort(1).values
    # Wrong entries may be at infinity themselves: no more of them than there are.
    before = torch.searchsorted(ranked, hit, right=True).minimum(wrong.sum(1, keepdim=True))
    n = kept.sum(1).where(~distance.isnan().any(1), -2)
    return on_host(n), on_host(hit), on_host(before)
