"""How tall people are in the picture of a fixed camera: a straight line in the row of their feet.

On flat ground before a camera without roll a person of height H whose feet appear at row y measures
b · (y − horizon) pixels, b = H / (height of the camera) [Hoiem, Efros, Hebert, "Putting objects in
perspective", CVPR 2006]: tall = a + b · y with b ≥ 0. People differ by a tenth, blobs by more, and many blobs
are no whole person: the line is fitted by consensus.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tracklearn.types import Array

# How far a person's height may lie from the line, as a fraction of it: people, their steps and their blobs.
TOLERANCE = 0.15
# A law that explains less than this share of the evidence is none.
LEAST_SHARE = 0.5
# b is the height of a person over that of the camera: one held at the knee has 4.
_STEEPEST = 4.0
_KEPT = 1000
_TRIALS = 400
_CLEARLY = 1.05
# Share of the evidence, at either end, that does not widen the rows that are known.
_STRAY = 0.005
# Share of those who agree with the law whom a detector must have seen for its word to count against a box.
_LOOKS_TELL = 0.4
_RECENT = 50


@dataclass(frozen=True)
class SizeLaw:
    """tall = offset + slope · foot, in pixels, and wide = ratio · tall.

    Args:
        offset, slope: a and b; the foot is the row of the box's lower edge.
        ratio: width over height of a person.
        share: of the evidence that lies within `TOLERANCE` of the line, 0–1.
        samples: how many whole people were looked at.
        lowest, highest: rows of feet between which they stood.
        seen: whether a detector of people has looked at them; otherwise they are known by their shape alone.
    """

    offset: float
    slope: float
    ratio: float
    share: float
    samples: int
    lowest: float
    highest: float
    seen: bool

    @property
    def far(self) -> float:
        """The row above which the law is not known: 0.6 as tall as the farthest that was seen."""
        tall = self.offset + self.slope * self.lowest
        return self.lowest - (min(0.5, 0.4 / self.slope) if self.slope else 0.25) * tall

    @property
    def near(self) -> float:
        """The row below which it is not known: 1.6 times as tall as the nearest that was seen."""
        tall = self.offset + self.slope * self.highest
        return self.highest + (min(0.7, 0.6 / self.slope) if self.slope else 0.25) * tall

    def knows(self, foot: float) -> bool:
        """Whether the law holds for feet at this row."""
        return self.far <= foot <= self.near

    def at(self, foot: float) -> tuple[float, float]:
        """Height and width in pixels of a person with the feet at this row; level where that is not known."""
        tall = self.offset + self.slope * min(max(foot, self.far), self.near)
        return tall, tall * self.ratio

    def zoomed(self, zoom: float) -> SizeLaw:
        """The same law for pictures `zoom` times as large."""
        rows = {name: zoom * getattr(self, name) for name in ("offset", "lowest", "highest")}
        return replace(self, **rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain values under the field names, rounded."""
        found = asdict(self)
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in found.items()}


