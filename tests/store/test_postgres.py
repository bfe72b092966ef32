"""The gallery in a real PostgreSQL with pgvector: as the folder does, its graph measured."""

from dataclasses import replace

import numpy as np
import pytest
from tests.postgres_server import server, why_not
from tests.store.test_gallery import brute, nearest_of_each, unit
from tests.store.test_gallery_sets import content
from tests.store.test_people import A, B, row

from tracklearn.store.gallery import database as sql
from tracklearn.store.gallery import folder, incoming, postgres
from tracklearn.store.gallery.entries import PartKey, Sent
from tracklearn.store.gallery.open import create_gallery, open_gallery
from tracklearn.store.gallery.steps import Move, Naming, Step, to_plain
from tracklearn.types import Refusal

pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "none"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def database():
    with server() as url:
        yield url


@pytest.fixture
def place(database, request):
    """A gallery of the test's own."""
    return f"{database}#t{abs(hash(request.node.name)) % 10**9}"


def both(tmp_path, place, *contents):
    """The same gallery in a folder and in the database."""
    made = [create_gallery(where, contents, origin={"run": "abc"}) for where in (tmp_path / "g", place)]
    assert isinstance(made[1], postgres.PostgresGallery)
    return made


def test_searches_find_what_the_folder_finds(tmp_path, place):
    rng = np.random.default_rng(0)
    a, b = unit(rng, 120, 16), unit(rng, 90, 16)
    track = rng.integers(0, 30, 120)
    here, there = both(
        tmp_path,
        place,
        content(a, digest="a", track=track, score=rng.uniform(0.3, 1, 120)),
        content(b, digest="b", cameras=("yard", "hall")),
    )
    assert (there.width, len(there), there.cameras, there.sets) == (16, 210, here.cameras, here.sets)
    for name in ("row", "set", "source", "part", "n_parts", "camid", "start", "end", "crop", "quality"):
        assert np.array_equal(getattr(here.entries, name), getattr(there.entries, name)), name
    assert here.entries.camera == there.entries.camera
    assert here.entries.keys() == there.entries.keys()
    assert there.rows_of(3).tolist() == here.rows_of(3).tolist()
    assert np.array_equal(there.feature(7), a[7])
    rows = np.array([150, 3, 77])
    assert there.take(rows).keys() == here.take(rows).keys()
    query = unit(rng, 5, 16)
    own = rng.integers(-1, 210, (5, 6))
    for options in (
        {},
        {"one_a_track": True},
        {"exclude": own},
        {"camera": "hall", "one_a_track": True},
        {"since": 300.0, "until": 700.0},
        {"min_quality": 0.6},
        {"sets": [1], "exclude": own},
    ):
        want = here.search(query, 8, **options)
        for exact in (True, False):  # a graph of 210 entries leads to all of them
            found = there.search(query, 8, exact=exact, **options)
            assert np.array_equal(found.index, want.index), options
            assert np.allclose(found.distance, want.distance, atol=1e-6)
    with pytest.raises(ValueError, match="no camera named 'none'"):
        there.search(query, 1, camera="none")
    there.close()


def test_features_that_workers_sent_make_the_same_gallery(place):
    """In any order, some of them twice; what is not there is missed, and nothing is left of them."""
    rng = np.random.default_rng(1)
    a, b = unit(rng, 90, 16), unit(rng, 40, 16)
    whole = [content(a, digest="a", track=rng.integers(0, 30, 90)), content(b, digest="b")]
    sent = [
        replace(one, features=Sent(name, 16)) for one, name in zip(whole, ("first", "second"), strict=True)
    ]
    assert not incoming.expect(place, "first", 90).any()
    incoming.expect(place, "second", 40)
    incoming.send(place, "second", np.arange(40), b)
    for part in (np.arange(50, 90), np.arange(20, 60), np.arange(0, 20)):
        incoming.send(place, "first", part, unit(rng, len(part), 16))
        incoming.send(place, "first", part, a[part])
    assert incoming.expect(place, "first", 90).all()
    with create_gallery(place, sent, origin={"run": "abc"}) as made:
        rows = [made.feature(row) for row in range(130)]
        assert np.array_equal(rows, np.concatenate([a, b]))
        want = create_gallery(f"{place}x", whole, origin={"run": "abc"})
        for name in ("row", "set", "source", "part", "camid", "start", "end", "crop"):
            assert np.array_equal(getattr(made.entries, name), getattr(want.entries, name)), name
        assert made.entries.camera == want.entries.camera
        assert not incoming.expect(place, "first", 90).any()
        incoming.send(place, "first", np.arange(89), a[:89])
        with pytest.raises(ValueError, match="1 of 90 features that workers sent are not in the database"):
            made.add([sent[0]])
        assert incoming.expect(place, "first", 90).sum() == 89  # all or none
        assert len(made) == 130
        with pytest.raises(ValueError, match="length"):
            incoming.send(place, "first", np.arange(2), 2 * a[:2])
        # Whom a broken-off indexing sent is forgotten with the rest.
        postgres.change(place, {"delete": [], "crop": [], "sets": {}, "people": to_plain(want.people.kept())})
        assert not incoming.expect(place, "first", 90).any()
        want.close()


