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
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tracklearn.store.picture import pictures
from tracklearn.store.picture.crops import encode_jpeg
from tracklearn.store.picture.jpeg import stripped
from tracklearn.store.picture.listing import (
    MAX_CAMID,
    MAX_NUMBER,
    OVERLONG,
    SEQUENCE,
    count_files,
    list_folder,
    read_number,
)
from tracklearn.store.skipped import skip
from tracklearn.types import Array, Refusal

_MARKET = re.compile(r"(-?\d+)_c(\d+)s(\d+)_(\d+)_(\d+)")


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
        n_found: number of files below the folder, at any depth: those of the tracklets, and those in
            `skipped`, where sub-folders without images are entries of their own.
    """

    kind: str
    tracklets: list[FolderTracklet]
    skipped: list[dict[str, Any]] = field(default_factory=list)
    n_found: int = 0

    @property
    def labelled(self) -> bool:
        """Whether tracklets were formed by labels."""
        return self.kind == "market"

    @property
    def n_files(self) -> int:
        """Number of images in all tracklets."""
        return sum(len(t.files) for t in self.tracklets)


def is_market(path: Path) -> bool:
    """Whether images directly in folder `path` are named as in Market-1501."""
    try:
        return any(_MARKET.match(file.name) for file in list_folder(path).images)
    except PermissionError:
        return False  # `scan_folder` says so


def scan_folder(path: str | Path) -> FolderPlan:
    """The tracklets that folder `path` holds; only names are read, no image.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no images in it, or loose images whose names do not say what they are.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"no such folder: {path}")
    listing = list_folder(path)
    loose, left_out = listing.images, listing.left_out
    if any(_MARKET.match(file.name) for file in loose):
        if deeper := sum(map(count_files, listing.folders)):
            left_out["in a sub-folder of a folder with Market-1501 names"] = deeper
        return _market(loose, left_out)
    tracklets, skipped = [], []
    for folder in listing.folders:
        try:
            inside = list_folder(folder)
        except PermissionError:
            skipped.append(skip(folder.name, "a sub-folder that may not be read"))
            continue
        left_out += inside.left_out
        left_out["nested deeper than FOLDER/TRACKLET/IMAGE"] += sum(map(count_files, inside.folders))
        if inside.images:
            tracklets.append(FolderTracklet(folder.name, "", -1, inside.images, range(len(inside.images))))
        else:
            skipped.append(skip(folder.name, "a sub-folder without images"))
    if not tracklets and loose:
        raise Refusal(
            f"folder {path} holds {len(loose)} loose images: frames of a video are given as video:{path} or "
            f"RESULTS.txt+{path}, crops need one sub-folder per tracklet or Market-1501 names"
        )
    if not tracklets:
        raise Refusal(
            f"no images in folder {path}: expected one sub-folder of crops per tracklet (videos are named "
            "one by one)"
        )
    if loose:
        skipped.append(skip("loose images", "they lie outside the sub-folders of tracklets", len(loose)))
    skipped += _counted("files", left_out)
    n_found = sum(len(t.files) for t in tracklets) + len(loose) + left_out.total()
    return FolderPlan("folders", tracklets, skipped, n_found)


def _counted(item: str, left_out: Counter[str]) -> list[dict[str, Any]]:
    return [skip(item, reason, n) for reason, n in left_out.items() if n]


def _market(files: Sequence[Path], others: Counter[str]) -> FolderPlan:
    groups: dict[tuple[int, int], list[tuple[int, int, Path]]] = {}
    left_out = Counter[str]()
    for file in files:
        match = _MARKET.match(file.name)
        if match is None:
            left_out["name unlike PPPP_cCsS_FFFFFF_BB"] += 1
            continue
        pid, camera, sequence, frame, box = map(read_number, match.groups())
        frame += sequence * SEQUENCE
        if max(pid, frame) > MAX_NUMBER or camera > MAX_CAMID:
            left_out[OVERLONG] += 1
            continue
        if pid <= 0:
            left_out["person −1: junk" if pid < 0 else "person 0: distractors, not one person"] += 1
            continue
        groups.setdefault((pid, camera), []).append((frame, box, file))
    tracklets = []
    for (pid, camera), rows in sorted(groups.items()):
        rows.sort(key=lambda row: (row[0], row[1], row[2].name))
        name = f"person {pid}, camera {camera}"
        tracklets.append(
            FolderTracklet(name, f"c{camera}", pid, [row[2] for row in rows], [row[0] for row in rows])
        )
    skipped = _counted("images", left_out) + _counted("files", others)
    return FolderPlan("market", tracklets, skipped, len(files) + others.total())


def read_crop(path: Path, *, quality: int, series: pictures.Series | None = None) -> tuple[bytes, int, int]:
    """JPEG bytes, height and width of an image file.

    The compressed picture of a JPEG file is handed on as it is, without what else the file tells
    (`jpeg.stripped`); one that such a note turned, and other formats, are encoded with `quality`.

    Args:
        path: the file.
        quality: of JPEG, 1-100.
        series: of the pictures that it belongs to.

    Raises:
        BrokenPicture: it cannot be decoded, or its file not be read.
        FileNotFoundError: it is not there.
    """
    data = pictures.load(path)
    image = pictures.decode(data) if series is None else series.decode(data)
    jpeg = stripped(data) if data[:2] == b"\xff\xd8" else b""
    if not jpeg or (jpeg is not data and not _shows(jpeg, image)):
        jpeg = encode_jpeg(image, quality=quality)
    return jpeg, image.shape[0], image.shape[1]


def _shows(jpeg: bytes, image: Array) -> bool:
    """Whether these bytes decode to `image`."""
    try:
        return np.array_equal(pictures.decode(jpeg), image)
    except pictures.BrokenPicture:
        return False
