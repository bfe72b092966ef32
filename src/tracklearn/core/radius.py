"""Pairs of unit vectors within a cosine distance, by blocks, without an n × n matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any, Literal

import numpy as np
from scipy import sparse

from tracklearn.core import cluster, coded
from tracklearn.core.features import check_unit, product_error, unit_rows
from tracklearn.core.threads import each
from tracklearn.types import Array, Refusal

# Distances are compared in steps of 2^-40 (9e-13), as in `neighbors`: equal ones tie whatever the order of
# their sums.
STEPS = 2.0**40
# Float32 rows have unit length to about 1e-7: below this cosine distance, rounding tells rows apart.
ALIKE = 5e-7
_TILE = 1024  # rows of a tile of similarities, 4 MB; whole panels of `kernels.products`
_PAIRS = 1 << 16  # pairs of a tile that there is room for at first
_CROWD, _CROWD_EACH = 1 << 23, 256  # pairs held for DBSCAN, and further ones for each row: from 750 MB
_DRAWN = 1024  # rows drawn to find the level of chance
# Where pairs are few, 8-bit products find them: the share up to which they are; how many more are looked for
# than a sample says; by what factor and at least how much wider where those are too few.
_SHARE, _MORE, _WIDER, _MIN_STEP = 0.02, 1.3, 1.5, 0.01


class Crowded(Refusal):
    """More pairs lie within the radius than may be held."""


def within(
    features: Array, radius: float, *, most: int | None = None, method: Literal["exact", "int8"] = "exact"
) -> sparse.csr_array:
    """The cosine distances 1 − x·y of all pairs of rows up to `radius`, for `cluster.dbscan`.

    Float32 products propose; what their rounding leaves open is settled in float64.

    Args:
        features: (n, d) unit rows.
        radius: greatest distance kept, included; at least 0.
        most: pairs that may be found.
        method: "exact", or "int8": from 2,000 rows on 8-bit products propose, as in `neighbors.k_nearest`,
            with the same result but for a chance of 1e-12.

    Returns:
        (n, n) float64, symmetric, columns in order, the diagonal not stored, zeros stored. The same at any
        number of threads. Memory: 90 bytes a pair while it is made, 24 after, and 12 MB a thread; by "int8"
        n · d bytes more.

    Raises:
        ValueError: radius negative or not finite; features as `features.check_unit`.
        Crowded: there are more than `most` pairs.

    Example:
        >>> x = np.array([[1, 0], [0, 1], [0.8, 0.6]], np.float32)
        >>> within(x, 0.3).toarray().round(6).tolist()
        [[0.0, 0.0, 0.2], [0.0, 0.0, 0.0], [0.2, 0.0, 0.0]]
    """
    if not 0 <= radius < math.inf:
        raise Refusal(f"radius is {radius}, expected a cosine distance of at least 0")
    _check_method(method)
    rows = check_unit(features)
    n = len(rows)
    limit = math.floor(radius * STEPS + 0.5) / STEPS
    size = 0
    lock = Lock()

    def settled(i: Array, j: Array) -> tuple[Array, Array, Array]:
        nonlocal size
        distance = _distances(rows, i, j)
        near = distance <= limit
        with lock:
            size += int(near.sum())
        if most is not None and size > most:
            raise Crowded(f"more than {most} pairs lie within {radius:.3f}: the features are too alike")
        return i[near], j[near], distance[near]

    if method == "int8" and coded.possible(*rows.shape):
        found = _by_bytes(rows, limit, settled)
    else:
        least = _floor(1 - limit - product_error(rows.shape[1]))

        def work(similarity: Array, row: int, column: int) -> tuple[Array, Array, Array]:
            i, j = np.nonzero(similarity >= least)
            return settled((i + row).astype(np.int32), (j + column).astype(np.int32))

        found = _tiles(rows, work)
    i, j, distance = (np.concatenate(part) for part in zip(*found, strict=True)) if found else _NOTHING
    # What was rounded onto the radius lies within it for everybody who compares with the radius.
    distance = np.minimum(distance, radius)
    graph = sparse.csr_array(
        (np.r_[distance, distance], (np.r_[i, j], np.r_[j, i])), shape=(n, n), dtype=np.float64
    )
    graph.sort_indices()
    return graph


def mean_nearest(features: Array, share: float, *, method: Literal["exact", "int8"] = "exact") -> float:
    """The mean of the smallest `share` of all pairwise cosine distances, equal rows left out.

    The rule of `cluster.data_dependent_eps` for distances that are not stored.

    Args:
        features: (n, d) unit rows.
        share: of the pairs that are further apart than 5e-7, in (0, 1]; rounded to at least one pair.
        method: as in `within`: "int8" looks for the pairs within a radius that a sample tells.

    Returns:
        The mean, to the precision of float32 products, about 1e-6; 0 where no pair is left. Memory: 8 bytes
        for each pair in the share and 12 MB a thread; by "int8" twice that and n · d bytes.

    Raises:
        ValueError: share out of range; features as `features.check_unit`.

    Source: METHODS 2.3.
    """
    if not 0 < share <= 1:
        raise Refusal(f"share is {share}, expected (0, 1]")
    _check_method(method)
    rows = check_unit(features)
    pairs = len(rows) * (len(rows) - 1) // 2
    most = max(1, round(share * pairs))
    by_bytes = method == "int8" and share <= _SHARE and coded.possible(*rows.shape)
    radius = _sampled(rows, _MORE * share) if by_bytes else math.inf
    while True:
        kept = _Smallest(most)
        alike = _offered(rows, radius, kept)
        take = max(1, round(share * (pairs - alike)))
        value = np.sort(kept.values())[:take]
        # Of the pairs beyond the radius not all are offered.
        if radius >= 1 or (len(value) == take and value[-1] <= radius):
            return float(value.mean(dtype=np.float64)) if len(value) else 0.0
        radius = _WIDER * radius + _MIN_STEP


def _offered(rows: Array, radius: float, kept: _Smallest) -> int:
    """Offer the distances of all pairs within the radius, and say how many are as good as 0.

    From a radius of 1 on all pairs are, by float32 products.
    """
    if radius < 1:
        return sum(_by_bytes(rows, radius, lambda i, j: kept.offer(_distances(rows, i, j))))
    return sum(_tiles(rows, lambda similarity, i, j: kept.offer(1 - similarity)))


def chance_level(features: Array, share: float, *, seed: int = 0) -> float:
    """What `mean_nearest` would be of rows that spread as these do, but form no groups.

    Rows are drawn from a normal distribution with the mean and the covariance of the given ones. Groups bring
    some pairs nearer than that. Measured on 24 to 140 tracklets, normalised per camera: `mean_nearest` is
    0.2-0.8 of it where features were learned, 0.93 for generated people seen by an untrained network, and
    1.1-1.3 for pictures of noise; heavy-tailed noise of 1,000 rows gives 0.96.

    Args:
        features: (n, d) unit rows.
        share: as in `mean_nearest`.
        seed: of the draw.

    Returns:
        Mean over four draws of min(n, 1024) rows; nan with fewer than two rows.

    Raises:
        ValueError: as `mean_nearest`.
    """
    rows = check_unit(features)
    n = len(rows)
    if n < 2:
        return float("nan")
    mean = rows.mean(0, dtype=np.float64)

    def draw(number: int) -> Array:
        rng = np.random.default_rng([seed, number])
        mix = rng.standard_normal((min(n, _DRAWN), n)) / math.sqrt(n)
        # The sum of random multiples of all rows has their covariance and, by its many parts, no groups.
        return unit_rows(mix @ (rows - mean) + mean)

    # One after the other in `each`, where BLAS has one thread: its sums must not depend on their number.
    drawn = [level for number in range(4) for level in each(draw, [number])]
    return float(np.mean([mean_nearest(one, share) for one in drawn]))


def clusters(
    features: Array,
    eps: float,
    min_samples: int,
    *,
    widest: float,
    usable: Callable[[Array], bool],
    method: Literal["exact", "int8"] = "exact",
) -> tuple[Array, float, list[str]]:
    """DBSCAN labels by cosine distance, with further tries where the first are of no use.

    As in `cluster.associate`: where one cluster holds half of the rows, or their pairs are too many to hold,
    eps is narrowed by 1 / 1.15 a step, down to a quarter; then min_samples falls to 2, and eps is widened by
    1.15 a step up to `widest`. Where nothing helps, the first labels come back.

    Args:
        features: (n, d) unit rows.
        eps, min_samples: as in `cluster.dbscan`.
        widest: radius never gone beyond.
        usable: labels (n,) -> whether they will do.
        method: as in `within`.

    Returns:
        label (n,) int64, −1 noise; the eps in the end; sentences on what was tried, none where the first
        labels will do. Memory: as `within` for at most 8 million pairs and 256 a row.

    Raises:
        ValueError: as `within` and `cluster.dbscan`.
    """
    graph = _Graph(features, method)
    first = graph.label(eps, min_samples)
    if usable(first):
        return first, eps, []
    said = [_describe(first, eps, min_samples)]
    for other, samples in _tries(first, eps, min_samples, widest):
        label = graph.label(other, samples)
        if usable(label):
            return label, other, [*said, _describe(label, other, samples)]
    return first, eps, [*said, f"no eps up to {max(eps, widest):.3f} gives two clusters to learn from"]


_NOTHING = (np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0))


class _Smallest:
    """The `most` smallest of all values offered, by several threads."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.bound = 2.5  # no two unit rows are further apart than 2
        self.held: list[Array] = []
        self.size = 0
        self.lock = Lock()

    def offer(self, distance: Array) -> int:
        """Take what may be among the smallest; gives the number of those that are as good as 0."""
        value = distance[(distance > ALIKE) & (distance <= self.bound)]
        with self.lock:
            self.held.append(value)
            self.size += len(value)
            if self.size > 2 * self.most + _TILE * _TILE:
                self._cut()
        return int((distance <= ALIKE).sum())

    def values(self) -> Array:
        self._cut()
        return self.held[0]

    def _cut(self) -> None:
        value = np.concatenate(self.held) if self.held else np.zeros(0, np.float32)
        if len(value) > self.most:
            value = np.partition(value, self.most - 1)[: self.most]
            self.bound = float(value.max())
        self.held, self.size = [value], len(value)


