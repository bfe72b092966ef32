"""A method of your own in one file: TMC's isolation and association, with another loss.

Every tracklet is pulled to the mean of its cluster and pushed from the others' means, by their cosines over a
temperature. The file says what is new; resume, processes, reports and search come with `tracklearn.train`:

    python examples/own_method.py work/tracklets --out work/own --epochs 3
    tracklearn index work/own work/tracklets

What a method is made of: `tracklearn.learn.method`. How it joins the program for good: docs/extending.md.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

import tracklearn as tl
from tracklearn.learn import losses
from tracklearn.learn.heads import classifier
from tracklearn.learn.method import Method, Target, View
from tracklearn.learn.methods import tmc
from tracklearn.learn.settings import Positive
from tracklearn.types import Array, PseudoLabels


class Config(tmc.Config):
    """TMC's settings, and one more: `prototypes.temperature`."""

    temperature: Positive = Field(default=0.05, description="Cosines are divided by it [chosen].")


class Prototypes(nn.Module):
    """(b, d) features -> (b, c) cosines with the clusters' means, over the temperature."""

    def __init__(self, features: Array, labels: PseudoLabels, temperature: float) -> None:
        super().__init__()
        self.mean = classifier(features, labels)
        self.temperature = temperature

    def forward(self, feature: Tensor) -> Tensor:
        """The logits."""
        means = functional.normalize(self.mean.weight)
        return functional.normalize(feature) @ means.T / self.temperature


def method(config: Config | None = None) -> Method:
    """The method as a value: TMC's one stage with another head and another objective."""
    config = config or Config()
    whole = tmc.method(config)
    (stage,) = whole.stages
    own = replace(
        stage,
        name="prototypes",
        head=partial(Prototypes, temperature=config.temperature),
        objective=_objective,
        weights={"contrast": 1.0},
    )
    return replace(whole, name="prototypes", stages=(own,))


def _objective(students: Sequence[View], teachers: Sequence[View], target: Target) -> dict[str, Tensor]:
    (student,) = students
    return {"contrast": losses.identity(student.logits, target.label, weight=target.weight)}


# From here on tracklearn.train finds the method by the type of its settings.
tl.register("prototypes", sys.modules[__name__])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A method of your own")
    parser.add_argument("set", help="a tracklet set, as tracklearn ingest writes it")
    parser.add_argument("--out", required=True, help="run folder to write")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=20)
    given = parser.parse_args()
    config = Config(epochs=given.epochs, iterations=given.iterations, eps_intra="auto")
    for done in tl.train(given.set, config, out=given.out, weights="none", preset="cpu"):
        print(f"epoch {done.index + 1}: {done.n_clusters} clusters, contrast {done.losses['contrast']:.3f}")
