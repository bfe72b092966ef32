"""Which engine a user asked for."""

from __future__ import annotations

from tracklearn.store.workers.engine import Engine, InOrder
from tracklearn.store.workers.processes import Processes
from tracklearn.store.workers.ray import OnRay
from tracklearn.types import Refusal


def engine_of(on: str | None = None, workers: int | None = None) -> Engine:
    """The engine of `--on` and `--workers`.

    Args:
        on: "ray" for a cluster on this machine, "ray:ADDRESS" for one that is there; None for processes, or
            where there is no number of workers either for this process alone.
        workers: how many at a time.

    Raises:
        ValueError: another engine, fewer than one worker, or Ray is not installed.
    """
    if on is None:
        return InOrder() if workers is None else Processes(workers)
    name, _, address = on.partition(":")
    if name != "ray":
        raise Refusal(f"--on {on!r} is unknown: write ray (a cluster on this machine) or ray:ADDRESS")
    return OnRay(address, workers)
