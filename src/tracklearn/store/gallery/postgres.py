"""The gallery in a database: PostgreSQL with pgvector, searched by an HNSW graph.

    postgresql://user@host/database#name     `name` is the schema that holds the gallery, "tracklearn" if left
    out

The graph is a guess at the nearest, a good one: `recall` says how good on the gallery's own entries. What is
asked with a filter that leaves few is measured against all that the filter leaves. A password comes from
PGPASSWORD or ~/.pgpass, or stands in the URL, which is then kept without it.

Source: the graph is Malkov and Yashunin, TPAMI 2020, as pgvector has it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from tracklearn.store.files import plain_json
from tracklearn.store.gallery import incoming
from tracklearn.store.gallery.database import (
    COLUMN,
    SCHEMA,
    TYPES,
    alone,
    build_graph,
    changing,
    connect,
    insert,
    split_url,
    vectors_of,
    version_of,
    without_password,
)
from tracklearn.store.gallery.entries import (
    NUMBERS,
    Content,
    Entries,
    Filter,
    GallerySet,
    joined_cameras,
    unit,
)
from tracklearn.store.gallery.rows import TABLES, People
from tracklearn.store.gallery.steps import from_plain
from tracklearn.types import Array, Matches, Refusal

SOUGHT = 200  # candidates of a search at least [chosen: recall 0.99 and more on 100,000 entries]
_MOST_SOUGHT = 1000  # pgvector's own limit


class PostgresGallery:
    """An opened gallery in a database; a connection for each thread.

    Raises:
        FileNotFoundError: there is none of that name.
        ValueError: the database cannot be reached, or lacks pgvector; another version wrote the gallery.
    """

    def __init__(self, url: str) -> None:
        self._url, self.schema = split_url(url)
        self._own = threading.local()
        self._every: list[Any] = []
        self._guard = threading.Lock()
        self._entries: tuple[str, Entries] | None = None
        self._load()

    def _load(self) -> None:
        known = self._read("SELECT to_regclass(%s)", f"{self.schema}.entry")
        if known[0][0] is None:
            raise FileNotFoundError(
                f"{self.where} holds no gallery: make one with `tracklearn index --gallery`"
            )
        meta = dict(self._read("SELECT name, value FROM meta"))
        if meta.get("schema") != SCHEMA:
            raise Refusal(
                f"{self.where} has schema {meta.get('schema')!r}, expected {SCHEMA!r}: index the run again"
            )
        self._width, self.origin = int(meta["width"]), json.loads(meta["origin"])
        self.half = meta["index"] == "half"
        self.indexed = meta["index"] != "none"
        found = self._read(
            "SELECT s.number, s.digest, s.path, s.cameras, "
            "(SELECT count(*) FROM entry e WHERE e.set_number = s.number) "
            "FROM gallery_set s ORDER BY s.number"
        )
        self._numbers = [int(row[0]) for row in found]
        self.sets = tuple(
            GallerySet(digest, path, tuple(json.loads(cameras)), int(n))
            for _, digest, path, cameras, n in found
        )
        self.cameras = joined_cameras([each.cameras for each in self.sets])
        self._version = self._changed()

    def _changed(self) -> str:
        return "".join(v for (v,) in self._read("SELECT value FROM meta WHERE name = 'changed'"))

    def __enter__(self) -> PostgresGallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        with self._guard:
            for connection in self._every:
                connection.close()
            self._every.clear()
        self._own = threading.local()

    @property
    def where(self) -> str:
        """The URL without its password."""
        return without_password(f"{self._url}#{self.schema}")

    @property
    def stale(self) -> bool:
        """Whether entries came or went since it was opened."""
        return self._changed() != self._version

    @property
    def width(self) -> int:
        """Length of a feature, d."""
        return self._width

    @property
    def manifest(self) -> dict[str, Any]:
        """What is said of its origin, under "origin"."""
        return {"origin": self.origin, "width": self.width, "cameras": list(self.cameras)}

    def __len__(self) -> int:
        return int(self._read("SELECT count(*) FROM entry")[0][0])

    @cached_property
    def people(self) -> People:
        """Who is who here, and what a person decided."""
        begin = ("BEGIN", "LOCK TABLE meta IN EXCLUSIVE MODE")
        return People(lambda write: self._connection(), mark="%s", begin=begin)

    def _connection(self) -> Any:
        found = getattr(self._own, "connection", None)
        if found is None or found.closed:
            found = connect(self._url, self.schema)
            self._own.connection = found
            with self._guard:
                self._every.append(found)
        return found

    def _read(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        return list(self._connection().execute(text, values).fetchall())

    @property
    def entries(self) -> Entries:
        """All entries, by their rows; read once for as long as nothing changes."""
        version = self._changed()
        if self._entries is None or self._entries[0] != version:
            self._entries = (version, self._described("ORDER BY id"))
        return self._entries[1]

    def take(self, rows: Array) -> Entries:
        """The entries of some rows, in that order."""
        rows = np.asarray(rows, np.int64)
        found = self._described("WHERE id = ANY(%s) ORDER BY id", rows.tolist())
        at = np.searchsorted(found.row, rows)
        if (len(rows) and (at >= len(found)).any()) or not np.array_equal(found.row[at], rows):
            raise Refusal(f"{self.where} has changed since it was opened: open it again")
        return found.take(at)

    def persons(self, rows: Array) -> Array:
        """(n,) int64, who some rows are; −1 for nobody."""
        known = self.entries
        return self.people.assigned(known).person[np.searchsorted(known.row, np.asarray(rows, np.int64))]

    def rows_of(self, track: int, set: int = 0) -> Array:
        """(n,) int64 rows of a track's parts, in their order; empty where it has none."""
        found = self._read(
            "SELECT id FROM entry WHERE source = %s AND set_number = %s ORDER BY part",
            track,
            self._numbers[set],
        )
        return np.array([row for (row,) in found], np.int64)

    def _described(self, condition: str, *values: Any) -> Entries:
        names = [COLUMN.get(name, name) for name in NUMBERS]
        found = self._read(
            f"SELECT id, set_number, camera, {', '.join(names)} FROM entry {condition}", *values
        )
        columns = list(zip(*found, strict=True)) or [()] * (3 + len(names))
        place = {number: i for i, number in enumerate(self._numbers)}
        arrays = {
            name: np.array(values, dtype)
            for (name, dtype), values in zip(NUMBERS.items(), columns[3:], strict=True)
        }
        camid = {name: number for number, name in reversed(list(enumerate(self.cameras)))}
        arrays["camid"] = np.array([camid[name] for name in columns[2]], np.int64)
        return Entries(
            row=np.array(columns[0], np.int64),
            set=np.array([place[number] for number in columns[1]], np.int64),
            camera=tuple(columns[2]),
            digests=tuple(each.digest for each in self.sets),
            **arrays,
        )

    def feature(self, row: int) -> Array:
        """(d,) float32: one row's feature.

        Raises:
            ValueError: there is no such row.
        """
        found = self._read("SELECT feature::real[] FROM entry WHERE id = %s", int(row))
        if not found:
            raise Refusal(f"{self.where} has no row {row}")
        return np.asarray(found[0][0], np.float32)

    def damages(self) -> list[str]:
        """Nothing that can be told: the server watches over its own files."""
        return []

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
        exact: bool = False,
    ) -> Matches:
        """The k nearest rows of each query; arguments, results and refusals as `folder.FolderGallery.search`.

        Args:
            exact: measure all rows that the filter leaves, not those alone that the graph leads to.
        """
        query = unit("query", np.atleast_2d(np.asarray(query, np.float32)), self.width)
        if k < 1:
            raise Refusal(f"k is {k}, expected 1 or more")
        asked = Filter.checked(
            self.cameras,
            len(self.sets),
            camera=camera,
            since=since,
            until=until,
            identity=identity,
            min_quality=min_quality,
            sets=sets,
        )
        left_out = np.empty((len(query), 0), np.int64) if exclude is None else np.asarray(exclude, np.int64)
        left_out = left_out[:, None] if left_out.ndim == 1 else left_out
        if left_out.ndim != 2 or len(left_out) != len(query):
            raise Refusal(
                f"exclude has shape {left_out.shape}, expected ({len(query)},) or ({len(query)}, e): one "
                "row per query"
            )
        index = np.full((len(query), k), -1, np.int64)
        distance = np.full((len(query), k), np.inf)
        total = len(self)
        for i, one in enumerate(query):
            found = self._nearest(one, k, left_out[i], asked, total, one_a_track=one_a_track, exact=exact)
            for rank, (row, far) in enumerate(found):
                index[i, rank], distance[i, rank] = row, far
        return Matches(index, distance.astype(np.float32))

    def _nearest(
        self,
        query: Array,
        k: int,
        exclude: Array,
        asked: Filter,
        total: int,
        *,
        one_a_track: bool,
        exact: bool,
    ) -> list[tuple[int, float]]:
        condition, values = self._condition(asked, exclude)
        wanted = k if not one_a_track else 4 * k
        exact = exact or not self.indexed
        while True:
            exact = exact or wanted > _MOST_SOUGHT or wanted >= total
            rows = self._ordered(query, wanted, condition, values, exact)
            if len(rows) < wanted and not exact:
                exact = True  # the graph gives no more: what a filter leaves is looked at whole
                continue
            found, seen = [], set()
            for row, number, source, far in sorted(rows, key=lambda each: (each[3], each[0])):
                if one_a_track and (number, source) in seen:
                    continue
                seen.add((number, source))
                found.append((int(row), float(far)))
            if len(found) >= k or len(rows) < wanted:
                return found[:k]
            wanted *= 4

    def _ordered(
        self, query: Array, wanted: int, condition: str, values: Sequence[Any], exact: bool
    ) -> list[tuple[Any, ...]]:
        """Rows nearest first: id, set, track, distance."""
        of = self._vectors
        far = f"OPERATOR({of}.<->)"
        columns = f"id, set_number, source, feature {far} %s AS distance"
        connection = self._connection()
        with connection.transaction():
            if exact:
                connection.execute("SET LOCAL enable_indexscan = off")
                text = f"SELECT {columns} FROM entry {condition} ORDER BY distance, id LIMIT %s"
                return list(connection.execute(text, [query, *values, wanted]).fetchall())
            sought = max(SOUGHT, min(2 * wanted, _MOST_SOUGHT))
            connection.execute(f"SET LOCAL hnsw.ef_search = {sought}")
            if self._iterates:
                connection.execute("SET LOCAL hnsw.iterative_scan = strict_order")
            if not self.half:
                text = f"SELECT {columns} FROM entry {condition} ORDER BY feature {far} %s LIMIT %s"
                return list(connection.execute(text, [query, *values, query, wanted]).fetchall())
            # The graph knows the vectors to 16 bits: twice as many come from it, and are measured.
            d = self.width
            inner = (
                f"SELECT id, set_number, source, feature FROM entry {condition} "
                f"ORDER BY feature::{of}.halfvec({d}) {far} %s::{of}.halfvec({d}) LIMIT %s"
            )
            text = f"SELECT {columns} FROM ({inner}) near ORDER BY distance, id LIMIT %s"
            arguments = [query, *values, query, min(2 * wanted, _MOST_SOUGHT), wanted]
            return list(connection.execute(text, arguments).fetchall())

    @cached_property
    def _vectors(self) -> str:
        return vectors_of(self._connection())

    @cached_property
    def _iterates(self) -> bool:
        """Whether pgvector goes on searching until a filter has left enough (from 0.8)."""
        text = str(self._read("SELECT extversion FROM pg_extension WHERE extname = 'vector'")[0][0])
        return version_of(text) >= (0, 8)

    def _condition(self, asked: Filter, exclude: Array) -> tuple[str, list[Any]]:
        tests: list[str] = []
        values: list[Any] = []

        def test(text: str, value: Any) -> None:
            tests.append(text)
            values.append(value)

        gone = [row for row in exclude.tolist() if row >= 0]
        if gone:
            test("id <> ALL(%s)", gone)
        if asked.camid is not None:
            test("camera = %s", self.cameras[asked.camid])
        if asked.since is not None:
            test("end_time >= %s", asked.since)
        if asked.until is not None:
            test("start_time <= %s", asked.until)
        if asked.min_quality is not None:
            test("quality >= %s AND quality <> 'nan'", asked.min_quality)
        if asked.sets is not None:
            test("set_number = ANY(%s)", [self._numbers[number] for number in asked.sets])
        if asked.identity is not None:
            rows = self.entries.row
            test("id = ANY(%s)", rows[self.persons(rows) == asked.identity].tolist())
        return (f"WHERE {' AND '.join(tests)}" if tests else ""), values

    def recall(self, *, k: int = 10, queries: int = 200) -> float:
        """The share of the k nearest that the graph finds, of entries spread over the gallery, without
        themselves.

        Args:
            k: how many nearest. queries: how many entries are asked for, at most.
        """
        rows = self.entries.row
        chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(queries, len(rows))).round().astype(int))]
        hit = every = 0
        for row in chosen.tolist():
            feature = self.feature(row)[None]
            own = np.array([row])
            want = self.search(feature, k, exclude=own, exact=True).index[0]
            found = self.search(feature, k, exclude=own).index[0]
            every += int((want >= 0).sum())
            hit += len(set(want[want >= 0].tolist()) & set(found.tolist()))
        return hit / every if every else 1.0

    def add(self, contents: Sequence[Content]) -> None:
        """Take in sets, each in the place of one of the same digest, or behind the others; all or none.

        Raises:
            ValueError: as `check_content`; features of another width.
        """
        contents = [content.checked() for content in contents]
        for content in contents:
            if content.width != self.width:
                raise Refusal(
                    f"the features have {content.width} numbers, those of {self.where} "
                    f"{self.width}: another network made them"
                )
        with changing(self._connection()) as connection:
            insert(connection, contents)
        self._load()

    def delete(self, rows: Array) -> int:
        """Take rows out; `compact` takes them from the disk. How many it were."""
        with changing(self._connection()) as connection:
            found = connection.execute("DELETE FROM entry WHERE id = ANY(%s)", [np.asarray(rows).tolist()])
            connection.execute(
                "DELETE FROM gallery_set s WHERE NOT EXISTS "
                "(SELECT 1 FROM entry e WHERE e.set_number = s.number)"
            )
        self._load()
        return int(found.rowcount)

    def compact(self) -> str:
        """Have the server write the tables anew, without what was deleted; what was done, in words."""
        for table in ("entry", "identity", "name", "step", "incoming"):
            if self._read("SELECT to_regclass(%s)", f"{self.schema}.{table}")[0][0] is not None:
                self._connection().execute(f'VACUUM (FULL) "{self.schema}".{table}')
        return "VACUUM FULL done; the server's log and its backups may still hold what was deleted"


