"""Letting go of a person, a camera, or what is old: forget."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tracklearn.app.commands.bars import Bars
from tracklearn.app.commands.options import Json, done, say, say_json
from tracklearn.types import Refusal


def forget(
    run_path: Annotated[Path, typer.Argument(metavar="RUN", help="Finished run, written by train.")],
    person: Annotated[
        int | None, typer.Argument(metavar="[PERSON]", help="Number of a person of the identities.")
    ] = None,
    camera: Annotated[str | None, typer.Option("--camera", help="All that this camera filmed.")] = None,
    before: Annotated[
        str | None,
        typer.Option(
            "--before", help="All that was filmed before this date: 2026-05-01, or 2026-05-01T08:00."
        ),
    ] = None,
    identities: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Folder of the identities that number people; RUN/../identities by default."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, and change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before it goes.")] = False,
    as_json: Json = False,
) -> None:
    """Forget a person, a camera, or what is older than a date: crops, features, rows, pictures, decisions."""
    from tracklearn.app import forget as forgetting

    asked = {"person": person, "camera": camera, "before": before, "identities": identities}
    plan = forgetting.preview(run_path, **asked)  # type: ignore[arg-type]
    if dry_run:
        say_json(plan.to_dict()) if as_json else say(plan.text())
        return
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise Refusal("what goes cannot be brought back: look at it with --dry-run, then say --yes")
        say(plan.text())
        typer.confirm("It cannot be brought back. Let it go?", abort=True)
    with Bars() as bars:
        found = forgetting.forget(run_path, **asked, progress=bars)  # type: ignore[arg-type]
    done(run_path, {"run": str(run_path), **found.to_dict()}, as_json, found.text())
