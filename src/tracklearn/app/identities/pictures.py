"""What a person looks at: a picture of each identity, and who was where when."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tracklearn.app import drawn
from tracklearn.app.formats import clock, wall
from tracklearn.app.identities.footage import Footage
from tracklearn.app.pictures import fit
from tracklearn.core.shown import representative
from tracklearn.store.files import make_folder, replacing, write_atomic
from tracklearn.types import Array

TILE = (96, 192)  # pixels: width and height of a picture
_TILES, _GAP = 8, 6  # pictures of a person at most; pixels between them
_LINES = 60  # people of a timeline at most
_COLOURS = ("#2f5d8a", "#c8743a", "#4d8a57", "#8a4f7d", "#b0963a", "#4a8f96", "#a84c4c", "#6b6f78")


def draw(folder: Path, footage: Footage, number: Array) -> list[str]:
    """Write `people/NUMBER.jpg` for each person and `timeline.svg`; what could not be read, a line.

    Args:
        folder: to write to.
        footage: some sets.
        number: (t,) int64 person of each part, below 1 for nobody.
    """
    shown = representative(footage.parts)
    unreadable = 0
    people = np.unique(number[number > 0]).tolist()
    for person in people:
        own = np.flatnonzero((number == person) & (shown >= 0))
        # The longest parts, in the order in which they were seen.
        own = np.sort(own[np.argsort(-footage.parts.length[own], kind="stable")[:_TILES]])
        unreadable += _strip(folder / "people" / f"{person:04d}.jpg", footage, footage.parts.crop[shown[own]])
    _timeline(folder / "timeline.svg", footage, number, people)
    return [f"{unreadable} pictures cannot be read and are shown grey"] if unreadable else []


def _strip(path: Path, footage: Footage, crops: Array) -> int:
    """One row of pictures; how many could not be read."""
    import cv2

    width, height = TILE
    page = np.full((height + 2 * _GAP, len(crops) * (width + _GAP) + _GAP, 3), 251, np.uint8)
    lost = 0
    for i, crop in enumerate(crops.tolist()):
        try:
            tile = fit(footage.joined.image(crop), width, height)
        except (ValueError, OSError):
            lost += 1
            tile = np.full((height, width, 3), 142, np.uint8)
        left = _GAP + i * (width + _GAP)
        page[_GAP : _GAP + height, left : left + width] = tile
    make_folder(path.parent)
    _, jpeg = cv2.imencode(".jpg", page[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    write_atomic(path, jpeg.tobytes())
    return lost


def _timeline(path: Path, footage: Footage, number: Array, people: list[int]) -> None:
    """A line a person, a bar a part, a colour a camera; by the clock on the wall where all films have one."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    parts = footage.parts
    where = footage.whereabouts(parts)
    known = bool(np.isfinite(where.begin).all())
    first, last = parts.start[:-1], parts.start[1:] - 1
    begin = where.begin if known else parts.time[first]
    end = where.end if known else parts.time[last]
    zero = float(begin.min()) if known else 0.0
    total = np.bincount(np.maximum(number, 0), weights=end - begin, minlength=max(people, default=0) + 1)
    most = sorted(sorted(people, key=lambda p: (-total[p], p))[:_LINES])
    height = 0.8 + 0.24 * max(len(most), 1) + 0.3
    cameras = np.unique(parts.camid).tolist()
    with matplotlib.rc_context(
        {"svg.hashsalt": "tracklearn", "svg.fonttype": "none", "font.size": 9, "text.parse_math": False}
    ):
        figure = Figure(figsize=(9, height), facecolor="#fbfbf9", layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot(facecolor="#fbfbf9")
        for line, person in enumerate(most):
            for i in np.flatnonzero(number == person):
                length = max(float(end[i] - begin[i]), 1e-3)
                colour = _COLOURS[cameras.index(int(parts.camid[i])) % len(_COLOURS)]
                axes.broken_barh([(float(begin[i]) - zero, length)], (line - 0.35, 0.7), color=colour)
        axes.set_yticks(range(len(most)), [str(person) for person in most])
        axes.set_ylim(len(most) - 0.4, -0.6)
        axes.xaxis.set_major_formatter(lambda seconds, _: clock(seconds).rsplit(".", 1)[0])
        axes.set_xlabel(_since(footage, zero) if known else "time in film")
        axes.set_ylabel("person" if len(most) == len(people) else f"person (the {len(most)} longest in view)")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        patches: list[Any] = [
            Patch(color=_COLOURS[i % len(_COLOURS)], label=footage.cameras[camera])
            for i, camera in enumerate(cameras[:16])
        ]
        figure.legend(handles=patches, loc="outside upper left", ncols=8, frameon=False)
        with replacing(path) as file:
            drawn.save(figure, file, "svg", metadata={"Date": None, "Creator": None})


def _since(footage: Footage, zero: float) -> str:
    """What the zero of the timeline is, in the time zone of the films."""
    moments = (footage.moment(int(track), 0.0) for track in footage.parts.source[:1])
    zone = next((m.tzinfo for m in moments if m is not None), None) or UTC
    return f"since {wall(datetime.fromtimestamp(zero, zone))}"
