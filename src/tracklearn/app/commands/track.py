"""Tracking again with what was learned: track."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tracklearn.app.commands.bars import Bars
from tracklearn.app.commands.options import (
    ConfigFile,
    Detector,
    Device,
    Json,
    Settings,
    Stride,
    Threshold,
    TrackerName,
    done,
    ingest_config,
    ingest_options,
    overridden,
)


def track(
    source: Annotated[
        str,
        typer.Argument(
            metavar="VIDEO", help="One film, as ingest takes it: VIDEO, video:FRAMES, RESULTS.txt+VIDEO."
        ),
    ],
    reid: Annotated[
        Path, typer.Option("--reid", help="Finished run whose network knows people, or an .onnx file.")
    ],
    out: Annotated[Path, typer.Option("--out", help="MOTChallenge file of corrected tracks to write.")],
    delay: Annotated[
        float,
        typer.Option(
            "--delay", help="Seconds of film that a box may wait for its number; 0 decides at once."
        ),
    ] = 4.0,
    distance: Annotated[
        float | None,
        typer.Option(
            "--distance",
            help="One person below this distance of unit features, whatever the run or file says.",
        ),
    ] = None,
    detector: Detector = None,
    tracker: TrackerName = None,
    threshold: Threshold = None,
    stride: Stride = None,
    device: Device = "auto",
    config: ConfigFile = None,
    settings: Settings = None,
    resume: Annotated[bool, typer.Option("--resume", help="Replace a file that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Track a video again: who comes back gets the number that he had, wherever he comes back."""
    from tracklearn.app.retrack import track as app

    chosen = ingest_config(
        config, overridden(settings, **ingest_options(detector, tracker, threshold, stride))
    )
    with Bars() as bars:
        result = app.track(
            source,
            reid,
            out,
            config=chosen,
            delay=delay,
            distance=distance,
            device=device,
            resume=resume,
            progress=bars,
            tell=bars.note,
        )
    done(out, result, as_json, app.text(result))
