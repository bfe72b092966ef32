"""What a person says of who is who on the page: merge, split, move, name, same or different, undo and redo.

Each is one step of `People`: what moves, what is called otherwise, and the decisions that the next
`identities` follows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn.app.pipeline.estimated import count
from tracklearn.app.web.find import Chances, shown
from tracklearn.app.web.opened import NotThere, Opened, Served
from tracklearn.store.gallery.steps import Move, Naming, Step
from tracklearn.store.identities.journal import Decision, Place
from tracklearn.types import Array, Refusal

if TYPE_CHECKING:
    from tracklearn.app.web.find import Finder

MOST_LETTERS = 60  # of a name
ANSWERS = ("same", "different", "unsure")
SUMMED = 20  # answers after which the review says what changed
_LOOKED_AT = 256  # people, those in view the longest, whose likeness to others is asked about
_ALIKE = 6  # neighbours of each that are looked at
_FEW = 4  # pictures, below which a part is a scrap that tells a person little [chosen: as `least_intra`]


class Reviewer:
    """Changes who is who, one step at a time.

    Args:
        served: what is reviewed.
        finder: knows what distances mean.
    """

    def __init__(self, served: Served, finder: Finder) -> None:
        self.served, self.finder = served, finder
        self._queue: tuple[Any, list[tuple[float, int, int, str]]] | None = None

    # Steps

    def merge(self, people: Sequence[int]) -> dict[str, Any]:
        """Several people are one: the one with a name, else the one in view the longest, keeps the number.

        Raises:
            NotThere: nobody has one of the numbers.
            ValueError: fewer than two, or all of one number.
        """
        with self.served.deciding, self.served.opened() as opened:
            several = list(dict.fromkeys(people))
            if len(several) < 2:
                raise Refusal("one person alone cannot be merged: choose two or more")
            crops = {n: int(opened.entries.n_crops[opened.of_person(n)].sum()) for n in several}
            keep = max(several, key=lambda n: (n in opened.names, crops[n], -n))
            moves, names, said = [], [], []
            kept = opened.longest(opened.of_person(keep))
            for number in several:
                if number == keep:
                    continue
                own = opened.of_person(number)
                moves += [Move(opened.keys[i], number, keep) for i in own]
                said += _one(opened, own, opened.of_person(keep), opened.longest(own), kept)
                if number in opened.names:
                    names.append(Naming(number, opened.names[number], ""))
            text = f"{_listed([opened.called(n) for n in several])} are one: {opened.called(keep)}"
            together = _at_once(opened, np.concatenate([opened.of_person(n) for n in several]))
            return self._apply(opened, "merge", text, moves, said, names) | {
                "person": keep,
                "warnings": together,
            }

    def split(self, refs: Sequence[str]) -> dict[str, Any]:
        """Parts of one person are somebody else, and one person among themselves.

        Raises:
            NotThere: no such part.
            ValueError: none, of several people, or all of one.
        """
        with self.served.deciding, self.served.opened() as opened:
            own, number = self._of_one(opened, refs)
            fresh = opened.people.next_number()
            rest = np.setdiff1d(opened.of_person(number), own)
            if not len(rest):
                raise Refusal("all parts of a person cannot leave him: choose some of them")
            moves = [Move(opened.keys[i], number, fresh) for i in own]
            said = _left(opened, own, rest)
            parts = _listed([opened.name(i) for i in own])
            text = f"{parts} {'is' if len(own) == 1 else 'are'} not {opened.called(number)}: person {fresh}"
            return self._apply(opened, "split", text, moves, said) | {"person": fresh}

    def move(self, refs: Sequence[str], to: int) -> dict[str, Any]:
        """Parts of one person, or of nobody, are another person.

        Raises:
            NotThere: no such part or person.
            ValueError: none, of several people, or that person's already.
        """
        with self.served.deciding, self.served.opened() as opened:
            own, number = self._of_one(opened, refs)
            goal = opened.of_person(to)
            if number == to:
                raise Refusal(f"these parts are {opened.called(to)} already")
            rest = np.setdiff1d(opened.members.get(number, own), own)
            moves = [Move(opened.keys[i], None if number < 0 else number, to) for i in own]
            said = _left(opened, own, rest) + _one(opened, own, goal, own[0], opened.longest(goal))
            parts = _listed([opened.name(i) for i in own])
            text = f"{parts} {'is' if len(own) == 1 else 'are'} {opened.called(to)}"
            warnings = _at_once(opened, np.concatenate([own, goal]))
            return self._apply(opened, "move", text, moves, said) | {"person": to, "warnings": warnings}

    def name(self, number: int, name: str) -> dict[str, Any]:
        """A person has a name; an empty one takes it away.

        Raises:
            NotThere: nobody has the number.
            ValueError: the name is too long, has letters that cannot be shown, or is somebody else's.
        """
        with self.served.deciding, self.served.opened() as opened:
            opened.of_person(number)
            name = " ".join(name.split())
            if len(name) > MOST_LETTERS:
                raise Refusal(f"the name has {len(name)} letters, {MOST_LETTERS} are the most")
            if not name.isprintable():
                raise Refusal("the name has letters that cannot be shown")
            if other := [n for n, has in opened.names.items() if has == name and n != number and name]:
                raise Refusal(f"person {other[0]} has that name: merge the two, or choose another")
            old = opened.names.get(number, "")
            text = f"person {number} is called {name}" if name else f"person {number} has no name"
            return self._apply(opened, "name", text, names=[Naming(number, old, name)]) | {"person": number}

    def answer(self, a: str, b: str, what: str) -> dict[str, Any]:
        """An answer of the review: a and b are the same person, or not, or that cannot be told.

        Where it is "different" and they were one person, a leaves. After every `SUMMED` answers, what those
        changed is in "summary".

        Raises:
            NotThere: no such part.
            ValueError: no such answer, or one part twice.
        """
        if what not in ANSWERS:
            raise Refusal(f"the answer is {what[:20]!r}, expected {', '.join(ANSWERS)}")
        with self.served.deciding, self.served.opened() as opened:
            i, j = opened.position(a), opened.position(b)
            if i == j:
                raise Refusal("a part cannot be compared with itself")
            p, q = int(opened.person[i]), int(opened.person[j])
            note = {"pair": sorted([a, b]), "answer": what}
            moves: list[Move] = []
            said: list[Decision] = []
            ends = f"{opened.name(i)} and {opened.name(j)}"
            if what == "unsure":
                text = f"{ends}: cannot be told"
            elif what == "same":
                text = f"{ends} are one person"
                whole, other = (opened.members.get(n, np.array([at])) for n, at in ((p, i), (q, j)))
                said = _one(opened, whole, other, i, j)
                moves = _joined(opened, i, j)
            else:
                text = f"{ends} are two people"
                said = [_said(opened, False, i, j)]
                if p == q and p >= 0:
                    moves = [Move(opened.keys[i], p, opened.people.next_number())]
            result = self._apply(opened, what, text, moves, said, note=note)
        with self.served.opened() as opened:
            done = [step for step in opened.people.steps() if step.note.get("answer") and not step.undone]
            result["answers"] = len(done)
            summed = len(done) and len(done) % SUMMED == 0
            result["summary"] = _summary(opened, done[:SUMMED]) if summed else None
        return result

    def undo(self) -> dict[str, Any]:
        """Take the last step back.

        Raises:
            NotThere: there is none.
        """
        return self._turned("undo")

    def redo(self) -> dict[str, Any]:
        """Take the last step that was undone again.

        Raises:
            NotThere: there is none.
        """
        return self._turned("redo")

    def _turned(self, which: str) -> dict[str, Any]:
        """Undo or redo; "gone" are numbers that it left nobody with."""
        with self.served.deciding:
            with self.served.opened() as opened:
                step = opened.people.undo() if which == "undo" else opened.people.redo()
            if step is None:
                raise NotThere(f"there is nothing to {which}")
            with self.served.opened() as opened:
                touched = {n for move in step.moves for n in (move.old, move.new) if n is not None}
                gone = sorted(touched - set(opened.members))
        return {"did": f"{'undone' if which == 'undo' else 'again'}: {_words(step)}", "gone": gone}

    def history(self, limit: int = 100) -> list[dict[str, Any]]:
        """The last steps, newest first."""
        with self.served.opened() as opened:
            return [
                {"number": s.number, "at": s.at, "did": _words(s), "undone": s.undone, "kind": s.kind}
                for s in opened.people.steps(limit=limit)
            ]

    def _apply(
        self,
        opened: Opened,
        kind: str,
        text: str,
        moves: Sequence[Move] = (),
        said: Sequence[Decision] = (),
        names: Sequence[Naming] = (),
        note: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        step = Step(kind, tuple(moves), tuple(names), tuple(said), {"did": text, **(note or {})})
        done = opened.people.apply(step)
        return {"did": text, "step": done.number, "moved": len(moves)}

    def _of_one(self, opened: Opened, refs: Sequence[str]) -> tuple[Array, int]:
        """Positions of parts, and the one person (−1: nobody) that they are."""
        if not refs:
            raise Refusal("no part is chosen: tick those that are meant")
        own = np.unique([opened.position(ref) for ref in refs])
        numbers = np.unique(opened.person[own])
        if len(numbers) > 1:
            raise Refusal("these parts are several people: choose parts of one")
        return own, int(numbers[0])

    # What is asked

    def queue(self, n: int = 1, skip: Sequence[str] = ()) -> dict[str, Any]:
        """The n most uncertain links that nobody has spoken of, each two parts and a probability.

        A link is a part and the rest of its person, shown by its longest other part; or two people who look
        alike, each by the longest part. Links of parts of a few pictures, in which there is little to see,
        come last.
        """
        with self.served.opened() as opened:
            links = self._links(opened)
            asked = {
                tuple(s.note["pair"]) for s in opened.people.steps() if s.note.get("pair") and not s.undone
            }
            left = [
                link
                for link in links
                if tuple(sorted((opened.refs[link[1]], opened.refs[link[2]]))) not in asked
            ]
            pairs = [
                {
                    "a": shown(opened, i),
                    "b": shown(opened, j),
                    "probability": round(p, 3),
                    "kind": kind,
                    "question": _question(opened, i, j, kind),
                }
                for p, i, j, kind in left[:n]
            ]
            answers = sum(1 for s in opened.people.steps() if s.note.get("answer") and not s.undone)
            return {"pairs": pairs, "left": len(left), "answers": answers}

    def _links(self, opened: Opened) -> list[tuple[float, int, int, str]]:
        """(probability, part, part, kind) of all links, the most uncertain first; computed once a version."""
        if self._queue is None or self._queue[0] != (opened.gallery, opened.version):
            chances = self.finder.chances(opened)
            links = _inside(opened) + ([] if chances is None else _between(opened, chances))
            crops = opened.entries.n_crops
            scrap = [bool(min(crops[link[1]], crops[link[2]]) < _FEW) for link in links]
            order = sorted(range(len(links)), key=lambda i: (scrap[i], abs(links[i][0] - 0.5), links[i][1:3]))
            links = [links[i] for i in order]
            self._queue = (opened.gallery, opened.version), links
        return self._queue[1]


def _inside(opened: Opened) -> list[tuple[float, int, int, str]]:
    """Links of parts to the rest of their person."""
    crops = opened.entries.n_crops
    links = []
    for own in opened.members.values():
        if len(own) < 2:
            continue
        order = own[np.argsort(-crops[own], kind="stable")]
        for i in own.tolist():
            p = float(opened.probability[i])
            if not math.isnan(p) and opened.how[i] != "reviewed":
                other = int(order[1] if order[0] == i else order[0])
                links.append((p, i, other, "inside"))
    return links


def _between(opened: Opened, chances: Chances) -> list[tuple[float, int, int, str]]:
    """Links of people who look alike, but for those in view of one camera at once."""
    e = opened.entries
    crops = {number: int(e.n_crops[own].sum()) for number, own in opened.members.items()}
    people = sorted(crops, key=lambda n: (-crops[n], n))[:_LOOKED_AT]
    if len(people) < 2:
        return []
    best = [opened.longest(opened.members[n]) for n in people]
    query = np.stack([opened.gallery.feature(int(e.row[i])) for i in best])
    widest = max(len(opened.members[n]) for n in people)
    exclude = np.full((len(people), widest), -1, np.int64)
    for line, n in zip(exclude, people, strict=True):
        line[: len(opened.members[n])] = e.row[opened.members[n]]
    found = opened.gallery.search(query, _ALIKE, exclude=exclude)
    links: dict[tuple[int, int], tuple[float, int, int, str]] = {}
    for i, n, rows, distances in zip(
        best, people, found.index.tolist(), found.distance.tolist(), strict=True
    ):
        for row, distance in zip(rows, distances, strict=True):
            j = opened.at_row(row) if row >= 0 else -1
            m = int(opened.person[j]) if j >= 0 else -1
            if m < 0:
                continue
            pair = (min(n, m), max(n, m))
            chance = chances(distance, same_camera=e.camera[i] == e.camera[j])
            known = links.get(pair)
            if known is None or chance > known[0]:
                links[pair] = (chance, i, j, "between")
    return [
        link
        for (n, m), link in links.items()
        if not _at_once(opened, np.concatenate([opened.members[n], opened.members[m]]))
    ]


def _question(opened: Opened, i: int, j: int, kind: str) -> str:
    if kind == "inside":
        return f"Taken for one person, {opened.called(int(opened.person[i]))}. Is it?"
    p, q = (opened.called(int(opened.person[at])) for at in (i, j))
    return f"Taken for two people, {p} and {q}. Are they one?"


def _said(opened: Opened, same: bool, i: int, j: int) -> Decision:
    return Decision(same, _place(opened, i), _place(opened, j))


def _place(opened: Opened, i: int) -> Place:
    """A frame that is a part's for good: its first."""
    key = opened.keys[int(i)]
    return Place(key.set, key.track, key.first)


