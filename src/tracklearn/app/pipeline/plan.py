"""What a training run computes: settings, weights and device resolved before anything is written."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

from tracklearn.app.model.device import pick_device
from tracklearn.app.pipeline import starts as starting
from tracklearn.app.pipeline.presets import choose
from tracklearn.app.pipeline.starts import Start, load_weights
from tracklearn.learn.methods.named import method_module, names, takes_source
from tracklearn.store import config as settings_store
from tracklearn.types import Array, Crops, Progress, Refusal, Tracklets

if TYPE_CHECKING:
    from tracklearn.learn.compute import Config as ComputeConfig
    from tracklearn.learn.method import Material, Method
    from tracklearn.learn.network import Config as NetworkConfig
    from tracklearn.learn.network import Network
    from tracklearn.store.picture.crops import StoredCrops
    from tracklearn.store.sets.tracklets import TrackletSet


def _seeded(config: BaseModel, seed: int) -> BaseModel:
    """Settings that hold a seed of their own follow the run's, unless the user gave one."""
    if "seed" not in type(config).model_fields or "seed" in config.model_fields_set:
        return config
    return config.model_copy(update={"seed": seed})


def setting_models(*sections: str) -> dict[str, type[BaseModel]]:
    """The settings models by section name: ingest, network, train, and one section a method."""
    from tracklearn.learn.backbone import Config as NetworkConfig
    from tracklearn.learn.compute import Config as ComputeConfig
    from tracklearn.store.ingest.ingest import Config as IngestConfig

    models: dict[str, type[BaseModel]] = {
        "ingest": IngestConfig,
        "network": NetworkConfig,
        "train": ComputeConfig,
    }
    models |= {name: method_module(name).Config for name in names()}
    return {name: models[name] for name in sections or models}


