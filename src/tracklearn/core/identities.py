"""Who is who: tracklets of any number of cameras joined to people, without a label.

Tracklets are joined by average linkage: the two groups whose frames are the most alike on average become one,
until no two are more alike than two pictures of one person must be. For unit vectors the mean cosine of all
pairs of two groups is the dot product of their weighted means, so that a merge costs O(n·d) at most and no
pair of frames is ever looked at. Pairs that are known to be two people are carried through the merges.

What that does step by step is the correlation clustering of the pairs' evidence, which `exact` solves to the
end for small sets.

Source: average linkage: Sokal, Michener, "A statistical method for evaluating systematic relationships",
1958; correlation clustering: Bansal, Blum, Chawla, Machine Learning 56, 2004. The rest is ours (METHODS 8).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from tracklearn.core.features import check_unit
from tracklearn.core.neighbors import Method, k_nearest
from tracklearn.types import Array, Refusal

NEIGHBOURS = 64  # of each tracklet that it may be joined with at first
SMALL = 30  # tracklets that `exact` solves together
_NODES = 20_000  # of the search tree, after which a small set stays as it was
_ALL, _DRAWN = 2048, 1 << 18  # tracklets whose pairs are all looked at; pairs drawn of more
_CHUNK = 1 << 14  # pairs whose features are held at a time
_MANY = 8192  # tracklets from which 8-bit products pay
FEWEST = 30  # pairs of two people below which nothing is told of mistakes


@dataclass(frozen=True)
class Limits:
    """Mean cosines above which two groups are taken for one person.

    Args:
        within: of pairs of one camera. across: of pairs of two.
    """

    within: float
    across: float

    @classmethod
    def of(cls, distance: float, shift: float = 0.0) -> Limits:
        """The limits that a distance of unit vectors is, 0-2, and so much more in its square across cameras.

        >>> Limits.of(1.0, 0.2)
        Limits(within=0.5, across=0.4)
        """
        within = round(1 - distance**2 / 2, 12)
        return cls(within, round(within - shift / 2, 12))

    def distances(self) -> dict[str, float]:
        """The distances of unit vectors that the limits are."""
        return {
            f"{name}_distance": float(np.sqrt(max(0.0, 2 - 2 * cosine)))
            for name, cosine in vars(self).items()
        }


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of tracklets, for `link`, `exact`, `gain` and `belonging`.

    Args:
        mean: (t, d) unit features, float32.
        weight: (t,) float64 above 0: frames.
        camid: (t,) int64.
        limits: where one person ends.
        apart: (p, 2) int64 tracklets that are two people.
        together: (q, 2) int64 tracklets that are one.

    Raises:
        ValueError: shapes do not fit, rows are not of unit length, a number is no tracklet, or two that are
            together are apart (`contradictions` names them).
    """

    mean: Array
    weight: Array
    camid: Array
    limits: Limits
    apart: Array
    together: Array

    def __post_init__(self) -> None:
        mean = check_unit(self.mean, "mean") if len(self.mean) else np.zeros((0, 1), np.float32)
        t = len(mean)
        values: dict[str, Array] = {
            "mean": mean,
            "weight": np.asarray(self.weight, np.float64),
            "camid": np.asarray(self.camid, np.int64),
            "apart": np.asarray(self.apart, np.int64).reshape(-1, 2),
            "together": np.asarray(self.together, np.int64).reshape(-1, 2),
        }
        for name in ("weight", "camid"):
            if values[name].shape != (t,):
                raise Refusal(f"{name} has shape {values[name].shape}, expected ({t},): one per tracklet")
        if not (values["weight"] > 0).all():
            raise Refusal("weight holds numbers that are not above 0: leave tracklets without frames out")
        for name in ("apart", "together"):
            pair = values[name]
            if len(pair) and (pair.min() < 0 or pair.max() >= t):
                raise Refusal(f"{name} holds {pair.min()}..{pair.max()}, expected tracklets in 0..{t - 1}")
        if found := contradictions(t, values["apart"], values["together"]):
            a, b = values["apart"][found[0][0]]
            raise Refusal(f"tracklets {a} and {b} are two people by apart and one by together")
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.mean)


