"""Accounts of what was left out: counted by reason, listed up to a length that a person reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

MAX_LISTED = 100


def readable(name: str) -> str:
    """`name` with "?" for what is not UTF-8: file names may be any bytes, manifests and tables may not.

    >>> readable("caf\\udce9.mp4")
    'caf?.mp4'
    """
    return name.encode("utf-8", "replace").decode()


def skip(item: str, reason: str, n: int = 1) -> dict[str, Any]:
    """One entry of a list of skipped things."""
    return {"item": readable(item), "reason": reason, "n": n}


def shorten(skipped: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first `MAX_LISTED` entries of every reason, and how many more there are of it, out of how many."""
    listed, rest, total = Counter[str](), Counter[str](), Counter[str]()
    short = []
    for entry in skipped:
        reason, n = entry["reason"], entry["n"]
        total[reason] += n
        listed[reason] += 1
        if listed[reason] <= MAX_LISTED:
            short.append(entry)
        else:
            rest[reason] += n
    return short + [skip(f"more, of {total[reason]:,}", reason, n) for reason, n in rest.items()]
