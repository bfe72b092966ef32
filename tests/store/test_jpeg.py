"""Notes in JPEG files: what goes, and that the picture stays bit for bit."""

import io
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.store.made_pictures import encoded, noise

from tracklearn.store.ingest.folders import read_crop
from tracklearn.store.ingest.ingest import ingest
from tracklearn.store.picture.jpeg import segments, stripped
from tracklearn.store.picture.pictures import decode
from tracklearn.store.sets.tracklets import open_set

SECRETS = (
    b"48 deg north",
    b"Camera 77",
    b"a comment",
    b"thumbnail",
    b"xmp note",
    b"iptc note",
    b"profile",
    b"tail",
)


def segment(marker, data):
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def exif(orientation, text=b"48 deg north"):
    """EXIF with the way up and a text (ImageDescription)."""
    entries = struct.pack(">HHHII", 2, 270, 2, len(text), 38) + struct.pack(
        ">HHIHH", 274, 3, 1, orientation, 0
    )
    return b"Exif\0\0MM\0*" + struct.pack(">I", 8) + entries + bytes(4) + text


def told(data, orientation=1):
    """A JPEG file that tells a lot: notes of every kind, also between and behind its segments."""
    notes = segment(0xE1, exif(orientation, SECRETS[0] + SECRETS[1]))
    notes += segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + SECRETS[4])
    notes += segment(0xE2, b"ICC_PROFILE\0\1\1" + SECRETS[6])
    notes += segment(0xED, b"Photoshop 3.0\0" + SECRETS[5])
    notes += segment(0xFE, SECRETS[2]) + SECRETS[7]
    notes += segment(0xE0, b"JFXX\0\x13\1\1" + SECRETS[3])
    assert data[2:4] == b"\xff\xe0"
    head = 4 + int.from_bytes(data[4:6], "big")
    return data[:head] + notes + data[head:] + SECRETS[7] + data


def jfif_with_thumbnail(data):
    head = data[:4] + struct.pack(">H", 16 + 27) + data[6:18] + b"\3\3" + SECRETS[3].ljust(27, b"\0")
    return head + data[20:]


@pytest.mark.parametrize(
    "options",
    [
        (),
        (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        (cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
        (cv2.IMWRITE_JPEG_OPTIMIZE, 1),
    ],
)
def test_a_file_without_notes_stays_as_it_is(options):
    for image in (noise(40, 20), noise(40, 20, 1), noise(1, 1)):
        data = encoded(".jpg", image, *options)
        assert stripped(data) is data


@pytest.mark.parametrize("progressive", [0, 1])
def test_every_note_goes_and_the_picture_stays_bit_for_bit(progressive):
    data = encoded(".jpg", noise(40, 20), cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    full = told(data)
    np.testing.assert_array_equal(decode(full), decode(data))
    assert all(secret in full for secret in SECRETS)
    assert stripped(full) == data
    assert stripped(jfif_with_thumbnail(data)) == data


def test_the_notes_of_another_program_go():
    image = Image.fromarray(noise(40, 20))
    notes = Image.Exif()
    notes[0x010E] = "48 deg north"
    notes[0x0110] = "Camera 77"
    notes.get_ifd(0x8825)[2] = (48.0, 8.0, 0.0)
    file = io.BytesIO()
    image.save(file, "jpeg", exif=notes, comment="a comment", icc_profile=b"profile" * 20)
    data = file.getvalue()
    assert all(secret in data for secret in SECRETS[:3])
    assert not any(secret in stripped(data) for secret in (*SECRETS, b"Exif"))
    np.testing.assert_array_equal(decode(stripped(data)), decode(data))


@pytest.mark.parametrize("mode", ["CMYK", "RGB"])
def test_what_adobe_says_of_the_colours_stays(mode):
    file = io.BytesIO()
    Image.fromarray(noise(16, 16)).convert(mode).save(file, "jpeg", keep_rgb=mode == "RGB", subsampling=0)
    plain = file.getvalue()
    data = plain[:2] + segment(0xE1, exif(1)) + plain[2:]
    assert any(marker == 0xEE for marker, _, _ in segments(data))
    assert stripped(data) == plain
    np.testing.assert_array_equal(decode(stripped(data)), decode(plain))


def test_what_adobe_says_is_cut_to_the_colours():
    data = encoded(".jpg", noise(16, 16))
    adobe = b"Adobe\0\x64\0\0\0\0\1"
    long = data[:20] + segment(0xEE, adobe + b"48 deg north") + data[20:]
    assert stripped(long) == data[:20] + segment(0xEE, adobe) + data[20:]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stays_upright_when_the_note_goes(tmp_path, orientation):
    image = np.full((40, 24, 3), 90, np.uint8)
    image[:12, :8] = (220, 30, 40)
    data = encoded(".jpg", image)
    (tmp_path / "a.jpg").write_bytes(told(data, orientation))
    upright = decode(told(data, orientation))
    jpeg, height, width = read_crop(tmp_path / "a.jpg", quality=95)
    assert (height, width) == upright.shape[:2] == ((24, 40) if orientation > 4 else (40, 24))
    assert not any(secret in jpeg for secret in (*SECRETS, b"Exif"))
    if orientation == 1:
        assert jpeg == data
    assert np.abs(decode(jpeg).astype(int) - upright).mean() < 2


def test_no_set_holds_what_its_pictures_told(tmp_path):
    folder = tmp_path / "door" / "a"
    folder.mkdir(parents=True)
    for i in range(8):
        (folder / f"{i}.jpg").write_bytes(told(encoded(".jpg", noise(40, 20, seed=i)), 1 + i))
    image = Image.fromarray(noise(40, 20))
    notes = Image.Exif()
    notes[0x010E] = "48 deg north"
    for suffix in ("png", "webp", "tiff"):
        image.save(folder / f"x.{suffix}", exif=notes)
        assert b"48 deg north" in (folder / f"x.{suffix}").read_bytes()
    path = ingest([tmp_path / "door"], tmp_path / "set")
    assert open_set(path).n_crops == 11
    for file in path.iterdir():
        data = file.read_bytes()
        assert not any(secret in data for secret in (*SECRETS[:7], b"Exif")), file.name


def test_pictures_without_notes_keep_their_bytes(tmp_path):
    folder = tmp_path / "door" / "a"
    folder.mkdir(parents=True)
    for i in range(3):
        (folder / f"{i}.jpg").write_bytes(encoded(".jpg", noise(40, 20, seed=i)))
    opened = open_set(ingest([tmp_path / "door"], tmp_path / "set"))
    assert [opened.jpeg(i) for i in range(3)] == [(folder / f"{i}.jpg").read_bytes() for i in range(3)]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_bytes_can_be_walked_and_nothing_is_made_up(draw):
    data = bytearray(told(encoded(".jpg", noise(9, 9))))
    for _ in range(draw.draw(st.integers(0, 8))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    data = bytes(data[: draw.draw(st.integers(0, len(data)))])
    end = 0
    for _, start, stop in segments(data):
        assert end <= start < stop <= len(data)
        end = stop
    assert len(stripped(data)) <= len(data)
