"""The gallery of a run: every part of the tracks of some sets, embedded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tracklearn import __version__
from tracklearn.app.model import shards
from tracklearn.app.model.device import pick_device
from tracklearn.app.model.of_run import load_network, parts_of, tracklet_features
from tracklearn.store.files import relative
from tracklearn.store.gallery.database import connect, reserved, split_url
from tracklearn.store.lock import locked
from tracklearn.store.runs import Run
from tracklearn.store.workers.chosen import engine_of
from tracklearn.types import Array, Progress, Refusal

if TYPE_CHECKING:
    from tracklearn.app.search.searcher import Searcher
    from tracklearn.store.gallery.entries import Sent


@dataclass(frozen=True)
class Recall:
    """How many of the nearest a database's graph finds.

    Args:
        share: of the k nearest entries, on average. k: how many nearest. queries: entries that were asked
            for.
    """

    share: float
    k: int
    queries: int

    def __str__(self) -> str:
        return (
            f"recall {self.share:.3f}: of the {self.k} nearest, measured on {self.queries} of its own entries"
        )


def index(
    run: str | Path,
    tracklets: str | Path | Sequence[str | Path],
    *,
    gallery: str | None = None,
    add: bool = False,
    device: str | None = None,
    workers: int | None = None,
    on: str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Searcher:
    """Embed every part of the tracks of some sets with a trained run and write the gallery.

    The set that the run was trained on is indexed as isolation left it; in any other set each track is one
    part. Either is cut where a person said so. `workers` and `on` say who embeds, as for `ingest`; the
    gallery is the same. To a database they send what they have embedded themselves.

    Args:
        run: finished run.
        tracklets: a set, or several.
        gallery: where to: the URL of a database, or RUN/gallery; noted in the run, so that a search finds it.
        add: take the sets into the gallery that is there, those of the same content in their old place.
        device: where crops are embedded.
        resume: put it in the place of a gallery that is there.

    Raises:
        FileExistsError: there is a gallery already, and neither `resume` nor `add` is on.
        ValueError: no set, or one that is given twice; a database that cannot be reached, or into which
            another process indexes; `add` to a gallery of another run; there are no such workers.
    """
    from tracklearn.app.search.searcher import Searcher
    from tracklearn.store.gallery.entries import Content
    from tracklearn.store.gallery.open import (
        create_gallery,
        is_url,
        note_database,
        note_gallery,
        open_gallery,
    )
    from tracklearn.store.sets.tracklets import open_set

    opened = Run(run)
    engine = engine_of(on, workers)
    paths = [tracklets] if isinstance(tracklets, (str, Path)) else list(tracklets)
    sets = [open_set(path) for path in paths]
    paths = [one.path for one in sets]
    if len({one.digest for one in sets}) < len(paths) or not paths:
        raise Refusal("no set is given, or one of them twice: give each tracklet set once")
    folder = opened.path / "gallery"
    where = str(gallery) if gallery is not None else str(folder)
    if not is_url(where) and Path(where).resolve() != folder.resolve():
        raise Refusal(
            f"--gallery is {where!r}, expected postgresql://…; a gallery of files is always {folder}"
        )
    origin = {"tracklearn": __version__, "run": opened.manifest["digest"]}
    origin["set"] = {"path": relative(paths[0], opened.path), "digest": sets[0].digest}
    with reserved(where) if is_url(where) else locked(folder):
        if add:
            with open_gallery(where) as known:  # refused before anything is embedded
                if known.origin.get("run") != opened.manifest["digest"]:
                    raise Refusal(
                        f"{known.where} holds features of another run: index this one anew, with --resume"
                    )
        elif not is_url(where) and folder.exists() and not resume:
            raise FileExistsError(f"{folder} exists: replace it with --resume, or take a set in with --add")
        elif is_url(where) and not resume:
            _require_free(where)
        if is_url(where):
            if any(open_set(one.path).digest != one.digest for one in sets):
                raise Refusal("a set has changed meanwhile: something of it was forgotten: index again")
            connect(*split_url(where), make=True).close()
            note_database(opened.path, where)  # before anything is sent: `forget` looks there
        device = pick_device(device, elsewhere=on is not None)
        network = None if engine.apart else load_network(opened)
        contents = []
        for path, one in zip(paths, sets, strict=True):
            parts = parts_of(opened, one)
            features: Array | Sent
            if is_url(where) and network is None:
                features = shards.send_features(
                    opened, one, parts, url=where, device=device, engine=engine, progress=progress
                )
            elif network is None:
                features = shards.tracklet_features(
                    opened, one, parts, device=device, engine=engine, progress=progress
                )
            else:
                features = tracklet_features(network, one, parts, device=device, progress=progress)
            place = relative(path, opened.path)
            contents.append(Content(features, parts, one.cameras, digest=one.digest, path=place))
        if add:
            with open_gallery(where) as known:
                known.add(contents)
        else:
            create_gallery(where, contents, origin=origin, replace=resume).close()
        note_gallery(opened.path, where)
    return Searcher(opened.path, device=device if on is None else pick_device(None), gallery=where)


def _require_free(url: str) -> None:
    """Refuse a database's gallery that is there, before the features of another are computed."""
    from tracklearn.store.gallery.open import open_gallery

    try:
        found = open_gallery(url)
    except (FileNotFoundError, Refusal):
        return  # none, or one that says when it is written why not
    found.close()
    raise FileExistsError(f"{found.where} holds a gallery already: replace it with --resume, or use --add")


def recall_of(searcher: Searcher) -> Recall | None:
    """How many of the nearest a database finds, measured; None for files, whose search is exact."""
    from tracklearn.store.gallery.postgres import PostgresGallery

    gallery, k, queries = searcher.gallery, 10, 200
    if not isinstance(gallery, PostgresGallery):
        return None
    return Recall(gallery.recall(k=k, queries=queries), k, min(queries, len(gallery)))


def gallery_is_of(run: Run, set_digest: str) -> bool:
    """Whether the gallery in a run's folder was made with this run, from this set among others."""
    from tracklearn.store.gallery.open import open_gallery

    try:
        with open_gallery(run.path / "gallery") as found:
            digests = {each.digest for each in found.sets}
            return bool(found.origin["run"] == run.manifest["digest"] and set_digest in digests)
    except (ValueError, FileNotFoundError):  # none, half of one, a damaged one, or one of another version
        return False
