"""Time and memory where input is long: of ingest, training in little memory, long tracklets, many tracks."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.faults import material
from tests.faults.children import ROOT, Children, Outcome
from tests.faults.degenerate import write_set
from tests.faults.table import Row, table

GIB = 1 << 30
SPACES = (4.0, 2.0, 1.5, 1.0, 0.7)  # GiB of address space for a training
SIZES = {True: (30, 120), False: (1500, 6000)}  # seconds of the short and the long film: past all buffers
# Bytes that ingest of the long film may take more than that of the short one: what allocators keep differs by
# 25 MiB from one process to the next, and the long film has 225,000 boxes more.
GROWTH = 48 << 20
IDS = {True: 30_000, False: 1_000_000}
FRAMES = 100_000  # in one tracklet


def main(quick: bool = False, *, children: Children | None = None) -> list[Row]:
    """All rows of this part."""
    if children is None:
        with Children() as own:
            return main(quick, children=own)
    with tempfile.TemporaryDirectory(prefix="bounds-") as name:
        folder = Path(name).resolve()
        rows = [
            ingest_by_length(children, folder, *SIZES[quick]),
            many_tracks(children, folder, IDS[quick]),
            training_in(children, folder, SPACES[2:3] if quick else SPACES),
        ]
        if not quick:
            rows.append(long_tracklet(children, folder, FRAMES))
    return rows


def ingest_by_length(children: Children, folder: Path, short: int, long: int) -> Row:
    """Ingest of a film and of one many times as long takes the same memory."""
    row = Row(f"a film {long // short} times as long", "memory of ingest")
    peaks = []
    for seconds in (short, long):
        film = material.film(folder / f"{seconds}.mp4", seconds=seconds)
        outcome = children.command(
            "ingest", f"door={film.with_suffix('.txt')}+{film}", "--out", folder / f"set{seconds}", cpu=600
        )
        peaks.append(outcome.peak)
        if outcome.code:
            row.add(outcome.fault or outcome.said, film.name)
            return row
    row.note = " and ".join(f"{peak >> 20} MiB" for peak in peaks)
    row.add("grows" if peaks[1] - peaks[0] > GROWTH else "", row.note)
    return row


def many_tracks(children: Children, folder: Path, n: int) -> Row:
    """A result file in which every box is a track of its own."""
    row = Row(f"{n:,} track ids", "noise measure, ingest")
    film = material.film(folder / "many.mp4", seconds=60)
    number = np.arange(n)
    columns = [number % 600 + 1, number + 1, number % 130, number % 60]
    rows = np.column_stack([*columns, np.full(n, 24), np.full(n, 60), np.ones(n)])
    many = folder / "ids.txt"
    np.savetxt(many, rows, fmt="%d", delimiter=",")
    notes = []
    for command, seconds in (
        (("noise", "measure", "--tracks", many, "--truth", film.with_suffix(".txt"), "--out", "n.json"), 120),
        (("ingest", f"door={many}+{film}", "--out", folder / "many"), 240),
    ):
        outcome = children.command(*command, cpu=seconds, cwd=folder)
        over = outcome.fault or (f"takes {outcome.peak >> 20} MiB" if outcome.peak > 2 * GIB else None)
        row.add(over or "", command[0])
        how = "refused, " if outcome.refused else ""
        notes.append(f"{command[0]} {how}{outcome.cpu:.0f} s, {outcome.peak >> 20} MiB")
    row.note = "; ".join(notes)
    return row


def training_in(children: Children, folder: Path, spaces: tuple[float, ...]) -> Row:
    """Training in little address space ends well, or says that memory is out and what to lower."""
    row = Row("little address space", "train")
    path = write_set(folder / "set", [0, 1] * 4, [6] * 8, lambda t, c: material.figure(t % 4, 10 * t + c))
    notes = []
    settings = ["--weights", "none", "--preset", "gpu", "--device", "cpu", "--set", "tmc.epochs=1"]
    for space in spaces:
        out = folder / f"run{space}"
        command = ("train", path, "--out", out, *settings, "--set", "tmc.iterations=1")
        outcome = _within(int(space * GIB), *map(str, command))
        fault = outcome.fault
        if fault is None and outcome.code and "memory" not in outcome.said:
            fault = f"does not speak of memory: {outcome.said.strip()[:160]}"
        row.add(fault or "", f"{space} GiB")
        notes.append(
            f"{space} GiB {'trained' if outcome.code == 0 else 'refused' if not fault else 'failed'}"
        )
    row.note = ", ".join(notes)
    return row


def _within(space: int, *arguments: str) -> Outcome:
    """A command in a process of its own, which has this much address space from its start."""

    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (space, space))
        resource.setrlimit(resource.RLIMIT_CPU, (600, 605))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT / "src"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tracklearn", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        preexec_fn=bound,
    )
    return Outcome(done.returncode, False, done.stdout, done.stderr, 0.0, 0)


def long_tracklet(children: Children, folder: Path, n: int) -> Row:
    """One tracklet of very many frames through training, isolation included, and the index."""
    row = Row(f"a tracklet of {n:,} frames", "train, index")
    # Few pictures, many times over: what counts is the number of rows.
    pictures = [[material.figure(person, i) for i in range(20)] for person in range(4)]
    lengths = [n, *[20] * 7]
    path = write_set(folder / "long", [0, 1] * 4, lengths, lambda t, c: pictures[t % 4][c % 20])
    notes = []
    out = folder / "long-run"
    # By DBSCAN: change points need less memory, 1,712 MiB against 2,747, and the same time.
    settings = material.options("tmc", "tmc.isolation=dbscan")
    for command in (("train", path, "--out", out, *settings), ("index", out, path)):
        outcome = children.command(*command, cpu=1200, memory=8 * GIB)
        over = outcome.fault or (outcome.said.strip()[:160] if outcome.code else "")
        over = over or (f"takes {outcome.peak >> 20} MiB" if outcome.peak > 4 * GIB else "")
        row.add(over, command[0])
        notes.append(f"{command[0]}: {outcome.cpu:.0f} s, {outcome.peak >> 20} MiB")
    row.note = "; ".join(notes)
    return row


if __name__ == "__main__":
    print(table(main("--quick" in sys.argv)))
