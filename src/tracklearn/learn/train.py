"""The training loop: a `Method` is a value made of `Stage`s, and `train` runs any of them.

Nothing here knows a method's name. What differs between methods is in the callables of its stages: how
labels come from features, which batches are drawn, what sits on the features, which losses and optimisers.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tracklearn.core import isolate, signs
from tracklearn.core.labels import agreement as agreement_of
from tracklearn.core.moments import moments
from tracklearn.learn import allocator, augment, deterministic, embed, sample, session, subnormals, teacher
from tracklearn.learn.compute import PRECISIONS, Config, settled
from tracklearn.learn.events import (
    Prepared,
    Round,
    State,
    TrainingStopped,
    section,
    student_arrays,
    teacher_arrays,
)
from tracklearn.learn.fit import Fit, Pairs, load
from tracklearn.learn.method import Assignment, Isolated, Material, Method, Stage
from tracklearn.learn.network import Network
from tracklearn.learn.ranks import Ranks
from tracklearn.types import Array, Crops, Progress, PseudoLabels, Refusal, Tracklets

# Version of the arrays and meta in a State; a state of another version is refused.
STATE_FORMAT = 3
SAMPLED = 4096  # crops behind the similarities on record where a method does not look at features first
VIEWS = 256  # crops that are looked at twice, to tell whether learning helps

__all__ = [
    "Config",
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


def train(
    method: Method,
    networks: Network | Sequence[Network],
    tracklets: Tracklets,
    crops: Crops,
    *,
    config: Config | None = None,
    device: torch.device | str = "cpu",
    ranks: Ranks | None = None,
    seed: int = 0,
    resume: State | None = None,
    look: Callable[[Array], Array] | None = None,
    progress: Progress | None = None,
) -> Iterator[Prepared | Round | State]:
    """Run a method: `Prepared` and a `State` first, then a `Round` and a `State` after every epoch.

    Longer epochs give a `State` every `config.checkpoint_every` batches too.

    Same arguments, same device and same number of threads and processes give the same bytes; so does going
    on from any of the states. That is tested on CPU. On CUDA, torch's deterministic algorithms are on while a
    round is computed (for the whole process, as before again at every event), and torch warns of an operation
    that has none; CUBLAS_WORKSPACE_CONFIG is set where it is not, which must come before the process's first
    use of cuBLAS. Memory: the features of all crops, O(n·d), until the first
    round, where the method looks at them.

    Several processes each call this with the same arguments and their own `ranks`; all get the same events.

    Args:
        method: what to do.
        networks: starting weights, one per student; they are copied, not changed.
        tracklets: of one set.
        crops: its pictures, rows as in `tracklets.crop`.
        config: how to compute.
        device: where to compute.
        ranks: this process among those that share the work (`ranks.joined`); alone by default.
        seed: of sampling and augmentation.
        resume: a state of the same method, data and seed.
        look: (n,) crop rows -> (n, d) float32 unit features by the first of `networks`, in the arithmetic of
            `config`: who else may look at all crops before the first round, where the method does. None:
            this process does, of several each its share.
        progress: called as progress(what, done, total).

    Raises:
        ValueError: arguments do not fit each other.
        TrainingStopped: while running: too few clusters, or a loss or weights that are not finite.

    Source: TMC section 3; the loop is that of METHODS 3 with MMT (METHODS 6) as its two-network case.
    """
    given = [networks] if isinstance(networks, nn.Module) else list(networks)
    if len(given) != method.networks:
        raise Refusal(f"networks holds {len(given)}, method {method.name} trains {method.networks}")
    if not tracklets.n_crops:
        raise Refusal("tracklets is empty: nothing to train on")
    if tracklets.crop.min() < 0 or tracklets.crop.max() >= len(crops):
        raise Refusal(
            f"tracklets refers to crop {tracklets.crop.max()}, crops has {len(crops)}: "
            "take both from the same set"
        )
    allocator.keep_freed()
    device = torch.device(device)
    config = settled(config or Config(), device)
    if resume is not None:
        _check(resume, method, tracklets, seed)
    students = [_placed(network, device) for network in given]
    pairs = Pairs(
        students=students,
        teachers=[teacher.teacher_of(student) for student in students],
        device=device,
        ranks=ranks or Ranks(),
        precision=PRECISIONS[config.precision],
    )
    if config.compile:
        for _, network in pairs.named():
            network.compile()
    training = _Training(method, pairs, tracklets, crops, config, seed, look, progress)
    return training.events(resume)


class _Training:
    """The moving parts of one run of `train`."""

    def __init__(
        self,
        method: Method,
        pairs: Pairs,
        tracklets: Tracklets,
        crops: Crops,
        config: Config,
        seed: int,
        look: Callable[[Array], Array] | None,
        progress: Progress | None,
    ) -> None:
        self.method = method
        self.pairs = pairs
        self.original = self.tracklets = tracklets
        self.crops = crops
        self.config = config
        self.seed = seed
        self.look = look
        self.progress: Progress = progress or (lambda what, done, total: None)
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.part = np.zeros(tracklets.n_crops, np.int64)
        self.memory: dict[str, Array] = {}
        self.labels: PseudoLabels | None = None
        self.rounds = 0  # finished, of all stages
        self.isolated = 0  # the round before which `part` was made
        self.place = 0  # in the list of all rounds there could be; some stages end early
        self.fit: Fit | None = None
        self.beside: tuple[Tracklets, Array] | None = None
        self.optimisers: dict[str, Array] = {}  # what they remember from one assignment to the next

    def events(self, resume: State | None) -> Iterator[Prepared | Round | State]:
        coming = self._events(resume)
        while True:
            # Never across a yield: what the caller does between events is not ours to change.
            with deterministic.algorithms(self.pairs.device):
                event = next(coming, None)
            if event is None:
                return
            yield event

    def _events(self, resume: State | None) -> Iterator[Prepared | Round | State]:
        if resume is None:
            yield self._prepare()
            yield self._state()
        else:
            self._restore(resume)
        rounds = self._rounds()
        while self.place < len(rounds):
            yield from self._round(*rounds[self.place])
            yield self._state()

    def _rounds(self) -> list[tuple[Stage, int]]:
        """Every round's stage and its number there."""
        return [(stage, within) for stage in self.method.stages for within in range(stage.rounds)]

    def _prepare(self) -> Prepared:
        began = time.perf_counter()
        ranks = self.pairs.ranks
        prepare, looks = self.method.prepare, self.method.prepare is not None and self.method.prepare_looks
        row = np.arange(self.original.n_crops) if looks else _sample(self.original)
        crop = self.original.crop[row]
        if looks and self.look is not None and not self.rounds:
            features, expected = self.look(crop), (len(crop), self.pairs.teachers[0].feature_dim)
            if features.shape != expected:
                raise Refusal(f"look returned shape {features.shape}, expected {expected}")
        else:
            features = self._extract("isolation", self.pairs.teachers[0], crop, self.crops)
        similarity = np.full(self.original.n_crops if ranks.rank == 0 else 0, np.nan, np.float32)
        if ranks.rank == 0:
            similarity[row] = isolate.adjacent_similarity(features, self.original.tracklet[row])
        found = Isolated(self.part)
        self.isolated, self.labels, self.memory = self.rounds, None, {}
        if prepare is not None:
            if ranks.rank == 0:
                given = (self._given(features), similarity) if looks else (features[:0], similarity[:0])
                made = prepare(given[0], self.original, given[1])
                found = made if isinstance(made, Isolated) else Isolated(made)
            self.part = ranks.from_first(np.asarray(found.part, np.int64))
        self.tracklets = self.original.split(self.part)
        return Prepared(
            round=self.rounds,
            tracklets=self.tracklets,
            part=self.part,
            row=row,
            features=features,
            similarity=similarity,
            n_before=len(self.original),
            n_after=len(self.tracklets),
            dropped=int((self.part == -1).sum()),
            aside=int((self.part < -1).sum()),
            calibration=found.calibration,
            diagnosis=found.notes,
            seconds=time.perf_counter() - began,
        )

    def _extract(
        self,
        what: str,
        network: Network,
        rows: Array,
        crops: Crops,
        *,
        post_bn: bool = True,
        own: slice | None = None,
        by_session: bool = False,
    ) -> Array:
        """Features of these crops; of several processes each computes its share, and rank 0 gets them all.

        With `own` the share is given, and nothing is collected.
        """
        ranks = self.pairs.ranks
        part = embed.extract(
            network,
            crops,
            rows[ranks.share(len(rows)) if own is None else own],
            device=self.pairs.device,
            progress=lambda _, done, total: self.progress(what, done, total),
            dtype=self.pairs.precision,
            post_bn=post_bn,
            unit=post_bn,
            by_session=by_session,
        )
        return ranks.collect(part, len(rows)) if own is None else part

    def _given(self, features: Array) -> Any:
        """The features as `prepare` and `assign` get them."""
        return _near(features, self.pairs.device) if self.method.tensors else features

    def _material(self, stage: Stage) -> Material:
        """What a stage learns from."""
        return stage.material or Material(self.tracklets, self.crops)

    def _features(self, stage: Stage) -> tuple[Array, dict[str, float]]:
        """(t, d) unit features of the tracklets: the mean over the teachers; the same on every rank.

        And what the clips of this process's share tell of whether learning helps (`core.signs`).
        """
        ranks = self.pairs.ranks
        tracklets, crops = self._material(stage).tracklets, self._material(stage).crops
        row, group = sample.clips(tracklets, stage.frames_cluster, self.rng)
        rows = tracklets.crop[row]
        share = ranks.share(len(tracklets))
        own = slice(*np.searchsorted(group, [share.start, share.stop]).tolist())
        post_bn = stage.cluster_feature == "post_bn"
        by_session = session.chosen(self.config.features, len(rows), self.pairs.device)
        pooled = []
        told: dict[str, float] = {}
        for network in self.pairs.teachers:
            features = self._extract(
                "features", network, rows, crops, post_bn=post_bn, own=own, by_session=by_session
            )
            if ranks.rank == 0 and not told:
                apart = self._apart(tracklets)
                inside = apart[((apart >= share.start) & (apart < share.stop)).all(1)]
                told = signs.of_clips(features, group[own], inside)
            pooled.append(embed.pool(features, group[own] - share.start, share.stop - share.start))
        if len(pooled) > 1:
            mean = np.mean(pooled, 0)
            pooled = [mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)]
        return ranks.collect_everywhere(pooled[0], len(tracklets)), told

    def _apart(self, tracklets: Tracklets) -> Array:
        """(p, 2) tracklets that one camera saw at the same moment; once for each set of tracklets."""
        if self.beside is None or self.beside[0] is not tracklets:
            self.beside = (tracklets, moments(tracklets).pair)
        return self.beside[1]

    def _seen_twice(self, stage: Stage) -> dict[str, float]:
        """Whether the first teacher knows crops again that are augmented as in training: `two_views`, 0-1.

        The same crops, augmented in the same way, every time: rounds compare.
        """
        crops, network = self._material(stage).crops, self.pairs.teachers[0]
        tracklets = self._material(stage).tracklets if stage.material else self.original
        middle = (tracklets.start[:-1] + tracklets.start[1:]) // 2
        rows = signs.spread(tracklets.crop[middle], VIEWS)
        images = torch.from_numpy(np.require(crops.read(rows), requirements=["C", "W"])).to(self.pairs.device)
        generator = torch.Generator().manual_seed(0)
        drawn = augment.draw(len(rows), images.shape[1], images.shape[2], stage.augment, generator)
        seen = []
        views = (network.normalise(images), augment.apply(images, drawn, normalise=network.normalise))
        was = network.training
        network.eval()
        with (
            torch.inference_mode(),
            subnormals.flushed(self.pairs.device),
            torch.autocast(
                self.pairs.device.type,
                dtype=self.pairs.precision,
                enabled=self.pairs.precision != torch.float32,
            ),
        ):
            for pixels in views:
                seen.append(nn.functional.normalize(network.neck(network(pixels)).float()).cpu().numpy())
        network.train(was)
        value = signs.twins(*seen)
        return {"two_views": value} if np.isfinite(value) else {}

    def _assigned(self, stage: Stage, seconds: dict[str, float]) -> Fit:
        """Features, labels, and what is to be trained on them."""
        began = time.perf_counter()
        tracklets = self._material(stage).tracklets
        features, told = self._features(stage)
        if self.pairs.ranks.rank == 0:
            told |= self._seen_twice(stage)
        seconds["extract"] = time.perf_counter() - began
        began = time.perf_counter()
        assigned: Assignment | None = None
        if self.pairs.ranks.rank == 0:
            assigned = stage.assign(self._given(features), tracklets, self.memory)
            told["silhouette"] = signs.silhouette(features, assigned.people.label)
            told = {name: value for name, value in told.items() if np.isfinite(value)}
            assigned = replace(assigned, record={**assigned.record, **told})
        assigned = self.pairs.ranks.from_first(assigned)
        assert assigned is not None
        labels = assigned.labels
        if labels.n_clusters < 2:
            raise TrainingStopped(
                f"epoch {self.rounds + 1}: {len(tracklets)} tracklets gave {labels.n_clusters} "
                f"cluster(s), training needs at least 2. {'; '.join(assigned.diagnosis)}".rstrip()
            )
        people = assigned.people
        agreement = agreement_of(self.labels.label, people.label) if self.labels else float("nan")
        seconds["cluster"] = time.perf_counter() - began
        return Fit(stage, assigned, agreement, tracklets, features, self.pairs)

    def _round(self, stage: Stage, within: int) -> Iterator[Prepared | Round | State]:
        """One round; from where it was left, where it had begun."""
        seconds = {"extract": 0.0, "cluster": 0.0}
        keeps = within % stage.assign_every > 0
        if within == 0 and self.place and self._rounds()[self.place - 1][0].material is not stage.material:
            self.labels = None  # of other tracklets
        if self.fit is None and stage.material is None and self._is_due():
            yield self._prepare()
        if within == 0:
            self.optimisers = {}
        if self.fit is None:
            self.fit = self._assigned(stage, seconds)
            if self.optimisers:
                self.fit.recall(self.optimisers)
                self.optimisers = {}
        fit = self.fit
        if fit.plan is None:
            fit.draw(self.rng)
        began, outside = time.perf_counter(), 0.0
        for done in fit.batches(
            self._material(stage).crops,
            self.generator,
            ahead=self.config.batches_ahead,
            within=within,
            progress=self.progress,
        ):
            if done % self.config.checkpoint_every == 0 and done < len(fit.plan or ()):
                left = time.perf_counter()
                self._share_statistics()
                yield self._state()
                outside += time.perf_counter() - left
        n_iterations = fit.iteration
        means, accuracy = fit.finish()
        for name, value in means.items():
            if not np.isfinite(value):
                raise TrainingStopped(
                    f"epoch {self.rounds + 1}: loss {name} is {value}: lower the learning rate or check the "
                    "weights"
                )
        self._share_statistics()
        self._check_finite()
        seconds["read"] = fit.waited
        seconds["fit"] = time.perf_counter() - began - outside - fit.waited
        assigned, labels = fit.assigned, fit.assigned.people
        self.labels, self.memory = labels, dict(assigned.memory)
        self.rounds += 1
        self.place += 1
        if (within + 1) % stage.assign_every == 0 or within + 1 == stage.rounds:
            self.fit = None
            self.optimisers = fit.remembered() if stage.optimisers_stay else {}
            if assigned.last:
                self.place += stage.rounds - within - 1
        yield Round(
            index=self.rounds - 1,
            stage=stage.name,
            n_clusters=labels.n_clusters,
            noise_fraction=labels.noise_fraction,
            largest_cluster=int(np.bincount(labels.label[labels.label >= 0], minlength=1).max()),
            eps=assigned.eps,
            agreement=1.0 if keeps else fit.agreement,
            losses=means,
            accuracy=accuracy,
            n_iterations=n_iterations,
            labels=labels,
            record=dict(assigned.record),
            keep=dict(assigned.keep),
            diagnosis=() if keeps else assigned.diagnosis,
            seconds=seconds,
        )

    def _is_due(self) -> bool:
        """Whether the tracklets are to be made anew by what was learned."""
        every = self.method.prepare_every
        return self.method.prepare is not None and every > 0 and self.rounds - self.isolated >= every

    def _share_statistics(self) -> None:
        self.pairs.ranks.mean_statistics(network for _, network in self.pairs.named())

    def _check_finite(self) -> None:
        for name, network in self.pairs.named():
            for part, value in (*network.named_parameters(), *network.named_buffers()):
                if not value.isfinite().all():
                    raise TrainingStopped(
                        f"epoch {self.rounds + 1}: {part} of a {name.rstrip('.0123456789')} is not finite: "
                        "lower the learning rate or check the weights"
                    )

    def _state(self) -> State:
        arrays: dict[str, Array] = {"part": self.part, "rng.augment": self.generator.get_state().numpy()}
        for name, network in self.pairs.named():
            arrays |= {name + key: value for key, value in network.arrays().items()}
        if self.labels is not None:
            for key in ("label", "weight", "space"):
                arrays[f"labels.{key}"] = getattr(self.labels, key)
        arrays |= {f"memory.{key}": np.asarray(value) for key, value in self.memory.items()}
        meta = {
            "format": STATE_FORMAT,
            "method": self.method.name,
            "seed": self.seed,
            "rounds": self.rounds,
            "isolated": self.isolated,
            "place": self.place,
            "step": self.pairs.step,
            "sampler": copy.deepcopy(self.rng.bit_generator.state),
        }
        arrays |= {f"optimisers.{key}": value for key, value in self.optimisers.items()}
        if self.fit is not None:
            arrays |= self.fit.arrays()
            meta["fit"] = self.fit.meta()
        return State(arrays, meta)

    def _restore(self, state: State) -> None:
        arrays, meta = state.arrays, state.meta
        for name, network in self.pairs.named():
            load(network, section(arrays, name))
        self.part = np.array(arrays["part"], np.int64)
        self.tracklets = self.original.split(self.part)
        if "labels.label" in arrays:
            self.labels = PseudoLabels(**section(arrays, "labels."))
        self.memory = section(arrays, "memory.")
        self.optimisers = section(arrays, "optimisers.")
        self.generator.set_state(torch.from_numpy(np.array(arrays["rng.augment"], np.uint8)))
        self.rng.bit_generator.state = meta["sampler"]
        self.pairs.step = int(meta["step"])
        self.rounds, self.place = int(meta["rounds"]), int(meta["place"])
        self.isolated = int(meta.get("isolated", 0))
        if "fit" in meta:
            stage, _ = self._rounds()[self.place]
            self.fit = Fit.restored(stage, self._material(stage).tracklets, self.pairs, arrays, meta["fit"])