def _check_method(method: str) -> None:
    if method not in ("exact", "int8"):
        raise Refusal(f'method is "{method}", expected exact or int8')


def _distances(rows: Array, i: Array, j: Array) -> Array:
    """(m,) float64, the cosine distances of pairs of rows."""
    from tracklearn.core.kernels.radius import cosine_distances

    distance = np.empty(len(i))
    cosine_distances(rows, i, j, STEPS, distance)
    return distance


def _sampled(rows: Array, share: float) -> float:
    """About the cosine distance that such a share of all pairs lies within."""
    sample = rows[np.linspace(0, len(rows) - 1, min(len(rows), 2 * _TILE)).astype(np.int64)]
    pairs = len(sample) * (len(sample) - 1) // 2
    kept = _Smallest(max(1, math.ceil(share * pairs)))
    _tiles(sample, lambda similarity, i, j: kept.offer(1 - similarity))
    value = kept.values()
    return float(value.max()) if len(value) else 1.0


def _tiles(rows: Array, work: Callable[[Array, int, int], Any]) -> list[Any]:
    """work(similarity, first row, first column) of every tile of the pairs i < j; the others are −inf."""
    n = len(rows)

    def one(at: tuple[int, int]) -> Any:
        i, j = at
        similarity = rows[i : i + _TILE] @ rows[j : j + _TILE].T
        if i == j:
            similarity[np.tril_indices(len(similarity))] = -np.inf
        return work(similarity, i, j)

    return each(one, _corners(n))


