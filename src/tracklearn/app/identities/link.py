"""Who is who: from sets and a run to one table of people, with numbers that stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn import __version__
from tracklearn.app.identities import known
from tracklearn.app.identities.calibrated import CANNOT, Calibrated, learn, told, verdict
from tracklearn.app.identities.decisions import hear
from tracklearn.app.identities.footage import Footage, frame_features
from tracklearn.app.model.device import pick_device
from tracklearn.app.refusals import printable
from tracklearn.core.identities import (
    Evidence,
    Limits,
    Mistakes,
    belonging,
    exact,
    keep_numbers,
    link,
    mistakes,
)
from tracklearn.core.shown import representative
from tracklearn.core.whereabouts import Whereabouts, learned_ways, too_far
from tracklearn.store.files import relative, write_json
from tracklearn.store.identities.cameras import CameraRules, read_cameras
from tracklearn.store.identities.folder import CALIBRATION, DECISIONS, Identities, IdentityWriter, counts
from tracklearn.store.lock import locked
from tracklearn.store.objects import require_folder
from tracklearn.store.workers.chosen import engine_of
from tracklearn.types import Array, Progress, Refusal

if TYPE_CHECKING:
    from tracklearn.app.identities.known import Names, Said

NOBODY = -1
ADVICE = "start from a re-ID network (--weights osnet_x0_25), film longer, or take a better detector"


@dataclass(frozen=True, eq=False)
class Linked:
    """Who each part is.

    Args:
        number: (t,) int64 person from 1, NOBODY where nothing tells.
        probability: (t,) float64 that a part and the rest of its person are one; nan where there is no rest,
            or the part was not compared.
        how: for each part "compared", "alone", "reviewed", "its track" or "nobody".
        better: sets that the exact solution made better.
        ways: what was learned of the ways between cameras.
        expected: how wrong pairs are to be expected; None where no pairs tell.
    """

    number: Array
    probability: Array
    how: list[str]
    better: int
    ways: dict[tuple[int, int], float]
    expected: Mistakes | None


def identities(
    run: str | Path,
    sets: Sequence[str | Path],
    out: str | Path,
    *,
    false_merges: float | None = None,
    distance: float | None = None,
    cameras: str | Path | None = None,
    learn_travel: bool = False,
    solve: bool = False,
    review: str | Path | None = None,
    same: Sequence[str] = (),
    different: Sequence[str] = (),
    earlier: str | Path | None = None,
    device: str | None = None,
    workers: int | None = None,
    on: str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Identities:
    """Join the parts of one or several sets to people and write the table to the folder `out`.

    Args:
        run: whose network compares them.
        sets: tracklet sets; the run's own is taken as its isolation left it.
        out: folder to write.
        false_merges: share of pairs of two people that may be taken for one; else as `calibrated.threshold`.
        distance: of unit features below which two are joined, in the place of what pairs tell.
        cameras: `cameras.toml`, what is known of how cameras lie to one another.
        learn_travel: learn least travel times from links that are almost sure, where none are given.
        solve: solve small sets exactly, in the place of greedy linkage.
        review: journal of a person's decisions; the run's own by default.
        same, different: further decisions, "A=B"; they are added to the journal.
        earlier: folder of an earlier table, whose people keep their numbers; what a person said of it is
            followed too, and kept in the journal where it was another run's.
        device: where crops are embedded.
        workers, on: who embeds them, as for `ingest`.
        resume: replace a table that is there.

    Raises:
        FileExistsError: `out` exists and `resume` is off, or it is no table of identities.
        FileNotFoundError: a run, set, file or earlier table that is not there.
        ValueError: as `footage.gather`, `read_cameras`, `read_journal`; contradictory decisions; a rate that
            so few pairs cannot tell; an earlier table of none of the sets.
    """
    from tracklearn.app.identities.pictures import draw
    from tracklearn.app.identities.tracks import write_tracks

    require_folder(out)
    out = Path(out)
    engine = engine_of(on, workers)
    with ExitStack() as stack:
        stack.enter_context(locked(out))
        writer = IdentityWriter(out, replace=resume)
        heard = hear(run, sets, review=review, same=same, different=different, earlier=earlier)
        footage, names = heard.footage, heard.names
        rules = read_cameras(Path(cameras), footage.cameras) if cameras else CameraRules()
        old, highest = _earlier(earlier, footage)
        decisions, word = heard.keep()

        where = pick_device(device, elsewhere=on is not None)
        features = frame_features(footage, device=where, engine=engine, progress=progress)
        found = learn(footage, features)
        linked, limits = _linked(
            footage,
            found,
            lambda people: found.limits(false_merges, distance, people),
            rules,
            word,
            old,
            highest,
            learn_travel=learn_travel,
            solve=solve,
        )
        word_on = verdict(found, linked.expected)
        with writer:
            rows = _rows(footage, names, linked)
            writer.write_table(rows)
            write_json(writer.folder / CALIBRATION, found.to_dict())
            heard.write(writer.folder / DECISIONS, decisions)
            lost = write_tracks(writer.folder / "mot", footage, linked.number)
            unreadable = draw(writer.folder, footage, linked.number)
            writer.manifest.update(
                tracklearn=__version__,
                run=footage.run.manifest["digest"],
                sets=[
                    {"path": relative(one.path, out), "digest": one.digest, "cameras": list(one.cameras)}
                    for one in footage.sets
                ],
                cameras=list(footage.cameras),
                settings={
                    "false_merges": false_merges,
                    "distance": distance,
                    "solve": solve,
                    "learn_travel": learn_travel,
                },
                limits=None if limits is None else vars(limits) | limits.distances(),
                trusted=word_on != CANNOT or distance is not None,
                doubted=word_on is not None,
                expected=None
                if linked.expected is None
                else vars(linked.expected) | {"merged": linked.expected.merged},
                counts=dict(counts(rows)),
                highest=max([highest, *linked.number.tolist()]),
                solved_better=linked.better,
                ways=[
                    {"from": footage.cameras[a], "to": footage.cameras[b], "seconds": seconds}
                    for (a, b), seconds in sorted({**linked.ways, **rules.ways}.items())
                ],
                decisions=len(decisions),
                journal=relative(heard.journal, out),
                changes=_changes(old, linked.number, names) if earlier else None,
                notes=[
                    *_words(found, limits, distance, linked.expected),
                    *heard.notes,
                    *word.notes,
                    *_namesakes(footage),
                    *lost,
                    *unreadable,
                ],
            )
    return Identities(out)


def _namesakes(footage: Footage) -> list[str]:
    """Cameras of one name in several sets, where no clock tells whether they film at the same time."""
    camera, number = footage.tracks.camid, footage.joined.set_of(np.arange(len(footage.tracks)))
    unknown = np.isnan(footage.joined.began)
    names = [
        footage.cameras[c]
        for c in np.unique(camera).tolist()
        if len(np.unique(number[camera == c])) > 1 and unknown[camera == c].any()
    ]
    if not names:
        return []
    shown = ", ".join(map(printable, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return [
        f"in several sets and, having one name, taken for one camera: {shown}; if they are two, ingest "
        "one of the sets again under another name"
    ]


def _earlier(path: str | Path | None, footage: Footage) -> tuple[Array, int]:
    """(t,) the number that each part had in an earlier table, −1 for none; the highest that was given."""
    if path is None:
        return np.full(len(footage.parts), -1, np.int64), 0
    table = Identities(path)
    known_sets = {entry["digest"] for entry in table.manifest["sets"]}
    if not known_sets & {one.digest for one in footage.sets}:
        where = ", ".join(str(entry["path"]) for entry in table.manifest["sets"])
        raise Refusal(f"{path} knows none of these sets: give one of its own ({where}, seen from there) too")
    return known.old_numbers(footage, table.rows), int(table.manifest["highest"])


def _linked(
    footage: Footage,
    found: Calibrated,
    limits_of: Callable[[int], Limits | None],
    rules: CameraRules,
    word: Said,
    old: Array,
    highest: int,
    *,
    learn_travel: bool,
    solve: bool,
) -> tuple[Linked, Limits | None]:
    """Who each part is, and the limits that were taken: those for as many people as were found at first."""
    parts, t = footage.parts, len(footage.parts)
    where = footage.whereabouts(parts, together=rules.together)
    scrap, host = known.left_to_hosts(footage, word.reviewed)
    barred = known.barred(footage, where, rules)
    apart = known.without_those_said(barred, word.together, t)
    apart = np.concatenate([apart, word.apart])
    founder = np.flatnonzero(~scrap)
    place = np.full(t, -1, np.int64)
    place[founder] = np.arange(len(founder))

    def joined(apart: Array, limits: Limits | None) -> tuple[Evidence, Array]:
        # Nothing may be joined where nothing was learned: no cosine is above 2.
        limits = limits or Limits(2.0, 2.0)
        one = np.concatenate([word.together, known.kept_together(_of(old, scrap), apart, word.together)])
        pairs = [place[pair][(place[pair] >= 0).all(1)] for pair in (apart, one)]
        evidence = Evidence(
            found.mean[founder], parts.length[founder], parts.camid[founder], limits, pairs[0], pairs[1]
        )
        return evidence, link(evidence)

    limits = limits_of(1)
    evidence, label = joined(apart, limits)
    narrower = limits_of(int(label.max()) + 1)
    if narrower != limits:
        limits = narrower
        evidence, label = joined(apart, limits)
    ways: dict[tuple[int, int], float] = {}
    if learn_travel and found.curve is not None:
        ways = _ways(evidence, label, where, founder, found, rules)
        if ways:
            more = [too_far(where, way, seconds) for way, seconds in ways.items()]
            apart = np.concatenate([apart, known.without_those_said(np.concatenate(more), word.together, t)])
            evidence, label = joined(apart, limits)
    label, better = exact(evidence, label) if solve else (label, 0)
    distance = belonging(evidence, label)
    whole = label[place[host]]
    both = apart[whole[apart[:, 0]] == whole[apart[:, 1]]].ravel()
    nobody = np.zeros(t, bool)
    nobody[both] = scrap[both]  # its track is in view beside it: what it shows is somebody else
    kept = ~nobody
    number = np.full(t, NOBODY, np.int64)
    number[kept] = keep_numbers(whole, old, parts.length, highest=highest)[kept]
    probability = np.full(t, np.nan)
    if found.curve is not None:
        probability[founder] = np.where(np.isnan(distance), np.nan, found.curve(np.nan_to_num(distance)))
    how = [
        "nobody"
        if nobody[i]
        else "its track"
        if scrap[i]
        else "reviewed"
        if word.reviewed[i]
        else "compared"
        if not np.isnan(distance[place[i]])
        else "alone"
        for i in range(t)
    ]
    expected = None
    if found.linking is not None and limits is not None:
        pair = place[barred]
        expected = mistakes(evidence, found.linking.same, pair[(pair >= 0).all(1)])
    return Linked(number, probability, how, better, ways, expected), limits


def _of(old: Array, scrap: Array) -> Array:
    """Earlier numbers of those parts alone that are compared."""
    return np.where(scrap, -1, old)


def _ways(
    evidence: Evidence,
    label: Array,
    where: Whereabouts,
    founder: Array,
    found: Calibrated,
    rules: CameraRules,
) -> dict[tuple[int, int], float]:
    """Travel times from people's successive parts in different cameras, where none are given."""
    begin = where.begin[founder]
    order = np.lexsort((begin, label))
    a, b = order[:-1], order[1:]
    follow = (label[a] == label[b]) & (evidence.camid[a] != evidence.camid[b])
    pair = np.stack([a[follow], b[follow]], 1)
    x = evidence.mean.astype(np.float64)
    squared = 2 - 2 * np.einsum("ij,ij->i", x[pair[:, 0]], x[pair[:, 1]]) - found.shift
    assert found.curve is not None
    chance = found.curve(np.sqrt(np.clip(squared, 0, 4)))
    return {
        way: seconds
        for way, seconds in learned_ways(where, founder[pair], chance).items()
        if way not in rules.ways
    }


