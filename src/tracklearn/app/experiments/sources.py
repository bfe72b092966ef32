"""Where an experiment's data come from: a clean training set made once, and how a run is judged after it.

Both open ground truth: the world's and the benchmarks' noise is simulated with it, and runs are judged by it.
Training is given the path of a set alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tracklearn import __version__, world
from tracklearn.app.demo import films
from tracklearn.app.demo.films import cut, worlds, write_videos
from tracklearn.app.judge.rates import link_rates, retrieval
from tracklearn.app.model.of_run import isolated, load_network, tracklet_features
from tracklearn.app.pipeline.stages import Stages
from tracklearn.core.noise import tracklet_pid
from tracklearn.store import benchmarks
from tracklearn.store import config as settings_store
from tracklearn.store.runs import Run
from tracklearn.types import Progress, Refusal

if TYPE_CHECKING:
    from tracklearn.app.model.open import Model

Scores = dict[str, Any]


class Source(Protocol):
    """Data of an experiment below a folder of its own."""

    @property
    def train(self) -> Path:
        """The clean training set, its truth beside it; there once `prepare` has returned."""
        ...

    @property
    def judging(self) -> dict[str, Any]:
        """What decides the scores besides the run."""
        ...

    def prepare(self, progress: Progress | None) -> None:
        """Make what is not there yet."""
        ...

    def judge(self, run: Run, *, device: str, rerank: bool, progress: Progress | None) -> Scores:
        """A finished run's scores, named as in `Scores.to_dict` and `metrics.METRICS`, and `notes` if any."""
        ...


@dataclass(frozen=True)
class World:
    """The generated world: tracklets along its true boxes to learn from, other people to be judged on.

    A person's visit to a camera is a tracklet; all are clean.

    Args:
        folder: for films and sets.
        seed: of the world, as the demo takes it.
    """

    folder: Path
    seed: int = 0

    @property
    def train(self) -> Path:
        return self.folder / "train"

    @property
    def judging(self) -> dict[str, Any]:
        from tracklearn.store.sets.tracklets import open_set

        return {"judge": open_set(self.folder / "judge").digest}

    def prepare(self, progress: Progress | None) -> None:
        for name, config in zip(("train", "judge"), worlds(self.seed), strict=True):
            _film_and_cut(config, self.folder, name, progress)

    def judge(self, run: Run, *, device: str, rerank: bool, progress: Progress | None) -> Scores:
        from tracklearn.store.sets.tracklets import open_set, read_truth

        if rerank:
            raise Refusal("rerank: the generated world is judged without, give it to benchmarks alone")
        opened = open_set(self.folder / "judge")
        pid = tracklet_pid(opened.tracklets, read_truth(opened.path))
        scores = {}
        networks: dict[str, str | Path] = {"untrained": "start", "trained": "weights"}
        for (_, stage), path in run.stages.items():
            if stage == "source":
                networks["source_only"] = path
        for name, which in networks.items():
            features = tracklet_features(
                load_network(run, which), opened, opened.tracklets, device=device, progress=progress
            )
            scores[name] = retrieval(features, pid, opened.tracklets.camid)
        others = {name: score.mAP for name, score in scores.items() if name != "trained"}
        return {**scores["trained"].to_dict(), **others}


