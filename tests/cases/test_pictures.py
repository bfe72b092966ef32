"""Pictures with more than RGB of 8 bits: the clear is grey, deep samples are scaled, a source by one rule."""

import json
import struct

import cv2
import numpy as np
import pytest

from tests.store.made_pictures import chunk, core_bmp, encoded, noise, palette_png, png, tiff
from tracklearn.store.film.video import open_frames
from tracklearn.store.ingest.ingest import Config, ingest
from tracklearn.store.picture import pictures
from tracklearn.store.picture.pictures import BrokenPicture, Series, decode
from tracklearn.store.picture.samples import GREY
from tracklearn.store.sets.tracklets import open_set

# Red seen, hidden, half seen: magenta lies under what is clear.
RGB = np.array([[[200, 10, 30], [255, 0, 255], [200, 100, 50]]], np.uint8)
ALPHA = np.array([[255, 0, 128]], np.uint8)
SEEN = [[200, 10, 30], [GREY] * 3, [round((v * 128 + GREY * 127) / 255) for v in (200, 100, 50)]]
BGRA = np.dstack([RGB[..., ::-1], ALPHA])
GREYS = np.array([[0, 1000, 2000, 4095]], np.uint16)
TWELVE = [round(v * 255 / 4095) for v in (0, 1000, 2000, 4095)]


def rows(data):
    return decode(data)[0].tolist()


def with_tag(data, tag, value):
    """A TIFF file with one more entry; its directory is written anew at the end."""
    at = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, at)[0]
    entries = [data[at + 2 + 12 * i :][:12] for i in range(count)]
    entries = [e for e in entries if struct.unpack_from("<H", e)[0] != tag]
    entries.append(struct.pack("<HHIHH", tag, 3, 1, value, 0))
    entries.sort(key=lambda e: struct.unpack_from("<H", e)[0])
    data += b"\0" * (len(data) % 2)
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + directory


def test_alpha_is_laid_on_grey_in_every_format():
    for name, data in {
        "png": encoded(".png", BGRA),
        "tiff": encoded(".tiff", BGRA),
        "tiff that says straight": with_tag(encoded(".tiff", BGRA), 338, 2),
        "bmp": encoded(".bmp", BGRA),
        "webp": encoded(".webp", BGRA, cv2.IMWRITE_WEBP_QUALITY, 101),
    }.items():
        assert np.abs(np.array(rows(data)) - SEEN).max() <= 1, name


def test_colours_that_are_multiplied_already_are_not_darkened_twice():
    multiplied = (BGRA[..., :3] * (ALPHA[..., None] / 255)).round().astype(np.uint8)
    data = with_tag(encoded(".tiff", np.dstack([multiplied, ALPHA])), 338, 1)
    assert np.abs(np.array(rows(data)) - SEEN).max() <= 1


def test_alpha_of_lossy_webp_is_laid_on_grey():
    image = np.zeros((32, 32, 4), np.uint8)
    image[:, :16] = (255, 0, 255, 0)
    image[:, 16:] = (40, 180, 60, 255)
    seen = decode(encoded(".webp", image, cv2.IMWRITE_WEBP_QUALITY, 90))
    assert (seen[:, :12] == GREY).all()
    assert np.abs(seen[:, 20:].astype(int) - (60, 180, 40)).max() <= 12


