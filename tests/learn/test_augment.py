"""Augmentation: what comes out can always be explained by one flip, one shift and one rectangle."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tracklearn.core import threads
from tracklearn.learn import augment
from tracklearn.learn.augment import Augment

OFF = {"flip": 0.0, "pad": 0, "erase": 0.0}


def pictures(b=16, h=24, w=12, low=1):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(low, 256, (b, h, w, 3), dtype=np.uint8))


def plain(images):
    return images.permute(0, 3, 1, 2).float()


def run(images, seed=0, **settings):
    generator = torch.Generator().manual_seed(seed)
    return whole(images, Augment(**{**OFF, **settings}), generator)


def whole(images, config, generator):
    b, h, w, _ = images.shape
    return augment.apply(images, augment.draw(b, h, w, config, generator), normalise=plain)


def test_off_is_only_normalisation():
    images = pictures()
    assert torch.equal(run(images), plain(images))


def test_flip_all_and_half():
    images = pictures(400)
    assert torch.equal(run(images, flip=1.0), plain(images).flip(3))
    out = run(images, flip=0.5)
    flipped = (out == plain(images).flip(3)).flatten(1).all(1)
    kept = (out == plain(images)).flatten(1).all(1)
    assert (flipped ^ kept).all()
    assert 150 < flipped.sum() < 250


def test_every_shift_is_a_crop_of_the_padded_picture():
    images = pictures(300)
    pad = 3
    out = run(images, pad=pad)
    padded = torch.nn.functional.pad(plain(images), (pad,) * 4)
    h, w = images.shape[1:3]
    seen = set()
    for i in range(len(images)):
        found = [
            (y, x)
            for y in range(2 * pad + 1)
            for x in range(2 * pad + 1)
            if torch.equal(padded[i, :, y : y + h, x : x + w], out[i])
        ]
        assert len(found) == 1
        seen |= set(found)
    assert len(seen) > 45  # of 49 places, each with probability 1/49


def test_flip_and_shift_together():
    images = pictures(60)
    out = run(images, flip=1.0, pad=2)
    padded = torch.nn.functional.pad(plain(images).flip(3), (2,) * 4)
    for i in range(len(images)):
        assert any(
            torch.equal(padded[i, :, y : y + 24, x : x + 12], out[i]) for y in range(5) for x in range(5)
        )


def test_erasing_is_one_rectangle_of_the_asked_size():
    h, w = 64, 32
    images = pictures(500, h, w)
    out = run(images, erase=0.5)
    changed = (out != plain(images)).any(1)
    n = 0
    for mask, picture in zip(changed, out, strict=True):
        if not mask.any():
            continue
        n += 1
        rows, columns = mask.any(1).nonzero().ravel(), mask.any(0).nonzero().ravel()
        high, wide = int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)
        assert mask.sum() == high * wide
        # the numbers of MMT's code, whatever the normalisation
        assert (picture[:, mask] == torch.tensor([[0.485], [0.456], [0.406]])).all()
        assert high < h
        assert wide < w
        # sides are rounded to pixels
        assert 0.02 * h * w <= (high + 0.5) * (wide + 0.5)
        assert (high - 0.5) * (wide - 0.5) <= 0.4 * h * w
        assert (high + 0.5) / (wide - 0.5) >= 0.3
        assert (high - 0.5) / (wide + 0.5) <= 3.33
    assert 200 < n < 300
    # every row and column is reached
    assert changed.any((0, 1)).all()
    assert changed.any((0, 2)).all()


def test_a_rectangle_that_cannot_fit_leaves_the_picture_whole():
    images = pictures(8, 32, 4)
    out = run(images, erase=1.0, erase_area=(0.9, 0.9), erase_aspect=(1.0, 1.0))
    assert torch.equal(out, plain(images))


def test_colour_changes_casts_and_stays_in_range():
    images = pictures(50, 16, 8, low=0)
    out = run(images, colour=0.3)
    assert out.min() >= 0
    assert out.max() <= 255
    ratio = out.mean((2, 3)) / plain(images).mean((2, 3))
    assert ratio.std(0).min() > 0.05  # images differ
    assert (ratio.max(1).values - ratio.min(1).values).median() > 0.05  # channels of one image differ
    assert torch.allclose(run(images, colour=1e-6), plain(images), atol=1)


def test_same_generator_same_bytes_and_input_unchanged():
    images = pictures()
    kept = images.clone()
    settings = {"flip": 0.5, "pad": 3, "erase": 0.5, "colour": 0.2}
    first = run(images, seed=5, **settings)
    assert torch.equal(run(images, seed=5, **settings), first)
    assert not torch.equal(run(images, seed=6, **settings), first)
    assert torch.equal(images, kept)


def test_generator_goes_on_where_it_was():
    images = pictures()
    config = Augment()
    generator = torch.Generator().manual_seed(1)
    whole(images, config, generator)
    saved = generator.get_state()
    second = whole(images, config, generator)
    restored = torch.Generator()
    restored.set_state(saved)
    assert torch.equal(whole(images, config, restored), second)


def test_global_random_state_is_left_alone():
    before = torch.random.get_rng_state()
    run(pictures(), flip=0.5, pad=2, erase=0.5, colour=0.1)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    "settings",
    [
        {"flip": 1.5},
        {"pad": -1},
        {"erase_area": (0.5, 0.1)},
        {"erase_aspect": (0, 1)},
        {"hue": 0.1},
        {"colour": 1},
    ],
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        Augment(**settings)


def test_defaults_are_those_of_the_specification():
    assert Augment().model_dump() == {
        "flip": 0.5,
        "pad": 10,
        "erase": 0.5,
        "erase_area": (0.02, 0.4),
        "erase_aspect": (0.3, 3.33),
        "colour": 0.0,
    }


def test_a_part_of_a_batch_gets_the_same_as_in_the_whole():
    images = pictures()
    drawn = augment.draw(16, 24, 12, Augment(pad=3, colour=0.2), torch.Generator().manual_seed(3))
    rows = slice(5, 11)
    part = augment.apply(images[rows], drawn.part(rows), normalise=plain)
    assert torch.equal(part, augment.apply(images, drawn, normalise=plain)[rows])
    nothing = augment.draw(16, 24, 12, Augment(**OFF), torch.Generator())
    assert nothing.part(rows) == (None,) * 4


@pytest.mark.parametrize("pad", [0, 5, 40])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_in_one_pass_is_the_same_as_step_by_step(pad, n_threads):
    """What a CPU does and what other devices do; 40 pixels shift pictures of 24 × 12 out of sight."""
    images, config = pictures(40), Augment(pad=pad)
    before = images.clone()
    drawn = augment.draw(40, 24, 12, config, torch.Generator().manual_seed(3))
    shifted = augment._shift(images, drawn.flip, drawn.offset)
    assert not torch.equal(shifted, images)
    steps = augment._erase(plain(shifted), drawn.erase)
    with threads.limit(n_threads):
        out = augment.apply(images, drawn, normalise=plain)
    assert torch.equal(out, steps)
    assert not torch.equal(plain(shifted), out)
    assert torch.equal(images, before)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_jitter_by_levels_is_jitter_of_pixels_to_rounding():
    images = pictures(200, low=0)
    drawn = augment.draw(200, 24, 12, Augment(**OFF | {"colour": 0.5}), torch.Generator().manual_seed(4))
    out = augment.apply(images, drawn, normalise=plain)
    pixels = plain(augment._jitter(images, drawn.jitter))
    # The mean that contrast turns about is summed in another order: a rare half rounds the other way.
    assert (out - pixels).abs().max() <= 1
    assert (out != pixels).float().mean() < 1e-4
    assert (out - plain(images)).abs().mean() > 10


def test_the_black_around_a_picture_is_not_jittered():
    images = pictures(20, low=200)
    out = run(images, colour=0.5, pad=40)
    assert (out == 0).all(1).any()
    assert (((out == 0).all(1)) | (out > 0).all(1)).all()


def test_pictures_that_are_not_contiguous_and_none_at_all():
    images = pictures(20)
    drawn = augment.draw(20, 12, 6, Augment(pad=3), torch.Generator().manual_seed(1))
    part = images[:, ::2, ::2]
    assert torch.equal(
        augment.apply(part, drawn, normalise=plain),
        augment.apply(part.contiguous(), drawn, normalise=plain),
    )
    assert augment.apply(images[:0], drawn.part(slice(0, 0)), normalise=plain).shape == (0, 3, 24, 12)
