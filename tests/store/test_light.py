"""One light for all pictures: tables from what most of the picture agrees with, and when there are none."""

import numpy as np
import pytest

from tracklearn.store.detect.light import Light


def scene(seed=0, height=180, width=240):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(10, 240, (height // 12, width // 12, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((12, 12, 1), np.uint8))


def filmed(picture, gain, tone=1.0, seed=1):
    """The scene as a camera shows it: a gain for each channel, a tone curve, noise."""
    values = 255 * (np.clip(picture / 255 * np.asarray(gain), 0, 1) ** tone)
    return (values + np.random.default_rng(seed).normal(0, 1.5, picture.shape)).clip(0, 255).astype(np.uint8)


def apart(a, b):
    return np.abs(a.astype(int) - b.astype(int))


def test_before_there_is_a_background_pictures_stay_as_they_are():
    picture = scene()
    assert Light()(picture) is picture


def test_noise_is_no_change_of_light():
    light, picture = Light(), scene()
    light.look_back(picture)
    noisy = filmed(picture, 1.0)
    assert light(noisy) is noisy


@pytest.mark.parametrize(("gain", "tone"), [([1.04, 1.07, 1.15], 1.0), ([0.85] * 3, 1.0), ([1.1] * 3, 0.8)])
def test_gain_white_balance_and_tone_are_undone(gain, tone):
    light, picture = Light(), scene()
    light.look_back(picture)
    changed = filmed(picture, gain, tone)
    before = changed.copy()
    undone = light(changed)
    kept = picture.max(2) < 200  # what shone brighter is overexposed now
    assert np.quantile(apart(undone, picture)[kept], 0.95) <= 8
    assert apart(undone, picture)[kept].mean() < 0.4 * apart(changed, picture)[kept].mean()
    np.testing.assert_array_equal(changed, before)
    np.testing.assert_array_equal(light(changed), undone)


def test_a_person_who_fills_half_of_the_picture_is_no_change_of_light():
    light, picture = Light(), scene()
    light.look_back(picture)
    close = filmed(picture, 1.0)
    close[:, :130] = (35, 30, 60)
    assert light(close) is close
    darker = filmed(picture, 0.9)
    darker[:, :110] = (35, 30, 60)
    undone = light(darker)
    assert apart(undone, picture)[:, 110:].mean() < 3
    assert apart(undone, picture)[:, :110].mean() > 40


def test_the_light_comes_back():
    light, picture = Light(), scene()
    light.look_back(picture)
    for gain in (1.0, 1.1, 1.2, 1.1, 1.0):
        kept = picture.max(2) < 190
        assert apart(light(filmed(picture, gain)), picture)[kept].mean() < 3


def test_a_change_after_a_crowd_has_passed_is_seen():
    light, picture = Light(), scene()
    light.look_back(picture)
    crowd = filmed(picture, 1.0)
    crowd[:, :110] = np.random.default_rng(2).integers(0, 255, (180, 110, 3), dtype=np.uint8)
    for shown in (picture, crowd, picture):
        light(shown)
    changed = filmed(picture, [1.03, 1.05, 1.08])
    assert apart(light(changed), picture)[picture.max(2) < 200].mean() < 3


def test_tiny_pictures():
    light = Light()
    light.look_back(np.full((3, 5, 3), 90, np.uint8))
    assert light(np.full((3, 5, 3), 100, np.uint8)).shape == (3, 5, 3)
