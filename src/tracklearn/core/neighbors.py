"""Exact k nearest neighbours of unit vectors, by blocks, without an n × n matrix."""

from __future__ import annotations

import math
from contextlib import nullcontext
from threading import Lock, local
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tracklearn.core import coded
from tracklearn.core.features import check_unit, is_tensor, product_error
from tracklearn.core.threads import each, n_threads
from tracklearn.types import Array, Refusal

if TYPE_CHECKING:
    from torch import Tensor

Method = Literal["exact", "int8", "ann"]
METHODS: tuple[Method, ...] = ("exact", "int8", "ann")

_CELLS = 1 << 24  # similarities held at a time: 64 MB
_TILE = 1024  # rows of a tile: its two sides and itself stay in a core's cache
_MANY = 50_000  # rows from which an inverted file is worth building
_PROBED = 8  # cells of the inverted file that a row looks into at least
_RECALL, _ASKED = 0.95, 512  # share of their neighbours that so many rows find, or more cells are looked into
_TRAINED = 64  # rows a cell to find the centres of the cells from
_ROUNDING = 1e-5  # of float32 products of unit rows, well above it


def k_nearest(
    features: Array | Tensor,
    k: int,
    *,
    exclude_self: bool = False,
    method: Method = "exact",
    host: Array | None = None,
) -> tuple[Array, Array]:
    """The k nearest rows of every row, nearest first, by the squared Euclidean distance 2 − 2 x·y.

    Exact: low-precision products only propose; whatever their rounding could hide is computed again in
    float64. Distances closer than about 1e-12 are ties, and ties go to the lower row, so a row is not always
    its own first neighbour: its duplicates may come before it.

    Args:
        features: (n, d) unit rows. A torch tensor is searched on its device, by float32 products whatever
            the method; the result is the same to the bit, and arrays.
        k: neighbours asked for, at least 1. There are at most n (n − 1 with `exclude_self`): more are
            clipped, and the result has that many columns.
        exclude_self: leave each row out of its own list.
        method: "exact" proposes by float32 products, whose rounding is bounded. "int8" proposes by 8-bit
            products (`core.coded`), two to three times as fast from 2,000 rows on where the processor has the
            instruction for them (AVX-VNNI, AVX512-VNNI) and the rows are not all alike (elsewhere it is
            "exact", a seventh slower where it finds that out), and gives the same result:
            numbers are rounded up or down at random, so that the error of a product is a sum of independent
            errors of mean 0, and Hoeffding's inequality bounds all n² of them but for a chance of 1e-12.
            "ann" looks only into the nearest of about 4·√n cells of an inverted file, 8 of them or as many
            as it takes for 512 of the rows to find 95 in 100 of their neighbours, and may miss others: for
            sets that are too large for the other two. Sets of less than 50,000 rows are searched exactly.
            Needs the extra `ann`.
        host: what `features.check_unit` gave for these features, where the caller has looked at them: they
            are not checked again, nor is a tensor brought to the host again.

    Returns:
        index (n, min(k, n)) int64 and squared_distance of the same shape, float32, not negative. The same at
        any number of threads.
        Memory above input and output: 12 MB a thread and about (24 · k + 260) · n bytes; "int8" twice that
        and n · d bytes, in large sets n · (2 d + 640); "ann" 50 · k · n bytes, 64 MB and a copy of the
        features. 64 MB more where rows have too many near-duplicates to tell apart, and a copy of features
        not float32 in row order. For a tensor: 512 MB on the device, (16 · k + 260) · n bytes and a copy of
        the features on the host.

    Raises:
        ValueError: k < 1; features not finite, not of unit length (within 1e-3), or all zero: names rows; an
            unknown method.
        ImportError: "ann" without its extra.

    Example:
        >>> import numpy as np
        >>> x = np.array([[1, 0], [0, 1], [0.8, 0.6]], np.float32)
        >>> k_nearest(x, 2)[0].tolist()
        [[0, 2], [1, 2], [2, 0]]
    """
    if method not in METHODS:
        raise Refusal(f'method is "{method}", expected one of {", ".join(METHODS)}')
    rows = check_unit(features) if host is None else host
    k = _clip(k, len(rows) - exclude_self)
    if is_tensor(features):
        return _on_device(features, rows, k, exclude_self=exclude_self)
    if approximate(len(rows), method):
        return _proposed(rows, k, exclude_self)
    if method == "int8" and k and coded.possible(*rows.shape):
        found = coded.candidates(rows, k, exclude_self=exclude_self)
        if found is not None:
            own = np.arange(len(rows)) if exclude_self else None
            return _settled(rows, rows, *found.proposed, k, own, found.order)
    return _among(rows, k, exclude_self=exclude_self)


