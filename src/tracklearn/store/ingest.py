"""From camera files, tracker results and folders of crops to a tracklet set: `ingest`.

Everything streams. A video is decoded, detected and tracked frame by frame; only the crops of tracks that are
still open are held, at most `Config.max_length` each, and a closed track goes to disk at once.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tracklearn.store import pictures, setwriter
from tracklearn.store.clocks import Start, begin_record, begin_times, clocks_of
from tracklearn.store.config import digest
from tracklearn.store.cut import Cutter, Track
from tracklearn.store.detect import Detector, FileDetector, open_detector
from tracklearn.store.files import beside, remove_folder
from tracklearn.store.folders import FolderPlan, read_crop, readable, scan_folder, shorten, skip
from tracklearn.store.live import CameraError, Live, LiveFrames
from tracklearn.store.lock import locked
from tracklearn.store.paired import ResultBoxes
from tracklearn.store.pictures import MAX_PIXELS, BrokenPicture, max_pixels
from tracklearn.store.sealed import MANIFEST, read_sealed
from tracklearn.store.sequence import seqinfo_of
from tracklearn.store.setwriter import PartWriter, SetWriter
from tracklearn.store.shards import REMEDY
from tracklearn.store.sources import Source, changed, fingerprint, fixed_cameras, parse_sources, seen_from
from tracklearn.store.track import open_tracker
from tracklearn.store.video import DEFAULT_FPS, Frame, Frames, LargerPicture, VideoInfo, open_frames
from tracklearn.types import Array

Progress = Callable[[str, int, int | None], None]


class Config(BaseModel):
    """Settings of ingest.

    `stride`, `min_length`, `min_box_height`, `margin` and `max_gap` concern tracks on video; folders of crops
    are taken as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    detector: str = Field(
        default="motion",
        description="motion, hog, openvino:PATH, onnx:PATH, hub:NAME or file:PATH ({camera}, {video}: names)",
    )
    tracker: str = Field(default="bytetrack", description="bytetrack, sort or ocsort")
    threshold: float | None = Field(
        default=None, description="least detection score; the detector's own if None"
    )
    label: int | None = Field(
        default=None, ge=0, description="class of a person in an openvino: or onnx: model; its usual if None"
    )
    stride: int = Field(default=1, ge=1, description="use every stride-th frame")
    fps: float | None = Field(
        default=None,
        gt=0,
        description="frame rate of sources without times; their codec's, or 25, if None",
    )
    min_length: int = Field(default=6, ge=1, description="crops; shorter tracks are dropped and counted")
    max_length: int = Field(default=1000, ge=1, description="crops; longer tracks go on as a new tracklet")
    min_box_height: float = Field(default=24, ge=1, description="pixels; lower boxes are skipped and counted")
    margin: float = Field(
        default=0.0, ge=0, le=1, description="added to a crop on each side, fraction of its box"
    )
    max_gap: float = Field(default=5.0, gt=0, description="seconds; a track unseen for longer is over")
    jpeg_quality: int = Field(default=90, ge=1, le=100)

    @model_validator(mode="after")
    def _lengths(self) -> Config:
        if self.max_length < self.min_length:
            raise ValueError(f"max_length {self.max_length} is below min_length {self.min_length}")
        return self


