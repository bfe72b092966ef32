"""Forgetting: a person, a camera, or what is older than a day, wherever a run has left it.

`preview` says what would go, `forget` lets it go: crops out of their sets, features out of galleries, rows
out of tables, lines out of journals, pictures, reports and searches. All of it goes or none, whenever the
process is killed (`store/intents.py`). What a network has learned stays in its weights: which files these are
is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn.app.formats import number
from tracklearn.app.model.of_run import isolated, parts_of
from tracklearn.app.people import table_beside
from tracklearn.store.files import plain_json, read_json, write_atomic
from tracklearn.store.forget import of_identities, of_run, of_set
from tracklearn.store.gallery.folder import FolderGallery, people_path
from tracklearn.store.gallery.open import gallery_of, is_url, open_gallery
from tracklearn.store.gallery.rows import Kept, as_bytes, to_plain
from tracklearn.store.identities.folder import Identities
from tracklearn.store.identities.journal import journal_path
from tracklearn.store.intents import Intents, intents
from tracklearn.store.lock import locked
from tracklearn.store.runs import Run
from tracklearn.store.sealed import MANIFEST, read_sealed, write_sealed
from tracklearn.store.sets.tracklets import TrackletSet, open_set
from tracklearn.types import Array, Progress, Refusal

if TYPE_CHECKING:
    from tracklearn.store.gallery.postgres import PostgresGallery

ADVICE = "these learned from what is forgotten: train anew, export again, and remove them"
_REMAINS = "a disk and its backups may keep removed bytes for a while: that is the disk's to forget"


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
                {"path": str(one.path), "crops": int((~keep).sum()), "tracks": _tracks(one, keep)}
                for one, keep in self.sets.values()
            ],
            "runs": [str(run.path) for run in self.runs],
            "identities": [str(table.path) for table in self.tables],
            "galleries": [where for _, where in self.galleries],
            "gone": [str(path) for path in self.gone],
            "retrain": [str(path) for path in self.retrain],
            "stays": list(self.stays),
        }

    def text(self) -> str:
        """What a person is told."""
        lines = [f"{self.asked}: what goes"]
        for one, keep in self.sets.values():
            n = int((~keep).sum())
            lines.append(f"  {number(n)} crops of {number(_tracks(one, keep))} tracks in {one.path}")
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
        lines += [f"  {path}" for path in self.gone]
        if self.retrain:
            lines += [ADVICE + ":", *(f"  {path}" for path in self.retrain)]
        lines += self.stays
        return "\n".join(lines)


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
    return _plan(Run(run), Asked.of(person, camera, before), identities)


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
        FileNotFoundError, ValueError: as `preview`; another process writes to one of the folders.
        OSError: the disk is full or failing; all is as it was, or will be finished when one of the folders is
            opened next.
    """
    asked = Asked.of(person, camera, before)
    plan = _plan(Run(run), asked, identities)
    folders = _folders(plan)
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(locked(folder))
        plan = _plan(Run(run), asked, identities)  # what it is now that nobody else writes
        if _folders(plan) != folders:
            raise Refusal(f"{plan.run.path} has changed meanwhile: try again")
        at = (now or datetime.now(UTC)).isoformat(timespec="seconds")
        record = {"at": at, **asked.to_dict(), "counts": dict(plan.counts)}
        with intents(plan.run.path, folders[1:]) as made:
            _Writer(plan, made, progress).write(record)
    return Forgotten(plan, record)


def _folders(plan: Plan) -> list[Path]:
    """All that is written to, the named run first."""
    found = [plan.run.path, *(one.path for one, _ in plan.sets.values()), *(run.path for run in plan.runs)]
    found += [table.path for table in plan.tables]
    found += [Path(where) for _, where in plan.galleries if not is_url(where)]
    return list(dict.fromkeys(path.resolve() for path in found))


def _tracks(one: TrackletSet, keep: Array) -> int:
    return len(np.unique(one.tracklets.tracklet[~keep]))


