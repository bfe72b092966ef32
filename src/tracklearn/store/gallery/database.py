"""A database that holds galleries: its address, its tables, and what goes into them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import numpy as np

from tracklearn.runtimes import load
from tracklearn.store.files import first_line, plain_json
from tracklearn.store.gallery.entries import (
    NUMBERS,
    Content,
    Sent,
    described,
)
from tracklearn.types import Refusal

SCHEMA = "tracklearn.gallery/3"
_ELEMENT = 1200  # bytes of a node in memory beside its vector, roughly
_MOST_MEMORY = 2 << 30  # asked for at most: who has a larger gallery sets the server's own
LINKS, BUILT = 16, 100  # of each node in the graph; candidates while it is built [pgvector's, then chosen]
_INDEXED_WIDTH, _HALF_WIDTH = 2000, 4000  # of vectors that pgvector indexes as float32, as float16
TYPES = {
    np.dtype(np.int64): "BIGINT",
    np.dtype(np.float64): "DOUBLE PRECISION",
    np.dtype(np.float32): "REAL",
}
COLUMN = {"start": "start_time", "end": "end_time"}  # words of SQL
_OWN = {  # columns that tell a table of this program from others of that name
    "entry": ("set_number", "feature"),
    "gallery_set": ("digest", "cameras"),
    "meta": ("name", "value"),
    "identity": ("set_digest", "track", "person"),
    "name": ("person", "name"),
    "step": ("kind", "content", "undone"),
    "incoming": ("name", "part", "feature"),
    "awaited": ("name",),
}
_PROCESS = uuid4().hex  # tells this process's connections from those of other machines
_HOLDER = (  # who holds a lock of a number
    "SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.granted AND "
    "l.locktype = 'advisory' AND l.objsubid = 1 AND (l.classid::bigint << 32) | l.objid::bigint = %s AND "
    "l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_BINARY = {"BIGINT": "int8", "DOUBLE PRECISION": "float8", "REAL": "float4"}


def split_url(url: str) -> tuple[str, str]:
    """The URL of the database, and the schema that is named behind "#".

    Raises:
        ValueError: no name for a schema.
    """
    parts = urlsplit(url)
    schema = parts.fragment or "tracklearn"
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,47}", schema):
        raise Refusal(
            f"{schema!r} behind # is no name for a gallery: expected lower-case letters, digits and _, "
            "48 at most"
        )
    return urlunsplit(parts._replace(fragment="")), schema


def without_password(url: str) -> str:
    """The URL as it may be shown and kept.

    >>> without_password("postgresql://me:secret@host/db#hall")
    'postgresql://me@host/db#hall'
    """
    parts = urlsplit(url)
    before, at, host = parts.netloc.rpartition("@")
    query = "&".join(p for p in parts.query.split("&") if not p.startswith("password="))
    return urlunsplit(parts._replace(netloc=f"{before.partition(':')[0]}{at}{host}", query=query))


def connect(url: str, schema: str, *, make: bool = False) -> Any:
    """A connection that sees the gallery's schema alone, made where `make`; pgvector is there.

    No name of a table means one of another schema, whatever this one lacks: what is pgvector's is named by
    `vectors_of`.

    Raises:
        ValueError: the database cannot be reached, or lacks pgvector; tables of others lie in that schema.
    """
    psycopg = load("psycopg")
    vectors = load("pgvector.psycopg")
    shown = without_password(url)
    connection = _reached(url)
    try:
        if make:
            with alone(connection, "make"):
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
                connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        if not connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone():
            raise Refusal(f"{shown} has no pgvector: CREATE EXTENSION vector, or index into it first")
        connection.execute(f"SET search_path TO {vectors_of(connection)}")
        vectors.register_vector(connection)
        connection.execute(f'SET search_path TO "{schema}"')
        _refuse_of_others(connection, schema)
    except psycopg.Error as error:
        connection.close()
        raise Refusal(f"{shown} refuses ({first_line(error)}): it needs PostgreSQL with pgvector") from error
    except BaseException:
        connection.close()
        raise
    return connection


def _reached(url: str) -> Any:
    psycopg = load("psycopg")
    try:
        return psycopg.connect(url, autocommit=True, connect_timeout=20)
    except psycopg.Error as error:
        raise Refusal(
            f"{without_password(url)} cannot be reached ({first_line(error)}): look at the address and the "
            "server; a password comes from PGPASSWORD or ~/.pgpass"
        ) from error


def _refuse_of_others(connection: Any, schema: str) -> None:
    """Refuse a schema in which tables of other programs have the names of ours: they would be dropped."""
    found = connection.execute(
        "SELECT c.relname, array_agg(a.attname::text) FROM pg_class c JOIN pg_attribute a ON a.attrelid = "
        "c.oid WHERE c.relnamespace = to_regnamespace(%s) AND c.relname = ANY(%s) GROUP BY c.relname",
        [schema, list(_OWN)],
    ).fetchall()
    others = sorted(name for name, columns in found if not {*_OWN[name]} <= {*columns})
    if others:
        raise Refusal(
            f"the schema {schema} holds tables of another program ({', '.join(others)}): name another one "
            "for the gallery behind #"
        )


def vectors_of(connection: Any) -> str:
    """The schema that holds pgvector's types and operators, as SQL takes it."""
    text = "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'vector'"
    return str(connection.execute(text).fetchone()[0])


