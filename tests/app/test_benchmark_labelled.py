"""Judging on labelled folders of one's own, and judging weights as they come."""

import json
import shutil

import numpy as np
import pytest
import torch

from tests.app.made_files import put
from tracklearn.app.judge import benchmark as module
from tracklearn.app.judge import extract
from tracklearn.app.judge.trial import Trial
from tracklearn.app.model.open import open_model, open_weights
from tracklearn.learn import backbone
from tracklearn.store import benchmarks, published, weights
from tracklearn.store.picture.crops import resize

SCORES = (*module.SCORES, "n_valid", "n_skipped", "protocol", "n_images")


def judge(model, root, name="folder", **options):
    return module.evaluate(model, name, root, tell=lambda _: None, **options)


def some(result):
    return {name: result[name] for name in SCORES}


def write_table(market, *, roles=True, name="people.csv"):
    """The test of a folder with Market-1501's names as a table, line 2 first."""
    rows = ["path,person,camera,role" if roles else "path,person,camera"]
    for folder, role in (
        ("query", "query"),
        ("bounding_box_test", "gallery"),
        ("bounding_box_train", "train"),
    ):
        for file in sorted((market / folder).iterdir()):
            person, camera = file.name.split("_")[:2]
            named = "" if person == "0000" else person if person == "-1" else f"person {person}"
            rows.append(f"{folder}/{file.name},{named},{camera[:2]}" + (f",{role}" if roles else ""))
    (market / name).write_text("\n".join(rows))
    return market / name


def test_a_folder_is_judged_as_the_data_set_of_its_names_is(onnx, market):
    model = open_model(onnx)
    expected = judge(model, market, "market1501", partial=True)
    found = judge(model, market)  # no count is published that it could fall short of
    assert some(found) == some(expected)
    assert (found["benchmark"], found["title"], found["problems"]) == ("folder", "Market", [])
    assert found["out"].name == "means-evaluation-folder-market"
    shutil.rmtree(market / "bounding_box_train")
    for name in ("folder", "market1501"):
        again = judge(model, market, name, partial=True, resume=True)
        assert some(again) == some(expected)
        assert not any("training" in line for line in [*again["notes"], *again["problems"]])


def test_a_table_gives_the_scores_of_the_names(onnx, market):
    model = open_model(onnx)
    expected = judge(model, market)
    table = write_table(market)
    for root in (market, table):
        found = judge(model, root, rerank=False, resume=True)
        assert some(found) == some(expected)
    assert found["out"].name == "means-evaluation-folder-people.csv"
    again = judge(model, table, rerank=True, ap="trapezoid")
    assert again["mAP"] != found["mAP"]
    assert again["out"].name == "means-evaluation-folder-people.csv-reranked-trapezoid"


def test_a_table_without_roles_leaves_one_out(onnx, market):
    """Every image of a person against all others, counted by loops."""
    shutil.rmtree(market / "bounding_box_train")
    (market / "bounding_box_train").mkdir()
    result = judge(open_model(onnx), write_table(market, roles=False))
    read = benchmarks.read("folder", market)
    features = extract.extract(open_model(onnx), [read])
    feature, test = features.feature[features.place[0]], read.test
    precisions, skipped = [], 0
    for q in np.flatnonzero(test.pid > 0):
        others = [
            g
            for g in range(len(test.pid))
            if g != q and not (test.pid[g] == test.pid[q] and test.camid[g] == test.camid[q])
        ]
        others.sort(key=lambda g: np.linalg.norm(feature[q].astype(float) - feature[g]))
        places = [i + 1 for i, g in enumerate(others) if test.pid[g] == test.pid[q]]
        if places:
            precisions.append(np.mean([(i + 1) / place for i, place in enumerate(places)]))
        else:
            skipped += 1
    assert result["mAP"] == pytest.approx(np.mean(precisions), abs=1e-9)
    assert (result["n_valid"], result["n_skipped"]) == (len(precisions), skipped) == (25, 2)
    assert result["protocol"] == "official"
    assert any("gives no roles" in line for line in result["notes"])


