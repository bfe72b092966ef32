"""Many clients of one gallery at once: waiting times, wrong answers, lost decisions, memory.

    python -m benchmarks.gallery_load [--small] [--entries N] [--seconds 60] [--minutes 10] [--postgres]

Material as in `benchmarks.gallery`. First one client, then 20 search for --seconds, each as soon as it has
its answer, as the threads of a server do; with --postgres in PostgreSQL too, by its graph, whose recall is
told instead of wrong answers. Then, embedded, 50 clients for --minutes: 41 search and ask who is who, 8
review (a part moves to another person, with a name and a decision), one writes: takes a second set in, lets
some of its rows be found no more, takes them from the disk, and begins anew. Every answer is compared with
brute force over what the gallery held when it was asked.

Prints the tables; exit code 1 where an answer is wrong, a decision is lost, or memory grows.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.gallery import K, brute, content, like_a_network
from tracklearn.store.gallery.entries import PartKey
from tracklearn.store.gallery.folder import FolderGallery
from tracklearn.store.gallery.open import create_gallery
from tracklearn.store.gallery.postgres import PostgresGallery
from tracklearn.store.gallery.steps import Move, Naming, Step
from tracklearn.store.identities.journal import Decision, Place

Gallery = FolderGallery | PostgresGallery
SEARCHERS, READERS, REVIEWERS = 20, 41, 8
SECOND = 1000  # entries of the set that comes and goes
RECALL = 0.99  # of the graph, at least
GROWTH = 64.0  # MB that memory may grow by from the second third to the last; in the first, heaps fill
GoOn = Callable[[int], bool]  # whether a client does one more, after so many


@dataclass
class Told:
    """What the clients of a load saw.

    Args:
        waits: seconds of each answer, by kind.
        wrong: answers that were not those of brute force. hits: rows in them that were.
        lost: decisions that were taken and are not there.
        failed: what ended a client.
        rounds: of the writer.
    """

    waits: dict[str, list[float]] = field(default_factory=dict)
    wrong: int = 0
    hits: int = 0
    lost: int = 0
    failed: list[str] = field(default_factory=list)
    rounds: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def took(self, kind: str, seconds: float, *, right: bool = True, hits: int = 0) -> None:
        """Note an answer."""
        with self._lock:
            self.waits.setdefault(kind, []).append(seconds)
            self.wrong += not right
            self.hits += hits

    def rows(self) -> list[list[Any]]:
        """A row of the table for each kind."""
        return [
            [kind, len(own), *(f"{1000 * np.quantile(own, q):.1f}" for q in (0.5, 0.95, 1))]
            for kind, own in sorted(self.waits.items())
        ]


def together(clients: Sequence[Callable[[int], None]], told: Told, go_on: GoOn) -> None:
    """Let all clients begin at once, and each go on as long as `go_on` says."""
    ready = threading.Barrier(len(clients))

    def live(ask: Callable[[int], None]) -> None:
        done = 0
        try:
            ready.wait()
            while go_on(done):
                ask(done)
                done += 1
        except Exception as error:  # a client that ends is a result, whatever ended it
            told.failed.append(repr(error))
            ready.abort()

    threads = [threading.Thread(target=live, args=(ask,)) for ask in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def searching(opened: Gallery, features: np.ndarray, queries: np.ndarray, clients: int, go_on: GoOn) -> Told:
    """Searches alone, by so many clients of one opened gallery."""
    truth = [brute(features, query) for query in queries]
    told = Told()

    def client(number: int) -> Callable[[int], None]:
        def ask(done: int) -> None:
            at = (number + done) % len(queries)
            began = time.perf_counter()
            found = opened.search(queries[at], K).index[0]
            seconds = time.perf_counter() - began
            hits = len(set(found.tolist()) & set(truth[at].tolist()))
            told.took("search", seconds, right=np.array_equal(found, truth[at]), hits=hits)

        return ask

    together([client(number) for number in range(clients)], told, go_on)
    return told


class Shared:
    """The gallery as a server has it open: one for all, opened anew when another has taken its place."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._now = FolderGallery(path)

    def now(self) -> FolderGallery:
        """The gallery as it is."""
        with self._lock:
            if self._now.stale:
                self._now = FolderGallery(self._path)
            return self._now


