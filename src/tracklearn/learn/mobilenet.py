"""MobileNetV2 with the parameter names of torchvision's weights.

Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, table 2.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from tracklearn.learn.network import Config, Network
from tracklearn.learn.norm import BatchNorm2d

# expansion, channels out, blocks, stride of the first: the paper's table 2
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class Conv(nn.Conv2d):
    """Convolution that keeps h/stride; `same` puts the odd column of zeros at the right and bottom.

    TensorFlow's "same" padding of a stride-2 3×3 convolution: nothing at the top and left of an even size,
    where torchvision pads by one; weights made there are off by a pixel a stage without it.
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__(n_in, n_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.same = False

    def forward(self, x: Tensor) -> Tensor:
        if self.same and self.stride == (2, 2) and self.kernel_size == (3, 3):
            top, left = int(x.shape[2]) % 2, int(x.shape[3]) % 2
            x = functional.pad(x, (left, 1, top, 1))
            return functional.conv2d(x, self.weight, None, self.stride, 0, 1, self.groups)
        return super().forward(x)


class InvertedResidual(nn.Module):
    """Widen by 1×1, depthwise 3×3, narrow by 1×1 without a nonlinearity."""

    def __init__(self, n_in: int, n_out: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        self.shortcut = stride == 1 and n_in == n_out
        width = n_in * expansion
        widen = [_conv_norm(n_in, width, 1)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *widen,
            _conv_norm(width, width, 3, stride=stride, groups=width),
            Conv(width, n_out, 1),
            BatchNorm2d(n_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(Network):
    """Width 1.0; d = 1280. The last stride (of the 160-channel stage) is a setting."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, feature_dim=1280)
        layers: list[nn.Module] = [_conv_norm(3, 32, 3, stride=2)]
        n_in = 32
        for expansion, n_out, n_blocks, stride in STAGES:
            first = config.last_stride if n_out == 160 else stride
            for i in range(n_blocks):
                layers.append(InvertedResidual(n_in, n_out, stride=1 if i else first, expansion=expansion))
                n_in = n_out
        layers.append(_conv_norm(320, 1280, 1))
        self.features = nn.Sequential(*layers)

    def maps(self, images: Tensor) -> Tensor:
        """(b, 1280, h/32, w/32); h/16 and w/16 with last stride 1."""
        return self.features(images)

    def set_padding(self, *, asymmetric: bool) -> None:
        """Pad stride-2 3×3 convolutions on the right and bottom only, or by one all round (the default)."""
        self.asymmetric_padding = asymmetric
        for module in self.modules():
            if isinstance(module, Conv):
                module.same = asymmetric


def _conv_norm(n_in: int, n_out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        Conv(n_in, n_out, kernel, stride=stride, groups=groups), BatchNorm2d(n_out), nn.ReLU6(inplace=True)
    )
