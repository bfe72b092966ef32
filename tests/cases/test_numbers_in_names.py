"""Numbers in names that no table holds: left out and counted, or refused in one line."""

import json

import numpy as np
import pytest
from scipy.io import savemat

from tests.store.benchmark_folders import touch
from tests.store.test_benchmarks import make_mars, make_pairs
from tracklearn.store import benchmarks
from tracklearn.store.ingest.folders import scan_folder
from tracklearn.store.ingest.sources import parse_source
from tracklearn.store.picture.listing import MAX_NUMBER, OVERLONG, read_number

LONG = "9" * 25
GOOD = ["0001_c1s1_000001_01.jpg", "0001_c2s1_000002_01.jpg"]
OVERLONG_NAMES = [
    f"{LONG}_c1s1_000001_01.jpg",
    f"0001_c{LONG}s1_000001_01.jpg",
    "0001_c10000s1_000001_01.jpg",
    f"0001_c1s{LONG}_000001_01.jpg",
    f"0001_c1s1_{LONG}_01.jpg",
    "0001_c1s9223372036854_775808_01.jpg",  # in one number one more than 64 bits hold
]


def test_a_number_of_any_length_is_read():
    assert [read_number(text) for text in ("0", "0042", "-1", str(MAX_NUMBER), "٣")] == [
        0,
        42,
        -1,
        MAX_NUMBER,
        3,
    ]
    assert all(read_number(text) > MAX_NUMBER for text in (str(MAX_NUMBER + 1), LONG, "9" * 5000))
    assert read_number("0" * 5000 + "7") == 7


def test_overlong_numbers_in_market_names_are_left_out_and_counted(tmp_path):
    touch(tmp_path, [*GOOD, *OVERLONG_NAMES, "0001_c1s9223372036854_775807_01.jpg"])
    plan = scan_folder(tmp_path)
    assert plan.skipped == [{"item": "images", "reason": OVERLONG, "n": len(OVERLONG_NAMES)}]
    assert [(t.camera, t.pid, list(t.frame)) for t in plan.tracklets] == [
        ("c1", 1, [1_000_001, MAX_NUMBER]),
        ("c2", 1, [1_000_002]),
    ]


def test_a_folder_of_overlong_names_alone_holds_nobody(tmp_path, call):
    touch(tmp_path / "crops", OVERLONG_NAMES)
    code, _, err = call("ingest", tmp_path / "crops", "--out", tmp_path / "o")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "no people found" in err


def test_overlong_numbers_become_a_set_without_them(tmp_path, call):
    touch(tmp_path / "crops", [*GOOD, *OVERLONG_NAMES])
    code, out, err = call("ingest", tmp_path / "crops", "--out", tmp_path / "o", "--json")
    assert (code, json.loads(out)["n_crops"]) == (0, 2)
    assert f"6 images: {OVERLONG}" in err


@pytest.mark.parametrize("folder", ["bounding_box_train", "query", "bounding_box_test"])
def test_overlong_numbers_in_a_benchmark_are_left_out_and_counted(tmp_path, folder):
    for place in ("bounding_box_train", "query", "bounding_box_test"):
        touch(tmp_path / place, GOOD)
    touch(tmp_path / folder, OVERLONG_NAMES)
    market = benchmarks.read("market1501", tmp_path)
    assert market.skipped == ({"item": "images", "reason": f"{folder}: {OVERLONG}", "n": 6},)
    assert market.counts["cameras"] == 2


def test_overlong_numbers_in_duke_names_are_left_out(tmp_path):
    names = ["0001_c1_f0000001.jpg", "0001_c2_f0000002.jpg"]
    for place in ("bounding_box_train", "query", "bounding_box_test"):
        touch(tmp_path / place, [*names, f"{LONG}_c1_f1.jpg", f"0001_c{LONG}_f1.jpg", f"0001_c1_f{LONG}.jpg"])
    duke = benchmarks.read("dukemtmc", tmp_path)
    assert [entry["n"] for entry in duke.skipped] == [3, 3, 3]


