"""Changes to several folders at once: all of them, or none, whenever the process is killed.

What is to be moved into place is written to a folder of its own, `.NAME.forget` beside the first of the
folders, and a marker is put beside each of the others. `intents.json` in that folder is the moment of
decision: before it is there nothing has happened, and the next to open one of the folders throws the
preparations away; from then on the next to open one carries out what is left to do. Every step may be
done twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tracklearn.store.files import beside, make_folder, remove_folder, sync_folder
from tracklearn.store.lock import InUseError, locked
from tracklearn.store.sealed import read_sealed, write_sealed
from tracklearn.store.sets import changes
from tracklearn.types import Refusal

_DECISION = "intents.json"
_MARKERS = "markers.json"  # the names of all markers, written before the first of them
_REMEDY = "forget again; where that is refused, remove the folder around this file"

_busy: set[Path] = set()  # preparations of this process


class Intents:
    """A change that is being prepared.

    Attributes:
        folder: where files are written that are to take others' places.
    """

    def __init__(self, folder: Path, markers: Sequence[Path]) -> None:
        self.folder = folder
        self._markers = list(markers)
        self._steps: list[list[str]] = []
        self._databases: list[dict[str, Any]] = []
        self._storages: list[dict[str, Any]] = []

    def room(self, name: str) -> Path:
        """A new folder for files to come."""
        made = self.folder / name
        make_folder(made)
        return made

    def move(self, path: Path, to: Path) -> None:
        """Let a file of the rooms take the place `to`."""
        self._steps.append(["move", self._name(path), self._name(to)])

    def remove(self, path: Path) -> None:
        """Let a file, or a folder and all in it, be gone."""
        self._steps.append(["remove", self._name(path)])

    def database(self, url: str, change: Mapping[str, Any]) -> None:
        """Let a change be made in a database, behind all others (`gallery.postgres.change`)."""
        self._databases.append({"url": url, "change": dict(change)})

    def storage(self, url: str, folder: Path, change: Mapping[str, Any]) -> None:
        """Let objects in storage follow a folder that changes here, last of all (`sets.changes.change`)."""
        self._storages.append({"url": url, "folder": self._name(folder), "change": dict(change)})

    def decide(self) -> None:
        """Carry all of it out; from here on it is carried out by whoever comes next, should this fail.

        Raises:
            OSError: the disk is full or failing.
        """
        for folder in [self.folder, *(p for p in self.folder.rglob("*") if p.is_dir())]:
            sync_folder(folder)
        markers = [self._name(marker) for marker in self._markers]
        write_sealed(self.folder / _MARKERS, {"markers": markers})
        for marker in self._markers:
            write_sealed(marker, {"forget": os.path.relpath(self.folder, marker.parent)})
        content = {"steps": self._steps, "markers": markers, "databases": self._databases}
        content |= {"storages": self._storages} if self._storages else {}
        write_sealed(self.folder / _DECISION, content)
        _carry_out(self.folder)

    def _name(self, path: Path) -> str:
        return os.path.relpath(os.path.realpath(path.parent) + os.sep + path.name, self.folder.parent)


@contextmanager
def intents(first: Path, others: Sequence[Path]) -> Iterator[Intents]:
    """A change of the folder `first` and of some others, to be prepared in the block and decided at its end.

    When the block ends with an error, nothing has happened.

    Raises:
        InUseError: another process changes one of them in this way.
    """
    settle(first)
    for other in others:
        settle(other)
    folder = _place(first)
    with locked(folder):
        _busy.add(folder)
        try:
            remove_folder(folder)
            make_folder(folder)
            made = Intents(folder, [_place(other) for other in others])
            try:
                yield made
                made.decide()
            except BaseException:
                if not (folder / _DECISION).is_file():
                    _undo(folder)
                raise
        finally:
            _busy.discard(folder)


def settle(path: Path) -> None:
    """Bring a change of this folder to its end, or take it back, if one was left half way.

    Raises:
        ValueError: another process is at it; a database or storage that it changes cannot be reached; or a
            set in storage has changed since: that one stays as it is, and all else is done.
    """
    marker = _place(path)
    if not marker.exists() or marker in _busy:
        return
    folder = marker
    if marker.is_file():
        told = read_sealed(marker, remedy=_REMEDY)
        folder = Path(os.path.normpath(marker.parent / str(told["forget"])))
        if folder in _busy:
            return
    try:
        with locked(folder):
            if (folder / _DECISION).is_file():
                _carry_out(folder)
            else:
                _undo(folder)
                _remove_markers([marker] if marker != folder else [])
    except InUseError:
        if (folder / _DECISION).is_file():
            raise Refusal(f"{path} is being changed by tracklearn forget: wait until it has ended") from None


def _place(path: Path) -> Path:
    """The folder or the marker that belongs to `path`."""
    return beside(Path(os.path.realpath(path)), before=".", after=".forget")


def _undo(folder: Path) -> None:
    """Throw preparations away, markers first: whoever finds one of these looks for the folder."""
    if (folder / _MARKERS).is_file():
        names = read_sealed(folder / _MARKERS, remedy=_REMEDY)["markers"]
        _remove_markers([Path(os.path.normpath(folder.parent / name)) for name in names])
    remove_folder(folder)


def _remove_markers(markers: Sequence[Path]) -> None:
    for marker in markers:
        for file in (marker, beside(marker, before=".", after=".tmp")):  # the other of one that was begun
            file.unlink(missing_ok=True)
        if marker.parent.is_dir():
            sync_folder(marker.parent)


def _carry_out(folder: Path) -> None:
    content = read_sealed(folder / _DECISION, remedy=_REMEDY)
    root = folder.parent
    touched: dict[Path, None] = {}
    for kind, *names in content["steps"]:
        paths = [Path(os.path.normpath(root / name)) for name in names]
        if kind == "move":
            if paths[0].exists():
                make_folder(paths[1].parent)
                paths[0].replace(paths[1])
        elif paths[0].is_dir() and not paths[0].is_symlink():
            remove_folder(paths[0])
        else:
            paths[0].unlink(missing_ok=True)
        touched[paths[-1].parent] = None
    for parent in touched:
        if parent.is_dir():
            sync_folder(parent)
    for entry in content["databases"]:
        from tracklearn.store.gallery.postgres import change

        change(entry["url"], entry["change"])
    overtaken = None
    for entry in content.get("storages", ()):
        try:
            changes.change(entry["url"], Path(os.path.normpath(root / entry["folder"])), entry["change"])
        except changes.OvertakenError as error:  # nor will it ever be done
            overtaken = error
    _remove_markers([Path(os.path.normpath(root / name)) for name in content["markers"]])
    # The decision goes last: until then all of it may be done again.
    for left in sorted(folder.iterdir()):
        if left.is_dir():
            remove_folder(left)
        elif left.name != _DECISION:
            left.unlink()
    (folder / _DECISION).unlink(missing_ok=True)
    folder.rmdir()
    sync_folder(root)
    if overtaken is not None:
        raise overtaken
