"""The worlds of the demo, filmed, and sets cut out of films along their ground truth."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tracklearn import world
from tracklearn.app.judge import rates
from tracklearn.core.noise import tracklet_pid
from tracklearn.store.files import make_folder
from tracklearn.types import Progress

if TYPE_CHECKING:
    from tracklearn.store.sets.tracklets import TrackletSet


def write_videos(config: world.Config, folder: Path, *, progress: Progress | None = None) -> None:
    """Film the world: NAME.mp4 and NAME.gt.txt (MOTChallenge ground truth) for each camera.

    The cameras are rendered in parallel, one process each, as many as there are processors.
    """
    make_folder(folder)
    names = world.make(config).cameras
    workers = min(len(names), os.cpu_count() or 1)
    # The workers leave Ctrl-C to this process, which stops them.
    stop = (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=signal.signal, initargs=stop
    ) as pool:
        jobs = [pool.submit(film_camera, config, camera, folder / name) for camera, name in enumerate(names)]
        for done, job in enumerate(jobs, 1):
            job.result()
            if progress:
                progress(f"film {folder.name}", done, len(names))


def film_camera(config: world.Config, camera: int, stem: Path) -> None:
    from tracklearn.store.film.mot import Boxes, write_results
    from tracklearn.store.film.video_writer import VideoWriter

    scene = world.make(config)
    frame, pid, box = [], [], []
    with VideoWriter(
        stem.with_suffix(".mp4"), width=config.width, height=config.height, fps=config.fps, crf=26
    ) as writer:
        for number, (image, truth) in enumerate(scene.frames(camera)):
            writer.write(image)
            frame.append(np.full(len(truth.pid), number))
            pid.append(truth.pid)
            box.append(truth.box)
    frames = np.concatenate(frame)
    write_results(
        stem.with_suffix(".gt.txt"),
        Boxes(frames, np.concatenate(pid), np.concatenate(box), np.ones(len(frames), np.float32)),
    )


def worlds(seed: int) -> tuple[world.Config, world.Config]:
    """The world to learn from and the one to be judged on: the same cameras, other people."""
    learn = world.Config(seed=seed, people_seed=2 * seed + 1)
    judge = world.Config(seed=seed, people_seed=2 * seed + 2, first_pid=learn.n_people)
    return learn, judge


def source_world(seed: int) -> world.Config:
    """A labelled world for methods that adapt from one: other cameras, neutral light, bright clothes."""
    return world.Config(seed=1000 + seed, people_seed=2 * seed + 3, first_pid=200, clothes="bright", cast=0.0)


def cut(
    films: Path, out: Path, *, boxes: Path | None = None, progress: Progress | None = None
) -> TrackletSet:
    """Cut films of a world along their true boxes into the set `out`, and write who is in it beside it.

    `boxes` is a folder of other ones, NAME.txt for each film.
    """
    from tracklearn.store.film.mot import read_results
    from tracklearn.store.ingest import ingest
    from tracklearn.store.sets.tracklets import open_set, write_truth

    names = sorted(path.stem for path in films.glob("*.mp4"))
    along = {name: boxes / f"{name}.txt" if boxes else films / f"{name}.gt.txt" for name in names}
    sources = [f"{name}={along[name]}+{films / name}.mp4" for name in names]
    opened = open_set(ingest.ingest(sources, out, resume=True, progress=progress))
    truth = rates.match_truth(opened, {name: read_results(along[name]) for name in names})
    pid = tracklet_pid(opened.tracklets, truth)
    write_truth(out, pid[opened.tracklets.tracklet])  # one person each, as a benchmark wants them
    return opened
