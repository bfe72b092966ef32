"""Starting weights: published files, files of the user's own, or openly none; and what is known of them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tracklearn.store import published, weights_files
from tracklearn.store.files import hash_file, write_atomic
from tracklearn.types import Array, Progress, Refusal

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# An array that only this backbone has.
MARKS = {
    "ibn_resnet50_a": "layer1.0.bn1.IN.weight",
    "resnet50": "layer1.0.bn3.weight",
    "mobilenet_v2": "features.18.0.weight",
    "tiny": "layer2.conv2.weight",
}

# OSNet's names are the same in every width: the stem's channels tell it.
_OSNET_MARK = "conv2.0.conv2d.3.conv2.weight"
_OSNET_STEM = "conv1.conv.weight"
_OSNET = {64: "osnet_x1_0", 48: "osnet_x0_75", 32: "osnet_x0_5", 16: "osnet_x0_25"}

# What a run says of labels is told of what starts from it, and not once more of what starts from that.
_OF_THE_START = "the starting weights "

BACKBONES = (*MARKS, *_OSNET.values())


@dataclass(frozen=True)
class WeightsInfo:
    """Where weights come from, and the input they were made for.

    Args:
        name: `none`, `imagenet`, that of a published network, or the file's.
        path: the file; None for `none`.
        sha256: of the file, in hex; empty for `none`.
        backbone: inferred from the arrays, or as asked; None where neither says.
        folded: whether batch norm is folded into the convolutions.
        pixel_mean, pixel_std: of the input in 0–1 units.
        asymmetric_padding: stride-2 3×3 convolutions pad on the right and bottom only.
        labels: what they owe to labels, one line each, for the record of what grows out of them.
        notice: what the user must know of them; "" for nothing.
        metadata: the file's own header (safetensors), text by name.
    """

    name: str
    path: Path | None = None
    sha256: str = ""
    backbone: str | None = None
    folded: bool = False
    pixel_mean: tuple[float, float, float] = IMAGENET_MEAN
    pixel_std: tuple[float, float, float] = IMAGENET_STD
    asymmetric_padding: bool = False
    labels: tuple[str, ...] = ()
    notice: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a manifest or a report, without the header."""
        return {
            "name": self.name,
            "path": None if self.path is None else str(self.path),
            "sha256": self.sha256,
            "backbone": self.backbone,
            "folded": self.folded,
            "pixel_mean": list(self.pixel_mean),
            "pixel_std": list(self.pixel_std),
            "asymmetric_padding": self.asymmetric_padding,
            "labels": list(self.labels),
        }


def load(
    spec: str | os.PathLike[str],
    *,
    backbone: str | None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Array], WeightsInfo]:
    """Arrays by name, and what is known of them.

    Args:
        spec: `imagenet` (the backbone's published file, downloaded once, checked, cached), a name of
            `published.NAMED` likewise, `none` (no arrays: the caller starts from random weights, openly), or
            the path of a .safetensors or .pth file.
        backbone: needed for `imagenet`; for a path it is checked against the arrays.
        cache: folder of downloaded files; by default `cache_folder()`.
        progress: called as progress("weights", bytes so far, bytes in all or None) while downloading.

    Returns:
        (arrays, info). Arrays keep the file's precision; a leading `module.` is taken off their names.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unreadable or unsafe file, weights of another backbone, arrays that are not finite or
            not of real numbers, no published file for this backbone, or no network: the line names the ways
            out.
    """
    text = os.fspath(spec)
    if text == "none":
        return {}, WeightsInfo("none", backbone=backbone)
    file = published.imagenet(backbone) if text == "imagenet" else published.NAMED.get(text)
    if text in published.NAMED:
        _check_backbone(text, backbone, what=text)  # before anything is downloaded
        backbone = text
    if file is None:
        path = Path(os.path.expanduser(text))
    else:
        path = published.fetch(file, cache=cache, progress=progress)
    if not path.is_file():
        known = ", ".join(f"`{name}`" for name in ("imagenet", *published.NAMED))
        raise FileNotFoundError(f"no weights at {path}: expected a file, a run, {known} or `none`")
    arrays, metadata = weights_files.read(path)
    for key, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise Refusal(f"weights {path}: {key} has values that are not finite: the file is damaged")
    found = infer_backbone(arrays)
    if found is None:
        some = ", ".join(list(arrays)[:3]) or "no array at all"
        raise Refusal(
            f"weights {path} fit no known backbone (it holds {some}): expected the array names of "
            f"{', '.join(BACKBONES)}"
        )
    _check_backbone(found, backbone, what=path)
    folded = is_folded(arrays)
    mean, std = _pixels(metadata, path)
    return arrays, WeightsInfo(
        name=path.name if file is None else text,
        path=path,
        sha256=hash_file(path),
        backbone=found,
        folded=folded,
        pixel_mean=mean,
        pixel_std=std,
        asymmetric_padding=metadata.get("asymmetric_padding") == "true"
        or "right and bottom" in metadata.get("padding", ""),
        labels=_labels(metadata) if file is None else file.owes,
        notice="" if file is None else file.notice,
        metadata=metadata,
    )


