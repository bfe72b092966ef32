"""MOTChallenge text files: tracker results, detections and ground truth, read and written.

A row is `frame, id, left, top, width, height[, score or flag[, class or x[, y, z]]]`, frames counted from 1.
Inside the project frames count from 0 and boxes are (x1, y1, x2, y2) in pixels. `mot_text` reads the rows.

Source: MOTChallenge's file format, Milan et al., "MOT16", arXiv 1603.00831, table 5 and section 5.1.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from scipy.optimize import linear_sum_assignment

from tracklearn.core.boxes import iou
from tracklearn.store.files import replacing
from tracklearn.store.film.mot_text import Rows, read_rows
from tracklearn.store.text import read_lines
from tracklearn.types import Array, Refusal

_PERSON = 1  # MOTChallenge's class of pedestrians
_PERSONS = {"person", "pedestrian", "people", "human", "persons", "pedestrians"}

NO_TRACK = "their id is below 0: no track"
FLAGGED = "their flag is 0: not to be counted"


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of one sequence, sorted by (frame, track).

    Args:
        frame: (n,) int64, frame number from 0.
        track: (n,) int64, track or ground-truth person of each box; −1 for detections.
        box: (n, 4) float64, (x1, y1, x2, y2) in pixels, as the file has them: they may leave the picture.
        score: (n,) float64, confidence; 1 where the file gives none.
        left_out: reason -> rows of the file that are no boxes of a person's track.
        annotation: the file says for every row whether it counts and what class it has, as ground truth does.
        scored: its seventh column holds other numbers than 0, 1 and −1, as that of a tracker does.
    """

    frame: Array
    track: Array
    box: Array
    score: Array
    left_out: Mapping[str, int] = field(default_factory=dict)
    annotation: bool = False
    scored: bool = False

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
                raise Refusal(f"{name} has shape {array.shape}, expected {shape}: one row per box")
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


def read_results(path: str | os.PathLike[str], *, first_frame: int = 1) -> Boxes:
    """The boxes of a tracker's result file.

    Rows with an id below 0 belong to no track. Of annotations (nine columns, the seventh a flag, the eighth a
    class) only the persons that count are taken, and rows flagged 0 go wherever column 7 holds flags, that is
    0 and 1 and nothing else. `Boxes.left_out` counts what goes.

    Args:
        path: at least six columns; a seventh is the score, where −1 (many trackers write it for "not given")
            is read as 1. `mot_text` says which dialects are read.
        first_frame: least frame number that is allowed; 0 for results on images that count from 0, whose
            first frame then is −1.

    Returns:
        `Boxes` with the file's track ids as they are.

    Raises:
        FileNotFoundError: no such file.
        ValueError: letters, too few columns, an id or frame that is no whole number or has more than 64 bits,
            a frame below `first_frame`; the message names file and line. An empty file, detections, or an
            annotation without a person.
    """
    rows = read_rows(path, first_frame=first_frame)
    tracked = rows.track >= 0
    if not tracked.any():
        raise Refusal(
            f"{path} has boxes without a track only (every id is below 0): these are detections; ingest "
            f"takes them as --detector file:{path}, with the video alone as source"
        )
    annotation = _is_annotation(rows)
    keep, left_out = _persons(path, rows, _has_flags(rows), annotation)
    if n := int(np.count_nonzero(keep & ~tracked)):
        left_out[NO_TRACK] = n
    keep &= tracked
    score = np.where(rows.score < 0, 1.0, rows.score)
    return _boxes(rows, keep, rows.track, score, left_out)


def read_detections(path: str | os.PathLike[str], *, first_frame: int = 1) -> Boxes:
    """The boxes of a detection file, their ids ignored (track −1), scores as they are.

    Of annotations only the persons that count are taken, as in `read_results`.

    Args:
        path: as for `read_results`; scores may have any range.
        first_frame: as for `read_results`.

    Raises:
        FileNotFoundError, ValueError: as for `read_results`, but for detections.
    """
    rows = read_rows(path, first_frame=first_frame)
    annotation = _is_annotation(rows)
    keep, left_out = _persons(path, rows, annotation, annotation)
    return _boxes(rows, keep, np.full(len(keep), -1), rows.score, left_out)


