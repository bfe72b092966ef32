"""What was lost on the way from the sources to a run: one account for the screen, the report and --json."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

MAX_LINES = 40
_PLURAL = re.compile(r"[a-z ]+s")  # "boxes" and "result boxes", where other items are names of files
_REST = re.compile(r"more, of [\d,]+")  # `folders.shorten`'s item for what is not listed one by one


def losses(manifest: Mapping[str, Any], run: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Every loss that the manifest of a set, and that of a run on it, account for.

    Args:
        manifest: of a tracklet set.
        run: of a run.

    Returns:
        Mappings of `kind` ("source" that gave nothing, "part" of one that was left out, "warning" of one),
        `source` (its camera), `item`, `reason` and the number `n`.
    """
    found: list[dict[str, Any]] = []
    for source in manifest.get("sources", ()):
        camera, path = str(source.get("camera") or ""), str(source.get("path") or "")

        def add(kind: str, item: str, reason: str, n: int, name: str = camera or path) -> None:
            found.append({"kind": kind, "source": name, "item": item, "reason": reason, "n": n})

        # The manifest has places as seen from the set: for a reader the camera and the file's name do.
        file = path.rstrip("/").rpartition("/")[2]
        told = not camera or file.partition(".")[0] == camera  # cameras are called after their files
        shown = file if told and file else f"{camera} ({file})" if file else camera
        if source.get("reason"):
            add("source", shown, str(source["reason"]), 1)
        for entry in source.get("skipped", ()):
            add("part", str(entry["item"]), str(entry["reason"]), int(entry["n"]))
        for text in source.get("warnings", ()):
            add("warning", shown, str(text), 1)
    if run is not None and (n := int(run.get("broken_crops") or 0)):
        why = "pictures that could not be decoded: training saw them grey"
        found.append({"kind": "part", "source": "crops", "item": "crops", "reason": why, "n": n})
    return found


def lines(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for every kind of loss, over all sources; `MAX_LINES` at most.

    >>> lines([{"kind": "part", "source": "hall", "item": "boxes", "reason": "too small", "n": 3}])
    ['left out: 3 boxes: too small (hall)']
    """
    told = [
        f"{'skipped' if entry['kind'] == 'source' else 'note on'} {entry['item']}: {entry['reason']}"
        for entry in found
        if entry["kind"] != "part"
    ]
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for entry in found:
        if entry["kind"] == "part":
            item = entry["item"] if _PLURAL.fullmatch(entry["item"]) else ""
            groups.setdefault((item, entry["reason"]), []).append(entry)
    told += [_line(item, reason, entries) for (item, reason), entries in groups.items()]
    if len(told) > MAX_LINES:
        rest = len(told) - MAX_LINES + 1
        told = [*told[: MAX_LINES - 1], f"{rest} more lines of this kind: the set's manifest.json has all"]
    return told


def _line(item: str, reason: str, entries: Sequence[Mapping[str, Any]]) -> str:
    n = sum(entry["n"] for entry in entries)
    by_source: dict[str, int] = {}
    for entry in entries:
        by_source[entry["source"]] = by_source.get(entry["source"], 0) + entry["n"]
    counts = list(by_source.items())
    where = counts[0][0] if len(counts) == 1 else ", ".join(f"{name} {own:,}" for name, own in counts[:5])
    where += f" and {len(counts) - 5} more" if len(counts) > 5 else ""
    if not item:
        named = [entry["item"] for entry in entries if not _REST.fullmatch(entry["item"])]
        item = named[0] if named else "items"
        if n > 1:
            return f"left out: {item} and {n - 1:,} more: {reason} ({where})"
        return f"left out: {item}: {reason} ({where})"
    return f"left out: {n:,} {item}: {reason} ({where})"
