"""What can be set, told from the models: every key with its default by preset, its type, and its origin."""

from __future__ import annotations

import json
import re
import textwrap
import types
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tracklearn.app.pipeline.plan import setting_models
from tracklearn.app.pipeline.presets import PRESETS
from tracklearn.store.config import nearest
from tracklearn.types import Refusal

_ORIGIN = re.compile(r"\s*\[(?:[^][]*)\]")
_LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


@dataclass(frozen=True)
class Setting:
    """One setting.

    Args:
        key: as `--set` and TOML files write it, `section.name`; of a part of a section `section.part.name`.
        default: the model's own value, which is the published one where there is one.
        presets: the values of presets that choose another.
        type: what may be given.
        description: what it does.
        origin: where the default is from: paper, code, or chosen, with the place; "" where no source has it.
    """

    key: str
    default: Any
    presets: Mapping[str, Any]
    type: str
    description: str
    origin: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values under the field names, for JSON."""
        return asdict(self)


def listing(section: str | None = None) -> list[Setting]:
    """All settings, or those of a section: ingest, network, train, or a method's name.

    Raises:
        Refusal: there is no such section.
    """
    models = setting_models()
    if section is not None and section not in models:
        raise Refusal(f"section {section!r} is unknown{nearest(section, models)}")
    chosen = models if section is None else {section: models[section]}
    return [setting for name, model in chosen.items() for setting in _of(model, (name,))]


def table(settings: list[Setting]) -> str:
    """The settings for a person: key, values, type, and what it means, a block each."""
    blocks = []
    for s in settings:
        others = "".join(f"   {name}: {_written(value)}" for name, value in s.presets.items())
        origin = f"   [{s.origin}]" if s.origin else ""
        text = textwrap.fill(s.description, 100, initial_indent="    ", subsequent_indent="    ")
        blocks.append(f"{s.key} = {_written(s.default)}{others}\n    {s.type}{origin}\n{text}")
    return "\n".join(blocks)


def toml(settings: list[Setting], preset: str | None = None) -> str:
    """A settings file to start from: every key with its value, commented out, under its section.

    Args:
        settings: of `listing`.
        preset: whose values to write where it has its own; the models' by default.

    Raises:
        Refusal: there is no such preset.
    """
    if preset is not None and preset not in PRESETS:
        raise Refusal(f"preset {preset!r} is unknown: choose one of {', '.join(PRESETS)}")
    tables: dict[str, list[str]] = {}
    for s in settings:
        section, _, name = s.key.rpartition(".")
        value = s.presets.get(preset or "", s.default)
        lines = tables.setdefault(section, [f"[{section}]"])
        lines += textwrap.wrap(s.description, 100, initial_indent="# ", subsequent_indent="# ")
        lines.append(f"# {name} = {_written(value)}" if value is not None else f"# {name} =  # none")
    return "\n\n".join("\n".join(lines) for lines in tables.values())


def _of(model: type[BaseModel], place: tuple[str, ...]) -> Iterator[Setting]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        here = (*place, name)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _of(inner, here)
            continue
        text = " ".join((field.description or "").split())
        origins = [found.strip(" []") for found in _ORIGIN.findall(text)]
        description = _ORIGIN.sub("", text)
        presets = {preset: value for preset in PRESETS if (value := _chosen(preset, here)) is not None}
        default = field.get_default(call_default_factory=True)
        yield Setting(
            key=".".join(here),
            default=list(default) if isinstance(default, tuple) else default,
            presets=presets,
            type=_typed(field),
            description=description[:1].upper() + description[1:],
            origin="; ".join(origins),
        )


def _chosen(preset: str, place: tuple[str, ...]) -> Any:
    found: Any = PRESETS[preset]
    for part in place:
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def _typed(field: FieldInfo) -> str:
    """What may be given for a field, in a few words."""
    limits = [f"{_LIMITS[name]} {value}" for name, value in _limits(field.metadata)]
    return " ".join([_name_of(field.annotation), *limits])


def _limits(metadata: Any) -> Iterator[tuple[str, Any]]:
    for constraint in metadata:
        for name in _LIMITS:
            value = getattr(constraint, name, None)
            if value is not None:
                yield name, value
        yield from _limits(getattr(constraint, "metadata", ()))


def _name_of(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return " ".join([_name_of(inner[0]), *(f"{_LIMITS[n]} {v}" for n, v in _limits(inner[1:]))])
    if origin is Literal:
        return " | ".join(_written(value) for value in inner)
    if origin in (Union, types.UnionType):
        return " | ".join(_name_of(one) for one in inner if one is not type(None)) + (
            " | none" if type(None) in inner else ""
        )
    if origin is tuple:
        return f"[{', '.join(_name_of(one) for one in inner)}]"
    known = {str: "text", int: "whole number", float: "number", bool: "true | false"}
    return known.get(kind, getattr(kind, "__name__", str(kind)))


def _written(value: Any) -> str:
    """A value as TOML and `--set` write it."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value, ensure_ascii=False)
