"""Whether what was written is still what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tracklearn.app.commands.options import Json, say, say_json


def check(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Tracklet set, run, gallery, or a folder that holds them.")
    ],
    as_json: Json = False,
) -> None:
    """Compare every file of a folder with the sum that was taken when it was written."""
    from tracklearn.app import check as app
    from tracklearn.store.objects import showable

    found = app.check(path)
    if as_json:
        say_json({"path": showable(str(path)), "checked": [each.to_dict() for each in found]})
    else:
        say(app.table(found))
    if any(each.damages for each in found):
        raise typer.Exit(2)
