"""Rows of the table of reliability: what was tried, what held, and each case that did not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Row:
    """One line of the table.

    Args:
        test: what was done to what.
        tried: cases.
        failed: one line for each case that did not hold.
        note: figures, or how the cases that held ended.
    """

    test: str
    tried: int = 0
    failed: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def held(self) -> int:
        """Cases that ended as they should."""
        return self.tried - len(self.failed)

    def add(self, fault: str | None) -> None:
        """Count a case; `fault` says what went wrong, None that nothing did."""
        self.tried += 1
        if fault is not None:
            self.failed.append(fault)


def markdown(rows: Iterable[Row], *, listed: int = 12) -> str:
    """The table, and below it the first `listed` failing cases of each row with the count of the rest."""
    rows = list(rows)
    lines = ["| test | tried | held | failed | note |", "|---|--:|--:|--:|---|"]
    lines += [f"| {r.test} | {r.tried} | {r.held} | {len(r.failed)} | {r.note} |" for r in rows]
    for row in rows:
        if row.failed:
            lines += ["", f"{row.test}:", *(f"- {line}" for line in row.failed[:listed])]
            if len(row.failed) > listed:
                lines.append(f"- and {len(row.failed) - listed} more")
    return "\n".join(lines)
