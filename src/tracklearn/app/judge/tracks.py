"""Tracks and people against ground truth: one number for a person in all films, or not.

IDF1, HOTA and switches are those of the package `trackers`, over the frames of all films one after the other;
people are one number in all of them, in the truth too. Fragmentation, switches of persons, false merges and
splits are counted as METHODS 1.2 counts noise, a person everywhere being one.

Nobody is taken out before: boxes on people whom the truth does not count are false.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn.app.formats import decimal, number, percent, slug
from tracklearn.app.noise.measure import pair, read_pair
from tracklearn.core import noise
from tracklearn.core.boxes import iou
from tracklearn.types import Array, Refusal

if TYPE_CHECKING:
    from tracklearn.store.film.mot import Boxes
    from tracklearn.store.identities.folder import Identities

_FILMED = ("video", "results")


@dataclass(frozen=True)
class TrackScores:
    """How right tracks are; fractions 0-1, counts.

    Args:
        IDF1, IDP, IDR: of boxes with the right number, numbers matched one to one over everything.
        HOTA, DetA, AssA: means over 19 overlaps.
        MOTA, switches: at an overlap of 0.5; a person whose number changes from one film to the next counts.
        r_FM: numbers a person has. r_SW: persons a number has. Both count six frames in a row or more.
        merges, splits: persons too many in numbers, numbers too many of persons.
        numbers: of the tracks, with those of nobody. people: of the truth. found: of them with a number.
    """

    IDF1: float
    IDP: float
    IDR: float
    HOTA: float
    DetA: float
    AssA: float
    MOTA: float
    switches: int
    r_FM: float
    r_SW: float
    merges: int
    splits: int
    numbers: int
    people: int
    found: int

    def to_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class PairRates:
    """How right it is which tracklets are one person, over their pairs; fractions 0-1, nan without a pair.

    Args:
        precision: of pairs said to be one. recall: of pairs that are. f1: both. n_said, n_true: pairs.
    """

    precision: float
    recall: float
    f1: float
    n_said: int
    n_true: int


def pair_rates(label: Array, pid: Array, camid: Array | None = None) -> PairRates:
    """Rates of pairs of tracklets that are said to be one person.

    Args:
        label: (t,) int person that each is said to be, below 0 for nobody: one of no pair.
        pid: (t,) int person that each is, −1 unknown: left out.
        camid: (t,) int; where given, pairs of two cameras alone count.

    >>> pair_rates(np.array([0, 0, 1, 1]), np.array([5, 5, 5, 6]))
    PairRates(precision=0.5, recall=0.3333333333333333, f1=0.4, n_said=2, n_true=3)
    """
    known = np.asarray(pid) >= 0
    label, pid = np.asarray(label, np.int64)[known], np.asarray(pid, np.int64)[known]
    alone = label < 0
    label = np.where(alone, label.max(initial=0) + 1 + np.arange(len(label)), label)

    def pairs(*columns: Array) -> int:
        def inside(columns: Sequence[Array]) -> int:
            count = np.unique(np.stack(columns), axis=1, return_counts=True)[1]
            return int((count * (count - 1) // 2).sum())

        if not len(label):
            return 0
        within = 0 if camid is None else inside([*columns, np.asarray(camid, np.int64)[known]])
        return inside(columns) - within

    right, said, true = pairs(label, pid), pairs(label), pairs(pid)
    nan = float("nan")
    return PairRates(
        right / said if said else nan,
        right / true if true else nan,
        2 * right / (said + true) if said + true else nan,
        said,
        true,
    )


def scores(films: Sequence[tuple[Boxes, Boxes]], *, min_iou: float = 0.5, min_run: int = 6) -> TrackScores:
    """How right the tracks of films are.

    Args:
        films: (tracks, truth) of each; both with one number for a person in all films, each once in a frame.
        min_iou: least overlap of a match, for all but HOTA.
        min_run: frames in a row that a person must be in a number to count for r_FM, r_SW, merges and splits.

    Source: Ristani et al., ECCV 2016 workshops (IDF1); Luiten et al., IJCV 2021 (HOTA); Bernardin,
    Stiefelhagen, 2008 (MOTA, switches); all by the package `trackers` (Apache-2.0), which follows TrackEval.
    """
    from trackers import eval as metrics

    said, true, overlap = by_frame(films)
    identity = metrics.compute_identity_metrics(true, said, overlap, threshold=min_iou)
    hota = metrics.compute_hota_metrics(true, said, overlap)
    clear = metrics.compute_clear_metrics(true, said, overlap, threshold=min_iou)
    person = [noise.match_boxes(a.frame, a.box, b.frame, b.track, b.box, min_iou=min_iou) for a, b in films]
    pid, track = np.concatenate(person), np.concatenate([a.track for a, _ in films])
    everybody = len(np.unique(np.concatenate([b.track for _, b in films])))
    rates = noise.measure(track, pid, np.zeros_like(pid), min_run=min_run, truth_pairs=everybody)
    inside = round(rates.n_persons * rates.r_FM) if rates.n_persons else 0
    return TrackScores(
        **{name: float(identity[name]) for name in ("IDF1", "IDP", "IDR")},
        **{name: float(hota[name]) for name in ("HOTA", "DetA", "AssA")},
        MOTA=float(clear["MOTA"]),
        switches=int(clear["IDSW"]),
        r_FM=rates.r_FM,
        r_SW=rates.r_SW,
        merges=inside - rates.n_tracklets,
        splits=inside - rates.n_persons,
        numbers=len(np.unique(track)),
        people=everybody,
        found=rates.n_persons,
    )


def by_frame(films: Sequence[tuple[Boxes, Boxes]]) -> tuple[list[Array], list[Array], list[Array]]:
    """For every frame of all films the numbers of tracks and of truth, from 0, and overlaps (true, said)."""
    numbers = [np.unique(np.concatenate([film[k].track for film in films])) for k in (0, 1)]
    said: list[Array] = []
    true: list[Array] = []
    overlap: list[Array] = []
    for film in films:
        for frame in np.union1d(film[0].frame, film[1].frame).tolist():
            rows = [slice(*np.searchsorted(side.frame, [frame, frame + 1])) for side in film]
            for k, out in ((0, said), (1, true)):
                out.append(np.searchsorted(numbers[k], film[k].track[rows[k]]))
            overlap.append(iou(film[1].box[rows[1]], film[0].box[rows[0]]))
    return said, true, overlap


def read_persons(path: str | Path) -> dict[int, int]:
    """Which numbers of a ground truth are one person: number -> the least of his.

    Lines are `NAME: number number …`; what follows a # is left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line is of another form, or a number comes twice.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    person: dict[int, int] = {}
    for line_number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        said = line.split("#")[0].strip()
        if not said:
            continue
        found = re.fullmatch(r"[^:]*:((?:\s*\d+)+)", said)
        if found is None:
            raise Refusal(f"{path}, line {line_number}: expected NAME: number number …, got {said[:60]!r}")
        numbers = [int(text) for text in found[1].split()]
        if twice := [n for i, n in enumerate(numbers) if n in person or n in numbers[:i]]:
            raise Refusal(f"{path}, line {line_number}: {twice[0]} is there twice")
        person |= dict.fromkeys(numbers, min(numbers))
    return person


