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

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from tracklearn.core import cluster, normalise, radius
from tracklearn.core.features import unit_rows
from tracklearn.core.labels import Selection, select_clusters
from tracklearn.core.labels import agreement as agreement_of
from tracklearn.learn import losses, sample
from tracklearn.learn.augment import Augment
from tracklearn.learn.method import Assignment, Material, Method, Moment, Stage, Target, View
from tracklearn.learn.methods import isolation
from tracklearn.learn.methods.isolation import Count, Positive
from tracklearn.learn.network import Network
from tracklearn.types import Array, PseudoLabels, Tracklets

# Epochs of the published schedules; others are scaled to theirs.
WARM, FIRST_DROP, SECOND_DROP, EPOCHS = 10, 40, 70, 90


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
            raise ValueError(
                f"frozen_epochs = {self.frozen_epochs} leaves the body no epoch of the {self.step_epochs} "
                "in step_epochs: lower one or raise the other"
            )
        if self.samples_per_bn * self.frames_train < 2:
            raise ValueError(
                "samples_per_bn = 1 with frames_train = 1 leaves batch norm one image, which has no "
                "variance: raise one of them"
            )
        return self


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
        raise ValueError("source and source_label belong together: give both, or neither")
    stages: tuple[Stage, ...] = (_steps(config),)
    if source is not None:
        stages = (_source(config, source, np.asarray(source_label)), *stages)
    return Method(
        name="msplr" + ("" if source else "-steps") + ("+isolation" if config.isolate else ""),
        prepare=partial(isolation.parts, config) if config.isolate else None,
        stages=stages,
        cameras=config.min_cameras,
    )


def rate(schedule: Literal["code", "slides"], epoch: int, epochs: int) -> float:
    """The learning rate of an epoch, as a multiple of `Config.learning_rate`.

    Of 90 epochs, others in proportion:

    - "code": from 0.01 to 1 linearly over the first 10, 1 up to the 40th, 0.1 up to the 70th, 0.01 to the
      end.
    - "slides": t/10 in epoch t up to the 10th, 10 up to the 40th, 1 up to the 70th, 0.1 to the end.

    Args:
        schedule: which.
        epoch: from 0.
        epochs: how many there are.

    Example:
        >>> [round(rate("code", e, 90), 3) for e in (0, 5, 10, 39, 40, 70)]
        [0.01, 0.505, 1.0, 1.0, 0.1, 0.01]
        >>> [round(rate("slides", e, 90), 3) for e in (0, 9, 10, 39, 40, 70)]
        [0.1, 1.0, 10.0, 10.0, 1.0, 0.1]

    Source: METHODS 5.1; epochs that end, not those that begin, are counted in the slides' warm-up.
    """
    done = epoch * EPOCHS
    if done < WARM * epochs:
        through = done / (WARM * epochs)
        # Few epochs: one that the warm-up ends in has its last rate.
        return 0.01 + 0.99 * through if schedule == "code" else min(1.0, (done + EPOCHS) / epochs / WARM)
    height = 1.0 if schedule == "code" else 10.0
    return height * (1.0 if done < FIRST_DROP * epochs else 0.1 if done < SECOND_DROP * epochs else 0.01)


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
        raise ValueError(
            f"source_label has shape {label.shape}, expected ({len(tracklets)},): one per tracklet"
        )
    if tracklets.n_crops and not 0 <= tracklets.crop.min() <= tracklets.crop.max() < len(source.crops):
        raise ValueError(
            f"source refers to crop {tracklets.crop.max()}, its crops are {len(source.crops)}: "
            "take both from the same set"
        )
    person, number = np.unique(label[label >= 0], return_inverse=True)
    if len(person) < 2:
        raise ValueError(f"source_label names {len(person)} person(s), expected at least 2")
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
        schedule=partial(_schedule, config, 0),
        material=source,
    )


