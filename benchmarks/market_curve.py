"""How a training on a benchmark goes: mAP of the teacher against minutes.

    python -m benchmarks.market_curve CELL --states DIR --keep
    python -m benchmarks.market_curve CELL --states DIR --market DIR [--line NAME=MAP ...] [--out DIR]

CELL is the folder of one training of `tracklearn experiment` (OUT/cells/NAME). A run drops its states as it
goes; the first call, made beside it, keeps them as links until it has finished. The second judges the teacher
of each by the official protocol, as `tracklearn evaluate` does, and draws mAP against the minutes that the
training had taken by then, with lines for networks as they come. Nothing is chosen by these scores.

Prints the table, writes market_curve.json and .png to DIR (benchmarks/results).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from benchmarks import measure
from tracklearn.app.judge.benchmark import evaluate
from tracklearn.app.model.open import open_weights
from tracklearn.store import weights
from tracklearn.store.files import make_folder, read_arrays, read_json
from tracklearn.store.runs import Run
from tracklearn.types import Array

_TEACHER = "teacher."
_EVERY = 15.0  # seconds between two looks for new states


def keep(run: Path, states: Path, *, wait: bool = True) -> int:
    """Link a run's states into a folder as they appear, until it has finished; returns how many there are."""
    states.mkdir(parents=True, exist_ok=True)
    while True:
        there = (run / "manifest.json").exists()
        finished = there and read_json(run / "manifest.json")["status"] == "finished"
        for path in run.glob("state-*.safetensors"):
            if not (states / path.name).exists():
                os.link(path, states / path.name)
        if finished or not wait:
            return len(list(states.glob("state-*.safetensors")))
        time.sleep(_EVERY)


def teacher(state: Path) -> tuple[int, dict[str, Array]]:
    """Rounds done, and the teacher's arrays by the network's names."""
    arrays, meta = read_arrays(state)
    own = {name.removeprefix(_TEACHER): v for name, v in arrays.items() if name.startswith(_TEACHER)}
    return int(meta["rounds_done"]), own


def minutes(times: Sequence[Mapping[str, Any]]) -> list[float]:
    """Minutes that had passed in training after each epoch: the parts of its time, summed up."""
    total, found = 0.0, []
    for line in times:
        total += sum(float(line[part]) for part in ("extract", "cluster", "fit") if part in line)
        found.append(total / 60)
    return found


def judge(cell: Path, states: Path, market: Path, work: Path) -> list[dict[str, Any]]:
    """Epoch, minutes, mAP and rank-1 of the start, of every state's teacher, and of the end."""
    run = Run(cell / "run")
    network, spent = run.manifest["network"], minutes(run.times)
    settings = [f"network.{name}={network[name]}" for name in ("height", "width", "last_stride", "feature")]
    files = [(0, cell / "run" / "start.safetensors")]
    with safe_open(files[0][1], "np") as opened:
        metadata = json.loads(opened.metadata()["meta"])
    make_folder(work)
    for state in sorted(states.glob("state-*.safetensors")):
        epoch, arrays = teacher(state)
        files.append((epoch, weights.save(work / f"epoch-{epoch}.safetensors", arrays, metadata)))
    if run.finished:
        files.append((len(run.rounds), run.weights_path()))
    rows = []
    for epoch, file in dict(files).items():
        copy = work / f"judged-{epoch}.safetensors"  # weights inside a run are the run's to judge
        copy.write_bytes(file.read_bytes())
        model = open_weights(copy, device="cpu", settings=settings)
        out = work / f"epoch-{epoch}"
        found = evaluate(model, "market1501", market, out=out, resume=True, tell=lambda line: None)
        after = spent[epoch - 1] if epoch else 0.0
        rows.append({"epoch": epoch, "minutes": after, "mAP": found["mAP"], "rank1": found["rank1"]})
    return rows


def draw(rows: Sequence[Mapping[str, Any]], lines: Mapping[str, float], path: Path) -> None:
    """mAP against minutes, and networks as they come."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot([row["minutes"] for row in rows], [100 * row["mAP"] for row in rows], "o-", label="teacher")
    for (name, value), style in zip(lines.items(), ("--", ":", "-.") * len(lines), strict=False):
        axes.axhline(100 * value, linestyle=style, color="0.4", label=name)
    axes.set(xlabel="minutes of training", ylabel="mAP, %", title="Market-1501, no label of it used")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cell", type=Path, help="folder of one training of an experiment")
    parser.add_argument("--states", type=Path, required=True, help="folder for the states that are kept")
    parser.add_argument("--keep", action="store_true", help="keep states until the training has finished")
    parser.add_argument("--market", type=Path, help="folder of Market-1501")
    parser.add_argument("--line", action="append", default=[], metavar="NAME=MAP", help="0-1; a line to draw")
    parser.add_argument("--out", type=Path, default=measure.RESULTS)
    options = parser.parse_args(arguments)
    if options.keep:
        print(f"{keep(options.cell / 'run', options.states)} states")
        return []
    if options.market is None:
        parser.error("--market is wanted, to judge the states")
    rows = judge(options.cell, options.states, options.market, options.states / "judged")
    lines = {name: float(value) for name, _, value in (line.rpartition("=") for line in options.line)}
    columns = ("epoch", "minutes", "mAP", "rank1")
    print(measure.table(columns, [[row[name] for name in columns] for row in rows]))
    measure.save(
        "market_curve",
        {"rows": rows, "lines": lines},
        settings={"cell": options.cell.name},
        folder=options.out,
    )
    draw(rows, lines, options.out / "market_curve.png")
    return rows


if __name__ == "__main__":
    main()
