"""Pairs within a cosine distance, against dense float64; what is chance; DBSCAN with further tries."""

import numpy as np
import pytest
from scipy import sparse

from tracklearn.core import cluster, coded, radius
from tracklearn.core.kernels import products
from tracklearn.core.kernels.products import COLUMNS
from tracklearn.core.radius import STEPS, chance_level, clusters, mean_nearest, within
from tracklearn.core.threads import limit


def unit(x):
    x = np.asarray(x, np.float64)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def lattice(n, d, seed):
    """Directions from a few whole numbers: many equal distances, and many equal rows."""
    x = np.random.default_rng(seed).integers(-1, 2, (n, d))
    x[:, 0] += ~x.any(1)
    return unit(x)


def people(n, n_people, width=32, spread=0.5, seed=0):
    rng = np.random.default_rng(seed)
    return unit(
        rng.normal(size=(n_people, width))[np.arange(n) % n_people] + spread * rng.normal(size=(n, width))
    )


def dense(x):
    x = x.astype(np.float64)
    return np.maximum(0, np.rint((1 - x @ x.T) * STEPS) / STEPS)


class TestWithin:
    @pytest.mark.parametrize(
        ("tile", "method"), [(4, "exact"), (1024, "exact"), (COLUMNS, "int8"), (1024, "int8")]
    )
    def test_equals_dense_float64_with_ties_on_the_radius(self, monkeypatch, tile, method):
        monkeypatch.setattr(radius, "_TILE", tile)
        monkeypatch.setattr(radius, "_PAIRS", 3)
        monkeypatch.setattr(coded, "_FEW", 0)
        wide = 8 if method == "int8" else 1
        for seed in range(60):
            rng = np.random.default_rng(seed)
            n, d = rng.integers(2, 14 * wide), rng.integers(wide, 5 * wide)
            x = lattice(n, d, seed) if seed % 2 else unit(rng.normal(size=(n, d)))
            want = dense(x)
            for eps in (0.0, float(rng.choice(want.ravel())), 0.3, 2.0):
                graph = within(x, eps, method=method)
                inside = want <= np.rint(eps * STEPS) / STEPS
                np.fill_diagonal(inside, False)
                got = np.zeros((n, n), bool)
                row = np.repeat(np.arange(n), np.diff(graph.indptr))
                got[row, graph.indices] = True
                np.testing.assert_array_equal(got, inside)
                np.testing.assert_allclose(graph.data, want[row, graph.indices], atol=1e-12, rtol=0)
                assert graph.nnz == inside.sum()
                assert graph.data.max(initial=0) <= eps
                assert graph.has_sorted_indices

    def test_dbscan_takes_it(self):
        x = people(60, 12)
        for eps in (0.1, 0.2, 0.4):
            distance = dense(x)
            np.fill_diagonal(distance, 0)
            full = sparse.csr_array(np.where(distance == 0, 1e-300, distance))
            np.testing.assert_array_equal(
                cluster.dbscan(within(x, eps), eps, 3), cluster.dbscan(full, eps, 3)
            )

    def test_same_on_any_number_of_threads(self, monkeypatch):
        monkeypatch.setattr(radius, "_TILE", 16)
        x = people(150, 20)
        made = []
        for n in (1, 2):
            with limit(n):
                graph = within(x, 0.5)
                made.append((graph.indptr.tobytes(), graph.indices.tobytes(), graph.data.tobytes()))
                made.append((mean_nearest(x, 0.05), chance_level(x, 0.05)))
        assert made[0] == made[2]
        assert made[1] == made[3]

    def test_degenerate(self):
        assert within(np.zeros((0, 3), np.float32), 0.5).shape == (0, 0)
        assert within(unit([[1, 2]]), 0.5).nnz == 0
        same = np.repeat(unit([[1, 2, 3]]), 5, 0)
        graph = within(same, 0)
        assert (graph.nnz, graph.data.max()) == (20, 0)
        before = same.copy()
        within(same, 1)
        np.testing.assert_array_equal(same, before)

    def test_refusals(self):
        x = people(10, 2)
        for bad in (-0.1, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="expected a cosine distance"):
                within(x, bad)
        with pytest.raises(ValueError, match="unit length"):
            within(2 * x, 0.5)
        pairs = within(x, 0.5).nnz // 2
        assert within(x, 0.5, most=pairs).nnz == 2 * pairs
        with pytest.raises(radius.Crowded, match=f"more than {pairs - 1} pairs lie within 0.500"):
            within(x, 0.5, most=pairs - 1)


