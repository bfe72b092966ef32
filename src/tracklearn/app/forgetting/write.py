"""Preparing all that is to take the place of what there is, without what is forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn.store.files import plain_json, read_json, write_atomic
from tracklearn.store.forget import of_identities, of_run, of_set
from tracklearn.store.gallery.folder import FolderGallery, people_path
from tracklearn.store.gallery.open import open_gallery
from tracklearn.store.gallery.people_file import as_bytes
from tracklearn.store.gallery.steps import to_plain
from tracklearn.store.intents import Intents
from tracklearn.store.runs import Run
from tracklearn.store.sealed import MANIFEST, write_sealed
from tracklearn.types import Array, Progress

if TYPE_CHECKING:
    pass

from tracklearn.app.forgetting.look import Parts, gone_rows, people_left
from tracklearn.app.forgetting.plan import Plan


@dataclass
class Writer:
    """Prepares all that is to take the place of what there is."""

    plan: Plan
    made: Intents
    progress: Progress | None
    changed: dict[str, of_set.Shortened] = field(default_factory=dict)
    tables: dict[str, str] = field(default_factory=dict)  # sums of tables of identities, old and new

    def write(self, record: Mapping[str, Any]) -> None:
        """All of it."""
        plan, made = self.plan, self.made
        for i, (digest, (one, keep)) in enumerate(plan.sets.items()):
            self._tell("set", i, len(plan.sets))
            self.changed[digest] = of_set.without(one, keep, made, made.room(f"set-{i}"))
        for i, run in enumerate(plan.runs):
            of_run.without(run, self.changed, made, made.room(f"run-{i}"))
        runs = {each.path.resolve(): each for each in (plan.run, *plan.runs)}
        digests = {run.manifest["digest"]: run for run in runs.values()}
        for i, table in enumerate(plan.tables):
            lost = Parts(digests.get(table.manifest["run"])).lost(plan.sets)
            was, now = of_identities.without(table, self.changed, lost, made, made.room(f"identities-{i}"))
            self.tables[was] = now
        for i, (run, where) in enumerate(plan.galleries):
            self._tell("gallery", i, len(plan.galleries))
            self._gallery(run, where, made.room(f"gallery-{i}"))
        for where in plan.sent:
            made.database(where, {})
        room = made.room("rest")
        for i, journal in enumerate(plan.journals):
            data, _ = of_identities.journal_without(journal.read_bytes(), self.changed)
            self._put(data, room / f"journal-{i}", journal) if data else made.remove(journal)
        for i, run in enumerate(runs.values()):
            self._stages(run.path.parent, room / f"stages-{i}.json")
        for path in plan.gone:
            if not any(path.is_relative_to(table.path) for table in plan.tables):  # those see to their own
                made.remove(path)
        notes = plan.run.path / of_run.FORGOTTEN
        before = notes.read_bytes() if notes.is_file() else b""
        self._put(before + plain_json(record).encode() + b"\n", room / of_run.FORGOTTEN, notes)

    def _put(self, data: bytes, staged: Path, path: Path) -> None:
        write_atomic(staged, data)
        self.made.move(staged, path)

    def _stages(self, folder: Path, staged: Path) -> None:
        """Take the report that goes out of the record of an output folder."""
        file = folder / "stages.json"
        if folder / "report.html" in self.plan.gone and file.is_file():
            entries = {k: v for k, v in read_json(file).items() if k not in ("report", "seal")}
            write_sealed(staged, entries)
            self.made.move(staged, file)

    def _gallery(self, run: Run, where: str, room: Path) -> None:
        digests = {old: now.digest for old, now in self.changed.items()}
        with open_gallery(where) as opened:
            kept, _ = people_left(opened, run, self.plan.sets, digests)
            kept = replace(kept, adopted=self.tables.get(kept.adopted, kept.adopted))
            gone = set(gone_rows(opened, run, self.plan.sets).tolist())
            entries = opened.entries
            stay = np.array([i for i in range(len(entries)) if i not in gone], np.int64)
            new_crop = entries.crop.copy()
            for place, one in enumerate(opened.sets):
                if one.digest in self.changed:
                    own = entries.set == place
                    new_crop[own] = self.changed[one.digest].new_row[entries.crop[own]]
            if not isinstance(opened, FolderGallery):
                change = {
                    "delete": entries.row[sorted(gone)].tolist(),
                    "sets": digests,
                    "people": to_plain(kept),
                }
                change["crop"] = np.stack([entries.row[stay], new_crop[stay]], 1).tolist()
                self.made.database(where, change)
                return
            self._folder(run, opened, stay, new_crop, room, digests)
        people = people_path(opened.path)
        if people.is_file():
            for ending in ("-wal", "-shm"):  # before: what is in them belongs to the old file
                self.made.remove(people.with_name(people.name + ending))
            self._put(as_bytes(kept), room.parent / f"{room.name}.sqlite", people)

    def _folder(
        self,
        run: Run,
        opened: FolderGallery,
        stay: Array,
        new_crop: Array,
        room: Path,
        digests: Mapping[str, str],
    ) -> None:
        entries, changes = opened.entries, {}
        for place, one in enumerate(opened.sets):
            if one.digest in self.changed:
                own = stay[entries.set[stay] == place]
                start = int(opened.start_of(place))
                now = type(one)(digests[one.digest], one.path, one.cameras)
                changes[one.digest] = (entries.row[own] - start, new_crop[own], now)
        origin = dict(opened.origin)
        if origin.get("set", {}).get("digest") in digests:
            origin["set"] = {**origin["set"], "digest": digests[origin["set"]["digest"]]}
        if not opened.write_without(room, changes, origin):
            self.made.remove(opened.path)
            return
        names = sorted((path.name for path in room.iterdir()), key=lambda name: (name == MANIFEST, name))
        for name in names:
            self.made.move(room / name, opened.path / name)
        for path in sorted(opened.path.iterdir()):
            if path.name not in names:
                self.made.remove(path)

    def _tell(self, what: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(f"forget: {what}", done, total)
