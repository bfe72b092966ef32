"""What distances mean for some footage: limits for many people, and which cameras there are."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from tests.core.films import film, looks, walk
from tracklearn.app.identities.calibrated import learn, threshold
from tracklearn.core.calibration import Calibration


def test_a_limit_for_many_people_is_counted_among_pairs_by_chance_alone():
    """Two thousand pairs of two people, of whom forty look nearly the same."""
    rng = np.random.default_rng(0)
    different = np.sort(np.r_[np.linspace(0.5, 0.6, 40), rng.normal(1.4, 0.05, 1960)])
    found = Calibration("mean", np.linspace(0.1, 1.2, 50), different, 1.2, 0.05)
    assert threshold(found, people=1) == threshold(found, people=1, by_chance=True) == 1.2
    assert threshold(found, people=100, by_chance=True) == different[19]
    assert threshold(found, people=100) == min(1.2, found.rare(0.01)) > 1.1
    # Five of two thousand are too few to count.
    assert threshold(found, people=400, by_chance=True) == threshold(found, people=400)


def test_a_camera_of_which_everything_was_forgotten_is_none():
    """What `forget --camera` leaves is told as the other camera alone is: no camera is unlike nothing."""
    tracks = film([walk(300 * i, n=40) for i in range(40)])
    features = looks(tracks.tracklet).astype(np.float32)
    left = replace(
        tracks,
        camid=np.r_[tracks.camid, 1],
        source=np.r_[tracks.source, 40],
        clock=np.r_[tracks.clock, 0],
        offset=np.r_[tracks.offset, 0.0],
    )
    alone, with_it = (
        learn(SimpleNamespace(tracks=t, parts=t.split(np.zeros(t.n_crops))), features) for t in (tracks, left)
    )
    assert alone.trusted
    assert with_it.n_cameras == 1
    assert with_it.to_dict() == alone.to_dict()
    assert (with_it.mean == alone.mean).all()