@dataclass(frozen=True)
class TrainPlan:
    """Everything that decides what a training run computes.

    Args:
        sets: the tracklet sets, which are learned from as one.
        method: its name.
        config: its settings.
        network: which network.
        compute: how training is computed.
        starts: weights of the students, one for each, or one for all.
        source: labelled tracklet set that the method learns from first, its truth beside it.
        preset: name of the preset that the settings began with.
        device: where to compute.
        seed: of every random choice.
    """

    sets: tuple[Path, ...]
    method: str
    config: BaseModel
    network: NetworkConfig
    compute: ComputeConfig
    starts: tuple[Start, ...]
    preset: str
    device: str
    seed: int
    source: Path | None = None

    def open(self) -> TrackletSet:
        """The set that is learned from, or the sets as one.

        Raises:
            FileNotFoundError, ValueError: as `open_sets`.
        """
        from tracklearn.store.sets.joined import open_sets

        return open_sets(self.sets)

    @property
    def weights(self) -> dict[str, Any]:
        """Name and sha256 of the starting weights, joined by commas where there are several."""
        infos = [start.info for start in self.starts]
        if len(infos) == 1:
            return {"name": infos[0].name, "sha256": infos[0].sha256}
        return {
            "name": ",".join(i.name for i in infos),
            "sha256": ",".join(i.sha256 or "" for i in infos),
        }

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user must know of the starting weights, a line each."""
        return tuple(dict.fromkeys(start.info.notice for start in self.starts if start.info.notice))

    @property
    def digest(self) -> str:
        """Same digest, same result (at the same number of threads and processes)."""
        compute = self.compute.model_dump(mode="json", include={"precision", "compile"})
        network = self.network.model_dump(mode="json")
        if network["feature"] == "embedding":
            del network["feature"]  # younger than the digests of runs that are still to go on
        return settings_store.digest(
            {
                "set": self.open().digest,
                "method": self.method,
                "settings": self.config.model_dump(mode="json"),
                "network": network,
                "compute": compute,
                "weights": self.weights,
                "seed": self.seed,
                "device": self.device.split(":")[0],
                **({"source": self._source_digest()} if self.source is not None else {}),
            }
        )

    def _source_digest(self) -> str:
        from tracklearn.store.sets.tracklets import open_set, read_truth

        assert self.source is not None
        return settings_store.digest([open_set(self.source).digest, read_truth(self.source).pid.tolist()])

    def value(self) -> Method:
        """The method with its settings, as `learn.train.train` runs it."""
        module = method_module(self.method)
        value: Method = module.method(self.config, *self._labelled())
        return value

    def _labelled(self) -> tuple[Material, Array] | tuple[()]:
        """The source's tracklets and crops, and the person of each tracklet."""
        from tracklearn.core.noise import tracklet_pid
        from tracklearn.learn.method import Material
        from tracklearn.store.sets.tracklets import open_set, read_truth

        if self.source is None:
            return ()
        opened = open_set(self.source)
        pid = tracklet_pid(opened.tracklets, read_truth(self.source))
        return Material(opened.tracklets, self.crops(opened)), pid

    def check(self) -> None:
        """Refuse what could only fail: no round to train, weights that are too many or do not fit.

        Raises:
            ValueError: the line names the setting or file, and what to do.
        """
        method = self.value()
        if not sum(stage.rounds for stage in method.stages):
            raise Refusal(f"method {self.method} is set to train for 0 epochs: set 1 or more")
        if len(self.starts) not in (1, method.networks):
            names = ",".join(start.info.name for start in self.starts)
            raise Refusal(
                f"weights {names} are {len(self.starts)} files, method {self.method} trains "
                f"{method.networks} network(s): give one for each, or one for all"
            )
        for start in self.starts:
            self.network_of(start, seed=0)

    def check_out(self, out: str | Path) -> None:
        """Refuse to write the run over the one that it is to start from.

        Raises:
            ValueError: weights lie in `out`.
        """
        for start in self.starts:
            if start.info.path is not None and start.info.path.resolve().is_relative_to(Path(out).resolve()):
                raise Refusal(
                    f"--weights {start.info.name} lies in {out}, which the training is to write: "
                    "choose another --out"
                )

    def check_cameras(self, n: int) -> None:
        """Refuse to learn from the tracklets of n cameras a method that needs more.

        Raises:
            ValueError: it needs more.
        """
        needed = self.value().cameras
        if n < needed:
            have = "one camera" if n == 1 else f"{n} cameras"
            raise Refusal(
                f"the set has {have}, method {self.method} learns across {needed} or more: use --method tmc, "
                "or add a camera"
            )

    def network_of(self, start: Start, *, seed: int) -> Network:
        """A network with the weights of `start`, what they leave open by `seed`.

        Raises:
            ValueError: they do not fit; the message names the file.
        """
        from tracklearn.learn import backbone

        network = backbone.build(self.network, seed=seed)
        if start.info.name != "none":
            load_weights(network, start.arrays, start.info)
        return network

    def crops(self, opened: TrackletSet) -> StoredCrops:
        """A set's crops at the network's size, kept as the settings say."""
        bound = self.compute.cache_bytes
        return opened.crops(
            self.network.height, self.network.width, cache_bytes=None if bound == "auto" else bound
        )


