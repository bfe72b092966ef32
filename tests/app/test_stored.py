"""Sets in storage behind ingest: forgotten there and in every copy; read by workers elsewhere."""

import pickle

import numpy as np
import pytest

from tests.app.forgettable import order, tree, write_run, write_set
from tests.store.storages import ONE, contents, put_folder, storage
from tracklearn.app import check, forget
from tracklearn.app.identities import link
from tracklearn.app.model.shards import SetCrops
from tracklearn.app.search import index
from tracklearn.store.identities.folder import Identities
from tracklearn.store.objects import Stored
from tracklearn.store.sets import changes
from tracklearn.store.sets.setwriter import truth_path
from tracklearn.store.sets.stored import local
from tracklearn.store.sets.tracklets import open_set, read_truth
from tracklearn.types import Refusal

pytestmark = pytest.mark.long

SAME = ("0=2", "0=4.1", "1=4.2", "3=5")


@pytest.fixture(params=ONE)
def url(request, tmp_path, monkeypatch):
    """A set in storage, its truth beside it; what of it is here is a copy."""
    monkeypatch.setenv("TRACKLEARN_CACHE", str(tmp_path / "cache"))
    made = write_set(tmp_path / "set")
    with storage(request.param, tmp_path / "storage") as place:
        put_folder(made, f"{place}/sets/site")
        Stored.of(f"{place}/sets/site.truth.parquet").put(truth_path(made))
        for file in (*made.iterdir(), truth_path(made)):
            file.unlink()
        yield f"{place}/sets/site"


@pytest.fixture
def out(url, tmp_path):
    """A run that learned from it, with gallery and identities."""
    out = tmp_path / "out"
    run = write_run(out / "run", local(url))
    index.index(run, url, device="cpu").gallery.close()
    number = order(local(url))
    same = ["=".join(f"{number[int(name[0])]}{name[1:]}" for name in pair.split("=")) for pair in SAME]
    found = link.identities(run, [url], out / "identities", distance=1e-4, same=same, device="cpu")
    assert {row["set"] for row in found.rows} == {url}
    with pytest.raises(Refusal, match="tracklet sets alone are written to storage"):
        link.identities(run, [url], url, device="cpu")
    return out


def pictures_of(opened, track):
    start = opened.tracklets.start
    return [opened.jpeg(row) for row in range(start[track], start[track + 1])]


def holding(blobs, *places):
    return [name for place in places for name, data in place.items() if any(blob in data for blob in blobs)]


def test_a_person_goes_from_storage_and_copy_or_later_from_both(out, url, tmp_path, monkeypatch):
    cache, above = tmp_path / "cache", str(Stored.of(url).above)
    opened, number = open_set(url), order(local(url))
    person = next(row["identity"] for row in Identities(out / "identities").rows if row["track"] == 0)
    track = next(t for t, n in number.items() if n == 0)
    gone, stays = pictures_of(opened, number[track]), pictures_of(opened, number[1])
    assert holding(gone, contents(above))
    monkeypatch.setenv("TRACKLEARN_CACHE", str(tmp_path / "elsewhere"))
    copied = open_set(url).path  # on another machine
    monkeypatch.setenv("TRACKLEARN_CACHE", str(cache))

    # The storage does not let itself be written to: nothing has happened.
    with monkeypatch.context() as patch:
        patch.setattr(Stored, "write", lambda *_: (_ for _ in ()).throw(Refusal("access is denied")))
        with pytest.raises(Refusal, match="access is denied"):
            forget.forget(out / "run", person=person)
    assert open_set(url).digest == opened.digest

    # It goes away behind the decision: the next to open the set brings it to its end.
    with monkeypatch.context() as patch:
        patch.setattr(changes, "change", lambda *_: (_ for _ in ()).throw(Refusal("cannot be reached")))
        with pytest.raises(Refusal, match="cannot be reached"):
            forget.forget(out / "run", person=person)
        with pytest.raises(Refusal, match="cannot be reached"):
            open_set(url)
    assert holding(gone, contents(above))
    now = open_set(url)
    assert now.digest != opened.digest
    now.verify()
    assert not holding(gone, contents(above), tree(cache), tree(out))
    assert holding(stays, contents(above))
    assert len(read_truth(url).pid) == now.n_crops < opened.n_crops
    assert [each for each in check.check(out) if each.damages] == []
    assert open_set(local(url)).path == now.path

    # The copy on the other machine goes when it is opened, and what comes in its place has nobody of it.
    monkeypatch.setenv("TRACKLEARN_CACHE", str(tmp_path / "elsewhere"))
    with pytest.raises(Refusal, match="has changed since it was read here, as when somebody is forgotten"):
        open_set(copied)
    assert not holding(gone, tree(tmp_path / "elsewhere"))
    assert open_set(url).digest == now.digest
    assert not holding(gone, tree(tmp_path / "elsewhere"))


def test_workers_elsewhere_read_a_copy_of_their_own(url, tmp_path, monkeypatch):
    made = open_set(url)
    crops = pickle.dumps(SetCrops.of(made, 64, 32))
    monkeypatch.setenv("TRACKLEARN_CACHE", str(tmp_path / "elsewhere"))
    read = pickle.loads(crops).open()
    assert np.array_equal(read.read([0, 5]), made.crops(64, 32).read([0, 5]))
    assert list((tmp_path / "elsewhere").rglob("manifest.json"))
