"""Features of a benchmark's items, read as a stream: images that fail are left out and counted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn.store.picture.crops import ENLARGE, GREY
from tracklearn.types import Array, Progress

if TYPE_CHECKING:
    from tracklearn.app.model.open import Model
    from tracklearn.store.benchmarks import Benchmark, Part


_CHUNK = 4096  # images whose features are held at once: whole batches, as one long extraction has
_LISTED = 100  # unreadable images named in a record


class Pictures:
    """The images of a part at one size, each decoded when read, on threads; none is kept.

    An image that cannot be read comes back grey; `unreadable` has its row and the reason.

    Args:
        part: whose images.
        height, width: size of what `read` returns, pixels.
        interpolation: "bicubic" or "bilinear", for an axis that grows; one that shrinks is averaged.
        told: called with the number of images of every read, from the thread that read them.
    """

    def __init__(
        self,
        part: Part,
        height: int,
        width: int,
        *,
        interpolation: str = "bicubic",
        told: Callable[[int], None] | None = None,
    ) -> None:
        self._part, self._height, self._width, self._told = part, height, width, told
        self._resize = ENLARGE[interpolation]
        self.unreadable: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._part.truth.pid)

    def read(self, indices: Sequence[int] | Array) -> Array:
        """(b, height, width, 3) uint8 RGB; see `types.Crops`."""
        rows = np.asarray(indices, np.int64).tolist()
        if len(rows) < 16:
            images = [self._one(row) for row in rows]
        else:
            with ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="pictures") as pool:
                images = list(pool.map(self._one, rows))
        if self._told is not None:
            self._told(len(rows))
        return np.stack(images)

    def _one(self, row: int) -> Array:
        try:
            return self._resize(self._part.image(row), self._height, self._width)
        except FileNotFoundError:
            self.unreadable[row] = "missing"
        except ValueError:
            self.unreadable[row] = "cannot be decoded"
        return np.full((self._height, self._width, 3), GREY, np.uint8)


@dataclass(frozen=True)
class Features:
    """Unit features of the distinct items of one or several tests.

    Args:
        feature: (m, d) float32; zeros for an item of which no image could be read.
        readable: (m,) bool, whether any could.
        place: for each test, (t,) int64, the row of each item; −1 for junk, which needs none.
        unreadable: for each test, image row -> why it could not be read; each image in one test only.
        n_images: images of the m items.
    """

    feature: Array
    readable: Array
    place: tuple[Array, ...]
    unreadable: tuple[dict[int, str], ...]
    n_images: int

    def record(self, tests: Sequence[Benchmark]) -> dict[str, Any]:
        """Counts of images, and which could not be read, for scores.json."""
        reason = {
            _name_of(test.test, row): why
            for test, unreadable in zip(tests, self.unreadable, strict=True)
            for row, why in unreadable.items()
        }
        lost = [
            {
                "split": test.split,
                "query": int((~kept[test.query]).sum()),
                "gallery": int((~kept[test.gallery]).sum()),
            }
            for test, place in zip(tests, self.place, strict=True)
            for kept in [self.readable[place] | (place < 0)]
        ]
        return {
            "n_items": len(self.feature),
            "n_images": self.n_images,
            "skipped_images": len(reason),
            "dropped_items": int((~self.readable).sum()),
            "dropped": [entry for entry in lost if entry["query"] or entry["gallery"]],
            "unreadable": [{"item": item, "reason": why} for item, why in sorted(reason.items())[:_LISTED]],
        }


def extract(model: Model, tests: Sequence[Benchmark], *, progress: Progress | None = None) -> Features:
    """The feature of every item that takes part, once where several splits share it (METHODS 2.6).

    It is the mean over all images of their unit features, unit again; of a single image its own. Images that
    cannot be read are left out. Memory: the result, and the features of 4,096 images, or of the longest item
    where that has more.
    """
    known: dict[Any, int] = {}
    place: list[Array] = []
    jobs: list[Array] = []
    for test in tests:
        needed = test.test.pid >= 0
        needed[test.query] = True
        items = np.flatnonzero(needed)
        names = _identities(test.test, items)
        unknown = []
        for item, name in zip(items.tolist(), names, strict=True):
            if name not in known:
                known[name] = len(known)
                unknown.append(item)
        at = np.full(len(needed), -1)
        at[items] = [known[name] for name in names]
        place.append(at)
        jobs.append(np.array(unknown, np.int64))
    total = sum(int(test.test.tracklets.length[new].sum()) for test, new in zip(tests, jobs, strict=True))
    count = _Count(total, progress)
    unreadable = []
    feature, readable = np.zeros((0, 0), np.float32), np.zeros(len(known), bool)
    row = 0
    for test, new in zip(tests, jobs, strict=True):
        pictures = Pictures(
            test.test, model.height, model.width, interpolation=model.interpolation, told=count.add
        )
        for made, kept in _stream(model, test.test, new, pictures):
            if not feature.size:
                feature = np.zeros((len(known), made.shape[1]), np.float32)
            feature[row : row + len(made)], readable[row : row + len(made)] = made, kept
            row += len(made)
        unreadable.append(pictures.unreadable)
    return Features(feature, readable, tuple(place), tuple(unreadable), total)


class _Count:
    """Images done so far, told on from whatever thread has read some."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress
        self._lock = Lock()

    def add(self, n: int) -> None:
        with self._lock:
            self._done += n
            if self._progress is not None:
                self._progress("features", self._done, self._total)


def _identities(part: Part, items: Array) -> list[Any]:
    """What tells an item from those of other splits: its first image and its length."""
    from tracklearn.store.picture.images import ImageFiles

    if not isinstance(part.images, ImageFiles):
        return items.tolist()
    tracklets = part.tracklets
    first = part.images.paths.take(tracklets.crop[tracklets.start[items]]).to_pylist()
    return list(zip(first, tracklets.length[items].tolist(), strict=True))


def _stream(model: Model, part: Part, items: Array, pictures: Pictures) -> Iterator[tuple[Array, Array]]:
    """Of these items in turn, some at a time: (b, d) features, and (b,) whether readable."""
    from tracklearn.learn import embed

    tracklets = part.tracklets
    rows = np.flatnonzero(np.isin(tracklets.tracklet, items))
    owner = np.searchsorted(items, tracklets.tracklet[rows])
    crop = tracklets.crop[rows]
    held, begun = np.zeros((0, 0), np.float32), 0  # features of rows begun.. that are not given yet
    for low in range(0, len(rows), _CHUNK):
        high = min(low + _CHUNK, len(rows))
        made = model.extract(pictures, crop[low:high])
        held = np.concatenate([held, made]) if len(held) else made
        # The last item may go on in the next chunk.
        end = high if high == len(rows) else int(np.searchsorted(owner, owner[high]))
        good = ~np.isin(crop[begun:end], list(pictures.unreadable))
        group = owner[begun:end]
        first, count = (group[0], group[-1] + 1 - group[0]) if len(group) else (0, 0)
        kept = np.bincount(group[good] - first, minlength=count) > 0
        out = np.zeros((count, made.shape[1]), np.float32)
        number = np.cumsum(kept) - 1
        out[kept] = embed.pool(held[: end - begun][good], number[group[good] - first], int(kept.sum()))
        yield out, kept
        held, begun = held[end - begun :], end


def _name_of(part: Part, row: int) -> str:
    from tracklearn.store.picture.images import ImageFiles

    images = part.images
    return images.paths[row].as_py() if isinstance(images, ImageFiles) else f"crop {row}"
