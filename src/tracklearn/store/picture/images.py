"""Images that stay where they are: a folder, and the paths of pictures below it by row."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tracklearn.store.files import is_text
from tracklearn.store.picture import pictures
from tracklearn.store.picture.crops import StoredCrops
from tracklearn.store.picture.pictures import BrokenPicture
from tracklearn.types import Array, Refusal

CHUNK = 512  # images a decoding check gives to a thread at a time


class ImageFiles:
    """Pictures by row, read from their own files when asked for; making one touches no file.

    A missing file does not stop a long read: it counts as a broken picture (grey, counted in
    `StoredCrops.broken`), as long as the folder is there and no more than one in a hundred are missing
    (ten in a small set, never more than half of it). Beyond that reading is refused: whoever trains on
    grey should know. What is there but cannot be read or decoded is a broken picture, however many there are.

    Args:
        root: the folder that the paths are relative to.
        paths: path of each row's picture below it, with "/" between folders.
    """

    def __init__(self, root: Path, paths: Sequence[str] | pa.Array) -> None:
        self.root = root
        self.paths: pa.Array = paths if isinstance(paths, pa.Array) else pa.array(paths, pa.string())
        self._missing: set[int] = set()
        n = len(self.paths)
        self._series = pictures.Series(lambda: [self.file(row) for row in pictures.spread(range(n))])
        self._survivable = max(1, min(10, n // 2), n // 100)

    def __len__(self) -> int:
        return len(self.paths)

    def file(self, row: int) -> Path:
        """The file of a row."""
        return self.root / self.paths[row].as_py()

    def require(self) -> None:
        """Refuse a folder that has gone, before any work.

        Raises:
            FileNotFoundError: it is not there; the message names the first image.
        """
        if len(self) and not self.root.is_dir():
            raise self._gone(0)

    def get(self, row: int) -> Array:
        """The bytes of a row's file, uint8.

        Raises:
            FileNotFoundError: it is not there.
            BrokenPicture: it is no file, cannot be read or is too large.
        """
        try:
            return np.frombuffer(pictures.load(self.file(row)), np.uint8)
        except FileNotFoundError:
            raise self._gone(row) from None

    def read(self, row: int) -> Array:
        """The bytes of a row's file, none where it is missing and reading can go on without it.

        Raises:
            FileNotFoundError: the folder, or too many images, are missing.
            BrokenPicture: it is no file, cannot be read or is too large.
        """
        try:
            return np.frombuffer(pictures.load(self.file(row)), np.uint8)
        except FileNotFoundError:
            self._missing.add(row)
            if len(self._missing) > self._survivable or not self.root.is_dir():
                raise self._gone(min(self._missing)) from None
            return np.empty(0, np.uint8)

    def image(self, row: int) -> Array:
        """A row's picture at its own size, RGB uint8 (h, w, 3).

        Raises:
            FileNotFoundError: it is not there.
            ValueError: it is broken.
        """
        try:
            return self._series.decode(self.get(row))
        except BrokenPicture as error:
            raise Refusal(f"{self.file(row)} is broken: {error}") from None

    def crops(
        self, height: int, width: int, *, cache_bytes: int | None = None, workers: int | None = None
    ) -> StoredCrops:
        """The pictures at one size, decoded on demand; see `StoredCrops`.

        Raises:
            FileNotFoundError: the folder is not there.
        """
        return StoredCrops(
            len(self), self.reader(), height=height, width=width, cache_bytes=cache_bytes, workers=workers
        )

    def reader(self) -> Callable[[int], Array]:
        """Row -> its picture at its own size, for reading many; `BrokenPicture` for one that cannot be had.

        Raises:
            FileNotFoundError: the folder is not there.
        """
        self.require()
        return lambda row: self._series.decode(self.read(row))

    def _gone(self, row: int) -> FileNotFoundError:
        if not self.root.is_dir():
            what = f"the folder of images {self.root} is not there (the first is {self.paths[row].as_py()})"
        elif len(self._missing) > 1:
            what = f"{len(self._missing)} images are not there, the first is {self.file(row)}"
        else:
            what = f"the image {self.file(row)} is not there"
        return FileNotFoundError(f"{what}: bring them back, or write the set again without them")

    def present(self) -> Array:
        """(n,) bool: which files are there, by listing each folder once; no file is opened.

        About 2 s for the million images of MARS on a local disk.
        """
        folder = pc.replace_substring_regex(self.paths, r"/?[^/]*$", "")
        listed: list[str] = []
        for name in pc.unique(folder).to_pylist():
            try:
                found = os.listdir(self.root / name)
            except (FileNotFoundError, NotADirectoryError):
                continue
            listed += [f"{name}/{file}" for file in found] if name else found
        listed = [name for name in listed if name.isascii() or is_text(name)]
        there = pc.is_in(self.paths, value_set=pa.array(listed, pa.string()))
        return np.asarray(there.to_numpy(zero_copy_only=False), bool)

    def broken(
        self, rows: Array, progress: Callable[[str, int, int | None], None] | None = None
    ) -> dict[int, str]:
        """Which of these rows' files cannot be decoded, and why; reads and decodes them all, on threads."""

        def check(part: Array) -> dict[int, str]:
            return {row: why for row in part.tolist() if (why := self._fault(row)) is not None}

        parts = [rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)]
        faults: dict[int, str] = {}
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="check") as pool:
            for i, found in enumerate(pool.map(check, parts), 1):
                faults |= found
                if progress is not None:
                    progress("check images", min(i * CHUNK, len(rows)), len(rows))
        return faults

    def _fault(self, row: int) -> str | None:
        try:
            pictures.decode(self.read(row))
        except BrokenPicture as error:
            return str(error)
        return None
