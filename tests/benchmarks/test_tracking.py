"""The baseline by hand, and tracking again over a set's tracks."""

import dataclasses

import numpy as np
from tests.core.films import film, looks, walk

from benchmarks import split_connect, tracking
from tracklearn.core.appearance import Bounds


def test_a_mixed_tracklet_is_split_and_the_noise_goes_with_the_nearest():
    tracks = film([walk(0, n=60), walk(300, n=30)])
    persons = np.r_[np.zeros(30), np.ones(30), np.zeros(30)].astype(int)
    features = looks(persons)
    features[5] = (features[5] + 3 * np.eye(32)[0]) / np.linalg.norm(features[5] + 3 * np.eye(32)[0])
    part = split_connect.split(features, tracks)
    assert part[:30].tolist() == [0] * 30
    assert part[30:60].tolist() == [1] * 30
    assert part[60:].tolist() == [0] * 30


def test_no_more_than_three_parts():
    persons = np.repeat(np.arange(5), [30, 12, 25, 20, 11])
    tracks = film([walk(0, n=len(persons))])
    part = split_connect.split(looks(persons, spread=0.05), tracks)
    assert sorted(set(part.tolist())) == [0, 1, 2]
    assert [len(set(part[persons == p].tolist())) for p in (0, 2, 3)] == [1, 1, 1]


def test_alike_parts_are_connected_unless_they_overlap():
    tracks = film([walk(0, n=20), walk(300, n=20), walk(0, first=30, n=20)])
    features = looks(np.zeros(60, int))
    label = split_connect.connect(features, tracks)
    assert label[0] != label[1]
    assert label[2] in (label[0], label[1])
    assert split_connect.connect(looks(np.repeat([0, 1, 2], 20)), tracks).tolist() == [0, 1, 2]


def test_parts_of_two_cameras_may_be_in_view_at_once():
    tracks = film([walk(0, n=20), walk(300, n=20)])
    assert len(set(split_connect.connect(looks(np.zeros(40, int)), tracks).tolist())) == 2
    apart = dataclasses.replace(tracks, camid=np.array([0, 1]))
    assert len(set(split_connect.connect(looks(np.zeros(40, int)), apart).tolist())) == 1


def test_tracking_again_keeps_every_box():
    tracks = film([walk(0, n=40), walk(300, n=40), walk(600, first=60, n=30)])
    features = looks(np.repeat([0, 1, 0], [40, 40, 30]))
    for delay in (0.0, 2.0):
        boxes = tracking.again(tracks, features, Bounds.at(1.0), delay)
        assert len(boxes) == 110
        of = {(f, x): n for f, n, x in zip(boxes.frame, boxes.track, boxes.box[:, 0], strict=True)}
        number = [{of[f, x] for f, x in zip(*part, strict=True)} for part in _places(tracks)]
        assert number == [{1}, {2}, {1}]


def _places(tracks):
    for lo, hi in zip(tracks.start[:-1], tracks.start[1:], strict=True):
        yield tracks.frame[lo:hi].tolist(), tracks.box[lo:hi, 0].tolist()


def test_numbers_of_parts():
    tracks = film([walk(0, n=3), walk(300, n=2)])
    assert tracking.numbered(tracks, np.array([7, 4])).track.tolist() == [4, 7, 4, 7, 7]
