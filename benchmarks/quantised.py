"""8-bit ONNX files beside float32 by torch: speed, likeness and scores of one and the same file.

    python -m benchmarks.quantised --weights FILE|RUN … (--market DIR | --crops SET | both) [--size HxW]
        [--images N] [--subset N] [--seed N] [--threads N] [--repeats R] [--out DIR]

Each network, a run's or that of weights as they come, is written by the code of `tracklearn export`, once in
float32 and once in 8 bits, its ranges from 128 crops that are chosen as for a run: of Market-1501's training
part, or of SET. With these two files, in one process:

- images a CPU-second, in turns, on N other crops: torch as the product extracts (`learn.embed.extract`, from
  crops to unit features), its folded form on prepared pictures, and onnxruntime on either file over 4, 8, 16
  and 64 prepared pictures at a time, of which the quickest counts. The bar is for 8 bits / extract, the
  median of the turns' ratios in CPU time; beside it by wall time, and to the folded form, which
  has the same to do;
- cosine of a crop's features by torch and by a file, on the same N crops: mean and least;
- mAP and rank-1 on Market-1501's test part by torch and by the 8-bit file, as `tracklearn evaluate` judges
  them; with --subset on N of its persons, their images alone. Without --market they are left out.

Weights as they come have no BN neck, and rounding harms a feature behind a neck more: runs are what counts.
The figures of docs/log.md, "export: the network in other programs' files, and in 8 bits", are older than this
file: they take torch's plain form and the fastest of three.

Prints tables, writes quantised.json to DIR (benchmarks/results); exit code 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks import measure
from benchmarks.extraction import ONNX_BATCHES
from tracklearn import runtimes
from tracklearn.app.judge.benchmark import evaluate
from tracklearn.app.model import forms, parity, quantise
from tracklearn.app.model.of_run import load_network
from tracklearn.app.model.open import Model, open_model, open_weights
from tracklearn.app.pipeline.starts import load_weights
from tracklearn.core import threads
from tracklearn.learn import backbone, embed, export, folded, subnormals
from tracklearn.learn.network import Network
from tracklearn.store import benchmarks, weights
from tracklearn.store.detect import model_files
from tracklearn.store.runs import Run
from tracklearn.store.sets.joined import open_sets
from tracklearn.types import Array, ArrayCrops, Crops, Tracklets

FASTER = 3.0  # times torch's images a second
FILES = ("float32", "int8")
SPEED = (
    "images a CPU-second", "extract", "folded", "ONNX float32", "ONNX int8", "int8 / extract", "by wall time",
    "int8 / folded", "int8 / float32",
)  # fmt: skip
LIKENESS = (
    "int8", "layers left float32", "cosine, mean", "least", "mAP: torch", "int8", "rank-1: torch", "int8",
)  # fmt: skip
_BATCH = 256  # of torch, as extraction takes them

Timings = Mapping[str, measure.Timing]


@dataclass(frozen=True, eq=False)
class Opened:
    """A network that is measured.

    Args:
        name: without any path. model: what is judged. network: the same, to be written and timed.
        neck: whether its feature is the one behind the BN neck.
    """

    name: str
    model: Model
    network: Network
    neck: bool

    @property
    def pixels(self) -> forms.Pixels:
        """Mean and standard deviation that the files leave outside."""
        return self.network.pixel_mean, self.network.pixel_std


def opened(path: Path, size: tuple[int, int]) -> Opened:
    """The network of a run folder, or of weights for crops of `size`, height and width."""
    if path.is_dir():
        run = Run(path)
        model, network, neck = open_model(path, device="cpu"), load_network(run), True
        name = f"{network.config.backbone}_{run.manifest['digest'][:8]}"
    else:
        settings = [f"network.{key}={value}" for key, value in zip(("height", "width"), size, strict=True)]
        model = open_weights(path, device="cpu", settings=settings)
        network = backbone.build(backbone.Config(**model.record["network"]), seed=0)
        neck = load_weights(network, *weights.load(path, backbone=network.config.backbone)).neck
        name = path.stem
    subnormals.clear(network)  # as `export` does
    return Opened(name, model, network.eval(), neck)


def chosen(tracklets: Tracklets, n: int, seed: int) -> tuple[Array, Array]:
    """Rows of the crops that ranges are taken from, as `export` takes them, and of up to n others."""
    given = parity.others(tracklets, parity.draw(tracklets), quantise.CROPS)
    rest = np.random.default_rng(seed).permutation(np.setdiff1d(tracklets.crop, given))
    return given, np.sort(rest[:n])


def write(one: Opened, given: Array, folder: Path) -> tuple[dict[str, Path], dict[str, Any]]:
    """Both files of a network, and how the second was rounded.

    Args:
        given: (n, h, w, 3) uint8 crops of the calibration. folder: to write them in.
    """
    mean, std = one.pixels
    shape = (3, one.model.height, one.model.width)
    module = export.whole(one.network, mean=mean, std=std)
    plain = export.onnx_bytes(module, shape, names=("images", "features"))
    rounded, how = quantise.quantised(one.network, forms.pictures(given, one.pixels), pixels=one.pixels)
    files = {name: folder / f"{name}.onnx" for name in FILES}
    for path, data in zip(files.values(), (plain, rounded), strict=True):
        forms.write(path, forms.annotated(data, forms.notes(one.network, one.pixels, {})))
    return files, how | {"crops": len(given)}


def timed(
    one: Opened, files: Mapping[str, Path], images: Array, n_threads: int, repeats: int
) -> dict[str, measure.Timing]:
    """Every kind in turns; its result is the unit features of `images`, (n, h, w, 3) uint8.

    Kinds: "extract", "folded", and "FILE, BATCH".
    """
    prepared = forms.pictures(images, one.pixels)
    # Laid out as extraction lays it out.
    pixels = torch.from_numpy(prepared).contiguous(memory_format=torch.channels_last)
    rows = np.arange(len(images))
    kinds: dict[str, Callable[[], Array]] = {
        "extract": lambda: embed.extract(
            one.network, ArrayCrops(images), rows, device="cpu", batch=_BATCH, post_bn=one.neck, fixed=True
        ),
        "folded": lambda: _folded(one, pixels),
    }
    for name, path in files.items():
        run = model_files.open_onnx(path, n_threads=n_threads).run
        kinds |= {f"{name}, {batch}": partial(_by_file, run, prepared, batch) for batch in ONNX_BATCHES}
    return measure.alternate(kinds, repeats)


def _folded(one: Opened, pixels: torch.Tensor) -> Array:
    with torch.inference_mode(), subnormals.flushed(torch.device("cpu")):
        form = folded.kept(one.network)
        found = torch.cat([form(part) for part in pixels.split(_BATCH)])
        return functional.normalize(one.network.neck(found) if one.neck else found).numpy()


def _by_file(run: Callable[[Array], list[Array]], prepared: Array, batch: int) -> Array:
    return np.concatenate([run(prepared[low : low + batch])[0] for low in range(0, len(prepared), batch)])


def quickest(found: Timings, name: str) -> str:
    """The kind of a file that took the least CPU time."""
    return min((f"{name}, {n}" for n in ONNX_BATCHES), key=lambda kind: found[kind].median("cpu"))


def speeds(found: Timings, n: int) -> dict[str, Any]:
    """Images a second of every kind by both clocks, and the ratios of the 8-bit file."""
    best = found[quickest(found, "int8")]
    return {
        "images_per_cpu_second": {kind: n / timing.median("cpu") for kind, timing in found.items()},
        "images_per_second": {kind: n / timing.median("wall") for kind, timing in found.items()},
        "quickest": {name: quickest(found, name) for name in FILES},
        "of_extract": measure.ratio(found["extract"], best, "cpu"),
        "of_extract_wall": measure.ratio(found["extract"], best, "wall"),
        "of_folded": measure.ratio(found["folded"], best, "cpu"),
        "of_float32": measure.ratio(found[quickest(found, "float32")], best, "cpu"),
    }


def likeness(found: Timings) -> dict[str, dict[str, float]]:
    """Cosine of the features of either file with those of torch, mean and least."""
    wanted = found["extract"].result.astype(np.float64)
    out = {}
    for name in FILES:
        cosine = np.einsum("ij,ij->i", wanted, found[quickest(found, name)].result)
        out[name] = {"mean": float(cosine.mean()), "least": float(cosine.min())}
    return out


def scores(one: Opened, int8: Path, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """mAP and rank-1, 0-1, by torch and by the 8-bit file; `folder` for what judging writes."""
    some = None
    if given.subset is not None:
        # Who is drawn of the training part decides nothing here: one will do.
        some = benchmarks.Subset(1, given.subset, given.seed)
    out = {}
    for name, model in (("torch", one.model), ("int8", open_model(int8))):
        found = evaluate(
            model, "market1501", given.market, out=folder / name, subset=some, tell=lambda line: None
        )
        out[name] = {key: found[key] for key in ("mAP", "rank1", "n_valid", "n_images")}
    return out


def crops_of(one: Opened, given: argparse.Namespace) -> tuple[Tracklets, Crops]:
    """The crops to calibrate and compare on: of SET, or of Market-1501's training part."""
    size = one.model.height, one.model.width
    if given.crops is not None:
        tracklet_set = open_sets(given.crops)
        return tracklet_set.tracklets, tracklet_set.crops(*size, cache_bytes=0)  # read once
    market = benchmarks.read("market1501", given.market)
    market.require_train()
    return market.train.tracklets, market.train.crops(*size)


