import contextlib
import errno
import os
import shutil

import numpy as np
import pytest

from tracklearn.store.picture.crops import GREY, encode_jpeg
from tracklearn.store.picture.images import ImageFiles
from tracklearn.store.sets import referenced, shards
from tracklearn.store.sets.tracklets import SetWriter, open_set, read_truth, truth_path, write_truth
from tracklearn.types import Tracklets


def picture(seed, height=24, width=12):
    base = np.linspace(0, 150, height)[:, None, None] + np.linspace(0, 60, width)[None, :, None]
    return (base + np.array([seed * 7 % 40, seed * 13 % 40, seed * 29 % 40])).astype(np.uint8)


def grouped(tracklet, camid, *, crop=None, frame=None):
    n = len(tracklet)
    return Tracklets(
        tracklet=np.asarray(tracklet),
        frame=np.arange(n) if frame is None else np.asarray(frame),
        time=np.arange(n) / 25,
        box=np.tile([0, 0, 12, 24], (n, 1)),
        score=np.full(n, 0.5),
        crop=np.arange(n) if crop is None else np.asarray(crop),
        camid=np.asarray(camid),
        source=np.arange(len(camid)),
    )


PATHS = [f"{'ab'[i // 4]}/{i:03d}.jpg" for i in range(8)]
CAMERAS = ["door", "yard"]


@pytest.fixture
def root(tmp_path):
    """Eight JPEG files in two folders, a and b."""
    folder = tmp_path / "images"
    for i, path in enumerate(PATHS):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_jpeg(picture(i)))
    return folder


def write(out, root, **more):
    """Three tracklets of 3, 1 and 4 images; persons 5, 5, 6."""
    given = {
        "tracklets": grouped([0, 0, 0, 1, 2, 2, 2, 2], [0, 1, 1]),
        "paths": PATHS,
        "root": root,
        "cameras": CAMERAS,
        "settings": {"made": "by a test"},
    }
    return referenced.write(out, **(given | more))


def ingested(path):
    """A set of its own shards, one source a camera: 2 tracklets of 3 in door, 1 of 4 in yard."""
    with SetWriter(path, shard_bytes=1500) as writer:
        for key, camera, lengths in (("a" * 64, "door", (3, 3)), ("b" * 64, "yard", (4,))):
            part = writer.part(key)
            for i, m in enumerate(lengths):
                frame = 10 * i + np.arange(m)
                jpeg = [encode_jpeg(picture(int(k) + (camera == "yard") * 50)) for k in frame]
                box = np.tile([0, 0, 12, 24], (m, 1))
                part.add(jpeg, camera=camera, frame=frame, time=frame / 25, box=box, score=np.ones(m))
            part.finish({"camera": camera, "skipped": [], "status": "ok", "path": camera})
        return writer.finish({})


def mixed(crop, tracklet=(0, 0, 0, 1, 1, 1, 2, 2)):
    return grouped(tracklet, [0, 0, 1], crop=crop)


MIXED = [5, 0, 2, 3, 1, 4, 9, 6]


def test_a_set_of_files_reads_like_any_other(tmp_path, root):
    opened = open_set(write(tmp_path / "set", root, pid=[5, 5, 5, 5, 6, 6, 6, 6]))
    tracklets = opened.tracklets
    assert tracklets.tracklet.tolist() == [0, 0, 0, 1, 2, 2, 2, 2]
    assert tracklets.camid.tolist() == [0, 1, 1]
    assert tracklets.crop.tolist() == list(range(8))
    assert opened.cameras == ("door", "yard")
    assert opened.continues.tolist() == [-1] * 3
    assert read_truth(opened.path).pid.tolist() == [5, 5, 5, 5, 6, 6, 6, 6]
    for row in range(8):
        assert opened.jpeg(row) == (root / PATHS[row]).read_bytes()
        assert np.abs(opened.image(row).astype(int) - picture(row)).max() < 12
    crops = opened.crops(24, 12)
    assert (crops.read([7, 0])[1] == opened.image(0)).all()
    assert crops.broken == 0
    opened.verify()
    assert sorted(f.name for f in opened.path.iterdir()) == [
        "crops.parquet",
        "manifest.json",
        "tracklets.parquet",
    ]
    assert opened.manifest["settings"] == {"made": "by a test"}
    assert opened.manifest["images"] == {"kind": "files", "root": "../images"}


