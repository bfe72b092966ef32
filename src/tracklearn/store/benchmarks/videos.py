"""Video sets: MARS from its tables, PRID 2011 and iLIDS-VID from their folders and splits."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tracklearn.store.benchmarks.parts import PROTOCOLS, Benchmark, Part, items, locate, no_part
from tracklearn.store.picture.images import ImageFiles
from tracklearn.store.picture.listing import (
    IMAGE_SUFFIXES,
    MAX_CAMID,
    MAX_NUMBER,
    OVERLONG,
    natural_key,
    read_number,
)
from tracklearn.store.skipped import skip
from tracklearn.store.text import read_lines
from tracklearn.types import Array, Refusal, Truth

N_SPLITS = 10
MARS = {
    "train_ids": 625,
    "train_pairs": 1_955,
    "train_tracklets": 8_298,
    "train_images": 509_914,
    "cameras": 6,
    "query": 1_980,
    "gallery": 9_330,
    "test_tracklets": 12_180,
    "test_images": 681_089,
    "junk": 870,
    "distractors": 3_248,
}
PRID = {"train_ids": 89, "train_tracklets": 178, "query": 89, "gallery": 89, "cameras": 2}
ILIDS = {"train_ids": 150, "train_tracklets": 300, "query": 150, "gallery": 150, "cameras": 2}
_PRID_SHARED = 200  # persons 1-200 are the same in both cameras, higher numbers are not
_PRID_FRAMES = 27  # persons with more frames than this in both cameras take part


def read_mars(root: Path) -> Benchmark:
    """MARS (Zheng et al., ECCV 2016), from tables alone; images are looked for when they are wanted.

    The order of the images is that of `info/train_name.txt` and `info/test_name.txt`, or, without these
    files, that of the names in the folders; names that contradict the tables are refused.
    """
    tables = ("tracks_test_info.mat", "query_IDX.mat")
    info = locate(root, "MARS", tables, ("info", "MARS-evaluation-master/info", "MARS/info", "mars/info"))
    folder = info.parent if info.name == "info" else info
    train_file = info / "tracks_train_info.mat"
    train, test = _mars_table(train_file) if train_file.exists() else None, _mars_table(info / tables[0])
    query = _whole(info / tables[1]).ravel() - 1
    if not len(query) or query.min() < 0 or query.max() >= len(test):
        raise Refusal(f"{info / tables[1]} names test tracklets that {tables[0]} does not have")
    n_cameras = max(int(table[:, 3].max()) for table in (train, test) if table is not None)
    cameras = tuple(f"c{i + 1}" for i in range(n_cameras))
    learnt = no_part(cameras)
    if train is not None:
        learnt = _mars_part(train, folder / "bbox_train", info / "train_name.txt", cameras)
    return Benchmark(
        name="mars",
        title="MARS",
        root=folder,
        train=learnt,
        test=_mars_part(test, folder / "bbox_test", info / "test_name.txt", cameras),
        query=query,
        gallery=np.arange(len(test)),
        protocols=PROTOCOLS,
        published=MARS,
        missing=() if train is not None else (f"no training part: {train_file.name} is not there",),
    )


# Reads the file named first and writes its one matrix to standard output, or says why not and ends with 3.
_READ_MAT = """
import io, sys, numpy
from scipy.io import loadmat
try:
    found = [value for name, value in loadmat(sys.argv[1]).items() if not name.startswith("__")]
    if len(found) != 1:
        raise ValueError(f"{len(found)} matrices, expected 1")
    if found[0].dtype.kind not in "iuf" or not numpy.isfinite(found[0]).all():
        raise ValueError("no matrix of real numbers")
    if (abs(found[0]) > 1 << 53).any():
        raise ValueError("numbers too large to count with")
except Exception as error:
    sys.exit((print(f"{type(error).__name__}: {error}", file=sys.stderr), 3)[1])