class PersonSize:
    """Gathers whole people as they are seen and fits the law, anew as they grow in number.

    The last thousand count. What never comes in cannot pull the law down: nothing that was cut out by it is
    evidence, and people whom a detector has seen stand above any number of blobs of which only the shape is
    known.

    Attributes:
        law: None where there is none.
        looks_tell: whether the detector mostly knows this scene's people when it sees them, so that what it
            does not know is hardly one.
    """

    NEEDED = 20

    def __init__(self) -> None:
        self.law: SizeLaw | None = None
        self.looks_tell = False
        self._all: deque[tuple[float, float, float, bool]] = deque(maxlen=_KEPT)
        self._seen: deque[tuple[float, float, float]] = deque(maxlen=_KEPT)
        self._since = 0

    def add(self, foot: float, tall: float, wide: float, *, seen: bool) -> None:
        """A whole person, the feet at row `foot`; `seen`: a detector says so too."""
        self._all.append((foot, tall, wide, seen))
        if seen:
            self._seen.append((foot, tall, wide))
        vouched = len(self._seen) >= self.NEEDED
        if vouched and not seen:
            return
        self._since += 1
        n = self.n_evidence
        if n == self.NEEDED or (n > self.NEEDED and self._since >= max(10, n // 10)):
            self._since = 0
            self.law = fit(np.array(self._seen if vouched else self._all)[:, :3], seen=vouched)
            self.looks_tell = vouched and self._share_seen() >= _LOOKS_TELL

    @property
    def n_evidence(self) -> int:
        """How many whole people the law is, or would be, fitted to; a thousand at most."""
        n_seen = len(self._seen)
        return n_seen if n_seen >= self.NEEDED else len(self._all)

    def moved(self) -> None:
        """The picture has changed as a whole: what comes now is to outweigh soon what was before."""
        for known in (self._all, self._seen):
            while len(known) > _RECENT:
                known.popleft()

    def _share_seen(self) -> float:
        """Of the last thousand of all who agree with the law, the share that a detector saw."""
        if self.law is None:
            return 0.0
        foot, tall, _, seen = np.array(self._all).T
        agrees = _error(self.law.offset, self.law.slope, foot, tall) <= 1
        return float(seen[agrees].mean()) if agrees.any() else 0.0


def fit(sample: Array, *, seen: bool = False) -> SizeLaw | None:
    """The law that most of the evidence agrees on; None where less than half of it does.

    Consensus of pairs (RANSAC, scored as MSAC), then least squares on those that agree, weighted so that the
    error counts relative to the height. A level line stands where people's rows are too alike to tell a
    slope.

    Args:
        sample: (n, 3) float, foot, height and width of whole people, pixels; n ≥ 2.
        seen: whether a detector of people vouches for them. Otherwise each counts by its area: a fragment of
            a person is small and must not outvote the whole ones.

    Source: Fischler, Bolles, "Random sample consensus", CACM 1981; Torr, Zisserman, "MLESAC", CVIU 2000, for
        the score. Tolerance, trials and the bound of slopes [chosen].
    """
    foot, tall, wide = np.asarray(sample, np.float64).T
    weight = np.ones(len(foot)) if seen else tall * wide
    weight /= weight.sum()
    offset, slope = _consensus(foot, tall, weight)
    for _ in range(3):
        agrees = _error(offset, slope, foot, tall) <= 1
        if agrees.sum() < 2:
            return None
        offset, slope = _least_squares(foot[agrees], tall[agrees], weight[agrees], sloped=slope > 0)
    agrees = _error(offset, slope, foot, tall) <= 1
    share = float(weight[agrees].sum())
    if share < LEAST_SHARE:
        return None
    ratio = float(np.median(wide[agrees] / tall[agrees]))
    rows = _range(foot[agrees], np.sqrt(weight[agrees]))
    return SizeLaw(offset, slope, ratio, share, len(foot), *rows, seen)


def _consensus(foot: Array, tall: Array, weight: Array) -> tuple[float, float]:
    """Offset and slope of the line, through two people or level through one, that explains most."""
    rng = np.random.default_rng(len(foot))  # equal evidence, equal law
    one, other = rng.integers(0, len(foot), (2, _TRIALS))
    # Feet closer than this say nothing about the slope.
    apart = np.abs(foot[one] - foot[other]) >= 0.25 * np.median(tall)
    slope = np.where(apart, (tall[one] - tall[other]) / np.where(apart, foot[one] - foot[other], 1), 0)
    slope = np.where((slope >= 0) & (slope <= _STEEPEST), slope, 0)
    slope[: _TRIALS // 4] = 0
    offset = tall[one] - slope * foot[one]
    error = _error(offset[:, None], slope[:, None], foot, tall)
    score = np.maximum(1 - error * error, 0) @ weight
    # A level line has one number less, and is the better one unless the other explains clearly more.
    score[slope > 0] /= _CLEARLY
    best = int(score.argmax())
    return float(offset[best]), float(slope[best])


def _range(foot: Array, weight: Array) -> tuple[float, float]:
    """The rows between which nearly all of the weight stands: not where a fragment agrees by chance."""
    order = np.argsort(foot, kind="stable")
    below = np.cumsum(weight[order]) / weight.sum()
    first, last = np.searchsorted(below, [_STRAY, 1 - _STRAY])
    return float(foot[order[first]]), float(foot[order[min(int(last), len(foot) - 1)]])


def _error(offset: Array | float, slope: Array | float, foot: Array, tall: Array) -> Array:
    """How far heights lie from the line, as a fraction of it, in units of the tolerance."""
    return np.abs(tall / np.maximum(offset + slope * foot, 1) - 1) / TOLERANCE


def _least_squares(foot: Array, tall: Array, weight: Array, *, sloped: bool) -> tuple[float, float]:
    """Offset and slope of the line of least relative error; a slope that cannot be makes it level."""
    weight = np.sqrt(weight) / tall
    if sloped:
        slope, offset = np.polyfit(foot, tall, 1, w=weight)
        if 0 <= slope <= _STEEPEST:
            return float(offset), float(slope)
    return float(np.average(tall, weights=weight**2)), 0.0
