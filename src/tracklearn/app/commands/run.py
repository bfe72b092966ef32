"""From camera files to a report in one command, the report alone, and the demo: run, report, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tracklearn.app.commands.bars import Bars, round_line
from tracklearn.app.commands.options import (
    Backbone,
    ConfigFile,
    Detector,
    Device,
    Isolate,
    Json,
    LabelledSource,
    PresetName,
    Resume,
    Seed,
    Settings,
    Sources,
    Strict,
    Stride,
    Threshold,
    TrackerName,
    Weights,
    command_line,
    done,
    ingest_config,
    ingest_options,
    overridden,
    tell_losses,
)
from tracklearn.app.commands.recording import For, Start, ended_by_ctrl_c, live_of, parsed, starts_of


def report(
    run_path: Annotated[Path, typer.Argument(metavar="RUN", help="Run, written by train.")],
    out: Annotated[Path | None, typer.Option("--out", help="HTML file; RUN/report.html by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Replace a report that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write a run's report: one HTML file with pictures, to open in a browser."""
    from tracklearn.app.report.of_run import report as write

    path = write(run_path, out=out or run_path / "report.html", resume=resume, command=command_line())
    done(path, {"report": str(path)}, as_json)


def run(
    sources: Sources,
    out: Annotated[Path, typer.Option("--out", help="Folder for set, run and report.html.")],
    method: Annotated[str, typer.Option("--method", help="tmc, mmt, uga or msplr.")] = "tmc",
    source: LabelledSource = None,
    isolate: Isolate = None,
    weights: Weights = "imagenet",
    backbone: Backbone = None,
    detector: Detector = None,
    tracker: TrackerName = None,
    threshold: Threshold = None,
    stride: Stride = None,
    duration: For = None,
    start: Start = None,
    strict: Strict = False,
    preset: PresetName = None,
    device: Device = "auto",
    seed: Seed = 0,
    config: ConfigFile = None,
    settings: Settings = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """From camera files to a trained model, a gallery and a report, in one go."""
    from tracklearn.app.pipeline import run as pipeline
    from tracklearn.app.pipeline.plan import plan_training
    from tracklearn.store.sets.tracklets import open_set

    overrides = overridden(
        settings,
        backbone=("network.backbone", backbone),
        isolate=(f"{method}.isolate", isolate),
        **ingest_options(detector, tracker, threshold, stride),
    )
    chosen = ingest_config(config, overrides)
    with Bars() as bars:

        def plan(set_path: Path) -> Any:
            return plan_training(
                set_path,
                method=method,
                source=source,
                weights=weights,
                preset=preset,
                device=device,
                seed=seed,
                config_file=config,
                overrides=overrides,
                progress=bars,
            )

        starts = starts_of(start)
        cameras = parsed(sources, bars.note)
        live = live_of(cameras, duration, bars.note)
        with ended_by_ctrl_c(live, bars.note):
            result = pipeline.run(
                cameras,
                out,
                live=live,
                start=starts,
                ingest_config=chosen,
                plan=plan,
                resume=resume,
                strict=strict,
                progress=bars,
                on_round=round_line(bars),
                tell=bars.note,
                command=command_line(),
            )
        manifest, opened = open_set(result["set"]).manifest, pipeline.Run(result["run"])
        result["losses"] = tell_losses(bars, manifest, opened.manifest)
    done(result["report"], result, as_json, f"report: {result['report']}")


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything the demo writes.")] = Path("demo"),
    method: Annotated[str, typer.Option("--method", help="tmc, mmt, uga or msplr.")] = "tmc",
    seed: Seed = 0,
    device: Device = "auto",
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """See it work: generate a small camera network, learn from its videos, judge on other people."""
    from tracklearn.app.demo.run import demo as show
    from tracklearn.store.runs import Run
    from tracklearn.store.sets.tracklets import open_set

    with Bars() as bars:
        result = show(
            out,
            method=method,
            seed=seed,
            device=device,
            resume=resume,
            progress=bars,
            on_round=round_line(bars),
            tell=bars.note,
        )
        manifest, opened = open_set(out / "set").manifest, Run(out / "run")
        result["losses"] = tell_losses(bars, manifest, opened.manifest)
    text = result.pop("table")
    done(Path(result["report"]), result, as_json, f"{text}\n\nopen the report:")
