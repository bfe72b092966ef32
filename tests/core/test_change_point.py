"""Isolation by change points against a reference that tries every segmentation."""

import tracemalloc
from itertools import combinations, pairwise

import numpy as np
import pytest

from tracklearn.core import frames, threads
from tracklearn.core.change_point import REJOIN, typical_penalty
from tracklearn.core.isolate import isolate

A, B, C = np.eye(3)


def cut(features, penalty=None, time=None, tracklet=None):
    """Parts by change points; one tracklet unless told otherwise."""
    tracklet = np.zeros(len(features), int) if tracklet is None else tracklet
    frame = np.arange(len(features))
    return isolate(features, tracklet, frame=frame, time=time, method="change-point", penalty=penalty)


def price(penalty, weight):
    """Of a cut in a tracklet of this weight."""
    return penalty * max(2.0, float(np.log(weight)))


def spread(rows, weight):
    """Σ w |x − mean|² of unit rows."""
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    mean = (weight[:, None] * rows).sum(0) / weight.sum()
    return float((weight * ((rows - mean) ** 2).sum(1)).sum())


def joined_again(x, weight, edge, least):
    """Ward's method on the stretches, each spread computed from its rows; parts by first row."""
    groups = [list(range(a, b)) for a, b in pairwise(edge)]
    while len(groups) > 1:
        added = {
            (k, m): spread(x[groups[k] + groups[m]], weight[groups[k] + groups[m]])
            - spread(x[groups[k]], weight[groups[k]])
            - spread(x[groups[m]], weight[groups[m]])
            for k, m in combinations(range(len(groups)), 2)
        }
        (k, m), smallest = min(added.items(), key=lambda item: item[1])
        if smallest >= least:
            break
        groups[k] += groups.pop(m)
    part = np.empty(len(x), np.int64)
    for number, group in enumerate(sorted(groups, key=min)):
        part[group] = number
    return part


def reference(x, weight, penalty):
    """Of all 2^(n−1) segmentations the cheapest."""
    n, one = len(x), price(penalty, weight.sum())
    cost = {(a, b): spread(x[a:b], weight[a:b]) for a in range(n) for b in range(a + 1, n + 1)}
    best = min(
        ((0, *inner, n) for size in range(n) for inner in combinations(range(1, n), size)),
        key=lambda edge: sum(cost[pair] for pair in pairwise(edge)) + one * (len(edge) - 2),
    )
    return joined_again(x, weight, best, REJOIN * one)


def slow(x, weight, penalty):
    """The dynamic programme in float64, for more rows."""
    x = x / np.linalg.norm(x, axis=1, keepdims=True) * weight[:, None]
    total, mass = np.vstack([np.zeros(x.shape[1]), np.cumsum(x, 0)]), np.r_[0, np.cumsum(weight)]
    one = price(penalty, weight.sum())
    best, back = [-one], [0]
    for j in range(1, len(x) + 1):
        cost = [best[a] + one - ((total[j] - total[a]) ** 2).sum() / (mass[j] - mass[a]) for a in range(j)]
        best.append(min(cost))
        back.append(int(np.argmin(cost)))
    edge = [len(x)]
    while edge[-1]:
        edge.append(back[edge[-1]])
    return joined_again(x, weight, edge[::-1], REJOIN * one)


def people(lengths, width=32, noise=0.5, seed=0):
    """(features, tracklet): each of `lengths` is a tracklet of these stretches, two people in turns."""
    rng = np.random.default_rng(seed)
    rows = []
    for stretches in lengths:
        pair = rng.normal(size=(2, width))
        rows.append(np.concatenate([np.tile(pair[k % 2], (n, 1)) for k, n in enumerate(stretches)]))
    clean = np.concatenate(rows)
    tracklet = np.repeat(np.arange(len(lengths)), [sum(s) for s in lengths])
    return clean + noise * rng.normal(size=clean.shape), tracklet


