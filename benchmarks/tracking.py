"""A tracker's tracks before and after what was learned, step by step, and a baseline beside.

    python -m benchmarks.tracking --cache DIR [--data DIR] [--only NAME …] [--variant NAME] [--method NAME]
        [--out DIR]

Material and trainings are those of `benchmarks.footage`, in the same folder DIR: pets09 and MOT17-09 with
their detectors, ByteTrack, and a run of the variant, which is trained where it is not there. Each step has
the boxes of the tracker's tracks of six crops and more; what differs is their numbers:

- tracker: its own;
- isolation: a number for each part;
- identities: `tracklearn identities`;
- again: `core.relink` over the tracker's tracks, by seconds of delay;
- split + connect: the baseline (`split_connect`), on the same features.

Scores are `app.judge.tracks.scores`; of pets09 the visits of a person are one person (persons.txt). Truth is
opened after everything else. Prints the table, writes tracking.json (tracking_METHOD.json of another method).
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import footage as material
from benchmarks import measure, split_connect
from tracklearn.app.identities import calibrated, link
from tracklearn.app.identities.footage import Footage, gather
from tracklearn.app.judge.tracks import pair_rates, read_persons, scores
from tracklearn.app.model.of_run import load_network
from tracklearn.core.appearance import Bounds
from tracklearn.core.noise import tracklet_pid
from tracklearn.core.relink import Relinker
from tracklearn.learn import embed
from tracklearn.store.film.mot import Boxes, read_results, read_truth
from tracklearn.store.runs import Run
from tracklearn.types import Array, Tracklets

CLIPS = ["pets09, retail", "mot17-09, retail", "pets09, motion"]
DELAYS = (0.0, 1.0, 4.0, 20.0)
COLUMNS = (
    ("numbers", 1, "d"), ("IDF1", 100, ".1f"), ("HOTA", 100, ".1f"), ("AssA", 100, ".1f"),
    ("switches", 1, "d"), ("r_FM", 1, ".2f"), ("r_SW", 1, ".2f"), ("found", 1, "d"), ("merges", 1, "d"),
    ("splits", 1, "d"), ("F1", 1, ".3f"), ("precision", 1, ".3f"), ("recall", 1, ".3f"),
)  # fmt: skip

Row = dict[str, Any]


def again(tracklets: Tracklets, features: Array, bounds: Bounds, delay: float) -> Boxes:
    """The boxes of a set's tracks as tracking again numbers them.

    Args:
        tracklets: of one film. features: (n, d) unit, by row. bounds: where one person ends.
        delay: seconds.
    """
    order = np.argsort(tracklets.frame, kind="stable")
    frame, first = np.unique(tracklets.frame[order], return_index=True)
    relinker, settled = Relinker(bounds, delay=delay), []
    for number, rows in zip(frame.tolist(), np.split(order, first[1:]), strict=True):
        time, track = float(tracklets.time[rows[0]]), tracklets.tracklet[rows]
        wanted = relinker.wanted(time, track)
        feature = [features[r] if w else None for r, w in zip(rows.tolist(), wanted, strict=True)]
        settled += relinker.add(number, time, track, tracklets.box[rows], tracklets.score[rows], feature)
    settled += relinker.close()
    print({**relinker.counts, "people": relinker.people, "delay": delay}, flush=True)
    return Boxes(
        np.repeat([one.frame for one in settled], [len(one.number) for one in settled]),
        np.concatenate([one.number for one in settled]),
        np.concatenate([one.box for one in settled]),
        np.concatenate([one.score for one in settled]),
    )


def numbered(tracklets: Tracklets, number: Array) -> Boxes:
    """The boxes of tracklets, each with the number (t,) of its tracklet."""
    return Boxes(tracklets.frame, number[tracklets.tracklet], tracklets.box, tracklets.score)


def baseline(footage: Footage, features: Array) -> tuple[Boxes, Tracklets, Array]:
    """Split and connect; its parts and their numbers too."""
    tracks = footage.tracks
    parts = tracks.split(split_connect.split(features[tracks.crop], tracks))
    label = split_connect.connect(features[parts.crop], parts)
    return numbered(parts, label), parts, label


def looked_at(run: Run, footage: Footage, cache: Path) -> Array:
    """(n, d) unit features of all crops, kept in the cache."""
    kept = cache / "features.npy"
    if not kept.is_file():
        network = load_network(run)
        one = footage.sets[0]
        crops = one.crops(network.config.height, network.config.width, cache_bytes=0)
        np.save(kept, embed.extract(network, crops, np.arange(one.n_crops), device="cpu"))
    return np.load(kept)


def steps(name: str, variant: str, given: argparse.Namespace) -> dict[str, Row]:
    """All steps of one clip."""
    stem, _ = material.CLIPS[name]
    kept = variant.replace(" ", "") + ("" if given.method == "tmc" else f"-{given.method}")
    folder = given.cache / name.replace(", ", "-")
    set_path, truth_of_crops, _ = material.clip(name, given.cache, given.data)
    learned, settings = material.VARIANTS[variant]
    weights = given.data / (material.OSNET if learned else material.MOBILENET)
    run = material.trained(set_path, folder / kept, settings, weights, method=given.method)
    work = given.work / name.replace(", ", "-") / kept
    work.mkdir(parents=True, exist_ok=True)
    footage = gather(run.path, [set_path])
    tracks, parts = footage.tracks, footage.parts
    features = looked_at(run, footage, work)
    found = calibrated.learn(footage, features)
    assert found.bounds is not None, found.too_few
    link.frame_features = lambda *_, **__: features  # type: ignore[assignment]  # looked at already
    table = link.identities(run.path, [set_path], work / "identities", resume=True)
    mot = next((work / "identities" / "mot").iterdir())
    label = np.array([-1 if row["identity"] is None else row["identity"] for row in table.rows])

    made: dict[str, tuple[Boxes, Tracklets | None, Array | None]] = {
        "tracker": (numbered(tracks, np.arange(len(tracks))), tracks, np.arange(len(tracks))),
        "isolation": (numbered(parts, np.arange(len(parts))), parts, np.arange(len(parts))),
        "identities": (read_results(mot), parts, label),
    }
    for delay in DELAYS:
        boxes = again(tracks, features[tracks.crop], found.bounds, delay)
        made[f"again, {delay:g} s"] = (boxes, None, None)
    made["split + connect"] = baseline(footage, features)

    truth = read_truth(given.data / "video" / f"{stem}.gt.txt")
    persons = given.data / "video" / f"{stem}.persons.txt"
    if persons.is_file():
        same = read_persons(persons)
        truth = replace(truth, track=np.array([same.get(p, p) for p in truth.track.tolist()]))
    rows = {}
    for step, (boxes, of, number) in made.items():
        row: Row = scores([(boxes, truth)]).to_dict()
        if of is not None and number is not None:
            rates = pair_rates(number, tracklet_pid(of, truth_of_crops))
            row |= {"F1": rates.f1, "precision": rates.precision, "recall": rates.recall}
        rows[step] = row
    return rows


def _finite(row: Row) -> Row:
    """The figures that are there: JSON has no nan."""
    return {name: value for name, value in row.items() if value == value}


def table(found: dict[str, dict[str, Row]]) -> str:
    """One table a clip."""
    return material.table(found, COLUMNS)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = Path(os.environ.get("TRACKLEARN_TEST_DATA", "../shared/data"))
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="folder for features and identities; that of --cache")
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--only", nargs="*", help="clips, by name", default=CLIPS)
    parser.add_argument("--variant", default="1 to 4", help="of benchmarks.footage.VARIANTS")
    parser.add_argument("--method", choices=("tmc", "mmt", "cap"), default="tmc", help="that learns")
    parser.add_argument("--out", type=Path, default=measure.RESULTS)
    given = parser.parse_args()
    given.work = given.work or given.cache / "tracking"
    found = {}
    for name in given.only:
        found[name] = {step: _finite(row) for step, row in steps(name, given.variant, given).items()}
    print(table(found))
    settings = {"variant": given.variant, "method": given.method, "delays": DELAYS, "clips": given.only}
    name = "tracking" if given.method == "tmc" else f"tracking_{given.method}"
    measure.save(name, found, settings=settings, folder=given.out)


if __name__ == "__main__":
    main()
