"""Tasks in several processes of this machine.

Each is a fresh interpreter that is handed one task after the other: nothing is shared that a crash could
damage, and a worker that dies takes its own task with it and no other. Tasks and answers pass by its pipes as
pickles.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from functools import partial
from typing import IO, Any

from tracklearn.core import threads
from tracklearn.store import child
from tracklearn.store.workers.engine import Losses, Outcome, Overall, Paced, Task, attempt
from tracklearn.types import Progress, Refusal

_HEAD = 8  # bytes of a message's length
_Event = tuple["_Worker", str, Any]


class Processes:
    """Engine of several processes; see `engine.Engine`.

    They are started as they are needed and end with the work, or with this process, however that ends. Each
    uses its share of the CPUs, unless OMP_NUM_THREADS says otherwise.

    Args:
        workers: how many, at least 1.

    Raises:
        ValueError: there are fewer.
    """

    apart = True

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise Refusal(f"workers is {workers}, expected at least 1")
        self.workers = workers

    def run(
        self, tasks: Sequence[Task], what: str, progress: Progress | None = None, *, gpus: int = 0
    ) -> Generator[Outcome, None, None]:
        """See `engine.Engine`."""
        overall, losses = Overall(what, len(tasks), progress), Losses()
        todo = deque(range(len(tasks)))
        share = max(1, threads.n_threads() // max(1, min(self.workers, len(tasks))))
        events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        idle: list[_Worker] = []
        busy: dict[_Worker, int] = {}
        try:
            while todo or busy:
                while todo and len(busy) < self.workers:
                    worker = idle.pop() if idle else _Worker(events, share)
                    busy[worker] = todo.popleft()
                    worker.give(tasks[busy[worker]])
                worker, kind, said = _next(events)
                if worker not in busy:
                    if kind == "end" and worker in idle:  # it died with nothing to do
                        idle.remove(worker)
                        worker.end()
                    continue
                number = busy[worker]
                if kind == "ready":
                    worker.ready = True
                elif kind == "at":
                    overall.at(number, *said)
                elif kind == "error":
                    raise said
                elif kind == "value":
                    idle.append(worker)
                    del busy[worker]
                    overall.over(number)
                    yield Outcome(number, said)
                else:
                    worker.end()
                    del busy[worker]
                    why = said if kind == "lost" else worker.how_it_ended()
                    if not worker.ready:
                        raise Refusal(
                            f"a worker process cannot start ({why}): ask for fewer workers, or none"
                        )
                    overall.at(number, 0, 0)
                    if losses.again(number):
                        todo.append(number)
                    else:
                        yield Outcome(number, lost=why)
            overall.close()
        finally:
            for worker in (*idle, *busy):
                worker.end()


def _next(events: queue.SimpleQueue[_Event]) -> _Event:
    while True:
        # In steps: not every system wakes a wait without end for Ctrl-C.
        with suppress(queue.Empty):
            return events.get(timeout=1)


class _Worker:
    """A process, and the thread that hears what it says."""

    def __init__(self, events: queue.SimpleQueue[_Event], n_threads: int) -> None:
        command, environment = child.own(__name__)
        for name in ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
            environment.setdefault(name, str(n_threads))
        self.ready = False  # whether it has come so far as to take a task
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0
        )
        self._thread = threading.Thread(target=self._listen, args=(events,), daemon=True)
        self._thread.start()

    def _listen(self, events: queue.SimpleQueue[_Event]) -> None:
        assert self._process.stdout is not None
        with suppress(EOFError):
            while True:
                kind, said = pickle.loads(_receive(self._process.stdout))
                events.put((self, kind, said))
        self._process.wait()
        events.put((self, "end", None))

    def give(self, task: Task) -> None:
        """Hand it a task; if it is dead, its end will be heard."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            _send(self._process.stdin, pickle.dumps(task))

    def end(self) -> None:
        """Stop it, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._thread.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def how_it_ended(self) -> str:
        """In words."""
        code = self._process.returncode
        if code == -signal.SIGKILL:
            return "it was killed, as the system does when memory is short"
        return f"it crashed with signal {-code}" if code < 0 else f"it ended with exit code {code}"


def _send(pipe: IO[bytes], body: bytes) -> None:
    rest = memoryview(len(body).to_bytes(_HEAD, "little") + body)
    while rest:
        rest = rest[pipe.write(rest) :]


def _receive(pipe: IO[bytes]) -> bytes:
    """The next message.

    Raises:
        EOFError: there is none, or half of one.
    """
    return _exactly(pipe, int.from_bytes(_exactly(pipe, _HEAD), "little"))


def _exactly(pipe: IO[bytes], n: int) -> bytes:
    found = bytearray()
    while len(found) < n:
        piece = pipe.read(n - len(found))
        if not piece:
            raise EOFError
        found += piece
    return bytes(found)


def _run(body: bytes, progress: Progress) -> Any:
    return pickle.loads(body).run(progress)


def main() -> int:
    """A worker: tasks come in by standard input until it ends, answers go out by standard output."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    tasks = os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks, which ends this one

    def say(kind: str, said: Any) -> None:
        _send(answers, pickle.dumps((kind, said)))

    with suppress(EOFError, BrokenPipeError):  # nobody asks any more
        say("ready", None)
        while True:
            body = _receive(tasks)
            paced = Paced(lambda done, total: say("at", (done, total)))
            kind, said = attempt(partial(_run, body, paced))
            say(kind, said)
            if kind == "lost":
                break  # what it holds of the memory goes with it
    return 0


if __name__ == "__main__":
    sys.exit(main())