def test_rows_follow_crop_not_the_order_of_the_paths(tmp_path, root):
    tracklets = grouped([0, 0, 1], [1, 0], crop=[6, 2, 4])
    opened = open_set(write(tmp_path / "set", root, tracklets=tracklets, pid=np.arange(8) * 10))
    assert opened.tracklets.crop.tolist() == [0, 1, 2]
    assert opened.place["path"].to_pylist() == [PATHS[6], PATHS[2], PATHS[4]]
    assert read_truth(opened.path).pid.tolist() == [60, 20, 40]


def test_truth_lies_only_beside_the_set(tmp_path, root):
    with_truth = open_set(write(tmp_path / "a", root, pid=np.arange(8)))
    without = open_set(write(tmp_path / "b", root))
    assert truth_path(with_truth.path).is_file()
    assert not truth_path(without.path).exists()
    for name in ("crops.parquet", "tracklets.parquet", "manifest.json"):
        assert (with_truth.path / name).read_bytes() == (without.path / name).read_bytes()


def test_the_digest_covers_tracklets_and_names_and_not_the_place(tmp_path, root):
    first = open_set(write(tmp_path / "a", root)).digest
    shutil.copytree(root, tmp_path / "elsewhere")
    assert open_set(write(tmp_path / "b", tmp_path / "elsewhere", settings={"x": 1})).digest == first
    other = grouped([0, 0, 1, 1, 2, 2, 2, 2], [0, 1, 1])
    assert open_set(write(tmp_path / "c", root, tracklets=other)).digest != first
    renamed = [*PATHS[:7], PATHS[0].replace("000", "009")]
    assert open_set(write(tmp_path / "d", root, paths=renamed, check="none")).digest != first
    assert open_set(write(tmp_path / "e", root, cameras=["door", "gate"])).digest != first


def test_set_and_images_can_be_moved_together_and_not_apart(tmp_path, root):
    (tmp_path / "work").mkdir()
    path = write(tmp_path / "work" / "set", root)
    (tmp_path / "new").mkdir()
    root.rename(tmp_path / "new" / "images")
    gone = open_set(path)
    for read in (lambda: gone.crops(8, 8), lambda: gone.image(0), lambda: gone.jpeg(0)):
        with pytest.raises(FileNotFoundError, match=r"images is not there \(the first is a/000.jpg\): bring"):
            read()
    (tmp_path / "work").rename(tmp_path / "new" / "work")
    moved = open_set(tmp_path / "new" / "work" / "set")
    assert moved.jpeg(3) == (tmp_path / "new" / "images" / PATHS[3]).read_bytes()
    assert moved.crops(8, 8).read([3]).shape == (1, 8, 8, 3)


def test_missing_images_are_left_out_counted_and_listed(tmp_path, root):
    for i in (1, 3):
        (root / PATHS[i]).unlink()
    opened = open_set(write(tmp_path / "set", root, pid=np.arange(8)))
    assert opened.tracklets.tracklet.tolist() == [0, 0, 1, 1, 1, 1]  # the second tracklet had only image 3
    assert opened.tracklets.camid.tolist() == [0, 1]
    assert opened.tracklets.source.tolist() == [0, 1]
    assert read_truth(opened.path).pid.tolist() == [0, 2, 4, 5, 6, 7]
    source = opened.manifest["sources"][0]
    assert source["counts"] == {
        "files": 8,
        "images": 8,
        "missing_images": 2,
        "broken_images": 0,
    }
    assert source["skipped"] == [
        {"item": "tracklets", "reason": "none of their images is usable", "n": 1},
        {"item": "a/001.jpg", "reason": "the image is not there", "n": 1},
        {"item": "a/003.jpg", "reason": "the image is not there", "n": 1},
    ]
    assert (source["n_tracklets"], source["n_crops"]) == (2, 6)


