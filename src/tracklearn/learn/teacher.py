"""The mean teacher: a running average of the student's parameters."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

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


class Average:
    """Keeps the parameters of teachers at the running average of their students'.

    Buffers stay the teachers' own where their batch-norm statistics come from their own train-mode passes.

    Args:
        pairs: (teacher, student), teachers as made by `teacher_of`. Their parameters are looked up once: they
            may be written to, not replaced.
        buffers: average running statistics too, for teachers that see no batch.

    Raises:
        ValueError: a pair is not of one architecture.
    """

    def __init__(self, pairs: Iterable[tuple[nn.Module, nn.Module]], *, buffers: bool = False) -> None:
        self._means: list[Tensor] = []
        self._values: list[Tensor] = []
        for mean, live in pairs:
            for kept, moving in zip(mean.parameters(), live.parameters(), strict=True):
                self._means.append(kept)
                self._values.append(moving)
            if buffers:
                for own, other in zip(mean.buffers(), live.buffers(), strict=True):
                    if own.is_floating_point():
                        self._means.append(own)
                        self._values.append(other)

    @torch.no_grad()
    def update(self, *, step: int, alpha: float = 0.999) -> None:
        """θ̄ ← m θ̄ + (1 − m) θ in place, m = `momentum(step, alpha)`.

        Args:
            step: iterations done before this one, over the whole training.
            alpha: momentum after the warm-up.

        Source: TMC section 3.4 (alpha 0.999); MMT's code.
        """
        # One call for all parameters: hundreds of small ones cost a GPU more in launches than in arithmetic.
        torch._foreach_lerp_(self._means, self._values, 1 - momentum(step, alpha))
