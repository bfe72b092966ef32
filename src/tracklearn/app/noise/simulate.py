"""A clean set with the noise of a tracker put into it, at rates that are asked for or were measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn.types import Array, Refusal, Tracklets

if TYPE_CHECKING:
    from tracklearn.core.simulate import Simulated


@dataclass(frozen=True)
class Level:
    """How much noise is asked for.

    Args:
        r_FM: tracklets per (person, camera). r_SW: persons per tracklet.
        histogram: persons -> tracklets observed, None for the default of `core.simulate`.
    """

    r_FM: float
    r_SW: float
    histogram: dict[int, int] | None = None


def level(
    *,
    fragmentation: float | None = None,
    switch: float | None = None,
    preset: str | None = None,
    like: str | Path | None = None,
) -> Level:
    """The noise asked for by two rates, by the name of a preset, or by a measurement.

    Args:
        fragmentation: r_FM. switch: r_SW. Both, where `like` does not give them.
        preset: name in `core.simulate.PRESETS`, instead of rates.
        like: JSON file of `noise measure`: its histogram and, unless given, its rates.

    Raises:
        FileNotFoundError: `like` is not there.
        ValueError: rates missing or given twice, an unknown preset, or a file that holds no measurement.
    """
    from tracklearn.core.simulate import PRESETS

    histogram = None
    if preset is not None:
        if fragmentation is not None or switch is not None:
            raise Refusal("--preset names both rates: leave out --fragmentation and --switch, or --preset")
        if preset not in PRESETS:
            raise Refusal(f'no preset "{preset}": expected one of {", ".join(PRESETS)}')
        fragmentation, switch = PRESETS[preset]
    if like is not None:
        measured = _read_measured(Path(like))
        histogram = measured.histogram
        fragmentation = measured.r_FM if fragmentation is None else fragmentation
        switch = measured.r_SW if switch is None else switch
    if fragmentation is None or switch is None:
        raise Refusal(
            "no noise level: give --fragmentation and --switch, or --preset NAME, or --like FILE.json"
        )
    return Level(fragmentation, switch, histogram)


def _read_measured(path: Path) -> Level:
    from tracklearn.store.files import read_json

    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    found = read_json(path)
    try:
        histogram = {int(k): int(v) for k, v in found["persons_per_tracklet"].items()}
        return Level(float(found["r_FM"]), float(found["r_SW"]), histogram)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise Refusal(
            f"{path} holds no measured noise (r_FM, r_SW, persons_per_tracklet): "
            "write it with tracklearn noise measure --out FILE.json"
        ) from None


def simulate(
    set_path: str | Path, out: str | Path, noise: Level, *, seed: int = 0, min_segment: int | None = None
) -> dict[str, Any]:
    """Write the set at `set_path` with a tracker's mistakes in it (METHODS 1.3); no image is copied.

    The truth file is needed and is carried over beside `out`. Crops of nobody (−1) keep their tracklets.

    Args:
        set_path: a set with a truth file; its persons count, not its tracklets.
        out: the set to write.
        noise: rates and histogram; see `level`.
        seed: of every random choice.
        min_segment: least crops of a segment where a person's track is cut; 2, or 1 where the set is
            Market-1501's, whose tracks have four images.

    Returns:
        `set`, `seed`, `asked`, `achieved` (of `NoiseRates`), `n_tracklets`, `n_crops`; what the manifest of
        `out` holds under settings.noise, and more.

    Raises:
        FileNotFoundError: the set or its truth is not there.
        FileExistsError: `out` exists.
        ValueError: the rates cannot be reached.
    """
    from tracklearn.core import simulate as core
    from tracklearn.store.sets import referenced
    from tracklearn.store.sets.tracklets import open_set, read_truth

    base, truth = open_set(set_path), read_truth(set_path)
    settings = base.manifest["settings"]
    if min_segment is None:
        min_segment = 1 if settings.get("benchmark") == "market1501" else 2
    made = core.simulate(
        truth.pid[base.tracklets.crop],
        base.tracklets.camid[base.tracklets.tracklet],
        _chronological(base.tracklets, anew=settings.get("benchmark", "world") != "world"),
        r_FM=noise.r_FM,
        r_SW=noise.r_SW,
        seed=seed,
        histogram=noise.histogram,
        min_segment=min_segment,
    )
    tracklets = rearranged(base.tracklets, made)
    record = {
        "seed": seed,
        "asked": {
            "r_FM": noise.r_FM,
            "r_SW": noise.r_SW,
            "persons_per_tracklet": noise.histogram or core.OBSERVED,
            "min_segment": min_segment,
        },
        "achieved": made.rates.to_dict(),
        "base": base.digest,
    }
    path = referenced.regroup(base, tracklets, out, settings={**settings, "noise": record})
    return {"set": str(path), **record, "n_tracklets": len(tracklets), "n_crops": tracklets.n_crops}


def _chronological(tracklets: Tracklets, *, anew: bool) -> Array:
    """(n,) place of each crop in time. Tracklets stay in one piece, by first frame and then by number.

    Args:
        tracklets: the set.
        anew: frame numbers begin anew in every tracklet, as those of MARS do: then by number alone. A first
            frame above 0 says only that the images before it are missing.
    """
    first = 0 * tracklets.tracklet if anew else tracklets.frame[tracklets.start[tracklets.tracklet]]
    place = np.empty(tracklets.n_crops, np.int64)
    place[np.lexsort((tracklets.frame, tracklets.tracklet, first))] = np.arange(tracklets.n_crops)
    return place


def rearranged(tracklets: Tracklets, made: Simulated) -> Tracklets:
    """The crops in their new tracklets; those left alone stay together behind them.

    A crop's frame number becomes its place in its new tracklet, whose segments are not in order of time, and
    its time follows from that at the usual step: the pictures' times would show where segments were joined.
    So would their places: all boxes become one, as those of pictures without a film. Score and picture stay.
    Crops left alone keep frame numbers and times.
    """
    from tracklearn.store.benchmarks.parts import NOMINAL_BOX

    alone = made.tracklet < 0
    old, rest = np.unique(tracklets.tracklet[alone], return_inverse=True)
    tracklet, frame = made.tracklet.copy(), made.place.copy()
    tracklet[alone] = len(made.camid) + rest
    frame[alone] = tracklets.frame[alone]
    step = np.diff(tracklets.time)[np.diff(tracklets.tracklet) == 0]
    time = frame * (float(np.median(step)) if len(step) else 0.0)
    time[alone] = tracklets.time[alone]
    order = np.lexsort((frame, tracklet))
    camid = np.r_[made.camid, tracklets.camid[old]]
    return Tracklets(
        tracklet=tracklet[order],
        frame=frame[order],
        time=time[order],
        box=np.broadcast_to(np.array(NOMINAL_BOX, np.float32), (len(order), 4)),
        score=tracklets.score[order],
        crop=tracklets.crop[order],
        camid=camid,
        source=np.arange(len(camid)),
    )
