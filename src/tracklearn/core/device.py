"""The work of `core` that grows with n², done by torch where the features lie.

Nothing is decided here that could come out otherwise on the host: products propose neighbours, which the
host's kernels then settle; whatever is within rounding of a border goes to the host too. So the results are
those of arrays, on any device. Only modules that were given a tensor import this one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tracklearn.core.features import as_matrix, check_lengths, check_unit_lengths, on_host
from tracklearn.core.neighbors import _rounding
from tracklearn.types import Array

_CELLS = 1 << 27  # float32 similarities held at a time: 512 MB
_SPARE = 32  # candidates of a row beyond twice its neighbours
_NUMBERS = 1 << 25  # float64 numbers of tracklets, their frames and similarities, held at a time: 256 MB
_BLOCK = 1 << 22  # numbers looked at in float64 at a time
_COMPARED = 4096  # rows whose distances are computed together in float64
_SORTED = 1 << 24  # distances sorted at a time: with all that goes with them up to 600 MB


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
    gallery = _placed(gallery, query.device).to(torch.float32)
    q, n = len(query), len(gallery)
    available = n - exclude_self
    kept = min(available, 2 * k + _SPARE)
    candidate = np.empty((q, kept), np.int32)
    value = np.empty((q, kept), np.float32)
    step = max(1, _CELLS // n)
    with _float32_products(query.device):
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
        slack = 2 * _rounding(query.shape[1])
        count[value[:, -1] >= value[:, k - 1].astype(np.float64) - slack] = -1
    return count, candidate, value


def _placed(value: Array | Tensor, device: torch.device) -> Tensor:
    if not isinstance(value, Tensor):
        # torch refuses steps backwards and foreign byte order, and warns of arrays that cannot be written
        # to, though nothing here writes to them.
        value = np.asarray(value)
        value = torch.from_numpy(np.require(value, value.dtype.newbyteorder("="), ["C", "W"]))
    return value.detach().to(device)


@contextmanager
def _float32_products(device: torch.device) -> Iterator[None]:
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
    return torch.cat([_placed(piece, device) for piece in pieces])


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
    inside = frame < _placed(size, device)[:, None]
    row = (_placed(start, device)[:, None] + frame).where(inside, 0)
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
    from tracklearn.core.isolate import _exact
    from tracklearn.core.kernels.isolate import _near

    for b in np.unique(pairs[:, 0]):
        rows = on_host(features[start[b] : start[b] + size[b]])
        rows = np.ascontiguousarray(rows, _exact(rows.dtype))
        for i, j in pairs[pairs[:, 0] == b, 1:]:
            flag = np.uint8(1 << (j & 7))
            was = bool(bits[b, i, j >> 3] & flag)
            if _near(rows[i], rows[j], least) != was:
                bits[b, i, j >> 3] ^= flag
                degree[b, i] += -1 if was else 1


def check_pair(query: Tensor, gallery: Array | Tensor) -> tuple[Tensor, Tensor]:
    """Both as float32 on the device of `query`, checked as `rank.distance` does.

    Raises:
        ValueError: features not finite, not of unit length (within 1e-3) or all zero; widths differ.
    """
    checked = []
    for value, name in ((query, "query"), (gallery, "gallery")):
        tensor = _placed(value, query.device)
        check_unit_lengths(on_host(lengths(tensor, name)), name)
        checked.append(tensor.to(torch.float32))
    if checked[0].shape[1] != checked[1].shape[1]:
        raise ValueError(
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
        raise ValueError(f"distance has shape {tuple(matrix.shape)}, expected (query, gallery)")
    if matrix.dtype.is_complex:
        raise ValueError(f"distance has dtype {matrix.dtype}, expected real numbers")
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
    first, last, pid, camid, own = (_placed(value, where)[:, None] for value in asked)
    seen_by, by_person = _placed(gallery_camid, where), _placed(member, where)
    place = first + torch.arange(int((asked[1] - asked[0]).max(initial=0)), device=where)
    inside = place < last
    found = by_person[place.where(inside, 0)] if len(member) else place
    kept = inside & (found != own)
    if not same_camera:
        kept &= seen_by[found] != camid
    hit = distance.gather(1, found).masked_fill(~kept, torch.inf).sort(1).values
    column = torch.arange(distance.shape[1], device=where)
    wrong = (_placed(gallery_pid, where) != pid) & _placed(~hidden, where)
    wrong &= column != own
    ranked = distance.masked_fill(~wrong, torch.inf).sort(1).values
    # Wrong entries may be at infinity themselves: no more of them than there are.
    before = torch.searchsorted(ranked, hit, right=True).minimum(wrong.sum(1, keepdim=True))
    n = kept.sum(1).where(~distance.isnan().any(1), -2)
    return on_host(n), on_host(hit), on_host(before)
