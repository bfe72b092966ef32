import cv2
import numpy as np
import pytest

from tracklearn.store.ingest.folders import read_crop, scan_folder
from tracklearn.store.ingest.ingest import Config, ingest
from tracklearn.store.picture.pictures import BrokenPicture
from tracklearn.store.sets.tracklets import open_set, read_truth, truth_path
from tracklearn.store.skipped import MAX_LISTED, shorten, skip


def image(path, grey=100, *, height=40, width=20):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), grey, np.uint8))
    return path


def market(folder):
    """Two people; the first in two cameras, his frames in two sequences; junk, distractors and a stranger."""
    for name in (
        "0002_c1s1_000451_03",
        "0002_c1s2_000051_01",
        "0002_c1s1_001051_02",
        "0002_c1s1_000451_01",
        "0002_c3s1_000002_00",
        "0007_c3s3_077419_03",
        "-1_c1s1_000401_00",
        "0000_c1s1_000401_00",
        "0000_c2s1_000401_00",
        "stranger",
    ):
        image(folder / f"{name}.jpg", sum(name.encode()) % 200)
    (folder / "Thumbs.db").write_bytes(b"")
    return folder


def test_market_names_become_tracklets_of_person_and_camera(tmp_path):
    plan = scan_folder(market(tmp_path / "train"))
    assert plan.labelled
    assert [(t.pid, t.camera) for t in plan.tracklets] == [(2, "c1"), (2, "c3"), (7, "c3")]
    assert [f.stem for f in plan.tracklets[0].files] == [
        "0002_c1s1_000451_01",
        "0002_c1s1_000451_03",
        "0002_c1s1_001051_02",
        "0002_c1s2_000051_01",
    ]
    assert list(plan.tracklets[0].frame) == [1000451, 1000451, 1001051, 2000051]
    assert {(s["reason"].split(":")[0], s["n"]) for s in plan.skipped} == {
        ("person −1", 1),
        ("person 0", 2),
        ("name unlike PPPP_cCsS_FFFFFF_BB", 1),
        ("not an image by the end of its name", 1),
    }


def test_ingest_of_market_names_keeps_pids_apart(tmp_path):
    path = ingest([market(tmp_path / "train")], tmp_path / "set")
    tracklet_set = open_set(path)
    assert tracklet_set.cameras == ("c1", "c3")
    assert tracklet_set.tracklets.length.tolist() == [4, 1, 1]  # shorter than min_length, and kept
    assert tracklet_set.tracklets.camid.tolist() == [0, 1, 1]
    assert read_truth(path).pid.tolist() == [2, 2, 2, 2, 2, 7]
    source = tracklet_set.manifest["sources"][0]
    assert source["kind"] == "market"
    assert source["labels_used"] is True
    assert "file names" in source["note"]
    assert sum(s["n"] for s in source["skipped"]) == 5
    assert source["counts"] == {"files": 11, "images": 6, "broken_images": 0}


def test_two_market_folders_share_cameras_unless_named(tmp_path):
    train, query = market(tmp_path / "train"), tmp_path / "query"
    image(query / "0009_c6s1_000001_00.jpg")
    assert open_set(ingest([train, query], tmp_path / "one")).cameras == ("c1", "c3", "c6")
    named = open_set(ingest([f"a={train}", f"b={query}"], tmp_path / "two"))
    assert named.cameras == ("a-c1", "a-c3", "b-c6")
    with pytest.raises(ValueError, match="cameras of its own"):
        ingest([f"a@3={train}"], tmp_path / "three")


def test_sub_folders_are_tracklets_in_natural_order(tmp_path):
    root = tmp_path / "door"
    for name in ("t10", "t2"):
        for i in (10, 9, 1):
            image(root / name / f"img{i}.png", 10 * i)
    (root / "empty").mkdir()
    (root / ".hidden").mkdir()
    plan = scan_folder(root)
    assert not plan.labelled
    assert [t.name for t in plan.tracklets] == ["t2", "t10"]
    assert [f.name for f in plan.tracklets[0].files] == ["img1.png", "img9.png", "img10.png"]
    assert plan.skipped == [skip("empty", "a sub-folder without images")]
    image(root / "loose.jpg")
    assert scan_folder(root).skipped[-1]["item"] == "loose images"


