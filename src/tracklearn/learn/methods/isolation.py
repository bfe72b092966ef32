"""The isolation that methods run before training: its settings, and the parts it finds.

Source: Teng et al., arXiv 2204.00891 (TMC), section 3.2.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from tracklearn.core import isolate
from tracklearn.core.calibration import Calibration, Statistic, calibrate, free_pairs
from tracklearn.core.mixture import unmix
from tracklearn.learn.method import Isolated
from tracklearn.learn.settings import Count, Positive
from tracklearn.types import Array, Refusal, Tracklets

# Share of pairs of one person that DBSCAN's radius is to reach, by their nearest frames.
REACH = 0.95

_TOO_FEW = (
    "isolation: too few moments at which two people are in view, apart, to learn where another person "
    "begins: pieces of a track stay as they were cut; where tracks come from elsewhere as folders of crops, "
    'isolation = "linkage" learns it from their crops'
)
_TOO_FEW_CROPS = (
    "isolation: too few tracks of several crops that show one person to learn where another begins: they "
    "stay whole"
)
_MIXED = "isolation: of two crops of one track, {:.0f} % show two people, told without labels"
_OVERLAP = (
    "isolation: the features hardly tell two people of one camera from one ({:.0f} % of the pairs are on the "
    "wrong side): it cuts less; start from a re-ID network (--weights osnet_x0_25)"
)


class Config(BaseModel):
    """Settings of isolation, which a method's own settings add to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    isolate: bool = Field(
        default=True, description="Cut tracklets at switches first; off is the paper's TMC- [paper 3.2]."
    )
    isolation: Literal["dbscan", "change-point", "linkage"] = Field(
        default="dbscan",
        description="How a tracklet is cut: DBSCAN over its frames' features [paper 3.2]; change points in "
        "their order, which drop no frame [chosen; METHODS 3.2]; or average linkage of its crops below "
        "join_intra, for folders of a few crops that know no moments [chosen].",
    )
    eps_intra: Positive | Literal["auto"] = Field(
        default=0.6,
        description="Radius of isolation; 0.5 for mild noise (r_SW 1.2) [paper 4.3, Table 4]. auto: for "
        "other networks and crop sizes than the paper's, the median distance of adjacent frames, or with "
        "join_intra = auto, by pairs that are known without labels [chosen].",
    )
    min_samples_intra: Count = Field(default=2, description="Density of isolation [chosen].")
    metric: Literal["euclidean", "cosine", "jaccard"] = Field(
        default="euclidean", description="Distance of DBSCAN in isolation, on unit features [chosen]."
    )
    penalty_intra: Positive | Literal["auto"] = Field(
        default="auto",
        description="Price of a change point, times the logarithm of the tracklet's frames; auto: the mean "
        "change of features over half a second [chosen].",
    )
    join_intra: Positive | Literal["auto", "none"] = Field(
        default="none",
        description="Distance of unit means below which pieces of a tracklet are joined again by average "
        "linkage. auto: where another person begins in this footage, by pairs that are known without labels, "
        "of isolation by linkage by crops of strangers; none leaves the pieces [chosen; METHODS 3.2].",
    )
    least_intra: Count = Field(
        default=1,
        description="Crops of a part at least, where pieces are joined: what is left over of a tracklet that "
        "has a longer part is dropped [chosen].",
    )

    isolate_every: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="Rounds after which the original tracklets are cut again by what was learned; 0: once, "
        "before training [paper 3.2: once].",
    )

    @model_validator(mode="after")
    def _isolation_fits_together(self) -> Config:
        if self.eps_intra == "auto" and self.metric == "jaccard":
            raise Refusal(
                'eps_intra = "auto" needs a distance of two frames, which metric = "jaccard" is not: give '
                'eps_intra a number (0-1) or set metric to "euclidean" or "cosine"'
            )
        if self.metric != "euclidean" and "eps_intra" not in self.model_fields_set:
            raise Refusal(
                f'metric = "{self.metric}" needs an eps_intra of its own: the default {self.eps_intra} is a '
                "Euclidean distance"
            )
        if self.isolation == "linkage" and self.join_intra == "none":
            raise Refusal(
                'isolation = "linkage" joins crops below join_intra: set it to "auto" or to a distance (0-2)'
            )
        return self


def parts(
    config: Config, features: Array | Tensor, tracklets: Tracklets, similarity: Array | None = None
) -> Isolated:
    """The part of its tracklet that each crop belongs to; see `core.isolate.isolate`.

    Args:
        config: how; `isolate` itself is not asked.
        features: (n, d) of the crops.
        tracklets: whose crops they are.
        similarity: what `core.isolate.adjacent_similarity` gives for them, where that is known.
    """
    found = _calibrations(config, features, tracklets)
    notes, join = [], None if config.join_intra in ("none", "auto") else float(config.join_intra)
    if config.join_intra == "auto" and config.isolation == "linkage":
        mixture = unmix(features, tracklets)
        if mixture is None:
            return Isolated(np.zeros(len(tracklets.tracklet), np.int64), {}, (_TOO_FEW_CROPS,))
        found = {"crop": mixture.calibration}
        join = mixture.calibration.joins_below
        notes.append(_MIXED.format(100 * mixture.two))
    elif config.join_intra == "auto":
        if "mean" in found:
            join = found["mean"].joins_below
        else:
            notes.append(_TOO_FEW)
    if any(not c.separates for c in found.values()):
        worst = max(c.error for c in found.values())
        notes.append(_OVERLAP.format(100 * worst))
    eps = config.eps_intra
    if eps == "auto":
        eps = _radius(config, features, tracklets, similarity, found.get("nearest"))
    part = isolate.isolate(
        features,
        tracklets.tracklet,
        frame=tracklets.frame,
        time=tracklets.time,
        method=config.isolation,
        eps=eps,
        min_samples=config.min_samples_intra,
        metric=config.metric,
        penalty=None if config.penalty_intra == "auto" else config.penalty_intra,
        join=join,
        least=config.least_intra,
    )
    return Isolated(part, found, tuple(notes))


def _calibrations(config: Config, features: Array | Tensor, tracklets: Tracklets) -> dict[str, Calibration]:
    """What free pairs tell, by the statistics that the settings ask for; none where there are too few."""
    if config.join_intra != "auto" or config.isolation == "linkage":
        return {}
    asked: list[Statistic] = ["mean"]
    # A radius that reaches most of a person's frames is too wide where nothing is joined afterwards.
    if config.eps_intra == "auto" and config.isolation == "dbscan" and config.metric != "jaccard":
        asked.append("nearest")
    pairs = free_pairs(tracklets)
    made = ((statistic, calibrate(features, pairs, statistic=statistic)) for statistic in asked)
    return {statistic: value for statistic, value in made if value is not None}


def _radius(
    config: Config,
    features: Array | Tensor,
    tracklets: Tracklets,
    similarity: Array | None,
    known: Calibration | None,
) -> float:
    """DBSCAN's radius from the data."""
    if known is not None:
        reach = known.quantile("same", REACH)
        return reach**2 / 2 if config.metric == "cosine" else reach
    if similarity is None:
        similarity = isolate.adjacent_similarity(features, tracklets.tracklet)
    return isolate.typical_step(similarity, metric=config.metric)
