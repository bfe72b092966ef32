"""The detector without weights: people as what moves before a fixed camera."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from tracklearn.store.detect.blobs import Blob, Corners, Likeness, alone, cut, find, join
from tracklearn.store.detect.boxes import empty, tidy
from tracklearn.store.detect.hog import PersonCheck
from tracklearn.store.detect.light import Light
from tracklearn.store.detect.size import PersonSize, SizeLaw
from tracklearn.types import Array

# Pictures are shrunk to this height: noise averages out and a frame costs a few milliseconds.
_WORK_HEIGHT = 360
# Squared distance in standard deviations from which a pixel is foreground (OpenCV's default).
_VARIANCE_THRESHOLD = 16
# A pixel at this fraction of the background's brightness, same colour, is shadow; below it, a person in dark.
_SHADOW = 0.6
# Share of the time that counts as background: someone who stands still joins it after 20 % of `history`.
_BACKGROUND_RATIO = 0.8
# Above this share of foreground the light has changed; above the other nothing is learned about people.
_FLOODED, _CROWDED = 0.6, 0.25
# Share of pictures flooded, settling after that, or crowded, from which on the camera is suspected to move.
_UNSTEADY = 0.5
_BACKGROUND_EVERY = 10
# Blobs of a picture that may teach how tall people are, and the height from which their look can be judged.
_TEACHERS = 3
_LEAST_LOOKED_AT = 32
# Margin below which a box is no whole person, and the score that it gets: a track may not start with it.
_UNLIKE = -2.0
_WEAK = 0.4


class MotionDetector:
    """Background subtraction, then blobs of the size and shape of a person.

    Each picture is first put into the light of the background: cameras change exposure and white balance. A
    mixture of Gaussians per pixel (shadows told apart by colour) marks the foreground; its blobs are filtered
    on height and shape. A blob whose outline shows fewer edges than the background there is the gap that
    someone left, and dropped.

    Blobs that are whole people teach how tall people are at each row of the picture (`size.py`): which ones
    are, the people SVM of OpenCV says, and where it knows none of the scene's, their shape. With that law,
    fragments of one person are put together, and blobs too large for one are cut into people (`blobs.py`).
    As long as there is no law nothing is cut. People who walk close together will still come out as one now
    and then; that is what isolation is for.

    Nothing is reported until the model has settled (`warm_up` pictures), nor while most of the picture is
    foreground: after a sudden change of light the background is learned anew. People who stand still for
    longer than a fifth of `history` fade into the background: use a trained detector where they do.

    Source: Zivkovic, "Improved adaptive Gaussian mixture model for background subtraction", ICPR 2004 (as
    MOG2 in OpenCV); Dalal, Triggs, CVPR 2005, for the SVM; light, law of size, joining, cutting and the edge
    test are ours [chosen on the first half of PETS09 S2.L1 and generated worlds: log].

    Args:
        threshold: least score; scores are how well the foreground fills the box, 0.5 to 1, or 0.4 where
            people can be told by their look and the box is none.
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
        self._size, self._check = PersonSize(), PersonCheck()
        self._zoom = 1.0
        self._n_pictures = self._n_unsteady = self._n_boxes = 0
        self._flooded = False
        self._restart()

    def _restart(self) -> None:
        self._model = cv2.createBackgroundSubtractorMOG2(
            history=self._history, varThreshold=_VARIANCE_THRESHOLD, detectShadows=True
        )
        self._model.setShadowThreshold(_SHADOW)
        self._model.setBackgroundRatio(_BACKGROUND_RATIO)
        self._n_seen = 0
        self._light = Light()

    def __call__(self, image: Array, frame: int) -> tuple[Array, Array]:
        height, width = image.shape[:2]
        self._zoom = min(1.0, _WORK_HEIGHT / height)
        if self._zoom < 1:
            size = (max(1, round(width * self._zoom)), _WORK_HEIGHT)
            small = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        else:
            small = image
        small = self._light(small)
        mask = self.foreground(small)
        self._n_pictures += 1
        self._n_unsteady += self._flooded if mask is None else mask.mean() > _CROWDED
        if mask is None:
            return empty()
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        box, score = self.people(mask, _edge_strength(grey) - self._background_edges, grey)
        box = box * ([width / mask.shape[1], height / mask.shape[0]] * 2)
        keep = score >= self.threshold
        self._n_boxes += int(keep.sum())
        return tidy(box[keep], score[keep], image.shape)

    @property
    def law(self) -> SizeLaw | None:
        """How tall people are, in pixels of the pictures that came; None where that is not known."""
        return None if self._size.law is None else self._size.law.zoomed(1 / self._zoom)

    def account(self) -> dict[str, Any]:
        """What it has learned of its source, plain values for the manifest."""
        return {"size_law": None if self.law is None else self.law.to_dict()}

    def warning(self) -> str:
        """What speaks against its boxes as a whole; "" if nothing does."""
        if self._n_unsteady > _UNSTEADY * self._n_pictures:
            return (
                "a quarter of the picture or more moved, or had to be learned anew, in "
                f"{self._n_unsteady:,} of {self._n_pictures:,} frames: the detector motion is for cameras "
                "that do not move, before which some ground stays free; use a trained one (hub:NAME)"
            )
        if self.law is None and self._n_boxes:
            n, needed = self._size.n_evidence, PersonSize.NEEDED
            agree = "do not agree" if n >= needed else f"are too few, {needed} are needed"
            return (
                "the detector motion could not learn how tall people are in this picture (the whole people "
                f"that it saw, {n}, {agree}): people who walk together are one box; a trained detector "
                "(hub:NAME) tells them apart"
            )
        return ""

    def foreground(self, small: Array) -> Array | None:
        """(h, w) uint8 0/1 mask of what moves, or None while the model is settling."""
        small = cv2.GaussianBlur(small, (3, 3), 0)
        self._n_seen += 1
        # 1/n at first: every picture counts alike, and who stands in the first one leaves no ghost for long.
        raw = self._model.apply(small, learningRate=1 / min(self._n_seen, self._history))
        mask = (raw == 255).astype(np.uint8)
        flooded = self._n_seen > 1 and mask.mean() > _FLOODED
        if flooded:
            self._flooded = True
            self._size.moved()
            self._restart()
            self._model.apply(small, learningRate=1)
            self._n_seen = 1
        if self._n_seen % _BACKGROUND_EVERY == 1:
            self._look_back()
        if flooded or self._n_seen <= self._warm_up:
            return None
        unit = max(1, round(small.shape[0] / 200))
        mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
        # Taller than wide: joins head, body and legs of one person rather than neighbours.
        return cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5 * unit + 1, 2 * unit + 1), np.uint8))

    def _look_back(self) -> None:
        """Take what is needed of the background as it is now."""
        background = self._model.getBackgroundImage()
        self._background_edges = _edge_strength(cv2.cvtColor(background, cv2.COLOR_RGB2GRAY))
        self._light.look_back(background)

    def people(
        self, mask: Array, edges: Array | None = None, grey: Array | None = None
    ) -> tuple[Array, Array]:
        """Boxes and scores of the people in a mask.

        Args:
            mask: (h, w) uint8, 1 where something moves.
            edges: (h, w) float32, what the picture has in edges beyond the background; see `blobs.find`.
            grey: (h, w) uint8, the picture; without it people are told by their shape alone.

        Returns:
            box (k, 4) in the mask's pixels, score (k,).
        """
        rows, columns = mask.shape
        law, look = self._size.law, self._look(grey)
        least, most = self._min_height * rows, self._max_height * rows
        # Specks are dropped before the fragments of one person are put together.
        blobs, label = find(mask, edges, least_area=0.02 * least * least)
        blobs = [b for b in join(blobs, law) if b.h >= least and b.area >= 0.12 * least * least]
        found: list[tuple[Corners, float]] = []
        for blob in blobs:
            if law is not None and _too_large(law, blob, rows):
                people = cut(blob.pixels(label), law, look, left=blob.x, top=blob.y, rows=rows)
                if len(people) == 1 and look is not None and look(blob.corners) > look(people[0][0]):
                    people = [(blob.corners, blob.fill)]  # a long step, a bag
                found += people
            elif blob.h <= most and 0.9 < blob.h / blob.w < 6 and not _too_small(law, blob):
                found.append((blob.corners, blob.fill))
        score = [self._score(corners, fill, look) for corners, fill in found]
        if mask.mean() <= _CROWDED:
            self._learn(blobs, look, rows, columns)
        return np.array([corners for corners, _ in found], np.float64).reshape(-1, 4), np.array(score)

    def _look(self, grey: Array | None) -> Likeness:
        """How much the boxes of one picture look like people, each judged once."""
        if grey is None:
            return None
        known: dict[Corners, float] = {}

        def likeness(corners: Corners) -> float:
            if corners not in known:
                known[corners] = self._check.margin(grey, corners)
            return known[corners]

        return likeness

    def _score(self, corners: Corners, fill: float, look: Likeness) -> float:
        if look is not None and self._size.looks_tell and look(corners) < _UNLIKE:
            return _WEAK
        # A person fills about 0.7 of the box.
        return 0.5 + 0.5 * min(1.0, fill / 0.7)

    def _learn(self, blobs: list[Blob], look: Likeness, rows: int, columns: int) -> None:
        """Take the largest blobs that may be whole people as evidence of how tall people are."""
        whole = [
            b
            for b in blobs
            if b.x > 0 and b.y > 0 and b.x + b.w < columns and b.foot < rows
            if 1.5 < b.h / b.w < 4.5 and b.fill > 0.4
        ]
        for blob in whole[:_TEACHERS]:
            seen = look is not None and blob.h >= _LEAST_LOOKED_AT and look(blob.corners) > 0
            if seen or alone(blob, blobs):
                self._size.add(blob.foot, blob.h, blob.w, seen=seen)


def _too_large(law: SizeLaw, blob: Blob, rows: int) -> bool:
    """Whether a blob is more than one person."""
    if not law.knows(blob.foot):
        return False
    tall, wide = law.at(blob.foot)
    if blob.foot >= rows and blob.h > tall:  # the feet are outside: how far only the height tells
        tall, wide = blob.h, blob.h * law.ratio
    return blob.w > 1.6 * wide or blob.h > 1.35 * tall


def _too_small(law: SizeLaw | None, blob: Blob) -> bool:
    """Whether a blob is less than one person: small, or where nobody can stand."""
    if law is None:
        return False
    if law.slope > 0 and blob.foot < law.far:
        return True
    return blob.y > 0 and blob.h < 0.5 * law.at(blob.foot)[0]


def _edge_strength(grey: Array) -> Array:
    return cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
