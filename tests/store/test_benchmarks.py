import dataclasses
import json

import numpy as np
import pytest
from scipy.io import savemat
from tests.store.benchmark_folders import (
    MARKET,
    images_of,
    make_market,
    perfect_features,
    picture,
    random_scores,
    score,
    touch,
)

from tracklearn.store import benchmarks
from tracklearn.store.benchmarks import videos
from tracklearn.store.benchmarks.parts import by_person_and_camera
from tracklearn.store.picture.crops import encode_jpeg
from tracklearn.store.sets.tracklets import SetWriter, open_set, read_truth, truth_path, write_truth

MARS_TRAIN = [(1, 2, 1, 1), (3, 5, 1, 2), (6, 6, 3, 6)]
MARS_TEST = [(1, 2, -1, 1), (3, 3, 0, 4), (4, 5, 2, 1), (6, 6, 2, 3), (7, 8, 2, 3), (9, 9, 4, 5)]


def mars_names(table):
    names = []
    for number, (start, end, pid, cam) in enumerate(table, 1):
        person = "00-1" if pid < 0 else f"{pid:04d}"
        names += [f"{person}C{cam}T{number:04d}F{i + 1:03d}.jpg" for i in range(end - start + 1)]
    return names


def make_mars(root, *, lists=True, images=True, flat=False):
    info = root if flat else root / "info"
    info.mkdir(parents=True)
    savemat(info / "tracks_train_info.mat", {"track_train_info": np.array(MARS_TRAIN, np.int32)})
    savemat(info / "tracks_test_info.mat", {"track_test_info": np.array(MARS_TEST, np.int32)})
    savemat(info / "query_IDX.mat", {"query_IDX": np.array([[3, 4, 6]], np.uint16)})
    for part, table in (("train", MARS_TRAIN), ("test", MARS_TEST)):
        names = mars_names(table)
        if lists:
            (info / f"{part}_name.txt").write_text("\r\n".join(names) + "\r\n")
        if images:
            touch(root / f"bbox_{part}", [f"{name[:4]}/{name}" for name in names])
    return root


@pytest.mark.parametrize("lists", [True, False])
def test_mars_from_tables_and_folders(tmp_path, lists):
    mars = benchmarks.read("mars", make_mars(tmp_path / "mars", lists=lists))
    assert mars.train.tracklets.tracklet.tolist() == [0, 0, 1, 1, 1, 2]
    assert mars.train.tracklets.frame.tolist() == [0, 1, 0, 1, 2, 0]
    assert mars.train.tracklets.camid.tolist() == [0, 1, 5]
    assert mars.train.pid.tolist() == [1, 1, 3]
    assert mars.train.cameras == ("c1", "c2", "c3", "c4", "c5", "c6")
    paths, pid = images_of(mars.train)
    assert paths[1] == [f"0001/0001C2T0002F{i:03d}.jpg" for i in (1, 2, 3)]
    assert pid == [[1, 1], [1, 1, 1], [3]]
    assert images_of(mars.test)[0][0] == ["00-1/00-1C1T0001F001.jpg", "00-1/00-1C1T0001F002.jpg"]
    assert mars.test.pid.tolist() == [-1, 0, 2, 2, 2, 4]
    assert mars.query.tolist() == mars.query_row.tolist() == [2, 3, 5]
    assert mars.protocols == ("official", "gallery-excludes-queries")
    assert mars.counts["gallery"] == 2
    assert (mars.counts["junk"], mars.counts["distractors"]) == (1, 1)
    assert mars.train.image(5).shape == (16, 8, 3)
    assert mars.train.crops(16, 8).read([5]).shape == (1, 16, 8, 3)
    assert not mars.grouped_by_labels


def test_mars_writes_a_set_to_train_on(tmp_path):
    mars = benchmarks.read("MARS", make_mars(tmp_path / "mars"))
    opened = open_set(mars.write_train(tmp_path / "set"))
    assert opened.tracklets.tracklet.tolist() == [0, 0, 1, 1, 1, 2]
    assert opened.cameras[5] == "c6"
    assert read_truth(opened.path).pid.tolist() == [1, 1, 1, 1, 1, 3]
    assert (opened.image(5) == mars.train.image(5)).all()
    assert opened.manifest["images"]["root"] == "../mars/bbox_train"
    assert opened.manifest["settings"] == {"benchmark": "mars", "split": 0, "n_splits": 1}
    assert opened.manifest["sources"][0]["labels_used"] is False


