"""JPEG crops as arrays of one size: decoding, antialiased resizing, and a cache of the results."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from tracklearn.store import memory
from tracklearn.store.picture.pictures import BrokenPicture
from tracklearn.store.picture.samples import GREY
from tracklearn.types import Array, Refusal

MAX_SIDE = 65_500  # pixels; libjpeg takes no more
KEPT = 1 << 30  # bytes of decoded crops that are kept however full the memory is
SHARE, FREE = 0.25, 0.5  # more is kept up to this share of the memory, while that one stays available


def encode_jpeg(image: Array, *, quality: int = 90) -> bytes:
    """JPEG bytes of an RGB image, uint8 (h, w, 3); `quality` 1-100.

    A side of more than `MAX_SIDE` pixels, which JPEG cannot hold, is shrunk to that.

    Raises:
        ValueError: the image has no area.
    """
    if image.size == 0:
        raise Refusal(f"image has shape {image.shape}: an empty picture has no JPEG form")
    if max(image.shape[:2]) > MAX_SIDE:
        image = resize(image, min(image.shape[0], MAX_SIDE), min(image.shape[1], MAX_SIDE))
    _, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    return data.tobytes()


def resize(image: Array, height: int, width: int) -> Array:
    """`image` (h, w, 3) at (height, width, 3): area average where an axis shrinks, cubic where it grows.

    The axes are treated apart, because OpenCV's area mode falls back to bilinear as soon as one axis grows.
    """
    h, w = image.shape[:2]
    small = (min(h, height), min(w, width))
    if small != (h, w):
        image = cv2.resize(image, (small[1], small[0]), interpolation=cv2.INTER_AREA)
    if small != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    return image


def bilinear(image: Array, height: int, width: int) -> Array:
    """`resize`, but linear where an axis grows: what networks trained elsewhere mostly have seen."""
    h, w = image.shape[:2]
    image = resize(image, min(h, height), min(w, width))
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return image


ENLARGE = {"bicubic": resize, "bilinear": bilinear}  # by the name of how small pictures grow


class StoredCrops:
    """The crops of a set at one size, decoded on demand: a `types.Crops`.

    Decoded crops are kept until the cache is full and never thrown out: over uniformly random reads that
    hits as often as any replacement policy, and a set that fits is decoded once. `KEPT` bytes may be kept in
    any case, more up to `SHARE` of the memory of the machine (or of the container) while `FREE` of it is
    available. Memory is taken as crops come, and not given back before the object goes.

    Args:
        n: number of crops.
        picture: row -> its picture, RGB uint8 (h, w, 3), or `BrokenPicture`; called from several threads.
        height, width: size of what `read` returns, pixels.
        cache_bytes: most that is kept, whatever the memory; 0 switches it off, None lets the memory decide.
        workers: decoding threads, default one per core and at most 4.

    A picture that cannot be decoded comes back grey.

    Attributes:
        unreadable: row -> why it could not be decoded, of the crops met so far.
    """

    def __init__(
        self,
        n: int,
        picture: Callable[[int], Array],
        *,
        height: int,
        width: int,
        cache_bytes: int | None = None,
        workers: int | None = None,
    ) -> None:
        if height < 1 or width < 1:
            raise Refusal(f"crops of {height}x{width} pixels asked for: both must be at least 1")
        self._n, self._picture = n, picture
        self.height, self.width = height, width
        self._workers = workers or min(4, os.cpu_count() or 1)
        self._size = height * width * 3
        self._watched = cache_bytes is None
        self._capacity = min(n, (_allowed() if cache_bytes is None else cache_bytes) // self._size)
        self._per_block = max(1, KEPT // self._size)
        self._blocks: list[Array] = []
        self._slot = np.full(n if self._capacity else 0, -1, np.int32)
        self._used = 0
        self.unreadable: dict[int, str] = {}
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return self._n

    @property
    def capacity(self) -> int:
        """Number of decoded crops that are kept at most."""
        return self._capacity

    @property
    def broken(self) -> int:
        """Number of crops met so far that could not be decoded."""
        return len(self.unreadable)

    def read(self, indices: Sequence[int] | Array) -> Array:
        """The crops of these rows as uint8 RGB (b, height, width, 3), in the order asked for.

        Raises:
            IndexError: a row outside 0..n−1.
        """
        index = np.asarray(indices, dtype=np.int64)
        if index.size and (index.min() < 0 or index.max() >= self._n):
            raise IndexError(
                f"crop rows {int(index.min())}..{int(index.max())} asked for, the set has 0..{self._n - 1}"
            )
        out = np.empty((len(index), self.height, self.width, 3), np.uint8)
        slot = self._slot[index] if self._capacity else np.full(len(index), -1, np.int32)
        hit = slot >= 0
        if len(self._blocks) == 1 and hit.all():
            return np.take(self._blocks[0], slot, axis=0, out=out, mode="clip") if len(out) else out
        for i in np.flatnonzero(hit):
            block, place = divmod(int(slot[i]), self._per_block)
            out[i] = self._blocks[block][place]
        missing = np.flatnonzero(~hit)
        if len(missing):
            self._decode_all(index, missing, out)
            self._keep(index[missing], out, missing)
        return out

    def _decode_all(self, index: Array, at: Array, out: Array) -> None:
        if self._workers == 1 or len(at) < 16:
            self._decode(index, at, out)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="crops")
        parts = np.array_split(at, self._workers)
        # OpenCV lets go of the interpreter lock while it decodes and resizes.
        for done in [self._pool.submit(self._decode, index, part, out) for part in parts]:
            done.result()

    def _decode(self, index: Array, at: Array, out: Array) -> None:
        for i in at:
            row = int(index[i])
            try:
                image = self._picture(row)
            except BrokenPicture as error:
                self.unreadable[row] = str(error)
                out[i] = GREY
            else:
                out[i] = resize(image, self.height, self.width)

    def _keep(self, rows: Array, out: Array, at: Array) -> None:
        if self._used >= self._capacity:
            return
        with self._lock:
            for row, i in zip(rows.tolist(), at.tolist(), strict=True):
                if self._slot[row] >= 0:  # asked for twice, or another thread was faster
                    continue
                block, place = divmod(self._used, self._per_block)
                if self._used >= self._capacity or (block == len(self._blocks) and not self._grow()):
                    return
                self._blocks[block][place] = out[i]
                self._slot[row] = self._used  # after the pixels: a reader never sees an unfilled slot
                self._used += 1

    def _grow(self) -> bool:
        """Reserve another block; False, and no more is kept from then on, where that cannot be."""
        n = min(self._per_block, self._capacity - self._used)
        first = not self._blocks
        if first or not self._watched or _spare() >= n * self._size:
            try:
                # of which only what is touched is taken
                self._blocks.append(np.empty((n, self.height, self.width, 3), np.uint8))
            except MemoryError:
                pass  # a limit that `memory` does not know: what is kept has to do
            else:
                return True
        self._capacity = self._used
        return False


def _allowed() -> int:
    """Bytes that decoded crops may come to where nobody set a bound."""
    return max(KEPT, min(int(SHARE * (memory.total() or 0)), _spare()))


def _spare() -> int:
    """Bytes beyond the share of the memory that is to stay available; 0 where nobody says."""
    whole, left = memory.total(), memory.available()
    return 0 if whole is None or left is None else left - int(FREE * whole)
