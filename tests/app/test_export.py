"""A run's network for other programs: whole files or none, compared with the network, described."""

import json
import shutil
import sys

import numpy as np
import pytest

from tests.app.exported_runs import write_run, write_set
from tests.optional import needs
from tracklearn.app.model import export as module
from tracklearn.app.model import forms, parity
from tracklearn.app.model.of_run import load_network
from tracklearn.app.model.open import open_model
from tracklearn.learn import embed
from tracklearn.store.runs import Run
from tracklearn.store.sets.tracklets import open_set

COMMAND = ["export"]


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    """A folder whose name holds words that must not get into files, with a set and a run."""
    folder = tmp_path_factory.mktemp("veri-market1501")
    write_run(folder / "veri-run", write_set(folder / "set"))
    return folder


def features(run, set_path, **options):
    """What search compares, of some crops, and these."""
    network = load_network(Run(run))
    stored = open_set(set_path).crops(network.config.height, network.config.width, cache_bytes=0)
    rows = np.arange(0, 160, 7)
    return embed.extract(network, stored, rows, device="cpu", **options), stored, rows


@pytest.mark.parametrize("options", [(), ("--baked",)])
def test_onnx_is_what_evaluate_opens(where, call, tmp_path, options):
    needs("onnx")
    needs("onnxruntime")
    code, out, err = call(where / "veri-run", *options, "--out", "made", "--json")
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    name = "tiny_3f9c21aa" + ("_rgb01" if options else "") + ".onnx"
    assert sorted(file.name for file in (tmp_path / "made").iterdir()) == ["README.md", "export.json", name]
    model = open_model(tmp_path / "made" / name)
    assert (model.height, model.width, model.interpolation) == (64, 32, "bicubic")
    wanted, stored, rows = features(where / "veri-run", where / "set")
    np.testing.assert_allclose(model.extract(stored, rows), wanted, atol=2e-5)
    assert model.record["mean"] == ((0, 0, 0) if options else (0.485, 0.456, 0.406))
    assert result["parity"]["least_cosine"] > 0.99999
    assert result["parity"]["n_queries"] == 40
    assert result["parity"]["rank1"] == result["parity"]["rank1_torch"] == result["parity"]["rank1_search"]
    assert result["images_per_second"].keys() == {"torch", "export"}


def test_the_card_says_what_was_measured_and_nothing_of_the_place(where, tmp_path):
    result = module.export(where / "veri-run", to="torchscript", out=tmp_path / "made")
    text = (tmp_path / "made" / "README.md").read_text()
    record = (tmp_path / "made" / "export.json").read_text()
    assert "veri" not in text + record
    assert "market" not in text + record
    calibration = result["calibration"]
    assert calibration["same"]["n"] == 40
    assert calibration["different"]["n"] == 360 // 2
    cosine = calibration["threshold"] ** 2 / 2
    assert result["thresholds"][0] == {"name": "cosine distance", "value": cosine, "text": "1 − cosine"}
    assert f"| cosine distance | {cosine:.3f} |" in text
    rates = json.loads(record)["calibration"]["false_merges"]
    assert list(rates) == ["0.05", "0.02", "0.01"]
    assert list(rates.values()) == sorted(rates.values(), reverse=True)
    assert f"| false merges 1.0 % | {rates['0.01']:.3f} |" in text
    assert calibration["curve"]["probability"] == sorted(calibration["curve"]["probability"], reverse=True)
    for said in (Run(where / "veri-run").manifest["digest"][:16], "64 × 32", "tmc.epochs = 3", "40 queries"):
        assert said in text
    assert "## Intended use and limits" in text


