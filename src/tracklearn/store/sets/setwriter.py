"""Writing a tracklet set: one part a source, each finished on its own, joined and renamed at the end.

Memory is bounded by a shard's batch and a table's row group, whatever the length of a video. The layout is
described in `tracklearn.store.sets.tracklets`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import tracklearn
from tracklearn.store.config import digest
from tracklearn.store.files import (
    DamagedError,
    beside,
    hash_file,
    make_folder,
    put_folder,
    remove_folder,
    sync_folder,
)
from tracklearn.store.objects import Stored, scratch
from tracklearn.store.sealed import MANIFEST, read_sealed, write_sealed
from tracklearn.store.sets.shards import ShardReader, ShardWriter, plain
from tracklearn.store.sets.tables import ROW_GROUP, TableWriter
from tracklearn.types import Array, Refusal

SCHEMA = 1
KIND = "tracklet set"

DONE = "done.json"  # of a part: its record, written last
_ATTEMPT = ".attempt-"  # between the name of a part and the mark of one attempt at it

CROPS = pa.schema(
    {"tracklet": pa.int64(), "frame": pa.int64(), "time": pa.float64()}
    | dict.fromkeys(("x1", "y1", "x2", "y2", "score"), pa.float32())
    | {"shard": pa.int32(), "row": pa.int32()}
)
TRACKLETS = pa.schema(
    {"tracklet": pa.int64(), "camid": pa.int64(), "camera": pa.string(), "source": pa.int64()}
    | {"file": pa.int32(), "continues": pa.int64()}
)
_PART_TRACKLETS = pa.schema({"camera": pa.string(), "continues": pa.int64()})
TRUTH = pa.schema({"pid": pa.int64()})


@dataclass(frozen=True)
class Place:
    """Where the part of one source goes: all that whoever writes it must know, in this process or another.

    Args:
        folder: of the part, which is not there yet.
        key: digest of everything the part depends on.
        truth: the part carries pids.
        shard_bytes: size of a shard, about.
        stored: where it goes in storage; it is then written on the writer's machine, and `folder` is no more
            than what it is called.
    """

    folder: Path
    key: str
    truth: bool
    shard_bytes: int
    stored: Stored | None = None

    def open(self, *, apart: bool = False) -> PartWriter:
        """A writer of the part; `apart`: another process may be writing it too, and the first to end wins."""
        return PartWriter(self, apart=apart)

    @contextmanager
    def whole(self) -> Iterator[Path]:
        """The folder of the finished part on this machine; of one in storage a copy, for the block."""
        if self.stored is None:
            yield self.folder
            return
        with scratch() as folder:
            fetch_part(self.stored, folder)
            yield folder

    def remove(self) -> None:
        """Have no such part."""
        remove_folder(self.folder) if self.stored is None else self.stored.remove_all()


class PartWriter:
    """Writes the tracklets of one source; made by `Place.open` and `SetWriter.part`."""

    def __init__(self, place: Place, *, apart: bool) -> None:
        self._place = place
        self._labelled, self._shard_bytes = place.truth, place.shard_bytes
        self._attempt = secrets.token_hex(4)
        self._scratch = ExitStack()  # what of the machine is used on the way to storage
        self.folder = place.folder
        if place.stored is not None:
            self.folder = self._scratch.enter_context(scratch()) / place.folder.name
        elif apart:
            self.folder = place.folder.with_name(f"{place.folder.name}{_ATTEMPT}{self._attempt}")
        self._begin()

    def _begin(self) -> None:
        folder = self.folder
        self.n_tracklets = 0
        self.n_crops = 0
        folder.mkdir()
        self._shards = ShardWriter(folder, shard_bytes=self._shard_bytes)
        self._crops = TableWriter(folder / "crops.parquet", CROPS)
        self._tracklets = TableWriter(folder / "tracklets.parquet", _PART_TRACKLETS)
        self._truth = TableWriter(folder / "truth.parquet", TRUTH) if self._labelled else None

    def restart(self) -> None:
        """Drop all that was added."""
        self._let_go()
        remove_folder(self.folder)
        self._begin()

    def add(
        self,
        jpeg: Sequence[bytes],
        *,
        camera: str,
        frame: Sequence[int] | Array,
        time: Sequence[float] | Array,
        box: Sequence[Sequence[float]] | Array,
        score: Sequence[float] | Array,
        continues: int = -1,
        pid: int | Sequence[int] | Array = -1,
    ) -> int:
        """Append one whole tracklet.

        Args:
            jpeg: the m crops, m ≥ 1, as JPEG bytes in the order of frames.
            camera: name of the camera.
            frame, time, box, score: (m,) from 0, (m,) seconds, (m, 4) pixels, (m,) 0-1, as in `Tracklets`.
            continues: the earlier tracklet of this part whose continuation this is, −1 for none.
            pid: who is in it, one value or (m,); kept only in a part opened with `truth`.

        Returns:
            Its number within the part, from 0.

        Raises:
            ValueError: shapes or the order of frames are wrong.
            OSError: the disk is full or failing.
        """
        m = len(jpeg)
        number, time_, score_ = np.asarray(frame, np.int64), np.asarray(time, float), np.asarray(score, float)
        box_ = np.asarray(box, np.float32).reshape(-1, 4)
        if not m or not (m == len(number) == len(time_) == len(score_) == len(box_)):
            raise Refusal(
                f"a tracklet of {m} crops with {len(number)} frames, {len(time_)} times, {len(box_)} boxes "
                f"and {len(score_)} scores: one of each per crop, at least one crop"
            )
        if (np.diff(number) < 0).any():
            raise Refusal("frame decreases inside a tracklet: add crops in the order of frames")
        shard, row = self._shards.add(jpeg)
        x1, y1, x2, y2 = box_.T
        self._crops.add(
            {"tracklet": np.full(m, self.n_tracklets), "frame": number, "time": time_, "score": score_}
            | {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "shard": shard, "row": row}
        )
        self._tracklets.add({"camera": [camera], "continues": [continues]})
        if self._truth is not None:
            self._truth.add({"pid": np.broadcast_to(np.asarray(pid, np.int64), (m,))})
        self.n_tracklets += 1
        self.n_crops += m
        return self.n_tracklets - 1

    def abandon(self) -> None:
        """Let go of the open files; the part is not finished."""
        self._let_go()
        self._scratch.close()

    def _let_go(self) -> None:
        self._shards.abandon()
        for table in (self._crops, self._tracklets, self._truth):
            if table is not None:
                table.abandon()

    def finish(self, record: Mapping[str, Any]) -> None:
        """Close the part and mark it as done; `record` goes into the manifest's list of sources."""
        self._shards.close()
        files = {"crops": self._crops.close(), "tracklets": self._tracklets.close()}
        if self._truth is not None:
            files["truth"] = self._truth.close()
        done = {
            "key": self._place.key,
            "shards": self._shards.done,
            "files": files,
            "record": {**record, "n_tracklets": self.n_tracklets, "n_crops": self.n_crops},
        }
        if self._place.stored is not None:
            write_sealed(self.folder / DONE, {**done, "attempt": f"attempt-{self._attempt}"})
            put_part(self.folder, self._place.stored)
            self._scratch.close()
            return
        write_sealed(self.folder / DONE, done)
        if self.folder != self._place.folder:
            self._put()

    def _put(self) -> None:
        """Give the part its name, unless another attempt at it, given up for lost, was whole before."""
        try:
            self.folder.rename(self._place.folder)
        except OSError:
            if not (self._place.folder / DONE).is_file():
                raise
            remove_folder(self.folder)
        sync_folder(self._place.folder.parent)
        self.folder = self._place.folder


