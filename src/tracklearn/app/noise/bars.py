"""Tracklets as bars over time, coloured by the person in them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tracklearn.app import drawn
from tracklearn.types import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NOBODY = "#d4d4d4"
_TALL, _COLUMNS = 60.0, 3  # inches that a picture may be high, and columns that it may have
_LEAST = 0.6  # inches of a panel
_COLOURS = (
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#bcbd22", "#17becf"),
    *("#0b3d6b", "#b35900", "#145214", "#7a1010", "#4b2a75", "#7fb8e6", "#f7b6d2", "#8ee08e", "#e8d44d"),
)


def stretches(track: Array, frame: Array, pid: Array, min_run: int) -> Array:
    """Stretches of one tracklet and person without a hole, by tracklet and frame.

    Args:
        track: (n,) int, at least 0. frame: (n,) int, from 0. pid: (n,) int, −1 for nobody.
        min_run: rows in a row of one tracklet that a person must have to count; with fewer it is nobody.

    Returns:
        (b, 4) int64: tracklet, first frame, last frame, person (−1 for nobody). Where a tracker uses every
        n-th frame only, the frames between are no holes.
    """
    order = np.lexsort((frame, track))
    track, frame, pid = track[order], frame[order], pid[order].copy()
    run = np.flatnonzero((np.diff(track, prepend=-1) != 0) | (np.diff(pid, prepend=-2) != 0))
    length = np.diff(np.r_[run, len(pid)])
    pid[np.repeat(length < min_run, length)] = -1
    new = np.diff(track, prepend=-1) != 0
    usual = max(1, int(np.median(np.diff(frame)[~new[1:]]))) if not new.all() else 1
    start = np.flatnonzero(new | (np.diff(pid, prepend=-2) != 0) | (np.diff(frame, prepend=-1) > usual))
    end = np.r_[start[1:], len(pid)] - 1
    return np.stack([track[start], frame[start], frame[end] + usual - 1, pid[start]], 1)


def draw(panels: Mapping[str, Array]) -> bytes:
    """PNG: a panel for each title, where a tracklet is a row over time, sorted by first frame.

    Many panels stand in up to three columns, and their rows become thinner, so that the picture stays of a
    size that viewers show.

    Args:
        panels: title -> (b, 4) of `stretches`, at least one row each.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n = [len(np.unique(bars[:, 0])) for bars in panels.values()]
    above, below = 0.55, 0.45
    columns, heights, pitch = _layout(n, above + below)
    tallest = max(sum(heights[i] + above + below for i in column) for column in columns)
    height = tallest + 0.35
    width = 12 * len(columns)
    figure = Figure(figsize=(width, height), dpi=110)
    FigureCanvasAgg(figure)
    figure.text(
        0.05 / len(columns),
        (height - 0.2) / height,
        "A row is a tracklet, a colour a person (colours recur). Grey: nobody matched, or too few frames in "
        "a row to count. Numbers: persons in a mixed tracklet.",
        fontsize=8.5,
        color="#555555",
        va="center",
    )
    items = list(panels.items())
    for place, column in enumerate(columns):
        top = height - 0.3
        for i in column:
            (title, bars), tall = items[i], heights[i]
            top -= above
            left = (place + 0.05) / len(columns)
            axes = figure.add_axes((left, (top - tall) / height, 0.92 / len(columns), tall / height))
            _panel(axes, bars, small=pitch < 0.07)
            axes.set_title(title, loc="left", fontsize=10, parse_math=False)
            top -= tall + below
    stream = io.BytesIO()
    drawn.save(figure, stream, "png", metadata={"Software": None})
    return stream.getvalue()


