"""Detectors that run a network the user has: OpenVINO or ONNX files, and models of the transformers library.

The runtimes are imported when a detector is opened, by the door that switches their telemetry off.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tracklearn import runtimes
from tracklearn.store.detect import first_contact, hub_cache, model_files
from tracklearn.store.detect.boxes import empty, suppress, tidy
from tracklearn.store.files import first_line
from tracklearn.types import Array, Refusal

_RUNTIMES = {
    "openvino": ("openvino", model_files.open_openvino),
    "onnx": ("onnxruntime", model_files.open_onnx),
}
_MAX_IOU = 0.45
# Set predictors rarely repeat themselves; what they say twice overlaps far.
_MAX_IOU_HUB = 0.7
_REMEDY = (
    "give a folder that holds config.json, model.safetensors and preprocessor_config.json, or fetch it once "
    "with a network (hf download NAME)"
)


class ModelDetector:
    """A detection network in an OpenVINO (.xml) or ONNX (.onnx) file.

    Input: one picture, (1, 3, h, w) or (1, h, w, 3), BGR; its size is read from the model, the picture is
    stretched to it. Output, told apart by shape:

    - SSD, (1, 1, n, 7): image, label, score, x1, y1, x2, y2 as fractions. Pixels 0–255 go in.
    - FastestDet, (1, 5 + classes, rows, columns): objectness, four box numbers, class probabilities of each
      cell. Pixels 0–1 go in. The box centre lies tanh(b0), tanh(b1) cells from the cell's corner, width and
      height are sigmoid(b2), sigmoid(b3) of the picture; score = objectness^0.6 · class^0.4.

    Source: Liu et al., "SSD", ECCV 2016; FastestDet, github.com/dog-qiuqiu/FastestDet (BSD-3).
    """

    def __init__(
        self, runtime: str, path: str, *, threshold: float | None = None, label: int | None = None
    ) -> None:
        self.name = f"{runtime}:{path}"
        library, open_model = _RUNTIMES[runtime]
        first_contact.try_out(library, path)
        model = open_model(path)
        if model.dtype is None:
            raise Refusal(f"{path}: the input is {model.kind}, expected float, float16 or uint8")
        shape, self._run = model.shape, model.run
        self._output, kind = self._choose(model.outputs)
        self._decode = {"ssd": _decode_ssd, "fastestdet": _decode_fastestdet}[kind]
        self._scale = {"ssd": 1.0, "fastestdet": 1 / 255}[kind]
        self._label = {"ssd": 1, "fastestdet": 0}[kind] if label is None else label
        # Where F1 on outdoor video is about best: retail-0013 0.88 at 0.3, FastestDet 0.79 at 0.65.
        default, confident = {"ssd": (0.3, 0.5), "fastestdet": (0.65, 0.7)}[kind]
        self.threshold = default if threshold is None else threshold
        self.confident = max(self.threshold, confident)
        if len(shape) != 4 or 3 not in (shape[1], shape[3]):
            raise Refusal(f"{path}: input has shape {shape}, expected (1, 3, h, w) or (1, h, w, 3)")
        self._planar = shape[1] == 3
        size = shape[2:] if self._planar else shape[1:3]
        if not all(isinstance(x, int) and x > 0 for x in size):
            raise Refusal(
                f"{path}: input has shape {shape}, its height and width are open: export it with fixed ones"
            )
        self._height, self._width = size
        self._dtype = model.dtype

    def __call__(self, image: Array, frame: int) -> tuple[Array, Array]:
        picture = cv2.resize(image, (self._width, self._height), interpolation=cv2.INTER_LINEAR)[..., ::-1]
        if self._planar:
            picture = picture.transpose(2, 0, 1)
        values = np.ascontiguousarray(picture[None], dtype=self._dtype)
        if self._scale != 1:
            values *= np.asarray(self._scale, self._dtype)
        output = np.asarray(self._run(values)[self._output], np.float32)
        box, score = self._decode(output, self._label, self.threshold)
        if not len(box):
            return empty()
        height, width = image.shape[:2]
        box = box * np.array([width, height, width, height], np.float32)
        keep = suppress(box, score, max_iou=_MAX_IOU)
        return tidy(box[keep], score[keep], image.shape)

    def _choose(self, outputs: list[tuple[Any, ...]]) -> tuple[int, str]:
        for i, shape in enumerate(outputs):
            if len(shape) == 4 and shape[3] == 7 and shape[1] == 1:
                return i, "ssd"
            if len(shape) == 4 and isinstance(shape[1], int) and shape[1] > 5:
                return i, "fastestdet"
        raise Refusal(
            f"{self.name}: outputs have shapes {outputs}, expected (1, 1, n, 7) as of SSD or "
            "(1, 5 + classes, rows, columns) as of FastestDet"
        )


def _decode_ssd(output: Array, label: int, threshold: float) -> tuple[Array, Array]:
    rows = output.reshape(-1, 7)
    # A negative image number ends the list; what follows it is left over from other pictures.
    end = np.flatnonzero(rows[:, 0] < 0)
    rows = rows[: end[0]] if len(end) else rows
    rows = rows[(rows[:, 1] == label) & (rows[:, 2] >= threshold)]
    return rows[:, 3:7], rows[:, 2]


def _decode_fastestdet(output: Array, label: int, threshold: float) -> tuple[Array, Array]:
    grid = output[0]  # (5 + classes, rows, columns)
    score = grid[0].clip(0) ** 0.6 * grid[5:].max(0).clip(0) ** 0.4
    row, column = np.nonzero((grid[5:].argmax(0) == label) & (score >= threshold))
    b = grid[1:5, row, column]
    centre = (np.stack([column, row]) + np.tanh(b[:2])) / [[grid.shape[2]], [grid.shape[1]]]
    half = 0.5 / (1 + np.exp(-b[2:]))
    return np.concatenate([centre - half, centre + half]).T, score[row, column]


class HubDetector:
    """A detector of the transformers library: RT-DETR, RT-DETRv2, D-FINE, RF-DETR, DETR and their kin.

    Picture preparation follows the model's `preprocessor_config.json` and is done here: the library's own
    processors need torchvision for some of these models.

    Args:
        name: repository name on the Hugging Face hub, or a folder written by `save_pretrained`. What the
            hub's cache holds whole is taken from there, without a network.
        threshold: least score; 0.3 if None.
        device: torch device.
    """

    def __init__(self, name: str, *, threshold: float | None = None, device: str = "cpu") -> None:
        self.name = f"hub:{name}"
        self.threshold = 0.3 if threshold is None else threshold
        self.confident = max(self.threshold, 0.5)
        transformers = runtimes.load("transformers")
        auto = runtimes.load("transformers.models.auto.image_processing_auto")
        import torch

        transformers.utils.logging.disable_progress_bar()
        # What lies in the cache is taken as it is: the hub is not asked whether it has another by now.
        folder = Path(name) if Path(name).is_dir() else hub_cache.snapshot(name)
        place = name if folder is None else str(folder)
        # Code that comes with a model is never run, nor is the user asked whether it may be. And a folder
        # here is all there is: what its settings name elsewhere is not fetched.
        options = {"trust_remote_code": False, "local_files_only": folder is not None}
        try:
            self._settings = auto.get_image_processor_config(place, **options)
            model, info = transformers.AutoModelForObjectDetection.from_pretrained(
                place, output_loading_info=True, **options
            )
        except OSError as error:
            raise Refusal(f"detector {self.name} is neither here nor reachable: {_REMEDY}") from error
        except (ValueError, ImportError) as error:
            if "trust_remote_code" in str(error):
                raise Refusal(
                    f"detector {self.name} brings code of its own, which is never run: choose a model that "
                    "the transformers library itself knows"
                ) from None
            raise Refusal(f"detector {self.name} cannot be loaded: {first_line(error)}") from error
        if not self._settings:
            raise Refusal(f"detector {self.name} has no preprocessor_config.json: {_REMEDY}")
        if missing := sorted(info["missing_keys"]) + sorted(info["mismatched_keys"]):
            # The library would go on with random numbers in their place.
            raise Refusal(f"detector {self.name} lacks weights, among them {missing[0]}: {_REMEDY}")
        labels = {str(name).lower(): int(number) for number, name in model.config.id2label.items()}
        if "person" not in labels:
            raise Refusal(f"detector {self.name} has no class 'person' among its {len(labels)} classes")
        self._label = labels["person"]
        self._torch = torch
        try:
            self._device = torch.device(device)
            self._model = model.to(self._device).eval()
        except (RuntimeError, AssertionError) as error:  # AssertionError: a torch built without CUDA
            raise Refusal(f"device {device!r} cannot be used: {first_line(error)}") from error

    def __call__(self, image: Array, frame: int) -> tuple[Array, Array]:
        torch = self._torch
        pixels = torch.from_numpy(prepare(image, self._settings)[None]).to(self._device)
        with torch.inference_mode():
            found = self._model(pixel_values=pixels)
        logits = found.logits[0].float()
        # One logit more than classes is "no object": DETR's softmax. The others have a focal loss.
        softmax = logits.shape[1] == self._model.config.num_labels + 1
        probability = logits.softmax(1) if softmax else logits.sigmoid()
        score = probability[:, self._label].cpu().numpy()
        box = found.pred_boxes[0].float().cpu().numpy()[score >= self.threshold]
        score = score[score >= self.threshold]
        height, width = image.shape[:2]
        centre, half = box[:, :2], box[:, 2:] / 2
        box = np.hstack([centre - half, centre + half]) * [width, height, width, height]
        keep = suppress(box, score, max_iou=_MAX_IOU_HUB)
        return tidy(box[keep], score[keep], image.shape)


def prepare(image: Array, settings: dict[str, Any]) -> Array:
    """A picture as a transformers image processor of these settings would hand it to the model.

    Args:
        image: (h, w, 3) uint8 RGB.
        settings: contents of a `preprocessor_config.json`: size, resample, do_resize, do_rescale,
            rescale_factor, do_normalize, image_mean, image_std.

    Returns:
        (3, h', w') float32.

    Raises:
        ValueError: a size of unknown form.
    """
    if settings.get("do_resize", True):
        width, height = _size(image.shape, settings.get("size"))
        if str(settings.get("image_processor_type", "")).startswith("RfDetr"):
            # RF-DETR was trained without the low-pass filter that Pillow applies when it shrinks.
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        else:
            from PIL import Image

            method = Image.Resampling(settings.get("resample", 2))
            image = np.asarray(Image.fromarray(image).resize((width, height), method))
    pixels = image.astype(np.float32)
    if settings.get("do_rescale", True):
        pixels *= np.float32(settings.get("rescale_factor", 1 / 255))
    if settings.get("do_normalize", True):
        pixels -= np.float32(settings.get("image_mean", [0.485, 0.456, 0.406]))
        pixels /= np.float32(settings.get("image_std", [0.229, 0.224, 0.225]))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _size(shape: tuple[int, ...], size: Any) -> tuple[int, int]:
    """(width, height) that a `size` setting asks of a picture of `shape`."""
    if isinstance(size, int):
        size = {"shortest_edge": size}
    if isinstance(size, dict) and size.get("height") and size.get("width"):
        return int(size["width"]), int(size["height"])
    if isinstance(size, dict) and size.get("shortest_edge"):
        short, long = sorted(shape[:2])
        edge = float(size["shortest_edge"])
        if size.get("longest_edge"):
            edge = min(edge, size["longest_edge"] * short / long)
        return max(1, round(shape[1] * edge / short)), max(1, round(shape[0] * edge / short))
    raise Refusal(f"preprocessor_config.json has size {size!r}, expected height and width or shortest_edge")
