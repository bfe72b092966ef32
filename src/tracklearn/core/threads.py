"""Running array work on several threads, each with a BLAS of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

from tracklearn.types import Refusal

Item = TypeVar("Item")
Result = TypeVar("Result")

SPIN = 5_000  # turns that a thread of libgomp waits awake, a fraction of a millisecond

_limit: ContextVar[int | None] = ContextVar("tracklearn_threads", default=None)


def n_threads() -> int:
    """Threads that array work may use: the limit set by `limit`, else OMP_NUM_THREADS, else the CPUs allowed.

    Results do not depend on it, only time and memory do.
    """
    limited = _limit.get()
    if limited is not None:
        return limited
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if wanted.isdecimal() and len(wanted) < 10 and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def wait_briefly() -> None:
    """Let OpenMP's threads sleep soon after they run out of work; read when torch is loaded, which is later.

    By default they spin for milliseconds and slow each other tenfold as soon as another program wants a core;
    asleep at once, they cost an idle machine a tenth to a fifth of a step (docs/log.md). What the user has
    set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ and "GOMP_SPINCOUNT" not in os.environ:
        os.environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT=str(SPIN))


@contextmanager
def limit(n: int) -> Iterator[None]:
    """Within it, `n_threads()` is `n` for the calling thread.

    Raises:
        ValueError: n < 1.
    """
    if n < 1:
        raise Refusal(f"n is {n}, expected at least one thread")
    token = _limit.set(n)
    try:
        yield
    finally:
        _limit.reset(token)


def each(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`function` of every item, in the order of the items, on `n_threads()` threads.

    While it runs, numpy's BLAS (in the whole process) works on one thread per call: threads
    that each start a team of threads would wait for each other. Functions must release the interpreter lock
    in their heavy part: BLAS and the compiled kernels do.

    Raises:
        What `function` raises first, in the order of the items; items not yet begun are then left out.
    """
    items = list(items)
    threads = min(n_threads(), len(items))

    with _blas().limit(limits=1):
        if threads <= 1:
            return [function(item) for item in items]
        return _spread(function, items, threads)


def each_span(function: Callable[[int, int], object], n: int, *, least: int = 1) -> None:
    """`function(first, end)` over spans that make up range(n), one on each of `n_threads()` threads.

    For compiled kernels of a millisecond, which call no BLAS: the threads are kept, since making them, and
    limiting BLAS, would take as long. No span but the only one is shorter than `least`. `function` must not
    come here again: it could wait for the threads that wait for it.

    Raises:
        What `function` raises in the first span that fails.
    """
    count = min(n_threads(), max(n // least, min(n, 1)))
    edge = [n * k // max(count, 1) for k in range(count + 1)]
    others = [_kept(os.getpid()).submit(function, a, b) for a, b in pairwise(edge[1:])]
    try:
        if count:
            function(0, edge[1])
    finally:
        wait(others)
    for future in others:
        future.result()


@cache
def _kept(process: int) -> ThreadPoolExecutor:
    """Threads of this process; a fork of it has none of them."""
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="spans")


@cache
def _blas() -> Any:
    """Control over the libraries that numpy multiplies with; looking for them takes a millisecond."""
    import numpy as np  # noqa: F401  # only what is loaded is found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def _spread(function: Callable[[Item], Result], items: list[Item], threads: int) -> list[Result]:
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
