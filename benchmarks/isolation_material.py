"""Tracklets with features and ground truth, for judging isolation; made once and kept in a folder.

Nothing here belongs to the project but what is generated: videos, images and features stay in the folder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracklearn.app.judge.tracks import read_persons

Array = NDArray[Any]

DETECTOR = "weights/person-detection-retail-0013-FP16.xml"
WEIGHTS = "weights/mobilenet_v2_imagenet_float.safetensors"
MARKET_PERSONS = 150
SEGMENT = (10, 120)  # frames of a segment that `join` makes
HELD = (1, 2, 3)  # segments of a tracklet that `join` makes


@dataclass(frozen=True)
class Material:
    """Tracklets of one kind, rows sorted by (tracklet, frame).

    Args:
        features: (n, d) float32 unit rows. tracklet, frame: (n,) int64. time: (n,) seconds.
        box: (n, 4) pixels; None where tracklets are joined at random, whose boxes would give them away.
        pid: (n,) person, −1 where nobody is known.
    """

    features: Array
    tracklet: Array
    frame: Array
    time: Array
    box: Array | None
    pid: Array

    def __len__(self) -> int:
        return len(self.tracklet)

    def rows(self, index: Array) -> Material:
        """These rows, in this order."""
        return Material(
            **{name: None if value is None else value[index] for name, value in vars(self).items()}
        )


def half(given: Material, which: str) -> Material:
    """The first or second half of a video, by the middle of its frames; "all" is the whole."""
    if which == "all":
        return given
    early = given.frame <= (given.frame.min() + given.frame.max()) / 2
    return given.rows(np.flatnonzero(early if which == "first" else ~early))


def every(given: Material, step: int) -> Material:
    """Every `step`-th frame: the same tracklets at a lower frame rate."""
    return given.rows(np.flatnonzero(given.frame % step == 0))


def join(given: Material, seed: int, *, segment: tuple[int, int] = SEGMENT) -> Material:
    """Clean tracklets cut into segments of random lengths, and 1-3 of them joined to a tracklet, at random.

    Half of the joined tracklets of three segments end with the person they began with, where one is left.
    Frames are numbered on and times go on at the median step, so that nothing but the features tells a join.
    """
    rng = np.random.default_rng(seed)
    pieces = []
    for t in np.unique(given.tracklet):
        rows = np.flatnonzero(given.tracklet == t)
        while len(rows) >= min(segment[0], 2):
            n = int(rng.integers(segment[0], segment[1] + 1))
            n = len(rows) if len(rows) - n < segment[0] else n
            pieces.append(rows[:n])
            rows = rows[n:]
    order = [pieces[i] for i in rng.permutation(len(pieces))]
    joined: list[list[Array]] = []
    while order:
        held = [order.pop() for _ in range(min(int(rng.choice(HELD)), len(order)))]
        if len(held) == 3 and rng.random() < 0.5:
            first = given.pid[held[0][0]]
            back = [i for i, piece in enumerate(order) if given.pid[piece[0]] == first]
            if back:
                held[2], order[back[0]] = order[back[0]], held[2]
        joined.append(held)
    rows = np.concatenate([piece for held in joined for piece in held])
    length = np.array([sum(map(len, held)) for held in joined])
    tracklet = np.repeat(np.arange(len(joined)), length)
    frame = np.arange(len(rows)) - np.repeat(np.cumsum(length) - length, length)
    inside = np.diff(given.tracklet) == 0
    step = float(np.median(np.diff(given.time)[inside])) if inside.any() else 1.0
    return replace(given.rows(rows), tracklet=tracklet, frame=frame, time=frame * step, box=None)


def load(name: str, folder: Path, data: Path, market: Path | None = None) -> Material:
    """Material by name, from the folder or made and kept there.

    Args:
        name: "visits", the visits of pets09 along the ground truth, the person of each judged by eye;
            "pets", "one-by-one", "people", a detector's and ByteTrack's tracklets on real videos; "world-N",
            those of the generated world of seed N with the demo's detector and starting network; "market",
            (person, camera) groups of Market-1501.
        folder: where it is kept. data: the test material. market: the folder of Market-1501.
    """
    # Features of other weights are others.
    kept = folder / (f"{name}.npz" if name.startswith("world-") else f"{name}-{Path(WEIGHTS).stem}.npz")
    if kept.is_file():
        with np.load(kept) as arrays:
            return Material(**arrays)
    folder.mkdir(parents=True, exist_ok=True)
    make: dict[str, Callable[[], Material]] = {
        "visits": lambda: _visits(folder / "visits", data),
        "pets": lambda: _video(folder / "pets", data, "pets09-s2l1.mp4", truth="pets09-s2l1.gt.txt"),
        "one-by-one": lambda: _video(folder / "one-by-one", data, "intel-one-by-one.mp4"),
        "people": lambda: _video(folder / "people", data, "intel-people.264"),
        "market": lambda: _market(folder / "market", data, market),
    }
    made = _world(folder / name, int(name[6:])) if name.startswith("world-") else make[name]()
    np.savez(kept, **vars(made))
    return made


def _visits(folder: Path, data: Path) -> Material:
    from tracklearn.store.ingest import ingest
    from tracklearn.store.ingest.sources import Source

    video = data / "video" / "pets09-s2l1.mp4"
    folder.mkdir(exist_ok=True)
    results = folder / "visits.txt"
    results.write_text(video.with_suffix(".gt.txt").read_text())
    config = ingest.Config(max_length=1_000_000, max_gap=1e6, min_length=1)
    source = Source(video, camera="pets", results=results)
    set_path = ingest.ingest([source], folder / "set", config=config, resume=True)
    person = read_persons(video.with_suffix(".persons.txt"))
    made = _described(set_path, data / WEIGHTS, {"pets": video.with_suffix(".gt.txt")})
    return replace(made, pid=np.array([person.get(int(v), int(v)) for v in made.pid]))


def _video(folder: Path, data: Path, name: str, truth: str | None = None) -> Material:
    from tracklearn.store.ingest import ingest

    config = ingest.Config(detector=f"openvino:{data / DETECTOR}")
    source = f"camera={data / 'video' / name}"
    set_path = ingest.ingest([source], folder / "set", config=config, resume=True)
    made = _described(set_path, data / WEIGHTS, {"camera": data / "video" / truth} if truth else {})
    if not truth:
        return made
    person = read_persons((data / "video" / name).with_suffix(".persons.txt"))
    return replace(made, pid=np.array([person.get(int(v), int(v)) for v in made.pid]))


def _world(folder: Path, seed: int) -> Material:
    from tracklearn import world
    from tracklearn.app.demo.films import worlds, write_videos
    from tracklearn.store.ingest import ingest

    films = folder / "films"
    learn, _ = worlds(seed)
    names = world.make(learn).cameras
    if not films.exists():
        write_videos(learn, films.with_suffix(".partial"))
        films.with_suffix(".partial").rename(films)
    sources = [f"{name}={films / name}.mp4" for name in names]
    config = ingest.Config(detector="motion")
    set_path = ingest.ingest(sources, folder / "set", config=config, resume=True)
    return _described(set_path, None, {name: films / f"{name}.gt.txt" for name in names})


def _market(folder: Path, data: Path, root: Path | None) -> Material:
    from tracklearn.store import benchmarks
    from tracklearn.store.benchmarks import Subset
    from tracklearn.store.sets.tracklets import read_truth

    if root is None:
        raise ValueError("Market-1501 is not kept yet: give its folder")
    folder.mkdir(exist_ok=True)
    read = benchmarks.read("market1501", root, subset=Subset(persons=MARKET_PERSONS, test_persons=1))
    set_path = read.write_train(folder / "set")
    made = _described(set_path, data / WEIGHTS, {})
    from tracklearn.store.sets.tracklets import open_set

    return replace(made, pid=read_truth(set_path).pid[open_set(set_path).tracklets.crop])


def _described(set_path: Path, weights: Path | None, truth: dict[str, Path]) -> Material:
    """Features of a set by MobileNetV2 at 256×128, or by the demo's starting network for None."""
    from tracklearn.app.demo import run as demo
    from tracklearn.app.judge import rates
    from tracklearn.app.pipeline.plan import plan_training, starting_networks
    from tracklearn.learn import embed
    from tracklearn.learn.backbone import Config
    from tracklearn.store.film.mot import read_truth
    from tracklearn.store.sets.tracklets import open_set

    opened = open_set(set_path)
    tracklets = opened.tracklets
    plan = plan_training(
        set_path,
        weights="none" if weights is None else str(weights),
        network=None if weights is None else Config(backbone="mobilenet_v2", height=256, width=128),
        preset="cpu",
        device="cpu",
        extra={} if weights else demo.SETTINGS,
    )
    crops = opened.crops(plan.network.height, plan.network.width)
    network = starting_networks(plan, crops, tracklets)[0]
    boxes = {name: read_truth(path) for name, path in truth.items()}
    pid = rates.match_truth(opened, boxes).pid[tracklets.crop]
    return Material(
        features=embed.extract(network, crops, tracklets.crop, device="cpu"),
        tracklet=tracklets.tracklet,
        frame=tracklets.frame,
        time=tracklets.time,
        box=tracklets.box,
        pid=pid,
    )