def ingest(
    sources: Sequence[str | Path | Source],
    out: str | Path,
    *,
    config: Config | None = None,
    device: str = "cpu",
    resume: bool = False,
    strict: bool = False,
    refused: Sequence[str | None] | None = None,
    live: Live | None = None,
    progress: Progress | None = None,
    start: Start | None = None,
) -> Path:
    """Turn sources into the tracklet set `out`.

    A source that cannot be read (a damaged video or result file, a folder without anything usable) is left
    out and listed as skipped in the manifest, with the reason, as long as others can be. One that is not
    there is an error: a mistyped name.

    Args:
        sources: what to read, as `Source` or as text: "cam1.mp4", "door=cam1.mp4", "door@2=cam1.mp4",
            "door=result.txt+cam1.mp4", "door=video:FRAMES", "door=CROPS", "door=FILMS/*.mp4",
            "door=rtsp://user@host/stream"; see `tracklearn.store.sources`.
        out: folder to write; it appears when all is done. Until then there is `out.partial`.
        config: settings; the defaults if None.
        device: torch device of a hub: detector.
        resume: go on with an interrupted ingest: finished sources are kept, the unfinished one starts again.
            If `out` is complete and made from the same sources and settings, nothing is done. A camera whose
            recording was broken off is recorded anew.
        strict: refuse all when any source cannot be read.
        refused: what `check` of the same arguments returned, which spares opening all sources once more.
        live: how cameras are recorded, and what ends it; all at the same time, before files are read.
        progress: called as progress(what, done, total) with frames or crops; total None where unknown, an
            estimate elsewhere until the last call of a source. Cameras call it from threads of their own.
        start: camera -> when its first video began, or one such moment for each of its videos; of later
            videos, where only the first is given, the creation times in the files tell how much later.
            Without it the creation times are taken, where there are any.

    Returns:
        `out`.

    Raises:
        FileNotFoundError: a source or model does not exist.
        FileExistsError: `out`, or without `resume` `out.partial`, exists.
        ValueError: another process is writing to `out`, no source can be read (with `strict`: one cannot), or
            nobody is in any of them. If somebody is in at least one, the others are listed as skipped in the
            manifest.
        OSError: the disk is full or failing; finished sources are kept for `resume`.
    """
    out, config = Path(out), config or Config()
    with locked(out):
        jobs = _jobs(sources, config, start, live)
        if out.exists() and not resume:
            raise FileExistsError(
                f"{out} exists: --resume keeps it if sources and settings are the same; else choose another "
                "--out"
            )
        camid = fixed_cameras([job.source for job in jobs])
        if out.exists():
            return _complete(out, _request(jobs))
        if refused is None:
            refused = _check(jobs, device, strict)
        request = _request(jobs)
        with SetWriter(out, resume=resume) as writer:
            todo = list(zip(jobs, _part_keys(jobs), refused, strict=True))
            _record([item for item in todo if item[0].source.address], writer, out, device, progress)
            for job, key, why in (item for item in todo if not item[0].source.address):
                part = writer.part(key, truth=job.plan is not None and job.plan.labelled)
                if part is not None:
                    record = job.unread(out, why) if why else _Reader(job, part, out, device, progress).read()
                    part.finish(record)
            records = writer.records
            empty = [record for record in records if not record["n_tracklets"]]
            if len(empty) == len(records):
                remove_folder(writer.partial)  # worth nothing, and in the way of the next attempt
                which = f"any of the {len(records)} sources, such as " if len(records) > 1 else ""
                first = next((job for job in jobs if job.source.address), jobs[0])  # cameras stand first
                shown = readable(str(first.source))  # as it was given; the record has it as seen from the set
                raise ValueError(f"no people found in {which}{shown}: {empty[0]['reason']}")
            extra = {"request": request, "clocks": clocks_of(records)}
            return writer.finish(config.model_dump(), camid=camid, extra=extra)


def _part_keys(jobs: Sequence[_Job]) -> list[str]:
    """The key of each job's part: copies of one recording are told apart by their order."""
    seen = Counter[str]()
    keys = []
    for job in jobs:
        n = seen[job.key]
        seen[job.key] += 1
        keys.append(digest([job.key, n]) if n else job.key)
    return keys


def _record(
    todo: Sequence[tuple[_Job, str, str | None]],
    writer: SetWriter,
    out: Path,
    device: str,
    progress: Progress | None,
) -> None:
    """Record all cameras at the same time, each into its part."""

    def record(job: _Job, part: PartWriter, why: str | None) -> None:
        if why is None:
            try:
                part.finish(_Reader(job, part, out, device, progress).read())
                return
            except CameraError as error:  # it answered when it was looked at, and does not now
                why = str(error)
        part.finish(job.unread(out, why))

    parts = [(job, writer.part(key), why) for job, key, why in todo]
    if not parts:
        return
    with ThreadPoolExecutor(len(parts), thread_name_prefix="camera") as pool:
        running = {pool.submit(record, job, part, why) for job, part, why in parts if part is not None}
        try:
            # In steps: not every system wakes a wait without end for Ctrl-C.
            while running:
                over, running = wait(running, timeout=1, return_when=FIRST_EXCEPTION)
                for future in over:
                    future.result()
        except BaseException:
            todo[0][0].live.stop.set()
            raise


