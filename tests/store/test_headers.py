"""What headers say, against what OpenCV makes of the whole file."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.made_pictures import every_format, tiff

from tracklearn.store.picture.headers import MAX_SCANS, BrokenPicture, read_header

SIDES = st.integers(1, 70)
SMALL = dict(every_format(13, 21))


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES)
def test_sizes_are_those_that_opencv_decodes(height, width):
    for name, data in every_format(height, width):
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None, name
        header = read_header(data)
        assert (header.height, header.width) == image.shape[:2] == (height, width), name
        assert header.n_bytes >= height * width, name


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(SMALL)), st.data())
def test_a_cut_header_says_the_same_or_nothing(name, draw):
    data = SMALL[name]
    whole = read_header(data)
    cut = data[: draw.draw(st.integers(0, min(len(data), 300)))]
    try:
        header = read_header(cut)
    except BrokenPicture:
        return
    assert (header.width, header.height) == (whole.width, whole.height)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(SMALL)), st.data())
def test_any_bytes_are_a_header_or_a_broken_picture(name, draw):
    data = bytearray(SMALL[name])
    for _ in range(draw.draw(st.integers(1, 6))):
        data[draw.draw(st.integers(0, min(len(data), 120) - 1))] = draw.draw(st.integers(0, 255))
    for tried in (bytes(data), SMALL[name][:8] + draw.draw(st.binary(max_size=60))):
        try:
            header = read_header(tried)
        except BrokenPicture:
            continue
        assert header.width > 0
        assert header.height > 0


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_of_no_kind_are_refused(data):
    with pytest.raises(BrokenPicture):
        read_header(b"x" + data)


def test_what_a_tiff_lays_out_at_once_counts_and_not_only_its_size():
    tiles = tiff(32, 32, tile=(32, 32))
    assert cv2.imdecode(np.frombuffer(tiles, np.uint8), cv2.IMREAD_COLOR).shape == (32, 32, 3)
    assert read_header(tiles).n_bytes == 32 * 32
    assert read_header(tiff(16, 16, tile=(4096, 4096))).n_bytes == 1 << 24
    assert read_header(tiff(16, 16, rows=1 << 20)).n_bytes == 1 << 24
    assert read_header(tiff(16, 16, rows=2**32 - 1)).n_bytes == 256  # what writers put for: all rows
    assert read_header(tiff(16, 16, bits=64, samples=4)).n_bytes == 256 * 32


def test_a_jpeg_of_endless_scans_is_refused():
    data = SMALL["progressive jpeg"]
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert read_header(data).kind == "JPEG"
    with pytest.raises(BrokenPicture, match=f"more than {MAX_SCANS} scans"):
        read_header(data[:-2] + MAX_SCANS * scan + data[-2:])


def test_a_png_whose_chunks_claim_more_than_there_is_is_refused():
    for name in (b"IDAT", b"IEND"):
        data = bytearray(SMALL["png"])
        at = data.index(name) - 4
        data[at : at + 4] = b"\xff\0\0\0"
        with pytest.raises(BrokenPicture):
            read_header(bytes(data))


@pytest.mark.parametrize(
    "data",
    [
        b"\x76\x2f\x31\x01" + bytes(40),  # OpenEXR
        b"GIF89a\1\0\1\0" + bytes(20),
        b"#?RADIANCE\n",
        b"\0\0\0\x0cjP  \r\n\x87\n",  # JPEG 2000
        b"\0\0\0\x1cftypavif" + bytes(20),
        b"\x59\xa6\x6a\x95" + bytes(40),  # Sun raster
        b"P7\nWIDTH 1\n",
        b"PF\n1 1\n",
    ],
)
def test_other_formats_that_opencv_knows_are_not_taken(data):
    with pytest.raises(BrokenPicture, match="not JPEG, PNG, BMP, WebP, TIFF or PNM"):
        read_header(data)
