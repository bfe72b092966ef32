"""From camera files to a report in one command, the report alone, and the demo: run, report, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tracklearn.app.commands.bars import Bars, round_line
from tracklearn.app.commands.options import (
    Detector,
    Device,
    Json,
    On,
    Resume,
    Seed,
    Sources,
    Strict,
    Stride,
    Threshold,
    TrackerName,
    Workers,
    command_line,
    done,
    ingest_config,
    ingest_options,
    say,
    say_json,
    tell_health,
    tell_losses,
)
from tracklearn.app.commands.recording import For, Start, ended_by_ctrl_c, live_of, parsed, starts_of
from tracklearn.app.commands.training import Training, with_training


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


@with_training
def run(
    sources: Sources,
    out: Annotated[Path, typer.Option("--out", help="Folder for set, run, identities and report.html.")],
    detector: Detector = None,
    tracker: TrackerName = None,
    threshold: Threshold = None,
    stride: Stride = None,
    duration: For = None,
    start: Start = None,
    strict: Strict = False,
    workers: Workers = None,
    on: On = None,
    training: Training = Training(),  # noqa: B008 (a frozen value)
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """From camera files to a trained model, a gallery and a report, in one go."""
    from tracklearn.app.pipeline import run as pipeline
    from tracklearn.store.runs import Run
    from tracklearn.store.sets.tracklets import open_set

    overrides = training.overrides(**ingest_options(detector, tracker, threshold, stride))
    chosen = ingest_config(training.config, overrides)
    with Bars() as bars:

        def plan(set_path: Path) -> Any:
            return training.plan(set_path, overrides, progress=bars)

        starts = starts_of(start)
        cameras = parsed(sources, bars.note)
        live = live_of(cameras, duration, bars.note)
        if training.dry_run:
            from tracklearn.app.pipeline.expected import expected

            found = expected(
                cameras,
                out,
                live=live,
                start=starts,
                ingest_config=chosen,
                plan=plan,
                strict=strict,
                progress=bars,
            )
            say_json(found.to_dict()) if as_json else say(found.table())
            return
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
                workers=workers,
                on=on,
                progress=bars,
                on_round=round_line(bars),
                tell=bars.note,
                command=command_line(),
            )
        made, opened = open_set(result["set"]), Run(result["run"])
        result["losses"] = tell_losses(bars, made.manifest, opened.manifest)
        result["health"] = tell_health(bars, opened, made)
    done(result["report"], result, as_json, f"report: {result['report']}")


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything the demo writes.")] = Path("demo"),
    method: Annotated[str, typer.Option("--method", help="tmc, mmt, uga, msplr or cap.")] = "tmc",
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
        made, opened = open_set(out / "set"), Run(out / "run")
        result["losses"] = tell_losses(bars, made.manifest, opened.manifest)
        result["health"] = tell_health(bars, opened, made)
    text = result.pop("table")
    done(Path(result["report"]), result, as_json, f"{text}\n\nopen the report:")
