"""The stages in order: ingest, train, index, search, report; and `run`, which does them all.

Each function takes paths and settings and leaves a folder or a file behind; the command line and the Python
interface call nothing else.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn import __version__
from tracklearn.app import left_out
from tracklearn.app.plan import TrainPlan, load_weights, pick_device
from tracklearn.app.plan import method_module as method_module
from tracklearn.app.plan import plan_training as plan_training
from tracklearn.app.plan import setting_models as setting_models
from tracklearn.app.plan import takes_source as takes_source
from tracklearn.app.stages import Stages as Stages
from tracklearn.app.training import labels_used as labels_used
from tracklearn.app.training import mixed_rows as mixed_rows
from tracklearn.app.training import relative
from tracklearn.app.training import train as train
from tracklearn.store import config as settings_store
from tracklearn.store.lock import locked
from tracklearn.store.runs import Run
from tracklearn.types import Array, Progress, Tracklets

if TYPE_CHECKING:
    from tracklearn.app.search import Searcher
    from tracklearn.learn.network import Network
    from tracklearn.learn.train import Round
    from tracklearn.store.film.clocks import Start
    from tracklearn.store.film.live import Live
    from tracklearn.store.ingest.ingest import Config as IngestConfig
    from tracklearn.store.sets.tracklets import TrackletSet


# ---------------------------------------------------------------------------------- features and index


def load_network(run: Run, which: str | Path = "weights") -> Network:
    """The trained teacher of a run, in eval mode; "start": before training; a path: one of `Run.stages`."""
    from tracklearn.learn import backbone
    from tracklearn.store import weights as weight_store

    arrays, info = weight_store.load(run.weights_path(which), backbone=None)
    network = backbone.build(backbone.Config(**run.manifest["network"]), seed=0)
    load_weights(network, arrays, info)
    return network.eval()


def isolated(run: Run, tracklet_set: TrackletSet) -> Tracklets:
    """The set's tracklets as the run's isolation left them; another set's tracklets as they are."""
    tracklets = tracklet_set.tracklets
    if run.manifest["set"]["digest"] != tracklet_set.digest:
        return tracklets
    return tracklets.split(run.isolation()[0]["part"])


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


