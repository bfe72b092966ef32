"""Which device a command computes on."""

from __future__ import annotations

from tracklearn.types import Refusal


def pick_device(name: str | None, *, elsewhere: bool = False) -> str:
    """`name`, or the best device of this machine for None and "auto".

    Args:
        name: cpu, cuda, cuda:N, auto or None.
        elsewhere: workers on other machines compute, and see themselves whether they have it.

    Raises:
        ValueError: no such device, or torch does not see it.
    """
    import torch

    if name in (None, "auto"):
        return "cuda" if torch.cuda.is_available() else "cpu"
    text = str(name)
    kind, _, number = text.partition(":")
    if kind not in ("cpu", "cuda") or (number and not (kind == "cuda" and number.isdecimal())):
        raise Refusal(f"--device {text!r} is unknown: expected auto, cpu, cuda or cuda:N")
    if elsewhere:
        return text
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" and int(number or 0) >= n_gpus:
        raise Refusal(
            f"--device {text}: torch sees {n_gpus} CUDA devices here; use --device cpu, or install torch for "
            "your GPU"
        )
    return text