def contradictions(n: int, apart: Array, together: Array) -> list[tuple[int, list[int]]]:
    """Pairs known as two people that other pairs make one.

    Args:
        n: number of tracklets.
        apart: (p, 2), together: (q, 2) int.

    Returns:
        For each such row of `apart` its number and the rows of `together` that lead from one end to the
        other, as few as there are.

    >>> contradictions(4, np.array([[0, 2]]), np.array([[0, 1], [3, 2], [1, 2]]))
    [(0, [0, 2])]
    """
    group = groups(n, together)
    bad = np.flatnonzero(group[apart[:, 0]] == group[apart[:, 1]])
    return [(int(row), _way(together, *apart[row].tolist())) for row in bad]


def groups(n: int, together: Array) -> Array:
    """(n,) int64 number of the group of each tracklet that pairs (q, 2) make, by first members from 0."""
    if not len(together):
        return np.arange(n)
    graph = sparse.coo_array((np.ones(len(together)), (together[:, 0], together[:, 1])), shape=(n, n))
    return _in_order(sparse.csgraph.connected_components(graph, directed=False)[1])


def _way(pair: Array, start: int, end: int) -> list[int]:
    """Rows of `pair` on a shortest way between two tracklets."""
    came: dict[int, tuple[int, int]] = {start: (-1, -1)}
    edge: dict[int, list[tuple[int, int]]] = {}
    for row, (a, b) in enumerate(pair.tolist()):
        edge.setdefault(a, []).append((b, row))
        edge.setdefault(b, []).append((a, row))
    front = [start]
    while front and end not in came:
        after = []
        for a in front:
            for b, row in edge.get(a, []):
                if b not in came:
                    came[b] = (a, row)
                    after.append(b)
        front = after
    way: list[int] = []
    at = end
    while at != start:
        at, row = came[at]
        way.append(row)
    return way[::-1]


def link(known: Evidence, *, k: int = NEIGHBOURS) -> Array:
    """Identity of each tracklet, by weighted average linkage of neighbours under the limits.

    Two groups are joined where the mean over all pairs of their frames of cosine minus limit is the greatest
    of all, and above 0, and none of their pairs is `apart`. Groups are compared where two that they were made
    of were, down to tracklets one of which is among the k nearest of the other, and lay above their limit:
    with k = t − 1 no others can.

    Args:
        known: evidence of t tracklets.
        k: neighbours of each that are looked at.

    Returns:
        (t,) int64, numbered from 0 by first tracklets. Ties go to the lower numbers. Time that of
        `k_nearest`, O(k t (d + log(k t))), and O(pairs above the limit · d) a merge.
        Memory O(t (d + k + cameras)).
    """
    if k < 1:
        raise Refusal(f"k is {k}, expected at least 1")
    t = len(known)
    if not t:
        return np.zeros(0, np.int64)
    return _Linkage(known, groups(t, known.together), k).joined()


