"""What can be set: settings."""

from __future__ import annotations

from typing import Annotated

import typer

from tracklearn.app.commands.options import Json, PresetName, say, say_json


def settings(
    section: Annotated[
        str | None,
        typer.Argument(metavar="[SECTION]", help="ingest, network, train, or a method; all by default."),
    ] = None,
    as_toml: Annotated[
        bool, typer.Option("--toml", help="Print a settings file to start from, for --config.")
    ] = False,
    preset: PresetName = None,
    as_json: Json = False,
) -> None:
    """Every setting: key, default, what presets change, type, meaning, and where the default is from."""
    from tracklearn.app.pipeline import settings

    found = settings.listing(section)
    if as_json:
        say_json([setting.to_dict() for setting in found])
    else:
        say(settings.toml(found, preset) if as_toml else settings.table(found))
