"""What can be judged: a run's network, trained or as it was before, weights as they come, an .onnx file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tracklearn.app.model.device import pick_device
from tracklearn.store import config as settings_store
from tracklearn.store.files import hash_file
from tracklearn.store.runs import Run
from tracklearn.store.workers.engine import require_same
from tracklearn.types import Array, Crops, Progress, Refusal

WEIGHTS = ("weights", "start")
_BATCH = 256
_PIXELS = "--mean, --std and --resize belong to .onnx files"


@dataclass(frozen=True)
class Embedder:
    """Something that turns crops into unit features.

    Args:
        height, width: size of the crops it takes, pixels.
        extract: (crops, rows) -> (n, d) float32 unit features.
        record: what a record says of it.
        digest: of what decides its features.
        interpolation: how crops are enlarged to that size, as `extract.Pictures` takes it.
        distance: of unit features, where another person begins, as an exported file says.
    """

    height: int
    width: int
    extract: Callable[[Crops, Array], Array]
    record: dict[str, Any]
    digest: str = field(default="", kw_only=True)
    interpolation: str = field(default="bicubic", kw_only=True)
    distance: float | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Origin:
    """How something that embeds was opened: all that another process needs to open the same.

    Args:
        opens: a function of a file, called with `path` and `options`.
        path: of a run or a file, from the root; or the name of published weights.
        options: by name.
        digest: of what was found there.
    """

    opens: Callable[..., Embedder]
    path: str
    options: tuple[tuple[str, Any], ...]
    digest: str

    def open(self) -> Embedder:
        """The same again.

        Raises:
            ValueError: another one lies there now, or where this process looks; it does not see the device.
        """
        options = dict(self.options)
        if "device" in options:
            pick_device(options["device"])
        found = self.opens(self.path, **options)
        require_same(self.path, found.digest, self.digest)
        return found


@dataclass(frozen=True)
class Model(Embedder):
    """What is judged, and what judging must know of it.

    Args:
        folder: where its evaluations are written unless told otherwise, and stem of their names.
        trained_on: benchmark and split of its training set, and the set, where these are known.
        seen_before: likewise of its further training sets, and of those that its starting weights, a run's,
            had seen.
        origin: how workers open it; None: they cannot.
    """

    folder: Path
    stem: str
    trained_on: TrainedOn | None = None
    seen_before: tuple[TrainedOn, ...] = ()
    origin: Origin | None = None


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
    elsewhere: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str | None = None,
) -> Model:
    """The model of a run folder or of an .onnx file.

    Args:
        path: either.
        which: "weights" for a run's trained network, "start" for the one before training.
        device: where a run's network computes; an .onnx file runs on the CPU.
        elsewhere: as `pick_device` takes it.
        mean, std, interpolation: how an .onnx file wants its pictures, as `ExportedModel` takes them.

    Raises:
        FileNotFoundError: neither is there, or a run has no weights.
        ValueError: an option that belongs to the other kind; as `ExportedModel` and `Run`.
    """
    path = Path(path)
    if which not in WEIGHTS:
        raise Refusal(
            f"--weights is {which!r}, expected weights (trained) or start (before training); other weights "
            "are judged without a run"
        )
    if path.suffix.lower() == ".onnx":
        return _exported(path, which=which, device=device, mean=mean, std=std, interpolation=interpolation)
    if (mean, std, interpolation) != (None, None, None):
        raise Refusal(f"{_PIXELS}: a run knows its own")
    if path.is_file() and path.suffix in (".safetensors", ".pth", ".pt"):
        raise Refusal(f"{path} holds weights: judge them without a run, with --weights {path}")

    run, where = Run(path), pick_device(device, elsewhere=elsewhere)
    found = _of_run(path, which=which, device=where)
    own = [_trained_on(run.path / entry["path"]) for entry in run.sets] if which == "weights" else [None]
    seen, *others = sorted(own, key=lambda known: known is None)  # what is known of comes first
    before = [_trained_on(run.path / entry["path"]) for entry in run.manifest.get("earlier_sets", [])]
    record = {
        **found.record,
        "trained_on": None if seen is None else {"benchmark": seen.benchmark, "split": seen.split},
        "labels_used": run.manifest.get("labels_used", []),
    }
    return Model(
        **{**vars(found), "record": record},
        folder=path,
        stem="evaluation",
        trained_on=seen,
        seen_before=tuple(known for known in (*others, *before) if known is not None),
        origin=run_origin(run, which=which, device=where),
    )


def run_origin(run: Run, *, which: str = "weights", device: str) -> Origin:
    """How workers open the network of a run, of which nothing is opened here; see `open_model`."""
    options = (("which", which), ("device", device))
    return Origin(_of_run, str(Path(run.path).absolute()), options, run_digest(run, which))


def run_digest(run: Run, which: str) -> str:
    """Digest of what decides the features of a run's network, trained or at the start."""
    weights = hash_file(run.weights_path(which))
    return settings_store.digest([run.manifest["digest"], run.manifest["network"], weights])


def _of_run(path: str | Path, *, which: str, device: str) -> Embedder:
    """The network of a run; nothing is opened that it was trained on."""
    from tracklearn.app.model.of_run import load_network
    from tracklearn.learn import embed

    run = Run(path)
    network = load_network(run, which)

    def extract(crops: Crops, rows: Array) -> Array:
        return embed.extract(network, crops, rows, device=device, batch=_BATCH, fixed=True)

    return Embedder(
        network.config.height,
        network.config.width,
        extract,
        {
            "kind": "run",
            "path": str(path),
            "digest": run.manifest["digest"],
            "method": run.manifest["method"],
            "seed": run.manifest["seed"],
            "weights": which,
            "device": device,
        },
        digest=run_digest(run, which),
    )


