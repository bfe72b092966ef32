"""A network as evaluation on a CPU computes it: fewer passes over memory, the same function.

In evaluation a batch norm is a scale and a shift, which the convolution before it takes in; what follows (the
sum with a shortcut, ReLU) is done by oneDNN on the tile that the convolution has just made, and its weights
are brought into the kernel's own order once instead of at every call. Pictures go through some at a time, so
that maps stay small. Rounding differs from the plain network's, by 1e-6 to 1e-5 of a feature's length.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import fusion

from tracklearn.learn.mobilenet import Conv
from tracklearn.learn.network import Network, Pool
from tracklearn.learn.norm import IBN

PICTURES = 128  # at a time
_NOTHING: tuple[str, list[float]] = ("none", [])  # done behind a convolution


class Folded:
    """The evaluation form of one network, as its weights are now.

    Args:
        network: on the CPU, in evaluation mode; read, not changed. Weights that change later are not seen.
    """

    def __init__(self, network: Network) -> None:
        self._body = _fold(network)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Pre-BN features (b, d) of normalised images (b, 3, h, w); call it in inference mode."""
        return torch.cat([self._body(part) for part in pixels.split(PICTURES)])


_kept: WeakKeyDictionary[Network, Folded] = WeakKeyDictionary()


def kept(network: Network) -> Folded:
    """The form of a network that does not change any more, made once: it takes as long as some pictures."""
    if network not in _kept:
        _kept[network] = Folded(network)
    return _kept[network]


def possible(network: Network, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this build's oneDNN can compute it: float32, the weights too, on the CPU."""
    return (
        device.type == "cpu"
        and {dtype, *(p.dtype for p in network.parameters())} == {torch.float32}
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        ours = isinstance(m, (nn.Conv2d, _BatchNorm, Pool, IBN))
        return ours or super().is_leaf_module(m, module_qualified_name)


class _Convolution(nn.Module):
    """A convolution, what is added to it, and the nonlinearity behind, in one call."""

    def __init__(self, conv: nn.Conv2d, unary: str, scalars: Sequence[float]) -> None:
        super().__init__()
        self.weight = conv.weight.detach()
        self.bias = None if conv.bias is None else conv.bias.detach()
        padding = conv.padding if isinstance(conv.padding, tuple) else (0, 0)
        # padding, stride, dilation, groups: the order of the operations' own arguments
        self.shape = (list(padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.after = (unary, list(scalars), "")
        self.ordered: dict[tuple[int, ...], Tensor] = {}

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        size = x.shape[1:]  # one order for any number of pictures: oneDNN takes it, or reorders by itself
        weight = self.ordered.get(size)
        if weight is None:
            weight = torch.ops.mkldnn._reorder_convolution_weight(self.weight, *self.shape, list(x.shape))
            self.ordered[size] = weight
        unary, scalars, algorithm = self.after
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(
                x, weight, self.bias, *self.shape, unary, scalars, algorithm
            )
        return torch.ops.mkldnn._convolution_pointwise.binary(
            x, other, weight, self.bias, *self.shape, "add", 1.0, unary if unary != "none" else None, [], ""
        )


def _fold(network: Network) -> nn.Module:
    graph = _Tracer().trace(network)
    module = fx.GraphModule(network, graph)
    parts: dict[str, nn.Module] = dict(module.named_modules())
    order = {node: i for i, node in enumerate(graph.nodes)}
    for i, node in enumerate(list(graph.nodes)):
        conv = _part(parts, node)
        if not isinstance(conv, nn.Conv2d) or (
            isinstance(conv, Conv) and conv.same and conv.stride == (2, 2)
        ):
            continue  # an asymmetric padding is not in oneDNN's call
        end = node
        after = _only_user(end)
        norm = _part(parts, after)
        if after is not None and isinstance(norm, _BatchNorm):
            conv, end = fusion.fuse_conv_bn_eval(conv, norm), after
            after = _only_user(end)
        other = None
        if after is not None and after.op == "call_function" and after.target in (operator.add, torch.add):
            rest = [a for a in after.args if a is not end and isinstance(a, fx.Node)]
            # The other summand has to be there already when the convolution runs.
            if len(rest) == 1 and order[rest[0]] < order[end]:
                other, end = rest[0], after
                after = _only_user(end)
        unary, scalars = _NOTHING
        relu = _nonlinearity(parts, after)
        if after is not None and relu is not None:
            (unary, scalars), end = relu, after
        if other is not None and unary not in ("none", "relu"):
            continue
        name = f"folded{i}"
        module.add_submodule(name, _Convolution(conv, unary, scalars))
        with graph.inserting_after(end):
            made = graph.call_module(name, (node.args[0], *(() if other is None else (other,))))
        order[made] = order[end]
        end.replace_all_uses_with(made)
    graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    return module


def _only_user(node: fx.Node | None) -> fx.Node | None:
    return next(iter(node.users)) if node is not None and len(node.users) == 1 else None


def _part(parts: dict[str, nn.Module], node: fx.Node | None) -> nn.Module | None:
    return parts.get(str(node.target)) if node is not None and node.op == "call_module" else None


def _nonlinearity(parts: dict[str, nn.Module], node: fx.Node | None) -> tuple[str, list[float]] | None:
    part = _part(parts, node)
    called: Any = node.target if node is not None and node.op == "call_function" else None
    if isinstance(part, nn.ReLU6) or called is functional.relu6:
        return "hardtanh", [0.0, 6.0]
    if isinstance(part, nn.ReLU) or called in (functional.relu, torch.relu):
        return "relu", []
    return None
