"""Detectors: shared parts, models on real pictures, hub models at random."""

import json
import sys

import numpy as np
import pytest
from tests.optional import needs

from tracklearn.store.detect import detector as detect
from tracklearn.store.detect import models as detect_models
from tracklearn.store.detect.boxes import suppress, tidy
from tracklearn.store.detect.detector import open_detector
from tracklearn.store.film.mot import Boxes, detection_f1, read_truth
from tracklearn.store.film.video import open_frames

RETAIL = "person-detection-retail-0013-FP16.xml"


# --- what all detectors share -------------------------------------------------------------------------


def test_tidy_clips_drops_and_sorts():
    box = np.array(
        [[-5, -5, 10, 10], [90, 40, 130, 80], [95, 10, 95.5, 20], [200, 0, 220, 9], [1, 1, np.nan, 4]]
    )
    found, score = tidy(box, np.array([0.2, 0.9, 1, 1, 1]), (50, 100, 3))
    assert found.tolist() == [[90, 40, 100, 50], [0, 0, 10, 10]]
    np.testing.assert_allclose(score, [0.9, 0.2])
    assert (found.dtype, score.dtype) == (np.float32, np.float32)
    assert box[0, 0] == -5


def test_suppress_keeps_the_best_of_each_heap():
    box = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [30, 0, 40, 10], [2, 0, 12, 10]], float)
    assert suppress(box, np.array([0.5, 0.9, 0.1, 0.4]), max_iou=0.5).tolist() == [1, 2]
    assert suppress(np.zeros((0, 4)), np.zeros(0), max_iou=0.5).tolist() == []


@pytest.mark.parametrize("spec", ["yolo", "motion:x", "file:", "", "openvino"])
def test_an_unknown_spec_lists_the_known(spec):
    with pytest.raises(ValueError, match="is not known, expected one of motion, hog, openvino:PATH"):
        open_detector(spec)


