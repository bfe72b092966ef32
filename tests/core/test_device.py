"""Torch tensors in place of arrays: the same indices, distances, labels and scores, to the bit."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from tracklearn.core import neighbors, rank
from tracklearn.core.cluster import associate
from tracklearn.core.device import isolate as isolating
from tracklearn.core.device import neighbors as proposing
from tracklearn.core.device import rank as ranking
from tracklearn.core.device.isolate import _decide
from tracklearn.core.device.neighbors import candidates
from tracklearn.core.device.tensors import float32_products
from tracklearn.core.features import as_matrix, check_unit, is_tensor, on_host, unit_rows
from tracklearn.core.isolate import adjacent_similarity, isolate
from tracklearn.core.jaccard import jaccard_distance
from tracklearn.core.neighbors import k_nearest, k_nearest_and_farthest, k_nearest_of

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ],
    ),
]
on_every_device = pytest.mark.parametrize("device", DEVICES)


def unit(x):
    x = np.asarray(x, np.float64)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def tensor(x, device):
    return torch.from_numpy(np.array(x)).to(device)


def same(got, want):
    for a, b in zip(got, want, strict=True):
        assert type(a) is np.ndarray
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def any_rows(rng, case, n, width):
    """Rows without zeros among them: ties, duplicates and near-duplicates in every second case."""
    x = rng.normal(size=(n, width)) if case % 2 else rng.integers(-1, 2, (n, width)).astype(float)
    if case % 3 == 0 and n:
        x = x[rng.integers(0, n, n)] + (1e-7 * rng.normal(size=(n, width)) if case % 6 else 0)
    x[~x.any(1), 0] = 1
    return x


@on_every_device
def test_neighbours_of_random_sets(monkeypatch, device):
    rng = np.random.default_rng(0)
    for case in range(150):
        n, width, k = int(rng.integers(0, 150)), int(rng.integers(1, 20)), int(rng.integers(1, 40))
        x = unit(any_rows(rng, case, n, width))
        t = tensor(x, device)
        monkeypatch.setattr(proposing, "_CELLS", int(rng.choice([1, 3000, 1 << 20])))
        without = bool(case % 5 == 0)
        same(k_nearest(t, k, exclude_self=without), k_nearest(x, k, exclude_self=without))
        same(k_nearest_of(t[: n // 3], t[n // 3 :], k), k_nearest_of(x[: n // 3], x[n // 3 :], k))
        index, squared, far = k_nearest_and_farthest(t, k)
        want = k_nearest_and_farthest(x, k)
        same((index, squared), want[:2])
        np.testing.assert_allclose(far, want[2], atol=1e-6)


@on_every_device
@pytest.mark.parametrize("width", [16, 2048])
def test_neighbours_that_float32_cannot_tell_apart(device, width):
    rng = np.random.default_rng(1)
    x = unit(rng.normal(size=width) + 1e-4 * rng.normal(size=(300, width)))
    same(k_nearest(tensor(x, device), 10), k_nearest(x, 10))


@on_every_device
def test_rows_with_too_many_candidates_are_compared_with_all(monkeypatch, device):
    """A group of duplicates that no list of candidates holds, beside ordinary rows."""
    rng = np.random.default_rng(2)
    x = unit(np.concatenate([np.repeat(rng.normal(size=(1, 40)), 90, axis=0), rng.normal(size=(90, 40))]))
    x = x[rng.permutation(len(x))]
    t = tensor(x, device)
    count, candidate, value = candidates(t, t, 6)
    assert candidate.shape == value.shape == (180, 2 * 6 + 32)
    overfull = int((count < 0).sum())
    assert 90 <= overfull < 120  # the duplicates, and rows that have them among their nearest
    scanned = []
    scan = neighbors._scan
    monkeypatch.setattr(neighbors, "_scan", lambda *args: scanned.append(len(args[0])) or scan(*args))
    got = k_nearest(t, 6)
    assert scanned == [overfull]
    same(got, k_nearest(x, 6))


@on_every_device
def test_hand_toy(device):
    x = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], np.float32)
    index, squared = k_nearest(tensor(x, device), 2, exclude_self=True)
    np.testing.assert_array_equal(index, [[2, 1], [2, 0], [1, 0], [1, 2]])
    np.testing.assert_allclose(squared, [[0.8, 2], [0.4, 2], [0.4, 0.8], [2, 3.2]], atol=1e-6)


@on_every_device
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_any_number_type_and_layout(device, dtype):
    # Rows that have length 1 in every type.
    x = torch.from_numpy(0.25 * np.random.default_rng(3).choice([-1, 1], (60, 16))).to(dtype)
    want = k_nearest(x.float().numpy() if dtype == torch.bfloat16 else x.numpy(), 5)
    x = x.to(device)
    kept = x.clone()
    same(k_nearest(x, 5), want)
    same(k_nearest(x.T.contiguous().T, 5), want)
    same(k_nearest(torch.nn.Parameter(x), 5), want)
    with torch.inference_mode():
        same(k_nearest(x * 1, 5), want)
    assert torch.equal(x, kept)


@on_every_device
@pytest.mark.parametrize("method", ["exact", "int8", "ann"])
def test_every_method_is_exact(monkeypatch, device, method):
    monkeypatch.setattr(neighbors, "_MANY", 0)
    x = unit(np.random.default_rng(4).normal(size=(100, 16)))
    same(k_nearest(tensor(x, device), 5, method=method), k_nearest(x, 5))
    assert not any("approx" in line for line in associate(tensor(x, device), neighbors=method).diagnosis)


@on_every_device
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_reduced_precision_and_autocast_change_nothing(device, precision):
    rng = np.random.default_rng(5)
    x = unit(rng.normal(size=512) + 0.1 * rng.normal(size=(400, 512)))
    t = tensor(x, device)
    want = k_nearest(x, 20)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        with torch.autocast(device, dtype=torch.bfloat16):
            assert (t @ t.T).dtype == torch.bfloat16
            same(k_nearest(t, 20), want)
        assert torch.get_float32_matmul_precision() == precision
        assert torch.backends.cuda.matmul.allow_tf32 == (precision != "highest")
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="older torch")
def test_settings_of_each_backend_are_put_back():
    places = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    before = [place.fp32_precision for place in places]
    try:
        places[0].fp32_precision, places[1].fp32_precision = "tf32", "bf16"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with float32_products(torch.device("cpu")):
                assert [place.fp32_precision for place in places] == ["ieee", "ieee"]
                assert not torch.backends.cuda.matmul.allow_tf32
        assert [place.fp32_precision for place in places] == ["tf32", "bf16"]
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


@on_every_device
def test_labels_of_random_sets(device):
    rng = np.random.default_rng(6)
    for case in range(40):
        n = int(rng.integers(0, 120))
        x = unit(any_rows(rng, case, n, int(rng.integers(1, 20))))
        if case % 2:
            x = unit(x[rng.integers(0, max(n, 1) // 5 + 1, n)] + 0.1 * rng.normal(size=x.shape))
        got, want = associate(tensor(x, device)), associate(x)
        same([got.label], [want.label])
        assert (got.eps, got.start_eps, got.diagnosis) == (want.eps, want.start_eps, want.diagnosis)


@on_every_device
@pytest.mark.parametrize("mode", ["tracklearn", "spcl", "mmt"])
def test_jaccard_distances(device, mode):
    rng = np.random.default_rng(7)
    x = unit(rng.normal(size=(12, 16))[rng.integers(0, 12, 200)] + 0.5 * rng.normal(size=(200, 16)))
    got, want = (jaccard_distance(value, 12, 4, mode=mode) for value in (tensor(x, device), x))
    if mode == "mmt":
        np.testing.assert_allclose(got.toarray(), want.toarray(), atol=1e-5)
    else:
        same((got.indptr, got.indices, got.data), (want.indptr, want.indices, want.data))
    assert jaccard_distance(tensor(x[:0], device)).shape == (0, 0)


@on_every_device
@pytest.mark.parametrize("n", [0, 1, 2, 50])
def test_collapsed_features(device, n):
    x = np.tile(unit(np.ones((1, 24))), (n, 1))
    got, want = associate(tensor(x, device)), associate(x)
    same([got.label], [want.label])
    assert got.diagnosis == want.diagnosis
    same(k_nearest(tensor(x, device), 3), k_nearest(x, 3))


@on_every_device
def test_parts_of_random_tracklets(monkeypatch, device):
    rng = np.random.default_rng(8)
    for case in range(60):
        n, width = int(rng.integers(0, 300)), int(rng.integers(1, 20))
        x = any_rows(rng, case, n, width) * rng.uniform(0.1, 9, (n, 1) if case % 2 else (1, 1))
        x = x.astype(np.float32) if case % 4 < 2 else x
        tracklet, frame = np.sort(rng.integers(0, rng.choice([2, 9, 60]), n)), np.arange(n)
        monkeypatch.setattr(isolating, "_NUMBERS", int(rng.choice([1, 3000, 1 << 20])))
        # Integers have cosines of exactly ½ and 0: a distance of 1 and of √2 is on the border.
        for metric, eps in (("euclidean", 0.3), ("euclidean", 1.0), ("euclidean", 2**0.5), ("cosine", 0.5)):
            settings = {"frame": frame, "metric": metric, "eps": eps, "min_samples": int(rng.integers(1, 5))}
            got = isolate(tensor(x, device), tracklet, **settings)
            same([got], [isolate(x, tracklet, **settings)])


@on_every_device
@pytest.mark.parametrize("width", [3, 4096])
def test_pairs_within_rounding_of_the_border(device, width):
    """Duplicates and a radius of almost nothing: wide rows leave the sign of the gap open."""
    rng = np.random.default_rng(9)
    x = np.repeat(rng.normal(size=(4, width)), 5, axis=0) * rng.integers(1, 4, (20, 1))
    x = x[rng.permutation(20)].astype(np.float32)
    settings = {"frame": np.arange(20), "eps": 1e-7}
    tracklet = np.zeros(20, int)
    same([isolate(tensor(x, device), tracklet, **settings)], [isolate(x, tracklet, **settings)])


def test_open_pairs_are_decided_as_on_the_host():
    from tracklearn.core.kernels.isolate import mark

    x = np.random.default_rng(10).normal(size=(70, 5))
    least = 0.3
    near, degree = np.zeros((70, 2), np.uint64), np.ones(70, np.int64)
    length = np.linalg.norm(x, axis=1)
    mark((x @ x.T).astype(np.float32), length, 0, x, least, 1.0, near, degree)
    assert 70 < degree.sum() < 70 * 70
    wrong = np.random.default_rng(11).integers(0, 256, (1, 70, 16)).astype(np.uint8)
    wrong[:, :, 70 // 8] &= 0b00111111  # there are no columns from 70 on
    wrong[:, :, 70 // 8 + 1 :] = 0
    pairs = np.array([(0, i, j) for i in range(70) for j in range(70) if i != j])
    for i in range(70):
        wrong[0, i, i >> 3] &= ~np.uint8(1 << (i & 7))
    count = 1 + np.unpackbits(wrong, axis=2).sum(2).astype(np.int64)
    _decide(torch.from_numpy(x), np.array([0]), np.array([70]), least, pairs, wrong, count)
    same((wrong.view(np.uint64)[0], count[0]), (near, degree))


@on_every_device
def test_similarity_of_adjacent_frames(device):
    x = np.random.default_rng(13).normal(size=(30, 6))
    tracklet = np.repeat([0, 1, 2], 10)
    same([adjacent_similarity(tensor(x, device), tracklet)], [adjacent_similarity(x, tracklet)])


def scores_of(distance, pid, camid, query, **settings):
    s = rank.evaluate(distance, pid[query], pid, camid[query], camid, query_row=query, **settings)
    return np.r_[s.mAP, s.cmc, s.n_valid, s.n_skipped], s.protocol


@on_every_device
def test_scores_of_random_distances(monkeypatch, device):
    rng = np.random.default_rng(14)
    for case in range(60):
        n = int(rng.integers(1, 60))
        pid, camid = rng.integers(-1, 5, n), rng.integers(0, 3, n)
        query = np.flatnonzero(rng.random(n) < 0.6)
        d = rng.integers(0, 6, (len(query), n)).astype(["f4", "f8", "i4", "f2", "u1", "?"][case % 6])
        if d.dtype.kind == "f":
            d[rng.random(d.shape) < 0.2] = np.inf
        monkeypatch.setattr(ranking, "_SORTED", int(rng.choice([1, 200, 1 << 20])))
        for ap in rank.AP:
            settings = {"ap": ap, "protocol": rank.PROTOCOLS[case % 2], "same_camera": bool(case // 2 % 2)}
            got, name = scores_of(tensor(d, device), pid, camid, query, **settings)
            want, expected = scores_of(d, pid, camid, query, **settings)
            np.testing.assert_array_equal(got, want)
            assert name == expected


@on_every_device
def test_scores_of_features_are_those_of_their_distances(device):
    rng = np.random.default_rng(15)
    pid, camid, query = rng.integers(0, 20, 150), rng.integers(0, 3, 150), np.arange(0, 150, 4)
    x = tensor(unit(rng.normal(size=(20, 8))[pid] + rng.normal(size=(150, 8))), device)
    distance = rank.distance(x[query], x)
    assert distance.device == x.device
    got = scores_of((x[query], x), pid, camid, query)[0]
    np.testing.assert_array_equal(got, scores_of(distance, pid, camid, query)[0])
    np.testing.assert_array_equal(got, scores_of(on_host(distance), pid, camid, query)[0])
    np.testing.assert_allclose(got, scores_of((on_host(x[query]), on_host(x)), pid, camid, query)[0])


@on_every_device
def test_distance_and_search(monkeypatch, device):
    rng = np.random.default_rng(16)
    x, y = unit(rng.normal(size=(40, 12))), unit(rng.normal(size=(70, 12)))
    y[3] = x[5]
    monkeypatch.setattr(ranking, "_COMPARED", 16)
    got = rank.distance(tensor(x, device), tensor(y, device))
    np.testing.assert_allclose(on_host(got), rank.distance(x, y), atol=2e-7)
    assert got[5, 3] == 0
    for distance in (None, got):
        found = rank.nearest(tensor(x, device), tensor(y, device), 4, distance=distance)
        np.testing.assert_array_equal(found.index, rank.nearest(x, y, 4).index)
    for gallery in (y, y[::-1].copy()[::-1], y.astype(">f4"), tensor(y, device)):
        np.testing.assert_array_equal(on_host(rank.distance(tensor(x, device), gallery)), on_host(got))
        same(k_nearest_of(tensor(x, device), gallery, 4), k_nearest_of(x, y, 4))
        again = rank.rerank(tensor(x, device), gallery, k1=6, k2=3)
        np.testing.assert_allclose(again, rank.rerank(x, y, k1=6, k2=3), atol=1e-5)
    assert rank.distance(tensor(x, device)[:0], tensor(y, device)).shape == (0, 70)


@on_every_device
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.__setitem__((3, 0), np.nan), r"finite.*1 row is not: 3"),
        (lambda x: x.__setitem__(2, 0), r"direction.*: 2 \(all zeros\)"),
        (lambda x: x.__imul__(3), r"unit length.*row 0 has length 3"),
    ],
)
def test_bad_rows_are_named(device, change, message):
    x = unit(np.random.default_rng(17).normal(size=(10, 4)))
    change(x)
    t = tensor(x, device)
    for call in (
        lambda: k_nearest(t, 2),
        lambda: associate(t),
        lambda: rank.distance(t, t),
        lambda: rank.evaluate((t, t), *[np.zeros(10, int)] * 4),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    if "unit" not in message:
        rows = np.zeros(10, int), np.arange(10)
        with pytest.raises(ValueError, match=message):
            isolate(t, rows[0], frame=rows[1])


def test_other_refusals():
    x = torch.eye(3)
    pid = np.zeros(3, int)
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        k_nearest(x[0], 1)
    with pytest.raises(ValueError, match=r"dtype torch\.bool"):
        as_matrix(x > 0)
    with pytest.raises(ValueError, match="query has width 3 and gallery 4"):
        k_nearest_of(x, torch.eye(4), 1)
    with pytest.raises(ValueError, match="query has width 3 and gallery 4"):
        rank.distance(x, np.eye(4))
    with pytest.raises(ValueError, match="NaN in 3 rows, the first is query 0"):
        rank.evaluate(x * np.nan, pid, pid, pid, pid)
    with pytest.raises(ValueError, match=r"distance has shape \(3,\)"):
        rank.evaluate(x[0], pid, pid, pid, pid)
    with pytest.raises(ValueError, match=r"dtype torch\.complex64"):
        rank.evaluate(x * 1j, pid, pid, pid, pid)


def test_what_is_a_tensor():
    assert is_tensor(torch.zeros(1))
    assert is_tensor(torch.nn.Parameter(torch.zeros(1)))
    for other in (np.zeros(1), [1.0], torch.float32, None):
        assert not is_tensor(other)
        assert on_host(other) is other
    assert on_host(torch.ones(2, dtype=torch.bfloat16)).dtype == np.float32
    x = torch.eye(3)
    assert np.shares_memory(check_unit(x), x.numpy())
    same([unit_rows(2 * x)], [np.eye(3, dtype=np.float32)])


def test_arrays_do_not_load_torch():
    code = (
        "import sys, numpy as np\n"
        "from tracklearn.core import cluster, isolate, jaccard, neighbors, rank\n"
        "x, i = np.eye(6, dtype=np.float32), np.arange(6)\n"
        "neighbors.k_nearest(x, 2), cluster.associate(x), isolate.isolate(x, 0 * i, frame=i)\n"
        "rank.evaluate((x, x), i, i, i, i)\n"
        "rank.nearest(x, x, 2, distance=rank.rerank(x, x))\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
