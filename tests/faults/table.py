"""What a test of many cases found: the rows of a Markdown table, and why what failed did."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass
class Row:
    """One line of the table: what was tried, and why what failed did."""

    subject: str
    test: str
    tried: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    example: dict[str, str] = field(default_factory=dict)
    note: str = ""  # figures, or how the cases ended that held

    def add(self, why: str, where: str) -> None:
        """Count one case: `why` it failed, empty where it held; `where` it was."""
        self.tried += 1
        if why:
            self.failed[why] += 1
            self.example.setdefault(why, where)

    @property
    def held(self) -> int:
        """How many held."""
        return self.tried - sum(self.failed.values())

    def reasons(self) -> list[str]:
        """Each reason with its count and its first place."""
        return [f"{n} × {why} (first: {self.example[why]})" for why, n in self.failed.most_common()]


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table with their sum, and below it why what failed did, and the notes."""
    rows = list(rows)
    lines = ["| what | test | tried | held | failed |", "|---|---|---|---|---|"]
    lines += [f"| {r.subject} | {r.test} | {r.tried} | {r.held} | {r.tried - r.held} |" for r in rows]
    tried, held = sum(r.tried for r in rows), sum(r.held for r in rows)
    lines.append(f"| all | | {tried} | {held} | {tried - held} |")
    told = [f"- {r.subject}, {r.test}: {reason}" for r in rows for reason in r.reasons()]
    told += [f"- {r.subject}, {r.test}: {r.note}" for r in rows if r.note]
    return "\n".join(lines + (["", *told] if told else []))


def timed(part: Callable[[], list[Row]]) -> tuple[list[Row], float]:
    """The rows of a part, and the seconds that it took."""
    began = time.monotonic()
    return part(), time.monotonic() - began
