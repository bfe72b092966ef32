"""Small material for the fault suite, made from seeds: films with tracks beside them, sets, runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tracklearn.store.picture.crops import encode_jpeg
from tracklearn.types import Array

# The least that walks every path of a method: it is not to learn anything.
QUICK = {
    "tmc": ["tmc.epochs=2", "tmc.iterations=2", "tmc.clusters_per_batch=4"],
    "mmt": ["mmt.epochs=2", "mmt.iterations=2", "mmt.clusters_per_batch=4"],
    "uga": [
        *("uga.epochs_intra=2", "uga.epochs_inter=1", "uga.iterations=2"),
        *("uga.sampling=all", "uga.threshold=0.1"),
    ],
    "msplr": [
        *("msplr.source_epochs=1", "msplr.step_epochs=2", "msplr.frozen_epochs=1", "msplr.max_steps=1"),
        *("msplr.iterations=2", "msplr.clusters_per_batch=4"),
    ],
    "cap": ["cap.epochs=2", "cap.iterations=2", "cap.proxies_per_batch=4", "cap.inter_from=1"],
}
SIZE = ["network.height=64", "network.width=32"]


def options(method: str = "tmc", *more: str) -> list[str]:
    """The part of a `train` or `run` command line that makes it short."""
    settings = [part for text in (*SIZE, *QUICK[method], *more) for part in ("--set", text)]
    return ["--method", method, "--weights", "none", "--preset", "cpu", "--device", "cpu", *settings]


def figure(person: int, seed: int, *, height: int = 60, width: int = 24) -> Array:
    """(height, width, 3) uint8: somebody in two colours of their own, in changing light."""
    rng = np.random.default_rng([7, person])
    top, legs = rng.integers(30, 226, (2, 3))
    image = np.full((height, width, 3), 110.0)
    image[height // 8 : height // 2, width // 6 : -width // 6] = top
    image[height // 2 :, width // 4 : -width // 4] = legs
    light = np.random.default_rng([person, seed])
    return (image * light.uniform(0.85, 1.1) + light.normal(0, 8, image.shape)).clip(0, 255).astype(np.uint8)


def film(
    path: Path, *, people: Sequence[int] = range(5), seconds: float = 1.6, size: int = 160, seed: int = 0
) -> Path:
    """A film of figures walking across the picture, and beside it NAME.txt, their true tracks."""
    from tracklearn.store.film.video_writer import VideoWriter

    fps, height, width = 10, size * 3 // 4, size
    lines = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, width=width, height=height, fps=fps, crf=26) as writer:
        for number in range(int(seconds * fps)):
            image = np.full((height, width, 3), 110, np.uint8)
            for i, person in enumerate(people):
                left, top = 4 + i * 30 + number % 12, 20 + 3 * i
                image[top : top + 60, left : left + 24] = figure(person, 1000 * seed + number)[
                    :, : max(width - left, 0)
                ]
                lines.append(f"{number + 1},{person + 1},{left},{top},24,60,1,-1,-1,-1")
            writer.write(image)
    path.with_suffix(".txt").write_text("\n".join(lines) + "\n")
    return path


def films(folder: Path) -> list[str]:
    """Two cameras' films of the same people; as `ingest` takes them."""
    made = [film(folder / f"{name}.mp4", seed=seed) for seed, name in enumerate(("door", "hall"))]
    return [f"{path.stem}={path.with_suffix('.txt')}+{path}" for path in made]


def crops(folder: Path, people: Sequence[Sequence[int]], *, seed: int = 0) -> Path:
    """A folder of crops: one tracklet for each entry of `people`, which names who is in each of its crops."""
    for number, shown in enumerate(people):
        tracklet = folder / f"t{number:03d}"
        tracklet.mkdir(parents=True, exist_ok=True)
        for i, person in enumerate(shown):
            image = figure(person, seed + 97 * number + i)
            (tracklet / f"{i:03d}.jpg").write_bytes(encode_jpeg(image))
    return folder
