"""Subnormal numbers: zero while a network computes, in all threads that do, and nowhere else."""

import platform
import sys

import numpy as np
import pytest
import torch

from tracklearn.core.threads import each_span, limit
from tracklearn.learn import backbone, embed, subnormals
from tracklearn.types import ArrayCrops

CPU = torch.device("cpu")
TINY = torch.full((1_000_000,), 1e-39)
there = pytest.mark.skipif(
    not torch.set_flush_denormal(False), reason="this processor computes with subnormal numbers always"
)


def kept():
    """How many of a million subnormal numbers, shared out to all threads, are still there times one."""
    return int(torch.count_nonzero(TINY * 1.0))


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    assert kept() == len(TINY)  # so that there are such threads already, which would keep them
    yield request.param
    torch.set_num_threads(before)


@there
def test_they_are_zero_inside_in_every_thread_and_back_afterwards(threads):
    with subnormals.flushed(CPU):
        assert kept() == 0
        with subnormals.flushed(CPU):
            assert kept() == 0
        assert kept() == 0
    assert kept() == len(TINY)
    assert float(np.float32(1e-39) * np.float32(1)) > 0
    with pytest.raises(KeyError), subnormals.flushed(CPU):
        raise KeyError
    assert kept() == len(TINY)


@there
def test_what_somebody_else_has_set_stays(threads):
    torch.set_flush_denormal(True)
    try:
        with subnormals.flushed(CPU):
            assert kept() == 0
        assert float(torch.tensor(1e-39) * 1.0) == 0
    finally:
        torch.set_flush_denormal(False)
        with subnormals.flushed(CPU):  # all threads are as this one again
            pass
    assert kept() == len(TINY)
    with subnormals.flushed(torch.device("meta")):  # nothing to do: it is not the CPU that computes
        assert float(torch.tensor(1e-39) * 1.0) > 0


@there
@pytest.mark.parametrize("why", ["another system", "another OpenMP"])
def test_elsewhere_it_is_this_thread_alone(monkeypatch, why):
    subnormals._shared.cache_clear()
    if why == "another system":
        monkeypatch.setattr(sys, "platform", "darwin")
    else:
        monkeypatch.setattr(torch, "__file__", "/nowhere/torch/__init__.py")
    try:
        with subnormals.flushed(CPU):
            assert float(torch.tensor(1e-39) * 1.0) == 0
        assert float(torch.tensor(1e-39) * 1.0) > 0
    finally:
        subnormals._shared.cache_clear()


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="only there it reaches torch's threads"
)
def test_torch_has_the_threads_that_it_is_made_for():
    assert subnormals._shared() is not None


def test_a_network_with_dead_channels_gives_the_same_features():
    network = backbone.build(backbone.Config(backbone="osnet_x0_25", height=64, width=32), seed=0)
    crops = ArrayCrops(np.random.default_rng(0).integers(0, 256, (8, 64, 32, 3), np.uint8))
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith("conv1.weight"):
                weight[0] = 1e-40  # a channel that died
    alive = embed.extract(network, crops, range(8), device="cpu")
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith("conv1.weight"):
                weight[0] = 0
    np.testing.assert_array_equal(embed.extract(network, crops, range(8), device="cpu"), alive)


@there
def test_threads_that_read_or_share_arrays_keep_them():
    """Features by a network leave the threads alone that crops or compiled kernels start meanwhile."""
    network = backbone.build(backbone.Config(backbone="tiny", height=64, width=32), seed=0)
    seen = []

    def look(first, end):
        seen.append(float(np.float32(1e-39) * np.float32(1)))

    class Reads(ArrayCrops):
        def read(self, rows):
            look(0, 0)
            return super().read(rows)

    crops = Reads(np.zeros((40, 64, 32, 3), np.uint8) + np.arange(32, dtype=np.uint8)[:, None])
    told = []
    embed.extract(
        network, crops, range(40), device="cpu", batch=8, progress=lambda *_: told.append(look(0, 0))
    )
    with limit(2):
        each_span(look, 2)
    assert len(told) == 5
    assert len(seen) >= 12
    assert min(seen) > 0


def test_what_is_exported_has_none():
    layer = torch.nn.BatchNorm1d(4)
    with torch.no_grad():
        layer.weight[:] = torch.tensor([1e-39, -1e-13, 2e-12, -3.0])
        layer.running_var[0] = 1e-45
    subnormals.clear(layer)
    assert layer.weight.tolist() == [0, 0, pytest.approx(2e-12), -3]
    assert layer.running_var.tolist() == [0, 1, 1, 1]
    assert int(layer.num_batches_tracked) == 0
