"""Any user, any machine: no home, no cache, odd file systems, terminals that cannot show a sign, any name."""

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import urllib.request
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.app.conftest import QUICK
from tests.app.made_files import put
from tracklearn.app import cli
from tracklearn.store import cache, files, published, weights
from tracklearn.store.files import beside, cannot_map, read_arrays, write_arrays
from tracklearn.store.sets.tracklets import open_set

pytestmark = pytest.mark.long

# One batch: what is asked here is whether every step comes to its end.
SHORT = [*QUICK, "tmc.epochs=1", "tmc.iterations=1"]
SETTINGS = ["--weights", "none", "--preset", "cpu", *(p for s in SHORT for p in ("--set", s))]


def people(folder, cameras=(1, 2), n=6):
    """Folders of crops of six persons in each camera."""
    made = []
    for camera in cameras:
        for person in range(n):
            for i in range(7):
                put(folder / f"cam{camera}" / f"p{person}" / f"{i}.jpg", person, person * 7 + i)
        made.append(folder / f"cam{camera}")
    return made


def homeless(monkeypatch, home):
    """What a container's user without an entry in the table of users meets."""
    for name in ("TRACKLEARN_CACHE", "XDG_CACHE_HOME", "HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    if home:
        monkeypatch.setenv("HOME", str(home))
    else:

        def nobody(_):
            raise KeyError("getpwuid(): uid not found")

        monkeypatch.setattr("pwd.getpwuid", nobody)


# A file stands in the way of any folder, even for root.
@pytest.mark.parametrize("home", ["", "file/in/the/way"])
def test_without_a_home_everything_but_the_download_works(tmp_path, call, monkeypatch, home):
    (tmp_path / "file").write_text("")
    homeless(monkeypatch, tmp_path / home if home else "")
    sources = people(tmp_path)
    code, _, err = call("ingest", *sources, "--out", "set")
    assert (code, err) == (0, "")
    code, _, err = call("train", "set", "--out", "run", "--preset", "cpu")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "TRACKLEARN_CACHE" in err
    assert "--weights none" in err
    code, _, err = call("train", "set", "--out", "run", *SETTINGS)
    assert code == 0, err


def test_a_cache_named_with_a_tilde_needs_no_home_to_be_refused_in_one_line(monkeypatch, tmp_path):
    homeless(monkeypatch, "")
    monkeypatch.setenv("TRACKLEARN_CACHE", "~/cache")
    assert cache.cache_folder() == Path("~/cache")
    with pytest.raises(FileNotFoundError, match=r"no weights at ~/mine\.pth"):
        weights.load("~/mine.pth", backbone=None)


class _Answer(io.BytesIO):
    headers = {"Content-Length": "4"}  # noqa: RUF012


def test_a_full_home_names_the_folder_and_the_ways_out(monkeypatch, tmp_path):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: _Answer(b"data"))
    monkeypatch.setattr(os, "fsync", full)
    file = replace(published.IMAGENET["mobilenet_v2"], sha256="3a6eb079")  # begins the sum of b"data"
    monkeypatch.setattr(published, "_TORCH", b"data")
    monkeypatch.setitem(published.IMAGENET, "mobilenet_v2", file)
    with pytest.raises(ValueError, match=r"kept in .*c \(the disk is full\): .*TRACKLEARN_CACHE"):
        weights.load("imagenet", backbone="mobilenet_v2", cache=tmp_path / "c")
    assert os.listdir(tmp_path / "c") == []


def test_a_warning_of_the_program_is_one_line(monkeypatch, capsys):
    foreign = []
    monkeypatch.setattr(warnings, "showwarning", lambda *given: foreign.append(str(given[0])))
    cli._speak_plainly()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn_explicit("kernels\ncannot be kept", RuntimeWarning, cli.__file__, 1)
        warnings.warn_explicit("foreign", RuntimeWarning, "/elsewhere/a.py", 7)
    err = capsys.readouterr().err
    assert (err, foreign) == ("tracklearn: kernels cannot be kept\n", ["foreign"])


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_syncs_no_folder_takes_part_in_every_step(tmp_path, call, monkeypatch, number):
    real = os.fsync

    def picky(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    sources = people(tmp_path)
    monkeypatch.setattr(os, "fsync", picky)
    code, _, err = call("run", *sources, "--out", "w", *SETTINGS)
    assert code == 0, err
    assert call("search", "w/run", "0", "-k", "2")[0] == 0
    assert call("report", "w/run", "--resume")[0] == 0
    number = errno.EIO  # what is no refusal but a fault stays one
    with pytest.raises(OSError, match="cannot be written"):
        files.sync_folder(tmp_path)


def test_a_file_system_without_hard_links_or_locks_or_maps(tmp_path, call, monkeypatch):
    """A run on it is byte for byte that of an ordinary one."""
    sources = people(tmp_path)
    assert call("run", *sources, "--out", "w", *SETTINGS)[0] == 0

    import fcntl

    import pyarrow as pa
    import safetensors

    def refuse(number):
        def refusing(*_, **__):
            raise OSError(number, os.strerror(number))

        return refusing

    def without_maps(function, name):
        def read(*arguments, **named):
            if named.get(name):
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
            return function(*arguments, **named)

        return read

    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOLCK))
    monkeypatch.setattr(pa, "memory_map", refuse(errno.ENODEV))
    monkeypatch.setattr(np, "load", without_maps(np.load, "mmap_mode"))
    monkeypatch.setattr(safetensors, "safe_open", refuse(errno.ENODEV))
    for number in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
        monkeypatch.setattr(os, "link", refuse(number))
        odd = f"odd{number}"
        code, _, err = call("run", *sources, "--out", odd, *SETTINGS)
        assert code == 0, err
        assert call("search", f"{odd}/run", "0", "-k", "2")[0] == 0
        for name in ("set/crops.parquet", "set/shard-00000.arrow", "run/weights.safetensors"):
            assert (tmp_path / odd / name).read_bytes() == (tmp_path / "w" / name).read_bytes(), name


