"""Tracking again: who comes back, who is cut off, who waits how long; and what time forbids."""

import numpy as np
import pytest
from tests.core.films import looks, walk

from tracklearn.core.appearance import Bounds
from tracklearn.core.relink import MAX_DELAY, Relinker

FPS = 10
DELAYS = [0.0, 1.0, 4.0, 60.0]


def track(number, x, persons, *, first=0, y=100.0):
    """A tracker's track: its number, frames, boxes, and who is in each."""
    persons = np.asarray(persons)
    frame, box = walk(x, y, first=first, n=len(persons))
    return {"number": number, "frame": frame, "box": box, "person": persons}


def follow(tracks, delay, *, bounds=None, fps=FPS, unseen=()):
    """All rows (frame, number, x1) that come out, the relinker, and how long each frame waited."""
    person = np.concatenate([one["person"] for one in tracks])
    feature = np.split(looks(person, seed=3), np.cumsum([len(one["person"]) for one in tracks])[:-1])
    relinker = Relinker(bounds or Bounds.at(1.0), delay=delay)
    rows, waited = [], {}

    def take(settled, now):
        for one in settled:
            waited[one.frame] = now - one.frame / fps
            rows.extend((one.frame, int(n), float(b[0])) for n, b in zip(one.number, one.box, strict=True))

    last = max(int(one["frame"][-1]) for one in tracks)
    for frame in range(last + 1):
        here = [
            (one["number"], one["box"][frame - one["frame"][0]], f[frame - one["frame"][0]])
            for one, f in zip(tracks, feature, strict=True)
            if one["frame"][0] <= frame <= one["frame"][-1]
        ]
        number = np.array([n for n, _, _ in here], int)
        wanted = relinker.wanted(frame / fps, number)
        seen = [f if w and n not in unseen else None for (n, _, f), w in zip(here, wanted, strict=True)]
        box = np.array([b for _, b, _ in here]).reshape(-1, 4)
        take(relinker.add(frame, frame / fps, number, box, np.full(len(here), 0.9), seen), frame / fps)
    take(relinker.close(), last / fps)
    return rows, relinker, waited


def numbers(rows, of, n=None):
    """The numbers of a track's rows, by frame and place."""
    place = {(int(f), float(b[0])) for f, b in zip(of["frame"], of["box"], strict=True)}
    return [n for f, n, x in rows if (f, x) in place]


A, B, C = 0, 1, 2


@pytest.mark.parametrize("delay", DELAYS)
def test_who_comes_back_elsewhere_has_his_number_again(delay):
    first, other = track(0, 10, [A] * 30), track(1, 300, [B] * 60)
    back = track(2, 600, [A] * 30, first=90, y=400)
    rows, relinker, _ = follow([first, other, back], delay)
    assert set(numbers(rows, first)) == set(numbers(rows, back)) == {1}
    assert set(numbers(rows, other)) == {2}
    assert relinker.people == 2
    assert relinker.counts == {
        "frames": 120,
        "boxes": 120,
        "second_boxes": 0,
        "tracks": 3,
        "cuts": 0,
        "returns": 1,
    }


@pytest.mark.parametrize("delay", DELAYS)
def test_people_in_view_at_once_are_two_however_alike(delay):
    one, two = track(0, 10, [A] * 40), track(1, 300, [A] * 40, first=5)
    rows, relinker, _ = follow([one, two], delay)
    assert relinker.people == 2
    assert len(set(numbers(rows, one))) == len(set(numbers(rows, two))) == 1
    assert relinker.counts["second_boxes"] == 0


@pytest.mark.parametrize("delay", [2.0, 4.0, 60.0])
def test_a_switch_is_cut_and_both_sides_are_known(delay):
    """B is known from before; his number goes on from where the track took him over."""
    known = track(0, 600, [B] * 30)
    mixed = track(1, 10, [A] * 40 + [B] * 40, first=30)
    rows, relinker, _ = follow([known, mixed], delay)
    found = numbers(rows, mixed)
    assert set(numbers(rows, known)) == {1}
    assert found == [2] * 40 + [1] * 40
    assert (relinker.counts["cuts"], relinker.counts["returns"], relinker.people) == (1, 1, 2)


def test_the_causal_form_cuts_when_it_sees_the_change():
    known = track(0, 600, [B] * 30)
    mixed = track(1, 10, [A] * 40 + [B] * 60, first=30)
    found = numbers(follow([known, mixed], 0.0)[0], mixed)
    change = found.index(1)
    assert 40 < change < 60
    assert found == [2] * change + [1] * (100 - change)


def test_the_causal_form_never_takes_a_number_back():
    """A track that begins unlike anybody keeps its new number, though it soon looks like somebody known."""
    first = track(0, 10, [A] * 30)
    back = track(1, 600, [C] * 2 + [A] * 40, first=60)
    rows, _, _ = follow([first, back], 0.0)
    found = numbers(rows, back)
    assert found[0] == found[1] == 2
    rows, _, _ = follow([first, back], 4.0)
    assert set(numbers(rows, back)) == {1}  # who waits sees it, and takes the two for a scrap


