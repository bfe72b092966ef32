"""The report on isolation: counts, what it learned from free pairs, film strips of the most mixed tracks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from tracklearn.app.formats import clock, number, percent
from tracklearn.app.report import charts
from tracklearn.app.report.data import ReportData
from tracklearn.app.report.selection import frames, length_bins, letters
from tracklearn.app.report.shots import Shots
from tracklearn.core.pieces import taken_in
from tracklearn.core.shown import STRIPS, spread, worst_mixed

_STRIP_FRAMES, _PROJECTED = 36, 300  # pictures of a strip, points of a projection


def dropped(data: ReportData) -> float:
    """Share of crops that isolation dropped."""
    return float(np.mean(np.asarray(data.part) == -1)) if len(data.part) else 0.0


def section(data: ReportData) -> dict[str, Any]:
    """Counts of tracks, parts and persons, and two charts."""
    t = len(data.tracklets)
    parts = data.parts
    n_parts = np.bincount(parts.source, minlength=t)
    most = max(1, min(int(n_parts.max(initial=1)), 8))
    tracks = np.bincount(np.clip(n_parts, 0, most), minlength=most + 1)[1:]
    labels = [str(i) for i in range(1, most + 1)]
    if n_parts.max(initial=0) > most:
        labels[-1] += "+"
    edges, bins = length_bins(max(data.tracklets.length.max(initial=1), parts.length.max(initial=1)))
    lengths = {
        name: np.histogram(tracklets.length, edges)[0]
        for name, tracklets in (("tracks", data.tracklets), ("parts", parts))
    }
    return {
        "n_tracks": t,
        "n_parts": len(parts),
        "n_aside": len(parts) - len(data.isolated),
        "n_persons": data.rounds[-1].get("n_clusters") if data.rounds else None,
        "parts_a_track": len(parts) / max(int((n_parts > 0).sum()), 1),
        "cut": int((n_parts > 1).sum()),
        "gone": int((n_parts == 0).sum()),
        "dropped": dropped(data),
        "n_dropped": len(data.part) - parts.n_crops,
        "parts": charts.histogram(
            {"tracks": tracks},
            labels,
            x_label="parts",
            y_label="tracks",
            alt="tracks by number of parts",
        ),
        "lengths": charts.histogram(
            lengths, bins, x_label="crops", y_label="tracks, parts", alt="tracks and parts by length"
        ),
    }


def calibrated(data: ReportData) -> list[dict[str, str]]:
    """For each distance that isolation was calibrated by: heading, chart and what it means."""
    return [
        _calibrated(name, data.calibration[name])
        for name in ("mean", "nearest", "crop")
        if name in data.calibration
    ]


def _calibrated(name: str, found: Mapping[str, Any]) -> dict[str, str]:
    """Two histograms of free pairs, with the distance that isolation took from them."""
    same, different = (found["distances"][kind] for kind in ("same", "different"))
    wrong = percent(found["error"])
    if name == "nearest":
        # DBSCAN's radius: its groups grow from frame to frame, and two people are never to be near enough.
        heading, at = "Nearest frames", float(found["same"]["0.95"])
        x_label = "distance of the two nearest frames"
        text = (
            f"Frames nearer than {at:.2f} are grouped: 95 of 100 pairs of one person have two frames as "
            f"near, and {percent(float(np.mean(different < at)))} of the pairs of two people."
        )
    else:
        crops = name == "crop"
        heading, at = "Single crops" if crops else "Mean features", float(found["joins_below"])
        x_label = "distance of two crops" if crops else "distance of the mean features"
        joined = "Crops of a track whose groups are on average" if crops else "Pieces of a track"
        text = f"{joined} nearer than {at:.2f} are joined to one part: "
        if found["separates"] and crops:
            text += (
                "there as many pairs of one track are cut wrongly, by what was learned, as joined wrongly."
            )
        elif found["separates"]:
            text += f"there {wrong} of either kind of pairs are on the wrong side."
        else:
            text += (
                f"the two kinds overlap too much to be told apart ({wrong} of the pairs are on the wrong "
                f"side at {found['threshold']:.2f}), so that 95 of 100 pairs of one person are kept together."
            )
    svg = charts.distances(
        {"one person": same, "two people": different},
        at,
        x_label=x_label,
        alt=f"{x_label}: pairs of one person and of two people, divided at {at:.2f}",
    )
    counts = f"{number(len(same))} pairs of one person, {number(len(different))} of two."
    if name == "crop":
        counts += (
            " None is known: crops of strangers of one camera, and what they leave of pairs of one track."
        )
    return {"heading": heading, "svg": svg, "caption": f"{text} {counts}"}


def strips(data: ReportData, shots: Shots) -> list[dict[str, Any]]:
    """Film strips of the most mixed tracks, with their similarity curve and projection."""
    chosen = list(data.features) or worst_mixed(data.tracklets, taken_in(data.part), data.similarity).tolist()
    return [_strip(data, shots, int(tracklet)) for tracklet in chosen[:STRIPS]]


def _strip(data: ReportData, shots: Shots, tracklet: int) -> dict[str, Any]:
    """One film strip."""
    first, end = data.tracklets.start[tracklet : tracklet + 2]
    rows = np.arange(first, end)
    part = taken_in(np.asarray(data.part)[rows])
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
    name = f"track {tracklet}"
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
    began = data.tracklets.time[first]
    return {
        "name": name,
        "at": data.clock_time(tracklet, began),
        "camera": data.cameras[int(data.tracklets.camid[tracklet])],
        "span": f"{clock(began)} – {clock(data.tracklets.time[end - 1])}",
        "n": len(rows),
        "parts": [(charts.part_colour(p), sizes[p], n) for n, p in enumerate(sorted(sizes), start=1)],
        "n_dropped": int((part < 0).sum()),
        "shots": pictures,
        "curve": curve,
        "cloud": cloud,
        "method": method,
    }
