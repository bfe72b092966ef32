"""Trained detectors that lie in the local cache of the Hugging Face hub, found by their names on the disk.

Only folders are looked at: no library is imported and no network asked.
"""

from __future__ import annotations

import os
from pathlib import Path

from tracklearn import runtimes

# Under Apache-2.0 by their cards, looked up in November 2026, with COCO's class "person"; first choice first.
# Small ones lead: the next larger size gains a few points of AP and takes two to three times as long.
PERMISSIVE = (
    *(f"ustc-community/dfine-{size}-obj2coco" for size in ("small", "medium")),
    *(f"ustc-community/dfine-{size}-coco" for size in ("small", "medium")),
    *(f"Roboflow/rf-detr-{size}" for size in ("small", "nano", "medium")),
    *(f"PekingU/rtdetr_v2_{size}" for size in ("r18vd", "r34vd")),
    *(f"PekingU/rtdetr_{size}" for size in ("r18vd_coco_o365", "r18vd", "r34vd")),
    "Roboflow/rf-detr-large",
    *(f"ustc-community/dfine-{size}-obj2coco" for size in ("large", "xlarge")),
    *(f"ustc-community/dfine-{size}-coco" for size in ("large", "xlarge", "nano")),
    *(f"PekingU/rtdetr_v2_{size}" for size in ("r50vd", "r101vd")),
    *(f"PekingU/rtdetr_{size}" for size in ("r50vd_coco_o365", "r101vd_coco_o365", "r50vd", "r101vd")),
    *(f"facebook/detr-resnet-{size}" for size in ("50", "101")),
)
# What a detector is made of. An interrupted download lacks one, or has a link that leads nowhere.
_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")


def cache_folder() -> Path:
    """Where the hub's library keeps what it has fetched, by the same variables."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if given := os.environ.get(name):
            return Path(os.path.expandvars(given)).expanduser()
    above = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(above, "huggingface")
    return Path(os.path.expandvars(home)).expanduser() / "hub"


def snapshot(name: str) -> Path | None:
    """The folder of the cache that holds the main revision of repository `name` whole; None without one.

    >>> snapshot("nobody/no-such-detector")
    """
    folder = cache_folder() / "--".join(["models", *name.split("/")])
    try:
        revision = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError, ValueError):  # ValueError: no name that a file could have
        return None
    found = folder / "snapshots" / revision
    return found if revision and all((found / file).is_file() for file in _FILES) else None


def choose() -> tuple[str, str]:
    """The detector that "auto" stands for on this machine, and why, in words that go behind its name.

    The first of `PERMISSIVE` that is cached whole, where the library that runs it is installed; otherwise
    `motion`.
    """
    name = next((name for name in PERMISSIVE if snapshot(name)), None)
    if name is None:
        return "motion", "no trained detector of those that are free for any use lies in the hub's cache"
    if not runtimes.installed("transformers"):
        extra = runtimes.RUNTIMES["transformers"].install
        return "motion", f"{name} is cached, but what runs it is not installed: pip install {extra}"
    return f"hub:{name}", "cached on this machine; --detector motion goes without"
