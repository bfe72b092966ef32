"""Which crops are looked at: clips for clustering, batches for training, decoded ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tracklearn.types import Array, Crops, PseudoLabels, Refusal, Tracklets


@dataclass(frozen=True, eq=False)
class Plan:
    """The batches of one epoch, drawn before it starts.

    Args:
        tracklet: (i, b) int64, the tracklets of each batch; those of one cluster stand together.
        row: (i, b, f) int64, rows of the tracklet set: f frames for each of them.
    """

    tracklet: Array
    row: Array

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.tracklet)


def clips(tracklets: Tracklets, n_frames: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """At most `n_frames` consecutive frames of every tracklet, from a random start.

    Args:
        tracklets: the set.
        n_frames: frames wanted of each tracklet; a shorter tracklet gives all it has, each once.
        rng: draws the starts, one for each tracklet.

    Returns:
        (rows (m,) int64 of the set, in order; tracklet (m,) int64 of each row).

    Source: TMC section 4.2 (32 frames); METHODS 2.6.
    """
    length = tracklets.length
    take = np.minimum(length, n_frames)
    first = tracklets.start[:-1] + rng.integers(0, length - take + 1)
    group = np.repeat(np.arange(len(tracklets)), take)
    within = np.arange(len(group)) - np.repeat(np.cumsum(take) - take, take)
    return first[group] + within, group


def _frames(tracklets: Tracklets, chosen: Array, n_frames: int, rng: np.random.Generator) -> Array:
    """(..., n_frames) rows: consecutive frames of the tracklets in `chosen`; short tracklets cycle."""
    length, start = tracklets.length[chosen], tracklets.start[:-1][chosen]
    # A short tracklet may begin anywhere, since it wraps; a long one must not run over its end.
    first = rng.integers(0, np.where(length < n_frames, length, length - n_frames + 1))
    within = (first[..., None] + np.arange(n_frames)) % length[..., None]
    return start[..., None] + within


def _members(members: Array, camid: Array, n: int, rng: np.random.Generator) -> Array:
    """n tracklets of one cluster: a random one, then those of other cameras, then of its own.

    Other cameras take turns. No tracklet comes twice before each of the cluster came once.
    """
    members = rng.permutation(members)
    camera = camid[members]
    # turn[i]: how many of the same camera precede i in the shuffled order
    order = np.argsort(camera, kind="stable")
    _, first, count = np.unique(camera[order], return_index=True, return_counts=True)
    turn = np.empty(len(members), np.int64)
    turn[order] = np.arange(len(members)) - np.repeat(first, count)
    own = camera == camera[0]
    own[0] = False
    rank = np.lexsort((turn, own))
    rank = np.r_[0, rank[rank != 0]]
    return members[np.resize(rank, n)]


def batches(
    tracklets: Tracklets,
    labels: PseudoLabels,
    n_iterations: int,
    rng: np.random.Generator,
    *,
    clusters_per_batch: int = 16,
    tracklets_per_cluster: int = 4,
    n_frames: int = 4,
    beside: Array | None = None,
) -> Plan:
    """An epoch of batches: clusters in random order, a few tracklets of each, a few frames of those.

    All clusters come once before one comes again, no cluster comes twice in a batch, and noise never comes.
    With fewer clusters than `clusters_per_batch` the batches are smaller.

    Args:
        tracklets: the set.
        labels: one per tracklet; at least two clusters.
        n_iterations: batches wanted.
        rng: draws everything.
        clusters_per_batch: P.
        tracklets_per_cluster: K; of other cameras first where the cluster has several, cycling
            through the cluster where it has fewer than K (each time with its own frames).
        n_frames: consecutive frames of each tracklet; short ones cycle.
        beside: (p, 2) int, tracklets that are two people for certain. Clusters that hold such a pair are
            drawn one after the other, so that most batches hold negatives that are true.

    Raises:
        ValueError: fewer than two clusters.

    Source: METHODS 2.6; MMT's code for the preference of other cameras (which repeats tracklets of
        other cameras where we first use up the anchor's own).
    """
    used = np.flatnonzero(labels.label >= 0)
    used = used[np.argsort(labels.label[used], kind="stable")]
    cluster, first = np.unique(labels.label[used], return_index=True)
    n = len(cluster)
    if n < 2:
        raise Refusal(f"labels hold {n} cluster(s), expected at least 2: nothing to tell apart")
    member = np.split(used, first[1:])
    per_batch = min(clusters_per_batch, n)
    chosen = np.empty((n_iterations, per_batch, tracklets_per_cluster), np.int64)
    others = _beside(labels.label, cluster, beside)
    for i, batch in enumerate(_turns(n, n_iterations, per_batch, rng, others)):
        for j, c in enumerate(batch):
            chosen[i, j] = _members(member[c], tracklets.camid, tracklets_per_cluster, rng)
    tracklet = chosen.reshape(n_iterations, per_batch * tracklets_per_cluster)
    return Plan(tracklet, _frames(tracklets, tracklet, n_frames, rng))


def singles(
    tracklets: Tracklets,
    labels: PseudoLabels,
    n_iterations: int,
    rng: np.random.Generator,
    *,
    tracklets_per_batch: int = 16,
    images_per_tracklet: int = 4,
) -> Plan:
    """An epoch of batches of single images: tracklets of all cameras in random order, a few frames of each.

    All tracklets come once before one comes again, and none comes twice in a batch. With fewer tracklets than
    `tracklets_per_batch` the batches are smaller.

    Args:
        tracklets: the set, at least one.
        labels: not asked; every tracklet comes.
        n_iterations: batches wanted.
        rng: draws everything.
        tracklets_per_batch: different ones.
        images_per_tracklet: frames of each, which stand together as samples of one frame: one at random from
            each of that many equal parts of the tracklet; short ones cycle.

    Source: METHODS 4.2 for what a batch mixes; the rest is chosen.
    """
    per_batch = min(tracklets_per_batch, len(tracklets))
    turns = list(_turns(len(tracklets), n_iterations, per_batch, rng))
    chosen = np.array(turns, np.int64).reshape(n_iterations, per_batch, 1)
    length, k = tracklets.length[chosen], np.arange(images_per_tracklet)
    low, high = k * length // images_per_tracklet, (k + 1) * length // images_per_tracklet
    spread = rng.integers(low, np.maximum(high, low + 1))
    cycled = (rng.integers(0, length) + k) % length
    row = tracklets.start[:-1][chosen] + np.where(length < images_per_tracklet, cycled, spread)
    n = per_batch * images_per_tracklet
    tracklet = np.repeat(chosen[:, :, 0], images_per_tracklet, 1)
    return Plan(tracklet, row.reshape(n_iterations, n, 1))


def _beside(label: Array, cluster: Array, pair: Array | None) -> list[Array]:
    """For each cluster, by its place in `cluster`, those that hold somebody seen beside one of its own."""
    if pair is None or not len(pair):
        return []
    ends = label[pair]
    ends = np.unique(ends[(ends >= 0).all(1) & (ends[:, 0] != ends[:, 1])], axis=0)
    place = np.unique(np.searchsorted(cluster, np.concatenate([ends, ends[:, ::-1]])), axis=0)
    edge = np.searchsorted(place[:, 0], np.arange(1, len(cluster)))
    return np.split(place[:, 1], edge)


def _turns(
    n: int, n_iterations: int, per_batch: int, rng: np.random.Generator, others: Sequence[Array] = ()
) -> Iterator[list[int]]:
    """Batches of `per_batch` different numbers below n; all come once before one comes again.

    With `others` each is followed, where one is left, by one of those of its own.
    """
    queue: list[int] = []
    for _ in range(n_iterations):
        if len(queue) < per_batch:
            # The next pass starts inside this batch: what the batch already holds goes to its end.
            order = rng.permutation(n)
            if others:
                order = _paired(order, others, rng)
            again = np.isin(order, queue)
            queue += [*order[~again].tolist(), *order[again].tolist()]
        yield queue[:per_batch]
        queue = queue[per_batch:]


def _paired(order: Array, others: Sequence[Array], rng: np.random.Generator) -> Array:
    """The same numbers, each followed by one of its `others` that has not come yet, where there is one."""
    left, out = np.ones(len(order), bool), []
    for first in order.tolist():
        if left[first]:
            left[first] = False
            out.append(first)
            open_ones = others[first][left[others[first]]]
            if len(open_ones):
                second = int(rng.choice(open_ones))
                left[second] = False
                out.append(second)
    return np.array(out, np.int64)


def ahead(crops: Crops, rows: Iterable[Array], *, depth: int = 2, pin: bool = False) -> Generator[Tensor]:
    """The crops of each entry of `rows`, in order, read by a thread that is up to `depth` entries ahead.

    Args:
        crops: pictures.
        rows: row numbers of `crops`, one array for each batch.
        depth: entries held in memory besides the one in use.
        pin: put them into page-locked memory, from where copying to a CUDA device need not wait.

    Returns:
        uint8 tensors (b, h, w, 3) on the CPU.
    """

    def read(entry: Array) -> Tensor:
        images = torch.from_numpy(np.require(crops.read(entry), requirements=["C", "W"]))
        return images.pin_memory() if pin else images

    pool = ThreadPoolExecutor(1, thread_name_prefix="crops")
    coming: deque[Future[Tensor]] = deque()
    try:
        for entry in rows:
            coming.append(pool.submit(read, entry))
            if len(coming) > depth:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
