"""Signs of learning: against plain loops, scikit-learn, and made features that get better or worse."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tracklearn.core import signs


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_twins_is_the_share_that_finds_itself():
    one = np.eye(4)
    assert signs.twins(one, one) == 1
    assert signs.twins(one, one[[1, 0, 2, 3]]) == 0.5
    assert np.isnan(signs.twins(one[:1], one[:1]))


def test_halves_are_means_of_clips():
    features = unit(np.random.default_rng(0).normal(size=(10, 3))).astype(np.float32)
    group = np.array([0, 0, 0, 2, 5, 5, 5, 5, 7, 7])
    first, second, owner = signs.halves(features, group)
    assert owner.tolist() == [0, 5, 7]  # a clip of one crop has no halves
    np.testing.assert_allclose(first[1], unit(features[4:6].mean(0)), rtol=1e-5)
    np.testing.assert_allclose(second[0], unit(features[1:3].mean(0)), rtol=1e-5)
    none = signs.halves(features[:0], group[:0])
    assert [len(part) for part in none] == [0, 0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_separation_is_the_area_under_the_curve(seed):
    rng = np.random.default_rng(seed)
    same, different = rng.normal(0.5, 1, 40).round(1), rng.normal(0, 1, 90).round(1)
    truth = np.r_[np.ones(40), np.zeros(90)]
    assert signs.separation(same, different) == pytest.approx(roc_auc_score(truth, np.r_[same, different]))
    assert np.isnan(signs.separation(same, different[:0]))


def test_silhouette_by_a_loop():
    rng = np.random.default_rng(1)
    features = unit(rng.normal(size=(30, 5)))
    label = rng.integers(-1, 4, 30)
    label[label == 3] = -1
    label[0] = 3  # alone: a mean of others, no row of its own
    values = []
    for i in np.flatnonzero(label >= 0):
        own = np.flatnonzero((label == label[i]) & (np.arange(30) != i))
        if not len(own):
            continue
        a = 1 - features[i] @ unit(features[own].sum(0))
        others = [features[label == c].sum(0) for c in set(label.tolist()) - {-1, label[i]}]
        b = min(1 - features[i] @ unit(o) for o in others)
        values.append((b - a) / max(a, b))
    assert signs.silhouette(features, label) == pytest.approx(np.mean(values))
    assert np.isnan(signs.silhouette(features, np.zeros(30, int)))
    assert np.isnan(signs.silhouette(features[:2], np.array([0, 1])))


def made(noise, *, n=60, frames=8, seed=0):
    rng = np.random.default_rng(seed)
    person = unit(rng.normal(size=(n, 16)))
    group = np.repeat(np.arange(n), frames)
    return unit(person[group] + noise * rng.normal(size=(n * frames, 16))).astype(np.float32), group


def test_all_signs_fall_as_features_get_worse():
    apart = np.stack([np.arange(59), np.arange(1, 60)], 1)
    found = [signs.of_clips(*made(noise), apart) for noise in (0.1, 1.0, 3.0)]
    for name in ("same_track", "two_people"):
        values = [f[name] for f in found]
        assert values == sorted(values, reverse=True), name
        assert values[0] > 0.99
        assert values[2] < 0.9
    assert "two_people" not in signs.of_clips(*made(0.1), apart[:0])
    assert signs.of_clips(*made(0.1, n=1), apart[:0]) == {}


def test_large_sets_are_sampled_evenly():
    assert signs.spread(np.arange(10), 4).tolist() == [0, 3, 6, 9]
    assert len(signs.halves(*made(0.1, n=1500, frames=2))[2]) == signs.AT_MOST


def test_an_earlier_round_is_better_by_two_signs():
    rounds = [{"a": 0.5, "b": 0.5}, {"a": 0.9, "b": 0.9}, {"a": 0.9, "b": 0.8}, {"a": 0.7, "b": 0.7}]
    assert signs.better_before(rounds, ("a", "b"), by=0.03) == (1, ["a", "b"])
    assert signs.better_before(rounds, ("a", "b"), by=0.3) == (-1, [])
    assert signs.better_before(rounds[:3], ("a", "b"), by=0.03) == (-1, [])  # one of two is not enough
    assert signs.better_before(rounds, ("a",), by=0.03) == (-1, [])
    assert signs.better_before(rounds, ("c",), by=0.03) == (-1, [])
    assert signs.better_before([], ("a",), by=0.03) == (-1, [])
