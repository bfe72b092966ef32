"""The gallery of a run: every part of a set's tracks, embedded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tracklearn import __version__
from tracklearn.app.model import shards
from tracklearn.app.model.device import pick_device
from tracklearn.app.model.of_run import isolated, load_network, tracklet_features
from tracklearn.store.files import relative
from tracklearn.store.lock import locked
from tracklearn.store.runs import Run
from tracklearn.store.workers.chosen import engine_of
from tracklearn.types import Progress

if TYPE_CHECKING:
    from tracklearn.app.search.searcher import Searcher


def index(
    run: str | Path,
    tracklets: str | Path,
    *,
    device: str | None = None,
    workers: int | None = None,
    on: str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Searcher:
    """Embed every part of a set's tracks with a trained run and write the gallery to RUN/gallery.

    The set that the run was trained on is indexed as isolation left it; in any other set each track is one
    part. `workers` and `on` say who embeds, as for `ingest`; the gallery is the same.

    Raises:
        FileExistsError: there is a gallery already and `resume` is off.
        ValueError: there are no such workers.
    """
    from tracklearn.app.search.searcher import Searcher
    from tracklearn.store.gallery import folder as gallery
    from tracklearn.store.sets.tracklets import open_set

    opened, tracklet_set = Run(run), open_set(tracklets)
    path = opened.path / "gallery"
    engine = engine_of(on, workers)
    with locked(path):
        if path.exists() and not resume:
            raise FileExistsError(f"{path} exists: replace it with --resume")
        parts = isolated(opened, tracklet_set)
        device = pick_device(device)
        if engine.apart:
            features = shards.tracklet_features(
                opened, tracklet_set, parts, device=device, engine=engine, progress=progress
            )
        else:
            network = load_network(opened)
            features = tracklet_features(network, tracklet_set, parts, device=device, progress=progress)
        manifest = {
            "tracklearn": __version__,
            "run": opened.manifest["digest"],
            "set": {"path": relative(tracklets, opened.path), "digest": tracklet_set.digest},
        }
        gallery.build(path, features, parts, tracklet_set.cameras, manifest=manifest, replace=True)
    return Searcher(opened.path, device=device)


def gallery_is_of(run: Run, set_digest: str) -> bool:
    """Whether the gallery in a run's folder was made with this run from this set."""
    from tracklearn.store.gallery.folder import open_gallery

    path = run.path / "gallery"
    try:
        origin = open_gallery(path).manifest["origin"]
    except (ValueError, FileNotFoundError):  # none, half of one, a damaged one, or one of another version
        return False
    return bool(origin["run"] == run.manifest["digest"] and origin["set"]["digest"] == set_digest)
