"""The nouns that every layer shares: frozen, validated structs of arrays.

Identities (pids) have no place in `Tracklets`: training cannot see them. Ground truth travels as
`Truth`, a separate object that only evaluation and the noise measures accept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# What long work tells of itself: what is done, how much of it, and of how much, None where that is unknown.
Progress = Callable[[str, int, "int | None"], None]


class Refusal(ValueError):
    """What was asked for cannot be done as it was asked; the message says what to do, in one line.

    Every ValueError that this package raises itself is one. Any other, of a library beneath, is a defect of
    the program, and the command line says so.
    """


def _as(name: str, value: Any, dtype: Any, shape: tuple[int | None, ...], why: str) -> Array:
    """`value` as a read-only array of `dtype` in memory of its own; a refusal names the field."""
    given = np.asarray(value)
    if np.issubdtype(dtype, np.integer):
        _check_whole(name, given)
    array = np.ascontiguousarray(given, dtype=dtype)
    wrong = array.ndim != len(shape) or any(
        want is not None and got != want for got, want in zip(array.shape, shape, strict=True)
    )
    if wrong:
        wanted = "(" + ", ".join("any" if s is None else str(s) for s in shape) + ")"
        raise Refusal(f"{name} has shape {array.shape}, expected {wanted}: {why}")
    # Frozen means that the caller's own array may change.
    if isinstance(value, np.ndarray) and np.may_share_memory(array, value):
        array = array.copy()
    array.flags.writeable = False
    return array


def _check_whole(name: str, given: Array) -> None:
    if not given.size or given.dtype.kind in "bi":
        return
    if given.dtype.kind not in "uf":
        raise Refusal(f"{name} has dtype {given.dtype}, expected whole numbers")
    whole = np.isfinite(given) & (given == np.trunc(given)) & (abs(given) < 2**63)
    if not whole.all():
        raise Refusal(f"{name} holds {given[~whole].flat[0]}, expected whole numbers of 64 bits")


@dataclass(frozen=True, eq=False)
class Tracklets:
    """Tracklets of one set as a struct of arrays, rows sorted by (tracklet, frame).

    Args:
        tracklet: (n,) int64, the tracklet of each crop, from 0, non-decreasing.
        frame: (n,) int64, frame number in its video, from 0, non-decreasing inside a tracklet.
        time: (n,) float64, seconds since the start of its video.
        box: (n, 4) float32, (x1, y1, x2, y2) in pixels.
        score: (n,) float32, detection confidence, 0-1.
        crop: (n,) int64, row of the crop in the `Crops` that belongs to the set. Isolation drops rows
            and reorders them; this column still finds the pictures.
        camid: (t,) int64, camera of each tracklet, from 0.
        source: (t,) int64, the tracklet of the original set from which each was cut (itself at first).
        clock: (t,) int64, which clock its times are of: times of different clocks say nothing of each other,
            as of two recordings of which nobody knows when they began. All of one if left out.
        offset: (t,) float64, seconds from the zero of its clock to the start of its video; 0 if left out.

    Raises:
        ValueError: a shape or an order is wrong; the message names the field.
    """

    tracklet: Array
    frame: Array
    time: Array
    box: Array
    score: Array
    crop: Array
    camid: Array
    source: Array
    clock: Array = field(default_factory=lambda: np.zeros(0, np.int64))
    offset: Array = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        n = len(self.tracklet)
        t = len(self.camid)
        for name in ("clock", "offset"):
            if not len(getattr(self, name)):
                object.__setattr__(self, name, np.zeros(t))
        per_crop, per_tracklet = "one per crop", "one per tracklet"
        for name, dtype, shape, why in (
            ("tracklet", np.int64, (n,), per_crop),
            ("frame", np.int64, (n,), per_crop),
            ("time", np.float64, (n,), per_crop),
            ("box", np.float32, (n, 4), per_crop),
            ("score", np.float32, (n,), per_crop),
            ("crop", np.int64, (n,), per_crop),
            ("camid", np.int64, (t,), per_tracklet),
            ("source", np.int64, (t,), per_tracklet),
            ("clock", np.int64, (t,), per_tracklet),
            ("offset", np.float64, (t,), per_tracklet),
        ):
            object.__setattr__(self, name, _as(name, getattr(self, name), dtype, shape, why))
        for name in ("frame", "crop", "camid", "source", "clock"):
            value = getattr(self, name)
            if value.size and value.min() < 0:
                raise Refusal(f"{name} holds {value.min()}, expected numbers from 0")
        if n:
            step = np.diff(self.tracklet)
            if self.tracklet[0] < 0 or self.tracklet[-1] >= t or (step < 0).any():
                raise Refusal(
                    f"tracklet must be non-decreasing within 0..{t - 1} (camid has {t} rows): "
                    "sort the crops by (tracklet, frame)"
                )
            if ((step == 0) & (np.diff(self.frame) < 0)).any():
                row = int(np.flatnonzero((step == 0) & (np.diff(self.frame) < 0))[0]) + 1
                raise Refusal(f"frame decreases inside a tracklet at row {row}: sort by (tracklet, frame)")

    def __len__(self) -> int:
        """Number of tracklets, t."""
        return len(self.camid)

    @property
    def n_crops(self) -> int:
        """Number of crops, n."""
        return len(self.tracklet)

    @property
    def n_cameras(self) -> int:
        """One more than the highest camid; 0 for an empty set."""
        return int(self.camid.max()) + 1 if len(self.camid) else 0

    @property
    def clock_time(self) -> Array:
        """(n,) float64, seconds on the clock of its tracklet: what may be compared between tracklets."""
        return self.time + self.offset[self.tracklet]

    @property
    def start(self) -> Array:
        """(t + 1,) int64: crops of tracklet i are rows start[i]:start[i + 1]."""
        return np.searchsorted(self.tracklet, np.arange(len(self) + 1))

    @property
    def length(self) -> Array:
        """(t,) int64: number of crops in each tracklet."""
        return np.bincount(self.tracklet, minlength=len(self))

    def split(self, part: Array) -> Tracklets:
        """The tracklets cut along `part`: every (tracklet, part) pair becomes a tracklet of its own.

        Args:
            part: (n,) int, the part of each crop within its tracklet; a crop with one below 0 is left out.

        Returns:
            New tracklets, numbered from 0 in the order of (tracklet, part); `source` refers to the source
            of the tracklet they were cut from. Tracklets that lose every crop disappear.

        Raises:
            ValueError: `part` has another length.
        """
        part = _as("part", part, np.int64, (self.n_crops,), "one per crop")
        keep = np.flatnonzero(part >= 0)
        order = keep[np.lexsort((self.frame[keep], part[keep], self.tracklet[keep]))]
        key = np.stack([self.tracklet[order], part[order]], 1)
        new = np.zeros(len(order), np.int64)
        if len(order):
            new[1:] = np.cumsum((np.diff(key, axis=0) != 0).any(1))
        first = np.flatnonzero(np.r_[True, np.diff(new) > 0]) if len(order) else np.zeros(0, np.int64)
        old = self.tracklet[order][first]
        return Tracklets(
            tracklet=new,
            frame=self.frame[order],
            time=self.time[order],
            box=self.box[order],
            score=self.score[order],
            crop=self.crop[order],
            camid=self.camid[old],
            source=self.source[old],
            clock=self.clock[old],
            offset=self.offset[old],
        )

    def arrays(self) -> dict[str, Array]:
        """The fields by name, for writing."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@runtime_checkable
