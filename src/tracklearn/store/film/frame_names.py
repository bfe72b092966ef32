"""Which images of a folder are the frames of a video, and which frame each of them is: told from their names.

000021.jpg is frame 21, whatever its place in the folder. Of several numbers in a name
(cam1_000021.jpg, 2026-05-01_12-30-45_000021.jpg) the one that tells the images apart counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tracklearn.types import Array, Refusal

OTHER_KIND = "another kind of image than the frames"
COMPANION = "it goes with a frame of the same name: a mask, a copy"
UNLIKE = "its name is unlike those of the frames"

_JPEG = {".jpg", ".jpeg"}
_DIGITS = 18  # longer numbers exceed 64 bits
_MOSTLY = 0.9  # images named alike are the frames if they are so many of all
# Numbers this far apart are no frame numbers but a clock's.
_CLOCK_SPAN, _CLOCK_STEP = 10**6, 1000
_CLOCK = 10**9  # frames of a year at 30 a second; seconds since 1970 are more


@dataclass(frozen=True, eq=False)
class Numbered:
    """The frames of a folder.

    Args:
        files: images that are frames, in order.
        number: (n,) int64, increasing, the numbers in their names; None where names have none, and an image
            then is the frame of its place.
        left_out: reason -> number of images that are no frames.
        unclear: why names that hold numbers do not say which frame they are; "" if nothing is unclear.
    """

    files: list[Path]
    number: Array | None
    left_out: Counter[str] = field(default_factory=Counter)
    unclear: str = ""

    @property
    def frame(self) -> Array:
        """(n,) int64, frame numbers from 0: names count from 1, but where one of them is 0."""
        if self.number is None:
            return np.arange(len(self.files))
        return self.number - (self.number[0] > 0)


def number_frames(images: Sequence[Path], *, suffix: str = "") -> Numbered:
    """Which of `images` are frames, and of which number.

    Args:
        images: the images of one folder, in natural order.
        suffix: the end of the frames' names where it is known, such as ".jpg".

    Raises:
        ValueError: two images of one frame.
    """
    left_out = Counter[str]()
    files = _of_one_kind(list(images), suffix.lower(), left_out)
    files = _without_companions(files, left_out)
    files = _named_alike(files, left_out)
    number, unclear = _numbers(files)
    if number is None:
        return Numbered(files, None, left_out, unclear)
    order = np.argsort(number, kind="stable")
    number = number[order]
    if (same := np.flatnonzero(np.diff(number) == 0)).size:
        at = int(same[0])
        first, second = (files[int(i)].name for i in order[at : at + 2])
        raise Refusal(
            f"two images of frame {number[at]} in {files[0].parent}: {first} and {second}; leave one "
            "of them, and give every camera a folder of its own"
        )
    return Numbered([files[int(i)] for i in order], number, left_out, unclear)


def _of_one_kind(files: list[Path], suffix: str, left_out: Counter[str]) -> list[Path]:
    """Of several images that differ in the end of their names only, those of the frames' kind."""
    if suffix and any(file.suffix.lower() == suffix for file in files):
        kept = [file for file in files if file.suffix.lower() == suffix]
        left_out[OTHER_KIND] += len(files) - len(kept)
        return kept
    kinds: dict[str, set[str]] = {}
    for file in files:
        kinds.setdefault(file.stem, set()).add(file.suffix.lower())
    twice = {stem for stem, found in kinds.items() if len(found) > 1}
    if not twice:
        return files
    n = Counter(file.suffix.lower() for file in files)
    ranked = sorted(n, key=lambda kind: (n[kind], kind in _JPEG), reverse=True)
    best = {(n[kind], kind in _JPEG) for kind in ranked[:2]}
    if len(best) == 1:
        stem = min(twice)
        raise Refusal(
            f"two images of one frame in {files[0].parent}: {stem}{ranked[0]} and {stem}{ranked[1]}; "
            "move the kind that is no frame elsewhere"
        )
    kept = [file for file in files if file.stem not in twice or file.suffix.lower() == ranked[0]]
    left_out[OTHER_KIND] += len(files) - len(kept)
    return kept


def _without_companions(files: list[Path], left_out: Counter[str]) -> list[Path]:
    """Without 000001_mask.png, 000001 (1).jpg and the like, where there is a 000001.jpg."""
    stems = {file.stem for file in files if file.stem[-1].isdigit()}

    def belongs_to_another(stem: str) -> bool:
        return any(
            stem[: cut.start()] in stems and re.search(r"[^\W\d_]|\(", stem[cut.start() :])
            for cut in re.finditer(r"[ _.(-]", stem)
        )

    kept = [file for file in files if not belongs_to_another(file.stem)]
    left_out[COMPANION] += len(files) - len(kept)
    return kept


