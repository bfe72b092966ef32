"""Cannot-links: no cluster holds two people who were seen at one moment."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from tests.core.films import looks

from tracklearn.core.apart import split, without
from tracklearn.core.cluster import associate, dbscan
from tracklearn.core.labels import one_track


def test_pairs_leave_the_distances():
    rng = np.random.default_rng(0)
    dense = rng.random((6, 6))
    dense = (dense + dense.T) / 2
    kept = without(sparse.csr_array(dense), np.array([[0, 3], [4, 1]])).toarray()
    expected = dense.copy()
    for i, j in ((0, 3), (1, 4)):
        expected[i, j] = expected[j, i] = 0
    np.testing.assert_array_equal(kept, expected)


def test_a_cluster_is_parted_between_the_two_and_the_rest_goes_to_the_nearer():
    person = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    label = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    got, n = split(label, looks(person), np.array([[0, 4]]))
    assert n == 1
    assert len(np.unique(got)) == 3
    for p in range(3):
        assert len(set(got[person == p])) == 1


def test_a_side_of_one_is_noise_and_labels_without_a_pair_stay():
    label = np.array([0, 0, 0, 1, 1])
    got, n = split(label, looks([0, 0, 1, 2, 2]), np.array([[0, 2]]))
    assert (n, got.tolist()) == (1, [0, 0, -1, 1, 1])
    kept, _ = split(label, looks([0, 0, 1, 2, 2]), np.array([[0, 2]]), alone=True)
    assert kept.tolist() == [0, 0, 1, 2, 2]
    same, none = split(label, looks([0, 0, 1, 2, 2]), np.array([[0, 3]]))
    assert (none, same.tolist()) == (0, label.tolist())


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000))
def test_no_cluster_holds_a_pair(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 40))
    label = np.unique(rng.integers(-1, 4, n), return_inverse=True)[1] - 1
    pair = rng.integers(0, n, (int(rng.integers(1, 60)), 2))
    pair = pair[pair[:, 0] != pair[:, 1]]
    got, _ = split(label, rng.normal(size=(n, 5)), pair)
    held = (got[pair[:, 0]] >= 0) & (got[pair[:, 0]] == got[pair[:, 1]])
    assert not held.any()
    assert set(got[label < 0]) <= {-1}
    # Sides come from one cluster each, and numbers are used from 0 on.
    for value in np.unique(got[got >= 0]):
        assert len(set(label[got == value])) == 1
    assert np.unique(got[got >= 0]).tolist() == list(range(got.max(initial=-1) + 1))


def test_association_keeps_them_out_of_one_cluster():
    person = np.repeat(np.arange(12), 6)
    x = looks(person, width=64, spread=0.5, seed=5)
    x[:12] = x[0] + 0.1 * looks(np.arange(12), width=64)  # two people who look the same
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    plain = associate(x, k1=16, k2=3, min_samples=2, fit_to_size=False, eps=0.6)
    assert len(set(plain.label[:12])) == 1
    pair = np.array([[i, j] for i in range(6) for j in range(6, 12)])
    found = associate(x, k1=16, k2=3, min_samples=2, fit_to_size=False, eps=0.6, apart=pair)
    assert not (set(found.label[:6]) - {-1}) & (set(found.label[6:12]) - {-1})


def test_parts_of_one_track_count_once():
    dense = np.full((6, 6), 0.1)
    dense[:3, 3:] = dense[3:, :3] = 0.9
    distance = sparse.csr_array(dense)
    track = np.array([7, 7, 7, 1, 2, 3])
    assert dbscan(distance, 0.5, 3).tolist() == [0, 0, 0, 1, 1, 1]
    assert dbscan(distance, 0.5, 3, track).tolist() == [-1, -1, -1, 0, 0, 0]
    assert one_track(np.array([0, 0, 0, 1, 1, 1]), track) == 1
    person = np.repeat([0, 1, 2], 5)
    alone = associate(looks(person), k1=4, k2=2, min_samples=3, eps=0.5, track=person)
    assert alone.n_clusters >= 2  # rather clusters of one track than none
    assert any("nobody seems to come back" in line for line in alone.diagnosis)


def test_people_who_are_only_seen_side_by_side_are_classes_of_their_own():
    x = looks(np.zeros(4, int), spread=0.05)
    everybody = np.array([[i, j] for i in range(4) for j in range(i + 1, 4)])
    found = associate(x, k1=3, k2=1, min_samples=2, eps=0.6, fit_to_size=False, apart=everybody)
    assert sorted(found.label.tolist()) == [0, 1, 2, 3]
    assert found.usable
    assert any("a class of its own" in line for line in found.diagnosis)
