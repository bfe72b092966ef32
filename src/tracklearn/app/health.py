"""Signs that a run went wrong, told without labels, each with what to do.

A training ends with numbers whatever it was given: tiles instead of people, tracks cut to snippets, groups of
one track each. What follows looks at the boxes of the set, at what isolation left, and at the last clusters.
The limits lie between what good and bad runs on real films and generated worlds show (docs/log.md, "health").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn.core import signs
from tracklearn.core.calibration import OVERLAP
from tracklearn.core.labels import one_track
from tracklearn.types import Array, Tracklets

if TYPE_CHECKING:
    from tracklearn.store.runs import Run
    from tracklearn.store.sets.tracklets import TrackletSet

FEWEST_BOXES = 300  # of a camera, below which its boxes tell nothing
LEAST_ORDER = 0.7  # correlation of height and foot of the boxes of a camera whose people walk near and far
TILES = 0.2  # share of boxes of one and the same size
STILL = 0.3  # share of crops in tracks that do not move
STILL_WITHIN = 0.05  # of their height that the centres of such a track stray
PARTS = 4.0  # a track
DROPPED = 0.24  # share of crops; the median step drops a fifth where all is well
OF_ONE_TRACK = 0.3  # share of the clusters
LINKED = 0.1  # share of the clusters that several cameras see
FEWEST_CLUSTERS = 8  # below which shares of them tell nothing
FALLEN = 0.03  # how far signs of learning have fallen since an epoch that was better
SIGNS = {
    "two_views": "crops known again in another augmentation",
    "same_track": "halves of one track that find each other",
    "two_people": "people seen side by side told apart",
    "kept": "parts that are somebody's",
}

HEADLINE = "learned, but do not trust the groups before you have looked at this:"


@dataclass(frozen=True)
class Finding:
    """Something that does not look right.

    Args:
        sign: its name: sizes, tiles, still, parts, dropped, one-track, links, separation, earlier.
        text: what was seen, with its numbers.
        advice: what to do.
    """

    sign: str
    text: str
    advice: str

    def __str__(self) -> str:
        return f"{self.text}: {self.advice}"

    def to_dict(self) -> dict[str, str]:
        """The fields by name."""
        return asdict(self)


def of_run(run: Run, tracklet_set: TrackletSet) -> list[Finding]:
    """What looks wrong in a run and in the set that it learned from; empty where nothing does."""
    from tracklearn.app.model.of_run import isolated

    parts = isolated(run, tracklet_set)
    labels = run.labels
    return [
        *of_boxes(tracklet_set.tracklets, tracklet_set.cameras),
        *of_isolation(run.manifest.get("isolation", {})),
        *(of_clusters(np.asarray(labels[-1]), parts) if labels else []),
        *of_learning(run.rounds),
    ]


def of_boxes(tracklets: Tracklets, cameras: Sequence[str]) -> list[Finding]:
    """Boxes that are not people's: sizes without order, tiles, things that stand still."""
    found = []
    box = tracklets.box.astype(np.float64)
    if not len(box) or (box == box[0]).all():  # of pictures without a film
        return []
    camid = tracklets.camid[tracklets.tracklet]
    for camera, name in enumerate(cameras):
        rows = np.flatnonzero(camid == camera)
        if len(rows) < FEWEST_BOXES:
            continue
        own = box[rows]
        height, foot = own[:, 3] - own[:, 1], own[:, 3]
        size = np.round(np.stack([own[:, 2] - own[:, 0], height], 1) / 2)
        tiles = np.unique(size, axis=0, return_counts=True)[1].max() / len(rows)
        if tiles > TILES:
            found.append(
                Finding(
                    "tiles",
                    f"camera {name}: {tiles:.0%} of the boxes have one and the same size",
                    "the detector lost sight of people's size; use a trained one (--detector hub:NAME or "
                    "openvino:FILE)",
                )
            )
        order = _order(height, foot)
        if order is not None and order < LEAST_ORDER:
            found.append(
                Finding(
                    "sizes",
                    f"camera {name}: boxes do not grow towards the camera (correlation of height and foot "
                    f"{order:.2f})",
                    "look at the camera's crops in the report; if they are not whole people, use a trained "
                    "detector",
                )
            )
        still = _still(tracklets, rows)
        if still > STILL:
            found.append(
                Finding(
                    "still",
                    f"camera {name}: {still:.0%} of the crops are in tracks that do not move",
                    "look whether they are people; posters and dolls have to be masked in the film",
                )
            )
    return found


