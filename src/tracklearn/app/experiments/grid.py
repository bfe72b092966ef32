"""A grid of data × noise × variants × seeds, read from TOML and checked before anything is run.

title = "Isolation on clean and noisy MARS"
data = ["mars"]                                   # names of `tracklearn datasets`, or tables: `Data`
# data = [{ name = "market1501", persons = 300, test_persons = 150, seed = 0 }]   # some of the persons
noise = ["clean", "MARS_2.5_1.5", { fragmentation = 2.0, switch = 1.3 }]
seeds = [0, 1, 2]
method = "tmc"                                    # or "none": weights as they come, nothing is learned
preset = "paper"
metrics = ["mAP", "rank1"]                        # columns of the table: `metrics.METRICS`
[settings.tmc]                                    # sections as in a settings file, for all cells
epochs = 40
[noise_settings."MARS_2.5_1.5".tmc]               # over those, at one level of noise
eps_intra = 0.6
[variant."without isolation".settings.tmc]        # over those, in one variant
isolate = false
[[published]]                                     # stands beside what is measured
noise = "MARS_2.5_1.5"
variant = "without isolation"
mAP = 0.118
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tracklearn.app.formats import slug
from tracklearn.app.noise.simulate import Level, level
from tracklearn.app.pipeline import plan
from tracklearn.app.pipeline.presets import PRESETS
from tracklearn.learn.methods.named import names, takes_source
from tracklearn.store import benchmarks
from tracklearn.store import config as settings_store
from tracklearn.types import Refusal

CLEAN = "clean"
WORLD = "world"
AS_THEY_ARE = "none"  # the method that learns nothing: weights are judged as they come

Settings = dict[str, dict[str, Any]]
Share = Annotated[float | None, Field(ge=0, le=1)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(_Table):
    """What is trained and judged on.

    Args:
        name: of a benchmark, or "world" for the generated one.
        seed: of the generated world, or of the draw of a benchmark's persons.
        protocol: of the benchmark; its default when left out. A benchmark with splits takes, for seed s,
            split s modulo their number.
        persons, test_persons: so many of a benchmark's training and test persons, drawn with `seed`, instead
            of all; see `benchmarks.draw`.
        singles: every training image of the benchmark is a tracklet of its own.
        source: labelled set to start from, for methods that adapt from one: a benchmark, or "world" for
            another generated world than the one of `seed`, see `demo.source_world`.
    """

    name: str
    seed: Annotated[int, Field(ge=0)] = 0
    protocol: str | None = None
    persons: Annotated[int | None, Field(ge=1)] = None
    test_persons: Annotated[int | None, Field(ge=1)] = None
    singles: bool = False
    source: str | None = None

    @model_validator(mode="after")
    def _known(self) -> Data:
        is_world = benchmarks.find(self.name).name == WORLD
        if self.source is not None:
            benchmarks.find(self.source)
        if self.protocol is not None and is_world:
            raise Refusal(f"protocol {self.protocol!r}: the generated world has none to choose")
        if (self.persons is None) != (self.test_persons is None):
            raise Refusal("persons and test_persons belong together: give both, or neither")
        if self.singles and is_world:
            raise Refusal("singles: the generated world has tracklets, only a benchmark's images stand alone")
        if self.subset is not None and is_world:
            raise Refusal("persons: only of a benchmark some can be drawn, the generated world is small")
        if self.seed and not is_world and self.subset is None:
            raise Refusal(
                f"seed {self.seed}: only the generated world has a seed, and persons that are drawn; all of "
                f"{self.name} has none"
            )
        return self

    @property
    def subset(self) -> benchmarks.Subset | None:
        """The persons to draw, None for all."""
        if self.persons is None or self.test_persons is None:
            return None
        return benchmarks.Subset(self.persons, self.test_persons, self.seed)

    @property
    def label(self) -> str:
        """How the table and the grid call it."""
        some = f" ({self.subset.label})" if self.subset else ""
        return f"{self.source} → {self.name}{some}" if self.source else f"{self.name}{some}"


class Noise(_Table):
    """Rates of a level of noise that has no name."""

    fragmentation: float
    switch: float

    @property
    def label(self) -> str:
        """How the table and the grid call it, as the named levels are called: 2.5_1.5."""
        return f"{self.fragmentation:g}_{self.switch:g}"


class Variant(_Table):
    """One way to train: what it changes of the grid's own method, weights and settings.

    With `rerank`, what it is judged by is re-ranked (benchmarks alone).
    """

    method: str | None = None
    rerank: bool = False
    weights: str | None = None
    settings: Settings = {}


class Numbers(_Table):
    """Figures as printed in a paper, fractions 0-1."""

    mAP: Share = None
    rank1: Share = None
    rank5: Share = None
    rank10: Share = None
    rank20: Share = None
    n_tracklets: Annotated[int | None, Field(ge=0)] = None
    impure: Share = None

    @property
    def values(self) -> dict[str, float]:
        """Those that are given."""
        return {name: v for name in Numbers.model_fields if (v := getattr(self, name)) is not None}


class Published(Numbers):
    """Figures that belong to every cell with these labels; a label left out fits all."""

    data: str | None = None
    noise: str | None = None
    variant: str | None = None


class Beside(Numbers):
    """Figures of another method, in a row of its own."""

    name: str
    data: str | None = None


class Grid(_Table):
    """An experiment; see the module for the file's form.

    Args:
        title: heading of the table.
        note: what its reader must know.
        data, noise, variant, seeds: the axes.
        axis: heading of the variants.
        method, weights, preset, settings, noise_settings: of the training.
        weight_files: names of weights whose files must be given, and what each is.
        metrics: columns, names of `metrics.METRICS`.
        published_on: what the published figures were measured on, where it is something else.
        published, beside: figures from papers.
    """

    title: str
    note: str = ""
    data: tuple[Data, ...] = Field(min_length=1)
    noise: tuple[str | Noise, ...] = Field((CLEAN,), min_length=1)
    variant: dict[str, Variant] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    axis: str = "variant"
    method: str = "tmc"
    weights: str = "imagenet"
    preset: str = "paper"
    settings: Settings = {}
    noise_settings: dict[str, Settings] = {}
    weight_files: dict[str, str] = {}
    metrics: tuple[str, ...] = ("mAP", "rank1")
    published_on: str = ""
    published: tuple[Published, ...] = ()
    beside: tuple[Beside, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _names_as_tables(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A name alone stands for the data set of that name."""
        if isinstance(values.get("data"), list):
            data = [{"name": entry} if isinstance(entry, str) else entry for entry in values["data"]]
            values = {**values, "data": data}
        return values

    @model_validator(mode="after")
    def _fit_together(self) -> Grid:
        from tracklearn.app.experiments.metrics import METRICS

        if self.preset not in PRESETS:
            raise Refusal(f"preset {self.preset!r} is unknown: choose one of {', '.join(PRESETS)}")
        for name in self.metrics:
            _known(name, METRICS, "metric")
        labels: dict[str, list[str]] = {axis: [] for axis in ("data", "noise", "variant")}
        labels["data"] = [data.label for data in self.data]
        labels["noise"] = [level_label(entry) for entry in self.noise]
        labels["variant"] = list(self.variant)
        for axis, found in labels.items():
            folders = [slug(label) for label in found]
            if len(set(folders)) < len(folders):
                raise Refusal(f"{axis} has two names that make one folder: {', '.join(found)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise Refusal(f"seeds are {list(self.seeds)}: name each once")
        for entry in self.noise:
            asked(entry)
        for label in self.noise_settings:
            _known(label, labels["noise"], "noise_settings: noise")
        for figures in self.published:
            for axis, found in labels.items():
                if (label := getattr(figures, axis)) is not None:
                    _known(label, found, f"published: {axis}")
        for other in self.beside:
            if other.data is not None:
                _known(other.data, labels["data"], "beside: data")
        for cell in self.cells():
            if cell.method in (*names(), AS_THEY_ARE):
                cell.check_settings()
        return self

    def cells(self) -> Iterator[Cell]:
        """Every combination, in the order of the axes; seeds last."""
        for data in self.data:
            for noise in self.noise:
                for name in self.variant:
                    for seed in self.seeds:
                        yield Cell(self, data, noise, name, seed)

    def published_for(self, data: str, noise: str, variant: str) -> dict[str, float]:
        """The published figures of a row, by metric."""
        found: dict[str, float] = {}
        for figures in self.published:
            if all(
                wanted in (None, label)
                for wanted, label in (
                    (figures.data, data),
                    (figures.noise, noise),
                    (figures.variant, variant),
                )
            ):
                found |= figures.values
        return found

    @property
    def needs(self) -> tuple[str, ...]:
        """Benchmarks whose folders must be given, by name."""
        names = [name for data in self.data for name in (data.source, data.name) if name]
        plain = (benchmarks.find(name).name for name in names)
        return tuple(dict.fromkeys(name for name in plain if name != WORLD))


@dataclass(frozen=True)
class Cell:
    """One training: a place in the grid."""

    grid: Grid
    data: Data
    noise: str | Noise
    variant: str
    seed: int

    @property
    def row(self) -> tuple[str, str, str]:
        """Labels of data, noise and variant: cells that differ in nothing but the seed share a row."""
        return self.data.label, level_label(self.noise), self.variant

    @property
    def name(self) -> str:
        """Its folder."""
        return "-".join([*(slug(label) for label in self.row), f"seed{self.seed}"])

    @property
    def level(self) -> Level | None:
        """The noise to simulate, None for clean data."""
        return asked(self.noise)

    @property
    def split(self) -> int | None:
        """Split of the data set, None where it has none."""
        n = benchmarks.find(self.data.name).n_splits
        return self.seed % n if n > 1 else None

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.grid.variant[self.variant].method or self.grid.method

    @property
    def weights(self) -> str:
        """Starting weights, as `plan_training` takes them."""
        return self.grid.variant[self.variant].weights or self.grid.weights

    @property
    def rerank(self) -> bool:
        """Whether what it is judged by is re-ranked."""
        return self.grid.variant[self.variant].rerank

    @cached_property
    def settings(self) -> Settings:
        """What is laid over the preset."""
        grid = self.grid
        found = settings_store.merge(grid.settings, grid.noise_settings.get(level_label(self.noise), {}))
        return settings_store.merge(found, grid.variant[self.variant].settings)

    def check_settings(self) -> None:
        """Raises ValueError for an unknown section or key, or a value out of range."""
        models = plan.setting_models()
        for section in self.settings:
            _known(section, models, "settings: section")
        settings_store.resolve(models, preset=settings_store.merge(PRESETS[self.grid.preset], self.settings))

    @property
    def lacks(self) -> str:
        """Why this program cannot run it, "" where it can."""
        if self.method == AS_THEY_ARE:
            trained = benchmarks.find(self.data.name).name == WORLD or self.level is not None
            return f"method {AS_THEY_ARE!r} learns nothing: give it a benchmark, clean" if trained else ""
        if self.method not in names():
            known = ", ".join([*names(), AS_THEY_ARE])
            return f"method {self.method!r} is not there yet: this program has {known}"
        if self.data.source is not None and not takes_source(self.method):
            return f"method {self.method!r} does not learn from a labelled source set ({self.data.source})"
        return ""


def asked(noise: str | Noise) -> Level | None:
    """The rates of an entry of the axis of noise, None for clean data.

    Raises:
        ValueError: no such level.
    """
    if noise == CLEAN:
        return None
    if isinstance(noise, Noise):
        return level(fragmentation=noise.fragmentation, switch=noise.switch)
    try:
        return level(preset=noise)
    except ValueError:
        from tracklearn.core.simulate import PRESETS as LEVELS

        _known(noise, [CLEAN, *LEVELS], "noise")
        raise


def level_label(noise: str | Noise) -> str:
    """How an entry of the axis of noise is called."""
    return noise if isinstance(noise, str) else noise.label


def _known(name: str, known: Any, what: str) -> None:
    if name not in known:
        raise Refusal(f"{what} {name!r} is unknown{settings_store.nearest(name, list(known))}")
