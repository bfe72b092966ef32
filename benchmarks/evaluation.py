"""Scores and re-ranking, beside the textbook.

    python -m benchmarks.evaluation [--small] [--repeats R] [--out DIR]

- CMC and mAP of a distance matrix of MARS's size (1,980 × 11,310, 3,248 distractors) and of Market-1501's
  (3,368 × 19,732, of them 3,819 junk and 2,798 distractors): `rank.evaluate` in turns with the usual Python
  evaluator, which sorts every row and walks the queries in a loop. People, cameras and distances are drawn;
  the distances of a row are all different, as the usual evaluator has no rule for ties.
- Re-ranking of made features, 2,048 wide, one query in seven rows: `rank.rerank`, from features alone and
  with their neighbours known, in turns with the dense computation of Zhong et al. at 4,000 rows; and ours
  alone at MARS's 1,980 + 11,310.

Seconds, CPU-seconds, the median ratio of runs made one after the other, and the peak memory of each in a
process of its own. Prints tables, and writes evaluation.json to DIR (benchmarks/results; with --small only
where --out is given). Exit code 1 where mAP or CMC differ by more than 1e-12, or re-ranked distances by more
than 1e-5.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks import measure
from tracklearn.core import rank
from tracklearn.core.jaccard import columns_needed
from tracklearn.core.neighbors import k_nearest_and_farthest
from tracklearn.types import Scores

Array = NDArray[Any]

OURS, KNOWN, TEXTBOOK = "tracklearn", "tracklearn, neighbours known", "textbook"
WIDTH, CAMERAS, MAX_RANK = 2_048, 6, 50
K1, K2, WEIGHT = 20, 6, 0.3
SCORE_TOLERANCE, DISTANCE_TOLERANCE = 1e-12, 1e-5
UNSETTLED = 16  # places behind the neighbours needed within which float32 may have put rows wrongly


class Gallery(NamedTuple):
    """Size of a test set; `junk` and `distractors` are rows of the gallery."""

    n_query: int
    n_gallery: int
    junk: int
    distractors: int
    people: int


GALLERIES = {
    "MARS": Gallery(1_980, 11_310, 0, 3_248, 625),
    "Market-1501": Gallery(3_368, 19_732, 3_819, 2_798, 750),
}
SMALL_GALLERIES = {"small": Gallery(150, 1_000, 80, 150, 40)}
RERANKED = {"4,000 rows": (571, 4_000, True), "MARS": (1_980, 13_290, False)}
SMALL_RERANKED = {"small": (80, 560, True)}


def make_distances(size: Gallery, seed: int = 0) -> tuple[Array, Array, Array, Array, Array]:
    """distance (q, g) float32 and the pids and camids that `rank.evaluate` takes; no ties in a row."""
    rng = np.random.default_rng(seed)
    people = size.n_gallery - size.junk - size.distractors
    gallery_pid = np.concatenate(
        [np.full(size.junk, -1), np.zeros(size.distractors, int), rng.integers(1, size.people + 1, people)]
    )
    query_pid = rng.integers(1, size.people + 1, size.n_query)
    query_camid, gallery_camid = (
        rng.integers(0, CAMERAS, size.n_query),
        rng.integers(0, CAMERAS, size.n_gallery),
    )
    distance = np.empty((size.n_query, size.n_gallery), np.float32)
    for row, pid in zip(distance, query_pid, strict=True):
        order = np.argsort(rng.normal(size=size.n_gallery) - 3 * (gallery_pid == pid))
        row[order] = np.arange(size.n_gallery) / size.n_gallery
    return distance, query_pid, gallery_pid, query_camid, gallery_camid


def make_features(n: int, seed: int = 0) -> Array:
    """(n, WIDTH) unit rows of people with 20 tracklets each, cosine of two of one person about 0.3."""
    rng = np.random.default_rng(seed)
    people = rng.standard_normal((max(1, n // 20), WIDTH), dtype=np.float32)
    x = people[rng.integers(0, len(people), n)] + 1.5 * rng.standard_normal((n, WIDTH), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def textbook_scores(
    distance: Array, query_pid: Array, gallery_pid: Array, query_camid: Array, gallery_camid: Array
) -> Scores:
    """CMC and mAP the usual way: sort every row, then drop, cumulate and average query by query."""
    order = np.argsort(distance, axis=1)
    curves, precisions = [], []
    for i, row in enumerate(order):
        same = gallery_pid[row] == query_pid[i]
        dropped = (same & (gallery_camid[row] == query_camid[i])) | (gallery_pid[row] == -1)
        hit = same[~dropped].astype(np.int32)
        if not hit.any():
            continue
        found = hit.cumsum()
        curves.append(np.minimum(found, 1)[:MAX_RANK])
        precision = found / np.arange(1, len(hit) + 1)
        precisions.append((precision * hit).sum() / hit.sum())
    n = len(curves)
    return Scores(float(np.mean(precisions)), np.mean(curves, axis=0), n, len(order) - n, "textbook")


def textbook_rerank(query: Array, gallery: Array, *, settle: bool = False) -> Array:
    """Re-ranked distances from dense float32 matrices over queries and gallery together.

    Args:
        query: (q, d), gallery: (g, d) float32 unit rows, together more than K1.
        settle: order the nearest rows again in float64, ties to the lower row. float32 alone leaves the
            order of a few rows to rounding, which is not what a comparison should find.

    Source: Zhong, Zheng, Cao, Li, "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR
    2017, section 3.
    """
    x, q = np.concatenate([query, gallery]), len(query)
    n = len(x)
    original = np.maximum(2 - 2 * (x @ x.T), 0)
    original = (original / original.max(axis=0)).T
    order = np.argsort(original, axis=1)
    if settle:
        for i in range(n):
            near = order[i, : K1 + 1 + UNSETTLED]
            exact = 2 - 2 * (x[near].astype(np.float64) @ x[i].astype(np.float64))
            order[i, : len(near)] = near[np.lexsort((near, np.rint(exact * 2.0**40)))]

    def reciprocal(i: int, k: int) -> Array:
        forward = order[i, : k + 1]
        return forward[(order[forward, : k + 1] == i).any(axis=1)]

    weight = np.zeros((n, n), np.float32)
    for i in range(n):
        own = reciprocal(i, K1)
        members = own
        for j in own:
            more = reciprocal(j, round(K1 / 2))
            if 3 * len(np.intersect1d(more, own)) > 2 * len(more):
                members = np.append(members, more)
        members = np.unique(members)
        near = np.exp(-original[i, members])
        weight[i, members] = near / near.sum()
    weight = np.stack([weight[order[i, :K2]].mean(axis=0) for i in range(n)])
    holders = [np.flatnonzero(weight[:, c]) for c in range(n)]
    out = np.empty((q, n - q), np.float32)
    for i in range(q):
        shared = np.zeros(n, np.float32)
        for c in np.flatnonzero(weight[i]):
            shared[holders[c]] += np.minimum(weight[i, c], weight[holders[c], c])
        out[i] = (1 - WEIGHT) * (1 - shared[q:] / (2 - shared[q:])) + WEIGHT * original[i, q:]
    return out


def score(given: tuple[str, tuple[Array, ...]]) -> Scores:
    """Scores of given distances, by name: ours or the textbook's."""
    name, case = given
    return textbook_scores(*case) if name == TEXTBOOK else rank.evaluate(*case, max_rank=MAX_RANK)


