"""What programs expect of a re-ID weights file, and the calibrated threshold in the distance that each uses.

Facts of November 2026. Of programs under the AGPL only the documented contract is used.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from tracklearn.core.calibration import Calibration
from tracklearn.types import Refusal

Form = Literal["onnx", "torchscript", "safetensors", "openvino", "checkpoint", "folder"]
FORMS: tuple[Form, ...] = ("onnx", "torchscript", "safetensors", "openvino")  # of --to
# What is applied to pixels of 0-1 before the file: what the run says, ImageNet's, or nothing.
Pixels = Literal["own", "imagenet", "baked"]
_SIMILARITY = "minMatchingScore4ReidSimilarity"


@dataclass(frozen=True)
class Consumer:
    """A program that loads re-ID weights.

    Args:
        name: as --for takes it. title: as people write it.
        form: of its file. pixels: what it applies to them.
        fixed: whether `pixels` cannot be told to it.
        int8: whether it runs files that onnxruntime quantised.
    """

    name: str
    title: str
    form: Form
    pixels: Pixels
    fixed: bool = True
    int8: bool = False


CONSUMERS = {
    each.name: each
    for each in (
        Consumer("boxmot", "BoxMOT", "onnx", "imagenet", int8=True),
        Consumer("ultralytics", "Ultralytics", "onnx", "baked", int8=True),
        Consumer("deepstream", "DeepStream", "onnx", "baked"),
        Consumer("reid", "Roboflow reid", "folder", "own", fixed=False),
        Consumer("torchreid", "torchreid", "checkpoint", "own", fixed=False),
        Consumer("deep-sort-realtime", "deep-sort-realtime", "checkpoint", "imagenet"),
    )
}


def find(name: str) -> Consumer:
    """The consumer of that name.

    Raises:
        ValueError: nobody is called so.
    """
    known = {key.replace("-", ""): value for key, value in CONSUMERS.items()}
    found = known.get(name.lower().replace("-", "").replace("_", ""))
    if found is None:
        raise Refusal(f"--for {name!r} is unknown: expected one of {', '.join(CONSUMERS)}")
    return found


@dataclass(frozen=True)
class Threshold:
    """One threshold in somebody's words: name of the setting or distance, value, and what it is."""

    name: str
    value: float
    text: str


def thresholds(consumer: Consumer | None, calibration: Calibration) -> list[Threshold]:
    """The calibrated threshold in the distances that a consumer uses; for None in the common ones."""
    cosine = calibration.threshold**2 / 2
    halved = "half of the cosine distance"
    own = {
        "boxmot": [
            Threshold("half", cosine / 2, f"{halved}, for trackers that halve it, as BoT-SORT does"),
        ],
        "ultralytics": [
            Threshold("appearance_thresh", 1 - cosine / 2, f"1 − {halved}: a similarity, default 0.8"),
        ],
        "deepstream": [
            Threshold(_SIMILARITY, 1 - cosine, "cosine similarity"),
        ],
        "deep-sort-realtime": [
            Threshold("max_cosine_distance", cosine, "cosine distance, default 0.2"),
        ],
    }.get(consumer.name if consumer else "", [])
    return [
        *own,
        Threshold("cosine distance", cosine, "1 − cosine"),
        Threshold("distance", calibration.threshold, "Euclidean, of unit features"),
    ]


def side_files(
    consumer: Consumer, file: str, *, shape: tuple[int, int], width: int, calibration: Calibration | None
) -> dict[str, str]:
    """Texts that belong beside the weights, by name.

    Args:
        consumer: who reads them.
        file: name of the weights file. shape: height and width of its input. width: of its feature.
        calibration: on its features; None where it is not known.
    """
    stem = file.rpartition(".")[0]
    value = {t.name: t.value for t in thresholds(consumer, calibration)} if calibration else {}
    if consumer.name == "ultralytics":
        return {f"{stem}.botsort.yaml": _botsort(file, value.get("appearance_thresh"))}
    if consumer.name == "deepstream":
        similarity = value.get(_SIMILARITY)
        return {f"{stem}.deepstream.yml": _deepstream(file, shape, width, similarity)}
    return {}


def reid_config(
    architecture: str, shape: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]
) -> str:
    """reid_config.json of Roboflow's `reid`."""
    preprocessing = {
        "input_size": list(shape),
        "mean": list(mean),
        "std": list(std),
        "interpolation": "bicubic",
        "to_rgb": True,
        "resize_mode": "stretch",
        "pad_value": 114,
    }
    return json.dumps({"architecture": architecture, "preprocessing": preprocessing}, indent=2) + "\n"


