"""The report on isolation: counts, and film strips of the tracklets that were most mixed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from tracklearn.app.formats import clock
from tracklearn.app.report import charts
from tracklearn.app.report.data import ReportData
from tracklearn.app.report.selection import frames, length_bins, letters
from tracklearn.app.report.shots import Shots
from tracklearn.core.shown import STRIPS, called, numbers, spread, worst_mixed

_STRIP_FRAMES, _PROJECTED = 36, 300  # pictures of a strip, points of a projection


def dropped(data: ReportData) -> float:
    """Share of crops that isolation dropped."""
    return float(np.mean(data.part < 0)) if len(data.part) else 0.0


def section(data: ReportData) -> dict[str, Any]:
    """Counts before and after, and two charts."""
    t = len(data.tracklets)
    kept = np.asarray(data.part) >= 0
    width = int(np.max(data.part, initial=0)) + 1
    key = np.unique(data.tracklets.tracklet[kept] * width + data.part[kept])
    n_parts = np.bincount(key // width, minlength=t)
    most = max(1, min(int(n_parts.max(initial=1)), 8))
    parts = np.bincount(np.clip(n_parts, 0, most), minlength=most + 1)[1:]
    labels = [str(i) for i in range(1, most + 1)]
    if n_parts.max(initial=0) > most:
        labels[-1] += "+"
    edges, bins = length_bins(max(data.tracklets.length.max(initial=1), data.isolated.length.max(initial=1)))
    lengths = {
        name: np.histogram(tracklets.length, edges)[0]
        for name, tracklets in (("before", data.tracklets), ("after", data.isolated))
    }
    return {
        "before": t,
        "after": len(data.isolated),
        "cut": int((n_parts > 1).sum()),
        "dropped": dropped(data),
        "n_dropped": int((~kept).sum()),
        "parts": charts.histogram(
            {"tracklets": parts},
            labels,
            x_label="parts",
            y_label="tracklets",
            alt="tracklets by number of parts",
        ),
        "lengths": charts.histogram(
            lengths, bins, x_label="crops in a tracklet", y_label="tracklets", alt="tracklets by length"
        ),
    }


def strips(data: ReportData, shots: Shots) -> list[dict[str, Any]]:
    """Film strips of the most mixed tracklets, with their similarity curve and projection."""
    chosen = list(data.features) or worst_mixed(data.tracklets, data.part, data.similarity).tolist()
    return [_strip(data, shots, int(tracklet)) for tracklet in chosen[:STRIPS]]


def _strip(data: ReportData, shots: Shots, tracklet: int) -> dict[str, Any]:
    """One film strip."""
    first, end = data.tracklets.start[tracklet : tracklet + 2]
    rows = np.arange(first, end)
    part = np.asarray(data.part)[rows]
    person = None if data.person is None else np.asarray(data.person)[rows]
    letter = {} if person is None else letters(person)
    shown = frames(part, _STRIP_FRAMES)
    frame = data.tracklets.frame[rows]
    pictures = [
        {
            "src": shots.shot(data.tracklets.crop[rows[i]]),
            "colour": charts.part_colour(int(part[i])),
            "dropped": bool(part[i] < 0),
            "frame": int(frame[i]),
            "person": letter[int(person[i])] if person is not None else "",
        }
        for i in shown
    ]
    own = numbers(tracklet, data.tracklets.tracklet, np.asarray(data.part))
    name = called(own)
    curve = charts.similarity_curve(
        frame, np.asarray(data.similarity)[rows], part, alt=f"similarity of adjacent frames in {name}"
    )
    cloud, method = "", ""
    features = data.features.get(tracklet)
    if features is not None and len(features) >= 3:
        at = spread(len(features), _PROJECTED)
        point, method = charts.project(np.asarray(features)[at])
        cloud = charts.projection(point, part[at], alt=f"features of {name} in the plane")
    sizes = Counter(part[part >= 0].tolist())
    return {
        "name": name,
        "camera": data.cameras[int(data.tracklets.camid[tracklet])],
        "span": f"{clock(data.tracklets.time[first])} – {clock(data.tracklets.time[end - 1])}",
        "n": len(rows),
        "parts": [(charts.part_colour(p), sizes[p], n) for p, n in zip(sorted(sizes), own, strict=True)],
        "n_dropped": int((part < 0).sum()),
        "shots": pictures,
        "curve": curve,
        "cloud": cloud,
        "method": method,
    }
