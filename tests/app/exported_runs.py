"""Runs to be exported: a film of ten people side by side, and networks that have seen it."""

import os

import numpy as np

from tracklearn.learn import backbone
from tracklearn.store.picture.crops import encode_jpeg
from tracklearn.store.runs import RunWriter
from tracklearn.store.sets.tracklets import SetWriter, open_set

PEOPLE, FRAMES = 10, 16


def write_set(path, *, film=True):
    """Ten people of one camera, each in a colour of their own, all in view at once; not so without `film`."""
    rng = np.random.default_rng(0)
    with SetWriter(path) as writer:
        part = writer.part("a" * 64)
        for person in range(PEOPLE):
            look = rng.integers(30, 220, (8, 4, 3)).repeat(8, 0).repeat(8, 1)
            frame = np.arange(FRAMES)
            left = 100.0 * person * film
            part.add(
                [encode_jpeg((look + rng.integers(0, 30, look.shape)).astype(np.uint8)) for _ in frame],
                camera="market1501-veri",
                frame=frame,
                time=frame / 10,
                box=np.tile([left, 0, left + 32, 64], (FRAMES, 1)),
                score=np.ones(FRAMES),
            )
        part.finish({"camera": "market1501-veri"})
        writer.finish({})
    return path


def write_run(path, set_path, name="tiny", *, height=64, width=32, pixels=None, finished=True, **settings):
    """A run of a network whose norms have seen the set, as training leaves them."""
    tracklet_set = open_set(set_path)
    config = backbone.Config(backbone=name, height=height, width=width, **settings)
    network = backbone.build(config, seed=1)
    if pixels:
        network.set_pixels(*pixels)
    rows = np.arange(0, tracklet_set.tracklets.n_crops, 5)
    network.calibrate([tracklet_set.crops(height, width, cache_bytes=0).read(rows)], neck=True)
    manifest = {
        "digest": "3f9c21aa" + "0" * 56,
        "method": "tmc",
        "seed": 7,
        "settings": {"epochs": 3},
        "network": config.model_dump(),
        "weights": {"name": "none"},
        "labels_used": [],
        "set": {"path": os.path.relpath(set_path, path), "digest": tracklet_set.digest},
    }
    writer = RunWriter(path, manifest)
    writer.write_start(network.arrays(), network.metadata())
    writer.write_isolation({"part": np.zeros(tracklet_set.n_crops, np.int32)}, {})
    if finished:
        writer.finish([network.arrays()], network.metadata(), seconds={})
    writer.close()
    return path
