"""Training augmentation on whole batches, on the training device, from an explicit generator."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from tracklearn.types import Refusal

Share = Annotated[float, Field(ge=0, le=1)]

# Written as they are into the *normalised* image, as MMT's code does. They are ImageNet's mean in 0–1 units;
# the mean colour itself would be 0 there.
_ERASED = (0.485, 0.456, 0.406)

# Random shapes tried for an erased rectangle before the image is left whole.
_ERASE_ATTEMPTS = 32

# Images that are worth a thread on a CPU.
_SPAN = 16


class Augment(BaseModel):
    """What is done to training crops; the defaults are those of MMT's code (METHODS 2.1)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip: Share = Field(default=0.5, description="Probability of a horizontal flip [code MMT].")
    pad: int = Field(
        default=10,
        ge=0,
        description="Pixels of black added on each side before a random crop of the old size [code MMT].",
    )
    erase: Share = Field(default=0.5, description="Probability of erasing one rectangle [code MMT].")
    erase_area: tuple[float, float] = Field(
        default=(0.02, 0.4), description="Range of the rectangle's share of the image [code MMT]."
    )
    erase_aspect: tuple[float, float] = Field(
        default=(0.3, 3.33), description="Range of the rectangle's height / width [code MMT]."
    )
    colour: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Strength s of colour jitter, 0 = off [chosen]: every channel's gain, the brightness, "
        "the contrast and the gamma of an image are each multiplied by e^u, u uniform in [−s, s]. "
        "For cameras that differ in colour cast.",
    )

    @model_validator(mode="after")
    def _ranges(self) -> Augment:
        for name, (low, high), most in (
            ("erase_area", self.erase_area, 1.0),
            ("erase_aspect", self.erase_aspect, float("inf")),
        ):
            if not 0 < low <= high <= most:
                raise Refusal(f"{name} is ({low}, {high}), expected 0 < low <= high <= {most}")
        return self


class Drawn(NamedTuple):
    """The random numbers of b images, on the CPU; None where that part of the augmentation is off.

    Args:
        jitter: (b, 6) factors: of red, green, blue, brightness, contrast, and the gamma.
        flip: (b, 1) bool.
        offset: (b, 2) int64, rows and columns that the crop is moved by.
        erase: (b, 4) int64, top, left, height and width of the erased rectangle; height 0 = none.
    """

    jitter: Tensor | None
    flip: Tensor | None
    offset: Tensor | None
    erase: Tensor | None

    def part(self, rows: slice) -> Drawn:
        """Those of some of the images."""
        return Drawn(*(None if value is None else value[rows] for value in self))


def draw(b: int, height: int, width: int, config: Augment, generator: torch.Generator) -> Drawn:
    """Random numbers for b images of one size; each kind is drawn only where it is on.

    They are drawn on the CPU whatever the device, a few for each image, so that every device, and every
    process of several that share a batch, sees the same augmentation.

    Args:
        b: number of images.
        height, width: of the images, pixels.
        config: what to do.
        generator: on the CPU; advanced by the call.
    """
    jitter = flip = offset = erase = None
    if config.colour:
        jitter = _uniform(b, 6, -config.colour, config.colour, generator).exp()
    if config.flip or config.pad:
        flip = torch.rand(b, 1, generator=generator) < config.flip
        offset = torch.randint(-config.pad, config.pad + 1, (2, b), generator=generator).T
    if config.erase:
        erase = _rectangles(b, height, width, config, generator)
    return Drawn(jitter, flip, offset, erase)


def apply(images: Tensor, drawn: Drawn, *, normalise: Callable[[Tensor], Tensor]) -> Tensor:
    """Augmented, normalised images (b, 3, h, w) float, each with its own random numbers.

    Order: colour jitter, flip, pad and crop, normalise, erase. As in MMT's code, erasing writes the numbers
    (0.485, 0.456, 0.406), ImageNet's mean in 0–1 units, into the normalised image, whatever `normalise` is.

    Args:
        images: (b, h, w, 3) uint8.
        drawn: of these images, from `draw`.
        normalise: the network's own, uint8 (b, h, w, 3) to float (b, 3, h, w), which may be written to.

    Source: METHODS 2.1 [code MMT].
    """
    # On a CPU the touched pixels are the cost, elsewhere the calls and every wait for a transfer.
    if images.device.type == "cpu":
        return _in_one_pass(images, drawn, normalise)
    if drawn.jitter is not None:
        images = _jitter(images, drawn.jitter.to(images.device, non_blocking=True))
    if drawn.flip is not None and drawn.offset is not None:
        images = _shift(images, drawn.flip, drawn.offset)
    out = normalise(images)
    return out if drawn.erase is None else _erase(out, drawn.erase)


