import os
from pathlib import Path

import pytest
from tests.store.benchmark_folders import MARKET, images_of, make_market, perfect_features, score, touch

from tracklearn.store import benchmarks
from tracklearn.store.tracklets import open_set, read_truth


def test_market1501(tmp_path):
    market = benchmarks.read("Market-1501", make_market(tmp_path / "Market-1501-v15.09.15"))
    paths, pid = images_of(market.train)
    assert [[path.partition("/")[2] for path in own] for own in paths] == [
        ["0002_c1s1_000200_01.jpg", "0002_c1s2_000100_01.jpg"],  # sequence 1 before sequence 2
        ["0002_c3s1_000050_02.jpg"],
        ["0007_c3s1_000010_01.jpg"],
    ]
    assert pid == [[2, 2], [2], [7]]
    assert market.train.cameras == ("c1", "c3", "c6")
    assert market.train.camid.tolist() == [0, 1, 1]
    assert market.test.pid.tolist() == [1, 3, 0, 1, 1, 3]
    assert market.query.tolist() == [0, 1]
    assert market.gallery.tolist() == [2, 3, 4, 5]
    assert market.query_row.tolist() == [-1, -1]
    assert market.grouped_by_labels
    assert market.skipped == ({"item": "images", "reason": "bounding_box_test: junk, person −1", "n": 1},)
    scores = score(market, perfect_features(market))
    assert (scores.mAP, scores.n_valid) == (1.0, 2)
    assert (benchmarks.read("market1501", tmp_path).train.image(0) == market.train.image(0)).all()


def test_market1501_as_a_set_says_that_labels_were_used(tmp_path):
    root = make_market(tmp_path / "market")
    (root / "bounding_box_train" / MARKET["bounding_box_train"][1]).write_bytes(b"broken")
    market = benchmarks.read("market1501", root)
    opened = open_set(market.write_train(tmp_path / "set", check="images"))
    source = opened.manifest["sources"][0]
    assert source["labels_used"] is True
    assert "formed by person and camera" in source["note"]
    assert source["counts"] == {"images": 4, "missing_images": 0, "broken_images": 1}
    assert source["skipped"][0]["item"] == "bounding_box_train/0002_c1s1_000200_01.jpg"
    assert opened.tracklets.tracklet.tolist() == [0, 1, 2]
    assert read_truth(opened.path).pid.tolist() == [2, 2, 7]
    names = {field for file in ("crops", "tracklets") for field in columns(opened.path / f"{file}.parquet")}
    assert "pid" not in names


def columns(file):
    import pyarrow.parquet as pq

    return pq.read_schema(file).names


def test_half_of_market1501(tmp_path):
    root = make_market(tmp_path / "market", {name: MARKET[name] for name in ("query", "bounding_box_test")})
    with pytest.raises(
        FileNotFoundError, match=r"only a part of Market-1501 .* there is no bounding_box_train"
    ):
        benchmarks.read("market1501", root)
    touch(root, ["bounding_box_train/readme.jpg"])
    with pytest.raises(FileNotFoundError, match="bounding_box_train holds none of its images"):
        benchmarks.read("market1501", root)


def test_dukemtmc_comes_with_its_notice(tmp_path):
    layout = {
        "bounding_box_train": ["0001_c2_f0046182.jpg", "0001_c2_f0046062.jpg", "0005_c8_f0000001.jpg"],
        "query": ["0002_c1_f0000010.jpg"],
        "bounding_box_test": ["0002_c2_f0000020.jpg", "0099_c2_f0000030.jpg"],
    }
    duke = benchmarks.read("dukemtmc", make_market(tmp_path / "DukeMTMC-reID", layout))
    assert images_of(duke.train)[0][0] == [
        "bounding_box_train/0001_c2_f0046062.jpg",
        "bounding_box_train/0001_c2_f0046182.jpg",
    ]
    assert duke.train.tracklets.frame.tolist() == [46062, 46182, 1]
    assert score(duke, perfect_features(duke)).n_valid == 1
    assert any("withdrawn by its authors" in note for note in duke.notes)
    assert "withdrawn" in benchmarks.find("dukemtmc").notice


@pytest.fixture
def real_market():
    folder = os.environ.get("MARKET1501_ROOT")
    if not folder or not Path(folder).is_dir():
        pytest.skip("Market-1501 may not be handed on: set MARKET1501_ROOT to a copy")
    return benchmarks.read("market1501", folder)


def test_the_published_counts_of_market1501(real_market):
    report = benchmarks.check(real_market)
    assert report.complete, report.problems
    assert report.counts["gallery"]["found"] == 15_913
    assert report.counts["train_tracklets"]["found"] == 3_262
    assert real_market.skipped[0]["n"] == 3_819


# MSMT17

MSMT = {
    "list_train.txt": ["0000/0000_001_01_0303noon_0002_1.jpg 0", "0000/0000_000_01_0303morning_0900_0.jpg 0"],
    "list_val.txt": [
        "0000/0000_002_01_0113afternoon_0001_0.jpg 0",
        "0001/0001_000_15_0303morning_0001_0.jpg 1",
    ],
    "list_query.txt": ["0000/0000_000_01_0303morning_0015_0.jpg 0"],
    "list_gallery.txt": [
        "0000/0000_005_03_0303morning_0015_0.jpg 0",
        "0001/0001_000_03_0303morning_0015_0.jpg 1",
    ],
}


def make_msmt(root, train="train", test="test"):
    root.mkdir()
    for name, lines in MSMT.items():
        (root / name).write_text("\n".join(lines) + "\n")
        folder = train if name in ("list_train.txt", "list_val.txt") else test
        touch(root / folder, [line.split()[0] for line in lines])
    return root


@pytest.mark.parametrize("folders", [("train", "test"), ("mask_train_v2", "mask_test_v2")])
def test_msmt17(tmp_path, folders):
    msmt = benchmarks.read("msmt17", make_msmt(tmp_path / "MSMT17_V1", *folders))
    paths, pid = images_of(msmt.train)
    assert paths[0] == [  # January before March, morning before noon
        f"{folders[0]}/0000/0000_002_01_0113afternoon_0001_0.jpg",
        f"{folders[0]}/0000/0000_000_01_0303morning_0900_0.jpg",
        f"{folders[0]}/0000/0000_001_01_0303noon_0002_1.jpg",
    ]
    assert pid == [[1, 1, 1], [2]]
    assert msmt.test.pid.tolist() == [3, 3, 4]  # other people than the training's of the same label
    assert msmt.train.cameras == ("c1", "c3", "c15")
    assert msmt.counts["distractors"] == 0
    assert score(msmt, perfect_features(msmt)).n_valid == 1
    assert benchmarks.check(msmt).images["test"] == {"expected": 3, "missing": 0, "broken": None}
    assert f"version {1 if folders[0] == 'train' else 2}" in msmt.notes


def test_msmt17_refuses(tmp_path):
    root = make_msmt(tmp_path / "msmt")
    (root / "list_val.txt").write_text("0000/picture.jpg 4\n")
    with pytest.raises(ValueError, match=r"list_val.txt, line 1: '0000/picture.jpg 4' is not of the form"):
        benchmarks.read("msmt17", root)
    (root / "list_val.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"list_val.txt is empty"):
        benchmarks.read("msmt17", root)
    (root / "test").rename(root / "tset")
    with pytest.raises(FileNotFoundError, match=r"folders train and test .* are missing"):
        benchmarks.read("msmt17", root)


# PRID 2011 and iLIDS-VID
