"""The sparse Jaccard distance against a dense one written from the paper."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.cluster import DBSCAN

from tracklearn.core import jaccard, threads
from tracklearn.core.cluster import dbscan
from tracklearn.core.jaccard import jaccard_distance


def unit(x):
    x = np.asarray(x, np.float64)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def people(n, n_people, width=32, spread=0.6, seed=0):
    rng = np.random.default_rng(seed)
    pid = rng.integers(0, n_people, n)
    return unit(rng.normal(size=(n_people, width))[pid] + spread * rng.normal(size=(n, width)))


def textbook(features, k1, k2, mode="tracklearn"):
    """Zhong et al. 2017, section 3, on n x n matrices; ties to the lower row."""
    x = features.astype(np.float64)
    n = len(x)
    d = 2 - 2 * (x[:, None] * x).sum(2)
    d = np.rint(d * 2**40) / 2**40  # equal but for the rounding of sums is equal
    rank = np.argsort(d, axis=1, kind="stable")
    first = k1 if mode == "spcl" else k1 + 1
    half = min(first, round(k1 / 2) + 1)  # Python rounds half to even

    def reciprocal(k):
        near = np.zeros((n, n), bool)
        np.put_along_axis(near, rank[:, :k], True, axis=1)
        return near & near.T

    r, h = reciprocal(first), reciprocal(half)
    common = r.astype(int) @ h.T  # |R(i, k1) and R(j, h)|
    joined = r & (3 * common > 2 * h.sum(1))
    member = r | (joined.astype(int) @ h > 0)
    far = np.where(d.max(1) > 1e-6, d.max(1), 1)[:, None] if mode == "mmt" else 1
    v = np.where(member, np.exp(-np.maximum(d, 0) / far), 0)
    v /= np.maximum(v.sum(1), 1e-300)[:, None]
    if k2 > 1:
        v = np.stack([v[near].mean(0) for near in rank[:, :k2]])
    m = np.minimum(v[:, None], v).sum(2)
    out = np.maximum(1 - m / (2 - m), 0)
    np.fill_diagonal(out, 0)
    return out


def dense(stored):
    """Missing entries as 1."""
    out = np.ones(stored.shape)
    coo = stored.tocoo()
    out[coo.row, coo.col] = coo.data
    return out


def check_form(stored):
    assert isinstance(stored, sparse.csr_array)
    assert stored.dtype == np.float32
    assert stored.has_sorted_indices
    n = stored.shape[0]
    row = np.repeat(np.arange(n), np.diff(stored.indptr))
    assert (row == stored.indices).sum() == n  # the whole diagonal is stored, as zeros
    assert not stored.diagonal().any()
    turned = stored.T.tocsr()
    turned.sort_indices()
    np.testing.assert_array_equal(turned.indices, stored.indices)
    np.testing.assert_array_equal(turned.data, stored.data)


@pytest.mark.parametrize("mode", jaccard.MODES)
@pytest.mark.parametrize(("k1", "k2"), [(30, 6), (20, 6), (7, 3), (5, 1), (1, 1), (2, 9), (80, 70), (200, 6)])
def test_same_as_the_textbook(k1, k2, mode):
    x = people(70, 9, seed=k1)
    stored = jaccard_distance(x, k1, k2, mode=mode)
    check_form(stored)
    want = textbook(x, k1, k2, mode)
    np.testing.assert_allclose(dense(stored), want, atol=1e-6)
    assert stored.nnz == (want < 1 - 1e-7).sum()


def test_modes_differ():
    x = people(70, 9)
    forms = [dense(jaccard_distance(x, 10, 3, mode=mode)) for mode in jaccard.MODES]
    assert all(abs(a - b).max() > 1e-3 for a, b in ((forms[0], forms[1]), (forms[0], forms[2])))


def test_hand_toy():
    """Two pairs, k1 = 1, k2 = 1: each row's set is its pair; inside a pair both rows are encoded alike
    up to the order of exp(0) and exp(−d)."""
    x = np.array([[1, 0, 0], [0.8, 0.6, 0], [0, 0, 1], [0, 0.6, 0.8]], np.float32)
    d = 2 - 2 * 0.8
    near = np.exp(-d) / (1 + np.exp(-d))
    m = 2 * near
    want = 1 - m / (2 - m)
    np.testing.assert_allclose(
        dense(jaccard_distance(x, 1, 1)),
        [[0, want, 1, 1], [want, 0, 1, 1], [1, 1, 0, want], [1, 1, want, 0]],
        atol=1e-6,
    )


def test_duplicates_are_at_distance_zero_and_stored():
    x = np.repeat(people(6, 6, width=8), 3, axis=0)
    stored = jaccard_distance(x, 4, 2)
    check_form(stored)
    for i in range(18):
        for j in range(3 * (i // 3), 3 * (i // 3) + 3):
            assert stored[i, j] == 0
    np.testing.assert_allclose(dense(stored), textbook(x, 4, 2), atol=1e-6)


@pytest.mark.parametrize(("k2", "distance"), [(1, None), (3, 0), (4, 0), (6, 0.5)])
def test_more_duplicates_than_neighbours(k2, distance):
    """Beyond k1 + 1 duplicates a row is not in its own list; the result is still defined.

    Of the k2 nearest the first k1 + 1 have weights, of sum 1: with k2 = 6 the mean has the sum m = 2 / 3, and
    1 − m / (2 − m) is 0.5.
    """
    x = np.repeat(np.eye(2, 5, dtype=np.float32), 9, axis=0)
    stored = jaccard_distance(x, 3, k2)
    check_form(stored)
    np.testing.assert_allclose(dense(stored), textbook(x, 3, k2), atol=1e-6)
    apart = dense(stored)[:9, :9][~np.eye(9, dtype=bool)]
    if distance is None:
        assert set(dense(stored)[8, :8]) == {1.0}
    else:
        np.testing.assert_allclose(apart, distance, atol=1e-6)


@pytest.mark.parametrize("mode", jaccard.MODES)
def test_all_rows_the_same(mode):
    stored = jaccard_distance(np.tile(unit([[1, 2, 3]]), (5, 1)), 10, 3, mode=mode)
    assert stored.nnz == 25
    assert not stored.data.any()


@pytest.mark.parametrize("n", [0, 1, 2, 5, 6, 7])
def test_few_rows(n):
    x = unit(np.random.default_rng(n).normal(size=(n, 4)))
    stored = jaccard_distance(x, 6, 3)
    assert stored.shape == (n, n)
    check_form(stored)
    if n:
        np.testing.assert_allclose(dense(stored), textbook(x, 6, 3), atol=1e-6)


def test_max_distance_only_leaves_out():
    x = people(80, 10)
    full, part = jaccard_distance(x, 10, 4), jaccard_distance(x, 10, 4, max_distance=0.6)
    check_form(part)
    want = dense(full)
    want[want >= np.float32(0.6)] = 1
    np.testing.assert_array_equal(dense(part), want)


def test_order_of_rows_does_not_matter():
    x = people(60, 8)
    turn = np.random.default_rng(1).permutation(60)
    a = dense(jaccard_distance(x, 8, 3))
    b = dense(jaccard_distance(x[turn], 8, 3))
    np.testing.assert_allclose(b, a[np.ix_(turn, turn)], atol=1e-6)


def test_rotating_all_features_changes_nothing():
    x = people(60, 8, width=16)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(16, 16)))[0]
    a, b = jaccard_distance(x, 8, 3), jaccard_distance(unit(x @ turn), 8, 3)
    np.testing.assert_allclose(dense(b), dense(a), atol=1e-5)


@pytest.mark.parametrize("max_distance", [1.0, 0.7])
def test_neither_threads_nor_ranges_show(monkeypatch, max_distance):
    x = people(90, 8)
    want = jaccard_distance(x, 8, 3, max_distance=max_distance)
    for rows, parts in ((7, 16), (1, 90), (40, 2)):
        monkeypatch.setattr(jaccard, "_ROWS", rows)
        monkeypatch.setattr(jaccard, "_PARTS", parts)
        for n_threads in (1, 2, 3):
            with threads.limit(n_threads):
                got = jaccard_distance(x, 8, 3, max_distance=max_distance)
            np.testing.assert_array_equal(got.indptr, want.indptr)
            np.testing.assert_array_equal(got.indices, want.indices)
            np.testing.assert_array_equal(got.data, want.data)


@pytest.mark.parametrize("n", [1, 2, 3, 16, 17, 255, 256, 257, 5000, 100_000])
def test_ranges_cover_all_rows_once(n):
    for triangle in (False, True):
        ranges = jaccard._ranges(n, triangle=triangle)
        assert [row for low, high in ranges for row in (low, high)][1:-1:2] == [low for low, _ in ranges[1:]]
        assert (ranges[0][0], ranges[-1][1]) == (0, n)
        assert len(ranges) <= min(16, -(-n // 256))
        work = [high - low if not triangle else (high - low) * (2 * n - low - high) for low, high in ranges]
        assert n < 5000 or max(work) < 1.05 * min(work)


def test_buffers_grow():
    """More stored entries and set members than the kernels' first guess."""
    x = people(700, 2, spread=0.9)
    stored = jaccard_distance(x, 120, 6)
    assert stored.nnz > 256 * 700
    check_form(stored)