class _Linkage:
    """Groups of tracklets while they are joined; a group has the number of one of those it was made of.

    `near` holds the pairs that may be joined, those of a score above 0 and not barred, and no others: the
    score of two groups is a mean of those of the groups that they were made of, and rises above 0 only where
    one of these was.
    """

    def __init__(self, known: Evidence, group: Array, k: int) -> None:
        n = int(group.max()) + 1
        self.group, self.limits = group, known.limits
        self.weight = np.bincount(group, known.weight, n)
        member = sparse.csr_array((known.weight, (group, np.arange(len(group)))), shape=(n, len(group)))
        self.mean = np.asarray(member @ known.mean / self.weight[:, None], np.float32)
        camera = np.unique(known.camid, return_inverse=True)[1]
        cameras = np.zeros((n, int(camera.max()) + 1), np.float32)
        np.add.at(cameras, (group, camera), known.weight)
        self.camera = cameras / self.weight[:, None]
        self.barred = _adjacent(n, group[known.apart[:, 0]], group[known.apart[:, 1]])
        a, b = self._candidates(known, k)
        score = self._scores(a, b)
        open_ = score > 0
        barred = np.unique(np.sort(group[known.apart], axis=1) @ [n, 1])
        open_[open_] = ~np.isin(a[open_] * n + b[open_], barred)
        a, b = a[open_], b[open_]
        self.near = _adjacent(n, a, b)
        self.now = np.arange(n)  # the group that each number has become
        self.names = [[i] for i in range(n)]
        self.version = np.zeros(n, np.int64)
        self._mark = np.zeros(n, bool)
        zero = np.zeros(len(a), np.int64).tolist()
        self._heap = list(zip((-score[open_]).tolist(), a.tolist(), b.tolist(), zero, zero, strict=True))

    def _candidates(self, known: Evidence, k: int) -> tuple[Array, Array]:
        """Pairs of groups, the lower number first, of which one is near the other."""
        n, t = len(self.weight), len(self.group)
        # 8-bit products find the same neighbours in a third of the time, where there are many to find.
        method: Method = "int8" if t >= _MANY else "exact"
        index, squared = k_nearest(known.mean, min(k, max(1, t - 1)), exclude_self=True, method=method)
        least = min(self.limits.within, self.limits.across)
        row, column = np.nonzero(1 - squared / 2 > least - 1e-6)  # others are above neither limit
        a, b = self.group[row], self.group[index[row, column]]
        pair = np.unique((np.minimum(a, b) * n + np.maximum(a, b))[a != b])
        return pair // n, pair % n

    def _scores(self, a: Array, b: Array) -> Array:
        """Mean cosine minus limit of pairs of groups, float32."""
        score = np.empty(len(a), np.float32)
        within, across = self.limits.within, self.limits.across
        for first in range(0, len(a), _CHUNK):
            part = slice(first, first + _CHUNK)
            score[part] = np.einsum("ij,ij->i", self.mean[a[part]], self.mean[b[part]]) - within
            if within != across:
                same = np.einsum("ij,ij->i", self.camera[a[part]], self.camera[b[part]])
                score[part] += (1 - same) * (within - across)
        return score

    def joined(self) -> Array:
        heap = self._heap
        heapq.heapify(heap)
        while heap:
            _, a, b, version_a, version_b = heapq.heappop(heap)
            if self.version[a] != version_a or self.version[b] != version_b:
                continue
            for offer in self._offers(self._merge(a, b)):
                heapq.heappush(heap, offer)
        return _in_order(self.now[self.group])

    def _offers(self, a: int) -> list[tuple[float, int, int, int, int]]:
        """Entries of the heap for group a and those near it; what cannot join it is near no more."""
        other = self.near[a]
        self._mark[self.barred[a]] = True
        other = other[~self._mark[other]]
        self._mark[self.barred[a]] = False
        if not len(other):
            self.near[a] = other
            return []
        score = self.mean[other] @ self.mean[a] - self.limits.within
        if self.limits.within != self.limits.across:
            same = self.camera[other] @ self.camera[a]
            score += (1 - same) * (self.limits.within - self.limits.across)
        better = score > 0
        self.near[a] = other = other[better]
        return [
            (-float(s), min(a, b), max(a, b), int(self.version[min(a, b)]), int(self.version[max(a, b)]))
            for s, b in zip(score[better].tolist(), other.tolist(), strict=True)
        ]

    def _merge(self, a: int, b: int) -> int:
        """Makes one group of two; its number is that of the one with more names."""
        if len(self.names[a]) < len(self.names[b]):
            a, b = b, a
        share = self.weight[[a, b]] / (self.weight[a] + self.weight[b])
        for value in (self.mean, self.camera):
            value[a] = share[0] * value[a] + share[1] * value[b]
        self.weight[a] += self.weight[b]
        self.now[self.names[b]] = a
        self.names[a] += self.names[b]
        self.version[a] += 1
        self.version[b] = -1
        for pairs in (self.near, self.barred):
            both = np.unique(self.now[np.concatenate([pairs[a], pairs[b]])])
            pairs[a], pairs[b] = both[both != a].astype(np.int32), pairs[b][:0]
        self.names[b] = []
        # Others still name b; `now` says what it has become.
        return a