def check(
    sources: Sequence[str | Path | Source],
    *,
    config: Config | None = None,
    device: str = "cpu",
    strict: bool = False,
    start: Start | None = None,
    live: Live | None = None,
) -> list[str | None]:
    """Refuse now what `ingest` of the same arguments would refuse before its work.

    Opens every video, result file, detector and tracker once, and reads nothing of it but the first frame.

    Returns:
        For every source why it cannot be read and will be left out, None where it can.

    Raises:
        FileNotFoundError, ValueError: as `ingest`, but for whether people are found.
    """
    return _check(_jobs(sources, config or Config(), start, live), device, strict)


def n_cameras(sources: Sequence[str | Path | Source], *, config: Config | None = None) -> int | None:
    """How many cameras the sources name; None where folders of crops may hold several.

    Raises:
        FileNotFoundError, ValueError: as `ingest`, as far as names tell.
    """
    jobs = _jobs(sources, config or Config())
    if any(job.plan is not None for job in jobs):
        return None
    return len({job.source.camera for job in jobs})


def request_digest(
    sources: Sequence[str | Path | Source],
    *,
    config: Config | None = None,
    start: Start | None = None,
    live: Live | None = None,
) -> str:
    """Digest of sources (content, change times, names) and settings: what decides whether to ingest again.

    Of a camera it covers the address, as far as that may be shown, and the length of the recording.

    Raises:
        FileNotFoundError, ValueError: as `ingest`, as far as names tell.
    """
    return _request(_jobs(sources, config or Config(), start, live))


def _request(jobs: Sequence[_Job]) -> str:
    return digest([[job.key for job in jobs], fixed_cameras([job.source for job in jobs])])


@dataclass(frozen=True)
class _Job:
    source: Source
    config: Config
    detector: str  # with the camera's name in it; "" where none is needed
    plan: FolderPlan | None
    fault: str | None = None  # why a folder of crops has no plan
    start: datetime | None = None  # when it began
    after: tuple[datetime, Path] | None = None  # when the camera's first file began, and that file
    live: Live = field(default_factory=Live)

    @cached_property
    def files(self) -> list[Path]:
        source = self.source
        if source.address:
            return []
        info = seqinfo_of(source.path) if source.kind != "crops" and source.path.is_dir() else None
        found = (source.results, source.path, info.path if info else None)
        return [file for file in found if file is not None]

    @cached_property
    def content(self) -> str:
        """Digest of what the source holds; of a camera, of what may be shown of its address."""
        if self.source.address:
            return digest([str(self.source), self.live.seconds])
        return digest([fingerprint(file) for file in self.files])

    @cached_property
    def key(self) -> str:
        """Digest of everything its part of the set depends on."""
        settings = {
            **self.config.model_dump(),
            "detector": self.detector,
            "model": _model_digest(self.detector),
        }
        if (limit := max_pixels()) != MAX_PIXELS:
            settings["max_pixels"] = limit
        if self.start or self.after:
            settings["start"] = [str(self.start), str(self.after and self.after[0])]
        source, when = self.source, [changed(file) for file in self.files]
        return digest([setwriter.SCHEMA, source.camera, source.kind, self.content, when, settings])

    def record(self, out: Path) -> dict[str, Any]:
        """What the manifest says of any source; places are relative to the set `out`."""
        source = self.source
        results = None if source.results is None else readable(seen_from(source.results, out))
        return {
            "camera": source.camera,
            "path": str(source) if source.address else readable(seen_from(source.path, out)),
            "results": results,
            "kind": source.kind if self.plan is None else self.plan.kind,
            "digest": self.content,
        }

    def unread(self, out: Path, why: str) -> dict[str, Any]:
        """The record of a source that cannot be read."""
        for file in self.files:
            why = why.replace(str(file), file.name)  # the message is for the screen, the set may be handed on
        return self.record(out) | {
            "status": "skipped",
            "reason": readable(why),
            "counts": {},
            "skipped": [],
            "seconds": 0.0,
            "per_second": 0.0,
        }

    def open_frames(self, size: tuple[int, int] | None = None) -> Frames:
        source, config = self.source, self.config
        if source.address:
            return LiveFrames(
                source.address, camera=source.camera, live=self.live, stride=config.stride, fps=config.fps
            )
        return open_frames(source.path, stride=config.stride, fps=config.fps, size=size)

    def open_detector(self, device: str) -> Detector:
        config = self.config
        label = None if self.source.detections else config.label
        return open_detector(self.detector, threshold=config.threshold, label=label, device=device)


