"""Judging on benchmarks: folders of generated JPEGs, a hand-made .onnx file, the run of a random network."""

import hashlib
import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from tests.app.far_workers import Backwards, Killed
from tests.app.made_files import channel_means, put, write_onnx
from tests.optional import has
from tracklearn.app.judge import benchmark as module
from tracklearn.app.judge import extract, rates
from tracklearn.app.judge.pictures import cmc_picture, ranked_lists
from tracklearn.app.judge.trial import Trial
from tracklearn.app.model import shards
from tracklearn.app.model.of_run import load_network, tracklet_features
from tracklearn.app.model.open import Model, TrainedOn, open_model, open_weights
from tracklearn.app.pipeline import run as pipeline
from tracklearn.core import rank
from tracklearn.store import benchmarks
from tracklearn.store.picture.pictures import decode
from tracklearn.store.sealed import write_sealed
from tracklearn.store.sets import referenced, tracklets
from tracklearn.store.sets.tracklets import open_set
from tracklearn.store.workers.processes import Processes
from tracklearn.types import Refusal, Scores, Truth

KEYS = {"mAP", "rank1", "rank5", "rank10", "rank20", "n_valid", "n_skipped", "protocol"}


# ------------------------------------------------------------------------------- small benchmarks


MARS_TEST = [
    (1, 2, -1, 1),
    (3, 3, 0, 4),
    (4, 6, 2, 1),
    (7, 7, 2, 3),
    (8, 9, 2, 3),
    (10, 10, 4, 5),
    (11, 14, 2, 1),
]


@pytest.fixture
def mars(tmp_path):
    """Queries: person 2 in cameras 1 and 3 (tracklets 3 and 4), person 4 (6), who is alone."""
    root = tmp_path / "MARS"
    (root / "info").mkdir(parents=True)
    for part, table in (("train", [(1, 2, 1, 1)]), ("test", MARS_TEST)):
        savemat(root / "info" / f"tracks_{part}_info.mat", {"t": np.array(table, np.int32)})
        names = []
        for number, (start, end, pid, cam) in enumerate(table, 1):
            person = "00-1" if pid < 0 else f"{pid:04d}"
            for i in range(end - start + 1):
                names.append(f"{person}C{cam}T{number:04d}F{i + 1:03d}.jpg")
                put(root / f"bbox_{part}" / person / names[-1], pid % 64, 100 * number + i)
        (root / "info" / f"{part}_name.txt").write_text("\n".join(names))
    savemat(root / "info" / "query_IDX.mat", {"q": np.array([[3, 4, 6]], np.int32)})
    return root


@pytest.fixture
def prid(tmp_path):
    """Eight persons in both cameras, three splits 4/4, three frames each."""
    root = tmp_path / "prid"
    for pid in range(1, 9):
        for camera in "ab":
            for frame in range(3):
                file = root / "multi_shot" / f"cam_{camera}" / f"person_{pid:04d}" / f"{frame:04d}.png"
                put(file, pid, 1000 * pid + 10 * ord(camera) + frame)
    halves = [[1, 2, 3, 4], [5, 6, 7, 8], [1, 3, 5, 7]]
    splits = [{"train": [p for p in range(1, 9) if p not in half], "test": half} for half in halves]
    (root / "splits.json").write_text(json.dumps(splits))
    return root


def judge(model, name, root, **options):
    return module.evaluate(model, name, root, partial=True, tell=lambda _: None, **options)


def by_hand(features, query, gallery, pid, camid, *, exclude=()):
    """mAP, rank-1, valid and skipped queries, by loops; items by number, a query never its own match."""
    precisions, firsts, skipped = [], [], 0
    for q in query:
        allowed = [
            g
            for g in gallery
            if g != q and pid[g] >= 0 and g not in exclude and not (pid[g] == pid[q] and camid[g] == camid[q])
        ]
        order = sorted(allowed, key=lambda g: np.linalg.norm(features[q].astype(float) - features[g]))
        right = [pid[g] == pid[q] for g in order]
        if not any(right):
            skipped += 1
            continue
        places = [i + 1 for i, same in enumerate(right) if same]
        precisions.append(np.mean([(i + 1) / place for i, place in enumerate(places)]))
        firsts.append(places[0] == 1)
    return np.mean(precisions), np.mean(firsts), len(precisions), skipped


# ---------------------------------------------------------------------------------------- scores