def _adjacent(n: int, a: Array, b: Array) -> list[Array]:
    """For each of n groups the others that a pair joins it with, int32."""
    away = a != b
    a, b = np.r_[a[away], b[away]], np.r_[b[away], a[away]]
    pair = np.unique(a * n + b)
    edge = np.searchsorted(pair, n * np.arange(1, n))
    return np.split((pair % n).astype(np.int32), edge)


def gain(known: Evidence, label: Array) -> float:
    """What a labelling is worth: over all pairs of frames in one identity the sum of cosine minus limit.

    Pairs inside one tracklet are not counted. A merge of `link` adds to it what it is scored by, times the
    pairs of frames.
    """
    total, _ = _inside(known, np.asarray(label))
    return float(total.sum() / 2)


def _inside(known: Evidence, label: Array) -> tuple[Array, Array]:
    """Each tracklet's frames with the others' of its identity: sum of cosine − limit; number of pairs."""
    out, count = np.zeros(len(known)), np.zeros(len(known))
    for _, own in _members(label):
        w, x = known.weight[own], known.mean[own].astype(np.float64)
        total = (w[:, None] * x).sum(0)
        others = w.sum() - w
        mine = np.bincount(known.camid[own], w)[known.camid[own]] - w  # of the same camera
        limit = mine * known.limits.within + (others - mine) * known.limits.across
        out[own] = w * (x @ total - w * np.einsum("ij,ij->i", x, x) - limit)
        count[own] = w * others
    return out, count


def belonging(known: Evidence, label: Array) -> Array:
    """(t,) float64 distance of each tracklet to the rest of its identity; nan where it is alone.

    √(2 − 2 c) of the mean cosine c over all pairs of its frames and the others', where pairs across cameras
    are allowed what the limits allow them: it is a distance within a camera, which a calibration's curve
    takes.
    """
    total, count = _inside(known, np.asarray(label))
    cosine = np.divide(total, count, out=np.full(len(known), np.nan), where=count > 0) + known.limits.within
    return np.sqrt(np.clip(2 - 2 * cosine, 0, 4))


@dataclass(frozen=True)
class Mistakes:
    """What is to be expected of pairs that are taken for one person because they lie below a limit.

    Args:
        split: share of the pairs known as one person that do not lie below it, 0-1.
        apart: pairs of tracklets known as two people; alike: how many of them lie below it.
        below: share of all pairs of tracklets that lie below it, 0-1.
    """

    split: float
    apart: int
    alike: int
    below: float

    @property
    def merged(self) -> float | None:
        """Share of the pairs below the limit that are two people; None where too few pairs tell.

        Above 1 where pairs that are two people look alike more often than all pairs do, which cannot be: then
        some that were taken for two are one, such as two boxes of a person, and the share is not known.
        """
        if self.apart < FEWEST or not self.below:
            return None
        return self.alike / self.apart / self.below


def mistakes(known: Evidence, same: Array, apart: Array) -> Mistakes:
    """How wrong pairs are to be expected at the limits of some evidence, without a label.

    As large a share of all pairs of tracklets is taken to lie below the limit by mistake as of those that
    time makes two people, for nearly all pairs are two people. How many do lie there is counted, and so it is
    known which share of those the mistakes are. Pairs that are wrongly taken for two people make that share
    greater than it is; and halves of one track, seconds apart, are more alike than one person's tracks on
    two occasions, so that more is split than `split` says.

    Args:
        known: evidence of t tracklets.
        same: (p,) distances of pairs within a camera known as one person, in the features of the evidence; p
            at least 1.
        apart: (q, 2) int64 tracklets that time makes two people; none that a person has chosen.

    Returns:
        Mistakes. Of more than 2,048 tracklets 262,144 pairs drawn by chance stand for all; the same at every
        call.

    Source: the share of false ones among what is found, by known ones that must be false: Storey, "A direct
    approach to false discovery rates", 2002, with a share of 1 of true null hypotheses.
    """
    limit = known.limits.distances()["within_distance"]
    split = float(np.mean(np.asarray(same) >= limit))
    alike = int(_below(known, apart[:, 0], apart[:, 1]).sum())
    return Mistakes(split, len(apart), alike, _share_below(known))


