"""The reading of one source, or of a piece of one, as a task that any worker can do."""

from __future__ import annotations

import socket
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tracklearn
from tracklearn.store.files import remove_folder
from tracklearn.store.film.frames import LargerPicture
from tracklearn.store.film.numbers import Unnumbered
from tracklearn.store.ingest.jobs import Job
from tracklearn.store.ingest.pieces import Piece
from tracklearn.store.ingest.reader import Reader
from tracklearn.store.sets.setwriter import Place
from tracklearn.store.workers.engine import require_version
from tracklearn.types import Progress, Refusal


@dataclass(frozen=True)
class Work:
    """One source, to be read into its part.

    Args:
        job: the source.
        place: of its part.
        out: the set that is to be; None in storage.
        device: torch device of a hub: detector.
        apart: it is done in another process than the one that asks, and may be begun twice.
        version: of the program that asks.
        note: what the manifest should say of it beyond what is found; "" for nothing.
        strict: a film in storage that turns out to be none ends all, instead of being left out.
    """

    job: Job
    place: Place
    out: Path | None
    device: str
    apart: bool
    version: str = tracklearn.__version__
    note: str = ""
    strict: bool = False

    @property
    def size(self) -> int:
        """Bytes of its files, as far as they are read; folders count nothing."""
        if self.job.afar:
            return sum(info.size for info in self.job.objects)
        return sum(file.stat().st_size for file in self.job.files if file.is_file())

    def run(self, progress: Progress | None) -> str:
        """Write the part, whole or not at all.

        Returns:
            Why a piece cannot be read as one; the film has to be read whole. Else "".

        Raises:
            ValueError: the worker has another version of the program, or does not see the set's folder.
            OSError: the disk is full or failing.
        """
        require_version(self.version)
        folder = self.place.folder.parent
        if self.place.stored is None and not folder.is_dir():
            raise Refusal(
                f"{folder} is not there on {socket.gethostname()}: --out must lie in a folder that all "
                "machines see under the same name, or in storage (s3://…)"
            )
        with self._film() as job:
            part = self.place.open(apart=self.apart)
            try:
                why = job.unreadable() if job.fetched else None
                if why is not None and self.strict:
                    raise Refusal(f"{job.source}: {job.named(why)}")
                if why is not None:
                    part.finish(job.unread(self.out, why))
                else:
                    part.finish(self._read(Reader(job, part, self.out, self.device, progress)))
                return ""
            except BaseException:
                part.abandon()
                if self.apart:
                    remove_folder(part.folder)
                raise

    def _film(self) -> AbstractContextManager[Job]:
        """The job, with its film on this machine."""
        return self.job.here()

    def __str__(self) -> str:
        return "it"

    def _read(self, reader: Reader) -> dict[str, Any]:
        """Have a reader write the part; the record of it."""
        reader.warnings += filter(None, [self.note])
        return reader.read()


@dataclass(frozen=True, kw_only=True)
class PieceWork(Work):
    """A piece of a source; its place is that of a part that is none of the set."""

    piece: Piece

    def run(self, progress: Progress | None) -> str:
        """As of any part, but that what only pieces cannot bear is returned."""
        try:
            return super().run(progress)
        except LargerPicture:
            return "its picture grows"
        except Unnumbered as error:
            return str(error)

    @property
    def size(self) -> int:
        """Bytes, about."""
        return super().size // self.piece.n

    def __str__(self) -> str:
        return f"{self.piece} of it"

    def _read(self, reader: Reader) -> dict[str, Any]:
        return reader.read_piece(self.piece)


@dataclass(frozen=True, kw_only=True)
class JoinWork(Work):
    """The pieces of a source, all of which have been read, to be joined.

    Args:
        pieces: in order. places: where they were read to.
    """

    pieces: tuple[Piece, ...]
    places: tuple[Place, ...]

    def _film(self) -> AbstractContextManager[Job]:
        return nullcontext(self.job)  # of which nothing more is read

    def _read(self, reader: Reader) -> dict[str, Any]:
        with ExitStack() as stack:
            folders = [stack.enter_context(place.whole()) for place in self.places]
            return reader.join(self.pieces, folders)
