"""The figures of one core that `benchmarks.scale` reckons with, and what an engine adds to the work.

All are by processor time, of one thread: a machine that does other things too takes longer by the clock and
hardly longer by that. Ingest is measured whole (decode, detect, track, crop, encode, write) on pets09-s2l1, a
street with 5.8 people in view, 768 × 576; extraction on the crops that came of it, reading and decoding
included.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from tracklearn.store.film.video import open_frames
from tracklearn.store.film.video_writer import VideoWriter
from tracklearn.store.ingest.ingest import Config, ingest
from tracklearn.store.sets.tracklets import TrackletSet, open_set

FILM = "pets09-s2l1"
FRAMES = {"hog": 40, "openvino": 300, "onnx": 300}  # slow ones see fewer of the film's 795
NETWORKS = {"osnet_x0_25": (256, 128), "osnet_x1_0": (256, 128), "mobilenet_v2": (128, 64)}
CROPS = 512  # of the set, through each network
SHORT, SHORT_FRAMES = 40, 100  # films for the engines
SETTINGS = {"film": FILM, "frames": FRAMES, "crops": CROPS, "films": [SHORT, SHORT_FRAMES]}


def specs(data: Path) -> dict[str, str]:
    """Detector specs by a name that fits into a table; those whose files are there."""
    weights = data / "weights"
    found = {
        "motion": "motion",
        "hog": "hog",
        "openvino": f"openvino:{weights}/person-detection-retail-0013-FP16.xml",
        "onnx": f"onnx:{weights}/FastestDet.onnx",
    }
    return {
        name: spec for name, spec in found.items() if ":" not in spec or Path(spec.split(":")[1]).is_file()
    }


def cut(film: Path, to: Path, last: int) -> Path:
    """The first frames of a film as a film of its own."""
    with (
        open_frames(film) as frames,
        VideoWriter(
            to, width=frames.info.width, height=frames.info.height, fps=round(frames.info.fps)
        ) as writer,
    ):
        for frame in frames:
            if frame.number == last:
                break
            writer.write(frame.image)
    return to


def cpu(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of processor time of this process and of its children that ended meanwhile, and the result."""

    def spent() -> float:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + ended.ru_utime + ended.ru_stime

    before = spent()
    result = function()
    return spent() - before, result


def one_thread() -> None:
    """Hold the libraries of this process to one thread each."""
    import cv2
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def all_of(data: Path) -> dict[str, Any]:
    """Every figure."""
    one_thread()
    film = data / "video" / f"{FILM}.mp4"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        found: dict[str, Any] = {"decode": {"decoded": decoding(film)}, "ingest": {}}
        for name, spec in specs(data).items():
            short = film if name not in FRAMES else cut(film, folder / f"{name}.mp4", FRAMES[name])
            found["ingest"][name] = ingesting(short, spec, folder / name)
        found["extraction"] = extraction(open_set(folder / "motion"))
        found["engines"] = engines(film, folder)
    return found


def decoding(film: Path) -> float:
    """Frames a second that are decoded and turned to RGB."""

    def run() -> int:
        with open_frames(film) as frames:
            return sum(1 for _ in frames)

    seconds, n = cpu(run)
    return n / seconds


def ingesting(film: Path, spec: str, out: Path) -> dict[str, float]:
    """Frames a second through ingest, and what comes out of a frame."""
    seconds, path = cpu(lambda: ingest([film], out, config=Config(detector=spec)))
    made = open_set(path)
    frames = made.manifest["sources"][0]["counts"]["frames"]
    n_bytes = sum(shard["bytes"] for shard in made.manifest["shards"])
    return {
        "ingested": frames / seconds,
        "crops": made.n_crops / frames,
        "crop_bytes": n_bytes / made.n_crops,
        "track": made.n_crops / len(made.tracklets),
    }


def extraction(crops: TrackletSet) -> dict[str, float]:
    """Images a second through each network, random weights, batches of 32."""
    from tracklearn.learn import backbone, embed

    found = {}
    for name, (height, width) in NETWORKS.items():
        network = backbone.build(backbone.Config(backbone=name, height=height, width=width), seed=0).eval()
        pictures = crops.crops(height, width, cache_bytes=0)
        rows = np.linspace(0, crops.n_crops - 1, CROPS).astype(int)
        embed.extract(network, pictures, rows[:64], device="cpu", batch=32, post_bn=False)
        run = partial(embed.extract, network, pictures, rows, device="cpu", batch=32, post_bn=False)
        seconds, _ = cpu(run)
        found[name] = CROPS / seconds
    return found


def engines(film: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """Seconds for forty short films in order, by two processes, and on Ray where it is."""
    from tracklearn import runtimes

    first = cut(film, folder / "short.mp4", SHORT_FRAMES)
    for i in range(SHORT):
        os.link(first, folder / f"s{i:02d}.mp4")
    films = [f"s{i:02d}={folder}/s{i:02d}.mp4" for i in range(SHORT)]
    ways: dict[str, Mapping[str, Any]] = {"in order": {}, "2 processes": {"workers": 2}}
    if runtimes.installed("ray"):
        ways["2 on Ray"] = {"workers": 2, "on": "ray"}
    found = {}
    for way, options in ways.items():
        few, _ = cpu(lambda: ingest(films[:2], folder / f"few {way}", **options))  # noqa: B023
        began = time.perf_counter()
        many, path = cpu(lambda: ingest(films, folder / way, **options))  # noqa: B023
        wall = time.perf_counter() - began
        # Ray's workers are nobody's children who would be waited for: their processor time is not known here.
        known = options.get("on") is None
        each = (many - few) / (SHORT - 2) if known else None
        start = few - 2 * each if each is not None else None
        found[way] = {"film": each, "start": start, "wall": wall, "digest": open_set(path).digest}
    return found


def tables(result: Mapping[str, Any]) -> str:
    """What was measured, as text."""
    decoded = result["decode"]["decoded"]
    rows = [("decoding alone", decoded, None, None, None)]
    rows += [(name, *row.values()) for name, row in result["ingest"].items()]
    header = ("detector", "frames/s a core", "crops a frame", "bytes a crop", "crops a track")
    networks = [(name, found) for name, found in result["extraction"].items()]
    ways = [(way, row["film"], row["start"], row["wall"]) for way, row in result["engines"].items()]
    return "\n\n".join(
        [
            measure.table(header, rows),
            measure.table(("network", "images/s a core"), networks),
            measure.table(("engine", "CPU s a film", "CPU s to start", f"wall s, {SHORT} films"), ways),
        ]
    )
