"""The form of a network that a CPU computes in evaluation, beside the network itself."""

import gc
import weakref

import numpy as np
import pytest
import torch

from tracklearn.learn import backbone, embed, folded
from tracklearn.types import ArrayCrops

IMAGES = np.random.default_rng(0).integers(0, 256, (35, 64, 32, 3)).astype(np.uint8)
CPU = torch.device("cpu")


def made(name, **settings):
    """A network whose norms and biases all do something."""
    network = backbone.build(backbone.Config(backbone=name, height=64, width=32, **settings), seed=0)
    network.calibrate([IMAGES], neck=True)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for norm in network.modules():
            if isinstance(norm, (torch.nn.BatchNorm2d, torch.nn.BatchNorm1d)):
                norm.weight.copy_(0.5 + torch.rand(norm.weight.shape, generator=draw))
                norm.bias.copy_(torch.rand(norm.bias.shape, generator=draw) - 0.3)
    return network.eval()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tiny", {}),
        ("tiny", {"pooling": "gem"}),
        ("osnet_x0_25", {}),
        ("osnet_x0_25", {"feature": "pooled", "last_stride": 1}),
        ("mobilenet_v2", {}),
        ("resnet50", {"pooling": "gem"}),
        ("ibn_resnet50_a", {"last_stride": 1}),
    ],
)
def test_the_function_is_the_network_s(name, settings):
    network = made(name, **settings)
    pixels = network.normalise(torch.from_numpy(IMAGES))
    with torch.inference_mode():
        want, got = network(pixels), folded.Folded(network)(pixels)
    assert got.shape == want.shape
    assert (got - want).norm(dim=1).max() < 3e-5 * want.norm(dim=1).max()


def test_an_asymmetric_padding_stays():
    network = made("mobilenet_v2")
    network.set_padding(asymmetric=True)
    pixels = network.normalise(torch.from_numpy(IMAGES))
    with torch.inference_mode():
        want, got = network(pixels), folded.Folded(network)(pixels)
        network.set_padding(asymmetric=False)
        other = network(pixels)
    assert (got - want).norm(dim=1).max() < 3e-5 * want.norm(dim=1).max()
    assert (other - want).norm(dim=1).min() > 1e-2 * want.norm(dim=1).max()


def test_no_norm_is_left_but_those_that_follow_no_convolution():
    whole, body = made("osnet_x0_25"), folded.Folded(made("osnet_x0_25"))._body
    norms = [part for part in whole.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert len(norms) > 50
    assert not [part for part in body.modules() if isinstance(part, torch.nn.BatchNorm2d)]


def test_the_network_is_only_read_and_a_new_form_sees_its_new_weights():
    network = made("tiny")
    before = network.arrays()
    first = embed.extract(network, ArrayCrops(IMAGES), range(35), device="cpu")
    assert all(np.array_equal(value, network.arrays()[name]) for name, value in before.items())
    with torch.no_grad():
        network.conv1.weight.mul_(-1)
    second = embed.extract(network, ArrayCrops(IMAGES), range(35), device="cpu")
    assert (first * second).sum(1).max() < 0.999
    with torch.no_grad():
        network.conv1.weight.mul_(-1)
    assert np.array_equal(first, embed.extract(network, ArrayCrops(IMAGES), range(35), device="cpu"))


def test_the_form_of_a_network_that_stays_is_made_once_and_goes_with_it(monkeypatch):
    networks, forms = [made("tiny"), made("tiny")], []
    whole = folded.Folded
    monkeypatch.setattr(folded, "Folded", lambda network: forms.append(whole(network)) or forms[-1])
    for network in (*networks, *networks):
        embed.extract(network, ArrayCrops(IMAGES), [0], device="cpu", fixed=True)
    assert len(forms) == 2
    embed.extract(networks[0], ArrayCrops(IMAGES), [0], device="cpu")
    assert len(forms) == 3
    gone = weakref.ref(networks[0])
    del network, networks
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("first", [1, 35])
def test_weights_are_ordered_once_for_any_number_of_pictures(first):
    """A form that is kept sees a few crops of every frame: it must not grow with the kinds of few."""
    network = made("osnet_x0_25")
    pixels, form = network.normalise(torch.from_numpy(IMAGES)), folded.Folded(network)
    with torch.inference_mode():
        want = network(pixels)
        for n in (first, *range(2, 35, 7)):
            assert (form(pixels[:n]) - want[:n]).norm(dim=1).max() < 3e-5 * want.norm(dim=1).max()
    orders = [part.ordered for part in form._body.modules() if isinstance(part, folded._Convolution)]
    # A gate's convolutions serve four streams, of one size.
    assert {len(order) for order in orders} == {1}


def test_other_arithmetic_than_float32_on_a_cpu_is_the_network_s_own():
    network = made("tiny")
    assert folded.possible(network, CPU, torch.float32)
    assert not folded.possible(network, CPU, torch.bfloat16)
    assert not folded.possible(network, torch.device("cuda"), torch.float32)
    assert not folded.possible(network.double(), CPU, torch.float32)
