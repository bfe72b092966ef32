"""Breaks every command at its calls to the disk, and looks at what `--resume` makes of what is left.

    python -m tests.faults.crash [--command NAME ...] [--quick] [--every-call] [--jobs N] [--out TABLE.md]

A command runs once, whole, while the shim writes down its calls. What it would have left had it been
killed before any of them, or in the middle of a write, or had the power failed there, is then made from
that journal (`crash_journal.py`). That the journal is whole is checked: played back, it must give the
very folder. Calls that fail, short writes, and kills by progress are real ones. Then the same command
goes on with `--resume`, and must end well, with the same bytes and nothing more. What equal folders lead
to is found out once.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import queue
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.faults.crash_commands import CASES, Case, Lab
from tests.faults.crash_journal import WRITE, Call, Disk, Tree, read_journal, read_tree
from tests.faults.crash_server import FAIL_FROM, FAIL_ONCE, KILL, SHORT, Outcome, why_not
from tests.faults.table import Row, table

N_KILLS = 200
WHOLE_EVERY = 24  # of the points, in the suite's half hour; `--every 1` takes hours
FEWEST = 8  # points of a short command all the same
_TIMES = "times.jsonl"  # of a run: seconds of every round, which a resumed one does not all know
_FAILURES = (
    ("fails once (EIO)", FAIL_ONCE, errno.EIO),
    ("fails from there on (ENOSPC)", FAIL_FROM, errno.ENOSPC),
    ("fails once (ENOSPC)", FAIL_ONCE, errno.ENOSPC),
    ("fails from there on (EIO)", FAIL_FROM, errno.EIO),
)


def points(calls: Sequence[Call]) -> list[int]:
    """Numbers, from 1, of the calls worth breaking: of writes in a row to a file first, middle and last."""
    found: list[int] = []
    first = 0
    for i in range(1, len(calls) + 1):
        before = calls[i - 1]
        if i < len(calls) and before.kind == calls[i].kind == WRITE and before.path == calls[i].path:
            continue
        found += sorted({first + 1, (first + i + 1) // 2, i})
        first = i
    return found


def _told(text: str) -> str:
    """A message without what differs from case to case, so that equal reasons are counted together."""
    text = re.sub(r"/\S*/(?=work|inputs)", "", " ".join(text.split()))
    text = re.sub(r"\.[0-9a-f]{8}\.tmp", ".X.tmp", text)
    text = re.sub(r"part-[0-9a-f]{24}|state-\d+", lambda m: m[0][:5] + "N", text)
    return text if len(text) <= 160 else text[:157] + "..."


def _named(path: str) -> str:
    return re.sub(r"\.[0-9a-f]{8}\.tmp", ".tmp", path)


def _final(text: str) -> str:
    """Names of temporary files as those of the files that they become."""
    return re.sub(r"\.([^\s/]+)\.[0-9a-f]{8}\.tmp", r"\1", text)


def _key(tree: Tree) -> str:
    found = hashlib.sha256()
    for path, content in sorted(tree.items()):
        size = None if content is None else len(content)
        found.update(repr((_named(path), size)).encode() + (content or b""))
    return found.hexdigest()


def difference(tree: Tree, want: Tree, *, more_is_fine: bool = False) -> str:
    """How a folder differs from the one of an undisturbed command; empty where it does not."""
    more = [] if more_is_fine else sorted({_named(p) for p in tree.keys() - want.keys()})
    less = sorted(want.keys() - tree.keys())
    other = [p for p in sorted(want.keys() & tree.keys()) if tree[p] != want[p] and not p.endswith(_TIMES)]
    parts = (("left behind", more), ("missing", less), ("other bytes", other))
    return "; ".join(f"{what}: {', '.join(names[:3])}" for what, names in parts if names)


class Trial:
    """One command under test: its undisturbed end, and what comes of the states it can be left in."""

    def __init__(self, lab: Lab, case: Case) -> None:
        self.lab, self.case = lab, case
        # Once in the server itself, which warms it, and once more in a process that has ended when others
        # go on with what it left: locks may tell by that.
        warm = lab.make(*case.argv, start=case.start, setup=case.setup)
        journal = lab.root / "journal"
        lab.reset(case.start)
        whole = self.run(case.argv, watch=lab.work, journal=journal)
        if whole.code:
            raise RuntimeError(f"ended with {whole.code}: {_last(whole.err)}")
        self.want = read_tree(lab.work)
        if off := difference(self.want, warm):
            raise RuntimeError(f"does not end the same way twice: {off}")
        self.calls = read_journal(journal, lab.work)
        journal.unlink()
        disk = Disk(case.start)
        for call in self.calls:
            disk.apply(call)
        if disk.tree() != self.want:
            raise RuntimeError(f"the shim missed calls: {difference(disk.tree(), self.want)}")
        self._outcomes: dict[str, str] = {}
        self._read: dict[str, str] = {}

    def run(self, argv: tuple[str, ...], **how: Any) -> Outcome:
        """A command line in the folder as it is; `how` as in `Server.run`."""
        return self.lab.server.run(argv, cwd=self.lab.work, setup=self.case.setup, **how)

    def broken(self, mode: int, call: int, error: int = errno.EIO, *, again: bool = False) -> Outcome:
        """The command, or the one that goes on, broken at a call."""
        argv = self.case.again if again else self.case.argv
        return self.run(argv, watch=self.lab.work, mode=mode, call=call, error=error)

    def resumed(self, tree: Tree | None = None, *, power_lost: bool = False) -> str:
        """Why `--resume` does not come to the same end from `tree` (None: from what lies there); or empty.

        After a loss of power a lock's file may be back though it had been removed: nobody holds it, and who
        next takes it removes it, so it does not count.
        """
        found = read_tree(self.lab.work) if tree is None else tree
        key = _key(found) + "lost" * power_lost
        if key not in self._outcomes:
            if tree is not None:
                self.lab.reset(tree)
            self._outcomes[key] = self._resume(".lock" if power_lost else None)
        return self._outcomes[key]

    def _resume(self, overlooked: str | None) -> str:
        outcome = self.run(self.case.again)
        left = read_tree(self.lab.work)
        if overlooked:
            left = {path: data for path, data in left.items() if not path.endswith(overlooked)}
        off = difference(left, self.want)
        if self.case.done_is_refused and outcome.code == 2 and "exists" in outcome.err and not off:
            return ""
        if outcome.code:
            return f"not resumed, exit {outcome.code}: {_told(_last(outcome.err))}"
        return f"resumed, {off}" if off else ""

    def readable(self, tree: Tree) -> str:
        """Why the reader finds nothing in `tree`; or empty."""
        key = _key(tree)
        if key not in self._read:
            self.lab.reset(tree)
            outcome = self.run(self.case.reader)
            self._read[key] = f"exit {outcome.code}: {_told(_last(outcome.err))}" if outcome.code else ""
        return self._read[key]

    def said(self, outcome: Outcome) -> str:
        """What is wrong with the end of a command whose disk failed; empty where it is one clear line."""
        last = _told(_last(outcome.err))
        if "Traceback" in outcome.err:
            return f"traceback: {last}"
        if outcome.code != 2:
            return f"exit {outcome.code}: {last}"
        if sum(line.startswith("tracklearn: ") for line in outcome.err.splitlines()) != 1:
            return f"not one line: {last}"
        known = {_final(name) for call in self.calls for name in (call.path, call.target)}
        known = known - {"", "."} | {self.lab.work.name}
        words = re.split(r"[\s:;,'\"()]+", _final(outcome.err))
        if not any(word == name or word.endswith(f"/{name}") for word in words for name in known):
            return f"no path: {last}"
        return ""


def _last(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "nothing said")


def crash_points(trial: Trial, chosen: Sequence[int]) -> Iterator[Row]:
    """Kills before and within the chosen calls, and losses of power there; rows as they are filled."""
    name = trial.case.name
    killed, half = Row(name, "killed before the call"), Row(name, "killed in half a write")
    synced, all_names = Row(name, "power lost"), Row(name, "power lost, names kept")
    read = Row(name, "readable when killed")
    wanted, disk = set(chosen), Disk(trial.case.start)
    for n, call in enumerate(trial.calls, 1):
        if n in wanted:
            where = f"call {n}: {_named(str(call))}"
            killed.add(trial.resumed(disk.tree()), where)
            if trial.case.reader:
                read.add(trial.readable(disk.tree()), where)
            if call.kind == WRITE and not call.error and len(call.data) > 1:
                half.add(trial.resumed(disk.half_written(call)), where)
            synced.add(trial.resumed(disk.after_power_loss(names_synced=True), power_lost=True), where)
            all_names.add(trial.resumed(disk.after_power_loss(names_synced=False), power_lost=True), where)
        disk.apply(call)
    end = "after the last call"
    done = Row(name, "power lost after the end")  # who was told that it is done must find it
    for names_synced, row in ((True, synced), (False, all_names)):
        left = disk.after_power_loss(names_synced=names_synced)
        row.add(trial.resumed(left, power_lost=True), end)
        done.add(difference(left, trial.want, more_is_fine=True), f"{end}, {row.test}")
    yield from (row for row in (killed, half, read, synced, all_names, done) if row.tried)


def failing_calls(trial: Trial, chosen: Sequence[int], *, every_way: bool = False) -> Iterator[Row]:
    """Each chosen call failed in one of four ways in turn (or in all), each chosen write cut short."""
    rows = {what: Row(trial.case.name, what) for what, _, _ in _FAILURES}
    kept = {what: Row(trial.case.name, f"{what}: --resume") for what, _, _ in _FAILURES}
    short = Row(trial.case.name, "a short write")
    for i, n in enumerate(chosen):
        where = f"call {n}: {_named(str(trial.calls[n - 1]))}"
        for what, mode, error in _FAILURES if every_way else [_FAILURES[i % len(_FAILURES)]]:
            trial.lab.reset(trial.case.start)
            outcome = trial.broken(mode, n, error)
            if outcome.code == 0:
                rows[what].add(difference(read_tree(trial.lab.work), trial.want), where)
                continue
            rows[what].add(trial.said(outcome), where)
            kept[what].add(trial.resumed(), where)
        call = trial.calls[n - 1]
        if call.kind == WRITE and len(call.data) > 1:
            trial.lab.reset(trial.case.start)
            outcome = trial.broken(SHORT, n)
            off = difference(read_tree(trial.lab.work), trial.want)
            bad = f"exit {outcome.code}: {_told(_last(outcome.err))}" if outcome.code else off
            short.add(bad, where)
    yield from (row for row in (*rows.values(), *kept.values(), short) if row.tried)


def kills_by_progress(trial: Trial, n_kills: int, *, seed: int = 0) -> Row:
    """Real kills: each at a random call of what is left to do, run after run, until there were enough."""
    row, draw = Row(trial.case.name, "killed by progress, again and again"), random.Random(seed)
    kills = chain = 0
    while kills < n_kills:
        trial.lab.reset(trial.case.start)
        chain += 1
        met: list[int] = []
        while kills < n_kills:
            at = draw.randint(1, len(trial.calls))
            outcome = trial.broken(KILL, at, again=bool(met))
            if outcome.code != -signal.SIGKILL:  # it had fewer calls left to do
                break
            met.append(at)
            kills += 1
        why = trial.resumed()
        for _ in met:
            row.add(why, f"chain {chain}, kills at {met}")
    return row


def try_command(
    lab: Lab, name: str, *, every: int = 1, every_call: bool = False, n_kills: int = N_KILLS
) -> list[Row]:
    """All rows of one command.

    Args:
        every: of the points, every so many, but `FEWEST` at least.
        every_call: each call is a point, and fails in every way (hours for all commands).
    """
    trial = Trial(lab, CASES[name](lab))
    chosen = list(range(1, len(trial.calls) + 1)) if every_call else points(trial.calls)
    step = every * (1 if every_call else trial.case.sparse)
    chosen = chosen[:: max(1, min(step, len(chosen) // FEWEST))]
    rows = list(crash_points(trial, chosen))
    rows += failing_calls(trial, chosen, every_way=every_call)
    if name == "run":
        rows.append(kills_by_progress(trial, n_kills))
    return rows


def try_commands(
    names: Sequence[str],
    *,
    every: int = 1,
    every_call: bool = False,
    n_kills: int = N_KILLS,
    jobs: int = 1,
) -> list[Row]:
    """Rows of the named commands in that order, `jobs` commands at a time."""
    left: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names:
        left.put(name)
    found: dict[str, list[Row]] = {}

    def work(root: Path) -> None:
        with Lab(root) as lab:
            while not left.empty():
                try:
                    name = left.get_nowait()
                except queue.Empty:
                    return
                try:
                    found[name] = try_command(lab, name, every=every, every_call=every_call, n_kills=n_kills)
                except RuntimeError as error:
                    found[name] = [Row(name, "undisturbed")]
                    found[name][0].add(_told(str(error)), "before anything was broken")
                print(table(found[name]), file=sys.stderr, flush=True)

    root = Path(tempfile.mkdtemp(prefix="crash-"))
    try:
        threads = [threading.Thread(target=work, args=(root / str(i),)) for i in range(min(jobs, len(names)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        shutil.rmtree(root)
    return [row for name in names for row in found.get(name, [])]


def whole(names: Sequence[str]) -> list[Row]:
    """These commands, a share of the points each; nothing where the shim cannot be used, which is said."""
    if reason := why_not():
        print(f"crash points are not tried: {reason}", file=sys.stderr)
        return []
    return try_commands(names, every=WHOLE_EVERY)


def main() -> int:
    """The command line; exit code 1 where anything did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.crash", description=__doc__.split("\n")[0])
    parser.add_argument("--command", action="append", choices=CASES, help="only this one; may be repeated")
    parser.add_argument("--quick", action="store_true", help="every 7th point of the main commands")
    parser.add_argument("--every", type=int, default=1, help="every so many of the points")
    parser.add_argument("--every-call", action="store_true", help="each call, each way (hours)")
    parser.add_argument("--jobs", type=int, default=1, help="commands at a time")
    parser.add_argument("--out", type=Path, help="file for the table")
    given = parser.parse_args()
    if reason := why_not():
        print(f"not tried: {reason}", file=sys.stderr)
        return 0
    names = given.command or (["train", "ingest", "index", "run"] if given.quick else list(CASES))
    every, n_kills = (7, N_KILLS // 7) if given.quick else (given.every, N_KILLS)
    rows = try_commands(names, every=every, every_call=given.every_call, n_kills=n_kills, jobs=given.jobs)
    text = table(rows)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n")
    return int(any(row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
