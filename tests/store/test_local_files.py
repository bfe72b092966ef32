"""Local files are opened as files, whatever their names look like; nothing else is opened on the way."""

import os
import shutil
import socket

import av
import numpy as np
import pytest
from tests.store.made_pictures import encoded, noise

from tracklearn.store.film.mot import Boxes, write_results
from tracklearn.store.film.video import open_frames
from tracklearn.store.film.video_writer import VideoWriter
from tracklearn.store.ingest.ingest import Config, ingest
from tracklearn.store.ingest.sources import parse_source
from tracklearn.store.sets.tracklets import open_set

NAMES = (
    "2024-01-01T12:00:00.mp4",
    "12:30:45.mp4",
    "cam1:front.mp4",
    "tcp:127.0.0.1:9.mp4",
    "concat:b.mp4",
    "file:b.mp4",
    "http:b.mp4",
    "data:b.mp4",
    "pipe:0",
    "a%03d.mp4",
    "a?b#c.mp4",
    "-i.mp4",
)


def film(path, n=8, grey=90):
    with VideoWriter(path, width=64, height=48, fps=10) as writer:
        for _ in range(n):
            writer.write(np.full((48, 64, 3), grey, np.uint8))
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder in which every attempt to reach a network fails the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("a name was looked up"))
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_names_that_look_like_protocols_are_names(here, name):
    film("b.mp4", grey=200)
    shutil.copy(film("plain.mp4"), name)
    with open_frames(name) as frames:
        images = [frame.image for frame in frames]
    assert len(images) == 8
    assert abs(images[0].mean() - 90) < 3  # its own content, not that of b.mp4


@pytest.mark.parametrize("name", ["12:30:45.mp4", "tcp:127.0.0.1:9.mp4", "folder:x/a:b.mp4"])
def test_videos_are_written_under_such_names(here, name):
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    film(name)
    assert os.path.getsize(name) > 0
    assert not [file for file in os.listdir(os.path.dirname(name) or ".") if file.endswith("part.mp4")]


@pytest.mark.parametrize("text", ["12:30:45.mp4", "c=12:30:45.mp4", "c@3=12:30:45.mp4"])
def test_sources_may_have_such_names(here, text):
    film("12:30:45.mp4")
    assert parse_source(text).path.name == "12:30:45.mp4"


def test_results_and_a_video_of_such_a_name(here):
    film("cam1:front.mp4")
    frame = np.arange(8)
    box = np.tile([10.0, 5, 30, 45], (8, 1))
    write_results("r:1.txt", Boxes(frame, np.ones(8), box, np.ones(8)))
    opened = open_set(ingest(["c=r:1.txt+cam1:front.mp4"], "set"))
    assert opened.n_crops == 8
    assert opened.manifest["sources"][0]["path"] == "../cam1:front.mp4"
    assert opened.manifest["sources"][0]["results"] == "../r:1.txt"


def _transport(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise(48, 64), format="rgb24")))
        container.mux(stream.encode(None))


POINTERS = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:4,\nother.ts\n#EXT-X-ENDLIST\n",
    "list.ffconcat": "ffconcat version 1.0\nfile other.mp4\n",
    "list.mp4": "ffconcat version 1.0\nfile other.mp4\n",
    "live.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
    "live.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
    "f%d.jpg": None,
}


@pytest.mark.parametrize("name", POINTERS)
def test_what_points_to_other_files_is_refused_unopened(here, name):
    film("other.mp4")
    _transport("other.ts")
    for i in range(3):
        (here / f"f{i}.jpg").write_bytes(encoded(".jpg", noise(48, 64)))
    content = POINTERS[name]
    (here / name).write_bytes(encoded(".jpg", noise(48, 64)) if content is None else content.encode())
    before = {file: os.stat(file).st_atime_ns for file in ("other.mp4", "other.ts", "f0.jpg")}
    for file in before:  # a file that is read changes this time, where the disk keeps it
        os.utime(file, ns=(0, 0))
    with pytest.raises(ValueError, match=r"not a video that can be decoded.*a playlist, which points"):
        open_frames(name)
    assert {os.stat(file).st_atime_ns for file in before} == {0}


def test_pipes_and_devices_are_no_videos(here):
    os.mkfifo("pipe.mp4")
    with pytest.raises(ValueError, match=r"pipe\.mp4 \(not a regular file\)"):
        open_frames("pipe.mp4")
    with pytest.raises(ValueError, match="not a regular file"):
        ingest(["pipe.mp4"], "set")
    with pytest.raises(ValueError, match=r"not a file of tracker results: pipe\.mp4"):
        ingest([f"pipe.mp4+{film('a.mp4')}"], "set")


def test_the_reported_names(data, tmp_path, monkeypatch):
    case = data / "cases" / "colon-in-name"
    monkeypatch.chdir(case)
    plain = open_set(ingest([f"c={case / 'clip.txt'}+{data / 'cases' / 'clip.mp4'}"], tmp_path / "plain"))
    for name in ("12:30:45.mp4", "cam1:front.mp4"):
        opened = open_set(ingest([f"c=clip.txt+{name}"], tmp_path / name[:4], config=Config()))
        assert opened.digest == plain.digest
