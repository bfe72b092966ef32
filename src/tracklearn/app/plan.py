"""What a training run computes: settings, weights and device resolved before anything is written."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

from tracklearn.app.presets import choose
from tracklearn.store import config as settings_store
from tracklearn.types import Array, Crops, Tracklets

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracklearn.learn.network import Config as NetworkConfig
    from tracklearn.learn.network import Network
    from tracklearn.store.weights import WeightsInfo

    Progress = Callable[[str, int, int | None], None]

METHODS = ("tmc",)


def pick_device(name: str | None) -> str:
    """`name`, or the best device of this machine for None and "auto".

    Raises:
        ValueError: no such device, or torch does not see it.
    """
    import torch

    if name in (None, "auto"):
        return "cuda" if torch.cuda.is_available() else "cpu"
    text = str(name)
    kind, _, number = text.partition(":")
    if kind not in ("cpu", "cuda") or (number and not (kind == "cuda" and number.isdecimal())):
        raise ValueError(f"--device {text!r} is unknown: expected auto, cpu, cuda or cuda:N")
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" and int(number or 0) >= n_gpus:
        raise ValueError(
            f"--device {text}: torch sees {n_gpus} CUDA devices here; use --device cpu, or install torch for "
            "your GPU"
        )
    return text


def method_module(method: str) -> Any:
    """The module of a method: it has Config and method(config).

    Raises:
        ValueError: there is no such method.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is unknown: choose one of {', '.join(METHODS)}")
    return import_module(f"tracklearn.learn.methods.{method}")


def setting_models(*sections: str) -> dict[str, type[BaseModel]]:
    """The settings models by section name: ingest, network, and one section a method."""
    from tracklearn.learn.backbone import Config as NetworkConfig
    from tracklearn.store.ingest import Config as IngestConfig

    models: dict[str, type[BaseModel]] = {"ingest": IngestConfig, "network": NetworkConfig}
    models |= {name: method_module(name).Config for name in METHODS}
    return {name: models[name] for name in sections or models}


@dataclass(frozen=True)
class TrainPlan:
    """Everything that decides what a training run computes."""

    set_path: Path
    method: str
    config: BaseModel
    network: NetworkConfig
    weights: dict[str, Any]
    arrays: dict[str, Any]
    info: WeightsInfo
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
    network: NetworkConfig | None = None,
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

    method_module(method)
    device = pick_device(device)
    preset, values = choose(preset, device)
    values = settings_store.merge(values, extra or {})
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
    arrays, info = weight_store.load(weights, backbone=backbone, progress=progress)
    chosen = chosen.model_copy(update={"backbone": info.backbone or backbone})
    return TrainPlan(
        set_path=Path(set_path),
        method=method,
        config=config or resolved[method],
        network=chosen,  # type: ignore[arg-type]
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
