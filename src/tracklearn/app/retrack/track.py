"""Tracking again: a video, a detector, a tracker, and a network that knows people; corrected tracks out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from tracklearn.app.formats import number, percent
from tracklearn.app.model.device import pick_device
from tracklearn.app.retrack.learned import Learned, learned
from tracklearn.core.relink import Relinker, Settled
from tracklearn.store.files import replacing
from tracklearn.store.film.addresses import hide
from tracklearn.store.film.frames import Frame, LargerPicture
from tracklearn.store.film.mot import write_rows
from tracklearn.store.ingest.cut import cut
from tracklearn.store.ingest.jobs import Config, Job
from tracklearn.store.ingest.reader import open_boxes
from tracklearn.store.ingest.request import Request
from tracklearn.store.ingest.sources import Source
from tracklearn.store.lock import locked
from tracklearn.store.picture.crops import ENLARGE
from tracklearn.types import Array, ArrayCrops, Progress, Refusal

DELAY = 4.0  # seconds


@dataclass
class _Clock:
    """Seconds spent: with the film, the detector and the tracker; and with people's looks."""

    began: float = field(default_factory=time.perf_counter)
    reid: float = 0.0

    @property
    def whole(self) -> float:
        return time.perf_counter() - self.began


def track(
    source: str | Path | Source,
    reid: str | Path,
    out: str | Path,
    *,
    config: Config | None = None,
    delay: float = DELAY,
    distance: float | None = None,
    device: str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Track the people of a video, those who come back under the number that they had.

    Detector and tracker are those of `ingest`, or the tracks are a tracker's results; then `core.relink`.

    Args:
        source: what `ingest` takes of one camera, but no folder of crops and no live camera: a video, a
            folder of frames, either with a tracker's results or with detections.
        reid: a finished run or an .onnx file; see `learned.learned`.
        out: MOTChallenge file to write, whole or not at all.
        config: settings of `ingest`: detector, tracker, stride and what concerns boxes.
        delay: seconds of film that a box may wait for its number; 0 is causal.
        distance: of unit features below which a track is somebody known, in the place of what was learned.
        device: where a run's network and a hub: detector compute.
        resume: replace a file that is there.
        progress: told of frames and crops.
        tell: told, before the work, which detector "auto" stands for.

    Returns:
        `tracks` (the file), counts, `seconds`, `frames_per_second`, `reid_share`, `bounds`, `notes`.

    Raises:
        FileExistsError: `out` is there and `resume` off.
        FileNotFoundError: the source, the network or a model is not.
        ValueError: the source is none of a film, several, or cannot be read; nobody is found in it; as
            `learned.learned` and `ingest`.
    """
    out = Path(out)
    if not delay >= 0:  # before anything long
        raise Refusal(f"--delay is {delay:g}, expected seconds from 0")
    if out.is_dir():
        raise Refusal(f"{out} is a folder: --out is the file to write, such as {out / 'tracks.txt'}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {out.parent}")
    if out.exists() and not resume:
        raise FileExistsError(f"{out} exists: replace it with --resume, or choose another --out")
    where = pick_device(device)
    job = _job(source, config, where, tell)
    known = learned(reid, distance=distance, device=device, progress=progress)
    with locked(out), job.here() as film:
        if film.fetched and (why := film.unreadable()) is not None:
            raise Refusal(f"{film.source}: {film.named(why)}")
        try:
            return _track(film, known, out, delay, where, None, progress)
        except LargerPicture as larger:
            return _track(film, known, out, delay, where, larger.size, progress)


def _job(
    source: str | Path | Source, config: Config | None, device: str, tell: Callable[[str], None] | None
) -> Job:
    """The one film that is asked for, looked at once."""
    asked = Request([source], config)
    if len(asked.jobs) > 1:
        raise Refusal(
            f"{hide(str(source))} stands for {len(asked.jobs)} recordings: track them one by one, or all of "
            "them with tracklearn ingest and identities"
        )
    job = asked.jobs[0]
    if job.source.address:
        raise Refusal(
            f"{job.source} is a live camera: record it first (tracklearn ingest), and track the recording"
        )
    if job.source.kind == "crops":
        raise Refusal(
            f"{job.source} is a folder of crops, which no tracker can follow: give a video, or a folder of "
            f"whole frames as video:{job.source}"
        )
    asked.check(device=device, strict=True)
    if tell and asked.chosen:
        tell(asked.chosen)
    return job


def _track(
    job: Job,
    known: Learned,
    out: Path,
    delay: float,
    device: str,
    size: tuple[int, int] | None,
    progress: Progress | None,
) -> dict[str, Any]:
    """All frames, at one size of the picture."""
    clock = _Clock()
    relinker = Relinker(known.bounds, delay=delay, max_gap=job.config.max_gap)
    with ExitStack() as stack:
        file = stack.enter_context(replacing(out))
        frames = stack.enter_context(job.open_frames(size))
        total = None if frames.info.n_frames is None else -(-frames.info.n_frames // job.config.stride)
        boxes = open_boxes(job, frames, device)
        seen = _Seeing(known, job.config)
        for n, frame in enumerate(frames, 1):
            found = boxes.at(frame)
            began = time.perf_counter()
            _write(file, relinker.add(frame.number, frame.time, *seen.at(frame, relinker, *found)))
            clock.reid += time.perf_counter() - began
            if progress is not None:
                progress(f"track {job.source.camera}", n, total if total is None else max(total, n + 1))
        began = time.perf_counter()
        _write(file, relinker.close())
        clock.reid += time.perf_counter() - began
        if progress is not None:
            n = relinker.counts["frames"]
            progress(f"track {job.source.camera}", n, n)
        if not relinker.counts["boxes"]:
            raise Refusal(
                f"no people found in {job.source}: nothing was written; try another detector or a lower "
                "--threshold"
            )
        notes = [*known.notes, *frames.notes, *frames.remarks(), *filter(None, [boxes.warning(frames.info)])]
        if frames.broken:
            notes.append(f"{number(frames.broken)} frames cannot be decoded; they are left out")
    counts = relinker.counts
    return {
        "tracks": str(out),
        "counts": {**counts, "people": relinker.people, "crops": seen.n_crops},
        "delay": delay,
        "seconds": clock.whole,
        "frames_per_second": counts["frames"] / max(clock.whole, 1e-9),
        "reid_share": clock.reid / max(clock.whole, 1e-9),
        "bounds": {**known.bounds.to_dict(), "from": known.origin},
        "notes": notes,
    }


class _Seeing:
    """Looks at the crops of a frame that are worth a look."""

    def __init__(self, known: Learned, config: Config) -> None:
        self._model, self._config = known.model, config
        self._resize = ENLARGE[known.model.interpolation]
        self.n_crops = 0

    def at(
        self, frame: Frame, relinker: Relinker, track: Array, box: Array, score: Array
    ) -> tuple[Array, Array, Array, list[Array | None]]:
        """What `Relinker.add` takes of a frame's boxes: of boxes with one number the best, and features."""
        order = np.lexsort((-score, track))
        kept = order[np.r_[True, np.diff(track[order]) != 0]] if len(order) else order
        track, box, score = track[kept], box[kept], score[kept]
        feature: list[Array | None] = [None] * len(track)
        pictures, at = [], []
        for i in np.flatnonzero(relinker.wanted(frame.time, track)).tolist():
            crop = cut(
                frame.image, box[i].tolist(), margin=self._config.margin, least=self._config.min_box_height
            )
            if crop is not None:
                pictures.append(self._resize(crop, self._model.height, self._model.width))
                at.append(i)
        if pictures:
            found = self._model.extract(ArrayCrops(np.stack(pictures)), np.arange(len(pictures)))
            for i, row in zip(at, found, strict=True):
                feature[i] = row
            self.n_crops += len(at)
        return track, box, score, feature


def _write(file: IO[bytes], settled: Sequence[Settled]) -> None:
    for one in settled:
        frame = np.full(len(one.number), one.frame)
        write_rows(file, frame, one.number, one.box, one.score)


def text(result: dict[str, Any]) -> str:
    """What a person is told, a few lines."""
    n, bounds = result["counts"], result["bounds"]
    lines = [
        f"{number(n['frames'])} frames, {number(n['boxes'])} boxes: {number(n['tracks'])} tracks are "
        f"probably {number(n['people'])} people",
        f"{number(n['returns'])} came back as somebody known, tracks were cut at {number(n['cuts'])} changes "
        "of person",
        f"one person below {bounds['piece']['threshold']:.2f}, a single crop below "
        f"{bounds['crop']['threshold']:.2f} ({bounds['from']})",
        f"{result['frames_per_second']:.1f} frames/s, of which appearance takes "
        f"{percent(result['reid_share'])} ({number(n['crops'])} crops looked at)",
    ]
    if n["second_boxes"]:
        lines.append(f"{number(n['second_boxes'])} second boxes of a person in one frame are left out")
    return "\n".join([*lines, *result["notes"]])
