"""The benchmark of identities at a small size: it runs, and finds the people that it made."""

import json

import numpy as np
import pytest

from benchmarks import identities


@pytest.fixture(autouse=True)
def no_processes(monkeypatch):
    """Peak memory is `measure`'s own test, and a fresh process costs seconds here."""

    def peak_memory(setup, function, *args):
        function(setup(*args))
        return identities.measure.Peak(1_000_000, 3_000_000)

    monkeypatch.setattr(identities.measure, "peak_memory", peak_memory)
    monkeypatch.setattr(identities, "WIDTH", 128)


def test_writes_what_it_measured(tmp_path, capsys):
    assert identities.main(["--sizes", "400", "300", "--out", str(tmp_path)]) == 0
    saved = json.loads((tmp_path / "identities.json").read_text())
    assert saved["settings"]["sizes"] == [300, 400]
    small, large = saved["result"]["sizes"]
    assert small["people"] == small["identities"] == 15
    assert large["f1"] == 1.0
    assert large["barred"] > 100
    assert "100,000: wall (s)" in capsys.readouterr().out


def test_rates_by_hand():
    """Pairs said: (0,1), (2,3); true: (0,1), (0,2), (1,2)."""
    assert identities.pair_rates(np.array([0, 0, 1, 1]), np.array([5, 5, 5, 6])) == (0.5, 1 / 3, 0.4)
