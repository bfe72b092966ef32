"""Person detectors by name: `open_detector("motion")`, and what all of them share.

| spec | detector | needs |
|---|---|---|
| `motion` | background subtraction; a camera that does not move | nothing |
| `hog` | OpenCV's people detector (Dalal and Triggs, CVPR 2005) | nothing |
| `openvino:PATH` | an OpenVINO model (.xml): SSD or FastestDet output | extra `openvino` |
| `onnx:PATH` | the same as ONNX | extra `onnx` |
| `hub:NAME` | RT-DETRv2, D-FINE, RF-DETR, ... of the transformers library, or their folder | extra `hub` |
| `file:PATH` | MOTChallenge detections made elsewhere | nothing |
| `auto` | a `hub:` detector that is free for any use and cached on this machine, else `motion` | nothing |

Licences: everything here may be used commercially. Detectors under the AGPL (YOLO of ultralytics) are not
wrapped: run them yourself and bring their boxes as a MOTChallenge file.
"""

from __future__ import annotations

from typing import Protocol

from tracklearn.store.detect import hub_cache
from tracklearn.store.detect.hog import HogDetector
from tracklearn.store.detect.listed import FileDetector
from tracklearn.types import Array, Refusal

KINDS = ("motion", "hog", "openvino:PATH", "onnx:PATH", "hub:NAME", "file:PATH", "auto")


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


def resolve(spec: str) -> tuple[str, str]:
    """The spec of the detector that `spec` stands for, and why that one: itself and "", but for "auto".

    >>> resolve("hog")
    ('hog', '')
    """
    return hub_cache.choose() if spec == "auto" else (spec, "")


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
    spec, _ = resolve(spec)
    kind, _, rest = spec.partition(":")
    if label is not None and kind not in ("openvino", "onnx"):
        raise Refusal(
            f"label {label} does not go with detector {spec}: only openvino: and onnx: models take it"
        )
    if kind == "motion" and not rest:
        from tracklearn.store.detect.motion import MotionDetector

        return MotionDetector(threshold=0.0 if threshold is None else threshold)
    if kind == "hog" and not rest:
        return HogDetector(threshold=HogDetector.default if threshold is None else threshold)
    if kind in ("openvino", "onnx", "hub", "file") and rest:
        if kind == "file":
            return FileDetector(rest, threshold=threshold)
        from tracklearn.store.detect import models as detect_models

        if kind == "hub":
            return detect_models.HubDetector(rest, threshold=threshold, device=device)
        return detect_models.ModelDetector(kind, rest, threshold=threshold, label=label)
    raise Refusal(f"detector {spec!r} is not known, expected one of {', '.join(KINDS)}")
