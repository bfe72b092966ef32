"""The rows of MOTChallenge text in the dialects that tools write, as arrays.

Columns may be separated by commas, semicolons, tabs or blanks. A line of names at the top, lines that begin
with `#`, `%` or `//`, quotes, a separator at the end of a line and rows of different length are read; what
can be read in two ways is refused in one line that says what to do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path

import numpy as np

from tracklearn.store.text import read_lines
from tracklearn.types import Array, Refusal

NAMES = ("frame", "id", "left", "top", "width", "height", "score", "class")
_USED = 7  # columns that every reader needs to be finite numbers; of those behind them none is

_EXACT = 1 << 53  # from here on not every whole number has a float64 of its own
_INT64 = range(-(1 << 63), 1 << 63)
_BLOCK = 1 << 14  # lines parsed at a time
_LOOKED_AT = 1000  # first rows searched for decimal commas

_FORM = "frame,id,left,top,width,height[,score,...]"
_KITTI = {15, 16, 17, 18}
_KITTI_REMEDY = (
    "this looks like KITTI, whose boxes are x1,y1,x2,y2 in other columns and whose frames count from 0: "
    f"write it as {_FORM} with frames from 1"
)
_COMMA_REMEDY = (
    "numbers with a decimal comma cannot be told from columns: write them with a decimal point, and commas "
    "between columns"
)
_CORNERS = {"x2", "y2", "xmax", "ymax", "right", "bottom", "bbright", "bbbottom", "bboxright", "bboxbottom"}
_CENTRES = {"cx", "cy", "xc", "yc", "xcenter", "ycenter", "centerx", "centery", "xcentre", "ycentre"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)

_Block = list[tuple[int, str]]


@dataclass(frozen=True, eq=False)
class Rows:
    """What a MOT text holds, in its own order.

    Args:
        frame: (n,) int64, as written.
        track: (n,) int64, the id.
        box: (n, 4) float64, left, top, width, height.
        score: (n,) float64; 1 where a row gives none.
        kind: (n,) float64, column 8, NaN where a row gives none: the class if `n_columns` is 9.
        n_columns: of the longest row.
    """

    frame: Array
    track: Array
    box: Array
    score: Array
    kind: Array
    n_columns: int


def read_rows(path: str | os.PathLike[str], *, first_frame: int = 1) -> Rows:
    """The rows of a MOT text.

    It is read in pieces, so that a file of any length takes little more memory than its numbers.

    Args:
        path: the file; gzipped ones are unpacked on the way.
        first_frame: least frame number that is allowed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is no row, or could be two; the message names file and line. No rows at all.
    """
    reader = _Reader(Path(path), first_frame)
    blocks = list(reader.blocks())
    if not blocks:
        raise Refusal(f"{path}: no rows; expected lines such as 1,1,10,20,30,60,1,-1,-1,-1")
    frame, track, value = (np.concatenate(column) for column in zip(*blocks, strict=True))
    return Rows(frame, track, value[:, :4], value[:, 4], value[:, 5], max(reader.width))


class _Reader:
    def __init__(self, path: Path, first_frame: int) -> None:
        self.path, self.first_frame = path, first_frame
        self.delimiter: str | None = None  # None: blanks and tabs
        self.width: dict[int, int] = {}  # columns -> first line that has as many
        self.named = False  # a line of names has been seen

    def blocks(self) -> Iterator[tuple[Array, Array, Array]]:
        """frame (n,), track (n,), and left to class (n, 6) of the next rows."""
        lines = ((n, line) for n, line in enumerate(read_lines(self.path), 1) if not line.isspace())
        begun = False
        while block := list(islice(lines, _BLOCK)):
            if not begun:
                block = self._begin(block)
                begun = bool(block)
            if begun and (rows := self._rows(block)) is not None:
                yield rows

    def _begin(self, block: _Block) -> _Block:
        """`block` from its first row on, once it is known what separates columns; empty without a row."""
        for i, (number, line) in enumerate(block):
            text = _stripped(line)
            if not text:
                continue
            if text[0] in "{[<":
                what = "XML, such as CVAT's or Pascal VOC's" if text[0] == "<" else "JSON, such as COCO's"
                raise Refusal(f"{self.path}: {what}; export it in the MOT format: lines of {_FORM}")
            separated = [sign for sign in ";," if sign in text]
            self.delimiter = separated[0] if separated else None
            fields = self._fields(number, line)
            if not self.named and not any(map(_is_number, re.split(r"[\s,;]+", text))):
                self._check_names(number, fields)
                self.named = True
                continue
            self._check_commas(block[i : i + _LOOKED_AT])
            return block[i:]
        return []

    def _check_names(self, number: int, fields: list[str]) -> None:
        """Refuse a line of names that says that the columns are others."""
        names = [re.sub(r"[^a-z0-9]", "", field.lower()) for field in fields]
        where = f"{self.path} line {number}"
        if len(names) < 6:
            raise Refusal(f"{where}: {','.join(fields)[:60]!r} is no row; expected {_FORM}")
        if {*names[4:6]} & _CORNERS:
            raise Refusal(
                f"{where}: the boxes are x1,y1,x2,y2 by their names ({','.join(fields[2:6])[:60]}); expected "
                "left,top,width,height: subtract"
            )
        if {*names[2:4]} & _CENTRES:
            raise Refusal(
                f"{where}: the boxes are given by their centres ({','.join(fields[2:6])[:60]}); expected "
                "left,top,width,height: subtract half of width and height"
            )
        if "frame" in names[1] and "id" in names[0]:
            raise Refusal(f"{where}: id before frame; expected {_FORM}")

    def _check_commas(self, block: _Block) -> None:
        """Refuse decimal commas as they look once they are taken for separators: 5,00 becomes 5 and 00."""
        if self.delimiter != ",":
            return
        for number, line in block:
            fields = self._fields(number, line)
            if any(re.fullmatch(r"0\d+", field, re.ASCII) for field in fields[3:]):
                raise Refusal(f"{self.path} line {number}: {_COMMA_REMEDY}: {line.strip()[:60]!r}")

    def _rows(self, block: _Block) -> tuple[Array, Array, Array] | None:
        try:
            # numpy's own parser is written in C; the slow walk is for lines that it refuses.
            rows = np.loadtxt([line for _, line in block], delimiter=self.delimiter, ndmin=2, comments=None)
        except ValueError:
            block, rows = self._walk(block)
            if not block:
                return None
        else:
            self._widths(block[0][0], rows.shape[1])
            rows = rows[:, : len(NAMES)]
        if not np.isfinite(rows[:, :_USED]).all():
            raise self._bad_line(block)
        n = len(rows)
        score = rows[:, 6:7] if rows.shape[1] > 6 else np.ones((n, 1))
        kind = rows[:, 7:8] if rows.shape[1] > 7 else np.full((n, 1), np.nan)
        frame, track = (self._whole(block, rows[:, i], i) for i in (0, 1))
        if 9 in self.width:
            self._whole(block, np.where(np.isfinite(kind[:, 0]), kind[:, 0], 0), 7)
        if (low := np.flatnonzero(frame < self.first_frame)).size:
            number, line = block[int(low[0])]
            remedy = ": this file counts from 0, add 1 to every frame" if frame[low].min() == 0 else ""
            raise Refusal(
                f"{self.path} line {number}: MOTChallenge frames count from 1{remedy}: {line.strip()[:60]!r}"
            )
        return frame, track, np.hstack([rows[:, 2:6], score, kind])

    def _walk(self, block: _Block) -> tuple[_Block, Array]:
        """The lines of `block` that are rows, and their (n, 8) numbers."""
        kept, table = [], []
        for number, line in block:
            fields = self._fields(number, line)
            if not fields:
                continue
            if len(fields) < 6:
                raise self._bad_line([(number, line)])
            if len(fields) < max(self.width, default=0) and not line.endswith("\n"):
                raise Refusal(
                    f"{self.path} line {number}: {len(fields)} columns, fewer than in the lines before, "
                    "and no end of line: the file is cut short; write it anew, or take its last line out"
                )
            if len(fields) not in self.width:
                if not all(_is_number(field) for field in fields[:_USED]):
                    raise self._bad_line([(number, line)])  # says more than the number of columns
                self._widths(number, len(fields))
            kept.append((number, line))
            filled = [*fields[:_USED], *(["1"] if len(fields) == 6 else [])]
            if not all(_is_number(field) or _is_unused(field) for field in fields[_USED:]):
                raise self._bad_line([(number, line)])
            unused = fields[_USED] if len(fields) > _USED else ""
            table.append(",".join([*filled, unused or "nan"]))
        if not kept:
            return [], np.zeros((0, len(NAMES)))
        try:
            return kept, np.loadtxt(table, delimiter=",", ndmin=2, comments=None)
        except ValueError:
            raise self._bad_line(kept) from None

    def _widths(self, number: int, width: int) -> None:
        """Note that from this line on rows have so many columns; refuse what then has two meanings."""
        if width < 6:
            raise Refusal(f"{self.path} line {number}: {width} columns, expected at least 6: {_FORM}")
        if width in _KITTI:
            raise Refusal(f"{self.path} line {number}: {width} columns: {_KITTI_REMEDY}")
        self.width.setdefault(width, number)
        if len(self.width) > 1 and (9 in self.width or max(self.width) > 10):
            others = ", ".join(str(w) for w in self.width if w != width)
            raise Refusal(
                f"{self.path} line {number}: {width} columns, but {others} in the lines before: "
                "nine columns hold a class where others hold none; give all rows the same columns "
                f"({_COMMA_REMEDY})"
            )

    def _fields(self, number: int, line: str) -> list[str]:
        text = _stripped(line)
        if not text:
            return []
        if '"' in text or "'" in text:
            if text.count(text[0]) == 2 and text[0] == text[-1] and text[0] in "\"'":
                text = text[1:-1]
            if self.delimiter and any("," in part for part in re.findall(r"[\"']([^\"']*)[\"']", text)):
                raise Refusal(f"{self.path} line {number}: {_COMMA_REMEDY}: {text[:60]!r}")
            text = text.replace('"', "").replace("'", "")
        if self.delimiter is None:
            return text.split()
        fields = [field.strip() for field in text.split(self.delimiter)]
        if len(fields) > 6 and not fields[-1]:
            fields.pop()
        return fields

    def _whole(self, block: _Block, column: Array, index: int) -> Array:
        """A column of whole numbers as int64, exactly."""
        name = NAMES[index]
        if (broken := np.flatnonzero(column != np.floor(column))).size:
            raise self._refused(block[int(broken[0])], f"the {name} is not a whole number")
        large = np.flatnonzero(np.abs(column) >= _EXACT)
        whole = np.where(np.abs(column) < _EXACT, column, 0).astype(np.int64)
        for i in large:
            exact = Decimal(self._fields(*block[i])[index])
            if exact != exact.to_integral_value():
                raise self._refused(block[i], f"the {name} is not a whole number")
            if int(exact) not in _INT64:
                raise self._refused(block[i], f"the {name} is too large: at most 64 bits")
            whole[i] = int(exact)
        return whole

    def _refused(self, line: tuple[int, str], what: str) -> ValueError:
        return Refusal(f"{self.path} line {line[0]}: {what}: {line[1].strip()[:60]!r}")

    def _bad_line(self, block: _Block) -> ValueError:
        """The error that names the first line that is not a row of numbers."""
        for number, line in block:
            fields = self._fields(number, line)
            where = f"{self.path} line {number}"
            for column, field in enumerate(fields):
                if _is_number(field) or (column >= _USED and _is_unused(field)):
                    continue
                if len(fields) in _KITTI:
                    return Refusal(f"{where}: {field[:40]!r} is not a number: {_KITTI_REMEDY}")
                if re.fullmatch(r"[-+]?\d+,\d+", field) or re.search(r"\d\s+[-+]?\d", field):
                    return Refusal(f"{where}: {_COMMA_REMEDY}: {line.strip()[:60]!r}")
                name = NAMES[column] if column < len(NAMES) else "value"
                return Refusal(f"{where}: {field[:40]!r} in column {column + 1} ({name}) is not a number")
            if len(fields) < 6:
                return Refusal(f"{where}: {len(fields)} columns, expected at least 6: {_FORM}")
        return Refusal(f"{self.path}: not a MOTChallenge file; expected lines of {_FORM}")


def _stripped(line: str) -> str:
    """The line without comment, blanks and the end-of-file sign of DOS; "" where nothing is left."""
    text = line.partition("#")[0].strip().rstrip("\x1a").strip()
    return "" if text.startswith(("%", "//")) else text


def _is_number(field: str) -> bool:
    """Whether `field` is a finite number."""
    return _NUMBER.fullmatch(field) is not None and bool(np.isfinite(float(field)))


def _is_unused(field: str) -> bool:
    return field.lower().lstrip("+-") in {"", "nan", "inf", "infinity"}
