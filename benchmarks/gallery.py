"""Searching a gallery: CPU time of a query, memory, and whether the answer is brute force's.

    python -m benchmarks.gallery [--small] [--entries N] [--width D] [--queries Q] [--postgres N]

Features are made: people as directions, 20 entries each, cosine of two of one person about 0.6, queries from
the same people. In turn, one query at a time: brute force (one float32 product, then a sort), the gallery
without and with 8-bit rows, faiss's flat index. With --postgres N a gallery of N entries in PostgreSQL too,
from the package pgserver: exact, and by its graph, with its recall; of the server wall time alone is known.

Prints the table; exit code 1 where the gallery finds anything but what brute force finds.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from tracklearn.store.gallery import segment
from tracklearn.store.gallery.entries import Content
from tracklearn.store.gallery.folder import FolderGallery
from tracklearn.store.gallery.open import create_gallery
from tracklearn.types import Tracklets

PERSON, PER_PERSON, K = 0.6, 20, 10


def made(n: int, width: int, queries: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) entries and (q, d) queries, unit float32."""
    rng = np.random.default_rng(seed)

    def rows(person: np.ndarray) -> np.ndarray:
        noise = rng.standard_normal((len(person), width), dtype=np.float32)
        noise *= np.sqrt((1 - PERSON) / width)
        found = noise + people[person]
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    people = rng.standard_normal((max(1, n // PER_PERSON), width), dtype=np.float32)
    people *= np.sqrt(PERSON) / np.linalg.norm(people, axis=1, keepdims=True)
    return rows(rng.integers(0, len(people), n)), rows(rng.integers(0, len(people), queries))


def content(features: np.ndarray) -> Content:
    """One part a track, of one crop."""
    n = len(features)
    at = np.arange(n)
    box = np.tile([0.0, 0, 20, 60], (n, 1))
    tracklets = Tracklets(at, at, at / 5, box, np.full(n, 0.9), at, np.zeros(n), at)
    return Content(features, tracklets, ("camera",), digest="made", path="../set")


def brute(features: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The nearest by float32 distances, then exactly in float64."""
    squared = (features @ query) * -2
    near = np.argpartition(squared, 4 * K)[: 4 * K]
    exact = np.linalg.norm(features[near].astype(np.float64) - query, axis=1)
    return near[np.lexsort((near, exact))][:K]


def timed(ask: Callable[[np.ndarray], Any], queries: np.ndarray) -> tuple[list[Any], dict[str, float]]:
    """What each query finds; CPU and wall milliseconds of a query, the first five left out."""
    found, cpu, wall = [], [], []
    for query in queries:
        before = time.process_time(), time.perf_counter()
        found.append(ask(query))
        cpu.append(1000 * (time.process_time() - before[0]))
        wall.append(1000 * (time.perf_counter() - before[1]))
    kept, walls = cpu[5:] or cpu, wall[5:] or wall
    named = {"cpu p50": np.median(kept), "cpu p95": np.quantile(kept, 0.95), "wall p50": np.median(walls)}
    return found, {name: round(float(value), 2) for name, value in named.items()}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gallery", description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true", help="5,000 entries of 64 numbers, 20 queries")
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--postgres", type=int, default=0, help="entries of a gallery in PostgreSQL")
    given = parser.parse_args()
    n, width, q = (5_000, 64, 20) if given.small else (given.entries, given.width, given.queries)
    features, queries = made(n, width, q)
    rows: list[list[Any]] = []
    wrong = 0

    def add(name: str, ask: Callable[[np.ndarray], Any], note: str = "") -> None:
        nonlocal wrong
        found, times = timed(ask, queries)
        same = sum(np.array_equal(a, b) for a, b in zip(found, truth, strict=True))
        wrong += name.startswith("gallery") * (q - same)
        rows.append([name, *times.values(), f"{same} of {q}", note])

    truth, times = timed(lambda query: brute(features, query), queries)
    rows.append(["brute force, float32", *times.values(), f"{q} of {q}", f"{features.nbytes / 1e6:.0f} MB"])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        create_gallery(folder / "coded", [content(features)], origin={}).close()
        before, segment.CODED = segment.CODED, n + 1
        create_gallery(folder / "plain", [content(features)], origin={}).close()
        segment.CODED = before
        for name, where in (("gallery, float32", "plain"), ("gallery, 8 bits first", "coded")):
            opened = FolderGallery(folder / where)
            opened.search(queries[0], K)  # compiles, and compares the sums
            size = sum(file.stat().st_size for file in (folder / where).iterdir())
            ask = lambda query, opened=opened: opened.search(query, K).index[0]  # noqa: E731
            add(name, ask, f"{size / 1e6:.0f} MB of files")
    add_faiss(features, add)
    print(measure.table(["one query", "CPU ms p50", "p95", "wall ms p50", "as brute force", ""], rows))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\n{n:,} x {width}; peak memory of all of it {peak:.0f} MB; {measure.machine()}")
    if given.postgres:
        postgres(given.postgres, width, queries)
    return int(wrong > 0)


def add_faiss(features: np.ndarray, add: Callable[..., None]) -> None:
    """The row of faiss's flat index, where it is installed."""
    try:
        import faiss
    except ImportError:
        print("faiss is not installed: its row is left out")
        return
    faiss.omp_set_num_threads(1)
    flat = faiss.IndexFlatIP(features.shape[1])
    flat.add(features)
    add("faiss flat, inner product", lambda query: flat.search(query[None], K)[1][0])


def postgres(n: int, width: int, queries: np.ndarray) -> None:
    """The table of a gallery in PostgreSQL."""
    from tests.postgres_server import server, why_not

    if reason := why_not():
        print(f"PostgreSQL is not measured: {reason}")
        return
    features, _ = made(n, width, 1)
    with server() as url:
        began = time.perf_counter()
        opened = create_gallery(url, [content(features)], origin={})
        built = time.perf_counter() - began
        rows = []
        for name, exact in (("exact", True), ("by its graph", False)):
            _, times = timed(lambda query, exact=exact: opened.search(query, K, exact=exact), queries[:30])
            rows.append([f"PostgreSQL, {name}", *times.values()])
        print(measure.table(["one query", "client's CPU ms p50", "p95", "wall ms p50"], rows))
        print(f"\n{n:,} x {width}; filled and built in {built:.0f} s; recall at 10 {opened.recall():.4f}")
        opened.close()


if __name__ == "__main__":
    sys.exit(main())
