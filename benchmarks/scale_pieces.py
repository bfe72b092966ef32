"""What reading a film in pieces does to its tracks: the set of the unbroken film against sets of pieces.

    python -m benchmarks.scale_pieces [--data DIR] [--out DIR]

pets09-s2l1 and one camera of a generated world, detector motion, ByteTrack; pieces and overlaps of several
lengths. Truth is opened afterwards: r_FM and r_SW (runs of six frames), and F1 of the boxes. Work is
processor time of one thread, decoding of overlaps included. Prints a table and writes scale_pieces.json.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.scale_measure import FILM, cpu, one_thread
from tracklearn import world
from tracklearn.app.demo.films import film_camera
from tracklearn.app.judge import rates
from tracklearn.store.film.mot import Boxes, detection_f1, read_results
from tracklearn.store.ingest.ingest import Config, ingest
from tracklearn.store.sets.tracklets import open_set

WAYS = ((None, None), (40, 20), (20, 20), (20, 10), (20, 5), (20, 2))  # seconds of a piece and its overlap
WORLD = world.Config(n_cameras=1, seed=11, people_seed=23)
COLUMNS = ("film", "piece s", "overlap s", "tracks", "crops", "joined", "cut", "r_FM", "r_SW", "F1", "CPU s")


def rows_of(film: Path, truth: Path, folder: Path) -> list[dict[str, Any]]:
    """One row a way to read a film."""
    known, rows = read_results(truth), []
    for length, overlap in WAYS:
        config = Config(detector="motion")
        if length is not None and overlap is not None:
            config = Config(detector="motion", piece_minutes=length / 60, piece_overlap=overlap)
        out = folder / f"{film.stem}-{length}-{overlap}"
        spent, path = cpu(lambda: ingest([film], out, config=config))  # noqa: B023
        made = open_set(path)
        noise = rates.noise_rates(made.tracklets, rates.match_truth(made, {film.stem: known}))
        tracks = made.tracklets
        boxes = Boxes(tracks.frame, tracks.tracklet, tracks.box, tracks.score)
        seams = made.manifest["sources"][0].get("seams", [])
        rows.append(
            {
                "film": film.stem,
                "piece": length,
                "overlap": overlap,
                "tracks": len(tracks),
                "crops": made.n_crops,
                "joined": sum(seam["joined"] for seam in seams),
                "cut": sum(seam["cut"] for seam in seams),
                "r_FM": noise.r_FM,
                "r_SW": noise.r_SW,
                "f1": detection_f1(boxes, known)["f1"],
                "cpu": spent,
            }
        )
        print(measure.table(COLUMNS, [tuple(rows[-1].values())]), flush=True)
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = Path(os.environ.get("TRACKLEARN_TEST_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--out", type=Path, default=measure.RESULTS)
    given = parser.parse_args()
    one_thread()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        film = given.data / "video" / f"{FILM}.mp4"
        rows = rows_of(film, film.with_suffix(".gt.txt"), folder)
        film_camera(WORLD, 0, folder / "world")
        rows += rows_of(folder / "world.mp4", folder / "world.gt.txt", folder)
    print(measure.table(COLUMNS, [tuple(row.values()) for row in rows]))
    measure.save("scale_pieces", rows, settings={"ways": WAYS, "film": FILM}, folder=given.out)


if __name__ == "__main__":
    main()