def test_grey_with_alpha_and_colours_that_are_clear():
    grey_alpha = png(3, 1, colour=4, data=b"\0" + bytes([10, 255, 20, 0, 30, 128]))
    assert rows(grey_alpha) == [[10] * 3, [GREY] * 3, [round((30 * 128 + GREY * 127) / 255)] * 3]
    palette = chunk(b"PLTE", bytes([200, 10, 30, 255, 0, 255])) + chunk(b"tRNS", bytes([255, 0]))
    assert rows(png(2, 1, colour=3, extra=palette, data=b"\0\0\1")) == [[200, 10, 30], [GREY] * 3]
    key = chunk(b"tRNS", struct.pack(">H", 6))
    assert rows(png(3, 1, colour=0, extra=key, data=b"\0\5\6\7")) == [[5] * 3, [GREY] * 3, [7] * 3]
    key = chunk(b"tRNS", struct.pack(">H", 2))
    clear = png(4, 1, depth=2, colour=0, extra=key, data=b"\0" + bytes([0b00011011]))
    assert rows(clear) == [[0] * 3, [85] * 3, [GREY] * 3, [255] * 3]
    key = chunk(b"tRNS", struct.pack(">HHH", 255, 0, 255))
    assert rows(png(2, 1, colour=2, extra=key, data=b"\0" + bytes([200, 10, 30, 255, 0, 255]))) == SEEN[:2]
    deep = chunk(b"tRNS", struct.pack(">H", 1000))
    data = png(4, 1, depth=16, colour=0, extra=deep, data=b"\0" + GREYS.astype(">u2").tobytes())
    assert rows(data) == [[0] * 3, [GREY] * 3, [TWELVE[2]] * 3, [255] * 3]
    short = chunk(b"tRNS", b"\0")  # damaged: as if it were not there
    assert rows(png(2, 1, colour=0, extra=short, data=b"\0\5\6")) == [[5] * 3, [6] * 3]


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_alpha_is_turned_with_its_picture(turn, suffix):
    """Beside the same picture without alpha, which the decoder turns."""
    corner = np.full((6, 4), 255, np.uint8)
    corner[0, 0], corner[0, 1] = 0, 0
    colour = noise(6, 4)
    colour[corner == 0] = GREY
    exif = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 274, 3, 1, turn, 0, 0)

    def turned(image):
        data = encoded(suffix, image, *((cv2.IMWRITE_WEBP_QUALITY, 101) if suffix == ".webp" else ()))
        if suffix == ".png":
            return data[:33] + chunk(b"eXIf", exif) + data[33:]
        alpha = image.shape[2] == 4
        head = struct.pack("<I", 0x08 | 0x10 * alpha) + struct.pack("<I", 3)[:3] + struct.pack("<I", 5)[:3]
        pixels = data[12:]
        body = (
            b"WEBPVP8X"
            + struct.pack("<I", 10)
            + head
            + pixels
            + b"EXIF"
            + struct.pack("<I", len(exif))
            + exif
        )
        return b"RIFF" + struct.pack("<I", len(body)) + body

    hidden = np.where(corner[..., None] == 0, np.uint8(9), colour)
    assert np.array_equal(decode(turned(np.dstack([hidden, corner]))), decode(turned(colour)))


