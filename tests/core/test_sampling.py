"""Tracklets chosen in time and space: toys by hand, a slow reference, and what it promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracklearn.core import sampling


def rows(*tracklets):
    """(tracklet, time, box) of tracklets (times, x): boxes 10 wide and 20 high, centred at (x, 50)."""
    number, time, box = [], [], []
    for i, (times, x) in enumerate(tracklets):
        for k, now in enumerate(times):
            centre = x[k] if isinstance(x, list) else x
            number.append(i)
            time.append(now)
            box.append([centre - 5, 40, centre + 5, 60])
    return np.array(number), np.array(time, float), np.array(box, float)


def keep(*tracklets, camid=None, **options):
    camid = np.zeros(len(tracklets), int) if camid is None else np.array(camid)
    return sampling.spatio_temporal(*rows(*tracklets), camid, **options).tolist()


def test_tracklets_on_different_clocks_are_never_compared():
    """Two recordings of one camera, each with somebody at the same spot at the same time of its own."""
    made = [([1, 2, 3], 50), ([1, 2, 3], 50), ([1, 2], 51)]
    assert keep(*made, period=10) == [True, False, False]
    assert keep(*made, period=10, clock=[0, 1, 1]) == [True, True, False]
    # each clock has moments of its own, and camera by camera
    later = [([1, 2, 3], 50), ([4, 5], 51), ([4, 5], 52)]
    assert keep(*later, camid=[0, 0, 1], period=10, clock=[0, 7, 7]) == [True, True, True]


def test_only_tracklets_alive_at_the_moments_are_taken():
    # Alive together most: [3, 4] by 0, 1, 2; so S = 3, and S + 10 = 13 meets only 4.
    made = [
        (range(5), 0),
        (range(3, 9), 50),
        (range(2, 5), 100),
        (range(6, 12), 150),
        (range(12, 15), 200),
    ]
    assert keep(*made, period=10) == [True, True, True, False, True]
    # At period 4 the moments 0, 4, 8 and 12 meet all, some of them twice.
    assert keep(*made, period=4) == [True] * 5


def test_the_earliest_of_equal_phases_is_taken():
    assert keep(([0, 1], 0), ([5, 6], 50), period=100) == [True, False]
    assert keep(([5, 6], 0), ([0, 1], 50), period=100) == [False, True]


def test_moments_reach_back_before_the_phase():
    # Most are alive at 12, phase 2 of the period 10: the moment 2 is before it.
    made = [([0, 2, 4], 0), ([11, 13], 50), ([12, 14], 100), ([6, 7], 0)]
    assert keep(*made, period=10) == [True, True, True, False]


def test_of_near_ones_the_one_of_most_crops_stays():
    # Centres 10 apart, boxes 20 high: near at the default of half a height, apart below.
    made = [([0, 1], 0), ([0, 0.5, 1], 10), ([0, 1], 20.5)]
    assert keep(*made, period=9) == [False, True, True]
    assert keep(*made, period=9, distance=0.49) == [True, True, True]
    assert keep(*made, period=9, distance=0.6) == [False, True, False]
    assert keep(([0, 1], 0), ([0, 1], 10), period=9) == [True, False]  # equal: the lower number


def test_near_is_measured_at_the_moment_and_by_both_heights():
    # Side by side at 0, far apart at 2; S = 0 where both begin.
    assert keep(([0, 2], [0, 0]), ([0, 2], [8, 90]), period=9) == [True, False]
    assert keep(([0, 2], [0, 0]), ([0, 2], [90, 8]), period=9) == [True, True]
    number, time, box = rows(([0], 0), ([0], 15))
    box[1, [1, 3]] = [30, 70]  # 40 high, the centre where it was: mean height 30
    for distance, both in ((0.49, True), (0.5, False)):
        kept = sampling.spatio_temporal(number, time, box, np.zeros(2, int), period=9, distance=distance)
        assert kept.tolist() == [True, both]


def test_the_box_is_the_one_nearest_in_time():
    # S = 10, where the second begins. The first is at 90 then (9.5 is nearer than 11), or at 0 (9 is not).
    assert keep(([5, 9.5, 11], [0, 90, 0]), ([10, 12], 0), period=99) == [True, True]
    assert keep(([5, 8, 11], [0, 90, 0]), ([10, 12], 0), period=99) == [True, False]
    assert keep(([5, 9, 11], [0, 90, 0]), ([10, 12], 0), period=99) == [True, True]  # equal: the earlier


def test_a_tracklet_taken_before_keeps_its_place():
    # 0 stays all the time at 0. At the moment 10 a longer one stands beside it, at 20 another far away.
    made = [([0, 10, 20], 0), ([9, 9.5, 10, 10.5], 5), ([18, 20, 21], 90)]
    assert keep(*made, period=10) == [True, False, True]


def test_cameras_are_sampled_by_themselves():
    made = [([0, 1], 0), ([0, 1], 2), ([7, 8], 0), ([7.5, 8], 70)]
    assert keep(*made, camid=[0, 1, 1, 0], period=100) == [True, True, False, False]
    assert keep(*made, camid=[0, 1, 1, 0], period=np.array([3.75, 7.0])) == [True, True, True, True]
    assert keep(*made, camid=[0, 3, 3, 0], period=100) == [True, True, False, False]  # numbers may have gaps


def slow(tracklet, time, box, camid, period, distance):
    """The definition, moment by moment; phases tried are those where a tracklet begins."""
    out = np.zeros(len(camid), bool)
    for camera in set(camid.tolist()):
        span = {
            i: (time[tracklet == i].min(), time[tracklet == i].max()) for i in np.flatnonzero(camid == camera)
        }
        base = min(a for a, _ in span.values())
        last = max(b for _, b in span.values())

        def moments(phase, base=base, last=last):
            return [base + phase + k * period for k in range(int((last - base) / period) + 2)]

        def alive(now, span=span):
            return [i for i, (a, b) in span.items() if a - 1e-9 <= now <= b + 1e-9]

        best = max(
            sorted({(a - base) % period for a, _ in span.values()}),
            key=lambda p: len({i for now in moments(p) for i in alive(now)}),
        )
        for now in moments(best):
            place = {}
            for i in alive(now):
                own = np.flatnonzero(tracklet == i)
                x1, y1, x2, y2 = box[own[np.argmin(np.abs(time[own] - now))]]
                place[i] = np.array([(x1 + x2) / 2, (y1 + y2) / 2]), y2 - y1
            taken = [i for i in place if out[i]]
            for i in sorted(place, key=lambda i: (-(tracklet == i).sum(), i)):
                if i not in taken and all(
                    np.linalg.norm(place[i][0] - place[j][0]) > distance * (place[i][1] + place[j][1]) / 2
                    for j in taken
                ):
                    taken.append(i)
                    out[i] = True
    return out


@st.composite
def scenes(draw):
    t = draw(st.integers(1, 12))
    made = []
    for _ in range(t):
        begin, n = draw(st.integers(0, 60)), draw(st.integers(1, 6))
        made.append(([begin + 2 * k for k in range(n)], [draw(st.integers(0, 9)) * 7 for _ in range(n)]))
    made[0][1][0] = 1000  # boxes are not all the same
    camid = draw(st.lists(st.integers(0, 2), min_size=t, max_size=t))
    return *rows(*made), np.array(camid)


@given(scenes(), st.sampled_from([3, 8, 16, 64]), st.sampled_from([0, 0.3, 0.8]), st.randoms())
@settings(deadline=None, max_examples=60)
def test_it_is_the_definition_in_any_order_of_crops(scene, period, distance, random):
    tracklet, time, box, camid = scene
    want = slow(tracklet, time, box, camid, period, distance)
    order = np.array(random.sample(range(len(time)), len(time)))
    before = [tracklet.copy(), time.copy(), box.copy()]
    got = sampling.spatio_temporal(
        tracklet[order], time[order], box[order], camid, period=period, distance=distance
    )
    assert got.tolist() == want.tolist()
    assert all((a == b).all() for a, b in zip(before, (tracklet, time, box), strict=True))
    assert set(camid[got].tolist()) == set(camid.tolist())  # every camera keeps one


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 39), st.integers(1, 5)), min_size=1, max_size=15)
)
@settings(deadline=None, max_examples=60)
def test_a_person_who_stays_less_than_the_period_is_taken_once(visits):
    """However a tracker breaks the visits; persons stand 30 apart."""
    made, person = [], []
    for who, (begin, stay, pieces) in enumerate(visits):
        for times in np.array_split(np.arange(begin, begin + stay + 1), pieces):
            if len(times):
                made.append((times.tolist(), 30.0 * who))
                person.append(who)
    made.append(([400], -50.0))
    kept = np.array(keep(*made, period=40))[:-1]
    assert np.bincount(np.array(person)[kept], minlength=len(visits)).max() <= 1


def test_the_period_is_twice_nearly_the_longest_tracklet_of_a_camera():
    tracklet, time, _ = rows(*[([3 * i, 3 * i + 1 + i], 0) for i in range(21)], ([0, 30], 0), ([0, 4], 0))
    camid = np.array([0] * 21 + [2, 2])
    got = sampling.usual_period(tracklet, time, camid)
    # lengths 1..21, of which 20 is the 95 % quantile; 30 and 4
    np.testing.assert_allclose(got, [40, np.nan, 2 * (4 + 0.95 * 26)])
    assert sampling.usual_period(tracklet, time, camid, quantile=0.5, factor=3)[0] == 33
    made = [([0, 5], 0), ([9, 14], 50), ([10.5, 11], 100)]
    assert keep(*made) == keep(*made, period=9.999999999999998) != keep(*made, period=30)


def test_nothing_in_nothing_out():
    none = np.zeros(0, int)
    assert sampling.spatio_temporal(none, np.zeros(0), np.zeros((0, 4)), none, period=3).tolist() == []
    assert sampling.usual_period(none, np.zeros(0), none).tolist() == []
    # a tracklet without crops is not taken
    assert sampling.spatio_temporal(
        np.array([1]), np.zeros(1), np.ones((1, 4)), np.zeros(2, int), period=3
    ).tolist() == [False, True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": np.zeros(3)}, r"time has shape \(3,\), tracklet \(2,\)"),
        ({"time": np.array([0, np.nan])}, "time is not finite"),
        ({"tracklet": np.array([0, 2])}, "tracklet reaches 2, camid has 2 rows"),
        ({"box": np.zeros((2, 3))}, r"box has shape \(2, 3\), expected \(2, 4\)"),
        ({"box": np.full((2, 4), np.inf)}, "box is not finite"),
        ({"box": np.ones((2, 4))}, 'says nothing of places: set sampling to "all"'),
        ({"period": 0}, "period is 0.0 s in camera 0"),
        ({"period": np.inf}, "period is inf s"),
        ({"period": None}, "period cannot be guessed in camera 0, whose tracklets last 0 s"),
        ({"distance": -1}, "distance is -1"),
        ({"clock": np.zeros(3)}, r"clock has shape \(3,\), expected \(2,\)"),
        ({"distance": np.nan}, "distance is nan"),
    ],
)
def test_what_makes_no_sense_is_refused(change, message):
    given = {
        "tracklet": np.arange(2),
        "time": np.zeros(2),
        "box": np.array([[0, 0, 5, 9], [20, 0, 25, 9]]),
        "camid": np.zeros(2, int),
        "period": 60.0,
        "distance": 0.5,
    } | change
    with pytest.raises(ValueError, match=message):
        sampling.spatio_temporal(**given)