def test_image_items_are_scored_by_their_own_feature(onnx, market):
    result = judge(open_model(onnx), "Market-1501", market)
    read = benchmarks.read("market1501", market)
    test = read.test
    features = np.stack([channel_means(test.images.file(i)) for i in range(len(test.tracklets))])
    mAP, rank1, valid, skipped = by_hand(features, read.query, read.gallery, test.pid, test.camid)
    assert 0.2 < mAP < 1
    assert result["mAP"] == pytest.approx(mAP, abs=1e-9)
    assert result["rank1"] == pytest.approx(rank1)
    assert (result["n_valid"], result["n_skipped"]) == (valid, skipped) == (10, 1)
    assert result["protocol"] == "official"
    assert result["n_items"] == result["n_images"] == 11 + 15 + 1 + 3
    assert result["skipped_images"] == result["dropped_items"] == 0
    assert "sd" not in result
    assert result["split"] is None


def test_both_mars_protocols_come_from_one_extraction(onnx, mars):
    """Official: the queries of one person find each other. Without the queries, two of three are skipped."""
    result = judge(open_model(onnx), "mars", mars)
    read = benchmarks.read("mars", mars)
    images = read.test.images
    start = read.test.tracklets.start
    features = []
    for a, b in pairwise(start):
        mean = np.mean([channel_means(images.file(row)) for row in range(a, b)], axis=0)
        features.append(mean / np.linalg.norm(mean))
    arguments = np.array(features), [2, 3, 5], range(7), read.test.pid, read.test.camid
    for protocol, exclude in (("official", ()), ("gallery-excludes-queries", (2, 3, 5))):
        mAP, rank1, valid, skipped = by_hand(*arguments, exclude=exclude)
        found = result["protocols"][protocol]
        assert found["mAP"] == pytest.approx(mAP, abs=1e-9)
        assert found["rank1"] == pytest.approx(rank1)
        assert (found["n_valid"], found["n_skipped"]) == (valid, skipped) == (2, 1)
    assert result["n_images"] == 12  # not the two of junk
    named = judge(open_model(onnx), "mars", mars, protocol="gallery-excludes-queries")
    assert named["protocol"] == "gallery-excludes-queries"
    assert named["mAP"] == result["protocols"]["gallery-excludes-queries"]["mAP"]
    assert named["out"].name == "means-evaluation-mars-gallery-excludes-queries"


def test_the_protocols_of_mars_on_its_own_tables(data):
    """1,980 valid queries, or 1,840 and 140 skipped (METHODS 7), whatever the features."""
    read = benchmarks.read("mars", data / "mars")
    there = read.test.pid >= 0
    n = int(there.sum())
    feature = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    feature /= np.linalg.norm(feature, axis=1, keepdims=True)
    place = np.where(there, np.cumsum(there) - 1, -1)
    features = extract.Features(feature, np.ones(n, bool), (place,), ({},), n)
    for protocol, expected in (("official", (1980, 0)), ("gallery-excludes-queries", (1840, 140))):
        scores = Trial.of(read, place, features, protocol=protocol, rerank=False).scores("hits")
        assert (scores.n_valid, scores.n_skipped) == expected


def test_re_ranking_is_that_of_the_core_among_what_the_protocol_leaves(onnx, mars):
    model = open_model(onnx)
    read = benchmarks.read("mars", mars)
    features = extract.extract(model, [read])
    place, test = features.place[0], read.test
    for protocol, gallery in (("official", [1, 2, 3, 4, 5, 6]), ("gallery-excludes-queries", [1, 4, 6])):
        query = read.query
        distance = rank.rerank(features.feature[place[query]], features.feature[place[gallery]])
        row = [gallery.index(q) if q in gallery else -1 for q in query]
        expected = rank.evaluate(
            distance,
            test.pid[query],
            test.pid[gallery],
            test.camid[query],
            test.camid[gallery],
            query_row=np.array(row),
        )
        found = judge(model, "mars", mars, rerank=True, resume=True)["protocols"][protocol]
        assert found["mAP"] == expected.mAP
        assert found["n_valid"] == expected.n_valid


def test_ap_variants_are_named_and_differ(onnx, market):
    found = {ap: judge(open_model(onnx), "market1501", market, ap=ap) for ap in rank.AP}
    assert found["trapezoid"]["mAP"] < found["hits"]["mAP"]
    assert found["sklearn"]["mAP"] == pytest.approx(found["hits"]["mAP"])
    assert [found[ap]["ap"] for ap in rank.AP] == list(rank.AP)
    assert found["trapezoid"]["out"] != found["hits"]["out"]