def test_scores_of_the_run_are_in_the_card(where, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(where / "veri-run", run)
    model = {"digest": Run(run).manifest["digest"], "weights": "weights"}
    said = {"title": "Shop", "protocol": "official", "mAP": 0.25, "rank1": 0.5}
    for name, scores in (
        ("evaluation-shop", {**said, "model": model}),
        ("evaluation-start", {**said, "title": "Start", "model": {**model, "weights": "start"}}),
        ("evaluation-other", {**said, "title": "Other", "model": {**model, "digest": "b" * 64}}),
        ("evaluation-odd", {"title": "Odd"}),
    ):
        (run / name).mkdir()
        (run / name / "scores.json").write_text(json.dumps(scores))
    module.export(run, to="safetensors", crops=where / "set")
    text = (run / "export" / "safetensors" / "README.md").read_text()
    assert "| Shop | official | 25.0 | 50.0 |" in text
    assert not any(name in text for name in ("Start", "Other", "Odd"))


def test_arrays_are_weights_to_start_from(where, tmp_path):
    from tracklearn.app.model.open import open_weights

    module.export(where / "veri-run", to="safetensors", out=tmp_path / "made")
    model = open_weights(
        tmp_path / "made" / "tiny_3f9c21aa.safetensors", settings=["network.height=64", "network.width=32"]
    )
    wanted, stored, rows = features(where / "veri-run", where / "set")
    np.testing.assert_allclose(model.extract(stored, rows), wanted, atol=1e-6)


def test_without_a_film_there_is_no_threshold_but_a_comparison(tmp_path):
    run = write_run(tmp_path / "run", write_set(tmp_path / "set", film=False))
    result = module.export(run, to="torchscript")
    assert result["calibration"] is None
    assert result["thresholds"] == []
    assert result["parity"]["n_queries"] == 40
    assert "None could be calibrated" in (run / "export" / "torchscript" / "README.md").read_text()
    assert "threshold: none" in module.table(result)


def test_an_export_that_differs_is_refused_and_leaves_nothing(where, tmp_path, monkeypatch):
    made = tmp_path / "made"
    module.export(where / "veri-run", to="torchscript", out=made)
    before = {file.name: file.read_bytes() for file in made.iterdir()}
    opened = forms.open_torchscript

    def wrong(path):
        run = opened(path)
        return lambda given: np.roll(run(given), 1, axis=1)

    monkeypatch.setattr(forms, "open_torchscript", wrong)
    with pytest.raises(ValueError, match=r"torchscript export of \S+ differs too much from the network: cos"):
        module.export(where / "veri-run", to="torchscript", out=made, resume=True)
    assert {file.name: file.read_bytes() for file in made.iterdir()} == before
    with pytest.raises(ValueError, match="nothing was written"):
        module.export(where / "veri-run", to="torchscript", out=tmp_path / "new")
    assert [file.name for file in tmp_path.iterdir()] == ["made"]


def test_an_export_takes_the_place_of_another_only_when_asked(where, tmp_path):
    made = tmp_path / "made"
    module.export(where / "veri-run", to="torchscript", out=made)
    (made / "old.txt").write_text("of the one before")
    with pytest.raises(FileExistsError, match="replace it with --resume"):
        module.export(where / "veri-run", to="torchscript", out=made)
    module.export(where / "veri-run", to="torchscript", out=made, resume=True)
    assert not (made / "old.txt").exists()


def test_a_killed_replacement_gives_the_old_export_back(where, tmp_path):
    """Between the two renames the old one is aside: the next call finds it."""
    made, aside = tmp_path / "made", tmp_path / ".made.old"
    module.export(where / "veri-run", to="torchscript", out=made)
    made.rename(aside)
    with pytest.raises(FileExistsError):
        module.export(where / "veri-run", to="torchscript", out=made)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "caffe"], "--to is 'caffe', expected one of onnx, torchscript, safetensors, openvino"),
        (["--for", "sort"], "--for 'sort' is unknown: expected one of boxmot, ultralytics"),
        (["--quantize", "int4"], "--quantize is 'int4', expected int8"),
        (["--to", "torchscript", "--quantize", "int8"], "--quantize int8 belongs to onnx and openvino"),
        (["--to", "safetensors", "--baked"], "--baked belongs to networks"),
        (["--for", "boxmot", "--to", "torchscript"], "--for boxmot has a form of its own: leave --to"),
        (["--for", "boxmot", "--baked"], "--for boxmot knows how its pictures are normalised"),
        (["--for", "deepstream", "--quantize", "int8"], "DeepStream makes its own 8-bit engine"),
        (["--for", "torchreid"], "tiny with its BN neck has no slot there"),
    ],
)
def test_options_that_do_not_go_together_are_refused(where, call, tmp_path, options, message):
    code, _, err = call(where / "veri-run", *options, "--out", "made")
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_what_is_missing_is_named_with_what_to_do(where, call, tmp_path, monkeypatch):
    assert "no such run" in call("nowhere")[2]
    run = write_run(tmp_path / "begun", where / "set", finished=False)
    assert "is not finished: go on with tracklearn train" in call(run)[2]
    moved = tmp_path / "far" / "moved"
    shutil.copytree(where / "veri-run", moved)
    code, _, err = call(moved, "--to", "torchscript")
    assert code == 2
    assert "say where it is, or name another set, with --crops SET" in err
    assert call(moved, "--to", "torchscript", "--crops", where / "set")[0] == 0
    monkeypatch.setattr(module.forms, "annotated", None)  # nothing gets as far as that
    for name, to in (("onnx", "onnx"), ("openvino", "openvino")):
        if name == "openvino":
            needs("onnx")
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            err = call(moved, "--to", to)[2]
        assert f'pip install "tracklearn[{name}]"' in err


