"""One or several sets as one: their tracks, their parts, what a run's network makes of their crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tracklearn.app.model import shards
from tracklearn.app.model.of_run import load_network, parts_of
from tracklearn.core.whereabouts import Whereabouts
from tracklearn.store.runs import Run
from tracklearn.store.sets.stored import origin_of
from tracklearn.store.workers.engine import Engine
from tracklearn.types import Array, Progress, Refusal, Tracklets

if TYPE_CHECKING:
    from tracklearn.store.identities.journal import Place
    from tracklearn.store.sets.joined import JoinedSets
    from tracklearn.store.sets.tracklets import TrackletSet


@dataclass(frozen=True, eq=False)
class Footage:
    """All tracks of some sets, numbered through.

    Args:
        run: whose network looks at them.
        joined: the sets as one; paths: as they were given; of storage as far as that may be shown.
        parts: the tracks as the run's isolation left them where the run learned from their set, else the
            same, and cut where a person said so; `source` is a track's number in `joined`, `crop` its row
            there.
    """

    run: Run
    joined: JoinedSets
    paths: tuple[str, ...]
    parts: Tracklets

    @property
    def sets(self) -> tuple[TrackletSet, ...]:
        """The sets."""
        return self.joined.members

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names by camid; cameras of one name are one camera, in whatever set."""
        return self.joined.cameras

    @property
    def tracks(self) -> Tracklets:
        """The tracks of all sets."""
        return self.joined.tracklets

    def moment(self, track: int, seconds: float) -> datetime | None:
        """When that was by the clock on the wall, so many seconds into the track's film."""
        return self.joined.moment(track, seconds)

    def whereabouts(self, tracklets: Tracklets, *, together: bool = False) -> Whereabouts:
        """When each was in view, in seconds since 1970 where that is known.

        Where it is not, and films began together, since then; else nan.

        Args:
            tracklets: `tracks` or `parts`.
            together: films of unknown beginnings began at the same moment.
        """
        zero = self.joined.began[tracklets.source]
        if together:
            zero = np.where(np.isnan(zero), tracklets.offset, zero)
        first, last = tracklets.start[:-1], tracklets.start[1:] - 1
        return Whereabouts(tracklets.camid, zero + tracklets.time[first], zero + tracklets.time[last])


def gather(run: str | Path, sets: Sequence[str | Path], cuts: Sequence[Place] = ()) -> Footage:
    """The footage of some sets; `cuts` as `parts_of` takes them.

    Raises:
        FileNotFoundError: no such run or set.
        ValueError: as `store.sets.joined.join`; a set has changed since the run learned from it; the run is
            not finished.
    """
    from tracklearn.store.sets.joined import join

    opened = Run(run)
    opened.weights_path()  # refuses what has not been trained to its end
    found = join(sets)
    for one in found.members:
        _refuse_changed(opened, one, one.path)
    given = tuple(str(origin_of(one.path) or path) for one, path in zip(found.members, sets, strict=True))
    return Footage(opened, found, given, parts_of(opened, found, cuts))


def _refuse_changed(run: Run, one: TrackletSet, path: str | Path) -> None:
    for learned in run.sets:
        same_place = (run.path / learned["path"]).resolve() == Path(path).resolve()
        if same_place and learned["digest"] != one.digest:
            raise Refusal(
                f"{path} has changed since {run.path} learned from it: train again "
                f"(tracklearn train {path}), or put the old set back"
            )


def frame_features(
    footage: Footage, *, device: str, engine: Engine | None = None, progress: Progress | None = None
) -> Array:
    """(n, d) float32 unit features of all crops of all sets, by row; `engine`: by its workers."""
    from tracklearn.learn import embed

    if engine is not None and engine.apart:
        by_set = [
            shards.features(
                footage.run, one, np.arange(one.n_crops), device=device, engine=engine, progress=progress
            )
            for one in footage.sets
        ]
        return np.concatenate(by_set)
    network = load_network(footage.run)
    crops = footage.joined.crops(network.config.height, network.config.width, cache_bytes=0)  # read once
    return embed.extract(network, crops, np.arange(len(crops)), device=device, progress=progress)
