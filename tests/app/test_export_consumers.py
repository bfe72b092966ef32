"""Exports in the hands of those they are for: by their own code where it may be used and is installed.

AGPL programs are represented by the contract they document: what they read of a file, and what they do to
pictures before it.
"""

import importlib
import json
import re
import sys

import numpy as np
import pytest
import yaml

from tests.app.exported_runs import write_run, write_set
from tests.optional import needs
from tracklearn.app.model import export as module
from tracklearn.app.model import forms
from tracklearn.app.model.of_run import load_network
from tracklearn.learn import embed
from tracklearn.store.runs import Run
from tracklearn.store.sets.tracklets import open_set

pytestmark = pytest.mark.long

ROWS = np.arange(0, 160, 20)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    folder = tmp_path_factory.mktemp("consumers")
    set_path = write_set(folder / "set")
    write_run(folder / "run", set_path, "osnet_x0_25", height=256, width=128)
    # Its pixels are not ImageNet's: what a program does outside must be made good inside.
    write_run(folder / "odd", set_path, "tiny", pixels=((0.5,) * 3, (0.5,) * 3))
    return folder


def package(name):
    """A consumer's module; the test is skipped where it cannot be imported."""
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:  # torchvision of another build raises the latter
        pytest.skip(f"{name} cannot be imported: {str(error).splitlines()[0]}")


def torchreid_utils(monkeypatch):
    """torchreid's tools by the name in its documentation; the build on PyPI keeps them elsewhere."""
    package("torchreid")
    try:
        return importlib.import_module("torchreid.utils")
    except ModuleNotFoundError:
        found = package("torchreid.reid.utils")
        monkeypatch.setitem(sys.modules, "torchreid.utils", found)
        return found


def wanted(folder, run, *, neck=True):
    """Pictures of the network's own size, and its unit features."""
    network = load_network(Run(folder / run))
    stored = open_set(folder / "set").crops(network.config.height, network.config.width, cache_bytes=0)
    return stored.read(ROWS), embed.extract(network, stored, ROWS, device="cpu", post_bn=neck)


