"""Charts of the report, as SVG that takes its colours from the page.

Matplotlib draws them with placeholder colours; each placeholder is then replaced by a CSS variable, so that
one drawing serves light, dark and printed pages. Text stays text, in the page's own typeface.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn.app import drawn
from tracklearn.types import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes


N_COLOURS = 10  # --c0 … --c9 of the page
_NAMES = ("ink", "muted", "line", "accent", "soft", "dropped", *(f"c{i}" for i in range(N_COLOURS)))
_PAINT = {name: f"#0102{i:02x}" for i, name in enumerate(_NAMES)}
_SIZE = (304, 196)  # CSS pixels
_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tracklearn",
    "text.parse_math": False,
    "font.size": 11,
    "axes.edgecolor": _PAINT["line"],
    "axes.labelcolor": _PAINT["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _PAINT["line"],
    "grid.linewidth": 0.7,
    "text.color": _PAINT["ink"],
    "xtick.color": _PAINT["line"],
    "ytick.color": _PAINT["line"],
    "xtick.labelcolor": _PAINT["muted"],
    "ytick.labelcolor": _PAINT["muted"],
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


def part_colour(part: int) -> str:
    """Name of the page's colour variable for a part; dropped frames (−1) have their own."""
    return "dropped" if part < 0 else f"c{part % N_COLOURS}"


def lines(
    series: Mapping[str, tuple[Array, Array]],
    *,
    x_label: str,
    percent: bool = False,
    whole: bool = False,
    floor: float | None = 0.0,
    alt: str = "",
) -> str:
    """SVG of one or several curves over rounds, each named at its right end.

    Args:
        series: name -> (x, y), both (m,); NaN leaves a gap. The only series of a chart is not named.
        x_label: what x counts.
        percent: y is a fraction 0-1, printed as percent.
        whole: y holds counts: whole ticks only.
        floor: lowest value of the y axis; None lets the data decide.
        alt: what the chart shows, for screen readers.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    with _canvas(alt=alt) as (axes, svg):
        ends: list[tuple[float, str, str]] = []
        for i, (name, (x, y)) in enumerate(series.items()):
            colour = "accent" if len(series) == 1 else f"c{i % N_COLOURS}"
            few = len(x) <= 40
            axes.plot(x, y, color=_PAINT[colour], marker="o" if few else None, markersize=3.2)
            seen = np.flatnonzero(np.isfinite(y))
            if len(seen):
                ends.append((float(y[seen[-1]]), name, colour))
        axes.set_xlabel(x_label)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=whole))
        if percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        if floor is not None:
            top = max((float(np.nanmax(y)) for _, y in series.values() if np.isfinite(y).any()), default=1.0)
            axes.set_ylim(floor, floor + max(top - floor, 1e-9) * 1.08 if top > floor else floor + 1)
        if len(series) > 1:
            _name_ends(axes, ends)
            axes.set_position((0.1, 0.2, 0.77, 0.75))
    return svg[0]


def histogram(
    groups: Mapping[str, Array], labels: Sequence[str], *, x_label: str, y_label: str, alt: str = ""
) -> str:
    """SVG of counts as bars, the groups side by side, each bar with its number above.

    Args:
        groups: name -> (b,) counts.
        labels: (b,) names of the bins.
        x_label: what the bins are.
        y_label: what is counted.
        alt: what the chart shows, for screen readers.
    """
    from matplotlib.ticker import MaxNLocator

    with _canvas(alt=alt) as (axes, svg):
        width = 0.76 / max(len(groups), 1)
        at = np.arange(len(labels))
        most = max((float(np.max(c)) for c in groups.values() if len(c)), default=0.0)
        colours = ["accent"] if len(groups) == 1 else ["soft", "accent"]
        for i, (name, counts) in enumerate(groups.items()):
            x = at + (i - (len(groups) - 1) / 2) * width
            colour = _PAINT[colours[i % len(colours)]]
            axes.bar(x, counts, width * 0.92, color=colour, label=name)
            if len(labels) * len(groups) <= 16:
                for px, count in zip(x, counts, strict=True):
                    if count:
                        axes.text(px, count + most * 0.015, f"{count:,.0f}", ha="center", va="bottom", size=9)
        axes.set_xticks(at, labels)
        if sum(map(len, labels)) > 25:  # or neighbours would touch
            axes.tick_params(axis="x", labelsize=8.5)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        axes.set(xlabel=x_label, ylabel=y_label, ylim=(0, max(most, 1) * 1.16))
        if len(groups) > 1:
            axes.set_position((0.1, 0.2, 0.87, 0.68))
            legend = axes.legend(
                loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=2, frameon=False, handlelength=0.9
            )
            for text in legend.get_texts():
                text.set_color(_PAINT["muted"])
    return svg[0]


def distances(
    groups: Mapping[str, Array], threshold: float, *, x_label: str, alt: str = "", n_bins: int = 40
) -> str:
    """SVG of two distributions of distances, one before the other, and the threshold that divides them.

    Args:
        groups: name -> (m,) distances, the nearer group first; each is drawn as shares of its own number.
        threshold: drawn as a dashed line, with its value.
        x_label: what is measured.
        alt: what the chart shows, for screen readers.
        n_bins: over all distances.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    with _canvas(alt=alt) as (axes, svg):
        every = np.concatenate([*groups.values(), [threshold]])
        low, high = float(every.min()), float(every.max())
        edges = np.linspace(low, high if high > low else low + 1, n_bins + 1)
        for (name, values), colour in zip(groups.items(), ("c0", "c1"), strict=True):
            share = np.histogram(values, edges)[0] / max(len(values), 1)
            axes.stairs(share, edges, fill=True, color=_PAINT[colour], alpha=0.45)
            axes.stairs(share, edges, color=_PAINT[colour], linewidth=1.2, label=name)
        axes.axvline(threshold, color=_PAINT["ink"], linewidth=1.1, dashes=(3, 2))
        axes.margins(x=0.02)
        top = axes.get_ylim()[1] * 1.12
        right = threshold > (low + high) / 2
        axes.annotate(
            f"{threshold:.2f}",
            (threshold, top * 0.985),
            (-4 if right else 4, 0),
            textcoords="offset points",
            ha="right" if right else "left",
            va="top",
            size=10,
        )
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set(xlabel=x_label, ylabel="share of the pairs", ylim=(0, top))
        axes.set_position((0.1, 0.2, 0.87, 0.68))
        legend = axes.legend(
            loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=2, frameon=False, handlelength=0.9
        )
        for text in legend.get_texts():
            text.set_color(_PAINT["muted"])
    return svg[0]


