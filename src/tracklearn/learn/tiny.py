"""A small network that learns from random weights in minutes on two CPU cores, for 128×64 crops."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from tracklearn.learn.network import Config, Network
from tracklearn.learn.norm import IBN, BatchNorm2d


class Block(nn.Module):
    """Two 3×3 convolutions around a shortcut; a stride or a change of width goes through a 1×1 one."""

    def __init__(self, n_in: int, n_out: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = BatchNorm2d(n_out)
        self.downsample: nn.Module | None = None
        if stride != 1 or n_in != n_out:
            self.downsample = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return functional.relu(y + shortcut, inplace=True)


class Tiny(Network):
    """Strided stem with IBN-a, three residual stages, pooling over head, torso and legs; d = 3 · 128 = 384.

    Half the stem's channels are instance-normalised, which takes a camera's colour cast and contrast out of
    them; the other half keep absolute colour. Three parts keep what is worn where.
    """

    WIDTHS = (32, 64, 96, 128)

    def __init__(self, config: Config) -> None:
        w = self.WIDTHS
        super().__init__(config, feature_dim=3 * w[3], n_parts=3)
        self.conv1 = nn.Conv2d(3, w[0], 5, 2, 2, bias=False)
        self.bn1 = IBN(w[0])
        self.layer1 = Block(w[0], w[1], stride=2)
        self.layer2 = Block(w[1], w[2], stride=2)
        self.layer3 = Block(w[2], w[3], stride=config.last_stride)

    def maps(self, images: Tensor) -> Tensor:
        """(b, 128, h/16, w/16); h/8 and w/8 with last stride 1."""
        x = functional.relu(self.bn1(self.conv1(images)), inplace=True)
        x = functional.max_pool2d(x, 2)
        return self.layer3(self.layer2(self.layer1(x)))