def open_weights(
    spec: str | os.PathLike[str],
    *,
    device: str | None = None,
    elsewhere: bool = False,
    settings: Sequence[str] = (),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str | None = None,
    progress: Progress | None = None,
) -> Model:
    """The model of weights as they come, before any training here.

    The feature is the one behind the BN neck where the file has a neck, else the pooled map. Folded batch
    norms are left as they are: what training needs measured (METHODS 2.1) does not change what they compute.

    Args:
        spec: a .safetensors or .pth file, "imagenet", or "osnet_x0_25" and its kin, as `weights.load` takes
            them.
        device: where to compute; elsewhere: as `pick_device` takes it.
        settings: "network.key=value" over the network's defaults: backbone (told by a file's arrays), crop
            size, last stride, pooling (told by the arrays).
        mean, std, interpolation: None; they belong to .onnx files.
        progress: told while "imagenet" is downloaded.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no weights ("none"), those of a run, weights that do not fit, or an unknown setting.
    """
    from tracklearn.store import weights as weight_store

    text = os.fspath(spec)
    if text == "none":
        raise Refusal(
            "--weights none is a random network, whose features say nothing: give a file or imagenet"
        )
    if (mean, std, interpolation) != (None, None, None):
        raise Refusal(
            f"{_PIXELS}: weights say in their header what they expect, ImageNet's pixels if nothing"
        )
    published, path = weight_store.is_name(text), Path(os.path.expanduser(text))
    where, changes = pick_device(device, elsewhere=elsewhere), tuple(settings)
    found = _of_weights(text, device=where, settings=changes, progress=progress)
    named = text if published else str(path.absolute())
    return Model(
        **vars(found),
        folder=Path() if published else path.parent,
        stem=f"{text}-{found.record['backbone']}-evaluation" if published else f"{path.stem}-evaluation",
        origin=Origin(_of_weights, named, (("device", where), ("settings", changes)), found.digest),
    )


def _of_weights(
    spec: str, *, device: str, settings: Sequence[str], progress: Progress | None = None
) -> Embedder:
    """The network of weights as they come."""
    from tracklearn.app.pipeline.plan import setting_models
    from tracklearn.app.pipeline.starts import load_weights
    from tracklearn.learn import backbone, embed
    from tracklearn.store import weights as weight_store

    config: Any = settings_store.resolve(setting_models("network"), overrides=settings)["network"]
    if not weight_store.is_name(spec):
        _refuse_of_run(Path(os.path.expanduser(spec)))
    chosen = spec == "imagenet" or "backbone" in config.model_fields_set
    asked = config.backbone if chosen else None
    arrays, info = weight_store.load(spec, backbone=asked, progress=progress)
    change: dict[str, Any] = {"backbone": info.backbone}
    if "pool.p" in arrays and "pooling" not in config.model_fields_set:
        change["pooling"] = "gem"
    network = backbone.build(config.model_copy(update=change), seed=0)
    loaded = load_weights(network, arrays, info)
    network.eval()

    def extract(crops: Crops, rows: Array) -> Array:
        return embed.extract(
            network, crops, rows, device=device, batch=_BATCH, post_bn=loaded.neck, fixed=True
        )

    made = network.config.model_dump()
    return Embedder(
        network.config.height,
        network.config.width,
        extract,
        {"kind": "weights", **info.to_dict(), "network": made, "neck": loaded.neck, "device": device},
        digest=settings_store.digest([info.sha256, made]),
    )


def _refuse_of_run(path: Path) -> None:
    """Refuse weights that lie in a run: it knows the size of its crops, and whom it has seen."""
    for folder in (path.parent, path.parent.parent):
        try:
            run = Run(folder)
        except (Refusal, FileNotFoundError):
            continue
        raise Refusal(
            f"{path} belongs to the run {run.path}, which knows its crops and its training: judge the run, "
            "with --weights weights or --weights start"
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
    if which != "weights":
        raise Refusal(f"--weights {which} belongs to runs: an .onnx file holds one network")
    if device not in (None, "auto", "cpu"):
        raise Refusal(f"--device {device}: an .onnx file is run on the CPU; leave --device out")
    options = {
        "mean": None if mean is None else tuple(mean),
        "std": None if std is None else tuple(std),
        "interpolation": interpolation,
    }
    found = _of_file(path, **options)
    return Model(
        **vars(found),
        folder=path.parent,
        stem=f"{path.stem}-evaluation",
        origin=Origin(_of_file, str(path.absolute()), tuple(options.items()), found.digest),
    )


def _of_file(path: str | Path, **options: Any) -> Embedder:
    """The network of an .onnx file."""
    from tracklearn.app.model.onnx import ExportedModel

    model = ExportedModel(path, **options)
    return Embedder(
        model.height,
        model.width,
        model.extract,
        {
            "kind": "onnx",
            "path": str(path),
            "mean": model.mean,
            "std": model.std,
            "normalisation": model.pixels_from,
            "interpolation": model.interpolation,
            "device": "cpu",
        },
        digest=hash_file(model.path),
        interpolation=model.interpolation,
        distance=model.distance,
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
