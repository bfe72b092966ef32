"""Who is who over cameras and days: tables, numbers that stay, a person's word, and what is refused."""

import csv
import json
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from tests.core.films import walk
from tracklearn.app.identities import decisions, link, pictures, table
from tracklearn.core.shown import called
from tracklearn.store.files import DamagedError
from tracklearn.store.film.mot import read_results
from tracklearn.store.identities.folder import Identities
from tracklearn.store.identities.journal import (
    Decision,
    Place,
    add_cut,
    add_decisions,
    journal_path,
    read_cuts,
)
from tracklearn.store.picture.crops import encode_jpeg
from tracklearn.store.sealed import write_sealed
from tracklearn.store.sets.tracklets import SetWriter, open_set, read_truth

WIDTH = 128
ROLES = (("old", "1"), ("new", "2"))  # runs, and what their digests are made of
CANNOT = "cannot tell people apart here: do not trust identities"


def film_of(path, visits, *, start=None, kind="video"):
    """A set: camera -> list of (person, first frame), each in view for 40 frames, all beside one another."""
    with SetWriter(path) as writer:
        for key, (camera, seen) in enumerate(visits.items()):
            part = writer.part(f"{key:x}" * 64, truth=True)
            for person, first in seen:
                frame, box = walk(150.0 * person, first=first)
                colour = np.full((16, 8, 3), 8 * person + 4, np.uint8)
                part.add(
                    [encode_jpeg(colour)] * 40,
                    camera=camera,
                    frame=frame,
                    time=frame / 10,
                    box=box,
                    score=np.full(40, 0.9),
                    pid=person,
                )
            begin = None if start is None else start[camera].isoformat()
            source = {
                "camera": camera,
                "kind": kind,
                "status": "ok",
                "start": begin,
                "video": {"seconds": 30.0},
            }
            part.finish(source)
        return writer.finish({"stride": 1})


def visits(people, firsts=(0, 100)):
    return [(person, first) for first in firsts for person in people]


@pytest.fixture(autouse=True)
def seeing(monkeypatch):
    """Features that know people by the grey of their pictures, and add something of the camera's."""

    def features(footage, **_):
        rng = np.random.default_rng(5)
        person, camera = rng.normal(size=(32, WIDTH)), 1.5 * rng.normal(size=(8, WIDTH))
        made = []
        for one in footage.sets:
            t = one.tracklets
            grey = np.array([one.image(int(row)).mean() for row in t.start[:-1]])
            who = np.round((grey - 4) / 8).astype(int)[t.tracklet]
            noise = np.random.default_rng(int(one.digest[:8], 16)).normal(size=(t.n_crops, WIDTH))
            x = person[who] + camera[[ord(one.cameras[c][0]) % 8 for c in t.camid]][t.tracklet] + 0.8 * noise
            made.append(x / np.linalg.norm(x, axis=1, keepdims=True))
        return np.concatenate(made).astype(np.float32)

    monkeypatch.setattr(link, "frame_features", features)


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    """Pictures take a second; two tests look at them."""
    if request.node.originalname not in ("test_people_are_found_over_cameras_and_gaps", "test_commands"):
        monkeypatch.setattr(pictures, "draw", lambda *_: [])


@pytest.fixture
def opened(run, day):
    """A run that has learned elsewhere."""
    return run(day, set={"path": "../elsewhere", "digest": "9" * 64})


@pytest.fixture
def day(tmp_path):
    """Two cameras, twelve people, each twice in view of both."""
    return film_of(tmp_path / "day", {"hall": visits(range(12)), "yard": visits(range(12))})


def persons(found, sets):
    """Number and true person of every part."""
    truth = {}
    for path in sets:
        one = open_set(path)
        pid = read_truth(path).pid
        truth[one.digest] = [int(pid[row]) for row in one.tracklets.start[:-1]]
    return [(row["identity"], truth[row["set_digest"]][row["track"]]) for row in found.rows]


def name_of(row):
    return called(row["track"], row["part"], row["n_parts"])


