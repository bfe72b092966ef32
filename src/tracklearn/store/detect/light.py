"""Pictures of a fixed camera put into one light: exposure, white balance and tone change by themselves."""

from __future__ import annotations

import cv2
import numpy as np

from tracklearn.types import Array

# Light is compared at every eighth pixel of every eighth row.
_SPARSE = 8
# A pixel agrees with the background within so many levels, and this fraction of its level more.
_NOISE, _FRACTION = 4.0, 0.04
# A table is good until the picture agrees with it by this much less than it has since it was made.
_WORN = 0.98
# Ranges of levels with a gain of their own, and how many pixels tell one.
_BINS = 8
_LEAST = 24
# Gains differ from their median by no more, and within a range by no more: else it is people that differ.
_SPREAD, _LOOSE = 0.35, 0.15
# A light that differs by more is another one: too much is burnt or dark for a table to undo it.
_SUDDEN = 0.3


class Light:
    """Tables of levels, one a channel, by which the picture has the light of the background.

    A range of levels has the gain that half of its pixels have; where the range is of people rather than of
    the background its pixels disagree, and the ranges beside it tell. A table is taken only if more of the
    picture agrees with it than without: however large the people are, they do not shine. A light that differs
    by more than three tenths is left as it is: then the background is to be learned anew.
    """

    def __init__(self) -> None:
        self._then: Array | None = None
        self._table: Array | None = None
        self._agreed = 0.0

    def look_back(self, background: Array) -> None:
        """Take the background as it is now.

        Args:
            background: (h, w, 3) uint8.
        """
        self._then = _sparse(background)

    def __call__(self, picture: Array) -> Array:
        """The picture in the light of the background, as it is before one was seen.

        Args:
            picture: (h, w, 3) uint8.
        """
        if self._then is None:
            return picture
        now, then = _sparse(picture), self._then
        agreed = _agreement(self._table, now, then)
        worn = agreed < _WORN * self._agreed or not self._agreed
        self._agreed = max(agreed, self._agreed)
        if worn:
            scored = [(agreed, self._table)]
            usual = np.median((then + 1.0) / (now + 1.0), axis=0)
            if np.abs(usual - 1).max() <= _SUDDEN:
                made = _tables(now, then, usual)
                scored.append((_agreement(made, now, then), made))
            self._agreed, self._table = max(scored, key=lambda each: each[0])
            bare = _agreement(None, now, then)
            if bare >= _WORN * self._agreed:  # nearly as good, and nothing to do
                self._agreed, self._table = bare, None
        return picture if self._table is None else cv2.LUT(picture, self._table[None])


def _sparse(picture: Array) -> Array:
    return picture[::_SPARSE, ::_SPARSE].reshape(-1, 3)


def _agreement(table: Array | None, now: Array, then: Array) -> float:
    """The share of pixels that are what they were."""
    seen = now if table is None else np.take_along_axis(table, now.astype(np.intp), axis=0)
    apart = np.abs(seen.astype(np.float32) - then)
    return float((apart <= _NOISE + _FRACTION * then).all(1).mean())


def _tables(now: Array, then: Array, usual: Array) -> Array:
    """(256, 3) uint8, for each channel the level then by the level now; `usual` are the median gains."""
    gain = (then + 1.0) / (now + 1.0)
    table = np.empty((256, 3), np.uint8)
    level = np.arange(256.0)
    for channel in range(3):
        ranges = now[:, channel] // (256 // _BINS)
        order = np.argsort(ranges, kind="stable")
        edges = np.searchsorted(ranges[order], np.arange(_BINS + 1))
        known: list[tuple[float, float]] = []
        for i in range(_BINS):
            values = gain[order[edges[i] : edges[i + 1]], channel]
            if len(values) < _LEAST:
                continue
            low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
            if high - low <= _LOOSE * middle and abs(middle / usual[channel] - 1) <= _SPREAD:
                known.append(((i + 0.5) * 256 / _BINS, float(middle)))
        knots = np.array(known or [(128.0, float(usual[channel]))]).T
        found = level * np.interp(level, *knots)
        table[:, channel] = np.rint(np.maximum.accumulate(found)).clip(0, 255)
    return table
