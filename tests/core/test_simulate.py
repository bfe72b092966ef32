"""Simulated noise: what must hold of every result, uniform choices counted out, and MARS's own sizes."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracklearn.core import simulate as module
from tracklearn.core.simulate import OBSERVED, PRESETS, simulate


def crowd(rng, n_groups, n_cameras, longest):
    """(pid, camid, order) of groups of 1..longest rows, in mixed-up rows; some rows of nobody among them."""
    length = rng.integers(1, longest + 1, n_groups)
    pid, camid = (
        np.repeat(np.arange(n_groups) // 2, length),
        np.repeat(rng.integers(0, n_cameras, n_groups), length),
    )
    pid, camid = np.r_[pid, [-1] * 5], np.r_[camid, rng.integers(0, n_cameras, 5)]
    mixed = rng.permutation(len(pid))
    return pid[mixed], camid[mixed], rng.integers(0, longest, len(pid))


def check(made, pid, camid, order, *, r_FM, r_SW, min_segment, most_persons=3):
    """Everything that METHODS 1.3 promises, looked up row by row."""
    alone = pid < 0
    assert (made.tracklet[alone] == -1).all()
    assert (made.place[alone] == -1).all()
    groups = {}
    for row in np.lexsort((order, pid, camid)):
        if pid[row] >= 0:
            groups.setdefault((pid[row], camid[row]), []).append(row)
    m = len(groups)
    assert len(made.camid) == round(m * r_FM / r_SW)

    segments = []
    for key, rows in groups.items():
        at = made.tracklet[rows]
        cut = np.r_[0, np.flatnonzero(np.diff(at)) + 1, len(rows)]
        assert len(set(at)) == len(cut) - 1  # a tracklet holds one stretch of a person at most
        for a, b in itertools.pairwise(cut):
            assert (np.diff(made.place[rows[a:b]]) == 1).all()  # a stretch stays together, in order
            assert b - a >= min_segment or len(cut) == 2
            assert made.camid[at[a]] == key[1]
            segments.append(at[a])
    assert len(segments) == round(m * r_FM)
    held = np.bincount(segments, minlength=len(made.camid))
    assert held.min() >= 1
    assert held.max() <= most_persons
    for i in range(len(made.camid)):
        assert sorted(made.place[made.tracklet == i]) == list(range(np.count_nonzero(made.tracklet == i)))
    rates = made.rates
    assert (rates.n_persons, rates.n_tracklets) == (m, len(made.camid))
    assert rates.r_FM == pytest.approx(len(segments) / m)
    assert rates.n_persons * rates.r_FM == pytest.approx(rates.n_tracklets * rates.r_SW)
    assert rates.persons_per_tracklet == Counter(held.tolist())


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 14),
    st.integers(1, 3),
    st.sampled_from([3, 12, 60]),
    st.floats(1, 5),
    st.floats(1, 3),
    st.integers(1, 4),
    st.sampled_from([OBSERVED, {1: 1, 3: 2}, {1: 5, 2: 1, 4: 1}, {1: 1}]),
    st.integers(0, 2**32 - 1),
)
def test_what_must_hold(n_groups, n_cameras, longest, r_FM, r_SW, min_segment, histogram, seed):
    pid, camid, order = crowd(np.random.default_rng(seed), n_groups, n_cameras, longest)
    asked = {"r_FM": r_FM, "r_SW": r_SW}
    given = {"seed": seed, "min_segment": min_segment, "histogram": histogram}
    for _ in range(3):  # a refusal names a rate that is not refused
        try:
            made = simulate(pid, camid, order, **asked, **given)
        except ValueError as error:
            name, most = re.match(r"(r_..) .* at most ([\d.]+),", str(error)).groups()
            assert float(most) < asked[name]
            asked[name] = float(most)
        else:
            break
    check(made, pid, camid, order, **asked, min_segment=min_segment, most_persons=max(histogram))


class TestMars:
    @pytest.fixture(scope="class")
    def mars(self, data):
        """The 8,298 training tracklets, frame by frame."""
        from scipy.io import loadmat

        file = data / "mars" / "tracks_train_info.mat"
        if not file.is_file():
            pytest.skip(f"no MARS meta-data at {file}")
        start, end, pid, camid = loadmat(file)["track_train_info"].astype(np.int64).T
        frames = end - start + 1
        assert (len(start), frames.sum()) == (8298, 509914)
        return np.repeat(pid, frames), np.repeat(camid, frames), np.arange(frames.sum())

    @pytest.mark.parametrize(
        ("name", "published"), [("MARS_1.7_1.2", 2835), ("MARS_2.5_1.2", 4023), ("MARS_2.5_1.5", 3272)]
    )
    def test_paper_settings(self, mars, name, published):
        pid, camid, order = mars
        r_FM, r_SW = PRESETS[name]
        made = simulate(pid, camid, order, r_FM=r_FM, r_SW=r_SW, seed=0)
        rates = made.rates
        assert len(made.camid) == pytest.approx(published, rel=0.03)
        assert rates.r_FM == pytest.approx(r_FM, rel=0.001)
        assert rates.r_SW == pytest.approx(r_SW, rel=0.001)
        assert rates.n_persons == 1955
        assert rates.n_persons * rates.r_FM == pytest.approx(rates.n_tracklets * rates.r_SW)
        # Every frame once: its (tracklet, place) is its own, and places have no holes.
        key = np.lexsort((made.place, made.tracklet))
        length = np.bincount(made.tracklet, minlength=len(made.camid))
        assert length.min() >= 2
        np.testing.assert_array_equal(made.tracklet[key], np.repeat(np.arange(len(length)), length))
        np.testing.assert_array_equal(made.place[key], np.concatenate([np.arange(n) for n in length]))
        np.testing.assert_array_equal(made.camid[made.tracklet], camid)

    def test_seed(self, mars):
        rates = {"r_FM": 2.5, "r_SW": 1.5}
        one, same, other = (simulate(*mars, **rates, seed=seed) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one.tracklet, same.tracklet)
        np.testing.assert_array_equal(one.place, same.place)
        assert np.mean(one.tracklet != other.tracklet) > 0.9


class TestChoices:
    def test_rates_of_one_change_nothing_but_numbers(self):
        pid, camid, order = crowd(np.random.default_rng(0), 12, 2, 20)
        made = simulate(pid, camid, order, r_FM=1, r_SW=1, seed=3)
        check(made, pid, camid, order, r_FM=1, r_SW=1, min_segment=2)
        assert made.rates.persons_per_tracklet == {1: made.rates.n_persons}

    def test_no_switches(self):
        pid, camid, order = crowd(np.random.default_rng(0), 12, 2, 40)
        made = simulate(pid, camid, order, r_FM=2.5, r_SW=1, seed=3)
        check(made, pid, camid, order, r_FM=2.5, r_SW=1, min_segment=2)
        assert made.rates.persons_per_tracklet == {1: round(2.5 * made.rates.n_persons)}

    @pytest.mark.parametrize("mean", [1, 1.01, 1.26, 2, 2.9, 3])
    def test_persons_follow_the_tilted_histogram(self, mean):
        """Shares p_k ∝ h_k e^(θk), that is: p_1 p_3 / p_2² is the histogram's."""
        n = 100_000
        persons = module._persons(n, round(n * mean), OBSERVED, np.random.default_rng(0))
        count = np.bincount(persons, minlength=4)[1:].astype(float)
        assert persons.sum() == round(n * mean)
        assert len(count) == 3
        if 1.1 < mean < 2.9:
            assert count[0] * count[2] / count[1] ** 2 == pytest.approx(85 * 6 / 16**2, rel=0.01)
            assert (persons[: n // 2] == 1).mean() == pytest.approx(count[0] / n, abs=0.01)

    def test_every_cut_is_as_likely(self):
        """A group of 8 in three segments of 2 or more can be cut in six ways; one of 3 in two: two ways."""
        seen, rng = Counter(), np.random.default_rng(0)
        first, length, n_segments = np.array([0, 8, 11]), np.array([8, 3, 1]), np.array([3, 2, 1])
        for _ in range(3000):
            cut = module._cuts(first, length, np.array([3, 1, 1]), 2, rng)
            seen[tuple(cut)] += 1
        assert set(seen) == {(2, 4), (2, 5), (2, 6), (3, 5), (3, 6), (4, 6)}
        assert all(abs(count - 500) < 5 * 500**0.5 for count in seen.values())
        both = {tuple(module._cuts(first, length, n_segments, 1, rng)) for _ in range(1000)}
        assert both == {(a, b, c) for a in range(1, 8) for b in range(a + 1, 8) for c in (9, 10)}

    def test_every_allotment_is_as_likely(self):
        """Segments 2 + 1 + 1 in tracklets of 2 + 1 + 1: every table of zeros and ones with these sums."""
        n_segments, persons = np.array([2, 1, 1]), np.array([2, 1, 1])
        cells = itertools.product([0, 1], repeat=9)
        tables = [np.reshape(c, (3, 3)) for c in cells]
        tables = {
            t.tobytes() for t in tables if (t.sum(1) == n_segments).all() and (t.sum(0) == persons).all()
        }
        rng, seen = np.random.default_rng(0), Counter()
        for _ in range(1000):
            table = np.zeros((3, 3), int)
            for g, t in zip([0, 0, 1, 2], module._allot(n_segments, persons, rng), strict=True):
                table[g, t] += 1
            seen[table.tobytes()] += 1
        assert set(seen) == tables
        expected = 1000 / len(tables)
        assert all(abs(count - expected) < 5 * expected**0.5 for count in seen.values())

    @pytest.mark.parametrize("total", range(1, 8))
    def test_allotment_exists_as_by_trial(self, total):
        """Against every table of zeros and ones of up to three groups and three tracklets."""
        for g, t in itertools.product((1, 2, 3), repeat=2):
            possible = {
                (tuple(table.sum(1)), tuple(table.sum(0)))
                for cells in itertools.product([0, 1], repeat=g * t)
                if (table := np.reshape(cells, (g, t))).sum() == total
            }
            for s in itertools.product(range(1, t + 1), repeat=g):
                for q in itertools.product(range(1, g + 1), repeat=t):
                    if sum(s) == sum(q) == total:
                        got = module._allotment_exists(np.array(s), np.array(q))
                        assert got == ((s, q) in possible)

    def test_uneven_counts_are_evened_out(self):
        """Two groups in all four tracklets cannot be, where one tracklet has one person only."""
        n_segments, persons = np.array([4, 4, 1]), np.array([3, 3, 2, 1])
        assert not module._allotment_exists(n_segments, persons)
        module._even_out(n_segments, np.array([4, 4, 4]), persons)
        assert sorted(n_segments) == [2, 3, 4]
        assert persons.tolist() == [3, 3, 2, 1]
        n_segments = np.array([4, 4, 1])  # the third cannot be cut: persons are evened out instead
        module._even_out(n_segments, np.array([4, 4, 1]), persons)
        assert n_segments.tolist() == [4, 4, 1]
        assert sorted(persons) == [2, 2, 2, 3]

    def test_share(self):
        share = module._share
        assert share(7, np.array([1, 1, 2]), np.zeros(3, int), np.full(3, 9)).tolist() == [2, 2, 3]
        assert share(7, np.array([1, 1, 2]), np.array([3, 0, 0]), np.full(3, 9)).tolist() == [3, 1, 3]
        assert share(7, np.array([1, 1, 2]), np.zeros(3, int), np.array([9, 9, 1])).tolist() == [3, 3, 1]
        assert share(0, np.array([0, 5]), np.zeros(2, int), np.array([0, 5])).tolist() == [0, 0]
        assert share(5, np.array([0, 5]), np.zeros(2, int), np.array([0, 5])).tolist() == [0, 5]

    def test_cameras_get_segments_by_their_length(self):
        """Camera 1's groups are three times as long: of 40 extra segments it gets about three in four."""
        pid, camid = np.repeat(np.arange(20), [20] * 10 + [60] * 10), np.repeat([0, 1], [200, 600])
        made = simulate(pid, camid, np.arange(800), r_FM=3, r_SW=1, seed=0)
        assert np.bincount(made.camid).tolist() == [19, 41]  # places to cut: 9 and 29 each


class TestRefusals:
    pid, camid = np.repeat(np.arange(4), 10), np.zeros(40, int)
    order = np.arange(40)

    def call(self, **given):
        arrays = [given.pop(name, getattr(self, name)) for name in ("pid", "camid", "order")]
        return simulate(*arrays, **({"r_FM": 2, "r_SW": 1.2, "seed": 0} | given))

    def test_too_many_fragments(self):
        with pytest.raises(ValueError, match=r"r_FM 6 cannot be reached: at most 5,"):
            self.call(r_FM=6)
        assert self.call(r_FM=6, min_segment=1).rates.r_FM == 6

    def test_too_many_persons(self):
        with pytest.raises(
            ValueError, match=r"r_SW 3.5 cannot be reached at r_FM 2: at most 2.666, with 3 persons"
        ):
            self.call(r_SW=3.5)
        assert self.call(r_SW=3.5, histogram={1: 1, 4: 1}).rates.r_SW == 4  # 8 segments in 2 tracklets
        with pytest.raises(ValueError, match=r"r_SW 1.1 cannot be reached at r_FM 2: at most 1, with"):
            self.call(r_SW=1.1, camid=self.pid)  # everybody alone in a camera

    def test_more_segments_than_tracklets_of_the_camera(self):
        """Two groups, one too short to be cut: of six segments five are one person's, in five tracklets."""
        pid = np.repeat([0, 1], [30, 1])
        with pytest.raises(ValueError, match=r"r_SW 2 cannot be reached at r_FM 3: at most 1.2, with"):
            self.call(pid=pid, camid=0 * pid, order=0 * pid, r_FM=3, r_SW=2)

    def test_values(self):
        for name, bad in itertools.product(("r_FM", "r_SW"), (0.9, float("nan"), float("inf"), -1)):
            with pytest.raises(ValueError, match=f"{name} is {bad}, expected a number of at least 1"):
                self.call(**{name: bad})
        with pytest.raises(ValueError, match="min_segment is 0"):
            self.call(min_segment=0)
        with pytest.raises(ValueError, match="seed is -1, expected 0 or more"):
            self.call(seed=-1)
        for bad in ({}, {2: 5}, {0: 1, 1: 1}, {1: 3, 2: -1}, {1: 0, 2: 4}):
            with pytest.raises(ValueError, match="histogram is"):
                self.call(histogram=bad)

    def test_arrays(self):
        with pytest.raises(ValueError, match=r"camid has shape \(3,\), expected \(40,\): one per row"):
            self.call(camid=np.zeros(3, int))
        with pytest.raises(ValueError, match="order has dtype float64, expected integers"):
            self.call(order=self.order / 2)
        for nobody in (np.full(40, -1), np.zeros(0, int)):
            with pytest.raises(ValueError, match="nothing to disturb"):
                self.call(pid=nobody, camid=nobody * 0, order=nobody * 0)

    def test_input_unchanged(self):
        kept = self.pid.copy(), self.camid.copy(), self.order.copy()
        self.call()
        for before, now in zip(kept, (self.pid, self.camid, self.order), strict=True):
            np.testing.assert_array_equal(before, now)
