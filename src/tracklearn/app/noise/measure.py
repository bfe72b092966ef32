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

from tracklearn.types import Array, NoiseRates, Refusal

if TYPE_CHECKING:
    from tracklearn.store.film.mot import Boxes

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
        from tracklearn.app.noise import bars
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
        raise Refusal(f"--out is {out}: expected a .png (picture) or a .json file (figures)")
    if out.exists():
        raise FileExistsError(f"{out} exists: choose another --out, or remove it")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {out.parent}")
    return out


def pair(tracks: Sequence[str | Path], truths: Sequence[str | Path]) -> dict[str, tuple[Path, Path]]:
    """Sequence -> (tracker's file, ground-truth file).

    A file's sequence is its name, without `.gt` at its end; that of a file gt.txt is its folder's. A folder
    stands for its .txt files and for the NAME/gt/gt.txt and NAME/gt.txt below it; of two of one sequence that
    called gt is its ground truth and the other its tracks. Files that share no name at all are paired as they
    come, and called after the ground truth.

    Raises:
        FileNotFoundError: a path is not there, or a folder holds no such file.
        ValueError: one side has a sequence that the other lacks, or has one twice.
    """
    left, right = _named(tracks, true=False), _named(truths, true=True)
    names, true_names = [name for name, _ in left], [name for name, _ in right]
    folders = any(Path(path).is_dir() for path in (*tracks, *truths))
    if not folders and len(left) == len(right) and not set(names) & set(true_names):
        left = [(name, path) for (_, path), name in zip(left, true_names, strict=True)]
        names = true_names
    for side, listed in (("--tracks", names), ("--truth", true_names)):
        twice = sorted(name for name in set(listed) if listed.count(name) > 1)
        if twice:
            raise Refusal(f"{side} has the sequence {twice[0]} {listed.count(twice[0])} times: name it once")
    for side, lacking in (
        ("ground truth (--truth)", set(names) - set(true_names)),
        ("tracker's file (--tracks)", set(true_names) - set(names)),
    ):
        if lacking:
            raise Refusal(
                f"no {side} for {', '.join(sorted(lacking))}: give both sides the same sequences, "
                "files named alike or in the same order"
            )
    truth = dict(right)
    return {name: (path, truth[name]) for name, path in left}


def _named(paths: Sequence[str | Path], *, true: bool) -> list[tuple[str, Path]]:
    found: list[tuple[str, Path]] = []
    for path in map(Path, paths):
        if path.is_dir():
            names = ("*.txt", "*.txt.gz", "*/gt/gt.txt", "*/gt.txt")
            inside = [file for name in names for file in path.glob(name) if not file.name.startswith(".")]
            if not inside:
                raise FileNotFoundError(f"no .txt file in {path}, and no NAME/gt/gt.txt")
            names_there = [_name(file) for file in inside]
            found += sorted(
                (name, file)
                for name, file in zip(names_there, inside, strict=True)
                if names_there.count(name) == 1 or f".{_stem(file)}".endswith(".gt") == true
            )
        elif path.is_file():
            found.append((_name(path), path))
        else:
            raise FileNotFoundError(f"no such file or folder: {path}")
    return found


def _stem(file: Path) -> str:
    return file.name.removesuffix(".gz").removesuffix(".txt") if file.suffix == ".gz" else file.stem


def _name(file: Path) -> str:
    stem = _stem(file)
    if stem != "gt":
        return stem.removesuffix(".gt")
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
    from tracklearn.app.noise import mismatch
    from tracklearn.app.noise.bars import stretches
    from tracklearn.core import noise

    rates, bars, rows, n_persons = {}, {}, [], 0
    warnings: list[str] = []
    for camid, (name, (tracks_file, truth_file)) in enumerate(pairs.items()):
        files = Path(tracks_file), Path(truth_file)
        boxes, truth, pid, said = read_pair(files, min_iou=min_iou)
        warnings += said
        persons = len(np.unique(truth.track))
        rates[name] = noise.measure(boxes.track, pid, 0 * pid, min_run=min_run, truth_pairs=persons)
        warnings += mismatch.doubts(boxes, truth, rates[name], files)
        bars[name] = stretches(boxes.track, boxes.frame, pid, min_run)
        rows.append((boxes.track, pid, np.full_like(pid, camid)))
        n_persons += persons
    track, pid, camid_ = (np.concatenate(column) for column in zip(*rows, strict=True))
    pooled = noise.measure(track, pid, camid_, min_run=min_run, truth_pairs=n_persons)
    return Measured(rates, pooled, bars, tuple(warnings))


def read_pair(files: tuple[Path, Path], *, min_iou: float = 0.5) -> tuple[Boxes, Boxes, Array, list[str]]:
    """A tracker's boxes, the true ones of the same film, and who is in each of the tracker's.

    Args:
        files: of tracks and truth. min_iou: least overlap of a match, in (0, 1].

    Returns:
        Tracks and truth, each box of a number once in a frame; (n,) int64 person in each box of a track, −1
        for nobody; what was left out, a sentence each.

    Raises:
        FileNotFoundError, ValueError: as `measure`.
    """
    from tracklearn.app.noise import mismatch
    from tracklearn.core import noise
    from tracklearn.store.film import mot

    boxes, said = mismatch.once(mot.read_results(files[0]), files[0])
    truth, of_truth = mismatch.once(mot.read_truth(files[1]), files[1])
    left_out = [f"{files[0]}: {n:,} rows are left out: {why}" for why, n in boxes.left_out.items()]
    if not np.isin(boxes.frame, truth.frame).any():
        raise Refusal(f"{files[0]} and {files[1]} have no frame in common: are they of one sequence?")
    pid = noise.match_boxes(boxes.frame, boxes.box, truth.frame, truth.track, truth.box, min_iou=min_iou)
    mismatch.refuse_misread(boxes, truth, float(np.mean(pid >= 0)), min_iou, files)
    return boxes, truth, pid, [*left_out, *said, *of_truth]


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
