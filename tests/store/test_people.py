"""Who is who in a gallery: steps are taken whole, back and again; nothing depends on rows."""

import threading

import numpy as np
import pytest
from tests.store.test_gallery import unit
from tests.store.test_gallery_sets import content, made

from tracklearn.store.files import DamagedError
from tracklearn.store.gallery.entries import PartKey
from tracklearn.store.gallery.people_file import as_bytes, in_file
from tracklearn.store.gallery.steps import Kept, Move, Naming, Step, from_plain, to_plain
from tracklearn.store.identities.journal import Decision, Place

A, B, C = (PartKey("a", track, 0, 9) for track in (1, 2, 3))


def row(part, identity, probability=0.8):
    names = dict(zip(("set_digest", "track", "first_frame", "last_frame"), part, strict=True))
    return names | {"identity": identity, "probability": probability, "how": "compared"}


@pytest.fixture
def people(tmp_path):
    opened = in_file(tmp_path / "p.sqlite")
    yield opened
    opened.close()


def who(people):
    return {PartKey(*r[:4]): r[4] for r in people.identities()}


def test_nothing_is_made_before_something_is_kept(people, tmp_path):
    assert (people.identities(), people.names(), people.steps(), people.adopted) == ([], {}, [], "")
    assert people.next_number() == 1
    assert people.damages() == []
    assert (people.undo(), people.redo()) == (None, None)
    assert not (tmp_path / "p.sqlite").exists()


def test_a_step_is_taken_back_and_again(people):
    people.adopt([row(A, 1), row(B, 2), row(C, None)], source="first")
    before = people.identities()
    merge = people.apply(
        Step("merge", moves=(Move(B, 2, 1),), names=(Naming(1, "", "Anna"),), note={"of": [1, 2]}, at="10:00")
    )
    split = people.apply(Step("split", moves=(Move(A, 1, people.next_number()), Move(C, None, 1))))
    assert (merge.number, split.number) == (1, 2)
    assert who(people) == {A: 3, B: 1, C: 1}
    assert people.names() == {1: "Anna"}
    assert people.next_number() == 4
    assert people.undo() == Step("split", split.moves, number=2, undone=True)
    assert who(people) == {A: 1, B: 1}
    assert people.undo().kind == "merge"
    assert people.identities() == before  # probabilities too
    assert people.names() == {}
    version = people.version
    assert people.undo() is None
    assert people.version == version, "nothing has changed"
    assert people.redo() == merge
    assert who(people) == {A: 1, B: 1}
    people.apply(Step("move", moves=(Move(A, 1, None),)))
    assert people.redo() is None  # what was taken back before is gone now
    assert [step.kind for step in people.steps()] == ["move", "merge"]
    assert people.steps(1)[0].moves == (Move(A, 1, None),)


def test_a_step_of_which_one_part_does_not_fit_changes_nothing(people):
    people.adopt([row(A, 1), row(B, 2)], source="first")
    with pytest.raises(ValueError, match=r"track 2, frames 0 to 9, is person 2 by now, not nobody"):
        people.apply(Step("move", moves=(Move(A, 1, 7), Move(B, None, 7))))
    with pytest.raises(ValueError, match="person 1 is called '' by now, not 'Eva'"):
        people.apply(Step("name", moves=(Move(A, 1, 7),), names=(Naming(1, "Eva", "Anna"),)))
    assert who(people) == {A: 1, B: 2}
    assert people.steps() == []


def test_what_was_decided_is_known_while_it_is_in_force(people):
    two = Decision(False, Place("a", 1, 4), Place("a", 2, 4))
    people.apply(Step("different", decisions=(two,)))
    people.apply(Step("same", decisions=(Decision(True, Place("a", 1, 4), Place("a", 3, 4)),)))
    assert [(d.same, d.step) for d in people.decisions()] == [(False, 1), (True, 2)]
    people.undo()
    assert [d.step for d in people.decisions()] == [1]
    assert two.to_dict() == people.decisions()[0].to_dict()


