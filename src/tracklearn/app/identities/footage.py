"""One or several sets as one: their tracks, their parts, what a run's network makes of their crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tracklearn.app.model import shards
from tracklearn.app.model.of_run import load_network, parts_of
from tracklearn.core.whereabouts import Whereabouts
from tracklearn.store.runs import Run
from tracklearn.store.workers.engine import Engine
from tracklearn.types import Array, Progress, Refusal, Tracklets

if TYPE_CHECKING:
    from tracklearn.store.sets.tracklets import TrackletSet


@dataclass(frozen=True, eq=False)
class Footage:
    """All tracks of some sets, numbered through.

    Args:
        run: whose network looks at them.
        sets: the sets; paths: as they were given.
        cameras: names by camid; cameras of one name are one camera, in whatever set.
        tracks: of all sets; `source` is a track's own number here, `crop` its row of all crops.
        parts: the tracks as the run's isolation left them where the set is the run's own, else the
            same; cut where a person said so.
        first_track, first_crop: (s + 1,) int64, numbers of each set's first track and crop.
    """

    run: Run
    sets: tuple[TrackletSet, ...]
    paths: tuple[str, ...]
    cameras: tuple[str, ...]
    tracks: Tracklets
    parts: Tracklets
    first_track: Array
    first_crop: Array

    def set_of(self, track: Array) -> Array:
        """The set of each track."""
        return np.searchsorted(self.first_track, track, side="right") - 1

    def image(self, crop: int) -> Array:
        """A picture by its row of all crops; ValueError or OSError where it cannot be read."""
        number = int(np.searchsorted(self.first_crop, crop, side="right")) - 1
        return self.sets[number].image(int(crop - self.first_crop[number]))

    def moment(self, track: int, seconds: float) -> datetime | None:
        """When that was by the clock on the wall, so many seconds into the track's film."""
        number = int(self.set_of(np.array(track)))
        return self.sets[number].moment(int(track - self.first_track[number]), seconds)

    def whereabouts(self, tracklets: Tracklets, *, together: bool = False) -> Whereabouts:
        """When each was in view, in seconds since 1970 where that is known.

        Where it is not, and films began together, since then; else nan.

        Args:
            tracklets: `tracks` or `parts`.
            together: films of unknown beginnings began at the same moment.
        """
        t = len(tracklets)
        begin, end = np.full(t, np.nan), np.full(t, np.nan)
        first, last = tracklets.start[:-1], tracklets.start[1:] - 1
        for i in np.flatnonzero(tracklets.length > 0):
            began = self.moment(int(tracklets.source[i]), 0.0)
            if began is not None:
                zero = (began if began.tzinfo else began.replace(tzinfo=UTC)).timestamp()
            elif together:
                zero = float(tracklets.offset[i])
            else:
                continue
            begin[i], end[i] = zero + tracklets.time[first[i]], zero + tracklets.time[last[i]]
        return Whereabouts(tracklets.camid, begin, end)


def gather(run: str | Path, sets: Sequence[str | Path]) -> Footage:
    """The footage of some sets.

    Raises:
        FileNotFoundError: no such run or set.
        ValueError: no set; one that is given twice, is empty, or has changed since the run learned from it;
            the run is not finished; two cameras of one name.
    """
    from tracklearn.store.sets.tracklets import open_set

    opened, found = Run(run), [open_set(path) for path in sets]
    opened.weights_path()  # refuses what has not been trained to its end
    if not found:
        raise Refusal("no set is given: name the tracklet sets to look through")
    for one, path in zip(found, sets, strict=True):
        _refuse(opened, one, str(path), [other for other in found if other is not one])
    names = list(dict.fromkeys(name for one in found for name in one.cameras if name))
    cameras = {name: number for number, name in enumerate(names)}
    tracks, parts = [], []
    first_track, first_crop, clocks = [0], [0], 0
    for one in found:
        number = np.array([cameras.get(name, 0) for name in one.cameras], np.int64)
        of_track = one.tracklets
        shift = (first_track[-1], first_crop[-1], clocks)
        tracks.append(_moved(of_track, number, *shift))
        parts.append(_moved(parts_of(opened, one), number, *shift))
        first_track.append(first_track[-1] + len(of_track))
        first_crop.append(first_crop[-1] + one.n_crops)
        clocks += int(of_track.clock.max(initial=-1)) + 1
    made = Footage(
        run=opened,
        sets=tuple(found),
        paths=tuple(map(str, sets)),
        cameras=tuple(names),
        tracks=_joined(tracks),
        parts=_joined(parts),
        first_track=np.array(first_track),
        first_crop=np.array(first_crop),
    )
    _refuse_namesakes(made)
    return made


def _refuse(run: Run, one: TrackletSet, path: str, others: Sequence[TrackletSet]) -> None:
    if not len(one.tracklets):
        raise Refusal(f"{path} holds no tracks: nobody was found in it")
    if any(other.digest == one.digest for other in others):
        raise Refusal(f"{path} is given twice, or another set holds the same tracks: give it once")
    if len(set(filter(None, one.cameras))) < len(list(filter(None, one.cameras))):
        raise Refusal(f"{path} has two cameras with one name: {', '.join(one.cameras)}")
    learned = run.manifest["set"]
    same_place = (run.path / learned["path"]).resolve() == Path(path).resolve()
    if same_place and learned["digest"] != one.digest:
        raise Refusal(
            f"{path} has changed since {run.path} learned from it: train again (tracklearn train {path}), or "
            "put the old set back"
        )


def _refuse_namesakes(footage: Footage) -> None:
    """One camera is in one place: of two sets that have it, the films do not run at the same time."""
    where = footage.whereabouts(footage.tracks)
    number = footage.set_of(np.arange(len(footage.tracks)))
    for camid, name in enumerate(footage.cameras):
        own = (where.camid == camid) & np.isfinite(where.begin)
        spans = [
            (float(where.begin[own & (number == s)].min()), float(where.end[own & (number == s)].max()), s)
            for s in np.unique(number[own])
        ]
        spans.sort()
        for (_, end, a), (begin, _, b) in pairwise(spans):
            if begin < end:
                paths = footage.paths
                raise Refusal(
                    f"two cameras with one name: {name!r} of {paths[a]} and of {paths[b]} film at the same "
                    "time; ingest one of the sets again under another name"
                )


def _moved(tracklets: Tracklets, camera: Array, track: int, crop: int, clock: int) -> Tracklets:
    """Tracklets of one set with numbers of all sets."""
    return replace(
        tracklets,
        camid=camera[tracklets.camid],
        source=tracklets.source + track,
        crop=tracklets.crop + crop,
        clock=tracklets.clock + clock,
    )


def _joined(several: Sequence[Tracklets]) -> Tracklets:
    """One after the other."""
    arrays = [each.arrays() for each in several]
    edges = np.cumsum([0, *(len(each) for each in several)])
    joined = {name: np.concatenate([a[name] for a in arrays]) for name in arrays[0] if name != "tracklet"}
    numbers = [a["tracklet"] + edge for a, edge in zip(arrays, edges[:-1], strict=True)]
    return Tracklets(tracklet=np.concatenate(numbers), **joined)


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
    size = network.config.height, network.config.width
    made = [
        embed.extract(
            network, one.crops(*size, cache_bytes=0), np.arange(one.n_crops), device=device, progress=progress
        )
        for one in footage.sets
    ]
    return np.concatenate(made)
