"""Several tracklet sets read as one: yesterday's and today's, or those of two places.

Nothing is copied or written. Tracks and crops are numbered through in the order of the sets; cameras of one
name are one camera, in whatever set. Clocks stay those of each set, so that times of two sets are never
compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tracklearn.store.config import digest
from tracklearn.store.objects import Stored
from tracklearn.store.sets.setwriter import KIND
from tracklearn.store.sets.stored import origin_of
from tracklearn.store.sets.tracklets import TrackletSet, open_set
from tracklearn.types import Array, Refusal, Tracklets


class JoinedSets(TrackletSet):
    """Some tracklet sets as one; made by `open_sets` and `join`."""

    def __init__(self, members: Sequence[TrackletSet]) -> None:
        self._members = tuple(members)
        names = dict.fromkeys(name for one in members for name in one.cameras if name)
        digests = [one.digest for one in members]
        super().__init__(
            members[0].path,
            {
                "kind": KIND,
                "digest": digests[0] if len(digests) == 1 else digest(digests),
                "settings": _settings([one.manifest.get("settings", {}) for one in members]),
                "cameras": list(names),
                "n_tracklets": sum(int(one.manifest["n_tracklets"]) for one in members),
                "n_crops": sum(one.n_crops for one in members),
                "sources": [source for one in members for source in one.manifest["sources"]],
                "files": {},
                "shards": [],
            },
        )

    @property
    def members(self) -> tuple[TrackletSet, ...]:
        """The sets, in order."""
        return self._members

    @cached_property
    def tracklets(self) -> Tracklets:
        """All tracklets of all sets; 52 bytes a crop."""
        return self.together([one.tracklets for one in self.members])

    def together(self, several: Sequence[Tracklets]) -> Tracklets:
        """Tracklets of each set, such as the parts of its tracks, as tracklets of all sets.

        Args:
            several: one of each set, with its own numbers of tracks, crops, cameras and clocks.

        Returns:
            One after the other; `source`, `crop`, `camid` and `clock` are those of all sets.
        """
        number = {name: camid for camid, name in enumerate(self.cameras)}
        moved, clocks = [], 0
        for i, (one, own) in enumerate(zip(self.members, several, strict=True)):
            camera = np.array([number.get(name, 0) for name in one.cameras], np.int64)
            moved.append(
                replace(
                    own,
                    camid=camera[own.camid],
                    source=own.source + self.first_track[i],
                    crop=own.crop + self.first_crop[i],
                    clock=own.clock + clocks,
                )
            )
            clocks += int(one.tracklets.clock.max(initial=-1)) + 1
        return _after_another(moved)

    @cached_property
    def file(self) -> Array:
        """(t,) int32: entry of `manifest["sources"]` that each tracklet comes from."""
        before = np.cumsum([0, *(len(one.manifest["sources"]) for one in self.members[:-1])])
        files = [one.file + first for one, first in zip(self.members, before, strict=True)]
        return np.concatenate(files).astype(np.int32)

    @cached_property
    def continues(self) -> Array:
        """(t,) int64: the tracklet that each goes on from, −1 for none."""
        pairs = zip(self.members, self.first_track[:-1], strict=True)
        return np.concatenate([np.where(one.continues < 0, -1, one.continues + f) for one, f in pairs])

    @cached_property
    def began(self) -> Array:
        """(t,) float64: when the film of each tracklet began, in seconds since 1970; nan where unknown."""
        return np.concatenate([one.began for one in self.members])

    @cached_property
    def place(self) -> dict[str, pa.Array]:
        """Pictures of several sets lie in no one place.

        Raises:
            ValueError: always.
        """
        raise Refusal("several sets have no place of their own: ask one of them")

    def set_of(self, track: Array | int) -> Array:
        """The number of the set of each track, from 0."""
        return np.searchsorted(self.first_track, track, side="right") - 1

    def moment(self, tracklet: int, seconds: float) -> datetime | None:
        """When that was by the clock on the wall, so many seconds into the tracklet's film; None: unknown."""
        number = int(self.set_of(tracklet))
        return self.members[number].moment(int(tracklet - self.first_track[number]), seconds)

    def reader(self) -> Callable[[int], Array]:
        """Row -> its picture at its own size, as `TrackletSet.reader`."""
        readers = [one.reader() for one in self.members]

        def picture(row: int) -> Array:
            number, own = self._at(row)
            return readers[number](own)

        return picture

    def jpeg(self, row: int) -> bytes:
        """The encoded bytes of a crop row, as `TrackletSet.jpeg`."""
        number, own = self._at(row)
        return self.members[number].jpeg(own)

    def image(self, row: int) -> Array:
        """A crop row at its own size, RGB uint8 (h, w, 3), as `TrackletSet.image`."""
        number, own = self._at(row)
        return self.members[number].image(own)

    def _at(self, row: int) -> tuple[int, int]:
        """The set of a crop row, and its row there."""
        if not 0 <= row < self.n_crops:
            raise IndexError(f"crop row {row} asked for, the sets have 0..{self.n_crops - 1}")
        number = int(np.searchsorted(self.first_crop, row, side="right")) - 1
        return number, int(row - self.first_crop[number])

    def damages(self) -> list[str]:
        """What is wrong with the sets' files, one line each; reads all of them."""
        return [line for one in self.members for line in one.damages()]


