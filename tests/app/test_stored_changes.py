"""Sets in storage that change while they are changed or read elsewhere: whoever was forgotten stays so."""

import numpy as np
import pytest

from tests import s3_server
from tests.app.forgettable import write_set
from tests.app.test_stored import holding, pictures_of
from tests.store.storages import ONE, contents, put_folder, storage
from tracklearn.store import objects
from tracklearn.store.forget.of_set import without
from tracklearn.store.intents import intents
from tracklearn.store.objects import Stored
from tracklearn.store.sets.setwriter import truth_path
from tracklearn.store.sets.stored import Storage, local
from tracklearn.store.sets.tracklets import open_set, read_truth
from tracklearn.types import Refusal

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("made") / "set")


@pytest.fixture(scope="module", params=ONE)
def place(request, tmp_path_factory):
    with storage(request.param, tmp_path_factory.mktemp("storage")) as place:
        yield place


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """This process becomes another machine, with copies of its own."""
    return lambda name: monkeypatch.setenv("TRACKLEARN_CACHE", str(tmp_path / name))


@pytest.fixture
def url(place, made, tmp_path, machine):
    """A set in storage, its truth beside it; we are on machine "a"."""
    machine("a")
    put_folder(made, f"{place}/{tmp_path.name}/site")
    Stored.of(f"{place}/{tmp_path.name}/site.truth.parquet").put(truth_path(made))
    return f"{place}/{tmp_path.name}/site"


def drop(url, track):
    """Let the crops of a track go."""
    opened = open_set(url)
    keep = np.ones(opened.n_crops, bool)
    keep[slice(*opened.tracklets.start[track : track + 2])] = False
    with intents(opened.path, []) as made:
        without(opened, keep, made, made.room("set"))


def broken_off(url, track, method, name):
    """`drop`, which fails at what is asked of objects of that name."""
    with pytest.MonkeyPatch.context() as patch:
        asked = getattr(Stored, method)

        def ask(self, *args):
            if self.name == name:
                raise Refusal(f"{self} cannot be reached")
            return asked(self, *args)

        patch.setattr(Stored, method, ask)
        with pytest.raises(Refusal, match="cannot be reached"):
            drop(url, track)


def above(url):
    return contents(str(Stored.of(url).above))


def test_a_change_that_waited_is_not_made_on_top_of_a_later_one(url, machine, tmp_path):
    opened = open_set(url)
    zero, one = pictures_of(opened, 0), pictures_of(opened, 1)
    broken_off(url, 0, "remove", "manifest.json")
    machine("b")
    drop(url, 1)
    now = open_set(url).digest
    assert not holding(one, above(url))
    machine("a")
    with pytest.raises(Refusal, match=r"has changed meanwhile.* forget again, by a run of it"):
        open_set(url)
    assert not holding(one, above(url))
    assert not [p for p in (tmp_path / "a").rglob("*") if p.suffix in (".arrow", ".parquet")]
    assert open_set(url).digest == now
    drop(url, 0)
    assert not holding(zero + one, above(url))
    assert len(read_truth(url).pid) == open_set(url).n_crops
    assert not [name for name in above(url) if name.startswith(".")]


@pytest.mark.parametrize("torn", ["manifest.json", ".site.change"])
def test_a_change_that_is_half_made_is_finished_by_the_one_who_began_it(url, machine, torn):
    opened = open_set(url)
    zero, at = pictures_of(opened, 0), Stored.of(url)
    if torn == "manifest.json":
        broken_off(url, 0, "put", "crops.parquet")
        (at / "manifest.json").write(b"{")  # of a writing that was broken off
    else:
        broken_off(url, 0, "remove", "manifest.json")
        (at.above / torn).write(b"")
    if torn == "manifest.json":
        (at / "manifest.json").remove()
        machine("b")
        with pytest.raises(FileNotFoundError, match="forget is changing it, or was broken off"):
            open_set(url)
        (at / "manifest.json").write(b"{")
        machine("a")
    now = open_set(url)
    now.verify()
    assert now.n_crops < opened.n_crops
    assert not holding(zero, above(url))
    assert len(read_truth(url).pid) == now.n_crops
    assert not [name for name in above(url) if name.startswith(".")]
    machine("b")
    assert open_set(url).digest == now.digest


