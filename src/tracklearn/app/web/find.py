"""Searching for the page: results over all cameras with distance and probability, and when they were."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tracklearn.app.formats import clock, wall
from tracklearn.app.web.opened import Opened, Served
from tracklearn.app.web.uploads import Uploads
from tracklearn.core.calibration import Curve
from tracklearn.store.files import DamagedError, read_json
from tracklearn.store.identities.folder import CALIBRATION
from tracklearn.types import Refusal

MOST = 200  # results of a search
_PAIRS = 2048  # parts of different cameras by which it is measured what a camera adds


@dataclass(frozen=True)
class Query:
    """What is asked.

    Args:
        part: address of a part of the gallery; or
        picture: id of a picture that was sent, and
        box: who in it is meant, pixels; the whole where it is None.
        k: number of results.
        camera: only of this camera.
        since, until: only in view at some time between these, seconds into the film.
        identity: only of this person.
        min_quality: only with at least this quality, 0-1.
        parts: every part counts, not the nearest of each track alone.
    """

    part: str | None = None
    picture: str | None = None
    box: list[float] | None = None
    k: int = 24
    camera: str | None = None
    since: float | None = None
    until: float | None = None
    identity: int | None = None
    min_quality: float | None = None
    parts: bool = False


@dataclass(frozen=True)
class Chances:
    """What distances of the gallery's features mean, as far as known pairs tell.

    Args:
        curve: distance within a camera -> probability of one person.
        shift: what another camera adds to squared distances.
        trusted: whether people can be told apart here at all.
    """

    curve: Curve
    shift: float
    trusted: bool

    def __call__(self, distance: float, *, same_camera: bool) -> float:
        squared = distance**2 - (0.0 if same_camera else self.shift)
        return float(self.curve(max(squared, 0.0) ** 0.5))


class Finder:
    """Searches for one server.

    Args:
        served: what is searched.
        uploads: pictures that were sent.
    """

    def __init__(self, served: Served, uploads: Uploads) -> None:
        self.served, self.uploads = served, uploads
        self._known: tuple[Any, float, Chances | None] | None = None
        self._lock = threading.Lock()

    def chances(self, opened: Opened) -> Chances | None:
        """What distances mean here; None where nothing was learned of it.

        From the calibration that `identities` or `calibrate` left, the younger one. Across cameras the
        gallery's features are not normalised, so what a camera adds is measured on them as METHODS 3.3 does:
        the medians of pairs across cameras and of two people within one.
        """
        files = [folder / CALIBRATION for folder in (self.served.path, self.served.identities)]
        young = max(((f.stat().st_mtime, f) for f in files if f.is_file()), default=(0.0, Path()))
        with self._lock:
            if self._known is None or self._known[:2] != (opened.gallery, young[0]):
                self._known = opened.gallery, young[0], _learned(young[1], opened) if young[0] else None
            return self._known[2]

    def search(self, query: Query) -> dict[str, Any]:
        """The results of a query, nearest first, as plain values.

        Raises:
            NotThere: no such part, picture or person.
            ValueError: a filter that cannot be; the message says which.
        """
        if (query.part is None) == (query.picture is None):
            raise Refusal("a search takes a part or a picture, the one or the other")
        if not 1 <= query.k <= MOST:
            raise Refusal(f"k is {query.k}, expected 1 to {MOST}")
        with self.served.opened() as opened:
            if query.identity is not None:
                opened.of_person(query.identity)
            gallery, e = opened.gallery, opened.entries
            exclude, own_camera = None, None
            if query.part is not None:
                at = opened.position(query.part)
                feature = gallery.feature(int(e.row[at]))
                own = gallery.rows_of(int(e.source[at]), set=int(e.set[at]))
                exclude, own_camera = np.asarray(own, np.int64)[None], e.camera[at]
                asked = shown(opened, at)
            else:
                upload = self.uploads.get(str(query.picture))
                feature = opened.searcher.embed(upload.cut(query.box))
                asked = {"ref": None, "name": "your picture", "picture": query.picture, "box": query.box}
            found = gallery.search(
                feature,
                query.k,
                exclude=exclude,
                camera=query.camera or None,
                since=query.since,
                until=query.until,
                identity=query.identity,
                min_quality=query.min_quality,
                one_a_track=not query.parts,
            )
            chances = self.chances(opened)
            results = []
            pairs = zip(found.index[0].tolist(), found.distance[0].tolist(), strict=True)
            for rank, (row, distance) in enumerate(((r, d) for r, d in pairs if r >= 0), start=1):
                at = opened.at_row(row)
                same = e.camera[at] == own_camera
                chance = None if chances is None else round(chances(distance, same_camera=same), 3)
                told = {"rank": rank, "distance": round(distance, 4), "probability": chance}
                results.append(told | shown(opened, at))
        return {
            "query": asked,
            "results": results,
            "asked": asdict(query),
            "calibrated": chances is not None,
            "trusted": chances is not None and chances.trusted,
        }

    def examples(self, n: int = 12) -> list[dict[str, Any]]:
        """Some parts to begin with: long ones, spread over the gallery."""
        with self.served.opened() as opened:
            groups = np.array_split(np.arange(len(opened.refs)), n)
            return [shown(opened, opened.longest(group)) for group in groups if len(group)]


def shown(opened: Opened, at: int) -> dict[str, Any]:
    """What is told of a part: who, where, when, and the addresses of its picture and its moment."""
    e, key = opened.entries, opened.keys[at]
    began = _moment(opened, at)
    person = int(opened.person[at])
    probability, quality = float(opened.probability[at]), float(e.quality[at])
    return {
        "ref": opened.refs[at],
        "name": opened.name(at),
        "set": key.set[:8],
        "track": int(e.source[at]),
        "camera": e.camera[at],
        "start": float(e.start[at]),
        "end": float(e.end[at]),
        "span": f"{clock(float(e.start[at]))} – {clock(float(e.end[at]))}",
        "at": None if began is None else began.isoformat(timespec="milliseconds"),
        "wall": wall(began),
        "n_crops": int(e.n_crops[at]),
        "quality": None if np.isnan(quality) else round(quality, 3),
        "picture": f"/crop/{key.set[:8]}/{int(e.crop[at])}",
        "person": person if person >= 0 else None,
        "called": opened.called(person) if person >= 0 else "nobody in particular",
        "belongs": None if np.isnan(probability) else round(probability, 3),
        "how": opened.how[at],
    }


def seconds_of(rows: list[dict[str, Any]]) -> tuple[list[float], datetime | None]:
    """When parts began on one clock: seconds since the first moment of all, and that moment.

    Where it is not known of every one when its film began, seconds in the film, and None.
    """
    if not rows or any(row["at"] is None for row in rows):
        return [row["start"] for row in rows], None
    moments = [datetime.fromisoformat(row["at"]) for row in rows]
    moments = [m if m.tzinfo else m.replace(tzinfo=UTC) for m in moments]
    zero = min(moments)
    return [(m - zero).total_seconds() for m in moments], zero


def _moment(opened: Opened, at: int) -> datetime | None:
    """When a part began by the clock on the wall, where its set is there and knows."""
    e = opened.entries
    try:
        tracklet_set = opened.searcher.tracklet_set(int(e.set[at]))
    except (Refusal, OSError):
        return None
    return tracklet_set.moment(int(e.source[at]), float(e.start[at]))


def _learned(file: Path, opened: Opened) -> Chances | None:
    """Chances from a file of calibration; None where it holds none."""
    try:
        value = read_json(file)
        within = value["within_camera"]
        curve = Curve(*(np.array(within["curve"][name], float) for name in ("distance", "probability")))
        median = float(within["different"]["0.5"])
        trusted = bool(value["trusted"])
    except (DamagedError, OSError, KeyError, TypeError, ValueError):
        return None
    if len(opened.gallery.cameras) < 2:
        return Chances(curve, 0.0, trusted)
    e, rng = opened.entries, np.random.default_rng(0)
    pair = rng.integers(0, len(e.row), (_PAIRS, 2))
    pair = pair[e.camid[pair[:, 0]] != e.camid[pair[:, 1]]]
    if not len(pair):
        return Chances(curve, 0.0, trusted)
    used = {int(i): opened.gallery.feature(int(e.row[i])) for i in np.unique(pair)}
    squared = [float(((used[a] - used[b]) ** 2).sum()) for a, b in pair.tolist()]
    return Chances(curve, max(0.0, float(np.median(squared)) - median**2), trusted)
