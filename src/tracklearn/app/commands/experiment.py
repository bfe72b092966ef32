"""The papers' experiments: a grid of trainings, and its table with published figures beside the measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tracklearn.app.commands.bars import Bars, round_line
from tracklearn.app.commands.options import Device, Json, Resume, say, say_json
from tracklearn.types import Refusal


def experiment(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[FILE.toml|NAME]", help="Grid, or the name of one that is shipped."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for everything; the grid's name by default.")
    ] = None,
    root: Annotated[
        list[str] | None,
        typer.Option("--root", metavar="NAME=DIR", help="Folder of a benchmark; may be repeated."),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            metavar="NAME=FILE",
            help="File of weights that a grid has a name for; may be repeated.",
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the grids that are shipped.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be run, and what is missing.")
    ] = False,
    device: Device = "auto",
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Run a grid of trainings and print its table, published figures beside the measured."""
    from tracklearn.app.experiments import files
    from tracklearn.app.experiments import run as app

    if name is None or list_:
        found = app.listing()
        say_json({"experiments": found}) if as_json else say(app.listed(found))
        return
    path = files.find(name)
    grid = files.read(path)
    out = out or Path(path.stem)
    roots = _named(root or [], "--root", "NAME=DIR, for example mars=/data/MARS")
    given = _named(weights or [], "--weights", "NAME=FILE, for example msmt17=osnet_x0_25.pth")
    if dry_run:
        lines = app.outline(grid, out, roots, given)
        say_json({"outline": lines}) if as_json else say("\n".join(lines))
        return
    with Bars() as bars:
        result = app.run(
            grid,
            out,
            roots=roots,
            weights=given,
            resume=resume,
            device=device,
            progress=bars,
            on_round=round_line(bars),
            tell=bars.note,
        )
    say_json(result) if as_json else say(f"{result['table']}\n{out / 'table.md'}")
    if result["failed"]:
        raise typer.Exit(2)


def _named(texts: list[str], option: str, form: str) -> dict[str, Path]:
    found = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise Refusal(f"{option} {text!r} is not of the form {form}")
        found[name] = Path(path)
    return found
