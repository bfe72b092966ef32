"""What an engine is: tasks go in, what became of each comes out, in any order.

A task is a value that can be pickled and that does its work in `run`, wherever that is called. Engines differ
in where they call it: `InOrder` here and now, `processes.Processes` in processes of this machine, `ray.OnRay`
on Ray. A task whose worker dies (killed, out of memory, crashed in a library) is tried once more and then
given up; an error that it raises ends all of it, as it would here.
"""

from __future__ import annotations

import pickle
import socket
import time
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import tracklearn
from tracklearn.types import Progress, Refusal

ATTEMPTS = 2  # workers that may die of one task
_PACE = 0.2  # seconds between two words of a worker on how far it is


class Task(Protocol):
    """One piece of work; it can be pickled, and so can what `run` returns."""

    def run(self, progress: Progress | None) -> Any:
        """Do it, and tell of it."""


@runtime_checkable
class Staged(Task, Protocol):
    """A task of two stages, `run` being both: an engine may have the first one done by other processes.

    Workers that do it keep what they open.
    """

    size: int  # how much it is, as `progress` counts

    def read(self) -> Any:
        """What `work` takes, without what computes; it can be pickled."""

    def work(self, read: Any) -> Any:
        """The rest; returns what `run` does."""


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Args:
        number: its place among the tasks.
        value: what it returned.
        lost: why its workers died, where they did; None where it returned.
    """

    number: int
    value: Any = None
    lost: str | None = None


class Engine(Protocol):
    """Somewhere to work; `apart`: outside this process, where a task may be begun twice."""

    @property
    def apart(self) -> bool:
        """Whether tasks are run in other processes."""

    def run(
        self, tasks: Sequence[Task], what: str, progress: Progress | None = None, *, gpus: int = 0
    ) -> Generator[Outcome, None, None]:
        """Do the tasks; each outcome as soon as it is known, in any order.

        Args:
            tasks: in the order in which they are begun.
            what: what the work is called, for `progress`.
            progress: told of what all tasks together have done. In order, each task tells by itself.
            gpus: that each task needs for itself. An engine that places tasks where there are such gives them
                out; processes of one machine share what it has.

        Raises:
            What a task raises first. Tasks that are running are then stopped.
        """


class InOrder:
    """One task after the other, in this process."""

    apart = False

    def run(
        self, tasks: Sequence[Task], what: str, progress: Progress | None = None, *, gpus: int = 0
    ) -> Generator[Outcome, None, None]:
        """See `Engine`."""
        for number, task in enumerate(tasks):
            yield Outcome(number, task.run(progress))


# What tasks refuse in a worker: what the process that asks did not mean


def require_version(version: str) -> None:
    """Refuse to work for another version of the program.

    Raises:
        ValueError: this is not `version`.
    """
    if version != tracklearn.__version__:
        here = f"{socket.gethostname()} has tracklearn {tracklearn.__version__}"
        raise Refusal(f"{here}, and what asks it is {version}: install the same version everywhere")


def require_same(path: str | Path, found: str, wanted: str) -> None:
    """Refuse what is not what the process that asks saw under that name, by their digests.

    Raises:
        ValueError: it is not.
    """
    if found != wanted:
        raise Refusal(f"{path} is another one where a worker looks: all machines must see the same folders")


# What engines of several processes share


class Losses:
    """How often each task has lost its worker."""

    def __init__(self) -> None:
        self._times = Counter[int]()

    def again(self, number: int) -> bool:
        """Count one more; whether the task is worth another attempt."""
        self._times[number] += 1
        return self._times[number] < ATTEMPTS


class Overall:
    """One account of all tasks for a progress bar: what is done, out of what that may come to.

    As long as tasks wait, they are taken to be as long as those that have begun.

    Args:
        what: what the work is called.
        n: number of tasks.
        progress: told at every step.
    """

    def __init__(self, what: str, n: int, progress: Progress | None) -> None:
        self._what, self._n, self._progress = what, n, progress
        self._at: dict[int, tuple[int, int | None]] = {}
        self._done = self._total = self._unknown = 0

    def at(self, number: int, done: int, total: int | None) -> None:
        """A task has done so much, of so much."""
        before, out_of = self._at.get(number, (0, 0))
        self._done += done - before
        self._total += (total or 0) - (out_of or 0)
        self._unknown += (total is None) - (out_of is None)
        self._at[number] = done, total
        self._tell()

    def over(self, number: int) -> None:
        """A task has ended: there is no more of it than it has done."""
        done, _ = self._at.get(number, (0, 0))
        self.at(number, done, done)

    def close(self) -> None:
        """All have ended."""
        if self._progress is not None:
            self._progress(self._what, self._done, self._done)

    def _tell(self) -> None:
        if self._progress is None:
            return
        guess = None if self._unknown else self._total * self._n // len(self._at)
        self._progress(self._what, self._done, guess if guess is None else max(guess, self._done + 1))


class Paced:
    """Progress of a task, passed on a few times a second: messages cost more than frames.

    Args:
        tell: told (done, total).
    """

    def __init__(self, tell: Callable[[int, int | None], None]) -> None:
        self._tell, self._next = tell, 0.0

    def __call__(self, name: str, done: int, total: int | None) -> None:
        """As `Progress`; the name is the task's own, and nobody's concern."""
        now = time.monotonic()
        if now >= self._next or done == total:
            self._next = now + _PACE
            self._tell(done, total)


def attempt(work: Callable[[], Any]) -> tuple[str, Any]:
    """Run a task in a worker: ("value", what it returned), ("error", an exception), or ("lost", why).

    A task that has no memory is lost as it would be had the system stopped its process.
    """
    try:
        return "value", work()
    except MemoryError as error:
        return "lost", f"out of memory ({error})" if str(error) else "out of memory"
    except Exception as error:  # handed to the process that asked, which raises it
        error.add_note(f"In a worker:\n{traceback.format_exc()}")
        return "error", _portable(error)


def _portable(error: Exception) -> Exception:
    """`error`, or where it does not survive pickling one that says the same."""
    try:
        same = type(pickle.loads(pickle.dumps(error))) is type(error)
    except Exception:  # of any class of any library
        same = False
    if same:
        return error
    told = RuntimeError(f"{type(error).__name__}: {error}")
    for note in getattr(error, "__notes__", ()):
        told.add_note(note)
    return told
