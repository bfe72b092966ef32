"""Training on a tracklet set: train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tracklearn.app.commands.bars import Bars, first_process, round_line
from tracklearn.app.commands.options import (
    Backbone,
    ConfigFile,
    Device,
    Isolate,
    Json,
    LabelledSource,
    PresetName,
    Resume,
    Seed,
    Settings,
    Weights,
    done,
    overridden,
    tell_losses,
)


def train(
    tracklets: Annotated[Path, typer.Argument(metavar="SET", help="Tracklet set, written by ingest.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write the run to.")],
    method: Annotated[str, typer.Option("--method", help="tmc, mmt, uga or msplr.")] = "tmc",
    source: LabelledSource = None,
    isolate: Isolate = None,
    weights: Weights = "imagenet",
    backbone: Backbone = None,
    preset: PresetName = None,
    device: Device = "auto",
    seed: Seed = 0,
    config: ConfigFile = None,
    settings: Settings = None,
    resume: Resume = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would run, how long and in how much memory.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Learn a re-ID model from a tracklet set, without labels."""
    from tracklearn.app.pipeline import run as pipeline
    from tracklearn.app.pipeline import training
    from tracklearn.app.pipeline.plan import plan_training
    from tracklearn.store.sets.tracklets import open_set

    open_set(tracklets)  # a mistyped path should not wait for weights to be downloaded
    with Bars() as bars:
        show = round_line(bars)
        plan = plan_training(
            tracklets,
            method=method,
            source=source,
            weights=weights,
            preset=preset,
            device=device,
            seed=seed,
            config_file=config,
            overrides=overridden(
                settings, backbone=("network.backbone", backbone), isolate=(f"{method}.isolate", isolate)
            ),
            progress=bars,
        )
        if dry_run:
            from tracklearn.app.pipeline.estimate import estimate

            expected = estimate(plan, progress=bars)
            if first_process():
                done(tracklets, expected.to_dict(), as_json, expected.table())
            return
        for event in training.train(plan, out, resume=resume, progress=bars, tell=bars.note):
            if first_process():
                show(event)
    if not first_process():
        return
    opened = pipeline.Run(out)
    result = {
        "run": str(out),
        "weights": str(out / "weights.safetensors"),
        "isolation": opened.manifest["isolation"],
        "labels_used": opened.manifest["labels_used"],
        "rounds": opened.rounds,
        "seconds": opened.seconds,
        "losses": tell_losses(bars, open_set(tracklets).manifest, opened.manifest),
    }
    done(out, result, as_json)
