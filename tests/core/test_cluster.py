"""DBSCAN, the data-dependent eps, adaptation to few tracklets, and association as a whole."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.cluster import DBSCAN
from sklearn.metrics import adjusted_rand_score

from tracklearn.core.cluster import EPS_LIMIT, adapt, agreement, associate, data_dependent_eps, dbscan
from tracklearn.core.jaccard import jaccard_distance


def unit(x):
    x = np.asarray(x, np.float64)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def people(n, n_people, width=64, spread=0.6, seed=0):
    rng = np.random.default_rng(seed)
    pid = rng.integers(0, n_people, n)
    return unit(rng.normal(size=(n_people, width))[pid] + spread * rng.normal(size=(n, width))), pid


def stored(matrix, limit=1.0):
    """The entries of a dense matrix below `limit`, zeros included."""
    matrix = np.asarray(matrix, np.float32)
    row, col = np.nonzero(matrix < limit)
    start = np.r_[0, np.cumsum(np.bincount(row, minlength=len(matrix)))]
    return sparse.csr_array((matrix[row, col], col, start), shape=matrix.shape)


def random_distances(n, seed, levels=None):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.integers(0, levels, (n, n)) / levels if levels else rng.random((n, n)), 1)
    return (upper + upper.T).astype(np.float32)


class TestDbscan:
    @pytest.mark.parametrize("min_samples", [1, 2, 3, 5])
    @pytest.mark.parametrize("eps", [0.02, 0.05, 0.1, 0.3])
    def test_labels_are_scikit_learns(self, eps, min_samples):
        for seed in range(5):
            sparse_ = stored(random_distances(60, seed))
            want = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit(sparse_).labels_
            got = dbscan(sparse_, eps, min_samples)
            np.testing.assert_array_equal(got, want)
            assert got.dtype == np.int64

    @settings(max_examples=80, deadline=None)
    @given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 9), st.integers(0, 2**32 - 1))
    def test_small_tied_sets(self, n, min_samples, tenths, seed):
        sparse_ = stored(random_distances(n, seed, levels=10))
        want = DBSCAN(eps=tenths / 10, min_samples=min_samples, metric="precomputed").fit(sparse_).labels_
        np.testing.assert_array_equal(dbscan(sparse_, tenths / 10, min_samples), want)

    def test_on_jaccard_distances(self):
        x, _ = people(200, 20, spread=1.2)
        for eps in (0.3, 0.5, 0.7, 0.9):
            distance = jaccard_distance(x, 10, 3)
            want = DBSCAN(eps=eps, min_samples=4, metric="precomputed").fit(distance).labels_
            np.testing.assert_array_equal(dbscan(distance, eps, 4), want)

    def test_border_point_goes_to_the_first_cluster(self):
        # 2 and 4 are the cores of two clusters; 3 is within eps of both and no core itself.
        d = np.ones((7, 7))
        for i, j in ((0, 1), (0, 2), (1, 2), (4, 5), (4, 6), (5, 6), (2, 3), (3, 4)):
            d[i, j] = d[j, i] = 0.1
        np.fill_diagonal(d, 0)
        assert dbscan(stored(d), 0.1, 4).tolist() == [0, 0, 0, 0, 1, 1, 1]
        turned = dbscan(stored(d[::-1, ::-1]), 0.1, 4)
        assert turned.tolist() == [0, 0, 0, 0, 1, 1, 1]

    def test_eps_is_included(self):
        d = stored([[0, 0.5], [0.5, 0]])
        assert dbscan(d, 0.5, 2).tolist() == [0, 0]
        assert dbscan(d, 0.499, 2).tolist() == [-1, -1]

    def test_diagonal_counts_whether_stored_or_not(self):
        d = sparse.csr_array(np.array([[0, 0.2], [0.2, 0]], np.float32))
        assert d.nnz == 2
        assert dbscan(d, 0.3, 2).tolist() == [0, 0]
        assert dbscan(d, 0.3, 3).tolist() == [-1, -1]

    def test_nothing_and_alone(self):
        assert dbscan(sparse.csr_array((0, 0)), 0.5, 1).shape == (0,)
        assert dbscan(sparse.csr_array((3, 3)), 0.5, 1).tolist() == [0, 1, 2]
        assert dbscan(sparse.csr_array((3, 3)), 0.5, 2).tolist() == [-1, -1, -1]

    def test_refusals_and_input_unchanged(self):
        d = stored([[0, 0.5], [0.5, 0]])
        kept = d.copy()
        dbscan(d, 0.1, 2)
        np.testing.assert_array_equal(d.data, kept.data)
        with pytest.raises(ValueError, match="square sparse"):
            dbscan(np.zeros((2, 2)), 0.5, 2)
        with pytest.raises(ValueError, match="square sparse"):
            dbscan(sparse.csr_array((2, 3)), 0.5, 2)
        with pytest.raises(ValueError, match="eps is -1"):
            dbscan(d, -1, 2)
        with pytest.raises(ValueError, match="eps is nan"):
            dbscan(d, float("nan"), 2)
        with pytest.raises(ValueError, match="min_samples is 0"):
            dbscan(d, 0.5, 0)
        for bad in (-0.5, np.nan):
            with pytest.raises(ValueError, match="negative entries or NaN"):
                dbscan(sparse.csr_array(np.array([[0, bad], [bad, 0]])), 0.5, 2)


class TestDataDependentEps:
    def dense(self, matrix, rho):
        """As the MMT code does it: upper triangle, zeros dropped, sorted, mean of the first share."""
        values = matrix[np.triu_indices(len(matrix), 1)].astype(np.float64)
        values = np.sort(values[values != 0])
        return values[: max(1, round(rho * len(values)))].mean()

    @pytest.mark.parametrize("rho", [1e-4, 1.6e-3, 0.05, 0.4, 1.0])
    def test_same_as_dense_with_missing_ones(self, rho):
        for seed in range(3):
            d = random_distances(40, seed, levels=30)
            d[d > 0.6] = 1
            np.fill_diagonal(d, 0)
            assert data_dependent_eps(stored(d), 40, rho) == pytest.approx(self.dense(d, rho), rel=1e-12)

    def test_distances_above_one(self):
        d = random_distances(20, 3) * 2
        assert data_dependent_eps(stored(d, limit=9), 20, 0.9) == pytest.approx(self.dense(d, 0.9))

    def test_hand_toy(self):
        d = np.ones((4, 4))
        np.fill_diagonal(d, 0)
        for i, j, value in ((0, 1, 0), (0, 2, 0.2), (1, 2, 0.4)):
            d[i, j] = d[j, i] = value
        # 6 pairs, one at zero; 5 left: 0.2, 0.4, 1, 1, 1
        assert data_dependent_eps(stored(d), 4, 0.4) == pytest.approx(0.3)
        assert data_dependent_eps(stored(d), 4, 0.6) == pytest.approx(1.6 / 3)
        assert data_dependent_eps(stored(d), 4, 1e-3) == pytest.approx(0.2)

    def test_degenerate(self):
        assert data_dependent_eps(sparse.csr_array((0, 0)), 0, 0.1) == 0
        assert data_dependent_eps(sparse.csr_array((1, 1)), 1, 0.1) == 0
        assert data_dependent_eps(sparse.csr_array((2, 2)), 2, 0.1) == 1
        assert data_dependent_eps(stored(np.zeros((3, 3))), 3, 0.1) == 0

    def test_refusals(self):
        with pytest.raises(ValueError, match=r"shape \(2, 2\), expected \(3, 3\)"):
            data_dependent_eps(sparse.csr_array((2, 2)), 3, 0.1)
        for rho in (0, 1.1):
            with pytest.raises(ValueError, match="rho is"):
                data_dependent_eps(sparse.csr_array((2, 2)), 2, rho)


class TestAgreement:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(2, 20), st.integers(1, 5), st.integers(0, 2**32 - 1))
    def test_same_as_scikit_learn(self, n, k, seed):
        rng = np.random.default_rng(seed)
        a, b = rng.integers(-1, k, n), rng.integers(-1, k, n)
        both = (a >= 0) & (b >= 0)
        if both.sum() < 2:
            assert np.isnan(agreement(a, b))
        else:
            assert agreement(a, b) == pytest.approx(adjusted_rand_score(a[both], b[both]), abs=1e-12)
            assert agreement(a, b) == agreement(b, a)

    def test_degenerate(self):
        assert agreement(np.zeros(4, int), np.ones(4, int)) == 1
        assert agreement(np.arange(4), np.arange(4)[::-1]) == 1
        assert np.isnan(agreement(np.full(4, -1), np.zeros(4, int)))
        assert np.isnan(agreement(np.zeros(0, int), np.zeros(0, int)))
        with pytest.raises(ValueError, match=r"label_a has shape \(2,\), label_b \(3,\)"):
            agreement(np.zeros(2, int), np.zeros(3, int))


class TestAdapt:
    def test_large_sets_keep_the_published_values(self):
        for n in (3000, 8298, 100_000):
            kept = adapt(n)
            assert (kept.k1, kept.k2, kept.min_samples, kept.rho, kept.warnings) == (30, 6, 4, 1.6e-3, ())

    @pytest.mark.parametrize("n", [60, 100, 178, 300])
    def test_small_sets(self, n):
        fit = adapt(n)
        assert 2 <= fit.k1 <= n / 10
        assert fit.k2 < fit.k1
        assert fit.min_samples == 2
        assert fit.rho * n * (n - 1) / 2 >= 30
        assert [w.split()[0] for w in fit.warnings] == ["k1", "k2", "min_samples", "rho"]
        assert all(str(n) in w for w in fit.warnings)

    def test_never_grows_k_and_never_falls_with_n(self):
        fits = [adapt(n) for n in range(2000)]
        assert all(1 <= f.k1 <= 30 and 1 <= f.k2 <= 6 and 0 < f.rho <= 0.2 for f in fits)
        assert all(a.k1 <= b.k1 and a.rho >= b.rho for a, b in pairwise(fits[2:]))
        asked = adapt(100, k1=3, k2=1, min_samples=1, rho=0.5)
        assert (asked.k1, asked.k2, asked.min_samples, asked.rho, asked.warnings) == (3, 1, 1, 0.5, ())

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            ({"k1": 0}, "k1 is 0"),
            ({"k2": -1}, "k2 is -1"),
            ({"min_samples": 0}, "min_samples"),
            ({"rho": 0}, "rho"),
        ],
    )
    def test_refusals(self, bad, message):
        with pytest.raises(ValueError, match=message):
            adapt(100, **bad)
        with pytest.raises(ValueError, match="n is -1"):
            adapt(-1)


class TestAssociate:
    def test_finds_people(self):
        x, pid = people(120, 15, spread=0.5)
        found = associate(x)
        assert found.usable
        assert found.diagnosis == ()
        assert found.n_clusters >= 12
        assert found.noise_fraction < 0.3
        pairs = [(a, b) for a in range(120) for b in range(a) if found.label[a] == found.label[b] >= 0]
        assert np.mean([pid[a] == pid[b] for a, b in pairs]) > 0.95
        assert found.largest_cluster == np.bincount(found.label[found.label >= 0]).max()
        assert found.adapted.k1 == adapt(120).k1

    def test_frozen_eps_and_settings_as_given(self):
        x, _ = people(120, 15, spread=0.5)
        found = associate(x, k1=8, k2=2, min_samples=3, eps=0.4, fit_to_size=False)
        assert found.eps == 0.4
        assert found.adapted.warnings == ()
        np.testing.assert_array_equal(found.label, dbscan(jaccard_distance(x, 8, 2), 0.4, 3))

    @pytest.mark.parametrize("spread", [0.3, 0.8, 1.5])
    @pytest.mark.parametrize("rho", [1e-3, 0.05, 0.6])
    def test_leaving_out_far_pairs_does_not_show(self, rho, spread):
        x, _ = people(120, 15, spread=spread)
        full = jaccard_distance(x, 8, 3)
        eps = data_dependent_eps(full, 120, rho)
        found = associate(x, k1=8, k2=3, rho=rho, min_samples=2, fit_to_size=False)
        if not found.diagnosis:
            assert found.eps == eps
            np.testing.assert_array_equal(found.label, dbscan(full, eps, 2))
        for eps in (0.95, 0.98, 1.0):
            found = associate(x, k1=8, k2=3, eps=eps, min_samples=2, fit_to_size=False)
            if not found.diagnosis:
                np.testing.assert_array_equal(found.label, dbscan(full, eps, 2))

    def test_same_labels_twice(self):
        x, _ = people(120, 15, spread=0.8)
        np.testing.assert_array_equal(associate(x).label, associate(x).label)

    @pytest.mark.parametrize("n", range(8))
    def test_few_tracklets_never_crash(self, n):
        found = associate(unit(np.random.default_rng(n).normal(size=(n, 8))))
        assert found.label.shape == (n,)
        assert found.usable == (found.n_clusters >= 2)
        assert found.usable or found.diagnosis

    def test_zero_clusters_widens_up_to_the_limit(self):
        x, _ = people(100, 25, spread=0.5)
        found = associate(x, eps=0.02, min_samples=4, fit_to_size=False, k1=5, k2=2)
        assert 0.02 <= found.eps <= 0.04 + 1e-12
        assert "eps 0.020 with min_samples 4 gave 0 clusters" in found.diagnosis[0]
        wide = associate(x, eps=0.3, min_samples=50, fit_to_size=False, k1=5, k2=2)
        assert wide.usable
        assert "min_samples 2 gave" in wide.diagnosis[1]

    def test_no_clusters_to_be_had(self):
        found = associate(np.eye(40, dtype=np.float32), eps=1e-6)
        assert not found.usable or found.eps <= EPS_LIMIT
        assert found.diagnosis

    def test_one_giant_cluster_narrows(self):
        x, _ = people(100, 10, spread=0.4)
        found = associate(x, eps=0.999, k1=90, k2=1, fit_to_size=False)
        assert "gave one cluster of 100 of 100 tracklets" in found.diagnosis[0]
        assert found.usable
        assert found.eps < found.start_eps == 0.999

    @pytest.fixture
    def five_alike_three_loose(self):
        """k1 = 4: distances 0 among five identical rows, about 0.3 among three loose ones, 1 between."""
        loose = unit(np.eye(5)[[1, 1, 1]] + 0.577 * np.eye(5)[2:])
        return np.vstack([np.tile(np.eye(5, dtype=np.float32)[:1], (5, 1)), loose])

    def test_a_giant_that_narrowing_cannot_split_is_helped_by_widening(self, five_alike_three_loose):
        found = associate(five_alike_three_loose, k1=4, k2=1, min_samples=2, eps=0.2, fit_to_size=False)
        assert found.diagnosis[0] == "eps 0.200 with min_samples 2 gave one cluster of 5 of 8 tracklets"
        assert found.label.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
        assert found.start_eps == 0.2
        assert 0.3 < found.eps < 0.35

    def test_a_giant_beside_another_is_reported_but_used(self, five_alike_three_loose):
        found = associate(five_alike_three_loose, k1=4, k2=1, min_samples=2, eps=0.4, fit_to_size=False)
        assert found.usable
        assert found.eps == found.start_eps == 0.4
        (line,) = found.diagnosis
        assert line.startswith("the largest of 2 clusters holds 5 of 8 tracklets")

    def test_eps_from_the_data_is_capped(self):
        x = unit(np.random.default_rng(0).normal(size=(60, 64)))
        found = associate(x, k1=2, k2=1, rho=0.9, fit_to_size=False)
        assert found.start_eps == EPS_LIMIT
        assert found.eps <= EPS_LIMIT
        assert "taken as 0.95" in found.diagnosis[0]
        assert associate(x, k1=2, k2=1, eps=0.99, fit_to_size=False).start_eps == 0.99

    def test_a_collapsed_model_is_named(self):
        found = associate(np.tile(unit([[1, 2, 3]]), (50, 1)))
        assert not found.usable
        assert found.n_clusters == 1
        assert "do not tell people apart" in found.diagnosis[-1]

    def test_refusals(self):
        x = np.eye(5, dtype=np.float32)
        for eps in (-0.1, 1.5, float("nan")):
            with pytest.raises(ValueError, match="eps is"):
                associate(x, eps=eps)
        with pytest.raises(ValueError, match="k1 is 0"):
            associate(x, k1=0)
        with pytest.raises(ValueError, match="unit length"):
            associate(2 * x)