def usage(consumer: Consumer | None, form: Form, file: str, backbone: str) -> str:
    """How the file is loaded, as a Markdown block."""
    if consumer is not None:
        return {
            "boxmot": f"```bash\nboxmot track … --reid-model {file}\n```",
            "ultralytics": "```python\nfrom ultralytics import YOLO\n\nYOLO(…).track(source=…, "
            f'tracker="{file.rpartition(".")[0]}.botsort.yaml")\n```\n\n'
            "The YAML names the .onnx file beside it: start in this folder, or write its whole path there.",
            "deepstream": f"Put the sections of `{file.rpartition('.')[0]}.deepstream.yml` into the "
            "tracker's configuration (NvDCF, which joins tracks again by appearance). For NvDeepSORT set "
            f"`reidType` to 1 and put `{_SIMILARITY}` under `DataAssociator`.",
            "reid": '```python\nfrom reid import ReIDModel\n\nmodel = ReIDModel.from_pretrained("path of '
            'this folder")\nfeatures = model.extract_embeddings(detections, frame)\n```',
            "torchreid": "```python\nfrom torchreid.utils import FeatureExtractor\n\nextract = "
            f'FeatureExtractor(model_name="{backbone}", model_path="{file}", device="cpu")\n```',
            "deep-sort-realtime": "```python\nfrom deep_sort_realtime.deepsort_tracker import DeepSort\n\n"
            f'tracker = DeepSort(embedder="torchreid", embedder_model_name="{backbone}", '
            f'embedder_wts="{file}")\n```',
        }[consumer.name]
    return {
        "onnx": f'```python\nsession = onnxruntime.InferenceSession("{file}")\n'
        'features, = session.run(None, {"images": pictures})  # (n, 3, h, w) float32 in, (n, d) out\n```',
        "torchscript": f'```python\nnetwork = torch.jit.load("{file}")\nfeatures = network(pictures)\n```',
        "safetensors": f"```bash\ntracklearn train SET --weights {file}\n"
        f"tracklearn evaluate --weights {file} --benchmark …\n```",
        "openvino": f'```python\ncore = openvino.Core()\nmodel = core.read_model("{file}")\n'
        'compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})\n'
        "features = compiled(picture)[0]  # (1, 3, h, w) float32 in, (1, d) out\n```\n\n"
        "Without the hint newer CPUs compute in bfloat16. For other batches: `model.reshape([n, 3, h, w])`.",
        "checkpoint": "",
        "folder": "",
    }[form]


def _botsort(file: str, threshold: float | None) -> str:
    """A tracker's settings with their documented defaults, but for what belongs to this network."""
    said = "0.8  # the tracker's default: nothing was calibrated" if threshold is None else f"{threshold:.3f}"
    return (
        "tracker_type: botsort\n"
        "track_high_thresh: 0.25\n"
        "track_low_thresh: 0.1\n"
        "new_track_thresh: 0.25\n"
        "track_buffer: 30\n"
        "match_thresh: 0.8\n"
        "fuse_score: True\n"
        "gmc_method: sparseOptFlow\n"
        "proximity_thresh: 0.5\n"
        f"appearance_thresh: {said}\n"
        "with_reid: True\n"
        f"model: {file}\n"
    )


def _deepstream(file: str, shape: tuple[int, int], width: int, similarity: float | None) -> str:
    """Sections of the tracker's configuration; one scale for all channels, since the rest is in the file."""
    said = "" if similarity is None else f"  {_SIMILARITY}: {similarity:.3f}\n"
    return (
        f"TrajectoryManagement:\n  enableReAssoc: 1\n{said}"
        "ReID:\n"
        "  reidType: 2\n"
        f"  reidFeatureSize: {width}\n"
        f"  inferDims: [3, {shape[0]}, {shape[1]}]\n"
        "  inputOrder: 0\n"
        "  colorFormat: 0\n"
        "  offsets: [0.0, 0.0, 0.0]\n"
        f"  netScaleFactor: {1 / 255:.10f}\n"
        "  keepAspc: 0\n"
        "  addFeatureNormalization: 1\n"
        f'  onnxFile: "{file}"\n'
    )
