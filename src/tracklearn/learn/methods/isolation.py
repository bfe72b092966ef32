"""The isolation that methods run before training: its settings, and the parts it finds.

Source: Teng et al., arXiv 2204.00891 (TMC), section 3.2.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from tracklearn.core import isolate
from tracklearn.learn.settings import Count, Positive
from tracklearn.types import Array, Refusal, Tracklets


class Config(BaseModel):
    """Settings of isolation, which a method's own settings add to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    isolate: bool = Field(
        default=True, description="Cut tracklets at switches first; off is the paper's TMC- [paper 3.2]."
    )
    isolation: Literal["dbscan", "change-point"] = Field(
        default="dbscan",
        description="How a tracklet is cut: DBSCAN over its frames' features [paper 3.2], or change points "
        "in their order, which drop no frame [chosen; METHODS 3.2].",
    )
    eps_intra: Positive | Literal["auto"] = Field(
        default=0.6,
        description="Radius of isolation; 0.5 for mild noise (r_SW 1.2) [paper 4.3, Table 4]. auto: the "
        "median distance of adjacent frames, for other networks and crop sizes than the paper's [chosen].",
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
        return self


def parts(
    config: Config, features: Array | Tensor, tracklets: Tracklets, similarity: Array | None = None
) -> Array:
    """The part (n,) of its tracklet that each crop belongs to, −1 = dropped; see `core.isolate.isolate`.

    Args:
        config: how; `isolate` itself is not asked.
        features: (n, d) of the crops.
        tracklets: whose crops they are.
        similarity: what `core.isolate.adjacent_similarity` gives for them, where that is known.
    """
    if config.eps_intra == "auto":
        if similarity is None:
            similarity = isolate.adjacent_similarity(features, tracklets.tracklet)
        eps = isolate.typical_step(similarity, metric=config.metric)
    else:
        eps = config.eps_intra
    return isolate.isolate(
        features,
        tracklets.tracklet,
        frame=tracklets.frame,
        time=tracklets.time,
        method=config.isolation,
        eps=eps,
        min_samples=config.min_samples_intra,
        metric=config.metric,
        penalty=None if config.penalty_intra == "auto" else config.penalty_intra,
    )