def _left(opened: Opened, own: Array, rest: Array) -> list[Decision]:
    """What it says that some parts leave the rest: they are one, and nobody of the rest.

    Where they were what tied the rest together, by an earlier word, that is said of the rest itself.
    """
    said = [_said(opened, True, a, b) for a, b in pairwise(own.tolist())]
    said += [_said(opened, False, own[0], r) for r in rest]
    if _spoken(opened, own, rest, same=True):
        said += [_said(opened, True, a, b) for a, b in pairwise(rest.tolist())]
    return said


def _one(opened: Opened, own: Array, others: Array, i: int, j: int) -> list[Decision]:
    """What it says that two people are one, shown by parts i and j: earlier words against it hold no more."""
    undone = _spoken(opened, own, others, same=False)
    return [_said(opened, True, a, b) for a, b in dict.fromkeys([(int(i), int(j)), *undone])]


def _spoken(opened: Opened, own: Array, others: Array, *, same: bool) -> list[tuple[int, int]]:
    """Pairs of parts, one of each group, that a step in force takes for one person, or for two."""
    at = {(k.set, k.track, k.first): i for i, k in enumerate(opened.keys)}
    left, right = set(own.tolist()), set(others.tolist())
    found = []
    for decision in opened.people.decisions():
        a, b = (at.get((place.set, place.track, place.frame), -1) for place in (decision.a, decision.b))
        if decision.same == same and a in left and b in right:
            found.append((a, b))
        elif decision.same == same and b in left and a in right:
            found.append((b, a))
    return found


