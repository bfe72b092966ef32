"""The graph of tracklets of different cameras that are each other's nearest, and how good it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from threading import Lock, local
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import sparse

from tracklearn.core import coded
from tracklearn.core.features import check_unit, product_error
from tracklearn.core.threads import each, n_threads
from tracklearn.types import Array, Refusal

if TYPE_CHECKING:
    from torch import Tensor


_TILE = 2048  # rows of a tile at most: 16 MB of similarities
_SMALL = 512  # rows up to which small cameras share a tile, not above _TILE
_ALIKE_PAIRS = 3  # pairs of cameras whose lists overflow after which no more are compared by 8 bits
_PER_CAMERA = 128  # rows a camera, on the mean, from which 8-bit products of whole panels pay


@dataclass(frozen=True, eq=False)
class Graph:
    """Undirected weighted edges between t tracklets, by rows.

    Args:
        start: (t + 1,) int64; the edges of tracklet i are start[i]..start[i + 1]−1.
        to: (m,) int64, the other end of each edge, ascending for each tracklet. Both directions are stored,
            and no edge from a tracklet to itself: e(i, i) = 1 goes without saying.
        weight: (m,) float32, the same in both directions.
    """

    start: Array
    to: Array
    weight: Array


def cross_view(
    features: Array | Tensor,
    camid: Array,
    *,
    k: int = 1,
    threshold: float = 0.6,
    method: Literal["exact", "int8"] = "exact",
) -> Graph:
    """Edges between tracklets of different cameras that are among each other's k nearest.

    Tracklets i and j are joined where their cosine is above the threshold, j is among the k tracklets of j's
    camera that are nearest to i, and i among the k of i's camera that are nearest to j.

    Exact: float32 products only propose; whatever their rounding could hide is computed again in float64.
    Squared distances closer than about 1e-12 are ties, and ties go to the lower row; so close to the
    threshold counts as on it, which is no edge.

    Args:
        features: (t, d) unit rows, one per tracklet; a tensor is brought to the host.
        camid: (t,) int, camera of each tracklet.
        k: neighbours in each other camera, at least 1.
        threshold: cosine that an edge must exceed, in [−1, 1).
        method: "exact" proposes by float32 products, whose rounding is bounded; "int8", from 2,000 tracklets
            and 128 a camera on, by 8-bit products as `neighbors.k_nearest` does, with the same result but for
            a chance of 1e-12, in a half to a twelfth of the time; pairs of cameras whose tracklets are all
            alike are compared by float32.

    Returns:
        Graph; the weight of an edge is the cosine. The same at any number of threads.
        Memory above input and output: 16 MB a thread, (24 · k + 300) bytes for each tracklet of as many pairs
        of cameras as there are threads, and a copy of the features where their rows are not sorted by camera;
        "int8" (24 · k + 288) bytes a thread for each tracklet of all, and d bytes, 2 d + 640 in large sets.
        Time: one product for each pair of tracklets of different cameras, and float64 ones with all
        of a camera for tracklets that have more than 3 · k + 32 near-duplicates there.

    Raises:
        ValueError: features not finite, not of unit length (within 1e-3), or all zero: names rows; camid of
            another length; k < 1; a threshold out of range.

    Example:
        >>> x = np.array([[1, 0], [0, 1], [0.8, 0.6], [0, 1]], np.float32)
        >>> graph = cross_view(x, np.array([0, 0, 1, 1]))
        >>> graph.start.tolist(), graph.to.tolist()
        ([0, 1, 2, 3, 4], [2, 3, 0, 1])

    Source: Wu, Yang, Liu, Liao, Lei, Li, "Unsupervised Graph Association for Person Re-Identification",
    ICCV 2019, cross-view graph; the values of k and the threshold are our choice.
    """
    rows = check_unit(features)
    t = len(rows)
    camera, n_cameras = _cameras(camid, t)
    if k < 1:
        raise Refusal(f"k is {k}, expected at least 1")
    if not -1 <= threshold < 1:
        raise Refusal(f"threshold is {threshold}, expected a cosine in [-1, 1)")
    if method not in ("exact", "int8"):
        raise Refusal(f'method is "{method}", expected exact or int8')
    if n_cameras < 2:
        return _from_pairs(np.empty((0, 2), np.int64), np.empty(0, np.float32), t)

    order = np.argsort(camera, kind="stable")
    in_order = (np.diff(camera) >= 0).all()
    edge = np.r_[0, np.cumsum(np.bincount(camera))]  # camera c has the rows edge[c]..edge[c + 1]−1
    rows = rows if in_order else rows[order]
    if method == "int8" and t >= _PER_CAMERA * n_cameras and coded.possible(*rows.shape):
        found = _CodedSearch(rows, edge, k, threshold).edges()
    else:
        found = each(lambda task: task(), _Search(rows, k, threshold).tasks(edge))
    pair = np.concatenate([pair for pair, _ in found])
    return _from_pairs(order[pair], np.concatenate([weight for _, weight in found]), t)


def changes(old: Graph, new: Graph) -> tuple[int, int]:
    """How many edges, each counted once, `new` has that `old` has not, and the other way round.

    Returns:
        added, dropped.

    Raises:
        ValueError: the graphs have different numbers of tracklets.
    """
    t, t_new = len(old.start) - 1, len(new.start) - 1
    if t != t_new:
        raise Refusal(f"old is a graph of {t} tracklets and new one of {t_new}: expected the same")
    before, after = (i * t + j for i, j in map(_edges, (old, new)))
    kept = len(np.intersect1d(before, after, assume_unique=True))
    return len(after) - kept, len(before) - kept


def components(graph: Graph) -> Array:
    """Which connected component each tracklet belongs to.

    Returns:
        (t,) int64, components of two and more numbered from 0 by their first members, −1 alone.
    """
    t = len(graph.start) - 1
    matrix = sparse.csr_array((np.ones(len(graph.to), np.int8), graph.to, graph.start), shape=(t, t))
    label = sparse.csgraph.connected_components(matrix, directed=False)[1]
    _, first, of, size = np.unique(label, return_index=True, return_inverse=True, return_counts=True)
    number = np.full(len(first), -1, np.int64)
    joined = np.flatnonzero(size > 1)
    number[joined[np.argsort(first[joined])]] = np.arange(len(joined))
    return number[of]


def links(graph: Graph, camid: Array) -> Array:
    """How many edges join each two cameras.

    Args:
        graph: of t tracklets. camid: (t,) int.

    Returns:
        (c, c) int64, symmetric; row and column stand for the c cameras that occur, in ascending order.

    Raises:
        ValueError: camid of another length.
    """
    camera, n_cameras = _cameras(camid, len(graph.start) - 1)
    cell = np.repeat(camera, np.diff(graph.start)) * n_cameras + camera[graph.to]
    return np.bincount(cell, minlength=n_cameras**2).reshape(n_cameras, n_cameras)


def transitivity(graph: Graph, camid: Array) -> float:
    """Of all paths i-j-k over three different cameras, the share whose ends i and k are joined too.

    True links are transitive: where i-j and j-k show one person, so do i and k. It judges a graph without
    ground truth.

    Args:
        graph: of t tracklets. camid: (t,) int.

    Returns:
        0-1; NaN where there is no such path. Time: the sum of the squared numbers of edges of the tracklets.

    Raises:
        ValueError: camid of another length.
    """
    camera, _ = _cameras(camid, len(graph.start) - 1)

    from tracklearn.core.kernels.graph import count_paths

    paths, closed = count_paths(graph.start, graph.to, camera)
    return _share(closed, paths)


def precision_recall(graph: Graph, pid: Array, camid: Array) -> tuple[float, float]:
    """How true the edges are, and how much of the truth they reach; tracklets of unknown people left out.

    Args:
        graph: of t tracklets.
        pid: (t,) int, true person of each tracklet, −1 unknown. camid: (t,) int.

    Returns:
        precision: of the edges between known people, the share that joins a person to itself.
        recall: of the combinations of a person and two cameras in which that person has tracklets, the share
        with at least one edge between them. Either is NaN where there is nothing to take a share of.

    Raises:
        ValueError: pid or camid of another length.
    """
    t = len(graph.start) - 1
    camera, n_cameras = _cameras(camid, t)
    pid = np.asarray(pid)
    if pid.shape != (t,):
        raise Refusal(f"pid has shape {pid.shape}, expected ({t},): one person per tracklet")
    i, j = _edges(graph)
    known = (pid[i] >= 0) & (pid[j] >= 0)
    true = known & (pid[i] == pid[j])
    precision = _share(int(true.sum()), int(known.sum()))

    seen = np.unique(np.stack([pid, camera], 1)[pid >= 0], axis=0)  # people with each of their cameras
    cameras = np.unique(seen[:, 0], return_counts=True)[1]
    low, high = np.minimum(camera[i], camera[j]), np.maximum(camera[i], camera[j])
    across = true & (low < high)
    reached = np.unique(np.stack([pid[i], low * n_cameras + high], 1)[across], axis=0)
    return precision, _share(len(reached), int((cameras * (cameras - 1) // 2).sum()))


class _Pair:
    """Two cameras too large for one tile: what their tiles have brought so far.

    Args:
        row, column: the rows of each. n_tiles: tiles still to come.
    """

    def __init__(self, row: slice, column: slice, n_tiles: int) -> None:
        self.row, self.column, self.n_tiles = row, column, n_tiles
        self.lists: tuple[Array, ...] | None = None  # from the first tile to the last
        self.lock = Lock()


class _Search:
    """Edges among the cameras of unit rows that are sorted by camera."""

    def __init__(self, rows: Array, k: int, threshold: float) -> None:
        self.rows, self.k, self.threshold = rows, k, threshold
        self.error = product_error(rows.shape[1])
        self.mine = local()  # each thread's space for a tile

    def tasks(self, edge: Array) -> Iterator[Callable[[], tuple[Array, Array]]]:
        """One for each tile, in parts of all edges: pair (m, 2) int64, sorted rows; weight (m,) float32."""
        # Small cameras share a tile, as products of few rows are slow.
        first = [0]
        for c in range(1, len(edge) - 1):
            if edge[c + 1] - edge[first[-1]] > _SMALL:
                first.append(c)
        groups = [edge[a : b + 1] for a, b in pairwise([*first, len(edge) - 1])]
        for column in groups:
            for row in groups:
                if row[0] > column[0] or (row is column and len(row) == 2):
                    continue
                if max(row[-1] - row[0], column[-1] - column[0]) <= _TILE:
                    yield partial(self.whole, row, column)
                    continue
                for a, b in product(pairwise(row), pairwise(column)):
                    tiles = list(product(_cut(*a), _cut(*b)))
                    pair = _Pair(slice(*a), slice(*b), len(tiles))
                    yield from (partial(self.part, pair, *tile) for tile in tiles)

    def whole(self, row_edge: Array, column_edge: Array) -> tuple[Array, Array]:
        """Edges between cameras whose products are all in one tile."""
        from tracklearn.core.kernels.graph import between_all

        tile = self.products(slice(row_edge[0], row_edge[-1]), slice(column_edge[0], column_edge[-1]))
        return between_all(tile, self.rows, row_edge, column_edge, self.k, self.error, self.threshold)

    def two(self, row: slice, column: slice, *, threads: bool) -> tuple[Array, Array]:
        """Edges between two cameras, however large, by this thread or by all."""
        tiles = list(product(_cut(row.start, row.stop), _cut(column.start, column.stop)))
        pair = _Pair(row, column, len(tiles))
        run = each if threads else map
        found, weight = zip(*run(lambda tile: self.part(pair, *tile), tiles), strict=True)
        return np.concatenate(found), np.concatenate(weight)

    def part(self, pair: _Pair, row: slice, column: slice) -> tuple[Array, Array]:
        """Edges between two cameras once all of their tiles have been looked at, none before."""
        from tracklearn.core.kernels.graph import between, new_lists
        from tracklearn.core.kernels.neighbors import offer

        tile = self.products(row, column)
        x_a, x_b = self.rows[pair.row], self.rows[pair.column]
        with pair.lock:
            if pair.lists is None:
                pair.lists = new_lists(len(x_a), len(x_b), self.k, self.threshold - self.error)
            floor, count, index, value = pair.lists
            slack = np.full(len(floor), 2 * self.error, np.float32)
            i, j = row.start - pair.row.start, len(x_a) + column.start - pair.column.start
            offer(tile, i, j, self.k, slack, floor, count, index, value)
            pair.n_tiles -= 1
            if pair.n_tiles:
                return np.empty((0, 2), np.int64), np.empty(0, np.float32)
            pair.lists = None
        found, weight = between(x_a, x_b, self.k, 2 * self.error, self.threshold, count, index, value)
        return found + np.array([pair.row.start, pair.column.start]), weight

    def products(self, row: slice, column: slice) -> Array:
        """Similarities of two ranges of rows, float32, in space that the thread's next call takes again."""
        a, b = self.rows[row], self.rows[column]
        size = len(a) * len(b)
        if getattr(self.mine, "space", np.empty(0)).size < size:
            self.mine.space = np.empty(size, np.float32)
        return np.matmul(a, b.T, out=self.mine.space[:size].reshape(len(a), len(b)))


