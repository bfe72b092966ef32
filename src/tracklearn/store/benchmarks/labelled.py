"""A labelled folder of one's own as a benchmark: names as in Market-1501, or a table of images and persons.

    DIR/query/PPPP_cC….jpg      folders of queries and gallery (or bounding_box_test, or test); names begin
    DIR/gallery/PPPP_cC….jpg    with person and camera, as PPPP_cC, PPPP_cCsS_… or PPPP_C_…
    DIR/train/PPPP_cC….jpg      (or bounding_box_train) only for those who want to train on it

    DIR/any.csv                 or a table with the columns path, person, camera and, if images are to be told
                                apart by what they are for, role

No count is known beforehand, so none is compared. Scores are by the official protocol in either form.
"""

from __future__ import annotations

import csv
import hashlib
import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path, PureWindowsPath

import numpy as np

from tracklearn.store.benchmarks.parts import Benchmark
from tracklearn.store.benchmarks.stills import Still, assemble, read_places
from tracklearn.store.files import is_text
from tracklearn.store.picture.listing import MAX_CAMID, MAX_NUMBER, OVERLONG, natural_key, read_number
from tracklearn.store.skipped import readable, skip
from tracklearn.store.text import read_lines
from tracklearn.types import Refusal

NAME = "folder"
COLUMNS = ("path", "person", "camera")  # a table must have; role is the fourth
ROLES = ("query", "gallery", "train", "ignored")

_GALLERY = ("gallery", "bounding_box_test", "test")
_TRAIN = ("train", "bounding_box_train")
# A number alone is a camera only where something follows: 0001_000151.jpg has a frame there.
_FILE_NAME = re.compile(r"(?P<pid>-?\d+)_(?:[cC](?P<cam>\d+)(?:[sS]\d+)?(?=[_.-])|(?P<bare>\d+)(?=_))")
_OTHER_NAME = "the name does not begin with PPPP_cC or PPPP_C_"


def read_labelled(root: Path) -> Benchmark:
    """The benchmark in a folder, or that of a table given as `root`.

    A table in the folder (one file *.csv) decides, whatever else is there.

    Raises:
        FileNotFoundError: no such folder; neither a table nor queries and gallery are in it.
        ValueError: several tables, or several folders for one purpose; a table that is not as it must be,
            with its line; no query of whom the gallery has another camera's image.
    """
    if root.is_file():
        return _from_table(root, readable(root.name))
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder: {root}")
    title = readable(root.resolve().name) or "folder"
    tables = sorted(
        file for file in root.iterdir() if file.suffix.lower() == ".csv" and not file.name.startswith(".")
    )
    if len(tables) > 1:
        raise Refusal(
            f"{root} holds {len(tables)} tables, {tables[0].name} and {tables[1].name} among them: name the "
            f"one that counts, as --root {tables[0]}"
        )
    return _from_table(tables[0], title) if tables else _from_names(root, title)


# ------------------------------------------------------------------------------------------------- names


def _from_names(root: Path, title: str) -> Benchmark:
    query, gallery, train = (_place(root, names) for names in (("query",), _GALLERY, _TRAIN))
    if query is None and gallery is None:
        raise FileNotFoundError(
            f"{root} is not a labelled folder: it has no table (*.csv), no query and no gallery; see "
            f"`tracklearn datasets {NAME}`"
        )
    if query is None or gallery is None:
        lacking = "query" if query is None else f"gallery (nor {', nor '.join(_GALLERY[1:])})"
        raise FileNotFoundError(f"only a part of a labelled folder is in {root}: there is no {lacking}")
    made = read_places(
        root, (train or _TRAIN[0], query, gallery), _parse, name=NAME, title=title, published={}
    )
    _require_match(made, root)
    return replace(made, missing=())  # nothing says that there should be more


def _place(root: Path, names: tuple[str, ...]) -> str | None:
    found = [name for name in names if (root / name).is_dir()]
    if len(found) > 1:
        raise Refusal(f"{root} holds both {found[0]} and {found[1]}: keep the one that is meant")
    return found[0] if found else None


def _parse(name: str) -> Still | str:
    match = _FILE_NAME.match(name)
    if match is None:
        return _OTHER_NAME
    pid, cam = read_number(match["pid"]), read_number(match["cam"] or match["bare"])
    if pid > MAX_NUMBER or cam > MAX_CAMID:
        return OVERLONG
    return Still(name, pid, cam, natural_key(name), -1)


# ------------------------------------------------------------------------------------------------ tables


def _from_table(file: Path, title: str) -> Benchmark:
    """The benchmark of a table; its rows stand in the order of time as far as anybody knows it."""
    by_role: dict[str, list[Still]] = {role: [] for role in ("", *ROLES)}
    left_out, line_of = Counter[str](), dict[str, int]()
    cameras: dict[str, int] = {}
    with_roles = False
    for line, row in _rows(file):
        with_roles = "role" in row
        role = row.get("role", "").lower()
        if with_roles and role not in ROLES:
            raise Refusal(
                f"{file}, line {line}: the role is {role[:40]!r}, expected one of {', '.join(ROLES)}"
            )
        path = _path(file, line, row["path"])
        if path in line_of:
            raise Refusal(f"{file}, line {line}: {path} is in line {line_of[path]} already")
        line_of[path] = line
        if role == "ignored":
            left_out["role ignored"] += 1
            continue
        if not row["camera"]:
            raise Refusal(f"{file}, line {line}: there is no camera; without it no match can be told")
        pid = _pid(row["person"])
        if role == "query" and pid == 0:
            raise Refusal(f"{file}, line {line}: a query needs a person")
        if pid < 0 or (role == "train" and pid == 0):
            left_out["junk, person −1" if pid < 0 else "train: no person"] += 1
            continue
        cam = cameras.setdefault(row["camera"], len(cameras))
        by_role[role].append(Still(path, pid, cam, (line,), -1, line))
    if not line_of:
        raise Refusal(f"{file} names no image: expected a row for each")
    return _assemble(file, title, by_role, with_roles=with_roles, cameras=cameras, left_out=left_out)


