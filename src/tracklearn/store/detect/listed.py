"""The detector that found its boxes elsewhere: a MOTChallenge file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from tracklearn.store.detect.boxes import tidy
from tracklearn.store.film import mot
from tracklearn.store.film.frames import Frames, VideoInfo
from tracklearn.store.film.misfit import misfit
from tracklearn.store.film.paired import paired
from tracklearn.types import Array


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
