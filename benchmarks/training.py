"""Training: what the loop costs around the bare network.

    python -m benchmarks.training [--device D] [--quick] [--networks N ...] [--rigs R] [--steps S] [--out DIR]

In one run, a step of each kind in turn, for every network:

- the bare step: student forward and backward and teacher forward, with the same grouped batch norm, on one
  batch that is augmented and in place, towards a loss that is a weighted sum of the features;
- the fed step: the bare one while the pictures of the next batches are read as in training;
- the whole step of `learn.fit.Fit`, as `train` runs it: reading, augmentation, losses, backward, Adam, the
  teacher's average and the books. Overhead is whole / bare − 1 of the lower quartiles of the steps: what
  else the machine does only ever adds to a step, and to some more than to others. Networks are made
  several times, and the quartiles averaged: where they lie in memory is worth a percent;
- Adam and the teacher's average alone, which are part of the whole;
- the share of the whole step in which the loop waits for pictures;
- extraction by `embed.extract` beside a forward pass of batches in place.

Pictures come from memory; from a stored set whose decoded crops are in the cache, as they are in training
after the first extraction, as long as the memory holds them; and from the same set with the cache switched
off, where every crop is decoded and resized every time. On a CPU the threads that decode take their time
from the network's, whatever the loop does: there the loop is held against the fed step.

On CPU: tiny, mobilenet_v2 and osnet_x0_25 with 128×64 crops and the preset `cpu`. On CUDA: resnet50 with
256×128 crops, 64 tracklets × 4 frames, in float32 and bfloat16, compiled and not. Prints the tables and
writes training.json to DIR (benchmarks/results; with --quick only where --out is given).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import measure
from benchmarks.training_material import (
    CLUSTERS,
    FRAMES,
    PER_CLUSTER,
    STORED,
    make_pictures,
    make_tracklets,
    write_set,
)
from tracklearn.app.pipeline.presets import PRESETS
from tracklearn.learn import augment, backbone, deterministic, embed, network, sample, teacher
from tracklearn.learn.compute import PRECISIONS
from tracklearn.learn.fit import Fit, Pairs
from tracklearn.learn.method import Assignment
from tracklearn.learn.methods import tmc
from tracklearn.store.sets.tracklets import open_set
from tracklearn.types import ArrayCrops, Crops, PseudoLabels

Array = NDArray[Any]

SOURCES = ("memory", "stored", "decoded")
STEPS = ("bare", "fed", "whole")
OVERHEAD, WAITING, SPEED = 0.05, 0.05, 0.90  # the bars
EXTRACTED = 256  # crops in a batch of extraction
PLANNED = 64  # batches drawn, of which every block takes the first
AHEAD = 2  # batches read ahead


class Case(NamedTuple):
    """One network on one device; `preset` gives the batch."""

    backbone: network.Name
    height: int
    width: int
    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    preset: str = "cpu"

    @property
    def name(self) -> str:
        """For tables."""
        return " ".join([self.backbone, self.precision, *(["compiled"] if self.compile else [])])


def cases(device: str) -> list[Case]:
    """What is measured on a device."""
    if not device.startswith("cuda"):
        networks: tuple[network.Name, ...] = ("tiny", "mobilenet_v2", "osnet_x0_25")
        return [Case(name, 128, 64, device) for name in networks]
    return [
        Case("resnet50", 256, 128, device, precision, compiled, "paper")
        for precision in ("float32", "bfloat16")
        for compiled in (False, True)
    ]


def open_crops(source: str, case: Case, stored: Path, seed: int) -> Crops:
    """The pictures of one of `SOURCES`."""
    if source == "memory":
        return ArrayCrops(make_pictures(make_tracklets().n_crops, case.height, case.width, seed))
    if source == "decoded":
        return open_set(stored).crops(case.height, case.width, cache_bytes=0)
    crops = open_set(stored).crops(case.height, case.width)
    crops.read(np.arange(len(crops)))
    return crops


def _quartile(seconds: Sequence[float]) -> float:
    return float(np.quantile(seconds, 0.25))


class Rig:
    """One pair of networks, and the bare and the whole step on it."""

    def __init__(self, case: Case, crops: Crops, seed: int) -> None:
        self.case, self.crops = case, crops
        self.device = torch.device(case.device)
        config = network.Config(backbone=case.backbone, height=case.height, width=case.width)
        student = backbone.build(config, seed=seed).to(self.device)
        pairs = Pairs([student], [teacher.teacher_of(student)], self.device)
        pairs.precision = PRECISIONS[case.precision]
        if case.compile:
            for _, each in pairs.named():
                each.compile()
        settings = PRESETS[case.preset].get("tmc", {}) | {"iterations": 1}
        stage = tmc.method(tmc.Config(**settings)).stages[0]
        tracklets = make_tracklets()
        rng = np.random.default_rng(seed)
        features = rng.standard_normal((len(tracklets), student.feature_dim), dtype=np.float32)
        labels = PseudoLabels.of(np.arange(len(tracklets)) // PER_CLUSTER)
        self.student, self.teacher = student, pairs.teachers[0]
        self.fit = Fit(stage, Assignment(labels), float("nan"), tracklets, features, pairs)
        self.fit.plan = stage.sample(tracklets, labels, PLANNED, rng)
        self.generator = torch.Generator().manual_seed(seed)
        self.autocast = partial(
            torch.autocast,
            self.device.type,
            dtype=pairs.precision,
            enabled=pairs.precision != torch.float32,
        )
        rows = tracklets.crop[self.fit.plan.row[0].ravel()]
        images = torch.from_numpy(crops.read(rows)).to(self.device)
        drawn = augment.draw(len(rows), case.height, case.width, stage.augment, self.generator)
        self.pixels = augment.apply(images, drawn, normalise=student.normalise)
        self.constant = torch.randn(student.feature_dim, generator=self.generator).to(self.device)
        # As in training an extraction comes first: what it sets up for the process serves every step.
        embed.extract(self.teacher, crops, rows[:2], device=self.device)
        with closing(self.whole()) as running:
            next(running)  # sets the batch-norm groups too, and compiles

    @property
    def n_images(self) -> int:
        """In a batch."""
        return len(self.pixels)

    def bare(self) -> Generator[object]:
        """Bare steps, one each time."""
        while True:
            self._bare()
            yield None

    def fed(self) -> Generator[object]:
        """The same while pictures are read as `whole` reads them, which are then left alone."""
        assert self.fit.plan is not None
        rows = (self.fit.tracklets.crop[row.ravel()] for row in self.fit.plan.row)
        with closing(sample.ahead(self.crops, rows, depth=AHEAD, pin=self.device.type == "cuda")) as reading:
            for images in reading:
                images.to(self.device, non_blocking=True)
                self._bare()
                yield None

    def whole(self) -> Generator[object]:
        """Steps of the loop, as many as are planned; the first waits for its pictures."""
        self.fit.iteration = 0
        running = self.fit.batches(
            self.crops, self.generator, ahead=AHEAD, progress=lambda what, done, total: None
        )
        with closing(cast("Any", running)):
            yield from running

    def _bare(self) -> None:
        with self.autocast():
            feature = self.student(self.pixels)
            post = self.student.neck(feature)
            with torch.no_grad():
                self.teacher.neck(self.teacher(self.pixels))
        ((feature + post).float() * self.constant).sum().backward()
        self.student.zero_grad(set_to_none=True)

    def parts(self, n: int) -> dict[str, float]:
        """Lower quartiles of the seconds of the optimiser's step and of the teacher's average."""
        parameters = [p for group in self.fit.optimisers[0].param_groups for p in group["params"]]
        gradients = [torch.zeros_like(p) for p in parameters]

        def optimise() -> None:
            for p, gradient in zip(parameters, gradients, strict=True):
                p.grad = gradient
            for optimiser in self.fit.optimisers:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)

        mean = cast("teacher.Average", self.fit.average)  # TMC has teachers

        def average() -> None:
            mean.update(step=1_000)

        return {
            "optimiser_s": _quartile([self.timed(optimise) for _ in range(n)]),
            "teacher_s": _quartile([self.timed(average) for _ in range(n)]),
        }

    def extraction(self, repeats: int, batches: int) -> dict[str, float]:
        """Images per second of `embed.extract`, and of a forward pass of batches that are in place."""
        rows = np.resize(np.arange(len(self.crops)), batches * EXTRACTED)
        pixels = self.student.normalise(torch.from_numpy(self.crops.read(rows[:EXTRACTED])).to(self.device))

        def forward() -> None:
            self.teacher.eval()
            with torch.inference_mode(), self.autocast():
                for _ in range(batches):
                    self.teacher.neck(self.teacher(pixels))
            self._wait()

        extract = partial(
            embed.extract,
            self.teacher,
            self.crops,
            rows,
            device=self.device,
            batch=EXTRACTED,
            dtype=PRECISIONS[self.case.precision],
        )
        timing = measure.alternate({"forward": forward, "extract": extract}, repeats)
        return {
            "forward_images_per_s": len(rows) / timing["forward"].median(),
            "extract_images_per_s": len(rows) / timing["extract"].median(),
            "extract_share": 1 / measure.ratio(timing["extract"], timing["forward"]),
        }

    def timed(self, step: Callable[[], object], n: int = 1) -> float:
        """Mean wall seconds of n steps; the device is waited for before and after."""
        self._wait()
        began = time.perf_counter()
        for _ in range(n):
            step()
        self._wait()
        return (time.perf_counter() - began) / n

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def measure_steps(make: Callable[[], Rig], *, rigs: int, steps: int) -> dict[str, Any]:
    """A bare, a fed and a whole step in turns, every second time in reverse, on several rigs."""
    wall: dict[str, list[list[float]]] = {name: [] for name in STEPS}
    cpu = dict.fromkeys(STEPS, 0.0)
    waited, parts = 0.0, []
    for _ in range(rigs):
        rig = make()
        # A device that works on its own is waited for once in several steps, a CPU after every one.
        per_reading = min(steps, 10) if rig.device.type == "cuda" else 1
        with ExitStack() as stack, deterministic.algorithms(rig.device):
            running = {name: stack.enter_context(closing(getattr(rig, name)())) for name in STEPS}
            for each in (*running.values(), *running.values()):  # the first whole step waits for its pictures
                next(each)
            before = rig.fit.waited
            for name in STEPS:
                wall[name].append([])
            for i in range(steps // per_reading):
                for name in STEPS[:: -1 if i % 2 else 1]:
                    began = time.process_time()
                    wall[name][-1].append(rig.timed(partial(next, running[name]), per_reading))
                    cpu[name] += time.process_time() - began
            waited += rig.fit.waited - before
            parts.append(rig.parts(steps))
    done = rigs * (steps // per_reading) * per_reading
    out: dict[str, Any] = {}
    for name, of_rigs in wall.items():
        quartiles = [_quartile(seconds) for seconds in of_rigs]
        out[name] = {
            "wall_s": float(np.mean(quartiles)),
            "wall_rigs": quartiles,
            "wall_median_s": float(np.median(np.concatenate(of_rigs))),
            "cpu_s": cpu[name] / done,
        }
    out |= {key: float(np.median([part[key] for part in parts])) for key in parts[0]}
    for name in STEPS:
        out[name]["images_per_s"] = rig.n_images / out[name]["wall_s"]
    overhead = out["whole"]["wall_s"] / out["bare"]["wall_s"] - 1
    return out | {
        "n_images": rig.n_images,
        "overhead": overhead,
        "overhead_fed": out["whole"]["wall_s"] / out["fed"]["wall_s"] - 1,
        "overhead_cpu": out["whole"]["cpu_s"] / out["bare"]["cpu_s"] - 1,
        "speed": 1 / (1 + overhead),
        "waiting": waited / done / float(np.mean(np.concatenate(wall["whole"]))),
    }


def prepare(case: Case, which: str, seed: int) -> tuple[Rig, str]:
    """Input of `several` for `measure.peak_memory`: what a first step loads is in place."""
    rig = Rig(case, open_crops("memory", case, Path(), seed), seed)
    next(rig.bare())
    return rig, which


def several(given: tuple[Rig, str]) -> None:
    """A few steps, bare or whole."""
    rig, which = given
    with closing(getattr(rig, which)()) as running:
        for _ in range(4):
            next(running)


def memory(case: Case, seed: int) -> dict[str, int]:
    """Peak bytes of the bare and of the whole step above the networks at rest, gradients and Adam's included.

    On CPU resident memory of fresh processes, on CUDA what torch allocates.
    """
    out = {}
    for which in ("bare", "whole"):
        if case.device.startswith("cuda"):
            rig, _ = prepare(case, which, seed)
            before = torch.cuda.memory_allocated(rig.device)
            torch.cuda.reset_peak_memory_stats(rig.device)
            several((rig, which))
            out[f"{which}_memory_bytes"] = torch.cuda.max_memory_allocated(rig.device) - before
        else:
            out[f"{which}_memory_bytes"] = measure.peak_memory(prepare, several, case, which, seed).above
    return out


def measure_case(
    case: Case, stored: Path, *, rigs: int, steps: int, weigh: bool = True, seed: int = 0
) -> dict[str, Any]:
    """Everything about one network, by source of the pictures; `weigh` measures memory too."""

    def make() -> Rig:
        return Rig(case, open_crops(source, case, stored, seed), seed)

    out: dict[str, Any] = {"case": case._asdict(), "sources": {}}
    for source in SOURCES:
        print(f"{case.name}, {source} ...", file=sys.stderr, flush=True)
        out["sources"][source] = measure_steps(make, rigs=rigs, steps=steps) | make().extraction(
            rigs, min(rigs, 2)
        )
    return out | (memory(case, seed) if weigh else {})


def _lines(results: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for name, result in results.items():
        for source, found in result["sources"].items():
            yield name, source, found


def bars(results: Mapping[str, Mapping[str, Any]]) -> list[measure.Bar]:
    """What was promised, beside what was measured.

    With the cache switched off the loop must be as light around the network and its reading; what decoding
    every picture every time takes is the price of that choice, which the table shows.
    """
    out = []
    for name, source, found in _lines(results):
        where = f"{name}, {source}"
        if source == "decoded":
            out.append(
                measure.Bar(f"{where}: overhead over fed (%)", 100 * OVERHEAD, 100 * found["overhead_fed"])
            )
        else:
            out += [
                measure.Bar(f"{where}: overhead (%)", 100 * OVERHEAD, 100 * found["overhead"]),
                measure.Bar(
                    f"{where}: images/s of bare (%)", 100 * SPEED, 100 * found["speed"], at_least=True
                ),
            ]
        out.append(measure.Bar(f"{where}: waiting for pictures (%)", 100 * WAITING, 100 * found["waiting"]))
    return out


def step_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Milliseconds, percent and images per second of every step."""
    header = (
        "network", "pictures", "bare ms", "fed ms", "whole ms", "overhead %", "over fed %", "CPU %",
        "Adam ms", "teacher ms", "waiting %", "bare img/s", "whole img/s",
    )  # fmt: skip
    rows = [
        (
            name, source, *(1e3 * at[step]["wall_s"] for step in STEPS),
            *(100 * at[key] for key in ("overhead", "overhead_fed", "overhead_cpu")),
            1e3 * at["optimiser_s"], 1e3 * at["teacher_s"], 100 * at["waiting"],
            at["bare"]["images_per_s"], at["whole"]["images_per_s"],
        )
        for name, source, at in _lines(results)
    ]  # fmt: skip
    return measure.table(header, rows)


