"""The demo: generate a camera network, run the main job on its videos, then judge it on other people.

The ground truth of the generated world is opened only after training is over.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn import world
from tracklearn.app import evaluate, pipeline
from tracklearn.app.formats import percent
from tracklearn.store import config as settings_store
from tracklearn.store.files import beside, make_folder, read_json, remove_folder, write_json
from tracklearn.store.lock import locked
from tracklearn.store.runs import Run
from tracklearn.types import Array, Scores

if TYPE_CHECKING:
    from tracklearn.learn.train import Round
    from tracklearn.store.sets.tracklets import TrackletSet

# Settings of the demo over those of the CPU preset: a small network from random weights that meets about
# thirty people in a few minutes. Chosen on worlds of other seeds than the demo's own.
SETTINGS: dict[str, dict[str, Any]] = {
    "tmc": {"epochs": 12, "augment": {"colour": 0.5}},
    "mmt": {"epochs": 12, "augment": {"colour": 0.5}},
    "uga": {"augment": {"colour": 0.5}},
    # No colour jitter: what cameras do to colours is what MSPLR is to adapt to.
    "msplr": {"isolate": True},
}


def _program_digest() -> str:
    """sha256 over the package's own source files."""
    package = Path(world.__file__).parent.parent
    found = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.suffix in (".py", ".j2"):
            found.update(path.read_bytes())
    return found.hexdigest()


SCORES_NOTE = (
    "Every tracklet of the other people is searched for among all the others of the second set of videos; "
    "matches in its own camera do not count. Untrained is the same network with the same starting weights, "
    "which are random. The colour histogram fails where every camera has its own cast and background: it "
    "finds other people of the same camera first. Ground truth was opened after training had ended."
)


def write_videos(config: world.Config, folder: Path, *, progress: pipeline.Progress | None = None) -> None:
    """Film the world: NAME.mp4 and NAME.gt.txt (MOTChallenge ground truth) for each camera.

    The cameras are rendered in parallel, one process each, as many as there are processors.
    """
    make_folder(folder)
    names = world.make(config).cameras
    workers = min(len(names), os.cpu_count() or 1)
    # The workers leave Ctrl-C to this process, which stops them.
    stop = (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=signal.signal, initargs=stop
    ) as pool:
        jobs = [pool.submit(_film, config, camera, folder / name) for camera, name in enumerate(names)]
        for done, job in enumerate(jobs, 1):
            job.result()
            if progress:
                progress(f"film {folder.name}", done, len(names))


def _film(config: world.Config, camera: int, stem: Path) -> None:
    from tracklearn.store.film.mot import Boxes, write_results
    from tracklearn.store.film.video_writer import VideoWriter

    scene = world.make(config)
    frame, pid, box = [], [], []
    with VideoWriter(
        stem.with_suffix(".mp4"), width=config.width, height=config.height, fps=config.fps, crf=26
    ) as writer:
        for number, (image, truth) in enumerate(scene.frames(camera)):
            writer.write(image)
            frame.append(np.full(len(truth.pid), number))
            pid.append(truth.pid)
            box.append(truth.box)
    frames = np.concatenate(frame)
    write_results(
        stem.with_suffix(".gt.txt"),
        Boxes(frames, np.concatenate(pid), np.concatenate(box), np.ones(len(frames), np.float32)),
    )


def worlds(seed: int) -> tuple[world.Config, world.Config]:
    """The world to learn from and the one to be judged on: the same cameras, other people."""
    learn = world.Config(seed=seed, people_seed=2 * seed + 1)
    judge = world.Config(seed=seed, people_seed=2 * seed + 2, first_pid=learn.n_people)
    return learn, judge


def source_world(seed: int) -> world.Config:
    """A labelled world for methods that adapt from one: other cameras, neutral light, bright clothes."""
    return world.Config(seed=1000 + seed, people_seed=2 * seed + 3, first_pid=200, clothes="bright", cast=0.0)


