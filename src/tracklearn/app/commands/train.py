"""Training on a tracklet set: train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tracklearn.app.commands.bars import Bars, first_process, round_line
from tracklearn.app.commands.options import (
    Json,
    On,
    Resume,
    Workers,
    done,
    tell_health,
    tell_losses,
)
from tracklearn.app.commands.training import Training, with_training


@with_training
def train(
    tracklets: Annotated[
        list[Path],
        typer.Argument(
            metavar="SET...", help="Tracklet sets, written by ingest; several are learned from as one."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to write the run to.")],
    training: Training = Training(),  # noqa: B008 (a frozen value)
    workers: Workers = None,
    on: On = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Learn a re-ID model from tracklet sets, without labels."""
    from tracklearn.app.pipeline import training as stage
    from tracklearn.store.runs import Run
    from tracklearn.store.sets.joined import open_sets

    made = open_sets(tracklets)  # a mistyped path should not wait for weights to be downloaded
    with Bars() as bars:
        show = round_line(bars)
        plan = training.plan(tracklets, training.overrides(), progress=bars)
        if training.dry_run:
            from tracklearn.app.pipeline.estimate import estimate

            expected = estimate(plan, progress=bars)
            if first_process():
                done(plan.sets[0], expected.to_dict(), as_json, expected.table())
            return
        for event in stage.train(
            plan, out, resume=resume, workers=workers, on=on, progress=bars, tell=bars.note
        ):
            if first_process():
                show(event)
    if not first_process():
        return
    opened = Run(out)
    result = {
        "run": str(out),
        "weights": str(out / "weights.safetensors"),
        "isolation": opened.manifest["isolation"],
        "labels_used": opened.manifest["labels_used"],
        "rounds": opened.rounds,
        "seconds": opened.seconds,
        "losses": tell_losses(bars, made.manifest, opened.manifest),
        "health": tell_health(bars, opened, made),
    }
    done(out, result, as_json)
