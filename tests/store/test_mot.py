"""MOTChallenge files and the detection score."""

import itertools
import tracemalloc

import numpy as np
import pytest

from tracklearn.core.boxes import iou
from tracklearn.store.film import mot_text
from tracklearn.store.film.mot import (
    Boxes,
    detection_f1,
    read_detections,
    read_results,
    read_truth,
    write_results,
)


def _write(folder, text, name="a.txt"):
    path = folder / name
    path.write_text(text)
    return path


def _boxes(rows):
    rows = np.asarray(rows, float).reshape(-1, 6)
    return Boxes(rows[:, 0], rows[:, 1], rows[:, 2:], np.ones(len(rows)))


def test_results_become_corners_and_frames_from_0_sorted(tmp_path):
    path = _write(
        tmp_path, "2,7,10,20,30,40,0.5,-1,-1,-1\n\n1,9,1,2,3,4,-1,-1,-1,-1\n2,3,0,0,5,5,1,-1,-1,-1\n"
    )
    boxes = read_results(path)
    assert boxes.frame.tolist() == [0, 1, 1]
    assert boxes.track.tolist() == [9, 3, 7]
    assert boxes.box.tolist() == [[1, 2, 4, 6], [0, 0, 5, 5], [10, 20, 40, 60]]
    assert boxes.score.tolist() == [1, 1, 0.5]


def test_six_columns_blanks_and_windows_line_ends_are_read(tmp_path):
    assert read_results(_write(tmp_path, "1 4 10 20 30 40\r\n2 4 11 20 30 40\r\n")).score.tolist() == [1, 1]


def test_detections_have_no_track_and_keep_their_scores(tmp_path):
    boxes = read_detections(_write(tmp_path, "1,5,0,0,9,9,-0.3,-1,-1,-1\n"))
    assert boxes.track.tolist() == [-1]
    assert boxes.score.tolist() == [-0.3]


def test_truth_counts_flag_always_and_class_in_nine_columns_only(tmp_path):
    nine = "1,1,0,0,9,9,1,1,1\n1,2,0,0,9,9,0,1,1\n1,3,0,0,9,9,1,7,1\n"
    assert read_truth(_write(tmp_path, nine)).track.tolist() == [1]
    ten = "1,1,0,0,9,9,1,-4.1,-7.3,0\n1,2,0,0,9,9,0,1,1,0\n"
    assert read_truth(_write(tmp_path, ten)).track.tolist() == [1]
    assert read_truth(_write(tmp_path, "1,1,0,0,9,9\n")).track.tolist() == [1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,1,0,x7,9,9,1", r"a\.txt line 3: 'x7' in column 4 \(top\) is not a number"),
        ("1,1,0,nan,9,9,1", r"a\.txt line 3: 'nan' in column 4 \(top\)"),
        ("1,1,0,0,9,,1", r"a\.txt line 3: '' in column 6 \(height\)"),
        ("1,1,0,0", r"a\.txt line 3: 4 columns, expected at least 6"),
        ("0,1,0,0,9,9,1", r"a\.txt line 3: MOTChallenge frames count from 1"),
        ("1.5,1,0,0,9,9,1", r"a\.txt line 3: the frame is not a whole number"),
        ("1,1.5,0,0,9,9,1", r"a\.txt line 3: the id is not a whole number"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = _write(tmp_path, f"1,1,0,0,9,9,1\n\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read_results(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,1,0,x7,9,9,1", r"line 8: 'x7' in column 4 \(top\) is not a number"),
        ("1,1,0,0,9,9,1,1,1", "line 8: 9 columns, but 7 in the lines before"),
        ("0,1,0,0,9,9,1", "line 8: MOTChallenge frames count from 1"),
        ("1 1 0 0 9 9 1", "line 8"),
        ("1,1e300,0,0,9,9,1", "line 8: the id is too large: at most 64 bits: '1,1e300"),
        ("1e19,1,0,0,9,9,1", "line 8: the frame is too large"),
    ],
)
def test_a_bad_line_far_down_is_named_too(tmp_path, monkeypatch, line, message):
    monkeypatch.setattr(mot_text, "_BLOCK", 3)  # lines 1, 2 and 4, then 5 to 7, then from 8 on
    good = "1,1,0,0,9,9,1\n"
    path = _write(tmp_path, f"{good}{good}  \n{good * 4}{line}\n{good}")
    with pytest.raises(ValueError, match=message):
        read_results(path)


