"""What training tells its caller: what it prepared, each round, and states to go on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tracklearn.core.calibration import Calibration
from tracklearn.types import Array, PseudoLabels, Refusal, Tracklets


class TrainingStopped(Refusal):
    """Training cannot go on; the message says why and what to try."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """The tracklets that training will see; comes first, unless training is resumed, and again where they are
    made anew (`Method.prepare_every`).

    Args:
        round: number of the round that it comes before.
        tracklets: after `Method.prepare`.
        part: (n,) int64, part of each original row in its tracklet, −1 = dropped, below = set aside
            (`core.pieces`).
        row: (m,) int64, the original rows whose features are there, ascending: all, or whole tracklets spread
            over the set where the method does not look at them.
        features: (m, d) float32 unit features of these rows by the weights of that moment; of several
            processes only the first has them, the others get (0, d).
        similarity: (n,) float32 cosine similarity of each row to the one before in its tracklet; nan at
            the start of a tracklet, and where there is no feature. (0,) on the other processes.
        n_before, n_after: tracklets given, and those that training will see.
        dropped, aside: crops.
        calibration: what free pairs told of distances, by statistic; empty on the other processes.
        diagnosis: sentences for the user.
        seconds: taken.
    """

    round: int
    tracklets: Tracklets
    part: Array
    row: Array
    features: Array
    similarity: Array
    n_before: int
    n_after: int
    dropped: int
    aside: int
    calibration: Mapping[str, Calibration]
    diagnosis: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, eq=False)
class Round:
    """One finished round (epoch).

    Args:
        index: from 0, over all stages.
        stage: its name.
        n_clusters: in `labels`.
        noise_fraction: share of tracklets in no cluster, 0-1.
        largest_cluster: tracklets in the largest cluster.
        eps: radius of the clustering, nan where there is none.
        agreement: of the labels with the round before, 1 = the same partition; nan in the first round.
        losses: mean of every term over the round, unweighted, and their weighted sum `total`.
        accuracy: share of training samples that the students' heads put into their cluster, 0-1.
        n_iterations: batches.
        labels: what the method holds for one person, of the isolated tracklets; where these were made anew,
            `agreement` is nan.
        record: further numbers of the method.
        keep: arrays of the method for the report.
        diagnosis: sentences for the user.
        seconds: of extract, cluster, read (waiting for pictures) and fit; of a resumed round only those
            since then.
    """

    index: int
    stage: str
    n_clusters: int
    noise_fraction: float
    largest_cluster: int
    eps: float
    agreement: float
    losses: dict[str, float]
    accuracy: float
    n_iterations: int
    labels: PseudoLabels
    record: dict[str, float]
    keep: dict[str, Array]
    diagnosis: tuple[str, ...]
    seconds: dict[str, float]


@dataclass(frozen=True, eq=False)
class State:
    """Everything needed to go on from here as if nothing had happened.

    Args:
        arrays: by name: `student.*` and `teacher.*` (`student1.*`, … for further networks), `part`,
            `labels.*`, `memory.*`, `rng.augment`; inside a round, or where labels stay for several,
            `fit.*`: heads, what optimisers remember, the batches drawn, sums of the losses.
        meta: counters and the sampler's random state, plain values that JSON can hold.
    """

    arrays: dict[str, Array]
    meta: dict[str, Any]


def section(arrays: dict[str, Array], prefix: str) -> dict[str, Array]:
    """The arrays whose names begin with `prefix`, without it."""
    return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}


def prefix(role: str, network: int) -> str:
    """What the names of a network's arrays begin with in a `State`."""
    return f"{role}{network or ''}."


def teacher_arrays(state: State, network: int = 0) -> dict[str, Array]:
    """The state dict of a teacher (what is evaluated and deployed), as numpy arrays."""
    return section(state.arrays, prefix("teacher", network))


def student_arrays(state: State, network: int = 0) -> dict[str, Array]:
    """The state dict of a student, as numpy arrays."""
    return section(state.arrays, prefix("student", network))
