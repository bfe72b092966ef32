"""Which sources were slow and which gave nothing: what somebody wants to know of a thousand of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from tracklearn.app.formats import duration

SHOWN = 10  # of each kind
_SLOW = 0.5  # of the median number of frames a second


def table(sources: Sequence[Mapping[str, Any]]) -> str:
    """Lines on what the sources of a set took, then the slowest and those that gave nothing, if any.

    Args:
        sources: of the set's manifest. A source is slow where its frames a second are less than half of the
            median; folders of crops count images.
    """
    read = [s for s in sources if s["status"] == "ok"]
    seconds = sum(s["seconds"] for s in sources)
    frames = sum(_frames(s) for s in sources)
    head = (
        f"{len(read)} of {len(sources)} sources read: {frames:,} frames in {duration(seconds)} of work, "
        f"{frames / max(seconds, 1e-9):,.0f} a second and worker"
    )
    usual = median(s["per_second"] for s in read) if read else 0.0
    slow = sorted((s for s in read if s["per_second"] < _SLOW * usual), key=lambda s: s["per_second"])
    failed = [s for s in sources if s["status"] != "ok"]
    rows = [(*_named(s), f"{_frames(s):,}", f"{s['per_second']:,.0f}/s", "slow") for s in slow[:SHOWN]]
    rows += [(*_named(s), f"{_frames(s):,}", "", f"left out: {s['reason']}") for s in failed[:SHOWN]]
    more = max(len(slow) - SHOWN, 0) + max(len(failed) - SHOWN, 0)
    return "\n".join([head, *_lines(rows), *([f"  and {more} more"] if more else [])])


def _frames(source: Mapping[str, Any]) -> int:
    return int(source["counts"].get("frames", source["n_crops"]))


def _named(source: Mapping[str, Any]) -> tuple[str, str]:
    return str(source["camera"]), str(source["path"]).rstrip("/").rpartition("/")[2]


def _lines(rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    rows = [("camera", "source", "frames", "", ""), *rows]
    width = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for camera, source, frames, rate, told in rows:
        left = f"{camera:<{width[0]}}  {source:<{width[1]}}"
        lines.append(f"  {left}  {frames:>{width[2]}}  {rate:>{width[3]}}  {told}".rstrip())
    return lines
