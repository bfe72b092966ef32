import json

import numpy as np
import pytest

from tracklearn.app.judge.datasets import LABELS, prepare
from tracklearn.store import benchmarks
from tracklearn.store.picture.crops import encode_jpeg
from tracklearn.store.sets.tracklets import open_set, read_truth, truth_path

NAMES = [
    "bounding_box_train/0002_c1s1_000100_01.jpg",
    "bounding_box_train/0002_c1s1_000200_01.jpg",
    "bounding_box_train/0002_c2s1_000050_02.jpg",
    "query/0001_c1s1_000001_00.jpg",
    "bounding_box_test/0000_c2s1_000005_01.jpg",
    "bounding_box_test/0001_c2s1_000009_01.jpg",
    "bounding_box_test/-1_c2s1_000009_01.jpg",
]


COMMAND = ["datasets"]


@pytest.fixture
def market(tmp_path):
    root = tmp_path / "market"
    for i, name in enumerate(NAMES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encode_jpeg(np.full((16, 8, 3), 30 * i, np.uint8)))
    return root


def test_all_data_sets_are_listed_with_what_to_put_where(call):
    code, out, _ = call()
    assert code == 0
    for dataset in benchmarks.DATASETS.values():
        assert dataset.name in out
        assert all(line in out for line in dataset.layout)
    assert "withdrawn by its authors" in out
    code, out, _ = call("MARS")
    assert code == 0
    assert "tracks_train_info.mat" in out
    assert "Market" not in out
    code, out, _ = call("--json")
    listed = json.loads(out.splitlines()[-1])["datasets"]
    assert [entry["name"] for entry in listed] == list(benchmarks.DATASETS)
    assert listed[0]["published"]["train_images"] == 509_914


def test_an_incomplete_folder_is_told_and_refused(call, market):
    code, out, err = call("market1501", "--root", market)
    assert code == 2
    assert "training images" in out
    assert "12,936" in out
    assert "! train_ids: 1 of 751" in out
    lines = err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(
        f"tracklearn: Market-1501 in {market} is not complete: train_ids: 1 of 751 (and"
    )
    code, out, err = call("market1501", "--root", market, "--json")
    assert (code, out) == (2, "")


def test_a_part_can_be_taken_and_trained_on(call, market, tmp_path):
    code, out, err = call("market1501", "--root", market, "--out", tmp_path / "set", "--partial", "--json")
    assert code == 0
    assert "\N{REPLACEMENT CHARACTER}" not in err
    assert len(err.splitlines()) > 5  # the table of counts, a line each
    result = json.loads(out.splitlines()[-1])
    assert (result["n_tracklets"], result["n_crops"]) == (2, 3)
    assert result["counts"]["train_images"] == {"found": 3, "published": 12_936}
    assert result["images"]["test"] == {"expected": 3, "missing": 0, "broken": None}
    assert result["protocols"] == ["official"]
    assert (result["complete"], result["usable"]) == (False, False)
    assert result["skipped"][0]["n"] == 1
    opened = open_set(tmp_path / "set")
    assert opened.tracklets.tracklet.tolist() == [0, 0, 1]
    assert read_truth(opened.path).pid.tolist() == [2, 2, 2]
    code, out, _ = call("market1501", "--root", market, "--out", tmp_path / "two", "--partial")
    assert out == f"2 tracklets, 3 crops\n{tmp_path / 'two'}\n"


def test_broken_training_images_are_left_out_of_the_set(call, market, tmp_path):
    (market / NAMES[1]).write_bytes(b"\xff\xd8 broken")
    arguments = ("market1501", "--root", market, "--check", "images", "--partial", "--json")
    code, out, err = call(*arguments)
    assert code == 0
    result = json.loads(out.splitlines()[-1])
    assert result["images"]["train"]["broken"] == 1
    assert "! train images: 1 cannot be decoded, the first is" in err
    code, out, _ = call(*arguments, "--out", tmp_path / "set")
    result = json.loads(out.splitlines()[-1])
    assert result["n_crops"] == 2
    reason = "the image cannot be decoded (not JPEG, PNG, BMP, WebP, TIFF or PNM)"
    assert result["set_skipped"] == [{"item": NAMES[1], "reason": reason, "n": 1}]


@pytest.mark.long
def test_the_tables_of_mars_become_a_set_without_images(call, data, tmp_path):
    code, _, err = call("mars", "--root", data / "mars")
    assert code == 2
    assert err.count("\n") == 1
    assert "train images: 509,914 of 509,914 are missing" in err
    code, out, _ = call(
        "mars", "--root", data / "mars", "--check", "none", "--out", tmp_path / "set", "--json"
    )
    result = json.loads(out.splitlines()[-1])
    assert code == 0
    assert (result["n_tracklets"], result["n_crops"], result["usable"]) == (8_298, 509_914, True)
    assert result["protocols"] == ["official", "gallery-excludes-queries"]
    opened = open_set(tmp_path / "set")
    pid, camid = read_truth(opened.path).pid, opened.tracklets.camid[opened.tracklets.tracklet]
    assert len(np.unique(np.stack([pid, camid]), axis=1).T) == 1955
    assert truth_path(opened.path).is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["marcet"], "no data set is called 'marcet': did you mean market1501?"),
        (["--root", "market"], "--root needs the name of a data set: mars, prid2011"),
        (["mars", "--out", "x"], "--out needs --root"),
        (["prid2011", "--split", "3"], "--split needs --root"),
        (["prid2011", "--splits", "splits.json"], "--splits needs --root"),
        (["mars", "--root", "market"], "market is not MARS: it has no tracks_test_info.mat"),
        (["mars", "--root", "nowhere"], "no such folder: nowhere"),
        (["market1501", "--root", "market", "--split", "4"], "Market-1501 has one fixed split"),
        (["market1501", "--root", "market", "--check", "pixels"], "--check pixels is unknown"),
        (["market1501", "--root", "market", "--out", "market"], "market exists: choose another --out"),
    ],
)
def test_every_mistake_is_one_clear_line(call, market, arguments, message):
    code, out, err = call(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("tracklearn: ")
    assert message in err
    assert err.count("\n") == 1


def test_the_labels_cover_all_counts(market):
    told = []
    result = prepare("market1501", market, partial=True, tell=told.append)
    assert set(result["counts"]) == set(LABELS)
    assert len(told) == 1
    assert "set" not in result
