"""Which image is which frame."""

from pathlib import Path

import numpy as np
import pytest

from tracklearn.store.film.frame_names import COMPANION, OTHER_KIND, UNLIKE, first_number, number_frames
from tracklearn.store.picture.listing import natural_key


def numbered(*names, suffix=""):
    return number_frames([Path("f", name) for name in sorted(names, key=natural_key)], suffix=suffix)


def numbers(*names, suffix=""):
    found = numbered(*names, suffix=suffix)
    return None if found.number is None else found.number.tolist()


@pytest.mark.parametrize(
    ("names", "number"),
    [
        (("000021.jpg", "000022.jpg", "000025.jpg"), [21, 22, 25]),
        (("img1.png", "img2.png", "img10.png"), [1, 2, 10]),
        (("cam1_000021.jpg", "cam1_000030.jpg"), [21, 30]),
        (("2026-05-01_12-30-45_000021.jpg", "2026-05-01_12-30-46_000046.jpg"), [21, 46]),
        (("a_1714565445123_07.jpg", "a_1714565445163_08.jpg", "a_1714565445203_09.jpg"), [7, 8, 9]),
        (("7_1.jpg", "7_2.jpg"), [1, 2]),
        (("2_9.jpg", "1_9.jpg"), [1, 2]),
        (("1.jpg", "2.JPG", "3.png"), [1, 2, 3]),
        (("000021.jpg",), [21]),
        (("frame_5_5.jpg", "frame_6_6.jpg"), [5, 6]),
        (("0.jpg", "1.jpg"), [0, 1]),
        (("000021_12-30-45.jpg", "000046_12-30-46.jpg"), [21, 46]),
        (("1714565445_21.jpg", "1714565446_46.jpg"), [21, 46]),
        (("1.jpg", "26.jpg", "51.jpg"), [1, 26, 51]),
        (("a.jpg", "b.jpg"), None),
        (("a1.jpg", "b1.jpg"), None),
        (("cam1_05.jpg",), None),
        (("1714565445123456789.jpg", "1714565445163456789.jpg"), None),
        (("1714565445123.jpg", "1714567445163.jpg"), None),
        (("1-2.jpg", "2-1.jpg"), None),
        (("12-30-58.jpg", "12-30-59.jpg", "12-31-00.jpg", "12-31-58.jpg"), None),
    ],
)
def test_the_number_that_tells_names_apart_is_the_frames(names, number):
    assert numbers(*names) == number


def test_images_are_in_the_order_of_their_numbers():
    found = numbered("9_1.jpg", "8_2.jpg", "7_30.jpg", "7_4.jpg")
    assert [file.name for file in found.files] == ["9_1.jpg", "8_2.jpg", "7_4.jpg", "7_30.jpg"]


def test_frames_count_from_0_inside_whatever_names_count_from():
    assert numbered("1.jpg", "2.jpg", "5.jpg").frame.tolist() == [0, 1, 4]
    assert numbered("0.jpg", "1.jpg", "5.jpg").frame.tolist() == [0, 1, 5]
    assert numbered("21.jpg", "22.jpg").frame.tolist() == [20, 21]
    assert numbered("a.jpg", "b.jpg").frame.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("names", "stray", "why"),
    [
        (("1.jpg", "2.jpg", "1.png", "2.png"), ["1.png", "2.png"], OTHER_KIND),
        (("1.png", "2.png", "3.png", "2.bmp"), ["2.bmp"], OTHER_KIND),
        (("1.jpg", "2.jpg", "1_mask.png", "2_mask.png"), ["1_mask.png", "2_mask.png"], COMPANION),
        (("000001.jpg", "000002.jpg", "000001 (1).jpg"), ["000001 (1).jpg"], COMPANION),
        (("000001.jpg", "000002.jpg", "000002 - Copy.jpg"), ["000002 - Copy.jpg"], COMPANION),
        (("1.jpg", "2.jpg", "background.png"), ["background.png"], UNLIKE),
        ((*(f"{i}.jpg" for i in range(1, 20)), "thumb_3.jpg"), ["thumb_3.jpg"], UNLIKE),
    ],
)
def test_images_that_are_no_frames_are_counted(names, stray, why):
    found = numbered(*names)
    assert sorted(file.name for file in found.files) == sorted(set(names) - set(stray))
    assert +found.left_out == {why: len(stray)}
    assert found.number is not None


def test_the_known_kind_of_image_decides():
    assert numbers("1.jpg", "2.jpg", "1.png", "3.png", suffix=".png") == [1, 3]
    assert numbers("1.jpg", "2.jpg", suffix=".bmp") == [1, 2]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("img1.jpg", "img01.jpg", "img2.jpg"), r"two images of frame 1 in f: img01\.jpg and img1\.jpg"),
        (
            ("1.bmp", "2.bmp", "1.png", "2.png"),
            r"two images of one frame in f: 1\.(png|bmp) and 1\.(png|bmp)",
        ),
    ],
)
def test_two_images_of_a_frame_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        numbered(*names)


def first(names, frames):
    return first_number(numbered(*names), np.array(frames), results=Path("r.txt"), folder=Path("f"))


def images(*n):
    return [f"{i:06d}.jpg" for i in n]


@pytest.mark.parametrize(
    ("names", "frames", "expected"),
    [
        (images(*range(1, 41)), range(1, 41), 1),
        (images(*range(1, 41)), range(3, 9), 1),
        (images(*range(1, 41)), range(1, 90), 1),  # results go on
        (images(*range(1, 11), *range(21, 41)), range(1, 41), 1),
        (images(*range(1, 41, 2)), range(1, 41, 2), 1),
        (images(*range(21, 41)), range(1, 41), 1),
        (images(*range(40)), range(40), 0),
        (images(*range(40)), range(9), 0),
        (images(*range(40)), range(1, 41), 1),
        (images(*range(40)), [40], 1),
        (["a.jpg", "b.jpg"], [1, 2], 1),
        (["12-30-58.jpg", "12-31-58.jpg", "12-31-59.jpg", "13-30-59.jpg"], [1, 4], 1),
    ],
)
def test_results_and_names_meet(names, frames, expected):
    assert first(names, frames) == expected


@pytest.mark.parametrize(
    ("names", "frames", "message"),
    [
        (images(*range(40)), range(1, 40), "from 0 or from 1 cannot be told; name the images from 1 on"),
        (images(*range(40)), range(1, 60), "from 0 or from 1 cannot be told"),
        (images(*range(1, 41)), range(40), "images in f are 1 to 40: .*add 1 to every frame of the results"),
        (images(*range(21, 41)), range(1, 21), "none is in both: give results and images the same"),
        (images(*range(21, 51)), range(1, 31), "count the images or mean the numbers in their names"),
        (images(*range(1, 11), *range(21, 41)), range(1, 31), "count the images or mean the numbers"),
        (["a.jpg", "b.jpg"], [0, 1], "no frame numbers: MOTChallenge frames count from 1, add 1"),
        (["1-2.jpg", "2-1.jpg"], [1, 9], "which image in f is which frame is unclear: their names hold sev"),
    ],
)
def test_what_may_be_meant_in_two_ways_is_refused(names, frames, message):
    with pytest.raises(ValueError, match=message):
        first(names, frames)
