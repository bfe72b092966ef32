"""Who is who over the cameras of generated worlds, by every method's weights, and a baseline beside.

    python -m benchmarks.world_identities --cache DIR --weights FILE [--cameras 4 8] [--seeds 0 1 2]
        [--methods none tmc …] [--epochs N] [--iterations N] [--out DIR]

A world (24 people) is filmed by so many cameras and cut along its true boxes into visits, where half of a
person is to be seen (a detector finds nobody else), so that who is who is all that differs. OSNet x0.25
starts from FILE and learns from the visits by each method (none: one step of no length), then `tracklearn
identities` joins them, and split + connect (`split_connect`, its own constants) beside, on the same features.
Truth is opened afterwards: IDF1 over all films, and F1 of pairs of parts, all and of two cameras alone.
Films, sets, runs and tables are kept in DIR; a call that was broken off goes on.

Prints the table, writes world_identities.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure, split_connect
from tracklearn import world
from tracklearn.app.demo.films import cut, worlds, write_videos
from tracklearn.app.identities.footage import gather
from tracklearn.app.identities.link import identities
from tracklearn.app.judge.tracks import judge, pair_rates, scores
from tracklearn.app.model.of_run import load_network
from tracklearn.app.pipeline.plan import plan_training
from tracklearn.app.pipeline.training import train
from tracklearn.core.noise import tracklet_pid
from tracklearn.learn import embed
from tracklearn.store.film.mot import Boxes, read_truth, write_results
from tracklearn.store.runs import Run
from tracklearn.store.sets.tracklets import read_truth as read_crops

AIM = 0.8
SEEN = 0.5  # share of a person that is visible
METHODS = ("none", "tmc", "mmt", "uga", "msplr", "cap")
SETTINGS = ("network.height=128", "network.width=64")
COLUMNS = (
    "IDF1", "F1 across", "precision", "recall", "F1", "people", "baseline: IDF1", "F1 across", "F1",
)  # fmt: skip

Row = dict[str, Any]


def settings(method: str, epochs: int, iterations: int) -> list[str]:
    """Overrides of a training of so many epochs, the steps and stages of a method included."""
    own = {
        "none": ["tmc.epochs=1", "tmc.iterations=1", "tmc.learning_rate=1e-12"],
        "uga": [
            f"uga.epochs_intra={epochs // 2}", f"uga.epochs_inter={epochs - epochs // 2}",
            f"uga.iterations={iterations}",
        ],
        "msplr": [
            "msplr.max_steps=2", f"msplr.step_epochs={max(1, epochs // 2)}", "msplr.frozen_epochs=0",
            f"msplr.iterations={iterations}",
        ],
    }  # fmt: skip
    return [*SETTINGS, *own.get(method, [f"{method}.epochs={epochs}", f"{method}.iterations={iterations}"])]


def filmed(cameras: int, seed: int, cache: Path) -> tuple[Path, Path]:
    """The set of a world's visits, and the folder of the boxes that it was cut along, NAME.txt."""
    folder = cache / f"world-{cameras}-{seed}"
    config = replace(worlds(seed)[0], n_cameras=cameras)
    if not (folder / "films").exists():
        write_videos(config, folder / "films.partial")
        (folder / "films.partial").rename(folder / "films")
    if not (folder / "seen").exists():
        seen(config, folder / "seen.partial")
        (folder / "seen.partial").rename(folder / "seen")
    if not (folder / "set.truth.parquet").exists():
        cut(folder / "films", folder / "set", boxes=folder / "seen")
    return folder / "set", folder / "seen"


def seen(config: world.Config, out: Path) -> None:
    """Write the boxes of people of whom `SEEN` is visible, NAME.txt for each camera."""
    out.mkdir(parents=True, exist_ok=True)
    scene = world.make(config)
    for camera, name in enumerate(scene.cameras):
        frame, pid, box = [], [], []
        for number, (_, truth) in enumerate(scene.frames(camera)):
            visible = truth.visibility >= SEEN
            frame.append(np.full(visible.sum(), number))
            pid.append(truth.pid[visible])
            box.append(truth.box[visible])
        frames = np.concatenate(frame)
        boxes = Boxes(frames, np.concatenate(pid), np.concatenate(box), np.ones(len(frames), np.float32))
        write_results(out / f"{name}.txt", boxes)


def trained(of: Path, out: Path, method: str, weights: Path, overrides: Sequence[str]) -> Run:
    """A run on a set from some weights; one that is there is taken, or goes on."""
    plan = plan_training(
        [of],
        method="tmc" if method == "none" else method,
        weights=str(weights),
        preset="cpu",
        device="cpu",
        overrides=list(overrides),
    )
    for _ in train(plan, out, resume=out.exists()):
        pass
    return Run(out)


