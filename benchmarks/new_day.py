"""A new day: the second half of a world's films, with yesterday's learning, numbers and decisions.

    python -m benchmarks.new_day --cache DIR --weights FILE [--boxes motion] [--method NAME] [--seed N]
        [--cameras N] [--epochs N] [--iterations N]

A generated world (24 people) is filmed by N cameras (--cameras), its films are ingested along the true boxes
of people of whom half is visible (or, with --boxes motion, by the motion detector and ByteTrack), and every
track is cut at the middle of its film: the first half of the footage is SET_OLD, the second SET_NEW. Then, as
a user would do:

    train SET_OLD --weights FILE                        identities RUN_OLD SET_OLD
    train SET_OLD SET_NEW --weights RUN_OLD             identities RUN_NEW SET_OLD SET_NEW --from …
    and, without training again,                        identities RUN_OLD SET_OLD SET_NEW --from …

A decision is made on the first table (--same, of two parts of one person that stand apart, and --different,
of two of two people that stand together, where there are any, found by the truth as a person would by eye),
the table of SET_OLD is made again with it, and the other two go on from that one.

Of each table: known parts that keep their number; of the parts of people who were seen before, those that
have the number which most of the person's crops had in the table of SET_OLD (in SET_OLD, and in SET_NEW); F1
of pairs of parts. Truth is opened after all of that. Sets, runs and tables are kept in DIR. Prints the table,
writes new_day.json.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.identities import pair_rates
from benchmarks.world_identities import METHODS, settings
from benchmarks.world_identities import filmed as along_truth
from tracklearn.app.identities.link import identities
from tracklearn.app.judge.rates import match_truth
from tracklearn.app.pipeline.plan import plan_training
from tracklearn.app.pipeline.training import train
from tracklearn.core.shown import called
from tracklearn.store.film.mot import read_truth as read_boxes
from tracklearn.store.identities.folder import Identities
from tracklearn.store.ingest import ingest
from tracklearn.store.runs import Run
from tracklearn.store.sets.tracklets import SetWriter, open_set, read_truth
from tracklearn.types import Array

SHORTEST = 4  # crops of a half of a track that is kept
AIM = 0.95

Row = dict[str, Any]


def filmed(cameras: int, seed: int, cache: Path, boxes: str) -> tuple[Path, Array]:
    """The set of a world's films, and the person of each of its crops."""
    path, seen = along_truth(cameras, seed, cache)
    if boxes == "truth":
        return path, read_truth(path).pid
    films, path = path.parent / "films", path.parent / "found"
    names = [one.stem for one in sorted(seen.glob("*.txt"))]
    if not path.exists():
        sources = [f"{name}={films / name}.mp4" for name in names]
        ingest.ingest(sources, path, config=ingest.Config(detector="motion"), resume=True)
    truth = {name: read_boxes(films / f"{name}.gt.txt") for name in names}
    return path, match_truth(open_set(path), truth).pid


def halves(path: Path, pid: Array, out: Path) -> list[Path]:
    """Write the halves of a set's films as sets of their own, with the truth beside them.

    Args:
        path: a set. pid: (n,) person of each crop row.
        out: folder for `old` and `new`.
    """
    opened = open_set(path)
    t = opened.tracklets
    camera = np.array(opened.cameras)[t.camid]
    of_row = camera[t.tracklet]
    last = {name: int(t.frame[of_row == name].max()) for name in np.unique(camera).tolist()}
    late = 2 * t.frame > np.array([last[name] for name in of_row.tolist()])
    written = []
    for name, wanted in (("old", ~late), ("new", late)):
        if not (out / name).exists():
            with SetWriter(out / name) as writer:
                for key, own in enumerate(last):
                    part = writer.part(f"{key:x}" * 64, truth=True)
                    for i in np.flatnonzero(camera == own).tolist():
                        rows = np.arange(t.start[i], t.start[i + 1])
                        rows = rows[wanted[rows]]
                        if len(rows) >= SHORTEST:
                            part.add(
                                [opened.jpeg(int(row)) for row in t.crop[rows]],
                                camera=own,
                                frame=t.frame[rows],
                                time=t.time[rows],
                                box=t.box[rows],
                                score=t.score[rows],
                                pid=pid[t.crop[rows]],
                            )
                    half = {"camera": own, "kind": "video", "status": "ok"}
                    part.finish({**half, "video": {"seconds": float(t.time.max())}})
                writer.finish({"stride": opened.manifest["settings"].get("stride", 1)})
        written.append(out / name)
    return written