def test_splits_give_mean_and_deviation(onnx, prid):
    result = judge(open_model(onnx), "prid2011", prid)
    single = [judge(open_model(onnx), "prid2011", prid, split=i) for i in range(3)]
    for name in module.SCORES:
        values = [one[name] for one in single]
        assert result[name] == pytest.approx(np.mean(values))
        assert result["sd"][name] == pytest.approx(np.std(values, ddof=1))
        assert [one[name] for one in result["splits"]] == values
    assert (result["n_valid"], result["n_skipped"]) == (12, 0)
    assert [one["split"] for one in single] == [0, 1, 2]
    assert [one["n_valid"] for one in single] == [4, 4, 4]
    # Sixteen tracklets of three frames serve all splits.
    assert (result["n_items"], result["n_images"]) == (16, 48)
    assert "±" in module.table(result)
    assert "split 1 of 0-2" in module.table(single[1])


def test_features_do_not_depend_on_what_is_held_at_once(onnx, mars, monkeypatch):
    read = [benchmarks.read("mars", mars)]
    whole, told = extract.extract(open_model(onnx), read), []
    for size in (1, 3, 4, 5):
        monkeypatch.setattr(shards, "SHARD", size)
        told.clear()
        found = extract.extract(open_model(onnx), read, progress=lambda *now: told.append(now))
        np.testing.assert_array_equal(found.feature, whole.feature)
        assert found.readable.all()
        assert told[-1] == ("features", 12, 12)
        assert [now[1] for now in told] == sorted(now[1] for now in told)


# ------------------------------------------------------------------------------------ by workers


def same_features(one, other):
    np.testing.assert_array_equal(one.feature, other.feature)
    np.testing.assert_array_equal(one.readable, other.readable)
    assert one.unreadable == other.unreadable
    assert one.n_images == other.n_images
    assert len(one.feature)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "SHARD", 5)


def test_workers_make_the_features_of_one_process(onnx, mars, prid, market, run, tmp_path, small_shards):
    """Of any model, of one test or several, whichever shard comes first, images that fail among them."""
    next((mars / "bbox_test" / "0002").glob("*F003.jpg")).write_bytes(b"no picture")
    next((mars / "bbox_test" / "0002").glob("*T0005F001.jpg")).unlink()
    whole = benchmarks.read("prid2011", prid)
    path = run(whole.write_train(tmp_path / "half"))
    copy = shutil.copy(path / "weights.safetensors", tmp_path / "alone.safetensors")
    sizes = ["network.height=64", "network.width=32"]
    splits = [benchmarks.read("prid2011", prid, split=i) for i in range(3)]
    some = benchmarks.read("market1501", market, subset=benchmarks.Subset(1, 3))
    for model, tests in (
        (open_model(onnx, mean=[0.1, 0.2, 0.3]), [benchmarks.read("mars", mars)]),
        (open_model(path, device="cpu"), splits),
        (open_model(path, which="start", device="cpu"), [some]),
        (open_weights(copy, device="cpu", settings=sizes), [some]),
    ):
        engine, told = Backwards(), []
        made = extract.extract(model, tests, engine=engine, progress=lambda *now, to=told: to.append(now))
        same_features(made, extract.extract(model, tests))
        assert told[-1][0] == "features"
        assert engine.gpus == 0
    assert len(made.feature) > shards.SHARD


def test_a_worker_that_is_killed_on_the_way_changes_nothing(onnx, market, tmp_path, small_shards):
    model, read = open_model(onnx), benchmarks.read("market1501", market)
    made = extract.extract(model, [read], engine=Killed(tmp_path / "mark"))
    assert (tmp_path / "mark").exists()
    same_features(made, extract.extract(model, [read]))


def test_a_worker_that_sees_another_model_or_other_images_says_so(onnx, market):
    model, read = open_model(onnx), benchmarks.read("market1501", market)
    put(market / "query" / "0001_c3s1_000999_00.jpg", 1, 999)
    with pytest.raises(Refusal, match="Market is another one where a worker looks"):
        extract.extract(model, [read], engine=Backwards())
    write_onnx(onnx, notes={"pixel_mean": "0.5 0.5 0.5"})
    with pytest.raises(Refusal, match=r"means\.onnx is another one where a worker looks: all machines"):
        extract.extract(model, [benchmarks.read("market1501", market)], engine=Processes(1))


