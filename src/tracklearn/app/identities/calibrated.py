"""What distances mean for a run's features on some footage, in numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tracklearn.app.formats import number, percent
from tracklearn.app.identities.footage import Footage
from tracklearn.core.appearance import Bounds, Limit
from tracklearn.core.calibration import (
    FEWEST,
    Calibration,
    Crossing,
    Curve,
    calibrate,
    chance_pairs,
    crossing,
    free_pairs,
    of_one_crop,
)
from tracklearn.core.change_point import typical_penalty
from tracklearn.core.features import unit_rows
from tracklearn.core.identities import Limits, Mistakes
from tracklearn.core.normalise import per_camera
from tracklearn.types import Array, Refusal, Tracklets

CANNOT = "cannot tell people apart here: do not trust identities"
HARDLY = "people are hardly told apart here: look at the pictures before you rely on a number"
# Shares of mistakes from which identities are doubted, and of people split from which they are not trusted.
DOUBTED, HOPELESS = 0.25, 0.5
SEEN = 3  # pairs of two people that look like one, below which nothing is concluded from them
ALIKE = 1.0  # other people who may be expected to look like a part at the limit, unless a rate is asked for
COUNTED = 10  # pairs of two people from which their distance is taken as it is
_SHARES = (0.05, 0.02, 0.01, 0.005, 0.001)
_CHANCES = (0.99, 0.95, 0.9, 0.75, 0.5, 0.25, 0.1)


@dataclass(frozen=True, eq=False)
class Calibrated:
    """What pairs that are known without labels tell.

    Args:
        within: of pairs of one camera, on features as they are; None where there are too few.
        linking: of pairs of one camera in the features that are linked: camera-normalised where there are
            several cameras.
        across: what the way from camera to camera adds to those; None for one camera, or too few pairs.
        mean: (t, d) unit features of the parts to link.
        origin: "moments" (people seen at the same moment), or "chance" (tracks by chance; sets of crops).
        n_pairs: of one person, and of two.
        n_cameras: how many cameras there are.
        crop: of one crop and a half, of one camera, as they are. penalty: of change points, as tracks change.
    """

    within: Calibration | None
    linking: Calibration | None
    across: Crossing | None
    mean: Array
    origin: str
    n_pairs: tuple[int, int]
    n_cameras: int
    crop: Calibration | None = None
    penalty: float | None = None

    @property
    def trusted(self) -> bool:
        """Whether people can be told apart, as far as can be told."""
        return self.linking is not None and self.linking.separates and self.across_trusted

    @property
    def across_trusted(self) -> bool:
        """Whether what holds within cameras may be taken to hold across them."""
        return self.n_cameras < 2 or (self.across is not None and self.across.holds)

    @property
    def shift(self) -> float:
        """What the way from camera to camera adds to squared distances of the features that are linked."""
        return self.across.shift if self.across is not None else 0.0

    @property
    def curve(self) -> Curve | None:
        """Probabilities of distances within a camera, of the features that are linked."""
        return None if self.linking is None else self.linking.curve

    def limits(
        self, false_merges: float | None = None, distance: float | None = None, people: int = 1
    ) -> Limits | None:
        """Where one person ends, for `identities`; None where nothing may be joined.

        Args:
            false_merges: share of pairs of two people that may be taken for one; None as `threshold`.
            distance: the limit itself, whatever was learned.
            people: how many there are, about.

        Raises:
            ValueError: so few pairs cannot tell the rate that was asked for, or no distance of unit vectors.
        """
        if distance is not None:
            if not 0 < distance < 2:
                raise Refusal(
                    f"--distance is {distance:g}, expected a distance of unit features above 0, below 2"
                )
            return Limits.of(distance, self.shift)
        if self.linking is None:
            if false_merges is not None:
                raise Refusal(f"a rate of false merges cannot be told: {self.too_few}; give --distance")
            return None
        return Limits.of(
            threshold(self.linking, false_merges, people, by_chance=self.origin == "chance"), self.shift
        )

    @property
    def bounds(self) -> Bounds | None:
        """Where one person ends for `relink`, within a camera; None where nothing was learned."""
        if (
            self.within is None
            or self.crop is None
            or not min(self.within.threshold, self.crop.threshold) > 0
        ):
            return None
        return Bounds(Limit.of(self.within), Limit.of(self.crop), self.within.joins_below, self.penalty)

    def asked(self, false_merges: float) -> dict[str, float]:
        """Distances for a rate of false merges, within a camera and across cameras.

        Raises:
            ValueError: so few pairs cannot tell it.
        """
        if self.within is None:
            raise Refusal(f"a rate of false merges cannot be told: {self.too_few}")
        found = {"within a camera": self.within.limit(false_merges)}
        if self.linking is not None and self.across is not None:
            found["across cameras"] = self.linking.moved(self.shift).limit(false_merges)
        return found

    @property
    def too_few(self) -> str:
        """Why nothing was learned."""
        same, different = self.n_pairs
        return (
            f"{number(same)} pairs known as one person and {number(different)} as two are too few to learn "
            f"where another person begins ({FEWEST} of each are needed)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for files and programs."""
        return {
            "from": self.origin,
            "n_pairs": {"one_person": self.n_pairs[0], "two_people": self.n_pairs[1]},
            "trusted": self.trusted,
            "within_camera": None if self.within is None else described(self.within),
            "tracking": None if self.bounds is None else self.bounds.to_dict(),
            "across_cameras": None
            if self.linking is None or self.across is None
            else {
                **described(self.linking.moved(self.shift)),
                "features": "camera-normalised",
                "shift": self.across.shift,
                "unlike": self.across.unlike,
                "holds": self.across.holds,
                "n": self.across.n,
            },
        }

    def text(self) -> str:
        """What a person is told."""
        if self.within is None:
            return f"{CANNOT}\n{self.too_few}"
        lines = [] if self.trusted else [CANNOT]
        if self.origin == "chance":
            lines.append("nobody is seen beside another: two people are two tracks taken by chance")
        lines += _lines("within a camera", self.within)
        if self.crop is not None:
            lines.append(
                f"one crop of a track that begins, against a person: joined below {self.crop.threshold:.3f}, "
                f"{percent(self.crop.error)} on the wrong side"
            )
        if self.n_cameras > 1:
            if self.linking is not None and self.across is not None:
                name = "across cameras, on features normalised by camera, as if within one"
                lines += _lines(name, self.linking.moved(self.shift))
            if not self.across_trusted:
                lines.append(
                    "across cameras distances lie otherwise than within one: links there are a guess"
                )
        return "\n".join(lines)


