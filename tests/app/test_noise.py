"""Noise from the command line: measured on trackers' files, put into sets, and what is refused."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tracklearn.app.noise import bars, simulate
from tracklearn.app.noise import measure as noise
from tracklearn.app.noise.simulate import Level, rearranged
from tracklearn.app.pipeline.training import labels_used
from tracklearn.core.simulate import OBSERVED, Simulated
from tracklearn.store.sets import referenced
from tracklearn.store.sets.tracklets import open_set, read_truth, truth_path
from tracklearn.types import NoiseRates, Tracklets

COMMAND = ["noise"]


def refused(result, *words):
    """Exit code 2, one line on standard error that holds these words, nothing on standard output."""
    code, out, err = result
    assert code == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    for word in words:
        assert word in err
    return True


def rows(path, *tracks):
    """Write a MOT file of (id, first frame, last frame, left) boxes of 10 x 20."""
    lines = [f"{f},{i},{x},0,10,20,1,-1,-1,-1" for i, a, b, x in tracks for f in range(a, b + 1)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def toy(tmp_path):
    """Two persons side by side for 20 frames; one tracklet on each, then one swap; and a false track."""
    truth = rows(tmp_path / "gt" / "A.txt", (1, 1, 20, 0), (2, 1, 20, 100))
    tracks = rows(
        tmp_path / "res" / "A.txt",
        (5, 1, 8, 0), (5, 11, 20, 100), (6, 1, 9, 100), (6, 10, 13, 0), (7, 3, 9, 500), (8, 14, 20, 0),
    )  # fmt: skip
    return tracks, truth


class TestMeasure:
    def test_hand_toy(self, toy):
        """Tracklet 5 holds both, 6 person 2 (four frames of the other do not count), 8 person 1, 7 nobody."""
        measured = noise.measure({"A": toy})
        assert measured.pooled.persons_per_tracklet == {1: 2, 2: 1}
        assert (measured.pooled.r_FM, measured.pooled.r_SW) == (2, pytest.approx(4 / 3))
        assert measured.pooled.matched == pytest.approx(38 / 45)
        assert measured.bars["A"].tolist() == [
            *([5, 0, 7, 1], [5, 10, 19, 2], [6, 0, 8, 2], [6, 9, 12, -1], [7, 2, 8, -1], [8, 13, 19, 1])
        ]
        assert noise.measure({"A": toy}, min_run=4).pooled.persons_per_tracklet == {1: 1, 2: 2}

    def test_every_other_frame_is_no_hole(self, tmp_path):
        file = tmp_path / "a.txt"
        file.write_text("\n".join(f"{f},1,0,0,10,20" for f in (1, 3, 5, 9, 11)))
        measured = noise.measure({"a": (file, file)}, min_run=1)
        assert measured.bars["a"].tolist() == [[1, 0, 5, 1], [1, 8, 11, 1]]

    def test_reference_figures(self, data, call):
        mot = data / "mot"
        tud = [
            part for name in ("Campus", "Stadtmitte") for part in ("--truth", mot / f"tud/TUD-{name}/gt.txt")
        ]
        for i, name in enumerate(("Campus", "Stadtmitte")):
            shutil.copy(mot / f"tud/TUD-{name}/test.txt", f"{i}.txt")
        code, out, _ = call("measure", "--tracks", "0.txt", "--tracks", "1.txt", *tud, "--json")
        assert code == 0
        found = {s["name"]: s for s in json.loads(out)["sequences"]}
        code, out, _ = call("measure", "--tracks", mot / "deepsort", "--truth", mot / "gt", "--json")
        assert code == 0
        result = json.loads(out)
        found |= {s["name"]: s for s in result["sequences"]}
        for name, r_fm, r_fm_all, r_sw, histogram in (
            ("MOT16-02", 2.596, 2.259, 1.284, {"1": 77, "2": 13, "3": 2, "4": 2, "5": 1}),
            ("MOT16-04", 1.581, 1.410, 1.219, {"1": 77, "2": 17, "3": 2}),
            ("MOT16-09", 1.750, 1.680, 1.235, {"1": 27, "2": 6, "3": 1}),
            ("TUD-Campus", 1.571, 1.375, 1.000, None),
            ("TUD-Stadtmitte", 1.667, 1.500, 1.364, None),
        ):
            got = found.pop(name)
            assert got["r_FM"] == pytest.approx(r_fm, abs=0.02)
            assert got["r_FM_all"] == pytest.approx(r_fm_all, abs=0.02)
            assert got["r_SW"] == pytest.approx(r_sw, abs=0.02)
            assert histogram in (None, got["persons_per_tracklet"])
        assert not found
        assert result["persons_per_tracklet"] == {"1": 181, "2": 36, "3": 5, "4": 2, "5": 1}
        assert result["n_tracklets"] == 225
        assert {"r_FM", "r_FM_all", "r_SW", "matched"} <= set(result)

    def test_table_picture_and_file(self, toy, call):
        tracks, truth = toy
        code, out, _ = call(
            "measure", "--tracks", tracks, "--truth", truth, "--out", "a.png", "--out", "a.json"
        )
        assert code == 0
        header, line, *written = out.splitlines()
        assert header.split()[:3] == ["sequence", "tracklets", "persons"]
        assert line.split() == ["A", "3", "2", "2.000", "2.000", "1.333", "84.4%", "2", "/", "1"]
        assert written == ["a.png", "a.json"]
        assert json.loads(Path("a.json").read_text())["persons_per_tracklet"] == {"1": 2, "2": 1}
        code, out, _ = call("measure", "--tracks", tracks.parent, "--truth", truth.parent, "--json")
        assert json.loads(out)["r_FM"] == 2
        refused(call("measure", "--tracks", tracks, "--truth", truth, "--out", "a.png"), "a.png exists")
        refused(call("measure", "--tracks", tracks, "--truth", truth, "--out", "a.gif"), ".png", ".json")
        refused(call("measure", "--tracks", tracks, "--truth", truth, "--out", "no/a.png"), "no such folder")

    def test_picture_shows_persons_nobody_and_holes(self, toy, tmp_path):
        path = noise.measure({"A": toy}).save(tmp_path / "a.png")
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            colours = {c for n, c in image.convert("RGB").getcolors(1 << 20) if n > 300}
        assert {(0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E), (0xD4, 0xD4, 0xD4)} <= colours

    def test_persons_of_one_tracklet_differ_in_colour(self):
        rng = np.random.default_rng(0)
        stretches = np.stack([rng.integers(0, 60, 200), rng.integers(0, 900, 200), np.zeros(200, int)], 1)
        stretches = np.c_[stretches, rng.integers(-1, 50, 200)]
        colour = bars.person_colours(stretches)
        assert set(colour) == set(stretches[stretches[:, 3] >= 0, 3])
        for track in np.unique(stretches[:, 0]):
            held = {p for p in stretches[stretches[:, 0] == track, 3] if p >= 0}
            assert len({colour[p] for p in held}) == len(held)
        crowd = np.c_[np.zeros(40, int), np.arange(40), np.arange(40), np.arange(40)]
        assert len(set(bars.person_colours(crowd).values())) == 18  # more persons than colours: they recur

    def test_colours_are_those_of_looking_through_every_tracklet(self):
        rng = np.random.default_rng(1)
        for _ in range(20):
            drawn = np.c_[rng.integers(0, 30, 80), rng.integers(0, 99, 80), np.zeros(80, int)]
            drawn = np.c_[drawn, rng.integers(-1, 40, 80)]
            held = [set(drawn[(drawn[:, 0] == t) & (drawn[:, 3] >= 0), 3].tolist()) for t in range(30)]
            named = drawn[drawn[:, 3] >= 0]
            expected, used = {}, [0] * 18
            for person in dict.fromkeys(named[np.argsort(named[:, 1], kind="stable"), 3].tolist()):
                taken = {expected.get(other) for mates in held if person in mates for other in mates}
                free = [c for c in range(18) if c not in taken] or range(18)
                expected[person] = min(free, key=used.__getitem__)
                used[expected[person]] += 1
            colour = bars.person_colours(drawn)
            assert colour == {person: bars._COLOURS[c] for person, c in expected.items()}

    def test_nobody_matched(self, tmp_path, call):
        rows(tmp_path / "t.txt", (1, 1, 9, 0))
        rows(tmp_path / "g.txt", (1, 1, 9, 500))
        code, out, _ = call(
            "measure", "--tracks", "t.txt", "--truth", "g.txt", "--out", "n.png", "--out", "n.json"
        )
        assert code == 0
        assert out.splitlines()[1].split() == ["g", "0", "0", "–", "–", "–", "0.0%"]
        assert json.loads(Path("n.json").read_text())["r_FM"] is None


class TestPair:
    def test_layouts(self, tmp_path):
        a, b = rows(tmp_path / "r/A.txt", (1, 1, 2, 0)), rows(tmp_path / "r/B.txt", (1, 1, 2, 0))
        ga, gb = rows(tmp_path / "g/A/gt/gt.txt", (1, 1, 2, 0)), rows(tmp_path / "g/B/gt.txt", (1, 1, 2, 0))
        expected = {"A": (a, ga), "B": (b, gb)}
        assert noise.pair([tmp_path / "r"], [tmp_path / "g"]) == expected
        assert noise.pair([b, a], [tmp_path / "g"]) == expected
        assert noise.pair([a, b], [gb, ga]) == expected  # by name, not by place
        other = rows(tmp_path / "r2/x.txt", (1, 1, 2, 0)), rows(tmp_path / "r2/y.txt", (1, 1, 2, 0))
        assert noise.pair(other, [gb, ga]) == {"B": (other[0], gb), "A": (other[1], ga)}  # no name is shared

    def test_films_with_their_truth_and_tracks_in_one_folder(self, tmp_path):
        a, b, ga, gb = (
            rows(tmp_path / f"all/{name}.txt", (1, 1, 2, 0)) for name in ("A", "B", "A.gt", "B.gt")
        )
        expected = {"A": (a, ga), "B": (b, gb)}
        assert noise.pair([tmp_path / "all"], [tmp_path / "all"]) == expected
        assert noise.pair([a, b], [gb, ga]) == expected
        c, gc = rows(tmp_path / "r/C.txt", (1, 1, 2, 0)), rows(tmp_path / "g/C/gt/gt.txt", (1, 1, 2, 0))
        d, gd = rows(tmp_path / "r/D.txt", (1, 1, 2, 0)), rows(tmp_path / "g/D.txt", (1, 1, 2, 0))
        assert noise.pair([tmp_path / "r"], [tmp_path / "g"]) == {"C": (c, gc), "D": (d, gd)}

    def test_refusals(self, tmp_path, toy, call):
        tracks, truth = toy
        b = rows(tmp_path / "res" / "B.txt", (1, 1, 2, 0))
        refused(call("measure", "--tracks", "res", "--truth", "gt"), "no ground truth (--truth) for B")
        refused(call("measure", "--tracks", tracks, "--truth", "res"), "no tracker's file (--tracks) for B")
        refused(
            call("measure", "--tracks", b, "--tracks", tracks, "--truth", truth), "no ground truth", "for B"
        )
        refused(call("measure", "--tracks", tracks, "--tracks", tracks, "--truth", truth), "A 2 times")
        refused(call("measure", "--tracks", "none.txt", "--truth", truth), "no such file or folder: none.txt")
        (tmp_path / "empty").mkdir()
        refused(call("measure", "--tracks", "empty", "--truth", truth), "no .txt file in empty")
        late = rows(tmp_path / "late.txt", (1, 100, 120, 0))
        refused(call("measure", "--tracks", late, "--truth", truth), "no frame in common")
        rows(tmp_path / "det.txt", (-1, 1, 9, 0))
        refused(call("measure", "--tracks", "det.txt", "--truth", truth), "det.txt has boxes without a track")
        (tmp_path / "bad.txt").write_text("1,1,2,x,5,6\n")
        refused(call("measure", "--tracks", "bad.txt", "--truth", truth), "bad.txt line 1", "'x'")
        refused(call("measure", "--tracks", tracks, "--truth", truth, "--min-iou", "2"), "min_iou is 2")


CAMERAS = ("door", "yard")


@pytest.fixture
def clean(tmp_path):
    """A set of 8 persons in 2 cameras, 24 crops each in two tracklets that count frames anew; 6 of nobody."""
    person = np.repeat(np.arange(16), 24)
    tracklet = np.r_[np.repeat(np.arange(32), 12), np.full(6, 32)]
    n = len(tracklet)
    tracklets = Tracklets(
        tracklet=tracklet,
        frame=np.r_[np.tile(np.arange(12), 32), np.arange(50, 56)],
        time=np.arange(n) / 25,
        box=np.tile([0, 0, 64, 128], (n, 1)),
        score=np.ones(n),
        crop=np.arange(n),
        camid=np.r_[np.repeat([0, 1], 16), 1],
        source=np.arange(33),
    )
    return referenced.write(
        tmp_path / "clean",
        tracklets=tracklets,
        paths=[f"{i:04d}.jpg" for i in range(n)],
        root=tmp_path,
        cameras=CAMERAS,
        pid=np.r_[person % 8, [-1] * 6],
        settings={"benchmark": "toy"},
        check="none",
    )


class TestSimulate:
    def test_the_set_that_is_written(self, clean, call):
        args = ("simulate", "clean", "--fragmentation", "2.5", "--switch", "1.25", "--seed", "3")
        code, out, _ = call(*args, "--out", "noisy", "--json")
        assert code == 0
        result = json.loads(out)
        base, opened = open_set("clean"), open_set("noisy")
        asked = {"r_FM": 2.5, "r_SW": 1.25, "min_segment": 2}
        asked["persons_per_tracklet"] = {str(k): v for k, v in OBSERVED.items()}
        record = opened.manifest["settings"]["noise"]
        assert opened.manifest["settings"]["benchmark"] == "toy"
        assert (record["seed"], record["asked"], record["base"]) == (3, asked, base.digest)
        assert record["achieved"]["r_FM"] == 2.5
        assert record["achieved"]["r_SW"] == 1.25
        assert {key: result[key] for key in record} == record
        assert (result["set"], result["n_tracklets"], result["n_crops"]) == ("noisy", 33, 390)

        # Every picture once, with its person and camera; 32 new tracklets, and the one of nobody as it was.
        old, new = base.tracklets, opened.tracklets
        path = opened.place["path"].to_pylist()
        at = np.array([int(p[:4]) for p in path])
        assert sorted(at) == list(range(390))
        pid = read_truth("noisy").pid
        np.testing.assert_array_equal(pid, read_truth("clean").pid[at])
        np.testing.assert_array_equal(new.camid[new.tracklet], old.camid[old.tracklet[at]])
        made = new.tracklet < 32
        np.testing.assert_allclose(new.time[made], 0.04 * new.frame[made])  # shows no joint
        np.testing.assert_array_equal(new.time[~made], old.time[at][~made])
        assert at[new.tracklet == 32].tolist() == list(range(384, 390))
        assert new.frame[new.tracklet == 32].tolist() == list(range(50, 56))
        pairs = {(t, p) for t, p in zip(new.tracklet, pid, strict=True) if p >= 0}
        assert len(pairs) == 40
        for t, p in pairs:
            mine = at[(new.tracklet == t) & (pid == p)]
            assert (np.diff(mine) == 1).all()  # one stretch, in order of time across the old tracklets
            assert new.frame[new.tracklet == t].tolist() == list(range(np.count_nonzero(new.tracklet == t)))

    @pytest.mark.parametrize(("benchmark", "then"), [("toy", [0, 1, 2]), ("world", [2, 0, 1])])
    def test_order_of_tracklets_whose_first_image_is_missing(self, tmp_path, benchmark, then):
        """Frames that begin anew in every tracklet do not put the second one before the first."""
        tracklets = Tracklets(
            tracklet=[0, 0, 1],
            frame=[1, 2, 0],
            time=np.zeros(3),
            box=np.tile([0, 0, 64, 128], (3, 1)),
            score=np.ones(3),
            crop=[0, 1, 2],
            camid=[0, 0],
            source=[0, 1],
        )
        referenced.write(
            tmp_path / "few",
            tracklets=tracklets,
            paths=["0.jpg", "1.jpg", "2.jpg"],
            root=tmp_path,
            cameras=["c1"],
            pid=np.ones(3, int),
            settings={"benchmark": benchmark},
            check="none",
        )
        simulate.simulate(tmp_path / "few", tmp_path / "made", simulate.level(fragmentation=1, switch=1))
        assert open_set(tmp_path / "made").place["path"].to_pylist() == [f"{i}.jpg" for i in then]

    def test_rates_of_one_make_one_tracklet_per_person_and_camera_and_say_so(self, clean, call):
        """What UGA's published results assume of labelled benchmarks."""
        assert labels_used(open_set("clean")) == []
        for rates in ((1, 1), (2.5, 1.25)):
            args = ("--fragmentation", rates[0], "--switch", rates[1], "--out", f"made{rates[0]}")
            assert call("simulate", "clean", *args)[0] == 0
        made = open_set("made1").tracklets
        pid = read_truth("made1").pid
        known = pid >= 0
        pairs = np.unique(np.stack([pid, made.camid[made.tracklet], made.tracklet])[:, known], axis=1)
        assert len(np.unique(pairs[:2], axis=1).T) == len(pairs.T) == len(np.unique(pairs[2]))
        assert labels_used(open_set("made1")) == [
            "tracklets were made with labels: one for each person and camera"
        ]
        assert labels_used(open_set("made2.5")) == [
            "tracklets were made with labels: noise at r_FM 2.5, r_SW 1.25"
        ]

    def test_seed(self, clean, call):
        digests = []
        for i, seed in enumerate((0, 0, 1)):
            args = ("--fragmentation", "2", "--switch", "1.2", "--seed", seed, "--out", f"out{i}")
            assert call("simulate", "clean", *args)[0] == 0
            digests.append(open_set(f"out{i}").digest)
        assert digests[0] == digests[1] != digests[2]

    def test_text_tells_the_rates(self, clean, call):
        code, out, _ = call("simulate", "clean", "--preset", "MARS_1.7_1.2", "--out", "noisy")
        assert code == 0
        first, last = out.splitlines()
        assert "16 persons" in first
        assert "r_FM 1.688 (asked 1.7), r_SW 1.174 (asked 1.2)" in first
        assert last == "noisy"

    def test_like_a_measurement(self, clean, toy, call, tmp_path):
        tracks, truth = toy
        assert call("measure", "--tracks", tracks, "--truth", truth, "--out", "like.json")[0] == 0
        code, out, _ = call("simulate", "clean", "--like", "like.json", "--out", "noisy", "--json")
        assert code == 0
        assert json.loads(out)["asked"]["persons_per_tracklet"] == {"1": 2, "2": 1}
        assert json.loads(out)["asked"]["r_FM"] == 2
        assert set(json.loads(out)["achieved"]["persons_per_tracklet"]) == {"1", "2"}
        code, out, _ = call(
            "simulate", "clean", "--like", "like.json", "--switch", "1", "--out", "n2", "--json"
        )
        assert json.loads(out)["achieved"]["r_SW"] == 1
        wanted = simulate.level(preset="MARS_2.5_1.5", like=tmp_path / "like.json")
        assert (wanted.r_FM, wanted.r_SW, wanted.histogram) == (2.5, 1.5, {1: 2, 2: 1})

    def test_market_may_be_cut_into_single_images(self, clean, tmp_path):
        base = open_set(clean)
        market = referenced.regroup(
            base, base.tracklets, tmp_path / "m", settings={"benchmark": "market1501"}
        )
        level = Level(20, 1.5)
        assert simulate.simulate(market, tmp_path / "out", level)["achieved"]["r_FM"] == 20
        with pytest.raises(ValueError, match="r_FM 20 cannot be reached: at most 12,"):
            simulate.simulate(market, tmp_path / "out2", level, min_segment=2)
        with pytest.raises(ValueError, match="r_FM 20 cannot be reached"):
            simulate.simulate(clean, tmp_path / "out2", level)

    def test_refusals(self, clean, call, tmp_path):
        rates = ("--fragmentation", "2", "--switch", "1.2")

        def simulate(*args, out="new"):
            return call("simulate", *args, "--out", out)

        refused(simulate("none", *rates), "no such tracklet set: none")
        refused(simulate("clean", *rates, out="clean"), "clean exists")
        refused(simulate("clean"), "no noise level")
        refused(simulate("clean", "--switch", "1.2"), "no noise level")
        refused(simulate("clean", "--preset", "MARS", *rates), "--preset names both rates")
        refused(simulate("clean", "--preset", "MARS"), 'no preset "MARS"', "MARS_2.5_1.5")
        refused(simulate("clean", "--fragmentation", "13", "--switch", "1"), "r_FM 13", "at most 12")
        refused(simulate("clean", "--fragmentation", "2", "--switch", "4"), "r_SW 4", "at most 2.666")
        refused(simulate("clean", "--like", "none.json"), "no such file: none.json")
        for text in (
            "[1]",
            '{"r_FM": null, "r_SW": 1, "persons_per_tracklet": {}}',
            '{"r_FM": 2, "r_SW": 1}',
            '{"r_FM": 2, "r_SW": 1, "persons_per_tracklet": {"1": 1e999}}',
        ):
            (tmp_path / "bad.json").write_text(text)
            refused(simulate("clean", "--like", "bad.json"), "bad.json holds no measured noise")
        (tmp_path / "bad.json").write_text("no json")
        refused(simulate("clean", "--like", "bad.json"), "bad.json", "not JSON")
        truth_path(clean).unlink()
        refused(simulate("clean", *rates), "no ground truth for clean", "clean.truth.parquet")
        assert not (tmp_path / "new").exists()


