"""Stamps become times: whatever they are, times rise, and pauses stay."""

import numpy as np
import pytest

from tracklearn.store.film.stamps import MPEG_WRAP, Clock, Survey, rate_of, survey


def _times(stamps, rate=10.0):
    clock = Clock(rate)
    following = [*stamps[1:], None]
    times = [clock.next(stamp, following=after) for stamp, after in zip(stamps, following, strict=True)]
    assert all(np.diff(times) > 0)
    return times, clock


def test_times_are_seconds_since_the_first_stamp_and_pauses_stay():
    times, clock = _times([-0.2, -0.1, 0.0, 40_000.0, 40_000.1])
    assert times == pytest.approx([0, 0.1, 0.2, 40_000.2, 40_000.3])
    assert not clock.mended


def test_frames_without_a_stamp_are_placed_by_the_rate():
    for stamps in ([5.0, None, None, 5.3, 5.4], [None, None, 7.0, 7.1, 7.2], [5.0, 5.1, 5.2, None, None]):
        assert _times(stamps)[0] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    # a rate too slow: the next stamp is taken for what it is, and the clock is not moved
    times, _ = _times([0.0, None, None, None, None, 0.25, 1.0])
    assert times[-1] == 1.0


def test_equal_stamps_and_small_steps_back_leave_the_clock_where_it_is():
    times, clock = _times([0.0, 0.1, 0.1, 0.2, 0.3, 0.2, 0.4, 0.5])
    assert times[-1] == 0.5
    assert sum(clock.mended.values()) == 2


def test_stamps_that_start_again_go_on_at_the_rate():
    for again in (0.0, -1e9, 1e9):
        times, clock = _times([3.0, 3.1, 3.2, 3.3, 3.4, again, again + 0.1, again + 0.2])
        assert times == pytest.approx(np.arange(8) / 10, abs=1e-6)
        assert sum(clock.mended.values()) == 1


def test_an_overflowing_clock_goes_on():
    stamps = [(MPEG_WRAP - 0.25 + i / 10) % MPEG_WRAP for i in range(6)]
    times, clock = _times(stamps)
    assert times == pytest.approx(np.arange(6) / 10, abs=1e-6)
    assert not clock.mended


@pytest.mark.parametrize("stray", [500.0, -500.0, 1e9])
def test_one_stamp_far_from_its_neighbours_is_no_pause(stray):
    times, clock = _times([0.0, 0.1, 0.2, stray, 0.4, 0.5])
    assert times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert sum(clock.mended.values()) == 1


def test_any_stamps_give_rising_times():
    rng = np.random.default_rng(0)
    for _ in range(300):
        stamps = rng.choice([0.0, 0.1, 1.0, 1e5, -1e5, 1e12], 40) * rng.choice([1, 1, 3], 40)
        stamps = [None if rng.random() < 0.2 else float(stamp) + i / 10 for i, stamp in enumerate(stamps)]
        times, _ = _times(stamps)
        assert times[0] == 0
        assert np.isfinite(times).all()


def test_the_rate_is_that_of_the_stamps_without_pauses():
    cut = [(i / 10 + 3 * (i > 5), None) for i in range(12)]
    assert survey(cut, []) == Survey(pytest.approx(10.0), False)
    alternating = np.cumsum([0, 2, 3, 2, 3, 2, 3]) / 60
    assert survey([(stamp, stamp) for stamp in alternating], []).rate == pytest.approx(24)
    assert survey([(None, i / 5) for i in range(5)], []).rate == pytest.approx(5)
    assert survey([(0.0, None), (None, None), (0.2, None)], []).rate == pytest.approx(10)
    assert survey([(None, None)] * 4, []).rate is None
    assert survey([], [0.1, 0.3, 0.2]).reordered
    assert not survey([], [0.1, None, 0.2]).reordered
    assert rate_of(None, 7.0) == 7.0
    assert rate_of(25.0, None) == 25.0
    assert rate_of(None, None) is None