def test_mars_without_images_still_gives_its_tables(tmp_path):
    mars = benchmarks.read("mars", make_mars(tmp_path / "mars", lists=False, images=False, flat=True))
    assert mars.root == tmp_path / "mars"
    assert mars.counts["train_images"] == 6
    with pytest.raises(FileNotFoundError, match="bbox_train is not there"):
        mars.train.crops(16, 8)
    with pytest.raises(FileNotFoundError, match="bbox_train is not there"):
        mars.train.image(0)
    with pytest.raises(FileNotFoundError, match="bbox_train is not there"):
        mars.write_train(tmp_path / "set")
    opened = open_set(mars.write_train(tmp_path / "set", check="none"))
    assert read_truth(opened.path).pid.tolist() == [1, 1, 1, 1, 1, 3]


def test_the_test_of_mars_needs_no_training_part(tmp_path):
    root = make_mars(tmp_path / "mars")
    (root / "info" / "tracks_train_info.mat").unlink()
    mars = benchmarks.read("mars", root)
    assert mars.test.pid.tolist() == [-1, 0, 2, 2, 2, 4]
    assert (mars.counts["train_tracklets"], mars.counts["query"]) == (0, 3)
    assert mars.missing == ("no training part: tracks_train_info.mat is not there",)
    assert score(mars, perfect_features(mars)).n_valid == 2
    with pytest.raises(ValueError, match=r"MARS in .* has no training part"):
        mars.write_train(tmp_path / "set")


@pytest.mark.long
def test_mars_refuses_names_that_contradict_its_tables(tmp_path):
    root = make_mars(tmp_path / "mars")
    names = mars_names(MARS_TRAIN)
    file = root / "info" / "train_name.txt"

    def refuse(lines, message):
        file.write_text("\n".join(lines))
        mars = benchmarks.read("mars", root)  # the tables alone are fine
        with pytest.raises(ValueError, match=message):
            mars.train.images  # noqa: B018
        assert not benchmarks.check(mars).usable

    refuse(names[:-1], "names 5 images, but the tables speak of 6")
    refuse(
        [*names[:-1], names[0]], "image 6 is '0001C1T0001F001.jpg', but the tables have person 3 in camera 6"
    )
    refuse([*names[:2], names[2].replace("C2", "C3"), *names[3:]], "image 3 is .* person 1 in camera 2 there")
    refuse(["x.png", *names[1:]], "image 1 is 'x.png'")
    file.unlink()
    (root / "bbox_train" / "0003" / names[-1]).unlink()
    mars = benchmarks.read("mars", root)
    with pytest.raises(ValueError, match=r"without train_name.txt.* names 5 images, but .* 6"):
        mars.train.images  # noqa: B018


@pytest.mark.parametrize(
    ("file", "value", "message"),
    [
        ("tracks_train_info.mat", [(1, 2, 1)], r"shape \(1, 3\), expected \(tracklets, 4\)"),
        ("tracks_train_info.mat", [(1, 2, 1, 1), (4, 5, 1, 1)], "do not follow one upon another"),
        ("tracks_test_info.mat", [(2, 3, 1, 1)], "do not follow one upon another"),
        ("tracks_test_info.mat", [(1, 3, 1, 0)], "cameras 0 to 0, expected 1 to 9999"),
        ("query_IDX.mat", [[3, 7]], "names test tracklets that tracks_test_info.mat does not have"),
        ("query_IDX.mat", [[0, 1]], "names test tracklets that tracks_test_info.mat does not have"),
    ],
)
def test_mars_refuses_damaged_tables(tmp_path, file, value, message):
    root = make_mars(tmp_path / "mars", images=False)
    savemat(root / "info" / file, {"x": np.array(value)})
    with pytest.raises(ValueError, match=message):
        benchmarks.read("mars", root)


