"""Tracks for the page: how isolation cut each, frame by frame, and where a person cuts otherwise."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn.app.formats import clock, wall
from tracklearn.app.model.of_run import learned_from
from tracklearn.app.report import charts
from tracklearn.app.report.selection import frames
from tracklearn.app.web.opened import NotThere, Served
from tracklearn.core.pieces import taken_in
from tracklearn.core.shown import worst_mixed
from tracklearn.store.identities.journal import Place, add_cut, journal_path, read_cuts
from tracklearn.types import Array, Refusal, Tracklets

if TYPE_CHECKING:
    from tracklearn.store.runs import Run
    from tracklearn.store.sets.tracklets import TrackletSet

SHOWN = 48  # frames of a strip


@dataclass(frozen=True, eq=False)
class Cut:
    """The set that a run learned from, and what its isolation did.

    Args:
        run, tracklet_set: which.
        tracklets: the tracks.
        part: (n,) part of each crop in its track, −1 dropped.
        similarity: (n,) cosine with the crop before; nan at firsts.
        order: (t,) tracks, the most mixed first.
        n_parts, n_dropped: (t,) of each track.
    """

    run: Run
    tracklet_set: TrackletSet
    tracklets: Tracklets
    part: Array
    similarity: Array
    order: Array
    n_parts: Array
    n_dropped: Array

    def member(self, track: int) -> tuple[TrackletSet, int]:
        """The set of a track, of several as one, and the track's number in it."""
        first = self.tracklet_set.first_track
        number = int(np.searchsorted(first, track, side="right")) - 1
        return self.tracklet_set.members[number], track - int(first[number])