def _jobs(
    sources: Sequence[str | Path | Source],
    config: Config,
    start: Start | None = None,
    live: Live | None = None,
) -> list[_Job]:
    jobs, live = [], live or Live()
    parsed = parse_sources(sources)
    begins = begin_times(parsed, start or {})
    for source, (begin, after) in zip(parsed, begins, strict=True):
        detector = _named(config.detector, source) if source.kind == "video" else ""
        if source.detections is not None:
            detector = f"file:{source.detections}"
        plan, fault = None, None
        if source.kind == "crops":
            try:
                plan = scan_folder(source.path)
            except (ValueError, PermissionError) as error:
                fault = str(error)
        jobs.append(_Job(source, config, detector, plan, fault, begin, after, live))
    films = [job for job in jobs if job.source.kind == "video" and job.source.detections is None]
    if config.detector.startswith("file:") and len({job.detector for job in films}) < len(films):
        raise ValueError(
            f"detector {config.detector} holds the detections of one video, but there are {len(films)}: "
            "put {camera} into its path, which stands for the name of the camera, or {video}, for the name "
            "of the file without its ending"
        )
    return jobs


def _named(detector: str, source: Source) -> str:
    names = {"{camera}": source.camera, "{video}": source.path.stem}
    return re.sub(r"{camera}|{video}", lambda found: names[found[0]], detector)


def _model_digest(detector: str) -> list[str]:
    """Digests of the files behind a detector such as openvino:PATH (.xml and .bin), if any."""
    path = Path(detector.partition(":")[2])
    if not path.is_file():
        return []
    return [fingerprint(file) for file in sorted({path, path.with_suffix(".bin")}) if file.is_file()]


def _complete(out: Path, request: str) -> Path:
    """`out`, if it is finished and was made from this request."""
    manifest = out / MANIFEST
    if not manifest.is_file() or read_sealed(manifest, remedy=REMEDY).get("request") != request:
        raise FileExistsError(
            f"{out} exists and was not made from these sources and settings: choose another --out"
        )
    # of a process interrupted between the renaming and the tidying up
    remove_folder(beside(out, after=".partial"))
    return out


def _check(jobs: Sequence[_Job], device: str, strict: bool) -> list[str | None]:
    """Open everything once, so that a mistake in the last source shows before hours of work on the first.

    Returns why each source cannot be read, None where it can.
    """
    refused: list[str | None] = []
    for job in jobs:
        why = _fault(job)
        if why and strict:
            raise ValueError(why)
        refused.append(why)
    faults = [why for why in refused if why]
    if len(faults) == len(jobs):
        raise ValueError(
            faults[0] if len(jobs) == 1 else f"none of the {len(jobs)} sources can be read: {faults[0]}"
        )
    good = [job for job, why in zip(jobs, refused, strict=True) if why is None]
    for job in good:
        if job.source.kind == "video":
            open_tracker(job.config.tracker, fps=job.config.fps or DEFAULT_FPS)
    for _, job in sorted({job.detector: job for job in good if job.detector}.items()):
        detector = job.open_detector(device)
        if isinstance(detector, FileDetector) and not job.source.address:
            with job.open_frames() as frames:
                detector.pair(frames, job.source.path)
    return refused


