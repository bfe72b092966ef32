import threading

import cv2
import numpy as np
import pytest

from tracklearn.store.picture import crops as module
from tracklearn.store.picture.crops import GREY, StoredCrops, encode_jpeg, resize
from tracklearn.store.picture.pictures import decode
from tracklearn.types import Crops


def make(n=20, *, height=32, width=16, broken=(), **more):
    """A StoredCrops over crops of one grey each, and the list of rows whose bytes it asked for."""
    blobs = [encode_jpeg(np.full((48, 24, 3), 10 * i % 250, np.uint8)) for i in range(n)]
    for i in broken:
        blobs[i] = b"no picture"
    asked = []

    def jpeg(row):
        asked.append(row)
        return np.frombuffer(blobs[row], np.uint8)

    return StoredCrops(n, lambda row: decode(jpeg(row)), height=height, width=width, **more), asked


def test_reads_any_rows_in_the_order_asked():
    crops, _ = make()
    assert isinstance(crops, Crops)
    assert len(crops) == 20
    out = crops.read([3, 0, 3, 19])
    assert out.shape == (4, 32, 16, 3)
    assert out.dtype == np.uint8
    assert np.abs(out.mean((1, 2, 3)) - [30, 0, 30, 190]).max() < 2
    assert crops.read([]).shape == (0, 32, 16, 3)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_small_set_is_decoded_once(workers):
    crops, asked = make(workers=workers)
    first = crops.read(range(20))
    assert (crops.read(np.arange(20)[::-1]) == first[::-1]).all()
    assert sorted(asked) == list(range(20))


def test_the_cache_keeps_to_its_bound():
    size = 32 * 16 * 3
    crops, asked = make(cache_bytes=5 * size + 1, workers=1)
    whole = crops.read(range(20))
    asked.clear()
    assert (crops.read(range(20)) == whole).all()
    assert asked == list(range(5, 20))
    crops, asked = make(cache_bytes=0, workers=1)
    assert (crops.read(range(20)) == whole).all()
    assert (crops.read(range(20)) == whole).all()
    assert len(asked) == 40


@pytest.fixture
def small(monkeypatch):
    """Memory for 40 crops, blocks of 4, which are kept in any case; sets how many crops are available."""
    size = 32 * 16 * 3
    monkeypatch.setattr(module, "KEPT", 4 * size)
    monkeypatch.setattr(module.memory, "total", lambda: 40 * size)

    def available(n):
        monkeypatch.setattr(module.memory, "available", lambda: None if n is None else n * size)

    return available


def kept_of(crops, asked):
    """The rows that a second reading does not ask for, and whether it gave the same pictures."""
    whole = crops.read(range(20))
    asked.clear()
    same = (crops.read(np.arange(20)[::-1]) == whole[::-1]).all() and (crops.read(range(20)) == whole).all()
    return sorted(set(range(20)) - set(asked)), same


@pytest.mark.parametrize(
    ("available", "cache_bytes", "n"),
    [
        (40, None, 10),  # a quarter of all
        (27, None, 7),  # what is available beyond half of all
        (20, None, 4),
        (0, None, 4),
        (None, None, 4),  # nobody says
        (0, 13 * 32 * 16 * 3, 13),  # as asked, whatever the memory
        (None, 10**6, 20),
    ],
)
def test_what_the_memory_spares_is_kept(small, available, cache_bytes, n):
    small(available)
    crops, asked = make(workers=1, cache_bytes=cache_bytes)
    assert crops.capacity == n
    assert kept_of(crops, asked) == (list(range(n)), True)


def test_nothing_more_is_kept_once_others_need_the_memory(small):
    small(40)
    crops, asked = make(workers=1)
    crops.read(range(3))
    small(20)
    crops.read(range(3, 20))
    assert crops.capacity == 4
    small(40)
    assert kept_of(crops, asked) == (list(range(4)), True)


def test_memory_that_cannot_be_had_is_no_error(small, monkeypatch):
    small(40)
    crops, asked = make(workers=1)
    crops.read(range(3))
    empty = np.empty

    def of_few(shape, *more):
        if shape[0] > 2:
            raise MemoryError
        return empty(shape, *more)

    with monkeypatch.context() as patch:
        patch.setattr(module.np, "empty", of_few)
        for row in range(3, 6):
            crops.read([row])
    assert crops.capacity == 4
    assert kept_of(crops, asked) == (list(range(4)), True)


def test_what_comes_back_may_be_changed_without_harm():
    crops, _ = make()
    first = crops.read([1])
    copy = first.copy()
    first[:] = 0
    assert (crops.read([1]) == copy).all()


def test_a_broken_picture_is_grey_and_counted_once():
    crops, _ = make(broken=(4, 7), cache_bytes=0)
    for _ in range(2):
        out = crops.read(range(20))
    assert (out[[4, 7]] == GREY).all()
    assert crops.broken == 2


def test_several_threads_get_the_same_pictures():
    crops, _ = make(200, workers=2, cache_bytes=150 * 32 * 16 * 3)
    expected = crops.read(range(200))
    crops, _ = make(200, workers=2, cache_bytes=150 * 32 * 16 * 3)
    wrong = []

    def reader(seed):
        rng = np.random.default_rng(seed)
        for _ in range(20):
            rows = rng.integers(0, 200, 40)
            if (crops.read(rows) != expected[rows]).any():
                wrong.append(rows)

    threads = [threading.Thread(target=reader, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_shrinking_averages_instead_of_picking():
    stripes = np.zeros((64, 32, 3), np.uint8)
    stripes[::2] = 200
    assert (resize(stripes, 16, 8) == 100).all()
    assert (resize(stripes, 16, 64) == 100).all()  # one axis shrinks, the other grows
    assert resize(stripes, 64, 32) is stripes
    assert resize(stripes, 128, 64).shape == (128, 64, 3)


def test_colours_are_not_swapped():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 250
    back = decode(encode_jpeg(red))
    assert back[..., 0].min() > 200
    assert back[..., 2].max() < 50
    assert cv2.imdecode(np.frombuffer(encode_jpeg(red), np.uint8), cv2.IMREAD_COLOR)[..., 2].min() > 200


def test_what_cannot_be_done_is_refused():
    with pytest.raises(ValueError, match="0x16"):
        make(height=0)
    with pytest.raises(ValueError, match="empty picture"):
        encode_jpeg(np.zeros((0, 4, 3), np.uint8))
    crops, _ = make()
    with pytest.raises(IndexError, match=r"0\.\.19"):
        crops.read([20])
