"""The segments of a JPEG file: where they lie, and a file without those that do not make the picture."""

from __future__ import annotations

import re
from collections.abc import Iterator

SOI, EOI, SOS, APP0, APP14 = 0xD8, 0xD9, 0xDA, 0xE0, 0xEE
# Start of frame: everything from C0 to CF but Huffman tables (C4), an extension (C8) and conditioning (CC).
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

# What decoding needs: frames, tables (C4, CC, DB, DC, DD), scans, the end. Adobe's segment (APP14) says which
# colours the components are, JFIF's (APP0) too; both are shortened to that.
_NEEDED = FRAMES | {0xC4, 0xCC, 0xDB, 0xDC, 0xDD, SOI, EOI, SOS}
_ALONE = frozenset(range(0xD0, 0xDA)) | {0x01}  # markers without a segment behind them
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_BEHIND_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # restart markers belong to the scan


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The segments of a JPEG file up to its end marker, as far as they hold together.

    Bytes between segments are passed over, as libjpeg does.

    Yields:
        The marker's second byte, and where the segment begins and ends; a scan's data is part of it.
    """
    start, size = 0, len(data)
    while start + 1 < size:
        marker = data[start + 1]
        if data[start] != 0xFF or not 0 < marker < 0xFF:
            match = _MARKER.search(data, start)
            if match is None:
                return
            start = match.start()
            marker = data[start + 1]
        end = start + 2
        if marker not in _ALONE:
            end += max(2, int.from_bytes(data[end : end + 2], "big"))  # libjpeg, too, takes 0 and 1 for 2
            if end > size:
                return
        if marker == SOS:
            behind = _BEHIND_SCAN.search(data, end)
            end = size if behind is None else behind.start()
        yield marker, start, end
        if marker == EOI:
            return
        start = end


def stripped(data: bytes) -> bytes:
    """A JPEG file without what does not make its picture; the compressed picture stays bit for bit.

    Place, time, device, text, colour profile and small copies of the picture (EXIF, XMP, IPTC, ICC, comments)
    go, and what lies between or behind the segments. So does the note which way up it is: whoever strips a
    file compares the pictures.

    Returns:
        `data` itself where there is nothing to take away.
    """
    kept: list[bytes] = []
    for marker, start, end in segments(data):
        if marker in _NEEDED:
            kept.append(data[start:end])
        elif marker == APP0 and data[start + 4 : start + 9] == b"JFIF\0" and end - start >= 18:
            # identifier, version, density: 12 bytes; then the size of a thumbnail, and the thumbnail
            kept.append(b"\xff\xe0\x00\x10" + data[start + 4 : start + 16] + b"\0\0")
        elif marker == APP14 and data[start + 4 : start + 9] == b"Adobe" and end - start >= 16:
            kept.append(b"\xff\xee\x00\x0e" + data[start + 4 : start + 16])
    out = b"".join(kept)
    return data if out == data else out
