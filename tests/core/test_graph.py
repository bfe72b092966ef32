"""The cross-view graph and its measures, against a float64 textbook that looks at everything."""

import math

import numpy as np
import pytest
import torch

from tracklearn.core import coded, graph
from tracklearn.core.graph import (
    Graph,
    changes,
    components,
    cross_view,
    links,
    precision_recall,
    transitivity,
)
from tracklearn.core.kernels import products
from tracklearn.core.threads import limit


def unit(x):
    x = np.asarray(x, np.float64)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def angles(*degrees):
    """Rows in the plane; the cosine of two is that of the angle between them."""
    a = np.deg2rad(degrees)
    return np.stack([np.cos(a), np.sin(a)], 1).astype(np.float32)


def slow(x, camid, k, threshold):
    """(t, t) bool from the definition: every product in float64, every row sorted by (distance, row)."""
    product = x.astype(np.float64) @ x.astype(np.float64).T
    distance = np.rint((2 - 2 * product) * 2**40) / 2**40
    near = np.zeros(distance.shape, bool)
    for i in range(len(x)):
        for camera in set(camid) - {camid[i]}:
            others = sorted(np.flatnonzero(camid == camera), key=lambda j, i=i: (distance[i, j], j))
            near[i, others[:k]] = True
    return near & near.T & (distance < np.rint((2 - 2 * threshold) * 2**40) / 2**40), product


def pairs(graph):
    """The edges as a set, and whether the arrays are what the class promises."""
    t = len(graph.start) - 1
    assert (graph.start.dtype, graph.to.dtype, graph.weight.dtype) == (np.int64, np.int64, np.float32)
    assert graph.start[0] == 0
    assert graph.start[-1] == len(graph.to) == len(graph.weight)
    weight = {}
    for i in range(t):
        rows = slice(graph.start[i], graph.start[i + 1])
        assert (np.diff(graph.to[rows]) > 0).all()
        weight |= {(i, int(j)): w for j, w in zip(graph.to[rows], graph.weight[rows], strict=True)}
    assert all(i != j and weight[j, i] == w for (i, j), w in weight.items())
    return {(i, j) for i, j in weight if i < j}


def made(t, *edges):
    """A graph of t tracklets from its edges, all of weight 1."""
    to = [sorted([j for i, j in edges if i == a] + [i for i, j in edges if j == a]) for a in range(t)]
    start = np.r_[0, np.cumsum([len(row) for row in to])].astype(np.int64)
    flat = np.array([j for row in to for j in row], np.int64)
    return Graph(start, flat, np.ones(len(flat), np.float32))


@pytest.fixture
def small_tiles(monkeypatch):
    """Many tiles, and cameras that share them, from few rows."""
    monkeypatch.setattr(graph, "_TILE", 24)
    monkeypatch.setattr(graph, "_SMALL", 12)


def test_both_must_be_the_others_nearest():
    """Tracklets at 0 and 25 degrees in one camera, 20 and 60 in the other, cosine above 0.6 to 53 degrees."""
    camid = np.array([0, 0, 1, 1])
    x = angles(0, 25, 20, 60)
    # 0's nearest is 2, but 2's is 1; 3's nearest is 1, but 1's is 2.
    found = cross_view(x, camid)
    assert pairs(found) == {(1, 2)}
    np.testing.assert_array_equal(found.start, [0, 0, 1, 2, 2])
    np.testing.assert_allclose(found.weight, math.cos(math.radians(5)), atol=1e-6)
    # With the cameras in turn, so that each test is made in the other direction.
    assert pairs(cross_view(x, 1 - camid)) == {(1, 2)}
    # Two neighbours each: all are, and the threshold alone keeps 0 and 3 apart.
    assert pairs(cross_view(x, camid, k=2)) == {(0, 2), (1, 2), (1, 3)}
    assert pairs(cross_view(x, camid, k=2, threshold=0.4)) == {(0, 2), (0, 3), (1, 2), (1, 3)}


def test_one_neighbour_in_each_other_camera():
    """A tracklet has k neighbours in every camera, not k in all."""
    x = angles(0, 4, 8, 40, 44)
    assert pairs(cross_view(x, np.array([7, 3, 9, 3, 9]))) == {(0, 1), (0, 2), (1, 2), (3, 4)}


