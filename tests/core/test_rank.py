"""Distances, search and retrieval scores against walks down the ranking and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from tracklearn.core import rank
from tracklearn.core.jaccard import MODES, jaccard_distance
from tracklearn.core.rank import distance, evaluate, nearest, rerank


def unit(x):
    x = np.asarray(x, np.float64)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def slow(far, query_pid, gallery_pid, query_camid, gallery_camid, ap, same_camera=False, exclude=None):
    """mAP, CMC and the number of valid queries, walking down each ranking; wrong ones first among equals."""
    aps, cmc = [], np.zeros(far.shape[1])
    for q, row in enumerate(far):
        entries = []
        for g, d in enumerate(row):
            same = gallery_pid[g] == query_pid[q]
            junk = gallery_pid[g] == -1 or (same and not same_camera and gallery_camid[g] == query_camid[q])
            if not junk and not (exclude is not None and exclude[q] == g):
                entries.append((d, same))
        entries.sort()
        if not any(same for _, same in entries):
            continue
        if ap == "sklearn":
            aps.append(average_precision_score([s for _, s in entries], [-d for d, _ in entries]))
        found, total, before = 0, 0.0, 1.0
        for at, (_, same) in enumerate(entries, 1):
            if same:
                if not found:
                    cmc[at - 1 :] += 1
                found += 1
                total += (found / at + before) / 2 if ap == "trapezoid" else found / at
            before = found / at
        if ap != "sklearn":
            aps.append(total / found)
    n = len(aps)
    return (np.mean(aps), cmc / n, n) if n else (np.nan, cmc * np.nan, 0)


def random_case(q, g, seed, levels=0):
    rng = np.random.default_rng(seed)
    far = rng.integers(0, levels, (q, g)) / levels if levels else rng.random((q, g))
    labels = [rng.integers(-1, 4, s) for s in (q, g)] + [rng.integers(0, 2, s) for s in (q, g)]
    return far.astype(np.float32), *labels


@settings(max_examples=120, deadline=None)
@given(
    q=st.integers(0, 8),
    g=st.integers(0, 15),
    levels=st.sampled_from([0, 1, 3]),
    ap=st.sampled_from(rank.AP),
    same_camera=st.booleans(),
    drop=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_same_as_walking_down_the_ranking(q, g, levels, ap, same_camera, drop, seed):
    case = random_case(q, g, seed, levels)
    case[1][:] = np.abs(case[1])
    exclude = np.random.default_rng(seed).integers(-1, g, q) if drop else None
    got = evaluate(*case, ap=ap, same_camera=same_camera, exclude=exclude, max_rank=99)
    mean, cmc, n_valid = slow(*case, ap=ap, same_camera=same_camera, exclude=exclude)
    assert (got.n_valid, got.n_skipped) == (n_valid, q - n_valid)
    assert got.mAP == pytest.approx(mean, nan_ok=True, abs=1e-12)
    np.testing.assert_allclose(got.cmc, cmc)


def test_hand_toy():
    """One query; ranking: wrong, true, junk, same camera, true."""
    far = np.array([[0.1, 0.2, 0.3, 0.4, 0.5]])
    arguments = (np.array([7]), np.array([3, 7, -1, 7, 7]), np.array([0]), np.array([1, 1, 1, 0, 2]))
    scores = evaluate(far, *arguments)
    assert scores.mAP == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert scores.cmc.tolist() == [0, 1, 1, 1, 1]
    assert (scores.rank(1), scores.rank(5)) == (0, 1)
    assert evaluate(far, *arguments, ap="trapezoid").mAP == pytest.approx(
        ((0 + 1 / 2) / 2 + (1 / 2 + 2 / 3) / 2) / 2
    )
    assert evaluate(far, *arguments, same_camera=True).mAP == pytest.approx((1 / 2 + 2 / 3 + 3 / 4) / 3)
    assert evaluate(far, *arguments, exclude=np.array([0])).mAP == 1
    assert evaluate(far, *arguments, exclude=np.array([1])).mAP == pytest.approx(1 / 2)


def test_pessimistic_and_independent_of_gallery_order():
    """A model that puts everything at one distance ranks every match last, in any order."""
    far = np.zeros((1, 10))
    for at in range(10):
        gallery_pid = np.zeros(10, int)
        gallery_pid[at] = 5
        scores = evaluate(far, np.array([5]), gallery_pid, np.array([0]), np.ones(10, int))
        assert scores.mAP == pytest.approx(0.1)
        assert scores.cmc.tolist() == [0] * 9 + [1]


@pytest.mark.parametrize("ap", rank.AP)
def test_gallery_order_does_not_matter(ap):
    far, query_pid, gallery_pid, query_camid, gallery_camid = random_case(20, 60, 1, levels=5)
    turn = np.random.default_rng(0).permutation(60)
    a = evaluate(far, query_pid, gallery_pid, query_camid, gallery_camid, ap=ap)
    b = evaluate(far[:, turn], query_pid, gallery_pid[turn], query_camid, gallery_camid[turn], ap=ap)
    assert a.mAP == b.mAP
    np.testing.assert_array_equal(a.cmc, b.cmc)


def test_only_order_of_distances_counts():
    case = random_case(20, 60, 2)
    squared = evaluate(case[0] ** 2, *case[1:])
    assert squared.mAP == evaluate(*case).mAP


def test_max_rank_and_protocol():
    far, *labels = random_case(20, 60, 3)
    short = evaluate(far, *labels, max_rank=5, protocol="MARS official")
    np.testing.assert_array_equal(short.cmc, evaluate(far, *labels).cmc[:5])
    assert short.protocol == "MARS official, cross-camera, AP hits"
    assert (
        evaluate(far, *labels, same_camera=True, ap="sklearn").protocol == "same camera allowed, AP sklearn"
    )
    assert len(evaluate(far, *labels, max_rank=1000).cmc) == 60


def test_no_valid_query():
    one = np.zeros(1, int)
    scores = evaluate(np.zeros((1, 1)), one, one + 1, one, one)
    assert np.isnan(scores.mAP)
    assert np.isnan(scores.cmc).all()
    assert (scores.n_valid, scores.n_skipped) == (0, 1)
    junk = evaluate(np.zeros((1, 1)), one - 1, one - 1, one, one + 1)
    assert (junk.n_valid, junk.n_skipped) == (0, 1)
    assert evaluate(np.zeros((0, 4)), one[:0], np.zeros(4, int), one[:0], np.zeros(4, int)).n_valid == 0


def test_infinite_distances_rank_last():
    far = np.array([[np.inf, 0.5]])
    one = np.array([1])
    scores = evaluate(far, one, np.array([1, 2]), np.array([0]), np.array([1, 1]))
    assert scores.mAP == pytest.approx(1 / 2)


def test_evaluate_refusals_and_input_unchanged():
    far, *labels = random_case(4, 6, 5)
    kept = far.copy()
    evaluate(far, *labels)
    np.testing.assert_array_equal(far, kept)
    with pytest.raises(ValueError, match=r"query_pid has shape \(6,\), expected \(4,\)"):
        evaluate(far, labels[1], labels[1], labels[2], labels[3])
    with pytest.raises(ValueError, match=r"gallery_camid has shape \(4,\), expected \(6,\)"):
        evaluate(far, labels[0], labels[1], labels[2], labels[2])
    with pytest.raises(ValueError, match=r"distance has shape \(4,\)"):
        evaluate(far[:, 0], *labels)
    with pytest.raises(ValueError, match=r"exclude has shape \(1,\)"):
        evaluate(far, *labels, exclude=np.array([-1]))
    with pytest.raises(ValueError, match=r"exclude runs from 6 to 6, expected gallery rows 0\.\.5"):
        evaluate(far, *labels, exclude=np.full(4, 6))
    with pytest.raises(ValueError, match='ap is "area"'):
        evaluate(far, *labels, ap="area")
    with pytest.raises(ValueError, match="max_rank is 0"):
        evaluate(far, *labels, max_rank=0)
    far[2, 1] = np.nan
    with pytest.raises(ValueError, match="NaN in 1 rows, the first is query 2"):
        evaluate(far, *labels)


class TestDistance:
    def test_same_as_norms(self, monkeypatch):
        rng = np.random.default_rng(0)
        query, gallery = unit(rng.normal(size=(20, 16))), unit(rng.normal(size=(33, 16)))
        want = np.linalg.norm(query[:, None].astype(float) - gallery[None].astype(float), axis=2)
        np.testing.assert_allclose(distance(query, gallery), want, atol=1e-6)
        assert distance(query, gallery).dtype == np.float32
        monkeypatch.setattr(rank, "_BLOCK", 7)
        np.testing.assert_allclose(distance(query, gallery), want, atol=1e-6)

    def test_equal_rows_are_at_zero(self):
        x = unit(np.random.default_rng(1).normal(size=(40, 2048)))
        assert distance(x, x).diagonal().max() < 1e-6

    def test_empty_and_refusals(self):
        x = np.eye(3, dtype=np.float32)
        assert distance(x[:0], x).shape == (0, 3)
        assert distance(x, x[:0]).shape == (3, 0)
        with pytest.raises(ValueError, match="query has width 3 and gallery 4"):
            distance(x, np.eye(4))
        with pytest.raises(ValueError, match="gallery must have rows of unit length"):
            distance(x, 2 * x)


def test_nearest():
    rng = np.random.default_rng(2)
    query, gallery = unit(rng.normal(size=(6, 16))), unit(rng.normal(size=(30, 16)))
    found = nearest(query, gallery, 5)
    far = distance(query, gallery)
    np.testing.assert_array_equal(found.index, np.argsort(far, axis=1, kind="stable")[:, :5])
    np.testing.assert_allclose(found.distance, np.sort(far, axis=1)[:, :5], atol=1e-6)
    few = nearest(query, gallery[:2], 4)
    assert (few.index[:, 2:] == -1).all()
    assert np.isinf(few.distance[:, 2:]).all()
    assert nearest(query, gallery[:0], 2).index.tolist() == [[-1, -1]] * 6
    with pytest.raises(ValueError, match="k is 0"):
        nearest(query, gallery, 0)


def people(n, n_people, width=32, spread=0.6, seed=0):
    rng = np.random.default_rng(seed)
    pid = rng.integers(0, n_people, n)
    return unit(rng.normal(size=(n_people, width))[pid] + spread * rng.normal(size=(n, width))), pid


def textbook(query, gallery, k1, k2, lambda_value, mode="mmt"):
    """Zhong et al. 2017 with dense matrices, as the authors compute it; ties to the lower row."""
    x = np.concatenate([query, gallery]).astype(np.float64)
    n, q = len(x), len(query)
    squared = np.array([[2 - 2 * float(np.sum(a * b)) for b in x] for a in x])
    squared = np.maximum(np.rint(squared * 2**40) / 2**40, 0)
    most = squared.max(axis=0)
    original = (squared / np.where(most > 1e-6, most, 1.0)).T
    order = np.argsort(squared, axis=1, kind="stable")
    first = k1 if mode == "spcl" else k1 + 1
    half = min(first, int(np.around(k1 / 2)) + 1)

    def reciprocal(i, k):
        forward = order[i, :k]
        return forward[(order[forward, :k] == i).any(1)]

    v = np.zeros((n, n))
    for i in range(n):
        own = reciprocal(i, first)
        expansion = own
        for candidate in own:
            more = reciprocal(candidate, half)
            if 3 * len(np.intersect1d(more, own)) > 2 * len(more):
                expansion = np.append(expansion, more)
        expansion = np.unique(expansion)
        if len(expansion):
            weight = np.exp(-(original if mode == "mmt" else squared)[i, expansion])
            v[i, expansion] = weight / weight.sum()
    if k2 > 1:
        v = np.stack([v[order[i, :k2]].mean(0) for i in range(n)])
    shared = np.array([[np.minimum(v[i], v[j]).sum() for j in range(q, n)] for i in range(q)])
    jaccard = 1 - shared / (2 - shared)
    return jaccard * (1 - lambda_value) + original[:q, q:] * lambda_value


class TestRerank:
    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize(
        ("k1", "k2", "lambda_value"),
        [(20, 6, 0.3), (7, 3, 0), (5, 1, 0.5), (1, 1, 1), (2, 9, 0.3), (90, 80, 0.1)],
    )
    def test_same_as_the_textbook(self, k1, k2, lambda_value, mode):
        x, _ = people(70, 9, seed=k1)
        got = rerank(x[:17], x[17:], k1=k1, k2=k2, lambda_value=lambda_value, mode=mode)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, textbook(x[:17], x[17:], k1, k2, lambda_value, mode), atol=1e-5)

    @settings(max_examples=100, deadline=None)
    @given(
        q=st.integers(1, 6),
        g=st.integers(1, 9),
        width=st.integers(1, 4),
        k1=st.integers(1, 16),
        k2=st.integers(1, 16),
        lambda_value=st.sampled_from([0.0, 0.3, 1.0]),
        mode=st.sampled_from(MODES),
        tied=st.booleans(),
        seed=st.integers(0, 2**32 - 1),
    )
    def test_small_sets(self, q, g, width, k1, k2, lambda_value, mode, tied, seed):
        rng = np.random.default_rng(seed)
        x = rng.integers(-1, 2, (q + g, width)) if tied else rng.normal(size=(q + g, width))
        x[~x.any(1), 0] = 1
        x = unit(x)
        got = rerank(x[:q], x[q:], k1=k1, k2=k2, lambda_value=lambda_value, mode=mode)
        assert got.shape == (q, g)
        np.testing.assert_allclose(got, textbook(x[:q], x[q:], k1, k2, lambda_value, mode), atol=1e-5)

    def test_defaults_are_the_published_ones(self):
        x, _ = people(60, 6)
        np.testing.assert_allclose(rerank(x[:9], x[9:]), textbook(x[:9], x[9:], 20, 6, 0.3), atol=1e-5)

    @pytest.mark.parametrize("mode", MODES)
    def test_jaccard_part_is_jaccard_distance(self, mode):
        x, _ = people(80, 8)
        stored = jaccard_distance(x, 12, 4, mode=mode).tocoo()
        want = np.ones(stored.shape, np.float32)
        want[stored.row, stored.col] = stored.data
        got = rerank(x[:20], x[20:], k1=12, k2=4, lambda_value=0, mode=mode)
        np.testing.assert_allclose(got, want[:20, 20:], atol=1e-6)

    def test_original_part_keeps_the_order_of_distances(self):
        x, _ = people(60, 6)
        got = rerank(x[:9], x[9:], lambda_value=1)
        np.testing.assert_array_equal(got.argsort(1), distance(x[:9], x[9:]).argsort(1))

    def test_raises_the_scores_of_noisy_features(self):
        x, pid = people(300, 20, spread=1.5, seed=4)
        camid = np.arange(300) % 2
        labels = pid[:60], pid[60:], camid[:60], camid[60:]
        before = evaluate(distance(x[:60], x[60:]), *labels).mAP
        assert evaluate(rerank(x[:60], x[60:], k1=10), *labels).mAP > before + 0.02

    def test_gallery_order_does_not_matter(self):
        x, _ = people(70, 9)
        turn = np.random.default_rng(1).permutation(50)
        a, b = rerank(x[:20], x[20:], k1=8), rerank(x[:20], x[20:][turn], k1=8)
        np.testing.assert_allclose(b, a[:, turn], atol=1e-6)

    def test_blocks_do_not_show(self, monkeypatch):
        x, _ = people(70, 9)
        want = rerank(x[:20], x[20:], k1=8)
        monkeypatch.setattr(rank, "_BLOCK", 7)
        np.testing.assert_allclose(rerank(x[:20], x[20:], k1=8), want, atol=1e-6)

    def test_empty_and_refusals_and_input_unchanged(self):
        x, _ = people(12, 3)
        kept = x.copy()
        rerank(x[:4], x[4:])
        np.testing.assert_array_equal(x, kept)
        assert rerank(x[:0], x).shape == (0, 12)
        assert rerank(x, x[:0]).shape == (12, 0)
        for change, message in (
            ({"k1": 0}, "k1 is 0"),
            ({"k2": 0}, "k2 is 0"),
            ({"lambda_value": -0.1}, "lambda_value is -0.1"),
            ({"lambda_value": float("nan")}, "lambda_value is nan"),
            ({"mode": "zhong"}, 'mode is "zhong", expected one of tracklearn, mmt, spcl'),
        ):
            with pytest.raises(ValueError, match=message):
                rerank(x[:4], x[4:], **change)
        with pytest.raises(ValueError, match="query has width 32 and gallery 5"):
            rerank(x, np.eye(5))
        with pytest.raises(ValueError, match="gallery must have rows of unit length"):
            rerank(x, 2 * x)


class TestNearestByDistance:
    def test_takes_a_reranked_distance(self):
        x, _ = people(70, 9)
        far = rerank(x[:20], x[20:], k1=8)
        found = nearest(x[:20], x[20:], 6, distance=far)
        want = np.argsort(far, axis=1, kind="stable")[:, :6]
        np.testing.assert_array_equal(found.index, want)
        np.testing.assert_array_equal(found.distance, np.take_along_axis(far, want, axis=1))

    @settings(max_examples=60, deadline=None)
    @given(g=st.integers(0, 9), k=st.integers(1, 12), seed=st.integers(0, 2**32 - 1))
    def test_ties_go_to_the_lower_row(self, g, k, seed):
        far = np.random.default_rng(seed).choice([0.0, 0.5, np.inf], (3, g))
        found = nearest(np.eye(3), np.ones((g, 3)), k, distance=far)
        assert found.index.shape == found.distance.shape == (3, k)
        np.testing.assert_array_equal(found.index[:, :g], np.argsort(far, axis=1, kind="stable")[:, :k])
        assert (found.index[:, g:] == -1).all()
        assert np.isinf(found.distance[:, g:]).all()

    def test_refusals(self):
        x = np.eye(3)
        with pytest.raises(ValueError, match=r"distance has shape \(3, 2\), expected .* \(3, 3\)"):
            nearest(x, x, 1, distance=np.zeros((3, 2)))
        with pytest.raises(ValueError, match="k is 0"):
            nearest(x, x, 0, distance=np.zeros((3, 3)))
        with pytest.raises(ValueError, match="NaN in 3 rows, the first is query 0"):
            nearest(x, x, 1, distance=np.full((3, 3), np.nan))
