"""Which numbers the table of an experiment shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A column: its heading, and whether it is a fraction (printed in percent) or a count."""

    heading: str
    percent: bool = True


METRICS = {
    "mAP": Metric("mAP"),
    "rank1": Metric("rank-1"),
    "rank5": Metric("rank-5"),
    "rank10": Metric("rank-10"),
    "rank20": Metric("rank-20"),
    "untrained": Metric("mAP untrained"),
    "source_only": Metric("mAP source only"),
    "n_given": Metric("tracklets given", percent=False),
    "n_tracklets": Metric("tracklets", percent=False),
    "impure_given": Metric("impure frames given"),
    "impure": Metric("impure frames"),
    "dropped": Metric("frames dropped"),
    "linked": Metric("tracklets linked"),
    "transitivity": Metric("transitivity"),
    "link_precision": Metric("link precision"),
    "link_recall": Metric("link recall"),
}