def demo(
    out: str | Path,
    *,
    method: str = "tmc",
    seed: int = 0,
    device: str | None = None,
    resume: bool = False,
    progress: pipeline.Progress | None = None,
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
    from tracklearn.app.report import SearchExample
    from tracklearn.store.ingest.ingest import Config as IngestConfig
    from tracklearn.store.sets.tracklets import open_set, read_truth

    out = Path(out)
    pipeline.method_module(method)
    with locked(out):
        if out.exists() and not resume:
            raise FileExistsError(f"{out} exists: go on with --resume, or choose another --out")
        stages = pipeline.Stages(out, tell=tell, remake=True)
        learn, judge = worlds(seed)
        # The demo shows the program as it is: what an older one left in the folder is made anew.
        salt = _program_digest()
        adapts = pipeline.takes_source(method)
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

        def plan(set_path: Path) -> pipeline.TrainPlan:
            return pipeline.plan_training(
                set_path,
                method=method,
                source=source,
                weights="none",
                preset="cpu",
                device=device,
                seed=seed,
                extra={name: values for name, values in SETTINGS.items() if name in (method, "network")},
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
            ingest_config=IngestConfig(),
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
            "table": _table(judged, seconds),
        }


def judge_run(
    out: Path, names: tuple[str, ...], *, device: str | None, progress: pipeline.Progress | None
) -> dict[str, Any]:
    """Scores on the other people and noise rates of the training tracklets, from the ground truth."""
    from tracklearn.store.film.mot import read_results
    from tracklearn.store.sets.tracklets import open_set, read_truth, write_truth

    run = Run(out / "run")
    tracklet_set = open_set(out / "set")
    truths = {name: read_results(out / "world" / "learn" / f"{name}.gt.txt") for name in names}
    truth = evaluate.match_truth(tracklet_set, truths)
    write_truth(out / "set", truth.pid)
    pairs = sum(len(np.unique(t.track)) for t in truths.values())
    parts = pipeline.isolated(run, tracklet_set)
    noise = {
        "before": evaluate.noise_rates(tracklet_set.tracklets, truth, truth_pairs=pairs).to_dict(),
        "after": evaluate.noise_rates(parts, truth, truth_pairs=pairs).to_dict(),
        "dropped_fraction": run.manifest["isolation"]["dropped_fraction"],
    }

    folder = out / "judge"
    remove_folder(folder)
    remove_folder(beside(folder, after=".partial"))
    # The judged tracklets are cut out along the ground truth, so that only the features are judged.
    judge_set = cut(out / "world" / "judge", folder, progress=progress)
    pid = evaluate.tracklet_pid(judge_set.tracklets, read_truth(folder))
    camid = judge_set.tracklets.camid
    device = pipeline.pick_device(device)

    def features_of(which: str | Path) -> Array:
        network = pipeline.load_network(run, which)
        return pipeline.tracklet_features(
            network, judge_set, judge_set.tracklets, device=device, progress=progress
        )

    features = {"untrained": features_of("start"), "trained": features_of("weights")}
    kept = {index: features_of(path) for (index, _), path in run.stages.items()}
    for (index, stage), _ in run.stages.items():
        if stage == "source":
            features["source_only"] = kept[index]
    size = run.manifest["network"]
    crops = judge_set.crops(size["height"], size["width"], cache_bytes=0)
    features["baseline"] = evaluate.colour_histogram(crops, judge_set.tracklets)
    scores = {name: evaluate.retrieval(f, pid, camid).to_dict() for name, f in features.items()}
    links = evaluate.link_rates(run.kept(), parts, truth)
    steps = _steps(
        run,
        evaluate.tracklet_pid(parts, truth),
        {i: evaluate.retrieval(f, pid, camid) for i, f in kept.items()},
    )
    examples = _examples(features["trained"], judge_set, pid, seed=run.manifest["seed"])
    judged = {
        **scores,
        "noise": noise,
        "examples": examples,
        "steps": steps,
        "weights": run.manifest["weights"]["name"],
    }
    return judged | ({"links": links} if links else {})


def cut(films: Path, out: Path, *, progress: pipeline.Progress | None = None) -> TrackletSet:
    """Cut films of a world along their true boxes into the set `out`, and write who is in it beside it."""
    from tracklearn.store.film.mot import read_results
    from tracklearn.store.ingest import ingest
    from tracklearn.store.sets.tracklets import open_set, write_truth

    names = sorted(path.stem for path in films.glob("*.mp4"))
    sources = [f"{name}={films / name}.gt.txt+{films / name}.mp4" for name in names]
    opened = open_set(ingest.ingest(sources, out, resume=True, progress=progress))
    truth = evaluate.match_truth(opened, {name: read_results(films / f"{name}.gt.txt") for name in names})
    pid = evaluate.tracklet_pid(opened.tracklets, truth)
    write_truth(out, pid[opened.tracklets.tracklet])  # one person each, as a benchmark wants them
    return opened


def _steps(run: Run, pid: Array, scores: Mapping[int, Scores]) -> list[dict[str, Any]]:
    """What ground truth says of every labelling of a method that goes in steps; empty for others.

    Args:
        run: finished.
        pid: true person of each tracklet trained on.
        scores: last round of a labelling -> the scores of the network after it.
    """
    found, first = [], 0
    for last, score in scores.items():
        rates = evaluate.label_rates(run.labels[first], pid) if (run.labels[first] >= 0).any() else {}
        found.append({"index": first, **rates, "mAP": score.mAP, "rank1": score.rank(1)})
        first = last + 1
    return found


def _examples(
    features: Array, judge_set: TrackletSet, pid: Array, *, seed: int, n: int = 6, k: int = 10
) -> list[dict[str, Any]]:
    """Searches for n tracklets drawn at random, in other cameras; rows are of the judged set's pictures."""
    from tracklearn.core import rank
    from tracklearn.store.gallery.folder import representative

    camid = judge_set.tracklets.camid
    picture = judge_set.tracklets.crop[representative(judge_set.tracklets)]
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(pid >= 0))[:n]
    found = []
    for query in drawn:
        others = np.flatnonzero(camid != camid[query])
        matches = rank.nearest(features[query : query + 1], features[others], min(k, len(others)))
        rows = others[matches.index[0]]
        found.append(
            {
                "query": int(picture[query]),
                "results": picture[rows].tolist(),
                "distance": matches.distance[0].tolist(),
                "right": (pid[rows] == pid[query]).tolist(),
                "query_caption": judge_set.cameras[camid[query]],
                "captions": [judge_set.cameras[c] for c in camid[rows]],
            }
        )
    return found


