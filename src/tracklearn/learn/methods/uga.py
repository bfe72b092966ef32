"""UGA: unsupervised graph association.

First every tracklet is a class of its own, told apart from the others of its camera (stage "intra"). Then
tracklets of different cameras that are each other's nearest are joined by a graph, and an image is taught to
be like its own tracklet in its own camera and like the joined ones in theirs (stage "inter").

It rests on one tracklet per person and camera, which sampling in time and space provides, and needs several
cameras.

Source: Wu et al., "Unsupervised Graph Association for Person Re-identification", ICCV 2019, and its project
page for the loss and the node update; METHODS 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tracklearn.core import graph, pieces, sampling
from tracklearn.learn import sample
from tracklearn.learn.augment import Augment
from tracklearn.learn.heads import adam
from tracklearn.learn.method import Assignment, Isolated, Method, Stage, Target, View
from tracklearn.learn.methods import isolation
from tracklearn.learn.settings import Count, Positive
from tracklearn.types import Array, PseudoLabels, Refusal, Tracklets

# Cameras up to which each has numbers of its own in the record, and each pair of them.
_CAMERAS = 16
_CAMERAS_IN_PAIRS = 6

# Passes over all tracklets in an epoch where `iterations` is "auto".
_PASSES = 4


class Config(isolation.Config):
    """Settings of UGA, each with its origin.

    [paper] stated by the paper, [page] by its project page, [code] from public code of MMT or TMC, [chosen]
    ours where no source says.
    """

    isolate: bool = Field(
        default=False,
        description="Cut tracklets at switches first, as TMC does [chosen: off; the paper's are clean].",
    )
    sampling: Literal["sstt", "all"] = Field(
        default="sstt",
        description="Which tracklets are used: sstt, a sample in time and space that holds a person at most "
        "once per camera [paper]; all, for sets that already do, and for benchmarks, whose boxes and times "
        "say nothing.",
    )
    period: Literal["auto"] | Positive = Field(
        default="auto",
        description="Seconds between the moments of sstt, longer than a person's usual stay. auto: in each "
        "camera twice the 95 % quantile of the lengths of tracklets, too short where trackers break long "
        "stays [chosen].",
    )
    distance: Annotated[float, Field(ge=0)] = Field(
        default=0.5,
        description="Of tracklets nearer each other at a moment of sstt than this share of their height only "
        "the longest is used [chosen].",
    )
    epochs_intra: Annotated[int, Field(ge=0)] = Field(
        default=40, description="Rounds inside cameras [chosen]."
    )
    epochs_inter: Annotated[int, Field(ge=0)] = Field(
        default=40, description="Rounds across cameras, each with a new graph [chosen]."
    )
    k: Count = Field(
        default=1, description="K: nearest tracklets in each other camera that may be joined [chosen]."
    )
    threshold: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.6, description="λ: cosine above which tracklets may be joined [chosen]."
    )
    neighbors: Literal["exact", "int8"] = Field(
        default="exact",
        description="How the nearest are found: exact; int8, the same result from 8-bit products [chosen].",
    )
    node_rate: Positive = Field(
        default=0.1,
        description="η: rate of the node vectors' gradient descent [chosen]. On made features nodes "
        "overshoot at 0.1 and the accuracy falls, at 0.01 they do not.",
    )
    logits: Literal["cosine", "raw"] = Field(
        default="cosine",
        description="How images are compared with nodes: cosine over temperature, nodes of unit length "
        "[chosen]; raw, plain products of post-BN features and free nodes, which wants a far lower "
        "node_rate [page].",
    )
    temperature: Positive = Field(default=0.05, description="τ, where logits is cosine [chosen].")
    iterations: Literal["auto"] | Count = Field(
        default="auto",
        description="Batches per epoch; auto is as many as show every tracklet in four of them [chosen: "
        "about TMC's].",
    )
    tracklets_per_batch: Annotated[int, Field(ge=2)] = Field(
        default=16,
        description="Tracklets in a batch, of all cameras; fewer where there are fewer [chosen: 64 images "
        "= 16 × 4, as MMT].",
    )
    images_per_tracklet: Count = Field(
        default=4, description="Images of each tracklet in a batch, spread over it [chosen: as MMT]."
    )
    frames_cluster: Count = Field(
        default=32, description="Consecutive frames behind a tracklet's mean feature c_i [chosen: as in TMC]."
    )
    learning_rate: Positive = Field(default=3.5e-4, description="Of Adam, constant [chosen: as in TMC].")
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        default=5e-4, description="Of Adam [chosen: as in TMC]."
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Over the classes of a camera, in the stage inside cameras [chosen: none]."
    )
    samples_per_bn: Annotated[int, Field(ge=2)] = Field(
        default=16, description="Images normalised together by batch norm [code MMT: 64 over 4 GPUs]."
    )
    augment: Augment = Field(default=Augment(), description="Of training crops [code MMT].")

    @property
    def epochs(self) -> int:
        """Rounds of both stages."""
        return self.epochs_intra + self.epochs_inter


def method(config: Config | None = None) -> Method:
    """UGA as a value that `train.train` runs; tracklets of fewer than two cameras are refused there."""
    config = config or Config()
    temperature = config.temperature if config.logits == "cosine" else None
    shared: dict[str, Any] = {
        "iterations": partial(_iterations, config),
        "sample": partial(
            sample.singles,
            tracklets_per_batch=config.tracklets_per_batch,
            images_per_tracklet=config.images_per_tracklet,
        ),
        "augment": config.augment,
        "frames_cluster": config.frames_cluster,
        "samples_per_bn": config.samples_per_bn,
        "alpha": None,
    }
    intra = Stage(
        name="intra",
        rounds=config.epochs_intra,
        assign=_apart,
        head=Branches,
        optimise=partial(adam, learning_rate=config.learning_rate, weight_decay=config.weight_decay),
        objective=partial(_own_camera, config),
        weights={"id": 1.0},
        assign_every=max(1, config.epochs_intra),
        **shared,
    )
    inter = Stage(
        name="inter",
        rounds=config.epochs_inter,
        assign=partial(_join, config),
        head=partial(Branches, temperature=temperature),
        optimise=partial(_adam_and_descent, config),
        objective=_all_cameras,
        weights={"id": 1.0, "link": 1.0},
        **shared,
    )
    return Method(
        name="uga+isolation" if config.isolate else "uga",
        prepare=partial(_prepare, config),
        prepare_looks=config.isolate,
        prepare_every=config.isolate_every if config.isolate else 0,
        stages=(intra, inter),
        cameras=2,
        tensors=True,
    )


class Branches(nn.Module):
    """One classifier per camera: (b, d) features -> (b, t) log p, each a softmax over its camera's classes.

    Every tracklet is a class of its own camera, `labels.space`. Row i of `weight` (t, d) is its vector, at
    first its unit feature. Logits are inner products; with a temperature τ those of the unit feature, over τ.

    Source: METHODS 4.2, 4.3.
    """

    _order: Tensor
    _back: Tensor

    def __init__(self, features: Array, labels: PseudoLabels, *, temperature: float | None = None) -> None:
        super().__init__()
        self.temperature = temperature
        self.weight = nn.Parameter(torch.from_numpy(np.array(features)))
        order = np.argsort(labels.space, kind="stable")
        self.sizes = np.unique(labels.space, return_counts=True)[1].tolist()
        self.register_buffer("_order", torch.from_numpy(order), persistent=False)
        self.register_buffer("_back", torch.from_numpy(np.argsort(order)), persistent=False)

    def forward(self, feature: Tensor) -> Tensor:
        """(b, t) in the order of the tracklets."""
        # Over a small temperature, rounding to bfloat16 would be felt.
        with torch.autocast(feature.device.type, enabled=False):
            feature = feature.to(self.weight.dtype)
            if self.temperature is not None:
                feature = F.normalize(feature) / self.temperature
            logits = (feature @ self.weight.T).index_select(1, self._order)
            log_p = torch.cat([own.log_softmax(1) for own in logits.split(self.sizes, 1)], 1)
            return log_p.index_select(1, self._back)


class Descent(torch.optim.Optimizer):
    """Gradient descent, p ← p − rate · gradient; then, where `unit`, every row of length 1 again.

    It remembers nothing.

    Args:
        parameters: what to move.
        rate: η, above 0.
        unit: whether rows are kept at length 1.

    Source: METHODS 4.3, the node update; unit rows are chosen.
    """

    def __init__(self, parameters: Any, *, rate: float, unit: bool) -> None:
        super().__init__(parameters, {"rate": rate, "unit": unit})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step along the gradients there are."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.sub_(parameter.grad, alpha=group["rate"])
                if group["unit"]:
                    parameter.div_(parameter.norm(dim=1, keepdim=True).clamp(min=1e-12))


def _prepare(
    config: Config, features: Array | Tensor, tracklets: Tracklets, similarity: Array | None = None
) -> Isolated:
    """The part of its tracklet of each crop; those that are not sampled are set aside."""
    cameras = np.unique(tracklets.camid)
    if len(cameras) < 2:
        raise Refusal(
            "the set has one camera, UGA links tracklets across cameras: use --method tmc, or add a camera"
        )
    found = Isolated(np.zeros(tracklets.n_crops, np.int64))
    if config.isolate:
        found = isolation.parts(config, features, tracklets, similarity)
    part = found.part
    used = np.flatnonzero(part >= 0)
    stride = int(part.max(initial=0)) + 1
    key, number = np.unique(tracklets.tracklet[used] * stride + part[used], return_inverse=True)
    camid = tracklets.camid[key // stride]
    if config.sampling == "sstt":
        period: float | Array
        if config.period == "auto":
            # Of whole tracklets: their parts tell even less of how long people stay.
            period = sampling.usual_period(tracklets.tracklet, tracklets.time, tracklets.camid)
        else:
            period = config.period
        keep = sampling.spatio_temporal(
            number,
            tracklets.clock_time[used],
            tracklets.box[used],
            camid,
            clock=tracklets.clock[key // stride],
            period=period,
            distance=config.distance,
        )
        left = np.zeros(len(part), bool)
        left[used] = ~keep[number]
        found = replace(found, part=pieces.set_aside(part, left))
        camid = camid[keep]
    if np.bincount(camid).max() < 2:
        remedy = (
            'lower uga.period or uga.distance, or set uga.sampling to "all"'
            if config.sampling == "sstt"
            else "give more video, or use --method tmc"
        )
        raise Refusal(
            f"{len(camid)} of {len(key)} tracklets are left, at most one in each camera: there is nothing to "
            f"tell apart; {remedy}"
        )
    return found


def _apart(features: Array | Tensor, tracklets: Tracklets, memory: Mapping[str, Array]) -> Assignment:
    """Every tracklet is a class of its camera, and nobody is known to be the same person."""
    t, camid = len(tracklets), tracklets.camid
    camera, count = np.unique(camid, return_counts=True)
    lonely = camera[count == 1].tolist()
    names = ", ".join(map(str, lonely))
    diagnosis = (f"only one tracklet in camera {names}: nothing to tell apart there before links",)
    return Assignment(
        labels=_classes(camid),
        aux={"camid": np.array(camid), "camera": np.arange(tracklets.n_cameras)},
        diagnosis=diagnosis if lonely else (),
        group=np.full(t, -1),
    )


def _join(
    config: Config, features: Array | Tensor, tracklets: Tracklets, memory: Mapping[str, Array]
) -> Assignment:
    """The graph across cameras: every tracklet is a class of its camera, those joined are one person."""
    camid = tracklets.camid
    found = graph.cross_view(features, camid, k=config.k, threshold=config.threshold, method=config.neighbors)
    n_edges = len(found.to) // 2
    added, dropped = n_edges, 0
    if "start" in memory:
        added, dropped = graph.changes(graph.Graph(**memory), found)
    degree = np.diff(found.start)
    record: dict[str, float] = {
        "n_edges": n_edges,
        "added": added,
        "dropped": dropped,
        "linked": float((degree > 0).mean()),
    }
    transitivity = graph.transitivity(found, camid)
    if np.isfinite(transitivity):
        record["transitivity"] = transitivity
    camera = np.unique(camid).tolist()
    if len(camera) <= _CAMERAS_IN_PAIRS:
        count = graph.links(found, camid)
        record |= {
            f"links_{a}_{b}": int(count[i, j])
            for i, a in enumerate(camera)
            for j, b in enumerate(camera)
            if i < j
        }
    arrays = {"start": found.start, "to": found.to, "weight": found.weight}
    neighbour, edge = _padded(found)
    return Assignment(
        labels=_classes(camid),
        memory=arrays,
        aux={"camid": np.array(camid), "neighbour": neighbour, "edge": edge},
        diagnosis=()
        if n_edges
        else (f"no tracklets are joined across cameras: lower uga.threshold ({config.threshold})",),
        group=graph.components(found),
        record=record,
        keep=arrays,
    )


def _classes(camid: Array) -> PseudoLabels:
    t = len(camid)
    return PseudoLabels(np.arange(t), np.ones(t, np.float32), camid)


def _padded(found: graph.Graph) -> tuple[Array, Array]:
    """N(i) ∪ {i} of each tracklet i, and e(i, ·): (t, m) int64 and float32.

    i itself comes first with e = 1; after the neighbours comes i again with e = 0. A tracklet has at most K
    neighbours in each camera, so rows are short.
    """
    degree = np.diff(found.start)
    t = len(degree)
    neighbour = np.repeat(np.arange(t)[:, None], 1 + degree.max(initial=0), 1)
    edge = np.zeros(neighbour.shape, np.float32)
    edge[:, 0] = 1
    row = np.repeat(np.arange(t), degree)
    column = 1 + np.arange(len(row)) - found.start[row]
    neighbour[row, column], edge[row, column] = found.to, found.weight
    return neighbour, edge


def _iterations(config: Config, labels: PseudoLabels) -> int:
    if config.iterations != "auto":
        return config.iterations
    return -(-_PASSES * len(labels.label) // config.tracklets_per_batch)


def _adam_and_descent(config: Config, student: nn.Module, head: Branches) -> list[torch.optim.Optimizer]:
    body = [p for p in student.parameters() if p.requires_grad]
    # The node update is a sum over the images of a batch, the loss a mean.
    n_images = min(config.tracklets_per_batch, len(head.weight)) * config.images_per_tracklet
    return [
        torch.optim.Adam(body, lr=config.learning_rate, weight_decay=config.weight_decay),
        Descent(head.parameters(), rate=config.node_rate * n_images, unit=config.logits == "cosine"),
    ]


def _own_camera(
    config: Config, students: Sequence[View], teachers: Sequence[View], target: Target
) -> dict[str, Tensor]:
    """Cross-entropy with the own tracklet among those of the own camera."""
    (student,) = students
    log_p = student.logits
    loss = _surprise(log_p, target)
    if config.label_smoothing:
        inside = target.aux["camid"] == target.space[:, None]
        even = -(log_p * inside).sum(1) / inside.sum(1)
        loss = (1 - config.label_smoothing) * loss + config.label_smoothing * even
    hit = _hit(log_p, target)
    terms = {"id": loss.mean(), "accuracy": hit.mean()}
    camera = target.aux["camera"]
    if len(camera) <= _CAMERAS:
        where = (target.space == camera[:, None]).to(loss.dtype)  # (cameras, b)
        of = torch.stack([where @ loss.detach(), where @ hit, where.sum(1)], 1)
        for c in range(len(camera)):
            terms[f"id_cam{c}"], terms[f"acc_cam{c}"] = of[c, 0::2], of[c, 1:]
    return terms


def _all_cameras(students: Sequence[View], teachers: Sequence[View], target: Target) -> dict[str, Tensor]:
    """Σ e(i, a) · CE_camera(a), means over the batch: `id` is a = i, `link` the rest."""
    (student,) = students
    log_p = student.logits
    neighbour, edge = target.aux["neighbour"][target.tracklet], target.aux["edge"][target.tracklet]
    loss = -edge * log_p.gather(1, neighbour)  # (b, m)
    return {
        "id": loss[:, 0].mean(),
        "link": loss[:, 1:].sum(1).mean(),
        "accuracy": _hit(log_p, target).mean(),
    }


def _surprise(log_p: Tensor, target: Target) -> Tensor:
    """(b,) −log p of the own tracklet."""
    return -log_p.gather(1, target.label[:, None]).squeeze(1)


def _hit(log_p: Tensor, target: Target) -> Tensor:
    """(b,) 1 where the own tracklet is the likeliest of its camera, else 0."""
    elsewhere = target.aux["camid"] != target.space[:, None]
    best = log_p.detach().masked_fill(elsewhere, float("-inf")).argmax(1)
    return (best == target.label).to(log_p.dtype)
