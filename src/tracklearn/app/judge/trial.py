"""One test of a benchmark: the features of its queries and gallery, and their scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tracklearn.app.judge.extract import Features
from tracklearn.core import rank
from tracklearn.types import Array, Refusal, Scores

if TYPE_CHECKING:
    from tracklearn.store.benchmarks import Benchmark


_MAX_RANK = 50


@dataclass(frozen=True)
class Trial:
    """The queries and the gallery of one test under one protocol, ready to be compared.

    Args:
        benchmark: the test.
        protocol: its name.
        query, gallery: items of the test part: those with features; without junk and, where the protocol
            says so, without the queries.
        query_row: (q,) the gallery row of each query, −1 where it is not there.
        features: of queries and gallery, (q, d) and (g, d).
        reranked: (q, g) distances in place of the features' own.
    """

    benchmark: Benchmark
    protocol: rank.Protocol
    query: Array
    gallery: Array
    query_row: Array
    features: tuple[Array, Array]
    reranked: Array | None

    @classmethod
    def of(
        cls, benchmark: Benchmark, place: Array, features: Features, *, protocol: str, rerank: bool
    ) -> Trial:
        """The trial of a test whose items have the rows `place` of the features.

        Raises:
            ValueError: no query or no gallery is left.
        """
        there = (place >= 0) & features.readable[place]
        query = benchmark.query[there[benchmark.query]]
        there &= benchmark.test.pid >= 0
        if protocol == "gallery-excludes-queries":
            there[benchmark.query] = False
        gallery = benchmark.gallery[there[benchmark.gallery]]
        if not len(query) or not len(gallery):
            what = "query" if not len(query) else "gallery item"
            raise Refusal(f"{benchmark.title} in {benchmark.root}: no {what} with an image that can be read")
        row = np.full(len(place), -1)
        row[gallery] = np.arange(len(gallery))
        pair = features.feature[place[query]], features.feature[place[gallery]]
        name: rank.Protocol = next(known for known in rank.PROTOCOLS if known == protocol)
        distance = rank.rerank(*pair, neighbors="int8") if rerank else None
        return cls(benchmark, name, query, gallery, row[query], pair, distance)

    def scores(self, ap: rank.AveragePrecision, *, only: Array | None = None) -> Scores:
        """CMC and mAP of all queries, or of the rows `only`."""
        some = np.arange(len(self.query)) if only is None else only
        pid, camid = self.benchmark.test.pid, self.benchmark.test.camid
        query, gallery = self.query[some], self.gallery
        return rank.evaluate(
            (self.features[0][some], self.features[1]) if self.reranked is None else self.reranked[some],
            pid[query],
            pid[gallery],
            camid[query],
            camid[gallery],
            protocol=self.protocol,
            query_row=self.query_row[some],
            ap=ap,
            max_rank=_MAX_RANK,
        )

    def top(self, row: int, k: int) -> tuple[Array, Array]:
        """Of one query the k nearest items that count for it, and whether each is the same person."""
        pid, camid = self.benchmark.test.pid, self.benchmark.test.camid
        item = self.query[row]
        if self.reranked is None:
            near = rank.distance(self.features[0][row : row + 1], self.features[1])[0]
        else:
            near = self.reranked[row]
        right = pid[self.gallery] == pid[item]
        counts = ~(right & (camid[self.gallery] == camid[item]))
        counts &= np.arange(len(self.gallery)) != self.query_row[row]
        order = np.lexsort((right, near))  # as scores take ties: a right one behind the wrong ones
        found = order[counts[order]][:k]
        return self.gallery[found], right[found]
