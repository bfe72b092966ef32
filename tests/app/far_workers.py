"""Workers as tests want them: near as if they were far, or killed; in a file that a worker finds by name."""

import os
import pickle
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracklearn.store.workers.engine import InOrder, Outcome
from tracklearn.store.workers.processes import Processes


class Backwards(InOrder):
    """Does tasks in this process, but each out of its pickle, and the last one first."""

    apart = True

    def run(self, tasks, what, progress=None, *, gpus=0):
        self.gpus = gpus
        for number in reversed(range(len(tasks))):
            yield Outcome(number, pickle.loads(pickle.dumps(tasks[number])).run(progress))


@dataclass(frozen=True)
class KillsOnce:
    """A task before which its worker is killed, the first time."""

    task: Any
    mark: Path

    def run(self, progress):
        try:
            self.mark.touch(exist_ok=False)
        except FileExistsError:
            return self.task.run(progress)
        return os.kill(os.getpid(), signal.SIGKILL)


class Killed(Processes):
    """Two processes, of which the one that comes to the second task is killed."""

    def __init__(self, mark):
        super().__init__(2)
        self.mark = mark

    def run(self, tasks, what, progress=None, *, gpus=0):
        tasks = [KillsOnce(task, self.mark) if i == 1 else task for i, task in enumerate(tasks)]
        return super().run(tasks, what, progress, gpus=gpus)
