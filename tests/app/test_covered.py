"""The report's section on covered frames."""

from types import SimpleNamespace

import numpy as np

from tracklearn.app.report import covered
from tracklearn.app.report.of_run import _films
from tracklearn.types import Tracklets


def two(n=12, hidden=range(4, 7)):
    """Somebody who stands still, and somebody nearer who passes before them in the frames `hidden`."""
    frame = np.tile(np.arange(n), 2)
    box = np.tile([100.0, 100, 140, 200], (2 * n, 1))
    box[n:] += [300, 20, 300, 20]
    box[n + np.array(list(hidden), int)] -= [295, 0, 295, 0]  # 5 pixels to the side, 20 lower
    return Tracklets(
        tracklet=np.repeat([0, 1], n),
        frame=frame,
        time=frame / 10,
        box=box,
        score=np.ones(2 * n),
        crop=np.arange(2 * n),
        camid=np.zeros(2),
        source=np.arange(2),
    )


def section(part, **given):
    film = np.asarray(given.pop("film", [0, 0]))
    return covered.section(two(**given), film, np.asarray(part), ["gate"], lambda row: f"picture {row}")


def test_covered_frames_stay_become_a_part_or_are_dropped():
    part = np.zeros(24, np.int64)
    counts = ("n", "stayed", "own", "dropped")
    assert [section(part)[k] for k in counts] == [3, 3, 0, 0]
    part[4:7] = 1
    assert [section(part)[k] for k in counts] == [3, 0, 3, 0]
    part[4:6] = -1
    assert [section(part)[k] for k in counts] == [3, 0, 1, 2]
    assert section(part)["share"] == 3 / 24


def test_a_tracklet_that_was_not_cut_has_no_part_of_its_own():
    found = section(np.zeros(24, np.int64), hidden=range(1, 11))
    assert (found["n"], found["stayed"], found["own"]) == (10, 10, 0)


def test_other_films_and_folders_of_crops_cover_nobody():
    part = np.zeros(24, np.int64)
    assert section(part, film=[0, 1])["n"] == 0
    assert section(part, film=[-1, -1])["n"] == 0


def test_an_example_shows_the_cover_and_what_is_around_it():
    part = np.zeros(24, np.int64)
    part[5] = -1
    (example,) = section(part)["examples"]
    assert (example["name"], example["camera"], example["n"]) == ("track 0", "gate", 3)
    assert [shot["frame"] for shot in example["shots"]] == list(range(2, 9))
    assert [shot["src"] for shot in example["shots"]] == [f"picture {i}" for i in range(2, 9)]
    assert [round(shot["share"], 2) for shot in example["shots"]] == [0, 0, 0.7, 0.7, 0.7, 0, 0]
    assert [shot["dropped"] for shot in example["shots"]] == [False, False, False, True, False, False, False]


def test_the_longest_cover_of_a_tracklet_is_shown_and_long_ones_thinned():
    part = np.zeros(80, np.int64)
    (example,) = section(part, n=40, hidden=[0, 1, *range(10, 40)])["examples"]
    assert example["n"] == 30
    assert len(example["shots"]) == 12
    assert (example["shots"][0]["frame"], example["shots"][-1]["frame"]) == (8, 39)


def test_nobody_covered_and_nobody_at_all():
    assert section(np.zeros(24, np.int64), hidden=[])["n"] == 0
    none = np.zeros(0)
    empty = Tracklets(none, none, none, np.zeros((0, 4)), none, none, none, none)
    found = covered.section(empty, np.zeros(0, np.int64), np.zeros(0, np.int64), [], str)
    assert (found["n"], found["share"], found["examples"]) == (0, 0.0, [])


def test_only_films_tell_who_covers_whom():
    kinds = ("video", "folders", "results", "market")
    manifest = {"settings": {}, "sources": [{"kind": kind} for kind in kinds]}
    made = SimpleNamespace(manifest=manifest, file=np.array([0, 1, 2, 2, 3]))
    assert _films(made).tolist() == [0, -1, 2, 2, -1]
    manifest["settings"]["noise"] = {"seed": 0}
    assert _films(made) is None
