"""MOTChallenge sequence folders: SEQUENCE/img1, gt/gt.txt, det/det.txt and seqinfo.ini.

Source: MOTChallenge's layout, Milan et al., "MOT16", arXiv 1603.00831, section 5.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tracklearn.store.text import read_lines
from tracklearn.types import Refusal

SEQINFO = "seqinfo.ini"
_IMAGES = "img1"
_FEW = 100
_PARTS = {"gt": Path("gt", "gt.txt"), "det": Path("det", "det.txt")}


@dataclass(frozen=True)
class SequenceInfo:
    """What a seqinfo.ini says.

    Args:
        path: the file.
        images: name of the folder of frames beside it.
        suffix: end of the frames' names, "" if it does not say.
        fps: frames per second, None if it does not say.
        n_frames: frames that there should be, None if it does not say.
    """

    path: Path
    images: str = _IMAGES
    suffix: str = ""
    fps: float | None = None
    n_frames: int | None = None


def read_seqinfo(path: Path) -> SequenceInfo:
    """What the seqinfo.ini at `path` says; keys in any case, later ones win, others are passed over.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not text, or a value that cannot be; the message names file and line.
    """
    found: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(read_lines(path), 1):
        key, sign, value = re.split(r"\s[#;]", line, maxsplit=1)[0].rstrip("\x1a\n").partition("=")
        if sign and not key.lstrip().startswith(("#", ";", "[")):
            found[key.strip().lower()] = (number, value.strip().strip("\"'"))

    def refused(key: str, expected: str) -> ValueError:
        number, value = found[key]
        return Refusal(f"{path} line {number}: {key} is {value[:40]!r}, expected {expected}")

    fps, n_frames = None, None
    if "framerate" in found:
        text = found["framerate"][1]
        fps = float(text) if re.fullmatch(r"\d{1,9}(\.\d*)?", text, re.ASCII) else math.nan
        if not 0 < fps <= 1e6:
            raise refused("framerate", "frames per second such as 25 or 29.97")
    if "seqlength" in found:
        text = found["seqlength"][1]
        if not re.fullmatch(r"\d{1,18}", text, re.ASCII):
            raise refused("seqlength", "a whole number of frames")
        n_frames = int(text)
    images = found.get("imdir", (0, ""))[1].replace("\\", "/").strip("/") or _IMAGES
    suffix = found.get("imext", (0, ""))[1].lower()
    if "/" in images or "\0" in images or images in (".", ".."):
        raise refused("imdir", "the name of a folder beside it, such as img1")
    suffix = suffix if suffix.startswith(".") or not suffix else f".{suffix}"
    return SequenceInfo(path, images, suffix, fps, n_frames)


def seqinfo_of(frames: Path) -> SequenceInfo | None:
    """What the seqinfo.ini beside a folder of frames, or in it, says of that folder; None without one.

    Raises:
        ValueError: as `read_seqinfo`.
    """
    own = frames.absolute()
    for folder in dict.fromkeys(
        (own, frames.resolve())
    ):  # a link stands where it is, and for what it leads to
        for place in (folder.parent, folder):
            if (place / SEQINFO).is_file():
                info = read_seqinfo(place / SEQINFO)
                if place == folder or info.images == folder.name:
                    return info
    return None


def is_sequence(folder: Path) -> bool:
    """Whether `folder` is a MOTChallenge sequence: has a seqinfo.ini, or img1 with gt or det beside it."""
    try:
        if (folder / SEQINFO).is_file():
            return any(file.is_dir() for file in folder.iterdir())
        return (folder / _IMAGES).is_dir() and any((folder / part).is_dir() for part in _PARTS)
    except PermissionError:
        return False  # whoever reads it says so


def sequences_in(folder: Path) -> list[Path]:
    """The sequences among the first few things in `folder`."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(folder / entry.name for entry in islice(entries, _FEW))
    except PermissionError:
        return []
    return [path for path in found if path.is_dir() and is_sequence(path)]


def forms(folder: Path) -> str:
    """The ways in which the sequence `folder` can be a source, for messages."""
    ways = [f"NAME={folder}:{part}" for part, file in _PARTS.items() if (folder / file).is_file()]
    what = {"gt": "its ground truth as tracks", "det": "its detections, tracked here"}
    told = [f"{way} ({what[way.rpartition(':')[2]]})" for way in ways]
    return ", ".join([*told, f"NAME={folder}:RESULTS.txt", f"NAME=video:{folder} (to detect in)"])


def split_sequence(text: str) -> tuple[Path, str] | None:
    """SEQUENCE and PART of "SEQUENCE:PART", where SEQUENCE is a sequence; None for any other text."""
    folder, sign, part = text.rpartition(":")
    if not sign or not part or Path(text).exists() or not Path(folder).is_dir():
        return None
    return (Path(folder), part) if is_sequence(Path(folder)) else None


def images_of(folder: Path) -> Path:
    """The folder of frames of the sequence `folder`.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: as `read_seqinfo`.
    """
    info = read_seqinfo(folder / SEQINFO) if (folder / SEQINFO).is_file() else None
    images = folder / (info.images if info else _IMAGES)
    if not images.is_dir():
        raise FileNotFoundError(f"no such folder: {images}, where the sequence {folder} has its frames")
    return images


def part_of(folder: Path, part: str) -> Path:
    """The file that `part` names: gt, det, or a file in the sequence `folder` or at that path.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it may be two files.
    """
    if part in _PARTS:
        if not (folder / _PARTS[part]).is_file():
            raise FileNotFoundError(
                f"no such file: {folder / _PARTS[part]} (test sequences come without truth): {forms(folder)}"
            )
        return folder / _PARTS[part]
    there = [file for file in (folder / part, Path(part)) if file.is_file()]
    if not there:
        raise FileNotFoundError(f"no such file: {part}, nor {folder / part}: {forms(folder)}")
    if len(there) > 1 and not there[0].samefile(there[1]):
        raise Refusal(f"{folder}:{part} may be {there[0]} or {there[1]}: write RESULTS+{images_of(folder)}")
    return there[0]