@pytest.mark.parametrize("threshold", [-1.0, -0.5, 0.0, 0.5])
def test_the_threshold_itself_is_no_edge(threshold):
    """Products of halves are exact."""
    x = np.full((2, 4), 0.5, np.float32)
    x[1, : int(2 - 2 * threshold)] *= -1
    camid = np.array([0, 1])
    assert pairs(cross_view(x, camid, threshold=threshold)) == set()
    if threshold > -1:
        found = cross_view(x, camid, threshold=threshold - 1e-9)
        assert pairs(found) == {(0, 1)}
        np.testing.assert_array_equal(found.weight, threshold)  # also where it is 0


def test_the_threshold_is_settled_beyond_float32():
    """Cosines that differ from the threshold by a hundredth of what float32 products are off."""
    rng = np.random.default_rng(0)
    x = unit(rng.normal(size=512) + 0.5 * rng.normal(size=(2, 512)))
    cosine = float(x[0].astype(np.float64) @ x[1].astype(np.float64))
    camid = np.array([0, 1])
    assert pairs(cross_view(x, camid, threshold=cosine - 1e-10)) == {(0, 1)}
    assert pairs(cross_view(x, camid, threshold=cosine + 1e-10)) == set()


def test_ties_go_to_the_lower_row():
    """Four tracklets alike, two in each camera: the first of each are joined, whatever lies between."""
    x = np.repeat(angles(30, 30), 2, axis=0)
    assert pairs(cross_view(x, np.array([0, 0, 1, 1]))) == {(0, 2)}
    assert pairs(cross_view(x, np.array([5, 2, 5, 2]))) == {(0, 1)}
    assert pairs(cross_view(x, np.array([0, 0, 1, 1]), k=2)) == {(0, 2), (0, 3), (1, 2), (1, 3)}


def test_duplicates_are_like_any_others():
    x = angles(0, 0, 50, 50)
    assert pairs(cross_view(x, np.array([0, 1, 0, 1]))) == {(0, 1), (2, 3)}


def test_nothing_to_join():
    for t in (0, 1, 5):
        found = cross_view(np.ones((t, 1), np.float32), np.full(t, 4))
        assert pairs(found) == set()
        assert len(found.start) == t + 1


def test_a_camera_with_one_tracklet_and_k_beyond_a_camera():
    """The lone tracklet is everyone's nearest there, but has itself one nearest in the other camera."""
    x = angles(0, 10, 20, 12)
    camid = np.array([0, 0, 0, 1])
    assert pairs(cross_view(x, camid)) == {(1, 3)}
    assert pairs(cross_view(x, camid, k=2)) == {(1, 3), (2, 3)}
    assert pairs(cross_view(x, camid, k=50)) == {(0, 3), (1, 3), (2, 3)}


def case_of(rng, case):
    """Small sets: random rows, or of few different numbers; duplicates; near-duplicates."""
    t, width, cameras = (int(rng.integers(lo, hi)) for lo, hi in ((0, 60), (1, 20), (1, 9)))
    x = rng.normal(size=(t, width)) if case % 2 else rng.integers(-1, 2, (t, width)).astype(float)
    if case % 3 == 0 and t:
        x = x[rng.integers(0, t, t)] + (1e-7 * rng.normal(size=(t, width)) if case % 6 else 0)
    x[~x.any(1), 0] = 1
    camid = rng.integers(0, 100 if case % 10 == 0 else cameras, t)
    return unit(x), camid, int(rng.integers(1, 6)), float(rng.choice([-1, -0.5, 0, 0.5, 0.6, 0.9]))


def any_size(monkeypatch):
    """8-bit products, and leading numbers, however few the tracklets."""
    for module, name in ((coded, "_FEW"), (graph, "_PER_CAMERA"), (coded, "_MANY"), (coded, "_ALL_ALONG")):
        monkeypatch.setattr(module, name, 0)
    for name, value in (("_LEADING", 8), ("_SAMPLE", 60), ("_REST", 9), ("WINDOW", products.COLUMNS)):
        monkeypatch.setattr(coded, name, value)


