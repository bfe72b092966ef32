"""The stages in order: ingest, train, index, search, report; and `run`, which does them all.

Each function takes paths and settings and leaves a folder or a file behind; the command line and the Python
interface call nothing else.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn import __version__
from tracklearn.app.plan import TrainPlan, pick_device, starting_networks
from tracklearn.app.plan import method_module as method_module
from tracklearn.app.plan import plan_training as plan_training
from tracklearn.app.plan import setting_models as setting_models
from tracklearn.app.plan import takes_source as takes_source
from tracklearn.app.selection import worst_mixed
from tracklearn.app.stages import Stages as Stages
from tracklearn.core.isolate import typical_step
from tracklearn.store import config as settings_store
from tracklearn.store.runs import Run, RunWriter
from tracklearn.types import Array, Tracklets

if TYPE_CHECKING:
    from tracklearn.app.search import Searcher
    from tracklearn.learn.method import Method
    from tracklearn.learn.network import Network
    from tracklearn.learn.ranks import Ranks
    from tracklearn.learn.train import Prepared, Round, State
    from tracklearn.store.ingest import Config as IngestConfig
    from tracklearn.store.tracklets import TrackletSet

Progress = Callable[[str, int, "int | None"], None]

# At most this many frames of a mixed tracklet keep their features for the report's projection.
MIXED_ROWS = 400


def train(
    plan: TrainPlan, out: str | Path, *, resume: bool = False, progress: Progress | None = None
) -> Iterator[Round]:
    """Train on a tracklet set without its labels and write the run to `out`, yielding each round as it ends.

    Where `torchrun` started several processes they share the work, and the first of them writes.

    Raises:
        FileExistsError: `out` exists and `resume` is off.
        ValueError: the set is unusable, or training stopped because nothing could be clustered; the message
            holds the diagnosis.
    """
    from tracklearn.learn.ranks import joined

    with joined(plan.device) as (ranks, device):
        yield from _train(plan, Path(out), resume, progress, ranks, device)


def _train(
    plan: TrainPlan, out: Path, resume: bool, progress: Progress | None, ranks: Ranks, device: str
) -> Iterator[Round]:
    import torch

    from tracklearn.learn import train as loop
    from tracklearn.store.tracklets import open_set

    tracklet_set = open_set(plan.set_path)
    crops = tracklet_set.crops(plan.network.height, plan.network.width)
    writer = RunWriter(out, _manifest(plan, tracklet_set, out), resume=resume) if ranks.rank == 0 else None
    if ranks.from_first(writer is not None and writer.finished):
        return
    began = time.perf_counter()
    # Made once, so that machines which round differently still start from the same numbers.
    networks = ranks.from_first(
        starting_networks(plan, crops, tracklet_set.tracklets) if ranks.rank == 0 else []
    )
    kept = None
    if writer is not None:
        if not (out / "start.safetensors").is_file():
            writer.write_start(networks[0].arrays(), networks[0].metadata())
        kept = writer.read_state() if resume else None
    kept = ranks.from_first(kept)
    last = state = loop.State(*kept) if kept else None
    method = plan.value()
    events = loop.train(
        method,
        networks,
        tracklet_set.tracklets,
        crops,
        config=plan.compute,
        device=device,
        ranks=ranks,
        seed=plan.seed,
        resume=state,
        progress=progress if ranks.rank == 0 else None,
    )
    broken = state.meta["broken_crops"] if state else 0
    for event in events:
        if isinstance(event, loop.Round):
            if writer is not None:
                writer.write_round(_round_record(event), _own_labels(event, method, writer), event.seconds)
                if event.keep:
                    writer.write_kept(event.index, event.keep)
            yield event
        elif writer is None:
            continue
        elif isinstance(event, loop.Prepared):
            _write_prepared(writer, event, tracklet_set.tracklets)
        else:
            # Crops that the run met before it was stopped are not all met again.
            broken = max(broken, getattr(crops, "broken", 0))
            if writer.rounds and "fit" not in event.meta:
                _write_stage(writer, method, event, networks[0])
            writer.write_state(event.arrays, {**event.meta, "broken_crops": broken})
            last = event
    if writer is None:
        return
    if last is None or not writer.rounds:
        raise ValueError("training ended before its first round: set the number of epochs to 1 or more")
    writer.manifest["broken_crops"] = broken
    writer.manifest["threads"] = torch.get_num_threads()
    writer.manifest["processes"] = ranks.size
    writer.finish(
        [loop.teacher_arrays(last, k) for k in range(len(networks))],
        networks[0].metadata(),
        seconds={"total": time.perf_counter() - began},
    )


def _own_labels(event: Round, method: Method, writer: RunWriter) -> Array:
    """The labels of the run's own tracklets; −1 for all where the round learned from other material."""
    if next(s for s in method.stages if s.name == event.stage).material is None:
        return event.labels.label
    return np.full(writer.manifest["isolation"]["n_after"], -1)


