"""The whole fault suite: `python -m tests.faults [--part NAME ...] [--jobs N] [--out TABLE.md]`.

Every part is tried to its end; the exit code is 1 where anything did not hold.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from tests.faults import bounds, corruption, crash, degenerate, inputs
from tests.faults.crash_commands import CASES
from tests.faults.table import Row, table, timed

_CRASH = "crash points, failing calls, power loss"
_TRAIN = [name for name in CASES if name.startswith("train")]
_RUN = ["run", "run-changed"]
_REST = [name for name in CASES if name not in (*_TRAIN, *_RUN)]

# Each part: its name, and what tries it and gives the rows of its table; the longest first, so that two jobs
# end at about the same time.
PARTS: list[tuple[str, Callable[[], list[Row]]]] = [
    ("corruption: flipped bits, cut files", corruption.main),
    (f"{_CRASH}: other commands", partial(crash.whole, _REST)),
    ("degenerate sets", degenerate.main),
    ("hostile inputs", inputs.main),
    (f"{_CRASH}: run", partial(crash.whole, _RUN)),
    (f"{_CRASH}: train", partial(crash.whole, _TRAIN)),
    ("bounds of time and memory", bounds.main),
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
        begun = [(name, pool.submit(timed, part)) for name, part in chosen]
        found = [(name, *made.result()) for name, made in begun]
    text = "\n\n".join(
        f"## {name[0].upper()}{name[1:]} ({seconds / 60:.1f} min)\n\n{table(rows)}"
        for name, rows, seconds in found
    )
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n")
    return int(any(row.failed for _, rows, _ in found for row in rows))


if __name__ == "__main__":
    sys.exit(main())
