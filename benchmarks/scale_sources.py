"""What the process that asks has to do for so many sources: seconds of processor time and memory, by number.

    python -m benchmarks.scale_sources [--sizes 1000 3000 10000] [--out DIR]

The sources are links to one tiny film with a tracker's results. Reading them is the affair of the workers and
left out: each part is written here with one track of eight crops. What is measured is what cannot be spread:
looking at all sources before the work, their digests, and joining the parts. Each number in a fresh process.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from tracklearn.store.film.mot import Boxes, write_results
from tracklearn.store.film.video_writer import VideoWriter
from tracklearn.store.ingest.request import Request
from tracklearn.store.sets.setwriter import SetWriter

SIZES = (1_000, 3_000, 10_000)
FRAMES = 8
JPEG = bytes(2_000)


def films(folder: Path, n: int) -> list[str]:
    """Sources: one film and its boxes, under n names."""
    folder.mkdir(parents=True)
    with VideoWriter(folder / "film.mp4", width=96, height=64, fps=10) as writer:
        for i in range(FRAMES):
            writer.write(np.full((64, 96, 3), 20 * i, np.uint8))
    frame = np.arange(FRAMES)
    box = np.tile([10.0, 10, 24, 50], (FRAMES, 1))
    write_results(folder / "film.txt", Boxes(frame, np.ones(FRAMES), box, np.ones(FRAMES)))
    for i in range(n):
        os.link(folder / "film.mp4", folder / f"c{i}.mp4")
    return [f"c{i}={folder}/film.txt+{folder}/c{i}.mp4" for i in range(n)]


def steps(given: tuple[list[str], Path]) -> dict[str, float]:
    """Seconds of processor time of each step."""
    texts, out = given
    seconds: dict[str, float] = {}

    def timed(name: str, function: Callable[[], Any]) -> Any:
        began = time.process_time()
        found = function()
        seconds[name] = time.process_time() - began
        return found

    request = timed("names", lambda: Request(texts))
    timed("look", request.check)
    timed("digest", lambda: request.digest)
    with SetWriter(out) as writer:
        places = timed("place", lambda: [writer.place(key) for key in request.part_keys])
        for i, place in enumerate(places):
            part = place.open(apart=True)
            box = np.tile([10.0, 10, 24, 50], (FRAMES, 1))
            row = np.arange(FRAMES)
            part.add([JPEG] * FRAMES, camera=f"c{i}", frame=row, time=row, box=box, score=np.ones(FRAMES))
            part.finish({"camera": f"c{i}", "status": "ok", "seconds": 0.0})
        timed("join", lambda: writer.finish({}))
    return seconds


def measured(n: int) -> dict[str, float]:
    """The steps for n sources."""
    with tempfile.TemporaryDirectory() as scratch:
        return steps((films(Path(scratch) / "films", n), Path(scratch) / "set"))


def prepared(n: int, scratch: str) -> tuple[list[str], Path]:
    """Input of `steps`, and what they load, loaded."""
    measured(2)
    return films(Path(scratch) / "films", n), Path(scratch) / "set"


def draw(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Processor time of each step and memory, by number of sources, beside straight lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    n = [row["sources"] for row in rows]
    for name, label in (("look", "look before the work"), ("join", "join"), ("digest", "digests")):
        left.plot(n, [row[name] for row in rows], "o-", label=label)
        left.plot([0, n[-1]], [0, rows[-1][name]], color="0.6", dashes=(1, 2), zorder=0)
    left.set(xlabel="sources", ylabel="seconds of processor time", xlim=(0, None), ylim=(0, None))
    right.plot(n, [row["memory_above"] / 1e6 for row in rows], "o-", color="tab:blue")
    right.set(xlabel="sources", ylabel="MB above the start", xlim=(0, None), ylim=(0, None))
    for axes in (left, right):
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(fontsize="small", frameon=False)
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--out", type=Path, default=measure.RESULTS, help="folder of the results")
    given = parser.parse_args(argv)
    rows = []
    for n in given.sizes:
        seconds = measured(n)
        with tempfile.TemporaryDirectory() as scratch:
            peak = measure.peak_memory(prepared, steps, n, scratch)
        rows.append({"sources": n, **seconds, "memory_above": peak.above})
        print(f"{n:,} sources done", file=sys.stderr, flush=True)
    names = ("names", "look", "digest", "place", "join")
    header = ("sources", *(f"{name}, ms a source" for name in names), "kB a source")
    body = [
        (
            row["sources"],
            *(1000 * row[name] / row["sources"] for name in names),
            row["memory_above"] / 1000 / row["sources"],
        )
        for row in rows
    ]
    print(measure.table(header, body))
    measure.save("scale_sources", {"rows": rows}, settings={"sizes": list(given.sizes)}, folder=given.out)
    draw(rows, given.out / "scale_sources.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
