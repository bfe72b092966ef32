"""Batch norm that can normalise in groups, and the IBN-a norm made of it.

Published re-ID results come from several GPUs, each with its own batch statistics. On one device the same
is reached by normalising contiguous chunks of the batch separately ("ghost" batch norm). The classes keep
the parameter and buffer names of `torch.nn.BatchNorm2d` and `torch.nn.BatchNorm1d`.

Source: Hoffer, Hubara, Soudry, "Train longer, generalize better", NeurIPS 2017 (ghost batch norm); group
sizes from MMT's and TMC's public training settings.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tracklearn.types import Refusal


def chunk_sizes(n: int, group: int | None) -> list[int]:
    """Sizes of the contiguous chunks that a batch of n images is normalised in.

    Every chunk has `group` images; the last may be shorter, but never has a single one: that image joins
    the chunk before it. `group=None` is one chunk.

    >>> chunk_sizes(64, 16), chunk_sizes(34, 16), chunk_sizes(33, 16), chunk_sizes(5, None)
    ([16, 16, 16, 16], [16, 16, 2], [16, 17], [5])
    """
    if group is None or n <= group:
        return [n]
    sizes = [group] * (n // group)
    rest = n % group
    if rest == 1:
        sizes[-1] += 1
    elif rest:
        sizes.append(rest)
    return sizes


class _Grouped(nn.modules.batchnorm._BatchNorm):
    """Batch norm over contiguous chunks of `group` images in training mode; plain when `group` is None.

    The running statistics move by one momentum step per batch, towards the mean over the chunks of their
    means and unbiased variances (chosen: the same as averaging the replicas' buffers; every chunk counts
    alike, the shorter last one too). In evaluation mode there is no difference to the plain class.
    """

    running_mean: Tensor  # statistics are always tracked here
    running_var: Tensor
    num_batches_tracked: Tensor
    group: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        sizes = chunk_sizes(x.shape[0], self.group) if self.training else [x.shape[0]]
        if len(sizes) == 1:
            return super().forward(x)
        self._check_input_dim(x)
        # A native kernel per chunk reads slices in place; one call on (chunks, images, ...) would have to
        # move chunks beside channels first, which copies the whole map. With momentum 1 the kernel leaves
        # each chunk's statistics in its row of these buffers, so no second pass over x is needed.
        mean = self.running_mean.new_zeros((len(sizes), x.shape[1]))
        variance = torch.ones_like(mean)
        out = [
            functional.batch_norm(
                chunk, mean[i], variance[i], self.weight, self.bias, training=True, momentum=1.0, eps=self.eps
            )
            for i, chunk in enumerate(x.split(sizes))
        ]
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            step = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.mean(0), step)
            self.running_var.lerp_(variance.mean(0), step)
        return torch.cat(out)


class BatchNorm2d(_Grouped, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` with grouped statistics; see `set_group`."""


class BatchNorm1d(_Grouped, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` with grouped statistics; see `set_group`."""


class IBN(nn.Module):
    """Instance norm on the first half of the channels, batch norm on the rest (IBN-a).

    Args:
        n_channels: channels of the map; the first `n_channels // 2` are instance-normalised.

    Source: Pan, Luo, Shi, Tang, "Two at Once: Enhancing Learning and Generalization Capacities via
    IBN-Net", ECCV 2018; parameter names `IN.*` and `BN.*` as in its published weights.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.n_instance = n_channels // 2
        self.IN = nn.InstanceNorm2d(self.n_instance, affine=True)
        self.BN = BatchNorm2d(n_channels - self.n_instance)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) in, the same out."""
        left, right = x.split([self.n_instance, x.shape[1] - self.n_instance], 1)
        return torch.cat([self.IN(left.contiguous()), self.BN(right.contiguous())], 1)


def set_group(module: nn.Module, n_images: int | None) -> None:
    """Make every batch norm inside `module` normalise chunks of n_images in training; None undoes it.

    Raises:
        ValueError: n_images is below 2.
    """
    if n_images is not None and n_images < 2:
        raise Refusal(f"n_images per batch-norm group is {n_images}, expected at least 2 (or None)")
    for part in module.modules():
        if isinstance(part, _Grouped):
            part.group = n_images
