"""Pictures of a judgement: ranked lists with right and wrong in colour, and CMC curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tracklearn.app import drawn
from tracklearn.types import Array

_RIGHT, _WRONG, _ASKED = (46, 139, 87), (192, 57, 43), (47, 93, 138)

_GROUND, _TEXT, _FAINT = "#fbfbf9", "#1d1f23", "#6a6e75"

_TILE, _FRAME, _GAP, _CAPTION = (72, 144), 4, 10, 30  # pixels: width and height, frame, between, below


def ranked_lists(
    rows: Sequence[tuple[Array, str, Sequence[tuple[Array, str, bool]]]], *, title: str
) -> bytes:
    """PNG of ranked lists: a line per query with its results, nearest first, framed green (right) or red.

    Args:
        rows: (picture, caption, results) of each query; results are (picture, caption, right). Pictures are
            uint8 RGB of any size.
        title: heading.
    """
    from tracklearn.app.pictures import fit

    (w, h), step, top, margin = _TILE, _TILE[0] + 2 * _FRAME + _GAP, 46, 24
    line = h + 2 * _FRAME + _CAPTION + _GAP
    longest = max((len(results) for _, _, results in rows), default=0)
    width, height = (
        2 * margin + max(1 + longest, 8) * step + _GAP,
        top + max(len(rows), 1) * line + margin // 2,
    )
    canvas = np.full((height, width, 3), [int(_GROUND[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)
    texts = [(margin, 16, title, 9.5, _TEXT)]

    def place(picture: Array, x: int, y: int, colour: tuple[int, int, int], caption: str) -> None:
        canvas[y : y + h + 2 * _FRAME, x : x + w + 2 * _FRAME] = colour
        canvas[y + _FRAME : y + _FRAME + h, x + _FRAME : x + _FRAME + w] = fit(picture, w, h)
        for i, text in enumerate(caption.splitlines()[:2]):
            at = y + h + 2 * _FRAME + 3 + 13 * i
            texts.append((x, at, text if len(text) <= 12 else text[:11] + "…", 7, _FAINT if i else _TEXT))

    for i, (picture, caption, results) in enumerate(rows):
        y = top + i * line
        place(picture, margin, y, _ASKED, caption)
        for j, (result, under, right) in enumerate(results):
            # The sign says the same as the colour, to those who cannot tell the two apart.
            text = f"{j + 1} {'✓' if right else '✗'} {under}"
            place(result, margin + _GAP + (j + 1) * step, y, _RIGHT if right else _WRONG, text)
    return _png(canvas, texts)


def _png(canvas: Array, texts: Sequence[tuple[int, int, str, float, str]]) -> bytes:
    """The canvas as PNG with texts (x, y of the upper left corner in pixels, text, size, colour)."""
    from io import BytesIO

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = canvas.shape[:2]
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    FigureCanvasAgg(figure)
    figure.figimage(canvas)
    for x, y, text, size, colour in texts:
        figure.text(x / width, 1 - y / height, text, va="top", fontsize=size, color=colour, parse_math=False)
    stream = BytesIO()
    drawn.save(figure, stream, "png", metadata={"Software": None})
    return stream.getvalue()


def cmc_picture(curves: Mapping[str, Array], *, title: str) -> bytes:
    """PNG of cumulative match curves, name -> (k,) fractions; rank-1, 5, 10 and 20 carry their values."""
    from io import BytesIO

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(6.4, 4.2), dpi=120, facecolor=_GROUND, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor=_GROUND)
    for i, (name, curve) in enumerate(curves.items()):
        rank = np.arange(1, len(curve) + 1)
        colour = ("#2f5d8a", "#b3661d", "#2e8b57")[i % 3]
        axes.plot(rank, curve, color=colour, linewidth=1.8, label=name, dashes=() if not i else (4, 2))
        for r in (1, 5, 10, 20):
            if r <= len(curve) and not i:
                axes.plot(r, curve[r - 1], "o", color=colour, markersize=4)
                axes.annotate(
                    f"{curve[r - 1]:.1%}",
                    (r, curve[r - 1]),
                    xytext=(5, -12),
                    textcoords="offset points",
                    fontsize=8,
                    color=colour,
                )
    low = min((float(np.nanmin(c)) for c in curves.values() if np.isfinite(c).any()), default=0.0)
    axes.set(xlabel="rank", ylabel="queries with a match up to this rank", xlim=(0, None))
    axes.set_ylim(max(0.0, np.floor((low - 0.06) * 10) / 10), 1.005)
    axes.set_title(title, fontsize=10, loc="left", color=_TEXT, parse_math=False)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(color="#dcdcd6", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False, fontsize=9)
    stream = BytesIO()
    drawn.save(figure, stream, "png", metadata={"Software": None})
    return stream.getvalue()
