"""The benchmark of a training's course: states kept as they go, and the minutes of its epochs."""

import numpy as np
import pytest

from benchmarks import market_curve
from tracklearn.store.files import pack_arrays


def test_states_are_kept_when_the_run_drops_them(tmp_path):
    run, states = tmp_path / "run", tmp_path / "states"
    run.mkdir()
    (run / "manifest.json").write_text('{"status": "training"}')
    for step, kept in ((80, 1), (160, 2)):
        arrays = {"teacher.fc.weight": np.full(3, step, np.float32), "rng.numpy": np.zeros(1)}
        (run / f"state-{step:09d}.safetensors").write_bytes(pack_arrays(arrays, {"rounds_done": step // 80}))
        assert market_curve.keep(run, states, wait=False) == kept
        (run / f"state-{step:09d}.safetensors").unlink()
    (run / "manifest.json").write_text('{"status": "finished"}')
    assert market_curve.keep(run, states) == 2
    epoch, own = market_curve.teacher(states / "state-000000160.safetensors")
    assert epoch == 2
    assert {name: value.tolist() for name, value in own.items()} == {"fc.weight": [160, 160, 160]}


def test_minutes_are_summed_over_the_epochs_parts():
    times = [{"round": 0, "extract": 30, "cluster": 6, "fit": 24, "read": 5}, {"round": 1, "fit": 90}]
    assert market_curve.minutes(times) == pytest.approx([1, 2.5])


def test_a_picture_is_drawn(tmp_path):
    rows = [{"minutes": 0, "mAP": 0.2}, {"minutes": 9, "mAP": 0.4}]
    market_curve.draw(rows, {"as it comes": 0.3}, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
