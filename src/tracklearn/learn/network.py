"""A re-ID network: body, pooling and BN neck, with the care its batch norms and weights need."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from tracklearn.learn.norm import BatchNorm1d, BatchNorm2d, set_group
from tracklearn.types import Array, Refusal

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Name = Literal[
    "resnet50",
    "ibn_resnet50_a",
    "mobilenet_v2",
    "osnet_x1_0",
    "osnet_x0_75",
    "osnet_x0_5",
    "osnet_x0_25",
    "tiny",
]
NAMES: tuple[Name, ...] = get_args(Name)


class Config(BaseModel):
    """Which network, and for which crops; each setting with its origin.

    Generalised mean pooling is of Radenovic et al., TPAMI 2018. `tiny` pools four horizontal parts
    separately, with either kind.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: Name = Field(
        default="resnet50", description="Which network [paper TMC 4.1: ResNet-50; MSPLR: IBN-ResNet-50-a]."
    )
    height: int = Field(default=256, ge=32, description="Of the crops, pixels [code MMT].")
    width: int = Field(default=128, ge=32, description="Of the crops, pixels [code MMT].")
    last_stride: Literal[1, 2] = Field(
        default=2,
        description="The network's last: of a ResNet's fourth stage, of the pooling behind OSNet's second "
        "[code TMC: 2; MMT: 1].",
    )
    pooling: Literal["avg", "gem"] = Field(
        default="avg",
        description="Mean of the last map, or the generalised mean, whose exponent is learned, 3 at first "
        "[code TMC: avg].",
    )
    feature: Literal["embedding", "pooled"] = Field(
        default="embedding",
        description="Of OSNet: the 512 values behind its `fc`, or the pooled map, which is all that other "
        "networks have [code torchreid: embedding].",
    )


class Info(Protocol):
    """What `Network.load_weights` needs to know of a weights file (`store.weights.WeightsInfo` is one)."""

    @property
    def pixel_mean(self) -> tuple[float, float, float]: ...
    @property
    def pixel_std(self) -> tuple[float, float, float]: ...
    @property
    def asymmetric_padding(self) -> bool: ...


@dataclass(frozen=True)
class Loaded:
    """What `Network.load_weights` did.

    Args:
        n_loaded: arrays copied into the network, batch counters left out.
        n_expected: arrays the network has, counted likewise.
        neck: whether the BN neck came along.
        folded: whether the batch norms are folded into the convolutions; `calibrate` unfolds them.
        ignored: names of classifier arrays that were left out.
    """

    n_loaded: int
    n_expected: int
    neck: bool
    folded: bool
    ignored: tuple[str, ...]


