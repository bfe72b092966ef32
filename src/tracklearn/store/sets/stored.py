"""Tracklet sets in storage: written there part by part, and read by a copy on this machine.

    s3://bucket/sets/site/manifest.json, crops.parquet, tracklets.parquet, shard-NNNNN.arrow   as in a folder
    s3://bucket/sets/site.truth.parquet
    s3://bucket/sets/site.partial/part-KEY/done.json, attempt-MARK/…   while it is written
    s3://bucket/sets/.site.lock                                        who writes it
    s3://bucket/sets/.site.change                                      which `forget` is changing it

A storage renames nothing: a set is there when its manifest is, which is written last, and a part when its
`done.json` is. It is read by a copy in `cache_folder()/sets`, every file compared with the manifest's sums.
The copy serves for as long as the storage has the same manifest: it is asked each time a set is opened, and
a copy of what is there no more (deleted, or some of it forgotten) is removed, not used.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from tracklearn.store.cache import cache_folder
from tracklearn.store.files import DamagedError, beside, hash_file, make_folder, remove_folder
from tracklearn.store.intents import settle
from tracklearn.store.lock import InUseError, locked
from tracklearn.store.objects import Stored, is_url, scratch, sweep
from tracklearn.store.sealed import MANIFEST, Manifest, read_sealed
from tracklearn.store.sets.changes import TRUTH_NAME, held, marker_of, read_if_any, remove_copy
from tracklearn.store.sets.setwriter import (
    DONE,
    KIND,
    Place,
    SetWriter,
    fetch_part,
    truth_path,
)
from tracklearn.store.sets.shards import REMEDY
from tracklearn.types import Refusal

logger = logging.getLogger(__name__)

_OURS = re.compile(r"manifest\.json|crops\.parquet|tracklets\.parquet|shard-\d+\.arrow")
_COPY, _NO_BUCKET = "@copy", "@"  # folders of the cache: no bucket is called so
_AT_ONCE = 8  # objects that are copied at one time
_TRIES = 3  # to read a set that is changed meanwhile


class Destination(Protocol):
    """Where a set is to be written: a folder, or storage."""

    @property
    def folder(self) -> Path | None:
        """It, where it is one."""

    @property
    def result(self) -> Path | str:
        """What a user is told of it."""

    def locked(self) -> Any:
        """A context that keeps every other process from writing there.

        Raises:
            InUseError: one does.
        """

    def exists(self) -> bool:
        """Whether a set, or something else, is there."""

    def manifest(self) -> Manifest | None:
        """That of the finished set there; None without one."""

    def writer(self, *, resume: bool) -> SetWriter:
        """As of `SetWriter`."""

    def tidy(self) -> None:
        """Remove what is left of the writing of a finished set."""


class Folder:
    """A set in a folder; see `Destination`."""

    def __init__(self, path: Path) -> None:
        self.folder = self.result = path

    def __str__(self) -> str:
        return str(self.folder)

    def locked(self) -> Any:
        """See `Destination`."""
        return locked(self.folder)

    def exists(self) -> bool:
        """See `Destination`."""
        return self.folder.exists()

    def manifest(self) -> Manifest | None:
        """See `Destination`."""
        file = self.folder / MANIFEST
        return read_sealed(file, remedy=REMEDY) if file.is_file() else None

    def writer(self, *, resume: bool) -> SetWriter:
        """See `Destination`."""
        return SetWriter(self.folder, resume=resume)

    def tidy(self) -> None:
        """See `Destination`."""
        remove_folder(beside(self.folder, after=".partial"))


class Storage:
    """A set in storage; see `Destination`.

    Raises:
        ValueError: the address names no more than a bucket.
    """

    folder = None

    def __init__(self, at: Stored) -> None:
        self.at, self.result = at, str(at)
        if not at.key:
            raise Refusal(f"{at} is a whole bucket: name a place in it for the set, such as {at}sets/site")

    def __str__(self) -> str:
        return self.result

    def locked(self) -> Any:
        """See `Destination`."""
        return held(self.at)

    def exists(self) -> bool:
        """See `Destination`."""
        return (self.at / MANIFEST).info() is not None

    def manifest(self) -> Manifest | None:
        """See `Destination`."""
        with scratch() as folder:
            try:
                (self.at / MANIFEST).fetch(folder / MANIFEST)
            except FileNotFoundError:
                return None
            try:
                return read_sealed(folder / MANIFEST, remedy=REMEDY)
            except DamagedError as error:
                raise DamagedError(str(error).replace(str(folder), str(self.at))) from None

    def writer(self, *, resume: bool) -> SetWriter:
        """See `Destination`."""
        return StoredSetWriter(self.at, resume=resume)

    def tidy(self) -> None:
        """See `Destination`."""
        self.at.beside(after=".partial").remove_all()


def destination(out: str | Path) -> Destination:
    """Where `out` says that a set is to be written."""
    return Storage(Stored.of(out)) if is_url(out) else Folder(Path(out))


class StoredSetWriter(SetWriter):
    """Writes a set to storage; as `SetWriter`, whose folder is one of this machine for what is joined.

    Finished parts are found by their records, tables and the sizes of their shards; shards are copied
    within the storage, and their content is looked at by whoever reads the set.

    Raises:
        FileExistsError: as `SetWriter`; or other objects lie there.
        ValueError: the storage cannot be reached, or refuses.
    """

    def __init__(self, at: Stored, *, resume: bool = False, shard_bytes: int = 64 << 20) -> None:
        self.at, self._parts_at = at, at.beside(after=".partial")
        self._there = self._parts_at.listed()
        if self._there and not resume:
            raise FileExistsError(
                f"{self._parts_at} holds an unfinished set: go on with --resume or another --out, or "
                "remove it"
            )
        if other := [name for name in at.listed() if not _OURS.fullmatch(name)]:
            raise FileExistsError(f"{at} holds other objects, such as {other[0]}: choose another --out")
        self._own = ExitStack()
        super().__init__(self._own.enter_context(scratch()) / "set", shard_bytes=shard_bytes)
        self._done: dict[Path, dict[str, Any]] = {}

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._own.close()
        sweep()  # what killed workers of this machine had fetched
        if error[0] is not None:
            with suppress(Refusal, OSError):  # the error that is under way says more
                there = self._parts_at.listed()
                for part in {name.partition("/")[0] for name in there}:
                    if f"{part}/{DONE}" not in there:
                        (self._parts_at / part).remove_all()

    def _place(self, folder: Path, key: str, truth: bool) -> Place | None:
        if f"{folder.name}/{DONE}" in self._there and self._whole(folder, key):
            return None
        place = self._at(folder, key, truth)
        if any(name.startswith(f"{folder.name}/") for name in self._there):
            place.remove()
        return place

    def _at(self, folder: Path, key: str, truth: bool) -> Place:
        return Place(folder, key, truth, self.shard_bytes, stored=self._parts_at / folder.name)

    def _whole(self, folder: Path, key: str) -> bool:
        """Whether a part is there, made from `key`; its record and tables are then in `folder`."""
        try:
            done = self._copy(folder)
            below = f"{folder.name}/{done['attempt']}"
            sizes = {f"{below}/{shard['name']}": shard["bytes"] for shard in done["shards"]}
            whole = done["key"] == key and all(self._there.get(name) == n for name, n in sizes.items())
        except (DamagedError, FileNotFoundError):
            whole = False
        if not whole:
            remove_folder(folder)
            self._done.pop(folder, None)
        return whole

    def _copy(self, folder: Path) -> dict[str, Any]:
        """The record of a part, which is here, with the tables, afterwards."""
        if folder not in self._done:
            self._done[folder] = fetch_part(self._parts_at / folder.name, folder, tables_only=True)
        return self._done[folder]

    def drop(self) -> None:
        """See `SetWriter`."""
        super().drop()
        self._parts_at.remove_all()

    @property
    def records(self) -> list[dict[str, Any]]:
        """See `SetWriter`."""
        return [self._copy(part)["record"] for part in self._parts]

    def finish(
        self,
        settings: Mapping[str, Any],
        *,
        camid: Mapping[str, int] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Path:
        """Join the parts and put the set in its place, the manifest last.

        Args, Raises: as of `SetWriter`.

        Returns:
            A folder of this machine without the shards, for as long as the writer is open.
        """
        made = [self._copy(part) for part in self._parts]
        joined = super().finish(settings, camid=camid, extra=extra)
        moves = [
            self._parts_at / part.name / done["attempt"] / shard["name"]
            for part, done in zip(self._parts, made, strict=True)
            for shard in done["shards"]
        ]
        names = [f"shard-{i:05d}.arrow" for i in range(len(moves))]
        marker_of(self.at).remove()  # what `forget` had begun with the set that was here is over
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda one, name: one.copy(self.at / name), moves, names))
        for name in self.at.listed():  # of a joining of other sources that was broken off
            if name.startswith("shard-") and name not in names:
                (self.at / name).remove()
        for name in ("crops.parquet", "tracklets.parquet"):
            (self.at / name).put(joined / name)
        truth = self.at.beside(after=TRUTH_NAME)
        if truth_path(joined).is_file():
            truth.put(truth_path(joined))
        else:
            truth.remove()
        (self.at / MANIFEST).write((joined / MANIFEST).read_bytes())
        self._parts_at.remove_all()
        return joined

    def _link_shards(self, done: list[dict[str, Any]], joined: Path) -> list[dict[str, Any]]:
        shards = [shard for entry in done for shard in entry["shards"]]
        return [{**shard, "name": f"shard-{i:05d}.arrow"} for i, shard in enumerate(shards)]


# Reading


def local(path: str | Path | Stored) -> Path:
    """The folder of a set on this machine: of one in storage its copy, which is made or brought up to date.

    Raises:
        FileNotFoundError: the storage has no such set (any more); a copy of it is removed.
        ValueError: the storage cannot be reached; its set is unfinished, damaged, or none by itself; `path`
            is a copy of a set that has changed since, which is removed.
        OSError: the disk is full or failing.
    """
    if isinstance(path, Stored) or is_url(path):
        at = path if isinstance(path, Stored) else Stored.of(path)
        if not at.key:
            raise Refusal(f"{at} is a whole bucket: name the place of the set in it")
        return _brought(at)
    origin = origin_of(path)
    if origin is None:
        return Path(path)
    if not Path(path).exists():
        raise FileNotFoundError(f"the copy of {origin} here has gone: give {origin} to the command again")
    _, same = _looked_at(origin)
    if not same:
        remove_copy(_copy(origin))
        raise Refusal(
            f"{origin} has changed since it was read here, as when somebody is forgotten; the copy of what "
            f"it was is removed: give {origin} to the command to take what it is now"
        )
    return Path(path)


def origin_of(path: str | Path) -> Stored | None:
    """The set in storage that a folder is the copy of; None for any other folder."""
    try:
        parts = Path(path).resolve().relative_to(_copies().resolve()).parts
    except ValueError:  # it lies elsewhere, or there is no cache
        return None
    if len(parts) < 5 or parts[-2] != _COPY:
        return None
    scheme, bucket, *key = parts[:-2]
    whole = Stored.of(f"{scheme}://{'' if bucket == _NO_BUCKET else bucket}/")
    return replace(whole, key="/".join(key))


def elsewhere(path: Path) -> Path | Stored:
    """By what a worker, which may be on another machine, opens the set in a folder."""
    return origin_of(path) or path.absolute()


def _copies() -> Path:
    return cache_folder() / "sets"


def _copy(at: Stored) -> Path:
    """Where the copy of a set lies: its place says whose it is."""
    return _copies() / at.scheme / (at.bucket or _NO_BUCKET) / at.key / _COPY / at.name


def _looked_at(at: Stored) -> tuple[bytes, bool]:
    """The manifest of a set as it is now, and whether it is that of the copy.

    Raises:
        FileNotFoundError: there is no such set; a copy is removed.
    """
    at.remember()  # what is left to do knows the address without credentials and query
    settle(_copy(at))  # before its storage is asked: what `forget` has left to do there needs the copy
    return _compared(at)


def _compared(at: Stored) -> tuple[bytes, bool]:
    """As `_looked_at`, which has settled what was left to do."""
    copy = _copy(at)
    try:
        manifest = (at / MANIFEST).read()
    except FileNotFoundError:
        remove_copy(copy)
        hint = " (it is unfinished: finish it with --resume)" if at.beside(after=".partial").listed() else ""
        if read_if_any(marker_of(at)) is not None:
            hint = (
                " (tracklearn forget is changing it, or was broken off there: try again, or open it on the "
                "machine where that was begun)"
            )
        raise FileNotFoundError(f"no such tracklet set in storage: {at}{hint}") from None
    try:
        return manifest, (copy / MANIFEST).read_bytes() == manifest
    except FileNotFoundError:
        return manifest, False


def _brought(at: Stored) -> Path:
    """The copy of a set, which is made where it is none of what the set is now."""
    copy, tries = _copy(at), 0
    while True:
        if _looked_at(at)[1]:
            return copy
        try:
            with locked(copy):
                manifest, same = _compared(at)  # another process may have made it since
                if same:
                    return copy
                remove_copy(copy)
                tries += 1
                try:
                    _fetch(at, manifest, copy)
                except DamagedError:
                    if tries == _TRIES or _compared(at)[0] == manifest:
                        raise
        except InUseError:  # another process of the same training has begun it
            time.sleep(0.5)


def _fetch(at: Stored, manifest: bytes, copy: Path) -> None:
    """Make a copy of a set: all of it, and every file what the manifest says, or nothing."""
    with scratch_beside(copy) as folder:
        (folder / MANIFEST).write_bytes(manifest)
        try:
            told = read_sealed(folder / MANIFEST, remedy=REMEDY)
            told.require(files=dict, shards=list, digest=str)
        except DamagedError as error:
            raise DamagedError(str(error).replace(str(folder), str(at))) from None
        if told.get("kind") != KIND or "images" in told:
            what = "refers to images that lie elsewhere" if "images" in told else f"is a {told.get('kind')}"
            raise Refusal(f"{at} {what}: only whole tracklet sets are read from storage; copy it here first")
        sums = {**told["files"], **{shard["name"]: shard["sha256"] for shard in told["shards"]}}
        if strange := [name for name in sums if not _OURS.fullmatch(name)]:
            raise DamagedError(f"{at / MANIFEST} is damaged (it names {strange[0]!r}): {REMEDY}")

        size = sum(shard["bytes"] for shard in told["shards"])
        logger.info("copying %s here, %.1f MB of crops", at, size / 1e6)

        def take(name: str) -> None:
            try:
                (at / name).fetch(folder / name)
            except FileNotFoundError:
                raise DamagedError(f"{at} is damaged: {name} is missing; {REMEDY}") from None
            if hash_file(folder / name) != sums[name]:
                raise DamagedError(f"{at / name} is damaged (its content is not what was written): {REMEDY}")

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(take, sums))
        with suppress(FileNotFoundError):
            at.beside(after=TRUTH_NAME).fetch(truth_path(folder))
            truth_path(folder).replace(truth_path(copy))
        folder.rename(copy)


@contextmanager
def scratch_beside(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, which is gone after the block unless it was renamed."""
    folder = beside(path, before=".", after=".tmp")
    remove_folder(folder)
    make_folder(folder)
    try:
        yield folder
    finally:
        remove_folder(folder)
        truth_path(folder).unlink(missing_ok=True)
