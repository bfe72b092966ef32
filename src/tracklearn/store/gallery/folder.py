"""The gallery on disk: one unit feature per part of a track, searched exactly from a memory map.

A gallery is a folder: `features-SUM.npy` (t, d) float32, `entries-SUM.parquet` (one row per part) and a
sealed `manifest.json` that names them, with the sums of their content and whatever the caller says about the
origin. The two files are named by what is in them, so another gallery takes the place of an old one with the
manifest alone, at once.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tracklearn.core.scan import merge
from tracklearn.core.shown import part_numbers, representative
from tracklearn.store.files import (
    DamagedError,
    beside,
    cannot_map,
    first_line,
    hash_file,
    make_folder,
    remove_folder,
    replacing,
    sync_folder,
    write_atomic,
)
from tracklearn.store.lock import locked
from tracklearn.store.sealed import MANIFEST, Manifest, read_sealed, write_sealed
from tracklearn.store.sets.shards import plain
from tracklearn.types import Array, Matches, Refusal, Tracklets

SCHEMA = "tracklearn.gallery/2"
_OLD = "tracklearn.gallery/1"  # files of fixed names, no sums of blocks
REMEDY = "index the run again (tracklearn index RUN SET --resume)"
_SUMMED_BYTES = 1 << 22  # features are compared with their sums in blocks of about this much
_BLOCK_VALUES = 2**22  # gallery values scored at a time: 32 MB when a block is compared in float64
_QUERIES = 256  # queries scored at a time
_COLUMNS = ("tracklet", "source", "camid", "first_frame", "last_frame", "start", "end", "n_crops", "crop")


@dataclass(frozen=True, eq=False)
class Entries:
    """What the gallery knows of each part; row i belongs to feature i.

    Args:
        tracklet: (t,) int64, number of the part among all that were indexed.
        source: (t,) int64, its track: the tracklet of the original set from which it was cut.
        camid: (t,) int64, camera from 0.
        camera: (t,) names of the cameras.
        first_frame: (t,) int64, first frame, from 0.
        last_frame: (t,) int64, last frame, inclusive.
        start: (t,) float64, time of the first frame in seconds.
        end: (t,) float64, time of the last frame in seconds.
        n_crops: (t,) int64, number of crops.
        crop: (t,) int64, row of the representative crop in the set's pictures.
    """

    tracklet: Array
    source: Array
    camid: Array
    camera: tuple[str, ...]
    first_frame: Array
    last_frame: Array
    start: Array
    end: Array
    n_crops: Array
    crop: Array

    def __len__(self) -> int:
        return len(self.tracklet)

    @cached_property
    def part(self) -> Array:
        """(t,) int64, the number of each part in its track, from 1."""
        return part_numbers(self.source)

    @cached_property
    def n_parts(self) -> Array:
        """(t,) int64, how many parts its track has here."""
        return np.bincount(self.source)[self.source]


@dataclass(frozen=True, eq=False)
class Gallery:
    """An opened gallery; features stay on disk until a search reads them.

    A block of features is compared with its sum when it is read for the first time.

    Args:
        path: its folder.
        mapped: (t, d) float32 unit rows, memory-mapped; `rows` hands out what has been compared.
        entries: what is known of each row.
        cameras: names by camid.
        manifest: the parsed manifest; what `build` was told is under "origin".
    """

    path: Path
    mapped: Array
    entries: Entries
    cameras: tuple[str, ...]
    manifest: dict[str, Any]

    compared: set[int] = field(default_factory=set)  # blocks that were
    halves: dict[tuple[int, int], Array] = field(default_factory=dict)  # of the rows from one on, so many

    def __len__(self) -> int:
        return len(self.mapped)

    @property
    def width(self) -> int:
        """Length of a feature, d."""
        return int(self.mapped.shape[1])

    def rows(self, first: int, end: int) -> Array:
        """(end − first, d) float32: features of rows first..end−1.

        Raises:
            DamagedError: they are not what was written.
        """
        sums = self.manifest.get("crc32")
        if sums is not None and end > first:
            size = _rows_a_block(self.width)
            for block in range(first // size, (end - 1) // size + 1):
                if block not in self.compared:
                    if _crc32(self.mapped[block * size : (block + 1) * size]) != sums[block]:
                        file = self.path / self.manifest["features"]["name"]
                        raise DamagedError(
                            f"{file} is damaged (block {block} is not what was written): {REMEDY}"
                        )
                    self.compared.add(block)
        return np.asarray(self.mapped[first:end])

    def feature(self, row: int) -> Array:
        """(d,) float32: one row's feature.

        Raises:
            DamagedError: it is not what was written.
        """
        return self.rows(row, row + 1)[0]

    def damages(self) -> list[str]:
        """What is wrong with its files by the sums in the manifest, one line each; reads all of them."""
        found = []
        for name, sha256 in _sums(self.manifest).items():
            if hash_file(self.path / name) != sha256:
                found.append(f"{self.path / name} is damaged (its content is not what was written)")
        return found

    def search(
        self,
        query: Array,
        k: int,
        *,
        exclude: Array | None = None,
        camera: int | str | None = None,
        since: float | None = None,
        until: float | None = None,
        one_a_track: bool = False,
    ) -> Matches:
        """The k nearest gallery rows of each query, nearest first; equal distances by the lower row.

        The scan is exact: float32 products, less half of each row's squared length, choose the candidates,
        with a margin above their rounding error, and the distances of the candidates are computed in float64.

        Args:
            query: (q, d) or (d,) unit float32.
            k: number of neighbours.
            exclude: (q,) or (q, e) int, gallery rows left out for each query (its own, say); −1 is no row.
            camera: only entries of this camera, by name or camid.
            since, until: only entries that are in view at some time between these seconds, on their clock.
            one_a_track: of each track only its nearest row, so that k tracks are found.

        Returns:
            Matches of shape (q, k); −1 and inf fill up where fewer than k rows are left.

        Raises:
            ValueError: a width, a length, k, a camera or a time does not fit, or a query is not a unit row.

        Memory: one block of scores and features (about 100 MB at most) whatever the gallery's size.
        """
        query = _unit("query", np.atleast_2d(np.asarray(query, np.float32)), self.width)
        if k < 1:
            raise Refusal(f"k is {k}, expected 1 or more")
        q, t = len(query), len(self)
        left_out = _exclusions(exclude, q, t)
        wanted = self._wanted(camera, since, until)
        track = self.entries.source if one_a_track else None
        index = np.full((q, k), -1, np.int64)
        distance = np.full((q, k), np.inf, np.float64)
        block = max(1, _BLOCK_VALUES // self.width)
        for g0 in range(0, t, block):
            rows = self.rows(g0, min(g0 + block, t))
            half = self._half_squared_lengths(g0, rows)
            for q0 in range(0, q, _QUERIES):
                # The order of the distances: |q − r|² = |q|² − 2 (q·r − |r|²/2). Rows are unit to 1e-3 only.
                score = query[q0 : q0 + _QUERIES] @ rows.T - half
                if wanted is not None:
                    score[:, ~wanted[g0 : g0 + block]] = -np.inf
                for i, line in enumerate(score, start=q0):
                    here = left_out[i] - g0
                    line[here[(here >= 0) & (here < len(rows))]] = -np.inf
                    merge(query[i], rows, line, g0, index[i], distance[i], group=track)
        return Matches(index, distance.astype(np.float32))

    def _half_squared_lengths(self, first: int, rows: Array) -> Array:
        """(n,) float32, |r|²/2 of these rows, the first of which is row `first`; computed once."""
        if (first, len(rows)) not in self.halves:
            squared = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
            self.halves[first, len(rows)] = (squared / 2).astype(np.float32)
        return self.halves[first, len(rows)]

    def _wanted(self, camera: int | str | None, since: float | None, until: float | None) -> Array | None:
        """(t,) bool, which rows may be found; None for all."""
        if since is not None and until is not None and since > until:
            raise Refusal(f"since {since:g} s is after until {until:g} s: nothing lies between")
        tests = [
            *([self.entries.camid == self._camid(camera)] if camera is not None else []),
            *([self.entries.end >= since] if since is not None else []),
            *([self.entries.start <= until] if until is not None else []),
        ]
        return np.logical_and.reduce(tests) if tests else None

    def _camid(self, camera: int | str) -> int:
        if isinstance(camera, str):
            if camera not in self.cameras:
                known = ", ".join(self.cameras)
                raise Refusal(f"no camera named {camera!r} in the gallery, expected one of: {known}")
            return self.cameras.index(camera)
        if not 0 <= camera < len(self.cameras):
            raise Refusal(f"camera is {camera}, expected a camid in 0..{len(self.cameras) - 1}")
        return int(camera)


def build(
    path: Path | str,
    features: Array,
    tracklets: Tracklets,
    cameras: Sequence[str],
    *,
    manifest: Mapping[str, Any],
    replace: bool = False,
) -> Path:
    """The folder `path`, holding one entry per tracklet; complete or not there at all.

    Args:
        path: folder to write.
        features: (t, d) unit float32, one row per tracklet.
        tracklets: the tracklets they belong to.
        cameras: names by camid.
        manifest: JSON values about the origin (run, set, weights digests); stored under "origin".
        replace: put the new gallery in the place of an existing one; otherwise that is refused.

    Raises:
        FileExistsError: `path` exists and `replace` is off.
        ValueError: no tracklets, a shape that does not fit, or features that are not unit rows.
    """
    path = Path(path)
    if path.exists() and not replace:
        raise FileExistsError(f"{path} exists already: choose another name or replace it")
    if not len(tracklets):
        raise Refusal("the set holds no tracklets: there is nothing to index")
    features = np.asarray(features)
    if features.ndim != 2 or len(features) != len(tracklets):
        raise Refusal(
            f"features has shape {features.shape}, expected ({len(tracklets)}, d): one row per tracklet"
        )
    features = _unit("features", features.astype(np.float32, copy=False), features.shape[1])
    if tracklets.n_cameras > len(cameras):
        raise Refusal(f"cameras has {len(cameras)} names, expected {tracklets.n_cameras}: one per camid")
    if (tracklets.length == 0).any():
        empty = int(np.flatnonzero(tracklets.length == 0)[0])
        raise Refusal(f"tracklet {empty} has no crops: leave empty tracklets out before indexing")

    with locked(path):
        return _put(path, features, _entries_table(tracklets, cameras), cameras, manifest)


def _put(
    path: Path, features: Array, table: pa.Table, cameras: Sequence[str], origin: Mapping[str, Any]
) -> Path:
    """Write the two files under names of their own, then the manifest, then remove what it does not name."""
    entries = io.BytesIO()
    pq.write_table(table, entries)
    for ending in (".partial", ".old.partial"):  # of older programs that were killed
        remove_folder(beside(path, after=ending))
    make_folder(path)
    features = np.ascontiguousarray(features)
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(features))
    size = _rows_a_block(features.shape[1])
    blocks = [features[i : i + size] for i in range(0, len(features), size)]
    sha256 = hashlib.sha256(head.getvalue())
    for block in blocks:
        sha256.update(block.data)
    name = f"features-{sha256.hexdigest()[:12]}.npy"
    with replacing(path / name) as file:
        file.write(head.getvalue())
        for block in blocks:
            file.write(block.data)
    entries_sha256 = hashlib.sha256(entries.getvalue()).hexdigest()
    entries_name = f"entries-{entries_sha256[:12]}.parquet"
    write_atomic(path / entries_name, entries.getvalue())
    content = {
        "kind": "gallery",
        "schema": SCHEMA,
        "entries": len(features),
        "width": features.shape[1],
        "cameras": list(cameras),
        "features": {"name": name, "sha256": sha256.hexdigest()},
        "table": {"name": entries_name, "sha256": entries_sha256},
        "crc32": [_crc32(block) for block in blocks],
        "origin": dict(origin),
    }
    write_sealed(path / MANIFEST, content)
    for other in path.iterdir():
        if other.name not in (name, entries_name, MANIFEST):
            other.unlink()
    sync_folder(path)
    return path


def open_gallery(path: Path | str) -> Gallery:
    """The gallery in the folder `path`, its features memory-mapped.

    Raises:
        FileNotFoundError: `path` is not a gallery.
        DamagedError: its files are not what was written.
        ValueError: another version wrote it.
    """
    path = Path(path)
    for attempt in range(3):
        if not (path / MANIFEST).is_file():
            raise FileNotFoundError(
                f"{path} is not a gallery (no manifest.json): make one with `tracklearn index`"
            )
        manifest = read_sealed(path / MANIFEST, remedy=REMEDY)
        if manifest.get("schema") not in (SCHEMA, _OLD):
            schema = manifest.get("schema")
            raise Refusal(f"{path} has schema {schema!r}, expected {SCHEMA!r}: {REMEDY}")
        manifest.require(entries=int, width=int, cameras=list, origin=dict)
        try:
            return _opened(path, manifest)
        except FileNotFoundError as error:
            # Another one may have taken its place since the manifest was read.
            if attempt == 2 or read_sealed(path / MANIFEST, remedy=REMEDY) == manifest:
                raise DamagedError(f"{path} is damaged ({error.filename} is missing): {REMEDY}") from error
    raise AssertionError("not reached")


# What numpy lets through of a damaged head beside ValueError; it reads it as Python.
_HEADS = (SyntaxError, TypeError, TokenError)


def _opened(path: Path, manifest: Manifest) -> Gallery:
    names = list(_sums(manifest))
    features_file, table_file = (path / name for name in names)
    if hash_file(table_file) != _sums(manifest)[names[1]]:
        raise DamagedError(f"{table_file} is damaged (its content is not what was written): {REMEDY}")
    expected = (manifest["entries"], manifest["width"])
    try:
        try:
            features = np.load(features_file, mmap_mode="r", allow_pickle=False)
        except OSError as error:
            if not cannot_map(error):
                raise
            features = np.load(features_file, allow_pickle=False)
        table = pq.read_table(plain(table_file))
    except FileNotFoundError:
        raise
    except pa.ArrowMemoryError:
        raise
    except (ValueError, pa.ArrowInvalid, EOFError, *_HEADS) as error:
        # The table's sum has been compared: what cannot be read are the features.
        raise DamagedError(f"{features_file} is damaged ({first_line(error)}): {REMEDY}") from error
    if features.dtype != np.float32 or features.shape != expected or table.num_rows != expected[0]:
        raise DamagedError(
            f"{features_file} is damaged (it holds {features.shape} {features.dtype} features for "
            f"{table.num_rows} entries, not {expected} as its manifest says): {REMEDY}"
        )
    columns = {name: table[name].to_numpy() for name in _COLUMNS}
    entries = Entries(camera=tuple(table["camera"].to_pylist()), **columns)
    return Gallery(path, features, entries, tuple(manifest["cameras"]), manifest)


def _sums(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Names of the features and of the table, with their sha256."""
    try:
        if manifest["schema"] == _OLD:
            return {name: manifest["sha256"][name] for name in ("features.npy", "entries.parquet")}
        return {str(manifest[what]["name"]): manifest[what]["sha256"] for what in ("features", "table")}
    except (KeyError, TypeError) as error:
        raise DamagedError(f"the gallery's manifest is damaged (it names no files): {REMEDY}") from error


