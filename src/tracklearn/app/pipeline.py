"""The stages in order: ingest, train, index, search, report; and `run`, which does them all.

Each function takes paths and settings and leaves a folder or a file behind; the command line and the Python
interface call nothing else.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

from tracklearn import __version__
from tracklearn.app.presets import choose
from tracklearn.store import config as settings_store
from tracklearn.store.runs import Run, RunWriter, read_json, remove_folder, write_json
from tracklearn.types import Array, Crops, Tracklets

if TYPE_CHECKING:
    from tracklearn.app.search import Searcher
    from tracklearn.learn.backbone import Network
    from tracklearn.learn.train import Prepared, Round
    from tracklearn.store.tracklets import TrackletSet

Progress = Callable[[str, int, "int | None"], None]

METHODS = ("tmc",)
# Film strips of this many tracklets with at most this many frames each go into the report.
MIXED_TRACKLETS = 6
MIXED_ROWS = 400


def pick_device(name: str | None) -> str:
    """`name`, or the best device of this machine for None and "auto".

    Raises:
        ValueError: a CUDA device is asked for and torch sees none.
    """
    import torch

    if name in (None, "auto"):
        return "cuda" if torch.cuda.is_available() else "cpu"
    if str(name).startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            "--device cuda: torch sees no CUDA device here; use --device cpu or install torch for your GPU"
        )
    return str(name)


def method_module(method: str) -> Any:
    """The module of a method: it has Config and method(config).

    Raises:
        ValueError: there is no such method.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is unknown: choose one of {', '.join(METHODS)}")
    from importlib import import_module

    return import_module(f"tracklearn.learn.methods.{method}")


def setting_models(*sections: str) -> dict[str, type[BaseModel]]:
    """The settings models by section name: ingest, network, and one section a method."""
    from tracklearn.learn.backbone import Config as NetworkConfig
    from tracklearn.store.ingest import Config as IngestConfig

    models: dict[str, type[BaseModel]] = {"ingest": IngestConfig, "network": NetworkConfig}
    models |= {name: method_module(name).Config for name in METHODS}
    return {name: models[name] for name in sections or models}


# ---------------------------------------------------------------------------------------------- train


@dataclass(frozen=True)
class TrainPlan:
    """Everything that decides what a training run computes."""

    set_path: Path
    method: str
    config: BaseModel
    network: BaseModel
    weights: dict[str, Any]
    arrays: dict[str, Any]
    info: Any
    preset: str
    device: str
    seed: int

    @property
    def digest(self) -> str:
        """Same digest, same result (at the same number of threads)."""
        from tracklearn.store.tracklets import open_set

        return settings_store.digest(
            {
                "set": open_set(self.set_path).digest,
                "method": self.method,
                "settings": self.config.model_dump(mode="json"),
                "network": self.network.model_dump(mode="json"),
                "weights": self.weights,
                "seed": self.seed,
                "device": self.device.split(":")[0],
            }
        )


def plan_training(
    set_path: str | Path,
    *,
    method: str = "tmc",
    config: BaseModel | None = None,
    network: BaseModel | None = None,
    weights: str = "imagenet",
    preset: str | None = None,
    device: str | None = None,
    seed: int = 0,
    config_file: str | Path | None = None,
    overrides: Sequence[str] = (),
    extra: settings_store.Preset | None = None,
    progress: Progress | None = None,
) -> TrainPlan:
    """Settings, weights and device resolved, before anything is written.

    `config` and `network`, where given, are taken as they are; otherwise preset, `extra` (laid over the
    preset), file and overrides decide.
    The backbone is the network setting's; when only the weights are named it is inferred from them, and with
    `weights="none"` the CPU preset takes the tiny network.

    Raises:
        ValueError: an unknown setting, or weights that do not fit the backbone or cannot be had.
        FileNotFoundError: no such weights, settings file or set.
    """
    from tracklearn.store import weights as weight_store

    device = pick_device(device)
    preset, values = choose(preset, device)
    values = settings_store.merge(values, extra or {})
    models = setting_models("network", method)
    resolved = settings_store.resolve(models, preset=values, file=config_file, overrides=overrides)
    named = _names_backbone(values, config_file, overrides)
    chosen = network or resolved["network"]
    backbone = chosen.backbone if network is not None or named else None  # type: ignore[attr-defined]
    if backbone is None and weights == "none":
        backbone = "tiny" if preset == "cpu" else "resnet50"
    if backbone is None and weights == "imagenet":
        backbone = "mobilenet_v2" if preset == "cpu" else "resnet50"
    arrays, info = weight_store.load(weights, backbone=backbone, progress=progress)
    chosen = chosen.model_copy(update={"backbone": info.backbone or backbone})
    return TrainPlan(
        set_path=Path(set_path),
        method=method,
        config=config or resolved[method],
        network=chosen,
        weights={"name": info.name, "sha256": info.sha256},
        arrays=arrays,
        info=info,
        preset=preset,
        device=device,
        seed=seed,
    )


