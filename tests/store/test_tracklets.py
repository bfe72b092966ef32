import errno
import json
import os
import shutil
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tracklearn.store.picture.crops import encode_jpeg
from tracklearn.store.picture.pictures import BrokenPicture, decode
from tracklearn.store.sealed import write_sealed
from tracklearn.store.sets import setwriter, shards, tables
from tracklearn.store.sets.shards import HashedFile, ShardReader, ShardWriter
from tracklearn.store.sets.tracklets import (
    SetWriter,
    number_cameras,
    open_set,
    read_truth,
    truth_path,
    write_truth,
)


def picture(seed, height=40, width=20):
    """A smooth picture, which survives JPEG nearly unchanged."""
    base = np.linspace(0, 150, height)[:, None, None] + np.linspace(0, 60, width)[None, :, None]
    return (base + np.array([seed % 40, seed * 7 % 40, seed * 13 % 40])).astype(np.uint8)


def add(part, m, *, camera="cam1", seed=0, start=0, **more):
    frame = np.arange(start, start + m)
    return part.add(
        [encode_jpeg(picture(seed + i)) for i in range(m)],
        camera=camera,
        frame=frame,
        time=frame / 25,
        box=np.stack([frame, frame, frame + 20, frame + 40], 1),
        score=np.full(m, 0.5),
        **more,
    )


def write(path, *, shard_bytes=64 << 20, truth=False):
    """Two sources: 2 tracklets of 3 and 4 crops, and 1 of 5."""
    with SetWriter(path, shard_bytes=shard_bytes) as writer:
        part = writer.part("a" * 64, truth=truth)
        first = add(part, 3, pid=7)
        add(part, 4, seed=3, start=10, continues=first, pid=[7, 7, 8, 8])
        part.finish({"camera": "cam1"})
        part = writer.part("b" * 64)
        add(part, 5, camera="cam2", seed=7)
        part.finish({"camera": "cam2"})
        return writer.finish({"stride": 1})


@pytest.mark.parametrize("shard_bytes", [64 << 20, 1500])
def test_a_set_comes_back_as_it_was_written(tmp_path, shard_bytes):
    tracklet_set = open_set(write(tmp_path / "set", shard_bytes=shard_bytes))
    tracklets = tracklet_set.tracklets
    assert tracklets.tracklet.tolist() == [0] * 3 + [1] * 4 + [2] * 5
    assert tracklets.frame.tolist() == [0, 1, 2, 10, 11, 12, 13, 0, 1, 2, 3, 4]
    assert tracklets.time == pytest.approx(tracklets.frame / 25)
    assert tracklets.box[4].tolist() == [11, 11, 31, 51]
    assert tracklets.crop.tolist() == list(range(12))
    assert tracklets.camid.tolist() == [0, 0, 1]
    assert tracklets.source.tolist() == [0, 1, 2]
    assert tracklet_set.cameras == ("cam1", "cam2")
    assert tracklet_set.file.tolist() == [0, 0, 1]
    assert tracklet_set.continues.tolist() == [-1, 0, -1]
    for row in range(12):
        assert np.abs(tracklet_set.image(row).astype(int) - picture(row)).max() < 12
        assert tracklet_set.jpeg(row) == encode_jpeg(picture(row))
    tracklet_set.verify()
    n_shards = len(list(tracklet_set.path.glob("shard-*.arrow")))
    assert n_shards == len(tracklet_set.manifest["shards"])
    assert (n_shards > 2) == (shard_bytes == 1500)
    assert not (tmp_path / "set.partial").exists()
    assert not truth_path(tmp_path / "set").exists()


def test_manifest_says_where_everything_came_from(tmp_path):
    manifest = open_set(write(tmp_path / "set")).manifest
    assert manifest["kind"] == "tracklet set"
    assert manifest["settings"] == {"stride": 1}
    assert manifest["sources"] == [
        {"camera": "cam1", "n_tracklets": 2, "n_crops": 7},
        {"camera": "cam2", "n_tracklets": 1, "n_crops": 5},
    ]
    assert (manifest["n_tracklets"], manifest["n_crops"]) == (3, 12)
    assert [s["rows"] for s in manifest["shards"]] == [7, 5]


def test_digest_depends_on_content_alone(tmp_path):
    one, two = open_set(write(tmp_path / "one")), open_set(write(tmp_path / "two"))
    other = open_set(write(tmp_path / "other", shard_bytes=1500))
    assert one.digest == two.digest
    assert one.digest != other.digest


