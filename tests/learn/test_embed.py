import threading

import numpy as np
import pytest
import torch

from tracklearn.learn import backbone, embed
from tracklearn.types import ArrayCrops

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 64, 32, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def network():
    network = backbone.build(backbone.Config(backbone="tiny", height=64, width=32), seed=0)
    network.calibrate([IMAGES], neck=True)
    return network


def test_features_are_those_of_single_crops(network):
    rows = np.array([3, 0, 22, 3])
    got = embed.extract(network, ArrayCrops(IMAGES), rows, device="cpu", batch=3)
    assert got.dtype == np.float32
    assert got.shape == (4, network.feature_dim)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)
    network.eval()
    with torch.no_grad():
        for row, feature in zip(rows, got, strict=True):
            post = network.neck(network(network.normalise(torch.from_numpy(IMAGES[row : row + 1]))))[
                0
            ].numpy()
            np.testing.assert_allclose(feature, post / np.linalg.norm(post), atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_mode_and_statistics_are_as_before(network, training):
    network.train(training)
    before = network.arrays()
    images = IMAGES.copy()
    images.flags.writeable = False
    embed.extract(network, ArrayCrops(images), range(23), device="cpu", batch=5)
    assert network.training is training
    assert all(np.array_equal(v, network.arrays()[k]) for k, v in before.items())


def test_progress_and_empty_input(network):
    seen = []
    embed.extract(
        network, ArrayCrops(IMAGES), range(7), device="cpu", batch=3, progress=lambda *a: seen.append(a)
    )
    assert seen == [("features", 3, 7), ("features", 6, 7), ("features", 7, 7)]
    assert embed.extract(network, ArrayCrops(IMAGES), [], device="cpu").shape == (0, network.feature_dim)


def test_half_precision_is_close(network):
    full, half = (
        embed.extract(network, ArrayCrops(IMAGES), range(23), device="cpu", dtype=d)
        for d in (torch.float32, torch.bfloat16)
    )
    assert half.dtype == np.float32
    assert (full * half).sum(1).min() > 0.99


class Reader:
    """Crops that record which thread read which rows."""

    def __init__(self, fail_at=None):
        self.calls, self.threads, self.fail_at = [], set(), fail_at

    def __len__(self):
        return len(IMAGES)

    def read(self, indices):
        self.calls.append(list(indices))
        self.threads.add(threading.get_ident())
        if len(self.calls) == self.fail_at:
            raise ValueError("shard-00001 is damaged")
        return IMAGES[indices]


def test_each_batch_is_read_once_by_one_other_thread(network):
    crops = Reader()
    embed.extract(network, crops, range(8), device="cpu", batch=3)
    assert crops.calls == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert len(crops.threads) == 1
    assert threading.get_ident() not in crops.threads


def test_a_reader_fault_comes_through_and_the_mode_is_restored(network):
    network.train()
    with pytest.raises(ValueError, match="damaged"):
        embed.extract(network, Reader(fail_at=2), range(8), device="cpu", batch=3)
    assert network.training


def test_features_that_are_not_finite_are_refused(network):
    arrays = network.arrays()
    try:
        with torch.no_grad():
            network.neck.running_mean[0] = float("nan")
        with pytest.raises(
            ValueError, match=r"not finite at crop rows 5, 6 \(2 in this batch\): the weights"
        ):
            embed.extract(network, ArrayCrops(IMAGES), [6, 5, 6], device="cpu")
    finally:
        network.load_weights(arrays)


@pytest.mark.parametrize("unit", [True, False])
def test_features_that_are_all_zero_are_refused(network, unit):
    """A network that sees nothing in black crops."""

    class Blind(torch.nn.Module):
        neck, feature_dim = torch.nn.Identity(), 3

        def normalise(self, images):
            return images.float()

        def forward(self, x):
            return x.mean((1, 2))

    images = IMAGES.copy()
    images[[3, 4, 5, 6, 7, 8]] = 0
    with pytest.raises(ValueError, match=r"all zero at crop rows 3, 4, 5, 6, 7, … \(6 in this batch\): look"):
        embed.extract(Blind(), ArrayCrops(images), range(10), device="cpu", unit=unit)


def test_raw_features_before_and_after_the_neck(network):
    crops = ArrayCrops(IMAGES)
    network.eval()
    with torch.no_grad():
        before = network(network.normalise(torch.from_numpy(IMAGES)))
        after = network.neck(before)
    for post_bn, want in ((False, before), (True, after)):
        got = embed.extract(network, crops, range(23), device="cpu", post_bn=post_bn, unit=False)
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=1e-5)
        unit = embed.extract(network, crops, range(23), device="cpu", post_bn=post_bn)
        np.testing.assert_allclose(unit, torch.nn.functional.normalize(want).numpy(), atol=1e-5)


def test_batch_below_one_is_refused(network):
    with pytest.raises(ValueError, match="batch is 0"):
        embed.extract(network, ArrayCrops(IMAGES), [0], device="cpu", batch=0)


def test_pool_equals_a_loop_in_any_order():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(50, 6)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    group = np.concatenate([np.arange(7), rng.integers(0, 7, 43)])
    before = features.copy()
    got = embed.pool(features, group, 7)
    for g in range(7):
        mean = features[group == g].mean(0)
        np.testing.assert_allclose(got[g], mean / np.linalg.norm(mean), atol=1e-6)
    order = rng.permutation(50)
    np.testing.assert_allclose(embed.pool(features[order], group[order], 7), got, atol=1e-6)
    assert got.dtype == np.float32
    assert np.array_equal(features, before)


def test_pool_of_nothing_and_of_opposites():
    assert embed.pool(np.zeros((0, 4), np.float32), np.zeros(0, int), 0).shape == (0, 4)
    assert embed.pool(np.float32([[1, 0], [-1, 0]]), np.array([0, 0]), 1).tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("group", "n", "match"),
    [
        ([0, 1], 2, r"shape \(2,\)"),
        ([0, 1, 2], 2, "ranges 0..2"),
        ([-1, 0, 1], 2, "-1"),
        ([0, 0, 2], 3, "group 1"),
    ],
)
def test_pool_refuses(group, n, match):
    with pytest.raises(ValueError, match=match):
        embed.pool(np.eye(3, dtype=np.float32), np.array(group), n)
