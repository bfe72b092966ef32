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
from uuid import uuid4

from tracklearn import runtimes
from tracklearn.store.workers.engine import ATTEMPTS, Staged, attempt
from tracklearn.types import Array, Refusal

_DIED = "it was killed, crashed in a library, or its machine went away"
_ME = uuid4().hex  # this process, as a worker
_SHORT = 3  # exit code of a worker that ends itself for want of memory


def run(tasks: Sequence[Staged], *, at_once: int, gpus: int, folder: str) -> Iterator[tuple[int, str, Any]]:
    """Of each task its number and how it ended, ("value" or "error" or "lost", what), in any order.

    Ray is connected.

    Args:
        tasks: at least one.
        at_once: workers that compute.
        gpus: that each of them has for itself; with 0 it reads too.
        folder: of the process that asks: workers work in it where there is one.

    Raises:
        ValueError: Ray lost what it needs to go on.
    """
    ray, data = runtimes.load("ray"), runtimes.load("ray.data")
    near = runtimes.load("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
    here = near(ray.get_runtime_context().get_node_id(), soft=True)  # it shall not go away with a worker
    context = data.DataContext.get_current().copy()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # a cluster may be busy, and a task long
    account = ray.remote(num_cpus=0, scheduling_strategy=here)(_Account).remote()
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
    log = logging.getLogger("ray.data")
    before = log.level
    log.setLevel(logging.ERROR)  # it tells of its plan at every start
    try:
        for row in stream.iter_rows():
            yield int(row["number"]), *pickle.loads(row["held"])
    except ray.exceptions.RayError as error:
        raise Refusal(f"Ray gave up ({str(error).strip().splitlines()[0]})") from error
    finally:
        log.setLevel(before)


class _Account:
    """An actor: how often each stage of a task was begun by workers that were not heard of again.

    A worker is over with a task when it begins its next one: before, what it returned may not have left it.
    """

    def __init__(self) -> None:
        self._open, self._why = Counter[tuple[int, str]](), dict[tuple[int, str], str]()
        self._has: dict[str, tuple[int, str]] = {}

    def begin(self, worker: str, number: int, stage: str) -> str | None:
        """Why the task is not to be begun once more; None where it is."""
        if worker in self._has:
            self._open[self._has.pop(worker)] -= 1
        key = number, stage
        if self._open[key] >= ATTEMPTS:
            return self._why.get(key, _DIED)
        self._open[key] += 1
        self._has[worker] = key
        return None

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
    """How a task's stage ended, pickled."""
    ray = runtimes.load("ray")
    why = ray.get(account.begin.remote(_ME, number, stage))
    if why is not None:
        return pickle.dumps(("lost", why))
    kind, said = attempt(partial(_do, stage, held))
    if kind == "value":
        ended: bytes = said
        return ended
    if kind == "lost":
        # As if the system had ended it: the next attempt begins with all the memory that there is.
        ray.get(account.short_of_memory.remote(number, stage, said))
        os._exit(_SHORT)
    return pickle.dumps((kind, said))


def _do(stage: str, held: bytes) -> bytes:
    """What a stage gives, pickled as ("value", that); how the one before ended, where it did not end well."""
    found = pickle.loads(held)
    if stage == "run":
        return pickle.dumps(("value", found.run(None)))
    if stage == "read":
        return pickle.dumps(("value", (found, found.read())))
    kind, said = found
    return held if kind != "value" else pickle.dumps(("value", said[0].work(said[1])))
