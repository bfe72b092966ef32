"""Heads of rows: their bounds hold, and a scan of them finds what brute force finds."""

from itertools import pairwise

import numpy as np
import pytest

from tracklearn.core import heads
from tracklearn.core.heads import Directions, choose, directions, encode, of_query, reach
from tracklearn.core.scan import Scan, quantise


def unit(x):
    x = np.asarray(x, np.float64)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def falling(n, width, power=1.5, seed=0):
    """Rows in groups of about ten, whose variance falls along hidden directions."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(max(1, n // 10), width))[rng.integers(0, max(1, n // 10), n)]
    x = (x + 0.6 * rng.normal(size=(n, width))) * np.arange(1, width + 1) ** (-power / 2)
    return unit(x @ np.linalg.qr(rng.normal(size=(width, width)))[0])


KINDS = ("falling", "isotropic", "duplicates", "near", "ties", "axis", "few", "hidden", "uneven")


def made(kind, n, width, rng):
    """Rows (n, width) of length 1 to 1e-3, of a kind that might break a bound."""
    x = rng.normal(size=(n, width))
    if kind == "falling":
        x *= np.arange(1, width + 1) ** -rng.uniform(0.2, 3)
    elif kind == "duplicates":
        x = x[rng.integers(0, max(1, n // 6), n)]
    elif kind == "near":
        x = x[:1] + 10.0 ** -rng.integers(1, 8) * x
    elif kind == "ties":
        x = rng.integers(-1, 2, (n, width)).astype(float)
    elif kind == "axis":
        x = np.eye(width)[rng.integers(0, width, n)]
    elif kind == "few":  # all in three dimensions: no rest
        x = rng.normal(size=(n, 3)) @ rng.normal(size=(3, width))
    elif kind == "hidden":  # neighbours are told apart by what no direction holds
        x = np.ones(width) + 1e-3 * x
        x[:, -1] += rng.normal(size=n)
    x[~x.any(1), 0] = 1
    x = unit(x)
    return x * rng.uniform(0.9991, 1.0009, (n, 1)).astype(np.float32) if kind == "uneven" else x


def some_directions(x, rng):
    """Few directions, mostly good ones, and not always orthonormal to the last bit."""
    width = x.shape[1]
    n = int(rng.integers(1, width + 1))
    if rng.random() < 0.3:
        return Directions.of(np.linalg.qr(rng.normal(size=(width, n)))[0].astype(np.float32))
    axes = directions(x, n)
    if rng.random() < 0.2:
        axes += rng.normal(size=axes.shape).astype(np.float32) * 1e-4
    return Directions.of(axes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1, 2, 17, 200])
def test_no_score_is_above_its_bound(kind, width):
    rng = np.random.default_rng(width)
    for _ in range(5):
        x = made(kind, 80, width, rng)
        along = some_directions(x, rng)
        code, bound = encode(x, along)
        assert code.dtype == np.int8
        columns = np.ascontiguousarray(bound.T)
        exact = x.astype(np.float64)
        for q in (x[0], made("isotropic", 1, width, rng)[0]):
            upper = np.empty(len(x), np.float32)
            reach(code, columns, of_query(q, along), upper)
            score = exact @ q.astype(np.float64) - np.square(exact).sum(1) / 2
            assert (upper >= score).all()
            allowed = rng.random(len(x)) < 0.5
            reach(code, columns, of_query(q, along), upper, allowed=allowed)
            assert (upper[~allowed] == -np.inf).all()
            assert (upper[allowed] >= score[allowed]).all()


def test_bounds_are_worth_something():
    x = falling(2000, 128, power=2)
    along = Directions.of(directions(x, 32))
    code, bound = encode(x, along)
    upper = np.empty(len(x), np.float32)
    reach(code, np.ascontiguousarray(bound.T), of_query(x[0], along), upper)
    score = x @ x[0] - 0.5
    assert np.median(upper - score) < 0.1
    assert (upper >= np.sort(score)[-10]).mean() < 0.05


def brute(x, q, k, group, allowed):
    """The nearest row of each group, the k nearest of these, equal ones by the lower row."""
    distance = np.linalg.norm(x.astype(np.float64) - q, axis=1)
    found, seen = [], set()
    for i in np.lexsort((np.arange(len(x)), distance)):
        if allowed[i] and group[i] not in seen:
            seen.add(group[i])
            found.append(i)
    return (found + [-1] * k)[:k]


def test_two_thousand_small_scans():
    """Any rows in blocks, rows left out, groups of which one is found."""
    for case in range(2000):
        rng = np.random.default_rng(case)
        n, width, k = int(rng.integers(1, 90)), int(rng.integers(1, 40)), int(rng.integers(1, 12))
        kind = KINDS[case % len(KINDS)]
        x = made(kind, n, width, rng)
        along = some_directions(x, rng)
        q = x[0] if rng.random() < 0.3 else made(kind, 1, width, rng)[0]
        grouped = rng.random() < 0.5
        group = rng.integers(0, max(1, n // 3), n) if grouped else np.arange(n)
        allowed = rng.random(n) < rng.choice([0.1, 0.7, 1.0])
        scan = Scan(q, k)
        edges = np.unique(np.r_[0, rng.integers(0, n + 1, 2), n])
        for lo, hi in pairwise(edges.tolist()):
            part = x[lo:hi]
            code, bound = encode(part, along)
            upper = np.empty(len(part), np.float32)
            reach(code, np.ascontiguousarray(bound.T), of_query(q, along), upper, allowed=allowed[lo:hi])
            coded = lambda near, part=part: quantise(part[near])  # noqa: E731
            rows = lambda near, part=part: part[near]  # noqa: E731
            scan.heads(upper, coded, rows, lo, group=group if grouped else None)
        want = brute(x, q, k, group, allowed)
        assert scan.index.tolist() == want, f"case {case}, {kind}"


def test_heads_are_chosen_where_they_pay():
    x = falling(9000, 256, power=2)
    found = choose(x, 100_000)
    assert found is not None
    assert found.axes.shape[1] in heads.WIDTHS
    assert found.axes.dtype == np.float32
    assert found.skew < 1e-5
    np.testing.assert_array_equal(found.axes, choose(x, 100_000).axes)
    assert choose(unit(np.random.default_rng(0).normal(size=(4000, 256))), 100_000) is None
    assert choose(np.ascontiguousarray(x[:, :40]), 100_000) is None  # a row is short already
    assert choose(x[:100], 100_000) is None  # nothing can be read off so few


def test_directions_hold_what_the_best_ones_hold():
    x = falling(800, 120, power=2)
    found = directions(x, 20)
    np.testing.assert_allclose(found.T @ found, np.eye(20), atol=1e-5)
    best = np.linalg.svd(x.astype(np.float64), compute_uv=False) ** 2
    held = np.square(x @ found).sum(0)
    assert held.sum() > 0.99 * best[:20].sum()
    assert (np.diff(held) < 1e-2 * held[0]).all()  # the first hold the most
