"""Pieces of a film that were read one by one, written as one: tracks that meet at a seam go on across it.

Both readings saw the frames around a seam. A track of the one and a track of the other that lie on each other
there are one; the crops before the seam are the earlier reading's, those after it the later one's, so that
none is there twice. What is joined depends on the pieces alone, not on who read them and when.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from tracklearn.core.boxes import iou
from tracklearn.store.ingest.cut import Track
from tracklearn.store.sets.setwriter import PartReader, PartWriter
from tracklearn.types import Array

# Seconds on each side of a seam in which tracks are compared: a few steps, and longer than a track may go
# unseen (`track.open_tracker`'s lost_seconds), but too short for many tracks to change their person [chosen].
AROUND = 5.0
# IoU from which two boxes of a frame are one [the field's usual].
_ONE = 0.5


class Reading:
    """The tracks of one piece, those of its overlap included.

    Args:
        part: what was read of it.
        own: number of the first frame whose crops are taken from it, and the one after the last.
    """

    def __init__(self, part: PartReader, own: tuple[int, int]) -> None:
        self.part, crops = part, part.crops
        begun = np.arange(len(part.continues))
        for tracklet, earlier in enumerate(part.continues.tolist()):
            if earlier >= 0:
                begun[tracklet] = begun[earlier]  # one track, however often it was cut for its length
        self.frame, self.time, self.score = crops["frame"], crops["time"], crops["score"]
        self.track: Array = begun[crops["tracklet"]]
        self.box = np.stack([crops[name] for name in ("x1", "y1", "x2", "y2")], 1)
        self.own = np.flatnonzero((self.frame >= own[0]) & (self.frame < own[1]))
        self.own = self.own[np.lexsort((self.frame[self.own], self.track[self.own]))]

    def own_tracks(self) -> Iterator[tuple[int, Array]]:
        """(track, rows in the order of frames) of those with own crops, by their number."""
        tracks, at = np.unique(self.track[self.own], return_index=True)
        for track, begin, end in zip(tracks.tolist(), at, [*at[1:], len(self.own)], strict=False):
            yield track, self.own[begin:end]


@dataclass(frozen=True)
class Seam:
    """What became of the tracks at one seam.

    Args:
        pairs: track of the earlier reading -> track of the later one that it goes on as.
        cut: tracks that the one or the other reading saw on both sides, and that were not joined.
    """

    pairs: Mapping[int, int]
    cut: int


def seam(earlier: Reading, later: Reading, frame: int, time: float, *, max_gap: float) -> Seam:
    """Which tracks are one at a seam.

    Of tracks with crops of their own on their side, those may be one that lie on each other (IoU ≥ 0.5) in
    more than half of the frames around the seam that show both, with no more than `max_gap` between their
    crops. Each goes to one at most, so that the frames in which they do are as many as possible.

    Args:
        earlier, later: the readings. frame, time: the first of the later one's own frames.
        max_gap: seconds.
    """
    rows = [np.flatnonzero(np.abs(one.time - time) <= AROUND) for one in (earlier, later)]
    tracks = [
        np.intersect1d(one.track[near], one.track[one.own])
        for one, near in zip((earlier, later), rows, strict=True)
    ]
    rows = [
        near[np.isin(one.track[near], known)]
        for one, near, known in zip((earlier, later), rows, tracks, strict=True)
    ]
    together = np.zeros((len(tracks[0]), len(tracks[1])), int)  # frames that show both
    alike = np.zeros_like(together)  # and one on the other
    for number in np.intersect1d(earlier.frame[rows[0]], later.frame[rows[1]]):
        a, b = (near[one.frame[near] == number] for one, near in zip((earlier, later), rows, strict=True))
        at = np.ix_(np.searchsorted(tracks[0], earlier.track[a]), np.searchsorted(tracks[1], later.track[b]))
        together[at] += 1
        alike[at] += iou(earlier.box[a], later.box[b]) >= _ONE
    last = {track: earlier.time[own[-1]] for track, own in earlier.own_tracks()}
    first = {track: later.time[own[0]] for track, own in later.own_tracks()}
    gap = np.array([[first[b] - last[a] for b in tracks[1].tolist()] for a in tracks[0].tolist()])
    good = (2 * alike > together) & (gap.reshape(alike.shape) <= max_gap)
    row, column = linear_sum_assignment(np.where(good, alike, 0), maximize=True)
    keep = good[row, column]
    pairs = dict(zip(tracks[0][row[keep]].tolist(), tracks[1][column[keep]].tolist(), strict=True))
    across = []
    for one, near in zip((earlier, later), rows, strict=True):
        before = one.frame[near] < frame
        across.append(set(np.intersect1d(one.track[near[before]], one.track[near[~before]]).tolist()))
    return Seam(pairs, len(across[0] - set(pairs)) + len(across[1] - set(pairs.values())))


def join(
    parts: Iterable[PartReader],
    owns: Sequence[tuple[int, int]],
    times: Sequence[float],
    writer: PartWriter,
    camera: str,
    *,
    min_length: int,
    max_length: int,
    max_gap: float,
    tell: Callable[[int], None] = lambda n: None,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Write the tracks of all pieces, each whole, in the order of the pieces in which they end.

    Holds the tables of two pieces, and the crops of the tracks that are open at a seam.

    Args:
        parts: what was read of each piece, with tracks of any length.
        owns: the frames that each has for its own; they follow on each other.
        times: seconds at which each piece's own frames begin.
        writer: of the source's part. camera: its name.
        min_length, max_length, max_gap: as for `cut.Cutter`.
        tell: told of the crops written so far.

    Returns:
        Of each seam its frame, its time, and how many tracks were joined and cut; counts of tracks and crops
        as `Cutter` has them.
    """
    counts = Counter[str]({"short_tracks": 0, "short_crops": 0, "split_tracks": 0})
    told, done = list[dict[str, Any]](), 0
    carried: dict[int, Track] = {}
    readings = (Reading(part, own) for part, own in zip(parts, owns, strict=True))
    reading = next(readings)
    for i in range(len(owns)):
        later, found = next(readings, None), Seam({}, 0)
        if later is not None:
            frame, time = owns[i + 1][0], times[i + 1]
            found = seam(reading, later, frame, time, max_gap=max_gap)
            told.append(
                {"frame": frame, "seconds": round(time, 3), "joined": len(found.pairs), "cut": found.cut}
            )
        goes_on: dict[int, Track] = {}
        for track, rows in reading.own_tracks():
            state = carried.pop(track) if track in carried else Track()
            for row in rows.tolist():
                state.add(
                    reading.part.jpeg(row),
                    int(reading.frame[row]),
                    float(reading.time[row]),
                    reading.box[row],
                    float(reading.score[row]),
                )
                if len(state) == max_length:
                    state = state.write(writer, camera)
                    counts["split_tracks"] += 1
            done += len(rows)
            tell(done)
            if track in found.pairs:
                goes_on[found.pairs[track]] = state
            elif len(state) >= min_length:
                state.write(writer, camera)
            elif len(state):
                counts["short_tracks"] += 1
                counts["short_crops"] += len(state)
        carried, reading = goes_on, later or reading
    return told, dict(counts)