def _by_bytes(rows: Array, limit: float, settled: Callable[[Array, Array], Any]) -> list[Any]:
    """`settled` of all pairs i < j that may lie within the cosine distance `limit`, by 8-bit products."""
    from tracklearn.core.kernels import coded as kernels

    n = len(rows)
    by_bytes, _ = coded.encoded(rows, np.arange(n))
    end = len(by_bytes.scale)
    least = np.full(end, np.inf, np.float32)
    least[:n] = _floor(1 - limit - coded.errors(by_bytes.scale[:n], rows.shape[1]))

    def one(at: tuple[int, int]) -> Any:
        near, far = ((lo, min(lo + _TILE, end)) for lo in at)
        room = _PAIRS
        while True:
            i, j = np.empty((2, room), np.int32)
            m = kernels.close(n, by_bytes, least, near, far, i, j)
            if m <= room:
                return settled(i[:m], j[:m])
            room = m

    return each(one, _corners(n))


def _floor(value: Any) -> Any:
    """As float32, rounded down: a comparison must not lift the bound above a pair on the edge."""
    return np.nextafter(np.float32(value), np.float32(-np.inf))


def _corners(n: int) -> Iterator[tuple[int, int]]:
    return ((i, j) for i in range(0, n, _TILE) for j in range(i, n, _TILE))


class _Graph:
    """DBSCAN on the pairs within a radius, looked for again only where a larger one is asked for."""

    def __init__(self, rows: Array, method: Literal["exact", "int8"]) -> None:
        self.rows, self.method = rows, method
        self.radius = -1.0
        self.pairs = sparse.csr_array((0, 0))

    def label(self, eps: float, min_samples: int) -> Array:
        """(n,) labels; one cluster of all where there are too many pairs to hold."""
        if eps > self.radius:
            try:
                self.pairs = within(
                    self.rows, eps, most=_CROWD + _CROWD_EACH * len(self.rows), method=self.method
                )
            except Crowded:
                return np.zeros(len(self.rows), np.int64)
            self.radius = eps
        return cluster.dbscan(self.pairs, eps, min_samples)


def _tries(label: Array, eps: float, min_samples: int, widest: float) -> Iterator[tuple[float, int]]:
    """Further (eps, min_samples), mildest first."""
    if np.bincount(label[label >= 0], minlength=1).max() >= cluster.GIANT * len(label):
        narrower = eps / cluster.EPS_STEP
        while narrower >= cluster.EPS_NARROWEST * eps:
            yield narrower, min_samples
            narrower /= cluster.EPS_STEP
    samples = min(2, min_samples)
    if samples < min_samples:
        yield eps, samples
    while eps < widest:
        eps = min(widest, eps * cluster.EPS_STEP)
        yield eps, samples


def _describe(label: Array, eps: float, min_samples: int) -> str:
    n = int(label.max(initial=-1)) + 1
    return f"eps {eps:.3f} with min_samples {min_samples} gave {n} cluster(s) of {len(label)} tracklets"
