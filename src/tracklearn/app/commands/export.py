"""A run's network as a file for other programs: export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tracklearn.app.commands.bars import Bars
from tracklearn.app.commands.options import Json, done


def export(
    run_path: Annotated[Path, typer.Argument(metavar="RUN", help="Finished run, written by train.")],
    to: Annotated[
        str | None,
        typer.Option("--to", help="onnx (the default), torchscript, safetensors or openvino."),
    ] = None,
    consumer: Annotated[
        str | None,
        typer.Option(
            "--for",
            help="Program that is to load it, which decides the form: boxmot, ultralytics, deepstream, reid, "
            "torchreid or deep-sort-realtime.",
        ),
    ] = None,
    baked: Annotated[
        bool, typer.Option("--baked", help="The file takes RGB of 0-1: mean and deviation are inside.")
    ] = False,
    quantize: Annotated[
        str | None,
        typer.Option("--quantize", help="int8: 8-bit ONNX or OpenVINO, calibrated on the set's crops."),
    ] = None,
    crops: Annotated[
        Path | None,
        typer.Option("--crops", help="Tracklet set to compare on; by default the one that RUN learned from."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write; RUN/export/NAME by default.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Replace an export that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write a run's network for a tracker or another program, compared with the original on real crops."""
    from tracklearn.app.model import export as app

    with Bars() as bars:
        result = app.export(
            run_path,
            to=to,
            consumer=consumer,
            baked=baked,
            quantize=quantize,
            crops=crops,
            out=out,
            resume=resume,
            progress=bars,
        )
    done(Path(result["out"]), result, as_json, app.table(result))
