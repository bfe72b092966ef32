"""Who is who in a run's gallery: the table of identities is taken over where it is new."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tracklearn.store.gallery.open import gallery_of, is_url, open_gallery
from tracklearn.store.identities.folder import Identities
from tracklearn.store.identities.journal import Decision
from tracklearn.types import Refusal

if TYPE_CHECKING:
    from tracklearn.store.gallery.entries import Gallery
    from tracklearn.store.gallery.rows import People


def table_beside(run: Path, identities: str | Path | None = None) -> Identities | None:
    """The table of identities of a run: a folder that is named, else RUN/../identities; None where there is
    none.

    Raises:
        FileNotFoundError, ValueError: the folder that is named is none, or of another run.
    """
    if identities is not None:
        found = Identities(identities)
    else:
        try:
            found = Identities(run.resolve().parent / "identities")
        except (FileNotFoundError, Refusal):
            return None
    from tracklearn.store.runs import Run

    if found.manifest["run"] != Run(run).manifest["digest"]:
        if identities is not None:
            raise Refusal(f"{identities} was made with another run than {run}")
        return None
    return found


def current(run: str | Path, gallery: Gallery, identities: str | Path | None = None) -> People:
    """Who is who in a gallery; a table of identities that is another than the one taken over last is taken
    over.

    Names and steps of a review stay; what they decided is in a table that `tracklearn identities` made after
    them.

    Args:
        run: the run. gallery: its gallery, opened.
        identities: folder of the table, RUN/../identities by default.

    Raises:
        FileNotFoundError, ValueError: as `table_beside`.
    """
    table = table_beside(Path(run), identities)
    people = gallery.people
    if table is not None:
        source = str(table.manifest["files"].get("identities.parquet", ""))
        if people.adopted != source:
            people.adopt(table.rows, source=source)
    return people


def decided(run: str | Path) -> list[Decision]:
    """What the steps of a review in a run's gallery say; none where there is no gallery.

    Raises:
        ValueError: a database that holds the gallery cannot be reached.
    """
    where = gallery_of(run)
    if not is_url(where) and not Path(where).is_dir():
        return []
    try:
        gallery = open_gallery(where)
    except FileNotFoundError:
        return []
    with gallery:
        return gallery.people.decisions()
