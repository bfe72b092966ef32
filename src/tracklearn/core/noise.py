"""How noisy tracklets are: fragmentation and identity switches against ground truth.

Source: Teng et al., "A Free Lunch to Person Re-identification", arXiv 2204.00891, sections 3.1 and 4.1. A
person there is one (person, camera) pair. Training never calls anything of this module.
"""

from __future__ import annotations

import numpy as np

from tracklearn.core.boxes import iou
from tracklearn.types import Array, NoiseRates, Refusal, Tracklets, Truth


def match_boxes(
    frame: Array, box: Array, truth_frame: Array, truth_pid: Array, truth_box: Array, *, min_iou: float = 0.5
) -> Array:
    """The person in each tracked box: that of the ground-truth box of its frame with the highest IoU.

    Several tracked boxes may match one ground-truth box. Equal IoUs go to the ground-truth row that comes
    first.

    Args:
        frame: (n,) int. box: (n, 4), (x1, y1, x2, y2) in pixels.
        truth_frame: (m,) int, numbered as `frame`. truth_pid: (m,) int. truth_box: (m, 4).
        min_iou: least IoU that counts, in (0, 1].

    Returns:
        (n,) int64, −1 where no box of the frame reaches `min_iou`. Rows may come in any order.

    Raises:
        ValueError: shapes disagree, or min_iou is out of range.

    Example:
        >>> import numpy as np
        >>> truth = np.array([[0, 0, 10, 10], [20, 0, 30, 10]])
        >>> match_boxes(np.array([3]), np.array([[21, 0, 31, 10]]), np.array([3, 3]), np.array([8, 9]), truth)
        array([9])

    Source: the TMC authors' measuring script, which takes any overlap; the threshold 0.5 is our choice.
    """
    frame, truth_frame, truth_pid = np.asarray(frame), np.asarray(truth_frame), np.asarray(truth_pid)
    box, truth_box = np.asarray(box, dtype=np.float64), np.asarray(truth_box, dtype=np.float64)
    for name, value, shape in (
        ("frame", frame, (len(box),)),
        ("box", box, (len(box), 4)),
        ("truth_frame", truth_frame, (len(truth_box),)),
        ("truth_pid", truth_pid, (len(truth_box),)),
        ("truth_box", truth_box, (len(truth_box), 4)),
    ):
        if value.shape != shape:
            raise Refusal(f"{name} has shape {value.shape}, expected {shape}")
    if not 0 < min_iou <= 1:
        raise Refusal(f"min_iou is {min_iou}, expected a value in (0, 1]")
    pid = np.full(len(box), -1, np.int64)
    if not len(box) or not len(truth_box):
        return pid
    order, truth_order = np.argsort(frame, kind="stable"), np.argsort(truth_frame, kind="stable")
    numbers, start = np.unique(frame[order], return_index=True)
    left = np.searchsorted(truth_frame[truth_order], numbers, side="left")
    right = np.searchsorted(truth_frame[truth_order], numbers, side="right")
    for lo, hi, a, b in zip(start, np.r_[start[1:], len(order)], left, right, strict=True):
        if a == b:
            continue
        rows, truths = order[lo:hi], truth_order[a:b]
        overlap = iou(box[rows], truth_box[truths])
        best = overlap.argmax(1)
        pid[rows] = np.where(overlap.max(1) >= min_iou, truth_pid[truths[best]], -1)
    return pid