def test_nothing_is_decided_for_a_set_that_has_changed_or_is_written(url, machine):
    opened = open_set(url)
    keep = np.arange(opened.n_crops) > 5
    with (
        Storage(Stored.of(url)).locked(),
        pytest.raises(Refusal, match=r"is being written by process \d+"),
        intents(opened.path, []) as made,
    ):
        without(opened, keep, made, made.room("set"))
    machine("b")
    drop(url, 1)
    now = above(url)
    machine("a")
    with pytest.raises(Refusal, match="has changed since it was read"), intents(opened.path, []) as made:
        without(opened, keep, made, made.room("set"))
    assert above(url) == now


def test_a_change_whose_copy_has_gone_puts_nothing_there(url, machine):
    path = open_set(url).path
    broken_off(url, 0, "remove", "manifest.json")
    (path / "manifest.json").write_bytes(b"{}")
    before = above(url)
    with pytest.raises(Refusal, match="forget again"):
        open_set(url)
    assert {n: d for n, d in above(url).items() if n[0] != "."} == {
        n: d for n, d in before.items() if n[0] != "."
    }
    open_set(url).verify()


@pytest.mark.skipif(bool(s3_server.why_not()), reason=s3_server.why_not() or "none")
def test_a_change_is_made_at_the_server_it_was_decided_for(made, machine, monkeypatch):
    with s3_server.server() as host, s3_server.server() as ambient:
        for server in (host, ambient):
            s3_server.make_bucket(server, "changed")
        identity, secret = s3_server.SECRETS.values()
        for name, value in s3_server.SECRETS.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{ambient}")
        monkeypatch.setattr(objects, "_given", {})
        machine("a")
        put_folder(made, "s3://changed/site")  # of the same name elsewhere
        there = contents("s3://changed")
        url = f"s3://{identity}:{secret}@changed/site?endpoint_override={host}&scheme=http"
        for file in made.iterdir():
            Stored.of(url.replace("/site?", f"/site/{file.name}?")).put(file)
        zero, path = pictures_of(open_set(url), 0), open_set(url).path
        broken_off(url, 0, "remove", "manifest.json")

        objects._given.clear()  # a new process
        with pytest.raises(
            Refusal, match=r"another server .* give s3://changed/site as it was given"
        ) as told:
            local(path)
        assert not [word for word in (identity, secret, host) if word in str(told.value)]
        left = b"".join(p.read_bytes() for p in path.parent.rglob("*") if p.is_file())
        assert not [word for word in (identity, secret, host) if word.encode() in left]
        assert contents("s3://changed") == there

        now = open_set(url)
        assert not holding(zero, contents("s3://changed/site"))
        objects._given.clear()
        assert contents("s3://changed") == there
        assert now.n_crops < len(open_set(made).tracklets.frame)


def test_who_reads_while_a_set_changes_reads_it_anew(url, machine, monkeypatch):
    fetch, changed = Stored.fetch, []
    digest = open_set(url).digest

    def meanwhile(self, to):
        if self.name.startswith("shard-") and not changed:
            changed.append(True)
            monkeypatch.setattr(Stored, "fetch", fetch)
            machine("a")
            drop(url, 0)
            machine("b")
            monkeypatch.setattr(Stored, "fetch", meanwhile)
        fetch(self, to)

    machine("b")
    monkeypatch.setattr(Stored, "fetch", meanwhile)
    read = open_set(url)
    read.verify()
    assert changed
    assert read.digest != digest


def test_a_copy_that_another_process_made_meanwhile_is_taken(url, machine, monkeypatch):
    from tracklearn.store.sets import stored

    locked, copied = stored.locked, []

    def first(path):
        monkeypatch.setattr(stored, "locked", locked)
        copied.append(local(url))  # by the other process, before we have the lock
        monkeypatch.setattr(Stored, "fetch", None)
        return locked(path)

    monkeypatch.setattr(stored, "locked", first)
    assert open_set(url).path == copied[0]


def test_a_lock_that_this_process_could_not_remove_is_its_own(url):
    at = Stored.of(url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stored, "remove", lambda self: None)  # the storage went away
        with Storage(at).locked():
            pass
    assert ".site.lock" in above(url)
    with Storage(at).locked(), pytest.raises(Refusal, match="is being written by"), Storage(at).locked():
        pass
    assert ".site.lock" not in above(url)


def test_a_server_is_the_same_by_address_and_surroundings(monkeypatch):
    monkeypatch.setattr(objects, "_given", {})
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    named = Stored.of("s3://id:secret@bucket/site?endpoint_override=Host%3A9000&scheme=http").server
    assert Stored.of("s3://id:secret@bucket/site").server == Stored.of("s3://bucket/site").server != named
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://host:9000/")
    assert Stored.of("s3://bucket/other").server == named
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://host:9001")
    assert Stored.of("s3://bucket/site").server != named
