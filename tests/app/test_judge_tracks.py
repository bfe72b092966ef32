"""Tracks against ground truth: by hand, beside other evaluators, over cameras, and what is refused."""

import json

import numpy as np
import pytest

from tests.app.test_identities import film_of, seeing, undrawn, visits  # noqa: F401
from tracklearn.app.identities import link
from tracklearn.app.judge import tracks as judging
from tracklearn.store.film.mot import Boxes, read_results, write_results
from tracklearn.store.sets.tracklets import open_set, read_truth

COMMAND = ["evaluate"]


def boxes(rows):
    """Boxes of (frame, number, place)."""
    frame, track, x = np.array(rows, np.int64).reshape(-1, 3).T
    left = 50.0 * x
    return Boxes(frame, track, np.stack([left, 0 * left, left + 40, 0 * left + 100], 1), np.ones(len(frame)))


def noisy(seed, n_people=5, n_frames=60, changes=0.1):
    """(tracks, truth) of people in places of their own: lost, missed, switched, found where nobody is."""
    rng = np.random.default_rng(seed)
    truth, tracks = [], []
    number = np.arange(n_people)
    for frame in range(n_frames):
        if rng.random() < changes:
            number[rng.integers(n_people)] = number.max() + 1
        if rng.random() < changes:
            a, b = rng.choice(n_people, 2, replace=False)
            number[[a, b]] = number[[b, a]]
        for person in range(n_people):
            if rng.random() < 0.9:
                truth.append((frame, person, 2 * person))
            if rng.random() < 0.85:
                tracks.append((frame, number[person], 2 * person))
        if rng.random() < 0.3:
            tracks.append((frame, 1000 + frame, 99))
    made = boxes(tracks)
    shifted = made.box + rng.normal(0, 4, (len(made), 1)) * np.array([1, 0, 1, 0])
    return Boxes(made.frame, made.track, shifted, made.score), boxes(truth)


def test_perfect_tracks_are_perfect_whatever_their_numbers():
    truth = boxes([(f, p, p) for f in range(20) for p in range(3)])
    said = Boxes(truth.frame, 10 - truth.track, truth.box, truth.score)
    found = judging.scores([(said, truth)])
    assert (found.IDF1, found.HOTA, found.MOTA, found.switches) == (1.0, pytest.approx(1.0), 1.0, 0)
    assert (found.r_FM, found.r_SW, found.merges, found.splits) == (1.0, 1.0, 0, 0)
    assert (found.numbers, found.people, found.found) == (3, 3, 3)


def test_a_switch_and_a_new_number_by_hand():
    """Person 0 has number 0, then 1; person 1 has number 1 all along; 10 frames each."""
    truth = boxes([(f, 0, 0) for f in range(20)] + [(f, 1, 5) for f in range(10)])
    said = boxes([(f, 0 if f < 10 else 1, 0) for f in range(20)] + [(f, 1, 5) for f in range(10)])
    found = judging.scores([(said, truth)])
    # The best way to name: 0 -> 0, 1 -> 1: ten boxes of thirty are wrong.
    assert pytest.approx(20 / 30) == found.IDF1
    assert found.switches == 1
    assert (found.r_FM, found.r_SW) == (1.5, 1.5)
    assert (found.merges, found.splits, found.found) == (1, 1, 2)


def test_one_number_over_two_films_is_right_only_if_it_is_the_same_person():
    film = boxes([(f, 3, 0) for f in range(10)])
    other = Boxes(film.frame, 0 * film.track + 4, film.box, film.score)
    right = judging.scores([(film, film), (film, film)])
    wrong = judging.scores([(film, film), (other, film)])
    assert (right.IDF1, right.r_FM, right.switches) == (1.0, 1.0, 0)
    assert (wrong.IDF1, wrong.r_FM, wrong.splits, wrong.switches) == (0.5, 2.0, 1, 1)


