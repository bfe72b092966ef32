"""From the samples of a picture file to what is seen: RGB of 8 bits, with nothing beneath what is clear."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tracklearn.store.picture.headers import Samples
from tracklearn.types import Array

GREY = 127  # what shows through a picture, and what one that cannot be decoded becomes
# Of sensors. A dark picture of a 12-bit camera does not become one of 11 bits, twice as bright.
DEPTHS = (8, 10, 12, 14, 16)


def needed_bits(colour: Array, samples: Samples) -> int:
    """How many bits the samples of a picture take: the least of `DEPTHS` that holds its brightest.

    Bits that the file names count as long as no sample contradicts them: some writers fill the upper ones.
    """
    most = int(colour.max())
    if samples.significant and most < 1 << samples.significant:
        return samples.significant
    return next(bits for bits in DEPTHS if most < 1 << bits) if most else DEPTHS[-1]


def seen(colour: Array, alpha: Array | None, samples: Samples, bits: int) -> NDArray[np.uint8]:
    """The picture as it is seen.

    Args:
        colour: (h, w, 3) uint8 or uint16 RGB as decoded.
        alpha: (h, w) of the same kind, 0 clear; None for none.
        samples: what they mean.
        bits: white of samples that do not say theirs is 2^bits − 1.

    Returns:
        (h, w, 3) uint8; what is clear shows `GREY`.
    """
    full = 255 if samples.depth == 8 else (1 << 16) - 1
    white = samples.white or (255 if samples.depth == 8 else (1 << bits) - 1)
    image = _scaled(colour, white, samples.inverted)
    if alpha is None:
        return image
    # Who fills 12 of 16 bits with colours may do so with the alpha, too.
    top = white if int(alpha.max()) <= white else full
    opaque = _scaled(alpha, top, False).astype(np.uint16)[..., None]
    ground = GREY * (255 - opaque)
    if samples.alpha == "multiplied":
        return np.minimum(image + (ground + 127) // 255, 255).astype(np.uint8)
    return ((image * opaque + ground + 127) // 255).astype(np.uint8)


def _scaled(values: Array, white: int, inverted: bool) -> NDArray[np.uint8]:
    if white == 255 and values.dtype == np.uint8:
        return values
    level = np.minimum(np.arange(np.iinfo(values.dtype).max + 1), white)
    table = ((level * 255 + white // 2) // white).astype(np.uint8)
    scaled: NDArray[np.uint8] = (255 - table if inverted else table)[values]
    return scaled


def upright(values: Array, turn: int) -> Array:
    """An array (h, w, …) turned as EXIF's orientation says."""
    if turn in (2, 3):
        values = values[:, ::-1]
    if turn in (3, 4):
        values = values[::-1]
    if turn in (5, 6, 7, 8):
        values = np.swapaxes(values, 0, 1)
        if turn in (6, 7):
            values = values[:, ::-1]
        if turn in (7, 8):
            values = values[::-1]
    return np.ascontiguousarray(values)


def clear_where(colour: Array, key: tuple[int, ...]) -> Array:
    """(h, w) alpha: 0 where the colour is `key`."""
    full = np.iinfo(colour.dtype).max
    return np.where((colour == np.array(key)).all(-1), 0, full).astype(colour.dtype)
