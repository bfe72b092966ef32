"""Networks by name: ResNet-50, IBN-ResNet-50-a, MobileNetV2, OSNet, and a small one for CPUs."""

from __future__ import annotations

import torch
from torch import nn

from tracklearn.learn.mobilenet import MobileNetV2
from tracklearn.learn.network import NAMES, Config, Loaded, Network
from tracklearn.learn.osnet import CHANNELS, OSNet
from tracklearn.learn.resnet import ResNet50
from tracklearn.learn.tiny import Tiny
from tracklearn.types import Refusal

__all__ = ["NAMES", "Config", "Loaded", "Network", "build"]


def build(config: Config, *, seed: int) -> Network:
    """A network with random weights that depend on `seed` only, on the CPU, in channels-last layout.

    Convolutions: He normal over the fan-out, as both published forms; norms 1 and 0. The global random state
    is not touched.

    Args:
        config: which network.
        seed: of the initialisation.

    Returns:
        The network in training mode; move it with `.to(device)`.

    Raises:
        ValueError: a setting that the network does not have.

    >>> build(Config(backbone="tiny", height=128, width=64), seed=0).feature_dim
    384

    Source: He et al., "Delving Deep into Rectifiers", ICCV 2015.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = _bare(config)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _bare(config: Config) -> Network:
    if config.backbone in CHANNELS:
        return OSNet(config)
    if config.feature != "embedding":
        raise Refusal(
            f"network.feature = {config.feature!r} belongs to OSNet: the feature of {config.backbone} is its "
            "pooled map anyway; leave it out"
        )
    if config.backbone == "tiny":
        return Tiny(config)
    if config.backbone == "mobilenet_v2":
        return MobileNetV2(config)
    return ResNet50(config, ibn=config.backbone == "ibn_resnet50_a")