def trained(sets: Sequence[Path], out: Path, weights: Path, learning: tuple[str, int, int]) -> Run:
    """A run on some sets from some weights, of a method, epochs and iterations; what is there goes on."""
    method, epochs, iterations = learning
    plan = plan_training(
        sets,
        method="tmc" if method == "none" else method,
        weights=str(weights),
        preset="cpu",
        device="cpu",
        overrides=settings(method, epochs, iterations),
    )
    for _ in train(plan, out, resume=out.exists()):
        pass
    return Run(out)


def persons(table: Identities, sets: Sequence[Path]) -> Array:
    """(rows,) the person of most crops of each row's part, −1 for nobody."""
    opened = {one.digest: (one.tracklets, read_truth(one.path).pid) for one in map(open_set, sets)}
    found = np.full(len(table.rows), -1, np.int64)
    for i, row in enumerate(table.rows):
        t, pid = opened[row["set_digest"]]
        rows = np.arange(t.start[row["track"]], t.start[row["track"] + 1])
        rows = rows[(t.frame[rows] >= row["first_frame"]) & (t.frame[rows] <= row["last_frame"])]
        known = Counter(p for p in pid[t.crop[rows]].tolist() if p >= 0)
        if known and 2 * known.most_common(1)[0][1] > len(rows):
            found[i] = known.most_common(1)[0][0]
    return found


def numbers(rows: Sequence[Row], person: Array) -> dict[int, int]:
    """Person -> the number that most of his crops have."""
    crops: dict[int, Counter[int]] = {}
    for row, who in zip(rows, person.tolist(), strict=True):
        if who >= 0 and row["identity"] is not None:
            crops.setdefault(who, Counter())[row["identity"]] += row["n_crops"]
    return {who: count.most_common(1)[0][0] for who, count in crops.items()}


def decisions(table: Identities, person: Array) -> dict[str, list[tuple[Row, Row]]]:
    """What somebody who looks at a table would say first: one pair of each kind, where there is one."""
    rows = [
        (i, row) for i, row in enumerate(table.rows) if row["how"] in ("compared", "alone") and person[i] >= 0
    ]
    found: dict[str, list[tuple[Row, Row]]] = {"same": [], "different": []}
    for n, (i, a) in enumerate(rows):
        for j, b in rows[n + 1 :]:
            one, said = person[i] == person[j], a["identity"] == b["identity"]
            kind = "same" if one else "different"
            if one != said and not found[kind] and a["track"] != b["track"]:
                found[kind] = [(a, b)]
    return found


def written(pair: tuple[Row, Row]) -> str:
    """A decision as the command line takes it, of the first of several sets."""
    return "=".join(f"1:{called(row['track'], row['part'], row['n_parts'])}" for row in pair)


def followed(table: Identities, said: dict[str, list[tuple[Row, Row]]]) -> bool | None:
    """Whether a table follows decisions on parts of another one; None where there are none."""
    right = [
        (_identity(table, a) == _identity(table, b)) == (kind == "same")
        for kind, pairs in said.items()
        for a, b in pairs
    ]
    return all(right) if right else None


def _identity(table: Identities, part: Row) -> int | None:
    """Who is in the middle of a part of another table, however its track is cut here."""
    middle = (part["first_frame"] + part["last_frame"]) // 2
    own = [
        row
        for row in table.rows
        if (row["set_digest"], row["track"]) == (part["set_digest"], part["track"])
        and row["first_frame"] <= middle <= row["last_frame"]
    ]
    return min(own, key=lambda row: row["last_frame"] - row["first_frame"])["identity"] if own else None


def judged(table: Identities, sets: Sequence[Path], before: dict[int, int]) -> Row:
    """The columns of a table; `before`: person -> number in the first table."""
    person = persons(table, sets)
    digest = [open_set(path).digest for path in sets]
    rows = table.rows
    row: Row = {"people": table.manifest["counts"]["people"]}
    for name, one in zip(("old", "new"), digest, strict=False):
        own = [i for i, r in enumerate(rows) if r["set_digest"] == one and person[i] in before]
        right = [rows[i]["identity"] == before[int(person[i])] for i in own]
        row[f"parts {name}"] = len(own)
        row[f"numbered {name}"] = float(np.mean(right)) if right else None
        # A person's number of the day is that of most of his crops.
        today = numbers([rows[i] for i in own], person[own])
        row[f"people {name}"] = len(today)
        row[f"people kept {name}"] = sum(before[who] == number for who, number in today.items())
    known = np.flatnonzero((person >= 0) & [r["identity"] is not None for r in rows])
    label = np.array([rows[i]["identity"] for i in known])
    row["precision"], row["recall"], row["f1"] = pair_rates(label, person[known])
    changes = table.manifest["changes"]
    row["kept"] = None if not changes else changes["parts_kept"] / max(changes["parts_known"], 1)
    row["doubted"] = table.manifest["doubted"]
    return row


