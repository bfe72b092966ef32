"""A tracker's mistakes on clean data: fragmentation and identity switches at rates that are asked for.

Source: Teng et al., "A Free Lunch to Person Re-identification", arXiv 2204.00891, section 4.1. The paper
gives the rates and the principle; how persons per tracklet, cuts and partners are drawn is our choice.
Training never calls anything of this module.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tracklearn.core.noise import measure
from tracklearn.types import Array, NoiseRates, Refusal

OBSERVED = {1: 85, 2: 16, 3: 6}
"""Tracklets holding 1, 2, 3 persons: the TMC authors' DeepSORT run on MOT16-09."""

PRESETS = {"MARS_1.7_1.2": (1.7, 1.2), "MARS_2.5_1.2": (2.5, 1.2), "MARS_2.5_1.5": (2.5, 1.5)}
"""The paper's noise levels: name -> (r_FM, r_SW)."""

_SWAPS = 10  # attempts per segment; a random order needs about ln(segments) / 2 that succeed


@dataclass(frozen=True, eq=False)
class Simulated:
    """Every row's place among the disturbed tracklets.

    Args:
        tracklet: (n,) int64, new tracklet of each row, from 0; −1 for rows of nobody, which stay as they are.
        place: (n,) int64, position of each row within its new tracklet, from 0; −1 likewise.
        camid: (t,) int64, camera of each new tracklet.
        rates: what was achieved, by `noise.measure` with every run counted, short ones too.
    """

    tracklet: Array
    place: Array
    camid: Array
    rates: NoiseRates


