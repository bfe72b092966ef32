"""Fuzzing of one parser at a time: `python -m tests.faults.fuzz NAME --seconds 600`.

With atheris installed its coverage guides the search; otherwise samples of good input are mutated at random.
A parser may return, or refuse with ValueError or FileNotFoundError; anything else is a fault, which is
printed with the input that shows it. A crash ends the process: parsers in compiled code run under `inputs`
too, whose children survive one.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import importlib
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

REFUSALS = (ValueError, FileNotFoundError)
VALUES = (None, True, -1, 0, 2**70, 1.5, "", "x", [], [None], [1], ["x"], {}, {"x": 1}, {"x": None})
NAMES = ("mot", "sources", "seqinfo", "splits", "weights", "manifest", "picture")
_SEQUENCE = ("img1/1.jpg", "gt/gt.txt", "det/det.txt")
LONG = 5.0  # seconds of processor time that a small input must not take


class Parser(NamedTuple):
    """What is fuzzed: a function of a file's path, and samples of good input."""

    read: Callable[[Path], object]
    samples: tuple[bytes, ...]
    suffix: str


def _results(path: Path) -> object:
    from tracklearn.store.film import mot

    return [read(path) for read in (mot.read_results, mot.read_detections, mot.read_truth)]


def _sources(path: Path) -> object:
    from tracklearn.store.film import recordings
    from tracklearn.store.ingest.sources import parse_sources

    recordings.MAX_WALKED = 20_000  # a pattern may lead through the whole disk, up to this many files

    text = path.read_bytes().decode("utf-8", "surrogateescape")
    with contextlib.chdir(path.parent):
        for name in (
            "a.txt",
            "b.mp4",
            "d",
            "frames/1.jpg",
            "SEQ/img1/1.jpg",
            "SEQ/gt/gt.txt",
            "SEQ/det/det.txt",
        ):
            if not Path(name).exists():
                Path(name).parent.mkdir(parents=True, exist_ok=True)
                Path(name).touch()
        return parse_sources(text.split("\n"))


def _seqinfo(path: Path) -> object:
    from tracklearn.store.film.sequence import seqinfo_of

    return seqinfo_of(path.parent / "img1")


def _splits(path: Path) -> object:
    from tracklearn.store.benchmarks import videos

    return videos._read_splits(path, [f"person_{i:04d}" for i in range(1, 9)])


def _weights(path: Path) -> object:
    from tracklearn.store import weights

    return weights.load(path, backbone=None)


def _manifest(path: Path) -> object:
    from tracklearn.store.gallery.open import open_gallery
    from tracklearn.store.runs import Run
    from tracklearn.store.sets.tracklets import open_set

    for read in (open_set, Run, open_gallery):
        try:
            read(path.parent)
        except REFUSALS:
            continue  # each kind of folder refuses the others'
    return None


def _picture(path: Path) -> object:
    from tracklearn.store.ingest.folders import read_crop

    return read_crop(path, quality=90)


def _set_manifest() -> bytes:
    files: dict[str, str] = {}
    manifest = {
        "kind": "tracklet set",
        "schema": 1,
        "digest": "0" * 64,
        "cameras": ["door"],
        "files": files,
        "shards": [],
        "sources": [],
        "n_crops": 0,
        "n_tracklets": 0,
    }
    return json.dumps(manifest).encode()


def parsers() -> dict[str, Parser]:
    """Every parser by name."""
    # Late: what is imported before atheris gets hold of it gives no coverage.
    import cv2
    from safetensors.numpy import save

    from tests.faults import hostile, material

    row = b"1,1,10,20,24,60,1,-1,-1,-1\n"
    run = json.dumps({"kind": "run", "schema": 1, "status": "finished", "digest": "0" * 64}).encode()
    gallery = {"schema": "tracklearn.gallery/1", "entries": 1, "width": 2, "cameras": ["door"], "sha256": {}}
    pictures = tuple(cv2.imencode(s, material.figure(1, 1))[1].tobytes() for s in hostile.PICTURES)
    arrays = {"layer2.conv2.weight": np.ones((2, 2), np.float32)}
    rows = row * 3
    text = (
        *(rows, rows.replace(b",", b" "), b"\xef\xbb\xbf" + row, rows.replace(b",", b";")),
        *(rows.decode().encode("utf-16"), rows.decode().encode("utf-16-le"), gzip.compress(rows)),
        b"# note\nframe,id,bb_left,bb_top,bb_width,bb_height\n" + rows + b"\x1a",
        b'1,1,"10","20",24,60,1,1,0.5,\n1,2,10,20,24,60,0,2,nan,\n9007199254740993,3,1,1,1,1,1,1,1',
    )
    seqinfo = b"[Sequence]\nname=A\nimDir=img1\nframeRate=29.97\nseqLength=40\nimExt=.jpg ; note\n"
    splits = json.dumps([{"train": [1, "person_0002"], "test": [3, 4]}] * 2).encode()
    sequences = b"hall=SEQ:gt\nSEQ:det\nSEQ:a/b.txt\nvideo:SEQ\na.txt+SEQ"
    return {
        "mot": Parser(_results, text, ".txt"),
        "sources": Parser(
            _sources, (b"hall@3=a.txt+b.mp4\ndoor=video:frames", b"a=b\nc@1=d", sequences), ".txt"
        ),
        "seqinfo": Parser(_seqinfo, (seqinfo, seqinfo.decode().encode("utf-16")), "seqinfo.ini"),
        "splits": Parser(_splits, (splits,), "splits.json"),
        "weights": Parser(_weights, (save(arrays), save(arrays, metadata={"meta": "{}"})), ".safetensors"),
        "manifest": Parser(_manifest, (_set_manifest(), run, json.dumps(gallery).encode()), "manifest.json"),
        "picture": Parser(_picture, pictures, ".img"),
    }


