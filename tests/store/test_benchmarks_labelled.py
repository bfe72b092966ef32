"""Labelled folders of one's own: names as in Market-1501, and tables."""

import gzip

import pytest
from tests.store.benchmark_folders import MARKET, images_of, make_market, perfect_features, score, touch

from tracklearn.store import benchmarks
from tracklearn.store.benchmarks.labelled import _parse
from tracklearn.store.benchmarks.stills import Still
from tracklearn.store.picture.listing import OVERLONG
from tracklearn.store.sets.tracklets import open_set, read_truth

# Names


@pytest.mark.parametrize(
    ("name", "pid", "cam"),
    [
        ("0002_c1s1_000100_01.jpg", 2, 1),
        ("0002_c12_f0046182.jpg", 2, 12),
        ("12_c3.png", 12, 3),
        ("12_C3-b.png", 12, 3),
        ("0001_2_x.jpg", 1, 2),
        ("-1_c1s1_000005_01.jpg", -1, 1),
    ],
)
def test_names_that_say_who_and_where(name, pid, cam):
    found = _parse(name)
    assert isinstance(found, Still)
    assert (found.pid, found.cam) == (pid, cam)


@pytest.mark.parametrize(
    "name", ["0001_000151.jpg", "person_c1.jpg", "0001-c1.jpg", "0001_c1x.jpg", "0001.jpg", "x0001_c1_0.jpg"]
)
def test_names_that_do_not(name):
    assert _parse(name) == "the name does not begin with PPPP_cC or PPPP_C_"
    assert _parse(f"{'9' * 30}_c1_0.jpg") == _parse("1_c10000_0.jpg") == OVERLONG


def test_a_folder_with_market_names_and_other_numbers_of_images(tmp_path):
    root = make_market(tmp_path / "lab")
    own, market = benchmarks.read("folder", root), benchmarks.read("market1501", root)
    assert (own.name, own.title, own.root) == ("folder", "lab", root)
    assert own.published == {}
    assert benchmarks.check(own).complete
    assert not benchmarks.check(market).usable  # of another size than the published one
    for mine, theirs in ((own.train, market.train), (own.test, market.test)):
        assert images_of(mine) == images_of(theirs)
        assert mine.camid.tolist() == theirs.camid.tolist()
        assert mine.cameras == theirs.cameras
    assert own.skipped == market.skipped
    assert own.protocols == ("official",)
    assert score(own, perfect_features(own)).to_dict() == score(market, perfect_features(market)).to_dict()


