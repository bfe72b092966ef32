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
_WIDE, _LEFT, _HIGH, _TICKS = 900, 110, 26, 4  # of a time line: pixels, room for names, a line, labels below


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
    high = _HIGH * len(used) + 26
    out = []
    for line, name in enumerate(used):
        y = line * _HIGH
        short = name if len(name) <= 14 else name[:13] + "…"
        out.append(
            f'<text class="label" x="{_LEFT - 10}" y="{y + 17}" text-anchor="end">{escape(short)}</text>'
        )
        out.append(f'<line class="rule" x1="{_LEFT}" y1="{y + 13}" x2="{_WIDE - 8}" y2="{y + 13}"/>')
    for row, at in sorted(zip(rows, begin, strict=True), key=lambda pair: -pair[0].get("rank", 0)):
        line = used.index(row["camera"])
        x, wide = _LEFT + (at - zero) * scale, max((row["end"] - row["start"]) * scale, 6.0)
        x = min(x, _WIDE - 8 - wide)
        colour = cameras.index(row["camera"]) % N_COLOURS
        rank = f"{row['rank']}: " if "rank" in row else ""
        title = escape(f"{rank}#{row['name']}, {row['camera']}, {row['wall'] or row['span']}")
        bar = (
            f'<rect class="fill-c{colour}" x="{x:.1f}" y="{line * _HIGH + 4}" width="{wide:.1f}" height="18" '
            f'rx="3"><title>{title}</title></rect>'
        )
        if "rank" in row and wide >= 14:
            bar += (
                f'<text class="rank" x="{x + wide / 2:.1f}" y="{line * _HIGH + 17}" text-anchor="middle">'
                f"{row['rank']}</text>"
            )
        out.append(f'<a href="#part-{escape(row["ref"])}" aria-label="{title}">{bar}</a>' if links else bar)
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