def test_tables_of_others_stay(database, place):
    """In the schema that everybody sees, and in one that is named by mistake."""
    rng = np.random.default_rng(0)
    names = ("entry", "gallery_set", "incoming", "awaited", "meta", "identity", "name", "step")
    with sql.connect(database, "public", make=True) as theirs:
        for name in names:
            theirs.execute(f"CREATE TABLE public.{name} (own TEXT)")
            theirs.execute(f"INSERT INTO public.{name} VALUES ('kept')")
        try:
            with create_gallery(place, [content(unit(rng, 5, 8), digest="a")], origin={}) as made:
                made.add([content(unit(rng, 4, 8), digest="b")])
                what = {"delete": [1], "crop": [], "sets": {}, "people": to_plain(made.people.kept())}
            assert not incoming.waiting(place)
            for change in (what, {}):
                postgres.change(place, change)
            create_gallery(place, [content(unit(rng, 5, 8))], origin={}, replace=True).close()
            for name in names:
                assert theirs.execute(f"SELECT own FROM public.{name}").fetchall() == [("kept",)], name
            with pytest.raises(ValueError, match=r"schema public holds tables of another program \(awaited"):
                create_gallery(f"{database}#public", [content(unit(rng, 5, 8))], origin={}, replace=True)
            assert theirs.execute("SELECT own FROM public.entry").fetchall() == [("kept",)]
        finally:
            for name in names:
                theirs.execute(f"DROP TABLE public.{name}")


def test_a_gallery_stays_whole_when_another_cannot_take_its_place(place):
    rng = np.random.default_rng(0)
    features = unit(rng, 5, 8)
    made = create_gallery(place, [content(features, digest="a")], origin={"run": "abc"})
    incoming.expect(place, "some", 5)
    incoming.send(place, "some", np.arange(3), features[:3])
    lacking = replace(content(features, digest="a"), features=Sent("some", 8))
    with pytest.raises(ValueError, match="2 of 5 features that workers sent are not in the database"):
        create_gallery(place, [lacking], origin={"run": "other"}, replace=True)
    with open_gallery(place) as found:
        assert (len(found), found.indexed, found.origin) == (5, True, {"run": "abc"})
        assert not found.stale
    made.close()


def test_one_process_at_a_time_indexes_into_a_gallery(place, monkeypatch):
    same = place.replace("postgres@", "postgres:any@")  # the same database by another address
    with sql.reserved(place):
        with sql.reserved(same):
            pass
        monkeypatch.setattr(sql, "_PROCESS", "another")
        for where in (place, same):
            with pytest.raises(ValueError, match="another process indexes into"), sql.reserved(where):
                pass
        with sql.reserved(f"{place}x"):
            pass
    with sql.reserved(place):  # free again
        pass


def test_nothing_on_its_way_outlives_what_is_taken_in_or_forgotten(database, place):
    rng = np.random.default_rng(0)
    features = unit(rng, 5, 8)

    def on_its_way():
        for name in ("before", "other"):
            incoming.expect(place, name, 5)
            incoming.send(place, name, np.arange(3), features[:3])
        assert incoming.waiting(place)

    on_its_way()
    with create_gallery(place, [content(features, digest="a")], origin={}) as made:
        assert not incoming.waiting(place)
        on_its_way()
        made.add([content(features, digest="b")])
        assert not incoming.waiting(place)
        on_its_way()
        postgres.change(place, {})
        assert not incoming.waiting(place)
        assert len(made) == 10
        with pytest.raises(ValueError, match="nobody waits for these features any more"):
            incoming.send(place, "before", np.arange(3), features[:3])  # by a worker that outlived it
        assert made._read("SELECT count(*) FROM incoming") == [(0,)]
    assert not incoming.waiting(f"{database}#nothing_there")


