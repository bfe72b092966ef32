"""Learning rates by epoch, and when the body is frozen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import nn

from tracklearn.learn.method import Moment
from tracklearn.learn.methods.msplr.config import Config
from tracklearn.learn.network import Network


def rate(schedule: Literal["code", "slides"], epoch: int, epochs: int) -> float:
    """The learning rate of an epoch, as a multiple of `Config.learning_rate`.

    Of 90 epochs, others in proportion:

    - "code": from 0.01 to 1 linearly over the first 10, 1 up to the 40th, 0.1 up to the 70th, 0.01 to the
      end.
    - "slides": t/10 in epoch t up to the 10th, 10 up to the 40th, 1 up to the 70th, 0.1 to the end.

    Args:
        schedule: which.
        epoch: from 0.
        epochs: how many there are.

    Example:
        >>> [round(rate("code", e, 90), 3) for e in (0, 5, 10, 39, 40, 70)]
        [0.01, 0.505, 1.0, 1.0, 0.1, 0.01]
        >>> [round(rate("slides", e, 90), 3) for e in (0, 9, 10, 39, 40, 70)]
        [0.1, 1.0, 10.0, 10.0, 1.0, 0.1]

    Source: METHODS 5.1; epochs that end, not those that begin, are counted in the slides' warm-up.
    """
    done = epoch * EPOCHS
    if done < WARM * epochs:
        through = done / (WARM * epochs)
        # Few epochs: one that the warm-up ends in has its last rate.
        return 0.01 + 0.99 * through if schedule == "code" else min(1.0, (done + EPOCHS) / epochs / WARM)
    height = 1.0 if schedule == "code" else 10.0
    return height * (1.0 if done < FIRST_DROP * epochs else 0.1 if done < SECOND_DROP * epochs else 0.01)


def schedule(
    config: Config,
    frozen_epochs: int,
    students: Sequence[nn.Module],
    optimisers: Sequence[torch.optim.Optimizer],
    moment: Moment,
) -> None:
    """Set Adam's rate, and freeze the body for the first epochs.

    Frozen are its parameters and the statistics of its norms, the pooling included. The BN neck learns with
    the new classifier, whose input it scales: code of this family that freezes a body leaves it out
    (chosen; other code freezes all but the classifier). Meanwhile the rate is the full one; the schedule
    begins where the body thaws, so that its warm-up is the body's.
    """
    (student,), adam = students, optimisers[0]
    frozen = moment.round < frozen_epochs
    student.train(not frozen)
    cast(Network, student).neck.train()
    for parameter in adam.param_groups[0]["params"]:
        parameter.requires_grad_(not frozen)
    part = (
        1.0 if frozen else rate(config.schedule, moment.round - frozen_epochs, moment.rounds - frozen_epochs)
    )
    for group in adam.param_groups:
        group["lr"] = config.learning_rate * part


# Epochs of the published schedules; others are scaled to theirs.
WARM, FIRST_DROP, SECOND_DROP, EPOCHS = 10, 40, 70, 90