def run(
    cache: Path, weights: Path, *, boxes: str, cameras: int, seed: int, learning: tuple[str, int, int]
) -> dict[str, Any]:
    """All of it: a row for each table, and whether decisions were followed."""
    path, pid = filmed(cameras, seed, cache, boxes)
    folder = cache / f"day-{cameras}-{seed}-{'-'.join(map(str, learning))}-{weights.stem}-{boxes}"
    old, new = halves(path, pid, folder)
    both = [old, new]
    first_run = trained([old], folder / "run-old", weights, learning)
    first = identities(
        first_run.path, [old], folder / "first", device="cpu", resume=True, review=folder / "none.jsonl"
    )  # before anybody has looked at it
    person = persons(first, [old])
    said = decisions(first, person)
    reviewed = identities(
        first_run.path, [old], folder / "reviewed", earlier=first.path, resume=True, device="cpu",
        same=[written(pair) for pair in said["same"]],
        different=[written(pair) for pair in said["different"]],
    )  # fmt: skip
    tables = {}
    tables["old run, new day"] = identities(
        first_run.path, both, folder / "untrained", earlier=reviewed.path, resume=True, device="cpu"
    )
    new_run = trained(both, folder / "run-new", first_run.path, learning)
    tables["new run, new day"] = identities(
        new_run.path, both, folder / "second", earlier=reviewed.path, resume=True, device="cpu"
    )
    before = numbers(reviewed.rows, persons(reviewed, [old]))
    return {
        "first": judged(first, [old], before),
        "tables": {name: judged(table, both, before) for name, table in tables.items()},
        "decisions": {kind: len(pairs) for kind, pairs in said.items()},
        "followed": {name: followed(table, said) for name, table in tables.items()},
    }


def bars(found: dict[str, Any]) -> list[measure.Bar]:
    """Known parts that keep their numbers, and parts of known people on the new day, of either table."""
    made = []
    for name, row in found["tables"].items():
        made.append(measure.Bar(f"{name}: known parts with their number", AIM, row["kept"], at_least=True))
        made.append(
            measure.Bar(
                f"{name}: people with their number", AIM,
                row["people kept new"] / max(row["people new"], 1), at_least=True,
            )
        )  # fmt: skip
        made.append(measure.Bar(f"{name}: parts of known people", AIM, row["numbered new"], at_least=True))
    return made


COLUMNS = (
    "people", "kept", "parts old", "numbered old", "people old", "people kept old", "parts new",
    "numbered new", "people new", "people kept new", "precision", "recall", "f1", "doubted",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, help="folder for films, sets, runs and tables")
    parser.add_argument("--weights", type=Path, required=True, help="weights to start the first run from")
    parser.add_argument("--boxes", choices=("truth", "motion"), default="truth", help="whose tracks")
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--seed", type=int, default=12, help="of the world")
    parser.add_argument("--method", choices=METHODS, default="cap")
    parser.add_argument("--epochs", type=int, default=8, help="of each training")
    parser.add_argument("--iterations", type=int, default=40, help="batches an epoch")
    parser.add_argument("--out", type=Path, default=measure.RESULTS, help="folder of the results")
    given = parser.parse_args(arguments)
    learning = given.method, given.epochs, given.iterations
    found = run(
        given.cache, given.weights, boxes=given.boxes, cameras=given.cameras, seed=given.seed,
        learning=learning,
    )  # fmt: skip
    rows = [("first day", found["first"]), *found["tables"].items()]
    print(measure.table(("table", *COLUMNS), [(name, *(row.get(c) for c in COLUMNS)) for name, row in rows]))
    print(f"decisions followed: {found['followed']}")
    print(measure.bars_table(bars(found)))
    named = ("boxes", "cameras", "seed", "method", "epochs", "iterations")
    asked = {name: getattr(given, name) for name in named}
    asked |= {"weights": given.weights.name, "set": settings(*learning)}
    measure.save("new_day", {**found, "bars": bars(found)}, settings=asked, folder=given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