def _joined(opened: Opened, i: int, j: int) -> list[Move]:
    """What moves where two parts are one person: the person in view for a shorter time."""
    p, q = int(opened.person[i]), int(opened.person[j])
    if p == q and p >= 0:
        return []
    if p < 0 and q < 0:
        number = opened.people.next_number()
        return [Move(opened.keys[at], None, number) for at in (i, j)]
    if p < 0 or q < 0:
        return [Move(opened.keys[i if p < 0 else j], None, max(p, q))]
    crops = opened.entries.n_crops
    sizes = {n: (n in opened.names, int(crops[opened.members[n]].sum()), -n) for n in (p, q)}
    keep = max(sizes, key=sizes.__getitem__)
    gone = q if keep == p else p
    return [Move(opened.keys[at], gone, keep) for at in opened.members[gone]]


def _at_once(opened: Opened, positions: Array) -> list[str]:
    """Parts, taken for different people, that one camera saw at the same moment: hardly one person."""
    e = opened.entries
    order = sorted(positions.tolist(), key=lambda i: (int(e.set[i]), int(e.camid[i]), int(e.first_frame[i])))
    found = []
    open_: list[int] = []
    for i in order:
        open_ = [
            j
            for j in open_
            if e.set[j] == e.set[i] and e.camid[j] == e.camid[i] and e.last_frame[j] >= e.first_frame[i]
        ]
        for j in open_:
            apart = opened.person[i] != opened.person[j] or opened.person[i] < 0
            if apart and e.source[i] != e.source[j] and _film(opened, i) == _film(opened, j):
                found.append(f"{opened.name(j)} and {opened.name(i)} were in view of {e.camera[i]} at once")
        open_.append(i)
    return found[:3]


