"""Training's first look at all crops by workers: with the weights that it starts from, as it would itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tracklearn.app.model import shards
from tracklearn.app.model.of_run import load_network
from tracklearn.app.model.open import Embedder, Origin, run_digest
from tracklearn.store.runs import Run
from tracklearn.store.workers.engine import Engine
from tracklearn.types import Array, Crops, Progress

if TYPE_CHECKING:
    from tracklearn.store.picture.crops import StoredCrops
    from tracklearn.store.sets.tracklets import TrackletSet


def by_workers(
    run: Path,
    tracklet_set: TrackletSet,
    crops: StoredCrops,
    *,
    device: str,
    precision: str,
    engine: Engine,
    progress: Progress | None,
) -> Callable[[Array], Array]:
    """Crop rows -> their features, as `learn.train.train` takes it for `look`.

    Args:
        run: folder of the run, in which the starting weights lie already; the others need not.
        tracklet_set: what is learned from, where workers see it.
        crops: of this process; they hear of those that workers could not read.
        device, precision: where and how each worker computes.
        engine: whose workers.
        progress: told of all crops together.
    """
    options = (("device", device), ("precision", precision))
    origin = Origin(_start, str(run.absolute()), options, run_digest(Run(run), "start"))

    pictures = shards.SetCrops.of(tracklet_set, crops.height, crops.width)

    def look(rows: Array) -> Array:
        asked = shards.shards_of(origin, pictures, rows)
        made, lost = shards.gathered(asked, engine, progress, what="isolation")
        crops.unreadable.update(lost)
        return made

    return look


def _start(path: str, *, device: str, precision: str) -> Embedder:
    """The network that a run starts from, in the order of memory in which training has it."""
    import torch

    from tracklearn.learn import embed
    from tracklearn.learn.compute import PRECISIONS

    run = Run(path)
    network = load_network(run, "start")
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def extract(crops: Crops, rows: Array) -> Array:
        return embed.extract(
            network, crops, rows, device=device, batch=shards.BATCH, dtype=PRECISIONS[precision], fixed=True
        )

    record = {"kind": "start", "path": path, "device": device}
    return Embedder(
        network.config.height, network.config.width, extract, record, digest=run_digest(run, "start")
    )
