"""Features on their way into a gallery in a database: workers send what they have embedded.

They lie in a table of the gallery's schema until the process that asked takes them in, with all else and in
one transaction (`database.insert`). Each is named by what it is a part of and its number there: in whatever
order they come, and however often, each is there once. What a call that was broken off has left is found by
the next.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from tracklearn.store.gallery.database import connect, copied, split_url
from tracklearn.store.gallery.entries import unit
from tracklearn.types import Array

_COLUMNS, _TYPES = ("name", "part", "feature"), ("text", "int8", "vector")


def expect(url: str, name: str, n: int) -> Array:
    """Make ready for the features of something; which of its n parts are there already, (n,) bool.

    Raises:
        ValueError: as `database.connect`.
    """
    with connect(*split_url(url), make=True) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS incoming (name TEXT NOT NULL, part BIGINT NOT NULL, "
            "feature vector NOT NULL, PRIMARY KEY (name, part))"
        )
        found = connection.execute("SELECT part FROM incoming WHERE name = %s", [name]).fetchall()
    there = np.zeros(n, bool)
    there[[part for (part,) in found]] = True
    return there


def send(url: str, name: str, part: Array, features: Array) -> None:
    """Send the features of some parts, in the place of those that are there; all or none.

    Args:
        url: of the gallery.
        name: what they are parts of. part: (n,) int64 numbers.
        features: (n, d) float32 unit rows.

    Raises:
        ValueError: no unit rows; the database cannot be reached.
    """
    features = unit("features", features, features.shape[1])
    with _connection(url).transaction() as transaction:
        connection = transaction.connection
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


def forget(connection: Any) -> None:
    """Remove all that is on its way; nothing where nothing ever was."""
    if connection.execute("SELECT to_regclass('incoming')").fetchone()[0] is not None:
        connection.execute("DELETE FROM incoming")


@lru_cache(maxsize=1)
def _opened(url: str) -> Any:
    return connect(*split_url(url))


def _connection(url: str) -> Any:
    """This process's connection, made anew where it was lost."""
    if _opened(url).closed:
        _opened.cache_clear()
    return _opened(url)
