"""A tracker's noise: measured against ground truth, shown, and put into a clean set.

Measuring works on MOTChallenge files. Simulating needs a set with a truth file and writes another assignment
of its crops to tracklets, which training takes like any other set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn.types import Array, NoiseRates, Tracklets

if TYPE_CHECKING:
    from tracklearn.core.simulate import Simulated

_HEADER = (
    "sequence",
    "tracklets",
    "persons",
    "r_FM",
    "r_FM_all",
    "r_SW",
    "matched",
    "holding 1, 2, … persons",
)


@dataclass(frozen=True, eq=False)
class Measured:
    """The noise of one or more sequences.

    Args:
        rates: sequence -> its rates.
        pooled: rates of all sequences together, their counts added up.
        bars: sequence -> (b, 4) int64, what the picture shows; see `bars.stretches`.
        warnings: what speaks against the figures, and what was left out, a sentence each.
    """

    rates: Mapping[str, NoiseRates]
    pooled: NoiseRates
    bars: Mapping[str, Array]
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The pooled rates by the names of `NoiseRates`, those of each under `sequences`, and `warnings`."""
        sequences = [{"name": name, **rates.to_dict()} for name, rates in self.rates.items()]
        return {**self.pooled.to_dict(), "sequences": sequences, "warnings": list(self.warnings)}

    def table(self) -> str:
        """One line of text a sequence, and one for all where there are several."""
        rows = list(self.rates.items())
        if len(rows) > 1:
            rows.append(("all", self.pooled))
        lines = [_HEADER, *(_line(name, rates) for name, rates in rows)]
        width = [max(len(line[i]) for line in lines) for i in range(len(_HEADER))]

        def text(line: tuple[str, ...]) -> str:
            name, *numbers, holding = (f"{cell:>{w}}" for cell, w in zip(line, width, strict=True))
            return "  ".join([f"{name.strip():<{width[0]}}", *numbers, holding.strip()])

        return "\n".join(map(text, lines))

    def save(self, out: str | Path) -> Path:
        """Write `out`: the picture (.png), or the figures for `simulate --like` (.json).

        Raises:
            ValueError: another suffix. FileExistsError: the file is there.
        """
        from tracklearn.app import bars
        from tracklearn.store.files import write_atomic, write_json

        out = writable(out)
        if out.suffix.lower() == ".json":
            write_json(out, self.to_dict())
        else:
            panels = {self._title(name): stretches for name, stretches in self.bars.items()}
            write_atomic(out, bars.draw(panels))
        return out

    def _title(self, name: str) -> str:
        rates = self.rates[name]
        return (
            f"{name}:  {rates.n_tracklets} of {len(np.unique(self.bars[name][:, 0]))} tracklets hold "
            f"{rates.n_persons} persons,  r_FM {rates.r_FM:.2f},  r_SW {rates.r_SW:.2f},  "
            f"{rates.matched:.0%} of boxes matched"
        )


def writable(out: str | Path) -> Path:
    """`out` as a path, once it is clear that `Measured.save` can write it.

    Raises:
        ValueError: its suffix is neither .png nor .json. FileExistsError: it is there.
    """
    out = Path(out)
    if out.suffix.lower() not in (".png", ".json"):
        raise ValueError(f"--out is {out}: expected a .png (picture) or a .json file (figures)")
    if out.exists():
        raise FileExistsError(f"{out} exists: choose another --out, or remove it")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {out.parent}")
    return out


def pair(tracks: Sequence[str | Path], truths: Sequence[str | Path]) -> dict[str, tuple[Path, Path]]:
    """Sequence -> (tracker's file, ground-truth file).

    A file's sequence is its name; that of a file gt.txt is its folder's. A folder stands for its .txt files
    and for the NAME/gt/gt.txt and NAME/gt.txt below it. Files that share no name at all are paired as they
    come, and called after the ground truth.

    Raises:
        FileNotFoundError: a path is not there, or a folder holds no such file.
        ValueError: one side has a sequence that the other lacks, or has one twice.
    """
    left, right = _named(tracks), _named(truths)
    names, true_names = [name for name, _ in left], [name for name, _ in right]
    folders = any(Path(path).is_dir() for path in (*tracks, *truths))
    if not folders and len(left) == len(right) and not set(names) & set(true_names):
        left = [(name, path) for (_, path), name in zip(left, true_names, strict=True)]
        names = true_names
    for side, listed in (("--tracks", names), ("--truth", true_names)):
        twice = sorted(name for name in set(listed) if listed.count(name) > 1)
        if twice:
            raise ValueError(
                f"{side} has the sequence {twice[0]} {listed.count(twice[0])} times: name it once"
            )
    for side, lacking in (
        ("ground truth (--truth)", set(names) - set(true_names)),
        ("tracker's file (--tracks)", set(true_names) - set(names)),
    ):
        if lacking:
            raise ValueError(
                f"no {side} for {', '.join(sorted(lacking))}: give both sides the same sequences, "
                "files named alike or in the same order"
            )
    truth = dict(right)
    return {name: (path, truth[name]) for name, path in left}