def _uniform(b: int, n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """(b, n) float32 uniform numbers on the CPU."""
    return torch.rand(b, n, generator=generator) * (high - low) + low


def _in_one_pass(images: Tensor, drawn: Drawn, normalise: Callable[[Tensor], Tensor]) -> Tensor:
    """What `apply` does, each pixel read and written once.

    Jitter and normalisation of a pixel depend on its level, its channel and, by the contrast, on its image:
    they are done to the 256 levels, and pixels are looked up.
    """
    from tracklearn.core import threads
    from tracklearn.core.kernels.pictures import count_levels, paint

    b = len(images)
    pixels = images.contiguous().numpy()
    levels = torch.arange(256, dtype=torch.uint8)[:, None].expand(1, 1, 256, 3)
    table = normalise(levels)  # (1, 3, 1, 256)
    blank = table[0, :, 0, 0].contiguous()
    if drawn.jitter is not None:
        count = torch.zeros(b, 1, 256, 3, dtype=torch.int32)
        threads.each_span(partial(count_levels, pixels, count[:, 0].numpy()), b, least=_SPAN)
        table = normalise(_jitter(levels, drawn.jitter, count))  # (b, 3, 1, 256)
    table = table.permute(0, 2, 3, 1)[:, 0].contiguous()
    flip = torch.zeros(b, dtype=torch.bool) if drawn.flip is None else drawn.flip[:, 0]
    offset = torch.zeros(b, 2, dtype=torch.int64) if drawn.offset is None else drawn.offset.contiguous()
    erase = torch.zeros(b, 4, dtype=torch.int64) if drawn.erase is None else drawn.erase
    out = torch.empty(images.shape, dtype=table.dtype)
    given = (table, blank, flip, offset, erase, torch.tensor(_ERASED), out)
    threads.each_span(partial(paint, pixels, *(value.numpy() for value in given)), b, least=_SPAN)
    # A permuted view of pixels *is* channels-last, without a copy.
    return out.permute(0, 3, 1, 2)


def _jitter(images: Tensor, factor: Tensor, count: Tensor | None = None) -> Tensor:
    """Jittered images (b, h, w, 3) uint8; `count`, of that shape, is how often each pixel stands there."""
    # Brightness is a gain that the three channels share.
    gain = (factor[:, :3] * factor[:, 3:4])[:, None, None, :]
    contrast, gamma = factor[:, 4, None, None, None], factor[:, 5, None, None, None]
    x = (images.float() / 255 * gain).clamp_(0, 1).pow_(gamma)
    if count is None:
        mean = x.mean((1, 2, 3), keepdim=True)
    else:
        total = (x.double() * count).sum((1, 2, 3), keepdim=True)
        mean = (total / count.sum((1, 2, 3), keepdim=True)).float()
    x = (x - mean).mul_(contrast).add_(mean)
    return x.mul_(255).round_().clamp_(0, 255).to(torch.uint8)


def _shift(images: Tensor, flip: Tensor, offset: Tensor) -> Tensor:
    """Flip, then pad with black and crop at a random place: one lookup of rows, one of columns."""
    b, h, w, _ = images.shape
    device = images.device
    flip, offset = flip.to(device, non_blocking=True), offset.to(device, non_blocking=True)
    y = torch.arange(h, device=device) + offset[:, :1]  # (b, h) source row, may lie outside
    x = torch.arange(w, device=device) + offset[:, 1:]
    inside = ((y >= 0) & (y < h))[:, :, None] & ((x >= 0) & (x < w))[:, None, :]
    x = torch.where(flip, w - 1 - x, x)
    rows = images[torch.arange(b, device=device)[:, None], y.clamp(0, h - 1)]
    out = rows.gather(2, x.clamp(0, w - 1)[:, None, :, None].expand(b, h, w, 3))
    return out.mul_(inside[..., None])


def _rectangles(b: int, h: int, w: int, config: Augment, generator: torch.Generator) -> Tensor:
    """(b, 4) rectangles to erase; a shape is redrawn until it is smaller than the image."""
    from tracklearn.core.kernels.pictures import fit_rectangles

    drawn = torch.rand(b, 3 + 2 * _ERASE_ATTEMPTS, generator=generator)
    out = torch.zeros(b, 4, dtype=torch.int64)
    area, aspect = (np.array([low, high - low]) for low, high in (config.erase_area, config.erase_aspect))
    fit_rectangles(drawn.numpy(), h, w, np.float32(config.erase), area, aspect, out.numpy())
    return out


def _erase(images: Tensor, rectangle: Tensor) -> Tensor:
    """Fill one rectangle in some images (those whose rectangle has a height)."""
    h, w = images.shape[2:]
    device = images.device
    top, left, high, wide = rectangle.to(device, non_blocking=True).split(1, 1)  # (b, 1) each
    y, x = torch.arange(h, device=device), torch.arange(w, device=device)
    rows = (y >= top) & (y < top + high)  # (b, h)
    columns = (x >= left) & (x < left + wide)  # (b, w)
    mask = rows[:, None, :, None] & columns[:, None, None, :]
    erased = torch.tensor(_ERASED, dtype=images.dtype).to(device, non_blocking=True)
    return torch.where(mask, erased[:, None, None], images)