@dataclass(frozen=True)
class Benchmark:
    """A benchmark where it lies: its training part as a set that refers to its images, its own protocol.

    Args:
        folder: for the set.
        name: as `benchmarks.read` takes it.
        root: the folder that holds the benchmark.
        split: of a benchmark that has splits.
        protocol: its default for None.
        subset: the persons to draw from both parts, None for all.
        untrained: whether the network as it was before training is judged too.
        singles: whether every training image is a tracklet of its own.
    """

    folder: Path
    name: str
    root: Path
    split: int | None = None
    protocol: str | None = None
    subset: benchmarks.Subset | None = None
    untrained: bool = False
    singles: bool = False

    @property
    def train(self) -> Path:
        return self.folder / ("singles" if self.singles else "train")

    @property
    def judging(self) -> dict[str, Any]:
        return {"judge": self._which, "protocol": self.protocol, "untrained": self.untrained}

    @property
    def _which(self) -> dict[str, Any]:
        subset = None if self.subset is None else vars(self.subset)
        which = {"name": self.name, "root": str(self.root.resolve()), "split": self.split, "subset": subset}
        if benchmarks.find(self.name).own:  # it may hold other images than the last time
            which["listed"] = settings_store.digest(benchmarks.read(self.name, self.root).listing())
        return which

    def prepare(self, progress: Progress | None) -> None:
        from tracklearn.app.judge import datasets

        digest = settings_store.digest([self._which, __version__])
        with Stages(self.folder).stage(self.train.name, digest, self.train) as needed:
            if needed and not self.train.exists():
                # The whole must be sound: persons are drawn from those that are there.
                datasets.prepare(self.name, self.root, split=self.split, tell=lambda line: None)
                read = benchmarks.read(self.name, self.root, split=self.split, subset=self.subset)
                read.write_train(self.train, singles=self.singles, progress=progress)

    def judge(self, run: Run, *, device: str, rerank: bool, progress: Progress | None) -> Scores:
        from tracklearn.app.model import open as model

        def judged(which: str, out: str) -> Scores:
            opened = model.open_model(run.path, which=which, device=device)
            return self.judge_model(opened, run.path.parent / out, rerank=rerank, progress=progress)

        scores = judged("weights", "evaluation")
        if self.untrained:
            scores["untrained"] = judged("start", "evaluation-start")["mAP"]
        return scores

    def judge_model(self, model: Model, out: Path, *, rerank: bool, progress: Progress | None) -> Scores:
        """Scores of any model, with its pictures in `out`."""
        from tracklearn.app.judge import benchmark

        found = benchmark.evaluate(
            model,
            self.name,
            self.root,
            out=out,
            protocol=self.protocol,
            split=self.split,
            subset=self.subset,
            rerank=rerank,
            resume=True,
            progress=progress,
            tell=lambda line: None,
        )
        scores = {name: found[name] for name in (*benchmark.SCORES, "n_valid", "n_skipped", "protocol")}
        notes = [note for note in found["notes"] if not (self.singles and note == benchmarks.GROUPED_NOTE)]
        return {**scores, "notes": [*notes, *found["problems"]]}


def source_world(folder: Path, seed: int, progress: Progress | None) -> Path:
    """The labelled world beside the one of `seed`, as a set below `folder`; made if it is not there."""
    return _film_and_cut(films.source_world(seed), folder, "source", progress)


def _film_and_cut(config: world.Config, folder: Path, name: str, progress: Progress | None) -> Path:
    stages = Stages(folder)
    films, digest = folder / f"{name}-films", settings_store.digest([vars(config), __version__])
    with stages.stage(films.name, digest, films) as needed:
        if needed:
            write_videos(config, films, progress=progress)
    with stages.stage(name, digest, folder / name) as needed:
        if needed:
            cut(films, folder / name, progress=progress)
    return folder / name


def purity(run: Run, set_path: Path) -> Scores:
    """How clean the tracklets were that a run was given, and those that it trained on.

    Returns:
        `n_given`, `n_tracklets`; `impure_given`, `impure`, shares of the crops of a known person that lie in
        a tracklet of which more crops show another; `dropped`, share of the crops that isolation left out,
        and `aside`, of those that the method did not learn from besides; `r_FM`, `r_SW` of the tracklets
        trained on. Where the method joins tracklets by a graph, of its last round: `linked`, `transitivity`,
        `link_precision`, `link_recall`; and `links`, the latter two of all.
    """
    from tracklearn.core import noise
    from tracklearn.store.sets.tracklets import open_set, read_truth

    opened = open_set(set_path)
    truth, given, parts = read_truth(set_path), opened.tracklets, isolated(run, opened)
    found: Scores = {"n_given": len(given), "n_tracklets": len(parts)}
    for name, tracklets in (("impure_given", given), ("impure", parts)):
        impure = noise.impure_fraction(tracklets.tracklet, truth.pid[tracklets.crop])
        found[name] = 0.0 if np.isnan(impure) else impure
    rates = noise.measure(parts.tracklet, truth.pid[parts.crop], parts.camid[parts.tracklet], min_run=1)
    left = isolated(run, opened, aside=True).n_crops
    n = max(given.n_crops, 1)
    found |= {"dropped": 1 - left / n, "aside": (left - parts.n_crops) / n}
    found |= {"r_FM": rates.r_FM, "r_SW": rates.r_SW}
    if links := link_rates(run.kept(), parts, truth):
        last, record = links[-1], run.rounds[-1]["record"]  # two cameras have no path over three
        found |= {"link_precision": last["precision"], "link_recall": last["recall"], "links": links}
        found |= {name: record[name] for name in ("linked", "transitivity") if name in record}
    return found
