"""Features of a set's crops by a run's network, by workers, a shard of crops at a time.

A shard is a whole number of batches, so that every batch is the one that a single process makes, and so is
every feature where the device is the same. Each worker loads the network once.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn.app.model.of_run import load_network
from tracklearn.store.runs import Run
from tracklearn.store.workers.engine import ATTEMPTS, Engine
from tracklearn.types import Array, Progress, Refusal, Tracklets

if TYPE_CHECKING:
    from tracklearn.store.sets.tracklets import TrackletSet

BATCH = 256  # crops at a time in the network, as `embed.extract` has it
SHARD = 16 * BATCH


@dataclass(frozen=True, eq=False)
class Shard:
    """Some crops of a set, to be embedded.

    Args:
        run: folder of the run; digest: its own.
        tracklets: folder of the set; content: its digest.
        rows: (n,) int64 of the set's crops.
        device: where to compute.
    """

    run_path: Path
    digest: str
    tracklets: Path
    content: str
    rows: Array
    device: str

    def run(self, progress: Progress | None) -> Array:
        """(n, d) float32 unit features.

        Raises:
            ValueError: the worker sees another run or set there.
        """
        from tracklearn.learn import embed

        network, crops = _opened(self.run_path, self.digest, self.tracklets, self.content)
        return embed.extract(
            network, crops, self.rows, device=self.device, batch=BATCH, progress=progress, fixed=True
        )


@lru_cache(maxsize=1)
def _opened(run_path: Path, digest: str, tracklets: Path, content: str) -> tuple[Any, Any]:
    """The network and the crops, for all shards that come to this process."""
    from tracklearn.store.sets.tracklets import open_set

    run, found = Run(run_path), open_set(tracklets)
    for path, is_, wanted in ((run_path, run.manifest["digest"], digest), (tracklets, found.digest, content)):
        if is_ != wanted:
            raise Refusal(
                f"{path} is another one where a worker looks: all machines must see the same folders"
            )
    network = load_network(run)
    return network, found.crops(network.config.height, network.config.width, cache_bytes=0)


def features(
    run: Run,
    tracklet_set: TrackletSet,
    rows: Array,
    *,
    device: str,
    engine: Engine,
    progress: Progress | None,
) -> Array:
    """(n, d) float32 unit features of crops, by the trained network of a run.

    Memory: the result, and the shards that have just come.

    Args:
        run: whose network. tracklet_set: whose crops. rows: (n,) of them, n ≥ 1.
        device: where each worker computes.
        engine: who computes.
        progress: told of all crops together.

    Raises:
        ValueError: as `embed.extract`; workers died over a shard.
    """
    where = Path(run.path).absolute(), run.manifest["digest"], Path(tracklet_set.path).absolute()
    tasks = [
        Shard(*where, tracklet_set.digest, np.asarray(rows[i : i + SHARD], np.int64), device)
        for i in range(0, len(rows), SHARD)
    ]
    out = None
    with closing(engine.run(tasks, "features", progress)) as outcomes:
        for outcome in outcomes:
            if outcome.lost is not None:
                raise Refusal(
                    f"{ATTEMPTS} workers that embedded crops came to grief ({outcome.lost}): ask for fewer"
                )
            if out is None:
                out = np.empty((len(rows), outcome.value.shape[1]), np.float32)
            first = outcome.number * SHARD
            out[first : first + len(outcome.value)] = outcome.value
    assert out is not None
    return out


def tracklet_features(
    run: Run,
    tracklet_set: TrackletSet,
    tracklets: Tracklets,
    *,
    device: str,
    engine: Engine,
    progress: Progress | None,
) -> Array:
    """(t, d) float32 unit features of tracklets, as `of_run.tracklet_features` makes them in this process."""
    from tracklearn.learn import embed

    made = features(run, tracklet_set, tracklets.crop, device=device, engine=engine, progress=progress)
    return embed.pool(made, tracklets.tracklet, len(tracklets))
