"""Inner loops of the training augmentation, which touch every pixel once."""

from __future__ import annotations

from numba import njit


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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
                pixel = source[begin + step * x]
                for c in range(3):
                    row[x, c] = levels[pixel[c], c]
        top, left, high, wide = erase[i]
        out[i, top : top + high, left : left + wide] = erased
