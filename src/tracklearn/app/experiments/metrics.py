"""Which numbers the table of an experiment shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A column: its heading, what its values are multiplied by, and the digits after the point."""

    heading: str
    times: float = 100
    digits: int = 1


# n_tracklets and impure are of the tracklets that were trained on, `linked` to `link_recall` of UGA's graph
# in the last epoch; memory is the process's, while it trained.
METRICS = {
    "mAP": Metric("mAP"),
    "rank1": Metric("rank-1"),
    "rank5": Metric("rank-5"),
    "rank10": Metric("rank-10"),
    "rank20": Metric("rank-20"),
    "untrained": Metric("mAP untrained"),
    "source_only": Metric("mAP source only"),
    "n_given": Metric("tracklets given", times=1, digits=0),
    "n_tracklets": Metric("tracklets", times=1, digits=0),
    "impure_given": Metric("impure frames given"),
    "impure": Metric("impure frames"),
    "dropped": Metric("frames dropped"),
    "aside": Metric("frames set aside"),
    "linked": Metric("tracklets linked"),
    "transitivity": Metric("transitivity"),
    "link_precision": Metric("link precision"),
    "link_recall": Metric("link recall"),
    "minutes": Metric("minutes of training", times=1),
    "memory": Metric("peak memory, GB", times=1),
}
