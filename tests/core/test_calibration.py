"""Where another person begins, from pairs that come free."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.films import film, looks, walk

from tracklearn.core import calibration
from tracklearn.core.calibration import (
    Curve,
    calibrate,
    chance_pairs,
    crossing,
    equal_error,
    free_pairs,
)
from tracklearn.core.normalise import per_camera


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


def two_cameras(n=60, *, normalised, view=0.0, seed=0):
    """Means of n people seen by two cameras that shift and scale what they see, and the pairs within them.

    view: how much more a camera does to one person than to another.
    """
    rng = np.random.default_rng(seed)
    person = rng.normal(size=(n, 24))
    rows, camid, who = [], [], []
    for camera in (0, 1):
        shift, scale = 1.5 * rng.normal(size=24), rng.uniform(0.5, 2, 24)
        own = view * rng.normal(size=(n, 24))
        for _ in range(2):
            rows.append(shift + scale * (person + own + 0.25 * rng.normal(size=(n, 24))))
            camid += [camera] * n
            who += list(range(n))
    x, camid, who = np.concatenate(rows), np.array(camid), np.array(who)
    x = per_camera(x, camid) if normalised else x
    x = x / np.linalg.norm(x, axis=1, keepdims=True)

    def of(a, b):
        return np.linalg.norm(x[a] - x[b], axis=1)

    a, b = (v.ravel() for v in np.triu_indices(len(x), 1))
    within, one = camid[a] == camid[b], who[a] == who[b]
    cells = {
        (w, o): np.sort(of(a[(within == w) & (one == o)], b[(within == w) & (one == o)]))
        for w in (0, 1)
        for o in (0, 1)
    }
    same, different = cells[1, 1], cells[1, 0]
    made = calibration.Calibration("mean", same, different, *equal_error(same, different))
    return x, camid, made, cells[0, 1], cells[0, 0]


def furthest_shares(a, b):
    """Kolmogorov's distance of two samples."""
    at = np.r_[a, b]
    return np.abs([(a <= v).mean() - (b <= v).mean() for v in at]).max()


def test_across_cameras_one_person_is_as_near_as_within_once_cameras_are_taken_out():
    """The assumption, where it is true, and how far it is from it where nothing is taken out."""
    x, camid, within, same, _ = two_cameras(normalised=True)
    found = crossing(x, camid, within)
    assert found.holds
    assert abs(found.shift) < 0.05
    assert furthest_shares(within.moved(found.shift).same, same) < 0.15
    raw = two_cameras(normalised=False)
    assert furthest_shares(raw[2].same, raw[3]) > 0.9


def test_what_a_camera_adds_to_everybody_is_measured():
    x, camid, within, _, different = two_cameras(normalised=False)
    found = crossing(x, camid, within)
    assert found.shift > 0.3
    # Of two people what is said is so: that is what was measured. Half of the pairs lie below its median.
    moved = within.moved(found.shift)
    assert abs((different < np.median(moved.different)).mean() - 0.5) < 0.05


def test_what_a_camera_does_to_some_is_not_seen():
    """The limit of the assumption, as its docstring has it: one person is further away than is said."""
    x, camid, within, same, _ = two_cameras(normalised=True, view=0.7)
    found = crossing(x, camid, within)
    assert np.median(same) > within.moved(found.shift).quantile("same", 0.95)


def test_pairs_across_cameras_that_lie_otherwise_are_told():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3))  # few dimensions: chance pairs spread over all distances
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    different = rng.normal(1.4, 0.02, 500)
    made = calibration.Calibration("mean", rng.normal(0.4, 0.1, 100), np.sort(different), 0.9, 0.0)
    assert not crossing(x, np.arange(300) % 2, made).holds
    assert crossing(x, np.zeros(300, int), made) is None
    # Pairs across cameras that are nearer than those within take nothing from one person's distance.
    near = calibration.Calibration("mean", made.same, np.full(100, 1.9), 1.0, 0.0)
    assert crossing(x, np.arange(300) % 2, near).shift == 0
    assert crossing(x[:1], np.zeros(1, int), made) is None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_the_curve_never_rises_and_is_the_best_of_those(seed):
    rng = np.random.default_rng(seed)
    p, q = rng.integers(1, 30, 2)
    same, different = rng.integers(0, 20, p) / 10, rng.integers(5, 25, q) / 10
    curve = Curve.of(same, different)
    assert (np.diff(curve.chance) <= 0).all()
    assert 0 < curve.chance.min() <= curve.chance.max() < 1
    grid = np.linspace(-1, 3, 200)
    assert (np.diff(curve(grid)) <= 1e-12).all()
    # No worse than steps made in any other way, by squares with one weight for each kind.
    at = np.unique(np.r_[same, different])

    def cost(value):
        return ((1 - value(same)) ** 2).mean() + (value(different) ** 2).mean()

    low, high = 1 / (q + 2), 1 - 1 / (p + 2)
    for cut in at:
        assert cost(curve) <= cost(lambda d, cut=cut: np.where(d < cut, high, low)) + 1e-9