class _Parts:
    """The crops of the parts that a run makes of sets.

    Args:
        run: whose isolation cuts them; None where it is not known.
    """

    def __init__(self, run: Run | None) -> None:
        self.run = run
        self._known: dict[str, dict[tuple[int, int, int], Array]] = {}

    def crops(self, one: TrackletSet, track: int, first: int, last: int) -> Array:
        """Rows of a part's crops; where the run makes no such part, all of the track between its frames."""
        known = self.of(one)
        if (track, first, last) in known:
            return known[track, first, last]
        if track >= len(one.tracklets):
            return np.zeros(0, np.int64)
        own = np.arange(*one.tracklets.start[track : track + 2])
        frame = one.tracklets.frame[own]
        return own[(frame >= first) & (frame <= last)]

    def of(self, one: TrackletSet) -> dict[tuple[int, int, int], Array]:
        """Track, first and last frame -> rows of crops, of all parts of a set."""
        if one.digest not in self._known:
            found: dict[tuple[int, int, int], Array] = {}
            if self.run is not None:
                # A table or a gallery may be of before or after a cut by hand.
                for parts in (isolated(self.run, one), parts_of(self.run, one)):
                    start = parts.start
                    for i in range(len(parts)):
                        rows = np.arange(start[i], start[i + 1])
                        first, last = parts.frame[rows[[0, -1]]].tolist()
                        found[int(parts.source[i]), first, last] = parts.crop[rows]
            self._known[one.digest] = found
        return self._known[one.digest]

    def lost(self, sets: Mapping[str, tuple[TrackletSet, Array]]) -> Any:
        """A function of a set's digest, a track and two frames: whether that part loses a crop."""

        def loses(digest: str, track: int, first: int, last: int) -> bool:
            if digest not in sets:
                return False
            one, keep = sets[digest]
            return bool((~keep[self.crops(one, track, first, last)]).any())

        return loses


def _plan(run: Run, asked: Asked, identities: str | Path | None) -> Plan:
    run.weights_path()  # refuses what has not been trained to its end
    table = table_beside(run.path, identities)
    stays: list[str] = []
    known = _known_sets(run, table, stays)
    masks = _masks(run, asked, table, known, stays)
    sets = {digest: (known[digest], keep) for digest, keep in masks.items() if not keep.all()}
    if not sets:
        raise Refusal(f"{asked}: nothing of it is in the sets of {run.path}")
    around = sorted({run.path.resolve().parent, *(one.path.resolve().parent for one, _ in sets.values())})
    runs, tables, later = _beside(around, sets, stays)
    if table is not None and not any(t.path.resolve() == table.path.resolve() for t in tables):
        tables += [table] if {entry["digest"] for entry in table.manifest["sets"]} & sets.keys() else []
    unfinished = next((each for each in runs if not each.finished), None)
    if unfinished is not None:
        raise Refusal(
            f"{unfinished.path} learns from one of these sets and is not finished: go on with "
            "tracklearn train … --resume, or remove it"
        )
    asking = {each.path.resolve(): each for each in (run, *runs)}
    galleries, entries, steps = [], 0, 0
    for each in asking.values():
        where = gallery_of(each.path)
        if not is_url(where) and not Path(where).is_dir():
            continue
        with open_gallery(where) as opened:
            if {one.digest for one in opened.sets} & sets.keys():
                galleries.append((each, where))
                entries += len(_gone_rows(opened, each, sets))
                steps += _people_left(opened, each, sets, {})[1]
    gone, rows, lines = _files_gone(asking.values(), tables), 0, 0
    parts = {each.manifest["digest"]: _Parts(each) for each in asking.values()}
    changed = {digest: of_set.Shortened(one, keep, digest) for digest, (one, keep) in sets.items()}
    for one_table in tables:
        own = parts.get(one_table.manifest["run"], _Parts(None))
        before = one_table.rows
        rows += len(before) - len(of_identities.rows_left(before, changed, own.lost(sets)))
        people = {person for person, *_ in of_identities.gone_boxes(before, changed)}
        gone += [p for n in sorted(people) if (p := one_table.path / "people" / f"{n:04d}.jpg").is_file()]
        gone += [p for p in (one_table.path / "timeline.svg",) if p.is_file()]
    for journal in (journal_path(each.path) for each in asking.values()):
        if journal.is_file():
            lines += of_identities.journal_without(journal.read_bytes(), changed)[1]
    stays += _pictures_elsewhere(sets)
    films = sorted(
        {str(s["path"]) for one, _ in sets.values() for s in one.manifest["sources"] if "path" in s}
    )
    stays += (
        [f"the sources themselves stay, remove or cut them yourself: {', '.join(films[:8])}"] if films else []
    )
    stays.append(_REMAINS)
    truth = [one for one, _ in sets.values() if of_set.truth_path(one.path).is_file()]
    crops = sum(int((~keep).sum()) for _, keep in sets.values())
    return Plan(
        run=run,
        asked=asked,
        sets=sets,
        runs=runs,
        tables=tables,
        galleries=galleries,
        gone=gone,
        retrain=[*_weights(runs), *(file for each in later for file in _weights([each]))],
        stays=stays,
        counts={
            "crops": crops,
            "tracks": sum(_tracks(one, keep) for one, keep in sets.values()),
            "entries": entries,
            "rows": rows,
            "people_pictures": sum(path.parent.name == "people" for path in gone),
            "journal_lines": lines,
            "steps": steps,
            "truth_rows": sum(int((~sets[one.digest][1]).sum()) for one in truth),
        },
    )


