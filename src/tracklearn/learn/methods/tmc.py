"""TMC: tracklet-based multi-level clustering.

Tracklets are cut where a tracker switched persons (isolation, once), joined into clusters by features
(association, every epoch), and a mean-teacher network is trained on the clusters.

Source: Teng, He, Guo, Guo, Ding, "A Free Lunch to Person Re-identification: Learning from Automatically
Generated Noisy Tracklets", arXiv 2204.00891.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator
from torch import Tensor

from tracklearn.core.moments import moments
from tracklearn.learn import losses, sample
from tracklearn.learn.augment import Augment
from tracklearn.learn.heads import adam, classifier
from tracklearn.learn.method import Method, Stage, Target, View
from tracklearn.learn.methods import association, isolation
from tracklearn.learn.settings import Count, Positive, Share
from tracklearn.types import PseudoLabels, Refusal, Tracklets


class Config(association.Config):
    """Settings of TMC; the defaults are the paper's, each with its origin.

    [paper] stated by the paper, [code] from public code of its authors or of MMT, [chosen] ours.
    """

    epochs: Annotated[int, Field(ge=0)] = Field(
        default=40, description="Rounds of association and training [paper 4.2]."
    )
    iterations: Literal["auto"] | Count = Field(
        default="auto",
        description="Batches per epoch; auto is round(0.6 × clusters), at least 1 [code TMC]; MMT: 400.",
    )
    clusters_per_batch: Annotated[int, Field(ge=2)] = Field(
        default=16,
        description="Clusters in a batch; fewer where there are fewer [code TMC: 64 tracklets = 16 × 4].",
    )
    tracklets_per_cluster: Annotated[int, Field(ge=2)] = Field(
        default=4, description="Tracklets of each cluster in a batch [code TMC]."
    )
    frames_train: Count = Field(
        default=4, description="Consecutive frames of a tracklet in training [code TMC]."
    )
    frames_cluster: Count = Field(
        default=32, description="Consecutive frames of a tracklet for association [paper 4.2; 4 in the code]."
    )
    learning_rate: Positive = Field(default=3.5e-4, description="Of Adam, constant [paper 4.2].")
    weight_decay: Annotated[float, Field(ge=0)] = Field(default=5e-4, description="Of Adam [paper 4.2].")
    lambda_id: Share = Field(default=0.5, description="Share of the soft identity loss [paper eq. 6, 4.2].")
    lambda_tri: Share = Field(default=0.8, description="Share of the soft triplet loss [paper eq. 6, 4.2].")
    margin: Annotated[float, Field(ge=0)] = Field(
        default=0.5, description="Of the triplet loss [paper eq. 3]."
    )
    triplet: Literal["margin", "softplus"] = Field(
        default="margin",
        description="max(0, m + d_ap − d_an) [paper eq. 3] or softplus(d_ap − d_an) [code MMT].",
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Of the identity loss [paper eq. 2: none; 0.1 in MMT]."
    )
    alpha: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.999,
        description="The teacher's momentum, warmed up as 1 − 1/(step + 1) [paper 3.4; code MMT].",
    )
    samples_per_bn: Count = Field(
        default=16, description="Tracklets normalised together by batch norm [code TMC: 64 over 4 GPUs]."
    )
    cluster_feature: Literal["post_bn", "pre_bn"] = Field(
        default="post_bn",
        description="Feature for association: after the BN neck [code MMT] or before it [code TMC].",
    )
    augment: Augment = Field(default=Augment(), description="Of training crops [code MMT].")

    @model_validator(mode="after")
    def _fit_together(self) -> Config:
        if self.samples_per_bn * self.frames_train < 2:
            raise Refusal(
                "samples_per_bn = 1 with frames_train = 1 leaves batch norm one image, which has no "
                "variance: raise one of them"
            )
        return self


def method(config: Config | None = None) -> Method:
    """TMC as a value that `train.train` runs."""
    config = config or Config()
    stage = Stage(
        name="tmc",
        rounds=config.epochs,
        assign=partial(association.associate, config),
        head=classifier,
        optimise=partial(adam, learning_rate=config.learning_rate, weight_decay=config.weight_decay),
        iterations=partial(_iterations, config),
        sample=partial(_draw, config),
        objective=partial(_objective, config),
        weights={
            "id": 1 - config.lambda_id,
            "sid": config.lambda_id,
            "tri": 1 - config.lambda_tri,
            "stri": config.lambda_tri,
        },
        augment=config.augment,
        frames_cluster=config.frames_cluster,
        cluster_feature=config.cluster_feature,
        samples_per_bn=config.samples_per_bn,
        alpha=config.alpha,
    )
    return Method(
        name="tmc" if config.isolate else "tmc-",
        prepare=partial(isolation.parts, config) if config.isolate else None,
        prepare_every=config.isolate_every,
        stages=(stage,),
        tensors=True,
    )


def _draw(
    config: Config, tracklets: Tracklets, labels: PseudoLabels, n_iterations: int, rng: np.random.Generator
) -> sample.Plan:
    """The batches of an epoch; where time tells people apart, they come together."""
    return sample.batches(
        tracklets,
        labels,
        n_iterations,
        rng,
        clusters_per_batch=config.clusters_per_batch,
        tracklets_per_cluster=config.tracklets_per_cluster,
        n_frames=config.frames_train,
        beside=moments(tracklets).pair if config.time_tells else None,
    )


def _iterations(config: Config, labels: PseudoLabels) -> int:
    return max(1, round(0.6 * labels.n_clusters)) if config.iterations == "auto" else config.iterations


def terms(config: Config, student: View, mean_teacher: View, target: Target) -> dict[str, Tensor]:
    """The four losses of a student that learns from labels and from a teacher, by name.

    Args:
        config: smoothing, margin and form of the triplet loss.
        student: mined for the hardest positives and negatives.
        mean_teacher: gives soft targets, without gradient; of the same samples in the same order.
        target: the labels.

    Returns:
        {"id", "sid", "tri", "stri"}: scalars, unweighted.

    Source: METHODS 2.4 (TMC eq. 2-6).
    """
    distance = losses.pairwise(student.feature)
    mined = losses.mine(distance, target.label)
    gap, weight = losses.gap(distance, mined), target.weight
    teacher_gap = losses.gap(losses.pairwise(mean_teacher.feature), mined)
    return {
        "id": losses.identity(student.logits, target.label, smoothing=config.label_smoothing, weight=weight),
        "sid": losses.soft_identity(student.logits, mean_teacher.logits, weight=weight),
        "tri": losses.triplet(gap, margin=config.margin, form=config.triplet, weight=weight),
        "stri": losses.soft_triplet(gap, teacher_gap, weight=weight),
    }


def _objective(
    config: Config, students: Sequence[View], teachers: Sequence[View], target: Target
) -> dict[str, Tensor]:
    (student,), (mean_teacher,) = students, teachers
    return terms(config, student, mean_teacher, target)
