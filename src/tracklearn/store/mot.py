"""MOTChallenge text files: tracker results, detections and ground truth, read and written.

A row is `frame, id, left, top, width, height[, score or flag[, class or x[, y, z]]]`, frames counted from 1.
Inside the project frames count from 0 and boxes are (x1, y1, x2, y2) in pixels.

Source: MOTChallenge's file format, Milan et al., "MOT16", arXiv 1603.00831, table 5 and section 5.1.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from tracklearn.store.files import replacing

Array = NDArray[Any]

_NAMES = ("frame", "id", "left", "top", "width", "height", "score", "class")

_MOST = 1 << 53  # beyond it not every whole number has a float64 of its own

_BLOCK = 1 << 14  # lines parsed at a time


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of one sequence, sorted by (frame, track).

    Args:
        frame: (n,) int64, frame number from 0.
        track: (n,) int64, track or ground-truth person of each box; −1 for detections.
        box: (n, 4) float64, (x1, y1, x2, y2) in pixels, as the file has them: they may leave the picture.
        score: (n,) float64, confidence; 1 where the file gives none.
    """

    frame: Array
    track: Array
    box: Array
    score: Array

    def __post_init__(self) -> None:
        n = len(self.frame)
        for name, dtype, shape in (
            ("frame", np.int64, (n,)),
            ("track", np.int64, (n,)),
            ("box", np.float64, (n, 4)),
            ("score", np.float64, (n,)),
        ):
            array = np.array(getattr(self, name), dtype=dtype)
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}, expected {shape}: one row per box")
            object.__setattr__(self, name, array)
        order = np.lexsort((self.track, self.frame))
        sorted_already = (np.diff(order) == 1).all()
        for name in ("frame", "track", "box", "score"):
            array = getattr(self, name) if sorted_already else getattr(self, name)[order]
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        """Number of boxes, n."""
        return len(self.frame)


def read_results(path: str | os.PathLike[str]) -> Boxes:
    """The boxes of a tracker's result file.

    Args:
        path: comma- or blank-separated text, at least six columns; a seventh is the score, where −1 (many
            trackers write it for "not given") is read as 1.

    Returns:
        `Boxes` with the file's track ids as they are.

    Raises:
        FileNotFoundError: no such file.
        ValueError: letters, too few columns, an id or frame that is no whole number, a frame below 1; the
            message names file and line. An empty file.
    """
    rows, _ = _read(path)
    score = rows[:, 6] if rows.shape[1] > 6 else np.ones(len(rows))
    return _boxes(rows, rows[:, 1], np.where(score < 0, 1.0, score))


def read_detections(path: str | os.PathLike[str]) -> Boxes:
    """The boxes of a detection file, their ids ignored (track −1), scores as they are.

    Args:
        path: as for `read_results`; scores may have any range.

    Raises:
        FileNotFoundError, ValueError: as for `read_results`.
    """
    rows, _ = _read(path)
    score = rows[:, 6] if rows.shape[1] > 6 else np.ones(len(rows))
    return _boxes(rows, np.full(len(rows), -1), score)


def read_truth(path: str | os.PathLike[str]) -> Boxes:
    """The ground-truth boxes that count.

    Rows count if the flag (column 7, where there is one) is not 0 and, in nine-column files only, the class
    (column 8) is 1, a pedestrian; ten-column files have world coordinates there.

    Raises:
        FileNotFoundError, ValueError: as for `read_results`.
    """
    rows, width = _read(path)
    keep = np.ones(len(rows), bool)
    if width > 6:
        keep &= rows[:, 6] != 0
    if width == 9:
        keep &= rows[:, 7] == 1
    rows = rows[keep]
    return _boxes(rows, rows[:, 1], np.ones(len(rows)))


def write_results(path: str | os.PathLike[str], boxes: Boxes) -> Path:
    """Writes `boxes` as a ten-column result file, whole or not at all.

    Args:
        path: file to write; an old one is replaced.
        boxes: frames from 0 (written from 1); coordinates keep three decimals, scores six.

    Returns:
        The path written.
    """
    path = Path(path)
    size = boxes.box[:, 2:] - boxes.box[:, :2]
    rows = np.column_stack([boxes.frame + 1, boxes.track, boxes.box[:, :2], size, boxes.score])
    with replacing(path) as file:
        np.savetxt(file, rows, fmt="%d,%d,%.3f,%.3f,%.3f,%.3f,%.6g,-1,-1,-1")
    return path


