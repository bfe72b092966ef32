"""Which files of a camera are on one clock."""

from datetime import datetime

import numpy as np
import pytest

from tracklearn.store.film.clocks import begin_record, clock_columns, clocks_of, moment
from tracklearn.store.film.promises import start_time
from tracklearn.types import Tracklets


def test_moments_on_the_wall():
    sources = [
        {"start": "2026-05-01T08:00:00.500+02:00"},
        {"start": None},
        {},
        {"start": "9999-12-31T23:59:59"},
    ]
    at = moment({"sources": sources}, 0, 61.25)
    assert at.isoformat() == "2026-05-01T08:01:01.750000+02:00"
    assert moment({"sources": sources}, 1, 1.0) is None
    assert moment({"sources": sources}, 2, 1.0) is None
    assert moment({"sources": sources}, 3, 60.0) is None
    assert moment({"sources": sources}, 0, float("nan")) is None
    # Simulated tracklets have times of their own.
    assert moment({"sources": sources, "settings": {"noise": {}}}, 0, 1.0) is None


def _record(start, camera="hall", seconds=60.0, status="ok"):
    video = {"video": {"seconds": seconds}}
    return {"camera": camera, "start": start, "status": status, **video}


def _clocks(*records):
    entries = clocks_of(records)
    return [entry["clock"] for entry in entries], [entry["offset"] for entry in entries]


def test_files_that_follow_each_other_share_a_clock_in_any_order():
    records = [_record(f"2026-05-01T08:{minute:02}:00+00:00") for minute in (2, 0, 1)]
    assert _clocks(*records) == ([0, 0, 0], [120.0, 0.0, 60.0])


def test_cameras_and_zones():
    records = [
        _record("2026-05-01T08:00:00+00:00"),
        _record("2026-05-01T08:00:00+00:00", camera="door"),
        _record("2026-05-01T11:01:00+02:00"),
        _record("2026-05-01T09:02:30"),  # without a zone it is taken for UTC
    ]
    assert _clocks(*records) == ([0, 1, 0, 0], [0.0, 0.0, 3660.0, 3750.0])


@pytest.mark.parametrize("second", [None, "2026-05-01T08:00:00+00:00", "2026-05-01T08:00:50+00:00"])
def test_files_that_overlap_or_do_not_say_have_clocks_of_their_own(second):
    assert _clocks(_record("2026-05-01T08:00:00+00:00"), _record(second)) == ([0, 1], [0.0, 0.0])


def test_a_second_of_overlap_is_rounding():
    records = [_record("2026-05-01T08:00:00+00:00"), _record("2026-05-01T08:00:59+00:00")]
    assert _clocks(*records) == ([0, 0], [0.0, 59.0])


def test_sources_that_gave_nothing_and_folders_of_crops_do_not_matter():
    folder = {"camera": "hall", "status": "ok"}
    records = [_record("2026-05-01T08:00:00"), _record(None, status="skipped"), folder]
    assert _clocks(*records) == ([0, 1, 2], [0.0, 0.0, 0.0])


def test_sets_that_say_nothing_of_clocks_have_one_a_file():
    clock, offset = clock_columns({}, np.array([0, 0, 1], np.int32))
    assert clock.tolist() == [0, 0, 1]
    assert offset.tolist() == [0, 0, 0]


def test_clocks_go_with_their_tracklets():
    n = np.arange(4)
    made = Tracklets(
        [0, 0, 1, 1], n, n, np.zeros((4, 4)), n, n, [0, 0], [0, 1], clock=[3, 5], offset=[0, 7.0]
    )
    assert made.clock_time.tolist() == [0, 1, 9, 10]
    cut = made.split(np.array([0, 1, -1, 0]))
    assert cut.clock.tolist() == [3, 3, 5]
    assert cut.offset.tolist() == [0, 0, 7]
    assert Tracklets(n, n, n, np.zeros((4, 4)), n, n, n, n).clock.tolist() == [0] * 4
    with pytest.raises(ValueError, match=r"clock has shape \(3,\), expected \(2\): one per tracklet"):
        Tracklets([0, 1], n[:2], n[:2], np.zeros((2, 4)), n[:2], n[:2], [0, 0], [0, 1], clock=[1, 2, 3])


def test_when_a_recording_began():
    apple = "com.apple.quicktime.creationdate"
    tags = {apple: "2026-05-01T10:00:00+0200", "creation_time": "2026-05-02T00:00:00.000000Z"}
    assert start_time(tags).isoformat() == "2026-05-01T10:00:00+02:00"
    for broken in ("", "yesterday", "1970-01-01T00:00:00Z", "1904-01-01T00:00:00Z", "2000-01-01T00:10:00Z"):
        assert start_time({"creation_time": broken}) is None
    assert start_time({}) is None


def test_what_was_given_comes_before_what_the_file_says():
    given, created = datetime(2026, 5, 1, 8), datetime(2026, 5, 1, 6)
    assert begin_record(given, None, created) == {"start": "2026-05-01T08:00:00", "start_from": "given"}
    assert begin_record(None, None, created)["start_from"] == "creation time"
    assert begin_record(None, None, None) == {"start": None, "start_from": None}
