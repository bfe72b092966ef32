"""Features of a benchmark's items, read as a stream: images that fail are left out and counted."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn.app.model import shards
from tracklearn.store import config as settings_store
from tracklearn.store.picture.crops import ENLARGE, GREY
from tracklearn.store.workers.engine import Engine, require_same
from tracklearn.types import Array, Progress, Refusal

if TYPE_CHECKING:
    from tracklearn.app.model.open import Model
    from tracklearn.store.benchmarks import Asked, Benchmark, Part


_LISTED = 100  # unreadable images named in a record


class Pictures:
    """The images of a part at one size, each decoded when read, on threads; none is kept.

    An image that cannot be read comes back grey; `unreadable` has its row and the reason.

    Args:
        part: whose images.
        height, width: size of what `read` returns, pixels.
        interpolation: "bicubic" or "bilinear", for an axis that grows; one that shrinks is averaged.
    """

    def __init__(self, part: Part, height: int, width: int, *, interpolation: str = "bicubic") -> None:
        self._part, self._height, self._width = part, height, width
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


@dataclass(frozen=True)
class JudgedImages:
    """The images of a benchmark's test part, for workers; see `shards.Pictures`.

    Args:
        asked: what was read. digest: of what it lists.
        height, width, interpolation: as `Pictures` takes them.
    """

    asked: Asked
    digest: str
    height: int
    width: int
    interpolation: str

    @classmethod
    def of(cls, benchmark: Benchmark, model: Model) -> JudgedImages:
        """Those of a benchmark, as a model takes them.

        Raises:
            ValueError: it was not read by `benchmarks.read`.
        """
        if benchmark.asked is None:
            raise Refusal(
                f"{benchmark.title} is held in memory, where workers do not see it: leave workers out"
            )
        listed = _listed(benchmark.test)
        return cls(benchmark.asked, listed, model.height, model.width, model.interpolation)

    def open(self) -> Pictures:
        """See `shards.Pictures`."""
        part = self.asked.again().test
        require_same(self.asked.root, _listed(part), self.digest)
        return Pictures(part, self.height, self.width, interpolation=self.interpolation)


def _listed(part: Part) -> str:
    """Digest of which image has which row."""
    from tracklearn.store.picture.images import ImageFiles

    images = part.images
    return (
        settings_store.digest(images.paths.to_pylist()) if isinstance(images, ImageFiles) else images.digest
    )


def extract(
    model: Model,
    tests: Sequence[Benchmark],
    *,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> Features:
    """The feature of every item that takes part, once where several splits share it (METHODS 2.6).

    It is the mean over all images of their unit features, unit again; of a single image its own. Images that
    cannot be read are left out. Memory: the result, and the features of 1,024 images, or of the longest item
    where that has more; by workers, those that come before their turn too.

    Args:
        model: what embeds.
        tests: as `benchmarks.read` gives them.
        engine: who embeds; this process, where there is none or one that works here.
        progress: told as ("features", images done, images in all).

    Raises:
        ValueError: as `model.extract`; workers cannot open the model, or died (`shards.outcomes`).
    """
    known: dict[Any, int] = {}
    place: list[Array] = []
    wanted: list[_Wanted] = []
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
        wanted.append(_Wanted.of(test, np.array(unknown, np.int64)))
    total = sum(len(one.crop) for one in wanted)
    unreadable: list[dict[int, str]] = []
    feature, readable = np.zeros((0, 0), np.float32), np.zeros(len(known), bool)
    row = 0
    if engine is None or not engine.apart:
        source = _here(model, wanted, shards.Count(total, progress))
    else:
        source = _by_workers(model, wanted, engine, progress)
    with closing(source) as made:
        for one in wanted:
            unreadable.append({})
            for pooled, kept in _pooled(one, made, unreadable[-1]):
                if not feature.size:
                    feature = np.zeros((len(known), pooled.shape[1]), np.float32)
                feature[row : row + len(pooled)], readable[row : row + len(pooled)] = pooled, kept
                row += len(pooled)
    return Features(feature, readable, tuple(place), tuple(unreadable), total)


@dataclass(frozen=True, eq=False)
class _Wanted:
    """The images of one test whose features are wanted.

    Args:
        test: whose.
        crop: (n,) image rows.
        owner: (n,) the item of each, counted from 0 among those wanted; ascending.
    """

    test: Benchmark
    crop: Array
    owner: Array

    @classmethod
    def of(cls, test: Benchmark, items: Array) -> _Wanted:
        tracklets = test.test.tracklets
        rows = np.flatnonzero(np.isin(tracklets.tracklet, items))
        return cls(test, tracklets.crop[rows], np.searchsorted(items, tracklets.tracklet[rows]))


# Features of some images, as long as a shard, and row -> why of those that could not be read so far.
_Made = Generator[tuple[Array, dict[int, str]], None, None]


def _here(model: Model, wanted: Sequence[_Wanted], count: shards.Count) -> _Made:
    """All that is wanted in order, by this process."""
    for one in wanted:
        pictures = Pictures(one.test.test, model.height, model.width, interpolation=model.interpolation)
        crops = shards.Counted(pictures, count)
        for low in range(0, len(one.crop), shards.SHARD):
            yield model.extract(crops, one.crop[low : low + shards.SHARD]), pictures.unreadable


def _by_workers(model: Model, wanted: Sequence[_Wanted], engine: Engine, progress: Progress | None) -> _Made:
    """The same by workers; what comes before its turn waits."""
    if model.origin is None:
        raise Refusal("the model is held in memory, where workers do not see it: leave workers out")
    tasks = [
        shard
        for one in wanted
        if len(one.crop)
        for shard in shards.shards_of(model.origin, JudgedImages.of(one.test, model), one.crop)
    ]
    early: dict[int, tuple[Array, dict[int, str]]] = {}
    turn = 0
    with closing(shards.outcomes(tasks, engine, progress)) as outcomes:
        for number, made, unreadable in outcomes:
            early[number] = made, unreadable
            while turn in early:
                yield early.pop(turn)
                turn += 1


def _identities(part: Part, items: Array) -> list[Any]:
    """What tells an item from those of other splits: its first image and its length."""
    from tracklearn.store.picture.images import ImageFiles

    if not isinstance(part.images, ImageFiles):
        return items.tolist()
    tracklets = part.tracklets
    first = part.images.paths.take(tracklets.crop[tracklets.start[items]]).to_pylist()
    return list(zip(first, tracklets.length[items].tolist(), strict=True))


def _pooled(
    wanted: _Wanted, made: Iterator[tuple[Array, dict[int, str]]], unreadable: dict[int, str]
) -> Iterator[tuple[Array, Array]]:
    """Of its items in turn, some at a time: (b, d) features, and (b,) whether readable.

    Args:
        wanted: whose. made: features of its images in order, a shard at a time.
        unreadable: filled with its images that could not be read.
    """
    from tracklearn.learn import embed

    crop, owner = wanted.crop, wanted.owner
    held, begun, high = np.zeros((0, 0), np.float32), 0, 0  # features of rows begun.. that are not given yet
    while high < len(crop):
        features, lost = next(made)
        unreadable.update(lost)
        high += len(features)
        held = np.concatenate([held, features]) if len(held) else features
        # The last item may go on in the next shard.
        end = high if high == len(crop) else int(np.searchsorted(owner, owner[high]))
        good = ~np.isin(crop[begun:end], list(unreadable))
        group = owner[begun:end]
        first, count = (group[0], group[-1] + 1 - group[0]) if len(group) else (0, 0)
        kept = np.bincount(group[good] - first, minlength=count) > 0
        out = np.zeros((count, features.shape[1]), np.float32)
        number = np.cumsum(kept) - 1
        out[kept] = embed.pool(held[: end - begun][good], number[group[good] - first], int(kept.sum()))
        yield out, kept
        held, begun = held[end - begun :], end


def _name_of(part: Part, row: int) -> str:
    from tracklearn.store.picture.images import ImageFiles

    images = part.images
    return images.paths[row].as_py() if isinstance(images, ImageFiles) else f"crop {row}"
