"""What a crash, a failing disk or a loss of power leaves is gone on with to the same bytes.

A few points of the main commands in the long test; all of them in the slow one and in `make test-faults`.
"""

import os

import pytest

from tests.faults.crash import Trial, crash_points, failing_calls, points, try_commands
from tests.faults.crash_commands import CASES, Lab
from tests.faults.crash_journal import FSYNC, LINK, MKDIR, OPEN, RENAME, RMDIR, UNLINK, WRITE, Call, Disk
from tests.faults.crash_server import why_not
from tests.faults.table import table

needs_shim = pytest.mark.skipif(bool(why_not()), reason=why_not() or "none")

# Of the points of each command every so many: what the long test has time for. The slow test takes all.
FEW = {"train": 130, "ingest": 180, "index": 27, "run": 640}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with Lab(tmp_path_factory.mktemp("crash") / "lab") as made:
        yield made


@pytest.mark.long
@pytest.mark.timeout(1200)  # seconds of an idle machine, but nobody promises one
@needs_shim
@pytest.mark.parametrize("name", FEW)
def test_stopped_anywhere_resume_comes_to_the_same_bytes(lab, name):
    trial = Trial(lab, CASES[name](lab))
    chosen = points(trial.calls)[:: -FEW[name]][::-1]  # the last calls are where most goes wrong
    rows = [*crash_points(trial, chosen), *failing_calls(trial, chosen[::2])]
    assert sum(row.tried for row in rows) > 2 * len(chosen)
    assert not any(row.failed for row in rows), table(rows)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@needs_shim
@pytest.mark.parametrize("name", CASES)
def test_stopped_at_every_point_resume_comes_to_the_same_bytes(name):
    rows = try_commands([name])
    assert not any(row.failed for row in rows), table(rows)


# ----------------------------------------------------------------------- the model of the disk itself


def call(kind, path, target="", *, data=b"", at=0, flags=0):
    return Call(kind, flags, at, 0, path, target, data)


def played(calls, start=None):
    disk = Disk(start or {})
    for one in calls:
        disk.apply(one)
    return disk


def test_half_a_write_and_what_was_never_synced():
    written = call(WRITE, "a", data=b"abcd")
    disk = played([call(OPEN, "a", flags=os.O_CREAT)])
    assert disk.half_written(written) == {"a": b"ab"}
    assert disk.tree() == {"a": b""}
    disk.apply(written)
    assert disk.tree() == {"a": b"abcd"}
    assert disk.after_power_loss(names_synced=True) == {}
    assert disk.after_power_loss(names_synced=False) == {"a": b""}
    disk.apply(call(FSYNC, "a"))
    assert disk.after_power_loss(names_synced=False) == {"a": b"abcd"}
    assert disk.after_power_loss(names_synced=True) == {}
    disk.apply(call(FSYNC, "."))
    assert disk.after_power_loss(names_synced=True) == {"a": b"abcd"}


def test_a_rename_that_was_not_synced_leaves_the_old_file():
    start = {"a": b"old", "b.tmp": b"new"}
    disk = played([call(RENAME, "b.tmp", "a")], start)
    assert disk.tree() == {"a": b"new"}
    assert disk.after_power_loss(names_synced=True) == start
    disk.apply(call(FSYNC, "."))
    assert disk.after_power_loss(names_synced=True) == {"a": b"new"}


def test_a_folder_exchanged_for_another_is_there_at_every_moment():
    start = {"new": None, "new/x": b"2", "old": None, "old/x": b"1"}
    disk = played([call(RENAME, "new", "old", flags=2)], start)
    assert disk.tree() == {"new": None, "new/x": b"1", "old": None, "old/x": b"2"}


def test_links_share_their_data_and_removed_names_come_back_without_a_sync():
    disk = played(
        [
            call(MKDIR, "d"),
            call(LINK, "a", "d/b"),
            call(WRITE, "d/b", data=b"X", at=1),
            call(UNLINK, "a"),
        ],
        {"a": b"abc", "e": None},
    )
    assert disk.tree() == {"d": None, "d/b": b"aXc", "e": None}
    disk.apply(call(RMDIR, "e"))
    assert disk.after_power_loss(names_synced=True) == {"a": b"abc", "e": None}
    assert disk.after_power_loss(names_synced=False) == {"d": None, "d/b": b"abc"}


def test_points_keep_first_middle_and_last_of_writes_in_a_row():
    calls = [call(OPEN, "a"), *[call(WRITE, "a")] * 5, call(WRITE, "b"), call(FSYNC, "a")]
    assert points(calls) == [1, 2, 4, 6, 7, 8]
