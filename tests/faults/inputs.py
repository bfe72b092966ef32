"""Bad pictures, videos, tracks, weights and networks among good ones: counted, or refused in one line.

Each case is a call of its own in a child that is bounded in processor time and address space. A bad picture
or video must not stop the others: the good ones are kept and the bad one is counted. Tracks, weights and
networks may be refused. Nothing may end in a traceback, a crash or a hang, and no code in a file may run.
"""

from __future__ import annotations

import itertools
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults import hostile, material
from tests.faults.children import Children, Outcome
from tests.faults.table import Row, table
from tracklearn.store.files import read_json

MEMORY = 2 << 30  # bytes of address space that a bad file may cost
N = {"pictures": 240, "videos": 60, "tracks": 60, "weights": 80, "networks": 60}
SAMPLE = 6  # cases of each part that the quick run takes


def main(quick: bool = False, *, children: Children | None = None) -> list[Row]:
    """All rows of this part."""
    if children is None:
        with Children() as own:
            return main(quick, children=own)
    rows = []
    with tempfile.TemporaryDirectory(prefix="inputs-") as name:
        folder = Path(name).resolve()
        for part in (pictures, videos, tracks, weights, networks):
            work = folder / part.__name__
            work.mkdir()
            rows.append(part(children, work, SAMPLE if quick else None))
    return rows


def pictures(children: Children, work: Path, sample: int | None) -> Row:
    """One bad picture in a folder of good ones."""
    row = Row("a bad picture among good ones", "ingest")
    good = material.crops(work / "good", [[0, 0, 0], [1, 1, 1]])
    for bad in _some(hostile.pictures(N["pictures"]), sample):
        case = work / "case"
        shutil.copytree(good, case / "crops")
        bad.put(case / "crops" / "t000" / f"zz{bad.suffix}")
        outcome = _bounded(children, case, "ingest", "door=crops", "--out", "set")
        n_files = 6 + (bad.kind != "a folder")  # an empty one holds no file
        row.add(_stopped(outcome) or _account(case / "set", n_good=6, n_files=n_files), bad.kind)
        shutil.rmtree(case)
    return row


def _account(path: Path, *, n_good: int, n_files: int) -> str:
    """Whether the good crops are there and every file was kept or is on the list."""
    manifest = read_json(path / "manifest.json")
    listed = sum(entry["n"] for source in manifest["sources"] for entry in source["skipped"])
    kept = manifest["n_crops"]
    if kept < n_good:
        return f"{n_good - kept} good crops are lost"
    if kept + listed != n_files:
        return f"{n_files} files in, {kept} kept and {listed} listed"
    return ""


def videos(children: Children, work: Path, sample: int | None) -> Row:
    """A bad film beside a good one."""
    row = Row("a bad film beside a good one", "ingest")
    good = material.film(work / "good" / "door.mp4")
    named = [hostile.Bad(f"a good film called {name}", name, good.read_bytes()) for name in _NAMES]
    for bad in [*_some(hostile.videos(good.read_bytes(), N["videos"]), sample), *_some(named, sample and 3)]:
        case = work / "case"
        shutil.copytree(good.parent, case)
        name = f"bad{bad.suffix}" if bad.suffix.startswith(".") else bad.suffix
        bad.put(case / name)
        sources = ("door=door.txt+door.mp4", f"bad=door.txt+{name}")
        outcome = _bounded(children, case, "ingest", *sources, "--out", "set")
        row.add(
            _videos_fault(case, outcome, missing="link" in bad.kind, whole=bad.suffix in _NAMES), bad.kind
        )
        shutil.rmtree(case)
    return row


# A file is a file, whatever protocol its name may look like.
_NAMES = (
    *("2024-01-01T12:00:00.mp4", "tcp:127.0.0.1:9.mp4", "concat:door.mp4", "file:x.mp4", "http:a.mp4"),
    *("-i.mp4", "%03d.mp4", "data:x.mp4", "pipe:0.mp4", "a b.mp4", "ä.mp4", "subfile,,start,0,end,9,,:x.mp4"),
)


def _videos_fault(case: Path, outcome: Outcome, *, missing: bool, whole: bool) -> str:
    if outcome.fault:
        return outcome.fault
    if outcome.refused:
        # A source that is not there is a mistake of the caller's, which is said before any work.
        return "" if missing else f"stops the good one: {outcome.said.strip()[:160]}"
    sources = {s["camera"]: s for s in read_json(case / "set" / "manifest.json")["sources"]}
    if not sources["door"]["n_crops"]:
        return "the good film's crops are lost"
    if whole:
        return "" if sources["bad"]["n_crops"] == sources["door"]["n_crops"] else "read as another film"
    if sources["bad"]["status"] != "ok" and not sources["bad"]["reason"]:
        return "left out without a reason"
    return ""


