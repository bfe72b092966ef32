"""Several processes that train one network: what each does alone, and what they share.

Every process holds the same networks and draws the same random numbers. Of every batch it computes its own
share of tracklets; features and logits are gathered, so that mining and the losses see the whole batch, and
gradients are summed. That is one process with the whole batch, up to rounding.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tracklearn.types import Array, Refusal

T = TypeVar("T")

# How long a process waits for the others. Torch's half an hour is less than the first may need to cluster
# alone, or to evaluate between two rounds. `torchrun` ends all when one dies, so nothing waits in vain.
PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; the default is one that is alone.

    Args:
        rank: of this process, from 0. Rank 0 isolates, clusters and writes.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    def share(self, n: int, rank: int | None = None) -> slice:
        """This rank's (or another's) part of n rows: contiguous, and as equal as can be.

        >>> [Ranks(0, 3).share(8, r) for r in range(3)]
        [slice(0, 3, None), slice(3, 6, None), slice(6, 8, None)]
        """
        rank = self.rank if rank is None else rank
        each, rest = divmod(n, self.size)
        first = rank * each + min(rank, rest)
        return slice(first, first + each + (rank < rest))

    def gather(self, local: Tensor, n: int) -> Tensor:
        """The rows of all ranks in order, (n, ...), from each rank's share; a gradient reaches the own rows.

        Every rank computes the whole loss from them, so the gradient of the own rows is the whole one.
        """
        return local if self.size == 1 else _Gather.apply(local, self, n)

    def collect(self, local: Array, n: int) -> Array:
        """The rows of all ranks in order on rank 0, (n, ...); on the others an array of no rows."""
        if self.size == 1:
            return local
        local = np.ascontiguousarray(local)
        if self.rank:
            dist.send(torch.from_numpy(local), 0)
            return local[:0]
        out = np.empty((n, *local.shape[1:]), local.dtype)
        out[self.share(n)] = local
        for rank in range(1, self.size):
            dist.recv(torch.from_numpy(out[self.share(n, rank)]), rank)
        return out

    def collect_everywhere(self, local: Array, n: int) -> Array:
        """The rows of all ranks in order on every rank, (n, ...); memory: the result alone."""
        if self.size == 1:
            return local
        out = np.empty((n, *local.shape[1:]), local.dtype)
        out[self.share(n)] = local
        for rank in range(self.size):
            dist.broadcast(torch.from_numpy(out[self.share(n, rank)]), rank)
        return out

    def from_first(self, value: T) -> T:
        """Rank 0's value, pickled, on every rank; the others' is not looked at."""
        if self.size == 1:
            return value
        held = [value if self.rank == 0 else None]
        dist.broadcast_object_list(held, 0, device=torch.device("cpu"))
        return held[0]  # type: ignore[return-value]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up every parameter's gradient over the ranks, in one message."""
        if self.size > 1:
            _sum([p.grad for p in parameters if p.grad is not None])

    @torch.no_grad()
    def mean_statistics(self, modules: Iterable[nn.Module]) -> None:
        """Every running mean and variance := its mean over the ranks.

        Each moves towards the statistics of its own share by the same steps, so this may be put off until
        they are needed: the mean of the averages is the average of the means, up to rounding.
        """
        if self.size > 1:
            buffers = [b for m in modules for name, b in m.named_buffers() if ".running_" in f".{name}"]
            _sum(buffers)
            for buffer in buffers:
                buffer /= self.size


def _sum(tensors: Sequence[Tensor]) -> None:
    """Each tensor := its sum over the ranks; one message, so all lie on one device."""
    if not tensors:
        return
    flat = torch.cat([t.reshape(-1) for t in tensors])
    dist.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


class _Gather(torch.autograd.Function):
    """all_gather of unequal shares whose backward keeps the own rows' gradient."""

    @staticmethod
    def forward(ctx: Any, local: Tensor, ranks: Ranks, n: int) -> Tensor:
        ctx.own = ranks.share(n)
        sizes = [ranks.share(n, r).stop - ranks.share(n, r).start for r in range(ranks.size)]
        # Messages are of one size: the shorter shares are padded.
        sent = local.new_zeros((max(sizes), *local.shape[1:]))
        sent[: len(local)] = local
        received = [torch.empty_like(sent) for _ in sizes]
        dist.all_gather(received, sent)
        return torch.cat([part[:size] for part, size in zip(received, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[ctx.own], None, None


def launched() -> int:
    """Number of processes that `torchrun` started this one among, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined(device: str) -> Iterator[tuple[Ranks, str]]:
    """This process among those that `torchrun` started, and the device it is to use.

    On CUDA each process takes the device of its number on its machine. Alone, nothing is set up.

    Args:
        device: "cpu", or "cuda" where there is one.

    Raises:
        ValueError: a numbered device is asked for, which several processes would share; or the machine has
            fewer CUDA devices than processes.
    """
    size = launched()
    if size == 1:
        yield Ranks(), device
        return
    cuda = device.startswith("cuda")
    if cuda:
        if ":" in device:
            raise Refusal(f"--device {device} with {size} processes: say cuda, each takes one of its own")
        local, n_devices = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= n_devices:
            raise Refusal(
                f"process {local + 1} of this machine has none of its {n_devices} CUDA devices: start fewer"
            )
        device = f"cuda:{local}"
        torch.cuda.set_device(device)
    # Both: gradients travel between devices, features and labels between hosts.
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()
