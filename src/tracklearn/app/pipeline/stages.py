"""Which stages of a folder are done, so that none is done twice and no finished work is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tracklearn.store.files import (
    DamagedError,
    beside,
    hash_file,
    make_folder,
    move,
    remove_folder,
    sync_folder,
)
from tracklearn.store.sealed import read_sealed, write_sealed

Entry = dict[str, Any]

_REMEDY = "what is there is looked at again"


class Stages:
    """The stages of a folder, with the digest of what went into each (`stages.json`).

    An entry holds `digest`, `done`, `seconds`; of a product that is a file its `sha256`; and as `old` the
    entry of the finished product of other inputs that lies aside as NAME.old. Every step is noted before it
    is taken, so that a call killed anywhere is understood by the next.

    The folder is made by the first stage that runs, not before.

    Args:
        folder: where the products are.
        tell: told when `stages.json` is damaged: then every stage looks at its product itself.
        remake: rather let such a stage make its product anew.
    """

    def __init__(
        self, folder: Path, *, tell: Callable[[str], None] | None = None, remake: bool = False
    ) -> None:
        self.folder, self.remake = folder, remake
        self.path = folder / "stages.json"
        self._tell = tell
        self._running: Callable[[], None] | None = None  # notes the seconds of the stage that runs

    @property
    def entries(self) -> dict[str, Entry]:
        """The entry of each stage, as the file says now (the demo and `run` share one file)."""
        if not self.path.is_file():
            return {}
        try:
            found = read_sealed(self.path, remedy=_REMEDY)
            if bad := [name for name, entry in found.items() if not _is_entry(entry)]:
                raise DamagedError(
                    f"{self.path} is damaged ({bad[0]!r} is no stage): what is there is looked at again"
                )
        except DamagedError as error:
            if self._tell is not None:
                self._tell(str(error))
            return {}
        return dict(found)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds each finished stage took, those before a stop included."""
        return {name: entry["seconds"] for name, entry in self.entries.items() if entry["done"]}

    def damages(self) -> list[str]:
        """Products that are files and are not what their stage wrote, one line each."""
        entries = self.entries.values()
        sums = {entry["file"]: entry["sha256"] for entry in entries if entry["done"] and "file" in entry}
        return [
            f"{self.folder / name} is damaged (its content is not what was written)"
            for name, sha256 in sums.items()
            if not (self.folder / name).is_file() or hash_file(self.folder / name) != sha256
        ]

    @contextmanager
    def stage(self, name: str, digest: str, product: Path) -> Iterator[bool]:
        """Whether the stage must run; it is noted as done when the context ends well.

        An unfinished product of the same inputs is left for the stage to go on with. A finished product of
        other inputs is set aside. It is removed once the new one is there, and put back when the stage fails
        before leaving anything or its inputs are asked for again.
        """
        aside = beside(product, after=".old")
        entry = self._settled(name, product, aside)
        if entry and entry.get("old", {}).get("digest") == digest:
            _remove(product)
            _remove(beside(product, after=".partial"))
            move(aside, product)
            entry = self._note(name, entry["old"])
        if entry and entry["digest"] == digest and entry["done"] and _is_whole(product, entry):
            yield False
            return
        spent, old = 0.0, None
        if entry is None and self.remake:
            _remove(product)
            _remove(beside(product, after=".partial"))
        if entry is not None:
            old = entry.get("old")
            if entry["digest"] == digest:
                spent = 0.0 if entry["done"] else float(entry["seconds"])
            elif entry["done"] and product.exists():
                old = entry
            else:
                _remove(product)
        running: Entry = {"digest": digest, "done": False, "seconds": spent, **({"old": old} if old else {})}
        self._note(name, running)
        if old is entry is not None:
            move(product, aside)
        began = time.perf_counter()

        def seconds() -> float:
            return round(spent + time.perf_counter() - began, 3)

        def note() -> None:
            self._note(name, {**running, "seconds": seconds()})

        self._running = note
        try:
            yield True
        except BaseException:
            if old is not None and not product.exists():
                move(aside, product)
                self._note(name, old)
            else:
                note()
            self._leave_nothing_empty()
            raise
        finally:
            self._running = None
        self._note(name, {"digest": digest, "done": True, "seconds": seconds(), **self._sum(product)})
        _remove(aside)

    def note_time(self) -> None:
        """Note how long the stage that runs has taken by now: a call that is killed later loses no more."""
        if self._running is not None:
            self._running()

    def _settled(self, name: str, product: Path, aside: Path) -> Entry | None:
        """A stage's entry, after what a killed call left half way has been brought to its end."""
        entry = self.entries.get(name)
        if entry is None:
            return None
        if entry["done"]:
            _remove(aside)  # killed after the new product was noted, before the old one was removed
        elif "old" in entry and not aside.exists():
            # Killed before the product was set aside, or after it was put back: it is the old one.
            entry = self._note(name, entry["old"] if product.exists() else {**entry, "old": None})
        return entry

    def _sum(self, product: Path) -> Entry:
        if not product.is_file():
            return {}
        return {"file": product.relative_to(self.folder).as_posix(), "sha256": hash_file(product)}

    def forget(self, name: str) -> None:
        """Let a stage run again though its inputs are unchanged."""
        self._note(name, None)

    def _note(self, name: str, entry: Entry | None) -> Entry | None:
        """Write a stage's entry, without what it holds of None; the entry."""
        make_folder(self.folder)
        entries = {key: value for key, value in self.entries.items() if key != name}
        if entry is not None:
            entry = {key: value for key, value in entry.items() if value is not None}
            entries[name] = entry
        write_sealed(self.path, entries)
        return entry

    def _leave_nothing_empty(self) -> None:
        """A call that was refused before it made anything leaves no folder in the way of the next."""
        if [path.name for path in self.folder.iterdir()] == [self.path.name]:
            self.path.unlink()
            self.folder.rmdir()


def _is_entry(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("digest"), str)
        and isinstance(value.get("done"), bool)
        and isinstance(value.get("seconds"), int | float)
    )


def _is_whole(product: Path, entry: Entry) -> bool:
    """Whether a product is there, and, where it is a file, as its stage wrote it."""
    if not product.exists():
        return False
    return "sha256" not in entry or hash_file(product) == entry["sha256"]


def _remove(path: Path) -> None:
    if path.is_dir():
        remove_folder(path)
    elif path.exists():
        path.unlink()
        sync_folder(path.parent)