def test_arrays_are_read_where_nothing_can_be_mapped(tmp_path, monkeypatch):
    import safetensors

    write_arrays(tmp_path / "a", {"x": np.arange(3)}, {"note": "é"})
    mapped = read_arrays(tmp_path / "a")

    def refuse(*_, **__):
        raise OSError("No such device (os error 19)")

    monkeypatch.setattr(safetensors, "safe_open", refuse)
    read, meta = read_arrays(tmp_path / "a")
    assert (read["x"].tolist(), meta) == (mapped[0]["x"].tolist(), mapped[1]) == ([0, 1, 2], {"note": "é"})
    (tmp_path / "a").write_bytes(b"\xff" * 30)
    with pytest.raises(files.DamagedError, match="is damaged"):
        read_arrays(tmp_path / "a")
    assert not cannot_map(OSError(errno.EIO, "I/O error"))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "cp932", "utf-8"])
def test_an_output_that_cannot_show_a_sign_stops_nothing(tmp_path, call, monkeypatch, encoding):
    """Every command that works on a run; names hold what no old code page has."""
    people(tmp_path)
    names = ["日本 – ×…é", "🎥 שלום"]
    for camera, name in enumerate(names, 1):
        (tmp_path / f"cam{camera}").rename(tmp_path / name)

    def command(*arguments):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            patch.setattr(sys, "argv", ["tracklearn", *map(str, arguments)])
            with pytest.raises(SystemExit) as stop:
                cli.main()
            assert not stop.value.code, streams[1].buffer.getvalue()
        for stream in streams:
            stream.flush()
        return [stream.buffer.getvalue().decode(encoding) for stream in streams]

    (tmp_path / names[0] / "p0" / "ü–.jpg").write_bytes(b"")
    out, err = command("ingest", *names, "--out", "s–t", "--json")
    assert json.loads(out)["cameras"] == names
    assert "left out: p0/" in err
    command("train", "s–t", "--out", "r…n", *SETTINGS, "--dry-run")
    out, _ = command("train", "s–t", "--out", "r…n", *SETTINGS, "--json")
    assert json.loads(out)["run"] == "r…n"
    command("index", "r…n", "s–t")
    out, _ = command("search", "r…n", "0", "-k", "3")
    assert len(out.splitlines()) > 3
    out, _ = command("search", "r…n", "0", "-k", "3", "--json")
    assert json.loads(out)["results"]
    command("report", "r…n", "--resume")
    command("datasets")
    for name in ("ingest", "train", "noise measure", "experiment"):
        command(*name.split(), "--help")


def test_bars_are_drawn_on_a_terminal_that_knows_ascii_alone(monkeypatch):
    from tracklearn.app.commands.bars import Bars

    monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="replace")
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    with Bars() as bars:
        bars("ingest – 日本", 1, 2)
        bars.progress.refresh()
        bars.note("é")
    stream.flush()
    assert b"1/2" in stream.buffer.getvalue()