def test_pids_go_to_the_truth_file_only(tmp_path):
    path = write(tmp_path / "set", truth=True)
    assert read_truth(path).pid.tolist() == [7] * 5 + [8] * 2 + [-1] * 5
    assert not list(path.glob("*truth*"))
    assert "pid" not in pq.read_schema(path / "crops.parquet").names
    assert b"pid" not in (path / "manifest.json").read_bytes()
    assert open_set(path).digest == open_set(write(tmp_path / "without")).digest


def test_truth_can_be_written_later_and_belongs_to_its_set(tmp_path):
    path = write(tmp_path / "set")
    with pytest.raises(FileNotFoundError, match="no ground truth for"):
        read_truth(path)
    with pytest.raises(ValueError, match=r"pid has shape \(3,\), expected \(12,\)"):
        write_truth(path, np.zeros(3))
    write_truth(path, np.zeros(12))
    write_truth(path, np.arange(12))
    assert read_truth(path).pid.tolist() == list(range(12))
    other = write(tmp_path / "other", shard_bytes=1500)
    shutil.copy(truth_path(path), truth_path(other))
    with pytest.raises(ValueError, match="belongs to another tracklet set"):
        read_truth(other)


def test_what_json_lacks_is_null_in_the_manifest(tmp_path):
    with SetWriter(tmp_path / "set") as writer:
        part = writer.part("0" * 64)
        add(part, 2)
        part.finish({"fps": float("nan")})
        path = writer.finish({"least": float("-inf")})
    manifest = json.loads((path / "manifest.json").read_text(), parse_constant=pytest.fail)
    assert manifest["sources"][0]["fps"] is None
    assert manifest["settings"]["least"] is None


def test_an_empty_part_is_fine(tmp_path):
    with SetWriter(tmp_path / "set") as writer:
        writer.part("0" * 64).finish({"camera": "nobody"})
        part = writer.part("1" * 64)
        add(part, 2)
        part.finish({"camera": "cam1"})
        tracklet_set = open_set(writer.finish({}))
    assert tracklet_set.cameras == ("cam1",)
    assert tracklet_set.file.tolist() == [1]
    assert tracklet_set.crops(8, 4).read([0, 1]).shape == (2, 8, 4, 3)


def test_rows_beyond_one_row_group_and_batch(tmp_path, monkeypatch):
    for module in (setwriter, tables):
        monkeypatch.setattr(module, "ROW_GROUP", 10)
    monkeypatch.setattr(shards, "BATCH_BYTES", 2000)
    with SetWriter(tmp_path / "set", shard_bytes=9000) as writer:
        for key in "ab":
            part = writer.part(key * 64)
            for i in range(6):
                add(part, 7, seed=7 * i)
            part.finish({})
        tracklet_set = open_set(writer.finish({}))
    assert pq.ParquetFile(tracklet_set.path / "crops.parquet").num_row_groups > 3
    assert tracklet_set.tracklets.length.tolist() == [7] * 12
    for row in (0, 6, 41, 42, 83):
        assert tracklet_set.jpeg(row) == encode_jpeg(picture(row % 42))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame": [0]}, "2 crops with 1 frames"),
        ({"time": [0.0]}, "1 times"),
        ({"box": np.zeros((3, 4))}, "3 boxes"),
        ({"score": []}, "0 scores"),
        ({"frame": [3, 1]}, "frame decreases"),
        ({"jpeg": []}, "at least one crop"),
    ],
)
def test_a_tracklet_that_does_not_fit_is_refused(tmp_path, change, message):
    row = {"jpeg": [b"a", b"b"], "frame": [0, 1], "time": [0, 1], "box": np.zeros((2, 4)), "score": [1, 1]}
    with SetWriter(tmp_path / "set") as writer, pytest.raises(ValueError, match=message):
        writer.part("a" * 64).add(camera="x", **(row | change))


