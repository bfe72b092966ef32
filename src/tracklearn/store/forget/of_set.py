"""A tracklet set without some of its crops: shards, tables, truth and manifest, written to another folder.

Tracks keep their numbers, also those that lose every crop: they stay as empty ones. Rows of crops move up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tracklearn.store.config import digest
from tracklearn.store.files import hash_file, make_folder
from tracklearn.store.intents import Intents
from tracklearn.store.sealed import MANIFEST, write_sealed
from tracklearn.store.sets.changes import require_changeable
from tracklearn.store.sets.setwriter import ROW_GROUP, TRUTH, TableWriter, truth_path, without_blocks
from tracklearn.store.sets.shards import REMEDY, ShardWriter, plain, reading
from tracklearn.store.sets.stored import origin_of
from tracklearn.store.sets.tracklets import TrackletSet, read_truth
from tracklearn.types import Array, Refusal

CROPS_TABLE = "crops.parquet"


@dataclass(frozen=True, eq=False)
class Shortened:
    """What a set is without some crops.

    Args:
        old: the set as it is. keep: (n,) bool, the crops that stay. digest: of what it becomes.
    """

    old: TrackletSet
    keep: Array
    digest: str

    @property
    def new_row(self) -> Array:
        """(n,) int64, the new row of each crop; −1 for those that go."""
        return np.where(self.keep, np.cumsum(self.keep) - 1, -1)


def without(opened: TrackletSet, keep: Array, intents: Intents, room: Path) -> Shortened:
    """Prepare a set without some of its crops.

    Args:
        opened: the set.
        keep: (n,) bool, one for each crop.
        intents: where its files are to be put into place.
        room: a folder of the intents.

    Raises:
        ValueError: its pictures belong to another set.
        OSError: the disk is full or failing.

    Memory: the set's tables.
    """
    kind = opened.manifest.get("images", {}).get("kind")
    if kind == "shards":
        raise Refusal(
            f"{opened.path} borrows its pictures from {opened.root}: forget there, and make this set again"
        )
    with reading(opened.path / CROPS_TABLE, REMEDY):
        table = pq.read_table(plain(opened.path / CROPS_TABLE))
    column: dict[str, Any] = {
        name: table[name].combine_chunks().filter(pa.array(keep)) for name in table.column_names
    }
    shards = [dict(shard) for shard in opened.manifest["shards"]]
    if kind is None:
        shards, place = _shards(opened, keep, intents, room)
        column |= place
    crops = TableWriter(room / CROPS_TABLE, table.schema.remove_metadata())
    try:
        for low in range(0, int(keep.sum()), ROW_GROUP):
            crops.add({name: values[low : low + ROW_GROUP] for name, values in column.items()})
        sums = {**opened.manifest["files"], CROPS_TABLE: crops.close()}
    finally:
        crops.abandon()
    intents.move(room / CROPS_TABLE, opened.path / CROPS_TABLE)
    manifest = _manifest(opened, keep, shards, sums)
    write_sealed(room / MANIFEST, manifest)
    intents.move(room / MANIFEST, opened.path / MANIFEST)
    file = truth_path(opened.path)
    if file.is_file():
        truth = TableWriter(room / "truth.parquet", TRUTH)
        try:
            truth.add({"pid": read_truth(opened.path).pid[keep]})
            truth.close({"set": str(manifest["digest"])})
        finally:
            truth.abandon()
        intents.move(room / "truth.parquet", file)
    if (origin := origin_of(opened.path)) is not None:
        was, now = hash_file(opened.path / MANIFEST), hash_file(room / MANIFEST)
        require_changeable(origin, was)  # before anything is decided
        changed = _objects(opened.manifest, manifest)
        changed |= {"truth": file.is_file(), "old": was, "new": now, "server": origin.server}
        intents.storage(str(origin), opened.path, changed)
    return Shortened(opened, keep, str(manifest["digest"]))


def _objects(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Which files of a set are others, and which have gone, by its manifests, for `changes.change`."""
    was, now = (
        {**manifest["files"], **{shard["name"]: shard["sha256"] for shard in manifest["shards"]}}
        for manifest in (old, new)
    )
    put = [name for name, sha256 in now.items() if was.get(name) != sha256]
    return {"put": put, "remove": [name for name in was if name not in now]}


def _shards(
    opened: TrackletSet, keep: Array, intents: Intents, room: Path
) -> tuple[list[dict[str, Any]], dict[str, Array]]:
    """Write those shards anew that lose something; the list of all, and where each crop that stays lies."""
    shard, row = (opened.place[name].to_numpy() for name in ("shard", "row"))
    new_shard, new_row = np.full(len(keep), -1, np.int32), np.full(len(keep), -1, np.int32)
    left: list[dict[str, Any]] = []
    for number, entry in enumerate(opened.manifest["shards"]):
        own = np.flatnonzero(shard == number)
        stay = own[keep[own]]
        stay = stay[np.argsort(row[stay], kind="stable")]
        file = opened.path / entry["name"]
        if len(stay) == len(own):
            new_row[own] = row[own]
        elif not len(stay):
            intents.remove(file)
            continue
        else:
            folder = room / f"shard-{number:05d}"
            make_folder(folder)
            writer = ShardWriter(folder, shard_bytes=1 << 62)
            try:
                for i, crop in enumerate(stay.tolist()):
                    writer.add([opened.jpeg(crop)])
                    new_row[crop] = i
                writer.close()
            finally:
                writer.abandon()
            (made,) = writer.done
            intents.move(folder / made["name"], file)
            entry = {**made, "name": entry["name"]}
        new_shard[stay] = len(left)
        left.append(dict(entry))
    return left, {"shard": new_shard[keep], "row": new_row[keep]}


def _manifest(
    opened: TrackletSet, keep: Array, shards: list[dict[str, Any]], sums: dict[str, str]
) -> dict[str, Any]:
    old = opened.manifest
    n_crops = int(keep.sum())
    content: dict[str, Any] = {"schema": old["schema"], "cameras": old["cameras"], "files": sums}
    content["shards"] = without_blocks(shards)
    if "images" in old:
        content["images"] = old["images"]["kind"]
    of_file = opened.file[opened.tracklets.tracklet]
    counts = np.bincount(of_file[keep], minlength=len(old["sources"]))
    sources = [{**each, "n_crops": int(n)} for each, n in zip(old["sources"], counts, strict=True)]
    before = old.get("forgotten", {"crops": 0})
    return {
        **old,
        "digest": digest(content),
        "n_crops": n_crops,
        "sources": sources,
        "files": sums,
        "shards": shards,
        "forgotten": {"crops": before["crops"] + len(keep) - n_crops},
    }
