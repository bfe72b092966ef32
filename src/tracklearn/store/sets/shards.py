"""Many small blobs of bytes in few files: Arrow IPC shards, written whole, read through a memory map.

A shard has one column, `jpeg` (large_binary), in record batches of a few megabytes, so that neither writing
nor reading one needs its size in memory. A shard appears under its name only when it is complete.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tracklearn.store.files import DamagedError, cannot_map, disk_error, first_line
from tracklearn.types import Array

SCHEMA = pa.schema([pa.field("jpeg", pa.large_binary(), nullable=False)])
REMEDY = "put it back from a copy, or ingest again"
BATCH_BYTES = 4 << 20  # bytes held back before they are written: what a shard costs in memory


class HashedFile(io.FileIO):
    """A file for writing that takes the sha256 of what passes through it.

    Raises:
        OSError: the disk is full or failing; one line that names the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w")
        self.path = path
        self.sha256 = hashlib.sha256()
        self.abandoned = False

    def write(self, data: Any) -> int:
        """Write all of `data`; a short write is carried on until it is done or fails.

        Once abandoned, or after a failure, what still comes in goes nowhere: Arrow's writers insist on ending
        with a footer, from their destructors if need be. `sync` then refuses.
        """
        view = memoryview(data).cast("B")
        if self.abandoned:
            return len(view)
        done = 0
        try:
            while done < len(view):
                done += self._put(view[done:])
        except OSError as error:
            self.abandoned = True
            raise disk_error(error, self.path) from error
        self.sha256.update(view)
        return done

    def _put(self, view: memoryview) -> int:
        return super().write(view) or 0

    def sync(self) -> None:
        """Have everything written so far on the disk itself."""
        if self.abandoned:
            raise OSError(errno.EIO, "an earlier write failed", str(self.path))
        try:
            os.fsync(self.fileno())
        except OSError as error:
            raise disk_error(error, self.path) from error


class ShardWriter:
    """Distributes blobs over `shard-NNNNN.arrow` files of at most about `shard_bytes`.

    Args:
        folder: where the shards go.
        shard_bytes: a shard is closed when it holds this much.

    `done` lists the finished shards: name, rows, bytes, sha256, and crc32 of each record batch.
    """

    def __init__(self, folder: Path, *, shard_bytes: int = 64 << 20) -> None:
        self.folder = folder
        self.shard_bytes = shard_bytes
        self.done: list[dict[str, Any]] = []
        self._file: HashedFile | None = None
        self._writer: Any = None
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._rows = 0  # of the open shard, held ones included
        self._bytes = 0
        self._crc32: list[int] = []

    def add(self, blobs: Sequence[bytes]) -> tuple[Array, Array]:
        """Append blobs; returns shard (m,) int32 and row inside that shard (m,) int32."""
        shard = np.empty(len(blobs), np.int32)
        row = np.empty(len(blobs), np.int32)
        for i, blob in enumerate(blobs):
            if self._rows and self._bytes + len(blob) > self.shard_bytes:
                self.close()
            shard[i], row[i] = len(self.done), self._rows
            self._held.append(blob)
            self._held_bytes += len(blob)
            self._rows += 1
            self._bytes += len(blob)
            if self._held_bytes >= BATCH_BYTES:
                self._flush()
        return shard, row

    def _flush(self) -> None:
        if self._file is None:
            self._file = HashedFile(self.folder / f"shard-{len(self.done):05d}.arrow.tmp")
            self._writer = pa.ipc.new_file(self._file, SCHEMA)
        batch = pa.record_batch([pa.array(self._held, pa.large_binary())], schema=SCHEMA)
        self._writer.write_batch(batch)
        self._crc32.append(_crc32(*_parts(batch)))
        self._held, self._held_bytes = [], 0

    def close(self) -> None:
        """Finish the open shard, if any: written, synced, renamed into place."""
        if not self._rows:
            return
        if self._held:
            self._flush()
        file, writer = self._file, self._writer
        if file is None:  # rows are only counted with something held or flushed
            raise RuntimeError("a shard with rows has no file")
        writer.close()
        file.sync()
        name = f"shard-{len(self.done):05d}.arrow"
        size, sha256 = file.tell(), file.sha256.hexdigest()
        file.close()
        (self.folder / f"{name}.tmp").replace(self.folder / name)
        sums = {"sha256": sha256, "crc32": self._crc32}
        self.done.append({"name": name, "rows": self._rows, "bytes": size, **sums})
        self._file = self._writer = None
        self._rows = self._bytes = 0
        self._crc32 = []

    def abandon(self) -> None:
        """Let go of the open shard without finishing it."""
        if self._file is not None:
            self._file.abandoned = True
            self._writer.close()
            self._file.close()
        self._file = self._writer = None