@pytest.mark.parametrize("delay", [0.0, 0.5, 1.0, 4.0])
def test_frames_come_in_order_and_in_time(delay):
    tracks = [track(0, 10, [A] * 100), track(1, 300, [B] * 50, first=20), track(2, 600, [C] * 60, first=40)]
    rows, _, waited = follow(tracks, delay)
    frames = [frame for frame, _, _ in rows]
    assert frames == sorted(frames)
    assert sorted(waited) == list(range(100))
    assert max(waited.values()) <= delay + 1e-6
    early = [waited[frame] for frame in range(90 - int(10 * delay))]
    assert min(early) >= delay / 2 - 1e-6


def test_frames_without_anybody_come_too():
    relinker = Relinker(Bounds.at(1.0), delay=0)
    none = np.zeros(0)
    found = relinker.add(7, 0.7, none, none, none, [])
    assert (found[0].frame, found[0].number.shape, found[0].box.shape) == (7, (0,), (0, 4))
    assert relinker.close() == []


@pytest.mark.parametrize("delay", [1.0, 4.0, 60.0])
def test_a_second_box_of_somebody_is_left_out(delay):
    one, double = track(0, 10, [A] * 40), track(1, 14, [A] * 20, first=5, y=104)
    rows, relinker, _ = follow([one, double], delay)
    assert relinker.people == 1
    assert relinker.counts["second_boxes"] == 20
    assert len(rows) == 40


@pytest.mark.parametrize("delay", DELAYS)
def test_what_cannot_be_looked_at_keeps_the_numbers_of_its_tracks(delay):
    one, two = track(0, 10, [A] * 30), track(1, 300, [A] * 30, first=50)
    rows, relinker, _ = follow([one, two], delay, unseen=(0, 1))
    assert relinker.people == 2
    assert numbers(rows, one) == [1] * 30


def test_a_number_that_comes_again_after_long_is_another_track():
    one, again = track(7, 10, [A] * 20), track(7, 300, [B] * 20, first=120)
    rows, relinker, _ = follow([one, again], 1.0)
    assert relinker.counts["tracks"] == 2
    assert (set(numbers(rows, one)), set(numbers(rows, again))) == ({1}, {2})


def test_a_lost_track_that_returns_while_its_number_was_given_away_is_somebody_else():
    """1 is lost; 2 looks like it and is given its number; then 1 goes on beside 2."""
    box = track(0, 10, [A] * 60)
    late = track(1, 300, [A] * 40, first=25)
    box["frame"] = np.r_[np.arange(20), np.arange(40, 80)]

    relinker = Relinker(Bounds.at(1.0), delay=0)
    look = looks([A] * 80, seed=3)
    seen = {}
    for frame in range(80):
        here = [
            (one["number"], one["box"][int(np.flatnonzero(one["frame"] == frame)[0])])
            for one in (box, late)
            if frame in one["frame"]
        ]
        for settled in relinker.add(
            frame,
            frame / FPS,
            np.array([n for n, _ in here], int),
            np.array([b for _, b in here]).reshape(-1, 4),
            np.ones(len(here)),
            [look[frame]] * len(here),
        ):
            seen[frame] = settled.number.tolist()
    assert seen[19] == [1]
    assert seen[30] == [1]  # given away
    assert all(len(set(seen[f])) == 2 for f in range(42, 64))
    assert relinker.counts["second_boxes"] <= 2


def test_a_crop_is_looked_at_ten_times_a_second():
    relinker = Relinker(Bounds.at(1.0), delay=0)
    look = looks([A])[0]
    looked = []
    for frame in range(30):
        wanted = relinker.wanted(frame / 30, np.array([5]))
        looked.append(bool(wanted[0]))
        feature = [look if wanted[0] else None]
        relinker.add(frame, frame / 30, np.array([5]), np.array([[0, 0, 30, 80]]), np.ones(1), feature)
    assert sum(looked) == 10
    assert looked[0]


def test_the_same_input_gives_the_same_numbers_and_is_not_changed():
    tracks = [track(0, 10, [A] * 40), track(1, 300, [B] * 40), track(2, 500, [A] * 30, first=60)]
    copies = [{k: np.copy(v) for k, v in one.items()} for one in tracks]
    assert follow(tracks, 2.0)[0] == follow(tracks, 2.0)[0]
    for one, copy in zip(tracks, copies, strict=True):
        assert all((one[k] == copy[k]).all() for k in one)


@pytest.mark.parametrize("delay", [-1, MAX_DELAY + 1, float("nan")])
def test_a_delay_out_of_bounds_is_refused(delay):
    with pytest.raises(ValueError, match="expected 0 to 600"):
        Relinker(Bounds.at(1.0), delay=delay)


def test_frames_out_of_order_are_refused():
    relinker = Relinker(Bounds.at(1.0), delay=1)
    none = np.zeros(0)
    relinker.add(0, 1.0, none, none, none, [])
    with pytest.raises(ValueError, match="pass frames in order"):
        relinker.add(1, 1.0, none, none, none, [])
