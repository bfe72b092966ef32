"""From tracked boxes on frames to tracklets of crops, holding no more than the tracks that are still open."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import numpy as np

from tracklearn.store.film.frames import Frame
from tracklearn.store.picture.crops import encode_jpeg
from tracklearn.store.sets.setwriter import PartWriter
from tracklearn.store.skipped import skip
from tracklearn.types import Array


@dataclass(slots=True)
class Track:
    """The crops of one track so far, or since it was last written.

    `opened` numbers the tracks of a cutter in the order in which they began.
    """

    jpeg: list[bytes] = field(default_factory=list)
    frame: list[int] = field(default_factory=list)
    time: list[float] = field(default_factory=list)
    box: list[Sequence[float]] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    continues: int = -1
    seen: float = 0.0
    opened: int = 0

    def __len__(self) -> int:
        return len(self.jpeg)

    def add(self, jpeg: bytes, frame: int, time: float, box: Sequence[float], score: float) -> None:
        """Append a crop."""
        self.jpeg.append(jpeg)
        self.frame.append(frame)
        self.time.append(time)
        self.box.append(box)
        self.score.append(score)
        self.seen = time

    def write(self, part: PartWriter, camera: str, *, pid: int = -1) -> Track:
        """Write it as a tracklet; an empty track that continues it."""
        number = part.add(
            self.jpeg,
            camera=camera,
            frame=self.frame,
            time=self.time,
            box=self.box,
            score=self.score,
            continues=self.continues,
            pid=pid,
        )
        return Track(continues=number, seen=self.seen, opened=self.opened)


def cut(image: Array, box: Sequence[float], *, margin: float, least: float) -> Array | None:
    """The part of a picture inside a box and its margin; None if too little of it is in the picture.

    Args:
        image: (h, w, 3). box: (x1, y1, x2, y2) in pixels, of any size.
        margin: added on each side, fraction of the box.
        least: pixels of its height that must be in view.
    """
    if not all(map(math.isfinite, box)):
        return None
    x1, y1, x2, y2 = box
    dx, dy = margin * (x2 - x1), margin * (y2 - y1)
    height, width = image.shape[:2]
    if min(y2, height) - max(y1, 0.0) < least:
        return None
    left, right = round(max(x1 - dx, 0)), round(min(x2 + dx, width))
    top, bottom = round(max(y1 - dy, 0)), round(min(y2 + dy, height))
    return image[top:bottom, left:right] if right - left >= 4 and bottom > top else None


class Cutter:
    """Cuts the crops of tracks out of frames and hands finished tracks to the part.

    Holds the open tracks only: at most `max_length` JPEG crops each. The time that a frame takes depends on
    its own boxes and the tracks that end with it, not on how many are open.

    Args:
        part: where finished tracks go.
        camera: name of the camera.
        min_length, max_length: crops; shorter tracks are dropped, longer ones go on as a new tracklet.
        min_box_height: pixels in view; lower boxes are skipped.
        margin: added on each side, fraction of the box.
        max_gap: seconds; a track unseen for longer is over, its number may come back as a new tracklet.
        jpeg_quality: 1-100.

    `counts` says what became of the boxes.
    """

    def __init__(
        self,
        part: PartWriter,
        camera: str,
        *,
        min_length: int,
        max_length: int,
        min_box_height: float,
        margin: float,
        max_gap: float,
        jpeg_quality: int,
    ) -> None:
        self.part, self.camera = part, camera
        self.min_length, self.max_length = min_length, max_length
        self.min_box_height, self.margin = min_box_height, margin
        self.max_gap, self.jpeg_quality = max_gap, jpeg_quality
        self.open: dict[int, Track] = {}  # in the order of when they were last seen
        self._opened = 0
        self.counts = dict.fromkeys(
            ("boxes", "small_boxes", "repeated_boxes", "short_tracks", "short_crops", "split_tracks"), 0
        )

    def add(self, frame: Frame, track: Array, box: Array, score: Array) -> None:
        """Take the boxes of the next frame: track (k,), box (k, 4), score (k,)."""
        self._finish(takewhile(lambda item: frame.time - item[1].seen > self.max_gap, self.open.items()))
        self.counts["boxes"] += len(track)
        boxes, scores, identities = (np.asarray(column).tolist() for column in (box, score, track))
        here: set[int] = set()
        for i in np.argsort(-np.asarray(score), kind="stable"):  # of boxes with one id the best is kept
            identity = int(identities[i])
            crop = cut(frame.image, boxes[i], margin=self.margin, least=self.min_box_height)
            if crop is None:
                self.counts["small_boxes"] += 1
                continue
            if identity in here:
                self.counts["repeated_boxes"] += 1
                continue
            here.add(identity)
            jpeg = encode_jpeg(crop, quality=self.jpeg_quality)
            state = self.open.pop(identity, None)
            if state is None:
                state = Track(opened=self._opened)
                self._opened += 1
            state.add(jpeg, frame.number, frame.time, boxes[i], scores[i])
            if len(state) == self.max_length:
                state = state.write(self.part, self.camera)
                self.counts["split_tracks"] += 1
            self.open[identity] = state

    def _finish(self, over: Iterable[tuple[int, Track]]) -> None:
        """Write these open tracks, or drop short ones, in the order in which they began."""
        for identity, _ in sorted(over, key=lambda item: item[1].opened):
            track = self.open.pop(identity)
            if len(track) >= self.min_length:
                track.write(self.part, self.camera)
            elif len(track):
                self.counts["short_tracks"] += 1
                self.counts["short_crops"] += len(track)

    def close(self) -> None:
        """Finish all open tracks."""
        self._finish(self.open.items())

    def skipped(self) -> list[dict[str, Any]]:
        """What was left out, for the manifest."""
        return skipped(self.counts, self.min_length, self.min_box_height)


def skipped(counts: Mapping[str, int], min_length: int, min_box_height: float) -> list[dict[str, Any]]:
    """What was left out by a `Cutter`'s counts, for the manifest."""
    low = f"less than {min_box_height:g} pixels of their height, or next to nothing, is in view"
    return [
        skip("boxes", low, counts["small_boxes"]),
        skip("boxes", "a second box of the same track in one frame", counts["repeated_boxes"]),
        skip("tracks", f"fewer than {min_length} crops", counts["short_tracks"]),
    ]
