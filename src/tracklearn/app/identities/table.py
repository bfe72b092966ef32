"""A table of identities as people read it: who, where, when, and how surely."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tracklearn.app.formats import clock, wall
from tracklearn.app.pipeline.estimated import count
from tracklearn.core.shown import called
from tracklearn.store.identities.folder import Identities

_SHOWN, _DOUBTFUL = 30, 5  # people of the table, links of the list


def text(found: Identities) -> str:
    """What `tracklearn identities` prints: counts, warnings, changes, people, the least certain of them."""
    manifest, rows = found.manifest, found.rows
    counts, doubted = manifest["counts"], manifest.get("doubted", False)
    groups = count(counts["people"], "group, perhaps a person,", "groups, each perhaps a person,")
    who = groups if doubted else count(counts["people"], "person", "people")
    lines = [
        f"{who} in {count(counts['parts'], 'part')} of "
        f"{count(len({(r['set_digest'], r['track']) for r in rows}), 'track')}, "
        f"{count(len({r['camera'] for r in rows}), 'camera')}"
    ]
    if counts["nobody"]:
        lines.append(f"{count(counts['nobody'], 'part')} of nobody in particular")
    if manifest["limits"]:
        within, across = (manifest["limits"][f"{kind}_distance"] for kind in ("within", "across"))
        joined = f"joined below a distance of {within:.3f}"
        lines.append(joined + (f", across cameras {across:.3f}" if len(manifest["cameras"]) > 1 else ""))
    # What casts doubt on the counts stands above them.
    lines = [*manifest["notes"], *lines] if doubted else [*lines, *manifest["notes"]]
    if manifest["changes"]:
        lines += changes(manifest["changes"])
    people = by_person(rows)
    lines += ["", *_aligned(_people(people, doubted=doubted)[: _SHOWN + 1])]
    if len(people) > _SHOWN:
        lines.append(f"and {len(people) - _SHOWN} more in {found.path / 'identities.csv'}")
    if doubtful := least_certain(rows)[:_DOUBTFUL]:
        lines += ["", "least certain:"]
        several = len(manifest["sets"]) > 1
        order = {entry["digest"]: i for i, entry in enumerate(manifest["sets"], start=1)}
        for row in doubtful:
            prefix = f"{order[row['set_digest']]}:" if several else ""
            lines.append(f"  {prefix}{name(row)} {said(row, doubted=doubted)} {row['identity']}")
    return "\n".join(lines)


def said(row: Mapping[str, Any], *, doubted: bool = False) -> str:
    """How surely a part is its person; nothing is probable in a table that is doubted.

    >>> said({"probability": 0.934}), said({"probability": 0.4})
    ('probably the same person, 0.93, as', 'perhaps the same person, 0.40, as')
    """
    probability = row["probability"]
    return f"{likely(probability, doubted=doubted)} the same person, {probability:.2f}, as"


def likely(probability: float, *, doubted: bool = False) -> str:
    """The word that goes with a probability."""
    return "probably" if probability >= 0.5 and not doubted else "perhaps"


def name(row: Mapping[str, Any]) -> str:
    """What people call a part."""
    return called(row["track"], row["part"], row["n_parts"])


def by_person(rows: Sequence[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    """The rows of each person, by number."""
    people: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["identity"] is not None:
            people[row["identity"]].append(row)
    return dict(sorted(people.items()))


def unsaid(rows: Sequence[Mapping[str, Any]]) -> str:
    """Why no row of a person has a probability.

    >>> unsaid([{"set_digest": "a", "track": 3}]), unsaid([{"set_digest": "a", "track": 3}] * 2)
    ('seen once', 'one track')
    >>> unsaid([{"set_digest": "a", "track": 3}, {"set_digest": "a", "track": 4}])
    'not known'
    """
    if len(rows) == 1:
        return "seen once"
    return "one track" if len({(row["set_digest"], row["track"]) for row in rows}) == 1 else "not known"


def least_certain(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows that were compared with others, the least probable first."""
    compared = [row for row in rows if row["probability"] is not None and row["identity"] is not None]
    return sorted(compared, key=lambda row: row["probability"])


def changes(found: Mapping[str, Any]) -> list[str]:
    """What is new against an earlier table, a line each."""
    lines = [
        f"{found['parts_kept']} of {found['parts_known']} known parts keep their numbers; "
        f"{count(found['known'], 'person', 'people')} known, {len(found['new'])} new"
    ]
    if found["gone"]:
        lines.append(f"numbers no longer used: {', '.join(map(str, found['gone'][:20]))}")
    for move in found["moved"][:10]:
        to = "nobody in particular" if move["to"] is None else f"person {move['to']}"
        lines.append(f"  {move['part']} was person {move['from']} and is {to} now")
    if len(found["moved"]) > 10:
        lines.append(f"  and {len(found['moved']) - 10} more")
    return lines


def _people(people: Mapping[int, Sequence[Mapping[str, Any]]], *, doubted: bool) -> list[tuple[str, ...]]:
    """A row of cells for the head, and one for each person."""
    word = "perhaps" if doubted else "probably"
    table: list[tuple[str, ...]] = [
        ("person", "parts", "cameras", "first seen", "seconds", f"{word} the same person")
    ]
    for number, rows in people.items():
        first = min(rows, key=lambda row: (row["at"] or "", row["start"]))
        known = [row["probability"] for row in rows if row["probability"] is not None]
        cameras = sorted({row["camera"] for row in rows})
        table.append(
            (
                str(number),
                str(len(rows)),
                ", ".join(cameras[:3]) + (f" and {len(cameras) - 3} more" if len(cameras) > 3 else ""),
                _at(first),
                f"{sum(row['end'] - row['start'] for row in rows):.0f}",
                f"{min(known):.2f} to {max(known):.2f}" if known else unsaid(rows),
            )
        )
    return table


def _at(row: Mapping[str, Any]) -> str:
    from datetime import datetime

    return wall(datetime.fromisoformat(row["at"])) if row["at"] else clock(row["start"])


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    width = [max(len(row[c]) for row in table) for c in range(len(table[0]))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, width, strict=True)).rstrip() for row in table]
