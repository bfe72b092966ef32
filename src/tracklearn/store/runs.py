"""A training run on disk: settings, starting and trained weights, a record of every round, resume state.

    RUN/manifest.json           method, settings, seed, weights, digests, versions; status
    RUN/rounds.jsonl            one line a round: clusters, noise share, losses, agreement, …
    RUN/times.jsonl             seconds of each round and stage (kept apart: they differ from run to run)
    RUN/isolation.safetensors   part and adjacent similarity of each crop; features of mixed ones; distances
                                of pairs known without labels
    RUN/isolation/*.safetensors the same where tracklets were cut anew, by the round before which that was
    RUN/labels.safetensors      labels of every isolated tracklet, a row for each time that they changed; a
                                round's record says which row is its own, `length` how many tracklets there
                                were
    RUN/kept/*.safetensors      arrays of the method's own, one file a round (UGA: its graph)
    RUN/stages/*.safetensors    the teacher wherever labels that stayed for several rounds came to an end
                                (after UGA's first stage, MSPLR's source and each of its steps)
    RUN/start.safetensors       the network before training;  weights.safetensors: the trained teacher
                                (weights2.safetensors: the second teacher of a method with two networks)
    RUN/state-*.safetensors     everything needed to go on, numbered by iteration; the last two are kept
    RUN/gallery/                written by `index`

Every file is written under a temporary name, synced and renamed, so that a reader finds the old one or the
new one and never half of one; the manifest holds its sha256, which is compared before it is used.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from tracklearn.store import weights
from tracklearn.store.files import (
    DamagedError,
    first_line,
    hash_file,
    make_folder,
    pack_arrays,
    plain_json,
    read_arrays,
    read_lines,
    write_atomic,
)
from tracklearn.store.intents import settle
from tracklearn.store.lock import locked
from tracklearn.store.sealed import MANIFEST, SealedFolder, damage, read_sealed
from tracklearn.types import Array, Refusal

SCHEMA = 1

# Two, so that a damaged one does not cost the whole run.
KEPT_STATES = 2

REMEDY = "put it back from a copy, or remove the folder and train again"
_SUMMED = ("rounds.jsonl", "*.safetensors", *(f"{d}/*.safetensors" for d in ("kept", "stages", "isolation")))


class RunWriter:
    """Writes a run folder while training goes on, and keeps other writers out of it.

    Args:
        path: the run folder. It must not exist unless `resume`.
        manifest: settings, seed, digests, …; what makes this run this run.
        resume: go on with the folder when its manifest says the same, keep what it holds.

    Attributes:
        manifest: what the folder's manifest says, or will say with the next file.
        notes: what a person should hear of (a damaged state that was passed over).

    Raises:
        FileExistsError: the folder exists and `resume` is off.
        ValueError: the folder holds a run with other settings or another input, or another process writes to
            it (`InUseError`).

    Used as a context manager, or closed, it lets the next writer in. A run that has no round yet and was
    begun by this writer is removed when the block ends with an error: nothing of it is worth keeping, and it
    would be in the way of the next attempt. One that has rounds is marked as refused: it stays to be looked
    at, and a run of other settings may take its place (the same settings would be refused again).
    """

    def __init__(self, path: str | Path, manifest: Mapping[str, Any], *, resume: bool = False) -> None:
        self.path = Path(path)
        self.rounds: list[dict[str, Any]] = []
        self.labels: list[Array] = []
        self.notes: list[str] = []
        self._open = ExitStack()
        with ExitStack() as opening:
            opening.enter_context(locked(self.path))
            self._folder = self._begin(
                {"kind": "run", "schema": SCHEMA, "status": "training", **manifest}, resume
            )
            self._open = opening.pop_all()

    def _begin(self, manifest: dict[str, Any], resume: bool) -> SealedFolder:
        if self.path.exists() and not resume:
            raise FileExistsError(f"{self.path} exists: go on with --resume, or choose another --out")
        self._new = not (self.path / MANIFEST).is_file()
        if not self._new:
            old = read_sealed(self.path / MANIFEST, remedy=REMEDY)
            same = old.get("digest") == manifest.get("digest")
            if not same and old.get("status") == "refused":
                self.notes.append(
                    f"{self.path} held a run that was refused ({old.get('reason')}): begun anew"
                )
                self._clear()
                return self._begin(manifest, resume)
            if not same:
                raise Refusal(
                    f"{self.path} holds a run with other settings or another tracklet set: "
                    "choose another --out, or remove it"
                )
            if old.get("status") == "finished":
                # What made a finished run stays on record, but for the place of a set that was moved.
                manifest = {**manifest, **old, **({"set": manifest["set"]} if "set" in manifest else {})}
            else:  # one that goes on is made by this program
                manifest = {k: v for k, v in old.items() if k != "reason"} | manifest
            if "files" not in manifest:  # of a program that kept no sums
                manifest["files"] = {name: hash_file(self.path / name) for name in self._names()}
        elif self.path.is_dir() and any(not _passing(file) for file in self.path.iterdir()):
            # Nothing of ours is there without a manifest, so nothing may be overwritten.
            raise FileExistsError(f"{self.path} is not empty and holds no run: choose another --out")
        make_folder(self.path)
        for left in self.path.rglob(".*.tmp"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)
        folder = SealedFolder(self.path, manifest)
        for state in self._states():  # killed between taking it from the record and removing it
            if state.name not in folder.manifest["files"]:
                state.unlink()
        folder.save()  # and syncs the folder
        return folder

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Refusal) and not isinstance(error, DamagedError) and not self.finished:
            if self._new and not self.rounds:
                shutil.rmtree(self.path, ignore_errors=True)
            else:
                self.manifest.update(status="refused", reason=first_line(error))
                with suppress(OSError):  # what it was refused for is the news, not the disk
                    self._folder.put({})
        self.close()

    def _clear(self) -> None:
        """Remove what the folder holds, its manifest last: until then it says what the folder was."""
        for entry in self.path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != MANIFEST:
                entry.unlink()
        (self.path / MANIFEST).unlink()

    def close(self) -> None:
        """Let other writers in; what was written stays."""
        self._open.close()

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest's entries; changes are written with the next file."""
        return self._folder.manifest

    def _names(self) -> list[str]:
        """Names of the files that the manifest keeps sums of."""
        found = [p for pattern in _SUMMED for p in self.path.glob(pattern)]
        return sorted(p.relative_to(self.path).as_posix() for p in found)

    @property
    def finished(self) -> bool:
        """Whether the run in the folder is complete."""
        return bool(self.manifest["status"] == "finished")

    def write_start(self, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
        """Keep the network as it was before training; `metadata` is the weights file's header."""
        self._folder.put({"start.safetensors": weights.encode(arrays, metadata)})

    def write_isolation(
        self, arrays: Mapping[str, Array], summary: Mapping[str, Any], *, before: int = 0
    ) -> None:
        """Keep what isolation did before round `before`: arrays per crop, and its counts."""
        self.manifest["isolation"] = dict(summary)
        self._folder.put({_isolation_name(before): pack_arrays(arrays, dict(summary))})

    def write_round(self, record: Mapping[str, Any], label: Array, seconds: Mapping[str, float]) -> None:
        """Add one round to the record; labels that stay are not written again: there may be many rounds."""
        label = np.asarray(label, np.int32)
        stays = bool(self.labels) and np.array_equal(self.labels[-1], label)
        if not stays:
            self.labels.append(label)
        self.rounds.append({**record, "labels": len(self.labels) - 1})
        self._folder.put(self._record(labels=not stays))
        self._add_time({"round": record["index"], **seconds})

    def _add_time(self, entry: Mapping[str, Any]) -> None:
        path = self.path / "times.jsonl"
        before = path.read_bytes() if path.is_file() else b""
        write_atomic(path, before + _time_line(entry))

    def write_kept(self, index: int, arrays: Mapping[str, Array]) -> None:
        """Keep a method's own arrays of a round."""
        self._folder.put({f"kept/{index:05d}.safetensors": pack_arrays(arrays)})

    def write_stage(
        self, index: int, stage: str, arrays: Mapping[str, Array], metadata: Mapping[str, str]
    ) -> None:
        """Keep the teacher as it is after round `index`, the last on its labels."""
        self._folder.put({f"stages/{index:05d}-{stage}.safetensors": weights.encode(arrays, metadata)})

    def _record(self, *, labels: bool) -> dict[str, bytes]:
        """The files that tell of all rounds so far, that of the labels where they are new."""
        files = {"rounds.jsonl": "".join(plain_json(r) + "\n" for r in self.rounds).encode()}
        if labels and self.labels:
            length = np.array([len(row) for row in self.labels], np.int32)
            padded = np.full((len(length), length.max()), -1, np.int32)
            for row, own in zip(padded, self.labels, strict=True):
                row[: len(own)] = own
            files["labels.safetensors"] = pack_arrays({"label": padded, "length": length})
        return files

    def write_state(self, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> None:
        """Keep what is needed to go on from here; of earlier states the last one stays.

        `meta` holds `step`, the number of iterations done, which numbers the file.
        """
        meta = {**meta, "rounds_done": len(self.rounds)}
        name = f"state-{int(meta['step']):09d}.safetensors"
        old = [state.name for state in self._states() if state.name != name]
        self._folder.put({name: pack_arrays(arrays, meta)}, drop=old[KEPT_STATES - 1 :])

    def _states(self) -> list[Path]:
        """Files of states, the newest first."""
        return sorted(self.path.glob("state-*.safetensors"), reverse=True)

    def read_state(self) -> tuple[dict[str, Array], dict[str, Any]] | None:
        """The newest state that is whole, the record cut back to it; None when there is none.

        A damaged one is passed over for the one before it, and `notes` says so.
        """
        bad: list[str] = []
        for path in self._states():
            try:
                if why := damage(self.path, path.name, self.manifest):
                    raise DamagedError(f"{path} is damaged ({why})")
                arrays, meta = read_arrays(path)
            except DamagedError as error:
                self.notes.append(f"{str(error).removesuffix(': make it again')}: passed over")
                bad.append(path.name)
                continue
            self._cut_back(int(meta["rounds_done"]), bad, isolated=int(meta.get("isolated", 0)))
            self.notes += [f"training goes on from {path.name}, the state before it"] if bad else []
            return arrays, meta
        self._cut_back(0, bad)
        self.notes += ["no state is left to go on from: training starts anew"] if bad else []
        return None

    def _cut_back(self, done: int, states: Sequence[str], *, isolated: int = 0) -> None:
        """Forget every round after the first `done`, every isolation after `isolated`, and these states."""
        later = sorted((self.path / "isolation").glob("*.safetensors"))
        gone = [f"isolation/{file.name}" for file in later if int(file.stem) > isolated]
        if gone:
            self.manifest["isolation"] = read_arrays(self.path / _isolation_name(isolated))[1]
        gone += [
            f"{folder}/{file.name}"
            for folder in ("kept", "stages")
            for file in (self.path / folder).glob("*.safetensors")
            if int(file.stem[:5]) >= done
        ]
        run = Run(self.path)
        self.rounds = run.rounds[:done] if done else []
        last = max(_rows(self.rounds), default=-1)
        self.labels = run.label_rows[: last + 1] if done else []
        kept = [t for t in run.times if t.get("round", done) < done]
        self._folder.put(
            self._record(labels=True), drop=[*gone, *states, *([] if done else ["labels.safetensors"])]
        )
        write_atomic(self.path / "times.jsonl", b"".join(map(_time_line, kept)))

    def finish(
        self,
        arrays: Sequence[Mapping[str, Array]],
        metadata: Mapping[str, str],
        *,
        seconds: Mapping[str, float],
    ) -> None:
        """Write the trained weights of every teacher and mark the run as finished; the resume states go.

        The weights are opened and compared first: while there are states, nothing is lost.

        Raises:
            DamagedError: what was written is not what is read.
        """
        names = [f"weights{i if i > 1 else ''}.safetensors" for i in range(1, len(arrays) + 1)]
        self._folder.put(
            {name: weights.encode(teacher, metadata) for name, teacher in zip(names, arrays, strict=True)}
        )
        for name, teacher in zip(names, arrays, strict=True):
            found, _ = read_arrays(self.path / name)
            same = found.keys() == teacher.keys() and all(
                found[key].shape == np.shape(value) and np.array_equal(found[key], value, equal_nan=True)
                for key, value in teacher.items()
            )
            if not same:
                raise DamagedError(
                    f"{self.path / name} does not read back as it was written: look at the disk, then go on "
                    "with --resume"
                )
        self._add_time({"stage": "train", **seconds})
        self.manifest["status"] = "finished"
        self._folder.put({}, drop=[state.name for state in self._states()])


def _isolation_name(before: int) -> str:
    """File of the isolation before this round."""
    return f"isolation/{before:05d}.safetensors" if before else "isolation.safetensors"


def _rows(rounds: Sequence[Mapping[str, Any]]) -> list[int]:
    """Which row of the labels belongs to each round; its own where an older program wrote one for each."""
    return [int(record.get("labels", i)) for i, record in enumerate(rounds)]


def _passing(file: Path) -> bool:
    """Whether a file is one that a killed writer leaves behind."""
    return file.name.startswith(".") and file.name.endswith(".tmp")


def _time_line(entry: Mapping[str, Any]) -> bytes:
    """One line of times.jsonl; its sum stands in it, since times, unlike all else, differ from run to run."""
    entry = {key: value for key, value in entry.items() if key != "crc32"}
    crc32 = zlib.crc32(plain_json(entry).encode())
    return (plain_json({**entry, "crc32": crc32}) + "\n").encode()


class Run:
    """A run folder, read.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder holds no run, a damaged one, or one of a newer version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        settle(self.path)
        if not self.path.is_dir():
            raise FileNotFoundError(f"no such run: {self.path}")
        if not (self.path / "manifest.json").is_file():
            nested = self.path / "run"
            hint = f" (did you mean {nested}?)" if (nested / "manifest.json").is_file() else ""
            raise Refusal(f"{self.path} is not a run: it has no manifest.json{hint}")
        self.manifest = read_sealed(self.path / MANIFEST, remedy=REMEDY)
        if self.manifest.get("kind") != "run":
            raise Refusal(
                f"{self.path} is not a run but a {self.manifest.get('kind', 'folder of another kind')}"
            )
        self.manifest.require(schema=int)
        if self.manifest["schema"] > SCHEMA:
            raise Refusal(f"{self.path} was written by a newer tracklearn: update to read it")
        self.manifest.require(status=str, digest=str)

    def _checked(self, name: str) -> Path:
        """The file of that name, compared with its sum.

        Raises:
            DamagedError: it is not what was written.
        """
        for _ in range(10):
            why = damage(self.path, name, self.manifest)
            if why is None:
                return self.path / name
            # A training may be going on: then the manifest has gone on too.
            now = read_sealed(self.path / MANIFEST, remedy=REMEDY)
            if now == self.manifest:
                break
            self.manifest = now
        raise DamagedError(f"{self.path / name} is damaged ({why}): {REMEDY}")

    def damages(self) -> list[str]:
        """What is wrong with the run's files, one line each; reads all of them."""
        names = sorted(self.manifest.get("files", {}))
        found = [(name, damage(self.path, name, self.manifest)) for name in names]
        return [f"{self.path / name} is damaged ({why})" for name, why in found if why]

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return self.manifest["status"] == "finished"

    @property
    def sets(self) -> list[dict[str, Any]]:
        """The sets that it learned from, in order: `path` as seen from here and `digest`."""
        learned = self.manifest["set"]
        return list(learned["sets"]) if "sets" in learned else [learned]

    def rows_of(self, digest: str) -> slice | None:
        """The crop rows of a set, by its digest, among all that it learned from; None for another set."""
        if self.manifest["set"]["digest"] == digest:
            return slice(None)
        first = 0
        for entry in self.manifest["set"].get("sets", ()):
            end = first + entry["n_crops"]
            if entry["digest"] == digest:
                return slice(first, end)
            first = end
        return None

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """The record of every round."""
        return read_lines(self._checked("rounds.jsonl"))

    @property
    def label_rows(self) -> list[Array]:
        """Labels (t,) int32 of every isolated tracklet, one for each time that they changed."""
        path = self._checked("labels.safetensors")
        if not path.is_file():
            return []
        kept = read_arrays(path)[0]
        length = kept.get("length", np.full(len(kept["label"]), kept["label"].shape[1]))
        return [row[:n] for row, n in zip(kept["label"], length, strict=True)]

    @property
    def labels(self) -> list[Array]:
        """Labels (t,) int32 of every isolated tracklet in every round, as `isolation` left them for it."""
        rows = self.label_rows
        return [rows[i] for i in _rows(self.rounds)]

    def kept(self) -> dict[int, dict[str, Array]]:
        """The method's own arrays by round, in order; no entry for rounds that have none."""
        files = sorted((self.path / "kept").glob("*.safetensors"))
        return {int(path.stem): read_arrays(self._checked(f"kept/{path.name}"))[0] for path in files}

    def isolation(self, index: int | None = None) -> tuple[dict[str, Array], dict[str, Any]]:
        """Arrays `part` and `similarity` per crop, `row` and `feature` of mixed tracklets; counts.

        Args:
            index: the round that they are asked for; by default the last that is on record.
        """
        index = len(self.rounds) - 1 if index is None else index
        made = [int(file.stem) for file in (self.path / "isolation").glob("*.safetensors")]
        before = max((n for n in made if n <= index), default=0)
        return read_arrays(self._checked(_isolation_name(before)))

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
            return self._checked(which.relative_to(self.path).as_posix())
        if which == "weights" and not self.finished:
            raise Refusal(f"{self.path} is not finished: go on with tracklearn train … --resume")
        return self._checked(f"{which}.safetensors")

    @property
    def trained(self) -> list[Path]:
        """Files of all trained teachers, as many as the method has networks.

        Raises:
            ValueError: training has not finished, or a file is damaged.
        """
        first = self.weights_path()
        others = sorted(self.path.glob("weights[2-9].safetensors"))
        return [first, *(self._checked(path.name) for path in others)]

    @property
    def times(self) -> list[dict[str, Any]]:
        """Seconds of every round, and of the training as a whole; damaged lines are left out."""
        return self._read_times()[0]

    @property
    def lost_times(self) -> int:
        """Number of lines that are damaged, or missing of a finished run: `times` has none of them."""
        return self._read_times()[1]

    def _read_times(self) -> tuple[list[dict[str, Any]], int]:
        path, found, lost = self.path / "times.jsonl", [], 0
        summed = "files" in self.manifest  # an older program kept no sums
        for line in path.read_bytes().splitlines() if path.is_file() else []:
            try:
                entry = json.loads(line.decode())
            except ValueError:
                entry = None
            if isinstance(entry, dict) and (not summed or _time_line(entry).rstrip() == line):
                found.append({key: value for key, value in entry.items() if key != "crc32"})
            else:
                lost += 1
        if summed and self.finished:  # every round has a line, and the training as a whole
            lost = max(lost, len(self.rounds) + 1 - len(found))
        return found, lost

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
