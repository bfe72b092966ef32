"""Benchmarks for a person: what can be read, what to put where, and what a folder lacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracklearn.types import Refusal

if TYPE_CHECKING:
    from tracklearn.store.benchmarks import Benchmark, Dataset, Report

LABELS = {
    "train_ids": "training persons",
    "train_pairs": "training (person, camera) pairs",
    "train_tracklets": "training tracklets",
    "train_images": "training images",
    "cameras": "cameras",
    "query": "queries",
    "query_ids": "query persons",
    "gallery": "gallery, without junk and queries",
    "test_tracklets": "test items",
    "test_images": "test images",
    "junk": "junk items",
    "distractors": "distractor items",
}


def describe(dataset: Dataset) -> str:
    """One data set: name, origin, and what its folder must hold."""
    splits = f", {dataset.n_splits} splits" if dataset.n_splits > 1 else ""
    lines = [f"{dataset.name:<12}{dataset.title} ({dataset.kind}{splits}): {dataset.source}"]
    lines += [f"    DIR/{line}" if dataset.published else f"    DIR: {line}" for line in dataset.layout]
    return "\n".join(lines + ([f"    Notice: {dataset.notice}"] if dataset.notice else []))


def table(benchmark: Benchmark, report: Report) -> str:
    """What `benchmarks.check` found: counts beside the published ones, then what is off."""
    split = f", split {benchmark.split} of 0-{benchmark.n_splits - 1}" if benchmark.n_splits > 1 else ""
    lines = [f"{benchmark.title} in {benchmark.root}{split}", f"{'':<36}{'here':>10}{'published':>11}"]
    for name, count in report.counts.items():
        published = "" if count["published"] is None else f"{count['published']:,}"
        lines.append(f"  {LABELS[name]:<34}{count['found']:>10,}{published:>11}")
    for part, found in report.images.items():
        decoded = "" if found["broken"] is None else f", {found['broken']:,} broken"
        lines.append(f"  {part} images: {found['expected']:,} wanted, {found['missing']:,} missing{decoded}")
    lines += [f"  left out: {e['n']:,} {e['item']} ({e['reason']})" for e in benchmark.skipped]
    lines += [f"  note: {note}" for note in benchmark.notes]
    lines += [f"  protocols: {', '.join(benchmark.protocols)}"]
    lines += [f"  ! {line}" for line in report.problems]
    return "\n".join(lines)


def record(benchmark: Benchmark, report: Report) -> dict[str, Any]:
    """The same for a program."""
    return {
        "name": benchmark.name,
        "root": str(benchmark.root),
        "split": benchmark.split,
        "n_splits": benchmark.n_splits,
        "protocols": list(benchmark.protocols),
        "counts": report.counts,
        "images": report.images,
        "skipped": list(benchmark.skipped),
        "notes": list(benchmark.notes),
        "problems": report.problems,
        "complete": report.complete,
        "usable": report.usable,
    }


def prepare(
    name: str,
    root: str | Path,
    *,
    out: str | Path | None = None,
    split: int | None = None,
    splits: str | Path | None = None,
    check: str = "names",
    singles: bool = False,
    partial: bool = False,
    progress: Callable[[str, int, int | None], None] | None = None,
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Read and check a benchmark, tell what was found, and write its training part to `out` if asked.

    With `singles` every image of that part is a tracklet of its own.

    Returns:
        `record`, with `set` and its numbers of tracklets and crops where a set was written.

    Raises:
        ValueError: more than one in a hundred of what is published is missing, and not `partial`; as
            `benchmarks.read` and `referenced.write` otherwise.
        FileNotFoundError, FileExistsError: as there.
    """
    from tracklearn.store import benchmarks
    from tracklearn.store.sets.referenced import CHECKS, require_free
    from tracklearn.store.sets.tracklets import open_set

    if check not in CHECKS:
        raise Refusal(f"--check {check} is unknown: use one of {', '.join(CHECKS)}")
    if out is not None:
        require_free(Path(out))
    benchmark = benchmarks.read(name, root, split=split, splits=splits)
    # Writing decodes the training images itself: once is enough.
    looked = "names" if out is not None and check == "images" else check
    report = benchmarks.check(benchmark, images=looked, progress=progress)
    tell(table(benchmark, report))
    if not report.usable and not partial:
        more = f" (and {len(report.problems) - 1} more)" if len(report.problems) > 1 else ""
        raise Refusal(
            f"{benchmark.title} in {benchmark.root} is not complete: {report.problems[0]}{more}; --partial "
            "takes what is there"
        )
    result = record(benchmark, report)
    if out is not None:
        written = open_set(
            benchmark.write_train(
                out, singles=singles, check=next(c for c in CHECKS if c == check), progress=progress
            )
        )
        result |= {"set": str(out), "n_tracklets": len(written.tracklets), "n_crops": written.n_crops}
        result["set_skipped"] = written.manifest["sources"][0]["skipped"]
    return result
