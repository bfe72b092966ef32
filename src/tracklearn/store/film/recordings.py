"""Folders and patterns of recordings: the video files of one camera, in natural order."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from tracklearn.store.picture.listing import HIDDEN, IMAGE_SUFFIXES, natural_key
from tracklearn.types import Refusal

VIDEO_SUFFIXES = frozenset(
    {".264", ".265", ".3gp", ".asf", ".avi", ".dav", ".divx", ".flv", ".h264", ".h265", ".hevc", ".ivf"}
    | {".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv"}
    | {".ts", ".vob", ".webm", ".wmv"}
)
NO_VIDEO = "not a video by the end of its name"
MAX_WALKED = 1_000_000  # files that ** may lead through: a mistyped pattern should not read the whole disk
_LOOKED_AT = 10_000  # files below a folder without videos that are looked at for a hint
_MAGIC = set("*?[")


@dataclass(frozen=True)
class Recordings:
    """The video files behind a folder or a pattern.

    Args:
        text: how they were given.
        files: in natural order.
        left_out: reason -> number of files.
        name: what their camera is called unless it is named.
    """

    text: str
    files: list[Path]
    left_out: Counter[str]
    name: str

    def __str__(self) -> str:
        n, other = len(self.files), self.left_out.total()
        found = f"{n} recording{'s' if n > 1 else ''} found in {self.text}"
        reasons = "; ".join(f"{count} {reason}" for reason, count in self.left_out.items())
        return found + (f", {other} other files left out ({reasons})" if other else "")


def is_pattern(text: str) -> bool:
    """Whether `text` stands for several files, as in recordings/*.mp4."""
    return not _MAGIC.isdisjoint(text)


def match(pattern: str) -> Recordings:
    """The video files that a pattern stands for; ** stands for folders at any depth, ~ for the home.

    Raises:
        FileNotFoundError: it stands for nothing.
        ValueError: it stands for no video, or for folders.
    """
    if pattern.endswith(os.sep):  # nothing to look for, perhaps on the whole disk
        raise Refusal(f"the pattern {pattern} stands for folders: name their videos, as in {pattern}*.mp4")
    found = _fitting(os.path.expanduser(pattern))
    files, left_out = _sorted_out([Path(file) for file in found if not os.path.isdir(file)])
    if not found:
        raise FileNotFoundError(f"no file fits the pattern {pattern}")
    if not files:
        raise Refusal(
            f"no video among the {len(found)} files of the pattern {pattern}: expected recordings such as "
            "*.mp4; folders of images are named one by one"
        )
    fixed = os.path.expanduser(pattern)
    while is_pattern(fixed):
        fixed = os.path.dirname(fixed)
    return Recordings(pattern, files, left_out, Path(fixed or ".").resolve().name)


def match_names(pattern: str, names: Sequence[str], *, text: str, folder: str) -> Recordings:
    """As `match`, of names that somebody else lists: a storage.

    Args:
        pattern: relative to the place that was listed; "" takes the names without a stroke.
        names: with strokes for folders. text: for messages. folder: name of the place.

    Raises:
        FileNotFoundError, ValueError: as `match`.
    """
    parts = pattern.split("/") if pattern else ["*"]
    found = [Path(name) for name in names if _fits(name.split("/"), parts)]
    if not found:
        raise FileNotFoundError(f"nothing in storage fits {text}")
    files, left_out = _sorted_out(found)
    if not files:
        raise Refusal(
            f"no video among the {len(found)} objects of {text}: expected recordings such as *.mp4; "
            "folders of images are not read from storage: copy them here first"
        )
    return Recordings(text, files, left_out, folder)


def in_folder(folder: Path) -> Recordings | None:
    """The video files directly in a folder; None where there are none.

    Raises:
        ValueError: the folder holds images as well, loose or in sub-folders, or videos in sub-folders only.
        OSError: it cannot be read.
    """
    with os.scandir(folder) as entries:
        paths = [folder / entry.name for entry in entries]
    files, left_out = _sorted_out([path for path in paths if not os.path.isdir(path)])
    inside = sorted(path for path in paths if os.path.isdir(path) and not path.name.startswith("."))
    # Lazy: a folder of crops shows an image at once, and no more of it is looked at.
    pictures = any(map(_is_image, paths)) or any(
        _is_image(file) for path in inside for file in path.iterdir()
    )
    if pictures and files:
        raise Refusal(
            f"folder {folder} holds both videos and images: write {folder}/*{files[0].suffix} for its "
            "recordings, or put the images into a folder of their own"
        )
    if pictures:
        return None
    # Without a video here they only make a hint: a folder such as / is not searched through for it.
    most = MAX_WALKED if files else _LOOKED_AT
    below, _ = _sorted_out(list(islice(chain.from_iterable(map(_below, inside)), most)))
    if not files and below:
        raise Refusal(
            f"folder {folder} holds videos in its sub-folders only: write {folder}/**/*{below[0].suffix}"
        )
    if below:
        left_out["in sub-folders"] = len(below)
    return Recordings(str(folder), files, left_out, folder.resolve().name) if files else None


def _below(folder: Path) -> Iterator[Path]:
    """The files in a folder and in those below it, hidden folders and links left out."""
    for top, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith("."):
                yield Path(top, name)


def _sorted_out(paths: list[Path]) -> tuple[list[Path], Counter[str]]:
    files, left_out = [], Counter[str]()
    for path in sorted(paths, key=lambda path: natural_key(str(path))):
        if path.name.startswith("."):
            left_out[HIDDEN] += 1
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            files.append(path)
        else:
            left_out[NO_VIDEO] += 1
    return files, left_out


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _fitting(pattern: str) -> list[str]:
    """What fits a pattern, as of `glob`, but ** goes through no link, so that circles end.

    Raises:
        ValueError: ** leads through more than `MAX_WALKED` files.
    """
    parts = pattern.split(os.sep)
    if "**" not in parts:
        return glob.glob(pattern)
    at = parts.index("**")
    head = os.sep.join(parts[:at])
    tail = [part for i, part in enumerate(parts[at:], at) if part != "**" or parts[i - 1] != "**"]
    tops = glob.glob(head + os.sep) if at else ["."]
    found: list[str] = []
    walked = 0
    for top in tops:
        for folder, folders, files in os.walk(top):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            walked += len(files)
            if walked > MAX_WALKED:
                raise Refusal(
                    f"the pattern {pattern} leads through more than {MAX_WALKED:,} files: narrow it"
                )
            inside = Path(folder).relative_to(top).parts
            found += [
                os.path.normpath(os.path.join(folder, name)) for name in files if _fits((*inside, name), tail)
            ]
    return found


def _fits(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether the names of a path fit the parts of a pattern; as everywhere, * means no hidden name."""
    if not parts:
        return not names
    if parts[0] == "**":
        return len(parts) == 1 or any(_fits(names[i:], parts[1:]) for i in range(len(names)))
    if not names or (names[0].startswith(".") and parts[0][:1] in _MAGIC):
        return False
    return fnmatch.fnmatchcase(names[0], parts[0]) and _fits(names[1:], parts[1:])
