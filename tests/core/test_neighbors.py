"""k_nearest and the checks on features, against a float64 sort of everything."""

import math
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from tracklearn.core import coded, neighbors
from tracklearn.core.features import check_unit, unit_rows
from tracklearn.core.kernels import coded as kernels
from tracklearn.core.kernels import products
from tracklearn.core.neighbors import k_nearest, k_nearest_and_farthest, k_nearest_of
from tracklearn.core.threads import limit


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


def fast(x, k, exclude_self=False):
    """The same from one float64 matrix product."""
    d = np.rint((2 - 2 * x.astype(np.float64) @ x.T.astype(np.float64)) * 2**40) / 2**40
    if exclude_self:
        np.fill_diagonal(d, np.inf)
    index = np.argsort(d, axis=1, kind="stable")[:, : max(0, min(k, len(x) - exclude_self))]
    return index, np.maximum(np.take_along_axis(d, index, 1), 0).astype(np.float32)


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


@pytest.fixture
def small_tiles(monkeypatch):
    """Many tiles from few rows, and many windows."""
    monkeypatch.setattr(neighbors, "_TILE", 24)
    for name, value in (("_FEW", 0), ("WINDOW", products.COLUMNS), ("_PER_CENTRE", 10)):
        monkeypatch.setattr(coded, name, value)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("method", ["exact", "int8"])
def test_tiles_threads_and_precision_do_not_show(small_tiles, method, threads):
    rng = np.random.default_rng(6)
    for n, width, k in [(300, 96, 20), (301, 7, 31), (100, 513, 30), (24, 64, 5), (25, 64, 30)]:
        x = unit(rng.normal(size=(n, width)) + 2 * rng.normal(size=(9, width))[rng.integers(0, 9, n)])
        for exclude_self in (False, True):
            want, far = fast(x, k, exclude_self)
            with limit(threads):
                index, squared = k_nearest(x, k, exclude_self=exclude_self, method=method)
            np.testing.assert_array_equal(index, want)
            np.testing.assert_allclose(squared, far, atol=1e-7)


@pytest.mark.parametrize("method", ["exact", "int8"])
def test_rows_with_too_many_candidates_are_compared_with_all(small_tiles, method):
    """Groups of duplicates that no list of candidates holds, beside ordinary rows."""
    rng = np.random.default_rng(7)
    x = unit(np.concatenate([np.repeat(rng.normal(size=(2, 40)), 90, axis=0), rng.normal(size=(90, 40))]))
    x = x[rng.permutation(len(x))]
    for threads, exclude_self in ((1, False), (2, True)):
        with limit(threads):
            index, squared = k_nearest(x, 6, exclude_self=exclude_self, method=method)
        want, far = fast(x, 6, exclude_self)
        np.testing.assert_array_equal(index, want)
        np.testing.assert_allclose(squared, far, atol=1e-7)


@pytest.mark.parametrize("k", [1, 2])
def test_more_candidates_than_there_is_space_for_one_neighbour(k):
    """All rows tie: a row's candidates cannot be cut down, and must not run over into the next row's."""
    x = np.repeat(np.eye(2, 8, dtype=np.float32), [150, 50], axis=0)
    index, squared = k_nearest(x, k)
    np.testing.assert_array_equal(index, np.repeat([[0], [150]], [150, 50], axis=0) + np.arange(k))
    assert not squared.any()


def test_int8_with_one_number_far_larger_than_all_others(small_tiles):
    """Without the rotation such rows would have no resolution left."""
    rng = np.random.default_rng(8)
    x = unit(np.maximum(rng.normal(size=(200, 128)), 0) ** 8)
    np.testing.assert_array_equal(k_nearest(x, 10, method="int8")[0], fast(x, 10)[0])


