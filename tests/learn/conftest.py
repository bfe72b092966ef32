"""Coloured figures in two cameras, and a network small enough to train in a test."""

import numpy as np
import pytest
import torch
from torch import nn

from tracklearn.learn.network import Config, Network
from tracklearn.types import ArrayCrops, Tracklets

HEIGHT, WIDTH = 64, 32


def _people(n_people=6, n_cameras=2, per_camera=2, n_frames=5, *, cast=0.3, mixed=False, seed=0):
    """Tracklets, crops and the person of each crop; cameras differ in colour cast.

    With `mixed` each tracklet shows another person in its second half.
    """
    rng = np.random.default_rng(seed)
    look = rng.uniform(40, 215, (n_people, 2, 3))
    gain = np.exp(rng.uniform(-cast, cast, (n_cameras, 3)))
    images, tracklet, frame, camid, pid = [], [], [], [], []
    for person in range(n_people):
        for camera in range(n_cameras):
            for _ in range(per_camera):
                for f in range(n_frames):
                    second = mixed and f >= n_frames // 2
                    shown = (person + 1) % n_people if second else person
                    image = np.full((HEIGHT, WIDTH, 3), 90.0)
                    shift = rng.integers(-3, 4)
                    image[10:32, 6 + shift : 26 + shift] = look[shown, 0]
                    image[32:60, 8 + shift : 24 + shift] = look[shown, 1]
                    image = image * gain[camera] * rng.uniform(0.9, 1.1) + rng.normal(0, 12, image.shape)
                    images.append(image.clip(0, 255).astype(np.uint8))
                    tracklet.append(len(camid))
                    frame.append(f)
                    pid.append(shown)
                camid.append(camera)
    n = len(images)
    tracklets = Tracklets(
        tracklet=np.array(tracklet),
        frame=np.array(frame),
        time=np.array(frame) / 10,
        box=np.zeros((n, 4)),
        score=np.ones(n),
        crop=np.arange(n),
        camid=np.array(camid),
        source=np.arange(len(camid)),
    )
    return tracklets, ArrayCrops(np.stack(images)), np.array(pid)


class Small(Network):
    """One strided convolution with batch norm, pooled in two parts: d = 32."""

    def __init__(self, seed=0):
        super().__init__(Config(backbone="tiny", height=HEIGHT, width=WIDTH), feature_dim=32, n_parts=2)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.conv = nn.Conv2d(3, 16, 7, 4, 3, bias=False)
        self.bn = nn.BatchNorm2d(16)

    def maps(self, images):
        return torch.relu(self.bn(self.conv(images)))


def _small(crops, seed=0):
    """A `Small` whose norms know the crops, as the application prepares a random start."""
    network = Small(seed)
    network.train()
    with torch.no_grad():
        for _ in range(40):
            network.neck(network(network.normalise(torch.from_numpy(crops.images[::2]))))
    return network


@pytest.fixture(scope="session")
def people():
    """The function that draws coloured people."""
    return _people


@pytest.fixture(scope="session")
def small():
    """The function that makes a small network for given crops."""
    return _small
