"""Drawings of the page: the report's charts as pictures of their own, and who was where when.

The page allows no style inside its text, so a chart of the report becomes a picture that brings its colours
along, and what is drawn here says its colours by classes of the stylesheet.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from tracklearn.app.formats import clock
from tracklearn.app.report.charts import N_COLOURS

_STYLE = """<style>
svg{--sans:ui-sans-serif,system-ui,"Noto Sans","Liberation Sans",sans-serif;
--ink:#1d1f23;--muted:#5d616a;--line:#e2e2dc;--accent:#2f6690;--soft:#b4c9d9;--dropped:#85888f;
--c0:#2f6fa8;--c1:#dd7f26;--c2:#35906a;--c3:#8a5fb0;--c4:#c94d55;--c5:#1f9aa6;--c6:#c9639f;--c7:#8f8a1e;
--c8:#7a5a43;--c9:#5c6bc0}
@media (prefers-color-scheme:dark){svg{--ink:#e7e7e3;--muted:#9ea3aa;--line:#31353a;--accent:#7fb2dc;
--soft:#3f5a70;--dropped:#7b7f86;--c0:#6aa6dc;--c1:#f0a154;--c2:#60c096;--c3:#b592da;--c4:#ec838a;--c5:#57c4cf;
--c6:#e594c4;--c7:#c7c04e;--c8:#b8937a;--c9:#98a5ee}}
</style>"""
_WIDE, _LEFT, _TICKS = 900, 110, 4  # of a time line: pixels, room for names, labels below but the last
_BAR, _GAP, _LANES = 18, 8, 6  # of a bar, between two cameras; bars at one time that get lines of their own


def alone(svg: str) -> str:
    """A chart of the report as a file of its own, in the colours of the page by day and by night."""
    at = svg.index(">") + 1
    return svg[:at] + _STYLE + svg[at:]


def timeline(
    rows: Sequence[dict[str, Any]], begin: Sequence[float], cameras: Sequence[str], *, label: str, links: bool
) -> str:
    """SVG of parts in time: a line a camera, a bar a part, each a link to where it is told of.

    Args:
        rows: of `find.shown`; with "rank" where they are results.
        begin: seconds at which each begins, on one clock.
        cameras: names of all, in order.
        label: what it shows, for screen readers.
        links: whether a bar leads to the element `part-REF` of the page.
    """
    used = [name for name in cameras if any(row["camera"] == name for row in rows)]
    if not rows:
        return ""
    zero = min(begin)
    ends = [at + row["end"] - row["start"] for at, row in zip(begin, rows, strict=True)]
    whole = max(max(ends) - zero, 1e-3)
    scale = (_WIDE - _LEFT - 16) / whole
    bars = [
        (_LEFT + (at - zero) * scale, max((end - at) * scale, 6.0))
        for at, end in zip(begin, ends, strict=True)
    ]
    bars = [(min(x, _WIDE - 8 - wide), wide) for x, wide in bars]
    lane, lanes = _lanes([row["camera"] for row in rows], bars)
    top, high = {}, 0  # of a camera's lines
    for name in used:
        top[name] = high
        high += lanes[name] * _BAR + _GAP
    out = []
    for name in used:
        short = escape(name if len(name) <= 14 else name[:13] + "…")
        middle = top[name] + 4 + lanes[name] * _BAR / 2
        out.append(
            f'<text class="label" x="{_LEFT - 10}" y="{middle + 4:g}" text-anchor="end">{short}</text>'
        )
        out.append(f'<line class="rule" x1="{_LEFT}" y1="{middle:g}" x2="{_WIDE - 8}" y2="{middle:g}"/>')
    for i in sorted(range(len(rows)), key=lambda i: -rows[i].get("rank", 0)):
        row, (x, wide) = rows[i], bars[i]
        y, colour = top[row["camera"]] + 4 + lane[i] * _BAR, cameras.index(row["camera"]) % N_COLOURS
        rank = f"{row['rank']}: " if "rank" in row else ""
        title = escape(f"{rank}#{row['name']}, {row['camera']}, {row['wall'] or row['span']}")
        bar = (
            f'<rect class="fill-c{colour}" x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{_BAR}" '
            f'rx="3"><title>{title}</title></rect>'
        )
        if "rank" in row and wide >= 14:
            bar += (
                f'<text class="rank" x="{x + wide / 2:.1f}" y="{y + 13}" text-anchor="middle">'
                f"{row['rank']}</text>"
            )
        out.append(f'<a href="#part-{escape(row["ref"])}" aria-label="{title}">{bar}</a>' if links else bar)
    high += _GAP + 18
    for i in range(_TICKS + 1):
        share = i / _TICKS
        anchor = "start" if i == 0 else "end" if i == _TICKS else "middle"
        text = clock(zero + share * whole).rsplit(".", 1)[0]
        x = _LEFT + share * whole * scale
        out.append(f'<text class="label" x="{x:.1f}" y="{high - 6}" text-anchor="{anchor}">{text}</text>')
    return (
        f'<svg class="timeline" viewBox="0 0 {_WIDE} {high}" width="{_WIDE}" height="{high}" role="group" '
        f'aria-label="{escape(label)}">{"".join(out)}</svg>'
    )


def _lanes(of: Sequence[str], bars: Sequence[tuple[float, float]]) -> tuple[dict[int, int], dict[str, int]]:
    """Bars of one camera that lie over each other get lines of their own, as far as there are any.

    Args:
        of: the camera of each bar.
        bars: where each begins, and how wide it is, in pixels.

    Returns:
        The line of each bar among its camera's, and how many lines each camera has.
    """
    lane: dict[int, int] = {}
    ends: dict[str, list[float]] = {name: [] for name in of}  # of the last bar of each line
    for i in sorted(range(len(bars)), key=lambda i: bars[i]):
        (x, wide), taken = bars[i], ends[of[i]]
        free = next((line for line, end in enumerate(taken) if end <= x), len(taken))
        if free == _LANES:  # over the bar that ends first
            free = min(range(_LANES), key=taken.__getitem__)
        taken[free:] = [x + wide, *taken[free + 1 :]]
        lane[i] = free
    return lane, {name: len(taken) for name, taken in ends.items()}
