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

Gallery = Annotated[
    str | None,
    typer.Option("--gallery", help="Database that holds the gallery: postgresql://HOST/DB, #NAME behind it."),
]


def index(
    run_path: Annotated[Path, typer.Argument(metavar="RUN", help="Run, written by train.")],
    tracklets: Annotated[
        list[Path], typer.Argument(metavar="SET...", help="Tracklet sets to make searchable.")
    ],
    gallery: Gallery = None,
    add: Annotated[bool, typer.Option("--add", help="Take the sets into the gallery that is there.")] = False,
    device: Device = "auto",
    workers: Workers = None,
    on: On = None,
    resume: Annotated[bool, typer.Option("--resume", help="Replace a gallery that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Embed the parts of the tracks of tracklet sets with a trained run, so that they can be searched."""
    from tracklearn.app.pipeline.estimated import count
    from tracklearn.app.search import index

    with Bars() as bars:
        searcher = index.index(
            run_path,
            tracklets,
            gallery=gallery,
            add=add,
            device=device,
            workers=workers,
            on=on,
            resume=resume,
            progress=bars,
        )
    entries = searcher.gallery.entries
    n_parts, n_tracks, n_sets = len(entries), len(set(entries.group.tolist())), len(searcher.gallery.sets)
    result = {"gallery": str(searcher.path), "n_entries": n_parts, "n_tracks": n_tracks, "n_sets": n_sets}
    text = f"{count(n_tracks, 'track')} indexed, {count(n_parts, 'part')}"
    if n_sets > 1:
        text += f", {n_sets} sets"
    recall = index.recall_of(searcher)
    if recall is not None:
        result["recall"] = vars(recall)
        text += f"\n{recall}"
    searcher.gallery.close()
    done(Path(str(searcher.path)), result, as_json, text)


def search(
    run_path: Annotated[Path, typer.Argument(metavar="RUN", help="Run with a gallery, written by index.")],
    query: Annotated[
        str,
        typer.Argument(
            metavar="QUERY",
            help="Path of a person's image, or the number of a track (12) or a part (12.2; of several "
            "sets 2:12.2).",
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
    identity: Annotated[
        int | None, typer.Option("--identity", help="Only results taken for this person of the identities.")
    ] = None,
    min_quality: Annotated[
        float | None, typer.Option("--min-quality", help="Least mean detection score of a part, 0-1.")
    ] = None,
    gallery: Gallery = None,
    sheet: Annotated[Path | None, typer.Option("--sheet", help="Contact sheet to write (PNG).")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Find a person: a table of the nearest tracks, and a contact sheet."""
    from tracklearn.app.model.device import pick_device
    from tracklearn.app.search.searcher import Searcher

    searcher = Searcher(run_path, device=pick_device(device), gallery=gallery)
    if identity is not None:
        from tracklearn.app.people import current

        current(run_path, searcher.gallery)
    found = searcher.search(
        query,
        k=k,
        camera=camera,
        since=clock_time(since),
        until=clock_time(until),
        identity=identity,
        min_quality=min_quality,
        parts=parts,
    )
    path = found.save_sheet(sheet)
    if found.unreadable:
        which = ", ".join(found.unreadable)
        print(f"left out: the picture of track {which}, which cannot be read", file=sys.stderr)
    searcher.gallery.close()
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