@pytest.mark.parametrize("cases", [500, pytest.param(2000, marks=pytest.mark.long)])
def test_small_sets(monkeypatch, cases):
    """Both precisions, tiles of any size, cameras apart or together, one thread and two; many ties."""
    rng = np.random.default_rng(cases)
    edges = 0
    any_size(monkeypatch)
    for case in range(cases):
        x, camid, k, threshold = case_of(rng, case)
        monkeypatch.setattr(graph, "_TILE", int(rng.integers(1, 40)))
        monkeypatch.setattr(graph, "_SMALL", int(rng.integers(0, graph._TILE + 1)))
        monkeypatch.setattr(coded, "WINDOW", products.COLUMNS * int(rng.integers(1, 3)))
        monkeypatch.setattr(coded, "_MANY", 0 if case % 7 < 4 else math.inf)
        monkeypatch.setattr(coded, "_LEADING", int(rng.integers(2, 8)))
        with limit(1 + case % 2):
            found = cross_view(x, camid, k=k, threshold=threshold, method=("exact", "int8")[case // 2 % 2])
        joined, product = slow(x, camid, k, threshold)
        i, j = np.nonzero(joined)
        np.testing.assert_array_equal(np.repeat(np.arange(len(x)), np.diff(found.start)), i, f"case {case}")
        np.testing.assert_array_equal(found.to, j, f"case {case}")
        np.testing.assert_allclose(found.weight, product[i, j], atol=1e-6)
        edges += len(i)
    assert edges > 80 * cases


@pytest.mark.parametrize("method", ["exact", "int8"])
def test_wide_rows_close_together(small_tiles, monkeypatch, method):
    """Neighbours that differ by far less than float32 rounding."""
    any_size(monkeypatch)
    rng = np.random.default_rng(2)
    x = unit(rng.normal(size=2048) + 1e-5 * rng.normal(size=(60, 2048)))
    camid = rng.integers(0, 2, 60)
    want = {(i, j) for i, j in np.argwhere(slow(x, camid, 1, 0.6)[0]) if i < j}
    assert pairs(cross_view(x, camid, method=method)) == want


def test_more_duplicates_than_a_list_holds(monkeypatch):
    """Lists of one neighbour hold 35 candidates; here many more are alike, beside others that are not."""
    rng = np.random.default_rng(3)
    any_size(monkeypatch)
    for case in range(60):
        monkeypatch.setattr(graph, "_TILE", (40, 1000)[case % 2])
        monkeypatch.setattr(graph, "_SMALL", (0, graph._TILE)[case // 2 % 2])
        groups = int(rng.integers(1, 4))
        alike = rng.normal(size=(groups, 9))[rng.integers(0, groups, 150)]
        x = unit(
            np.concatenate([alike, rng.normal(size=(50, 9)), alike[:1] + 1e-6 * rng.normal(size=(20, 9))])
        )
        x, camid = x[rng.permutation(len(x))], rng.integers(0, 2, len(x))
        k, threshold = int(rng.integers(1, 4)), float(rng.choice([-0.5, 0.3, 0.9]))
        want = {(i, j) for i, j in np.argwhere(slow(x, camid, k, threshold)[0]) if i < j}
        method = ("exact", "int8")[case % 3 == 2]
        assert pairs(cross_view(x, camid, k=k, threshold=threshold, method=method)) == want


@pytest.mark.skipif(not products.available, reason="this processor has no instruction for 8-bit products")
def test_tracklets_too_much_alike_for_8_bits_are_compared_by_float32(monkeypatch):
    """Lists of candidates would not hold them. Elsewhere none is."""
    any_size(monkeypatch)
    asked, two = [], graph._Search.two
    monkeypatch.setattr(
        graph._Search, "two", lambda *given, **how: (asked.append(given), two(*given, **how))[1]
    )
    rng = np.random.default_rng(9)
    x = unit(rng.normal(size=32) + 0.15 * rng.normal(size=(600, 32)))
    camid = rng.integers(0, 4, 600)
    want = {(i, j) for i, j in np.argwhere(slow(x, camid, 1, 0.6)[0]) if i < j}
    assert pairs(cross_view(x, camid, method="int8")) == want
    assert len(asked) == 6
    with limit(1):  # as many pairs of cameras as each thread wants: tiles are looked at in turn
        assert pairs(cross_view(x, camid, method="int8")) == want
    x, _, camid = people(rng, 600, 32, 4)
    asked.clear()
    assert pairs(cross_view(x, camid, method="int8")) == pairs(cross_view(x, camid))
    assert not asked


def people(rng, t, width, cameras):
    pid, camid = rng.integers(0, t // 6, t), rng.integers(0, cameras, t)
    return unit(rng.normal(size=(t, width))[pid] + 0.6 * rng.normal(size=(t, width))), pid, camid


def test_order_of_rows_does_not_matter(small_tiles):
    rng = np.random.default_rng(4)
    x, _, camid = people(rng, 200, 24, 5)
    want = cross_view(x, camid, k=2, threshold=0.4)
    order = rng.permutation(200)
    found = cross_view(x[order], camid[order], k=2, threshold=0.4)
    assert pairs(want) == {tuple(sorted(order[[i, j]])) for i, j in pairs(found)}
    assert len(pairs(want)) > 100


@pytest.mark.parametrize("cameras", [2, 7])
@pytest.mark.parametrize("method", ["exact", "int8"])
def test_threads_and_names_of_cameras_do_not_show(small_tiles, monkeypatch, method, cameras):
    any_size(monkeypatch)
    rng = np.random.default_rng(5)
    x, _, camid = people(rng, 300, 24, cameras)
    with limit(1):
        want = cross_view(x, camid, threshold=0.3)
    with limit(2):
        found = [cross_view(x, 11 * camid - 30, threshold=0.3, method=method) for _ in range(3)]
    for other in found:
        for name in ("start", "to", "weight"):
            np.testing.assert_array_equal(getattr(other, name), getattr(want, name))


def test_input_is_not_modified_and_any_layout_will_do():
    rng = np.random.default_rng(6)
    x, _, camid = people(rng, 40, 8, 3)
    kept, kept_camid = x.copy(), camid.copy()
    want = pairs(cross_view(x, camid))
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(camid, kept_camid)
    x.flags.writeable = camid.flags.writeable = False
    assert pairs(cross_view(x, camid)) == want
    order = np.argsort(camid, kind="stable")
    rank = np.argsort(order)
    x_sorted, camid_sorted = x[order], camid[order]
    x_sorted.flags.writeable = False  # searched where it is
    found = pairs(cross_view(x_sorted, camid_sorted))
    assert found == {tuple(sorted((int(rank[i]), int(rank[j])))) for i, j in want}
    assert pairs(cross_view(np.asfortranarray(x, np.float64), camid.astype(np.int8))) == want
    assert pairs(cross_view(torch.from_numpy(kept), camid)) == want


def test_refusals_of_cross_view():
    x, camid = np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1])
    with pytest.raises(ValueError, match="k is 0"):
        cross_view(x, camid, k=0)
    for threshold in (1.0, -1.1, math.nan):
        with pytest.raises(ValueError, match="threshold is"):
            cross_view(x, camid, threshold=threshold)
    with pytest.raises(ValueError, match=r"camid has shape \(3,\), expected \(4,\)"):
        cross_view(x, camid[:3])
    with pytest.raises(ValueError, match='method is "ann", expected exact or int8'):
        cross_view(x, camid, method="ann")
    with pytest.raises(ValueError, match=r"finite.*1 row is not: 2"):
        cross_view(np.where(np.arange(4)[:, None] == 2, np.nan, x), camid)
    with pytest.raises(ValueError, match="unit length"):
        cross_view(2 * x, camid)
    with pytest.raises(ValueError, match=r"shape \(4,\)"):
        cross_view(x[0], camid)


def test_changes_by_hand():
    old, new = made(5, (0, 1), (1, 2), (3, 4)), made(5, (1, 2), (0, 2))
    assert changes(old, new) == (1, 2)
    assert changes(new, old) == (2, 1)
    assert changes(old, old) == (0, 0)
    assert changes(made(0), made(0)) == (0, 0)
    assert changes(made(5), new) == (2, 0)
    with pytest.raises(ValueError, match="5 tracklets and new one of 4"):
        changes(old, made(4))


def test_components_by_hand():
    found = components(made(8, (2, 6), (6, 5), (0, 7), (3, 4)))
    np.testing.assert_array_equal(found, [0, -1, 1, 2, 2, 1, 1, 0])
    assert found.dtype == np.int64
    np.testing.assert_array_equal(components(made(3)), [-1, -1, -1])
    assert components(made(0)).shape == (0,)


def test_components_keep_edges_of_weight_zero():
    graph = made(2, (0, 1))
    graph.weight[:] = 0
    np.testing.assert_array_equal(components(graph), [0, 0])


def test_links_by_hand():
    found = links(made(5, (0, 1), (0, 2), (3, 1), (4, 2)), np.array([10, 20, 20, 10, 30]))
    np.testing.assert_array_equal(found, [[0, 3, 0], [3, 0, 1], [0, 1, 0]])
    assert found.dtype == np.int64
    assert links(made(0), np.zeros(0, int)).shape == (0, 0)
    np.testing.assert_array_equal(links(made(1), np.zeros(1, int)), [[0]])
    with pytest.raises(ValueError, match="camid has shape"):
        links(made(2), np.zeros(3, int))


def test_transitivity_by_hand():
    camid = np.array([0, 1, 2, 0])
    # The triangle's three paths are closed; 3-1-2 is open, and 0-1-3 begins and ends in one camera.
    assert transitivity(made(4, (0, 1), (1, 2), (0, 2)), camid) == 1
    assert transitivity(made(4, (0, 1), (1, 2), (0, 2), (1, 3)), camid) == 3 / 4
    assert transitivity(made(4, (0, 1), (1, 2)), camid) == 0
    assert math.isnan(transitivity(made(4, (0, 1), (1, 3)), camid))
    assert math.isnan(transitivity(made(0), camid[:0]))
    with pytest.raises(ValueError, match="camid has shape"):
        transitivity(made(2), camid)


def test_transitivity_from_the_definition():
    rng = np.random.default_rng(7)
    for _ in range(30):
        t = int(rng.integers(3, 14))
        camid = rng.integers(0, 4, t)
        joined = np.triu(rng.random((t, t)) < 0.4, 1)
        joined |= joined.T
        closed = [
            joined[i, k]
            for j in range(t)
            for i in range(t)
            for k in range(i)
            if joined[i, j] and joined[j, k] and len({camid[i], camid[j], camid[k]}) == 3
        ]
        found = transitivity(made(t, *np.argwhere(np.triu(joined)).tolist()), camid)
        np.testing.assert_equal(found, np.mean(closed) if closed else math.nan)


def test_precision_and_recall_by_hand():
    #      person 1: cameras 0, 1, 2 (twice); 2: cameras 0, 1; 3: camera 0 alone; unknown
    pid = np.array([1, 1, 1, 1, 2, 2, 3, -1])
    camid = np.array([0, 1, 2, 2, 0, 1, 0, 1])
    # True: 0-1, 0-2 and 0-3, which reach one combination. Wrong: 4-1. Left out: 7.
    graph = made(8, (0, 1), (0, 2), (0, 3), (1, 4), (6, 7))
    assert precision_recall(graph, pid, camid) == (3 / 4, 2 / 4)
    precision, recall = precision_recall(made(8), pid, camid)
    assert math.isnan(precision)
    assert recall == 0
    precision, recall = precision_recall(made(8, (4, 6), (6, 7)), pid, np.zeros(8, int))
    assert precision == 0
    assert math.isnan(recall)
    assert all(map(math.isnan, precision_recall(graph, np.full(8, -1), camid)))
    assert all(map(math.isnan, precision_recall(made(0), pid[:0], camid[:0])))


def test_precision_and_recall_from_the_definition():
    rng = np.random.default_rng(8)
    for _ in range(20):
        x, pid, camid = people(rng, 60, 6, 4)
        pid[rng.random(60) < 0.2] = -1
        graph = cross_view(x, camid, threshold=0.2)
        found = pairs(graph)
        known = [(i, j) for i, j in found if pid[i] >= 0 and pid[j] >= 0]
        true = {(pid[i], frozenset((camid[i], camid[j]))) for i, j in known if pid[i] == pid[j]}
        reachable = {
            (pid[i], frozenset((camid[i], camid[j])))
            for i in range(60)
            for j in range(60)
            if pid[i] == pid[j] >= 0 and camid[i] != camid[j]
        }
        precision, recall = precision_recall(graph, pid, camid)
        assert precision == np.mean([pid[i] == pid[j] for i, j in known])
        assert recall == len(true) / len(reachable)


def test_refusals_of_precision_recall():
    with pytest.raises(ValueError, match=r"pid has shape \(3,\), expected \(2,\)"):
        precision_recall(made(2), np.zeros(3, int), np.zeros(2, int))
    with pytest.raises(ValueError, match=r"camid has shape \(3,\), expected \(2,\)"):
        precision_recall(made(2), np.zeros(2, int), np.zeros(3, int))


def test_measures_of_a_graph_of_people():
    """One person's tracklets, far from all others: everything is found, and nothing else."""
    rng = np.random.default_rng(9)
    pid, camid = np.repeat(np.arange(40), 4), np.tile(np.arange(4), 40)
    x = unit(np.eye(40)[pid] + 0.02 * rng.normal(size=(160, 40)))
    found = cross_view(x, camid)
    assert precision_recall(found, pid, camid) == (1, 1)
    assert transitivity(found, camid) == 1
    np.testing.assert_array_equal(components(found), pid)
    np.testing.assert_array_equal(links(found, camid), 40 * (1 - np.eye(4, dtype=int)))
