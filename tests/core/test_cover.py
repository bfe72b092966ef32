"""Covered boxes: toys by hand, and a slow reference over all pairs."""

import numpy as np
import pytest

from tracklearn.core.cover import covered


def reference(camera, frame, box):
    out = np.zeros(len(box))
    for i, (x1, y1, x2, y2) in enumerate(box):
        area = (x2 - x1) * (y2 - y1)
        for j, (u1, v1, u2, v2) in enumerate(box):
            if area > 0 and camera[i] == camera[j] and frame[i] == frame[j] and v2 > y2:
                wide, high = min(x2, u2) - max(x1, u1), min(y2, v2) - max(y1, v1)
                out[i] = max(out[i], max(wide, 0) * max(high, 0) / area)
    return out


def test_the_nearer_box_covers_and_is_not_covered():
    box = [[0, 0, 10, 20], [5, 10, 15, 30], [0, 0, 10, 10]]
    assert covered(np.zeros(3, int), np.zeros(3, int), np.array(box)).tolist() == [0.25, 0, 1]


def test_other_pictures_and_equal_boxes_cover_nothing():
    box = np.array([[0, 0, 10, 20], [0, 0, 10, 30], [0, 0, 10, 40], [0, 0, 10, 20]])
    assert covered(np.array([0, 0, 1, 0]), np.array([0, 1, 0, 0]), box).tolist() == [0, 0, 0, 0]


def test_as_a_slow_reference_in_any_order():
    rng = np.random.default_rng(0)
    n = 300
    camera, frame = rng.integers(0, 3, n), rng.integers(0, 12, n)
    corner = rng.uniform(0, 40, (n, 2))
    box = np.hstack([corner, corner + rng.uniform(-2, 30, (n, 2))])
    kept = box.copy()
    found = covered(camera, frame, box)
    assert np.allclose(found, reference(camera, frame, box), atol=1e-12)
    assert (found > 0.2).sum() > 50
    order = rng.permutation(n)
    assert np.array_equal(covered(camera[order], frame[order], box[order]), found[order])
    assert np.array_equal(box, kept)


def test_nothing_and_boxes_without_an_area():
    none = np.zeros(0, int)
    assert covered(none, none, np.zeros((0, 4))).shape == (0,)
    box = np.array([[5, 5, 5, 9], [0, 0, 10, 10], [8, 8, 2, 2]])
    assert covered(np.zeros(3, int), np.zeros(3, int), box).tolist() == [0, 0, 0]


def test_shapes_that_disagree_are_refused():
    with pytest.raises(ValueError, match=r"shapes \(2,\), \(3,\) and \(3, 4\), expected"):
        covered(np.zeros(2, int), np.zeros(3, int), np.zeros((3, 4)))
