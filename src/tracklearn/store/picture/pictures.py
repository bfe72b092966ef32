"""The one door by which encoded pictures come in: what is not fit to be decoded is refused before it is.

A picture is bounded by the size of its file and by the size that its header claims, since a kilobyte of JPEG
can ask for gigabytes. Whatever is wrong with one, `BrokenPicture` says so, and nothing else is raised: one
bad picture among a million costs one picture. Transparency and samples of 16 bits become RGB of 8 bits
here, by one rule for all pictures of a source (`Series`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from tracklearn.store.picture.headers import PLAIN, BrokenPicture, Header, read_header
from tracklearn.store.picture.samples import clear_where, needed_bits, seen, upright
from tracklearn.types import Array, Refusal

__all__ = ["BrokenPicture", "Series", "decode", "load", "max_pixels", "read", "spread"]

Item = TypeVar("Item")

# 8192 x 8192, more than cameras of today have. Decoding one takes 0.2 GB, at worst (progressive JPEG) 0.7 GB.
MAX_PIXELS = 1 << 26
VARIABLE = "TRACKLEARN_MAX_PIXELS"
# Opening a pipe waits for somebody to write into it, unless told not to.
_OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
LOOKED_AT = 32  # pictures of a source by which it is decided how many of 16 bits they use
_BYTES_PER_PIXEL = 8  # of a file, and of its samples: four channels of 16 bits


def max_pixels() -> int:
    """Most pixels that a picture may have: `TRACKLEARN_MAX_PIXELS` in the environment, or 2^26.

    Raises:
        ValueError: the variable holds no positive number.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return MAX_PIXELS
    if not text.isdecimal() or len(text) > 18 or int(text) < 1:
        raise Refusal(f"{VARIABLE} is {text[:40]!r}, expected a number of pixels such as {MAX_PIXELS}")
    return int(text)


