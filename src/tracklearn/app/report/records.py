"""The report's table of what a method noted of each labelling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tracklearn.app.formats import plain

# What methods call otherwise than people: their names are those of the records' files.
_SHOWN = {
    "one_track": "persons of one track",
    "apart": "seen at one moment",
    "splits": "persons split",
    "two_views": "two views known",
    "same_track": "halves known",
    "two_people": "two people told apart",
}


def table(rounds: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """A row for each labelling, and the columns there are.

    Args:
        rounds: with `index`, `stage` and `record`; rounds that keep their labels keep the record too.
        steps: what ground truth says of some labellings, by the `index` of their first round.

    Returns:
        `names` of the columns, those `judged`, and `rows` of (index, stage, texts, judged values); None where
        nothing was noted.
    """
    rows: list[dict[str, Any]] = []
    for r in rounds:
        record = r.get("record") or {}
        if record and (not rows or record != rows[-1]["record"]):
            rows.append({"index": r.get("index"), "stage": r.get("stage", ""), "record": record})
    if not rows:
        return None
    names = list(dict.fromkeys(name for row in rows for name in row["record"]))
    shown = {row["index"] for row in rows}
    judged = {row["index"]: row for row in steps if row["index"] in shown}
    extra = list(dict.fromkeys(k for row in judged.values() for k in row if k != "index"))
    return {
        "names": [_SHOWN.get(name, name.replace("_", " ")) for name in names],
        "judged": extra,
        "rows": [
            (
                row["index"],
                row["stage"],
                [plain(row["record"].get(name)) for name in names],
                [judged.get(row["index"], {}).get(name) for name in extra],
            )
            for row in rows
        ],
    }
