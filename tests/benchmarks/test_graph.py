"""The benchmark of the graph at a small size: it runs, and it tells wrong edges."""

import json

import numpy as np
import pytest

from benchmarks import graph
from tracklearn.core.graph import Graph


@pytest.fixture(autouse=True)
def no_processes(monkeypatch):
    """Peak memory is `measure`'s own test, and a fresh process costs seconds here."""

    def peak_memory(setup, function, *args):
        function(setup(*args))
        return graph.measure.Peak(1_000_000, 3_000_000)

    monkeypatch.setattr(graph.measure, "peak_memory", peak_memory)
    monkeypatch.setattr(graph, "WIDTH", 64)
    monkeypatch.setattr(graph, "_GEMM", 64)
    monkeypatch.setattr(graph, "_LOADS", 200)


def test_writes_what_it_measured(tmp_path, capsys):
    assert graph.main(["--sizes", "400", "300", "--repeats", "2", "--out", str(tmp_path)]) == 0
    saved = json.loads((tmp_path / "graph.json").read_text())
    assert saved["settings"]["sizes"] == [300, 400]
    size = saved["result"]["sizes"][0]
    assert set(size["equal"]) == {"by 8-bit products", "to the textbook in float64", "on one thread"}
    assert all(size["equal"].values())
    assert len(size["cross_view, int8"]["cpu_runs"]) == 2
    assert len(size["cross_view"]["wall_runs"]) == 2
    assert size["cross_view"]["memory_total_bytes"] == 3_000_000
    assert size["cross_view"]["graph"]["n_edges"] > 100
    assert size["cross_view"]["graph"] | {"judged_in_cpu_s": 0} == size["textbook"]["graph"] | {
        "judged_in_cpu_s": 0
    }
    assert all(bar["value"] is None for bar in saved["result"]["bars"])
    assert "transitivity" in capsys.readouterr().out


def test_features_with_the_spectrum_of_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "WIDTH", 256)
    call = ["--sizes", "2500", "--repeats", "1", "--network", "--out", str(tmp_path)]
    assert graph.main(call) == 0
    size = json.loads((tmp_path / "graph_network.json").read_text())["result"]["sizes"][0]
    assert all(size["equal"].values())
    assert size["cross_view, int8"]["graph"]["precision"] > 0.5


def test_no_textbook_for_large_sets(monkeypatch):
    monkeypatch.setattr(graph, "TEXTBOOK_UP_TO", 100)
    monkeypatch.setattr(graph, "ONE_RUN_FROM", 100)
    size = graph.measure_size(300, repeats=5)
    assert "textbook" not in size
    assert "equal" not in size
    assert len(size["cross_view"]["wall_runs"]) == 1
    lines = graph.report([size]).splitlines()
    assert lines[2].split()[:2] == ["300", "cross_view"]
    assert lines[2].split()[-1] == "-"


def test_wrong_edges_give_exit_code_1(monkeypatch, capsys):
    right = graph.textbook

    def wrong(given, dtype=np.float32):
        found = right(given, dtype)
        found.weight[0] += 1e-3
        return found

    monkeypatch.setattr(graph, "textbook", wrong)
    assert graph.main(["--sizes", "300", "--repeats", "1", "--small"]) == 1
    assert "NOT EQUAL at t = 300" in capsys.readouterr().err


def test_same():
    start, to = np.array([0, 1, 2]), np.array([1, 0])
    one = Graph(start, to, np.array([0.5, 0.5], np.float32))
    assert graph.same(one, Graph(start, to, one.weight + np.float32(5e-7)))
    assert not graph.same(one, Graph(start, to, one.weight + np.float32(5e-6)))
    assert not graph.same(one, Graph(start, to[::-1], one.weight))
    assert not graph.same(one, Graph(np.array([0, 0, 0]), to[:0], one.weight[:0]))


def test_the_made_set(monkeypatch):
    monkeypatch.setattr(graph, "WIDTH", 2048)
    given = graph.make_set(300, seed=1)
    cosine = given.features.astype(np.float64) @ given.features.T
    np.testing.assert_allclose(np.diag(cosine), 1, atol=1e-6)
    alike = (given.pid[:, None] == given.pid) & ~np.eye(300, dtype=bool)
    across = given.camid[:, None] != given.camid
    assert 0.65 < cosine[alike & across].mean() < 0.75
    assert abs(cosine[~alike & across].mean()) < 0.05
    assert len(np.unique(given.camid)) == graph.CAMERAS


def test_bars_take_their_size():
    size = {"t": 100_000, "cross_view": {"wall_s": 100.0, "memory_total_bytes": 4e9}}
    time, memory = graph.bars([{"t": 5, "cross_view": {}}, size])
    assert (time.value, time.met) == (100, True)
    assert (memory.value, memory.met) == (4, False)
