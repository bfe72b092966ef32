"""The same result every time on a CUDA device, as far as torch can."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def algorithms(device: torch.device) -> Iterator[None]:
    """On CUDA: deterministic algorithms inside the block, the old settings after it; elsewhere nothing.

    The settings are torch's, for the whole process. CUBLAS_WORKSPACE_CONFIG is set where it is not, and
    stays: cuBLAS reads it once. An operation without a deterministic form still runs, with torch's warning.

    Source: PyTorch's notes on reproducibility.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        cudnn.deterministic, cudnn.benchmark = True, False
        torch.use_deterministic_algorithms(True, warn_only=True)
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