def _key(what: str) -> int:
    """A number for the server's locks, which have no names."""
    return int.from_bytes(sha256(f"tracklearn {what}".encode()).digest()[:8], signed=True)


@contextmanager
def alone(connection: Any, what: str) -> Iterator[None]:
    """One transaction, before which others of that name end."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_key(what)])
        yield


@contextmanager
def reserved(url: str) -> Iterator[None]:
    """Keep other indexings and forgettings of a gallery off for a while; it need not be there yet.

    A process may reserve what it has reserved, under another address of the same database too.

    Raises:
        ValueError: there is one under way; the database cannot be reached.
    """
    database, schema = split_url(url)
    psycopg = load("psycopg")
    connection = _reached(database)
    key, own = _key(f"reserve {schema}"), f"tracklearn {os.getpid()} {_PROCESS}"
    try:
        connection.execute("SELECT set_config('application_name', %s, false)", [own])
        free = connection.execute("SELECT pg_try_advisory_lock(%s)", [key]).fetchone()[0]
        if not free and connection.execute(_HOLDER, [key]).fetchall() != [(own,)]:
            raise Refusal(
                f"another process indexes into {without_password(url)}, or forgets there: wait until it ends"
            )
        yield
    finally:
        with suppress(psycopg.Error):  # a server sees only in a while that somebody went
            connection.execute("SELECT pg_advisory_unlock_all()")
        connection.close()


@contextmanager
def changing(connection: Any) -> Iterator[Any]:
    """One transaction that changes entries, noted so that others see it."""
    with connection.transaction():
        connection.execute("LOCK TABLE meta IN EXCLUSIVE MODE")
        yield connection
        connection.execute("UPDATE meta SET value = (value::bigint + 1)::text WHERE name = 'changed'")


def insert(connection: Any, contents: Sequence[Content]) -> None:
    names = [COLUMN.get(name, name) for name in NUMBERS]
    kinds = [_BINARY[TYPES[np.dtype(dtype)]] for dtype in NUMBERS.values()]
    for content in contents:
        known = connection.execute(
            "SELECT number FROM gallery_set WHERE digest = %s", [content.digest]
        ).fetchone()
        if known is None:
            text = "SELECT COALESCE(MAX(number), -1) + 1 FROM gallery_set"
            number = connection.execute(text).fetchone()[0]
        else:
            number = known[0]
            connection.execute("DELETE FROM entry WHERE set_number = %s", [number])
            connection.execute("DELETE FROM gallery_set WHERE number = %s", [number])
        cameras = plain_json(list(content.cameras))
        connection.execute(
            "INSERT INTO gallery_set VALUES (%s, %s, %s, %s)", [number, content.digest, content.path, cameras]
        )
        first = connection.execute("SELECT COALESCE(MAX(id), -1) + 1 FROM entry").fetchone()[0]
        column = described(content.tracklets)
        camid = content.tracklets.camid.tolist()
        rows = (
            (first + i, number, content.cameras[camid[i]], *row)
            for i, row in enumerate(zip(*(column[name].tolist() for name in NUMBERS), strict=True))
        )
        columns, types = ["id", "set_number", "camera", *names], ["int8", "int8", "text", *kinds]
        if isinstance(content.features, Sent):
            _take_in(connection, columns, types, rows, content.features.name, len(content.tracklets))
        else:
            features = iter(content.features)
            copied(
                connection,
                "entry",
                [*columns, "feature"],
                [*types, "vector"],
                ((*row, next(features)) for row in rows),
            )
    clear(connection)


def clear(connection: Any) -> None:
    """Remove all features that are on their way, of whatever; who sends more of them is refused."""
    # In this order: who sends holds a row of the first, and is waited for.
    for text in ("DELETE FROM awaited", "TRUNCATE incoming"):
        if connection.execute("SELECT to_regclass(%s)", [text.split()[-1]]).fetchone()[0] is not None:
            connection.execute(text)


def copied(
    connection: Any, table: str, columns: Sequence[str], types: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Rows into a table, by COPY."""
    text = f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT BINARY)"
    with connection.cursor() as cursor, cursor.copy(text) as copy:
        copy.set_types(list(types))
        for row in rows:
            copy.write_row(row)


def _take_in(
    connection: Any,
    columns: Sequence[str],
    types: Sequence[str],
    rows: Iterable[Sequence[Any]],
    name: str,
    n: int,
) -> None:
    """Entries whose features workers have sent, from `incoming`.

    Raises:
        ValueError: not all are there.
    """
    connection.execute("DROP TABLE IF EXISTS pg_temp.coming")
    connection.execute("CREATE TEMP TABLE coming (LIKE entry) ON COMMIT DROP")
    connection.execute("ALTER TABLE coming DROP COLUMN feature")
    copied(connection, "coming", columns, types, rows)
    listed = ", ".join(columns)
    taken = connection.execute(
        f"INSERT INTO entry ({listed}, feature) SELECT {', '.join('c.' + one for one in columns)}, i.feature "
        "FROM coming c JOIN incoming i ON i.name = %s AND i.part = c.tracklet",
        [name],
    ).rowcount
    if taken != n:
        raise Refusal(f"{n - taken} of {n} features that workers sent are not in the database: index again")


def build_graph(connection: Any, width: int) -> str:
    """Build the graph; "whole", "half" or "none", where vectors are too wide for this pgvector."""
    text = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()[0]
    of = vectors_of(connection)
    options = f"WITH (m = {LINKS}, ef_construction = {BUILT})"
    if width <= _INDEXED_WIDTH:
        what, kind = f"(feature {of}.vector_l2_ops)", "whole"
    elif width <= _HALF_WIDTH and version_of(text) >= (0, 7):
        what, kind = f"((feature::{of}.halfvec({width})) {of}.halfvec_l2_ops)", "half"
    else:
        return "none"
    graph = f"CREATE INDEX entry_near ON entry USING hnsw {what} {options}"
    number = connection.execute("SELECT COUNT(*) FROM entry").fetchone()[0]
    with_memory(connection, graph, number * (width * (4 if kind == "whole" else 2) + _ELEMENT))
    connection.execute("CREATE INDEX entry_track ON entry (source, set_number)")
    return kind


def with_memory(connection: Any, statement: str, wanted: int) -> None:
    """Run a statement, in a transaction, with so many bytes to build an index in, 2 GiB at most, where the
    server has less by its settings.

    A graph that does not fit is built through the disk, many times slower. Workers share that memory, and a
    container may have next to none to share: then the server's own setting has to do.
    """
    psycopg = load("psycopg")
    text = "SELECT setting::bigint * 1024 FROM pg_settings WHERE name = 'maintenance_work_mem'"
    has = connection.execute(text).fetchone()[0]
    wanted = min(wanted, _MOST_MEMORY)
    if wanted > has:
        try:
            with connection.transaction():
                connection.execute(f"SET LOCAL maintenance_work_mem = '{wanted // 1024}kB'")
                connection.execute(statement)
            connection.execute(f"SET LOCAL maintenance_work_mem = '{has // 1024}kB'")
            return
        except (psycopg.errors.DiskFull, psycopg.errors.OutOfMemory):
            pass  # the savepoint took the setting back too
    connection.execute(statement)


def version_of(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])
