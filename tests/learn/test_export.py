"""Networks as one module: the features of search, in other clothes."""

import numpy as np
import pytest
import torch
from tests.optional import needs

from tracklearn.learn import backbone, embed, export
from tracklearn.types import ArrayCrops

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CASES = ["tiny", "mobilenet_v2", "osnet_x0_25", "ibn_resnet50_a"]


def network_of(name, **settings):
    """A network whose norms, neck included, have seen crops, so that nothing in it is trivial."""
    network = backbone.build(backbone.Config(backbone=name, height=64, width=32, **settings), seed=3)
    network.calibrate([crops().read(np.arange(12))], neck=True)
    with torch.no_grad():
        network.neck.weight.mul_(torch.linspace(0.5, 2, network.feature_dim))
    return network.eval()


def crops():
    rng = np.random.default_rng(1)
    return ArrayCrops(rng.integers(0, 256, (12, 8, 4, 3)).repeat(8, 1).repeat(8, 2).astype(np.uint8))


def given(pixels):
    mean, std = (np.float32(values) for values in pixels)
    images = (crops().read(np.arange(12)).astype(np.float32) / 255 - mean) / std
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


@pytest.mark.parametrize("pixels", [IMAGENET, export.BAKED, ((0.5,) * 3, (0.25,) * 3)])
@pytest.mark.parametrize("name", CASES)
def test_the_whole_gives_the_features_of_search_whatever_is_done_outside(name, pixels):
    network = network_of(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.no_grad():
        got = export.whole(network, mean=pixels[0], std=pixels[1])(given(pixels)).numpy()
    wanted = embed.extract(network, crops(), np.arange(12), device="cpu")
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-6)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["tiny", "mobilenet_v2", "osnet_x0_25"])
def test_files_hold_the_same_for_any_number_of_pictures(name):
    needs("onnx")
    onnxruntime = needs("onnxruntime")
    network = network_of(name, pooling="gem" if name == "mobilenet_v2" else "avg")
    network.set_padding(asymmetric=name == "mobilenet_v2")
    whole = export.whole(network, mean=IMAGENET[0], std=IMAGENET[1])
    images = given(IMAGENET)
    wanted = whole(images).detach().numpy()
    session = onnxruntime.InferenceSession(
        export.onnx_bytes(whole, (3, 64, 32), names=("images", "features")),
        providers=["CPUExecutionProvider"],
    )
    entry = session.get_inputs()[0]
    assert (entry.name, entry.shape) == ("images", ["batch", 3, 64, 32])
    script = export.read_torchscript(export.torchscript_bytes(whole, (3, 64, 32)))
    for n in (1, 5, 12):
        (found,) = session.run(None, {"images": images[:n].numpy()})
        np.testing.assert_allclose(found, wanted[:n], atol=2e-5)
        np.testing.assert_allclose(script(images[:n]).detach().numpy(), wanted[:n], atol=2e-5)


def test_an_exported_graph_is_plain():
    """No batch norm is left that a runtime would have to fold, and no shape is worked out at run time."""
    onnx = needs("onnx")
    whole = export.whole(network_of("osnet_x0_25"), mean=IMAGENET[0], std=IMAGENET[1])
    data = export.onnx_bytes(whole, (3, 64, 32), names=("images", "features"))
    kinds = {node.op_type for node in onnx.load_from_string(data).graph.node}
    assert not kinds & {"BatchNormalization", "Shape", "Slice", "Gather", "If", "Loop"}


def test_a_tail_takes_features_that_were_shifted_and_scaled():
    network = network_of("tiny")
    tail, plain = export.Tail(network), export.Tail(network)
    rng = np.random.default_rng(0)
    wanted = rng.normal(1, 0.5, (40, network.feature_dim)).astype(np.float32)
    wanted[:, 3] = 0.7  # stands still
    line, shift = rng.uniform(0.5, 2, network.feature_dim), rng.normal(0, 1, network.feature_dim)
    got = (wanted * line + shift).astype(np.float32)
    tail.correct(wanted, got)
    np.testing.assert_allclose(tail(torch.from_numpy(got)), plain(torch.from_numpy(wanted)), atol=1e-4)


def test_arrays_for_others_are_those_before_the_neck():
    network = network_of("osnet_x0_25")
    arrays = export.osnet_arrays(network)
    assert not [name for name in arrays if name.startswith(("neck", "pool", "classifier"))]
    assert any(name.endswith("num_batches_tracked") for name in arrays)
    other = backbone.build(network.config, seed=9)
    other.load_weights(arrays)
    wanted = embed.extract(network, crops(), np.arange(12), device="cpu", post_bn=False)
    np.testing.assert_array_equal(
        embed.extract(other, crops(), np.arange(12), device="cpu", post_bn=False), wanted
    )


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("mobilenet_v2", {}, "mobilenet_v2 with its BN neck has no slot there"),
        ("resnet50", {}, "resnet50 with its BN neck has no slot there"),
        ("osnet_x0_25", {"last_stride": 1}, "last_stride = 1, which the OSNet of other"),
        ("osnet_x0_25", {"pooling": "gem", "feature": "pooled"}, "pooling = gem, feature = pooled"),
    ],
)
def test_what_others_cannot_build_is_refused(name, settings, message):
    network = backbone.build(backbone.Config(backbone=name, height=64, width=32, **settings), seed=0)
    with pytest.raises(ValueError, match=message):
        export.osnet_arrays(network)
