"""What a training makes of real footage, from tracks to persons: before, and with each thing that was added.

    python -m benchmarks.footage --cache DIR [--data DIR] [--only NAME …] [--variants NAME …] [--out DIR]
    python -m benchmarks.footage --cache DIR --methods [--only NAME …] [--out DIR]

Material, made once and kept in DIR: pets09 and MOT17-09 (`--data`) with the detector retail-0013 and with
motion, and generated worlds 11, 12 and 13; ByteTrack everywhere. Variants are settings over the `cpu` preset;
each training is kept in DIR too, so that the table can be drawn again, and a call that was stopped goes on.

Columns: tracks; parts; parts a track; parts for each true person in a track (at least 6 crops of him, a track
of nobody counted as one); crops dropped; impure crops; r_FM, r_SW of the parts; clusters; the share of
clustered parts that show their cluster's majority (clusters with several parts of known persons); clusters of
several parts that are all of one track; F1 of pairs of tracks, each by the cluster of most of its crops, to
their persons; re-entry mAP (pets09, 16 visits), or mAP on the other people of a world. Truth is opened after
training alone. Prints the table, writes footage.json.

With --methods: UGA, MMT and MSPLR on the worlds, with and without that isolation, from the demo's random
start (MSPLR learns from a labelled world of other cameras first). Links are UGA's last graph, or the pairs of
parts of different cameras in one cluster; precision: of links between known people; recall: of the
combinations of a person and two cameras; F1 of pairs and mAP as above. Writes footage_methods.json.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.real_video import cluster_purity, visits
from tracklearn import world
from tracklearn.app.demo import run as demo
from tracklearn.app.demo.films import cut, source_world, worlds, write_videos
from tracklearn.app.judge.rates import match_truth, retrieval
from tracklearn.app.judge.tracks import read_persons
from tracklearn.app.model.of_run import isolated, load_network, tracklet_features
from tracklearn.app.pipeline.plan import plan_training, starting_networks
from tracklearn.app.pipeline.training import train
from tracklearn.core import graph, noise
from tracklearn.core.isolate import adjacent_similarity, typical_step
from tracklearn.core.labels import one_track
from tracklearn.core.noise import tracklet_pid
from tracklearn.learn import embed
from tracklearn.store.files import read_json, write_json
from tracklearn.store.film.mot import read_truth as read_boxes
from tracklearn.store.ingest import ingest
from tracklearn.store.ingest.sources import Source
from tracklearn.store.runs import Run
from tracklearn.store.sets.tracklets import open_set
from tracklearn.store.sets.tracklets import read_truth as read_set_truth
from tracklearn.types import Array, Tracklets, Truth

RETAIL = "weights/person-detection-retail-0013-FP16.xml"
MOBILENET = "weights/mobilenet_v2_imagenet_float.safetensors"
OSNET = "weights/osnet_x0_25_msmt17_combineall.safetensors"
CLIPS = {
    "mot17-09, retail": ("mot17-09-inpainted", RETAIL),
    "pets09, retail": ("pets09-s2l1", RETAIL),
    "pets09, motion": ("pets09-s2l1", None),
    "mot17-09, motion": ("mot17-09-inpainted", None),
}
WORLDS = (11, 12, 13)

Row = dict[str, Any]

_CUT = ["isolation=change-point", "join_intra=auto", "least_intra=4"]
_OLD = ["isolation=dbscan", "eps_intra=typical", "join_intra=none", "time_tells=false", "isolate_every=0"]
_NEW = ["join_intra=none", "time_tells=false", "isolate_every=0"]
# Each: whether a re-ID network's weights are the start, and settings of the method; eps "typical" is the
# median distance of adjacent frames, which "auto" was before.
VARIANTS: dict[str, tuple[bool, list[str]]] = {
    "before": (False, _OLD),
    "weights (1)": (True, _OLD),
    "free pairs (2)": (False, [*_NEW, *_CUT]),
    "isolated again (3)": (False, [*_OLD, "isolate_every=5"]),
    "time (4)": (False, [*_OLD, "time_tells=true"]),
    "1 + 2": (True, [*_NEW, *_CUT]),
    "1 + 2, DBSCAN": (
        True,
        [*_NEW, "isolation=dbscan", "eps_intra=auto", "join_intra=auto", "least_intra=4"],
    ),
    "1 + 2 + 3": (True, [*_NEW, *_CUT, "isolate_every=5"]),
    "1 + 2 + 4": (True, [*_NEW, *_CUT, "time_tells=true"]),
    "1 to 4": (True, [*_NEW, *_CUT, "isolate_every=5", "time_tells=true"]),
    # Worlds start from random weights.
    "2 + 3": (False, [*_NEW, *_CUT, "isolate_every=5"]),
    "2 + 4": (False, [*_NEW, *_CUT, "time_tells=true"]),
    "2 to 4": (False, [*_NEW, *_CUT, "isolate_every=5", "time_tells=true"]),
}
REAL = (
    "before",
    "weights (1)",
    "free pairs (2)",
    "1 + 2",
    "1 + 2, DBSCAN",
    "1 + 2 + 3",
    "1 + 2 + 4",
    "1 to 4",
)
# Another method, with and without isolation: its name, and settings.
_METHOD_CUT = ["isolate=true", *_CUT, "eps_intra=auto"]
METHODS: dict[str, tuple[str, list[str]]] = {
    "UGA": ("uga", ["isolate=false"]),
    "UGA, isolated": ("uga", _METHOD_CUT),
    "MMT": ("mmt", ["isolate=false", "time_tells=true"]),
    "MMT, isolated": ("mmt", [*_METHOD_CUT, "isolate_every=5", "time_tells=true"]),
    "MSPLR": ("msplr", ["isolate=false", "time_tells=true"]),
    "MSPLR, isolated": ("msplr", [*_METHOD_CUT, "time_tells=true"]),
}
MADE = ("before", "free pairs (2)", "isolated again (3)", "time (4)", "2 + 3", "2 + 4", "2 to 4")


def clip(name: str, cache: Path, data: Path) -> tuple[Path, Truth, dict[int, int]]:
    """Set, truth and visit -> person of a clip."""
    stem, detector = CLIPS[name]
    config = ingest.Config(detector=f"openvino:{data / detector}" if detector else "motion")
    path = cache / name.replace(", ", "-") / "set"
    source = Source(data / "video" / f"{stem}.mp4", camera=stem)
    if not (path / "manifest.json").is_file():
        ingest.ingest([source], path, config=config, resume=True)
    persons = data / "video" / f"{stem}.persons.txt"
    person = read_persons(persons) if persons.is_file() else {}
    truth = match_truth(open_set(path), {stem: read_boxes(data / "video" / f"{stem}.gt.txt")})
    known = truth.pid.copy()
    for visit, own in person.items():
        known[truth.pid == visit] = own
    return path, Truth(known), person


def source_of(seed: int, cache: Path) -> Path:
    """The labelled set that a method which adapts learns from first."""
    folder = cache / f"world-{seed}"
    if not (folder / "source").exists():
        write_videos(source_world(seed), folder / "source.films")
        cut(folder / "source.films", folder / "source", progress=None)
    return folder / "source"


def made_world(seed: int, cache: Path) -> tuple[Path, Truth, Path]:
    """Set and truth of a world to learn from, and the set of its other people."""
    folder = cache / f"world-{seed}"
    learn, judge = worlds(seed)
    for name, config in (("learn", learn), ("judge", judge)):
        if not (folder / name).exists():
            write_videos(config, folder / f"{name}.partial")
            (folder / f"{name}.partial").rename(folder / name)
    cameras = world.make(learn).cameras
    sources = [f"{name}={folder / 'learn' / name}.mp4" for name in cameras]
    path = ingest.ingest(sources, folder / "set", config=ingest.Config(detector="motion"), resume=True)
    if not (folder / "others").exists():
        cut(folder / "judge", folder / "others", progress=None)
    truth = {name: read_boxes(folder / "learn" / f"{name}.gt.txt") for name in cameras}
    return path, match_truth(open_set(path), truth), folder / "others"


def trained(
    set_path: Path,
    out: Path,
    settings: list[str],
    weights: Path | None,
    *,
    method: str = "tmc",
    source: Path | None = None,
    seed: int = 0,
) -> Run:
    """The run of a variant; an existing one goes on, or is taken as it is.

    Args:
        settings: of the method.
        weights: to start from; None: the demo's random network and settings.
        source: labelled set to learn from first.
    """
    settings = [f"{method}.{one}" for one in settings]
    if weights is not None:
        size = (256, 128) if "osnet" in weights.name else (128, 64)
        settings += [f"network.height={size[0]}", f"network.width={size[1]}"]
    extra = {} if weights else {k: v for k, v in demo.SETTINGS.items() if k in (method, "network")}

    def plan(overrides: list[str]) -> Any:
        return plan_training(
            set_path,
            method=method,
            source=source,
            weights="none" if weights is None else str(weights),
            preset="cpu",
            device="cpu",
            seed=seed,
            extra=extra,
            overrides=overrides,
        )

    if not (out / "manifest.json").is_file() or not Run(out).finished:
        typical = f"{method}.eps_intra=typical"
        if typical in settings:
            first = plan([one for one in settings if one != typical])
            opened = open_set(set_path)
            crops = opened.crops(first.network.height, first.network.width)
            network = starting_networks(first, crops, opened.tracklets)[0]
            features = embed.extract(network, crops, opened.tracklets.crop, device="cpu")
            eps = typical_step(adjacent_similarity(features, opened.tracklets.tracklet))
            settings = [f"{method}.eps_intra={eps}" if one == typical else one for one in settings]
        for _ in train(plan(settings), out, resume=out.exists()):
            pass
    return Run(out)


def true_persons(tracklets: Tracklets, pid: Array, *, min_run: int = 6) -> int:
    """Persons in tracks: of each track those with a run of `min_run` crops, at least one."""
    found = noise.measure(tracklets.tracklet, pid, tracklets.camid[tracklets.tracklet], min_run=min_run)
    several = sum(k * n for k, n in found.persons_per_tracklet.items())
    return several + len(tracklets) - found.n_tracklets


def pair_f1(tracks: Tracklets, parts: Tracklets, label: Array, pid: Array) -> float:
    """F1 of the pairs of tracks that are one person, by the cluster of most of each track's crops.

    Args:
        tracks: a tracker's. parts: what isolation left of them. label: (t,) cluster of each part.
        pid: (n,) person of each crop of the set, −1 unknown.
    """
    of_crop = np.full(len(pid), -1, np.int64)
    of_crop[parts.crop] = label[parts.tracklet]
    said, true = (
        np.array(
            [_most(value[tracks.crop[a:b]]) for a, b in zip(tracks.start[:-1], tracks.start[1:], strict=True)]
        )
        for value in (of_crop, pid)
    )
    pairs = np.array(list(combinations(np.flatnonzero(true >= 0), 2)))
    one = true[pairs[:, 0]] == true[pairs[:, 1]]
    joined = (said[pairs[:, 0]] == said[pairs[:, 1]]) & (said[pairs[:, 0]] >= 0)
    hits = int((one & joined).sum())
    return 2 * hits / max(1, int(one.sum()) + int(joined.sum()))


def _most(values: Array) -> int:
    known = values[values >= 0]
    return int(np.bincount(known).argmax()) if len(known) else -1


def judge(run: Run, set_path: Path, truth: Truth) -> Row:
    """The columns that every set has."""
    opened = open_set(set_path)
    tracks, parts = opened.tracklets, isolated(run, opened)
    pid, label = truth.pid, np.asarray(run.labels[-1], np.int64)
    part = run.isolation()[0]["part"]
    rates = noise.measure(parts.tracklet, pid[parts.crop], parts.camid[parts.tracklet])
    isolation = run.manifest["isolation"]
    calibration = isolation.get("calibration", {}).get("mean")
    return {
        "tracks": len(tracks),
        "parts": len(parts),
        "parts a track": len(parts) / len(tracks),
        "parts a person": len(parts) / true_persons(tracks, pid[tracks.crop]),
        "dropped": float((part == -1).mean()),
        "impure before": noise.impure_fraction(tracks.tracklet, pid[tracks.crop]),
        "impure": noise.impure_fraction(parts.tracklet, pid[parts.crop]),
        "r_FM": rates.r_FM,
        "r_SW": rates.r_SW,
        "clusters": int(label.max(initial=-1)) + 1,
        "purity": cluster_purity(label, tracklet_pid(parts, truth))["purity"],
        "of one track": one_track(label, parts.source),
        "pair F1": pair_f1(tracks, parts, label, pid),
        "threshold": calibration["joins_below"] if calibration else None,
        "overlap": calibration["error"] if calibration else None,
    }


def reentry(run: Run, data: Path, person: dict[int, int]) -> Row:
    """mAP of visit-to-visit search on pets09, before and after training."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "visits.txt"
        path.write_text((data / "video" / "pets09-s2l1.gt.txt").read_text())
        source = Source(data / "video" / "pets09-s2l1.mp4", camera="pets09-s2l1", results=path)
        config = ingest.Config(max_length=1_000_000, max_gap=1e6, min_length=1)
        found = visits(run, ingest.ingest([source], Path(scratch) / "visits", config=config), person, "cpu")
    return {"mAP": found["trained"]["mAP"], "mAP before": found["untrained"]["mAP"]}