def _rows(footage: Footage, names: Names, linked: Linked) -> list[dict[str, Any]]:
    """The table, a row for each part."""
    parts = footage.parts
    shown = parts.crop[representative(parts)]
    rows = []
    for i in range(len(parts)):
        number, track = names.track(i)
        first, last = int(parts.start[i]), int(parts.start[i + 1]) - 1
        at = footage.moment(int(parts.source[i]), float(parts.time[first]))
        probability = float(linked.probability[i])
        rows.append(
            {
                "identity": int(linked.number[i]) if linked.number[i] != NOBODY else None,
                "probability": None if np.isnan(probability) else round(probability, 4),
                "how": linked.how[i],
                "set": printable(footage.paths[number]),  # a name may be no text
                "set_digest": footage.sets[number].digest,
                "camera": footage.cameras[int(parts.camid[i])],
                "track": track,
                "part": int(names.number[i]),
                "n_parts": int(names.n_parts[i]),
                "first_frame": int(parts.frame[first]),
                "last_frame": int(parts.frame[last]),
                "start": float(parts.time[first]),
                "end": float(parts.time[last]),
                "at": None if at is None else at.isoformat(timespec="milliseconds"),
                "n_crops": last - first + 1,
                "crop": int(shown[i] - footage.joined.first_crop[number]),
            }
        )
    return rows


