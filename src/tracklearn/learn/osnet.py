"""OSNet in four widths, with the parameter names of torchreid's weights.

Source: Zhou, Yang, Cavallaro, Xiang, "Omni-Scale Feature Learning for Person Re-Identification", ICCV 2019,
table 1 and figures 3–4; names and what the paper leaves open (a gate without norm, no norm between the 1×1
and the depthwise convolution) as in the authors' torchreid (MIT). METHODS 2.1.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from tracklearn.learn.network import Config, Network
from tracklearn.learn.norm import BatchNorm1d, BatchNorm2d

# Channels of the stem and of the three stages: the paper's table 1 times 1, 0.75, 0.5 and 0.25.
CHANNELS = {
    "osnet_x1_0": (64, 256, 384, 512),
    "osnet_x0_75": (48, 192, 288, 384),
    "osnet_x0_5": (32, 128, 192, 256),
    "osnet_x0_25": (16, 64, 96, 128),
}
EMBEDDING = 512


class ConvNorm(nn.Module):
    """Convolution and norm, and ReLU unless `linear`; keeps h/stride."""

    def __init__(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, linear: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False)
        self.bn = BatchNorm2d(n_out)
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return x if self.linear else functional.relu(x, inplace=True)


class LightConv(nn.Module):
    """1×1 convolution, depthwise 3×3, norm, ReLU: a 3×3 convolution in two cheap steps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, groups=width, bias=False)
        self.bn = BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv2(self.conv1(x))), inplace=True)


class Gate(nn.Module):
    """Multiplies each channel by a number in 0–1 that its image's channel means decide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, width // 16, 1)
        self.fc2 = nn.Conv2d(width // 16, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        return x * self.fc2(functional.relu(self.fc1(mean))).sigmoid()


class OSBlock(nn.Module):
    """Four streams of one to four light convolutions, so four scales, gated by one gate and summed."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        width = n_out // 4
        self.conv1 = ConvNorm(n_in, width, 1)
        self.conv2a = LightConv(width)
        self.conv2b, self.conv2c, self.conv2d = (
            nn.Sequential(*(LightConv(width) for _ in range(n))) for n in (2, 3, 4)
        )
        self.gate = Gate(width)
        self.conv3 = ConvNorm(width, n_out, 1, linear=True)
        self.downsample = ConvNorm(n_in, n_out, 1, linear=True) if n_in != n_out else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)
        streams = self.gate(self.conv2a(y)) + self.gate(self.conv2b(y))
        streams = streams + self.gate(self.conv2c(y)) + self.gate(self.conv2d(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return functional.relu(self.conv3(streams) + shortcut, inplace=True)


class OSNet(Network):
    """Three stages of two blocks; d = 512 values after `fc`, or as many as the last map has channels.

    The last stride is that of the average pooling behind the second stage. The 512 values come out of a ReLU:
    none is below 0.
    """

    def __init__(self, config: Config) -> None:
        stem, *widths = CHANNELS[config.backbone]
        pooled = config.feature == "pooled"
        super().__init__(config, feature_dim=widths[-1] if pooled else EMBEDDING)
        self.conv1 = ConvNorm(3, stem, 7, stride=2)
        self.conv2 = _stage(stem, widths[0], pool=2)
        self.conv3 = _stage(widths[0], widths[1], pool=config.last_stride)
        self.conv4 = nn.Sequential(OSBlock(widths[1], widths[2]), OSBlock(widths[2], widths[2]))
        self.conv5 = ConvNorm(widths[2], widths[2], 1)
        # Left out where unused, so that every parameter takes a gradient; weights' `fc.*` are then ignored.
        self.fc = None if pooled else _embedding(widths[2])

    def maps(self, images: Tensor) -> Tensor:
        """(b, c, h/16, w/16), c = 512 times the width; h/8 and w/8 with last stride 1."""
        x = functional.max_pool2d(self.conv1(images), 3, 2, 1)
        return self.conv5(self.conv4(self.conv3(self.conv2(x))))

    def forward(self, images: Tensor) -> Tensor:
        """Pre-BN feature (b, d) of normalised images (b, 3, h, w): the pooled map, through `fc`."""
        pooled = super().forward(images)
        return pooled if self.fc is None else self.fc(pooled)


def _stage(n_in: int, n_out: int, *, pool: int) -> nn.Sequential:
    shrink = nn.Sequential(ConvNorm(n_out, n_out, 1), nn.AvgPool2d(pool))
    return nn.Sequential(OSBlock(n_in, n_out), OSBlock(n_out, n_out), shrink)


def _embedding(n_in: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, EMBEDDING), BatchNorm1d(EMBEDDING), nn.ReLU(inplace=True))
