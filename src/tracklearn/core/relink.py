"""Tracking again by appearance: a tracker's tracks in, people's numbers out, frame by frame, some time later.

A tracker follows boxes by motion. Where it loses somebody, he comes back as another track; where two people
meet, a track may go on with the wrong one. Here tracks are cut where what is in their boxes changes for good
(`isolate`), and a piece that begins is given to the person it looks like, wherever he was last seen, or to
nobody known. Time only forbids: who is in view beside a piece is somebody else.

Rows get their numbers when they have waited for a while, or at once; numbers are never taken back.

Source: ours (METHODS 8a); average linkage and cannot-links as in `identities`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tracklearn.core.appearance import FEW, Bounds, apart, grouped, unit, without_scraps
from tracklearn.core.isolate import isolate
from tracklearn.core.whereabouts import SCRAP
from tracklearn.types import Array, Refusal

RATE = 10.0  # crops a second of a track that are looked at
CONTEXT = 3.0  # seconds of what has its number that are kept to find a change in
MAX_DELAY = 600.0  # seconds
NOBODY = -1


@dataclass(frozen=True, eq=False)
class Settled:
    """A frame whose boxes have their numbers.

    Args:
        frame: its number. number: (k,) int64 person from 1, each once, in order. box: (k, 4). score: (k,).
    """

    frame: int
    number: Array
    box: Array
    score: Array


@dataclass(slots=True, eq=False)
class _Track:
    """A tracker's track: the rows of its window, and what became of those before.

    first: rows that were let go. settled: rows that have a number, those let go included. number: that of
    the last of them. cut: when its last change was found to begin. Of each row of the window frame, time,
    box, unit feature if it was looked at, number.
    """

    serial: int
    seen: float
    looked: float = -np.inf
    cut: float = -np.inf
    over: bool = False
    first: int = 0
    settled: int = 0
    number: int = NOBODY
    frame: list[int] = field(default_factory=list)
    time: list[float] = field(default_factory=list)
    box: list[Array] = field(default_factory=list)
    feature: list[Array | None] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    def due(self, until: float) -> tuple[int, int]:
        """Rows of the window from .. to that need a number now."""
        return self.settled - self.first, bisect_right(self.time, until)

    def let_go(self, before: float) -> None:
        """Drop rows that have numbers and lie before a time."""
        n = min(bisect_left(self.time, before), self.settled - self.first)
        for rows in (self.frame, self.time, self.box, self.feature, self.numbers):
            del rows[:n]
        self.first += n


@dataclass(slots=True, eq=False)
class _Person:
    """What somebody looks like: for each of his pieces the sum of unit features and their number."""

    closed: Array
    weight: float = 0.0
    piece: dict[int, tuple[Array, int]] = field(default_factory=dict)

    def add(self, serial: int, feature: Array, sign: int) -> None:
        total, n = self.piece.get(serial, (0.0, 0))
        if n + sign > 0:
            self.piece[serial] = (total + sign * feature, n + sign)
        else:
            self.piece.pop(serial, None)

    def close(self, serial: int) -> None:
        """A piece to which nothing will be added."""
        if serial in self.piece:
            total, n = self.piece.pop(serial)
            self.closed = self.closed + n * unit(total)
            self.weight += n

    def mean(self) -> tuple[Array, float]:
        """The mean of the pieces' unit means by their crops, and how many crops these are."""
        total, weight = self.closed.astype(np.float64), self.weight
        for each, n in self.piece.values():
            total = total + n * unit(each)
            weight += n
        return total / max(weight, 1.0), weight


@dataclass(slots=True, eq=False)
class _Piece:
    """Rows of a track's window that show one person.

    number: who that is, NOBODY where it is asked for. held: rows that speak for it. total, n: of the rows
    looked at. due: some of the rows need a number now.
    """

    track: _Track
    row: Array
    number: int
    held: int
    total: Array | None
    n: int
    due: bool