def _changes(old: Array, number: Array, names: Names) -> dict[str, Any]:
    """What is new against an earlier table."""
    was = old >= 0
    before, now = set(old[was].tolist()), set(number[number != NOBODY].tolist())
    moved = np.flatnonzero(was & (number != old))
    return {
        "known": len(before & now),
        "new": sorted(now - before),
        "gone": sorted(before - now),
        "parts_known": int(was.sum()),
        "parts_kept": int((was & (number == old)).sum()),
        "moved": [
            {
                "part": names(int(i)),
                "from": int(old[i]),
                "to": None if number[i] == NOBODY else int(number[i]),
            }
            for i in moved
        ],
    }


def _words(
    found: Calibrated, limits: Limits | None, distance: float | None, expected: Mistakes | None
) -> list[str]:
    """What a person must know of these identities, the gravest first."""
    if limits is None:
        return [CANNOT, f"{found.too_few}: nobody was joined; --distance joins below a distance of your own"]
    wrong = [] if expected is None else told(expected)
    if distance is not None:
        return ["joined below the distance that was given, not one that pairs tell", *wrong]
    word = verdict(found, expected)
    notes = [word] if word is not None else []
    if found.linking is not None and not found.linking.separates:
        notes.append(
            f"{100 * found.linking.error:.0f} % of the pairs known as one person or as two are on the wrong "
            f"side: {ADVICE}"
        )
    notes += wrong
    if wrong and found.linking is not None and found.linking.separates:
        notes.append(ADVICE)
    if not found.across_trusted:
        notes.append("across cameras distances lie otherwise than within one: links there are a guess")
    return notes
