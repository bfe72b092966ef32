"""From camera files, tracker results and folders of crops to a tracklet set: `ingest`.

Everything streams. A video is decoded, detected and tracked frame by frame; only the crops of tracks that are
still open are held, at most `Config.max_length` each, and a closed track goes to disk at once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from tracklearn.store.config import digest
from tracklearn.store.film.clocks import Start, clocks_of
from tracklearn.store.film.connection import CameraError, Live
from tracklearn.store.ingest.jobs import Config, Job
from tracklearn.store.ingest.pieces import Cut, Pieces, may_be_cut
from tracklearn.store.ingest.reader import Reader
from tracklearn.store.ingest.request import Request
from tracklearn.store.ingest.sources import Source
from tracklearn.store.ingest.work import JoinWork, PieceWork, Work
from tracklearn.store.objects import sweep
from tracklearn.store.sets.setwriter import PartWriter, SetWriter
from tracklearn.store.sets.stored import Destination, destination
from tracklearn.store.skipped import readable
from tracklearn.store.workers.chosen import engine_of
from tracklearn.store.workers.engine import ATTEMPTS, Engine, Outcome, Task
from tracklearn.types import Progress, Refusal


def ingest(
    sources: Sequence[str | Path | Source] | Request,
    out: str | Path,
    *,
    config: Config | None = None,
    device: str = "cpu",
    resume: bool = False,
    strict: bool = False,
    live: Live | None = None,
    progress: Progress | None = None,
    start: Start | None = None,
    tell: Callable[[str], None] | None = None,
    workers: int | None = None,
    on: str | None = None,
) -> Path | str:
    """Turn sources into the tracklet set `out`.

    A source that cannot be read (a damaged video or result file, a folder without anything usable) is left
    out and listed as skipped in the manifest, with the reason, as long as others can be. One that is not
    there is an error: a mistyped name.

    Args:
        sources: what to read, as `Source` or as text: "cam1.mp4", "door=cam1.mp4", "door@2=cam1.mp4",
            "door=result.txt+cam1.mp4", "door=video:FRAMES", "door=CROPS", "door=FILMS/*.mp4",
            "door=rtsp://user@host/stream", "door=s3://bucket/cam1.mp4"; see
            `tracklearn.store.ingest.sources`. Or a `Request`, which has `config`, `live` and `start` of its
            own, and is not looked at again where that was done.
        out: folder to write; it appears when all is done. Until then there is `out.partial`. Or a place in
            storage, "s3://bucket/sets/site" (`tracklearn.store.sets.stored`), which workers write to by
            themselves.
        config: settings; the defaults if None.
        device: torch device of a hub: detector.
        resume: go on with an interrupted ingest: finished sources are kept, the unfinished one starts again.
            If `out` is complete and made from the same sources and settings, nothing is done. A camera whose
            recording was broken off is recorded anew.
        strict: refuse all when any source cannot be read.
        live: how cameras are recorded, and what ends it; all at the same time, before files are read.
        progress: called as progress(what, done, total) with frames or crops; total None where unknown, an
            estimate elsewhere until the last call of a source. Cameras call it from threads of their own.
            With workers it is told of all sources together.
        start: camera -> when its first video began, or one such moment for each of its videos; of later
            videos, where only the first is given, the creation times in the files tell how much later.
            Without it the creation times are taken, where there are any.
        tell: told, before the work, which detector "auto" stands for.
        workers: processes that read sources, each one at a time; in this process, in order, if None. The set
            is the same. A source whose worker dies is tried once more and then left out, with the reason.
            Cameras are recorded here in any case.
        on: "ray" for workers of a Ray cluster on this machine, "ray:ADDRESS" of one that is there, whose
            machines must all see sources and `out` under the same names.

    Returns:
        `out`; of a place in storage its address, as far as it may be shown.

    Raises:
        FileNotFoundError: a source or model does not exist.
        FileExistsError: `out`, or without `resume` `out.partial`, exists.
        ValueError: another process is writing to `out`, no source can be read (with `strict`: one cannot),
            nobody is in any of them, or there are no such workers. If somebody is in at least one, the others
            are listed as skipped in the manifest.
        OSError: the disk is full or failing; finished sources are kept for `resume`.
    """
    at = destination(out)
    engine = engine_of(on, workers)
    with at.locked():
        asked = sources if isinstance(sources, Request) else Request(sources, config, start=start, live=live)
        there = at.exists()
        if there and not resume:
            raise FileExistsError(
                f"{at} exists: --resume keeps it if sources and settings are the same; else choose another "
                "--out"
            )
        if there:
            _require_made_of(at, asked.digest)
            return at.result
        refused, jobs = asked.check(device=device, strict=strict), asked.jobs
        if tell and asked.chosen:
            tell(asked.chosen)
        with at.writer(resume=resume) as writer, ExitStack() as after:
            if any(job.afar for job in jobs):
                after.callback(sweep)  # what killed workers of this machine had fetched
            todo = list(zip(jobs, asked.part_keys, refused, strict=True))
            folder = at.folder
            _record([item for item in todo if item[0].source.address], writer, folder, device, progress)
            files = [item for item in todo if not item[0].source.address]
            _read(files, writer, folder, device, engine, strict, progress)
            records = writer.records
            empty = [record for record in records if not record["n_tracklets"]]
            if len(empty) == len(records):
                writer.drop()  # in the way of the next attempt
                which = f"any of the {len(records)} sources, such as " if len(records) > 1 else ""
                first = next((job for job in jobs if job.source.address), jobs[0])  # cameras stand first
                shown = readable(str(first.source))  # as it was given; the record has it as seen from the set
                raise Refusal(f"no people found in {which}{shown}: {empty[0]['reason']}")
            extra = {"request": asked.digest, "clocks": clocks_of(records)}
            writer.finish(asked.config.model_dump(), camid=asked.camid, extra=extra)
            return at.result


def _read(
    todo: Sequence[tuple[Job, str, str | None]],
    writer: SetWriter,
    out: Path | None,
    device: str,
    engine: Engine,
    strict: bool,
    progress: Progress | None,
) -> None:
    """Have all files and folders read by workers, each into its part; long films in pieces."""
    works: list[Work] = []
    for job, key, why in todo:
        place = writer.place(key, truth=job.plan is not None and job.plan.labelled)
        if place is not None and why is not None:
            place.open().finish(job.unread(out, why))
        elif place is not None:
            works.append(Work(job, place, out, device, engine.apart, strict=strict))
    reading = _Reading(works, writer, engine, progress)
    reads, joins = reading.planned(reading.cut())
    reading.join(joins, reading.read(reads))


class _Reading:
    """Sources that are read by workers.

    Args:
        works: each source as a whole.
        writer: of the set.
        engine: whose workers.
        progress: told of all sources together.
    """

    def __init__(
        self, works: Sequence[Work], writer: SetWriter, engine: Engine, progress: Progress | None
    ) -> None:
        self._works, self._writer, self._engine, self._progress = works, writer, engine, progress
        self._left: set[Path] = set()  # parts of the sources that are left out

    def cut(self) -> dict[Path, Pieces]:
        """Into which pieces long films are cut, by their parts."""
        films = [work for work in self._works if may_be_cut(work.job)]
        tasks = [Cut(film.job) for film in films]
        found = self._outcomes(films, tasks, f"look into {len(films)} films", told=False)
        return {film.place.folder: outcome.value for film, outcome in found}

    def planned(self, cut: Mapping[Path, Pieces]) -> tuple[list[tuple[Work, Work]], list[JoinWork]]:
        """What is to be read, each with the source that it is of; and what is joined of it afterwards."""
        reads: list[tuple[Work, Work]] = []
        joins: list[JoinWork] = []
        for work in self._here():
            found = cut.get(work.place.folder, Pieces())
            if not found.pieces:
                reads.append((_whole(work, found.why), work))
                continue
            places = []
            for piece in found.pieces:
                place, finished = self._writer.aside(digest([work.place.key, str(piece)]))
                places.append(place)
                if not finished:
                    read = PieceWork(work.job, place, work.out, work.device, work.apart, piece=piece)
                    reads.append((read, work))
            joins.append(
                JoinWork(
                    *(work.job, work.place, work.out, work.device, work.apart),
                    strict=work.strict,
                    pieces=found.pieces,
                    places=tuple(places),
                )
            )
        if self._engine.apart:  # a long film that is begun last would be waited for alone
            reads.sort(key=lambda pair: pair[0].size, reverse=True)
        return reads, joins

    def read(self, reads: Sequence[tuple[Work, Work]]) -> dict[Path, str]:
        """Read; films that cannot be read in pieces after all, by their parts, with the reason."""
        of, tasks = [work for _, work in reads], [read for read, _ in reads]
        found = self._outcomes(of, tasks, f"ingest {len(self._works)} sources")
        return {work.place.folder: outcome.value for work, outcome in found if outcome.value}

    def join(self, joins: Sequence[JoinWork], unfit: Mapping[Path, str]) -> None:
        """Join pieces to their films, and read as a whole what does not fit together."""
        whole = {work.place.folder: work for work in self._works}
        then: list[Work] = []
        for join in joins:
            folder = join.place.folder
            if folder not in self._left:
                then.append(_whole(whole[folder], unfit[folder]) if folder in unfit else join)
        for _ in self._outcomes(then, then, f"join {len(then)} films"):
            pass
        for place in {place.folder: place for join in joins for place in join.places}.values():
            place.remove()

    def _here(self) -> list[Work]:
        return [work for work in self._works if work.place.folder not in self._left]

    def _outcomes(
        self, of: Sequence[Work], tasks: Sequence[Task], what: str, *, told: bool = True
    ) -> Generator[tuple[Work, Outcome], None, None]:
        """What became of tasks, in any order, each with its source; those that were lost leave that out."""
        if not tasks:
            return
        with closing(self._engine.run(tasks, what, self._progress if told else None)) as outcomes:
            for outcome in outcomes:
                work, task = of[outcome.number], tasks[outcome.number]
                if outcome.lost is None:
                    yield work, outcome
                else:
                    self._leave_out(work, outcome.lost, str(task) if isinstance(task, PieceWork) else "it")

    def _leave_out(self, work: Work, lost: str, read: str) -> None:
        why = (
            f"{ATTEMPTS} workers that read {read} came to grief ({lost}): ingest it alone, with more "
            "memory to spare"
        )
        if work.strict:
            raise Refusal(f"{work.job.source}: {why}")
        if work.place.folder not in self._left:
            self._left.add(work.place.folder)
            work.place.open().finish(work.job.unread(work.out, why))


def _whole(work: Work, why: str) -> Work:
    """A film that is read in one, and why where it is long."""
    return replace(work, note=f"read as a whole, not in pieces: {why}" if why else "")


def _record(
    todo: Sequence[tuple[Job, str, str | None]],
    writer: SetWriter,
    out: Path | None,
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


def _require_made_of(at: Destination, request: str) -> None:
    """Refuse a set that was not made from this request; what is left of its writing goes."""
    manifest = at.manifest()
    if manifest is None or manifest.get("request") != request:
        raise FileExistsError(
            f"{at} exists and was not made from these sources and settings: choose another --out"
        )
    # of a process interrupted between the renaming and the tidying up
    at.tidy()