def rerank(given: tuple[str, Array, int, tuple[Array, Array, Array] | None]) -> Array:
    """Re-ranked distances of given features, the first q of them queries, by name."""
    name, x, q, known = given
    if name == TEXTBOOK:
        return textbook_rerank(x[:q], x[q:])
    return rank.rerank(
        x[:q], x[q:], k1=K1, k2=K2, lambda_value=WEIGHT, known=known if name == KNOWN else None
    )


def neighbours(x: Array) -> tuple[Array, Array, Array]:
    """What `rank.rerank` takes as known."""
    return k_nearest_and_farthest(x, columns_needed(len(x), K1, K2, "mmt"))


def prepare_score(name: str, size: Gallery) -> tuple[str, tuple[Array, ...]]:
    """Input of `score` for `measure.peak_memory`, after a small run has loaded what a run needs."""
    score((name, make_distances(SMALL_GALLERIES["small"])))
    return name, make_distances(size)


def prepare_rerank(name: str, q: int, n: int) -> tuple[str, Array, int, tuple[Array, Array, Array] | None]:
    """The same for `rerank`."""
    x = make_features(200)
    rerank((name, x, 50, neighbours(x)))
    x = make_features(n)
    return name, x, q, neighbours(x) if name == KNOWN else None


def summary(
    timing: Mapping[str, measure.Timing], memory: Mapping[str, measure.Peak]
) -> dict[str, dict[str, Any]]:
    """Times and memory of each, and how often the textbook needs those of ours."""
    out: dict[str, dict[str, Any]] = {}
    for name, runs in timing.items():
        out[name] = {**runs.to_dict(), "peak_bytes": memory[name].above}
        if TEXTBOOK in timing and name != TEXTBOOK:
            out[name]["textbook_ratio"] = {
                "wall": measure.ratio(timing[TEXTBOOK], runs),
                "cpu": measure.ratio(timing[TEXTBOOK], runs, "cpu"),
            }
    return out