def test_workers_outlive_a_lost_connection_and_say_what_the_database_says(database, place):
    features = unit(np.random.default_rng(0), 5, 8)
    incoming.expect(place, "some", 5)
    incoming.send(place, "some", np.arange(2), features[:2])
    with sql.connect(*sql.split_url(place)) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [incoming._opened(place).info.backend_pid])
        incoming.send(place, "some", np.arange(2, 5), features[2:])
        assert incoming.expect(place, "some", 5).all()
        other.execute("ALTER TABLE incoming ADD COLUMN more INT CHECK (more > 0) DEFAULT 1")
        other.execute("ALTER TABLE incoming ALTER COLUMN more SET DEFAULT 0")
        with pytest.raises(ValueError, match="refuses what workers send") as said:
            incoming.send(place, "some", np.arange(2), features[:2])
        assert isinstance(said.value, Refusal)


def test_the_graph_is_measured_against_all(place):
    rng = np.random.default_rng(1)
    features = unit(rng, 1200, 12)
    made = create_gallery(place, [content(features)], origin={})
    text = "EXPLAIN SELECT id FROM entry ORDER BY feature OPERATOR(public.<->) %s LIMIT 10"
    assert "entry_near" in "\n".join(line for (line,) in made._read(text, features[0]))
    assert made.recall(queries=12) >= 0.99
    index, _ = brute(features, features[:3], 5)
    assert np.array_equal(made.search(features[:3], 5, exact=True).index, index)
    # A filter that leaves one in a thousand: the graph alone would find none of them.
    rare = content(unit(rng, 3, 12), digest="rare", cameras=("attic",), camid=[0, 0, 0])
    made.add([rare])
    assert set(made.search(features[:1], 3, camera="attic").index[0].tolist()) == {1200, 1201, 1202}
    many = made.search(features[0], 1100, sets=[0])  # more than the graph may lead to
    assert np.array_equal(many.index[0][:5], brute(features, features[:1], 5)[0][0])
    assert (many.index >= 0).all()
    made.close()


def test_tracks_are_counted_however_many_parts_one_has(place):
    rng = np.random.default_rng(3)
    query = unit(rng, 1, 8)
    near = query + 0.01 * rng.normal(size=(400, 8))
    near = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    features = np.concatenate([near, unit(rng, 60, 8)])
    track = np.r_[np.zeros(400, int), 1 + np.arange(60) % 20]
    made = create_gallery(place, [content(features, track=track)], origin={})
    found = made.search(query, 6, one_a_track=True).index
    assert np.array_equal(found, nearest_of_each(features, query, 6, track, np.ones((1, 460), bool)))
    made.close()


def test_people_and_steps_are_kept_in_the_database(place):
    made = create_gallery(place, [content(unit(np.random.default_rng(0), 3, 4))], origin={})
    people = made.people
    rows = [row(PartKey("a", t, 100 * t, 100 * t + 2), person) for t, person in enumerate((4, 5, 5))]
    people.adopt(rows, source="s")
    assert made.persons(np.array([2, 0])).tolist() == [5, 4]
    assert made.search(made.feature(0), 3, identity=5).index[0].tolist()[2] == -1
    part = PartKey("a", 2, 200, 202)
    people.apply(Step("move", moves=(Move(part, 5, 4),), names=(Naming(4, "", "Anna"),)))
    other = open_gallery(place)
    assert set(other.search(made.feature(0), 3, identity=4).index[0].tolist()) == {0, 2, -1}
    with pytest.raises(ValueError, match="is person 4 by now, not person 5"):
        other.people.apply(Step("move", moves=(Move(part, 5, 6),)))
    assert other.people.undo().kind == "move"
    assert people.names() == {}
    assert people.redo().kind == "move"
    assert people.names() == {4: "Anna"}
    made.close()
    other.close()


def test_a_gallery_is_replaced_added_to_and_cut(place):
    rng = np.random.default_rng(0)
    a, b = unit(rng, 5, 8), unit(rng, 4, 8)
    made = create_gallery(place, [content(a, digest="a")], origin={"run": "abc"})
    made.people.adopt([row(A, 1), row(B, 2)], source="s")
    with pytest.raises(FileExistsError, match="holds a gallery already: replace it with --resume"):
        create_gallery(place, [content(b)], origin={})
    other = open_gallery(place)
    made.add([content(b, digest="b")])
    assert other.stale
    assert not made.stale
    assert [s.n_entries for s in made.sets] == [5, 4]
    assert made.delete([0, 8]) == 2
    assert set(made.search(a[0], 9).index[0].tolist()) == {1, 2, 3, 4, 5, 6, 7, -1}
    assert made.compact().startswith("VACUUM FULL done")
    again = create_gallery(place, [content(b, digest="b")], origin={"run": "new"}, replace=True)
    assert (len(again), again.origin) == (4, {"run": "new"})
    assert len(again.people.identities()) == 2  # what people decided outlives a new index
    for each in (made, other, again):
        each.close()