@pytest.mark.parametrize(
    "line",
    [
        f"0001/0001_000_01_0303morning_0015_0.jpg {'9' * 5000}",
        f"0001/0001_000_{LONG}_0303morning_0015_0.jpg 1",
        "0001/0001_000_01_0303morning_0015_0.jpg 9223372036854775807",
    ],
)
def test_a_list_with_an_overlong_number_is_refused_with_its_line(tmp_path, line):
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
    for name in ("train", "val", "query", "gallery"):
        (tmp_path / f"list_{name}.txt").write_text(line + "\n")
    with pytest.raises(ValueError, match=r"list_train.txt, line 1: the label or the camera is too high"):
        benchmarks.read("msmt17", tmp_path)


@pytest.mark.parametrize("value", [1e300, 1.5, np.nan, np.inf, 2.0**31, "text", [[]]])
def test_a_table_without_whole_numbers_is_refused(tmp_path, value):
    root = make_mars(tmp_path / "mars", images=False)
    row = [[1, 2, 1, value]] if np.isscalar(value) and not isinstance(value, str) else value
    savemat(root / "info" / "tracks_train_info.mat", {"x": np.array(row)})
    with pytest.raises(ValueError, match=r"whole numbers below 2.31 alone|not a MATLAB file that can"):
        benchmarks.read("mars", root)


def test_a_table_with_an_overlong_camera_is_refused(tmp_path):
    root = make_mars(tmp_path / "mars", images=False)
    savemat(root / "info" / "tracks_train_info.mat", {"x": np.array([[1, 2, 1, 10**8]])})
    with pytest.raises(ValueError, match="cameras 100000000 to 100000000, expected 1 to 9999"):
        benchmarks.read("mars", root)


def test_persons_of_overlong_numbers_are_left_out_of_two_cameras(tmp_path):
    root = make_pairs(tmp_path / "multi_shot", ("cam_a", "cam_b"), (1, 2))
    for camera in ("cam_a", "cam_b"):
        touch(root / camera / f"person_{LONG}", ["0001.png"])
    (root / "splits.json").write_text(json.dumps([{"train": [1], "test": [2, 10**30, f"person_{LONG}"]}]))
    prid = benchmarks.read("prid2011", root)
    assert prid.skipped == ({"item": "persons", "reason": OVERLONG, "n": 1},)
    assert len(prid.missing) == 2
    assert prid.counts["query"] == 1


@pytest.mark.parametrize(
    "text",
    [
        '[{"train": [1.5], "test": [2]}]',
        '[{"train": [null], "test": [2]}]',
        f'[{{"train": [{"9" * 5000}], "test": [2]}}]',
        "[" * 100_000,
    ],
)
def test_splits_that_are_no_persons_are_refused(tmp_path, text):
    root = make_pairs(tmp_path / "multi_shot", ("cam_a", "cam_b"), (1, 2))
    (root / "splits.json").write_text(text)
    with pytest.raises(ValueError, match="is not a list of splits"):
        benchmarks.read("prid2011", root)


@pytest.mark.parametrize("digits", [LONG, "9" * 5000, "10000"])
def test_an_overlong_camera_number_of_a_source_is_refused(tmp_path, monkeypatch, digits):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=r"camera number of a.mp4 is too high: expected 0\.\.9999"):
        parse_source(f"hall@{digits}=a.mp4")


@pytest.mark.parametrize("variable", ["TRACKLEARN_MAX_PIXELS", "OMP_NUM_THREADS"])
@pytest.mark.parametrize("value", ["9" * 5000, "²"])
def test_overlong_numbers_in_the_environment_are_no_traceback(tmp_path, call, monkeypatch, variable, value):
    touch(tmp_path / "crops", GOOD)
    monkeypatch.setenv(variable, value)
    code, _, err = call("ingest", tmp_path / "crops", "--out", tmp_path / "o")
    assert (code, "Traceback" in err) == (2 if variable == "TRACKLEARN_MAX_PIXELS" else 0, False)