def _write_stage(writer: RunWriter, method: Method, state: State, network: Network) -> None:
    """Keep the teacher where labels that stayed for several rounds, or those of a source, came to an end."""
    from tracklearn.learn.events import teacher_arrays

    done = writer.rounds[-1]
    stage = next(s for s in method.stages if s.name == done["stage"])
    if stage.assign_every > 1 or stage.material is not None:
        writer.write_stage(done["index"], stage.name, teacher_arrays(state), network.metadata())


def _manifest(plan: TrainPlan, tracklet_set: TrackletSet, out: str | Path) -> dict[str, Any]:
    import torch

    return {
        "tracklearn": __version__,
        "digest": plan.digest,
        "method": plan.method,
        "settings": plan.config.model_dump(mode="json"),
        "network": plan.network.model_dump(mode="json"),
        "compute": plan.compute.model_dump(mode="json"),
        "weights": plan.weights,
        "preset": plan.preset,
        "device": plan.device,
        "seed": plan.seed,
        "set": {"path": _relative(plan.set_path, out), "digest": tracklet_set.digest},
        "labels_used": [*labels_used(tracklet_set), *_source_labels(plan)],
        "source": None if plan.source is None else _relative(plan.source, out),
        "versions": {
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def labels_used(tracklet_set: TrackletSet) -> list[str]:
    """What the tracklets of a set owe to ground truth, one line each, for the record of what learns from it.

    Noise is simulated with the truth; at r_FM 1 and r_SW 1 that is one tracklet per person and camera.
    """
    noise = tracklet_set.manifest.get("settings", {}).get("noise")
    if noise is None:
        found = [s["note"] for s in tracklet_set.manifest["sources"] if s.get("labels_used")]
        return list(dict.fromkeys(found))
    asked = noise["asked"]
    if asked["r_FM"] == asked["r_SW"] == 1:
        return ["tracklets were made with labels: one for each person and camera"]
    return [f"tracklets were made with labels: noise at r_FM {asked['r_FM']:g}, r_SW {asked['r_SW']:g}"]


def _source_labels(plan: TrainPlan) -> list[str]:
    """What a run owes to the labels of its source."""
    if plan.source is None:
        return []
    return [f"the network learned from the labelled set {plan.source.name} first"]


def _relative(path: str | Path, folder: str | Path) -> str:
    """`path` as seen from `folder`, so that both may move together; links are followed first."""
    return os.path.relpath(Path(path).resolve(), Path(folder).resolve())


def _write_prepared(writer: RunWriter, event: Prepared, original: Tracklets) -> None:
    """Keep parts, similarities, and the features of the most mixed tracklets for the report's pictures."""
    rows = mixed_rows(original, event.part, event.similarity)
    writer.write_isolation(
        {
            "part": event.part.astype(np.int32),
            "similarity": event.similarity.astype(np.float32),
            "row": rows,
            "feature": event.features[rows].astype(np.float32),
        },
        {
            "n_before": event.n_before,
            "n_after": event.n_after,
            "dropped": event.dropped,
            "dropped_fraction": event.dropped / max(original.n_crops, 1),
            "adjacent_distance": typical_step(event.similarity),
        },
    )


def mixed_rows(tracklets: Tracklets, part: Array, similarity: Array) -> Array:
    """First rows of the tracklets that isolation found most mixed, worst first."""
    start = tracklets.start
    worst = worst_mixed(tracklets, part, similarity)
    found = [np.arange(start[i], min(start[i + 1], start[i] + MIXED_ROWS)) for i in worst]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _round_record(event: Round) -> dict[str, Any]:
    return {
        "index": event.index,
        "stage": event.stage,
        "n_clusters": event.n_clusters,
        "noise_fraction": event.noise_fraction,
        "largest_cluster": event.largest_cluster,
        "eps": event.eps,
        "agreement": None if np.isnan(event.agreement) else event.agreement,
        "losses": event.losses,
        "accuracy": event.accuracy,
        "n_iterations": event.n_iterations,
        "record": event.record,
        "diagnosis": list(event.diagnosis),
    }


# ---------------------------------------------------------------------------------- features and index


def load_network(run: Run, which: str | Path = "weights") -> Network:
    """The trained teacher of a run, in eval mode; "start": before training; a path: one of `Run.stages`."""
    from tracklearn.learn import backbone
    from tracklearn.store import weights as weight_store

    arrays, info = weight_store.load(run.weights_path(which), backbone=None)
    network = backbone.build(backbone.Config(**run.manifest["network"]), seed=0)
    network.load_weights(arrays, info=info)
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

    crops = tracklet_set.crops(network.config.height, network.config.width)
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
    from tracklearn.store import gallery
    from tracklearn.store.tracklets import open_set

    opened, tracklet_set = Run(run), open_set(tracklets)
    path = opened.path / "gallery"
    if path.exists() and not resume:
        raise FileExistsError(f"{path} exists: replace it with --resume")
    parts = isolated(opened, tracklet_set)
    device = pick_device(device)
    features = tracklet_features(load_network(opened), tracklet_set, parts, device=device, progress=progress)
    manifest = {
        "tracklearn": __version__,
        "run": opened.manifest["digest"],
        "set": {"path": _relative(tracklets, opened.path), "digest": tracklet_set.digest},
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
    from tracklearn.store.tracklets import open_set

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
        warnings=[line[0].upper() + line[1:] for line in manifest.get("labels_used", [])],
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


def _sources(tracklet_set: TrackletSet) -> list[dict[str, Any]]:
    """What ingest counted in each source, flat."""
    return [{**source, **source.get("counts", {})} for source in tracklet_set.manifest["sources"]]


def _skipped(tracklet_set: TrackletSet, manifest: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """Input that was left out: source, why, how many."""
    found = []
    for source in tracklet_set.manifest["sources"]:
        name = source["camera"]
        if source.get("reason"):
            found.append((name, str(source["reason"]), 1))
        found += [(name, f"{item['item']}: {item['reason']}", int(item["n"])) for item in source["skipped"]]
    if manifest.get("broken_crops"):
        found.append(("crops", "pictures that could not be decoded", int(manifest["broken_crops"])))
    return found


def example_searches(run: Run, *, n: int = 5, k: int = 10) -> dict[str, Any]:
    """`searches` and `search_picture` of a report: n tracklets of the gallery, spread over it, searched for.

    Empty where there is no gallery yet, or its tracklet set has gone.
    """
    from tracklearn.app.report import SearchExample
    from tracklearn.store.gallery import open_gallery
    from tracklearn.store.tracklets import open_set

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
    found = gallery.search(gallery.features[query], min(k, len(gallery) - 1), exclude=query)
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
    from tracklearn.store.gallery import open_gallery

    path = run.path / "gallery"
    if not path.is_dir():
        return False
    origin = open_gallery(path).manifest["origin"]
    return origin["run"] == run.manifest["digest"] and origin["set"]["digest"] == set_digest


# ------------------------------------------------------------------------------------------------- run


def run(
    sources: Sequence[Any],
    out: str | Path,
    *,
    ingest_config: IngestConfig,
    plan: Callable[[Path], TrainPlan],
    resume: bool = False,
    progress: Progress | None = None,
    on_round: Callable[[Round], None] | None = None,
    extra_report: Callable[[], dict[str, Any]] | None = None,
    command: str = "",
    salt: str = "",
) -> dict[str, Any]:
    """Ingest, train, index and report in one, each stage skipped when its inputs and settings are unchanged.

    Args:
        sources: what `ingest` takes.
        out: folder for set, run and report.html.
        ingest_config: settings of ingest.
        plan: makes the training plan for the path of the set; called before the set is there.
        resume: go on in an existing folder.
        on_round: told of every round.
        extra_report: further contents for the report, called when training is done.
        command: the command line that the report shows.
        salt: joins every stage's digest; another salt, another result.

    Returns:
        Paths and seconds per stage; a stage that was not run again keeps the seconds it took.

    Raises:
        FileExistsError: `out` exists and `resume` is off.
    """
    from tracklearn.store import ingest as ingest_store
    from tracklearn.store.tracklets import open_set

    out = Path(out)
    if out.exists() and not resume:
        raise FileExistsError(f"{out} exists: go on with --resume, or choose another --out")
    set_path, run_path, report_path = out / "set", out / "run", out / "report.html"
    # Everything that can be refused is refused before hours of video are read or an old result is moved.
    # Sources come first: a mistyped file name should not wait for weights to be downloaded.
    ingest_store.check(sources, config=ingest_config)
    training = plan(set_path)
    request = ingest_store.request_digest(sources, config=ingest_config)
    stages = Stages(out)
    with stages.stage("ingest", settings_store.digest([request, salt]), set_path) as needed:
        if needed:
            ingest_store.ingest(
                sources,
                set_path,
                config=ingest_config,
                resume=True,
                device=training.device,
                progress=progress,
            )

    trained = settings_store.digest([training.digest, salt])
    with stages.stage("train", trained, run_path) as needed:
        if needed:
            for event in train(training, run_path, resume=True, progress=progress):
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
            report(run_path, out=report_path, command=command, seconds=stages.seconds, **extra)
    return {"set": set_path, "run": run_path, "report": report_path, "seconds": stages.seconds}
