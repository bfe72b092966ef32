"""The options of training, which `train` and `run` share: told once, handed over as one value."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from tracklearn.app.commands.options import (
    Backbone,
    ConfigFile,
    Device,
    Isolate,
    LabelledSource,
    PresetName,
    Seed,
    Settings,
    Weights,
    overridden,
)
from tracklearn.types import Progress

if TYPE_CHECKING:
    from tracklearn.app.pipeline.plan import TrainPlan

MethodName = Annotated[str, typer.Option("--method", help="tmc, mmt, uga, msplr or cap.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only say what would run, how long and in how much memory.")
]


@dataclass(frozen=True)
class Training:
    """How to train: one field for each option, with its default."""

    method: MethodName = "tmc"
    source: LabelledSource = None
    isolate: Isolate = None
    weights: Weights = "imagenet"
    backbone: Backbone = None
    preset: PresetName = None
    device: Device = "auto"
    seed: Seed = 0
    config: ConfigFile = None
    settings: Settings = None
    dry_run: DryRun = False

    def overrides(self, **named: tuple[str, Any]) -> list[str]:
        """--set values with the options that are settings behind them, and `named` as in `overridden`."""
        return overridden(
            self.settings,
            backbone=("network.backbone", self.backbone),
            isolate=(f"{self.method}.isolate", self.isolate),
            **named,
        )

    def plan(self, sets: Path | list[Path], overrides: list[str], *, progress: Progress) -> TrainPlan:
        """The plan of a training on that set, or on those."""
        from tracklearn.app.pipeline.plan import plan_training

        return plan_training(
            sets,
            method=self.method,
            source=self.source,
            weights=self.weights,
            preset=self.preset,
            device=self.device,
            seed=self.seed,
            config_file=self.config,
            overrides=overrides,
            progress=progress,
        )


def with_training(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Training` in the place of its parameter `training`, which gets them.

    typer reads a command's signature: the options must stand in it one by one.
    """
    own = inspect.signature(command).parameters
    hints = get_type_hints(command, include_extras=True)
    theirs = get_type_hints(Training, include_extras=True)
    parameters, kinds = [], {}
    for name, parameter in own.items():
        if name != "training":
            parameters.append(parameter.replace(annotation=hints[name]))
            kinds[name] = hints[name]
            continue
        for field in fields(Training):
            kinds[field.name] = theirs[field.name]
            parameters.append(
                inspect.Parameter(
                    field.name, parameter.kind, default=field.default, annotation=theirs[field.name]
                )
            )

    @functools.wraps(command)
    def called(**given: Any) -> None:
        chosen = Training(**{field.name: given.pop(field.name) for field in fields(Training)})
        command(**given, training=chosen)

    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = kinds
    del called.__wrapped__
    return called
