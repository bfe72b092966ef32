"""The tables of people in a file of SQLite, beside a gallery in a folder."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from tracklearn.store.files import DamagedError
from tracklearn.store.gallery.rows import People, fill, make_tables
from tracklearn.store.gallery.steps import Kept


def in_file(path: Path) -> People:
    """The tables in a file of SQLite, which is made by the first change; readers and one writer do not wait
    for each other (WAL), and what is deleted is overwritten (secure_delete)."""
    own = threading.local()
    every: list[sqlite3.Connection] = []
    guard = threading.Lock()

    def connect(write: bool) -> sqlite3.Connection | None:
        found: sqlite3.Connection | None = getattr(own, "connection", None)
        if found is not None:
            return found
        if not write and not path.is_file():
            return None
        try:
            found = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
                found.execute(f"PRAGMA {pragma}").fetchall()
            if not found.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchall():
                found.execute("BEGIN IMMEDIATE")
                make_tables(lambda text, *values: list(found.execute(text, values).fetchall()))
                found.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise DamagedError(
                f"{path} cannot be read ({error}): put it back from a copy, or remove it; identities are "
                "then made anew, and decisions that are in it alone are lost"
            ) from error
        own.connection = found
        with guard:
            every.append(found)
        return found

    def close() -> None:
        with guard:
            for connection in every:
                connection.close()
            every.clear()
        own.__dict__.clear()

    return People(connect, file=path, close=close)


def as_bytes(kept: Kept) -> bytes:
    """A new file of SQLite that holds this and has never held anything else."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        run = lambda text, *values: list(connection.execute(text, values).fetchall())  # noqa: E731
        make_tables(run)
        run("BEGIN")
        fill(run, kept)
        run("COMMIT")
        made = bytearray(connection.serialize())
        made[18:20] = b"\x02\x02"  # WAL, as the file is opened: so that opening does not write to it
        return bytes(made)
    finally:
        connection.close()
