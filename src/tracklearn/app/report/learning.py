"""The report on learning: charts over rounds, the sizes of the last clusters, what is odd about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tracklearn.app.formats import known, number
from tracklearn.app.report import charts
from tracklearn.app.report.data import ReportData
from tracklearn.types import Array


def section(data: ReportData) -> list[dict[str, str]]:
    """Charts over rounds, then the sizes of the last clusters, each with a heading and a caption."""
    panels = over_rounds(data.rounds)
    if (data.label >= 0).any():
        size, several = _cluster_sizes(data)
        svg = charts.sizes(size, several, alt="parts of each person in the last round")
        single = f"{int((~several).sum())} of {len(size)}"
        caption = f"Each person of the last round; the faint ones met one camera only ({single})."
        panels.append({"heading": "Parts of each person", "caption": caption, "svg": svg})
    return panels


def over_rounds(rounds: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Charts over the records of rounds: heading, caption and svg; those without values left out."""
    x = np.array([r.get("index", i) for i, r in enumerate(rounds)], np.float64)
    panels: list[dict[str, str]] = []

    def add(heading: str, caption: str, series: Mapping[str, Array], **options: Any) -> None:
        drawn = {name: (x, y) for name, y in series.items() if np.isfinite(y).any()}
        if drawn:
            svg = charts.lines(drawn, x_label="round", alt=f"{heading} over rounds", **options)
            panels.append({"heading": heading, "caption": caption, "svg": svg})

    add(
        "Persons",
        "How many persons the features suggest; it should settle, not run to one or to all.",
        {"persons": _series(rounds, "n_clusters")},
        whole=True,
    )
    add(
        "Left out as noise",
        "Share of parts that are no person's; it should fall as the features improve.",
        {"noise": _series(rounds, "noise_fraction")},
        percent=True,
    )
    add(
        "Parts of the largest person",
        "A sudden jump means that several persons are merging.",
        {"largest": _series(rounds, "largest_cluster")},
        whole=True,
    )
    add(
        "Agreement and fit",
        "How far the labels repeat those of the round before, and how well the classifier fits them: "
        "both should rise; neither says that the labels are right.",
        {"same": _series(rounds, "agreement"), "fit": _series(rounds, "accuracy")},
        percent=True,
    )
    add(
        "Links between cameras",
        "Pairs of parts that the graph joins; between two rounds some appear and some go.",
        {
            name: _recorded(rounds, key)
            for name, key in (("links", "n_edges"), ("added", "added"), ("dropped", "dropped"))
        },
        whole=True,
    )
    add(
        "Does learning help?",
        "Without a label: shares of crops known again in another augmentation and of halves of a track that "
        "find each other, how surely people seen side by side are told from one, and how separate persons "
        "are. Where they fall, an earlier epoch may have been better.",
        {
            name: _recorded(rounds, key)
            for name, key in (
                ("views", "two_views"),
                ("halves", "same_track"),
                ("people", "two_people"),
                ("separate", "silhouette"),
            )
        },
    )
    add(
        "Proxies",
        "Persons split by camera: all of them and, of up to 16 cameras, those of each.",
        {
            name.removeprefix("proxies_").replace("proxies", "all").replace("cam", "camera "): _recorded(
                rounds, name
            )
            for name in dict.fromkeys(n for r in rounds for n in (r.get("record") or {}))
            if name == "proxies" or name.startswith("proxies_cam")
        },
        whole=True,
    )
    names = dict.fromkeys(name for r in rounds for name in (r.get("losses") or {}))
    add(
        "Losses",
        "Mean of each loss in a round; they start anew with every new labelling, so look at the trend.",
        {name: np.array([_float((r.get("losses") or {}).get(name)) for r in rounds]) for name in names},
    )
    return panels


def remarks(data: ReportData) -> list[str]:
    """What the last labelling noted of its persons, a sentence each; nothing for what was not noted."""
    record = (data.rounds[-1].get("record") or {}) if data.rounds else {}
    one_track, apart, splits = (_float(record.get(name)) for name in ("one_track", "apart", "splits"))
    found = []
    if one_track > 0:
        found.append(
            f"{_persons(one_track)} joined from parts of one track alone: what isolation cut, not people who "
            "came back."
        )
    if apart >= 0:
        pairs = "pair of parts was" if apart == 1 else "pairs of parts were"
        text = f"{number(apart)} {pairs} seen at the same moment, apart, and kept from being one person"
        found.append(text + (f"; {_persons(splits)} split for it." if splits > 0 else "."))
    return found


def _persons(n: float) -> str:
    return f"{number(n)} {'person was' if n == 1 else 'persons were'}"


def _cluster_sizes(data: ReportData) -> tuple[Array, Array]:
    """(c,) sizes, largest first, and whether several cameras saw each."""
    label, camid = data.label, data.isolated.camid
    inside = label >= 0
    found, size = np.unique(label[inside], return_counts=True)
    pairs = np.unique(np.stack([label[inside], camid[inside]], 1), axis=0)
    several = np.bincount(np.searchsorted(found, pairs[:, 0])) > 1
    order = np.argsort(-size, kind="stable")
    return size[order], several[order]


def _series(rounds: Sequence[Mapping[str, Any]], name: str) -> Array:
    return np.array([_float(r.get(name)) for r in rounds], np.float64)


def _recorded(rounds: Sequence[Mapping[str, Any]], name: str) -> Array:
    return np.array([_float((r.get("record") or {}).get(name)) for r in rounds])


def _float(value: Any) -> float:
    return float(value) if known(value) else float("nan")
