"""Training on one assignment of labels: heads, optimisers, batches, and how they are kept and found again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tracklearn.learn import augment, sample, subnormals, teacher
from tracklearn.learn.events import TrainingStopped, prefix, section
from tracklearn.learn.method import Assignment, Moment, Stage, Target, View
from tracklearn.learn.network import Network
from tracklearn.learn.ranks import Ranks
from tracklearn.learn.sample import Plan
from tracklearn.types import Array, Crops, PseudoLabels, Refusal, Tracklets


@dataclass
class Pairs:
    """Students and their teachers, and where they compute.

    Args:
        students, teachers: as many of the one as of the other.
        device: of all of them.
        ranks: this process among those that train together.
        precision: of forward passes; other than float32 through autocast.
        step: iterations done, over the whole training.
    """

    students: list[Network]
    teachers: list[Network]
    device: torch.device
    ranks: Ranks = field(default_factory=Ranks)
    precision: torch.dtype = torch.float32
    step: int = 0

    def named(self) -> Iterator[tuple[str, Network]]:
        """Every network with its prefix in a State."""
        for role, networks in (("student", self.students), ("teacher", self.teachers)):
            for k, network in enumerate(networks):
                yield prefix(role, k), network


class Fit:
    """Fits the networks to one assignment of labels, round by round and batch by batch.

    Args:
        stage: what to do.
        assigned: the labels.
        agreement: of the labels with those before.
        tracklets: what the labels are of.
        features: (t, d) of the tracklets, from which the heads are made.
        pairs: the networks; changed in place.
    """

    def __init__(
        self,
        stage: Stage,
        assigned: Assignment,
        agreement: float,
        tracklets: Tracklets,
        features: Array,
        pairs: Pairs,
    ) -> None:
        self.stage = stage
        self.assigned = assigned
        self.agreement = agreement
        self.tracklets = tracklets
        self.pairs = pairs
        device = pairs.device
        self.heads = [stage.head(features, assigned.labels).to(device) for _ in pairs.students]
        taught = stage.alpha is not None and stage.teaches
        self.mean_heads = [teacher.teacher_of(head) for head in self.heads] if taught else []
        pairing = [
            *zip(pairs.teachers, pairs.students, strict=True),
            *zip(self.mean_heads, self.heads, strict=taught),
        ]
        self.average = None if stage.alpha is None else teacher.Average(pairing, buffers=not taught)
        self.optimisers = [
            o for s, h in zip(pairs.students, self.heads, strict=True) for o in stage.optimise(s, h)
        ]
        self.aux = {name: torch.as_tensor(value, device=device) for name, value in assigned.aux.items()}
        self.plan: Plan | None = None
        self.iteration = 0
        self.sums: dict[str, Tensor] = {}
        self.right = torch.zeros((), device=device)
        self.waited = 0.0

    def draw(self, rng: np.random.Generator) -> None:
        """The batches of another round."""
        labels = self.assigned.labels
        self.plan = self.stage.sample(self.tracklets, labels, self.stage.iterations(labels), rng)
        self.iteration, self.waited = 0, 0.0
        self.sums, self.right = {}, torch.zeros_like(self.right)

    def batches(
        self,
        crops: Crops,
        generator: torch.Generator,
        *,
        ahead: int,
        within: int = 0,
        progress: Callable[[str, int, int | None], None],
    ) -> Iterator[int]:
        """Train on the batches of this round that are still to come; yields the number done after each.

        `within` is the number of the round among those of the stage.
        """
        assert self.plan is not None
        pairs, plan, stage = self.pairs, self.plan, self.stage
        n_tracklets, n_frames = plan.row.shape[1:]
        ranks = pairs.ranks
        own = ranks.share(n_tracklets)
        if n_tracklets // ranks.size * n_frames < 2:
            raise TrainingStopped(
                f"batches of {n_tracklets} tracklets leave {ranks.size} processes less than two pictures "
                "each: start fewer"
            )
        group = bn_group(n_tracklets, stage.samples_per_bn, ranks.size) * n_frames
        for _, network in pairs.named():
            network.set_bn_group(group)
            network.train()
        rows = (self.tracklets.crop[row[own].ravel()] for row in plan.row[self.iteration :])
        pin = pairs.device.type == "cuda"
        with closing(sample.ahead(crops, rows, depth=ahead, pin=pin)) as reading:
            while self.iteration < len(plan):
                began = time.perf_counter()
                images = next(reading).to(pairs.device, non_blocking=True)
                self.waited += time.perf_counter() - began
                if stage.schedule is not None:
                    every = min(
                        stage.assign_every, stage.rounds - within // stage.assign_every * stage.assign_every
                    )
                    moment = Moment(within % stage.assign_every, every, self.iteration, len(plan), within)
                    stage.schedule(pairs.students, self.optimisers, moment)
                self._step(images, plan.tracklet[self.iteration], n_frames, own, generator, within)
                self.iteration += 1
                progress("training", self.iteration, len(plan))
                yield self.iteration

    def _step(
        self,
        images: Tensor,
        tracklet: Array,
        n_frames: int,
        own: slice,
        generator: torch.Generator,
        epoch: int,
    ) -> None:
        """One batch: losses, gradients, students, teachers."""
        pairs, stage = self.pairs, self.stage
        target = _target(tracklet, self.assigned.labels, self.aux, pairs.device, epoch)
        students, teachers = self._views(images, target.label, n_frames, own, generator)
        with subnormals.flushed(pairs.device):
            terms = stage.objective(students, teachers, target)
            total = torch.stack([w * terms[name] for name, w in stage.weights.items()]).sum()
            total.backward()
        pairs.ranks.sum_gradients(p for m in (*pairs.students, *self.heads) for p in m.parameters())
        with subnormals.flushed(pairs.device):
            for optimiser in self.optimisers:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
        if self.average is not None and stage.alpha is not None:
            self.average.update(step=pairs.step, alpha=stage.alpha)
        if stage.remember is not None:
            with torch.no_grad():
                for head, view in zip(self.heads, students, strict=True):
                    stage.remember(head, view, target)
        pairs.step += 1
        # Sums stay on the device: reading them every iteration would make a GPU wait.
        for name, term in {**terms, "total": total}.items():
            term = term.detach()
            self.sums[name] = self.sums[name] + term if name in self.sums else term
        if "accuracy" in terms:
            return
        for view in students:
            self.right += (view.logits.detach().argmax(1) == target.label).float().mean()

    def _views(
        self, images: Tensor, label: Tensor, n_frames: int, own: slice, generator: torch.Generator
    ) -> tuple[list[View], list[View]]:
        """The batch through every student and, without gradient, every teacher."""
        pairs, n_tracklets = self.pairs, len(label)
        label = label[own]
        students, teachers = [], []
        height, width = images.shape[1:3]
        rows = slice(own.start * n_frames, own.stop * n_frames)
        for k, student in enumerate(pairs.students):
            # Student and teacher see the same picture; another pair sees another draw of it.
            drawn = augment.draw(n_tracklets * n_frames, height, width, self.stage.augment, generator)
            pixels = augment.apply(images, drawn.part(rows), normalise=student.normalise)
            # After augmentation: threads that start inside keep it.
            with (
                subnormals.flushed(pairs.device),
                torch.autocast(
                    pairs.device.type, dtype=pairs.precision, enabled=pairs.precision != torch.float32
                ),
            ):
                seen = _view(student, self.heads[k], pixels, n_frames, label)
                students.append(_whole(seen, n_tracklets, pairs.ranks))
                if self.mean_heads:
                    with torch.no_grad():
                        seen = _view(pairs.teachers[k], self.mean_heads[k], pixels, n_frames, label)
                    teachers.append(_whole(seen, n_tracklets, pairs.ranks))
        return students, teachers

    def finish(self) -> tuple[dict[str, float], float]:
        """End a round: the mean of every loss term over it, and the accuracy."""
        if self.stage.alpha is None:
            for mean, student in zip(self.pairs.teachers, self.pairs.students, strict=True):
                mean.load_state_dict(student.state_dict())
        n = max(self.iteration, 1)
        losses = {}
        for name, value in self.sums.items():
            total, count = (float(value), n) if value.numel() == 1 else value.tolist()
            if count:  # a pair may have met nothing to count
                losses[name] = total / count
        self.plan = None
        return losses, losses.pop("accuracy", float(self.right) / (n * len(self.heads)))

    def remembered(self) -> dict[str, Array]:
        """What the optimisers remember: copies."""
        out: dict[str, Array] = {}
        for k, optimiser in enumerate(self.optimisers):
            for i, values in optimiser.state_dict()["state"].items():
                out |= {f"{k}.{i}.{name}": _array(v) for name, v in _tensors(values)}
        return out

    def recall(self, arrays: dict[str, Array]) -> None:
        """Give the optimisers back what `remembered` gave."""
        for k, optimiser in enumerate(self.optimisers):
            _remember(optimiser, section(arrays, f"{k}."))

    def arrays(self) -> dict[str, Array]:
        """Everything here that a State must hold, by names that begin with `fit.`."""
        out: dict[str, Array] = {}
        for role, heads in (("head", self.heads), ("mean_head", self.mean_heads)):
            for k, head in enumerate(heads):
                out |= {f"fit.{role}.{k}.{name}": _array(v) for name, v in head.state_dict().items()}
        out |= {f"fit.optimiser.{name}": value for name, value in self.remembered().items()}
        for name in ("label", "weight", "space"):
            out[f"fit.labels.{name}"] = getattr(self.assigned.labels, name)
        if self.assigned.group is not None:
            out["fit.group"] = self.assigned.group
        for kind in ("memory", "aux", "keep"):
            for name, value in getattr(self.assigned, kind).items():
                out[f"fit.{kind}.{name}"] = np.asarray(value)
        if self.plan is not None:
            out |= {"fit.plan.tracklet": self.plan.tracklet, "fit.plan.row": self.plan.row}
            out |= {f"fit.sums.{name}": _array(value) for name, value in self.sums.items()}
            out["fit.right"] = _array(self.right)
        return out

    def meta(self) -> dict[str, Any]:
        """The plain values of the same."""
        return {
            "iteration": self.iteration,
            "eps": None if np.isnan(self.assigned.eps) else self.assigned.eps,
            "agreement": None if np.isnan(self.agreement) else self.agreement,
            "diagnosis": list(self.assigned.diagnosis),
            "record": dict(self.assigned.record),
            "last": self.assigned.last,
            "terms": list(self.sums),  # in the objective's order, which a file does not keep
        }

    @classmethod
    def restored(
        cls,
        stage: Stage,
        tracklets: Tracklets,
        pairs: Pairs,
        arrays: dict[str, Array],
        meta: Mapping[str, Any],
    ) -> Fit:
        """The one that `arrays` and `meta` were taken from."""
        kept = section(arrays, "fit.")
        assigned = Assignment(
            PseudoLabels(**section(kept, "labels.")),
            eps=float("nan") if meta["eps"] is None else meta["eps"],
            memory=section(kept, "memory."),
            aux=section(kept, "aux."),
            diagnosis=tuple(meta["diagnosis"]),
            group=kept.get("group"),
            record=meta["record"],
            keep=section(kept, "keep."),
            last=meta["last"],
        )
        agreement = float("nan") if meta["agreement"] is None else meta["agreement"]
        # Heads of the right shape; what is in them comes from the state.
        blank = np.zeros((len(tracklets), pairs.students[0].feature_dim), np.float32)
        fit = cls(stage, assigned, agreement, tracklets, blank, pairs)
        for role, heads in (("head", fit.heads), ("mean_head", fit.mean_heads)):
            for k, head in enumerate(heads):
                load(head, section(kept, f"{role}.{k}."))
        fit.recall(section(kept, "optimiser."))
        if "plan.row" in kept:
            fit.plan = Plan(kept["plan.tracklet"], kept["plan.row"])
            fit.iteration = int(meta["iteration"])
            fit.sums = {name: _sum(kept[f"sums.{name}"], pairs.device) for name in meta["terms"]}
            fit.right = _sum(kept["right"], pairs.device)
        return fit


def bn_group(n_tracklets: int, samples_per_bn: int, n_processes: int = 1) -> int:
    """Tracklets in each batch-norm group of a batch: as equal as can be, none below `samples_per_bn`.

    Where the batch is a multiple this is `samples_per_bn`. Small data give other batches, and a short last
    group of a single cluster would be normalised by its own mean, which is its identity. A group never
    spans two processes: with more of them than groups, each process is one.

    >>> bn_group(64, 16), bn_group(20, 16), bn_group(40, 16), bn_group(8, 16), bn_group(64, 64, 2)
    (16, 20, 20, 8, 32)

    Source: METHODS 2.1 (16); equal groups are chosen.
    """
    n_groups = n_tracklets // samples_per_bn // n_processes * n_processes
    return -(-n_tracklets // max(n_processes, n_groups))


@torch.no_grad()
def load(module: nn.Module, arrays: Mapping[str, Array]) -> None:
    """Copy a state dict of numpy arrays into a module.

    Raises:
        ValueError: the names are not the module's.
    """
    own = module.state_dict()
    if own.keys() != arrays.keys():
        raise Refusal("resume holds other weights than the network has: use the network of that run")
    for name, value in arrays.items():
        # Files may turn a batch counter of shape () into (1,).
        own[name].copy_(torch.from_numpy(np.array(value)).reshape(own[name].shape))


def _view(network: Network, head: nn.Module, pixels: Tensor, n_frames: int, label: Tensor) -> View:
    feature = network(pixels)
    post = network.neck(feature)
    shape = (-1, n_frames, feature.shape[1])
    centres = getattr(head, "centres", None)
    return View(
        feature.float().view(shape).mean(1),
        head(post.view(shape).mean(1)).float(),
        None if centres is None else centres(label),
        getattr(head, "memory", None),
    )


def _whole(view: View, n: int, ranks: Ranks) -> View:
    """The view of the whole batch from every process's part of it."""
    centre = None if view.centre is None else ranks.gather(view.centre, n)
    return View(ranks.gather(view.feature, n), ranks.gather(view.logits, n), centre, view.memory)


