"""Forgetting: what is said before, what is gone afterwards to the last byte, what stays and still works."""

import json
import shutil
from datetime import date

import numpy as np
import pytest

from tests.app.far_workers import Backwards
from tests.app.forgettable import CROPS, build, order, person_of, tree, write_run, write_set
from tests.postgres_server import server, why_not
from tracklearn.app import check, forget, people
from tracklearn.app.model import shards
from tracklearn.app.model.of_run import isolated, learned_from
from tracklearn.app.report.of_run import report
from tracklearn.app.search import index
from tracklearn.app.search.searcher import Searcher
from tracklearn.core import heads
from tracklearn.core.heads import Directions, directions
from tracklearn.core.scan import quantise
from tracklearn.store.gallery import database, incoming, segment
from tracklearn.store.gallery.folder import people_path
from tracklearn.store.gallery.open import open_gallery
from tracklearn.store.gallery.steps import Move, Naming, Step
from tracklearn.store.identities.folder import Identities
from tracklearn.store.identities.journal import journal_path, read_journal, read_word
from tracklearn.store.runs import Run
from tracklearn.store.sets.tracklets import open_set, read_truth
from tracklearn.types import Refusal

COMMAND = ["forget"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An output folder, its gallery with 8-bit rows and heads, of which tests take copies."""
    with pytest.MonkeyPatch.context() as patch:
        large(patch)
        return build(tmp_path_factory.mktemp("forget") / "out")


def large(patch):
    """Galleries have all that large ones have."""
    some = lambda rows, n: Directions.of(directions(rows, 16))  # noqa: E731
    patch.setattr(segment, "CODED", 1)
    patch.setattr(segment, "HEADED", 1)
    patch.setattr(heads, "choose", some)


@pytest.fixture
def out(whole, tmp_path, monkeypatch):
    large(monkeypatch)
    return shutil.copytree(whole, tmp_path / "out")


def rows_of(opened, track):
    return np.arange(*opened.tracklets.start[track : track + 2])


def test_a_preview_tells_all_and_changes_nothing(out, call):
    before = tree(out)
    number = order(out / "set")
    person = person_of(out, 0)
    assert person == person_of(out, 2) == person_of(out, 4, 1) != person_of(out, 4, 2)
    plan = forget.preview(out / "run", person=person)
    # Two whole tracks, a part of the third, and the crop of it that isolation dropped.
    assert plan.counts == {
        "crops": 2 * CROPS + 4,
        "tracks": 3,
        "entries": 3,
        "rows": 3,
        "people_pictures": 1,
        "journal_lines": 2,
        "steps": 0,
        "truth_rows": 2 * CROPS + 4,
    }
    told = plan.to_dict()
    assert [(s["crops"], s["tracks"]) for s in told["sets"]] == [(16, 3)]
    run = out / "run"
    picture = out / "identities" / "people" / f"{person:04d}.jpg"
    timeline = out / "identities" / "timeline.svg"
    gone = [run / "report.html", run / "searches", out / "report.html", picture, timeline]
    assert sorted(told["gone"]) == sorted(map(str, gone))
    assert sorted(told["retrain"]) == [str(run / "export" / "onnx"), str(run / "weights.safetensors")]
    assert any("hall.mp4, yard.mp4" in line for line in told["stays"])
    code, text, _ = call(run, person, "--dry-run")
    assert code == 0
    assert "16 crops of 3 tracks" in text
    assert "train anew, export again" in text
    code, _, err = call(run, person)
    assert code == 2
    assert "look at it with --dry-run, then say --yes" in err
    assert tree(out) == before
    assert number[0] == 0


def test_a_person_is_gone_to_the_last_byte(out, call):
    run, person, number = out / "run", person_of(out, 0), order(out / "set")
    opened, gallery = open_set(out / "set"), open_gallery(run / "gallery")
    keep = np.ones(opened.n_crops, bool)
    keep[np.r_[rows_of(opened, number[0]), rows_of(opened, number[2])]] = False
    keep[rows_of(opened, number[4])[:4]] = False
    secret = [opened.jpeg(int(row)) for row in np.flatnonzero(~keep)]
    mine = [i for i, key in enumerate(gallery.entries.keys()) if key.track in (number[0], number[2])]
    mine += [gallery.rows_of(number[4])[0]]
    features = [gallery.feature(int(row)) for row in mine]
    isolation = Run(run).isolation()[0]
    features += list(isolation["feature"][~keep[isolation["row"]]])
    assert len(features) == 3 + 4
    for feature in features:
        secret += [feature.tobytes(), feature.astype(np.float16).tobytes()]
    secret += [quantise(gallery.feature(int(row))[None])[0].tobytes() for row in mine]
    (along,) = [segment.along for segment in gallery.segments]
    secret += [heads.encode(gallery.feature(int(row))[None], along)[0].tobytes() for row in mine]
    kept = [opened.jpeg(int(row)) for row in np.flatnonzero(keep)]
    names = {h.name: h.distance for h in Searcher(run).search(str(number[1]), k=99).hits}
    # What is in SQLite lies in its log still, and in a page that was free before.
    known = people.current(run, gallery)
    known.apply(Step("name", names=(Naming(person, "", "Anna Livia Plurabelle"),)))
    part = next(key for key in list(gallery.entries.keys()) if key.track == number[0])
    known.apply(Step("move", moves=(Move(part, person, person),), note={"why": "a beard like his"}))
    gallery.close()
    secret += [b"Anna Livia Plurabelle", b"a beard like his"]
    assert any(secret[-1] in data for data in tree(out).values())

    code, text, err = call(run, person, "--yes", "--json")
    assert (code, err) == (0, "")
    told = json.loads(text.splitlines()[-1])
    assert told["counts"]["steps"] == 2
    left = tree(out)
    for blob in secret:
        assert not [path for path, data in left.items() if blob in data]
    for blob in kept:
        assert [path for path, data in left.items() if blob in data]
    assert not [path for path in left if ".forget" in path or "-wal" in path or "-shm" in path]

    # What stays is whole and works, by the same names.
    assert [(c.kind, c.damages) for c in check.check(out) if c.damages] == []
    now = open_set(out / "set")
    assert now.digest != opened.digest
    assert [now.jpeg(i) for i in range(now.n_crops)] == kept
    assert np.array_equal(now.tracklets.frame, opened.tracklets.frame[keep])
    assert len(now.tracklets) == len(opened.tracklets)
    assert now.tracklets.length[[number[0], number[2], number[4]]].tolist() == [0, 0, 2]
    assert np.array_equal(read_truth(out / "set").pid, _pids(opened, keep))
    after = Run(run)
    isolated = now.tracklets.split(after.isolation()[0]["part"])
    assert [len(labels) for labels in after.labels] == [len(isolated)] * 2
    assert after.labels[0].tolist() == [1, 2, 4, 6] or len(set(after.labels[0].tolist())) == len(isolated)
    assert after.kept() == {}
    found = {h.name: h.distance for h in Searcher(run).search(str(number[1]), k=99).hits}
    assert found == {n: d for n, d in names.items() if n in found}
    assert len(found) == len(names) - 2
    assert f"{number[4]}.2" in found
    rows = Identities(out / "identities").rows
    assert person not in {row["identity"] for row in rows}
    assert len(rows) == 4
    assert all(now.jpeg(row["crop"]) for row in rows)
    journal = journal_path(run)
    assert [d.a.set for d in read_journal(journal)] == [now.digest] * 2
    assert Identities(out / "identities").word == read_word(journal)
    assert Identities(out / "identities").damages() == []
    assert f",{person}," not in b"".join(d for p, d in left.items() if "/mot/" in p).decode()
    (record,) = forget.forgotten(run)
    assert (record["person"], record["counts"]["crops"]) == (person, 16)
    assert people.current(run, open_gallery(run / "gallery")).names() == {}
    page = report(run, resume=True)
    assert page.is_file()
    code, _, err = call(run, person, "--yes")
    assert code == 2
    assert f"there is no person {person}" in err


def test_journals_of_other_runs_lose_their_lines_too(out, call):
    """A run that never learned from the set knows what was said of it, by the table that it went on from."""
    run, journal = out / "run", out / "later.review.jsonl"
    shutil.copy(journal_path(run), journal)
    strange = out / "strange.review.jsonl"
    strange.write_text("not a line of a journal\n")
    assert call(run, person_of(out, 0), "--yes")[0] == 0
    assert journal.read_bytes() == journal_path(run).read_bytes()
    assert len(read_journal(journal)) == 2
    assert strange.read_text() == "not a line of a journal\n"


def _pids(opened, keep):
    who = {0: "A", 1: "B", 2: "C"}
    tracks = (("hall", "A"), ("hall", "B"), ("yard", "A"), ("yard", "C"), ("yard", "AB"), ("hall", "C"))
    number = {n: t for t, n in order(None).items()}
    pid = []
    for track in range(len(opened.tracklets)):
        name = tracks[number[track]][1]
        pid += [0, 0, 0, 0, 1, 1] if len(name) == 2 else [{v: k for k, v in who.items()}[name]] * CROPS
    return np.array(pid)[keep].tolist()


def test_a_person_who_was_edited_in_the_gallery_is_that_one(out):
    run, number = out / "run", order(out / "set")
    with open_gallery(run / "gallery") as gallery:
        known = people.current(run, gallery)
        part = next(key for key in list(gallery.entries.keys()) if key.track == number[2])
        known.apply(Step("move", moves=(Move(part, person_of(out, 0), 77),)))
        other = known.decisions()
    assert other == []
    done = forget.forget(run, person=77)
    assert done.record["counts"]["crops"] == CROPS
    with open_gallery(run / "gallery") as gallery:
        # The table beside the run is no newer than what was edited here.
        assert 77 not in set(gallery.persons(gallery.entries.row).tolist())
        assert len(people.current(run, gallery).steps()) == 0
        assert person_of(out, 1) in gallery.persons(gallery.entries.row).tolist()


def test_all_of_a_camera_goes(out):
    run = out / "run"
    with pytest.raises(ValueError, match="no camera named 'attic', expected one of: hall, yard"):
        forget.preview(run, camera="attic")
    done = forget.forget(run, camera="yard")
    counts = done.record["counts"]
    assert [counts[name] for name in ("crops", "tracks", "entries", "rows")] == [18, 3, 4, 4]
    now = open_set(out / "set")
    assert now.tracklets.length.tolist() == [CROPS] * 3 + [0] * 3
    assert open_gallery(run / "gallery").entries.camera == ("hall",) * 3
    assert [c for c in check.check(out) if c.damages] == []
    with pytest.raises(ValueError, match="camera yard: nothing of it is in the sets"):
        forget.forget(run, camera="yard")
    forget.forget(run, camera="hall")  # nothing is left at all
    assert open_set(out / "set").n_crops == 0
    assert not (run / "gallery").exists()
    assert [r["camera"] for r in forget.forgotten(run)] == ["yard", "hall"]


def test_what_was_filmed_before_a_moment_goes(out):
    run, number = out / "run", order(out / "set")
    with pytest.raises(ValueError, match="'May' is no date: expected 2026-05-01"):
        forget.preview(run, before="May")
    with pytest.raises(ValueError, match="nothing of it is in the sets"):
        forget.preview(run, before=date(2026, 5, 1))
    # hall began at 8:00, yard at 9:00: track 1 of hall is in view from 10.0 s on, six crops a tenth apart.
    plan = forget.preview(run, before="2026-05-01T08:00:10.25")
    assert plan.counts["crops"] == CROPS + 3
    assert plan.counts["entries"] == 2  # the feature of a part of which half goes is no mean of the rest
    assert forget.preview(run, camera="yard", before="2026-05-01T09:00:30.05").counts["crops"] == CROPS + 1
    other_zone = forget.preview(run, before="2026-05-01T07:30:00+01:00")
    assert other_zone.counts["crops"] == 18
    forget.forget(run, before="2026-05-01T08:00:10.25")
    now = open_set(out / "set")
    assert now.tracklets.length[[number[0], number[1], number[5]]].tolist() == [0, 3, CROPS]
    assert [c for c in check.check(out) if c.damages] == []


def test_sets_of_unknown_beginning_stay_and_are_named(tmp_path):
    set_path = write_set(tmp_path / "set", start=None)
    run = write_run(tmp_path / "run", set_path)
    with pytest.raises(ValueError, match="nothing of it is in the sets"):
        forget.preview(run, before="2030-01-01")


def test_what_cannot_be_is_refused(out, tmp_path):
    run = out / "run"
    for options, message in (
        ({}, "nothing is asked for"),
        ({"person": 1, "camera": "hall"}, "a person is forgotten everywhere"),
        ({"person": 99}, "there is no person 99: the numbers are 1 to 3"),
    ):
        with pytest.raises(ValueError, match=message):
            forget.preview(run, **options)
    write_run(out / "later", out / "set", finished=False)
    with pytest.raises(ValueError, match=r"later learns from .* and is not finished"):
        forget.preview(run, person=1)
    shutil.rmtree(out / "later")
    shutil.rmtree(out / "identities")
    with pytest.raises(ValueError, match="nobody is told apart yet"):
        forget.preview(run, person=1)


def test_another_run_of_the_same_set_is_seen_to(out):
    write_run(out / "second", out / "set")
    plan = forget.preview(out / "run", camera="yard")
    assert [p.path.name for p in plan.runs] == ["run", "second"]
    assert str(out / "second" / "weights.safetensors") in plan.to_dict()["retrain"]
    forget.forget(out / "run", camera="yard")
    now = open_set(out / "set")
    for name in ("run", "second"):
        parts = Run(out / name).isolation()[0]["part"]
        assert len(parts) == now.n_crops
        assert Run(out / name).manifest["set"]["digest"] == now.digest
    assert [c for c in check.check(out) if c.damages] == []


@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(why_not()), reason=why_not() or "none")
def test_a_person_goes_from_a_database_too(tmp_path):
    with server() as url:
        out = build(tmp_path / "out", gallery=f"{url}#house")
        run, person = out / "run", person_of(out, 0)
        searcher = Searcher(run)
        assert searcher.gallery.where.endswith("#house")
        known = people.current(run, searcher.gallery)
        known.apply(Step("name", names=(Naming(person, "", "Anna"),)))
        searcher.gallery.close()
        assert not people_path(run / "gallery").exists()
        done = forget.forget(run, person=person)
        assert (done.record["counts"]["entries"], done.record["counts"]["steps"]) == (3, 1)
        after = Searcher(run)
        assert len(after.gallery) == 4
        assert {h.name for h in after.search(1, k=99).hits} == {"2", "4", "5.2"}
        assert all(hit is not None for hit in after.search(1, k=99).pictures)
        assert after.gallery.people.names() == {}
        assert after.gallery.sets[0].digest == open_set(out / "set").digest
        after.gallery.close()


@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(why_not()), reason=why_not() or "none")
def test_what_an_indexing_sent_that_was_broken_off_goes_too(out, monkeypatch):
    """Into a database that holds no gallery yet, and has none of the run's."""

    class BrokenOff(Backwards):
        def run(self, *arguments, **options):
            yield next(super().run(*arguments, **options))
            raise KeyboardInterrupt

    run, person = out / "run", person_of(out, 0)
    monkeypatch.setattr(shards, "BATCH", 8)
    monkeypatch.setattr(shards, "SHARD", 16)
    with server() as url:
        place = f"{url}#first"
        monkeypatch.setattr(index, "engine_of", lambda on, workers: BrokenOff())
        with pytest.raises(KeyboardInterrupt):
            index.index(run, out / "set", gallery=place, device="cpu", workers=2)
        assert incoming.waiting(place)
        assert Searcher(run).path == run / "gallery"  # which is there
        plan = forget.preview(run, person=person)
        assert plan.sent == [place]
        assert f"all that workers sent to {place} and no gallery took in" in plan.text()
        with database.reserved(place), monkeypatch.context() as other:
            other.setattr(database, "_PROCESS", "another")
            with pytest.raises(Refusal, match="another process indexes into"):
                forget.forget(run, person=person)
        assert incoming.waiting(place)
        forget.forget(run, person=person)
        assert not incoming.waiting(place)
        shutil.rmtree(run / "gallery")
        with pytest.raises(FileNotFoundError, match="has no gallery yet"):
            Searcher(run)
    with pytest.raises(Refusal, match=r"may lie there\. Where that database is gone for good, remove"):
        forget.preview(run, camera="hall")


def test_a_run_of_several_sets_loses_what_one_of_them_loses(tmp_path):
    old = write_set(tmp_path / "old")
    new = write_set(tmp_path / "new", start="2026-05-02T08:00:00+02:00", seed=500)
    run = write_run(tmp_path / "run", old, new)
    before, whole = Run(run), learned_from(Run(run))
    part, names = before.isolation()[0]["part"], whole.cameras
    t = whole.tracklets
    hall = names.index("hall")
    keep = (t.camid[t.tracklet] != hall) | (np.arange(whole.n_crops) >= open_set(old).n_crops)
    gone = forget.forget(run, camera="hall", before=date(2026, 5, 2))
    assert gone.record["counts"]["crops"] == int((~keep).sum()) == 3 * CROPS
    after = Run(run)
    assert [entry["digest"] for entry in after.sets] == [open_set(old).digest, open_set(new).digest]
    assert after.sets[1] == before.sets[1]
    now = learned_from(after)
    assert now.digest == after.manifest["set"]["digest"] != before.manifest["set"]["digest"]
    assert after.isolation()[0]["part"].tolist() == part[keep].tolist()
    parts = isolated(after, now)
    assert [len(labels) for labels in after.labels] == [len(parts)] * 2
    # The parts of each set by itself are those of both, one after the other.
    alone = [isolated(after, open_set(path)) for path in (old, new)]
    assert sum(map(len, alone)) == len(parts)
    assert np.concatenate([each.length for each in alone]).tolist() == parts.length.tolist()