def reference(tracks, truth):
    """What TrackEval takes: numbers from 0, and overlaps by frame."""
    said, true, overlap = judging.by_frame([(tracks, truth)])
    return {
        "num_timesteps": len(said),
        "num_tracker_ids": len(np.unique(tracks.track)),
        "num_gt_ids": len(np.unique(truth.track)),
        "num_tracker_dets": len(tracks),
        "num_gt_dets": len(truth),
        "gt_ids": true,
        "tracker_ids": said,
        "similarity_scores": overlap,
    }


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_trackeval(seed, monkeypatch):
    pytest.importorskip("trackeval")
    from trackeval.metrics import CLEAR, HOTA, Identity

    # The package still asks for names that numpy has dropped.
    for name, kind in (("float", float), ("int", int), ("bool", bool)):
        monkeypatch.setattr(np, name, kind, raising=False)
    tracks, truth = noisy(seed)
    found, data = judging.scores([(tracks, truth)]), reference(tracks, truth)
    identity = Identity({"PRINT_CONFIG": False}).eval_sequence(data)
    clear = CLEAR({"PRINT_CONFIG": False}).eval_sequence(data)
    hota = HOTA().eval_sequence(data)
    assert pytest.approx(identity["IDF1"], abs=1e-9) == found.IDF1
    assert found.switches == clear["IDSW"] > 0
    assert pytest.approx(clear["MOTA"], abs=1e-9) == found.MOTA
    for name in ("HOTA", "DetA", "AssA"):
        assert getattr(found, name) == pytest.approx(float(np.mean(hota[name])), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_one_number_over_films_is_what_reid_hota_counts(seed):
    """It names people first, by overlap over all films, and counts boxes of nobody's numbers apart.

    Its HOTA is another one for that; IDF1 is the same wherever it names them as IDF1 does.
    """
    pandas, reid_hota = pytest.importorskip("pandas"), pytest.importorskip("reid_hota")
    films = [noisy(seed, changes=0.01), noisy(seed + 10, changes=0.01)]
    config = reid_hota.HOTAConfig(
        id_alignment_method="global", similarity_metric="iou", suppress_print_statements=True
    )
    evaluator = reid_hota.HOTAReIDEvaluator(n_workers=0, config=config)

    def table(boxes):
        corner = dict(zip(("x1", "y1", "x2", "y2"), boxes.box.T, strict=True))
        return pandas.DataFrame({"frame": boxes.frame, "id": boxes.track, **corner, "object_type": 1})

    said, true = ({str(i): table(film[k]) for i, film in enumerate(films)} for k in (0, 1))
    evaluator.evaluate(true, said)
    counted = evaluator.get_global_hota_data()
    at = int(np.argmin(np.abs(np.asarray(counted["IOU Thresholds"]) - 0.5)))
    hits, missed, wrong = (int(counted[name][at]) for name in ("TP", "FN", "FP"))
    found = judging.scores(films)
    assert pytest.approx(hits / (hits + missed), abs=1e-9) == found.IDR
    assert pytest.approx(hits / (hits + wrong + int(counted["UnmatchedFP"])), abs=1e-9) == found.IDP


def test_pairs_by_hand():
    label, pid = np.array([0, 0, 1, 1, -1, -1]), np.array([5, 5, 5, 6, 6, 6])
    found = judging.pair_rates(label, pid)
    # Said: (0, 1), (2, 3); true: three of 5, three of 6; right: (0, 1).
    assert (found.n_said, found.n_true) == (2, 6)
    assert (found.precision, found.recall, found.f1) == (0.5, 1 / 6, 0.25)
    camera = np.array([0, 1, 0, 0, 1, 0])
    across = judging.pair_rates(label, pid, camera)
    # Across: said (0, 1); true (0, 1), (1, 2), (3, 4), (4, 5).
    assert (across.n_said, across.n_true, across.precision, across.recall) == (1, 4, 1.0, 0.25)
    unknown = judging.pair_rates(np.append(label, 0), np.append(pid, -1))
    assert unknown == found
    none = judging.pair_rates(np.zeros(0, int), np.zeros(0, int))
    assert np.isnan([none.precision, none.recall, none.f1]).all()


def test_persons_files(tmp_path):
    file = tmp_path / "p.txt"
    file.write_text("# who is who\nP1: 4 1  # twice\n\nP2: 7\n")
    assert judging.read_persons(file) == {4: 1, 1: 1, 7: 7}
    for text, line in (("P1 4 1", "line 1: expected NAME"), ("a: 1\nb: 1", "line 2: 1 is there twice")):
        file.write_text(text)
        with pytest.raises(ValueError, match=line):
            judging.read_persons(file)
    with pytest.raises(FileNotFoundError):
        judging.read_persons(tmp_path / "no.txt")


def test_files_are_judged_and_visits_are_joined(call, tmp_path):
    rows = [(f, 0, 0) for f in range(10)] + [(f, 1, 0) for f in range(20, 30)]
    write_results(tmp_path / "truth.txt", boxes([(f, 5 + v, x) for f, v, x in rows]))
    write_results(tmp_path / "tracks.txt", boxes([(f, 0, x) for f, _, x in rows]))
    (tmp_path / "persons.txt").write_text("A: 5 6\n")
    code, out, _ = call("tracks.txt", "--truth", "truth.txt", "--json")
    apart = json.loads(out)["scores"]
    assert (code, apart["people"], apart["merges"], apart["IDF1"]) == (0, 2, 1, 0.5)
    code, out, _ = call("tracks.txt", "--truth", "truth.txt", "--persons", "persons.txt", "--json")
    joined = json.loads(out)["scores"]
    assert (joined["people"], joined["merges"], joined["IDF1"]) == (1, 0, 1.0)
    code, out, _ = call("tracks.txt", "--truth", "truth.txt", "--persons", "persons.txt")
    assert out.splitlines()[0].startswith("IDF1 100.0  HOTA 100.0")
    assert "1 of 1 people found, 0 false merges, 0 splits" in out


def test_a_folder_of_identities_is_judged_with_its_pairs(call, run, tmp_path):
    day = film_of(tmp_path / "day", {"hall": visits(range(12)), "yard": visits(range(12))})
    one = open_set(day)
    path = run(day, set={"path": "../elsewhere", "digest": "9" * 64})
    link.identities(path, [day], tmp_path / "out")
    pid = read_truth(day).pid
    (tmp_path / "truth").mkdir()
    for camid, camera in enumerate(one.cameras):
        own = one.tracklets.camid[one.tracklets.tracklet] == camid
        t = one.tracklets
        rows = Boxes(t.frame[own], pid[t.crop[own]], t.box[own], t.score[own])
        write_results(tmp_path / "truth" / f"{camera}.txt", rows)
    code, out, err = call(tmp_path / "out", "--truth", "truth", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert (result["scores"]["IDF1"], result["scores"]["people"], result["scores"]["found"]) == (1.0, 12, 12)
    assert result["pairs"]["all"]["f1"] == result["pairs"]["across"]["f1"] == 1.0
    assert result["pairs"]["all"]["n_true"] == 12 * 6
    assert result["pairs"]["across"]["n_true"] == 12 * 4
    assert result["pairs"]["parts_of_known_people"] == 48
    code, out, _ = call(tmp_path / "out", "--truth", "truth")
    assert "pairs of parts of two cameras: F1 1.000" in out


def test_refusals(call, tmp_path):
    truth = boxes([(f, p, p) for f in range(10) for p in range(2)])
    write_results(tmp_path / "truth.txt", truth)
    write_results(tmp_path / "other.txt", Boxes(truth.frame + 50, truth.track, truth.box, truth.score))
    (tmp_path / "persons.txt").write_text("A: 0 1\n")
    for arguments, line in (
        (("--truth", "truth.txt"), "name their file or folder"),
        (("truth.txt", "--truth", "no.txt"), "no such file or folder"),
        (("truth.txt", "--truth", "other.txt"), "no frame in common"),
        (("truth.txt", "--truth", "truth.txt", "--root", "."), "leave --benchmark"),
        (("truth.txt", "--truth", "truth.txt", "--workers", "2"), "leave --benchmark"),
        (("truth.txt", "--persons", "persons.txt"), "give --benchmark and --root"),
        (("truth.txt",), "give --benchmark and --root"),
        (("truth.txt", "--truth", "truth.txt", "--persons", "persons.txt"), "in view at once"),
    ):
        code, out, err = call(*arguments)
        assert (code, out) == (2, ""), (arguments, err)
        assert line in err.splitlines()[-1], (arguments, err)
    assert read_results(tmp_path / "truth.txt").track.tolist() == truth.track.tolist()
