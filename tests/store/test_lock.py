"""One writer: the second is told at once, whatever became of the first; readers are not asked."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from tracklearn.store import lock
from tracklearn.store.lock import InUseError, locked

HOLD = """
import sys
from tracklearn.store import lock
if sys.argv[2] == "no locks":
    lock.fcntl = None
with lock.locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["locks", "no locks"])
def kind(request, monkeypatch):
    """With the kernel's locks, and where a file system has none."""
    if request.param == "no locks":
        monkeypatch.setattr(lock, "fcntl", None)
    return request.param


@pytest.fixture
def holder(tmp_path, kind):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run"), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_is_told_who_is_writing(tmp_path, holder):
    with pytest.raises(InUseError, match=rf"run is being written by process {holder.pid} on .*: wait for it"):
        locked(tmp_path / "run").__enter__()
    holder.communicate("")
    with locked(tmp_path / "run"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_killed_holder_is_no_holder(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert os.listdir(tmp_path) == [".run.lock"]
    with locked(tmp_path / "run"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_process_may_lock_what_it_has_locked_in_any_order(tmp_path, kind):
    outer, inner = locked(tmp_path / "run"), locked(tmp_path / "a" / ".." / "run")
    (tmp_path / "a").mkdir()
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    assert (tmp_path / ".run.lock").exists()
    inner.__exit__(None, None, None)
    assert not (tmp_path / ".run.lock").exists()


def test_a_number_used_again_is_another_process(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    mark = {"pid": os.getpid(), "host": socket.gethostname(), "born": "1", "since": "then"}
    (tmp_path / ".run.lock").write_text(json.dumps(mark))
    with locked(tmp_path / "run"):
        pass
    (tmp_path / ".run.lock").write_text(json.dumps({**mark, "host": "another"}))
    with pytest.raises(InUseError, match=r"on another.*if it runs no more, delete .*\.run\.lock"):
        locked(tmp_path / "run").__enter__()
    (tmp_path / ".run.lock").write_text("")  # killed before it could say who it was
    with locked(tmp_path / "run"):
        pass


def test_a_file_system_without_locks_is_made_do_without(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with locked(tmp_path / "run"):
        assert json.loads((tmp_path / ".run.lock").read_text())["pid"] == os.getpid()
    assert os.listdir(tmp_path) == []