def threshold(
    found: Calibration, false_merges: float | None = None, people: int = 1, *, by_chance: bool = False
) -> float:
    """The distance below which two are joined.

    Args:
        found: what pairs tell.
        false_merges: share of pairs of two people that may be taken for one. Unless one is asked for: the
            distance with as many errors of either kind, or, where there are many people, the smaller one at
            which no more than one other person is expected to look so much like somebody.
        people: how many there are, about.
        by_chance: pairs of two people are tracks taken by chance. Then that smaller distance is counted among
            them where they are enough. People seen at the same moment are not asked so closely: where a
            detector gives one person two boxes, the nearest of them are those (docs/log.md, "real people").
    """
    if false_merges is not None:
        return found.limit(false_merges)
    share = min(0.5, ALIKE / max(people, 1))
    counted = by_chance and share * len(found.different) >= COUNTED
    return min(found.threshold, found.limit(share) if counted else found.rare(share))


def learn(footage: Footage, features: Array) -> Calibrated:
    """What the pairs of some footage tell.

    Args:
        footage: some sets.
        features: (n, d) of `frame_features`.
    """
    tracks, parts = footage.tracks, footage.parts
    pairs, origin = free_pairs(tracks), "moments"
    if not len(pairs.different) and not _filmed(tracks):
        pairs, origin = chance_pairs(tracks), "chance"
    by_row = features[tracks.crop]
    within, crop = calibrate(by_row, pairs), calibrate(by_row, of_one_crop(pairs))
    penalty = typical_penalty(by_row, tracks.tracklet, time=tracks.time)
    n_cameras = len(np.unique(tracks.camid[tracks.length > 0]))  # `forget` leaves tracks without a crop
    linking, across, used = within, None, features
    if n_cameras > 1:
        camera = np.empty(len(features), np.int64)
        camera[tracks.crop] = tracks.camid[tracks.tracklet]
        used = _unit(per_camera(features, camera))
        linking = calibrate(used[tracks.crop], pairs)
    mean = means(used, parts)
    if n_cameras > 1 and linking is not None:
        across = crossing(mean, parts.camid, linking)
    n_pairs = len(pairs.same), len(pairs.different)
    return Calibrated(within, linking, across, mean, origin, n_pairs, n_cameras, crop, penalty)


