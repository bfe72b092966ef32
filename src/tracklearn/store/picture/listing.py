"""What lies in a folder of pictures: the images in natural order, and what is no image, counted by reason."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})

MAX_CAMID = 9999
MAX_NUMBER = 2**63 - 1  # what tables of 64-bit numbers hold
SEQUENCE = 10**6  # Market-1501's frame numbers have six digits and start again in every sequence
OVERLONG = "its number of the person, camera or frame is too high"
HIDDEN = "hidden: the name begins with a dot"
OTHER = "not an image by the end of its name"


@dataclass(frozen=True)
class Listing:
    """A folder, one level of it.

    Args:
        images: files with an image's name, in natural order; a link that leads nowhere is among them, since
            whoever put it there meant an image.
        folders: sub-folders, in natural order, but for hidden ones.
        left_out: reason -> number of files, those in hidden sub-folders included.
    """

    images: list[Path]
    folders: list[Path]
    left_out: Counter[str]


def list_folder(folder: Path) -> Listing:
    """What lies directly in `folder`; only names are read.

    Raises:
        OSError: the folder cannot be read.
    """
    images, folders, left_out = [], [], Counter[str]()
    with os.scandir(folder) as entries:
        for entry in entries:
            path = folder / entry.name
            # Asked differently, a link that leads to itself raises.
            if os.path.isdir(path) if entry.is_symlink() else entry.is_dir():
                if entry.name.startswith("."):
                    left_out[HIDDEN] += count_files(path)
                else:
                    folders.append(path)
            elif entry.name.startswith("."):
                left_out[HIDDEN] += 1
            elif path.suffix.lower() in IMAGE_SUFFIXES:
                images.append(path)
            else:
                left_out[OTHER] += 1
    images.sort(key=lambda path: natural_key(path.name))
    folders.sort(key=lambda path: natural_key(path.name))
    return Listing(images, folders, +left_out)


def count_files(folder: Path) -> int:
    """Number of files below `folder`, at any depth; links to folders are not followed."""
    return sum(len(files) for _, _, files in os.walk(folder))


def read_number(digits: str) -> int:
    """The number that digits out of a name or a text write; of more digits `MAX_NUMBER` + 1.

    `int` refuses thousands of digits with words that only its programmer understands.

    >>> read_number("0042"), read_number("9" * 5000) > MAX_NUMBER
    (42, True)
    """
    body = digits.lstrip("-0") or "0"
    value = int(body) if len(body) < 20 else MAX_NUMBER + 1
    return -value if digits.startswith("-") else value


def natural_key(name: str) -> tuple[Any, ...]:
    """Sort key under which img2 comes before img10: runs of digits count as numbers, before letters.

    >>> sorted(["img10.jpg", "img2.jpg"], key=natural_key)
    ['img2.jpg', 'img10.jpg']
    """
    parts = re.split(r"(\d+)", name)
    return tuple((int(x), "") if i % 2 else (-1, x) for i, x in enumerate(parts)), name
