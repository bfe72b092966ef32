"""What a person decided of who is who, as values: steps that can be taken back, all that is kept of them, and
both as plain values for JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tracklearn.store.gallery.entries import PartKey
from tracklearn.store.identities.journal import Decision, Place

Row = tuple[str, int, int, int, int, float | None, str]  # of the table of identities


@dataclass(frozen=True)
class Move:
    """A part that is somebody else from now on.

    Args:
        part: which. old, new: person before and after; None for nobody.
    """

    part: PartKey
    old: int | None
    new: int | None


@dataclass(frozen=True)
class Naming:
    """A person that is called otherwise; "" is no name."""

    person: int
    old: str
    new: str


@dataclass(frozen=True)
class Step:
    """Something that a person decided, as one.

    Args:
        kind: what it was, in a word.
        moves, names: what it changes.
        decisions: what `identities` is to know of it.
        note: anything else to be remembered, as JSON.
        number: from 1, in order. at: when, as the caller tells it. undone: whether it was taken back.
    """

    kind: str
    moves: tuple[Move, ...] = ()
    names: tuple[Naming, ...] = ()
    decisions: tuple[Decision, ...] = ()
    note: Mapping[str, Any] = field(default_factory=dict)
    number: int = 0
    at: str = ""
    undone: bool = False


@dataclass(frozen=True)
class Kept:
    """All that is in the tables, to be written anew."""

    identities: tuple[Row, ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    adopted: str = ""


def content_of(step: Step) -> dict[str, Any]:
    """What a step changes and says, as plain values; `step_of` reads them."""
    return {
        "moves": [[*move.part, move.old, move.new] for move in step.moves],
        "names": [[n.person, n.old, n.new] for n in step.names],
        "decisions": [decision.to_dict() for decision in step.decisions],
        "note": dict(step.note),
    }


def step_of(row: Sequence[Any]) -> Step:
    """The step of a row of the table: number, time, kind, JSON of `content_of`, whether it was undone."""
    number, at, kind, content, undone = row
    value = json.loads(content)
    return Step(
        kind,
        moves=tuple(Move(PartKey(*m[:4]), m[4], m[5]) for m in value["moves"]),
        names=tuple(Naming(*n) for n in value["names"]),
        decisions=tuple(
            Decision(d["decision"] == "same", Place(**d["a"]), Place(**d["b"])) for d in value["decisions"]
        ),
        note=value["note"],
        number=int(number),
        at=at,
        undone=bool(undone),
    )


def to_plain(kept: Kept) -> dict[str, Any]:
    """Plain values of what is kept; steps without what they changed."""
    return {
        "identities": [list(row) for row in kept.identities],
        "names": {str(person): name for person, name in kept.names.items()},
        "steps": [
            [step.number, step.at, step.kind, content_of(replace(step, moves=(), names=())), step.undone]
            for step in kept.steps
        ],
        "adopted": kept.adopted,
    }


def from_plain(value: Mapping[str, Any]) -> Kept:
    """What `to_plain` made plain."""
    return Kept(
        tuple(tuple(row) for row in value["identities"]),
        {int(person): name for person, name in value["names"].items()},
        tuple(
            step_of((n, at, kind, json.dumps(content), undone))
            for n, at, kind, content, undone in value["steps"]
        ),
        value["adopted"],
    )
