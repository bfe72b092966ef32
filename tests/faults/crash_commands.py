"""The commands that are broken, on inputs as small as their paths allow, and what must come of each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.app.made_files import put
from tests.faults.crash_journal import Tree, read_tree, write_tree
from tests.faults.crash_server import Server
from tracklearn import world
from tracklearn.app.demo import run as demo
from tracklearn.app.demo.films import film_camera
from tracklearn.store.files import make_folder

_WORLD = {"n_people": 6, "n_cameras": 2, "seconds": 20, "fps": 4.0, "width": 320, "height": 180}
_SIZE = ["network.height=64", "network.width=32", "train.checkpoint_every=1"]
_SETTINGS = {
    "tmc": ["tmc.epochs=2", "tmc.iterations=2", "tmc.clusters_per_batch=4"],
    "mmt": ["mmt.epochs=1", "mmt.iterations=2", "mmt.clusters_per_batch=4"],
    "uga": ["uga.epochs_intra=1", "uga.epochs_inter=1", "uga.iterations=2", "uga.sampling=all"],
    "msplr": [
        *("msplr.source_epochs=1", "msplr.max_steps=2", "msplr.step_epochs=1", "msplr.frozen_epochs=0"),
        *("msplr.iterations=2", "msplr.clusters_per_batch=2", "msplr.structure=100", "msplr.min_cameras=1"),
    ],
    "cap": ["cap.epochs=2", "cap.iterations=2", "cap.proxies_per_batch=4", "cap.inter_from=1"],
}
_INGEST = ("--set", "ingest.min_length=2", "--set", "ingest.min_box_height=8")


@dataclass(frozen=True)
class Case:
    """One command.

    Args:
        name: of the row in the table.
        argv: the command line, in the folder that is watched.
        again: the command line that goes on after it was stopped.
        start: what the folder holds before.
        reader: a command line that must work at every moment; none where empty.
        done_is_refused: the command has no --resume: where it had finished, the next call says "exists".
        setup: "module:function" that the process calls first.
        sparse: of the points that would be tried, every so many are.
    """

    name: str
    argv: tuple[str, ...]
    again: tuple[str, ...]
    start: Tree
    reader: tuple[str, ...] = ()
    done_is_refused: bool = False
    setup: str = ""
    sparse: int = 1


def _options(*settings: str) -> tuple[str, ...]:
    return tuple(part for text in settings for part in ("--set", text))


class Lab:
    """A folder with inputs that never change, the folder `work` in which commands run, and a server."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.inputs, self.work = self.root / "inputs", self.root / "work"
        self.inputs.mkdir(parents=True)
        self.server = Server(self.root / "server")

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()

    def reset(self, tree: Tree) -> None:
        """Let the folder `work` hold `tree`."""
        shutil.rmtree(self.work, ignore_errors=True)
        write_tree(self.work, tree)

    def make(self, *argv: str, start: Tree | None = None, setup: str = "") -> Tree:
        """What a command leaves that nothing disturbs. It runs in the server itself, which so gets warm."""
        self.reset(start or {})
        found = self.server.run(argv, cwd=self.work, setup=setup, here=True)
        if found.code:
            said = found.err.strip().splitlines()[-1:]
            raise RuntimeError(f"tracklearn {argv[0]} ended with {found.code}: {' '.join(said)}")
        return read_tree(self.work)

    def _kept(self, name: str, *argv: str) -> str:
        """A folder among the inputs that a command writes to `work/out`; as seen from `work`."""
        self.make(*argv)
        for path in self.work.iterdir():
            path.rename(self.inputs / path.name.replace("out", name, 1))
        return f"../inputs/{name}"

    @cached_property
    def films(self) -> list[str]:
        """Names of the cameras that were filmed: NAME.mp4 and NAME.gt.txt each."""
        config = world.Config(people_seed=4, **_WORLD)
        folder = self.inputs / "films"
        folder.mkdir()
        names = list(world.make(config).cameras)
        for camera, name in enumerate(names):
            film_camera(config, camera, folder / name)
        return names

    @cached_property
    def filmed(self) -> tuple[str, ...]:
        """The films with their true boxes, as sources."""
        return tuple(f"{n}=../inputs/films/{n}.gt.txt+../inputs/films/{n}.mp4" for n in self.films)

    @cached_property
    def set(self) -> str:
        return self._kept("set", "ingest", *self.filmed, "--out", "out", *_INGEST)

    @cached_property
    def market(self) -> str:
        """A benchmark of Market-1501's form."""
        root, number = self.inputs / "Market", 0
        people = {"bounding_box_train": (50, 51, 52), "query": (1, 2, 3), "bounding_box_test": (0, 1, 2, 3)}
        for folder, pids in people.items():
            for pid in pids:
                for camera in (1, 2, 3):
                    number += 1
                    put(root / folder / f"{pid:04d}_c{camera}s1_{number:06d}_00.jpg", pid, number)
        return "../inputs/Market"

    @cached_property
    def labelled(self) -> str:
        """A set with its truth beside it."""
        argv = ("datasets", "market1501", "--root", self.market, "--out", "out", "--partial")
        return self._kept("labelled", *argv)

    def trains(self, method: str, *extra: str) -> tuple[str, ...]:
        """The options of a short training."""
        settings = [*_SIZE, *_SETTINGS[method]]
        options = ("--method", method, "--weights", "none", "--preset", "cpu", "--backbone", "tiny")
        source = ("--source", self.labelled) if method == "msplr" else ()
        return (*options, *source, *extra, *_options(*settings))

    @cached_property
    def trained(self) -> Tree:
        return self.make("train", self.set, "--out", "run", *self.trains("tmc"))

    @cached_property
    def indexed(self) -> Tree:
        return self.make("index", "run", self.set, start=self.trained)


