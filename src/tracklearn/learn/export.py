"""A trained network as other programs load it: one module from picture to unit feature, and its bytes.

ONNX is written by torch's exporter of traced modules (`dynamo=False`): for OSNet x0.25 it takes a twelfth of
the newer exporter's time, needs no further package, folds batch norms into convolutions, and gives the same
features (docs/log.md, "export").
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils import fusion

from tracklearn.learn.network import Network
from tracklearn.learn.osnet import CHANNELS
from tracklearn.types import Array, Refusal

# Mean and standard deviation of pictures that come in as RGB of 0-1, without any normalisation outside.
BAKED = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
OPSET = 17  # the newest of that exporter with every operation of ours; runtimes of 2023 read it
_EXAMPLE = 2  # pictures of the trace: one could be taken for a fixed batch


class Body(nn.Module):
    """Pictures to features before the BN neck.

    Args:
        network: copied, moved to the CPU and into evaluation mode.
        mean, std: by which pictures of 0-1 RGB are normalised before they come in, three floats each; `BAKED`
            where they come as they are.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: Network, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        body = copy.deepcopy(network).cpu().eval().requires_grad_(False)
        body.neck = nn.Identity()  # type: ignore[assignment]
        for part in body.modules():
            if isinstance(part, nn.Sequential):
                _fold_linear(part)
        own_mean, own_std, given_mean, given_std = (
            torch.tensor(list(values), dtype=torch.float64)
            for values in (network.pixel_mean, network.pixel_std, mean, std)
        )
        scale, shift = given_std / own_std, (given_mean - own_mean) / own_std
        self.as_it_comes = bool((scale == 1).all() and (shift == 0).all())
        self.body = body
        self.register_buffer("scale", scale.float().view(1, 3, 1, 1))
        self.register_buffer("shift", shift.float().view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) float32 in, (b, d) out."""
        return self.body(images if self.as_it_comes else images * self.scale + self.shift)


class Tail(nn.Module):
    """The BN neck as one product and one sum, and the length of 1: feature (b, d) to unit feature (b, d)."""

    slope: Tensor
    offset: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        neck = network.neck
        slope = neck.weight.detach() / (neck.running_var + neck.eps).sqrt()
        self.register_buffer("slope", slope.cpu().clone())
        self.register_buffer("offset", (neck.bias.detach() - neck.running_mean * slope).cpu())

    def forward(self, feature: Tensor) -> Tensor:
        """(b, d) float32 in and out."""
        feature = feature * self.slope + self.offset
        return feature / feature.norm(dim=1, keepdim=True).clamp(min=1e-12)

    def correct(self, wanted: Array, got: Array) -> None:
        """Take features from a coarser body: `got` of it is brought to `wanted` by a line a dimension.

        What rounding does to a feature is mostly a shift and a scale of each dimension, and the neck, which
        takes the mean away, would enlarge both.

        Args:
            wanted, got: (n, d) float32 features of the same crops, of the body the tail was made for and of
                the other one.

        Source: ours; the mean shift of rounded networks and its correction: Nagel et al., "Data-Free
        Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2.
        """
        a, b = torch.from_numpy(wanted).double(), torch.from_numpy(got).double()
        mean_a, mean_b, spread = a.mean(0), b.mean(0), b.var(0, correction=0)
        both = ((a - mean_a) * (b - mean_b)).mean(0)
        # A dimension that stands still on these crops keeps its scale.
        line = torch.where(spread > 1e-8, both / spread.clamp(min=1e-8), torch.ones_like(both))
        self.offset.copy_(self.offset + self.slope * (mean_a - line * mean_b))
        self.slope.copy_(self.slope * line)


def whole(network: Network, *, mean: Sequence[float], std: Sequence[float]) -> nn.Sequential:
    """`Body` and `Tail` in one: the features that search uses, behind the neck and of length 1."""
    return nn.Sequential(Body(network, mean=mean, std=std), Tail(network)).eval()


def onnx_bytes(
    module: nn.Module, shape: Sequence[int], *, names: tuple[str, str], folded: bool = True
) -> bytes:
    """An .onnx file of a module with one input and one output; the package `onnx` must be there.

    Args:
        module: in evaluation mode.
        shape: of one input, without the batch, which stays open.
        names: of input and output.
        folded: batch norms become part of the convolutions before them. Where not, the file holds the
            module's arrays as they are, under their names; equal ones are taken for one.
    """
    out, example = io.BytesIO(), torch.zeros(_EXAMPLE, *shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself, and of sizes that become constants
        torch.onnx.export(
            module,
            (example,),
            out,  # type: ignore[arg-type]  # a stream, which this exporter takes too
            dynamo=False,
            input_names=[names[0]],
            output_names=[names[1]],
            dynamic_axes={name: {0: "batch"} for name in names},
            opset_version=OPSET,
            do_constant_folding=folded,
            training=torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE,
        )
    return out.getvalue()


def torchscript_bytes(module: nn.Module, shape: Sequence[int]) -> bytes:
    """A TorchScript file of a module with one input (batch, *shape)."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, torch.zeros(_EXAMPLE, *shape), check_trace=False)
        torch.jit.save(traced, out)
    return out.getvalue()


def read_torchscript(data: bytes) -> nn.Module:
    """The module of a TorchScript file, on the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(io.BytesIO(data), map_location="cpu")


def osnet_arrays(network: Network) -> dict[str, Array]:
    """Arrays of an OSNet by torchreid's names, without neck and classifier: what other programs build.

    So their feature is the one before the neck, none of its values below 0. Behind a ReLU the neck's shift
    has no place; its scale had one, but brought nothing (docs/log.md, "export").

    Raises:
        ValueError: it is no OSNet as others build it: another backbone, pooling, stride or feature.
    """
    config = network.config
    if config.backbone not in CHANNELS:
        raise Refusal(
            f"{config.backbone} with its BN neck has no slot there, which takes the arrays of an OSNet: use "
            "--to onnx"
        )
    odd = [
        f"{name} = {getattr(config, name)}"
        for name, usual in (("pooling", "avg"), ("last_stride", 2), ("feature", "embedding"))
        if getattr(config, name) != usual
    ]
    if odd:
        raise Refusal(
            f"the network has {', '.join(odd)}, which the OSNet of other programs has not: use --to onnx"
        )
    return {
        name: value for name, value in network.arrays().items() if not name.startswith(("neck.", "pool."))
    }


def checkpoint_bytes(arrays: dict[str, Array]) -> bytes:
    """A file of `torch.save` that holds a state dict and nothing else."""
    out = io.BytesIO()
    torch.save({name: torch.from_numpy(value) for name, value in arrays.items()}, out)
    return out.getvalue()


def _fold_linear(layers: nn.Sequential) -> None:
    """Put every batch norm that stands behind a linear layer into it."""
    for i, (linear, norm) in enumerate(pairwise(list(layers))):
        if isinstance(linear, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
            layers[i], layers[i + 1] = fusion.fuse_linear_bn_eval(linear, norm), nn.Identity()
