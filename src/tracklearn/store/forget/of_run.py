"""A run's record without some crops of its set: isolation, labels, manifest, written to another folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tracklearn.store.config import digest as digest_of
from tracklearn.store.files import pack_arrays, read_arrays, read_lines, write_atomic
from tracklearn.store.forget.of_set import Shortened
from tracklearn.store.intents import Intents
from tracklearn.store.runs import Run
from tracklearn.store.sealed import MANIFEST, write_sealed
from tracklearn.store.sets.joined import JoinedSets
from tracklearn.store.sets.tracklets import TrackletSet, open_set
from tracklearn.types import Array, Refusal, Tracklets

FORGOTTEN = "forgotten.jsonl"  # of a run: what was forgotten, without what it was about


def without(run: Run, sets: Mapping[str, Shortened], intents: Intents, room: Path) -> None:
    """Prepare the record of a run that learned from sets of which some lose some crops.

    Features and parts of these crops go; labels of parts that vanish go; what a method kept of its own for
    parts (UGA's graph) goes whole, since its rows are the parts of before. The weights stay.

    Args:
        run: finished.
        sets: those that lose some, by digest.
        intents: where its files are to be put into place.
        room: a folder of the intents.

    Raises:
        ValueError: training has not finished, or a file is damaged.
    """
    if not run.finished:
        raise Refusal(f"{run.path} is not finished: go on with tracklearn train … --resume, or remove it")
    changed, learned = _learned(run, sets)
    tracklets, files = changed.old.tracklets, dict(run.manifest.get("files", {}))
    stays: dict[int, Array] = {}  # by the first round of an isolation: the parts that stay
    for file in _isolations(run):
        arrays, meta = read_arrays(file)
        before = int(file.stem) if file.stem.isdigit() else 0
        stays[before] = surviving(tracklets, arrays["part"], changed.keep)
        name = file.relative_to(run.path).as_posix()
        data = pack_arrays(_isolation(arrays, changed, tracklets), meta)
        files[name] = _put(data, name, intents, room, run.path)
    if rows := run.label_rows:
        of_row = {int(r.get("labels", i)): int(r["index"]) for i, r in reversed(list(enumerate(run.rounds)))}
        kept = []
        for number, row in enumerate(rows):
            first = max((n for n in stays if n <= of_row.get(number, 0)), default=None)
            mask = stays.get(first) if first is not None else None
            kept.append(row[mask] if mask is not None and len(mask) == len(row) else row)
        length = np.array([len(row) for row in kept], np.int32)
        padded = np.full((len(kept), max(length.max(initial=0), 1)), -1, np.int32)
        for place, row in zip(padded, kept, strict=True):
            place[: len(row)] = row
        data = pack_arrays({"label": padded, "length": length})
        files["labels.safetensors"] = _put(data, "labels.safetensors", intents, room, run.path)
    for file in sorted((run.path / "kept").glob("*.safetensors")):
        files.pop(f"kept/{file.name}", None)
        intents.remove(file)
    manifest = {
        **run.manifest,
        "set": learned,
        "files": dict(sorted(files.items())),
        "forgotten": run.manifest.get("forgotten", 0) + 1,
    }
    write_sealed(room / MANIFEST, manifest)
    intents.move(room / MANIFEST, run.path / MANIFEST)


def _learned(run: Run, sets: Mapping[str, Shortened]) -> tuple[Shortened, dict[str, Any]]:
    """What the run's set, or its sets as one, is without the crops; what the manifest then says of it."""
    entry = run.manifest["set"]
    if "sets" not in entry:
        changed = sets[entry["digest"]]
        return changed, {**entry, "digest": changed.digest}
    members = [
        sets.get(one["digest"]) or _whole(open_set(run.path / one["path"]), one["digest"]) for one in run.sets
    ]
    now = [
        {**one, "digest": member.digest, "n_crops": int(member.keep.sum())}
        for one, member in zip(run.sets, members, strict=True)
    ]
    keep = np.concatenate([member.keep for member in members])
    changed = Shortened(
        JoinedSets([member.old for member in members]), keep, digest_of([n["digest"] for n in now])
    )
    return changed, {**entry, "digest": changed.digest, "sets": now}


def _whole(opened: TrackletSet, digest: str) -> Shortened:
    """A set that loses nothing.

    Raises:
        ValueError: it is another one than the run learned from.
    """
    if opened.digest != digest:
        raise Refusal(f"{opened.path} has changed since a run learned from it: put the old set back first")
    return Shortened(opened, np.ones(opened.n_crops, bool), digest)


def surviving(tracklets: Tracklets, part: Array, keep: Array) -> Array:
    """(t,) bool, which of the parts that `Tracklets.split` makes have a crop left.

    Args:
        tracklets: of the set. part: (n,) the part of each crop, below 0 left out. keep: (n,) bool.
    """
    part = np.asarray(part, np.int64)
    key = tracklets.tracklet * (int(part.max(initial=0)) + 1) + part
    return np.isin(np.unique(key[part >= 0]), key[(part >= 0) & keep])


def _isolations(run: Run) -> list[Path]:
    first = run.path / "isolation.safetensors"
    return [*([first] if first.is_file() else []), *sorted((run.path / "isolation").glob("*.safetensors"))]


def _isolation(arrays: Mapping[str, Array], changed: Shortened, tracklets: Tracklets) -> dict[str, Array]:
    keep, new_row = changed.keep, changed.new_row
    similarity = arrays["similarity"].copy()
    # That of a crop and the one before it in its track, which may go.
    after = np.flatnonzero(np.r_[False, ~keep[:-1]] & keep)
    similarity[after] = np.nan
    shown = keep[arrays["row"]]
    return {
        **arrays,
        "part": arrays["part"][keep],
        "similarity": similarity[keep],
        "row": new_row[arrays["row"][shown]].astype(arrays["row"].dtype),
        "feature": arrays["feature"][shown],
    }


def _put(data: bytes, name: str, intents: Intents, room: Path, run: Path) -> str:
    staged = room / name.replace("/", "-")
    write_atomic(staged, data)
    intents.move(staged, run / name)
    return hashlib.sha256(data).hexdigest()


def remembered(run: Path) -> list[dict[str, Any]]:
    """What was forgotten with a run so far: a record each time, without features or pictures."""
    return read_lines(run / FORGOTTEN)
