"""Corrected tracks: MOTChallenge files of each film, with one number for a person in all of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from tracklearn.app.formats import slug
from tracklearn.app.identities.footage import Footage
from tracklearn.store.files import make_folder
from tracklearn.store.film.mot import Boxes, write_results
from tracklearn.types import Array

_FILMED = ("video", "results")


def write_tracks(folder: Path, footage: Footage, number: Array) -> list[str]:
    """Write a file for each film: tracks cut where isolation cut them, joined where one person was found.

    Args:
        folder: to write to; made where there is a film.
        footage: some sets.
        number: (t,) int64 person of each part, below 1 for nobody.

    Returns:
        What is not in the files, a line each: boxes of nobody, second boxes of a person in one frame.
    """
    parts = footage.parts
    set_of = footage.joined.set_of(parts.source)
    rows_of = parts.tracklet
    films = [
        (s, f)
        for s, one in enumerate(footage.sets)
        for f, source in enumerate(one.manifest["sources"])
        if source.get("kind") in _FILMED and source.get("status") == "ok"
    ]
    names = _names([slug(footage.sets[s].manifest["sources"][f]["camera"]) or "camera" for s, f in films])
    nobody = second = 0
    for (s, f), name in zip(films, names, strict=True):
        own = np.zeros(len(parts), bool)
        here = np.flatnonzero(set_of == s)
        own[here] = footage.sets[s].file[parts.source[here] - footage.joined.first_track[s]] == f
        rows = np.flatnonzero(own[rows_of])
        person = number[rows_of[rows]]
        nobody += int((person < 1).sum())
        rows, person = rows[person >= 1], person[person >= 1]
        # A person has one box in a frame, the surest.
        order = np.lexsort((-parts.score[rows], person, parts.frame[rows]))
        rows, person = rows[order], person[order]
        key = np.stack([parts.frame[rows], person])
        first = np.r_[True, (np.diff(key, axis=1) != 0).any(0)] if len(rows) else np.zeros(0, bool)
        second += int((~first).sum())
        rows, person = rows[first], person[first]
        make_folder(folder)
        write_results(
            folder / f"{name}.txt", Boxes(parts.frame[rows], person, parts.box[rows], parts.score[rows])
        )
    notes = []
    if nobody:
        notes.append(f"{nobody} boxes of nobody in particular are not in the corrected tracks")
    if second:
        notes.append(f"{second} second boxes of a person in one frame are not in the corrected tracks")
    return notes


def _names(wanted: list[str]) -> list[str]:
    """File names, each once: those that come several times get numbers."""
    several, seen = Counter(wanted), Counter[str]()
    taken: set[str] = {name for name, n in several.items() if n == 1}
    names = []
    for name in wanted:
        made = name
        while several[name] > 1 and (made == name or made in taken):
            seen[name] += 1
            made = f"{name}-{seen[name]}"
        taken.add(made)
        names.append(made)
    return names