class Crops(Protocol):
    """Pictures by row: a store on disk is one, an in-memory array wrapped by `ArrayCrops` is one."""

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int] | Array) -> Array:
        """The crops of these rows as uint8 RGB (b, h, w, 3), all of one size."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayCrops:
    """Crops held in memory, (n, h, w, 3) uint8 RGB."""

    images: Array

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.shape[-1] != 3 or self.images.dtype != np.uint8:
            raise Refusal(f"images must be uint8 (n, h, w, 3), got {self.images.dtype} {self.images.shape}")

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: Sequence[int] | Array) -> Array:
        """The crops of these rows, (b, h, w, 3) uint8 RGB."""
        return self.images[np.asarray(indices, dtype=np.int64)]


@dataclass(frozen=True, eq=False)
class Truth:
    """Ground truth of a set; training never receives one.

    Args:
        pid: (n_rows,) int64, person of each crop row of the store (indexed by `Tracklets.crop`);
            −1 where nobody is known to be in the box.
    """

    pid: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "pid", _as("pid", self.pid, np.int64, (len(self.pid),), "one per crop"))


@dataclass(frozen=True, eq=False)
class PseudoLabels:
    """One round's guesses.

    Args:
        label: (t,) int64, cluster of each tracklet, −1 for noise.
        weight: (t,) float32, how much each tracklet counts in training; ones unless a method says so.
        space: (t,) int64, −1 where labels hold over all cameras, otherwise the camid inside which they
            hold (UGA stage 1).
    """

    label: Array
    weight: Array
    space: Array

    def __post_init__(self) -> None:
        t = len(self.label)
        for name, dtype in (("label", np.int64), ("weight", np.float32), ("space", np.int64)):
            object.__setattr__(self, name, _as(name, getattr(self, name), dtype, (t,), "one per tracklet"))

    @classmethod
    def of(cls, label: Array) -> PseudoLabels:
        """Labels that hold over all cameras with weight 1 each."""
        t = len(label)
        return cls(label, np.ones(t, np.float32), np.full(t, -1))

    @property
    def n_clusters(self) -> int:
        """Number of distinct labels other than noise."""
        return len(np.unique(self.label[self.label >= 0]))

    @property
    def noise_fraction(self) -> float:
        """Share of tracklets labelled −1."""
        return float(np.mean(self.label < 0)) if len(self.label) else 0.0


@dataclass(frozen=True)
class NoiseRates:
    """Fragmentation and switch rates of a tracklet set against ground truth (TMC section 3.1).

    Args:
        r_FM: mean number of tracklets per covered (person, camera) pair.
        r_FM_all: the same over all ground-truth pairs.
        r_SW: mean number of persons per tracklet that holds a person.
        persons_per_tracklet: histogram, persons -> tracklets.
        matched: share of boxes with a ground-truth match, 0-1.
        n_tracklets: tracklets that hold at least one person (N).
        n_persons: covered (person, camera) pairs (M).
    """

    r_FM: float
    r_FM_all: float
    r_SW: float
    persons_per_tracklet: dict[int, int]
    matched: float
    n_tracklets: int
    n_persons: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values under the field names, for JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, eq=False)
class Scores:
    """Retrieval scores; fractions 0-1.

    Args:
        mAP: mean average precision over valid queries.
        cmc: (k,) float64, cmc[r − 1] is rank-r.
        n_valid: queries with at least one possible match.
        n_skipped: queries without one (left out, counted).
        protocol: name of the protocol and AP variant.
    """

    mAP: float
    cmc: Array
    n_valid: int
    n_skipped: int
    protocol: str

    def rank(self, r: int) -> float:
        """CMC at rank r; the last value where the gallery is shorter."""
        return float(self.cmc[min(r, len(self.cmc)) - 1]) if len(self.cmc) else 0.0

    def to_dict(self) -> dict[str, Any]:
        """mAP, rank1, rank5, rank10, rank20, n_valid, n_skipped, protocol."""
        ranks = {f"rank{r}": self.rank(r) for r in (1, 5, 10, 20)}
        return {
            "mAP": self.mAP,
            **ranks,
            "n_valid": self.n_valid,
            "n_skipped": self.n_skipped,
            "protocol": self.protocol,
        }


@dataclass(frozen=True, eq=False)
class Matches:
    """Result of a search: for each query its k nearest gallery entries, nearest first.

    Args:
        index: (q, k) int64 gallery rows, −1 where there are fewer than k.
        distance: (q, k) float32, Euclidean distance of unit features unless the search says otherwise; inf
            where index is −1.
    """

    index: Array
    distance: Array
