"""Several sets as one: numbers, cameras and clocks, pictures, and what cannot be one."""

from datetime import datetime, timedelta

import numpy as np
import pytest

from tracklearn.core.moments import moments
from tracklearn.store.picture.crops import encode_jpeg
from tracklearn.store.sets.joined import JoinedSets, join, open_sets
from tracklearn.store.sets.tracklets import SetWriter, TrackletSet, open_set

MORNING = datetime(2026, 5, 1, 8)


def written(path, cameras, *, grey=0, start=None, settings=None, n=5, apart=300.0):
    """A set: for each camera so many tracks, all of them in view from frame 0 to n − 1, side by side."""
    with SetWriter(path) as writer:
        for key, (camera, tracks) in enumerate(cameras.items()):
            part = writer.part(f"{key:x}" * 64)
            for track in range(tracks):
                shade = (grey + 40 * key + 10 * track) % 250
                left = apart * track
                part.add(
                    [encode_jpeg(np.full((16, 8, 3), shade, np.uint8))] * n,
                    camera=camera,
                    frame=np.arange(n),
                    time=np.arange(n) / 10,
                    box=np.tile([left, 0, left + 40, 100], (n, 1)),
                    score=np.ones(n),
                    continues=0 if track == 2 else -1,
                )
            part.finish(
                {
                    "camera": camera,
                    "kind": "video",
                    "status": "ok",
                    "start": None if start is None else start.isoformat(),
                    "video": {"seconds": n / 10},
                }
            )
        return writer.finish(settings or {"stride": 1})


@pytest.fixture
def two(tmp_path):
    """Monday of hall and yard, Tuesday of yard and gate."""
    return (
        written(tmp_path / "monday", {"hall": 2, "yard": 3}),
        written(tmp_path / "tuesday", {"yard": 3, "gate": 1}, grey=5),
    )


def test_tracks_and_crops_are_numbered_through_and_cameras_of_one_name_are_one(two):
    monday, tuesday = map(open_set, two)
    both = open_sets(two)
    t = both.tracklets
    assert both.members[0].digest == monday.digest
    assert both.cameras == ("hall", "yard", "gate")
    assert (len(t), t.n_crops, both.n_crops) == (9, 45, 45)
    assert t.camid.tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 2]
    assert t.source.tolist() == list(range(9))
    assert t.crop.tolist() == list(range(45))
    assert both.first_track.tolist() == [0, 5, 9]
    assert both.first_crop.tolist() == [0, 25, 45]
    assert both.set_of(np.array([0, 4, 5, 8])).tolist() == [0, 0, 1, 1]
    assert both.file.tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert [s["camera"] for s in both.manifest["sources"]] == ["hall", "yard", "yard", "gate"]
    assert both.continues.tolist() == [
        *monday.continues.tolist(),
        *(c + 5 if c >= 0 else -1 for c in tuesday.continues.tolist()),
    ]
    assert both.damages() == []


def test_nobody_of_one_day_is_in_view_with_somebody_of_another(two):
    both = open_sets(two)
    pair = moments(both.tracklets).pair
    assert len(pair) == 1 + 3 + 3
    assert (both.set_of(pair[:, 0]) == both.set_of(pair[:, 1])).all()


def test_parts_of_each_set_come_together(two):
    """What is cut in each set alone is what is cut in both at once."""
    both = open_sets(two)
    part = np.arange(both.n_crops) % 3 - (np.arange(both.n_crops) % 7 == 0)
    whole = both.tracklets.split(part).arrays()
    edges = both.first_crop
    alone = [
        one.tracklets.split(part[a:b]) for one, a, b in zip(both.members, edges, edges[1:], strict=False)
    ]
    again = both.together(alone).arrays()
    assert all(np.array_equal(whole[name], again[name]) for name in whole)


def test_pictures_are_those_of_the_sets(two):
    monday, tuesday = map(open_set, two)
    both = open_sets(two)
    crops = both.crops(16, 8)
    rows = [44, 0, 25, 24]
    expected = np.concatenate(
        [tuesday.crops(16, 8).read([19]), monday.crops(16, 8).read([0]), tuesday.crops(16, 8).read([0])]
    )
    assert np.array_equal(crops.read(rows)[:3], expected)
    assert np.array_equal(both.image(26), tuesday.image(1))
    assert both.jpeg(24) == monday.jpeg(24)
    for ask in (both.image, both.jpeg):
        with pytest.raises(IndexError, match=r"the sets have 0\.\.44"):
            ask(45)
    with pytest.raises(ValueError, match="ask one of them"):
        _ = both.place


def test_the_digest_says_which_sets_in_which_order(two):
    monday, tuesday = two
    digests = {open_sets(paths).digest for paths in ([monday, tuesday], [tuesday, monday], monday, [tuesday])}
    assert len(digests) == 4
    assert open_sets(monday).digest == open_sets([monday]).digest == join([monday]).digest
    assert type(open_sets([monday])) is TrackletSet


def test_settings_that_differ_are_told_of_each(tmp_path):
    one = written(tmp_path / "one", {"hall": 1}, settings={"stride": 1, "detector": "motion"})
    other = written(tmp_path / "other", {"yard": 1}, settings={"stride": 2, "detector": "motion"}, grey=3)
    assert open_sets([one, other]).manifest["settings"] == {"stride": [1, 2], "detector": "motion"}


def test_when_films_began_is_known_of_each(tmp_path):
    one = written(tmp_path / "one", {"hall": 1}, start=MORNING)
    other = written(tmp_path / "other", {"yard": 1}, grey=3)
    both = open_sets([one, other])
    assert both.moment(0, 1.5) == MORNING + timedelta(seconds=1.5)
    assert both.moment(1, 1.5) is None
    assert both.began[0] == (MORNING - datetime(1970, 1, 1)).total_seconds()  # as if in UTC
    assert np.isnan(both.began[1])


def test_what_cannot_be_one_is_refused(two, tmp_path):
    monday, tuesday = two
    with pytest.raises(ValueError, match="no set is given"):
        open_sets([])
    with pytest.raises(ValueError, match=r"monday is given twice"):
        open_sets([monday, tuesday, monday])
    empty = written(tmp_path / "empty", {"hall": 0})
    with pytest.raises(ValueError, match=r"empty holds no tracks"):
        open_sets([monday, empty])
    with pytest.raises(FileNotFoundError, match="no such tracklet set"):
        open_sets([monday, tmp_path / "none"])


def test_a_camera_is_in_one_place_at_a_time(tmp_path):
    first = written(tmp_path / "first", {"hall": 2}, start=MORNING)
    beside = written(tmp_path / "beside", {"hall": 2}, start=MORNING + timedelta(seconds=0.2), grey=5)
    later = written(tmp_path / "later", {"hall": 2}, start=MORNING + timedelta(hours=1), grey=9)
    with pytest.raises(ValueError, match=r"two cameras with one name: 'hall' of .*first and of .*beside"):
        open_sets([first, beside])
    assert len(open_sets([first, later]).tracklets) == 4


def test_damage_is_found_in_any_of_them(two):
    monday, tuesday = two
    file = tuesday / "crops.parquet"
    data = bytearray(file.read_bytes())
    data[40] ^= 1
    file.write_bytes(data)
    (line,) = JoinedSets([open_set(monday), open_set(tuesday)]).damages()
    assert "tuesday" in line
    assert "crops.parquet is damaged" in line
