"""Noise measures: toys, a slow count, and a real DeepSORT's output on MOT16."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracklearn.core.noise import impure_fraction, match_boxes, measure


def boxes(columns):
    """(x, y, w, h) to (x1, y1, x2, y2)."""
    return np.concatenate([columns[:, :2], columns[:, :2] + columns[:, 2:]], 1)


def read_tracks(path):
    rows = np.loadtxt(path, delimiter=",")
    rows = rows[np.lexsort((rows[:, 0], rows[:, 1]))]
    return rows[:, 0].astype(int), rows[:, 1].astype(int), boxes(rows[:, 2:6])


def read_truth(path):
    """Rows whose flag is set and, in nine-column files, whose class is 1 (a person on foot)."""
    rows = np.loadtxt(path, delimiter=",")
    keep = rows[:, 6] != 0
    if rows.shape[1] == 9:
        keep &= rows[:, 7] == 1
    rows = rows[keep]
    return rows[:, 0].astype(int), rows[:, 1].astype(int), boxes(rows[:, 2:6])


def sequence(folder, name):
    """(tracklet, pid, truth_pairs) of one sequence."""
    if name.startswith("TUD"):
        tracks, truth = folder / "tud" / name / "test.txt", folder / "tud" / name / "gt.txt"
    else:
        tracks, truth = folder / "deepsort" / f"{name}.txt", folder / "gt" / f"{name}.txt"
    frame, tracklet, box = read_tracks(tracks)
    truth_frame, truth_pid, truth_box = read_truth(truth)
    return tracklet, match_boxes(frame, box, truth_frame, truth_pid, truth_box), len(np.unique(truth_pid))


REAL = [
    ("MOT16-02", 2.596, 2.259, 1.284, {1: 77, 2: 13, 3: 2, 4: 2, 5: 1}),
    ("MOT16-04", 1.581, 1.410, 1.219, {1: 77, 2: 17, 3: 2}),
    ("MOT16-09", 1.750, 1.680, 1.235, {1: 27, 2: 6, 3: 1}),
    ("TUD-Campus", 1.571, 1.375, 1.000, None),
    ("TUD-Stadtmitte", 1.667, 1.500, 1.364, None),
]


@pytest.mark.parametrize(("name", "r_fm", "r_fm_all", "r_sw", "histogram"), REAL)
def test_real_trackers(data, name, r_fm, r_fm_all, r_sw, histogram):
    tracklet, pid, pairs = sequence(data / "mot", name)
    rates = measure(tracklet, pid, np.zeros_like(pid), truth_pairs=pairs)
    assert rates.r_FM == pytest.approx(r_fm, abs=0.02)
    assert rates.r_FM_all == pytest.approx(r_fm_all, abs=0.02)
    assert rates.r_SW == pytest.approx(r_sw, abs=0.02)
    assert histogram is None or rates.persons_per_tracklet == histogram
    assert rates.n_persons * rates.r_FM == pytest.approx(rates.n_tracklets * rates.r_SW)
    assert rates.n_tracklets == sum(rates.persons_per_tracklet.values())
    assert 0.3 < rates.matched < 1


def test_sequences_pool(data):
    """Concatenated under distinct camids, the counts of the sequences add up."""
    parts = [sequence(data / "mot", name) for name, *_ in REAL[:3]]
    alone = [measure(t, p, np.zeros_like(p), truth_pairs=m) for t, p, m in parts]
    camid = np.repeat(range(3), [len(t) for t, _, _ in parts])
    pooled = measure(
        np.concatenate([t for t, _, _ in parts]),
        np.concatenate([p for _, p, _ in parts]),
        camid,
        truth_pairs=sum(m for _, _, m in parts),
    )
    assert pooled.n_tracklets == sum(r.n_tracklets for r in alone)
    assert pooled.n_persons == sum(r.n_persons for r in alone)
    assert pooled.r_FM * pooled.n_persons == pytest.approx(sum(r.r_FM * r.n_persons for r in alone))


class TestMatchBoxes:
    def slow(self, frame, box, truth_frame, truth_pid, truth_box, min_iou):
        out = []
        for f, a in zip(frame, box, strict=True):
            best, pid = 0.0, -1
            for g, p, b in zip(truth_frame, truth_pid, truth_box, strict=True):
                if f != g:
                    continue
                w = max(0, min(a[2], b[2]) - max(a[0], b[0]))
                h = max(0, min(a[3], b[3]) - max(a[1], b[1]))
                union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
                iou = w * h / union if union > 0 else 0
                if iou > best:
                    best, pid = iou, p
            out.append(pid if best >= min_iou else -1)
        return np.array(out, np.int64)

    @settings(max_examples=60, deadline=None)
    @given(
        st.integers(0, 15), st.integers(0, 15), st.sampled_from([0.1, 0.5, 1.0]), st.integers(0, 2**32 - 1)
    )
    def test_same_as_slow(self, n, m, min_iou, seed):
        rng = np.random.default_rng(seed)
        corner, size = rng.integers(0, 4, (n + m, 2)), rng.integers(0, 4, (n + m, 2))
        box = np.concatenate([corner, corner + size], 1).astype(np.float32)
        frame = rng.integers(0, 4, n + m)
        arguments = (frame[:n], box[:n], frame[n:], rng.integers(0, 9, m), box[n:])
        np.testing.assert_array_equal(
            match_boxes(*arguments, min_iou=min_iou), self.slow(*arguments, min_iou)
        )

    def test_hand_toy(self):
        truth = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [0, 0, 10, 10]])
        box = np.array([[4, 0, 14, 10], [0, 0, 10, 5], [0, 0, 10, 4.9], [0, 0, 10, 10]])
        got = match_boxes(np.array([1, 1, 1, 3]), box, np.array([1, 1, 2]), np.array([7, 8, 9]), truth)
        assert got.tolist() == [8, 7, -1, -1]

    def test_refusals_and_input_unchanged(self):
        one, box = np.zeros(1, int), np.array([[0, 0, 2, 2]])
        kept = box.copy()
        match_boxes(one, box, one, one, box)
        np.testing.assert_array_equal(box, kept)
        with pytest.raises(ValueError, match=r"frame has shape \(2,\), expected \(1,\)"):
            match_boxes(np.zeros(2, int), box, one, one, box)
        with pytest.raises(ValueError, match=r"truth_pid has shape \(3,\)"):
            match_boxes(one, box, one, np.zeros(3, int), box)
        with pytest.raises(ValueError, match=r"truth_box has shape \(1, 3\)"):
            match_boxes(one, box, one, one, box[:, :3])
        for bad in (0, 1.1):
            with pytest.raises(ValueError, match="min_iou is"):
                match_boxes(one, box, one, one, box, min_iou=bad)


class TestMeasure:
    def test_hand_toy(self):
        """Tracklet 0 holds persons 1 and 2; a run of one row and a run cut by −1 do not count."""
        tracklet = np.array([0] * 7 + [1] * 4 + [2] * 2)
        pid = np.array([1, 1, 2, 2, 3, 1, 1, 1, -1, 1, -1, -1, -1])
        rates = measure(tracklet, pid, np.zeros(13, int), min_run=2, truth_pairs=4)
        assert (rates.r_FM, rates.r_SW, rates.r_FM_all) == (1, 2, 0.5)
        assert rates.persons_per_tracklet == {2: 1}
        assert (rates.n_tracklets, rates.n_persons) == (1, 2)
        assert rates.matched == pytest.approx(9 / 13)
        loose = measure(tracklet, pid, np.zeros(13, int), min_run=1)
        assert (loose.n_tracklets, loose.n_persons) == (2, 3)
        assert (loose.r_FM, loose.r_SW, loose.r_FM_all) == (4 / 3, 2, 4 / 3)
        assert loose.persons_per_tracklet == {1: 1, 3: 1}

    def test_default_run_is_six_rows(self):
        pid = np.array([4] * 6 + [5] * 5)
        assert measure(np.zeros(11, int), pid, np.zeros(11, int)).persons_per_tracklet == {1: 1}

    def test_a_person_is_counted_once_a_camera(self):
        tracklet, camid = np.array([0, 1, 2, 3]), np.array([0, 0, 1, 1])
        rates = measure(tracklet, np.full(4, 7), camid, min_run=1)
        assert (rates.n_persons, rates.r_FM) == (2, 2)

    def test_clean_tracklets(self):
        rates = measure(np.repeat(range(5), 8), np.repeat(range(5), 8), np.zeros(40, int))
        assert (rates.r_FM, rates.r_SW, rates.r_FM_all) == (1, 1, 1)

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 60), st.integers(1, 4), st.integers(0, 2**32 - 1))
    def test_same_as_slow(self, n, min_run, seed):
        rng = np.random.default_rng(seed)
        tracklet = np.sort(rng.integers(0, 4, n))
        camid = tracklet % 2
        pid = rng.integers(-1, 3, n)
        held = {}
        for t in np.unique(tracklet):
            row = [*pid[tracklet == t], None]
            run = [row[0]]
            for p in row[1:]:
                if p == run[-1]:
                    run.append(p)
                    continue
                if run[0] >= 0 and len(run) >= min_run:
                    held.setdefault(t, set()).add((run[0], t % 2))
                run = [p]
        persons = set().union(*held.values()) if held else set()
        incidences = sum(len(h) for h in held.values())
        rates = measure(tracklet, pid, camid, min_run=min_run)
        assert (rates.n_tracklets, rates.n_persons) == (len(held), len(persons))
        if held:
            assert rates.r_FM == pytest.approx(incidences / len(persons))
            assert rates.r_SW == pytest.approx(incidences / len(held))
            assert rates.n_persons * rates.r_FM == pytest.approx(rates.n_tracklets * rates.r_SW)
        else:
            assert np.isnan([rates.r_FM, rates.r_SW, rates.r_FM_all]).all()
        turn = rng.permutation(4)[tracklet]  # other numbers, order of rows kept inside each tracklet
        assert measure(turn, pid, camid, min_run=min_run).n_tracklets == rates.n_tracklets

    def test_refusals_and_input_unchanged(self):
        t, p = np.zeros(8, int), np.arange(8) // 4
        kept = p.copy()
        measure(t, p, t, min_run=1)
        np.testing.assert_array_equal(p, kept)
        with pytest.raises(ValueError, match=r"pid has shape \(3,\), expected \(8,\)"):
            measure(t, p[:3], t)
        with pytest.raises(ValueError, match=r"camid has shape \(1,\)"):
            measure(t, p, t[:1])
        with pytest.raises(ValueError, match="pid has dtype float64"):
            measure(t, p / 2, t)
        with pytest.raises(ValueError, match="min_run is 0"):
            measure(t, p, t, min_run=0)
        with pytest.raises(ValueError, match="truth_pairs is 1, but 2"):
            measure(t, p, t, min_run=1, truth_pairs=1)


def test_impure_fraction():
    tracklet = np.array([0, 0, 0, 0, 1, 1, 2, -1])
    pid = np.array([5, 5, 6, -1, 7, 8, -1, 9])
    assert impure_fraction(tracklet, pid) == pytest.approx(2 / 5)
    assert impure_fraction(tracklet[:2], pid[:2]) == 0
    assert np.isnan(impure_fraction(tracklet[6:7], pid[6:7]))
    assert np.isnan(impure_fraction(np.zeros(0, int), np.zeros(0, int)))
    with pytest.raises(ValueError, match=r"pid has shape \(3,\), expected \(8,\)"):
        impure_fraction(tracklet, pid[:3])