def k_nearest_and_farthest(
    features: Array | Tensor, k: int, *, method: Literal["exact", "int8"] = "exact", host: Array | None = None
) -> tuple[Array, Array, Array]:
    """What `k_nearest` gives, and how far away from each row the farthest one is.

    Args:
        features: (n, d) unit rows, an array or a tensor.
        k, host: as for `k_nearest`.
        method: "exact", in one pass of float32 products; "int8", in two of 8-bit products: features of a
            trained network are searched up to 1.5 times as fast. The pass for the farthest comes first;
            where those of many rows are too many to be told apart by 8 bits, a sixth of it was for nothing.

    Returns:
        index and squared_distance as `k_nearest`; farthest (n,) float64, the greatest squared distance of
        each row to about 1e-6 (and by so much another by another method or device), 1 where all rows are the
        same. Memory: as `k_nearest`, and 350 · n bytes by "int8".

    Raises:
        ValueError: as `k_nearest`; method "ann", which cannot tell the farthest.
    """
    if method not in ("exact", "int8"):
        raise Refusal(f'method is "{method}", expected exact or int8: it cannot find the farthest row')
    rows = check_unit(features) if host is None else host
    least: Array = np.full(len(rows), np.inf, np.float32)
    k = _clip(k, len(rows))
    if is_tensor(features):
        index, squared = _on_device(features, rows, k, least=least)
    elif (
        method == "int8"
        and k
        and coded.possible(*rows.shape)
        and (found := coded.nearest_and_farthest(rows, k)) is not None
    ):
        near, far_away = found
        index, squared = _settled(rows, rows, *near.proposed, k, None, near.order)
        least = _least(rows, far_away)
    else:
        index, squared = _among(rows, k, least=least)
    far = 2 - 2 * least.astype(np.float64)
    return index, squared, np.where(far > 1e-6, far, 1.0)