def index(
    run: str | Path,
    tracklets: str | Path,
    *,
    device: str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Searcher:
    """Embed every tracklet of a set with a trained run and write the gallery to RUN/gallery.

    The set that the run was trained on is indexed as isolation left it; any other set as it is.

    Raises:
        FileExistsError: there is a gallery already and `resume` is off.
    """
    from tracklearn.app.search import Searcher
    from tracklearn.store.gallery import folder as gallery
    from tracklearn.store.sets.tracklets import open_set

    opened, tracklet_set = Run(run), open_set(tracklets)
    path = opened.path / "gallery"
    with locked(path):
        if path.exists() and not resume:
            raise FileExistsError(f"{path} exists: replace it with --resume")
        parts = isolated(opened, tracklet_set)
        device = pick_device(device)
        network = load_network(opened)
        features = tracklet_features(network, tracklet_set, parts, device=device, progress=progress)
        manifest = {
            "tracklearn": __version__,
            "run": opened.manifest["digest"],
            "set": {"path": relative(tracklets, opened.path), "digest": tracklet_set.digest},
        }
        gallery.build(path, features, parts, tracklet_set.cameras, manifest=manifest, replace=True)
    return Searcher(opened.path, device=device)


# ---------------------------------------------------------------------------------------------- report


def report(
    run: str | Path,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    title: str | None = None,
    command: str = "",
    seconds: Mapping[str, float] | None = None,
    **extra: Any,
) -> Path:
    """Write a run's report, one HTML file, and return its path.

    Args:
        run: run folder.
        out: file to write, RUN/report.html by default.
        resume: replace a report that is there.
        title: heading.
        command: the command line to show.
        seconds: time per stage; the training's parts when None.
        extra: further fields of `ReportData`: noise, scores, searches, …

    Raises:
        FileExistsError: `out` exists and `resume` is off.
        FileNotFoundError: no such run, or its tracklet set has gone.
    """
    from tracklearn.app.report import ReportData, build_report
    from tracklearn.store.sets.tracklets import open_set

    opened = Run(run)
    path = Path(out) if out is not None else opened.path / "report.html"
    if path.exists() and not resume:
        raise FileExistsError(f"{path} exists: replace it with --resume, or choose another --out")
    if "isolation" not in opened.manifest:
        raise ValueError(
            f"{opened.path} has not come to its first round: go on with tracklearn train … --resume"
        )
    tracklet_set = open_set(opened.path / opened.manifest["set"]["path"])
    if opened.manifest["set"]["digest"] != tracklet_set.digest:
        raise ValueError(f"{tracklet_set.path} is not the set that {opened.path} learned from: put that back")
    tracklets, parts = tracklet_set.tracklets, isolated(opened, tracklet_set)
    arrays, _ = opened.isolation()
    owner = tracklets.tracklet[arrays["row"]]
    order = list(dict.fromkeys(owner.tolist()))
    labels = opened.labels
    manifest = opened.manifest
    notes = [line[0].upper() + line[1:] for line in manifest.get("labels_used", [])]
    if lost := opened.lost_times:
        notes.append(f"{lost} damaged lines of times.jsonl are left out of the seconds")
        warnings.warn(f"{opened.path}: {notes[-1]}", stacklevel=1)
    data = ReportData(
        title=title or "Tracklearn report",
        command=command,
        cameras=tracklet_set.cameras,
        tracklets=tracklets,
        isolated=parts,
        picture=tracklet_set.image,
        part=arrays["part"],
        similarity=arrays["similarity"],
        features={i: arrays["feature"][owner == i] for i in order},
        rounds=opened.rounds,
        label=labels[-1] if len(labels) else np.full(len(parts), -1),
        links=next(reversed(opened.kept().values()), {}),
        film=_films(tracklet_set),
        warnings=notes,
        settings={
            "method": manifest["method"],
            "preset": manifest["preset"],
            "seed": manifest["seed"],
            "device": manifest["device"],
            "threads": manifest.get("threads"),
            "network": manifest["network"],
            "train": manifest.get("compute", {}),
            **({"source": manifest["source"]} if manifest.get("source") else {}),
            manifest["method"]: manifest["settings"],
            "ingest": tracklet_set.manifest.get("settings", {}),
            "versions": manifest["versions"],
        },
        weights=manifest["weights"]["name"],
        weights_sha256=manifest["weights"]["sha256"],
        seconds=dict(seconds) if seconds is not None else opened.seconds,
        sources=_sources(tracklet_set),
        skipped=_skipped(tracklet_set, manifest),
        created=f"{date.today().isoformat()} · tracklearn {manifest['tracklearn']}",
        **(example_searches(opened) | extra),
    )
    return build_report(data, path)


def _films(tracklet_set: TrackletSet) -> Array | None:
    """(t,) the source that each tracklet was filmed in, −1 where it is a folder of crops.

    None where noise was simulated: frame numbers are then places in rearranged tracklets.
    """
    if "noise" in tracklet_set.manifest.get("settings", {}):
        return None
    filmed = [source.get("kind") in ("video", "results") for source in tracklet_set.manifest["sources"]]
    return np.where(np.array(filmed, bool)[tracklet_set.file], tracklet_set.file, -1)


def _sources(tracklet_set: TrackletSet) -> list[dict[str, Any]]:
    """What ingest counted in each source, flat."""
    return [{**source, **source.get("counts", {})} for source in tracklet_set.manifest["sources"]]


def _skipped(tracklet_set: TrackletSet, manifest: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """Input that was left out: source, why, how many."""
    return [
        (e["source"], f"{e['item']}: {e['reason']}" if e["kind"] == "part" else e["reason"], e["n"])
        for e in left_out.losses(tracklet_set.manifest, manifest)
    ]


def example_searches(run: Run, *, n: int = 5, k: int = 10) -> dict[str, Any]:
    """`searches` and `search_picture` of a report: n tracklets of the gallery, spread over it, searched for.

    Empty where there is no gallery yet, or its tracklet set has gone.
    """
    from tracklearn.app.report import SearchExample
    from tracklearn.store.gallery.folder import open_gallery
    from tracklearn.store.sets.tracklets import open_set

    path = run.path / "gallery"
    if not path.is_dir():
        return {}
    gallery = open_gallery(path)
    where = run.path / gallery.manifest["origin"]["set"]["path"]
    if len(gallery) < 2 or not where.is_dir():
        return {}
    # Long tracklets make the clearest queries; one in each n-th of the gallery keeps cameras mixed.
    groups = np.array_split(np.arange(len(gallery)), n)
    query = np.array([g[np.argmax(gallery.entries.n_crops[g])] for g in groups if len(g)])
    found = gallery.search(
        np.stack([gallery.feature(int(q)) for q in query]), min(k, len(gallery) - 1), exclude=query
    )
    crop, camera = gallery.entries.crop, gallery.entries.camera
    searches = [
        SearchExample(
            query=int(crop[q]),
            results=crop[rows].tolist(),
            distance=distance.tolist(),
            query_caption=camera[q],
            captions=[camera[r] for r in rows],
        )
        for q, rows, distance in zip(query, found.index, found.distance, strict=True)
    ]
    return {"searches": searches, "search_picture": open_set(where).image}


def _gallery_is_of(run: Run, set_digest: str) -> bool:
    """Whether the gallery in a run's folder was made with this run from this set."""
    from tracklearn.store.gallery.folder import open_gallery

    path = run.path / "gallery"
    try:
        origin = open_gallery(path).manifest["origin"]
    except (ValueError, FileNotFoundError):  # none, half of one, a damaged one, or one of another version
        return False
    return bool(origin["run"] == run.manifest["digest"] and origin["set"]["digest"] == set_digest)


# ------------------------------------------------------------------------------------------------- run


def run(
    sources: Sequence[Any],
    out: str | Path,
    *,
    ingest_config: IngestConfig,
    plan: Callable[[Path], TrainPlan],
    resume: bool = False,
    strict: bool = False,
    live: Live | None = None,
    start: Start | None = None,
    progress: Progress | None = None,
    on_round: Callable[[Round], None] | None = None,
    tell: Callable[[str], None] | None = None,
    extra_report: Callable[[], dict[str, Any]] | None = None,
    command: str = "",
    salt: str = "",
    remake: bool = False,
) -> dict[str, Any]:
    """Ingest, train, index and report in one, each stage skipped when its inputs and settings are unchanged.

    Args:
        sources: what `ingest` takes.
        out: folder for set, run and report.html.
        ingest_config: settings of ingest.
        plan: makes the training plan for the path of the set; called before the set is there.
        resume: go on in an existing folder.
        strict: refuse all when any source cannot be read, instead of leaving it out.
        live: how cameras are recorded.
        start: when the films of a camera began.
        on_round: told of every round.
        tell: told what a person should know of the folder, a line each: damage that was passed over.
        extra_report: further contents for the report, called when training is done.
        command: the command line that the report shows.
        salt: joins every stage's digest; another salt, another result.
        remake: make anew what `stages.json` does not tell of, where all inputs are the program's own.

    Returns:
        Paths and seconds per stage; a stage that was not run again keeps the seconds it took.

    Raises:
        FileExistsError: `out` exists and `resume` is off.
    """
    from tracklearn.store.ingest import ingest as ingest_store
    from tracklearn.store.sets.tracklets import open_set

    out = Path(out)
    with locked(out):
        if out.exists() and not resume:
            raise FileExistsError(f"{out} exists: go on with --resume, or choose another --out")
        set_path, run_path, report_path = out / "set", out / "run", out / "report.html"
        # Everything that can be refused is refused before hours of video are read or an old result is moved.
        # Sources come first: a mistyped file name should not wait for weights to be downloaded.
        refused = ingest_store.check(sources, config=ingest_config, strict=strict, live=live, start=start)
        training = plan(set_path)
        cameras = ingest_store.n_cameras(sources, config=ingest_config)
        if cameras is not None:
            training.check_cameras(cameras)
        request = ingest_store.request_digest(sources, config=ingest_config, live=live, start=start)
        stages = Stages(out, tell=tell, remake=remake)
        with stages.stage("ingest", settings_store.digest([request, salt]), set_path) as needed:
            if needed:
                ingest_store.ingest(
                    sources,
                    set_path,
                    config=ingest_config,
                    resume=True,
                    device=training.device,
                    refused=refused,
                    live=live,
                    start=start,
                    progress=progress,
                )

        trained = settings_store.digest([training.digest, salt])
        with stages.stage("train", trained, run_path) as needed:
            if needed:
                for event in train(training, run_path, resume=True, progress=progress, tell=tell):
                    if on_round:
                        on_round(event)

        if not _gallery_is_of(Run(run_path), open_set(set_path).digest):
            stages.forget("index")
        with stages.stage("index", trained, run_path / "gallery") as needed:
            if needed:
                index(run_path, set_path, device=training.device, resume=True, progress=progress)

        extra = extra_report() if extra_report else {}
        content = settings_store.digest([trained, __version__, extra.get("scores")])
        with stages.stage("report", content, report_path) as needed:
            if needed:
                report(
                    run_path, out=report_path, resume=True, command=command, seconds=stages.seconds, **extra
                )
        return {"set": set_path, "run": run_path, "report": report_path, "seconds": stages.seconds}
