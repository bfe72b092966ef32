"""The isolation quality benchmark: its columns by hand, its joins, and a small run from end to end."""

import json

import numpy as np
import pytest
from benchmarks.isolation_material import Material, every, half, join

from benchmarks import isolation_quality as module


def material(lengths=(40, 40, 40), seed=0, noise=0.5):
    """One person a tracklet, 10 frames a second."""
    rng = np.random.default_rng(seed)
    pid = np.repeat(np.arange(len(lengths)), lengths)
    rows = rng.normal(size=(len(lengths), 32))[pid] + noise * rng.normal(size=(len(pid), 32))
    frame = np.concatenate([np.arange(n) for n in lengths])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Material(rows.astype(np.float32), pid, frame, frame / 10, np.zeros((len(pid), 4)), pid)


def test_switches():
    pid = np.array([1, 1, 2, -1, 2, 2, 3, 1, 1])
    assert module.switches(pid, 1) == [(2, 2), (6, 6), (7, 7)]
    assert module.switches(pid, 2) == [(2, 4), (6, 7)]
    assert module.switches(np.array([-1, -1]), 1) == []


def test_columns_by_hand():
    pid = np.repeat([0, 1], [20, 20])
    given = Material(np.eye(2)[pid], np.zeros(40, int), np.arange(40), np.arange(40.0), None, pid)
    part = np.repeat([0, 1, -1, 2], [16, 14, 5, 5])  # cuts before 16 and, over the dropped, before 35
    row = module.judge(given, part)
    assert row == {
        "dropped": 5 / 40,
        "impure": pytest.approx(4 / 35),
        "lost": pytest.approx(9 / 40),
        "parts": 3,
        "persons": pytest.approx(4 / 3),
        "found": 1,
        "false_cuts": 1000 / 40,
        "switches": 1,
    }


def test_nobody_known():
    given = Material(np.eye(2), np.zeros(2, int), np.arange(2), np.arange(2.0), None, np.full(2, -1))
    row = module.judge(given, np.array([0, 1]))
    assert row["impure"] is None
    assert (row["parts"], row["false_cuts"]) == (2, 500)


def test_joins_lose_nothing_and_start_anew():
    given = material((60, 9, 130, 45))
    joined = join(given, 3)
    assert joined.box is None
    order = np.lexsort(joined.features.T)
    np.testing.assert_array_equal(joined.features[order], given.features[np.lexsort(given.features.T)])
    first = np.r_[True, np.diff(joined.tracklet) > 0]
    np.testing.assert_array_equal(joined.frame[first], 0)
    np.testing.assert_array_equal(np.diff(joined.frame)[~first[1:]], 1)
    np.testing.assert_allclose(np.diff(joined.time)[~first[1:]], 0.1)


def test_halves_and_rates():
    given = material((40, 30))
    early, late = half(given, "first"), half(given, "second")
    assert len(early) + len(late) == len(given)
    assert early.frame.max() < late.frame.min()
    assert half(given, "all") is given
    assert np.unique(np.diff(every(given, 3).frame)[:13]).tolist() == [3]


def test_even_cuts_are_as_many():
    given = material((10, 7))
    part = np.r_[np.repeat([0, 1, 0], [2, 7, 1]), np.zeros(7, int)]
    assert module.even(given, part).tolist() == [0] * 4 + [1] * 3 + [2] * 3 + [0] * 7


def test_windows_find_a_switch():
    given = material((30, 30))
    together = Material(**{**vars(given), "tracklet": np.zeros(60, int), "time": np.arange(60) / 10})
    part = module.windows(together, 1.5, 0.3)
    assert len(np.unique(part)) == 2
    assert (np.diff(part[:27]) == 0).all()
    assert (np.diff(part[33:]) == 0).all()


def test_writes_tables_and_chart(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "load", lambda name, *_: material((150, 150, 150), noise=1.5))
    assert module.main(["--cache", str(tmp_path), "--seeds", "1", "--out", str(tmp_path)]) in (0, 1)
    saved = json.loads((tmp_path / "isolation_quality.json").read_text())["result"]
    best = saved["sets"]["visits, held out"]["change-point 1"]
    assert best["dropped"] == 0
    assert best["impure"] < 0.05
    assert (tmp_path / "isolation_quality.png").stat().st_size > 5000
    assert "visits, held out" in capsys.readouterr().out


def test_the_bar_tells_where_change_points_lose_more():
    rows = {name: {"lost": 0.1} for name in ("whole", "dbscan 1", "dbscan 2")}
    for lost, met in ((0.2, False), (0.05, True)):
        found = {"a": {**rows, "change-point 1": {"lost": lost}}}
        assert [bar.met for bar in module.bars(found)] == [met]
    assert module.bars({"a": {"whole": {"lost": None}}}) == []
