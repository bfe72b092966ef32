"""k_nearest and the checks on features, against a float64 sort of everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from tracklearn.core import neighbors
from tracklearn.core.features import check_unit, unit_rows
from tracklearn.core.neighbors import k_nearest, k_nearest_of


def unit(x):
    x = np.asarray(x, np.float64)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def slow(query, gallery, k, exclude_self=False):
    """Every distance in float64, one pair at a time, sorted by (distance, row)."""
    index, squared = [], []
    for i, x in enumerate(query.astype(np.float64)):
        d = np.array([2 - 2 * float(np.sum(x * y)) for y in gallery.astype(np.float64)])
        d = np.rint(d * 2**40) / 2**40
        rows = [j for j in np.lexsort((np.arange(len(d)), d)) if not (exclude_self and i == j)][:k]
        index.append(rows)
        squared.append(np.maximum(d[rows], 0))
    return np.array(index, np.int64), np.array(squared, np.float32)


@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize(
    ("n", "width", "k"), [(1, 4, 1), (2, 3, 2), (40, 2, 7), (120, 64, 31), (60, 300, 99)]
)
def test_same_as_sorting_everything(n, width, k, exclude_self):
    x = unit(np.random.default_rng(n).normal(size=(n, width)))
    k_kept = min(k, n - exclude_self)
    index, squared = k_nearest(x, k, exclude_self=exclude_self)
    assert index.shape == squared.shape == (n, k_kept)
    assert index.dtype == np.int64
    assert squared.dtype == np.float32
    if k_kept:
        want, far = slow(x, x, k_kept, exclude_self)
        np.testing.assert_array_equal(index, want)
        np.testing.assert_allclose(squared, far, atol=1e-7)


def test_hand_toy():
    x = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], np.float32)
    index, squared = k_nearest(x, 2, exclude_self=True)
    np.testing.assert_array_equal(index, [[2, 1], [2, 0], [1, 0], [1, 2]])
    np.testing.assert_allclose(squared, [[0.8, 2], [0.4, 2], [0.4, 0.8], [2, 3.2]], atol=1e-6)


def test_ties_go_to_the_lower_row():
    x = np.repeat(np.eye(3, 8, dtype=np.float32), 5, axis=0)
    index, _ = k_nearest(x, 7)
    for i in range(15):
        own = 5 * (i // 5)
        rest = [j for j in range(15) if j // 5 != i // 5]
        assert index[i].tolist() == [*range(own, own + 5), *rest[:2]]


def test_float32_products_do_not_decide():
    """Neighbours that differ by far less than float32 rounding still come in the right order."""
    rng = np.random.default_rng(1)
    base = rng.normal(size=2048)
    x = unit(base + 1e-5 * rng.normal(size=(50, 2048)))
    np.testing.assert_array_equal(k_nearest(x, 10)[0], slow(x, x, 10)[0])


def test_blocks_do_not_show(monkeypatch):
    x = unit(np.random.default_rng(2).normal(size=(70, 8)))
    want = k_nearest(x, 9, exclude_self=True)
    monkeypatch.setattr(neighbors, "_CELLS", 200)
    got = k_nearest(x, 9, exclude_self=True)
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1], want[1])


def test_number_of_threads_does_not_show():
    x = unit(np.random.default_rng(6).normal(size=(300, 256)))
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(k_nearest(x, 20))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_of_a_gallery():
    rng = np.random.default_rng(3)
    query, gallery = unit(rng.normal(size=(9, 16))), unit(rng.normal(size=(30, 16)))
    index, squared = k_nearest_of(query, gallery, 4)
    want, far = slow(query, gallery, 4)
    np.testing.assert_array_equal(index, want)
    np.testing.assert_allclose(squared, far, atol=1e-7)
    assert k_nearest_of(query, gallery[:2], 4)[0].shape == (9, 2)
    assert k_nearest_of(query[:0], gallery, 4)[0].shape == (0, 4)
    assert k_nearest_of(query, gallery[:0], 4)[0].shape == (9, 0)


def test_nothing_in_nothing_out():
    index, squared = k_nearest(np.zeros((0, 8), np.float32), 3)
    assert index.shape == squared.shape == (0, 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 14), st.booleans(), st.integers(0, 2**32 - 1))
def test_small_sets_full_of_ties(n, width, k, exclude_self, seed):
    """Rows from {−1, 0, 1}: duplicates, opposites, right angles."""
    x = np.random.default_rng(seed).integers(-1, 2, (n, width))
    x[~x.any(1), 0] = 1
    x = unit(x)
    kept = min(k, n - exclude_self)
    index, squared = k_nearest(x, k, exclude_self=exclude_self)
    if kept:
        want, far = slow(x, x, kept, exclude_self)
        np.testing.assert_array_equal(index, want)
        np.testing.assert_allclose(squared, far, atol=1e-7)


def test_input_is_not_modified_and_any_layout_will_do():
    x = unit(np.random.default_rng(4).normal(size=(20, 6)))
    kept = x.copy()
    want = k_nearest(x, 3)[0]
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(k_nearest(np.asfortranarray(x), 3)[0], want)
    x.flags.writeable = False
    np.testing.assert_array_equal(k_nearest(x, 3)[0], want)
    np.testing.assert_array_equal(k_nearest(x.astype(np.float64), 3)[0], want)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.__setitem__((3, 0), np.nan), r"finite.*1 row is not: 3"),
        (lambda x: x.__setitem__((slice(0, 7), 1), np.inf), r"7 rows are not: 0, 1, 2, 3, 4, \.\.\."),
        (lambda x: x.__setitem__(2, 0), r"direction.*: 2 \(all zeros\)"),
        (lambda x: x.__imul__(3), r"unit length.*row 0 has length 3"),
    ],
)
def test_bad_rows_are_named(change, message):
    x = unit(np.random.default_rng(5).normal(size=(10, 4)))
    change(x)
    with pytest.raises(ValueError, match=message):
        k_nearest(x, 2)


def test_other_refusals():
    x = np.eye(3, dtype=np.float32)
    with pytest.raises(ValueError, match="k is 0"):
        k_nearest(x, 0)
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        k_nearest(x[0], 1)
    with pytest.raises(ValueError, match="dtype bool"):
        check_unit(x > 0)
    with pytest.raises(ValueError, match="query has width 3 and gallery 4"):
        k_nearest_of(x, np.eye(4), 1)
    with pytest.raises(ValueError, match="gallery must be finite"):
        k_nearest_of(x, x * np.nan, 1)


def test_unit_rows():
    x = np.array([[3, 4], [0, -2], [1e-30, 0]])
    np.testing.assert_allclose(unit_rows(x), [[0.6, 0.8], [0, -1], [1, 0]], atol=1e-7)
    np.testing.assert_array_equal(x, [[3, 4], [0, -2], [1e-30, 0]])
    assert unit_rows(x).dtype == np.float32
    with pytest.raises(ValueError, match="zeros"):
        unit_rows(np.zeros((2, 2)))
