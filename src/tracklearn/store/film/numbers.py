"""Which frame of a film is shown when, by its packets alone: what lets it be entered in the middle.

A frame's number is its place among all that are shown, its time the stamp: that is what reading from the
beginning comes to where every packet is one picture and no stamp has to be mended. Where that is not so, the
numbers cannot be known without decoding all of it, and the film says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tracklearn.store.film.stamps import Clock
from tracklearn.types import Array

# Codecs keep at most 16 pictures back: a packet further from its place has a stamp of another clock.
_REORDERED = 32
# Key frames before a place that are tried one after the other; containers without an index are hit roughly.
_TRIED = 8


class Unnumbered(Exception):
    """Frame numbers of a film cannot be known without reading it from its beginning; says why."""


@dataclass(frozen=True, eq=False)
class Stretch:
    """Some frames of a film in a row, and where to enter it for them.

    Args:
        own: first of the frames that count as this stretch's, and the one after the last; those before and
            behind are read along.
        first: number of the first frame that is read.
        stamp: (n,) seconds by the film's own clock, one for each frame that is read.
        zero: stamp of the film's first frame.
        enter: stamps of key frames at or before the first, the nearest first.
    """

    own: tuple[int, int]
    first: int
    stamp: Array
    zero: float
    enter: tuple[float, ...]

    def number(self, stamp: float) -> int | None:
        """The frame that is shown then; None where it is none of these."""
        i = int(np.searchsorted(self.stamp, stamp))
        return self.first + i if i < len(self.stamp) and self.stamp[i] == stamp else None


@dataclass(frozen=True, eq=False)
class Numbers:
    """The frames of a whole film.

    Args:
        stamp: (n,) float64, rising; frame i is shown stamp[i] - stamp[0] seconds after the first.
        key: (k,) numbers of the frames at which decoding may begin, rising.
    """

    stamp: Array
    key: Array

    def at(self, seconds: float) -> int:
        """Number of the first frame at or after so many seconds."""
        return int(np.searchsorted(self.stamp - self.stamp[0], seconds))

    def stretch(self, own: tuple[int, int], *, before: float, after: float) -> Stretch:
        """The frames `own`, with those of so many seconds before and after them read along."""
        begin, end = own
        time = self.stamp - self.stamp[0]
        first = int(np.searchsorted(time, time[begin] - before))
        last = len(time) if end == len(time) else int(np.searchsorted(time, time[end] + after))
        keys = self.key[self.key <= first][-_TRIED:]
        places = tuple(self.stamp[keys[::-1]].tolist())
        return Stretch(own, first, self.stamp[first:last], float(self.stamp[0]), places)


def numbers_of(
    stamps: Sequence[float | None], key: Sequence[bool], shown: Sequence[float | None], *, rate: float
) -> Numbers:
    """The frames' numbers and times.

    Args:
        stamps: seconds at which the picture of each packet is shown, in the order of the file.
        key: whether decoding may begin at each.
        shown: stamps of the first pictures, as they were decoded.
        rate: frames per second.

    Raises:
        Unnumbered: some have no stamp, or stamps have to be mended, or pictures are not those of the packets.

    >>> numbers_of([0.0, 0.2, 0.1, 0.3], [True, False, False, True], [0.0, 0.1], rate=10).key.tolist()
    [0, 3]
    """
    known = [stamp for stamp in stamps if stamp is not None]
    if not known or len(known) < len(stamps):
        raise Unnumbered("frames of it have no time stamps")
    at = np.asarray(known, np.float64)
    order = np.argsort(at, kind="stable")
    if np.abs(order - np.arange(len(order))).max() > _REORDERED:
        raise Unnumbered("its time stamps start again")
    stamp = at[order]
    clock, rising = Clock(rate), stamp.tolist()
    for here, following in zip(rising, [*rising[1:], None], strict=True):
        clock.next(here, following=following)
    if clock.mended:
        raise Unnumbered("its time stamps have to be mended")
    if list(shown) != rising[: len(shown)]:
        raise Unnumbered("its packets are not one picture each")
    return Numbers(stamp, np.flatnonzero(np.asarray(key, bool)[order]))
