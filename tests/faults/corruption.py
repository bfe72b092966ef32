"""Damaged files of sets, runs and galleries: refused by name, fallen back from aloud, or read the same.

Every file of a small finished work folder is damaged: one bit flipped at places spread over it, first and
last byte included, or cut off there. Each damage goes through the reading function that the commands use,
and a sample of them through a whole command, whose products are compared with those of the whole file.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.faults import material
from tests.faults.children import Children, Outcome
from tests.faults.table import Row, table

OTHER = "READ AS OTHER DATA"
PLACES = {True: 3, False: 75}  # positions of each file, through the reading function
WHOLE = {True: 0, False: 5}  # of them through a whole command
UNFINISHED = ["tmc.epochs=3", "tmc.iterations=4", "train.checkpoint_every=2"]


class Target(NamedTuple):
    """A kind of file: where it is, who reads it, and the command that does.

    Args:
        pattern: of its name below the made folder.
        reader: name of one of `READERS`.
        command: its arguments, `{}` for the folder; empty where no command reads it by itself.
        products: files below the folder to compare; standard output where there are none.
    """

    pattern: str
    reader: str
    command: tuple[str, ...] = ()
    products: tuple[str, ...] = ()


TRAIN = ("train", "{}/whole/set", "--out", "{}/again", *material.options())
REPORT = ("report", "{}/whole/run", "--out", "{}/again.html")
INDEX = ("index", "{}/whole/run", "{}/whole/set", "--resume", "--device", "cpu")
SEARCH = ("search", "{}/whole/run", "0", "--sheet", "{}/sheet.png", "--device", "cpu", "--json")
SIMULATE = (
    "noise",
    "simulate",
    "{}/whole/set",
    "--fragmentation",
    "2",
    "--switch",
    "1.3",
    "--out",
    "{}/noisy",
)
RESUME = ("train", "{}/whole/set", "--out", "{}/open", "--resume", *material.options("tmc", *UNFINISHED))
DEMO = ("demo",)
TRAINED = ("again/weights.safetensors", "again/labels.safetensors")

TARGETS = (
    Target("whole/set/manifest.json", "tracklets", TRAIN, TRAINED),
    Target("whole/set/tracklets.parquet", "tracklets", TRAIN, TRAINED),
    Target("whole/set/crops.parquet", "tracklets", TRAIN, TRAINED),
    Target("whole/set/shard-*.arrow", "tracklets", TRAIN, TRAINED),
    Target("whole/set.truth.parquet", "truth", SIMULATE, ("noisy/*.parquet",)),
    Target("whole/run/manifest.json", "run", REPORT, ("again.html",)),
    Target("whole/run/rounds.jsonl", "run", REPORT, ("again.html",)),
    Target("whole/run/times.jsonl", "times", REPORT, ("again.html",)),
    Target("whole/run/isolation.safetensors", "run", REPORT, ("again.html",)),
    Target("whole/run/labels.safetensors", "run", REPORT, ("again.html",)),
    Target("whole/run/start.safetensors", "run"),
    Target("whole/run/weights.safetensors", "run", INDEX, ("whole/run/gallery/features*.npy",)),
    Target("whole/run/gallery/manifest.json", "gallery", SEARCH),
    Target("whole/run/gallery/features*.npy", "gallery", SEARCH),
    Target("whole/run/gallery/entries*.parquet", "gallery", SEARCH),
    Target("uga/kept/*.safetensors", "uga", ("report", "{}/uga", "--out", "{}/again.html"), ("again.html",)),
    Target("uga/stages/*.safetensors", "uga"),
    Target("open/state-*.safetensors", "state", RESUME, ("open/*.safetensors", "open/rounds.jsonl")),
    Target("whole/stages.json", "stages", ("run", "--resume"), ("whole/set/*", "whole/run/*.safetensors")),
    Target("demo/scores.json", "scores", DEMO, ("demo/scores.json", "demo/run/*.safetensors")),
    Target("demo/stages.json", "demo_stages", DEMO, ("demo/scores.json", "demo/run/*.safetensors")),
)


# ------------------------------------------------------------------------- in a child: what is read


class Sum:
    """sha256 over values of any kind."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, *values: Any) -> None:
        """Take in arrays, bytes, and whatever JSON can hold."""
        for value in values:
            if isinstance(value, Mapping):
                for key in sorted(value, key=str):
                    self.add(str(key), value[key])
            elif isinstance(value, np.ndarray):
                self._sha256.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
            elif isinstance(value, bytes):
                self._sha256.update(value)
            else:
                self._sha256.update(repr(value).encode())

    def __str__(self) -> str:
        return self._sha256.hexdigest()


