"""A training run on disk: settings, starting and trained weights, a record of every round, resume state.

    RUN/manifest.json           method, settings, seed, weights, digests, versions; status
    RUN/rounds.jsonl            one line a round: clusters, noise share, losses, agreement, …
    RUN/times.jsonl             seconds of each round and stage (kept apart: they differ from run to run)
    RUN/isolation.safetensors   part and adjacent similarity of each crop; features of mixed ones
    RUN/labels.safetensors      label of every isolated tracklet in every round
    RUN/kept/*.safetensors      arrays of the method's own, one file a round (UGA: its graph)
    RUN/stages/*.safetensors    the teacher wherever labels that stayed for several rounds came to an end
                                (after UGA's first stage, MSPLR's source and each of its steps)
    RUN/start.safetensors       the network before training;  weights.safetensors: the trained teacher
                                (weights2.safetensors: the second teacher of a method with two networks)
    RUN/state-*.safetensors     everything needed to go on, numbered by iteration; the last two are kept
    RUN/gallery/                written by `index`

Every file is written under a temporary name, synced and renamed, so that a reader finds the old one or the
new one and never half of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tracklearn.store import weights
from tracklearn.store.files import (
    plain_json,
    read_arrays,
    read_json,
    read_lines,
    write_arrays,
    write_atomic,
    write_json,
)
from tracklearn.types import Array

SCHEMA = 1

# Two, so that a damaged one does not cost the whole run.
KEPT_STATES = 2


class RunWriter:
    """Writes a run folder while training goes on.

    Args:
        path: the run folder. It must not exist unless `resume`.
        manifest: settings, seed, digests, …; what makes this run this run.
        resume: go on with the folder when its manifest says the same, keep what it holds.

    Raises:
        FileExistsError: the folder exists and `resume` is off.
        ValueError: the folder holds a run with other settings or another input.
    """

    def __init__(self, path: str | Path, manifest: Mapping[str, Any], *, resume: bool = False) -> None:
        self.path = Path(path)
        self.manifest: dict[str, Any] = {"kind": "run", "schema": SCHEMA, "status": "training", **manifest}
        self.rounds: list[dict[str, Any]] = []
        self.labels: list[Array] = []
        existing = self.path / "manifest.json"
        if self.path.exists() and not resume:
            raise FileExistsError(f"{self.path} exists: go on with --resume, or choose another --out")
        if existing.is_file():
            old = read_json(existing)
            if old.get("digest") != self.manifest.get("digest"):
                raise ValueError(
                    f"{self.path} holds a run with other settings or another tracklet set: "
                    "choose another --out, or remove it"
                )
            # What made a finished run stays on record; one that goes on is made by this program.
            finished = old.get("status") == "finished"
            self.manifest = {**self.manifest, **old} if finished else {**old, **self.manifest}
        elif self.path.is_dir() and any(self.path.iterdir()):
            # Nothing of ours is there without a manifest, so nothing may be overwritten.
            raise FileExistsError(f"{self.path} is not empty and holds no run: choose another --out")
        self.path.mkdir(parents=True, exist_ok=True)
        for left in self.path.rglob(".*.tmp"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)
        self._write_manifest()

    def _write_manifest(self) -> None:
        write_json(self.path / "manifest.json", self.manifest)

    @property
    def finished(self) -> bool:
        """Whether the run in the folder is complete."""
        return self.manifest["status"] == "finished"

    def write_start(self, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
        """Keep the network as it was before training; `metadata` is the weights file's header."""
        weights.save(self.path / "start.safetensors", arrays, metadata)

    def write_isolation(self, arrays: Mapping[str, Array], summary: Mapping[str, Any]) -> None:
        """Keep what isolation did: arrays per crop, and its counts."""
        write_arrays(self.path / "isolation.safetensors", arrays, dict(summary))
        self.manifest["isolation"] = dict(summary)
        self._write_manifest()

    def write_round(self, record: Mapping[str, Any], label: Array, seconds: Mapping[str, float]) -> None:
        """Add one round to the record."""
        self.rounds.append(dict(record))
        self.labels.append(np.asarray(label, np.int32))
        self._write_rounds()
        self._add_time({"round": record["index"], **seconds})

    def _add_time(self, entry: Mapping[str, Any]) -> None:
        path = self.path / "times.jsonl"
        before = path.read_bytes() if path.is_file() else b""
        write_atomic(path, before + (plain_json(entry) + "\n").encode())

    def write_kept(self, index: int, arrays: Mapping[str, Array]) -> None:
        """Keep a method's own arrays of a round."""
        folder = self.path / "kept"
        folder.mkdir(exist_ok=True)
        write_arrays(folder / f"{index:05d}.safetensors", arrays)

    def write_stage(
        self, index: int, stage: str, arrays: Mapping[str, Array], metadata: Mapping[str, str]
    ) -> None:
        """Keep the teacher as it is after round `index`, the last on its labels."""
        folder = self.path / "stages"
        folder.mkdir(exist_ok=True)
        weights.save(folder / f"{index:05d}-{stage}.safetensors", arrays, metadata)

    def _write_rounds(self) -> None:
        text = "".join(plain_json(r) + "\n" for r in self.rounds)
        write_atomic(self.path / "rounds.jsonl", text.encode())
        if self.labels:
            write_arrays(self.path / "labels.safetensors", {"label": np.stack(self.labels)})

    def write_state(self, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> None:
        """Keep what is needed to go on from here; of earlier states the last one stays.

        `meta` holds `step`, the number of iterations done, which numbers the file.
        """
        meta = {**meta, "rounds_done": len(self.rounds)}
        write_arrays(self.path / f"state-{int(meta['step']):09d}.safetensors", arrays, meta)
        for old in self._states()[KEPT_STATES:]:
            old.unlink(missing_ok=True)

    def _states(self) -> list[Path]:
        """Files of states, the newest first."""
        return sorted(self.path.glob("state-*.safetensors"), reverse=True)

    def read_state(self) -> tuple[dict[str, Array], dict[str, Any]] | None:
        """The newest state that can be read, the record cut back to it; None when there is none."""
        for path in self._states():
            try:
                arrays, meta = read_arrays(path)
            except ValueError:
                path.unlink()  # damaged: the one before it is there for this
                continue
            self._cut_back(int(meta["rounds_done"]))
            return arrays, meta
        self._cut_back(0)
        return None

    def _cut_back(self, done: int) -> None:
        """Forget every round after the first `done`."""
        for folder in ("kept", "stages"):
            for file in (self.path / folder).glob("*.safetensors"):
                if int(file.stem[:5]) >= done:
                    file.unlink()
        if not done:
            (self.path / "labels.safetensors").unlink(missing_ok=True)
        run = Run(self.path)
        self.rounds = run.rounds[:done]
        self.labels = list(run.labels[:done])
        self._write_rounds()
        kept = [t for t in run.times if t.get("round", done) < done]
        write_atomic(self.path / "times.jsonl", "".join(plain_json(t) + "\n" for t in kept).encode())

    def finish(
        self,
        arrays: Sequence[Mapping[str, Array]],
        metadata: Mapping[str, str],
        *,
        seconds: Mapping[str, float],
    ) -> None:
        """Write the trained weights of every teacher and mark the run as finished; the resume states go."""
        for i, teacher in enumerate(arrays, 1):
            weights.save(self.path / f"weights{i if i > 1 else ''}.safetensors", teacher, metadata)
        self._add_time({"stage": "train", **seconds})
        self.manifest["status"] = "finished"
        self._write_manifest()
        for state in self._states():
            state.unlink(missing_ok=True)


class Run:
    """A run folder, read.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder holds no run, a damaged one, or one of a newer version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise FileNotFoundError(f"no such run: {self.path}")
        if not (self.path / "manifest.json").is_file():
            nested = self.path / "run"
            hint = f" (did you mean {nested}?)" if (nested / "manifest.json").is_file() else ""
            raise ValueError(f"{self.path} is not a run: it has no manifest.json{hint}")
        self.manifest: dict[str, Any] = read_json(self.path / "manifest.json")
        if self.manifest.get("kind") != "run":
            raise ValueError(
                f"{self.path} is not a run but a {self.manifest.get('kind', 'folder of another kind')}"
            )
        if self.manifest.get("schema", 0) > SCHEMA:
            raise ValueError(f"{self.path} was written by a newer tracklearn: update to read it")

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return self.manifest["status"] == "finished"

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """The record of every round."""
        path = self.path / "rounds.jsonl"
        return read_lines(path)

    @property
    def labels(self) -> Array:
        """(rounds, t) int32: label of every isolated tracklet in every round."""
        path = self.path / "labels.safetensors"
        return read_arrays(path)[0]["label"] if path.is_file() else np.zeros((0, 0), np.int32)

    def kept(self) -> dict[int, dict[str, Array]]:
        """The method's own arrays by round, in order; no entry for rounds that have none."""
        files = sorted((self.path / "kept").glob("*.safetensors"))
        return {int(path.stem): read_arrays(path)[0] for path in files}

    def isolation(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Arrays `part` and `similarity` per crop, `row` and `feature` of mixed tracklets; counts."""
        return read_arrays(self.path / "isolation.safetensors")

    @property
    def stages(self) -> dict[tuple[int, str], Path]:
        """(round, stage) -> file of the teacher after it, in order, where one is kept."""
        files = sorted((self.path / "stages").glob("*.safetensors"))
        return {(int(p.stem[:5]), p.stem[6:]): p for p in files}

    def weights_path(self, which: str | Path = "weights") -> Path:
        """File of the trained teacher, or with "start" of the network before training; a path is itself.

        Raises:
            ValueError: training has not finished.
        """
        if isinstance(which, Path):
            return which
        if which == "weights" and not self.finished:
            raise ValueError(f"{self.path} is not finished: go on with tracklearn train … --resume")
        return self.path / f"{which}.safetensors"

    @property
    def times(self) -> list[dict[str, Any]]:
        """Seconds of every round, and of the training as a whole."""
        path = self.path / "times.jsonl"
        return read_lines(path)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds per part of training, summed over rounds."""
        total: dict[str, float] = {}
        for entry in self.times:
            if "round" in entry:
                for name, value in entry.items():
                    if name != "round":
                        total[name] = total.get(name, 0.0) + value
        return total
