"""Which stages of a folder are done, so that none is done twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tracklearn.store.runs import read_json, remove_folder, write_json


class Stages:
    """Which stages of a folder are done, with the digest of what went into each (`stages.json`)."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "stages.json"

    @property
    def done(self) -> dict[str, dict[str, Any]]:
        """Stage -> digest and seconds, as the file says now (the demo and `run` share one file)."""
        return read_json(self.path) if self.path.is_file() else {}

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds each finished stage took when it ran."""
        return {name: entry["seconds"] for name, entry in self.done.items()}

    @contextmanager
    def stage(self, name: str, digest: str, product: Path) -> Iterator[bool]:
        """Whether the stage must run; it is noted as done when the context ends well.

        A product made from other inputs is removed before the stage runs again. An unfinished one is left
        for the stage itself to go on with, or to refuse.
        """
        entry = self.done.get(name)
        if entry and entry["digest"] == digest and product.exists():
            yield False
            return
        if entry is not None:
            self._note(name, None)
            if product.is_dir():
                remove_folder(product)
            else:
                product.unlink(missing_ok=True)
        began = time.perf_counter()
        yield True
        self._note(name, {"digest": digest, "seconds": round(time.perf_counter() - began, 3)})

    def _note(self, name: str, entry: dict[str, Any] | None) -> None:
        done = {key: value for key, value in self.done.items() if key != name}
        write_json(self.path, done if entry is None else {**done, name: entry})
