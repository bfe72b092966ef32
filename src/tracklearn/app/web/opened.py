"""A run as a server has it: gallery and people, opened once, shared by all requests and closed to forget."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn.core.shown import called
from tracklearn.store.runs import Run
from tracklearn.types import Array, Refusal

if TYPE_CHECKING:
    from tracklearn.app.search.searcher import Searcher
    from tracklearn.store.gallery.entries import PartKey
    from tracklearn.store.gallery.rows import People


class NotThere(Refusal):
    """What was asked for by number or name is not there (any more)."""


@dataclass(frozen=True, eq=False)
class Opened:
    """A gallery and its people at one moment; positions are those of `entries`.

    Args:
        searcher: the gallery with the network that made it.
        people: who is who, with what a person said.
        entries: all parts.
        person: (t,) int64 number of each part, −1 for nobody.
        probability: (t,) float64 that a part and the rest of its person are one; nan where nothing was
            compared.
        how: for each part how it was found.
        names: of people who have one.
        version: changes with every change of people.
    """

    searcher: Searcher
    people: People
    entries: Any
    person: Array
    probability: Array
    how: Sequence[str]
    names: dict[int, str]
    version: str

    @property
    def gallery(self) -> Any:
        """What is searched."""
        return self.searcher.gallery

    @property
    def keys(self) -> Sequence[PartKey]:
        """What each part is called for good."""
        return self.entries.keys()

    @cached_property
    def refs(self) -> list[str]:
        """What each part is called in addresses: its set's digest, its track, its first and last frame."""
        return [f"{k.set[:8]}-{k.track}-{k.first}-{k.last}" for k in self.keys]

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {ref: i for i, ref in enumerate(self.refs)}

    @cached_property
    def _at_row(self) -> dict[int, int]:
        return {int(row): i for i, row in enumerate(self.entries.row)}

    @cached_property
    def members(self) -> dict[int, Array]:
        """Positions of the parts of each person, by number."""
        known = np.flatnonzero(self.person >= 0)
        order = known[np.argsort(self.person[known], kind="stable")]
        number, first = np.unique(self.person[order], return_index=True)
        return dict(zip(number.tolist(), np.split(order, first[1:]), strict=True)) if len(order) else {}

    def position(self, ref: str) -> int:
        """Where the part of that address is.

        Raises:
            NotThere: the gallery has none.
        """
        if ref not in self._positions:
            raise NotThere(f"the gallery has no part {ref[:60]!r}: it may have been cut or forgotten; reload")
        return self._positions[ref]

    def at_row(self, row: int) -> int:
        """Where a row of the gallery is."""
        return self._at_row[int(row)]

    def of_person(self, number: int) -> Array:
        """Positions of a person's parts.

        Raises:
            NotThere: nobody has that number.
        """
        if number not in self.members:
            raise NotThere(f"there is no person {number} (any more)")
        return self.members[number]

    def name(self, position: int) -> str:
        """What people call a part: 12.2; 2:12.2 where there are several sets."""
        e = self.entries
        name = called(int(e.source[position]), int(e.part[position]), int(e.n_parts[position]))
        return name if len(self.gallery.sets) == 1 else f"{int(e.set[position]) + 1}:{name}"

    def called(self, number: int) -> str:
        """What a person is called."""
        return self.names.get(number) or f"person {number}"

    def longest(self, positions: Array) -> int:
        """The part with the most pictures; of several the first."""
        return int(positions[np.argmax(self.entries.n_crops[positions])])


class Served:
    """What one server shows.

    Args:
        run: run folder, finished or not.
        identities: folder of identities; that beside the run where it is not given.
        gallery: path or URL; the run's own where it is not given.
        device: where pictures are embedded.
    """

    def __init__(
        self,
        run: str | Path,
        *,
        identities: str | Path | None = None,
        gallery: str | None = None,
        device: str = "cpu",
    ) -> None:
        self.path, self.device, self.where = Path(run), device, gallery
        self.identities = Path(identities) if identities else self.path.parent / "identities"
        self.deciding = threading.RLock()  # who computes a step from what holds, and says it, is alone
        self._opening = threading.Lock()
        self._gate = _Gate()
        self._searcher: Searcher | None = None
        self._people: tuple[People, float] | None = None
        self._now: Opened | None = None

    @property
    def title(self) -> str:
        """What the run is called: by its folder and the one around it, since many are called run."""
        path = self.path.resolve()
        return f"{path.parent.name}/{path.name}"

    def run(self) -> Run:
        """The run as it is on disk now.

        Raises:
            FileNotFoundError, ValueError: as `Run`.
        """
        return Run(self.path)

    @contextmanager
    def opened(self) -> Iterator[Opened]:
        """The gallery and its people as they are now; nobody is forgotten meanwhile.

        Raises:
            FileNotFoundError: there is no gallery yet; the message says how to make one.
            ValueError: it cannot be used.
        """
        with self._gate.shared():
            yield self._as_now()

    @contextmanager
    def opened_if_there(self) -> Iterator[Opened | None]:
        """As `opened`; None where there is no gallery that can be used."""
        with self._gate.shared():
            try:
                now = self._as_now()
            except (Refusal, OSError):
                now = None
            yield now

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Nothing of the run is open meanwhile, and nobody opens it."""
        with self._gate.alone():
            self.close()
            yield

    def close(self) -> None:
        """Let go of all files."""
        with self._opening:
            if self._searcher is not None:
                self._searcher.gallery.close()
            self._searcher = self._people = self._now = None

    def _as_now(self) -> Opened:
        from tracklearn.app.people import current
        from tracklearn.app.search.searcher import Searcher

        with self._opening:
            if self._searcher is None or self._searcher.gallery.stale:
                if self._searcher is not None:
                    self._searcher.gallery.close()
                self._now = self._people = None
                self._searcher = Searcher(self.path, device=self.device, gallery=self.where)
            changed = _changed(self.identities / "manifest.json")
            if self._people is None or self._people[1] != changed:
                table = self.identities if changed else None
                self._people = current(self.path, self._searcher.gallery, table), changed
                self._now = None
            people = self._people[0]
            version = people.version
            if self._now is None or self._now.version != version:
                entries = self._searcher.gallery.entries
                found = people.assigned(entries)
                self._now = Opened(
                    self._searcher,
                    people,
                    entries,
                    found.person,
                    found.probability,
                    found.how,
                    people.names(),
                    version,
                )
            return self._now


def _changed(path: Path) -> float:
    """When a file was changed last; 0 where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


class _Gate:
    """Many may be inside at once, or one alone."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._inside = 0
        self._alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._turn:
            self._turn.wait_for(lambda: not self._alone)
            self._inside += 1
        try:
            yield
        finally:
            with self._turn:
                self._inside -= 1
                self._turn.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._turn:
            self._turn.wait_for(lambda: not self._alone)
            self._alone = True
            self._turn.wait_for(lambda: not self._inside)
        try:
            yield
        finally:
            with self._turn:
                self._alone = False
                self._turn.notify_all()
