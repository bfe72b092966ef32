"""Searching a finished run: what is refused, what is left out and told, what filters leave."""

import json
import shutil

import pytest

import tracklearn as tl
from tracklearn.app.search.searcher import Searcher
from tracklearn.store.sets.tracklets import TrackletSet


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
    assert found.unreadable == [second.tracklet]
    assert found.save_sheet(tmp_path / "sheet.png").is_file()
    code, _, err = call("search", done["out"] / "run", "0", "-k", "4", "--sheet", "sheet.png")
    assert code == 0
    assert f"left out: the picture of tracklet {second.tracklet}, which" in err
    assert Searcher(done["out"] / "run").search(second.tracklet, k=4).picture is None


def test_results_of_one_camera_and_a_stretch_of_time(done, call):
    run = done["out"] / "run"
    camera = Searcher(run).gallery.cameras[1]

    def results(*options):
        code, out, err = call("search", run, "0", "-k", "99", "--json", "--sheet", "s.png", *options)
        return json.loads(out.splitlines()[-1])["results"] if code == 0 else err

    every = results()
    assert [r for r in every if r["camera"] == camera] == [
        r | {"rank": e["rank"]}
        for r, e in zip(results("--camera", camera), [r for r in every if r["camera"] == camera], strict=True)
    ]
    between = results("--since", "0:05", "--until", "8.5")
    assert {r["tracklet"] for r in between} == {
        r["tracklet"] for r in every if r["end"] >= 5 and r["start"] <= 8.5
    }
    assert 0 < len(between) < len(every)
    assert "no camera named 'none'" in results("--camera", "none")
    assert "'noon' is no time: expected H:MM:SS" in results("--since", "noon")
