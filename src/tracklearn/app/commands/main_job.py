"""From camera files to a trained, searchable model: ingest, train, index, search, report, run, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tracklearn.app.commands.options import (
    Backbone,
    Bars,
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
    first_process,
    ingest_config,
    ingest_options,
    overridden,
    round_line,
    tell_losses,
)
from tracklearn.app.commands.recording import For, Start, ended_by_ctrl_c, live_of, parsed, starts_of


def ingest(
    sources: Sources,
    out: Annotated[Path, typer.Option("--out", help="Folder to write the tracklet set to.")],
    detector: Detector = None,
    tracker: TrackerName = None,
    threshold: Threshold = None,
    stride: Stride = None,
    duration: For = None,
    start: Start = None,
    strict: Strict = False,
    device: Device = "auto",
    config: ConfigFile = None,
    settings: Settings = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Turn camera files, tracker results or folders of crops into a tracklet set."""
    from tracklearn.app import pipeline
    from tracklearn.store.ingest import ingest as store
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
                device=pipeline.pick_device(device),
                progress=bars,
            )
        tracklet_set = open_set(path)
        losses = tell_losses(bars, tracklet_set.manifest)
    result = {
        "set": str(path),
        "cameras": list(tracklet_set.cameras),
        "n_tracklets": len(tracklet_set.tracklets),
        "n_crops": tracklet_set.tracklets.n_crops,
        "sources": tracklet_set.manifest["sources"],
        "losses": losses,
    }
    done(path, result, as_json, f"{result['n_tracklets']} tracklets, {result['n_crops']} crops")


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
    from tracklearn.app import pipeline
    from tracklearn.store.sets.tracklets import open_set

    open_set(tracklets)  # a mistyped path should not wait for weights to be downloaded
    with Bars() as bars:
        show = round_line(bars)
        plan = pipeline.plan_training(
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
            from tracklearn.app.estimate import estimate

            expected = estimate(plan, progress=bars)
            if first_process():
                done(tracklets, expected.to_dict(), as_json, expected.table())
            return
        for event in pipeline.train(plan, out, resume=resume, progress=bars, tell=bars.note):
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


def index(
    run_path: Annotated[Path, typer.Argument(metavar="RUN", help="Run, written by train.")],
    tracklets: Annotated[Path, typer.Argument(metavar="SET", help="Tracklet set to make searchable.")],
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Replace a gallery that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Embed a tracklet set with a trained run, so that it can be searched."""
    from tracklearn.app import pipeline

    with Bars() as bars:
        searcher = pipeline.index(run_path, tracklets, device=device, resume=resume, progress=bars)
    result = {"gallery": str(searcher.path), "n_entries": len(searcher.gallery)}
    done(searcher.path, result, as_json, f"{result['n_entries']} tracklets indexed")


def search(
    run_path: Annotated[Path, typer.Argument(metavar="RUN", help="Run with a gallery, written by index.")],
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="Path of a person's image, or a tracklet id.")
    ],
    k: Annotated[int, typer.Option("-k", "--top", min=1, help="Number of results.")] = 10,
    sheet: Annotated[Path | None, typer.Option("--sheet", help="Contact sheet to write (PNG).")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Find a person: a table of the nearest tracklets, and a contact sheet."""
    from tracklearn.app import pipeline
    from tracklearn.app.search import Searcher

    searcher = Searcher(run_path, device=pipeline.pick_device(device))
    found = searcher.search(query, k=k)
    path = found.save_sheet(sheet)
    done(path, {"sheet": str(path), "results": found.rows()}, as_json, found.table())


def report(
    run_path: Annotated[Path, typer.Argument(metavar="RUN", help="Run, written by train.")],
    out: Annotated[Path | None, typer.Option("--out", help="HTML file; RUN/report.html by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Replace a report that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write a run's report: one HTML file with pictures, to open in a browser."""
    from tracklearn.app.pipeline import report as write

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
    from tracklearn.app import pipeline
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
            return pipeline.plan_training(
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
    from tracklearn.app.demo import demo as show
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