def _share_below(known: Evidence) -> float:
    """Share of pairs of tracklets that lie below their limit."""
    t = len(known)
    if t < 2:
        return 0.0
    if t <= _ALL:
        return 2 * int(np.triu(_worth(known) > 0, 1).sum()) / (t * (t - 1))
    a, b = np.random.default_rng(0).integers(0, t, (2, _DRAWN))
    return float(_below(known, a[a != b], b[a != b]).mean())


def _below(known: Evidence, a: Array, b: Array) -> Array:
    """Which pairs of tracklets lie below their limit, (p,) bool."""
    out = np.zeros(len(a), bool)
    for first in range(0, len(a), _CHUNK):
        i, j = a[first : first + _CHUNK], b[first : first + _CHUNK]
        cosine = np.einsum("ij,ij->i", known.mean[i], known.mean[j])
        same = known.camid[i] == known.camid[j]
        out[first : first + _CHUNK] = cosine > np.where(same, known.limits.within, known.limits.across)
    return out


def exact(known: Evidence, label: Array, *, small: int = SMALL) -> tuple[Array, int]:
    """The labelling, its small sets made as good as they can be; and how many became better.

    A set is tracklets that chains of pairs above the limits join; no best identity reaches beyond one. Each
    of at most `small` tracklets is solved as an integer programme (a variable for each pair, x_ab + x_bc −
    x_ac ≤ 1 for each triple) and takes the place of what was there where its `gain` is greater. What is not
    solved within a fixed number of nodes stays.

    Args:
        known: evidence of t tracklets.
        label: (t,) of `link`.
        small: tracklets of a set at most.

    Returns:
        ((t,) int64, numbered from 0 by first tracklets; count). Memory O(small³) beside pairs above the
        limits; all pairs of the set are compared where t ≤ 4,096, else neighbours alone.
    """
    label = np.asarray(label, np.int64).copy()
    better, fresh = 0, len(label)
    for own in _sets(known):
        if not 3 <= len(own) <= small:
            continue
        part = _of(known, own)
        found = _solved(part)
        if found is None:
            continue
        before = gain(part, label[own])
        if gain(part, found) > before + 1e-9 * max(1.0, abs(before)):
            label[own] = fresh + found
            fresh += len(own)
            better += 1
    return _in_order(label), better


def _of(known: Evidence, own: Array) -> Evidence:
    """The evidence of some tracklets, numbered anew."""
    place = np.full(len(known), -1, np.int64)
    place[own] = np.arange(len(own))
    pairs = [place[pair] for pair in (known.apart, known.together)]
    apart, together = (pair[(pair >= 0).all(1)] for pair in pairs)
    return Evidence(known.mean[own], known.weight[own], known.camid[own], known.limits, apart, together)


def _worth(known: Evidence) -> Array:
    """(t, t) cosine minus limit of all pairs."""
    x = known.mean.astype(np.float64)
    same = known.camid[:, None] == known.camid[None]
    return x @ x.T - np.where(same, known.limits.within, known.limits.across)


def _sets(known: Evidence) -> list[Array]:
    """Tracklets that chains of pairs above the limits, or known as one person, join."""
    t = len(known)
    if t <= 4096:
        a, b = np.nonzero(np.triu(_worth(known) > 0, 1))
    else:
        index = k_nearest(known.mean, NEIGHBOURS, exclude_self=True)[0]
        a, b = np.repeat(np.arange(t), index.shape[1]), index.ravel()
        cosine = np.einsum("ij,ij->i", known.mean[a], known.mean[b])
        limit = np.where(known.camid[a] == known.camid[b], known.limits.within, known.limits.across)
        a, b = a[cosine > limit], b[cosine > limit]
    barred = np.unique(np.sort(known.apart, axis=1) @ [t, 1])
    kept = ~np.isin(np.minimum(a, b) * t + np.maximum(a, b), barred)
    pair = np.concatenate([np.stack([a[kept], b[kept]], 1), known.together])
    return [own for _, own in _members(groups(t, pair))]