whole = io.BytesIO()  # numpy cannot write to a pipe
numpy.save(whole, found[0], allow_pickle=False)
sys.stdout.buffer.write(whole.getvalue())
"""


def _mat(file: Path) -> Array:
    """The one matrix of real numbers in a MATLAB file.

    scipy's reader crashes on some damaged files: it runs in a process of its own, which may.
    """
    with file.open("rb"):  # no such file, or no right to it: said as of any other
        pass
    child = subprocess.run([sys.executable, "-I", "-c", _READ_MAT, str(file)], capture_output=True)
    if child.returncode:
        said = child.stderr.decode(errors="replace").strip().splitlines() if child.returncode == 3 else []
        reason = said[-1][:120] if said else "the file is damaged"
        raise Refusal(f"{file} is not a MATLAB file that can be read ({reason}): fetch it again")
    return np.asarray(np.load(io.BytesIO(child.stdout), allow_pickle=False))


def _whole(file: Path) -> Array:
    """The one matrix of a MATLAB file, whose numbers are whole by contract, as int64."""
    table = _mat(file)
    fits = table.dtype.kind in "iuf" and table.size
    # MATLAB writes whole numbers as floats; from 2^31 on nothing here can be counted.
    if not fits or not (np.abs(table.astype(float)) < 2**31).all() or (table != np.rint(table)).any():
        raise Refusal(f"{file} does not hold whole numbers below 2^31 alone")
    return table.astype(np.int64)


def _mars_table(file: Path) -> Array:
    """(t, 4) int64: first row, end, person, camera; rows from 0, the end exclusive."""
    table = _whole(file)
    if table.ndim != 2 or table.shape[1] != 4:
        raise Refusal(f"{file} has shape {table.shape}, expected (tracklets, 4)")
    table[:, 0] -= 1
    if (table[1:, 0] != table[:-1, 1]).any() or table[0, 0] != 0 or (table[:, 1] <= table[:, 0]).any():
        raise Refusal(f"{file}: its tracklets do not follow one upon another")
    if table[:, 3].min() < 1 or table[:, 3].max() > MAX_CAMID:
        found = f"{table[:, 3].min()} to {table[:, 3].max()}"
        raise Refusal(f"{file}: cameras {found}, expected 1 to {MAX_CAMID}")
    return table


def _mars_part(table: Array, folder: Path, names: Path, cameras: tuple[str, ...]) -> Part:
    length = table[:, 1] - table[:, 0]
    tracklet = np.repeat(np.arange(len(table)), length)
    frame = np.arange(len(tracklet)) - table[tracklet, 0]
    truth = Truth(table[tracklet, 2])

    def find() -> ImageFiles:
        return _mars_images(table[tracklet], folder, names)

    return Part(items(tracklet, table[:, 3] - 1, frame=frame), truth, cameras, find)


def _mars_images(row: Array, folder: Path, list_file: Path) -> ImageFiles:
    """The image of each frame; `row` (n, 4) is the table's row of each.

    Where neither list nor folder is there, the images have numbers for names: tables can still be worked
    with, and whoever wants a picture is told that the folder is missing.
    """
    n = len(row)
    if list_file.is_file():
        names, origin = "".join(read_lines(list_file)).split(), str(list_file)
    elif folder.is_dir():
        inner = [f.path for f in os.scandir(folder) if f.is_dir()]
        names = sorted(name for path in inner for name in os.listdir(path) if name.endswith(".jpg"))
        origin = f"{folder} (without {list_file.name}, which gives their order)"
    else:
        return ImageFiles(folder, pa.array([f"{i:06d}.jpg" for i in range(n)], pa.string()))
    if len(names) != n:
        raise Refusal(f"{origin} names {len(names)} images, but the tables speak of {n}")
    name = pa.array(names, pa.string())
    found = pc.extract_regex(name, r"^(?P<pid>00-1|\d{4})C(?P<cam>\d)T\d+F\d+\.jpg$")
    pid = pc.replace_substring(pc.struct_field(found, "pid"), "00-1", "-1").cast(pa.int64())
    camera = pc.struct_field(found, "cam").cast(pa.int64())
    right = pc.and_(pc.equal(pid, pa.array(row[:, 2])), pc.equal(camera, pa.array(row[:, 3])))
    wrong = np.flatnonzero(~right.fill_null(False).to_numpy(zero_copy_only=False))
    if len(wrong):
        i = int(wrong[0])
        raise Refusal(
            f"{origin}: image {i + 1} is {names[i]!r}, but the tables have person {row[i, 2]} in camera "
            f"{row[i, 3]} there"
        )
    return ImageFiles(folder, pc.binary_join_element_wise(pc.utf8_slice_codeunits(name, 0, 4), name, "/"))


def read_prid(root: Path, *, split: int, splits: Path | None) -> Benchmark:
    """PRID 2011 (Hirzer et al., SCIA 2011): query camera A, gallery camera B, multi-shot.

    Source: Wang et al., "Person Re-Identification by Video Ranking", ECCV 2014 (178 persons, ten splits).
    """
    folder = locate(root, "PRID 2011", ("cam_a", "cam_b"), ("multi_shot", "prid_2011/multi_shot"))

    def eligible(files: dict[str, tuple[list[str], list[str]]]) -> list[str]:
        return [name for name, both in files.items() if min(map(len, both)) > _PRID_FRAMES]

    return _read_two_cameras(
        "prid2011",
        "PRID 2011",
        Path(root),
        folder,
        ("cam_a", "cam_b"),
        split=split,
        splits=splits,
        last=_PRID_SHARED,
        defaults=("splits.json", "splits_prid2011.json"),
        eligible=eligible,
        published=PRID,
    )


def read_ilids(root: Path, *, split: int, splits: Path | None) -> Benchmark:
    """iLIDS-VID (Wang et al., ECCV 2014): query camera 1, gallery camera 2.

    In the authors' split file the first half of each row is for the test.
    """
    nested = ("sequences", "i-LIDS-VID/sequences")
    folder = locate(root, "iLIDS-VID", ("cam1", "cam2"), nested)
    return _read_two_cameras(
        "ilidsvid",
        "iLIDS-VID",
        Path(root),
        folder,
        ("cam1", "cam2"),
        split=split,
        splits=splits,
        defaults=("splits.json", "train-test people splits/train_test_splits_ilidsvid.mat"),
        eligible=list,
        published=ILIDS,
    )


def _read_two_cameras(
    name: str,
    title: str,
    root: Path,
    folder: Path,
    cameras: tuple[str, str],
    *,
    split: int,
    splits: Path | None,
    defaults: Sequence[str],
    eligible: Callable[[dict[str, tuple[list[str], list[str]]]], list[str]],
    published: dict[str, int],
    last: int | None = None,
) -> Benchmark:
    """The split of a set of two cameras; persons of higher numbers than `last` are not the same in both."""
    overlong: set[str] = set()
    both = [_persons(folder / camera, overlong) for camera in cameras]
    shared = [person for person in both[0] if last is None or _number(person) <= last]
    files = {person: (both[0][person], both[1][person]) for person in shared if person in both[1]}
    if not files:
        raise FileNotFoundError(f"only a part of {title} is in {folder}: no person is in both cameras")
    if splits is not None and not splits.is_file():
        raise FileNotFoundError(f"no such file: {splits}")
    places = [place / default for default in defaults for place in (root, folder.parent, folder)]
    file = splits or next((place for place in places if place.is_file()), None)
    if file is None:
        chosen = _draw_splits(sorted(eligible(files), key=natural_key))
        note = f"ten random splits drawn with seed 0: no {defaults[0]} in {root}, so not the published ones"
    else:
        chosen, note = _read_splits(file, list(files)), f"splits of {file.name}"
    if not 0 <= split < len(chosen):
        raise Refusal(f"split {split} does not exist: {title} has splits 0 to {len(chosen) - 1}")
    train, test = chosen[split]
    absent = [person for person in train + test if person not in files]
    pid = {person: _number(person) for person in files}

    def part(people: list[str]) -> Part:
        people = [person for person in people if person in files]
        paths = [
            [f"{camera}/{person}/{file}" for file in files[person][camid]]
            for camid, camera in enumerate(cameras)
            for person in people
        ]
        length = np.array([len(own) for own in paths], np.int64)
        tracklet = np.repeat(np.arange(len(paths)), length)
        frame = np.arange(len(tracklet)) - (np.cumsum(length) - length)[tracklet]
        who = np.array([pid[person] for person in people] * 2, np.int64)
        tracklets = items(tracklet, np.repeat([0, 1], len(people)), frame=frame)
        flat = [path for own in paths for path in own]
        return Part(tracklets, Truth(who[tracklet]), cameras, lambda: ImageFiles(folder, flat))

    tested = part(test)
    n = len(tested.tracklets) // 2
    return Benchmark(
        name=name,
        title=title,
        root=folder,
        train=part(train),
        test=tested,
        query=np.arange(n),
        gallery=np.arange(n, 2 * n),
        published=published,
        split=split,
        n_splits=len(chosen),
        notes=(note,),
        skipped=(skip("persons", OVERLONG, len(overlong)),) if overlong else (),
        missing=tuple(f"{person} is in the split, but not in both cameras" for person in absent),
    )


def _persons(folder: Path, overlong: set[str]) -> dict[str, list[str]]:
    """The images of each person's folder, in natural order; persons in natural order; empty folders not.

    Persons whose number is too high go to `overlong` instead.
    """
    found = {}
    for person in sorted((f.name for f in os.scandir(folder) if f.is_dir()), key=natural_key):
        names = [f for f in os.listdir(folder / person) if Path(f).suffix.lower() in IMAGE_SUFFIXES]
        if not names or not re.search(r"\d$", person):
            continue
        if _number(person) > MAX_NUMBER:
            overlong.add(person)
        else:
            found[person] = sorted(names, key=natural_key)
    return found


def _number(person: str) -> int:
    """The number at the end of a folder's name: person_0017 is 17."""
    return read_number(re.findall(r"\d+", person)[-1])