def test_workers_cannot_open_what_is_held_in_memory(onnx, market):
    read, model = benchmarks.read("market1501", market), open_model(onnx)
    for other, test in ((replace(model, origin=None), read), (model, replace(read, asked=None))):
        with pytest.raises(
            Refusal, match="is held in memory, where workers do not see it: leave workers out"
        ):
            extract.extract(other, [test], engine=Backwards())


@pytest.mark.slow
def test_ray_makes_them_too(onnx, market, small_shards):
    has("ray")
    from tracklearn.store.workers.ray import OnRay

    model, read = open_model(onnx), [benchmarks.read("market1501", market)]
    same_features(extract.extract(model, read, engine=OnRay(workers=2)), extract.extract(model, read))


def test_on_a_gpu_every_shard_asks_for_one(run, market, tmp_path, monkeypatch):
    """Whether there is one the worker says: the process that asks need not have any."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    read = benchmarks.read("market1501", market)
    path = run(read.write_train(tmp_path / "set"))
    file = shutil.copy(path / "weights.safetensors", tmp_path / "alone.safetensors")
    for model in (
        open_model(path, device="cuda", elsewhere=True),
        open_weights(file, device="cuda:0", elsewhere=True),
    ):
        engine = Backwards()
        with pytest.raises(Refusal, match="torch sees 0 CUDA devices here"):
            extract.extract(model, [read], engine=engine)
        assert engine.gpus == 1
    for opens, what in ((open_model, path), (open_weights, file)):
        with pytest.raises(Refusal, match="torch sees 0 CUDA devices here"):
            opens(what, device="cuda")
        with pytest.raises(Refusal, match="--device 'gpu' is unknown"):
            opens(what, device="gpu", elsewhere=True)


# ------------------------------------------------------------------------------ images that fail


def test_unreadable_images_are_left_out_counted_and_listed(onnx, mars):
    folder = mars / "bbox_test" / "0002"
    (folder / "0002C1T0003F001.jpg").unlink()
    (folder / "0002C1T0003F003.jpg").write_bytes(b"no picture")
    (folder / "0002C3T0005F001.jpg").unlink()
    (folder / "0002C3T0005F002.jpg").write_bytes(b"")
    result = judge(open_model(onnx), "mars", mars)
    assert (result["skipped_images"], result["dropped_items"]) == (4, 1)
    assert result["dropped"] == [{"split": 0, "query": 0, "gallery": 1}]
    assert {entry["reason"] for entry in result["unreadable"]} == {"missing", "cannot be decoded"}
    assert any("4 of 14 test images" in line or "2 of 14" in line for line in result["problems"])
    assert "4 of 12 images could not be read" in module.table(result)

    read = benchmarks.read("mars", mars)
    features = extract.extract(open_model(onnx), [read])
    left = channel_means(folder / "0002C1T0003F002.jpg")
    np.testing.assert_allclose(features.feature[features.place[0][2]], left, atol=1e-6)
    assert not features.feature[features.place[0][4]].any()
    # Tracklet 5 was the only match of tracklet 3 outside of the queries.
    assert result["protocols"]["gallery-excludes-queries"]["n_valid"] == 1


def test_a_query_without_images_is_dropped_not_scored(onnx, market):
    next((market / "query").glob("0001_c1*")).write_bytes(b"")
    result = judge(open_model(onnx), "market1501", market)
    assert (result["n_valid"], result["n_skipped"]) == (9, 1)
    assert result["dropped"] == [{"split": 0, "query": 1, "gallery": 0}]


def test_nothing_readable_is_said(onnx, market):
    for file in (market / "query").iterdir():
        file.write_bytes(b"")
    with pytest.raises(ValueError, match="no query with an image"):
        judge(open_model(onnx), "market1501", market)


# ------------------------------------------------------------------------------------------ runs


def files_of(folder):
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def test_a_run_on_the_world_gets_the_scores_of_the_demo(run, mars, tmp_path):
    """A demo's folder: set and judge with their truth; scored as `demo` does, and the run left as it is."""
    read = benchmarks.read("mars", mars)
    clean = read.test.tracklets.split(np.where(read.test.truth.pid > 0, 0, -1))
    root = tmp_path / "demo"
    root.mkdir()
    for name in ("set", "judge"):
        referenced.write(
            root / name,
            tracklets=clean,
            paths=read.test.images.paths,
            root=read.test.images.root,
            cameras=read.test.cameras,
            pid=read.test.truth.pid,
            settings={},
        )
    path = run(root / "set")
    before = files_of(path)
    judged = open_set(root / "judge")
    for which in ("weights", "start"):
        result = judge(open_model(path, which=which, device="cpu"), "world", root)
        network = load_network(pipeline.Run(path), which)
        features = tracklet_features(network, judged, judged.tracklets, device="cpu")
        part = benchmarks.read("world", root).test
        expected = rates.retrieval(features, part.pid, part.camid).to_dict()
        assert {name: result[name] for name in (*module.SCORES, "n_valid", "n_skipped")} == {
            name: expected[name] for name in (*module.SCORES, "n_valid", "n_skipped")
        }
        assert result["model"]["weights"] == which
    assert {p: digest for p, digest in files_of(path).items() if p in before} == before
    assert {p.name for p in path.iterdir() if p.is_dir()} == {"evaluation-world", "evaluation-world-start"}


