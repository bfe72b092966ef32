"""The report on results: example searches, scores, noise, seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tracklearn.app.report import charts
from tracklearn.app.report.data import ReportData
from tracklearn.app.report.shots import Shots

_SEARCHES, _RESULTS = 6, 10  # shown, and results of each


NOISY = {"before": "tracks", "after": "parts"}


def searches(data: ReportData, shots: Shots) -> list[dict[str, Any]]:
    """Example searches, query first."""
    found = []
    for example in data.searches[:_SEARCHES]:
        results = []
        for i, row in enumerate(example.results[:_RESULTS]):
            right = None if example.right is None else bool(example.right[i])
            results.append(
                {
                    "src": shots.shot(row, from_search=True),
                    "state": {None: "", True: "right", False: "wrong"}[right],
                    "caption": example.captions[i] if i < len(example.captions) else "",
                    "distance": float(example.distance[i]),
                }
            )
        query = {"src": shots.shot(example.query, from_search=True), "caption": example.query_caption}
        found.append({"query": query, "results": results})
    return found


def scores(data: ReportData) -> dict[str, Any] | None:
    """The table of scores and the columns it has."""
    scores = data.scores
    if not scores:
        return None
    names = {
        "baseline": "colour histogram",
        "untrained": "untrained network",
        "trained": "trained network",
    }
    order = [n for n in names if n in scores] + [n for n in scores if n not in names]
    columns = [c for c in ("mAP", "rank1", "rank5", "rank10", "rank20") if any(c in scores[n] for n in order)]
    titles = {"rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "rank20": "rank-20"}
    ratio = None
    if "trained" in scores and scores.get("untrained", {}).get("mAP"):
        ratio = scores["trained"]["mAP"] / scores["untrained"]["mAP"]
    return {
        "columns": [titles.get(c, c) for c in columns],
        "rows": [
            {
                "name": names.get(n, n),
                "best": n == "trained",
                "scores": [scores[n].get(c) for c in columns],
            }
            for n in order
        ],
        "ratio": ratio,
    }


def noise(data: ReportData) -> dict[str, Any] | None:
    """Rates before and after isolation, with the histogram of true persons in a track, and in a part."""
    rates = {k: v for k, v in (data.noise or {}).items() if k in ("before", "after")}
    if not rates:
        return None
    held = {name: _persons(r) for name, r in rates.items() if _persons(r)}
    svg = ""
    if held:
        most = min(max(max(h) for h in held.values()), 8)
        labels = [str(i) for i in range(1, most + 1)]
        counts = {}
        for when, histogram in held.items():
            name = NOISY[when]
            counts[name] = np.zeros(most)
            for persons, tracklets in histogram.items():
                counts[name][min(persons, most) - 1] += tracklets
        if any(max(h) > most for h in held.values()):
            labels[-1] += "+"
        svg = charts.histogram(
            counts,
            labels,
            x_label="true persons in it",
            y_label="tracks, parts",
            alt="tracks and parts by true persons",
        )
    return {"rates": [(NOISY[when], rate) for when, rate in rates.items()], "svg": svg}


def seconds(data: ReportData) -> list[tuple[str, float, float]]:
    """(stage, seconds, share of the longest)."""
    longest = max(data.seconds.values(), default=0.0) or 1.0
    return [(name, s, s / longest) for name, s in data.seconds.items()]


def _persons(rates: Mapping[str, Any]) -> dict[int, int]:
    """The histogram persons -> tracklets; its keys are text after a journey through JSON."""
    return {int(p): int(c) for p, c in (rates.get("persons_per_tracklet") or {}).items() if int(p) > 0}