def iou(a: Array, b: Array) -> Array:
    """(n, m) float64 intersection over union of boxes `a` (n, 4) and `b` (m, 4); 0 for boxes without area."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    corner = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    both = corner.clip(0).prod(2)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).clip(0).prod(1) for x in (a, b))
    union = area_a[:, None] + area_b[None] - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def detection_f1(boxes: Boxes, truth: Boxes, *, min_iou: float = 0.5) -> dict[str, float]:
    """How well `boxes` find the boxes of `truth`, frame by frame, one to one.

    The assignment of each frame has as many pairs as possible, then the greatest total IoU.

    Args:
        boxes: detections or tracks; frames without truth count, their boxes are false.
        truth: ground truth of the same sequence.
        min_iou: least IoU of a pair, in (0, 1].

    Returns:
        `precision`, `recall`, `f1` (fractions 0–1; 0 where undefined).

    >>> one = Boxes([0], [0], [[0, 0, 10, 20]], [1])
    >>> detection_f1(one, one)
    {'precision': 1.0, 'recall': 1.0, 'f1': 1.0}

    Raises:
        ValueError: `min_iou` outside (0, 1].
    """
    if not 0 < min_iou <= 1:
        raise ValueError(f"min_iou is {min_iou}, expected a fraction above 0, at most 1")
    found = 0
    frames = np.intersect1d(boxes.frame, truth.frame)
    edges = [np.searchsorted(x.frame, [frames, frames + 1]) for x in (boxes, truth)]
    for (a, b), (c, d) in zip(edges[0].T, edges[1].T, strict=True):
        overlap = iou(boxes.box[a:b], truth.box[c:d])
        good = overlap >= min_iou
        # One more pair is always worth more than any gain in overlap: at most min(n, m) pairs of IoU <= 1.
        row, column = linear_sum_assignment(np.where(good, overlap + min(good.shape), 0), maximize=True)
        found += int(good[row, column].sum())
    precision = found / len(boxes) if len(boxes) else 0.0
    recall = found / len(truth) if len(truth) else 0.0
    total = len(boxes) + len(truth)
    return {"precision": precision, "recall": recall, "f1": 2 * found / total if total else 0.0}


def _boxes(rows: Array, track: Array, score: Array) -> Boxes:
    corner = rows[:, 2:4]
    return Boxes(rows[:, 0] - 1, track, np.hstack([corner, corner + rows[:, 4:6]]), score)


def _read(path: str | os.PathLike[str]) -> tuple[Array, int]:
    """(n, at most 8) float64, the columns of a MOT file that have a name, checked; and how many it has.

    The text is read in pieces, so that a file of any length takes little more memory than its numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    blocks: list[Array] = []
    comma, width = False, 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = ((number, line) for number, line in enumerate(file, 1) if not line.isspace())
            while block := list(islice(lines, _BLOCK)):
                if not blocks:
                    comma = "," in block[0][1]
                rows = _rows(path, block, comma, width)
                width = rows.shape[1]
                blocks.append(rows[:, : len(_NAMES)].copy())
    except UnicodeDecodeError:
        raise ValueError(f"{path} line 1: not text; expected MOTChallenge rows") from None
    if not blocks:
        raise ValueError(f"{path}: no rows; expected lines such as 1,1,10,20,30,60,1,-1,-1,-1")
    return np.concatenate(blocks), width


def _rows(path: Path, lines: list[tuple[int, str]], comma: bool, width: int) -> Array:
    """(len(lines), c) float64, checked; `width` is the c of the lines before, 0 where there are none."""
    try:
        # numpy's own parser is written in C; the slow walk below runs only to name a line that it refuses.
        rows = np.loadtxt(
            [line for _, line in lines], delimiter="," if comma else None, ndmin=2, comments=None
        )
    except ValueError:
        raise _bad_line(path, lines, comma, width) from None
    if rows.shape[1] < 6 or rows.shape[1] != (width or rows.shape[1]) or not np.isfinite(rows).all():
        raise _bad_line(path, lines, comma, width)
    frame, track = rows[:, 0], rows[:, 1]
    for wrong, what in (
        (frame != np.floor(frame), "the frame is not a whole number"),
        (frame < 1, "MOTChallenge frames count from 1"),
        (track != np.floor(track), "the id is not a whole number"),
        (np.abs(rows[:, :2]).max(1) > _MOST, "the frame or the id is too large"),
    ):
        if wrong.any():
            number, line = lines[int(np.flatnonzero(wrong)[0])]
            raise ValueError(f"{path} line {number}: {what}: {line.strip()[:60]!r}")
    return rows


def _bad_line(path: Path, lines: list[tuple[int, str]], comma: bool, width: int) -> ValueError:
    """The error that names the first line that is not a row of numbers like those before."""
    for number, line in lines:
        fields = [x.strip() for x in (line.split(",") if comma else line.split())]
        for column, field in enumerate(fields):
            try:
                good = bool(np.isfinite(float(field)))
            except ValueError:
                good = False
            if not good:
                name = _NAMES[column] if column < len(_NAMES) else "value"
                return ValueError(
                    f"{path} line {number}: {field[:40]!r} in column {column + 1} ({name}) is not a number"
                )
        if len(fields) < 6:
            return ValueError(
                f"{path} line {number}: {len(fields)} columns, expected at least 6: "
                "frame,id,left,top,width,height[,score,...]"
            )
        width = width or len(fields)
        if len(fields) != width:
            return ValueError(f"{path} line {number}: {len(fields)} columns, but {width} in the lines before")
    return ValueError(f"{path}: not a MOTChallenge file")