def _table(judged: dict[str, Any], seconds: dict[str, float]) -> str:
    """What the demo found, for a terminal."""
    lines = ["people not seen in training       mAP   rank-1"]
    labels = {
        "baseline": "colour histogram",
        "untrained": "untrained network",
        "source_only": "trained on the source alone",
        "trained": "trained by Tracklearn",
    }
    for name, label in labels.items():
        if name not in judged:
            continue
        lines.append(f"  {label:<28} {judged[name]['mAP']:>6.1%}  {judged[name]['rank1']:>6.1%}")
    before, after = judged["noise"]["before"], judged["noise"]["after"]
    lines += [
        "noise of the training tracklets   r_FM    r_SW",
        f"  {'from the tracker':<28} {before['r_FM']:>6.2f}  {before['r_SW']:>6.2f}",
        f"  {'after isolation':<28} {after['r_FM']:>6.2f}  {after['r_SW']:>6.2f}"
        f"   ({judged['noise']['dropped_fraction']:.1%} of the frames dropped)",
        *_links(judged.get("links", [])),
        "seconds: " + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()),
    ]
    return "\n".join(lines)


def _links(links: list[dict[str, float]]) -> list[str]:
    """First and last round of the links between cameras."""
    if not links:
        return []
    return ["links between cameras     precision   recall"] + [
        f"  {'round ' + str(e['round'] + 1):<24}{percent(e['precision']):>10} {percent(e['recall']):>8}"
        for e in (links[0], links[-1])
    ]