def measure_scores(size: Gallery, repeats: int) -> dict[str, Any]:
    """Our scores and the textbook's, of one test set."""
    names = (OURS, TEXTBOOK)
    case = make_distances(size)
    timing = measure.alternate({name: partial(score, (name, case)) for name in names}, repeats)
    a, b = (timing[name].result for name in names)
    del case
    memory = {name: measure.peak_memory(prepare_score, score, name, size) for name in names}
    return {
        "size": size._asdict(),
        "mAP": a.mAP,
        "rank1": a.rank(1),
        "n_valid": a.n_valid,
        "mAP_difference": abs(a.mAP - b.mAP),
        "cmc_difference": float(np.abs(a.cmc - b.cmc).max()),
        "same": bool(
            abs(a.mAP - b.mAP) <= SCORE_TOLERANCE
            and np.allclose(a.cmc, b.cmc, rtol=0, atol=SCORE_TOLERANCE)
            and (a.n_valid, a.n_skipped) == (b.n_valid, b.n_skipped)
        ),
        "times": summary(timing, memory),
    }


def measure_rerank(q: int, n: int, dense: bool, repeats: int) -> dict[str, Any]:
    """Our re-ranking of n rows, q of them queries, and where `dense` the textbook's."""
    names = (OURS, KNOWN, TEXTBOOK) if dense else (OURS, KNOWN)
    x = make_features(n)
    known = neighbours(x)
    timing = measure.alternate({name: partial(rerank, (name, x, q, known)) for name in names}, repeats)
    want = textbook_rerank(x[:q], x[q:], settle=True) if dense else timing[OURS].result
    differs = max(float(np.abs(timing[name].result - want).max()) for name in (OURS, KNOWN))
    del x, known, want
    memory = {name: measure.peak_memory(prepare_rerank, rerank, name, q, n) for name in names}
    return {
        "n_query": q,
        "n": n,
        "difference": differs,
        "same": differs <= DISTANCE_TOLERANCE,
        "times": summary(timing, memory),
    }


def bars(result: Mapping[str, Any]) -> list[measure.Bar]:
    """What was promised on two idle cores, beside what was measured."""

    def wall(part: str, case: str, name: str) -> float | None:
        found = result[part].get(case)
        return found["times"][name]["wall_s"] if found else None

    return [
        measure.Bar("scores, MARS, s", 0.03, wall("scores", "MARS", OURS)),
        measure.Bar("scores, Market-1501, s", 0.08, wall("scores", "Market-1501", OURS)),
        measure.Bar("re-ranking, MARS, neighbours known, s", 0.8, wall("reranking", "MARS", KNOWN)),
    ]


def report(result: Mapping[str, Any]) -> str:
    """The measurements as tables."""
    header = ("", "", "wall s", "CPU s", "peak MB", "textbook / it, wall", "CPU", "same")
    rows = []
    for part in ("scores", "reranking"):
        for case, found in result[part].items():
            for name, one in found["times"].items():
                ratios = one.get("textbook_ratio", {})
                figures = one["wall_s"], one["cpu_s"], one["peak_bytes"] / 1e6
                same = None if name == TEXTBOOK else found["same"]
                rows.append((f"{part}, {case}", name, *figures, ratios.get("wall"), ratios.get("cpu"), same))
    return f"{measure.table(header, rows)}\n\n{measure.bars_table(bars(result))}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evaluation", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--small", action="store_true", help="one small case of each, in seconds")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each (default 5)")
    parser.add_argument("--out", type=Path, help="folder of evaluation.json")
    options = parser.parse_args(arguments)
    galleries = SMALL_GALLERIES if options.small else GALLERIES
    reranked = SMALL_RERANKED if options.small else RERANKED
    result: dict[str, Any] = {
        "scores": {name: measure_scores(size, options.repeats) for name, size in galleries.items()},
        "reranking": {name: measure_rerank(*size, options.repeats) for name, size in reranked.items()},
    }
    result["bars"] = bars(result)
    print(report(result))
    out = options.out or (None if options.small else measure.RESULTS)
    if out is not None:
        settings = {
            "repeats": options.repeats,
            "seed": 0,
            "k1": K1,
            "k2": K2,
            "lambda": WEIGHT,
            "width": WIDTH,
        }
        print(measure.save("evaluation", result, settings=settings, folder=out).name)
    wrong = [
        f"{part}, {case}"
        for part in ("scores", "reranking")
        for case, r in result[part].items()
        if not r["same"]
    ]
    if wrong:
        print(f"results differ: {'; '.join(wrong)}", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
