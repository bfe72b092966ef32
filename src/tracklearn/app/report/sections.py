"""The report's sections: what the template shows, computed from the run's arrays.

Only the pictures that are shown are read; everything else is counts over arrays.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracklearn.app.formats import clock, duration, flat, known, number, percent
from tracklearn.app.pictures import fit
from tracklearn.app.report import charts, covered, links, records
from tracklearn.app.report.data import ReportData
from tracklearn.app.report.selection import frames, length_bins, letters, tile
from tracklearn.core.shown import STRIPS, called, numbers, representative, spread, worst_mixed
from tracklearn.types import Array

if TYPE_CHECKING:
    from tracklearn.app.report.data import ReportData


_MOSAIC_CROPS, _MOSAIC_CAMERAS = 240, 24  # crops in all mosaics together, cameras that get one
_STRIP_FRAMES, _PROJECTED = 36, 300
_CLUSTERS, _CLUSTER_TRACKLETS, _CLUSTER_CROPS = 20, 8, 16
_SEARCHES, _RESULTS = 6, 10


class Sections:
    """The template's context, section by section."""

    def __init__(self, data: ReportData) -> None:
        self.data = data
        self.best = representative(data.tracklets)
        self.best_isolated = representative(data.isolated)
        self.tile = tile(data.tracklets)
        self.unreadable = 0

    def context(self) -> dict[str, Any]:
        """All the names that the template uses."""
        data = self.data
        last = data.rounds[-1] if data.rounds else {}
        sections = {
            "cameras": self.camera_rows(),
            "mosaics": self.mosaics(),
            "isolation": self.isolation(),
            "strips": self.strips(),
            "covered": self.covered(),
            "learning": self.learning(),
            "clusters": self.clusters(),
            "left_out": self.left_out(),
            "records": records.table(data.rounds, data.steps),
            "links": links.section(data.links, data.isolated, data.cameras, self.shot, self.best_isolated),
            "searches": self.searches(),
            "scores": self.score_rows(),
            "noise": self.noise(),
            "stages": self.stages(),
            "settings": flat(data.settings),
        }
        warnings = list(data.warnings)
        if self.unreadable:
            warnings.append(f"{self.unreadable} pictures of this report could not be read and are shown grey")
        return sections | {
            "data": data,
            "last": last,
            "cards": self.cards(last),
            "warnings": warnings,
            "tile": self.tile,
            "skipped": sorted(data.skipped, key=lambda s: -s[2]),
        }

    # -- pictures ---------------------------------------------------------------------------------

    def shot(self, row: int, *, from_search: bool = False) -> str:
        """Picture `row` as a data URI of the tile's size; grey when it cannot be read."""
        import cv2

        picture = (from_search and self.data.search_picture) or self.data.picture
        width, height = self.tile
        try:
            tile = fit(picture(int(row)), width, height)
        except (ValueError, OSError):
            self.unreadable += 1
            tile = np.full((height, width, 3), 142, np.uint8)
        _, jpeg = cv2.imencode(".jpg", tile[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
        return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode("ascii")

    # -- what went in -----------------------------------------------------------------------------

    def cards(self, last: Mapping[str, Any]) -> list[tuple[str, str, str]]:
        """(label, value, note) of the headline numbers."""
        data, tracklets = self.data, self.data.tracklets
        crops, n = tracklets.n_crops, len(data.cameras)
        cards = [
            ("went in", f"{len(tracklets):,}", f"tracklets, {crops:,} crops, {n} camera{'s' * (n != 1)}"),
            (
                "after isolation",
                f"{len(data.isolated):,}",
                f"tracklets, {percent(self.dropped())} of crops dropped",
            ),
        ]
        if last:
            noise = last.get("noise_fraction")
            note = "clusters" + (f", {percent(noise)} of tracklets left out" if known(noise) else "")
            cards.append(("last round", number(last.get("n_clusters")), note))
        rates = data.noise or {}
        if "before" in rates and "after" in rates:
            before, after = rates["before"]["r_SW"], rates["after"]["r_SW"]
            if known(before) and known(after):
                cards.append(
                    ("persons per tracklet", f"{before:.2f} → {after:.2f}", "before and after isolation")
                )
        scores = data.scores or {}
        if "untrained" in scores and "trained" in scores:
            before, after = scores["untrained"]["mAP"], scores["trained"]["mAP"]
            if known(before) and known(after):
                note = "% untrained → trained, on unseen people"
                cards.append(("mAP", f"{100 * before:.1f} → {100 * after:.1f}", note))
        cards.append(
            (
                "time",
                duration(sum(data.seconds.values())),
                f"{len(data.rounds)} round{'s' * (len(data.rounds) != 1)} of training",
            )
        )
        return cards

    def dropped(self) -> float:
        """Share of crops that isolation dropped."""
        return float(np.mean(self.data.part < 0)) if len(self.data.part) else 0.0

    def camera_rows(self) -> list[dict[str, Any]]:
        """One row per camera for the table."""
        data, tracklets = self.data, self.data.tracklets
        n = len(data.cameras)
        crop_camid = tracklets.camid[tracklets.tracklet]
        crops = np.bincount(crop_camid, minlength=n)
        side = (tracklets.box[:, 2:] - tracklets.box[:, :2]).astype(np.float64)
        size = np.stack([np.bincount(crop_camid, weights=s, minlength=n) for s in np.nan_to_num(side).T], 1)
        mean_size = size / np.maximum(crops, 1)[:, None]
        before = np.bincount(tracklets.camid, minlength=n)
        after = np.bincount(data.isolated.camid, minlength=n)
        notes: dict[str, list[Mapping[str, Any]]] = {}
        for source in data.sources:
            if source.get("status") != "skipped":
                notes.setdefault(str(source.get("camera", "")), []).append(source)
        rows = []
        for camid, name in enumerate(data.cameras):
            own = notes.get(name, [])
            files = [Path(str(note["path"])).name for note in own if note.get("path")]
            more = f" and {len(files) - 1} more" if len(files) > 1 else ""
            width, height = mean_size[camid]
            rows.append(
                {
                    "name": name,
                    "path": files[0] + more if files else "",
                    "frames": _sum(note.get("frames") for note in own),
                    "detections": _sum(note.get("detections") for note in own),
                    "tracklets": int(before[camid]),
                    "isolated": int(after[camid]),
                    "crops": int(crops[camid]),
                    "size": f"{width:.0f} × {height:.0f}" if width > 0 and height > 0 else "–",
                }
            )
        return rows

    def mosaics(self) -> list[dict[str, Any]]:
        """Crops of each camera, one per tracklet, evenly over time."""
        data = self.data
        shown = min(len(data.cameras), _MOSAIC_CAMERAS)
        found = []
        for camid in range(shown):
            own = np.flatnonzero((data.tracklets.camid == camid) & (self.best >= 0))
            chosen = own[spread(len(own), min(30, _MOSAIC_CROPS // shown))]
            rows = data.tracklets.crop[self.best[chosen]]
            if len(rows):
                found.append(
                    {"name": data.cameras[camid], "shots": [self.shot(row) for row in rows], "of": len(own)}
                )
        return found

    # -- isolation --------------------------------------------------------------------------------

    def isolation(self) -> dict[str, Any]:
        """Counts before and after, and two charts."""
        data = self.data
        t = len(data.tracklets)
        kept = np.asarray(data.part) >= 0
        width = int(np.max(data.part, initial=0)) + 1
        key = np.unique(data.tracklets.tracklet[kept] * width + data.part[kept])
        n_parts = np.bincount(key // width, minlength=t)
        most = max(1, min(int(n_parts.max(initial=1)), 8))
        parts = np.bincount(np.clip(n_parts, 0, most), minlength=most + 1)[1:]
        labels = [str(i) for i in range(1, most + 1)]
        if n_parts.max(initial=0) > most:
            labels[-1] += "+"
        edges, bins = length_bins(
            max(data.tracklets.length.max(initial=1), data.isolated.length.max(initial=1))
        )
        lengths = {
            name: np.histogram(tracklets.length, edges)[0]
            for name, tracklets in (("before", data.tracklets), ("after", data.isolated))
        }
        return {
            "before": t,
            "after": len(data.isolated),
            "cut": int((n_parts > 1).sum()),
            "dropped": self.dropped(),
            "n_dropped": int((~kept).sum()),
            "parts": charts.histogram(
                {"tracklets": parts},
                labels,
                x_label="parts",
                y_label="tracklets",
                alt="tracklets by number of parts",
            ),
            "lengths": charts.histogram(
                lengths, bins, x_label="crops in a tracklet", y_label="tracklets", alt="tracklets by length"
            ),
        }

    def strips(self) -> list[dict[str, Any]]:
        """Film strips of the most mixed tracklets, with their similarity curve and projection."""
        data = self.data
        chosen = list(data.features) or worst_mixed(data.tracklets, data.part, data.similarity).tolist()
        return [self.strip(int(tracklet)) for tracklet in chosen[:STRIPS]]

    def strip(self, tracklet: int) -> dict[str, Any]:
        """One film strip."""
        data = self.data
        first, end = data.tracklets.start[tracklet : tracklet + 2]
        rows = np.arange(first, end)
        part = np.asarray(data.part)[rows]
        person = None if data.person is None else np.asarray(data.person)[rows]
        letter = {} if person is None else letters(person)
        shown = frames(part, _STRIP_FRAMES)
        frame = data.tracklets.frame[rows]
        shots = [
            {
                "src": self.shot(data.tracklets.crop[rows[i]]),
                "colour": charts.part_colour(int(part[i])),
                "dropped": bool(part[i] < 0),
                "frame": int(frame[i]),
                "person": letter[int(person[i])] if person is not None else "",
            }
            for i in shown
        ]
        own = numbers(tracklet, data.tracklets.tracklet, np.asarray(data.part))
        name = called(own)
        curve = charts.similarity_curve(
            frame, np.asarray(data.similarity)[rows], part, alt=f"similarity of adjacent frames in {name}"
        )
        cloud, method = "", ""
        features = data.features.get(tracklet)
        if features is not None and len(features) >= 3:
            at = spread(len(features), _PROJECTED)
            point, method = charts.project(np.asarray(features)[at])
            cloud = charts.projection(point, part[at], alt=f"features of {name} in the plane")
        sizes = Counter(part[part >= 0].tolist())
        return {
            "name": name,
            "camera": data.cameras[int(data.tracklets.camid[tracklet])],
            "span": f"{clock(data.tracklets.time[first])} – {clock(data.tracklets.time[end - 1])}",
            "n": len(rows),
            "parts": [(charts.part_colour(p), sizes[p], n) for p, n in zip(sorted(sizes), own, strict=True)],
            "n_dropped": int((part < 0).sum()),
            "shots": shots,
            "curve": curve,
            "cloud": cloud,
            "method": method,
        }

    def covered(self) -> dict[str, Any] | None:
        """Covered frames; None where there are none, or no telling."""
        data = self.data
        if data.film is None:
            return None
        found = covered.section(
            data.tracklets, np.asarray(data.film), np.asarray(data.part), data.cameras, self.shot
        )
        return found if found["n"] else None

    # -- learning ---------------------------------------------------------------------------------

    def learning(self) -> list[dict[str, str]]:
        """Charts over rounds, each with a heading and a caption; those without values left out."""
        rounds = self.data.rounds
        x = np.array([r.get("index", i) for i, r in enumerate(rounds)], np.float64)
        panels: list[dict[str, str]] = []

        def add(heading: str, caption: str, series: Mapping[str, Array], **options: Any) -> None:
            drawn = {name: (x, y) for name, y in series.items() if np.isfinite(y).any()}
            if drawn:
                svg = charts.lines(drawn, x_label="round", alt=f"{heading} over rounds", **options)
                panels.append({"heading": heading, "caption": caption, "svg": svg})

        add(
            "Clusters",
            "How many identities the features suggest; it should settle, not run to one or to all.",
            {"clusters": _series(rounds, "n_clusters")},
            whole=True,
        )
        add(
            "Left out as noise",
            "Share of tracklets in no cluster; it should fall as the features improve.",
            {"noise": _series(rounds, "noise_fraction")},
            percent=True,
        )
        add(
            "Largest cluster",
            "Tracklets in the biggest cluster; a sudden jump means that persons are merging.",
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
            "Pairs of tracklets that the graph joins; between two rounds some appear and some go.",
            {
                name: np.array([_float((r.get("record") or {}).get(key)) for r in rounds])
                for name, key in (("links", "n_edges"), ("added", "added"), ("dropped", "dropped"))
            },
            whole=True,
        )
        names = dict.fromkeys(name for r in rounds for name in (r.get("losses") or {}))
        add(
            "Losses",
            "Mean of each loss in a round; they start anew with every new labelling, so look at the trend.",
            {name: np.array([_float((r.get("losses") or {}).get(name)) for r in rounds]) for name in names},
        )
        if (self.data.label >= 0).any():
            size, several = self.cluster_sizes()
            svg = charts.sizes(size, several, alt="cluster sizes of the last round")
            single = f"{int((~several).sum())} of {len(size)}"
            caption = f"Each cluster of the last round; the faint ones met one camera only ({single})."
            panels.append({"heading": "Cluster sizes", "caption": caption, "svg": svg})
        return panels

    def cluster_sizes(self) -> tuple[Array, Array]:
        """(c,) sizes, largest first, and whether several cameras saw each."""
        label, camid = self.data.label, self.data.isolated.camid
        inside = label >= 0
        found, size = np.unique(label[inside], return_counts=True)
        pairs = np.unique(np.stack([label[inside], camid[inside]], 1), axis=0)
        several = np.bincount(np.searchsorted(found, pairs[:, 0])) > 1
        order = np.argsort(-size, kind="stable")
        return size[order], several[order]

    def clusters(self) -> list[dict[str, Any]]:
        """Clusters of the last round drawn at random (always the same ones), largest first."""
        label = np.asarray(self.data.label)
        found, size = np.unique(label[label >= 0], return_counts=True)
        draw = np.random.default_rng(0).permutation(len(found))[:_CLUSTERS]
        chosen = draw[np.lexsort((found[draw], -size[draw]))]
        return [self.group(np.flatnonzero(label == found[i]), f"cluster {found[i]}") for i in chosen]

    def left_out(self) -> dict[str, Any] | None:
        """Some of the tracklets in no cluster, one crop each."""
        rows = np.flatnonzero(np.asarray(self.data.label) < 0)
        if not len(rows) or not self.data.rounds:
            return None
        return self.group(rows, "no cluster", tracklets=_CLUSTER_CROPS)

    def group(self, members: Array, name: str, *, tracklets: int = _CLUSTER_TRACKLETS) -> dict[str, Any]:
        """The pictures of some tracklets of a cluster, the cameras in turn."""
        data, isolated = self.data, self.data.isolated
        camid = isolated.camid[members]
        turn = np.array([np.sum(camid[:i] == c) for i, c in enumerate(camid[:5000])], np.int64)
        members = members[: len(turn)]
        shown = members[np.lexsort((members, turn))][:tracklets]
        shown = shown[np.lexsort((shown, isolated.camid[shown]))]
        each = max(1, _CLUSTER_CROPS // len(shown)) if len(shown) else 0
        start = isolated.start
        groups = []
        for tracklet in shown:
            rows = np.arange(start[tracklet], start[tracklet + 1])
            rows = np.r_[self.best_isolated[tracklet]] if each == 1 else rows[spread(len(rows), min(each, 4))]
            groups.append(
                {
                    "camera": data.cameras[int(isolated.camid[tracklet])],
                    "time": clock(isolated.time[start[tracklet]]),
                    "shots": [self.shot(row) for row in isolated.crop[rows]],
                }
            )
        return {
            "name": name,
            "tracklets": len(camid),
            "cameras": len(np.unique(camid)),
            "groups": groups,
            "more": len(camid) - len(shown),
        }

    # -- results ----------------------------------------------------------------------------------

    def searches(self) -> list[dict[str, Any]]:
        """Example searches, query first."""
        found = []
        for example in self.data.searches[:_SEARCHES]:
            results = []
            for i, row in enumerate(example.results[:_RESULTS]):
                right = None if example.right is None else bool(example.right[i])
                results.append(
                    {
                        "src": self.shot(row, from_search=True),
                        "state": {None: "", True: "right", False: "wrong"}[right],
                        "caption": example.captions[i] if i < len(example.captions) else "",
                        "distance": float(example.distance[i]),
                    }
                )
            query = {"src": self.shot(example.query, from_search=True), "caption": example.query_caption}
            found.append({"query": query, "results": results})
        return found

    def score_rows(self) -> dict[str, Any] | None:
        """The table of scores and the columns it has."""
        scores = self.data.scores
        if not scores:
            return None
        names = {
            "baseline": "colour histogram",
            "untrained": "untrained network",
            "trained": "trained network",
        }
        order = [n for n in names if n in scores] + [n for n in scores if n not in names]
        columns = [
            c for c in ("mAP", "rank1", "rank5", "rank10", "rank20") if any(c in scores[n] for n in order)
        ]
        titles = {"rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "rank20": "rank-20"}
        ratio = None
        if "trained" in scores and scores.get("untrained", {}).get("mAP"):
            ratio = scores["trained"]["mAP"] / scores["untrained"]["mAP"]
        return {
            "columns": [titles.get(c, c) for c in columns],
            "rows": [
                {
                    "name": names.get(n, n),
                    "best": n == "trained",
                    "scores": [scores[n].get(c) for c in columns],
                }
                for n in order
            ],
            "ratio": ratio,
        }

    def noise(self) -> dict[str, Any] | None:
        """Rates before and after isolation, with the histogram of persons per tracklet."""
        rates = {k: v for k, v in (self.data.noise or {}).items() if k in ("before", "after")}
        if not rates:
            return None
        held = {name: _persons(r) for name, r in rates.items() if _persons(r)}
        svg = ""
        if held:
            most = min(max(max(h) for h in held.values()), 8)
            labels = [str(i) for i in range(1, most + 1)]
            counts = {}
            for name, histogram in held.items():
                counts[name] = np.zeros(most)
                for persons, tracklets in histogram.items():
                    counts[name][min(persons, most) - 1] += tracklets
            if any(max(h) > most for h in held.values()):
                labels[-1] += "+"
            svg = charts.histogram(
                counts,
                labels,
                x_label="persons in a tracklet",
                y_label="tracklets",
                alt="persons per tracklet",
            )
        return {"rates": list(rates.items()), "svg": svg}

    def stages(self) -> list[tuple[str, float, float]]:
        """(stage, seconds, share of the longest)."""
        longest = max(self.data.seconds.values(), default=0.0) or 1.0
        return [(name, s, s / longest) for name, s in self.data.seconds.items()]


def _sum(values: Iterable[Any]) -> int | None:
    """The sum of what is known; None where nothing is."""
    counts = [int(value) for value in values if known(value)]
    return sum(counts) if counts else None


def _persons(rates: Mapping[str, Any]) -> dict[int, int]:
    """The histogram persons -> tracklets; its keys are text after a journey through JSON."""
    return {int(p): int(c) for p, c in (rates.get("persons_per_tracklet") or {}).items() if int(p) > 0}


def _series(rounds: Sequence[Mapping[str, Any]], name: str) -> Array:
    return np.array([_float(r.get(name)) for r in rounds], np.float64)


def _float(value: Any) -> float:
    return float(value) if known(value) else float("nan")