def sizes(size: Array, several_cameras: Array, *, alt: str = "") -> str:
    """SVG of the sizes of clusters, which are persons, largest first; those of several cameras darker.

    Args:
        size: (c,) parts of each, descending.
        several_cameras: (c,) bool.
        alt: what the chart shows, for screen readers.
    """
    from matplotlib.ticker import MaxNLocator

    with _canvas(alt=alt) as (axes, svg):
        x = np.arange(1, len(size) + 1)
        for which, colour in ((several_cameras, "accent"), (~several_cameras, "soft")):
            if len(size) <= 160:
                axes.bar(x[which], size[which], 0.82, color=_PAINT[colour])
            else:
                axes.vlines(x[which], 0, size[which], color=_PAINT[colour], linewidth=1, rasterized=False)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.set(xlabel="person, largest first", ylabel="parts", xlim=(0.3, len(size) + 0.7))
    return svg[0]


def similarity_curve(frame: Array, similarity: Array, part: Array, *, alt: str = "") -> str:
    """SVG of the cosine between each frame's feature and the one before, points coloured by part.

    Args:
        frame: (m,) frame numbers, ascending.
        similarity: (m,) cosine with the frame before; NaN at the first.
        part: (m,) part of each frame, −1 dropped.
        alt: what the chart shows, for screen readers.

    Source: TMC figure 3d. Dashed lines stand where the part changes.
    """
    from matplotlib.ticker import MaxNLocator

    with _canvas(alt=alt, size=(560, 232)) as (axes, svg):
        axes.plot(frame, similarity, color=_PAINT["line"], linewidth=1.2, zorder=1)
        kept = np.flatnonzero(part >= 0)
        for at in kept[1:][np.diff(part[kept]) != 0]:
            axes.axvline(float(frame[at]), color=_PAINT["muted"], linewidth=0.8, dashes=(3, 3), zorder=0)
        _points(axes, frame.astype(float), similarity, part, size=15)
        low = np.nanmin(similarity) if np.isfinite(similarity).any() else 0.0
        axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True))  # of a frame there is no half
        axes.set(xlabel="frame", ylabel="similarity to the frame before", ylim=(min(0.5, low - 0.05), 1.02))
    return svg[0]