def test_a_run_is_judged_on_the_split_it_was_trained_on(run, prid, tmp_path):
    training = benchmarks.read("prid2011", prid, split=1)
    path = run(training.write_train(tmp_path / "half"))
    model = open_model(path, device="cpu")
    assert (model.trained_on.benchmark, model.trained_on.split) == ("prid2011", 1)
    result = judge(model, "prid2011", prid)
    assert result["model"]["trained_on"] == {"benchmark": "prid2011", "split": 1}
    assert (result["split"], result["n_valid"]) == (1, 4)
    assert not any("is not known" in line for line in result["notes"])
    assert [test.split for test in module.read_tests(model, "PRID-2011", prid, split=1)] == [1]
    with pytest.raises(ValueError, match="test of split 0 holds people of its training half"):
        module.read_tests(model, "prid2011", prid, split=0)
    # The truth beside the set says so of other splits' files too; without it the number must do.
    (tmp_path / "half.truth.parquet").unlink()
    blind = open_model(path, device="cpu")
    with pytest.raises(ValueError, match="trained on split 1"):
        module.read_tests(blind, "prid2011", prid, split=2)
    # Before training a network has seen nobody; nor has one whose set is gone said whom.
    assert len(module.read_tests(open_model(path, which="start", device="cpu"), "prid2011", prid)) == 3
    shutil.rmtree(tmp_path / "half")
    told = []
    blind, out = open_model(path, device="cpu"), tmp_path / "out"
    result = module.evaluate(blind, "prid2011", prid, out=out, partial=True, tell=told.append)
    assert result["model"]["trained_on"] is None
    assert any("is not known" in line for line in told)
    assert any("is not known" in line for line in result["notes"])


def test_no_test_holds_people_that_the_starting_weights_have_seen(run, prid, tmp_path):
    for split in (1, 2):
        benchmarks.read("prid2011", prid, split=split).write_train(tmp_path / f"half{split}")
    earlier = [{"path": "../half1", "digest": "x"}, {"path": "../gone", "digest": "y"}]
    path = run(tmp_path / "half2", earlier_sets=earlier)
    for which in ("weights", "start"):
        model = open_model(path, which=which, device="cpu")
        assert [(seen.benchmark, seen.split) for seen in model.seen_before] == [("prid2011", 1)]
        with pytest.raises(
            ValueError, match="trained on split 1 of PRID 2011, and the test of split 2 holds"
        ):
            module.read_tests(model, "prid2011", prid, split=2)


def test_people_are_compared_where_splits_are_drawn_anew(prid, tmp_path, monkeypatch):
    test = benchmarks.read("prid2011", prid, split=0)
    (tmp_path / "set.truth.parquet").touch()

    def seen(name, split, persons):
        monkeypatch.setattr(tracklets, "read_truth", lambda path: Truth(np.array(persons)))
        module.refuse_seen(TrainedOn(name, split, tmp_path / "set", prid), test)

    seen("prid2011", 2, [5, 6, 7, 8])
    seen("market1501", 0, [1])
    with pytest.raises(ValueError, match="holds people"):
        seen("prid2011", 0, [-1, 0, 4])


# -------------------------------------------------------------------------------------- pictures


