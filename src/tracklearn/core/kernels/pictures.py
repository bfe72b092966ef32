"""Inner loops of the training augmentation, which touch every pixel once."""

from __future__ import annotations

import math

import numpy as np

from tracklearn.core.kernels.compiled import kernel

# As an index, an unsigned number is not asked whether it counts from the end: a fifth of `paint`'s time.
U = np.uintp


@kernel()
def count_levels(images, count, first, end):
    """Adds to `count` (b, 256, 3) how often each level of each channel stands in images first to end − 1.

    images (b, h, w, 3) uint8.
    """
    for i in range(first, end):
        own = count[i]
        for y in range(images.shape[1]):
            row = images[i, y]
            for x in range(images.shape[2]):
                for c in range(3):
                    own[row[x, c], c] += 1


@kernel()
def paint(images, table, blank, flip, offset, erase, erased, out, first, end):
    """Fills images first to end − 1 of `out` (b, h, w, 3) float32 from `images` (b, h, w, 3) uint8.

    What level v of channel c becomes is table[i, v, c]; table (b, 256, 3), or (1, 256, 3) for all images.
    flip (b,) bool comes first, then pixels move by offset (b, 2): out[y, x] is what lay at y + offset[0],
    x + offset[1], blank (3,) where that is outside. The rectangle erase (b, 4), top, left, height and width,
    becomes erased (3,) last.
    """
    h, w = images.shape[1:3]
    for i in range(first, end):
        levels = table[i % table.shape[0]]
        down, right = offset[i]
        inside, outside = min(w, max(0, -right)), max(0, min(w, w - right))
        step = -1 if flip[i] else 1
        begin = w - 1 - right if flip[i] else right
        for y in range(h):
            row = out[i, y]
            if not 0 <= y + down < h:
                row[:] = blank
                continue
            row[:inside] = blank
            row[outside:] = blank
            source = images[i, y + down]
            for x in range(inside, outside):
                to, pixel = row[U(x)], source[U(begin + step * x)]
                to[0] = levels[pixel[0], 0]
                to[1] = levels[pixel[1], 1]
                to[2] = levels[pixel[2], 2]
        top, left, high, wide = erase[i]
        out[i, top : top + high, left : left + wide] = erased


@kernel(fastmath={"contract"})
def to_planes(images, scale, shift, out):
    """Fills `out` (b, 3, h, w) float32 from images (b, h, w, 3) uint8.

    A level becomes level · scale + shift of its channel, (3,) float32 each.
    """
    for i in range(images.shape[0]):
        for y in range(images.shape[1]):
            row = images[i, y]
            for c in range(3):
                times, plus, plane = scale[c], shift[c], out[i, c, y]
                for x in range(row.shape[0]):
                    plane[x] = np.float32(row[x, c]) * times + plus


@kernel()
def fit_rectangles(drawn, h, w, erase, area, aspect, out):
    """Fills `out` (b, 4) int64, zeros, with top, left, height and width of the rectangle to erase.

    drawn (b, 3 + 2n) float32 in [0, 1): for each image whether (below `erase`), how far down and how far
    right, then n areas and n aspects. area and aspect (2,) float64, lowest and range: as shares of the
    image, and as height / width. The first shape smaller than the image (h, w) is taken.
    """
    n = (drawn.shape[1] - 3) // 2
    for i in range(len(drawn)):
        if not drawn[i, 0] < erase:
            continue
        for k in range(n):
            pixels = (drawn[i, 3 + k] * area[1] + area[0]) * (h * w)
            ratio = drawn[i, 3 + n + k] * aspect[1] + aspect[0]
            high, wide = np.rint(math.sqrt(pixels * ratio)), np.rint(math.sqrt(pixels / ratio))
            if high < h and wide < w:
                out[i, 0] = math.floor(drawn[i, 1] * (h - high + 1))
                out[i, 1] = math.floor(drawn[i, 2] * (w - wide + 1))
                out[i, 2] = high
                out[i, 3] = wide
                break
