"""What the header of a video file promises: how many frames, and when the first was taken."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import av

# Recorders without a clock write the zero of their calendar: 1904, 1970, 1980 or 2000.
_NO_CLOCK = datetime(2000, 1, 2, tzinfo=UTC)
_TAGS = ("com.apple.quicktime.creationdate", "creation_time")
_MP4_BEGINS = (b"ftyp", b"wide", b"mdat", b"free")
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def start_time(tags: Mapping[str, str]) -> datetime | None:
    """When the recording began by the tags of its container; None where they do not say, or cannot be right.

    >>> start_time({"creation_time": "2026-05-01T08:00:00.000000Z"})
    datetime.datetime(2026, 5, 1, 8, 0, tzinfo=datetime.timezone.utc)
    """
    for name in _TAGS:
        try:
            found = datetime.fromisoformat(tags.get(name, ""))
        except ValueError:
            continue
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
        if _NO_CLOCK < found < datetime.now(UTC) + timedelta(days=366):
            return found
    return None


def promised_frames(path: Path, container: Any, stream: Any, rate: float) -> int | None:
    """Frames that a file cut short should hold by its header; None where it is whole or promises nothing.

    A file is taken for cut short only where its own structure says how long it should be, and it is not:
    counts in headers are often a little off.
    """
    name, length = container.format.name, path.stat().st_size
    entries = getattr(stream, "index_entries", ())  # older PyAV does not tell of them
    if "mp4" in name:
        last = entries[len(entries) - 1] if len(entries) else None
        return len(entries) if last is not None and last.pos + last.size > length else None
    with path.open("rb") as file:
        if name == "avi":
            head = file.read(8)
            promised = 8 + int.from_bytes(head[4:8], "little") if head[:4] == b"RIFF" else 0
            return stream.frames or None if length < promised else None
        if "matroska" in name and container.duration:
            return round(container.duration / av.time_base * rate) if length < _segment_end(file) else None
    return None


def lacks_index(path: Path) -> bool:
    """Whether this is an MP4 or QuickTime file without its index, which recorders write last."""
    try:
        length = path.stat().st_size
        with path.open("rb") as file:
            names: list[bytes] = []
            at = 0
            while at + 8 <= length and len(names) < 1000:
                file.seek(at)
                head = file.read(16)
                names.append(head[4:8])
                size = int.from_bytes(head[:4], "big")
                size = int.from_bytes(head[8:16], "big") if size == 1 else size
                if size < 8:  # 0: up to the end of the file
                    break
                at += size
    except OSError:
        return False
    return (
        bool(names) and names[0] in (b"ftyp", b"wide", b"mdat") and b"moov" not in names and b"mdat" in names
    )


def _segment_end(file: BinaryIO) -> int:
    """Where the segment of a Matroska file ends by its header; 0 where it does not say."""
    if file.read(4) != _EBML:
        return 0
    file.seek(_number(file) or 0, 1)
    if file.read(4) != _SEGMENT:
        return 0
    size = _number(file)
    return 0 if size is None else file.tell() + size


def _number(file: BinaryIO) -> int | None:
    """A number of EBML, of 1 to 8 bytes; None for "unknown"."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] ^ (1 << (7 - more))]) + file.read(more), "big")
    return None if value == (1 << (7 * (more + 1))) - 1 else value
