"""The report section by section: the names that the template uses, computed from the run's arrays.

Only the pictures that are shown are read; everything else is counts over arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tracklearn.app.formats import duration, flat, known, number, percent
from tracklearn.app.report import (
    cameras,
    clusters,
    covered,
    isolation,
    learning,
    links,
    people,
    records,
    results,
)
from tracklearn.app.report.data import ReportData
from tracklearn.app.report.shots import Shots
from tracklearn.core.pieces import taken_in


def context(data: ReportData) -> dict[str, Any]:
    """All the names that the template uses."""
    shots = Shots(data)
    last = data.rounds[-1] if data.rounds else {}
    sections = {
        "cameras": cameras.rows(data),
        "mosaics": cameras.mosaics(data, shots),
        "isolation": isolation.section(data),
        "calibrated": isolation.calibrated(data),
        "strips": isolation.strips(data, shots),
        "covered": _covered(data, shots),
        "learning": learning.section(data),
        "remarks": learning.remarks(data),
        "persons": clusters.section(data, shots),
        "left_out": clusters.left_out(data, shots),
        "records": records.table(data.rounds, data.steps),
        "links": links.section(data.links, data.isolated, data.cameras, shots.shot, shots.best_isolated),
        "people": people.section(data, shots),
        "searches": results.searches(data, shots),
        "scores": results.scores(data),
        "noise": results.noise(data),
        "stages": results.seconds(data),
        "settings": flat(data.settings),
    }
    warnings = list(data.warnings)
    if shots.unreadable:
        warnings.append(f"{shots.unreadable} pictures of this report could not be read and are shown grey")
    return sections | {
        "data": data,
        "last": last,
        "cards": _cards(data, last),
        "warnings": warnings,
        "tile": shots.tile,
        "skipped": sorted(data.skipped, key=lambda s: -s[2]),
    }


def _cards(data: ReportData, last: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(label, value, note) of the headline numbers."""
    tracklets = data.tracklets
    crops, n = tracklets.n_crops, len(data.cameras)
    cards = [
        ("went in", f"{len(tracklets):,}", f"tracks, {crops:,} crops, {n} camera{'s' * (n != 1)}"),
        (
            "after isolation",
            f"{len(data.parts):,}",
            f"parts, {percent(isolation.dropped(data))} of crops dropped",
        ),
    ]
    if last:
        noise = last.get("noise_fraction")
        seen = len(data.isolated)
        which = f"the {seen:,} parts learned from" if seen < len(data.parts) else "parts"
        note = "persons" + (f", {percent(noise)} of {which} left out" if known(noise) else "")
        cards.append(("last round", number(last.get("n_clusters")), note))
    rates = data.noise or {}
    if "before" in rates and "after" in rates:
        before, after = rates["before"]["r_SW"], rates["after"]["r_SW"]
        if known(before) and known(after):
            cards.append(("true persons", f"{before:.2f} → {after:.2f}", "in a track, and in a part of one"))
    scores = data.scores or {}
    if "untrained" in scores and "trained" in scores:
        before, after = scores["untrained"]["mAP"], scores["trained"]["mAP"]
        if known(before) and known(after):
            note = "% untrained → trained, on unseen people"
            cards.append(("mAP", f"{100 * before:.1f} → {100 * after:.1f}", note))
    cards.append(
        (
            "time",
            duration(sum(data.seconds.values())),
            f"{len(data.rounds)} round{'s' * (len(data.rounds) != 1)} of training",
        )
    )
    return cards


def _covered(data: ReportData, shots: Shots) -> dict[str, Any] | None:
    """Covered frames; None where there are none, or no telling."""
    if data.film is None:
        return None
    found = covered.section(
        data.tracklets, np.asarray(data.film), taken_in(np.asarray(data.part)), data.cameras, shots.shot
    )
    return found if found["n"] else None