def test_deep_samples_are_scaled_by_what_they_need():
    def grey(data):
        return decode(data)[0, :, 0].tolist()

    assert grey(encoded(".png", GREYS)) == TWELVE
    assert grey(encoded(".tiff", GREYS)) == TWELVE
    assert grey(encoded(".png", GREYS * 16)) == [round(v * 16 * 255 / 65535) for v in (0, 1000, 2000, 4095)]
    assert grey(encoded(".png", GREYS // 4)) == [round(v * 255 / 1023) for v in (0, 250, 500, 1023)]
    assert grey(encoded(".png", GREYS * 0)) == [0, 0, 0, 0]
    # A dark picture of a 12-bit camera is not made brighter than the least even number of bits.
    assert grey(encoded(".png", GREYS // 2)) == [round(v * 255 / 4095) for v in (0, 500, 1000, 2047)]


def test_deep_samples_are_scaled_by_the_white_that_their_file_names():
    def grey(data):
        return decode(data)[0, :, 0].tolist()

    dark = np.array([[0, 100, 200]], np.uint16)
    expected = [round(v * 255 / 4095) for v in (0, 100, 200)]
    assert grey(b"P5 3 1 4095\n" + dark.astype(">u2").tobytes()) == expected
    assert grey(b"P2 # text\n3 1\n4095\n0 100 200\n") == expected
    assert grey(with_tag(encoded(".tiff", dark), 281, 4095)) == expected
    sbit = png(
        3, 1, depth=16, colour=0, extra=chunk(b"sBIT", b"\x0c"), data=b"\0" + dark.astype(">u2").tobytes()
    )
    assert grey(sbit) == expected
    # The specification has the upper bits filled; then white is that of 16 bits.
    upper = (GREYS * 16).astype(">u2").tobytes()
    data = png(4, 1, depth=16, colour=0, extra=chunk(b"sBIT", b"\x0c"), data=b"\0" + upper)
    assert grey(data) == [round(v * 16 * 255 / 65535) for v in (0, 1000, 2000, 4095)]
    assert grey(tiff(4, 1, bits=12, data=bytes([0x00, 0x03, 0xE8, 0x7D, 0x0F, 0xFF]))) == TWELVE
    assert grey(b"P5 3 1 100\n" + bytes([0, 50, 100])) == [0, 128, 255]
    assert grey(b"P2 3 1 15\n0 5 15\n") == [0, 85, 255]
    assert rows(b"P6 1 1 100\n" + bytes([0, 50, 100])) == [[0, 128, 255]]


def test_nonsense_in_a_header_is_a_broken_picture_or_passed_over():
    lower = GREYS.astype(">u2").tobytes()
    absurd = chunk(b"sBIT", b"\xff")
    assert rows(png(4, 1, depth=16, colour=0, extra=absurd, data=b"\0" + lower)) == [[v] * 3 for v in TWELVE]
    for depth in (0, 3, 255):
        with pytest.raises(BrokenPicture):
            decode(png(4, 1, depth=depth, colour=0, extra=chunk(b"tRNS", b"\0\1"), data=bytes(9)))


def test_white_may_be_zero():
    assert rows(with_tag(encoded(".tiff", GREYS), 262, 0)) == [[255 - v] * 3 for v in TWELVE]


def test_deep_colours_with_alpha():
    alpha = np.array([[65535, 0, 65535, 65535]], np.uint16)
    for suffix in (".png", ".tiff"):
        full = encoded(suffix, np.dstack([GREYS * 16] * 3 + [alpha]))
        expected = [round(v * 16 * 255 / 65535) for v in (0, 1000, 2000, 4095)]
        assert [v[0] for v in rows(full)] == [expected[0], GREY, *expected[2:]], suffix
        low = encoded(suffix, np.dstack([GREYS] * 3 + [alpha // 16]))
        assert [v[0] for v in rows(low)] == [TWELVE[0], GREY, *TWELVE[2:]], suffix


def test_samples_that_are_no_whole_numbers_of_8_or_16_bits_are_refused_with_the_reason():
    for data in (
        encoded(".tiff", GREYS.astype(np.float32)),
        with_tag(encoded(".tiff", GREYS), 339, 2),
        tiff(4, 1, bits=32, data=bytes(16)),
    ):
        with pytest.raises(BrokenPicture, match="no whole numbers of 8 or 16 bits"):
            decode(data)
    jpeg = bytearray(encoded(".jpg", noise(16, 16)))
    jpeg[jpeg.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(BrokenPicture, match="a JPEG of 12 bits a sample"):
        decode(bytes(jpeg))
    with pytest.raises(BrokenPicture, match="grey with transparency in a TIFF file"):
        decode(tiff(2, 1, samples=2, data=bytes(4)))


def test_opaque_and_ordinary_pictures_are_what_they_were():
    image = noise(9, 7)
    plain = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    opaque = np.dstack([image, np.full((9, 7), 255, np.uint8)])
    for suffix in (".png", ".tiff", ".bmp"):
        assert np.array_equal(decode(encoded(suffix, image)), plain)
        assert np.array_equal(decode(encoded(suffix, opaque)), plain)
    for data in (
        encoded(".jpg", image),
        encoded(".jpg", noise(9, 7, 1)),
        encoded(".png", noise(9, 7, 1)),
        palette_png(7, 9),
        core_bmp(7, 9),
    ):
        assert np.array_equal(decode(data), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB))


@pytest.fixture
def night(tmp_path):
    """Twelve-bit frames of a dark scene in which the light is on in one, far from the first."""
    values = np.linspace(0, 900, 40 * 32).reshape(40, 32).astype(np.uint16)
    folder = tmp_path / "night" / "t"
    folder.mkdir(parents=True)
    for i in range(20):
        (folder / f"{i:03}.png").write_bytes(encoded(".png", values * 4 if i == 13 else values))
    return folder, (values[..., None].repeat(3, -1).astype(float) * 255 / 4095).round().astype(int)


def test_one_rule_for_all_pictures_of_a_source(night, tmp_path, call):
    folder, expected = night
    set_path = ingest([tmp_path / "night"], tmp_path / "set", config=Config(jpeg_quality=100))
    opened = open_set(set_path)
    assert np.abs(opened.image(0).astype(int) - expected).max() <= 2
    (note,) = opened.manifest["sources"][0]["warnings"]
    assert "20 pictures of 16 bits a sample were scaled to 8 as if they had 12" in note
    with open_frames(folder) as frames:
        assert np.array_equal(next(iter(frames)).image, expected)
    code, out, err = call("ingest", tmp_path / "night", "--out", "again", "--json")
    assert (code, [e["reason"] for e in json.loads(out)["losses"]]) == (0, [note])
    assert f"note on night: {note}" in err


def test_a_query_is_as_bright_as_its_folder(night):
    from tracklearn.app.search.searcher import _read_picture

    folder, expected = night
    assert np.array_equal(_read_picture(folder / "000.png"), expected)


def test_referenced_sets_follow_the_same_rule(night):
    from tracklearn.store.picture.images import ImageFiles

    folder, expected = night
    files = ImageFiles(folder, [f"{i:03}.png" for i in range(20)])
    assert np.array_equal(files.image(0), expected)
    assert np.array_equal(files.crops(40, 32).read([0])[0], expected)


def test_pictures_brighter_than_those_looked_at_are_cut_and_counted(tmp_path):
    files = []
    for i in range(3):
        files.append(tmp_path / f"{i}.png")
        files[-1].write_bytes(encoded(".png", GREYS * (16 if i == 2 else 1)))
    series = Series(lambda: files[:2])
    assert [series.read(file)[0, 1, 0] for file in files] == [TWELVE[1], TWELVE[1], 255]
    assert "1 brighter than that were cut" in series.notes()[0]


def test_cut_outs_keep_their_hidden_colour_out_of_the_set(tmp_path):
    folder = tmp_path / "cam" / "a"
    folder.mkdir(parents=True)
    image = np.zeros((64, 32, 4), np.uint8)
    image[:] = (255, 0, 255, 0)
    image[16:48, 8:24] = (60, 120, 180, 255)
    for i in range(4):
        (folder / f"{i}.png").write_bytes(encoded(".png", image))
    opened = open_set(ingest([tmp_path / "cam"], tmp_path / "set"))
    picture = opened.image(0).astype(int)
    assert np.abs(picture[:8] - GREY).max() <= 8
    assert np.abs(picture[24:40, 12:20] - (180, 120, 60)).max() <= 8
    assert opened.manifest["sources"][0]["warnings"] == [
        "4 pictures have transparent parts: these were laid on grey"
    ]


def test_ordinary_folders_are_not_read_twice(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(encoded(".jpg", noise(8, 8)))
    series = Series(lambda: pytest.fail("looked at other pictures"))
    series.read(tmp_path / "a.jpg")
    assert series.notes() == []
    assert pictures.spread(list(range(100)))[:2] == [0, 3]
