"""What ingest has to do: its settings, and each source with all that its part of the set depends on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from tracklearn.store.config import digest
from tracklearn.store.detect.detector import Detector, open_detector, resolve
from tracklearn.store.film.clocks import Start, begin_times
from tracklearn.store.film.connection import Live
from tracklearn.store.film.frames import Frames
from tracklearn.store.film.live import LiveFrames
from tracklearn.store.film.paired import ResultBoxes
from tracklearn.store.film.sequence import seqinfo_of
from tracklearn.store.film.video import open_frames
from tracklearn.store.ingest.folders import FolderPlan, scan_folder
from tracklearn.store.ingest.sources import Source, changed, fingerprint, parse_sources, seen_from
from tracklearn.store.objects import Info, scratch
from tracklearn.store.picture.pictures import MAX_PIXELS, max_pixels
from tracklearn.store.sets import setwriter
from tracklearn.store.skipped import readable
from tracklearn.types import Refusal

_ASKED = 16  # objects of a storage that are asked for at one time


class Config(BaseModel):
    """Settings of ingest.

    `stride`, `min_length`, `min_box_height`, `margin` and `max_gap` concern tracks on video; folders of crops
    are taken as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    detector: str = Field(
        default="auto",
        description="motion, hog, openvino:PATH, onnx:PATH, hub:NAME, file:PATH ({camera}, {video}: names) "
        "or auto: hub:NAME where one that is free for any use is cached, else motion [chosen]",
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
    jpeg_quality: int = Field(default=90, ge=1, le=100, description="of the crops as they are stored")
    piece_minutes: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="films that a detector searches and that are longer are read in pieces of at most so "
        "many minutes, each by whoever is free; in one if None [chosen]",
    )
    piece_overlap: float = Field(
        default=60.0,
        gt=0,
        allow_inf_nan=False,
        description="seconds before its beginning from which a piece is read, for detector and tracker to "
        "know the place [chosen]",
    )

    @model_validator(mode="after")
    def _lengths(self) -> Config:
        if self.max_length < self.min_length:
            raise Refusal(f"max_length {self.max_length} is below min_length {self.min_length}")
        if self.piece_minutes is not None and self.piece_overlap > 60 * self.piece_minutes:
            raise Refusal(
                f"piece_overlap {self.piece_overlap:g} seconds is more than piece_minutes "
                f"{self.piece_minutes:g}: a piece would be read for less than its overlap"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_ever(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Parts, requests and manifests of films that are read whole stay what they were before there were
        # pieces: a finished set is still known for what it is.
        settings: dict[str, Any] = dump(self)
        if self.piece_minutes is None:
            del settings["piece_minutes"], settings["piece_overlap"]
        return settings


@dataclass(frozen=True)
class Job:
    """One source, and how it is to be read.

    Args:
        source: what to read.
        config: settings.
        detector: its spec with the camera's name in it; "" where none is needed.
        plan: what a folder of crops holds; None for anything else.
        fault: why a folder of crops has no plan.
        start: when it began.
        after: when the camera's first file began, and that file.
        live: how a camera is recorded.
        fetched: of a film in storage, that its source's path and results are copies on this machine.
    """

    source: Source
    config: Config
    detector: str
    plan: FolderPlan | None
    fault: str | None = None
    start: datetime | None = None
    after: tuple[datetime, Path] | None = None
    live: Live = field(default_factory=Live)
    fetched: bool = False

    def __getstate__(self) -> dict[str, Any]:
        """For a worker, with what was found out before; cameras are recorded where they were asked for."""
        return {name: value for name, value in self.__dict__.items() if name != "live"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, live=Live())

    @cached_property
    def files(self) -> list[Path]:
        """The files and folders that its content comes from; none of a camera, or of what is in storage."""
        source = self.source
        if source.address or self.afar:
            return []
        info = seqinfo_of(source.path) if source.kind != "crops" and source.path.is_dir() else None
        found = (source.results, source.path, info.path if info else None)
        return [file for file in found if file is not None]

    @property
    def afar(self) -> bool:
        """Whether it is in storage and not on this machine."""
        return bool(self.source.stored) and not self.fetched

    @cached_property
    def objects(self) -> list[Info]:
        """What its objects in storage are.

        Raises:
            FileNotFoundError: one is not there.
            ValueError: the storage cannot be reached, or refuses.
        """
        found = [(one, one.info()) for one in self.source.stored]
        if gone := [one for one, info in found if info is None]:
            hint = f" (for the videos below it write {gone[0]}/)" if gone[0].listed() else ""
            raise FileNotFoundError(f"no such object in storage: {gone[0]}{hint}")
        return [info for _, info in found if info is not None]

    @contextmanager
    def here(self) -> Iterator[Job]:
        """The job with its film on this machine: itself, or of one in storage a copy, for the block.

        Raises:
            FileNotFoundError, ValueError: an object has gone, has changed since it was looked at, or cannot
                be read.
            OSError: the disk is full or failing.
        """
        if not self.afar:
            yield self
            return
        with scratch() as folder:
            films = []
            for i, (one, known) in enumerate(zip(self.source.stored, self.objects, strict=True)):
                (folder / str(i)).mkdir()
                films.append(folder / str(i) / one.name)
                one.fetch(films[-1])
                if one.info() != known:  # looked at behind the reading: nothing can have come between
                    raise Refusal(f"{one} has changed since it was looked at: start again, with --resume")
            results = films[1] if len(films) > 1 else None
            yield replace(self, source=replace(self.source, path=films[0], results=results), fetched=True)

    @cached_property
    def content(self) -> str:
        """Digest of what the source holds; of a camera, of what may be shown of its address.

        Of a film in storage the marks of its objects: whoever asks reads no byte of it.
        """
        if self.source.address:
            return digest([str(self.source), self.live.seconds])
        if self.afar:
            return digest([info.mark for info in self.objects])
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

    def record(self, out: Path | None) -> dict[str, Any]:
        """What the manifest says of any source; places are relative to the set `out`, absolute without."""
        source = self.source
        if source.address:
            path, results = str(source), ""
        elif source.stored:
            path, results = (readable(str(one)) for one in (*source.stored, "")[:2])
        else:
            path = readable(seen_from(source.path, out))
            results = readable(seen_from(source.results, out)) if source.results else ""
        return {
            "camera": source.camera,
            "path": path,
            "results": results or None,
            "kind": source.kind if self.plan is None else self.plan.kind,
            "digest": self.content,
        }

    def unread(self, out: Path | None, why: str) -> dict[str, Any]:
        """The record of a source that cannot be read."""
        why = self.named(why)  # the message is for the screen, the set may be handed on
        return self.record(out) | {
            "status": "skipped",
            "reason": readable(why),
            "counts": {},
            "skipped": [],
            "seconds": 0.0,
            "per_second": 0.0,
        }

    def named(self, why: str) -> str:
        """A message with the names of files for their paths."""
        for file in self.files:
            why = why.replace(str(file), file.name)
        return why

    def unreadable(self) -> str | None:
        """Why it cannot be read; None where it can, or where that shows only when it has been fetched."""
        if self.fault or self.plan is not None or self.afar:
            return self.fault
        source = self.source
        try:
            if source.results is not None and not source.results.is_file():
                raise Refusal(f"not a file of tracker results: {source.results}")
            boxes = None if source.results is None else ResultBoxes(source.results, source.path)
            with self.open_frames() as frames:
                if boxes is not None:
                    boxes.pair(frames)
        except (ValueError, PermissionError) as error:
            return str(error)
        return None

    def open_frames(self, size: tuple[int, int] | None = None) -> Frames:
        """The source's frames, of a video at `size` (width, height); see `video.open_frames`."""
        source, config = self.source, self.config
        if source.address:
            return LiveFrames(
                source.address, camera=source.camera, live=self.live, stride=config.stride, fps=config.fps
            )
        return open_frames(source.path, stride=config.stride, fps=config.fps, size=size)

    def open_detector(self, device: str) -> Detector:
        """A detector of its own on a torch device; see `detect.open_detector`."""
        config = self.config
        label = None if self.source.detections else config.label
        return open_detector(self.detector, threshold=config.threshold, label=label, device=device)


def jobs_of(
    sources: Sequence[str | Path | Source],
    config: Config,
    start: Start | None = None,
    live: Live | None = None,
) -> list[Job]:
    """The jobs of `ingest`'s arguments, in order; a folder of recordings is one for each file.

    Where a detector is needed, the settings of all have the one that "auto" stands for.

    Raises:
        FileNotFoundError, ValueError: as `ingest`, as far as names tell.
    """
    jobs, live = [], live or Live()
    parsed = parse_sources(sources)
    begins = begin_times(parsed, start or {})
    if any(_to_be_searched(source) for source in parsed):
        config = config.model_copy(update={"detector": resolve(config.detector)[0]})
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
        jobs.append(Job(source, config, detector, plan, fault, begin, after, live))
    if stored := [job for job in jobs if job.afar]:
        with ThreadPoolExecutor(_ASKED) as pool:  # a question takes its way, and there may be thousands
            list(pool.map(lambda job: job.objects, stored))
    films = [job for job in jobs if _to_be_searched(job.source)]
    if config.detector.startswith("file:") and len({job.detector for job in films}) < len(films):
        raise Refusal(
            f"detector {config.detector} holds the detections of one video, but there are {len(films)}: "
            "put {camera} into its path, which stands for the name of the camera, or {video}, for the name "
            "of the file without its ending"
        )
    return jobs


def _to_be_searched(source: Source) -> bool:
    """Whether a detector has to find the people of a source."""
    return source.kind == "video" and source.detections is None


def _named(detector: str, source: Source) -> str:
    names = {"{camera}": source.camera, "{video}": source.path.stem}
    return re.sub(r"{camera}|{video}", lambda found: names[found[0]], detector)


def _model_digest(detector: str) -> list[str]:
    """Digests of the files behind a detector such as openvino:PATH (.xml and .bin), if any."""
    path = Path(detector.partition(":")[2])
    if not path.is_file():
        return []
    return [fingerprint(file) for file in sorted({path, path.with_suffix(".bin")}) if file.is_file()]
