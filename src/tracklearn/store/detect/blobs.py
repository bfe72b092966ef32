"""What moves, in blobs: found in a mask, put together and cut so that each is one person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from tracklearn.core.boxes import iou
from tracklearn.store.detect.size import SizeLaw
from tracklearn.types import Array

Corners = tuple[float, float, float, float]
# How much a box looks like one whole person, above 0 where it does; None where nothing can tell.
Likeness = Callable[[Corners], float] | None

# Least gain in edge strength (Sobel, grey levels) along the outline of a real thing over the background.
_EDGE_GAIN = 6.0
_MOST_PEOPLE = 12
# A box is worth cutting out where more of it moves than this share, and of its middle half.
_FILL, _MIDDLE_FILL = 0.4, 0.65
_TRUNK, _MIDDLE = 0.6, 1.5
# Of the boxes worth at least this share of the best one so many are looked at, no two overlapping further.
_RIVAL, _RIVALS, _SAME = 0.3, 4, 0.75
# What the look of a box adds to its worth, for each unit of the margin, within ±2.
_LOOK = 0.3


@dataclass(frozen=True)
class Blob:
    """Connected foreground: its box, its pixels, the labels of the components that it is made of."""

    x: int
    y: int
    w: int
    h: int
    area: int
    parts: tuple[int, ...]

    @classmethod
    def of(cls, stats: Array, number: int) -> Blob:
        """Component `number` with OpenCV's statistics of it."""
        x, y, w, h, area = (int(v) for v in stats)
        return cls(x, y, w, h, area, (number,))

    @property
    def foot(self) -> int:
        """The row below its lowest one."""
        return self.y + self.h

    @property
    def corners(self) -> Corners:
        """x1, y1, x2, y2."""
        return float(self.x), float(self.y), float(self.x + self.w), float(self.y + self.h)

    @property
    def fill(self) -> float:
        """The share of the box that moves."""
        return self.area / (self.w * self.h)

    def joined(self, other: Blob) -> Blob:
        """Both as one."""
        x, y = min(self.x, other.x), min(self.y, other.y)
        right = max(self.x + self.w, other.x + other.w)
        foot = max(self.foot, other.foot)
        return Blob(x, y, right - x, foot - y, self.area + other.area, self.parts + other.parts)

    def pixels(self, label: Array) -> Array:
        """(h, w) uint8, 1 where the blob is, within its box."""
        inside = label[self.y : self.foot, self.x : self.x + self.w]
        return np.isin(inside, self.parts).astype(np.uint8)


def find(mask: Array, edges: Array | None, *, least_area: float) -> tuple[list[Blob], Array]:
    """The blobs of a mask, and the label of each pixel.

    Args:
        mask: (h, w) uint8, 1 where something moves.
        edges: (h, w) float32, what the picture has in edges beyond the background; a blob whose outline has
            fewer than the background is the gap that someone left who had become background: left out.
        least_area: pixels; smaller ones are left out.
    """
    n, label, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=cv2.CV_16U)
    keep = stats[:, cv2.CC_STAT_AREA] >= least_area
    keep[0] = False
    if edges is not None and keep.any():
        keep &= _outline_mean(mask, label, edges, n) > _EDGE_GAIN
    return [Blob.of(stats[i], int(i)) for i in np.flatnonzero(keep)], label


def _outline_mean(mask: Array, label: Array, edges: Array, n: int) -> Array:
    """(n,) mean of `edges` along the outline of each of n components, a pixel to either side."""
    kernel = np.ones((3, 3), np.uint8)
    outline = np.flatnonzero(cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, kernel).view(bool))
    near = cv2.dilate(label, kernel).ravel()[outline]
    total = np.bincount(near, edges.ravel()[outline], minlength=n)
    return total / np.maximum(np.bincount(near, minlength=n), 1)


def join(blobs: list[Blob], law: SizeLaw | None) -> list[Blob]:
    """Blobs one above the other, close, and together no larger than one person, become one; largest first."""
    blobs = sorted(blobs, key=lambda b: (-b.area, b.parts))
    again = True
    while again:
        again = False
        for i, a in enumerate(blobs):
            for j in range(i + 1, len(blobs)):
                both = a.joined(blobs[j])
                if _one_person(a, blobs[j], both, law):
                    blobs[i] = a = both
                    del blobs[j]
                    again = True
                    break
    return blobs


def _one_person(a: Blob, b: Blob, both: Blob, law: SizeLaw | None) -> bool:
    over = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
    if over < 0.5 * min(a.w, b.w):
        return False
    if law is not None and law.knows(both.foot):
        tall, wide = law.at(both.foot)
        return both.h <= 1.15 * tall and both.w <= 1.4 * wide
    gap = both.h - a.h - b.h
    return gap <= 0.25 * max(a.h, b.h) and both.h <= 4 * both.w


