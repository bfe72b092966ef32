"""Tables of a set: Parquet files written in row groups, from pieces of any length, with sums."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tracklearn.store.sets.shards import HashedFile

ROW_GROUP = 1 << 16  # rows held back before they are written

# A batch of one row takes kilobytes and a while: short pieces are joined before they become one.
_SHORT, _PIECES = 64, 512


class TableWriter:
    """A parquet file written in row groups of about `ROW_GROUP` rows from pieces of any length."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.rows = 0
        self._schema = schema
        self._file = HashedFile(path)
        self._writer: pq.ParquetWriter | None = None
        self._pieces: list[list[Any]] = []  # short ones, not yet a batch
        self._held: list[pa.RecordBatch] = []
        self._held_rows = 0  # those of the pieces too
        self._crc32 = 0

    def add(self, columns: Mapping[str, Any]) -> None:
        """Append rows: a value sequence for every field of the schema, not changed afterwards."""
        values = [columns[f.name] for f in self._schema]
        rows = len(values[0])
        if rows < _SHORT and all(isinstance(v, (np.ndarray, list)) for v in values):
            self._pieces.append(values)
            if len(self._pieces) >= _PIECES:
                self._join()
        else:
            self._join()
            self._hold(values)
        self._held_rows += rows
        self.rows += rows
        if self._held_rows >= ROW_GROUP:
            self._flush()

    def _join(self) -> None:
        """Make one batch of the pieces."""
        if self._pieces:
            columns = list(zip(*self._pieces, strict=True))
            self._pieces = []
            self._hold([_joined(pieces) for pieces in columns])

    def _hold(self, values: Sequence[Any]) -> None:
        arrays = [pa.array(v, f.type) for v, f in zip(values, self._schema, strict=True)]
        batch = pa.record_batch(arrays, schema=self._schema)
        self._crc32 = column_crc32(batch.column(0), self._crc32)
        self._held.append(batch)

    def _flush(self) -> pq.ParquetWriter:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, self._schema, compression="zstd")
        self._join()
        if self._held:
            self._writer.write_table(pa.Table.from_batches(self._held, self._schema).combine_chunks())
        self._held, self._held_rows = [], 0
        return self._writer

    def close(self, metadata: Mapping[str, str] | None = None) -> str:
        """Finish the file, with `metadata` and the sum of its first column in its footer; its sha256.

        Without `metadata` there is neither: the manifest of a set sums the tables that it names.
        """
        writer = self._flush()
        writer.add_key_value_metadata({**metadata, "crc32": str(self._crc32)} if metadata else {})
        writer.close()
        self._file.sync()
        self._file.close()
        return self._file.sha256.hexdigest()

    def abandon(self) -> None:
        """Let go of the file without finishing it."""
        if not self._file.closed:
            self._file.abandoned = True
            if self._writer is not None:
                self._writer.close()
            self._file.close()


def _joined(pieces: Sequence[Any]) -> Any:
    """Value sequences one after the other."""
    if all(isinstance(piece, np.ndarray) for piece in pieces):
        return np.concatenate(pieces)
    return [value for piece in pieces for value in piece]


def column_crc32(column: pa.Array, before: int = 0) -> int:
    """crc32 of a column's numbers, going on from those before; 0 for a column of anything else."""
    if not pa.types.is_primitive(column.type):
        return 0
    return zlib.crc32(memoryview(column.to_numpy(zero_copy_only=False)).cast("B"), before)
