"""Searching a finished run: what is refused, what is left out and told, what filters leave."""

import json
import shutil
from datetime import datetime, timedelta

import numpy as np
import pytest

import tracklearn as tl
from tracklearn.app.report.of_run import example_searches
from tracklearn.app.search.searcher import Searcher
from tracklearn.store.gallery import folder as gallery
from tracklearn.store.runs import Run
from tracklearn.store.sets.tracklets import TrackletSet
from tracklearn.types import Tracklets


def test_a_search_in_another_set_is_refused(done, sources, tmp_path):
    shutil.copytree(done["out"], tmp_path / "work")
    assert Searcher(tmp_path / "work" / "run").search(0).pictures[0] is not None
    shutil.rmtree(tmp_path / "work" / "set")
    tl.ingest(sources[:1], tmp_path / "work" / "set")
    with pytest.raises(
        ValueError, match=r"is not the set that \S+gallery was made from: put that back, or make"
    ):
        Searcher(tmp_path / "work" / "run").search(0)


def test_a_picture_that_cannot_be_read_leaves_its_row_in_the_results(done, monkeypatch, tmp_path, call):
    searcher = Searcher(done["out"] / "run")
    want = searcher.search(0, k=4)
    second = want.hits[1]
    image = TrackletSet.image

    def broken(self, row):
        if row == second.crop:
            raise ValueError("crop cannot be decoded")
        return image(self, row)

    monkeypatch.setattr(TrackletSet, "image", broken)
    found = Searcher(done["out"] / "run").search(0, k=4)
    assert found.rows() == want.rows()
    assert found.unreadable == [second.name]
    assert found.save_sheet(tmp_path / "sheet.png").is_file()
    code, _, err = call("search", done["out"] / "run", "0", "-k", "4", "--sheet", "sheet.png")
    assert code == 0
    assert f"left out: the picture of track {second.name}, which" in err
    assert Searcher(done["out"] / "run").search(second.name, k=4).picture is None


def test_results_of_one_camera_and_a_stretch_of_time(done, call):
    run = done["out"] / "run"
    camera = Searcher(run).gallery.cameras[1]

    def results(*options):
        code, out, err = call("search", run, "0", "-k", "99", "--json", "--sheet", "s.png", *options)
        return json.loads(out.splitlines()[-1])["results"] if code == 0 else err

    every = results()
    assert {r["at"] for r in every} == {None}  # nobody said when the films began
    assert [r for r in every if r["camera"] == camera] == [
        r | {"rank": e["rank"]}
        for r, e in zip(results("--camera", camera), [r for r in every if r["camera"] == camera], strict=True)
    ]
    between, parts = results("--parts", "--since", "0:05", "--until", "8.5"), results("--parts")
    assert [(r["track"], r["part"]) for r in between] == [
        (r["track"], r["part"]) for r in parts if r["end"] >= 5 and r["start"] <= 8.5
    ]
    assert 0 < len(between) < len(parts)
    assert "no camera named 'none'" in results("--camera", "none")
    assert "'noon' is no time: expected H:MM:SS" in results("--since", "noon")


@pytest.fixture
def cut(done, tmp_path):
    """A copy of the run, its gallery of made-up features: tracks 0-2 in parts 1, 2 and 3, in this order."""
    shutil.copytree(done["out"], tmp_path / "cut")
    run = tmp_path / "cut" / "run"
    made = gallery.FolderGallery(run / "gallery")
    n, track = 6, np.array([0, 1, 1, 2, 2, 2])
    frame = np.arange(2 * n)
    box = np.tile([0.0, 0, 9, 9], (2 * n, 1))
    tracklets = Tracklets(
        np.repeat(np.arange(n), 2), frame, frame / 5.0, box, np.ones(2 * n), frame, np.zeros(n), track
    )
    angle = np.array([0.0, 0.5, 0.1, 0.4, 0.3, 0.2])
    features = np.zeros((n, made.width), np.float32)
    features[:, 0], features[:, 1] = np.cos(angle), np.sin(angle)
    origin = made.manifest["origin"]
    gallery.build(run / "gallery", features, tracklets, made.cameras, manifest=origin, replace=True)
    return run


