"""Looking for what is to be forgotten, in a run and in what lies beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn.app.formats import number
from tracklearn.app.model.of_run import isolated, parts_of
from tracklearn.app.people import table_beside
from tracklearn.store.forget import of_identities, of_set
from tracklearn.store.gallery import incoming
from tracklearn.store.gallery.folder import FolderGallery
from tracklearn.store.gallery.open import NOTE, databases_of, gallery_of, is_url, open_gallery
from tracklearn.store.gallery.steps import Kept
from tracklearn.store.identities.folder import Identities
from tracklearn.store.identities.journal import journal_path, journals_in
from tracklearn.store.runs import Run
from tracklearn.store.sealed import MANIFEST, read_sealed
from tracklearn.store.sets.tracklets import TrackletSet, open_set
from tracklearn.types import Array, Refusal

if TYPE_CHECKING:
    from tracklearn.store.gallery.postgres import PostgresGallery

from tracklearn.app.forgetting.plan import REMAINS, Asked, Plan, tracks


class Parts:
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
                for parts in (isolated(self.run, one, aside=True), parts_of(self.run, one)):
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


def plan_of(run: Run, asked: Asked, identities: str | Path | None) -> Plan:
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
    sent = _sent(asking.values())
    for each, where in _galleries(asking.values()):
        with open_gallery(where) as opened:
            if {one.digest for one in opened.sets} & sets.keys():
                galleries.append((each, where))
                entries += len(gone_rows(opened, each, sets))
                steps += people_left(opened, each, sets, {})[1]
    gone, rows, lines = _files_gone(asking.values(), tables), 0, 0
    parts = {each.manifest["digest"]: Parts(each) for each in asking.values()}
    changed = {digest: of_set.Shortened(one, keep, digest) for digest, (one, keep) in sets.items()}
    for one_table in tables:
        own = parts.get(one_table.manifest["run"], Parts(None))
        before = one_table.rows
        rows += len(before) - len(of_identities.rows_left(before, changed, own.lost(sets)))
        people = {person for person, *_ in of_identities.gone_boxes(before, changed)}
        gone += [p for n in sorted(people) if (p := one_table.path / "people" / f"{n:04d}.jpg").is_file()]
        gone += [p for p in (one_table.path / "timeline.svg",) if p.is_file()]
    # Journals of runs that never learned from a set know of it too, by the table that they went on from.
    journals = {journal_path(each.path).resolve() for each in asking.values()}
    journals |= {journal.resolve() for folder in around for journal in journals_in(folder)}
    said = {journal: journal.read_bytes() for journal in sorted(journals) if journal.is_file()}
    said = {
        journal: data for journal, data in said.items() if any(digest.encode() in data for digest in sets)
    }
    for data in said.values():
        lines += of_identities.journal_without(data, changed)[1]
    stays += _pictures_elsewhere(sets)
    films = sorted(
        {str(s["path"]) for one, _ in sets.values() for s in one.manifest["sources"] if "path" in s}
    )
    stays += (
        [f"the sources themselves stay, remove or cut them yourself: {', '.join(films[:8])}"] if films else []
    )
    stays.append(REMAINS)
    truth = [one for one, _ in sets.values() if of_set.truth_path(one.path).is_file()]
    crops = sum(int((~keep).sum()) for _, keep in sets.values())
    return Plan(
        run=run,
        asked=asked,
        sets=sets,
        runs=runs,
        tables=tables,
        galleries=galleries,
        journals=list(said),
        sent=sent,
        gone=gone,
        retrain=[*_weights(runs), *(file for each in later for file in _weights([each]))],
        stays=stays,
        counts={
            "crops": crops,
            "tracks": sum(tracks(one, keep) for one, keep in sets.values()),
            "entries": entries,
            "rows": rows,
            "people_pictures": sum(path.parent.name == "people" for path in gone),
            "journal_lines": lines,
            "steps": steps,
            "truth_rows": sum(int((~sets[one.digest][1]).sum()) for one in truth),
        },
    )


def _galleries(runs: Iterable[Run]) -> list[tuple[Run, str]]:
    """The galleries of some runs, those in databases that they had earlier too."""
    found = [(each, gallery_of(each.path)) for each in runs]
    found = [(each, where) for each, where in found if is_url(where) or Path(where).is_dir()]
    taken = {where for _, where in found}
    for each in runs:
        for url in databases_of(each.path):
            if url in taken:
                continue
            try:
                open_gallery(url).close()
            except FileNotFoundError:
                continue  # nothing came of it: see `_sent`
            found.append((each, url))
            taken.add(url)
    return found


def _sent(runs: Iterable[Run]) -> list[str]:
    """Databases where features of these runs, or of others, are on their way.

    Raises:
        ValueError: one of them cannot be reached, and who knows what is there.
    """
    found = []
    for each in runs:
        for url in databases_of(each.path):
            try:
                if url not in found and incoming.waiting(url):
                    found.append(url)
            except Refusal as error:
                raise Refusal(
                    f"{error}; features of what is to be forgotten may lie there. Where that database is "
                    f"gone for good, remove {each.path / NOTE} and index again"
                ) from error
    return found


def _known_sets(run: Run, table: Identities | None, stays: list[str]) -> dict[str, TrackletSet]:
    """The sets that the run, its gallery and its table of identities know, by digest."""
    wanted = {learned["digest"]: run.path / learned["path"] for learned in run.sets}
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
    crops = Parts(run)
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
            learned = [each for each in Run(path).sets if each["digest"] in sets]
            copies = [
                one.path
                for each in learned
                if (path / each["path"]).resolve() != (one := sets[each["digest"]][0]).path.resolve()
            ]
            if learned and not copies:
                runs.append(Run(path))
            elif learned:
                stays += [f"{path} learned from a copy of {each}: forget there too" for each in copies]
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


def gone_rows(
    gallery: FolderGallery | PostgresGallery, run: Run, sets: Mapping[str, tuple[TrackletSet, Array]]
) -> Array:
    """Places, in the gallery's entries, of the parts that lose a crop: a mean over it is no mean any more."""
    loses = Parts(run).lost(sets)
    return np.array([i for i, key in enumerate(gallery.entries.keys()) if loses(*key)], np.int64)


def people_left(
    gallery: FolderGallery | PostgresGallery,
    run: Run,
    sets: Mapping[str, tuple[TrackletSet, Array]],
    digests: Mapping[str, str],
) -> tuple[Kept, int]:
    """Who is left in a gallery, names and steps; how many steps go."""
    kept, loses = gallery.people.kept(), Parts(run).lost(sets)
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
