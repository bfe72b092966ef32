"""Where another person begins, from pairs that come free."""

import numpy as np
import pytest
from tests.core.films import film, looks, walk

from tracklearn.core import calibration
from tracklearn.core.calibration import calibrate, equal_error, free_pairs


def crowd(n=12, spread=0.25, seed=0):
    """n people who walk beside one another, and their features."""
    made = film([walk(150.0 * i, n=40) for i in range(n)])
    return made, looks(made.tracklet, spread=spread, seed=seed)


def test_free_pairs_are_what_they_say():
    made, _ = crowd()
    pairs = free_pairs(made)
    person = made.tracklet
    assert len(pairs.same) == 12
    assert len(pairs.different) == 66
    rows = [pairs.row[a:b] for a, b in zip(pairs.edge[:-1], pairs.edge[1:], strict=True)]
    for a, b in pairs.same:
        assert set(person[rows[a]]) == set(person[rows[b]])
        assert made.frame[rows[a]].max() < made.frame[rows[b]].min()
    for a, b in pairs.different:
        assert set(person[rows[a]]).isdisjoint(person[rows[b]])


@pytest.mark.parametrize("statistic", ["mean", "nearest"])
def test_the_threshold_lies_between_the_two_kinds(statistic, monkeypatch):
    monkeypatch.setattr(calibration, "FEWEST", 10)
    made, x = crowd()
    found = calibrate(7 * x, free_pairs(made), statistic=statistic)
    assert found.error == 0
    assert found.separates
    assert found.same[-1] < found.threshold == found.joins_below < found.different[0]
    # By hand, of the first pair of one person.
    pairs = free_pairs(made)
    a, b = (x[pairs.row[pairs.edge[k] : pairs.edge[k + 1]]].astype(float) for k in pairs.same[0])
    means = [rows.mean(0) / np.linalg.norm(rows.mean(0)) for rows in (a, b)]
    hand = np.linalg.norm(means[0] - means[1]) if statistic == "mean" else np.sqrt(2 - 2 * (a @ b.T).max())
    assert np.abs(found.same - hand).min() < 1e-5


def test_features_that_know_nobody_are_told_and_cut_less(monkeypatch):
    monkeypatch.setattr(calibration, "FEWEST", 10)
    made, _ = crowd()
    rng = np.random.default_rng(3)
    found = calibrate(rng.normal(size=(made.n_crops, 16)), free_pairs(made))
    assert not found.separates
    assert found.joins_below >= found.quantile("same", 0.95) > found.threshold
    assert found.to_dict()["separates"] is False


def test_too_few_pairs_conclude_nothing():
    made, x = crowd(n=3)
    assert calibrate(x, free_pairs(made)) is None


def test_a_set_without_films_has_no_pairs_of_two_people():
    frames, box = walk(0)
    made = film([(frames, box), (frames + 500, box + 300)])
    assert len(free_pairs(made).different) == 0
    assert calibrate(np.ones((made.n_crops, 4)), free_pairs(made)) is None


def test_equal_error_against_every_threshold():
    rng = np.random.default_rng(0)
    same, different = rng.normal(0.4, 0.1, 400), rng.normal(0.7, 0.1, 900)
    threshold, error = equal_error(same, different)
    gaps = [abs((same > at).mean() - (different < at).mean()) for at in np.linspace(0, 1.2, 2000)]
    assert abs(threshold - np.linspace(0, 1.2, 2000)[int(np.argmin(gaps))]) < 0.01
    assert abs((same > threshold).mean() - error) < 0.01
    assert abs((different < threshold).mean() - error) < 0.01
    # One odd pair moves nothing where the kinds are apart.
    far = equal_error(np.r_[rng.normal(0.2, 0.02, 300), 0.55], rng.normal(0.9, 0.02, 300))[0]
    assert abs(far - 0.55) < 0.03


def test_an_unknown_statistic_is_refused():
    made, x = crowd()
    with pytest.raises(ValueError, match="statistic"):
        calibrate(x, free_pairs(made), statistic="median")