@pytest.mark.parametrize("kind", ["openvino", "onnx", "file"])
def test_a_missing_file_is_named(kind, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file: "):
        open_detector(f"{kind}:{tmp_path / 'none'}")


@pytest.mark.parametrize(("kind", "package"), [("openvino", "openvino"), ("onnx", "onnxruntime")])
def test_a_missing_extra_is_named(kind, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "m").write_bytes(b"x")
    with pytest.raises(ValueError, match=rf'pip install "tracklearn\[{kind}\]"'):
        open_detector(f"{kind}:{tmp_path / 'm'}")


@pytest.mark.parametrize("kind", ["openvino", "onnx"])
def test_a_file_that_is_no_model_is_refused_in_one_line(kind, tmp_path):
    needs({"onnx": "onnxruntime"}.get(kind, kind))
    (tmp_path / f"m.{'xml' if kind == 'openvino' else 'onnx'}").write_text("nonsense")
    path = next(tmp_path.iterdir())
    with pytest.raises(ValueError, match="not a model") as caught:
        open_detector(f"{kind}:{path}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["motion", "hog", "file:det.txt", "hub:name"])
def test_a_label_is_for_models_that_take_one(spec):
    with pytest.raises(ValueError, match=f"label 3 does not go with detector {spec}"):
        open_detector(spec, label=3)


def test_file_detections_by_frame_from_0(tmp_path):
    path = tmp_path / "det.txt"
    path.write_text("2,-1,10,20,30,40,0.4\n2,-1,0,0,30,40,0.9\n3,-1,90,0,30,40,-1.5\n")
    detector = open_detector(f"file:{path}")
    image = np.zeros((60, 100, 3), np.uint8)
    assert len(detector(image, 0)[0]) == 0
    box, score = detector(image, 1)
    assert box.tolist() == [[0, 0, 30, 40], [10, 20, 40, 60]]
    np.testing.assert_allclose(score, [0.9, 0.4])
    assert detector(image, 2)[0].tolist() == [[90, 0, 100, 40]]
    assert detector.confident == -1.5
    for threshold, least in ((None, -1.5), (0.9, np.float32(0.9))):
        assert open_detector(f"file:{path}", threshold=threshold).confident == least
    assert open_detector(f"file:{path}", threshold=0.5)(image, 1)[1].tolist() == [np.float32(0.9)]


# --- models -------------------------------------------------------------------------------------------


def test_ssd_rows_by_hand():
    rows = [[0, 1, 0.9, 0.1, 0.2, 0.3, 0.4], [0, 2, 0.9, 0, 0, 1, 1], [0, 1, 0.2, 0, 0, 1, 1],
            [-1, 0, 0, 0, 0, 0, 0], [0, 1, 0.9, 0, 0, 1, 1]]  # fmt: skip
    box, score = detect_models._decode_ssd(np.array([[rows]], np.float32), 1, 0.3)
    np.testing.assert_allclose(box, [[0.1, 0.2, 0.3, 0.4]])
    np.testing.assert_allclose(score, [0.9])


def test_fastestdet_grid_by_hand():
    grid = np.zeros((1, 7, 2, 4), np.float32)  # two classes, 2 rows, 4 columns
    grid[0, :, 1, 2] = [0.5, np.arctanh(0.5), np.arctanh(-0.5), 0, np.log(0.25 / 0.75), 0.8, 0.1]
    grid[0, :, 0, 0] = [1, 0, 0, 0, 0, 0.1, 0.9]  # another class
    box, score = detect_models._decode_fastestdet(grid, 0, 0.3)
    # Centre (2 + 0.5) / 4, (1 - 0.5) / 2; size 0.5 by 0.25.
    np.testing.assert_allclose(box, [[0.375, 0.125, 0.875, 0.375]], atol=1e-6)
    np.testing.assert_allclose(score, [0.5**0.6 * 0.8**0.4], rtol=1e-6)


def _ssd_model(folder, rows, shape=(1, 3, 32, 48)):
    """An OpenVINO model whose SSD output is `rows`, plus the picture's mean blue in the last score."""
    openvino = needs("openvino")
    op = needs("openvino.opset13")

    picture = op.parameter(list(shape), np.float32, name="data")
    planar = shape[1] == 3
    blue = op.gather(picture, op.constant(np.array([0])), op.constant(1 if planar else 3))
    mean = op.reshape(
        op.reduce_mean(blue, op.constant(np.arange(4)), False), op.constant([1, 1, 1, 1]), False
    )
    where = np.zeros((1, 1, len(rows), 7), np.float32)
    where[0, 0, -1, 2] = 1 / 255
    output = op.add(op.constant(np.array([[rows]], np.float32)), op.multiply(mean, op.constant(where)))
    openvino.save_model(openvino.Model([output], [picture], "ssd"), folder / "m.xml", compress_to_fp16=False)
    return folder / "m.xml"


@pytest.mark.parametrize("shape", [(1, 3, 32, 48), (1, 32, 48, 3)])
def test_openvino_ssd_gets_bgr_and_scales_boxes(tmp_path, shape):
    rows = [[0, 1, 0.4, 0.1, 0.25, 0.2, 0.75], [0, 1, 0.35, 0.11, 0.25, 0.2, 0.75], [0, 1, 0, 0.5, 0.5, 2, 2]]
    path = _ssd_model(tmp_path, rows, shape)
    detector = open_detector(f"openvino:{path}")
    assert (detector.threshold, detector.confident) == (0.3, 0.5)
    image = np.zeros((100, 200, 3), np.uint8)
    image[..., 2] = 204  # blue in RGB
    box, score = detector(image, 0)
    np.testing.assert_allclose(box, [[100, 50, 200, 100], [20, 25, 40, 75]], atol=1e-4)
    np.testing.assert_allclose(score, [0.8, 0.4], atol=1e-5)
    assert len(open_detector(f"openvino:{path}", label=2)(image, 0)[0]) == 0
    assert len(open_detector(f"openvino:{path}", threshold=0.5)(image, 0)[0]) == 1


def test_openvino_model_of_another_kind_is_refused(tmp_path):
    openvino = needs("openvino")
    op = needs("openvino.opset13")

    picture = op.parameter([1, 3, 8, 8], np.float32)
    mean = op.reduce_mean(picture, op.constant([1]), False)
    openvino.save_model(openvino.Model([mean], [picture]), tmp_path / "m.xml")
    with pytest.raises(ValueError, match=r"outputs have shapes \[\(1, 8, 8\)\], expected \(1, 1, n, 7\)"):
        open_detector(f"openvino:{tmp_path / 'm.xml'}")


def _score(detector, data, n_frames, stride=1):
    """F1 on the first `n_frames` of PETS09 S2.L1 at IoU 0.5."""
    truth = read_truth(data / "video" / "pets09-s2l1.gt.txt")
    rows = []
    seen = []
    with open_frames(data / "video" / "pets09-s2l1.mp4", stride=stride) as frames:
        for frame in frames:
            if frame.number >= n_frames:
                break
            seen.append(frame.number)
            box, score = detector(frame.image, frame.number)
            assert (box >= 0).all()
            assert (box <= [768, 576, 768, 576]).all()
            rows += [(frame.number, -1, *b, s) for b, s in zip(box, score, strict=True)]
    rows = np.array(rows)
    keep = np.isin(truth.frame, seen)
    true = Boxes(truth.frame[keep], truth.track[keep], truth.box[keep], truth.score[keep])
    return detection_f1(Boxes(rows[:, 0], rows[:, 1], rows[:, 2:6], rows[:, 6]), true)["f1"]


@pytest.mark.parametrize(
    ("spec", "least", "stride"),
    [(f"openvino:{RETAIL}", 0.85, 6), ("onnx:FastestDet.onnx", 0.7, 3), ("hog", 0.7, 40)],
)
def test_real_people_are_found(data, spec, least, stride):
    kind, _, name = spec.partition(":")
    if name:
        needs({"onnx": "onnxruntime"}.get(kind, kind))
        spec = f"{kind}:{data / 'weights' / name}"
    assert _score(open_detector(spec), data, 60, stride) > least


@pytest.mark.slow
def test_real_people_are_found_on_the_whole_clip(data):
    needs("openvino")
    assert _score(open_detector(f"openvino:{data / 'weights' / RETAIL}"), data, 10_000) >= 0.85


# --- hub ----------------------------------------------------------------------------------------------


def _hub_model(folder, kind, **changes):
    """A small detector of random weights as the transformers library saves it."""
    torch = pytest.importorskip("torch")
    transformers = needs("transformers")
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    settings = {
        "backbone_config": backbone, "d_model": 32, "encoder_hidden_dim": 32, "num_queries": 20,
        "encoder_in_channels": [16, 16, 32], "encoder_ffn_dim": 32, "encoder_attention_heads": 2,
        "decoder_in_channels": [32, 32, 32], "decoder_ffn_dim": 32, "decoder_attention_heads": 2,
        "decoder_layers": 2, "num_denoising": 0,
        "id2label": {0: "bicycle", 1: "person"}, "label2id": {"bicycle": 0, "person": 1},
    }  # fmt: skip
    settings |= changes
    config = {"rt_detr_v2": transformers.RTDetrV2Config, "d_fine": transformers.DFineConfig}[kind](**settings)
    torch.manual_seed(0)
    model = transformers.AutoModelForObjectDetection.from_config(config).eval()
    model.save_pretrained(folder)
    pictures = needs("transformers.models.rt_detr.image_processing_pil_rt_detr")
    processor = pictures.RTDetrImageProcessorPil(size={"height": 64, "width": 96})
    processor.save_pretrained(folder)
    return model, processor


# Above these scores the library's cut to its best (query, class) pairs does not bite.
@pytest.mark.parametrize(("kind", "threshold"), [("rt_detr_v2", 0.45), ("d_fine", 0.3)])
def test_hub_detectors_agree_with_the_library(tmp_path, kind, threshold):
    model, processor = _hub_model(tmp_path, kind)
    import torch

    image = np.random.default_rng(0).integers(0, 255, (120, 200, 3), dtype=np.uint8)
    detector = open_detector(f"hub:{tmp_path}", threshold=threshold)
    box, score = detector(image, 0)
    with torch.no_grad():
        output = model(**processor(image, return_tensors="pt"))
    found = processor.post_process_object_detection(output, threshold, target_sizes=[(120, 200)])[0]
    person = found["labels"].numpy() == 1
    want, its = tidy(found["boxes"].numpy()[person], found["scores"].numpy()[person], image.shape)
    keep = suppress(want, its, max_iou=0.7)
    np.testing.assert_allclose(box, want[keep], atol=1e-3)
    np.testing.assert_allclose(score, its[keep], atol=1e-5)
    assert len(box) > 0
    with pytest.raises(ValueError, match="device 'nonsense' cannot be used") as caught:
        open_detector(f"hub:{tmp_path}", device="nonsense")
    assert "\n" not in str(caught.value)


def test_hub_refusals_say_what_to_do(tmp_path):
    needs("transformers")
    with pytest.raises(ValueError, match="neither here nor reachable: give a folder that holds") as caught:
        open_detector("hub:nobody/nothing-of-this-name")
    assert "\n" not in str(caught.value)
    _hub_model(tmp_path / "a", "rt_detr_v2", id2label={0: "cat"}, label2id={"cat": 0})
    with pytest.raises(ValueError, match="no class 'person' among its 1 classes"):
        open_detector(f"hub:{tmp_path / 'a'}")
    _hub_model(tmp_path / "b", "rt_detr_v2")
    (tmp_path / "b" / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"has no preprocessor_config\.json"):
        open_detector(f"hub:{tmp_path / 'b'}")


def test_hub_never_starts_from_random_weights(tmp_path):
    needs("transformers")
    from safetensors.numpy import load_file, save_file

    _hub_model(tmp_path, "rt_detr_v2")
    weights = load_file(tmp_path / "model.safetensors")
    dropped = sorted(name for name in weights if "encoder_input_proj" in name)[0]
    del weights[dropped]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks weights, among them model\.encoder_input_proj"):
        open_detector(f"hub:{tmp_path}")


def test_code_that_comes_with_a_model_is_never_run_nor_asked_about(tmp_path, monkeypatch):
    needs("transformers")
    config = {"model_type": "not-of-the-library", "auto_map": {"AutoConfig": "code.Config"}}
    config["auto_map"]["AutoModelForObjectDetection"] = "code.Model"
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text("{}")
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the user was asked"))
    with pytest.raises(ValueError, match=r"brings code of its own, which is never run") as caught:
        open_detector(f"hub:{tmp_path}")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_model_of_the_library_is_used_without_the_code_beside_it(tmp_path):
    _hub_model(tmp_path, "rt_detr_v2")
    config = json.loads((tmp_path / "config.json").read_text())
    config["auto_map"] = {"AutoModelForObjectDetection": "code.Model"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert open_detector(f"hub:{tmp_path}").name == f"hub:{tmp_path}"
    assert not (tmp_path / "ran").exists()


def test_prepare_follows_the_settings():
    image = np.random.default_rng(0).integers(0, 255, (40, 80, 3), dtype=np.uint8)
    plain = {"do_resize": False, "do_normalize": False, "do_rescale": False}
    np.testing.assert_array_equal(detect_models.prepare(image, plain), image.transpose(2, 0, 1))
    edges = {"size": {"shortest_edge": 20, "longest_edge": 30}}
    assert detect_models.prepare(image, edges).shape == (3, 15, 30)
    grey = detect_models.prepare(np.full((4, 4, 3), 255, np.uint8), {"size": {"height": 4, "width": 4}})
    np.testing.assert_allclose(
        grey[:, 0, 0], (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225], rtol=1e-5
    )
    rf = {"image_processor_type": "RfDetrImageProcessor", "size": {"height": 20, "width": 40}}
    assert detect_models.prepare(image, rf).shape == (3, 20, 40)
    with pytest.raises(ValueError, match="size None, expected height and width or shortest_edge"):
        detect_models.prepare(image, {})


def test_module_import_loads_no_runtime():
    import subprocess

    code = (
        "import sys, tracklearn.store.detect.detector, tracklearn.store.detect.models\n"
        "import tracklearn.store.film.track\n"
        "heavy = ('torch', 'transformers', 'openvino', 'onnxruntime', 'trackers')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert detect.KINDS[0] == "motion"
