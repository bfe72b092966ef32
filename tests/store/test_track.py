"""The tracker adapter: ids, gaps, thresholds, determinism."""

import numpy as np
import pytest

from tracklearn.store.film.mot import read_detections
from tracklearn.store.film.track import NAMES, open_tracker


def _walk(tracker, frames, *, speed=3.0, score=0.9, people=2, fps=25):
    """Two people who walk to the right on lines of their own; all rows (frame, track, x1)."""
    rows = []
    for frame in frames:
        x = 10 + speed * frame + np.zeros(people)
        y = 100.0 * np.arange(people)
        box = np.stack([x, y, x + 30, y + 80], 1)
        track, box, _ = tracker.update(box, np.full(people, score), frame / fps)
        rows += [(frame, int(t), float(b[0])) for t, b in zip(track, box, strict=True)]
    return rows


@pytest.mark.parametrize("name", NAMES)
def test_two_people_are_two_tracks_numbered_from_0(name):
    rows = _walk(open_tracker(name, fps=25), range(20))
    assert {t for _, t, _ in rows} == {0, 1}
    assert sum(t == 0 for _, t, _ in rows) >= 17


@pytest.mark.parametrize("name", NAMES)
def test_ids_do_not_leak_between_trackers_and_runs_repeat(name):
    first = _walk(open_tracker(name, fps=25), range(12))
    assert _walk(open_tracker(name, fps=25), range(12)) == first


@pytest.mark.parametrize("name", NAMES)
def test_frames_without_people_and_dtypes(name):
    tracker = open_tracker(name, fps=25)
    track, box, score = tracker.update(np.zeros((0, 4)), np.zeros(0), 0)
    assert (track.dtype, box.dtype, score.dtype) == (np.int64, np.float32, np.float32)
    assert (track.shape, box.shape, score.shape) == ((0,), (0, 4), (0,))
    _walk(tracker, range(1, 8))
    assert len(tracker.update(np.zeros((0, 4)), np.zeros(0), 8 / 25)[0]) == 0


def test_boxes_come_back_as_detected_sorted_by_track():
    tracker = open_tracker("bytetrack", fps=25)
    box = np.array([[200, 0, 230, 80], [10, 0, 40, 80]], np.float32)
    for frame in range(3):
        track, found, score = tracker.update(box[:: 1 if frame < 2 else -1], [0.9, 0.8], frame / 25)
    assert track.tolist() == [0, 1]
    np.testing.assert_array_equal(found, box)
    np.testing.assert_array_equal(score, np.float32([0.8, 0.9]))


def test_a_stride_is_time_that_passes():
    rows = _walk(open_tracker("bytetrack", fps=25), range(0, 60, 3))
    assert {t for _, t, _ in rows} == {0, 1}


def test_a_track_ends_after_the_lost_seconds():
    for gap, n_tracks in ((20, 1), (60, 2)):
        tracker = open_tracker("bytetrack", fps=25)
        frames = [*range(10), *range(10 + gap, 20 + gap)]
        rows = _walk(tracker, frames, speed=0, people=1)
        assert len({t for _, t, _ in rows}) == n_tracks


@pytest.mark.parametrize("name", NAMES)
def test_a_pause_without_frames_ends_a_track_as_empty_frames_do(name):
    """Two people, one after the other, at one spot; a camera that records on motion leaves out the rest."""
    for empty in (range(20, 50), ()):
        tracker = open_tracker(name, fps=10)
        box = np.array([[10, 10, 40, 90]], np.float32)
        rows = []
        for frame in (*range(20), *empty, *range(50, 70)):
            n = int(not 20 <= frame < 50)
            track, _, _ = tracker.update(np.repeat(box, n, 0), np.full(n, 0.9), frame / 10)
            rows += [(frame, int(t)) for t in track]
        first, second = ({t for f, t in rows if (f < 30) == early} for early in (True, False))
        assert len(first) == len(second) == 1
        assert not first & second


@pytest.mark.parametrize("name", NAMES)
def test_a_short_pause_moves_a_track_as_far_as_empty_frames_do(name):
    found = []
    for empty in (True, False):
        tracker = open_tracker(name, fps=10)
        seen = []
        for frame in range(40):
            x = 10 + 3.0 * frame
            hidden = int(20 <= frame < 25)
            if hidden and not empty:
                continue
            box = np.array([[x, 10, x + 40, 90]], np.float32)[hidden:]
            track, _, _ = tracker.update(box, np.full(len(box), 0.9), frame / 10)
            seen += [(frame, int(t)) for t in track]
        assert {t for _, t in seen} == {0}
        assert {f for f, _ in seen} >= set(range(30, 40))
        found.append(seen)
    assert {f for f, _ in found[0]} <= {f for f, _ in found[1]}


def test_weak_detections_continue_a_track_but_start_none():
    tracker = open_tracker("bytetrack", fps=25, detector_threshold=0.5)
    assert _walk(tracker, range(5), score=0.4) == []
    assert {t for _, t, _ in _walk(tracker, range(5, 10), score=0.6)} == {0, 1}
    assert {t for _, t, _ in _walk(tracker, range(10, 15), score=0.3)} == {0, 1}


def test_any_range_of_scores_can_be_tracked():
    tracker = open_tracker("bytetrack", fps=25, detector_threshold=-2.0)
    assert {t for _, t, _ in _walk(tracker, range(6), score=-1.0)} == {0, 1}


def test_refusals():
    with pytest.raises(ValueError, match=r"'deepsort' is not known, expected one of bytetrack, sort, ocsort"):
        open_tracker("deepsort", fps=25)
    with pytest.raises(ValueError, match="fps is 0"):
        open_tracker(fps=0)
    tracker = open_tracker(fps=25)
    with pytest.raises(ValueError, match=r"score has shape \(2,\), expected \(1,\)"):
        tracker.update(np.zeros((1, 4)), np.zeros(2), 3)
    tracker.update(np.zeros((0, 4)), np.zeros(0), 4)
    with pytest.raises(ValueError, match="time is 4, expected seconds after 4"):
        tracker.update(np.zeros((0, 4)), np.zeros(0), 4)


def test_real_detections_give_a_few_tracks_a_visit(data):
    detections = read_detections(data / "video" / "pets09-s2l1.det.txt")
    tracker = open_tracker("bytetrack", fps=7)
    tracks = set()
    for frame in range(200):
        here = detections.frame == frame
        track, _, _ = tracker.update(detections.box[here], detections.score[here], frame / 7)
        assert len(set(track.tolist())) == len(track)
        tracks |= set(track.tolist())
    assert tracks == set(range(len(tracks)))
    assert 10 <= len(tracks) <= 40
