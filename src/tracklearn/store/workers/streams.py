"""Staged tasks on Ray Data: a pool of workers, each of which keeps what it opened, and readers that feed it.

On CPUs a worker reads and computes. Where computing needs a GPU, reading is a stage of its own: processes
without a GPU read ahead, as far as Ray Data lets them, and what they have read goes through Ray's shared
memory to the workers that have one. Ray Data begins a task anew as often as its worker dies; the account here
counts that, so that a task is given up by the rule of `engine.py`.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tracklearn.store import runtimes
from tracklearn.store.workers.engine import ATTEMPTS, Staged, attempt
from tracklearn.types import Array

_DIED = "it was killed, crashed in a library, or its machine went away"
_SHORT = 3  # exit code of a worker that ends itself for want of memory


def run(tasks: Sequence[Staged], *, at_once: int, gpus: int, folder: str) -> Iterator[tuple[int, str, Any]]:
    """Of each task its number and how it ended, ("value" or "error" or "lost", what), in any order.

    Ray is connected.

    Args:
        tasks: at least one.
        at_once: workers that compute.
        gpus: that each of them has for itself; with 0 it reads too.
        folder: of the process that asks: workers work in it where there is one.
    """
    ray, data = runtimes.load("ray"), runtimes.load("ray.data")
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it tells of its plan at every start
    context = data.DataContext.get_current().copy()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # a cluster may be busy, and a task long
    account = ray.remote(num_cpus=0)(_Account).remote()
    rows = [{"number": number, "held": pickle.dumps(task)} for number, task in enumerate(tasks)]
    with data.DataContext.current(context):
        stream = data.from_items(rows, override_num_blocks=len(rows))
        if gpus:
            stream = stream.map_batches(partial(_block, account, folder, "read"), batch_size=1, num_cpus=1)
        stream = stream.map_batches(
            _Worker,
            fn_constructor_args=(account, folder, "work" if gpus else "run"),
            batch_size=1,
            compute=data.ActorPoolStrategy(
                min_size=1, max_size=at_once, initial_size=at_once, max_tasks_in_flight_per_actor=1
            ),
            num_cpus=0 if gpus else 1,
            num_gpus=gpus,
        )
    for row in stream.iter_rows():
        yield int(row["number"]), *pickle.loads(row["held"])


class _Account:
    """An actor: which tasks a worker has begun and not ended, how often, and why where that is known."""

    def __init__(self) -> None:
        self._open, self._why = Counter[tuple[int, str]](), dict[tuple[int, str], str]()

    def begin(self, number: int, stage: str) -> str | None:
        """Why the task is not to be begun once more; None where it is."""
        key = number, stage
        if self._open[key] >= ATTEMPTS:
            return self._why.get(key, _DIED)
        self._open[key] += 1
        return None

    def end(self, number: int, stage: str) -> None:
        """A worker has survived it."""
        self._open[number, stage] -= 1

    def short_of_memory(self, number: int, stage: str, why: str) -> None:
        """A worker is about to end because of it."""
        self._why[number, stage] = why


class _Worker:
    """A process of the pool; what tasks open in it is kept for the next one."""

    def __init__(self, account: Any, folder: str, stage: str) -> None:
        self._account, self._folder, self._stage = account, folder, stage

    def __call__(self, rows: dict[str, Array]) -> dict[str, list[Any]]:
        return _block(self._account, self._folder, self._stage, rows)


def _block(account: Any, folder: str, stage: str, rows: dict[str, Array]) -> dict[str, list[Any]]:
    """One stage of the tasks of a block (it is one task): "read", "work", or "run", which is both."""
    if Path(folder).is_dir():  # else only names of files from the root can be found
        os.chdir(folder)
    numbers = rows["number"].tolist()
    return {
        "number": numbers,
        "held": [
            _staged(account, stage, number, held) for number, held in zip(numbers, rows["held"], strict=True)
        ],
    }


def _staged(account: Any, stage: str, number: int, held: bytes) -> bytes:
    """How a task's stage ended, pickled; where the stage before did not end well, how that did."""
    ray = runtimes.load("ray")
    work = partial(_begin, stage, held)
    if stage == "work":
        kind, said = pickle.loads(held)
        if kind != "value":
            return held
        task, read = said
        work = partial(task.work, read)
    why = ray.get(account.begin.remote(number, stage))
    if why is not None:
        return pickle.dumps(("lost", why))
    kind, said = attempt(work)
    if kind == "lost":
        # As if the system had ended it: the next attempt begins with all the memory that there is.
        ray.get(account.short_of_memory.remote(number, stage, said))
        os._exit(_SHORT)
    ray.get(account.end.remote(number, stage))
    return pickle.dumps((kind, said))


def _begin(stage: str, held: bytes) -> Any:
    task = pickle.loads(held)
    return task.run(None) if stage == "run" else (task, task.read())