def alone(blob: Blob, blobs: list[Blob]) -> bool:
    """Whether no other blob of note lies within half its height: a person in pieces teaches nothing."""
    reach = blob.h // 2
    for b in blobs:
        if b is blob or b.area < 0.05 * blob.area:
            continue
        apart = max(b.x - blob.x - blob.w, blob.x - b.x - b.w, b.y - blob.foot, blob.y - b.foot)
        if apart < reach:
            return False
    return True


def cut(
    part: Array, law: SizeLaw, likeness: Likeness, *, left: int, top: int, rows: int
) -> list[tuple[Corners, float]]:
    """The people of a blob that is too large for one: boxes of the law's size that cover it, greedily.

    Again and again the box is taken out that gains most: by what moves in it and has not been taken, more
    than `_FILL` of it, once more in its middle half, which lies between two people where the box does; among
    the best few the one that looks most like a person.

    Args:
        part: (h, w) uint8, 1 where the blob is.
        law: how tall people are.
        likeness: how much a box of the picture looks like a person.
        left, top: where the blob's box lies in the picture.
        rows: of the picture.

    Returns:
        Boxes in the picture, which may reach out of it, and the share of each that moves.
    """
    high, wide = part.shape
    box = _windows(law, top=top, high=high, wide=wide, rows=rows)
    if not len(box):
        return []
    inside = box.clip(0, [wide, high, wide, high])
    middle = inside.copy()
    quarter = (box[:, 2] - box[:, 0]) // 4
    middle[:, [0, 2]] = (box[:, [0, 2]] + np.stack([quarter, -quarter], 1)).clip(0, wide)
    middle[:, 3] = (box[:, 1] + _TRUNK * (box[:, 3] - box[:, 1])).astype(int).clip(0, high)
    size, middle_size = ((b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (inside, middle))
    shown = box + np.array([left, top, left, top], np.float64)
    free = part.copy()
    found: list[tuple[Corners, float]] = []
    for _ in range(_MOST_PEOPLE):
        total = cv2.integral(free)
        covered = _sums(total, inside)
        gain = covered - _FILL * size + _MIDDLE * (_sums(total, middle) - _MIDDLE_FILL * middle_size)
        best = int(gain.argmax())
        if gain[best] <= 0:
            break
        if likeness is not None:
            best = _likeliest(shown, gain, likeness)
        x1, y1, x2, y2 = (int(v) for v in inside[best])
        free[y1:y2, x1:x2] = 0
        found.append((_corners(shown[best]), float(covered[best] / size[best])))
    return found


def _likeliest(box: Array, gain: Array, likeness: Callable[[Corners], float]) -> int:
    """The row of the box that is worth most, looks included."""
    rows = np.argsort(-gain, kind="stable")
    rows = rows[gain[rows] > _RIVAL * gain[rows[0]]]
    worth: dict[int, float] = {}
    while len(rows) and len(worth) < _RIVALS:
        row = int(rows[0])
        worth[row] = float(gain[row]) * (1 + _LOOK * min(max(likeness(_corners(box[row])), -2), 2))
        rows = rows[iou(box[rows[:1]], box[rows])[0] <= _SAME]
    return max(worth, key=worth.__getitem__)


def _corners(row: Array) -> Corners:
    x1, y1, x2, y2 = (float(v) for v in row)
    return x1, y1, x2, y2


def _windows(law: SizeLaw, *, top: int, high: int, wide: int, rows: int) -> Array:
    """(k, 4) int64 boxes of the law's size all over a blob, in the blob's own rows and columns.

    They reach out of it above and below where the picture ends there, and a little above everywhere.
    """
    found = []
    foot = max(law.far, top + high / 8)
    end = law.near if top + high >= rows else min(top + high, law.near)
    while foot <= end:
        tall, across = law.at(foot)
        head, across = foot - tall, min(across, wide)
        shown = min(foot, rows) - max(head, 0)
        if (top == 0 or head >= top - 0.15 * tall) and shown >= 0.3 * tall:
            x = np.arange(0, wide - across + 1, max(1.0, across / 8))
            level = np.full(len(x), head - top), np.full(len(x), foot - top)
            found.append(np.stack([x, level[0], x + across, level[1]], 1))
        foot += max(2.0, 0.04 * tall)
    return np.rint(np.concatenate(found)).astype(np.int64) if found else np.zeros((0, 4), np.int64)


def _sums(total: Array, box: Array) -> Array:
    """(k,) sums of a picture inside boxes, by its integral."""
    x1, y1, x2, y2 = box.T
    return total[y2, x2] - total[y1, x2] - total[y2, x1] + total[y1, x1]
