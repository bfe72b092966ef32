"""Who is in view together, against a slow count; and stretches beyond doubt."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.films import film, walk

from tracklearn.core.moments import beyond_doubt, moments


def shared(a, b):
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    least = min((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b))
    return max(0.0, wide) * max(0.0, high) / least if least > 0 else 1.0


def slow(tracklets):
    pairs, most = {}, np.zeros(tracklets.n_crops)
    owner = tracklets.tracklet
    film_of = list(zip(tracklets.camid, tracklets.clock, tracklets.offset, strict=True))
    for i in range(tracklets.n_crops):
        for j in range(i + 1, tracklets.n_crops):
            a, b = owner[i], owner[j]
            if a == b or film_of[a] != film_of[b] or tracklets.frame[i] != tracklets.frame[j]:
                continue
            both = shared(tracklets.box[i].astype(float), tracklets.box[j].astype(float))
            most[i], most[j] = max(most[i], both), max(most[j], both)
            pairs.setdefault((a, b), [0, 0])[int(both > 0)] += 1
    return {pair: tuple(count) for pair, count in pairs.items() if count[0]}, most


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_it_is_the_slow_count(seed):
    rng = np.random.default_rng(seed)
    tracks = []
    for _ in range(rng.integers(1, 9)):
        frames, box = walk(
            rng.uniform(0, 120), rng.uniform(0, 60), first=int(rng.integers(0, 9)), n=int(rng.integers(1, 12))
        )
        kept = rng.random(len(frames)) < 0.8
        kept[0] = True
        tracks.append((frames[kept], box[kept]))
    t = len(tracks)
    made = film(tracks, camid=rng.integers(0, 2, t), clock=rng.integers(0, 2, t))
    found, (pairs, most) = moments(made), slow(made)
    assert [tuple(p) for p in found.pair.tolist()] == sorted(pairs)
    got = {tuple(p): (a, b) for p, a, b in zip(found.pair, found.apart, found.touching, strict=True)}
    assert got == pairs
    np.testing.assert_allclose(found.shared, most, atol=1e-6)


def test_many_pairs_find_room():
    made = film([walk(100.0 * i, n=3) for i in range(60)])
    assert len(moments(made).pair) == 60 * 59 // 2  # more than the room that was guessed


def test_a_set_with_one_box_for_all_knows_nothing():
    frames, _ = walk(0)
    box = np.tile([0, 0, 64, 128], (len(frames), 1))
    found = moments(film([(frames, box), (frames, box)]))
    assert len(found.pair) == 0
    assert (found.shared == 1).all()
    assert len(beyond_doubt(film([(frames, box)]), found.shared[: len(frames)])) == 0


def test_other_clocks_and_cameras_are_not_compared():
    tracks = [walk(0), walk(200)]
    assert len(moments(film(tracks)).pair) == 1
    assert len(moments(film(tracks, camid=[0, 1])).pair) == 0
    assert len(moments(film(tracks, clock=[0, 1])).pair) == 0


def test_stretches_end_at_a_touch_a_jump_and_a_gap():
    frames, box = walk(0, n=60)
    box[20:] += [300, 0, 300, 0]  # the box jumps
    frames = frames.copy()
    frames[40:] += 30  # three seconds are missing
    made = film([(frames, box)])
    assert beyond_doubt(made, moments(made).shared).tolist() == [[0, 20], [20, 40], [40, 60]]
    near = film([(frames, box), (frames[:5], box[:5] + np.array([5, 0, 5, 0]))])
    assert beyond_doubt(near, moments(near).shared).tolist() == [[5, 20], [20, 40], [40, 60]]
