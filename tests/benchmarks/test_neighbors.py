"""The benchmark of neighbours, on a few rows and with a stand-in for the public code."""

import json
import sys

import numpy as np
import pytest

from benchmarks import neighbors


@pytest.mark.long
def test_every_way_is_timed_and_compared(tmp_path, capsys, monkeypatch):
    rows = neighbors.made(2_100, 512, True)
    np.save(tmp_path / "mine.npy", rows)
    package = tmp_path / "spcl" / "utils"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("raise ImportError('not to be loaded')")
    (package / "__init__.py").touch()
    (package / "faiss_rerank.py").write_text(
        "def compute_jaccard_distance(rows, k1, k2, print_flag, search_option):\n"
        "    assert (k1, k2, print_flag, search_option) == (30, 6, False, 3)\n"
        "    return (1 - rows @ rows.T).clamp(min=0).numpy()\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    asked = ["--small", "--repeats", "1", "--features", str(tmp_path / "mine.npy")]
    found = neighbors.main([*asked, "--spcl", str(tmp_path), "--out", str(tmp_path)])["sets"]
    assert next(iter(found)) == "mine, 2,100 × 512"
    assert len(found) == 3
    for one in found.values():
        assert set(one["differ"].values()) == {0}
        assert min(timing["cpu_s"] for timing in one["timed"].values()) > 0
        assert one["ratio"]["spcl and its DBSCAN"] > one["ratio"]["spcl"] > 0
    assert json.loads((tmp_path / "neighbors.json").read_text())["settings"]["k"] == 31
    assert "association, int8" in capsys.readouterr().out
