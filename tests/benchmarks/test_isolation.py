"""The isolation benchmark at a small size: it runs, and it tells wrong labels."""

import json

import numpy as np
import pytest

from benchmarks import isolation

SMALL = ["--tracklets", "6", "--width", "64", "--repeats", "1", "--eps", "0.78"]


@pytest.fixture(autouse=True)
def no_processes(monkeypatch):
    """Peak memory is `measure`'s own test, and costs seconds here."""
    monkeypatch.setattr(isolation.measure, "peak_memory", lambda *_: isolation.measure.Peak(1_000_000, 2))


def test_writes_what_it_measured(tmp_path, capsys):
    assert isolation.main([*SMALL, "--out", str(tmp_path)]) == 0
    saved = json.loads((tmp_path / "isolation.json").read_text())
    assert saved["settings"]["n_tracklets"] == 6
    assert saved["result"]["equal"] == {
        "to scikit-learn": True,
        "on 1 and 2 threads": True,
    }
    assert saved["result"]["loop_over_ours"]["loop"]["cpu"] > 0
    assert saved["result"]["peak_memory"]["isolate"] == 1.0
    assert "labels equal to scikit-learn: yes" in capsys.readouterr().out


def test_wrong_labels_give_exit_code_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(isolation.CALLS, isolation.LOOP, lambda given, eps: given.tracklet * 0 - 1)
    assert isolation.main([*SMALL, "--out", str(tmp_path)]) == 1
    assert "labels equal to scikit-learn: NO" in capsys.readouterr().out


def test_the_made_set():
    given = isolation.make_set(12, 2048, 0)
    length = np.diff(given.edge)
    assert length.min() >= 41
    assert length.max() <= 81
    np.testing.assert_allclose(np.linalg.norm(given.features, axis=1), 1, atol=1e-6)
    rows = given.features[: length[0]]
    cosine = (rows @ rows.T)[np.triu_indices(length[0], 1)]
    same = cosine[cosine > 0.4]
    assert same.mean() == pytest.approx(0.7, abs=0.01)
    assert isolation.ours(given, 0.9).max() > 0
