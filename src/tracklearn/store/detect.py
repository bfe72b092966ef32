"""Person detectors by name: `open_detector("motion")`, and what all of them share.

| spec | detector | needs |
|---|---|---|
| `motion` | background subtraction; a camera that does not move | nothing |
| `hog` | OpenCV's people detector (Dalal and Triggs, CVPR 2005) | nothing |
| `openvino:PATH` | an OpenVINO model (.xml): SSD or FastestDet output | extra `openvino` |
| `onnx:PATH` | the same as ONNX | extra `onnx` |
| `hub:NAME` | RT-DETRv2, D-FINE, RF-DETR, ... of the transformers library, or their folder | extra `hub` |
| `file:PATH` | MOTChallenge detections made elsewhere | nothing |

Licences: everything here may be used commercially. Detectors under the AGPL (YOLO of ultralytics) are not
wrapped: run them yourself and bring their boxes as a MOTChallenge file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from tracklearn.store import mot
from tracklearn.store.frames import Frames, VideoInfo
from tracklearn.store.misfit import misfit
from tracklearn.store.paired import paired
from tracklearn.types import Array

KINDS = ("motion", "hog", "openvino:PATH", "onnx:PATH", "hub:NAME", "file:PATH")


class Detector(Protocol):
    """Finds people in one picture after the other of one source.

    Attributes:
        name: the spec it was opened with.
        threshold: detections below this score are not handed out.
        confident: score from which a detection is worth starting a track: `open_tracker` takes it as
            `detector_threshold`.
    """

    name: str
    threshold: float
    confident: float

    def __call__(self, image: Array, frame: int) -> tuple[Array, Array]:
        """The people of one picture.

        Args:
            image: (h, w, 3) uint8 RGB; all pictures of a source have one size.
            frame: its number from 0; numbers increase.

        Returns:
            box (k, 4) float32, (x1, y1, x2, y2) in pixels inside the picture, at least one pixel each way;
            score (k,) float32. Best first.
        """
        ...


def open_detector(
    spec: str, *, threshold: float | None = None, label: int | None = None, device: str = "cpu"
) -> Detector:
    """The detector that `spec` names, for one source: `motion` learns that source's background.

    Args:
        spec: see the table above.
        threshold: least score of a detection; the detector's own default if None.
        label: class number of a person in an `openvino:` or `onnx:` model; 1 for SSD output and 0 for
            FastestDet (COCO) if None.
        device: torch device of a `hub:` detector.

    Returns:
        A detector; same pictures in the same order, same boxes.

    Raises:
        ValueError: an unknown spec, a model whose input or output is of no known kind, a missing extra (the
            message names it), hub weights that are neither here nor reachable, a device that is not there, a
            label for a detector that takes none.
        FileNotFoundError: PATH does not exist.

    >>> open_detector("motion").name
    'motion'
    """
    kind, _, rest = spec.partition(":")
    if label is not None and kind not in ("openvino", "onnx"):
        raise ValueError(
            f"label {label} does not go with detector {spec}: only openvino: and onnx: models take it"
        )
    if kind == "motion" and not rest:
        from tracklearn.store.detect_motion import MotionDetector

        return MotionDetector(threshold=0.0 if threshold is None else threshold)
    if kind == "hog" and not rest:
        return HogDetector(threshold=HogDetector.default if threshold is None else threshold)
    if kind in ("openvino", "onnx", "hub", "file") and rest:
        if kind == "file":
            return FileDetector(rest, threshold=threshold)
        from tracklearn.store import detect_models

        if kind == "hub":
            return detect_models.HubDetector(rest, threshold=threshold, device=device)
        return detect_models.ModelDetector(kind, rest, threshold=threshold, label=label)
    raise ValueError(f"detector {spec!r} is not known, expected one of {', '.join(KINDS)}")


class HogDetector:
    """OpenCV's people detector: histograms of oriented gradients under a linear SVM.

    Scores are the SVM's margin through a logistic function: 0.5 lies on the decision plane.

    The picture is enlarged where its height is below 864 pixels, at most twice: the detector's window is 128
    pixels high, 96 of them person [chosen].

    Source: Dalal, Triggs, "Histograms of Oriented Gradients for Human Detection", CVPR 2005.
    """

    name = "hog"
    default = 0.65

    def __init__(self, *, threshold: float) -> None:
        self.threshold = threshold
        self.confident = max(threshold, 0.7)
        self._hog = cv2.HOGDescriptor()
        self._hog.setSVMDetector(np.asarray(cv2.HOGDescriptor.getDefaultPeopleDetector(), np.float32))

    def __call__(self, image: Array, frame: int) -> tuple[Array, Array]:
        height, width = image.shape[:2]
        # The window must fit: a small picture is enlarged to hold it at least.
        zoom = max(min(2.0, max(1.0, 864 / height)), 128 / height, 64 / width)
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if zoom > 1:
            size = (max(64, round(width * zoom)), max(128, round(height * zoom)))
            grey = cv2.resize(grey, size, interpolation=cv2.INTER_LINEAR)
        found, weight = self._hog.detectMultiScale(
            grey, hitThreshold=0.0, winStride=(8, 8), padding=(0, 0), scale=1.05, groupThreshold=0
        )
        if not len(found):
            return empty()
        left, top, wide, high = np.asarray(found, np.float64).T
        # The window has a margin around the person: 16 of 64 pixels at the sides, 16 of 128 above and below.
        box = np.stack([left + wide / 4, top + high / 8, left + wide * 3 / 4, top + high * 7 / 8], 1)
        score = 1 / (1 + np.exp(-np.asarray(weight, np.float64).reshape(-1)))
        box *= [width / grey.shape[1], height / grey.shape[0]] * 2
        keep = np.flatnonzero(score >= self.threshold)
        keep = keep[suppress(box[keep], score[keep], max_iou=0.3)]
        return tidy(box[keep], score[keep], image.shape)


class FileDetector:
    """Detections read from a MOTChallenge file, held in memory (about 60 bytes each)."""

    def __init__(self, path: str | os.PathLike[str], *, threshold: float | None = None) -> None:
        self.name = f"file:{path}"
        self._path = Path(path)
        # `pair` says whether frames may count from 0.
        boxes = mot.read_detections(self._path, first_frame=0)
        self.left_out = boxes.left_out
        # Scores leave as float32: a threshold that equals one must not exceed it by its further digits.
        self._score = boxes.score.astype(np.float32)
        self.threshold = float(self._score.min() if threshold is None else np.float32(threshold))
        # Whoever wrote the file has chosen what is a detection, in scores of any range.
        self.confident = self.threshold
        self._boxes = boxes

    def pair(self, frames: Frames, folder: Path) -> None:
        """Number the frames as those of the source.

        Args:
            frames: of the source.
            folder: for messages.

        Raises:
            ValueError: as `paired.paired`.
        """
        self._boxes = paired(self._boxes, self._path, frames, folder)

    def warning(self, info: VideoInfo) -> str:
        """What is odd about the boxes as a whole; "" if nothing is."""
        return misfit(self._boxes.box, info.width, info.height)

    def __call__(self, image: Array, frame: int) -> tuple[Array, Array]:
        start, end = np.searchsorted(self._boxes.frame, [frame, frame + 1])
        score = self._score[start:end]
        keep = score >= self.threshold
        return tidy(self._boxes.box[start:end][keep], score[keep], image.shape)


def empty() -> tuple[Array, Array]:
    """No detection: box (0, 4), score (0,), float32."""
    return np.zeros((0, 4), np.float32), np.zeros(0, np.float32)


def tidy(box: Array, score: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Boxes clipped to a picture of `shape` (h, w, ...), best first; under a pixel wide or high is dropped.

    Returns:
        box (k, 4) float32, score (k,) float32; rows that are not finite are dropped too.
    """
    height, width = shape[:2]
    box = np.asarray(box, np.float32).reshape(-1, 4)
    score = np.asarray(score, np.float32).reshape(-1)
    fine = np.isfinite(box).all(1) & np.isfinite(score)
    box, score = box[fine], score[fine]
    box = np.clip(box, 0, np.array([width, height, width, height], np.float32))
    keep = (box[:, 2] - box[:, 0] >= 1) & (box[:, 3] - box[:, 1] >= 1)
    box, score = box[keep], score[keep]
    order = np.argsort(-score, kind="stable")
    return box[order], score[order]


def suppress(box: Array, score: Array, *, max_iou: float) -> Array:
    """Greedy non-maximum suppression: rows to keep, best first; none overlaps a better one by over `max_iou`.

    Args:
        box: (k, 4) float. score: (k,) float; ties go to the earlier row.

    Returns:
        (m,) int64 rows.
    """
    order = np.argsort(-np.asarray(score), kind="stable")
    overlap = mot.iou(box[order], box[order]) > max_iou
    keep = np.ones(len(order), bool)
    for i in range(len(order)):
        if keep[i]:
            keep[i + 1 :] &= ~overlap[i, i + 1 :]
    return order[keep]