class Relinker:
    """Gives people's numbers to a tracker's boxes.

    Frames come in order by `add` and leave in order, the latest with the first frame that comes `delay`
    seconds after. Memory: the rows of the last delay and CONTEXT seconds, and two features a person.

    Args:
        bounds: where one person ends.
        delay: seconds that a row may wait, 0-600. Half of it is looked ahead at least. 0 is causal: a track
            gets its number with its first row; where a change is found, from that row on another.
        max_gap: seconds; a track unseen for longer is over, and its number, should it come again, is another
            track's.

    Attributes:
        counts: frames, boxes, second boxes of a person in one frame (left out), tracks, changes at which
            tracks were cut, pieces that were given to a person known from another track, people.
    """

    def __init__(self, bounds: Bounds, *, delay: float, max_gap: float = 5.0) -> None:
        if not 0 <= delay <= MAX_DELAY:
            raise Refusal(
                f"the delay is {delay:g} seconds, expected 0 to {MAX_DELAY:g}: for a whole film at once "
                "there is tracklearn identities"
            )
        self.bounds, self.delay, self.max_gap = bounds, delay, max_gap
        self.counts = dict.fromkeys(("frames", "boxes", "second_boxes", "tracks", "cuts", "returns"), 0)
        self._open: dict[int, _Track] = {}
        self._tracks: list[_Track] = []
        self._people: dict[int, _Person] = {}
        self._waiting: deque[tuple[int, float, list[tuple[_Track, int]], Array, Array]] = deque()
        self._highest, self._now = 0, -np.inf

    @property
    def people(self) -> int:
        """How many numbers were given."""
        return self._highest

    def wanted(self, time: float, track: Array) -> Array:
        """(k,) bool, the boxes of a frame whose crops are to be looked at: RATE a second of each track."""
        step = 1 / RATE - 1e-6
        open_ = [self._open.get(int(one)) for one in track]
        return np.array(
            [one is None or self._is_over(one, time) or time - one.looked >= step for one in open_], bool
        )

    def add(
        self, frame: int, time: float, track: Array, box: Array, score: Array, feature: Sequence[Array | None]
    ) -> list[Settled]:
        """Take the next frame.

        Args:
            frame: its number, above those before. time: its seconds, likewise.
            track: (k,) int, the tracker's numbers, each once. box: (k, 4). score: (k,).
            feature: k unit features (d,), None for boxes that were not looked at.

        Returns:
            Frames that have their numbers now.
        """
        if not time > self._now:
            raise Refusal(f"time is {time}, expected seconds after {self._now}: pass frames in order")
        self._now = time
        rows = []
        for i, number in enumerate(np.asarray(track).tolist()):
            one = self._open.get(number)
            if one is None or self._is_over(one, time):
                one = self._begun(number, time)
            one.frame.append(frame)
            one.time.append(time)
            one.box.append(np.asarray(box[i], np.float64))
            one.numbers.append(NOBODY)
            given = feature[i]
            one.feature.append(None if given is None else np.asarray(given, np.float32))
            if given is not None:
                one.looked = time
            one.seen = time
            rows.append((one, one.first + len(one.time) - 1))
        self._waiting.append((frame, time, rows, np.asarray(box), np.asarray(score)))
        self.counts["frames"] += 1
        if time - self._waiting[0][1] < self.delay - 1e-9:
            return []
        return self._settle(time - self.delay / 2)

    def close(self) -> list[Settled]:
        """The frames that are left: the film is over."""
        for one in self._tracks:
            one.over = True
        return self._settle(np.inf) if self._waiting else []

    def _is_over(self, one: _Track, time: float) -> bool:
        return time - one.seen > self.max_gap

    def _begun(self, number: int, time: float) -> _Track:
        if number in self._open:
            self._open[number].over = True
        one = _Track(self.counts["tracks"], time)
        self.counts["tracks"] += 1
        self._open[number] = one
        self._tracks.append(one)
        return one

    def _settle(self, until: float) -> list[Settled]:
        """Numbers for all rows up to a time, and the frames that they complete."""
        self._decide(until)
        out = []
        while self._waiting and self._waiting[0][1] <= until:
            out.append(self._written(*self._waiting.popleft()))
        kept = min(until, self._now) - max(CONTEXT, self.delay / 2)
        for one in self._tracks:
            one.let_go(max(kept, one.cut))
        self._forget()
        return out

    def _written(
        self, frame: int, _: float, rows: list[tuple[_Track, int]], box: Array, score: Array
    ) -> Settled:
        number = np.array([one.numbers[at - one.first] for one, at in rows], np.int64)
        order = np.lexsort((-score, number)) if len(rows) else np.zeros(0, np.int64)
        first = np.r_[True, np.diff(number[order]) != 0] if len(rows) else np.zeros(0, bool)
        kept = order[first]
        self.counts["boxes"] += len(kept)
        self.counts["second_boxes"] += len(order) - len(kept)
        return Settled(frame, number[kept], box.reshape(-1, 4)[kept], score[kept])

    def _forget(self) -> None:
        """Let go of tracks that are over and of which no row is kept."""
        left = []
        for one in self._tracks:
            one.over = one.over or self._is_over(one, self._now)
            if one.over and not one.time:
                for person in self._people.values():
                    person.close(one.serial)
            else:
                left.append(one)
        if len(left) < len(self._tracks):
            self._tracks = left
            self._open = {number: one for number, one in self._open.items() if not one.over}

    # Who is who among the rows that need a number

    def _decide(self, until: float) -> None:
        pieces = self._pieces(until)
        self._part_doubles(pieces)
        asked = [piece for piece in pieces if piece.due and piece.number == NOBODY]
        for piece, number in zip(asked, self._found(asked, pieces), strict=True):
            known, before = number in self._people, piece.track.number
            self.counts["returns"] += known and before != number
            self._number(piece, number)
        for piece in pieces:
            if not piece.due:
                continue
            one = piece.track
            begin, end = one.due(until)
            for row in piece.row[(piece.row >= begin) & (piece.row < end)].tolist():
                one.numbers[row] = piece.number
                self._learn(piece.number, one, row)
        for one in self._tracks:
            begin, end = one.due(until)
            if end > begin:
                self._noted(one, begin, end)

    def _noted(self, one: _Track, begin: int, end: int) -> None:
        """Rows of a track have their numbers now."""
        before = one.number
        for row in range(begin, end):
            if before not in (NOBODY, one.numbers[row]):
                self.counts["cuts"] += 1
                first = row
                while first and one.numbers[first - 1] == one.numbers[row]:
                    first -= 1
                one.cut = one.time[
                    first
                ]  # what was before is not looked at again: a change would come and go
            before = one.numbers[row]
        one.settled, one.number = one.first + end, before

    def _number(self, piece: _Piece, number: int) -> None:
        """Who a piece is that was asked for; rows that had another number are his in memory from now on."""
        one = piece.track
        if number not in self._people:
            self._people[number] = _Person(np.zeros(1))
        for row in piece.row[piece.row < one.settled - one.first].tolist():
            if one.numbers[row] != number:
                self._learn(one.numbers[row], one, row, sign=-1)
                one.numbers[row] = number
                self._learn(number, one, row)
        piece.number = number

    def _learn(self, number: int, one: _Track, row: int, sign: int = 1) -> None:
        feature = one.feature[row]
        if feature is not None:
            self._people[number].add(one.serial, feature, sign)

    def _fresh(self) -> int:
        self._highest += 1
        return self._highest

    def _pieces(self, until: float) -> list[_Piece]:
        """All that is in the windows, track by track; what has no number yet and is not due is left out."""
        due = [one for one in self._tracks if one.due(until)[0] < one.due(until)[1]]
        cut = [one for one in due if self._is_new(one, until)]
        label = dict(zip((one.serial for one in cut), self._labels(cut), strict=True))
        pieces: list[_Piece] = []
        for one in self._tracks:
            begin, end = one.due(until)
            number = np.array(one.numbers, np.int64)
            if one.serial not in label:  # what it was goes on
                number[begin:end] = one.number
                label[one.serial] = np.where(np.arange(len(number)) < end, number, NOBODY)
            own = []
            values, first = np.unique(label[one.serial], return_index=True)
            for value in values[np.argsort(first)]:
                row = np.flatnonzero(label[one.serial] == value)
                old = number[row[row < begin]]
                needs = bool(((row >= begin) & (row < end)).any())
                if not len(old) and not needs:
                    continue
                who, times = np.unique(old, return_counts=True)
                most = int(np.argmax(times)) if len(who) else NOBODY
                seen = [f for f in (one.feature[r] for r in row.tolist()) if f is not None]
                own.append(
                    _Piece(
                        track=one,
                        row=row,
                        number=int(who[most]) if len(who) else NOBODY,
                        held=int(times[most]) if len(who) else 0,
                        total=np.asarray(np.sum(seen, axis=0, dtype=np.float64)) if seen else None,
                        n=len(seen),
                        due=needs,
                    )
                )
            # A track that falls into pieces goes on as who it was in one of them, the one that holds most.
            for piece in own:
                rival = [p for p in own if p.number == piece.number and p is not piece]
                if piece.due and piece.number != NOBODY and any(p.held > piece.held for p in rival):
                    piece.number = NOBODY
            pieces += own
        return pieces

    def _is_new(self, one: _Track, until: float) -> bool:
        """Whether a look at a track may tell more than before."""
        begin, end = one.due(until)
        return one.number == NOBODY or any(f is not None for f in one.feature[begin:end])

    def _labels(self, tracks: list[_Track]) -> list[Array]:
        """For each track the piece of each row of its window."""
        at = [np.array([i for i, f in enumerate(one.feature) if f is not None], np.int64) for one in tracks]
        looked = [(one, rows) for one, rows in zip(tracks, at, strict=True) if len(rows)]
        if not looked:
            return [np.zeros(len(one.time), np.int64) for one in tracks]
        size = [len(rows) for _, rows in looked]
        part = isolate(
            np.stack([one.feature[r] for one, rows in looked for r in rows.tolist()]),
            np.repeat(np.arange(len(looked)), size),
            frame=np.array([one.frame[r] for one, rows in looked for r in rows.tolist()]),
            time=np.array([one.time[r] for one, rows in looked for r in rows.tolist()]),
            method="change-point",
            penalty=self.bounds.penalty,
            join=self.bounds.join,
            least=FEW,
        )
        parts = iter(np.split(part, np.cumsum(size)[:-1]))
        out = []
        for one, rows in zip(tracks, at, strict=True):
            if not len(rows):
                out.append(np.zeros(len(one.time), np.int64))
                continue
            goes_on = not one.over and self._now - one.seen < SCRAP
            # A row that was not looked at goes with the one before it.
            before = np.searchsorted(rows, np.arange(len(one.time)), side="right") - 1
            label = next(parts)[np.maximum(before, 0)]
            out.append(without_scraps(label, np.array(one.time), goes_on=goes_on))
        return out

    def _part_doubles(self, pieces: list[_Piece]) -> None:
        """Of two tracks in view at once under one number the one that has held it for less is asked again."""
        by_number: dict[int, list[_Piece]] = {}
        for piece in pieces:
            if piece.number != NOBODY:
                by_number.setdefault(piece.number, []).append(piece)
        for number, same in by_number.items():
            if len(same) < 2:
                continue
            held = self._people[number].piece
            same.sort(key=lambda p: (-held.get(p.track.serial, (0, 0))[1], p.track.serial))
            for i, piece in enumerate(same):
                others = [p for p in same[:i] if p.track is not piece.track and p.number != NOBODY]
                if piece.due and any(_at_once(piece, other) for other in others):
                    piece.number = NOBODY

    def _found(self, asked: list[_Piece], pieces: list[_Piece]) -> list[int]:
        """The person of each piece that is asked for: one who is known, or a new number."""
        number = [NOBODY] * len(asked)
        seen = [i for i, piece in enumerate(asked) if piece.total is not None]
        if seen:
            named = self._linked([asked[i] for i in seen], pieces)
            for i, value in zip(seen, named, strict=True):
                number[i] = value
        for i, piece in enumerate(asked):
            if piece.total is None:  # nobody could look at it
                number[i] = piece.track.number if piece.track.number != NOBODY else self._fresh()
        return number

    def _linked(self, asked: list[_Piece], pieces: list[_Piece]) -> list[int]:
        """Average linkage of new pieces and known people; people stay apart from one another."""
        mean = np.stack([unit(piece.total) for piece in asked])
        limit = [self.bounds.crop.cosine(len(self._people)), self.bounds.piece.cosine(len(self._people))]
        known_by = {name: one.mean() for name, one in self._people.items()}
        names = [name for name, (_, weight) in known_by.items() if weight > 0]
        person = [known_by[name] for name in names]
        if person:
            # Linkage is linear: whom none of them is near enough to, none of their groups is.
            near = (mean @ np.stack([vector for vector, _ in person]).T > min(limit)).any(0)
            names = [name for name, is_near in zip(names, near, strict=True) if is_near]
            person = [one for one, is_near in zip(person, near, strict=True) if is_near]
        n, k = len(asked), len(names)
        barred = np.zeros((n + k, n + k), bool)
        barred[n:, n:] = True
        place = {name: n + i for i, name in enumerate(names)}
        for i, piece in enumerate(asked):
            for j, other in enumerate(asked[:i]):
                barred[i, j] = barred[j, i] = other.track is not piece.track and _at_once(piece, other)
            for other in pieces:
                at = place.get(other.number)
                if at is not None and other.track is not piece.track and _at_once(piece, other):
                    barred[i, at] = barred[at, i] = True
        group = grouped(
            np.concatenate([mean, *(vector[None] for vector, _ in person)]),
            np.array([piece.n for piece in asked] + [weight for _, weight in person], np.float64),
            barred,
            few=limit[0],
            many=limit[1],
        )
        known = {int(group[place[name]]): name for name in names}
        order = sorted(range(n), key=lambda i: (asked[i].track.time[asked[i].row[0]], asked[i].track.serial))
        for i in order:
            if int(group[i]) not in known:
                known[int(group[i])] = self._fresh()
        return [known[int(group[i])] for i in range(n)]


def _at_once(a: _Piece, b: _Piece) -> bool:
    """Whether two pieces of two tracks are in view at once as two people are."""
    sides = []
    for piece in (a, b):
        rows = piece.row.tolist()
        sides.append(np.array([piece.track.frame[r] for r in rows], np.int64))
        sides.append(np.stack([piece.track.box[r] for r in rows]))
    return apart(*sides)
