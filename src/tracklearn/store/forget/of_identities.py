"""A table of identities, and a journal of decisions, without some crops of their sets."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from tracklearn.store.files import plain_json, write_atomic
from tracklearn.store.forget.of_set import Shortened
from tracklearn.store.identities.folder import COLUMNS, CSV, DECISIONS, TABLE, Identities, counts
from tracklearn.store.identities.journal import Place
from tracklearn.store.intents import Intents
from tracklearn.store.sealed import MANIFEST, write_sealed
from tracklearn.types import Array

_TIMELINE = "timeline.svg"


def rows_left(
    rows: list[dict[str, Any]], changed: Mapping[str, Shortened], lost: Callable[[str, int, int, int], bool]
) -> list[dict[str, Any]]:
    """The rows of a table whose part loses no crop, with the new digests of their sets and rows of their
    crops.

    Args:
        rows: of `Identities`.
        changed: sets, by the digest they had.
        lost: digest, track, first and last frame of a part -> whether it loses a crop.
    """
    left = []
    for row in rows:
        now = changed.get(row["set_digest"])
        if now is None:
            left.append(row)
        elif not lost(row["set_digest"], row["track"], row["first_frame"], row["last_frame"]):
            left.append({**row, "set_digest": now.digest, "crop": max(int(now.new_row[row["crop"]]), 0)})
    return left


def without(
    table: Identities,
    changed: Mapping[str, Shortened],
    lost: Callable[[str, int, int, int], bool],
    intents: Intents,
    room: Path,
) -> tuple[str, str]:
    """Prepare a folder of identities whose sets lose some crops.

    Rows of parts that lose a crop go, boxes of these crops go from the corrected tracks, and so do the
    pictures of everybody who had such a part, and the timeline.

    Args:
        table: the folder.
        changed, lost: as of `rows_left`.
        intents: where its files are to be put into place.
        room: a folder of the intents.

    Returns:
        The sum of the table before, and afterwards.
    """
    rows = table.rows
    left = rows_left(rows, changed, lost)
    files: dict[str, bytes] = {}
    made = pa.Table.from_pylist(left, schema=pa.schema(list(COLUMNS.items())))
    for name, write, content in (
        (TABLE, pq.write_table, made),
        (CSV, csv.write_csv, made.drop_columns(["set_digest", "crop"])),
    ):
        buffer = io.BytesIO()
        write(content, buffer)
        files[name] = buffer.getvalue()
    gone = gone_boxes(rows, changed)
    people = {person for person, _, _, _ in gone}
    drop = [_TIMELINE, *(f"people/{person:04d}.jpg" for person in sorted(people))]
    for path in sorted((table.path / "mot").glob("*.txt")):
        lines = path.read_bytes().splitlines(keepends=True)
        files[f"mot/{path.name}"] = b"".join(line for line in lines if not _is_gone(line, gone))
    said = len(table.word.decisions) + len(table.word.cuts)  # refuses a file that is not what was written
    if said:
        kept, went = journal_without((table.path / DECISIONS).read_bytes(), changed)
        said -= went
        if kept:
            files[DECISIONS] = kept
        else:
            drop.append(DECISIONS)
    sums = {name: sha for name, sha in table.manifest["files"].items() if name not in drop}
    for name, data in files.items():
        staged = room / name.replace("/", "-")
        write_atomic(staged, data)
        intents.move(staged, table.path / name)
        sums[name] = hashlib.sha256(data).hexdigest()
    for name in drop:
        if (table.path / name).is_file():
            intents.remove(table.path / name)
    sets = [
        {**each, "digest": changed[each["digest"]].digest if each["digest"] in changed else each["digest"]}
        for each in table.manifest["sets"]
    ]
    manifest = {
        **table.manifest,
        "sets": sets,
        "files": sums,
        "counts": dict(counts(left)),
        "changes": None,
        "decisions": said,
    }
    write_sealed(room / MANIFEST, manifest)
    intents.move(room / MANIFEST, table.path / MANIFEST)
    return str(table.manifest["files"][TABLE]), sums[TABLE]


def gone_boxes(
    rows: list[dict[str, Any]], changed: Mapping[str, Shortened]
) -> set[tuple[int, int, str, str]]:
    """Person, frame from 1, left and top, as the corrected tracks have them, of each crop that goes.

    A crop between the frames of several parts of its track is taken for a box of each.
    """
    found = set()
    for row in rows:
        now = changed.get(row["set_digest"])
        if now is None or row["identity"] is None:
            continue
        tracklets = now.old.tracklets
        own = np.arange(*tracklets.start[row["track"] : row["track"] + 2])
        inside = (tracklets.frame[own] >= row["first_frame"]) & (tracklets.frame[own] <= row["last_frame"])
        for crop in own[inside & ~now.keep[own]].tolist():
            left, top = tracklets.box[crop, :2].tolist()
            found.add((row["identity"], int(tracklets.frame[crop]) + 1, f"{left:.3f}", f"{top:.3f}"))
    return found


def _is_gone(line: bytes, gone: set[tuple[int, int, str, str]]) -> bool:
    cell = line.decode().split(",")
    return len(cell) > 4 and (int(cell[1]), int(cell[0]), cell[2], cell[3]) in gone


def journal_without(data: bytes, changed: Mapping[str, Shortened]) -> tuple[bytes, int]:
    """A journal's lines without those about crops that go, its sets by their new digests; how many went."""
    lines, gone = [], 0
    for line in data.decode("utf-8", "replace").splitlines():
        if not line.strip():
            continue
        value = json.loads(line)
        ends = [Place(value[end]["set"], value[end]["track"], value[end]["frame"]) for end in "ab"]
        if any(place_is_gone(end, changed) for end in ends):
            gone += 1
            continue
        for end in "ab":
            now = changed.get(value[end]["set"])
            value[end]["set"] = value[end]["set"] if now is None else now.digest
        lines.append(plain_json(value).encode() + b"\n")
    return b"".join(lines), gone


def place_is_gone(place: Place, changed: Mapping[str, Shortened]) -> bool:
    """Whether the crop at a place, or the nearest of its track, goes."""
    now = changed.get(place.set)
    if now is None or place.track >= len(now.old.tracklets):
        return False
    frame, own = crops_of(now, place.track)
    return not len(own) or not bool(now.keep[own[np.argmin(np.abs(frame - place.frame))]])


def crops_of(changed: Shortened, track: int) -> tuple[Array, Array]:
    """Frames and rows of a track's crops."""
    tracklets = changed.old.tracklets
    own = np.arange(*tracklets.start[track : track + 2])
    return tracklets.frame[own], own