def _fault(job: _Job) -> str | None:
    """Why a source cannot be read."""
    if job.fault or job.plan is not None:
        return job.fault
    source = job.source
    try:
        if source.results is not None and not source.results.is_file():
            raise ValueError(f"not a file of tracker results: {source.results}")
        boxes = None if source.results is None else ResultBoxes(source.results, source.path)
        with job.open_frames() as frames:
            if boxes is not None:
                boxes.pair(frames)
    except (ValueError, PermissionError) as error:
        return str(error)
    return None


class _Reader:
    """Reads one source into its part and keeps its account."""

    def __init__(
        self, job: _Job, part: PartWriter, out: Path, device: str, progress: Progress | None
    ) -> None:
        self.job, self.config, self.part, self.out = job, job.config, part, out
        self.device, self.progress = device, progress
        self.skipped: list[dict[str, Any]] = []
        self.counts: dict[str, int] = {}
        self.warnings: list[str] = []  # what a reader of the set should know, a line each

    def read(self) -> dict[str, Any]:
        """Read all of it; the record for the manifest."""
        began = time.perf_counter()
        record = self.job.record(self.out)
        if self.job.plan is not None:
            record |= self._read_folder(self.job.plan)
        else:
            record |= self._read_film()
        seconds = time.perf_counter() - began
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
            name = self.job.source.camera or readable(self.job.source.path.name)
            self.progress(f"ingest {name}", done, total)

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
            if source.results is not None:
                boxes: ResultBoxes | _Tracking = ResultBoxes(source.results, source.path).pair(frames)
            else:
                detector = self.job.open_detector(self.device)
                boxes = _Tracking(detector, config.tracker, frames, source.path)
                record |= {"detector": detector.name, "tracker": config.tracker}
            cutter = Cutter(
                self.part,
                source.camera,
                min_length=config.min_length,
                max_length=config.max_length,
                min_box_height=config.min_box_height,
                margin=config.margin,
                max_gap=config.max_gap,
                jpeg_quality=config.jpeg_quality,
            )
            n_frames, last, seconds = 0, -1, 0.0
            for frame in frames:
                cutter.add(frame, *boxes.at(frame))
                n_frames, last, seconds = n_frames + 1, frame.number, frame.time + 1 / info.fps
                self._report(n_frames, total if total is None else max(total, n_frames + 1))
            cutter.close()
            self._report(n_frames, n_frames)
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
        odd = [*frames.notes, *frames.remarks(), *filter(None, [boxes.warning(info)])]
        self.warnings += [readable(warning) for warning in odd]
        video = {"width": info.width, "height": info.height, "fps": info.fps, "codec": info.codec}
        video |= {"seconds": round(seconds, 3), **frames.account}
        record |= {"video": video}
        if isinstance(frames, LiveFrames):
            self.skipped += frames.skipped()
            return record | frames.record()
        return record | begin_record(self.job.start, self.job.after, info.start)

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


class _Tracking:
    """Boxes from a detector and a tracker."""

    def __init__(self, detector: Detector, tracker: str, frames: Frames, folder: Path) -> None:
        self.detector = detector
        if isinstance(detector, FileDetector):
            detector.pair(frames, folder)
        self.tracker = open_tracker(tracker, fps=frames.info.fps, detector_threshold=detector.confident)
        self.n_boxes = 0

    def at(self, frame: Frame) -> tuple[Array, Array, Array]:
        box, score = self.detector(frame.image, frame.number)
        self.n_boxes += len(box)
        return self.tracker.update(box, score, frame.time, frame.image)

    def unused(self, last: int, stride: int) -> list[dict[str, Any]]:
        if not isinstance(self.detector, FileDetector):
            return []
        return [skip("detections", why, n) for why, n in self.detector.left_out.items()]

    def warning(self, info: VideoInfo) -> str:
        return self.detector.warning(info) if isinstance(self.detector, FileDetector) else ""