def mixed(
    path: Path,
    features: np.ndarray,
    queries: np.ndarray,
    go_on: GoOn,
    *,
    readers: int = READERS,
    reviewers: int = REVIEWERS,
) -> Told:
    """Reads, reviews and one writer, all at once."""
    second, _ = like_a_network(SECOND, features.shape[1], 1, seed=1)
    coming = replace(content(second), digest="second")
    gone = np.arange(0, SECOND, 2)
    both = np.concatenate([features, second])
    kept = np.delete(both, len(features) + gone, axis=0)
    # What the gallery holds, by the number of its entries; rows are those of its files.
    number = np.delete(np.arange(len(both)), len(features) + gone)
    truth = {
        len(features): [brute(features, query) for query in queries],
        len(both): [brute(both, query) for query in queries],
        len(kept): [brute(kept, query) for query in queries],
    }
    n, n_both, n_kept = len(features), len(both), len(kept)
    del both, kept
    told, shared = Told(), Shared(path)
    people = shared.now().people
    said: list[list[Decision]] = [[] for _ in range(reviewers)]
    named: list[dict[int, str]] = [{} for _ in range(reviewers)]

    def reader(own: int) -> Callable[[int], None]:
        def ask(done: int) -> None:
            at = (own + done) % len(queries)
            began = time.perf_counter()
            opened = shared.now()
            if done % 4 == 3:
                entries = opened.entries
                who = people.assigned(entries)
                told.took("who is who", time.perf_counter() - began, right=len(who.person) == len(entries))
                return
            held, whole = len(opened), sum(map(len, opened.segments))
            found = opened.search(queries[at], K).index[0]
            seconds = time.perf_counter() - began
            right = truth[held][at]
            if held == n_kept and whole == n_both:  # deleted, and on the disk still
                right = number[right]
            told.took("search", seconds, right=np.array_equal(found, right))

        return ask

    def reviewer(own: int) -> Callable[[int], None]:
        def ask(done: int) -> None:
            track = own + done * reviewers
            part, person = PartKey("made", track, track, track), 1 + track
            decision = Decision(False, Place("made", track, track), Place("made", track + 1, track + 1))
            name = f"{own} and {done}"
            began = time.perf_counter()
            moves, names = (Move(part, None, person),), (Naming(person, "", name),)
            people.apply(Step("review", moves=moves, names=names, decisions=(decision,)))
            told.took("review", time.perf_counter() - began)
            said[own].append(decision)
            named[own][person] = name

        return ask

    def writer(done: int) -> None:
        began = time.perf_counter()
        with FolderGallery(path) as mine:
            if done % 3 == 0:
                mine.add([coming])
            elif done % 3 == 1:
                mine.delete(n + gone)
            else:
                mine.compact()
                mine.delete(n + np.arange(n_kept - n))
                mine.compact()
        told.rounds += 1
        told.took("write", time.perf_counter() - began)

    clients = [reader(own) for own in range(readers)] + [reviewer(own) for own in range(reviewers)]
    together([*clients, writer], told, go_on)
    steps = people.steps()
    there = {(decision.a, decision.b) for step in steps for decision in step.decisions}
    told.lost = sum((decision.a, decision.b) not in there for own in said for decision in own)
    names = people.names()
    told.lost += sum(names.get(person) != name for own in named for person, name in own.items())
    told.lost += abs(len(steps) - sum(map(len, said)))
    people.close()
    return told