def measured(one: Opened, given: argparse.Namespace) -> dict[str, Any]:
    """All that is told of one network."""
    tracklets, stored = crops_of(one, given)
    calibration, compared = chosen(tracklets, given.images, given.seed)
    with tempfile.TemporaryDirectory(prefix="tracklearn-") as folder:
        files, how = write(one, stored.read(calibration), Path(folder))
        found = timed(one, files, stored.read(compared), given.threads, given.repeats)
        return {
            "size": (one.model.height, one.model.width),
            "neck": one.neck,
            "images": len(compared),
            "quantised": how,
            "files": {name: forms.record(file) for name, file in files.items()},
            "timings": found,
            "speed": speeds(found, len(compared)),
            "cosine": likeness(found),
            "scores": None if given.market is None else scores(one, files["int8"], given, Path(folder)),
        }


def lost(found: Mapping[str, Any]) -> float | None:
    """Points of rank-1 that 8 bits lose; below 0 where they gain, None where nothing was judged."""
    judged = found["scores"]
    return None if judged is None else 100 * (judged["torch"]["rank1"] - judged["int8"]["rank1"])


def bars(networks: Mapping[str, Mapping[str, Any]]) -> list[measure.Bar]:
    """Speed, cosine and rank-1 of each network; the last two are what `tracklearn export` refuses beyond."""
    out = []
    for name, found in networks.items():
        speed, cosine = found["speed"]["of_extract"], found["cosine"]["int8"]["mean"]
        out += [
            measure.Bar(f"{name}: int8 / torch, images a CPU-second", FASTER, speed, at_least=True),
            measure.Bar(f"{name}: cosine, mean", parity.INT8.cosine, cosine, at_least=True),
            measure.Bar(f"{name}: rank-1 lost, points", 100 * parity.INT8.rank1, lost(found)),
        ]
    return out