def read_truth(path: str | os.PathLike[str]) -> Boxes:
    """The ground-truth boxes that count.

    Rows count if the flag (column 7, where there is one) is not 0 and, in nine-column files only, the class
    (column 8) is that of persons: 1, or what a labels.txt beside the file (CVAT's) says. Ten-column files
    have world coordinates there.

    Raises:
        FileNotFoundError, ValueError: as for `read_results`; no row counts.
    """
    rows = read_rows(path)
    classes = rows.n_columns == 9 and not (rows.kind == -1).all()
    keep, left_out = _persons(path, rows, True, classes)
    return _boxes(rows, keep, rows.track, np.ones(len(keep)), left_out)


def _has_flags(rows: Rows) -> bool:
    """Whether column 7 says which rows count: it holds 0 and 1 and nothing else, which scores do not."""
    return rows.n_columns > 6 and set(np.unique(rows.score).tolist()) == {0.0, 1.0}


def _is_annotation(rows: Rows) -> bool:
    """Nine columns with flags and classes; trackers that write nine have scores there, or −1."""
    flags = np.isin(rows.score, (0.0, 1.0)).all()
    return rows.n_columns == 9 and bool(flags and (rows.kind >= 1).all())


def _persons(
    path: str | os.PathLike[str], rows: Rows, flags: bool, classes: bool
) -> tuple[Array, dict[str, int]]:
    """(n,) bool, the rows that are persons and count; and how many are left out for which reason."""
    keep, left_out = np.ones(len(rows.frame), bool), {}
    if flags and rows.n_columns > 6:
        keep &= rows.score != 0
        if n := int(np.count_nonzero(~keep)):
            left_out[FLAGGED] = n
    if classes:
        person = _person_class(Path(path))
        other = keep & (rows.kind != person)
        for kind, n in zip(*np.unique(rows.kind[other], return_counts=True), strict=True):
            left_out[f"their class is {kind:g}, a person's is {person}"] = int(n)
        keep &= ~other
    if not keep.any():
        why = "; ".join(f"{n} rows: {reason}" for reason, n in left_out.items())
        raise Refusal(
            f"{path}: no row is a person that counts ({why}): expected 1 in column 7 (counts) and, in nine "
            "columns, 1 in column 8 (a person)"
        )
    return keep, left_out


def _person_class(path: Path) -> int:
    """The class of persons: CVAT numbers the lines of a labels.txt beside the file, from 1."""
    labels = path.with_name("labels.txt")
    if labels != path and labels.is_file():
        for number, line in enumerate(read_lines(labels), 1):
            if line.strip().lower() in _PERSONS:
                return number
    return _PERSON


def _boxes(rows: Rows, keep: Array, track: Array, score: Array, left_out: Mapping[str, int]) -> Boxes:
    box = np.hstack([rows.box[:, :2], rows.box[:, :2] + rows.box[:, 2:]])
    columns = (rows.frame - 1, track, box, score)
    if not keep.all():
        columns = tuple(column[keep] for column in columns)  # type: ignore[assignment]
    scored = not np.isin(rows.score, (0.0, 1.0, -1.0)).all()
    return Boxes(*columns, left_out, _is_annotation(rows), scored)


def write_results(path: str | os.PathLike[str], boxes: Boxes) -> Path:
    """Writes `boxes` as a ten-column result file, whole or not at all.

    Args:
        path: file to write; an old one is replaced.
        boxes: frames from 0 (written from 1); coordinates keep three decimals, scores six.

    Returns:
        The path written.
    """
    path = Path(path)
    with replacing(path) as file:
        write_rows(file, boxes.frame, boxes.track, boxes.box, boxes.score)
    return path


def write_rows(file: IO[bytes], frame: Array, track: Array, box: Array, score: Array) -> None:
    """Rows of a result file, as `write_results` has them, to an open one.

    Args:
        file: open for bytes.
        frame: (n,) from 0. track: (n,). box: (n, 4), (x1, y1, x2, y2) in pixels. score: (n,).
    """
    value = np.column_stack([box[:, :2], box[:, 2:] - box[:, :2], score]).tolist()
    # Not as one array of floats: an id of more than 53 bits is written as it is.
    for number, one, row in zip((np.asarray(frame) + 1).tolist(), track.tolist(), value, strict=True):
        file.write(b"%d,%d,%.3f,%.3f,%.3f,%.3f,%.6g,-1,-1,-1\n" % (number, one, *row))


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
        raise Refusal(f"min_iou is {min_iou}, expected a fraction above 0, at most 1")
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