@pytest.mark.parametrize("width", [8, 9, 48, 256])
def test_int8_errors_stay_within_their_bound(width):
    rng = np.random.default_rng(width)
    x = unit(rng.normal(size=(150, width)) ** 3)
    n, order = len(x), rng.permutation(len(x))
    rows, by_row = coded.encoded(x, order, by_row=True)
    code = rows.panel.transpose(0, 2, 1, 3).reshape(len(rows.scale), -1)[:n].astype(np.int64)
    np.testing.assert_array_equal(by_row[:, : code.shape[1]], code)
    assert not by_row[:, code.shape[1] :].any()
    scale = rows.scale[:n]
    np.testing.assert_array_equal(rows.start[:n], -128 * code.sum(1))
    got = (code @ code.T) * np.outer(scale, scale).astype(np.float64)
    error = np.abs(got - x[order].astype(np.float64) @ x[order].astype(np.float64).T)
    error[np.eye(n, dtype=bool)] = 0  # a row's errors are no chance to itself
    bound = coded.errors(scale, width)
    assert (error <= bound[:, None]).all()
    if width == 256:  # the bound is of use, and the errors are as small as rounding to 8 bits can be
        assert bound.max() < 0.04
        assert 1e-4 < error.mean() < 0.004


@pytest.mark.skipif(not products.available, reason="this processor has no instruction for 8-bit products")
def test_products_of_bytes_are_those_of_numbers():
    """Every block against whole numbers: values, and who reaches whose floor."""
    rng = np.random.default_rng(3)
    for width in (4, 8, 60, 512):
        n = 3 * products.COLUMNS
        code = rng.integers(-127, 128, (n, width))
        panel = coded._aligned((3, width // 4, products.COLUMNS, 4))
        panel[:] = code.reshape(3, products.COLUMNS, width // 4, 4).transpose(0, 2, 1, 3)
        scale = rng.uniform(0.001, 0.01, n).astype(np.float32)
        start = (-128 * code.sum(1)).astype(np.int32)
        want = (code @ code.T).astype(np.float32) * np.outer(scale, scale)
        floor = np.quantile(want, 0.9, axis=1).astype(np.float32)
        similar = np.empty((products.ROWS, n), np.float32)
        word = np.empty((products.ROWS, 3), np.uint32)
        for p in range(0, n, products.ROWS):
            for b in range(0, n, products.COLUMNS):
                kernels._compare(kernels.Rows(panel, scale, start, scale), floor, p, b, similar, word, b)
            rows = slice(p, p + products.ROWS)
            np.testing.assert_allclose(similar, want[rows], rtol=1e-6)
            bit = word[:, :, None] >> np.arange(products.COLUMNS, dtype=np.uint32) & 1
            reached = (similar >= floor[rows, None]) | (similar >= floor)
            np.testing.assert_array_equal(bit.reshape(len(word), n).astype(bool), reached)


@pytest.mark.skipif(not products.available, reason="this processor has no instruction for 8-bit products")
def test_one_product_of_bytes():
    rng = np.random.default_rng(9)
    product = njit(
        lambda x, y, start: products.product(x.ctypes.data, y.ctypes.data, len(x) // products.AT_ONCE, start)
    )
    for steps in (1, 2, 7):
        x, y = rng.integers(-127, 128, (2, steps * products.AT_ONCE)).astype(np.int8)
        got = product(x, y, np.int32(-128 * x.astype(np.int64).sum()))
        assert got == x.astype(np.int64) @ y.astype(np.int64)


@pytest.mark.parametrize("size", [1, 2, 8, 64, 512, 2048])
def test_the_rotation_keeps_products(size):
    rng = np.random.default_rng(size)
    x, y = rng.normal(size=(2, size)).astype(np.float32)
    turned = np.empty((2, size), np.float32)
    for row, out in zip((x.copy(), y.copy()), turned, strict=True):
        kernels._transform(row, out)
    np.testing.assert_allclose(turned[0] @ turned[1] / size, x @ y, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        np.abs(turned[0]).max(), np.abs(scipy.linalg.hadamard(size) @ x).max(), rtol=1e-4
    )


def like_a_network(rng, n, width):
    """Rows that spread along few directions."""
    spread = 0.5 ** np.arange(width)
    return unit(
        (rng.normal(size=(n // 5, width)) * spread)[rng.integers(0, n // 5, n)]
        + 0.1 * spread * rng.normal(size=(n, width))
    )


@pytest.fixture
def led(monkeypatch, small_tiles):
    """Leading numbers wherever there are more; holds what each comparison by them was given."""
    for name, value in (("_LEADING", 8), ("_SAMPLE", 60), ("_REST", 9), ("_ALL_ALONG", 0), ("_MANY", 0)):
        monkeypatch.setattr(coded, name, value)
    calls, offer_led = [], kernels.offer_led
    monkeypatch.setattr(kernels, "offer_led", lambda *given: (calls.append(given), offer_led(*given)))
    return calls


@pytest.mark.skipif(not products.available, reason="this processor has no instruction for 8-bit products")
@pytest.mark.parametrize("left", [0.0, 0.25, 2.0])
def test_leading_numbers_do_not_show(led, monkeypatch, left):
    """Neither where they leave few pairs nor where they leave all, after which all numbers are compared."""
    monkeypatch.setattr(coded, "_LEFT", left)
    rng = np.random.default_rng(21)
    for n, width, k in [(300, 64, 20), (301, 9, 31), (200, 513, 3)]:
        for x in (like_a_network(rng, n, width), unit(rng.normal(size=(n, width)))):
            for exclude_self in (False, True):
                want, far = fast(x, k, exclude_self)
                index, squared = k_nearest(x, k, exclude_self=exclude_self, method="int8")
                np.testing.assert_array_equal(index, want)
                np.testing.assert_allclose(squared, far, atol=1e-7)
    assert led


def test_products_of_leading_numbers_are_bounds(led):
    rng = np.random.default_rng(22)
    for x in (like_a_network(rng, 200, 40), unit(rng.normal(size=(200, 40)))):
        axes = coded.axes_of(x)
        np.testing.assert_allclose(axes.T @ axes, np.eye(7), atol=1e-5)
        order = np.r_[rng.permutation(200), -1]
        rows, off = coded.led_by(axes, x, order)
        code = rows.panel.transpose(0, 2, 1, 3).reshape(len(rows.scale), -1)[:200].astype(np.int64)
        got = (code @ code.T) * np.outer(rows.scale[:200], rows.scale[:200]).astype(np.float64)
        there = x[order[:200]].astype(np.float64)
        assert (got >= there @ there.T - off[:200, None])[~np.eye(200, dtype=bool)].all()


@pytest.mark.skipif(not products.available, reason="this processor has no instruction for 8-bit products")
def test_rows_too_much_alike_for_8_bits_are_compared_by_float32(monkeypatch):
    monkeypatch.setattr(coded, "_FEW", 0)
    rng = np.random.default_rng(24)
    x = unit(rng.normal(size=64) + 0.1 * rng.normal(size=(600, 64)))
    assert coded.candidates(x, 10) is None
    np.testing.assert_array_equal(k_nearest(x, 10, method="int8")[0], fast(x, 10)[0])


def test_equal_rows_tie_wherever_they_stand_in_a_list():
    """Four are settled at a time: none of a list's rest may be summed in another way."""
    rng = np.random.default_rng(25)
    for case in range(300):
        width = int(rng.integers(3, 70))
        x = unit(
            np.concatenate([np.repeat(rng.normal(size=(1, width)), 5, axis=0), rng.normal(size=(9, width))])
        )
        for way in ("exact", "select"):
            rows = k_nearest(x, 6)[0] if way == "exact" else k_nearest_of(x, x, 6)[0]
            for row in rows.tolist():
                equal = [j for j in row if j < 5]
                assert equal == sorted(equal), case


def test_leading_numbers_only_where_rows_are_many_and_lie_along_them(monkeypatch):
    rng = np.random.default_rng(23)
    few = like_a_network(rng, 300, 256)
    assert coded.axes_of(few) is None
    monkeypatch.setattr(coded, "_MANY", 0)
    assert coded.axes_of(few).shape == (256, 127)
    assert coded.axes_of(unit(rng.normal(size=(3000, 1024)))) is None
    assert coded.axes_of(few[:, :100]) is None


def test_pairs_of_windows_are_all_worked_on_and_none_by_two_at_once():
    windows, lock = 9, threading.Lock()
    pairs = np.stack(np.triu_indices(windows, 1), 1)[np.random.default_rng(5).permutation(36)]
    busy, met, done = set(), [], []

    def work(a, b):
        with lock:
            met.append(bool(busy & {a, b}))
            busy.update((a, b))
        threading.Event().wait(0.001)
        with lock:
            busy.difference_update((a, b))
            done.append((a, b))

    for n in (1, 4):
        with limit(n):
            coded.apart(pairs, work)
    assert not any(met)
    assert sorted(done) == sorted(2 * [tuple(pair) for pair in pairs.tolist()])
    with pytest.raises(ZeroDivisionError), limit(3):
        coded.apart(pairs, lambda a, b: 1 // (a - 3))


def test_a_row_on_the_border_of_panels_and_a_last_window_of_one(small_tiles):
    rng = np.random.default_rng(4)
    for n in (products.COLUMNS - 1, products.COLUMNS, products.COLUMNS + 1, 2 * products.COLUMNS + 1):
        x = unit(rng.normal(size=(n, 12)))
        for k, exclude_self in ((1, True), (n, False), (n - 1, True)):
            want, far = fast(x, k, exclude_self)
            index, squared = k_nearest(x, k, exclude_self=exclude_self, method="int8")
            np.testing.assert_array_equal(index, want)
            np.testing.assert_allclose(squared, far, atol=1e-7)


FEATURES = "+avx2,+avx,+fma,+sse4.2,+ssse3,+popcnt,+bmi,+bmi2,+lzcnt,+f16c"


@pytest.mark.long
@pytest.mark.parametrize(("more", "lanes"), [("", 0), (",+avxvnni", 8)])
def test_int8_for_processors_with_less(more, lanes):
    """numba compiles for another processor than this one: without the instruction, and with half of it."""
    import llvmlite.binding

    if more and not llvmlite.binding.get_host_cpu_features().get("avxvnni"):
        pytest.skip("this processor has no AVX-VNNI")
    code = f"""
import numpy as np
from tracklearn.core import coded
from tracklearn.core.kernels import products
from tracklearn.core.neighbors import k_nearest
assert products._lanes() == {lanes} and products.available == {lanes > 0}
coded._FEW, coded.WINDOW = 0, products.COLUMNS
rng = np.random.default_rng(0)
x = np.sign(rng.normal(size=(20, 33)))[rng.integers(0, 20, 300)] + 0.1 * rng.normal(size=(300, 33))
x /= np.linalg.norm(x, axis=1, keepdims=True)
np.testing.assert_array_equal(k_nearest(x, 10, method="int8")[0], k_nearest(x, 10)[0])
"""
    environment = {**os.environ, "NUMBA_CPU_NAME": "alderlake", "NUMBA_CPU_FEATURES": FEATURES + more}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.parametrize("method", ["exact", "int8"])
def test_farthest(method, small_tiles):
    rng = np.random.default_rng(9)
    for n, width in ((130, 12), (257, 64), (300, 33)):
        for x in (unit(rng.normal(size=(n, width))), like_a_network(rng, n, width)):
            index, squared, far = k_nearest_and_farthest(x, 4, method=method)
            np.testing.assert_array_equal(index, k_nearest(x, 4)[0])
            np.testing.assert_array_equal(squared, k_nearest(x, 4)[1])
            distance = 2 - 2 * x.astype(np.float64) @ x.T.astype(np.float64)
            np.testing.assert_allclose(far, distance.max(1), atol=1e-6)


@pytest.mark.parametrize("method", ["exact", "int8"])
def test_farthest_of_rows_that_are_alike(method, small_tiles):
    """The same rows; all but one the same, whose opposite is then far from many at one distance."""
    x = np.repeat(unit(np.arange(1, 13)[None]), 200, 0)
    np.testing.assert_array_equal(k_nearest_and_farthest(x, 2, method=method)[2], np.ones(200))
    x[7] = unit(np.arange(12, 0, -1)[None])
    distance = 2 - 2 * x.astype(np.float64) @ x.T.astype(np.float64)
    np.testing.assert_allclose(k_nearest_and_farthest(x, 2, method=method)[2], distance.max(1), atol=1e-6)
    np.testing.assert_array_equal(k_nearest_and_farthest(np.ones((3, 1)), 1, method=method)[2], [1, 1, 1])
    with pytest.raises(ValueError, match='method is "ann", expected exact or int8'):
        k_nearest_and_farthest(x, 2, method="ann")


@pytest.mark.parametrize("method", ["exact", "int8"])
def test_farthest_of_opposites_and_of_uneven_lengths(method, small_tiles):
    """Lengths are 1 to within 1e-3: opposite rows can be further apart than 4, a row from itself than 0."""
    rng = np.random.default_rng(30)
    x = unit(rng.normal(size=(300, 24)))
    x[1::2] = -x[::2]
    for length in (1.0009, 0.9992, rng.uniform(0.9991, 1.0009, (300, 1))):
        rows = (x * length).astype(np.float32)
        distance = 2 - 2 * rows.astype(np.float64) @ rows.T.astype(np.float64)
        far = k_nearest_and_farthest(rows, 3, method=method)[2]
        np.testing.assert_allclose(far, distance.max(1), atol=2e-6)


def test_farthest_by_all_rows_where_lists_are_too_short(small_tiles, monkeypatch):
    """Two heaps of rows that are alike, of which each is the farthest of the other."""
    x = np.repeat(unit([[1, 1, 0, 0, 0, 0, 0, 0], [-1, 0, 1, 0, 0, 0, 0, 0]]), 150, 0)
    x = unit(x + 1e-4 * np.random.default_rng(31).normal(size=x.shape))
    monkeypatch.setattr(coded, "ALIKE", 2.0)
    looked = []
    least = neighbors._least
    monkeypatch.setattr(
        neighbors, "_least", lambda rows, found: (looked.append(found), least(rows, found))[1]
    )
    far = k_nearest_and_farthest(x, 2, method="int8")[2]
    if looked:  # else this processor compares by float32
        assert (looked[0].proposed[1] < 0).sum() > 100
    np.testing.assert_allclose(far, (2 - 2 * x.astype(np.float64) @ x.T.astype(np.float64)).max(1), atol=1e-6)


def test_farthest_over_tiles(small_tiles):
    x = unit(np.random.default_rng(9).normal(size=(130, 12)))
    distance = 2 - 2 * x.astype(np.float64) @ x.T.astype(np.float64)
    np.testing.assert_allclose(k_nearest_and_farthest(x, 4)[2], distance.max(1), atol=1e-6)


@pytest.mark.parametrize("exclude_self", [False, True])
def test_approximate_neighbours(monkeypatch, exclude_self):
    rng = np.random.default_rng(10)
    group = rng.integers(0, 60, 3000)
    x = unit(rng.normal(size=(60, 64))[group] + 0.5 * rng.normal(size=(3000, 64)))
    want = fast(x, 12, exclude_self)
    np.testing.assert_array_equal(k_nearest(x, 12, exclude_self=exclude_self, method="ann")[0], want[0])
    monkeypatch.setattr(neighbors, "_MANY", 0)
    index, squared = k_nearest(x, 12, exclude_self=exclude_self, method="ann")
    again, _ = k_nearest(x, 12, exclude_self=exclude_self, method="ann")
    np.testing.assert_array_equal(index, again)
    found = np.mean([len(np.intersect1d(a, b)) for a, b in zip(index, want[0], strict=True)]) / 12
    assert found > 0.98
    d = 2 - 2 * np.einsum("ij,ikj->ik", x, x[index], dtype=np.float64)
    np.testing.assert_allclose(squared, np.maximum(d, 0), atol=1e-6)
    assert (np.diff(squared, axis=1) >= 0).all()
    assert all(len(np.unique(row)) == 12 for row in index)
    assert (index == np.arange(3000)[:, None]).any() != exclude_self


def test_approximate_neighbours_of_few_rows(monkeypatch):
    monkeypatch.setattr(neighbors, "_MANY", 0)
    x = unit(np.random.default_rng(11).normal(size=(45, 6)))
    for n, k in [(1, 1), (2, 5), (40, 7), (45, 44)]:
        np.testing.assert_array_equal(k_nearest(x[:n], k, method="ann")[0], fast(x[:n], k)[0])


def test_approximate_neighbours_without_the_library(monkeypatch):
    monkeypatch.setattr(neighbors, "_MANY", 0)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"tracklearn\[ann\]"):
        k_nearest(np.eye(3), 2, method="ann")


@pytest.mark.parametrize("cases", [700, pytest.param(10_000, marks=pytest.mark.long)])
def test_small_sets(monkeypatch, cases):
    """Tiles of any size, leading numbers or not, both precisions, one thread and two; the farthest row too.

    Ties, duplicates, near-duplicates, spectra that fall, uneven lengths: against all distances in float64.
    """
    rng = np.random.default_rng(cases)
    for name, value in (("_SAMPLE", 60), ("_REST", 9), ("_ALL_ALONG", 0)):
        monkeypatch.setattr(coded, name, value)
    for case in range(cases):
        n, width, k = int(rng.integers(1, 50)), int(rng.integers(1, 20)), int(rng.integers(1, 40))
        x = rng.normal(size=(n, width)) if case % 2 else rng.integers(-1, 2, (n, width)).astype(float)
        if case % 3 == 0:
            x = x[rng.integers(0, n, n)] + (1e-7 * rng.normal(size=(n, width)) if case % 6 else 0)
        if case % 4 == 1:
            x = x * rng.choice([0.9, 0.5, 0.1]) ** np.arange(width)
        x[~x.any(1), 0] = 1
        x = unit(x)
        if case % 8 == 3:
            x = (x * rng.uniform(0.9991, 1.0009, (n, 1))).astype(np.float32)
        exclude_self = bool(case % 5 == 0)
        want, far = fast(x, k, exclude_self)
        monkeypatch.setattr(neighbors, "_TILE", int(rng.integers(3, 30)))
        monkeypatch.setattr(coded, "_FEW", 0)
        monkeypatch.setattr(coded, "WINDOW", products.COLUMNS * int(rng.integers(1, 3)))
        monkeypatch.setattr(coded, "_MANY", 0 if case % 7 < 4 else math.inf)
        monkeypatch.setattr(coded, "_LEADING", int(rng.integers(2, 8)))
        monkeypatch.setattr(coded, "_LEFT", float(rng.choice([0.05, 0.5])))
        method = ("exact", "int8")[case // 2 % 2]
        with limit(1 + case % 2):
            index, squared = k_nearest(x, k, exclude_self=exclude_self, method=method)
            farthest = k_nearest_and_farthest(x, k, method=method)[2]
        np.testing.assert_array_equal(index, want, err_msg=f"case {case}")
        np.testing.assert_allclose(squared, far, atol=1e-7, err_msg=f"case {case}")
        least = (x.astype(np.float64) @ x.T.astype(np.float64)).min(1)
        wanted = np.where(2 - 2 * least > 1e-6, 2 - 2 * least, 1)
        unsure = abs(2 - 2 * least - 1e-6) < 2e-6  # whether they are all the same row
        np.testing.assert_allclose(farthest[~unsure], wanted[~unsure], atol=2e-6, err_msg=f"case {case}")


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
@given(
    n=st.integers(1, 12),
    width=st.integers(1, 4) | st.integers(8, 12),
    k=st.integers(1, 14),
    exclude_self=st.booleans(),
    method=st.sampled_from(["exact", "int8"]),
    scale=st.sampled_from([1.0, 0.5, 1e-3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_small_sets_full_of_ties(n, width, k, exclude_self, method, scale, seed):
    """Rows from {−1, 0, 1}, each number smaller than the one before: duplicates, opposites, right angles."""
    x = np.random.default_rng(seed).integers(-1, 2, (n, width)) * scale ** np.arange(width)
    x[~x.any(1), 0] = 1
    x = unit(x)
    kept = min(k, n - exclude_self)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coded, "_FEW", 0)
        index, squared = k_nearest(x, k, exclude_self=exclude_self, method=method)
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


def test_equal_rows_do_not_make_an_approximate_search_whole(monkeypatch):
    """Of a thousand equal rows any twenty are the nearest; the cells that hold people are few."""
    pytest.importorskip("faiss")
    monkeypatch.setattr(neighbors, "_MANY", 0)
    rng = np.random.default_rng(12)
    x = unit(rng.normal(size=(400, 32))[rng.integers(0, 400, 16000)] + 0.1 * rng.normal(size=(16000, 32)))
    x[::16] = x[0]
    asked = []
    probes = neighbors._probes
    monkeypatch.setattr(neighbors, "_probes", lambda *given: asked.append(probes(*given)) or asked[-1])
    k_nearest(x, 20, method="ann")
    assert asked[0] < 64