def baseline(run: Run, of: Path, boxes: Path) -> Row:
    """Split and connect on the features of a run: scores and rates of pairs."""
    footage = gather(run.path, [of])
    network, one = load_network(run), footage.sets[0]
    crops = one.crops(network.config.height, network.config.width, cache_bytes=0)
    features = embed.extract(network, crops, np.arange(one.n_crops), device="cpu")
    tracks = footage.tracks
    parts = tracks.split(split_connect.split(features[tracks.crop], tracks))
    label = split_connect.connect(features[parts.crop], parts)
    camera = parts.camid[parts.tracklet]
    pairs = []
    for camid, name in enumerate(footage.cameras):
        own = camera == camid
        said = Boxes(parts.frame[own], label[parts.tracklet[own]], parts.box[own], parts.score[own])
        pairs.append((said, read_truth(boxes / f"{name}.txt")))
    pid = tracklet_pid(parts, read_crops(of))
    return {
        "scores": scores(pairs).to_dict(),
        "pairs": {
            "all": asdict(pair_rates(label, pid)), "across": asdict(pair_rates(label, pid, parts.camid)),
        },
    }  # fmt: skip


def cell(cameras: int, seed: int, method: str, given: argparse.Namespace) -> Row:
    """One world and one method's weights."""
    of, boxes = filmed(cameras, seed, given.cache)
    folder = (
        given.cache
        / f"world-{cameras}-{seed}"
        / f"{method}-{given.epochs}-{given.iterations}-{Path(given.weights).stem}"
    )
    folder.mkdir(exist_ok=True)
    kept = folder / "cell.json"
    if not kept.exists():
        overrides = settings(method, given.epochs, given.iterations)
        run = trained(of, folder / "run", method, given.weights, overrides)
        table = identities(run.path, [of], folder / "identities", device="cpu", resume=True)
        ours = judge([table.path], [boxes])
        found = {
            "people": table.manifest["counts"]["people"], "scores": ours["scores"], "pairs": ours["pairs"],
            "doubted": table.manifest["doubted"], "baseline": baseline(run, of, boxes),
        }  # fmt: skip
        kept.write_text(measure.to_json(_finite(found)))
    return dict(json.loads(kept.read_text()))


def _finite(found: Any) -> Any:
    """The same with None for what is not a number, which JSON has not."""
    if isinstance(found, dict):
        return {name: _finite(value) for name, value in found.items()}
    return None if isinstance(found, float) and found != found else found


def line(found: Row) -> list[Any]:
    """The columns of a cell."""
    pairs, other = found["pairs"], found["baseline"]
    across = pairs["across"]
    return [
        found["scores"]["IDF1"], across["f1"], across["precision"], across["recall"],
        pairs["all"]["f1"], found["people"], other["scores"]["IDF1"], other["pairs"]["across"]["f1"],
        other["pairs"]["all"]["f1"],
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, help="folder for films, sets, runs and tables")
    parser.add_argument("--weights", type=Path, required=True, help="weights of OSNet x0.25 to start from")
    parser.add_argument("--cameras", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the worlds")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--epochs", type=int, default=8, help="of each training")
    parser.add_argument("--iterations", type=int, default=40, help="batches an epoch")
    parser.add_argument("--out", type=Path, default=measure.RESULTS, help="folder of the results")
    given = parser.parse_args(arguments)
    rows, cells = [], {}
    for cameras in given.cameras:
        for method in given.methods:
            lines = []
            for seed in given.seeds:
                found = cell(cameras, seed, method, given)
                cells[f"{cameras} cameras, world {seed}, {method}"] = found
                lines.append(line(found))
                print(cameras, seed, method, *lines[-1], flush=True)
            mean = np.mean(np.array(lines, float), axis=0).tolist()  # nan where one has none
            rows.append((cameras, method, *mean))
    print(f"means over worlds {', '.join(map(str, given.seeds))}")
    print(measure.table(("cameras", "weights", *COLUMNS), rows))
    best = {c: float(np.nanmax([row[3] for row in rows if row[0] == c])) for c in given.cameras}
    bars = [
        measure.Bar(f"{c} cameras: F1 across, best method", AIM, value, at_least=True)
        for c, value in best.items()
    ]
    print(measure.bars_table(bars))
    settings_of = {name: getattr(given, name) for name in ("cameras", "seeds", "epochs", "iterations")}
    settings_of |= {"methods": list(given.methods), "weights": given.weights.name, "set": SETTINGS}
    measure.save("world_identities", {"cells": cells, "bars": bars}, settings=settings_of, folder=given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
