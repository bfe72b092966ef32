"""The picture is what a player shows."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from tests.cases.films import HEIGHT, WIDTH, boxes_text, display_matrix, film, scene
from tracklearn.store.film.frames import LargerPicture
from tracklearn.store.film.video import open_frames
from tracklearn.store.film.video_writer import VideoWriter
from tracklearn.store.ingest.ingest import ingest
from tracklearn.store.sets.tracklets import open_set

# What a player shows of a stored picture, by (a, b, c, d) of its matrix: (p, q) -> (a p + c q, b p + d q).
TURNS = {
    (1, 0, 0, 1): lambda x: x,
    (-1, 0, 0, 1): lambda x: x[:, ::-1],
    (1, 0, 0, -1): lambda x: x[::-1],
    (-1, 0, 0, -1): lambda x: x[::-1, ::-1],
    (0, 1, 1, 0): lambda x: x.transpose(1, 0, 2),
    (0, 1, -1, 0): lambda x: np.rot90(x, -1),
    (0, -1, 1, 0): lambda x: np.rot90(x),
    (0, -1, -1, 0): lambda x: x[::-1, ::-1].transpose(1, 0, 2),
}


def _first(path, **options):
    with open_frames(path, **options) as frames:
        return next(iter(frames)).image, frames


def _near(image, expected, levels=12):
    """Alike but for compression: nowhere far away, but at the edges of colours."""
    assert image.shape == expected.shape
    off = np.abs(image.astype(int) - expected).max(2)
    assert np.quantile(off, 0.9) <= levels


@pytest.mark.parametrize("matrix", list(TURNS))
def test_a_display_matrix_turns_and_mirrors(tmp_path, matrix):
    """mirrored-display-matrix: mirrored pictures were turned by 180 degrees, or left as they were."""
    stored = scene()
    plain, _ = _first(film(tmp_path / "plain.mp4", [stored] * 2))
    film(tmp_path / "a.mp4", [stored] * 2)
    image, frames = _first(display_matrix(tmp_path / "a.mp4", *matrix))
    np.testing.assert_array_equal(image, TURNS[matrix](plain))
    assert (frames.info.height, frames.info.width) == image.shape[:2]


def test_heads_are_up_in_the_crops_of_a_mirrored_film(tmp_path):
    shown = scene()
    film(tmp_path / "a.mp4", [shown[::-1]] * 12)
    display_matrix(tmp_path / "a.mp4", 1, 0, 0, -1)
    boxes_text(tmp_path / "a.txt", [(i, 1, 20, 30, 24, 60) for i in range(12)])
    found = open_set(ingest([f"c={tmp_path}/a.txt+{tmp_path}/a.mp4"], tmp_path / "set"))
    crop = found.image(0)
    assert crop[4:12, 8:16].mean() > 170  # the head
    assert crop[30:50, 8:16].mean() < 120


@pytest.mark.parametrize(
    ("name", "aspect", "size"),
    [
        ("a.mp4", Fraction(64, 45), (228, 120)),
        ("a.mkv", Fraction(8, 9), (160, 135)),
        ("a.ts", Fraction(2, 1), (320, 120)),
        ("a.avi", Fraction(4, 3), (213, 120)),
        ("b.mp4", Fraction(1, 1000), (160, 120)),
    ],
)
def test_pixels_are_made_square(tmp_path, name, aspect, size):
    image, frames = _first(film(tmp_path / name, [scene()] * 3, aspect=aspect))
    assert (frames.info.width, frames.info.height) == size
    _near(image, cv2.resize(scene(), size))
    square = size == (WIDTH, HEIGHT)
    assert ("stored" in frames.account) == (not square)


def test_pixels_are_made_square_before_the_picture_is_turned(tmp_path):
    film(tmp_path / "a.mp4", [scene()] * 3, aspect=Fraction(2, 1))
    image, _ = _first(display_matrix(tmp_path / "a.mp4", *(0, 1, -1, 0)))
    _near(image, np.rot90(cv2.resize(scene(), (320, 120)), -1))


def _interlaced(path, images):
    """Two pictures woven into each frame, as cameras of 50 fields a second do."""
    frames = []
    for even, odd in zip(images[::2], images[1::2], strict=True):
        frame = even.copy()
        frame[1::2] = odd[1::2]
        frames.append(frame)
    return film(path, frames, options={"x264-params": "tff=1", "g": "12"})


def test_interlaced_frames_are_made_whole(tmp_path):
    images = [scene(people=((10 + 3 * i, 30),)) for i in range(40)]
    path = _interlaced(tmp_path / "a.mp4", images)
    with open_frames(path) as frames:
        found = list(frames)
    assert [frame.number for frame in found] == list(range(20))
    np.testing.assert_allclose([frame.time for frame in found], np.arange(20) / 10, atol=1e-6)
    assert frames.account["deinterlaced_frames"] == 20
    for frame in found[2:-2]:
        rows = frame.image[50:80].astype(int)
        comb = np.abs(rows[1:-1] - (rows[:-2] + rows[2:]) / 2).max()
        assert comb < 40  # of woven fields it is more than 50
        _near(frame.image, images[2 * frame.number])
    with open_frames(path, stride=4) as frames:
        strided = list(frames)
    assert [frame.number for frame in strided] == [0, 4, 8, 12, 16]
    np.testing.assert_array_equal(strided[2].image, found[8].image)


def test_progressive_frames_are_left_alone(tmp_path):
    _, frames = _first(film(tmp_path / "a.mp4", [scene()] * 3))
    assert frames.account == {"times": "stamps"}


def _two_streams(path, sizes, default=None):
    with av.open(str(path), "w") as container:
        streams = []
        for width, height in sizes:
            stream = container.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        if default is not None:
            for i, stream in enumerate(streams):
                flag = av.stream.Disposition.default
                stream.disposition = flag if i == default else av.stream.Disposition(0)
        for _ in range(5):
            for stream in streams:
                image = np.full((stream.height, stream.width, 3), 90, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


def test_the_largest_stream_is_read_where_none_is_the_default(tmp_path):
    image, frames = _first(_two_streams(tmp_path / "a.ts", [(80, 60), (160, 120), (64, 48)]))
    assert image.shape == (120, 160, 3)
    assert frames.account["stream"] == "1 of [0, 1, 2]"


def test_the_default_stream_is_read_where_there_is_one(tmp_path):
    image, _ = _first(_two_streams(tmp_path / "a.mkv", [(160, 120), (80, 60)], default=1))
    assert image.shape == (60, 80, 3)


def _ramp(path, sizes, n=5):
    """One stream whose picture changes its size, as WebRTC does, or spliced recordings."""
    parts = []
    for i, (width, height) in enumerate(sizes):
        part = path.with_name(f"part{i}.ts")
        images = [cv2.resize(scene(), (width, height), interpolation=cv2.INTER_AREA)] * n
        film(part, images, stamps=[100 * (n * i + k) for k in range(n)])
        parts.append(part.read_bytes())
    path.write_bytes(b"".join(parts))
    return path


def test_a_growing_picture_is_shown_at_its_largest_size(tmp_path):
    """resolution-ramp: every picture was shrunk to the size of the first, and nobody was found."""
    path = _ramp(tmp_path / "a.ts", [(40, 30), (80, 60), (160, 120)])
    with open_frames(path) as frames, pytest.raises(LargerPicture, match="160x120") as caught:
        list(frames)
    assert caught.value.size == (160, 120)
    with open_frames(path, size=caught.value.size) as frames:
        found = list(frames)
    assert {frame.image.shape for frame in found} == {(120, 160, 3)}
    assert frames.account["fitted_frames"] == 10
    assert [frame.number for frame in found] == list(range(15))
    boxes_text(tmp_path / "a.txt", [(i, 1, 20, 30, 24, 60) for i in range(15)])
    set_ = open_set(ingest([f"c={tmp_path}/a.txt+{path}"], tmp_path / "set"))
    assert set_.tracklets.n_crops == 15
    for row, levels in ((0, 90), (7, 60), (14, 30)):
        _near(set_.image(row), scene()[30:90, 20:44], levels)
    video = set_.manifest["sources"][0]["video"]
    assert (video["width"], video["height"], video["fitted_frames"]) == (160, 120, 10)


def test_a_single_larger_picture_is_a_damaged_one(tmp_path):
    path = _ramp(tmp_path / "a.ts", [(80, 60)] * 3)
    _ramp(tmp_path / "b.ts", [(160, 120)], n=1)
    path.write_bytes(path.read_bytes() + (tmp_path / "b.ts").read_bytes())
    with open_frames(path) as frames, pytest.raises(LargerPicture) as caught:
        list(frames)
    assert caught.value.size == (80, 60)
    with open_frames(path, size=(80, 60)) as frames:
        assert len(list(frames)) == 16


def test_another_shape_is_letterboxed_never_stretched(tmp_path):
    path = _ramp(tmp_path / "a.ts", [(160, 120), (120, 120)])
    with open_frames(path) as frames:
        image = list(frames)[-1].image
    assert image.shape == (120, 160, 3)
    assert image[:, :20].max() == image[:, -20:].max() == 0
    _near(image[:, 20:140], cv2.resize(scene(), (120, 120), interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize("matrix", [1, 5, 6, 9])
@pytest.mark.parametrize("full", [False, True])
def test_colours_are_those_of_the_scene_whatever_the_matrix(tmp_path, matrix, full):
    """BT.709, 470, 170M and 2020; video and full range: as FFmpeg's own conversion has them."""
    patches = np.zeros((48, 96, 3), np.uint8)
    colours = np.array(
        [(200, 40, 40), (40, 160, 60), (40, 60, 200), (230, 190, 160), (20, 20, 20), (240, 240, 240)]
    )
    patches[:] = np.repeat(colours, 16, 0)
    options = {"colorspace": str(matrix), "color_range": "pc" if full else "tv"}
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 48, "yuv444p"
        stream.options = {"crf": "1"} | options
        frame = av.VideoFrame.from_ndarray(patches, format="rgb24")
        frame = frame.reformat(
            format="yuv444p", dst_colorspace=matrix, dst_color_range=2 if full else 1, src_color_range=2
        )
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    image, _ = _first(tmp_path / "a.mp4")
    off = np.abs(image[20, 8::16].astype(int) - colours)
    assert off.max() <= 3


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv422p", "gray", "yuv444p"])
def test_other_pixels_are_read(tmp_path, pix_fmt):
    image, _ = _first(film(tmp_path / "a.mp4", [scene()] * 2, pix_fmt=pix_fmt))
    expected = scene()
    if pix_fmt == "gray":
        expected = np.repeat(cv2.cvtColor(expected, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    _near(image, expected)


def test_a_film_of_the_project_is_shown_as_it_was_written(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", width=160, height=120, fps=10, crf=0) as writer:
        for _ in range(3):
            writer.write(scene())
    _near(_first(tmp_path / "a.mp4")[0], scene(), 3)
