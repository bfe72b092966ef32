"""The report's section on who is who: people, a timeline over cameras, the least certain of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tracklearn.app.formats import clock
from tracklearn.app.identities.table import likely, unsaid
from tracklearn.app.report.charts import N_COLOURS
from tracklearn.app.report.data import ReportData
from tracklearn.app.report.shots import Shots
from tracklearn.core.shown import called

_PEOPLE, _SHOTS, _DOUBTFUL, _LINES = 24, 8, 12, 40  # people, pictures of each, pairs, lines of the timeline
_LEFT, _WIDE, _HIGH = 40, 900, 18  # of the timeline, pixels: names, whole, a line

Row = Mapping[str, Any]


def section(data: ReportData, shots: Shots) -> dict[str, Any] | None:
    """What the template shows of identities; None where there are none."""
    if not data.people:
        return None
    rows: Sequence[Row] = data.people["rows"]
    people: dict[int, list[Row]] = {}
    for row in rows:
        if row["identity"] is not None:
            people.setdefault(row["identity"], []).append(row)
    # Those in view for long come first: the rest are scraps and mistaken boxes more often.
    order = sorted(people, key=lambda n: (-sum(row["n_crops"] for row in people[n]), n))
    shown = sorted(order[:_PEOPLE])
    compared = [row for row in rows if row["probability"] is not None and row["identity"] is not None]
    doubtful = sorted(compared, key=lambda row: row["probability"])[:_DOUBTFUL]
    return {
        "n": len(people),
        "n_parts": len(rows),
        "notes": data.people["notes"],
        "doubted": data.people.get("doubted", False),
        "timeline": _timeline({n: people[n] for n in sorted(order[:_LINES])}, data.cameras),
        "caption": "A line a person, a bar a part, by the time in the film"
        + (f"; the {_LINES} longest in view of {len(people)}." if len(people) > _LINES else "."),
        "people": [_person(n, people[n], shots) for n in shown],
        "more": len(people) - len(shown),
        "doubtful": [
            _pair(row, people[row["identity"]], shots, doubted=data.people.get("doubted", False))
            for row in doubtful
        ],
    }


def _person(number: int, rows: Sequence[Row], shots: Shots) -> dict[str, Any]:
    longest = sorted(rows, key=lambda row: -row["n_crops"])[:_SHOTS]
    known = [row["probability"] for row in rows if row["probability"] is not None]
    return {
        "number": number,
        "parts": len(rows),
        "cameras": ", ".join(sorted({row["camera"] for row in rows})[:3]),
        "sure": f"from {min(known):.2f}" if known else unsaid(rows),
        "shots": [
            {"src": shots.shot(row["crop"]), "caption": f"#{_name(row)}\n{clock(row['start'])}"}
            for row in sorted(longest, key=lambda row: (row["camera"], row["start"]))
        ],
    }


def _pair(row: Row, own: Sequence[Row], shots: Shots, *, doubted: bool) -> dict[str, Any]:
    other = max((each for each in own if each is not row), key=lambda each: each["n_crops"], default=row)
    return {
        "number": row["identity"],
        "likely": f"{likely(row['probability'], doubted=doubted)} {row['probability']:.2f}",
        "ends": [shots.shot(row["crop"]), shots.shot(other["crop"])],
        "caption": f"#{_name(row)} · #{_name(other)}",
    }


def _name(row: Row) -> str:
    return called(row["track"], row["part"], row["n_parts"])


def _timeline(people: Mapping[int, Sequence[Row]], cameras: Sequence[str]) -> str:
    """SVG of who was in view when, in the page's colours, a colour a camera."""
    end = max((row["end"] for rows in people.values() for row in rows), default=0.0) or 1.0
    scale = (_WIDE - _LEFT - 8) / end
    high = _HIGH * max(len(people), 1) + 44
    bars = []
    for line, (number, rows) in enumerate(people.items()):
        top = line * _HIGH
        bars.append(f'<text x="{_LEFT - 8}" y="{top + 13}" text-anchor="end">{number}</text>')
        for row in rows:
            left, wide = _LEFT + row["start"] * scale, max((row["end"] - row["start"]) * scale, 1.5)
            colour = f"var(--c{cameras.index(row['camera']) % N_COLOURS})"
            title = escape(f"person {number}, {row['camera']}, {clock(row['start'])} to {clock(row['end'])}")
            bars.append(
                f'<rect x="{left:.1f}" y="{top + 3}" width="{wide:.1f}" height="{_HIGH - 6}" rx="2" '
                f'fill="{colour}"><title>{title}</title></rect>'
            )
    ticks = [
        f'<text x="{_LEFT + share * end * scale:.1f}" y="{high - 28}" text-anchor="{anchor}">'
        f"{clock(share * end).rsplit('.', 1)[0]}</text>"
        for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
    ]
    names = [
        f'<tspan dx="{14 if i else 0}" style="fill:var(--c{i % N_COLOURS})">■</tspan>'
        f'<tspan dx="4">{escape(name)}</tspan>'
        for i, name in enumerate(cameras)
    ]
    named = f'<text x="{_LEFT}" y="{high - 6}">{"".join(names)}</text>'
    body = "".join([*bars, *ticks, named])
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDE} {high}" role="img" aria-label="who was in view when" '
        f'font-size="11" fill="var(--muted)">{body}</svg>'
    )
