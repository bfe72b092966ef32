"""Extraction on a CPU: pictures a second of the network, its forms, and onnxruntime alone.

    python -m benchmarks.extraction [--networks N ...] [--size HxW] [--pictures N] [--repeats R] [--out DIR]

In one run and in turns, one thread each, on the same pictures:

- the plain network over a batch of 256, as it stands, in evaluation;
- `learn.folded.Folded` and `learn.session.Session` over the same batch: the forms in which extraction
  computes it by torch, and by onnxruntime;
- `learn.embed.extract` itself, as an epoch of training calls it for so many pictures: making the form,
  reading, normalising, the neck, unit length;
- onnxruntime on the exported network, in float32, over all pictures, normalised before, 4, 8, 16 and 64 at a
  time; the best counts.

Prints a table of pictures a CPU-second and writes extraction.json to DIR (benchmarks/results;
with --quick only where --out is given).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import measure
from tracklearn import runtimes
from tracklearn.learn import backbone, embed, export, folded, session
from tracklearn.learn.network import IMAGENET_MEAN, IMAGENET_STD, NAMES
from tracklearn.types import ArrayCrops

NETWORKS = ("osnet_x0_25", "mobilenet_v2", "tiny")
ONNX_BATCHES = (4, 8, 16, 64)
_BATCH = 256
WANTED = 0.9  # of onnxruntime's pictures a second


def run(name: Any, size: tuple[int, int], pictures: int, repeats: int) -> dict[str, Any]:
    """Pictures a CPU-second of one network of random weights by kind, and extraction / onnxruntime."""
    height, width = size
    network = backbone.build(backbone.Config(backbone=name, height=height, width=width), seed=0).eval()
    images = np.random.default_rng(0).integers(0, 256, (pictures, height, width, 3)).astype(np.uint8)
    pixels = network.normalise(torch.from_numpy(images))
    batch, normal = torch.from_numpy(images[:_BATCH]), pixels[:_BATCH]
    fold, form = folded.Folded(network), session.Session(network)
    with torch.inference_mode():
        plain = network(normal)
        errors = [
            float((got - plain).norm(dim=1).max() / plain.norm(dim=1).max())
            for got in (fold(normal), form(batch))
        ]

    def torch_of(function: Callable[[torch.Tensor], Any], given: torch.Tensor) -> Callable[[], None]:
        def go() -> None:
            with torch.inference_mode():
                function(given)

        return go

    by_session = session.chosen("auto", pictures, torch.device("cpu"))
    kinds: dict[str, Callable[[], Any]] = {
        "network": torch_of(network, normal),
        "folded": torch_of(fold, normal),
        "session": torch_of(form, batch),
        "extract": lambda: embed.extract(
            network, ArrayCrops(images), range(pictures), device="cpu", by_session=by_session
        ),
    }
    runtime = runtimes.load("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    module = export.whole(network, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    data = export.onnx_bytes(module, (3, height, width), names=("images", "features"))
    alone = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    given = pixels.contiguous().numpy()
    for n in ONNX_BATCHES:

        def onnx(n: int = n) -> None:
            for first in range(0, pictures, n):
                alone.run(None, {"images": given[first : first + n]})

        kinds[f"onnxruntime, {n}"] = onnx
    timed = measure.alternate(kinds, repeats)
    n_of = dict.fromkeys(("network", "folded", "session"), len(batch))
    speed = {kind: n_of.get(kind, pictures) / timing.median("cpu") for kind, timing in timed.items()}
    best = max(speed[f"onnxruntime, {n}"] for n in ONNX_BATCHES)
    return {"speed": speed, "error": max(errors), "of_onnxruntime": speed["extract"] / best}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NAMES, default=NETWORKS)
    parser.add_argument("--size", default="256x128", help="of the crops, HEIGHTxWIDTH (256x128)")
    parser.add_argument("--pictures", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a few pictures, once")
    parser.add_argument("--out", type=Path, help="folder for extraction.json")
    options = parser.parse_args(arguments)
    height, width = (int(part) for part in options.size.split("x"))
    pictures, repeats = (8, 1) if options.quick else (options.pictures, options.repeats)
    torch.set_num_threads(1)
    found = {name: run(name, (height, width), pictures, repeats) for name in options.networks}
    kinds = list(next(iter(found.values()))["speed"])
    rows = [[name, *(r["speed"][kind] for kind in kinds), r["of_onnxruntime"]] for name, r in found.items()]
    print(measure.table(["pictures a CPU-second", *kinds, "extract / onnxruntime"], rows))
    bars = [
        measure.Bar(f"{name}: extraction / onnxruntime", WANTED, r["of_onnxruntime"], at_least=True)
        for name, r in found.items()
        if name.startswith("osnet")
    ]
    print(measure.bars_table(bars))
    settings = {"size": options.size, "pictures": pictures, "repeats": repeats, "threads": 1}
    result = {"networks": found, "bars": bars}
    if options.out or not options.quick:
        measure.save("extraction", result, settings=settings, folder=options.out or measure.RESULTS)
    return result


if __name__ == "__main__":
    sys.exit(any(bar.met is False for bar in main()["bars"]))
