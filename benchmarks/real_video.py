"""What a finished `tracklearn run` on pets09 learned, judged with its ground truth.

    python -m benchmarks.real_video RUN_FOLDER [--data DIR]

RUN_FOLDER is what `tracklearn run DIR/video/pets09-s2l1.mp4 … --out RUN_FOLDER` wrote; DIR holds the test
material (TRACKLEARN_TEST_DATA). Prints one JSON object:

- noise: r_FM and r_SW of the camera's tracklets before and after isolation, and impure frames;
- clusters: share of the clustered matched tracklets that belong to their cluster's majority person, where the
  10 people of pets09-s2l1.persons.txt count as persons, over clusters with at least two matched tracklets;
- reentry: visit-to-visit search. The 19 visits (ground-truth tracks) are embedded over all their boxes; the
  16 visits whose person has another visit are queries, only the query visit itself is left out, matches in
  the same camera count. With the trained and the untrained network, and a colour histogram.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from tracklearn.app.judge.rates import colour_histogram, match_truth, noise_rates, retrieval
from tracklearn.app.judge.tracks import read_persons
from tracklearn.app.model.of_run import isolated, load_network, tracklet_features
from tracklearn.core import noise
from tracklearn.core.noise import tracklet_pid
from tracklearn.store.files import read_json
from tracklearn.store.film.mot import read_truth
from tracklearn.store.ingest import ingest
from tracklearn.store.ingest.sources import Source
from tracklearn.store.runs import Run
from tracklearn.store.sets.tracklets import open_set
from tracklearn.types import Array


def visits(run: Run, set_path: Path, person: dict[int, int], device: str) -> dict[str, Any]:
    """Scores of visit-to-visit search with three kinds of features."""
    visit_set = open_set(set_path)
    tracklets = visit_set.tracklets
    truth = {name: read_truth(set_path.parent / "visits.txt") for name in visit_set.cameras}
    visit = tracklet_pid(tracklets, match_truth(visit_set, truth))
    pid = np.array([person[v] for v in visit])
    network = {
        name: load_network(run, which) for name, which in (("untrained", "start"), ("trained", "weights"))
    }
    features = {
        name: tracklet_features(net, visit_set, tracklets, device=device) for name, net in network.items()
    }
    size = run.manifest["network"]
    features["histogram"] = colour_histogram(
        visit_set.crops(size["height"], size["width"], cache_bytes=0), tracklets
    )
    out: dict[str, Any] = {"n_visits": len(pid)}
    for name, rows in features.items():
        scores = retrieval(rows, pid, tracklets.camid, same_camera=True)
        out[name] = {"mAP": scores.mAP, "rank1": scores.rank(1), "n_valid": scores.n_valid}
    return out


def cluster_purity(label: Array, pid: Array) -> dict[str, Any]:
    """How pure the last round's clusters are where tracklets match the ground truth."""
    right = total = pure = clusters = 0
    for value in np.unique(label[label >= 0]):
        members = pid[(label == value) & (pid >= 0)]
        if len(members) < 2:
            continue
        most = int(np.bincount(members).max())
        clusters, right, total, pure = (
            clusters + 1,
            right + most,
            total + len(members),
            pure + (most == len(members)),
        )
    return {"n_clusters_matched": clusters, "purity": right / max(total, 1), "one_person": pure}


def judge(folder: Path, data: Path, *, camera: str = "pets09-s2l1", device: str = "cpu") -> dict[str, Any]:
    """Everything above for a run folder."""
    run, tracklet_set = Run(folder / "run"), open_set(folder / "set")
    video, person = data / "video", read_persons(data / "video" / "pets09-s2l1.persons.txt")
    truth_boxes = read_truth(video / "pets09-s2l1.gt.txt")
    truth = match_truth(tracklet_set, {camera: truth_boxes})
    parts = isolated(run, tracklet_set)
    manifest = run.manifest
    result: dict[str, Any] = {
        "run": {
            **{
                key: manifest[key]
                for key in ("preset", "seed", "device", "threads", "network", "weights", "versions")
            },
            "machine": measure.machine(),
            "detector": tracklet_set.manifest["settings"]["detector"].rsplit("/", 1)[-1],
            "seconds": {name: entry["seconds"] for name, entry in read_json(folder / "stages.json").items()},
        },
        "noise": {},
        "tracklets": {},
    }
    for name, tracklets in (("before", tracklet_set.tracklets), ("after", parts)):
        rates = noise_rates(tracklets, truth, truth_pairs=len(np.unique(truth_boxes.track)))
        impure = noise.impure_fraction(tracklets.tracklet, truth.pid[tracklets.crop])
        result["noise"][name] = {**rates.to_dict(), "impure_frames": impure}
        result["tracklets"][name] = len(tracklets)
    result["isolation"] = run.manifest["isolation"]
    purity = []
    for index, label in enumerate(run.labels):
        matched = tracklet_pid(isolated(run, tracklet_set, index), truth)
        known = np.array([person.get(int(v), int(v)) if v >= 0 else -1 for v in matched])
        purity.append(cluster_purity(label, known))
    result["clusters"] = {
        "n_clusters": run.rounds[-1]["n_clusters"],
        **purity[-1],
        "purity_by_epoch": [found["purity"] for found in purity],
    }
    with tempfile.TemporaryDirectory() as scratch:
        visits_path = Path(scratch) / "visits.txt"
        visits_path.write_text((video / "pets09-s2l1.gt.txt").read_text())
        source = Source(video / "pets09-s2l1.mp4", camera=camera, results=visits_path)
        config = ingest.Config(max_length=1_000_000, max_gap=1e6, min_length=1)
        set_path = ingest.ingest([source], Path(scratch) / "visits", config=config)
        result["reentry"] = visits(run, set_path, person, device)
    return result


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, help="JSON file to write as well")
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("TRACKLEARN_TEST_DATA", "../shared/data"))
    )
    arguments = parser.parse_args()
    text = measure.to_json(judge(arguments.folder, arguments.data))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
