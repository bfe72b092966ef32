"""Folders of crops as tracklets.

Two layouts are known, told apart by what lies directly in the folder:

    FOLDER/PPPP_cCsS_FFFFFF_BB.jpg   names as in Market-1501 (Zheng et al., ICCV 2015): person, camera,
                                     sequence, frame, box. A tracklet is one person in one camera, in the
                                     order of (sequence, frame, box); the camera is cC.
    FOLDER/NAME/*.jpg                every sub-folder is a tracklet, its images in natural order.

The first layout groups by labels. They form the tracklets and go to the truth file, nowhere else; the
manifest says so. Person −1 (junk) and 0 (distractors: not one person) make no tracklet: they are skipped and
counted. A folder with loose images of other names is refused: they may be frames of a video as well as crops.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tracklearn.store.crops import decode_image, encode_jpeg
from tracklearn.store.video import IMAGE_SUFFIXES, natural_key

_MARKET = re.compile(r"(-?\d+)_c(\d+)s(\d+)_(\d+)_(\d+)")
_SEQUENCE = 10**6  # Market-1501's frame numbers have six digits and start again in every sequence
MAX_LISTED = 100


@dataclass(frozen=True)
class FolderTracklet:
    """One tracklet to be: its images in order.

    Args:
        name: what it is called in messages.
        camera: name of its camera; "" for the camera of the source.
        pid: the person, −1 where nobody says.
        files: image files.
        frame: frame number of each, non-decreasing.
    """

    name: str
    camera: str
    pid: int
    files: Sequence[Path]
    frame: Sequence[int]


@dataclass(frozen=True)
class FolderPlan:
    """What a folder of crops holds.

    Args:
        kind: "market" or "folders".
        tracklets: in the order of names.
        skipped: what was left out: item, reason, n.
    """

    kind: str
    tracklets: list[FolderTracklet]
    skipped: list[dict[str, Any]] = field(default_factory=list)

    @property
    def labelled(self) -> bool:
        """Whether tracklets were formed by labels."""
        return self.kind == "market"

    @property
    def n_files(self) -> int:
        """Number of images in all tracklets."""
        return sum(len(t.files) for t in self.tracklets)


def readable(name: str) -> str:
    """`name` with "?" for what is not UTF-8: file names may be any bytes, manifests and tables may not.

    >>> readable("caf\\udce9.mp4")
    'caf?.mp4'
    """
    return name.encode("utf-8", "replace").decode()


def skip(item: str, reason: str, n: int = 1) -> dict[str, Any]:
    """One entry of a list of skipped things."""
    return {"item": readable(item), "reason": reason, "n": n}


def is_market(path: Path) -> bool:
    """Whether images directly in folder `path` are named as in Market-1501."""
    return any(_MARKET.match(file.name) for file in _images(path))


def scan_folder(path: str | Path) -> FolderPlan:
    """The tracklets that folder `path` holds; only names are read, no image.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no images in it, or loose images whose names do not say what they are.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"no such folder: {path}")
    loose = _images(path)
    if any(_MARKET.match(file.name) for file in loose):
        return _market(loose)
    tracklets, skipped = [], []
    for folder in sorted((f for f in path.iterdir() if f.is_dir()), key=lambda f: natural_key(f.name)):
        if folder.name.startswith("."):
            continue
        files = _images(folder)
        if files:
            tracklets.append(FolderTracklet(folder.name, "", -1, files, range(len(files))))
        else:
            skipped.append(skip(folder.name, "a sub-folder without images"))
    if not tracklets and loose:
        raise ValueError(
            f"folder {path} holds {len(loose)} loose images: frames of a video are given as video:{path} or "
            f"RESULTS.txt+{path}, crops need one sub-folder per tracklet or Market-1501 names"
        )
    if not tracklets:
        raise ValueError(f"no images in folder {path}: expected one sub-folder of crops per tracklet")
    if loose:
        skipped.append(skip("loose images", "they lie outside the sub-folders of tracklets", len(loose)))
    return FolderPlan("folders", tracklets, shorten(skipped))


def _market(files: Sequence[Path]) -> FolderPlan:
    groups: dict[tuple[int, int], list[tuple[int, int, Path]]] = {}
    left_out: dict[str, int] = {}
    for file in files:
        match = _MARKET.match(file.name)
        if match is None:
            reason = "name unlike PPPP_cCsS_FFFFFF_BB"
            left_out[reason] = left_out.get(reason, 0) + 1
            continue
        pid, camera, sequence, frame, box = (int(group) for group in match.groups())
        if pid <= 0:
            reason = "person −1: junk" if pid < 0 else "person 0: distractors, not one person"
            left_out[reason] = left_out.get(reason, 0) + 1
            continue
        groups.setdefault((pid, camera), []).append((sequence * _SEQUENCE + frame, box, file))
    tracklets = []
    for (pid, camera), rows in sorted(groups.items()):
        rows.sort(key=lambda row: (row[0], row[1], row[2].name))
        name = f"person {pid}, camera {camera}"
        tracklets.append(
            FolderTracklet(name, f"c{camera}", pid, [row[2] for row in rows], [row[0] for row in rows])
        )
    return FolderPlan("market", tracklets, [skip("images", reason, n) for reason, n in left_out.items()])


def _images(folder: Path) -> list[Path]:
    files = [f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".")]
    return sorted((f for f in files if f.is_file()), key=lambda f: natural_key(f.name))


def shorten(skipped: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first `MAX_LISTED` entries, and the rest as one per reason."""
    rest: dict[str, int] = {}
    for entry in skipped[MAX_LISTED:]:
        rest[entry["reason"]] = rest.get(entry["reason"], 0) + entry["n"]
    return skipped[:MAX_LISTED] + [skip("more", reason, n) for reason, n in rest.items()]


def read_crop(path: Path, *, quality: int) -> tuple[bytes, int, int] | None:
    """JPEG bytes, height and width of an image file; None where it cannot be decoded.

    A JPEG file's bytes are handed on as they are; other formats are encoded with `quality`.
    """
    data = path.read_bytes()
    image = decode_image(data)
    if image is None:
        return None
    jpeg = data if data[:2] == b"\xff\xd8" else encode_jpeg(image, quality=quality)
    return jpeg, image.shape[0], image.shape[1]
