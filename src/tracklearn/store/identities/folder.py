"""A table of identities on disk.

DIR/manifest.json        run, sets, limits, calibration, what changed; sums of the files
DIR/identities.parquet   a row for each part: who it is, how probable, where and when
DIR/identities.csv       the same, without digests, for people
DIR/calibration.json     what distances mean, of this run on these sets
DIR/decisions.jsonl      what a person said of these tracks, as a journal holds it; none where nobody did
DIR/mot/*.txt            corrected tracks of each film, in MOTChallenge's form, people numbered over all
DIR/people/*.jpg         a picture of each identity
DIR/timeline.svg         who was where when
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tracklearn.store.files import (
    DamagedError,
    beside,
    hash_file,
    make_folder,
    move,
    put_folder,
    remove_folder,
    sync_file,
    write_atomic,
)
from tracklearn.store.identities.journal import Word, read_word
from tracklearn.store.intents import settle
from tracklearn.store.sealed import MANIFEST, damage, read_sealed, write_sealed
from tracklearn.store.sets.shards import plain, reading
from tracklearn.types import Refusal

KIND, SCHEMA = "identities", 1
TABLE, CSV = "identities.parquet", "identities.csv"
DECISIONS = "decisions.jsonl"
CALIBRATION = "calibration.json"  # of a run too
REMEDY = "make it again (tracklearn identities RUN SET --out DIR --resume)"

COLUMNS: dict[str, pa.DataType] = {
    "identity": pa.int64(),  # null: nobody
    "probability": pa.float64(),  # null: nothing to compare with
    "how": pa.string(),
    "set": pa.string(),
    "set_digest": pa.string(),
    "camera": pa.string(),
    "track": pa.int64(),
    "part": pa.int64(),
    "n_parts": pa.int64(),
    "first_frame": pa.int64(),
    "last_frame": pa.int64(),
    "start": pa.float64(),
    "end": pa.float64(),
    "at": pa.string(),
    "n_crops": pa.int64(),
    "crop": pa.int64(),
}


class Identities:
    """A folder of identities, read.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no identities, damaged ones, or those of a newer version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        settle(self.path)
        if not self.path.is_dir():
            raise FileNotFoundError(f"no such folder of identities: {self.path}")
        if not (self.path / MANIFEST).is_file():
            raise Refusal(f"{self.path} holds no identities: it has no manifest.json")
        self.manifest = read_sealed(self.path / MANIFEST, remedy=REMEDY)
        if self.manifest.get("kind") != KIND:
            kind = self.manifest.get("kind", "folder of another kind")
            raise Refusal(f"{self.path} holds no identities but a {kind}")
        self.manifest.require(schema=int, run=str, sets=list, files=dict)
        if self.manifest["schema"] > SCHEMA:
            raise Refusal(f"{self.path} was written by a newer tracklearn: update to read it")

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of the table, as `COLUMNS` names them.

        Raises:
            DamagedError: the table is not what was written.
        """
        if why := damage(self.path, TABLE, self.manifest):
            raise DamagedError(f"{self.path / TABLE} is damaged ({why}): {REMEDY}")
        with reading(self.path / TABLE, REMEDY):
            return pq.read_table(plain(self.path / TABLE)).to_pylist()

    @property
    def word(self) -> Word:
        """What a person said that this table follows.

        Raises:
            DamagedError: the file is not what was written.
        """
        if DECISIONS not in self.manifest["files"]:
            return Word()
        if why := damage(self.path, DECISIONS, self.manifest):
            raise DamagedError(f"{self.path / DECISIONS} is damaged ({why}): {REMEDY}")
        return read_word(self.path / DECISIONS)

    def damages(self) -> list[str]:
        """What is wrong with its files, one line each; reads all of them."""
        found = [(name, damage(self.path, name, self.manifest)) for name in self.manifest["files"]]
        return [f"{self.path / name} is damaged ({why})" for name, why in found if why]


class IdentityWriter:
    """A new folder of identities, at its place whole or not at all.

    Used as a context manager: files are written below `folder`; when the block ends well, they are summed,
    synced, and take the place of what was at `path`.

    Args:
        path: the folder.
        replace: whether one that is there may be replaced.

    Raises:
        FileExistsError: `path` exists and may not be replaced, or holds something else.
    """

    def __init__(self, path: Path, *, replace: bool) -> None:
        self.path, self.folder = path, beside(path, after=".partial")
        self.manifest: dict[str, Any] = {}
        self._old = beside(path, after=".before")
        if not path.exists() and (self._old / MANIFEST).is_file():
            move(self._old, path)  # of a call that was killed between the two
        if path.exists():
            if not replace:
                raise FileExistsError(f"{path} exists: replace it with --resume, or choose another --out")
            try:
                Identities(path)
            except DamagedError:
                pass  # of ours, and to be made again
            except Refusal as error:
                raise FileExistsError(f"{error}: choose another --out") from error

    def __enter__(self) -> IdentityWriter:
        remove_folder(self.folder)
        make_folder(self.folder)
        return self

    def write_table(self, rows: list[dict[str, Any]]) -> None:
        """The table, as Parquet and as CSV."""
        from pyarrow import csv

        table = pa.Table.from_pylist(rows, schema=pa.schema(list(COLUMNS.items())))
        for name, write, content in (
            (TABLE, pq.write_table, table),
            (CSV, csv.write_csv, table.drop_columns(["set_digest", "crop"])),
        ):
            buffer = io.BytesIO()
            write(content, buffer)
            write_atomic(self.folder / name, buffer.getvalue())

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            remove_folder(self.folder)
            return
        files = sorted(p for p in self.folder.rglob("*") if p.is_file())
        for file in files:
            sync_file(file)
        sums = {file.relative_to(self.folder).as_posix(): hash_file(file) for file in files}
        write_sealed(self.folder / MANIFEST, {"kind": KIND, "schema": SCHEMA, **self.manifest, "files": sums})
        remove_folder(self._old)
        if self.path.exists():
            move(self.path, self._old)
        put_folder(self.folder, self.path)
        remove_folder(self._old)


def counts(rows: list[dict[str, Any]]) -> Mapping[str, int]:
    """People and parts of a table."""
    known = [row["identity"] for row in rows if row["identity"] is not None]
    return {"people": len(set(known)), "parts": len(rows), "nobody": len(rows) - len(known)}