def load(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a picture's file; its kind and size are looked at before it is read.

    Raises:
        FileNotFoundError: there is no such name.
        BrokenPicture: a link that leads nowhere, no regular file, one that may not be read or is too large.
    """
    try:
        number = os.open(path, _OPEN)
        try:
            status = os.fstat(number)
            if not stat.S_ISREG(status.st_mode):
                raise BrokenPicture("not a regular file")
            limit = _BYTES_PER_PIXEL * max_pixels()
            if status.st_size > limit:
                raise BrokenPicture(f"its file is larger than {limit / 1e6:.0f} MB")
            with open(number, "rb", buffering=0, closefd=False) as file:
                return file.read()
        finally:
            os.close(number)
    except FileNotFoundError:
        if os.path.lexists(path):
            raise BrokenPicture("a link that leads nowhere") from None
        raise
    except OSError as error:
        raise BrokenPicture(error.strerror or "its file cannot be read") from None


def decode(data: bytes | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An encoded picture (JPEG, PNG, BMP, WebP, TIFF, PNM) as RGB uint8 (h, w, 3), upright where it says how.

    What is transparent shows grey. Samples of 16 bits are scaled by the white that the file names, else by
    the bits that its brightest needs; pictures that belong together are decoded by their `Series`.

    Raises:
        BrokenPicture: damaged, of another format, or larger than `max_pixels`.
        MemoryError: there is no room for a picture within the limits.
    """
    header = _header(data)
    if header.samples is PLAIN:
        return _pixels(data, header, cv2.IMREAD_COLOR_RGB)
    colour, alpha = _samples(data, header)
    return seen(colour, alpha, header.samples, needed_bits(colour, header.samples))


def _header(data: bytes | NDArray[np.uint8]) -> Header:
    header = read_header(data if isinstance(data, bytes) else data.tobytes())
    limit = max_pixels()
    if header.pixels > limit:
        raise BrokenPicture(f"larger than {limit / 1e6:.0f} megapixels; {VARIABLE} sets the limit")
    if header.n_bytes > _BYTES_PER_PIXEL * limit:
        raise BrokenPicture(f"needs more than {_BYTES_PER_PIXEL * limit / 1e6:.0f} MB")
    if header.samples.unfit:
        raise BrokenPicture(header.samples.unfit)
    return header


def _pixels(data: bytes | NDArray[np.uint8], header: Header, flags: int) -> Array:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(f"no room for a picture of {header.width}x{header.height} pixels") from None
        raise BrokenPicture from None
    if image is None:
        raise BrokenPicture
    return image


def _samples(data: bytes | NDArray[np.uint8], header: Header) -> tuple[Array, Array | None]:
    """Colours (h, w, 3) and alpha (h, w) as the file has them, upright; None where nothing is transparent."""
    samples = header.samples
    deep = cv2.IMREAD_ANYDEPTH if samples.depth > 8 else 0
    colour = _pixels(data, header, cv2.IMREAD_COLOR_RGB | deep)
    if samples.alpha == "key":
        alpha = clear_where(colour, samples.key)
    elif samples.alpha:
        whole = _pixels(data, header, cv2.IMREAD_UNCHANGED)
        if whole.ndim < 3 or whole.shape[2] < 4:
            return colour, None
        alpha = whole[..., 3]
        turned = upright(alpha, samples.turn)
        alpha = turned if turned.shape == colour.shape[:2] else alpha
    else:
        return colour, None
    opaque = bool((alpha == np.iinfo(alpha.dtype).max).all())
    return colour, None if opaque or alpha.shape != colour.shape[:2] else alpha


def read(path: str | Path) -> NDArray[np.uint8]:
    """The picture in a file, RGB uint8 (h, w, 3).

    Raises:
        FileNotFoundError, BrokenPicture, MemoryError: as `load` and `decode`.
    """
    return decode(load(path))


def spread(files: Sequence[Item]) -> list[Item]:
    """`LOOKED_AT` of the files, evenly spread, the first among them."""
    n = min(len(files), LOOKED_AT)
    return [files[i * len(files) // n] for i in range(n)]


class Series:
    """Decodes the pictures of one source, all by one rule, and keeps account of what it did to them.

    Samples of 16 bits that do not say what white is are taken to have the bits that the brightest of
    `LOOKED_AT` pictures needs: each by its own would make a night as bright as the day.

    Args:
        files: those to look at, asked for when the first such picture comes.
    """

    def __init__(self, files: Callable[[], Sequence[Path]]) -> None:
        self._files = files
        self.n_deep = self.n_stated = self.n_transparent = self.n_cut = 0

    @cached_property
    def bits(self) -> int | None:
        """Bits of a sample where white is 2^bits − 1; None where no picture looked at says."""
        needed = []
        for file in self._files():
            try:
                data = load(file)
                samples = _header(data).samples
                if samples.depth > 8 and not samples.white:
                    needed.append(needed_bits(_samples(data, _header(data))[0], samples))
            except (BrokenPicture, FileNotFoundError):
                continue
        return max(needed, default=None)

    def decode(self, data: bytes | NDArray[np.uint8]) -> NDArray[np.uint8]:
        """As `pictures.decode`.

        Raises:
            BrokenPicture, MemoryError: likewise.
        """
        header = _header(data)
        samples = header.samples
        if samples is PLAIN:
            return decode(data)
        colour, alpha = _samples(data, header)
        bits = own = needed_bits(colour, samples)
        if samples.depth > 8:
            self.n_deep += not samples.white
            self.n_stated += bool(samples.white)
            if not samples.white:
                bits = self.bits or own
                self.n_cut += own > bits
        self.n_transparent += alpha is not None
        return seen(colour, alpha, samples, bits)

    def read(self, path: str | Path) -> NDArray[np.uint8]:
        """As `pictures.read`.

        Raises:
            FileNotFoundError, BrokenPicture, MemoryError: likewise.
        """
        return self.decode(load(path))

    def notes(self) -> list[str]:
        """What was done to the pictures read so far, a line for each kind."""
        bits = self.bits if self.n_deep else None
        cut = f"; {self.n_cut} brighter than that were cut" if self.n_cut else ""
        named = f"pictures of 16 bits a sample were scaled to 8 as if they had {bits}"
        return [
            f"{n} {text}"
            for n, text in (
                (self.n_deep, f"{named}, which the brightest of those looked at needs{cut}"),
                (self.n_stated, "pictures of more than 8 bits a sample were scaled to 8 by their own white"),
                (self.n_transparent, "pictures have transparent parts: these were laid on grey"),
            )
            if n
        ]
