"""A network judged on a benchmark: features of the test part, scores by protocol, pictures.

Only this and the demo's judging open ground truth, and only after training; nothing of a run is changed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn import __version__
from tracklearn.app.formats import slug
from tracklearn.app.judge.extract import Features, extract
from tracklearn.app.judge.trial import Trial
from tracklearn.core import rank
from tracklearn.store.files import make_folder, write_atomic, write_json
from tracklearn.store.lock import locked
from tracklearn.store.workers.chosen import engine_of
from tracklearn.types import Array, Progress, Refusal, Scores

if TYPE_CHECKING:
    from tracklearn.app.model.open import Model, TrainedOn
    from tracklearn.store.benchmarks import Benchmark, Part, Subset

SCORES = ("mAP", "rank1", "rank5", "rank10", "rank20")
_DRAWN = 10  # queries shown
_SHOWN = 10  # results shown of each


def evaluate(
    model: Model,
    name: str,
    root: str | Path,
    *,
    out: str | Path | None = None,
    protocol: str | None = None,
    rerank: bool = False,
    ap: str = "hits",
    split: int | None = None,
    splits: str | Path | None = None,
    subset: Subset | None = None,
    partial: bool = False,
    seed: int = 0,
    resume: bool = False,
    workers: int | None = None,
    on: str | None = None,
    progress: Progress | None = None,
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Judge a model on a benchmark and write scores.json, cmc.png and ranked.png.

    A benchmark with several splits is judged on all of them and gives means; a run that was trained on one
    of them, on that one. Scores are those of every protocol the benchmark has, from one extraction.

    Args:
        model: of `model.open_model`.
        name, root, split, splits, subset: as `benchmarks.read` takes them.
        out: folder to write; by default in the run's folder, or beside the file of the model.
        protocol: whose scores come first; the benchmark's default for None.
        rerank: re-rank by k-reciprocal neighbours (`core.rank.rerank` with its defaults), among the rows
            that the protocol leaves in the gallery.
        ap: variant of AP.
        partial: take what is there of a test of which more than one in a hundred is missing.
        seed: draws the queries shown.
        resume: write over an evaluation in `out`.
        workers, on: who embeds the images, as for `ingest`; scores are the same. A model on a GPU that only
            their machines have is opened with `elsewhere`.
        progress: told as ("features", images done, images in all).
        tell: shown what a reader of the scores must know.

    Returns:
        The contents of scores.json: `mAP`, `rank1`, `rank5`, `rank10`, `rank20` (fractions; means over the
        splits), `n_valid`, `n_skipped` (sums over the splits), `protocol`; `sd` (over splits, n − 1 in the
        denominator); `protocols`, the same by protocol with `cmc`; `splits`, the same by split; and what was
        judged, on what, what could not be read, and `seconds`.

    Raises:
        FileExistsError: `out` holds something and `resume` is off.
        FileNotFoundError, ValueError: as `benchmarks.read`; an unknown protocol or AP; a test that is not
            complete, or that holds people the run was trained on; no query or no gallery left; there are no
            such workers.
    """
    engine = engine_of(on, workers)
    variant = next((known for known in rank.AP if known == ap), None)
    if variant is None:
        raise Refusal(f"--ap is {ap!r}, expected one of {', '.join(rank.AP)}")
    tests = read_tests(model, name, root, split=split, splits=splits, subset=subset)
    first = tests[0]
    chosen = first.protocol(protocol)
    suffix = _suffix(model, first, chosen, rerank=rerank, ap=ap, split=split)
    folder = Path(out) if out is not None else model.folder / f"{model.stem}-{first.name}{suffix}"
    if folder.exists() and not resume and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists: replace it with --resume, or choose another --out")
    problems = [problem for test in tests for problem in problems_of(test)]
    problems = list(dict.fromkeys(problems))
    if problems and not partial:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise Refusal(
            f"{first.title} in {first.root} is not complete: {problems[0]}{more}; --partial takes what "
            "is there"
        )
    notes = [*first.notes, *model.record.get("labels_used", [])]
    if first.n_splits > 1 and model.record.get("weights") == "weights" and model.trained_on is None:
        notes.append(
            "the training set of the run does not say what it was made of: whether the run has seen people "
            "of these tests is not known"
        )
    trained = model.trained_on
    if trained is not None and trained.benchmark == first.name and _of_another_folder(trained, first):
        notes.append("the run was trained on another labelled folder: its persons are not compared")
    for line in [*notes, *problems]:
        tell(f"note: {line}")
    with locked(folder):
        make_folder(folder)
        began = time.perf_counter()
        features = extract(model, tests, engine=engine, progress=progress)
        seconds = {"features": time.perf_counter() - began, "distances": 0.0, "scores": 0.0}
        judged, shown = _judge(tests, features, chosen, rerank=rerank, ap=variant, seconds=seconds)
        result = {
            **judged[chosen],
            "protocol": chosen,
            "ap": ap,
            "rerank": rerank,
            "protocols": judged,
            "benchmark": first.name,
            "title": first.title,
            "root": first.root,
            "split": tests[0].split if len(tests) == 1 and first.n_splits > 1 else None,
            "n_splits": first.n_splits,
            "subset": None if subset is None else vars(subset),
            "model": model.record,
            "tracklearn": __version__,
            "notes": notes,
            "problems": problems,
            **features.record(tests),
            "seconds": seconds,
        }
        began = time.perf_counter()
        result["pictures"] = _write_pictures(folder, shown, features.unreadable[0], result, seed=seed)
        seconds["pictures"] = time.perf_counter() - began

        write_json(folder / "scores.json", result)
    return {**result, "out": folder}


