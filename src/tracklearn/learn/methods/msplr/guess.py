"""A step's guess: features without their cameras, clusters of these, the clusters that are kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tracklearn.core import cluster, normalise, radius
from tracklearn.core.apart import split
from tracklearn.core.features import unit_rows
from tracklearn.core.labels import Selection, one_track, select_clusters
from tracklearn.core.labels import agreement as agreement_of
from tracklearn.core.moments import moments
from tracklearn.learn.method import Assignment
from tracklearn.learn.methods.msplr.config import Config
from tracklearn.types import Array, PseudoLabels, Tracklets


def guess(config: Config, features: Array, tracklets: Tracklets, memory: Mapping[str, Array]) -> Assignment:
    """The pseudo-labels of a step, and whether they still change.

    eps comes from the first step and then stays, as the paper's is the same in all steps: while persons draw
    together, more of their tracklets come within it.
    """
    first = "step" not in memory
    compared = _compared(config, features, tracklets.camid)
    n = len(compared.rows)
    adapted = cluster.adapt(n, k1=1, k2=1, min_samples=config.min_samples, rho=config.rho)
    if not config.fit_to_size:
        adapted = cluster.Adapted(1, 1, config.min_samples, config.rho, ())
    near = radius.mean_nearest(compared.rows, adapted.rho, method=config.neighbors)
    chance = radius.chance_level(compared.rows, adapted.rho, seed=config.seed)
    diagnosis = [*compared.diagnosis, *(adapted.warnings if first else ())]
    eps = start = float("nan")
    found = np.full(len(tracklets), -1, np.int64)
    trouble = _trouble(config, n, near, chance, first=first)
    if trouble:
        diagnosis.append(trouble)
    elif config.clustering == "kmeans":
        found[compared.index] = _k_means(config, compared.rows)
    else:
        start = float(memory["eps"].item()) if not first else near if config.eps == "auto" else config.eps
        widest = min(cluster.EPS_WIDEST * start, config.structure * chance, cluster.EPS_LIMIT)

        def usable(label: Array) -> bool:
            full = found.copy()
            full[compared.index] = label
            return _selected(config, full, tracklets).label.max(initial=-1) >= 1

        found[compared.index], eps, tried = radius.clusters(
            compared.rows,
            start,
            adapted.min_samples,
            widest=max(start, widest),
            usable=usable,
            method=config.neighbors,
        )
        diagnosis += tried
    if config.time_tells:
        found, _ = split(found, features, moments(tracklets).pair)
    structure = near / chance if chance else float("nan")
    return _assignment(config, tracklets, found, eps, start, structure, diagnosis, memory)


def _assignment(
    config: Config,
    tracklets: Tracklets,
    found: Array,
    eps: float,
    start: float,
    structure: float,
    diagnosis: list[str],
    memory: Mapping[str, Array],
) -> Assignment:
    """What the clusters that were found leave after selection, beside the step before."""
    selection = _selected(config, found, tracklets)
    label = selection.label
    kept = label >= 0
    images = int(tracklets.length[kept].sum())
    share = images / max(1, tracklets.n_crops)
    step, still, agreement = 1, 0, float("nan")
    if memory:
        step = int(memory["step"].item()) + 1
        agreement = agreement_of(memory["label"], label)
        calm = (
            abs(share - float(memory["share"].item())) < config.stop_kept
            and abs(agreement - float(memory["agreement"].item())) < config.stop_agreement
        )
        still = int(memory["still"].item()) + 1 if calm else 0
    n_found = len(np.unique(found[found >= 0]))
    n_kept = int(label.max(initial=-1)) + 1
    if n_found and n_kept < 2:
        diagnosis.append(
            f"{n_found} clusters were found, {selection.n_small} dropped with less than {config.min_images} "
            f"images and {selection.n_few_cameras} seen by less than {config.min_cameras} cameras: start "
            "from better weights, or give more video"
        )
    largest = int(np.bincount(label[kept], minlength=1).max())
    if n_kept >= 2 and largest > cluster.GIANT * len(label):
        diagnosis.append(
            f"the largest of {n_kept} clusters holds {largest} of {len(label)} tracklets: if one person "
            "cannot have that many, start from better weights or give a smaller eps"
        )
    record = {
        "step": step,
        "eps": eps,
        "n_found": n_found,
        "dropped_small": selection.n_small,
        "dropped_one_camera": selection.n_few_cameras,
        "kept": int(kept.sum()),
        "kept_images": images,
        "kept_fraction": share,
        "agreement": agreement,
        "one_track": one_track(label, tracklets.source),
        "structure": structure,
    }
    return Assignment(
        labels=PseudoLabels.of(label),
        eps=eps,
        memory={
            "step": np.array(step),
            "label": label,
            "share": np.array(share),
            "agreement": np.array(agreement),
            "still": np.array(still),
            "eps": np.array(start),
        },
        diagnosis=tuple(diagnosis),
        record={name: float(value) for name, value in record.items() if math.isfinite(value)},
        last=still >= config.stop_steps,
    )


@dataclass(frozen=True, eq=False)
class _Compared:
    """Features as they are compared: unit rows of the tracklets `index`; what was left out is said."""

    rows: Array
    index: Array
    diagnosis: tuple[str, ...]


def _compared(config: Config, features: Array, camid: Array) -> _Compared:
    """Normalised features, without tracklets that are as the mean of their camera in every dimension."""
    made = normalise.per_camera(features, camid) if config.normalise else features
    index = np.flatnonzero(made.any(1))
    flat = len(made) - len(index)
    said = (f"{flat} tracklets look like the mean of their camera and are left out",) if flat else ()
    return _Compared(unit_rows(made[index]), index, said)


def _trouble(config: Config, n: int, near: float, chance: float, *, first: bool) -> str:
    """Why these features cannot be clustered; empty where they can."""
    if n < 4:
        return f"{n} tracklets are too few to cluster: give more video"
    if near == 0:
        return (
            f"all {n} tracklets look the same: the features do not tell people apart: start from better "
            "weights, or check for blank crops"
        )
    if first and near >= config.structure * chance:
        return (
            f"the nearest tracklets are {near / chance:.2f} times as far apart as chance would have them, "
            f"clusters need less than {config.structure:g}: these features see no people in the target; look "
            "at its crops, train longer on the source, or start from better weights"
        )
    return ""


def _selected(config: Config, label: Array, tracklets: Tracklets) -> Selection:
    """Cluster selection with every tracklet counted as often as it has crops; labels per tracklet."""
    own = tracklets.tracklet
    by_crop = select_clusters(
        label[own], tracklets.camid[own], min_size=config.min_images, min_cameras=config.min_cameras
    )
    of_tracklet = by_crop.label[tracklets.start[:-1]]
    return Selection(of_tracklet, by_crop.n_small, by_crop.n_few_cameras)


def _k_means(config: Config, rows: Array) -> Array:
    """⌊n / per_cluster⌋ clusters; one thread, as its sums depend on their number."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    k = max(1, len(rows) // config.per_cluster)
    with threadpool_limits(limits=1):
        found = KMeans(k, n_init=1, max_iter=100, random_state=config.seed).fit_predict(rows)
    return np.asarray(found, np.int64)
