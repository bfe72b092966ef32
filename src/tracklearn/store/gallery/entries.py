"""What a gallery knows of its features: where each comes from, how good it is, which a search may find."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np

from tracklearn.core.shown import part_numbers, representative
from tracklearn.types import Array, Matches, Refusal, Tracklets

# Numbers of an entry as they are kept; the names of cameras go beside them, `row` and `set` follow from the
# place.
NUMBERS = {
    "tracklet": np.int64,
    "source": np.int64,
    "part": np.int64,
    "n_parts": np.int64,
    "camid": np.int64,
    "first_frame": np.int64,
    "last_frame": np.int64,
    "start": np.float64,
    "end": np.float64,
    "n_crops": np.int64,
    "crop": np.int64,
    "quality": np.float32,
}


class PartKey(NamedTuple):
    """A part of a track, named so that it holds whatever is indexed anew.

    Args:
        set: digest of its set. track: its number there. first, last: its frames, from 0, inclusive.
    """

    set: str
    track: int
    first: int
    last: int


@dataclass(frozen=True)
class GallerySet:
    """A tracklet set whose parts are in a gallery.

    Args:
        digest: of the set. path: where it lies, seen from the run's folder.
        cameras: names by the set's own camid.
        n_entries: how many entries are of it.
    """

    digest: str
    path: str
    cameras: tuple[str, ...]
    n_entries: int = 0


@dataclass(frozen=True, eq=False)
class Entries:
    """What the gallery knows of each part.

    Args:
        row: (t,) int64, the number by which a search names it.
        set: (t,) int64, its set, a place in the gallery's `sets`.
        tracklet: (t,) int64, number of the part among all of its set that were indexed.
        source: (t,) int64, its track: the tracklet of the original set from which it was cut.
        part: (t,) int64, its number in its track, from 1.
        n_parts: (t,) int64, how many parts its track had when it was indexed.
        camid: (t,) int64, camera, a place in the gallery's `cameras`.
        camera: (t,) names of the cameras.
        first_frame: (t,) int64, first frame, from 0.
        last_frame: (t,) int64, last frame, inclusive.
        start: (t,) float64, time of the first frame in seconds.
        end: (t,) float64, time of the last frame in seconds.
        n_crops: (t,) int64, number of crops.
        crop: (t,) int64, row of the representative crop in its set's pictures.
        quality: (t,) float32, mean detection score of its crops, 0-1; nan where an older program kept none.
        digests: of the sets, by number.
    """

    row: Array
    set: Array
    tracklet: Array
    source: Array
    part: Array
    n_parts: Array
    camid: Array
    camera: tuple[str, ...]
    first_frame: Array
    last_frame: Array
    start: Array
    end: Array
    n_crops: Array
    crop: Array
    quality: Array
    digests: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.row)

    @cached_property
    def group(self) -> Array:
        """(t,) int64, a number for each track of each set."""
        return self.set * (int(self.source.max(initial=0)) + 1) + self.source

    def keys(self) -> Sequence[PartKey]:
        """The names of the parts, which outlive the gallery; made once."""
        return self._keys

    @cached_property
    def _keys(self) -> tuple[PartKey, ...]:
        columns = (self.set, self.source, self.first_frame, self.last_frame)
        return tuple(
            PartKey(self.digests[number], track, first, last)
            for number, track, first, last in zip(*(c.tolist() for c in columns), strict=True)
        )

    def take(self, place: Array) -> Entries:
        """Those at some places, in that order."""
        place = np.asarray(place, np.int64)
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        arrays = {name: value[place] for name, value in given.items() if isinstance(value, np.ndarray)}
        camera = tuple(self.camera[i] for i in place.tolist())
        return Entries(**{**given, **arrays, "camera": camera})


def described(tracklets: Tracklets) -> dict[str, Array]:
    """The numbers of each part, by the names of `NUMBERS`.

    Args:
        tracklets: t parts of the tracks of one set, none of them empty.
    """
    first, last = tracklets.start[:-1], tracklets.start[1:] - 1
    source = tracklets.source
    score = np.bincount(tracklets.tracklet, weights=tracklets.score, minlength=len(tracklets))
    column = {
        "tracklet": np.arange(len(tracklets)),
        "source": source,
        "part": part_numbers(source),
        "n_parts": np.bincount(source)[source],
        "camid": tracklets.camid,
        "first_frame": tracklets.frame[first],
        "last_frame": tracklets.frame[last],
        "start": tracklets.time[first],
        "end": tracklets.time[last],
        "n_crops": tracklets.length,
        "crop": tracklets.crop[representative(tracklets)],
        "quality": np.clip(score / tracklets.length, 0, 1),
    }
    return {name: np.asarray(column[name], dtype) for name, dtype in NUMBERS.items()}


class Gallery(Protocol):  # methods without bodies are mypy's to check
    """What a folder and a database alike can do; `open.open_gallery` opens either."""

    @property
    def where(self) -> str:
        """Where it is, for messages; never with a password."""

    @property
    def width(self) -> int:
        """Length of a feature, d."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras of all sets; those of one name are one camera."""

    @property
    def sets(self) -> tuple[GallerySet, ...]:
        """The sets whose parts are here."""

    @property
    def entries(self) -> Entries:
        """All entries."""

    @property
    def people(self) -> Any:
        """Who is who here, and what a person decided."""

    def __len__(self) -> int: ...

    def take(self, rows: Array) -> Entries:
        """The entries of some rows, in that order."""

    def persons(self, rows: Array) -> Array:
        """(n,) int64, who some rows are; −1 for nobody."""

    def rows_of(self, track: int, set: int = 0) -> Array:
        """(n,) int64 rows of a track's parts, in their order; empty where it has none."""

    def feature(self, row: int) -> Array:
        """(d,) float32: the feature of a row."""

    def search(
        self,
        query: Array,
        k: int,
        *,
        exclude: Array | None = None,
        camera: int | str | None = None,
        since: float | None = None,
        until: float | None = None,
        identity: int | None = None,
        min_quality: float | None = None,
        sets: Sequence[int] | None = None,
        one_a_track: bool = False,
    ) -> Matches:
        """The k nearest rows of each query; see `folder.FolderGallery.search`."""

    def close(self) -> None:
        """Let go of files and connections."""


