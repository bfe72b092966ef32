"""The report on what went in: a row a camera, and its crops over time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tracklearn.app.formats import known, wall
from tracklearn.app.report.data import ReportData
from tracklearn.app.report.shots import Shots
from tracklearn.core.shown import spread

_MOSAIC_CROPS, _MOSAIC_CAMERAS = 240, 24  # crops in all mosaics together, cameras that get one


def rows(data: ReportData) -> list[dict[str, Any]]:
    """One row per camera for the table."""
    tracklets = data.tracklets
    n = len(data.cameras)
    crop_camid = tracklets.camid[tracklets.tracklet]
    crops = np.bincount(crop_camid, minlength=n)
    side = (tracklets.box[:, 2:] - tracklets.box[:, :2]).astype(np.float64)
    size = np.stack([np.bincount(crop_camid, weights=s, minlength=n) for s in np.nan_to_num(side).T], 1)
    mean_size = size / np.maximum(crops, 1)[:, None]
    before = np.bincount(tracklets.camid, minlength=n)
    after = np.bincount(data.parts.camid, minlength=n)
    notes: dict[str, list[Mapping[str, Any]]] = {}
    for source in data.sources:
        if source.get("status") != "skipped":
            notes.setdefault(str(source.get("camera", "")), []).append(source)
    rows = []
    for camid, name in enumerate(data.cameras):
        own = notes.get(name, [])
        files = [Path(str(note["path"])).name for note in own if note.get("path")]
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        width, height = mean_size[camid]
        rows.append(
            {
                "name": name,
                "path": files[0] + more if files else "",
                "frames": _sum(note.get("frames") for note in own),
                "detections": _sum(note.get("detections") for note in own),
                "tracks": int(before[camid]),
                "parts": int(after[camid]),
                "start": _start(own),
                "crops": int(crops[camid]),
                "size": f"{width:.0f} × {height:.0f}" if width > 0 and height > 0 else "–",
            }
        )
    return rows


def mosaics(data: ReportData, shots: Shots) -> list[dict[str, Any]]:
    """Crops of each camera, one of each track, evenly over time."""
    shown = min(len(data.cameras), _MOSAIC_CAMERAS)
    found = []
    for camid in range(shown):
        own = np.flatnonzero((data.tracklets.camid == camid) & (shots.best >= 0))
        chosen = own[spread(len(own), min(30, _MOSAIC_CROPS // shown))]
        rows = data.tracklets.crop[shots.best[chosen]]
        if len(rows):
            found.append(
                {"name": data.cameras[camid], "shots": [shots.shot(row) for row in rows], "of": len(own)}
            )
    return found


def _start(notes: Iterable[Mapping[str, Any]]) -> str:
    """When the first of a camera's files began, by the clock on the wall; empty where that is unknown."""
    known = [datetime.fromisoformat(str(note["start"])) for note in notes if note.get("start")]
    return wall(min(known, key=lambda at: at if at.tzinfo else at.replace(tzinfo=UTC), default=None))


def _sum(values: Iterable[Any]) -> int | None:
    """The sum of what is known; None where nothing is."""
    counts = [int(value) for value in values if known(value)]
    return sum(counts) if counts else None