def judge(
    tracks: Sequence[str | Path],
    truths: Sequence[str | Path],
    *,
    persons: str | Path | None = None,
    min_iou: float = 0.5,
    min_run: int = 6,
) -> dict[str, Any]:
    """Judge MOTChallenge files, or a folder of identities, by the ground truth of the same films.

    Args:
        tracks: files or folders of them, or one folder that `tracklearn identities` wrote.
        truths: ground truth, file or folder, paired by name or order as `noise measure` does.
        persons: file that says which numbers of the truth are one person; see `read_persons`.
        min_iou, min_run: as `scores`.

    Returns:
        `scores`, of a folder of identities also `pairs` (`all`, and `across` cameras; None where films cannot
        be told), `films`, `warnings`.

    Raises:
        FileNotFoundError, ValueError: as `noise.measure.pair` and `read_pair`, `read_persons`.
    """
    from tracklearn.store.identities.folder import Identities

    folder = Path(tracks[0]) if len(tracks) == 1 else None
    table = None
    if folder is not None and (folder / "identities.parquet").is_file():
        table = Identities(folder)
        if not (folder / "mot").is_dir():
            raise Refusal(f"{folder} has no corrected tracks: its sets are folders of crops, no films")
        tracks = [folder / "mot"]
    same = read_persons(persons) if persons is not None else {}
    films, warnings = {}, []
    for name, (tracks_file, truth_file) in pair(tracks, truths).items():
        boxes, truth, _, said = read_pair((tracks_file, truth_file), min_iou=min_iou)
        warnings += said
        films[name if table is None else tracks_file.stem] = (boxes, _as_persons(truth, same))
    result: dict[str, Any] = {
        "scores": scores(list(films.values()), min_iou=min_iou, min_run=min_run).to_dict(),
        "films": list(films),
        "warnings": warnings,
    }
    if table is not None:
        rates = _pairs(table, {name: truth for name, (_, truth) in films.items()}, min_iou)
        result["pairs"] = rates
        if rates is None:
            warnings.append("several films of one camera: pairs of parts are not judged")
    return result


