"""The whole fault suite: `python -m tests.faults [--part NAME ...] [--jobs N] [--out TABLE.md]`.

Every part is tried to its end; the exit code is 1 where anything did not hold.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tests.faults import bounds, corruption, crash, degenerate, inputs
from tests.faults.table import Row, table

# Each part: its name, and what tries it and gives the rows of its table; the longest first.
PARTS: list[tuple[str, Callable[[], list[Row]]]] = [
    ("crash points, failing calls, power loss", crash.whole),
    ("corruption: flipped bits, cut files", corruption.main),
    ("bounds of time and memory", bounds.main),
    ("hostile inputs", inputs.main),
    ("degenerate sets", degenerate.main),
]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.split("\n")[0])
    parser.add_argument("--part", action="append", help="only parts with this in their name; may be repeated")
    parser.add_argument("--jobs", type=int, default=1, help="parts at a time")
    parser.add_argument("--out", type=Path, help="file for the tables (Markdown)")
    given = parser.parse_args()
    chosen = [p for p in PARTS if not given.part or any(word in p[0] for word in given.part)]
    # Processes of their own: parts change the working folder.
    with ProcessPoolExecutor(given.jobs, get_context("spawn")) as pool:
        begun = [(name, pool.submit(part)) for name, part in chosen]
        found = [(name, rows.result()) for name, rows in begun]
    text = "\n\n".join(f"## {name[0].upper()}{name[1:]}\n\n{table(rows)}" for name, rows in found)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n")
    return int(any(row.failed for _, rows in found for row in rows))


if __name__ == "__main__":
    sys.exit(main())