def other_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Extraction, and memory where it was weighed."""
    rows = [
        (
            name,
            source,
            at["forward_images_per_s"],
            at["extract_images_per_s"],
            100 * at["extract_share"],
            *(
                results[name][f"{which}_memory_bytes"] / 1e6
                if source == "memory" and f"{which}_memory_bytes" in results[name]
                else None
                for which in ("bare", "whole")
            ),
        )
        for name, source, at in _lines(results)
    ]
    header = ("network", "pictures", "forward img/s", "extract img/s", "of forward %", "bare MB", "whole MB")
    return measure.table(header, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (cpu)")
    parser.add_argument("--quick", action="store_true", help="two steps of each, without memory, in seconds")
    parser.add_argument("--networks", nargs="+", choices=network.NAMES, help="of those of the device")
    parser.add_argument("--rigs", type=int, help="times that the networks are made (3; --quick 1)")
    parser.add_argument("--steps", type=int, help="timed steps of each kind on each of them (30; --quick 2)")
    parser.add_argument("--out", type=Path, help="folder for training.json")
    given = parser.parse_args(arguments)
    rigs = given.rigs or (1 if given.quick else 3)
    steps = (2 if given.quick else 30) if given.steps is None else given.steps
    most = PLANNED - AHEAD - 2  # two are not timed, and reading ahead goes on to the end
    if not 1 <= steps <= most:
        parser.error(f"--steps: {steps}, expected 1 to {most}")
    wanted = [c for c in cases(given.device) if given.networks is None or c.backbone in given.networks]
    if not wanted:
        parser.error(f"--networks: {given.device} has {', '.join({c.backbone for c in cases(given.device)})}")
    folder = given.out or (None if given.quick else measure.RESULTS)

    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        stored = write_set(Path(scratch) / "set", seed=0)
        for case in wanted:
            results[case.name] = measure_case(case, stored, rigs=rigs, steps=steps, weigh=not given.quick)
    print(step_table(results))
    print(f"\n{other_table(results)}")
    promised = bars(results)
    print(f"\n{measure.bars_table(promised)}")
    if folder is not None:
        settings = {
            "rigs": rigs, "steps": steps, "seed": 0, "device": given.device,
            "stored": STORED, "threads": torch.get_num_threads(), "extracted": EXTRACTED,
            "tracklets": [CLUSTERS * PER_CLUSTER, FRAMES],
            "gpu": torch.cuda.get_device_name() if given.device.startswith("cuda") else None,
        }  # fmt: skip
        measure.save("training", {"cases": results, "bars": promised}, settings=settings, folder=folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
