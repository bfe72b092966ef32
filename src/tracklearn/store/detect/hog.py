"""The detector that comes with OpenCV: histograms of oriented gradients."""

from __future__ import annotations

import cv2
import numpy as np

from tracklearn.store.detect.boxes import empty, suppress, tidy
from tracklearn.types import Array


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
