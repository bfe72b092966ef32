"""How mixed tracklets are, and where another person begins, told from strangers alone."""

import numpy as np
import pytest

from tracklearn.core.mixture import unmix
from tracklearn.types import Tracklets


def mixed(n=300, people=60, share=0.4, seed=0, spread=0.9):
    """Tracklets of two crops of n sightings, of which a share show two people; and whether they do."""
    rng = np.random.default_rng(seed)
    face = rng.normal(size=(people, 32))
    one = rng.integers(0, people, n)
    two = rng.random(n) < share
    other = np.where(two, (one + rng.integers(1, people, n)) % people, one)
    who = np.stack([one, other], 1).reshape(-1)
    tracklets = Tracklets(
        tracklet=np.repeat(np.arange(n), 2),
        frame=np.tile([0, 1], n),
        time=np.tile([0.0, 1.0], n),
        box=np.tile([0, 0, 64, 128], (2 * n, 1)),
        score=np.ones(2 * n),
        crop=np.arange(2 * n),
        camid=rng.integers(0, 3, n),
        source=np.arange(n),
    )
    return face[who] + spread * rng.normal(size=(2 * n, 32)), tracklets, who


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8])
def test_the_share_of_two_people_in_one_track_is_told_without_a_label(share):
    features, tracklets, who = mixed(n=3000, people=200, share=share)
    found = unmix(features, tracklets)
    assert found.two == pytest.approx((who[::2] != who[1::2]).mean(), abs=0.05)
    # What is left is the distribution of one person: as by the truth.
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    distance, same = np.linalg.norm(unit[::2] - unit[1::2], axis=1), who[::2] == who[1::2]
    for q in (0.25, 0.5, 0.75):
        assert found.calibration.quantile("same", q) == pytest.approx(
            np.quantile(distance[same], q), abs=0.05
        )
    assert found.calibration.separates
    # As many pairs are cut wrongly as joined wrongly, and few of either; next to none where none is mixed.
    below = found.calibration.joins_below
    cut, joined = (same & (distance >= below)).mean(), (~same & (distance < below)).mean()
    assert cut == pytest.approx(joined, abs=0.04)
    assert cut + joined < 0.1


@pytest.mark.parametrize("long", ["first", "second"])
def test_cameras_of_other_looks_and_sizes_do_not_change_the_share(long):
    """One camera with a few tracks of many crops, one with many of few, and a background each."""
    rng = np.random.default_rng(4)
    features, length, camid, two = [], [], [], []
    for camera in (0, 1):
        tracks, crops = (300, 40) if (camera == 0) == (long == "first") else (3000, 2)
        face, place = rng.normal(size=(150, 32)), 2 * rng.normal(size=32)
        for _ in range(tracks):
            a, b = rng.integers(0, 150, 2) if rng.random() < 0.4 else [rng.integers(0, 150)] * 2
            who = np.where(np.arange(crops) < crops // 2, a, b)
            features.append(face[who] + place + 0.6 * rng.normal(size=(crops, 32)))
            length.append(crops)
            camid.append(camera)
            two.append(a != b)
    n, t = sum(length), len(length)
    tracklets = Tracklets(
        tracklet=np.repeat(np.arange(t), length),
        frame=np.concatenate([np.arange(k) for k in length]),
        time=np.zeros(n),
        box=np.tile([0, 0, 64, 128], (n, 1)),
        score=np.ones(n),
        crop=np.arange(n),
        camid=np.array(camid),
        source=np.arange(t),
    )
    share = np.where(np.array(length) == 2, 1.0, 0.51) * np.array(two)  # of the pairs of crops of each track
    found = unmix(np.concatenate(features), tracklets)
    assert found.two == pytest.approx(share.mean(), abs=0.06)
    assert found.calibration.separates


def test_of_tracks_that_are_all_mixed_nothing_is_concluded():
    features, tracklets, _ = mixed(share=1.0)
    found = unmix(features, tracklets)
    assert found is None or found.two > 0.9
    assert unmix(*mixed(n=99)[:2]) is None  # too few