def means(features: Array, tracklets: Tracklets) -> Array:
    """(t, d) unit mean features of tracklets, by the crops' rows."""
    from tracklearn.learn.embed import pool

    pooled = pool(features[tracklets.crop], tracklets.tracklet, len(tracklets))
    return _unit(pooled)


def _filmed(tracks: Tracklets) -> bool:
    """Whether boxes are those of a film: folders of crops have one for all."""
    return not (tracks.box == tracks.box[0]).all()


def _unit(rows: Array) -> Array:
    """Unit rows; one without a direction, such as the only crop of a camera, points along the first axis."""
    rows = np.array(rows, np.float32)
    rows[~rows.any(1), 0] = 1.0
    return unit_rows(rows)


def described(found: Calibration) -> dict[str, Any]:
    """A calibration for files: with distances for rates of false merges, and the curve of probabilities."""
    curve = found.curve
    merges = {}
    for share in _SHARES:
        if share * (len(found.different) + 1) >= 1:
            merges[f"{share:g}"] = found.limit(share)
    return {
        **found.to_dict(),
        "false_merges": merges,
        "curve": {"distance": curve.at.tolist(), "probability": curve.chance.tolist()},
        "default": threshold(found),
    }


def _lines(name: str, found: Calibration) -> list[str]:
    """A few lines on one kind of pairs: distances, then what trackers call them."""
    chosen = threshold(found)
    curve = found.curve
    head = (
        f"{name}: {number(len(found.same))} pairs of one person (median {found.quantile('same', 0.5):.2f}, "
        f"95 % below {found.quantile('same', 0.95):.2f}), {number(len(found.different))} of two (5 % below "
        f"{found.quantile('different', 0.05):.2f}, median {found.quantile('different', 0.5):.2f}); "
        f"{percent(found.error)} on the wrong side of {found.threshold:.2f}"
    )
    rows = [("", "distance", "cosine distance", "cosine similarity")]
    for share in _SHARES:
        if share * (len(found.different) + 1) >= 1:
            rows.append((f"false merges {percent(share)}", *_forms(found.limit(share))))
    rows.append(("joined below, unless asked otherwise", *_forms(chosen)))
    grid = np.linspace(0, 2, 2001)
    probability = curve(grid)
    for chance in _CHANCES:
        if probability[0] >= chance > probability[-1]:
            rows.append(
                (
                    f"one person with {chance:g}",
                    *_forms(float(grid[np.flatnonzero(probability >= chance)[-1]])),
                )
            )
    width = [max(len(row[c]) for row in rows) for c in range(4)]
    table = [
        "  "
        + "  ".join(
            cell.rjust(w) if c else cell.ljust(w) for c, (cell, w) in enumerate(zip(row, width, strict=True))
        )
        for row in rows
    ]
    return [head, *(line.rstrip() for line in table)]


def _forms(distance: float) -> tuple[str, str, str]:
    """A distance of unit features, and as trackers give it."""
    return f"{distance:.3f}", f"{distance**2 / 2:.3f}", f"{1 - distance**2 / 2:.3f}"


def verdict(found: Calibrated, expected: Mistakes | None) -> str | None:
    """What must be said of identities before anything else; None where they may be relied on.

    Args:
        found: what pairs tell.
        expected: mistakes at the limits that were taken; None where no pairs tell.
    """
    if not found.trusted or (expected is not None and expected.split >= HOPELESS):
        return CANNOT
    return HARDLY if expected is not None and told(expected) else None


def told(expected: Mistakes) -> list[str]:
    """The mistakes to be expected that are many, a line each.

    >>> told(Mistakes(split=0.47, apart=300, alike=2, below=0.003))[0]
    'at least 47 % of the pairs that are one person look like two: people will have several numbers'
    """
    lines = []
    if expected.split >= DOUBTED:
        lines.append(
            f"at least {percent(expected.split)} of the pairs that are one person look like two: people will "
            "have several numbers"
        )
    merged = (expected.merged or 0.0) if expected.alike >= SEEN else 0.0
    if merged > 1:
        lines.append(
            f"{number(expected.alike)} of {number(expected.apart)} pairs seen at the same moment look like "
            "one person, more than of all pairs: a person seems to have several boxes at a time, or a track "
            "several people"
        )
    elif merged >= DOUBTED:
        lines.append(
            f"up to {percent(merged)} of the pairs that look like one person are two: numbers will mix people"
        )
    return lines
