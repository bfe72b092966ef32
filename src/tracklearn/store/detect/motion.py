"""The detector without weights: people as what moves before a fixed camera."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from tracklearn.store.detect.boxes import empty, tidy
from tracklearn.types import Array

_Corners = tuple[float, float, float, float]

# Pictures are shrunk to this height: noise averages out and a frame costs a few milliseconds.
_WORK_HEIGHT = 360
# Squared distance in standard deviations from which a pixel is foreground (OpenCV's default).
_VARIANCE_THRESHOLD = 16
# A pixel at this fraction of the background's brightness, same colour, is shadow; below it, a person in dark.
_SHADOW = 0.6
# Share of the time that counts as background: someone who stands still joins it after 20 % of `history`.
_BACKGROUND_RATIO = 0.8
# Above this share of foreground the light has changed.
_FLOODED = 0.6
# Least gain in edge strength (Sobel, grey levels) along the outline of a real thing over the background.
_EDGE_GAIN = 6.0
_BACKGROUND_EVERY = 10


class MotionDetector:
    """Background subtraction, then blobs of the size and shape of a person.

    A mixture of Gaussians per pixel (shadows told apart by colour) marks the foreground; its blobs are
    filtered on height and shape. A blob whose outline shows fewer edges than the background there is the gap
    that someone left, and dropped. Blobs that stand alone teach how tall people are at each height of the
    picture (the ground seen in perspective: tall is linear in the row of the feet). With that, fragments of
    one person are put together, and blobs too large for one are cut into people: again and again the
    person-sized box that covers most of the foreground not yet covered, until none is filled well. People
    who walk close together will still come out as one now and then; that is what isolation is for.

    Nothing is reported until the model has settled (`warm_up` pictures), nor while most of the picture is
    foreground: after a sudden change of light the background is learned anew. People who stand still for
    longer than a fifth of `history` fade into the background: use a trained detector where they do.

    Source: Zivkovic, "Improved adaptive Gaussian mixture model for background subtraction", ICPR 2004 (as
    MOG2 in OpenCV); size model, joining, cutting and the edge test are ours [chosen; F1 0.78 on PETS09 S2.L1
    at IoU 0.5, and looked at on two indoor videos].

    Args:
        threshold: least score; scores lie between 0.5 and 1, how well the foreground fills the box.
        warm_up: pictures before the first detection [chosen].
        history: pictures over which the background is averaged [chosen].
        min_height: least height of a person as a fraction of the picture's [chosen].
        max_height: greatest.
    """

    name = "motion"

    def __init__(
        self,
        *,
        threshold: float = 0.0,
        warm_up: int = 10,
        history: int = 1000,
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
            history=self._history, varThreshold=_VARIANCE_THRESHOLD, detectShadows=True
        )
        self._model.setShadowThreshold(_SHADOW)
        self._model.setBackgroundRatio(_BACKGROUND_RATIO)
        self._n_seen = 0
        self._background_edges: Array | None = None

    def __call__(self, image: Array, frame: int) -> tuple[Array, Array]:
        height, width = image.shape[:2]
        zoom = min(1.0, _WORK_HEIGHT / height)
        if zoom < 1:
            size = (max(1, round(width * zoom)), _WORK_HEIGHT)
            small = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        else:
            small = image
        mask = self.foreground(small)
        if mask is None:
            return empty()
        box, score = self.people(mask, self._edges(small))
        box = box * ([width / mask.shape[1], height / mask.shape[0]] * 2)
        keep = score >= self.threshold
        return tidy(box[keep], score[keep], image.shape)

    def foreground(self, small: Array) -> Array | None:
        """(h, w) uint8 0/1 mask of what moves, or None while the model is settling."""
        small = cv2.GaussianBlur(small, (3, 3), 0)
        self._n_seen += 1
        # 1/n at first: every picture counts alike, and who stands in the first one leaves no ghost for long.
        raw = self._model.apply(small, learningRate=1 / min(self._n_seen, self._history))
        mask = (raw == 255).astype(np.uint8)
        if self._n_seen > 1 and mask.mean() > _FLOODED:
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

    def _edges(self, small: Array) -> Array:
        """(h, w) float32: edge strength of the picture less that of the background."""
        if self._n_seen % _BACKGROUND_EVERY == 0 or self._background_edges is None:
            self._background_edges = _edge_strength(self._model.getBackgroundImage())
        return _edge_strength(small) - self._background_edges

    def people(self, mask: Array, edges: Array | None = None) -> tuple[Array, Array]:
        """Boxes and scores of the people in a mask.

        Args:
            mask: (h, w) uint8, 1 where something moves.
            edges: (h, w) float32, what the picture has in edges beyond the background; where a blob's outline
                has less than the background, someone has left who had become background: no detection.

        Returns:
            box (k, 4) in the mask's pixels, score (k,).
        """
        rows, columns = mask.shape
        n, label, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        least, most = self._min_height * rows, self._max_height * rows
        # Specks are dropped before the fragments of one person are put together.
        keep = stats[:, cv2.CC_STAT_AREA] >= 0.02 * least * least
        keep[0] = False
        if edges is not None and keep.any():
            keep &= _outline_mean(mask, label, edges, n) > _EDGE_GAIN
        blobs = self._join([_Blob.of(stats[i], int(i)) for i in np.flatnonzero(keep)])
        box: list[_Corners] = []
        score: list[float] = []
        for blob in blobs:
            x, y, w, h, area = blob.x, blob.y, blob.w, blob.h, blob.area
            if h < least or area < 0.12 * least * least:
                continue
            fill = area / (w * h)
            tall, wide = self._size.at(y + h)
            whole = x > 0 and y > 0 and x + w < columns and y + h < rows
            if tall and (w > 1.6 * wide or h > 1.35 * tall):
                part = np.isin(label[y : y + h, x : x + w], blob.parts).astype(np.uint8)
                for found, filled in self._cut(part, x, y):
                    box.append(found)
                    score.append(filled)
            elif h <= most and 0.9 < h / w < 6 and (y == 0 or h >= 0.5 * tall):
                box.append((x, y, x + w, y + h))
                score.append(0.5 + 0.5 * min(1.0, fill / 0.7))
            if whole and 1.5 < h / w < 4.5 and fill > 0.4 and _alone(blob, blobs):
                self._size.add(y + h, h, w)
        if not box:
            return np.zeros((0, 4)), np.zeros(0)
        return np.array(box, np.float64), np.array(score)

    def _join(self, blobs: list[_Blob]) -> list[_Blob]:
        """Blobs one above the other, close, and together no larger than one person, become one."""
        blobs = sorted(blobs, key=lambda b: (-b.area, b.parts))
        again = True
        while again:
            again = False
            for i, a in enumerate(blobs):
                for j in range(i + 1, len(blobs)):
                    both = a.with_(blobs[j])
                    if self._one_person(a, blobs[j], both):
                        blobs[i] = a = both
                        del blobs[j]
                        again = True
                        break
        return blobs

    def _one_person(self, a: _Blob, b: _Blob, both: _Blob) -> bool:
        over = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
        if over < 0.5 * min(a.w, b.w):
            return False
        tall, wide = self._size.at(both.y + both.h)
        if tall:
            return both.h <= 1.15 * tall and both.w <= 1.4 * wide
        gap = both.h - a.h - b.h
        return gap <= 0.25 * max(a.h, b.h) and both.h <= 4 * both.w

    def _cut(self, part: Array, left: int, top: int) -> list[tuple[_Corners, float]]:
        """Person-sized boxes that cover a large blob, greedily."""
        h, w = part.shape
        found: list[tuple[_Corners, float]] = []
        free = part.copy()
        for _ in range(12):
            best_gain, best = 0.0, None
            total = cv2.integral(free)
            for foot in range(max(2, h // 8), h + 1, 2):
                tall, wide = self._size.at(top + foot)
                high, across = round(float(tall)), min(round(float(wide)), w)
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
                    best = (int(x[j]), head, int(x[j]) + across, foot, float(covered[j]) / (high * across))
            if best is None:
                break
            x1, y1, x2, y2, fill = best
            free[max(y1, 0) : y2, x1:x2] = 0
            found.append(((left + x1, top + y1, left + x2, top + y2), 0.5 + 0.5 * min(1.0, fill / 0.7)))
        return found


@dataclass(frozen=True)
class _Blob:
    """Connected foreground: its box, its pixels, the labels of the components that it is made of."""

    x: int
    y: int
    w: int
    h: int
    area: int
    parts: tuple[int, ...]

    @classmethod
    def of(cls, stats: Array, number: int) -> _Blob:
        x, y, w, h, area = (int(v) for v in stats)
        return cls(x, y, w, h, area, (number,))

    def with_(self, other: _Blob) -> _Blob:
        x, y = min(self.x, other.x), min(self.y, other.y)
        right = max(self.x + self.w, other.x + other.w)
        foot = max(self.y + self.h, other.y + other.h)
        return _Blob(x, y, right - x, foot - y, self.area + other.area, self.parts + other.parts)


def _edge_strength(image: Array) -> Array:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))


def _outline_mean(mask: Array, label: Array, edges: Array, n: int) -> Array:
    """(n,) mean of `edges` along the outline of each of n components, a pixel to either side."""
    kernel = np.ones((3, 3), np.uint8)
    outline = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, kernel).astype(bool)
    near = cv2.dilate(label.astype(np.float32), kernel)[outline].astype(np.int64)
    return np.bincount(near, edges[outline], minlength=n) / np.maximum(np.bincount(near, minlength=n), 1)


def _alone(blob: _Blob, blobs: list[_Blob]) -> bool:
    """Whether no other blob of note lies within half its height: a person in pieces teaches nothing."""
    reach = blob.h // 2
    for b in blobs:
        if b is blob or b.area < 0.05 * blob.area:
            continue
        apart = max(b.x - blob.x - blob.w, blob.x - b.x - b.w, b.y - blob.y - blob.h, blob.y - b.y - b.h)
        if apart < reach:
            return False
    return True


class _PersonSize:
    """How tall and wide a person is in the picture, by the row of the feet; learned from lone blobs."""

    _KEPT = 2000
    _NEEDED = 20

    def __init__(self) -> None:
        self._sample: list[tuple[int, int, int]] = []
        self._line: tuple[float, float, float] | None = None
        self._since = 0

    def add(self, foot: int, tall: int, wide: int) -> None:
        self._sample.append((foot, tall, wide))
        self._since += 1
        if self._since >= 10 and len(self._sample) >= self._NEEDED:
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
        # By area: a fragment of a person is small, and must not outvote the whole ones.
        weight = tall * wide
        middle = _weighted_median(tall, weight)
        keep = np.abs(tall - middle) <= 0.6 * middle
        for _ in range(4):
            slope, offset = 0.0, _weighted_median(tall[keep], weight[keep])
            # People who all walk along one line say nothing about the slope.
            if foot[keep].std() > 0.05 * foot[keep].max():
                line = np.polyfit(foot[keep], tall[keep], 1, w=np.sqrt(weight[keep]))
                if line[0] > 0:
                    slope, offset = line
            expected = offset + slope * foot
            error = np.abs(tall - expected) / np.maximum(expected, 1)
            keep = error <= max(2.5 * float(np.median(error[keep])), 0.08)
        self._range = (float(foot[keep].min()), float(foot[keep].max()))
        ratio = _weighted_median(wide[keep] / tall[keep], weight[keep])
        self._line = (float(offset), float(slope), ratio)


def _weighted_median(value: Array, weight: Array) -> float:
    order = np.argsort(value, kind="stable")
    total = np.cumsum(weight[order])
    return float(value[order][np.searchsorted(total, total[-1] / 2)])
