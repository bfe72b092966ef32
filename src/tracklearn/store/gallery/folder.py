"""The gallery on disk: one unit feature per part of a track, searched exactly from memory maps.

    GALLERY/manifest.json          sealed: the sets, and the names and sums of their files
    GALLERY/features-SUM.npy       (t, d) float32, of one set
    GALLERY/entries-SUM.parquet    a row for each of them (`entries.NUMBERS`)
    GALLERY/int8-SUM.npy           (t, d) int8, of a large set: read first, a quarter of the bytes
    GALLERY/bounds-SUM.npy         (t, 3) float32, how far off these are
    GALLERY.people.sqlite          who is who, and what a person decided; outlives a new index

The files of the folder are named by what is in them and never change: what is new takes its place with the
manifest alone, at once. Galleries of earlier versions (of one set, without 8-bit rows) are read as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tracklearn.store.files import DamagedError, beside, hash_file, make_folder, remove_folder
from tracklearn.store.gallery.entries import (
    Content,
    Entries,
    Filter,
    GallerySet,
    numbers,
    unit,
)
from tracklearn.store.gallery.nearest import exclusions, nearest
from tracklearn.store.gallery.people_file import in_file
from tracklearn.store.gallery.records import (
    REMEDY,
    SCHEMA,
    SCHEMAS,
    manifest_of,
    publish,
    records_of,
    rewritten,
    written,
)
from tracklearn.store.gallery.rows import People
from tracklearn.store.gallery.segment import Segment, names_of
from tracklearn.store.intents import settle
from tracklearn.store.lock import locked
from tracklearn.store.sealed import MANIFEST, read_sealed, write_sealed
from tracklearn.types import Array, Matches, Refusal, Tracklets


class FolderGallery:
    """An opened gallery; features stay on disk until a search reads them.

    A block of features is compared with its sum when it is read for the first time.

    Attributes:
        path: its folder.
        manifest: the parsed manifest; what is said of its origin is under "origin".
        segments: one for each set.

    Raises:
        FileNotFoundError: `path` is not a gallery.
        DamagedError: its files are not what was written.
        ValueError: another version wrote it.
    """

    path: Path
    manifest: dict[str, Any]
    segments: tuple[Segment, ...]

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._load()

    def _load(self) -> None:
        settle(self.path)
        for attempt in range(3):
            if not (self.path / MANIFEST).is_file():
                raise FileNotFoundError(
                    f"{self.path} is not a gallery (no manifest.json): make one with `tracklearn index`"
                )
            self._mark = _mark(self.path)
            manifest = read_sealed(self.path / MANIFEST, remedy=REMEDY)
            if manifest.get("schema") not in SCHEMAS:
                schema = manifest.get("schema")
                raise Refusal(f"{self.path} has schema {schema!r}, expected {SCHEMA!r}: {REMEDY}")
            manifest.require(entries=int, width=int, cameras=list, origin=dict)
            try:
                records, width = records_of(manifest), int(manifest["width"])
                self.segments = tuple(Segment.open(self.path, each, width, remedy=REMEDY) for each in records)
                break
            except FileNotFoundError as error:
                # Another one may have taken its place since the manifest was read.
                if attempt == 2 or read_sealed(self.path / MANIFEST, remedy=REMEDY) == manifest:
                    raise DamagedError(
                        f"{self.path} is damaged ({error.filename} is missing): {REMEDY}"
                    ) from error
        self.manifest = manifest
        self.__dict__.pop("all_entries", None)
        self.__dict__.pop("entries", None)
        self._start = np.cumsum([0, *(len(segment) for segment in self.segments)])
        self._halves: dict[tuple[int, int], Array] = {}

    def __enter__(self) -> FolderGallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file of people; the rest are maps that go with the object."""
        if "people" in self.__dict__:
            self.people.close()

    def __len__(self) -> int:
        return sum(len(segment) - len(segment.gone) for segment in self.segments)

    @property
    def where(self) -> str:
        """Its folder, for messages."""
        return str(self.path)

    @property
    def stale(self) -> bool:
        """Whether another one has taken its place since it was opened."""
        return _mark(self.path) != self._mark

    @property
    def width(self) -> int:
        """Length of a feature, d."""
        return int(self.manifest["width"])

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras of all sets; those of one name are one camera."""
        return tuple(self.manifest["cameras"])

    @property
    def origin(self) -> dict[str, Any]:
        """What made it: version of the program, digest of the run."""
        return dict(self.manifest["origin"])

    @property
    def sets(self) -> tuple[GallerySet, ...]:
        """The sets whose parts are here."""
        return tuple(GallerySet(s.digest, s.set_path, s.cameras, len(s) - len(s.gone)) for s in self.segments)

    @cached_property
    def people(self) -> People:
        """Who is who here, and what a person decided."""
        return in_file(people_path(self.path))

    @cached_property
    def all_entries(self) -> Entries:
        """What is known of each row, of deleted ones too."""
        columns = [numbers(segment.columns, len(segment)) for segment in self.segments]
        joined = {name: np.concatenate([each[name] for each in columns]) for name in columns[0]}
        names = [segment.camera for segment in self.segments]
        camid = {name: number for number, name in reversed(list(enumerate(self.cameras)))}
        for own, lo, hi in zip(names[1:], self._start[1:], self._start[2:], strict=False):
            joined["camid"][lo:hi] = [camid[name] for name in own]
        of = np.repeat(np.arange(len(self.segments)), np.diff(self._start))
        return Entries(
            row=np.arange(self._start[-1]),
            set=of,
            camera=tuple(name for own in names for name in own),
            digests=tuple(segment.digest for segment in self.segments),
            **joined,
        )

    @cached_property
    def entries(self) -> Entries:
        """All entries, in the order of their rows."""
        gone = self._gone()
        return self.all_entries if gone is None else self.all_entries.take(np.flatnonzero(~gone))

    def _gone(self) -> Array | None:
        """(t,) bool, the rows that were deleted; None where none was."""
        if not any(len(segment.gone) for segment in self.segments):
            return None
        mask = np.zeros(self._start[-1], bool)
        for segment, start in zip(self.segments, self._start[:-1], strict=True):
            mask[start + segment.gone] = True
        return mask

    def take(self, rows: Array) -> Entries:
        """The entries of some rows, in that order."""
        return self.all_entries.take(rows)

    def persons(self, rows: Array) -> Array:
        """(n,) int64, who some rows are; −1 for nobody."""
        return self.people.assigned(self.all_entries).person[np.asarray(rows, np.int64)]

    def rows_of(self, track: int, set: int = 0) -> Array:
        """(n,) int64 rows of a track's parts, in their order; empty where it has none."""
        known = self.entries
        own = np.flatnonzero((known.source == track) & (known.set == set))
        return known.row[own[np.argsort(known.part[own], kind="stable")]]

    def start_of(self, number: int) -> int:
        """The first row of a set."""
        return int(self._start[number])

    def rows(self, first: int, end: int) -> Array:
        """(end − first, d) float32: features of rows first..end−1.

        Raises:
            DamagedError: they are not what was written.
        """
        found = [
            segment.rows(max(first - start, 0), min(end - start, len(segment)))
            for segment, start in zip(self.segments, self._start[:-1].tolist(), strict=True)
            if first < start + len(segment) and end > start
        ]
        if len(found) == 1:
            return found[0]
        return np.concatenate([np.zeros((0, self.width), np.float32), *found])

    def feature(self, row: int) -> Array:
        """(d,) float32: one row's feature.

        Raises:
            DamagedError: it is not what was written.
        """
        return self.rows(row, row + 1)[0]

    def damages(self) -> list[str]:
        """What is wrong with its files by the sums in the manifest, one line each; reads all of them."""
        found = []
        for segment in self.segments:
            for name, sha256 in names_of(segment.record).items():
                if hash_file(self.path / name) != sha256:
                    found.append(f"{self.path / name} is damaged (its content is not what was written)")
        return found + self.people.damages()

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
        """The k nearest gallery rows of each query, nearest first; equal distances by the lower row.

        The scan is exact, whatever it reads: products choose the candidates, with a margin above what their
        rounding can do, and the distances of the candidates are computed in float64. One query or a few read
        8-bit rows where there are some, many the float32 rows.

        Args:
            query: (q, d) or (d,) unit float32.
            k: number of neighbours.
            exclude: (q,) or (q, e) int, gallery rows left out for each query (its own, say); −1 is no row.
            camera: only entries of this camera, by name or camid.
            since, until: only entries that are in view at some time between these seconds, on their clock.
            identity: only entries of this person, as `people` has it.
            min_quality: only entries of this quality or better.
            sets: only entries of these sets, by number.
            one_a_track: of each track only its nearest row, so that k tracks are found.

        Returns:
            Matches of shape (q, k); −1 and inf fill up where fewer than k rows are left.

        Raises:
            ValueError: a width, a length, k or a filter does not fit, or a query is not a unit row.

        Memory: one block of scores and features (about 100 MB at most) whatever the gallery's size.
        """
        query = unit("query", np.atleast_2d(np.asarray(query, np.float32)), self.width)
        if k < 1:
            raise Refusal(f"k is {k}, expected 1 or more")
        exclude = exclusions(exclude, len(query), int(self._start[-1]))
        wanted = Filter.checked(
            self.cameras,
            len(self.segments),
            camera=camera,
            since=since,
            until=until,
            identity=identity,
            min_quality=min_quality,
            sets=sets,
        ).mask(self.all_entries, lambda: self.people.assigned(self.all_entries).person)
        gone = self._gone()
        if gone is not None:
            wanted = ~gone if wanted is None else wanted & ~gone
        return nearest(
            self.segments,
            query,
            k,
            wanted=wanted,
            exclude=exclude,
            group=self.all_entries.group if one_a_track else None,
            halves=self._halves,
        )

    def add(self, contents: Sequence[Content]) -> None:
        """Take in sets, each in the place of one of the same digest, or behind the others.

        Raises:
            ValueError: as `check_content`; features of another width.
            OSError: the disk is full or failing; the gallery is as it was.
        """
        contents = [content.checked() for content in contents]
        for content in contents:
            if content.width != self.width:
                raise Refusal(
                    f"the features have {content.width} numbers, those of {self.path} "
                    f"{self.width}: another network made them"
                )
        with locked(self.path):
            self._load()
            records = [segment.record for segment in self.segments]
            for content in contents:
                made = written(self.path, content)
                at = [i for i, each in enumerate(records) if each["digest"] == content.digest]
                records[at[0] if at else len(records) : at[0] + 1 if at else len(records)] = [made]
            publish(self.path, records, self.manifest["origin"])
        self._load()

    def delete(self, rows: Array) -> int:
        """Let no search find these rows again; `compact` takes them from the disk. How many it were.

        Raises:
            ValueError: there is no such row.
        """
        rows = np.unique(np.asarray(rows, np.int64))
        if len(rows) and (rows[0] < 0 or rows[-1] >= self._start[-1]):
            raise Refusal(
                f"rows holds {rows[0]}..{rows[-1]}, expected gallery rows in 0..{self._start[-1] - 1}"
            )
        with locked(self.path):
            if self.stale:
                raise Refusal(f"{self.path} has changed since it was opened: open it again")
            before, records = len(self), []
            for segment, start in zip(self.segments, self._start[:-1], strict=True):
                own = rows[(rows >= start) & (rows < start + len(segment))] - start
                gone = np.union1d(segment.gone, own)
                records.append({**segment.record, **({"gone": gone.tolist()} if len(gone) else {})})
            publish(self.path, records, self.manifest["origin"])
            self._load()
        return before - len(self)

    def compact(self) -> str:
        """Write files without the deleted rows in the place of those with some; what was done, in words."""
        with locked(self.path):
            self._load()
            before = sum(len(segment) for segment in self.segments)
            keeps = [np.setdiff1d(np.arange(len(s)), s.gone) for s in self.segments]
            records = [
                rewritten(self.path, segment, keep) if len(segment.gone) else segment.record
                for segment, keep in zip(self.segments, keeps, strict=True)
            ]
            publish(self.path, [r for r in records if r["entries"]], self.manifest["origin"])
            self._load()
        return f"{before - len(self)} of {before} entries taken from the disk"

    def write_without(
        self, folder: Path, changes: Mapping[str, tuple[Array, Array, GallerySet]], origin: Mapping[str, Any]
    ) -> bool:
        """Write what this gallery is to become to another folder; False where nothing of it is left.

        Args:
            folder: an empty one.
            changes: by a set's digest its rows that stay (by number in its segment), a new crop for each of
                these, and what the set is now.
            origin: of the new gallery.
        """
        records = []
        for segment in self.segments:
            keep = np.setdiff1d(np.arange(len(segment)), segment.gone)
            crop, now = None, None
            if segment.digest in changes:
                keep, crop, now = changes[segment.digest]
            if len(keep):
                records.append(rewritten(folder, segment, keep, crop=crop, now=now))
        if records:
            write_sealed(folder / MANIFEST, manifest_of(records, origin))
        return bool(records)