def _judge(
    tests: Sequence[Benchmark],
    features: Features,
    chosen: str,
    *,
    rerank: bool,
    ap: rank.AveragePrecision,
    seconds: dict[str, float],
) -> tuple[dict[str, dict[str, Any]], Trial]:
    """Scores by protocol, the chosen one first, and the trial that pictures show: its first split."""
    judged: dict[str, dict[str, Any]] = {}
    trials: list[Trial] = []
    for protocol in dict.fromkeys((chosen, *tests[0].protocols)):
        found = []
        for test, place in zip(tests, features.place, strict=True):
            began = time.perf_counter()
            trial = Trial.of(test, place, features, protocol=protocol, rerank=rerank)
            compared = time.perf_counter()
            found.append(trial.scores(ap))
            seconds["distances"] += compared - began
            seconds["scores"] += time.perf_counter() - compared
            trials = trials or [trial]  # only the first is kept: re-ranked distances are large
        judged[protocol] = summary(tests, found)
    return judged, trials[0]


def read_tests(
    model: Model,
    name: str,
    root: str | Path,
    *,
    split: int | None = None,
    splits: str | Path | None = None,
    subset: Subset | None = None,
) -> list[Benchmark]:
    """The benchmark's splits that the model is to be judged on, the one asked for or all it may be.

    Raises:
        FileNotFoundError, ValueError: as `benchmarks.read`; a test holds people of the training set.
    """
    from tracklearn.store import benchmarks

    trained = model.trained_on
    if split is None and trained is not None and trained.benchmark == benchmarks.find(name).name:
        split = trained.split
    first = benchmarks.read(name, root, split=split, splits=splits, subset=subset)
    tests = [first]
    if split is None and first.n_splits > 1:
        others = range(1, first.n_splits)
        tests += [benchmarks.read(name, root, split=i, splits=splits, subset=subset) for i in others]
    for seen in (trained, *model.seen_before):
        for test in tests:
            if seen is not None:
                refuse_seen(seen, test)
    return tests


