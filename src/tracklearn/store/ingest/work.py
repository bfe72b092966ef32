"""The reading of one source as a task that any worker can do."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

import tracklearn
from tracklearn.store.files import remove_folder
from tracklearn.store.ingest.jobs import Job
from tracklearn.store.ingest.reader import Reader
from tracklearn.store.sets.setwriter import Place
from tracklearn.types import Progress, Refusal


@dataclass(frozen=True)
class Work:
    """One source, to be read into its part.

    Args:
        job: the source.
        place: of its part.
        out: the set that is to be.
        device: torch device of a hub: detector.
        apart: it is done in another process than the one that asks, and may be begun twice.
        version: of the program that asks.
    """

    job: Job
    place: Place
    out: Path
    device: str
    apart: bool
    version: str = tracklearn.__version__

    def run(self, progress: Progress | None) -> None:
        """Write the part, whole or not at all.

        Raises:
            ValueError: the worker has another version of the program, or does not see the set's folder.
            OSError: the disk is full or failing.
        """
        folder = self.place.folder.parent
        if self.version != tracklearn.__version__:
            here = f"{socket.gethostname()} has tracklearn {tracklearn.__version__}"
            raise Refusal(f"{here}, and what asks it is {self.version}: install the same version everywhere")
        if not folder.is_dir():
            raise Refusal(
                f"{folder} is not there on {socket.gethostname()}: --out must lie in a folder that all "
                "machines see under the same name"
            )
        part = self.place.open(apart=self.apart)
        try:
            part.finish(Reader(self.job, part, self.out, self.device, progress).read())
        except BaseException:
            part.abandon()
            if self.apart:
                remove_folder(part.folder)
            raise