def _tracklets(folder: Path, found: Sum) -> None:
    from tracklearn.store.sets.tracklets import open_set

    opened = open_set(folder / "whole/set")
    found.add(opened.manifest, vars(opened.tracklets), opened.file, opened.continues)
    for row in range(opened.n_crops):
        found.add(opened.jpeg(row))


def _truth(folder: Path, found: Sum) -> None:
    from tracklearn.store.sets.tracklets import read_truth

    found.add(read_truth(folder / "whole/set").pid)


def _of_run(path: Path, found: Sum) -> None:
    from tracklearn.app.model.of_run import load_network
    from tracklearn.store.runs import Run

    run = Run(path)
    found.add(run.manifest, run.rounds, run.labels, *run.isolation(), run.kept())
    for which in ("start", "weights", *run.stages.values()):
        found.add(load_network(run, which).arrays())


def _times(folder: Path, found: Sum) -> None:
    from tracklearn.store.runs import Run

    # Of the seconds, which are kept apart, damaged lines are left out: no other number may come of them.
    for entry in Run(folder / "whole/run").times:
        print(json.dumps(entry, sort_keys=True))


def _gallery(folder: Path, found: Sum) -> None:
    from tracklearn.store.gallery.open import open_gallery

    gallery = open_gallery(folder / "whole/run/gallery")
    matches = gallery.search(gallery.rows(0, len(gallery)), 5)
    found.add(gallery.manifest, vars(gallery.entries), gallery.cameras, matches.index, matches.distance)


def _state(folder: Path, found: Sum) -> None:
    from tracklearn.store.files import read_json
    from tracklearn.store.runs import RunWriter

    digest = read_json(folder / "open/manifest.json")["digest"]
    with RunWriter(folder / "open", {"digest": digest}, resume=True) as writer:
        found.add(*(writer.read_state() or ()))
        _tell(*writer.notes)


def _stages(path: Path, found: Sum) -> None:
    from tracklearn.app.pipeline.stages import Stages

    found.add(Stages(path, tell=_tell).entries)


def _scores(folder: Path, found: Sum) -> None:
    from tracklearn.app.pipeline.stages import Stages
    from tracklearn.store.files import read_json

    # The demo makes a product again that is no longer what its stage has left.
    _tell(*Stages(folder / "demo", tell=_tell).damages())
    found.add(read_json(folder / "demo/scores.json"))


def _tell(*lines: str) -> None:
    """What a command would have said."""
    for line in lines:
        print(line, file=sys.stderr)


READERS: dict[str, Callable[[Path, Sum], None]] = {
    "tracklets": _tracklets,
    "truth": _truth,
    "run": lambda folder, found: _of_run(folder / "whole/run", found),
    "times": _times,
    "uga": lambda folder, found: _of_run(folder / "uga", found),
    "gallery": _gallery,
    "state": _state,
    "stages": lambda folder, found: _stages(folder / "whole", found),
    "demo_stages": lambda folder, found: _stages(folder / "demo", found),
    "scores": _scores,
}


