"""Exact neighbours by 8-bit products and by float32, and the clustering over them, beside public code.

    python -m benchmarks.neighbors [--features FILE.npy ...] [--spcl DIR] [--repeats R] [--small] [--out DIR]

In one run, of each set of features: 31 nearest neighbours (`core.neighbors.k_nearest`) and the whole
association (`core.cluster.associate`: Jaccard distance, eps, DBSCAN), by float32 products and by 8-bit ones,
in turns; whether neighbours, distances and labels are the same; and, with --spcl, the Jaccard distance of
SpCL's public code (`spcl/utils/faiss_rerank.py` of a checkout, with faiss on the CPU) and scikit-learn's
DBSCAN on its matrix, once.

Sets are rows of the files given (unit features of a trained network, float32) and made ones
(`benchmarks.clustering`): with the spectrum of a trained network, 8,298 × 2,048, and with none, 12,936 × 512
and 8,298 × 2,048.

Prints a table of CPU-seconds and wall seconds and writes neighbors.json to DIR (benchmarks/results; with
--small only where --out is given). Threads are those that OMP_NUM_THREADS allows. Exit code 1 where anything
that must be equal is not.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import DBSCAN

from benchmarks import clustering, measure
from tracklearn.core import cluster, neighbors, threads

Array = NDArray[Any]
WAYS: tuple[neighbors.Method, ...] = ("exact", "int8")
SETS = ((8_298, 2_048, True), (12_936, 512, False), (8_298, 2_048, False))
SMALL_SETS = ((2_100, 512, True), (2_100, 512, False))
_EPS = 0.5  # of DBSCAN on SpCL's matrix: it takes as long with any
_RHO = 1.6e-3


def made(n: int, width: int, spectrum: bool) -> Array:
    """Unit rows of people; those without a spectrum are cut to `width`, which leaves them even."""
    rows = clustering.make_features(n, network=spectrum)[0][:, :width]
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def sets(files: Sequence[Path], small: bool) -> Iterator[tuple[str, Array]]:
    """Names and features."""
    for path in files:
        rows = np.load(path).astype(np.float32)
        yield f"{path.stem}, {len(rows):,} × {rows.shape[1]:,}", rows
    for n, width, spectrum in SMALL_SETS if small else SETS:
        name = "made with a network's spectrum" if spectrum else "made, even"
        yield f"{name}, {n:,} × {width:,}", made(n, width, spectrum)


def public(folder: Path) -> Callable[[Array], Array]:
    """SpCL's Jaccard distance of features, by the code in a checkout."""
    sys.path.insert(0, str(folder / "spcl"))  # the package around it would import torchvision
    compute = importlib.import_module("utils.faiss_rerank").compute_jaccard_distance

    def distance(features: Array) -> Array:
        found: Array = compute(
            torch.from_numpy(features), k1=clustering.K1, k2=clustering.K2, print_flag=False, search_option=3
        )
        return found

    return distance


def of_set(features: Array, repeats: int, spcl: Callable[[Array], Array] | None) -> dict[str, Any]:
    """Timings of one set by kind, and what differs."""
    k = clustering.K1 + 1
    kinds: dict[str, Callable[[], Any]] = {}
    for way in WAYS:
        kinds[f"neighbours, {way}"] = lambda way=way: neighbors.k_nearest(features, k, method=way)
    for way in WAYS:
        kinds[f"association, {way}"] = lambda way=way: cluster.associate(
            features,
            k1=clustering.K1,
            k2=clustering.K2,
            rho=_RHO,
            min_samples=clustering.MIN_SAMPLES,
            fit_to_size=False,
            neighbors=way,
        )
    timed = measure.alternate(kinds, repeats)
    near, labels = (
        [timed[f"{what}, {way}"].result for way in WAYS] for what in ("neighbours", "association")
    )
    found: dict[str, Any] = {
        "rows": len(features),
        "width": features.shape[1],
        "timed": {kind: timing.to_dict() for kind, timing in timed.items()},
        "ratio": {
            what: measure.ratio(timed[f"{what}, exact"], timed[f"{what}, int8"], "cpu")
            for what in ("neighbours", "association")
        },
        "differ": {
            "neighbours": int((near[0][0] != near[1][0]).sum()),
            "distances": int((near[0][1] != near[1][1]).sum()),
            "labels": int((labels[0].label != labels[1].label).sum()),
        },
    }
    if spcl is not None:
        theirs = measure.alternate({"spcl": lambda: spcl(features)}, 1, warm_up=False)["spcl"]
        dbscan = DBSCAN(eps=_EPS, min_samples=clustering.MIN_SAMPLES, metric="precomputed")
        labelled = measure.alternate({"dbscan": lambda: dbscan.fit(theirs.result)}, 1, warm_up=False)
        own = timed["association, int8"].median("cpu")
        found["spcl"] = {"cpu_s": theirs.cpu[0], "wall_s": theirs.wall[0]}
        found["dbscan"] = {"cpu_s": labelled["dbscan"].cpu[0], "wall_s": labelled["dbscan"].wall[0]}
        found["ratio"]["spcl"] = theirs.cpu[0] / own
        found["ratio"]["spcl and its DBSCAN"] = (theirs.cpu[0] + labelled["dbscan"].cpu[0]) / own
    return found


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", nargs="+", type=Path, default=[], help="files of unit rows, .npy")
    parser.add_argument("--spcl", type=Path, help="checkout of SpCL's public code")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="2,100 rows, in seconds")
    parser.add_argument("--out", type=Path, help="folder for neighbors.json")
    options = parser.parse_args(arguments)
    spcl = None if options.spcl is None else public(options.spcl)
    found = {
        name: of_set(features, options.repeats, spcl)
        for name, features in sets(options.features, options.small)
    }
    rows = []
    for name, one in found.items():
        seconds = {**one["timed"], **{key: one[key] for key in ("spcl", "dbscan") if key in one}}
        rows += [[name, kind, timing["cpu_s"], timing["wall_s"]] for kind, timing in seconds.items()]
    print(measure.table(["features", "what", "CPU s", "wall s"], rows))
    print(
        measure.table(
            ["features", *(what := list(next(iter(found.values()))["ratio"])), "differ"],
            [
                [name, *(one["ratio"][key] for key in what), sum(one["differ"].values())]
                for name, one in found.items()
            ],
        )
    )
    settings = {"threads": threads.n_threads(), "repeats": options.repeats, "k": clustering.K1 + 1}
    result = {"sets": found}
    if options.out or not options.small:
        measure.save("neighbors", result, settings=settings, folder=options.out or measure.RESULTS)
    return result


if __name__ == "__main__":
    sys.exit(any(sum(one["differ"].values()) for one in main()["sets"].values()))
