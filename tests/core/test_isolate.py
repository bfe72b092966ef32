"""Isolation against scikit-learn's DBSCAN, tracklet by tracklet."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN

from tracklearn.core import frames, threads
from tracklearn.core import isolate as module
from tracklearn.core.isolate import adjacent_similarity, isolate, typical_step
from tracklearn.core.jaccard import jaccard_distance
from tracklearn.types import Tracklets


def unit(x):
    x = np.asarray(x, np.float64)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def tracklets_of(lengths, width=32, spread=0.35, seed=0):
    """Tracklets of two people each, as far apart as real frames are: (features, tracklet, frame)."""
    rng = np.random.default_rng(seed)
    tracklet = np.repeat(np.arange(len(lengths)), lengths)
    frame = np.concatenate([np.arange(n) for n in lengths]) if len(lengths) else np.zeros(0, int)
    person = rng.normal(size=(2 * len(lengths), width))
    who = 2 * tracklet + (frame > np.repeat(lengths, lengths) * 0.6)
    return person[who] + spread * rng.normal(size=(len(who), width)), tracklet, frame


def slow(features, tracklet, eps, min_samples, metric):
    part = np.zeros(len(tracklet), np.int64)
    for t in np.unique(tracklet):
        own = tracklet == t
        if own.sum() < min_samples:
            continue
        label = DBSCAN(eps=eps, min_samples=min_samples, metric=metric).fit(unit(features[own])).labels_
        if (label >= 0).any():
            part[own] = label
    return part


@pytest.mark.parametrize(
    ("metric", "eps"), [("euclidean", 0.4), ("euclidean", 0.5), ("euclidean", 0.6), ("cosine", 0.12)]
)
@pytest.mark.parametrize("min_samples", [1, 2, 4])
def test_labels_are_scikit_learns(metric, eps, min_samples):
    features, tracklet, frame = tracklets_of([1, 2, 3, 9, 40, 61, 100])
    got = isolate(features, tracklet, frame=frame, eps=eps, min_samples=min_samples, metric=metric)
    np.testing.assert_array_equal(got, slow(features, tracklet, eps, min_samples, metric))
    assert got.dtype == np.int64
    assert len(np.unique(got)) > 1


def test_two_people_are_parted():
    features, tracklet, frame = tracklets_of([30, 30])
    part = isolate(features, tracklet, frame=frame, eps=0.7)
    np.testing.assert_array_equal(part, (frame > 18).astype(int))


def test_jaccard_metric():
    features, tracklet, frame = tracklets_of([24, 40])
    part = isolate(features, tracklet, frame=frame, eps=0.8, metric="jaccard")
    for t, k1, k2 in ((0, 6, 1), (1, 10, 2)):
        own = tracklet == t
        distance = jaccard_distance(unit(features[own]), k1, k2)
        want = DBSCAN(eps=0.8, min_samples=2, metric="precomputed").fit(distance).labels_
        np.testing.assert_array_equal(part[own], want)
    assert isolate(features[:3], tracklet[:3], frame=frame[:3], metric="jaccard").shape == (3,)


def test_all_noise_and_too_short_stay_whole():
    features = np.vstack([np.eye(5), np.eye(5)[:2], np.eye(5)[:1]])
    tracklet = np.repeat([0, 1, 2], [5, 2, 1])
    part = isolate(features, tracklet, frame=np.arange(8), min_samples=3)
    np.testing.assert_array_equal(part, 0)


def test_noise_is_marked_where_a_part_exists():
    features = np.array([[1, 0, 0], [1, 0.01, 0], [0, 0, 1]])
    np.testing.assert_array_equal(isolate(features, np.zeros(3, int), frame=np.arange(3)), [0, 0, -1])


def test_eps_is_included():
    features = np.eye(2)
    own = np.zeros(2, int)
    assert isolate(features, own, frame=own, eps=2**0.5, min_samples=2).tolist() == [0, 0]
    features = np.array([[1, 0], [0, 1], [0, 1]])
    assert isolate(features, own[[0, 0, 0]], frame=np.arange(3), eps=1.41, min_samples=2).tolist() == [
        -1,
        0,
        0,
    ]


def test_one_tracklet_does_not_touch_another():
    features, tracklet, frame = tracklets_of([20, 30, 40], seed=3)
    together = isolate(features, tracklet, frame=frame)
    for t in range(3):
        own = tracklet == t
        np.testing.assert_array_equal(together[own], isolate(features[own], tracklet[own], frame=frame[own]))


def test_length_of_rows_does_not_matter():
    features, tracklet, frame = tracklets_of([30, 30])
    scale = np.random.default_rng(1).uniform(0.1, 50, (60, 1))
    np.testing.assert_array_equal(
        isolate(features * scale, tracklet, frame=frame), isolate(features, tracklet, frame=frame)
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_long_tracklets_and_their_blocks(dtype, monkeypatch):
    features, tracklet, frame = tracklets_of([300, 33, 257, 256])
    features = features.astype(dtype)
    want = slow(features, tracklet, 0.43, 3, "euclidean")
    assert len(np.unique(want)) > 2
    choice = {"frame": frame, "eps": 0.43, "min_samples": 3}
    np.testing.assert_array_equal(isolate(features, tracklet, **choice), want)
    monkeypatch.setattr(module, "_CELLS", 1)  # blocks of 64 rows, the fewest
    np.testing.assert_array_equal(isolate(features, tracklet, **choice), want)
    np.testing.assert_array_equal(isolate(np.asfortranarray(features), tracklet, **choice), want)


def test_memory_of_a_long_tracklet(monkeypatch):
    n = 3000
    features = np.random.default_rng(0).normal(size=(n, 8)).astype(np.float32)
    monkeypatch.setattr(module, "_CELLS", 1)  # blocks of 64 rows: 0.8 MB, where all pairs would be 36 MB
    frame, one = np.arange(n), np.zeros(n, int)
    isolate(features, one, frame=frame)
    tracemalloc.start()
    isolate(features, one, frame=frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n**2 / 8 + 3e6


def test_float32_does_not_decide_close_pairs():
    # Pairs with cosines about 1e-9 apart around 0.7: float32 products of width 512 err by some 1e-8.
    rng = np.random.default_rng(0)
    x, z = unit(rng.normal(size=(2, 400, 512)).reshape(800, 512)).reshape(2, 400, 512)
    z = unit(z - (z * x).sum(1, keepdims=True) * x)
    cosine = (0.7 + 1e-9 * np.arange(-200, 200))[:, None]
    features = np.stack([x, cosine * x + np.sqrt(1 - cosine**2) * z], 1).reshape(800, 512).astype(np.float32)
    wide = features.astype(np.float64).reshape(400, 2, 512)
    exact = (wide[:, 0] * wide[:, 1]).sum(1) / np.prod(np.linalg.norm(wide, axis=2), axis=1)
    single = features.reshape(400, 2, 512)
    rough = (single[:, 0] * single[:, 1]).sum(1)
    assert ((rough >= np.float32(0.7)) != (exact >= 0.7)).sum() > 20
    tracklet = np.repeat(np.arange(400), 2)
    for dtype in (np.float32, np.float64):
        part = isolate(
            features.astype(dtype), tracklet, frame=tracklet, eps=0.3, min_samples=1, metric="cosine"
        )
        np.testing.assert_array_equal(part[1::2] == 0, exact >= 0.7)


def test_rows_of_any_size():
    features, tracklet, frame = tracklets_of([30, 30, 1])
    features = features.astype(np.float32)
    want = isolate(features, tracklet, frame=frame)
    assert len(np.unique(want)) > 1
    for power in (-120, -60, 60, 110):  # squares of these are 0 or infinite in float32
        scale = np.where(np.arange(61) % 2, 2.0**power, 1)[:, None].astype(np.float32)
        np.testing.assert_array_equal(isolate(features * scale, tracklet, frame=frame), want)
    whole = np.round(features * 20).astype(np.int32)
    np.testing.assert_array_equal(
        isolate(whole, tracklet, frame=frame), isolate(whole.astype(np.float32), tracklet, frame=frame)
    )


@pytest.mark.parametrize("metric", module.METRICS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_without_a_direction_are_named(metric, dtype, monkeypatch):
    monkeypatch.setattr(frames, "_SPAN", 64)
    features, tracklet, frame = tracklets_of([9, 1, 300, 4])
    features = features.astype(dtype)
    for value, word in ((np.nan, "finite"), (np.inf, "finite"), (0, "direction")):
        bad = features.copy()
        bad[[4, 9, 200, 311]] = value  # in a tracklet, the only row of one, in a long one, in the last
        with pytest.raises(ValueError, match=rf"must (be|have a) {word}, but 4 rows are not: 4, 9, 200, 311"):
            isolate(bad, tracklet, frame=frame, metric=metric)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 12), max_size=4),
    st.integers(1, 4),
    st.floats(0.1, 1.9),
    st.integers(0, 2**32 - 1),
)
def test_small_sets(lengths, min_samples, eps, seed):
    features, tracklet, frame = tracklets_of(lengths, width=3, spread=1, seed=seed)
    got = isolate(features, tracklet, frame=frame, eps=eps, min_samples=min_samples)
    np.testing.assert_array_equal(got, slow(features, tracklet, eps, min_samples, "euclidean"))


def textbook_dbscan(near, min_samples):
    """Ester et al.'s algorithm as printed: visit, expand, mark; on an (n, n) table of neighbours."""
    label = [None] * len(near)
    degree = [sum(row) for row in near]
    cluster = -1
    for i in range(len(near)):
        if label[i] is not None:
            continue
        if degree[i] < min_samples:
            label[i] = -1
            continue
        cluster += 1
        label[i] = cluster
        seeds = [j for j in range(len(near)) if near[i][j]]
        for j in seeds:
            if label[j] == -1:
                label[j] = cluster
            if label[j] is None:
                label[j] = cluster
                if degree[j] >= min_samples:
                    seeds.extend(k for k in range(len(near)) if near[j][k] and label[k] in (None, -1))
    return np.array(label, np.int64)


