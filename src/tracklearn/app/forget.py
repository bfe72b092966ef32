"""Forgetting: a person, a camera, or what is older than a day, wherever a run has left it.

`preview` says what would go, `forget` lets it go: crops out of their sets, features out of galleries, rows
out of tables, lines out of journals, pictures, reports and searches. All of it goes or none, whenever the
process is killed (`store/intents.py`). What a network has learned stays in its weights: which files these are
is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracklearn.app.formats import number
from tracklearn.store.forget import of_run
from tracklearn.store.gallery.database import reserved
from tracklearn.store.gallery.open import databases_of, is_url
from tracklearn.store.intents import intents
from tracklearn.store.lock import locked
from tracklearn.store.runs import Run
from tracklearn.types import Progress, Refusal

if TYPE_CHECKING:
    pass

from tracklearn.app.forgetting.look import plan_of
from tracklearn.app.forgetting.plan import ADVICE, Asked, Plan
from tracklearn.app.forgetting.write import Writer


@dataclass(frozen=True, eq=False)
class Forgotten:
    """What was done.

    Args:
        plan: what went. record: what the run remembers of it.
    """

    plan: Plan
    record: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**self.plan.to_dict(), "record": dict(self.record)}

    def text(self) -> str:
        """What a person is told."""
        counts = self.record["counts"]
        lines = [
            f"{self.plan.asked} is forgotten: {number(counts['crops'])} crops, "
            f"{number(counts['entries'])} features, {number(counts['rows'])} rows of identities"
        ]
        if self.plan.retrain:
            lines += [ADVICE + ":", *(f"  {path}" for path in self.plan.retrain)]
        return "\n".join([*lines, *self.plan.stays])


def preview(
    run: str | Path,
    *,
    person: int | None = None,
    camera: str | None = None,
    before: datetime | date | str | None = None,
    identities: str | Path | None = None,
) -> Plan:
    """What `forget` would do; nothing is changed.

    Args:
        run: finished run; its set, gallery, table of identities and what lies beside them are looked through.
        person: number of an identity.
        camera: name of a camera, of which all goes.
        before: a moment, as people where it was filmed tell the time; all that was filmed before it goes.
            With a camera: of that camera.
        identities: folder of the table in which the person has that number; RUN/../identities by default.

    Raises:
        FileNotFoundError: no such run or table.
        ValueError: no such person or camera, nothing that old, a run that is not finished, or a set that
            shares its pictures with another.
    """
    return plan_of(Run(run), Asked.of(person, camera, before), identities)


def forget(
    run: str | Path,
    *,
    person: int | None = None,
    camera: str | None = None,
    before: datetime | date | str | None = None,
    identities: str | Path | None = None,
    now: datetime | None = None,
    progress: Progress | None = None,
) -> Forgotten:
    """Let all that `preview` lists go, all or nothing, and remember that it went, without pictures or
    features.

    Whoever has the run's gallery open closes it before, and opens it anew afterwards: rows are other rows
    then.

    Args:
        run, person, camera, before, identities: as of `preview`.
        now: for the record.
        progress: told what is written.

    Raises:
        FileNotFoundError, ValueError: as `preview`; another process writes to one of the folders, or indexes
            into one of the databases.
        OSError: the disk is full or failing; all is as it was, or will be finished when one of the folders is
            opened next.
    """
    asked = Asked.of(person, camera, before)
    plan = plan_of(Run(run), asked, identities)
    folders = _folders(plan)
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(locked(folder))
        held = _databases(plan)
        for url in held:
            stack.enter_context(reserved(url))
        plan = plan_of(Run(run), asked, identities)  # what it is now that nobody else writes
        if _folders(plan) != folders or not set(_databases(plan)) <= set(held):
            raise Refusal(f"{plan.run.path} has changed meanwhile: try again")
        at = (now or datetime.now(UTC)).isoformat(timespec="seconds")
        record = {"at": at, **asked.to_dict(), "counts": dict(plan.counts)}
        with intents(plan.run.path, folders[1:]) as made:
            Writer(plan, made, progress).write(record)
    return Forgotten(plan, record)


def _folders(plan: Plan) -> list[Path]:
    """All that is written to, the named run first."""
    found = [plan.run.path, *(one.path for one, _ in plan.sets.values()), *(run.path for run in plan.runs)]
    found += [table.path for table in plan.tables]
    found += [Path(where) for _, where in plan.galleries if not is_url(where)]
    return list(dict.fromkeys(path.resolve() for path in found))


def _databases(plan: Plan) -> list[str]:
    """All databases that are written to, or may be sent to."""
    noted = [url for run in (plan.run, *plan.runs) for url in databases_of(run.path)]
    found = [*noted, *(where for _, where in plan.galleries if is_url(where))]
    return sorted(set(found))


def forgotten(run: str | Path) -> list[dict[str, Any]]:
    """What was forgotten with a run so far: a record each time, without pictures or features."""
    return of_run.remembered(Path(run))