def refuse_seen(trained: TrainedOn, benchmark: Benchmark) -> None:
    """Refuse a test that holds people of the training set.

    Raises:
        ValueError: it does; without the truth beside the set the number of the split tells.
    """
    from tracklearn.store.benchmarks import find
    from tracklearn.store.sets.tracklets import read_truth, truth_path

    if benchmark.name != trained.benchmark or _of_another_folder(trained, benchmark):
        return
    if truth_path(trained.path).is_file():
        tested = np.unique(benchmark.test.pid)
        shared = bool(np.isin(tested[tested > 0], read_truth(trained.path).pid).any())
    else:
        shared = trained.split != benchmark.split
    if shared and find(benchmark.name).own:
        raise Refusal(
            f"the run was trained on people who are in the test of {benchmark.title} in {benchmark.root}: "
            "give it other queries and another gallery, or judge another run"
        )
    if shared:
        raise Refusal(
            f"the run was trained on split {trained.split} of {benchmark.title}, and the test of split "
            f"{benchmark.split} holds people of its training half: leave --split out, or judge a "
            "run that was trained on that split"
        )


def _of_another_folder(trained: TrainedOn, benchmark: Benchmark) -> bool:
    """Whether a folder of one's own is not the one that the run learned from: then its persons are others."""
    from tracklearn.store.benchmarks import find

    return find(benchmark.name).own and os.path.realpath(trained.images) != os.path.realpath(benchmark.root)


def problems_of(benchmark: Benchmark) -> list[str]:
    """What is missing of a benchmark's test part, a line each; no image is opened."""
    from tracklearn.store.benchmarks import find
    from tracklearn.store.picture.images import ImageFiles

    lines, slack = [], find(benchmark.name).slack
    for name, published in benchmark.published.items():
        found = benchmark.counts[name]
        if not name.startswith("train") and abs(found - published) > slack * published:
            lines.append(f"{name.replace('_', ' ')}: {found:,} of {published:,}")
    images = benchmark.test.images
    if isinstance(images, ImageFiles):
        missing = np.flatnonzero(~images.present())
        if len(missing) > slack * len(images):
            example = benchmark.test.where(int(missing[0]))
            lines.append(
                f"{len(missing):,} of {len(images):,} test images are missing, the first is {example}"
            )
    return lines


def _suffix(
    model: Model, benchmark: Benchmark, protocol: str, *, rerank: bool, ap: str, split: int | None
) -> str:
    """What sets a folder apart from that of the usual evaluation."""
    from tracklearn.store.benchmarks import find

    parts = [
        slug(benchmark.title) if find(benchmark.name).own else "",
        protocol if protocol != benchmark.protocols[0] else "",
        "reranked" if rerank else "",
        ap if ap != "hits" else "",
        "" if split is None else f"split{split}",
        "" if benchmark.subset is None else benchmark.subset.label,
        "start" if model.record.get("weights") == "start" else "",
    ]
    return "".join(f"-{part}" for part in parts if part)


# ----------------------------------------------------------------------------------------------- scores


def summary(tests: Sequence[Benchmark], found: Sequence[Scores]) -> dict[str, Any]:
    """Scores over splits: means, sums of queries, `sd`, the mean `cmc`, and each split's own."""
    each = [scores.to_dict() for scores in found]
    values = np.array([[entry[name] for name in SCORES] for entry in each])
    length = min(len(scores.cmc) for scores in found)
    out: dict[str, Any] = {
        **dict(zip(SCORES, values.mean(0).tolist(), strict=True)),
        "n_valid": sum(scores.n_valid for scores in found),
        "n_skipped": sum(scores.n_skipped for scores in found),
        "conditions": found[0].protocol,
        "cmc": np.mean([scores.cmc[:length] for scores in found], axis=0),
    }
    if len(found) > 1:
        out["sd"] = dict(zip(SCORES, values.std(0, ddof=1).tolist(), strict=True))
        out["splits"] = [
            {"split": test.split, **{name: entry[name] for name in (*SCORES, "n_valid", "n_skipped")}}
            for test, entry in zip(tests, each, strict=True)
        ]
    return out


