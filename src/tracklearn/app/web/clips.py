"""The moment of a part out of its film, with the box drawn: an H.264 clip, made when it is asked for."""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn.app.web.opened import NotThere, Opened, Served
from tracklearn.store.film.video import between
from tracklearn.store.film.video_writer import VideoWriter
from tracklearn.store.picture.crops import resize
from tracklearn.types import Array, Refusal

if TYPE_CHECKING:
    from tracklearn.store.sets.tracklets import TrackletSet

_LONGEST, _AROUND = 20.0, 1.0  # seconds of a clip, and before and after the part [chosen]
_WIDEST = 960  # pixels
_KEPT = 6  # clips
_COLOUR = (255, 200, 40)


class Clips:
    """Clips for one server, those made last kept in memory.

    Args:
        served: what is shown.
    """

    def __init__(self, served: Served) -> None:
        self.served = served
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def clip(self, ref: str) -> bytes:
        """MP4 of the moment at which a part was in view.

        Raises:
            NotThere: no such part, or its film is not where it was.
            ValueError: the film cannot be decoded.
        """
        with self.served.opened() as opened, self._lock:  # one film is decoded at a time
            if ref not in self._kept:
                self._kept[ref] = _made(opened, opened.position(ref))
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(ref)
            return self._kept[ref]

    def forget(self) -> None:
        """Let go of all."""
        with self._lock:
            self._kept.clear()


def film_of(opened: Opened, at: int) -> Path | None:
    """The film that a part was cut out of, where it still is."""
    e = opened.entries
    try:
        one: TrackletSet = opened.searcher.tracklet_set(int(e.set[at]))
    except (Refusal, OSError):
        return None
    source = one.manifest["sources"][int(one.file[int(e.source[at])])]
    if source.get("kind") not in ("video", "results") or "noise" in one.manifest.get("settings", {}):
        return None
    path = one.path / str(source["path"])
    return path if path.exists() else None


def _made(opened: Opened, at: int) -> bytes:
    film, e = film_of(opened, at), opened.entries
    if film is None:
        raise NotThere("the film of this part is not where it was: its moment cannot be shown")
    one = opened.searcher.tracklet_set(int(e.set[at]))
    source = one.manifest["sources"][int(one.file[int(e.source[at])])]
    tracklets, track = one.tracklets, int(e.source[at])
    rows = np.arange(*tracklets.start[track : track + 2])
    inside = (tracklets.frame[rows] >= e.first_frame[at]) & (tracklets.frame[rows] <= e.last_frame[at])
    rows = rows[inside]
    time, box = tracklets.time[rows], tracklets.box[rows]
    begin = max(0.0, float(time[0]) - _AROUND)
    end = min(float(time[-1]) + _AROUND, begin + _LONGEST)
    info: dict[str, Any] = source.get("video", {})
    size = (int(info["width"]), int(info["height"])) if {"width", "height"} <= info.keys() else None
    fps = float(info.get("fps") or 25.0)
    with tempfile.TemporaryDirectory(prefix="tracklearn-clip-") as folder:
        file = Path(folder) / "clip.mp4"
        writer: VideoWriter | None = None
        try:
            for seconds, image in between(film, begin, end, size=size, fps=fps):
                scale = min(1.0, _WIDEST / image.shape[1])
                near = int(np.argmin(np.abs(time - seconds)))
                shown = _even(image, scale)
                if abs(float(time[near]) - seconds) <= 1.5 / fps:
                    _draw(shown, box[near] * scale)
                if writer is None:
                    high, wide = shown.shape[:2]
                    writer = VideoWriter(file, width=wide, height=high, fps=min(fps, 60.0), crf=26)
                writer.write(shown)
            if writer is None:
                raise NotThere("the film holds no picture of that moment any more")
            writer.close()
        except BaseException:
            if writer is not None:
                writer.discard()
            raise
        return file.read_bytes()


def _even(image: Array, scale: float) -> Array:
    """A picture of even sides, which players want, that may be drawn into."""
    high, wide = (max(2, round(side * scale) // 2 * 2) for side in image.shape[:2])
    return np.array(resize(image, high, wide))


def _draw(image: Array, box: Array) -> None:
    """Draw a box, two pixels thick."""
    high, wide = image.shape[:2]
    x1, y1, x2, y2 = (round(float(v)) for v in box)
    x1, x2 = (min(max(x, 0), wide - 1) for x in (x1, x2))
    y1, y2 = (min(max(y, 0), high - 1) for y in (y1, y2))
    for at in (y1, y2):
        image[max(at - 1, 0) : at + 1, x1 : x2 + 1] = _COLOUR
    for at in (x1, x2):
        image[y1 : y2 + 1, max(at - 1, 0) : at + 1] = _COLOUR
