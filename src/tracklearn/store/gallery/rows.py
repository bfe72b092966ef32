"""Who is who in a gallery, and what a person decided: names, and steps that can be taken back.

One set of tables, in a file of SQLite (`people_file.py`) or in the database that holds the gallery.
Nothing here is told by rows: parts are known by set, track and frames, so that all of it outlives a new
index.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from tracklearn.store.files import DamagedError, plain_json
from tracklearn.store.gallery.entries import Entries, PartKey
from tracklearn.store.gallery.steps import Kept, Row, Step, content_of, step_of
from tracklearn.store.identities.journal import Decision
from tracklearn.types import Array, Refusal

TABLES = (
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS identity (set_digest TEXT NOT NULL, track BIGINT NOT NULL, "
    "first_frame BIGINT NOT NULL, last_frame BIGINT NOT NULL, person BIGINT NOT NULL, "
    "probability DOUBLE PRECISION, how TEXT NOT NULL, "
    "PRIMARY KEY (set_digest, track, first_frame, last_frame))",
    "CREATE INDEX IF NOT EXISTS identity_person ON identity (person)",
    "CREATE TABLE IF NOT EXISTS name (person BIGINT PRIMARY KEY, name TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS step (number BIGINT PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, "
    "content TEXT NOT NULL, undone BIGINT NOT NULL)",
)
_IDENTITY = "set_digest, track, first_frame, last_frame, person, probability, how"
_PART = "set_digest = ? AND track = ? AND first_frame = ? AND last_frame = ?"


@dataclass(frozen=True, eq=False)
class Assigned:
    """Who some entries are.

    Args:
        person: (t,) int64, −1 for nobody.
        probability: (t,) float64, that it is this person; nan where nobody can tell.
        how: as a table of identities has it; "" for nobody.
    """

    person: Array
    probability: Array
    how: list[str]


class People:
    """The tables; made by `people_file.in_file` and by a gallery in a database.

    Args:
        connect: a connection for the calling thread; None where there is none yet and none is to be made.
        mark: how the database's own dialect marks a value.
        begin: the statements with which a change begins; no other may change the tables until it has ended.
        file: of SQLite, for `damages`.
    """

    def __init__(
        self,
        connect: Callable[[bool], Any],
        *,
        mark: str = "?",
        begin: Sequence[str] = ("BEGIN IMMEDIATE",),
        file: Path | None = None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self._connect, self._mark, self._begin, self._file = connect, mark, tuple(begin), file
        self.close = close
        self._cache: dict[int, tuple[str, Entries | None, Assigned | None]] = {}
        self._making = Lock()

    def _sql(self, text: str) -> str:
        return text.replace("?", self._mark)

    def _read(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        connection = self._connect(False)
        if connection is None:
            return []
        return list(connection.execute(self._sql(text), values).fetchall())

    @contextmanager
    def _change(self) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
        """One transaction, in which nobody else changes anything."""
        connection = self._connect(True)
        for text in self._begin:
            connection.execute(text)

        def run(text: str, *values: Any) -> list[tuple[Any, ...]]:
            found = connection.execute(self._sql(text), values)
            return list(found.fetchall()) if found.description else []

        try:
            yield run
            version = int(run("SELECT value FROM meta WHERE name = 'version'")[0][0])
            run("UPDATE meta SET value = ? WHERE name = 'version'", str(version + 1))
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    @property
    def version(self) -> str:
        """Changes with every change, whoever makes it."""
        return "".join(value for (value,) in self._read("SELECT value FROM meta WHERE name = 'version'"))

    @property
    def adopted(self) -> str:
        """Which table of identities was adopted last; "" for none."""
        return "".join(value for (value,) in self._read("SELECT value FROM meta WHERE name = 'adopted'"))

    def identities(self) -> list[Row]:
        """Who is who, as the table has it."""
        order = "ORDER BY set_digest, track, first_frame, last_frame"
        found = self._read(f"SELECT {_IDENTITY} FROM identity {order}")
        return [tuple(row) for row in found]

    def assigned(self, entries: Entries) -> Assigned:
        """Who some entries are: by the part of the same frames, else by that which holds the middle frame."""
        asked = self.version
        if (known := self._known(entries, asked)) is not None:
            return known
        with self._making:  # the others wait for the first rather than do the same beside it
            if (known := self._known(entries, asked)) is not None:
                return known
            version = self.version
            made = self._assign(entries)
            self._cache = {id(entries): (version, entries, made)}
            return made

    def _known(self, entries: Entries, asked: str) -> Assigned | None:
        """What was worked out at that version or a later one."""
        version, of, known = self._cache.get(id(entries), ("", None, None))
        return known if of is entries and int(version or 0) >= int(asked or 0) else None

    def _assign(self, entries: Entries) -> Assigned:
        exact: dict[tuple[str, int, int, int], tuple[int, float | None, str]] = {}
        by_track: dict[tuple[str, int], list[tuple[int, int, tuple[int, float | None, str]]]] = {}
        for digest, track, first, last, number, probability, word in self.identities():
            who = (number, probability, word)
            exact[digest, track, first, last] = who
            by_track.setdefault((digest, track), []).append((first, last, who))
        person = np.full(len(entries), -1, np.int64)
        chance = np.full(len(entries), np.nan)
        how = [""] * len(entries)
        for i, key in enumerate(entries.keys() if exact else ()):
            found = exact.get(key)
            if found is None and (own := by_track.get((key.set, key.track))):
                middle = (key.first + key.last) // 2
                holds = [(last - first, w) for first, last, w in own if first <= middle <= last]
                found = min(holds, key=lambda each: each[0])[1] if holds else None
            if found is not None:
                person[i], how[i] = found[0], found[2]
                chance[i] = np.nan if found[1] is None else found[1]
        return Assigned(person, chance, how)

    def names(self) -> dict[int, str]:
        """The names that people were given."""
        return {
            int(person): name for person, name in self._read("SELECT person, name FROM name ORDER BY person")
        }

    def next_number(self) -> int:
        """A number that no person has or had here."""
        highest = [
            self._read("SELECT MAX(person) FROM identity"),
            self._read("SELECT MAX(person) FROM name"),
        ]
        known = [int(found[0][0]) for found in highest if found and found[0][0] is not None]
        for step in self.steps():
            known += [n for move in step.moves for n in (move.old, move.new) if n is not None]
        return max(known, default=0) + 1

    def adopt(self, rows: Sequence[Mapping[str, Any]], *, source: str) -> None:
        """Take over a table of identities; names and steps stay.

        Args:
            rows: of `store.identities.folder.Identities`.
            source: what tells this table from others.
        """
        with self._change() as run:
            run("DELETE FROM identity")
            for row in rows:
                if row["identity"] is not None:
                    key = (row["set_digest"], row["track"], row["first_frame"], row["last_frame"])
                    # Parts of the same frames cannot be told apart here: the first of them stands for all.
                    run(
                        f"INSERT INTO identity ({_IDENTITY}) VALUES (?, ?, ?, ?, ?, ?, ?) "
                        "ON CONFLICT DO NOTHING",
                        *(*key, row["identity"], row["probability"], row["how"]),
                    )
            _put(run, "adopted", source)

    def apply(self, step: Step) -> Step:
        """Take a step: all of it or nothing. It is returned with its number.

        Raises:
            ValueError: a part or a name is not what the step takes it for.
        """
        with self._change() as run:
            run("DELETE FROM step WHERE undone = 1")
            number = int(run("SELECT COALESCE(MAX(number), 0) FROM step")[0][0]) + 1
            before = [_row_of(run, move.part) for move in step.moves]
            for move, row in zip(step.moves, before, strict=True):
                _expect(move.part, None if row is None else row[4], move.old)
            made = replace(step, number=number, undone=False)
            _forwards(run, made)
            content = plain_json({**content_of(made), "before": [list(r) if r else None for r in before]})
            run("INSERT INTO step VALUES (?, ?, ?, ?, 0)", number, made.at, made.kind, content)
        return made

    def undo(self) -> Step | None:
        """Take the last step back; None where there is none."""
        if not self._read("SELECT 1 FROM step WHERE undone = 0 LIMIT 1"):
            return None  # and nothing was written
        with self._change() as run:
            found = run("SELECT * FROM step WHERE undone = 0 ORDER BY number DESC LIMIT 1")
            if not found:
                return None
            step = step_of(found[0])
            before = json.loads(found[0][3])["before"]
            for move, row in zip(step.moves, before, strict=True):
                now = _row_of(run, move.part)
                _expect(move.part, None if now is None else now[4], move.new)
                run(f"DELETE FROM identity WHERE {_PART}", *move.part)
                if row is not None:
                    run(f"INSERT INTO identity ({_IDENTITY}) VALUES (?, ?, ?, ?, ?, ?, ?)", *row)
            for naming in reversed(step.names):
                _name(run, naming.person, naming.new, naming.old)
            run("UPDATE step SET undone = 1 WHERE number = ?", step.number)
        return replace(step, undone=True)

    def redo(self) -> Step | None:
        """Take the step again that was taken back first of those that are left; None where there is none."""
        if not self._read("SELECT 1 FROM step WHERE undone = 1 LIMIT 1"):
            return None
        with self._change() as run:
            found = run("SELECT * FROM step WHERE undone = 1 ORDER BY number LIMIT 1")
            if not found:
                return None
            step = replace(step_of(found[0]), undone=False)
            for move in step.moves:
                row = _row_of(run, move.part)
                _expect(move.part, None if row is None else row[4], move.old)
            _forwards(run, step)
            run("UPDATE step SET undone = 0 WHERE number = ?", step.number)
        return step

    def steps(self, limit: int | None = None) -> list[Step]:
        """The steps, newest first."""
        found = self._read("SELECT * FROM step ORDER BY number DESC")
        return [step_of(row) for row in (found if limit is None else found[:limit])]

    def decisions(self) -> list[Decision]:
        """What the steps that are in force say of parts, in order."""
        return [
            replace(decision, step=step.number)
            for step in reversed(self.steps())
            if not step.undone
            for decision in step.decisions
        ]

    def kept(self) -> Kept:
        """All of it."""
        return Kept(tuple(self.identities()), self.names(), tuple(reversed(self.steps())), self.adopted)

    def put(self, kept: Kept) -> None:
        """Let this be all of it, whatever was there; steps that were kept can be taken back no more."""
        with self._change() as run:
            fill(run, kept)

    def damages(self) -> list[str]:
        """What is wrong with the file, one line each."""
        if self._file is None or not self._file.is_file():
            return []
        try:
            found = [str(line) for (line,) in self._read("PRAGMA integrity_check")]
        except (sqlite3.Error, DamagedError) as error:
            found = [str(error)]
        return [f"{self._file} is damaged ({line})" for line in found if line != "ok"]


def make_tables(run: Callable[..., Any]) -> None:
    """Make the tables where they are not there yet.

    Args:
        run: runs a statement of SQL with its values.
    """
    for text in TABLES:
        run(text)
    run("INSERT INTO meta VALUES ('version', '0') ON CONFLICT DO NOTHING")


def fill(run: Callable[..., Any], kept: Kept) -> None:
    """Let `kept` be all that is in the tables; `run` as in `make_tables`."""
    for table in ("identity", "name", "step"):
        run(f"DELETE FROM {table}")
    for row in kept.identities:
        run(f"INSERT INTO identity ({_IDENTITY}) VALUES (?, ?, ?, ?, ?, ?, ?)", *row)
    for person, name in kept.names.items():
        run("INSERT INTO name VALUES (?, ?)", person, name)
    for step in kept.steps:
        content = plain_json({**content_of(replace(step, moves=(), names=())), "before": []})
        run(
            "INSERT INTO step VALUES (?, ?, ?, ?, ?)",
            step.number,
            step.at,
            step.kind,
            content,
            int(step.undone),
        )
    _put(run, "adopted", kept.adopted)


def _put(run: Callable[..., Any], name: str, value: str) -> None:
    run("DELETE FROM meta WHERE name = ?", name)
    run("INSERT INTO meta VALUES (?, ?)", name, value)


def _row_of(run: Callable[..., Any], part: PartKey) -> Row | None:
    found = run(f"SELECT {_IDENTITY} FROM identity WHERE {_PART}", *part)
    return tuple(found[0]) if found else None


def _expect(part: PartKey, now: int | None, wanted: int | None) -> None:
    if now != wanted:
        is_, was = ("nobody" if who is None else f"person {who}" for who in (now, wanted))
        raise Refusal(
            f"track {part.track}, frames {part.first} to {part.last}, is {is_} by now, not {was}: look at it "
            "again"
        )


def _forwards(run: Callable[..., Any], step: Step) -> None:
    for move in step.moves:
        run(f"DELETE FROM identity WHERE {_PART}", *move.part)
        if move.new is not None:
            row = (*move.part, move.new, None, "reviewed")
            run(f"INSERT INTO identity ({_IDENTITY}) VALUES (?, ?, ?, ?, ?, ?, ?)", *row)
    for naming in step.names:
        _name(run, naming.person, naming.old, naming.new)


def _name(run: Callable[..., Any], person: int, old: str, new: str) -> None:
    found = run("SELECT name FROM name WHERE person = ?", person)
    now = found[0][0] if found else ""
    if now != old:
        raise Refusal(f"person {person} is called {now!r} by now, not {old!r}: look at it again")
    run("DELETE FROM name WHERE person = ?", person)
    if new:
        run("INSERT INTO name VALUES (?, ?)", person, new)
