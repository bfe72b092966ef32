"""Rows that are the frames of tracklets: checked, and shared out to threads in runs of whole tracklets."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from tracklearn.types import Array, Refusal

if TYPE_CHECKING:
    from torch import Tensor


_SPAN = 1 << 20  # numbers of short tracklets that one thread takes at a time: 4 MB


def check_rows(features: Array | Tensor, tracklet: Array, frame: Array | None, time: Array | None) -> Array:
    """The tracklet of each row, after refusing rows that do not fit together.

    Args:
        features, tracklet, frame, time: as for `isolate.isolate`; None is not looked at.

    Raises:
        ValueError: another shape, or rows that are not sorted by (tracklet, frame).
    """
    n = len(features)
    for name, value, shape in (
        ("tracklet", tracklet, (n,)),
        ("frame", frame, (n,)),
        ("time", time, (n,)),
    ):
        if value is not None and np.shape(value) != shape:
            raise Refusal(f"{name} has shape {np.shape(value)}, expected {shape}: one row per crop")
    tracklet = np.asarray(tracklet)
    # Compared, not subtracted: differences of unsigned numbers are never negative.
    if (tracklet[1:] < tracklet[:-1]).any():
        raise Refusal("tracklet decreases: sort the rows by (tracklet, frame)")
    if frame is not None:
        frame = np.asarray(frame)
        back = np.flatnonzero((frame[1:] < frame[:-1]) & (tracklet[1:] == tracklet[:-1]))
        if len(back):
            raise Refusal(
                f"frame decreases inside a tracklet at row {back[0] + 1}: sort the rows by (tracklet, frame)"
            )
    return tracklet


def spans_of(edge: Array, width: int) -> list[tuple[int, int]]:
    """First and last-plus-one tracklet of runs of about `_SPAN` numbers."""
    group = edge[:-1] // max(1, _SPAN // max(1, width))
    cut = np.r_[0, np.flatnonzero(np.diff(group)) + 1, len(group)]
    return [(int(a), int(b)) for a, b in pairwise(cut) if b > a]
