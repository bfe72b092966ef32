"""The generated world of the demo as a benchmark: learn from DEMO/set, be judged on DEMO/judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tracklearn.store.benchmarks.parts import Benchmark, Part, locate, no_part
from tracklearn.store.sets.tracklets import open_set, read_truth, truth_path
from tracklearn.types import Refusal


def read_world(root: Path) -> Benchmark:
    """Every tracklet of the judged people is searched for among all the others."""
    folder = locate(root, "a demo's folder", ("judge",))
    test = _part(folder / "judge")
    trained = (folder / "set").exists()
    train = _part(folder / "set") if trained else no_part(test.cameras)
    mixed = test.truth.pid[test.tracklets.crop] != test.pid[test.tracklets.tracklet]
    if mixed.any():
        number = int(test.tracklets.tracklet[np.argmax(mixed)])
        raise Refusal(f"tracklet {number} of {folder / 'judge'} holds several persons: it cannot be judged")
    query = np.flatnonzero(test.pid >= 0)
    return Benchmark(
        name="world",
        title="the generated world",
        root=folder,
        train=train,
        test=test,
        query=query,
        gallery=np.arange(len(test.tracklets)),
        missing=() if trained else ("no training part: set is not there",),
    )


def _part(path: Path) -> Part:
    if not truth_path(path).is_file():
        raise FileNotFoundError(
            f"{truth_path(path)} is not there: let `tracklearn demo` finish, or run it again"
        )
    opened = open_set(path)
    return Part(opened.tracklets, read_truth(path), opened.cameras, lambda: opened)
