"""The mean teacher: a running average of the student's parameters."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def teacher_of(student: M) -> M:
    """A copy of `student` (parameters and buffers) that takes no gradient."""
    return copy.deepcopy(student).requires_grad_(False)


def momentum(step: int, alpha: float = 0.999) -> float:
    """min(1 − 1/(step + 1), alpha): the share of the teacher that survives iteration `step`, from 0.

    At step 0 the teacher becomes the student; the average is a plain mean until it reaches alpha.

    >>> [round(momentum(s), 3) for s in (0, 1, 3, 10_000)]
    [0.0, 0.5, 0.75, 0.999]

    Source: MMT's code; METHODS 2.5. `step` counts across epochs.
    """
    return min(1 - 1 / (step + 1), alpha)


@torch.no_grad()
def update(teacher: nn.Module, student: nn.Module, *, step: int, alpha: float = 0.999) -> None:
    """θ̄ ← m θ̄ + (1 − m) θ in place, m = `momentum(step, alpha)`; parameters only.

    Buffers stay the teacher's own: its batch-norm statistics come from its own train-mode passes.

    Args:
        teacher: as made by `teacher_of`.
        student: the same architecture.
        step: iterations done before this one, over the whole training.
        alpha: momentum after the warm-up.

    Source: TMC section 3.4 (alpha 0.999); MMT's code.
    """
    keep = momentum(step, alpha)
    pairs = zip(teacher.parameters(), student.parameters(), strict=True)
    means, values = (list(side) for side in zip(*pairs, strict=True))
    # One call for all parameters: hundreds of small ones cost a GPU more in launches than in arithmetic.
    torch._foreach_lerp_(means, values, 1 - keep)