def test_memory_is_sparse():
    x = people(600, 60, spread=0.3)
    assert jaccard_distance(x, 10, 3).nnz < 600 * 60


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 14),
    width=st.integers(1, 4),
    k1=st.integers(1, 16),
    k2=st.integers(1, 16),
    mode=st.sampled_from(jaccard.MODES),
    tied=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_tiny_sets(n, width, k1, k2, mode, tied, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(-1, 2, (n, width)) if tied else rng.normal(size=(n, width))
    x[~x.any(1), 0] = 1
    x = unit(x)
    stored = jaccard_distance(x, k1, k2, mode=mode)
    check_form(stored)
    np.testing.assert_allclose(dense(stored), textbook(x, k1, k2, mode), atol=1e-6)


def random_set(seed):
    """A small set of one of four kinds, and settings, which may exceed it."""
    rng = np.random.default_rng(seed)
    n, width, kind = int(rng.integers(0, 61)), int(rng.integers(2, 17)), seed % 4
    if kind == 0:
        x = rng.normal(size=(n, width))
    elif kind == 1:
        n_people = rng.integers(1, 9)
        x = rng.normal(size=(n_people, width))[rng.integers(0, n_people, n)]
        x += rng.uniform(0.1, 1) * rng.normal(size=(n, width))
    elif kind == 2:  # duplicates
        x = rng.normal(size=(max(1, n // 3), width))[rng.integers(0, max(1, n // 3), n)]
    else:  # distances 0, 1, 2, 3 and 4 only
        x = np.zeros((n, width))
        x[np.arange(n), rng.integers(0, width, n)] = rng.choice([-1, 1], n)
        if width >= 4:
            halves = rng.random(n) < 0.5
            x[halves] = 0
            x[halves, :4] = rng.choice([-0.5, 0.5], (halves.sum(), 4))
    settings_ = {
        "k1": int(rng.integers(1, 36)),
        "k2": int(rng.integers(1, 11)),
        "mode": jaccard.MODES[rng.integers(3)],
        "max_distance": float(rng.choice([1.0, rng.uniform(0.05, 1)])),
    }
    return (x if kind == 3 else unit(x)).astype(np.float32), settings_, rng


def same_up_to_numbers(a, b):
    """Whether two labellings are the same partition."""
    return len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(set(a.tolist())) == len(set(b.tolist()))


@pytest.mark.parametrize("hundred", range(20))
def test_two_thousand_small_sets(hundred, monkeypatch):
    """Every pair is the textbook's, every label scikit-learn's; order of rows and threads do not matter."""
    for seed in range(100 * hundred, 100 * hundred + 100):
        x, given_, rng = random_set(seed)
        n, limit = len(x), np.float32(given_["max_distance"])
        stored = jaccard_distance(x, **given_)
        got = dense(stored)
        if n == 0:
            assert got.shape == (0, 0)
            continue
        want = textbook(x, given_["k1"], given_["k2"], given_["mode"])
        off = ~np.isclose(got, np.where(want < limit, want, 1), rtol=0, atol=1e-6)
        off[abs(want - limit) <= 1e-6] = False  # whether it is below is a matter of rounding
        assert not off.any(), (seed, np.argwhere(off))

        # Half of the radii are distances that occur: they are included.
        eps, min_samples = float(rng.uniform(0, limit)), int(rng.integers(1, 6))
        if rng.random() < 0.5:
            eps = float(rng.choice(stored.data))
        label = dbscan(stored, eps, min_samples)
        full = got.astype(np.float32)
        sklearn = DBSCAN(eps=max(eps, 1e-12), min_samples=min_samples, metric="precomputed").fit(full)
        np.testing.assert_array_equal(label, sklearn.labels_, err_msg=str(seed))

        if seed % 8 in (0, 1) and abs(got - eps).min() > 1e-6:  # kinds in which no distances tie
            turn = rng.permutation(n)
            turned = jaccard_distance(x[turn], **given_)
            off = abs(dense(turned) - got[np.ix_(turn, turn)])
            assert off[abs(want - limit)[np.ix_(turn, turn)] > 1e-6].max(initial=0) <= 1e-6, seed
            core = (got <= eps).sum(1) >= min_samples
            other = np.empty(n, int)
            other[turn] = dbscan(turned, eps, min_samples)
            assert same_up_to_numbers(label[core], other[core]), seed
            np.testing.assert_array_equal(label < 0, other < 0, err_msg=str(seed))

        if seed % 20 == 3:
            monkeypatch.setattr(jaccard, "_ROWS", 5)
            with threads.limit(2):
                spread = jaccard_distance(x, **given_)
            monkeypatch.undo()
            np.testing.assert_array_equal(spread.indptr, stored.indptr)
            np.testing.assert_array_equal(spread.indices, stored.indices)
            np.testing.assert_array_equal(spread.data, stored.data)


@pytest.mark.parametrize("mode", jaccard.MODES)
@pytest.mark.parametrize("n", [1, 2, 9, 10, 11, 12])
def test_as_many_rows_as_neighbours(n, mode):
    """n around k1 = 10, and k2 above n."""
    x = unit(np.random.default_rng(n).normal(size=(n, 5)))
    for k2 in (1, 3, n + 1, 50):
        stored = jaccard_distance(x, 10, k2, mode=mode)
        check_form(stored)
        np.testing.assert_allclose(dense(stored), textbook(x, 10, k2, mode), atol=1e-6)


def test_all_distances_tied():
    """Orthogonal rows: all at distance 2, so neighbours are the lowest rows."""
    x = np.eye(12, dtype=np.float32)
    for k1, k2 in ((3, 1), (3, 2), (11, 4), (40, 6)):
        stored = jaccard_distance(x, k1, k2)
        check_form(stored)
        np.testing.assert_allclose(dense(stored), textbook(x, k1, k2), atol=1e-6)


def test_a_tie_at_the_last_neighbour_goes_to_the_lower_row():
    """Rows 1 and 2 are equally far from row 0; with k1 = 1 only row 1 is its neighbour, and it is row 1's."""
    x = np.array([[1, 0, 0], [0.8, 0.6, 0], [0.8, -0.6, 0], [0, 0, 1]], np.float32)
    assert np.flatnonzero(dense(jaccard_distance(x, 1, 1))[0] < 1).tolist() == [0, 1]
    assert np.flatnonzero(dense(jaccard_distance(x[[0, 2, 1, 3]], 1, 1))[0] < 1).tolist() == [0, 1]


def test_refusals_and_input_unchanged():
    x = people(10, 3)
    kept = x.copy()
    jaccard_distance(x, 3, 2)
    np.testing.assert_array_equal(x, kept)
    for settings_, message in (
        ({"k1": 0}, "k1 is 0"),
        ({"k2": 0}, "k2 is 0"),
        ({"max_distance": 0}, "max_distance is 0"),
        ({"max_distance": 1.5}, "max_distance is 1.5"),
        ({"mode": "torchreid"}, 'mode is "torchreid", expected one of tracklearn, mmt, spcl'),
    ):
        with pytest.raises(ValueError, match=message):
            jaccard_distance(x, **settings_)
    with pytest.raises(ValueError, match="unit length"):
        jaccard_distance(2 * x)
    for bad, message in ((0, "1 row is not: 4 .all zeros"), (np.nan, "must be finite, but 1 row is not: 4")):
        x[4] = bad
        with pytest.raises(ValueError, match=message):
            jaccard_distance(x)
    x[7] = np.inf
    with pytest.raises(ValueError, match="must be finite, but 2 rows are not: 4, 7"):
        jaccard_distance(x)


def test_import_is_light():
    """Importing the core loads neither numba nor scikit-learn nor torch."""
    code = (
        "import sys, tracklearn.core.jaccard, tracklearn.core.cluster, tracklearn.core.isolate, "
        "tracklearn.core.rank, tracklearn.core.noise; "
        "print(sorted({'numba', 'sklearn', 'torch', 'cv2'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
