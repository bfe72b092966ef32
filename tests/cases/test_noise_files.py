"""`noise measure` on files that do not belong together: refused or told, with what is probable."""

import gzip
import io
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from tracklearn.app.cli import main
from tracklearn.app.noise import bars
from tracklearn.app.noise import measure as noise

N_FRAMES = 40


def persons():
    """(frame, person, left, top, width, height) of five persons who walk, in a picture of 960 x 540."""
    for frame in range(1, N_FRAMES + 1):
        for i in range(5):
            yield frame, i + 1, 60 + 170 * i + 2 * frame, 90 + 50 * i, 60 + 4 * i, 150 + 9 * i


def write(path, rows, rest="1,-1,-1,-1"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(",".join(map(str, row)) + f",{rest}\n" for row in rows))
    return path


@pytest.fixture
def truth(tmp_path):
    return write(tmp_path / "gt.txt", persons(), "1,1,1")


def broken(rows):
    """Tracks of a tracker: every person twice, a new id from the middle on."""
    for frame, i, *box in rows:
        yield frame, i + 10 * (frame > N_FRAMES // 2), *box


MISREAD = {
    "corners": (lambda f, i, x, y, w, h: (f, i, x, y, x + w, y + h), "held x1,y1,x2,y2: subtract"),
    "centres": (lambda f, i, x, y, w, h: (f, i, x + w / 2, y + h / 2, w, h), "held the centres of boxes"),
    "fractions": (
        lambda f, i, x, y, w, h: (f, i, x / 960, y / 540, w / 960, h / 540),
        "held fractions of the picture",
    ),
    "a picture twice as large": (
        lambda f, i, x, y, w, h: (f, i, 2 * x, 2 * y, 2 * w, 2 * h),
        "were of a picture 2 times as large: divide columns 3 to 6 by 2",
    ),
    "frames of a longer film": (
        lambda f, i, x, y, w, h: (f + 20, i, x, y, w, h),
        "counted frames 20 lower: give both the same",
    ),
}


@pytest.mark.parametrize("name", MISREAD)
def test_files_that_match_once_read_in_another_way_are_refused(tmp_path, truth, name):
    change, message = MISREAD[name]
    tracks = write(tmp_path / "tracks.txt", (change(*row) for row in persons()))
    with pytest.raises(
        ValueError, match=rf"of the boxes of .*tracks\.txt match .*gt\.txt.*tracks\.txt {message}"
    ):
        noise.measure({"a": (tracks, truth)})


def test_a_truth_of_corners_is_refused_too(tmp_path):
    tracks = write(tmp_path / "tracks.txt", persons())
    truth = write(tmp_path / "gt.txt", (MISREAD["corners"][0](*row) for row in persons()), "1,1,1")
    with pytest.raises(ValueError, match=r"would if .*gt\.txt held x1,y1,x2,y2"):
        noise.measure({"a": (tracks, truth)})


def test_another_sequence_is_told(tmp_path, truth, capsys, monkeypatch):
    rng = np.random.default_rng(0)
    rows = [(f, i, *rng.integers(0, 400, 2), 30, 90) for f in range(1, 41) for i in range(1, 4)]
    tracks = write(tmp_path / "tracks.txt", rows)
    command = ["tracklearn", "noise", "measure", "--tracks", str(tracks), "--truth", str(truth)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert "warning: only" in err
    assert "so the rates say little: are they of one sequence" in err


def test_rows_given_twice_count_once(tmp_path, truth):
    rows = list(broken(persons()))[:-9]  # the last ones are short
    once = noise.measure({"a": (write(tmp_path / "once.txt", rows), truth)})
    for name, doubled in (("twice.txt", rows * 2), ("each.txt", [row for row in rows for _ in "12"])):
        twice = noise.measure({"a": (write(tmp_path / name, doubled), truth)})
        assert twice.pooled == once.pooled
        np.testing.assert_array_equal(twice.bars["a"], once.bars["a"])
        (warning,) = twice.warnings
        assert f"{name}: {len(rows)} rows are there twice; they count once" in warning
    assert once.warnings == ()
    assert once.pooled.r_FM == pytest.approx(2, abs=0.3)


def test_a_second_box_of_an_id_is_told_and_the_best_counts(tmp_path, truth):
    good = [(*row, 0.9, -1, -1, -1) for row in persons()]
    worse = [(f, i, x + 300, y, w, h, 0.2, -1, -1, -1) for f, i, x, y, w, h in persons()]
    path = tmp_path / "t.txt"
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in [*worse, *good]))
    measured = noise.measure({"a": (path, truth)})
    assert measured.pooled.matched == 1
    assert "200 rows are a second box of one id in one frame" in measured.warnings[0]