def _named(paths: Sequence[str | Path]) -> list[tuple[str, Path]]:
    found: list[tuple[str, Path]] = []
    for path in map(Path, paths):
        if path.is_dir():
            names = ("*.txt", "*.txt.gz", "*/gt/gt.txt", "*/gt.txt")
            inside = [file for name in names for file in path.glob(name) if not file.name.startswith(".")]
            if not inside:
                raise FileNotFoundError(f"no .txt file in {path}, and no NAME/gt/gt.txt")
            found += sorted((_name(file), file) for file in inside)
        elif path.is_file():
            found.append((_name(path), path))
        else:
            raise FileNotFoundError(f"no such file or folder: {path}")
    return found


def _name(file: Path) -> str:
    stem = file.name.removesuffix(".gz").removesuffix(".txt") if file.suffix == ".gz" else file.stem
    if stem != "gt":
        return stem
    folder = file.resolve().parent
    return folder.parent.name if folder.name == "gt" else folder.name


def measure(
    pairs: Mapping[str, tuple[str | Path, str | Path]], *, min_iou: float = 0.5, min_run: int = 6
) -> Measured:
    """The noise of trackers' results against the ground truth of the same sequences (METHODS 1.2).

    Args:
        pairs: sequence -> (tracker's file, ground-truth file), in MOTChallenge format; see `pair`.
        min_iou: least overlap of a match, in (0, 1].
        min_run: rows that a person must be in a tracklet without a break, to count.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: a file cannot be read, holds detections without tracks, or two files have no frame in
            common, or match only once one is read in another way; min_iou or min_run is out of range.
    """
    from tracklearn.app import mismatch
    from tracklearn.app.bars import stretches
    from tracklearn.core import noise
    from tracklearn.store.film import mot

    rates, bars, rows, n_persons = {}, {}, [], 0
    warnings: list[str] = []
    for camid, (name, (tracks_file, truth_file)) in enumerate(pairs.items()):
        files = Path(tracks_file), Path(truth_file)
        boxes, said = mismatch.once(mot.read_results(files[0]), files[0])
        truth, of_truth = mismatch.once(mot.read_truth(files[1]), files[1])
        left_out = [f"{files[0]}: {n:,} rows are left out: {why}" for why, n in boxes.left_out.items()]
        warnings += [*left_out, *said, *of_truth]
        if not np.isin(boxes.frame, truth.frame).any():
            raise ValueError(
                f"{tracks_file} and {truth_file} have no frame in common: are they of one sequence?"
            )
        pid = noise.match_boxes(boxes.frame, boxes.box, truth.frame, truth.track, truth.box, min_iou=min_iou)
        mismatch.refuse_misread(boxes, truth, float(np.mean(pid >= 0)), min_iou, files)
        persons = len(np.unique(truth.track))
        rates[name] = noise.measure(boxes.track, pid, 0 * pid, min_run=min_run, truth_pairs=persons)
        warnings += mismatch.doubts(boxes, truth, rates[name], files)
        bars[name] = stretches(boxes.track, boxes.frame, pid, min_run)
        rows.append((boxes.track, pid, np.full_like(pid, camid)))
        n_persons += persons
    track, pid, camid_ = (np.concatenate(column) for column in zip(*rows, strict=True))
    pooled = noise.measure(track, pid, camid_, min_run=min_run, truth_pairs=n_persons)
    return Measured(rates, pooled, bars, tuple(warnings))


def _line(name: str, rates: NoiseRates) -> tuple[str, ...]:
    histogram = rates.persons_per_tracklet
    holding = [histogram.get(k, 0) for k in range(1, max(histogram, default=0) + 1)]
    return (
        name,
        str(rates.n_tracklets),
        str(rates.n_persons),
        *(f"{x:.3f}" if math.isfinite(x) else "–" for x in (rates.r_FM, rates.r_FM_all, rates.r_SW)),
        f"{rates.matched:.1%}",
        " / ".join(map(str, holding)),
    )


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
            raise ValueError("--preset names both rates: leave out --fragmentation and --switch, or --preset")
        if preset not in PRESETS:
            raise ValueError(f'no preset "{preset}": expected one of {", ".join(PRESETS)}')
        fragmentation, switch = PRESETS[preset]
    if like is not None:
        measured = _read_measured(Path(like))
        histogram = measured.histogram
        fragmentation = measured.r_FM if fragmentation is None else fragmentation
        switch = measured.r_SW if switch is None else switch
    if fragmentation is None or switch is None:
        raise ValueError(
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
        raise ValueError(
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
    Box, score and picture stay. Crops left alone keep frame numbers and times.
    """
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
        box=tracklets.box[order],
        score=tracklets.score[order],
        crop=tracklets.crop[order],
        camid=camid,
        source=np.arange(len(camid)),
    )
