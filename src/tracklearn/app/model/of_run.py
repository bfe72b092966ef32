"""The network of a run, and what it makes of tracklets: their parts, their features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tracklearn.app.pipeline.starts import load_weights
from tracklearn.store.runs import Run
from tracklearn.store.sets.joined import JoinedSets, open_sets
from tracklearn.store.sets.tracklets import TrackletSet, open_set
from tracklearn.types import Array, Progress, Refusal, Tracklets

if TYPE_CHECKING:
    from tracklearn.learn.network import Network


def load_network(run: Run, which: str | Path = "weights") -> Network:
    """The trained teacher of a run, in eval mode; "start": before training; a path: one of `Run.stages`."""
    from tracklearn.learn import backbone
    from tracklearn.store import weights as weight_store

    arrays, info = weight_store.load(run.weights_path(which), backbone=None)
    network = backbone.build(backbone.Config(**run.manifest["network"]), seed=0)
    load_weights(network, arrays, info)
    return network.eval()


def isolated(run: Run, tracklet_set: TrackletSet, index: int | None = None) -> Tracklets:
    """A set's tracklets as the run's isolation left them; those of a set that it has not seen as they are.

    Of several sets as one, each is taken by itself. `index` is the round whose tracklets are asked for, by
    default the last.
    """
    own = run.rows_of(tracklet_set.digest)
    if own is not None:
        return tracklet_set.tracklets.split(run.isolation(index)[0]["part"][own])
    if isinstance(tracklet_set, JoinedSets) and len(tracklet_set.members) > 1:
        return tracklet_set.together([isolated(run, one, index) for one in tracklet_set.members])
    return tracklet_set.tracklets


def learned_from(run: Run) -> TrackletSet:
    """The set that a run learned from, or its sets as one.

    Raises:
        FileNotFoundError: one has gone.
        ValueError: another one lies in its place.
    """
    paths = [run.path / learned["path"] for learned in run.sets]
    for path, learned in zip(paths, run.sets, strict=True):
        if open_set(path).digest != learned["digest"]:
            raise Refusal(f"{path} is not the set that {run.path} learned from: put that back")
    return open_sets(paths)


def tracklet_features(
    network: Network,
    tracklet_set: TrackletSet,
    tracklets: Tracklets,
    *,
    device: str,
    progress: Progress | None = None,
) -> Array:
    """(t, d) float32 unit features: the mean over all crops of each tracklet (METHODS 2.6)."""
    from tracklearn.learn import embed

    crops = tracklet_set.crops(network.config.height, network.config.width, cache_bytes=0)  # read once
    features = embed.extract(network, crops, tracklets.crop, device=device, progress=progress)
    return embed.pool(features, tracklets.tracklet, len(tracklets))