def _names_backbone(preset: Any, file: str | Path | None, overrides: Sequence[str]) -> bool:
    """Whether the user or the preset chose a backbone, so that it is not to be inferred from the weights."""
    if "backbone" in preset.get("network", {}) or any(
        o.strip().startswith("network.backbone") for o in overrides
    ):
        return True
    if file is None:
        return False
    import tomllib

    return "backbone" in tomllib.loads(Path(file).read_text()).get("network", {})


def starting_network(plan: TrainPlan, crops: Crops, tracklets: Tracklets) -> Network:
    """The network as training starts from it: seed, weights, and norms measured on the crops where needed.

    Folded weights get their batch norms back (METHODS 2.1); a random start gets running statistics, neck
    included, since without them all its features are alike.
    """
    from tracklearn.learn import backbone

    network = backbone.build(plan.network, seed=plan.seed)
    random_start = plan.info.name == "none"
    if not random_start:
        network.load_weights(plan.arrays, info=plan.info)
    if random_start or plan.info.folded:
        rows = tracklets.crop[_spread(tracklets.n_crops, 1024)]
        batches = [crops.read(rows[i : i + 128]) for i in range(0, len(rows), 128)]
        network.calibrate(batches, neck=random_start)
    return network


def _spread(n: int, most: int) -> Array:
    """At most `most` of the rows 0..n−1, evenly spaced."""
    return (
        np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))
        if n
        else np.zeros(0, np.int64)
    )


def train(
    plan: TrainPlan, out: str | Path, *, resume: bool = False, progress: Progress | None = None
) -> Iterator[Round]:
    """Train on a tracklet set without labels and write the run to `out`, yielding each round as it ends.

    Raises:
        FileExistsError: `out` exists and `resume` is off.
        ValueError: the set is unusable, or training stopped because nothing could be clustered; the message
            holds the diagnosis.
    """
    import torch

    from tracklearn.learn import train as loop
    from tracklearn.store.tracklets import open_set

    tracklet_set = open_set(plan.set_path)
    crops = tracklet_set.crops(plan.network.height, plan.network.width)  # type: ignore[attr-defined]
    writer = RunWriter(out, _manifest(plan, tracklet_set), resume=resume)
    if writer.finished:
        return
    began = time.perf_counter()
    network = starting_network(plan, crops, tracklet_set.tracklets)
    if not (writer.path / "start.safetensors").is_file():
        writer.write_start(_arrays(network))
    kept = writer.read_state() if resume else None
    state = loop.State(*kept) if kept else None
    last = state
    method = method_module(plan.method).method(plan.config)
    events = loop.train(
        method,
        network,
        tracklet_set.tracklets,
        crops,
        device=plan.device,
        seed=plan.seed,
        resume=state,
        progress=progress,
    )
    for event in events:
        if isinstance(event, loop.Prepared):
            _write_prepared(writer, event, tracklet_set.tracklets)
        elif isinstance(event, loop.Round):
            writer.write_round(_round_record(event), event.labels.label, event.seconds)
            yield event
        else:
            writer.write_state(event.arrays, {**event.meta, "rounds_done": len(writer.rounds)})
            last = event
    if last is None:
        raise ValueError("training ended before its first round: set the number of epochs to 1 or more")
    writer.manifest["broken_crops"] = getattr(crops, "broken", 0)
    writer.manifest["threads"] = torch.get_num_threads()
    writer.finish(loop.teacher_arrays(last), seconds={"total": time.perf_counter() - began})