def _ingest(lab: Lab) -> Case:
    camera = lab.films[0]
    crops = lab.inputs / "crops"
    for tracklet in range(2):
        for number in range(3):
            put(crops / f"{tracklet}" / f"{number}.jpg", tracklet, number)
    sources = (f"{camera}=../inputs/films/{camera}.mp4", lab.filmed[1], "door=../inputs/crops")
    boxes = ("--detector", "file:../inputs/films/{camera}.gt.txt")
    argv = ("ingest", *sources, "--out", "set", *boxes, *_INGEST)
    return Case("ingest", argv, (*argv, "--resume"), {})


def _train(method: str) -> Callable[[Lab], Case]:
    def case(lab: Lab) -> Case:
        argv = ("train", lab.set, "--out", "run", *lab.trains(method))
        return Case(f"train {method}", argv, (*argv, "--resume"), {})

    return case


def _index(lab: Lab) -> Case:
    argv = ("index", "run", lab.set)
    return Case("index", argv, (*argv, "--resume"), lab.trained)


def _index_replacing(lab: Lab) -> Case:
    argv = ("index", "run", lab.labelled, "--resume")
    reader = ("search", "run", "0", "--sheet", "../sheet.png")
    return Case("index, replacing", argv, argv, lab.indexed, reader)


def _identities(lab: Lab) -> Case:
    argv = ("identities", "run", lab.set, "--out", "people", "--distance", "0.9", "--same", "0.1=1.1")
    return Case("identities", argv, (*argv, "--resume"), lab.trained)


def _identities_replacing(lab: Lab) -> Case:
    argv = ("identities", "run", lab.set, "--out", "people", "--distance", "0.5", "--resume")
    old = lab.make("identities", "run", lab.set, "--out", "people", "--distance", "0.9", start=lab.trained)
    return Case("identities, replacing", argv, argv, old)


def _report(lab: Lab) -> Case:
    argv = ("report", "run", "--resume")
    return Case("report", argv, argv, lab.indexed)


def _report_replacing(lab: Lab) -> Case:
    argv = ("report", "run", "--resume")
    old = lab.make("report", "run", "--json", start=lab.indexed)
    return Case("report, replacing", argv, argv, old)


def _run(lab: Lab) -> Case:
    argv = ("run", *lab.filmed, "--out", "all", *_INGEST, *lab.trains("tmc"), "--resume")
    return Case("run", argv, argv, {})


def _run_changed(lab: Lab) -> Case:
    argv = _run(lab).argv
    old = lab.make(*argv)
    changed = (*argv[:-1], "--set", "tmc.iterations=3", "--resume")
    return Case("run, changed settings", changed, changed, old)


def _evaluate(lab: Lab) -> Case:
    argv = (
        "evaluate",
        "run",
        "--benchmark",
        "market1501",
        "--root",
        lab.market,
        "--out",
        "judged",
        "--partial",
        "--resume",
    )
    return Case("evaluate", argv, argv, lab.trained)


def _datasets(lab: Lab) -> Case:
    argv = ("datasets", "market1501", "--root", lab.market, "--out", "set", "--partial")
    return Case("datasets --out", argv, argv, {}, done_is_refused=True)


def _simulate(lab: Lab) -> Case:
    rates = ("--fragmentation", "1", "--switch", "1", "--min-segment", "1")
    argv = ("noise", "simulate", lab.labelled, "--out", "noisy", *rates)
    return Case("noise simulate", argv, argv, {}, done_is_refused=True)


def _search(lab: Lab) -> Case:
    argv = ("search", "run", "0", "--sheet", "found.png")
    return Case("search --sheet", argv, argv, lab.indexed)


def _demo(lab: Lab) -> Case:
    argv = ("demo", "--out", "demo", "--resume")
    return Case("demo", argv, argv, {}, setup="tests.faults.crash_commands:shrink_demo", sparse=5)


def shrink_demo() -> None:
    """Let the demo film a tiny world, in its own process, and learn from it for two short epochs.

    Ingest takes the times at which its sources changed into account, and here those are made anew each time.
    """
    from tracklearn.store.ingest import jobs

    def write_videos(config: world.Config, folder: Path, *, progress: object = None) -> None:
        make_folder(folder)
        for camera, name in enumerate(world.make(config).cameras):
            film_camera(config, camera, folder / name)

    size = {**_WORLD, "seconds": 30}  # all six come by both cameras: scores need that
    learn = world.Config(people_seed=4, **size)
    judge = world.Config(people_seed=6, first_pid=6, **size)
    jobs.changed = lambda path: 0
    demo.worlds = lambda seed: (learn, judge)
    demo.write_videos = write_videos
    quick = {"epochs": 2, "iterations": 2, "clusters_per_batch": 4}
    demo.SETTINGS = {"tmc": quick, "network": {"height": 64, "width": 32}}


CASES: dict[str, Callable[[Lab], Case]] = {
    "train": _train("tmc"),
    "ingest": _ingest,
    "index": _index,
    "run": _run,
    "index-replacing": _index_replacing,
    "identities": _identities,
    "identities-replacing": _identities_replacing,
    "report": _report,
    "report-replacing": _report_replacing,
    "run-changed": _run_changed,
    "train-mmt": _train("mmt"),
    "train-uga": _train("uga"),
    "train-msplr": _train("msplr"),
    "train-cap": _train("cap"),
    "evaluate": _evaluate,
    "datasets": _datasets,
    "noise-simulate": _simulate,
    "search": _search,
    "demo": _demo,
}
