"""The stages in order: ingest, train, index, identities, report; and `run`, which does them all.

Each function takes paths and settings and leaves a folder or a file behind; the command line and the Python
interface call nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracklearn import __version__
from tracklearn.app.identities.link import identities
from tracklearn.app.people import decided
from tracklearn.app.pipeline.plan import TrainPlan
from tracklearn.app.pipeline.stages import Stages
from tracklearn.app.pipeline.training import train
from tracklearn.app.report.of_run import report
from tracklearn.app.search.index import gallery_is_of, index
from tracklearn.store import config as settings_store
from tracklearn.store.files import DamagedError, beside, read_json, write_json
from tracklearn.store.identities.folder import CALIBRATION, Identities
from tracklearn.store.identities.journal import journal_path, read_cuts, read_journal
from tracklearn.store.lock import locked
from tracklearn.store.objects import require_folder
from tracklearn.store.runs import Run
from tracklearn.types import Progress, Refusal

if TYPE_CHECKING:
    from tracklearn.learn.train import Round
    from tracklearn.store.film.clocks import Start
    from tracklearn.store.film.connection import Live
    from tracklearn.store.ingest.ingest import Config as IngestConfig


def run(
    sources: Sequence[Any],
    out: str | Path,
    *,
    ingest_config: IngestConfig,
    plan: Callable[[Path], TrainPlan],
    resume: bool = False,
    strict: bool = False,
    workers: int | None = None,
    on: str | None = None,
    live: Live | None = None,
    start: Start | None = None,
    progress: Progress | None = None,
    on_round: Callable[[Round], None] | None = None,
    tell: Callable[[str], None] | None = None,
    extra_report: Callable[[], dict[str, Any]] | None = None,
    command: str = "",
    salt: str = "",
    remake: bool = False,
) -> dict[str, Any]:
    """Ingest, train, index, say who is who and report, each stage skipped when its input is unchanged.

    Args:
        sources: what `ingest` takes.
        out: folder for set, run, identities and report.html.
        ingest_config: settings of ingest.
        plan: makes the training plan for the path of the set; called before the set is there.
        resume: go on in an existing folder.
        strict: refuse all when any source cannot be read, instead of leaving it out.
        workers, on: who reads the sources, as for `ingest`, and where training is on the CPU embeds all
            crops: before the first epoch, for the gallery and for identities.
        live: how cameras are recorded.
        start: when the films of a camera began.
        on_round: told of every round.
        tell: told what a person should know, a line each: which detector was chosen, damage that was passed
            over.
        extra_report: further contents for the report, called when training is done.
        command: the command line that the report shows.
        salt: joins every stage's digest; another salt, another result.
        remake: make anew what `stages.json` does not tell of, where all inputs are the program's own.

    Returns:
        Paths and seconds per stage; a stage that was not run again keeps the seconds it took.

    Raises:
        FileExistsError: `out` exists and `resume` is off.
    """
    from tracklearn.store.ingest import ingest as ingest_store
    from tracklearn.store.ingest.request import Request
    from tracklearn.store.sets.tracklets import open_set
    from tracklearn.store.workers.chosen import engine_of

    require_folder(out)
    out = Path(out)
    with locked(out):
        if out.exists() and not resume:
            raise FileExistsError(f"{out} exists: go on with --resume, or choose another --out")
        set_path, run_path, report_path = out / "set", out / "run", out / "report.html"
        # Everything that can be refused is refused before hours of video are read or an old result is moved.
        # Sources come first: a mistyped file name should not wait for weights to be downloaded.
        engine_of(on, workers)  # asked now whether there is such a one
        asked = Request(sources, ingest_config, start=start, live=live)
        asked.check(strict=strict)
        training = plan(set_path)
        training.check_out(run_path)
        # A GPU embeds faster than many cores, and processes that share it would share its memory.
        embedding: dict[str, Any] = {"workers": workers, "on": on} if training.device == "cpu" else {}
        if asked.n_cameras is not None:
            training.check_cameras(asked.n_cameras)
        stages = Stages(out, tell=tell, remake=remake)
        with stages.stage("ingest", settings_store.digest([asked.digest, salt]), set_path) as needed:
            if needed:
                ingest_store.ingest(
                    asked,
                    set_path,
                    resume=True,
                    device=training.device,
                    progress=progress,
                    tell=tell,
                    workers=workers,
                    on=on,
                )

        trained = settings_store.digest([training.digest, salt])
        with stages.stage("train", trained, run_path) as needed:
            if needed:
                for event in train(
                    training, run_path, resume=True, progress=progress, tell=tell, **embedding
                ):
                    stages.note_time()
                    if on_round:
                        on_round(event)

        if not gallery_is_of(Run(run_path), open_set(set_path).digest):
            stages.forget("index")
        cuts = [vars(place) for place in read_cuts(journal_path(run_path))]
        indexed = settings_store.digest([trained, cuts]) if cuts else trained
        with stages.stage("index", indexed, run_path / "gallery") as needed:
            if needed:
                index(
                    run_path,
                    set_path,
                    device=training.device,
                    resume=True,
                    progress=progress,
                    **embedding,
                )

        people = out / "identities"
        said = [*read_journal(journal_path(run_path)), *decided(run_path)]
        decisions = [decision.to_dict() for decision in said]
        known = settings_store.digest([trained, __version__, decisions])
        with stages.stage("identities", known, people) as needed:
            if needed:
                identities(
                    run_path,
                    [set_path],
                    people,
                    earlier=_earlier(people, open_set(set_path).digest),
                    device=training.device,
                    resume=True,
                    progress=progress,
                    **embedding,
                )
                _keep_calibration(people, run_path, open_set(set_path).digest)

        extra = extra_report() if extra_report else {}
        content = settings_store.digest([trained, __version__, extra.get("scores"), decisions])
        with stages.stage("report", content, report_path) as needed:
            if needed:
                report(
                    run_path, out=report_path, resume=True, command=command, seconds=stages.seconds, **extra
                )
        return {
            "set": set_path,
            "run": run_path,
            "identities": people,
            "report": report_path,
            "seconds": stages.seconds,
        }


def _keep_calibration(people: Path, run_path: Path, digest: str) -> None:
    """What distances mean goes into the run too, unless it holds what other footage told."""
    file = run_path / CALIBRATION
    try:
        held = read_json(file) if file.is_file() else {}
    except DamagedError:
        held = {}
    if not isinstance(held, dict):
        held = {}
    if not held or held.get("sets") == [digest]:
        write_json(file, held | read_json(people / CALIBRATION) | {"sets": [digest]})


def _earlier(people: Path, digest: str) -> Path | None:
    """The table of the same set that gives way to a new one: numbers stay, and what was said of it holds."""
    aside = beside(people, after=".old")
    try:
        sets = [entry["digest"] for entry in Identities(aside).manifest["sets"]]
    except (Refusal, FileNotFoundError):
        return None
    return aside if digest in sets else None
