"""Cameras and recordings as people write them: what once was no file, on the command line."""

import json

import numpy as np
import pytest
from benchmarks.live_servers import Connection, RtspServer, encode

from tests.store.test_live import film, picture
from tracklearn.store.film.mot import Boxes, write_results


def boxes(path, n=200):
    frame = np.arange(n)
    write_results(path, Boxes(frame, frame, np.tile([5.0, 2, 25, 46], (n, 1)), np.ones(n)))
    return f"file:{path}"


@pytest.mark.parametrize(
    "source",
    [
        "door=rtsp:/user:secret@127.0.0.1/s",
        "door=rtsp://user:secret@127.0.0.1:1/s",
        "door=http://127.0.0.1:1/video.mjpg?user=a&pwd=secret",
        "door=ftp://user:secret@127.0.0.1/a.mp4",
        "door=r.txt+rtsp://user:secret@127.0.0.1:1/s",
        "user:secret@127.0.0.1/s",
    ],
)
def test_an_address_that_cannot_be_read_is_refused_in_one_line_without_its_password(tmp_path, call, source):
    code, out, err = call("ingest", source, "--out", tmp_path / "set")
    assert code == 2
    refusals = [line for line in err.splitlines() if line.startswith("tracklearn: ")]
    assert len(refusals) == 1
    assert "secret" not in out + err


def test_a_camera_is_recorded(tmp_path, call):
    units = encode([picture(i) for i in range(50)])
    with RtspServer([Connection(units[:5]), Connection(units, then="stall")]) as server:
        code, out, err = call(
            *("ingest", f"hall={server.address}", "--for", "1s", "--out", tmp_path / "set", "--json"),
            *(
                "--tracker",
                "sort",
                "--detector",
                boxes(tmp_path / "boxes.txt"),
                "--set",
                "ingest.min_length=1",
            ),
        )
    assert code == 0, err
    source = json.loads(out.splitlines()[-1])["sources"][0]
    assert source["path"] == server.address
    assert source["start"] is not None


@pytest.mark.parametrize("form", ["hall={}", "hall={}/", "hall={}/*.mp4", "hall={}/**/a*"])
def test_a_folder_of_recordings_is_one_camera_and_its_files_are_counted(tmp_path, call, form):
    (tmp_path / "rec").mkdir()
    for i in (2, 10):
        film(tmp_path / "rec" / f"a{i}.mp4", n=10 + i)
        boxes(tmp_path / f"a{i}.txt")
    (tmp_path / "rec" / "notes.txt").write_text("x")
    code, out, err = call(
        *("ingest", form.format(tmp_path / "rec"), "--out", tmp_path / "set", "--json", "--tracker", "sort"),
        *("--detector", f"file:{tmp_path}/{{video}}.txt"),
    )
    assert code == 0, err
    assert "hall: 2 recordings found in" in err
    result = json.loads(out.splitlines()[-1])
    assert result["cameras"] == ["hall"]
    assert [source["counts"]["frames"] for source in result["sources"]] == [12, 20]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a.mp4", "1.jpg"), "holds both videos and images"),
        (("1/a.mp4", "2/b.mp4"), "holds videos in its sub-folders only"),
    ],
)
def test_a_folder_that_is_not_clear_is_refused_with_the_form(tmp_path, call, names, message):
    for name in names:
        (tmp_path / "rec" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "rec" / name).write_bytes(b"x")
    code, _, err = call("ingest", tmp_path / "rec", "--out", tmp_path / "set")
    assert code == 2
    assert message in err
    assert "*.mp4" in err


def test_a_start_for_a_camera_that_is_not_there_is_refused(tmp_path, call):
    film(tmp_path / "a.mp4")
    words = ("ingest", f"hall={tmp_path}/a.mp4", "--out", tmp_path / "set")
    code, _, err = call(*words, "--start", "hal=2026-05-01T08:00:00")
    assert code == 2
    assert "start names camera 'hal'" in err
    code, _, err = call(*words, "--for", "30m")
    assert code == 2
    assert "no source is a live camera" in err
