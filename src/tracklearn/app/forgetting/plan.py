"""What goes, what is written anew, and what stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn.app.formats import number
from tracklearn.store.identities.folder import Identities
from tracklearn.store.runs import Run
from tracklearn.store.sets.tracklets import TrackletSet
from tracklearn.types import Array, Refusal

if TYPE_CHECKING:
    pass

ADVICE = "these learned from what is forgotten: train anew, export again, and remove them"
REMAINS = "a disk and its backups may keep removed bytes for a while: that is the disk's to forget"


@dataclass(frozen=True)
class Asked:
    """What is to be forgotten: what all that is given holds for.

    Args:
        person: number of an identity. camera: name. before: crops that were filmed before that moment.
    """

    person: int | None = None
    camera: str | None = None
    before: datetime | None = None

    @classmethod
    def of(cls, person: int | None, camera: str | None, before: datetime | date | str | None) -> Asked:
        """What the arguments of `preview` ask for.

        Raises:
            ValueError: nothing, a person and something else, or no date.
        """
        if person is None and camera is None and before is None:
            raise Refusal("nothing is asked for: name a person, a camera, or a date before which all goes")
        if person is not None and (camera is not None or before is not None):
            raise Refusal("a person is forgotten everywhere: give no camera and no date with it")
        if isinstance(before, str):
            try:
                before = datetime.fromisoformat(before)
            except ValueError:
                raise Refusal(f"{before!r} is no date: expected 2026-05-01, or 2026-05-01T08:00") from None
        elif isinstance(before, date) and not isinstance(before, datetime):
            before = datetime.combine(before, time())
        return cls(person, camera, before)

    def __str__(self) -> str:
        if self.person is not None:
            return f"person {self.person}"
        words = [f"camera {self.camera}"] if self.camera is not None else []
        words += [f"what was filmed before {self.before.isoformat()}"] if self.before is not None else []
        return ", ".join(words)

    def to_dict(self) -> dict[str, Any]:
        """Plain values of what is given."""
        before = None if self.before is None else self.before.isoformat()
        every = {"person": self.person, "camera": self.camera, "before": before}
        return {name: value for name, value in every.items() if value is not None}


@dataclass(frozen=True, eq=False)
class Plan:
    """What goes, what is written anew, and what stays.

    Args:
        run: the run that was named. asked: for what.
        sets: (set, (n,) bool crops that stay) of the sets that lose some, by digest.
        runs: finished runs that learned from one of them, the named one among them where it did.
        tables: folders of identities that know one of them.
        galleries: (run, place) of the galleries that hold one of them.
        journals: of what people said, those that name one of them.
        sent: databases where features are, of whatever, that no gallery took in; all of those go.
        gone: files and folders that are removed whole.
        retrain: files of weights, and exports, that learned from what goes.
        stays: what stays that shows it, or that nothing is known of; a line each.
        counts: how much goes.
    """

    run: Run
    asked: Asked
    sets: Mapping[str, tuple[TrackletSet, Array]]
    runs: Sequence[Run]
    tables: Sequence[Identities]
    galleries: Sequence[tuple[Run, str]]
    journals: Sequence[Path]
    sent: Sequence[str]
    gone: Sequence[Path]
    retrain: Sequence[Path]
    stays: Sequence[str]
    counts: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "asked": self.asked.to_dict(),
            "counts": dict(self.counts),
            "sets": [
                {"path": str(one.path), "crops": int((~keep).sum()), "tracks": tracks(one, keep)}
                for one, keep in self.sets.values()
            ],
            "runs": [str(run.path) for run in self.runs],
            "identities": [str(table.path) for table in self.tables],
            "galleries": [where for _, where in self.galleries],
            "sent": list(self.sent),
            "gone": [str(path) for path in self.gone],
            "retrain": [str(path) for path in self.retrain],
            "stays": list(self.stays),
        }

    def text(self) -> str:
        """What a person is told."""
        lines = [f"{self.asked}: what goes"]
        for one, keep in self.sets.values():
            n = int((~keep).sum())
            lines.append(f"  {number(n)} crops of {number(tracks(one, keep))} tracks in {one.path}")
        if self.counts["truth_rows"]:
            lines.append(f"  {number(self.counts['truth_rows'])} rows of ground truth beside them")
        for name, word in (
            ("entries", "features in galleries"),
            ("rows", "rows of tables of identities, their boxes and times"),
            ("journal_lines", "lines of review journals"),
            ("steps", "steps of reviews"),
        ):
            if self.counts[name]:
                lines.append(f"  {number(self.counts[name])} {word}")
        lines += [f"  all that workers sent to {where} and no gallery took in" for where in self.sent]
        lines += [f"  {path}" for path in self.gone]
        if self.retrain:
            lines += [ADVICE + ":", *(f"  {path}" for path in self.retrain)]
        lines += self.stays
        return "\n".join(lines)


def tracks(one: TrackletSet, keep: Array) -> int:
    return len(np.unique(one.tracklets.tracklet[~keep]))