def test_a_set_of_single_crops_is_nothing_to_compare_on(tmp_path, where):
    from tests.faults.degenerate import write_set as write_degenerate

    other = write_degenerate(tmp_path / "set", [0, 1], [1, 1], lambda t, c: np.zeros((60, 24, 3), np.uint8))
    with pytest.raises(ValueError, match="has not two tracks of two crops"):
        module.export(where / "veri-run", to="torchscript", crops=other, out=tmp_path / "made")


def test_the_sample_shows_one_person_or_two_at_once(where):
    """Every pair by hand: crops of first halves with the second half of the same track, or of another."""
    sample = parity.draw(open_set(where / "set").tracklets)
    pairs = sample.pairs
    assert sample.asked.sum() == 40
    assert len(sample.row) == 80
    assert len(set(sample.row.tolist())) == 80
    track = [
        set(sample.track[pairs.edge[k] : pairs.edge[k + 1]].tolist()) for k in range(len(pairs.edge) - 1)
    ]
    assert all(len(found) == 1 for found in track)
    assert all(track[a] == track[b] for a, b in pairs.same)
    assert all(track[a] != track[b] for a, b in pairs.different)
    others = parity.others(open_set(where / "set").tracklets, sample, 32)
    assert len(others) == 32
    assert not set(others.tolist()) & set(sample.row.tolist())


def test_parity_counts_what_it_says():
    sample = parity.Sample(
        np.arange(4), np.array([0, 1, 0, 1]), np.array([True, True, False, False]), pairs=None
    )
    wanted = np.float32([[1, 0], [0, 1], [1, 0], [0, 1]])
    got = np.float32([[1, 0], [1, 0], [1, 0], [0, 1]])
    found = parity.compare(wanted, got, sample)
    assert (found.rank1, found.rank1_torch, found.rank1_search, found.n_queries) == (0.5, 1.0, 1.0, 2)
    assert (found.cosine, found.least_cosine, found.max_difference) == (0.75, 0.0, 1.0)
    with pytest.raises(ValueError, match=r"rank-1 50.0 instead of 100.0 on 4 crops"):
        found.check(parity.INT8, "it")
    parity.compare(wanted, wanted, sample).check(parity.FLOAT, "it")


def test_eight_bits_are_near_enough_or_refused(where, tmp_path, monkeypatch):
    onnx = needs("onnx")
    needs("onnxruntime")
    result = module.export(where / "veri-run", quantize="int8", out=tmp_path / "made")
    assert result["quantised"]["layers"] == 8
    assert 0.98 < result["parity"]["cosine"] < 1
    file = tmp_path / "made" / "tiny_3f9c21aa_int8.onnx"
    graph = onnx.load(str(file)).graph
    assert sum(node.op_type == "QuantizeLinear" for node in graph.node) > 9
    wanted, stored, rows = features(where / "veri-run", where / "set")
    got = open_model(file).extract(stored, rows)
    assert (got * wanted).sum(1).mean() > 0.98
    text = (tmp_path / "made" / "README.md").read_text()
    assert "8 bits: 8 of 8 convolutions" in text
    assert f"| the same file in float32 | {result['images_per_second']['float32']:.0f} |" in text
    assert sorted(f.name for f in (tmp_path / "made").iterdir()) == ["README.md", "export.json", file.name]
    monkeypatch.setattr(parity, "INT8", parity.Bounds(cosine=0.99999, difference=2, rank1=0))
    with pytest.raises(ValueError, match="the 8-bit onnx-int8 export of"):
        module.export(where / "veri-run", quantize="int8", out=tmp_path / "more")
    assert not (tmp_path / "more").exists()


def test_eight_bits_that_do_not_pay_are_told_of(where, tmp_path):
    needs("onnx")
    needs("onnxruntime")
    result = module.export(where / "veri-run", quantize="int8", out=tmp_path / "made")
    for float32, slower in ((250.0, True), (150.0, False)):
        result["images_per_second"] = {"torch": 100.0, "export": 200.0, "float32": float32}
        told = module.table(result)
        assert f"200 images/s, torch 100 (2.0 ×), the same file in float32 {float32:.0f}" in told
        assert ("8 bits are slower than float32 on this CPU" in told) == slower


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_openvino_reads_its_own_form(where, tmp_path, quantize):
    needs("onnx")
    openvino = needs("openvino")
    result = module.export(where / "veri-run", to="openvino", quantize=quantize, out=tmp_path / "made")
    name = result["files"][0]["name"]
    assert {file.suffix for file in (tmp_path / "made").iterdir()} == {".xml", ".bin", ".md", ".json"}
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(tmp_path / "made" / name), "CPU", exact)
    assert list(compiled.inputs[0].shape) == [1, 3, 64, 32]
    wanted, stored, rows = features(where / "veri-run", where / "set")
    given = forms.pictures(stored.read(rows), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    got = np.concatenate([compiled(image[None])[0] for image in given])
    assert (got * wanted).sum(1).mean() > (0.98 if quantize else 0.9999)
