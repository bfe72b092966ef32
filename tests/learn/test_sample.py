"""Properties of the clips and batches."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracklearn.learn import sample
from tracklearn.types import ArrayCrops, PseudoLabels, Tracklets


def make(lengths, camid=None):
    t = len(lengths)
    n = int(np.sum(lengths))
    return Tracklets(
        tracklet=np.repeat(np.arange(t), lengths),
        frame=np.concatenate([np.arange(k) for k in lengths]),
        time=np.zeros(n),
        box=np.zeros((n, 4)),
        score=np.ones(n),
        crop=np.arange(n)[::-1],
        camid=np.zeros(t, int) if camid is None else camid,
        source=np.arange(t),
    )


lengths = st.lists(st.integers(1, 40), min_size=2, max_size=12)


@given(lengths, st.integers(1, 35), st.integers(0, 99))
def test_clips_are_consecutive_frames_of_every_tracklet(lengths, n, seed):
    tracklets = make(lengths)
    rows, group = sample.clips(tracklets, n, np.random.default_rng(seed))
    assert (tracklets.tracklet[rows] == group).all()
    assert np.bincount(group).tolist() == [min(k, n) for k in lengths]
    inside = np.diff(group) == 0
    assert (np.diff(rows)[inside] == 1).all()


def test_clips_reach_every_start_and_are_redrawn():
    tracklets = make([10, 40])
    rng = np.random.default_rng(0)
    starts = {int(sample.clips(tracklets, 8, rng)[0][0]) for _ in range(200)}
    assert starts == {0, 1, 2}


@st.composite
def labelled(draw):
    t = draw(st.integers(4, 30))
    label = draw(st.lists(st.integers(-1, 5), min_size=t, max_size=t).filter(lambda x: len({*x} - {-1}) >= 2))
    _, label = np.unique(np.r_[-1, label], return_inverse=True)  # 0..c − 1 without gaps
    camid = draw(st.lists(st.integers(0, 3), min_size=t, max_size=t))
    lengths = draw(st.lists(st.integers(1, 9), min_size=t, max_size=t))
    return make(lengths, np.array(camid)), label[1:] - 1


@given(labelled(), st.integers(2, 5), st.integers(2, 5), st.integers(1, 4), st.integers(0, 99))
@settings(deadline=None)
def test_batches(made, p, k, f, seed):
    tracklets, label = made
    labels = PseudoLabels.of(label)
    plan = sample.batches(
        tracklets,
        labels,
        7,
        np.random.default_rng(seed),
        clusters_per_batch=p,
        tracklets_per_cluster=k,
        n_frames=f,
    )
    per_batch = min(p, labels.n_clusters)
    assert plan.tracklet.shape == (7, per_batch * k)
    assert plan.row.shape == (7, per_batch * k, f)
    assert len(plan) == 7
    blocks = plan.tracklet.reshape(7, per_batch, k)
    cluster = label[blocks]
    assert (cluster >= 0).all()  # noise never comes
    assert (cluster == cluster[:, :, :1]).all()  # clusters stand together
    assert all(len(set(c)) == per_batch for c in cluster[:, :, 0])  # none twice in a batch
    # all clusters come once before one comes again
    visits = np.bincount(cluster[:, :, 0].ravel(), minlength=labels.n_clusters)
    assert visits.max() - visits.min() <= 1
    for block in blocks.reshape(-1, k):
        members = np.flatnonzero(label == label[block[0]])
        times = np.bincount(block)[np.unique(block)]
        assert len(np.unique(block)) == min(k, len(members))  # distinct ones first
        assert times.max() - times.min() <= 1
        others = members[tracklets.camid[members] != tracklets.camid[block[0]]]
        taken = np.isin(block[1 : len(members)], others).sum()
        assert taken == min(k - 1, len(others))  # other cameras first
    # frames are consecutive, short tracklets wrap
    start, length = tracklets.start[:-1][plan.tracklet], tracklets.length[plan.tracklet]
    within = plan.row - start[..., None]
    assert (within >= 0).all()
    assert (within < length[..., None]).all()
    assert (np.diff(within) % length[..., None] == 1 % length[..., None]).all()
    wraps = (np.diff(within) < 0).any(-1) & (length >= f)
    assert not wraps.any()


def test_same_seed_same_plan_other_seed_another():
    tracklets = make([6] * 12)
    labels = PseudoLabels.of(np.arange(12) // 3)
    plans = [sample.batches(tracklets, labels, 5, np.random.default_rng(s)) for s in (0, 0, 1)]
    assert (plans[0].row == plans[1].row).all()
    assert (plans[0].row != plans[2].row).any()


def test_every_tracklet_of_every_cluster_comes_and_order_is_shuffled():
    tracklets = make([5] * 60, np.arange(60) % 3)
    labels = PseudoLabels.of(np.arange(60) // 10)
    plan = sample.batches(
        tracklets, labels, 200, np.random.default_rng(0), clusters_per_batch=3, tracklets_per_cluster=2
    )
    count = np.bincount(plan.tracklet.ravel(), minlength=60)
    assert count.min() > 5
    first = labels.label[plan.tracklet[:, 0]]
    assert len(set(first.tolist())) == 6
    # position in the file must not tell how often a tracklet is seen
    assert abs(np.corrcoef(np.arange(60), count)[0, 1]) < 0.3


def test_other_cameras_take_turns():
    camid = np.array([0, 1, 1, 1, 1, 1, 2, 0, 0])
    tracklets = make([3] * 9, camid)
    labels = PseudoLabels.of(np.array([0] * 7 + [1] * 2))
    for seed in range(20):
        plan = sample.batches(tracklets, labels, 1, np.random.default_rng(seed), tracklets_per_cluster=3)
        block = next(b for b in plan.tracklet.reshape(-1, 3) if b[0] < 7)
        assert len(set(camid[block].tolist())) == 3


def test_fewer_than_two_clusters_are_refused():
    tracklets = make([3, 3, 3])
    with pytest.raises(ValueError, match=r"1 cluster.*at least 2"):
        sample.batches(tracklets, PseudoLabels.of(np.array([0, 0, -1])), 3, np.random.default_rng(0))


def test_ahead_keeps_order_and_reads_one_ahead():
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    asked = []
    threads = set()

    class Watched(ArrayCrops):
        def read(self, indices):
            asked.append(list(indices))
            threads.add(threading.current_thread().name)
            return super().read(indices)

    rows = [np.array([5, 0]), np.array([3]), np.array([1, 1])]
    stream = sample.ahead(Watched(images), rows)
    first = next(stream)
    assert first[:, 0, 0, 0].tolist() == [5, 0]
    assert [b[:, 0, 0, 0].tolist() for b in stream] == [[3], [1, 1]]
    assert asked == [[5, 0], [3], [1, 1]]
    assert threading.main_thread().name not in threads
    assert list(sample.ahead(Watched(images), [])) == []


def test_ahead_passes_errors_on():
    class Broken(ArrayCrops):
        def read(self, indices):
            raise ValueError("row 3 is broken")

    with pytest.raises(ValueError, match="row 3"):
        list(sample.ahead(Broken(np.zeros((1, 2, 2, 3), np.uint8)), [np.array([0])]))


@given(lengths, st.integers(1, 14), st.integers(1, 6), st.integers(0, 99))
@settings(deadline=None)
def test_singles(lengths, per_batch, images, seed):
    tracklets = make(lengths)
    t, n = len(tracklets), 7
    labels = PseudoLabels.of(np.arange(t))
    options = {"tracklets_per_batch": per_batch, "images_per_tracklet": images}
    plan = sample.singles(tracklets, labels, n, np.random.default_rng(seed), **options)
    b = min(per_batch, t)
    assert plan.tracklet.shape == (n, b * images)
    assert plan.row.shape == (n, b * images, 1)
    assert (tracklets.tracklet[plan.row[:, :, 0]] == plan.tracklet).all()
    chosen = plan.tracklet.reshape(n, b, images)
    assert (chosen == chosen[:, :, :1]).all()  # images of a tracklet stand together
    assert all(len(set(c)) == b for c in chosen[:, :, 0].tolist())  # none twice in a batch
    visits = np.bincount(chosen[:, :, 0].ravel(), minlength=t)
    assert visits.max() - visits.min() <= 1  # all come once before one comes again
    for rows in plan.row.reshape(-1, images):
        length = lengths[tracklets.tracklet[rows[0]]]
        times = np.unique(rows, return_counts=True)[1]
        assert len(times) == min(images, length)  # distinct frames first
        assert times.max() - times.min() <= 1
        if length >= images:
            assert (np.diff(rows) <= -(-2 * length // images)).all()  # spread over the tracklet
    again = sample.singles(tracklets, labels, n, np.random.default_rng(seed), **options)
    assert (again.row == plan.row).all()


def test_singles_reach_every_frame():
    tracklets = make([2, 9])
    labels = PseudoLabels.of(np.arange(2))
    plan = sample.singles(tracklets, labels, 200, np.random.default_rng(0), images_per_tracklet=4)
    assert np.unique(plan.row).tolist() == list(range(11))


def test_clusters_seen_side_by_side_come_together():
    rng = np.random.default_rng(0)
    tracklets = make([5] * 24)
    labels = PseudoLabels.of(np.r_[np.repeat(np.arange(8), 2), np.full(8, -1)])
    # Tracklets of clusters 0 and 5, of 2 and 7, of 1 and noise, and two of one cluster.
    beside = np.array([[0, 10], [5, 15], [2, 20], [6, 7]])
    plan = sample.batches(tracklets, labels, 40, rng, clusters_per_batch=4, beside=beside)
    together = [set(labels.label[batch].tolist()) for batch in plan.tracklet]
    for pair in ({0, 5}, {2, 7}):
        assert np.mean([pair <= batch or not pair & batch for batch in together]) > 0.75  # by chance 3 of 7
    counts = np.bincount(labels.label[plan.tracklet[:, ::4].ravel()], minlength=8)
    assert counts.max() - counts.min() <= 1  # all still come once before one comes again
