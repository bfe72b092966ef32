"""Training augmentation on whole batches, on the training device, from an explicit generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

Share = Annotated[float, Field(ge=0, le=1)]

# Written as they are into the *normalised* image, as MMT's code does. They are ImageNet's mean in 0–1 units;
# the mean colour itself would be 0 there.
_ERASED = (0.485, 0.456, 0.406)

# Random shapes tried for an erased rectangle before the image is left whole.
_ERASE_ATTEMPTS = 32


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
                raise ValueError(f"{name} is ({low}, {high}), expected 0 < low <= high <= {most}")
        return self


def augment(
    images: Tensor,
    config: Augment,
    *,
    normalise: Callable[[Tensor], Tensor],
    generator: torch.Generator,
) -> Tensor:
    """Augmented, normalised images (b, 3, h, w) float, each with its own random numbers.

    Order: colour jitter, flip, pad and crop, normalise, erase. As in MMT's code, erasing writes the numbers
    (0.485, 0.456, 0.406), ImageNet's mean in 0–1 units, into the normalised image, whatever `normalise` is.
    The numbers are drawn on the CPU whatever the device, a few for each image, so that every device sees
    the same augmentation; each kind is drawn only where it is on.

    Args:
        images: (b, h, w, 3) uint8.
        config: what to do.
        normalise: the network's own, uint8 (b, h, w, 3) to float (b, 3, h, w).
        generator: on the CPU; advanced by the call.

    Source: METHODS 2.1 [code MMT].
    """
    if config.colour:
        images = _jitter(images, config.colour, generator)
    if config.flip or config.pad:
        images = _shift(images, config.flip, config.pad, generator)
    out = normalise(images)
    return _erase(out, config, generator) if config.erase else out


def _uniform(b: int, n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """(b, n) float32 uniform numbers on the CPU."""
    return torch.rand(b, n, generator=generator) * (high - low) + low


def _jitter(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    b = len(images)
    drawn = _uniform(b, 6, -strength, strength, generator).exp().to(images.device)
    # Brightness is a gain that the three channels share.
    gain = (drawn[:, :3] * drawn[:, 3:4])[:, None, None, :]
    contrast, gamma = drawn[:, 4, None, None, None], drawn[:, 5, None, None, None]
    x = (images.float() / 255 * gain).clamp_(0, 1).pow_(gamma)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean).mul_(contrast).add_(mean)
    return x.mul_(255).round_().clamp_(0, 255).to(torch.uint8)


def _shift(images: Tensor, flip: float, pad: int, generator: torch.Generator) -> Tensor:
    """Flip, then pad with black and crop at a random place: one lookup of rows, one of columns."""
    b, h, w, _ = images.shape
    device = images.device
    flipped = (torch.rand(b, 1, generator=generator) < flip).to(device)
    offset = torch.randint(-pad, pad + 1, (2, b, 1), generator=generator).to(device)
    y = torch.arange(h, device=device) + offset[0]  # (b, h) source row, may lie outside
    x = torch.arange(w, device=device) + offset[1]
    inside = ((y >= 0) & (y < h))[:, :, None] & ((x >= 0) & (x < w))[:, None, :]
    x = torch.where(flipped, w - 1 - x, x)
    rows = images[torch.arange(b, device=device)[:, None], y.clamp(0, h - 1)]
    out = rows.gather(2, x.clamp(0, w - 1)[:, None, :, None].expand(b, h, w, 3))
    return out.mul_(inside[..., None])


def _erase(images: Tensor, config: Augment, generator: torch.Generator) -> Tensor:
    """Fill one rectangle in some images; its shape is redrawn until it is smaller than the image."""
    b, _, h, w = images.shape
    chosen = torch.rand(b, generator=generator) < config.erase
    area = _uniform(b, _ERASE_ATTEMPTS, *config.erase_area, generator) * (h * w)
    aspect = _uniform(b, _ERASE_ATTEMPTS, *config.erase_aspect, generator)
    high, wide = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (high < h) & (wide < w)
    first = fits.float().argmax(1, keepdim=True)
    high, wide = high.gather(1, first), wide.gather(1, first)  # (b, 1)
    chosen = chosen[:, None] & fits.any(1, keepdim=True)
    place = torch.rand(2, b, 1, generator=generator)
    top = (place[0] * (h - high + 1)).floor()
    left = (place[1] * (w - wide + 1)).floor()
    y, x = torch.arange(h), torch.arange(w)
    rows = (y >= top) & (y < top + high) & chosen  # (b, h)
    columns = (x >= left) & (x < left + wide)  # (b, w)
    mask = rows.to(images.device)[:, None, :, None] & columns.to(images.device)[:, None, None, :]
    return torch.where(mask, images.new_tensor(_ERASED)[:, None, None], images)
