"""Runs that were stopped, cut back, or made by another program: what is kept, what is said."""

import json
import shutil

import numpy as np
import pytest

from tracklearn.app.demo.table import _links
from tracklearn.app.pipeline import run as pipeline
from tracklearn.app.report import records
from tracklearn.app.report.of_run import report
from tracklearn.store.runs import Run, RunWriter

MANIFEST = {"digest": "d1", "method": "uga", "versions": {"torch": "1"}}


def begun(path, rounds):
    writer = RunWriter(path, MANIFEST)
    writer.write_start({"w": np.zeros(3, np.float32)}, {"architecture": "tiny"})
    for index in range(rounds):
        writer.write_round({"index": index}, np.zeros(3), {"fit": 1.0})
        writer.write_kept(index, {"to": np.arange(2)})
        writer.write_stage(index, "intra", {"w": np.ones(3, np.float32)}, {"architecture": "tiny"})
        writer.write_state({"x": np.ones(1)}, {"step": index})
    return writer


def test_what_belongs_to_rounds_that_are_done_again_goes(tmp_path):
    begun(tmp_path / "run", 2).write_round({"index": 2}, np.zeros(3), {"fit": 1.0})
    RunWriter(tmp_path / "run", MANIFEST, resume=True).write_kept(2, {"to": np.arange(2)})
    again = RunWriter(tmp_path / "run", MANIFEST, resume=True)
    again.read_state()
    run = Run(tmp_path / "run")
    assert len(run.rounds) == len(run.labels) == len(run.times) == 2
    assert list(run.kept()) == [0, 1]
    assert list(run.stages) == [(0, "intra"), (1, "intra")]
    for state in (tmp_path / "run").glob("state-*"):
        state.write_bytes(b"")
    assert again.read_state() is None
    assert run.rounds == run.times == []
    assert run.labels == []
    assert run.kept() == run.stages == {}


def test_a_finished_run_keeps_the_record_of_what_made_it(tmp_path):
    begun(tmp_path / "run", 1).finish([{"w": np.ones(3, np.float32)}], {"architecture": "tiny"}, seconds={})
    newer = {**MANIFEST, "versions": {"torch": "99"}, "labels_used": []}
    assert RunWriter(tmp_path / "run", newer, resume=True).finished
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["versions"] == {"torch": "1"}
    assert manifest["labels_used"] == []  # what an older program did not write is added


def test_a_report_before_the_first_round_says_how_to_go_on(tmp_path):
    begun(tmp_path / "run", 0)
    with pytest.raises(ValueError, match=r"has not come to its first round: go on with tracklearn train"):
        report(tmp_path / "run")


def test_links_that_cannot_be_counted_are_shown_as_none():
    lines = _links([{"round": 10, "precision": None, "recall": None}])
    assert "–" in lines[1]
    assert _links([]) == []


def test_judged_steps_without_a_row_of_their_own_give_no_column():
    rounds = [{"index": 3, "stage": "inter", "record": {"n_edges": 4.0, "linked": 0.5}}]
    section = records.table(rounds, [{"index": 0, "mAP": 0.5}])
    assert section["judged"] == []
    assert section["rows"] == [(3, "inter", ["4", "0.500"], [])]
    assert records.table([{"index": 0}], []) is None


@pytest.mark.parametrize("harm", ["list", "older", "gone", "cut"])
def test_a_gallery_that_cannot_be_used_is_made_again(done, sources, tmp_path, harm):
    work = tmp_path / "work"
    shutil.copytree(done["out"], work)
    folder = work / "run" / "gallery"
    want = {p.name: p.read_bytes() for p in folder.iterdir()}
    manifest = folder / "manifest.json"
    if harm == "list":
        manifest.write_text("[]")
    elif harm == "older":
        manifest.write_text(
            json.dumps({**json.loads(manifest.read_text()), "schema": "tracklearn.gallery/0"})
        )
    elif harm == "gone":
        next(folder.glob("features*")).unlink()
    else:
        file = next(folder.glob("entries*"))
        file.write_bytes(file.read_bytes()[:20])
    pipeline.run(sources, work, **done["arguments"], resume=True)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == want
