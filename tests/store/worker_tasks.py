"""Tasks for engines, in a file of their own: a worker must find them by name."""

import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tracklearn.types import Refusal


@dataclass(frozen=True)
class Square:
    n: int

    def run(self, progress):
        if progress is not None:
            for done in range(1, self.n + 1):
                progress(f"square {self.n}", done, self.n)
        print("a word that is no answer", flush=True)
        return self.n**2


@dataclass(frozen=True)
class Pid:
    def run(self, progress):
        return os.getpid()


@dataclass(frozen=True)
class Dies:
    """Its worker is killed, always or, with a file to remember it by, the first time."""

    mark: Path | None = None
    with_signal: int = signal.SIGKILL

    def run(self, progress):
        try:
            if self.mark is not None:
                self.mark.touch(exist_ok=False)
        except FileExistsError:
            return "alive"
        return os.kill(os.getpid(), self.with_signal)


@dataclass(frozen=True)
class Raises:
    error: str
    after: Path | None = None  # a file to wait for

    def run(self, progress):
        while self.after is not None and not self.after.exists():
            time.sleep(0.01)
        if self.error == "refusal":
            raise Refusal("no such film: mend it")
        if self.error == "disk":
            raise OSError(28, "the disk is full", "set.partial/part-1")
        if self.error == "memory":
            raise MemoryError("a picture of 9 GB")
        raise Odd("one", "two")


class Odd(Exception):
    """An error that pickle cannot make again."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


@dataclass(frozen=True)
class Waits:
    """Says who it is and never ends by itself."""

    said: Path

    def run(self, progress):
        part = self.said.with_suffix(".part")
        part.write_text(str(os.getpid()))
        part.rename(self.said)
        threading.Event().wait()


@dataclass(frozen=True)
class Environment:
    name: str

    def run(self, progress):
        return os.environ.get(self.name)


@dataclass(frozen=True)
class Threads:
    def run(self, progress):
        return os.environ["OMP_NUM_THREADS"], os.environ.get("OPENCV_FOR_THREADS_NUM")


class Unmade:
    """A task that no worker can make out of its pickle."""

    def __reduce__(self):
        return _gone, ()


def _gone():
    raise ImportError("no module named gone")


class DiesOnTheWay:
    """A value that ends whoever packs it or unpacks it."""

    def __init__(self, when):
        self.when = when

    def __getstate__(self):
        if self.when == "packed":
            os._exit(9)
        return self.__dict__

    def __setstate__(self, state):
        os._exit(9)


@dataclass(frozen=True)
class OnTheWay:
    """A task of two stages whose value dies on the way."""

    when: str
    size: int = 5

    def run(self, progress):
        return self.work(self.read())

    def read(self):
        return DiesOnTheWay("unpacked") if self.when == "unpacked" else None

    def work(self, read):
        return DiesOnTheWay("packed")


@dataclass(frozen=True)
class InStages:
    """Reads, then computes: who did which, and what it holds; one stage may come to grief."""

    n: int
    task: object = None  # run before the stage `at`
    at: str = "work"
    size: int = 5

    def run(self, progress):
        return self.work(self.read())

    def read(self):
        if self.task is not None and self.at == "read":
            self.task.run(None)
        return {"reader": os.getpid(), "gpu": os.environ.get("CUDA_VISIBLE_DEVICES", "")}

    def work(self, read):
        if self.task is not None and self.at == "work":
            self.task.run(None)
        return {
            **read,
            "worker": os.getpid(),
            "value": self.n**2,
            "own": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        }
