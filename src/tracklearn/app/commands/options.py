"""What commands share: their options, progress bars, and how a result is told."""

from __future__ import annotations

import io
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracklearn.app.commands.bars import Bars

if TYPE_CHECKING:
    from tracklearn.store.runs import Run
    from tracklearn.store.sets.tracklets import TrackletSet

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
        help="Starting weights: imagenet, osnet_x0_25 or osnet_x1_0 (downloaded once), a .safetensors or "
        ".pth file, a finished run to go on from, or none (random).",
    ),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        help="resnet50, ibn_resnet50_a, mobilenet_v2, tiny, or osnet_x1_0, osnet_x0_75, osnet_x0_5, "
        "osnet_x0_25; inferred from the weights.",
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
        "--isolate/--no-isolate",
        help="Cut tracklets at switches first; on by default, but with preset paper only in tmc and cap.",
    ),
]
Detector = Annotated[
    str | None,
    typer.Option(
        "--detector",
        help="motion, hog, openvino:PATH, onnx:PATH, hub:NAME (transformers), file:PATH (MOTChallenge), or "
        "auto (the default): a hub: detector that is free for any use where one is cached, else motion.",
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
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Processes that work at the same time; this one alone unless given.",
    ),
]
On = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="ray[:ADDRESS]",
        help="Work on a Ray cluster: one on this machine, or the one at ADDRESS, whose machines all see the "
        "same folders, or storage (extra ray).",
    ),
]
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="One camera each: VIDEO, FOLDER or 'PATTERN' of videos, RESULTS.txt+VIDEO, a folder of crops, "
        "or an address such as rtsp://user@host/stream, s3://bucket/film.mp4, 's3://bucket/*.mp4'; "
        "name=SOURCE names the camera.",
    ),
]


def done(path: Path | str, result: dict[str, Any], as_json: bool, text: str = "") -> None:
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
    from tracklearn.app.pipeline.plan import setting_models
    from tracklearn.store import config as store

    return store.resolve(setting_models(), file=config, overrides=overrides)["ingest"]


def tell_losses(bars: Bars, manifest: Mapping[str, Any], run: Mapping[str, Any] | None = None) -> Any:
    """Say what of the sources is not in the set or the run, a line for every kind; returns it for --json."""
    from tracklearn.app.report import left_out

    found = left_out.losses(manifest, run)
    for line in left_out.lines(found):
        bars.note(line)
    return found


def tell_health(bars: Bars, run: Run, tracklet_set: TrackletSet) -> list[dict[str, str]]:
    """Say what does not look right in a run, each with what to do; returns it for --json."""
    from tracklearn.app import health

    found = health.of_run(run, tracklet_set)
    if found:
        bars.note(health.HEADLINE)
    for finding in found:
        bars.note(f"  - {finding}")
    return [finding.to_dict() for finding in found]


def command_line() -> str:
    """The command as it was called, for a report: without the passwords of addresses."""
    from tracklearn.store.film.addresses import hide

    return shlex.join(["tracklearn", *map(hide, sys.argv[1:])])
