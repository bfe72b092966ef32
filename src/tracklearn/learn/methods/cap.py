"""CAP: camera-aware proxies.

Tracklets are joined into clusters as in TMC; then every cluster is split by camera into proxies, of each of
which a memory keeps the mean feature. A picture learns to be like the proxy of its own camera and unlike
the others there (intra), like its cluster's proxies in all cameras and unlike the nearest others (inter),
and like the proxies that it is found to be nearest to (online). After each batch the memory moves towards
what was seen. Without cameras a cluster has one proxy, which is Cluster Contrast.

An image of the papers is a tracklet's clip here, isolation stands in front, and a mean teacher gives the
features for clustering; on a set of single images, with `isolate` and `mean_teacher` off, it is theirs.

Source: Wang, Lai, Huang, Hua, "Camera-aware Proxies for Unsupervised Person Re-Identification" (CAP), AAAI
2021, arXiv 2012.10674; Wang, Li, Lai, Huang, Hua, "Offline-Online Associated Camera-Aware Proxies for
Unsupervised Person Re-identification" (O2CAP), TIP 2022, arXiv 2201.05820; Dai et al., "Cluster Contrast for
Unsupervised Person Re-Identification", arXiv 2103.11568; METHODS 6a.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from tracklearn.core.features import unit_rows
from tracklearn.core.moments import moments
from tracklearn.core.normalise import per_camera
from tracklearn.learn import sample
from tracklearn.learn.augment import Augment
from tracklearn.learn.heads import adam
from tracklearn.learn.method import Assignment, Method, Moment, Stage, Target, View
from tracklearn.learn.methods import association, isolation
from tracklearn.learn.settings import Count, Positive, Share
from tracklearn.types import Array, PseudoLabels, Refusal, Tracklets

Weight = Annotated[float, Field(ge=0)]

# Cameras up to which each has a number of its own in the record.
_CAMERAS = 16


class Config(association.Config):
    """Settings of CAP, each with its origin.

    [code CAP] and [code O2CAP] from public code of their authors, [Cluster Contrast] of its paper or code,
    [chosen] ours. Cluster Contrast is `cameras = false` with temperature 0.05, momentum 0.1, 16 proxies and
    16 tracklets each in a batch, eps 0.6 and k1 30.
    """

    cameras: bool = Field(
        default=True,
        description="Split clusters by camera into proxies [code CAP]; off: one for each cluster, and the "
        "intra loss over all of them is the only one [Cluster Contrast].",
    )
    normalise: bool = Field(
        default=False,
        description="Cluster by features without what their cameras add to them [chosen; METHODS 5.2].",
    )
    k1: Count = Field(default=20, description="Neighbours in the Jaccard distance [code CAP; 30 in TMC].")
    eps: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = Field(
        default=0.5,
        description="Radius of association, a Jaccard distance [code CAP]; auto: TMC's rule, by rho.",
    )
    epochs: Annotated[int, Field(ge=0)] = Field(
        default=50, description="Rounds of association and training [code CAP]."
    )
    iterations: Literal["auto"] | Count = Field(
        default="auto",
        description="Batches per epoch; auto: the labelled tracklets come once on average [code CAP].",
    )
    proxies_per_batch: Annotated[int, Field(ge=2)] = Field(
        default=8, description="Proxies in a batch; fewer where there are fewer [code CAP: 32 = 8 × 4]."
    )
    tracklets_per_proxy: Count = Field(
        default=4, description="Tracklets of each proxy in a batch [code CAP: images]."
    )
    frames_train: Count = Field(
        default=1,
        description="Consecutive frames of a tracklet in training [code CAP: a sample is an image].",
    )
    frames_cluster: Count = Field(
        default=32, description="Consecutive frames of a tracklet for association [chosen: as in TMC]."
    )
    temperature: Positive = Field(
        default=0.07, description="τ of the softmax over proxies [code CAP; 0.05 in O2CAP's paper]."
    )
    weight_intra: Weight = Field(
        default=1.0, description="Of the loss inside cameras [code CAP; 0 in O2CAP]."
    )
    weight_inter: Weight = Field(
        default=0.5, description="Of the loss across cameras by clusters [code CAP; 1 in O2CAP]."
    )
    weight_online: Weight = Field(
        default=1.0, description="Of the loss across cameras by nearness [code O2CAP; none in CAP]."
    )
    inter_from: Annotated[int, Field(ge=0)] = Field(
        default=5, description="Rounds before there are losses across cameras [code CAP; 0 in O2CAP]."
    )
    negatives: Count = Field(
        default=50, description="Nearest other proxies in the losses across cameras [code CAP]."
    )
    online_positives: Count = Field(
        default=3, description="Cameras whose nearest proxy is a positive of the online loss [code O2CAP]."
    )
    balance: Share = Field(
        default=0.15,
        description="Share of the picture's own similarity in the online loss's nearness; the rest is its "
        "proxy's [code O2CAP].",
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.2, description="μ: what a memory row keeps of itself at a sample [code CAP]."
    )
    hardest: bool = Field(
        default=False,
        description="A batch moves a row once, by the sample least like it [Cluster Contrast: dynamic].",
    )
    learning_rate: Positive = Field(default=3.5e-4, description="Of Adam, at its height [code CAP].")
    warm_up: Annotated[int, Field(ge=0)] = Field(
        default=10, description="Rounds over which the rate rises from a hundredth [code CAP]."
    )
    drops: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(20, 40), description="Rounds from which the rate is a tenth of what it was [code CAP]."
    )
    weight_decay: Weight = Field(default=5e-4, description="Of Adam [code CAP].")
    mean_teacher: bool = Field(
        default=True,
        description="Features for association, and the final weights, are the mean teacher's, which is not "
        "learned from; off: the student's own [chosen; code CAP: off].",
    )
    alpha: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.999,
        description="The teacher's momentum, warmed up as 1 − 1/(step + 1) [chosen: as in TMC].",
    )
    samples_per_bn: Count = Field(
        default=16, description="Tracklets normalised together by batch norm [chosen: as in TMC]."
    )
    augment: Augment = Field(default=Augment(), description="Of training crops [code CAP: as MMT].")

    @model_validator(mode="after")
    def _fit_together(self) -> Config:
        if self.samples_per_bn * self.frames_train < 2:
            raise Refusal(
                "samples_per_bn = 1 with frames_train = 1 leaves batch norm one image, which has no "
                "variance: raise one of them"
            )
        if not self.weight_intra and not (self.cameras and (self.weight_inter or self.weight_online)):
            raise Refusal("every loss has weight 0: raise weight_intra, weight_inter or weight_online")
        if not self.weight_intra and self.inter_from:
            raise Refusal(
                f"weight_intra = 0 leaves the first {self.inter_from} rounds without a loss: set inter_from "
                "to 0"
            )
        return self


def method(config: Config | None = None) -> Method:
    """CAP as a value that `train.train` runs."""
    config = config or Config()
    weights = {"intra": config.weight_intra}
    if config.cameras:
        weights |= {"inter": config.weight_inter, "online": config.weight_online}
    stage = Stage(
        name="cap",
        rounds=config.epochs,
        assign=partial(_associate, config),
        head=Memory,
        optimise=partial(adam, learning_rate=config.learning_rate, weight_decay=config.weight_decay),
        iterations=partial(_iterations, config),
        sample=partial(_draw, config),
        objective=partial(_objective, config),
        weights={name: weight for name, weight in weights.items() if weight},
        augment=config.augment,
        frames_cluster=config.frames_cluster,
        samples_per_bn=config.samples_per_bn,
        alpha=config.alpha if config.mean_teacher else None,
        schedule=partial(_schedule, config),
        remember=partial(_remember, config),
        teaches=False,
        optimisers_stay=True,
    )
    return Method(
        name="cap" if config.isolate else "cap-",
        prepare=partial(isolation.parts, config) if config.isolate else None,
        prepare_every=config.isolate_every,
        stages=(stage,),
        tensors=True,
    )


class Memory(nn.Module):
    """A row for every proxy, the unit mean of its tracklets' unit features; a view's `logits` are the unit
    features themselves.

    Args:
        features: (t, d) float32. labels: the proxy of each tracklet, 0..p − 1.
    """

    memory: Tensor

    def __init__(self, features: Array, labels: PseudoLabels) -> None:
        super().__init__()
        used = np.flatnonzero(labels.label >= 0)
        total = np.zeros((labels.n_clusters, features.shape[1]))
        np.add.at(total, labels.label[used], features[used])
        total /= np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
        self.register_buffer("memory", torch.from_numpy(total.astype(np.float32)))

    def forward(self, feature: Tensor) -> Tensor:
        """(b, d) -> (b, d) unit."""
        return F.normalize(feature.float())


def _associate(
    config: Config, features: Array | Tensor, tracklets: Tracklets, memory: Mapping[str, Array]
) -> Assignment:
    """Clusters, and their proxies: labels are proxies, persons are clusters."""
    compared = features
    if config.normalise:
        rows = features.cpu().numpy() if isinstance(features, Tensor) else features
        made = per_camera(rows, tracklets.camid)
        # What is as the mean of its camera in every dimension is compared as it is.
        compared = unit_rows(np.where(made.any(1, keepdims=True), made, rows))
    eps = None if config.eps == "auto" else config.eps
    found = association.associate(config, compared, tracklets, memory, eps=eps)
    cluster = found.labels.label
    # −1: labels that hold over all cameras.
    camid = np.asarray(tracklets.camid, np.int64) if config.cameras else np.full(len(cluster), -1)
    used = np.flatnonzero(cluster >= 0)
    of, number = np.unique(np.stack([cluster[used], camid[used]], 1), axis=0, return_inverse=True)
    proxy = np.full(len(cluster), -1, np.int64)
    proxy[used] = number.ravel()
    several = np.bincount(of[:, 0]) if len(of) else np.zeros(0, np.int64)
    record = {
        "proxies": float(len(of)),
        "cameras_per_cluster": float(several.mean()) if len(several) else 0.0,
        **{f"proxies_{n}": float((several == n).sum()) for n in range(1, int(several.max(initial=0)) + 1)},
    }
    seen = np.unique(of[:, 1])
    if config.cameras and len(seen) <= _CAMERAS:
        record |= {f"proxies_cam{c}": float((of[:, 1] == c).sum()) for c in seen.tolist()}
    return replace(
        found,
        labels=PseudoLabels(proxy, found.labels.weight, camid),
        aux={"cluster": of[:, 0], "camera": np.unique(of[:, 1], return_inverse=True)[1].ravel()},
        group=cluster,
        record={**found.record, **(record if config.cameras else {})},
    )


def _iterations(config: Config, labels: PseudoLabels) -> int:
    if config.iterations != "auto":
        return config.iterations
    batch = config.proxies_per_batch * config.tracklets_per_proxy
    return max(1, round(int((labels.label >= 0).sum()) / batch))


def _draw(
    config: Config, tracklets: Tracklets, labels: PseudoLabels, n_iterations: int, rng: np.random.Generator
) -> sample.Plan:
    return sample.batches(
        tracklets,
        labels,
        n_iterations,
        rng,
        clusters_per_batch=config.proxies_per_batch,
        tracklets_per_cluster=config.tracklets_per_proxy,
        n_frames=config.frames_train,
        beside=moments(tracklets).pair if config.time_tells else None,
    )


def _schedule(
    config: Config,
    students: Sequence[nn.Module],
    optimisers: Sequence[torch.optim.Optimizer],
    moment: Moment,
) -> None:
    """Linear from a hundredth over the warm-up, then a tenth from each drop on; by the round."""
    warm = 1.0
    if moment.epoch < config.warm_up:
        through = moment.epoch / config.warm_up
        warm = 0.01 * (1 - through) + through
    rate = config.learning_rate * warm * 0.1 ** bisect_right(sorted(config.drops), moment.epoch)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate


def _objective(
    config: Config, students: Sequence[View], teachers: Sequence[View], target: Target
) -> dict[str, Tensor]:
    """The losses of a batch, with the memory as it was before."""
    (student,) = students
    feature, rows = student.logits, student.memory
    assert rows is not None
    cluster, camera = target.aux["cluster"], target.aux["camera"]
    weight = _weights(camera[target.label], feature.dtype)
    similarity = feature @ rows.T  # (b, p)
    inside = camera[target.label][:, None] == camera
    own = similarity.masked_fill(~inside, float("-inf"))
    terms = {
        "intra": weight @ F.cross_entropy(own / config.temperature, target.label, reduction="none"),
        "accuracy": (own.detach().argmax(1) == target.label).float().mean(),
    }
    if not config.cameras:
        return terms
    zero = torch.zeros((), device=feature.device)
    across = target.epoch >= config.inter_from
    if config.weight_inter:
        terms["inter"] = zero
        if across:
            positive = cluster[target.label][:, None] == cluster
            terms["inter"] = weight @ _contrast(similarity, similarity.detach(), positive, config)
    if config.weight_online:
        terms["online"] = zero
        if across:
            near = config.balance * similarity.detach() + (1 - config.balance) * (rows[target.label] @ rows.T)
            positive = _best_of_cameras(near, camera, config.online_positives)
            terms["online"] = weight @ _contrast(similarity, near, positive, config)
    return terms


def _weights(camera: Tensor, dtype: torch.dtype) -> Tensor:
    """(b,) such that a weighted sum is the sum over cameras of the mean within each."""
    _, of, count = torch.unique(camera, return_inverse=True, return_counts=True)
    return 1 / count[of].to(dtype)


def _contrast(similarity: Tensor, near: Tensor, positive: Tensor, config: Config) -> Tensor:
    """(b,) mean over the positives of −log of their softmax among themselves and the nearest others.

    Args:
        similarity: (b, p) cosines. near: (b, p) by which the others are chosen, without gradient.
        positive: (b, p) bool, at least one a row.
    """
    k = min(config.negatives, near.shape[1])
    chosen = near.masked_fill(positive, float("-inf")).topk(k, 1).indices
    scaled = similarity / config.temperature
    # A row with fewer others than k chooses positives too, which must not count twice.
    negative = scaled.gather(1, chosen).masked_fill(positive.gather(1, chosen), float("-inf"))
    among = scaled.masked_fill(~positive, float("-inf"))
    total = torch.cat([among, negative], 1).logsumexp(1)
    mean = (scaled * positive).sum(1) / positive.sum(1)
    return total - mean


def _best_of_cameras(near: Tensor, camera: Tensor, n: int) -> Tensor:
    """(b, p) bool: of the nearest proxy of every camera the n nearest.

    Args:
        near: (b, p). camera: (p,) int64, 0..c − 1.
    """
    order = torch.argsort(camera, stable=True)
    best = []
    for columns in order.split(torch.bincount(camera).tolist()):
        best.append(columns[near[:, columns].argmax(1)])
    index = torch.stack(best, 1)  # (b, c)
    value = near.gather(1, index)
    top = index.gather(1, value.topk(min(n, index.shape[1]), 1).indices)
    return torch.zeros_like(near, dtype=torch.bool).scatter_(1, top, True)


def _remember(config: Config, head: nn.Module, view: View, target: Target) -> None:
    """Move the memory: K ← μK + (1 − μ)f, unit again, sample after sample.

    Those of one proxy in the batch's order; proxies do not touch each other, so that the k-th samples of all
    of them move together.
    """
    rows = head.memory
    assert isinstance(rows, Tensor)
    feature, label = view.logits.detach(), target.label
    proxy, of = torch.unique(label, return_inverse=True)
    if config.hardest:
        like = (feature * rows[label]).sum(1)
        least = like.new_full((len(proxy),), float("inf"))
        least.scatter_reduce_(0, of, like, "amin")
        feature, of = _first(feature, of, like == least[of])
    order = torch.argsort(of, stable=True)
    count = torch.bincount(of, minlength=len(proxy))
    turn = torch.arange(len(order), device=of.device) - (count.cumsum(0) - count)[of[order]]
    moved = rows[proxy]
    for k in range(int(count.max())):
        seen = order[turn == k]
        at = of[seen]
        moved[at] = F.normalize(config.momentum * moved[at] + (1 - config.momentum) * feature[seen])
    rows[proxy] = moved


def _first(feature: Tensor, of: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """One chosen sample of each proxy, the first: its feature and proxy."""
    index = torch.nonzero(chosen).squeeze(1)
    _, inverse = torch.unique(of[index], return_inverse=True)
    first = torch.full((int(inverse.max()) + 1,), len(of), device=of.device)
    first.scatter_reduce_(0, inverse, index, "amin")
    return feature[first], of[first]
