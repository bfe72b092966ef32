"""The tracklet set on disk: written as a stream, finished atomically, read at random.

    SET/manifest.json        kind, schema, settings, sources with counts and skipped items, sha256s
    SET/tracklets.parquet    tracklet, camid, camera, source, file, continues
    SET/crops.parquet        tracklet, frame, time, x1, y1, x2, y2, score, shard, row
    SET/shard-NNNNN.arrow    the crops as JPEG bytes, one column
    SET.truth.parquet        pid of each crop row; only `read_truth` opens it, never training

A referenced set (`tracklearn.store.sets.referenced`) leaves its images elsewhere: `manifest["images"]` says
where, relative to the set. Either crops.parquet has a column `path` in place of `shard` and `row`, or the
shards are those of another set.

While a set is written it lies in `SET.partial/`, one folder a source; what is finished there survives an
interruption. The last step renames the joined folder to `SET`, so a set exists whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import tracklearn
from tracklearn.store.files import DamagedError, beside, hash_file, sync_folder
from tracklearn.store.film.clocks import clock_columns, moment
from tracklearn.store.intents import settle
from tracklearn.store.lock import locked
from tracklearn.store.objects import Stored, is_url
from tracklearn.store.picture.crops import StoredCrops
from tracklearn.store.picture.images import ImageFiles
from tracklearn.store.picture.pictures import BrokenPicture, decode
from tracklearn.store.sealed import MANIFEST, read_sealed
from tracklearn.store.sets.setwriter import (
    KIND,
    TRUTH,
    PartWriter,
    SetWriter,
    number_cameras,
    truth_path,
)
from tracklearn.store.sets.shards import REMEDY, ShardReader, mapped, plain, reading
from tracklearn.store.sets.stored import local, origin_of
from tracklearn.store.sets.tables import TableWriter, column_crc32
from tracklearn.types import Array, Refusal, Tracklets, Truth

__all__ = [
    "PartWriter",
    "SetWriter",
    "TrackletSet",
    "number_cameras",
    "open_set",
    "read_truth",
    "truth_path",
    "write_truth",
]


TRUTH_REMEDY = "put it back from a copy, or write the truth again"
REFERENCED = 2  # schema of a set whose images lie elsewhere; one that holds them has `setwriter.SCHEMA`


class TrackletSet:
    """A tracklet set on disk, opened by `open_set`; nothing is read before it is asked for.

    Attributes:
        path: its folder.
        manifest: the parsed `manifest.json`.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        shards = manifest["shards"]
        self._reader = ShardReader([self.root / s["name"] for s in shards], [s.get("crc32") for s in shards])
        self._compared: set[str] = set()

    @property
    def root(self) -> Path:
        """Folder that holds the images or their shards: the set's own, unless it is a referenced set."""
        return self.path / self.manifest.get("images", {}).get("root", "")

    @property
    def members(self) -> tuple[TrackletSet, ...]:
        """The sets that this one is made of: itself."""
        return (self,)

    @cached_property
    def first_track(self) -> Array:
        """(s + 1,) int64: number of the first track of each member, and how many there are."""
        return np.cumsum([0, *(int(one.manifest["n_tracklets"]) for one in self.members)])

    @cached_property
    def first_crop(self) -> Array:
        """(s + 1,) int64: number of the first crop row of each member, and how many there are."""
        return np.cumsum([0, *(one.n_crops for one in self.members)])

    @property
    def digest(self) -> str:
        """sha256 over the content (not over paths, times or settings): the key of every cache."""
        return str(self.manifest["digest"])

    @property
    def cameras(self) -> tuple[str, ...]:
        """Camera name by camid; "" where a number is not used."""
        return tuple(self.manifest["cameras"])

    @property
    def n_crops(self) -> int:
        """Number of crop rows."""
        return int(self.manifest["n_crops"])

    @cached_property
    def tracklets(self) -> Tracklets:
        """All tracklets; 52 bytes a crop."""
        box = np.empty((self.n_crops, 4), np.float32)
        for i, name in enumerate(("x1", "y1", "x2", "y2")):
            box[:, i] = self._crop_column(name)
        column = {name: self._crop_column(name) for name in ("tracklet", "frame", "time", "score")}
        clock, offset = clock_columns(self.manifest, self.file)
        return Tracklets(
            **column,
            box=box,
            crop=np.arange(self.n_crops),
            camid=self._tracklet_column("camid"),
            source=self._tracklet_column("source"),
            clock=clock,
            offset=offset,
        )

    @cached_property
    def file(self) -> Array:
        """(t,) int32: entry of `manifest["sources"]` that each tracklet comes from."""
        return self._tracklet_column("file")

    @cached_property
    def began(self) -> Array:
        """(t,) float64: when the film of each tracklet began, in seconds since 1970; nan where unknown.

        A beginning without a time zone is taken as if in UTC.
        """
        known = [moment(self.manifest, file, 0.0) for file in range(len(self.manifest["sources"]))]
        seconds = [
            np.nan if at is None else (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
            for at in known
        ]
        return np.array(seconds, np.float64)[self.file]

    def moment(self, tracklet: int, seconds: float) -> datetime | None:
        """When that was by the clock on the wall, so many seconds into the tracklet's film; None: unknown."""
        return moment(self.manifest, int(self.file[tracklet]), seconds)

    @cached_property
    def continues(self) -> Array:
        """(t,) int64: the tracklet that each goes on from (cut at the greatest length), −1 for none."""
        return self._tracklet_column("continues")

    @cached_property
    def place(self) -> dict[str, pa.Array]:
        """Where each crop's picture lies below `root`: (n,) `path`, or (n,) `shard` and `row`."""
        names = ("path",) if self._in_files else ("shard", "row")
        return {name: _read_column(self._table("crops.parquet"), name, self.n_crops) for name in names}

    @property
    def _in_files(self) -> bool:
        return bool(self.manifest.get("images", {}).get("kind") == "files")

    @cached_property
    def _files(self) -> ImageFiles:
        return ImageFiles(self.root, self.place["path"])

    @cached_property
    def _shard_row(self) -> tuple[Array, Array]:
        return self.place["shard"].to_numpy(), self.place["row"].to_numpy()

    def _crop_column(self, name: str) -> Array:
        return _column(self._table("crops.parquet"), name, self.n_crops)

    def _tracklet_column(self, name: str) -> Array:
        return _column(self._table("tracklets.parquet"), name, int(self.manifest["n_tracklets"]))

    def _table(self, name: str) -> Path:
        """The file of a table, compared with its sum the first time it is asked for."""
        file = self.path / name
        if name not in self._compared and hash_file(file) != self.manifest["files"].get(name):
            raise DamagedError(f"{file} is damaged (its content is not what was written): {REMEDY}")
        self._compared.add(name)
        return file

    def reader(self) -> Callable[[int], Array]:
        """Row -> its picture at its own size, RGB uint8, for reading many; `BrokenPicture` for a broken one.

        Of images in files of their own a few may be missing, which count as broken; see `ImageFiles`.

        Raises:
            FileNotFoundError: the folder of a referenced set's images is not there.
        """
        if self._in_files:
            return self._files.reader()
        return lambda row: decode(self._blob(row))

    def crops(
        self, height: int, width: int, *, cache_bytes: int | None = None, workers: int | None = None
    ) -> StoredCrops:
        """The crops at one size, decoded on demand and kept as memory allows; see `StoredCrops`.

        Raises:
            FileNotFoundError: the folder of a referenced set's images is not there.
        """
        return StoredCrops(
            self.n_crops, self.reader(), height=height, width=width, cache_bytes=cache_bytes, workers=workers
        )

    def _blob(self, row: int) -> Array:
        if self._in_files:
            return self._files.get(row)
        shard, place = self._shard_row
        return self._reader.get(int(shard[row]), int(place[row]))

    def jpeg(self, row: int) -> bytes:
        """The encoded bytes of a crop row: JPEG, or whatever format a referenced image has.

        Raises:
            IndexError: no such row.
            FileNotFoundError: a referenced image is not there.
        """
        if not 0 <= row < self.n_crops:
            raise IndexError(f"crop row {row} asked for, {self.path} has 0..{self.n_crops - 1}")
        return self._blob(row).tobytes()

    def image(self, row: int) -> Array:
        """A crop row at its own size, RGB uint8 (h, w, 3).

        Raises:
            IndexError: no such row.
            FileNotFoundError: a referenced image is not there.
            ValueError: its picture is broken.
        """
        try:
            return decode(self.jpeg(row))
        except BrokenPicture as error:
            where = f" ({self._files.file(row)})" if self._in_files else ""
            raise Refusal(f"crop row {row} of {self.path}{where} is broken: {error}") from None

    def damages(self) -> list[str]:
        """What is wrong with the set's files by the sums in the manifest, one line each; reads all of them.

        Images in files of their own have no sum: only the tables of such a set are compared.
        """
        expected = {self.path / name: sha256 for name, sha256 in self.manifest["files"].items()}
        expected |= {self.root / s["name"]: s["sha256"] for s in self.manifest["shards"]}
        found = [
            f"{file} is damaged (its content is not what was written)"
            for file, sha256 in expected.items()
            if hash_file(file) != sha256
        ]
        if truth_path(self.path).is_file():
            try:
                read_truth(self.path)
            except ValueError as error:
                found.append(str(error))
        return found

    def verify(self) -> None:
        """Compare every file with its sum; reads the whole set.

        Raises:
            DamagedError: a file differs; the message names it.
        """
        if found := self.damages():
            raise DamagedError(f"{found[0]}: {REMEDY}")


def open_set(path: str | Path | Stored) -> TrackletSet:
    """The tracklet set in folder `path`, or by a copy that in storage; see `sets.stored.local`.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: the folder is no tracklet set, an unfinished, damaged or newer one; as `stored.local`.
    """
    path = local(path)
    settle(path)
    if not path.is_dir():
        partial = beside(path, after=".partial")
        hint = f" (it is unfinished: {partial}; finish it with --resume)" if partial.is_dir() else ""
        raise FileNotFoundError(f"no such tracklet set: {path}{hint}")
    if not (path / "manifest.json").is_file():
        nested = path / "set"
        hint = f" (did you mean {nested}?)" if (nested / "manifest.json").is_file() else ""
        raise Refusal(f"{path} is not a tracklet set: it has no manifest.json{hint}")
    manifest = read_sealed(path / MANIFEST, remedy=REMEDY)
    kind = manifest.get("kind")
    if kind != KIND:
        raise Refusal(f"{path} is not a tracklet set but a {kind or 'folder of another kind'}")
    manifest.require(schema=int)
    if manifest["schema"] > REFERENCED:
        raise Refusal(
            f"{path} has schema {manifest['schema']}, this tracklearn ({tracklearn.__version__}) "
            f"reads up to {REFERENCED}: update tracklearn"
        )
    counts = {"n_tracklets": int, "n_crops": int, "digest": str}
    manifest.require(files=dict, shards=list, cameras=list, sources=list, **counts)
    if not all(isinstance(s, dict) and {"name", "bytes", "sha256"} <= s.keys() for s in manifest["shards"]):
        raise DamagedError(f"{path / MANIFEST} is damaged (a shard lacks its name or sums): {REMEDY}")
    for name in manifest["files"]:
        if not (path / name).is_file():
            raise DamagedError(f"{path} is damaged: {name} is missing; {REMEDY}")
    opened = TrackletSet(path, manifest)
    if manifest.get("images", {}).get("kind") == "shards":
        _check_holder(opened)
    for shard in manifest["shards"]:
        # A shorter file behind a memory map would end the process; so sizes are checked here.
        file = opened.root / shard["name"]
        size = file.stat().st_size if file.is_file() else None
        if size != shard["bytes"]:
            found = "missing" if size is None else f"{size} bytes long, expected {shard['bytes']}"
            raise DamagedError(f"{opened.root} is damaged: {shard['name']} is {found}; {REMEDY}")
    return opened


def _check_holder(opened: TrackletSet) -> None:
    """Whether the set that holds the shards of `opened` is there, and still the same."""
    holder = Path(os.path.normpath(opened.root))
    what = f"{opened.path} shares the images of the set {holder}, which"
    if not (opened.root / "manifest.json").is_file():
        raise FileNotFoundError(f"{what} is not there: put it back, or make {opened.path} again")
    if (
        read_sealed(opened.root / MANIFEST, remedy=REMEDY).get("digest")
        != opened.manifest["images"]["digest"]
    ):
        raise Refusal(f"{what} has been replaced by another one: make {opened.path} again")


def write_truth(path: str | Path, pid: Array) -> Path:
    """Write the ground truth of the set at `path` beside it, atomically; an earlier one is replaced.

    Args:
        path: an existing set.
        pid: (n_crops,) int, person of each crop row, −1 for none.

    Raises:
        ValueError: `pid` has another length than the set has crops, or `path` is no set.
    """
    if is_url(path) or origin_of(path) is not None:
        raise Refusal(f"{path} is in storage: write the truth of a set in a folder, and copy both there")
    tracklets = open_set(path)
    pid = np.asarray(pid, np.int64)
    if pid.shape != (tracklets.n_crops,):
        raise Refusal(f"pid has shape {pid.shape}, expected ({tracklets.n_crops},): one per crop of {path}")
    file = truth_path(path)
    temporary = beside(file, before=".", after=".tmp")
    with locked(path):
        try:
            writer = TableWriter(temporary, TRUTH)
            writer.add({"pid": pid})
            writer.close({"set": tracklets.digest})
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(file.parent)
    return file


def read_truth(path: str | Path) -> Truth:
    """The ground truth of the set at `path`. For evaluation, noise measures, and labelled sources.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it belongs to another set.
    """
    tracklets = open_set(path)
    file = truth_path(tracklets.path)
    if not file.is_file():
        raise FileNotFoundError(f"no ground truth for {path}: {file} does not exist")
    with reading(file, TRUTH_REMEDY):
        notes = pq.read_metadata(plain(file)).metadata or {}
    if notes.get(b"set", b"") != tracklets.digest.encode():
        raise Refusal(f"{file} belongs to another tracklet set than {path}: write the truth again")
    column = _read_column(file, "pid", tracklets.n_crops, TRUTH_REMEDY)
    if b"crc32" in notes and notes[b"crc32"] != str(column_crc32(column)).encode():
        raise DamagedError(f"{file} is damaged (its content is not what was written): {TRUTH_REMEDY}")
    return Truth(column.to_numpy(zero_copy_only=False))


def _column(path: Path, name: str, rows: int) -> Array:
    """One column of a parquet file; one at a time, so that a large set is never twice in memory."""
    return _read_column(path, name, rows).to_numpy(zero_copy_only=False)


def _read_column(path: Path, name: str, rows: int, remedy: str = REMEDY) -> pa.Array:
    with reading(path, remedy):
        column = pq.read_table(mapped(path), columns=[name])[name]
    if len(column) != rows:
        raise DamagedError(f"{path} is damaged: it has {len(column)} rows, expected {rows}; {remedy}")
    return column.combine_chunks()
