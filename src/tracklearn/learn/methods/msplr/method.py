"""MSPLR: multi-step pseudo-label refinement.

A network learns from a labelled set of other people and cameras, the source. Then, step by step, it guesses
who is who in the unlabelled target and learns from its guesses: features without what their cameras add,
clusters of these, those clusters that several cameras see. Each step begins with a new classifier and, for
some epochs, a frozen body.

An image of the paper is a crop here, and a sample is a tracklet: clusters are of tracklets, and a tracklet
counts with its crops where images are counted. On a set of single images each is a tracklet of one crop, and
both are the paper's.

Source: Pereira, de Campos, "Learn by Guessing: Multi-Step Pseudo-Label Refinement for Person
Re-Identification", VISAPP 2022, arXiv 2101.01215; supervised training from Luo et al., "Bag of Tricks and a
Strong Baseline for Deep Person Re-identification", CVPRW 2019; METHODS 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from tracklearn.learn import losses, sample
from tracklearn.learn.method import Assignment, Material, Method, Stage, Target, View
from tracklearn.learn.methods import isolation
from tracklearn.learn.methods.msplr.config import Config
from tracklearn.learn.methods.msplr.guess import guess
from tracklearn.learn.methods.msplr.schedule import schedule
from tracklearn.learn.network import Network
from tracklearn.types import Array, PseudoLabels, Refusal


def method(
    config: Config | None = None, source: Material | None = None, source_label: Array | None = None
) -> Method:
    """MSPLR as a value that `train.train` runs on the target's tracklets.

    Args:
        config: settings.
        source: a labelled set of other people, which the network learns from first. None: the network given
            to `train.train` has learned already, and the steps begin at once.
        source_label: (t_s,) int, the person of each of the source's tracklets; −1 leaves it out.

    Raises:
        ValueError: one of source and source_label is given without the other; they do not fit; or there are
            less than two persons.
    """
    config = config or Config()
    if (source is None) != (source_label is None):
        raise Refusal("source and source_label belong together: give both, or neither")
    stages: tuple[Stage, ...] = (_steps(config),)
    if source is not None:
        stages = (_source(config, source, np.asarray(source_label)), *stages)
    return Method(
        name="msplr" + ("" if source else "-steps") + ("+isolation" if config.isolate else ""),
        prepare=partial(isolation.parts, config) if config.isolate else None,
        prepare_every=config.isolate_every,
        stages=stages,
        cameras=config.min_cameras,
    )


class Head(nn.Module):
    """A linear layer without bias, N(0, 0.001), and a centre N(0, 1) for every class.

    Args:
        n_classes, width: its shape.
        centres: whether there are any.
        seed: what is drawn comes from it and the shape alone.

    Source: the strong baseline (METHODS 2.1), whose centres begin so too.
    """

    def __init__(self, n_classes: int, width: int, *, centres: bool, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        # skip_init: a random start would draw from the global generator and be overwritten at once
        self.classifier = nn.utils.skip_init(nn.Linear, width, n_classes, bias=False)
        self.centres = nn.utils.skip_init(nn.Embedding, n_classes, width) if centres else None
        with torch.no_grad():
            self.classifier.weight.normal_(0, 0.001, generator=generator)
            if self.centres is not None:
                self.centres.weight.normal_(generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """(b, width) in, (b, n_classes) out."""
        return self.classifier(x)


def _stage(config: Config, **special: Any) -> Stage:
    """What the training on the source and every step have in common."""
    weights = {"id": 1.0, "tri": config.lambda_tri}
    if config.lambda_centre:
        weights["centre"] = config.lambda_centre
    return Stage(
        head=partial(_head, config),
        optimise=partial(_optimise, config),
        iterations=partial(_iterations, config),
        sample=partial(
            sample.batches,
            clusters_per_batch=config.clusters_per_batch,
            tracklets_per_cluster=config.tracklets_per_cluster,
            n_frames=config.frames_train,
        ),
        objective=partial(_objective, config),
        weights=weights,
        augment=config.augment,
        samples_per_bn=config.samples_per_bn,
        alpha=None,
        **special,
    )


def _source(config: Config, source: Material, label: Array) -> Stage:
    tracklets = source.tracklets
    if label.shape != (len(tracklets),):
        raise Refusal(f"source_label has shape {label.shape}, expected ({len(tracklets)},): one per tracklet")
    if tracklets.n_crops and not 0 <= tracklets.crop.min() <= tracklets.crop.max() < len(source.crops):
        raise Refusal(
            f"source refers to crop {tracklets.crop.max()}, its crops are {len(source.crops)}: "
            "take both from the same set"
        )
    person, number = np.unique(label[label >= 0], return_inverse=True)
    if len(person) < 2:
        raise Refusal(f"source_label names {len(person)} person(s), expected at least 2")
    classes = np.full(len(label), -1, np.int64)
    classes[label >= 0] = number
    assigned = Assignment(PseudoLabels.of(classes))
    return _stage(
        config,
        name="source",
        rounds=config.source_epochs,
        assign=lambda features, tracklets, memory: assigned,
        frames_cluster=1,  # labels do not come from features
        assign_every=max(1, config.source_epochs),
        schedule=partial(schedule, config, 0),
        material=source,
    )


def _steps(config: Config) -> Stage:
    return _stage(
        config,
        name="steps",
        rounds=config.max_steps * config.step_epochs,
        assign=partial(guess, config),
        frames_cluster=config.frames_cluster,
        assign_every=config.step_epochs,
        schedule=partial(schedule, config, config.frozen_epochs),
    )


def _head(config: Config, features: Array, labels: PseudoLabels) -> nn.Module:
    centres = config.lambda_centre > 0
    return Head(labels.n_clusters, features.shape[1], centres=centres, seed=config.seed)


def _optimise(config: Config, student: nn.Module, head: nn.Module) -> list[torch.optim.Optimizer]:
    """Adam with the body as its first group, and SGD for the centres.

    The total loss holds λ × the centre loss, so a rate of 0.5 / λ is what the code does by dividing the
    centres' gradients by λ before a step with rate 0.5.
    """
    assert isinstance(head, Head)
    neck = list(cast(Network, student).neck.parameters())
    own = {id(p) for p in neck}
    body = [p for p in student.parameters() if p.requires_grad and id(p) not in own]
    rest = [p for p in (*neck, *head.classifier.parameters()) if p.requires_grad]
    groups = [{"params": body}, {"params": rest}]
    adam = torch.optim.Adam(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
    if head.centres is None:
        return [adam]
    return [adam, torch.optim.SGD(head.centres.parameters(), lr=config.centre_rate / config.lambda_centre)]


def _iterations(config: Config, labels: PseudoLabels) -> int:
    if config.iterations != "auto":
        return config.iterations
    batch = config.clusters_per_batch * config.tracklets_per_cluster
    return max(1, round(int((labels.label >= 0).sum()) / batch))


def _objective(
    config: Config, students: Sequence[View], teachers: Sequence[View], target: Target
) -> dict[str, Tensor]:
    (student,), weight = students, target.weight
    distance = losses.pairwise(student.feature)
    gap = losses.gap(distance, losses.mine(distance, target.label))
    out = {
        "id": losses.identity(student.logits, target.label, smoothing=config.label_smoothing, weight=weight),
        "tri": losses.triplet(gap, margin=config.margin, form=config.triplet, weight=weight),
    }
    if student.centre is not None:
        out["centre"] = losses.centre(student.feature, student.centre, weight=weight)
    return out