def _manifest(plan: TrainPlan, tracklet_set: TrackletSet) -> dict[str, Any]:
    import torch

    return {
        "tracklearn": __version__,
        "digest": plan.digest,
        "method": plan.method,
        "settings": plan.config.model_dump(mode="json"),
        "network": plan.network.model_dump(mode="json"),
        "weights": {**plan.weights, **_info(plan.info)},
        "preset": plan.preset,
        "device": plan.device,
        "seed": plan.seed,
        "set": {"path": os.path.relpath(plan.set_path), "digest": tracklet_set.digest},
        "n_rounds": getattr(plan.config, "epochs", None),
        "versions": {
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def _info(info: Any) -> dict[str, Any]:
    return {
        "folded": info.folded,
        "pixel_mean": list(info.pixel_mean),
        "pixel_std": list(info.pixel_std),
        "asymmetric_padding": info.asymmetric_padding,
    }


def _arrays(network: Network) -> dict[str, Array]:
    return {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}


def _write_prepared(writer: RunWriter, event: Prepared, original: Tracklets) -> None:
    """Keep parts, similarities, and the features of the most mixed tracklets for the report's pictures."""
    rows = mixed_rows(original, event.part)
    writer.write_isolation(
        {
            "part": event.part.astype(np.int32),
            "similarity": event.similarity.astype(np.float32),
            "row": rows,
            "feature": event.features[rows].astype(np.float32),
        },
        {
            "n_before": event.n_before,
            "n_after": event.n_after,
            "dropped": event.dropped,
            "dropped_fraction": event.dropped / max(original.n_crops, 1),
        },
    )


def mixed_rows(tracklets: Tracklets, part: Array) -> Array:
    """Rows of the tracklets that isolation cut into most parts, worst first, those of one part left out."""
    n_parts = np.zeros(len(tracklets), np.int64)
    np.maximum.at(n_parts, tracklets.tracklet, np.maximum(part, -1) + 1)
    # Among equally many parts the one whose smaller parts hold more frames is the more telling picture.
    size = np.bincount(tracklets.tracklet, weights=part > 0, minlength=len(tracklets))
    worst = np.lexsort((-size, -n_parts))[:MIXED_TRACKLETS]
    worst = worst[n_parts[worst] > 1]
    start = tracklets.start
    found = [np.arange(start[i], min(start[i + 1], start[i] + MIXED_ROWS)) for i in worst]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _round_record(event: Round) -> dict[str, Any]:
    return {
        "index": event.index,
        "stage": event.stage,
        "n_clusters": event.n_clusters,
        "noise_fraction": event.noise_fraction,
        "largest_cluster": event.largest_cluster,
        "eps": event.eps,
        "agreement": None if np.isnan(event.agreement) else event.agreement,
        "losses": event.losses,
        "accuracy": event.accuracy,
        "n_iterations": event.n_iterations,
        "diagnosis": list(event.diagnosis),
    }


# ---------------------------------------------------------------------------------- features and index


def load_network(run: Run, which: str = "weights") -> Network:
    """The trained teacher of a run, or with `which="start"` the network before training, in eval mode."""
    from tracklearn.learn import backbone

    network = backbone.build(backbone.Config(**run.manifest["network"]), seed=0)
    network.load_weights(run.weights(which), info=_WeightsNote(**_note(run.manifest["weights"])))
    return network.eval()


@dataclass(frozen=True)
class _WeightsNote:
    """What the run remembers of the starting weights: how pixels are normalised and padded."""

    name: str
    folded: bool
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    asymmetric_padding: bool


def _note(weights: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": weights["name"],
        "folded": False,  # the norms were unfolded before the run's own weights were written
        "pixel_mean": tuple(weights["pixel_mean"]),
        "pixel_std": tuple(weights["pixel_std"]),
        "asymmetric_padding": weights["asymmetric_padding"],
    }


def isolated(run: Run, tracklet_set: TrackletSet) -> Tracklets:
    """The set's tracklets as the run's isolation left them; another set's tracklets as they are."""
    tracklets = tracklet_set.tracklets
    if run.manifest["set"]["digest"] != tracklet_set.digest:
        return tracklets
    return tracklets.split(run.isolation()[0]["part"])


def tracklet_features(
    network: Network,
    tracklet_set: TrackletSet,
    tracklets: Tracklets,
    *,
    device: str,
    progress: Progress | None = None,
) -> Array:
    """(t, d) float32 unit features: the mean over all crops of each tracklet (METHODS 2.6)."""
    from tracklearn.learn import embed

    crops = tracklet_set.crops(network.config.height, network.config.width)
    features = embed.extract(network, crops, tracklets.crop, device=device, progress=progress)
    return embed.pool(features, tracklets.tracklet, len(tracklets))


def index(
    run: str | Path,
    tracklets: str | Path,
    *,
    device: str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Searcher:
    """Embed every tracklet of a set with a trained run and write the gallery to RUN/gallery.

    The set that the run was trained on is indexed as isolation left it; any other set as it is.

    Raises:
        FileExistsError: there is a gallery already and `resume` is off.
    """
    from tracklearn.app.search import Searcher
    from tracklearn.store import gallery
    from tracklearn.store.tracklets import open_set

    opened, tracklet_set = Run(run), open_set(tracklets)
    path = opened.path / "gallery"
    if path.exists() and not resume:
        raise FileExistsError(f"{path} exists: replace it with --resume")
    parts = isolated(opened, tracklet_set)
    network = load_network(opened)
    features = tracklet_features(network, tracklet_set, parts, device=pick_device(device), progress=progress)
    manifest = {
        "tracklearn": __version__,
        "run": opened.manifest["digest"],
        "set": {"path": os.path.relpath(tracklets), "digest": tracklet_set.digest},
    }
    remove_folder(path)
    gallery.build(path, features, parts, tracklet_set.cameras, manifest=manifest)
    return Searcher(opened.path)


# ------------------------------------------------------------------------------------------------- run


def run(
    sources: Sequence[Any],
    out: str | Path,
    *,
    ingest_config: BaseModel,
    plan: Callable[[Path], TrainPlan],
    resume: bool = False,
    progress: Progress | None = None,
    on_round: Callable[[Round], None] | None = None,
    extra_report: Callable[[], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Ingest, train, index and report in one, each stage skipped when its inputs and settings are unchanged.

    Args:
        sources: what `ingest` takes.
        out: folder for set, run and report.html.
        ingest_config: settings of ingest.
        plan: makes the training plan once the set is there.
        resume: go on in an existing folder.
        on_round: told of every round.
        extra_report: further contents for the report, called when training is done.

    Returns:
        Paths and seconds per stage; a stage that was not run again keeps the seconds it took.

    Raises:
        FileExistsError: `out` exists and `resume` is off.
    """
    from tracklearn.app.report import report
    from tracklearn.store import ingest as ingest_store
    from tracklearn.store.tracklets import open_set

    out = Path(out)
    if out.exists() and not resume:
        raise FileExistsError(f"{out} exists: go on with --resume, or choose another --out")
    stages = Stages(out)
    set_path, run_path, report_path = out / "set", out / "run", out / "report.html"

    request = settings_store.digest([ingest_store.request_digest(sources, config=ingest_config)])
    with stages.stage("ingest", request, set_path) as needed:
        if needed:
            ingest_store.ingest(sources, set_path, config=ingest_config, resume=True, progress=progress)

    training = plan(set_path)
    with stages.stage("train", training.digest, run_path) as needed:
        if needed:
            for event in train(training, run_path, resume=True, progress=progress):
                if on_round:
                    on_round(event)

    with stages.stage("index", training.digest, run_path / "gallery") as needed:
        if needed:
            index(run_path, set_path, device=training.device, resume=True, progress=progress)

    extra = extra_report() if extra_report else {}
    content = settings_store.digest(
        [training.digest, open_set(set_path).digest, __version__, extra.get("scores")]
    )
    with stages.stage("report", content, report_path) as needed:
        if needed:
            report(run_path, out=report_path, resume=True, seconds=stages.seconds, **extra)
    return {"set": set_path, "run": run_path, "report": report_path, "seconds": stages.seconds}


class Stages:
    """Which stages of a folder are done, with the digest of what went into each (`stages.json`)."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "stages.json"

    @property
    def done(self) -> dict[str, dict[str, Any]]:
        """Stage -> digest and seconds, as the file says now (the demo and `run` share one file)."""
        return read_json(self.path) if self.path.is_file() else {}

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds each finished stage took when it ran."""
        return {name: entry["seconds"] for name, entry in self.done.items()}

    @contextmanager
    def stage(self, name: str, digest: str, product: Path) -> Iterator[bool]:
        """Whether the stage must run; it is noted as done when the context ends well.

        A product made from other inputs is removed before the stage runs again. An unfinished one is left
        for the stage itself to go on with, or to refuse.
        """
        entry = self.done.get(name)
        if entry and entry["digest"] == digest and product.exists():
            yield False
            return
        if entry is not None:
            self._note(name, None)
            if product.is_dir():
                remove_folder(product)
            else:
                product.unlink(missing_ok=True)
        began = time.perf_counter()
        yield True
        self._note(name, {"digest": digest, "seconds": round(time.perf_counter() - began, 3)})

    def _note(self, name: str, entry: dict[str, Any] | None) -> None:
        done = {key: value for key, value in self.done.items() if key != name}
        write_json(self.path, done if entry is None else {**done, name: entry})