class _CodedSearch:
    """Edges among the cameras of unit rows that are sorted by camera, by 8-bit products."""

    def __init__(self, rows: Array, edge: Array, k: int, threshold: float) -> None:
        from tracklearn.core.kernels.products import COLUMNS

        self.rows, self.edge, self.k, self.threshold = rows, edge, k, threshold
        self.plain, self.alike = _Search(rows, k, threshold), 0
        # Each camera begins with a panel of its own: none is compared with itself.
        size = np.diff(edge)
        self.place = np.r_[0, np.cumsum(-(-size // COLUMNS) * COLUMNS)]
        order = np.full(self.place[-1], -1, np.int64)
        self.at = np.arange(len(rows)) + np.repeat(self.place[:-1] - edge[:-1], size)
        order[self.at] = np.arange(len(rows))
        axes = coded.axes_of(rows)
        self.coded, self.code = coded.encoded(rows, order, by_row=axes is not None)
        self.error = float(coded.errors(self.coded.scale[self.at], rows.shape[1]).max())
        self.led = None
        if axes is not None:
            self.led, off = coded.led_by(axes, rows, order)
            self.gap = np.maximum(off - self.error, 0)
        self.mine = local()

    def edges(self) -> list[tuple[Array, Array]]:
        """Those of each two cameras: pair (m, 2) int64, sorted rows; weight (m,) float32."""
        cameras = range(len(self.edge) - 1)
        pairs = [(a, b) for b in cameras for a in range(b)]
        if len(pairs) < 4 * n_threads():  # few and large: all threads on one pair
            return [self.pair(a, b, coded.apart) for a, b in pairs]
        return each(lambda pair: self.pair(*pair, _in_turn), pairs)

    def pair(
        self, a: int, b: int, run: Callable[[Array, Callable[[int, int], None]], None]
    ) -> tuple[Array, Array]:
        """Edges between two cameras; `run` works on pairs of their windows."""
        from tracklearn.core.kernels import coded as kernels
        from tracklearn.core.kernels.graph import between

        of = [slice(self.edge[c], self.edge[c + 1]) for c in (a, b)]
        if self.alike > _ALIKE_PAIRS:
            return self.plain.two(*of, threads=run is coded.apart)
        floor, least, slack, itself, name, *lists = self.space()
        n_a = self.edge[a + 1] - self.edge[a]
        windows: list[list[tuple[int, int]]] = []
        places: list[Array] = []
        for camera, first in ((a, 0), (b, n_a)):
            at = self.at[self.edge[camera] : self.edge[camera + 1]]
            floor[at] = np.nextafter(np.float32(self.threshold - self.error), np.float32(-2))
            lists[0][at] = 0
            if self.led is not None:
                least[at] = floor[at] - self.gap[at]
            name[at] = np.arange(first, first + len(at))
            low, high = self.place[camera], self.place[camera + 1]
            windows.append([(lo, min(lo + coded.WINDOW, high)) for lo in range(low, high, coded.WINDOW)])
            places.append(at)
        near, far = windows

        def offer(i: int, j: int) -> None:
            held = name, self.k, slack, itself, near[i], far[j - len(near)], floor, *lists
            if self.led is None:
                kernels.offer(len(floor), self.coded, *held)
            else:
                most = coded.most_left()
                kernels.offer_led(len(floor), self.coded, self.led, self.code, least, self.gap, most, *held)

        run(np.array([(i, len(near) + j) for i in range(len(near)) for j in range(len(far))]), offer)
        both = np.concatenate(places)
        count, index, value = (part[both] for part in lists)
        if (count < 0).sum() > coded.ALIKE * len(count):
            self.alike += 1
            return self.plain.two(*of, threads=run is coded.apart)
        x_a, x_b = (self.rows[c] for c in of)
        found, weight = between(x_a, x_b, self.k, 2 * self.error, self.threshold, count, index, value)
        return found + np.array([self.edge[a], self.edge[b]]), weight

    def space(self) -> tuple[Array, ...]:
        """The thread's floors (of all and of leading numbers), slack, itself, name, count, index, value."""
        if not hasattr(self.mine, "space"):
            n, capacity = len(self.coded.scale), 3 * self.k + 32
            self.mine.space = (
                np.full(n, np.inf, np.float32),
                np.full(n, np.inf, np.float32),
                np.full(n, 2 * self.error, np.float32),
                np.full(n, -np.inf, np.float32),
                np.full(n, -1, np.int64),
                np.zeros(n, np.int64),
                np.empty((n, capacity), np.int32),
                np.empty((n, capacity), np.float32),
            )
        return self.mine.space


def _in_turn(pairs: Array, work: Callable[[int, int], None]) -> None:
    for i, j in pairs.tolist():
        work(i, j)


def _cut(lo: int, hi: int) -> list[slice]:
    """Ranges of about the same size, of no more than a tile's rows."""
    parts = -(-(hi - lo) // _TILE)
    return [slice(lo + (hi - lo) * p // parts, lo + (hi - lo) * (p + 1) // parts) for p in range(parts)]


def _cameras(camid: Array, t: int) -> tuple[Array, int]:
    """Cameras numbered from 0 in ascending order of camid, (t,) int64, and how many there are."""
    camid = np.asarray(camid)
    if camid.shape != (t,):
        raise Refusal(f"camid has shape {camid.shape}, expected ({t},): one camera per tracklet")
    known, camera = np.unique(camid, return_inverse=True)
    return camera.astype(np.int64), len(known)


def _from_pairs(pair: Array, weight: Array, t: int) -> Graph:
    """Graph of edges pair (m, 2) that are given in one direction."""
    i, j = pair.T
    both = np.concatenate([i, j]), np.concatenate([j, i])
    matrix = sparse.csr_array((np.concatenate([weight, weight]), both), shape=(t, t))
    matrix.sort_indices()
    return Graph(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data)


def _edges(graph: Graph) -> tuple[Array, Array]:
    """Ends i < j of each edge, (m / 2,) each."""
    i = np.repeat(np.arange(len(graph.start) - 1), np.diff(graph.start))
    once = i < graph.to
    return i[once], graph.to[once]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
