"""The results of a search as rows: rank, distance, camera, track and part, time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from tracklearn.app.formats import clock, wall
from tracklearn.core.shown import called
from tracklearn.store.gallery.folder import Gallery
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
        crop: row of its representative crop in the set's pictures.
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

    @property
    def span(self) -> str:
        """Its time span, `0:00:12.4 – 0:00:15.0`."""
        return f"{clock(self.start)} – {clock(self.end)}"

    @property
    def name(self) -> str:
        """What a search takes for it: `12`, or `12.2` where its track has several parts."""
        return called(self.track, self.part, self.n_parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values under the field names, for JSON; `at` as ISO 8601."""
        return asdict(self) | {"at": None if self.at is None else self.at.isoformat(timespec="milliseconds")}


def hits(
    gallery: Gallery, matches: Matches, moment: Callable[[int, float], datetime | None], query: int = 0
) -> list[Hit]:
    """The results of one query in order of rank, without the empty places at the end.

    Args:
        gallery: what was searched.
        matches: what was found.
        moment: track, seconds into its film -> when that was by the clock on the wall.
        query: which of the queries.
    """
    entries = gallery.entries
    found = zip(matches.index[query].tolist(), matches.distance[query].tolist(), strict=True)
    return [
        Hit(
            rank=rank,
            track=int(entries.source[row]),
            part=int(entries.part[row]),
            n_parts=int(entries.n_parts[row]),
            camera=entries.camera[row],
            start=float(entries.start[row]),
            end=float(entries.end[row]),
            at=moment(int(entries.source[row]), float(entries.start[row])),
            distance=float(distance),
            crop=int(entries.crop[row]),
        )
        for rank, (row, distance) in enumerate(found, start=1)
        if row >= 0
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