def test_mars_refuses_files_that_are_no_tables(tmp_path):
    root = make_mars(tmp_path / "mars", images=False)
    file = root / "info" / "query_IDX.mat"
    savemat(file, {"a": np.zeros((1, 1)), "b": np.zeros((1, 1))})
    with pytest.raises(ValueError, match=r"query_IDX.mat is not .*2 matrices, expected 1"):
        benchmarks.read("mars", root)
    file.write_bytes(b"no matrix" * 40)
    with pytest.raises(ValueError, match=r"query_IDX.mat is not a MATLAB file"):
        benchmarks.read("mars", root)
    file.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"only a part of MARS is in .*info: there is no query_IDX.mat"
    ):
        benchmarks.read("mars", root)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.full((2, 4), np.nan), "no matrix of real numbers"),
        (np.full((2, 4), 1j), "no matrix of real numbers"),
        (np.array([["a", 1]], object), "no matrix of real numbers"),
        (np.full((1, 4), 1e300), "too large to count with"),
    ],
)
def test_a_matrix_of_other_things_is_named(tmp_path, value, message):
    savemat(tmp_path / "t.mat", {"t": value})
    with pytest.raises(ValueError, match=rf"t\.mat is not .*{message}") as caught:
        videos._mars_table(tmp_path / "t.mat")
    assert "\n" not in str(caught.value)


def test_a_file_that_crashes_the_reader_is_refused(tmp_path, monkeypatch):
    """scipy 1.17 meets some damaged files with a segmentation fault."""
    savemat(tmp_path / "t.mat", {"t": np.eye(4)})
    monkeypatch.setattr(videos, "_READ_MAT", "import os\nos.abort()")
    with pytest.raises(ValueError, match=r"t\.mat is not .*damaged.*fetch it again"):
        videos._mars_table(tmp_path / "t.mat")


@pytest.fixture(scope="module")
def mars(data):
    return benchmarks.read("mars", data / "mars")


def test_the_published_counts_of_mars(mars):
    report = benchmarks.check(mars, images="none")
    assert report.complete
    assert report.counts["train_pairs"] == {"found": 1955, "published": 1955}
    assert {name: report.counts[name]["found"] for name in mars.published} == {
        "train_ids": 625,
        "train_pairs": 1955,
        "train_tracklets": 8298,
        "train_images": 509_914,
        "cameras": 6,
        "query": 1980,
        "gallery": 9330,
        "test_tracklets": 12_180,
        "test_images": 681_089,
        "junk": 870,
        "distractors": 3248,
    }
    missing = benchmarks.check(mars)
    assert not missing.usable
    assert missing.images["train"] == {"expected": 509_914, "missing": 509_914, "broken": None}
    assert [line.split(":")[0] for line in missing.problems] == ["train images", "test images"]


@pytest.mark.parametrize(
    ("protocol", "valid", "skipped"), [("official", 1980, 0), ("gallery-excludes-queries", 1840, 140)]
)
def test_the_two_protocols_of_mars(mars, protocol, valid, skipped):
    scores = random_scores(mars, protocol)
    assert (scores.n_valid, scores.n_skipped) == (valid, skipped)
    assert protocol in scores.protocol


# Market-1501 and DukeMTMC-reID


def make_pairs(root, cameras, persons, *, frames=2, form="person_{:04d}"):
    touch(
        root,
        [
            f"{cam}/{form.format(p)}/{i + 1:04d}.png"
            for cam in cameras
            for p in persons
            for i in range(frames)
        ],
    )
    return root


def test_prid2011_with_the_splits_of_a_file(tmp_path):
    root = make_pairs(tmp_path / "prid" / "multi_shot", ("cam_a", "cam_b"), (1, 2, 3, 10)).parent
    splits = [{"train": [3, 1], "test": [2, 10]}, {"train": ["person_0002", "person_0010"], "test": [1, 3]}]
    (root / "splits.json").write_text(json.dumps(splits))
    prid = benchmarks.read("prid2011", root)
    paths, pid = images_of(prid.train)
    assert paths[0] == ["cam_a/person_0003/0001.png", "cam_a/person_0003/0002.png"]
    assert pid == [[3, 3], [1, 1], [3, 3], [1, 1]]
    assert prid.train.camid.tolist() == [0, 0, 1, 1]
    assert prid.test.pid[prid.query].tolist() == prid.test.pid[prid.gallery].tolist() == [2, 10]
    assert set(prid.test.camid[prid.query]) == {0}  # query camera A, gallery camera B
    assert set(prid.test.camid[prid.gallery]) == {1}
    assert (prid.split, prid.n_splits) == (0, 2)
    second = benchmarks.read("prid2011", root, split=1)
    assert second.train.pid.tolist() == [2, 10, 2, 10]
    assert score(second, perfect_features(second)).rank(1) == 1.0
    opened = open_set(second.write_train(tmp_path / "set"))
    assert read_truth(opened.path).pid.tolist() == [2, 2, 10, 10] * 2
    assert opened.manifest["settings"]["split"] == 1
    with pytest.raises(ValueError, match="split 2 does not exist: PRID 2011 has splits 0 to 1"):
        benchmarks.read("prid2011", root, split=2)


