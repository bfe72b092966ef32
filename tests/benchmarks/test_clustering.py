"""The clustering benchmark compares what it says, on sets small enough for a test."""

import dataclasses

import numpy as np
import pytest
from scipy import sparse

from benchmarks import clustering, textbook
from tracklearn.core import cluster
from tracklearn.core.jaccard import jaccard_distance

N = 300


@pytest.fixture(scope="module")
def found():
    features, _ = clustering.make_features(N)
    names = (*clustering.METHODS, clustering.TEXTBOOK)
    return features, {name: clustering.run((features, name)) for name in names}


def test_features_look_like_people():
    features, pid = clustering.make_features(N, seed=3)
    similarity = features.astype(np.float64) @ features.T
    np.testing.assert_allclose(np.diag(similarity), 1, atol=1e-6)
    same = (pid[:, None] == pid) & ~np.eye(N, dtype=bool)
    assert len(np.unique(pid)) == N // 13
    assert 0.55 < similarity[same].mean() < 0.65
    assert abs(similarity[pid[:, None] != pid].mean()) < 0.05


def test_features_of_a_network_lie_along_few_directions():
    features, pid = clustering.make_features(N, seed=3, network=True)
    assert len(np.unique(pid)) == N // 13
    share = np.square(np.linalg.svd(features, compute_uv=False))
    even = np.square(np.linalg.svd(clustering.make_features(N, seed=3)[0], compute_uv=False))
    assert share[:64].sum() / share.sum() > 0.8 > even[:64].sum() / even.sum()


def test_ours_and_the_textbook_agree(found):
    features, answers = found
    equal = clustering.compare(features, answers)
    assert equal["same"]
    assert equal["distance_differs"] < 1e-6
    assert answers["textbook"].label.max() > 5  # clusters there are, so that agreement means something


def test_a_difference_is_found(found):
    features, answers = found
    book, exact = answers["textbook"], answers["exact"]
    distance = book.distance.copy()
    distance[N - 1, 0] -= 1e-3  # in the last block of rows, where nothing is stored
    label = exact.label.copy()
    label[5] = 99
    for changed, key in (
        ({"textbook": book._replace(distance=distance)}, "distance_differs"),
        ({"exact": dataclasses.replace(exact, label=label)}, "labels_differ"),
        ({"exact": dataclasses.replace(exact, start_eps=exact.start_eps + 1e-5)}, "eps_differs"),
    ):
        equal = clustering.compare(features, answers | changed)
        assert not equal["same"]
        assert equal[key] > clustering.TOLERANCE


def test_methods_are_compared_with_each_other_without_a_textbook(found):
    features, answers = found
    equal = clustering.compare(features, {name: answers[name] for name in clustering.METHODS})
    assert equal == {"same": True, "labels_differ": 0, "eps_differs": 0}


def test_largest_difference_by_hand():
    stored = sparse.csr_array(np.array([[0.0, 0.5], [0.5, 0.0]]))  # zeros are not stored here
    dense = np.array([[1.0, 0.75], [0.5, 0.9]], np.float32)
    assert clustering.largest_difference(stored, dense) == pytest.approx(0.25)
    assert clustering.largest_difference(stored, np.full((2, 2), 0.5)) == pytest.approx(0.5)
    assert clustering.largest_difference(stored, dense, beyond=0.8) == pytest.approx(0.25)


@pytest.mark.parametrize(("k1", "k2"), [(30, 6), (5, 1), (1, 1), (7, 9)])
def test_textbook_gives_our_distances(k1, k2):
    """Other settings than the benchmark's, and identical rows."""
    features = clustering.make_features(120, seed=k1)[0][:, :64].copy()
    features[100:104] = features[3]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    dense = textbook.jaccard_distance(features, k1, k2)
    assert clustering.largest_difference(jaccard_distance(features, k1, k2), dense) < 1e-6
    np.testing.assert_array_equal(np.diag(dense), 0)
    stored = jaccard_distance(features, k1, k2)
    assert textbook.data_dependent_eps(dense, 0.05) == pytest.approx(
        cluster.data_dependent_eps(stored, 120, 0.05), abs=1e-6
    )


def made_up(sizes):
    """Results that grow as n² in time and as n in memory."""
    return {
        n: {
            "features_bytes": 8192 * n,
            "gemm_s": 1e-8 * n**2,
            "n_clusters": 5,
            "equal": {"same": True},
            "exact": {
                "wall_s": 1e-8 * n**2,
                "cpu_s": 2e-8 * n**2,
                "per_gemm": 1.0,
                "per_floor": 2.0,
                "memory_bytes": 5000.0 * n,
                "memory_total_bytes": 10000.0 * n,
            },
        }
        for n in sizes
    }


def test_growth_is_the_exponent():
    sizes = made_up([1_000, 8_298, 22_000, 100_000])
    assert clustering.growth(sizes, "exact", "wall_s") == pytest.approx(2)
    assert clustering.growth(sizes, "exact", "memory_bytes") == pytest.approx(1)
    assert clustering.growth(sizes, "textbook", "wall_s") is None


def test_bars_take_the_values_of_their_size():
    value = {bar.what: bar.value for bar in clustering.bars(made_up([8_298, 22_000]), "exact")}
    assert value["8,298: wall (s)"] == pytest.approx(0.688568)
    assert value["22,000: memory above the features (MB)"] == pytest.approx(110)
    assert value["8,298: textbook / ours, wall"] is None
    assert value["100,000: memory in all (GB)"] is None


def test_tables_and_drawing_of_sizes_with_and_without_a_textbook(tmp_path):
    sizes = made_up([4_000, 22_000])
    sizes[4_000]["textbook"] = sizes[4_000]["exact"]
    lines = clustering.size_table(sizes).splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [
        ["4,000", "exact"],
        ["4,000", "textbook"],
        ["22,000", "exact"],
    ]
    clustering.draw(sizes, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
