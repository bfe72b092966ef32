"""The demo: generate a camera network, run the main job on its videos, then judge it on other people.

The ground truth of the generated world is opened only after training is over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracklearn import world
from tracklearn.app.demo.films import cut, source_world, worlds, write_videos
from tracklearn.app.demo.judge import SCORES_NOTE, judge_run
from tracklearn.app.demo.table import table
from tracklearn.app.pipeline import run as pipeline
from tracklearn.app.pipeline.plan import TrainPlan, plan_training
from tracklearn.app.pipeline.stages import Stages
from tracklearn.learn.methods.named import method_module, takes_source
from tracklearn.store import config as settings_store
from tracklearn.store.files import read_json, write_json
from tracklearn.store.lock import locked
from tracklearn.types import Progress

if TYPE_CHECKING:
    from tracklearn.learn.train import Round

# Settings of the demo over those of the CPU preset: a small network from random weights that meets about
# thirty people in a few minutes. Chosen on worlds of other seeds than the demo's own. Random features tell
# too little for an isolation that learns from the film: the paper's does better by them (docs/log.md, "real
# footage").
_PAPERS: dict[str, Any] = {
    "isolation": "dbscan",
    "join_intra": "none",
    "isolate_every": 0,
    "time_tells": False,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "tmc": {**_PAPERS, "epochs": 12, "augment": {"colour": 0.5}},
    "mmt": {**_PAPERS, "isolate": False, "epochs": 12, "augment": {"colour": 0.5}},
    "cap": {**_PAPERS, "epochs": 12, "augment": {"colour": 0.5}},
    "uga": {"isolate": False, "augment": {"colour": 0.5}},
    # No colour jitter: what cameras do to colours is what MSPLR is to adapt to.
    "msplr": {**_PAPERS, "isolate": True},
    # The same bytes with and without the optional libraries.
    "train": {"features": "torch"},
}


def _program_digest() -> str:
    """sha256 over the package's own source files."""
    package = Path(world.__file__).parent.parent
    found = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.suffix in (".py", ".j2"):
            found.update(path.read_bytes())
    return found.hexdigest()


def demo(
    out: str | Path,
    *,
    method: str = "tmc",
    seed: int = 0,
    device: str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    on_round: Callable[[Round], None] | None = None,
    tell: Callable[[str], None] | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Run the whole demo into the folder `out`.

    Returns:
        `report`, `untrained`, `trained` and `baseline` scores (`source_only` too, where the method learns
        from a labelled source first), `noise` before and after isolation, share of `dropped` frames, `links`
        of UGA's graphs by round, `steps` of MSPLR, `seconds` per stage, and a `table` to print.

    Raises:
        FileExistsError: `out` exists and `resume` is off.
    """
    from tracklearn.app.report.data import SearchExample
    from tracklearn.store.ingest.ingest import Config as IngestConfig
    from tracklearn.store.sets.tracklets import open_set, read_truth

    out = Path(out)
    method_module(method)
    with locked(out):
        if out.exists() and not resume:
            raise FileExistsError(f"{out} exists: go on with --resume, or choose another --out")
        stages = Stages(out, tell=tell, remake=True)
        learn, judge = worlds(seed)
        # The demo shows the program as it is: what an older one left in the folder is made anew.
        salt = _program_digest()
        adapts = takes_source(method)
        filmed = {"learn": learn, "judge": judge} | ({"source": source_world(seed)} if adapts else {})
        films = settings_store.digest([{name: vars(config) for name, config in filmed.items()}, salt])
        with stages.stage("world", films, out / "world") as needed:
            if needed:
                for name, config in filmed.items():
                    write_videos(config, out / "world" / name, progress=progress)
        source = out / "source" if adapts else None
        if source is not None:
            with stages.stage("source", films, source) as needed:
                if needed:
                    cut(out / "world" / "source", source, progress=progress)
        names = world.make(learn).cameras
        sources = [f"{name}={out / 'world' / 'learn' / name}.mp4" for name in names]

        def plan(set_path: Path) -> TrainPlan:
            return plan_training(
                set_path,
                method=method,
                source=source,
                weights="none",
                preset="cpu",
                device=device,
                seed=seed,
                extra={
                    name: values for name, values in SETTINGS.items() if name in (method, "network", "train")
                },
            )

        judged: dict[str, Any] = {}

        def extra_report() -> dict[str, Any]:
            with stages.stage("evaluate", films + plan(out / "set").digest, out / "scores.json") as needed:
                if needed:
                    write_json(out / "scores.json", judge_run(out, names, device=device, progress=progress))
            judged.update(read_json(out / "scores.json"))
            examples = [SearchExample(**example) for example in judged.pop("examples")]
            return {
                "title": "Tracklearn demo",
                "noise": judged["noise"],
                "scores": {
                    name: judged[name]
                    for name in ("baseline", "untrained", "source_only", "trained")
                    if name in judged
                },
                "steps": judged["steps"],
                "scores_note": SCORES_NOTE,
                "searches": examples,
                "search_picture": open_set(out / "judge").image,
                "person": read_truth(out / "set").pid,
            }

        result = pipeline.run(
            sources,
            out,
            # By name: a detector that happens to lie on the machine would show another demo.
            ingest_config=IngestConfig(detector="motion"),
            plan=plan,
            resume=True,
            progress=progress,
            on_round=on_round,
            tell=tell,
            extra_report=extra_report,
            command=command,
            salt=salt,
            remake=True,
        )
        seconds = stages.seconds
        return {
            "report": str(result["report"]),
            **judged,
            "seconds": seconds,
            "table": table(judged, seconds),
        }
