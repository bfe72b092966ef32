"""What a person said of who is who: a journal of one JSON object a line, which outlives runs and footage.

    {"decision": "same", "a": {"set": "5f0c…", "track": 12, "frame": 310}, "b": {…}}

`decision` is "same" or "different", or "cut": `a` and `b` are successive frames of one track, which is cut
between them because they are two people; "uncut" takes such a line back. A tracklet is named by what stays
when it is cut anew: the digest of its set, its track in it, and one of its frames, counted from 0. A line
with `"earlier": true` was said of an earlier table, and gives way to whatever was said since; `"step"` is
that of a review in a gallery. Other keys are kept and not read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracklearn.store.files import beside, plain_json, write_atomic
from tracklearn.store.lock import locked
from tracklearn.types import Refusal

DECISIONS = ("same", "different")
CUTS = ("cut", "uncut")
_ENDING = ".review.jsonl"


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
        earlier: it was said of an earlier table.
    """

    same: bool
    a: Place
    b: Place
    line: int = 0
    step: int = 0
    earlier: bool = False

    def to_dict(self) -> dict[str, Any]:
        """What its line holds."""
        said = {"decision": DECISIONS[not self.same], "a": vars(self.a), "b": vars(self.b)}
        return said | ({"earlier": True} if self.earlier else {})

    @property
    def key(self) -> tuple[bool, Place, Place]:
        """What it says, wherever that stands."""
        return self.same, self.a, self.b


def journal_path(run: Path) -> Path:
    """The journal that belongs to a run: beside it, so that it outlives the run's being made anew."""
    return beside(run, after=_ENDING)


def journals_in(folder: Path) -> list[Path]:
    """The journals of runs in a folder."""
    return sorted(folder.glob(f"*{_ENDING}"))


def read_journal(path: Path) -> list[Decision]:
    """The decisions of a journal in order; none where there is no file. A cut is one: two people.

    Raises:
        ValueError: a line is not a decision; the message names it.
    """
    lines = _lines(path)
    standing = _standing(lines)
    return [
        decision
        for kind, decision in lines
        if kind in DECISIONS or (kind == "cut" and standing.get((decision.a, decision.b)) is decision)
    ]


def read_cuts(path: Path) -> list[Place]:
    """Where tracks are cut by hand, each by the first frame of its second piece; in order of track and frame.

    Raises:
        ValueError: as `read_journal`.
    """
    cuts = {decision.b for decision in _standing(_lines(path)).values()}
    return sorted(cuts, key=lambda place: (place.set, place.track, place.frame))


@dataclass(frozen=True)
class Word:
    """What holds of a journal.

    Args:
        decisions: one person or two. cuts: where tracks are cut by hand.
        uncut: cuts that were taken back.
    """

    decisions: tuple[Decision, ...] = ()
    cuts: tuple[tuple[Place, Place], ...] = ()
    uncut: tuple[tuple[Place, Place], ...] = ()


def read_word(path: Path) -> Word:
    """What holds of a journal; nothing where there is no file.

    Raises:
        ValueError: as `read_journal`.
    """
    lines = _lines(path)
    standing = _standing(lines)
    taken_back = {(d.a, d.b): None for kind, d in lines if kind == "uncut" and (d.a, d.b) not in standing}
    return Word(tuple(d for kind, d in lines if kind in DECISIONS), tuple(standing), tuple(taken_back))


def write_word(path: Path, decisions: Sequence[Decision], cuts: Sequence[tuple[Place, Place]]) -> None:
    """A file that `read_word` reads, in the place of what is there; none where there is nothing to write."""
    values = [d.to_dict() | ({"step": d.step} if d.step else {}) for d in decisions]
    values += [_cut_line(a, b) for a, b in cuts]
    if values:
        write_atomic(path, b"".join(plain_json(value).encode() + b"\n" for value in values))


def _cut_line(a: Place, b: Place) -> dict[str, Any]:
    return {"decision": "cut", "a": vars(a), "b": vars(b)}


def _standing(lines: Sequence[tuple[str, Decision]]) -> dict[tuple[Place, Place], Decision]:
    """The cuts that were not taken back."""
    found: dict[tuple[Place, Place], Decision] = {}
    for kind, decision in lines:
        if kind == "cut":
            found[decision.a, decision.b] = decision
        elif kind == "uncut":
            found.pop((decision.a, decision.b), None)
    return found


def _lines(path: Path) -> list[tuple[str, Decision]]:
    """What each line says, and of which two places."""
    if not path.is_file():
        return []
    lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    return [_decision(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def _decision(path: Path, number: int, line: str) -> tuple[str, Decision]:
    try:
        value = json.loads(line)
        kind = value["decision"] if value["decision"] in (*DECISIONS, *CUTS) else None
        a, b = (
            Place(str(end["set"]), _whole(end["track"]), _whole(end["frame"]))
            for end in (value["a"], value["b"])
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Refusal(
            f"{path}, line {number}, is no decision ({type(error).__name__}: {error}): expected decision "
            "(same or different), and a and b with set, track and frame; mend or remove the line"
        ) from error
    if kind is None:
        raise Refusal(
            f'{path}, line {number}: decision is {value["decision"]!r}, expected "same" or "different"'
        )
    step, earlier = value.get("step"), value.get("earlier") is True
    step = step if isinstance(step, int) and not isinstance(step, bool) and step > 0 else 0
    return kind, Decision(kind == "same", a, b, line=number, step=step, earlier=earlier)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"{value!r} is no number from 0")
    return value


def add_decisions(
    path: Path, decisions: Sequence[Decision], cuts: Sequence[tuple[Place, Place]] = ()
) -> None:
    """Write decisions, and cuts by hand, behind those that the journal holds; none is written twice.

    Raises:
        ValueError: the journal has a line that is none.
        OSError: the disk is full or failing; the journal is as it was.
    """
    with locked(path):
        held = read_word(path)
        known, cut = {d.key for d in held.decisions}, set(held.cuts)
        new = {d.key: d.to_dict() for d in reversed(decisions) if d.key not in known}  # the first of each
        values = list(reversed(new.values()))
        values += [_cut_line(*pair) for pair in dict.fromkeys(cuts) if pair not in cut]
        _append(path, values)


def add_cut(path: Path, a: Place, b: Place, *, cut: bool) -> None:
    """Write that a track is cut between two successive frames, or is no longer.

    Raises:
        ValueError: the journal has a line that is none, or another process writes to it.
        OSError: the disk is full or failing; the journal is as it was.
    """
    with locked(path):
        _lines(path)
        _append(path, [{"decision": CUTS[not cut], "a": vars(a), "b": vars(b)}])


def _append(path: Path, values: Sequence[Mapping[str, Any]]) -> None:
    if values:
        before = path.read_bytes() if path.is_file() else b""
        before += b"" if not before or before.endswith(b"\n") else b"\n"
        write_atomic(path, before + b"".join(plain_json(value).encode() + b"\n" for value in values))
