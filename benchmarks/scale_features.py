"""Features of a benchmark's images by one process and by several: wall and CPU seconds, and the same bytes.

    python -m benchmarks.scale_features --market DIR --weights FILE [--workers 2] [--persons 110] [--out DIR]

Each way in a fresh process, in turn: one process with one thread, one with as many threads as there are
workers, and workers with one thread each, by processes and by Ray Data, their start included. The CPU seconds
of a cluster belong to none of its processes here: none are given.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure

WAYS = ("1 thread", "threads", "workers", "ray")


def one(way: str, given: argparse.Namespace) -> dict[str, Any]:
    """Extract in this way, in this process; images, seconds, and the sha256 of all features."""
    from tracklearn.app.judge.extract import extract
    from tracklearn.app.model.open import open_weights
    from tracklearn.store import benchmarks
    from tracklearn.store.workers.chosen import engine_of

    engine = engine_of("ray" if way == "ray" else None, given.workers if way in ("workers", "ray") else None)
    model = open_weights(given.weights, device="cpu")
    read = benchmarks.read("market1501", given.market, subset=benchmarks.Subset(10, given.persons))
    wall, before = time.perf_counter(), os.times()
    found = extract(model, [read], engine=engine)
    after = os.times()
    return {
        "way": way,
        "images": found.n_images,
        "wall_s": time.perf_counter() - wall,
        # Of workers that have ended too; those of a cluster belong to nobody here.
        "cpu_s": None if way == "ray" else float(np.sum(after[:4]) - np.sum(before[:4])),
        "sha256": hashlib.sha256(found.feature.tobytes()).hexdigest(),
    }


def fresh(way: str, arguments: Sequence[str], n_threads: int) -> dict[str, Any]:
    """`one` in a process of its own, with so many threads."""
    command = [sys.executable, "-m", "benchmarks.scale_features", *arguments, "--way", way]
    environment = {**os.environ, "OMP_NUM_THREADS": str(n_threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    from tracklearn.core import threads

    threads.wait_briefly()  # as the program's own command line
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--market", type=Path, required=True, help="folder of Market-1501")
    parser.add_argument("--weights", type=Path, required=True, help=".safetensors or .pth file")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--persons", type=int, default=110, help="whose images are embedded")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--way", choices=WAYS, help="only this one, in this process; prints JSON")
    parser.add_argument("--out", type=Path, default=measure.RESULTS, help="folder of the results")
    arguments = list(sys.argv[1:] if argv is None else argv)
    given = parser.parse_args(arguments)
    if given.way:
        print(json.dumps(one(given.way, given)))
        return 0
    rows = []
    for _ in range(given.repeats):
        for way in WAYS:
            rows.append(fresh(way, arguments, given.workers if way == "threads" else 1))
            print(f"{way} done", file=sys.stderr, flush=True)
    keys = ("way", "images", "wall_s", "cpu_s")
    print(measure.table(("way", "images", "wall s", "CPU s"), [[row[key] for key in keys] for row in rows]))
    same = len({row["sha256"] for row in rows}) == 1
    print("the same bytes" if same else "DIFFERENT bytes")
    settings = {"workers": given.workers, "persons": given.persons, "weights": given.weights.name}
    measure.save("scale_features", {"rows": rows, "same": same}, settings=settings, folder=given.out)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
