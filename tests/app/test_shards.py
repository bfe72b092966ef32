"""Features by workers: those of one process, byte for byte on one device."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import tracklearn
from tests.app.conftest import QUICK
from tests.app.far_workers import Backwards, Killed
from tests.optional import has
from tests.postgres_server import server, why_not
from tracklearn.app.model import shards
from tracklearn.app.model.of_run import load_network, parts_of, tracklet_features
from tracklearn.app.model.open import run_origin
from tracklearn.app.pipeline import first_look
from tracklearn.app.pipeline.training import train
from tracklearn.app.search.index import index
from tracklearn.learn import embed
from tracklearn.learn.compute import PRECISIONS
from tracklearn.store import benchmarks
from tracklearn.store.gallery import incoming
from tracklearn.store.gallery.entries import Content
from tracklearn.store.gallery.open import create_gallery, open_gallery
from tracklearn.store.runs import Run
from tracklearn.store.sealed import MANIFEST, read_sealed, write_sealed
from tracklearn.store.sets.tracklets import open_set
from tracklearn.store.workers.engine import InOrder
from tracklearn.store.workers.processes import Processes
from tracklearn.types import Refusal


@pytest.fixture
def opened(done):
    return Run(done["out"] / "run"), open_set(done["out"] / "set")


def test_shards_make_the_features_of_one_process(opened, monkeypatch):
    run, tracklet_set = opened
    tracklets = tracklet_set.tracklets
    whole = tracklet_features(load_network(run), tracklet_set, tracklets, device="cpu")
    monkeypatch.setattr(shards, "SHARD", shards.BATCH)
    assert len(tracklets.crop) > shards.BATCH  # several shards, the last of them short
    seen = []
    for engine in (Processes(2), InOrder()):
        made = shards.tracklet_features(
            run, tracklet_set, tracklets, device="cpu", engine=engine, progress=lambda *a: seen.append(a)
        )
        np.testing.assert_array_equal(made, whole)
    assert seen[-1][0] == "features"


@pytest.mark.slow
def test_ray_makes_them_too(opened):
    has("ray")
    from tracklearn.store.workers.ray import OnRay

    run, tracklet_set = opened
    tracklets = tracklet_set.tracklets
    whole = tracklet_features(load_network(run), tracklet_set, tracklets, device="cpu")
    made = shards.tracklet_features(
        run, tracklet_set, tracklets, device="cpu", engine=OnRay(workers=2), progress=None
    )
    np.testing.assert_array_equal(made, whole)


def test_index_and_identities_by_workers_write_the_same(call, done, tmp_path):
    shutil.copytree(done["out"] / "run", tmp_path / "run")
    shutil.copytree(done["out"] / "set", tmp_path / "set")
    folder = tmp_path / "run" / "gallery"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, out, _ = call("index", "run", "set", "--workers", "2", "--resume", "--json")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["n_entries"] == len(open_gallery(folder))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    tables = []
    for options in ([], ["--workers", "2"]):
        path = tmp_path / f"people{len(tables)}"
        assert call("identities", "run", "set", "--out", path, *options)[0] == 0
        tables.append((path / "identities.csv").read_bytes())
    assert tables[0] == tables[1]


@pytest.mark.long
@pytest.mark.skipif(bool(why_not()), reason=why_not() or "none")
@pytest.mark.timeout(600)
def test_workers_send_what_they_embedded_to_the_database_themselves(done, tmp_path, monkeypatch):
    """What one process makes, to the bit; one worker is killed, and a broken-off call is gone on with."""
    shutil.copytree(done["out"] / "run", tmp_path / "run")
    monkeypatch.setattr(shards, "BATCH", 8)
    monkeypatch.setattr(shards, "SHARD", 16)
    own, tracklet_set = Run(tmp_path / "run"), open_set(done["out"] / "set")
    parts = parts_of(own, tracklet_set)
    network = load_network(own)
    features = embed.extract(
        network, tracklet_set.crops(64, 32), parts.crop, device="cpu", batch=8, fixed=True
    )
    features = embed.pool(features, parts.tracklet, len(parts))
    with server() as url:
        place = f"{url}#far"
        options = {"url": place, "device": "cpu", "progress": None}
        broken = Backwards()
        run_all = broken.run
        broken.run = lambda tasks, *a, **k: run_all(tasks[-1:], *a, **k)  # it gets no further than one shard
        shards.send_features(own, tracklet_set, parts, engine=broken, **options)
        asked = []
        killed = Killed(tmp_path / "mark")
        run_them = killed.run
        killed.run = lambda tasks, *a, **k: asked.append(len(tasks)) or run_them(tasks, *a, **k)
        sent = shards.send_features(own, tracklet_set, parts, engine=killed, **options)
        assert (tmp_path / "mark").exists()
        content = Content(sent, parts, tracklet_set.cameras, digest=tracklet_set.digest)
        with create_gallery(place, [content], origin={"run": own.manifest["digest"]}) as made:
            got = np.stack([made.feature(row) for row in range(len(made))])
        np.testing.assert_array_equal(got, features)
        everything = []
        engine = Backwards()
        run_every = engine.run
        engine.run = lambda tasks, *a, **k: everything.append(len(tasks)) or run_every(tasks, *a, **k)
        shards.send_features(own, tracklet_set, parts, engine=engine, **options)
        assert asked == [everything[0] - 1]  # the shard of before was not made again
        place = f"{url}#whole"
        index(own.path, tracklet_set.path, gallery=place, device="cpu", workers=2)
        with open_gallery(place) as made:
            want = open_gallery(done["out"] / "run" / "gallery").entries
            assert made.entries.keys() == want.keys()


def test_what_other_weights_or_another_program_sent_is_not_taken(done, tmp_path, monkeypatch):
    folder, tracklet_set, names = tmp_path / "run", open_set(done["out"] / "set"), []
    shutil.copytree(done["out"] / "run", folder)
    monkeypatch.setattr(incoming, "expect", lambda url, name, n: names.append(name) or np.ones(n, bool))

    def send():
        run = Run(folder)
        shards.send_features(
            run,
            tracklet_set,
            tracklet_set.tracklets,
            url="",
            device="cpu",
            engine=InOrder(),
            progress=None,
        )
        return run.manifest["digest"]

    before = send()
    manifest = read_sealed(folder / MANIFEST, remedy="")
    shutil.copy(folder / "start.safetensors", folder / "weights.safetensors")
    manifest["files"]["weights.safetensors"] = manifest["files"]["start.safetensors"]
    write_sealed(folder / MANIFEST, manifest)
    assert send() == before  # the same settings and data
    monkeypatch.setattr(tracklearn, "__version__", "0.0")
    send()
    assert len(set(names)) == 3


def test_a_training_with_workers_learns_the_same(call, done, tmp_path, monkeypatch):
    """To the byte: they look at all crops before the first epoch, a shard each."""
    monkeypatch.setattr(shards, "SHARD", shards.BATCH)
    asked, gathered = [], shards.gathered
    monkeypatch.setattr(
        shards, "gathered", lambda tasks, *rest, **more: asked.append(tasks) or gathered(tasks, *rest, **more)
    )
    settings = [part for setting in QUICK for part in ("--set", setting)]
    options = ["--weights", "none", "--preset", "cpu", "--device", "cpu", *settings]
    tracklets = done["out"] / "set"
    code, _, err = call("train", tracklets, "--out", "run", *options, "--workers", "2")
    assert code == 0, err
    (tasks,) = asked
    assert len(tasks) > 1
    assert sum(len(task.rows) for task in tasks) == open_set(tracklets).n_crops
    for name in ("start.safetensors", "isolation.safetensors", "labels.safetensors", "weights.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (done["out"] / "run" / name).read_bytes(), name


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_first_look_by_workers_is_that_of_training_itself(run, market, tmp_path, precision):
    """In its arithmetic, and with a picture that is broken, which the process that trains hears of."""
    made = benchmarks.read("market1501", market).write_train(tmp_path / "set", singles=True)
    sorted((market / "bounding_box_train").iterdir())[2].write_bytes(b"no picture")
    tracklet_set = open_set(made)
    crops, rows = tracklet_set.crops(64, 32), tracklet_set.tracklets.crop
    look = first_look.by_workers(
        run(made), tracklet_set, crops, device="cpu", precision=precision, engine=Backwards(), progress=None
    )
    found = look(rows)
    own = tracklet_set.crops(64, 32)
    own.read(rows)
    assert crops.unreadable == own.unreadable
    assert crops.broken == own.broken == 1
    network = load_network(Run(tmp_path / "run"), "start").to(memory_format=torch.channels_last)
    expected = embed.extract(network, crops, rows, device="cpu", dtype=PRECISIONS[precision])
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found, axis=0)) == len(rows)


def test_processes_of_torchrun_take_no_workers(call, done, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    plan = done["arguments"]["plan"](done["out"] / "set")
    with pytest.raises(Refusal, match="share all crops already: leave --workers and --on out"):
        next(train(plan, tmp_path / "run", workers=2))
    assert not (tmp_path / "run").exists()


def test_a_worker_that_sees_another_run_or_set_says_so(opened):
    run, tracklet_set = opened
    origin, crops = run_origin(run, device="cpu"), shards.SetCrops.of(tracklet_set, 64, 32)
    for other, there in ((replace(origin, digest="0"), crops), (origin, replace(crops, digest="0"))):
        with pytest.raises(Refusal, match="another one where a worker looks: all machines must see the same"):
            shards.Shard(other, there, np.arange(4)).run(None)
    with pytest.raises(Refusal, match=r"what asks it is 0\.0: install the same version everywhere"):
        shards.Shard(origin, crops, np.arange(4), version="0.0").run(None)


def test_workers_that_die_over_a_shard_end_it(opened, monkeypatch):
    run, tracklet_set = opened

    class Dying(InOrder):
        def run(self, tasks, what, progress=None, *, gpus=0):
            from tracklearn.store.workers.engine import Outcome

            yield Outcome(0, lost="it was killed")

    with pytest.raises(Refusal, match=r"2 workers that embedded crops came to grief \(it was killed\)"):
        shards.features(run, tracklet_set, np.arange(4), device="cpu", engine=Dying(), progress=None)
