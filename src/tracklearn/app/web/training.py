"""A training as the page shows it: curves, how long it still takes, and the report."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tracklearn.app.formats import duration
from tracklearn.app.report import learning
from tracklearn.app.web.opened import NotThere, Served
from tracklearn.learn.methods.named import method_module, takes_source
from tracklearn.store.runs import Run
from tracklearn.types import Refusal

_LAST = 5  # rounds by which it is told how long one takes


class Training:
    """The training of one server's run.

    Args:
        served: what is shown.
    """

    def __init__(self, served: Served) -> None:
        self.served = served
        self._drawn: tuple[tuple[str, int], list[dict[str, str]]] | None = None
        self._lock = threading.Lock()

    def status(self) -> dict[str, Any]:
        """Where training stands."""
        run = self.served.run()
        rounds = run.rounds
        total, left = _total(run), None
        spent = [sum(v for k, v in entry.items() if k != "round") for entry in run.times if "round" in entry]
        if not run.finished and total is not None and spent:
            left = max(0, total - len(rounds)) * sum(spent[-_LAST:]) / len(spent[-_LAST:])
        last = rounds[-1] if rounds else {}
        return {
            "status": run.manifest["status"],
            "reason": run.manifest.get("reason"),
            "finished": run.finished,
            "method": run.manifest.get("method"),
            "rounds": len(rounds),
            "of": total,
            "seconds": round(sum(spent), 1),
            "seconds_left": None if left is None else round(left, 1),
            "left": None if left is None else duration(left),
            "people": last.get("n_clusters"),
            "noise": last.get("noise_fraction"),
            "report": self.report() is not None,
        }

    def panels(self) -> list[dict[str, str]]:
        """Charts over rounds: heading, caption and svg; drawn once for each round."""
        run = self.served.run()
        rounds = run.rounds
        key = (str(run.manifest["digest"]), len(rounds))
        with self._lock:  # matplotlib draws one at a time
            if self._drawn is None or self._drawn[0] != key:
                self._drawn = key, learning.over_rounds(rounds) if rounds else []
            return self._drawn[1]

    def chart(self, number: int) -> str:
        """SVG of one of them.

        Raises:
            NotThere: there is none of that number.
        """
        panels = self.panels()
        if not 0 <= number < len(panels):
            raise NotThere(f"there is no chart {number}")
        return panels[number]["svg"]

    def report(self) -> Path | None:
        """The run's report, or that of the folder that `run` made; None where there is none yet."""
        for folder in (self.served.path, self.served.path.parent):
            if (file := folder / "report.html").is_file():
                return file
        return None


def _total(run: Run) -> int | None:
    """How many rounds there will be; None where the method ends by itself, or is not known here."""
    name, settings = str(run.manifest.get("method")), run.manifest.get("settings")
    if run.finished or not isinstance(settings, Mapping):
        return None
    try:
        if takes_source(name):  # it stops when its labels stand still
            return None
        module = method_module(name)
        stages: Sequence[Any] = module.method(module.Config(**settings)).stages
    except (Refusal, TypeError, ValueError):
        return None
    return sum(stage.rounds for stage in stages)
