"""People for the page: all of them, and one with parts by camera and time."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracklearn.app.web import clips
from tracklearn.app.web.find import seconds_of, shown
from tracklearn.app.web.opened import Opened, Served
from tracklearn.types import Refusal

_PICTURES = 4  # of a person in the grid


def listing(
    served: Served, *, page: int = 1, size: int = 60, order: str = "number", camera: str | None = None
) -> dict[str, Any]:
    """A page of people.

    Args:
        served: what is shown.
        page: from 1. size: of a page.
        order: "number", "doubt" (the least certain first) or "parts" (the most first).
        camera: only those whom it saw.

    Raises:
        ValueError: no such camera.
    """
    with served.opened() as opened:
        e = opened.entries
        members = opened.members
        if camera:
            if camera not in opened.gallery.cameras:
                raise Refusal(f"no camera is named {camera[:60]!r}")
            camid = opened.gallery.cameras.index(camera)
            members = {n: own for n, own in members.items() if (e.camid[own] == camid).any()}
        least = {n: float(np.nanmin(opened.probability[own], initial=2.0)) for n, own in members.items()}
        keys = {
            "number": lambda n: (n not in opened.names, n),
            "doubt": lambda n: (least[n], n),
            "parts": lambda n: (-len(members[n]), n),
        }
        numbers = sorted(members, key=keys[order])
        rows = [_row(opened, n, least[n]) for n in numbers[(page - 1) * size : page * size]]
        return {
            "people": rows,
            "total": len(numbers),
            "page": page,
            "size": size,
            "cameras": list(opened.gallery.cameras),
            "nobody": int((opened.person < 0).sum()),
        }


def _row(opened: Opened, number: int, least: float) -> dict[str, Any]:
    own, e = opened.members[number], opened.entries
    longest = own[np.argsort(-e.n_crops[own], kind="stable")][:_PICTURES]
    return {
        "person": number,
        "name": opened.names.get(number, ""),
        "called": opened.called(number),
        "parts": len(own),
        "cameras": sorted({e.camera[i] for i in own.tolist()}),
        "seconds": round(float((e.end[own] - e.start[own]).sum()), 1),
        "least": None if least > 1 else round(least, 3),
        "pictures": [f"/crop/{opened.keys[i].set[:8]}/{int(e.crop[i])}" for i in longest.tolist()],
    }


def person(served: Served, number: int) -> dict[str, Any]:
    """One person: parts with pictures and moments, the least certain first, and by camera and time.

    Raises:
        NotThere: nobody has the number.
    """
    with served.opened() as opened:
        own = opened.of_person(number)
        parts = [shown(opened, i) | {"film": clips.film_of(opened, i) is not None} for i in own.tolist()]
        doubt = sorted(
            parts, key=lambda p: (2.0 if p["belongs"] is None else p["belongs"], p["camera"], p["start"])
        )
        begin, zero = seconds_of(parts)
        least = float(np.nanmin(opened.probability[own], initial=2.0))
        return _row(opened, number, least) | {
            "parts": doubt,
            "by_time": sorted(parts, key=lambda p: (p["camera"], p["at"] or "", p["start"])),
            "begin": {p["ref"]: at for p, at in zip(parts, begin, strict=True)},
            "zero": None if zero is None else zero.isoformat(timespec="seconds"),
            "others": [
                {"person": n, "called": opened.called(n)} for n in sorted(opened.members) if n != number
            ][:2000],
        }
