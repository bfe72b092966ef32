"""Where a long film is cut into pieces that are read one by one; `seams.py` joins what was read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from tracklearn.store.film.numbers import Stretch, Unnumbered
from tracklearn.store.film.video_file import VideoFile
from tracklearn.store.ingest.jobs import Job
from tracklearn.store.ingest.seams import AROUND
from tracklearn.types import Progress


@dataclass(frozen=True, eq=False)
class Piece:
    """One of the pieces of a film.

    Args:
        number, n: which of how many, from 0.
        begin: seconds at which its own frames begin.
        stretch: what is read for it, and which of that is its own.
    """

    number: int
    n: int
    begin: float
    stretch: Stretch

    @property
    def own(self) -> tuple[int, int]:
        """Its own frames: the first, and the one after the last."""
        return self.stretch.own

    def __str__(self) -> str:
        return f"piece {self.number + 1} of {self.n}"


@dataclass(frozen=True)
class Pieces:
    """What a film is cut into.

    Args:
        pieces: in order; none where it is read whole.
        why: it is read whole although it is longer; "" where it is not.
    """

    pieces: tuple[Piece, ...] = ()
    why: str = ""


def may_be_cut(job: Job) -> bool:
    """Whether a source is read in pieces where it is long: a film in a file that a detector searches.

    Boxes that somebody else found are read along with their film as a whole.
    """
    source = job.source
    searched = source.kind == "video" and not source.address and not job.detector.startswith("file:")
    return job.config.piece_minutes is not None and searched and (job.afar or source.path.is_file())


@dataclass(frozen=True)
class Cut:
    """A task: find the pieces of a film. Its packets are read and nothing is decoded, see `film/numbers.py`.

    Args:
        job: of a source that `may_be_cut`.
    """

    job: Job

    def run(self, progress: Progress | None) -> Pieces:
        """The pieces: as few as may be, all of one length, none longer than the settings say."""
        config = self.job.config
        longest = 60 * (config.piece_minutes or math.inf)
        with self.job.here() as job:
            if job.fetched and job.unreadable() is not None:
                return Pieces()  # whoever reads it says so
            return self._cut(job, longest)

    def _cut(self, job: Job, longest: float) -> Pieces:
        with job.open_frames() as frames:
            info = frames.info
            if info.n_frames is not None and info.n_frames / info.fps <= longest:
                return Pieces()
            try:
                if not isinstance(frames, VideoFile):
                    raise Unnumbered("it is no video file")
                numbers = frames.numbers()
            except Unnumbered as error:
                return Pieces(why=str(error))
        length = float(numbers.stamp[-1] - numbers.stamp[0]) + 1 / info.fps
        n = math.ceil(length / longest)
        seams = sorted({numbers.at(i * length / n) for i in range(n)} | {len(numbers.stamp)})
        if len(seams) <= 2:
            return Pieces()
        stretches = [
            numbers.stretch(own, before=job.config.piece_overlap, after=AROUND) for own in pairwise(seams)
        ]
        return Pieces(
            tuple(
                Piece(i, len(stretches), float(numbers.stamp[s.own[0]]) - s.zero, s)
                for i, s in enumerate(stretches)
            )
        )
