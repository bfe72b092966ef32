"""What a site of many cameras takes: a sketch from figures of one core, anybody's own if need be.

    python -m benchmarks.scale --cameras 1000 [--hours 24] [--fps 25] [--stride 5] [--detector motion] ...
    python -m benchmarks.scale --measure [--data DIR] [--out DIR]

The first prints what a day of film comes to: frames, core-hours of ingest, crops and bytes, core-hours of
extraction, and what exact clustering of so many tracks costs. Its figures are those of `benchmarks/results/
scale.json`, which the second measures (frames a second of processor time through ingest for each detector,
crops, bytes, images a second through networks); each is an argument too. Clustering is extrapolated from the
100,000 tracklets of `benchmarks/results/clustering.json` by the square of their number, as it grows.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import measure

MEASURED = measure.RESULTS / "scale.json"
DAY = 24.0
EXACT = 100_000, 2048  # tracklets and width of the largest clustering that was measured
SIZES = (100_000, 1_000_000, 10_000_000)


@dataclass(frozen=True)
class Site:
    """What is filmed in a day.

    Args:
        cameras: how many. hours: of film from each. fps: frames a second. stride: every so manieth is used.
    """

    cameras: int
    hours: float
    fps: float
    stride: int


@dataclass(frozen=True)
class Figures:
    """What one core does, and what comes out.

    Args:
        decoded: frames a second that are only decoded.
        ingested: frames a second that are decoded, searched, tracked and cut.
        crops: for each frame that is used. crop_bytes: of one.
        track: crops of one track.
        embedded: images a second through the network.
    """

    decoded: float
    ingested: float
    crops: float
    crop_bytes: float
    track: float
    embedded: float


@dataclass(frozen=True)
class Day:
    """What a day comes to: counts, bytes, hours of one core."""

    frames: float
    used: float
    ingest: float
    crops: float
    bytes: float
    tracks: float
    extraction: float

    @property
    def cores(self) -> float:
        """Cores that work all day to keep up."""
        return (self.ingest + self.extraction) / DAY


def day(site: Site, figures: Figures) -> Day:
    """The sketch.

    >>> quiet = Figures(decoded=400, ingested=100, crops=2, crop_bytes=5e3, track=100, embedded=200)
    >>> found = day(Site(cameras=10, hours=1, fps=10, stride=1), quiet)
    >>> found.frames, found.ingest, found.crops, found.tracks, found.extraction
    (360000.0, 1.0, 720000.0, 7200.0, 1.0)
    """
    frames = site.cameras * site.hours * 3600 * site.fps
    used = frames / site.stride
    seconds = used / figures.ingested + (frames - used) / figures.decoded
    crops = used * figures.crops
    return Day(
        frames=frames,
        used=used,
        ingest=seconds / 3600,
        crops=crops,
        bytes=crops * figures.crop_bytes,
        tracks=crops / figures.track,
        extraction=crops / figures.embedded / 3600,
    )


def clustering(n: float, width: int, seconds: float) -> tuple[float, float]:
    """Core-hours of exact clustering of n tracks, and GB of their features.

    Args:
        n: tracks. width: of a feature. seconds: of one core for the size that was measured.

    >>> clustering(1_000_000, 512, 160.0)
    (1.1111111111111112, 2.048)
    """
    size, wide = EXACT
    return seconds * (n / size) ** 2 * width / wide / 3600, n * width * 4 / 1e9


def tables(
    site: Site, figures: Figures, *, width: int, seconds: dict[str, float], price: float | None
) -> str:
    """The sketch as text."""
    found = day(site, figures)
    rows: list[tuple[str, Any]] = [
        ("frames of film", round(found.frames)),
        ("frames used", round(found.used)),
        ("ingest, core-hours", found.ingest),
        ("crops", round(found.crops)),
        ("crops, GB", found.bytes / 1e9),
        ("tracks", round(found.tracks)),
        ("extraction, core-hours", found.extraction),
        ("cores to keep up with both", found.cores),
    ]
    if price is not None:
        rows.append(("price of both", price * (found.ingest + found.extraction)))
    lines = [measure.table(("a day", ""), rows), ""]
    sizes = sorted({*SIZES, round(found.tracks)})
    columns = [("tracks", "features, GB", *(f"{name}, core-hours" for name in seconds))]
    body = []
    for n in sizes:
        hours = [clustering(n, width, of)[0] for of in seconds.values()]
        body.append((n, clustering(n, width, 1.0)[1], *hours))
    lines.append(measure.table(columns[0], body))
    return "\n".join(lines)


def measured(path: Path = MEASURED) -> dict[str, Any]:
    """What `--measure` wrote; empty where nothing was."""
    return json.loads(path.read_text())["result"] if path.is_file() else {}


def exact_seconds() -> dict[str, float]:
    """Seconds of one core for clustering 100,000 tracklets, float32 and int8, of `benchmarks.clustering`."""
    found = json.loads((measure.RESULTS / "clustering.json").read_text())["result"]["sizes"]
    (largest,) = [row for row in found if row["n"] == EXACT[0]]
    return {"float32": largest["exact"]["cpu_s"], "int8": largest["int8"]["cpu_s"]}


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    site = parser.add_argument_group("the site")
    site.add_argument("--cameras", type=int, default=1000)
    site.add_argument("--hours", type=float, default=24, help="of film from each camera")
    site.add_argument("--fps", type=float, default=25)
    site.add_argument("--stride", type=int, default=5, help="every so manieth frame is used")
    site.add_argument("--detector", default="motion", help="whose measured figures are taken")
    site.add_argument("--network", default="osnet_x0_25", help="whose measured images a second are taken")
    site.add_argument("--price", type=float, help="of a core for an hour, in any currency")
    own = parser.add_argument_group("your own figures, of one core")
    own.add_argument("--decoded", type=float, help="frames a second that are only decoded")
    own.add_argument("--ingested", type=float, help="frames a second through ingest")
    own.add_argument("--crops", type=float, help="for each frame that is used: about the people in view")
    own.add_argument("--crop-bytes", type=float)
    own.add_argument("--track", type=float, help="crops of one track")
    own.add_argument("--embedded", type=float, help="images a second through the network")
    own.add_argument("--width", type=int, default=512, help="of a feature")
    own.add_argument("--clustering", type=float, help="seconds for 100,000 tracklets of width 2048")
    parser.add_argument("--measure", action="store_true", help="measure the figures here")
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("TRACKLEARN_TEST_DATA", "../shared/data"))
    )
    parser.add_argument("--out", type=Path, default=measure.RESULTS, help="folder of the results")
    given = parser.parse_args(argv)
    if given.measure:
        from benchmarks import scale_measure

        result = scale_measure.all_of(given.data)
        print(scale_measure.tables(result))
        measure.save("scale", result, settings=scale_measure.SETTINGS, folder=given.out)
        return int(len({way["digest"] for way in result["engines"].values()}) > 1)
    found = measured(given.out / MEASURED.name)
    known = {**found.get("decode", {}), **found.get("ingest", {}).get(given.detector, {})}
    known |= {"embedded": found.get("extraction", {}).get(given.network)}
    names = ("decoded", "ingested", "crops", "crop_bytes", "track", "embedded")
    chosen = {
        name: getattr(given, name) if getattr(given, name) is not None else known.get(name) for name in names
    }
    if missing := [f"--{name.replace('_', '-')}" for name, value in chosen.items() if value is None]:
        print(
            f"nothing was measured for this: give {', '.join(missing)}, or --measure first", file=sys.stderr
        )
        return 2
    seconds = {"exact": given.clustering} if given.clustering else exact_seconds()
    asked = Site(given.cameras, given.hours, given.fps, given.stride)
    print(f"{asked}\n{Figures(**chosen)}\n")
    print(tables(asked, Figures(**chosen), width=given.width, seconds=seconds, price=given.price))
    return 0


if __name__ == "__main__":
    sys.exit(main())