@pytest.mark.parametrize(
    ("gallery", "train"), [("gallery", "train"), ("test", ""), ("bounding_box_test", "")]
)
def test_the_usual_names_of_the_folders(tmp_path, gallery, train):
    names = {"query": ["1_c1_2.jpg"], gallery: ["1_c2_1.jpg", "1_c2_10.jpg", "2_c1_1.jpg"]}
    if train:
        names[train] = ["5_1_10.jpg", "5_1_9.jpg", "notes.jpg"]
    own = benchmarks.read("folder", make_market(tmp_path / "lab", names))
    assert own.test.pid.tolist() == [1, 1, 1, 2]
    assert own.query_row.tolist() == [-1]
    assert own.missing == ()
    if train:  # in the order of the numbers that follow, 9 before 10
        assert images_of(own.train)[0] == [["train/5_1_9.jpg", "train/5_1_10.jpg"]]
        assert own.skipped[0]["n"] == 1
        opened = open_set(own.write_train(tmp_path / "set"))
        assert read_truth(opened.path).pid.tolist() == [5, 5]
        assert opened.manifest["settings"]["benchmark"] == "folder"
        assert opened.manifest["sources"][0]["labels_used"] is True
    else:
        with pytest.raises(ValueError, match=r"lab in .* has no training part"):
            own.write_train(tmp_path / "set")


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"query": ["1_c1_0.jpg"]}, "there is no gallery .nor bounding_box_test, nor test"),
        ({"gallery": ["1_c1_0.jpg"]}, "there is no query"),
        (
            {"query": ["1_c1_0.jpg"], "gallery": ["1_c2_0.jpg"], "test": ["1_c2_0.jpg"]},
            "both gallery and test",
        ),
        (
            {"query": ["1_c1_0.jpg"], "gallery": ["anna.jpg"]},
            "gallery holds none of its images .gallery: the name does not begin with PPPP_cC",
        ),
        ({"query": ["1_c1_0.jpg"], "gallery": ["1_c1_1.jpg", "2_c2_1.jpg"]}, "of no query .* another camera"),
    ],
)
def test_folders_that_are_refused(tmp_path, layout, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        benchmarks.read("folder", make_market(tmp_path / "lab", layout))


# Tables

ROWS = [
    "Path, Person ,camera,role,remark",
    "a/anna 1.jpg,Anna,hall,query,",
    "a/anna2.jpg,Anna,Garage,gallery,",
    "",
    "b/bob1.jpg,Bob,cam10,gallery,",
    "b/./bob2.jpg,Bob,cam9,query,",
    "c/nobody.jpg,,hall,gallery,",
    "c/junk.jpg,-1,hall,gallery,",
    "c/blurred.jpg,Anna,hall,ignored,",
    "d/eve1.jpg,Eve,hall,train,",
    "d/eve2.jpg,Eve,hall,Train,",
    'd/carl.jpg,"Carl, junior",cam9,train,',
    "d/who.jpg,,cam9,train,",
]
NAMES = [row.split(",")[0] for row in ROWS[1:] if row]


def make_table(root, rows=ROWS, name="people.csv", names=NAMES):
    touch(root, names)
    (root / name).write_text("\n".join(rows) + "\n")
    return root


def test_a_table_of_images_and_persons(tmp_path):
    own = benchmarks.read("folder", make_table(tmp_path / "lab"))
    assert (own.title, own.root) == ("lab", tmp_path / "lab")
    paths, pid = images_of(own.test)
    flat = [path for (path,) in paths]
    assert flat == ["a/anna 1.jpg", "b/bob2.jpg", "a/anna2.jpg", "b/bob1.jpg", "c/nobody.jpg"]
    anna, bob, *_ = [own for (own,) in pid]
    assert [own for (own,) in pid] == [anna, bob, anna, bob, 0]
    assert len({anna, bob, 0}) == 3
    assert min(anna, bob) > 0
    assert own.query.tolist() == [0, 1]
    assert own.gallery.tolist() == [2, 3, 4]
    assert own.test.cameras == ("Garage", "cam9", "cam10", "hall")  # in natural order
    assert [own.test.cameras[i] for i in own.test.camid] == ["hall", "cam9", "Garage", "cam10", "hall"]
    names = [own.train.images.paths.to_pylist()[row] for row in own.train.tracklets.crop]
    assert sorted(names) == ["d/carl.jpg", "d/eve1.jpg", "d/eve2.jpg"]
    assert sorted(own.train.tracklets.length.tolist()) == [1, 2]
    assert {(entry["reason"], entry["n"]) for entry in own.skipped} == {
        ("role ignored", 1),
        ("junk, person −1", 1),
        ("train: no person", 1),
    }
    assert benchmarks.check(own).complete
    scores = score(own, perfect_features(own))
    assert (scores.mAP, scores.n_valid, scores.n_skipped) == (1.0, 2, 0)
    opened = open_set(own.write_train(tmp_path / "set"))
    assert opened.n_crops == 3


def test_a_person_has_one_number_whatever_else_the_table_holds(tmp_path):
    own = benchmarks.read("folder", make_table(tmp_path / "lab"))
    more = make_table(tmp_path / "more", [ROWS[0], "a/anna2.jpg,Aaron,x,gallery,", *ROWS[1:2], *ROWS[4:]])
    touch(more, ["x.jpg"])
    with (more / "people.csv").open("a") as file:
        file.write("x.jpg,Anna,yard,gallery,\n")
    again = benchmarks.read("folder", more)
    assert again.test.pid[again.query].tolist() == own.test.pid[own.query].tolist()
    assert own.listing() != again.listing()
    assert own.listing() == benchmarks.read("folder", tmp_path / "lab").listing()


@pytest.mark.parametrize("form", ["semicolons", "gzip", "utf-16", "latin", "alone"])
def test_tables_as_programs_write_them(tmp_path, form):
    root = make_table(tmp_path / "lab")
    text = "\r\n".join(ROWS)
    (root / "people.csv").unlink()
    file = root / "list.csv"
    if form == "semicolons":
        file.write_text(text.replace('"Carl, junior"', "Carl").replace(",", ";"), encoding="utf-8-sig")
    elif form == "gzip":
        file = root / "list.csv.gz"
        file.write_bytes(gzip.compress(text.encode()))
    elif form == "utf-16":
        file.write_text(text, encoding="utf-16")
    elif form == "latin":
        file.write_bytes(text.replace("Eve", "Zoé").encode("latin-1"))
        with pytest.raises(ValueError, match=r"list.csv, line 10: not UTF-8: save the table as UTF-8"):
            benchmarks.read("folder", root)
        return
    else:
        file.write_text(text)
        (root / "other.csv").write_text("unrelated\n")
        with pytest.raises(ValueError, match=r"holds 2 tables, list.csv and other.csv .*--root .*list.csv"):
            benchmarks.read("folder", root)
    own = benchmarks.read("folder", file)
    assert own.title == file.name
    assert (own.counts["query"], own.counts["gallery"], own.counts["train_images"]) == (2, 3, 3)
    assert own.train.image(0).shape == (16, 8, 3)


def test_without_roles_every_image_is_searched_for_among_the_others(tmp_path):
    rows = [
        "path,person,camera",
        "1.jpg,A,x",
        "2.jpg,A,y",
        "3.jpg,A,y",
        "4.jpg,B,x",
        "5.jpg,,x",
        "6.jpg,-1,x",
    ]
    own = benchmarks.read("folder", make_table(tmp_path, rows, names=[f"{i}.jpg" for i in range(1, 7)]))
    assert own.query.tolist() == [0, 1, 2, 3]
    assert own.gallery.tolist() == [0, 1, 2, 3, 4]
    assert own.query_row.tolist() == [0, 1, 2, 3]
    assert "people.csv gives no roles: every image with a person is searched for" in own.notes[0]
    scores = score(own, perfect_features(own))
    assert (scores.mAP, scores.n_valid, scores.n_skipped) == (1.0, 3, 1)
    assert "official" in scores.protocol


def test_images_that_a_table_names_and_the_folder_lacks(tmp_path):
    root = make_table(tmp_path / "lab")
    (root / "b" / "bob1.jpg").unlink()
    (root / "d" / "eve2.jpg").unlink()
    own = benchmarks.read("folder", root)
    report = benchmarks.check(own)
    assert not report.usable  # one of five: of one's own table nothing may be missing
    assert report.problems == [
        f"train images: 1 of 3 are missing, the first is {root}/d/eve2.jpg (people.csv line 11)",
        f"test images: 1 of 5 are missing, the first is {root}/b/bob1.jpg (people.csv line 5)",
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "is empty: expected a header"),
        (["path,person,role"], "line 1: no column camera; the header names path, person, camera"),
        (["path,person,camera,person"], "line 1: two columns are called person"),
        ([ROWS[0]], "names no image"),
        ([ROWS[0], "a.jpg,A,x,query"], "line 2: 4 fields, expected 5"),
        (
            [ROWS[0], "", "a.jpg,A,x,asked,"],
            "line 3: the role is 'asked', expected one of query, gallery, train",
        ),
        ([ROWS[0], "a.jpg,A,x,,"], "line 2: the role is '', expected"),
        ([ROWS[0], ",A,x,query,"], "line 2: there is no path"),
        ([ROWS[0], "/a.jpg,A,x,query,"], "line 2: '/a.jpg' is an absolute path"),
        ([ROWS[0], "C:\\a.jpg,A,x,query,"], "line 2: .* is an absolute path"),
        ([ROWS[0], "b/../../a.jpg,A,x,query,"], "line 2: .* leads out of the folder"),
        ([ROWS[0], "a.jpg,A,,query,"], "line 2: there is no camera"),
        ([ROWS[0], "a.jpg,,x,query,"], "line 2: a query needs a person"),
        ([ROWS[0], "a.jpg,A,x,query,", "./a.jpg,A,y,gallery,"], "line 3: a.jpg is in line 2 already"),
        ([ROWS[0], "a.jpg,A,x,query,", "b.jpg,A,y,train,"], "no image has the role gallery"),
        ([ROWS[0], "b.jpg,A,y,gallery,"], "no image has the role query"),
        ([ROWS[0], "a.jpg,A,x,query,", "b.jpg,A,x,gallery,"], "of no query .* from another camera"),
        ([ROWS[0], 'a.jpg,"A,x,query,', "b.jpg,A,y,gallery,"], "line 3: not a row of a table"),
        (["path,person,camera", "a.jpg,,x", "b.jpg,,y"], "of no query .* from another camera"),
    ],
)
def test_tables_that_are_refused(tmp_path, rows, message):
    make_table(tmp_path, rows, names=["a.jpg", "b.jpg"])
    with pytest.raises(ValueError, match=rf"people\.csv.*{message}") as caught:
        benchmarks.read("folder", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_table_counts_whatever_else_is_in_the_folder(tmp_path):
    root = make_market(tmp_path / "lab", {name: MARKET[name] for name in ("query", "bounding_box_test")})
    rows = ["path,person,camera", "query/0001_c1s1_000001_00.jpg,x,1", "query/0003_c1s1_000001_00.jpg,x,2"]
    make_table(root, rows, names=[])
    assert len(benchmarks.read("folder", root).test.tracklets) == 2