def one(parser: Parser, data: bytes, folder: Path) -> str | None:
    """What is wrong with how a parser takes `data`; None where it holds."""
    path = folder / (parser.suffix if not parser.suffix.startswith(".") else f"input{parser.suffix}")
    path.write_bytes(data)
    began = time.process_time()
    try:
        parser.read(path)
    except REFUSALS:
        pass
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {error}"
    took = time.process_time() - began
    return f"takes {took:.0f} s" if took > LONG else None


def mutate(parser: Parser, rng: np.random.Generator) -> bytes:
    """A sample with one to four pieces changed; of JSON now and then a value instead of bytes."""
    from tests.faults.hostile import mutations

    data = parser.samples[int(rng.integers(len(parser.samples)))]
    if parser.suffix.endswith(".json") and rng.random() < 0.7:
        value = json.loads(data)
        if isinstance(value, list):
            entry = value[int(rng.integers(len(value)))]
            persons = entry[("train", "test")[int(rng.integers(2))]]
            persons[int(rng.integers(len(persons)))] = VALUES[int(rng.integers(len(VALUES)))]
            return json.dumps(value).encode()
        key = list(value)[int(rng.integers(len(value)))]
        if rng.random() < 0.3:
            del value[key]
        else:
            value[key] = VALUES[int(rng.integers(len(VALUES)))]
        return json.dumps(value).encode()
    for _ in range(int(rng.integers(1, 5))):
        if data:
            made = list(mutations(data, 6, int(rng.integers(2**31))))
            data = made[int(rng.integers(6))][1]
    return data


def plain(name: str, seconds: float, seed: int) -> int:
    """Mutate samples at random for so many seconds; prints each new fault and returns how many there are."""
    parser, rng = parsers()[name], np.random.default_rng(seed)
    found: dict[str, bytes] = {}
    tried, end = 0, time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        while time.monotonic() < end:
            data = mutate(parser, rng)
            fault = one(parser, data, Path(folder))
            tried += 1
            # One of a kind is enough: the place, not the values that the message holds.
            if fault is not None and fault.split(": ")[0] not in found:
                found[fault.split(": ")[0]] = data
                print(f"{name}: {' '.join(fault.split())[:200]}\n  {data[:200]!r}", flush=True)
    print(f"{name}: {tried} tried, {len(found)} kinds of fault")
    return len(found)


def guided(name: str, seconds: float) -> None:
    """Let atheris search; it ends the process itself and writes the input of a fault to a file."""
    import atheris

    with atheris.instrument_imports(include=["tracklearn.store"]):
        for module in (
            *("film.mot", "film.sequence", "ingest.sources", "ingest.folders", "weights", "runs"),
            *("gallery.folder", "sets.tracklets", "benchmarks.videos"),
        ):
            importlib.import_module(f"tracklearn.store.{module}")
    parser = parsers()[name]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name_:
        folder, corpus = Path(name_), Path(name_) / "corpus"
        corpus.mkdir()
        for number, sample in enumerate(parser.samples):
            (corpus / str(number)).write_bytes(sample)

        def test(data: bytes) -> None:
            fault = one(parser, data, folder)
            if fault is not None:
                raise RuntimeError(fault)

        atheris.Setup(
            [sys.argv[0], f"-max_total_time={int(seconds)}", "-rss_limit_mb=4096", str(corpus)], test
        )
        atheris.Fuzz()


def main() -> int:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("name", choices=[*NAMES, "all"])
    options.add_argument("--seconds", type=float, default=600)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--plain", action="store_true", help="mutate at random though atheris is there")
    given = options.parse_args()
    try:
        import atheris as _  # noqa: F401
    except ImportError:
        given.plain = True
    if not given.plain and given.name != "all":
        guided(given.name, given.seconds)
        return 0
    names = list(NAMES) if given.name == "all" else [given.name]
    return int(sum(plain(name, given.seconds / len(names), given.seed) for name in names) > 0)


if __name__ == "__main__":
    sys.exit(main())
