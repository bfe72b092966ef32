"""Features by workers: those of one process, byte for byte on one device."""

import json
import shutil

import numpy as np
import pytest

from tests.optional import has
from tracklearn.app.model import shards
from tracklearn.app.model.of_run import load_network, tracklet_features
from tracklearn.store.gallery.open import open_gallery
from tracklearn.store.runs import Run
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


def test_a_worker_that_sees_another_run_or_set_says_so(opened):
    run, tracklet_set = opened
    rows = np.arange(4)
    for digest, content in (("0" * 64, tracklet_set.digest), (run.manifest["digest"], "0" * 64)):
        shard = shards.Shard(run.path, digest, tracklet_set.path, content, rows, "cpu")
        with pytest.raises(Refusal, match="all machines must see the same folders"):
            shard.run(None)


def test_workers_that_die_over_a_shard_end_it(opened, monkeypatch):
    run, tracklet_set = opened

    class Dying(InOrder):
        def run(self, tasks, what, progress=None):
            from tracklearn.store.workers.engine import Outcome

            yield Outcome(0, lost="it was killed")

    with pytest.raises(Refusal, match=r"2 workers that embedded crops came to grief \(it was killed\)"):
        shards.features(run, tracklet_set, np.arange(4), device="cpu", engine=Dying(), progress=None)
