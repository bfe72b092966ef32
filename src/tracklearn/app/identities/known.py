"""What is known of parts before they are compared: by time and place, a person's word, an older table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tracklearn.app.identities.footage import Footage
from tracklearn.core.identities import contradictions, groups
from tracklearn.core.moments import moments
from tracklearn.core.shown import called, part_numbers
from tracklearn.core.whereabouts import Whereabouts, scraps, seen_apart, seen_at_once, too_far
from tracklearn.store.identities.cameras import CameraRules
from tracklearn.store.identities.journal import Decision, Place
from tracklearn.types import Array, Refusal

NONE = np.zeros((0, 2), np.int64)


@dataclass(frozen=True, eq=False)
class Names:
    """How people call parts: 12, 12.2 where a track has several, 2:12.2 where there are several sets.

    Args:
        footage: whose parts.
        number, n_parts: (t,) int64 place of each part in its track, from 1, and how many that has.
    """

    footage: Footage
    number: Array
    n_parts: Array

    @classmethod
    def of(cls, footage: Footage) -> Names:
        """The names of the parts of some footage."""
        source = footage.parts.source
        counted = np.bincount(source, minlength=len(footage.tracks)) if len(source) else np.zeros(0, int)
        return cls(footage, part_numbers(source), counted[source] if len(source) else counted)

    def track(self, part: int) -> tuple[int, int]:
        """The set of a part, from 0, and its track's number in it."""
        source = int(self.footage.parts.source[part])
        number = int(self.footage.joined.set_of(np.array(source)))
        return number, source - int(self.footage.joined.first_track[number])

    def __call__(self, part: int) -> str:
        number, track = self.track(part)
        name = called(track, int(self.number[part]), int(self.n_parts[part]))
        return name if len(self.footage.sets) == 1 else f"{number + 1}:{name}"

    def place(self, text: str) -> Place:
        """The middle frame of the part that a text names.

        Raises:
            ValueError: it names none, or a track of several parts.
        """
        footage = self.footage
        several = len(footage.sets) > 1
        form = (
            "SET:TRACK or SET:TRACK.PART, sets counted from 1 as they are given"
            if several
            else ("TRACK or TRACK.PART")
        )
        found = re.fullmatch(r"(?:(\d+):)?(\d+)(?:\.(\d+))?", text.strip())
        if found is None or (several and found[1] is None):
            raise Refusal(f"{text!r} names no part: expected {form}")
        number = int(found[1] or 1) - 1
        if not 0 <= number < len(footage.sets):
            raise Refusal(f"{text!r} names set {number + 1}, and {len(footage.sets)} are given")
        track = int(found[2])
        own = np.flatnonzero(footage.parts.source == footage.joined.first_track[number] + track)
        if not len(own):
            last = int(footage.joined.first_track[number + 1] - footage.joined.first_track[number]) - 1
            raise Refusal(
                f"{text!r} names no track: {footage.paths[number]} has 0 to {last}, less dropped ones"
            )
        if found[3] is None and len(own) > 1:
            raise Refusal(f"{text!r} has {len(own)} parts, {text}.1 to {text}.{len(own)}: name one")
        at = int(found[3] or 1)
        if not 1 <= at <= len(own):
            raise Refusal(f"{text!r} names no part: track {track} has {len(own)}")
        part = int(own[at - 1])
        first, end = footage.parts.start[part : part + 2]
        return Place(footage.sets[number].digest, track, int(footage.parts.frame[(first + end - 1) // 2]))

    def decision(self, text: str, *, same: bool) -> Decision:
        """What A=B on the command line says.

        Raises:
            ValueError: as `place`; not of that form.
        """
        a, equals, b = text.partition("=")
        if not equals:
            raise Refusal(f"{text!r} is no pair of parts: expected A=B, for example 12.2=40")
        return Decision(same, self.place(a), self.place(b))

    def part_at(self, place: Place) -> int | None:
        """The part that holds a place, or the nearest of its track; None for another set, or a dropped track.

        Raises:
            ValueError: the set has no such track.
        """
        footage = self.footage
        number = next((i for i, each in enumerate(footage.sets) if each.digest == place.set), None)
        if number is None:
            return None
        one = footage.sets[number]
        if place.track >= len(one.tracklets):
            raise Refusal(
                f"a decision names track {place.track} of {footage.paths[number]}, which has 0 to "
                f"{len(one.tracklets) - 1}"
            )
        parts = footage.parts
        own = np.flatnonzero(parts.source == footage.joined.first_track[number] + place.track)
        if not len(own):
            return None
        rows = np.concatenate([np.arange(parts.start[p], parts.start[p + 1]) for p in own])
        return int(parts.tracklet[rows[np.argmin(np.abs(parts.frame[rows] - place.frame))]])


@dataclass(frozen=True, eq=False)
class Said:
    """What a person's decisions say of parts.

    Args:
        together, apart: (q, 2), (p, 2) int64.
        notes: decisions that could not be followed, a line each.
        reviewed: (t,) bool parts that a decision names.
    """

    together: Array
    apart: Array
    notes: tuple[str, ...]
    reviewed: Array


def said(decisions: Sequence[Decision], names: Names, journal: Path) -> Said:
    """What a journal says of the parts that there are.

    Raises:
        ValueError: decisions contradict one another; the message names both.
    """
    pairs: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    lines: dict[bool, list[Decision]] = {True: [], False: []}
    notes, elsewhere = [], 0
    for decision in decisions:
        a, b = names.part_at(decision.a), names.part_at(decision.b)
        if a is None or b is None:
            elsewhere += 1
        elif a != b:
            pairs[decision.same].append((a, b))
            lines[decision.same].append(decision)
        elif not decision.same:
            notes.append(
                f"{_where(decision, journal)}: two people who are both in part {names(a)}, which "
                "is not cut there"
            )
    if elsewhere:
        notes.append(f"{elsewhere} of {len(decisions)} decisions are about tracks that are not here")
    together, apart = (np.array(pairs[kind], np.int64).reshape(-1, 2) for kind in (True, False))
    t = len(names.footage.parts)
    for row, way in contradictions(t, apart, together):
        two = lines[False][row]
        ones = " and ".join(_where(lines[True][r], journal) for r in way)
        a, b = apart[row].tolist()
        raise Refusal(
            f"{names(a)} and {names(b)} are two people by {_where(two, journal)} and one by {ones}: remove "
            "one of these decisions"
        )
    reviewed = np.zeros(t, bool)
    reviewed[together.ravel()] = reviewed[apart.ravel()] = True
    return Said(together, apart, tuple(notes), reviewed)


def latest(decisions: Sequence[Decision], names: Names) -> list[Decision]:
    """Those decisions that contradict none that was made later: of what a review said, the last word holds.

    Args:
        decisions: in order.
        names: the parts that there are.

    Raises:
        ValueError: one names a track that its set does not have.
    """
    above: dict[int, int] = {}
    against: dict[int, set[int]] = {}

    def group(part: int) -> int:
        while part in above:
            part = above[part]
        return part

    kept = []
    for decision in reversed(decisions):
        ends = [end for end in (names.part_at(decision.a), names.part_at(decision.b)) if end is not None]
        if len(ends) == 2:
            a, b = map(group, ends)
            if (a == b) if not decision.same else (b in against.get(a, ())):
                continue
            if not decision.same:
                against.setdefault(a, set()).add(b)
                against.setdefault(b, set()).add(a)
            elif a != b:
                above[b] = a
                for other in against.pop(b, set()):
                    against[other] = (against[other] - {b}) | {a}
                    against.setdefault(a, set()).add(other)
        kept.append(decision)
    return kept[::-1]


def _where(decision: Decision, journal: Path) -> str:
    if decision.step:
        return f"step {decision.step} of the review"
    if decision.line:
        return f"line {decision.line} of {journal}"
    return "--same" if decision.same else "--different"


def barred(footage: Footage, where: Whereabouts, rules: CameraRules) -> Array:
    """(p, 2) int64 parts that time and place make two people."""
    found = [seen_apart(moments(footage.parts))]
    found += [seen_at_once(where, pair) for pair in rules.apart]
    found += [too_far(where, way, seconds) for way, seconds in rules.ways.items()]
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def left_to_hosts(footage: Footage, reviewed: Array) -> tuple[Array, Array]:
    """Which parts found nobody, and the part that each goes with.

    Those that a person spoke of stand for themselves.
    """
    scrap, host = scraps(footage.parts)
    scrap = scrap & ~reviewed
    return scrap, np.where(scrap, host, np.arange(len(host)))


def old_numbers(footage: Footage, rows: Sequence[Mapping[str, Any]]) -> Array:
    """(t,) int64 number that most frames of each part had in an older table; −1 for none.

    Frames are counted between the first and the last of an older part, so that a part may have been cut anew.
    """
    digest = {one.digest: number for number, one in enumerate(footage.sets)}
    older: dict[int, list[tuple[int, int, int]]] = {}
    for row in rows:
        number = digest.get(row["set_digest"])
        if number is not None and row["identity"] is not None:
            track = int(footage.joined.first_track[number]) + row["track"]
            older.setdefault(track, []).append((row["first_frame"], row["last_frame"], row["identity"]))
    parts = footage.parts
    out = np.full(len(parts), -1, np.int64)
    for part, track in enumerate(parts.source.tolist()):
        frame = parts.frame[parts.start[part] : parts.start[part + 1]]
        count: dict[int, int] = {}
        # Of older parts that lie over one another in time the shorter ones are meant where they are.
        left = np.ones(len(frame), bool)
        for first, last, identity in sorted(older.get(track, []), key=lambda r: r[1] - r[0]):
            inside = left & (frame >= first) & (frame <= last)
            count[identity] = count.get(identity, 0) + int(inside.sum())
            left &= ~inside
        best = max(count, key=lambda n: (count[n], -n), default=-1)
        if best >= 0 and count[best] > 0:
            out[part] = best
    return out


def kept_together(old: Array, apart: Array, together: Array) -> Array:
    """Pairs that keep what was one identity one, where nothing else that is known speaks against it.

    Args:
        old: (t,) earlier number of each part, −1 for none.
        apart: (p, 2) parts that are two people. together: (q, 2) that are one by a person's word.

    Returns:
        (m, 2) int64 a chain through every old identity that can stay.
    """
    t = len(old)
    chains = {
        int(value): np.stack([own[:-1], own[1:]], 1)
        for value in np.unique(old[old >= 0])
        if len(own := np.flatnonzero(old == value)) > 1
    }
    while True:
        chain = np.concatenate([together, *chains.values()]) if chains else together
        found = contradictions(t, apart, chain)
        dropped = {int(old[chain[row, 0]]) for _, way in found for row in way if row >= len(together)}
        if not dropped:
            return chain[len(together) :]
        for value in dropped:
            del chains[value]


def without_those_said(apart: Array, together: Array, t: int) -> Array:
    """Pairs (p, 2) that time makes two people, but for those of whom a person has said that they are one."""
    group = groups(t, together)
    return apart[group[apart[:, 0]] != group[apart[:, 1]]]
