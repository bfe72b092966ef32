"""Making a gallery and asking it: index, search."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from tracklearn.app.commands.bars import Bars
from tracklearn.app.commands.options import Device, Json, On, Workers, done
from tracklearn.types import Refusal


def index(
    run_path: Annotated[Path, typer.Argument(metavar="RUN", help="Run, written by train.")],
    tracklets: Annotated[Path, typer.Argument(metavar="SET", help="Tracklet set to make searchable.")],
    device: Device = "auto",
    workers: Workers = None,
    on: On = None,
    resume: Annotated[bool, typer.Option("--resume", help="Replace a gallery that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Embed the parts of a tracklet set's tracks with a trained run, so that they can be searched."""
    from tracklearn.app.pipeline.estimated import count
    from tracklearn.app.search import index

    with Bars() as bars:
        searcher = index.index(
            run_path, tracklets, device=device, workers=workers, on=on, resume=resume, progress=bars
        )
    n_parts, n_tracks = len(searcher.gallery), len(set(searcher.gallery.entries.source.tolist()))
    result = {"gallery": str(searcher.path), "n_entries": n_parts, "n_tracks": n_tracks}
    text = f"{count(n_tracks, 'track')} indexed, {count(n_parts, 'part')}"
    done(searcher.path, result, as_json, text)


def search(
    run_path: Annotated[Path, typer.Argument(metavar="RUN", help="Run with a gallery, written by index.")],
    query: Annotated[
        str,
        typer.Argument(
            metavar="QUERY", help="Path of a person's image, or the number of a track (12) or a part (12.2)."
        ),
    ],
    k: Annotated[int, typer.Option("-k", "--top", min=1, help="Number of tracks, or of parts.")] = 10,
    parts: Annotated[
        bool, typer.Option("--parts", help="All parts of a track, not its nearest alone.")
    ] = False,
    camera: Annotated[str | None, typer.Option("--camera", help="Only results of this camera.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Only results in view from then on: H:MM:SS, or seconds.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", help="Only results in view until then.")] = None,
    sheet: Annotated[Path | None, typer.Option("--sheet", help="Contact sheet to write (PNG).")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Find a person: a table of the nearest tracks, and a contact sheet."""
    from tracklearn.app.model.device import pick_device
    from tracklearn.app.search.searcher import Searcher

    searcher = Searcher(run_path, device=pick_device(device))
    found = searcher.search(
        query, k=k, camera=camera, since=clock_time(since), until=clock_time(until), parts=parts
    )
    path = found.save_sheet(sheet)
    if found.unreadable:
        which = ", ".join(found.unreadable)
        print(f"left out: the picture of track {which}, which cannot be read", file=sys.stderr)
    result = {"sheet": str(path), "results": found.rows(), "unreadable": found.unreadable}
    done(path, result, as_json, found.table())


def clock_time(text: str | None) -> float | None:
    """Seconds of a time on a clock that began with the film, 1:02:03.5, 2:03 or 63.

    Raises:
        Refusal: it is no time.
    """
    if text is None:
        return None
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d+)?", text):
        raise Refusal(f"{text!r} is no time: expected H:MM:SS, MM:SS or seconds")
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds
