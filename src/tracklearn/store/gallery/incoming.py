"""Features on their way into a gallery in a database: workers send what they have embedded.

They lie in a table of the gallery's schema until the process that asked takes them in, with all else and in
one transaction (`database.insert`). Each is named by what it is a part of and its number there: in whatever
order they come, and however often, each is there once. What a call that was broken off has left is found by
the next that asks for the same, and goes with any other that is taken in, or when something is forgotten.

What is awaited stands in a table of its own: workers that outlive the call that asked are refused, rather
than bring back what went.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from tracklearn.runtimes import load
from tracklearn.store.files import first_line
from tracklearn.store.gallery.database import (
    alone,
    clear,
    connect,
    copied,
    split_url,
    vectors_of,
    without_password,
)
from tracklearn.store.gallery.entries import unit
from tracklearn.types import Array, Refusal

_COLUMNS, _TYPES = ("name", "part", "feature"), ("text", "int8", "vector")


def expect(url: str, name: str, n: int) -> Array:
    """Make ready for the features of something; which of its n parts are there already, (n,) bool.

    Raises:
        ValueError: as `database.connect`; the database refuses.
    """
    database, schema = split_url(url)
    with connect(database, schema, make=True) as connection, _told(url):
        with alone(connection, f"create {schema}"):
            connection.execute(
                "CREATE TABLE IF NOT EXISTS incoming (name TEXT NOT NULL, part BIGINT NOT NULL, "
                f"feature {vectors_of(connection)}.vector NOT NULL, PRIMARY KEY (name, part))"
            )
            connection.execute("CREATE TABLE IF NOT EXISTS awaited (name TEXT PRIMARY KEY)")
            connection.execute("INSERT INTO awaited VALUES (%s) ON CONFLICT DO NOTHING", [name])
        found = connection.execute("SELECT part FROM incoming WHERE name = %s", [name]).fetchall()
    there = np.zeros(n, bool)
    there[[part for (part,) in found]] = True
    return there


def send(url: str, name: str, part: Array, features: Array) -> None:
    """Send the features of some parts, in the place of those that are there; all or none.

    A connection that was lost is made anew, once.

    Args:
        url: of the gallery.
        name: what they are parts of, as it is expected.
        part: (n,) int64 numbers.
        features: (n, d) float32 unit rows.

    Raises:
        ValueError: no unit rows; nobody expects them any more; the database cannot be reached, or refuses.
    """
    features = unit("features", features, features.shape[1])
    with _told(url):
        try:
            _send(_connection(url), name, part, features)
        except load("psycopg").OperationalError:
            _opened(url).close()
            _send(_connection(url), name, part, features)


def _send(opened: Any, name: str, part: Array, features: Array) -> None:
    with opened.transaction() as transaction:
        connection = transaction.connection
        # First of all, and kept to the end: who removes waits for it (`database.clear`).
        awaited = "SELECT 1 FROM awaited WHERE name = %s FOR KEY SHARE"
        if connection.execute(awaited, [name]).fetchone() is None:
            raise Refusal(
                "nobody waits for these features any more: another call has made the gallery, or something "
                "was forgotten meanwhile: index again"
            )
        connection.execute("DROP TABLE IF EXISTS pg_temp.sent")
        connection.execute("CREATE TEMP TABLE sent (LIKE incoming) ON COMMIT DROP")
        copied(
            connection,
            "sent",
            _COLUMNS,
            _TYPES,
            ((name, number, row) for number, row in zip(part.tolist(), features, strict=True)),
        )
        connection.execute(
            "INSERT INTO incoming SELECT name, part, feature FROM sent "
            "ON CONFLICT (name, part) DO UPDATE SET feature = excluded.feature"
        )


def waiting(url: str) -> bool:
    """Whether something is on its way, or awaited; the gallery need not be there.

    Raises:
        ValueError: as `database.connect`.
    """
    with connect(*split_url(url)) as connection:
        for table in ("awaited", "incoming"):
            if connection.execute("SELECT to_regclass(%s)", [table]).fetchone()[0] is not None:
                text = f"SELECT EXISTS (SELECT 1 FROM {table})"
                if connection.execute(text).fetchone()[0]:
                    return True
    return False


def forget(url: str) -> None:
    """Remove all that is on its way, from the disk too; nothing where nothing ever was.

    Raises:
        ValueError: as `database.connect`; the database refuses.
    """
    with connect(*split_url(url)) as connection, _told(url), connection.transaction():
        clear(connection)


@contextmanager
def _told(url: str) -> Iterator[None]:
    """What the database says against it is told in a line."""
    psycopg = load("psycopg")
    try:
        yield
    except psycopg.Error as error:
        raise Refusal(
            f"{without_password(url)} refuses what workers send ({first_line(error)}): look at the server, "
            "and index again"
        ) from error


@lru_cache(maxsize=1)
def _opened(url: str) -> Any:
    return connect(*split_url(url))


def _connection(url: str) -> Any:
    """This process's connection, made anew where it was lost."""
    if _opened(url).closed:
        _opened.cache_clear()
    return _opened(url)
