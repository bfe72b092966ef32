"""From the stamps of a video's frames to times that can be compared: seconds since the first frame.

A frame's own stamp is its time. What files hold instead is mended here, and counted: no stamp at all, one
twice, stamps that start again in the middle, and clocks that overflow.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

# A clock of 33 bits at 90 kHz, as in MPEG streams: it starts again after 26.5 hours.
MPEG_WRAP = (1 << 33) / 90_000
# A jump ahead beyond half of that is a jump back on such a clock, and no pause of a camera on any other.
_LONGEST_PAUSE = MPEG_WRAP / 2
# Stamps may stand still or fall back by so many frames without being a new clock.
_JITTER = 2.0
# A pause at the very moment of an overflow may last so many seconds.
_NEAR_OVERFLOW = 60.0
# The stamp after a faulty one is at most so many frames on.
_GOES_ON = 10.0
# Share of a frame by which one goes on whose stamp is no later than the one before.
_HELD = 0.25
# A nominal rate holds where it is this near to the stamps' own.
_AGREES = 1.25


@dataclass(frozen=True)
class Survey:
    """What the first packets of a stream say of its stamps.

    Args:
        rate: frames per second while there are frames, pauses left out; None where stamps are missing.
        reordered: packets are stamped in the order of decoding, although pictures are shown in another, as
            of H.264 with B-frames in AVI: such stamps do not say when a picture is shown.
    """

    rate: float | None = None
    reordered: bool = False


def survey(packets: Sequence[tuple[float | None, float | None]], shown: Sequence[float | None]) -> Survey:
    """Judge the stamps of a stream's first packets.

    Args:
        packets: presentation and decoding stamp of each, seconds, None where there is none.
        shown: stamps of the first pictures in the order in which the decoder hands them out; may be empty.
    """
    shows = [stamp for stamp in shown if stamp is not None]
    backwards = any(later < earlier for earlier, later in pairwise(shows))
    return Survey(_rate([decoding if shown is None else shown for shown, decoding in packets]), backwards)


def _rate(stamps: Sequence[float | None]) -> float | None:
    at = [stamp for stamp in stamps if stamp is not None]
    step = np.diff(np.sort(np.asarray(at, float)))
    step = step[step > 0]
    if not len(step):
        return None
    if len(at) < len(stamps):  # some are missing: a step may be that of several frames
        span = float(step[step <= _LONGEST_PAUSE].sum())
        return (len(stamps) - 1) / span if span else None
    usual = step[step <= 4 * np.median(step)]
    return len(usual) / float(usual.sum())


def rate_of(nominal: float | None, measured: float | None) -> float | None:
    """The nominal frame rate where the stamps agree with it, else theirs; None where neither is known.

    >>> rate_of(29.97, 30.3), rate_of(1000.0, 15.0), rate_of(5.7, 10.0)
    (29.97, 15.0, 10.0)
    """
    if nominal and measured and not 1 / _AGREES <= nominal / measured <= _AGREES:
        return measured
    return nominal or measured


class Clock:
    """Times of the frames of one file, always rising.

    Args:
        rate: frames per second, for frames without a stamp and where stamps start again.

    Attributes:
        time: seconds of the latest frame since the first; None before it.
        stamped: frames that had a stamp.
        mended: what was done to others -> frames.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.time: float | None = None
        self.stamped = 0
        self.mended = Counter[str]()
        self._start: float | None = None  # the stamp that is time 0
        self._guessed = 0.0  # seconds since the last stamp that were taken from the rate

    def ahead(self, stamp: float | None) -> float | None:
        """Seconds from the latest frame to this stamp; None where nothing can be said."""
        if stamp is None or self._start is None or self.time is None:
            return None
        return stamp - self._start - self.time

    def next(self, stamp: float | None, *, step: int = 1, following: float | None = None) -> float:
        """The time of the next frame.

        Args:
            stamp: its own, seconds on any clock.
            step: how many frames further it is; more than 1 where some could not be decoded.
            following: the stamp of the frame after it: a stamp far from both its neighbours is a fault.
        """
        passed = step / self.rate
        self.stamped += stamp is not None
        if self.time is None:
            self.time, self._start = 0.0, stamp
            return self.time
        if self._start is None or stamp is None:
            self._guess(passed)
            if stamp is not None:
                self._start, self._guessed = stamp - self.time, 0.0
            elif self._start is not None:
                self.mended["frames without a stamp: placed by the frame rate"] += 1
            return self.time
        if self._stray(stamp, following):
            self.mended["stamps far from those of both neighbours: placed by the frame rate"] += 1
            return self._guess(passed)
        ahead = stamp - self._start - self.time
        turned = self._start + math.copysign(MPEG_WRAP, ahead)
        if abs(ahead) > _LONGEST_PAUSE and abs(stamp - turned - self.time) < _NEAR_OVERFLOW:
            self._start = turned
            ahead = stamp - turned - self.time
        if ahead > _LONGEST_PAUSE or ahead < -_JITTER / self.rate - self._guessed - 1e-9:
            self.mended["stamps start again: the frame rate joins the parts"] += 1
            self._start = stamp - self.time - passed
            self.time = stamp - self._start
        elif ahead <= 0:
            self.mended["stamps no later than the one before: set a little after it"] += 1
            self.time += _HELD / self.rate
        else:
            self.time = stamp - self._start
        self._guessed = 0.0
        return self.time

    def _guess(self, passed: float) -> float:
        self.time = (self.time or 0.0) + passed
        self._guessed += passed
        return self.time

    def _stray(self, stamp: float, following: float | None) -> bool:
        """Whether this stamp lies far off, and the one after it goes on as if it had not been."""
        here, then = self.ahead(stamp), self.ahead(following)
        if here is None or then is None or not 0 < then < _GOES_ON / self.rate:
            return False
        return here > then + (1 + _JITTER) / self.rate or here < -_JITTER / self.rate - self._guessed
