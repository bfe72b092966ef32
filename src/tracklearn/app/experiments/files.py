"""Finding and reading grids: files of the user, and those that come with the program."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import BaseModel, ValidationError

from tracklearn.app.experiments.grid import Beside, Data, Grid, Noise, Published, Variant
from tracklearn.store.config import nearest
from tracklearn.types import Refusal

_FOLDER = Path(__file__).parent
_TABLES: dict[str, type[BaseModel]] = {
    "data": Data,
    "noise": Noise,
    "variant": Variant,
    "published": Published,
    "beside": Beside,
}


def shipped() -> dict[str, Path]:
    """The grids that come with the program: name -> file."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.toml"))}


def find(name: str | Path) -> Path:
    """The file of that name, or the shipped grid of that name.

    Raises:
        FileNotFoundError: there is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    grids = shipped()
    if str(name) in grids:
        return grids[str(name)]
    if path.suffix or len(path.parts) > 1:
        raise FileNotFoundError(f"no such file: {path}")
    raise FileNotFoundError(f"no experiment is called {str(name)!r}{nearest(str(name), list(grids))}")


def read(path: str | Path) -> Grid:
    """The grid in a TOML file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not TOML; an unknown key, data set, noise, metric or setting (the nearest known one
            is named); a value out of range; labels of published figures that the grid does not have.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(f"{path}: not a TOML file: {error}") from error
    try:
        return Grid.model_validate(values)
    except ValidationError as error:
        raise Refusal(f"{path}: {_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    errors = error.errors()
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    where = ".".join(str(part) for part in first["loc"] if part != Noise.__name__)  # pydantic's, of a union
    if first["type"] == "extra_forbidden":
        owner = Grid if len(first["loc"]) == 1 else _TABLES[str(first["loc"][0])]
        return f"key {where} is unknown{nearest(str(first['loc'][-1]), list(owner.model_fields))}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in ("missing", "value_error") or not first["loc"]:
        return f"{where}: {message}" if where else message
    return f"{where} = {first['input']!r}: {message}"
