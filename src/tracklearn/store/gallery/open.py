"""A gallery by its place: a folder, or the URL of a database; and where a run's gallery is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracklearn.store.files import DamagedError, sync_folder
from tracklearn.store.gallery import folder
from tracklearn.store.gallery.entries import Content
from tracklearn.store.sealed import read_sealed, write_sealed

if TYPE_CHECKING:
    from tracklearn.store.gallery.postgres import PostgresGallery

NOTE = "gallery.json"  # of a run whose gallery is not in its folder
_REMEDY = "index the run again (tracklearn index RUN SET --gallery URL --resume)"


def is_url(where: str | Path) -> bool:
    """Whether a gallery's place is a database.

    >>> is_url("postgresql://host/db"), is_url("run/gallery")
    (True, False)
    """
    return str(where).startswith(("postgresql://", "postgres://"))


def open_gallery(where: str | Path) -> folder.FolderGallery | PostgresGallery:
    """The gallery in a folder or a database.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, of another version, or the database cannot be reached.
    """
    if is_url(where):
        from tracklearn.store.gallery.postgres import PostgresGallery

        return PostgresGallery(str(where))
    return folder.FolderGallery(where)


def create_gallery(
    where: str | Path, contents: Sequence[Content], *, origin: Mapping[str, Any], replace: bool = False
) -> folder.FolderGallery | PostgresGallery:
    """A new gallery of some sets; complete or not there at all.

    Args:
        where: folder or URL.
        contents: what is indexed of each set.
        origin: JSON values about what made it.
        replace: put it in the place of an existing one, whose people and decisions stay; else that is
            refused.

    Raises:
        FileExistsError: there is one and `replace` is off.
        ValueError: features that do not fit, or a database that cannot be reached.
    """
    if is_url(where):
        from tracklearn.store.gallery import postgres

        return postgres.create(str(where), contents, origin=origin, replace=replace)
    return folder.FolderGallery(folder.create(where, contents, origin=origin, replace=replace))


def gallery_of(run: str | Path) -> str:
    """Where a run's gallery is: the URL that `index --gallery` noted, else the folder RUN/gallery, if there
    or not.

    Raises:
        ValueError: the note is damaged.
    """
    note = Path(run) / NOTE
    url = _noted(note)["url"]
    return str(Path(run) / "gallery") if url is None else str(url)


def databases_of(run: str | Path) -> list[str]:
    """Every database that this run's features were ever sent to, whether a gallery came of it or not.

    Raises:
        ValueError: the note is damaged.
    """
    noted = _noted(Path(run) / NOTE)
    return list(dict.fromkeys([*([] if noted["url"] is None else [noted["url"]]), *noted["databases"]]))


def note_gallery(run: str | Path, where: str | Path) -> None:
    """Remember where a run's gallery is; passwords are not kept."""
    _note(Path(run) / NOTE, where, holds=True)


def note_database(run: str | Path, url: str) -> None:
    """Remember a database before features are sent there; where the run's gallery is stays as it is."""
    _note(Path(run) / NOTE, url, holds=False)


def _noted(note: Path) -> dict[str, Any]:
    found = read_sealed(note, remedy=_REMEDY) if note.is_file() else {}
    return {"url": found.get("url"), "databases": list(found.get("databases", ()))}


def _note(note: Path, where: str | Path, *, holds: bool) -> None:
    try:
        before, databases = _noted(note), databases_of(note.parent)
    except DamagedError:  # to be written anew, as its remedy says
        before, databases = {}, []
    now: str | None = None
    if is_url(where):
        from tracklearn.store.gallery.database import without_password

        now = without_password(str(where))
        databases = list(dict.fromkeys([*databases, now]))
    after = {"url": now if holds else before.get("url"), "databases": databases}
    if after == {"url": None, "databases": []}:
        if note.is_file():
            note.unlink()
            sync_folder(note.parent)
    elif after != before:
        write_sealed(note, after)
