"""Who cannot be whom by place and time, against slow counts; scraps and their hosts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.films import film, walk

from tracklearn.core.moments import Moments, moments
from tracklearn.core.whereabouts import (
    Whereabouts,
    learned_ways,
    scraps,
    seen_apart,
    seen_at_once,
    too_far,
)


def test_people_side_by_side_are_two_and_a_double_is_none():
    beside, behind = walk(0), walk(400)
    frames, box = walk(0)
    double = frames, box + np.array([5, 0, -5, -40])  # the upper half of the first
    found = moments(film([beside, behind, double]))
    assert seen_apart(found).tolist() == [[0, 1], [1, 2]]


def test_a_few_moments_apart_are_not_enough():
    pair = np.array([[0, 1], [0, 2], [0, 3], [0, 4]])
    found = Moments(pair, np.array([1, 2, 2, 3]), np.array([0, 0, 9, 12]), np.zeros(0))
    assert seen_apart(found).tolist() == [[0, 2], [0, 4]]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 100_000))
def test_pairs_between_cameras_are_the_slow_ones(seed):
    rng = np.random.default_rng(seed)
    t = int(rng.integers(0, 30))
    begin = rng.integers(0, 40, t).astype(float)
    end = begin + rng.integers(0, 12, t)
    begin[rng.random(t) < 0.1] = np.nan
    where = Whereabouts(rng.integers(0, 3, t), begin, end)
    least = float(rng.integers(0, 9))
    at_once, far = set(), set()
    for i in np.flatnonzero(where.camid == 0).tolist():
        for j in np.flatnonzero(where.camid == 1).tolist():
            if begin[i] <= end[j] and begin[j] <= end[i]:
                at_once.add((i, j))
            # Some moment of j comes less than `least` after some moment of i, and not before it.
            if least and end[j] >= begin[i] and begin[j] - end[i] < least:
                far.add((i, j))
    assert {tuple(p) for p in seen_at_once(where, (0, 1)).tolist()} == at_once
    assert {tuple(p) for p in too_far(where, (0, 1), least).tolist()} == far


def test_the_way_there_is_not_the_way_back():
    where = Whereabouts(np.array([0, 1]), np.array([0.0, 12.0]), np.array([10.0, 20.0]))
    assert too_far(where, (0, 1), 5.0).tolist() == [[0, 1]]
    assert too_far(where, (0, 1), 2.0).tolist() == []
    assert too_far(where, (1, 0), 60.0).tolist() == []


def test_shapes_must_fit():
    with pytest.raises(ValueError, match="one of each per tracklet"):
        Whereabouts(np.zeros(2, int), np.zeros(2), np.zeros(3))


def test_ways_are_learned_from_sure_pairs_only_and_prudently():
    n = 25
    camid = np.repeat([0, 1], n)
    leave = 100.0 * np.arange(n)
    begin = np.r_[leave - 5, leave + 20 + np.arange(n)]
    where = Whereabouts(camid, begin, begin + 5)
    pair = np.stack([np.arange(n), n + np.arange(n)], 1)
    assert learned_ways(where, pair, np.full(n, 0.99)) == {(0, 1): 10.0}
    assert learned_ways(where, pair, np.full(n, 0.9)) == {}
    assert learned_ways(where, pair[:19], np.full(19, 0.99)) == {}
    # Somebody is seen by both at once: they share a view.
    begin[n] = begin[0]
    assert learned_ways(Whereabouts(camid, begin, begin + 5), pair, np.full(n, 0.99)) == {}


def parts_of(*lengths, fps=10.0):
    """One track cut into parts of these lengths, one after the other."""
    frames, box = walk(0, n=sum(lengths))
    made = film([(frames, box)], fps=fps)
    return made.split(np.repeat(np.arange(len(lengths)), lengths))


def test_a_scrap_goes_with_the_part_next_to_it():
    scrap, host = scraps(parts_of(40, 6, 30, 5))
    assert scrap.tolist() == [False, True, False, True]
    # Frames 40-45 are as near to either side: the longer one has it.
    assert host.tolist() == [0, 0, 2, 2]
    between = film([walk(0, n=60)]).split(np.repeat([0, 1, 0, 2], [30, 8, 12, 10]))
    assert scraps(between)[1].tolist() == [0, 0, 0]


def test_many_short_moments_put_together_are_a_scrap():
    """Ten times three frames of a pose, between the frames of the person: nobody stays for so short."""
    part = np.r_[np.zeros(20, int), np.tile([1, 1, 1, 0, 0, 0, 0], 10), np.zeros(20, int)]
    made = film([walk(0, n=len(part))])
    assert [a.tolist() for a in scraps(made.split(part))] == [[False, True], [0, 0]]
    # As many in a row are somebody; and so are those who are all that there is, however scattered.
    assert not scraps(made.split(np.sort(part)))[0].any()
    scattered = np.tile([0, 0, 0, 1, 1, 1], 10)
    assert not scraps(film([walk(0, n=60)]).split(scattered))[0].any()


def test_what_is_short_by_itself_is_no_scrap():
    assert not scraps(parts_of(6, 5))[0].any()  # nothing longer in its track
    assert not scraps(film([walk(0, n=6), walk(300, n=60)]))[0].any()
    frames, box = walk(0, n=50)
    made = film([(frames * 0, box)]).split(np.repeat([0, 1], [44, 6]))
    assert not scraps(made)[0].any()  # a folder of crops: no times
    assert scraps(made.split(np.full(50, -1)))[0].tolist() == []


def test_seconds_count_not_frames():
    assert scraps(parts_of(40, 20, fps=10.0))[0].tolist() == [False, False]
    assert scraps(parts_of(60, 10, fps=30.0))[0].tolist() == [False, True]
    assert scraps(parts_of(60, 10, fps=5.0))[0].tolist() == [False, False]
    # Of a second there may be many crops, which say enough of who somebody is.
    assert scraps(parts_of(60, 30, fps=30.0))[0].tolist() == [False, False]