def test_what_is_forgotten_twice_is_forgotten_once(place):
    rng = np.random.default_rng(0)
    made = create_gallery(place, [content(unit(rng, 5, 8), digest="old")], origin={})
    gone = made.feature(1).tobytes()
    made.people.adopt([row(A, 1)], source="s")
    what = {"delete": [1], "crop": [[0, 70], [2, 71]], "sets": {"old": "new"}}
    what["people"] = to_plain(made.people.kept()) | {"identities": []}
    for _ in range(2):
        postgres.change(place, what)
        found = open_gallery(place)
        assert found.entries.row.tolist() == [0, 2, 3, 4]
        assert found.entries.crop[:2].tolist() == [70, 71]
        assert found.sets[0].digest == "new"
        assert found.people.identities() == []
        # pgvector keeps float32 as it is: in the table's own file there is nothing left of the row.
        (data,) = found._read("SELECT setting FROM pg_settings WHERE name = 'data_directory'")
        (file,) = found._read("SELECT pg_relation_filepath(%s)", f"{found.schema}.entry")
        (toast,) = found._read(
            "SELECT pg_relation_filepath(reltoastrelid) FROM pg_class WHERE oid = %s::regclass",
            f"{found.schema}.entry",
        )
        found._read("SELECT 1 FROM entry LIMIT 1")
        found._connection().execute("CHECKPOINT")
        for name in {file[0], toast[0]} - {None}:
            with open(f"{data[0]}/{name}", "rb") as held:
                assert gone not in held.read()
        found.close()
    made.close()


def test_what_is_refused(database, place, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="holds no gallery"):
        open_gallery(f"{database}#nothing")
    with pytest.raises(ValueError, match="'No!' behind # is no name for a gallery"):
        open_gallery(f"{database}#No!")
    with pytest.raises(ValueError, match=r"postgresql://me@127\.0\.0\.1:1/x cannot be reached") as said:
        open_gallery("postgresql://me:secret@127.0.0.1:1/x")
    assert "secret" not in str(said.value)
    made = create_gallery(place, [content(unit(np.random.default_rng(0), 3, 4))], origin={})
    with pytest.raises(ValueError, match=r"features have 5 numbers, those of .* 4"):
        made.add([content(unit(np.random.default_rng(0), 3, 5))])
    with pytest.raises(ValueError, match="query has shape"):
        made.search(np.ones((1, 5), np.float32), 1)
    assert not folder.people_path(tmp_path / "g").exists()
    made.close()


def test_a_graph_is_built_in_the_memory_that_it_needs(database):
    """Which the server's own setting does not give, or only where the machine has it."""
    url, schema = f"{database}", "memory"
    setting = "SELECT setting::bigint FROM pg_settings WHERE name = 'maintenance_work_mem'"
    scarce = """DO $$ BEGIN
        IF (SELECT setting::bigint FROM pg_settings WHERE name = 'maintenance_work_mem') > 99999 THEN
            RAISE EXCEPTION USING ERRCODE = '53100', MESSAGE = 'could not resize shared memory segment';
        END IF;
        CREATE TABLE seen AS SELECT 1 AS kb;
    END $$"""
    with sql.connect(url, schema, make=True) as connection:
        (own,) = connection.execute(setting).fetchone()
        assert own < 100 * 1024
        for statement, memory, seen in (
            (f"CREATE TABLE seen AS {setting.replace('bigint', 'bigint AS kb')}", 100 << 20, 100 * 1024),
            (f"CREATE TABLE seen AS {setting.replace('bigint', 'bigint AS kb')}", 1 << 20, own),
            (f"CREATE TABLE seen AS {setting.replace('bigint', 'bigint AS kb')}", 1 << 50, 2 << 20),
            (scarce, 100 << 20, 1),
        ):
            with connection.transaction():
                sql.with_memory(connection, statement, memory)
                assert connection.execute(setting).fetchone() == (own,)
                assert connection.execute("SELECT kb FROM seen").fetchone() == (seen,)
                connection.execute("DROP TABLE seen")
