"""From camera files to a tracklet set: ingest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tracklearn.app.commands import pace
from tracklearn.app.commands.bars import Bars
from tracklearn.app.commands.options import (
    ConfigFile,
    Detector,
    Device,
    Json,
    On,
    Resume,
    Settings,
    Sources,
    Strict,
    Stride,
    Threshold,
    TrackerName,
    Workers,
    done,
    ingest_config,
    ingest_options,
    overridden,
    tell_losses,
)
from tracklearn.app.commands.recording import For, Start, ended_by_ctrl_c, live_of, parsed, starts_of


def ingest(
    sources: Sources,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            metavar="SET",
            help="Folder to write the tracklet set to, or s3://bucket/name in storage.",
        ),
    ],
    detector: Detector = None,
    tracker: TrackerName = None,
    threshold: Threshold = None,
    stride: Stride = None,
    duration: For = None,
    start: Start = None,
    strict: Strict = False,
    device: Device = "auto",
    workers: Workers = None,
    on: On = None,
    config: ConfigFile = None,
    settings: Settings = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Turn camera files, tracker results or folders of crops into a tracklet set."""
    from tracklearn.app.model.device import pick_device
    from tracklearn.store.ingest import ingest as store
    from tracklearn.store.sets.stored import destination
    from tracklearn.store.sets.tracklets import open_set

    overrides = overridden(settings, **ingest_options(detector, tracker, threshold, stride))
    chosen = ingest_config(config, overrides)
    with Bars() as bars:
        starts = starts_of(start)
        cameras = parsed(sources, bars.note)
        live = live_of(cameras, duration, bars.note)
        with ended_by_ctrl_c(live, bars.note):
            path = store.ingest(
                cameras,
                out,
                live=live,
                start=starts,
                config=chosen,
                resume=resume,
                strict=strict,
                device=pick_device(device),
                progress=bars,
                tell=bars.note,
                workers=workers,
                on=on,
            )
        # One in storage is not fetched for what its manifest says.
        manifest = open_set(path).manifest if isinstance(path, Path) else destination(path).manifest() or {}
        losses = tell_losses(bars, manifest)
        if workers or on:
            bars.note(pace.table(manifest["sources"]))
    result = {
        "set": str(path),
        **{key: manifest[key] for key in ("cameras", "n_tracklets", "n_crops", "sources")},
        "losses": losses,
    }
    done(path, result, as_json, f"{result['n_tracklets']} tracks, {result['n_crops']} crops")
