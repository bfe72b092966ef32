"""Whether sets, runs, galleries and output folders are what was written: every file against its sum."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracklearn.app.pipeline.stages import Stages
from tracklearn.store.files import DamagedError
from tracklearn.store.sealed import MANIFEST, read_sealed
from tracklearn.store.sets.stored import local
from tracklearn.types import Refusal


@dataclass(frozen=True)
class Checked:
    """What was found in one folder.

    Args:
        path: the folder.
        kind: "tracklet set", "run", "gallery", "identities" or "output folder".
        damages: what is wrong, one line each.
        summed: whether its files have sums; an older program kept fewer.
    """

    path: Path
    kind: str
    damages: tuple[str, ...]
    summed: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "path": str(self.path), "damages": list(self.damages)}


def check(path: str | Path) -> list[Checked]:
    """Compare every file of a folder, and of what lies in it, with its sum; reads all of it.

    Args:
        path: a tracklet set, a run, a gallery, or a folder that holds some of them (the output of `run`).

    Raises:
        FileNotFoundError: no such folder.
        ValueError: there is nothing in it that Tracklearn wrote.
    """
    path = local(path)
    if not path.is_dir():
        raise FileNotFoundError(f"no such folder: {path}")
    found = list(_found(path))
    if not found:
        raise Refusal(f"{path} holds no tracklet set, run or gallery: name the folder that does")
    return found


def _found(path: Path) -> Iterator[Checked]:
    if (path / "stages.json").is_file():
        told: list[str] = []
        damages = Stages(path, tell=told.append).damages()
        yield Checked(path, "output folder", tuple(dict.fromkeys([*told, *damages])))
    if (path / MANIFEST).is_file():
        yield _checked(path)
    # What begins with a dot is being written.
    inner = (p for p in path.iterdir() if p.is_dir() and not p.is_symlink() and not p.name.startswith("."))
    for folder in sorted(inner):
        yield from _found(folder)


def _checked(path: Path) -> Checked:
    from tracklearn.store.gallery.open import open_gallery
    from tracklearn.store.identities.folder import Identities
    from tracklearn.store.runs import Run
    from tracklearn.store.sets.tracklets import open_set

    kind = "folder"
    try:
        manifest = read_sealed(path / MANIFEST, remedy="put it back from a copy")
        kind = manifest.get("kind") or ("gallery" if "entries" in manifest else kind)
        if kind == "run":
            return Checked(path, kind, tuple(Run(path).damages()), "files" in manifest)
        if kind == "gallery":
            with open_gallery(path) as gallery:
                return Checked(path, kind, tuple(gallery.damages()))
        if kind == "identities":
            return Checked(path, kind, tuple(Identities(path).damages()))
        return Checked(path, kind, tuple(open_set(path).damages()))
    except (DamagedError, FileNotFoundError, ValueError) as error:
        return Checked(path, kind, (str(error),))


def table(found: list[Checked]) -> str:
    """One line for each folder, and for each damage under it."""
    lines = []
    for each in found:
        state = (
            "DAMAGED" if each.damages else "whole" if each.summed else "whole as far as can be told: no sums"
        )
        lines += [f"{each.kind} {each.path}: {state}", *(f"  {line}" for line in each.damages)]
    return "\n".join(lines)