class Tracks:
    """The tracks of one server's run.

    Args:
        served: what is shown.
    """

    def __init__(self, served: Served) -> None:
        self.served = served
        self._known: Cut | None = None
        self._lock = threading.Lock()

    def cut(self) -> Cut:
        """What isolation did, read once for a run and a set.

        Raises:
            FileNotFoundError: the set is not there.
            ValueError: the run has not been isolated yet, or another set lies where its own was.
        """
        run = self.served.run()
        if "isolation" not in run.manifest:
            raise Refusal(f"{run.path} has not come to its first round: its tracks are not cut yet")
        tracklet_set = learned_from(run)
        with self._lock:
            known = self._known
            same = known is not None and known.tracklet_set.digest == tracklet_set.digest
            if known is None or not same or known.run.manifest["digest"] != run.manifest["digest"]:
                known = self._known = _cut(run, tracklet_set)
            return known

    def close(self) -> None:
        """Let go of what was read."""
        with self._lock:
            self._known = None

    def listing(self, page: int = 1, size: int = 50, camera: str | None = None) -> dict[str, Any]:
        """A page of tracks, the most mixed first.

        Raises:
            ValueError: no such camera.
        """
        found = self.cut()
        names, tracklets = found.tracklet_set.cameras, found.tracklets
        order = found.order
        if camera:
            if camera not in names:
                raise Refusal(f"no camera is named {camera[:60]!r}")
            order = order[tracklets.camid[order] == names.index(camera)]
        cuts = Counter((place.set, place.track) for place in read_cuts(journal_path(found.run.path)))
        rows = []
        for track in order[(page - 1) * size : page * size].tolist():
            first, end = tracklets.start[track : track + 2].tolist()
            one, own = found.member(track)
            rows.append(
                {
                    "track": track,
                    "camera": names[int(tracklets.camid[track])],
                    "span": _span(tracklets.time[first], tracklets.time[end - 1]),
                    "n_crops": end - first,
                    "n_parts": int(found.n_parts[track]),
                    "n_dropped": int(found.n_dropped[track]),
                    "n_cuts": cuts[one.digest, own],
                    "picture": self._picture(found, (first + end) // 2),
                }
            )
        return {"tracks": rows, "total": len(order), "page": page, "size": size, "cameras": list(names)}

    def track(self, number: int, start: int | None = None) -> dict[str, Any]:
        """One track, frame by frame.

        Args:
            number: of the track.
            start: the first of `SHOWN` crops that follow one another; None for a choice of all.

        Raises:
            NotThere: no such track.
        """
        found = self.cut()
        rows = _rows(found, number)
        part, names = found.part[rows], found.tracklet_set.cameras
        tracklets = found.tracklets
        if start is None:
            chosen = frames(part, SHOWN)
        else:
            first = min(max(start, 0), max(len(rows) - 1, 0))
            chosen = np.arange(first, min(first + SHOWN, len(rows)))
        frame, time = tracklets.frame[rows], tracklets.time[rows]
        numbers = {value: i for i, value in enumerate(sorted(set(part[part >= 0].tolist())), start=1)}
        at = self._cuts(found, number)
        pictures = [
            {
                "index": int(i),
                "frame": int(frame[i]),
                "time": clock(float(time[i])),
                "part": numbers.get(int(part[i])),
                "colour": charts.part_colour(int(part[i])),
                "dropped": bool(part[i] < 0),
                "similarity": _number(found.similarity[rows[i]]),
                "picture": self._picture(found, int(rows[i])),
                "cut": int(frame[i]) in at,
            }
            for i in chosen
        ]
        began = found.tracklet_set.moment(number, float(time[0]))
        return {
            "track": number,
            "set": found.member(number)[0].digest[:8],
            "camera": names[int(tracklets.camid[number])],
            "span": _span(time[0], time[-1]),
            "wall": wall(began),
            "n_crops": len(rows),
            "n_dropped": int((part < 0).sum()),
            "parts": [
                {"part": n, "colour": charts.part_colour(value), "n_crops": int((part == value).sum())}
                for value, n in numbers.items()
            ],
            "frames": pictures,
            "start": start,
            "cuts": sorted(at),
        }

    def curve(self, number: int) -> str:
        """SVG of the similarity of adjacent frames of a track.

        Raises:
            NotThere: no such track.
        """
        found = self.cut()
        rows = _rows(found, number)
        return charts.similarity_curve(
            found.tracklets.frame[rows],
            found.similarity[rows],
            found.part[rows],
            alt=f"similarity of adjacent frames of track {number}",
        )

    def set_cut(self, number: int, frame: int, *, cut: bool) -> dict[str, Any]:
        """Cut a track before a frame, or take such a cut back; kept beside the run, for the next `index`.

        Raises:
            NotThere: no such track, or no such cut.
            ValueError: no picture of the track is of that frame, or it is the first.
        """
        with self.served.deciding:
            found = self.cut()
            rows = _rows(found, number)
            own = found.tracklets.frame[rows]
            at = int(np.searchsorted(own, frame))
            if at >= len(own) or own[at] != frame:
                raise Refusal(f"track {number} has no picture of frame {frame}")
            if at == 0:
                raise Refusal(
                    f"frame {frame} is the first of track {number}: there is nothing before it to cut"
                )
            one, track = found.member(number)
            after = Place(one.digest, track, frame)
            known = self._cuts(found, number)
            if not cut and frame not in known:
                raise NotThere(f"track {number} is not cut by hand before frame {frame}")
            if cut and frame in known:
                raise Refusal(f"track {number} is cut before frame {frame} already")
            add_cut(journal_path(found.run.path), Place(one.digest, track, int(own[at - 1])), after, cut=cut)
        what = "is cut" if cut else "is no longer cut"
        return {"did": f"track {number} {what} before frame {frame}", "track": number, "frame": frame}

    def _cuts(self, found: Cut, number: int) -> set[int]:
        """The frames before which a track is cut by hand."""
        one, track = found.member(number)
        cuts = read_cuts(journal_path(found.run.path))
        return {place.frame for place in cuts if (place.set, place.track) == (one.digest, track)}

    def _picture(self, found: Cut, row: int) -> str:
        crop = int(found.tracklets.crop[row])
        number = int(np.searchsorted(found.tracklet_set.first_crop, crop, side="right")) - 1
        one = found.tracklet_set.members[number]
        return f"/crop/{one.digest[:8]}/{crop - int(found.tracklet_set.first_crop[number])}"


def _cut(run: Run, tracklet_set: TrackletSet) -> Cut:
    arrays = run.isolation()[0]
    tracklets, part = tracklet_set.tracklets, taken_in(arrays["part"])
    t = len(tracklets)
    mixed = worst_mixed(tracklets, part, arrays["similarity"], n=t)
    kept = part >= 0
    width = int(part.max(initial=0)) + 1
    pair = np.unique(tracklets.tracklet[kept] * width + part[kept])
    rest = np.setdiff1d(np.arange(t), mixed)
    rest = rest[np.argsort(-tracklets.length[rest], kind="stable")]
    return Cut(
        run,
        tracklet_set,
        tracklets,
        part,
        arrays["similarity"],
        np.concatenate([mixed, rest]).astype(np.int64),
        np.bincount(pair // width, minlength=t),
        np.bincount(tracklets.tracklet[~kept], minlength=t),
    )


def _rows(found: Cut, number: int) -> Array:
    if not 0 <= number < len(found.tracklets):
        raise NotThere(f"there is no track {number}: there are 0 to {len(found.tracklets) - 1}")
    return np.arange(*found.tracklets.start[number : number + 2])


def _span(begin: float, end: float) -> str:
    return f"{clock(float(begin))} – {clock(float(end))}"


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else round(float(value), 3)