def test_prid2011_with_the_published_splits(tmp_path, data):
    splits = data / "prid2011" / "splits.json"
    given = json.loads(splits.read_text())
    people = sorted(given[0]["train"] + given[0]["test"])
    root = make_pairs(tmp_path / "multi_shot", ("cam_a", "cam_b"), people, frames=1)
    for split in (0, 9):
        prid = benchmarks.read("prid2011", root, split=split, splits=splits)
        report = benchmarks.check(prid)
        assert report.complete, report.problems
        assert report.counts["train_tracklets"] == {"found": 178, "published": 178}
        assert prid.n_splits == 10
        assert prid.train.pid[:89].tolist() == given[split]["train"]
        assert prid.test.pid[prid.query].tolist() == given[split]["test"]


def test_prid2011_draws_splits_of_the_people_that_count(tmp_path):
    root = make_pairs(tmp_path / "multi_shot", ("cam_a", "cam_b"), (1, 2, 3, 4), frames=28)
    make_pairs(root, ("cam_a", "cam_b"), (5,), frames=27)  # too short
    make_pairs(root, ("cam_a",), (6,), frames=28)  # in one camera only
    make_pairs(root, ("cam_a", "cam_b"), (201,), frames=28)  # not the same person
    drawn = [benchmarks.read("prid2011", root, split=split) for split in range(10)]
    for prid in drawn:
        train, test = set(prid.train.pid), set(prid.test.pid)
        assert len(train) == len(test) == 2
        assert train | test == {1, 2, 3, 4}
    assert len({tuple(prid.train.pid) for prid in drawn}) > 1
    assert "drawn with seed 0" in drawn[0].notes[0]
    assert (benchmarks.read("prid2011", root, split=3).train.pid == drawn[3].train.pid).all()


def test_prid2011_names_the_people_of_a_split_who_are_missing(tmp_path):
    root = make_pairs(tmp_path / "multi_shot", ("cam_a", "cam_b"), (1, 2, 3))
    splits = tmp_path / "other.json"
    splits.write_text(json.dumps([{"train": [1, 77], "test": [2, 3]}]))
    prid = benchmarks.read("prid2011", root, splits=splits)
    assert prid.train.pid.tolist() == [1, 1]
    assert "person 77 is in the split, but not in both cameras" in benchmarks.check(prid).problems


