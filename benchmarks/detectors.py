"""A detector on films with ground truth: precision and recall of boxes, crops on a person, frames a second.

    python -m benchmarks.detectors [--detector motion] [--world SEED ...] [--first-half] [--data DIR]

DIR holds the test material (TRACKLEARN_TEST_DATA): its films with ground truth are looked at (pets09-s2l1 and
mot17-09-inpainted), and the four cameras of the generated world of each SEED, filmed anew into a temporary
folder, together. A box is right that has IoU 0.5 with a person of its frame; pairs are made one to one. Crops
are the boxes that ByteTrack confirms, of tracks and sizes that ingest keeps; one is on a person where it has
IoU 0.5 with any. Frames a second are those of the detector alone, by the CPU time of its thread: OpenCV may
use more.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from tracklearn.core.noise import match_boxes
from tracklearn.store.detect.detector import open_detector
from tracklearn.store.film.mot import Boxes, detection_f1, read_results, read_truth
from tracklearn.store.film.track import open_tracker
from tracklearn.store.film.video import open_frames
from tracklearn.store.ingest.jobs import Config
from tracklearn.types import Array

CLIPS = ("pets09-s2l1", "mot17-09-inpainted")


@dataclass(frozen=True)
class Film:
    """A film and its truth."""

    path: Path
    truth: Boxes


@dataclass
class Account:
    """Counts, which add up over films."""

    frames: int = 0
    boxes: int = 0
    right: float = 0.0
    people: int = 0
    crops: int = 0
    on_person: int = 0
    seconds: float = 0.0

    def row(self) -> dict[str, Any]:
        """The line of the table."""
        precision, recall = self.right / max(self.boxes, 1), self.right / max(self.people, 1)
        return {
            "frames": self.frames,
            "boxes": self.boxes,
            "precision": precision,
            "recall": recall,
            "f1": 2 * precision * recall / max(precision + recall, 1e-9),
            "crops": self.crops,
            "on_person": self.on_person / max(self.crops, 1),
            "frames_per_second": self.frames / max(self.seconds, 1e-9),
        }


def add(account: Account, film: Film, detector_spec: str, *, last: int | None = None) -> None:
    """Count one film, up to frame `last`."""
    detector = open_detector(detector_spec)
    found: list[tuple[float, ...]] = []
    tracked: list[tuple[float, ...]] = []
    seen = []
    with open_frames(film.path) as frames:
        tracker = open_tracker(fps=frames.info.fps, detector_threshold=detector.confident)
        for frame in frames:
            if last is not None and frame.number > last:
                break
            began = time.thread_time()
            box, score = detector(frame.image, frame.number)
            account.seconds += time.thread_time() - began
            seen.append(frame.number)
            found += [(frame.number, *b, s) for b, s in zip(box, score, strict=True)]
            track, box, _ = tracker.update(box, score, frame.time, frame.image)
            tracked += [(frame.number, t, *b) for t, b in zip(track, box, strict=True)]
    boxes, crops = np.array(found).reshape(-1, 6), kept(np.array(tracked).reshape(-1, 6))
    rows = np.isin(film.truth.frame, seen)
    true = Boxes(film.truth.frame[rows], film.truth.track[rows], film.truth.box[rows], film.truth.score[rows])
    scored = detection_f1(Boxes(boxes[:, 0], 0 * boxes[:, 0], boxes[:, 1:5], boxes[:, 5]), true)
    pid = match_boxes(crops[:, 0].astype(int), crops[:, 2:], true.frame, true.track, true.box)
    account.frames += len(seen)
    account.boxes += len(boxes)
    account.right += scored["precision"] * len(boxes)
    account.people += len(true.frame)
    account.crops += len(crops)
    account.on_person += int((pid >= 0).sum())


def kept(tracked: Array) -> Array:
    """Rows of frame, track, corners that ingest would keep: high enough, of tracks long enough."""
    config = Config()
    tracked = tracked[tracked[:, 5] - tracked[:, 3] >= config.min_box_height]
    track, n = np.unique(tracked[:, 1], return_counts=True)
    return tracked[np.isin(tracked[:, 1], track[n >= config.min_length])]


def filmed(seed: int, folder: Path) -> list[Film]:
    """The films of a world's people to learn from."""
    from tracklearn.app.demo.films import worlds, write_videos

    write_videos(worlds(seed)[0], folder)
    return [Film(p, read_results(p.with_suffix(".gt.txt"))) for p in sorted(folder.glob("*.mp4"))]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--detector", default="motion")
    parser.add_argument("--world", type=int, nargs="*", default=[], metavar="SEED")
    parser.add_argument("--first-half", action="store_true", help="frames 0 to 397 of pets09-s2l1, no mall")
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("TRACKLEARN_TEST_DATA", "../shared/data"))
    )
    parser.add_argument("--out", type=Path, default=measure.RESULTS, help="folder of the results")
    arguments = parser.parse_args(argv)
    rows = []
    for name in CLIPS[:1] if arguments.first_half else CLIPS:
        path, account = arguments.data / "video" / f"{name}.mp4", Account()
        film = Film(path, read_truth(path.with_suffix(".gt.txt")))
        add(account, film, arguments.detector, last=397 if arguments.first_half else None)
        rows.append({"film": name} | account.row())
    for seed in arguments.world:
        account = Account()
        with tempfile.TemporaryDirectory() as scratch:
            for film in filmed(seed, Path(scratch) / "films"):
                add(account, film, arguments.detector)
        rows.append({"film": f"world {seed}"} | account.row())
    print(measure.table(list(rows[0]), [list(row.values()) for row in rows]))
    settings = {"detector": arguments.detector, "first_half": arguments.first_half}
    measure.save("detectors", {"rows": rows}, settings=settings, folder=arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
