"""MOTChallenge text as tools and editors write it: read where it has one meaning, else refused in a line."""

import gzip
import random

import numpy as np
import pytest

from tracklearn.store.film import mot_text
from tracklearn.store.film.mot import Boxes, read_detections, read_results, read_truth, write_results

ROWS = [(f, i, 5 + 50 * i, 40, 24, 60.5, 0.5) for f in range(1, 6) for i in range(3)]


def lines(separator=",", rest=("-1", "-1", "-1"), end=""):
    return [separator.join([*map(str, row), *rest]) + end for row in ROWS]


def plain(newline="\n", **form):
    return newline.join([*lines(**form), ""])


HEADER = "frame,id,bb_left,bb_top,bb_width,bb_height,conf,x,y,z\n"
DIALECTS = {
    "blanks": plain(separator=" "),
    "several blanks": "  " + plain(separator="   "),
    "tabs": plain(separator="\t"),
    "semicolons": plain(separator=";"),
    "semicolons and blanks": plain(separator=" ; "),
    "a comma at the end": plain(end=","),
    "a semicolon at the end": plain(separator=";", end=";"),
    "names at the top": HEADER + plain(),
    "names in semicolons": HEADER.replace(",", ";") + plain(separator=";"),
    "names in quotes": HEADER.replace(",", '","').replace("frame", '"frame').replace("z", 'z"') + plain(),
    "names in blanks": HEADER.replace(",", " ") + plain(separator=" "),
    "a note at the top": "# made by a tracker, v1.2\n" + plain(),
    "notes between and behind": plain().replace("\n", " # sure\n# next\n"),
    "MATLAB's notes": "% made in MATLAB\n" + plain(),
    "a note, then names": "# note\n\n" + HEADER + plain(),
    "quoted numbers": plain().replace("24", '"24"'),
    "quoted lines": "\n".join(f'"{line}"' for line in lines()),
    "nan in unused columns": plain(rest=("nan", "NaN", "nan")),
    "inf in unused columns": plain(rest=("inf", "-inf", "nan")),
    "unused columns empty": plain(rest=("", "", "")),
    "7 and 10 columns": "\n".join(x[: x.index(",-1")] if i % 2 else x for i, x in enumerate(lines())) + "\n",
    "10 and 7 columns": "\n".join(x if i % 2 else x[: x.index(",-1")] for i, x in enumerate(lines())) + "\n",
    "8 columns": plain(rest=("-1",)),
    "138 columns": plain(rest=["0.25"] * 131),
    "Windows' line ends": plain(newline="\r\n"),
    "Mac's line ends": plain(newline="\r"),
    "Ctrl-Z on a line of its own": plain() + "\x1a",
    "Ctrl-Z behind the last row": plain().rstrip() + "\x1a\r\n",
    "no end of the last line": plain().rstrip(),
    "blank lines": "\n \n" + plain(newline="\n\n"),
    "whole numbers as floats": plain().replace("1,", "1.0,").replace("2,", "2e0,", 1),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_a_dialect_is_read_as_the_plain_file(tmp_path, name):
    (tmp_path / "plain.txt").write_text(plain())
    (tmp_path / "odd.txt").write_bytes(DIALECTS[name].encode())
    for read in (read_results, read_detections):
        equal(read(tmp_path / "odd.txt"), read(tmp_path / "plain.txt"))


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"]
)
@pytest.mark.parametrize("packed", [False, True])
def test_any_encoding_is_read_gzipped_too(tmp_path, encoding, packed):
    text = "# für Zürich\n" + plain(newline="\r\n")
    data = text.encode(encoding)
    (tmp_path / "plain.txt").write_text(plain())
    (tmp_path / "odd.txt.gz").write_bytes(gzip.compress(data, mtime=0) if packed else data)
    equal(read_results(tmp_path / "odd.txt.gz"), read_results(tmp_path / "plain.txt"))


def test_a_dialect_is_read_the_same_across_pieces(tmp_path, monkeypatch):
    (tmp_path / "plain.txt").write_text(plain())
    expected = read_results(tmp_path / "plain.txt")
    monkeypatch.setattr(mot_text, "_BLOCK", 4)
    for text in (*DIALECTS.values(), "# a\n" * 9 + plain(), plain() + "# a\n" * 9):
        (tmp_path / "odd.txt").write_bytes(text.encode())
        equal(read_results(tmp_path / "odd.txt"), expected)