def one_to_one(pairs):
    return len(set(pairs)) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_people_are_found_over_cameras_and_gaps(opened, day, tmp_path):
    found = link.identities(opened, [day], tmp_path / "out")
    assert found.manifest["counts"] == {"people": 12, "parts": 48, "nobody": 0}
    assert found.manifest["trusted"] is True
    assert found.manifest["notes"] == []
    assert one_to_one(persons(found, [day]))
    assert all(row["probability"] > 0.9 for row in found.rows)
    assert {row["how"] for row in found.rows} == {"compared"}
    assert found.damages() == []

    rows = list(csv.DictReader((tmp_path / "out" / "identities.csv").open()))
    assert len(rows) == 48
    assert rows[0].keys() >= {
        "identity",
        "probability",
        "camera",
        "track",
        "first_frame",
        "last_frame",
        "start",
    }
    assert (rows[12]["first_frame"], rows[12]["last_frame"], rows[12]["end"]) == ("100", "139", "13.9")

    hall, yard = (read_results(tmp_path / "out" / "mot" / f"{name}.txt") for name in ("hall", "yard"))
    assert len(hall) == len(yard) == 12 * 2 * 40
    # The same person has the same number in both cameras: by place, which follows the person here.
    for boxes in (hall, yard):
        place = np.round(boxes.box[:, 0] // 150).astype(int)
        assert one_to_one(list(zip(boxes.track.tolist(), place.tolist(), strict=True)))
    assert hall.track[hall.frame == 0].tolist() == yard.track[yard.frame == 0].tolist()

    pictures = sorted(path.name for path in (tmp_path / "out" / "people").iterdir())
    assert pictures == [f"{n:04d}.jpg" for n in range(1, 13)]
    svg = ElementTree.parse(tmp_path / "out" / "timeline.svg")
    texts = [node.text for node in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"1", "12", "hall", "yard", "time in film"} <= set(texts)

    calibration = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert calibration["from"] == "moments"
    assert calibration["across_cameras"]["holds"] is True
    # Cameras add as much to everybody, so that people are as far apart; taken out, nothing is left of it.
    assert abs(calibration["across_cameras"]["shift"]) < 0.1


def test_the_same_call_writes_the_same_bytes(opened, day, tmp_path):
    for name in ("a", "b"):
        link.identities(opened, [day], tmp_path / name)
    sums = [Identities(tmp_path / name).manifest["files"] for name in ("a", "b")]
    assert sums[0] == sums[1]


def test_a_new_day_keeps_the_numbers_of_known_people(opened, day, tmp_path):
    first = link.identities(opened, [day], tmp_path / "first")
    later = film_of(tmp_path / "later", {"hall": visits(range(8, 20)), "yard": visits(range(8, 20))})
    second = link.identities(opened, [day, later], tmp_path / "second", earlier=tmp_path / "first")
    pairs = persons(second, [day, later])
    assert one_to_one(pairs)
    number = {person: value for value, person in persons(first, [day])}
    assert {person: value for value, person in pairs if person < 12} == number
    assert {value for value, person in pairs if person >= 12} == set(range(13, 21))
    changes = second.manifest["changes"]
    assert (changes["parts_known"], changes["parts_kept"]) == (48, 48)
    assert (changes["known"], changes["new"], changes["gone"]) == (12, list(range(13, 21)), [])

    # Numbers are not given twice, though those who had them are not looked at now.
    other = film_of(tmp_path / "other", {"hall": visits(range(20, 32))})
    third = link.identities(opened, [day, other], tmp_path / "third", earlier=tmp_path / "second")
    assert {v for v, person in persons(third, [day, other]) if person >= 20} == set(range(21, 33))
    with pytest.raises(ValueError, match=r"first knows none of these sets: give one of its own"):
        link.identities(opened, [other], tmp_path / "fourth", earlier=tmp_path / "first")
    assert not (tmp_path / "fourth").exists()


def test_the_second_half_of_the_films_is_a_new_day(opened, tmp_path):
    """Twelve people pass each of two cameras four times; somebody parted one of them after two."""
    halves = {"old": (0, 60), "new": (120, 180)}
    old, new = (
        film_of(tmp_path / name, {camera: visits(range(12), firsts) for camera in ("hall", "yard")})
        for name, firsts in halves.items()
    )
    first = link.identities(opened, [old], tmp_path / "first")
    number = {person: value for value, person in persons(first, [old])}
    assert len(set(number.values())) == 12
    # Tracks 0 and 12 are person 0, whom somebody has seen to be two.
    link.identities(opened, [old], tmp_path / "seen", earlier=tmp_path / "first", different=["0=12"])
    second = link.identities(opened, [old, new], tmp_path / "second", earlier=tmp_path / "seen")
    today = [
        (row["identity"], person)
        for row, (_, person) in zip(second.rows, persons(second, [old, new]), strict=True)
        if row["set"] == str(new)
    ]
    assert len(today) == 48
    kept = [value == number[person] for value, person in today if person]
    assert np.mean(kept) >= 0.95
    word = {row["track"]: row["identity"] for row in second.rows if row["set"] == str(old)}
    assert word[0] != word[12]
    assert second.manifest["changes"]["parts_kept"] == second.manifest["changes"]["parts_known"] == 48


def test_a_persons_word_is_kept_and_followed(opened, day, tmp_path):
    """Tracks 0 and 12 are person 0, tracks 1 and 13 person 1, in the hall."""
    journal = tmp_path / "run.review.jsonl"
    first = link.identities(opened, [day], tmp_path / "a", different=["0=12"], same=["1=2"])
    number = {row["track"]: row["identity"] for row in first.rows}
    assert number[0] != number[12]
    assert number[1] == number[2], "a person saw that they are one, though both are in view at once"
    assert [json.loads(line)["decision"] for line in journal.read_text().splitlines()] == [
        "same",
        "different",
    ]
    assert first.rows[1]["how"] == "reviewed"

    # Without asking again, in another table, with new footage.
    later = film_of(tmp_path / "later", {"hall": visits(range(12))})
    second = link.identities(opened, [day, later], tmp_path / "b", earlier=tmp_path / "a")
    again = {row["track"]: row["identity"] for row in second.rows if row["set"] == str(day)}
    assert again[0] != again[12]
    assert again[1] == again[2]
    assert second.manifest["decisions"] == 2
    # The same word twice is one line; of two sets a part is named with its set.
    link.identities(opened, [day, later], tmp_path / "c", different=["1:0=1:12"], same=["2:3=1:3"])
    assert len(journal.read_text().splitlines()) == 3
    # A set that is not here is nothing to stumble over.
    third = link.identities(opened, [later], tmp_path / "d")
    assert third.manifest["notes"][-1] == "3 of 3 decisions are about tracks that are not here"


def test_a_person_s_word_goes_on_with_another_run(run, day, tmp_path):
    """A new day is looked at by a run that learned anew: what was said of the older table still holds."""
    old, new = (run(day, name, set={"path": "../x", "digest": d * 64}, digest=d * 64) for name, d in ROLES)
    later = film_of(tmp_path / "later", {"hall": visits(range(12), (300,))})
    digest = open_set(day).digest
    add_cut(journal_path(old), Place(digest, 5, 19), Place(digest, 5, 20), cut=True)
    add_cut(journal_path(old), Place(digest, 6, 19), Place(digest, 6, 20), cut=True)
    add_cut(journal_path(old), Place(digest, 6, 19), Place(digest, 6, 20), cut=False)
    first = link.identities(old, [day], tmp_path / "a", different=["0=24"], same=["1=2"])
    number = {name_of(row): row["identity"] for row in first.rows}
    assert number["0"] != number["24"]
    assert number["1"] == number["2"]
    assert number["5.1"] != number["5.2"]

    # Corrected tracks: the boxes of the track that is cut have one number before the cut and one after it.
    boxes = read_results(first.path / "mot" / "hall.txt")
    tracks = open_set(day).tracklets
    own = np.arange(*tracks.start[5:7])
    found = {
        (int(frame), round(float(box[0]), 2)): int(person)
        for frame, box, person in zip(boxes.frame, boxes.box, boxes.track, strict=True)
    }
    numbered = [found[int(tracks.frame[i]), round(float(tracks.box[i, 0]), 2)] for i in own]
    assert numbered == [number["5.1"]] * 20 + [number["5.2"]] * 20

    second = link.identities(new, [day, later], tmp_path / "b", earlier=first.path)
    again = {name_of(row): row["identity"] for row in second.rows if row["set_digest"] == digest}
    assert again == number
    assert second.manifest["decisions"] == 3
    journal = journal_path(new)
    notes = second.manifest["notes"]
    assert f"{first.path}: 2 decisions taken over into {journal}" in notes
    cut = (
        f"{first.path}: 1 cut taken over into {journal}; tracklearn index {new} SET --resume makes a gallery"
    )
    assert f"{cut} follow" in notes
    # Now they are this run's own: another table of it needs no older one, and says nothing of it.
    third = link.identities(new, [day], tmp_path / "c", earlier=second.path)
    assert {name_of(row): row["identity"] for row in third.rows} == number
    again = link.identities(new, [day], tmp_path / "c", earlier=first.path, resume=True)
    assert not any("taken over" in note for note in (*third.manifest["notes"], *again.manifest["notes"]))
    assert len(journal.read_text().splitlines()) == 3

    # The last word holds: what is said of the new table, or taken back there, stands against the older one.
    add_cut(journal, Place(digest, 5, 19), Place(digest, 5, 20), cut=False)
    fourth = link.identities(new, [day], tmp_path / "d", earlier=first.path, different=["1=2"])
    again = {name_of(row): row["identity"] for row in fourth.rows}
    assert again["1"] != again["2"]
    assert "5.1" not in again
    assert again["0"] != again["24"]
    assert fourth.word.decisions[-1].key[0] is False


def test_a_cut_gives_way_to_a_later_word(run, day, tmp_path):
    """The older run's track was cut by hand; of the new one's, somebody has said that both ends are one."""
    old, new = (run(day, name, set={"path": "../x", "digest": d * 64}, digest=d * 64) for name, d in ROLES)
    digest = open_set(day).digest
    add_cut(journal_path(old), Place(digest, 5, 19), Place(digest, 5, 20), cut=True)
    first = link.identities(old, [day], tmp_path / "a")
    assert {"5.1", "5.2"} <= {name_of(row) for row in first.rows}
    add_decisions(journal_path(new), [Decision(True, Place(digest, 5, 3), Place(digest, 5, 33))])
    second = link.identities(new, [day], tmp_path / "b", earlier=first.path)
    assert "5" in {name_of(row) for row in second.rows}
    assert not any("taken over" in note for note in second.manifest["notes"])
    assert read_cuts(journal_path(new)) == []


def test_only_what_is_about_the_sets_that_are_given_is_taken_over(run, day, tmp_path):
    old, new = (run(day, name, set={"path": "../x", "digest": d * 64}, digest=d * 64) for name, d in ROLES)
    later = film_of(tmp_path / "later", {"hall": visits(range(12), (300,))})
    first = link.identities(old, [day, later], tmp_path / "a", same=["1:0=1:24", "2:0=2:1"])
    assert len(first.word.decisions) == 2
    add_decisions(journal_path(new), [replace(first.word.decisions[1], same=False)])
    second = link.identities(new, [day], tmp_path / "b", earlier=first.path)
    assert [d.key for d in second.word.decisions] == [first.word.decisions[0].key]
    assert len(journal_path(new).read_text().splitlines()) == 2
    # Of the set that was not given nothing was taken over that would contradict its own word.
    third = link.identities(new, [day, later], tmp_path / "c", earlier=first.path)
    assert [(d.same, d.a.set) for d in third.word.decisions] == [
        (False, open_set(later).digest), (True, open_set(day).digest)
    ]  # fmt: skip


def test_decisions_go_with_the_table_where_the_journal_is_another(opened, run, day, tmp_path):
    """Kept in another file, or of a run of the same digest elsewhere; an older version kept none."""
    mine = tmp_path / "mine.jsonl"
    first = link.identities(opened, [day], tmp_path / "a", different=["0=24"], review=mine)
    second = link.identities(opened, [day], tmp_path / "b", earlier=first.path)
    assert [d.same for d in second.word.decisions] == [False]
    copy = run(day, "copy", set={"path": "../elsewhere", "digest": "9" * 64})
    third = link.identities(copy, [day], tmp_path / "c", earlier=second.path)
    assert [d.same for d in third.word.decisions] == [False]
    # What was taken back in the journal of a table stays so.
    journal_path(copy).unlink()
    assert link.identities(copy, [day], tmp_path / "d", earlier=third.path).word.decisions == ()
    manifest = json.loads((first.path / "manifest.json").read_text())
    del manifest["journal"], manifest["seal"], manifest["files"]["decisions.jsonl"]
    write_sealed(first.path / "manifest.json", manifest)
    fifth = link.identities(copy, [day], tmp_path / "e", earlier=first.path)
    assert any(
        "made by an older version, which kept no decisions" in note for note in fifth.manifest["notes"]
    )
    (second.path / "decisions.jsonl").write_text("{}")
    with pytest.raises(DamagedError, match=r"decisions.jsonl is damaged"):
        link.identities(copy, [day], tmp_path / "f", earlier=second.path)


def test_steps_of_a_review_outlive_the_gallery_of_a_run_that_is_trained_anew(run, day, tmp_path, monkeypatch):
    """Trained anew in place: the journal beside it is the same, the gallery with the steps has gone."""
    digest = open_set(day).digest
    step = Decision(False, Place(digest, 0, 3), Place(digest, 24, 203), step=1)
    path = run(day, "run", set={"path": "../x", "digest": "1" * 64}, digest="1" * 64)
    monkeypatch.setattr(decisions, "decided", lambda _: [step])
    first = link.identities(path, [day], tmp_path / "a", different=["1=13"])
    assert [d.key for d in first.word.decisions if d.step] == [step.key]
    shutil.rmtree(path)
    run(day, "run", set={"path": "../x", "digest": "2" * 64}, digest="2" * 64)
    monkeypatch.setattr(decisions, "decided", lambda _: [])
    lines = journal_path(path).read_text()
    journal_path(path).write_text("")  # what was in the journal was taken back meanwhile
    second = link.identities(path, [day], tmp_path / "b", earlier=first.path)
    assert [d.key for d in second.word.decisions] == [step.key]
    assert lines.count("\n") == 1
    # On a page somebody sees it otherwise now.
    monkeypatch.setattr(decisions, "decided", lambda _: [replace(step, same=True)])
    third = link.identities(path, [day], tmp_path / "c", earlier=second.path)
    number = {row["track"]: row["identity"] for row in third.rows}
    assert number[0] == number[24]


def test_what_another_footage_told_stays_in_the_run(tmp_path):
    from tracklearn.app.pipeline.run import _keep_calibration

    people, run = tmp_path / "identities", tmp_path / "run"
    people.mkdir()
    run.mkdir()
    (people / "calibration.json").write_text('{"within_camera": 1}')
    file = run / "calibration.json"
    for held, want in (
        (None, {"within_camera": 1, "sets": ["own"]}),
        ("[]", {"within_camera": 1, "sets": ["own"]}),
        ("{damaged", {"within_camera": 1, "sets": ["own"]}),
        ('{"within_camera": 2, "sets": ["own"], "asked": {"a": 3}}',
         {"within_camera": 1, "sets": ["own"], "asked": {"a": 3}}),
        ('{"within_camera": 2, "sets": ["other"]}', {"within_camera": 2, "sets": ["other"]}),
        ('{"within_camera": 2}', {"within_camera": 2}),  # an older version's: of whatever sets
    ):  # fmt: skip
        file.unlink(missing_ok=True)
        if held is not None:
            file.write_text(held)
        _keep_calibration(people, run, "own")
        assert json.loads(file.read_text()) == want


def test_contradictions_name_both(opened, day, tmp_path):
    link.identities(opened, [day], tmp_path / "a", same=["0=12", "12=24"])
    with pytest.raises(ValueError) as refused:
        link.identities(opened, [day], tmp_path / "b", different=["0=24"])
    journal = tmp_path / "run.review.jsonl"
    assert str(refused.value) == (
        f"0 and 24 are two people by --different and one by line 1 of {journal} and line 2 of {journal}: "
        "remove one of these decisions"
    )
    assert len(journal.read_text().splitlines()) == 2, "what was refused is not kept"
    assert not (tmp_path / "b").exists()
    with journal.open("a") as file:
        file.write(journal.read_text().splitlines()[0].replace('"same"', '"different"') + "\n")
    with pytest.raises(ValueError, match=r"two people by line 3 of .* and one by line 1 of"):
        link.identities(opened, [day], tmp_path / "b")


def test_an_old_identity_that_a_person_parts_stays_parted(opened, day, tmp_path):
    first = link.identities(opened, [day], tmp_path / "a")
    number = {row["track"]: row["identity"] for row in first.rows}
    second = link.identities(opened, [day], tmp_path / "b", earlier=tmp_path / "a", different=["0=24"])
    again = {row["track"]: row["identity"] for row in second.rows}
    assert again[0] != again[24]
    assert {again[0], again[24]} - {number[0]}, "one of them has a number of its own"
    assert all(again[t] == number[t] for t in range(48) if number[t] != number[0])
    assert second.manifest["changes"]["new"] == [13]
    moved = next(t for t in (0, 24) if again[t] != number[0])
    kept = 48 - sum(again[t] != number[t] for t in range(48))
    said = table.text(second).splitlines()
    assert f"{kept} of 48 known parts keep their numbers; 12 people known, 1 new" in said
    assert f"  {moved} was person {number[0]} and is person 13 now" in said


def test_cameras_without_a_shared_view(opened, tmp_path):
    """In both cameras at the same second: one person where views may be shared, else two."""
    start = {"hall": datetime(2026, 5, 1, 8), "yard": datetime(2026, 5, 1, 8)}
    day = film_of(tmp_path / "timed", {"hall": visits(range(12)), "yard": visits(range(12))}, start=start)
    rules = tmp_path / "cameras.toml"
    rules.write_text('[[apart]]\ncameras = ["hall", "yard"]\n')
    found = link.identities(opened, [day], tmp_path / "a", cameras=rules)
    of = {(r["camera"], r["track"] % 12, r["first_frame"]): r["identity"] for r in found.rows}
    assert all(of["hall", p, f] != of["yard", p, f] for p in range(12) for f in (0, 100))
    assert found.rows[0]["at"] == "2026-05-01T08:00:00.000"
    # Six seconds from the end of the first visit to the second: with twenty on the way, nobody can do it.
    rules.write_text('[[travel]]\nfrom = "hall"\nto = "yard"\nseconds = 20\n')
    found = link.identities(opened, [day], tmp_path / "b", cameras=rules)
    of = {(r["camera"], r["track"] % 12, r["first_frame"]): r["identity"] for r in found.rows}
    assert all(of["hall", p, 0] != of["yard", p, 100] for p in range(12))
    assert found.manifest["ways"] == [{"from": "hall", "to": "yard", "seconds": 20.0}]


def test_films_without_a_clock_can_be_said_to_begin_together(opened, day, tmp_path):
    rules = tmp_path / "cameras.toml"
    counts = []
    for text in ("", "together = true\n"):
        rules.write_text(text + '[[apart]]\ncameras = ["hall", "yard"]\n')
        found = link.identities(opened, [day], tmp_path / "out", cameras=rules, resume=True)
        counts.append(found.manifest["counts"]["people"])
    assert counts[0] == 12 < counts[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[apart]]\ncameras = ["hall", "yrad"]', r"camera 'yrad' is unknown: did you mean 'yard'\?"),
        ('[[apart]]\ncameras = ["hall"]', "expected a list of two or more"),
        ('[[apart]]\ncameras = ["hall", "hall"]', "names a camera twice"),
        ('[[travel]]\nfrom = "hall"\nto = "hall"\nseconds = 1', "is no way"),
        ('[[travel]]\nfrom = "hall"\nto = "yard"', "lacks seconds"),
        ('[[travel]]\nfrom = "hall"\nto = "yard"\nseconds = -1', "expected seconds from 0"),
        ('[[travel]]\nfrom = "hall"\nto = "yard"\nseconds = 1\n' * 2, "is given twice"),
        ("[travel]\nfrom = 1", r"write \[\[travel\]\]"),
        ("[[travle]]", r"'travle' is unknown: did you mean 'travel'\?"),
        ("together = 1", "expected true or false"),
        ("together = ", "not a TOML file"),
    ],
)
def test_rules_of_cameras_that_are_none(opened, day, tmp_path, text, message):
    (tmp_path / "cameras.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        link.identities(opened, [day], tmp_path / "out", cameras=tmp_path / "cameras.toml")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1, is no decision"),
        ('{"decision": "perhaps", "a": {"set": "", "track": 0, "frame": 0}, "b": {}}', "line 1"),
        ('{"decision": "same", "a": {"set": "x", "track": -1, "frame": 0}, "b": {}}', "no number from 0"),
        ("[1]", "is no decision"),
    ],
)
def test_a_line_that_is_no_decision_is_named(opened, day, tmp_path, line, message):
    (tmp_path / "run.review.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=message):
        link.identities(opened, [day], tmp_path / "out")


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("3", "is no pair of parts"),
        ("3=x", "names no part: expected TRACK or TRACK.PART"),
        ("3=99", "names no track: .* has 0 to 47"),
        ("3=4.2", "track 4 has 1"),
        ("2:3=4", "names set 2, and 1 are given"),
    ],
)
def test_parts_that_are_none(opened, day, tmp_path, pair, message):
    with pytest.raises(ValueError, match=message):
        link.identities(opened, [day], tmp_path / "out", same=[pair])


