"""The detector that comes with OpenCV: histograms of oriented gradients."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from tracklearn.store.detect.boxes import empty, suppress, tidy
from tracklearn.types import Array

_WINDOW = (64, 128)  # width and height of the SVM's picture, pixels
_PERSON = 96  # height of the person in it


@cache
def _people_svm() -> Array:
    """(3781,) float32: weights of the features, and the constant."""
    return np.asarray(cv2.HOGDescriptor.getDefaultPeopleDetector(), np.float32).ravel()


class PersonCheck:
    """Tells of a box whether one person fills it from head to feet: OpenCV's people SVM on that box alone.

    A quarter of a millisecond a box, where looking for people in a picture takes a hundred times as long. On
    PETS09 three of four whole people have a positive margin, two of a hundred boxes around their legs, and
    none around heads or trunks [log].
    """

    def __init__(self) -> None:
        self._hog = cv2.HOGDescriptor()
        self._svm = _people_svm()

    def margin(self, grey: Array, box: tuple[float, float, float, float]) -> float:
        """Distance from the SVM's plane; above 0 it is a person.

        Args:
            grey: (h, w) uint8.
            box: x1, y1, x2, y2 in pixels; parts outside the picture repeat its border.
        """
        x1, y1, x2, y2 = box
        unit = (y2 - y1) / _PERSON  # pixels of the picture to one of the window
        high, wide = round(_WINDOW[1] * unit), round(_WINDOW[0] * unit)
        left, top = round((x1 + x2 - wide) / 2), round((y1 + y2 - high) / 2)
        rows, columns = grey.shape
        inside = grey[max(top, 0) : max(top + high, 0), max(left, 0) : max(left + wide, 0)]
        if not inside.size or unit <= 0:
            return -np.inf
        over = (max(-top, 0), max(top + high - rows, 0), max(-left, 0), max(left + wide - columns, 0))
        if any(over):
            inside = cv2.copyMakeBorder(inside, *over, cv2.BORDER_REPLICATE)
        method = cv2.INTER_AREA if unit > 1 else cv2.INTER_LINEAR
        window = cv2.resize(inside, _WINDOW, interpolation=method)
        return float(np.asarray(self._hog.compute(window)).ravel() @ self._svm[:-1] + self._svm[-1])


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
        self._hog.setSVMDetector(_people_svm())

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