def test_ingest_of_sub_folders(tmp_path):
    root = tmp_path / "door"
    for i in range(3):
        image(root / "a" / f"{i}.png", 50 * i)
        image(root / "b" / f"{i}.jpg", 50 * i, height=60)
    (root / "a" / "1.png").write_bytes(b"broken")
    seen = []
    path = ingest([root], tmp_path / "set", config=Config(fps=10), progress=lambda *a: seen.append(a))
    tracklet_set = open_set(path)
    tracklets = tracklet_set.tracklets
    assert tracklet_set.cameras == ("door",)
    assert tracklets.frame.tolist() == [0, 2, 0, 1, 2]
    assert tracklets.time.tolist() == pytest.approx([0, 0.2, 0, 0.1, 0.2])
    assert tracklets.box[[0, 2]].tolist() == [[0, 0, 20, 40], [0, 0, 20, 60]]
    assert tracklet_set.jpeg(3) == (root / "b" / "1.jpg").read_bytes()  # not encoded again
    assert tracklet_set.image(1).mean() == pytest.approx(100, abs=2)
    source = tracklet_set.manifest["sources"][0]
    why = "the image cannot be decoded (not JPEG, PNG, BMP, WebP, TIFF or PNM)"
    assert source["skipped"] == [skip("a/1.png", why)]
    assert source["counts"] == {"files": 6, "images": 6, "broken_images": 1}
    assert not truth_path(path).exists()
    assert seen[-1] == ("ingest door", 6, 6)


def test_a_long_folder_is_cut_at_max_length(tmp_path):
    for i in range(5):
        image(tmp_path / "door" / "a" / f"{i}.jpg")
    config = Config(max_length=2, min_length=1)
    tracklet_set = open_set(ingest([tmp_path / "door"], tmp_path / "set", config=config))
    assert tracklet_set.tracklets.length.tolist() == [2, 2, 1]
    assert tracklet_set.continues.tolist() == [-1, 0, 1]


def test_nothing_but_broken_images(tmp_path):
    (tmp_path / "door" / "a").mkdir(parents=True)
    (tmp_path / "door" / "a" / "1.jpg").write_bytes(b"broken")
    with pytest.raises(ValueError, match="none of the images can be decoded"):
        ingest([tmp_path / "door"], tmp_path / "set")
    assert not (tmp_path / "set.partial").exists()


def test_folders_that_are_no_source(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        scan_folder(tmp_path / "nothing")
    (tmp_path / "empty" / "sub").mkdir(parents=True)
    with pytest.raises(ValueError, match="no images in folder"):
        scan_folder(tmp_path / "empty")
    image(tmp_path / "frames" / "000001.jpg")
    with pytest.raises(ValueError, match=r"video:.*frames or RESULTS\.txt\+.*sub-folder"):
        scan_folder(tmp_path / "frames")


def test_a_crop_keeps_its_bytes_only_as_jpeg(tmp_path):
    jpeg, height, width = read_crop(image(tmp_path / "a.jpg"), quality=90)
    assert jpeg == (tmp_path / "a.jpg").read_bytes()
    assert (height, width) == (40, 20)
    assert read_crop(image(tmp_path / "a.png"), quality=90)[0][:2] == b"\xff\xd8"
    (tmp_path / "b.jpg").write_bytes(b"")
    with pytest.raises(BrokenPicture, match="empty file"):
        read_crop(tmp_path / "b.jpg", quality=90)


def test_long_lists_are_summed_up():
    entries = [skip(str(i), "why") for i in range(MAX_LISTED + 5)]
    short = shorten(entries)
    assert len(short) == MAX_LISTED + 1
    assert short[-1] == skip("more, of 105", "why", 5)
    assert shorten(entries[:3]) == entries[:3]
