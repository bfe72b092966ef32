"""What can be judged: a run's network, trained or as it was before, or the one in an .onnx file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracklearn.types import Array, Crops, Refusal

WEIGHTS = ("weights", "start")
_BATCH = 256


@dataclass(frozen=True)
class Model:
    """What is judged: something that turns crops into unit features.

    Args:
        height, width: size of the crops it takes, pixels.
        extract: (crops, rows) -> (n, d) float32 unit features.
        record: what a record says of it.
        folder: where its evaluations are written unless told otherwise, and stem of their names.
        interpolation: how crops are enlarged to that size, as `extract.Pictures` takes it.
        trained_on: benchmark and split of its training set, and the set, where these are known.
        seen_before: likewise of the sets that its starting weights, those of a run, had seen.
    """

    height: int
    width: int
    extract: Callable[[Crops, Array], Array]
    record: dict[str, Any]
    folder: Path
    stem: str
    interpolation: str = "bicubic"
    trained_on: TrainedOn | None = None
    seen_before: tuple[TrainedOn, ...] = ()


@dataclass(frozen=True)
class TrainedOn:
    """The benchmark's part that a run has seen.

    Args:
        benchmark: its name. split: of its training half.
        path: the set; who is in it says its truth, which this file does not open.
        images: the folder that its images lie in.
    """

    benchmark: str
    split: int
    path: Path
    images: Path


def open_model(
    path: str | Path,
    *,
    which: str = "weights",
    device: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str | None = None,
) -> Model:
    """The model of a run folder or of an .onnx file.

    Args:
        path: either.
        which: "weights" for a run's trained network, "start" for the one before training.
        device: where a run's network computes; an .onnx file runs on the CPU.
        mean, std, interpolation: how an .onnx file wants its pictures, as `ExportedModel` takes them.

    Raises:
        FileNotFoundError: neither is there, or a run has no weights.
        ValueError: an option that belongs to the other kind; as `ExportedModel` and `Run`.
    """
    path = Path(path)
    if which not in WEIGHTS:
        raise Refusal(f"--weights is {which!r}, expected weights (trained) or start (before training)")
    if path.suffix.lower() == ".onnx":
        return _exported(path, which=which, device=device, mean=mean, std=std, interpolation=interpolation)
    if (mean, std, interpolation) != (None, None, None):
        raise Refusal("--mean, --std and --resize belong to .onnx files: a run knows its own")

    from tracklearn.app.model.device import pick_device
    from tracklearn.app.model.of_run import load_network
    from tracklearn.learn import embed
    from tracklearn.store.runs import Run

    run, where = Run(path), pick_device(device)
    network = load_network(run, which)
    seen = _trained_on(run.path / run.manifest["set"]["path"]) if which == "weights" else None
    before = [_trained_on(run.path / entry["path"]) for entry in run.manifest.get("earlier_sets", [])]

    def extract(crops: Crops, rows: Array) -> Array:
        return embed.extract(network, crops, rows, device=where, batch=_BATCH)

    return Model(
        height=network.config.height,
        width=network.config.width,
        extract=extract,
        record={
            "kind": "run",
            "path": str(path),
            "digest": run.manifest["digest"],
            "method": run.manifest["method"],
            "seed": run.manifest["seed"],
            "weights": which,
            "device": where,
            "trained_on": None if seen is None else {"benchmark": seen.benchmark, "split": seen.split},
            "labels_used": run.manifest.get("labels_used", []),
        },
        folder=path,
        stem="evaluation",
        trained_on=seen,
        seen_before=tuple(known for known in before if known is not None),
    )


def _exported(
    path: Path,
    *,
    which: str,
    device: str | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    interpolation: str | None,
) -> Model:
    from tracklearn.app.model.onnx import ExportedModel

    if which != "weights":
        raise Refusal(f"--weights {which} belongs to runs: an .onnx file holds one network")
    if device not in (None, "auto", "cpu"):
        raise Refusal(f"--device {device}: an .onnx file is run on the CPU; leave --device out")
    model = ExportedModel(path, mean=mean, std=std, interpolation=interpolation)
    return Model(
        height=model.height,
        width=model.width,
        extract=model.extract,
        record={
            "kind": "onnx",
            "path": str(path),
            "mean": model.mean,
            "std": model.std,
            "normalisation": model.pixels_from,
            "interpolation": model.interpolation,
            "device": "cpu",
        },
        folder=path.parent,
        stem=f"{path.stem}-evaluation",
        interpolation=model.interpolation,
    )


def _trained_on(where: Path) -> TrainedOn | None:
    """What a training set says of its origin; None where it is not a benchmark's, or has gone."""
    from tracklearn.store.sets.tracklets import open_set

    if not (where / "manifest.json").is_file():
        return None
    opened = open_set(where)
    settings = opened.manifest["settings"]
    if "benchmark" not in settings:
        return None
    return TrainedOn(settings["benchmark"], int(settings["split"]), where, opened.root)
