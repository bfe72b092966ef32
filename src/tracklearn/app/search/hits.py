"""The results of a search as rows: rank, distance, camera, track and part, time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np

from tracklearn.app.formats import clock, wall
from tracklearn.core.shown import called
from tracklearn.store.gallery.entries import Gallery
from tracklearn.types import Matches


@dataclass(frozen=True)
class Hit:
    """One result of a search: a part of a track.

    Args:
        rank: from 1, nearest first.
        track: number of its track in the set.
        part: its number in the track, from 1.
        n_parts: how many parts the track has.
        camera: its camera's name.
        start: time of its first frame, seconds.
        end: time of its last frame, seconds.
        at: when its first frame was by the clock on the wall; None where nobody knows when the film began.
        distance: Euclidean distance of the unit features, 0-2.
        crop: row of its representative crop in its set's pictures.
        set: number of its set in the gallery, from 0.
        n_sets: how many sets the gallery has.
        quality: mean detection score of its crops, 0-1; nan where an older program kept none.
        identity: the person that it is taken for; None where nobody tells.
        row: of the gallery, as long as that is not written to.
    """

    rank: int
    track: int
    part: int
    n_parts: int
    camera: str
    start: float
    end: float
    at: datetime | None
    distance: float
    crop: int
    set: int = 0
    n_sets: int = 1
    quality: float = float("nan")
    identity: int | None = None
    row: int = -1

    @property
    def span(self) -> str:
        """Its time span, `0:00:12.4 – 0:00:15.0`."""
        return f"{clock(self.start)} – {clock(self.end)}"

    @property
    def name(self) -> str:
        """What a search takes for it: `12`, `12.2` of a track of several parts, `2:12.2` of several sets."""
        name = called(self.track, self.part, self.n_parts)
        return name if self.n_sets == 1 else f"{self.set + 1}:{name}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values under the field names, for JSON; `at` as ISO 8601."""
        return asdict(self) | {"at": None if self.at is None else self.at.isoformat(timespec="milliseconds")}


def hits(
    gallery: Gallery,
    matches: Matches,
    moment: Callable[[int, int, float], datetime | None],
    query: int = 0,
) -> list[Hit]:
    """The results of one query in order of rank, without the empty places at the end.

    Args:
        gallery: what was searched.
        matches: what was found.
        moment: set, track, seconds into its film -> when that was by the clock on the wall.
        query: which of the queries.
    """
    kept = np.flatnonzero(matches.index[query] >= 0)
    rows, distance = matches.index[query][kept], matches.distance[query][kept].tolist()
    entries, person = gallery.take(rows), gallery.persons(rows).tolist()
    return [
        Hit(
            rank=i + 1,
            track=int(entries.source[i]),
            part=int(entries.part[i]),
            n_parts=int(entries.n_parts[i]),
            camera=entries.camera[i],
            start=float(entries.start[i]),
            end=float(entries.end[i]),
            at=moment(int(entries.set[i]), int(entries.source[i]), float(entries.start[i])),
            distance=float(distance[i]),
            crop=int(entries.crop[i]),
            set=int(entries.set[i]),
            n_sets=len(gallery.sets),
            quality=float(entries.quality[i]),
            identity=person[i] if person[i] >= 0 else None,
            row=int(rows[i]),
        )
        for i in range(len(rows))
    ]


def table(found: Sequence[Hit]) -> list[tuple[str, ...]]:
    """A row of text cells for the head and one for each hit.

    Parts have a column where a track has several, and clock times where one is known.
    """
    columns: dict[str, list[str]] = {
        "rank": [str(h.rank) for h in found],
        "distance": [f"{h.distance:.3f}" for h in found],
        "camera": [h.camera for h in found],
        "track": [str(h.track) for h in found],
        "part": [str(h.part) if h.n_parts > 1 else "" for h in found],
        "time in film": [h.span for h in found],
        "clock time": [wall(h.at) for h in found],
    }
    shown = {n: c for n, c in columns.items() if any(c) or n not in ("part", "clock time")}
    return [tuple(shown), *zip(*shown.values(), strict=True)]


def captions(found: Sequence[Hit]) -> list[str]:
    """For each hit the lines under its picture: rank and distance, camera and number, times."""
    return [
        "\n".join(
            filter(
                None,
                (
                    f"{h.rank} · {h.distance:.3f}",
                    f"{h.camera} · #{h.name}",
                    clock(h.start),
                    wall(h.at),
                ),
            )
        )
        for h in found
    ]
