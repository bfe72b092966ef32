"""Benchmark data sets: what there is, what to put where, what a folder lacks, its training part as a set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tracklearn.app.commands.bars import Bars
from tracklearn.app.commands.options import Json, done, say, say_json
from tracklearn.types import Refusal


def datasets(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Data set; without one all are listed.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option("--root", help="Folder that holds the data set; of folder, also a table.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write the training part as a tracklet set; images stay in place."),
    ] = None,
    split: Annotated[int | None, typer.Option("--split", min=0, help="Which split, from 0.")] = None,
    splits: Annotated[Path | None, typer.Option("--splits", help="File of splits (.json or .mat).")] = None,
    check: Annotated[
        str,
        typer.Option(
            "--check", help="names (are the images there?), images (decode them all), none (look for none)."
        ),
    ] = "names",
    singles: Annotated[
        bool, typer.Option("--singles", help="Every image a tracklet of its own: labels form none.")
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Take what is there of an incomplete data set.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the benchmark data sets, check a folder, or turn a training part into a tracklet set."""
    from tracklearn.app.judge import datasets as app
    from tracklearn.store.benchmarks import DATASETS, find

    if root is None:
        for option, value in (("--out", out), ("--split", split), ("--splits", splits)):
            if value is not None:
                raise Refusal(f"{option} needs --root: the folder that holds the data set")
        chosen = [find(name)] if name is not None else list(DATASETS.values())
        if as_json:
            entries = [{k: v for k, v in vars(dataset).items() if k != "reader"} for dataset in chosen]
            say_json({"datasets": entries})
        else:
            say("\n\n".join(app.describe(dataset) for dataset in chosen))
        return
    if name is None:
        raise Refusal(f"--root needs the name of a data set: {', '.join(DATASETS)}")
    with Bars() as bars:
        result = app.prepare(
            name,
            root,
            out=out,
            split=split,
            splits=splits,
            check=check,
            singles=singles,
            partial=partial,
            progress=bars,
            tell=bars.note if as_json or out is not None else print,
        )
    if out is not None:
        text = f"{result['n_tracklets']} tracklets, {result['n_crops']} crops"
        done(out, result, as_json, text)
    elif as_json:
        done(root, result, as_json)