def projection(point: Array, part: Array, *, alt: str = "") -> str:
    """SVG of a track's features in the plane, joined in order of time and coloured by part.

    Args:
        point: (m, 2) positions.
        part: (m,) part of each frame, −1 dropped.
        alt: what the chart shows, for screen readers.

    Source: TMC figures 3-4.
    """
    with _canvas(alt=alt, size=(320, 232)) as (axes, svg):
        axes.plot(point[:, 0], point[:, 1], color=_PAINT["line"], linewidth=0.7, zorder=1)
        _points(axes, point[:, 0], point[:, 1], part, size=26)
        axes.grid(False)
        axes.set(xticks=[], yticks=[])
        axes.spines["bottom"].set_visible(False)
        axes.margins(0.08)
    return svg[0]


def project(features: Array) -> tuple[Array, str]:
    """Positions in the plane (m, 2) and the name of the method: t-SNE from ten distinct rows up, PCA below.

    Args:
        features: (m, d) float32, a few hundred rows at most.

    The same features give the same picture: t-SNE starts from the principal axes.
    """
    centred = np.asarray(features, np.float64) - np.mean(features, axis=0, dtype=np.float64)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    axes = np.zeros((len(features), 2))
    axes[:, : min(2, len(s))] = (u * s)[:, :2]
    distinct = len(np.unique(np.round(centred, 6), axis=0))
    if distinct < 10 or s[1] <= 1e-6 * s[0]:
        return axes, "PCA"
    from sklearn.manifold import TSNE

    start = axes / axes[:, 0].std() * 1e-4
    perplexity = min(30.0, (len(features) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init=start, random_state=0).fit_transform(centred), "t-SNE"


@contextmanager
def _canvas(*, alt: str, size: tuple[int, int] = _SIZE) -> Iterator[tuple[Axes, list[str]]]:
    """A figure of this size in CSS pixels; its SVG is in the list once the block ends."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    svg: list[str] = []
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), dpi=72)
        FigureCanvasSVG(figure)
        axes = figure.add_axes((0.13, 0.2, 0.84, 0.75))
        yield axes, svg
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        left = 52 if axes.get_ylabel() else 40
        bottom = 44 if axes.get_xlabel() else 26
        box = axes.get_position()
        if not len(axes.get_xticks()) and not len(axes.get_yticks()):
            left, bottom = 4, 4
        axes.set_position(
            (left / size[0], bottom / size[1], box.x1 - left / size[0], box.y1 - bottom / size[1])
        )
        stream = StringIO()
        drawn.save(figure, stream, "svg", transparent=True, metadata={"Date": None, "Creator": None})
        svg.append(_for_page(stream.getvalue(), size, alt))


def _for_page(svg: str, size: tuple[int, int], alt: str) -> str:
    """The drawing as an inline element: page colours, no fixed size, no prolog, no metadata."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>|\s*<style.*?</style>", "", svg, flags=re.DOTALL)
    head = (
        f'<svg class="chart" role="img" aria-label="{escape(alt)}" viewBox="0 0 {size[0]} {size[1]}" '
        f'style="max-width:{size[0] * 1.15:.0f}px" xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    svg = head + svg[svg.index(">") + 1 :]
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", svg)
    svg = re.sub(r"(\.\d\d)\d+", r"\1", svg)
    svg = re.sub("#0102([0-9a-f]{2})", lambda m: f"var(--{_NAMES[int(m[1], 16)]})", svg)
    # Markers and clips are named by their shape alone: two charts of one page would share the names.
    mark = hashlib.sha256(svg.encode()).hexdigest()[:8]
    return re.sub(r'(id="|"#|url\(#)', rf"\g<1>{mark}", svg)


def _points(axes: Axes, x: Array, y: Array, part: Array, *, size: float) -> None:
    for value in np.unique(part):
        at = part == value
        colour = _PAINT[part_colour(int(value))]
        if value < 0:
            axes.scatter(x[at], y[at], s=size, marker="x", color=colour, linewidths=1.1, zorder=2)
        else:
            axes.scatter(x[at], y[at], s=size, color=colour, linewidths=0, zorder=3)


def _name_ends(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """The series' names beside their last points, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    apart = (high - low) * 0.09
    ends = sorted(ends)
    at = [value for value, _, _ in ends]
    for i in range(1, len(at)):
        at[i] = max(at[i], at[i - 1] + apart)
    over = max(0.0, (at[-1] if at else low) - high)
    for y, (_, name, colour) in zip(at, ends, strict=True):
        axes.annotate(
            name,
            (1.02, (y - over - low) / (high - low)),
            xycoords="axes fraction",
            color=_PAINT[colour],
            va="center",
            annotation_clip=False,
        )


# ------------------------------------------------------------------------- pictures outside of the report
