"""What the report shows, as plain values and arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np

from tracklearn.app.formats import wall
from tracklearn.core.pieces import taken_in
from tracklearn.types import Array, Refusal, Tracklets


@dataclass(frozen=True, eq=False)
class SearchExample:
    """One query and what was found, as rows of the pictures searched.

    Args:
        query: picture row of the query.
        results: picture rows, nearest first.
        distance: (k,) distances.
        right: (k,) whether each result shows the query's person; None where truth is not known.
        query_caption: text under the query.
        captions: (k,) texts under the results; empty for none.
    """

    query: int
    results: Sequence[int]
    distance: Sequence[float]
    right: Sequence[bool] | None = None
    query_caption: str = ""
    captions: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything the report shows; n crops, t tracks, u parts of them.

    Args:
        title: heading.
        command: the command line that made the run.
        cameras: names by camid.
        tracklets: the tracks, as the tracker left them.
        isolated: their parts that the training saw.
        picture: picture row -> uint8 RGB of any size; ValueError or OSError for one that cannot be read.
        part: (n,) part of each row of `tracklets` within its tracklet, −1 dropped, below set aside for the
            training (`core.pieces`).
        similarity: (n,) cosine of each row's feature with the row before; NaN at a tracklet's first.
        features: tracklet -> (m, d) features of its first m rows, for the tracklets shown as film strips,
            in the order shown; empty lets the report choose by `worst_mixed` and leave out projections.
        rounds: one mapping per round with index, n_clusters, noise_fraction, largest_cluster, eps, agreement,
            losses (name -> value), accuracy, diagnosis, seconds; missing or None where there is none.
        calibration: "mean", "nearest" or "crop" -> what isolation learned from pairs without labels: the
            fields of `Calibration.to_dict`, and under "distances" the sorted arrays "same" and
            "different"; empty for none.
        diagnosis: what isolation had to say, a line each.
        label: (u,) cluster of each part in the last round, −1 noise.
        links: arrays of a graph between tracklets of different cameras, see `links.section`; empty for none.
        steps: what ground truth says of labellings, one mapping each: `index` of its first round, and
            numbers; shown as not used.
        settings: nested settings.
        weights: name of the starting weights; "none" is a random start.
        weights_sha256: their digest.
        seconds: stage -> seconds.
        sources: what ingest noted of each source; camera, path, frames, detections are shown where present.
        skipped: (source, reason, count) of input that was left out.
        noise: "before" and "after" -> fields of NoiseRates, where there is truth.
        scores: "untrained", "trained", "baseline" or another name -> mAP, rank1, rank5, …; fractions.
        scores_note: one sentence on how the scores were taken.
        searches: example searches.
        search_picture: `picture` of the set that was searched, when it is another one.
        person: (n,) true person of each row of `tracklets`, −1 unknown: shown beneath film strips.
        moment: track, seconds into its film -> when that was by the clock on the wall, None where unknown;
            None for a set that knows no clock.
        film: (t,) number of the film that each track is from, −1 for tracklets that are not cut out of one
            with their places and frame numbers; None for none at all.
        people: who is who: `rows` of the table of identities, `notes` on it, and whether it is `doubted`;
            None where there is none.
        warnings: one line each.
        created: date, version, machine: shown in the foot.

    Raises:
        ValueError: lengths do not fit together.
    """

    title: str
    command: str
    cameras: Sequence[str]
    tracklets: Tracklets
    isolated: Tracklets
    picture: Callable[[int], Array]
    part: Array
    similarity: Array
    rounds: Sequence[Mapping[str, Any]]
    label: Array
    settings: Mapping[str, Any]
    weights: str
    seconds: Mapping[str, float]
    features: Mapping[int, Array] = field(default_factory=dict)
    calibration: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    diagnosis: Sequence[str] = ()
    links: Mapping[str, Array] = field(default_factory=dict)
    steps: Sequence[Mapping[str, Any]] = ()
    weights_sha256: str = ""
    sources: Sequence[Mapping[str, Any]] = ()
    skipped: Sequence[tuple[str, str, int]] = ()
    noise: Mapping[str, Mapping[str, Any]] | None = None
    scores: Mapping[str, Mapping[str, float]] | None = None
    scores_note: str = ""
    searches: Sequence[SearchExample] = ()
    search_picture: Callable[[int], Array] | None = None
    person: Array | None = None
    film: Array | None = None
    moment: Callable[[int, float], datetime | None] | None = None
    people: Mapping[str, Any] | None = None
    warnings: Sequence[str] = ()
    created: str = ""

    @cached_property
    def parts(self) -> Tracklets:
        """All parts that isolation left, those set aside for the training among them."""
        return self.tracklets.split(taken_in(self.part))

    def clock_time(self, track: int, seconds: float) -> str:
        """Date and time on the wall so many seconds into a track's film; empty where unknown."""
        return "" if self.moment is None else wall(self.moment(int(track), float(seconds)))

    def __post_init__(self) -> None:
        n, t, u = self.tracklets.n_crops, len(self.tracklets), len(self.isolated)
        for name, value, wanted, why in (
            ("part", self.part, n, "one per crop"),
            ("similarity", self.similarity, n, "one per crop"),
            ("person", self.person, n, "one per crop"),
            ("film", self.film, t, "one per track"),
            ("label", self.label, u, "one per part"),
        ):
            if value is not None and np.shape(value) != (wanted,):
                raise Refusal(f"{name} has shape {np.shape(value)}, expected ({wanted},): {why}")
        if len(self.cameras) < self.tracklets.n_cameras:
            raise Refusal(f"cameras has {len(self.cameras)} names, expected {self.tracklets.n_cameras}")
