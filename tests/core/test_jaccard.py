"""The sparse Jaccard distance against a dense one written from the paper with sets and loops."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from tracklearn.core import jaccard
from tracklearn.core.jaccard import jaccard_distance


def unit(x):
    x = np.asarray(x, np.float64)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def people(n, n_people, width=32, spread=0.6, seed=0):
    rng = np.random.default_rng(seed)
    pid = rng.integers(0, n_people, n)
    return unit(rng.normal(size=(n_people, width))[pid] + spread * rng.normal(size=(n, width)))


def textbook(features, k1, k2, mode="tracklearn"):
    """Zhong et al. 2017, section 3, as written; ties to the lower row."""
    x = features.astype(np.float64)
    n = len(x)
    d = np.array([[2 - 2 * float(np.sum(a * b)) for b in x] for a in x])
    d = np.rint(d * 2**40) / 2**40
    rank = [sorted(range(n), key=lambda j, i=i: (d[i, j], j)) for i in range(n)]
    first = k1 if mode == "spcl" else k1 + 1
    half = min(first, round(k1 / 2) + 1)  # Python rounds half to even

    def reciprocal(i, k):
        return {j for j in rank[i][:k] if i in rank[j][:k]}

    v = np.zeros((n, n))
    for i in range(n):
        r = reciprocal(i, first)
        expanded = set(r)
        for j in r:
            more = reciprocal(j, half)
            if 3 * len(more & r) > 2 * len(more):
                expanded |= more
        members = sorted(expanded)
        if members:
            far = d[i].max() if mode == "mmt" and d[i].max() > 1e-6 else 1.0
            weight = np.exp(-np.maximum(d[i, members], 0) / far)
            v[i, members] = weight / weight.sum()
    if k2 > 1:
        v = np.stack([np.mean([v[j] for j in rank[i][:k2]], axis=0) for i in range(n)])
    m = np.minimum(v[:, None], v[None]).sum(2)
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


@pytest.mark.parametrize("k2", [1, 3])
def test_more_duplicates_than_neighbours(k2):
    """Beyond k1 + 1 duplicates a row is not in its own list; the result is still defined."""
    x = np.repeat(np.eye(2, 5, dtype=np.float32), 9, axis=0)
    stored = jaccard_distance(x, 3, k2)
    check_form(stored)
    np.testing.assert_allclose(dense(stored), textbook(x, 3, k2), atol=1e-6)
    apart = dense(stored)[:9, :9][~np.eye(9, dtype=bool)]
    assert (apart == 0).all() if k2 > 1 else set(dense(stored)[8, :8]) == {1.0}


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


def test_blocks_do_not_show(monkeypatch):
    x = people(60, 8)
    want = jaccard_distance(x, 8, 3)
    monkeypatch.setattr(jaccard, "_ROWS", 7)
    got = jaccard_distance(x, 8, 3)
    np.testing.assert_array_equal(got.indptr, want.indptr)
    np.testing.assert_array_equal(got.indices, want.indices)
    np.testing.assert_array_equal(got.data, want.data)


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
def test_small_sets(n, width, k1, k2, mode, tied, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(-1, 2, (n, width)) if tied else rng.normal(size=(n, width))
    x[~x.any(1), 0] = 1
    x = unit(x)
    stored = jaccard_distance(x, k1, k2, mode=mode)
    check_form(stored)
    np.testing.assert_allclose(dense(stored), textbook(x, k1, k2, mode), atol=1e-6)


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
    x[4] = 0
    with pytest.raises(ValueError, match="1 row is not: 4"):
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
