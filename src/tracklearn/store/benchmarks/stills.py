"""Image sets: Market-1501, DukeMTMC-reID (names of the same kind) and MSMT17 (lists)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tracklearn.store.benchmarks.parts import (
    GROUPED_NOTE,
    Benchmark,
    Part,
    by_person_and_camera,
    items,
    locate,
    no_part,
)
from tracklearn.store.picture.images import ImageFiles
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

_PLACES = ("bounding_box_train", "query", "bounding_box_test")
_OTHER_NAME = "the name is of another kind"
_DEEPER = "in a folder below"
_MAX_LABEL = 2**31 - 1  # of a list: labels of two lists are counted on from one another
_MARKET_NAME = re.compile(r"(?P<pid>-?\d+)_c(?P<cam>\d+)s(?P<sequence>\d+)_(?P<frame>\d+)_")
_DUKE_NAME = re.compile(r"(?P<pid>\d+)_c(?P<cam>\d+)_f(?P<frame>\d+)")
_MSMT_NAME = re.compile(r"\d+_(?P<index>\d+)_(?P<cam>\d+)_(?P<day>\d+)(?P<part>[a-z]+)_(?P<frame>\d+)")
_PARTS_OF_DAY = {"morning": 0, "noon": 1, "afternoon": 2}


@dataclass(frozen=True)
class Still:
    """One image, as its name or a table has it.

    Args:
        path: below the data set's folder.
        pid: the person; negative for junk, 0 for a distractor.
        cam: number of the camera.
        when: sorts images of one camera in time.
        frame: its number, −1 where only `when` says it.
        line: of the table that names it.
    """

    path: str
    pid: int
    cam: int
    when: tuple[Any, ...]
    frame: int
    line: int = 0


def read_market(root: Path) -> Benchmark:
    """Market-1501 (Zheng et al., ICCV 2015): junk is dropped, distractors (pid 0) stay in the gallery."""

    def parse(name: str) -> Still | str:
        match = _MARKET_NAME.match(name)
        if match is None:
            return _OTHER_NAME
        pid, cam, sequence, frame = (read_number(match[key]) for key in ("pid", "cam", "sequence", "frame"))
        return _image(name, pid, cam, sequence * SEQUENCE + frame)

    folder = locate(root, "Market-1501", _PLACES[1:], ("Market-1501-v15.09.15",))
    return read_places(folder, _PLACES, parse, name="market1501", title="Market-1501", published=MARKET)


def read_duke(root: Path) -> Benchmark:
    """DukeMTMC-reID (Zheng et al., ICCV 2017; Ristani et al., 2016), for those who hold it lawfully."""

    def parse(name: str) -> Still | str:
        match = _DUKE_NAME.match(name)
        if match is None:
            return _OTHER_NAME
        return _image(name, *(read_number(match[key]) for key in ("pid", "cam", "frame")))

    folder = locate(root, "DukeMTMC-reID", _PLACES[1:], ("DukeMTMC-reID",))
    made = read_places(folder, _PLACES, parse, name="dukemtmc", title="DukeMTMC-reID", published=DUKE)
    return replace(made, notes=(*made.notes, DUKE_NOTICE))


def _image(name: str, pid: int, cam: int, frame: int) -> Still | str:
    """The image of that name, or why it is left out."""
    if max(pid, frame) > MAX_NUMBER or cam > MAX_CAMID:
        return OVERLONG
    return Still(name, pid, cam, (frame,), frame)


def read_places(
    folder: Path,
    places: tuple[str, str, str],
    parse: Callable[[str], Still | str],
    *,
    name: str,
    title: str,
    published: Mapping[str, int],
) -> Benchmark:
    """A data set whose images lie in three folders by what they are for, and whose names say who is in them.

    Junk is left out; distractors stay in the gallery, but are not asked for.

    Args:
        folder: of the data set.
        places: folders in it, of training (need not be there), queries and gallery.
        parse: what a file's name says of the image, or why it is left out.
        name, title, published: as of `Benchmark`.

    Raises:
        FileNotFoundError: no query or no gallery.
    """
    parts: list[list[Still]] = []
    left_out: dict[str, int] = {}
    others: dict[str, int] = {}
    for place in places:
        found: list[Still] = []
        parts.append(found)
        if place == places[0] and not (folder / place).is_dir():
            continue
        listing = list_folder(folder / place)
        listing.left_out[_DEEPER] = sum(map(count_files, listing.folders))
        for reason, n in (+listing.left_out).items():
            others[f"{place}: {reason}"] = n
        for file in sorted(path.name for path in listing.images):
            image = parse(file)
            reason = image if isinstance(image, str) else _unfit(image, asked=place == places[1])
            if isinstance(image, str) or reason:
                left_out[f"{place}: {reason}"] = left_out.get(f"{place}: {reason}", 0) + 1
            else:
                found.append(replace(image, path=f"{place}/{file}"))
        if not found and place != places[0]:
            why = next((f" ({reason})" for reason in left_out if reason.startswith(f"{place}: ")), "")
            raise FileNotFoundError(
                f"only a part of {title} is in {folder}: {place} holds none of its images{why}"
            )
    train, query, gallery = parts
    return assemble(
        name,
        title,
        folder,
        train,
        [*query, *gallery],
        query=np.arange(len(query)),
        gallery=np.arange(len(query), len(query) + len(gallery)),
        published=published,
        skipped=(
            *(skip("images", reason, n) for reason, n in left_out.items()),
            *(skip("files", reason, n) for reason, n in others.items()),
        ),
        missing=() if train else (f"no training part: no image of it is in {places[0]}",),
    )


def _unfit(image: Still, *, asked: bool) -> str:
    """Why an image takes no part, "" where it does."""
    if image.pid < 0:
        return "junk, person −1"
    return "a distractor, person 0, cannot be asked for" if asked and not image.pid else ""


def read_msmt17(root: Path) -> Benchmark:
    """MSMT17 (Wei et al., CVPR 2018), version 1 or 2: training is train and val, as in the papers.

    The lists label the training's people and the test's from 0 each, though they are different people: here
    the training's count from 1 and the test's go on behind them.
    """
    learnt, asked = ("list_train.txt", "list_val.txt"), ("list_query.txt", "list_gallery.txt")
    folder = locate(root, "MSMT17", asked, ("MSMT17_V2", "MSMT17_V1", "MSMT17"))
    versions = {2: ("mask_train_v2", "mask_test_v2"), 1: ("train", "test")}
    there = {v: [(folder / name).is_dir() for name in pair] for v, pair in versions.items()}
    version = next((v for v in there if all(there[v])), next((v for v in there if there[v][1]), None))
    if version is None:
        raise FileNotFoundError(
            f"only a part of MSMT17 is in {folder}: the folder test (version 1) or mask_test_v2 (version 2) "
            "is missing"
        )
    lists = [name for name in learnt if (folder / name).exists()]
    train = [image for name in lists for image in _read_list(folder / name, versions[version][0], 1)]
    last = max((image.pid for image in train), default=0)
    # Without all of the training its people still have the numbers that a run's training set gave them.
    behind = 1 + (last if len(lists) == len(learnt) else max(last, MSMT17["train_ids"]))
    query, gallery = (_read_list(folder / name, versions[version][1], behind) for name in asked)
    notes = (f"version {version}",)
    return assemble(
        "msmt17",
        "MSMT17",
        folder,
        train,
        [*query, *gallery],
        query=np.arange(len(query)),
        gallery=np.arange(len(query), len(query) + len(gallery)),
        published=MSMT17,
        notes=(*notes, "training is list_train.txt and list_val.txt together") if train else notes,
        missing=tuple(f"of the training part {name} is not there" for name in learnt if name not in lists),
    )


def _read_list(file: Path, folder: str, first: int) -> list[Still]:
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
        found.append(Still(f"{folder}/{path}", first + pid, cam, when, -1))
    if not found:
        raise Refusal(f"{file} is empty")
    return found


def assemble(
    name: str,
    title: str,
    folder: Path,
    train: list[Still],
    test: list[Still],
    *,
    query: Array,
    gallery: Array,
    published: Mapping[str, int],
    cameras: Mapping[int, str] | None = None,
    table: str = "",
    notes: tuple[str, ...] = (),
    skipped: tuple[dict[str, object], ...] = (),
    missing: tuple[str, ...] = (),
) -> Benchmark:
    """A benchmark of single images, those of training grouped by person and camera.

    Args:
        name, title, published, notes, skipped, missing: as of `Benchmark`.
        folder: that paths are relative to.
        train, test: the images; there need be none to train on.
        query, gallery: which of `test`.
        cameras: their names by number, c1 for 1 by default.
        table: file that names the images, where one does.
    """
    train = [image for image in train if image.pid > 0]
    numbers = sorted({image.cam for image in [*train, *test]})
    names = tuple(f"c{number}" if cameras is None else cameras[number] for number in numbers)

    def columns(images: list[Still]) -> tuple[Array, Array, Array]:
        pid = np.array([image.pid for image in images], np.int64)
        camid = np.searchsorted(numbers, [image.cam for image in images])
        frame = np.array([image.frame for image in images], np.int64)
        if (frame < 0).any():  # there is a time of day, or an order, but no count of frames
            order = sorted(range(len(images)), key=lambda i: images[i].when)
            frame[order] = np.arange(len(images))
        return pid, camid, frame

    def part(images: list[Still], grouped: bool) -> Part:
        if not images:
            return no_part(names)
        pid, camid, frame = columns(images)
        if grouped:
            tracklets = by_person_and_camera(pid, camid, frame)
        else:
            tracklets = items(np.arange(len(images)), camid, frame=frame)
        paths = [image.path for image in images]
        line = [image.line for image in images]
        named = (lambda row: f"{table} line {line[row]}") if table else None
        return Part(tracklets, Truth(pid), names, lambda: ImageFiles(folder, paths), named)

    by_labels = (GROUPED_NOTE,) if train else ()
    return Benchmark(
        name=name,
        title=title,
        root=folder,
        train=part(train, grouped=True),
        test=part(test, grouped=False),
        query=query,
        gallery=gallery,
        grouped_by_labels=True,
        published=dict(published),
        notes=(*by_labels, *notes),
        skipped=skipped,
        missing=missing,
    )