def test_broken_images_are_found_by_decoding_only(tmp_path, root):
    (root / PATHS[5]).write_bytes(b"\xff\xd8 not a picture")
    (root / PATHS[6]).write_bytes(b"")
    named = open_set(write(tmp_path / "names", root))
    assert named.n_crops == 8
    told = []
    opened = open_set(
        write(tmp_path / "images-set", root, check="images", progress=lambda *a: told.append(a))
    )
    assert opened.tracklets.tracklet.tolist() == [0, 0, 0, 1, 2, 2]
    assert opened.manifest["sources"][0]["counts"] == {
        "files": 8,
        "images": 8,
        "missing_images": 0,
        "broken_images": 2,
    }
    assert [e["item"] for e in opened.manifest["sources"][0]["skipped"]] == [PATHS[5], PATHS[6]]
    assert told == [("check images", 8, 8)]

    crops = named.crops(24, 12)
    read = crops.read(np.arange(8))
    assert crops.broken == 2
    assert (read[[5, 6]] == GREY).all()
    with pytest.raises(ValueError, match=r"crop row 5 of .*b/005.jpg\) is broken"):
        named.image(5)


def test_a_few_images_that_go_later_are_grey_and_counted_many_are_refused(tmp_path, root):
    opened = open_set(write(tmp_path / "set", root))
    for i in (0, 2, 4, 6):
        (root / PATHS[i]).unlink()
    crops = opened.crops(24, 12, workers=1)
    read = crops.read(np.arange(8))
    assert crops.broken == 4
    assert (read[[0, 2, 4, 6]] == GREY).all()
    assert (read[1] == opened.image(1)).all()
    with pytest.raises(FileNotFoundError, match=r"the image .*b/004.jpg is not there: bring"):
        open_set(opened.path).image(4)
    (root / PATHS[1]).unlink()
    with pytest.raises(FileNotFoundError, match=r"5 images are not there, the first is .*a/000.jpg"):
        open_set(opened.path).crops(24, 12).read(np.arange(8))


def test_reading_stops_when_the_whole_folder_goes(tmp_path, root):
    crops = open_set(write(tmp_path / "set", root)).crops(24, 12, cache_bytes=0)
    assert crops.read([0]).any()
    shutil.rmtree(root)
    with pytest.raises(FileNotFoundError, match=r"the folder of images .* is not there"):
        crops.read([0])


def test_check_none_looks_at_nothing(tmp_path):
    opened = open_set(write(tmp_path / "set", tmp_path / "later", check="none"))
    assert opened.n_crops == 8
    with pytest.raises(FileNotFoundError, match="later is not there"):
        opened.crops(8, 8)


@pytest.mark.parametrize("survive", [(1, 1), (3, 1), (8, 4), (50, 10), (1000, 10), (5000, 50)])
def test_how_many_missing_images_are_survived(tmp_path, survive):
    n, most = survive
    files = ImageFiles(tmp_path, [f"{i}.jpg" for i in range(n)])
    for row in range(most):
        assert files.read(row).size == 0
    if most < n:
        with pytest.raises(FileNotFoundError, match="not there"):
            files.read(most)


def test_names_outside_ascii_and_unreadable_ones(tmp_path, root):
    (root / "a" / "käfer.jpg").write_bytes(encode_jpeg(picture(3)))
    with contextlib.suppress(OSError, UnicodeEncodeError):  # file systems of some machines take no such name
        (root / "a" / os.fsdecode(b"\xff.jpg")).write_bytes(b"")
    files = ImageFiles(root, [*PATHS, "a/käfer.jpg", "c/none.jpg", "loose.jpg"])
    (root / "loose.jpg").write_bytes(b"")
    assert files.present().tolist() == [True] * 9 + [False, True]


