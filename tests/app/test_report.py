"""The report: complete, self-contained, escaped, and robust against thin material."""

import json
import re
from dataclasses import replace
from datetime import datetime, timedelta
from html.parser import HTMLParser

import numpy as np
import pytest

from tracklearn.app.report import charts, learning
from tracklearn.app.report.data import ReportData, SearchExample
from tracklearn.app.report.of_run import calibration_of
from tracklearn.app.report.page import build_report
from tracklearn.core.calibration import Calibration
from tracklearn.core.shown import called, part_numbers, worst_mixed
from tracklearn.learn.methods import cap
from tracklearn.types import Tracklets

COLOURS = np.random.default_rng(7).integers(30, 226, (12, 3, 3)).astype(np.uint8)


def person_picture(person: int, *, camera: int, seed: int) -> np.ndarray:
    """A drawn person, (h, w, 3) uint8: head, torso, legs and arms in the person's colours."""
    rng = np.random.default_rng([person, camera, seed])
    height, width = 150 + 12 * camera, 60 + 6 * camera
    image = np.empty((height, width, 3), np.float64)
    image[:] = np.array([[150, 160, 150], [120, 125, 140], [170, 160, 140], [100, 110, 105]])[camera % 4]
    image += np.linspace(-25, 25, height)[:, None, None]
    y, x = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1)
    x = x - 0.5 + rng.normal(0, 0.02)
    top, legs, skin = COLOURS[person % 12]
    swing = 0.11 * np.sin(seed)
    limb = np.abs(np.abs(x) - 0.1 - swing * (y - 0.55) * 3) < 0.085
    for where, colour in (
        ((y > 0.52) & (y < 0.96) & limb, legs),
        ((y > 0.17) & (y <= 0.55) & (np.abs(x) < 0.24 - 0.1 * (y - 0.17)), top),
        ((y > 0.2) & (y < 0.52) & (np.abs(np.abs(x) - 0.3) < 0.05), top * 0.8),
        ((x / 0.13) ** 2 + ((y - 0.105) / 0.075) ** 2 < 1, skin * 0.2 + np.array([180, 140, 110])),
    ):
        image[where] = colour
    return np.clip(image + rng.normal(0, 5, image.shape), 0, 255).astype(np.uint8)


def rates(*, r_FM: float, r_SW: float, n: int, persons: dict[str, int]) -> dict:
    """Noise rates as they come out of JSON."""
    return {"r_FM": r_FM, "r_SW": r_SW, "n_tracklets": n, "matched": 0.96, "persons_per_tracklet": persons}


