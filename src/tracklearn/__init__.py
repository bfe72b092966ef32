"""Tracklearn learns person re-identification from unlabelled video.

The public names are loaded when they are first used, so that `import tracklearn` costs nothing.

>>> import tracklearn as tl
>>> tl.tmc.Config().epochs
40
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    "ingest": "tracklearn.store.ingest.ingest:ingest",
    "train": "tracklearn.app.api:train",
    "fit": "tracklearn.app.api:fit",
    "index": "tracklearn.app.search.index:index",
    "identities": "tracklearn.app.identities.link:identities",
    "track": "tracklearn.app.retrack.track:track",
    "run": "tracklearn.app.api:run",
    "export": "tracklearn.app.model.export:export",
    "report": "tracklearn.app.report.of_run:report",
    "demo": "tracklearn.app.demo.run:demo",
    "open_set": "tracklearn.store.sets.tracklets:open_set",
    "open_run": "tracklearn.store.runs:Run",
    "load_network": "tracklearn.app.model.of_run:load_network",
    "tmc": "tracklearn.learn.methods.tmc:",
    "mmt": "tracklearn.learn.methods.mmt:",
    "uga": "tracklearn.learn.methods.uga:",
    "msplr": "tracklearn.learn.methods.msplr.method:",
    "cap": "tracklearn.learn.methods.cap:",
    "register": "tracklearn.learn.methods.named:register",
    "Tracklets": "tracklearn.types:Tracklets",
    "Crops": "tracklearn.types:Crops",
    "ArrayCrops": "tracklearn.types:ArrayCrops",
    "Truth": "tracklearn.types:Truth",
    "PseudoLabels": "tracklearn.types:PseudoLabels",
    "NoiseRates": "tracklearn.types:NoiseRates",
    "Scores": "tracklearn.types:Scores",
    "Matches": "tracklearn.types:Matches",
}
__all__ = ["__version__", *_NAMES]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'tracklearn' has no attribute {name!r}")
    module, _, attribute = _NAMES[name].partition(":")
    value = import_module(module)
    return getattr(value, attribute) if attribute else value


def __dir__() -> list[str]:
    return sorted(__all__)