class TestByHand:
    def test_a_switch_is_cut_where_it_saves_more_than_the_penalty(self):
        # whole: 8 − |4 A + 4 B|² / 8 = 4; cut: 0
        rows = np.array([A] * 4 + [B] * 4)
        assert cut(rows, penalty=3.99 / np.log(8)).tolist() == [0] * 4 + [1] * 4
        assert cut(rows, penalty=4.01 / np.log(8)).tolist() == [0] * 8

    def test_the_length_of_rows_does_not_matter(self):
        rows = np.array([A] * 4 + [B] * 4) * np.arange(1, 9)[:, None]
        assert cut(rows, penalty=3.99 / np.log(8)).tolist() == [0] * 4 + [1] * 4

    def test_somebody_comes_back(self):
        rows = np.array([A] * 5 + [B] * 6 + [A] * 4 + [C] * 7 + [B] * 3)
        assert cut(rows, penalty=0.3).tolist() == [0] * 5 + [1] * 6 + [0] * 4 + [2] * 7 + [1] * 3

    def test_a_short_burst_belongs_to_the_tracklets_person(self):
        # 2 frames in 42: whole 42 − (40² + 2²) / 42 = 3.81, two cuts save it all
        rows = np.array([A] * 20 + [B] * 2 + [A] * 20)
        assert not cut(rows, penalty=2 / np.log(42)).any()
        assert cut(rows, penalty=1.8 / np.log(42)).tolist() == [0] * 20 + [1] * 2 + [0] * 20

    @pytest.mark.parametrize("n", [1, 2, 3, 5])
    def test_short_tracklets(self, n):
        rows = np.array([A] * (n - n // 2) + [B] * (n // 2))
        saved = (n - n // 2) * (n // 2) * 2 / n  # of the spread
        assert not cut(rows, penalty=saved / 2 + 0.01).any()
        if n > 1:
            assert cut(rows, penalty=saved / 2 - 0.01).tolist() == [0] * (n - n // 2) + [1] * (n // 2)

    def test_equal_rows_are_never_cut(self):
        assert not cut(np.ones((50, 7)), penalty=1e-6).any()

    def test_nothing_in_nothing_out(self):
        none = np.zeros(0, int)
        assert cut(np.zeros((0, 3)), penalty=1, tracklet=none).shape == (0,)
        assert cut(np.zeros((0, 3)), tracklet=none).shape == (0,)


class TestAgainstTheReference:
    def test_every_segmentation_of_small_sets(self):
        rng = np.random.default_rng(0)
        parted = again = 0
        for number in range(250):
            n = int(rng.integers(1, 9))
            x = rng.normal(size=(3, 4))[np.sort(rng.integers(0, 3, n))] + 0.4 * rng.normal(size=(n, 4))
            x = x[rng.permutation(n)] if number % 5 == 0 else x
            time = np.cumsum(rng.choice([1 / 30, 1 / 12, 0.1, 1, 7], n)) if number % 2 else None
            weight = np.ones(n)
            if time is not None and n > 1:
                weight[1:] = np.minimum(1, 10 * np.diff(time))
                weight[0] = weight[1]
            penalty = float(rng.uniform(0.02, 0.7))
            got = cut(x.astype(rng.choice([np.float32, np.float64])), penalty, time)
            np.testing.assert_array_equal(got, reference(x, weight, penalty), f"set {number}")
            parted += got.max() > 0
            again += got.max() > 0 and (np.diff(got) < 0).any()
        assert parted > 60
        assert again > 5

    @pytest.mark.parametrize("n", [255, 256, 257, 700])
    def test_short_and_long_tracklets(self, n):
        features, _ = people([[n // 3, n // 3, n - 2 * (n // 3)]], noise=0.8, seed=n)
        for penalty in (0.2, 0.6):
            got = cut(features, penalty)
            np.testing.assert_array_equal(got, slow(features, np.ones(n), penalty))
            assert got.max() > 0


class TestFrameRates:
    @pytest.mark.parametrize("times", [3, 6])
    def test_repeated_frames_change_nothing(self, times):
        features, _ = people([[30, 20, 25]])
        want = cut(features, 0.5, np.arange(75) / 10)
        assert want.max() == 1
        got = cut(features.repeat(times, 0), 0.5, np.arange(75 * times) / (10 * times))
        np.testing.assert_array_equal(got, want.repeat(times))

    @pytest.mark.parametrize("fps", [1, 5])
    def test_frames_that_come_slowly_count_in_full(self, fps):
        features, _ = people([[30, 20, 25]], noise=0.9)
        gap = np.where(np.arange(75) >= 40, 6.0, 0)  # seconds unseen
        for time in (np.arange(75) / fps, np.arange(75) / fps + gap):
            np.testing.assert_array_equal(cut(features, 0.5, time), cut(features, 0.5))

    def test_unknown_times_count_in_full(self):
        features, _ = people([[30, 20, 25]], noise=0.9)
        want = cut(features, 0.5)
        np.testing.assert_array_equal(cut(features, 0.5, np.r_[np.arange(40), np.arange(35)] / 5), want)
        for time in (np.zeros(75), np.full(75, np.nan)):
            np.testing.assert_array_equal(cut(features, 0.5, time), want)
            assert typical_penalty(features, np.zeros(75, int), time=time) == typical_penalty(
                features, np.zeros(75, int)
            )


class TestPenaltyFromTheData:
    def test_is_the_mean_change_over_half_a_second(self):
        rows = np.array([A, A + B, B, B + C, B + C, A])
        tracklet = np.array([0, 0, 0, 0, 1, 1])
        half = 0.5**0.5
        # one frame a second: pairs 01, 12, 23 | 45; four a second: 02, 13, 23 | 45; no pair from a last row
        for time, cosine in ((np.arange(6), [half, half, half, 0]), (np.arange(6) / 4, [0, 0.5, half, 0])):
            assert typical_penalty(rows, tracklet, time=time) == pytest.approx(1 - np.mean(cosine))
        assert typical_penalty(rows, tracklet) == pytest.approx(1 - np.mean([0, 0.5, half, 0]))

    def test_does_not_depend_on_the_frame_rate(self):
        features, tracklet = people([[400], [330]])
        slowly = typical_penalty(features, tracklet, time=np.arange(730) / 10)
        fast = typical_penalty(features.repeat(3, 0), tracklet.repeat(3), time=np.arange(2190) / 30)
        assert fast == pytest.approx(slowly, rel=1e-2)

    @pytest.mark.parametrize("rows", [np.zeros((0, 3)), A[None], np.array([A, A, A])])
    def test_falls_back_where_there_is_no_step(self, rows):
        assert typical_penalty(rows, np.zeros(len(rows), int)) == 0.18

    def test_one_person_is_not_cut(self):
        for seed in range(20):
            features, tracklet = people([[n] for n in (2, 5, 30, 200, 400)], noise=1.0, seed=seed)
            assert not cut(features, tracklet=tracklet).any()

    def test_two_people_are(self):
        features, tracklet = people([[40, 30, 35], [60], [25, 50]], noise=0.6)
        part = cut(features, tracklet=tracklet)
        want = np.repeat([0, 1, 0, 0, 0, 1], [40, 30, 35, 60, 25, 50])
        np.testing.assert_array_equal(part, want)


class TestIndependence:
    lengths = ([9, 8], [1], [300, 250], [40, 30, 40], [2], [64], [260, 30])

    def test_of_other_tracklets_their_order_and_kind(self):
        features, tracklet = people(self.lengths)
        want = cut(features, 0.6, tracklet=tracklet)
        assert want.max() == 1
        for t in range(len(self.lengths)):
            np.testing.assert_array_equal(cut(features[tracklet == t], 0.6), want[tracklet == t])
        torch = pytest.importorskip("torch")
        np.testing.assert_array_equal(cut(torch.from_numpy(features), 0.6, tracklet=tracklet), want)

    def test_of_threads_and_pieces(self, monkeypatch):
        features, tracklet = people(self.lengths, noise=0.9, seed=4)
        time = np.arange(len(tracklet)) / 25
        want = cut(features, 0.3, time, tracklet)
        for span in (64, 4000):
            monkeypatch.setattr(frames, "_SPAN", span)
            for n in (1, 2):
                with threads.limit(n):
                    np.testing.assert_array_equal(cut(features, 0.3, time, tracklet), want)

    def test_memory_does_not_grow_with_the_square(self):
        features, _ = people([[1500, 2000, 1500]], noise=0.6)
        features = features.astype(np.float32)
        cut(features[:600], 0.5)  # compiled
        tracemalloc.start()
        part = cut(features, 0.5)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        np.testing.assert_array_equal(part, np.repeat([0, 1, 0], [1500, 2000, 1500]))
        assert peak < 25e6  # all products: 100 MB

    def test_input_unchanged(self):
        features, tracklet = people([[9, 9]])
        time = np.arange(18) / 30
        kept = features.copy(), time.copy()
        cut(features, None, time, tracklet)
        np.testing.assert_array_equal(features, kept[0])
        np.testing.assert_array_equal(time, kept[1])


class TestRefusals:
    @pytest.mark.parametrize("penalty", [0, -1, np.nan, np.inf])
    def test_penalty(self, penalty):
        with pytest.raises(ValueError, match="penalty is"):
            cut(np.eye(3), penalty)

    @pytest.mark.parametrize("value", [0, np.nan, np.inf])
    def test_rows_without_a_direction(self, value):
        features, tracklet = people([[9], [300], [1]])
        features[[4, 200, 309]] = value
        for penalty in (None, 1.0):
            with pytest.raises(ValueError, match="3 rows are not: 4, 200, 309"):
                cut(features, penalty, tracklet=tracklet)
        with pytest.raises(ValueError, match="3 rows are not: 4, 200, 309"):
            typical_penalty(features, tracklet)

    def test_of_the_typical_penalty(self):
        with pytest.raises(ValueError, match="tracklet decreases"):
            typical_penalty(np.eye(3), np.array([1, 0, 0]))
        with pytest.raises(ValueError, match=r"time has shape \(2,\)"):
            typical_penalty(np.eye(3), np.zeros(3, int), time=np.zeros(2))
