"""What a command says when files, settings or the machine are the reason; a defect keeps its traceback."""

import errno
import json
import sys
import tempfile

import numpy as np
import pytest

from tracklearn.app import cli
from tracklearn.app.refusals import out_of_memory, refusal
from tracklearn.types import Refusal


def short_of_memory():
    """The errors of the libraries beneath, as they raise them."""
    import av
    import cv2
    import pyarrow as pa
    import torch

    found = [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ]
    found.append(RuntimeError("CUDA error: out of memory"))
    found.append(ImportError("libtorch_cpu.so: failed to map segment from shared object"))
    found.append(RuntimeError("can't start new thread"))
    found.append(av.error.MemoryError(errno.ENOMEM, "Cannot allocate memory"))
    found.append(pa.lib.ArrowMemoryError("malloc of size 64 failed"))
    for fails in (
        lambda: np.empty(1 << 60, np.uint8),
        lambda: torch.empty(1 << 60, dtype=torch.uint8),
        lambda: pa.allocate_buffer(1 << 60),
        lambda: cv2.resize(np.zeros((1, 1), np.uint8), (2**31 - 1, 2**30)),
    ):
        try:
            fails()
        except Exception as error:
            found.append(error)
    assert len(found) == 12
    return found


def test_every_library_s_lack_of_memory_is_known():
    for error in short_of_memory():
        assert out_of_memory(error), repr(error)
        line = refusal(error, command="train")
        assert "out of memory" in line
        assert "train.cache_bytes" in line
        assert "\n" not in line


def test_the_remedy_belongs_to_the_command_and_the_device():
    assert "the device is out of memory" in refusal(RuntimeError("CUDA out of memory"), command="run")
    assert "train.cache_bytes" not in refusal(MemoryError(), command="ingest")
    assert "weights w.pth need more" in refusal(MemoryError("weights w.pth need more memory than there is"))


@pytest.mark.parametrize(
    "defect",
    [
        RuntimeError("shape mismatch"),
        KeyError("x"),
        TypeError("x"),
        AssertionError(),
        ZeroDivisionError(),
        ValueError("x"),
    ],
)
def test_a_defect_is_not_the_user_s(defect):
    assert refusal(defect) is None


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "a/b: No space left on device: make room"),
        (OSError(errno.EIO, "Input/output error", "a/b"), "a/b: Input/output error"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "a: Permission denied"),
        (FileNotFoundError("no such run: a"), "no such run: a"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a"), "a: No such file or directory"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a"), "a: Not a directory"),
        (Refusal("camid has"), "camid has"),
    ],
)  # fmt: skip
def test_a_disk_s_errors_name_the_file(error, line):
    assert refusal(error).startswith(line)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_command_says_it_in_one_line_and_prints_nothing_else(monkeypatch, capsys, as_json):
    def fails(*args, **options):
        raise MemoryError("weights \x1b[31mred need more memory than there is")

    monkeypatch.setattr(cli, "app", fails)
    monkeypatch.setattr(sys, "argv", ["tracklearn", "train", *(["--json"] if as_json else [])])
    monkeypatch.delenv("TRACKLEARN_DEBUG", raising=False)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("tracklearn: out of memory (weights")
    assert "\x1b" not in err


@pytest.mark.parametrize(
    "fails",
    [lambda: np.zeros(3).reshape(2, 2), lambda: {}["camera"], lambda: Exception("two\nlines").missing],
)
def test_a_defect_is_one_line_and_its_traceback_a_file(monkeypatch, capsys, tmp_path, fails):
    monkeypatch.setattr(cli, "app", fails)
    monkeypatch.setattr(sys, "argv", ["tracklearn", "train"])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("TRACKLEARN_DEBUG", raising=False)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (1, "")
    (line,) = err.splitlines()
    (file,) = tmp_path.iterdir()
    assert line.startswith("tracklearn: this is a defect of the program: ")
    assert line.endswith(f"the traceback in {file}")
    assert "Traceback (most recent call last)" in file.read_text()
    # Where no file can be written the traceback itself is what a report needs.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(SystemExit):
        cli.main()
    assert "Traceback (most recent call last)" in capsys.readouterr().err


FAILING = [
    ["ingest", "none.mp4", "--out", "s"],
    ["train", "none", "--out", "r"],
    ["index", "none", "none"],
    ["search", "none", "0"],
    ["report", "none"],
    ["run", "none.mp4", "--out", "w"],
    ["evaluate", "none", "--data", "none"],
    ["experiment", "none", "--out", "x"],
    ["noise", "measure", "--tracks", "none", "--truth", "none"],
    ["noise", "simulate", "none", "--out", "s"],
]


@pytest.mark.parametrize("arguments", FAILING, ids=lambda a: " ".join(a[:2]))
def test_with_json_a_failure_prints_nothing_on_standard_output(call, arguments):
    code, out, err = call(*arguments, "--json")
    assert (code, out) == (2, "")
    assert err.strip()
    with pytest.raises(json.JSONDecodeError):
        json.loads(err)
