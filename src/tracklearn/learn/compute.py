"""How training is computed, whatever is learned: arithmetic, states, memory."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ByteSize, ConfigDict, Field

from tracklearn.learn import session

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Config(BaseModel):
    """How training is computed, whatever the method; none of it changes what is learned on purpose."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Literal["float32", "bfloat16", "auto"] = Field(
        default="float32",
        description="Arithmetic of forward passes; bfloat16 by autocast, faster on GPUs and on CPUs that "
        "multiply in it, slower on others; auto: bfloat16 where the device multiplies in it [chosen].",
    )
    features: Literal["auto", "torch", "onnxruntime"] = Field(
        default="auto",
        description="What computes the features of an epoch on a CPU: torch, or onnxruntime (extra onnx), "
        "in half to two thirds of the time, with another rounding and always in float32; auto: onnxruntime "
        "where it works and an epoch has 2,000 crops or more [chosen].",
    )
    compile: bool = Field(
        default=False, description="Compile the networks with torch.compile, which takes minutes [chosen]."
    )
    checkpoint_every: Annotated[int, Field(ge=1)] = Field(
        default=200, description="Batches between states to go on from; each epoch also ends in one [chosen]."
    )
    batches_ahead: Annotated[int, Field(ge=1)] = Field(
        default=2, description="Batches of pictures decoded ahead of their use [chosen]."
    )
    cache_bytes: ByteSize | Literal["auto"] = Field(
        default="auto",
        description="Most memory for the decoded crops of one set in one process, which spares decoding them "
        "again: bytes, or as in 4GB; auto is 1 GiB, and more up to a quarter of the memory while half of it "
        "stays free, where the system tells [chosen].",
    )


def settled(config: Config, device: torch.device | str) -> Config:
    """The settings with the arithmetic that `auto` stands for on a device.

    Raises:
        ValueError: what is to compute features cannot.
    """
    device = torch.device(device)
    if config.precision == "auto":
        chosen = "bfloat16" if multiplies_bfloat16(device) else "float32"
        config = config.model_copy(update={"precision": chosen})
    if config.features == "onnxruntime":
        session.require(device)
    return config


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for products in bfloat16; False where torch cannot tell."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    # torch 2.11 has no public word of it.
    can: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))
