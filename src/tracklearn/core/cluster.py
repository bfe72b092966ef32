"""From sparse distances to pseudo-labels: DBSCAN, its eps from the data, and care for small sets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from tracklearn.core.apart import split, without
from tracklearn.core.features import check_unit, is_tensor, on_host
from tracklearn.core.jaccard import Mode, check_settings, encoding_distance, reciprocal_encoding
from tracklearn.core.neighbors import Method, approximate
from tracklearn.types import Array, Refusal

if TYPE_CHECKING:
    from torch import Tensor


SMALL = 400  # tracklets below which min_samples falls to 2
GIANT = 0.5  # share of all tracklets from which a cluster is suspected to hold everybody
EPS_STEP = 1.15
EPS_WIDEST = 2.0  # times the starting eps, and never above EPS_LIMIT
EPS_NARROWEST = 0.25
EPS_LIMIT = 0.95
# Float32 rows have unit length to about 1e-7: at squared distances below this, rounding makes the neighbours.
ALIKE = 1e-6
STORED = 0.96  # distances gathered at first: all that DBSCAN can ask for below EPS_LIMIT, few of all below 1
_COLLAPSED = "the features do not tell people apart: start from better weights, or check for blank crops"


@dataclass(frozen=True)
class Adapted:
    """Clustering settings that fit the number of tracklets.

    Args:
        k1: neighbours of the reciprocal sets. k2: neighbours averaged over.
        min_samples: DBSCAN's. rho: share of pairs behind the data-dependent eps.
        warnings: one sentence for each setting that was changed, with the reason.
    """

    k1: int
    k2: int
    min_samples: int
    rho: float
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Association:
    """Pseudo-labels of one round and how they came about.

    Args:
        label: (n,) int64, cluster of each tracklet, −1 noise.
        eps: the DBSCAN radius used in the end.
        start_eps: the radius tried first, given or from the data: the one to give to later rounds.
        n_clusters: number of clusters.
        noise_fraction: share of tracklets labelled −1, 0-1.
        largest_cluster: tracklets in the largest cluster.
        adapted: the settings used, after adaptation to the number of tracklets.
        n_splits: clusters that were split because they held two people seen at one moment.
        diagnosis: what was tried when the first clustering was not usable, what is wrong if it still is not,
            and what looks wrong though it is; empty in the ordinary case.
    """

    label: Array
    eps: float
    start_eps: float
    n_clusters: int
    noise_fraction: float
    largest_cluster: int
    adapted: Adapted
    diagnosis: tuple[str, ...]
    n_splits: int = 0

    @property
    def usable(self) -> bool:
        """Whether there are two clusters or more: nothing can be learned from fewer."""
        return self.n_clusters >= 2


def dbscan(distance: sparse.csr_array, eps: float, min_samples: int, track: Array | None = None) -> Array:
    """DBSCAN labels from sparse distances, the same as scikit-learn's with metric="precomputed".

    Clusters are numbered by their lowest core row; a border point goes to the lowest cluster in reach.

    Args:
        distance: (n, n) sparse, symmetric; a missing entry is further than `eps`. The diagonal counts as 0
            whether stored or not.
        eps: greatest distance of neighbours, included; at least 0.
        min_samples: neighbours that make a core point, itself included, at least 1.
        track: (n,) int, of which track each is a part: parts of one count once as neighbours. None: each is
            a track of its own, which is DBSCAN as published.

    Returns:
        label (n,) int64, −1 noise. Memory: O(n).

    Raises:
        ValueError: not square; eps or min_samples out of range; negative or NaN distances.

    Source: Ester et al., "A Density-Based Algorithm for Discovering Clusters", KDD 1996.
    """
    _check_square(distance)
    if not eps >= 0:
        raise Refusal(f"eps is {eps}, expected a distance of at least 0")
    if min_samples < 1:
        raise Refusal(f"min_samples is {min_samples}, expected at least 1")

    from tracklearn.core.kernels.cluster import dbscan as labels_of

    start, column, value = _rows(distance)
    n = len(start) - 1
    kind = np.arange(n) if track is None else np.unique(track, return_inverse=True)[1].reshape(-1)
    if len(kind) != n:
        raise Refusal(f"track has {len(kind)} rows, expected {n}: one per item")
    return labels_of(start, column, value, value.dtype.type(eps), min_samples, kind)


def data_dependent_eps(distance: sparse.csr_array, n: int, rho: float) -> float:
    """The mean of the smallest share `rho` of all pairwise distances, exact zeros left out.

    Args:
        distance: (n, n) sparse, symmetric; missing entries count as 1.0 (so entries below 1 may be left out
            only where the smallest share does not reach them).
        n: number of items.
        rho: share of the pairs that are not at zero, in (0, 1]; rounded to at least one pair.

    Returns:
        eps; 0.0 where no pair is left (fewer than two items, or all at zero).

    Raises:
        ValueError: `distance` is not (n, n), or rho is out of range.

    Source: Ge, Chen, Li, "Mutual Mean-Teaching", ICLR 2020 (code); TMC section 3.3 calls it data-dependent.
    """
    _check_square(distance)
    if distance.shape != (n, n):
        raise Refusal(f"distance has shape {distance.shape}, expected ({n}, {n})")
    if not 0 < rho <= 1:
        raise Refusal(f"rho is {rho}, expected a share in (0, 1]")
    return _eps_and_missing(distance, n, rho)[0]


def _eps_and_missing(distance: sparse.csr_array, n: int, rho: float) -> tuple[float, float]:
    """The data-dependent eps, and the share of the pairs behind it that are not stored and count as 1."""
    from tracklearn.core.kernels.cluster import BINS, histogram, sum_below

    matrix = _rows(distance)
    stored, zero = histogram(*matrix)
    pairs = n * (n - 1) // 2 - zero
    if pairs == 0:
        return 0.0, 0.0
    take = max(1, round(rho * pairs))
    # Missing distances are exactly 1, but a stored one may exceed 1 in other people's matrices.
    missing = pairs - int(stored.sum())
    up_to = np.cumsum(stored + missing * (np.arange(BINS + 2) == BINS))
    last = int(np.searchsorted(up_to, take))
    edge = np.r_[np.arange(BINS + 1) / BINS, np.nextafter(1, 2), np.inf]
    total, inside = sum_below(*matrix, edge[last], edge[last + 1], stored[last])
    rest = take - int(up_to[last - 1] if last else 0)
    if last == BINS:
        total += rest
    else:
        total += np.partition(inside, rest - 1)[:rest].sum() + (missing if last > BINS else 0)
    return float(total / take), max(0, take - int(stored.sum())) / take


def adapt(n: int, *, k1: int = 30, k2: int = 6, min_samples: int = 4, rho: float = 1.6e-3) -> Adapted:
    """Settings made for thousands of tracklets, fitted to `n` of them.

    The published values belong to 8,000 to 13,000 tracklets of 625 people. Kept of them is what they mean:

    - k1 about twice the number of tracklets a person has, far below the number of all: at most n / 20, or
      4 where that is less (n / 4 below 16 tracklets). With k1 = 30 of 60 tracklets everybody is everybody's
      reciprocal neighbour.
    - k2 below a person's number of tracklets: at most k1 / 3, rounded up, where k1 had to shrink.
    - min_samples 2 below 400 tracklets: people with two or three tracklets are the rule there, and
      a higher value forces clusters of mixed people.
    - rho · n (n − 1) / 2 pairs set eps. At the published size those are 6.6 per tracklet, close to the number
      of true pairs; here at least 2 per tracklet, but at most a fifth of all pairs. With 1.6e-3 of 60
      tracklets, eps would be the mean of the three nearest pairs.

    Chosen on simulated features (2-10 tracklets a person, 60-390 tracklets, four cameras): from 4 tracklets a
    person on, 0.9 or more of the clustered pairs are true and about half of the true pairs are found. Sets
    with two tracklets a person, as PRID 2011, need their own values (k1 4, k2 2, rho 1 / n).

    Args:
        n: number of tracklets. k1, k2, min_samples, rho: the settings asked for.

    Returns:
        Adapted; unchanged and without warnings where n is large enough.

    Raises:
        ValueError: n < 0, or a setting out of its range.
    """
    if n < 0:
        raise Refusal(f"n is {n}, expected a number of tracklets")
    for name, value in (("k1", k1), ("k2", k2), ("min_samples", min_samples)):
        if value < 1:
            raise Refusal(f"{name} is {value}, expected at least 1")
    if not 0 < rho <= 1:
        raise Refusal(f"rho is {rho}, expected a share in (0, 1]")
    fit_k1 = max(1, min(k1, max(min(4, n // 4), n // 20)))
    fit_k2 = min(k2, -(-fit_k1 // 3)) if fit_k1 < k1 else k2
    fit_samples = min(min_samples, 2) if n < SMALL else min_samples
    fit_rho = max(rho, min(0.2, 4 / (n - 1))) if n > 1 else rho
    warnings = []
    for name, old, new, why in (
        ("k1", k1, fit_k1, "more neighbours would reach across people"),
        ("k2", k2, fit_k2, "averaging must stay among one person's tracklets"),
        ("min_samples", min_samples, fit_samples, "many people have only two or three tracklets"),
        ("rho", rho, fit_rho, f"it would leave {rho * n * (n - 1) / 2:.0f} pairs to set eps from"),
    ):
        if new != old:
            warnings.append(f"{name} {old:g} -> {new:.3g} for {n} tracklets: {why}")
    return Adapted(fit_k1, fit_k2, fit_samples, fit_rho, tuple(warnings))


def associate(
    features: Array | Tensor,
    *,
    k1: int = 30,
    k2: int = 6,
    rho: float = 1.6e-3,
    min_samples: int = 4,
    eps: float | None = None,
    eps_share: float = 1.0,
    mode: Mode = "tracklearn",
    neighbors: Method = "exact",
    fit_to_size: bool = True,
    apart: Array | None = None,
    track: Array | None = None,
) -> Association:
    """Clusters of tracklets that show one person: Jaccard distance, then DBSCAN.

    Fewer than two clusters are no use for training. Then, in this order, until there are two:

    1. where the lone cluster holds half of the tracklets: eps is narrowed by 1 / 1.15 a step, down to a
       quarter;
    2. min_samples falls to 2; then eps is widened by 1.15 a step, up to the double, never above 0.95 (at 1
       everything is everything's neighbour);
    3. parts of one track count as often as there are (where `track` is given).

    If none of it helps, the first labels come back with a diagnosis, and the caller should stop. Features
    that are all alike (a collapsed network) would make everything a neighbour of everything: they are not
    compared, and come back as one cluster at once.

    Args:
        features: (n, d) unit rows, one per tracklet. A torch tensor's neighbours are found on its device; the
            labels are the same (with mode "mmt", as far as `jaccard_distance` is).
        k1, k2: as in `jaccard_distance`. rho: as in `data_dependent_eps`. min_samples: as in `dbscan`.
        eps: DBSCAN radius, 0-1; None takes it from the data, at most 0.95. Give the first round's
            `start_eps` to later rounds.
        eps_share: what an eps from the data is multiplied by.
        mode: convention of the Jaccard distance.
        neighbors: how neighbours are found, as `method` of `neighbors.k_nearest`; where that is by
            approximation, the diagnosis says so.
        fit_to_size: fit k1, k2, min_samples and rho to the number of tracklets (`adapt`); False takes them
            as they are.
        apart: (p, 2) int, pairs of tracklets that are two people, whatever they look like
            (`moments.Moments.pair`). Their distance is taken as 1, and a cluster that holds some all the same
            is split (`apart.split`).
        track: (n,) int, of which track each tracklet is a part: parts of one count once for `min_samples`.

    Returns:
        Association; never fails over the number of clusters, n = 0 and n = 1 included.

    Raises:
        ValueError: a setting out of range; features not finite, not unit or all zero (names rows).
    """
    if eps is not None and not 0 <= eps <= 1:
        raise Refusal(f"eps is {eps}, expected a Jaccard distance in 0-1")
    if not 0 < eps_share <= 2:
        raise Refusal(f"eps_share is {eps_share}, expected a number in (0, 2]")
    n = len(features)
    adapted = adapt(n, k1=k1, k2=k2, min_samples=min_samples, rho=rho)
    if not fit_to_size:
        adapted = Adapted(k1, k2, min_samples, rho, ())
    check_settings(adapted.k1, adapted.k2, mode)
    if _all_alike(features):
        check_unit(features)
        label = np.full(n, 0 if n >= adapted.min_samples else -1, np.int64)
        return _association(
            label, eps or 0.0, eps or 0.0, adapted, [f"all {n} tracklets look the same: {_COLLAPSED}"]
        )
    whole, start = _distance_and_eps(features, adapted, eps, mode, neighbors)
    if eps is None:
        start *= eps_share
    pairs = np.zeros((0, 2), np.int64) if apart is None else apart
    distance = without(whole, pairs) if len(pairs) else whole
    host = np.asarray(on_host(features))
    diagnosis: list[str] = []
    if approximate(n, neighbors) and mode != "mmt" and not is_tensor(features):
        diagnosis.append(f"neighbours of {n} tracklets were found approximately (about 1 in 100 is missed)")
    if eps is None and start > EPS_LIMIT:
        diagnosis.append(
            f"eps from the data would be higher, taken as {EPS_LIMIT}: hardly two tracklets share neighbours"
        )
        start = EPS_LIMIT
    first = dbscan(distance, start, adapted.min_samples, track)
    label, n_splits = split(first, host, pairs)
    used = start
    if _n_clusters(label) < 2:
        diagnosis.append(_describe(label, start, adapted.min_samples))
        second = _second_tries(first, start, adapted.min_samples, track, len(pairs) > 0)
        for try_eps, try_samples, counted, alone in second:
            again = dbscan(whole if alone else distance, try_eps, try_samples, counted)
            again, parted = split(again, host, pairs, alone=alone)
            if _n_clusters(again) >= 2:
                label, used, n_splits = again, try_eps, parted
                diagnosis.append(_describe(label, try_eps, try_samples))
                if alone:
                    diagnosis.append("only people seen side by side look alike: each is a class of its own")
                elif counted is None and track is not None:
                    diagnosis.append("these are clusters of single tracks: nobody seems to come back")
                break
        else:
            diagnosis.append(_advice(label, n))
    largest = _largest(label)
    if _n_clusters(label) >= 2 and largest > GIANT * n:
        diagnosis.append(
            f"the largest of {_n_clusters(label)} clusters holds {largest} of {n} tracklets: if one person "
            "cannot have that many, start from better weights or lower k1 and rho"
        )
    return _association(label, used, start, adapted, diagnosis, n_splits)


def _association(
    label: Array, eps: float, start_eps: float, adapted: Adapted, diagnosis: list[str], n_splits: int = 0
) -> Association:
    return Association(
        label=label,
        eps=eps,
        start_eps=start_eps,
        n_clusters=_n_clusters(label),
        noise_fraction=float(np.mean(label < 0)) if len(label) else 0.0,
        largest_cluster=_largest(label),
        adapted=adapted,
        diagnosis=tuple(diagnosis),
        n_splits=n_splits,
    )


def _all_alike(features: Array | Tensor) -> bool:
    """Whether all rows are within ALIKE of the first; found out at the first that is not."""
    features = np.asarray(on_host(features))
    if len(features) < 2 or features.ndim != 2 or features.dtype.kind not in "fiu":
        return False
    first = features[0].astype(np.float64)
    for lo in range(0, len(features), 256):
        apart = features[lo : lo + 256] - first
        if not (np.einsum("ij,ij->i", apart, apart) <= ALIKE).all():
            return False
    return True


def _distance_and_eps(
    features: Array | Tensor, adapted: Adapted, eps: float | None, mode: Mode, neighbors: Method
) -> tuple[sparse.csr_array, float]:
    """The distances that DBSCAN can ask for, and the eps to start from.

    Most entries below 1 are just below 1 (on 8,298 tracklets 3,100 a row against 19 below 0.96): those are
    gathered only as far as eps depends on them. An eps above EPS_LIMIT need not be exact.
    """
    host = check_unit(features)
    features = features if is_tensor(features) else host
    n = len(features)
    if n == 0:
        return sparse.csr_array((0, 0), dtype=np.float32), eps or 0.0
    encoding = reciprocal_encoding(
        features, adapted.k1, adapted.k2, mode=mode, neighbors=neighbors, host=host
    )
    if eps is not None:
        return encoding_distance(encoding, STORED if eps <= EPS_LIMIT else 1.0), float(eps)
    for limit in (STORED, 0.99, 1.0):
        distance = encoding_distance(encoding, limit)
        start, missing = _eps_and_missing(distance, n, adapted.rho)
        if missing == 0 or start - missing * (1 - limit) > EPS_LIMIT:
            break
    return distance, start


def _second_tries(
    label: Array, eps: float, min_samples: int, track: Array | None, apart: bool
) -> list[tuple[float, int, Array | None, bool]]:
    """Further (eps, min_samples, track, alone) for a clustering of fewer than two clusters, mildest first.

    `alone`: those who are known to be apart may draw a cluster together, which is then parted.
    """
    tries: list[tuple[float, int]] = []
    if _one_giant(label):
        steps = int(math.log(1 / EPS_NARROWEST) / math.log(EPS_STEP))
        tries += [(eps / EPS_STEP**i, min_samples) for i in range(1, steps + 1)]
    if min_samples > 2:
        tries.append((eps, 2))
    limit = max(eps, min(EPS_LIMIT, EPS_WIDEST * eps))
    steps = math.ceil(math.log(limit / eps) / math.log(EPS_STEP)) if eps > 0 else 0
    tries += [(min(limit, eps * EPS_STEP**i), min(2, min_samples)) for i in range(1, steps + 1)]
    found: list[tuple[float, int, Array | None, bool]] = [(*values, track, False) for values in tries]
    if track is not None:  # rather clusters of one track than none
        found += [(*values, None, False) for values in [(eps, min_samples), *tries]]
    if apart:  # rather a class for each of those seen side by side than none
        found += [(*values, None, True) for values in [(eps, min_samples), *tries]]
    return found


def _describe(label: Array, eps: float, min_samples: int) -> str:
    k = _n_clusters(label)
    what = f"one cluster of {(label >= 0).sum()}" if k == 1 else f"{k} clusters"
    return f"eps {eps:.3f} with min_samples {min_samples} gave {what} of {len(label)} tracklets"


def _advice(label: Array, n: int) -> str:
    if n < 4:
        return f"{n} tracklets are too few to cluster: give more video"
    if _one_giant(label):
        return _COLLAPSED
    return "no two tracklets look alike enough: give more video, longer tracklets or better weights"


def _one_giant(label: Array) -> bool:
    return _n_clusters(label) == 1 and bool(np.mean(label >= 0) >= GIANT)


def _largest(label: Array) -> int:
    return int(np.bincount(label[label >= 0], minlength=1).max())


def _n_clusters(label: Array) -> int:
    return int(label.max(initial=-1)) + 1


def _rows(distance: sparse.csr_array) -> tuple[Array, Array, Array]:
    """Row starts, columns and values, these as float32 or float64."""
    rows = sparse.csr_array(distance)
    value = rows.data if rows.dtype == np.float32 else rows.data.astype(np.float64, copy=False)
    return rows.indptr, rows.indices, value


def _check_square(distance: sparse.csr_array) -> None:
    if not sparse.issparse(distance) or distance.ndim != 2 or distance.shape[0] != distance.shape[1]:
        raise Refusal(f"distance must be a square sparse matrix, got {type(distance).__name__}")
    if distance.nnz and not distance.data.min() >= 0:
        raise Refusal("distance holds negative entries or NaN")