def read(reader: str, folder: str) -> None:
    """Print the digest of what a reader finds; or refuse as the command line does."""
    found = Sum()
    try:
        READERS[reader](Path(folder), found)
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        print("tracklearn: " + " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    print(found)


def leave_unfinished(set_path: str, out: str) -> None:
    """Train until several states are there and no further, as a killed training leaves its folder."""
    from tracklearn.app.pipeline.plan import plan_training
    from tracklearn.app.pipeline.training import train
    from tracklearn.store.runs import RunWriter

    class Killed(BaseException):
        pass

    write = RunWriter.write_state

    def count(self: RunWriter, *state: Any) -> None:
        write(self, *state)
        if state[1]["step"] >= 6:
            raise Killed

    RunWriter.write_state = count  # type: ignore[method-assign]
    settings = [*material.SIZE, *material.QUICK["tmc"], *UNFINISHED]
    plan = plan_training(Path(set_path), weights="none", device="cpu", preset="cpu", overrides=settings)
    try:
        for _ in train(plan, Path(out)):
            pass
    except Killed:
        return
    raise RuntimeError("the training ended before it had written its states")


def write_truth(set_path: str) -> None:
    """Name somebody in every tracklet of a set."""
    from tracklearn.store.sets import tracklets

    tracklets.write_truth(set_path, tracklets.open_set(set_path).tracklets.tracklet % 5)


def small_demo(out: str) -> None:
    """The demo on a small world, or what is left to do of it."""
    from tracklearn import world
    from tracklearn.app.demo import run as demo

    size: dict[str, Any] = {"n_people": 6, "n_cameras": 2, "seconds": 30}
    learn = world.Config(people_seed=4, **size)
    demo.worlds = lambda seed: (learn, world.Config(people_seed=5, first_pid=6, **size))  # type: ignore[assignment]
    quick = {"epochs": 2, "iterations": 2, "clusters_per_batch": 4}
    demo.SETTINGS = {"tmc": quick, "network": {"height": 64, "width": 32}}
    demo.demo(out, device="cpu", resume=Path(out).exists(), tell=_tell)


# ------------------------------------------------------------------------- in the parent: damage


def make(children: Children, folder: Path, *, demo: bool) -> Path:
    """The folder whose files are damaged: a work folder, a run with states, one of UGA, a small demo."""
    sources = material.films(folder / "films")
    uga = ("train", folder / "whole/set", "--out", folder / "uga", *material.options("uga"))
    steps = [
        children.command("run", *sources, "--out", folder / "whole", *material.options()),
        children.call("tests.faults.corruption:write_truth", [str(folder / "whole/set")]),
        children.call(
            "tests.faults.corruption:leave_unfinished", [str(folder / "whole/set"), str(folder / "open")]
        ),
        children.command(*uga),
    ]
    if demo:
        steps.append(children.call("tests.faults.corruption:small_demo", [str(folder / "demo")], cpu=300))
    for step in steps:
        if step.code:
            raise RuntimeError(f"the material could not be made: {step.said}")
    return folder


def damages(size: int, n: int, seed: int) -> Iterator[tuple[str, int, int]]:
    """n places for each kind of damage: ("flip", byte, bit) and ("cut", length, 0)."""
    rng = np.random.default_rng([seed, size])
    inner = rng.choice(size, min(size, max(n - 2, 1)), replace=False)
    for place in np.unique([0, size - 1, *inner])[:: 1 if n > 2 else 2]:
        yield "flip", int(place), int(rng.integers(8))
        yield "cut", int(place), 0


def damaged(data: bytes, kind: str, place: int, bit: int) -> bytes:
    """`data` with the damage done."""
    if kind == "cut":
        return data[:place]
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def replace(file: Path, data: bytes) -> None:
    """Other content in a file of its own, so that a memory map of the old one stays whole."""
    file.unlink()
    file.write_bytes(data)


def verdict(outcome: Outcome, file: Path, same: bool) -> str | None:
    """What is wrong with how a damaged file was taken; None where it held."""
    if outcome.fault is not None:
        return outcome.fault
    if outcome.refused:
        return (
            None if file.name in outcome.said else f"refused without its name: {outcome.said.strip()[:120]}"
        )
    return None if same or file.name in outcome.said else OTHER


def by_reading(children: Children, folder: Path, target: Target, n: int) -> Row:
    """Damage each file of a kind and read it with the function that the commands use."""
    row = Row(target.pattern, "flipped and cut, read")
    endings = {"refused": 0, "the same": 0, "passed over, aloud": 0}
    for file in sorted(folder.glob(target.pattern)):
        data = file.read_bytes()
        top = folder / file.relative_to(folder).parts[0]
        # Going on with a run cuts its record back: then everything is put back after each case.
        spare = folder / "spare"
        if target.reader == "state":
            shutil.copytree(top, spare)
        whole = _digest(children, target, folder)
        _restore(spare, top)
        for kind, place, bit in damages(len(data), n, seed=1):
            replace(file, damaged(data, kind, place, bit))
            outcome = _read(children, target, folder)
            same = set(outcome.out.splitlines()) <= set(whole.splitlines())
            fault = verdict(outcome, file, same)
            row.add(fault or "", f"{file.name} {kind} at {place}")
            if fault is None:
                held = "refused" if outcome.refused else "the same" if same else "passed over, aloud"
                endings[held] += 1
            _restore(spare, top) if spare.is_dir() else replace(file, data)
        shutil.rmtree(spare, ignore_errors=True)
    row.note = ", ".join(f"{n} {name}" for name, n in endings.items() if n)
    return row


def _read(children: Children, target: Target, folder: Path) -> Outcome:
    return children.call("tests.faults.corruption:read", [target.reader, str(folder)], cwd=folder)


def _digest(children: Children, target: Target, folder: Path) -> str:
    outcome = _read(children, target, folder)
    if outcome.code:
        raise RuntimeError(f"whole files are not read: {outcome.said}")
    return outcome.out.strip()


def _restore(spare: Path, top: Path) -> None:
    if spare.is_dir():
        shutil.rmtree(top)
        shutil.copytree(spare, top)


def by_command(children: Children, folder: Path, target: Target, n: int) -> Row:
    """Damage the first and the last file of a kind and run the whole command that reads it."""
    name = " ".join(part for part in target.command[:2] if "{" not in part and not part.startswith("-"))
    row = Row(target.pattern, f"flipped and cut, {name}")
    files = sorted(folder.glob(target.pattern))
    case = folder.with_name(folder.name + "-case")
    arguments = [part.replace("{}", str(case)) for part in target.command]
    if arguments[0] == "run":
        arguments = [*_sources(case), "--out", str(case / "whole"), "--resume", *material.options()]
        arguments = ["run", *arguments]
    _copy(folder, case)
    whole = _go(children, case, arguments)
    if whole.code:
        raise RuntimeError(f"whole files are not read by {arguments[0]}: {whole.said}")
    want = _products(case, target, whole)
    for file in dict.fromkeys([files[0], files[-1]]):
        data = file.read_bytes()
        for kind, place, bit in damages(len(data), n, seed=2):
            _copy(folder, case)
            (case / file.relative_to(folder)).write_bytes(damaged(data, kind, place, bit))
            outcome = _go(children, case, arguments)
            same = outcome.code == 0 and _products(case, target, outcome) == want
            fault = verdict(outcome, file, same)
            # Of the states only the newest is read at all, and going on from the one before must be said.
            newest = target.reader == "state" and file == files[-1]
            if fault is None and newest and not outcome.refused and file.name not in outcome.said:
                fault = "went on from another state without a word"
            row.add(fault or "", f"{file.name} {kind} at {place}")
    shutil.rmtree(case)
    return row


def _go(children: Children, case: Path, arguments: list[str]) -> Outcome:
    if arguments[0] == "demo":
        return children.call("tests.faults.corruption:small_demo", [str(case / "demo")], cwd=case, cpu=300)
    return children.command(*arguments, cwd=case)


def _sources(case: Path) -> list[str]:
    films = case / "films"
    return [f"{name}={films / name}.txt+{films / name}.mp4" for name in ("door", "hall")]


def _copy(folder: Path, case: Path) -> None:
    shutil.rmtree(case, ignore_errors=True)
    shutil.copytree(folder, case)


def _products(case: Path, target: Target, outcome: Outcome) -> str:
    """Digest of what a command made, without the seconds it took."""
    found = Sum()
    for pattern in target.products:
        for file in sorted(case.glob(pattern)):
            data = file.read_bytes()
            if file.suffix == ".json":
                text = json.loads(data)
                data = json.dumps({k: v for k, v in text.items() if k != "sources"}).encode()
            found.add(file.name, data)
    if not target.products:
        found.add(outcome.out)
    return str(found)


def main(quick: bool = False, *, children: Children | None = None, places: int | None = None) -> list[Row]:
    """All rows of this part; `places` in each file in place of the usual number."""
    if children is None:
        with Children() as own:
            return main(quick, children=own, places=places)
    rows = []
    with tempfile.TemporaryDirectory(prefix="corruption-") as name:
        folder = make(children, Path(name).resolve() / "made", demo=not quick)
        for target in TARGETS:
            if not any(folder.glob(target.pattern)):
                continue
            print(target.pattern, file=sys.stderr, flush=True)
            rows.append(by_reading(children, folder, target, places or PLACES[quick]))
            if target.command and WHOLE[quick]:
                rows.append(by_command(children, folder, target, WHOLE[quick]))
    return rows


if __name__ == "__main__":
    found = main("--quick" in sys.argv, places=int(sys.argv[-1]) if sys.argv[-1].isdigit() else None)
    print(table(found))