class TestMeanNearest:
    @pytest.mark.parametrize(("tile", "method"), [(4, "exact"), (1024, "exact"), (COLUMNS, "int8")])
    def test_equals_dense(self, monkeypatch, tile, method):
        monkeypatch.setattr(radius, "_TILE", tile)
        monkeypatch.setattr(radius, "_SHARE", 0.5)
        monkeypatch.setattr(coded, "_FEW", 0)
        wide = 8 if method == "int8" else 1
        for seed in range(30):
            rng = np.random.default_rng(seed)
            n = rng.integers(2, 40 * wide)
            x = lattice(n, 4 * wide, seed) if seed % 2 else unit(rng.normal(size=(n, 6 * wide)))
            value = dense(x)[np.triu_indices(n, 1)]
            value = np.sort(value[value > 5e-7])
            for share in (1e-3, 0.1, 0.7, 1.0):
                want = value[: max(1, round(share * len(value)))].mean() if len(value) else 0
                assert mean_nearest(x, share, method=method) == pytest.approx(want, abs=1e-6)

    def test_a_radius_that_a_sample_says_wrongly_is_widened(self, monkeypatch):
        """Pairs a little beyond the radius are offered by chance, so it must hold all that are wanted."""
        x = people(300, 60)
        want = mean_nearest(x, 0.01)
        last = np.sort(dense(x)[np.triu_indices(300, 1)])[: round(0.01 * 300 * 299 / 2)][-1]
        monkeypatch.setattr(coded, "_FEW", 0)
        tried, offered = [], radius._offered
        monkeypatch.setattr(
            radius, "_offered", lambda rows, reach, kept: (tried.append(reach), offered(rows, reach, kept))[1]
        )
        for said in (1e-9, *np.arange(last - 0.08, last + 0.02, 0.0015), 1.0):
            tried.clear()
            monkeypatch.setattr(radius, "_sampled", lambda rows, share, said=said: said)
            assert mean_nearest(x, 0.01, method="int8") == pytest.approx(want, abs=2e-7)
            if products.available:
                assert tried == sorted(set(tried))
                assert last <= tried[-1]
                assert len(tried) == 1 or tried[-2] < last

    def test_none_to_compare(self):
        assert mean_nearest(np.zeros((0, 3), np.float32), 0.1) == 0
        assert mean_nearest(unit([[1, 2]]), 0.1) == 0
        assert mean_nearest(np.repeat(unit([[1, 2]]), 4, 0), 0.1) == 0

    def test_refusals(self):
        for share in (0, 1.1, float("nan")):
            with pytest.raises(ValueError, match="share is"):
                mean_nearest(people(4, 2), share)
        with pytest.raises(ValueError, match='method is "ann", expected exact or int8'):
            mean_nearest(people(4, 2), 0.1, method="ann")


class TestChance:
    @pytest.mark.parametrize("n", [30, 150, 600])
    def test_groups_are_nearer_and_noise_is_not(self, n):
        share = max(1.6e-3, 4 / (n - 1))
        for seed in range(3):
            noise = unit(np.random.default_rng(seed).normal(size=(n, 64)) * np.exp(-np.arange(64) / 20))
            grouped = people(n, n // 5, width=64, seed=seed)
            assert mean_nearest(noise, share) > 0.97 * chance_level(noise, share)
            assert mean_nearest(grouped, share) < 0.7 * chance_level(grouped, share)

    def test_a_common_direction_is_no_group(self):
        x = unit(np.random.default_rng(0).normal(size=(80, 32)) + 4)
        assert mean_nearest(x, 0.05) > 0.97 * chance_level(x, 0.05)

    def test_seed(self):
        x = people(40, 8)
        assert chance_level(x, 0.1) == chance_level(x, 0.1) != chance_level(x, 0.1, seed=1)
        assert np.isnan(chance_level(x[:1], 0.1))


def at(*degrees):
    angle = np.deg2rad(degrees)
    return unit(np.stack([np.cos(angle), np.sin(angle)], 1))


def far(degrees):
    return 1 - np.cos(np.deg2rad(degrees))


def two_or_more(label):
    return label.max() >= 1


class TestClusters:
    def test_the_first_labels_will_do(self):
        label, eps, said = clusters(at(0, 1, 2, 50, 51, 52, 90), far(3), 3, widest=1, usable=two_or_more)
        assert (label.tolist(), eps, said) == ([0, 0, 0, 1, 1, 1, -1], far(3), [])

    def test_a_giant_is_narrowed(self):
        label, eps, said = clusters(at(0, 1, 2, 20, 21, 22), far(25), 2, widest=1, usable=two_or_more)
        assert label.tolist() == [0, 0, 0, 1, 1, 1]
        assert far(25) / 4 <= eps < far(18)
        assert said[0].startswith(f"eps {far(25):.3f} with min_samples 2 gave 1 cluster(s) of 6")
        assert said[1].startswith(f"eps {eps:.3f} with min_samples 2 gave 2 cluster(s)")

    def test_then_min_samples_falls_and_eps_grows(self):
        x = at(0, 1, 30, 31, 60, 90, 120, 150)
        label, eps, said = clusters(x, far(2), 4, widest=1, usable=two_or_more)
        assert (label.tolist(), eps) == ([0, 0, 1, 1, -1, -1, -1, -1], far(2))
        assert len(said) == 2
        label, eps, _ = clusters(x, far(0.95), 2, widest=far(3), usable=two_or_more)
        assert label.tolist() == [0, 0, 1, 1, -1, -1, -1, -1]
        assert far(1) <= eps < 1.16 * far(1)

    def test_nothing_helps_up_to_the_widest(self):
        x = at(0, 1, 30, 31, 60, 90, 120, 150)
        asked = []
        label, eps, said = clusters(x, far(0.5), 2, widest=far(0.9), usable=lambda y: asked.append(y))
        assert ((label == -1).all(), eps) == (True, far(0.5))
        assert said[-1] == f"no eps up to {far(0.9):.3f} gives two clusters to learn from"
        assert all((y == -1).all() for y in asked)
        assert len(asked) == 1 + int(np.ceil(np.log(far(0.9) / far(0.5)) / np.log(1.15)))

    def test_too_many_pairs_are_a_giant(self, monkeypatch):
        monkeypatch.setattr(radius, "_CROWD", 6)
        monkeypatch.setattr(radius, "_CROWD_EACH", 0)
        label, eps, _ = clusters(at(0, 1, 2, 20, 21, 22), far(25), 2, widest=1, usable=two_or_more)
        assert label.tolist() == [0, 0, 0, 1, 1, 1]
        assert eps < far(18)
