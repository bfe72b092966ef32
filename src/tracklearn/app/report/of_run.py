"""The data of the report, gathered from a run folder, its set and its gallery."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from datetime import date, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn.app import health
from tracklearn.app.formats import wall
from tracklearn.app.model.of_run import isolated, learned_from
from tracklearn.app.refusals import printable
from tracklearn.app.report import left_out
from tracklearn.core.shown import called
from tracklearn.store.runs import Run
from tracklearn.types import Array, Refusal

if TYPE_CHECKING:
    from tracklearn.store.sets.tracklets import TrackletSet


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
    from tracklearn.app.report.data import ReportData
    from tracklearn.app.report.page import build_report

    opened = Run(run)
    path = Path(out) if out is not None else opened.path / "report.html"
    if path.exists() and not resume:
        raise FileExistsError(f"{path} exists: replace it with --resume, or choose another --out")
    if "isolation" not in opened.manifest:
        raise Refusal(
            f"{opened.path} has not come to its first round: go on with tracklearn train … --resume"
        )
    tracklet_set = learned_from(opened)
    tracklets, parts = tracklet_set.tracklets, isolated(opened, tracklet_set)
    arrays, isolation = opened.isolation()
    owner = tracklets.tracklet[arrays["row"]]
    order = list(dict.fromkeys(owner.tolist()))
    labels = opened.labels
    manifest = opened.manifest
    notes = _numbering(tracklet_set)
    notes += [line[0].upper() + line[1:] for line in manifest.get("labels_used", [])]
    if found := health.of_run(opened, tracklet_set):
        notes += [health.HEADLINE[0].upper() + health.HEADLINE[1:], *map(str, found)]
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
        calibration=calibration_of(arrays, isolation),
        diagnosis=isolation.get("diagnosis", ()),
        label=labels[-1] if len(labels) else np.full(len(parts), -1),
        links=next(reversed(opened.kept().values()), {}),
        film=_films(tracklet_set),
        moment=tracklet_set.moment,
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
        people=people_of(opened, tracklet_set),
        **(example_searches(opened) | extra),
    )
    return build_report(data, path)


def calibration_of(arrays: Mapping[str, Array], isolation: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What isolation learned from pairs that are known without labels, with their distances.

    Args:
        arrays, isolation: of `Run.isolation`.

    Returns:
        `ReportData.calibration`; runs of before kept no distances.
    """
    return {
        name: {**found, "distances": {kind: arrays[f"{kind}.{name}"] for kind in ("same", "different")}}
        for name, found in isolation.get("calibration", {}).items()
        if f"same.{name}" in arrays and f"different.{name}" in arrays
    }


def people_of(run: Run, tracklet_set: TrackletSet) -> dict[str, Any] | None:
    """`ReportData.people` from the identities beside the run, where they are of it and of its sets.

    Of several sets tracks and crops are numbered through, as in the rest of the report.
    """
    from tracklearn.store.identities.folder import Identities

    try:
        found = Identities(run.path.parent / "identities")
    except (Refusal, FileNotFoundError):
        return None
    members = tracklet_set.members
    digests = {entry["digest"] for entry in found.manifest["sets"]}
    if found.manifest["run"] != run.manifest["digest"] or digests != {one.digest for one in members}:
        return None
    first = zip(tracklet_set.first_track.tolist(), tracklet_set.first_crop.tolist(), strict=True)
    before = {one.digest: at for one, at in zip(members, first, strict=False)}
    rows = []
    for row in found.rows:
        track, crop = before[row["set_digest"]]
        rows.append({**row, "track": row["track"] + track, "crop": row["crop"] + crop})
    doubted = found.manifest.get("doubted", False)  # tables of before did not tell
    return {"rows": rows, "notes": found.manifest["notes"], "doubted": doubted}


def _numbering(tracklet_set: TrackletSet) -> list[str]:
    """Which tracks are of which set, where there are several."""
    members = tracklet_set.members
    if len(members) == 1:
        return []
    spans = zip(members, pairwise(tracklet_set.first_track.tolist()), strict=True)
    return [f"Tracks {a} to {b - 1} are those of {printable(one.path.name)}" for one, (a, b) in spans]


def _films(tracklet_set: TrackletSet) -> Array | None:
    """(t,) the source that each track was filmed in, −1 where it is a folder of crops.

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
    """`searches` and `search_picture` of a report: n parts of the gallery, spread over it, searched for.

    Each in all other tracks, of which the nearest part is shown, as `search` does.

    Empty where there is no gallery yet, or its tracklet set has gone.
    """
    from tracklearn.app.report.data import SearchExample
    from tracklearn.app.search.hits import hits
    from tracklearn.store.gallery.open import gallery_of, is_url, open_gallery
    from tracklearn.store.sets.tracklets import open_set

    path = gallery_of(run.path)
    if not is_url(path) and not Path(path).is_dir():
        return {}
    gallery = open_gallery(path)
    wheres = [run.path / each.path for each in gallery.sets]
    # The report shows the pictures of one set.
    number = next(
        (i for i, each in enumerate(gallery.sets) if each.digest == run.manifest["set"]["digest"]), 0
    )
    entries = gallery.entries.take(np.flatnonzero(gallery.entries.set == number))
    if len(entries) < 2 or not wheres[number].is_dir():
        return {}
    searched = open_set(wheres[number])
    n_tracks = len(np.unique(entries.source))
    if n_tracks < 2:
        return {}
    # Long parts make the clearest queries; one in each n-th of the gallery keeps cameras mixed.
    groups = np.array_split(np.arange(len(entries)), n)
    query = np.array([g[np.argmax(entries.n_crops[g])] for g in groups if len(g)])
    searches = []
    for q in query:
        own = np.flatnonzero(entries.source == entries.source[q])
        found = gallery.search(
            gallery.feature(int(entries.row[q])),
            min(k, n_tracks - 1),
            exclude=entries.row[own][None],
            sets=[number],
            one_a_track=True,
        )
        results = hits(gallery, found, lambda _, track, seconds: searched.moment(track, seconds))
        query_name = called(int(entries.source[q]), int(entries.part[q]), int(entries.n_parts[q]))
        searches.append(
            SearchExample(
                query=int(entries.crop[q]),
                results=[hit.crop for hit in results],
                distance=[hit.distance for hit in results],
                query_caption=_caption(
                    entries.camera[q],
                    query_name,
                    searched.moment(int(entries.source[q]), float(entries.start[q])),
                ),
                captions=[_caption(hit.camera, hit.name, hit.at) for hit in results],
            )
        )
    gallery.close()
    return {"searches": searches, "search_picture": searched.image}


def _caption(camera: str, name: str, at: datetime | None) -> str:
    """Number, camera, and where they are known date and time: a line each."""
    return "\n".join([f"#{name}", camera, *wall(at).split(" ", 1)]).rstrip()