def _known_sets(run: Run, table: Identities | None, stays: list[str]) -> dict[str, TrackletSet]:
    """The sets that the run, its gallery and its table of identities know, by digest."""
    wanted = {run.manifest["set"]["digest"]: run.path / run.manifest["set"]["path"]}
    where = gallery_of(run.path)
    if is_url(where) or Path(where).is_dir():
        with open_gallery(where) as opened:
            wanted |= {one.digest: run.path / one.path for one in opened.sets if one.path}
    if table is not None:
        for entry in table.manifest["sets"]:
            wanted.setdefault(entry["digest"], table.path / entry["path"])
    found = {}
    for digest, path in wanted.items():
        try:
            opened_set = open_set(path)
        except FileNotFoundError:
            opened_set = None
        if opened_set is None or opened_set.digest != digest:
            stays.append(f"{path} is not there, or is another set by now: what is in it was not looked at")
        else:
            found[digest] = opened_set
    return found


def _masks(
    run: Run,
    asked: Asked,
    table: Identities | None,
    known: Mapping[str, TrackletSet],
    stays: list[str],
) -> dict[str, Array]:
    """(n,) bool crops that stay, of each set."""
    if asked.person is not None:
        return _without_person(run, asked.person, table, known)
    if asked.camera is not None and not any(asked.camera in one.cameras for one in known.values()):
        names = sorted({name for one in known.values() for name in one.cameras if name})
        raise Refusal(f"no camera named {asked.camera!r}, expected one of: {', '.join(names)}")
    masks = {}
    for digest, one in known.items():
        tracklets = one.tracklets
        go = np.ones(tracklets.n_crops, bool)
        if asked.camera is not None:
            own = [i for i, name in enumerate(one.cameras) if name == asked.camera]
            go &= np.isin(tracklets.camid[tracklets.tracklet], own)
        if asked.before is not None:
            until, unknown = _until(one, asked.before)
            go &= tracklets.time < until[tracklets.tracklet]
            if unknown:
                stays.append(
                    f"{number(unknown)} tracks of {one.path} stay: nobody knows when they were filmed"
                )
        masks[digest] = ~go
    return masks


def _until(one: TrackletSet, before: datetime) -> tuple[Array, int]:
    """(t,) float64, how far into its film a moment is for each track, −inf where nobody knows; how many."""
    t = len(one.tracklets)
    until, unknown = np.full(t, -np.inf), 0
    for track in np.flatnonzero(one.tracklets.length > 0).tolist():
        began = one.moment(track, 0.0)
        if began is None:
            unknown += 1
            continue
        wanted = before
        if (began.tzinfo is None) != (before.tzinfo is None):  # a time without a zone is that of the other's
            wanted = before.replace(tzinfo=began.tzinfo) if before.tzinfo is None else before
            began = began if began.tzinfo is not None else began.replace(tzinfo=before.tzinfo)
        until[track] = (wanted - began) / timedelta(seconds=1)
    return until, unknown