def test_the_curve_is_the_share_of_one_person_where_the_kinds_overlap():
    rng = np.random.default_rng(1)
    same, different = rng.normal(0.5, 0.1, 4000), rng.normal(0.7, 0.1, 9000)
    curve = Curve.of(same, different)
    for d in (0.5, 0.6, 0.7):
        true = np.exp(-(((d - 0.5) / 0.1) ** 2) / 2)
        true /= true + np.exp(-(((d - 0.7) / 0.1) ** 2) / 2)
        assert abs(float(curve(d)) - true) < 0.06


def test_false_merges_are_kept_to_the_rate_that_was_asked_for():
    rng = np.random.default_rng(2)
    rates = []
    for _ in range(300):
        different = np.sort(rng.normal(1.0, 0.1, 150)).astype(np.float32)
        limit = calibration.Calibration("mean", different, different, 0.5, 0.0).limit(0.02)
        rates.append((rng.normal(1.0, 0.1, 2000) < limit).mean())
    assert abs(np.mean(rates) - 3 / 151) < 0.002
    made = calibration.Calibration("mean", different, different, 0.5, 0.0)
    assert made.limit(1 / 151) == different[0]
    with pytest.raises(ValueError, match=r"150 pairs of two people .* ask for 0.67 % or more"):
        made.limit(0.006)
    with pytest.raises(ValueError, match="between 0 and 1"):
        made.limit(1.0)


def test_tracklets_by_chance_stand_for_moments_where_there_are_none():
    frames, box = walk(0)
    box = np.tile([0, 0, 64, 128], (len(frames), 1))
    made = film([(frames, box)] * 40)
    pairs = chance_pairs(made)
    rows = [pairs.row[a:b] for a, b in zip(pairs.edge[:-1], pairs.edge[1:], strict=True)]
    assert len(pairs.same) == 40
    assert all(len(set(made.tracklet[np.r_[rows[a], rows[b]]])) == 1 for a, b in pairs.same)
    assert all(made.tracklet[rows[a]][0] != made.tracklet[rows[b]][0] for a, b in pairs.different)
    # Forty people: a threshold. Four people, ten tracklets each: none.
    assert calibrate(looks(made.tracklet), pairs).separates
    assert not calibrate(looks(made.tracklet % 4), pairs).separates
    assert len(chance_pairs(film([walk(0, n=3)])).same) == 0


def test_rare_false_merges_are_told_by_a_model_where_pairs_are_too_few():
    """Cosines of people in 64 dimensions are nearly normal: of a million pairs few lie below."""
    rng = np.random.default_rng(0)

    def cosines(n):
        x = rng.normal(size=(2, n, 64))
        x /= np.linalg.norm(x, axis=2, keepdims=True)
        return np.einsum("ij,ij->i", x[0], x[1])

    different = np.sort(np.sqrt(2 - 2 * cosines(4000)))
    made = calibration.Calibration("mean", different, different, 0.5, 0.0)
    many = np.sqrt(2 - 2 * cosines(200_000))
    assert 0.4 < (many < made.rare(1e-3)).mean() / 1e-3 < 1.6
    assert (many < made.rare(1e-6)).sum() <= 2
    assert made.rare(0.5) == pytest.approx(np.median(different), abs=1e-6)
    assert made.rare(1e-3) < made.rare(1e-2) < made.rare(0.1)
