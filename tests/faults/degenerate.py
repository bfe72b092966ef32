"""Sets that hardly are any, for every method: trained to the end, or one clear diagnosis.

After a refusal the same folder must take the next attempt with other settings and another set; after a
training its weights must be finite and its run must be indexed, searched and reported like any other.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tests.faults import material
from tests.faults.children import Children
from tests.faults.table import Row, table
from tracklearn.store.picture.crops import encode_jpeg
from tracklearn.types import Array

METHODS = ("tmc", "mmt", "uga", "msplr", "cap")
SOURCED = "msplr from a labelled source"
QUICK_CASES = (("uga", "one camera"),)
TIME = 300  # seconds of processor time for a training of this size: some hundred times what it takes

Show = Callable[[int, int], Array]  # tracklet, crop -> picture


def _noise(tracklet: int, crop: int) -> Array:
    return np.random.default_rng([tracklet, crop]).integers(0, 256, (60, 24, 3)).astype(np.uint8)


def _person(tracklet: int, crop: int) -> Array:
    return material.figure(tracklet % 4, 100 * tracklet + crop)


def write_set(path: Path, cameras: Sequence[int], lengths: Sequence[int], show: Show) -> Path:
    """A set with a tracklet for each camera and length, and the truth that a labelled source needs."""
    from tracklearn.store.sets.tracklets import SetWriter, write_truth

    with SetWriter(path) as writer:
        part = writer.part("d" * 64)
        assert part is not None
        for tracklet, (camera, length) in enumerate(zip(cameras, lengths, strict=True)):
            frame = np.arange(length) + 3 * tracklet
            part.add(
                [encode_jpeg(show(tracklet, crop)) for crop in range(length)],
                camera=f"cam{camera}",
                frame=frame,
                time=frame / 10,
                box=np.tile([0, 0, 24, 60], (length, 1)),
                score=np.ones(length),
            )
        record = {"camera": "made", "path": "made", "kind": "video", "status": "ok", "reason": None}
        part.finish({**record, "counts": {}, "skipped": []})
        writer.finish({})
    write_truth(path, np.repeat(np.arange(len(lengths)) % 4, lengths))
    return path


SETS: dict[str, tuple[Sequence[int], Sequence[int], Show]] = {
    "one tracklet": ([0], [8], _person),
    "one crop": ([0], [1], _person),
    "two crops of two people": ([0, 1], [1, 1], _person),
    "one camera": ([0] * 8, [6] * 8, _person),
    "all black": ([0, 1] * 4, [6] * 8, lambda t, c: np.zeros((60, 24, 3), np.uint8)),
    "all white": ([0, 1] * 4, [6] * 8, lambda t, c: np.full((60, 24, 3), 255, np.uint8)),
    "all equal": ([0, 1] * 4, [6] * 8, lambda t, c: material.figure(0, 0)),
    "all noise": ([0, 1] * 4, [6] * 8, _noise),
    "tracklets of one crop": ([0, 1] * 6, [1] * 12, _person),
    "two identical tracklets": ([0, 1], [6, 6], lambda t, c: material.figure(0, c)),
    "one long and one short": ([0, 1], [60, 1], _person),
    "crops of one pixel": ([0, 1] * 4, [6] * 8, lambda t, c: _person(t, c)[20:21, 10:11]),
    "eight cameras, one tracklet each": (range(8), [6] * 8, _person),
}


def main(quick: bool = False, *, children: Children | None = None) -> list[Row]:
    """A row for each method."""
    if children is None:
        with Children() as own:
            return main(quick, children=own)
    rows = {name: Row("degenerate sets", name) for name in (*METHODS, SOURCED)}
    with tempfile.TemporaryDirectory(prefix="degenerate-") as name:
        folder = Path(name).resolve()
        good = write_set(folder / "good", [0, 1] * 4, [6] * 8, _person)
        others = write_set(folder / "others", [0, 1] * 4, [5] * 8, _person)
        made = {kind: write_set(folder / kind.replace(" ", "-"), *what) for kind, what in SETS.items()}
        endings = {method: [0, 0] for method in rows}
        for method, row in rows.items():
            for kind, path in made.items():
                if quick and (method, kind) not in QUICK_CASES:
                    continue
                source = ["--source", str(good)] if method == SOURCED else []
                out = folder / f"{method.split()[0]}-{path.name}-{len(source)}"
                trained, fault = _attempt(children, method.split()[0], path, good, others, out, source)
                endings[method][trained] += fault is None
                row.add(fault or "", kind)
            row.note = "{} refused, {} trained".format(*endings[method])
    return [row for row in rows.values() if row.tried]


def _attempt(
    children: Children, method: str, path: Path, good: Path, others: Path, out: Path, source: list[str]
) -> tuple[bool, str | None]:
    """Train; whether it came to its end, and what did not hold."""
    train = ("train", path, "--out", out, *source, *material.options(method))
    first = children.command(*train, cpu=TIME)
    if first.fault is not None:
        return False, first.fault
    if first.code == 0:
        return True, _finished(children, path, out)
    if "gave" not in first.said and "set" not in first.said and "track" not in first.said:
        return False, f"the diagnosis does not speak of the material: {first.said.strip()[:160]}"
    # What was refused is not in the way of a better set, nor of the same again.
    again = children.command(*train, "--resume", cpu=TIME)
    if again.code != 2 or again.said.splitlines()[-1] != first.said.splitlines()[-1]:
        return False, f"refused otherwise the second time: {again.said.strip()[:160]}"
    for resume in ((), ("--resume",)):
        better = children.command(*("train", good, "--out", out, *resume, *_better(method, others)), cpu=TIME)
        if better.code == 0:
            return False, None
    return False, f"its folder is in the way of the next: {better.said.strip()[:160]}"


def _better(method: str, other: Path) -> list[str]:
    """Settings with which a method comes to its end on a good set."""
    # What a few batches teach shows MSPLR nobody: the steps after the source are left out.
    source = ["--source", str(other), "--set", "msplr.max_steps=0"]
    return [*material.options(method), *(source if method == "msplr" else [])]


def _finished(children: Children, path: Path, out: Path) -> str | None:
    """Whether the run is one like any other."""
    from tracklearn.store.files import read_arrays

    for file in (*out.glob("weights*.safetensors"), *out.glob("stages/*.safetensors")):
        for name, array in read_arrays(file)[0].items():
            if not np.isfinite(array).all():
                return f"{file.name} holds a {name} that is not finite"
    for command in (("index", out, path), ("search", out, "0"), ("report", out)):
        outcome = children.command(*command, cpu=TIME)
        if outcome.code:
            return f"{command[0]} of the run: {outcome.fault or outcome.said.strip()[:160]}"
    return None


if __name__ == "__main__":
    print(table(main("--quick" in sys.argv)))