def plan_training(
    sets: str | Path | Sequence[str | Path],
    *,
    method: str = "tmc",
    config: BaseModel | None = None,
    network: NetworkConfig | None = None,
    weights: str = "imagenet",
    preset: str | None = None,
    device: str | None = None,
    seed: int = 0,
    config_file: str | Path | None = None,
    overrides: Sequence[str] = (),
    extra: settings_store.Preset | None = None,
    source: str | Path | None = None,
    progress: Progress | None = None,
) -> TrainPlan:
    """Settings, weights and device resolved, before anything is written.

    `sets` is one tracklet set, or several that are learned from as one. `config` and `network`, where given,
    are taken as they are; otherwise preset, `extra` (laid over the preset), file and overrides decide.
    `weights` may name one file or run for each network of the method, separated by commas; network and crop
    size of a run are laid over the preset. `source` is a labelled set, for methods that learn from one first.
    The backbone is the network setting's; when only the weights are named it is inferred from them, and with
    `weights="none"` the CPU preset takes the tiny network.

    Raises:
        ValueError: an unknown setting; weights that do not fit the network or cannot be had; whatever else
            `TrainPlan.check` finds.
        FileNotFoundError: no such weights, settings file or set.
    """
    from tracklearn.learn.compute import settled
    from tracklearn.store.sets.stored import local

    takes = takes_source(method)  # refuses an unknown method too
    if source is not None and not takes:
        raise Refusal(f"method {method} does not learn from a labelled source set: leave out --source")
    paths = tuple(map(local, [sets] if isinstance(sets, str | Path) else sets))
    source = None if source is None else local(source)
    if source is not None and Path(source).resolve() in [path.resolve() for path in paths]:
        raise Refusal("--source is the target itself, whose labels training must not see: give another")
    device = pick_device(device)
    preset, values = choose(preset, device)
    specs = starting.named(weights)
    bare = {**values, "network": {}}
    values, bare = (
        settings_store.merge(
            settings_store.merge(one, {"network": starting.network_settings(specs)}), extra or {}
        )
        for one in (values, bare)
    )
    # All sections are known here, so that one file can serve ingest and training.
    models = setting_models()
    resolved = settings_store.resolve(models, preset=values, file=config_file, overrides=overrides)
    named = _names_backbone(values, config_file, overrides)
    chosen = network or resolved["network"]
    backbone = chosen.backbone if network is not None or named else None  # type: ignore[attr-defined]
    if backbone is None and weights == "none":
        backbone = "tiny" if preset == "cpu" else "resnet50"
    if backbone is None and weights == "imagenet":
        backbone = "mobilenet_v2" if preset == "cpu" else "resnet50"
    starts = starting.load(specs, chosen, backbone=backbone, progress=progress)  # type: ignore[arg-type]
    backbone = backbone or starts[0].info.backbone
    if network is None and weights != "none" and (backbone or "").startswith("osnet"):
        # Its published weights are of whole crops and the mean of the map: other sizes and another pooling
        # cost more than they save (docs/log.md, "OSNet").
        chosen = settings_store.resolve(models, preset=bare, file=config_file, overrides=overrides)["network"]
    plan = TrainPlan(
        sets=paths,
        method=method,
        config=_seeded(config or resolved[method], seed),
        network=chosen.model_copy(update={"backbone": backbone}),  # type: ignore[arg-type]
        compute=settled(resolved["train"], device),  # type: ignore[arg-type]
        starts=tuple(starts),
        preset=preset,
        device=device,
        seed=seed,
        source=None if source is None else Path(source),
    )
    if len(starts) > len(specs):  # a run may have more networks than this method
        plan = replace(plan, starts=tuple(starts[: plan.value().networks]))
    plan.check()
    return plan


def _names_backbone(preset: Any, file: str | Path | None, overrides: Sequence[str]) -> bool:
    """Whether the user or the preset chose a backbone, so that it is not to be inferred from the weights."""
    if "backbone" in preset.get("network", {}) or any(
        o.strip().startswith("network.backbone") for o in overrides
    ):
        return True
    if file is None:
        return False
    return "backbone" in tomllib.loads(Path(file).read_text(encoding="utf-8")).get("network", {})


def starting_networks(plan: TrainPlan, crops: Crops, tracklets: Tracklets) -> list[Network]:
    """The networks as training starts from them: seed, weights, and norms measured where needed.

    Folded weights get their batch norms back (METHODS 2.1); a random start gets running statistics, neck
    included, since without them all its features are alike. Further networks of a method have seeds of their
    own; what weights leave open, or all of a random start, differs between them.
    """
    networks = []
    for k in range(plan.value().networks):
        start = plan.starts[min(k, len(plan.starts) - 1)]
        network = plan.network_of(start, seed=plan.seed + k)
        random_start = start.info.name == "none"
        if random_start or start.info.folded:
            rows = tracklets.crop[_spread(tracklets.n_crops, 1024)]
            batches = [crops.read(rows[i : i + 128]) for i in range(0, len(rows), 128)]
            network.calibrate(batches, neck=random_start)
        networks.append(network)
    return networks


def _spread(n: int, most: int) -> Array:
    """At most `most` of the rows 0..n−1, evenly spaced."""
    return (
        np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))
        if n
        else np.zeros(0, np.int64)
    )
