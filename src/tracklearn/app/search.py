"""What a search shows: a table of hits and a contact sheet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn.app import drawn
from tracklearn.store.files import make_folder, replacing
from tracklearn.store.gallery.folder import Gallery, open_gallery
from tracklearn.store.picture.listing import read_number
from tracklearn.store.runs import Run
from tracklearn.store.sets.tracklets import TrackletSet, open_set
from tracklearn.store.skipped import readable
from tracklearn.types import Array, Matches

if TYPE_CHECKING:
    from tracklearn.learn.network import Network


HEADER = ("rank", "tracklet", "camera", "time", "distance")

_HEIGHT, _GAP, _MARGIN, _CAPTION = 256, 20, 28, 54  # pixels: pictures, between them, around, below
_PER_ROW = 6


@dataclass(frozen=True)
class Hit:
    """One result of a search.

    Args:
        rank: from 1, nearest first.
        tracklet: number of the tracklet.
        camera: its camera's name.
        start: time of its first frame, seconds.
        end: time of its last frame, seconds.
        distance: Euclidean distance of the unit features, 0-2.
        crop: row of its representative crop in the set's pictures.
    """

    rank: int
    tracklet: int
    camera: str
    start: float
    end: float
    distance: float
    crop: int

    @property
    def span(self) -> str:
        """Its time span, `0:00:12.4 – 0:00:15.0`."""
        return f"{clock(self.start)} – {clock(self.end)}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values under the field names, for JSON."""
        return asdict(self)


def clock(seconds: float) -> str:
    """Seconds as `h:mm:ss.s`.

    >>> clock(3725.26)
    '1:02:05.3'
    """
    if not np.isfinite(seconds):
        return "–"
    tenths = round(abs(seconds) * 10)
    sign = "-" if seconds < 0 and tenths else ""
    whole, tenth = divmod(tenths, 10)
    return f"{sign}{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}.{tenth}"


def hits(gallery: Gallery, matches: Matches, query: int = 0) -> list[Hit]:
    """The results of one query in order of rank, without the empty places at the end."""
    entries = gallery.entries
    found = zip(matches.index[query].tolist(), matches.distance[query].tolist(), strict=True)
    return [
        Hit(
            rank=rank,
            tracklet=int(entries.tracklet[row]),
            camera=entries.camera[row],
            start=float(entries.start[row]),
            end=float(entries.end[row]),
            distance=float(distance),
            crop=int(entries.crop[row]),
        )
        for rank, (row, distance) in enumerate(found, start=1)
        if row >= 0
    ]


def table(found: Sequence[Hit]) -> list[tuple[str, ...]]:
    """One row of text cells per hit, under `HEADER`: rank, tracklet, camera, time span, distance."""
    return [(str(h.rank), str(h.tracklet), h.camera, h.span, f"{h.distance:.3f}") for h in found]


