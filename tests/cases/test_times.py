"""Time is the frame's own stamp, everywhere."""

import json
from datetime import UTC, datetime

import av
import numpy as np
import pytest

from tests.cases.films import FPS, boxes_text, film, scene, stamped_anew, with_b_frames
from tracklearn.learn.methods import uga
from tracklearn.store.film.track import NAMES
from tracklearn.store.film.video import open_frames
from tracklearn.store.ingest.ingest import Config, ingest
from tracklearn.store.sets.tracklets import open_set

N = 24


def _read(path, **options):
    with open_frames(path, **options) as frames:
        found = list(frames)
        times = [frame.time for frame in found]
        assert all(np.diff(times) > 0)
        return frames, [frame.number for frame in found], times


def _images(n=N):
    return [scene(people=((20 + 2 * i, 30),)) for i in range(n)]


def _steady(times, rate=FPS, n=N):
    np.testing.assert_allclose(times, np.arange(n) / rate, atol=2e-3)


@pytest.mark.parametrize("tracker", NAMES)
def test_two_people_in_a_pause_of_the_recording_are_two_tracklets(tmp_path, tracker):
    """vfr-gap: a camera that records on motion; 3 s lie between two people at one spot."""
    stamps = [100 * i for i in range(20)] + [5000 + 100 * i for i in range(20)]
    images = [scene(i // 20) for i in range(40)]
    film(tmp_path / "gap.mp4", images, stamps=stamps)
    boxes_text(tmp_path / "gap.txt", [(i, -1, 20, 30, 24, 60) for i in range(40)])
    config = Config(detector=f"file:{tmp_path / 'gap.txt'}", tracker=tracker)
    found = open_set(ingest([tmp_path / "gap.mp4"], tmp_path / "set", config=config))
    assert len(found.tracklets) == 2
    assert found.manifest["sources"][0]["video"]["fps"] == pytest.approx(10)
    first, second = (found.image(int(found.tracklets.start[i])) for i in (0, 1))
    assert first[-10, 10].argmax() == 0  # the red one
    assert second[-10, 10].argmax() == 2  # the blue one


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_b_frames_in_avi_last_as_long_as_they_were_filmed(tmp_path, codec):
    """h264-avi-b-frames: 3.9 s were spread over 8.6."""
    frames, number, times = _read(with_b_frames(tmp_path / "b.avi", _images(), codec=codec))
    assert number == list(range(N))
    _steady(times)
    assert frames.account["times"].startswith("stamps")
    plain, _, expected = _read(with_b_frames(tmp_path / "b.mp4", _images()))
    assert times == pytest.approx(expected)
    assert plain.account == {"times": "stamps"}


def test_stamps_written_in_the_order_of_decoding_are_put_in_order(tmp_path):
    source = with_b_frames(tmp_path / "b.mkv", _images())
    stamped_anew(source, tmp_path / "c.mkv", lambda i, pts, dts: (100 * i, 100 * i))
    _, number, times = _read(tmp_path / "c.mkv")
    assert number == list(range(N))
    _steady(times)


def test_stamps_given_twice_do_not_slow_the_clock_down(tmp_path):
    source = film(tmp_path / "a.mkv", _images())
    stamped_anew(source, tmp_path / "b.mkv", lambda i, pts, dts: (i // 2 * 200, i // 2 * 200))
    frames, _, times = _read(tmp_path / "b.mkv")
    np.testing.assert_allclose(times[::2], np.arange(N)[::2] / FPS, atol=2e-3)
    assert "no later than the one before" in str(frames.account["times_mended"])


@pytest.mark.parametrize("offset", [0, 30_000, 1_770_000_000_000])
def test_clocks_begin_anywhere(tmp_path, offset):
    path = film(tmp_path / "a.mkv", _images(), stamps=[offset + 100 * i for i in range(N)])
    _steady(_read(path)[2])


def test_a_spliced_stream_goes_on_at_its_rate(tmp_path):
    for name in "ab":
        film(tmp_path / f"{name}.ts", _images())
    both = (tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes()
    (tmp_path / "c.ts").write_bytes(both)
    frames, number, times = _read(tmp_path / "c.ts")
    assert number == list(range(2 * N))
    _steady(times, n=2 * N)
    assert sum(frames.account["times_mended"].values()) == 1


def test_the_clock_of_mpeg_streams_may_overflow(tmp_path):
    first = (1 << 33) - 90_000
    source = film(tmp_path / "a.ts", _images(40), muxer={"mpegts_copyts": "1"})
    # beyond 33 bits the writer itself starts at 0 again
    path = stamped_anew(source, tmp_path / "b.ts", lambda i, pts, dts: (first + 9000 * i,) * 2)
    _steady(_read(path)[2], n=40)


def test_a_nominal_rate_is_not_trusted_where_stamps_disagree(tmp_path):
    """Screen recordings and WebRTC say 1000 frames a second; the tracker needs the rate there is."""
    stamps = np.cumsum([0] + [60, 70] * 20)
    path = film(tmp_path / "a.mkv", _images(41), stamps=stamps, rate=1000)
    frames, _, times = _read(path)
    assert frames.info.fps == pytest.approx(1000 / 65, rel=0.02)
    np.testing.assert_allclose(times, stamps / 1000, atol=2e-3)


@pytest.mark.parametrize(("codec", "kind"), [("libx264", "h264"), ("libx265", "hevc")])
def test_raw_streams_have_the_rate_of_their_codec(tmp_path, codec, kind):
    if codec not in av.codecs_available:
        pytest.skip(f"{codec} is not built in")
    path = film(tmp_path / f"a.{kind}", _images(), codec=codec, rate=12, format=kind)
    frames, _, times = _read(path)
    _steady(times, 12)
    assert frames.account["times"] == "steady at 12 fps (of the codec)"
    frames, _, times = _read(path, fps=5)
    _steady(times, 5)
    assert frames.account["times"] == "steady at 5 fps (given)"


def test_a_stride_keeps_the_stamps(tmp_path):
    stamps = [0, 100, 200, 300, 400, 500, 9000, 9100, 9200]
    path = film(tmp_path / "a.mp4", _images(9), stamps=stamps)
    _, number, times = _read(path, stride=3)
    assert number == [0, 3, 6]
    assert times == pytest.approx([0, 0.3, 9.0])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_a_file_cut_short_says_what_it_had_and_promised(tmp_path, name):
    """truncated-mp4: a copy that stopped half-way."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (120, 160, 3), np.uint8) for _ in range(40)]
    path = film(tmp_path / name, images, options={"g": "5"}, muxer={"movflags": "faststart"})
    whole, _, _ = _read(path)
    assert not whole.missing
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    frames, number, _ = _read(path)
    assert 10 < len(number) < 25
    ((why, n),) = frames.missing.items()
    assert f"{len(number)} of the 40 frames that it promises" in why
    assert n + len(number) + frames.broken == 40


def test_a_film_without_its_index_is_refused_with_the_reason(tmp_path):
    path = film(tmp_path / "a.mp4", _images())
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 20])
    with pytest.raises(ValueError, match=r"its index \(moov\) is missing"):
        open_frames(path)


def _recordings(folder, **tags):
    """Two recordings of each of two cameras, with somebody at the same spot at the same time of each file."""
    sources = []
    for camera in ("hall", "lobby"):
        for i in (1, 2):
            created = {"creation_time": tags[f"file{i}"]} if f"file{i}" in tags else {}
            path = film(folder / f"{camera}{i}.mp4", [scene(i)] * 40, tags=created)
            boxes_text(folder / f"{camera}{i}.txt", [(f, 1, 20 + f % 2, 30, 24, 60) for f in range(10, 30)])
            sources.append(f"{camera}={path.with_suffix('.txt')}+{path}")
    return sources


def _kept(tracklet_set, period):
    part = uga._prepare(uga.Config(period=period), np.zeros((80, 4)), tracklet_set.tracklets).part
    return len(np.unique(tracklet_set.tracklets.tracklet[part >= 0]))


def test_files_of_one_camera_have_clocks_of_their_own(tmp_path):
    """split-recordings-uga: the second person at a spot was dropped."""
    found = open_set(ingest(_recordings(tmp_path), tmp_path / "set"))
    tracklets = found.tracklets
    assert len(set(tracklets.clock.tolist())) == 4
    assert [s["start"] for s in found.manifest["sources"]] == [None] * 4
    assert _kept(found, 2.5) == 4


def test_creation_times_put_files_of_one_camera_on_one_clock(tmp_path):
    stamps = {"file1": "2026-05-01T08:00:00Z", "file2": "2026-05-01T08:00:10Z"}
    found = open_set(ingest(_recordings(tmp_path, **stamps), tmp_path / "set"))
    tracklets = found.tracklets
    assert tracklets.clock.tolist() == [0, 0, 2, 2]
    assert tracklets.offset.tolist() == [0, 10, 0, 10]
    assert tracklets.time.max() < 4  # the column stays that of the file
    assert tracklets.clock_time[-1] == pytest.approx(12.9)
    source = found.manifest["sources"][1]
    assert (source["start"], source["start_from"]) == ("2026-05-01T08:00:10+00:00", "creation time")
    assert _kept(found, 2.5) == 4


@pytest.mark.parametrize("second", ["2026-05-01T08:00:00Z", "1904-01-01T00:00:00Z", None])
def test_creation_times_that_cannot_be_right_are_no_common_clock(tmp_path, second):
    stamps = {"file1": "2026-05-01T08:00:00Z"} | ({"file2": second} if second else {})
    found = open_set(ingest(_recordings(tmp_path, **stamps), tmp_path / "set"))
    assert found.tracklets.clock.tolist() == [0, 1, 2, 3]


def test_the_start_of_a_camera_can_be_given(tmp_path):
    created = {"file1": "2026-05-01T06:00:00Z", "file2": "2026-05-01T06:01:00Z"}
    sources = _recordings(tmp_path, **created)
    moment = datetime(2026, 5, 1, 8, tzinfo=UTC)
    start = {"hall": moment, "lobby": [moment, moment.replace(hour=9)]}
    found = open_set(ingest(sources, tmp_path / "set", start=start))
    begins = [source["start"] for source in found.manifest["sources"]]
    assert begins == [f"2026-05-01T{t}+00:00" for t in ("08:00:00", "08:01:00", "08:00:00", "09:00:00")]
    assert found.tracklets.offset.tolist() == [0, 60, 0, 3600]
    before = json.dumps(found.manifest["request"])
    again = ingest(sources, tmp_path / "other", start={"hall": moment.replace(hour=7)})
    assert json.dumps(open_set(again).manifest["request"]) != before
    with pytest.raises(ValueError, match=r"start names camera 'door', which has no video here"):
        ingest(sources, tmp_path / "no", start={"door": moment})
    with pytest.raises(ValueError, match="'hall' has 2 videos, but start gives 1 moments"):
        ingest(sources, tmp_path / "no", start={"hall": [moment]})