def unit(features):
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def session_of(path):
    return needs("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("run", ["run", "odd"])
def test_boxmot_reads_shape_and_name_and_normalises_outside(where, tmp_path, run):
    needs("onnx")
    result = module.export(where / run, consumer="boxmot", out=tmp_path / "made")
    (name,) = (file["name"] for file in result["files"])
    assert re.match(r"(osnet_x0_25|tiny)_[0-9a-f]{8}\.onnx", name)
    assert not re.search("veri|vehicleid|market|duke|msmt", name)
    session = session_of(tmp_path / "made" / name)
    (entry,) = session.get_inputs()
    assert len(entry.shape) == 4
    assert entry.shape[1:] == ([3, 256, 128] if run == "run" else [3, 64, 32])
    pictures, features = wanted(where, run)
    (got,) = session.run(None, {entry.name: forms.pictures(pictures, IMAGENET)})
    np.testing.assert_allclose(got, features, atol=1e-4)
    cosine = result["calibration"]["threshold"] ** 2 / 2
    assert result["thresholds"][0]["value"] == pytest.approx(cosine / 2)


def test_ultralytics_divides_by_255_and_nothing_else(where, tmp_path):
    needs("onnx")
    result = module.export(where / "odd", consumer="ultralytics", out=tmp_path / "made")
    name, settings = (file["name"] for file in result["files"])
    told = yaml.safe_load((tmp_path / "made" / settings).read_text())
    assert (told["tracker_type"], told["with_reid"], told["model"]) == ("botsort", True, name)
    # Their distance is half of the cosine distance, and the setting a similarity.
    half = result["calibration"]["threshold"] ** 2 / 4
    assert told["appearance_thresh"] == pytest.approx(1 - half, abs=6e-4)
    session = session_of(tmp_path / "made" / name)
    (entry,) = session.get_inputs()
    assert all(isinstance(side, int) for side in entry.shape[1:])
    pictures, features = wanted(where, "odd")
    (got,) = session.run(None, {entry.name: pictures.transpose(0, 3, 1, 2).astype(np.float32) / 255})
    np.testing.assert_allclose(got, features, atol=1e-4)


def test_ultralytics_keeps_its_default_where_nothing_was_calibrated(where, tmp_path):
    needs("onnx")
    run = write_run(tmp_path / "run", write_set(tmp_path / "set", film=False))
    module.export(run, consumer="ultralytics", out=tmp_path / "made")
    (settings,) = (tmp_path / "made").glob("*.yaml")
    assert yaml.safe_load(settings.read_text())["appearance_thresh"] == 0.8


def test_deepstream_scales_by_one_number(where, tmp_path):
    needs("onnx")
    result = module.export(where / "odd", consumer="deepstream", out=tmp_path / "made")
    name, settings = (file["name"] for file in result["files"])
    told = yaml.safe_load((tmp_path / "made" / settings).read_text())
    cosine = result["calibration"]["threshold"] ** 2 / 2
    assert told["TrajectoryManagement"]["minMatchingScore4ReidSimilarity"] == pytest.approx(
        1 - cosine, abs=6e-4
    )
    reid = told["ReID"]
    assert (reid["reidType"], reid["inputOrder"], reid["colorFormat"]) == (2, 0, 0)
    assert (reid["inferDims"], reid["reidFeatureSize"], reid["onnxFile"]) == ([3, 64, 32], 384, name)
    assert reid["addFeatureNormalization"] == 1
    session = session_of(tmp_path / "made" / name)
    pictures, features = wanted(where, "odd")
    given = reid["netScaleFactor"] * (pictures.astype(np.float32) - np.float32(reid["offsets"]))
    (got,) = session.run(None, {"images": given.transpose(0, 3, 1, 2).astype(np.float32)})
    np.testing.assert_allclose(got, features, atol=1e-4)
    assert session.run(None, {"images": given[:1].transpose(0, 3, 1, 2).astype(np.float32)})[0].shape == (
        1,
        384,
    )


def test_roboflow_reid_loads_the_folder(where, tmp_path):
    result = module.export(where / "run", consumer="reid", out=tmp_path / "made")
    config = json.loads((tmp_path / "made" / "reid_config.json").read_text())
    assert config["architecture"] == "osnet_x0_25"
    assert config["preprocessing"]["input_size"] == [256, 128]
    assert result["parity"]["least_cosine"] > 0.99999
    reid, supervision = package("reid"), package("supervision")
    model = reid.ReIDModel.from_pretrained(str(tmp_path / "made"), device="cpu")
    pictures, features = wanted(where, "run", neck=False)
    frame = np.ascontiguousarray(np.concatenate(list(pictures), axis=1)[:, :, ::-1])
    box = [[128.0 * i, 0, 128 * (i + 1), 256] for i in range(len(pictures))]
    got = model.extract_embeddings(supervision.Detections(xyxy=np.array(box)), frame)
    np.testing.assert_allclose(unit(got), features, atol=1e-4)


def test_torchreid_loads_the_checkpoint(where, tmp_path, monkeypatch):
    result = module.export(where / "run", consumer="torchreid", out=tmp_path / "made")
    name = result["files"][0]["name"]
    assert name == "osnet_x0_25_3f9c21aa.pt"
    pictures, features = wanted(where, "run", neck=False)
    extract = torchreid_utils(monkeypatch).FeatureExtractor(
        model_name="osnet_x0_25", model_path=str(tmp_path / "made" / name), device="cpu", verbose=False
    )
    np.testing.assert_allclose(unit(extract(list(pictures)).numpy()), features, atol=1e-4)


def test_deep_sort_realtime_loads_the_checkpoint(where, tmp_path, monkeypatch):
    result = module.export(where / "run", consumer="deep-sort-realtime", out=tmp_path / "made")
    cosine = result["calibration"]["threshold"] ** 2 / 2
    assert result["thresholds"][0]["name"] == "max_cosine_distance"
    assert result["thresholds"][0]["value"] == pytest.approx(cosine)
    pictures, features = wanted(where, "run", neck=False)
    torchreid_utils(monkeypatch)
    package("deep_sort_realtime.embedder.embedder_pytorch")
    tracker = package("deep_sort_realtime.deepsort_tracker").DeepSort(
        embedder="torchreid",
        embedder_model_name="osnet_x0_25",
        embedder_wts=str(tmp_path / "made" / result["files"][0]["name"]),
        embedder_gpu=False,
    )
    got = tracker.embedder.predict([picture[:, :, ::-1] for picture in pictures])
    np.testing.assert_allclose(unit(got), features, atol=1e-4)


def test_what_deep_sort_realtime_cannot_be_told_is_refused(where, tmp_path):
    odd = write_run(
        tmp_path / "odd", where / "set", "osnet_x0_25", height=256, width=128, pixels=((0.5,) * 3, (0.5,) * 3)
    )
    with pytest.raises(ValueError, match=r"crops of 256 × 128 normalised as ImageNet's, this one takes 256"):
        module.export(odd, consumer="deep-sort-realtime", crops=where / "set")
    assert not (odd / "export").exists()
