"""What commands share: their options, progress bars, and how a result is told."""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tracklearn.app.refusals import printable

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
LabelledSource = Annotated[
    Path | None,
    typer.Option(
        "--source",
        help="Labelled tracklet set, its truth beside it, that msplr learns from first (see `datasets`).",
    ),
]
Isolate = Annotated[
    bool | None,
    typer.Option(
        "--isolate/--no-isolate", help="Cut tracklets at switches first; on by default in tmc, else off."
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
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse all when a source cannot be read, instead of leaving it out.")
]
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="One camera each: VIDEO, FOLDER or 'PATTERN' of videos, RESULTS.txt+VIDEO, a folder of crops, "
        "or an address such as rtsp://user@host/stream; name=SOURCE names the camera.",
    ),
]


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
            disable=not (self.console.is_terminal and first_process()),
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
        self.console.print(printable(text), highlight=False, markup=False, soft_wrap=True)


def round_line(bars: Bars) -> Callable[[Any], None]:
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


def first_process() -> bool:
    """Whether this process speaks to the user: the only one, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def done(path: Path, result: dict[str, Any], as_json: bool, text: str = "") -> None:
    """Tell the path (and `text`) to a person, or the whole result to a program."""
    if as_json:
        say_json(result)
    else:
        say(f"{text}\n{path}" if text else str(path))


def say(text: str) -> None:
    """A result, on standard output.

    Raises:
        OSError: it cannot be written there; the message says where.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        sys.stdout = io.StringIO()  # what is left of it would fail again at the end
        raise OSError(error.errno, error.strerror, "standard output") from error


def say_json(result: Any) -> None:
    """A result as one line of JSON, which is what it is in any encoding of the output.

    Raises:
        OSError: as `say`.
    """
    from tracklearn.store.files import plain_json

    text = plain_json(result)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text))  # escaped: replaced signs would be other names
    say(text)


def overridden(settings: list[str] | None, **named: tuple[str, Any]) -> list[str]:
    """--set values with the named options behind them, so that an option wins over a repeated setting."""
    extra = [f"{key}={json.dumps(value)}" for key, value in named.values() if value is not None]
    return [*(settings or []), *extra]


def ingest_options(
    detector: str | None, tracker: str | None, threshold: float | None, stride: int | None
) -> dict[str, tuple[str, Any]]:
    return {
        "detector": ("ingest.detector", detector),
        "tracker": ("ingest.tracker", tracker),
        "threshold": ("ingest.threshold", threshold),
        "stride": ("ingest.stride", stride),
    }


def ingest_config(config: Path | None, overrides: list[str]) -> Any:
    from tracklearn.app import pipeline
    from tracklearn.store import config as store

    return store.resolve(pipeline.setting_models(), file=config, overrides=overrides)["ingest"]


def tell_losses(bars: Bars, manifest: Mapping[str, Any], run: Mapping[str, Any] | None = None) -> Any:
    """Say what of the sources is not in the set or the run, a line for every kind; returns it for --json."""
    from tracklearn.app import left_out

    found = left_out.losses(manifest, run)
    for line in left_out.lines(found):
        bars.note(line)
    return found


def command_line() -> str:
    """The command as it was called, for a report: without the passwords of addresses."""
    from tracklearn.store.film.addresses import hide

    return shlex.join(["tracklearn", *map(hide, sys.argv[1:])])