def test_sets_that_cannot_be_looked_through(opened, day, tmp_path):
    with pytest.raises(ValueError, match="is given twice"):
        link.identities(opened, [day, day], tmp_path / "out")
    with pytest.raises(ValueError, match="no set is given"):
        link.identities(opened, [], tmp_path / "out")
    empty = film_of(tmp_path / "empty", {"hall": []})
    with pytest.raises(ValueError, match="empty holds no tracks"):
        link.identities(opened, [empty], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_set_that_has_changed_since_training(run, day, tmp_path):
    own = run(day)
    day.rename(tmp_path / "moved")
    film_of(day, {"hall": visits(range(3))})
    with pytest.raises(ValueError, match=r"day has changed since .* learned from it: train again"):
        link.identities(own, [day], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_runs_own_set_is_taken_as_isolation_left_it(done, tmp_path, monkeypatch):
    from tracklearn.app.identities.footage import frame_features
    from tracklearn.app.model.of_run import isolated
    from tracklearn.store.runs import Run

    monkeypatch.setattr(link, "frame_features", frame_features)  # the run's own network
    run_path, set_path = done["out"] / "run", done["out"] / "set"
    found = link.identities(run_path, [set_path], tmp_path / "out", review=tmp_path / "review.jsonl")
    parts = isolated(Run(run_path), open_set(set_path))
    assert [row["n_crops"] for row in found.rows] == parts.length.tolist()
    assert [row["track"] for row in found.rows] == parts.source.tolist()
    split = [row for row in found.rows if row["n_parts"] > 1]
    assert split
    assert {row["part"] for row in split} >= {1, 2}


def test_a_scrap_goes_with_its_track_unless_that_person_is_beside_it(opened, day, tmp_path, monkeypatch):
    """The last ten frames of track 0, a second, are a part of their own."""
    from tracklearn.app.identities import footage

    def cut(_, one, *_also):
        part = np.zeros(one.tracklets.n_crops, np.int64)
        part[30:40] = 1
        return one.tracklets.split(part)

    monkeypatch.setattr(footage, "parts_of", cut)
    rows = link.identities(opened, [day], tmp_path / "a").rows
    assert [(row["track"], row["part"], row["n_crops"]) for row in rows[:3]] == [
        (0, 1, 30),
        (0, 2, 10),
        (1, 1, 40),
    ]
    assert rows[1]["how"] == "its track"
    assert rows[1]["identity"] == rows[0]["identity"]
    assert rows[1]["probability"] is None
    # A person says that 0.1 and 1 are one: 0.2, in view beside 1, is somebody else then, too short to tell.
    found = link.identities(opened, [day], tmp_path / "b", same=["0.1=1"])
    assert found.rows[0]["identity"] == found.rows[2]["identity"]
    assert (found.rows[1]["identity"], found.rows[1]["how"]) == (None, "nobody")
    assert found.manifest["counts"]["nobody"] == 1
    assert "10 boxes of nobody in particular are not in the corrected tracks" in found.manifest["notes"]
    # Asked about it, it stands for itself.
    found = link.identities(opened, [day], tmp_path / "c", same=["0.2=24"], different=["0.2=36"])
    assert found.rows[1]["how"] == "reviewed"


def test_two_cameras_with_one_name(opened, day, tmp_path):
    morning = datetime(2026, 5, 1, 8)
    sets = [
        film_of(
            tmp_path / name, {"hall": visits(range(n, n + 3))}, start={"hall": morning + timedelta(seconds=s)}
        )
        for name, n, s in (("one", 0, 0), ("two", 3, 5), ("three", 6, 60))
    ]
    with pytest.raises(ValueError, match=r"two cameras with one name: 'hall' of .*one and of .*two film at"):
        link.identities(opened, sets[:2], tmp_path / "out")
    found = link.identities(opened, [sets[0], sets[2]], tmp_path / "out")
    assert found.manifest["cameras"] == ["hall"]
    assert not any("one name" in note for note in found.manifest["notes"])
    # Where no clock tells, they may film at the same time, and nothing could say so.
    found = link.identities(opened, [sets[0], day], tmp_path / "unknown")
    assert [note for note in found.manifest["notes"] if "taken for one camera: hall;" in note]
    assert not any(
        "taken for" in note for note in link.identities(opened, [day], tmp_path / "o").manifest["notes"]
    )
    assert sorted(p.name for p in (tmp_path / "out" / "mot").iterdir()) == ["hall-1.txt", "hall-2.txt"]


def test_a_run_that_is_not_finished(opened, day, tmp_path):
    from tracklearn.store.runs import RunWriter

    with RunWriter(
        tmp_path / "begun", {"digest": "1" * 64, "set": {"path": "../day", "digest": "2" * 64}}
    ) as w:
        w.write_start({"a": np.zeros(1, np.float32)}, {})
    with pytest.raises(ValueError, match=r"begun is not finished: go on with"):
        link.identities(tmp_path / "begun", [day], tmp_path / "out")


def test_one_track_is_one_person(opened, tmp_path):
    one = film_of(tmp_path / "one", {"hall": [(3, 0)]})
    found = link.identities(opened, [one], tmp_path / "out")
    assert [(row["identity"], row["probability"], row["how"]) for row in found.rows] == [(1, None, "alone")]
    assert found.manifest["notes"][0] == CANNOT
    assert "1 pairs known as one person and 0 as two are too few" in found.manifest["notes"][1]


def test_where_nothing_was_learned_a_rate_cannot_be_told_but_a_distance_can(opened, tmp_path):
    few = film_of(tmp_path / "few", {"hall": visits(range(3))})
    assert link.identities(opened, [few], tmp_path / "a").manifest["counts"]["people"] == 6
    with pytest.raises(ValueError, match=r"cannot be told: 6 pairs .* give --distance"):
        link.identities(opened, [few], tmp_path / "b", false_merges=0.01)
    found = link.identities(opened, [few], tmp_path / "b", distance=0.8)
    assert found.manifest["counts"]["people"] == 3
    assert found.manifest["limits"]["within"] == found.manifest["limits"]["across"] == pytest.approx(0.68)
    assert found.manifest["limits"]["within_distance"] == pytest.approx(0.8)
    with pytest.raises(ValueError, match="--distance is 2, expected"):
        link.identities(opened, [few], tmp_path / "c", distance=2.0)


def test_features_that_tell_nobody_apart_are_not_trusted(opened, day, tmp_path, monkeypatch):
    def blind(footage, **_):
        x = np.random.default_rng(0).normal(size=(footage.tracks.n_crops, 16))
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    monkeypatch.setattr(link, "frame_features", blind)
    found = link.identities(opened, [day], tmp_path / "out")
    assert found.manifest["trusted"] is False
    assert found.manifest["notes"][0] == CANNOT
    assert "on the wrong side" in found.manifest["notes"][1]


@pytest.mark.parametrize(
    ("alike", "split", "first", "words"),
    [
        (0, 0.24, None, []),
        (2, 0.1, None, []),  # two pairs are none to conclude from
        (9, 0.1, "people are hardly told apart here", ["up to 35 % of the pairs that look like one person"]),
        (
            40,
            0.1,
            "people are hardly told apart here",
            ["40 of 264 pairs seen at the same moment look like one person, more than of all pairs"],
        ),
        (0, 0.3, "people are hardly told apart here", ["at least 30 % of the pairs that are one person"]),
        (9, 0.5, CANNOT, ["at least 50 % of the pairs", "up to 35 % of the pairs"]),
    ],
)
def test_words_are_as_strong_as_mistakes_are_many(
    opened, day, tmp_path, monkeypatch, alike, split, first, words
):
    from tracklearn.app.identities import table
    from tracklearn.core.identities import Mistakes

    taken = []

    def mistakes(known, same, apart):
        taken.append((len(same), len(apart)))
        return Mistakes(split, 264, alike, 0.0976 if alike > 2 else 0.01)

    monkeypatch.setattr(link, "mistakes", mistakes)
    found = link.identities(opened, [day], tmp_path / "out")
    assert taken == [(48, 264)]
    assert found.manifest["expected"]["split"] == split
    expected = found.manifest["expected"]
    assert expected["merged"] == pytest.approx(alike / 264 / expected["below"])
    assert found.manifest["doubted"] is (first is not None)
    assert found.manifest["trusted"] is (first != CANNOT)
    lines = table.text(found).splitlines()
    if first is None:
        assert found.manifest["notes"] == []
        assert lines[0] == "12 people in 48 parts of 48 tracks, 2 cameras"
        assert "probably the same person" in table.text(found)
        return
    assert lines[0].startswith(first)
    assert all(line.startswith(text) for line, text in zip(lines[1:], words, strict=False))
    assert lines[1 + len(words)].startswith("start from a re-ID network")
    assert lines[2 + len(words)].startswith("12 groups, each perhaps a person, in 48 parts")
    assert "probably" not in table.text(found)
    # Who takes a distance of his own is told too, and trusted.
    own = link.identities(opened, [day], tmp_path / "own", distance=0.8).manifest
    assert own["trusted"] is True
    assert own["notes"][0].startswith("joined below the distance that was given")
    assert own["notes"][1].startswith(words[0])


def test_folders_of_crops_calibrate_by_chance(opened, tmp_path):
    with SetWriter(tmp_path / "crops") as writer:
        part = writer.part("a" * 64, truth=True)
        for track in range(64):
            person = track % 32
            part.add(
                [encode_jpeg(np.full((16, 8, 3), 8 * person + 4, np.uint8))] * 8,
                camera="hall",
                frame=np.arange(8),
                time=np.zeros(8),
                box=np.tile([0, 0, 8, 16], (8, 1)),
                score=np.ones(8),
                pid=person,
            )
        part.finish({"camera": "hall", "kind": "crops", "status": "ok"})
        path = writer.finish({"stride": 1})
    found = link.identities(opened, [path], tmp_path / "out")
    assert one_to_one(persons(found, [path]))
    assert found.manifest["counts"]["people"] == 32
    assert json.loads((tmp_path / "out" / "calibration.json").read_text())["from"] == "chance"
    assert not (tmp_path / "out" / "mot").exists()


def test_nothing_of_others_is_written_over(opened, day, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("dear diary")
    for resume in (False, True):
        with pytest.raises(FileExistsError):
            link.identities(opened, [day], tmp_path / "mine", resume=resume)
    with pytest.raises(FileExistsError):
        link.identities(opened, [day], day, resume=True)
    link.identities(opened, [day], tmp_path / "out")
    with pytest.raises(FileExistsError, match="--resume"):
        link.identities(opened, [day], tmp_path / "out")
    before = Identities(tmp_path / "out").manifest
    # What is refused late leaves the table that was there.
    with pytest.raises(ValueError):
        link.identities(opened, [day], tmp_path / "out", resume=True, same=["0=99"])
    assert Identities(tmp_path / "out").manifest == before
    assert {p.name for p in tmp_path.iterdir() if "out" in p.name} == {"out"}
    link.identities(opened, [day], tmp_path / "out", resume=True, earlier=tmp_path / "out")
    assert Identities(tmp_path / "out").manifest["changes"]["parts_kept"] == 48


def test_a_damaged_table_is_named(opened, day, tmp_path):
    link.identities(opened, [day], tmp_path / "out")
    file = tmp_path / "out" / "identities.parquet"
    data = bytearray(file.read_bytes())
    data[40] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"identities\.parquet is damaged"):
        _ = Identities(tmp_path / "out").rows
    assert len(Identities(tmp_path / "out").damages()) == 1
    with pytest.raises(FileNotFoundError):
        Identities(tmp_path / "none")


def test_the_exact_solution_takes_part_where_it_is_asked_for(opened, day, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(link, "exact", lambda known, label: (called.append(len(known)) or label, 3))
    assert link.identities(opened, [day], tmp_path / "a").manifest["solved_better"] == 0
    assert link.identities(opened, [day], tmp_path / "b", solve=True).manifest["solved_better"] == 3
    assert called == [48]


def test_travel_times_are_learned_and_forbid(opened, tmp_path):
    """Forty people walk from hall to yard in 20 to 30 seconds; nobody is quicker than half of that."""
    start = {"hall": datetime(2026, 5, 1, 8), "yard": datetime(2026, 5, 1, 8)}
    people = range(30)
    hall = [(p, 60 * (p // 3)) for p in people]
    yard = [(p, 60 * (p // 3) + 40 + 200 + p) for p in people]
    day = film_of(tmp_path / "timed", {"hall": hall, "yard": yard}, start=start)
    found = link.identities(opened, [day], tmp_path / "a", learn_travel=True)
    assert one_to_one(persons(found, [day]))
    (way,) = found.manifest["ways"]
    assert (way["from"], way["to"]) == ("hall", "yard")
    assert 9 < way["seconds"] < 11


def test_commands(call, opened, day, tmp_path, monkeypatch):
    from tracklearn.app.identities import footage

    monkeypatch.setattr(footage, "frame_features", link.frame_features)
    code, out, _ = call("identities", opened, day, "--out", "a")
    assert code == 0
    assert out.splitlines()[0] == "12 people in 48 parts of 48 tracks, 2 cameras"
    assert "probably the same person, 0.9" in out
    assert out.splitlines()[-1] == "a"
    code, out, _ = call(
        "identities",
        opened,
        day,
        "--out",
        "b",
        "--from",
        "a",
        "--same",
        "0=1",
        "--false-merges",
        "2%",
        "--json",
    )
    result = json.loads(out.splitlines()[-1])
    # They are in view at once, twice: only these two tracks are one, and nobody else comes to either.
    assert result["changes"]["parts_kept"] < result["changes"]["parts_known"] == 48
    assert len((opened.parent / "run.review.jsonl").read_text().splitlines()) == 1
    assert call("check", "b")[1].strip() == "identities b: whole"
    for wrong in (
        ["--false-merges", "0"],
        ["--false-merges", "120%"],
        ["--distance", "1", "--false-merges", "1%"],
    ):
        code, out, err = call("identities", opened, day, "--out", "c", *wrong)
        assert (code, out, len(err.strip().splitlines())) == (2, "", 1)

    code, out, _ = call("calibrate", opened, day, "--false-merges", "2%")
    assert code == 0
    assert "within a camera: 48 pairs of one person" in out
    assert "across cameras, on features normalised by camera" in out
    assert "cosine similarity" in out
    code, out, _ = call("calibrate", opened, day, "--json")
    result = json.loads(out.splitlines()[-1])
    written = json.loads((opened / "calibration.json").read_text())
    assert result["within_camera"]["false_merges"] == written["within_camera"]["false_merges"]
    low, high = (result["within_camera"]["false_merges"][rate] for rate in ("0.01", "0.05"))
    assert 0 < low <= high < 2
    curve = result["within_camera"]["curve"]["probability"]
    assert curve == sorted(curve, reverse=True)
    code, _, err = call("calibrate", opened, day, "--false-merges", "0.01%")
    assert code == 2
    assert "pairs of two people cannot tell a rate of 0.01 % of false merges: ask for" in err


def test_run_ends_with_it_and_the_report_shows_it(done):
    out = done["out"]
    found = Identities(out / "identities")
    assert done["result"]["identities"] == out / "identities"
    page = (out / "report.html").read_text()
    section = page[page.index('<section id="people">') :].split("</section>")[0]
    counts = found.manifest["counts"]
    groups = f"{counts['people']} groups of parts, each perhaps a person, of {counts['parts']} parts in all"
    assert groups in section, "nobody was joined"
    assert CANNOT in section, "six people for twenty seconds"
    assert section.count("<rect ") == counts["parts"] - counts["nobody"]
    assert section.count("seen once") == counts["people"]
    # What distances mean here is in the run too, where tracking and pages look for it.
    told = json.loads((out / "identities" / "calibration.json").read_text())
    assert json.loads((done["result"]["run"] / "calibration.json").read_text()) == {
        **told,
        "sets": [open_set(done["result"]["set"]).digest],
    }


def test_the_report_puts_the_least_certain_side_by_side():
    from types import SimpleNamespace

    from tracklearn.app.report import people

    def row(identity, track, probability, crops):
        place = {"part": 1, "n_parts": 1, "camera": "hall", "start": 1.0, "end": 5.0, "crop": track}
        return {"identity": identity, "track": track, "probability": probability, "n_crops": crops, **place}

    rows = [
        row(1, 0, 0.99, 9),
        row(1, 1, 0.62, 4),
        row(2, 2, 0.8, 5),
        row(2, 3, 0.9, 6),
        row(None, 4, None, 5),
    ]
    data = SimpleNamespace(people={"rows": rows, "notes": []}, cameras=["hall"])
    made = people.section(data, SimpleNamespace(shot=str))
    assert [(p["likely"], p["ends"], p["caption"]) for p in made["doubtful"]][:2] == [
        ("probably 0.62", ["1", "0"], "#1 · #0"),
        ("probably 0.80", ["2", "3"], "#2 · #3"),
    ]
    doubted = SimpleNamespace(people={**data.people, "doubted": True}, cameras=["hall"])
    assert people.section(doubted, SimpleNamespace(shot=str))["doubtful"][1]["likely"] == "perhaps 0.80"
    assert [(p["number"], p["parts"], p["sure"]) for p in made["people"]] == [
        (1, 2, "from 0.62"),
        (2, 2, "from 0.80"),
    ]
    assert people.section(SimpleNamespace(people=None), None) is None
