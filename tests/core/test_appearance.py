"""Limits by pairs and people, small linkage beside the large one, who is in view at once, scraps."""

import numpy as np
import pytest
from tests.core.films import looks, walk

from tracklearn.core.appearance import FEW, Bounds, Limit, apart, grouped, without_scraps
from tracklearn.core.calibration import Calibration, FreePairs, equal_error, of_one_crop
from tracklearn.core.identities import Evidence, Limits, link


def calibration(same, different):
    same, different = np.sort(np.float32(same)), np.sort(np.float32(different))
    return Calibration("mean", same, different, *equal_error(same, different))


def test_the_limit_is_where_a_search_errs_as_often_either_way():
    rng = np.random.default_rng(0)
    # Squared distances of one person around 0.8, cosines of two around 0.
    same = np.sqrt(np.clip(rng.normal(0.8, 0.25, 4000), 0.01, None))
    different = np.sqrt(2 - 2 * np.clip(rng.normal(0.0, 0.15, 400_000), -1, 0.9))
    found = calibration(same, different)
    limit = Limit.of(found)
    for n in (1, 16, 256):
        distance = np.sqrt(2 - 2 * limit.cosine(n))
        missed, other = (same > distance).mean(), (different < distance).mean()
        if n == 1:
            assert distance == pytest.approx(found.threshold, abs=0.02)
        assert n * other == pytest.approx(missed, rel=0.5, abs=0.01)
    assert limit.cosine(3) == limit.cosine(4) > limit.cosine(2)
    assert limit.cosine(10**9) == limit.cosine(4096)
    assert list(limit.by_people) == sorted(limit.by_people, reverse=True)
    assert max(limit.by_people) <= found.threshold


def test_a_given_distance_is_the_limit_for_any_number():
    bounds = Bounds.at(1.0)
    assert [bounds.piece.cosine(n) for n in (0, 1, 1000)] == [0.5] * 3
    assert bounds.join == 1.0


def test_bounds_are_written_and_read():
    bounds = Bounds(Limit(0.9, (0.9, 0.8)), Limit(1.1), 0.95, 0.2)
    assert Bounds.of_dict(bounds.to_dict()) == bounds
    with pytest.raises((KeyError, TypeError, ValueError)):
        Bounds.of_dict({"piece": {"threshold": 0.9}})


@pytest.mark.parametrize("distance", [0, 2, -1, float("nan")])
def test_a_limit_that_is_no_distance_is_refused(distance):
    with pytest.raises(ValueError, match="expected one of unit features above 0, below 2"):
        Limit(distance)


def test_pairs_of_one_crop():
    """Groups 0 and 1 are one person, 0 and 3 two: of 0 the first row is left."""
    pairs = FreePairs(
        np.array([4, 5, 6, 7, 8, 9]), np.array([0, 2, 3, 5, 6]), np.array([[0, 1]]), np.array([[0, 3]])
    )
    cut = of_one_crop(pairs)
    assert [cut.row[a:b].tolist() for a, b in zip(cut.edge[:-1], cut.edge[1:], strict=True)] == [
        [4],
        [6],
        [7, 8],
        [9],
    ]
    assert pairs.row.tolist() == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("seed", range(4))
def test_grouping_is_the_linkage_of_identities(seed):
    rng = np.random.default_rng(seed)
    mean = looks(rng.integers(0, 6, 30), spread=1.2, seed=seed)
    weight = rng.integers(FEW, 40, 30).astype(float)
    pair = rng.integers(0, 30, (12, 2))
    pair = pair[pair[:, 0] != pair[:, 1]]
    barred = np.zeros((30, 30), bool)
    barred[pair[:, 0], pair[:, 1]] = barred[pair[:, 1], pair[:, 0]] = True
    before = barred.copy()
    known = Evidence(mean, weight, np.zeros(30, int), Limits(0.4, 0.4), pair, np.zeros((0, 2), int))
    expected = link(known, k=29)
    found = grouped(mean, weight, barred, few=0.4, many=0.4)
    assert np.unique(found, return_inverse=True)[1].tolist() == expected.tolist()
    assert (barred == before).all()


def test_few_crops_are_joined_by_their_own_limit():
    mean = np.array([[1.0, 0], [0.6, 0.8]])
    assert grouped(mean, [FEW, FEW], np.zeros((2, 2), bool), few=0.5, many=0.7).tolist() == [0, 1]
    assert grouped(mean, [FEW, FEW - 1], np.zeros((2, 2), bool), few=0.5, many=0.7).tolist() == [0, 0]


def test_in_view_at_once():
    frame, box = walk(0)
    far, near = walk(200)[1], box + 5
    assert apart(frame, box, frame, far)
    assert not apart(frame, box, frame + 40, far)  # one after the other
    assert not apart(frame, box, frame, near)  # a detector's second box
    assert apart(frame[:1], box[:1], frame, near)  # of one row nobody knows
    assert apart(frame[:1], box[:1], frame, far)
    # One track takes over from the other: three moments of forty.
    assert not apart(frame, box, frame + 37, far - np.array([126, 0, 126, 0]))


def test_scraps_go_with_the_nearest_piece():
    part = np.array([0] * 20 + [1] * 3 + [2] * 20 + [-1] * 2)
    time = np.arange(len(part)) / 10
    time[20:23] += 0.05
    found = without_scraps(part, time, goes_on=False)
    assert found[:20].tolist() == [0] * 20
    assert set(found[20:23].tolist()) <= {0, 2}
    assert len(set(found[20:23].tolist())) == 1
    assert found[23:].tolist() == [2] * 22
    # A piece at the end may still grow.
    short = np.array([0] * 20 + [1] * 5)
    assert without_scraps(short, np.arange(25) / 10, goes_on=True).tolist() == short.tolist()
    assert without_scraps(short, np.arange(25) / 10, goes_on=False).tolist() == [0] * 25
    # Where all are short, they are what there is.
    assert without_scraps(np.array([0, 0, 1, 1]), np.arange(4) / 10, goes_on=False).tolist() == [0, 0, 1, 1]
