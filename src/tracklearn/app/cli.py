"""The command line: each command calls one function of the pipeline and prints the path it wrote.

Progress and errors go to standard error; with --json one JSON object is the last line of standard output.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="tracklearn",
    help="Learn person re-identification from unlabelled video.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on where an earlier call with the same --out stopped.")
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of every random choice; same seed, same result.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:N, or auto.")]
PresetName = Annotated[
    str | None, typer.Option("--preset", help="cpu, gpu or paper; chosen by the device unless named.")
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file of settings.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="One setting, section.key=value; may be repeated.")
]
Weights = Annotated[
    str,
    typer.Option(
        "--weights",
        help="Starting weights: imagenet (downloaded once), a .safetensors or .pth file, or none (random).",
    ),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        "--backbone", help="resnet50, ibn_resnet50_a, mobilenet_v2 or tiny; inferred from the weights."
    ),
]
Detector = Annotated[
    str | None,
    typer.Option(
        "--detector",
        help="motion (the default), hog, openvino:PATH, onnx:PATH, hub:NAME (transformers) or file:PATH "
        "(MOTChallenge).",
    ),
]
TrackerName = Annotated[
    str | None, typer.Option("--tracker", help="bytetrack (the default), sort or ocsort.")
]
Threshold = Annotated[
    float | None, typer.Option("--threshold", help="Least detection score; the detector's own by default.")
]
Stride = Annotated[int | None, typer.Option("--stride", min=1, help="Use every n-th frame of each video.")]
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="One camera each: VIDEO, RESULTS.txt+VIDEO, or a folder of crops; name=SOURCE names the camera.",
    ),
]


STOPPED = 130  # the exit code of a program stopped with Ctrl-C


class Bars:
    """Progress bars on standard error, one per kind of work, where that is a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self.console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} · {task.fields[rate]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> Bars:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def __call__(self, name: str, done: int, total: int | None) -> None:
        """`done` of `total` items of work `name` are finished; total None where nobody knows."""
        import time

        if name not in self.tasks:
            self.tasks[name] = (self.progress.add_task(name, total=total or 0, rate=""), time.perf_counter())
        task, began = self.tasks[name]
        rate = done / max(time.perf_counter() - began, 1e-9)
        self.progress.update(task, completed=done, total=total or done, rate=f"{rate:.0f}/s")
        if total is not None and done >= total:
            self.progress.remove_task(task)
            del self.tasks[name]

    def note(self, text: str) -> None:
        """One line that stays."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def _round_line(bars: Bars) -> Callable[[Any], None]:
    def show(event: Any) -> None:
        losses = "  ".join(f"{name} {value:.3f}" for name, value in event.losses.items())
        agreement = "" if event.agreement != event.agreement else f"  agreement {event.agreement:.2f}"
        bars.note(
            f"epoch {event.index + 1:>3}  clusters {event.n_clusters}  noise {event.noise_fraction:.0%}  "
            f"largest {event.largest_cluster}{agreement}  {losses}"
        )
        for line in event.diagnosis:
            bars.note(f"           {line}")

    return show


def _done(path: Path, result: dict[str, Any], as_json: bool, text: str = "") -> None:
    """Tell the path (and `text`) to a person, or the whole result to a program."""
    if as_json:
        from tracklearn.store.runs import plain_json

        print(plain_json(result))
    else:
        if text:
            print(text)
        print(path)


def _overrides(settings: list[str] | None, **named: tuple[str, Any]) -> list[str]:
    """--set values with the named options behind them, so that an option wins over a repeated setting."""
    extra = [f"{key}={json.dumps(value)}" for key, value in named.values() if value is not None]
    return [*(settings or []), *extra]


def _ingest_options(
    detector: str | None, tracker: str | None, threshold: float | None, stride: int | None
) -> dict[str, tuple[str, Any]]:
    return {
        "detector": ("ingest.detector", detector),
        "tracker": ("ingest.tracker", tracker),
        "threshold": ("ingest.threshold", threshold),
        "stride": ("ingest.stride", stride),
    }


def _ingest_config(config: Path | None, overrides: list[str]) -> Any:
    from tracklearn.app import pipeline
    from tracklearn.store import config as store

    return store.resolve(pipeline.setting_models(), file=config, overrides=overrides)["ingest"]


def _note_skipped(bars: Bars, tracklet_set: Any) -> None:
    """A camera that gave nothing is easily missed: say so."""
    for source in tracklet_set.manifest["sources"]:
        if source["status"] == "skipped":
            bars.note(f"skipped {source['path']}: {source['reason']}")


def _command() -> str:
    return shlex.join(["tracklearn", *sys.argv[1:]])


@app.command()
def ingest(
    sources: Sources,
    out: Annotated[Path, typer.Option("--out", help="Folder to write the tracklet set to.")],
    detector: Detector = None,
    tracker: TrackerName = None,
    threshold: Threshold = None,
    stride: Stride = None,
    device: Device = "auto",
    config: ConfigFile = None,
    settings: Settings = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Turn camera files, tracker results or folders of crops into a tracklet set."""
    from tracklearn.app import pipeline
    from tracklearn.store import ingest as store
    from tracklearn.store.tracklets import open_set

    overrides = _overrides(settings, **_ingest_options(detector, tracker, threshold, stride))
    chosen = _ingest_config(config, overrides)
    with Bars() as bars:
        path = store.ingest(
            sources, out, config=chosen, resume=resume, device=pipeline.pick_device(device), progress=bars
        )
        tracklet_set = open_set(path)
        _note_skipped(bars, tracklet_set)
    result = {
        "set": str(path),
        "cameras": list(tracklet_set.cameras),
        "n_tracklets": len(tracklet_set.tracklets),
        "n_crops": tracklet_set.tracklets.n_crops,
        "sources": tracklet_set.manifest["sources"],
    }
    _done(path, result, as_json, f"{result['n_tracklets']} tracklets, {result['n_crops']} crops")


@app.command()
def train(
    tracklets: Annotated[Path, typer.Argument(metavar="SET", help="Tracklet set, written by ingest.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write the run to.")],
    method: Annotated[str, typer.Option("--method", help="tmc.")] = "tmc",
    weights: Weights = "imagenet",
    backbone: Backbone = None,
    preset: PresetName = None,
    device: Device = "auto",
    seed: Seed = 0,
    config: ConfigFile = None,
    settings: Settings = None,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Learn a re-ID model from a tracklet set, without labels."""
    from tracklearn.app import pipeline

    with Bars() as bars:
        show = _round_line(bars)
        plan = pipeline.plan_training(
            tracklets,
            method=method,
            weights=weights,
            preset=preset,
            device=device,
            seed=seed,
            config_file=config,
            overrides=_overrides(settings, backbone=("network.backbone", backbone)),
            progress=bars,
        )
        for event in pipeline.train(plan, out, resume=resume, progress=bars):
            show(event)
    opened = pipeline.Run(out)
    result = {
        "run": str(out),
        "weights": str(out / "weights.safetensors"),
        "isolation": opened.manifest["isolation"],
        "rounds": opened.rounds,
        "seconds": opened.seconds,
    }
    _done(out, result, as_json)


@app.command()
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
    _done(searcher.path, result, as_json, f"{result['n_entries']} tracklets indexed")


@app.command()
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
    _done(path, {"sheet": str(path), "results": found.rows()}, as_json, found.table())


@app.command()
def report(
    run_path: Annotated[Path, typer.Argument(metavar="RUN", help="Run, written by train.")],
    out: Annotated[Path | None, typer.Option("--out", help="HTML file; RUN/report.html by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Replace a report that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write a run's report: one HTML file with pictures, to open in a browser."""
    from tracklearn.app.pipeline import report as write

    path = write(run_path, out=out or run_path / "report.html", resume=resume, command=_command())
    _done(path, {"report": str(path)}, as_json)


@app.command()
def run(
    sources: Sources,
    out: Annotated[Path, typer.Option("--out", help="Folder for set, run and report.html.")],
    method: Annotated[str, typer.Option("--method", help="tmc.")] = "tmc",
    weights: Weights = "imagenet",
    backbone: Backbone = None,
    detector: Detector = None,
    tracker: TrackerName = None,
    threshold: Threshold = None,
    stride: Stride = None,
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
    from tracklearn.store.tracklets import open_set

    overrides = _overrides(
        settings,
        backbone=("network.backbone", backbone),
        **_ingest_options(detector, tracker, threshold, stride),
    )
    chosen = _ingest_config(config, overrides)
    with Bars() as bars:

        def plan(set_path: Path) -> Any:
            return pipeline.plan_training(
                set_path,
                method=method,
                weights=weights,
                preset=preset,
                device=device,
                seed=seed,
                config_file=config,
                overrides=overrides,
                progress=bars,
            )

        result = pipeline.run(
            sources,
            out,
            ingest_config=chosen,
            plan=plan,
            resume=resume,
            progress=bars,
            on_round=_round_line(bars),
            command=_command(),
        )
        _note_skipped(bars, open_set(result["set"]))
    _done(result["report"], result, as_json, f"report: {result['report']}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything the demo writes.")] = Path("demo"),
    method: Annotated[str, typer.Option("--method", help="tmc.")] = "tmc",
    seed: Seed = 0,
    device: Device = "auto",
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """See it work: generate a small camera network, learn from its videos, judge on other people."""
    from tracklearn.app.demo import demo as show

    with Bars() as bars:
        result = show(
            out,
            method=method,
            seed=seed,
            device=device,
            resume=resume,
            progress=bars,
            on_round=_round_line(bars),
        )
    text = result.pop("table")
    _done(Path(result["report"]), result, as_json, f"{text}\n\nopen the report:")


def main() -> None:
    """Entry point: one clear line and exit code 2 for the user's errors, 130 when stopped."""
    # Threads that wait actively slow each other tenfold as soon as another program wants a core. Read when
    # torch is loaded, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except SystemExit as stop:
        if stop.code == STOPPED:
            print("tracklearn: stopped; a command that has --resume goes on with it", file=sys.stderr)
        raise
    except (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError, ImportError) as error:
        _refuse(error, str(error))
    except RuntimeError as error:
        # torch's own: the device has too little memory. Any other is a defect and shows its traceback.
        if type(error).__name__ != "OutOfMemoryError":
            raise
        _refuse(error, "the device is out of memory: lower tmc.clusters_per_batch or the crop size")
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = ": make room, then run the same command with --resume" if full else ""
        where = f"{error.filename}: " if error.filename else ""
        _refuse(error, f"{where}{error.strerror or error}{remedy}")


def _refuse(error: BaseException, message: str) -> None:
    """Say what is wrong in one line and leave with exit code 2; TRACKLEARN_DEBUG=1 shows where it arose."""
    if os.environ.get("TRACKLEARN_DEBUG"):
        raise error
    print("tracklearn: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
