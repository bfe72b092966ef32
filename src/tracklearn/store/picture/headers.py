"""What the header of an encoded picture says, read without decoding: format, size, needs and samples.

A file of a kilobyte can claim to be a picture of gigabytes, and decoders believe it. The formats are those
that are taken as pictures (JPEG, PNG, BMP, WebP, TIFF, PNM); others that OpenCV would decode are refused.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from tracklearn.store.picture import jpeg
from tracklearn.types import Refusal

MAX_SCANS = (
    100  # of a JPEG file; usual are 10 at most, and each goes over the whole picture (libtiff's limit)
)
_PNM = re.compile(rb"P[1-6](?=\s)" + 2 * rb"(?:\s|#[^\r\n]*[\r\n])*(\d{1,10})(?=\D)")
_PNM_WHITE = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*(\d{1,10})(?=\D)")
# TIFF tags and the integer types of their values: size in bytes, struct letter
_WIDTH, _HEIGHT, _BITS, _SAMPLES, _ROWS, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 258, 277, 278, 322, 323
_BOUNDS = {_WIDTH, _HEIGHT, _BITS, _SAMPLES, _ROWS, _TILE_WIDTH, _TILE_HEIGHT}
_COLOURS, _TURN, _WHITE, _EXTRA, _FORMAT = 262, 274, 281, 338, 339
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2  # values of _COLOURS
_PREMULTIPLIED = 1  # value of _EXTRA
_UNSIGNED = (0, 1, 4)  # values of _FORMAT: not said, whole numbers, undefined
_INTEGER = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}


class BrokenPicture(Refusal):
    """A picture that cannot be had; `why` says more where more is known than that it is damaged.

    The message is made for lists of what was left out: "the image cannot be decoded (an empty file)".
    """

    def __init__(self, why: str = "") -> None:
        self.why = why
        super().__init__("the image cannot be decoded" + (f" ({why})" if why else ""))


class Samples(NamedTuple):
    """What the samples of a picture mean, as far as they are not simply red, green and blue of 8 bits.

    Args:
        depth: bits of a decoded sample, 8 or 16.
        white: the sample that is white, where the file says so; else 0.
        significant: bits that carry anything, by the file; 0 where it does not say.
        alpha: "" for none, "straight", "multiplied" (colours are already), or "key" (`key` is transparent).
        key: the transparent colour, one sample or three.
        inverted: 0 is white.
        turn: EXIF's orientation, of formats whose alpha the decoder does not turn; else 1.
        unfit: why the picture cannot be had from them; "" where it can.
    """

    depth: int = 8
    white: int = 0
    significant: int = 0
    alpha: str = ""
    key: tuple[int, ...] = ()
    inverted: bool = False
    turn: int = 1
    unfit: str = ""


PLAIN = Samples()


class Header(NamedTuple):
    """What a header says.

    Args:
        kind: "JPEG", "PNG", "BMP", "WebP", "TIFF" or "PNM".
        width, height: pixels, before the picture is turned upright.
        n_bytes: what the decoder lays out at once in the file's own samples, at least a byte a pixel; for a
            TIFF file that is its largest tile or strip if larger than the picture.
        samples: what the samples mean.
    """

    kind: str
    width: int
    height: int
    n_bytes: int
    samples: Samples = PLAIN

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
            bits, height, width, components = struct.unpack_from(">BHHB", data, start + 4)
            samples = (
                PLAIN if bits == 8 else Samples(unfit=f"a JPEG of {bits} bits a sample: only 8 are read")
            )
            # Inside a scan FF is never followed by DA: this counts scans, and the few of small copies.
            if data.count(b"\xff\xda", end) > MAX_SCANS:
                raise BrokenPicture(f"more than {MAX_SCANS} scans")
            return Header("JPEG", width, height, width * height * max(1, components), samples)
    raise BrokenPicture


def _png(data: bytes) -> Header:
    if data[12:16] != b"IHDR":
        raise BrokenPicture
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    # The decoder makes room for what a chunk claims before it looks whether that is there: gigabytes.
    at, name, chunks = 8, b"", dict[bytes, bytes]()
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, at)
        if name in (b"tRNS", b"sBIT", b"eXIf"):
            chunks[name] = data[at + 8 : at + 8 + length]
        at += 12 + length
        if at > len(data):
            raise BrokenPicture
    if depth not in (1, 2, 4, 8, 16):
        raise BrokenPicture
    n_samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 4)
    alpha = "straight" if colour in (4, 6) else ""
    key: tuple[int, ...] = ()
    clear = chunks.get(b"tRNS", b"")
    if clear and colour == 3:
        alpha = "straight"
    elif colour in (0, 2) and len(clear) >= 2 * n_samples:
        alpha, key = "key", struct.unpack_from(">" + "H" * n_samples, clear)
        if depth < 8:  # the decoder spreads such samples over all 8
            key = tuple(sample * 255 // ((1 << depth) - 1) for sample in key)
    significant = max(chunks.get(b"sBIT", b"\0")[: 1 if colour in (0, 4) else 3], default=0)
    samples = Samples(
        depth=16 if depth > 8 else 8,
        significant=significant if significant <= depth else 0,
        alpha=alpha,
        key=key,
        turn=_turn(chunks.get(b"eXIf", b"")) if alpha else 1,
    )
    n_bytes = width * height * n_samples * (2 if depth > 8 else 1)
    return Header("PNG", width, height, n_bytes, samples)


def _bmp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    else:
        width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
    mask = struct.unpack_from("<I", data, 66)[0] if size >= 56 and bits == 32 else 0
    masked = mask and struct.unpack_from("<I", data, 30)[0] in (3, 6)
    samples = Samples(alpha="straight") if masked else PLAIN
    return Header("BMP", width, abs(height), width * abs(height) * max(1, bits // 8), samples)


def _webp(data: bytes) -> Header:
    kind, body = data[12:16], 20
    alpha, turn = False, 1
    if kind == b"VP8X":
        alpha = bool(data[body] & 0x10)
        turn = _webp_turn(data) if alpha and data[body] & 0x08 else 1
        width = 1 + int.from_bytes(data[body + 4 : body + 7], "little")
        height = 1 + int.from_bytes(data[body + 7 : body + 10], "little")
        if len(data) < body + 10:
            raise BrokenPicture
    elif kind == b"VP8 " and data[body + 3 : body + 6] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, body + 6))
    elif kind == b"VP8L" and data[body] == 0x2F:
        (bits,) = struct.unpack_from("<I", data, body + 1)
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        alpha = bool(bits >> 28 & 1)
    else:
        raise BrokenPicture
    samples = Samples(alpha="straight", turn=turn) if alpha else PLAIN
    return Header("WebP", width, height, 4 * width * height, samples)


def _webp_turn(data: bytes) -> int:
    at = 12
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        if name == b"EXIF":
            return _turn(data[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0"))
        at += 8 + length + length % 2
    return 1


def _turn(exif: bytes) -> int:
    """EXIF's orientation, 1 to 8; 1 where it says none that can be read."""
    try:
        turn = _tags(exif, {_TURN}).get(_TURN, 1)
    except (BrokenPicture, struct.error):
        return 1
    return turn if 1 <= turn <= 8 else 1


