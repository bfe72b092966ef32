"""The evaluation benchmark: its textbooks by hand, its result, and its verdict."""

import json

import numpy as np
import pytest
from benchmarks.evaluation import OURS, TEXTBOOK
from benchmarks.measure import Peak

from benchmarks import evaluation


def test_textbook_scores_by_hand():
    """Ranking of query 0: wrong, true, junk, same camera, true; query 1 has no match."""
    far = np.array([[0.1, 0.2, 0.3, 0.4, 0.5]] * 2)
    got = evaluation.textbook_scores(
        far, np.array([7, 9]), np.array([3, 7, -1, 7, 7]), np.array([0, 0]), np.array([1, 1, 1, 0, 2])
    )
    assert got.mAP == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert got.cmc.tolist() == [0, 1, 1]
    assert (got.n_valid, got.n_skipped) == (1, 1)


def test_made_distances_have_no_ties():
    distance, query_pid, gallery_pid, *_ = evaluation.make_distances(evaluation.SMALL_GALLERIES["small"])
    assert all(len(np.unique(row)) == len(row) for row in distance)
    assert distance[gallery_pid == query_pid[:, None]].mean() < 0.1


@pytest.fixture
def no_children(monkeypatch):
    """Leaves the fresh processes out, which take seconds to start."""
    monkeypatch.setattr(evaluation.measure, "peak_memory", lambda *_: Peak(1 << 20, 1 << 21))


@pytest.mark.long
def test_small_run_compares_and_writes(no_children, tmp_path, capsys):
    assert evaluation.main(["--small", "--repeats", "1", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "evaluation.json").read_text())["result"]
    scores, reranking = result["scores"]["small"], result["reranking"]["small"]
    assert scores["same"]
    assert scores["n_valid"] > 140
    assert 0.2 < scores["mAP"] < 0.9
    assert reranking["difference"] <= evaluation.DISTANCE_TOLERANCE
    for part in (scores, reranking):
        assert set(part["times"]) >= {OURS, TEXTBOOK}
        assert part["times"][OURS]["textbook_ratio"]["cpu"] > 0
    printed = capsys.readouterr().out
    assert "scores, small" in printed
    assert "reranking, small" in printed


@pytest.mark.long
def test_a_difference_is_an_error(no_children, monkeypatch, capsys):
    exact = evaluation.rank.rerank
    monkeypatch.setattr(evaluation.rank, "rerank", lambda *a, **k: exact(*a, **k) + np.float32(1e-4))
    assert evaluation.main(["--small", "--repeats", "1"]) == 1
    assert "results differ: reranking, small" in capsys.readouterr().err
