import os
from pathlib import Path

import numpy as np
import pytest
from tests.store.benchmark_folders import MARKET, images_of, make_market, perfect_features, score, touch

from tracklearn.store import benchmarks
from tracklearn.store.benchmarks import Subset
from tracklearn.store.sets.tracklets import open_set, read_truth


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
    assert market.skipped == (
        {"item": "images", "reason": "bounding_box_test: junk, person −1", "n": 1},
        {"item": "files", "reason": "bounding_box_test: not an image by the end of its name", "n": 1},
    )
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
    assert source["counts"] == {
        "files": 4,
        "images": 4,
        "missing_images": 0,
        "broken_images": 1,
    }
    assert source["skipped"][0]["item"] == "bounding_box_train/0002_c1s1_000200_01.jpg"
    assert opened.tracklets.tracklet.tolist() == [0, 1, 2]
    assert read_truth(opened.path).pid.tolist() == [2, 2, 7]
    names = {field for file in ("crops", "tracklets") for field in columns(opened.path / f"{file}.parquet")}
    assert "pid" not in names


def test_market1501_as_single_images_uses_no_label(tmp_path):
    market = benchmarks.read("market1501", make_market(tmp_path / "Market"))
    grouped = open_set(market.write_train(tmp_path / "set"))
    opened = open_set(market.write_train(tmp_path / "singles", singles=True))
    assert len(opened.tracklets) == opened.n_crops == grouped.n_crops
    assert opened.place["path"].to_pylist() == grouped.place["path"].to_pylist()
    camid = grouped.tracklets.camid[grouped.tracklets.tracklet]
    assert opened.tracklets.camid.tolist() == camid.tolist()
    assert read_truth(tmp_path / "singles").pid.tolist() == read_truth(tmp_path / "set").pid.tolist()
    (source,) = opened.manifest["sources"]
    assert not source["labels_used"]
    assert opened.manifest["settings"]["singles"]


def columns(file):
    import pyarrow.parquet as pq

    return pq.read_schema(file).names


@pytest.mark.parametrize("train", [[], ["bounding_box_train/readme.jpg"]])
def test_the_test_of_market1501_needs_no_training_part(tmp_path, train):
    root = make_market(tmp_path / "market", {name: MARKET[name] for name in ("query", "bounding_box_test")})
    touch(root, train)
    market = benchmarks.read("market1501", root)
    scores = score(market, perfect_features(market))
    assert (scores.mAP, scores.n_valid) == (1.0, 2)
    assert (market.counts["train_images"], market.counts["query"]) == (0, 2)
    assert market.notes == ()  # no label has formed anything
    report = benchmarks.check(market)
    assert "no training part: no image of it is in bounding_box_train" in report.problems
    assert report.images["train"] == {"expected": 0, "missing": 0, "broken": None}
    for wanted in (
        lambda: market.write_train(tmp_path / "set"),
        lambda: benchmarks.draw(market, Subset(1, 1)),
    ):
        with pytest.raises(ValueError, match=r"Market-1501 in .* has no training part"):
            wanted()
    assert not (tmp_path / "set").exists()


def test_half_of_a_test_of_market1501(tmp_path):
    root = make_market(tmp_path / "market", {name: MARKET[name] for name in ("bounding_box_train", "query")})
    with pytest.raises(
        FileNotFoundError, match=r"only a part of Market-1501 .* there is no bounding_box_test"
    ):
        benchmarks.read("market1501", root)
    touch(root, ["bounding_box_test/readme.jpg", "bounding_box_test/more/0001_c1s1_000001_00.jpg"])
    with pytest.raises(FileNotFoundError, match="bounding_box_test holds none of its images"):
        benchmarks.read("market1501", root)
    touch(root, ["bounding_box_test/0001_c3s1_000009_01.jpg", "query/0000_c2s1_000009_01.jpg"])
    left_out = {entry["reason"]: entry["n"] for entry in benchmarks.read("market1501", root).skipped}
    assert left_out["bounding_box_test: in a folder below"] == 1
    assert left_out["query: a distractor, person 0, cannot be asked for"] == 1


CROWD = {  # persons 1 to 6 to learn from, 11 to 16 with a query, 17 without one, distractors, junk
    "bounding_box_train": [f"{p:04d}_c{c}s1_00000{p}_00.jpg" for p in range(1, 7) for c in (1, 2)],
    "query": [f"{p:04d}_c1s1_000001_00.jpg" for p in range(11, 17)],
    "bounding_box_test": [
        *[f"{p:04d}_c{c}s1_000002_0{c}.jpg" for p in range(11, 18) for c in (1, 2)],
        *["0000_c2s1_000003_00.jpg", "0000_c1s1_000003_00.jpg", "-1_c1s1_000004_00.jpg"],
    ],
}


