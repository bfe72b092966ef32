"""Forgetting that is killed anywhere is finished or has never been, when a folder is opened next."""

import re
import signal

import numpy as np
import pytest

from tests.app.forgettable import build, person_of
from tests.faults.crash import points
from tests.faults.crash_journal import RENAME, WRITE, Disk, read_journal, read_tree, write_tree
from tests.faults.crash_server import KILL, Server, why_not
from tracklearn.app import check, people
from tracklearn.store.gallery.open import open_gallery
from tracklearn.store.gallery.steps import Naming, Step

pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "none"),
    pytest.mark.timeout(1800),  # seconds of an idle machine, but nobody promises one
]
FEWEST = 24  # points of the default run


class Forgetting:
    """The command, what its folder was and becomes, and its calls to the disk."""

    def __init__(self, root):
        self.server = Server(root / "server")
        self.work = root / "work"
        first = build(root / "first")
        person = person_of(first, 0)
        with open_gallery(first / "run" / "gallery") as gallery:
            known = people.current(first / "run", gallery)
            known.apply(Step("name", names=(Naming(person, "", "Anna"),)))
        self.start = read_tree(first)
        self.argv = ("forget", "run", str(person), "--yes")
        write_tree(self.work, self.start)
        journal = root / "journal"
        done = self.server.run(self.argv, cwd=self.work, watch=self.work, journal=journal)
        assert done.code == 0, done.err
        self.want = settled(read_tree(self.work))
        self.calls = read_journal(journal, self.work)
        assert self.want != settled(self.start)

    def disks(self, chosen):
        """Call and disk before each of the chosen calls."""
        disk, wanted = Disk(self.start), set(chosen)
        for n, call in enumerate(self.calls, 1):
            if n in wanted:
                yield n, call, disk
            disk.apply(call)

    def outcome(self, folder, tree):
        """ "before" or "after": which of the two the folder is, once it has been opened; else what it is."""
        if tree is not None:
            write_tree(folder, tree)
        bad = [line for each in check.check(folder) for line in each.damages]
        if bad:
            return f"damaged: {bad}"
        found, ends = settled(read_tree(folder)), (settled(self.start), self.want)
        if found in ends:
            return ("before", "after")[ends.index(found)]
        off = [sorted({p for p in found.keys() | w.keys() if found.get(p, 0) != w.get(p, 0)}) for w in ends]
        return f"neither, but for {min(off, key=len)[:6]}"


def settled(tree):
    """A folder without the files of locks, which a loss of power may bring back, and without the hour."""
    kept = {path: data for path, data in tree.items() if not path.endswith(".lock")}
    for path, data in kept.items():
        if path.endswith("forgotten.jsonl"):
            kept[path] = re.sub(rb'"at": "[^"]*"', b"", data)
    return kept


@pytest.fixture(scope="module")
def forgetting(tmp_path_factory):
    made = Forgetting(tmp_path_factory.mktemp("forget"))
    yield made
    made.server.close()


def decided(calls):
    """The number of the call that gives the decision its name."""
    return next(n for n, c in enumerate(calls, 1) if c.kind == RENAME and c.target.endswith("intents.json"))


def chosen_few(calls):
    """So many points over all calls, some of them close to where it is decided, and the last."""
    at = decided(calls)
    every = points(calls)
    spread = [every[i] for i in np.unique(np.linspace(0, len(every) - 1, FEWEST - 8).astype(int))]
    return sorted({*spread, *range(at - 2, at + 5), len(calls)})


def test_killed_anywhere_it_is_finished_or_has_never_been(forgetting, tmp_path):
    at = decided(forgetting.calls)
    chosen = chosen_few(forgetting.calls)
    assert len(chosen) >= 20
    seen = {}
    for n, call, disk in forgetting.disks(chosen):
        seen[n] = forgetting.outcome(tmp_path / f"killed-{n}", disk.tree())
        if call.kind == WRITE and len(call.data) > 1 and not call.error:
            seen[n, "half"] = forgetting.outcome(tmp_path / f"half-{n}", disk.half_written(call))
    wrong = {
        where: found
        for where, found in seen.items()
        if found != ("after" if (where if isinstance(where, int) else where[0]) > at else "before")
    }
    assert not wrong
    assert {"before", "after"} == set(seen.values())


def test_a_process_that_is_really_killed_leaves_the_same(forgetting, tmp_path):
    at = decided(forgetting.calls)
    for n, want in ((at - 5, "before"), (at + 6, "after")):
        folder = tmp_path / str(n)
        write_tree(folder, forgetting.start)
        done = forgetting.server.run(forgetting.argv, cwd=folder, watch=folder, mode=KILL, call=n)
        assert done.code == -signal.SIGKILL
        assert forgetting.outcome(folder, None) == want


@pytest.mark.slow
def test_killed_at_every_point_or_without_power(forgetting, tmp_path):
    wrong = {}
    for n, _, disk in forgetting.disks(points(forgetting.calls)):
        trees = {"killed": disk.tree()}
        trees |= {f"power {s}": disk.after_power_loss(names_synced=s) for s in (True, False)}
        for how, tree in trees.items():
            if (found := forgetting.outcome(tmp_path / f"{n}-{how}", tree)) not in ("before", "after"):
                wrong[n, how] = found
    assert not wrong