def test_what_a_table_names_must_be_there_unless_partial(call, onnx, market):
    table = write_table(market)
    rows = table.read_text().splitlines()
    (market / rows[2].split(",")[0]).unlink()
    (market / rows[4].split(",")[0]).write_bytes(b"no picture")
    for row in rows:
        if row.endswith("train"):
            (market / row.split(",")[0]).unlink()  # judging needs none of them
    given = ("evaluate", onnx, "--benchmark", "folder", "--root", table, "--json")
    code, out, err = call(*given)
    assert (code, out) == (2, "")
    assert "1 of 30 test images are missing, the first is " in err
    assert "(people.csv line 3); --partial takes what is there" in err
    code, out, err = call(*given, "--partial")
    result = json.loads(out.splitlines()[-1])
    assert code == 0
    assert (result["skipped_images"], result["n_valid"], result["n_images"]) == (2, 8, 30)
    assert {(entry["item"], entry["reason"]) for entry in result["unreadable"]} == {
        (rows[2].split(",")[0], "missing"),
        (rows[4].split(",")[0], "cannot be decoded"),
    }


def test_a_run_is_not_judged_by_people_of_its_own_folder(run, market, tmp_path):
    table = write_table(market)
    path = run(benchmarks.read("folder", table).write_train(tmp_path / "train"))
    model = open_model(path, device="cpu")
    result = judge(model, table)  # other people are in the test
    assert result["model"]["trained_on"]["benchmark"] == "folder"
    assert not any("another labelled folder" in line for line in result["notes"])
    mixed = market / "mixed.csv"
    mixed.write_text(table.read_text().replace("person 0050", "person 0001"))
    second = run(benchmarks.read("folder", mixed).write_train(tmp_path / "m"), "second")
    with pytest.raises(ValueError, match=r"trained on people who are in the test of mixed\.csv"):
        judge(open_model(second, device="cpu"), mixed)
    # Persons of another folder are others, whatever they are called.
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(market, elsewhere)
    (elsewhere / "mixed.csv").unlink()
    found = judge(open_model(second, device="cpu"), elsewhere)
    assert found["mAP"] == result["mAP"]
    assert "the run was trained on another labelled folder: its persons are not compared" in found["notes"]


def test_the_data_set_is_listed_and_checked(call, market):
    code, out, _ = call("datasets", "folder")
    assert code == 0
    assert "DIR: query/PPPP_cC" in out
    code, out, _ = call("datasets", "folder", "--root", market, "--out", market.parent / "set")
    assert code == 0
    assert out.startswith("4 tracklets, 4 crops")
    code, out, err = call("datasets", "folder", "--root", write_table(market, roles=False))
    assert code == 0
    assert "gives no roles" in out
    shutil.rmtree(market / "query")
    (market / "people.csv").unlink()
    code, _, err = call("datasets", "folder", "--root", market)
    assert (code, err.count("\n")) == (2, 1)
    assert "only a part of a labelled folder" in err


# ----------------------------------------------------------------------------------------- weights


@pytest.fixture
def tiny(tmp_path):
    """Weights of a random tiny network as other trainers keep them: without a neck; and the network."""
    network = backbone.build(backbone.Config(backbone="tiny", height=64, width=32), seed=5)
    arrays = {name: array for name, array in network.arrays().items() if not name.startswith("neck.")}
    return weights.save(tmp_path / "other" / "tiny.safetensors", arrays, {}), network


@pytest.fixture(autouse=True)
def _folder_of_weights(tmp_path):
    (tmp_path / "other").mkdir()


def test_weights_as_they_come_are_judged_by_the_map_alone(call, tiny, market):
    path, network = tiny
    sizes = ("--set", "network.height=64", "--set", "network.width=32")
    given = ("evaluate", "--weights", path, "--benchmark", "folder", "--root", market, "--json")
    code, out, _ = call(*given, *sizes)
    assert code == 0
    result = json.loads(out.splitlines()[-1])
    assert result["out"].endswith("other/tiny-evaluation-folder-market")
    assert result["model"]["kind"] == "weights"
    assert (result["model"]["backbone"], result["model"]["neck"]) == ("tiny", False)
    assert (result["model"]["network"]["height"], result["model"]["network"]["width"]) == (64, 32)

    read = benchmarks.read("folder", market)
    with torch.inference_mode():
        images = np.stack([resize(read.test.image(i), 64, 32) for i in range(len(read.test.tracklets))])
        feature = network.eval()(network.normalise(torch.as_tensor(images))).numpy()
    feature /= np.linalg.norm(feature, axis=1, keepdims=True)
    place = np.arange(len(feature))
    features = extract.Features(feature, np.ones(len(feature), bool), (place,), ({},), len(feature))
    expected = Trial.of(read, place, features, protocol="official", rerank=False).scores("hits")
    assert result["mAP"] == pytest.approx(expected.mAP, abs=1e-6)
    # At another size than the network has learned at, and written apart from the first.
    code, out, _ = call(*given, "--out", path.parent / "large")
    assert json.loads(out.splitlines()[-1])["model"]["network"]["height"] == 256


