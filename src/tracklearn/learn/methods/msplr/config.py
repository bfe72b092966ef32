"""The settings of MSPLR."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tracklearn.learn.augment import Augment
from tracklearn.learn.methods import isolation
from tracklearn.learn.settings import Count, Positive
from tracklearn.types import Refusal


class Config(isolation.Config):
    """Settings of MSPLR; the defaults are the paper's, each with its origin.

    [paper] stated by the paper, [code] from the public code that its training builds on, [chosen] ours.
    """

    isolate: bool = Field(
        default=False,
        description="Cut the target's tracklets at switches first, as TMC does [chosen: off; the paper has "
        "single images].",
    )
    normalise: bool = Field(
        default=True, description="Camera-guided normalisation of the features to be clustered [paper]."
    )
    clustering: Literal["dbscan", "kmeans"] = Field(
        default="dbscan", description="How pseudo-labels are found: DBSCAN or k-means [paper: both]."
    )
    eps: Positive | Literal["auto"] = Field(
        default="auto",
        description="Radius of DBSCAN, a cosine distance; 0.35 for DukeMTMC, 0.42 for Market-1501 [paper, "
        "cosine chosen]. auto: the mean of the smallest share rho of the first step's distances, then kept "
        "[chosen; the rule is MMT's].",
    )
    rho: float = Field(
        default=1.6e-3, gt=0, lt=1, description='Share of smallest distances behind eps "auto" [code MMT].'
    )
    min_samples: Count = Field(default=4, description="Density of DBSCAN [paper].")
    neighbors: Literal["exact", "int8"] = Field(
        default="exact",
        description="How DBSCAN's neighbours are found: exact; int8, the same result from 8-bit products "
        "[chosen].",
    )
    per_cluster: Count = Field(
        default=15, description="Tracklets for each cluster of k-means, k = ⌊n / 15⌋ [paper: images]."
    )
    fit_to_size: bool = Field(
        default=True, description="Fit min_samples and rho to a small number of tracklets [chosen]."
    )
    structure: Positive = Field(
        default=0.95,
        description="The first step stops where the nearest tracklets are further apart than this share of "
        "what chance would give; a large number switches it off [chosen].",
    )
    min_images: Count = Field(
        default=4, description="Crops that a cluster is kept with at least; 1 keeps all [paper: K]."
    )
    min_cameras: Count = Field(
        default=2, description="Cameras that a cluster is kept with at least; 1 keeps all [paper]."
    )
    source_epochs: int = Field(default=90, ge=0, description="Epochs on the source [paper].")
    step_epochs: Count = Field(default=90, description="Epochs of a step, frozen ones included [paper].")
    frozen_epochs: int = Field(
        default=20, ge=0, description="Epochs of a step in which the body is frozen [paper]."
    )
    max_steps: int = Field(default=12, ge=0, description="Steps at most [paper].")
    stop_kept: float = Field(
        default=0.01,
        ge=0,
        description="Change of the share of kept images below which a step counts as still; 0 never stops "
        "early [chosen].",
    )
    stop_agreement: float = Field(
        default=0.01,
        ge=0,
        description="Change of the labels' agreement with those of the step before, likewise [chosen].",
    )
    stop_steps: Count = Field(
        default=2, description="Still steps in a row after which a step is the last [chosen]."
    )
    iterations: Literal["auto"] | Count = Field(
        default="auto",
        description="Batches per epoch; auto: the labelled tracklets come once on average, for single images "
        "as in the code [code].",
    )
    time_tells: bool = Field(
        default=False,
        description="Split clusters that hold two people whom one camera sees at the same moment, apart "
        "[chosen; METHODS 6a].",
    )
    clusters_per_batch: int = Field(default=16, ge=2, description="Clusters in a batch, P [paper].")
    tracklets_per_cluster: int = Field(
        default=4, ge=2, description="Tracklets of each cluster in a batch, K [paper]."
    )
    frames_train: Count = Field(
        default=1, description="Consecutive frames of a tracklet in training [paper: a sample is an image]."
    )
    frames_cluster: Count = Field(
        default=32, description="Consecutive frames of a tracklet for clustering [chosen: as in TMC]."
    )
    learning_rate: Positive = Field(default=3.5e-4, description="Of Adam, at its height [code].")
    schedule: Literal["code", "slides"] = Field(
        default="code",
        description="How the learning rate changes: code [code], or as the authors' slides plot it, ten "
        "times higher after the warm-up; see `rate` [paper's slides].",
    )
    weight_decay: float = Field(default=5e-4, ge=0, description="Of Adam [code].")
    margin: float = Field(
        default=0.5, ge=0, description="Of the triplet loss [paper TMC eq. 3; 0.3 in the strong baseline]."
    )
    triplet: Literal["margin", "softplus"] = Field(
        default="margin", description="max(0, m + d_ap − d_an) [code] or softplus(d_ap − d_an) [code MMT]."
    )
    label_smoothing: float = Field(default=0.1, ge=0, lt=1, description="Of the identity loss [paper].")
    lambda_tri: float = Field(default=1.0, ge=0, description="Weight of the triplet loss [paper].")
    lambda_centre: float = Field(
        default=0.005, ge=0, description="Weight of the centre loss; 0 for none [paper]."
    )
    centre_rate: Positive = Field(
        default=0.5, description="Learning rate of the centres, whatever the weight of their loss [code]."
    )
    samples_per_bn: Count = Field(
        default=16, description="Tracklets normalised together by batch norm [code MMT]."
    )
    augment: Augment = Field(default=Augment(), description="Of training crops [code].")
    seed: int = Field(
        default=0, ge=0, description="Of new classifiers and centres, of k-means, of chance [chosen]."
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Config:
        if self.frozen_epochs >= self.step_epochs:
            raise Refusal(
                f"frozen_epochs = {self.frozen_epochs} leaves the body no epoch of the {self.step_epochs} "
                "in step_epochs: lower one or raise the other"
            )
        if self.samples_per_bn * self.frames_train < 2:
            raise Refusal(
                "samples_per_bn = 1 with frames_train = 1 leaves batch norm one image, which has no "
                "variance: raise one of them"
            )
        return self
