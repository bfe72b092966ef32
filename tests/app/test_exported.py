"""Networks in .onnx files: sizes, batches, normalisation, enlarging, refusals."""

import os
import sys

import numpy as np
import pytest
import torch

from tests.app.made_files import write_onnx
from tests.optional import needs
from tracklearn.app.judge import benchmark as module
from tracklearn.app.judge import extract
from tracklearn.app.model.onnx import ExportedModel
from tracklearn.app.model.open import open_model
from tracklearn.learn import backbone
from tracklearn.store import benchmarks, weights
from tracklearn.store.picture.crops import bilinear, resize
from tracklearn.types import ArrayCrops


def test_batches_of_any_size_give_the_same(onnx, market, tmp_path):
    fixed = {n: write_onnx(tmp_path / f"{n}.onnx", (n, 3, 16, 8)) for n in (1, 3, 16)}
    crops = extract.Pictures(benchmarks.read("market1501", market).test, 16, 8)
    rows = np.arange(21)
    expected = ExportedModel(onnx).extract(crops, rows)
    for path in fixed.values():
        np.testing.assert_allclose(ExportedModel(path).extract(crops, rows), expected, atol=1e-6)
    assert ExportedModel(onnx).extract(crops, rows[:0]).shape[0] == 0


def test_small_pictures_grow_linearly_and_large_ones_are_averaged():
    ramp = np.zeros((2, 4, 3), np.uint8)
    ramp[1] = 200
    assert bilinear(ramp, 4, 2)[:, 0, 0].tolist() == [0, 50, 150, 200]
    assert resize(ramp, 4, 2)[:, 0, 0].tolist() != [0, 50, 150, 200]
    np.testing.assert_array_equal(bilinear(ramp, 1, 2), np.full((1, 2, 3), 100))
    np.testing.assert_array_equal(bilinear(ramp, 2, 4), ramp)


def test_interpolation_is_bilinear_unless_told_otherwise(tmp_path):
    needs("onnxruntime")
    plain, noted = (
        write_onnx(tmp_path / "a.onnx"),
        write_onnx(tmp_path / "b.onnx", notes={"interpolation": "bicubic"}),
    )
    assert ExportedModel(plain).interpolation == "bilinear"
    assert ExportedModel(noted).interpolation == "bicubic"
    assert open_model(noted, interpolation="bilinear").interpolation == "bilinear"
    assert open_model(noted).record["interpolation"] == "bicubic"
    with pytest.raises(ValueError, match="expected bilinear or bicubic"):
        ExportedModel(plain, interpolation="nearest")


def test_size_and_normalisation_are_the_files_own(tmp_path):
    needs("onnxruntime")
    free = ExportedModel(write_onnx(tmp_path / "a.onnx", ("n", 3, "h", "w")))
    assert (free.height, free.width) == (256, 128)
    assert (free.mean, free.pixels_from) == ((0.485, 0.456, 0.406), "ImageNet")
    notes = {"pixel_mean": "[0.5, 0.5, 0.25]", "std": "0.5, 0.5 1.0"}
    noted = write_onnx(tmp_path / "b.onnx", notes=notes)
    assert ExportedModel(noted).mean == (0.5, 0.5, 0.25)
    assert ExportedModel(noted).std == (0.5, 0.5, 1.0)
    assert ExportedModel(noted).pixels_from == "metadata"
    given = ExportedModel(noted, mean=(0, 0, 0))
    assert (given.mean, given.std) == ((0, 0, 0), (0.5, 0.5, 1.0))
    assert given.pixels_from == "options and metadata"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": ("n", 16, 8, 3)}, "expected .batch, 3, height, width"),
        ({"kind": 7, "pool": "Identity"}, "expected float or float16"),
        ({"pool": "NoSuchLayer"}, "not a model onnxruntime can load"),
        ({"inputs": 2}, "2 inputs, expected 1"),
        ({"notes": {"mean": "123.7 116.3 103.5"}}, "mean is .*three numbers of 0-1"),
        ({"notes": {"std": "0.5 half"}}, "std is .*three numbers of 0-1"),
        ({"notes": {"std": "0 0.5 0.5"}}, "above 0"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path, options, message):
    needs("onnxruntime")
    with pytest.raises(ValueError, match=message):
        ExportedModel(write_onnx(tmp_path / "odd.onnx", **options))


