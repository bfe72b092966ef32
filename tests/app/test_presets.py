"""Presets: which methods cut tracks at switches before they learn from them."""

from __future__ import annotations

import pytest

from tracklearn.app.pipeline.plan import setting_models
from tracklearn.app.pipeline.presets import PRESETS
from tracklearn.learn.methods.named import names
from tracklearn.store import config


@pytest.mark.parametrize("preset", ["cpu", "gpu"])
@pytest.mark.parametrize("method", names())
def test_filmed_tracks_are_isolated_by_every_method(preset, method):
    settings = config.resolve(setting_models(), preset=PRESETS[preset])[method]
    assert settings.isolate
    assert settings.isolation == "change-point"
    assert settings.join_intra == "auto"


@pytest.mark.parametrize("method", ["mmt", "uga", "msplr"])
def test_the_paper_preset_learns_from_tracklets_as_they_are(method):
    assert not config.resolve(setting_models(), preset=PRESETS["paper"])[method].isolate
