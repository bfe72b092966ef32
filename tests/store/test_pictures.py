"""The door for pictures: what does not come in, and how it is told."""

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.store.made_pictures import (
    claiming_jpeg,
    claiming_webp,
    encoded,
    every_format,
    noise,
    png,
    tiff,
)

import tracklearn
from tracklearn.store.film.video import open_frames
from tracklearn.store.ingest.folders import read_crop
from tracklearn.store.ingest.ingest import ingest
from tracklearn.store.picture import pictures
from tracklearn.store.picture.crops import GREY, MAX_SIDE, StoredCrops, encode_jpeg
from tracklearn.store.picture.images import ImageFiles
from tracklearn.store.picture.pictures import BrokenPicture, decode, load
from tracklearn.store.sets.tracklets import open_set

CLAIMS = {
    "jpeg": claiming_jpeg(65_500, 65_500),
    "progressive": claiming_jpeg(60_000, 17_000, progressive=True),
    "png": png(60_000, 60_000),
    "png beyond the limit of opencv": png(1 << 30, 1 << 30),
    "bmp": b"BM" + bytes(12) + (40).to_bytes(4, "little") + (10**5).to_bytes(4, "little") * 2 + bytes(28),
    "webp": claiming_webp(16_383, 16_383),
    "animation": claiming_webp(1 << 24, 1 << 7, animated=True),
    "tiff": tiff(1 << 20, 1 << 20),
    "tiff in one row": tiff(1 << 29, 1),
    "tile": tiff(16, 16, tile=(1 << 15, 1 << 15)),
    "deep samples": tiff(8000, 8000, bits=64, samples=4),
    "ppm": b"P6 100000 100000 255\n",
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_of_gigabytes_is_refused_before_decoding(name, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it came to decoding"))
    with pytest.raises(BrokenPicture, match=r"\((larger than 67 megapixels|needs more than 537 MB)"):
        decode(CLAIMS[name])


def test_every_claim_together_takes_no_memory(tmp_path):
    for i, data in enumerate(CLAIMS.values()):
        (tmp_path / f"{i}.jpg").write_bytes(data)
    (tmp_path / "large.jpg").write_bytes(claiming_jpeg(8192, 8192, progressive=True))
    code = (
        "import sys, resource; from pathlib import Path; from tracklearn.store.picture import pictures\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for file in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try: print(pictures.read(file).shape)\n"
        "    except pictures.BrokenPicture: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    told = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    shape, grown = told.stdout.splitlines()
    assert shape == "(8192, 8192, 3)"  # the largest that is taken
    assert int(grown) * (1 if sys.platform == "darwin" else 1024) < 1 << 30


def test_the_limit_can_be_set(monkeypatch):
    data = encoded(".png", noise(10, 20))
    monkeypatch.setenv("TRACKLEARN_MAX_PIXELS", "200")
    assert decode(data).shape == (10, 20, 3)
    monkeypatch.setenv("TRACKLEARN_MAX_PIXELS", "199")
    with pytest.raises(BrokenPicture, match="larger than 0 megapixels; TRACKLEARN_MAX_PIXELS"):
        decode(data)
    monkeypatch.setenv("TRACKLEARN_MAX_PIXELS", "many")
    with pytest.raises(ValueError, match="'many', expected a number of pixels such as 67108864"):
        decode(data)


def test_every_accepted_format_decodes_as_opencv_does():
    for name, data in every_format(19, 30):
        if "alpha" in name or "16-bit" in name:
            continue  # tests/cases/test_pictures.py says what is right
        expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        np.testing.assert_array_equal(decode(data), expected, err_msg=name)
        np.testing.assert_array_equal(decode(np.frombuffer(data, np.uint8)), expected, err_msg=name)


def test_what_the_decoder_raises_is_a_broken_picture(monkeypatch):
    def fail(*_):
        cv2.resize(np.zeros((0, 0), np.uint8), (1, 1))

    monkeypatch.setattr(cv2, "imdecode", fail)
    with pytest.raises(BrokenPicture, match=r"^the image cannot be decoded$"):
        decode(encoded(".png", noise(4, 4)))


def test_no_memory_for_a_good_picture_is_not_called_a_broken_one(monkeypatch):
    def fail(*_):
        error = cv2.error("no memory")
        error.code = cv2.Error.StsNoMem
        raise error

    monkeypatch.setattr(cv2, "imdecode", fail)
    with pytest.raises(MemoryError, match="no room for a picture of 5x4 pixels"):
        decode(encoded(".png", noise(4, 5)))


def _unfit(folder):
    """Names in `folder` that are no pictures, with the reason of each."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "link.jpg").symlink_to("nowhere.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(folder / "pipe.jpg")
    with (folder / "sparse.jpg").open("wb") as file:
        file.write(encoded(".jpg", noise(8, 8)))
        file.truncate(20 << 30)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("no picture")
    (folder / "exr.png").write_bytes(b"\x76\x2f\x31\x01" + bytes(40))
    (folder / "cut.png").write_bytes(encoded(".png", noise(8, 8))[:40])
    (folder / "wide.png").write_bytes(CLAIMS["png beyond the limit of opencv"])
    return {
        "link.jpg": "a link that leads nowhere",
        "loop.jpg": "Too many levels of symbolic links",
        "pipe.jpg": "not a regular file",
        "sparse.jpg": "its file is larger than 537 MB",
        "empty.jpg": "an empty file",
        "text.jpg": "not JPEG, PNG, BMP, WebP, TIFF or PNM",
        "exr.png": "not JPEG, PNG, BMP, WebP, TIFF or PNM",
        "cut.png": "",
        "wide.png": "larger than 67 megapixels; TRACKLEARN_MAX_PIXELS sets the limit",
    }


def test_files_that_are_not_read(tmp_path, monkeypatch):
    unfit = _unfit(tmp_path)
    for name, why in unfit.items():
        with pytest.raises(BrokenPicture) as caught:
            pictures.read(tmp_path / name)
        assert caught.value.why == why
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.jpg")
    good = tmp_path / "good.jpg"
    good.write_bytes(encoded(".jpg", noise(8, 8)))
    assert load(good) == good.read_bytes()

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(BrokenPicture, match="Permission denied"):
        load(good)


def test_unfit_pictures_among_good_ones_stop_no_ingest(tmp_path):
    unfit = _unfit(tmp_path / "door" / "a")
    for i in range(3):
        (tmp_path / "door" / "a" / f"good{i}.jpg").write_bytes(encoded(".jpg", noise(40, 20, seed=i)))
    opened = open_set(ingest([tmp_path / "door"], tmp_path / "set"))
    source = opened.manifest["sources"][0]
    assert opened.n_crops == 3
    assert source["counts"] == {"files": 12, "images": 12, "broken_images": 9}
    told = {entry["item"]: entry["reason"] for entry in source["skipped"]}
    assert told == {
        f"a/{name}": "the image cannot be decoded" + (f" ({why})" if why else "")
        for name, why in unfit.items()
    }


def test_unfit_frames_among_good_ones_are_counted_with_their_reasons(tmp_path):
    unfit = _unfit(tmp_path)
    (tmp_path / "zz.png").write_bytes(encoded(".png", noise(40, 20)))
    (tmp_path / ".hidden.png").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "1.png").write_bytes(b"x")
    with open_frames(tmp_path) as frames:
        assert [frame.number for frame in frames] == [9]
    assert frames.broken == len(unfit)
    assert frames.reasons["they cannot be decoded (not a regular file)"] == 1
    assert frames.reasons["they cannot be decoded (not JPEG, PNG, BMP, WebP, TIFF or PNM)"] == 2
    assert dict(frames.left_out) == {
        "hidden: the name begins with a dot": 1,
        "not an image by the end of its name": 1,
        "in a sub-folder of the frames": 1,
    }


def test_unfit_pictures_of_a_referenced_set_are_grey(tmp_path):
    names = sorted(_unfit(tmp_path))
    files = ImageFiles(tmp_path, names)
    crops = files.crops(8, 4)
    assert (crops.read(np.arange(len(names))) == GREY).all()
    assert crops.broken == len(names)
    assert sorted(files.broken(np.arange(len(names)))) == list(range(len(names)))
    with pytest.raises(ValueError, match=r"pipe\.jpg is broken: .*not a regular file"):
        files.image(names.index("pipe.jpg"))


def test_stored_crops_that_claim_gigabytes_are_grey():
    data = [np.frombuffer(CLAIMS["jpeg"], np.uint8), np.frombuffer(encoded(".jpg", noise(8, 8)), np.uint8)]
    crops = StoredCrops(2, lambda row: decode(data[row]), height=8, width=8)
    read = crops.read([0, 1])
    assert (read[0] == GREY).all()
    assert read[1].std() > 0
    assert crops.broken == 1


def test_a_side_that_jpeg_cannot_hold_is_shrunk(tmp_path):
    image = noise(2, MAX_SIDE + 3_000)
    assert decode(encode_jpeg(image)).shape == (2, MAX_SIDE, 3)
    (tmp_path / "long.png").write_bytes(encoded(".png", image))
    jpeg, height, width = read_crop(tmp_path / "long.png", quality=90)
    assert decode(jpeg).shape == (2, MAX_SIDE, 3)
    assert (height, width) == (2, MAX_SIDE + 3_000)


def test_pictures_and_videos_have_one_door_each():
    package = Path(tracklearn.__file__).parent
    doors = {
        r"\bcv2\.(imdecode|imread|VideoCapture)\b|Image\.open\(|plt\.imread": ["store/picture/pictures.py"],
        r"\bav\.open\(": [f"store/film/{name}.py" for name in ("connection", "video_file", "video_writer")],
    }
    for pattern, expected in doors.items():
        found = [file for file in package.rglob("*.py") if re.search(pattern, file.read_text())]
        assert sorted(file.relative_to(package).as_posix() for file in found) == expected


def test_real_pictures_beyond_the_limit(data, tmp_path):
    case = data / "cases" / "png-beyond-limit"
    opened = open_set(ingest([case / "crops"], tmp_path / "set"))
    assert opened.manifest["sources"][0]["counts"]["broken_images"] == 1
    with open_frames(case / "frames") as frames:
        assert len(list(frames)) > 0
    assert frames.broken == 1
