"""From camera files, tracker results and folders of crops to a tracklet set: `ingest`.

Everything streams. A video is decoded, detected and tracked frame by frame; only the crops of tracks that are
still open are held, at most `Config.max_length` each, and a closed track goes to disk at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from tracklearn.store.config import digest
from tracklearn.store.detect.listed import FileDetector
from tracklearn.store.files import beside, remove_folder
from tracklearn.store.film.clocks import Start, clocks_of
from tracklearn.store.film.frames import DEFAULT_FPS
from tracklearn.store.film.live import CameraError, Live
from tracklearn.store.film.paired import ResultBoxes
from tracklearn.store.film.track import open_tracker
from tracklearn.store.ingest.jobs import Config, Job, jobs_of
from tracklearn.store.ingest.reader import Reader
from tracklearn.store.ingest.sources import Source, fixed_cameras
from tracklearn.store.lock import locked
from tracklearn.store.sealed import MANIFEST, read_sealed
from tracklearn.store.sets.setwriter import PartWriter, SetWriter
from tracklearn.store.sets.shards import REMEDY
from tracklearn.store.skipped import readable
from tracklearn.types import Progress, Refusal


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
            "door=rtsp://user@host/stream"; see `tracklearn.store.ingest.sources`.
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
        jobs = jobs_of(sources, config, start, live)
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
                    record = job.unread(out, why) if why else Reader(job, part, out, device, progress).read()
                    part.finish(record)
            records = writer.records
            empty = [record for record in records if not record["n_tracklets"]]
            if len(empty) == len(records):
                remove_folder(writer.partial)  # worth nothing, and in the way of the next attempt
                which = f"any of the {len(records)} sources, such as " if len(records) > 1 else ""
                first = next((job for job in jobs if job.source.address), jobs[0])  # cameras stand first
                shown = readable(str(first.source))  # as it was given; the record has it as seen from the set
                raise Refusal(f"no people found in {which}{shown}: {empty[0]['reason']}")
            extra = {"request": request, "clocks": clocks_of(records)}
            return writer.finish(config.model_dump(), camid=camid, extra=extra)


def _part_keys(jobs: Sequence[Job]) -> list[str]:
    """The key of each job's part: copies of one recording are told apart by their order."""
    seen = Counter[str]()
    keys = []
    for job in jobs:
        n = seen[job.key]
        seen[job.key] += 1
        keys.append(digest([job.key, n]) if n else job.key)
    return keys


def _record(
    todo: Sequence[tuple[Job, str, str | None]],
    writer: SetWriter,
    out: Path,
    device: str,
    progress: Progress | None,
) -> None:
    """Record all cameras at the same time, each into its part."""

    def record(job: Job, part: PartWriter, why: str | None) -> None:
        if why is None:
            try:
                part.finish(Reader(job, part, out, device, progress).read())
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
    return _check(jobs_of(sources, config or Config(), start, live), device, strict)


def n_cameras(sources: Sequence[str | Path | Source], *, config: Config | None = None) -> int | None:
    """How many cameras the sources name; None where folders of crops may hold several.

    Raises:
        FileNotFoundError, ValueError: as `ingest`, as far as names tell.
    """
    jobs = jobs_of(sources, config or Config())
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
    return _request(jobs_of(sources, config or Config(), start, live))


def _request(jobs: Sequence[Job]) -> str:
    return digest([[job.key for job in jobs], fixed_cameras([job.source for job in jobs])])


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


def _check(jobs: Sequence[Job], device: str, strict: bool) -> list[str | None]:
    """Open everything once, so that a mistake in the last source shows before hours of work on the first.

    Returns why each source cannot be read, None where it can.
    """
    refused: list[str | None] = []
    for job in jobs:
        why = _fault(job)
        if why and strict:
            raise Refusal(why)
        refused.append(why)
    faults = [why for why in refused if why]
    if len(faults) == len(jobs):
        raise Refusal(
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


def _fault(job: Job) -> str | None:
    """Why a source cannot be read."""
    if job.fault or job.plan is not None:
        return job.fault
    source = job.source
    try:
        if source.results is not None and not source.results.is_file():
            raise Refusal(f"not a file of tracker results: {source.results}")
        boxes = None if source.results is None else ResultBoxes(source.results, source.path)
        with job.open_frames() as frames:
            if boxes is not None:
                boxes.pair(frames)
    except (ValueError, PermissionError) as error:
        return str(error)
    return None
