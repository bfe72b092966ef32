"""Tracklets of made films, with boxes and features, for tests of what time tells."""

import numpy as np

from tracklearn.types import Tracklets


def walk(x, y=100.0, *, first=0, n=40, speed=2.0, size=(40, 100)):
    """Boxes (n, 4) and frames of somebody who walks to the right."""
    left = x + speed * np.arange(n)
    box = np.stack([left, np.full(n, y), left + size[0], np.full(n, y + size[1])], 1)
    return np.arange(first, first + n), box


def film(tracks, camid=None, clock=None, fps=10.0):
    """Tracklets of (frames, boxes), one each."""
    length = [len(frame) for frame, _ in tracks]
    frame = np.concatenate([frame for frame, _ in tracks])
    n, t = len(frame), len(tracks)
    return Tracklets(
        tracklet=np.repeat(np.arange(t), length),
        frame=frame,
        time=frame / fps,
        box=np.concatenate([box for _, box in tracks]),
        score=np.ones(n),
        crop=np.arange(n),
        camid=np.zeros(t) if camid is None else camid,
        source=np.arange(t),
        clock=np.zeros(t) if clock is None else clock,
    )


def looks(persons, *, width=32, spread=0.25, seed=0):
    """(n, width) unit features of rows that show these persons."""
    rng = np.random.default_rng(seed)
    persons = np.asarray(persons)
    known, number = np.unique(persons, return_inverse=True)
    mean = rng.normal(size=(len(known), width))
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    x = mean[number] + spread * rng.normal(size=(len(persons), width)) / np.sqrt(width) * 2
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
