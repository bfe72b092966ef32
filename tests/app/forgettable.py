"""A small output folder with all that can be forgotten: set, run, gallery, identities, journal, pictures."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from tests.faults.material import figure
from tracklearn.app.identities import link
from tracklearn.app.search import index
from tracklearn.app.search.searcher import Searcher
from tracklearn.learn import backbone
from tracklearn.store.picture.crops import encode_jpeg
from tracklearn.store.runs import RunWriter
from tracklearn.store.sealed import write_sealed
from tracklearn.store.sets.joined import open_sets
from tracklearn.store.sets.setwriter import SetWriter

CROPS = 6  # of each track
REPORT = b"<img src='data:image/jpeg;base64,AAAA'>"
# Who is in which track, in whose camera: track 4 holds two people, whom isolation parts, and a crop of
# nobody.
TRACKS = (("hall", "A"), ("hall", "B"), ("yard", "A"), ("yard", "C"), ("yard", "AB"), ("hall", "C"))
PARTS = {4: (0, 0, 0, -1, 1, 1)}
A, B, C = 1, 2, 3  # the numbers that they get
SAME = ("0=2", "0=4.1", "1=4.2", "3=5")


def write_set(path: Path, *, start: str | None = "2026-05-01T08:00:00+02:00", tracks=TRACKS, seed=0) -> Path:
    """A set of films of two cameras, one hour apart, in shards of a few crops each, with its truth."""
    writer = SetWriter(path, shard_bytes=9000)
    with writer:
        for number, camera in enumerate(("hall", "yard")):
            part = writer.part(f"{number}{camera}".encode().hex() + "0" * 24, truth=True)
            for track, (where, who) in enumerate(tracks):
                if where != camera:
                    continue
                people = [ord(name) - ord("A") for name in (who * CROPS)[:: len(who)][:CROPS]]
                if len(who) == 2:
                    people = [0, 0, 0, 0, 1, 1]
                frame = 100 * track + np.arange(CROPS)
                box = np.tile([10.0 + track, 20, 34 + track, 80], (CROPS, 1)) + np.arange(CROPS)[:, None]
                part.add(
                    [encode_jpeg(figure(p, seed + 10 * track + i)) for i, p in enumerate(people)],
                    camera=camera,
                    frame=frame,
                    time=frame / 10,
                    box=box,
                    score=np.full(CROPS, 0.5 + 0.05 * track),
                    pid=people,
                )
            began = None if start is None else start.replace("T08", f"T{8 + number:02d}")
            part.finish(
                {"camera": camera, "path": f"{camera}.mp4", "kind": "video", "status": "ok", "reason": None}
                | {"start": began, "counts": {}, "skipped": [], "video": {"seconds": 60.0}}
            )
        writer.finish({"made": "for tests"})
    return path


def order(path: Path) -> dict[int, int]:
    """The number in the set of each of TRACKS: sets hold one camera's after the other's."""
    by_camera = [t for camera in ("hall", "yard") for t, (where, _) in enumerate(TRACKS) if where == camera]
    return {track: number for number, track in enumerate(by_camera)}


def write_run(path: Path, *sets: Path, finished: bool = True) -> Path:
    """A run of a random network that isolated the first set as PARTS says, and left the others whole;
    labels, features of the mixed track."""
    opened = open_sets(sets)
    learned = [
        {"path": os.path.relpath(place, path), "digest": one.digest, "n_crops": one.n_crops}
        for place, one in zip(sets, opened.members, strict=True)
    ]
    config = backbone.Config(backbone="tiny", height=64, width=32)
    network = backbone.build(config, seed=1)
    writer = RunWriter(
        path,
        {
            "digest": "0" * 64,
            "method": "tmc",
            "seed": 0,
            "network": config.model_dump(),
            "tracklearn": "0",
            "preset": "cpu",
            "device": "cpu",
            "settings": {},
            "weights": {"name": "none", "sha256": ""},
            "versions": {},
            "set": learned[0] if len(learned) == 1 else {"digest": opened.digest, "sets": learned},
        },
    )
    tracklets, number = opened.tracklets, order(sets[0])
    part = np.zeros(tracklets.n_crops, np.int32)
    rows = np.zeros(0, np.int64)
    for track, parts in PARTS.items():
        rows = np.arange(*tracklets.start[number[track] : number[track] + 2])
        part[rows] = parts
    isolated = tracklets.split(part)
    rng = np.random.default_rng(5)
    feature = rng.normal(size=(len(rows), 16)).astype(np.float32)
    similarity = np.where(np.arange(tracklets.n_crops) % CROPS, 0.9, np.nan).astype(np.float32)
    summary = {"n_before": len(tracklets), "n_after": len(isolated), "dropped": 1, "dropped_fraction": 1 / 36}
    with writer:
        writer.write_start(network.arrays(), network.metadata())
        writer.write_isolation(
            {"part": part, "similarity": similarity, "row": rows, "feature": feature},
            {**summary, "adjacent_distance": 0.1, "calibration": {}, "diagnosis": []},
        )
        for i in range(2):
            record = {"index": i, "stage": "inter", "n_clusters": 3, "noise_fraction": 0.0}
            record |= {"largest_cluster": 3, "eps": 0.5, "agreement": None, "losses": {"total": 1.0}}
            record |= {"accuracy": None, "n_iterations": 1, "record": {}, "diagnosis": []}
            writer.write_round(record, np.arange(len(isolated)) + i, {"all": 1.0})
            graph = {"start": np.zeros(len(isolated) + 1, np.int64), "to": rows[:0], "weight": feature[:0, 0]}
            writer.write_kept(i, graph)
        if finished:
            writer.finish([network.arrays()], network.metadata(), seconds={})
    return path


def build(out: Path, *, gallery: str | None = None) -> Path:
    """All of it in the folder `out`."""
    set_path = write_set(out / "set")
    run = write_run(out / "run", set_path)
    index.index(run, set_path, gallery=gallery, device="cpu").gallery.close()
    link.identities(run, [set_path], out / "identities", distance=1e-4, same=_named(out), device="cpu")
    searcher = Searcher(run)
    searcher.search(0).save_sheet()
    searcher.gallery.close()
    for path in (run / "report.html", out / "report.html"):
        path.write_bytes(REPORT)
    entry = {"digest": "0", "done": True, "seconds": 1.0}
    report = {**entry, "file": "report.html", "sha256": hashlib.sha256(REPORT).hexdigest()}
    write_sealed(out / "stages.json", {"index": entry, "report": report})
    (run / "export" / "onnx").mkdir(parents=True)
    (run / "export" / "onnx" / "model.onnx").write_bytes(b"weights")
    return out


def _named(out: Path) -> list[str]:
    """SAME by the numbers that the set gives."""
    number = order(out / "set")

    def name(text: str) -> str:
        track, dot, part = text.partition(".")
        return f"{number[int(track)]}{dot}{part}"

    return ["=".join(map(name, pair.split("="))) for pair in SAME]


def person_of(out: Path, track: int, part: int = 1) -> int:
    """The number that the table gives to who is in a part of one of TRACKS."""
    from tracklearn.store.identities.folder import Identities

    wanted = order(out / "set")[track]
    rows = Identities(out / "identities").rows
    return next(row["identity"] for row in rows if (row["track"], row["part"]) == (wanted, part))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
