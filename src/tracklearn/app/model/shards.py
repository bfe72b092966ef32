"""Features of many pictures by workers, a shard of them at a time.

A shard is a whole number of batches, so that every batch is the one that a single process makes, and so is
every feature where the device is the same. Each worker opens the network once, and the pictures too.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Protocol

import numpy as np

import tracklearn
from tracklearn.app.model.of_run import load_network
from tracklearn.app.model.open import Embedder, Origin, run_digest, run_origin
from tracklearn.store.config import digest
from tracklearn.store.gallery.entries import Sent
from tracklearn.store.objects import Stored
from tracklearn.store.runs import Run
from tracklearn.store.sets.stored import elsewhere
from tracklearn.store.workers.engine import ATTEMPTS, Engine, require_same, require_version
from tracklearn.types import Array, Crops, Progress, Refusal, Tracklets

if TYPE_CHECKING:
    from tracklearn.store.sets.tracklets import TrackletSet

BATCH = 256  # crops at a time in the network, as `embed.extract` has it
SHARD = 4 * BATCH  # what is read of one at a time fits into memory, 100 MB for crops of 256 x 128
_LOST = "{} workers that embedded crops came to grief ({}): ask for fewer"


class ReadCrops(Crops, Protocol):
    """Crops that tell of failures; `unreadable`: row -> why it could not be read, of those read so far."""

    @property
    def unreadable(self) -> dict[int, str]:
        """Filled while crops are read; they come back grey."""


class Pictures(Hashable, Protocol):
    """Where pictures lie: a small value that can be pickled and compared, opened in the worker."""

    def open(self) -> ReadCrops:
        """The pictures, at the size that the network takes.

        Raises:
            ValueError: the worker sees others there.
        """


@dataclass(frozen=True)
class SetCrops:
    """The crops of a tracklet set, or of several as one.

    Args:
        paths: folders of the sets, from the root, or places in storage.
        digest: of the set, or of the sets as one.
        height, width: that the crops are to have, pixels.
    """

    paths: tuple[Path | Stored, ...]
    digest: str
    height: int
    width: int

    @classmethod
    def of(cls, tracklet_set: TrackletSet, height: int, width: int) -> SetCrops:
        """Those of an opened set."""
        members = tracklet_set.members
        return cls(tuple(elsewhere(one.path) for one in members), tracklet_set.digest, height, width)

    def open(self) -> ReadCrops:
        """See `Pictures`; none is kept: each is read once."""
        from tracklearn.store.sets.joined import open_sets

        found = open_sets(self.paths)
        require_same(str(self.paths[0]), found.digest, self.digest)
        return found.crops(self.height, self.width, cache_bytes=0)


@dataclass(frozen=True, eq=False)
class Shard:
    """Some pictures, to be embedded.

    Args:
        origin: what embeds them.
        pictures: where they lie.
        rows: (n,) int64 of them.
        version: of the program that asks.
    """

    origin: Origin
    pictures: Pictures
    rows: Array
    version: str = tracklearn.__version__

    @property
    def size(self) -> int:
        """Pictures."""
        return len(self.rows)

    def run(self, progress: Progress | None) -> tuple[Array, dict[int, str]]:
        """(n, d) float32 unit features, and row -> why of pictures that could not be read.

        Raises:
            ValueError: the worker has another version of the program, or sees another network or other
                pictures there; as what embeds them.
        """
        require_version(self.version)
        crops = _crops(self.pictures)
        made = _embedder(self.origin).extract(Counted(crops, Count(self.size, progress)), self.rows)
        return made, self._lost(crops)

    def read(self) -> tuple[Array, dict[int, str]]:
        """(n, h, w, 3) uint8 pictures, and row -> why of those that could not be read; see `Staged`.

        Raises:
            ValueError: as `run`, but for the network, which is not opened.
        """
        require_version(self.version)
        crops = _crops(self.pictures)
        return crops.read(self.rows), self._lost(crops)

    def work(self, read: tuple[Array, dict[int, str]]) -> tuple[Array, dict[int, str]]:
        """What `run` returns, of pictures that were read."""
        require_version(self.version)
        pictures, lost = read
        return _embedder(self.origin).extract(_Held(self.rows, pictures), self.rows), lost

    def _lost(self, crops: ReadCrops) -> dict[int, str]:
        lost = crops.unreadable
        return {row: lost[row] for row in self.rows.tolist() if row in lost} if lost else {}


@lru_cache(maxsize=1)
def _embedder(origin: Origin) -> Embedder:
    """The network, for all shards that come to this process."""
    return origin.open()


@lru_cache(maxsize=1)
def _crops(pictures: Pictures) -> ReadCrops:
    """The pictures, likewise."""
    return pictures.open()


class _Held:
    """Pictures that were read, as crops: under the rows that they have there."""

    def __init__(self, rows: Array, pictures: Array) -> None:
        self._order = np.argsort(rows, kind="stable")
        self._sorted, self._pictures = rows[self._order], pictures

    def __len__(self) -> int:
        return int(self._sorted[-1]) + 1

    def read(self, indices: Sequence[int] | Array) -> Array:
        """See `types.Crops`."""
        return self._pictures[self._order[np.searchsorted(self._sorted, indices)]]


class Count:
    """Pictures read so far, told on from whatever thread has read some.

    Args:
        total: of all.
        progress: told as ("features", read, total).
    """

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress
        self._lock = Lock()

    def add(self, n: int) -> None:
        """So many more."""
        with self._lock:
            self._done += n
            if self._progress is not None:
                self._progress("features", self._done, self._total)


class Counted:
    """Crops that are counted as they are read.

    Args:
        crops: those. count: what they are counted in.
    """

    def __init__(self, crops: Crops, count: Count) -> None:
        self._crops, self._count = crops, count

    def __len__(self) -> int:
        return len(self._crops)

    def read(self, indices: Sequence[int] | Array) -> Array:
        """See `types.Crops`."""
        images = self._crops.read(indices)
        self._count.add(len(images))
        return images


def shards_of(origin: Origin, pictures: Pictures, rows: Array) -> list[Shard]:
    """The shards of these rows, in their order."""
    index = np.asarray(rows, np.int64)
    return [Shard(origin, pictures, index[i : i + SHARD]) for i in range(0, len(index), SHARD)]


def outcomes(
    shards: Sequence[Shard], engine: Engine, progress: Progress | None, *, what: str = "features"
) -> Generator[tuple[int, Array, dict[int, str]], None, None]:
    """Of every shard its number and what it gave (`Shard.run`), as soon as it is known, in any order.

    Raises:
        ValueError: workers died over a shard; as `Shard.run`.
    """
    with closing(engine.run(shards, what, progress, gpus=_gpus(shards))) as found:
        for outcome in found:
            if outcome.lost is not None:
                raise Refusal(_LOST.format(ATTEMPTS, outcome.lost))
            yield outcome.number, *outcome.value


def _gpus(shards: Sequence[Shard]) -> int:
    """GPUs that each shard computes on."""
    devices = {str(dict(shard.origin.options).get("device", "cpu")) for shard in shards}
    return int(any(device.startswith("cuda") for device in devices))


def gathered(
    shards: Sequence[Shard], engine: Engine, progress: Progress | None, *, what: str = "features"
) -> tuple[Array, dict[int, str]]:
    """(n, d) float32 unit features of all pictures of some shards, and which could not be read (row -> why).

    Memory: the result, and the shards that have just come.

    Args:
        shards: of `shards_of`, at least one.
        engine: who computes.
        progress: told of all pictures together, as `what`.

    Raises:
        ValueError: as `outcomes`.
    """
    n = sum(len(shard.rows) for shard in shards)
    out: Array | None = None
    unreadable: dict[int, str] = {}
    with closing(outcomes(shards, engine, progress, what=what)) as found:
        for number, made, lost in found:
            if out is None:
                out = np.empty((n, made.shape[1]), np.float32)
            first = number * SHARD
            out[first : first + len(made)] = made
            unreadable |= lost
    assert out is not None
    return out, unreadable


def features(
    run: Run,
    tracklet_set: TrackletSet,
    rows: Array,
    *,
    device: str,
    engine: Engine,
    progress: Progress | None,
) -> Array:
    """(n, d) float32 unit features of crops, by the trained network of a run.

    Args:
        run: whose network. tracklet_set: whose crops. rows: (n,) of them, n ≥ 1.
        device: where each worker computes.
        engine: who computes.
        progress: told of all crops together.

    Raises:
        ValueError: as `embed.extract`; workers died over a shard.
    """
    config = load_network(run).config
    pictures = SetCrops.of(tracklet_set, config.height, config.width)
    shards = shards_of(run_origin(run, device=device), pictures, rows)
    return gathered(shards, engine, progress)[0]


@dataclass(frozen=True, eq=False)
class PartsShard:
    """Some parts of tracks, to be embedded and sent to a database's gallery.

    Args:
        shard: whole batches that hold all of their crops, and a few more.
        url: of the gallery. name: of what they are parts.
        part: (m,) int64 numbers of the parts. edge: (m + 1,) their crops among those of the shard.
    """

    shard: Shard
    url: str
    name: str
    part: Array
    edge: Array

    @property
    def size(self) -> int:
        """Pictures."""
        return self.shard.size

    def run(self, progress: Progress | None) -> None:
        """Embed and send; raises as `Shard.run`."""
        self._send(self.shard.run(progress)[0])

    def read(self) -> tuple[Array, dict[int, str]]:
        """See `Shard.read`."""
        return self.shard.read()

    def work(self, read: tuple[Array, dict[int, str]]) -> None:
        """What `run` does, of pictures that were read."""
        self._send(self.shard.work(read)[0])

    def _send(self, made: Array) -> None:
        from tracklearn.learn import embed
        from tracklearn.store.gallery import incoming

        own = np.repeat(np.arange(len(self.part)), np.diff(self.edge))
        pooled = embed.pool(made[self.edge[0] : self.edge[-1]], own, len(self.part))
        incoming.send(self.url, self.name, self.part, pooled)


def send_features(
    run: Run,
    tracklet_set: TrackletSet,
    tracklets: Tracklets,
    *,
    url: str,
    device: str,
    engine: Engine,
    progress: Progress | None,
) -> Sent:
    """Have workers embed tracklets and send their features to a database's gallery themselves.

    They are those of `tracklet_features`, to the bit where the device is the same: a shard is made of the
    very batches that a single process makes. What an earlier call has sent, by the same
    weights and version, is not made again.

    Args:
        url: of the gallery; workers reach the database by it too.

    Returns:
        What a gallery takes in their place.
    """
    from tracklearn.store.gallery import incoming

    rows, edge = tracklets.crop, tracklets.start
    cut = sha256(
        rows.tobytes() + edge.tobytes()
    ).hexdigest()  # hands and isolation may cut it otherwise later
    embeds = [run_digest(run, "weights"), tracklearn.__version__]
    name = digest([*embeds, tracklet_set.digest, device, cut])
    there = incoming.expect(url, name, len(tracklets))
    network = load_network(run)
    origin = run_origin(run, device=device)
    pictures = SetCrops.of(tracklet_set, network.config.height, network.config.width)
    tasks, first, width = [], 0, network.feature_dim
    while first < len(tracklets):
        last = max(first + 1, int(np.searchsorted(edge, edge[first] + SHARD, side="right")) - 1)
        if not there[first:last].all():
            low = edge[first] // BATCH * BATCH
            high = min(-(-edge[last] // BATCH) * BATCH, len(rows))
            shard = Shard(origin, pictures, np.asarray(rows[low:high], np.int64))
            tasks.append(PartsShard(shard, url, name, np.arange(first, last), edge[first : last + 1] - low))
        first = last
    with closing(engine.run(tasks, "features", progress, gpus=_gpus([t.shard for t in tasks]))) as found:
        for outcome in found:
            if outcome.lost is not None:
                raise Refusal(_LOST.format(ATTEMPTS, outcome.lost))
    return Sent(name, width)


def tracklet_features(
    run: Run,
    tracklet_set: TrackletSet,
    tracklets: Tracklets,
    *,
    device: str,
    engine: Engine,
    progress: Progress | None,
) -> Array:
    """(t, d) float32 unit features of tracklets, as `of_run.tracklet_features` makes them in this process."""
    from tracklearn.learn import embed

    made = features(run, tracklet_set, tracklets.crop, device=device, engine=engine, progress=progress)
    return embed.pool(made, tracklets.tracklet, len(tracklets))