def tracks(children: Children, work: Path, sample: int | None) -> Row:
    """Bad tracks, measured against good ones; a sample with its film into a set."""
    row = Row("bad tracks", "noise measure, ingest")
    film = material.film(work / "good" / "door.mp4")
    text = film.with_suffix(".txt").read_text()
    for number, bad in enumerate(_some(hostile.tracks(text, N["tracks"]), sample)):
        case = work / "case"
        shutil.copytree(film.parent, case)
        bad.put(case / f"bad{bad.suffix}")
        commands = [("noise", "measure", "--tracks", "bad.txt", "--truth", "door.txt", "--out", "noise.json")]
        if number % 4 == 0:
            commands.append(("ingest", "door=bad.txt+door.mp4", "--out", "set"))
        for command in commands:
            row.add(_bounded(children, case, *command).fault or "", f"{bad.kind}, {command[0]}")
        shutil.rmtree(case)
    return row


def weights(children: Children, work: Path, sample: int | None) -> Row:
    """Bad weights, up to the network that training would start from."""
    row = Row("bad weights", "up to the network")
    arrays = small_weights()
    marker = work / "code has run"
    children.command("ingest", *material.films(work / "films"), "--out", work / "set")
    for bad in _some(hostile.weights(arrays, marker, N["weights"]), sample):
        file = bad.put(work / f"bad{bad.suffix}")
        outcome = children.call(
            "tests.faults.inputs:start_from", [str(work / "set"), str(file)], cwd=work, memory=MEMORY
        )
        fault = outcome.fault
        if marker.exists():
            fault = "CODE HAS RUN"
            shutil.rmtree(marker)
        if fault is None and bad.refusal and not outcome.refused:
            fault = f"taken without a word: {outcome.out.strip()}"
        if fault is None and outcome.code == 0 and "finite" not in outcome.out:
            fault = f"taken: {outcome.out.strip()}"
        row.add(fault or "", bad.kind)
        _remove(file)
    return row


def small_weights() -> dict[str, Any]:
    """The arrays of a tiny network, as a file holds them."""
    from tracklearn.learn import backbone

    network = backbone.build(backbone.Config(backbone="tiny", height=64, width=32), seed=0)
    return {name: np.array(array) for name, array in network.arrays().items()}


def start_from(set_path: str, file: str) -> None:
    """In a child: make the network that training would start from; refuse as the command line does."""
    from tracklearn.app.pipeline.plan import plan_training, starting_networks
    from tracklearn.app.refusals import refusal
    from tracklearn.store.sets.tracklets import open_set

    try:
        plan = plan_training(set_path, weights=file, preset="cpu", device="cpu", overrides=material.SIZE)
        opened = open_set(set_path)
        (network,) = starting_networks(plan, plan.crops(opened), opened.tracklets)
    except Exception as error:
        message = refusal(error, command="train")
        if message is None or Path(file).name not in message:  # which file it is must be said
            raise
        print("tracklearn: " + " ".join(message.split()), file=sys.stderr)
        sys.exit(2)
    finite = all(np.isfinite(array).all() for array in network.arrays().values())
    print("finite" if finite else "not a number in the network")


def networks(children: Children, work: Path, sample: int | None) -> Row:
    """Bad detectors on a good film, and bad extractors to judge."""
    row = Row("a bad network", "ingest, evaluate")
    film = material.film(work / "door.mp4", seconds=0.5)
    market = _market(work / "market")
    for bad in _some(hostile.networks(N["networks"]), sample):
        case = work / "case"
        case.mkdir()
        file = bad.put(case / f"bad{bad.suffix}")
        if bad.suffix == ".xml":
            (case / "bad.bin").touch()
        kind = {".onnx": "onnx", ".xml": "openvino"}[bad.suffix]
        commands = [("ingest", film, "--detector", f"{kind}:{file}", "--out", "set")]
        if bad.suffix == ".onnx":
            judge = ("--benchmark", "market1501", "--root", market, "--partial", "--out", "scores")
            commands.append(("evaluate", file, *judge))
        for command in commands:
            row.add(_bounded(children, case, *command).fault or "", f"{bad.kind}, {command[0]}")
        shutil.rmtree(case)
    return row


def _market(root: Path) -> Path:
    """A benchmark of a few images in Market-1501's layout."""
    from tracklearn.store.picture.crops import encode_jpeg

    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        (root / folder).mkdir(parents=True)
        for person, camera in itertools.product((1, 2), (1, 2)):
            name = f"{person:04d}_c{camera}s1_000001_00.jpg"
            (root / folder / name).write_bytes(encode_jpeg(material.figure(person, camera)))
    return root


def _bounded(children: Children, case: Path, *command: Any) -> Outcome:
    return children.command(*command, cwd=case, memory=MEMORY)


def _stopped(outcome: Outcome) -> str:
    if outcome.refused:
        return f"stops the good ones: {outcome.said.strip()[:160]}"
    return outcome.fault or ""


def _some(cases: Iterable[hostile.Bad], n: int | None) -> list[hostile.Bad]:
    """n of the cases, evenly spread; all where n is None."""
    found = list(cases)
    return found if n is None else found[:: -(-len(found) // n)]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


if __name__ == "__main__":
    print(table(main("--quick" in sys.argv)))
