"""The benchmarks' harness: what it times, weighs and writes is what was asked for."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import measure

MB = 1 << 20


@pytest.mark.long
def test_alternate_goes_forth_and_back_after_one_untimed_call_of_each():
    calls = []
    timing = measure.alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b") or "made"}, 3)
    assert calls == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert [len(t.wall) for t in timing.values()] == [3, 3]
    assert timing["b"].result == "made"
    calls.clear()
    measure.alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 1, warm_up=False)
    assert calls == ["a", "b"]


def test_wall_counts_waiting_and_cpu_does_not():
    timing = measure.alternate({"sleep": lambda: time.sleep(0.05)}, 1)["sleep"]
    assert timing.median("wall") >= 0.05
    assert timing.median("cpu") < 0.05


def test_alternate_refuses_no_repeats():
    with pytest.raises(ValueError, match="at least 1"):
        measure.alternate({}, 0)


def test_ratio_is_the_median_over_pairs():
    """Pairs 2, 3 and 10; the ratio of the medians would be 20 / 4 = 5."""
    slow, fast = (
        measure.Timing((2.0, 30.0, 20.0), (8.0, 8.0, 8.0)),
        measure.Timing((1.0, 10.0, 2.0), (2.0, 4.0, 1.0)),
    )
    assert measure.ratio(slow, fast) == 3
    assert measure.ratio(slow, fast, "cpu") == 4
    assert slow.to_dict()["wall_s"] == 20


def test_ratio_wants_pairs():
    with pytest.raises(ValueError):
        measure.ratio(measure.Timing((1.0,), (1.0,)), measure.Timing((1.0, 2.0), (1.0, 2.0)))


def make_rows(n):
    return np.ones((n, MB), np.uint8)


def copy_twice(rows):
    """Holds one copy, and a second one for a moment."""
    kept = rows.copy()
    return kept.sum(), rows.copy().sum()


def fail(rows):
    raise KeyError(len(rows))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
def test_peak_memory_counts_the_call_and_not_its_input():
    peak = measure.peak_memory(make_rows, copy_twice, 40)
    # The system counts pages in batches: its figures may lag by some hundred kilobytes.
    assert 79 * MB <= peak.above < 90 * MB
    assert peak.total >= peak.above + 39 * MB
    with pytest.raises(KeyError, match="3"):
        measure.peak_memory(make_rows, fail, 3)


def test_gemm_takes_time():
    assert 0 < measure.gemm(300, 32, repeats=2) < 1


def test_machine_names_what_counts():
    facts = measure.machine()
    assert facts["cores"] >= 1
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["blas"][0]["num_threads"] >= 1
    assert "/" not in measure.to_json(facts["blas"])


def test_save_sorts_and_adds_the_circumstances(tmp_path):
    result = {"b": measure.Timing((1.0,), (2.0,)), "a": np.float32(0.5), "c": (np.int64(3), None)}
    path = measure.save("toy", result, settings={"seed": 0}, folder=tmp_path / "new")
    assert path == tmp_path / "new" / "toy.json"
    text = path.read_text()
    read = json.loads(text)
    assert list(read["result"]) == ["a", "b", "c"]
    assert read["result"] == {
        "a": 0.5,
        "b": {"cpu_runs": [2.0], "cpu_s": 2.0, "wall_runs": [1.0], "wall_s": 1.0},
        "c": [3, None],
    }
    assert read["settings"] == {"seed": 0}
    assert read["machine"]["cpu"]
    assert len(read["date"]) == 10


@pytest.mark.parametrize("value", [float("nan"), os.getcwd() + "/x", str(Path.home())])
def test_save_refuses_nan_and_private_paths(tmp_path, value):
    with pytest.raises(ValueError):
        measure.save("toy", {"x": value}, settings={}, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_json_refuses_what_it_does_not_have():
    with pytest.raises(TypeError, match="set cannot"):
        measure.to_json({"x": {1}})


def test_bars():
    below, above, unknown = (
        measure.Bar("time (s)", 1, 0.5),
        measure.Bar("ratio", 30, 29.9, at_least=True),
        measure.Bar("x", 1, None),
    )
    assert [bar.met for bar in (below, above, unknown)] == [True, False, None]
    assert not measure.Bar("time (s)", 1, 1.0).met
    assert above.to_dict() == {"what": "ratio", "bar": ">= 30", "value": 29.9, "met": False}
    assert measure.bars_table([below, above, unknown]).splitlines() == [
        "bar       wanted  measured",
        "--------  ------  --------  ------------",
        "time (s)  < 1          0.5  met",
        "ratio     >= 30       29.9  NOT MET",
        "x         < 1            -  not measured",
    ]


def test_table_formats():
    text = measure.table(("n", "seconds", "same"), [(100000, 0.12345, True), (300, 1234.5, np.bool_(False))])
    assert text.splitlines() == [
        "      n  seconds  same",
        "-------  -------  ----",
        "100,000    0.123  yes",
        "    300    1,234  no",
    ]
