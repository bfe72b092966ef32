"""Training as a run on disk: the events of `learn.train` written as they come, on the first process."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn import __version__
from tracklearn.app.pipeline import first_look
from tracklearn.app.pipeline.plan import TrainPlan, starting_networks
from tracklearn.core.isolate import typical_step
from tracklearn.core.pieces import taken_in
from tracklearn.core.shown import worst_mixed
from tracklearn.store import memory
from tracklearn.store.files import relative
from tracklearn.store.objects import require_folder
from tracklearn.store.runs import RunWriter
from tracklearn.store.workers.chosen import engine_of
from tracklearn.store.workers.engine import Engine
from tracklearn.types import Array, Progress, Refusal, Tracklets

if TYPE_CHECKING:
    from tracklearn.learn.method import Method
    from tracklearn.learn.network import Network
    from tracklearn.learn.ranks import Ranks
    from tracklearn.learn.train import Prepared, Round, State
    from tracklearn.store.sets.tracklets import TrackletSet

Tell = Callable[[str], None]

# At most this many frames of a mixed tracklet keep their features for the report's projection.
MIXED_ROWS = 400

_LEAST = 192 << 20  # bytes for threads, libraries and a batch, whatever the network


def train(
    plan: TrainPlan,
    out: str | Path,
    *,
    resume: bool = False,
    workers: int | None = None,
    on: str | None = None,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> Iterator[Round]:
    """Train on a plan's sets without their labels and write the run to `out`, yielding each round as it ends.

    Where `torchrun` started several processes they share the work, and the first of them writes. One process
    may have workers look at all crops before the first epoch (`workers`, `on`, as for `ingest`); what is
    learned is the same. `tell` hears what a person should know of the starting weights, and of the folder:
    that a damaged state was passed over.

    Raises:
        FileExistsError: `out` exists and `resume` is off.
        ValueError: the set is unusable, another process is writing to `out`, or training stopped because
            nothing could be clustered; the message holds the diagnosis. A run that has no round by then
            leaves no folder. There are no such workers, or several processes are to have some.
        MemoryError: less memory is left than the networks alone take.
    """
    from tracklearn.learn.ranks import joined, launched

    require_folder(out)
    engine = engine_of(on, workers)
    if engine.apart and launched() > 1:
        raise Refusal(
            "the processes that torchrun starts share all crops already: leave --workers and --on out"
        )
    plan.check_out(out)
    _require_memory(plan)
    with joined(plan.device) as (ranks, device), ExitStack() as stack:
        tracklet_set, writer = plan.open(), None
        plan.check_cameras(len(np.unique(tracklet_set.tracklets.camid)))
        if ranks.rank == 0:
            manifest = _manifest(plan, tracklet_set, out)
            writer = stack.enter_context(RunWriter(out, manifest, resume=resume))
        yield from _train(plan, tracklet_set, writer, resume, progress, tell, ranks, device, engine)


def _require_memory(plan: TrainPlan) -> None:
    """Refuse what cannot fit, while there is memory to say so: libraries that run out of it hang or abort.

    A lower bound: the parameters of student and teacher, the gradients and Adam's two moments, and what
    threads and a batch take at the least.
    """
    import torch

    from tracklearn.learn import backbone

    left = memory.available()
    if left is None or not plan.device.startswith("cpu"):
        return
    with torch.device("meta"):  # counted, not made
        network = backbone.build(plan.network, seed=0)
    weights = sum(p.numel() * p.element_size() for p in network.parameters())
    needed = 5 * weights * plan.value().networks + _LEAST
    if needed > left:
        raise MemoryError(
            f"training {plan.network.backbone} takes {needed / 1e9:.1f} GB at the very least, and "
            f"{left / 1e9:.1f} GB are left"
        )


def _train(
    plan: TrainPlan,
    tracklet_set: TrackletSet,
    writer: RunWriter | None,
    resume: bool,
    progress: Progress | None,
    tell: Tell | None,
    ranks: Ranks,
    device: str,
    engine: Engine,
) -> Iterator[Round]:
    import torch

    from tracklearn.learn import train as loop

    crops = plan.crops(tracklet_set)
    if ranks.from_first(writer is not None and writer.finished):
        return
    began = time.perf_counter()
    # Made once, so that machines which round differently still start from the same numbers.
    networks = ranks.from_first(
        starting_networks(plan, crops, tracklet_set.tracklets) if ranks.rank == 0 else []
    )
    kept = None
    if writer is not None:
        if "start.safetensors" not in writer.manifest["files"]:
            writer.write_start(networks[0].arrays(), networks[0].metadata())
        kept = writer.read_state() if resume else None
        if tell is not None:
            for note in (*plan.notices, *writer.notes):
                tell(note)
    kept = ranks.from_first(kept)
    last = state = loop.State(*kept) if kept else None
    method = plan.value()
    look = None
    if writer is not None and engine.apart:
        look = first_look.by_workers(
            writer.path,
            tracklet_set,
            crops,
            device=device,
            precision=plan.compute.precision,
            engine=engine,
            progress=progress,
        )
    events = loop.train(
        method,
        networks,
        tracklet_set.tracklets,
        crops,
        config=plan.compute,
        device=device,
        ranks=ranks,
        seed=plan.seed,
        resume=state,
        look=look,
        progress=progress if ranks.rank == 0 else None,
    )
    broken = state.meta["broken_crops"] if state else 0
    for event in events:
        if isinstance(event, loop.Round):
            if writer is not None:
                writer.write_round(_round_record(event), _own_labels(event, method, writer), event.seconds)
                if event.keep:
                    writer.write_kept(event.index, event.keep)
            yield event
        elif writer is None:
            continue
        elif isinstance(event, loop.Prepared):
            _write_prepared(writer, event, tracklet_set.tracklets)
            if tell is not None:
                for note in event.diagnosis:
                    tell(note)
        else:
            # Crops that the run met before it was stopped are not all met again.
            broken = max(broken, getattr(crops, "broken", 0))
            if writer.rounds and "fit" not in event.meta:
                _write_stage(writer, method, event, networks[0])
            writer.write_state(event.arrays, {**event.meta, "broken_crops": broken})
            last = event
    if writer is None:
        return
    if last is None or not writer.rounds:
        raise Refusal("training ended before its first round: set the number of epochs to 1 or more")
    writer.manifest["broken_crops"] = broken
    writer.manifest["threads"] = torch.get_num_threads()
    writer.manifest["processes"] = ranks.size
    writer.finish(
        [loop.teacher_arrays(last, k) for k in range(len(networks))],
        _header(networks[0], writer),
        seconds={"total": time.perf_counter() - began},
    )


def _own_labels(event: Round, method: Method, writer: RunWriter) -> Array:
    """The labels of the run's own tracklets; −1 for all where the round learned from other material."""
    if next(s for s in method.stages if s.name == event.stage).material is None:
        return event.labels.label
    return np.full(writer.manifest["isolation"]["n_after"], -1)


