"""Tracks cut out of frames: the same tracklets as looking at every open track at every frame."""

import numpy as np
import pytest

from tracklearn.store.film.frames import Frame
from tracklearn.store.ingest.cut import Cutter


class Kept:
    """Takes finished tracks as a part does; keeps their frames, boxes and what they continue."""

    def __init__(self):
        self.written = []

    def add(self, jpeg, *, frame, box, score, continues, **rest):
        self.written.append((list(frame), [list(b) for b in box], list(score), continues))
        return len(self.written) - 1


def slowly(rows, times, *, min_length, max_length, max_gap):
    """What is written, by the rule: at each frame the tracks unseen for too long end, oldest first."""
    kept, held = Kept(), {}

    def finish(track):
        frames, boxes, scores, continues, _ = held.pop(track)
        if len(frames) >= min_length:
            kept.add(None, frame=frames, box=boxes, score=scores, continues=continues)

    for number, time in enumerate(times):
        for track in [t for t, state in held.items() if time - state[4] > max_gap]:
            finish(track)
        best = {}
        for track, box, score in sorted(rows[number], key=lambda row: -row[2]):
            best.setdefault(track, (box, score))
        for track, (box, score) in best.items():
            state = held.setdefault(track, [[], [], [], -1, time])
            state[0].append(number)
            state[1].append(box)
            state[2].append(score)
            state[4] = time
            if len(state[0]) == max_length:
                frames, boxes, scores, continues, _ = state
                number_written = kept.add(None, frame=frames, box=boxes, score=scores, continues=continues)
                held[track][:4] = [[], [], [], number_written]
    for track in list(held):
        finish(track)
    return kept.written


def rows_of(rng, n_frames, n_tracks):
    return [
        [(int(rng.integers(n_tracks)), [2.0, 2.0, 12.0, float(rng.integers(20, 40))], float(rng.random()))
         for _ in range(rng.integers(0, 6))]
        for _ in range(n_frames)
    ]  # fmt: skip


def cut(rows, times, **settings):
    kept = Kept()
    cutter = Cutter(kept, "a", min_box_height=4, margin=0.0, jpeg_quality=50, **settings)
    for number, (time, found) in enumerate(zip(times, rows, strict=True)):
        track, box, score = zip(*found, strict=True) if found else ((), (), ())
        image = np.zeros((48, 32, 3), np.uint8)
        cutter.add(
            Frame(number, time, image),
            np.array(track, np.int64),
            np.array(box, float).reshape(-1, 4),
            np.array(score, float),
        )
    cutter.close()
    return kept.written, cutter


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("max_length", "max_gap"), [(1000, 3.0), (4, 1.2), (1, 0.3)])
def test_tracks_are_those_of_the_slow_rule_in_its_order(seed, max_length, max_gap):
    rng = np.random.default_rng(seed)
    rows = rows_of(rng, 120, 40)
    times = np.cumsum(rng.random(120)).tolist()  # frames come at any distance
    settings = {"min_length": min(2, max_length), "max_length": max_length, "max_gap": max_gap}
    written, cutter = cut(rows, times, **settings)
    assert written == slowly(rows, times, **settings)
    assert len(written) > 10
    crops = sum(len(frames) for frames, *_ in written)
    counts = cutter.counts
    assert counts["boxes"] == crops + counts["repeated_boxes"] + counts["short_crops"] + counts["small_boxes"]


class Clock(float):
    """A time that counts how often it is compared with another."""

    looks = 0

    def __sub__(self, other):
        Clock.looks += 1
        return float(self) - float(other)


def test_a_frame_looks_at_the_tracks_that_end_not_at_all_that_are_open(monkeypatch):
    monkeypatch.setattr(Clock, "looks", 0)
    box, n = [2.0, 2.0, 12.0, 30.0], 400
    rows = [[(10 * k + i, box, 1.0) for i in range(10)] for k in range(n)]  # every box is a track of its own
    written, _ = cut(rows, [Clock(k) for k in range(n)], min_length=1, max_length=9, max_gap=100.0)
    assert len(written) == 10 * n
    assert Clock.looks <= 11 * n
