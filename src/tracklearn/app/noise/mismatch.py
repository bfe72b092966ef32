"""Why a tracker's file and a ground-truth file may not belong together, as `noise measure` finds it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tracklearn.types import Array, NoiseRates, Refusal

if TYPE_CHECKING:
    from tracklearn.store.film.mot import Boxes

HARDLY = 0.25  # share of matched boxes below which rates say little
_DOUBTFUL = 0.5  # share below which other readings of the boxes are tried
_FACTORS = (1.25, 4 / 3, 1.5, 2, 2.25, 2.5, 8 / 3, 3, 4, 6)


def once(boxes: Boxes, path: Path) -> tuple[Boxes, list[str]]:
    """`boxes` with one box of each track in each frame, the best; and what was left out, a sentence each."""
    order = np.lexsort((-boxes.score, boxes.track, boxes.frame))
    frame, track, box = boxes.frame[order], boxes.track[order], boxes.box[order]
    again = np.r_[False, (np.diff(frame) == 0) & (np.diff(track) == 0)]
    if not again.any():
        return boxes, []
    same = again & np.r_[False, (np.diff(box, axis=0) == 0).all(1)]
    n_same, n_other = int(same.sum()), int((again & ~same).sum())
    said = []
    if n_same:
        said.append(f"{path}: {n_same:,} rows are there twice; they count once")
    if n_other:
        said.append(
            f"{path}: {n_other:,} rows are a second box of one id in one frame; the best counts. Ids of "
            "several files or classes may have been mixed"
        )
    keep = np.sort(order[~again])
    kept = replace(
        boxes,
        frame=boxes.frame[keep],
        track=boxes.track[keep],
        box=boxes.box[keep],
        score=boxes.score[keep],
    )
    return kept, said


def refuse_misread(
    tracks: Boxes, truth: Boxes, matched: float, min_iou: float, files: tuple[Path, Path]
) -> None:
    """Refuse files that hardly match as they are, and do once one is read in another way.

    Args:
        tracks, truth: boxes of the two files, each box of a track once.
        matched: share of the tracks' boxes that match.
        min_iou: least overlap of a match.
        files: of tracks and truth.

    Raises:
        ValueError: so it is; the message says which way.
    """
    from tracklearn.core.noise import match_boxes

    if matched >= _DOUBTFUL:
        return
    for file, other, what in _readings(tracks, truth, files):
        a, b = (other, truth) if file == files[0] else (tracks, other)
        with np.errstate(invalid="ignore", over="ignore"):  # boxes may be of any size
            pid = match_boxes(a.frame, a.box, b.frame, b.track, b.box, min_iou=min_iou)
        share = float(np.mean(pid >= 0))
        if share > _DOUBTFUL and share >= 2 * matched:
            raise Refusal(
                f"{matched:.1%} of the boxes of {files[0]} match {files[1]}, but {share:.0%} would if "
                f"{file} {what}"
            )


def _readings(tracks: Boxes, truth: Boxes, files: tuple[Path, Path]) -> Iterator[tuple[Path, Boxes, str]]:
    """A file, its boxes read in another way, and which: in the order of how often people meet them."""
    for boxes, other, file in ((tracks, truth, files[0]), (truth, tracks, files[1])):
        size = boxes.box[:, 2:] - boxes.box[:, :2]
        corners = np.hstack([boxes.box[:, :2], size])
        if float(np.mean((corners[:, 2:] > corners[:, :2]).all(1))) > 0.98:
            yield (
                file,
                replace(boxes, box=corners),
                "held x1,y1,x2,y2: subtract, columns 5 and 6 are width and height",
            )
        yield (
            file,
            replace(boxes, box=boxes.box - np.tile(size / 2, 2)),
            "held the centres of boxes: subtract half of width and height, columns 3 and 4 are left and top",
        )
        if float(np.mean((size <= 1.5).all(1))) > 0.9:
            scale = _extent(other.box) / np.maximum(_extent(boxes.box), 1e-9)
            yield (
                file,
                replace(boxes, box=boxes.box * np.tile(scale, 2)),
                "held fractions of the picture: multiply by its width and height",
            )
        first = int(other.frame.min() - boxes.frame.min())
        for shift in dict.fromkeys((first, 1, -1)):
            if shift:
                yield (
                    file,
                    replace(boxes, frame=boxes.frame + shift),
                    f"counted frames {abs(shift)} {'higher' if shift > 0 else 'lower'}: give both the same",
                )
    for factor in _FACTORS:
        for file, boxes in zip(files, (tracks, truth), strict=True):
            yield (
                file,
                replace(boxes, box=boxes.box / factor),
                f"were of a picture {factor:.3g} times as large: divide columns 3 to 6 by {factor:.3g}",
            )


def _extent(box: Array) -> Array:
    """(2,) how far boxes reach to the right and down."""
    return np.asarray(np.quantile(box[:, 2:], 0.98, axis=0))


def doubts(tracks: Boxes, truth: Boxes, rates: NoiseRates, files: tuple[Path, Path]) -> list[str]:
    """What speaks against a measurement of these files, a sentence each."""
    said = []
    if rates.matched < HARDLY:
        said.append(
            f"only {rates.matched:.1%} of the boxes of {files[0]} match {files[1]}, so the rates say little: "
            "are they of one sequence and picture size, and their boxes left,top,width,height?"
        )
    if tracks.annotation and not truth.annotation:
        swapped = f"{files[0]} holds flags and classes, as ground truth does, and {files[1]} holds none"
    elif truth.scored and not tracks.scored:
        swapped = f"{files[1]} holds scores, as a tracker's result does, and {files[0]} holds none"
    elif files[0].name.startswith("gt.") and not files[1].name.startswith("gt."):
        swapped = f"{files[0]} is called as ground truth is, and {files[1]} is not"
    elif rates.n_tracklets and rates.r_SW > max(1.05 * rates.r_FM, 1.2):
        # Trackers lose people more often than they confuse them.
        swapped = f"the tracklets of {files[0]} hold more persons than persons have tracklets"
    else:
        return said
    return [*said, f"{swapped}: are --tracks and --truth swapped?"]