def test_a_model_that_cannot_run_or_gives_nothing_is_refused(tmp_path):
    needs("onnxruntime")
    black, row = ArrayCrops(np.zeros((1, 16, 8, 3), np.uint8)), np.arange(1)
    model = ExportedModel(write_onnx(tmp_path / "a.onnx"), mean=(0, 0, 0))
    with pytest.raises(ValueError, match="not finite or all zero"):
        model.extract(black, row)
    with pytest.raises(ValueError, match=r"does not run on .1, 3, 8, 8."):
        model.extract(ArrayCrops(np.zeros((1, 8, 8, 3), np.uint8)), row)
    turned = ExportedModel(write_onnx(tmp_path / "b.onnx", ("n", 3, 16, 8), pool="Transpose"))
    with pytest.raises(ValueError, match=r"output has shape .8, 48., expected .1, width"):
        turned.extract(black, row)


def test_onnxruntime_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"pip install \"tracklearn\[onnx\]\""):
        ExportedModel(write_onnx(tmp_path / "a.onnx"))


def test_the_shared_network_takes_its_fixed_batch_of_one(data, market):
    needs("onnxruntime")
    model = open_model(data / "weights" / "osnet_x0_25_msmt17.onnx")
    crops = extract.Pictures(benchmarks.read("market1501", market).test, model.height, model.width)
    assert (model.height, model.width) == (256, 128)
    features = model.extract(crops, np.array([3, 1, 3]))
    assert features.shape == (3, 512)
    np.testing.assert_array_equal(features[0], features[2])
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)


def test_our_osnet_is_the_shared_network(data):
    """To 1e-3 of the largest value, with the same weights: before and after its norms are unfolded."""
    needs("onnxruntime")
    rng = np.random.default_rng(0)
    noise = rng.integers(-20, 20, (6, 256, 128, 3))
    pictures = rng.integers(0, 256, (6, 16, 8, 3)).repeat(16, 1).repeat(16, 2) + noise
    crops, rows = ArrayCrops(pictures.clip(0, 255).astype(np.uint8)), np.arange(6)
    wanted = ExportedModel(data / "weights" / "osnet_x0_25_msmt17.onnx").extract(crops, rows)
    arrays, info = weights.load(data / "weights" / "osnet_x0_25_msmt17_1041.safetensors", backbone=None)
    network = backbone.build(backbone.Config(backbone=info.backbone), seed=0).eval()
    assert network.load_weights(arrays, info=info).folded
    for _ in range(2):
        with torch.no_grad():
            got = network(network.normalise(torch.from_numpy(crops.read(rows)))).numpy()
        got /= np.linalg.norm(got, axis=1, keepdims=True)
        assert np.abs(got - wanted).max() < 1e-3 * wanted.max()
        network.calibrate([crops.read(rows)], neck=False)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_shared_network_on_the_whole_of_market(data, tmp_path):
    """The published scores of torchreid's OSNet x0.25, trained on MSMT17 and tested on Market-1501."""
    root = os.environ.get("MARKET1501_ROOT")
    if not root:
        pytest.skip("MARKET1501_ROOT is not set")
    model = open_model(data / "weights" / "osnet_x0_25_msmt17.onnx")
    result = module.evaluate(model, "market1501", root, out=tmp_path / "out")
    assert result["mAP"] == pytest.approx(0.247, abs=0.003)
    assert result["rank1"] == pytest.approx(0.497, abs=0.005)
    assert (result["n_valid"], result["n_skipped"]) == (3368, 0)
