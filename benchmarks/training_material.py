"""Pictures for the training benchmark: tracklets of made-up crops, in memory or as a stored set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tracklearn.store.picture.crops import encode_jpeg
from tracklearn.store.sets.setwriter import SetWriter
from tracklearn.types import Tracklets

Array = NDArray[Any]

CLUSTERS, PER_CLUSTER, FRAMES, CAMERAS = 32, 4, 4, 2
STORED = (256, 128)  # size of the stored crops, pixels


def make_tracklets() -> Tracklets:
    """Tracklets of `FRAMES` crops each, in two cameras; crop i is row i."""
    t = CLUSTERS * PER_CLUSTER
    n = t * FRAMES
    frame = np.tile(np.arange(FRAMES), t)
    return Tracklets(
        tracklet=np.repeat(np.arange(t), FRAMES),
        frame=frame,
        time=frame / 10,
        box=np.zeros((n, 4)),
        score=np.ones(n),
        crop=np.arange(n),
        camid=np.arange(t) % CAMERAS,
        source=np.arange(t),
    )


def make_pictures(n: int, height: int, width: int, seed: int) -> Array:
    """(n, height, width, 3) uint8: smooth colours with the grain of a camera."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 236, (n, 8, 4, 3), dtype=np.uint8)
    out = np.empty((n, height, width, 3), np.uint8)
    for picture, colours in zip(out, coarse, strict=True):
        smooth = cv2.resize(colours, (width, height), interpolation=cv2.INTER_LINEAR)
        picture[:] = (smooth + rng.normal(0, 5, smooth.shape)).clip(0, 255)
    return out


def write_set(path: Path, seed: int) -> Path:
    """The crops of `make_tracklets` as a stored set of JPEG files."""
    tracklets = make_tracklets()
    pictures = make_pictures(tracklets.n_crops, *STORED, seed)
    with SetWriter(path) as writer:
        part = writer.part("0" * 64)
        assert part is not None  # only an interrupted writing has finished parts
        for t, camid in enumerate(tracklets.camid):
            rows = tracklets.tracklet == t
            part.add(
                [encode_jpeg(picture) for picture in pictures[rows]],
                camera=str(camid),
                frame=tracklets.frame[rows],
                time=tracklets.time[rows],
                box=tracklets.box[rows],
                score=tracklets.score[rows],
            )
        part.finish({})
        return writer.finish({})
