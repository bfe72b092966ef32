"""The report's section on a graph of links between parts in different cameras."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tracklearn.app.formats import percent
from tracklearn.types import Array, Tracklets

_EXAMPLES = 24
_CAMERAS = 16  # that the table of pairs has room for


def section(
    links: Mapping[str, Array],
    tracklets: Tracklets,
    cameras: Sequence[str],
    shot: Callable[[int], str],
    best: Array,
) -> dict[str, Any] | None:
    """What the template shows of a graph: counts, links per pair of cameras, example links as pairs of crops.

    Args:
        links: `start` (t + 1,), `to` (m,) and `weight` (m,) of a `core.graph.Graph`.
        tracklets: whose t rows the graph joins.
        cameras: names by camid.
        shot: picture row -> data URI.
        best: (t,) the row of `tracklets` that shows each best, −1 for none.

    Returns:
        None where the graph is of other tracklets, or there is none.
    """
    if "start" not in links or len(links["start"]) != len(tracklets) + 1:
        return None
    first = np.repeat(np.arange(len(tracklets)), np.diff(links["start"]))
    once = first < links["to"]
    a, b, weight = first[once], links["to"][once], links["weight"][once]
    camid = tracklets.camid
    n = min(len(cameras), _CAMERAS)
    pairs = np.zeros((len(cameras), len(cameras)), np.int64)
    np.add.at(pairs, (camid[a], camid[b]), 1)
    pairs += pairs.T
    linked = np.zeros(len(tracklets), bool)
    linked[a] = linked[b] = True
    return {
        "edges": len(a),
        "linked": percent(float(linked.mean()) if len(linked) else 0.0),
        "parts": len(tracklets),
        "cameras": [cameras[c] for c in range(n)],
        "pairs": [
            (cameras[c], [None if c == d else int(pairs[c, d]) for d in range(n)], int(camid_count))
            for c, camid_count in enumerate(np.bincount(camid, minlength=len(cameras))[:n])
        ],
        "examples": [
            {
                "weight": float(weight[i]),
                "ends": [
                    {"src": shot(int(tracklets.crop[best[t]])), "camera": cameras[int(camid[t])]}
                    for t in (a[i], b[i])
                ],
            }
            for i in _spread(weight, (best[a] >= 0) & (best[b] >= 0))
        ],
    }


def _spread(weight: Array, usable: Array) -> Array:
    """Links from the strongest to the weakest, evenly over their ranks."""
    order = np.flatnonzero(usable)
    order = order[np.argsort(-weight[order], kind="stable")]
    if len(order) <= _EXAMPLES:
        return order
    return order[np.linspace(0, len(order) - 1, _EXAMPLES).round().astype(np.int64)]