def test_a_new_table_leaves_names_and_steps(people):
    people.adopt([row(A, 1)], source="first")
    people.apply(Step("name", names=(Naming(1, "", "Anna"),)))
    people.adopt([row(A, 1), row(B, 1)], source="second")
    assert people.names() == {1: "Anna"}
    assert (people.adopted, len(people.steps())) == ("second", 1)


def test_parts_that_were_cut_anew_are_known_by_their_middle(tmp_path):
    opened = made(
        tmp_path / "g", content(unit(np.random.default_rng(0), 3, 4))
    )  # tracks 0-2, frames 100 t + 0-2
    rows = [row(PartKey("a", 0, 0, 0), 4), row(PartKey("a", 0, 1, 50), 5), row(PartKey("a", 2, 190, 300), 6)]
    opened.people.adopt(rows, source="s")
    found = opened.people.assigned(opened.entries)
    assert found.person.tolist() == [5, -1, 6]
    assert found.how == ["compared", "", "compared"]
    assert found.probability[[0, 2]].tolist() == [0.8, 0.8]
    opened.people.apply(Step("move", moves=(Move(PartKey("a", 2, 190, 300), 6, 5),)))
    assert opened.people.assigned(opened.entries).person.tolist() == [5, -1, 5]
    opened.close()


def test_threads_lose_no_step(people):
    people.adopt([row(PartKey("a", t, 0, 9), 1) for t in range(40)], source="s")

    def work(first):
        for t in range(first, first + 10):
            people.apply(Step("move", moves=(Move(PartKey("a", t, 0, 9), 1, 100 + t),)))

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 10, 20, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(step.number for step in people.steps()) == list(range(1, 41))
    assert sorted(who(people).values()) == list(range(100, 140))


def test_a_file_written_anew_holds_the_same(people, tmp_path):
    people.adopt([row(A, 1), row(B, 2, None)], source="s")
    people.apply(Step("name", names=(Naming(1, "", "Anna"),), note={"x": [1]}, at="10:00"))
    kept = people.kept()
    (tmp_path / "q.sqlite").write_bytes(as_bytes(kept))
    other = in_file(tmp_path / "q.sqlite")
    assert other.identities() == people.identities()
    assert (other.names(), other.adopted) == ({1: "Anna"}, "s")
    assert [(s.number, s.kind, s.note, s.at) for s in other.steps()] == [(1, "name", {"x": [1]}, "10:00")]
    assert other.damages() == []
    other.put(Kept())
    assert other.identities() == other.steps() == []
    other.close()
    assert as_bytes(kept) == as_bytes(kept)
    assert from_plain(to_plain(kept)).identities == kept.identities


def test_a_file_that_is_none_is_named(tmp_path):
    (tmp_path / "p.sqlite").write_bytes(b"no data base, however long it is" * 20)
    opened = in_file(tmp_path / "p.sqlite")
    with pytest.raises(
        DamagedError, match=r"p\.sqlite cannot be read .*: put it back from a copy, or remove it"
    ):
        opened.identities()
    assert "p.sqlite cannot be read" in opened.damages()[0]


def test_many_that_ask_who_is_who_wait_for_the_first(people, tmp_path, monkeypatch):
    opened = made(tmp_path / "g", content(unit(np.random.default_rng(0), 30, 4), digest="a"))
    parts = opened.entries.keys()
    assert opened.entries.keys() is parts
    asked, begun, go_on = [], threading.Event(), threading.Event()
    plain = type(people).identities

    def slow(self):
        asked.append(1)
        begun.set()
        assert go_on.wait(60)
        return plain(self)

    monkeypatch.setattr(type(people), "identities", slow)
    found = []
    for round_ in (1, 2):
        monkeypatch.undo()
        people.adopt([row(parts[3], round_)], source=f"{round_}")
        monkeypatch.setattr(type(people), "identities", slow)
        threads = [
            threading.Thread(target=lambda: found.append(people.assigned(opened.entries))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        assert begun.wait(60)
        go_on.set()
        for thread in threads:
            thread.join()
        assert len(asked) == round_
        assert [got.person[3] for got in found] == [round_] * 8
        found.clear()
        begun.clear()
        go_on.clear()
