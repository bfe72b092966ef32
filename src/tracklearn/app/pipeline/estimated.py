"""What a dry run found: the numbers, and how they are told."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class StageEstimate:
    """One stage of a method.

    Args:
        name: the stage's.
        rounds: epochs.
        assignments: epochs that extract features and assign labels; the others keep them.
        batches: per epoch.
        tracklets: in a batch.
        pictures: in a batch; each goes through every student and every teacher.
        crops: extracted in an epoch that assigns labels, over all teachers.
        seconds: of `extract` and `fit`, in one epoch.
        state_bytes: of the largest state that is written to go on from.
        memory: bytes by what takes them, in one process.
    """

    name: str
    rounds: int
    assignments: int
    batches: int
    tracklets: int
    pictures: int
    crops: int
    seconds: dict[str, float]
    state_bytes: int
    memory: dict[str, int]


@dataclass(frozen=True)
class Estimate:
    """What would run, and what it would take.

    Args:
        run: method, networks, set and its counts, network and size, weights, device, threads, processes,
            precision, preset.
        isolation: whether tracklets are cut first.
        stages: in their order.
        seconds: of `start` (norms measured), `isolation` (features of all crops or a sample), `epoch` (the
            longest stage's mean) and `all`; clustering is not in them.
        memory: bytes by place (`cpu`, or the CUDA device and `cpu`): `needed` by one process, and `total`
            of the machine or the device, None where it is not known.
        features_bytes, cache_bytes: of the features before the first epoch, and of decoded crops.
        measured: what the times come from: `crops`, `pictures`, `batches`, `seconds`.
        assumptions, warnings: sentences for the user.
    """

    run: dict[str, Any]
    isolation: bool
    stages: tuple[StageEstimate, ...]
    seconds: dict[str, float]
    memory: dict[str, dict[str, int | None]]
    features_bytes: int
    cache_bytes: int
    measured: dict[str, float]
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values under the field names, for JSON."""
        return asdict(self)

    def table(self) -> str:
        """The same for people."""
        run, lines = self.run, []

        def line(name: str, text: str) -> None:
            lines.append(f"  {name:<12} {text}")

        students = count(run["n_networks"], "student")
        teachers = count(run["n_networks"], "teacher")
        first = "isolation" if self.isolation else "a look at some"
        height, width = run["height"], run["width"]
        lines.append("What would run; nothing is written:")
        line("method", f"{run['method']}: {students}, {teachers}")
        line(
            "set",
            f"{run['set']}: {count(len(run['cameras']), 'camera')}, "
            f"{count(run['n_tracklets'], 'track')}, {count(run['n_crops'], 'crop')}",
        )
        line("network", f"{run['backbone']}, crops of {height}×{width}, weights {run['weights']}")
        line(
            "computed",
            f"on {run['device']} in {run['precision']}, {count(run['n_threads'], 'thread')}, "
            f"{count(run['n_processes'], 'process', 'processes')}, preset {run['preset']}",
        )
        line("isolation", "yes, before the first epoch" if self.isolation else "no")
        for s in self.stages:
            line(f"stage {s.name}", f"{count(s.rounds, 'epoch')} of {count(s.batches, 'batch', 'batches')}")
            line(
                "",
                f"a batch: {count(s.tracklets, 'part')}, {count(s.pictures, 'picture')}, each through "
                f"{students} and {teachers}",
            )
            line("", f"labels from {count(s.crops, 'crop')} before each of {count(s.assignments, 'epoch')}")
            line("", f"state to go on from: {size(s.state_bytes)}")
        m = self.measured
        lines.append(
            f"Estimated time, from {m['seconds']:.0f} s on {m['crops']} crops and {m['batches']} batches of "
            f"up to {m['pictures']} pictures:"
        )
        for name, text in (("start", "start"), ("isolation", first), ("epoch", "one epoch"), ("all", "all")):
            line(text, time(self.seconds[name]))
        lines.append("Estimated memory of one process:")
        for s in self.stages:
            line(f"stage {s.name}", ", ".join(f"{k} {size(v)}" for k, v in s.memory.items()))
        line(first, f"features {size(self.features_bytes)}")
        kept = run["n_kept"]
        others = "" if kept == run["n_crops"] else f": {kept:,} of the set, the others are decoded every time"
        line("crop cache", f"up to {size(self.cache_bytes)}{others}")
        for place, values in self.memory.items():
            there = f" of {size(values['total'])}" if values["total"] else ""
            line(f"on {place}", f"{size(values['needed'] or 0)}{there}")
        lines.append("Assumed:")
        lines += [f"  - {text}" for text in self.assumptions]
        lines += [f"Warning: {text}" for text in self.warnings]
        return "\n".join(lines)


def count(n: int, one: str, many: str | None = None) -> str:
    """A number with its noun.

    >>> count(1, "crop"), count(2000, "crop"), count(2, "batch", "batches")
    ('1 crop', '2,000 crops', '2 batches')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def size(n: float) -> str:
    """Bytes as people say them.

    >>> size(0), size(5300), size(25_000_000), size(8.2e9)
    ('0 kB', '5.3 kB', '25 MB', '8.2 GB')
    """
    unit, scale = next(((u, s) for u, s in (("GB", 1e9), ("MB", 1e6)) if n >= s), ("kB", 1e3))
    return f"{n / scale:.1f} {unit}" if 0 < n < 10 * scale else f"{n / scale:,.0f} {unit}"


def time(seconds: float) -> str:
    """Seconds, roughly, as people say them.

    >>> time(0.04), time(75), time(4000), time(86400 * 3)
    ('0.04 s', '1.2 min', '1.1 h', '72.0 h')
    """
    if seconds < 60:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