def world_map(run: Run, others: Path) -> Row:
    """mAP on the other people of a world."""
    opened = open_set(others)
    pid = tracklet_pid(opened.tracklets, read_set_truth(others))
    found = {}
    for name, which in (("mAP", "weights"), ("mAP before", "start")):
        features = tracklet_features(load_network(run, which), opened, opened.tracklets, device="cpu")
        found[name] = retrieval(features, pid, opened.tracklets.camid).mAP
    return found


def links(run: Run, set_path: Path, truth: Truth) -> Row:
    """What ground truth says of a method's links between cameras."""
    parts = isolated(run, open_set(set_path))
    pid = tracklet_pid(parts, truth)
    kept = run.kept().get(len(run.labels) - 1, {})
    if {"start", "to", "weight"} <= kept.keys():
        made = graph.Graph(kept["start"], kept["to"], kept["weight"])
    else:
        made = _joined(np.asarray(run.labels[-1], np.int64), parts.camid)
    precision, recall = graph.precision_recall(made, pid, parts.camid)
    rates = noise.measure(parts.tracklet, truth.pid[parts.crop], parts.camid[parts.tracklet])
    opened = open_set(set_path)
    return {
        "parts": len(parts),
        "dropped": float((run.isolation()[0]["part"] == -1).mean()),
        "impure": noise.impure_fraction(parts.tracklet, truth.pid[parts.crop]),
        "r_FM": rates.r_FM,
        "r_SW": rates.r_SW,
        "link precision": precision,
        "link recall": recall,
        "pair F1": pair_f1(opened.tracklets, parts, np.asarray(run.labels[-1], np.int64), truth.pid),
    }