class SetWriter:
    """Writes a tracklet set part by part (a part is one source), then joins the parts.

    Args:
        path: the set to write.
        resume: keep the finished parts of an interrupted earlier writing.
        shard_bytes: size of a shard, about.

    Raises:
        FileExistsError: `path` exists, or `path.partial` does and `resume` is off.

    Used as a context manager it keeps the finished parts in `path.partial` on failure, for `resume`.
    """

    def __init__(self, path: str | Path, *, resume: bool = False, shard_bytes: int = 64 << 20) -> None:
        self.path = Path(path)
        self.partial = beside(self.path, after=".partial")
        self.shard_bytes = shard_bytes
        self._parts: dict[Path, None] = {}  # in the order in which they were asked for
        self._open: list[PartWriter] = []  # several cameras are recorded at one time
        if self.path.exists():
            raise FileExistsError(f"{self.path} exists: choose another --out, or remove it")
        if self.partial.exists() and not resume:
            raise FileExistsError(
                f"{self.partial} holds an unfinished set: go on with --resume or another --out, or remove it"
            )
        make_folder(self.partial)
        self._forget_attempts()  # of workers of a process that was killed

    def __enter__(self) -> SetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in self._open:
            writer.abandon()
        if not self.partial.is_dir():
            return
        # What cannot be used again goes: it would only take space. Without a finished part, all of it.
        self._forget_attempts()
        for part in self.partial.iterdir():
            if not (part / DONE).is_file() and _ATTEMPT not in part.name:
                remove_folder(part) if part.is_dir() else part.unlink()
        if not any(self.partial.iterdir()):
            self.partial.rmdir()

    def _forget_attempts(self) -> None:
        """Remove what workers have not ended; one that is far away may be at it still: left for later."""
        for left in sorted(self.partial.glob(f"part-*{_ATTEMPT}*")):
            with suppress(OSError):
                remove_folder(left)

    def part(self, key: str, *, truth: bool = False) -> PartWriter | None:
        """A writer for the next source, or None where an earlier, interrupted writing has finished it.

        Args:
            key: digest of everything the part depends on (the source's content and the settings).
            truth: the part carries pids; they go to the truth file, never into the set.
        """
        place = self.place(key, truth=truth)
        if place is None:
            return None
        writer = place.open()
        self._open = [p for p in self._open if not (p.folder / DONE).is_file()] + [writer]
        return writer

    def place(self, key: str, *, truth: bool = False) -> Place | None:
        """As `part`, for a part that is written by somebody else."""
        folder = self._folder(key)
        if folder in self._parts:
            raise Refusal(f"part {key[:24]} is written twice: every source needs a key of its own")
        self._parts[folder] = None
        return self._place(folder, key, truth)

    def aside(self, key: str) -> tuple[Place, bool]:
        """Where a piece of a part goes, and whether it is there: kept for `resume`, but not joined."""
        folder = self._folder(key)
        todo = self._place(folder, key, False)
        return todo or self._at(folder, key, False), todo is None

    def _folder(self, key: str) -> Path:
        return self.partial / f"part-{key[:24]}"

    def _place(self, folder: Path, key: str, truth: bool) -> Place | None:
        if _finished(folder, key):
            return None
        if folder.exists():
            remove_folder(folder)
        return self._at(folder, key, truth)

    def _at(self, folder: Path, key: str, truth: bool) -> Place:
        return Place(folder, key, truth, self.shard_bytes)

    def drop(self) -> None:
        """Remove all that was written: it is worth nothing."""
        remove_folder(self.partial)

    @property
    def records(self) -> list[dict[str, Any]]:
        """The records of the parts so far, as given to `PartWriter.finish`."""
        return [_done(part)["record"] for part in self._parts]

    def finish(
        self,
        settings: Mapping[str, Any],
        *,
        camid: Mapping[str, int] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Path:
        """Join the parts in the order they were asked for and put the set in its place.

        Args:
            settings: what the set was made with, for the manifest.
            camid: fixed camera numbers by name; other cameras take the free ones in order of appearance.
            extra: more entries of the manifest.

        Returns:
            The set's path.

        Raises:
            OSError: the disk is full or failing; everything needed for `resume` is still there.
        """
        done = [_done(part) for part in self._parts]
        joined = self.partial / "joined"
        if joined.exists():
            remove_folder(joined)
        joined.mkdir()
        names = [
            pq.read_table(plain(part / "tracklets.parquet"))["camera"].unique().to_pylist()
            for part in self._parts
        ]
        cameras = number_cameras((name for part in names for name in part), camid or {})
        shards = self._link_shards(done, joined)
        files, truth = self._join_tables(done, joined, cameras)
        content = {"schema": SCHEMA, "cameras": cameras, "shards": without_blocks(shards), "files": files}
        manifest = {
            "kind": KIND,
            "schema": SCHEMA,
            "tracklearn": tracklearn.__version__,
            "digest": digest(content),
            "settings": dict(settings),
            "cameras": cameras,
            "n_tracklets": sum(d["record"]["n_tracklets"] for d in done),
            "n_crops": sum(d["record"]["n_crops"] for d in done),
            **(extra or {}),
            "sources": [d["record"] for d in done],
            "files": files,
            "shards": shards,
        }
        write_sealed(joined / MANIFEST, manifest)
        if truth is not None:
            truth.close({"set": str(manifest["digest"])})
            (self.partial / "truth.parquet").replace(truth_path(self.path))
        put_folder(joined, self.path)
        remove_folder(self.partial)
        return self.path

    def _link_shards(self, done: list[dict[str, Any]], joined: Path) -> list[dict[str, Any]]:
        """The parts' shards under their final numbers in `joined`, as links: the parts stay whole."""
        out: list[dict[str, Any]] = []
        for part, entry in zip(self._parts, done, strict=True):
            for shard in entry["shards"]:
                name = f"shard-{len(out):05d}.arrow"
                try:
                    os.link(part / shard["name"], joined / name)
                except OSError:
                    # A file system without hard links: interrupted right here, the part is done again.
                    (part / shard["name"]).rename(joined / name)
                out.append({**shard, "name": name})
        return out

    def _join_tables(
        self, done: list[dict[str, Any]], joined: Path, cameras: list[str]
    ) -> tuple[dict[str, str], TableWriter | None]:
        """Stream the parts' tables into one each, with tracklet and shard numbers moved on.

        Returns the files' sha256, and the writer of the truth, still open, where a part has one.
        """
        crops = TableWriter(joined / "crops.parquet", CROPS)
        tracklets = TableWriter(joined / "tracklets.parquet", TRACKLETS)
        truth = None
        if any("truth" in entry["files"] for entry in done):
            truth = TableWriter(self.partial / "truth.parquet", TRUTH)
        camid = {name: i for i, name in enumerate(cameras)}
        n_tracklets = n_shards = 0
        for file, (part, entry) in enumerate(zip(self._parts, done, strict=True)):
            for batch in pq.ParquetFile(plain(part / "crops.parquet"), pre_buffer=False).iter_batches(
                ROW_GROUP
            ):
                column = {name: batch.column(name) for name in batch.schema.names}
                column["tracklet"] = column["tracklet"].to_numpy() + n_tracklets
                column["shard"] = column["shard"].to_numpy() + np.int32(n_shards)
                crops.add(column)
            own = pq.read_table(plain(part / "tracklets.parquet"))
            camera, continues = own["camera"].to_pylist(), own["continues"].to_numpy()
            number = n_tracklets + np.arange(len(camera))
            tracklets.add(
                {"tracklet": number, "source": number, "camera": camera, "file": np.full(len(camera), file)}
                | {"camid": [camid[name] for name in camera]}
                | {"continues": np.where(continues >= 0, continues + n_tracklets, -1)}
            )
            if truth is not None and "truth" in entry["files"]:
                for batch in pq.ParquetFile(plain(part / "truth.parquet"), pre_buffer=False).iter_batches(
                    ROW_GROUP
                ):
                    truth.add({"pid": batch.column("pid")})
            elif truth is not None:
                truth.add({"pid": np.full(entry["record"]["n_crops"], -1)})
            n_tracklets += len(camera)
            n_shards += len(entry["shards"])
        return {"crops.parquet": crops.close(), "tracklets.parquet": tracklets.close()}, truth


def number_cameras(names: Iterable[str], fixed: Mapping[str, int]) -> list[str]:
    """Camera names by camid: `fixed` ones at their number, the rest at the free numbers in order.

    Numbers below the highest fixed one that nobody takes are "".

    >>> number_cameras(["door", "hall", "door", "yard"], {"hall": 0})
    ['hall', 'door', 'yard']
    """
    present = list(dict.fromkeys(names))
    at = {number: name for name, number in fixed.items() if name in present}
    free = (i for i in range(len(present) + len(at) + 1) if i not in at)
    for name in present:
        if name not in fixed:
            at[next(free)] = name
    return [at.get(i, "") for i in range(max(at) + 1)] if at else []


def without_blocks(shards: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a set's digest covers of its shards; the sums of blocks say no more than a shard's own."""
    return [{key: value for key, value in shard.items() if key != "crc32"} for shard in shards]


def truth_path(path: str | Path) -> Path:
    """Where the ground truth of the set at `path` lies: beside it, never inside."""
    path = Path(path)
    return beside(path, after=".truth.parquet")


class PartReader:
    """What a finished part holds.

    Args:
        folder: of the part.

    Attributes:
        record: as given to `PartWriter.finish`.

    Raises:
        DamagedError: it is not what was written.
    """

    def __init__(self, folder: Path) -> None:
        done = _done(folder)
        self.record: dict[str, Any] = done["record"]
        self._folder, shards = folder, done["shards"]
        self._shards = ShardReader([folder / s["name"] for s in shards], [s["crc32"] for s in shards])

    @cached_property
    def crops(self) -> dict[str, Array]:
        """Column -> (m,) array, tracklet after tracklet."""
        table = pq.read_table(plain(self._folder / "crops.parquet"))
        return {name: table[name].to_numpy() for name in table.column_names}

    @cached_property
    def continues(self) -> Array:
        """(t,) the tracklet that each goes on from, −1 for none."""
        table = pq.read_table(plain(self._folder / "tracklets.parquet"))
        return np.asarray(table["continues"].to_numpy())

    def jpeg(self, row: int) -> bytes:
        """The bytes of one crop."""
        return bytes(self._shards.get(int(self.crops["shard"][row]), int(self.crops["row"][row])))


def part_files(done: Mapping[str, Any]) -> dict[str, str]:
    """The files of a part, by its record, with their sha256."""
    files = {f"{name}.parquet": sha256 for name, sha256 in done["files"].items()}
    return files | {shard["name"]: shard["sha256"] for shard in done["shards"]}


def put_part(folder: Path, to: Stored) -> None:
    """Copy a finished part to storage: its files below the name of the attempt, then its record.

    Two attempts at a part share no object; the record, which is written last, says whose are the part's.
    """
    done = _done(folder)
    for name in part_files(done):
        (to / done["attempt"] / name).put(folder / name)
    (to / DONE).write((folder / DONE).read_bytes())


def fetch_part(part: Stored, folder: Path, *, tables_only: bool = False) -> dict[str, Any]:
    """Copy a finished part, or its record and tables alone, from storage to a folder; its record.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: a file is not what was written.
    """
    make_folder(folder)
    (part / DONE).fetch(folder / DONE)
    done = _done(folder)
    for name, sha256 in part_files(done).items():
        if not tables_only or name.endswith(".parquet"):
            (part / done["attempt"] / name).fetch(folder / name)
            if hash_file(folder / name) != sha256:
                raise DamagedError(f"{part} is damaged ({name} is not what was written): ingest again")
    return done


def _done(part: Path) -> dict[str, Any]:
    """The record of a finished part."""
    return read_sealed(part / DONE, remedy=f"remove {part} and go on with --resume")


def _finished(folder: Path, key: str) -> bool:
    """Whether `folder` is a complete part made from `key`, every byte of it as it was written."""
    if not (folder / DONE).is_file():
        return False
    try:
        done = _done(folder)
        files = part_files(done)
    except DamagedError:
        return False
    return done["key"] == key and all(
        (folder / name).is_file() and hash_file(folder / name) == sha256 for name, sha256 in files.items()
    )