def _target(
    tracklet: Array, labels: PseudoLabels, aux: Mapping[str, Tensor], device: torch.device, epoch: int
) -> Target:
    def on_device(values: Array) -> Tensor:
        return torch.from_numpy(values).to(device, non_blocking=True)

    return Target(
        tracklet=on_device(tracklet),
        label=on_device(labels.label[tracklet]),
        space=on_device(labels.space[tracklet]),
        weight=on_device(labels.weight[tracklet]),
        aux=aux,
        epoch=epoch,
    )


def _array(value: Tensor) -> Array:
    return np.array(value.detach().cpu().numpy(), order="C")


def _sum(value: Array, device: torch.device) -> Tensor:
    """A number, or a pair; what was of shape () may have become (1,) in a file."""
    return torch.from_numpy(np.array(value)).reshape(() if value.size == 1 else (2,)).to(device)


def _tensors(values: Mapping[str, Any]) -> Sequence[tuple[str, Tensor]]:
    return [(name, v) for name, v in values.items() if isinstance(v, Tensor)]


def _remember(optimiser: torch.optim.Optimizer, arrays: Mapping[str, Array]) -> None:
    """Give an optimiser its state back; its settings are those it was made with."""
    fresh = optimiser.state_dict()
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in arrays.items():
        number, _, what = name.partition(".")
        tensor = torch.from_numpy(np.array(value))
        if what == "step":  # a counter of shape () may have become (1,) in a file
            tensor = tensor.reshape(())
        else:  # moments lie in memory as their parameter does, or every step would copy them
            parameter = parameters[int(number)].detach()
            tensor = torch.empty_like(parameter).copy_(tensor.reshape(parameter.shape))
        state.setdefault(int(number), {})[what] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": fresh["param_groups"]})
