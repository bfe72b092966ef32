"""What a search shows: a table of hits and a contact sheet."""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn.app.search.hits import Hit, captions, hits, table
from tracklearn.app.search.sheet import contact_sheet
from tracklearn.store.gallery.open import gallery_of, is_url, open_gallery
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
        gallery: folder or URL of another gallery of this run than the one it was last indexed into.

    Attributes:
        path: the gallery's folder; of a database its address, without a password.

    Raises:
        FileNotFoundError: no such run, or no gallery in it yet.
        ValueError: the gallery holds features of another run.
    """

    def __init__(self, run: Path | str, *, device: str = "cpu", gallery: str | Path | None = None) -> None:
        self.run = Run(run)
        where = str(gallery) if gallery is not None else gallery_of(self.run.path)
        if not is_url(where) and not Path(where).is_dir():
            raise FileNotFoundError(
                f"{self.run.path} has no gallery yet: make one with tracklearn index RUN SET"
            )
        self.gallery = open_gallery(where)
        made = self.gallery.origin.get("run")
        if gallery is not None and made != self.run.manifest["digest"]:
            raise Refusal(
                f"{self.gallery.where} holds features of another run than {self.run.path}: index this run "
                "into it"
            )
        self.path: Path | str = self.gallery.where if is_url(where) else Path(where)
        self.device = device
        self._network: Network | None = None
        self._sets: dict[int, TrackletSet] = {}
        self._loading = threading.Lock()

    def tracklet_set(self, number: int = 0) -> TrackletSet:
        """A set that was indexed; its place is kept relative to the run, so both may move together.

        Args:
            number: its place in the gallery's `sets`.

        Raises:
            FileNotFoundError: it is not there.
            ValueError: another set is.
        """
        if number not in self._sets:
            wanted = self.gallery.sets[number]
            opened = open_set(self.run.path / wanted.path)
            if opened.digest != wanted.digest:
                raise Refusal(
                    f"{opened.path} is not the set that {self.path} was made from: put that back, or make "
                    "the gallery anew with tracklearn index RUN SET --resume"
                )
            self._sets[number] = opened
        return self._sets[number]

    def moment(self, number: int, track: int, seconds: float) -> datetime | None:
        """When that was by the clock on the wall, so many seconds into the film of a set's track."""
        return self.tracklet_set(number).moment(track, seconds)

    def search(
        self,
        query: str | Path | int | Array,
        *,
        k: int = 10,
        camera: str | None = None,
        since: float | None = None,
        until: float | None = None,
        identity: int | None = None,
        min_quality: float | None = None,
        parts: bool = False,
    ) -> Found:
        """The k tracks nearest to a person's image, or to a track or a part of the gallery (itself left out).

        Of each track its nearest part is shown.

        Args:
            query: path of an image that shows one person, such an image (h, w, 3) uint8 RGB, the number of a
                track (12 or "12": its longest part is searched for), or that of a part ("12.2"); of a gallery
                of several sets with the set's number from 1 ("2:12.2").
            k: number of results.
            camera: only results of this camera.
            since, until: only results in view at some time between these, seconds into their film.
            identity: only results that are taken for this person.
            min_quality: only parts whose mean detection score is this at least.
            parts: every part counts as a result, whatever track it is of.

        Raises:
            FileNotFoundError: no such image.
            ValueError: not an image, no such track, part or camera, or another set lies where the indexed
                one was.
        """
        picture: Array | None
        exclude = None
        wanted = None if isinstance(query, np.ndarray) else _number(query)
        if wanted is not None:
            row, exclude, name = self._asked_for(*wanted)
            shown = self.gallery.take(np.array([row]))
            feature = self.gallery.feature(row)
            picture = self.picture(int(shown.crop[0]), int(shown.set[0]))
        elif isinstance(query, np.ndarray):
            picture, name = query, "image"
            feature = self.embed(picture)
        else:
            picture, name = _read_picture(Path(str(query))), readable(Path(str(query)).name)
            feature = self.embed(picture)
        matches = self.gallery.search(
            feature,
            k,
            exclude=exclude,
            camera=camera,
            since=since,
            until=until,
            identity=identity,
            min_quality=min_quality,
            one_a_track=not parts,
        )
        found = hits(self.gallery, matches, self.moment)
        pictures = [self.picture(hit.crop, hit.set) for hit in found]
        return Found(query=name, picture=picture, hits=found, pictures=pictures, searcher=self)

    def _asked_for(self, number: int | None, track: int, part: int | None) -> tuple[int, Array, str]:
        """The gallery's row that stands for a track or is that part, (1, e) rows to leave out, its name."""
        n_sets = len(self.gallery.sets)
        if number is None and n_sets > 1:
            raise Refusal(
                f"the gallery has {n_sets} sets: say which as SET:TRACK, from 1, for example 1:{track}"
            )
        if number is not None and not 1 <= number <= n_sets:
            raise Refusal(f"the gallery has no set {number}: its sets are 1 to {n_sets}")
        prefix = "" if number is None else f"{number}:"
        rows = self.gallery.rows_of(track, (number or 1) - 1)
        if not len(rows):
            every = self.gallery.entries
            source = every.source[every.set == (number or 1) - 1]
            known = f"{source.min()} to {source.max()}, but for those that were dropped"
            raise Refusal(f"the gallery has no track {prefix}{track}: its tracks are {known}")
        own = self.gallery.take(rows)
        if part is None:
            return int(rows[np.argmax(own.n_crops)]), rows[None], f"track {prefix}{track}"
        at = np.flatnonzero(own.part == part)
        if not len(at):
            last = int(own.part[-1])
            known = f"{track}.1 to {track}.{last}" if last > 1 else f"{track}.1, the whole track"
            raise Refusal(f"track {track} has no part {part}: its parts are {known}")
        return int(rows[at[0]]), rows[at][None], f"part {prefix}{track}.{part}"

    def picture(self, crop: int, set: int = 0) -> Array | None:
        """A crop of an indexed set, uint8 RGB; None where it cannot be read."""
        opened = self.tracklet_set(set)
        try:
            return opened.image(crop)
        except (ValueError, OSError):
            return None

    def embed(self, picture: Array) -> Array:
        """(1, d) unit float32, the feature of an image of one person, (h, w, 3) uint8 RGB."""
        from tracklearn.app.model.of_run import load_network
        from tracklearn.learn import embed
        from tracklearn.store.picture.crops import resize
        from tracklearn.types import ArrayCrops

        with self._loading:
            if self._network is None:
                self._network = load_network(self.run)
        config = self._network.config
        crops = ArrayCrops(resize(picture, config.height, config.width)[None])
        return embed.extract(self._network, crops, np.zeros(1, np.int64), device=self.device, fixed=True)


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


def _number(query: str | Path | int) -> tuple[int | None, int, int | None] | None:
    """The set, the track, and the part of it, that `query` names, unless a file of that name is there."""
    found = re.fullmatch(r"(?:(\d+):)?(\d+)(?:\.(\d+))?", text := str(query))
    if found is None or (not isinstance(query, int) and os.path.exists(text)):
        return None
    number, track, part = (None if text is None else read_number(text) for text in found.groups())
    return number, int(track or 0), part


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