def test_many_short_pieces_make_the_same_table_and_take_little_memory(tmp_path):
    schema = pa.schema({"number": pa.int64(), "height": pa.float32(), "name": pa.string()})
    n = 20_000
    number, height = np.arange(n), np.linspace(0, 1, n)
    whole = tables.TableWriter(tmp_path / "whole.parquet", schema)
    whole.add({"number": number, "height": height, "name": [f"c{k % 3}" for k in range(n)]})
    whole.close()
    before = pa.total_allocated_bytes()
    short = tables.TableWriter(tmp_path / "short.parquet", schema)
    k = 0
    while k < n:  # pieces of one row, of several, and longer ones between them
        m = min((1, 1, 1, 3, 80)[k % 5], n - k)
        rows = slice(k, k + m)
        name = [f"c{j % 3}" for j in range(k, k + m)]
        short.add({"number": number[rows], "height": height[rows], "name": name})
        k += m
    assert short.rows == n
    assert pa.total_allocated_bytes() - before < 100 * n
    short.close()
    assert (tmp_path / "short.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_an_existing_set_is_refused(tmp_path):
    path = write(tmp_path / "set")
    for resume in (False, True):
        with pytest.raises(FileExistsError, match="another --out"):
            SetWriter(path, resume=resume)
    (tmp_path / "new.partial").mkdir()
    with pytest.raises(FileExistsError, match="--resume or another --out"):
        SetWriter(tmp_path / "new")


def test_interrupted_writing_keeps_finished_parts_and_resumes(tmp_path):
    path = tmp_path / "set"

    def attempt(resume, stop):
        made = []
        with SetWriter(path, resume=resume) as writer:
            for key in "abc":
                part = writer.part(key * 64)
                if part is None:
                    continue
                made.append(key)
                add(part, 4, camera=key, seed=ord(key))
                if key == stop:
                    raise KeyboardInterrupt
                part.finish({"camera": key})
            writer.finish({})
        return made

    with pytest.raises(KeyboardInterrupt):
        attempt(False, "b")
    assert [p.name for p in (tmp_path / "set.partial").iterdir()] == ["part-" + "a" * 24]
    with pytest.raises(FileNotFoundError, match="unfinished"):
        open_set(path)
    with pytest.raises(FileExistsError, match="--resume"):
        attempt(False, None)
    assert attempt(True, None) == ["b", "c"]
    whole = open_set(path)
    assert whole.cameras == ("a", "b", "c")
    whole.verify()
    path.rename(tmp_path / "resumed")
    attempt(False, None)
    assert open_set(path).digest == whole.digest


def stopped(path, finish):
    """A writing that is interrupted in its only part, or right after it."""
    with SetWriter(path) as writer:
        part = writer.part("a" * 64)
        add(part, 4)
        if finish:
            part.finish({})
        raise KeyboardInterrupt


def test_a_first_source_interrupted_leaves_no_trace(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        stopped(tmp_path / "set", finish=False)
    assert list(tmp_path.iterdir()) == []


def test_a_finished_part_with_a_missing_shard_is_made_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        stopped(tmp_path / "set", finish=True)
    next((tmp_path / "set.partial").glob("*/shard-00000.arrow")).unlink()
    with SetWriter(tmp_path / "set", resume=True) as writer:
        assert writer.part("a" * 64) is not None


def test_no_hard_links_no_harm(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    open_set(write(tmp_path / "set")).verify()


def test_the_same_part_twice_is_refused(tmp_path):
    with SetWriter(tmp_path / "set") as writer:
        writer.part("a" * 64).finish({})
        with pytest.raises(ValueError, match="written twice"):
            writer.part("a" * 64)


@pytest.mark.parametrize("victim", ["shard", "crops.parquet", "joined", "done.json"])
def test_a_full_disk_is_one_clear_line_and_loses_nothing(tmp_path, monkeypatch, victim):
    path = tmp_path / "set"

    def attempt(resume):
        with SetWriter(path, resume=resume) as writer:
            for key in "ab":
                part = writer.part(key * 64)
                if part is None:
                    continue
                if key == "b":
                    full.append(True)
                add(part, 4, camera=key)
                part.finish({})
            full.append(True)
            return writer.finish({})

    full = []
    honest_put, honest_json = HashedFile._put, setwriter.write_sealed

    def check(file):
        # "joined" lets both parts be finished and fails while they are joined.
        if victim in str(file.relative_to(tmp_path)) and len(full) >= (2 if victim == "joined" else 1):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full_disk(self, data):
        check(self.path)
        return honest_put(self, data)

    def failing_json(target, value):
        check(target)
        honest_json(target, value)

    monkeypatch.setattr(HashedFile, "_put", full_disk)
    monkeypatch.setattr(setwriter, "write_sealed", failing_json)
    with pytest.raises(OSError, match=r"No space left|the disk is full") as caught:
        attempt(False)
    assert caught.value.errno == errno.ENOSPC
    assert "\n" not in str(caught.value)
    assert not path.exists()
    monkeypatch.undo()
    full.clear()
    tracklet_set = open_set(attempt(True))
    tracklet_set.verify()
    assert tracklet_set.cameras == ("a", "b")


def test_a_really_full_device_is_named():
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OSError, match="the disk is full: '/dev/full'") as caught:
        HashedFile("/dev/full").write(b"x" * 10)
    assert caught.value.errno == errno.ENOSPC


def test_clear_words_about_what_is_no_set(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such tracklet set"):
        open_set(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"not a tracklet set: it has no manifest\.json$"):
        open_set(tmp_path)
    path = write(tmp_path / "set")
    with pytest.raises(ValueError, match=r"did you mean .*set"):
        open_set(tmp_path)
    original = json.loads((path / "manifest.json").read_text())
    for change, message in (
        ({"kind": "run"}, "but a run"),
        ({"schema": 99}, "schema 99.*update tracklearn"),
    ):
        write_sealed(path / "manifest.json", original | change)
        with pytest.raises(ValueError, match=message):
            open_set(path)
    (path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        open_set(path)


def test_damage_is_found(tmp_path):
    path = write(tmp_path / "set")
    shard = path / "shard-00000.arrow"
    data = bytearray(shard.read_bytes())
    data[300] ^= 255
    shard.write_bytes(data)
    with pytest.raises(ValueError, match=r"shard-00000\.arrow is damaged"):
        open_set(path).verify()
    shard.write_bytes(b"x" * len(data))
    with pytest.raises(ValueError, match=r"shard-00000\.arrow is damaged"):
        open_set(path).image(0)
    shard.write_bytes(data[:-1])
    with pytest.raises(ValueError, match="bytes long, expected"):
        open_set(path)
    shard.unlink()
    with pytest.raises(ValueError, match=r"shard-00000\.arrow is missing"):
        open_set(path)
    path = write(tmp_path / "other")
    (path / "crops.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"crops\.parquet is damaged"):
        _ = open_set(path).tracklets
    (path / "crops.parquet").unlink()
    with pytest.raises(ValueError, match=r"crops\.parquet is missing"):
        open_set(path)


def test_rows_outside_the_set_are_refused(tmp_path):
    tracklet_set = open_set(write(tmp_path / "set"))
    for row in (-1, 12):
        with pytest.raises(IndexError, match=r"0\.\.11"):
            tracklet_set.jpeg(row)
        with pytest.raises(IndexError, match=r"0\.\.11"):
            tracklet_set.crops(8, 4).read([0, row])


def test_cameras_are_numbered_in_order_around_fixed_ones():
    assert number_cameras([], {}) == []
    assert number_cameras(["a", "b", "a"], {}) == ["a", "b"]
    assert number_cameras(["a", "b", "c"], {"c": 0, "absent": 7}) == ["c", "a", "b"]
    assert number_cameras(["a", "b"], {"b": 3}) == ["a", "", "", "b"]


def test_shards_take_any_bytes_and_need_no_memory(tmp_path):
    tracemalloc.start()
    writer = ShardWriter(tmp_path, shard_bytes=6 << 20)
    blob = [os.urandom(1 << 20), b"", b"x"]
    for _ in range(30):
        writer.add(blob)
    writer.close()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20  # 30 MiB went through
    assert [s["rows"] for s in writer.done] == [15] * 6
    reader = ShardReader([tmp_path / s["name"] for s in writer.done])
    assert reader.get(3, 9).tobytes() == blob[0]
    assert reader.get(3, 10).tobytes() == b""
    assert reader.get(4, 14).tobytes() == b"x"
    with pytest.raises(BrokenPicture, match="empty file"):
        decode(reader.get(0, 1))


def test_tables_carry_what_they_always_did_and_the_truth_its_sum(tmp_path):
    path = write(tmp_path / "set")
    write_truth(path, np.zeros(open_set(path).n_crops))
    notes = [pq.read_metadata(file).metadata for file in (path / "crops.parquet", truth_path(path))]
    assert [b"crc32" in (each or {}) for each in notes] == [False, True]