def test_truth_without_a_person_is_refused(tmp_path):
    tracks = write(tmp_path / "tracks.txt", persons())
    cars = write(tmp_path / "gt.txt", persons(), "1,3,1")
    with pytest.raises(
        ValueError, match=r"gt\.txt: no row is a person that counts \(200 rows: their class is 3"
    ):
        noise.measure({"a": (tracks, cars)})


def test_swapped_files_are_told(tmp_path, truth):
    tracks = write(tmp_path / "tracks.txt", broken(persons()))
    scored = write(tmp_path / "scored.txt", broken(persons()), "0.87,-1,-1,-1")
    plain = write(tmp_path / "plain.txt", persons())
    named = write(tmp_path / "g" / "gt.txt", persons())
    for a, b, why in (
        (truth, tracks, "gt.txt holds flags and classes"),
        (plain, scored, "scored.txt holds scores, as a tracker's result does"),
        (named, tracks, "gt.txt is called as ground truth is"),
        (plain, tracks, "plain.txt hold more persons than persons have tracklets"),
    ):
        measured = noise.measure({"a": (a, b)})
        (warning,) = [w for w in measured.warnings if "swapped" in w]
        assert why in warning
        assert not noise.measure({"a": (b, a)}).warnings
        assert measured.to_dict()["warnings"] == [*measured.warnings]


def test_ids_below_0_are_left_out_and_told(tmp_path, truth):
    rows = [*persons(), (1, -1, 0, 0, 9, 9)]
    measured = noise.measure({"a": (write(tmp_path / "t.txt", rows), truth)})
    assert measured.pooled.matched == 1
    assert measured.warnings[0].endswith("t.txt: 1 rows are left out: their id is below 0: no track")


def test_a_file_given_as_both_gives_no_warning(truth):
    assert noise.measure({"a": (truth, truth)}).warnings == ()


def test_packed_files_pair_by_name(tmp_path, truth):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "A.txt.gz").write_bytes(gzip.compress(truth.read_bytes()))
    (tmp_path / "g").mkdir()
    shutil.copy(truth, tmp_path / "g" / "A.txt")
    assert list(noise.pair([tmp_path / "r"], [tmp_path / "g"])) == ["A"]


@pytest.mark.parametrize("sizes", [[150] * 21, [3000], [9] * 60, [1, 2, 2500, 40]])
def test_the_picture_of_many_sequences_stays_viewable(sizes):
    panels = {
        f"sequence {k}": np.stack([np.arange(n), np.arange(n), np.arange(n) + 30, np.arange(n) % 7], 1)
        for k, n in enumerate(sizes)
    }
    with Image.open(io.BytesIO(bars.draw(panels))) as image:
        assert image.height <= 7000
        assert image.width <= 4000


def test_panels_keep_their_order_and_each_is_drawn_once():
    for n in ([150] * 21, [5], [1000, 3, 3, 3], [3, 3, 1000], [40, 40]):
        columns, heights, _ = bars._layout(n, 1.0)
        assert [i for column in columns for i in column] == list(range(len(n)))
        assert all(columns)
        assert len(heights) == len(n)