def make_data(
    *, n_cameras: int = 4, n_tracklets: int = 60, n_persons: int = 10, n_rounds: int = 8, seed: int = 0
):
    """A made-up run: every sixth tracklet switches between persons and is cut where it does."""
    rng = np.random.default_rng(seed)
    tracklet, frame, person, part, camid = [], [], [], [], []
    for t in range(n_tracklets):
        m = int(rng.integers(12, 60))
        cuts = np.sort(rng.choice(np.arange(4, m - 3), 1 + t // 6 % 3, replace=False)) if t % 6 == 0 else []
        which = np.searchsorted(cuts, np.arange(m), side="right")
        who = rng.permutation(n_persons)[: len(cuts) + 1]
        dropped = np.zeros(m, bool)
        for cut in cuts:
            dropped[cut - 1 : cut + 1] = True
        tracklet.append(np.full(m, t))
        frame.append(40 * t + np.arange(m))
        person.append(who[which])
        part.append(np.where(dropped, -1, which))
        camid.append(t % n_cameras)
    tracklet, frame, person, part = map(np.concatenate, (tracklet, frame, person, part))
    n = len(tracklet)
    box = np.tile([0, 0, 66, 156], (n, 1)) + rng.normal(0, 4, (n, 4))
    tracklets = Tracklets(
        tracklet,
        frame,
        frame / 12.5,
        box,
        rng.uniform(0.5, 1, n),
        np.arange(n),
        camid,
        np.arange(n_tracklets),
    )
    centre = rng.normal(size=(n_persons, 32))
    feature = centre[person] + 0.35 * rng.normal(size=(n, 32))
    feature /= np.linalg.norm(feature, axis=1, keepdims=True)
    similarity = np.r_[np.nan, (feature[1:] * feature[:-1]).sum(1)]
    similarity[np.r_[True, np.diff(tracklet) > 0]] = np.nan
    isolated = tracklets.split(part)
    label = person[isolated.crop[isolated.start[:-1]]]
    label[rng.random(len(label)) < 0.12] = -1

    def picture(row: int) -> np.ndarray:
        return person_picture(int(person[row]), camera=int(camid[tracklet[row]]), seed=int(frame[row]))

    mixed = worst_mixed(tracklets, part, similarity)
    first = [np.flatnonzero(label == k) for k in range(3)]
    results = [np.r_[rows[1:6], rng.integers(0, len(label), 5)] for rows in first]
    rows_of = isolated.crop[isolated.start[:-1]]
    return ReportData(
        title="Made-up street",
        command="tracklearn run cam1.mp4 cam2.mp4 --out out --weights none",
        cameras=["north gate", "stairs", "hall", "platform <2>"][:n_cameras],
        tracklets=tracklets,
        isolated=isolated,
        picture=picture,
        part=part,
        similarity=similarity,
        features={int(t): feature[tracklet == t] for t in mixed},
        rounds=[
            {
                "index": i,
                "n_clusters": int(10 + 8 * np.exp(-i / 2)),
                "noise_fraction": 0.1 + 0.4 * np.exp(-i / 2),
                "largest_cluster": 9 + i % 3,
                "eps": 0.51,
                "agreement": None if i == 0 else 1 - 0.5 * np.exp(-i / 2),
                "losses": {
                    name: x / (i + 1) for name, x in (("id", 2), ("sid", 1.8), ("tri", 0.4), ("stri", 0.3))
                },
                "accuracy": 1 - 0.7 * np.exp(-i / 2),
                "diagnosis": ["eps widened to 0.55"] if i == 0 else [],
                "seconds": 9.5,
            }
            for i in range(n_rounds)
        ],
        label=label,
        settings={"tmc": {"epochs": 8, "k1": 30}, "seed": 0},
        weights="none",
        seconds={"ingest": 41.2, "train": 83.0, "index": 4.1, "report": 2.2},
        sources=[{"camera": "north gate", "path": "/videos/cam1.mp4", "frames": 1200, "detections": 8000}],
        skipped=[("cam1.mp4", "tracklet shorter than 5 frames", 31), ("cam2.mp4", "frame not decoded", 2)],
        noise={
            "before": rates(r_FM=1.9, r_SW=1.22, n=60, persons={"1": 48, "2": 10, "3": 2}),
            "after": rates(r_FM=2.6, r_SW=1.04, n=84, persons={"1": 81, "2": 3}),
            "dropped_fraction": 0.04,
        },
        scores={
            "untrained": {"mAP": 0.31, "rank1": 0.42, "rank5": 0.7},
            "trained": {"mAP": 0.62, "rank1": 0.78, "rank5": 0.93},
            "baseline": {"mAP": 0.44, "rank1": 0.57, "rank5": 0.8},
        },
        searches=[
            SearchExample(
                int(rows_of[rows[0]]),
                rows_of[found].tolist(),
                np.sort(rng.uniform(0.2, 1.3, 10)).tolist(),
                (label[found] == k).tolist(),
                "stairs",
                ["hall"] * 10,
            )
            for k, (rows, found) in enumerate(zip(first, results, strict=True))
        ],
        person=person,
        warnings=["k1 was lowered from 30 to 12: the set has only 60 tracklets"],
        created="tracklearn 0.1.0",
    )


class Page(HTMLParser):
    """Tags, attributes and text of a page; open tags must be closed."""

    VOID = ("meta", "img", "br", "path", "use", "rect")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open, self.attributes, self.text, self.tags = [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def full():
    return make_data(n_tracklets=24, n_persons=6, n_rounds=3)


@pytest.fixture(scope="module")
def page(full, tmp_path_factory):
    out = build_report(full, tmp_path_factory.mktemp("report") / "deep" / "report.html")
    assert [f.name for f in out.parent.iterdir()] == ["report.html"]
    assert out.stat().st_size < 8e6
    return Page(out.read_text())


def bare(**changes):
    """The same without anything optional."""
    data = make_data(n_tracklets=12, n_persons=4, n_rounds=1)
    empty = {"features": {}, "noise": None, "scores": None, "searches": (), "person": None, "warnings": ()}
    return replace(data, **empty, sources=(), skipped=(), **changes)


def whole(data):
    """The part array that leaves every tracklet whole, and what belongs to it."""
    part = np.zeros(data.tracklets.n_crops, np.int64)
    return {"part": part, "isolated": data.tracklets, "label": np.full(len(data.tracklets), -1)}


def rendered(data, tmp_path):
    return Page(build_report(data, tmp_path / "report.html").read_text())


def test_every_section_says_what_it_shows(page):
    for expected in (
        "Made-up street",
        "tracklearn run cam1.mp4",
        "24",
        "62.0 %",
        "1.22 → 1.04",
        "Training multiplies the mAP by 2.00",
        "tracklet shorter than 5 frames",
        "k1 was lowered from 30 to 12",
        "started from random weights, openly",
        "tmc.epochs",
        "eps widened to 0.55",
        "Responsible use",
        "t-SNE",
        "no person",
        "2 min 10 s",
    ):
        assert expected in page.words, expected


def test_counts_go_from_tracks_to_parts_to_persons(full, page):
    cut = len(np.unique(full.isolated.source[part_numbers(full.isolated.source) > 1]))
    dropped = int((full.part < 0).sum())
    share = len(full.isolated) / len(full.tracklets)
    assert "tracks parts persons parts a track tracks cut tracks dropped crops dropped 24 → " in page.words
    last = full.rounds[-1]["n_clusters"]
    assert f" 24 → {len(full.isolated)} → {last} {share:.1f} {cut} 0 {dropped} (" in page.words


def test_one_word_for_one_thing(full, page):
    """Tracks are the tracker's, parts isolation's, persons the clusters'."""
    assert not re.findall(
        r"[^.]*tracklet(?! shorter| set| only|s(?= and| were made))[^.]*",
        page.words.replace("60 tracklets", ""),
    )
    assert set(re.findall(r"\w* clusters?\b", page.words)) <= {"a cluster"}  # where the word is explained
    found = np.unique(full.label[full.label >= 0])
    assert all(f"person {i} " in page.words for i in found)
    part = np.flatnonzero(full.label == found[0])[0]
    source = full.isolated.source
    number = called(source[part], part_numbers(source)[part], (source == source[part]).sum())
    assert f"#{number} · {full.cameras[full.isolated.camid[part]]} " in page.words


def test_times_are_those_on_the_wall_where_they_are_known(tmp_path):
    began = datetime.fromisoformat("2026-05-01T08:00:00+02:00")

    def moment(track, seconds):
        return began + timedelta(seconds=seconds) if track % 2 else None

    data = bare(moment=moment)
    source = {"camera": "stairs", "status": "ok", "path": "b.mp4", "start": began.isoformat()}
    earlier = source | {"start": "2026-05-01T05:59:59Z"}
    words = rendered(replace(data, sources=[source, earlier]), tmp_path).words
    assert "camera began frames" in words
    assert "stairs b.mp4 and 1 more 2026-05-01 05:59:59 UTC" in words
    assert "north gate – " in words
    part = np.flatnonzero(data.isolated.source == 1)[0]
    at = f"{began + timedelta(seconds=data.isolated.time[data.isolated.start[part]]):%Y-%m-%d %H:%M:%S}"
    assert f"#1 · stairs {at}" in words
    assert " began " not in rendered(bare(), tmp_path).words


def calibrations(*names, error=0.04):
    """What a run's files hold of pairs at distances around 0.3 and 0.9, as the report is given it."""
    rng = np.random.default_rng(0)
    kinds = dict(zip(("same", "different"), (rng.normal(m, 0.1, 400) for m in (0.3, 0.9)), strict=True))
    made = {name: Calibration(name, **kinds, threshold=0.35, error=error) for name in names}
    arrays = {f"{kind}.{name}": values for name in names for kind, values in kinds.items()}
    kept = {"calibration": {name: found.to_dict() for name, found in made.items()} | {"lost": {}}}
    return made, calibration_of(arrays, json.loads(json.dumps(kept)))


def test_what_isolation_learned_from_free_pairs_is_drawn_and_told(tmp_path):
    made, shown = calibrations("mean", "nearest", "crop")
    assert list(shown) == ["mean", "nearest", "crop"]  # "lost" has no distances
    page = rendered(bare(calibration=shown, diagnosis=["isolation: hm"]), tmp_path)
    reach = f"{made['nearest'].quantile('same', 0.95):.2f}"
    labels = [value for tag, name, value in page.attributes if tag == "svg" and name == "aria-label"]
    ends = "pairs of one person and of two people, divided at"
    assert f"distance of the mean features: {ends} 0.35" in labels
    assert f"distance of two crops: {ends} 0.35" in labels
    assert f"distance of the two nearest frames: {ends} {reach}" in labels
    assert "nearer than 0.35 are joined to one part: there 4.0 % of either kind" in page.words
    assert f"Frames nearer than {reach} are grouped: 95 of 100" in page.words
    assert "400 pairs of one person, 400 of two." in page.words
    assert "None is known: crops of strangers of one camera" in page.words
    assert "isolation: hm" in page.words
    worse = rendered(bare(calibration=calibrations("mean", error=0.22)[1]), tmp_path).words
    assert f"nearer than {reach} are joined" in worse
    assert "overlap too much to be told apart (22 % of the pairs are on the wrong side at 0.35)" in worse
    assert "known without labels" not in rendered(bare(), tmp_path).words


@pytest.mark.parametrize("values", [[0.5], [0.2, 0.4, 0.6]])
def test_histograms_of_distances_hold_all_of_them(values):
    svg = charts.distances({"one": np.array(values), "two": np.array([0.5, 1.5])}, 0.5, x_label="d", alt="x")
    assert "0.50" in svg
    assert "var(--c0)" in svg
    assert "var(--c1)" in svg
    assert "nan" not in svg


def test_what_a_labelling_noted_of_its_persons_is_told(tmp_path):
    record = {"one_track": 3.0, "apart": 1204.0, "splits": 1.0}
    data = bare()
    words = rendered(replace(data, rounds=[data.rounds[0] | {"record": record}]), tmp_path).words
    assert "3 persons were joined from parts of one track alone" in words
    assert "1,204 pairs of parts were seen at the same moment, apart, and kept from being one" in words
    assert "one person; 1 person was split for it." in words
    assert "persons of one track seen at one moment persons split" in words  # heads of the table
    none = rendered(replace(data, rounds=[data.rounds[0] | {"record": {"one_track": 0.0}}]), tmp_path).words
    assert "of one track alone" not in none
    assert "same moment" not in none


@pytest.mark.parametrize("cameras", [2, 17])
def test_persons_split_by_camera_are_drawn_and_told(tmp_path, monkeypatch, cameras):
    """Records as CAP writes them: those of more than sixteen cameras have no number for each."""
    drawn, draw = {}, charts.lines

    def lines(series, *, alt, **options):
        drawn[alt] = {name: y.tolist() for name, (_, y) in series.items()}
        return draw(series, alt=alt, **options)

    monkeypatch.setattr(charts, "lines", lines)
    records = [
        {"one_track": 1.0},  # of a round without clusters
        {"proxies": 5.0, "cameras_per_cluster": 1.25, "proxies_1": 3.0, "proxies_2": 1.0},
        {"proxies": 8.0, "cameras_per_cluster": 2.0, "proxies_1": 0.0, "proxies_2": 4.0},
    ]
    if cameras <= cap._CAMERAS:
        records[1] |= {"proxies_cam0": 4.0, "proxies_cam1": 1.0}
        records[2] |= {"proxies_cam0": 4.0, "proxies_cam1": 4.0}
    data = bare()
    rounds = [data.rounds[0] | {"index": i, "record": record} for i, record in enumerate(records)]
    words = rendered(replace(data, rounds=rounds), tmp_path).words
    each = {"camera 0": [np.nan, 4, 4], "camera 1": [np.nan, 1, 4]} if cameras == 2 else {}
    np.testing.assert_equal(drawn["Proxies over rounds"], {"all": [np.nan, 5, 8], **each})
    assert f"all of them and, of up to {cap._CAMERAS} cameras, those of each." in words
    # how many persons so many cameras have met stands in the table of what each labelling noted
    heads = "proxies cameras per cluster proxies 1 proxies 2"
    assert f"{heads} {'proxies cam0 proxies cam1 ' if cameras == 2 else ''}" in words
    assert f" 5 1.250 3 1 {'4 1 ' if cameras == 2 else ''}" in words
    assert f" 8 2 0 4 {'4 4 ' if cameras == 2 else ''}" in words
    assert "Proxies" not in {panel["heading"] for panel in learning.over_rounds(data.rounds)}


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs(page):
    assert ("meta", "http-equiv", "Content-Security-Policy") in page.attributes
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("data:image/jpeg;base64,", "#")), (tag, name, value[:60])
        assert "url(" not in value or "url(#" in value


def test_ids_are_unique_and_every_reference_has_its_target(page):
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = {
        value[1:] for _, name, value in page.attributes if name in ("href", "xlink:href") and value[0] == "#"
    }
    clips = {value[5:-1] for _, name, value in page.attributes if name == "clip-path"}
    assert targets | clips <= set(ids)


def test_film_strips_mark_parts_dropped_frames_and_true_persons(full, page):
    mixed = worst_mixed(full.tracklets, full.part, full.similarity)
    assert mixed.tolist() == list(full.features)
    for track in mixed:
        own = np.flatnonzero(full.isolated.source == track)
        sizes = [f"part {i}: {n}" for i, n in enumerate(full.isolated.length[own], start=1)]
        assert re.search(
            rf"track {track} [a-z <>2]+ · [^a-z]+ frames(, [0-9]+ shown)? {' '.join(sizes)}", page.words
        ), track
    assert ("figure", "class", "dropped") in page.attributes
    edges = {value for tag, name, value in page.attributes if tag == "div" and name == "style"}
    assert {"--edge:var(--c0)", "--edge:var(--c1)", "--edge:var(--dropped)"} <= edges


def test_right_and_wrong_results_are_framed(full, page):
    states = [value for tag, name, value in page.attributes if tag == "div" and name == "class"]
    right = [bool(r) for s in full.searches for r in s.right[: len(s.results)]]
    assert states.count("right") == sum(right)
    assert states.count("wrong") == len(right) - sum(right)


def test_same_data_same_file(tmp_path):
    data = bare()
    first = build_report(data, tmp_path / "a.html").read_bytes()
    assert build_report(data, tmp_path / "b.html").read_bytes() == first


def test_text_is_escaped(tmp_path):
    attack = "<script>alert(1)</script>$x_$&"
    data = bare()
    data = replace(
        data,
        title=attack,
        command=attack,
        cameras=[attack] * len(data.cameras),
        settings={attack: attack},
        warnings=[attack],
        skipped=[(attack, attack, 1)],
        seconds={attack: 1.0},
        weights=attack,
        weights_sha256=attack,
        scores={attack: {"mAP": 0.5}},
        scores_note=attack,
        created=attack,
        sources=[{"camera": attack, "path": attack}],
        rounds=[{"index": 0, "losses": {attack: 1.0, "$b_": 2.0}, "diagnosis": attack}],
        searches=[SearchExample(0, [1], [0.5], None, attack, [attack])],
    )
    page = rendered(data, tmp_path)
    assert "script" not in page.tags
    assert page.words.count("alert(1)") > 12


def test_nothing_optional_one_round(tmp_path):
    page = rendered(bare(), tmp_path)
    assert "Nothing was skipped." in page.words
    assert "Does it find people again?" not in page.words
    assert "Example searches" not in page.words
    assert "t-SNE" not in page.words


def test_no_clusters_no_rounds_nothing_cut_one_camera(tmp_path):
    data = make_data(n_cameras=1, n_tracklets=12, n_persons=4, n_rounds=0)
    data = replace(data, **whole(data), features={}, scores=None, noise=None, searches=(), person=None)
    words = rendered(data, tmp_path).words
    assert "No track was cut; 0 crops (0 %) were dropped." in words
    assert "Isolation left every track whole" in words
    assert "There are no persons" in words
    assert "No round has been trained yet." in words
    assert "1 camera " in words


def test_covered_frames_are_shown_where_frame_numbers_are_moments(tmp_path):
    data = bare()
    assert "Covered frames" not in rendered(data, tmp_path).words
    tracklets = data.tracklets
    box = tracklets.box.copy()
    box[tracklets.tracklet == 4] += [10, 30, 10, 30]  # the second of that camera, in front of the first
    frame = tracklets.frame - tracklets.frame[tracklets.start[tracklets.tracklet]]
    film = tracklets.camid
    passing = replace(data, tracklets=replace(tracklets, box=box, frame=frame), film=film)
    words = rendered(passing, tmp_path).words
    assert "half or more of a person's box lies under" in words
    assert "track 0 north gate · " in words
    assert "Covered frames" not in rendered(replace(passing, film=None), tmp_path).words


def test_empty_set(tmp_path):
    none = np.zeros(0)
    empty = Tracklets(none, none, none, np.zeros((0, 4)), none, none, none, none)
    data = bare(
        tracklets=empty, isolated=empty, part=none.astype(int), similarity=none, label=none.astype(int)
    )
    assert "There are no persons" in rendered(replace(data, rounds=[]), tmp_path).words


def test_rounds_with_gaps(tmp_path):
    rounds = [{"index": 0, "n_clusters": None, "losses": None}, {"index": 1, "noise_fraction": float("nan")}]
    assert "Losses" not in rendered(bare(rounds=rounds), tmp_path).words


def test_unreadable_pictures_are_counted_not_fatal(tmp_path):
    data = bare()

    def picture(row):
        if row % 2:
            raise ValueError("shard-00000.arrow row 1 is not a picture")
        return data.picture(row)

    words = rendered(replace(data, picture=picture), tmp_path).words
    assert "pictures of this report could not be read and are shown grey" in words


def test_a_big_set_is_sampled(tmp_path):
    t, length = 8_000, 20
    n = t * length
    asked = []

    def picture(row):
        asked.append(row)
        return np.full((60, 30, 3), 90, np.uint8)

    tracklet = np.repeat(np.arange(t), length)
    box = np.tile([0, 0, 30, 60], (n, 1))
    camid = np.arange(t) % 40
    frame = np.tile(np.arange(length), t)
    tracklets = Tracklets(tracklet, frame, frame / 25, box, np.ones(n), np.arange(n), camid, np.arange(t))
    part = (np.arange(n) % length >= 10).astype(int)
    isolated = tracklets.split(part)
    label = np.arange(len(isolated)) % 900
    data = bare(
        cameras=[f"cam{i}" for i in range(40)],
        tracklets=tracklets,
        isolated=isolated,
        picture=picture,
        part=part,
        similarity=np.ones(n),
        label=label,
    )
    out = build_report(data, tmp_path / "report.html")
    assert len(asked) < 900
    assert out.stat().st_size < 8e6


def test_worst_mixed_puts_weighty_parts_before_many_small_ones():
    lengths = [40, 40, 40, 10]
    tracklet = np.repeat(np.arange(4), lengths)
    frame = np.concatenate([np.arange(m) for m in lengths])
    n = len(tracklet)
    box, zero = np.zeros((n, 4)), np.zeros(n)
    tracklets = Tracklets(tracklet, frame, zero, box, zero, np.arange(n), np.zeros(4), np.arange(4))
    splinters = np.r_[np.zeros(36), 1, 2, 3, 4]
    halves = np.repeat([0, 1], 20)
    part = np.r_[splinters, halves, halves, np.zeros(10)].astype(int)
    similarity = np.where(np.arange(n) == 100, 0.1, 0.9)  # a deep dip in tracklet 2
    assert worst_mixed(tracklets, part, similarity).tolist() == [2, 1, 0]
    assert worst_mixed(tracklets, part, similarity, n=1).tolist() == [2]


@pytest.mark.parametrize("name", ["part", "similarity", "label", "person"])
def test_wrong_lengths_are_named(name):
    data = bare()
    with pytest.raises(ValueError, match=rf"{name} has shape \(3,\), expected \(\d+,\)"):
        replace(data, **{name: np.zeros(3)})


def test_the_files_of_a_camera_are_counted_together(tmp_path):
    source = {"camera": "north gate", "status": "ok"}
    sources = [
        source | {"path": "a.mp4", "frames": 1200, "detections": 30},
        source | {"path": "b.mp4", "frames": 34, "detections": None},
        source | {"path": "c.mp4", "status": "skipped", "frames": 9},
    ]
    words = rendered(replace(bare(), sources=sources), tmp_path).words
    assert "north gate a.mp4 and 1 more 1,234 30 " in words


def test_too_few_camera_names():
    with pytest.raises(ValueError, match="cameras has 1 names, expected 4"):
        bare(cameras=["one"])


def test_projection_is_pca_for_few_rows_tsne_for_many_and_repeatable():
    rng = np.random.default_rng(0)
    few, many = rng.normal(size=(9, 16)), rng.normal(size=(40, 16))
    point, method = charts.project(few)
    assert method == "PCA"
    centred = few - few.mean(0)
    assert np.allclose(np.abs(point), np.abs(centred @ np.linalg.svd(centred)[2][:2].T))
    point, method = charts.project(many)
    assert method == "t-SNE"
    assert np.array_equal(point, charts.project(many)[0])


@pytest.mark.parametrize("features", [np.ones((20, 4)), np.ones((3, 1)), np.outer(np.arange(20), [1.0, 2.0])])
def test_projection_of_degenerate_features_is_finite(features):
    point, method = charts.project(features)
    assert method == "PCA"
    assert point.shape == (len(features), 2)
    assert np.isfinite(point).all()


def test_charts_take_their_colours_from_the_page():
    series = {"a<b": (np.arange(3), np.array([0.1, np.nan, 0.3])), "$x_": (np.arange(3), np.arange(3.0))}
    svg = charts.lines(series, x_label="round", alt='say "x" & y')
    assert "a&lt;b" in svg
    assert "$x_" in svg
    assert "var(--c0)" in svg
    assert "#0102" not in svg
    assert 'aria-label="say &quot;x&quot; &amp; y"' in svg
