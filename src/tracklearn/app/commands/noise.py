"""The noise of trackers: measured on their results, and put into clean sets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tracklearn.app.commands.options import Json, Seed, done, say

app = typer.Typer(
    name="noise",
    help="Measure a tracker's mistakes, or put as many into a clean set.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def measure(
    tracks: Annotated[
        list[Path],
        typer.Option(
            "--tracks", help="Tracker's result (MOTChallenge), or a folder of them; may be repeated."
        ),
    ],
    truth: Annotated[
        list[Path],
        typer.Option("--truth", help="Ground truth of the same sequences, file or folder; may be repeated."),
    ],
    out: Annotated[
        list[Path] | None,
        typer.Option("--out", help="Picture (.png) or figures (.json) to write; may be repeated."),
    ] = None,
    min_iou: Annotated[float, typer.Option("--min-iou", help="Least overlap of a match, 0-1.")] = 0.5,
    min_run: Annotated[
        int, typer.Option("--min-run", min=1, help="Frames in a row that a person must be in a tracklet.")
    ] = 6,
    as_json: Json = False,
) -> None:
    """Count a tracker's fragmentations and identity switches against ground truth."""
    from tracklearn.app.noise import measure as noise

    files = [noise.writable(path) for path in out or []]
    measured = noise.measure(noise.pair(tracks, truth), min_iou=min_iou, min_run=min_run)
    for warning in measured.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for file in files:
        measured.save(file)
    if as_json:
        done(Path(), {**measured.to_dict(), "files": files}, as_json)
    else:
        say("\n".join([measured.table(), *map(str, files)]))


@app.command()
def simulate(
    tracklets: Annotated[
        Path, typer.Argument(metavar="SET", help="Tracklet set with ground truth beside it.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Tracklet set to write; images are not copied.")],
    fragmentation: Annotated[
        float | None, typer.Option("--fragmentation", help="Tracklets per person and camera (r_FM).")
    ] = None,
    switch: Annotated[float | None, typer.Option("--switch", help="Persons per tracklet (r_SW).")] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="MARS_1.7_1.2, MARS_2.5_1.2 or MARS_2.5_1.5: both rates.")
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            "--like", help="JSON of noise measure: its persons per tracklet, its rates unless given."
        ),
    ] = None,
    min_segment: Annotated[
        int | None,
        typer.Option("--min-segment", min=1, help="Least crops of a piece: 2, for Market-1501 1."),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Write a clean set's crops as tracklets that a tracker might have made, at the rates asked for."""
    from tracklearn.app.noise import simulate
    from tracklearn.app.noise.simulate import level

    wanted = level(fragmentation=fragmentation, switch=switch, preset=preset, like=like)
    result = simulate.simulate(tracklets, out, wanted, seed=seed, min_segment=min_segment)
    achieved = result["achieved"]
    text = (
        f"{result['n_tracklets']} tracklets, {result['n_crops']} crops; {achieved['n_persons']} persons (by "
        f"camera) at r_FM {achieved['r_FM']:.3f} (asked {wanted.r_FM:g}), "
        f"r_SW {achieved['r_SW']:.3f} (asked {wanted.r_SW:g})"
    )
    done(out, result, as_json, text)
