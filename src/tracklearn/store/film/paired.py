"""Boxes of a text file on the frames of a source: each on the frame that it names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tracklearn.store.film.frame_names import Numbered, first_number
from tracklearn.store.film.frames import Frame, Frames, VideoInfo
from tracklearn.store.film.misfit import misfit, outside
from tracklearn.store.film.mot import Boxes, read_results
from tracklearn.store.skipped import skip
from tracklearn.types import Array, Refusal

LEFT_OUT = "result boxes"


def paired(boxes: Boxes, path: Path, frames: Frames, folder: Path) -> Boxes:
    """`boxes`, their frames numbered as those of the source.

    Args:
        boxes: as read with `first_frame=0`.
        path: where they come from, for messages.
        frames: of the source.
        folder: where the frames come from, for messages.

    Raises:
        ValueError: boxes count frames from 0 on a video; boxes and images of a folder meet in no way, or in
            two; no box lies in the pictures of a folder.
    """
    if not len(boxes):
        return boxes
    if frames.numbered is not None:
        first = first_number(frames.numbered, boxes.frame + 1, results=path, folder=folder)
        if first != 1:
            boxes = replace(boxes, frame=boxes.frame + 1 - first)
    elif boxes.frame[0] < 0:
        raise Refusal(
            f"{path}: MOTChallenge frames count from 1: this file counts from 0, add 1 to every frame"
        )
    info = frames.info
    # A film's picture may grow later: there the same is said at its end.
    if frames.numbered is not None and outside(boxes.box, info.width, info.height):
        raise Refusal(f"no box of {path} lies in the picture: {misfit(boxes.box, info.width, info.height)}")
    return boxes


class ResultBoxes:
    """The boxes of a tracker's results, frame by frame, and an account of those that no frame took.

    Args:
        path: the results.
        folder: where the frames come from.

    Raises:
        FileNotFoundError, ValueError: as `mot.read_results`.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.path, self.folder = path, folder
        self.boxes = read_results(path, first_frame=0 if folder.is_dir() else 1)
        self.n_boxes = len(self.boxes) + sum(self.boxes.left_out.values())
        self.used = 0
        self.numbered: Numbered | None = None

    def pair(self, frames: Frames) -> ResultBoxes:
        """Number the frames as those of the source; itself.

        Raises:
            ValueError: as `paired`.
        """
        self.boxes = paired(self.boxes, self.path, frames, self.folder)
        self.numbered = frames.numbered
        return self

    def at(self, frame: Frame) -> tuple[Array, Array, Array]:
        """track (k,), box (k, 4), score (k,) of one frame; `Boxes` are sorted by frame."""
        first, end = np.searchsorted(self.boxes.frame, [frame.number, frame.number + 1])
        self.used += int(end - first)
        rows = slice(first, end)
        return self.boxes.track[rows], self.boxes.box[rows], self.boxes.score[rows]

    def unused(self, last: int, stride: int) -> list[dict[str, Any]]:
        """What was left out, for the manifest."""
        frame = self.boxes.frame
        beyond, missing = frame > last, np.zeros(len(frame), bool)
        striding = frame % stride != 0
        if self.numbered is not None and self.numbered.number is not None:
            there = self.numbered.frame
            beyond, missing = frame > there[-1], ~np.isin(frame, there) & (frame <= there[-1])
            striding = ~np.isin(frame, there[::stride]) & ~missing & ~beyond
            last = int(there[-1])
        else:
            beyond &= ~striding
        n_striding, n_beyond, n_missing = (int(np.count_nonzero(x)) for x in (striding, beyond, missing))
        broken = len(frame) - self.used - n_striding - n_beyond - n_missing
        return [
            *(skip(LEFT_OUT, why, n) for why, n in self.boxes.left_out.items()),
            skip(LEFT_OUT, f"they lie beyond the last frame read, {last}", n_beyond),
            skip(LEFT_OUT, "no image has the number of their frame", n_missing),
            skip(LEFT_OUT, "their frames are left out by the stride", n_striding),
            skip(LEFT_OUT, "their frames cannot be decoded", broken),
        ]

    def warning(self, info: VideoInfo) -> str:
        """What is odd about the boxes as a whole; "" if nothing is."""
        return misfit(self.boxes.box, info.width, info.height)
