"""The one door by which encoded pictures come in: what is not fit to be decoded is refused before it is.

A picture is bounded by the size of its file and by the size that its header claims, since a kilobyte of JPEG
can ask for gigabytes. Whatever is wrong with one, `BrokenPicture` says so, and nothing else is raised: one
bad picture among a million costs one picture.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tracklearn.store.headers import BrokenPicture, read_header

__all__ = ["BrokenPicture", "decode", "load", "max_pixels", "read"]

# 8192 x 8192, more than cameras of today have. Decoding one takes 0.2 GB, at worst (progressive JPEG) 0.7 GB.
MAX_PIXELS = 1 << 26
VARIABLE = "TRACKLEARN_MAX_PIXELS"
# Opening a pipe waits for somebody to write into it, unless told not to.
_OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
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
        raise ValueError(f"{VARIABLE} is {text[:40]!r}, expected a number of pixels such as {MAX_PIXELS}")
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

    Raises:
        BrokenPicture: damaged, of another format, or larger than `max_pixels`.
        MemoryError: there is no room for a picture within the limits.
    """
    header = read_header(data if isinstance(data, bytes) else data.tobytes())
    limit = max_pixels()
    if header.pixels > limit:
        raise BrokenPicture(f"larger than {limit / 1e6:.0f} megapixels; {VARIABLE} sets the limit")
    if header.n_bytes > _BYTES_PER_PIXEL * limit:
        raise BrokenPicture(f"needs more than {_BYTES_PER_PIXEL * limit / 1e6:.0f} MB")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(f"no room for a picture of {header.width}x{header.height} pixels") from None
        raise BrokenPicture from None
    if image is None:
        raise BrokenPicture
    return image  # type: ignore[return-value]  # stubs: of any dtype


def read(path: str | Path) -> NDArray[np.uint8]:
    """The picture in a file, RGB uint8 (h, w, 3).

    Raises:
        FileNotFoundError, BrokenPicture, MemoryError: as `load` and `decode`.
    """
    return decode(load(path))