def _rows_a_block(width: int) -> int:
    return max(1, _SUMMED_BYTES // (4 * width))


def _crc32(block: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(block).data.cast("B"))


def _entries_table(tracklets: Tracklets, cameras: Sequence[str]) -> pa.Table:
    first, last = tracklets.start[:-1], tracklets.start[1:] - 1
    names = np.asarray(cameras, dtype=object)
    columns = {
        "tracklet": np.arange(len(tracklets)),
        "source": tracklets.source,
        "camid": tracklets.camid,
        "first_frame": tracklets.frame[first],
        "last_frame": tracklets.frame[last],
        "start": tracklets.time[first],
        "end": tracklets.time[last],
        "n_crops": tracklets.length,
        "crop": tracklets.crop[representative(tracklets)],
        "camera": pa.array(names[tracklets.camid].tolist(), pa.string()),
    }
    order = [f.name for f in fields(Entries)]
    return pa.table({name: columns[name] for name in order})


def _unit(name: str, rows: Array, width: int) -> Array:
    if rows.ndim != 2 or rows.shape[1] != width or width == 0:
        raise Refusal(f"{name} has shape {rows.shape}, expected (any, {width}): one feature per row")
    off = np.abs(np.linalg.norm(rows, axis=1) - 1)
    bad = np.flatnonzero(~(off <= 1e-3))  # also catches NaN
    if len(bad):
        norm = np.linalg.norm(rows[bad[0]])
        raise Refusal(f"{name} row {bad[0]} has length {norm:.4g}, expected 1: normalise the rows first")
    return rows


def _exclusions(exclude: Array | None, q: int, t: int) -> Array:
    if exclude is None:
        return np.empty((q, 0), np.int64)
    rows = np.asarray(exclude, np.int64)
    rows = rows[:, None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or len(rows) != q:
        raise Refusal(
            f"exclude has shape {np.shape(exclude)}, expected ({q},) or ({q}, e): one row per query"
        )
    if rows.size and (rows.min() < -1 or rows.max() >= t):
        raise Refusal(f"exclude holds {rows.min()}..{rows.max()}, expected gallery rows in 0..{t - 1} or -1")
    return np.where(rows < 0, t, rows)