def test_an_empty_set_of_files(tmp_path, root):
    nothing = grouped([], [])
    opened = open_set(write(tmp_path / "set", root, tracklets=nothing, paths=[]))
    assert opened.n_crops == 0
    assert len(opened.tracklets) == 0
    assert opened.crops(8, 8).read([]).shape == (0, 8, 8, 3)


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"root": "nowhere"}, FileNotFoundError, "the folder of images .*nowhere is not there"),
        ({"paths": [f"c/{i}.jpg" for i in range(8)]}, FileNotFoundError, "none of the 8 images is there"),
        ({"paths": PATHS[:7]}, ValueError, "crop runs from 0 to 7, expected rows 0..6"),
        ({"cameras": ["door"]}, ValueError, "camid runs from 0 to 1, but there are 1 names"),
        ({"pid": [1, 2]}, ValueError, r"pid has shape \(2,\), expected \(8,\): one per image"),
        ({"check": "all"}, ValueError, 'check is "all", expected one of none, names, images'),
        ({"tracklets": grouped([0, 0], [0], crop=[3, 3])}, ValueError, "row 3 is used 2 times"),
    ],
)
def test_what_write_refuses(tmp_path, root, more, error, message):
    root = tmp_path / more.get("root", "images")
    more = {name: value for name, value in more.items() if name != "root"}
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=message):
        write(tmp_path / "set", root, **more)
    assert sorted(tmp_path.rglob("*")) == before


def test_write_refuses_only_broken_images(tmp_path, root):
    for path in PATHS:
        (root / path).write_bytes(b"x")
    with pytest.raises(ValueError, match="none of the 8 images can be decoded"):
        write(tmp_path / "set", root, check="images")


def test_an_existing_set_stays(tmp_path, root):
    path = write(tmp_path / "set", root)
    before = (path / "manifest.json").read_bytes()
    with pytest.raises(FileExistsError, match="set exists"):
        write(path, root)
    with pytest.raises(FileExistsError, match="set exists"):
        referenced.regroup(open_set(path), open_set(path).tracklets, path, settings={})
    assert (path / "manifest.json").read_bytes() == before


def test_a_full_disk_leaves_nothing(tmp_path, root, monkeypatch):
    def full(self, view):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(shards.HashedFile, "_put", full)
    with pytest.raises(OSError, match="the disk is full"):
        write(tmp_path / "set", root, pid=np.arange(8))
    assert sorted(tmp_path.rglob("*")) == before


def test_regroup_shares_the_shards(tmp_path):
    base = open_set(ingested(tmp_path / "base"))
    write_truth(base.path, np.arange(10) * 3)
    opened = open_set(referenced.regroup(base, mixed(MIXED), tmp_path / "new", settings={"seed": 0}))
    assert not list(opened.path.glob("*.arrow"))
    assert opened.tracklets.tracklet.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert opened.tracklets.crop.tolist() == list(range(8))
    assert opened.tracklets.source.tolist() == [0, 1, 2]
    assert opened.file.tolist() == [0, 0, 1]
    assert [opened.jpeg(i) for i in range(8)] == [base.jpeg(row) for row in MIXED]
    assert (opened.crops(24, 12).read(np.arange(8)) == base.crops(24, 12).read(MIXED)).all()
    assert read_truth(opened.path).pid.tolist() == [row * 3 for row in MIXED]
    assert [(s["n_tracklets"], s["n_crops"]) for s in opened.manifest["sources"]] == [(2, 6), (1, 2)]
    assert opened.manifest["base"] == {"path": "../base", "digest": base.digest}
    opened.verify()


def test_regroup_of_a_set_of_files_needs_only_the_files(tmp_path, root):
    base = open_set(write(tmp_path / "base", root, pid=np.arange(8)))
    new = grouped([0, 0, 0, 1, 1, 1], [1, 0], crop=[7, 3, 5, 0, 2, 1])
    path = referenced.regroup(base, new, tmp_path / "deep" / "new", settings={})
    shutil.rmtree(base.path)
    opened = open_set(path)
    assert opened.manifest["images"] == {"kind": "files", "root": "../../images"}
    assert [opened.jpeg(i) for i in range(3)] == [(root / PATHS[i]).read_bytes() for i in (7, 3, 5)]
    assert read_truth(path).pid.tolist() == [7, 3, 5, 0, 2, 1]