def simulate(
    pid: Array,
    camid: Array,
    order: Array,
    *,
    r_FM: float,
    r_SW: float,
    seed: int,
    histogram: Mapping[int, int] | None = None,
    min_segment: int = 2,
) -> Simulated:
    """Clean rows cut and joined into tracklets with these rates of fragmentation and switch.

    Rows of one (pid, camid) are a group; M groups become N = round(M · r_FM / r_SW) tracklets that hold
    K = round(M · r_FM) segments. Each camera gets segments as it has places to cut, and tracklets as it has
    segments. In a camera,

    - persons per tracklet are drawn from `histogram`, tilted exponentially (p_k ∝ h_k · e^(θk)) to the mean
      that is needed, by one systematic sample; the sum is made exact by changing single tracklets by one;
    - all cuts are drawn together: a group gets extra segments as it has room for them, and every way to cut
      it into segments of at least `min_segment` rows is equally likely. Groups too short stay whole;
    - segments are allotted at random, none of one group together. A greedy allotment, which exists whenever
      any does, is shuffled by exchanges that keep it one (counts that admit none are first evened out);

    and each tracklet's segments are put in random order. Every row keeps exactly one place. O(n log n) time.

    Args:
        pid: (n,) int, person of each row; below 0 nobody: left alone.
        camid: (n,) int, camera of each row.
        order: (n,) int, chronological order within a group; equal ones in order of rows.
        r_FM: tracklets per (person, camera), at least 1.
        r_SW: persons per tracklet, at least 1.
        seed: of every random choice; same seed, same result.
        histogram: persons -> tracklets observed, 1 among them; `OBSERVED` when left out. No tracklet holds
            more persons than the largest.
        min_segment: least rows of a segment of a group that is cut.

    Raises:
        ValueError: shapes disagree; a rate is below 1 or cannot be reached (the message says what can); there
            is nobody; the histogram is unusable; min_segment < 1; seed < 0.

    Example:
        >>> pid = np.repeat(np.arange(10), 20)
        >>> made = simulate(pid, 0 * pid, np.arange(200), r_FM=2, r_SW=1.25, seed=0)
        >>> len(made.camid), made.rates.r_FM, made.rates.r_SW
        (16, 2.0, 1.25)

    Source: TMC section 4.1.
    """
    pid, camid, order = (np.asarray(x) for x in (pid, camid, order))
    for name, value in (("pid", pid), ("camid", camid), ("order", order)):
        if value.shape != (len(pid),):
            raise Refusal(f"{name} has shape {value.shape}, expected ({len(pid)},): one per row")
        if value.dtype.kind not in "iu" and value.size:
            raise Refusal(f"{name} has dtype {value.dtype}, expected integers")
    if min_segment < 1:
        raise Refusal(f"min_segment is {min_segment}, expected at least 1 row")
    if seed < 0:
        raise Refusal(f"seed is {seed}, expected 0 or more")
    histogram = _checked(OBSERVED if histogram is None else histogram)
    rng = np.random.default_rng(seed)

    rows = np.flatnonzero(pid >= 0)
    if not len(rows):
        raise Refusal("no row has a person (pid 0 or above): there is nothing to disturb")
    rows = rows[np.lexsort((order[rows], pid[rows], camid[rows]))]
    who, where = pid[rows], camid[rows]
    first = np.flatnonzero(np.r_[True, (np.diff(who) != 0) | (np.diff(where) != 0)])
    length = np.diff(np.r_[first, len(rows)])
    most_segments = np.maximum(length // min_segment, 1)
    cameras, start = np.unique(where[first], return_index=True)
    spans = [slice(a, b) for a, b in zip(start, np.r_[start[1:], len(first)], strict=True)]
    plan = _plan([most_segments[s] for s in spans], r_FM, r_SW, sorted(histogram))

    n_segments = np.empty(len(first), np.int64)
    allotted, n = [], 0
    for span, (segments, tracklets) in zip(spans, plan, strict=True):
        cap = np.minimum(most_segments[span], tracklets)
        n_segments[span] = 1 + rng.multivariate_hypergeometric(
            cap - 1, segments - len(cap), method="marginals"
        )
        possible = {k: v for k, v in histogram.items() if k <= len(cap)}
        persons = _persons(tracklets, segments, possible, rng)
        _even_out(n_segments[span], cap, persons)
        allotted.append(n + _allot(n_segments[span], persons, rng))
        n += tracklets
    tracklet_of = np.concatenate(allotted)

    begin = np.sort(np.r_[first, _cuts(first, length, n_segments, min_segment, rng)])
    size = np.diff(np.r_[begin, len(rows)])
    sequence = np.lexsort((rng.random(len(begin)), tracklet_of))
    before = np.cumsum(size[sequence]) - size[sequence]  # rows in earlier segments
    opens = np.flatnonzero(np.diff(tracklet_of[sequence], prepend=-1))
    per_tracklet = np.diff(np.r_[opens, len(begin)])
    offset = np.empty(len(begin), np.int64)
    offset[sequence] = before - np.repeat(before[opens], per_tracklet)

    tracklet, place = np.full(len(pid), -1, np.int64), np.full(len(pid), -1, np.int64)
    tracklet[rows] = np.repeat(tracklet_of, size)
    place[rows] = np.repeat(offset - begin, size) + np.arange(len(rows))
    new_camid = np.repeat(cameras, [tracklets for _, tracklets in plan])
    return Simulated(tracklet, place, new_camid, measure(tracklet[rows], who, where, min_run=1))


def _checked(histogram: Mapping[int, int]) -> dict[int, int]:
    """The histogram without empty bins, in ascending order."""
    counts = {int(k): int(v) for k, v in sorted(histogram.items()) if v}
    if 1 not in counts or min(counts) < 1 or min(counts.values()) < 0:
        raise Refusal(
            f"histogram is {dict(histogram)}, expected persons -> tracklets, none below 0, some of 1 person"
        )
    return counts


def _plan(most_segments: list[Array], r_FM: float, r_SW: float, sizes: list[int]) -> list[tuple[int, int]]:
    """(segments, tracklets) of each camera, given how many segments each of its groups can have.

    `sizes` are the numbers of persons that a tracklet may hold, ascending.

    Raises:
        ValueError: the rates are below 1 or cannot be reached.
    """
    for name, rate in (("r_FM", r_FM), ("r_SW", r_SW)):
        if not 1 <= rate < math.inf:
            raise Refusal(f"{name} is {rate}, expected a number of at least 1")
    n_groups = np.array([len(most) for most in most_segments], np.int64)
    room = np.array([int((most - 1).sum()) for most in most_segments], np.int64)
    m = int(n_groups.sum())
    k, n = round(m * r_FM), round(m * r_FM / r_SW)
    if k - m > room.sum():
        raise Refusal(
            f"r_FM {r_FM:g} cannot be reached: at most {_floor(1 + room.sum() / m)}, which cuts all frames "
            "of a person in a camera into segments of the least length"
        )
    segments = n_groups + _share(k - m, room, np.zeros_like(room), room)
    fewest = np.array(
        [_fewest_tracklets(int(s), most, sizes) for s, most in zip(segments, most_segments, strict=True)]
    )
    if fewest.sum() > n:
        raise Refusal(
            f"r_SW {r_SW:g} cannot be reached at r_FM {r_FM:g}: at most {_floor(k / fewest.sum())}, with "
            f"{sizes[-1]} persons in a tracklet at most, all of one camera and no person twice"
        )
    tracklets = _share(n, segments, fewest, segments)
    return [(int(s), int(t)) for s, t in zip(segments, tracklets, strict=True)]


def _fewest_tracklets(segments: int, most_segments: Array, sizes: list[int]) -> int:
    """Least number of tracklets that can hold so many segments of a camera, no group twice in any."""
    most_persons = max(size for size in sizes if size <= len(most_segments))

    def holds(n: int) -> int:
        return min(int(np.minimum(most_segments, n).sum()), n * most_persons)

    return bisect_left(range(segments + 1), segments, key=holds)


def _floor(rate: float) -> str:
    """Three decimals, rounded down: a rate that is printed as reachable can be asked for."""
    return f"{math.floor(rate * 1000 + 1e-6) / 1000:g}"


def _share(total: int, weight: Array, low: Array, high: Array) -> Array:
    """Whole numbers that add up to `total`, as near to proportional to `weight` as low..high permits.

    Args:
        total: between low.sum() and high.sum().
        weight: (c,) at least 0; where it is 0, low and high are 0.
    """
    a, b = 0.0, max(1.0, float((high / np.maximum(weight, 1)).max()))
    for _ in range(100):
        middle = (a + b) / 2
        a, b = (middle, b) if np.clip(middle * weight, low, high).sum() < total else (a, middle)
    exact = np.clip(b * weight, low, high)
    whole = np.floor(exact + 1e-9).astype(np.int64)
    rest = np.where(whole < high, exact - whole, -1.0)
    whole[np.argsort(-rest, kind="stable")[: total - whole.sum()]] += 1
    return whole


def _persons(n: int, total: int, histogram: Mapping[int, int], rng: np.random.Generator) -> Array:
    """(n,) persons of each tracklet, adding up to `total`: the histogram tilted to that mean, shuffled.

    A systematic sample has every size within one of its expected count, so its sum is nearly right at once.
    """
    size = np.array(list(histogram), np.int64)
    log = np.log(np.array(list(histogram.values()), float))
    low, high = -60.0, 60.0  # e^±60 leaves one size alone, to double precision
    for _ in range(100):
        tilt = (low + high) / 2
        share = np.exp(log + tilt * size - (log + tilt * size).max())
        share /= share.sum()
        low, high = (tilt, high) if share @ size < total / n else (low, tilt)
    at = (np.arange(n) + rng.random()) / n
    persons = rng.permutation(size[np.searchsorted(np.cumsum(share)[:-1], at, side="right")])
    while missing := total - int(persons.sum()):
        free = np.flatnonzero(persons < size[-1] if missing > 0 else persons > 1)
        persons[rng.choice(free, min(abs(missing), len(free)), replace=False)] += np.sign(missing)
    return persons


def _even_out(n_segments: Array, cap: Array, persons: Array) -> None:
    """Move segments (then persons) from the largest to the smallest until an allotment exists, in place.

    Fully even counts have one, since no group has more segments than there are tracklets.
    """
    most = np.full(len(persons), min(len(n_segments), int(persons.max())))
    while not _allotment_exists(n_segments, persons):
        if not _move_one(n_segments, cap):
            _move_one(persons, most)


def _allotment_exists(n_segments: Array, persons: Array) -> bool:
    """Whether tracklets of so many persons can hold the segments, no group twice in any.

    Source: Gale, Ryser: the k groups with most segments must fit in tracklets that take k of them each.
    """
    holding = np.bincount(persons, minlength=len(n_segments) + 1)
    at_least = np.cumsum(holding[::-1])[::-1][
        1 : len(n_segments) + 1
    ]  # tracklets of at least 1, 2, … persons
    return bool((np.cumsum(np.sort(n_segments)[::-1]) <= np.cumsum(at_least)).all())


def _move_one(count: Array, cap: Array) -> bool:
    """Move one from the largest count to the smallest below its cap; False if that evens nothing."""
    free = np.flatnonzero(count < cap)
    if not len(free):
        return False
    low, high = free[count[free].argmin()], count.argmax()
    if count[high] - count[low] < 2:
        return False
    count[low] += 1
    count[high] -= 1
    return True


def _allot(n_segments: Array, persons: Array, rng: np.random.Generator) -> Array:
    """(segments,) the tracklet of each segment, segments listed by group; no group twice in a tracklet."""
    group = np.repeat(np.arange(len(n_segments)), n_segments)
    end = np.cumsum(n_segments)
    tracklet = np.empty(len(group), np.int64)
    left = persons.astype(np.float64)
    for g in rng.permutation(len(n_segments)):
        # Taking the emptiest tracklets never spoils the rest; the fraction decides between equals.
        chosen = np.argsort(-(left + rng.random(len(left))))[: n_segments[g]]
        left[chosen] -= 1
        tracklet[end[g] - n_segments[g] : end[g]] = rng.permutation(chosen)
    held: list[set[int]] = [set() for _ in persons]
    owner, at = group.tolist(), tracklet.tolist()
    for g, t in zip(owner, at, strict=True):
        held[t].add(g)
    for a, b in rng.integers(0, len(group), (_SWAPS * len(group), 2)).tolist():
        g, h, s, t = owner[a], owner[b], at[a], at[b]
        if g in held[t] or h in held[s]:
            continue
        held[s].remove(g)
        held[t].remove(h)
        held[s].add(h)
        held[t].add(g)
        at[a], at[b] = t, s
    return np.array(at, np.int64)


def _cuts(first: Array, length: Array, n_segments: Array, least: int, rng: np.random.Generator) -> Array:
    """Rows at which a segment begins other than its group's first: all ways to cut a group equally likely.

    A way to cut is a choice of s − 1 bars among the spare rows and bars together, where spare rows are those
    beyond `least` for each of the s segments.
    """
    bars = n_segments - 1
    cut = np.flatnonzero(bars)
    choices = (length - n_segments * least + bars)[cut]
    group = np.repeat(cut, choices)
    start = np.cumsum(choices) - choices
    mixed = np.argsort(group + rng.random(len(group)), kind="stable")  # random within each group
    rank = np.arange(len(group)) - np.repeat(start, choices)
    taken = np.sort(mixed[rank < bars[group]])
    group = group[taken]
    j = np.arange(len(taken)) - np.repeat(np.cumsum(bars[cut]) - bars[cut], bars[cut])
    return first[group] + rank[taken] - j + (j + 1) * least
