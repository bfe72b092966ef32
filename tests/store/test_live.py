"""Live cameras, played by servers on 127.0.0.1 that follow a script."""

import gc
import threading
from datetime import UTC, datetime

import av
import cv2
import numpy as np
import pytest
from benchmarks.live_servers import Connection, Page, RtspServer, WebServer, encode, mjpeg

from tracklearn.store.film.connection import CameraError, Live
from tracklearn.store.film.live import LiveFrames
from tracklearn.store.film.mot import Boxes, write_results
from tracklearn.store.film.video import open_frames
from tracklearn.store.film.video_writer import VideoWriter
from tracklearn.store.ingest.ingest import Config, ingest
from tracklearn.store.ingest.request import Request
from tracklearn.store.ingest.sources import parse_sources
from tracklearn.store.sets.tracklets import open_set

MOMENT = datetime(2026, 5, 1, 8, tzinfo=UTC)


def picture(i, height=48, width=64):
    image = np.full((height, width, 3), 40 + 2 * (i % 90), np.uint8)
    image[: height // 2, : width // 2] = (220, 30, 40)
    return image


def units(n=30, **size):
    return encode([picture(i, **size) for i in range(n)])


def jpegs(n, **size):
    return [cv2.imencode(".jpg", picture(i, **size)[:, :, ::-1])[1].tobytes() for i in range(n)]


def film(path, n=12):
    with VideoWriter(path, width=64, height=48, fps=10) as writer:
        for i in range(n):
            writer.write(picture(i))
    return path


class Clock:
    """Stands still until it is set forward."""

    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds

    def pass_(self, seconds):
        self.seconds += seconds


class Told(list):
    def __call__(self, line):
        self.append(line)


@pytest.fixture
def live():
    """A recording that loses no frame, waits for nothing and gives up at the first failure."""

    def make(**other):
        settings = {"first_wait": 0.0, "attempts": 1, "backlog": 10_000, "clock": Clock(), "tell": Told()}
        return Live(now=lambda: MOMENT, **(settings | other))

    return make


def record(address, live, **other):
    with LiveFrames(address, camera="hall", live=live, **other) as frames:
        return frames, list(frames)


def times(found):
    return [round(frame.time, 6) for frame in found]


def test_times_are_the_stream_s_own_and_gaps_those_of_the_clock(live):
    how = live()
    second = Connection(units(20), before=lambda: how.clock.pass_(30))
    with RtspServer([Connection(units(30)), second]) as server:
        frames, found = record(server.address, how)
    assert [f.number for f in found] == list(range(50))
    np.testing.assert_allclose(times(found)[:30], np.arange(30) / 25, atol=1e-3)
    np.testing.assert_allclose(times(found)[30:], 30 + np.arange(20) / 25, atol=1e-3)
    assert np.abs(found[3].image[30:].astype(int) - (40 + 2 * 3)).max() < 8
    assert (frames.info.width, frames.info.height, frames.info.codec) == (64, 48, "h264")
    noted = frames.record()
    assert noted["start"] == "2026-05-01T08:00:00.000+00:00"
    assert noted["live"]["connections"] == 2
    np.testing.assert_allclose(noted["live"]["gaps"], [[1.16, 30]], atol=2e-3)
    assert noted["live"]["ended"].startswith("the camera is gone (")
    assert frames.skipped()[0] == {"item": "connection", "reason": "cut and made again, 28.8 s lost", "n": 1}
    assert [line.partition(" (")[0] for line in how.tell if "lost" in line or "back" in line] == [
        "camera hall: lost",
        "camera hall: back, 28.8 s are missing",
        "camera hall: lost",
    ]


@pytest.mark.long
def test_a_camera_that_stalls_counts_as_cut(live):
    how = live(read_timeout=3.0)
    with RtspServer([Connection(units(), then="stall"), Connection(units())]) as server:
        frames, found = record(server.address, how)
    assert frames.connections == 2
    assert len(found) >= 58  # the decoder keeps the last picture until another follows
    assert any("lost (no answer for 3 s)" in line or "lost (no picture for 3 s)" in line for line in how.tell)


def test_a_camera_that_never_answers_is_refused_in_time(live):
    with (
        WebServer({"/": [Page([], then="stall")]}) as server,
        pytest.raises(CameraError, match=r"http://127.*cannot be read: no answer for 0\.3 s"),
    ):
        LiveFrames(server.address + "/", camera="hall", live=live(open_timeout=0.3))
    with pytest.raises(CameraError, match="Connection refused"):
        LiveFrames(server.address, camera="hall", live=live())


def test_lost_cameras_are_tried_at_growing_intervals_and_given_up(live):
    how = live(first_wait=0.001, longest_wait=0.004, attempts=4)
    with RtspServer([Connection(units())]) as server:
        frames, _ = record(server.address, how)
    waits = [line.rpartition("again in ")[2] for line in how.tell if "trying again" in line]
    assert waits == ["0.001 s", "0.002 s", "0.004 s", "0.004 s"]
    assert frames.end.endswith("tried 4 times")
    assert how.tell[-1].endswith("the recording ends here")


def test_a_recording_ends_after_its_time(live):
    how = live(seconds=0.5)
    with RtspServer([Connection(units(30), then="stall")]) as server:
        frames, found = record(server.address, how)
    np.testing.assert_allclose(times(found), np.arange(13) / 25, atol=1e-3)
    assert frames.record()["live"]["ended"] == "its time was over"


def test_its_time_goes_on_while_the_camera_is_gone(live):
    how = live(seconds=60, attempts=1000)
    cut = Connection(units(30), before=lambda: None)
    with RtspServer([cut]) as server:
        how.tell.append = lambda line: how.clock.pass_(45)  # each line told takes a while
        frames, found = record(server.address, how)
    assert len(found) == 30
    assert frames.end == "its time was over"


def test_a_set_flag_ends_it_and_keeps_what_there_is(live):
    how = live()
    with RtspServer([Connection(units(30), then="stall")]) as server:
        with LiveFrames(server.address, camera="hall", live=how) as frames:
            found = []
            for frame in frames:
                assert how.recording
                found.append(frame)
                if len(found) == 5:
                    how.stop.set()
                    server.over.set()  # or the thread would wait for the camera
        assert not how.recording
    assert len(found) >= 5
    assert frames.end == "it was stopped"


def test_a_slow_reader_loses_frames_not_memory(live):
    with (
        WebServer({"/v": [mjpeg(jpegs(60)), Page([])]}) as server,
        LiveFrames(server.address + "/v", camera="hall", live=live(backlog=1)) as frames,
    ):
        reading = iter(frames)
        found = [next(reading)]
        waiting = threading.Event()
        while not frames.behind:  # nobody takes frames now: all but one of them find no room
            waiting.wait(0.01)
        found += reading
    assert len(found) + frames.behind == 60
    assert frames.skipped()[0]["n"] == frames.behind
    assert [f.number for f in found] == sorted({f.number for f in found})


@pytest.mark.parametrize("where", ["camera", "file"])
def test_decoded_pictures_do_not_wait_for_the_garbage_collector(live, tmp_path, where):
    film(tmp_path / "a.mp4", n=60)
    with RtspServer([Connection(units(60))]) as server:
        gc.collect()
        gc.disable()
        try:
            if where == "camera":
                record(server.address, live())
            else:
                with open_frames(tmp_path / "a.mp4") as frames:
                    assert len(list(frames)) == 60
            left = sum(type(thing) is av.VideoFrame for thing in gc.get_objects())
        finally:
            gc.enable()
    assert left <= 5


def test_stride_keeps_numbers_and_times(live):
    with RtspServer([Connection(units(20))]) as server:
        _, found = record(server.address, live(), stride=8)
    assert [f.number for f in found] == [0, 8, 16]
    np.testing.assert_allclose(times(found), [0, 0.32, 0.64], atol=1e-3)


def test_streams_without_stamps_get_the_time_of_their_arrival(live):
    how = live()

    def parts():
        for jpeg in jpegs(10):
            how.clock.pass_(0.5)
            yield from mjpeg([jpeg]).parts

    page = mjpeg([])
    page.parts = parts()
    with WebServer({"/v": [page, Page([])]}) as server:
        frames, found = record(server.address + "/v", how)
    assert frames.info.fps == 25
    assert len(found) == 10
    assert times(found)[0] == 0
    assert np.all(np.diff(times(found)) > 0)


def test_another_size_is_drawn_into_the_first_and_said(live):
    other = Connection(encode([picture(i, height=96, width=64) for i in range(10)]))
    with RtspServer([Connection(units(10)), other]) as server:
        frames, found = record(server.address, live())
    assert {f.image.shape for f in found} == {(48, 64, 3)}
    last = found[-1].image
    assert last[:, :14].max() < 12  # a picture twice as high stands between black bars, not stretched
    assert last[:, 18:46].min() > 20
    why = "the picture's size changed to 64 x 96 from 64 x 48, kept and drawn into it"
    assert {"item": "frames", "reason": why, "n": 10} in frames.skipped()


def test_a_film_behind_an_address_is_read_to_its_end_once(live, tmp_path):
    data = film(tmp_path / "a.mp4").read_bytes()
    with WebServer({"/a.mp4": [Page([data], length=len(data))]}) as server:
        frames, found = record(server.address + "/a.mp4", live())
        n_asked = len(server.asked)
    with open_frames(tmp_path / "a.mp4") as local:
        expected = list(local)
    assert times(found) == times(expected)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(found, expected, strict=True))
    assert frames.end == "the stream ended"
    assert frames.connections == 1
    assert n_asked <= 3


