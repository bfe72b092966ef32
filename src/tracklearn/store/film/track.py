"""Trackers: boxes of one frame in, confirmed tracks of that frame out.

A thin adapter over the package `trackers` (Apache-2.0), whose interface moves between releases: nothing else
in the project touches it.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from tracklearn.types import Array, Refusal

NAMES = ("bytetrack", "sort", "ocsort")


class Tracker(Protocol):
    """Anything that turns the detections of successive frames of one source into tracks."""

    def update(
        self, box: Array, score: Array, time: float, image: Array | None = None
    ) -> tuple[Array, Array, Array]:
        """The confirmed tracks that were seen in this frame.

        Args:
            box: (k, 4) detections of this frame, (x1, y1, x2, y2) in pixels; k = 0 is a frame like any other.
            score: (k,) their confidences.
            time: seconds since the first frame, later than that of the call before: tracks move and age by
                it, whatever the number of frames in between.
            image: (h, w, 3) uint8 RGB, for trackers that look at the picture.

        Returns:
            track (m,) int64, numbered from 0 in the order of confirmation and unique within the source;
            box (m, 4) float32 and score (m,) float32, as detected; rows sorted by track.
        """
        ...


def open_tracker(
    name: str = "bytetrack",
    *,
    fps: float,
    detector_threshold: float = 0.5,
    lost_seconds: float = 1.0,
    min_hits: int | None = None,
    min_iou: float | None = None,
) -> Tracker:
    """A fresh tracker for one source.

    Args:
        name: `bytetrack` (Zhang et al., ECCV 2022), `sort` (Bewley et al., ICIP 2016) or `ocsort`
            (Cao et al., CVPR 2023).
        fps: frame rate that motion is measured in: the video's own, whatever stride it is read with.
        detector_threshold: score from which a detection may start a track; pass the detector's `confident`.
            ByteTrack lets weaker ones continue a track; `sort` lets them too; `ocsort` ignores them.
        lost_seconds: how long a track may go unseen before it ends [chosen: the package's 30 frames of 30].
        min_hits: consecutive detections that confirm a track; the method's own default (2, 3, 3) if None.
        min_iou: least overlap of a track's predicted box and a detection; the method's own default (0.1, 0.3,
            0.3) if None.

    Returns:
        A tracker with ids of its own from 0. Same input, same output.

    Raises:
        ValueError: an unknown name or a frame rate that is not positive.
    """
    if name not in NAMES:
        raise Refusal(f"tracker {name!r} is not known, expected one of {', '.join(NAMES)}")
    if not (math.isfinite(fps) and fps > 0):
        raise Refusal(f"fps is {fps}, expected a positive number of frames per second")
    return _Adapter(name, fps, detector_threshold, lost_seconds, min_hits, min_iou)


class _Adapter:
    def __init__(
        self,
        name: str,
        fps: float,
        detector_threshold: float,
        lost_seconds: float,
        min_hits: int | None,
        min_iou: float | None,
    ) -> None:
        # Imported here: the package loads supervision and matplotlib, a second that --help need not pay.
        import supervision
        import trackers

        settings: dict[str, Any] = {
            "frame_rate": float(fps),
            # The package counts its buffer in frames of 1/30 s whatever the frame rate.
            "lost_track_buffer": round(30 * lost_seconds),
        }
        if min_hits is not None:
            settings["minimum_consecutive_frames"] = min_hits
        if min_iou is not None:
            settings["minimum_iou_threshold"] = min_iou
        if name in ("bytetrack", "sort"):
            settings["track_activation_threshold"] = detector_threshold
        if name in ("bytetrack", "ocsort"):
            settings["high_conf_det_threshold"] = detector_threshold
        kind = {
            "bytetrack": trackers.ByteTrackTracker,
            "sort": trackers.SORTTracker,
            "ocsort": trackers.OCSORTTracker,
        }[name]
        self._tracker = kind(**settings)
        self._detections = supervision.Detections
        self._last = -math.inf
        self._number: dict[int, int] = {}

    def update(
        self, box: Array, score: Array, time: float, image: Array | None = None
    ) -> tuple[Array, Array, Array]:
        if not (math.isfinite(time) and time > self._last):
            raise Refusal(f"time is {time}, expected seconds after {self._last}: pass frames in order")
        self._last = time
        box = np.array(box, np.float32).reshape(-1, 4)
        score = np.array(score, np.float32).reshape(-1)
        if len(box) != len(score):
            raise Refusal(f"score has shape {score.shape}, expected ({len(box)},): one per box")
        # Times instead of call counts: a track ends in a pause of the recording too.
        seen = self._tracker.update(self._detections(xyxy=box, confidence=score), timestamp=time)
        identity = np.asarray(seen.tracker_id, np.int64)
        row = np.argsort(identity, kind="stable")
        row = row[identity[row] >= 0]
        # Renumbered here, so that ids start at 0 in every tracker whatever counters the package keeps.
        track = [self._number.setdefault(int(i), len(self._number)) for i in identity[row]]
        order = np.argsort(track, kind="stable")
        row = row[order]
        return (
            np.array(track, np.int64)[order],
            np.asarray(seen.xyxy, np.float32).reshape(-1, 4)[row],
            (np.zeros(0) if seen.confidence is None else seen.confidence).astype(np.float32)[row],
        )