def captions(found: Sequence[Hit]) -> list[str]:
    """For each hit the lines under its picture: rank and distance, camera and tracklet, time."""
    return [f"{h.rank} · {h.distance:.3f}\n{h.camera} · #{h.tracklet}\n{clock(h.start)}" for h in found]


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
    step = tile_h + _CAPTION + _GAP
    height = 2 * _MARGIN + n_rows * step - _GAP

    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor="#fbfbf9")
    FigureCanvasAgg(figure)

    def place(picture: Array, caption: str, x: int, top: int, edge: str) -> None:
        axes = figure.add_axes((x / width, 1 - (top + tile_h) / height, tile_w / width, tile_h / height))
        axes.imshow(fit(picture, tile_w, tile_h), interpolation="none", aspect="auto")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(edgecolor=edge, linewidth=2.2 if edge != "#d9d9d4" else 0.8)
        for line, text in enumerate(caption.splitlines()[:3]):
            figure.text(
                x / width,
                1 - (top + tile_h + 8 + 15 * line) / height,
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


def fit(picture: Array, width: int, height: int) -> Array:
    """The picture as uint8 RGB (height, width, 3), its shape kept.

    A picture whose shape is near the tile's fills it (at most a tenth is cut away); any other is shown whole
    on a grey ground.

    Raises:
        ValueError: not a uint8 RGB picture.
    """
    import cv2

    picture = np.asarray(picture)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
        raise ValueError(f"picture is {picture.dtype} {picture.shape}, expected uint8 (h, w, 3) RGB")
    h, w = picture.shape[:2]
    across, down = width / w, height / h
    scale = max(across, down) if max(across, down) <= 1.11 * min(across, down) else min(across, down)
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = cv2.resize(np.ascontiguousarray(picture), size, interpolation=method)
    tile = np.full((height, width, 3), 142, np.uint8)
    dx, dy = (size[0] - width) // 2, (size[1] - height) // 2
    inside = scaled[max(dy, 0) : max(dy, 0) + height, max(dx, 0) : max(dx, 0) + width]
    y, x = max(-dy, 0), max(-dx, 0)
    tile[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return tile


def _short(text: str, limit: int = 24) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _rule(x: float, margin: float) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([x, x], [margin, 1 - margin], color="#d9d9d4", linewidth=0.8)


class Searcher:
    """A run's gallery together with the network that made it.

    Args:
        run: run folder with a gallery (written by `index`).
        device: where queries are embedded.

    Raises:
        FileNotFoundError: no such run, or no gallery in it yet.
    """

    def __init__(self, run: Path | str, *, device: str = "cpu") -> None:
        self.run = Run(run)
        self.path = self.run.path / "gallery"
        if not self.path.is_dir():
            raise FileNotFoundError(
                f"{self.run.path} has no gallery yet: make one with tracklearn index RUN SET"
            )
        self.gallery = open_gallery(self.path)
        self.device = device
        self._network: Network | None = None
        self._set: TrackletSet | None = None

    @property
    def tracklet_set(self) -> TrackletSet:
        """The set that was indexed; its place is kept relative to the run, so both may move together."""
        if self._set is None:
            where = self.run.path / self.gallery.manifest["origin"]["set"]["path"]
            self._set = open_set(where)
        return self._set

    def search(self, query: str | Path | int, *, k: int = 10, camera: str | None = None) -> Found:
        """The k tracklets nearest to a person's image, or to a tracklet of the gallery (itself left out).

        Args:
            query: path of an image that shows one person, or the number of a tracklet.
            k: number of results.
            camera: only results of this camera.

        Raises:
            FileNotFoundError: no such image.
            ValueError: not an image, or no such tracklet.
        """
        wanted = _tracklet_number(query)
        if wanted is not None:
            entries = self.gallery.entries
            row = np.flatnonzero(entries.tracklet == wanted)
            if not len(row):
                last = int(entries.tracklet.max()) if len(entries) else -1
                raise ValueError(
                    f"the gallery has no tracklet {str(query)[:40]}: its tracklets are 0 to {last}"
                )
            feature, exclude = self.gallery.feature(int(row[0])), row
            picture, name = self.tracklet_set.image(int(entries.crop[row[0]])), f"tracklet {wanted}"
        else:
            picture, name = _read_picture(Path(str(query))), readable(Path(str(query)).name)
            feature, exclude = self._embed(picture), None
        matches = self.gallery.search(feature, k, exclude=exclude, camera=camera)
        return Found(query=name, picture=picture, hits=hits(self.gallery, matches), searcher=self)

    def _embed(self, picture: Array) -> Array:
        from tracklearn.app.pipeline import load_network
        from tracklearn.learn import embed
        from tracklearn.store.picture.crops import resize
        from tracklearn.types import ArrayCrops

        if self._network is None:
            self._network = load_network(self.run)
        config = self._network.config
        crops = ArrayCrops(resize(picture, config.height, config.width)[None])
        return embed.extract(self._network, crops, np.zeros(1, np.int64), device=self.device)


@dataclass(frozen=True)
class Found:
    """What a search found.

    Args:
        query: name of the query.
        picture: its image, uint8 RGB.
        hits: results, nearest first.
        searcher: where they were found.
    """

    query: str
    picture: Array
    hits: list[Hit]
    searcher: Searcher

    def table(self) -> str:
        """The results as lines of text: rank, tracklet, camera, time span, distance."""
        lines = [HEADER, *table(self.hits)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
        return "\n".join(
            "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines
        )

    def rows(self) -> list[dict[str, Any]]:
        """The results as plain values."""
        return [hit.to_dict() for hit in self.hits]

    def save_sheet(self, path: Path | str | None = None) -> Path:
        """Write the contact sheet (PNG): the query and its results; by default in RUN/searches/."""
        stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in self.query)
        stem = stem.encode()[:200].decode(errors="ignore")  # a query's name may be as long as names can be
        where = Path(path) if path is not None else self.searcher.run.path / "searches" / f"{stem}.png"
        pictures = [self.searcher.tracklet_set.image(hit.crop) for hit in self.hits]
        results = list(zip(pictures, captions(self.hits), strict=True))
        return contact_sheet(self.picture, results, where, query_caption=f"query\n{self.query}")


def _tracklet_number(query: str | Path | int) -> int | None:
    """The tracklet that `query` names, unless a file of that name is there."""
    if isinstance(query, int):
        return query
    text = str(query)
    return read_number(text) if text.isdecimal() and not os.path.exists(text) else None


def _read_picture(path: Path) -> Array:
    from tracklearn.store.picture import pictures
    from tracklearn.store.picture.listing import list_folder

    # What its neighbours need tells how bright a picture of 16 bits is, as where they were taken into a set.
    series = pictures.Series(lambda: [path, *pictures.spread(list_folder(path.parent).images)])
    try:
        return series.read(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no such file: {path} (a query is an image's path or a tracklet's number)"
        ) from None
    except pictures.BrokenPicture as error:
        raise ValueError(f"not an image that can be read: {path}: {error}") from None