def test_a_film_cut_in_its_middle_is_said_and_not_begun_again(live, tmp_path):
    film(tmp_path / "a.mp4", n=200)
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(tmp_path / "a.ts"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    data = (tmp_path / "a.ts").read_bytes()
    how = live()
    with WebServer({"/a.ts": [Page([data[: len(data) // 2]], length=len(data))]}) as server:
        frames, found = record(server.address + "/a.ts", how)
    assert 50 < len(found) < 150
    assert frames.connections == 1
    assert "cut off" in frames.end


def _transport(tmp_path, n=20):
    """A playlist's parts: two transport streams whose stamps go on."""
    parts = []
    for k in range(2):
        path = tmp_path / f"{k}.ts"
        with av.open(str(path), "w", format="mpegts") as container:
            stream = container.add_stream("libx264", rate=10, options={"bf": "0", "tune": "zerolatency"})
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for i in range(n):
                frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
                frame.pts = k * n + i
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        parts.append(path.read_bytes())
    return parts


def _playlist(*names, end=True):
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:2", "#EXT-X-MEDIA-SEQUENCE:0"]
    for name in names:
        lines += ["#EXTINF:2.0,", name]
    return Page(["\n".join([*lines, *(["#EXT-X-ENDLIST"] if end else []), ""]).encode()])


def test_a_playlist_is_followed(live, tmp_path):
    parts = _transport(tmp_path)
    pages = {"/live.m3u8": [_playlist("0.ts", "1.ts")]}
    pages |= {f"/{k}.ts": [Page([part], length=len(part))] for k, part in enumerate(parts)}
    with WebServer(pages) as server:
        _, found = record(server.address + "/live.m3u8", live())
    np.testing.assert_allclose(times(found), np.arange(40) / 10, atol=1e-3)


@pytest.mark.parametrize(
    "form", ["file:{}", "file://{}", "{}", "concat:{}", "subfile,,start,0,end,0,,:{}", "data:,x"]
)
def test_a_playlist_cannot_name_local_files(live, tmp_path, form):
    _transport(tmp_path)
    with (
        WebServer({"/live.m3u8": [_playlist(form.format(tmp_path / "0.ts"))]}) as server,
        pytest.raises(CameraError, match="cannot be read"),
    ):
        LiveFrames(server.address + "/live.m3u8", camera="hall", live=live())


@pytest.mark.parametrize("where", ["file://{}", "{}", "concat:{}"])
def test_nor_can_an_address_lead_to_one(live, tmp_path, where):
    place = where.format(film(tmp_path / "a.mp4"))
    with (
        WebServer({"/v": [Page([], location=place)]}) as server,
        pytest.raises(CameraError, match="cannot be read"),
    ):
        LiveFrames(server.address + "/v", camera="hall", live=live())


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (Page([b"nothing"] * 100), "cannot be read"),
        (Page(jpegs(1), kind="image/jpeg"), "it is a single picture: give the address of its video"),
        (Page([b"v=0\nm=video 9 RTP/AVP 96\n"], kind="application/sdp"), "cannot be read"),
    ],
)
def test_what_is_no_stream_is_refused(live, page, message):
    with WebServer({"/v": [page]}) as server, pytest.raises(CameraError, match=message):
        LiveFrames(server.address + "/v", camera="hall", live=live())


@pytest.mark.parametrize("kind", ["rtsp", "http"])
def test_the_password_reaches_the_camera_and_nothing_else(live, monkeypatch, kind):
    secret = "s3c/r@t:?"
    how = live()
    if kind == "rtsp":
        server = RtspServer([Connection(units()), Connection(units())], user="me", password=secret)
        path = ""
    else:
        server = WebServer({"/v": [mjpeg(jpegs(5)), mjpeg(jpegs(5)), Page([])]}, login=f"me:{secret}")
        path = "/v?token=s3cret"
    with server:
        address = (server.address + path).replace("//", "//me@", 1)
        with pytest.raises(
            CameraError, match=r"without the right user and password.*TRACKLEARN_PASSWORD"
        ) as no:
            LiveFrames(address, camera="hall", live=how)
        monkeypatch.setenv("TRACKLEARN_PASSWORD_HALL", "wr0ng")
        with pytest.raises(CameraError) as wrong:
            LiveFrames(address, camera="hall", live=how)
        monkeypatch.setenv("TRACKLEARN_PASSWORD_HALL", secret)
        frames, found = record(address, how)
    assert len(found) in (10, 60)
    said = [str(no.value), str(wrong.value), repr(wrong.value), *how.tell, str(frames.record()), repr(how)]
    said += [str(frames.skipped()), frames.end]
    for text in said:
        assert "s3c" not in text
        assert "wr0ng" not in text


def test_a_person_is_asked_once(live):
    asked = []

    def ask(shown):
        asked.append(shown)
        return "typed"

    with RtspServer([Connection(units()), Connection(units())], user="me", password="typed") as server:
        how = live(ask=ask)
        address = server.address.replace("//", "//me@")
        LiveFrames(address, camera="hall", live=how).close()
        record(address, how)
    assert asked == [address]
    assert "typed" not in repr(how)


# Sets


@pytest.fixture
def boxes(tmp_path):
    """Detections of one person in every frame."""
    frame = np.arange(200)
    write_results(
        tmp_path / "boxes.txt",
        Boxes(frame, np.arange(200), np.tile([5.0, 2, 25, 46], (200, 1)), np.ones(200)),
    )
    return Config(detector=f"file:{tmp_path}/boxes.txt", tracker="sort")


def test_cameras_are_recorded_at_the_same_time_into_one_set(live, tmp_path):
    frame = np.arange(200)
    for name in ("hall", "yard"):
        box = np.tile([5.0, 2, 25, 46], (200, 1))
        write_results(tmp_path / f"{name}.txt", Boxes(frame, frame, box, np.ones(200)))
    both = threading.Barrier(2, timeout=60)
    looked = Connection(units(5))  # ingest looks at every source once before it begins
    scripts = [[looked, Connection(units(30), before=both.wait)] for _ in range(2)]
    with RtspServer(scripts[0]) as hall, RtspServer(scripts[1]) as yard:
        sources = [f"film={film(tmp_path / 'a.mp4')}", f"hall={hall.address}", f"yard={yard.address}"]
        write_results(
            tmp_path / "film.txt", Boxes(frame, frame, np.tile([5.0, 2, 25, 46], (200, 1)), np.ones(200))
        )
        config = Config(detector=f"file:{tmp_path}/{{camera}}.txt", tracker="sort")
        opened = open_set(ingest(sources, tmp_path / "set", config=config, live=live()))
    noted = {source["camera"]: source for source in opened.manifest["sources"]}
    assert sorted(noted) == ["film", "hall", "yard"]
    assert noted["hall"]["path"] == hall.address
    assert noted["hall"]["counts"]["frames"] == 30
    assert noted["yard"]["start"] == "2026-05-01T08:00:00.000+00:00"
    assert set(opened.cameras) == {"film", "hall", "yard"}


def test_no_password_is_in_the_set(live, tmp_path, boxes):
    with RtspServer([Connection(units(3)), Connection(units(30))], user="me", password="s3cret") as server:
        address = server.address.replace("//", "//me:s3cret@") + "?token=s3cret"
        ingest([f"hall={address}"], tmp_path / "set", config=boxes, live=live())
    for file in (tmp_path / "set").rglob("*"):
        assert not file.is_file() or b"s3cret" not in file.read_bytes()
    other = f"hall={address.replace('s3cret', 'other')}"
    assert Request([other], boxes).digest == Request([f"hall={address}"], boxes).digest


@pytest.mark.long
def test_resume_keeps_a_finished_recording_and_makes_a_broken_one_anew(live, tmp_path, boxes, monkeypatch):
    with RtspServer(
        [
            Connection(units(3)),
            Connection(units(30), then="stall"),
            Connection(units(3)),
            Connection(units(20)),
        ]
    ) as server:
        source = [f"hall={server.address}"]

        def fail(*_, **__):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as broken:
            broken.setattr("tracklearn.store.ingest.cut.encode_jpeg", fail)
            with pytest.raises(OSError, match="No space"):
                ingest(source, tmp_path / "set", config=boxes, live=live())
        path = ingest(source, tmp_path / "set", config=boxes, live=live(), resume=True)
        assert open_set(path).manifest["sources"][0]["counts"]["frames"] == 20
        played = server.played
        assert ingest(source, path, config=boxes, live=live(), resume=True) == path
        assert server.played == played  # finished: nothing is recorded, nothing asked


def test_a_camera_that_is_off_is_left_out_or_refused(live, tmp_path, boxes):
    with WebServer({}) as gone:
        off = f"off={gone.address}/v"
        sources = parse_sources([off, f"film={film(tmp_path / 'a.mp4')}"])
        reasons = Request(sources, live=live()).check()
        assert "cannot be read" in reasons[0]
        assert reasons[1] is None
        with pytest.raises(ValueError, match=r"the camera at http://127\.0\.0\.1:\d+/v cannot be read"):
            ingest([off], tmp_path / "set", config=boxes, live=live())
    assert not (tmp_path / "set").exists()


def test_a_folder_of_recordings_is_one_camera(tmp_path):
    for i in (1, 2, 10):
        film(tmp_path / "rec" / f"a{i}.mp4") if (tmp_path / "rec").exists() else None
        (tmp_path / "rec").mkdir(exist_ok=True)
        film(tmp_path / "rec" / f"a{i}.mp4", n=10 + i)
    (tmp_path / "rec" / "notes.txt").write_text("x")
    frame = np.arange(200)
    write_results(
        tmp_path / "b.txt", Boxes(frame, frame * 0 + 1, np.tile([5.0, 2, 25, 46], (200, 1)), np.ones(200))
    )
    sources = parse_sources([f"hall={tmp_path / 'rec'}"])
    from dataclasses import replace

    results = [replace(source, results=tmp_path / "b.txt") for source in sources]
    opened = open_set(ingest(results, tmp_path / "set"))
    noted = opened.manifest["sources"]
    assert [source["counts"]["frames"] for source in noted] == [11, 12, 20]
    assert {source["camera"] for source in noted} == {"hall"}
    left = {"item": "files", "reason": "not a video by the end of its name", "n": 1}
    assert [left in source["skipped"] for source in noted] == [True, False, False]


def test_copies_of_one_recording_are_recordings(tmp_path, boxes):
    (tmp_path / "rec").mkdir()
    import os
    import shutil

    film(tmp_path / "rec" / "a.mp4", n=10)
    shutil.copy(tmp_path / "rec" / "a.mp4", tmp_path / "rec" / "b.mp4")
    for name in "ab":
        os.utime(tmp_path / "rec" / f"{name}.mp4", (1, 1))
        write_results(
            tmp_path / f"{name}.txt",
            Boxes(np.arange(10), np.ones(10), np.tile([5.0, 2, 25, 46], (10, 1)), np.ones(10)),
        )
    sources = [f"hall={tmp_path}/b.txt+{tmp_path}/rec/{name}.mp4" for name in "ab"]
    opened = open_set(ingest(sources, tmp_path / "set"))
    assert len(opened.manifest["sources"]) == 2
    assert len(opened.tracklets) == 2