def _assemble(
    file: Path,
    title: str,
    by_role: dict[str, list[Still]],
    *,
    with_roles: bool,
    cameras: dict[str, int],
    left_out: Counter[str],
) -> Benchmark:
    # Cameras are counted in the order of their names: that of the rows may change from table to table.
    names = sorted(cameras, key=natural_key)
    number = {cameras[name]: i for i, name in enumerate(names)}
    by_role = {
        role: [replace(image, cam=number[image.cam]) for image in images] for role, images in by_role.items()
    }
    if with_roles:
        for role in ROLES[:2]:
            if not by_role[role]:
                raise Refusal(f"{file}: no image has the role {role}, so there is nothing to judge by")
        test = [*by_role["query"], *by_role["gallery"]]
        query = np.arange(len(by_role["query"]))
        gallery = np.arange(len(query), len(test))
        notes: tuple[str, ...] = ()
    else:
        test = by_role[""]
        query = np.flatnonzero([image.pid > 0 for image in test])
        gallery = np.arange(len(test))
        notes = (f"{file.name} gives no roles: every image with a person is searched for among all others",)
    made = assemble(
        NAME,
        title,
        file.parent,
        by_role["train"],
        test,
        query=query,
        gallery=gallery,
        published={},
        cameras=dict(enumerate(names)),
        table=file.name,
        notes=notes,
        skipped=tuple(skip("images", reason, n) for reason, n in left_out.items()),
    )
    _require_match(made, file)
    return made


def _rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table with their lines: text by column, without the blanks around it."""
    lines = read_lines(file)
    head = next(lines, "")
    # Spreadsheets of many countries write semicolons.
    reader = csv.reader(chain([head], lines), delimiter=max(",;\t", key=head.count), strict=True)
    columns: list[str] = []
    try:
        for row in reader:
            fields, line = [field.strip() for field in row], reader.line_num
            if not any(fields):
                continue
            if not is_text("".join(fields)):
                raise Refusal(f"{file}, line {line}: not UTF-8: save the table as UTF-8")
            if not columns:
                columns = [field.lower() for field in fields]
                _check_columns(file, line, columns)
                continue
            if len(fields) != len(columns):
                raise Refusal(f"{file}, line {line}: {len(fields)} fields, expected {len(columns)}")
            yield line, dict(zip(columns, fields, strict=True))
    except csv.Error as error:
        raise Refusal(f"{file}, line {reader.line_num}: not a row of a table ({error})") from error
    if not columns:
        raise Refusal(
            f"{file} is empty: expected a header with {', '.join(COLUMNS)} and a row for each image"
        )


def _check_columns(file: Path, line: int, columns: list[str]) -> None:
    for name in (*COLUMNS, "role"):
        if columns.count(name) > 1:
            raise Refusal(f"{file}, line {line}: two columns are called {name}")
    if lacking := [name for name in COLUMNS if name not in columns]:
        raise Refusal(
            f"{file}, line {line}: no column {lacking[0]}; the header names {', '.join(COLUMNS)}, and role "
            "where images have one"
        )


def _path(file: Path, line: int, text: str) -> str:
    """A path below the table's folder, "/" between folders, without detours."""
    path = text.replace("\\", "/")
    if not path or "\0" in path:
        raise Refusal(f"{file}, line {line}: there is no path")
    if path.startswith("/") or PureWindowsPath(path).drive:
        raise Refusal(
            f"{file}, line {line}: {text[:80]!r} is an absolute path: give it from the folder of the table, "
            "so that both can be moved"
        )
    if ".." in path.split("/"):
        raise Refusal(f"{file}, line {line}: {text[:80]!r} leads out of the folder of the table")
    return posixpath.normpath(path)


def _pid(text: str) -> int:
    """The number of a person: 0 of a distractor (no text), −1 of junk (-1), else of the text alone.

    So the same person has the same number whatever else a table holds, and a run that was trained on one
    version of it is not judged by its own people in another. Two of a million persons share a number once in
    ten million tables.
    """
    if not text:
        return 0
    if re.fullmatch(r"-\d+", text):
        return -1
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % MAX_NUMBER + 1


def _require_match(benchmark: Benchmark, what: Path) -> None:
    """Refuse a test in which no query has a match in another camera: nothing could be scored."""
    pid, camid = benchmark.test.pid, benchmark.test.camid  # made anew at every asking
    seen: dict[int, set[int]] = {}
    for who, where in zip(pid[benchmark.gallery].tolist(), camid[benchmark.gallery].tolist(), strict=True):
        seen.setdefault(who, set()).add(where)
    asked = zip(pid[benchmark.query].tolist(), camid[benchmark.query].tolist(), strict=True)
    if not any(seen.get(who, set()) - {where} for who, where in asked):
        raise Refusal(
            f"{what}: of no query the gallery has an image of the person from another camera, and only such "
            "matches count"
        )
