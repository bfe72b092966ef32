"""A run's network as a file for other programs: written, opened again, compared, timed, described.

DIR/osnet_x0_25_3f9c21aa.onnx   the weights; the name holds the backbone and the run's digest, and no
                                word of the data: some programs choose settings by such words
DIR/…                           what its reader needs beside it
DIR/README.md                   the model card;  DIR/export.json: all of it for programs
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn import __version__, runtimes
from tracklearn.app.identities.calibrated import described
from tracklearn.app.model import card, consumers, forms, parity
from tracklearn.app.model.consumers import FORMS, Consumer, Form
from tracklearn.app.model.of_run import load_network
from tracklearn.core import threads
from tracklearn.store import weights
from tracklearn.store.files import DamagedError, beside, put_folder, read_json, remove_folder, write_json
from tracklearn.store.lock import locked
from tracklearn.store.runs import Run
from tracklearn.types import Array, ArrayCrops, Crops, Progress, Refusal, Tracklets

if TYPE_CHECKING:
    from tracklearn.learn.network import Network
    from tracklearn.store.sets.tracklets import TrackletSet

QUANTISE = ("int8",)
_TIMED = 32  # crops


@dataclass(frozen=True)
class Asked:
    """What is to be written, checked: see `export`."""

    consumer: Consumer | None
    form: Form
    kind: consumers.Pixels
    int8: bool

    @property
    def label(self) -> str:
        """Name of the folder inside the run's."""
        baked = self.consumer is None and self.kind == "baked"
        parts = [self.consumer.name if self.consumer else self.form]
        return "-".join([*parts, *(["baked"] if baked else []), *(["int8"] if self.int8 else [])])


