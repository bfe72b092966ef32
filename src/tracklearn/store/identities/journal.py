"""What a person said of who is who: a journal of one JSON object a line, which outlives runs and footage.

    {"decision": "same", "a": {"set": "5f0c…", "track": 12, "frame": 310}, "b": {…}}

`decision` is "same" or "different". A tracklet is named by what stays when it is cut anew: the digest of its
set, its track in it, and one of its frames, counted from 0. Other keys are kept and not read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracklearn.store.files import beside, plain_json, write_atomic
from tracklearn.store.lock import locked
from tracklearn.types import Refusal

DECISIONS = ("same", "different")


@dataclass(frozen=True)
class Place:
    """A frame of a track.

    Args:
        set: digest of its set. track: number in the set. frame: number in the film, from 0.
    """

    set: str
    track: int
    frame: int


@dataclass(frozen=True)
class Decision:
    """What a person said of two tracklets.

    Args:
        same: one person; else two.
        a, b: where they are.
        line: of the journal, from 1; 0 for one that is not written yet.
        step: of the review in a gallery, from 1; 0 for one of a journal.
    """

    same: bool
    a: Place
    b: Place
    line: int = 0
    step: int = 0

    def to_dict(self) -> dict[str, Any]:
        """What its line holds."""
        return {"decision": DECISIONS[not self.same], "a": vars(self.a), "b": vars(self.b)}


def journal_path(run: Path) -> Path:
    """The journal that belongs to a run: beside it, so that it outlives the run's being made anew."""
    return beside(run, after=".review.jsonl")


def read_journal(path: Path) -> list[Decision]:
    """The decisions of a journal in order; none where there is no file.

    Raises:
        ValueError: a line is not a decision; the message names it.
    """
    if not path.is_file():
        return []
    lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    return [_decision(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def _decision(path: Path, number: int, line: str) -> Decision:
    try:
        value = json.loads(line)
        same = (value["decision"] == "same") if value["decision"] in DECISIONS else None
        a, b = (
            Place(str(end["set"]), _whole(end["track"]), _whole(end["frame"]))
            for end in (value["a"], value["b"])
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Refusal(
            f"{path}, line {number}, is no decision ({type(error).__name__}: {error}): expected decision "
            "(same or different), and a and b with set, track and frame; mend or remove the line"
        ) from error
    if same is None:
        raise Refusal(
            f'{path}, line {number}: decision is {value["decision"]!r}, expected "same" or "different"'
        )
    return Decision(same, a, b, line=number)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"{value!r} is no number from 0")
    return value


def add_decisions(path: Path, decisions: Sequence[Decision]) -> None:
    """Write decisions behind those that the journal holds; none is written twice.

    Raises:
        ValueError: the journal has a line that is none.
        OSError: the disk is full or failing; the journal is as it was.
    """
    with locked(path):
        known = {(d.same, d.a, d.b) for d in read_journal(path)}
        new = [d for d in decisions if (d.same, d.a, d.b) not in known]
        if new:
            before = path.read_bytes() if path.is_file() else b""
            before += b"" if not before or before.endswith(b"\n") else b"\n"
            write_atomic(path, before + b"".join(plain_json(d.to_dict()).encode() + b"\n" for d in new))