def test_ranked_lists_frame_what_is_right_in_green(onnx, market):
    result = judge(open_model(onnx), "market1501", market, seed=5)
    picture = cv2.imread(str(result["out"] / "ranked.png"))[:, :, ::-1].astype(int)
    read = benchmarks.read("market1501", market)
    features = extract.extract(open_model(onnx), [read])
    trial = Trial.of(read, features.place[0], features, protocol="official", rerank=False)
    right = wrong = 0
    for row in range(11):  # ten of the eleven queries have a match, and ten are drawn
        items, same = trial.top(row, 10)
        if trial.scores("hits", only=np.array([row])).n_valid:
            assert len(items) == 10
            right, wrong = right + same.sum(), wrong + (~same).sum()
            assert trial.query[row] not in items
            query = read.query[row]
            close = (read.test.pid[items] == read.test.pid[query]) & (
                read.test.camid[items] == read.test.camid[query]
            )
            assert not close.any()
    frame = 2 * 4 * (72 + 8 + 144)  # pixels of one
    for colour, n in (((46, 139, 87), right), ((192, 57, 43), wrong), ((47, 93, 138), 10)):
        assert (np.abs(picture - colour).max(2) < 3).sum() == pytest.approx(n * frame, rel=0.02)


def test_pictures_and_scores_are_files(onnx, prid):
    result = judge(open_model(onnx), "prid2011", prid, rerank=True)
    out = result.pop("out")
    assert {p.name for p in out.iterdir()} == {"scores.json", "cmc.png", "ranked.png"}
    written = json.loads((out / "scores.json").read_text())
    assert set(written) >= KEYS
    assert written["mAP"] == result["mAP"]
    assert written["rerank"] is True
    assert set(written["seconds"]) == {"features", "distances", "scores", "pictures"}
    assert written["model"]["path"] == str(onnx)
    assert all(cv2.imread(str(out / name)).shape[2] == 3 for name in written["pictures"].values())


def test_pictures_of_nothing_are_still_pictures():
    for data in (
        ranked_lists([], title="none"),
        cmc_picture({"official": np.full(5, np.nan)}, title="none"),
        cmc_picture({"a": np.array([0.5]), "b": np.array([1.0, 1.0])}, title="short"),
    ):
        assert decode(data).shape[2] == 3


def test_summary_averages_curves_of_the_shortest_gallery(prid):
    tests = [benchmarks.read("prid2011", prid, split=i) for i in range(2)]
    found = [Scores(0.5, np.array([0.2, 0.6]), 4, 1, "p"), Scores(0.7, np.array([0.4, 0.8, 1]), 3, 0, "p")]
    result = module.summary(tests, found)
    assert result["mAP"] == pytest.approx(0.6)
    assert result["sd"]["mAP"] == pytest.approx(0.1 * 2**0.5)
    np.testing.assert_allclose(result["cmc"], [0.3, 0.7])
    assert (result["n_valid"], result["n_skipped"]) == (7, 1)


# ----------------------------------------------------------------------------------- command line


COMMAND = ["evaluate"]


def test_the_command_prints_a_table_or_one_json_object(call, onnx, market):
    given = (onnx, "--benchmark", "market1501", "--root", market, "--partial")
    code, out, err = call(*given)
    assert code == 0
    assert "official" in out
    assert "rank-1" in out
    assert out.splitlines()[-1] == str(onnx.parent / "means-evaluation-market1501")
    assert "of 3,368" in err
    code, out, _ = call(*given, "--json", "--resume", "--rerank", "--ap", "trapezoid")
    result = json.loads(out.splitlines()[-1])
    assert code == 0
    assert set(result) >= KEYS
    assert result["rerank"] is True
    assert Path(result["out"]).name == "means-evaluation-market1501-reranked-trapezoid"


def test_with_workers_the_command_writes_the_same(call, onnx, market, tmp_path, small_shards):
    given = (onnx, "--benchmark", "market1501", "--root", market, "--partial", "--json")
    results = []
    for options in ([], ["--workers", "2"]):
        code, out, err = call(*given, "--out", tmp_path / f"out{len(results)}", *options)
        assert code == 0, err
        results.append(json.loads(out.splitlines()[-1]))
    one, two = ({k: v for k, v in found.items() if k not in ("seconds", "out")} for found in results)
    assert one == two
    assert (tmp_path / "out0" / "ranked.png").read_bytes() == (tmp_path / "out1" / "ranked.png").read_bytes()


