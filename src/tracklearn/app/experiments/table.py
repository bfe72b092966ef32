"""The table of an experiment: a row a place in the grid, published figures beside the measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tracklearn.app.experiments.grid import Grid
from tracklearn.app.experiments.metrics import METRICS

NONE = "–"


def rows(grid: Grid, results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The table's rows.

    Args:
        grid: the experiment.
        results: of its cells, so far as there are any: `data`, `noise`, `variant`, `seed`, `status` ("done",
            "failed", "open"), and `scores` where done.

    Returns:
        `data`, `noise`, `variant`; `published`, metric -> figure; `measured`, metric -> `mean`, `sd` (of the
        sample, None for fewer than two) and `values`; `done` and `failed`, numbers of seeds. Other methods'
        rows follow, with an empty `measured`.
    """
    found = []
    for labels in dict.fromkeys(cell.row for cell in grid.cells()):
        data, noise, variant = labels
        mine = [r for r in results if (r["data"], r["noise"], r["variant"]) == labels]
        done = [r["scores"] for r in mine if r["status"] == "done"]
        measured = {
            name: summary([float(s[name]) for s in done if s.get(name) is not None]) for name in grid.metrics
        }
        found.append(
            {
                "data": data,
                "noise": noise,
                "variant": variant,
                "published": grid.published_for(*labels),
                "measured": {name: value for name, value in measured.items() if value is not None},
                "done": len(done),
                "failed": sum(r["status"] == "failed" for r in mine),
            }
        )
    for other in grid.beside:
        row = {"data": other.data or "", "noise": "", "variant": other.name}
        found.append({**row, "published": other.values, "measured": {}, "done": 0, "failed": 0})
    return found


def summary(values: Sequence[float]) -> dict[str, Any] | None:
    """Mean and standard deviation of the sample (None for a single value); None for no values.

    >>> summary([0.5, 0.7])["mean"], round(summary([0.5, 0.7])["sd"], 4)
    (0.6, 0.1414)
    """
    if not values:
        return None
    sd = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "sd": sd, "values": list(values)}


def markdown(grid: Grid, results: Sequence[Mapping[str, Any]]) -> str:
    """The table with title, notes and what failed, as Markdown whose columns are lined up."""
    body = rows(grid, results)
    axes = [axis for axis in ("data", "noise") if len({row[axis] for row in body if row[axis]}) > 1]
    published = {name for row in body for name in row["published"]} & set(grid.metrics)
    origin = f" ({grid.published_on})" if grid.published_on else ""
    header = [*axes, grid.axis]
    for name in grid.metrics:
        heading = METRICS[name].heading
        header += [f"{heading} published{origin}", f"{heading} measured"] if name in published else [heading]
    lines = [header]
    for row in body:
        line = [row[axis] or NONE for axis in axes] + [row["variant"]]
        for name in grid.metrics:
            if name in published:
                line.append(number(name, row["published"].get(name)))
            line.append(_measured(name, row))
        lines.append(line)
    width = [max(len(line[i]) for line in lines) for i in range(len(header))]
    n_labels = len(axes) + 1
    text = []
    for line in lines:
        cells = [
            c.ljust(w) if i < n_labels else c.rjust(w)
            for i, (c, w) in enumerate(zip(line, width, strict=True))
        ]
        text.append("| " + " | ".join(cells) + " |")
    rule = ["-" * w if i < n_labels else "-" * (w - 1) + ":" for i, w in enumerate(width)]
    text.insert(1, "| " + " | ".join(rule) + " |")
    return "\n".join([f"# {grid.title}", "", *text, "", *_notes(grid, results), ""])


def _measured(name: str, row: Mapping[str, Any]) -> str:
    found = row["measured"].get(name)
    if found is None:
        return "failed" if row["failed"] and not row["done"] else NONE
    text = number(name, found["mean"])
    if found["sd"] is not None:
        text += f" ± {number(name, found['sd'])}"
    return f"{text} ({row['failed']} failed)" if row["failed"] else text


def number(name: str, value: float | None) -> str:
    """
    >>> number("mAP", 0.5345), number("n_tracklets", 13847), number("mAP", None)
    ('53.5', '13,847', '–')
    """
    if value is None:
        return NONE
    metric = METRICS[name]
    return f"{metric.times * value:,.{metric.digits}f}"


def _notes(grid: Grid, results: Sequence[Mapping[str, Any]]) -> list[str]:
    seeds = ", ".join(map(str, grid.seeds))
    spread = "; mean ± standard deviation of the sample" if len(grid.seeds) > 1 else ""
    notes = [f"Fractions in percent. Seeds {seeds}{spread}. Scores are of the last epoch."]
    done = [r["scores"] for r in results if r["status"] == "done"]
    for protocol in dict.fromkeys(s["protocol"] for s in done):
        counts = {(s["n_valid"], s["n_skipped"]) for s in done if s["protocol"] == protocol}
        queries = " or ".join(f"{valid:,} ({skipped:,} skipped)" for valid, skipped in sorted(counts))
        notes.append(f"Protocol: {protocol}; valid queries: {queries}.")
    notes += dict.fromkeys(f"Note: {note}" for s in done for note in s.get("notes", ()))
    if grid.note:
        notes.append(grid.note.strip())
    states = [r["status"] for r in results]
    if (n_open := states.count("open")) and len(states) > n_open:
        notes.append(f"Not finished: {n_open} of {len(states)} cells are open.")
    for r in results:
        if r["status"] == "failed":
            where = ", ".join([r["data"], r["noise"], r["variant"], f"seed {r['seed']}"])
            notes.append(f"Failed: {where}: {r['error']}")
    return [line for note in notes for line in (note, "")][:-1]