def _named_alike(files: list[Path], left_out: Counter[str]) -> list[Path]:
    """Without background.png among frame1.png, frame2.png, …; all where no way of naming prevails."""
    groups: dict[tuple[str, ...], list[Path]] = {}
    for file in files:
        groups.setdefault(tuple(_parts(file)[::2]), []).append(file)
    largest = max(groups.values(), key=len)
    rest = [file for group in groups.values() if group is not largest for file in group]
    if len(largest) < 2 or len(_parts(largest[0])) < 2:
        return files
    numberless = all(len(_parts(file)) < 2 for file in rest)
    if len(largest) >= _MOSTLY * len(files) or (numberless and len(largest) > len(rest)):
        left_out[UNLIKE] += len(rest)
        return largest
    return files


def _numbers(files: list[Path]) -> tuple[Array | None, str]:
    """(n,) int64 frame numbers in the order of `files`, or None; and why they are not clear."""
    parts = [_parts(file) for file in files]
    if len({tuple(part[::2]) for part in parts}) > 1 or len(parts[0]) < 2:
        return None, ""
    runs = list(zip(*(part[1::2] for part in parts), strict=True))  # a tuple of digits for every place
    varying = [run for run in runs if len(set(map(int, run))) > 1] or (runs if len(runs) == 1 else [])
    if not varying:
        return None, ""
    if any(len(digits) > _DIGITS for run in varying for digits in run):
        return None, "their numbers have more than 64 bits"
    columns = [np.array(list(map(int, run)), np.int64) for run in varying]
    if len(columns) == 1:  # whose duplicates the caller refuses
        width = {0: 0}
    else:
        width = {i: max(map(len, varying[i])) for i, x in enumerate(columns) if len(np.unique(x)) == len(x)}
    if not width:
        return None, "no number in their names tells them apart"
    # Counters are padded, and come last; parts of a date are short, and seconds since 1970 large.
    chosen = columns[max(width, key=lambda i: (columns[i].max() < _CLOCK, width[i], i))]
    if any((np.argsort(columns[i]) != np.argsort(chosen)).any() for i in width if len(width) > 1):
        return None, "their names hold several numbers that may be the frame's"
    if np.ptp(chosen) > max(_CLOCK_SPAN, _CLOCK_STEP * len(files)):
        return None, "the numbers in their names lie too far apart for frames"
    return chosen, ""


def _parts(file: Path) -> list[str]:
    """The name without its end, cut into other signs (even places) and digits (odd places)."""
    return re.split(r"([0-9]+)", file.stem)


def first_number(frames: Numbered, named: Array, *, results: Path, folder: Path) -> int:
    """Which number `results` give to the frame 0 of `frames`: 1 as in MOTChallenge, or 0.

    Args:
        frames: the frames of `folder`.
        named: (k,) int64, frame numbers as the results have them, none below 0.
        results, folder: for messages.

    Raises:
        ValueError: results and names do not meet, or do so in two ways.
    """
    low, high = int(named.min()), int(named.max())
    if frames.number is None:
        if low == 0:
            raise Refusal(
                f"{results} counts frames from 0, and the images in {folder} have no frame numbers: "
                "MOTChallenge frames count from 1, add 1 to every frame"
            )
        if frames.unclear and high > len(frames.files):
            raise Refusal(
                f"{results} names frames {low} to {high}, but which image in {folder} is which frame is "
                f"unclear: {frames.unclear}; rename them as in 000001.jpg"
            )
        return 1
    first, last = int(frames.number[0]), int(frames.number[-1])
    have = f"{results} names frames {low} to {high}, the images in {folder} are {first} to {last}"
    if first == 0:
        if low == 0:
            return 0
        if high == last + 1:
            return 1
        raise Refusal(
            f"{have}: whether the results count from 0 or from 1 cannot be told; name the images from 1 on, "
            "as the results count"
        )
    if low == 0:
        raise Refusal(f"{have}: MOTChallenge frames count from 1, add 1 to every frame of the results")
    paired = np.isin(named, frames.number)
    by_place = high <= len(frames.files) and not np.array_equal(frames.number[:high], np.arange(1, high + 1))
    if not paired.any():
        raise Refusal(f"{have}, and none is in both: give results and images the same frame numbers")
    if by_place and not paired.all():
        raise Refusal(
            f"{have}: whether the results count the images or mean the numbers in their names cannot be "
            "told; give both the same numbers"
        )
    return 1