def _film(opened: Opened, i: int) -> int:
    """The film of its set that a part is from; −1 where the set is not there."""
    e = opened.entries
    try:
        return int(opened.searcher.tracklet_set(int(e.set[i])).file[int(e.source[i])])
    except (Refusal, OSError):
        return -1


def _summary(opened: Opened, steps: Sequence[Step]) -> dict[str, Any]:
    """What answers changed."""
    kinds = {what: sum(step.note.get("answer") == what for step in steps) for what in ANSWERS}
    merged = {(m.old, m.new) for s in steps if s.kind == "same" for m in s.moves if m.old is not None}
    left = sum(len(s.moves) for s in steps if s.kind == "different")
    n_moved = sum(len(s.moves) for s in steps)
    confirmed = sum(1 for s in steps if s.kind != "unsure" and not s.moves)
    text = (
        f"{len(steps)} answers: {kinds['same']} same, {kinds['different']} different, "
        f"{kinds['unsure']} unsure. "
        f"{count(len(merged), 'person was', 'people were')} joined to others, "
        f"{count(left, 'part')} left a person, "
        f"{count(confirmed, 'link was', 'links were')} as you say already. "
        f"There are {count(len(opened.members), 'person', 'people')} now."
    )
    return {
        "text": text,
        **kinds,
        "merged": len(merged),
        "left": left,
        "moved": n_moved,
        "people": len(opened.members),
    }


def _words(step: Step) -> str:
    return str(step.note.get("did") or step.kind)


def _listed(names: Sequence[str]) -> str:
    """a, b and c; of many the first.

    >>> _listed(["a", "b", "c"])
    'a, b and c'
    """
    if len(names) > 4:
        return f"{', '.join(names[:3])} and {len(names) - 3} more"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
