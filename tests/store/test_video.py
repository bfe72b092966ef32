"""Frames from files and folders, and the writer."""

import struct

import av
import cv2
import numpy as np
import pytest

from tracklearn.store.film.video import between, open_frames
from tracklearn.store.film.video_writer import VideoWriter
from tracklearn.store.picture.listing import natural_key


def _picture(i, height=48, width=64):
    """A picture whose top left quarter is red, the rest grey, brighter with i."""
    image = np.full((height, width, 3), 20 + 8 * i, np.uint8)
    image[: height // 2, : width // 2] = (220, 30, 40)
    return image


def _video(path, n=12, fps=10.0, **size):
    with VideoWriter(path, width=size.get("width", 64), height=size.get("height", 48), fps=fps) as writer:
        for i in range(n):
            writer.write(_picture(i, **size))
    return path


def test_frames_come_back_with_numbers_times_and_colours(tmp_path):
    with open_frames(_video(tmp_path / "a.mp4")) as frames:
        assert frames.info.n_frames == 12
        assert (frames.info.width, frames.info.height, frames.info.fps) == (64, 48, 10.0)
        found = list(frames)
    assert [f.number for f in found] == list(range(12))
    np.testing.assert_allclose([f.time for f in found], np.arange(12) / 10)
    for f in found:
        assert f.image.dtype == np.uint8
        assert np.abs(f.image[5:20, 5:25].astype(int) - (220, 30, 40)).max() < 12
        assert np.abs(f.image[30:].astype(int) - (20 + 8 * f.number)).max() < 8
    assert frames.broken == 0


def test_stride_keeps_numbers_and_times(tmp_path):
    with open_frames(_video(tmp_path / "a.mp4"), stride=5) as frames:
        assert [(f.number, round(f.time, 6)) for f in frames] == [(0, 0), (5, 0.5), (10, 1.0)]


@pytest.mark.parametrize("kind", ["video", "raw", "folder"])
def test_a_moment_is_what_an_iteration_gives(tmp_path, kind):
    """By seeking where there are stamps, and by reading on where there are none."""
    if kind == "video":
        path = _video(tmp_path / "a.mp4", n=28)
    elif kind == "raw":
        path = _raw(tmp_path / "a.h264", n=28)
    else:
        path = tmp_path / "frames"
        path.mkdir()
        for i in range(28):
            cv2.imwrite(str(path / f"{i:03d}.png"), _picture(i))
    fps = None if kind == "video" else 10.0
    with open_frames(path, fps=fps) as frames:
        whole = [(frame.time, frame.image) for frame in frames]
    for begin, end in ((1.25, 2.05), (0.0, 0.25), (2.35, 99.0), (50.0, 60.0)):
        found = list(between(path, begin, end, fps=fps, size=(64, 48) if kind != "raw" else None))
        wanted = [(time, image) for time, image in whole if begin <= time <= end]
        assert [time for time, _ in found] == pytest.approx([time for time, _ in wanted])
        assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(found, wanted, strict=True))


def test_odd_sizes_survive(tmp_path):
    with open_frames(_video(tmp_path / "a.mp4", n=2, height=47, width=63)) as frames:
        assert next(iter(frames)).image.shape == (47, 63, 3)


