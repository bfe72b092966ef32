"""Camera-guided normalisation, by hand and by its invariants."""

import numpy as np
import pytest
import torch

from tracklearn.core.normalise import per_camera


def drawn(n=60, d=5, n_cameras=3, seed=0):
    rng = np.random.default_rng(seed)
    camid = rng.integers(0, n_cameras, n)
    shift, scale = rng.normal(size=(n_cameras, d)) * 5, rng.uniform(0.1, 4, (n_cameras, d))
    return (rng.normal(size=(n, d)) * scale[camid] + shift[camid]).astype(np.float32), camid


def test_by_hand():
    x = np.array([[1.0, 5, 0], [3, 5, 3], [10, 1, 1], [30, 2, 2], [20, 3, 3]])
    out = per_camera(x, np.array([4, 4, 0, 0, 0]))
    a = 1.5**0.5
    want = [[-1, 0, -1], [1, 0, 1], [-a, -a, -a], [a, 0, 0], [0, a, a]]
    np.testing.assert_allclose(out, want, atol=1e-6)
    assert out.dtype == np.float32


def test_every_camera_has_mean_0_and_deviation_1():
    x, camid = drawn()
    out = per_camera(x, camid).astype(np.float64)
    for camera in range(3):
        np.testing.assert_allclose(out[camid == camera].mean(0), 0, atol=1e-6)
        np.testing.assert_allclose(out[camid == camera].std(0), 1, atol=1e-6)


def test_a_cameras_shift_and_scale_are_gone_and_order_does_not_matter():
    x, camid = drawn()
    other = np.where(camid[:, None] == 1, 3 * x + 7, x)
    np.testing.assert_allclose(per_camera(other, camid), per_camera(x, camid), atol=1e-5)
    order = np.random.default_rng(1).permutation(len(x))
    np.testing.assert_allclose(per_camera(x[order], camid[order]), per_camera(x, camid)[order], atol=1e-6)
    np.testing.assert_array_equal(per_camera(x, 9 - camid), per_camera(x, camid))


def test_a_constant_dimension_is_0_whatever_rounding_does():
    x, camid = drawn(n=3000)
    x[:, 2] = np.float32(0.1)
    x[camid == 1, 3] = np.float32(1 / 3)
    out = per_camera(x, camid)
    assert (out[:, 2] == 0).all()
    assert (out[camid == 1, 3] == 0).all()
    assert (out[camid == 0, 3] != 0).any()


def test_a_cameras_only_row_is_set_against_all():
    x, camid = drawn()
    camid[7], camid[30] = 8, 9
    x[:, 4] = 2
    out = per_camera(x, camid)
    wide = x.astype(np.float64)
    deviation = np.maximum(wide.std(0), 1e-12)
    for row in (7, 30):
        np.testing.assert_allclose(out[row], (wide[row] - wide.mean(0)) / deviation, rtol=1e-6)
        assert out[row, 4] == 0
    # the others do not see them
    rest = np.delete(np.arange(60), [7, 30])
    np.testing.assert_array_equal(out[rest], per_camera(x[rest], camid[rest]))


def test_small_deviations_count_and_those_below_the_floor_do_not():
    x = np.array([[1.0, 1 + 1e-9], [1.0, 1.0]])
    np.testing.assert_allclose(per_camera(x, np.zeros(2))[:, 1], [1, -1], rtol=1e-5)
    x = np.array([[0.0, 1.0, 1e-14], [1.0, 1.0, 0.0]])
    np.testing.assert_allclose(per_camera(x, np.zeros(2))[:, 2], [0.005, -0.005], rtol=1e-5)


def test_input_stays_and_tensors_do():
    x, camid = drawn()
    before = x.copy()
    out = per_camera(x, camid)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(per_camera(torch.from_numpy(x), camid), out)
    assert per_camera(np.zeros((0, 3)), np.zeros(0)).shape == (0, 3)


def test_refusals():
    x, camid = drawn()
    with pytest.raises(ValueError, match=r"camid has shape \(59,\), expected \(60,\): one per feature"):
        per_camera(x, camid[1:])
    with pytest.raises(ValueError, match=r"expected \(n, d\)"):
        per_camera(x[0], camid)
    bad = x.copy()
    bad[3, 1] = np.nan
    with pytest.raises(ValueError, match="1 row is not: 3"):
        per_camera(bad, camid)
    bad[3] = 0
    with pytest.raises(ValueError, match="all zeros"):
        per_camera(bad, camid)
