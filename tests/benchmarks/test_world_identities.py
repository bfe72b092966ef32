"""Who is who on worlds: every method's settings are settings, cells are kept, and the aim is judged."""

import argparse
import json

import pytest

from benchmarks import world_identities
from tracklearn.app.pipeline.plan import plan_training
from tracklearn.world import Config


def cell(f1):
    rates = {"f1": f1, "precision": f1, "recall": f1, "n_said": 3, "n_true": 3}
    one = {"scores": {"IDF1": 0.5}, "pairs": {"all": rates, "across": rates}}
    return {**one, "people": 3, "doubted": None, "baseline": one}


def test_means_over_worlds_and_the_best_method(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        world_identities,
        "cell",
        lambda cameras, seed, method, given: cell(0.9 if method == "cap" else 0.1 * seed),
    )
    call = ["--cache", str(tmp_path), "--weights", "none", "--methods", "cap", "tmc", "--out", str(tmp_path)]
    assert world_identities.main([*call, "--cameras", "4"]) == 0
    assert ["4", "tmc", "0.5", "0.1"] in [line.split()[:4] for line in capsys.readouterr().out.splitlines()]
    saved = json.loads((tmp_path / "world_identities.json").read_text())["result"]
    assert len(saved["cells"]) == 6
    assert [bar["met"] for bar in saved["bars"]] == [True]


@pytest.mark.long
def test_every_method_learns_and_is_compared_with_the_baseline(monkeypatch, tmp_path):
    """A small world, one epoch of two batches; a second call takes what is kept."""
    small = Config(n_people=6, seconds=30.0, fps=6.0, width=320, height=180)
    monkeypatch.setattr(world_identities, "worlds", lambda seed: (small, small))
    monkeypatch.setattr(
        world_identities, "SETTINGS", ("network.height=64", "network.width=32", "network.backbone=tiny")
    )
    given = argparse.Namespace(cache=tmp_path, weights="none", epochs=2, iterations=2)
    found = {method: world_identities.cell(2, 0, method, given) for method in ("none", "uga")}
    for one in found.values():
        assert 0 < one["scores"]["IDF1"] <= 1
        assert one["pairs"]["across"]["n_true"] > 0
        assert one["baseline"]["pairs"]["across"]["n_true"] > 0
    monkeypatch.setattr(world_identities, "trained", None)
    assert world_identities.cell(2, 0, "uga", given) == found["uga"]
    of, _ = world_identities.filmed(2, 0, tmp_path)
    for method in world_identities.METHODS:
        plan = plan_training(
            [of], method="tmc" if method == "none" else method, weights="none", preset="cpu",
            overrides=world_identities.settings(method, 8, 40),
        )  # fmt: skip
        rounds = sum(stage.rounds for stage in plan.value().stages)
        assert rounds == (1 if method == "none" else 8)
