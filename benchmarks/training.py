"""Training: what the loop costs around the bare network.

    python -m benchmarks.training [--device D] [--quick] [--networks N ...] [--blocks B] [--out DIR]

In one run, in turns, for every network:

- the bare step: student forward and backward and teacher forward, with the same grouped batch norm, on one
  batch that is augmented and in place, towards a loss that is a weighted sum of the features;
- the whole step of `learn.fit.Fit`, as `train` runs it: reading, augmentation, losses, backward, Adam, the
  teacher's average and the books. Overhead is whole / bare − 1 of the lower quartiles of all steps: what
  else the machine does only ever adds to a step, and to some more than to others;
- Adam and the teacher's average alone, which are part of the whole;
- the share of the whole step in which the loop waits for pictures;
- extraction by `embed.extract` beside a forward pass of batches in place.

Pictures come from memory; from a stored set whose crops fit the cache, as they do in small sets after the
first extraction; and from the same set without a cache, where every crop is decoded and resized every time.
On a CPU the threads that decode take their time from the network's.

On CPU: tiny and mobilenet_v2 with 128×64 crops and the preset `cpu`. On CUDA: resnet50 with 256×128 crops,
64 tracklets × 4 frames, in float32 and bfloat16, compiled and not. Prints the tables and writes
training.json to DIR (benchmarks/results; with --quick only where --out is given).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
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
from tracklearn.app.presets import PRESETS
from tracklearn.learn import augment, backbone, deterministic, embed, network, teacher
from tracklearn.learn.fit import Fit, Pairs
from tracklearn.learn.method import Assignment
from tracklearn.learn.methods import tmc
from tracklearn.learn.train import PRECISIONS
from tracklearn.store.tracklets import open_set
from tracklearn.types import ArrayCrops, Crops, PseudoLabels

Array = NDArray[Any]

SOURCES = ("memory", "stored", "decoded")
OVERHEAD, WAITING, SPEED = 0.05, 0.05, 0.90  # the bars
EXTRACTED = 256  # crops in a batch of extraction
PLANNED = 64  # batches drawn, of which every block takes the first
AHEAD = 2  # batches read ahead
QUARTILE = 0.25  # of the steps' times


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
        return [Case("tiny", 128, 64, device), Case("mobilenet_v2", 128, 64, device)]
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


class Steps(NamedTuple):
    """Seconds of steps run one after another: wall of each reading of the clock, mean CPU, mean waiting."""

    wall: tuple[float, ...]
    cpu: float
    waited: float = 0.0

    @property
    def median(self) -> float:
        """Wall seconds of the middle step."""
        return float(np.median(self.wall))

    @property
    def quartile(self) -> float:
        """Wall seconds of the lower quartile of the steps."""
        return float(np.quantile(self.wall, QUARTILE))


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
        self.whole(1)  # sets the batch-norm groups too, and compiles

    @property
    def n_images(self) -> int:
        """In a batch."""
        return len(self.pixels)

    def bare(self, n: int) -> Steps:
        """Seconds of n bare steps after one untimed one."""

        def step() -> None:
            with self.autocast():
                feature = self.student(self.pixels)
                post = self.student.neck(feature)
                with torch.no_grad():
                    self.teacher.neck(self.teacher(self.pixels))
            ((feature + post).float() * self.constant).sum().backward()
            self.student.zero_grad(set_to_none=True)

        return self._timed(step, n)

    def whole(self, n: int) -> Steps:
        """Seconds of n steps of the loop after one untimed one, which waits for its first batch.

        Raises:
            ValueError: n is so large that the last batches would leave nothing to read ahead.
        """
        if not 1 <= n < PLANNED - AHEAD:
            raise ValueError(f"steps is {n}, expected 1 to {PLANNED - AHEAD - 1}")
        self.fit.iteration = 0
        running = cast(
            "Any",
            self.fit.batches(
                self.crops, self.generator, ahead=AHEAD, progress=lambda what, done, total: None
            ),
        )
        with closing(running):
            waited = 0.0

            def step() -> None:
                nonlocal waited
                before = self.fit.waited
                next(running)
                waited += self.fit.waited - before

            step()
            waited = 0.0
            steps = self._timed(step, n, warm_up=False)
        return steps._replace(waited=waited / n)

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
            "optimiser_s": self._timed(optimise, n).quartile,
            "teacher_s": self._timed(average, n).quartile,
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

    def _timed(self, step: Callable[[], None], n: int, *, warm_up: bool = True) -> Steps:
        """A device that works on its own is waited for once, after the last step; a CPU after every one."""
        if warm_up:
            step()
        self._wait()
        per_reading = n if self.device.type == "cuda" else 1
        wall = []
        cpu, began = time.process_time(), time.perf_counter()
        for _ in range(n // per_reading):
            for _ in range(per_reading):
                step()
            self._wait()
            now = time.perf_counter()
            wall.append((now - began) / per_reading)
            began = now
        return Steps(tuple(wall), (time.process_time() - cpu) / n)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def measure_steps(rig: Rig, *, blocks: int, steps: int) -> dict[str, Any]:
    """The bare and the whole step in turns, every second pair in reverse."""
    found: dict[str, list[Steps]] = {"bare": [], "whole": []}
    parts: list[dict[str, float]] = []
    with deterministic.algorithms(rig.device):
        for i in range(blocks):
            for name in ("bare", "whole")[:: -1 if i % 2 else 1]:
                found[name].append(getattr(rig, name)(steps))
            parts.append(rig.parts(steps))
    out: dict[str, Any] = {
        name: {
            "wall_s": float(np.quantile([second for block in done for second in block.wall], QUARTILE)),
            "cpu_s": float(np.median([block.cpu for block in done])),
            "wall_runs": [block.median for block in done],
        }
        for name, done in found.items()
    }
    out |= {key: float(np.median([part[key] for part in parts])) for key in parts[0]}
    for name in ("bare", "whole"):
        out[name]["images_per_s"] = rig.n_images / out[name]["wall_s"]
    overhead = out["whole"]["wall_s"] / out["bare"]["wall_s"] - 1
    share = (out["optimiser_s"] + out["teacher_s"]) / out["bare"]["wall_s"]
    return out | {
        "n_images": rig.n_images,
        "overhead": overhead,
        "overhead_cpu": out["whole"]["cpu_s"] / out["bare"]["cpu_s"] - 1,
        "update_share": share,
        "overhead_without_update": overhead - share,
        "speed": 1 / (1 + overhead),
        "waiting": float(
            sum(block.waited * len(block.wall) for block in found["whole"])
            / sum(sum(block.wall) for block in found["whole"])
        )
        if rig.device.type == "cpu"
        else float(np.median([block.waited / block.median for block in found["whole"]])),
    }


def prepare(case: Case, which: str, seed: int) -> tuple[Rig, str]:
    """Input of `several` for `measure.peak_memory`: what a first step loads is in place."""
    rig = Rig(case, open_crops("memory", case, Path(), seed), seed)
    rig.bare(1)
    return rig, which


def several(given: tuple[Rig, str]) -> None:
    """A few steps, bare or whole."""
    rig, which = given
    getattr(rig, which)(3)


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
    case: Case, stored: Path, *, blocks: int, steps: int, weigh: bool = True, seed: int = 0
) -> dict[str, Any]:
    """Everything about one network, by source of the pictures; `weigh` measures memory too."""
    out: dict[str, Any] = {"case": case._asdict(), "sources": {}}
    for source in SOURCES:
        print(f"{case.name}, {source} ...", file=sys.stderr, flush=True)
        rig = Rig(case, open_crops(source, case, stored, seed), seed)
        out["sources"][source] = measure_steps(rig, blocks=blocks, steps=steps) | rig.extraction(
            max(1, blocks // 3), 1 if blocks == 1 else 2
        )
        del rig
    return out | (memory(case, seed) if weigh else {})


def _lines(results: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for name, result in results.items():
        for source, found in result["sources"].items():
            yield name, source, found


def bars(results: Mapping[str, Mapping[str, Any]]) -> list[measure.Bar]:
    """What was promised, beside what was measured."""
    out = []
    for name, source, found in _lines(results):
        where = f"{name}, {source}"
        out += [
            measure.Bar(f"{where}: overhead (%)", 100 * OVERHEAD, 100 * found["overhead"]),
            measure.Bar(f"{where}: images/s of bare (%)", 100 * SPEED, 100 * found["speed"], at_least=True),
            measure.Bar(f"{where}: waiting for pictures (%)", 100 * WAITING, 100 * found["waiting"]),
        ]
    return out


def step_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Milliseconds, percent and images per second of every step."""
    header = (
        "network", "pictures", "bare ms", "whole ms", "overhead %", "CPU %", "Adam ms", "teacher ms",
        "rest %", "waiting %", "bare img/s", "whole img/s",
    )  # fmt: skip
    rows = [
        (
            name, source, 1e3 * at["bare"]["wall_s"], 1e3 * at["whole"]["wall_s"], 100 * at["overhead"],
            100 * at["overhead_cpu"], 1e3 * at["optimiser_s"], 1e3 * at["teacher_s"],
            100 * at["overhead_without_update"], 100 * at["waiting"],
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
    parser.add_argument("--blocks", type=int, help="pairs of blocks of steps (9; --quick 1)")
    parser.add_argument("--steps", type=int, help="timed steps in a block (10; --quick 2)")
    parser.add_argument("--out", type=Path, help="folder for training.json")
    given = parser.parse_args(arguments)
    blocks = given.blocks or (1 if given.quick else 9)
    steps = given.steps or (2 if given.quick else 10)
    wanted = [c for c in cases(given.device) if given.networks is None or c.backbone in given.networks]
    if not wanted:
        parser.error(f"--networks: {given.device} has {', '.join({c.backbone for c in cases(given.device)})}")
    folder = given.out or (None if given.quick else measure.RESULTS)

    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        stored = write_set(Path(scratch) / "set", seed=0)
        for case in wanted:
            results[case.name] = measure_case(case, stored, blocks=blocks, steps=steps, weigh=not given.quick)
    print(step_table(results))
    print(f"\n{other_table(results)}")
    promised = bars(results)
    print(f"\n{measure.bars_table(promised)}")
    if folder is not None:
        settings = {
            "blocks": blocks, "steps": steps, "seed": 0, "device": given.device, "stored": STORED,
            "threads": torch.get_num_threads(), "extracted": EXTRACTED,
            "tracklets": [CLUSTERS * PER_CLUSTER, FRAMES],
            "gpu": torch.cuda.get_device_name() if given.device.startswith("cuda") else None,
        }  # fmt: skip
        measure.save("training", {"cases": results, "bars": promised}, settings=settings, folder=folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
