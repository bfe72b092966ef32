"""What `--weights` names: published weights, files, runs to go on from, or none; one for each network."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracklearn.store import weights as weight_store
from tracklearn.store.runs import Run
from tracklearn.types import Progress, Refusal

if TYPE_CHECKING:
    from tracklearn.learn.network import Config as NetworkConfig
    from tracklearn.learn.network import Loaded, Network

Spec = str | Run


@dataclass(frozen=True)
class Start:
    """Weights that a network starts from: arrays by name, what is known of them, and whose run they are."""

    arrays: dict[str, Any]
    info: weight_store.WeightsInfo
    run: Run | None = None


def named(weights: str | os.PathLike[str]) -> list[Spec]:
    """The parts of `--weights`, separated by commas, runs opened.

    Raises:
        FileNotFoundError, ValueError: as `Run`; a run that has not finished, or holds damaged weights.
    """
    text = os.fspath(weights)
    parts = [text] if _path(text).exists() else text.split(",")
    return [_run(part) if _is_run(part) else part for part in parts]


def network_settings(specs: Sequence[Spec]) -> dict[str, Any]:
    """Those of the run that is named first, which hold below the user's own; {} where none is a run."""
    runs = [spec for spec in specs if isinstance(spec, Run)]
    return dict(runs[0].manifest["network"]) if runs else {}


def load(
    specs: Sequence[Spec], network: NetworkConfig, *, backbone: str | None, progress: Progress | None
) -> list[Start]:
    """The weights that are named, in order; a run that is named alone gives those of all its networks.

    Args:
        specs: from `named`.
        network: the settings that will hold, but for a backbone that is still to be inferred.
        backbone: the one that the weights must be of; None where the first decides.
        progress: as `store.weights.load` takes it.

    Raises:
        FileNotFoundError, ValueError: as `store.weights.load`.
    """
    starts: list[Start] = []
    for spec in specs:
        paths: Sequence[str | Path] = [spec] if isinstance(spec, str) else spec.trained
        for path in paths if len(specs) == 1 else paths[:1]:
            start = Start(*weight_store.load(path, backbone=backbone, progress=progress))
            # The first decides which backbone the others must be of.
            backbone = backbone or start.info.backbone
            starts.append(start if isinstance(spec, str) else _of_run(spec, start, network))
    return starts


def load_weights(network: Network, arrays: Mapping[str, Any], info: weight_store.WeightsInfo) -> Loaded:
    """`Network.load_weights`, its refusal with the file's name.

    Raises:
        ValueError: the arrays do not fit.
    """
    try:
        return network.load_weights(arrays, info=info)
    except Refusal as error:
        raise Refusal(f"{info.path}: {error}") from error


def _path(text: str) -> Path:
    return Path(os.path.expanduser(text))


def _is_run(part: str) -> bool:
    return not weight_store.is_name(part) and _path(part).is_dir()


def _run(part: str) -> Run:
    run = Run(_path(part))
    run.manifest.require(network=dict, set=dict)
    run.weights_path()  # refuses one that is not finished, before anything else is looked at
    return run


def _of_run(run: Run, start: Start, network: NetworkConfig) -> Start:
    """The start with what its run says of it, and without what the user's own settings leave no place for."""
    arrays, old = dict(start.arrays), run.manifest["network"]
    if network.pooling == "avg" and "pooling" in network.model_fields_set:
        arrays.pop("pool.p", None)
    if network.feature != old.get("feature", network.feature):  # the neck is that of another feature
        arrays = {name: array for name, array in arrays.items() if not name.startswith("neck.")}
    labels = weight_store.owed(run.manifest.get("labels_used", []))
    assert start.info.path is not None
    name = f"{run.path.resolve().name}/{start.info.path.name}"
    return Start(arrays, replace(start.info, name=name, labels=labels), run)