def test_a_subset_holds_the_drawn_persons_with_all_their_images_and_no_other(tmp_path):
    root = make_market(tmp_path / "market", CROWD)
    whole = benchmarks.read("market1501", root)
    some = benchmarks.read("market1501", root, subset=Subset(3, 2, seed=5))
    for part, held, n in ((some.train, whole.train, 3), (some.test, whole.test, 2)):
        people = set(part.pid.tolist())
        paths, _ = images_of(part)
        names = [path for own in paths for path in own]
        assert len(people) == n
        # Against the names themselves: everything that shows one of them.
        every = [path for own in images_of(held)[0] for path in own]
        assert names == [path for path in every if int(path.partition("/")[2][:4]) in people]
        assert part.camid.max() == 1
    assert set(some.test.pid[some.query].tolist()) == set(some.test.pid.tolist()) <= set(range(11, 17))
    assert len(some.query) == 2
    assert sorted([*some.query, *some.gallery]) == list(range(6))
    assert [path.startswith("query/") for (path,) in images_of(some.test)[0]] == [True] * 2 + [False] * 4
    assert benchmarks.check(some).problems == []  # the published counts are those of the whole
    assert (score(some, perfect_features(some)).mAP, score(some, perfect_features(some)).n_valid) == (1.0, 2)
    assert some.notes[-1] == (
        "a subset, drawn with seed 5: 3 of 6 training persons, 2 of 6 test persons; the gallery holds these "
        "alone, 4 of 16 items, without distractors"
    )


def test_a_subset_is_decided_by_its_numbers_and_its_seed(tmp_path):
    whole = benchmarks.read("market1501", make_market(tmp_path / "market", CROWD))

    def people(*numbers):
        some = benchmarks.draw(whole, Subset(*numbers))
        return set(some.train.pid.tolist()), set(some.test.pid.tolist())

    assert people(3, 2) == people(3, 2, 0)
    assert len({tuple(map(frozenset, people(3, 3, seed))) for seed in range(8)}) > 1
    assert people(5, 2)[1] == people(3, 2)[1]  # the other number does not matter
    for less, more in zip(people(3, 2), people(5, 4), strict=True):
        assert less < more
    assert people(6, 6) == (set(range(1, 7)), set(range(11, 17)))
    assert (whole.subset, whole.counts["train_ids"], whole.counts["distractors"]) == (None, 6, 2)
    for wrong, message in (
        ((7, 2), "7 training persons of Market-1501 are wanted, expected 1 to 6"),
        ((3, 0), "0 test persons of Market-1501 are wanted, expected 1 to 6"),
        ((3, 2, -1), "seed is -1"),
    ):
        with pytest.raises(ValueError, match=message):
            benchmarks.draw(whole, Subset(*wrong))


def test_a_subset_as_a_training_set_shows_its_own_pictures_and_says_what_it_is(tmp_path):
    root = make_market(tmp_path / "market", CROWD)
    some = benchmarks.read("market1501", root, subset=Subset(3, 2, seed=5))
    opened = open_set(some.write_train(tmp_path / "set"))
    assert opened.manifest["settings"]["subset"] == {"persons": 3, "test_persons": 2, "seed": 5}
    assert (opened.n_crops, len(opened.tracklets)) == (6, 6)
    assert read_truth(opened.path).pid.tolist() == some.train.pid.tolist()
    for row, image in enumerate(some.train.tracklets.crop.tolist()):
        assert np.array_equal(opened.image(row), some.train.image(image))
    assert (
        "subset"
        not in open_set(benchmarks.read("market1501", root).write_train(tmp_path / "whole")).manifest[
            "settings"
        ]
    )


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
    some = benchmarks.draw(real_market, Subset(300, 150)).counts
    assert (some["train_ids"], some["query_ids"], some["distractors"]) == (300, 150, 0)
    assert (some["train_tracklets"], some["train_images"]) == (1_292, 4_954)
    assert (some["query"], some["gallery"]) == (675, 2_449)
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


@pytest.mark.parametrize("gone", [("list_train.txt", "list_val.txt"), ("list_val.txt",)])
def test_the_test_of_msmt17_needs_no_training_part(tmp_path, gone):
    root = make_msmt(tmp_path / "MSMT17_V1")
    whole = benchmarks.read("msmt17", root)
    for name in gone:
        (root / name).unlink()
    (root / "train").rename(root / "elsewhere")
    msmt = benchmarks.read("msmt17", root)
    assert msmt.missing == tuple(f"of the training part {name} is not there" for name in gone)
    assert images_of(msmt.test)[0] == images_of(whole.test)[0]
    assert msmt.test.pid.tolist() == [1042, 1042, 1043]  # behind the 1,041 whom a whole training part has
    assert score(msmt, perfect_features(msmt)).n_valid == 1


def test_msmt17_refuses(tmp_path):
    root = make_msmt(tmp_path / "msmt")
    (root / "list_val.txt").write_text("0000/picture.jpg 4\n")
    with pytest.raises(ValueError, match=r"list_val.txt, line 1: '0000/picture.jpg 4' is not of the form"):
        benchmarks.read("msmt17", root)
    (root / "list_val.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"list_val.txt is empty"):
        benchmarks.read("msmt17", root)
    (root / "test").rename(root / "tset")
    with pytest.raises(FileNotFoundError, match=r"folder test .* or mask_test_v2 .* is missing"):
        benchmarks.read("msmt17", root)


# PRID 2011 and iLIDS-VID
