"""The results of a search as rows: rank, tracklet, camera, time, distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tracklearn.app.formats import clock
from tracklearn.store.gallery.folder import Gallery
from tracklearn.types import Matches

HEADER = ("rank", "tracklet", "camera", "time", "distance")


@dataclass(frozen=True)
class Hit:
    """One result of a search.

    Args:
        rank: from 1, nearest first.
        tracklet: number of the tracklet.
        camera: its camera's name.
        start: time of its first frame, seconds.
        end: time of its last frame, seconds.
        distance: Euclidean distance of the unit features, 0-2.
        crop: row of its representative crop in the set's pictures.
    """

    rank: int
    tracklet: int
    camera: str
    start: float
    end: float
    distance: float
    crop: int

    @property
    def span(self) -> str:
        """Its time span, `0:00:12.4 – 0:00:15.0`."""
        return f"{clock(self.start)} – {clock(self.end)}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values under the field names, for JSON."""
        return asdict(self)


def hits(gallery: Gallery, matches: Matches, query: int = 0) -> list[Hit]:
    """The results of one query in order of rank, without the empty places at the end."""
    entries = gallery.entries
    found = zip(matches.index[query].tolist(), matches.distance[query].tolist(), strict=True)
    return [
        Hit(
            rank=rank,
            tracklet=int(entries.tracklet[row]),
            camera=entries.camera[row],
            start=float(entries.start[row]),
            end=float(entries.end[row]),
            distance=float(distance),
            crop=int(entries.crop[row]),
        )
        for rank, (row, distance) in enumerate(found, start=1)
        if row >= 0
    ]


def table(found: Sequence[Hit]) -> list[tuple[str, ...]]:
    """One row of text cells per hit, under `HEADER`: rank, tracklet, camera, time span, distance."""
    return [(str(h.rank), str(h.tracklet), h.camera, h.span, f"{h.distance:.3f}") for h in found]


def captions(found: Sequence[Hit]) -> list[str]:
    """For each hit the lines under its picture: rank and distance, camera and tracklet, time."""
    return [f"{h.rank} · {h.distance:.3f}\n{h.camera} · #{h.tracklet}\n{clock(h.start)}" for h in found]
