"""The detector without weights: people as what moves before a fixed camera."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tracklearn.store.detect import empty, tidy

Array = NDArray[Any]

# Pictures are shrunk to this height: noise averages out and a frame costs a few milliseconds.
_WORK_HEIGHT = 432


class MotionDetector:
    """Background subtraction, then blobs of the size and shape of a person.

    A mixture of Gaussians per pixel (shadows told apart by colour) marks the foreground; its blobs are
    filtered on height and shape. Blobs that stand alone teach how tall people are at each height of the
    picture (the ground seen in perspective: tall is linear in the row of the feet). With that, blobs too large
    for one person are cut into people: again and again the person-sized box that covers most of the
    foreground not yet covered, until none is filled well. People who walk close together will still come out
    as one now and then; that is what isolation is for.

    Nothing is reported until the model has settled (`warm_up` pictures), nor while most of the picture is
    foreground: after a sudden change of light the background is learned anew.

    Source: Zivkovic, "Improved adaptive Gaussian mixture model for background subtraction", ICPR 2004 (as
    MOG2 in OpenCV); the size model and the cutting are ours.

    Args:
        threshold: least score; scores lie between 0.5 and 1, how well the foreground fills the box.
        warm_up: pictures before the first detection [chosen].
        history: pictures after which someone who stands still begins to fade into the background [chosen].
        min_height: least height of a person as a fraction of the picture's [chosen].
        max_height: greatest.
    """

    name = "motion"

    def __init__(
        self,
        *,
        threshold: float = 0.0,
        warm_up: int = 10,
        history: int = 500,
        min_height: float = 0.08,
        max_height: float = 0.95,
    ) -> None:
        self.threshold = threshold
        self.confident = max(threshold, 0.5)
        self._warm_up, self._history = warm_up, history
        self._min_height, self._max_height = min_height, max_height
        self._restart()
        self._size = _PersonSize()

    def _restart(self) -> None:
        self._model = cv2.createBackgroundSubtractorMOG2(
            history=self._history, varThreshold=25, detectShadows=True
        )
        self._model.setShadowThreshold(0.5)
        self._n_seen = 0

    def __call__(self, image: Array, frame: int) -> tuple[Array, Array]:
        height, width = image.shape[:2]
        zoom = min(1.0, _WORK_HEIGHT / height)
        if zoom < 1:
            size = (max(1, round(width * zoom)), _WORK_HEIGHT)
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        else:
            small = image
        mask = self.foreground(small)
        if mask is None:
            return empty()
        box, score = self.people(mask)
        box = box * ([width / mask.shape[1], height / mask.shape[0]] * 2)
        keep = score >= self.threshold
        return tidy(box[keep], score[keep], image.shape)

    def foreground(self, small: Array) -> Array | None:
        """(h, w) uint8 0/1 mask of what moves, or None while the model is settling."""
        small = cv2.GaussianBlur(small, (3, 3), 0)
        self._n_seen += 1
        raw = self._model.apply(small, learningRate=1 / min(2 * self._n_seen, self._history))
        mask = (raw == 255).astype(np.uint8)
        if mask.mean() > 0.5 and self._n_seen > 1:
            self._restart()
            self._model.apply(small, learningRate=1)
            self._n_seen = 1
            return None
        if self._n_seen <= self._warm_up:
            return None
        unit = max(1, round(small.shape[0] / 200))
        mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
        # Taller than wide: joins head, body and legs of one person rather than neighbours.
        return cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5 * unit + 1, 2 * unit + 1), np.uint8))

    def people(self, mask: Array) -> tuple[Array, Array]:
        """Boxes (k, 4) and scores (k,) of the people in a mask, in its pixels."""
        rows, columns = mask.shape
        n, label, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        least, most = self._min_height * rows, self._max_height * rows
        box: list[tuple[float, ...]] = []
        score: list[float] = []
        for i in range(1, n):
            x, y, w, h, area = (int(v) for v in stats[i])
            if h < least or area < 0.12 * least * least:
                continue
            fill = area / (w * h)
            tall, wide = self._size.at(y + h)
            inside = x > 0 and y > 0 and x + w < columns and y + h < rows
            if tall and (w > 1.6 * wide or h > 1.35 * tall):
                part = (label[y : y + h, x : x + w] == i).astype(np.uint8)
                for found, filled in self._cut(part, x, y):
                    box.append(found)
                    score.append(filled)
                continue
            if h > most or not 0.9 < h / w < 6 or (tall and h < 0.5 * tall and inside):
                continue
            if inside and 1.5 < h / w < 4.5 and fill > 0.4:
                self._size.add(y + h, h, w)
            box.append((x, y, x + w, y + h))
            score.append(0.5 + 0.5 * min(1.0, fill / 0.7))
        if not box:
            return np.zeros((0, 4)), np.zeros(0)
        return np.array(box, np.float64), np.array(score)

    def _cut(self, part: Array, left: int, top: int) -> list[tuple[tuple[float, ...], float]]:
        """Person-sized boxes that cover a large blob, greedily."""
        h, w = part.shape
        found = []
        free = part.copy()
        for _ in range(12):
            best_gain, best = 0.0, None
            total = cv2.integral(free)
            for foot in range(max(2, h // 8), h + 1, 2):
                tall, wide = self._size.at(top + foot)
                high, across = round(tall), min(round(wide), w)
                head = foot - high
                if head < -0.15 * high:
                    continue
                a = max(head, 0)
                x = np.arange(0, w - across + 1)
                covered = total[foot, x + across] - total[foot, x] - total[a, x + across] + total[a, x]
                gain = covered - 0.45 * high * across
                j = int(gain.argmax())
                if gain[j] > best_gain:
                    best_gain = float(gain[j])
                    best = (int(x[j]), head, int(x[j]) + across, foot, covered[j] / (high * across))
            if best is None:
                break
            x1, y1, x2, y2, fill = best
            free[max(y1, 0) : y2, x1:x2] = 0
            found.append(((left + x1, top + y1, left + x2, top + y2), 0.5 + 0.5 * min(1.0, fill / 0.7)))
        return found


class _PersonSize:
    """How tall and wide a person is in the picture, by the row of the feet; learned from lone blobs."""

    _KEPT = 2000
    _NEEDED = 60

    def __init__(self) -> None:
        self._sample: list[tuple[int, int, int]] = []
        self._line: tuple[float, float, float] | None = None
        self._since = 0

    def add(self, foot: int, tall: int, wide: int) -> None:
        self._sample.append((foot, tall, wide))
        self._since += 1
        if self._since >= 30 and len(self._sample) >= self._NEEDED:
            self._since = 0
            del self._sample[: -self._KEPT]
            self._fit()

    def at(self, foot: float) -> tuple[float, float]:
        """Height and width at this row in pixels; (0, 0) while too little has been seen."""
        if self._line is None:
            return 0.0, 0.0
        offset, slope, ratio = self._line
        low, high = self._range
        tall = offset + slope * min(max(foot, low), high)
        return tall, tall * ratio

    def _fit(self) -> None:
        foot, tall, wide = np.array(self._sample, np.float64).T
        keep = np.ones(len(foot), bool)
        slope, offset = 0.0, float(np.median(tall))
        for _ in range(3):
            spread = foot[keep].std()
            # People who all walk along one line say nothing about the slope.
            if spread > 0.02 * foot.max():
                slope, offset = np.polyfit(foot[keep], tall[keep], 1)
                if slope < 0:
                    slope, offset = 0.0, float(np.median(tall[keep]))
            error = np.abs(tall - offset - slope * foot)
            keep = error <= max(2.5 * float(np.median(error)), 1.0)
        self._range = (float(foot[keep].min()), float(foot[keep].max()))
        self._line = (float(offset), float(slope), float(np.median(wide[keep] / tall[keep])))
