"""The Python interface: the pipeline's verbs with the arguments a script would give."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tracklearn.app.pipeline import run as pipeline
from tracklearn.app.pipeline import training
from tracklearn.app.pipeline.plan import TrainPlan, plan_training
from tracklearn.learn.methods.named import method_of
from tracklearn.types import Progress, Refusal

if TYPE_CHECKING:
    from tracklearn.learn.network import Config as NetworkConfig
    from tracklearn.learn.train import Round
    from tracklearn.store.film.clocks import Start
    from tracklearn.store.film.connection import Live
    from tracklearn.store.ingest.ingest import Config as IngestConfig
    from tracklearn.store.runs import Run


def train(
    tracklets: str | Path | Sequence[str | Path],
    config: BaseModel | None = None,
    *,
    out: str | Path,
    network: NetworkConfig | None = None,
    source: str | Path | None = None,
    weights: str = "imagenet",
    preset: str | None = None,
    device: str | None = None,
    seed: int = 0,
    settings: Sequence[str] = (),
    resume: bool = False,
    workers: int | None = None,
    on: str | None = None,
    progress: Progress | None = None,
) -> Iterator[Round]:
    """Train without labels: an iterator of rounds (epochs), each when it ends; the run is written to `out`.

    What is asked for is checked at the call; training goes on while the iterator is asked for more, so that a
    loop may look at every round, or stop. `fit` is the whole in one call.

    Args:
        tracklets: path of a tracklet set, or of several that are learned from as one.
        config: settings of a method, for example `tracklearn.tmc.Config(epochs=10)`; which method runs
            follows from it (`uga`, `mmt`, `msplr` and `cap` likewise, a subclass of one, or the settings of a
            method that `tracklearn.register` made known). The preset's TMC settings, changed by `settings`,
            when None. The class's own defaults are the paper's, for its crop size and GPUs.
        out: run folder to write.
        network: backbone and input size; the preset's when None.
        source: labelled tracklet set that MSPLR learns from first, its truth beside it.
        weights: "imagenet", "osnet_x0_25" or "osnet_x1_0" (downloaded once), a file, a finished run to go on
            from, whose network and crop size are taken unless `network` or `settings` say otherwise, or
            "none".
        preset: "cpu", "gpu" or "paper"; by the device when None.
        device: "cpu", "cuda", or the best there is when None.
        seed: decides every random choice.
        settings: "section.key=value" texts over the preset, for example ["tmc.epochs=10"]; with a `config`
            those of other sections.
        resume: go on with the run in `out`.
        workers, on: who looks at all crops before the first epoch, as for `ingest`; this process alone where
            neither is given. What is learned is the same.
        progress: called as progress(what, done, total).

    Raises:
        FileExistsError: `out` exists and `resume` is off.
        FileNotFoundError: no such set or weights.
        ValueError: settings, weights or the set are unusable; while training: as `learn.train.train`.

    Warns:
        UserWarning: the starting weights were trained with somebody's labels.
    """
    from tracklearn.store.sets.joined import open_sets
    from tracklearn.store.workers.chosen import engine_of

    method = "tmc" if config is None else method_of(config)
    engine_of(on, workers)  # asked now whether there is such a one
    open_sets(tracklets)
    if config is not None and (both := [s for s in settings if s.strip().startswith(f"{method}.")]):
        raise Refusal(f"{both[0]!r} and a config of {method} say the same: give the one or the other")
    plan = plan_training(
        tracklets,
        method=method,
        config=config,
        network=network,
        source=source,
        weights=weights,
        preset=preset,
        device=device,
        seed=seed,
        overrides=settings,
        progress=progress,
    )
    if Path(out).exists() and not resume:
        raise FileExistsError(f"{out} exists: go on with resume=True, or choose another folder")
    _warn(plan)
    return training.train(plan, out, resume=resume, workers=workers, on=on, progress=progress)


def fit(
    tracklets: str | Path | Sequence[str | Path],
    config: BaseModel | None = None,
    *,
    out: str | Path,
    **options: Any,
) -> Run:
    """Train to the end and return the run.

    Args:
        tracklets, config, out, options: as for `train`.

    Raises:
        FileExistsError, FileNotFoundError, ValueError: as `train`.
    """
    from tracklearn.store.runs import Run

    for _ in train(tracklets, config, out=out, **options):
        pass
    return Run(out)


def run(
    sources: Sequence[Any],
    *,
    out: str | Path,
    config: BaseModel | None = None,
    ingest: IngestConfig | None = None,
    weights: str = "imagenet",
    preset: str | None = None,
    device: str | None = None,
    seed: int = 0,
    resume: bool = False,
    strict: bool = False,
    workers: int | None = None,
    on: str | None = None,
    live: Live | None = None,
    start: Start | None = None,
    progress: Progress | None = None,
    on_round: Callable[[Round], None] | None = None,
) -> dict[str, Any]:
    """Ingest, train, index and report in one; see `train` for the arguments, `store.ingest` for `strict`,
    `workers`, `on`, `live` and `start`.

    Returns:
        Paths of `set`, `run` and `report`, and `seconds` per stage.
    """
    from tracklearn.store.ingest.ingest import Config

    method = "tmc" if config is None else method_of(config)

    def plan(set_path: Path) -> TrainPlan:
        planned = plan_training(
            set_path,
            method=method,
            config=config,
            weights=weights,
            preset=preset,
            device=device,
            seed=seed,
            progress=progress,
        )
        _warn(planned)
        return planned

    return pipeline.run(
        sources,
        out,
        ingest_config=ingest or Config(),
        plan=plan,
        resume=resume,
        strict=strict,
        workers=workers,
        on=on,
        live=live,
        start=start,
        progress=progress,
        on_round=on_round,
    )


def _warn(plan: TrainPlan) -> None:
    """Tell a script what the command line says of the starting weights."""
    for notice in plan.notices:
        warnings.warn(notice, stacklevel=3)