def of_isolation(record: dict[str, Any]) -> list[Finding]:
    """What isolation did to the tracks, by its record in a run's manifest."""
    found = []
    before, after = record.get("n_before", 0), record.get("n_parts", record.get("n_after", 0))
    if before and after / before > PARTS:
        found.append(
            Finding(
                "parts",
                f"{before} tracks were cut into {after} parts, {after / before:.1f} each",
                "the features hardly tell the next frame from a stranger; start from a re-ID network "
                "(--weights osnet_x0_25), or leave isolation out (--set METHOD.isolate=false)",
            )
        )
    dropped = record.get("dropped_fraction", 0.0)
    if dropped > DROPPED:
        found.append(
            Finding(
                "dropped",
                f"isolation dropped {dropped:.0%} of the crops",
                'cut by change points (--set METHOD.isolation="change-point"), which drop none',
            )
        )
    known = record.get("calibration", {})
    calibration = known.get("mean") or known.get("crop")
    if calibration and calibration["error"] > OVERLAP:
        found.append(
            Finding(
                "separation",
                "the features hardly tell two people of one camera from one: "
                f"{calibration['error']:.0%} of the pairs are on the wrong side of any threshold",
                "start from a re-ID network (--weights osnet_x0_25), or train longer on more video",
            )
        )
    return found


def of_clusters(label: Array, parts: Tracklets) -> list[Finding]:
    """What the last clusters (t,) of the parts look like."""
    found = []
    inside = label >= 0
    n = len(np.unique(label[inside]))
    if n < FEWEST_CLUSTERS:
        return []
    alone = one_track(label, parts.source)
    if alone / n > OF_ONE_TRACK:
        found.append(
            Finding(
                "one-track",
                f"{alone} of {n} clusters are pieces of one track",
                "nobody was found again: give longer films or more cameras, or better starting weights",
            )
        )
    if len(np.unique(parts.camid)) > 1:
        pairs = np.unique(np.stack([label[inside], parts.camid[inside]]), axis=1)
        linked = int((np.bincount(np.unique(pairs[0], return_inverse=True)[1]) > 1).sum())
        if linked / n < LINKED:
            found.append(
                Finding(
                    "links",
                    f"{linked} of {n} clusters hold more than one camera",
                    "if people do pass several cameras, they were not recognised: try --method uga, or "
                    "better starting weights",
                )
            )
    return found


def of_learning(rounds: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Whether an earlier epoch was better than the last, by signs that need no label (`core.signs`)."""
    own = [r for r in rounds if r.get("stage") == rounds[-1].get("stage")]
    records = [{**(r.get("record") or {}), "kept": 1 - float(r.get("noise_fraction") or 0)} for r in own]
    place, why = signs.better_before(records, tuple(SIGNS), by=FALLEN)
    if place < 0:
        return []
    said = ", ".join(
        f"{SIGNS[name]} ({records[place][name]:.2f}, now {records[-1][name]:.2f})" for name in why
    )
    return [
        Finding(
            "earlier",
            f"epoch {own[place]['index'] + 1} was better than the last by {said}",
            "train fewer epochs or at a lower rate (--set METHOD.epochs=…, METHOD.learning_rate=…)",
        )
    ]


def _order(height: Array, foot: Array) -> float | None:
    """Correlation of the heights and feet of boxes; None where all stand equally far from the camera."""
    low, high = np.quantile(foot, [0.05, 0.95])
    if high - low < np.median(height):
        return None
    if height.std() == 0:
        return 0.0
    return float(np.corrcoef(height, foot)[0, 1])


def _still(tracklets: Tracklets, rows: Array) -> float:
    """Share of these rows that are in tracks which hardly move."""
    box, owner = tracklets.box[rows].astype(np.float64), tracklets.tracklet[rows]
    _, number, count = np.unique(owner, return_inverse=True, return_counts=True)
    centre = (box[:, :2] + box[:, 2:]) / 2
    mean = [np.bincount(number, axis) / count for axis in centre.T]
    spread = [
        np.sqrt(np.bincount(number, (axis - own[number]) ** 2) / count)
        for axis, own in zip(centre.T, mean, strict=True)
    ]
    height = np.bincount(number, box[:, 3] - box[:, 1]) / count
    still = (np.maximum(*spread) < STILL_WITHIN * height) & (count >= 20)
    return float(count[still].sum() / len(rows))