def _sample(tracklets: Tracklets) -> Array:
    """(m,) rows of whole tracklets, evenly spread over the set, about `SAMPLED` of them or all."""
    if tracklets.n_crops <= SAMPLED:
        return np.arange(tracklets.n_crops)
    order = np.random.default_rng(0).permutation(len(tracklets))
    n = int(np.searchsorted(np.cumsum(tracklets.length[order]), SAMPLED)) + 1
    return np.flatnonzero(np.isin(tracklets.tracklet, order[:n]))


def _placed(network: Network, device: torch.device) -> Network:
    return copy.deepcopy(network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _near(features: Array, device: torch.device) -> Array | Tensor:
    """The features on a CUDA device that has room to work with them; otherwise as they are."""
    if device.type != "cuda" or features.nbytes > torch.cuda.mem_get_info(device)[0] // 4:
        return features
    return torch.from_numpy(features).to(device)


def _check(state: State, method: Method, tracklets: Tracklets, seed: int) -> None:
    for name, got, expected in (
        ("format", state.meta.get("format"), STATE_FORMAT),
        ("method", state.meta.get("method"), method.name),
        ("seed", state.meta.get("seed"), seed),
        ("number of crops", len(state.arrays.get("part", ())), tracklets.n_crops),
    ):
        if got != expected:
            raise Refusal(f"resume has {name} {got}, expected {expected}: go on with the run it came from")
