"""Features of crops and of tracklets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tracklearn.learn import allocator, folded, sample, session, subnormals
from tracklearn.learn.network import Network
from tracklearn.types import Array, Crops, Refusal


def extract(
    network: Network,
    crops: Crops,
    rows: Sequence[int] | Array,
    *,
    device: torch.device | str,
    batch: int = 256,
    progress: Callable[[str, int, int | None], None] | None = None,
    dtype: torch.dtype = torch.float32,
    post_bn: bool = True,
    unit: bool = True,
    fixed: bool = False,
    by_session: bool = False,
) -> NDArray[np.float32]:
    """Feature of every crop, in evaluation mode, without flips.

    The next batches are read by a second thread while this one is computed. On a CPU the network's folded
    form computes it (`folded`), in float32, or where asked one of onnxruntime (`session`). Memory: a few
    batches of crops beside the result, and up to 1 GiB that the process keeps (`allocator.keep_freed`).

    Args:
        network: moved to `device`; left in the mode it was in.
        crops: pictures of the network's size.
        rows: (n,) rows of `crops`, repeats allowed; row i of the result belongs to rows[i].
        device: where to compute.
        batch: crops at a time.
        progress: called as progress("features", done, total) after every batch.
        dtype: arithmetic inside the network; other than float32 through autocast, and by a session float32
            whatever it is. The result is float32.
        post_bn: the feature after the BN neck; False gives the one before it.
        unit: scale every feature to length 1; False leaves lengths as they are.
        fixed: the network's weights do not change any more: what is made of them is kept for the next call.
        by_session: by onnxruntime, as `session.chosen` decides; it pays from some hundred crops on.

    Returns:
        (n, d) float32, rows of length 1 where `unit`.

    Raises:
        ValueError: batch is below 1, or features are not finite or all zero; the message names crop rows.
    """
    if batch < 1:
        raise Refusal(f"batch is {batch}, expected at least 1")
    allocator.keep_freed()  # before the batches, and those of training, which always follow an extraction
    index = np.asarray(rows, dtype=np.int64)
    device = torch.device(device)
    dtype = torch.float32 if by_session else dtype
    out = np.empty((len(index), network.feature_dim), np.float32)
    parts = [index[i : i + batch] for i in range(0, len(index), batch)]
    network.to(device)
    training = network.training
    network.eval()
    done = 0
    try:
        with torch.inference_mode():
            form = session.Session(network) if by_session else _by_torch(network, device, dtype, fixed=fixed)
            read = sample.ahead(crops, parts, pin=device.type == "cuda")
            for part, images in zip(parts, read, strict=True):
                # No more than that: threads that start inside keep it.
                with (
                    subnormals.flushed(device),
                    torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32),
                ):
                    feature = form(images.to(device, non_blocking=True))
                    feature = network.neck(feature) if post_bn else feature
                feature = feature.float()
                made = (functional.normalize(feature) if unit else feature).cpu().numpy()
                _check(made, part)
                out[done : done + len(part)] = made
                done += len(part)
                if progress is not None:
                    progress("features", done, len(index))
    finally:
        network.train(training)
    return out


def _by_torch(
    network: Network, device: torch.device, dtype: torch.dtype, *, fixed: bool
) -> Callable[[Tensor], Tensor]:
    """What makes pre-BN features (b, d) of pictures (b, h, w, 3) uint8."""
    body: Callable[[Tensor], Tensor] = network
    if folded.possible(network, device, dtype):
        body = folded.kept(network) if fixed else folded.Folded(network)
    return lambda images: body(network.normalise(images))


def _check(features: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
    for bad, what, why in (
        (
            ~np.isfinite(features).all(1),
            "not finite",
            "the weights are damaged or training diverged (lower the learning rate)",
        ),
        (~features.any(1), "all zero", "look at these crops, or start from other weights"),
    ):
        if bad.any():
            named = np.unique(rows[bad])
            shown = ", ".join(map(str, named[:5])) + (", …" if len(named) > 5 else "")
            raise Refusal(f"features are {what} at crop rows {shown} ({len(named)} in this batch): {why}")


def pool(
    features: NDArray[np.float32], group: NDArray[np.integer[Any]], n_groups: int
) -> NDArray[np.float32]:
    """Unit mean feature of every group (tracklet).

    Args:
        features: (n, d) float32 rows; their lengths are their weights in the mean.
        group: (n,) int, group of each row, 0..n_groups − 1, in any order.
        n_groups: number of groups, t.

    Returns:
        (t, d) float32: the mean over each group, of length 1 (zeros where the mean is zero).

    Raises:
        ValueError: `group` has another length or values outside the range, or a group has no row.

    >>> pool(np.float32([[1, 0], [0, 1], [0, 1]]), np.array([0, 0, 1]), 2).round(2).tolist()
    [[0.7099999785423279, 0.7099999785423279], [0.0, 1.0]]
    """
    group = np.asarray(group)
    if group.shape != (len(features),):
        raise Refusal(f"group has shape {group.shape}, expected ({len(features)},): one per feature")
    if len(group) and (group.min() < 0 or group.max() >= n_groups):
        raise Refusal(f"group ranges {group.min()}..{group.max()}, expected 0..{n_groups - 1}")
    count = np.bincount(group, minlength=n_groups)
    if (count == 0).any():
        raise Refusal(f"group {int(np.argmin(count))} has no feature: drop empty tracklets first")
    if not n_groups:
        return np.empty((0, features.shape[1]), np.float32)
    order = np.argsort(group, kind="stable")
    start = np.concatenate([[0], np.cumsum(count)[:-1]])
    mean = np.add.reduceat(features[order], start, axis=0, dtype=np.float64) / count[:, None]
    norm = np.linalg.norm(mean, axis=1, keepdims=True)
    return (mean / np.maximum(norm, 1e-12)).astype(np.float32)
