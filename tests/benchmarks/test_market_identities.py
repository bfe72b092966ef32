"""The benchmark on Market-1501 on made names and features: what it reads, and the limit that it finds."""

import json

import numpy as np

from benchmarks import market_identities as bench


def test_tracklets_are_of_a_person_a_camera_and_a_sequence():
    names = [
        "0002_c1s1_000451_03.jpg",
        "0002_c1s1_000151_01.jpg",
        "0002_c1s2_000100_01.jpg",
        "0002_c3s1_000001_00.jpg",
        "0007_c1s1_000300_00.jpg",
        "0000_c1s1_000009_00.jpg",
        "-1_c1s1_000009_00.jpg",
        "Thumbs.db",
    ]
    kept, tracklets, pid = bench.read(names)
    assert kept[:2] == ["0002_c1s1_000151_01.jpg", "0002_c1s1_000451_03.jpg"]
    assert tracklets.length.tolist() == [2, 1, 1, 1]
    assert tracklets.camid.tolist() == [0, 0, 2, 0]
    assert pid.tolist() == [2, 2, 2, 7]


def test_a_name_that_ends_twice_is_one_of_the_data_set_s():
    """All images of person 1488 in the published archive are called so."""
    names = ["1488_c1s6_023021_02.jpg.jpg", "1488_c1s6_023071_05.jpg", "0002_c1s1_000151_01.jpg.png"]
    kept, tracklets, pid = bench.read(
        [*names, "0000_c1s6_023071_04.jpg.jpg", "0002_c1s1_000151_01.jpg.jpg.jpg"]
    )
    assert kept == names[:2]
    assert tracklets.length.tolist() == [2]
    assert pid.tolist() == [1488]


def test_pairs_of_different_cameras_by_hand():
    """Said: (0,1), (2,3); true: (0,1), (0,2), (1,2), of which those of one camera are no pairs."""
    label, pid = np.array([0, 0, 1, 1]), np.array([5, 5, 5, 6])
    assert bench.across(label, pid, np.array([0, 1, 2, 3])) == 0.4
    assert bench.across(label, pid, np.array([0, 0, 1, 1])) == 0.0


def test_writes_what_it_measured(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    person, camera = rng.normal(size=(60, 64)), rng.normal(size=(3, 64))

    def features(root, names, weights, cache):
        who = np.array([[int(name[:4]), int(name[6])] for name in names])
        x = person[who[:, 0]] + camera[who[:, 1] - 1] + 0.7 * rng.normal(size=(len(names), 64))
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), 1.5

    folder = tmp_path / "Market" / "bounding_box_test"
    folder.mkdir(parents=True)
    for pid in range(1, 51):
        for cam in range(1, 4):
            for frame in range(6):
                (folder / f"{pid:04d}_c{cam}s1_{frame:06d}_00.jpg").touch()
    monkeypatch.setattr(bench, "features_of", features)
    monkeypatch.setattr(bench, "DISTANCES", np.array([0.3, 0.9, 1.0, 1.3]))
    given = ["--market", str(folder.parent), "--weights", "w.pth", "--cache", str(tmp_path)]
    assert bench.main([*given, "--out", str(tmp_path / "out")]) == 0
    saved = json.loads((tmp_path / "out" / "market_identities.json").read_text())["result"]
    assert (saved["tracklets"], saved["people"], saved["images"]) == (150, 50, 900)
    assert saved["label_free"]["f1"] == 1.0
    assert saved["curve"][0]["f1"] < saved["curve"][2]["f1"] == 1.0
    assert saved["label_free"]["expected_split"] < 0.2
    assert (tmp_path / "out" / "market_identities.png").stat().st_size > 10_000
    assert "of the best in hindsight" in capsys.readouterr().out
