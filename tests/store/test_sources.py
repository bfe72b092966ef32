import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tracklearn.store.ingest import sources
from tracklearn.store.ingest.sources import (
    Source,
    changed,
    fingerprint,
    fixed_cameras,
    parse_source,
    parse_sources,
)


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cam1.mp4", "other/cam1.mp4", "result.txt", "a+b=c.mp4", "frames/1.jpg", "SEQ/img1/1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


@pytest.mark.parametrize(
    ("text", "camera", "camid", "results", "path", "kind"),
    [
        ("cam1.mp4", "", None, None, "cam1.mp4", "video"),
        ("door=cam1.mp4", "door", None, None, "cam1.mp4", "video"),
        ("front door@3=cam1.mp4", "front door", 3, None, "cam1.mp4", "video"),
        ("door=result.txt+cam1.mp4", "door", None, "result.txt", "cam1.mp4", "results"),
        ("result.txt+frames", "", None, "result.txt", "frames", "results"),
        ("result.txt+video:frames", "", None, "result.txt", "frames", "results"),
        ("result.txt+a+b=c.mp4", "", None, "result.txt", "a+b=c.mp4", "results"),
        ("a+b=c.mp4", "", None, None, "a+b=c.mp4", "video"),
        ("door=a+b=c.mp4", "door", None, None, "a+b=c.mp4", "video"),
        ("video:frames", "", None, None, "frames", "video"),
        ("door=video:frames", "door", None, None, "frames", "video"),
        ("door=frames", "door", None, None, "frames", "crops"),
    ],
)
def test_forms(files, text, camera, camid, results, path, kind):
    source = parse_source(text)
    assert (source.camera, source.camid, source.kind) == (camera, camid, kind)
    assert str(source.path) == path
    assert (source.results and str(source.results)) == results


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("nothing.mp4", FileNotFoundError, r"no such file: nothing\.mp4"),
        ("door=nothing.mp4", FileNotFoundError, r"no such file: nothing\.mp4"),
        ("nothing.txt+cam1.mp4", FileNotFoundError, r"no such file: nothing\.txt"),
        ("result.txt+nothing.mp4", FileNotFoundError, r"no such file: nothing\.mp4"),
        ("door=", FileNotFoundError, "no such file: door="),
        ("result.txt+", ValueError, "names no file"),
        ("+cam1.mp4", ValueError, "names no file"),
        ("result.txt", ValueError, r"not a video.*result\.txt\+VIDEO.*file:result\.txt"),
        ("door@10000=cam1.mp4", ValueError, r"camera number of .*cam1.mp4 is too high.*0\.\.9999"),
    ],
)
def test_what_is_no_source(files, text, error, message):
    with pytest.raises(error, match=message):
        parse_source(text)


def test_every_source_gets_a_name_of_its_own(files):
    parsed = parse_sources(["cam1.mp4", "other/cam1.mp4", "cam1-2=a+b=c.mp4", "result.txt+SEQ/img1"])
    assert [s.camera for s in parsed] == ["cam1", "cam1-3", "cam1-2", "SEQ"]


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
def test_names_that_are_not_utf_8_are_cleaned(files):
    odd = os.fsdecode(b"caf\xe9")
    for name in (odd + ".mp4", "cafe/" + odd + ".jpg"):
        (files / name).parent.mkdir(exist_ok=True)
        (files / name).write_bytes(b"x")
    assert parse_sources([odd + ".mp4"])[0].camera == "caf?"
    assert parse_source(f"{odd}={odd}.mp4") == Source(Path(odd + ".mp4"), "caf?")
    assert parse_source(Source(files / "cam1.mp4", odd)).camera == "caf?"
    assert len(fingerprint(files / "cafe")) == 64


def test_names_given_may_be_shared(files):
    parsed = parse_sources(["door@1=cam1.mp4", "door=other/cam1.mp4", "yard@0=a+b=c.mp4"])
    assert [s.camera for s in parsed] == ["door", "door", "yard"]
    assert fixed_cameras(parsed) == {"door": 1, "yard": 0}
    assert parse_sources("cam1.mp4")[0].camera == "cam1"
    assert parse_sources([Source(files / "cam1.mp4", "x")])[0].camera == "x"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "no sources given"),
        (["cam1.mp4", "door=cam1.mp4"], "given twice"),
        (["a@1=cam1.mp4", "a@2=other/cam1.mp4"], "camera 'a' has numbers 1 and 2"),
        (["a@1=cam1.mp4", "b@1=other/cam1.mp4"], "'a' and 'b' have the same number 1"),
    ],
)
def test_contradictions(files, texts, message):
    with pytest.raises(ValueError, match=message):
        parse_sources(texts)


def test_fingerprints_follow_the_content_not_the_time(files, monkeypatch):
    before = fingerprint(files / "cam1.mp4")
    os.utime(files / "cam1.mp4", (1, 1))
    assert fingerprint(files / "cam1.mp4") == before
    assert changed(files / "cam1.mp4") == 10**9
    (files / "cam1.mp4").write_bytes(b"other")
    assert fingerprint(files / "cam1.mp4") != before
    folder = fingerprint(files / "SEQ")
    (files / "SEQ" / "img1" / "2.jpg").write_bytes(b"x")
    assert fingerprint(files / "SEQ") != folder
    assert changed(files / "SEQ") > 0


def test_large_files_are_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_WHOLE", 1000)
    monkeypatch.setattr(sources, "_PIECE", 20)
    data = np.random.default_rng(0).bytes(5000)
    (tmp_path / "a").write_bytes(data)
    before = fingerprint(tmp_path / "a")
    for changed_data in (data + b"x", b"x" + data[1:], data[:-1] + b"x"):
        (tmp_path / "a").write_bytes(changed_data)
        assert fingerprint(tmp_path / "a") != before
