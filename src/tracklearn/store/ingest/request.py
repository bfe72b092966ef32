"""What is asked of ingest, looked at once: sources with settings, whether they can be read, a digest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from tracklearn.store.config import digest
from tracklearn.store.detect.detector import resolve
from tracklearn.store.detect.listed import FileDetector
from tracklearn.store.film.clocks import Start
from tracklearn.store.film.connection import Live
from tracklearn.store.film.frames import DEFAULT_FPS
from tracklearn.store.film.track import open_tracker
from tracklearn.store.ingest.jobs import Config, Job, jobs_of
from tracklearn.store.ingest.sources import Source, fixed_cameras
from tracklearn.types import Refusal


class Request:
    """Sources and settings as jobs; of a source only names, sizes and change times are read to make one.

    Args:
        sources, config, start, live: as for `ingest.ingest`.

    Attributes:
        config: the settings, with the detector that "auto" stands for where one is needed.
        chosen: which that is and why, a line for people; "" where nothing was to choose.
        jobs: one for each source, in order; a folder of recordings is one for each file.

    Raises:
        FileNotFoundError, ValueError: as `ingest`, as far as names tell.
    """

    def __init__(
        self,
        sources: Sequence[str | Path | Source],
        config: Config | None = None,
        *,
        start: Start | None = None,
        live: Live | None = None,
    ) -> None:
        asked = config or Config()
        self.jobs = tuple(jobs_of(sources, asked, start, live))
        self.config = self.jobs[0].config
        resolved = self.config.detector != asked.detector
        self.chosen = "detector {} ({})".format(*resolve(asked.detector)) if resolved else ""
        self._refused: list[str | None] | None = None

    @cached_property
    def camid(self) -> dict[str, int]:
        """The numbers that the sources themselves give to cameras."""
        return fixed_cameras([job.source for job in self.jobs])

    @cached_property
    def digest(self) -> str:
        """Digest of sources (content, change times, names) and settings: whether to ingest again.

        Of a camera it covers the address, as far as that may be shown, and the length of the recording.
        """
        return digest([[job.key for job in self.jobs], self.camid])

    @cached_property
    def part_keys(self) -> list[str]:
        """The key of each job's part: copies of one recording are told apart by their order."""
        seen = Counter[str]()
        keys = []
        for job in self.jobs:
            n = seen[job.key]
            seen[job.key] += 1
            keys.append(digest([job.key, n]) if n else job.key)
        return keys

    @property
    def n_cameras(self) -> int | None:
        """How many cameras the sources name; None where folders of crops may hold several."""
        if any(job.plan is not None for job in self.jobs):
            return None
        return len({job.source.camera for job in self.jobs})

    def check(self, *, device: str = "cpu", strict: bool = False) -> list[str | None]:
        """Refuse now what `ingest` would refuse before its work; done once.

        Opens every video, result file, detector and tracker, and reads nothing of it but the first frame;
        what is in storage is looked at by whoever fetches it.

        Returns:
            For every job why it cannot be read and will be left out, None where it can.

        Raises:
            FileNotFoundError, ValueError: as `ingest`, but for whether people are found.
        """
        if self._refused is None:
            self._refused = _check(self.jobs, device, strict)
        return self._refused


def _check(jobs: Sequence[Job], device: str, strict: bool) -> list[str | None]:
    """Open everything once, so that a mistake in the last source shows before hours of work on the first.

    Returns why each source cannot be read, None where it can.
    """
    refused: list[str | None] = []
    for job in jobs:
        why = job.unreadable()
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
        if isinstance(detector, FileDetector) and not job.source.address and not job.afar:
            with job.open_frames() as frames:
                detector.pair(frames, job.source.path)
    return refused
