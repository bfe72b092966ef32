"""Settings from their defaults, a preset, a TOML file and the command line, in that order.

Each owner of settings declares a frozen pydantic model; here only their merging and their error messages
live. A section of the TOML file is one model: `[tmc]` `epochs = 10` is `--set tmc.epochs=10`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tracklearn.types import Refusal

Models = Mapping[str, type[BaseModel]]
Preset = Mapping[str, Mapping[str, Any]]


def resolve(
    models: Models,
    *,
    preset: Preset | None = None,
    file: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> dict[str, BaseModel]:
    """One validated model per section.

    Args:
        models: section name -> model.
        preset: values below the file's, by section.
        file: TOML file whose tables are sections.
        overrides: "section.key=value" strings; the value is read as TOML, or as text if it is none.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown section or key (the nearest known one is named), or a value out of range.
    """
    values: dict[str, dict[str, Any]] = {name: {} for name in models}
    for section, table in (preset or {}).items():
        if section in values:
            values[section] = merge(values[section], table)
    if file is not None:
        for section, table in _read(Path(file)).items():
            if not isinstance(table, dict):
                raise Refusal(
                    f"{file}: {section!r} stands outside a section: write it under one of {_names(models)}"
                )
            section = _known(section, models, f"{file}: section")
            values[section] = merge(values[section], table)
    for text in overrides:
        name, equals, raw = text.partition("=")
        section, dot, key = name.strip().partition(".")
        if not equals or not dot or not key:
            raise Refusal(f"--set {text!r} is not of the form section.key=value, for example tmc.epochs=10")
        _known(section, models, f"--set {text!r}: section")
        nested: Any = _value(raw.strip())
        for part in reversed(key.split(".")):
            nested = {part: nested}
        values[section] = merge(values[section], nested)
    return {name: _validate(name, model, values[name]) for name, model in models.items()}


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, table by table."""
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        out[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of `value`: the same settings always give the same digest."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(f"{path}: not a TOML file: {error}") from error


def _value(raw: str) -> Any:
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return raw


def _names(models: Models) -> str:
    return ", ".join(models)


def _known(section: str, models: Models, what: str) -> str:
    if section not in models:
        raise Refusal(f"{what} {section!r} is unknown{nearest(section, list(models))}")
    return section


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known name, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f": did you mean {near[0]!r}?" if near else f": known are {', '.join(known)}"


def _validate(section: str, model: type[BaseModel], values: Mapping[str, Any]) -> BaseModel:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([section, *(str(p) for p in first["loc"])])
        if first["type"] == "extra_forbidden":
            owner: Any = model
            for part in first["loc"][:-1]:
                owner = owner.model_fields[str(part)].annotation
            known = list(owner.model_fields)
            raise Refusal(f"setting {where} is unknown{nearest(str(first['loc'][-1]), known)}") from error
        if not first["loc"]:  # about several settings together
            raise Refusal(f"setting {where}: {first['msg'].removeprefix('Value error, ')}") from error
        # A setting of several types has an error for each, and the type behind its name.
        place = _place(model, first["loc"])
        about = [each for each in error.errors() if each["loc"][: len(place)] == place]
        wanted = "; or ".join(dict.fromkeys(each["msg"].removeprefix("Value error, ") for each in about))
        where = ".".join([section, *(str(part) for part in place)])
        raise Refusal(f"setting {where} = {first['input']!r}: {wanted}") from error


def _place(model: Any, loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """As much of an error's place as names settings and numbers elements."""
    known = 0
    for part in loc:
        fields = getattr(model, "model_fields", {})
        if part not in fields and not isinstance(part, int):
            break
        model = fields[part].annotation if part in fields else None
        known += 1
    return loc[:known]