def create(
    url: str, contents: Sequence[Content], *, origin: Mapping[str, Any], replace: bool = False
) -> PostgresGallery:
    """A gallery of some sets in a database; complete or as it was.

    Args:
        url: of the database, the schema behind "#".
        contents: what is indexed of each set.
        origin: JSON values about what made it.
        replace: put it in the place of an existing one, whose people and decisions stay; else that is
            refused.

    Raises:
        FileExistsError: there is one and `replace` is off.
        ValueError: the database cannot be reached, lacks pgvector, or refuses; features that do not fit.
    """
    contents = [content.checked() for content in contents]
    if len({content.width for content in contents}) != 1:
        raise Refusal("a gallery holds features of one width, of one set at least")
    width = contents[0].width
    database, schema = split_url(url)
    with connect(database, schema, make=True) as connection:
        # One transaction: the gallery that is there stays should any of it fail; searches wait meanwhile.
        with alone(connection, f"create {schema}"):
            known = connection.execute("SELECT to_regclass(%s)", [f"{schema}.entry"]).fetchone()[0]
            if known is not None and not replace:
                raise FileExistsError(
                    f"{without_password(url)} holds a gallery already: replace it with --resume"
                )
            for text in (
                *TABLES,
                "INSERT INTO meta VALUES ('version', '0'), ('changed', '0') ON CONFLICT DO NOTHING",
            ):
                connection.execute(text)
            columns = ", ".join(
                f"{COLUMN.get(n, n)} {TYPES[np.dtype(t)]} NOT NULL" for n, t in NUMBERS.items()
            )
            with changing(connection):
                for text in (
                    f'DROP TABLE IF EXISTS "{schema}".entry',
                    f'DROP TABLE IF EXISTS "{schema}".gallery_set',
                    "CREATE TABLE gallery_set (number BIGINT PRIMARY KEY, digest TEXT NOT NULL, path TEXT "
                    "NOT NULL, cameras TEXT NOT NULL)",
                    "CREATE TABLE entry (id BIGINT PRIMARY KEY, set_number BIGINT NOT NULL, camera TEXT NOT "
                    f"NULL, {columns}, feature {vectors_of(connection)}.vector({width}) NOT NULL)",
                ):
                    connection.execute(text)
                insert(connection, contents)
                kind = build_graph(connection, width)
                for name, value in (
                    ("schema", SCHEMA),
                    ("width", str(width)),
                    ("origin", plain_json(dict(origin))),
                    ("index", kind),
                ):
                    connection.execute(
                        "INSERT INTO meta VALUES (%s, %s) ON CONFLICT (name) DO UPDATE "
                        "SET value = excluded.value",
                        [name, value],
                    )
        connection.execute("ANALYZE entry")
    return PostgresGallery(url)


def change(url: str, what: Mapping[str, Any]) -> None:
    """Make a gallery forget, and what is on its way there; what is done already is done again without harm.

    Args:
        url: of the gallery.
        what: `delete`, ids; `crop`, pairs of an id and its new crop; `sets`, old digest -> new one; `people`,
            plain values of `rows.Kept`. Nothing at all: the gallery, if there is one, stays as it is.
    """
    incoming.forget(url)
    if not what:
        return
    gallery = PostgresGallery(url)
    try:
        with changing(gallery._connection()) as connection:
            connection.execute("DELETE FROM entry WHERE id = ANY(%s)", [list(what["delete"])])
            ids, crops = [pair[0] for pair in what["crop"]], [pair[1] for pair in what["crop"]]
            connection.execute(
                "UPDATE entry SET crop = new.crop FROM unnest(%s::bigint[], %s::bigint[]) AS new (id, crop) "
                "WHERE entry.id = new.id",
                [ids, crops],
            )
            for old, new in what["sets"].items():
                connection.execute("UPDATE gallery_set SET digest = %s WHERE digest = %s", [new, old])
        gallery.people.put(from_plain(what["people"]))
        gallery.compact()
    finally:
        gallery.close()
