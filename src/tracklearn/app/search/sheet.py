"""The results of a search as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tracklearn.app import drawn
from tracklearn.app.pictures import fit
from tracklearn.store.files import make_folder, replacing
from tracklearn.types import Array

_PER_ROW = 6

_HEIGHT, _GAP, _MARGIN, _LINE = 256, 20, 28, 15  # pixels: pictures, between them, around, lines below


def contact_sheet(
    query: Array,
    results: Sequence[tuple[Array, str]],
    out: Path | str,
    *,
    query_caption: str = "query",
) -> Path:
    """The PNG file `out`: the query on the left, the results beside it in order of rank, six to a row.

    Args:
        query: (h, w, 3) uint8 RGB, any size; tiles take the pictures' usual shape.
        results: (picture, caption) pairs, nearest first; the first line of a caption is set in bold.
        out: file to write, whole or not at all.
        query_caption: text under the query.

    Raises:
        ValueError: a picture is not uint8 RGB.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    out, tile_h = Path(out), _HEIGHT
    shapes = [p.shape[1] / p.shape[0] for p in (query, *(p for p, _ in results)) if p.ndim == 3 and p.size]
    tile_w = round(tile_h * float(np.clip(np.median(shapes), 0.36, 0.75))) if shapes else tile_h // 2
    per_row = max(1, min(_PER_ROW, len(results)))
    n_rows = max(1, -(-len(results) // per_row))
    left = _MARGIN + tile_w + 2 * _GAP
    width = left + (per_row * (tile_w + _GAP) - _GAP if results else -2 * _GAP) + _MARGIN
    n_lines = max(len(text.splitlines()) for text in (query_caption, *(text for _, text in results)))
    step = tile_h + 9 + _LINE * n_lines + _GAP
    height = 2 * _MARGIN + n_rows * step - _GAP

    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor="#fbfbf9")
    FigureCanvasAgg(figure)

    def place(picture: Array, caption: str, x: int, top: int, edge: str) -> None:
        axes = figure.add_axes((x / width, 1 - (top + tile_h) / height, tile_w / width, tile_h / height))
        axes.imshow(fit(picture, tile_w, tile_h), interpolation="none", aspect="auto")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(edgecolor=edge, linewidth=2.2 if edge != "#d9d9d4" else 0.8)
        for line, text in enumerate(caption.splitlines()):
            figure.text(
                x / width,
                1 - (top + tile_h + 8 + _LINE * line) / height,
                _short(text),
                va="top",
                fontsize=7.6,
                color="#1d1f23" if line == 0 else "#6a6e75",
                weight="bold" if line == 0 else "normal",
                parse_math=False,
            )

    place(query, query_caption, _MARGIN, _MARGIN, "#2f5d8a")
    if results:
        x = (left - _GAP) / width
        figure.add_artist(_rule(x, _MARGIN / height))
    for i, (picture, caption) in enumerate(results):
        row, column = divmod(i, per_row)
        place(picture, caption, left + column * (tile_w + _GAP), _MARGIN + row * step, "#d9d9d4")
    make_folder(out.parent)
    with replacing(out) as file:
        drawn.save(figure, file, "png", metadata={"Software": None})
    return out


def _short(text: str, limit: int = 24) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _rule(x: float, margin: float) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([x, x], [margin, 1 - margin], color="#d9d9d4", linewidth=0.8)