def test_rearranged_keeps_the_rows_of_nobody_together():
    """Rows of tracklets 0 and 2 that are nobody's stay two tracklets, behind the new one."""
    tracklets = Tracklets(
        tracklet=np.array([0, 0, 1, 2, 2]),
        frame=np.array([7, 8, 3, 0, 4]),
        time=np.array([50.0, 50.5, 20, 0, 0.5]),
        box=np.arange(20.0).reshape(5, 4),
        score=np.ones(5),
        crop=np.array([4, 3, 2, 1, 0]),
        camid=np.array([0, 0, 1]),
        source=np.arange(3),
    )
    rates = NoiseRates(1, 1, 1, {1: 1}, 1, 1, 1)
    made = Simulated(np.array([-1, 0, 0, -1, -1]), np.array([-1, 1, 0, -1, -1]), np.array([0]), rates)
    new = rearranged(tracklets, made)
    assert new.tracklet.tolist() == [0, 0, 1, 2, 2]
    assert new.frame.tolist() == [0, 1, 7, 0, 4]
    assert new.crop.tolist() == [2, 3, 4, 1, 0]
    assert new.time.tolist() == [0, 0.5, 50, 0, 0.5]
    assert new.camid.tolist() == [0, 0, 1]
    assert (new.box == new.box[0]).all()  # places would show where segments were joined


@pytest.mark.parametrize("command", ["measure", "simulate"])
def test_help(call, command):
    code, out, _ = call(command, "--help")
    assert code == 0
    assert "--json" in out
    assert "--out" in out