@pytest.mark.parametrize("n_columns", [6, 7, 9, 10])
def test_a_file_read_in_pieces_is_the_file_read_whole(tmp_path, monkeypatch, n_columns):
    rng = np.random.default_rng(n_columns)
    rows = rng.integers(1, 9, (100, n_columns))
    path = _write(tmp_path, "\n".join(",".join(map(str, row)) for row in rows))
    for read in (read_results, read_detections, read_truth):
        whole = read(path)
        with monkeypatch.context() as patch:
            patch.setattr(mot_text, "_BLOCK", 7)
            pieces = read(path)
        for name in ("frame", "track", "box", "score"):
            np.testing.assert_array_equal(getattr(pieces, name), getattr(whole, name))


def test_a_long_file_takes_little_more_memory_than_its_numbers(tmp_path):
    n = 100_000
    rows = np.column_stack([np.arange(n) // 100 + 1, np.arange(n), np.ones((n, 5)), -np.ones((n, 3))])
    np.savetxt(tmp_path / "a.txt", rows, fmt="%d", delimiter=",")
    tracemalloc.start()
    boxes = read_results(tmp_path / "a.txt")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(np.unique(boxes.track)) == n
    assert peak < 4 * n * 7 * 8


def test_missing_empty_and_binary_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_results(tmp_path / "none.txt")
    with pytest.raises(ValueError, match="no rows"):
        read_results(_write(tmp_path, "\n"))
    (tmp_path / "b.txt").write_bytes(b"\x7fELF\x02\x00\x80")
    with pytest.raises(ValueError, match="line 1: not text"):
        read_results(tmp_path / "b.txt")


def test_written_results_read_back_and_nothing_else_stays(tmp_path):
    boxes = _boxes([[0, 3, 1.25, 2, 11.5, 22], [4, 0, 5, 6, 7, 9]])
    path = write_results(tmp_path / "out.txt", boxes)
    again = read_results(path)
    for name in ("frame", "track", "box", "score"):
        np.testing.assert_array_equal(getattr(again, name), getattr(boxes, name))
    assert [x.name for x in tmp_path.iterdir()] == ["out.txt"]


def test_boxes_check_shapes_and_leave_their_input_alone():
    with pytest.raises(ValueError, match=r"score has shape \(2,\), expected \(1,\)"):
        Boxes([0], [0], [[0, 0, 1, 1]], [1, 1])
    frame = np.array([1, 0])
    Boxes(frame, [0, 0], np.zeros((2, 4)), [1, 1])
    assert frame.tolist() == [1, 0]
    assert frame.flags.writeable


def test_iou_by_hand():
    a = [[0, 0, 10, 10], [0, 0, 0, 10]]
    b = [[5, 0, 15, 10], [20, 20, 30, 30]]
    np.testing.assert_allclose(iou(a, b), [[1 / 3, 0], [0, 0]])


def test_f1_counts_every_frame_of_both():
    truth = _boxes([[0, 1, 0, 0, 10, 10], [1, 1, 0, 0, 10, 10]])
    found = _boxes([[0, -1, 0, 0, 10, 10], [2, -1, 0, 0, 10, 10], [3, -1, 0, 0, 10, 10]])
    score = detection_f1(found, truth)
    assert score["precision"] == pytest.approx(1 / 3)
    assert score["recall"] == pytest.approx(1 / 2)
    assert score["f1"] == pytest.approx(2 / 5)
    nothing = _boxes(np.zeros((0, 6)))
    assert detection_f1(nothing, truth)["f1"] == 0
    assert detection_f1(nothing, nothing) == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    with pytest.raises(ValueError, match="min_iou"):
        detection_f1(found, truth, min_iou=0)


def test_f1_pairs_as_many_as_possible_like_trying_every_order():
    rng = np.random.default_rng(0)
    for _ in range(40):
        corner = rng.uniform(0, 12, (9, 2))
        rows = np.hstack([np.zeros((9, 2)), corner, corner + rng.uniform(6, 14, (9, 2))])
        found, truth = _boxes(rows[:4]), _boxes(rows[4:])
        good = iou(found.box, truth.box) >= 0.3
        most = max(sum(good[i, j] for i, j in enumerate(p)) for p in itertools.permutations(range(5), 4))
        assert detection_f1(found, truth, min_iou=0.3)["recall"] == pytest.approx(most / 5)


def test_real_files(data):
    truth = read_truth(data / "video" / "pets09-s2l1.gt.txt")
    assert len(truth) == 4476  # of 4650 rows, 174 have flag 0
    assert len(np.unique(truth.track)) == 19
    public = read_detections(data / "video" / "pets09-s2l1.det.txt")
    assert len(public) == 4359
    assert detection_f1(public, truth)["f1"] == pytest.approx(0.794, abs=0.001)
    assert len(read_truth(data / "mot" / "gt" / "MOT16-02.txt")) == 17833
    assert read_results(data / "mot" / "deepsort" / "MOT16-09.txt").frame.min() == 2
