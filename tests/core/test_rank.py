"""Distances, search and retrieval scores against walks down the ranking and scikit-learn."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat
from sklearn.metrics import average_precision_score

from tracklearn.core import coded, rank, threads
from tracklearn.core.jaccard import MODES, columns_needed, jaccard_distance
from tracklearn.core.neighbors import k_nearest_and_farthest
from tracklearn.core.rank import distance, evaluate, nearest, rerank


def unit(x):
    x = np.asarray(x, np.float64)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def walk(far, query_pid, gallery_pid, query_camid, gallery_camid, ap, same_camera=False, own=None, gone=()):
    """mAP, CMC and the number of valid queries, walking down each ranking; wrong ones first among equals.

    `own` are the queries' own rows, `gone` the rows that no gallery has.
    """
    aps, cmc = [], np.zeros(len(gallery_pid))
    for q, row in enumerate(far):
        entries = []
        for g, d in enumerate(row):
            same = gallery_pid[g] == query_pid[q]
            junk = gallery_pid[g] < 0 or (same and not same_camera and gallery_camid[g] == query_camid[q])
            if not junk and g not in gone and not (own is not None and own[q] == g):
                entries.append((d, same))
        entries.sort()
        n_true = sum(same for _, same in entries)
        if not n_true:
            continue
        found, total, before = 0, 0.0, 1.0
        for at, (d, same) in enumerate(entries, 1):
            if same:
                if not found:
                    cmc[at - 1 :] += 1
                found += 1
                if ap == "hits":
                    total += found / at
                elif ap == "trapezoid":
                    total += (found / at + before) / 2
                else:  # one threshold per distance
                    level = [s for other, s in entries if other <= d]
                    total += sum(level) / len(level)
            before = found / at
        aps.append(total / n_true)
    n = len(aps)
    return (sum(aps) / n, cmc / n, n) if n else (np.nan, cmc * np.nan, 0)


def same_scores(got, want):
    mean, cmc, n_valid = want
    assert got.n_valid == n_valid
    np.testing.assert_allclose(got.mAP, mean, rtol=0, atol=1e-12)
    np.testing.assert_allclose(got.cmc, cmc[: len(got.cmc)], rtol=0, atol=1e-12)


def random_case(q, g, seed, levels=0):
    rng = np.random.default_rng(seed)
    far = rng.integers(0, levels, (q, g)) / levels if levels else rng.random((q, g))
    labels = [rng.integers(-1, 4, s) for s in (q, g)] + [rng.integers(0, 2, s) for s in (q, g)]
    return far.astype(np.float32), *labels


def test_same_as_walking_down_the_ranking(monkeypatch):
    """2,000 small cases over all AP variants, both protocols, both camera rules, 1 and 2 threads."""
    monkeypatch.setattr(rank, "_ROWS", 2)
    rng = np.random.default_rng(0)
    settings = list(product(rank.AP, rank.PROTOCOLS, (False, True), (1, 2)))
    for case in range(2000):
        ap, protocol, same_camera, n_threads = settings[case % len(settings)]
        q, g = rng.integers(0, 7), rng.integers(0, 14)
        far = rng.random((q, g))
        levels = rng.choice([0, 1, 3])  # distances all different, all tied, many tied
        if levels:
            far = np.floor(far * levels) / levels
        far[rng.random((q, g)) < rng.choice([0, 0.3])] = np.inf
        far = far.astype(rng.choice([np.float32, np.float64]))
        cameras = rng.integers(1, 4)
        labels = [rng.integers(-1, 4, s) for s in (q, g)] + [rng.integers(0, cameras, s) for s in (q, g)]
        own = rng.integers(-1, g, q)
        gone = set(own[own >= 0].tolist()) if protocol == "gallery-excludes-queries" else ()
        with threads.limit(n_threads):
            got = evaluate(
                *(far, *labels),
                ap=ap,
                protocol=protocol,
                same_camera=same_camera,
                query_row=own,
                max_rank=int(rng.integers(1, 20)),
            )
        same_scores(got, walk(far, *labels, ap, same_camera, own, gone))
        assert got.n_valid + got.n_skipped == q


def test_ap_sklearn_is_scikit_learns():
    for seed in range(100):
        far, *labels = random_case(1, 12, seed, levels=seed % 5)
        labels[0][:] = 1
        labels[1][:2] = 1
        got = evaluate(far, *labels, ap="sklearn", same_camera=True).mAP
        kept = labels[1] >= 0
        assert got == pytest.approx(average_precision_score(labels[1][kept] == 1, -far[0, kept]), abs=1e-12)


@pytest.mark.parametrize("ap", rank.AP)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("levels", [0, 40])
def test_long_galleries_with_few_and_many_matches(ap, kind, levels):
    """Several blocks of distances; one person with few matches, one with more than a search is kept for."""
    rng = np.random.default_rng(levels)
    gallery_pid = rng.permutation(np.repeat([1, 2, 3], [4, 700, 8700]))
    far = rng.random((2, len(gallery_pid)))
    far[:, gallery_pid == 3] += 0.1
    far = (np.floor(far * levels) / levels if levels else far).astype(kind)
    got = evaluate(far, [1, 2], gallery_pid, [0, 0], np.ones_like(gallery_pid), ap=ap)
    aps = []
    for row, pid in zip(far.astype(float), (1, 2), strict=True):
        true = np.sort(row[gallery_pid == pid])
        wrong = row[gallery_pid != pid]
        total = 0.0
        for n, d in enumerate(true.tolist(), 1):
            ahead = int((wrong <= d).sum())
            n_tied = int((true <= d).sum())
            last = (n - 1) / (n - 1 + ahead) if n - 1 + ahead else 1
            value = {"hits": n / (n + ahead), "sklearn": n_tied / (n_tied + ahead)}
            total += value[ap] if ap in value else (value["hits"] + last) / 2
        aps.append(total / len(true))
    assert got.mAP == pytest.approx(np.mean(aps), abs=1e-12)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_any_type_and_order_of_distances(n_threads):
    far, *labels = random_case(150, 90, 4, levels=200)
    want = evaluate(far, *labels)
    whole = (far * 200).round()
    spaced = np.zeros((300, 180), np.float32)
    spaced[::2, ::-2] = far
    fixed = far.copy()
    fixed.flags.writeable = False
    with threads.limit(n_threads):
        for other in (
            *(far.astype(kind) for kind in (np.float64, ">f4", ">f8")),
            *(whole.astype(kind) for kind in (np.float16, np.int16, np.uint8, np.int64)),
            *(np.asfortranarray(far), spaced[::2, ::-2], fixed, far.tolist()),
        ):
            got = evaluate(other, *labels)
            assert (got.mAP, got.n_valid) == (want.mAP, want.n_valid)
            np.testing.assert_array_equal(got.cmc, want.cmc)
        flags = far > 0.5
        same_scores(evaluate(flags, *labels), walk(flags[:150], *labels, "hits"))


@pytest.mark.parametrize("n_threads", [1, 2])
def test_features_score_as_their_distances(n_threads, monkeypatch):
    rng = np.random.default_rng(3)
    x = unit(rng.normal(size=(260, 8)))
    x[100:140] = x[60:100]  # distances of zero, and ties
    pid, camid = rng.integers(-1, 20, 260), rng.integers(0, 3, 260)
    own = np.arange(60)
    arguments = pid[:60], pid, camid[:60], camid
    for protocol in rank.PROTOCOLS:
        want = evaluate(distance(x[:60], x), *arguments, query_row=own, protocol=protocol)
        with monkeypatch.context() as patch, threads.limit(n_threads):
            patch.setattr(rank, "_ROWS", 7)
            patch.setattr(rank, "_BLOCK", 50)
            patch.setattr(rank, "_CELLS", 2000)
            got = evaluate((x[:60], x), *arguments, query_row=own, protocol=protocol)
        assert got.mAP == pytest.approx(want.mAP, abs=1e-12)
        np.testing.assert_array_equal(got.cmc, want.cmc)
        assert got.protocol == want.protocol
    empty = evaluate((x[:0], x), pid[:0], pid, camid[:0], camid)
    assert (empty.n_valid, empty.n_skipped) == (0, 0)
    with pytest.raises(ValueError, match="gallery must have rows of unit length"):
        evaluate((x[:60], 2 * x), *arguments)
    with pytest.raises(ValueError, match="query has width 8 and gallery 7"):
        evaluate((x[:60], unit(x[:, :7])), *arguments)


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
    assert evaluate(far, *arguments, query_row=np.array([0])).mAP == 1
    assert evaluate(far, *arguments, query_row=np.array([1])).mAP == pytest.approx(1 / 2)


def test_protocols_by_hand():
    """Gallery rows 0 and 1 are the queries themselves, both of person 7 in different cameras."""
    far = np.array([[0.0, 0.1, 0.2, 0.3], [0.1, 0.0, 0.2, 0.3]])
    arguments = (np.array([7, 7]), np.array([7, 7, 3, 7]), np.array([0, 1]), np.array([0, 1, 1, 1]))
    own = np.array([0, 1])
    official = evaluate(far, *arguments, query_row=own)
    # Query 0 finds query 1 first, then one wrong, then row 3; query 1 finds query 0 first.
    assert official.mAP == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)
    assert (official.n_valid, official.n_skipped) == (2, 0)
    assert official.cmc.tolist() == [1, 1, 1, 1]
    without = evaluate(far, *arguments, query_row=own, protocol="gallery-excludes-queries")
    # Query 0 finds row 3 behind row 2; query 1 has only matches of its own camera left.
    assert without.mAP == pytest.approx(1 / 2)
    assert (without.n_valid, without.n_skipped) == (1, 1)
    assert without.cmc.tolist() == [0, 1, 1, 1]
    assert without.protocol == "gallery-excludes-queries, cross-camera, AP hits"
    apart = evaluate(far, *arguments, query_row=[-1, -1], protocol="gallery-excludes-queries")
    assert (apart.mAP, apart.n_valid) == (official.mAP, 2)


@pytest.mark.parametrize(
    ("protocol", "n_valid", "n_skipped"), [("official", 1980, 0), ("gallery-excludes-queries", 1840, 140)]
)
def test_mars_has_its_known_numbers_of_valid_queries(data, protocol, n_valid, n_skipped):
    tracks = loadmat(data / "mars" / "tracks_test_info.mat")["track_test_info"]
    query = loadmat(data / "mars" / "query_IDX.mat")["query_IDX"][0].astype(int) - 1
    pid, camid = tracks[:, 2], tracks[:, 3]
    assert (len(pid), (pid == -1).sum(), (pid == 0).sum(), len(query)) == (12180, 870, 3248, 1980)
    x = unit(np.random.default_rng(0).normal(size=(len(pid), 16)))
    own = (pid[query], pid, camid[query], camid)
    scores = evaluate((x[query], x), *own, query_row=query, protocol=protocol)
    assert (scores.n_valid, scores.n_skipped) == (n_valid, n_skipped)
    assert 0 < scores.mAP < 0.02
    if protocol == "gallery-excludes-queries":
        rest = np.setdiff1d(np.flatnonzero(pid >= 0), query)
        assert len(rest) == 9330
        left = evaluate((x[query], x[rest]), pid[query], pid[rest], camid[query], camid[rest])
        assert left.mAP == pytest.approx(scores.mAP, abs=1e-12)
        np.testing.assert_array_equal(left.cmc, scores.cmc)


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
    short = evaluate(far, *labels, max_rank=5, note="MARS test")
    np.testing.assert_array_equal(short.cmc, evaluate(far, *labels).cmc[:5])
    assert short.protocol == "MARS test, official, cross-camera, AP hits"
    other = evaluate(far, *labels, same_camera=True, ap="sklearn")
    assert other.protocol == "official, same camera allowed, AP sklearn"
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
    with pytest.raises(ValueError, match=r"query_row has shape \(1,\)"):
        evaluate(far, *labels, query_row=np.array([-1]))
    with pytest.raises(ValueError, match=r"query_row runs from 6 to 6, expected gallery rows 0\.\.5"):
        evaluate(far, *labels, query_row=np.full(4, 6))
    with pytest.raises(ValueError, match='protocol "gallery-excludes-queries" needs query_row'):
        evaluate(far, *labels, protocol="gallery-excludes-queries")
    with pytest.raises(ValueError, match='protocol is "MARS", expected one of official, gallery-excl'):
        evaluate(far, *labels, protocol="MARS")
    with pytest.raises(ValueError, match="gallery_pid has dtype float64, expected integers"):
        evaluate(far, labels[0], labels[1] + 0.5, *labels[2:])
    with pytest.raises(ValueError, match="distance has dtype complex64, expected real numbers"):
        evaluate(far + 1j, *labels)
    with pytest.raises(ValueError, match='ap is "area"'):
        evaluate(far, *labels, ap="area")
    with pytest.raises(ValueError, match="max_rank is 0"):
        evaluate(far, *labels, max_rank=0)
    far[2, 1] = np.nan
    labels[0][2] = -1  # also where it would not count: a skipped query, a junk entry
    labels[1][1] = -1
    for kind in (np.float16, np.float32, np.float64):
        with pytest.raises(ValueError, match="NaN in 1 rows, the first is query 2"):
            evaluate(far.astype(kind), *labels)


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

    @pytest.mark.parametrize("mode", MODES)
    def test_by_8_bit_products(self, mode, monkeypatch):
        monkeypatch.setattr(coded, "_FEW", 0)
        x, _ = people(300, 40, seed=5)
        given = x[:40], x[40:]
        got = rerank(*given, k1=7, k2=3, mode=mode, neighbors="int8")
        np.testing.assert_allclose(got, rerank(*given, k1=7, k2=3, mode=mode), atol=1e-6)
        np.testing.assert_allclose(got, textbook(*given, 7, 3, 0.3, mode), atol=1e-5)
        if mode == "mmt":
            with pytest.raises(ValueError, match='method is "ann"'):
                rerank(*given, mode=mode, neighbors="ann")

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
        # The farthest distances that others are divided by are known to 1e-6: much where all rows are close.
        far = k_nearest_and_farthest(x, 1)[2].min()
        want = textbook(x[:q], x[q:], k1, k2, lambda_value, mode)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 + 1e-6 / far)

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

    def test_blocks_and_threads_do_not_show(self, monkeypatch):
        x, _ = people(70, 9)
        want = rerank(x[:20], x[20:], k1=8)
        monkeypatch.setattr(rank, "_QUERIES", 7)
        got = []
        for n_threads in (1, 2):
            with threads.limit(n_threads):
                got.append(rerank(x[:20], x[20:], k1=8))
        np.testing.assert_array_equal(got[0], got[1])
        np.testing.assert_allclose(got[0], want, atol=1e-6)

    @pytest.mark.parametrize("mode", MODES)
    def test_known_neighbours_change_nothing(self, mode):
        x, _ = people(70, 9)
        want = rerank(x[:20], x[20:], k1=8, k2=4, mode=mode)
        enough = columns_needed(70, 8, 4, mode)
        for k in (enough, enough + 5):
            known = k_nearest_and_farthest(x, k)
            got = rerank(x[:20], x[20:], k1=8, k2=4, mode=mode, known=known)
            np.testing.assert_array_equal(got, want)
        index, squared, far = k_nearest_and_farthest(x, enough - 1)
        with pytest.raises(ValueError, match=f"k at least {enough}"):
            rerank(x[:20], x[20:], k1=8, k2=4, mode=mode, known=(index, squared, far))
        index, squared, far = k_nearest_and_farthest(x[:60], enough)
        with pytest.raises(ValueError, match=r"known has shapes .* expected \(70, k\)"):
            rerank(x[:20], x[20:], k1=8, k2=4, mode=mode, known=(index, squared, far))
        index, squared, far = k_nearest_and_farthest(x, enough)
        with pytest.raises(ValueError, match="known names rows 1 to 70, expected 0 to 69"):
            rerank(x[:20], x[20:], k1=8, k2=4, mode=mode, known=(index + 1, squared, far))

    def test_equal_rows_are_at_zero(self):
        """Float32 products of wide rows leave up to 1e-6 between equal rows, and lengths are not quite 1."""
        x, _ = people(60, 6, width=2048)
        x *= np.random.default_rng(0).uniform(0.9995, 1.0005, (60, 1)).astype(np.float32)
        x = np.concatenate([x, x])
        for lambda_value in (0.3, 1):
            got = rerank(x[:60], x[60:], k1=10, k2=4, lambda_value=lambda_value)
            np.testing.assert_array_equal(got.diagonal(), 0)

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
