"""What a training run would do, and about how long and how much memory it would take; nothing is written.

Counts follow from the settings and the set. Times come from a few real batches on the set's own crops, memory
from the tensors these leave behind; both are scaled to the run, and are estimates.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from tracklearn.app.pipeline.estimated import Estimate, StageEstimate, size
from tracklearn.app.pipeline.plan import TrainPlan
from tracklearn.app.pipeline.starts import Start
from tracklearn.learn import deterministic, embed, session
from tracklearn.learn.compute import PRECISIONS
from tracklearn.learn.fit import Fit, Pairs
from tracklearn.learn.method import Assignment, Material, Stage, Target, View
from tracklearn.learn.ranks import Ranks, launched
from tracklearn.learn.sample import Plan
from tracklearn.learn.teacher import teacher_of
from tracklearn.learn.train import SAMPLED
from tracklearn.store import memory as machine
from tracklearn.types import Array, Crops, Progress, PseudoLabels, Refusal, Tracklets

if TYPE_CHECKING:
    from tracklearn.learn.network import Network
    from tracklearn.store.picture.crops import StoredCrops
    from tracklearn.store.weights import WeightsInfo


# Most crops and pictures of a batch that are measured, how many at first, and the number of batches.
_CROPS, _PICTURES, _FIRST, _STEPS = 128, 64, 8, 2

# Seconds that one measurement may take; a slow machine measures fewer pictures.
_BUDGET = 2.0

# How many crops norms are measured on before training.
_CALIBRATED = 1024


@dataclass(frozen=True)
class _Speed:
    """Seconds for one picture, and how a device joins reading with computing.

    `making` and `many`: of onnxruntime's form of the network, once and for a picture, where the most crops
    are computed so.
    """

    read: float
    extract: float
    making: float
    many: float
    missed: float
    together: bool

    def of(self, compute: float, missed: float = 1.0) -> float:
        """Seconds of a crop that takes `compute`, of which a share `missed` is not in the cache."""
        # A CPU that decodes does not compute meanwhile; a GPU does.
        return max(compute, missed * self.read) if self.together else compute + missed * self.read


@dataclass(frozen=True)
class _Step:
    """What one batch of one student and its teacher takes.

    Args:
        seconds: for each picture.
        pictures: that were measured at once.
        activations: (n pictures) -> bytes that a batch of them keeps until its gradients.
        networks, heads, gradients, optimiser: bytes; networks and heads with their teachers'.
    """

    seconds: float
    pictures: int
    activations: Callable[[int], float]
    networks: int
    heads: int
    gradients: int
    optimiser: int


def estimate(
    plan: TrainPlan, *, progress: Progress | None = None, clock: Callable[[], float] = time.perf_counter
) -> Estimate:
    """What training by `plan` would do and take, from counts and a measurement of a few seconds.

    Memory: one student with its teacher and optimiser, a batch of at most 64 pictures.

    Args:
        plan: what is to run.
        progress: called as progress("measuring", done, total).
        clock: seconds from any start.

    Raises:
        FileNotFoundError: no such set.
        ValueError: the set has fewer than two tracklets, or crops or weights are unusable.
    """
    opened = plan.open()
    tracklets, method = opened.tracklets, plan.value()
    named = ", ".join(map(str, plan.sets))
    if len(tracklets) < 2:
        raise Refusal(f"{named} has {len(tracklets)} tracklet(s), training needs at least 2")
    began = time.perf_counter()
    tell = progress or (lambda what, done, total: None)
    height, width = plan.network.height, plan.network.width
    crops = plan.crops(opened)
    n_processes, k = launched(), method.networks
    device = torch.device(plan.device)
    total = 1 + len(method.stages)
    network = plan.network_of(_start(plan, 0), seed=plan.seed)
    missed = 1 - crops.capacity / tracklets.n_crops
    speed, start_seconds, n_measured = _extraction(plan, network, tracklets, crops, missed, clock)
    tell("measuring", 1, total)
    labels = _labels(len(tracklets), max(2, len(tracklets) // 2))
    few = _labels(len(tracklets), 2)
    stages, steps = [], []
    for done, stage in enumerate(method.stages):
        material = stage.material or Material(tracklets, crops)  # a labelled source has its own
        own, pictures = material.tracklets, material.crops
        given = _labels(len(own), max(2, len(own) // 2))
        drawn = stage.sample(own, given, _STEPS, np.random.default_rng(plan.seed))
        step = _step(plan, stage, network, own, given, drawn, pictures, clock)
        stages.append(_stage(stage, stage.iterations(given), drawn, step, speed, own, plan, k, n_processes))
        steps.append(step)
        tell("measuring", 2 + done, total)
    looks = method.prepare is not None and method.prepare_looks
    first = tracklets.n_crops if looks else min(tracklets.n_crops, SAMPLED)
    own_rounds = sum(s.rounds for s in method.stages if s.material is None)
    again = (own_rounds - 1) // method.prepare_every if looks and method.prepare_every else 0
    isolation = (1 + max(0, again)) * math.ceil(first / n_processes) * speed.of(speed.extract)
    epochs = [s.seconds["fit"] + s.seconds["extract"] * s.assignments / max(s.rounds, 1) for s in stages]
    seconds = {
        "start": start_seconds,
        "isolation": isolation,
        "epoch": max(epochs, default=0.0),
        "all": start_seconds
        + isolation
        + sum(s.rounds * epoch for s, epoch in zip(stages, epochs, strict=True)),
    }
    features = first * network.feature_dim * 4
    # A labelled source keeps its crops besides.
    keeping = {id(c): c for c in (crops, *(s.material.crops for s in method.stages if s.material))}
    cache = sum(getattr(c, "capacity", 0) for c in keeping.values()) * height * width * 3
    # Features of all crops are gone before the first batch: what counts is the larger of the two times.
    fitting = max((sum(s.memory.values()) for s in stages), default=0)
    resting = k * max((s.networks for s in steps), default=0)
    if device.type == "cuda":
        needed = {plan.device: max(fitting, resting), "cpu": features}
    else:
        needed = {"cpu": max(fitting, resting + features)}
    needed["cpu"] += cache
    memory = {place: {"needed": n, "total": _memory_of(place)} for place, n in needed.items()}
    depends = any(s.iterations(labels) != s.iterations(few) for s in method.stages)
    return Estimate(
        run={
            "method": method.name,
            "n_networks": k,
            "set": named,
            "cameras": [name for name in opened.cameras if name],
            "n_tracklets": len(tracklets),
            "n_crops": tracklets.n_crops,
            "n_kept": crops.capacity,
            "backbone": plan.network.backbone,
            "height": height,
            "width": width,
            "weights": plan.weights["name"],
            "device": plan.device,
            "n_threads": torch.get_num_threads(),
            "n_processes": n_processes,
            "precision": plan.compute.precision,
            "preset": plan.preset,
        },
        isolation=looks,
        stages=tuple(stages),
        seconds=seconds,
        memory=memory,
        features_bytes=features,
        cache_bytes=cache,
        measured={
            "crops": n_measured,
            "pictures": max((s.pictures for s in steps), default=0),
            "batches": _STEPS * len(steps),
            "seconds": time.perf_counter() - began,
        },
        assumptions=_assumptions(plan, looks, labels.n_clusters, depends),
        warnings=(*_slow(stages, steps), *_warnings(memory)),
    )


def _start(plan: TrainPlan, k: int) -> Start:
    return plan.starts[min(k, len(plan.starts) - 1)]


def _labels(n: int, n_clusters: int) -> PseudoLabels:
    """Clusters of equal size, as a stand-in for those that will be found."""
    return PseudoLabels.of(np.arange(n) % n_clusters)


def _extraction(
    plan: TrainPlan,
    network: Network,
    tracklets: Tracklets,
    crops: StoredCrops,
    missed: float,
    clock: Callable[[], float],
) -> tuple[_Speed, float, int]:
    """Seconds for a crop to be read and to become a feature, those of the start, and crops measured."""
    device = torch.device(plan.device)
    spread = np.linspace(0, tracklets.n_crops - 1, min(tracklets.n_crops, _CROPS)).astype(np.int64)
    rows = tracklets.crop[spread]
    crops.read(rows[:1])
    began = clock()
    crops.read(rows[1:])
    read = (clock() - began) / (len(rows) - 1)
    start = _calibration(plan, crops.read(rows), tracklets.n_crops, clock)

    def features(n: int) -> float:
        began = clock()
        embed.extract(network, crops, rows[:n], device=device, dtype=PRECISIONS[plan.compute.precision])
        return clock() - began

    with deterministic.algorithms(device):
        n, seconds = _measured(features, min(_FIRST, len(rows)), len(rows))
    making, many = 0.0, seconds / n
    if _by_session(plan, tracklets.n_crops):
        began = clock()
        form, pictures = session.Session(network.eval()), torch.from_numpy(crops.read(rows))
        form(pictures[:1])
        making, began = clock() - began, clock()
        form(pictures)
        many = (clock() - began) / len(rows)
    return _Speed(read, seconds / n, making, many, missed, device.type == "cuda"), start, n


def _by_session(plan: TrainPlan, n_crops: int) -> bool:
    return session.chosen(plan.compute.features, n_crops, torch.device(plan.device))


def _calibration(plan: TrainPlan, images: Array, n_crops: int, clock: Callable[[], float]) -> float:
    """Seconds in which the norms of networks without their own are measured on the crops."""
    bare = [k for k in range(plan.value().networks) if _is_bare(_start(plan, k).info)]
    if not bare:
        return 0.0

    def calibrate(n: int) -> float:
        network = plan.network_of(_start(plan, bare[0]), seed=plan.seed + bare[0])
        began = clock()
        network.calibrate([images[:n]], neck=network.start == "random")
        return clock() - began

    n, seconds = _measured(calibrate, min(_FIRST, len(images)), len(images))
    return len(bare) * seconds / n * min(n_crops, _CALIBRATED)


def _is_bare(info: WeightsInfo) -> bool:
    return info.folded or info.name == "none"


def _measured(measure: Callable[[int], float], n: int, most: int) -> tuple[int, float]:
    """As many items as the budget allows, from `n` to `most`, and their seconds, after a warm-up.

    >>> _measured(lambda n: n / 1000, 8, 128), _measured(lambda n: n / 10, 8, 128)
    ((128, 0.128), (20, 2.0))
    >>> _measured(lambda n: n * 10.0, 8, 128)
    (8, 80.0)
    """
    measure(n)
    while True:
        seconds = measure(n)
        more = min(most, int(n * _BUDGET / max(seconds, 1e-9)))
        if more < 2 * n:  # a little more would not tell more
            return n, seconds
        n = more


def _anything(students: Sequence[View], teachers: Sequence[View], target: Target) -> dict[str, Tensor]:
    """An objective that any views have: losses cost little beside the networks."""
    return {
        "any": torch.stack([v.feature.square().mean() + v.logits.square().mean() for v in students]).sum()
    }


class _Saved:
    """Counts the bytes that autograd keeps between forward and backward, each storage once."""

    def __init__(self, modules: Iterable[torch.nn.Module]) -> None:
        self.own = {t.untyped_storage().data_ptr() for m in modules for t in (*m.parameters(), *m.buffers())}
        self.sizes: dict[int, int] = {}

    def note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.own:
            self.sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    def __int__(self) -> int:
        return sum(self.sizes.values())


def _step(
    plan: TrainPlan,
    stage: Stage,
    network: Network,
    tracklets: Tracklets,
    labels: PseudoLabels,
    drawn: Plan,
    crops: Crops,
    clock: Callable[[], float],
) -> _Step:
    """Some batches of one student and its teacher, as training computes them, but for the losses."""
    device = torch.device(plan.device)
    student = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    pairs = Pairs([student], [teacher_of(student)], device, precision=PRECISIONS[plan.compute.precision])
    # A head's shape depends on labels and width alone; equal rows need no memory.
    features = np.broadcast_to(np.float32(network.feature_dim**-0.5), (len(tracklets), network.feature_dim))
    measured = replace(stage, objective=_anything, weights={"any": 1.0})
    fit = Fit(measured, Assignment(labels), float("nan"), tracklets, features, pairs)
    generator = torch.Generator().manual_seed(plan.seed)
    n_tracklets, n_frames = drawn.row.shape[1:]

    kept_by: dict[int, int] = {}  # by tracklets in a batch
    peak = 0

    def batches(n: int) -> float:
        nonlocal peak
        fit.plan, fit.iteration = Plan(drawn.tracklet[:, :n], drawn.row[:, :n]), 0
        crops.read(tracklets.crop[fit.plan.row.ravel()])
        saved = _Saved([student, *pairs.teachers, *fit.heads, *fit.mean_heads])
        base = _allocated(device, reset=True)
        began = _now(clock, device)
        steps = fit.batches(crops, generator, ahead=plan.compute.batches_ahead, progress=_silent)
        with saved_tensors_hooks(saved.note, _same):
            for done in steps:
                if done < len(fit.plan):
                    saved.sizes.clear()
        seconds = _now(clock, device) - began
        kept_by[n], peak = int(saved), _allocated(device) - base
        return seconds

    first = min(n_tracklets, max(2, _FIRST // n_frames))
    with deterministic.algorithms(device):
        n, seconds = _measured(batches, first, min(n_tracklets, max(2, _PICTURES // n_frames)))
    trained = [p for m in (student, *fit.heads) for p in m.parameters() if p.requires_grad]
    gradients = sum(_nbytes(p) for p in trained)
    # Part of what is kept does not grow with the batch: weights in another precision.
    slope = (kept_by[n] - kept_by[first]) / (n - first) if n > first else kept_by[n] / n
    fixed = kept_by[n] - slope * n
    working = max(0, peak - gradients - kept_by[n]) / n  # what a device holds besides

    def activations(pictures: int) -> float:
        return fixed + (slope + working) * pictures / n_frames

    kept = {name: value.nbytes for name, value in fit.arrays().items()}
    optimiser = sum(v for name, v in kept.items() if name.startswith("fit.optimiser."))
    heads = sum(v for name, v in kept.items() if name.startswith(("fit.head.", "fit.mean_head.")))
    networks = sum(_nbytes(t) for m in (student, *pairs.teachers) for t in m.state_dict().values())
    return _Step(
        seconds / (_STEPS * n * n_frames),
        n * n_frames,
        activations,
        networks,
        heads,
        gradients,
        optimiser,
    )


def _stage(
    stage: Stage,
    n_batches: int,
    drawn: Plan,
    step: _Step,
    speed: _Speed,
    tracklets: Tracklets,
    plan: TrainPlan,
    k: int,
    n_processes: int,
) -> StageEstimate:
    """The counts of a stage, and what was measured of it scaled to them."""
    n_tracklets, n_frames = drawn.row.shape[1:]
    n_crops = int(np.minimum(tracklets.length, stage.frames_cluster).sum())
    share = Ranks(0, n_processes).share(n_tracklets).stop * n_frames  # the first has the most
    extracted = math.ceil(n_crops / n_processes) * k
    inside = n_batches > plan.compute.checkpoint_every  # states are written between batches, too
    per_label = sum(getattr(_labels(1, 1), name).nbytes for name in ("label", "weight", "space"))
    by_session = _by_session(plan, n_crops)
    making, seconds = (speed.making, speed.many) if by_session else (0.0, speed.extract)
    state = k * step.networks + 8 * tracklets.n_crops + per_label * len(tracklets)
    state += torch.Generator().get_state().nbytes
    if inside or (stage.assign_every > 1 and stage.rounds > 1):
        state += k * (step.heads + step.optimiser) + per_label * len(tracklets)
    if inside:
        state += n_batches * n_tracklets * (1 + n_frames) * 8
    return StageEstimate(
        name=stage.name,
        rounds=stage.rounds,
        assignments=math.ceil(stage.rounds / stage.assign_every),
        batches=n_batches,
        tracklets=n_tracklets,
        pictures=n_tracklets * n_frames,
        crops=n_crops * k,
        seconds={
            "extract": k * making + extracted * speed.of(seconds, speed.missed),
            "fit": n_batches * share * speed.of(k * step.seconds, speed.missed),
        },
        state_bytes=state,
        memory={
            "networks": k * (step.networks + step.heads),
            "gradients": k * step.gradients,
            "optimiser": k * step.optimiser,
            "activations": round(k * step.activations(share)),
        },
    )


def _assumptions(plan: TrainPlan, isolation: bool, n_clusters: int, depends: bool) -> tuple[str, ...]:
    said = [f"{n_clusters:,} persons, half as many as tracks: about the most there can be"]
    if depends:
        said[0] += "; the number of batches follows from it"
    if isolation:
        said.append(
            "as many parts as the set has tracks, of all its crops: isolation cuts tracks and drops crops, "
            "which is not known before"
        )
    said += [
        "times grow in proportion to pictures; neighbours and clusters, found every epoch, come on top",
        "memory counts arrays and tensors; the program and its libraries take 0.5 to 1 GB more",
    ]
    if plan.compute.compile:
        said.append("not compiled: compiling takes minutes and is not measured")
    return tuple(said)


def _slow(stages: Sequence[StageEstimate], steps: Sequence[_Step]) -> tuple[str, ...]:
    """What was measured on so small a part of a batch that what every batch costs weighs too much."""
    return tuple(
        f"the machine is slow or busy: only {m.pictures} of {s.pictures} pictures of a batch of {s.name} "
        "were measured, its times are probably too long"
        for s, m in zip(stages, steps, strict=True)
        if 2 * m.pictures <= min(s.pictures, _PICTURES)
    )


def _warnings(memory: Mapping[str, Mapping[str, int | None]]) -> tuple[str, ...]:
    """What will not fit.

    >>> _warnings({"cuda": {"needed": 9_000_000_000, "total": 8_000_000_000}})
    ('about 9.0 GB needed on cuda, which has 8.0 GB: take smaller batches, crops or networks',)
    """
    smaller = {"cpu": "batches, crops, networks or train.cache_bytes"}
    return tuple(
        f"about {size(values['needed'] or 0)} needed on {place}, which has {size(values['total'])}: "
        f"take smaller {smaller.get(place, 'batches, crops or networks')}"
        for place, values in memory.items()
        if values["total"] and (values["needed"] or 0) > values["total"]
    )


def _memory_of(place: str) -> int | None:
    """Bytes of memory of a CUDA device or, for "cpu", of the machine; None where nobody says."""
    if place.startswith("cuda"):
        return int(torch.cuda.get_device_properties(place).total_memory)
    return machine.total()


def _allocated(device: torch.device, *, reset: bool = False) -> int:
    """Bytes that torch holds on a CUDA device at most since the last reset; 0 on CPUs."""
    if device.type != "cuda":
        return 0
    if reset:
        torch.cuda.reset_peak_memory_stats(device)
    return int(torch.cuda.max_memory_allocated(device))


def _now(clock: Callable[[], float], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock()


def _nbytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _silent(what: str, done: int, total: int | None) -> None:
    """Progress nobody sees."""


def _same(tensor: Tensor) -> Tensor:
    return tensor
