"""JPEG crops as arrays of one size: decoding, antialiased resizing, and a cache of the results."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from tracklearn.store import memory
from tracklearn.types import Array

GREY = 127  # what a picture that cannot be decoded becomes
KEPT = 1 << 30  # bytes of decoded crops that are kept however full the memory is
FREE = 0.25  # share of the memory that stays available when more is kept
_PACE = 64 << 20  # bytes kept between two looks at the memory


def encode_jpeg(image: Array, *, quality: int = 90) -> bytes:
    """JPEG bytes of an RGB image, uint8 (h, w, 3); `quality` 1-100.

    Raises:
        ValueError: the image has no area.
    """
    if image.size == 0:
        raise ValueError(f"image has shape {image.shape}: an empty picture has no JPEG form")
    _, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    return data.tobytes()


def decode_image(data: bytes | Array) -> Array | None:
    """RGB uint8 (h, w, 3) of an encoded picture (JPEG, PNG, …), or None where it cannot be decoded."""
    raw = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
    if raw.size == 0:
        return None
    return cv2.imdecode(raw, cv2.IMREAD_COLOR_RGB)


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


class StoredCrops:
    """The crops of a set at one size, decoded on demand: a `types.Crops`.

    Decoded crops are kept until the cache is full and never thrown out: over uniformly random reads that
    hits as often as any replacement policy, and a set that fits is decoded once. Up to `KEPT` bytes are kept
    in any case, more only while `FREE` of the machine's (or the container's) memory stays available; what is
    kept is not given back when other programs want memory later.

    Args:
        n: number of crops.
        jpeg: row -> its encoded bytes, uint8; must be callable from several threads.
        height, width: size of what `read` returns, pixels.
        cache_bytes: upper bound of the cache; 0 switches it off, None leaves it to the memory.
        workers: decoding threads, default one per core and at most 4.

    A picture that cannot be decoded comes back grey and is counted in `broken`.
    """

    def __init__(
        self,
        n: int,
        jpeg: Callable[[int], Array],
        *,
        height: int,
        width: int,
        cache_bytes: int | None = None,
        workers: int | None = None,
    ) -> None:
        if height < 1 or width < 1:
            raise ValueError(f"crops of {height}x{width} pixels asked for: both must be at least 1")
        self._n, self._jpeg = n, jpeg
        self.height, self.width = height, width
        self._workers = workers or min(4, os.cpu_count() or 1)
        self._size = height * width * 3
        self._cache = self._reserved(max(KEPT, _room()), cache_bytes)
        self._capacity = len(self._cache)
        self._slot = np.full(n if self._capacity else 0, -1, np.int32)
        self._used = 0
        self._broken: set[int] = set()
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return self._n

    def _reserved(self, room: int, bound: int | None) -> Array:
        """An array for the crops that are kept; of such memory only what is touched is taken."""
        shape = (self.height, self.width, 3)
        n = min(self._n, (room if bound is None else min(room, bound)) // self._size)
        try:
            return np.empty((n, *shape), np.uint8)
        except MemoryError:  # less address space than memory
            return np.empty((min(n, KEPT // self._size), *shape), np.uint8)

    @property
    def capacity(self) -> int:
        """Number of decoded crops that are kept at most."""
        return self._capacity

    @property
    def broken(self) -> int:
        """Number of crops met so far that could not be decoded."""
        return len(self._broken)

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
        if hit.all():  # one copy, where picking rows on both sides would make two
            return np.take(self._cache, slot, axis=0, out=out, mode="clip") if len(out) else out
        out[hit] = self._cache[slot[hit]]
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
            image = decode_image(self._jpeg(row))
            if image is None:
                self._broken.add(row)
                out[i] = GREY
            else:
                out[i] = resize(image, self.height, self.width)

    def _keep(self, rows: Array, out: Array, at: Array) -> None:
        if self._used >= self._capacity:
            return
        with self._lock:
            rows, first = np.unique(rows, return_index=True)
            new = self._slot[rows] < 0  # another thread may have been faster
            rows, first = rows[new], first[new]
            room = min(len(rows), self._capacity - self._used)
            slots = np.arange(self._used, self._used + room)
            self._cache[slots] = out[at[first[:room]]]
            self._slot[rows[:room]] = slots  # after the pixels: a reader never sees an unfilled slot
            pace = max(1, _PACE // self._size)
            looked = self._used // pace == (self._used + room) // pace
            self._used += room
            if not looked and self._used * self._size >= KEPT and _room() <= 0:
                self._capacity = self._used  # others need the memory


def _room() -> int:
    """Bytes that may be taken until no more than `FREE` of the memory is available; 0 where nobody says."""
    whole, left = memory.total(), memory.available()
    return 0 if whole is None or left is None else max(0, left - int(FREE * whole))