def test_refusals_are_one_line(call, onnx, market, prid, run, tmp_path):
    set_path = benchmarks.read("market1501", market).write_train(tmp_path / "train")
    path = run(set_path)
    unfinished = run(set_path, "unfinished")
    manifest = json.loads((unfinished / "manifest.json").read_text())
    write_sealed(unfinished / "manifest.json", {**manifest, "status": "training"})
    bare = run(set_path, "bare")
    (bare / "weights.safetensors").unlink()
    half = tmp_path / "half"
    shutil.copytree(market, half)
    shutil.rmtree(half / "query")
    there = tmp_path / "there"
    there.mkdir()
    (there / "mine.txt").write_text("mine")
    on = ("--benchmark", "market1501", "--root", market, "--partial")
    for arguments, line in (
        ((onnx, "--benchmark", "markt1501", "--root", market), "did you mean market1501"),
        ((onnx, "--benchmark", "cuhk", "--root", market), "known are mars"),
        ((onnx, "--benchmark", "market1501", "--root", tmp_path / "no"), "no such folder"),
        ((onnx, "--benchmark", "mars", "--root", market), "is not MARS"),
        ((onnx, "--benchmark", "market1501", "--root", half), "only a part of Market-1501"),
        ((onnx, "--benchmark", "market1501", "--root", market), "not complete: query: 11 of 3,368"),
        ((onnx, *on, "--protocol", "gallery-excludes-queries"), "its gallery holds no queries"),
        ((onnx, *on, "--protocol", "offical"), 'protocol "offical" does not exist'),
        ((onnx, *on, "--ap", "coco"), "expected one of hits, trapezoid, sklearn"),
        ((onnx, *on, "--on", "dask"), "--on 'dask' is unknown: write ray"),
        ((onnx, *on, "--split", "3"), "one fixed split"),
        ((onnx, "--benchmark", "prid2011", "--root", prid, "--split", "3"), "splits 0 to 2"),
        ((onnx, "--benchmark", "prid2011", "--root", prid, "--split", "-1"), "splits 0 to 2"),
        ((onnx, *on, "--out", there), "exists: replace it with --resume"),
        ((onnx, *on, "--mean", "0.5"), "--mean is '0.5', expected three numbers"),
        ((onnx, *on, "--std", "a,b,c"), "--std is 'a,b,c', expected three numbers"),
        ((onnx, *on, "--std", "0,1,1"), "above 0"),
        ((onnx, *on, "--weights", "start"), "an .onnx file holds one network"),
        ((onnx, *on, "--device", "cuda"), "leave --device out"),
        ((tmp_path / "no.onnx", *on), "no such file"),
        ((tmp_path / "no", *on), "no such run"),
        ((set_path, *on), "not a run"),
        ((unfinished, *on, "--device", "cpu"), "is not finished"),
        ((bare, *on, "--device", "cpu"), "weights.safetensors is damaged (it is missing)"),
        ((path, *on, "--weights", "best"), "expected weights (trained) or start"),
        ((path, *on, "--mean", "0,0,0"), "belong to .onnx files"),
        ((path, *on, "--resize", "bilinear"), "belong to .onnx files"),
        ((onnx, *on, "--resize", "nearest"), "expected bilinear or bicubic"),
        ((path, *on, "--device", "tpu"), "--device 'tpu' is unknown"),
    ):
        code, out, err = call(*arguments)
        assert (code, out) == (2, ""), arguments
        assert err.splitlines()[-1].startswith("tracklearn: ")
        assert line in err.splitlines()[-1], (arguments, err)
    assert not list(tmp_path.glob("means-evaluation-*"))


def test_unknown_weights_and_images_gone_since_the_check(tmp_path, onnx, market):
    with pytest.raises(ValueError, match="expected weights"):
        open_model(onnx, which="best")
    shutil.rmtree(market / "bounding_box_test")
    (market / "bounding_box_test").mkdir()
    with pytest.raises(FileNotFoundError):
        judge(open_model(onnx), "market1501", market)


def test_a_model_is_anything_that_makes_features(market, tmp_path):
    """Every feature alike: a true match ranks behind all wrong entries, the worst score there is."""

    def same(crops, rows):
        return np.tile(np.float32([[1, 0]]), (len(crops.read(rows)), 1))

    model = Model(8, 4, same, {"kind": "constant"}, tmp_path, "evaluation")
    result = judge(model, "market1501", market)
    assert result["rank1"] == 0
    assert result["mAP"] < 0.2