def test_writer_is_deterministic_and_appears_only_when_done(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", width=64, height=48, fps=29.97) as writer:
        writer.write(_picture(0))
        assert not (tmp_path / "a.mp4").exists()
    with VideoWriter(tmp_path / "b.mp4", width=64, height=48, fps=29.97) as writer:
        writer.write(_picture(0))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert sorted(x.name for x in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_writer_leaves_nothing_after_an_error(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"old")

    def fail():
        with VideoWriter(tmp_path / "a.mp4", width=64, height=48, fps=10) as writer:
            writer.write(_picture(0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [(x.name, x.read_bytes()) for x in tmp_path.iterdir()] == [("a.mp4", b"old")]


def test_writer_refuses(tmp_path):
    with pytest.raises(ValueError, match="all must be positive"):
        VideoWriter(tmp_path / "a.mp4", width=0, height=48, fps=10)
    with pytest.raises(ValueError, match=r"unknown container '\.xyz'"):
        VideoWriter(tmp_path / "a.xyz", width=64, height=48, fps=10)
    writer = VideoWriter(tmp_path / "a.mp4", width=64, height=48, fps=10)
    with pytest.raises(ValueError, match=r"rgb is uint8 \(48, 63, 3\), expected uint8 \(48, 64, 3\)"):
        writer.write(np.zeros((48, 63, 3), np.uint8))
    with pytest.raises(ValueError, match="no frame was written"):
        writer.close()
    with pytest.raises(ValueError, match="is closed"):
        writer.write(_picture(0))
    assert list(tmp_path.iterdir()) == []


def _raw(path, n=12):
    """A bare H.264 stream without times."""
    with av.open(str(path), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(n):
            frame = av.VideoFrame.from_ndarray(_picture(i), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_raw_streams_have_the_rate_of_their_codec_unless_told(tmp_path):
    path = _raw(tmp_path / "a.264")
    for fps, rate in ((None, 10.0), (8.0, 8.0)):
        with open_frames(path, fps=fps) as frames:
            assert frames.info.fps == rate
            assert frames.info.n_frames is None
            found = list(frames)
        assert len(found) == 12
        np.testing.assert_allclose([f.time for f in found], np.arange(12) / rate)


def _turn(path, matrix):
    """Writes a display matrix into the track header of an mp4."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version and flags, times, id, duration, layer, volume
    data[at : at + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)


def test_rotated_video_is_set_upright(tmp_path):
    one = 1 << 16
    path = _video(tmp_path / "a.mp4", n=2)
    # ISO 14496-12: (a b u c d v x y w); x' = a x + c y, y' = b x + d y: a quarter turn clockwise.
    _turn(path, (0, one, 0, -one, 0, 0, 48 * one, 0, 1 << 30))
    with open_frames(path) as frames:
        assert (frames.info.width, frames.info.height) == (48, 64)
        image = next(iter(frames)).image
    assert image.shape == (64, 48, 3)
    # The red quarter, top left as stored, is top right on show.
    assert image[10, 40, 0] > 150
    assert image[10, 10, 0] < 100
    _turn(path, (-one, 0, 0, 0, -one, 0, 64 * one, 48 * one, 1 << 30))
    with open_frames(path) as frames:
        image = next(iter(frames)).image
    assert image.shape == (48, 64, 3)
    assert image[40, 50, 0] > 150


def test_variable_rates_give_presentation_times(tmp_path):
    stamps = [0, 1, 2, 7, 8, 20]
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(_picture(i), format="rgb24")
            frame.pts = stamp + 5
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with open_frames(tmp_path / "a.mp4") as frames:
        np.testing.assert_allclose([f.time for f in frames], np.array(stamps) / 10)


def test_image_folders_in_natural_order_broken_ones_counted(tmp_path):
    for i in (1, 2, 10):
        cv2.imwrite(str(tmp_path / f"img{i}.png"), _picture(i)[..., ::-1])
    (tmp_path / "img3.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("x")
    with open_frames(tmp_path) as frames:
        assert (frames.info.fps, frames.info.n_frames, frames.info.codec) == (25.0, 4, "images")
        found = list(frames)
    assert [f.number for f in found] == [0, 1, 9]
    assert [int(f.image[40, 40, 0]) for f in found] == [28, 36, 100]
    assert found[0].image[0, 0].tolist() == [220, 30, 40]
    assert found[2].time == 9 / 25
    assert frames.broken == 1
    with open_frames(tmp_path, fps=5, stride=3) as frames:
        assert [(f.number, f.time) for f in frames] == [(0, 0.0), (9, 1.8)]


def test_natural_key_takes_any_names():
    names = ["b", "a10", "a2", "10", "9", "a", "2a"]
    assert sorted(names, key=natural_key) == ["2a", "9", "10", "a", "a2", "a10", "b"]


def test_damage_in_the_middle_is_skipped_and_counted(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "a.mp4"
    with VideoWriter(path, width=64, height=48, fps=10) as writer:
        for _ in range(60):
            writer.write(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 12000] = bytes(12000)
    path.write_bytes(data)
    with open_frames(path) as frames:
        found = list(frames)
    assert frames.broken > 0
    assert len(found) + frames.broken == 60
    assert found[-1].number == 59
    np.testing.assert_allclose([f.time for f in found], [f.number / 10 for f in found], atol=1e-6)


def test_what_is_no_video_is_refused_in_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_frames(tmp_path / "none.mp4")
    with pytest.raises(ValueError, match="no images in folder"):
        open_frames(tmp_path)
    (tmp_path / "a.txt").write_text("hello\n" * 50)
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "b.mp4").write_bytes(bytes(range(256)) * 20)
    whole = _video(tmp_path / "c.mp4").read_bytes()
    (tmp_path / "c.mp4").write_bytes(whole[: len(whole) // 2])
    for name in ("a.txt", "a.mp4", "b.mp4", "c.mp4"):
        with pytest.raises(ValueError, match="not a video that can be decoded") as caught:
            open_frames(tmp_path / name)
        assert "\n" not in str(caught.value)
    with av.open(str(tmp_path / "d.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(ValueError, match="holds no video stream"):
        open_frames(tmp_path / "d.wav")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="not a video that can be decoded: none of the 1 images"):
        open_frames(tmp_path / "x")


def test_settings_are_checked(tmp_path):
    with pytest.raises(ValueError, match="stride is 0"):
        open_frames(tmp_path, stride=0)
    with pytest.raises(ValueError, match="fps is -1"):
        open_frames(tmp_path, fps=-1)


def test_real_videos(data):
    for name, rate, size in (("pets09-s2l1.mp4", 7, (576, 768)), ("intel-people.264", 12, (432, 768))):
        with open_frames(data / "video" / name) as frames:
            for f in frames:
                assert f.image.shape == (*size, 3)
                assert f.time == pytest.approx(f.number / rate)
                if f.number == 20:
                    break
            else:
                raise AssertionError("too few frames")