def measure(
    tracklet: Array, pid: Array, camid: Array, *, min_run: int = 6, truth_pairs: int | None = None
) -> NoiseRates:
    """Fragmentation and switch rates of tracklets.

    Each tracklet's row of persons is cut into runs of one person, −1 being a separator; runs shorter than
    `min_run` rows are dropped as chance. r_FM is the mean number of tracklets that hold a person, r_SW the
    mean number of persons in a tracklet: both count the same incidences, so n_persons · r_FM =
    n_tracklets · r_SW. A person is one (pid, camid) pair and a tracklet one (tracklet, camid) pair, so that
    several sequences are pooled by concatenating them under distinct camids.

    Args:
        tracklet: (n,) int, any numbers; the rows of one tracklet in the order of its frames.
        pid: (n,) int, person in each row, −1 for nobody known.
        camid: (n,) int, camera of each row.
        min_run: shortest run that counts, in rows.
        truth_pairs: number of all (person, camera) pairs of the ground truth, for r_FM_all; left out, the
            pairs that occur in `pid`.

    Returns:
        NoiseRates; r_FM, r_FM_all and r_SW are NaN where no run is long enough.

    Raises:
        ValueError: shapes disagree; min_run < 1; truth_pairs below the number of covered pairs.

    Example:
        >>> import numpy as np
        >>> pid = np.array([4, 4, 5, 4, -1])
        >>> rates = measure(np.array([0, 0, 0, 1, 1]), pid, np.zeros(5, int), min_run=1)
        >>> rates.r_FM, rates.r_SW
        (1.5, 1.5)

    Source: TMC section 3.1 and, for the runs, its authors' measuring script.
    """
    tracklet, pid, camid = _same_length(tracklet=tracklet, pid=pid, camid=camid)
    if min_run < 1:
        raise Refusal(f"min_run is {min_run}, expected at least 1")
    order = np.lexsort((tracklet, camid))  # stable: rows of a tracklet keep their order
    row = np.stack([camid[order], tracklet[order], pid[order]], 1)
    cut = np.flatnonzero(np.r_[True, (np.diff(row, axis=0) != 0).any(1)]) if len(row) else np.zeros(0, int)
    length = np.diff(np.r_[cut, len(row)])
    run = row[cut]
    incidence = np.unique(run[(run[:, 2] >= 0) & (length >= min_run)], axis=0)
    n_tracklets, holding = _count(incidence[:, :2])
    n_persons, _ = _count(incidence[:, [0, 2]])
    if truth_pairs is None:
        truth_pairs, _ = _count(row[row[:, 2] >= 0][:, [0, 2]])
    if truth_pairs < n_persons:
        raise Refusal(
            f"truth_pairs is {truth_pairs}, but {n_persons} (person, camera) pairs occur: count them all"
        )
    sizes, tracklets = np.unique(holding, return_counts=True)
    nan = float("nan")
    return NoiseRates(
        r_FM=len(incidence) / n_persons if n_persons else nan,
        r_FM_all=len(incidence) / truth_pairs if n_persons else nan,
        r_SW=len(incidence) / n_tracklets if n_tracklets else nan,
        persons_per_tracklet={int(s): int(t) for s, t in zip(sizes, tracklets, strict=True)},
        matched=float(np.mean(pid >= 0)) if len(pid) else nan,
        n_tracklets=n_tracklets,
        n_persons=n_persons,
    )


def impure_fraction(tracklet: Array, pid: Array) -> float:
    """Share of matched rows that do not belong to the majority person of their tracklet, 0-1.

    Args:
        tracklet: (n,) int, any numbers, distinct over cameras; −1 rows are left out (dropped frames).
        pid: (n,) int, −1 for nobody known: left out.

    Returns:
        The share; NaN without a matched row.

    Raises:
        ValueError: the lengths differ.
    """
    tracklet, pid = _same_length(tracklet=tracklet, pid=pid)
    matched = (pid >= 0) & (tracklet >= 0)
    if not matched.any():
        return float("nan")
    pair, count = np.unique(np.stack([tracklet, pid], 1)[matched], axis=0, return_counts=True)
    _, start = np.unique(pair[:, 0], return_index=True)
    return 1 - float(np.maximum.reduceat(count, start).sum() / count.sum())


def _count(pairs: Array) -> tuple[int, Array]:
    """Number of distinct rows, and how often each occurs."""
    distinct, times = np.unique(pairs, axis=0, return_counts=True)
    return len(distinct), times


def _same_length(**arrays: Array) -> tuple[Array, ...]:
    """The arrays as one-dimensional int64 of one length."""
    out = tuple(np.asarray(value) for value in arrays.values())
    for name, value in zip(arrays, out, strict=True):
        if value.shape != (out[0].size,):
            raise Refusal(f"{name} has shape {value.shape}, expected ({out[0].size},): one per row")
        if value.dtype.kind not in "iu" and value.size:
            raise Refusal(f"{name} has dtype {value.dtype}, expected integers")
    return tuple(value.astype(np.int64, copy=False) for value in out)


def tracklet_pid(tracklets: Tracklets, truth: Truth) -> Array:
    """(t,) the person in most crops of each tracklet; −1 where more than half the crops match nobody."""
    pid = truth.pid[tracklets.crop]
    out = np.full(len(tracklets), -1, np.int64)
    known = pid >= 0
    if not known.any():
        return out
    # Pairs that are there are counted: of single images a table of tracklets and persons is almost empty.
    pair, count = np.unique(np.stack([tracklets.tracklet, pid], 1)[known], axis=0, return_counts=True)
    order = np.lexsort((pair[:, 1], -count, pair[:, 0]))  # of a tracklet's persons the most frequent first
    owner, first, n = np.unique(pair[order, 0], return_index=True, return_counts=True)
    total = np.add.reduceat(count, np.cumsum(n) - n)
    enough = 2 * total >= tracklets.length[owner]
    out[owner[enough]] = pair[order[first[enough]], 1]
    return out
