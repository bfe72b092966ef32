"""How well the demo learned: scores on people that it has never seen, and the noise of its tracklets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn.app.demo.films import cut
from tracklearn.app.judge.rates import (
    colour_histogram,
    label_rates,
    link_rates,
    match_truth,
    noise_rates,
    retrieval,
)
from tracklearn.app.model.device import pick_device
from tracklearn.app.model.of_run import isolated, load_network, tracklet_features
from tracklearn.core.noise import tracklet_pid
from tracklearn.store.files import beside, remove_folder
from tracklearn.store.runs import Run
from tracklearn.types import Array, Progress, Scores

if TYPE_CHECKING:
    from tracklearn.store.sets.tracklets import TrackletSet


SCORES_NOTE = (
    "Every tracklet of the other people is searched for among all the others of the second set of videos; "
    "matches in its own camera do not count. Untrained is the same network with the same starting weights, "
    "which are random. The colour histogram fails where every camera has its own cast and background: it "
    "finds other people of the same camera first. Ground truth was opened after training had ended."
)


def judge_run(
    out: Path, names: tuple[str, ...], *, device: str | None, progress: Progress | None
) -> dict[str, Any]:
    """Scores on the other people and noise rates of the training tracklets, from the ground truth."""
    from tracklearn.store.film.mot import read_results
    from tracklearn.store.sets.tracklets import open_set, read_truth, write_truth

    run = Run(out / "run")
    tracklet_set = open_set(out / "set")
    truths = {name: read_results(out / "world" / "learn" / f"{name}.gt.txt") for name in names}
    truth = match_truth(tracklet_set, truths)
    write_truth(out / "set", truth.pid)
    pairs = sum(len(np.unique(t.track)) for t in truths.values())
    parts = isolated(run, tracklet_set)
    noise = {
        "before": noise_rates(tracklet_set.tracklets, truth, truth_pairs=pairs).to_dict(),
        "after": noise_rates(parts, truth, truth_pairs=pairs).to_dict(),
        "dropped_fraction": run.manifest["isolation"]["dropped_fraction"],
        "aside_fraction": run.manifest["isolation"].get("aside", 0) / max(tracklet_set.n_crops, 1),
    }

    folder = out / "judge"
    remove_folder(folder)
    remove_folder(beside(folder, after=".partial"))
    # The judged tracklets are cut out along the ground truth, so that only the features are judged.
    judge_set = cut(out / "world" / "judge", folder, progress=progress)
    pid = tracklet_pid(judge_set.tracklets, read_truth(folder))
    camid = judge_set.tracklets.camid
    device = pick_device(device)

    def features_of(which: str | Path) -> Array:
        network = load_network(run, which)
        return tracklet_features(network, judge_set, judge_set.tracklets, device=device, progress=progress)

    features = {"untrained": features_of("start"), "trained": features_of("weights")}
    kept = {index: features_of(path) for (index, _), path in run.stages.items()}
    for (index, stage), _ in run.stages.items():
        if stage == "source":
            features["source_only"] = kept[index]
    size = run.manifest["network"]
    crops = judge_set.crops(size["height"], size["width"], cache_bytes=0)
    features["baseline"] = colour_histogram(crops, judge_set.tracklets)
    scores = {name: retrieval(f, pid, camid).to_dict() for name, f in features.items()}
    links = link_rates(run.kept(), parts, truth)
    steps = _steps(
        run,
        lambda index: tracklet_pid(isolated(run, tracklet_set, index), truth),
        {i: retrieval(f, pid, camid) for i, f in kept.items()},
    )
    examples = _examples(features["trained"], judge_set, pid, seed=run.manifest["seed"])
    judged = {
        **scores,
        "noise": noise,
        "examples": examples,
        "steps": steps,
        "weights": run.manifest["weights"]["name"],
    }
    return judged | ({"links": links} if links else {})


def _steps(run: Run, pid_at: Callable[[int], Array], scores: Mapping[int, Scores]) -> list[dict[str, Any]]:
    """What ground truth says of every labelling of a method that goes in steps; empty for others.

    Args:
        run: finished.
        pid_at: true person of each tracklet that a round was trained on.
        scores: last round of a labelling -> the scores of the network after it.
    """
    found, first = [], 0
    for last, score in scores.items():
        label = run.labels[first]
        rates = label_rates(label, pid_at(first)) if (label >= 0).any() else {}
        found.append({"index": first, **rates, "mAP": score.mAP, "rank1": score.rank(1)})
        first = last + 1
    return found


def _examples(
    features: Array, judge_set: TrackletSet, pid: Array, *, seed: int, n: int = 6, k: int = 10
) -> list[dict[str, Any]]:
    """Searches for n tracklets drawn at random, in other cameras; rows are of the judged set's pictures."""
    from tracklearn.core import rank
    from tracklearn.core.shown import representative

    camid = judge_set.tracklets.camid
    picture = judge_set.tracklets.crop[representative(judge_set.tracklets)]
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(pid >= 0))[:n]
    found = []
    for query in drawn:
        others = np.flatnonzero(camid != camid[query])
        matches = rank.nearest(features[query : query + 1], features[others], min(k, len(others)))
        rows = others[matches.index[0]]
        found.append(
            {
                "query": int(picture[query]),
                "results": picture[rows].tolist(),
                "distance": matches.distance[0].tolist(),
                "right": (pid[rows] == pid[query]).tolist(),
                "query_caption": judge_set.cameras[camid[query]],
                "captions": [judge_set.cameras[c] for c in camid[rows]],
            }
        )
    return found
