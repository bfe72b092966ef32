"""Progress bars on the terminal, and the line that a round ends with."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from tracklearn.app.refusals import printable


class Bars:
    """Progress bars on standard error, one per kind of work, where that is a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self.console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} · {task.fields[rate]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not (self.console.is_terminal and first_process()),
        )
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> Bars:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def __call__(self, name: str, done: int, total: int | None) -> None:
        """`done` of `total` items of work `name` are finished; total None where nobody knows."""
        import time

        if name not in self.tasks:
            self.tasks[name] = (self.progress.add_task(name, total=total or 0, rate=""), time.perf_counter())
        task, began = self.tasks[name]
        rate = done / max(time.perf_counter() - began, 1e-9)
        self.progress.update(task, completed=done, total=total or done, rate=f"{rate:.0f}/s")
        if total is not None and done >= total:
            self.progress.remove_task(task)
            del self.tasks[name]

    def note(self, text: str) -> None:
        """What stays on the screen, a line or several."""
        lines = "\n".join(printable(line) for line in text.splitlines())
        self.console.print(lines, highlight=False, markup=False, soft_wrap=True)


def round_line(bars: Bars) -> Callable[[Any], None]:
    def show(event: Any) -> None:
        losses = "  ".join(f"{name} {value:.3f}" for name, value in event.losses.items())
        agreement = "" if event.agreement != event.agreement else f"  agreement {event.agreement:.2f}"
        if event.n_clusters:
            found = f"persons {event.n_clusters}  noise {event.noise_fraction:.0%}"
            found += f"  largest {event.largest_cluster}"
        else:  # of a stage that tells tracklets apart and joins none
            found = "each track for itself"
        bars.note(f"epoch {event.index + 1:>3}  {found}{agreement}  {losses}")
        for line in event.diagnosis:
            bars.note(f"           {line}")

    return show


def first_process() -> bool:
    """Whether this process speaks to the user: the only one, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"
