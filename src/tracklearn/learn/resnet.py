"""ResNet-50 and IBN-ResNet-50-a with the parameter names of their published weights.

Source: He et al., "Deep Residual Learning", CVPR 2016, in the form whose 3×3 convolution carries the stride
(as torchvision's); Pan et al., "Two at Once" (IBN-Net), ECCV 2018, table 1, IBN-a.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from tracklearn.learn.network import Config, Network
from tracklearn.learn.norm import IBN, BatchNorm2d


class Bottleneck(nn.Module):
    """1×1, 3×3 (strided), 1×1 convolution around a shortcut; 4·width channels out."""

    def __init__(self, n_in: int, width: int, *, stride: int, ibn: bool) -> None:
        super().__init__()
        n_out = 4 * width
        self.conv1 = nn.Conv2d(n_in, width, 1, bias=False)
        self.bn1: nn.Module = IBN(width) if ibn else BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, n_out, 1, bias=False)
        self.bn3 = BatchNorm2d(n_out)
        self.downsample: nn.Module | None = None
        if stride != 1 or n_in != n_out:
            self.downsample = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = functional.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return functional.relu(y + shortcut, inplace=True)


class ResNet50(Network):
    """3, 4, 6, 3 bottlenecks; d = 2048. With `ibn`, the first norm of each block of stages 1–3 is IBN-a."""

    def __init__(self, config: Config, *, ibn: bool) -> None:
        super().__init__(config, feature_dim=2048)
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = BatchNorm2d(64)
        self.layer1 = _stage(64, 64, 3, stride=1, ibn=ibn)
        self.layer2 = _stage(256, 128, 4, stride=2, ibn=ibn)
        self.layer3 = _stage(512, 256, 6, stride=2, ibn=ibn)
        self.layer4 = _stage(1024, 512, 3, stride=config.last_stride, ibn=False)

    def maps(self, images: Tensor) -> Tensor:
        """(b, 2048, h/32, w/32); h/16 and w/16 with last stride 1."""
        x = functional.relu(self.bn1(self.conv1(images)), inplace=True)
        x = functional.max_pool2d(x, 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def _stage(n_in: int, width: int, n_blocks: int, *, stride: int, ibn: bool) -> nn.Sequential:
    blocks = [Bottleneck(n_in, width, stride=stride, ibn=ibn)]
    blocks += [Bottleneck(4 * width, width, stride=1, ibn=ibn) for _ in range(n_blocks - 1)]
    return nn.Sequential(*blocks)