def joined_cameras(sets: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Names of the cameras of several sets: the first set's by its own numbers, then those that are new."""
    names = list(sets[0]) if sets else []
    for own in sets[1:]:
        names += [name for name in dict.fromkeys(own) if name and name not in names]
    return tuple(names)


@dataclass(frozen=True)
class Sent:
    """Features that workers have sent to the database already (`incoming`).

    Args:
        name: what they are of. width: length of a feature, d.
    """

    name: str
    width: int


def check_content(features: Array | Sent, tracklets: Tracklets, cameras: Sequence[str]) -> Array | Sent:
    """(t, d) float32 features that may be added, one for each part; those that were sent as they are.

    Raises:
        ValueError: no tracklets, a shape that does not fit, features that are not unit rows, or a part
            without crops.
    """
    if not len(tracklets):
        raise Refusal("the set holds no tracklets: there is nothing to index")
    if tracklets.n_cameras > len(cameras):
        raise Refusal(f"cameras has {len(cameras)} names, expected {tracklets.n_cameras}: one per camid")
    if (tracklets.length == 0).any():
        empty = int(np.flatnonzero(tracklets.length == 0)[0])
        raise Refusal(f"tracklet {empty} has no crops: leave empty tracklets out before indexing")
    if isinstance(features, Sent):
        return features
    features = np.asarray(features)
    if features.ndim != 2 or len(features) != len(tracklets):
        raise Refusal(
            f"features has shape {features.shape}, expected ({len(tracklets)}, d): one row per tracklet"
        )
    return unit("features", features.astype(np.float32, copy=False), features.shape[1])


@dataclass(frozen=True, eq=False)
class Content:
    """What is to be indexed of one set.

    Args:
        features: (t, d) unit float32, one row per part; or what workers have sent to the database.
        tracklets: the parts they belong to.
        cameras: names by camid.
        digest, path: of the set; the path as seen from the run.
    """

    features: Array | Sent
    tracklets: Tracklets
    cameras: Sequence[str]
    digest: str = ""
    path: str = ""

    @property
    def width(self) -> int:
        """Length of a feature, d."""
        return self.features.width if isinstance(self.features, Sent) else int(self.features.shape[1])

    @property
    def rows(self) -> Array:
        """(t, d) float32 features, which are here.

        Raises:
            TypeError: they were sent.
        """
        if isinstance(self.features, Sent):
            raise TypeError("the features of this content are in the database")
        return self.features

    def checked(self) -> Content:
        """The same, its features float32.

        Raises:
            ValueError: as `check_content`.
        """
        features = check_content(self.features, self.tracklets, self.cameras)
        return Content(features, self.tracklets, tuple(self.cameras), self.digest, self.path)


def unit(name: str, rows: Array, width: int) -> Array:
    """`rows`, after refusing what are not unit rows of that width.

    Raises:
        ValueError: they are not; the message names the first.
    """
    if rows.ndim != 2 or rows.shape[1] != width or width == 0:
        raise Refusal(f"{name} has shape {rows.shape}, expected (any, {width}): one feature per row")
    off = np.abs(np.linalg.norm(rows, axis=1) - 1)
    bad = np.flatnonzero(~(off <= 1e-3))  # also catches NaN
    if len(bad):
        norm = np.linalg.norm(rows[bad[0]])
        raise Refusal(f"{name} row {bad[0]} has length {norm:.4g}, expected 1: normalise the rows first")
    return rows


def camid_of(camera: int | str, cameras: Sequence[str]) -> int:
    """The number of a camera that is named by either.

    Raises:
        ValueError: there is none.
    """
    if isinstance(camera, str):
        if camera not in cameras:
            known = ", ".join(cameras)
            raise Refusal(f"no camera named {camera!r} in the gallery, expected one of: {known}")
        return list(cameras).index(camera)
    if not 0 <= camera < len(cameras):
        raise Refusal(f"camera is {camera}, expected a camid in 0..{len(cameras) - 1}")
    return int(camera)


@dataclass(frozen=True)
class Filter:
    """Which entries a search may find; made by `checked`.

    Args:
        camid, since, until, identity, min_quality, sets: as `Gallery.search` has them, None for all.
    """

    camid: int | None = None
    since: float | None = None
    until: float | None = None
    identity: int | None = None
    min_quality: float | None = None
    sets: tuple[int, ...] | None = None

    @classmethod
    def checked(
        cls,
        cameras: Sequence[str],
        n_sets: int,
        *,
        camera: int | str | None,
        since: float | None,
        until: float | None,
        identity: int | None,
        min_quality: float | None,
        sets: Sequence[int] | None,
    ) -> Filter:
        """The filter that a search asks for.

        Raises:
            ValueError: a camera or set that is not there, times in the wrong order, no quality.
        """
        if since is not None and until is not None and since > until:
            raise Refusal(f"since {since:g} s is after until {until:g} s: nothing lies between")
        if min_quality is not None and not 0 <= min_quality <= 1:
            raise Refusal(f"min_quality is {min_quality:g}, expected a detection score in 0..1")
        if sets is not None and (wrong := [number for number in sets if not 0 <= number < n_sets]):
            raise Refusal(f"sets holds {wrong[0]}, expected numbers in 0..{n_sets - 1}")
        camid = None if camera is None else camid_of(camera, cameras)
        return cls(camid, since, until, identity, min_quality, None if sets is None else tuple(sets))

    def mask(self, entries: Entries, person: Callable[[], Array]) -> Array | None:
        """(t,) bool, which entries may be found; None for all.

        An entry without a quality has passed none.

        Args:
            entries: of a gallery.
            person: (t,) int64, who each is; asked for only if it matters.
        """
        tests: list[Array] = []
        if self.camid is not None:
            tests.append(entries.camid == self.camid)
        if self.since is not None:
            tests.append(entries.end >= self.since)
        if self.until is not None:
            tests.append(entries.start <= self.until)
        if self.min_quality is not None:
            tests.append(entries.quality >= self.min_quality)
        if self.sets is not None:
            tests.append(np.isin(entries.set, np.array(self.sets, np.int64)))
        if self.identity is not None:
            tests.append(person() == self.identity)
        return np.logical_and.reduce(tests) if tests else None


def numbers(columns: Mapping[str, Array], rows: int) -> dict[str, Array]:
    """The columns of `NUMBERS` of a table, with those filled in that an older program did not keep."""
    found = {name: columns[name] for name in NUMBERS if name in columns}
    if "part" not in found:
        found["part"] = part_numbers(found["source"])
        found["n_parts"] = np.bincount(found["source"])[found["source"]]
    if "quality" not in found:
        found["quality"] = np.full(rows, np.nan, np.float32)
    return {name: np.asarray(found[name], dtype) for name, dtype in NUMBERS.items()}