def _is_person(given: object) -> bool:
    """Whether `given` is a number, or a folder's name with one at its end."""
    if isinstance(given, str):
        return bool(re.search(r"\d", given))
    return isinstance(given, int) and not isinstance(given, bool)


def _draw_splits(people: list[str]) -> list[tuple[list[str], list[str]]]:
    generator = np.random.default_rng(0)
    half = len(people) // 2
    drawn = [generator.permutation(people).tolist() for _ in range(N_SPLITS)]
    return [(sorted(order[:half]), sorted(order[half:])) for order in drawn]


def _read_splits(file: Path, people: list[str]) -> list[tuple[list[str], list[str]]]:
    """Splits as folder names: from JSON, a list of {"train", "test"}, persons by number or folder name; or
    from the .mat file of iLIDS-VID, rows of places in the sorted list of persons, the test's first."""
    if file.suffix == ".mat":
        place = _whole(file)
        if place.ndim != 2 or place.min() < 1 or place.max() > len(people):
            raise Refusal(
                f"{file}: a table of places 1 to {place.max()}, but there are "
                f"{len(people)} persons in both cameras"
            )
        half = place.shape[1] // 2
        return [
            ([people[i - 1] for i in row[half:]], [people[i - 1] for i in row[:half]])
            for row in place.tolist()
        ]
    form = f'{file} is not a list of splits: expected [{{"train": [persons], "test": [persons]}}, ...]'
    try:
        value: Any = json.loads("".join(read_lines(file)))
        pairs = [(entry["train"], entry["test"]) for entry in value]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Refusal(form) from error
    folder = {_number(person): person for person in people}

    def names(given: Any) -> list[str]:
        if not isinstance(given, list) or not all(map(_is_person, given)):
            raise Refusal(form)
        numbers = [p if isinstance(p, int) else _number(p) for p in given]
        return [folder.get(place, f"person {str(p)[:40]}") for p, place in zip(given, numbers, strict=True)]

    chosen = [(names(train), names(test)) for train, test in pairs]
    for i, (train, test) in enumerate(chosen):
        if shared := set(train) & set(test):
            raise Refusal(f"{file}: split {i} has {min(shared)} in training and in the test")
    return chosen