def _pnm(data: bytes) -> Header:
    match = _PNM.match(data)
    if match is None:
        raise BrokenPicture
    width, height = int(match[1]), int(match[2])
    white, kind = 255, data[1:2]
    if kind in b"2356" and (found := _PNM_WHITE.match(data, match.end())):
        white = int(found[1])
    samples = PLAIN
    if 255 < white < 1 << 16:
        samples = Samples(depth=16, white=white)
    elif 0 < white < 255 and kind in b"56":  # of the text forms the decoder does it
        samples = Samples(white=white)
    return Header("PNM", width, height, width * height * (6 if kind in b"36" else 2), samples)


def _tags(data: bytes, wanted: set[int]) -> dict[int, int]:
    """The largest value of each of `wanted` and `_BOUNDS` in the first directory of a TIFF file."""
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
        if tag not in _BOUNDS and tag not in wanted:
            continue
        letter = _INTEGER.get(kind)
        try:
            if letter is None or not 1 <= count <= 0xFFFF:
                raise BrokenPicture
            where = place + head
            if count * struct.calcsize(letter) > inline:
                where = struct.unpack_from(order + ("Q" if big else "I"), data, where)[0]
            # Of several values, or of a tag that is there twice, the largest: it is a bound that is wanted.
            largest = max(struct.unpack_from(f"{order}{count}{letter}", data, where))
        except (BrokenPicture, struct.error, OverflowError):
            if tag in _BOUNDS:
                raise
            continue
        found[tag] = max(found.get(tag, 0), largest)
    return found


def _tiff(data: bytes) -> Header:
    found = _tags(data, {_COLOURS, _WHITE, _EXTRA, _FORMAT})
    width, height = found.get(_WIDTH, 0), found.get(_HEIGHT, 0)
    rows = found.get(_ROWS, height)
    block = width * (rows if rows < 2**31 - 1 else height)  # the highest value means: all rows
    if _TILE_WIDTH in found or _TILE_HEIGHT in found:
        block = found.get(_TILE_WIDTH, width) * found.get(_TILE_HEIGHT, height)
    bits = max(8, found.get(_BITS, 1) * found.get(_SAMPLES, 1))
    n_bytes = max(width * height, block) * -(-bits // 8)
    return Header("TIFF", width, height, n_bytes, _tiff_samples(found))


def _tiff_samples(found: dict[int, int]) -> Samples:
    bits, n, colours = found.get(_BITS, 1), found.get(_SAMPLES, 1), found.get(_COLOURS, _BLACK_IS_ZERO)
    if bits > 16 or found.get(_FORMAT, 1) not in _UNSIGNED:
        return Samples(unfit="its samples are no whole numbers of 8 or 16 bits: save it with such")
    if colours in (_WHITE_IS_ZERO, _BLACK_IS_ZERO) and n == 2:
        return Samples(unfit="grey with transparency in a TIFF file: save it as PNG")
    alpha = ""
    if colours == _RGB and n == 4:
        # Of 8 bits the decoder multiplies the colours by an alpha that is named as straight. One that is not
        # named it leaves alone, and those who do not name it write straight ones.
        extra = found.get(_EXTRA, 0)
        multiplied = extra == _PREMULTIPLIED or (extra and bits <= 8)
        alpha = "multiplied" if multiplied else "straight"
    if bits <= 8:
        return Samples(alpha=alpha)
    if colours not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
        return Samples(unfit="more than 8 bits a sample in other colours than grey or RGB: save it as RGB")
    # The decoder moves samples of 10 to 14 bits to the upper end of 16.
    white = ((1 << bits) - 1) << (16 - bits) if bits < 16 else found.get(_WHITE, 0)
    return Samples(
        depth=16,
        white=white if 255 < white < 1 << 16 else 0,
        alpha=alpha,
        inverted=colours == _WHITE_IS_ZERO,
    )


_READERS = (
    (re.compile(rb"\xff\xd8\xff"), _jpeg),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _png),
    (re.compile(rb"BM"), _bmp),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), _webp),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), _tiff),
    (re.compile(rb"P[1-6]\s"), _pnm),
)