def _write_stage(writer: RunWriter, method: Method, state: State, network: Network) -> None:
    """Keep the teacher where labels that stayed for several rounds, or those of a source, came to an end."""
    from tracklearn.learn.events import teacher_arrays

    done = writer.rounds[-1]
    stage = next(s for s in method.stages if s.name == done["stage"])
    if stage.assign_every > 1 or stage.material is not None:
        writer.write_stage(done["index"], stage.name, teacher_arrays(state), _header(network, writer))


def _header(network: Network, writer: RunWriter) -> dict[str, str]:
    """The network's metadata, and what its training owed to labels, which goes wherever the file goes."""
    labels = writer.manifest.get("labels_used", [])
    return network.metadata() | ({"labels_used": json.dumps(labels)} if labels else {})


def _manifest(plan: TrainPlan, tracklet_set: TrackletSet, out: str | Path) -> dict[str, Any]:
    import torch

    return {
        "tracklearn": __version__,
        "digest": plan.digest,
        "method": plan.method,
        "settings": plan.config.model_dump(mode="json"),
        "network": plan.network.model_dump(mode="json"),
        "compute": plan.compute.model_dump(mode="json"),
        "weights": plan.weights,
        "preset": plan.preset,
        "device": plan.device,
        "seed": plan.seed,
        "set": _learned_from(plan, tracklet_set, out),
        "labels_used": [*labels_used(tracklet_set), *_source_labels(plan), *_starting_labels(plan)],
        "earlier_sets": _earlier_sets(plan, out),
        "source": None if plan.source is None else relative(plan.source, out),
        "versions": {
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def _learned_from(plan: TrainPlan, tracklet_set: TrackletSet, out: str | Path) -> dict[str, Any]:
    """What the run says of its set: place and digest; of several those of each, and one digest of all."""
    entries = [
        {"path": relative(path, out), "digest": one.digest}
        for path, one in zip(plan.sets, tracklet_set.members, strict=True)
    ]
    if len(entries) == 1:
        return entries[0]
    sets = [
        entry | {"n_crops": one.n_crops} for entry, one in zip(entries, tracklet_set.members, strict=True)
    ]
    return {"digest": tracklet_set.digest, "sets": sets}


def labels_used(tracklet_set: TrackletSet) -> list[str]:
    """What the tracklets of a set owe to ground truth, one line each, for the record of what learns from it.

    Noise is simulated with the truth; at r_FM 1 and r_SW 1 that is one tracklet per person and camera.
    """
    if len(tracklet_set.members) > 1:
        return list(dict.fromkeys(line for one in tracklet_set.members for line in labels_used(one)))
    noise = tracklet_set.manifest.get("settings", {}).get("noise")
    if noise is None:
        found = [s["note"] for s in tracklet_set.manifest["sources"] if s.get("labels_used")]
        return list(dict.fromkeys(found))
    asked = noise["asked"]
    if asked["r_FM"] == asked["r_SW"] == 1:
        return ["tracklets were made with labels: one for each person and camera"]
    return [f"tracklets were made with labels: noise at r_FM {asked['r_FM']:g}, r_SW {asked['r_SW']:g}"]


def _source_labels(plan: TrainPlan) -> list[str]:
    """What a run owes to the labels of its source."""
    if plan.source is None:
        return []
    return [f"the network learned from the labelled set {plan.source.name} first"]


def _starting_labels(plan: TrainPlan) -> list[str]:
    """What a run owes to the labels that its starting weights learned from."""
    return list(dict.fromkeys(line for start in plan.starts for line in start.info.labels))


def _earlier_sets(plan: TrainPlan, out: str | Path) -> list[dict[str, str]]:
    """Sets that the starting weights have seen, where they are a run's: no test may hold their people."""
    found = {}
    for run in (start.run for start in plan.starts if start.run is not None):
        for entry in [*run.sets, *run.manifest.get("earlier_sets", [])]:
            found[entry["digest"]] = relative(run.path / entry["path"], out)
    return [{"path": path, "digest": digest} for digest, path in found.items()]


def _write_prepared(writer: RunWriter, event: Prepared, original: Tracklets) -> None:
    """Keep parts, similarities, and the features of the most mixed tracklets for the report's pictures."""
    rows = mixed_rows(original, taken_in(event.part), event.similarity)
    writer.write_isolation(
        {
            "part": event.part.astype(np.int32),
            "similarity": event.similarity.astype(np.float32),
            "row": rows,
            "feature": event.features[np.searchsorted(event.row, rows)].astype(np.float32),
            **{
                f"{kind}.{name}": getattr(found, kind)
                for name, found in event.calibration.items()
                for kind in ("same", "different")
            },
        },
        {
            "n_before": event.n_before,
            "n_after": event.n_after,
            "dropped": event.dropped,
            "dropped_fraction": event.dropped / max(original.n_crops, 1),
            "n_parts": len(original.split(taken_in(event.part))),  # n_after, and those set aside
            "aside": event.aside,
            "adjacent_distance": typical_step(event.similarity),
            "calibration": {name: found.to_dict() for name, found in event.calibration.items()},
            "diagnosis": list(event.diagnosis),
        },
        before=event.round,
    )


def mixed_rows(tracklets: Tracklets, part: Array, similarity: Array) -> Array:
    """First rows of the tracklets that isolation found most mixed, worst first."""
    start = tracklets.start
    worst = worst_mixed(tracklets, part, similarity)
    found = [np.arange(start[i], min(start[i + 1], start[i] + MIXED_ROWS)) for i in worst]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _round_record(event: Round) -> dict[str, Any]:
    return {
        "index": event.index,
        "stage": event.stage,
        "n_clusters": event.n_clusters,
        "noise_fraction": event.noise_fraction,
        "largest_cluster": event.largest_cluster,
        "eps": event.eps,
        "agreement": None if np.isnan(event.agreement) else event.agreement,
        "losses": event.losses,
        "accuracy": event.accuracy,
        "n_iterations": event.n_iterations,
        "record": event.record,
        "diagnosis": list(event.diagnosis),
    }
