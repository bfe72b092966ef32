"""Who is who: linkage against a slow one, the exact solution, what is known of pairs, and numbers kept."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracklearn.core import identities
from tracklearn.core.identities import (
    Evidence,
    Limits,
    Mistakes,
    belonging,
    contradictions,
    exact,
    gain,
    groups,
    keep_numbers,
    link,
    mistakes,
)

NONE = np.zeros((0, 2), np.int64)


def made(seed, *, n=None, people=None, width=8, spread=0.5, cameras=2, pairs=True):
    """Random evidence, and who is who."""
    rng = np.random.default_rng(seed)
    n = n or int(rng.integers(1, 14))
    people = people or int(rng.integers(1, 6))
    pid = rng.integers(0, people, n)
    x = rng.normal(size=(people, width))[pid] + spread * rng.normal(size=(n, width))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    every = np.array(list(combinations(range(n), 2)), np.int64).reshape(-1, 2)
    apart = every[(pid[every[:, 0]] != pid[every[:, 1]]) & (rng.random(len(every)) < 0.2 * pairs)]
    together = every[(pid[every[:, 0]] == pid[every[:, 1]]) & (rng.random(len(every)) < 0.1 * pairs)]
    limits = Limits(float(rng.uniform(0.2, 0.8)), float(rng.uniform(0.1, 0.8)))
    weight = rng.integers(1, 50, n)
    return Evidence(x, weight, rng.integers(0, cameras, n), limits, apart, together), pid


def slow(known):
    """Average linkage written down: every pair of groups, every pair of tracklets in them, at every step."""
    t = len(known)
    group = groups(t, known.together)
    parts = [np.flatnonzero(group == g).tolist() for g in range(group.max() + 1)]
    barred = {frozenset(p) for p in known.apart.tolist()}
    x = known.mean.astype(float)
    while True:
        best, at = 0.0, None
        for p, q in combinations(range(len(parts)), 2):
            score = weight = 0.0
            if any(frozenset((a, b)) in barred for a in parts[p] for b in parts[q]):
                continue
            for a in parts[p]:
                for b in parts[q]:
                    w = known.weight[a] * known.weight[b]
                    same = known.camid[a] == known.camid[b]
                    score += w * (x[a] @ x[b] - (known.limits.within if same else known.limits.across))
                    weight += w
            if score / weight > best:
                best, at = score / weight, (p, q)
        if at is None:
            label = np.empty(t, np.int64)
            for p, members in enumerate(sorted(parts, key=min)):
                label[members] = p
            return label
        parts[at[0]] += parts.pop(at[1])


def slow_gain(known, label):
    total = 0.0
    for a, b in combinations(range(len(known)), 2):
        if label[a] == label[b]:
            same = known.camid[a] == known.camid[b]
            limit = known.limits.within if same else known.limits.across
            total += known.weight[a] * known.weight[b] * (known.mean[a].astype(float) @ known.mean[b] - limit)
    return total


def partitions(n):
    """All ways to label n tracklets."""
    ways = [[0]]
    for _ in range(n - 1):
        ways = [[*w, v] for w in ways for v in range(max(w) + 2)]
    return map(np.array, ways)


def allowed(known, label):
    apart, together = known.apart, known.together
    return (label[apart[:, 0]] != label[apart[:, 1]]).all() and (
        label[together[:, 0]] == label[together[:, 1]]
    ).all()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 100_000))
def test_linkage_is_the_slow_one(seed):
    known, _ = made(seed)
    found = link(known, k=50)
    assert found.tolist() == slow(known).tolist()
    assert allowed(known, found)
    assert np.isclose(gain(known, found), slow_gain(known, found), atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 100_000))
def test_it_does_not_depend_on_the_order_of_tracklets(seed):
    known, _ = made(seed, n=20)
    order = np.random.default_rng(seed).permutation(20)
    place = np.argsort(order)
    other = Evidence(
        known.mean[order], known.weight[order], known.camid[order], known.limits,
        place[known.apart], place[known.together],
    )  # fmt: skip
    a, b = link(known, k=50)[order], link(other, k=50)
    assert (groups_of(a) == groups_of(b)).all()


def groups_of(label):
    return label[:, None] == label[None]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100_000))
def test_the_exact_solution_is_the_best_of_all(seed):
    known, _ = made(seed, n=7, spread=0.9)
    greedy = link(known, k=50)
    found, _ = exact(known, greedy)
    best = max(slow_gain(known, label) for label in partitions(7) if allowed(known, label))
    assert allowed(known, found)
    assert np.isclose(slow_gain(known, found), best, rtol=1e-6, atol=1e-3)
    assert gain(known, found) >= gain(known, greedy) - 1e-6


@pytest.mark.parametrize("seed", range(4))
def test_on_thirty_tracklets_linkage_is_near_the_exact_solution(seed):
    known, _ = made(seed, n=30, people=5, spread=0.6, width=16)
    greedy = link(known)
    found, better = exact(known, greedy)
    best = gain(known, found)
    assert best >= gain(known, greedy)
    assert gain(known, greedy) > 0.95 * best
    assert (better > 0) == (gain(known, greedy) < best - 1e-6)


def test_large_sets_are_left_as_they_were():
    known, _ = made(3, n=40, people=1, spread=0.1, pairs=False)
    label = np.arange(40)
    assert exact(known, label, small=30)[0].tolist() == label.tolist()
    assert exact(known, np.zeros(40, int), small=30)[1] == 0


def test_what_is_known_of_pairs_is_carried_through_merges():
    """a and b are two people; c looks like both, and joins one of them only."""
    x = np.eye(3, dtype=np.float32)[[0, 0, 0]]
    known = Evidence(x, np.ones(3), np.zeros(3), Limits(0.5, 0.5), np.array([[0, 1]]), NONE)
    assert link(known).tolist() == [0, 1, 0]
    joined = Evidence(x, np.ones(3), np.zeros(3), Limits(0.5, 0.5), np.array([[0, 1]]), np.array([[1, 2]]))
    assert link(joined).tolist() == [0, 1, 1]
    alike_not = Evidence(np.eye(3), np.ones(3), np.zeros(3), Limits(0.5, 0.5), NONE, np.array([[0, 2]]))
    assert link(alike_not).tolist() == [0, 1, 0]


def test_long_tracklets_count_for_more():
    """A short one that looks like somebody else does not keep two long ones apart."""
    x = np.float32([[1, 0], [0.9, np.sqrt(0.19)], [-0.6, 0.8]])
    limits = Limits(0.2, 0.2)
    light = Evidence(x, [100, 100, 1], np.zeros(3), limits, NONE, np.array([[1, 2]]))
    heavy = Evidence(x, [100, 100, 900], np.zeros(3), limits, NONE, np.array([[1, 2]]))
    assert link(light).tolist() == [0, 0, 0]
    assert link(heavy).tolist() == [0, 1, 1]


def test_each_kind_of_pair_has_its_limit():
    x = np.float32([[1, 0], [0.6, 0.8]])
    for camid, expected in (([0, 0], [0, 1]), ([0, 1], [0, 0])):
        assert link(Evidence(x, [1, 1], camid, Limits(0.7, 0.5), NONE, NONE)).tolist() == expected


def test_people_are_found_among_thousands():
    rng = np.random.default_rng(0)
    pid = rng.integers(0, 150, 3000)
    x = rng.normal(size=(150, 64))[pid] + 0.5 * rng.normal(size=(3000, 64))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    known = Evidence(x, np.ones(3000), pid % 7, Limits(0.4, 0.4), NONE, NONE)
    assert (groups_of(link(known, k=16)) == groups_of(pid)).all()


def test_nothing_and_one():
    none = Evidence(np.zeros((0, 4)), [], [], Limits(0.5, 0.5), NONE, NONE)
    assert link(none).tolist() == []
    assert exact(none, np.zeros(0, int))[0].tolist() == []
    one = Evidence(np.float32([[1, 0]]), [3], [0], Limits(0.5, 0.5), NONE, NONE)
    assert link(one).tolist() == [0]
    assert np.isnan(belonging(one, np.zeros(1, int))).all()


def test_belonging_is_the_mean_distance_to_the_others():
    known, _ = made(5, n=9, people=2)
    label = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2])
    found = belonging(known, label)
    for a in range(8):
        own = [b for b in range(8) if label[b] == label[a] and b != a]
        cosine = np.array([known.mean[a].astype(float) @ known.mean[b] for b in own])
        moved = np.where(known.camid[own] == known.camid[a], 0, known.limits.within - known.limits.across)
        mean = np.average(cosine + moved, weights=known.weight[own])
        assert np.isclose(found[a], np.sqrt(np.clip(2 - 2 * mean, 0, 4)), atol=1e-6)
    assert np.isnan(found[8])


def test_contradictions_name_the_way_between_them():
    together = np.array([[0, 1], [1, 2], [2, 3], [4, 5], [0, 2]])
    assert contradictions(6, np.array([[0, 3], [3, 4]]), together) == [(0, [4, 2])]
    with pytest.raises(ValueError, match="tracklets 0 and 3 are two people by apart and one by together"):
        Evidence(np.eye(6), np.ones(6), np.zeros(6), Limits(0.5, 0.5), np.array([[0, 3]]), together)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": np.ones(2)}, "weight has shape"),
        ({"weight": np.array([1, 0, 1])}, "not above 0"),
        ({"camid": np.zeros(4)}, "camid has shape"),
        ({"mean": 2 * np.eye(3)}, "unit length"),
        ({"apart": np.array([[0, 3]])}, r"apart holds 0\.\.3"),
        ({"together": np.array([[-1, 2]])}, r"together holds -1\.\.2"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    given = {"mean": np.eye(3), "weight": np.ones(3), "camid": np.zeros(3), "apart": NONE, "together": NONE}
    with pytest.raises(ValueError, match=message):
        Evidence(limits=Limits(0.5, 0.5), **(given | change))
    with pytest.raises(ValueError, match="k is 0"):
        link(Evidence(limits=Limits(0.5, 0.5), **given), k=0)


def test_known_people_keep_their_numbers():
    label = np.array([0, 0, 1, 1, 2, 3])
    old = np.array([4, 4, 4, 9, -1, -1])
    # Identity 4 was split: who holds most of its frames keeps the number.
    assert keep_numbers(label, old, np.array([1, 1, 5, 1, 1, 1])).tolist() == [10, 10, 4, 4, 11, 12]
    assert keep_numbers(label, old, np.array([9, 1, 5, 1, 1, 1])).tolist() == [4, 4, 9, 9, 10, 11]
    # Two old ones are one now: the number of more frames stays.
    assert keep_numbers(np.zeros(3, int), np.array([2, 1, 1]), np.array([5, 2, 2])).tolist() == [2, 2, 2]
    assert keep_numbers(np.array([0, 1]), np.array([-1, -1]), np.ones(2)).tolist() == [0, 1]
    assert keep_numbers(np.array([0, 1]), np.array([-1, 3]), np.ones(2), highest=8).tolist() == [9, 3]
    assert keep_numbers(np.zeros(0, int), np.zeros(0, int), np.zeros(0)).tolist() == []


def test_inputs_stay_as_they_were():
    known, _ = made(11, n=12)
    before = [v.copy() for v in (known.mean, known.weight, known.camid, known.apart, known.together)]
    label = link(known)
    kept = label.copy()
    exact(known, label)
    belonging(known, label)
    for old, now in zip(
        before, (known.mean, known.weight, known.camid, known.apart, known.together), strict=True
    ):
        assert (old == now).all()
    assert (label == kept).all()


def test_a_search_that_gives_up_changes_nothing(monkeypatch):
    known, _ = made(8, n=9, people=3, spread=0.9)
    monkeypatch.setattr(identities, "_solved", lambda part: None)
    label = link(known)
    assert exact(known, label)[0].tolist() == label.tolist()


def four(limit=0.5):
    """Tracklets 0 and 1 look the same, and so do 2 and 3: two of six pairs lie below any limit."""
    mean = np.eye(4, dtype=np.float32)[[0, 0, 1, 1]]
    return Evidence(mean, np.ones(4), np.array([0, 1, 0, 0]), Limits(limit, limit), NONE, NONE)


def test_mistakes_by_hand():
    """The limit is a distance of 1: of three pairs of one person one lies above it."""
    same = np.array([0.2, 0.4, 1.2])
    found = mistakes(four(), same, np.array([[0, 2], [1, 3], [0, 1]]))
    assert found == Mistakes(split=1 / 3, apart=3, alike=1, below=1 / 3)
    assert found.merged is None, "three pairs tell nothing"
    found = mistakes(four(), same, np.tile([[0, 2], [1, 3], [0, 3], [0, 1]], (10, 1)))
    assert found.merged == pytest.approx((1 / 4) / (1 / 3))
    assert mistakes(four(), same, np.tile([[0, 2]], (40, 1))).merged == 0
    # More of those that are two people look alike than of all: then they are not.
    assert mistakes(four(), same, np.tile([[0, 2], [0, 1]], (20, 1))).merged == pytest.approx(1.5)
    apart = Evidence(np.eye(4, dtype=np.float32), np.ones(4), np.zeros(4), Limits(0.5, 0.5), NONE, NONE)
    assert mistakes(apart, same, np.tile([[0, 2]], (40, 1))).merged is None
    nobody = Evidence(np.zeros((0, 4)), [], [], Limits(0.5, 0.5), NONE, NONE)
    assert mistakes(nobody, same, NONE) == Mistakes(1 / 3, 0, 0, 0.0)


@pytest.mark.parametrize("spread", [0.5, 0.7, 1.0])
@pytest.mark.parametrize("everybody", [True, False])
def test_mistakes_are_those_that_are_made(spread, everybody, monkeypatch):
    """Of pairs below the limit and of pairs of one person, against who is who: 30 people, ten times each."""
    if not everybody:
        monkeypatch.setattr(identities, "_ALL", 10)
    rng = np.random.default_rng(int(10 * spread))
    person = rng.normal(size=(30, 24))
    pid = np.repeat(np.arange(30), 10)

    def look():
        x = person[pid] + spread * rng.normal(size=(300, 24))
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    x, again = look(), look()
    a, b = np.triu_indices(300, 1)
    below, one = (x[a] * x[b]).sum(1) > 0.5, pid[a] == pid[b]
    pair = np.stack([a, b], 1)[rng.permutation(np.flatnonzero(~one))[:2000]]
    known = Evidence(x, np.ones(300), np.zeros(300), Limits(0.5, 0.5), NONE, NONE)
    found = mistakes(known, np.linalg.norm(x - again, axis=1), pair)
    assert found.split == pytest.approx((~below[one]).mean(), abs=0.08)
    assert found.merged == pytest.approx((~one[below]).mean(), abs=0.08)