@contextmanager
def reading(path: Path, remedy: str) -> Iterator[None]:
    """Arrow's many ways to refuse a file, in the block, as one: it is damaged.

    Raises:
        DamagedError: it is; the message names it and ends with `remedy`.
        MemoryError: there is too little memory, which is no fault of the file.
    """
    try:
        yield
    except MemoryError:  # Arrow's own is one, and would be caught below
        raise
    # Names and notes in the file's own tables may be no text (UnicodeDecodeError), or others (KeyError).
    except (pa.ArrowException, OSError, UnicodeDecodeError, KeyError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            raise MemoryError(f"{path} cannot be mapped into memory") from error
        raise DamagedError(f"{path} is damaged ({first_line(error)}): {remedy}") from error


class ShardReader:
    """Random access to the blobs of a list of shards, each mapped into memory on first use.

    A record batch is compared with its sum when the first of its blobs is asked for: some 4 MB are then read
    once more than needed, at a hundredth of the time that decoding its pictures takes.

    Args:
        paths: the shard files, in order.
        crc32: of each shard the sums of its record batches; None where an older program kept none.
    """

    def __init__(self, paths: Sequence[Path], crc32: Sequence[Sequence[int] | None] | None = None) -> None:
        self.paths = list(paths)
        self.crc32 = list(crc32) if crc32 is not None else [None] * len(self.paths)
        self._open: dict[int, _Shard] = {}

    def get(self, shard: int, row: int) -> Array:
        """The bytes of one blob as a read-only uint8 view of the memory map.

        Raises:
            DamagedError: the shard is not what was written.
            MemoryError: it cannot be mapped.
        """
        opened = self._open.get(shard) or self._map(shard)
        batch = int(np.searchsorted(opened.start, row, side="right")) - 1
        if not opened.checked[batch]:
            self._check(shard, opened, batch)
        at = opened.offsets[batch]
        i = row - int(opened.start[batch])
        return opened.data[batch][at[i] : at[i + 1]]

    def _check(self, shard: int, opened: _Shard, batch: int) -> None:
        sums = self.crc32[shard]
        if sums is not None and _crc32(opened.offsets[batch], opened.data[batch]) != sums[batch]:
            raise DamagedError(
                f"{self.paths[shard]} is damaged (block {batch} is not what was written): {REMEDY}"
            )
        opened.checked[batch] = True

    def _map(self, shard: int) -> _Shard:
        path, sums = self.paths[shard], self.crc32[shard]
        with reading(path, REMEDY):
            reader = pa.ipc.open_file(mapped(path))
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        if (sums is not None and len(sums) != len(batches)) or any(b.num_columns != 1 for b in batches):
            raise DamagedError(f"{path} is damaged (it has not the blocks that were written): {REMEDY}")
        parts = [_parts(batch) for batch in batches]
        self._open[shard] = _Shard(
            start=np.cumsum([0, *(len(b) for b in batches)]),
            offsets=[offsets for offsets, _ in parts],
            data=[data for _, data in parts],
            checked=[False] * len(parts),
        )
        return self._open[shard]


def mapped(path: Path) -> pa.NativeFile:
    """The file in memory as far as it is touched; where that cannot be, to be read from.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    try:
        return pa.memory_map(os.fsencode(path))
    except OSError as error:
        if not cannot_map(error):
            raise
        return plain(path)


def plain(path: Path) -> pa.NativeFile:
    """The file to be read from, whatever bytes its name has: by text Arrow finds only names in UTF-8."""
    return pa.OSFile(os.fsencode(path))


@dataclass(frozen=True)
class _Shard:
    """A mapped shard: first row of each batch and the total; of each, offsets, bytes, whether compared."""

    start: Array
    offsets: list[Array]
    data: list[Array]
    checked: list[bool]


def _parts(batch: pa.RecordBatch) -> tuple[Array, Array]:
    """A batch's offsets, int64, and its bytes, uint8; views."""
    _, where, blob = batch.column(0).buffers()
    offsets = np.frombuffer(where, np.int64)[: len(batch) + 1]
    data = np.frombuffer(blob, np.uint8) if blob is not None else np.zeros(0, np.uint8)
    # A buffer may be longer than what it holds by the padding that its writer or reader gave it.
    return offsets, data[: int(offsets[-1])] if 0 <= offsets[-1] <= len(data) else data


def _crc32(*parts: Array) -> int:
    value = 0
    for part in parts:
        value = zlib.crc32(np.ascontiguousarray(part).data.cast("B"), value)
    return value
