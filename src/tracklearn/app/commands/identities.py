"""Who is who, and what distances mean: identities, calibrate."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from tracklearn.app.commands.bars import Bars
from tracklearn.app.commands.options import Device, Json, On, Workers, done
from tracklearn.types import Refusal

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Finished run, written by train.")]
Sets = Annotated[list[Path], typer.Argument(metavar="SET...", help="Tracklet sets to look through.")]
FalseMerges = Annotated[
    str | None,
    typer.Option(
        "--false-merges",
        help="Share of pairs of two people that may be taken for one, such as 1% or 0.1%; by default as many "
        "errors of either kind, fewer where there are many people.",
    ),
]


def identities(
    run_path: RunPath,
    sets: Sets,
    out: Annotated[Path, typer.Option("--out", help="Folder for table, tracks, pictures and timeline.")],
    false_merges: FalseMerges = None,
    distance: Annotated[
        float | None,
        typer.Option("--distance", help="Join below this distance of unit features, whatever pairs tell."),
    ] = None,
    cameras: Annotated[
        Path | None,
        typer.Option("--cameras", help="TOML file: cameras without a shared view, least travel times."),
    ] = None,
    learn_travel: Annotated[
        bool, typer.Option("--learn-travel", help="Learn least travel times from almost sure links.")
    ] = False,
    solve: Annotated[
        bool, typer.Option("--exact", help="Solve sets of up to 30 parts exactly, where that is better.")
    ] = False,
    review: Annotated[
        Path | None,
        typer.Option("--review", help="Journal of a person's decisions; RUN.review.jsonl by default."),
    ] = None,
    same: Annotated[
        list[str] | None,
        typer.Option("--same", help="Two parts that are one person, A=B (12.2=40); kept in the journal."),
    ] = None,
    different: Annotated[
        list[str] | None,
        typer.Option("--different", help="Two parts that are two people, A=B; kept in the journal."),
    ] = None,
    earlier: Annotated[
        Path | None, typer.Option("--from", help="Earlier table, whose people keep their numbers.")
    ] = None,
    device: Device = "auto",
    workers: Workers = None,
    on: On = None,
    resume: Annotated[bool, typer.Option("--resume", help="Replace a table that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Find out who is who in all the footage: one table over cameras and sets, corrected tracks, pictures."""
    from tracklearn.app.identities import link, table

    rate = share(false_merges)
    if rate is not None and distance is not None:
        raise Refusal(
            "--false-merges and --distance both say where one person ends: give the one or the other"
        )
    with Bars() as bars:
        found = link.identities(
            run_path,
            sets,
            out,
            false_merges=rate,
            distance=distance,
            cameras=cameras,
            learn_travel=learn_travel,
            solve=solve,
            review=review,
            same=same or (),
            different=different or (),
            earlier=earlier,
            device=device,
            workers=workers,
            on=on,
            resume=resume,
            progress=bars,
        )
    told = ("counts", "trusted", "expected", "limits", "notes", "changes", "ways")
    result = {"identities": str(found.path), **{key: found.manifest[key] for key in told}}
    done(found.path, result, as_json, table.text(found))


def calibrate(
    run_path: RunPath,
    sets: Sets,
    false_merges: FalseMerges = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Tell from which distance on two people are two, for a run's features on this footage."""
    from tracklearn.app.identities import calibrated, footage
    from tracklearn.app.model.device import pick_device
    from tracklearn.store.files import write_json
    from tracklearn.store.identities.folder import CALIBRATION

    rate = share(false_merges)
    gathered = footage.gather(run_path, sets)
    with Bars() as bars:
        features = footage.frame_features(gathered, device=pick_device(device), progress=bars)
    found = calibrated.learn(gathered, features)
    path = run_path / CALIBRATION
    result = found.to_dict() | {"sets": [one.digest for one in gathered.sets]}
    text = found.text()
    if rate is not None:
        asked = found.asked(rate)
        result["asked"] = asked
        text += "".join(
            f"\n{kind}: {value:.3f} for {100 * rate:g} % of false merges" for kind, value in asked.items()
        )
    write_json(path, result)
    done(path, {"calibration": str(path), **result}, as_json, text)


def share(text: str | None) -> float | None:
    """The share that "1%" or "0.01" is.

    Raises:
        Refusal: it is none.
    """
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d*\.?\d+)\s*(%?)\s*", text)
    value = float(found[1]) / (100 if found[2] else 1) if found else 0.0
    if not 0 < value < 1:
        raise Refusal(f"--false-merges is {text!r}, expected a share such as 1% or 0.01")
    return value