def _without_person(
    run: Run, person: int, table: Identities | None, known: Mapping[str, TrackletSet]
) -> dict[str, Array]:
    parts: list[tuple[str, int, int, int, int]] = []
    where = gallery_of(run.path)
    if is_url(where) or Path(where).is_dir():
        with open_gallery(where) as opened:
            source = str(table.manifest["files"].get("identities.parquet", "")) if table is not None else ""
            # What was edited in a gallery is newer than the table that it came from.
            if opened.people.adopted and (table is None or opened.people.adopted == source):
                parts = [(*row[:4], row[4]) for row in opened.people.identities()]
    if not parts and table is not None:
        names = ("set_digest", "track", "first_frame", "last_frame", "identity")
        known_rows = [row for row in table.rows if row["identity"] is not None]
        parts = [tuple(row[n] for n in names) for row in known_rows]
    if not parts:
        raise Refusal(
            f"nobody is told apart yet in {run.path}: tracklearn identities RUN SET... --out DIR does"
        )
    own = [part for part in parts if part[4] == person]
    if not own:
        numbers = sorted({part[4] for part in parts})
        raise Refusal(f"there is no person {person}: the numbers are {numbers[0]} to {numbers[-1]}")
    crops = _Parts(run)
    masks = {digest: np.ones(one.n_crops, bool) for digest, one in known.items()}
    for digest, track, first, last, _ in own:
        if digest not in known:
            raise Refusal(
                f"person {person} is in a set that is not there (track {track}): put it back, or make the "
                "identities anew"
            )
        one = known[digest]
        masks[digest][crops.crops(one, track, first, last)] = False
        # What isolation dropped of the track is nobody's, and may show the person.
        rows = np.arange(*one.tracklets.start[track : track + 2])
        taken = [found for (source, _, _), found in crops.of(one).items() if source == track]
        masks[digest][np.setdiff1d(rows, np.concatenate([rows[:0], *taken]))] = False
    return masks


def _beside(
    around: Sequence[Path], sets: Mapping[str, tuple[TrackletSet, Array]], stays: list[str]
) -> tuple[list[Run], list[Identities], list[Run]]:
    """Runs that learned from the sets, tables that know them, runs that went on from such runs.

    Raises:
        ValueError: a set there borrows its pictures from one of them.
    """
    runs, tables, later = [], [], []
    for path, kind in _folders_of(around):
        manifest = read_sealed(path / MANIFEST, remedy="put it back from a copy, or remove the folder")
        if kind == "run":
            if manifest["set"]["digest"] in sets:
                one = sets[manifest["set"]["digest"]][0]
                if (path / manifest["set"]["path"]).resolve() == one.path.resolve():
                    runs.append(Run(path))
                else:
                    stays.append(f"{path} learned from a copy of {one.path}: forget there too")
            elif {entry["digest"] for entry in manifest.get("earlier_sets", ())} & sets.keys():
                later.append(Run(path))
        elif kind == "identities":
            if {entry["digest"] for entry in manifest["sets"]} & sets.keys():
                tables.append(Identities(path))
        elif manifest.get("images", {}).get("kind") == "shards" and manifest["images"]["digest"] in sets:
            lender = sets[manifest["images"]["digest"]][0].path
            raise Refusal(
                f"{path} borrows its pictures from {lender}: remove it first, and make it again afterwards"
            )
    return runs, tables, later


