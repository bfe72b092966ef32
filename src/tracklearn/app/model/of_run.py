"""The network of a run, and what it makes of tracklets: their parts, their features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tracklearn.app.pipeline.starts import load_weights
from tracklearn.core.pieces import taken_in
from tracklearn.store.identities.journal import Place, journal_path, read_cuts
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


def isolated(
    run: Run, tracklet_set: TrackletSet, index: int | None = None, *, aside: bool = False
) -> Tracklets:
    """A set's tracklets as the run's isolation left them; those of a set that it has not seen as they are.

    Of several sets as one, each is taken by itself. `index` is the round whose tracklets are asked for, by
    default the last. With `aside` those are among them that its method set aside for its training.
    """
    tracklets = tracklet_set.tracklets
    own = run.rows_of(tracklet_set.digest)
    if own is not None:
        part = run.isolation(index)[0]["part"][own]
        return tracklets.split(taken_in(part) if aside else part)
    if isinstance(tracklet_set, JoinedSets) and len(tracklet_set.members) > 1:
        return tracklet_set.together([isolated(run, one, index, aside=aside) for one in tracklet_set.members])
    # Tracks that lost every crop (`tracklearn forget`) are parts of nothing.
    whole = (tracklets.length > 0).all()
    return tracklets if whole else tracklets.split(np.zeros(tracklets.n_crops, np.int64))


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


def parts_of(run: Run, tracklet_set: TrackletSet, also: Sequence[Place] = ()) -> Tracklets:
    """All that isolation left, and cut where a person said so; what is indexed and joined to people.

    Labels of rounds are of the parts that training saw (`isolated`). `also`: cuts beside those of the run's
    journal, each by the first frame of its second piece.
    """
    if isinstance(tracklet_set, JoinedSets) and len(tracklet_set.members) > 1:
        return tracklet_set.together([parts_of(run, one, also) for one in tracklet_set.members])
    tracklets = isolated(run, tracklet_set, aside=True)
    cuts: dict[int, list[int]] = {}
    for place in {*read_cuts(journal_path(run.path)), *also}:
        if place.set == tracklet_set.digest:
            cuts.setdefault(place.track, []).append(place.frame)
    if not cuts:
        return tracklets
    piece = np.zeros(tracklets.n_crops, np.int64)
    source = tracklets.source[tracklets.tracklet]
    for track, frames in cuts.items():
        own = np.flatnonzero(source == track)
        piece[own] = np.searchsorted(np.sort(frames), tracklets.frame[own], side="right")
    return tracklets.split(piece)


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
