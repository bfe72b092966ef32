"""The benchmark of detectors: its counts by hand, on a film whose detections are written down."""

import json

import numpy as np
import pytest

from benchmarks import detectors as module
from tracklearn.store.film.mot import read_truth
from tracklearn.store.film.video_writer import VideoWriter


def test_kept_are_high_boxes_of_long_tracks():
    rows = [(i, 0, 0, 0, 10, 30) for i in range(6)] + [(i, 1, 0, 0, 10, 30) for i in range(5)]
    rows += [(i, 2, 0, 0, 10, 20) for i in range(9)]
    assert np.unique(module.kept(np.array(rows, float))[:, 1]).tolist() == [0]


@pytest.fixture
def film(tmp_path):
    """Ten frames, two people; one is found, and somebody who is not there."""
    (tmp_path / "video").mkdir()
    path = tmp_path / "video" / "pets09-s2l1.mp4"
    with VideoWriter(path, width=160, height=120, fps=10) as writer:
        for i in range(10):
            writer.write(np.full((120, 160, 3), 20 * i, np.uint8))
    truth = [f"{i},{who},{x + i},10,30,60,1,1,1" for i in range(1, 11) for who, x in ((1, 10), (2, 70))]
    path.with_suffix(".gt.txt").write_text("\n".join(truth))
    found = [f"{i},-1,{x + i},{y},30,60,0.9" for i in range(1, 11) for x, y in ((12, 10), (100, 50))]
    (tmp_path / "det.txt").write_text("\n".join(found))
    return path


def test_boxes_crops_and_people_are_counted(film, tmp_path):
    account = module.Account()
    for _ in range(2):
        module.add(
            account, module.Film(film, read_truth(film.with_suffix(".gt.txt"))), f"file:{tmp_path}/det.txt"
        )
    assert (account.frames, account.boxes, account.right, account.people) == (20, 40, 20, 40)
    row = account.row()
    assert (row["precision"], row["recall"], row["f1"]) == (0.5, 0.5, 0.5)
    assert row["on_person"] == 0.5
    assert account.crops >= 32


def test_the_command_writes_its_table(film, tmp_path, capsys):
    arguments = ["--first-half", "--data", tmp_path, "--detector", "motion", "--out", tmp_path / "out"]
    assert module.main([str(x) for x in arguments]) == 0
    assert "pets09-s2l1" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "out" / "detectors.json").read_text())["result"]["rows"]
    assert (row["frames"], row["boxes"], row["f1"]) == (10, 0, 0)
