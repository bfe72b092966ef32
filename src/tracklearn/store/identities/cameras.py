"""What a user knows of how cameras lie to one another: `cameras.toml`.

together = true           # their films began at the same moment, where nothing else says when

[[apart]]                 # no two of these see the same place
cameras = ["hall", "yard"]

[[travel]]                # nobody is quicker; the way back is another entry
from = "hall"
to = "yard"
seconds = 12
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from tracklearn.store.config import nearest
from tracklearn.types import Refusal


@dataclass(frozen=True)
class CameraRules:
    """Where cameras are.

    Args:
        together: films that nobody knows the beginning of began at the same moment.
        apart: pairs of camera numbers without a shared view.
        ways: (from, to) -> least seconds from the one to the other.
    """

    together: bool = False
    apart: tuple[tuple[int, int], ...] = ()
    ways: dict[tuple[int, int], float] = field(default_factory=dict)


def read_cameras(path: Path, cameras: Sequence[str]) -> CameraRules:
    """The rules of a file.

    Args:
        path: a TOML file as above.
        cameras: names of the cameras that there are, by number.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not TOML; an unknown key or camera, a time that is none, a camera with itself, or a way
            that is given twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(f"{path}: not a TOML file: {error}") from error
    _known_keys(path, values, ("together", "apart", "travel"))
    together = values.get("together", False)
    if not isinstance(together, bool):
        raise Refusal(f"{path}: together is {together!r}, expected true or false")
    apart: set[tuple[int, int]] = set()
    for table in _tables(path, values, "apart"):
        _known_keys(path, table, ("cameras",))
        names = table.get("cameras")
        if not isinstance(names, list) or len(names) < 2:
            raise Refusal(f"{path}: [[apart]] has cameras {names!r}, expected a list of two or more names")
        numbers = [_camera(path, name, cameras) for name in names]
        if len(set(numbers)) < len(numbers):
            raise Refusal(f"{path}: [[apart]] names a camera twice: {names}")
        apart |= {(min(pair), max(pair)) for pair in combinations(numbers, 2)}
    ways: dict[tuple[int, int], float] = {}
    for table in _tables(path, values, "travel"):
        _known_keys(path, table, ("from", "to", "seconds"))
        if missing := [key for key in ("from", "to", "seconds") if key not in table]:
            raise Refusal(f"{path}: a [[travel]] lacks {missing[0]}: it has from, to and seconds")
        way = _camera(path, table["from"], cameras), _camera(path, table["to"], cameras)
        text, seconds = f"from {table['from']} to {table['to']}", table["seconds"]
        if way[0] == way[1]:
            raise Refusal(f"{path}: [[travel]] {text} is no way: name two cameras")
        if way in ways:
            raise Refusal(f"{path}: [[travel]] {text} is given twice")
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not number or not math.isfinite(seconds) or seconds < 0:
            raise Refusal(f"{path}: [[travel]] {text} takes {seconds!r}, expected seconds from 0")
        ways[way] = float(seconds)
    return CameraRules(together, tuple(sorted(apart)), ways)


def _tables(path: Path, values: dict[str, Any], name: str) -> list[dict[str, Any]]:
    tables = values.get(name, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise Refusal(f"{path}: {name} is no list of tables: write [[{name}]]")
    return tables


def _known_keys(path: Path, table: dict[str, Any], known: Sequence[str]) -> None:
    for key in table:
        if key not in known:
            raise Refusal(f"{path}: {key!r} is unknown{nearest(key, known)}")


def _camera(path: Path, name: Any, cameras: Sequence[str]) -> int:
    if name not in cameras:
        raise Refusal(f"{path}: camera {name!r} is unknown{nearest(str(name), cameras)}")
    return list(cameras).index(name)
