"""Image sets: Market-1501, DukeMTMC-reID (names of the same kind) and MSMT17 (lists)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tracklearn.store.benchmarks.parts import Benchmark, Part, by_person_and_camera, items, locate
from tracklearn.store.picture.images import ImageFiles
from tracklearn.store.picture.listing import (
    MAX_CAMID,
    MAX_NUMBER,
    OVERLONG,
    SEQUENCE,
    list_folder,
    read_number,
)
from tracklearn.store.skipped import skip
from tracklearn.store.text import read_lines
from tracklearn.types import Array, Refusal, Truth

MARKET = {
    "train_ids": 751,
    "train_images": 12_936,
    "query": 3_368,
    "query_ids": 750,
    "gallery": 15_913,
    "cameras": 6,
}
DUKE = {
    "train_ids": 702,
    "train_images": 16_522,
    "query": 2_228,
    "query_ids": 702,
    "gallery": 17_661,
    "cameras": 8,
}
MSMT17 = {
    "train_ids": 1_041,
    "train_images": 32_621,
    "query": 11_659,
    "query_ids": 3_060,
    "gallery": 82_161,
    "cameras": 15,
}
DUKE_NOTICE = (
    "DukeMTMC-reID was withdrawn by its authors in 2019 over the privacy of the people in it, who had not "
    "agreed to being filmed. Tracklearn does not download it; this reader is for those who hold it lawfully."
)

_OTHER_NAME = "the name is of another kind"
_MAX_LABEL = 2**31 - 1  # of a list: labels of two lists are counted on from one another
_MARKET_NAME = re.compile(r"(?P<pid>-?\d+)_c(?P<cam>\d+)s(?P<sequence>\d+)_(?P<frame>\d+)_")
_DUKE_NAME = re.compile(r"(?P<pid>\d+)_c(?P<cam>\d+)_f(?P<frame>\d+)")
_MSMT_NAME = re.compile(r"\d+_(?P<index>\d+)_(?P<cam>\d+)_(?P<day>\d+)(?P<part>[a-z]+)_(?P<frame>\d+)")
_PARTS_OF_DAY = {"morning": 0, "noon": 1, "afternoon": 2}


@dataclass(frozen=True)
class _Image:
    path: str
    pid: int
    cam: int
    when: tuple[int, ...]  # sorts images of one camera in time
    frame: int


def read_market(root: Path) -> Benchmark:
    """Market-1501 (Zheng et al., ICCV 2015): junk is dropped, distractors (pid 0) stay in the gallery."""

    def parse(name: str) -> _Image | str:
        match = _MARKET_NAME.match(name)
        if match is None:
            return _OTHER_NAME
        pid, cam, sequence, frame = (read_number(match[key]) for key in ("pid", "cam", "sequence", "frame"))
        return _image(name, pid, cam, sequence * SEQUENCE + frame)

    return _read_folders(root, "market1501", "Market-1501", ("Market-1501-v15.09.15",), parse, MARKET)


def read_duke(root: Path) -> Benchmark:
    """DukeMTMC-reID (Zheng et al., ICCV 2017; Ristani et al., 2016), for those who hold it lawfully."""

    def parse(name: str) -> _Image | str:
        match = _DUKE_NAME.match(name)
        if match is None:
            return _OTHER_NAME
        return _image(name, *(read_number(match[key]) for key in ("pid", "cam", "frame")))

    nested = ("DukeMTMC-reID",)
    return _read_folders(root, "dukemtmc", "DukeMTMC-reID", nested, parse, DUKE, notes=(DUKE_NOTICE,))


def _image(name: str, pid: int, cam: int, frame: int) -> _Image | str:
    """The image of that name, or why it is left out."""
    if max(pid, frame) > MAX_NUMBER or cam > MAX_CAMID:
        return OVERLONG
    return _Image(name, pid, cam, (frame,), frame)


def _read_folders(
    root: Path,
    name: str,
    title: str,
    nested: tuple[str, ...],
    parse: Callable[[str], _Image | str],
    published: dict[str, int],
    notes: tuple[str, ...] = (),
) -> Benchmark:
    folders = ("bounding_box_train", "query", "bounding_box_test")
    folder = locate(root, title, folders, nested)
    parts: list[list[_Image]] = []
    left_out: dict[str, int] = {}
    others: dict[str, int] = {}
    for place in folders:
        found: list[_Image] = []
        listing = list_folder(folder / place)
        for reason, n in listing.left_out.items():
            others[f"{place}: {reason}"] = n
        for file in sorted(path.name for path in listing.images):
            image = parse(file)
            if isinstance(image, str) or image.pid < 0:
                reason = f"{place}: " + (image if isinstance(image, str) else "junk, person −1")
                left_out[reason] = left_out.get(reason, 0) + 1
            else:
                found.append(_Image(f"{place}/{file}", image.pid, image.cam, image.when, image.frame))
        if not found:
            raise FileNotFoundError(
                f"only a part of {title} is in {folder}: {place} holds none of its images"
            )
        parts.append(found)
    return _benchmark(
        name,
        title,
        folder,
        *parts,
        published=published,
        notes=notes,
        skipped=(
            *(skip("images", reason, n) for reason, n in left_out.items()),
            *(skip("files", reason, n) for reason, n in others.items()),
        ),
    )


def read_msmt17(root: Path) -> Benchmark:
    """MSMT17 (Wei et al., CVPR 2018), version 1 or 2: training is train and val, as in the papers.

    The lists label the training's people and the test's from 0 each, though they are different people: here
    the training's count from 1 and the test's go on behind them.
    """
    lists = ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt")
    folder = locate(root, "MSMT17", lists, ("MSMT17_V2", "MSMT17_V1", "MSMT17"))
    pairs = (("mask_train_v2", "mask_test_v2"), ("train", "test"))
    masked = next((pair for pair in pairs if all((folder / name).is_dir() for name in pair)), None)
    if masked is None:
        raise FileNotFoundError(
            f"only a part of MSMT17 is in {folder}: the folders train and test (version 1) or mask_train_v2 "
            "and mask_test_v2 (version 2) are missing"
        )
    train, validate = (_read_list(folder / name, masked[0], 1) for name in lists[:2])
    behind = 1 + max(image.pid for image in train + validate)
    query, gallery = (_read_list(folder / name, masked[1], behind) for name in lists[2:])
    version = 2 if masked == pairs[0] else 1
    return _benchmark(
        "msmt17",
        "MSMT17",
        folder,
        train + validate,
        query,
        gallery,
        published=MSMT17,
        notes=(f"version {version}", "training is list_train.txt and list_val.txt together"),
    )


def _read_list(file: Path, folder: str, first: int) -> list[_Image]:
    """The images of a list; label 0 is person `first`."""
    found = []
    for place, line in enumerate(map(str.strip, read_lines(file)), 1):
        if not line:
            continue
        path, _, label = line.rpartition(" ")
        match = _MSMT_NAME.match(path.rpartition("/")[2])
        if match is None or not label.isdecimal():
            raise Refusal(
                f"{file}, line {place}: {line[:80]!r} is not of the form "
                "PPPP/PPPP_III_CC_MMDDpart_FFFF_B.jpg LABEL"
            )
        pid, cam = read_number(label), read_number(match["cam"])
        if pid > _MAX_LABEL or cam > MAX_CAMID:
            raise Refusal(
                f"{file}, line {place}: the label or the camera is too high: "
                f"expected 0..{_MAX_LABEL} and 0..{MAX_CAMID}"
            )
        part = _PARTS_OF_DAY.get(match["part"], len(_PARTS_OF_DAY))
        when = (read_number(match["day"]), part, read_number(match["frame"]), read_number(match["index"]))
        found.append(_Image(f"{folder}/{path}", first + pid, cam, when, -1))
    if not found:
        raise Refusal(f"{file} is empty")
    return found


def _benchmark(
    name: str,
    title: str,
    folder: Path,
    train: list[_Image],
    query: list[_Image],
    gallery: list[_Image],
    *,
    published: dict[str, int],
    notes: tuple[str, ...] = (),
    skipped: tuple[dict[str, object], ...] = (),
) -> Benchmark:
    numbers = sorted({image.cam for image in [*train, *query, *gallery]})
    cameras = tuple(f"c{number}" for number in numbers)
    train = [image for image in train if image.pid > 0]

    def columns(images: list[_Image]) -> tuple[Array, Array, Array]:
        pid = np.array([image.pid for image in images], np.int64)
        camid = np.searchsorted(numbers, [image.cam for image in images])
        frame = np.array([image.frame for image in images], np.int64)
        if (frame < 0).any():  # the name has a time of day, no count of frames: the place in time instead
            order = sorted(range(len(images)), key=lambda i: images[i].when)
            frame[order] = np.arange(len(images))
        return pid, camid, frame

    def part(images: list[_Image], grouped: bool) -> Part:
        pid, camid, frame = columns(images)
        if grouped:
            tracklets = by_person_and_camera(pid, camid, frame)
        else:
            tracklets = items(np.arange(len(images)), camid, frame=frame)
        paths = [image.path for image in images]
        return Part(tracklets, Truth(pid), cameras, lambda: ImageFiles(folder, paths))

    n_query = len(query)
    return Benchmark(
        name=name,
        title=title,
        root=folder,
        train=part(train, grouped=True),
        test=part(query + gallery, grouped=False),
        query=np.arange(n_query),
        gallery=np.arange(n_query, n_query + len(gallery)),
        grouped_by_labels=True,
        published=published,
        notes=("training tracklets are formed by (person, camera), which uses labels", *notes),
        skipped=skipped,
    )
