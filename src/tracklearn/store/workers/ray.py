"""Tasks on Ray: a cluster of one's own on this machine, or one that is there.

Ray places the tasks and nothing more: what they read and write lies in folders that all machines see under
the same names. Tasks of stages are streamed through Ray Data (`streams.py`), others are placed one by one. A
task is tried again by the rule of `engine.py`, not by Ray's, so that all engines give up the same; a machine
that goes away is no fault of a task that is placed, which is tried a few times more.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from tracklearn import runtimes
from tracklearn.core import threads
from tracklearn.store.workers import streams
from tracklearn.store.workers.engine import Losses, Outcome, Overall, Paced, Staged, Task, attempt
from tracklearn.types import Progress, Refusal

LOOPBACK = "127.0.0.1"
MOVES = 5  # machines that may go away under one task
_PASSED_ON = ("TRACKLEARN_MAX_PIXELS", "TRACKLEARN_MODEL_SECONDS")  # what results depend on
_END = 30  # seconds for workers to end when they are stopped
_STORE = 256 << 20  # bytes of shared memory for answers, in a cluster of one's own


class OnRay:
    """Engine on Ray; see `engine.Engine`.

    Args:
        address: of a cluster that is there, as `ray.init` takes it; "" starts one on this machine for the
            time of the work, which listens at 127.0.0.1 alone and has no dashboard.
        workers: tasks at a time; as many as the cluster has CPUs (here: as this process may use) if None.

    Raises:
        ValueError: Ray is not installed, or `workers` is below 1.
    """

    apart = True

    def __init__(self, address: str = "", workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise Refusal(f"workers is {workers}, expected at least 1")
        if not address:
            _alone()
        self._ray = runtimes.load("ray")
        self._address, self._workers = address, workers

    def run(
        self, tasks: Sequence[Task], what: str, progress: Progress | None = None, *, gpus: int = 0
    ) -> Generator[Outcome, None, None]:
        """See `engine.Engine`."""
        if not tasks:
            return
        with self._cluster(pictures=gpus > 0):
            there = self._ray.cluster_resources()
            if gpus > there.get("GPU", 0):
                raise Refusal(
                    f"too few GPUs: a task needs {gpus}, the Ray cluster has {there.get('GPU', 0):g}; say "
                    "--device cpu, or add machines that have them"
                )
            overall = Overall(what, len(tasks), progress)
            staged = [task for task in tasks if isinstance(task, Staged)]
            if len(staged) == len(tasks):
                computing = int(there["GPU"]) // gpus if gpus else int(there.get("CPU", 1))
                at_once = min(len(tasks), max(1, self._workers or computing))
                yield from _streamed(staged, overall, at_once, gpus)
            else:
                at_once = self._workers or max(1, 2 * int(there.get("CPU", 1)))
                yield from self._placed(tasks, overall, at_once, gpus)
            overall.close()

    def _placed(
        self, tasks: Sequence[Task], overall: Overall, at_once: int, gpus: int
    ) -> Generator[Outcome, None, None]:
        """Each task wherever there is room for it."""
        ray, errors = self._ray, self._ray.exceptions
        losses, moves = Losses(), Counter[int]()
        todo = deque(range(len(tasks)))
        worker = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_work)
        heard = ray.remote(num_cpus=0)(_Heard).remote()
        running: dict[Any, int] = {}
        try:
            while todo or running:
                while todo and len(running) < at_once:
                    number = todo.popleft()
                    reference = worker.remote(tasks[number], number, heard, os.getcwd())
                    running[reference] = number
                over, _ = ray.wait(list(running), num_returns=1, timeout=1)
                for number, how_far in ray.get(heard.take.remote()).items():
                    if number in running.values():
                        overall.at(number, *how_far)
                for reference in over:
                    number = running.pop(reference)
                    try:
                        kind, said, how_far = ray.get(reference)
                    except (errors.WorkerCrashedError, errors.OutOfMemoryError) as error:
                        kind, said, how_far = "lost", _first_sentence(error), None
                    except (errors.NodeDiedError, errors.LocalRayletDiedError) as error:
                        moves[number] += 1
                        if moves[number] > MOVES:
                            raise Refusal(f"{MOVES} machines went away one after the other") from error
                        todo.append(number)
                        continue
                    if kind == "error":
                        raise said
                    if how_far is not None:  # what was told last may come later than the result
                        overall.at(number, *how_far)
                    if kind == "value":
                        overall.over(number)
                        yield Outcome(number, said)
                    elif losses.again(number):
                        overall.at(number, 0, 0)
                        todo.append(number)
                    else:
                        overall.at(number, 0, 0)
                        yield Outcome(number, lost=said)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
            if running:  # they may be writing where others will write next
                ray.wait(list(running), num_returns=len(running), timeout=_END)

    @contextmanager
    def _cluster(self, *, pictures: bool = False) -> Iterator[None]:
        """Connected to the cluster; one of one's own ends with the work.

        Its shared memory is small, but where `pictures` go through it: then as much as Ray thinks right.
        """
        ray = self._ray
        if ray.is_initialized():  # by whoever calls
            yield
            return
        options: dict[str, Any] = {"configure_logging": False, "log_to_driver": False}
        if self._address:
            passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
            options |= {"address": self._address, "runtime_env": {"env_vars": passed} if passed else None}
        else:
            options |= {"address": "local", "num_cpus": self._workers or threads.n_threads()}
            options |= {"include_dashboard": False, "_node_ip_address": LOOPBACK}
            options |= {} if pictures else {"object_store_memory": _STORE}
        try:
            ray.init(**options)
        except Exception as error:  # Ray raises that itself where a node takes long to start
            where = f"at {self._address} cannot be reached" if self._address else "cannot be started here"
            raise Refusal(f"a Ray cluster {where} ({_first_sentence(error)})") from error
        with redirect_stdout(sys.stderr):  # where Ray says that workers died: that is no result
            try:
                if not self._address and ray.util.get_node_ip_address() != LOOPBACK:
                    raise Refusal(
                        "Ray was imported before it could be told to listen on this machine alone: let "
                        "tracklearn import it, or start a cluster and name its address, ray:ADDRESS"
                    )
                yield
            finally:
                ray.shutdown()


def _streamed(
    tasks: Sequence[Staged], overall: Overall, at_once: int, gpus: int
) -> Generator[Outcome, None, None]:
    """Tasks of stages by Ray Data."""
    for number, kind, said in streams.run(tasks, at_once=at_once, gpus=gpus, folder=os.getcwd()):
        if kind == "error":
            raise said
        if kind == "value":
            overall.at(number, tasks[number].size, tasks[number].size)
            yield Outcome(number, said)
        else:
            overall.at(number, 0, 0)
            yield Outcome(number, lost=said)


def _alone() -> None:
    """Have a cluster that is started by this process listen to this machine alone, and to this user.

    Both hold for a Ray that is imported afterwards. It takes 127.0.0.1 for "find an address", and listens at
    all of them, unless it is told to be no part of a cluster, by a variable that is named after the systems
    on which that is so anyway. Its way to have a token is to write one into the home folder.
    """
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    if "ray" not in sys.modules:  # later Ray sets its mode itself
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _work(task: Task, number: int, heard: Any, folder: str) -> tuple[str, Any, tuple[int, int | None] | None]:
    """In a worker of Ray: run a task in the folder of the process that asks; how it ended, and how far."""
    last: tuple[int, int | None] | None = None

    def tell(done: int, total: int | None) -> None:
        nonlocal last
        last = done, total
        heard.tell.remote(number, done, total)

    if Path(folder).is_dir():  # else only names of files from the root can be found
        os.chdir(folder)
    kind, said = attempt(lambda: task.run(Paced(tell)))
    return kind, said, last


class _Heard:
    """An actor: how far the tasks are, since it was last asked."""

    def __init__(self) -> None:
        self._at: dict[int, tuple[int, int | None]] = {}

    def tell(self, number: int, done: int, total: int | None) -> None:
        self._at[number] = done, total

    def take(self) -> dict[int, tuple[int, int | None]]:
        at, self._at = self._at, {}
        return at


def _first_sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text.partition(". ")[0][:200].rstrip(".") or type(error).__name__
