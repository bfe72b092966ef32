"""What a method is made of: values that `train.train` runs, no class hierarchy.

Source: the design follows what TMC, MMT, UGA and MSPLR have in common (METHODS 3-6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tracklearn.core.calibration import Calibration
from tracklearn.learn.augment import Augment
from tracklearn.learn.sample import Plan
from tracklearn.types import Array, Crops, PseudoLabels, Tracklets


@dataclass(frozen=True, eq=False)
class Assignment:
    """What a stage's `assign` makes of the features.

    Args:
        labels: one per tracklet; labels other than −1 are 0..c − 1.
        eps: radius used, nan where the method has none.
        memory: arrays handed to the next round's `assign` and kept in the state (a frozen eps, a graph).
        aux: arrays the objective needs, handed to it as tensors on the device.
        diagnosis: sentences for the user: what was adapted, what looks wrong.
        group: (t,) int64, which tracklets the method takes for one person, −1 = for nobody else's; where
            that is not what `labels` say, as when every tracklet is a class of its own.
        record: numbers for the round's record.
        keep: arrays that the run keeps of its last round, for the report.
        last: the stage ends after the rounds on these labels, because others would be no better.
    """

    labels: PseudoLabels
    eps: float = float("nan")
    memory: Mapping[str, Array] = field(default_factory=dict)
    aux: Mapping[str, Array] = field(default_factory=dict)
    diagnosis: tuple[str, ...] = ()
    group: Array | None = None
    record: Mapping[str, float] = field(default_factory=dict)
    keep: Mapping[str, Array] = field(default_factory=dict)
    last: bool = False

    @property
    def people(self) -> PseudoLabels:
        """What the method holds for one person: `group`, or else the labels."""
        return self.labels if self.group is None else PseudoLabels.of(self.group)


@dataclass(frozen=True, eq=False)
class Isolated:
    """What a method's `prepare` makes of the tracklets.

    Args:
        part: (n,) int64, part of each crop in its tracklet; −1 drops it, and what is below is set aside
            (`core.pieces`): nothing is learned from it, but tables and galleries hold it.
        calibration: what free pairs, or crops of strangers, told of distances, by statistic; empty where
            nobody asked.
        notes: sentences for the user.
    """

    part: Array
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class View:
    """What one network makes of one batch.

    Args:
        feature: (b, d) pre-BN features, mean over each tracklet's frames.
        logits: the head's output for the mean post-BN features, (b, c) for a classifier.
        centre: (b, d) row of the head's `centres` for each sample's label, where the head has them.
        memory: (m, d) the head's `memory`, where it has one; it takes no gradient.
    """

    feature: Tensor
    logits: Tensor
    centre: Tensor | None = None
    memory: Tensor | None = None


class Moment(NamedTuple):
    """Where training stands within the rounds on one assignment of labels; all from 0.

    Args:
        round, rounds: this one, and how many there are.
        batch, batches: this one in its round, and how many there are.
        epoch: this round in its stage.
    """

    round: int
    rounds: int
    batch: int
    batches: int
    epoch: int = 0


@dataclass(frozen=True, eq=False)
class Material:
    """Tracklets and the crops they refer to."""

    tracklets: Tracklets
    crops: Crops


@dataclass(frozen=True, eq=False)
class Target:
    """What the labels say of one batch: tracklet, label, space (b,) int64, weight (b,) float32, and aux.

    `epoch` is the round in its stage, from 0.
    """

    tracklet: Tensor
    label: Tensor
    space: Tensor
    weight: Tensor
    aux: Mapping[str, Tensor]
    epoch: int = 0


@dataclass(frozen=True)
class Stage:
    """A number of rounds; each extracts features, assigns labels and fits the networks to them.

    The head, and what the optimisers remember, lives as long as its labels: `assign_every` rounds. With
    `optimisers_stay` what they remember of the student lives as long as the stage.

    Args:
        name: for the record.
        rounds: how many (epochs).
        assign: (features (t, d) unit, tracklets, memory) -> Assignment.
        head: (features (t, d), labels) -> module on the mean post-BN feature, made for every student and
            copied into its teacher. Its shape depends on the labels and d alone. It may hold `centres`, an
            nn.Embedding with a row for each class, for `View.centre`, and a buffer `memory`, for
            `View.memory`.
        optimise: (student, head) -> optimisers, made together with the head.
        iterations: labels -> number of batches in a round.
        sample: (tracklets, labels, n_iterations, rng) -> Plan.
        objective: (students' views, teachers' views, target) -> named loss terms. A term that is only
            recorded may be a pair (sum, count), whose means over a round are divided at its end; a term
            `accuracy` takes the place of the heads' hits among all classes.
        weights: of each term in the total; terms without one are recorded only.
        augment: for the training images; every network gets its own draw.
        frames_cluster: consecutive frames of each tracklet behind its feature.
        cluster_feature: "post_bn": mean of unit features after the BN neck; "pre_bn": mean of the features
            before it as they are [code TMC]. The mean is unit in both.
        samples_per_bn: tracklets in one batch-norm group.
        alpha: the teachers' momentum. None: nothing is learned from teachers, `objective` gets no views of
            them, and after each round they are copies of the students.
        assign_every: rounds for which labels stay; in those that keep them nothing is extracted.
        schedule: (students, optimisers, moment) called before every batch, to set learning rates or to
            freeze parts.
        remember: (head, its student's view, target) called after every batch's step, to change what a head
            holds without gradients; the view is the whole batch's, without gradient, and the same in every
            process.
        teaches: whether `objective` gets views of the teachers; where it does not, they are only averages,
            running statistics of norms included.
        optimisers_stay: the optimisers remember from one assignment to the next; heads then have no
            parameters.
        material: what the stage learns from, where that is not what `train` was given.
    """

    name: str
    rounds: int
    assign: Callable[[Array, Tracklets, Mapping[str, Array]], Assignment]
    head: Callable[[Array, PseudoLabels], nn.Module]
    optimise: Callable[[nn.Module, nn.Module], Sequence[torch.optim.Optimizer]]
    iterations: Callable[[PseudoLabels], int]
    sample: Callable[[Tracklets, PseudoLabels, int, np.random.Generator], Plan]
    objective: Callable[[Sequence[View], Sequence[View], Target], dict[str, Tensor]]
    weights: Mapping[str, float]
    augment: Augment
    frames_cluster: int = 32
    cluster_feature: Literal["post_bn", "pre_bn"] = "post_bn"
    samples_per_bn: int = 16
    alpha: float | None = 0.999
    assign_every: int = 1
    schedule: Callable[[Sequence[nn.Module], Sequence[torch.optim.Optimizer], Moment], None] | None = None
    remember: Callable[[nn.Module, View, Target], None] | None = None
    teaches: bool = True
    optimisers_stay: bool = False
    material: Material | None = None


@dataclass(frozen=True)
class Method:
    """A way to learn from tracklets.

    Args:
        name: for the record.
        prepare: (features of all crops (n, d), tracklets, similarity of adjacent crops (n,)) -> `Isolated`,
            or part (n,) alone, as there; None leaves the tracklets as they are.
        prepare_looks: whether `prepare` asks for features and similarity. Where it does not, or is None, only
            those of a sample are extracted, for the record; `prepare` gets (0, d) and (0,).
        prepare_every: rounds after which `prepare` looks again, at the original tracklets with what the first
            teacher has learned, wherever labels are assigned anew; 0: once, before the first round. What
            stages remember (`Assignment.memory`) begins anew then.
        stages: run one after the other on the same networks.
        networks: number of students, each with a teacher of its own.
        cameras: fewest cameras whose tracklets it can learn from.
        tensors: whether `prepare` and every `assign` also take the features as a torch tensor. On a CUDA
            device they then get one there, unless it would fill a quarter of the free memory.
    """

    name: str
    prepare: Callable[[Array, Tracklets, Array], Isolated | Array] | None
    stages: tuple[Stage, ...]
    networks: int = 1
    cameras: int = 1
    prepare_looks: bool = True
    prepare_every: int = 0
    tensors: bool = False