def test_closed_streams_are_nobody_s_fault(tmp_path):
    people(tmp_path, cameras=(1,), n=1)
    script = "import sys; sys.argv = ['tracklearn', 'ingest', 'cam1', '--out', 'o']; "
    script += "from tracklearn.app.cli import main; main()"
    done = subprocess.run(f'exec "{sys.executable}" -c "{script}" >&- 2>&-', shell=True, cwd=tmp_path)
    assert done.returncode == 0
    assert open_set(tmp_path / "o").tracklets.n_crops == 7


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_output_names_the_output(tmp_path):
    people(tmp_path, cameras=(1,), n=1)
    script = "import sys; sys.argv = ['tracklearn', 'ingest', 'cam1', '--out', 'o']; "
    script += "from tracklearn.app.cli import main; main()"
    with open("/dev/full", "w") as full:
        run = [sys.executable, "-c", script]
        done = subprocess.run(run, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "standard output: No space left on device" in done.stderr


NAMES = [
    "12:30:45",
    "cam1:front",
    "e\N{COMBINING ACUTE ACCENT}-nfd",
    "é-nfc",
    "🎥👩🏽‍🦰",
    "שלום",
    "two\nlines",
    "bell\a\x1b[2J",
    "caf\udce9",  # bytes that are no UTF-8
    '\'quoted "$HOME" %s {camera}',
    "-dash",
    "n" * 250,
    "日" * 83,
]


@pytest.mark.parametrize("name", NAMES)
def test_a_camera_and_a_set_may_have_any_name(tmp_path, call, name):
    people(tmp_path, cameras=(1,), n=2)
    (tmp_path / "cam1").rename(tmp_path / name)
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / name
    code, text, err = call("ingest", tmp_path / name, "--out", out, "--json")
    assert (code, err) == (0, "")
    assert json.loads(text)["cameras"] == [name.encode(errors="replace").decode()]
    assert open_set(out).tracklets.n_crops == 14
    assert os.listdir(tmp_path / "out") == [name]
    assert call("ingest", tmp_path / name, "--out", out, "--resume")[0] == 0


def test_a_run_may_have_a_name_that_is_no_text(tmp_path, call):
    sources = people(tmp_path)
    sources[0] = sources[0].rename(tmp_path / "caf\udce9")
    code, _, err = call("run", *sources, "--out", "w\udce9", *SETTINGS)
    assert code == 0, err
    query = Path("q\udce9.jpg")
    put(query, 1, 1)
    assert call("search", "w\udce9/run", query, "-k", "2")[0] == 0
    assert call("index", "w\udce9/run", "w\udce9/set", "--resume")[0] == 0


def test_two_normal_forms_of_a_name_are_two_cameras(tmp_path, call):
    for camera, name in ((1, "é"), (2, "e\N{COMBINING ACUTE ACCENT}")):
        people(tmp_path, cameras=(camera,), n=1)
        (tmp_path / f"cam{camera}").rename(tmp_path / name)
    if len([n for n in os.listdir(tmp_path) if not n.isascii()]) < 2:
        pytest.skip("this file system takes both for one name")
    code, text, _ = call(
        "ingest", tmp_path / "é", tmp_path / "e\N{COMBINING ACUTE ACCENT}", "--out", "o", "--json"
    )
    assert (code, len(json.loads(text)["cameras"])) == (0, 2)


@pytest.mark.parametrize("length", [240, 249, 250, 251, 255])
def test_a_run_and_all_its_files_may_have_the_longest_name(tmp_path, call, length):
    sources = people(tmp_path)
    name = "w" * length
    code, _, err = call("run", *sources, "--out", name, *SETTINGS)
    assert code == 0, err
    shutil.move(name, "short")
    code, _, err = call("train", "short/set", "--out", name, *SETTINGS)
    assert code == 0, err
    query = Path("q" * 251 + ".jpg")
    put(query, 1, 1)
    code, _, err = call("search", "short/run", query, "-k", "2")
    assert code == 0, err


def test_derived_names_are_kept_apart_and_short():
    first, second = (beside(Path("d") / ("日" * 84 + end), before=".", after=".lock") for end in "ab")
    assert first != second
    assert max(len(os.fsencode(path.name)) for path in (first, second)) <= 255
    assert (first.name[:3], first.name[-5:]) == (".日日", ".lock")
    assert beside(Path("d/a"), after=".partial") == Path("d/a.partial")


def test_a_name_that_is_too_long_itself_is_one_line(tmp_path, call):
    people(tmp_path, cameras=(1,), n=1)
    code, _, err = call("ingest", "cam1", "--out", "n" * 256)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "File name too long" in err


def test_a_link_s_own_name_is_the_camera_s(tmp_path, call):
    people(tmp_path, n=1)
    (tmp_path / "store").mkdir()
    for camera in (1, 2):
        (tmp_path / f"cam{camera}").rename(tmp_path / "store" / f"{camera}")
    (tmp_path / "hall").symlink_to(tmp_path / "store" / "1")
    (tmp_path / "door").symlink_to(Path("store") / "2")
    code, text, _ = call("ingest", "hall", "door/", "--out", "o", "--json")
    assert (code, json.loads(text)["cameras"]) == (0, ["hall", "door"])
    os.chdir(tmp_path / "door")
    code, text, _ = call("ingest", ".", "--out", "../p", "--json")
    assert code == 0


@pytest.mark.parametrize("mask", [0o077, 0o027])
def test_a_narrow_umask_is_kept_and_stops_nothing(tmp_path, call, mask):
    sources = people(tmp_path)
    before = os.umask(mask)
    try:
        code, _, err = call("run", *sources, "--out", "w", *SETTINGS)
        assert code == 0, err
        assert call("run", *sources, "--out", "w", *SETTINGS, "--resume")[0] == 0
    finally:
        os.umask(before)
    assert not [p for p in (tmp_path / "w").rglob("*") if p.stat().st_mode & 0o777 & mask]


def test_a_temporary_folder_that_is_not_there_is_not_needed(tmp_path, call, monkeypatch):
    import tempfile

    def none(*_, **__):
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    sources = people(tmp_path)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", none)
    monkeypatch.setattr(tempfile, "tempdir", None)
    code, _, err = call("run", *sources, "--out", "w", *SETTINGS)
    assert code == 0, err