def _check_backbone(found: str, backbone: str | None, *, what: str | Path) -> None:
    if backbone not in (None, found):
        raise Refusal(f"weights {what} are of {found}, not {backbone}: choose that backbone or other weights")


def owed(labels_used: Sequence[str]) -> tuple[str, ...]:
    """What starting weights owe to labels whose own training owed this to them.

    >>> owed(["tracklets were made with labels", "the starting weights were trained with labels on X"])[0]
    'the starting weights are of a run: tracklets were made with labels'
    """
    return tuple(
        line if line.startswith(_OF_THE_START) else f"{_OF_THE_START}are of a run: {line}"
        for line in labels_used
    )


def _labels(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """What the header of a run's weights says of labels, () where it says nothing."""
    text = metadata.get("labels_used")
    if text is None:
        return ()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    lines = found if isinstance(found, list) else [text]
    return owed([str(line)[:200] for line in lines[:20]])


def is_name(spec: str) -> bool:
    """Whether `spec` names weights by itself, wherever a file of that name may lie."""
    return spec in ("none", "imagenet", *published.NAMED)


def infer_backbone(arrays: Mapping[str, Any]) -> str | None:
    """Name of the backbone whose arrays these are, or None.

    >>> infer_backbone({"layer1.0.bn1.IN.weight": 0, "layer1.0.bn3.weight": 0})
    'ibn_resnet50_a'
    """
    if "layer1.0.bn3.weight" in arrays and "layer3.6.conv1.weight" in arrays:
        return None  # ResNet-101 and deeper
    if _OSNET_MARK in arrays and _OSNET_STEM in arrays:
        if "conv2.0.IN.weight" in arrays:
            return None  # OSNet-IBN
        return _OSNET.get(arrays[_OSNET_STEM].shape[0] if arrays[_OSNET_STEM].ndim else 0)
    return next((name for name, key in MARKS.items() if key in arrays), None)


def is_folded(arrays: Mapping[str, Array]) -> bool:
    """Whether every batch norm merely adds its bias (weight 1, mean 0, variance 1) and some bias is set.

    The neck and a norm behind a linear layer (OSNet's `fc`) do not count: folding is into convolutions.
    """
    norms = [k.removesuffix("running_mean") for k in arrays if k.endswith("running_mean")]
    norms = [n for n in norms if not n.startswith(("neck.", "fc."))]
    plain = all(
        (arrays[n + "running_mean"] == 0).all()
        and n + "running_var" in arrays
        and (arrays[n + "running_var"] == 1).all()
        and (n + "weight" not in arrays or (arrays[n + "weight"] == 1).all())
        for n in norms
    )
    return bool(norms) and plain and any(arrays[n + "bias"].any() for n in norms if n + "bias" in arrays)


def save(path: str | os.PathLike[str], arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> Path:
    """Write arrays as one safetensors file that is either whole or absent.

    Args:
        path: the file; replaced if it exists. Its folder must exist.
        arrays: by name, any layout.
        metadata: text by name, kept in the header. What `load` reads back is in `Network.metadata()`.

    Returns:
        The path.
    """
    write_atomic(Path(path), encode(arrays, metadata))
    return Path(path)


def encode(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a safetensors file as `save` writes it: equal weights, equal bytes."""
    from safetensors.numpy import save as pack

    # safetensors writes an array's memory as it lies: anything but C order would come back scrambled.
    whole = {name: np.require(array, requirements=["C"]) for name, array in arrays.items()}
    # One key only: the library writes several in an order of chance.
    return pack(whole, metadata={"meta": json.dumps(dict(metadata), sort_keys=True)})


def _pixels(
    metadata: Mapping[str, str], path: Path
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Pixel mean and standard deviation that the header names; ImageNet's where it says nothing."""
    if "pixel_mean" in metadata and "pixel_std" in metadata:
        try:
            mean, std = (weights_files.three_floats(metadata[k]) for k in ("pixel_mean", "pixel_std"))
        except ValueError as error:
            raise Refusal(f"weights {path}: pixel_mean and pixel_std in the header: {error}") from error
        if min(std) <= 0:
            raise Refusal(f"weights {path}: pixel_std in the header is {std}, expected three above 0")
        return mean, std
    said = metadata.get("preprocess", "")
    if not said:
        return IMAGENET_MEAN, IMAGENET_STD
    if "x/127.5-1" in said.replace(" ", "") and "BGR" not in said:
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    raise Refusal(
        f"weights {path} were made with an input we do not know (preprocess: {said}): "
        "write pixel_mean and pixel_std (0–1 units, RGB) into its header"
    )