def test_prid2011_has_nobody_above_200_in_both_cameras(tmp_path):
    """Person 201 of camera A is another one than person 201 of camera B."""
    root = make_pairs(tmp_path / "multi_shot", ("cam_a", "cam_b"), (1, 2, 201))
    (root / "splits.json").write_text(json.dumps([{"train": [1], "test": [2, 201]}]))
    prid = benchmarks.read("prid2011", root)
    assert prid.test.pid.tolist() == [2, 2]
    assert prid.missing == ("person 201 is in the split, but not in both cameras",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}x", "is not a list of splits"),
        ('[{"train": [1]}]', "is not a list of splits"),
        ('[{"train": 1, "test": [2]}]', "is not a list of splits"),
        ('[{"train": ["anna"], "test": [2]}]', "is not a list of splits"),
        ('[{"train": [1, 2], "test": [2]}]', "split 0 has person_0002 in training and in the test"),
    ],
)
def test_splits_that_are_refused(tmp_path, text, message):
    root = make_pairs(tmp_path / "multi_shot", ("cam_a", "cam_b"), (1, 2, 3))
    (root / "splits.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        benchmarks.read("prid2011", root)


def test_ilidsvid_in_the_first_half_of_the_authors_splits_is_the_test(tmp_path):
    persons = (1, 2, 5, 319)
    root = tmp_path / "ilids"
    make_pairs(root / "i-LIDS-VID" / "sequences", ("cam1", "cam2"), persons, form="person{:03d}")
    folder = root / "train-test people splits"
    folder.mkdir()
    savemat(folder / "train_test_splits_ilidsvid.mat", {"ls_set": np.array([[4, 1, 2, 3], [1, 2, 3, 4]])})
    ilids = benchmarks.read("ilidsvid", root)
    assert ilids.test.pid[ilids.query].tolist() == [319, 1]
    assert ilids.train.pid.tolist() == [2, 5, 2, 5]
    assert images_of(ilids.train)[0][0] == ["cam1/person002/0001.png", "cam1/person002/0002.png"]
    assert ilids.n_splits == 2
    assert score(ilids, perfect_features(ilids)).n_valid == 2
    savemat(folder / "train_test_splits_ilidsvid.mat", {"ls_set": np.array([[4, 1, 2, 5]])})
    with pytest.raises(ValueError, match="places 1 to 5, but there are 4 persons in both cameras"):
        benchmarks.read("ilidsvid", root)


def test_two_cameras_without_anybody_in_both(tmp_path):
    make_pairs(tmp_path, ("cam1",), (1,), form="person{:03d}")
    make_pairs(tmp_path, ("cam2",), (2,), form="person{:03d}")
    with pytest.raises(FileNotFoundError, match=r"only a part of iLIDS-VID .* no person is in both cameras"):
        benchmarks.read("ilidsvid", tmp_path)
    make_pairs(tmp_path, ("cam2",), (1,), form="person{:03d}")
    with pytest.raises(FileNotFoundError, match=r"no such file: .*none.json"):
        benchmarks.read("ilidsvid", tmp_path, splits=tmp_path / "none.json")


# The generated world


def make_demo(root):
    """A demo's set (with a mixed tracklet) and judged set, as its folder holds them."""
    for name, cameras in (("set", "ab"), ("judge", "aab")):
        with SetWriter(root / name) as writer:
            for i, camera in enumerate(cameras):
                part = writer.part(f"{i}" * 64)
                jpeg = [encode_jpeg(picture(i)), encode_jpeg(picture(i + 9))]
                part.add(
                    jpeg, camera=camera, frame=[0, 1], time=[0, 0.1], box=[(0, 0, 8, 16)] * 2, score=[1, 1]
                )
                part.finish({"camera": camera, "skipped": []})
            writer.finish({})
    write_truth(root / "set", [0, 1, 1, -1])
    write_truth(root / "judge", [7, 7, 8, 8, 7, 7])
    return root


def test_the_generated_world(tmp_path):
    world = benchmarks.read("world", make_demo(tmp_path / "demo"))
    assert world.train.truth.pid.tolist() == [0, 1, 1, -1]
    assert world.query.tolist() == world.gallery.tolist() == world.query_row.tolist() == [0, 1, 2]
    scores = score(world, perfect_features(world))
    assert (scores.n_valid, scores.n_skipped, scores.mAP) == (2, 1, 1.0)
    assert world.test.crops(16, 8).read([3]).shape == (1, 16, 8, 3)
    opened = open_set(world.write_train(tmp_path / "copy"))
    assert not list(opened.path.glob("*.arrow"))
    assert read_truth(opened.path).pid.tolist() == [0, 1, 1, -1]
    assert (opened.image(2) == world.train.image(2)).all()
    assert benchmarks.check(world).complete


def test_what_the_generated_world_refuses(tmp_path):
    root = make_demo(tmp_path / "demo")
    (root / "set").rename(root / "elsewhere")
    world = benchmarks.read("world", root)  # it can be judged on still
    assert (world.counts["train_tracklets"], world.counts["query"]) == (0, 3)
    assert benchmarks.check(world).problems == ["no training part: set is not there"]
    write_truth(root / "judge", [7, 7, 8, 7, 7, 7])
    with pytest.raises(ValueError, match=r"tracklet 1 of .*judge holds several persons"):
        benchmarks.read("world", root)
    truth_path(root / "judge").unlink()
    with pytest.raises(FileNotFoundError, match=r"judge.truth.parquet is not there: let `tracklearn demo`"):
        benchmarks.read("world", root)


# What they share


@pytest.mark.parametrize("name", list(benchmarks.DATASETS))
def test_a_wrong_root_is_one_clear_line(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path} is not .*: it has no .*; see `tracklearn data"):
        benchmarks.read(name, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*nowhere"):
        benchmarks.read(name, tmp_path / "nowhere")


def test_unknown_names_splits_and_protocols(tmp_path):
    root = make_market(tmp_path / "market")
    with pytest.raises(ValueError, match="'marcet1501': did you mean market1501"):
        benchmarks.find("marcet1501")
    with pytest.raises(ValueError, match="'coco': known are mars, prid2011"):
        benchmarks.read("coco", root)
    with pytest.raises(ValueError, match="split 3 does not exist: Market-1501 has one fixed split"):
        benchmarks.read("market1501", root, split=3)
    with pytest.raises(ValueError, match="takes no file of splits"):
        benchmarks.read("market1501", root, splits=root / "x.json")
    market = benchmarks.read("market1501", root, split=0)
    assert market.protocol() == market.protocol("official") == "official"
    message = r'"gallery-excludes-queries" does not exist for Market-1501 \(its gallery holds no queries\)'
    with pytest.raises(ValueError, match=message):
        market.protocol("gallery-excludes-queries")
    with pytest.raises(ValueError, match='protocol "mars" does not exist for Market-1501: use official'):
        market.protocol("mars")
    with pytest.raises(ValueError, match='check is "all", expected one of'):
        benchmarks.check(market, images="all")


def test_check_counts_and_names_what_is_missing(tmp_path):
    root = make_market(tmp_path / "market")
    names = MARKET["bounding_box_train"]
    market = dataclasses.replace(
        benchmarks.read("market1501", root), published={"train_ids": 2, "train_images": 4, "query": 2}
    )
    report = benchmarks.check(market)
    assert report.complete
    assert report.usable
    assert report.counts["train_images"] == {"found": 4, "published": 4}
    assert report.counts["gallery"] == {"found": 4, "published": None}

    short = dataclasses.replace(market, published={"train_images": 8, "query": 2})
    report = benchmarks.check(short)
    assert report.problems == ["train_images: 4 of 8"]
    assert not report.usable
    assert benchmarks.check(dataclasses.replace(market, published={"query": 1})).usable is False

    (root / "bounding_box_train" / names[0]).write_bytes(b"")
    told = []
    report = benchmarks.check(market, images="images", progress=lambda *a: told.append(a))
    assert report.images["train"] == {"expected": 4, "missing": 0, "broken": 1}
    assert report.problems[0].startswith("train images: 1 cannot be decoded, the first is ")
    assert told == [("check images", 4, 4), ("check images", 6, 6)]
    (root / "bounding_box_train" / names[0]).unlink()  # after it was read: the list still has it
    report = benchmarks.check(market)
    assert report.images["train"]["missing"] == 1
    assert report.problems[0].endswith(names[0])
    assert not report.usable


@pytest.mark.parametrize(
    ("found", "published", "usable"),
    [(1000, 1000, True), (990, 1000, True), (989, 1000, False), (1011, 1000, False), (88, 89, False)],
)
def test_one_in_a_hundred_may_be_missing(tmp_path, found, published, usable):
    market = benchmarks.read("market1501", make_market(tmp_path / "market"))
    counted = dataclasses.replace(market, query=np.zeros(found, np.int64), published={"query": published})
    report = benchmarks.check(counted, images="none")
    assert report.usable is usable
    assert report.complete is (found == published)


def test_grouping_by_person_and_camera_against_a_loop():
    rng = np.random.default_rng(1)
    pid, camid, frame = rng.integers(1, 5, 60), rng.integers(0, 3, 60), rng.integers(0, 9, 60)
    tracklets = by_person_and_camera(pid, camid, frame)
    groups = {}
    for row in sorted(range(60), key=lambda i: frame[i]):
        groups.setdefault((pid[row], camid[row]), []).append(row)
    expected = [groups[key] for key in sorted(groups)]
    assert np.split(tracklets.crop, tracklets.start[1:-1])[0].tolist() == expected[0]
    assert [c.tolist() for c in np.split(tracklets.crop, tracklets.start[1:-1])] == expected
    assert tracklets.camid.tolist() == [key[1] for key in sorted(groups)]
    assert (tracklets.frame == frame[tracklets.crop]).all()
    empty = by_person_and_camera(*np.zeros((3, 0), np.int64))
    assert len(empty) == empty.n_crops == 0
