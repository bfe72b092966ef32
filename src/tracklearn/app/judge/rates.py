"""Judging a run with ground truth, after training: noise rates of tracklets, retrieval scores, a baseline.

Nothing here is called before or during training, but for the persons of a labelled source set (`app.plan`);
the demo and the benchmarks call it afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tracklearn.core.noise import tracklet_pid
from tracklearn.types import Array, Crops, NoiseRates, Refusal, Scores, Tracklets, Truth

if TYPE_CHECKING:
    from tracklearn.store.film.mot import Boxes
    from tracklearn.store.sets.tracklets import TrackletSet


def match_truth(tracklet_set: TrackletSet, truths: Mapping[str, Boxes], *, min_iou: float = 0.5) -> Truth:
    """Which person is in each crop, from ground-truth boxes per camera name (METHODS 1.2).

    Args:
        tracklet_set: the set whose boxes are matched, frame by frame.
        truths: camera name -> ground truth of its video; cameras without one stay unmatched.
        min_iou: least overlap of a match.

    Raises:
        ValueError: a camera name is not in the set.
    """
    from tracklearn.core import noise

    unknown = sorted(set(truths) - set(tracklet_set.cameras))
    if unknown:
        raise Refusal(f"the set has no camera {unknown[0]!r}: it has {', '.join(tracklet_set.cameras)}")
    tracklets = tracklet_set.tracklets
    pid = np.full(tracklets.n_crops, -1, np.int64)
    camera = tracklets.camid[tracklets.tracklet]
    for name, truth in truths.items():
        rows = np.flatnonzero(camera == tracklet_set.cameras.index(name))
        pid[rows] = noise.match_boxes(
            tracklets.frame[rows], tracklets.box[rows], truth.frame, truth.track, truth.box, min_iou=min_iou
        )
    by_row = np.full(tracklets.n_crops, -1, np.int64)
    by_row[tracklets.crop] = pid
    return Truth(by_row)


def noise_rates(tracklets: Tracklets, truth: Truth, *, truth_pairs: int | None = None) -> NoiseRates:
    """Fragmentation and switch rates of tracklets, before or after isolation."""
    from tracklearn.core import noise

    pid = truth.pid[tracklets.crop]
    return noise.measure(
        tracklets.tracklet, pid, tracklets.camid[tracklets.tracklet], truth_pairs=truth_pairs
    )


def link_rates(
    graphs: Mapping[int, Mapping[str, Array]], tracklets: Tracklets, truth: Truth
) -> list[dict[str, float]]:
    """How right the links of a run's graphs are, in every round that has one.

    Args:
        graphs: round -> arrays of a `core.graph.Graph`, as `Run.kept` gives them; others are passed over.
        tracklets: as isolation left them; the graphs join them.
        truth: of the set.

    Returns:
        One mapping a round: `round`, `precision` (share of links between tracklets of one person) and
        `recall` (share of a person's pairs of cameras that are linked); nan where there is nothing to count.
    """
    from tracklearn.core import graph

    pid = tracklet_pid(tracklets, truth)
    found = []
    for index, arrays in graphs.items():
        if not {"start", "to", "weight"} <= arrays.keys():  # what another method keeps
            continue
        made = graph.Graph(arrays["start"], arrays["to"], arrays["weight"])
        precision, recall = graph.precision_recall(made, pid, tracklets.camid)
        found.append({"round": index, "precision": precision, "recall": recall})
    return found


def label_rates(label: Array, pid: Array) -> dict[str, float]:
    """How right pseudo-labels are: pairs of tracklets, −1 labels and unknown people left out of the counts.

    Args:
        label: (t,) clusters, −1 = none.
        pid: (t,) true persons, −1 = unknown.

    Returns:
        `purity`, the share of labelled tracklets that are of their cluster's most frequent person; `recall`,
        the share of pairs of one person's tracklets that one cluster holds. nan where there is nothing to
        count.
    """
    known = pid >= 0
    inside = known & (label >= 0)
    _, cell = np.unique(np.stack([label, pid])[:, inside], axis=1, return_inverse=True)
    size = np.bincount(cell.ravel())
    owner = np.zeros(len(size), np.int64)
    owner[cell.ravel()] = label[inside]
    best = np.zeros(int(label.max(initial=-1)) + 1)
    np.maximum.at(best, owner, size)
    everyone = np.unique(pid[known], return_counts=True)[1]
    pairs = float((everyone * (everyone - 1)).sum())
    return {
        "purity": float(best.sum() / inside.sum()) if inside.any() else float("nan"),
        "recall": float((size * (size - 1)).sum() / pairs) if pairs else float("nan"),
    }


def retrieval(features: Array, pid: Array, camid: Array, *, same_camera: bool = False) -> Scores:
    """Every tracklet with a known person searched for among all the others.

    Args:
        features: (t, d) unit features.
        pid: (t,) person, −1 unknown (neither query nor true match).
        camid: (t,) camera.
        same_camera: matches of the same camera count; otherwise only those of other cameras.
    """
    from tracklearn.core import rank

    query = np.flatnonzero(pid >= 0)
    return rank.evaluate(
        (features[query], features),
        pid[query],
        pid,
        camid[query],
        camid,
        query_row=query,
        same_camera=same_camera,
        note="all tracklets against all others",
    )


def colour_histogram(crops: Crops, tracklets: Tracklets, *, bins: int = 8) -> Array:
    """(t, bins³) baseline features: joint HSV histogram per crop, square-rooted, averaged over the tracklet.

    The square root makes Euclidean distance the Hellinger distance of histograms, their usual comparison.
    """
    import cv2

    total = np.zeros((len(tracklets), bins**3), np.float32)
    for start in range(0, tracklets.n_crops, 256):
        rows = slice(start, start + 256)
        for image, tracklet in zip(crops.read(tracklets.crop[rows]), tracklets.tracklet[rows], strict=True):
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
            histogram = cv2.calcHist([hsv], [0, 1, 2], None, [bins] * 3, [0, 180, 0, 256, 0, 256]).ravel()
            total[tracklet] += np.sqrt(histogram / histogram.sum())
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