def _folders_of(around: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Folders of this program in some folders, and what they are."""
    for folder in around:
        for path in sorted(p for p in folder.iterdir() if p.is_dir()):
            try:
                kind = read_sealed(path / MANIFEST, remedy="").get("kind")
            except (OSError, ValueError):
                continue
            if kind in ("run", "identities", "tracklet set"):
                yield path, str(kind)


def _files_gone(runs: Any, tables: Sequence[Identities]) -> list[Path]:
    """Files with pictures of people that cannot be told apart: reports, and what was searched for."""
    found = []
    for run in runs:
        found += [run.path / "report.html", run.path / "searches"]
        if (run.path.parent / "stages.json").is_file():
            found.append(run.path.parent / "report.html")
    return [path for path in dict.fromkeys(found) if path.exists()]


def _weights(runs: Sequence[Run]) -> list[Path]:
    found = []
    for run in runs:
        found += sorted(run.path.glob("weights*.safetensors"))
        found += sorted((run.path / "stages").glob("*.safetensors"))
        found += sorted(p for p in (run.path / "export").glob("*") if not p.name.startswith("."))
    return found


def _pictures_elsewhere(sets: Mapping[str, tuple[TrackletSet, Array]]) -> list[str]:
    """Images of the user's own that a set refers to: they stay."""
    return [
        f"{number(int((~keep).sum()))} images stay where they are, below {one.root}: remove them yourself"
        for one, keep in sets.values()
        if one.manifest.get("images", {}).get("kind") == "files"
    ]


def _gone_rows(
    gallery: FolderGallery | PostgresGallery, run: Run, sets: Mapping[str, tuple[TrackletSet, Array]]
) -> Array:
    """Places, in the gallery's entries, of the parts that lose a crop: a mean over it is no mean any more."""
    loses = _Parts(run).lost(sets)
    return np.array([i for i, key in enumerate(gallery.entries.keys()) if loses(*key)], np.int64)


def _people_left(
    gallery: FolderGallery | PostgresGallery,
    run: Run,
    sets: Mapping[str, tuple[TrackletSet, Array]],
    digests: Mapping[str, str],
) -> tuple[Kept, int]:
    """Who is left in a gallery, names and steps; how many steps go."""
    kept, loses = gallery.people.kept(), _Parts(run).lost(sets)
    changed = {digest: of_set.Shortened(one, keep, digest) for digest, (one, keep) in sets.items()}
    rows = [row for row in kept.identities if not loses(*row[:4])]
    people = {row[4] for row in rows}
    went = {row[4] for row in kept.identities} - people
    steps = []
    for step in kept.steps:
        places = [place for decision in step.decisions for place in (decision.a, decision.b)]
        if any(loses(*move.part) for move in step.moves) or any(
            naming.person in went for naming in step.names
        ):
            continue
        if any(of_identities.place_is_gone(place, changed) for place in places):
            continue
        moved = tuple(
            replace(
                decision,
                a=replace(decision.a, set=digests.get(decision.a.set, decision.a.set)),
                b=replace(decision.b, set=digests.get(decision.b.set, decision.b.set)),
            )
            for decision in step.decisions
        )
        steps.append(replace(step, moves=(), names=(), decisions=moved, note={}))
    names = {person: name for person, name in kept.names.items() if person not in went}
    new = tuple((digests.get(row[0], row[0]), *row[1:]) for row in rows)
    return Kept(new, names, tuple(steps), kept.adopted), len(kept.steps) - len(steps)


@dataclass
class _Writer:
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
            of_run.without(run, self.changed[run.manifest["set"]["digest"]], made, made.room(f"run-{i}"))
        runs = {each.path.resolve(): each for each in (plan.run, *plan.runs)}
        digests = {run.manifest["digest"]: run for run in runs.values()}
        for i, table in enumerate(plan.tables):
            lost = _Parts(digests.get(table.manifest["run"])).lost(plan.sets)
            was, now = of_identities.without(table, self.changed, lost, made, made.room(f"identities-{i}"))
            self.tables[was] = now
        for i, (run, where) in enumerate(plan.galleries):
            self._tell("gallery", i, len(plan.galleries))
            self._gallery(run, where, made.room(f"gallery-{i}"))
        room = made.room("rest")
        for i, run in enumerate(runs.values()):
            journal = journal_path(run.path)
            if journal.is_file():
                data, _ = of_identities.journal_without(journal.read_bytes(), self.changed)
                self._put(data, room / f"journal-{i}", journal) if data else made.remove(journal)
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
            kept, _ = _people_left(opened, run, self.plan.sets, digests)
            kept = replace(kept, adopted=self.tables.get(kept.adopted, kept.adopted))
            gone = set(_gone_rows(opened, run, self.plan.sets).tolist())
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


def forgotten(run: str | Path) -> list[dict[str, Any]]:
    """What was forgotten with a run so far: a record each time, without pictures or features."""
    return of_run.remembered(Path(run))