def test_regroup_again_refers_to_the_first_holder(tmp_path):
    base = open_set(ingested(tmp_path / "base"))
    once = open_set(referenced.regroup(base, mixed(MIXED), tmp_path / "once", settings={}))
    again = grouped([0, 0, 1], [0, 1], crop=[1, 4, 7])
    twice = open_set(referenced.regroup(once, again, tmp_path / "deep" / "twice", settings={}))
    shutil.rmtree(once.path)
    assert twice.manifest["images"] == {"kind": "shards", "digest": base.digest, "root": "../../base"}
    assert [twice.jpeg(i) for i in range(3)] == [base.jpeg(MIXED[i]) for i in (1, 4, 7)]
    assert not truth_path(twice.path).exists()


def test_regroup_keeps_the_frames_it_is_given(tmp_path):
    base = open_set(ingested(tmp_path / "base"))
    new = grouped([0, 0, 0], [0], crop=[4, 0, 2], frame=[0, 0, 9])
    opened = open_set(referenced.regroup(base, new, tmp_path / "new", settings={}))
    assert opened.tracklets.frame.tolist() == [0, 0, 9]


def test_the_digest_of_a_regrouping_covers_base_and_assignment(tmp_path):
    base = open_set(ingested(tmp_path / "base"))

    def digest(name, of, tracklets, **settings):
        return open_set(referenced.regroup(of, tracklets, tmp_path / name, settings=settings)).digest

    first = digest("a", base, mixed(MIXED))
    assert digest("b", base, mixed(MIXED), seed=5) == first
    write_truth(base.path, np.arange(10))
    assert digest("c", base, mixed(MIXED)) == first
    assert digest("d", base, mixed([5, 0, 2, 3, 1, 4, 9, 7])) != first
    assert digest("e", base, mixed(MIXED, [0, 0, 1, 1, 1, 1, 2, 2])) != first
    other = open_set(ingested(tmp_path / "same"))
    assert digest("f", other, mixed(MIXED)) == first


def test_regrouping_notices_when_its_base_goes_or_changes(tmp_path):
    base = open_set(ingested(tmp_path / "base"))
    path = referenced.regroup(base, mixed(MIXED), tmp_path / "new", settings={})
    base.path.rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError, match=r"shares the images of the set .*base, which is not there"):
        open_set(path)
    with SetWriter(base.path) as writer:
        part = writer.part("c" * 64)
        jpeg = [encode_jpeg(picture(1))]
        part.add(jpeg, camera="x", frame=[0], time=[0.0], box=[(0, 0, 1, 1)], score=[1.0])
        part.finish({})
        writer.finish({})
    with pytest.raises(ValueError, match="has been replaced by another one"):
        open_set(path)
    shutil.rmtree(base.path)
    (tmp_path / "away").rename(base.path)
    shard = next(base.path.glob("*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(ValueError, match="base is damaged"):
        open_set(path)


def test_what_regroup_refuses(tmp_path):
    base = open_set(ingested(tmp_path / "base"))

    def refuse(tracklets, message):
        with pytest.raises(ValueError, match=message):
            referenced.regroup(base, tracklets, tmp_path / "new", settings={})
        assert not (tmp_path / "new").exists()

    refuse(mixed([5, 0, 2, 3, 1, 4, 9, 10]), "crop runs from 0 to 10, expected rows 0..9")
    refuse(mixed([5, 0, 2, 3, 1, 5, 9, 6]), "row 5 is used 2 times")
    refuse(mixed([5, 0, 2, 3, 1, 7, 9, 6]), "crop 7 is of camera 1 in .*base and of camera 0 in the new")
    refuse(grouped([0], [2], crop=[0]), "camid runs from 2 to 2, but there are 2 names")
    write_truth(base.path, np.arange(10))
    shutil.rmtree(base.path)
    base = open_set(write(tmp_path / "base", tmp_path, check="none"))
    refuse(base.tracklets, "belongs to another tracklet set")
