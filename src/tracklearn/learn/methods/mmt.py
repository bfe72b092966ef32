"""MMT: mutual mean-teaching.

Two students, each with a mean teacher of its own, learn from the same clusters and from each other: the soft
targets of a student come from the other student's teacher, which has seen another augmentation of the batch.
Two networks that start apart err apart, so neither confirms its own mistakes.

Everything else is as in TMC, which is the case of one student and one teacher on the same images: how
tracklets are associated and batches drawn, classifiers, optimisers, the four losses. The networks given to
`train.train` should differ in their initialisation; two equal ones differ by their augmentation alone.

Source: Ge, Chen, Li, "Mutual Mean-Teaching: Pseudo Label Refinery for Unsupervised Domain Adaptation on
Person Re-identification", arXiv 2001.01526; clustering by DBSCAN as in its authors' code; METHODS 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

from pydantic import Field
from torch import Tensor

from tracklearn.learn.method import Method, Target, View
from tracklearn.learn.methods import tmc
from tracklearn.learn.settings import Count, Positive, Share


class Config(tmc.Config):
    """Settings of MMT: TMC's, with the defaults of MMT where they differ.

    Origins as in `tmc.Config`; [paper MMT] is stated by the paper named above.
    """

    isolate: bool = Field(
        default=False,
        description="Cut tracklets at switches first, as TMC does [chosen: off; MMT has single images].",
    )
    k1: Count = Field(default=20, description="Neighbours in the Jaccard distance [code MMT; 30 in TMC].")
    epochs: int = Field(default=40, ge=0, description="Rounds of association and training [paper MMT].")
    iterations: Literal["auto"] | Count = Field(
        default=400,
        description="Batches per epoch [code MMT]; auto is round(0.6 × clusters), at least 1 [code TMC].",
    )
    clusters_per_batch: int = Field(
        default=16,
        ge=2,
        description="Clusters in a batch; fewer where there are fewer [code MMT: 64 images = 16 × 4].",
    )
    tracklets_per_cluster: int = Field(
        default=4, ge=2, description="Tracklets of each cluster in a batch [code MMT]."
    )
    frames_train: Count = Field(
        default=1,
        description="Consecutive frames of a tracklet in training [code MMT: a sample is one image].",
    )
    frames_cluster: Count = Field(
        default=32, description="Consecutive frames of a tracklet for association [chosen: as in TMC]."
    )
    learning_rate: Positive = Field(default=3.5e-4, description="Of Adam, constant [paper MMT].")
    weight_decay: float = Field(default=5e-4, ge=0, description="Of Adam [paper MMT].")
    lambda_id: Share = Field(default=0.5, description="Share of the soft identity loss [paper MMT].")
    lambda_tri: Share = Field(default=0.8, description="Share of the soft triplet loss [paper MMT].")
    margin: float = Field(
        default=0.5, ge=0, description='Of the triplet loss where triplet is "margin" [paper TMC eq. 3].'
    )
    triplet: Literal["margin", "softplus"] = Field(
        default="softplus",
        description="softplus(d_ap − d_an) [code MMT] or max(0, m + d_ap − d_an) [paper TMC eq. 3].",
    )
    label_smoothing: float = Field(default=0.1, ge=0, lt=1, description="Of the identity loss [code MMT].")
    alpha: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="The teachers' momentum [paper MMT], warmed up as 1 − 1/(step + 1) [code MMT].",
    )
    samples_per_bn: Count = Field(
        default=16,
        description="Tracklets, of one image each, normalised together by batch norm [code MMT: 64 "
        "over 4 GPUs].",
    )


def method(config: Config | None = None) -> Method:
    """MMT as a value that `train.train` runs with two networks.

    Every loss is recorded for each student, `id_1`, `id_2` and so on, where 1 and 2 are the first and the
    second network given; their weighted sum over both is what is minimised. Memory and time are about twice
    those of TMC with the same settings: four networks, and features of both teachers in every round.
    """
    config = config or Config()
    single = tmc.method(config)
    (stage,) = single.stages
    mutual = replace(
        stage,
        name="mmt",
        objective=partial(_objective, config),
        weights={f"{name}_{k}": weight for name, weight in stage.weights.items() for k in (1, 2)},
    )
    return replace(single, name="mmt+isolation" if config.isolate else "mmt", stages=(mutual,), networks=2)


def _objective(
    config: Config, students: Sequence[View], teachers: Sequence[View], target: Target
) -> dict[str, Tensor]:
    (student_1, student_2), (teacher_1, teacher_2) = students, teachers
    crossed = (
        tmc.terms(config, student_1, teacher_2, target),
        tmc.terms(config, student_2, teacher_1, target),
    )
    return {f"{name}_{k}": terms[name] for name in crossed[0] for k, terms in enumerate(crossed, 1)}
