"""A feature extractor in an .onnx file, run by onnxruntime: any trainer's network can be judged alike."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tracklearn.core import threads
from tracklearn.store.detect import first_contact, model_files
from tracklearn.types import Array, Crops, Refusal

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
INTERPOLATIONS = ("bilinear", "bicubic")
_SIZE = (256, 128)
_PART = 8  # crops a thread reads, normalises and runs at a time

Pixels = Sequence[float]


class ExportedModel:
    """The network of an .onnx file: crops in, unit features out.

    Its input is (batch, 3, height, width) RGB, float32 or float16, of any or a fixed batch size; 256×128
    where height and width are free. Pixels of 0-1 are shifted and scaled by `mean` and `std`. The feature is
    the first output, flattened. It runs on the CPU, one batch per thread.

    Args:
        path: the file.
        mean: three numbers of 0-1, by default those of the file's metadata (`pixel_mean` or `mean`: three
            numbers as text), else ImageNet's.
        std: likewise (`pixel_std` or `std`).
        interpolation: how small pictures were enlarged for its training, "bilinear" or "bicubic"; by default
            what the metadata say under that name, else bilinear, the usual way of re-ID toolboxes.

    Attributes:
        height, width: size of the crops, pixels.
        mean, std, interpolation: as used.
        pixels_from: where mean and std come from, "options", "metadata" or "ImageNet".
        distance: of unit features, where another person begins for one crop against a track, as an export of
            `tracklearn export` notes it; None in other files.

    Raises:
        FileNotFoundError: no such file.
        ValueError: onnxruntime is not installed, the file is none it can load and run in bounds (see
            `store/detect/first_contact.py`), the input is of another form, mean and std are not three numbers
            each of 0-1, std above 0, or the interpolation is unknown.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        mean: Pixels | None = None,
        std: Pixels | None = None,
        interpolation: str | None = None,
    ) -> None:
        self.path = Path(path)
        first_contact.try_out("onnxruntime", self.path)
        # Threads take crops, not parts of a layer: a re-ID network is too small to be shared out.
        model = model_files.open_onnx(self.path, n_threads=1)
        if model.dtype not in (np.float32, np.float16):
            raise Refusal(f"{self.path}: the input is {model.kind}, expected float or float16")
        shape, self._run, self._dtype = list(model.shape), model.run, model.dtype
        if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3) or 0 in shape:
            raise Refusal(f"{self.path}: the input has shape {shape}, expected (batch, 3, height, width)")
        self._batch = shape[0] if isinstance(shape[0], int) else None
        size = (got if isinstance(got, int) else usual for got, usual in zip(shape[2:], _SIZE, strict=True))
        self.height, self.width = size
        noted = model.notes
        self.mean, mean_from = self._pixels(mean, ("pixel_mean", "mean"), noted, IMAGENET[0])
        self.std, std_from = self._pixels(std, ("pixel_std", "std"), noted, IMAGENET[1])
        self.pixels_from = mean_from if mean_from == std_from else f"{mean_from} and {std_from}"
        if min(self.std) <= 0:
            raise Refusal(f"{self.path}: std is {self.std}, expected three numbers above 0")
        self.interpolation: str = interpolation or noted.get("interpolation", INTERPOLATIONS[0])
        if self.interpolation not in INTERPOLATIONS:
            known = " or ".join(INTERPOLATIONS)
            raise Refusal(f"{self.path}: interpolation is {self.interpolation!r}, expected {known}")
        said = _numbers(noted.get("threshold distance", ""))
        self.distance = said[0] if len(said) == 1 and 0 < said[0] < 2 else None

    def extract(self, crops: Crops, rows: Array) -> Array:
        """(n, d) float32 unit feature of every row of `crops`.

        Raises:
            ValueError: the model refuses its input, gives no feature per crop, or features that are not
                finite or all zero.
        """
        parts = [rows[low : low + _PART] for low in range(0, len(rows), _PART)]
        with ThreadPoolExecutor(threads.n_threads(), thread_name_prefix="onnx") as pool:
            found = list(pool.map(lambda part: self._features(crops.read(part)), parts))
        feature = np.concatenate(found) if found else np.zeros((0, 1), np.float32)
        length = np.linalg.norm(feature, axis=1, keepdims=True)
        if not np.isfinite(length).all() or not length.all():
            raise Refusal(f"{self.path}: features are not finite or all zero; look at --mean and --std")
        return feature / length

    def _features(self, images: Array) -> Array:
        """(b, d) outputs of crops (b, h, w, 3) uint8."""
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        pixels = (images.astype(np.float32) / 255 - mean) / std
        batch = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), self._dtype)
        step = self._batch or len(batch)
        # A fixed batch is filled up with copies of the first crops.
        padded = np.resize(batch, (-(-len(batch) // step) * step, *batch.shape[1:]))
        found = []
        for low in range(0, len(padded), step):
            out = np.asarray(self._run(padded[low : low + step])[0])
            if out.ndim < 2 or len(out) != step:
                raise Refusal(f"{self.path}: the output has shape {out.shape}, expected ({step}, width)")
            found.append(out.reshape(step, -1).astype(np.float32))
        return np.concatenate(found)[: len(batch)]

    def _pixels(
        self, given: Pixels | None, keys: Sequence[str], noted: Mapping[str, str], usual: Pixels
    ) -> tuple[tuple[float, ...], str]:
        key = next((key for key in keys if key in noted), None)
        if given is not None:
            values, origin = [float(value) for value in given], "options"
        elif key is not None:
            values, origin = _numbers(noted[key]), "metadata"
        else:
            values, origin = list(usual), "ImageNet"
        if len(values) != 3 or not all(0 <= value <= 1 for value in values):
            raise Refusal(f"{self.path}: {keys[-1]} is {values} ({origin}), expected three numbers of 0-1")
        return tuple(values), origin


def _numbers(text: str) -> list[float]:
    """The numbers in a metadata text, none where one is damaged."""
    try:
        return [float(number) for number in re.findall(r"[^\s,;\[\]()]+", text)]
    except ValueError:
        return []