def _least(rows: Array, found: coded.Candidates) -> Array:
    """(n,) float64, the smallest x·y of each row with any, itself included.

    Args:
        found: those that may be the farthest of each; where they are too many, all are looked at.
    """
    from tracklearn.core.kernels.neighbors import settle_farthest

    n = len(rows)
    _, count, candidate, _ = found.proposed
    least = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    step = min(1024, -(-n // n_threads()))
    each(
        lambda lo: settle_farthest(rows, found.order, count, candidate, lo, min(n, lo + step), least),
        range(0, n, step),
    )
    rest = found.order[count < 0]
    step = max(1, _CELLS // n_threads() // n)

    def block(lo: int) -> None:
        own = rest[lo : lo + step]
        least[own] = np.minimum(least[own], (rows[own] @ rows.T).min(1))

    each(block, range(0, len(rest), step))
    return least


def k_nearest_of(query: Array | Tensor, gallery: Array | Tensor, k: int) -> tuple[Array, Array]:
    """The k nearest gallery rows of every query, as `k_nearest` finds them.

    Args:
        query: (q, d) unit rows. Where it is a tensor, its device does the search.
        gallery: (n, d) unit rows.
        k: neighbours asked for, at least 1; clipped to n.

    Returns:
        index (q, min(k, n)) int64 and squared_distance float32, nearest first, ties to the lower row.

    Raises:
        ValueError: as for `k_nearest`, or the widths differ.
    """
    rows, others = check_unit(query, "query"), check_unit(gallery, "gallery")
    if rows.shape[1] != others.shape[1]:
        raise Refusal(
            f"query has width {rows.shape[1]} and gallery {others.shape[1]}: "
            "features of two networks cannot be compared"
        )
    k = _clip(k, len(others))
    if is_tensor(query) and rows.size and k:
        from tracklearn.core.device.neighbors import candidates

        count, candidate, value = candidates(query, gallery, k)
        return _settled(rows, others, _slack(rows), count, candidate, value, k)
    return _scan(rows, others, k)


def approximate(n: int, method: Method) -> bool:
    """Whether `k_nearest` of n rows may miss neighbours: "ann", and enough rows for it to be faster."""
    return method == "ann" and n >= _MANY


def _clip(k: int, available: int) -> int:
    if k < 1:
        raise Refusal(f"k is {k}, expected at least 1")
    return max(0, min(k, available))


def _scan(query: Array, gallery: Array, k: int, own: Array | None = None) -> tuple[Array, Array]:
    """Nearest gallery rows of every query, a block of whole rows at a time; `own` (q,) are left out."""
    q, n = len(query), len(gallery)
    index = np.empty((q, k), np.int64)
    squared = np.empty((q, k), np.float32)
    if not index.size:
        return index, squared

    from tracklearn.core.kernels.neighbors import select

    slack = 2 * product_error(gallery.shape[1])
    step = max(1, min(-(-q // n_threads()), _CELLS // n_threads() // n))

    def block(lo: int) -> None:
        rows = slice(lo, lo + step)
        similarity = query[rows] @ gallery.T
        if own is not None:
            similarity[np.arange(len(similarity)), own[rows]] = -np.inf
        select(similarity, query[rows], gallery, slack, index[rows], squared[rows])

    each(block, range(0, q, step))
    return index, squared


def _among(
    features: Array, k: int, *, exclude_self: bool = False, least: Array | None = None
) -> tuple[Array, Array]:
    """Nearest rows of every row, from the upper triangle of the similarities.

    Each tile of similarities is offered to its rows and to its columns. `least` (n,) takes the smallest
    float32 similarity of each row.
    """
    n = len(features)
    if not n or not k:
        return np.empty((n, k), np.int64), np.empty((n, k), np.float32)

    from tracklearn.core.kernels.neighbors import offer, open_floors

    slack = _slack(features)
    # A row's candidates are cut down each time they fill their space; what lies within the slack stays.
    capacity = min(n, 3 * k + 32)
    candidate = np.empty((n, capacity), np.int32)
    value = np.empty((n, capacity), np.float32)
    count = np.zeros(n, np.int64)
    floor = np.full(n, -np.inf, np.float32)

    blocks = -(-n // _TILE)
    edge = [n * b // blocks for b in range(blocks + 1)]
    locks = [Lock() for _ in range(blocks)]

    mine = local()  # each thread's space for a tile

    def work(pair: tuple[int, int]) -> None:
        a, b = pair
        if not hasattr(mine, "tile"):
            mine.tile = np.empty((-(-n // blocks)) ** 2, np.float32)
        row, column = slice(edge[a], edge[a + 1]), slice(edge[b], edge[b + 1])
        one, other = features[row], features[column]
        out = mine.tile[: len(one) * len(other)].reshape(len(one), len(other))
        similarity = np.matmul(one, other.T, out=out)
        if a == b:
            if exclude_self:
                np.fill_diagonal(similarity, np.nan)  # reaches no floor
            open_floors(similarity, edge[a], k, slack, floor)
        with locks[a], nullcontext() if a == b else locks[b]:
            offer(similarity, edge[a], edge[b], k, slack, floor, count, candidate, value)
            if least is not None:
                np.minimum(least[row], similarity.min(1), out=least[row])
                np.minimum(least[column], similarity.min(0), out=least[column])

    # The diagonal first: it gives every row a floor.
    each(work, [(b, b) for b in range(blocks)])
    each(work, [(a, b) for b in range(blocks) for a in range(b)])

    own = np.arange(n) if exclude_self else None
    return _settled(features, features, slack, count, candidate, value, k, own)


def _on_device(
    features: Tensor, rows: Array, k: int, *, exclude_self: bool = False, least: Array | None = None
) -> tuple[Array, Array]:
    """What `_among` finds, the products made where `features` lie; `rows` are their copy on the host."""
    if not len(rows) or not k:
        return np.empty((len(rows), k), np.int64), np.empty((len(rows), k), np.float32)

    from tracklearn.core.device.neighbors import candidates

    own = np.arange(len(rows)) if exclude_self else None
    count, candidate, value = candidates(features, features, k, exclude_self=exclude_self, least=least)
    return _settled(rows, rows, _slack(rows), count, candidate, value, k, own)


def _settled(
    query: Array,
    gallery: Array,
    slack: Array,
    count: Array,
    candidate: Array,
    value: Array,
    k: int,
    own: Array | None = None,
    order: Array | None = None,
) -> tuple[Array, Array]:
    """The k nearest of each query's candidates, exactly; where the count is −1, of all but `own` (q,).

    Slack, count, candidates and values stand in the order of `order` (q,), of the queries themselves if None.
    """
    from tracklearn.core.kernels.neighbors import settle

    q = len(query)
    index = np.empty((q, k), np.int64)
    squared = np.empty((q, k), np.float32)
    order = np.arange(q) if order is None else order
    step = min(1024, -(-q // n_threads()))
    each(
        lambda lo: settle(
            query, order, gallery, slack, count, candidate, value, lo, min(q, lo + step), index, squared
        ),
        range(0, q, step),
    )
    rest = np.sort(order[count < 0])
    if len(rest):
        index[rest], squared[rest] = _scan(query[rest], gallery, k, None if own is None else own[rest])
    return index, squared


def _proposed(features: Array, k: int, exclude_self: bool) -> tuple[Array, Array]:
    """Nearest rows among those that an inverted file proposes; a row that finds too few looks at all."""
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            'method "ann" needs faiss: pip install "tracklearn[ann]", or use "exact" or "int8"'
        ) from error
    n, width = features.shape
    wanted = 2 * k + exclude_self
    # Fewer than 39 rows a cell is too few to find its centre from.
    cells = max(1, min(round(4 * math.sqrt(n)), n // 39))
    index_file = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
    index_file.cp.seed, index_file.cp.niter = 0, 5
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(n_threads())
    try:
        index_file.train(features[:: max(1, n // (_TRAINED * cells))])
        index_file.add(features)
        index_file.nprobe = _probes(index_file, features, k, cells) if n > 1 else cells
        value = np.empty((n, wanted), np.float32)
        candidate = np.empty((n, wanted), np.int32)
        for lo in range(0, n, _TILE):
            value[lo : lo + _TILE], candidate[lo : lo + _TILE] = index_file.search(
                features[lo : lo + _TILE], wanted
            )
    finally:
        faiss.omp_set_num_threads(before)
    missing = candidate < 0
    if exclude_self:
        missing |= candidate == np.arange(n)[:, None]
    order = np.argsort(missing, axis=1, kind="stable")
    candidate, value = np.take_along_axis(candidate, order, 1), np.take_along_axis(value, order, 1)
    count = wanted - missing.sum(1)
    count[count < k] = -1
    own = np.arange(n) if exclude_self else None
    return _settled(features, features, _slack(features), count, candidate, value, k, own)


def _probes(index_file: Any, features: Array, k: int, cells: int) -> int:
    """Cells to look into: doubled until a sample of rows finds enough of its k nearest others.

    Found is who is as near as the k-th of them, so that of equal rows any will do.
    """
    n = len(features)
    k = min(k, n - 1)
    sample = np.linspace(0, n - 1, min(_ASKED, n)).astype(np.int64)
    least = np.empty(len(sample), np.float32)  # similarity of the k-th
    step = max(1, _CELLS // n)
    for lo in range(0, len(sample), step):
        own = sample[lo : lo + step]
        similarity = features[own] @ features.T
        similarity[np.arange(len(own)), own] = -2
        similarity.partition(n - k, axis=1)
        least[lo : lo + step] = similarity[:, n - k]
    probes = _PROBED
    while probes < cells:
        index_file.nprobe = probes
        value, found = index_file.search(features[sample], k + 1)
        near = (found >= 0) & (found != sample[:, None]) & (value >= least[:, None] - _ROUNDING)
        if np.minimum(near.sum(1), k).sum() >= _RECALL * k * len(sample):
            break
        probes *= 2
    return min(probes, cells)


def _slack(rows: Array) -> Array:
    """(n,) twice what the float32 products of these unit rows can be off."""
    return np.full(len(rows), 2 * product_error(rows.shape[1]), np.float32)
