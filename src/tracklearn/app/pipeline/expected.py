"""What `run` would do: its sources as they open, and the estimate of its training where the set is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracklearn.app.formats import duration
from tracklearn.app.pipeline.estimated import Estimate, count
from tracklearn.app.pipeline.plan import TrainPlan
from tracklearn.types import Progress

if TYPE_CHECKING:
    from tracklearn.store.film.clocks import Start
    from tracklearn.store.film.connection import Live
    from tracklearn.store.ingest.jobs import Config, Job


@dataclass(frozen=True)
class Expected:
    """What would run.

    Args:
        sources: camera, source, kind, `refused` (why it will be left out, or None), and of videos width,
            height, frames (None where nothing tells) and frames a second, of folders of crops images and
            tracklets.
        detector: who finds the people, and why that one, where "auto" chose; "" otherwise.
        method, network, weights, device, preset: of the training.
        training: what it would take; None as long as the set is not there to measure on.
    """

    sources: tuple[dict[str, Any], ...]
    detector: str
    method: str
    network: str
    weights: str
    device: str
    preset: str
    training: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values under the field names, for JSON."""
        return asdict(self)

    def table(self) -> str:
        """The same for people."""
        lines = ["What would be read; nothing is written:"]
        lines += [f"  {one['camera']}: {_told(one)}" for one in self.sources]
        lines += [f"  {self.detector}"] if self.detector else []
        if self.training is not None:
            return "\n".join([*lines, "", self.training.table()])
        lines += [
            f"Then {self.method} trains {self.network} from weights {self.weights} on {self.device}, preset "
            f"{self.preset}.",
            "How long that takes is measured on the tracklet set: run tracklearn ingest first, or ask again "
            "when the set is there.",
        ]
        return "\n".join(lines)


def expected(
    sources: Sequence[Any],
    out: str | Path,
    *,
    ingest_config: Config,
    plan: Callable[[Path], TrainPlan],
    strict: bool = False,
    live: Live | None = None,
    start: Start | None = None,
    progress: Progress | None = None,
) -> Expected:
    """What `run` of the same arguments would do; whatever it would refuse is refused.

    Args:
        sources, out, ingest_config, plan, strict, live, start, progress: as for `run`.
    """
    from tracklearn.app.pipeline.estimate import estimate
    from tracklearn.store.ingest.request import Request

    asked = Request(sources, ingest_config, start=start, live=live)
    refused = asked.check(strict=strict)
    training = plan(Path(out) / "set")
    if asked.n_cameras is not None:
        training.check_cameras(asked.n_cameras)
    found = (Path(out) / "set" / "manifest.json").is_file()
    return Expected(
        sources=tuple(_opened(job, why) for job, why in zip(asked.jobs, refused, strict=True)),
        detector=asked.chosen,
        method=training.method,
        network=training.network.backbone,
        weights=training.weights["name"],
        device=training.device,
        preset=training.preset,
        training=estimate(training, progress=progress) if found else None,
    )


def _opened(job: Job, refused: str | None) -> dict[str, Any]:
    source = job.source
    known = {"camera": source.camera, "source": str(source), "kind": source.kind, "refused": refused}
    if refused is not None or source.address:
        return known
    if job.plan is not None:
        return known | {"images": job.plan.n_files, "tracklets": len(job.plan.tracklets)}
    if job.afar:
        return known | {"bytes": sum(info.size for info in job.objects)}
    with job.open_frames() as frames:
        info = frames.info
    return known | {"width": info.width, "height": info.height, "frames": info.n_frames, "fps": info.fps}


def _told(one: dict[str, Any]) -> str:
    if one["refused"]:
        return f"left out: {one['refused']}"
    if "images" in one:
        return f"{count(one['images'], 'image')} in {count(one['tracklets'], 'tracklet')}, {one['source']}"
    if "bytes" in one:
        return f"{one['bytes'] / 1e6:.1f} MB in storage, looked at when they are read, {one['source']}"
    if "frames" not in one:
        return f"a camera, recorded as it comes, {one['source']}"
    n, fps = one["frames"], one["fps"]
    length = "of unknown length" if n is None else f"{count(n, 'frame')}, {duration(n / fps)}"
    return f"{one['width']}×{one['height']}, {fps:.3g} frames a second, {length}, {one['source']}"