def _as_persons(truth: Boxes, same: Mapping[int, int]) -> Boxes:
    """A truth whose numbers are those of persons.

    Raises:
        ValueError: one person is in a frame twice.
    """
    person = np.array([same.get(value, value) for value in truth.track.tolist()], np.int64)
    joined = replace(truth, track=person)
    again = (np.diff(joined.frame) == 0) & (np.diff(joined.track) == 0)
    if again.any():
        at = int(np.argmax(again))
        raise Refusal(
            f"--persons makes one person of two who are in view at once: person {joined.track[at]} in frame "
            f"{joined.frame[at] + 1}"
        )
    return joined


def _pairs(table: Identities, truths: Mapping[str, Boxes], min_iou: float) -> dict[str, Any] | None:
    """Rates over pairs of parts of a table; None where it is not said which film a part is of."""
    from tracklearn.store.sets.tracklets import open_set

    rows = table.rows
    sets = [open_set(table.path / entry["path"]) for entry in table.manifest["sets"]]
    cameras = [
        slug(source["camera"]) or "camera"
        for one in sets
        for source in one.manifest["sources"]
        if source.get("kind") in _FILMED and source.get("status") == "ok"
    ]
    if sorted(cameras) != sorted(truths) or len(set(cameras)) < len(cameras):
        return None
    pid = np.full(len(rows), -1, np.int64)
    for one in sets:
        own = [i for i, row in enumerate(rows) if row["set_digest"] == one.digest]
        of_part = _parts(one.tracklets, [rows[i] for i in own])
        for i, crop in zip(own, of_part, strict=True):
            truth = truths[slug(rows[i]["camera"]) or "camera"]
            frame, box = one.tracklets.frame[crop], one.tracklets.box[crop]
            person = noise.match_boxes(frame, box, truth.frame, truth.track, truth.box, min_iou=min_iou)
            known = person[person >= 0]
            if 2 * len(known) >= len(person) > 0:
                value, times = np.unique(known, return_counts=True)
                pid[i] = value[np.argmax(times)]
    label = np.array([-1 if row["identity"] is None else row["identity"] for row in rows], np.int64)
    camera = np.unique([row["camera"] for row in rows], return_inverse=True)[1]
    return {
        "all": asdict(pair_rates(label, pid)),
        "across": asdict(pair_rates(label, pid, camera)),
        "parts": len(rows),
        "parts_of_known_people": int((pid >= 0).sum()),
    }


def _parts(tracklets: Any, rows: Sequence[Mapping[str, Any]]) -> list[Array]:
    """The rows of a set that each part of a table holds: of parts over one another the shorter first."""
    taken = np.zeros(tracklets.n_crops, bool)
    out: list[Array] = [np.zeros(0, np.int64)] * len(rows)
    for i in sorted(range(len(rows)), key=lambda i: rows[i]["last_frame"] - rows[i]["first_frame"]):
        row = rows[i]
        own = np.arange(tracklets.start[row["track"]], tracklets.start[row["track"] + 1])
        frame = tracklets.frame[own]
        inside = own[(frame >= row["first_frame"]) & (frame <= row["last_frame"])]
        out[i] = inside[~taken[inside]]
        taken[out[i]] = True
    return out


def text(result: Mapping[str, Any]) -> str:
    """What a person is told, a few lines."""
    s = result["scores"]
    share = {name: decimal(100 * s[name], 1) for name in ("IDF1", "HOTA", "DetA", "AssA", "MOTA")}
    lines = [
        f"IDF1 {share['IDF1']}  HOTA {share['HOTA']}  (DetA {share['DetA']}, AssA {share['AssA']})  "
        f"MOTA {share['MOTA']}  switches {number(s['switches'])}",
        f"r_FM {decimal(s['r_FM'])} numbers a person, r_SW {decimal(s['r_SW'])} persons a number",
        f"{number(s['numbers'])} numbers, {number(s['found'])} of {number(s['people'])} people found, "
        f"{number(s['merges'])} false merges, {number(s['splits'])} splits",
    ]
    for kind, name in (("all", "of parts"), ("across", "of parts of two cameras")):
        rates = (result.get("pairs") or {}).get(kind)
        if rates and rates["n_true"]:
            lines.append(
                f"pairs {name}: F1 {decimal(rates['f1'], 3)}, precision {percent(rates['precision'])}, "
                f"recall {percent(rates['recall'])}"
            )
    return "\n".join(lines)
