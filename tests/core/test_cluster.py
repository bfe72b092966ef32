"""DBSCAN, the data-dependent eps, adaptation to few tracklets, and association as a whole."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.cluster import DBSCAN
from sklearn.metrics import adjusted_rand_score

from tracklearn.core import cluster, neighbors
from tracklearn.core.cluster import EPS_LIMIT, adapt, associate, data_dependent_eps, dbscan
from tracklearn.core.jaccard import encoding_distance, jaccard_distance
from tracklearn.core.labels import agreement, select_clusters


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

    @pytest.mark.parametrize("eps", [0.15, 0.25, 0.4, 0.7])
    def test_a_chain_and_labels_beyond_small_sets(self, eps):
        """Clusters that are joined late, by their highest rows, keep the number of their lowest core."""
        rng = np.random.default_rng(5)
        place = rng.permutation(np.r_[np.arange(0, 30, 0.1), rng.uniform(40, 90, 150)])
        d = abs(place[:, None] - place)
        want = DBSCAN(eps=eps, min_samples=4, metric="precomputed").fit(d).labels_
        np.testing.assert_array_equal(dbscan(sparse.csr_array(np.where(d <= 1, d, 0)), eps, 4), want)
        assert want.max() > 1

    def test_other_forms_of_matrix(self):
        d = stored(random_distances(50, 4))
        want = dbscan(d, 0.1, 3)
        assert want.max() >= 0
        backwards = d.copy()
        for i in range(50):
            part = slice(d.indptr[i], d.indptr[i + 1])
            backwards.indices[part] = d.indices[part][::-1]
            backwards.data[part] = d.data[part][::-1]
        for form in (backwards, d.tocoo(), d.tocsc(), d.astype(np.float64)):
            np.testing.assert_array_equal(dbscan(form, 0.1, 3), want)
            assert data_dependent_eps(form, 50, 0.1) == pytest.approx(
                data_dependent_eps(d, 50, 0.1), rel=1e-12
            )
        whole = sparse.csr_array(np.array([[0, 1, 5], [1, 0, 5], [5, 5, 0]]))
        assert dbscan(whole, 2, 2).tolist() == [0, 0, -1]
        assert data_dependent_eps(whole, 3, 1.0) == pytest.approx(11 / 3)

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

    @pytest.mark.parametrize("rho", [0.01, 0.3, 0.5, 0.6, 0.8, 0.95, 1.0])
    def test_ones_missing_and_stored_between_smaller_and_greater(self, rho):
        for seed in range(3):
            d = random_distances(30, seed, levels=8) * 2
            np.fill_diagonal(d, 0)
            row, col = np.nonzero((d != 1) | (np.add.outer(range(30), range(30)) % 3 == 0))
            got = data_dependent_eps(sparse.csr_array((d[row, col], (row, col)), shape=d.shape), 30, rho)
            assert got == pytest.approx(self.dense(d, rho), rel=1e-12)

    def test_all_in_one_step_of_the_histogram(self):
        d = np.full((20, 20), 0.5) + random_distances(20, 0) / 1e5
        np.fill_diagonal(d, 0)
        for rho in (0.01, 0.5, 1.0):
            assert data_dependent_eps(stored(d), 20, rho) == pytest.approx(
                self.dense(d.astype(np.float32), rho), rel=1e-12
            )

    def test_zeros_beside_distances_that_are_almost_zero(self):
        d = np.full((6, 6), 1e-5)
        for i, j in ((0, 1), (2, 3), (4, 5), *((i, i) for i in range(6))):
            d[i, j] = d[j, i] = 0
        assert data_dependent_eps(stored(d), 6, 0.1) == pytest.approx(1e-5)
        assert data_dependent_eps(stored(d), 6, 1.0) == pytest.approx(1e-5)

    def test_infinite_distances(self):
        d = np.full((4, 4), np.inf)
        np.fill_diagonal(d, 0)
        d[0, 1] = d[1, 0] = 0.5
        whole = sparse.csr_array((d.ravel(), (np.repeat(range(4), 4), np.tile(range(4), 4))))
        assert data_dependent_eps(whole, 4, 0.1) == 0.5
        assert data_dependent_eps(whole, 4, 1.0) == np.inf

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


class TestSelectClusters:
    def test_hand_toy(self):
        """Of five clusters one is small, one small and of one camera, one of one camera."""
        label = np.array([9, 9, 9, 9, 2, 2, 2, 4, 4, 4, 4, 7, -1, 11, 11, 11, 11, -1])
        camid = np.array([1, 1, 2, 3, 1, 2, 3, 5, 5, 5, 5, 1, 1, 0, 0, 0, 8, 2])
        found = select_clusters(label, camid)
        assert found.label.tolist() == [0] * 4 + [-1] * 9 + [1] * 4 + [-1]
        assert found.label.dtype == np.int64
        assert (found.n_small, found.n_few_cameras) == (2, 1)
        three = select_clusters(label, camid, min_size=3, min_cameras=3)
        assert three.label.tolist() == [1] * 4 + [0] * 3 + [-1] * 11
        assert (three.n_small, three.n_few_cameras) == (1, 2)

    @settings(max_examples=60, deadline=None)
    @given(
        st.integers(0, 30), st.integers(1, 6), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32 - 1)
    )
    def test_same_as_one_by_one(self, n, k, min_size, min_cameras, seed):
        rng = np.random.default_rng(seed)
        label, camid = rng.integers(-1, k, n), rng.integers(0, 4, n)
        kept, small, few = [], 0, 0
        for c in sorted(set(label[label >= 0].tolist())):
            large = (label == c).sum() >= min_size
            seen = len(set(camid[label == c].tolist())) >= min_cameras
            small += not large
            few += large and not seen
            kept += [c] if large and seen else []
        want = [kept.index(c) if c in kept else -1 for c in label.tolist()]
        before = label.copy()
        found = select_clusters(label, camid, min_size=min_size, min_cameras=min_cameras)
        assert found.label.tolist() == want
        assert (found.n_small, found.n_few_cameras) == (small, few)
        np.testing.assert_array_equal(label, before)
        again = select_clusters(found.label, camid, min_size=min_size, min_cameras=min_cameras)
        np.testing.assert_array_equal(again.label, found.label)
        assert (again.n_small, again.n_few_cameras) == (0, 0)

    def test_nothing_and_all_noise(self):
        assert select_clusters(np.zeros(0, int), np.zeros(0, int)).label.shape == (0,)
        found = select_clusters(np.full(3, -1), np.zeros(3, int))
        assert found.label.tolist() == [-1, -1, -1]
        assert (found.n_small, found.n_few_cameras) == (0, 0)

    def test_refusals(self):
        label = np.array([0, 0])
        with pytest.raises(ValueError, match=r"camid has shape \(3,\), label \(2,\)"):
            select_clusters(label, np.zeros(3, int))
        with pytest.raises(ValueError, match="label holds -2"):
            select_clusters(np.array([0, -2]), label)
        with pytest.raises(ValueError, match="min_size is 0"):
            select_clusters(label, label, min_size=0)
        with pytest.raises(ValueError, match="min_cameras is 0"):
            select_clusters(label, label, min_cameras=0)


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

    def test_far_pairs_are_gathered_only_as_far_as_eps_needs_them(self, monkeypatch):
        x, _ = people(150, 15, spread=0.9)
        asked, lengths = [], []

        def watched(encoding, max_distance):
            asked.append(max_distance)
            return encoding_distance(encoding, max_distance)

        monkeypatch.setattr(cluster, "encoding_distance", watched)
        full = jaccard_distance(x, 12, 3)
        for rho in (0.01, 0.06, 0.08, 0.1, 0.15, 0.3, 0.9):
            asked.clear()
            found = associate(x, k1=12, k2=3, rho=rho, min_samples=2, fit_to_size=False)
            assert asked == [0.96, 0.99, 1.0][: len(asked)]
            eps = data_dependent_eps(full, 150, rho)
            assert found.start_eps == min(eps, EPS_LIMIT)
            near = data_dependent_eps(jaccard_distance(x, 12, 3, max_distance=asked[-1]), 150, rho)
            assert near == eps or eps > EPS_LIMIT
            if len(asked) > 1:
                less = jaccard_distance(x, 12, 3, max_distance=asked[-2])
                assert data_dependent_eps(less, 150, rho) >= eps
            lengths.append(len(asked))
        assert set(lengths) == {1, 2, 3}
        asked.clear()
        associate(x, k1=12, k2=3, eps=0.5)
        associate(x, k1=12, k2=3, eps=0.97)
        assert asked == [0.96, 1.0]

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

    def test_eps_from_the_data_can_be_narrowed_and_a_given_one_not(self):
        x = np.random.default_rng(3).normal(size=(200, 16))
        x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
        whole, narrow = associate(x), associate(x, eps_share=0.5)
        assert narrow.start_eps == pytest.approx(whole.start_eps / 2)
        assert associate(x, eps=0.3, eps_share=0.5).start_eps == 0.3
        for share in (0, 2.1):
            with pytest.raises(ValueError, match="eps_share"):
                associate(x, eps_share=share)

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

    @pytest.mark.parametrize("noise", [0, 1e-5])
    def test_a_collapsed_model_is_named_before_the_matrix_is_dense(self, monkeypatch, noise):
        rng = np.random.default_rng(0)
        x = unit(rng.normal(size=(1, 64)) + noise * rng.normal(size=(20_000, 64)))
        monkeypatch.setattr(cluster, "reciprocal_encoding", None)  # n² entries: not even begun
        found = associate(x)
        assert (found.label == 0).all()
        assert (found.n_clusters, found.largest_cluster, found.noise_fraction) == (1, 20_000, 0)
        assert not found.usable
        assert found.eps == found.start_eps == 0
        assert found.diagnosis[0].startswith("all 20000 tracklets look the same: the features do not tell")
        assert associate(x, eps=0.4).start_eps == 0.4

    def test_alike_is_what_dbscan_says_of_identical_rows(self):
        for n, min_samples in ((2, 2), (5, 4), (40, 4), (5, 6)):
            x = np.tile(unit([[1, 2, 3]]), (n, 1))
            want = dbscan(jaccard_distance(x, 4, 2), 0.0, min_samples)
            found = associate(x, k1=4, k2=2, min_samples=min_samples, fit_to_size=False)
            np.testing.assert_array_equal(found.label, want)

    def test_one_row_apart_is_not_alike(self):
        x = np.tile(unit([[1, 2, 3]]), (300, 1))
        x[290] = unit([[1, 2, 3.01]])
        assert not any("look the same" in line for line in associate(x).diagnosis)

    def test_refusals(self):
        x = np.eye(5, dtype=np.float32)
        for eps in (-0.1, 1.5, float("nan")):
            with pytest.raises(ValueError, match="eps is"):
                associate(x, eps=eps)
        with pytest.raises(ValueError, match="k1 is 0"):
            associate(x, k1=0)
        with pytest.raises(ValueError, match="unit length"):
            associate(2 * x)
        alike = np.tile(unit([[1, 2, 3]]), (5, 1))
        with pytest.raises(ValueError, match="unit length"):
            associate(2 * alike)
        with pytest.raises(ValueError, match="all zeros"):
            associate(0 * alike)
        with pytest.raises(ValueError, match='mode is "other"'):
            associate(alike, mode="other")
        alike[3] = np.nan
        with pytest.raises(ValueError, match="must be finite, but 1 row is not: 3"):
            associate(alike)


class TestHowNeighboursAreFound:
    @pytest.mark.parametrize("mode", ["tracklearn", "spcl", "mmt"])
    def test_int8_gives_the_same(self, mode):
        x, _ = people(700, 60)
        exact = associate(x, mode=mode)
        found = associate(x, mode=mode, neighbors="int8")
        np.testing.assert_array_equal(found.label, exact.label)
        assert found.eps == exact.eps
        assert found.diagnosis == exact.diagnosis
        distance = jaccard_distance(x, 20, mode=mode), jaccard_distance(x, 20, mode=mode, neighbors="int8")
        assert (distance[0] != distance[1]).nnz == 0

    def test_approximation_is_near_and_said(self, monkeypatch):
        x, pid = people(2000, 60, spread=0.3)
        exact = associate(x, eps=0.5)
        assert associate(x, eps=0.5, neighbors="ann").diagnosis == exact.diagnosis  # few rows: found exactly
        monkeypatch.setattr(neighbors, "_MANY", 1000)
        assert associate(x, eps=0.5, mode="mmt", neighbors="ann").diagnosis == ()  # always looks exactly
        found = associate(x, eps=0.5, neighbors="ann")
        assert "neighbours of 2000 tracklets were found approximately" in found.diagnosis[0]
        assert adjusted_rand_score(found.label, exact.label) > 0.95
        assert adjusted_rand_score(found.label, pid) > 0.95

    def test_an_unknown_way_is_refused(self):
        with pytest.raises(ValueError, match='method is "magic"'):
            associate(people(50, 5)[0], neighbors="magic")