def _layout(n: Sequence[int], around: float) -> tuple[list[list[int]], list[float], float]:
    """Panels of n rows each in columns, their heights, and the height of a row, in inches.

    Args:
        n: rows of each panel.
        around: inches above and below a panel.
    """
    pitch = 0.11
    whole = sum(max(_LEAST, k * pitch) + around for k in n)
    n_columns = min(_COLUMNS, len(n), -(-int(whole) // int(_TALL)) or 1)
    while True:
        heights = [max(_LEAST, k * pitch) for k in n]
        columns = _in_columns([tall + around for tall in heights], n_columns)
        tallest = max(sum(heights[i] + around for i in column) for column in columns)
        if tallest <= _TALL or max(heights) <= _LEAST:
            return columns, heights, pitch
        pitch *= 0.9


def _in_columns(heights: Sequence[float], n: int) -> list[list[int]]:
    """Panels in up to n columns, in their order, each column about as high as the others."""
    columns: list[list[int]] = [[]]
    share, filled = sum(heights) / n, 0.0
    for i, tall in enumerate(heights):
        if columns[-1] and len(columns) < n and filled + tall / 2 > share * len(columns):
            columns.append([])
        columns[-1].append(i)
        filled += tall
    return columns


def _panel(axes: Axes, bars: Array, *, small: bool) -> None:
    from matplotlib.collections import PolyCollection
    from matplotlib.ticker import MaxNLocator

    track, at = np.unique(bars[:, 0], return_inverse=True)
    first = np.full(len(track), np.iinfo(np.int64).max)
    np.minimum.at(first, at, bars[:, 1])
    last = np.zeros(len(track), np.int64)
    np.maximum.at(last, at, bars[:, 2])
    row = np.empty(len(track), np.int64)
    row[np.lexsort((track, first))] = np.arange(len(track))
    y = row[at].astype(float)
    x0, x1 = bars[:, 1] + 1.0, bars[:, 2] + 2.0  # frames from 1, as in the file
    axes.hlines(row, first + 1.0, last + 2.0, colors=_NOBODY, linewidth=0.6, zorder=0)  # holes
    corner = np.stack([x0, y - 0.4, x1, y - 0.4, x1, y + 0.4, x0, y + 0.4], 1).reshape(-1, 4, 2)
    colour = person_colours(bars)
    axes.add_collection(
        PolyCollection(
            list(corner), facecolors=[colour.get(int(p), _NOBODY) for p in bars[:, 3]], linewidths=0
        )
    )
    held = np.unique(bars[bars[:, 3] >= 0][:, [0, 3]], axis=0)
    mixed, persons = np.unique(held[:, 0], return_counts=True)
    if not small:
        for i, count in zip(np.searchsorted(track, mixed)[persons > 1], persons[persons > 1], strict=True):
            end = (last[i] + 2.0, float(row[i]))
            axes.annotate(str(count), end, (3, 0), textcoords="offset points", va="center", fontsize=6)
    axes.set(xlim=(x0.min() - 1, x1.max() + (x1.max() - x0.min()) * 0.02), ylim=(len(track) - 0.3, -0.7))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    axes.set_yticks([])
    axes.set_xlabel("frame", fontsize=8, labelpad=1)
    axes.set_ylabel("tracklets, by first frame", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)


def person_colours(bars: Array) -> dict[int, str]:
    """A colour for each person of (b, 4) `stretches`, different ones within a tracklet if possible.

    In the order of first appearance each person takes the colour least used so far of those that nobody in a
    tracklet with them has.
    """
    bars = bars[bars[:, 3] >= 0]
    held = np.unique(bars[:, [0, 3]], axis=0)
    mates: dict[int, set[int]] = {}
    for persons in np.split(held[:, 1], np.flatnonzero(np.diff(held[:, 0])) + 1):
        if len(persons) > 1:
            for person in persons.tolist():
                mates.setdefault(person, set()).update(persons.tolist())
    chosen: dict[int, int] = {}
    used = [0] * len(_COLOURS)
    for person in dict.fromkeys(bars[np.argsort(bars[:, 1], kind="stable"), 3].tolist()):
        taken = {chosen[other] for other in mates.get(person, ()) if other in chosen}
        free = [c for c in range(len(_COLOURS)) if c not in taken] or range(len(_COLOURS))
        chosen[person] = min(free, key=used.__getitem__)
        used[chosen[person]] += 1
    return {person: _COLOURS[c] for person, c in chosen.items()}
