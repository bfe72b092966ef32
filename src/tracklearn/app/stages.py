"""Which stages of a folder are done, so that none is done twice and no finished work is lost."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tracklearn.store.files import read_json, write_json


class Stages:
    """The stages of a folder, with the digest of what went into each (`stages.json`).

    The folder is made by the first stage that runs, not before.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "stages.json"

    @property
    def entries(self) -> dict[str, dict[str, Any]]:
        """Stage -> digest, done, seconds, as the file says now (the demo and `run` share one file)."""
        return read_json(self.path) if self.path.is_file() else {}

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds each finished stage took, those before a stop included."""
        return {name: entry["seconds"] for name, entry in self.entries.items() if entry["done"]}

    @contextmanager
    def stage(self, name: str, digest: str, product: Path) -> Iterator[bool]:
        """Whether the stage must run; it is noted as done when the context ends well.

        An unfinished product of the same inputs is left for the stage to go on with. A product of other
        inputs is set aside, removed once the new one is there, and put back when the stage fails before
        leaving anything.
        """
        entry = self.entries.get(name)
        same = entry is not None and entry["digest"] == digest
        if entry and same and entry["done"] and product.exists():
            yield False
            return
        aside = product.with_name(product.name + ".old")
        if entry is not None and not same and product.exists():
            _remove(aside if entry["done"] else product)
            if entry["done"]:
                product.rename(aside)
        spent = float(entry["seconds"]) if entry and same and not entry["done"] else 0.0
        self._note(name, {"digest": digest, "done": False, "seconds": spent})
        began = time.perf_counter()
        try:
            yield True
        except BaseException:
            if product.exists() or not aside.exists():
                seconds = round(spent + time.perf_counter() - began, 3)
                self._note(name, {"digest": digest, "done": False, "seconds": seconds})
            else:
                aside.rename(product)
                self._note(name, entry)
            self._leave_nothing_empty()
            raise
        seconds = round(spent + time.perf_counter() - began, 3)
        self._note(name, {"digest": digest, "done": True, "seconds": seconds})
        _remove(aside)

    def forget(self, name: str) -> None:
        """Let a stage run again though its inputs are unchanged."""
        self._note(name, None)

    def _note(self, name: str, entry: dict[str, Any] | None) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        entries = {key: value for key, value in self.entries.items() if key != name}
        write_json(self.path, entries if entry is None else {**entries, name: entry})

    def _leave_nothing_empty(self) -> None:
        """A call that was refused before it made anything leaves no folder in the way of the next."""
        if [path.name for path in self.folder.iterdir()] == [self.path.name]:
            self.path.unlink()
            self.folder.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