def table(result: Mapping[str, Any]) -> str:
    """What `evaluate` found, for a terminal."""
    several = f", {len(result['splits'])} splits" if "splits" in result else ""
    if result["split"] is not None:
        several = f", split {result['split']} of 0-{result['n_splits'] - 1}"
    lines = [
        f"{result['title']}{several}: {result['n_valid']:,} queries, {result['n_skipped']:,} skipped for "
        f"want of a match, {result['n_images']:,} images",
        f"{'protocol':<28}{'mAP':>12}{'rank-1':>12}{'rank-5':>12}{'rank-10':>12}{'rank-20':>12}",
    ]
    for protocol, found in result["protocols"].items():
        sd = found.get("sd")
        cells = [f"{found[name] * 100:.1f}" + (f" ± {sd[name] * 100:.1f}" if sd else "") for name in SCORES]
        lines.append(f"{protocol:<28}" + "".join(f"{cell:>12}" for cell in cells))
    again = ", re-ranked" if result["rerank"] else ""
    lines.append(f"percent; AP by {result['ap']}, matches in other cameras only{again}")
    for protocol, found in result["protocols"].items():
        if found["n_valid"] != result["n_valid"]:
            lines.append(f"{protocol}: {found['n_valid']:,} queries, {found['n_skipped']:,} skipped")
    if result["skipped_images"]:
        lines.append(
            f"{result['skipped_images']:,} of {result['n_images']:,} images could not be read and were left "
            f"out; {result['dropped_items']:,} of {result['n_items']:,} items had no other"
        )
    spent = ", ".join(f"{name} {value:.1f}" for name, value in result["seconds"].items() if value)
    return "\n".join([*lines, f"seconds: {spent}"])


# --------------------------------------------------------------------------------------------- pictures


def _write_pictures(
    folder: Path, trial: Trial, unreadable: Mapping[int, str], result: Mapping[str, Any], *, seed: int
) -> dict[str, str]:
    """Write cmc.png and ranked.png; their names."""
    from tracklearn.app.judge.pictures import cmc_picture, ranked_lists

    again = ", re-ranked" if result["rerank"] else ""
    heading = f"{result['title']}, {trial.protocol}{again}"
    curves = {
        f"{by} · mAP {found['mAP']:.1%}": np.asarray(found["cmc"])
        for by, found in result["protocols"].items()
    }
    write_atomic(folder / "cmc.png", cmc_picture(curves, title=f"{result['title']}{again}"))
    picture = _portraits(trial.benchmark.test, set(unreadable))
    camera = trial.benchmark.test.cameras
    camid = trial.benchmark.test.camid
    rows: list[Any] = []
    for row in np.random.default_rng(seed).permutation(len(trial.query)).tolist():
        if len(rows) == _DRAWN:
            break
        alone = trial.scores(result["ap"], only=np.array([row]))
        if not alone.n_valid:
            continue
        found, right = trial.top(row, _SHOWN)
        item = int(trial.query[row])
        results = [
            (picture(i), camera[camid[i]], bool(same)) for i, same in zip(found.tolist(), right, strict=True)
        ]
        rows.append((picture(item), f"{camera[camid[item]]}\nAP {alone.mAP:.0%}", results))
    split = f", split {trial.benchmark.split}" if trial.benchmark.n_splits > 1 else ""
    title = f"{heading}{split} · {len(rows)} queries drawn with seed {seed}"
    write_atomic(folder / "ranked.png", ranked_lists(rows, title=title))
    return {"cmc": "cmc.png", "ranked": "ranked.png"}


def _portraits(part: Part, unreadable: set[int]) -> Callable[[int], Array]:
    """The picture of an item: its representative one, or the first that can be read."""
    from tracklearn.core.shown import representative

    tracklets = part.tracklets
    best, start = tracklets.crop[representative(tracklets)], tracklets.start

    def portrait(item: int) -> Array:
        rows = [int(best[item]), *tracklets.crop[start[item] : start[item + 1]].tolist()]
        return part.image(next(row for row in rows if row not in unreadable))

    return portrait