def _joined(label: Array, camid: Array) -> graph.Graph:
    """An edge between any two tracklets of different cameras with one label."""
    to = [
        np.flatnonzero((label == label[i]) & (camid != camid[i])) if label[i] >= 0 else np.empty(0, np.int64)
        for i in range(len(label))
    ]
    start = np.concatenate([[0], np.cumsum([len(own) for own in to])])
    return graph.Graph(start, np.concatenate(to), np.ones(start[-1], np.float32))


METHOD_COLUMNS = (
    ("parts", 1, "d"), ("dropped", 100, ".1f"), ("impure", 100, ".1f"), ("r_FM", 1, ".2f"),
    ("r_SW", 1, ".2f"), ("link precision", 1, ".2f"), ("link recall", 1, ".2f"),
    ("pair F1", 1, ".2f"), ("mAP before", 100, ".1f"), ("mAP", 100, ".1f"),
)  # fmt: skip
COLUMNS = (
    ("tracks", 1, "d"), ("parts", 1, "d"), ("parts a track", 1, ".1f"), ("parts a person", 1, ".2f"),
    ("dropped", 100, ".1f"), ("impure before", 100, ".1f"), ("impure", 100, ".1f"), ("r_FM", 1, ".2f"),
    ("r_SW", 1, ".2f"), ("clusters", 1, "d"), ("purity", 1, ".2f"), ("of one track", 1, "d"),
    ("pair F1", 1, ".2f"), ("mAP before", 100, ".1f"), ("mAP", 100, ".1f"),
)  # fmt: skip


