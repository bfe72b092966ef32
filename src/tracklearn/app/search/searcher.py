"""What a search shows: a table of hits and a contact sheet."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn.app.search.hits import Hit, captions, hits, table
from tracklearn.app.search.sheet import contact_sheet
from tracklearn.store.gallery.folder import open_gallery
from tracklearn.store.picture.listing import read_number
from tracklearn.store.runs import Run
from tracklearn.store.sets.tracklets import TrackletSet, open_set
from tracklearn.store.skipped import readable
from tracklearn.types import Array, Refusal

if TYPE_CHECKING:
    from tracklearn.learn.network import Network


_BLANK = np.full((256, 128, 3), 128, np.uint8)  # in the place of a picture that cannot be read


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
            origin = self.gallery.manifest["origin"]["set"]
            opened = open_set(self.run.path / origin["path"])
            if opened.digest != origin["digest"]:
                raise Refusal(
                    f"{opened.path} is not the set that {self.path} was made from: put that back, or make "
                    "the gallery anew with tracklearn index RUN SET --resume"
                )
            self._set = opened
        return self._set

    def search(
        self,
        query: str | Path | int,
        *,
        k: int = 10,
        camera: str | None = None,
        since: float | None = None,
        until: float | None = None,
        parts: bool = False,
    ) -> Found:
        """The k tracks nearest to a person's image, or to a track or a part of the gallery (itself left out).

        Of each track its nearest part is shown.

        Args:
            query: path of an image that shows one person, the number of a track (12 or "12": its longest part
                is searched for), or that of a part ("12.2").
            k: number of results.
            camera: only results of this camera.
            since, until: only results in view at some time between these, seconds into their film.
            parts: every part counts as a result, whatever track it is of.

        Raises:
            FileNotFoundError: no such image.
            ValueError: not an image, no such track, part or camera, or another set lies where the indexed
                one was.
        """
        wanted = _number(query)
        if wanted is not None:
            row, exclude, name = self._asked_for(*wanted)
            feature, picture = self.gallery.feature(row), self.picture(int(self.gallery.entries.crop[row]))
        else:
            picture, name = _read_picture(Path(str(query))), readable(Path(str(query)).name)
            feature, exclude = self._embed(picture), None
        matches = self.gallery.search(
            feature, k, exclude=exclude, camera=camera, since=since, until=until, one_a_track=not parts
        )
        found = hits(self.gallery, matches, self.tracklet_set.moment)
        shown = [self.picture(hit.crop) for hit in found]
        return Found(query=name, picture=picture, hits=found, pictures=shown, searcher=self)

    def _asked_for(self, track: int, part: int | None) -> tuple[int, Array, str]:
        """The gallery's row that stands for a track or is that part, (1, e) rows to leave out, its name."""
        entries = self.gallery.entries
        own = np.flatnonzero(entries.source == track)
        if not len(own):
            known = f"{entries.source.min()} to {entries.source.max()}, but for those that were dropped"
            raise Refusal(f"the gallery has no track {track}: its tracks are {known}")
        if part is None:
            return int(own[np.argmax(entries.n_crops[own])]), own[None], f"track {track}"
        row = own[entries.part[own] == part]
        if not len(row):
            known = f"{track}.1 to {track}.{len(own)}" if len(own) > 1 else f"{track}.1, the whole track"
            raise Refusal(f"track {track} has no part {part}: its parts are {known}")
        return int(row[0]), row[None], f"part {track}.{part}"

    def picture(self, crop: int) -> Array | None:
        """A crop of the indexed set, uint8 RGB; None where it cannot be read."""
        opened = self.tracklet_set
        try:
            return opened.image(crop)
        except (ValueError, OSError):
            return None

    def _embed(self, picture: Array) -> Array:
        from tracklearn.app.model.of_run import load_network
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
        picture: its image, uint8 RGB; None where that of a track cannot be read.
        hits: results, nearest first.
        pictures: of each result; None for one that cannot be read.
        searcher: where they were found.
    """

    query: str
    picture: Array | None
    hits: list[Hit]
    pictures: list[Array | None]
    searcher: Searcher

    @property
    def unreadable(self) -> list[str]:
        """Numbers of results whose picture cannot be read; their rows are right all the same."""
        return [hit.name for hit, shown in zip(self.hits, self.pictures, strict=True) if shown is None]

    def table(self) -> str:
        """The results as lines of text: rank, distance, camera, track, part, time in film, clock time."""
        lines = table(self.hits)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
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
        texts = [
            text if shown is not None else f"{text}\npicture cannot be read"
            for text, shown in zip(captions(self.hits), self.pictures, strict=True)
        ]
        results = [
            (_BLANK if shown is None else shown, text)
            for shown, text in zip(self.pictures, texts, strict=True)
        ]
        query = _BLANK if self.picture is None else self.picture
        return contact_sheet(query, results, where, query_caption=f"query\n{self.query}")


def _number(query: str | Path | int) -> tuple[int, int | None] | None:
    """The track, and the part of it, that `query` names, unless a file of that name is there."""
    found = re.fullmatch(r"(\d+)(?:\.(\d+))?", text := str(query))
    if found is None or (not isinstance(query, int) and os.path.exists(text)):
        return None
    return read_number(found[1]), None if found[2] is None else read_number(found[2])


def _read_picture(path: Path) -> Array:
    from tracklearn.store.picture import pictures
    from tracklearn.store.picture.listing import list_folder

    # What its neighbours need tells how bright a picture of 16 bits is, as where they were taken into a set.
    series = pictures.Series(lambda: [path, *pictures.spread(list_folder(path.parent).images)])
    try:
        return series.read(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no such file: {path} (a query is an image's path, or the number of a track or a part: 12, 12.2)"
        ) from None
    except pictures.BrokenPicture as error:
        raise Refusal(f"not an image that can be read: {path}: {error}") from None
