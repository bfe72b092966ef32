"""Experiments: a grid of data × noise × variants × seeds trained, judged, and set beside published figures.

OUT/data/NAME/               clean set and what it is judged on, shared by all cells
OUT/cells/NAME/              one training: set (with noise), run, scores.json, stages.json
OUT/table.md, OUT/table.json the table, written anew after every cell
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracklearn import __version__
from tracklearn.app.experiments import files, table
from tracklearn.app.experiments.grid import AS_THEY_ARE, WORLD, Cell, Grid
from tracklearn.app.experiments.metrics import METRICS
from tracklearn.app.experiments.sources import Benchmark, Source, World, purity, source_world
from tracklearn.app.formats import slug
from tracklearn.app.model.device import pick_device
from tracklearn.app.pipeline.plan import plan_training
from tracklearn.app.pipeline.stages import Stages
from tracklearn.app.pipeline.training import train
from tracklearn.app.refusals import out_of_memory, refusal
from tracklearn.store import benchmarks, memory
from tracklearn.store import config as settings_store
from tracklearn.store.files import make_folder, read_json, write_json
from tracklearn.store.lock import locked
from tracklearn.store.runs import Run
from tracklearn.types import Progress, Refusal

if TYPE_CHECKING:
    from tracklearn.learn.train import Round

Tell = Callable[[str], None]
REFUSALS = (Refusal, FileNotFoundError, FileExistsError, NotADirectoryError, ImportError)


def check(
    grid: Grid, roots: Mapping[str, Path], weights: Mapping[str, Path] | None = None
) -> dict[str, Path]:
    """The folders of a grid's benchmarks by their plain names, once it is clear that the grid can be run.

    Raises:
        ValueError: a method that this program does not have; a folder or a file of weights is not given, or
            given for what the grid does not use; the folder does not hold the data set, or has fewer
            persons than are to be drawn.
        FileNotFoundError: no such folder, or a part of the data set is missing.
    """
    folders = {benchmarks.find(name).name: Path(root) for name, root in roots.items()}
    for name in folders:
        if name not in grid.needs:
            used = ", ".join(grid.needs) or "no folder"
            raise Refusal(f"--root {name}: this experiment does not use it; it needs {used}")
    for cell in grid.cells():
        if cell.lacks:
            raise Refusal(f"{grid.title}: {cell.lacks}")
    wanted = dict.fromkeys([*grid.weight_files, *(cell.weights for cell in grid.cells())])
    for name, file in (weights or {}).items():
        if name not in wanted:
            raise Refusal(
                f"--weights {name}: this experiment does not use it; its weights are {', '.join(wanted)}"
            )
        if not file.exists():
            raise FileNotFoundError(f"--weights {name}: {file} is not there")
    for line in missing(grid, folders, weights or {}):
        raise Refusal(line)
    for name, root in folders.items():
        found = benchmarks.read(name, root)
        for data in grid.data:
            if benchmarks.find(data.name).name == name:
                found.protocol(data.protocol)
                if data.subset is not None:
                    benchmarks.draw(found, data.subset)
    return folders


def missing(grid: Grid, roots: Mapping[str, Path], weights: Mapping[str, Path]) -> list[str]:
    """A line for each benchmark whose folder, and each file of weights that is not given."""
    files_of = [
        f"weights {name} need their file, {what}: --weights {name}=FILE"
        for name, what in grid.weight_files.items()
        if name not in weights
    ]
    return files_of + [
        f"data {name} needs its folder: --root {name}=DIR (`tracklearn datasets {name}` says what is in it)"
        for name in grid.needs
        if name not in roots
    ]


def outline(
    grid: Grid, out: Path, roots: Mapping[str, Path], weights: Mapping[str, Path] | None = None
) -> list[str]:
    """What a call would do, a line a cell, and what it lacks."""
    known = {benchmarks.find(name).name: Path(root) for name, root in roots.items()}
    cells = list(grid.cells())
    lines = [f"{grid.title}: {len(cells)} cells, table in {out / 'table.md'}"]
    for cell in cells:
        entries = Stages(out / "cells" / cell.name).entries
        state = "to do"
        if cell.lacks:
            state = "cannot be run"
        elif entries.get("judge", {}).get("done"):
            state = "done, kept while its inputs are the same"
        elif entries:
            state = "begun"
        lines.append(f"  {cell.name}: {state}")
    lines += dict.fromkeys(cell.lacks for cell in cells if cell.lacks)
    return [*lines, *missing(grid, known, weights or {})]


def run(
    grid: Grid,
    out: str | Path,
    *,
    roots: Mapping[str, Path] | None = None,
    weights: Mapping[str, Path] | None = None,
    resume: bool = False,
    device: str | None = None,
    progress: Progress | None = None,
    on_round: Callable[[Round], None] | None = None,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Run a grid cell by cell and write its table to `out`.

    A cell whose set, settings, weights, seed, device and judging are unchanged is not run again; one that was
    stopped goes on where it was. A cell that is refused with a clear error is counted, and the next begins.

    Args:
        grid: the experiment.
        out: folder for everything.
        roots: folders of the benchmarks by name.
        weights: files of weights by the names that the grid has for them.
        resume: go on in an existing folder.
        device: as `pick_device` takes it.
        on_round: told of every epoch.
        tell: told a line before and after every cell.

    Returns:
        `title`, `cells` (labels, seed, `status`, `scores` or `error`, `seconds`), `rows` as of `table.rows`,
        `failed`, `table` (the Markdown), `out`; the same is in `out`/table.json.

    Raises:
        FileExistsError: `out` exists and `resume` is off.
        ValueError, FileNotFoundError: as `check`.
    """
    out, tell = Path(out), tell or (lambda line: None)
    with locked(out):
        if out.exists() and not resume:
            raise FileExistsError(f"{out} exists: go on with --resume, or choose another --out")
        folders = check(grid, roots or {}, weights)
        device = pick_device(device)
        cells = list(grid.cells())
        results = [_labels(cell) | {"status": "open"} for cell in cells]
        record: dict[str, Any] = {}
        for i, cell in enumerate(cells):
            where = f"[{i + 1}/{len(cells)}] {cell.name}"
            tell(where)
            source = _source(cell, out, folders)
            try:
                found = run_cell(
                    cell,
                    out / "cells" / cell.name,
                    source,
                    weights=(weights or {}).get(cell.weights),
                    labelled=_labelled(cell, out, folders, progress),
                    device=device,
                    progress=progress,
                    on_round=on_round,
                )
            except REFUSALS as error:
                results[i] |= {"status": "failed", "error": " ".join(str(error).split())}
                tell(f"{where} failed: {results[i]['error']}")
            except Exception as error:
                # A lack of memory is this cell's own; any other is a defect, as on the command line.
                if not out_of_memory(error):
                    raise
                results[i] |= {"status": "failed", "error": refusal(error, command="experiment")}
                tell(f"{where} failed: {results[i]['error']}")
            else:
                results[i] |= {"status": "done", **found}
                tell(f"{where} done: {_brief(grid, found['scores'])}")
            record = _write(grid, results, out)
        return record