def table(found: dict[str, dict[str, Row]], columns: Any = COLUMNS) -> str:
    """One table a set."""
    pages = []
    for name, rows in found.items():
        head = "| " + " | ".join([name, *(column for column, _, _ in columns)]) + " |"
        lines = [head, "|" + "---|" * (len(columns) + 1)]
        for variant, row in rows.items():
            cells = [
                format(row[c] * scale if scale > 1 else row[c], kind) if row.get(c) is not None else ""
                for c, scale, kind in columns
            ]
            lines.append("| " + " | ".join([variant, *cells]) + " |")
        pages.append("\n".join(lines))
    return "\n\n".join(pages)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True)
    data = Path(os.environ.get("TRACKLEARN_TEST_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--only", nargs="*", help="sets, by name")
    parser.add_argument("--variants", nargs="*", help="of VARIANTS; by default those that fit the set")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--methods", action="store_true", help="UGA, MMT and MSPLR on the worlds")
    given = parser.parse_args()
    stem = "footage_methods" if given.methods else "footage"
    found: dict[str, dict[str, Row]] = {}
    kept = given.cache / f"{stem}.json"
    if kept.is_file():
        found = read_json(kept)["rows"]
    made = [f"world {seed}" for seed in WORLDS]
    for name in given.only or (made if given.methods else [*CLIPS, *made]):
        for variant in given.variants or _variants(name, given.methods):
            if variant in found.get(name, {}):
                continue
            out = given.cache / name.replace(", ", "-").replace(" ", "-") / variant.replace(" ", "")
            make = _method if given.methods else _row
            row = make(name, variant, out, given)
            found.setdefault(name, {})[variant] = row
            print(name, variant, measure.to_json(row), flush=True)
            write_json(kept, {"rows": found, "machine": measure.machine()})
    print(table(found, METHOD_COLUMNS if given.methods else COLUMNS))
    given.out.mkdir(parents=True, exist_ok=True)
    write_json(given.out / f"{stem}.json", {"rows": found, "machine": measure.machine()})


def _variants(name: str, methods: bool) -> Any:
    if methods:
        return METHODS
    return REAL if name in CLIPS else MADE


def _row(name: str, variant: str, out: Path, given: argparse.Namespace) -> Row:
    """TMC on a clip or a world."""
    learned, settings = VARIANTS[variant]
    if name not in CLIPS:
        seed = int(name.split()[1])
        set_path, truth, others = made_world(seed, given.cache)
        run = trained(set_path, out, settings, None, seed=seed)
        return judge(run, set_path, truth) | world_map(run, others)
    set_path, truth, person = clip(name, given.cache, given.data)
    run = trained(set_path, out, settings, given.data / (OSNET if learned else MOBILENET))
    return judge(run, set_path, truth) | (reentry(run, given.data, person) if person else {})


def _method(name: str, variant: str, out: Path, given: argparse.Namespace) -> Row:
    """Another method on a world."""
    cache = given.cache
    seed = int(name.split()[1])
    method, settings = METHODS[variant]
    set_path, truth, others = made_world(seed, cache)
    source = source_of(seed, cache) if method == "msplr" else None
    run = trained(set_path, out, settings, None, method=method, source=source, seed=seed)
    return links(run, set_path, truth) | world_map(run, others)


if __name__ == "__main__":
    main()