def export(
    run: str | Path,
    *,
    to: str | None = None,
    consumer: str | None = None,
    baked: bool = False,
    quantize: str | None = None,
    crops: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a run's trained network for another program.

    It is opened again as its reader would, compared with the network on real crops of the run's set, timed
    beside it, and refused where it differs. Nothing is left of an export that is refused.

    Args:
        run: a finished run.
        to: "onnx", "torchscript", "safetensors" or "openvino"; by the consumer, or ONNX, if None.
        consumer: a program of `consumers.CONSUMERS`, whose form is taken, with what it needs beside.
        baked: the file takes RGB of 0-1 and normalises itself.
        quantize: "int8", static, calibrated on crops of the set.
        crops: the tracklet set to compare on; the run's own if None.
        out: folder to write; RUN/export/NAME if None.
        resume: replace an export that is there.
        progress: told as ("features", crops done, crops in all).

    Returns:
        The contents of export.json and `out`.

    Raises:
        FileNotFoundError: no such run, or its set is gone.
        FileExistsError: `out` is there and `resume` is off.
        ValueError: the run has not finished, the network has no place in the format, options that do not go
            together, a package is missing, or the export differs too much from the network.
    """
    from tracklearn.learn import subnormals

    asked = _asked(to=to, consumer=consumer, baked=baked, quantize=quantize)
    opened = Run(run)
    opened.weights_path()  # refuses an unfinished run before anything else
    _need(asked)
    network = load_network(opened)
    subnormals.clear(network)
    _fits(asked, network)
    tracklet_set = _set_of(opened, crops)
    folder = Path(out) if out is not None else opened.path / "export" / asked.label
    with locked(folder):
        _tidy(folder)
        if folder.exists() and not resume and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(f"{folder} exists: replace it with --resume, or choose another --out")
        with _whole_or_not(folder) as place:
            result = _write(place, opened, network, tracklet_set, asked, progress)
    return {**result, "out": str(folder)}


def table(result: dict[str, Any]) -> str:
    """What a person is told of an export, a few lines."""
    p, speed = result["parity"], result["images_per_second"]
    lines = [
        f"{result['files'][0]['name']}: {result['title']}",
        f"like the network: cosine {p['cosine']:.5f} (least {p['least_cosine']:.5f}), rank-1 without labels "
        f"{100 * p['rank1']:.1f} % and {100 * p['rank1_search']:.1f} %, on {p['n']} crops",
        f"speed on the CPU: {speed['export']:.0f} images/s, torch {speed['torch']:.0f} "
        f"({speed['export'] / speed['torch']:.1f} ×)",
    ]
    if "float32" in speed:
        lines[-1] += f", the same file in float32 {speed['float32']:.0f}"
        if speed["float32"] > speed["export"]:
            lines.append(
                "8 bits are slower than float32 on this CPU: leave --quantize out, unless size counts"
            )
    for each in result["thresholds"][:1]:
        lines.append(f"threshold on this footage: {each['name']} {each['value']:.3f} ({each['text']})")
    if not result["thresholds"]:
        lines.append("threshold: none, too few moments show two people at once")
    elif not result["calibration"]["separates"]:
        lines.append("the features hardly tell people apart here: do not trust the threshold")
    return "\n".join(lines)


def _asked(*, to: str | None, consumer: str | None, baked: bool, quantize: str | None) -> Asked:
    """The options, checked against each other."""
    if to is not None and to not in FORMS:
        raise Refusal(f"--to is {to!r}, expected one of {', '.join(FORMS)}")
    if quantize not in (None, *QUANTISE):
        raise Refusal(f"--quantize is {quantize!r}, expected int8")
    int8 = quantize is not None
    if consumer is None:
        form = to or "onnx"
        if int8 and form not in ("onnx", "openvino"):
            raise Refusal(f"--quantize int8 belongs to onnx and openvino: {form} keeps the network's floats")
        if baked and form == "safetensors":
            raise Refusal("--baked belongs to networks: safetensors holds arrays, and its header the pixels")
        return Asked(None, next(f for f in FORMS if f == form), "baked" if baked else "own", int8)
    found = consumers.find(consumer)
    if to is not None and to != found.form and not (to == "safetensors" and found.form == "folder"):
        raise Refusal(f"--for {found.name} has a form of its own: leave --to {to} out")
    if baked and found.pixels != "baked":
        raise Refusal(f"--for {found.name} knows how its pictures are normalised: leave --baked out")
    if int8 and not found.int8:
        raise Refusal(
            f"--for {found.name} does not run onnxruntime's 8-bit files: leave --quantize out"
            + (", DeepStream makes its own 8-bit engine" if found.name == "deepstream" else "")
        )
    return Asked(found, found.form, found.pixels, int8)


def _need(asked: Asked) -> None:
    """Refuse before any work where a package is missing."""
    if asked.form in ("onnx", "openvino"):
        runtimes.load("onnx")
    if asked.form == "onnx" or asked.int8:
        runtimes.load("onnxruntime")
    if asked.form == "openvino":
        runtimes.load("openvino")


def _fits(asked: Asked, network: Network) -> None:
    """Refuse a network that has no place in the format."""
    from tracklearn.learn import export as networks

    consumer = asked.consumer
    if asked.form in ("checkpoint", "folder"):
        networks.osnet_arrays(network)
    if consumer is None or asked.form != "checkpoint":
        return
    imagenet = all(np.allclose(a, b) for a, b in zip(_own(network), _imagenet(), strict=True))
    size = (network.config.height, network.config.width)
    if consumer.fixed and (not imagenet or size != (256, 128)):
        raise Refusal(
            f"{consumer.title} gives its network crops of 256 × 128 normalised as ImageNet's, this one takes "
            f"{size[0]} × {size[1]} by mean {_own(network)[0]}: use --to onnx, and give features as embeds="
        )


def _own(network: Network) -> forms.Pixels:
    return network.pixel_mean, network.pixel_std


def _imagenet() -> forms.Pixels:
    from tracklearn.learn.network import IMAGENET_MEAN, IMAGENET_STD

    return IMAGENET_MEAN, IMAGENET_STD


def _set_of(run: Run, crops: str | Path | None) -> TrackletSet:
    """The set whose crops are compared; of a run that learned from several all of them as one.

    Raises:
        FileNotFoundError: it is gone; the line says how to name it.
    """
    from tracklearn.store.sets.joined import open_sets

    if crops is not None:
        return open_sets(crops)
    paths = [Path(os.path.normpath(run.path / learned["path"])) for learned in run.sets]
    for path in paths:
        if not path.is_dir():
            raise FileNotFoundError(
                f"the run's tracklet set is not at {path}, and an export is compared on real crops: say "
                "where it is, or name another set, with --crops SET"
            )
    return open_sets(paths)


def _write(
    place: Path,
    run: Run,
    network: Network,
    tracklet_set: TrackletSet,
    asked: Asked,
    progress: Progress | None,
) -> dict[str, Any]:
    """All files of an export in `place`; returns what export.json holds."""
    from tracklearn.learn import embed

    size = (network.config.height, network.config.width)
    pixels = {"own": _own(network), "imagenet": _imagenet(), "baked": ((0.0,) * 3, (1.0,) * 3)}[asked.kind]
    stored = tracklet_set.crops(*size, cache_bytes=0)  # read once
    sample = parity.draw(tracklet_set.tracklets)
    seen, rows = ArrayCrops(stored.read(sample.row)), np.arange(len(sample.row))
    stem = f"{network.config.backbone}_{run.manifest['digest'][:8]}"
    made, run_file, quantised = _make(
        place,
        stem,
        network,
        asked,
        pixels,
        partial(_given, stored, tracklet_set.tracklets, sample, pixels),
    )
    search = embed.extract(network, seen, rows, device="cpu", progress=progress)
    neckless = asked.form in ("checkpoint", "folder")
    wanted = embed.extract(network, seen, rows, device="cpu", post_bn=False) if neckless else search
    got = forms.features(run_file, seen, rows, pixels)
    near = parity.compare(wanted, got, sample, search=search)
    what = f"the {'8-bit ' if asked.int8 else ''}{asked.label} export of {run.path}"
    near.check(parity.INT8 if asked.int8 else parity.FLOAT, what)
    calibration = parity.thresholds(got, sample)
    found = consumers.thresholds(asked.consumer, calibration) if calibration else []
    _finish_onnx(place / made, network, pixels, run, found)
    if asked.consumer:
        side = consumers.side_files(
            asked.consumer, made, shape=size, width=got.shape[1], calibration=calibration
        )
        for name, text in side.items():
            forms.write(place / name, text.encode())
    timed = rows[:_TIMED]
    given = forms.pictures(seen.read(timed), pixels), forms.pictures(seen.read(timed), _own(network))
    runs: dict[str, Callable[[], Any]] = {
        "torch": lambda: forms.run_network(network, given[1], neck=True),
        "export": lambda: run_file(given[0]),
    }
    with tempfile.TemporaryDirectory(prefix="tracklearn-") as aside:
        if asked.int8:
            # Rounding costs a pass of each layer: whether it pays is told by the file that it came from.
            _, plain, _ = _make(Path(aside), stem, network, replace(asked, int8=False), pixels, None)
            runs["float32"] = lambda: plain(given[0])
        speed = parity.speeds(runs, len(timed))
    result: dict[str, Any] = {
        "kind": "export",
        "tracklearn": __version__,
        "name": stem,
        "title": _title(asked),
        "consumer": asked.consumer.name if asked.consumer else None,
        "form": asked.form,
        "backbone": network.config.backbone,
        "method": run.manifest["method"],
        "shape": size,
        "width": got.shape[1],
        "feature": "before the neck" if neckless else "search",
        "pixels": {"kind": asked.kind, "mean": pixels[0], "std": pixels[1]},
        "quantised": quantised,
        "parity": near.to_dict(),
        "images_per_second": speed,
        "threads": threads.n_threads(),
        "calibration": described(calibration) if calibration else None,
        "thresholds": [vars(each) for each in found],
        "compared_on": {"digest": tracklet_set.digest, "own": _is_own(run, tracklet_set)},
        "training": _training(run),
    }
    files = sorted(place.iterdir(), key=lambda path: (path.name != made, path.name))
    result["files"] = [forms.record(path) for path in files]
    use = consumers.usage(asked.consumer, asked.form, made, network.config.backbone)
    forms.write(place / "README.md", card.card(result, use=use, thresholds=found).encode())
    write_json(place / "export.json", result)
    return result


def _make(
    place: Path, stem: str, network: Network, asked: Asked, pixels: forms.Pixels, crops: Any
) -> tuple[str, forms.Run, dict[str, Any] | None]:
    """The file of weights: its name, what it gives when it is opened again, and how it was rounded."""
    from tracklearn.learn import export as networks

    shape = (3, network.config.height, network.config.width)
    if asked.kind == "baked":
        stem += "_rgb01"
    if asked.form in ("checkpoint", "folder"):
        arrays = networks.osnet_arrays(network)
        name = "weights.safetensors" if asked.form == "folder" else f"{stem}.pt"
        if asked.form == "folder":
            weights.save(place / name, arrays, {})
            config = consumers.reid_config(network.config.backbone, shape[1:], *_own(network))
            forms.write(place / "reid_config.json", config.encode())
        else:
            forms.write(place / name, networks.checkpoint_bytes(arrays))
        return name, forms.open_arrays(place / name, network), None
    if asked.form == "safetensors":
        name = f"{stem}.safetensors"
        weights.save(place / name, network.arrays(), network.metadata())
        return name, forms.open_arrays(place / name, network), None
    whole = networks.whole(network, mean=pixels[0], std=pixels[1])
    if asked.form == "torchscript":
        name = f"{stem}.torchscript"
        forms.write(place / name, networks.torchscript_bytes(whole, shape))
        return name, forms.open_torchscript(place / name), None
    quantised = None
    if asked.int8:
        from tracklearn.app.model import quantise

        given = crops(quantise.CROPS)
        data, quantised = quantise.quantised(network, given, pixels=pixels)
        quantised["crops"] = len(given)
        stem += "_int8"
    else:
        data = networks.onnx_bytes(whole, shape, names=("images", "features"))
    data = forms.annotated(data, forms.notes(network, pixels, {}))
    if asked.form == "openvino":
        name = f"{stem}.xml"
        forms.write_openvino(data, place / name, shape=shape)
        return name, forms.open_openvino(place / name), quantised
    name = f"{stem}.onnx"
    forms.write(place / name, data)
    return name, forms.open_onnx(place / name), quantised


def _given(stored: Crops, tracklets: Tracklets, sample: parity.Sample, pixels: forms.Pixels, n: int) -> Array:
    """Pictures of crops that are not compared, as the file takes them."""
    return forms.pictures(stored.read(parity.others(tracklets, sample, n)), pixels)


def _finish_onnx(
    path: Path, network: Network, pixels: forms.Pixels, run: Run, found: Sequence[consumers.Threshold]
) -> None:
    """Let an .onnx file say whose it is, and its threshold."""
    if path.suffix != ".onnx":
        return
    said = {"tracklearn": __version__, "run": run.manifest["digest"], "set": run.manifest["set"]["digest"]}
    said |= {f"threshold {each.name}": f"{each.value:.6f}" for each in found}
    forms.write(path, forms.annotated(path.read_bytes(), forms.notes(network, pixels, said)))


def _title(asked: Asked) -> str:
    who = asked.consumer.title if asked.consumer else asked.form
    pixels = {
        "own": "normalised outside",
        "imagenet": "ImageNet's mean outside",
        "baked": "RGB of 0–1",
    }
    return f"for {who}, {pixels[asked.kind]}" if asked.consumer else f"{who}, {pixels[asked.kind]}"


def _is_own(run: Run, tracklet_set: TrackletSet) -> bool:
    return run.rows_of(tracklet_set.digest) is not None


def _training(run: Run) -> dict[str, Any]:
    """What the run says of itself, without any path."""
    manifest, rounds = run.manifest, run.rounds
    isolation, last = manifest.get("isolation", {}), rounds[-1] if rounds else {}
    counts = {
        "tracks": isolation.get("n_before"),
        "parts of them after isolation": isolation.get("n_parts", isolation.get("n_after")),
        "parts learned from": isolation.get("n_after"),
        "clusters at the end": last.get("n_clusters"),
        "epochs": len(rounds),
    }
    return {
        "run": manifest["digest"],
        "set": manifest["set"]["digest"],
        "seed": manifest["seed"],
        "weights": Path(str(manifest.get("weights", {}).get("name", "unknown"))).name,
        "labels_used": list(manifest.get("labels_used", [])),
        "counts": {name: value for name, value in counts.items() if value is not None},
        "settings": {manifest["method"]: manifest.get("settings", {}), "network": manifest["network"]},
        "scores": _scores(run),
    }


def _scores(run: Run) -> list[dict[str, Any]]:
    """Those of evaluations of the trained network that lie in the run's folder."""
    found = []
    for path in sorted(run.path.glob("evaluation*/scores.json")):
        try:
            said = read_json(path)
            model = said["model"]
            if model.get("digest") == run.manifest["digest"] and model.get("weights") == "weights":
                kept = {name: float(said[name]) for name in ("mAP", "rank1")}
                found.append({"benchmark": said["title"], "protocol": said["protocol"], **kept})
        except (DamagedError, KeyError, TypeError, ValueError):  # of an older program, or not ours
            continue
    return found


def _beside(folder: Path) -> tuple[Path, Path]:
    """Where a new export is made, and where the old one waits while it takes its place."""
    return beside(folder, before=".", after=".tmp"), beside(folder, before=".", after=".old")


def _tidy(folder: Path) -> None:
    """Take away what a killed process left; an old export that was aside comes back if there is no other."""
    place, old = _beside(folder)
    remove_folder(place)
    if old.is_dir() and not folder.exists():
        old.rename(folder)
    remove_folder(old)


@contextmanager
def _whole_or_not(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of `folder` when the block ends well, and goes when it does not."""
    place, old = _beside(folder)
    place.mkdir()
    try:
        yield place
        if folder.exists():
            folder.rename(old)
        put_folder(place, folder)
        remove_folder(old)
    finally:
        shutil.rmtree(place, ignore_errors=True)