def test_a_search_shows_each_track_once_by_its_nearest_part(cut, call):
    searcher = Searcher(cut)

    def names(*args, **options):
        return [hit.name for hit in searcher.search(*args, **options).hits]

    assert names(0) == ["1.2", "2.3"]
    assert names("0", k=1) == ["1.2"]
    assert names(0, parts=True) == ["1.2", "2.3", "2.2", "2.1", "1.1"]
    assert names(0, k=2, parts=True) == ["1.2", "2.3"]
    assert names(1) == ["2.1", "0"]  # by the first of its parts that are equally long, without any of them
    assert names("1.1") == ["2.1", "1.2", "0"]  # the other part is another result
    assert names("1.2", parts=True, k=3) == ["0", "2.3", "2.2"]
    assert names(0, since=2.1) == ["2.3"]
    found = searcher.search("1.1")
    assert found.query == "part 1.1"
    rows = [line.split() for line in found.table().splitlines()]
    assert rows[0] == ["rank", "distance", "camera", "track", "part", "time", "in", "film"]
    assert rows[1][3:5] == ["2", "1"]
    assert [(r["track"], r["part"], r["n_parts"]) for r in found.rows()] == [(2, 1, 3), (1, 2, 2), (0, 1, 1)]
    code, out, _ = call("search", cut, "0", "--parts", "--json", "--sheet", "s.png")
    assert code == 0
    assert [r["track"] for r in json.loads(out)["results"]] == [1, 2, 2, 2, 1]


def test_a_report_searches_in_other_tracks_and_shows_each_once(cut):
    searches = example_searches(Run(cut), n=2)["searches"]
    track = np.repeat([0, 1, 1, 2, 2, 2], 2)  # of each crop
    shown = [(track[s.query], track[list(s.results)].tolist()) for s in searches]
    assert shown == [(0, [1, 2]), (2, [1, 0])]
    assert [s.query_caption.splitlines()[0] for s in searches] == ["#0", "#2.1"]
    assert [[c.splitlines()[0] for c in s.captions] for s in searches] == [["#1.2", "#2.3"], ["#1.1", "#0"]]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("3", "the gallery has no track 3: its tracks are 0 to 2, but for those that were dropped"),
        ("2.4", r"track 2 has no part 4: its parts are 2\.1 to 2\.3"),
        ("0.2", r"track 0 has no part 2: its parts are 0\.1, the whole track"),
        ("9" * 5000, "the gallery has no track 9"),
    ],
)
def test_numbers_that_nobody_has_are_refused(cut, query, message):
    with pytest.raises(ValueError, match=message):
        Searcher(cut).search(query)


def test_results_tell_the_time_on_the_wall_where_a_film_says_when_it_began(done, sources, tmp_path, call):
    camera = sources[0].partition("=")[0]
    began = datetime.fromisoformat("2026-05-01T08:00:00+02:00")
    shutil.copytree(done["out"] / "run", tmp_path / "run")
    other = tl.ingest(sources[:1], tmp_path / "other", start={camera: began})
    found = tl.index(tmp_path / "run", other, device="cpu", resume=True).search(0, k=2)
    for hit in found.hits:
        assert hit.at == began + timedelta(seconds=hit.start)
    head, first, *_ = found.table().splitlines()
    assert head.endswith("clock time")
    assert "part" not in head  # the run was trained on another set: these tracks are whole
    assert first.endswith(f"{found.hits[0].at:%Y-%m-%d %H:%M:%S}")
    code, out, _ = call("search", "run", "0", "-k", "1", "--json", "--sheet", "s.png")
    at = json.loads(out)["results"][0]["at"]
    assert code == 0
    assert at.endswith("+02:00")
    assert abs(datetime.fromisoformat(at) - found.hits[0].at) < timedelta(milliseconds=1)