def tables(networks: Mapping[str, Mapping[str, Any]]) -> str:
    """Speed, then likeness and scores, a row a network."""
    fast, near = [], []
    for name, found in networks.items():
        speed, cosine, judged = found["speed"], found["cosine"]["int8"], found["scores"]
        kinds = ("extract", "folded", *(speed["quickest"][file] for file in FILES))
        ratios = [speed[of] for of in ("of_extract", "of_extract_wall", "of_folded", "of_float32")]
        fast.append([name, *(speed["images_per_cpu_second"][kind] for kind in kinds), *ratios])
        points = [None] * 4
        if judged is not None:
            points = [100 * judged[of][score] for score in ("mAP", "rank1") for of in ("torch", "int8")]
        how = found["quantised"]
        near.append([name, f"{how['float_layers']} of {how['layers']}", *cosine.values(), *points])
    return f"{measure.table(SPEED, fast)}\n\n{measure.table(LIKENESS, near)}"


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Command line; what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--weights", type=Path, nargs="+", required=True, help="files of weights, run folders"
    )
    parser.add_argument("--market", type=Path, help="folder of Market-1501")
    parser.add_argument("--crops", type=Path, help="tracklet set to calibrate and compare on instead")
    parser.add_argument("--size", type=_size, default=(256, 128), help="of crops, HxW; runs know theirs")
    parser.add_argument("--images", type=int, default=256, help="that are timed and compared")
    parser.add_argument("--subset", type=int, help="persons of the test part; all by default")
    parser.add_argument("--seed", type=int, default=0, help="draws those images and persons")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=measure.RESULTS, help="folder for quantised.json")
    given = parser.parse_args(arguments)
    if given.market is None and given.crops is None:
        parser.error("--market or --crops is wanted, to calibrate and compare on")
    torch.set_num_threads(given.threads)
    ones = [opened(path, given.size) for path in given.weights]
    if len({one.name for one in ones}) < len(ones):
        parser.error("two of these networks have one name: measure them in two calls")
    with threads.limit(given.threads):
        networks = {one.name: measured(one, given) for one in ones}
    print(f"{tables(networks)}\n")
    print(measure.bars_table(bars(networks)))
    names = ("size", "images", "subset", "seed", "threads", "repeats")
    settings = {name: getattr(given, name) for name in names}
    settings |= {
        "networks": list(networks),
        "crops": "Market-1501, training part" if given.crops is None else given.crops.name,
        "versions": {name: runtimes.load(name).__version__ for name in ("onnx", "onnxruntime")},
    }
    result = {"networks": networks, "bars": bars(networks)}
    measure.save("quantised", result, settings=settings, folder=given.out)
    return result


def _size(text: str) -> tuple[int, int]:
    height, width = (int(part) for part in text.split("x"))
    return height, width


if __name__ == "__main__":
    sys.exit(any(bar.met is False for bar in main()["bars"]))
