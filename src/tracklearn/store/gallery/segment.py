"""The files of one set in a gallery's folder: features, a table beside them; of large sets 8-bit rows, and
heads where most of the rows lies in few directions.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tracklearn.core import heads
from tracklearn.core.scan import quantise
from tracklearn.store.files import DamagedError, cannot_map, first_line, hash_file, replacing, write_atomic
from tracklearn.store.gallery.entries import NUMBERS, GallerySet
from tracklearn.store.sets.shards import plain
from tracklearn.types import Array

CODED = 4096  # entries from which on a set has 8-bit rows too: below, a scan of float32 takes no time
HEADED = 20_000  # entries from which on it may have heads: below, all 8-bit rows are read as fast
SUMMED_BYTES = 1 << 22  # rows are compared with their sums in blocks of about this much
_KINDS = ("features", "table", "int8", "bounds", "heads", "head_bounds", "axes")
# What numpy lets through of a damaged head beside ValueError; it reads it as Python.
_HEADS = (SyntaxError, TypeError, TokenError)


@dataclass(frozen=True, eq=False)
class Segment:
    """A set's files, opened.

    Args:
        folder: of the gallery. record: what the manifest says of it.
        mapped: (t, d) float32, memory-mapped; `rows` hands out what has been compared.
        code: (t, d) int8, memory-mapped, and bound (t, 3) float32, or None.
        head: (t, L) int8, memory-mapped, head_bound (4, t) float32, and what they lie along, or None.
        columns: the numbers of the table; camera: names of cameras, one a row.
        remedy: what to do about damage.
    """

    folder: Path
    record: Mapping[str, Any]
    mapped: Array
    code: Array | None
    bound: Array | None
    head: Array | None
    head_bound: Array | None
    along: heads.Directions | None
    columns: Mapping[str, Array]
    camera: tuple[str, ...]
    remedy: str
    _compared: set[tuple[str, int]] = field(default_factory=set)  # blocks that were

    @classmethod
    def open(cls, folder: Path, record: Mapping[str, Any], width: int, *, remedy: str) -> Segment:
        """The files that a record names.

        Raises:
            FileNotFoundError: one is missing.
            DamagedError: one is not what was written.
        """
        expected = (record["entries"], width)
        table_file = folder / record["table"]["name"]
        _compare(table_file, record["table"]["sha256"], remedy)
        features_file = folder / record["features"]["name"]
        features = _array(features_file, expected, np.float32, remedy)
        table = pq.read_table(plain(table_file))
        if table.num_rows != expected[0]:
            raise DamagedError(
                f"{features_file} is damaged (it holds {features.shape} features for {table.num_rows} "
                f"entries): {remedy}"
            )
        code = bound = None
        if "int8" in record:
            code = _array(folder / record["int8"]["name"], expected, np.int8, remedy)
            bounds_file = folder / record["bounds"]["name"]
            _compare(bounds_file, record["bounds"]["sha256"], remedy)
            bound = np.ascontiguousarray(_array(bounds_file, (expected[0], 3), np.float32, remedy))
        head = head_bound = along = None
        if "heads" in record:
            size = int(record["directions"])
            head = _array(folder / record["heads"]["name"], (expected[0], size), np.int8, remedy)
            small = []
            for kind, shape in (("head_bounds", (expected[0], 4)), ("axes", (width, size))):
                _compare(folder / record[kind]["name"], record[kind]["sha256"], remedy)
                made = _array(folder / record[kind]["name"], shape, np.float32, remedy)
                small.append(np.ascontiguousarray(made))
            head_bound, along = np.ascontiguousarray(small[0].T), heads.Directions.of(small[1])
        names = [name for name in NUMBERS if name in table.column_names]
        columns = {name: table[name].to_numpy() for name in names}
        camera = tuple(table["camera"].to_pylist())
        return cls(folder, record, features, code, bound, head, head_bound, along, columns, camera, remedy)

    def __len__(self) -> int:
        return len(self.mapped)

    @property
    def digest(self) -> str:
        """Of its set."""
        return str(self.record["digest"])

    @property
    def set_path(self) -> str:
        """Where its set lies, seen from the run."""
        return str(self.record["path"])

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names by the set's own camid."""
        return tuple(self.record["cameras"])

    @property
    def gone(self) -> Array:
        """Rows that were deleted, in order."""
        return np.array(self.record.get("gone", ()), np.int64)

    def rows(self, first: int, end: int) -> Array:
        """(end − first, d) float32: some features.

        Raises:
            DamagedError: they are not what was written.
        """
        self._compare_blocks("features", self.mapped, range(first, end))
        return np.asarray(self.mapped[first:end])

    def rows_at(self, rows: Array) -> Array:
        """(n, d) float32: the features of some rows, a copy; DamagedError as `rows`."""
        self._compare_blocks("features", self.mapped, rows.tolist())
        return np.asarray(self.mapped[rows])

    def coded(self, first: int, end: int) -> tuple[Array, Array]:
        """(n, d) int8, (n, 3) float32: some 8-bit rows and how far off they are; DamagedError as `rows`."""
        if self.code is None or self.bound is None:
            raise RuntimeError("a set without 8-bit rows is asked for them")
        self._compare_blocks("int8", self.code, range(first, end))
        return np.asarray(self.code[first:end]), self.bound[first:end]

    def coded_at(self, rows: Array) -> tuple[Array, Array]:
        """(n, d) int8, (n, 3) float32: some 8-bit rows, copies, and how far off; DamagedError as `rows`."""
        if self.code is None or self.bound is None:
            raise RuntimeError("a set without 8-bit rows is asked for them")
        self._compare_blocks("int8", self.code, rows.tolist())
        return np.asarray(self.code[rows]), self.bound[rows]

    def heads(self, first: int, end: int) -> tuple[Array, Array]:
        """(n, L) int8, (4, n) float32: the heads of some rows and their bounds; DamagedError as `rows`."""
        if self.head is None or self.head_bound is None:
            raise RuntimeError("a set without heads is asked for them")
        self._compare_blocks("heads", self.head, range(first, end))
        return np.asarray(self.head[first:end]), self.head_bound[:, first:end]

    def _compare_blocks(self, what: str, values: Array, rows: Sequence[int]) -> None:
        """Compare the blocks that hold these rows with their sums, each once."""
        sums = self.record[what].get("crc32")
        if sums is None or not len(rows):
            return
        size = rows_a_block(values)
        if isinstance(rows, range):
            blocks: Sequence[int] = range(rows[0] // size, rows[-1] // size + 1)
        else:
            blocks = sorted({row // size for row in rows})
        for block in blocks:
            if (what, block) in self._compared:
                continue
            if block >= len(sums) or crc32(values[block * size : (block + 1) * size]) != sums[block]:
                file = self.folder / self.record[what]["name"]
                raise DamagedError(
                    f"{file} is damaged (block {block} is not what was written): {self.remedy}"
                )
            self._compared.add((what, block))


def names_of(record: Mapping[str, Any]) -> dict[str, str]:
    """The files of a record, with their sha256."""
    kinds = [kind for kind in _KINDS if kind in record or kind in ("features", "table")]
    return {str(record[kind]["name"]): str(record[kind]["sha256"]) for kind in kinds}


def write_segment(
    folder: Path, features: Array, columns: Mapping[str, Array], camera: Sequence[str], place: GallerySet
) -> dict[str, Any]:
    """Write the files of a set to a folder under names of their own; the record of the manifest.

    Args:
        folder: where.
        features: (t, d) float32 unit rows, t ≥ 1.
        columns: numbers of the table, by the names of `NUMBERS`.
        camera: names of cameras, one a row.
        place: the set.
    """
    features = np.ascontiguousarray(features, np.float32)
    size = rows_a_block(features)
    blocks = [features[i : i + size] for i in range(0, len(features), size)]
    made: dict[str, Any] = {
        "digest": place.digest,
        "path": place.path,
        "cameras": list(place.cameras),
        "entries": len(features),
        "width": features.shape[1],
        "features": _write_array(folder, "features", features, blocks),
    }
    table = io.BytesIO()
    content = {name: columns[name] for name in NUMBERS}
    pq.write_table(pa.table({**content, "camera": pa.array(camera, pa.string())}), table)
    sha256 = hashlib.sha256(table.getvalue()).hexdigest()
    name = f"entries-{sha256[:12]}.parquet"
    write_atomic(folder / name, table.getvalue())
    made["table"] = {"name": name, "sha256": sha256}
    if len(features) >= CODED:
        coded = [quantise(block) for block in blocks]
        code = np.concatenate([each for each, _ in coded])
        bound = np.concatenate([each for _, each in coded])
        made["int8"] = _write_array(folder, "int8", code, _blocks(code))
        made["bounds"] = _write_array(folder, "bounds", bound, _blocks(bound))
    along = _directions(features)
    if along is not None:
        parts = [heads.encode(block, along) for block in blocks]
        head, head_bound = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        made["directions"] = along.axes.shape[1]
        for kind, values in (("heads", head), ("head_bounds", head_bound), ("axes", along.axes)):
            made[kind] = _write_array(folder, kind, values, _blocks(values))
    return made


def _directions(features: Array) -> heads.Directions | None:
    """What the heads of these rows lie along; None where heads do not pay."""
    n = len(features)
    if n < max(HEADED, CODED):
        return None
    drawn = np.random.default_rng(0).choice(n, min(n, heads.SAMPLE), replace=False)
    return heads.choose(features[np.sort(drawn)], n)


def _blocks(values: Array) -> Iterator[Array]:
    size = rows_a_block(values)
    yield from (values[i : i + size] for i in range(0, len(values), size))


def _write_array(
    folder: Path, kind: str, values: Array, blocks: Sequence[Array] | Iterator[Array]
) -> dict[str, Any]:
    """Write an array as KIND-SUM.npy; its name and sums."""
    blocks = list(blocks)
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(values))
    sha256 = hashlib.sha256(head.getvalue())
    for block in blocks:
        sha256.update(block.data)
    name = f"{kind}-{sha256.hexdigest()[:12]}.npy"
    with replacing(folder / name) as file:
        file.write(head.getvalue())
        for block in blocks:
            file.write(block.data)
    return {"name": name, "sha256": sha256.hexdigest(), "crc32": [crc32(block) for block in blocks]}


def _array(file: Path, shape: tuple[int, int], dtype: Any, remedy: str) -> Array:
    """An array of a file, memory-mapped where that can be."""
    try:
        try:
            found = np.load(file, mmap_mode="r", allow_pickle=False)
        except OSError as error:
            if not cannot_map(error):
                raise
            found = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        raise
    except (ValueError, EOFError, *_HEADS) as error:
        raise DamagedError(f"{file} is damaged ({first_line(error)}): {remedy}") from error
    if found.dtype != dtype or found.shape != shape:
        raise DamagedError(
            f"{file} is damaged (it holds {found.shape} {found.dtype}, not {shape} as its manifest says): "
            f"{remedy}"
        )
    return found


def _compare(file: Path, sha256: str, remedy: str) -> None:
    if hash_file(file) != sha256:
        raise DamagedError(f"{file} is damaged (its content is not what was written): {remedy}")


def rows_a_block(values: Array) -> int:
    """Rows of an array that are summed together."""
    return max(1, SUMMED_BYTES // max(1, values.itemsize * values.shape[1]))


def crc32(block: Array) -> int:
    """The sum of a block."""
    return zlib.crc32(np.ascontiguousarray(block).data.cast("B"))
