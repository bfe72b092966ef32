"""The training loop: a `Method` is a value made of `Stage`s, and `train` runs any of them.

Nothing here knows a method's name. What differs between methods is in the callables of its stages: how
labels come from features, which batches are drawn, what sits on the features, which losses and optimisers.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tracklearn.core import cluster, isolate
from tracklearn.learn import deterministic, embed, sample, teacher
from tracklearn.learn.augment import augment
from tracklearn.learn.method import Assignment, Method, Stage, Target, View
from tracklearn.learn.network import Network
from tracklearn.types import Array, Crops, PseudoLabels, Tracklets

Progress = Callable[[str, int, "int | None"], None]

# Version of the arrays and meta in a State; a state of another version is refused.
STATE_FORMAT = 1


__all__ = [
    "Method",
    "Prepared",
    "Round",
    "Stage",
    "State",
    "TrainingStopped",
    "student_arrays",
    "teacher_arrays",
    "train",
]


class TrainingStopped(ValueError):
    """Training cannot go on; the message says why and what to try."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """The tracklets that training will see; comes once, first, unless training is resumed.

    Args:
        tracklets: after `Method.prepare`.
        part: (n,) int64, part of each original row in its tracklet, −1 = dropped.
        features: (n, d) float32 unit features of the original rows by the starting weights.
        similarity: (n,) float32 cosine similarity of each row to the one before in its tracklet; nan at
            the start of a tracklet.
        n_before, n_after: tracklets.
        dropped: crops.
        seconds: taken.
    """

    tracklets: Tracklets
    part: Array
    features: Array
    similarity: Array
    n_before: int
    n_after: int
    dropped: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Round:
    """One finished round (epoch).

    Args:
        index: from 0, over all stages.
        stage: its name.
        n_clusters: clusters trained on.
        noise_fraction: share of tracklets left out, 0-1.
        largest_cluster: tracklets in the largest cluster.
        eps: radius of the clustering, nan where there is none.
        agreement: of the labels with the round before, 1 = the same partition; nan in the first round.
        losses: mean of every term over the round, unweighted, and their weighted sum `total`.
        accuracy: share of training samples that the students' heads put into their cluster, 0-1.
        n_iterations: batches.
        labels: of the isolated tracklets.
        diagnosis: sentences for the user.
        seconds: of extract, cluster and fit.
    """

    index: int
    stage: str
    n_clusters: int
    noise_fraction: float
    largest_cluster: int
    eps: float
    agreement: float
    losses: dict[str, float]
    accuracy: float
    n_iterations: int
    labels: PseudoLabels
    diagnosis: tuple[str, ...]
    seconds: dict[str, float]


@dataclass(frozen=True, eq=False)
class State:
    """Everything needed to go on after a round as if nothing had happened.

    Args:
        arrays: by name: `student.*` and `teacher.*` (`student1.*`, … for further networks), `part`,
            `labels.*`, `memory.*`, `rng.augment`.
        meta: counters and the sampler's random state, plain values that JSON can hold.
    """

    arrays: dict[str, Array]
    meta: dict[str, Any]


def teacher_arrays(state: State, network: int = 0) -> dict[str, Array]:
    """The state dict of a teacher (what is evaluated and deployed), as numpy arrays."""
    return _section(state.arrays, _prefix("teacher", network))


def student_arrays(state: State, network: int = 0) -> dict[str, Array]:
    """The state dict of a student, as numpy arrays."""
    return _section(state.arrays, _prefix("student", network))


def train(
    method: Method,
    networks: Network | Sequence[Network],
    tracklets: Tracklets,
    crops: Crops,
    *,
    device: torch.device | str = "cpu",
    seed: int = 0,
    resume: State | None = None,
    progress: Progress | None = None,
) -> Iterator[Prepared | Round | State]:
    """Run a method: `Prepared` once, then a `Round` and a `State` after every epoch.

    Same arguments, same device and same number of threads give the same bytes; so does going on from any
    of the states. That is tested on CPU. On CUDA, torch's deterministic algorithms are on while a round is
    computed (for the whole process, as before again at every event), and torch warns of an operation that
    has none; CUBLAS_WORKSPACE_CONFIG is set where it is not, which must come before the process's first use
    of cuBLAS. Memory: the features of all crops, O(n·d), until the first round.

    Args:
        method: what to do.
        networks: starting weights, one per student; they are copied, not changed.
        tracklets: of one set.
        crops: its pictures, rows as in `tracklets.crop`.
        device: where to compute.
        seed: of sampling and augmentation.
        resume: a state of the same method, data and seed.
        progress: called as progress(what, done, total).

    Raises:
        ValueError: arguments do not fit each other.
        TrainingStopped: while running: too few clusters, or a loss or weights that are not finite.

    Source: TMC section 3; the loop is that of METHODS 3 with MMT (METHODS 6) as its two-network case.
    """
    given = [networks] if isinstance(networks, nn.Module) else list(networks)
    if len(given) != method.networks:
        raise ValueError(f"networks holds {len(given)}, method {method.name} trains {method.networks}")
    if not tracklets.n_crops:
        raise ValueError("tracklets is empty: nothing to train on")
    if tracklets.crop.min() < 0 or tracklets.crop.max() >= len(crops):
        raise ValueError(
            f"tracklets refers to crop {tracklets.crop.max()}, crops has {len(crops)}: "
            "take both from the same set"
        )
    if resume is not None:
        _check(resume, method, tracklets, seed)
    training = _Training(method, given, tracklets, crops, device, seed, progress)
    return training.events(resume)


class _Training:
    """The moving parts of one run of `train`."""

    def __init__(
        self,
        method: Method,
        networks: Sequence[Network],
        tracklets: Tracklets,
        crops: Crops,
        device: torch.device | str,
        seed: int,
        progress: Progress | None,
    ) -> None:
        self.method = method
        self.original = tracklets
        self.crops = crops
        self.device = torch.device(device)
        self.seed = seed
        self.progress: Progress = progress or (lambda what, done, total: None)
        self.students = [self._placed(network) for network in networks]
        self.teachers = [teacher.teacher_of(student) for student in self.students]
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.step = 0
        self.memory: dict[str, Array] = {}
        self.labels: PseudoLabels | None = None
        self.part = np.zeros(tracklets.n_crops, np.int64)

    def _placed(self, network: Network) -> Network:
        return copy.deepcopy(network).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def events(self, resume: State | None) -> Iterator[Prepared | Round | State]:
        done = 0
        if resume is None:
            with deterministic.algorithms(self.device):
                prepared = self._prepare()
            yield prepared
        else:
            done = self._restore(resume)
        self.tracklets = self.original.split(self.part)
        rounds = [stage for stage in self.method.stages for _ in range(stage.rounds)]
        for index in range(done, len(rounds)):
            # Never across a yield: what the caller does between events is not ours to change.
            with deterministic.algorithms(self.device):
                finished = self._round(index, rounds[index])
            yield finished
            yield self._state(index + 1)

    def _prepare(self) -> Prepared:
        began = time.perf_counter()
        features = self._extract("isolation", self.teachers[0], self.original.crop)
        if self.method.prepare is not None:
            self.part = np.asarray(self.method.prepare(self._given(features), self.original), np.int64)
        tracklets = self.original.split(self.part)
        return Prepared(
            tracklets=tracklets,
            part=self.part,
            features=features,
            similarity=isolate.adjacent_similarity(features, self.original.tracklet),
            n_before=len(self.original),
            n_after=len(tracklets),
            dropped=int((self.part < 0).sum()),
            seconds=time.perf_counter() - began,
        )

    def _extract(
        self,
        what: str,
        network: Network,
        rows: Array,
        precision: torch.dtype = torch.float32,
        *,
        post_bn: bool = True,
    ) -> Array:
        return embed.extract(
            network,
            self.crops,
            rows,
            device=self.device,
            progress=lambda _, done, total: self.progress(what, done, total),
            dtype=precision,
            post_bn=post_bn,
            unit=post_bn,
        )

    def _given(self, features: Array) -> Any:
        """The features as `prepare` and `assign` get them."""
        return _near(features, self.device) if self.method.tensors else features

    def _features(self, stage: Stage) -> Array:
        """(t, d) unit features of the tracklets: the mean over the teachers."""
        row, group = sample.clips(self.tracklets, stage.frames_cluster, self.rng)
        rows = self.tracklets.crop[row]
        pooled = []
        for network in self.teachers:
            post_bn = stage.cluster_feature == "post_bn"
            features = self._extract("features", network, rows, stage.precision, post_bn=post_bn)
            pooled.append(embed.pool(features, group, len(self.tracklets)))
        if len(pooled) == 1:
            return pooled[0]
        mean = np.mean(pooled, 0)
        return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)

    def _round(self, index: int, stage: Stage) -> Round:
        clock = [time.perf_counter()]
        features = self._features(stage)
        clock.append(time.perf_counter())
        assigned = stage.assign(self._given(features), self.tracklets, self.memory)
        labels = assigned.labels
        n_clusters = labels.n_clusters
        if n_clusters < 2:
            raise TrainingStopped(
                f"epoch {index + 1}: {len(self.tracklets)} tracklets gave {n_clusters} cluster(s), training "
                f"needs at least 2. {' '.join(assigned.diagnosis)}".rstrip()
            )
        agreement = cluster.agreement(self.labels.label, labels.label) if self.labels else float("nan")
        clock.append(time.perf_counter())
        n_iterations = stage.iterations(n_clusters)
        means, accuracy = self._fit(stage, features, assigned, n_iterations)
        clock.append(time.perf_counter())
        for name, value in means.items():
            if not np.isfinite(value):
                raise TrainingStopped(
                    f"epoch {index + 1}: loss {name} is {value}: lower the learning rate or check the weights"
                )
        self._check_finite(index)
        self.labels, self.memory = labels, dict(assigned.memory)
        return Round(
            index=index,
            stage=stage.name,
            n_clusters=n_clusters,
            noise_fraction=labels.noise_fraction,
            largest_cluster=int(np.bincount(labels.label[labels.label >= 0]).max()),
            eps=assigned.eps,
            agreement=agreement,
            losses=means,
            accuracy=accuracy,
            n_iterations=n_iterations,
            labels=labels,
            diagnosis=assigned.diagnosis,
            seconds=dict(zip(("extract", "cluster", "fit"), np.diff(clock).tolist(), strict=True)),
        )

    def _check_finite(self, index: int) -> None:
        for role, networks in (("student", self.students), ("teacher", self.teachers)):
            for network in networks:
                for name, value in (*network.named_parameters(), *network.named_buffers()):
                    if not value.isfinite().all():
                        raise TrainingStopped(
                            f"epoch {index + 1}: {name} of a {role} is not finite: lower the learning rate "
                            "or check the weights"
                        )

    def _fit(
        self, stage: Stage, features: Array, assigned: Assignment, n_iterations: int
    ) -> tuple[dict[str, float], float]:
        """One round of batches; returns the mean of every loss term and the accuracy."""
        labels, device = assigned.labels, self.device
        heads = [stage.head(features, labels).to(device) for _ in self.students]
        teacher_heads = [teacher.teacher_of(head) for head in heads]
        optimisers = [o for s, h in zip(self.students, heads, strict=True) for o in stage.optimise(s, h)]
        plan = stage.sample(self.tracklets, labels, n_iterations, self.rng)
        n_tracklets, n_frames = plan.row.shape[1:]
        group = bn_group(n_tracklets, stage.samples_per_bn) * n_frames
        for network in (*self.students, *self.teachers):
            network.set_bn_group(group)
            network.train()
        aux = {name: torch.as_tensor(value, device=device) for name, value in assigned.aux.items()}
        sums: dict[str, Tensor] = {}
        right = torch.zeros((), device=device)
        rows = (self.tracklets.crop[row.ravel()] for row in plan.row)
        for i, read in enumerate(sample.ahead(self.crops, rows)):
            target = _target(plan.tracklet[i], labels, aux, device)
            images = torch.from_numpy(np.require(read, requirements=["C", "W"])).to(device, non_blocking=True)
            students, teachers = self._views(stage, images, n_frames, heads, teacher_heads)
            terms = stage.objective(students, teachers, target)
            total = torch.stack([w * terms[name] for name, w in stage.weights.items()]).sum()
            total.backward()
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            for k, head in enumerate(heads):
                teacher.update(self.teachers[k], self.students[k], step=self.step, alpha=stage.alpha)
                teacher.update(teacher_heads[k], head, step=self.step, alpha=stage.alpha)
            self.step += 1
            # Sums stay on the device: reading them every iteration would make a GPU wait.
            for name, term in {**terms, "total": total}.items():
                sums[name] = sums.get(name, torch.zeros((), device=device)) + term.detach()
            for view in students:
                right += (view.logits.detach().argmax(1) == target.label).float().mean()
            self.progress("training", i + 1, n_iterations)
        means = {name: float(value) / n_iterations for name, value in sums.items()}
        return means, float(right) / (n_iterations * len(heads))

    def _views(
        self,
        stage: Stage,
        images: Tensor,
        n_frames: int,
        heads: Sequence[nn.Module],
        teacher_heads: Sequence[nn.Module],
    ) -> tuple[list[View], list[View]]:
        """The batch through every student and, without gradient, every teacher."""
        students, teachers = [], []
        precision = stage.precision
        for k, student in enumerate(self.students):
            # Student and teacher see the same picture; another pair sees another draw of it.
            pixels = augment(images, stage.augment, normalise=student.normalise, generator=self.generator)
            with torch.autocast(self.device.type, dtype=precision, enabled=precision != torch.float32):
                students.append(_view(student, heads[k], pixels, n_frames))
                with torch.no_grad():
                    teachers.append(_view(self.teachers[k], teacher_heads[k], pixels, n_frames))
        return students, teachers

    def _state(self, done: int) -> State:
        arrays: dict[str, Array] = {"part": self.part, "rng.augment": self.generator.get_state().numpy()}
        for role, networks in (("student", self.students), ("teacher", self.teachers)):
            for k, network in enumerate(networks):
                arrays |= {_prefix(role, k) + name: value for name, value in network.arrays().items()}
        if self.labels is not None:
            for name in ("label", "weight", "space"):
                arrays[f"labels.{name}"] = getattr(self.labels, name)
        arrays |= {f"memory.{name}": np.asarray(value) for name, value in self.memory.items()}
        meta = {
            "format": STATE_FORMAT,
            "method": self.method.name,
            "seed": self.seed,
            "rounds": done,
            "step": self.step,
            "sampler": copy.deepcopy(self.rng.bit_generator.state),
        }
        return State(arrays, meta)

    def _restore(self, state: State) -> int:
        for role, networks in (("student", self.students), ("teacher", self.teachers)):
            for k, network in enumerate(networks):
                _load(network, _section(state.arrays, _prefix(role, k)))
        self.part = np.array(state.arrays["part"], np.int64)
        self.labels = PseudoLabels(**_section(state.arrays, "labels."))
        self.memory = _section(state.arrays, "memory.")
        self.generator.set_state(torch.from_numpy(np.array(state.arrays["rng.augment"], np.uint8)))
        self.rng.bit_generator.state = state.meta["sampler"]
        self.step = int(state.meta["step"])
        return int(state.meta["rounds"])


def bn_group(n_tracklets: int, samples_per_bn: int) -> int:
    """Tracklets in each batch-norm group of a batch: as equal as can be, none below `samples_per_bn`.

    Where the batch is a multiple this is `samples_per_bn`. Small data give other batches, and a short last
    group of a single cluster would be normalised by its own mean, which is its identity.

    >>> bn_group(64, 16), bn_group(20, 16), bn_group(40, 16), bn_group(8, 16)
    (16, 20, 20, 8)

    Source: METHODS 2.1 (16); equal groups are chosen.
    """
    n_groups = max(1, n_tracklets // samples_per_bn)
    return -(-n_tracklets // n_groups)


def _near(features: Array, device: torch.device) -> Array | Tensor:
    """The features on a CUDA device that has room to work with them; otherwise as they are."""
    if device.type != "cuda" or features.nbytes > torch.cuda.mem_get_info(device)[0] // 4:
        return features
    return torch.from_numpy(features).to(device)


def _view(network: Network, head: nn.Module, pixels: Tensor, n_frames: int) -> View:
    feature = network(pixels)
    post = network.neck(feature)
    shape = (-1, n_frames, feature.shape[1])
    return View(feature.float().view(shape).mean(1), head(post.view(shape).mean(1)).float())


def _target(tracklet: Array, labels: PseudoLabels, aux: Mapping[str, Tensor], device: torch.device) -> Target:
    def on_device(values: Array) -> Tensor:
        return torch.from_numpy(values).to(device, non_blocking=True)

    return Target(
        tracklet=on_device(tracklet),
        label=on_device(labels.label[tracklet]),
        space=on_device(labels.space[tracklet]),
        weight=on_device(labels.weight[tracklet]),
        aux=aux,
    )


def _prefix(role: str, network: int) -> str:
    return f"{role}{network or ''}."


def _section(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}


@torch.no_grad()
def _load(network: Network, arrays: Mapping[str, Array]) -> None:
    own = network.state_dict()
    if own.keys() != arrays.keys():
        raise ValueError("resume holds other weights than the network has: use the network of that run")
    for name, value in arrays.items():
        # Files may turn a batch counter of shape () into (1,).
        own[name].copy_(torch.from_numpy(np.array(value)).reshape(own[name].shape))


def _check(state: State, method: Method, tracklets: Tracklets, seed: int) -> None:
    for name, got, expected in (
        ("format", state.meta.get("format"), STATE_FORMAT),
        ("method", state.meta.get("method"), method.name),
        ("seed", state.meta.get("seed"), seed),
        ("number of crops", len(state.arrays.get("part", ())), tracklets.n_crops),
    ):
        if got != expected:
            raise ValueError(f"resume has {name} {got}, expected {expected}: go on with the run it came from")
