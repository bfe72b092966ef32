"""A benchmark cut down to some of its persons, for a machine that is too small for all of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tracklearn.store.benchmarks.parts import Benchmark, Part, Subset
from tracklearn.types import Array, Refusal


def draw(benchmark: Benchmark, subset: Subset) -> Benchmark:
    """The benchmark with the drawn persons alone, under its own protocols; a note says so.

    The gallery is left with the test persons drawn: distractors, junk and persons without a query go. It is
    smaller and easier than the whole, so scores compare only with those of the same subset.

    Raises:
        ValueError: a number below 1 or above what there is; a negative seed; no training part.
    """
    if subset.seed < 0:
        raise Refusal(f"seed is {subset.seed}, expected 0 or more")
    benchmark.require_train()
    train, test = benchmark.train, benchmark.test
    learnt = _drawn(train.pid, subset.persons, [subset.seed, 0], f"training persons of {benchmark.title}")
    tested = _drawn(
        test.pid[benchmark.query], subset.test_persons, [subset.seed, 1], f"test persons of {benchmark.title}"
    )
    kept = np.isin(test.pid, tested)
    new = np.cumsum(kept) - 1
    query, gallery = (items[kept[items]] for items in (benchmark.query, benchmark.gallery))
    made = replace(
        benchmark,
        train=_only(train, np.isin(train.pid, learnt)),
        test=_only(test, kept),
        query=new[query],
        gallery=new[gallery],
        published={},
        subset=subset,
    )
    whole, some = benchmark.counts, made.counts
    note = (
        f"a subset, drawn with seed {subset.seed}: {some['train_ids']:,} of {whole['train_ids']:,} training "
        f"persons, {some['query_ids']:,} of {whole['query_ids']:,} test persons; the gallery holds these "
        f"alone, {some['gallery']:,} of {whole['gallery']:,} items, without distractors"
    )
    return replace(made, notes=(*benchmark.notes, note))


def _drawn(pid: Array, n: int, seed: list[int], what: str) -> Array:
    known = np.unique(pid[pid >= 0])
    if not 1 <= n <= len(known):
        raise Refusal(f"{n:,} {what} are wanted, expected 1 to {len(known):,}")
    return np.random.default_rng(seed).permutation(known)[:n]


def _only(part: Part, wanted: Array) -> Part:
    """The items `wanted` (t,) bool; image rows stay what they were."""
    tracklets = part.tracklets
    return replace(part, tracklets=tracklets.split(np.where(wanted[tracklets.tracklet], 0, -1)))
