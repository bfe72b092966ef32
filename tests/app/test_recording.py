"""Cameras and recordings on the command line."""

import os
import signal
import sys
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from benchmarks.live_servers import Connection, RtspServer, encode

from tracklearn.app.commands.ingest import ingest
from tracklearn.app.commands.options import command_line
from tracklearn.app.commands.recording import ended_by_ctrl_c, live_of, parsed, seconds_of, starts_of
from tracklearn.store.film.connection import Live
from tracklearn.store.film.mot import Boxes, write_results
from tracklearn.store.film.video_writer import VideoWriter
from tracklearn.store.ingest.cut import Cutter
from tracklearn.store.ingest.sources import parse_sources
from tracklearn.store.sets.tracklets import open_set

PICTURES = [np.full((48, 64, 3), 40 + 2 * i, np.uint8) for i in range(50)]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1.5H", 5400), (" 5m ", 300)],
)
def test_durations(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "30", "m", "0s", "-5m", "30 minutes", "1d", "nan", "9" * 400 + "h", "1h-5m"]
)
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="is no duration: write 90s, 30m, 2h or 1h30m"):
        seconds_of(text)


def test_starts_have_time_zones():
    starts = starts_of(
        ["hall=2026-05-01T08:00:00+02:00", "a=b=2026-05-01T06:00:00Z", "yard=2026-05-01T08:00:00"]
    )
    assert starts["hall"] == starts["a=b"] == [datetime(2026, 5, 1, 6, tzinfo=UTC)]
    assert starts["hall"][0].utcoffset() == timedelta(hours=2)
    assert starts["yard"] == [datetime(2026, 5, 1, 8).astimezone()]
    assert starts["yard"][0].tzinfo is not None
    both = starts_of(["a=2026-05-01T08:00:00Z", "a=2026-05-01T09:00:00Z"])
    assert [moment.hour for moment in both["a"]] == [8, 9]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["2026-05-01T08:00:00"], "is no camera and time: write NAME=2026-05-01T08:00:00"),
        (["hall=yesterday"], "is no camera and time"),
        (["hall=2026-13-01T08:00:00"], "is no camera and time"),
        (["hall="], "is no camera and time"),
        (["=2026-05-01T08:00:00"], "is no camera and time"),
    ],
)
def test_what_is_no_start(texts, message):
    with pytest.raises(ValueError, match=message):
        starts_of(texts)


def test_what_was_found_and_what_is_recorded_is_said(tmp_path):
    (tmp_path / "rec").mkdir()
    for name in ("a.mp4", "b.mp4", "c.txt"):
        (tmp_path / "rec" / name).write_bytes(b"x")
    lines = []
    sources = parsed([f"hall={tmp_path}/rec", "gate=rtsp://me:s3cret@127.0.0.1/s"], lines.append)
    live_of(sources, "30m", lines.append)
    assert lines == [
        f"hall: 2 recordings found in {tmp_path}/rec, "
        "1 other files left out (1 not a video by the end of its name)",
        "gate: recording rtsp://me@127.0.0.1/s for 30m; Ctrl-C ends it earlier",
    ]
    with pytest.raises(ValueError, match="no source is a live camera"):
        live_of(sources[:2], "30m", lines.append)


def test_nobody_is_asked_without_a_terminal(monkeypatch):
    sources = parse_sources(["rtsp://me@127.0.0.1/s"])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert live_of(sources, None, print).ask is None
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    asked = []
    monkeypatch.setattr("getpass.getpass", lambda prompt: asked.append(prompt) or "typed")
    assert live_of(sources, None, print).opened_with(sources[0].address, "x") == "rtsp://me:typed@127.0.0.1/s"
    assert asked == ["password for rtsp://me@127.0.0.1/s: "]


def test_a_report_s_command_holds_no_password(monkeypatch):
    words = ["tracklearn", "run", "hall=rtsp://me:s3cret@host/s?pwd=s3cret", "yard=a b.mp4", "--out", "x"]
    monkeypatch.setattr(sys, "argv", words)
    assert command_line() == "tracklearn run 'hall=rtsp://me@host/s?…' 'yard=a b.mp4' --out x"


@pytest.fixture(autouse=True)
def ctrl_c():
    """Ctrl-C as in a terminal: who starts tests in the background may have it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_ctrl_c_ends_recordings_and_the_second_the_program():
    live, said = Live(), []
    before = signal.getsignal(signal.SIGINT)
    with ended_by_ctrl_c(live, said.append):
        with pytest.raises(KeyboardInterrupt):  # nothing is being recorded: as ever
            signal.raise_signal(signal.SIGINT)
        live._running.add(1)
        signal.raise_signal(signal.SIGINT)
        assert live.stop.is_set()
        assert len(said) == 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def _boxes(path, n=500):
    frame = np.arange(n)
    write_results(path, Boxes(frame, frame * 0, np.tile([5.0, 2, 25, 46], (n, 1)), np.ones(n)))
    return f"file:{path}"


def test_ctrl_c_leaves_a_whole_set(tmp_path, monkeypatch, capsys):
    units = encode(PICTURES)
    add, seen = Cutter.add, []

    def counted(self, *boxes):
        add(self, *boxes)
        seen.append(1)
        if len(seen) == 20:
            server.over.set()  # or the thread would wait for the stalled camera
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Cutter, "add", counted)
    with RtspServer([Connection(units), Connection(units, then="stall")]) as server:
        ingest(
            [f"hall={server.address}"],
            out=tmp_path / "set",
            detector=_boxes(tmp_path / "boxes.txt"),
            tracker="sort",
            device="cpu",
        )
    said = capsys.readouterr()
    assert "ending the recording, what there is will be kept" in said.err
    opened = open_set(tmp_path / "set")
    assert opened.manifest["sources"][0]["live"]["ended"] == "it was stopped"
    assert opened.n_crops >= 15
    assert threading.active_count() < 20


def test_a_recording_for_a_while_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TRACKLEARN_PASSWORD_HALL", "s3cret")
    units = encode(PICTURES)
    script = [Connection(units), Connection(units, then="stall")]
    with RtspServer(script, user="me", password="s3cret") as server:
        address = server.address.replace("//", "//me@")
        ingest(
            [f"hall={address}"],
            out=tmp_path / "set",
            duration="1s",
            detector=_boxes(tmp_path / "boxes.txt"),
            tracker="sort",
            device="cpu",
        )
    said = capsys.readouterr()
    assert f"hall: recording {address} for 1s" in said.err
    assert "s3cret" not in said.err + said.out
    source = open_set(tmp_path / "set").manifest["sources"][0]
    assert source["path"] == address
    assert 1 <= source["counts"]["frames"] <= 25
    assert source["live"]["ended"] == "its time was over"


def test_starts_reach_the_manifest(tmp_path):
    for name in ("a", "b"):
        with VideoWriter(tmp_path / f"{name}.mp4", width=64, height=48, fps=10) as writer:
            for picture in PICTURES[:20]:
                writer.write(picture)
        _boxes(tmp_path / f"{name}.txt")
    sources = [f"{name}={tmp_path}/{name}.txt+{tmp_path}/{name}.mp4" for name in ("a", "b")]
    ingest(sources, out=tmp_path / "set", start=["a=2026-05-01T08:00:00+02:00"], device="cpu")
    noted = open_set(tmp_path / "set").manifest["sources"]
    assert datetime.fromisoformat(noted[0]["start"]) == datetime(2026, 5, 1, 6, tzinfo=UTC)
    assert noted[1].get("start") is None
