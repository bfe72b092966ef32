"""Pieces of a tracklet joined again, against scipy's linkage; and what is left over."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist
from tests.core.films import looks

from tracklearn.core import pieces
from tracklearn.core.isolate import isolate
from tracklearn.core.pieces import joined


def whole(part):
    return np.array([0, len(part)])


def test_pieces_of_one_person_are_joined_and_numbered_by_their_first_rows():
    person = np.repeat([0, 1, 0, 2, 1], 8)
    x = looks(person, seed=1)
    part = np.repeat([3, 1, 0, 2, 4], 8)
    got = joined(x, whole(part), part, 0.7, 1)
    np.testing.assert_array_equal(got, person)


def test_nothing_is_joined_at_a_distance_that_is_reached():
    x = np.float32([[1, 0], [1, 0], [0, 1], [0, 1]])
    part = np.array([0, 0, 1, 1])
    np.testing.assert_array_equal(joined(x, whole(part), part, float(np.sqrt(2)), 1), part)
    np.testing.assert_array_equal(joined(x, whole(part), part, 1.42, 1), 0)


def test_leftovers_are_dropped_where_there_is_a_longer_part():
    person = np.repeat([0, 1, 2], [8, 2, 8])
    x, part = looks(person), person.copy()
    got = joined(x, whole(part), part, 0.7, 4)
    np.testing.assert_array_equal(got, np.repeat([0, -1, 1], [8, 2, 8]))
    short = np.array([0, 0, 1, 1])
    np.testing.assert_array_equal(joined(looks(short), whole(short), short, 0.3, 4), short)


def test_dropped_runs_find_their_person_again():
    part = np.repeat([0, -1, 0, -1, 1], 6)
    person = np.repeat([0, 0, 0, 1, 1], 6)
    got = joined(looks(person), whole(part), part, 0.7, 1)
    np.testing.assert_array_equal(got, person)


def test_many_pieces_are_joined_block_by_block(monkeypatch):
    monkeypatch.setattr(pieces, "_TOGETHER", 8)
    person = np.repeat(np.arange(50) % 3, 4)
    part = np.repeat(np.arange(50), 4)
    got = joined(looks(person, seed=2), whole(part), part, 0.8, 1)
    np.testing.assert_array_equal(got, person)


def test_tracklets_stay_apart_and_isolate_takes_it_all():
    person = np.repeat([0, 1, 0, 0, 1, 0], 20)
    x = looks(person, seed=4)
    tracklet = np.repeat([0, 1], 60)
    frame = np.tile(np.arange(60), 2)
    got = isolate(x, tracklet, frame=frame, method="change-point", join=0.7, least=4)
    np.testing.assert_array_equal(got, person)
    dbscan = isolate(x, tracklet, frame=frame, eps=0.5, min_samples=3, join=0.7, least=4)
    np.testing.assert_array_equal(dbscan, person)


@pytest.mark.parametrize(("name", "value"), [("join", 0.0), ("join", 2.5), ("least", 0)])
def test_what_makes_no_sense_is_refused(name, value):
    given = {"join": 0.5, "least": 1, name: value}
    with pytest.raises(ValueError, match=name):
        isolate(np.eye(2), np.zeros(2, int), frame=np.arange(2), **given)


def test_linkage_joins_single_frames_whatever_their_order():
    """Against scipy's average linkage of each tracklet's frames."""
    rng = np.random.default_rng(3)
    face = rng.normal(size=(4, 16))
    who = rng.integers(0, 4, 60)
    x = face[who] + 0.4 * rng.normal(size=(60, 16))
    tracklet = np.sort(rng.integers(0, 9, 60))
    got = isolate(x, tracklet, frame=np.arange(60), method="linkage", join=0.9)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for q in np.unique(tracklet):
        rows = np.flatnonzero(tracklet == q)
        want = np.zeros(1, int)
        if len(rows) > 1:
            want = fcluster(linkage(pdist(unit[rows]), "average"), 0.9, "distance")
        together = want[:, None] == want
        np.testing.assert_array_equal(got[rows][:, None] == got[rows], together)
    with pytest.raises(ValueError, match="give join a distance"):
        isolate(x, tracklet, frame=np.arange(60), method="linkage")
    x[7] = 0
    with pytest.raises(ValueError, match="1 row is not: 7"):
        isolate(x, tracklet, frame=np.arange(60), method="linkage", join=0.9)
