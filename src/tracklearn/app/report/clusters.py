"""The report on persons, which are clusters: pictures of some of them, and of what is in none."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracklearn.app.formats import clock
from tracklearn.app.report.data import ReportData
from tracklearn.app.report.shots import Shots
from tracklearn.core.shown import called, spread
from tracklearn.types import Array

_CLUSTERS, _CLUSTER_PARTS, _CLUSTER_CROPS = 20, 8, 16  # shown; parts and crops of each


def section(data: ReportData, shots: Shots) -> list[dict[str, Any]]:
    """Clusters of the last round drawn at random (always the same ones), largest first."""
    label = np.asarray(data.label)
    found, size = np.unique(label[label >= 0], return_counts=True)
    draw = np.random.default_rng(0).permutation(len(found))[:_CLUSTERS]
    chosen = draw[np.lexsort((found[draw], -size[draw]))]
    return [_group(data, shots, np.flatnonzero(label == found[i]), f"person {found[i]}") for i in chosen]


def left_out(data: ReportData, shots: Shots) -> dict[str, Any] | None:
    """Some of the parts that are no person's, one crop each."""
    rows = np.flatnonzero(np.asarray(data.label) < 0)
    if not len(rows) or not data.rounds:
        return None
    return _group(data, shots, rows, "no person", parts=_CLUSTER_CROPS)


def _group(
    data: ReportData, shots: Shots, members: Array, name: str, *, parts: int = _CLUSTER_PARTS
) -> dict[str, Any]:
    """The pictures of some parts of a cluster, the cameras in turn."""
    isolated = data.isolated
    camid = isolated.camid[members]
    turn = np.array([np.sum(camid[:i] == c) for i, c in enumerate(camid[:5000])], np.int64)
    members = members[: len(turn)]
    shown = members[np.lexsort((members, turn))][:parts]
    shown = shown[np.lexsort((shown, isolated.camid[shown]))]
    each = max(1, _CLUSTER_CROPS // len(shown)) if len(shown) else 0
    start = isolated.start
    groups = []
    for part in shown:
        track, first = int(isolated.source[part]), isolated.time[start[part]]
        rows = np.arange(start[part], start[part + 1])
        rows = np.r_[shots.best_isolated[part]] if each == 1 else rows[spread(len(rows), min(each, 4))]
        groups.append(
            {
                "camera": data.cameras[int(isolated.camid[part])],
                "name": called(track, int(shots.part[part]), int(shots.n_parts[part])),
                "time": at.split(" ", 1) if (at := data.clock_time(track, first)) else [clock(first)],
                "shots": [shots.shot(row) for row in isolated.crop[rows]],
            }
        )
    return {
        "name": name,
        "parts": len(camid),
        "tracks": len(np.unique(isolated.source[members])),
        "cameras": len(np.unique(camid)),
        "groups": groups,
        "more": len(camid) - len(shown),
    }