def run_cell(
    cell: Cell,
    folder: Path,
    source: Source,
    *,
    weights: Path | None = None,
    labelled: Path | None = None,
    device: str,
    progress: Progress | None = None,
    on_round: Callable[[Round], None] | None = None,
) -> dict[str, Any]:
    """Noise, training and judging of one cell; what is there already of equal inputs is kept.

    Args:
        cell: what to do. folder: where. source: data to learn from and to be judged on.
        weights: the file that the cell's weights are a name for, where they are one.
        labelled: set that the method learns from first.
        device, progress, on_round: as of `run`.

    Returns:
        `scores`, by the names of `metrics.METRICS` and more; `seconds` by stage; `threads` of the training.
    """
    from tracklearn.app.noise.simulate import simulate
    from tracklearn.store.sets.tracklets import open_set

    if isinstance(source, Benchmark) and cell.method == AS_THEY_ARE:
        return _judge_weights(cell, folder, source, weights, device=device, progress=progress)
    source.prepare(progress)
    stages, set_path, run_path = Stages(folder), source.train, folder / "run"
    if (level := cell.level) is not None:
        asked = settings_store.digest([open_set(source.train).digest, vars(level), cell.seed, __version__])
        set_path = folder / "set"
        with stages.stage("noise", asked, set_path) as needed:
            if needed and not set_path.exists():
                simulate(source.train, set_path, level, seed=cell.seed)
    training = plan_training(
        set_path,
        method=cell.method,
        source=labelled,
        weights=str(weights or cell.weights),
        preset=cell.grid.preset,
        device=device,
        seed=cell.seed,
        extra=cell.settings,
        progress=progress,
    )
    trained = settings_store.digest([training.digest, __version__])
    with stages.stage("train", trained, run_path) as needed:
        if needed:
            memory.reset_peak()
            if not run_path.exists():
                (folder / "peak.json").unlink(missing_ok=True)  # of a training of other inputs
            try:
                for event in train(training, run_path, resume=True, progress=progress):
                    stages.note_time()
                    _keep_peak(folder / "peak.json")
                    if on_round:
                        on_round(event)
            finally:
                _keep_peak(folder / "peak.json")
    opened, product = Run(run_path), folder / "scores.json"
    judging = settings_store.digest([trained, source.judging, cell.rerank])
    with stages.stage("judge", judging, product) as needed:
        if needed:
            scores = source.judge(opened, device=device, rerank=cell.rerank, progress=progress)
            write_json(product, {**scores, **purity(opened, set_path)})
    seconds = stages.seconds
    spent = {"minutes": seconds["train"] / 60} if "train" in seconds else {}
    return {
        "scores": {**read_json(product), **spent, **_peak(folder / "peak.json")},
        "seconds": seconds,
        "threads": opened.manifest.get("threads"),
    }


