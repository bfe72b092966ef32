"""What a search shows: clocks, table, contact sheet."""

from datetime import datetime, timedelta, timezone

import cv2
import numpy as np
import pytest

from tracklearn.app.formats import clock
from tracklearn.app.pictures import fit
from tracklearn.app.search.hits import captions, hits, table
from tracklearn.app.search.sheet import contact_sheet
from tracklearn.store.gallery import folder as gallery
from tracklearn.types import Tracklets


@pytest.fixture
def opened(tmp_path):
    t, length = 6, 5
    tracklet = np.repeat(np.arange(t), length)
    frame = np.arange(t * length)
    n = len(frame)
    tracklets = Tracklets(
        tracklet,
        frame,
        frame * 130.05,
        np.tile([0, 0, 5, 9], (n, 1)),
        np.ones(n),
        np.arange(n) + 50,
        [0, 1] * 3,
        [0, 1, 4, 4, 4, 5],  # the third track was cut in three
    )
    features = np.eye(t, 8, dtype=np.float32)
    gallery.build(tmp_path / "g", features, tracklets, ["hall", "stairs"], manifest={})
    return gallery.FolderGallery(tmp_path / "g")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00:00.0"),
        (0.04, "0:00:00.0"),
        (59.96, "0:01:00.0"),
        (3599.99, "1:00:00.0"),
        (86400.5, "24:00:00.5"),
        (-1.5, "-0:00:01.5"),
        (-0.01, "0:00:00.0"),
        (float("nan"), "–"),
    ],
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def wall_of(_, track, seconds):
    """Tracks from the fifth on were filmed by a clock that somebody knows."""
    began = datetime(2026, 5, 1, 8, tzinfo=timezone(timedelta(hours=2)))
    return began + timedelta(seconds=seconds) if track >= 4 else None


def nowhere(_, track, seconds):
    return None


def test_table(opened):
    matches = opened.search(np.eye(6, 8, dtype=np.float32)[2:4], 9, exclude=np.array([2, -1]))
    first = hits(opened, matches, wall_of)
    assert [h.name for h in first] == ["0", "1", "4.2", "4.3", "5"]  # no row for the four empty places
    head, *rows = table(hits(opened, matches, wall_of, query=1))
    assert head == ("rank", "distance", "camera", "track", "part", "time in film", "clock time")
    assert rows[0] == ("1", "0.000", "stairs", "4", "2", "0:32:30.8 – 0:41:11.0", "2026-05-01 08:32:30")
    assert rows[1] == ("2", "1.414", "hall", "0", "", "0:00:00.0 – 0:08:40.2", "")
    assert captions(first)[0] == "1 · 1.414\nhall · #0\n0:00:00.0"
    assert captions(first)[2] == "3 · 1.414\nstairs · #4.2\n0:32:30.8\n2026-05-01 08:32:30"
    kept = ("track", "part", "n_parts", "crop", "at")
    assert [first[2].to_dict()[name] for name in kept] == [4, 2, 3, 67, "2026-05-01T08:32:30.750+02:00"]
    assert first[0].to_dict()["at"] is None


def test_columns_that_would_be_empty_are_left_out(opened):
    matches = opened.search(np.eye(6, 8, dtype=np.float32)[0], 2)
    head, first, _ = table(hits(opened, matches, nowhere))
    assert head == ("rank", "distance", "camera", "track", "time in film")
    assert first == ("1", "0.000", "hall", "0", "0:00:00.0 – 0:08:40.2")
    assert table([]) == [head]


def colour(rgb, shape=(80, 40)):
    return np.full((*shape, 3), rgb, np.uint8)


@pytest.mark.parametrize("n", [0, 1, 6, 10])
def test_contact_sheet(tmp_path, n):
    results = [
        (colour((0, 160, 20 * i), (200, 30 + 30 * i)), f"{i + 1} · 0.5\ncam $1_ · #{i}") for i in range(n)
    ]
    out = contact_sheet(colour((200, 10, 10)), results, tmp_path / "deep" / "sheet.png")
    assert [f.name for f in out.parent.iterdir()] == ["sheet.png"]
    image = cv2.cvtColor(cv2.imread(str(out)), cv2.COLOR_BGR2RGB).reshape(-1, 3)
    red = (np.abs(image.astype(int) - (200, 10, 10)) < 4).all(1)
    assert red.sum() > 15_000
    for i in range(n):
        green = (np.abs(image.astype(int) - (0, 160, 20 * i)) < 4).all(1)
        assert green.sum() > 4000, i


def test_a_contact_sheet_has_room_for_every_line_of_its_captions(tmp_path):
    short, long = (
        cv2.imread(str(contact_sheet(colour((1, 2, 3)), [(colour((9, 9, 9)), text)], tmp_path / name)))
        for name, text in (("a.png", "1\n2\n3"), ("b.png", "1\n2\n3\n4\npicture cannot be read"))
    )
    assert long.shape[0] == short.shape[0] + 30
    ground = (long[0, 0].astype(int) - long[-60:]).any(2)
    assert ground[:20].any()  # the fifth line is written


def test_contact_sheet_is_the_same_each_time(tmp_path):
    results = [(colour((0, 160, 20)), "1")]
    first = contact_sheet(colour((1, 2, 3)), results, tmp_path / "a.png").read_bytes()
    assert contact_sheet(colour((1, 2, 3)), results, tmp_path / "b.png").read_bytes() == first


@pytest.mark.parametrize("shape", [(1, 1), (300, 20), (20, 300), (64, 32), (500, 260), (100, 40)])
def test_fit_keeps_the_shape_of_the_picture(shape):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 99, (*shape, 3)).astype(np.uint8)
    kept = picture.copy()
    tile = fit(picture, 64, 128)
    assert tile.shape == (128, 64, 3)
    assert np.array_equal(picture, kept)
    ground = (tile == 142).all(2)
    h, w = shape
    near = max(h / w / 2, 2 * w / h) <= 1.11
    assert ground.any() != near  # near the tile's shape it fills the tile, else grey shows beside it


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_fit_refuses_what_is_no_picture(bad):
    with pytest.raises(ValueError, match=r"expected uint8 \(h, w, 3\) RGB"):
        fit(bad, 64, 128)