def reference(features, tracklet, eps, min_samples, metric):
    part = np.zeros(len(tracklet), np.int64)
    for t in np.unique(tracklet):
        own = tracklet == t
        n = int(own.sum())
        if n < max(min_samples, 2):
            continue
        x = features[own].astype(np.longdouble)
        x /= np.sqrt((x * x).sum(1, keepdims=True))
        if metric == "jaccard":
            k1 = min(30, max(1, n // 4))
            stored = jaccard_distance(x.astype(np.float32), k1, min(6, max(1, k1 // 5))).tocoo()
            distance = np.ones((n, n))
            distance[stored.row, stored.col] = stored.data
            near = distance <= eps
        else:
            distance = 1 - (x[:, None] * x[None]).sum(2)
            near = distance <= (eps**2 / 2 if metric == "euclidean" else eps) + 1e-12
        np.fill_diagonal(near, True)
        label = textbook_dbscan(near.tolist(), min_samples)
        if (label >= 0).any():
            part[own] = label
    return part


def random_set(rng):
    """One to five tracklets of 0-40 rows with duplicates and, on a grid, many equal distances."""
    lengths = rng.integers(0, 41, rng.integers(1, 6)) // rng.choice([1, 1, 5])
    tracklet = np.repeat(rng.choice(9, len(lengths), replace=False), lengths)
    tracklet = np.sort(tracklet)
    n, width = len(tracklet), int(rng.choice([1, 2, 3, 4, 7, 33]))
    if rng.random() < 0.5:
        features = rng.integers(-2, 3, (n, width)).astype(float)
        features[(features == 0).all(1), 0] = 1
    else:
        features = rng.normal(size=(4, width))[rng.integers(0, 4, n)] + rng.choice([0.05, 0.5]) * rng.normal(
            size=(n, width)
        )
    if n:
        twin = rng.random(n) < 0.15
        features[twin] = features[rng.integers(0, n, twin.sum())]
    features *= rng.choice([1.0, 0.25, 3.0, 1000.0], (n, 1))
    return features.astype(rng.choice([np.float32, np.float64])), tracklet


def random_eps(rng, features, metric):
    """From tiny to beyond all, or exactly the distance of two of the rows."""
    limit = {"euclidean": 2.0, "cosine": 2.0, "jaccard": 0.99}[metric]
    if len(features) > 1 and metric != "jaccard" and rng.random() < 0.5:
        x, y = features[rng.choice(len(features), 2, replace=False)].astype(np.float64)
        distance = max(0.0, 1 - (x @ y) / np.sqrt((x @ x) * (y @ y)))
        distance = float(np.sqrt(2 * distance)) if metric == "euclidean" else distance
        if distance > 1e-3:
            return distance
    return float(rng.choice([1e-9, 1e-3, limit, rng.uniform(0.01, limit)], p=[0.05, 0.05, 0.05, 0.85]))


def test_thousands_of_small_sets_against_the_textbook(monkeypatch):
    rng = np.random.default_rng(0)
    parted = noise = 0
    for number in range(2000):
        features, tracklet = random_set(rng)
        frame = np.arange(len(tracklet))
        metric = str(rng.choice(module.METRICS, p=[0.5, 0.44, 0.06]))
        choice = {
            "eps": random_eps(rng, features, metric),
            "min_samples": int(rng.integers(1, 7)),
            "metric": metric,
        }
        want = reference(features, tracklet, **choice)
        spread = number % 5 == 0
        monkeypatch.setattr(frames, "_SPAN", 100 if spread else 1 << 20)  # 100: work for a pool of threads
        for n in (1, 2) if spread else (1,):
            with threads.limit(n):
                got = isolate(features, tracklet, frame=frame, **choice)
            np.testing.assert_array_equal(got, want, f"set {number}, {choice}, {n} threads")
        parted += want.max(initial=0) > 0
        noise += want.min(initial=0) < 0
    assert parted > 500
    assert noise > 300


def test_split_takes_it():
    features, tracklet, frame = tracklets_of([30, 30])
    n = len(frame)
    whole = Tracklets(
        tracklet=tracklet,
        frame=frame,
        time=frame / 25,
        box=np.zeros((n, 4)),
        score=np.ones(n),
        crop=np.arange(n),
        camid=np.zeros(2),
        source=np.arange(2),
    )
    cut = whole.split(isolate(features, tracklet, frame=frame, eps=0.7))
    assert len(cut) == 4
    assert cut.source.tolist() == [0, 0, 1, 1]


def test_nothing_in_nothing_out():
    none = np.zeros(0, int)
    assert isolate(np.zeros((0, 4)), none, frame=none, time=none).shape == (0,)
    assert adjacent_similarity(np.zeros((0, 4)), none).shape == (0,)


def test_adjacent_similarity():
    features = np.array([[2, 0], [0, 1], [0, 5], [-1, 0], [3, 4]])
    kept = features.copy()
    out = adjacent_similarity(features, np.array([0, 0, 0, 1, 1]))
    np.testing.assert_allclose(out, [np.nan, 0, 1, np.nan, -0.6], atol=1e-6)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(features, kept)


def test_refusals_and_input_unchanged():
    features, tracklet, frame = tracklets_of([4, 4])
    kept = features.copy()
    isolate(features, tracklet, frame=frame)
    np.testing.assert_array_equal(features, kept)
    for change, message in (
        ({"tracklet": tracklet[:5]}, r"tracklet has shape \(5,\), expected \(8,\)"),
        ({"frame": frame[:5]}, r"frame has shape \(5,\)"),
        ({"time": frame[:5]}, r"time has shape \(5,\)"),
        ({"tracklet": tracklet[::-1]}, "tracklet decreases"),
        ({"tracklet": tracklet[::-1].astype(np.uint32)}, "tracklet decreases"),
        ({"frame": frame[::-1]}, "frame decreases inside a tracklet at row 1"),
        ({"frame": frame[::-1].astype(np.uint32)}, "frame decreases inside a tracklet at row 1"),
        ({"method": "hdbscan"}, 'method is "hdbscan"'),
        ({"metric": "manhattan"}, 'metric is "manhattan", expected one of euclidean, cosine, jaccard'),
        ({"eps": 0}, "eps is 0"),
        ({"eps": float("nan")}, "eps is nan"),
        ({"min_samples": 0}, "min_samples is 0"),
    ):
        arguments = {"tracklet": tracklet, "frame": frame, **change}
        with pytest.raises(ValueError, match=message):
            isolate(features, arguments.pop("tracklet"), **arguments)
    for wrong, message in ((features[0], r"features has shape \(32,\)"), (features + 1j, "dtype complex128")):
        with pytest.raises(ValueError, match=message):
            isolate(wrong, tracklet, frame=frame)
    features[6] = 0
    with pytest.raises(ValueError, match="1 row is not: 6"):
        isolate(features, tracklet, frame=frame)
    features[6] = np.nan
    with pytest.raises(ValueError, match="finite"):
        adjacent_similarity(features, tracklet)
    with pytest.raises(ValueError, match="tracklet decreases"):
        adjacent_similarity(kept, tracklet[::-1])


def test_typical_step_is_the_median_adjacent_distance():
    features, tracklet, _ = tracklets_of([20, 30, 1])
    unit_rows = unit(features)
    step = np.linalg.norm(np.diff(unit_rows, axis=0), axis=1)[np.diff(tracklet) == 0]
    similarity = adjacent_similarity(features, tracklet)
    assert typical_step(similarity) == pytest.approx(np.median(step), abs=1e-5)
    assert typical_step(similarity, metric="cosine") == pytest.approx(np.median(step) ** 2 / 2, abs=1e-5)


@pytest.mark.parametrize("similarity", [np.zeros(0), np.full(3, np.nan), np.array([np.nan, 1.0, 1.0])])
def test_typical_step_falls_back_where_adjacent_frames_tell_nothing(similarity):
    assert typical_step(similarity.astype(np.float32)) == 0.6


def test_no_jaccard_distance_is_above_one():
    features, tracklet, frame = np.repeat(np.eye(2), 6, axis=0), np.zeros(12, int), np.arange(12)
    assert isolate(features, tracklet, frame=frame, eps=0.99, metric="jaccard").any()
    assert not isolate(features, tracklet, frame=frame, eps=1, metric="jaccard").any()


def test_typical_step_refuses_jaccard():
    with pytest.raises(ValueError, match="give eps a number for jaccard"):
        typical_step(np.zeros(2), metric="jaccard")