def _solved(known: Evidence) -> Array | None:
    """The labelling with the greatest gain, by an integer programme; None where the search gave up."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    t = len(known)
    a, b = np.triu_indices(t, 1)
    number = np.zeros((t, t), np.int64)
    number[a, b] = number[b, a] = np.arange(len(a))
    worth = (_worth(known) * np.outer(known.weight, known.weight))[a, b]
    low, high = np.zeros(len(a)), np.ones(len(a))
    low[number[known.together[:, 0], known.together[:, 1]]] = 1
    high[number[known.apart[:, 0], known.apart[:, 1]]] = 0
    i, j, k = np.array([(i, j, k) for i in range(t) for j in range(i) for k in range(j)]).T
    edges = np.stack([number[i, j], number[j, k], number[i, k]], 1)
    column = np.concatenate([edges, edges[:, [1, 2, 0]], edges[:, [2, 0, 1]]])
    rows = np.repeat(np.arange(len(column)), 3)
    value = np.tile([1.0, 1.0, -1.0], len(column))
    triple = sparse.csr_array((value, (rows, column.ravel())), shape=(len(column), len(a)))
    found = milp(
        -worth / max(np.abs(worth).max(), 1e-12),
        integrality=np.ones(len(a)),
        bounds=Bounds(low, high),
        constraints=LinearConstraint(triple, ub=1),
        options={"node_limit": _NODES, "mip_rel_gap": 0.0},
    )
    if found.status != 0:
        return None
    one = np.flatnonzero(found.x > 0.5)
    return groups(t, np.stack([a[one], b[one]], 1))


def keep_numbers(label: Array, old: Array, weight: Array, *, highest: int = -1) -> Array:
    """Numbers for identities, those that were known keeping theirs.

    Every old number goes to the identity that holds most of its frames, the greatest shares of frames first,
    one number to one identity; other identities get numbers after the highest, by first tracklets.

    Args:
        label: (t,) int64 identity of each tracklet, from 0.
        old: (t,) int64 number that it had, −1 where it is new.
        weight: (t,) frames.
        highest: the highest number that was ever given, where it may be none of these.

    Returns:
        (t,) int64 numbers.

    >>> label, old = np.array([0, 0, 1, 2, 2]), np.array([7, -1, -1, 3, 7])
    >>> keep_numbers(label, old, np.array([5, 5, 9, 4, 1])).tolist()
    [7, 7, 8, 3, 3]
    """
    label, old = np.asarray(label, np.int64), np.asarray(old, np.int64)
    n = int(label.max(initial=-1)) + 1
    number = np.full(n, -1, np.int64)
    was = old >= 0
    if was.any():
        pair, which = np.unique(np.stack([label[was], old[was]], 1), axis=0, return_inverse=True)
        shared = np.bincount(which.ravel(), np.asarray(weight, np.float64)[was])
        taken: set[int] = set()
        for row in np.lexsort((pair[:, 0], pair[:, 1], -shared)):
            identity, value = pair[row].tolist()
            if number[identity] < 0 and value not in taken:
                number[identity] = value
                taken.add(value)
    new = number < 0
    number[new] = int(old.max(initial=highest)) + 1 + np.arange(int(new.sum()))
    return number[label]


def _members(label: Array) -> list[tuple[int, Array]]:
    """(label, tracklets) of each identity."""
    order = np.argsort(label, kind="stable")
    value, first = np.unique(label[order], return_index=True)
    return list(zip(value.tolist(), np.split(order, first[1:]), strict=True)) if len(label) else []


def _in_order(label: Array) -> Array:
    """The same groups, numbered from 0 by their first members."""
    value, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    rank = np.empty(len(value), np.int64)
    rank[np.argsort(first)] = np.arange(len(value))
    return rank[inverse.ravel()]
