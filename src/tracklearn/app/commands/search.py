"""Making a gallery and asking it: index, search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tracklearn.app.commands.bars import Bars
from tracklearn.app.commands.options import Device, Json, done


def index(
    run_path: Annotated[Path, typer.Argument(metavar="RUN", help="Run, written by train.")],
    tracklets: Annotated[Path, typer.Argument(metavar="SET", help="Tracklet set to make searchable.")],
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Replace a gallery that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Embed a tracklet set with a trained run, so that it can be searched."""
    from tracklearn.app.search import index

    with Bars() as bars:
        searcher = index.index(run_path, tracklets, device=device, resume=resume, progress=bars)
    result = {"gallery": str(searcher.path), "n_entries": len(searcher.gallery)}
    done(searcher.path, result, as_json, f"{result['n_entries']} tracklets indexed")


def search(
    run_path: Annotated[Path, typer.Argument(metavar="RUN", help="Run with a gallery, written by index.")],
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="Path of a person's image, or a tracklet id.")
    ],
    k: Annotated[int, typer.Option("-k", "--top", min=1, help="Number of results.")] = 10,
    sheet: Annotated[Path | None, typer.Option("--sheet", help="Contact sheet to write (PNG).")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Find a person: a table of the nearest tracklets, and a contact sheet."""
    from tracklearn.app.model.device import pick_device
    from tracklearn.app.search.searcher import Searcher

    searcher = Searcher(run_path, device=pick_device(device))
    found = searcher.search(query, k=k)
    path = found.save_sheet(sheet)
    done(path, {"sheet": str(path), "results": found.rows()}, as_json, found.table())