def test_a_run_s_own_weights_elsewhere_keep_their_neck(run, market, tmp_path):
    path = run(benchmarks.read("folder", market).write_train(tmp_path / "set"))
    copy = shutil.copy(path / "weights.safetensors", tmp_path / "copy.safetensors")
    sizes = ("network.height=64", "network.width=32")
    found = judge(open_weights(copy, device="cpu", settings=sizes), market)
    assert found["model"]["neck"] is True
    assert some(found) == some(judge(open_model(path, device="cpu"), market))


def test_published_weights_are_written_where_the_command_is(call, tiny, market, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "imagenet", lambda backbone: published.IMAGENET["resnet50"])
    monkeypatch.setattr(published, "fetch", lambda file, cache, progress: tiny[0])
    given = ("--weights", "imagenet", "--backbone", "tiny", "--set", "network.height=64")
    code, out, err = call("evaluate", *given, "--benchmark", "folder", "--root", market)
    assert code == 0, err
    assert out.splitlines()[-1] == "imagenet-tiny-evaluation-folder-market"
    assert (tmp_path / "imagenet-tiny-evaluation-folder-market" / "scores.json").is_file()


def test_weights_that_cannot_be_judged(call, tiny, onnx, run, market, tmp_path):
    path = run(benchmarks.read("folder", market).write_train(tmp_path / "set"))
    (tmp_path / "text.safetensors").write_text("no weights")
    for arguments, line in (
        ((), "nothing to judge: give a RUN or an .onnx file, or --weights FILE"),
        (("--weights", "start"), "nothing to judge"),
        (("--weights", "none"), "a random network, whose features say nothing"),
        (("--weights", "no.pth"), "no weights at no.pth"),
        (("--weights", tmp_path / "text.safetensors"), "cannot be read as safetensors"),
        (("--weights", path / "weights.safetensors"), "belongs to the run"),
        (("--weights", tiny[0], "--backbone", "resnet50"), "are of tiny, not resnet50"),
        (("--weights", tiny[0], "--set", "network.hight=64"), "unknown: did you mean 'height'"),
        (("--weights", tiny[0], "--set", "tmc.epochs=1"), "network"),
        (("--weights", tiny[0], "--mean", "0,0,0"), "--mean, --std and --resize belong to .onnx files"),
        ((tiny[0],), "holds weights: judge them without a run, with --weights"),
        ((path, "--weights", tiny[0]), "other weights are judged without a run"),
        ((path, "--set", "network.height=64"), "--set and --backbone belong to weights"),
        ((onnx, "--backbone", "tiny"), "--set and --backbone belong to weights"),
    ):
        code, out, err = call("evaluate", *arguments, "--benchmark", "folder", "--root", market)
        assert (code, out) == (2, ""), arguments
        assert len(err.splitlines()) == 1, err
        assert line in err, (arguments, err)


def test_a_folder_in_a_grid(market, tmp_path):
    """What lies there decides whether a set is made anew: it may be another thing tomorrow."""
    from tracklearn.app.experiments.sources import Benchmark

    source = Benchmark(tmp_path / "data", "folder", market)
    before = source.judging
    source.prepare(None)
    assert source.judging == before
    put(market / "bounding_box_train" / "0052_c1s1_000001_00.jpg", 52, 1)
    assert source.judging != before
    Benchmark(tmp_path / "data", "folder", market).prepare(None)
    from tracklearn.store.sets.tracklets import open_set

    assert open_set(source.train).n_crops == 5
