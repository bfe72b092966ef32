"""The form of a network that onnxruntime computes, beside the network itself, and where it is used."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.learn.test_folded import made

from tracklearn import runtimes
from tracklearn.learn import backbone, compute, embed, session
from tracklearn.learn.network import NAMES
from tracklearn.types import ArrayCrops, Refusal

IMAGES = np.random.default_rng(0).integers(0, 256, (35, 64, 32, 3)).astype(np.uint8)
CPU = torch.device("cpu")
here = pytest.mark.skipif(
    not all(map(runtimes.installed, session._NEEDED)), reason="onnx and onnxruntime are not installed"
)


@here
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tiny", {"pooling": "gem"}),
        ("osnet_x0_25", {}),
        ("osnet_x0_25", {"feature": "pooled", "last_stride": 1}),
        ("mobilenet_v2", {}),
        ("ibn_resnet50_a", {"last_stride": 1}),
    ],
)
def test_the_function_is_the_network_s(name, settings):
    network = made(name, **settings)
    network.set_pixels((0.3, 0.4, 0.5), (0.2, 0.25, 0.3))
    with torch.inference_mode():
        want = network(network.normalise(torch.from_numpy(IMAGES)))
        got = session.Session(network)(torch.from_numpy(IMAGES))
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    assert (got - want).norm(dim=1).max() < 3e-5 * want.norm(dim=1).max()


@here
@pytest.mark.parametrize(("name", "pooling"), zip(NAMES, itertools.cycle(["avg", "gem"]), strict=False))
def test_operations_are_written_down_once_for_networks_built_alike(name, pooling, monkeypatch):
    """Also for those whose arrays are all equal, as the norms of a new network are."""
    monkeypatch.setattr(session, "_graphs", {})
    config = backbone.Config(backbone=name, height=64, width=32, pooling=pooling)
    first = session.Session(backbone.build(config, seed=0).eval())
    written = []
    monkeypatch.setattr(session, "_written", lambda *_, **__: written.append(1))
    second, images = made(name, pooling=pooling), torch.from_numpy(IMAGES)
    got = session.Session(second)(images)
    assert not written
    with torch.inference_mode():
        want = second(second.normalise(images))
    assert (got - want).norm(dim=1).max() < 3e-5 * want.norm(dim=1).max()
    assert (got - first(images)).norm(dim=1).max() > 1e-2 * want.norm(dim=1).max()


@here
def test_arrays_that_lose_their_names_are_written_with_the_operations(monkeypatch):
    monkeypatch.setattr(session, "_graphs", {})
    folded, whole = [], session._written

    def written(body, shape, **given):
        folded.append(given.get("folded", True))
        return whole(body, shape)  # folded: no norm keeps its arrays

    monkeypatch.setattr(session, "_written", written)
    images = torch.from_numpy(IMAGES)
    for _ in range(2):
        network = made("osnet_x0_25")
        got = session.Session(network)(images)
        with torch.inference_mode():
            want = network(network.normalise(images))
        assert (got - want).norm(dim=1).max() < 3e-5 * want.norm(dim=1).max()
    assert folded == [False, True, True]


@here
def test_an_asymmetric_padding_stays():
    network = made("mobilenet_v2")
    network.set_padding(asymmetric=True)
    images = torch.from_numpy(IMAGES)
    with torch.inference_mode():
        want, got = network(network.normalise(images)), session.Session(network)(images)
    assert (got - want).norm(dim=1).max() < 3e-5 * want.norm(dim=1).max()


@here
@pytest.mark.parametrize("threads", [1, 3])
def test_a_picture_has_one_feature_alone_among_others_and_on_any_number_of_threads(threads):
    network, before = made("osnet_x0_25"), torch.get_num_threads()
    form, images = session.Session(network), torch.from_numpy(IMAGES)
    whole = form(images)
    torch.set_num_threads(threads)
    try:
        assert torch.equal(form(images), whole)
        assert torch.equal(torch.cat([form(images[i : i + 1]) for i in range(len(images))]), whole)
        for n in (2, 3, 7, 16):
            assert torch.equal(torch.cat([form(part) for part in images.split(n)]), whole)
    finally:
        torch.set_num_threads(before)


@here
def test_subnormal_weights_are_zero():
    network, clean = made("osnet_x0_25"), made("osnet_x0_25")
    with torch.no_grad():
        for tiny, zero in zip(network.parameters(), clean.parameters(), strict=True):
            with_zeros = torch.rand(tiny.shape) < 0.3
            tiny[with_zeros], zero[with_zeros] = 1e-39, 0
    images = torch.from_numpy(IMAGES)
    assert torch.equal(session.Session(network)(images), session.Session(clean)(images))
    assert any(bool((value == np.float32(1e-39)).any()) for value in network.parameters())


@here
def test_the_network_is_only_read_and_a_new_session_sees_its_new_weights():
    network = made("osnet_x0_25").train()
    before = network.arrays()

    def features():
        return embed.extract(network, ArrayCrops(IMAGES), range(35), device="cpu", by_session=True)

    first = features()
    assert network.training
    assert all(np.array_equal(value, network.arrays()[name]) for name, value in before.items())
    with torch.no_grad():
        network.conv1.conv.weight.mul_(-1)
    assert (first * features()).sum(1).max() < 0.999
    with torch.no_grad():
        network.conv1.conv.weight.mul_(-1)
    assert np.array_equal(first, features())
    np.testing.assert_allclose(
        first, embed.extract(network, ArrayCrops(IMAGES), range(35), device="cpu"), atol=1e-5
    )


@here
def test_a_surrounding_autocast_is_not_written_down():
    network, images = made("osnet_x0_25"), torch.from_numpy(IMAGES)
    want = session.Session(network)(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(session.Session(network)(images), want)


@here
@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 64, 32, 1), np.uint8), np.zeros((2, 32, 64, 3), np.uint8), IMAGES / np.float32(255)],
)
def test_pictures_of_another_kind_are_refused(images):
    form = session.Session(made("tiny"))
    with pytest.raises(ValueError, match=r"expected torch.uint8 .* 64 × 32 pixels"):
        form(torch.from_numpy(images))


@pytest.fixture
def anew():
    """What was found out about the installed libraries is forgotten, before and after."""
    session._fault.cache_clear()
    yield
    session._fault.cache_clear()


@here
def test_it_is_chosen_for_many_crops_on_a_cpu():
    assert session.chosen("auto", session.MANY, CPU)
    assert not session.chosen("auto", session.MANY - 1, CPU)
    assert not session.chosen("auto", session.MANY, torch.device("cuda"))
    assert not session.chosen("torch", session.MANY, CPU)
    assert session.chosen("onnxruntime", 1, CPU)


def test_without_the_libraries_auto_is_torch_and_asking_for_them_tells_how_to_have_them(monkeypatch):
    monkeypatch.setattr(runtimes, "installed", lambda name: name != "onnx")

    def load(name):
        raise Refusal(f"{name} is not installed")

    monkeypatch.setattr(runtimes, "load", load)
    assert not session.chosen("auto", session.MANY, CPU)
    with pytest.raises(ValueError, match="onnx is not installed"):
        compute.settled(compute.Config(features="onnxruntime"), CPU)
    assert compute.settled(compute.Config(), CPU) == compute.Config()


@here
@pytest.mark.parametrize(
    "open_it",
    [
        lambda *_: (_ for _ in ()).throw(TypeError("Descriptors cannot be created directly")),
        lambda *_: SimpleNamespace(run=lambda *_: [np.zeros((2, 3, 2, 2), np.float32)]),
    ],
)
def test_libraries_that_do_not_work_are_told_of_once_and_torch_computes(open_it, monkeypatch, caplog, anew):
    monkeypatch.setattr(session, "_opened", open_it)
    for _ in range(2):
        assert not session.chosen("auto", session.MANY, CPU)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    with pytest.raises(ValueError, match=r"onnxruntime, which does not work here \(.*set it to torch"):
        compute.settled(compute.Config(features="onnxruntime"), CPU)


def test_where_it_cannot_compute_asking_for_it_is_refused():
    with pytest.raises(ValueError, match="on a CPU here, not on cuda: set it to auto"):
        compute.settled(compute.Config(features="onnxruntime"), "cuda")


@here
def test_it_computes_in_float32_whatever_training_does():
    network = made("osnet_x0_25")
    full, half = (
        embed.extract(network, ArrayCrops(IMAGES), range(35), device="cpu", by_session=True, dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    np.testing.assert_array_equal(full, half)
