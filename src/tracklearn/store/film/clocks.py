"""When recordings began, and which of a camera's files may be compared in time.

Times in a set are seconds since the first frame of their own file. Two files of one camera share a clock only
where it is known when each began: from the user, or from the creation times in the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from tracklearn.store.ingest.sources import Source
from tracklearn.types import Array, Refusal

Start = Mapping[str, datetime | Sequence[datetime]]
Begin = tuple[datetime | None, tuple[datetime, Path] | None]

# Creation times are whole seconds, and the pieces of a recorder share a few frames.
_OVERLAP = 2.0


def begin_times(sources: Sequence[Source], start: Start) -> list[Begin]:
    """For each source when it began, or when the camera's first file did and which that is; as far as given.

    Raises:
        ValueError: no video of the camera, one recorded live, or another number of moments than it has
            videos.
    """
    out: list[Begin] = [(None, None)] * len(sources)
    for camera, given in start.items():
        own = [i for i, s in enumerate(sources) if s.camera == camera and s.kind != "crops"]
        if not own:
            names = sorted({s.camera for s in sources if s.kind != "crops"})
            raise Refusal(f"start names camera {camera!r}, which has no video here: the cameras are {names}")
        if any(sources[i].address for i in own):
            raise Refusal(f"camera {camera!r} is recorded live: it begins now, give it no start")
        if isinstance(given, datetime):
            first = sources[own[0]].path
            if len(own) > 1 and any(sources[i].stored for i in own):
                raise Refusal(
                    f"camera {camera!r} has {len(own)} videos, some in storage: give a start for each of them"
                )
            for i in own:
                out[i] = (given, None) if i == own[0] else (None, (given, first))
        elif len(given) != len(own):
            raise Refusal(
                f"camera {camera!r} has {len(own)} videos, but start gives {len(given)} moments: give one "
                "for each, or one for the first"
            )
        else:
            for i, moment in zip(own, given, strict=True):
                out[i] = (moment, None)
    return out


def begin_record(
    given: datetime | None, after: tuple[datetime, Path] | None, created: datetime | None
) -> dict[str, Any]:
    """What the manifest says of when a file began.

    Args:
        given: by the user.
        after: by the user for the camera's first file, and that file.
        created: by the file's own tags.
    """
    source = "given"
    if given is None and after is not None:
        # Imported here: who only reads a set needs no decoder.
        from tracklearn.store.film.video import open_frames

        moment, first = after
        with open_frames(first) as frames:
            before = frames.info.start
        if created is not None and before is not None:
            given, source = moment + (created - before), "given for the first file, by creation times"
    elif given is None and created is not None:
        given, source = created, "creation time"
    if given is None:
        return {"start": None, "start_from": None}
    return {"start": given.isoformat(), "start_from": source}


def clocks_of(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each source of a set which clock its times are of, and how many seconds after its zero it began.

    The files of a camera share one where all of them say when they began, and no two overlap; else each has
    its own.
    """
    clocks: list[dict[str, Any]] = [{"clock": i, "offset": 0.0} for i in range(len(records))]
    cameras: dict[str, list[int]] = {}
    for i, record in enumerate(records):
        if record["status"] == "ok" and "video" in record:
            cameras.setdefault(record["camera"], []).append(i)
    for own in cameras.values():
        begins = [_moment(records[i].get("start")) for i in own]
        known = [begin for begin in begins if begin is not None]
        if len(known) < len(own):
            continue
        order = np.argsort(known, kind="stable").tolist()
        ends = [begin + records[i]["video"]["seconds"] for i, begin in zip(own, known, strict=True)]
        if any(known[b] < ends[a] - _OVERLAP for a, b in pairwise(order)):
            continue
        for i, begin in zip(own, known, strict=True):
            clocks[i] = {"clock": own[0], "offset": round(begin - min(known), 6)}
    return clocks


def _moment(text: str | None) -> float | None:
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def moment(manifest: Mapping[str, Any], file: int, seconds: float) -> datetime | None:
    """When that was by the clock on the wall: so many seconds after the first frame of a source.

    In the time zone in which its beginning is known; None where that is not known, and where noise was
    simulated, whose times are places in rearranged tracklets.

    Args:
        manifest: of the set.
        file: the source's number in it.
        seconds: since the first frame.
    """
    began = manifest["sources"][file].get("start")
    if began is None or "noise" in manifest.get("settings", {}) or not np.isfinite(seconds):
        return None
    try:
        return datetime.fromisoformat(began) + timedelta(seconds=float(seconds))
    except OverflowError:  # after the year 9999
        return None


def clock_columns(manifest: Mapping[str, Any], file: Array) -> tuple[Array, Array]:
    """`Tracklets.clock` and `Tracklets.offset` of tracklets from these sources; older sets say nothing.

    Args:
        manifest: of the set.
        file: (t,) int, the source of each tracklet.
    """
    clocks = manifest.get("clocks")
    if not clocks:
        return np.asarray(file, np.int64), np.zeros(len(file))
    clock = np.array([entry["clock"] for entry in clocks], np.int64)
    return clock[file], np.array([entry["offset"] for entry in clocks], float)[file]
