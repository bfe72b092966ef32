"""What the header of an encoded picture says, read without decoding: format, size, and what decoding takes.

A file of a kilobyte can claim to be a picture of gigabytes, and decoders believe it. The formats are those
that are taken as pictures (JPEG, PNG, BMP, WebP, TIFF, PNM); others that OpenCV would decode are refused.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from tracklearn.store import jpeg

MAX_SCANS = (
    100  # of a JPEG file; usual are 10 at most, and each goes over the whole picture (libtiff's limit)
)
_PNM = re.compile(rb"P[1-6](?=\s)" + 2 * rb"(?:\s|#[^\r\n]*[\r\n])*(\d{1,10})(?=\D)")
# TIFF tags and the integer types of their values: size in bytes, struct letter
_WIDTH, _HEIGHT, _BITS, _SAMPLES, _ROWS, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 258, 277, 278, 322, 323
_INTEGER = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}


class BrokenPicture(ValueError):
    """A picture that cannot be had; `why` says more where more is known than that it is damaged.

    The message is made for lists of what was left out: "the image cannot be decoded (an empty file)".
    """

    def __init__(self, why: str = "") -> None:
        self.why = why
        super().__init__("the image cannot be decoded" + (f" ({why})" if why else ""))


class Header(NamedTuple):
    """What a header says.

    Args:
        kind: "JPEG", "PNG", "BMP", "WebP", "TIFF" or "PNM".
        width, height: pixels, before the picture is turned upright.
        n_bytes: what the decoder lays out at once in the file's own samples, at least a byte a pixel; for a
            TIFF file that is its largest tile or strip if larger than the picture.
    """

    kind: str
    width: int
    height: int
    n_bytes: int

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.width * self.height


def read_header(data: bytes) -> Header:
    """The header of an encoded picture.

    Raises:
        BrokenPicture: another format, or a header that is cut off or makes no sense.
    """
    if not data:
        raise BrokenPicture("an empty file")
    for signature, read in _READERS:
        if signature.match(data):
            try:
                header = read(data)
            except (struct.error, IndexError, OverflowError):
                raise BrokenPicture from None
            if header.width < 1 or header.height < 1:
                raise BrokenPicture
            return header
    raise BrokenPicture("not JPEG, PNG, BMP, WebP, TIFF or PNM")


def _jpeg(data: bytes) -> Header:
    for marker, start, end in jpeg.segments(data):
        if marker in (jpeg.SOS, jpeg.EOI):
            break
        if marker in jpeg.FRAMES and end - start >= 10:
            height, width, components = struct.unpack_from(">HHB", data, start + 5)
            # Inside a scan FF is never followed by DA: this counts scans, and the few of small copies.
            if data.count(b"\xff\xda", end) > MAX_SCANS:
                raise BrokenPicture(f"more than {MAX_SCANS} scans")
            return Header("JPEG", width, height, width * height * max(1, components))
    raise BrokenPicture


def _png(data: bytes) -> Header:
    if data[12:16] != b"IHDR":
        raise BrokenPicture
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    # The decoder makes room for what a chunk claims before it looks whether that is there: gigabytes.
    at, name = 8, b""
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if at > len(data):
            raise BrokenPicture
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 4)
    return Header("PNG", width, height, width * height * samples * (2 if depth > 8 else 1))


def _bmp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    else:
        width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
    return Header("BMP", width, abs(height), width * abs(height) * max(1, bits // 8))


def _webp(data: bytes) -> Header:
    kind, body = data[12:16], 20
    if kind == b"VP8X":
        width = 1 + int.from_bytes(data[body + 4 : body + 7], "little")
        height = 1 + int.from_bytes(data[body + 7 : body + 10], "little")
        if len(data) < body + 10:
            raise BrokenPicture
    elif kind == b"VP8 " and data[body + 3 : body + 6] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, body + 6))
    elif kind == b"VP8L" and data[body] == 0x2F:
        (bits,) = struct.unpack_from("<I", data, body + 1)
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        raise BrokenPicture
    return Header("WebP", width, height, 4 * width * height)


def _pnm(data: bytes) -> Header:
    match = _PNM.match(data)
    if match is None:
        raise BrokenPicture
    width, height = int(match[1]), int(match[2])
    return Header("PNM", width, height, width * height * (6 if data[1:2] in b"36" else 2))


def _tiff(data: bytes) -> Header:
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    # BigTIFF has eight bytes for offsets and counts.
    at = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    n = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
    at += 8 if big else 2
    entry, head, inline = (20, 12, 8) if big else (12, 8, 4)
    found: dict[int, int] = {}
    for i in range(min(n, (len(data) - at) // entry)):
        place = at + i * entry
        tag, kind, count = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, place)
        if tag not in (_WIDTH, _HEIGHT, _BITS, _SAMPLES, _ROWS, _TILE_WIDTH, _TILE_HEIGHT):
            continue
        letter = _INTEGER.get(kind)
        if letter is None or not 1 <= count <= 0xFFFF:
            raise BrokenPicture
        where = place + head
        if count * struct.calcsize(letter) > inline:
            where = struct.unpack_from(order + ("Q" if big else "I"), data, where)[0]
        # Of several values, or of a tag that is there twice, the largest: it is a bound that is wanted.
        largest = max(struct.unpack_from(f"{order}{count}{letter}", data, where))
        found[tag] = max(found.get(tag, 0), largest)
    width, height = found.get(_WIDTH, 0), found.get(_HEIGHT, 0)
    rows = found.get(_ROWS, height)
    block = width * (rows if rows < 2**31 - 1 else height)  # the highest value means: all rows
    if _TILE_WIDTH in found or _TILE_HEIGHT in found:
        block = found.get(_TILE_WIDTH, width) * found.get(_TILE_HEIGHT, height)
    bits = max(8, found.get(_BITS, 1) * found.get(_SAMPLES, 1))
    return Header("TIFF", width, height, max(width * height, block) * -(-bits // 8))


_READERS = (
    (re.compile(rb"\xff\xd8\xff"), _jpeg),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _png),
    (re.compile(rb"BM"), _bmp),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), _webp),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), _tiff),
    (re.compile(rb"P[1-6]\s"), _pnm),
)