def open_sets(paths: str | Path | Sequence[str | Path | Stored]) -> TrackletSet:
    """The tracklet set at a path, or those at several paths as one.

    Raises:
        FileNotFoundError, ValueError: as `open_set`, of several as `join`.
    """
    several = [paths] if isinstance(paths, str | Path) else list(paths)
    return open_set(several[0]) if len(several) == 1 else join(several)


def join(paths: Sequence[str | Path | Stored]) -> JoinedSets:
    """The sets at some paths as one, if they can be one.

    Raises:
        FileNotFoundError: no such set.
        ValueError: no set; one that is no set, is empty or given twice; two cameras of one name.
    """
    found = [open_set(path) for path in paths]
    if not found:
        raise Refusal("no set is given: name the tracklet sets to look through")
    named = [origin_of(one.path) or one.path for one in found]
    for one, path in zip(found, named, strict=True):
        if not one.manifest["n_tracklets"]:
            raise Refusal(f"{path} holds no tracks: nobody was found in it")
        if any(other is not one and other.digest == one.digest for other in found):
            raise Refusal(f"{path} is given twice, or another set holds the same tracks: give it once")
        if len(set(filter(None, one.cameras))) < len(list(filter(None, one.cameras))):
            raise Refusal(f"{path} has two cameras with one name: {', '.join(one.cameras)}")
    made = JoinedSets(found)
    _refuse_namesakes(made, named)
    return made


def _refuse_namesakes(made: JoinedSets, paths: Sequence[Path | Stored]) -> None:
    """One camera is in one place: of two sets that have it, the films do not run at the same time."""
    if len(made.members) < 2:
        return
    t = made.tracklets
    begin, end = made.began + t.time[t.start[:-1]], made.began + t.time[t.start[1:] - 1]
    number = made.set_of(np.arange(len(t)))
    for camid, name in enumerate(made.cameras):
        own = (t.camid == camid) & np.isfinite(begin)
        spans = sorted(
            (float(begin[own & (number == s)].min()), float(end[own & (number == s)].max()), int(s))
            for s in np.unique(number[own])
        )
        for (_, before, a), (after, _, b) in pairwise(spans):
            if after < before:
                raise Refusal(
                    f"two cameras with one name: {name!r} of {paths[a]} and of {paths[b]} film at the same "
                    "time; ingest one of the sets again under another name"
                )


def _settings(several: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What all sets were made with; where they differ, the value of each."""
    names = dict.fromkeys(name for one in several for name in one)
    values = {name: [one.get(name) for one in several] for name in names}
    return {name: v[0] if all(x == v[0] for x in v) else v for name, v in values.items()}


def _after_another(several: Sequence[Tracklets]) -> Tracklets:
    """Tracklets one after the other."""
    arrays = [each.arrays() for each in several]
    edges = np.cumsum([0, *(len(each) for each in several)])
    joined = {name: np.concatenate([a[name] for a in arrays]) for name in arrays[0] if name != "tracklet"}
    numbers = [a["tracklet"] + edge for a, edge in zip(arrays, edges[:-1], strict=True)]
    return Tracklets(tracklet=np.concatenate(numbers), **joined)