def equal(a, b):
    for name in ("frame", "track", "box", "score"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


ROW = "1,1,5,40,24,60,1,-1,-1,-1\n"
REFUSED = {
    "decimal commas between blanks": ("1 1 5,5 40,0 24,0 60,0 1\n", "line 1: numbers with a decimal comma"),
    "decimal commas between semicolons": ("1;1;5,5;40;24;60;1\n", "line 1: numbers with a decimal comma"),
    "decimal commas between tabs": ("1\t1\t5,5\t40\t24\t60\n", "line 1: numbers with a decimal comma"),
    "decimal commas between commas": ("1,1,5,00,40,00,24,00,60,00\n", "line 1: numbers with a decimal comma"),
    "decimal commas in quotes": ('1,1,"5,5","40,0",24,60\n', "line 1: numbers with a decimal comma"),
    "now and then a decimal comma": (ROW + "1,2,5,5,40,24,60,1,-1,-1,-1\n", "line 2: 11 columns.*decimal"),
    "KITTI": ("0 1 Pedestrian 0 0 -1.7 296 161 455 292 2 1 1 -4 1 13 -2\n", "line 1: 'Pedestrian'.*KITTI"),
    "KITTI without a track": ("Pedestrian 0 0 -0.2 712 143 810 307 1.8 0.4 1.2 1 1 8 0\n", "'Ped.*KITTI"),
    "KITTI in numbers": (",".join("123456789123456"[i] for i in range(15)), "line 1: 15 columns.*KITTI"),
    "COCO": ('[{"image_id": 1, "bbox": [1, 2, 3, 4]}]\n', "JSON, such as COCO's; export it"),
    "COCO, spread": ('{\n "images": [],\n "annotations": []\n}\n', "JSON"),
    "CVAT's XML": ('<?xml version="1.0"?>\n<annotations>\n', "XML, such as CVAT's"),
    "corners by their names": ("frame,id,x1,y1,x2,y2\n" + ROW, "line 1: the boxes are x1,y1,x2,y2.*subtract"),
    "centres by their names": ("frame,id,cx,cy,w,h\n1,1,5,40,24,60\n", "line 1: .*centres.*subtract half"),
    "id before frame": ("id,frame,x,y,w,h\n1,1,5,40,24,60\n", "line 1: id before frame"),
    "names twice": (HEADER + HEADER + ROW, "line 2: 'frame' in column 1 "),
    "names in the middle": (ROW + HEADER + ROW, r"line 2: 'frame' in column 1 \(frame\) is not a number"),
    "nothing but names": (HEADER, "no rows"),
    "nothing but notes": ("# a\n# b\n", "no rows"),
    "a file cut short": (ROW * 3 + "2,1,5,40,24,6", "line 4: 6 columns.*cut short"),
    "a score of nan": (ROW + "1,2,5,40,24,60,nan,-1,-1,-1\n", r"line 2: 'nan' in column 7 \(score\)"),
    "an empty score": ("1,2,5,40,24,60,,-1,-1,-1\n", r"line 1: '' in column 7 \(score\)"),
    "letters in unused columns": ("1,2,5,40,24,60,1,-1,x,-1\n", "line 1: 'x' in column 9"),
    "thousands with a blank": ("1,1,1 005,40,24,60\n", "line 1: "),
    "9 columns among 10": (ROW + "1,1,5,40,24,60,1,1,1\n", "line 2: 9 columns, but 10 in the lines before"),
    "half a class": ("1,1,5,40,24,60,1,1.5,1\n", "line 1: the class is not a whole number"),
    "frames from 0": ("0,1,5,40,24,60\n" + ROW, "line 1: MOT.* from 1: this file counts from 0, add 1"),
    "an id of 65 bits": ("1,9223372036854775808,5,40,24,60\n", "line 1: the id is too large: at most 64"),
    "a large id and a half": ("1,9007199254740993.5,5,40,24,60\n", "line 1: the id is not a whole number"),
    "Arabic digits": ("1,٣,5,40,24,60\n", r"line 1: '٣' in column 2 \(id\)"),
    "underscores": ("1,1_0,5,40,24,60\n", "line 1: '1_0' in column 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_two_meanings_is_refused_with_a_remedy(tmp_path, name):
    text, message = REFUSED[name]
    (tmp_path / "odd.txt").write_text(text)
    with pytest.raises(ValueError, match=r"odd\.txt.*" + message) as error:
        read_results(tmp_path / "odd.txt")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04rest", "a ZIP archive; unpack it"),
        (b"BZh91AY", "packed with bzip2; unpack it"),
        (b"\xfd7zXZ\x00", "packed with xz"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "line 1: not text"),
        (gzip.compress(plain().encode(), mtime=0)[:-20], "damaged or cut short"),
        (gzip.compress(plain().encode(), mtime=0) + b"rest of it", "damaged or cut short"),
        (gzip.compress(b"1" * (8 << 20), mtime=0), "line 1: more than 1,048,576 characters"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, data, message):
    (tmp_path / "odd.txt").write_bytes(data)
    with pytest.raises(ValueError, match=r"odd\.txt.*" + message):
        read_results(tmp_path / "odd.txt")


def test_numbers_of_64_bits_stay_themselves(tmp_path):
    large = [2**53, 2**53 + 1, 2**53 + 3, 2**62 + 1, 2**63 - 1]
    text = "".join(f"{n},{m},5,40,24,60,1,-1,-1,-1\n" for n, m in zip(large, reversed(large), strict=True))
    (tmp_path / "a.txt").write_text(text)
    boxes = read_results(tmp_path / "a.txt")
    assert boxes.frame.tolist() == [n - 1 for n in large]
    assert boxes.track.tolist() == large[::-1]
    again = read_results(write_results(tmp_path / "b.txt", boxes))
    assert again.track.tolist() == large[::-1]
    assert again.frame.tolist() == [n - 1 for n in large]


def test_ids_below_0_are_no_tracks(tmp_path):
    """Some: they are left out and counted. All: these are detections, and the refusal says what to do."""
    some = ["1,-1,5,40,24,60,1", "1,7,60,40,24,60,1", "2,-2,5,40,24,60,1"]
    (tmp_path / "some.txt").write_text("\n".join(some))
    boxes = read_results(tmp_path / "some.txt")
    assert boxes.track.tolist() == [7]
    assert boxes.left_out == {"their id is below 0: no track": 2}
    (tmp_path / "det.txt").write_text("1,-1,5,40,24,60,0.9\n2,-1,5,40,24,60,0.8\n")
    with pytest.raises(ValueError, match=r"det\.txt has boxes without a track.*--detector file:.*det\.txt"):
        read_results(tmp_path / "det.txt")
    assert len(read_detections(tmp_path / "det.txt")) == 2


def test_annotations_keep_the_persons_that_count(tmp_path):
    nine = [
        "1,1,5,40,24,60,1,1,1",
        "1,2,60,40,24,60,1,2,1",
        "1,3,110,40,24,60,0,1,0.5",
        "1,4,9,40,24,60,1,7,0",
    ]
    (tmp_path / "gt.txt").write_text("\n".join(nine))
    for read in (read_results, read_truth):
        boxes = read(tmp_path / "gt.txt")
        assert boxes.track.tolist() == [1]
        assert boxes.left_out == {
            "their flag is 0: not to be counted": 1,
            "their class is 2, a person's is 1": 1,
            "their class is 7, a person's is 1": 1,
        }
        assert boxes.annotation
    assert len(read_detections(tmp_path / "gt.txt")) == 1
    ten = "1,1,5,40,24,60,1,-1,-1,-1\n1,3,110,40,24,60,0,-1,-1,-1\n"
    (tmp_path / "ten.txt").write_text(ten)
    assert read_results(tmp_path / "ten.txt").track.tolist() == [1]
    assert len(read_detections(tmp_path / "ten.txt")) == 2  # there it is a score


def test_nine_columns_of_a_tracker_are_no_annotation(tmp_path):
    (tmp_path / "a.txt").write_text("1,1,5,40,24,60,0.9,0,-1\n1,2,60,40,24,60,0,2,-1\n1,3,9,9,24,60,1,0,-1\n")
    boxes = read_results(tmp_path / "a.txt")
    assert boxes.track.tolist() == [1, 2, 3]
    assert not boxes.annotation
    assert not boxes.left_out
    (tmp_path / "b.txt").write_text("1,1,5,40,24,60,1,-1,-1\n1,2,60,40,24,60,1,-1,-1\n")
    assert read_truth(tmp_path / "b.txt").track.tolist() == [1, 2]


def test_the_class_of_persons_is_what_cvats_labels_say(tmp_path):
    (tmp_path / "gt.txt").write_text("1,1,5,40,24,60,1,1,1\n1,2,60,40,24,60,1,3,1\n")
    (tmp_path / "labels.txt").write_text("car\nbicycle\nPerson\n")
    assert read_results(tmp_path / "gt.txt").track.tolist() == [2]
    assert read_truth(tmp_path / "gt.txt").track.tolist() == [2]


def test_truth_without_a_person_is_refused(tmp_path):
    (tmp_path / "gt.txt").write_text("1,1,5,40,24,60,1,3,1\n1,2,60,40,24,60,0,1,1\n")
    for read in (read_truth, read_results):
        with pytest.raises(ValueError, match=r"no row is a person that counts.*1 rows: their class is 3"):
            read(tmp_path / "gt.txt")


def test_ids_and_frames_drawn_at_random_come_back_through_every_separator(tmp_path):
    draw = random.Random(0)
    for _ in range(50):
        n = draw.randint(1, 30)
        rows = [
            (
                draw.randint(1, 2**63 - 1),
                draw.randint(0, 2**63 - 1),
                *(draw.randint(-99, 99) / 4 for _ in "ltwh"),
            )
            for _ in range(n)
        ]
        separator = draw.choice([",", ";", "\t", " ", ", "])
        (tmp_path / "a.txt").write_text("\n".join(separator.join(map(str, row)) for row in rows))
        boxes = read_results(tmp_path / "a.txt")
        array = np.array([row[2:] for row in rows])
        frame = np.array([row[0] - 1 for row in rows], np.int64)
        track = np.array([row[1] for row in rows], np.int64)
        box = np.hstack([array[:, :2], array[:, :2] + array[:, 2:]])
        equal(boxes, Boxes(frame, track, box, np.ones(n)))