def create(
    path: Path | str, contents: Sequence[Content], *, origin: Mapping[str, Any], replace: bool = False
) -> Path:
    """The folder `path`, a gallery of some sets; complete or not there at all.

    Args:
        path: folder to write.
        contents: what is indexed of each set.
        origin: JSON values about what made it.
        replace: put it in the place of an existing one, whose people and decisions stay; else that is
            refused.

    Raises:
        FileExistsError: `path` exists and `replace` is off.
        ValueError: as `entries.check_content`; no set, or features of several widths.
    """
    path = Path(path)
    if path.exists() and not replace:
        raise FileExistsError(f"{path} exists already: choose another name or replace it")
    contents = [content.checked() for content in contents]
    if len({content.width for content in contents}) != 1:
        raise Refusal("a gallery holds features of one width, of one set at least")
    new = not path.exists()
    with locked(path):
        for ending in (".partial", ".old.partial"):  # of older programs that were killed
            remove_folder(beside(path, after=ending))
        make_folder(path)
        try:
            publish(path, [written(path, content) for content in contents], origin)
        except BaseException:
            if new:
                remove_folder(path)
            raise
    return path


def build(
    path: Path | str,
    features: Array,
    tracklets: Tracklets,
    cameras: Sequence[str],
    *,
    manifest: Mapping[str, Any],
    replace: bool = False,
) -> Path:
    """A gallery of one set; see `create`.

    Args:
        manifest: the origin; where it has a "set" with `digest` and `path`, that is the set's.
    """
    of = manifest.get("set", {})
    content = Content(features, tracklets, cameras, str(of.get("digest", "")), str(of.get("path", "")))
    return create(path, [content], origin=manifest, replace=replace)


def people_path(path: Path) -> Path:
    """Where it is kept who is who in the gallery at `path`: beside it."""
    return beside(path, after=".people.sqlite")


def _mark(path: Path) -> tuple[int, int] | None:
    """What tells one manifest from the next."""
    try:
        found = (path / MANIFEST).stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns
