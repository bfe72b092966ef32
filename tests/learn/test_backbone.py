import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from tracklearn.learn import backbone
from tracklearn.learn.mobilenet import Conv
from tracklearn.learn.network import Pool

SMALL = {"height": 64, "width": 32}
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def build(name, seed=0, **settings):
    return backbone.build(backbone.Config(backbone=name, **{**SMALL, **settings}), seed=seed)


def pictures(n=24, height=64, width=32, seed=0):
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (n, height // 8, width // 8, 3))
    smooth = blocks.repeat(8, 1).repeat(8, 2) + rng.integers(-20, 20, (n, height, width, 3))
    return smooth.clip(0, 255).astype(np.uint8)


def features(network, images):
    network.eval()
    with torch.no_grad():
        return network(network.normalise(torch.from_numpy(images)))


def folded_arrays(network):
    """The network's arrays with every 2-D batch norm folded away, as a converted quantised model has them."""
    arrays = {k: v.clone() for k, v in network.state_dict().items() if not k.startswith("neck.")}
    generator = torch.Generator().manual_seed(3)
    for name in [k.removesuffix(".running_mean") for k in arrays if k.endswith(".running_mean")]:
        shape = arrays[f"{name}.bias"].shape
        arrays[f"{name}.bias"] = torch.randn(shape, generator=generator)
    return {k: v.numpy() for k, v in arrays.items()}


def norm_names(prefix):
    return [f"{prefix}.{n}" for n in NORM]


def resnet_names(*, ibn):
    names = ["conv1.weight", *norm_names("bn1")]
    for stage, n_blocks in ((1, 3), (2, 4), (3, 6), (4, 3)):
        for i in range(n_blocks):
            block = f"layer{stage}.{i}"
            names += [f"{block}.conv{j}.weight" for j in (1, 2, 3)]
            if ibn and stage < 4:
                names += [f"{block}.bn1.IN.weight", f"{block}.bn1.IN.bias", *norm_names(f"{block}.bn1.BN")]
            else:
                names += norm_names(f"{block}.bn1")
            names += norm_names(f"{block}.bn2") + norm_names(f"{block}.bn3")
            if i == 0:
                names += [f"{block}.downsample.0.weight", *norm_names(f"{block}.downsample.1")]
    return names


def mobilenet_names():
    names = ["features.0.0.weight", *norm_names("features.0.1")]
    for i in range(1, 18):
        block = f"features.{i}.conv"
        wide = 0 if i == 1 else 1
        for j in range(wide + 1):
            names += [f"{block}.{j}.0.weight", *norm_names(f"{block}.{j}.1")]
        names += [f"{block}.{wide + 1}.weight", *norm_names(f"{block}.{wide + 2}")]
    return [*names, "features.18.0.weight", *norm_names("features.18.1")]


def osnet_names():
    names = ["conv1.conv.weight", *norm_names("conv1.bn")]
    for stage, n_blocks in ((2, 2), (3, 2), (4, 2)):
        for i in range(n_blocks):
            block = f"conv{stage}.{i}"
            plain = ["conv1", "conv3", *(["downsample"] if i == 0 else [])]
            for name in plain:
                names += [f"{block}.{name}.conv.weight", *norm_names(f"{block}.{name}.bn")]
            light = [f"{block}.conv2a"]
            light += [
                f"{block}.conv2{letter}.{j}" for letter, n in (("b", 2), ("c", 3), ("d", 4)) for j in range(n)
            ]
            for name in light:
                names += [f"{name}.conv1.weight", f"{name}.conv2.weight", *norm_names(f"{name}.bn")]
            names += [f"{block}.gate.{fc}.{kind}" for fc in ("fc1", "fc2") for kind in ("weight", "bias")]
        if stage < 4:
            names += [f"conv{stage}.2.0.conv.weight", *norm_names(f"conv{stage}.2.0.bn")]
    names += ["conv5.conv.weight", *norm_names("conv5.bn")]
    return [*names, "fc.0.weight", "fc.0.bias", *norm_names("fc.1")]


PUBLISHED = [
    ("resnet50", resnet_names(ibn=False), 23_508_032, 2048),
    ("ibn_resnet50_a", resnet_names(ibn=True), 23_508_032, 2048),
    ("mobilenet_v2", mobilenet_names(), 2_223_872, 1280),
    ("osnet_x1_0", osnet_names(), 2_169_508, 512),
    ("osnet_x0_75", osnet_names(), 1_285_754, 512),
    ("osnet_x0_5", osnet_names(), 630_034, 512),
    ("osnet_x0_25", osnet_names(), 201_864, 512),
]
OSNETS = {"osnet_x1_0": 512, "osnet_x0_75": 384, "osnet_x0_5": 256, "osnet_x0_25": 128}


@pytest.mark.parametrize(("name", "keys", "n_parameters", "width"), PUBLISHED)
def test_published_names_and_sizes(name, keys, n_parameters, width):
    network = build(name)
    body = [k for k in network.state_dict() if not k.startswith("neck.")]
    assert sorted(body) == sorted(keys)
    assert sum(p.numel() for k, p in network.named_parameters() if not k.startswith("neck.")) == n_parameters
    assert network.feature_dim == width
    assert network.neck.weight.shape == (width,)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((n, {}) for n in backbone.NAMES),
        ("mobilenet_v2", {"pooling": "gem"}),
        ("tiny", {"pooling": "gem"}),
        ("osnet_x0_25", {"pooling": "gem"}),
        ("osnet_x0_25", {"feature": "pooled"}),
    ],
)
def test_feature_has_the_stated_width_and_every_parameter_learns(name, settings):
    network = build(name, **settings)
    images = torch.from_numpy(pictures(4))
    feature = network(network.normalise(images))
    assert feature.shape == (4, network.feature_dim)
    network.neck(feature).pow(3).sum().backward()
    still = [k for k, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert still == ["neck.bias"]
    assert not network.neck.bias.requires_grad


@pytest.mark.parametrize("name", backbone.NAMES)
def test_last_stride_one_doubles_the_map(name):
    x = torch.zeros(1, 3, 64, 32)
    shapes = [build(name, last_stride=s).eval().maps(x).shape[2:] for s in (1, 2)]
    assert tuple(shapes[0]) == (2 * shapes[1][0], 2 * shapes[1][1])
    stride = 16 if name == "tiny" or name in OSNETS else 32
    assert tuple(shapes[1]) == (64 // stride, 32 // stride)


@pytest.mark.parametrize(("name", "channels"), OSNETS.items())
def test_osnets_feature_is_its_embedding_or_the_pooled_map(name, channels):
    whole, pooled = build(name), build(name, feature="pooled", seed=1)
    assert (whole.feature_dim, pooled.feature_dim) == (512, channels)
    report = pooled.load_weights(whole.arrays() | {"neck." + n: pooled.arrays()["neck." + n] for n in NORM})
    assert sorted(report.ignored) == sorted(k for k in osnet_names() if k.startswith("fc."))
    images = pictures(5)
    below, above = features(pooled, images), features(whole, images)
    assert below.shape == (5, channels)
    assert torch.equal(whole.fc(below), above)
    assert (above >= 0).all()
    with pytest.raises(ValueError, match=r"6 missing: fc\.0\.bias"):
        whole.load_weights({k: v for k, v in pooled.arrays().items() if not k.startswith("neck.")})


def test_only_osnet_has_a_choice_of_features():
    with pytest.raises(
        ValueError, match=r"network\.feature = 'pooled' belongs to OSNet: the feature of tiny"
    ):
        build("tiny", feature="pooled")


def test_random_start_depends_on_the_seed_only():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = build("tiny", seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    again, other = build("tiny", seed=1), build("tiny", seed=2)
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    assert not torch.equal(first.conv1.weight, other.conv1.weight)
    assert first.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_normalise_is_the_textbook_form_in_channels_last():
    network, images = build("tiny"), pictures(2)
    got = network.normalise(torch.from_numpy(images))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(got, ((images / 255 - mean) / std).transpose(0, 3, 1, 2), atol=1e-5)
    assert got.is_contiguous(memory_format=torch.channels_last)
    for wrong in (torch.zeros(2, 3, 64, 32), torch.zeros(2, 3, 64, 32, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"expected torch\.uint8"):
            network.normalise(wrong)


def test_bn_group_reaches_every_norm():
    network = build("ibn_resnet50_a")
    network.set_bn_group(4)
    kinds = [m for m in network.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert len(kinds) == 54
    assert {m.group for m in kinds} == {4}


def test_groups_equal_separate_passes_of_the_whole_network():
    whole = build("tiny").double()
    split = copy.deepcopy(whole)
    whole.set_bn_group(4)
    x = torch.randn(10, 3, 64, 32, dtype=torch.float64)
    got = whole.neck(whole(x))
    want = torch.cat([split.neck(split(x[i:j])) for i, j in ((0, 4), (4, 8), (8, 10))])
    torch.testing.assert_close(got, want)


def test_pool_averages_parts_by_hand():
    x = torch.arange(12.0).view(1, 1, 6, 2)
    assert Pool(3, gem=False)(x).tolist() == [[1.5, 5.5, 9.5]]
    assert Pool(1, gem=False)(x).tolist() == [[5.5]]
    # four rows in three parts: rows 0–1, 1–2, 2–3
    assert Pool(3, gem=False)(torch.tensor([1.0, 2, 3, 4]).view(1, 1, 4, 1)).tolist() == [[1.5, 2.5, 3.5]]
    gem = Pool(1, gem=True)(torch.tensor([1.0, 2, 3]).view(1, 1, 3, 1))
    assert gem.item() == pytest.approx((36 / 3) ** (1 / 3), rel=1e-5)


def test_same_padding_is_right_and_bottom_of_even_sizes():
    conv = Conv(1, 1, 3, stride=2)
    conv.same = True
    with torch.no_grad():
        conv.weight.fill_(1)
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert (
        conv(x).tolist() == functional.conv2d(functional.pad(x, (0, 1, 0, 1)), conv.weight, stride=2).tolist()
    )
    odd = torch.ones(1, 1, 5, 5)
    assert conv(odd).tolist() == functional.conv2d(odd, conv.weight, stride=2, padding=1).tolist()
    with pytest.raises(ValueError, match="only mobilenet_v2"):
        build("tiny").set_padding(asymmetric=True)


class TestLoadWeights:
    @pytest.mark.parametrize(("name", "keys"), [(n, k) for n, k, _, _ in PUBLISHED])
    def test_published_names_load_without_classifier_or_counters(self, name, keys):
        source = build(name, seed=1)
        wanted = source.state_dict()
        arrays = {k: wanted[k].numpy() for k in keys if not k.endswith("num_batches_tracked")}
        n = len(arrays)
        head = {"mobilenet_v2": "classifier.1", **dict.fromkeys(OSNETS, "classifier")}.get(name, "fc")
        arrays |= {f"{head}.weight": np.zeros((1000, 8)), f"{head}.bias": np.zeros(1000)}
        network = build(name, seed=2)
        report = network.load_weights(arrays)
        assert report.ignored == (f"{head}.weight", f"{head}.bias")
        assert (report.n_loaded, report.neck, report.folded) == (n, False, False)
        assert network.start == "loaded"
        got = network.state_dict()
        assert all(torch.equal(got[key], wanted[key]) for key in keys)

    def test_own_state_comes_back_with_the_neck(self):
        source, network = build("tiny", seed=1, pooling="gem"), build("tiny", seed=2, pooling="gem")
        source.calibrate([pictures()], neck=True)
        report = network.load_weights(source.arrays())
        assert report.neck
        assert report.n_loaded == report.n_expected
        assert torch.equal(features(source, pictures(3)), features(network, pictures(3)))
        assert torch.equal(source.neck.running_var, network.neck.running_var)

    def test_faults_are_one_line_and_change_nothing(self):
        network = build("tiny")
        before = network.arrays()
        arrays = network.arrays()
        arrays["extra.weight"] = arrays.pop("conv1.weight")
        arrays["layer1.bn1.weight"] = np.ones(3)
        with pytest.raises(ValueError) as caught:
            network.load_weights(arrays)
        text = str(caught.value)
        for part in ("tiny", "missing: conv1.weight", "unknown: extra.weight", "layer1.bn1.weight (3,)"):
            assert part in text
        assert "\n" not in text
        for key, value in network.arrays().items():
            assert np.array_equal(value, before[key])

    @pytest.mark.parametrize(
        ("name", "change", "message"),
        [
            ("mobilenet_v2", {"pixel_std": (0.5, 0.0, 0.5)}, "std above 0"),
            ("mobilenet_v2", {"pixel_std": (0.5, float("nan"), 0.5)}, "std above 0"),
            ("mobilenet_v2", {"pixel_mean": (0.5, 0.5)}, "three floats"),
            ("tiny", {}, "only mobilenet_v2"),
        ],
    )
    def test_info_that_does_not_fit_changes_nothing(self, name, change, message):
        network, other = build(name, seed=1), build(name, seed=2)
        values = {"pixel_mean": (0.4,) * 3, "pixel_std": (0.5,) * 3, "asymmetric_padding": True}
        before, metadata = network.arrays(), network.metadata()
        with pytest.raises(ValueError, match=message):
            network.load_weights(other.arrays(), info=SimpleNamespace(**{**values, **change}))
        assert network.metadata() == metadata
        assert network.start == "random"
        assert all(np.array_equal(v, before[k]) for k, v in network.arrays().items())

    @pytest.mark.parametrize(
        ("key", "change", "message"),
        [
            ("conv1.weight", lambda v: v.to(torch.int32), r"1 not of real numbers: conv1\.weight int32"),
            ("conv1.weight", lambda v: v.bool(), r"1 not of real numbers: conv1\.weight bool"),
            ("conv1.weight", lambda v: v.to(torch.complex64), r"numbers: conv1\.weight complex64"),
            ("conv1.weight", lambda v: v.double() * 1e300, r"too large for float32: conv1\.weight"),
            ("conv1.weight", lambda v: v * float("nan"), r"1 not finite.*: conv1\.weight"),
            ("neck.running_var", lambda v: -v, r"1 below 0: neck\.running_var"),
        ],
    )
    def test_numbers_that_no_network_can_use_change_nothing(self, key, change, message):
        network = build("tiny")
        before = {k: v.clone() for k, v in network.state_dict().items()}
        with pytest.raises(ValueError, match=message):
            network.load_weights({**before, key: change(before[key])})
        assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())

    def test_float64_is_narrowed_and_counters_of_one_are_numbers(self):
        network = build("tiny")
        state = {k: v.double() + 1 if v.ndim else v.reshape(1) + 7 for k, v in network.state_dict().items()}
        network.load_weights(state)
        assert all(
            torch.equal(v, state[k].to(v.dtype).reshape(v.shape)) for k, v in network.state_dict().items()
        )

    def test_another_backbone_is_refused_and_long_lists_are_cut(self):
        with pytest.raises(ValueError, match=r"\d+ missing: .*, …") as caught:
            build("mobilenet_v2").load_weights(build("tiny").arrays())
        assert len(str(caught.value)) < 500

    def test_info_sets_pixels_and_padding(self):
        network = build("mobilenet_v2")
        info = SimpleNamespace(pixel_mean=(0.5, 0.5, 0.5), pixel_std=(0.5, 0.5, 0.5), asymmetric_padding=True)
        network.load_weights(network.arrays(), info=info)
        assert network.pixel_mean == (0.5, 0.5, 0.5)
        assert network.asymmetric_padding
        x = network.normalise(torch.full((1, 64, 32, 3), 255, dtype=torch.uint8))
        assert torch.allclose(x, torch.ones(()))
        assert network.metadata() == {
            "architecture": "mobilenet_v2",
            "pixel_mean": "[0.5, 0.5, 0.5]",
            "pixel_std": "[0.5, 0.5, 0.5]",
            "asymmetric_padding": "true",
        }


class TestCalibrate:
    @pytest.mark.parametrize("name", ["mobilenet_v2", "osnet_x0_25", "tiny"])
    def test_unfolding_keeps_the_function_and_measures_every_norm(self, name):
        network = build(name)
        network.load_weights(folded_arrays(network))
        assert network.start == "folded"
        images = pictures(40)
        before = features(network, images)
        network.train()
        network.calibrate([images[:24], images[24:]], neck=False)
        assert network.training
        assert network.start == "loaded"
        after = features(network, images)
        assert (after - before).abs().max() <= 1e-4 * before.abs().max()
        # what is measured is what enters: in training mode over the same crops nothing changes either
        network.train()
        with torch.no_grad():
            trained = network(network.normalise(torch.from_numpy(images)))
        if name != "tiny":  # its instance norm is not folded
            torch.testing.assert_close(trained, before, atol=2e-3, rtol=2e-3)
        assert network.neck.running_mean.eq(0).all()

    def test_a_norm_behind_a_linear_layer_that_was_not_folded_keeps_its_statistics(self):
        network = build("osnet_x0_25")
        arrays = folded_arrays(network)
        rng = np.random.default_rng(0)
        for name in ("fc.1.weight", "fc.1.running_mean", "fc.1.running_var"):
            arrays[name] = rng.uniform(0.1, 2, 512).astype(np.float32)
        assert network.load_weights(arrays).folded
        images = pictures(40)
        before = features(network, images)
        network.calibrate([images], neck=False)
        assert (features(network, images) - before).abs().max() <= 1e-4 * before.abs().max()
        for name in ("weight", "bias", "running_mean", "running_var"):
            assert np.array_equal(network.arrays()[f"fc.1.{name}"], arrays[f"fc.1.{name}"])
        assert not (network.conv5.bn.running_var == 1).any()

    def test_moments_are_those_of_the_input(self):
        network = build("tiny")
        network.load_weights(folded_arrays(network))
        images = pictures(30)
        network.calibrate([images[:7], images[7:]], neck=False)
        network.eval()
        with torch.no_grad():
            entering = network.conv1(network.normalise(torch.from_numpy(images)))[:, network.bn1.n_instance :]
        torch.testing.assert_close(
            network.bn1.BN.running_mean, entering.mean((0, 2, 3)), atol=1e-4, rtol=1e-4
        )
        variance = entering.var((0, 2, 3), correction=0)
        torch.testing.assert_close(network.bn1.BN.running_var, variance, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("name", ["tiny", "mobilenet_v2", "osnet_x0_25"])
    def test_random_features_become_centred_and_spread(self, name):
        network, images = build(name), pictures(48)
        network.calibrate([images[:24], images[24:]], neck=True)
        assert network.start == "random"
        feature = features(network, images)
        post = network.neck(feature).detach()
        assert post.mean(0).abs().max() < 1e-4
        assert 0.5 < post.var(0, correction=0).mean() < 1.01
        unit = functional.normalize(post)
        apart = torch.cdist(unit, unit)[~torch.eye(48, dtype=bool)]
        assert apart.median() > 1.2
        raw = functional.normalize(feature)
        assert torch.cdist(raw, raw)[~torch.eye(48, dtype=bool)].median() < apart.median()

    def test_loaded_norms_are_left_alone(self):
        network = build("tiny")
        network.calibrate([pictures()], neck=True)
        network.load_weights({k: v for k, v in network.arrays().items() if not k.startswith("neck.")})
        before = network.arrays()
        network.calibrate([pictures(seed=1)], neck=False)
        after = network.arrays()
        assert all(np.array_equal(after[k], before[k]) for k in before)
        network.calibrate([pictures(seed=1)], neck=True)
        changed = {k for k in before if not np.array_equal(before[k], network.arrays()[k])}
        assert changed == {"neck.running_mean", "neck.running_var"}

    def test_is_deterministic_and_accepts_tensors(self):
        a, b = build("tiny"), build("tiny")
        a.calibrate([pictures()], neck=True)
        b.set_bn_group(4)
        b.calibrate([torch.from_numpy(pictures())], neck=True)
        assert all(np.array_equal(v, b.arrays()[k]) for k, v in a.arrays().items())
        assert b.neck.group == 4

    def test_a_silent_channel_is_not_blown_up(self):
        network = build("tiny")
        with torch.no_grad():
            network.layer2.bn2.weight[0] = 0
            network.layer2.bn2.bias[0] = -100
        network.calibrate([pictures()], neck=True)
        assert network.neck.running_var.min() > 0.005 * network.neck.running_var.mean()

    @pytest.mark.parametrize("name", ["tiny", "mobilenet_v2"])
    def test_crops_that_all_look_the_same_are_refused(self, name):
        blank = np.full((20, 64, 32, 3), 90, np.uint8)
        for same in (blank, pictures(1), np.repeat(pictures(1), 20, 0)):
            with pytest.raises(ValueError, match="all look the same"):
                build(name).calibrate([same[:13], same[13:]], neck=True)
        nearly = np.repeat(pictures(1), 20, 0)
        nearly[7, 30:40, 10:20] ^= 8
        build(name).calibrate([nearly[:13], nearly[13:]], neck=True)

    def test_no_batches_are_refused(self):
        with pytest.raises(ValueError, match="at least one crop"):
            build("tiny").calibrate([pictures()[:0]], neck=True)


def test_shared_mobilenet_loads_unfolds_and_tells_pictures_apart(data):
    from safetensors.numpy import load_file

    arrays = load_file(data / "weights" / "mobilenet_v2_imagenet.safetensors")
    network = build("mobilenet_v2")
    info = SimpleNamespace(pixel_mean=(0.5,) * 3, pixel_std=(0.5,) * 3, asymmetric_padding=True)
    report = network.load_weights(arrays, info=info)
    assert report.folded
    assert report.n_loaded == report.n_expected - 4
    images = pictures(16)
    before = functional.normalize(features(network, images))
    network.calibrate([images], neck=False)
    after = functional.normalize(features(network, images))
    assert (after - before).abs().max() < 1e-4


def test_compiled_forward_has_no_graph_break():
    network = build("tiny").eval()
    x = torch.zeros(2, 3, 64, 32)
    assert torch._dynamo.explain(network)(x).graph_break_count == 0


@pytest.mark.parametrize(
    "settings", [{"backbone": "vgg"}, {"last_stride": 3}, {"pooling": "max"}, {"heigth": 128}, {"height": 8}]
)
def test_settings_are_checked(settings):
    with pytest.raises(ValidationError):
        backbone.Config(**settings)