def _steps(config: Config) -> Stage:
    return _stage(
        config,
        name="steps",
        rounds=config.max_steps * config.step_epochs,
        assign=partial(_guess, config),
        frames_cluster=config.frames_cluster,
        assign_every=config.step_epochs,
        schedule=partial(_schedule, config, config.frozen_epochs),
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


def _schedule(
    config: Config,
    frozen_epochs: int,
    students: Sequence[nn.Module],
    optimisers: Sequence[torch.optim.Optimizer],
    moment: Moment,
) -> None:
    """Set Adam's rate, and freeze the body for the first epochs.

    Frozen are its parameters and the statistics of its norms, the pooling included. The BN neck learns with
    the new classifier, whose input it scales: code of this family that freezes a body leaves it out
    (chosen; other code freezes all but the classifier). Meanwhile the rate is the full one; the schedule
    begins where the body thaws, so that its warm-up is the body's.
    """
    (student,), adam = students, optimisers[0]
    frozen = moment.round < frozen_epochs
    student.train(not frozen)
    cast(Network, student).neck.train()
    for parameter in adam.param_groups[0]["params"]:
        parameter.requires_grad_(not frozen)
    part = (
        1.0 if frozen else rate(config.schedule, moment.round - frozen_epochs, moment.rounds - frozen_epochs)
    )
    for group in adam.param_groups:
        group["lr"] = config.learning_rate * part


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


def _guess(config: Config, features: Array, tracklets: Tracklets, memory: Mapping[str, Array]) -> Assignment:
    """The pseudo-labels of a step, and whether they still change.

    eps comes from the first step and then stays, as the paper's is the same in all steps: while persons draw
    together, more of their tracklets come within it.
    """
    first = "step" not in memory
    compared = _compared(config, features, tracklets.camid)
    n = len(compared.rows)
    adapted = cluster.adapt(n, k1=1, k2=1, min_samples=config.min_samples, rho=config.rho)
    if not config.fit_to_size:
        adapted = cluster.Adapted(1, 1, config.min_samples, config.rho, ())
    near = radius.mean_nearest(compared.rows, adapted.rho)
    chance = radius.chance_level(compared.rows, adapted.rho, seed=config.seed)
    diagnosis = [*compared.diagnosis, *(adapted.warnings if first else ())]
    eps = start = float("nan")
    found = np.full(len(tracklets), -1, np.int64)
    trouble = _trouble(config, n, near, chance, first=first)
    if trouble:
        diagnosis.append(trouble)
    elif config.clustering == "kmeans":
        found[compared.index] = _k_means(config, compared.rows)
    else:
        start = float(memory["eps"].item()) if not first else near if config.eps == "auto" else config.eps
        widest = min(cluster.EPS_WIDEST * start, config.structure * chance, cluster.EPS_LIMIT)

        def usable(label: Array) -> bool:
            full = found.copy()
            full[compared.index] = label
            return _selected(config, full, tracklets).label.max(initial=-1) >= 1

        found[compared.index], eps, tried = radius.clusters(
            compared.rows, start, adapted.min_samples, widest=max(start, widest), usable=usable
        )
        diagnosis += tried
    structure = near / chance if chance else float("nan")
    return _assignment(config, tracklets, found, eps, start, structure, diagnosis, memory)


def _assignment(
    config: Config,
    tracklets: Tracklets,
    found: Array,
    eps: float,
    start: float,
    structure: float,
    diagnosis: list[str],
    memory: Mapping[str, Array],
) -> Assignment:
    """What the clusters that were found leave after selection, beside the step before."""
    selection = _selected(config, found, tracklets)
    label = selection.label
    kept = label >= 0
    images = int(tracklets.length[kept].sum())
    share = images / max(1, tracklets.n_crops)
    step, still, agreement = 1, 0, float("nan")
    if memory:
        step = int(memory["step"].item()) + 1
        agreement = agreement_of(memory["label"], label)
        calm = (
            abs(share - float(memory["share"].item())) < config.stop_kept
            and abs(agreement - float(memory["agreement"].item())) < config.stop_agreement
        )
        still = int(memory["still"].item()) + 1 if calm else 0
    n_found = len(np.unique(found[found >= 0]))
    n_kept = int(label.max(initial=-1)) + 1
    if n_found and n_kept < 2:
        diagnosis.append(
            f"{n_found} clusters were found, {selection.n_small} dropped with less than {config.min_images} "
            f"images and {selection.n_few_cameras} seen by less than {config.min_cameras} cameras: start "
            "from better weights, or give more video"
        )
    largest = int(np.bincount(label[kept], minlength=1).max())
    if n_kept >= 2 and largest > cluster.GIANT * len(label):
        diagnosis.append(
            f"the largest of {n_kept} clusters holds {largest} of {len(label)} tracklets: if one person "
            "cannot have that many, start from better weights or give a smaller eps"
        )
    record = {
        "step": step,
        "eps": eps,
        "n_found": n_found,
        "dropped_small": selection.n_small,
        "dropped_one_camera": selection.n_few_cameras,
        "kept": int(kept.sum()),
        "kept_images": images,
        "kept_fraction": share,
        "agreement": agreement,
        "structure": structure,
    }
    return Assignment(
        labels=PseudoLabels.of(label),
        eps=eps,
        memory={
            "step": np.array(step),
            "label": label,
            "share": np.array(share),
            "agreement": np.array(agreement),
            "still": np.array(still),
            "eps": np.array(start),
        },
        diagnosis=tuple(diagnosis),
        record={name: float(value) for name, value in record.items() if math.isfinite(value)},
        last=still >= config.stop_steps,
    )


@dataclass(frozen=True, eq=False)
class _Compared:
    """Features as they are compared: unit rows of the tracklets `index`; what was left out is said."""

    rows: Array
    index: Array
    diagnosis: tuple[str, ...]


def _compared(config: Config, features: Array, camid: Array) -> _Compared:
    """Normalised features, without tracklets that are as the mean of their camera in every dimension."""
    made = normalise.per_camera(features, camid) if config.normalise else features
    index = np.flatnonzero(made.any(1))
    flat = len(made) - len(index)
    said = (f"{flat} tracklets look like the mean of their camera and are left out",) if flat else ()
    return _Compared(unit_rows(made[index]), index, said)


def _trouble(config: Config, n: int, near: float, chance: float, *, first: bool) -> str:
    """Why these features cannot be clustered; empty where they can."""
    if n < 4:
        return f"{n} tracklets are too few to cluster: give more video"
    if near == 0:
        return (
            f"all {n} tracklets look the same: the features do not tell people apart: start from better "
            "weights, or check for blank crops"
        )
    if first and near >= config.structure * chance:
        return (
            f"the nearest tracklets are {near / chance:.2f} times as far apart as chance would have them, "
            f"clusters need less than {config.structure:g}: these features see no people in the target; look "
            "at its crops, train longer on the source, or start from better weights"
        )
    return ""


def _selected(config: Config, label: Array, tracklets: Tracklets) -> Selection:
    """Cluster selection with every tracklet counted as often as it has crops; labels per tracklet."""
    own = tracklets.tracklet
    by_crop = select_clusters(
        label[own], tracklets.camid[own], min_size=config.min_images, min_cameras=config.min_cameras
    )
    of_tracklet = by_crop.label[tracklets.start[:-1]]
    return Selection(of_tracklet, by_crop.n_small, by_crop.n_few_cameras)


def _k_means(config: Config, rows: Array) -> Array:
    """⌊n / per_cluster⌋ clusters; one thread, as its sums depend on their number."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    k = max(1, len(rows) // config.per_cluster)
    with threadpool_limits(limits=1):
        found = KMeans(k, n_init=1, max_iter=100, random_state=config.seed).fit_predict(rows)
    return np.asarray(found, np.int64)
