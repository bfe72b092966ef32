"""Reading one source into its part of a set, and the account of it for the manifest."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tracklearn.store.detect.detector import Detector
from tracklearn.store.detect.listed import FileDetector
from tracklearn.store.detect.motion import MotionDetector
from tracklearn.store.film.clocks import begin_record
from tracklearn.store.film.frames import DEFAULT_FPS, UNDECODABLE, Frame, Frames, LargerPicture, VideoInfo
from tracklearn.store.film.live import LiveFrames
from tracklearn.store.film.paired import ResultBoxes
from tracklearn.store.film.track import open_tracker
from tracklearn.store.film.video_file import VideoFile
from tracklearn.store.ingest.cut import Cutter, Track, skipped
from tracklearn.store.ingest.folders import FolderPlan, read_crop
from tracklearn.store.ingest.jobs import Job
from tracklearn.store.ingest.pieces import Piece
from tracklearn.store.ingest.seams import join
from tracklearn.store.picture import pictures
from tracklearn.store.picture.pictures import BrokenPicture
from tracklearn.store.sets.setwriter import PartReader, PartWriter
from tracklearn.store.skipped import readable, shorten, skip
from tracklearn.types import Array, Progress, Refusal


class Reader:
    """Reads one source into its part and keeps its account.

    Args:
        job: the source.
        part: where its tracklets go.
        out: the set that is to be, which places in the record are relative to; None in storage.
        device: torch device of a hub: detector.
        progress: told of frames or crops done.
    """

    def __init__(
        self, job: Job, part: PartWriter, out: Path | None, device: str, progress: Progress | None
    ) -> None:
        self.job, self.config, self.part, self.out = job, job.config, part, out
        self.device, self.progress = device, progress
        self.skipped: list[dict[str, Any]] = []
        self.counts: dict[str, int] = {}
        self._what = f"ingest {job.source.camera or readable(job.source.path.name)}"  # for progress
        self.warnings: list[str] = []  # what a reader of the set should know, a line each

    def read(self) -> dict[str, Any]:
        """Read all of it; the record for the manifest."""
        began = time.perf_counter()
        record = self.job.record(self.out)
        if self.job.plan is not None:
            record |= self._read_folder(self.job.plan)
        else:
            record |= self._read_film()
        return self._told(record, time.perf_counter() - began)

    def _told(self, record: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The record with what came of it all."""
        done = self.counts.get("frames", self.part.n_crops)
        if not self.part.n_tracklets:
            why = "; ".join([self._nobody(), *self.warnings])
            record |= {"status": "skipped", "reason": why}
        else:
            record |= {"status": "ok", "reason": None}
        if self.warnings:
            record |= {"warnings": self.warnings}
        return record | {
            "counts": self.counts,
            "skipped": shorten([entry for entry in self.skipped if entry["n"]]),
            "seconds": round(seconds, 3),
            "per_second": round(done / max(seconds, 1e-9), 1),
        }

    def _nobody(self) -> str:
        counts, config = self.counts, self.config
        if self.job.plan is not None:
            return "none of the images can be decoded"
        if not counts["detections"]:
            what = f"no box in {counts['frames']} frames"
        else:
            what = (
                f"{counts['detections']} boxes in {counts['frames']} frames, but no track of at least "
                f"{config.min_length} crops of {config.min_box_height:g} pixels height"
            )
        if self.job.source.kind == "results":
            return (
                f"{what}; lower min_length or min_box_height, or check that the results belong to the video"
            )
        return (
            f"{what}; detector {self.job.detector}: try another (hog, openvino:PATH, onnx:PATH, hub:NAME), "
            "a lower threshold, min_length or min_box_height"
        )

    def _report(self, done: int, total: int | None) -> None:
        if self.progress is not None:
            self.progress(self._what, done, total)

    # Video, with a detector and a tracker or with the results of one

    def _read_film(self) -> dict[str, Any]:
        try:
            return self._read_film_at(None)
        except LargerPicture as larger:
            # Where the picture grows, the boxes and crops of before would be of another scale: once more.
            self.part.restart()
            return self._read_film_at(larger.size)

    def _read_film_at(self, size: tuple[int, int] | None) -> dict[str, Any]:
        source, config = self.job.source, self.config
        record: dict[str, Any] = {}
        with self.job.open_frames(size) as frames:
            info = frames.info
            total = None if info.n_frames is None else -(-info.n_frames // config.stride)
            boxes = open_boxes(self.job, frames, self.device)
            cutter = self._cutter(config.min_length)
            n_frames, last, seconds = 0, -1, 0.0
            for frame in frames:
                cutter.add(frame, *boxes.at(frame))
                n_frames, last, seconds = n_frames + 1, frame.number, frame.time + 1 / info.fps
                self._report(n_frames, total if total is None else max(total, n_frames + 1))
            cutter.close()
            self._report(n_frames, n_frames)
        if isinstance(boxes, Tracking):
            record |= boxes.learned()
        counts = {"frames": n_frames, "broken_frames": frames.broken, "detections": boxes.n_boxes}
        self.counts = counts | cutter.counts
        if source.path.is_dir():
            n_files = (info.n_frames or 0) + frames.left_out.total()
            self.counts["files"] = n_files
            unread = (info.n_frames or 0) - n_frames - frames.broken
            self.skipped.append(skip("frames", "they are left out by the stride", unread))
        if source.found is not None:
            self.skipped += [skip("files", why, n) for why, n in source.found.left_out.items()]
        self.skipped += [
            *(skip("files", why, n) for why, n in frames.left_out.items()),
            *(skip("frames", why, n) for why, n in frames.reasons.items()),
            *(skip("frames", why, n) for why, n in frames.missing.items()),
            *boxes.unused(last, config.stride),
            *cutter.skipped(),
        ]
        self.warnings += _odd(frames, boxes)
        record |= {"video": _video(frames, seconds)}
        if isinstance(frames, LiveFrames):
            self.skipped += frames.skipped()
            return record | frames.record()
        return record | begin_record(self.job.start, self.job.after, info.start)

    def _cutter(self, min_length: int) -> Cutter:
        config = self.config
        return Cutter(
            self.part,
            self.job.source.camera,
            min_length=min_length,
            max_length=config.max_length,
            min_box_height=config.min_box_height,
            margin=config.margin,
            max_gap=config.max_gap,
            jpeg_quality=config.jpeg_quality,
        )

    # A film in pieces

    def read_piece(self, piece: Piece) -> dict[str, Any]:
        """Read a piece of a film, tracks of any length, its overlap included; an account of its own frames.

        Raises:
            LargerPicture, Unnumbered: the picture grows, or frames have other numbers than was thought; the
                film has to be read whole.
        """
        began, stride = time.perf_counter(), self.config.stride
        total = -(-len(piece.stretch.stamp) // stride)
        self._what += f", {piece}"
        own, seconds = Counter[str](), 0.0
        with self.job.open_frames() as frames:
            if not isinstance(frames, VideoFile):
                raise Refusal(f"{self.job.source} was a video file, and is none any more")
            boxes = open_boxes(self.job, frames, self.device)
            cutter = self._cutter(1)
            for done, frame in enumerate(frames.stretch(piece.stretch), 1):
                before = {"detections": boxes.n_boxes, **cutter.counts}
                cutter.add(frame, *boxes.at(frame))
                if piece.own[0] <= frame.number < piece.own[1]:
                    own["frames"] += 1
                    after = {"detections": boxes.n_boxes, **cutter.counts}
                    own.update({name: n - before[name] for name, n in after.items()})
                    seconds = frame.time + 1 / frames.info.fps
                self._report(done, total)
            cutter.close()
        own["broken_frames"] = frames.broken
        return {
            "counts": dict(own),
            "learned": boxes.learned() if isinstance(boxes, Tracking) else {},
            "warnings": [f"{piece}: {warning}" for warning in _odd(frames, boxes)],
            "video": _video(frames, seconds),
            "began": begin_record(self.job.start, self.job.after, frames.info.start),
            "seconds": round(time.perf_counter() - began, 3),
        }

    def join(self, pieces: Sequence[Piece], folders: Sequence[Path]) -> dict[str, Any]:
        """Write what was read of all pieces of a film; the record for the manifest."""
        began, config, source = time.perf_counter(), self.config, self.job.source
        accounts = [PartReader(folder).record for folder in folders]
        n_crops = sum(account["n_crops"] for account in accounts)
        self._what += ", its pieces joined"
        seams, tracks = join(
            map(PartReader, folders),
            [piece.own for piece in pieces],
            [piece.begin for piece in pieces],
            self.part,
            source.camera,
            min_length=config.min_length,
            max_length=config.max_length,
            max_gap=config.max_gap,
            tell=lambda n: self._report(n, n_crops),
        )
        names = ("frames", "broken_frames", "detections", "boxes", "small_boxes", "repeated_boxes")
        counts = {name: sum(account["counts"].get(name, 0) for account in accounts) for name in names}
        self.counts = counts | tracks
        if source.found is not None:
            self.skipped += [skip("files", why, n) for why, n in source.found.left_out.items()]
        self.skipped += [
            skip("frames", UNDECODABLE, counts["broken_frames"]),
            *skipped(self.counts, config.min_length, config.min_box_height),
        ]
        joined, cut = (sum(seam[what] for seam in seams) for what in ("joined", "cut"))
        self.warnings += [
            f"read in {len(pieces)} pieces: of the tracks in view at their seams {joined} go on across them "
            f"and {cut} are cut there",
            *(warning for account in accounts for warning in account["warnings"]),
        ]
        video = dict(accounts[-1]["video"])
        for name in ("deinterlaced_frames", "fitted_frames"):
            if n := sum(account["video"].get(name, 0) for account in accounts):
                video[name] = n
        record = self.job.record(self.out) | accounts[-1]["learned"] | {"video": video}
        record |= {"pieces": len(pieces), "seams": seams} | accounts[0]["began"]
        spent = sum(account["seconds"] for account in accounts)
        return self._told(record, spent + time.perf_counter() - began)

    # Folders of crops

    def _read_folder(self, plan: FolderPlan) -> dict[str, Any]:
        source = self.job.source
        fps = self.config.fps or DEFAULT_FPS
        self.skipped += plan.skipped
        series = pictures.Series(lambda: pictures.spread([f for t in plan.tracklets for f in t.files]))
        done, broken = 0, 0
        for tracklet in plan.tracklets:
            camera = f"{source.camera}-{tracklet.camera}" if source.camera else tracklet.camera
            camera = camera if tracklet.camera else source.camera
            track = Track()
            for file, frame in zip(tracklet.files, tracklet.frame, strict=True):
                done += 1
                self._report(done, plan.n_files)
                try:
                    jpeg, height, width = read_crop(file, quality=self.config.jpeg_quality, series=series)
                except (BrokenPicture, FileNotFoundError) as error:
                    broken += 1
                    gone = isinstance(error, FileNotFoundError)
                    item = f"{file.parent.name}/{file.name}"
                    self.skipped.append(skip(item, "the image has gone since" if gone else str(error)))
                    continue
                track.add(jpeg, frame, frame / fps, (0, 0, width, height), 1.0)
                if len(track) == self.config.max_length:
                    track = track.write(self.part, camera, pid=tracklet.pid)
            if len(track):
                track.write(self.part, camera, pid=tracklet.pid)
        self.warnings += series.notes()
        self.counts = {"files": plan.n_found, "images": plan.n_files, "broken_images": broken}
        if not plan.labelled:
            return {"labels_used": False}
        note = "tracklets were formed by the person and camera in the file names; training does not see them"
        return {"labels_used": True, "note": note}


def _video(frames: Frames, seconds: float) -> dict[str, Any]:
    """What a film is, for the manifest."""
    info = frames.info
    video = {"width": info.width, "height": info.height, "fps": info.fps, "codec": info.codec}
    return video | {"seconds": round(seconds, 3), **frames.account}


def _odd(frames: Frames, boxes: ResultBoxes | Tracking) -> list[str]:
    """What is odd about a film and its boxes, a line each."""
    odd = [*frames.notes, *frames.remarks(), *filter(None, [boxes.warning(frames.info)])]
    return [readable(warning) for warning in odd]


def open_boxes(job: Job, frames: Frames, device: str) -> ResultBoxes | Tracking:
    """What says where people are in the frames of a video: a tracker's results, or a detector and a tracker.

    Args:
        job: the source. frames: its frames, from the first on. device: torch device of a hub: detector.

    Raises:
        FileNotFoundError, ValueError: as `ResultBoxes`, `open_detector` and `Tracking`.
    """
    source = job.source
    if source.results is not None:
        return ResultBoxes(source.results, source.path).pair(frames)
    return Tracking(job.open_detector(device), job.config.tracker, frames, source.path)


class Tracking:
    """Boxes from a detector and a tracker.

    Args:
        detector: of this source. tracker: by name. frames: of the source. folder: where they come from.

    Raises:
        ValueError: boxes of a file do not fit the frames (as `paired.paired`); as `open_tracker`.
    """

    def __init__(self, detector: Detector, tracker: str, frames: Frames, folder: Path) -> None:
        self.detector, self.name = detector, tracker
        if isinstance(detector, FileDetector):
            detector.pair(frames, folder)
        self.tracker = open_tracker(tracker, fps=frames.info.fps, detector_threshold=detector.confident)
        self.n_boxes = 0

    def at(self, frame: Frame) -> tuple[Array, Array, Array]:
        """track (k,), box (k, 4), score (k,) of the next frame."""
        box, score = self.detector(frame.image, frame.number)
        self.n_boxes += len(box)
        return self.tracker.update(box, score, frame.time, frame.image)

    def unused(self, last: int, stride: int) -> list[dict[str, Any]]:
        """What was left out, for the manifest."""
        if not isinstance(self.detector, FileDetector):
            return []
        return [skip("detections", why, n) for why, n in self.detector.left_out.items()]

    def learned(self) -> dict[str, Any]:
        """What found the boxes, and what the detector learned of the place, for the manifest."""
        learned = self.detector.account() if isinstance(self.detector, MotionDetector) else {}
        return {"detector": self.detector.name, "tracker": self.name, **learned}

    def warning(self, info: VideoInfo) -> str:
        """What is odd about the boxes as a whole; "" if nothing is."""
        if isinstance(self.detector, MotionDetector):
            return self.detector.warning()
        return self.detector.warning(info) if isinstance(self.detector, FileDetector) else ""