def _judge_weights(
    cell: Cell,
    folder: Path,
    source: Benchmark,
    weights: Path | None,
    *,
    device: str,
    progress: Progress | None,
) -> dict[str, Any]:
    """Judging alone, of weights as they come."""
    from tracklearn.app.model.open import open_weights

    network = cell.settings.get("network", {})
    model = open_weights(
        str(weights or cell.weights),
        device=device,
        settings=[f"network.{name}={value}" for name, value in network.items()],
        progress=progress,
    )
    stages, product = Stages(folder), folder / "scores.json"
    asked = settings_store.digest([model.record, source.judging, cell.rerank, __version__])
    with stages.stage("judge", asked, product) as needed:
        if needed:
            found = source.judge_model(model, folder / "evaluation", rerank=cell.rerank, progress=progress)
            write_json(product, found)
    return {"scores": read_json(product), "seconds": stages.seconds, "threads": None}


def _keep_peak(file: Path) -> None:
    """Note the most memory that the process has had; where training was stopped before, the more of both."""
    found = max(memory.peak() or 0, (_peak(file).get("memory") or 0) * 1e9)
    if found and file.parent.is_dir():
        write_json(file, {"bytes": int(found)})


def _peak(file: Path) -> dict[str, float]:
    return {"memory": read_json(file)["bytes"] / 1e9} if file.is_file() else {}


def _source(cell: Cell, out: Path, roots: Mapping[str, Path]) -> Source:
    data, name = cell.data, benchmarks.find(cell.data.name).name
    if name == WORLD:
        return World(out / "data" / f"{WORLD}{data.seed}", data.seed)
    split = f"-split{cell.split}" if cell.split is not None else ""
    some = f"-{data.subset.label}" if data.subset is not None else ""
    return Benchmark(
        out / "data" / f"{slug(name)}{some}{split}",
        name,
        roots[name],
        split=cell.split,
        protocol=data.protocol,
        subset=data.subset,
        untrained="untrained" in cell.grid.metrics,
        singles=data.singles,
    )


def _labelled(cell: Cell, out: Path, roots: Mapping[str, Path], progress: Progress | None) -> Path | None:
    """The labelled set that a cell's method learns from first, made if it is not there; None without one."""
    if cell.data.source is None:
        return None
    name = benchmarks.find(cell.data.source).name
    if name == WORLD:
        return source_world(out / "data" / f"source{cell.data.seed}", cell.data.seed, progress)
    whole = Benchmark(out / "data" / slug(name), name, roots[name])
    whole.prepare(progress)
    return whole.train


def _labels(cell: Cell) -> dict[str, Any]:
    data, noise, variant = cell.row
    return {"data": data, "noise": noise, "variant": variant, "seed": cell.seed}


def _brief(grid: Grid, scores: Mapping[str, Any]) -> str:
    shown = [name for name in grid.metrics if scores.get(name) is not None]
    return ", ".join(f"{METRICS[name].heading} {table.number(name, scores[name])}" for name in shown)


def _write(grid: Grid, results: list[dict[str, Any]], out: Path) -> dict[str, Any]:
    from tracklearn.store.files import write_atomic

    text = table.markdown(grid, results)
    record = {
        "title": grid.title,
        "tracklearn": __version__,
        "out": str(out),
        "failed": sum(r["status"] == "failed" for r in results),
        "rows": table.rows(grid, results),
        "cells": results,
        "table": text,
    }
    make_folder(out)
    write_atomic(out / "table.md", text.encode())
    write_json(out / "table.json", record)
    return record


def listing() -> list[dict[str, Any]]:
    """The shipped grids: `name`, `title`, `cells`, `needs` (benchmarks), `lacks` (why it cannot be run)."""
    found = []
    for name, path in files.shipped().items():
        grid = files.read(path)
        cells = list(grid.cells())
        lacks = next((cell.lacks for cell in cells if cell.lacks), "")
        entry = {"name": name, "title": grid.title, "cells": len(cells), "needs": grid.needs, "lacks": lacks}
        found.append(entry)
    return found


def listed(entries: list[dict[str, Any]]) -> str:
    """A line for each entry of `listing`."""
    width = max(len(entry["name"]) for entry in entries)
    lines = []
    for entry in entries:
        needs = ", ".join(f"--root {name}=DIR" for name in entry["needs"]) or "nothing"
        lacks = f"; {entry['lacks']}" if entry["lacks"] else ""
        lines.append(
            f"{entry['name']:<{width}}  {entry['title']} ({entry['cells']} cells; needs {needs}{lacks})"
        )
    return "\n".join(lines)
