"""Signs that a run went wrong, on boxes, isolation's record and clusters."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.core.films import film, walk
from tracklearn.app import health
from tracklearn.app.health import of_boxes, of_clusters, of_isolation, of_learning


def signs(found):
    return [finding.sign for finding in found]


def street(n=30, *, tile=None, order=True, speed=2.0):
    """n tracks of 40 boxes each, near and far."""
    rng = np.random.default_rng(0)
    tracks = []
    for i in range(n):
        foot = rng.uniform(120, 460)
        height = 0.4 * foot if order else rng.uniform(40, 200)
        frames, box = walk(20 * i, foot - height, first=45 * i, speed=speed, size=(0.4 * height, height))
        if tile:
            box[:, 1] = box[:, 3] - tile
            box[:, 2] = box[:, 0] + tile / 2
        tracks.append((frames, box + rng.normal(0, 0.5, box.shape)))
    return film(tracks)


def test_an_earlier_epoch_that_was_better_is_named():
    def rounds(views, noise):
        return [
            {"index": i, "stage": "tmc", "noise_fraction": n, "record": {"two_views": v, "same_track": v}}
            for i, (v, n) in enumerate(zip(views, noise, strict=True))
        ]

    assert of_learning(rounds([0.5, 0.7, 0.9], [0.5, 0.3, 0.2])) == []
    assert of_learning([]) == []
    (found,) = of_learning(rounds([0.5, 0.9, 0.6], [0.5, 0.3, 0.4]))
    assert found.sign == "earlier"
    assert found.text.startswith(
        "epoch 2 was better than the last by crops known again in another augmentation"
    )
    assert "(0.90, now 0.60)" in found.text
    other = [{**r, "stage": "source"} for r in rounds([0.9, 0.9], [0.1, 0.1])]
    assert of_learning([*other, *rounds([0.5], [0.4])]) == []  # another stage is no measure


def test_good_boxes_say_nothing():
    assert of_boxes(street(), ("street",)) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"tile": 54.0}, ["tiles", "sizes"]),
        ({"order": False}, ["sizes"]),
        ({"speed": 0.0}, ["still"]),
    ],
)
def test_bad_boxes_are_told_with_what_to_do(given, expected):
    found = of_boxes(street(**given), ("street",))
    assert signs(found) == expected
    assert all("street" in finding.text and finding.advice for finding in found)


def test_few_boxes_and_pictures_without_a_film_say_nothing():
    assert of_boxes(street(5, tile=54.0), ("street",)) == []
    made = street(tile=54.0)
    box = np.broadcast_to(np.array([0, 0, 64, 128]), (made.n_crops, 4))
    crops = film([(made.frame[a:b], box[a:b]) for a, b in pairwise(made.start)])
    assert of_boxes(crops, ("street",)) == []


def test_all_people_at_one_distance_have_no_law():
    flat = film([walk(10 * i, 200 - h, first=45 * i, size=(30, h)) for i, h in enumerate(range(60, 92, 2))])
    assert signs(of_boxes(flat, ("corridor",))) == []


def test_isolation_that_cuts_drops_and_cannot_tell():
    assert of_isolation({}) == []
    assert of_isolation({"n_before": 100, "n_after": 160, "dropped_fraction": 0.01}) == []
    bad = {
        "n_before": 126,
        "n_after": 890,
        "dropped_fraction": 0.34,
        "calibration": {"mean": {"error": 0.3}},
    }
    found = of_isolation(bad)
    assert signs(found) == ["parts", "dropped", "separation"]
    assert "126 tracks were cut into 890 parts, 7.1 each" in found[0].text
    assert "34%" in found[1].text


def test_clusters_of_one_track_and_without_links():
    made = film([walk(0, first=50 * i) for i in range(40)], camid=np.arange(40) % 2)
    pieces = made.split(np.tile(np.repeat([0, 1], 20), 40))
    of_tracks = np.repeat(np.arange(40), 2)
    assert signs(of_clusters(of_tracks, pieces)) == ["one-track", "links"]
    people = np.repeat(np.arange(20), 4)  # a track of either camera
    assert of_clusters(people, pieces) == []
    assert of_clusters(np.minimum(of_tracks, 3), pieces) == []  # too few to say


def test_findings_read_as_sentences():
    found = of_isolation({"n_before": 10, "n_after": 105, "dropped_fraction": 0.0})
    assert str(found[0]).startswith("10 tracks were cut into 105 parts, 10.5 each: ")
    assert found[0].to_dict().keys() == {"sign", "text", "advice"}
    assert health.HEADLINE.startswith("learned, but do not trust")


def test_the_motion_detector_as_it_collapsed_on_a_mall():
    """Boxes and tracks that it made of MOT17-09 in November 2026: after frame 100 tiles of 54 pixels."""
    path = Path(__file__).parent / "data" / "mall_motion_2026_11.csv.gz"
    frame, track, x, y, w, h = np.loadtxt(path, delimiter=",", skiprows=1).T
    order = np.lexsort((frame, track))
    box = np.stack([x, y, x + w, y + h], 1)[order]
    edge = np.flatnonzero(np.r_[True, np.diff(track[order]) > 0, True])
    made = film([(frame[order][a:b].astype(int), box[a:b]) for a, b in pairwise(edge)], fps=30)
    assert made.n_crops == 6581
    found = of_boxes(made, ("mall",))
    assert signs(found) == ["tiles", "sizes"]
    assert "61% of the boxes have one and the same size" in found[0].text