class Watch:
    """Lets clients go on for some seconds from their first request on, and looks at memory meanwhile."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._lock, self._over = seconds, threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._seen: list[float] = []

    def __call__(self, done: int) -> bool:
        with self._lock:
            if self._thread.ident is None:
                self._began, self._cpu = time.monotonic(), time.process_time()
                self._thread.start()
        return time.monotonic() < self._began + self._seconds

    def _look(self) -> None:
        while not self._over.wait(0.25):
            # Without pages of files, of which the system keeps as many as it has room for.
            _, resident, of_files, *_ = map(int, Path("/proc/self/statm").read_text().split())
            self._seen.append((resident - of_files) * resource.getpagesize() / 1e6)

    def ended(self) -> tuple[float, float, list[float]]:
        """Seconds, seconds of CPU, and the most memory of each third in MB, mapped files left out."""
        self._over.set()
        self._thread.join()
        thirds = [float(part.max(initial=0)) for part in np.array_split(np.array(self._seen), 3)]
        return time.monotonic() - self._began, time.process_time() - self._cpu, thirds


def in_postgres(features: np.ndarray, use: Callable[[Gallery], None]) -> None:
    """A gallery in a PostgreSQL of its own, for as long as it is used."""
    from tests.postgres_server import server, why_not

    if reason := why_not():
        print(f"PostgreSQL is not measured: {reason}\n")
        return
    with server() as url:
        began = time.perf_counter()
        with create_gallery(url, [content(features)], origin={}) as opened:
            print(f"PostgreSQL: filled and its graph built in {time.perf_counter() - began:.0f} s")
            use(opened)
            print(f"recall on 200 of its own entries: {opened.recall():.4f}\n")  # type: ignore[union-attr]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gallery_load", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--small", action="store_true", help="5,000 entries of 64 numbers")
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--postgres", action="store_true", help="searches in PostgreSQL too")
    given = parser.parse_args()
    n, width = (5_000, 64) if given.small else (given.entries, given.width)
    features, queries = like_a_network(n, width, given.queries)
    bad = False
    print(f"{n:,} x {width}; {measure.machine()}\n", flush=True)

    def told(title: str, run: Callable[[GoOn], Told], seconds: float, *, exact: bool = True) -> None:
        nonlocal bad
        watch = Watch(seconds)
        seen = run(watch)
        took, cpu, (first, middle, last) = watch.ended()
        print(measure.table([title, "answers", "ms p50", "p95", "most"], seen.rows()))
        thirds = f"{first:.0f}, {middle:.0f}, {last:.0f} MB in the three thirds"
        print(f"\n{took:.0f} s, {cpu:.0f} s of CPU; memory at most {thirds}; ", end="")
        answers = len(seen.waits.get("search", ())) * K
        found = f"wrong answers {seen.wrong}" if exact else f"recall {seen.hits / max(1, answers):.4f}"
        print(f"{found}, decisions lost {seen.lost}, ", end="")
        print(f"clients that failed {len(seen.failed)} {' '.join(seen.failed)}\n", flush=True)
        wrong = seen.wrong > 0 if exact else seen.hits < RECALL * answers
        bad = bad or bool(wrong or seen.lost or seen.failed) or last - middle > GROWTH

    def searches(where: str, opened: Gallery, *, exact: bool) -> None:
        opened.search(queries[0], K)  # compiles, and compares the sums
        for clients in (1, SEARCHERS):
            told(
                f"{where}, {clients} {'client' if clients == 1 else 'clients'}",
                lambda go_on, clients=clients: searching(opened, features, queries, clients, go_on),
                given.seconds,
                exact=exact,
            )

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "gallery"
        with create_gallery(path, [content(features)], origin={}) as opened:
            searches("embedded", opened, exact=True)
        if given.postgres:
            in_postgres(features, lambda opened: searches("PostgreSQL", opened, exact=False))
        told(
            f"{READERS + REVIEWERS + 1} clients",
            lambda go_on: mixed(path, features, queries, go_on),
            60 * given.minutes,
        )
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
