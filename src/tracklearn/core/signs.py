"""Signs, read off features without any label, of whether a network tells people better than it did.

Each is a number that should rise while learning helps. None of them knows who is who; what they are worth is
in docs/log.md, "which epoch".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tracklearn.types import Array

AT_MOST = 1000  # rows behind each sign, evenly spread


def twins(one: Array, other: Array) -> float:
    """Share of rows of `other` whose nearest row of `one` is their own.

    Args:
        one, other: (n, d) unit rows, two views of the same n things, in one order.

    Returns:
        0-1; nan for fewer than two rows.
    """
    n = len(one)
    if n < 2:
        return float("nan")
    return float((np.argmax(other @ one.T, axis=1) == np.arange(n)).mean())


def halves(features: Array, group: Array) -> tuple[Array, Array, Array]:
    """Unit means of the first and the second half of each clip, and whose they are.

    Args:
        features: (m, d) float32, crops of clips in their order.
        group: (m,) int64, tracklet of each row, ascending.

    Returns:
        (k, d), (k, d) and (k,) tracklets: those with two crops or more, `AT_MOST` of them, evenly spread.
    """
    owner, start, count = np.unique(group, return_index=True, return_counts=True)
    chosen = spread(np.flatnonzero(count >= 2), AT_MOST)
    first = [features[a : a + n // 2].mean(0) for a, n in zip(start[chosen], count[chosen], strict=True)]
    second = [features[a + n // 2 : a + n].mean(0) for a, n in zip(start[chosen], count[chosen], strict=True)]
    d = features.shape[1]
    return _unit(np.reshape(first, (-1, d))), _unit(np.reshape(second, (-1, d))), owner[chosen]


def separation(same: Array, different: Array) -> float:
    """How surely a pair of one person is nearer than one of two: the area under the curve, ties count half.

    Args:
        same, different: cosines of pairs of either kind.

    Returns:
        0-1, 0.5 for chance; nan where there are no pairs of one kind.
    """
    if not len(same) or not len(different):
        return float("nan")
    both = np.concatenate([same, different])
    _, value, count = np.unique(both, return_inverse=True, return_counts=True)
    rank = np.cumsum(count) - (count - 1) / 2
    above = rank[value[: len(same)]].sum() - len(same) * (len(same) + 1) / 2
    return float(above / (len(same) * len(different)))


def silhouette(features: Array, label: Array) -> float:
    """Mean of (b − a) / max(a, b) over clustered rows: a to the mean of the own cluster without the row, b to
    the nearest other mean; 1 − cosine, `AT_MOST` rows, clusters of one left out.

    Args:
        features: (n, d) unit rows. label: (n,) int, −1 for none.

    Returns:
        −1 to 1; nan for fewer than two clusters.

    Source: Rousseeuw, "Silhouettes", 1987, with distances to means instead of mean distances.
    """
    inside = np.flatnonzero(label >= 0)
    cluster, own, size = np.unique(label[inside], return_inverse=True, return_counts=True)
    if len(cluster) < 2:
        return float("nan")
    total = np.zeros((len(cluster), features.shape[1]))
    np.add.at(total, own, features[inside])
    mean = _unit(total)
    row = spread(np.flatnonzero(size[own] > 1), AT_MOST)
    if not len(row):
        return float("nan")
    f = features[inside[row]].astype(np.float64)
    rest = _unit(total[own[row]] - f)
    a = 1 - (f * rest).sum(1)
    far = 1 - f @ mean.T
    far[np.arange(len(row)), own[row]] = np.inf
    b = far.min(1)
    return float(((b - a) / np.maximum(np.maximum(a, b), 1e-12)).mean())


def of_clips(features: Array, group: Array, apart: Array) -> dict[str, float]:
    """What clips of tracklets tell, by name; a sign that has nothing to look at is left out.

    Args:
        features: (m, d) float32, crops of clips in their order. group: (m,) tracklet of each, ascending.
        apart: (p, 2) tracklets that one camera saw at the same moment.

    Returns:
        `same_track`: share of clips whose second half is nearest to their own first half. `two_people`: how
        surely two halves of a clip are nearer than two people seen at the same moment.
    """
    first, second, owner = halves(features, group)
    found = {"same_track": twins(first, second)}
    place = np.full(int(max(group.max(initial=-1), apart.max(initial=-1))) + 1, -1)
    place[owner] = np.arange(len(owner))
    ends = place[apart] if len(apart) else np.zeros((0, 2), np.int64)
    ends = spread(ends[(ends >= 0).all(1)], AT_MOST)
    found["two_people"] = separation((first * second).sum(1), (first[ends[:, 0]] * second[ends[:, 1]]).sum(1))
    return {name: value for name, value in found.items() if np.isfinite(value)}


def spread(rows: Array, n: int) -> Array:
    """At most n of the rows, evenly spread."""
    if len(rows) <= n:
        return rows
    return rows[np.linspace(0, len(rows) - 1, n).round().astype(np.int64)]


def better_before(
    rounds: list[dict[str, Any]], names: tuple[str, ...], *, by: float
) -> tuple[int, list[str]]:
    """The earlier round that most signs put above the last.

    Args:
        rounds: records in order, each with some of the signs.
        names: of the signs to look at.
        by: how far a sign must have fallen since.

    Returns:
        (place in `rounds`, the signs that say so); (-1, []) where no earlier round was better by two of them:
        one alone falls for many reasons.
    """
    if not rounds:
        return -1, []
    last = rounds[-1]
    there = [name for name in names if name in last]
    best, why = -1, list[str]()
    for place, record in enumerate(rounds[:-1]):
        above = [name for name in there if name in record and record[name] > last[name] + by]
        if len(above) >= max(len(why), 2):
            gain = sum(record[name] for name in above)
            if len(above) > len(why) or gain > sum(rounds[best][name] for name in why):
                best, why = place, above
    return best, why


def _unit(rows: Array) -> Array:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(length, 1e-12)
