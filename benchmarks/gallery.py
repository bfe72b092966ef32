"""Searching a gallery: CPU time of a query, memory, and whether the answer is brute force's.

    python -m benchmarks.gallery [--small] [--entries N] [--width D] [--queries Q] [--pgvector] [--postgres N]
        [--even] [--features FILE.npy]

Features are made: people, 20 entries each, queries from the same people; the shares of variance along their
directions are those of a network that was adapted to Market-1501 (0.49, 0.71, 0.85, 0.93 in 16, 32, 64, 128).
With --even they are the same in every direction, and the cosine of two entries of one person is about 0.6.
--features takes rows of a file, the last of them as queries.

In turn, one query at a time and 16 together: brute force (one float32 product, then a sort), the gallery
without 8-bit rows, with them, with their heads too, and faiss's flat index; with --pgvector the same entries
in a table of a PostgreSQL server from the package pgserver, without an index, searched by one process of it.
With --postgres N a gallery of N entries in PostgreSQL too: exact, and by its graph, with its recall; of that
server wall time alone is known.

Prints the table; exit code 1 where the gallery finds anything but what brute force finds.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from tracklearn.store.gallery import segment
from tracklearn.store.gallery.entries import Content
from tracklearn.store.gallery.folder import FolderGallery
from tracklearn.store.gallery.open import create_gallery
from tracklearn.types import Tracklets

PERSON, PER_PERSON, K, TOGETHER = 0.6, 20, 10, 16
HEAD = ["one query", "CPU ms p50", "p95", "wall ms p50", "16 together", "as brute force", "files"]
SHARES = ((16, 0.49), (32, 0.71), (64, 0.85), (128, 0.93))  # of variance, in so many directions


def like_a_network(n: int, width: int, queries: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) entries and (q, d) queries, unit float32, of which few directions hold most."""
    rows, _ = people_like_a_network(n + queries, width, max(1, n // PER_PERSON), seed)
    return rows[queries:], rows[:queries]


def people_like_a_network(n: int, width: int, n_people: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) unit float32 rows, of which few directions hold most, and (n,) whose they are."""
    rng = np.random.default_rng(seed)
    edges = [(0, 0.0), *((at, share) for at, share in SHARES if at < width), (width, 1.0)]
    variance = np.concatenate(
        [
            (share - before) * (slope := np.linspace(1.3, 0.7, end - start)) / slope.sum()
            for (start, before), (end, share) in pairwise(edges)
        ]
    )
    spread = np.sqrt(variance).astype(np.float32)
    turn = np.linalg.qr(rng.standard_normal((width, width)))[0].astype(np.float32)
    people = rng.standard_normal((n_people, width), dtype=np.float32)
    out, person = np.empty((n, width), np.float32), np.empty(n, np.int64)
    for lo in range(0, n, 8192):
        block = out[lo : lo + 8192]
        noise = rng.standard_normal(block.shape, dtype=np.float32)
        who = person[lo : lo + 8192] = rng.integers(0, n_people, len(block))
        block[:] = ((people[who] + 0.6 * noise) * spread) @ turn
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return out, person


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


def timed(
    ask: Callable[[np.ndarray], Any],
    queries: np.ndarray,
    clock: Callable[[], float] = time.process_time,
) -> tuple[list[Any], dict[str, float]]:
    """What each query finds; CPU and wall milliseconds of a query, the first five left out."""
    found, cpu, wall = [], [], []
    for query in queries:
        before = clock(), time.perf_counter()
        found.append(ask(query))
        cpu.append(1000 * (clock() - before[0]))
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
    parser.add_argument("--even", action="store_true", help="features that lie in every direction alike")
    parser.add_argument("--features", type=Path, help=".npy, (n, d) float32 unit rows")
    parser.add_argument("--pgvector", action="store_true", help="pgvector's exact search of the same entries")
    parser.add_argument("--postgres", type=int, default=0, help="entries of a gallery in PostgreSQL")
    given = parser.parse_args()
    n, width, q = (5_000, 64, 20) if given.small else (given.entries, given.width, given.queries)
    if given.features is not None:
        rows_ = np.load(given.features)
        features, queries = rows_[:-q], rows_[-q:]
        n, width = features.shape
    else:
        features, queries = (made if given.even else like_a_network)(n, width, q)
    rows: list[list[Any]] = []
    wrong = 0

    def add(name: str, ask: Callable[[np.ndarray], Any], note: str = "") -> None:
        nonlocal wrong
        for query in queries:
            ask(query[None])  # compiles, and compares sums of what it reads
        found, times = timed(lambda query: ask(query[None])[0], queries)
        same = sum(np.array_equal(a, b) for a, b in zip(found, truth, strict=True))
        wrong += name.startswith("gallery") * (q - same)
        rows.append([name, *times.values(), together(ask, queries), f"{same} of {q}", note])

    truth, times = timed(lambda query: brute(features, query), queries)
    everything = f"{features.nbytes / 1e6:.0f} MB"
    rows.append(["brute force, float32", *times.values(), "–", f"{q} of {q}", everything])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        before = segment.CODED, segment.HEADED
        for name, coded, headed in (
            ("gallery, float32", n + 1, n + 1),
            ("gallery, 8 bits first", before[0], n + 1),
            ("gallery, heads first", *before),
        ):
            where = folder / name.split()[1]
            segment.CODED, segment.HEADED = coded, headed
            began = time.perf_counter()
            create_gallery(where, [content(features)], origin={}).close()
            built = time.perf_counter() - began
            opened = FolderGallery(where)
            note = f"{sum(file.stat().st_size for file in where.iterdir()) / 1e6:.0f} MB, {built:.0f} s"
            if headed == before[1]:
                directions = opened.manifest["sets"][0].get("directions")
                note += f"; {directions or 'no'} directions"
            add(name, lambda some, opened=opened: opened.search(some, K).index, note)
        segment.CODED, segment.HEADED = before
    add_faiss(features, add)
    if given.pgvector:
        rows.append(pgvector_exact(features, queries, truth))
    print(measure.table(HEAD, rows))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\n{n:,} x {width}; peak memory of all of it {peak:.0f} MB; {measure.machine()}")
    if given.postgres:
        postgres(given.postgres, width, queries)
    return int(wrong > 0)


def together(ask: Callable[[np.ndarray], Any], queries: np.ndarray) -> float:
    """CPU milliseconds of a query where 16 are asked together."""
    parts = [queries[i : i + TOGETHER] for i in range(0, len(queries) - TOGETHER + 1, TOGETHER)]
    before = time.process_time()
    for part in parts:
        ask(part)
    return round(1000 * (time.process_time() - before) / max(1, sum(map(len, parts))), 2)


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
    add("faiss flat, inner product", lambda some: flat.search(some, K)[1])


def pgvector_exact(features: np.ndarray, queries: np.ndarray, truth: list[Any]) -> list[Any]:
    """The row of pgvector without an index; CPU of the server's process and of this one together."""
    import os

    from tests.postgres_server import server

    from tracklearn import runtimes

    psycopg, vectors = runtimes.load("psycopg"), runtimes.load("pgvector.psycopg")
    with server() as url, psycopg.connect(url) as connection:
        connection.execute("CREATE EXTENSION vector")
        vectors.register_vector(connection)
        width = features.shape[1]
        connection.execute(f"CREATE UNLOGGED TABLE entry (row integer, feature vector({width}))")
        if width <= 1900:  # in the row itself, which is read once then
            connection.execute("ALTER TABLE entry ALTER COLUMN feature SET STORAGE PLAIN")
        began = time.perf_counter()
        with (
            connection.cursor() as cursor,
            cursor.copy("COPY entry (row, feature) FROM STDIN WITH (FORMAT BINARY)") as copy,
        ):
            copy.set_types(["int4", "vector"])
            for row, feature in enumerate(features):
                copy.write_row((row, feature))
        connection.commit()
        filled = time.perf_counter() - began
        connection.execute("SET max_parallel_workers_per_gather = 0")
        process = connection.info.backend_pid
        tick = os.sysconf("SC_CLK_TCK")

        def clock() -> float:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            return time.process_time() + (int(fields[11]) + int(fields[12])) / tick

        def ask(query: np.ndarray) -> np.ndarray:
            sql = f"SELECT row FROM entry ORDER BY feature <-> %s LIMIT {K}"
            return np.array([row for (row,) in connection.execute(sql, (query,)).fetchall()])

        ask(queries[0])  # reads the table into the system's memory
        found, times = timed(ask, queries, clock)
        same = sum(np.array_equal(a, b) for a, b in zip(found, truth, strict=True))
        (size,) = connection.execute("SELECT pg_total_relation_size('entry')").fetchone() or (0,)
    note = f"{size / 1e6:.0f} MB, {filled:.0f} s"
    return ["pgvector, exact", *times.values(), "–", f"{same} of {len(queries)}", note]


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