class Pool(nn.Module):
    """Mean of a map over horizontal parts, concatenated; generalised mean where `gem`.

    Part i of p covers rows floor(i·h/p) to ceil((i+1)·h/p): neighbours share a row where p does not divide h.
    Plain slices rather than adaptive pooling, whose CUDA gradient is not deterministic.

    Source: Sun et al., "Beyond Part Models" (PCB), ECCV 2018; Radenovic et al., "Fine-tuning CNN Image
    Retrieval with No Human Annotation", TPAMI 2018 (GeM, p = 3 learned, clamp 1e-6).
    """

    def __init__(self, n_parts: int, *, gem: bool) -> None:
        super().__init__()
        self.n_parts = n_parts
        self.p = nn.Parameter(torch.full((1,), 3.0)) if gem else None

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) in, (b, n_parts·c) out."""
        if self.p is not None:
            x = x.clamp(min=1e-6).pow(self.p)
        if self.n_parts == 1:
            out = x.mean((2, 3))
        else:
            h, n = (
                int(x.shape[2]),
                self.n_parts,
            )  # plain numbers, so that an exported network has fixed slices
            parts = [x[:, :, i * h // n : -(-(i + 1) * h // n)].mean((2, 3)) for i in range(n)]
            out = torch.cat(parts, 1)
        return out if self.p is None else out.pow(1.0 / self.p)


class Network(nn.Module, ABC):
    """Body, pooling and BN neck; `backbone.build` makes one.

    A subclass adds the body's layers under their published names and gives `maps`. So the state dict holds
    the published names plus `neck.*` (and `pool.p` with GeM).

    Attributes:
        config: the settings it was built from.
        feature_dim: width d of the feature.
        neck: batch norm without a learned shift; `neck(feature)` is the post-BN feature (MMT's code: triplet
            loss before it, classifier and distances after it).
        pixel_mean, pixel_std: of the input in 0–1 units; ImageNet's unless loaded weights say otherwise.
        start: `random`, `folded` or `loaded`: where the weights come from, which decides what `calibrate`
            does.
    """

    _shift: Tensor
    _scale: Tensor

    def __init__(self, config: Config, *, feature_dim: int, n_parts: int = 1) -> None:
        super().__init__()
        self.config = config
        self.feature_dim = feature_dim
        self.asymmetric_padding = False
        self.start: Literal["random", "folded", "loaded"] = "random"
        self.pool = Pool(n_parts, gem=config.pooling == "gem")
        self.neck = BatchNorm1d(feature_dim)
        self.neck.bias.requires_grad_(False)
        self.register_buffer("_shift", torch.zeros(3), persistent=False)
        self.register_buffer("_scale", torch.ones(3), persistent=False)
        self.set_pixels(IMAGENET_MEAN, IMAGENET_STD)

    @abstractmethod
    def maps(self, images: Tensor) -> Tensor:
        """The body's last map, (b, c, h', w'), of normalised images (b, 3, h, w)."""

    def forward(self, images: Tensor) -> Tensor:
        """Pre-BN feature (b, d) of normalised images (b, 3, h, w), see `normalise`: the pooled map."""
        return self.pool(self.maps(images))

    def set_pixels(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set the mean and standard deviation of the input, three floats each in 0–1 units."""
        _check_pixels(mean, std)
        self.pixel_mean = (float(mean[0]), float(mean[1]), float(mean[2]))
        self.pixel_std = (float(std[0]), float(std[1]), float(std[2]))
        scale = [1.0 / (255.0 * s) for s in self.pixel_std]
        shift = [-m / s for m, s in zip(self.pixel_mean, self.pixel_std, strict=True)]
        self._scale.copy_(torch.tensor(scale))
        self._shift.copy_(torch.tensor(shift))

    @property
    def pixel_line(self) -> tuple[Tensor, Tensor]:
        """Scale and shift (3,) of a picture's levels, 0 to 255, as `normalise` applies them."""
        return self._scale, self._shift

    def normalise(self, images: Tensor) -> Tensor:
        """Network input from pictures.

        Args:
            images: (b, h, w, 3) uint8 RGB on the network's device.

        Returns:
            (b, 3, h, w) float32, (x/255 − mean)/std, in channels-last layout.

        Raises:
            ValueError: another shape or dtype.
        """
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != torch.uint8:
            raise Refusal(
                f"images are {images.dtype} {tuple(images.shape)}, expected torch.uint8 (b, h, w, 3) RGB"
            )
        b, h, w, _ = images.shape
        # Whole rows at a time, in place: over a last axis of three, the arithmetic would not vectorise.
        x = images.float().reshape(b, h, 3 * w)
        torch.addcmul(self._shift.repeat(w), x, self._scale.repeat(w), out=x)
        # A permuted view of pixels *is* channels-last, without a copy.
        return x.view(b, h, w, 3).permute(0, 3, 1, 2)

    def set_bn_group(self, n_images: int | None) -> None:
        """Normalise contiguous chunks of n_images separately in training, in every norm; None: whole batch.

        METHODS counts samples of the method: 16 tracklets of 4 frames are n_images = 64.
        """
        set_group(self, n_images)

    def arrays(self) -> dict[str, Array]:
        """The state dict as numpy copies, for `store.weights.save`."""
        return {k: np.array(v.detach().cpu().numpy(), order="C") for k, v in self.state_dict().items()}

    def metadata(self) -> dict[str, str]:
        """Header for a weights file: the input these weights expect, as JSON texts by name."""
        return {
            "architecture": self.config.backbone,
            "pixel_mean": json.dumps(self.pixel_mean),
            "pixel_std": json.dumps(self.pixel_std),
            "asymmetric_padding": json.dumps(self.asymmetric_padding),
        }

    def load_weights(self, arrays: Mapping[str, Array | Tensor], *, info: Info | None = None) -> Loaded:
        """Copy published or own weights into the network.

        Args:
            arrays: by the names of torchvision's `resnet50`/`mobilenet_v2`, IBN-Net's `resnet50_ibn_a`,
                torchreid's `osnet_*`, or this network's own state dict; float16 is widened, float64 narrowed.
                Classifier arrays (`classifier.*`, and `fc.*` where the network has none) are ignored;
                `neck.*`, `pool.*` and batch counters may be absent.
            info: normalisation and padding the weights were made with; None keeps the present ones.

        Returns:
            What was loaded.

        Raises:
            ValueError: arrays are missing, unknown, of another shape, no real numbers where the network has
                them, too large for float32, or variances below 0; or `info` does not fit. Nothing is changed
                then.
        """
        own = self.state_dict()
        ignored = tuple(k for k in arrays if k.startswith(("fc.", "classifier.")) and k not in own)
        given = {k: torch.as_tensor(v) for k, v in arrays.items() if k not in ignored}
        optional = {k for k in own if k.startswith("pool.") or k.endswith("num_batches_tracked")}
        neck = any(k.startswith("neck.") for k in given)
        if not neck:
            optional |= {k for k in own if k.startswith("neck.")}
        faults = [
            ("missing", sorted(own.keys() - given.keys() - optional)),
            ("unknown", sorted(given.keys() - own.keys())),
            (
                "of another shape",
                [
                    f"{k} {tuple(v.shape)} for {tuple(own[k].shape)}"
                    for k, v in given.items()
                    # Some runs that were resumed at their very end hold batch counters of shape () as (1,).
                    if k in own and v.shape != own[k].shape and (own[k].ndim or v.numel() != 1)
                ],
            ),
            *_unusable({k: v for k, v in given.items() if k in own}, own),
        ]
        text = "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in faults if names)
        if text:
            raise Refusal(f"weights do not fit {self.config.backbone} ({text}): {_remedy(faults)}")
        if info is not None:
            _check_pixels(info.pixel_mean, info.pixel_std)
            self.set_padding(asymmetric=info.asymmetric_padding)  # changes nothing where it refuses
            self.set_pixels(info.pixel_mean, info.pixel_std)
        with torch.no_grad():
            for name, value in given.items():
                own[name].copy_(value.to(own[name].dtype).reshape(own[name].shape))
        folded = _folded(self._norms())
        self.start = "folded" if folded else "loaded"
        n_expected = sum(not k.endswith("num_batches_tracked") for k in own)
        n_loaded = sum(not k.endswith("num_batches_tracked") for k in given)
        return Loaded(n_loaded, n_expected, neck, folded, ignored)

    def set_padding(self, *, asymmetric: bool) -> None:
        """Pad stride-2 3×3 convolutions on the right and bottom only; MobileNetV2 alone can.

        Raises:
            ValueError: asked of another backbone.
        """
        if asymmetric:
            raise Refusal(f"{self.config.backbone} has no right-and-bottom padding: only mobilenet_v2 does")

    def calibrate(self, batches: Iterable[NDArray[np.uint8] | Tensor], *, neck: bool) -> None:
        """Estimate what enters every norm on real crops, before anything is trained or isolated.

        - Folded weights: each folded norm's running statistics become its input's mean μ and variance v, and
          weight and bias are set so that the function stays the same: weight √(v+ε), bias + μ. Trainable
          after. A norm behind a linear layer that came with statistics of its own keeps them.
        - Random weights: running statistics are set to those of the input (batch statistics upstream), so
          that no channel is dead or dominant at the start.
        - Loaded weights with norms of their own: left as they are.
        - `neck=True`: the neck's statistics become those of the feature (last, with the above in effect), so
          that unit post-BN features are centred and spread. `neck=False` leaves the neck alone.

        Args:
            batches: (b, h, w, 3) uint8 RGB; a few hundred crops in batches of 64 or more do. Held in memory.
            neck: see above.

        Raises:
            ValueError: no batches, a batch of another shape or dtype, or crops that all look the same to a
                norm that is to be measured.

        Source: METHODS 2.1, last point; re-estimating norms on data: Wu, Johnson, "Rethinking Batch in
        BatchNorm", 2021. The variance floor of a hundredth of the norm's mean variance is chosen: it keeps a
        channel that is silent on these crops from being blown up on the next.
        """
        crops = [torch.as_tensor(b) for b in batches if len(b)]
        if not crops:
            raise Refusal("batches is empty: calibration needs at least one crop")
        training, group = self.training, self.neck.group
        self.set_bn_group(None)
        try:
            if self.start != "loaded":
                norms = [n for n in self._norms() if self.start == "random" or _is_plain(n)]
                self.train(self.start == "random")
                for norm, (mean, variance) in zip(norms, self._moments(norms, crops), strict=True):
                    (_settle if self.start == "random" else _unfold)(norm, mean, variance)
                if self.start == "folded":
                    self.start = "loaded"
            if neck:
                self.eval()
                # The neck is not part of forward: its input is the feature, which is what forward returns.
                ((mean, variance),) = self._moments([self], crops, output=True)
                _settle(self.neck, mean, variance)
        finally:
            self.train(training)
            self.set_bn_group(group)

    def _norms(self) -> list[BatchNorm2d | BatchNorm1d]:
        """Those of the body, the neck left out."""
        norms = [m for m in self.modules() if isinstance(m, (BatchNorm2d, BatchNorm1d))]
        return [n for n in norms if n is not self.neck]

    def _moments(
        self, modules: Sequence[nn.Module], crops: Sequence[Tensor], *, output: bool = False
    ) -> list[tuple[Tensor, Tensor]]:
        """Mean and variance (float64, per channel) of what enters (or leaves) each module over all crops."""
        sums: dict[int, list[Any]] = {id(m): [0, 0.0, 0.0] for m in modules}

        def note(module: nn.Module, value: Tensor) -> None:
            wide = value.detach().transpose(0, 1).flatten(1)
            variance, mean = torch.var_mean(wide.double(), 1, correction=0)
            old, m, s = sums[id(module)]
            n = wide.shape[1]
            delta = mean - m  # Chan, Golub, LeVeque 1979: merge two samples' moments
            sums[id(module)] = [
                old + n,
                m + delta * (n / (old + n)),
                s + variance * n + delta**2 * (old * n / (old + n)),
            ]

        def after(module: nn.Module, args: Any, value: Tensor) -> None:
            note(module, value)

        def before(module: nn.Module, args: Any) -> None:
            note(module, args[0])

        hooks = [
            m.register_forward_hook(after) if output else m.register_forward_pre_hook(before) for m in modules
        ]
        try:
            with torch.no_grad():
                for batch in crops:
                    self(self.normalise(batch.to(self._scale.device)))
        finally:
            for hook in hooks:
                hook.remove()
        return [(m, s / n) for n, m, s in sums.values()]


def _check_pixels(mean: Sequence[float], std: Sequence[float]) -> None:
    if len(mean) != 3 or len(std) != 3 or not (np.isfinite([*mean, *std]).all() and min(std) > 0):
        raise Refusal(f"pixel mean {mean} and std {std}: expected three floats each, std above 0")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _remedy(faults: Iterable[tuple[str, Sequence[str]]]) -> str:
    """What to do about arrays that do not fit: choose what they were trained with."""
    kinds = {what: names for what, names in faults if names}
    if kinds == {"unknown": ["pool.p"]}:
        return "set network.pooling = gem, with which they were trained"
    if kinds.keys() == {"missing"} and all(name.startswith("fc.") for name in kinds["missing"]):
        return "set network.feature = pooled, with which they were trained"
    shapes = kinds.get("of another shape", ())
    if kinds.keys() == {"of another shape"} and all(name.startswith("neck.") for name in shapes):
        return "set network.feature as it was when they were trained"
    return "choose the backbone they were made for"


def _unusable(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[tuple[str, list[str]]]:
    """Names of arrays whose values a network cannot work with, by what is wrong with them."""
    real = {k: v for k, v in given.items() if own[k].is_floating_point()}
    other = {k: str(v.dtype).removeprefix("torch.") for k, v in real.items() if not v.is_floating_point()}
    narrow = {k: v.float() for k, v in real.items() if v.is_floating_point()}
    return [
        ("not of real numbers", [f"{k} {dtype}" for k, dtype in other.items()]),
        ("not finite, or too large for float32", [k for k, v in narrow.items() if not v.isfinite().all()]),
        ("below 0", [k for k, v in narrow.items() if k.endswith("running_var") and (v < 0).any()]),
    ]


def _folded(norms: Iterable[BatchNorm2d | BatchNorm1d]) -> bool:
    """Whether every norm of a convolution only adds its bias, and some bias is set.

    Converters fold norms into convolutions and may leave the one behind a linear layer as it is.
    """
    norms = [n for n in norms if isinstance(n, BatchNorm2d)]
    return any(bool((n.bias != 0).any()) for n in norms) and all(_is_plain(n) for n in norms)


def _is_plain(norm: BatchNorm2d | BatchNorm1d) -> bool:
    """Whether a norm only adds its bias: weight 1, mean 0, variance 1."""
    return bool((norm.weight == 1).all() and (norm.running_mean == 0).all() and (norm.running_var == 1).all())


def _settle(norm: BatchNorm2d | BatchNorm1d, mean: Tensor, variance: Tensor) -> None:
    """Running statistics := the input's, the affine part left alone."""
    # Equal crops differ by rounding, about 1e-6 of the mean, where they come in batches of different size.
    if not (variance > 1e-10 * mean.square()).any():
        raise Refusal(
            "calibration crops all look the same to the network: give crops of several people, and look for "
            "blank video"
        )
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance.clamp(min=float(variance.mean()) * 0.01))
    norm.num_batches_tracked.zero_()


def _unfold(norm: BatchNorm2d | BatchNorm1d, mean: Tensor, variance: Tensor) -> None:
    """Running statistics := the input's, the affine part changed so that the function stays."""
    slope = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    offset = norm.bias.double() - slope * norm.running_mean.double()
    with torch.no_grad():
        norm.weight.copy_(slope * (variance + norm.eps).sqrt())
        norm.bias.copy_(offset + slope * mean)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
