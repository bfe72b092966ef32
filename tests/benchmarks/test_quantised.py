"""The benchmark of 8-bit files: one file for all figures, as `tracklearn export` writes it, and its bars."""

import json
from argparse import Namespace

import numpy as np
import pytest
from tests.app.exported_runs import write_run, write_set
from tests.optional import needs
from tests.store.benchmark_folders import MARKET, make_market

from benchmarks import measure, quantised
from tracklearn.app.model import export, forms
from tracklearn.app.model.of_run import load_network
from tracklearn.store import weights
from tracklearn.store.runs import Run
from tracklearn.store.sets.tracklets import open_set


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantised")
    write_run(folder / "run", write_set(folder / "set"))
    return folder


def timing(*cpu, result=None):
    return measure.Timing(tuple(2 * seconds for seconds in cpu), cpu, result)


def test_ratios_are_of_the_quickest_batch_and_cosines_of_its_features():
    one, half, other = (
        np.float32([[1, 0], [0, 1]]),
        np.float32([[0.6, 0.8], [0, 1]]),
        np.float32([[0, 1]] * 2),
    )
    found = {"extract": timing(6.0, 12.0, result=one), "folded": timing(4.0, 4.0, result=one)}
    found |= {f"float32, {n}": timing(3.0, 3.0, result=one) for n in (4, 8, 16, 64)}
    found |= {f"int8, {n}": timing(2.0, 4.0, result=other) for n in (4, 8, 64)}
    found["int8, 16"] = timing(1.0, 3.0, result=half)
    speed = quantised.speeds(found, 12)
    assert speed["quickest"]["int8"] == "int8, 16"
    assert (speed["images_per_cpu_second"]["int8, 16"], speed["images_per_second"]["int8, 16"]) == (6.0, 3.0)
    assert (speed["of_extract"], speed["of_extract_wall"]) == (5.0, 5.0)  # 6 and 4
    assert speed["of_folded"] == pytest.approx((4 + 4 / 3) / 2)
    assert quantised.likeness(found) == {
        "float32": {"mean": 1.0, "least": 1.0},
        "int8": {"mean": pytest.approx(0.8), "least": pytest.approx(0.6)},
    }


def network(scores):
    kinds = ("extract", "folded", "float32, 8", "int8, 16")
    return {
        "speed": {
            "images_per_cpu_second": dict(zip(kinds, (100.0, 110.0, 150.0, 290.0), strict=True)),
            "quickest": {"float32": "float32, 8", "int8": "int8, 16"},
            "of_extract": 2.9,
            "of_extract_wall": 2.8,
            "of_folded": 2.6,
            "of_float32": 1.9,
        },
        "cosine": {"int8": {"mean": 0.98, "least": 0.9}},
        "quantised": {"float_layers": 4, "layers": 52},
        "scores": scores,
    }


def test_bars_and_tables_with_scores_and_without():
    judged = {"torch": {"mAP": 0.30, "rank1": 0.5}, "int8": {"mAP": 0.29, "rank1": 0.484}}
    found = {"judged": network(judged), "alone": network(None)}
    bars = quantised.bars(found)
    assert [bar.met for bar in bars] == [False, True, False, False, True, None]
    assert bars[2].value == pytest.approx(1.6)
    lines = [line.split() for line in quantised.tables(found).splitlines()]
    assert ["judged", "100", "110", "150", "290", "2.9", "2.8", "2.6", "1.9"] in lines
    assert ["judged", "4", "of", "52", "0.98", "0.9", "30", "29", "50", "48.4"] in lines
    assert ["alone", "4", "of", "52", "0.98", "0.9", "-", "-", "-", "-"] in lines


def test_crops_of_the_calibration_are_compared_with_nothing(where):
    tracklets = open_set(where / "set").tracklets
    given, compared = quantised.chosen(tracklets, 20, 0)
    assert len(given) >= 64
    assert len(compared) == 20
    assert not np.isin(compared, given).any()
    assert not np.array_equal(compared, quantised.chosen(tracklets, 20, 1)[1])
    assert len(quantised.chosen(tracklets, 10_000, 0)[1]) == len(tracklets.crop) - len(given)


def test_crops_are_of_the_set_or_else_of_the_training_part(where, tmp_path):
    one = quantised.opened(where / "run", (256, 128))
    given = Namespace(crops=None, market=make_market(tmp_path / "market"))
    tracklets, crops = quantised.crops_of(one, given)
    assert (tracklets.n_crops, crops.read(tracklets.crop).shape) == (4, (4, 64, 32, 3))
    given.crops = where / "set"
    assert quantised.crops_of(one, given)[0].n_crops == 160
    judged = {name: MARKET[name] for name in ("query", "bounding_box_test")}
    with pytest.raises(ValueError, match="no training part"):
        quantised.crops_of(one, Namespace(crops=None, market=make_market(tmp_path / "test", judged)))


def test_weights_of_a_file_are_those_of_the_run(where, tmp_path):
    network = load_network(Run(where / "run"))
    arrays = network.arrays()
    weights.save(tmp_path / "with.safetensors", arrays, network.metadata())
    bare = {name: value for name, value in arrays.items() if not name.startswith("neck.")}
    weights.save(tmp_path / "without.safetensors", bare, network.metadata())
    run, file, plain = (
        quantised.opened(path, (64, 32))
        for path in (where / "run", tmp_path / "with.safetensors", tmp_path / "without.safetensors")
    )
    assert (run.name, file.name) == ("tiny_3f9c21aa", "with")
    assert (run.neck, file.neck, plain.neck) == (True, True, False)
    crops = open_set(where / "set").crops(64, 32)
    features = [one.model.extract(crops, np.arange(8)) for one in (run, file, plain)]
    assert np.array_equal(features[0], features[1])
    assert not np.allclose(features[0], features[2], atol=1e-3)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "--market or --crops is wanted"),
        (["--crops", "set", "--weights", "run", "run"], "one name"),
    ],
)
def test_what_cannot_be_measured_is_refused(where, monkeypatch, capsys, given, said):
    monkeypatch.chdir(where)
    with pytest.raises(SystemExit):
        quantised.main(["--weights", "run", *given])
    assert said in capsys.readouterr().err


@pytest.mark.long
def test_the_file_is_the_one_that_export_writes(where, tmp_path):
    needs("onnx")
    needs("onnxruntime")
    one = quantised.opened(where / "run", (256, 128))
    stored = open_set(where / "set").crops(64, 32)
    given, compared = quantised.chosen(open_set(where / "set").tracklets, 16, 0)
    files, how = quantised.write(one, stored.read(given), tmp_path)
    made = export.export(where / "run", quantize="int8", out=tmp_path / "made")
    assert how == made["quantised"]
    pictures = forms.pictures(stored.read(compared), one.pixels)
    ours = forms.open_onnx(files["int8"])(pictures)
    assert np.array_equal(ours, forms.open_onnx(tmp_path / "made" / made["files"][0]["name"])(pictures))
    assert not np.array_equal(ours, forms.open_onnx(files["float32"])(pictures))


@pytest.mark.long
def test_writes_what_it_measured(where, tmp_path, capsys):
    needs("onnx")
    needs("onnxruntime")
    market = make_market(tmp_path / "market")
    call = ["--weights", where / "run", "--crops", where / "set", "--market", market, "--subset", "2"]
    call += ["--images", "16", "--repeats", "1", "--out", tmp_path / "out"]
    quantised.main([str(word) for word in call])
    saved = json.loads((tmp_path / "out" / "quantised.json").read_text())
    (found,) = saved["result"]["networks"].values()
    assert set(found["timings"]) == {
        "extract", "folded", *(f"{name}, {n}" for name in ("float32", "int8") for n in (4, 8, 16, 64))
    }  # fmt: skip
    assert min(found["speed"]["images_per_cpu_second"].values()) > 0
    assert found["cosine"]["float32"]["least"] > 0.9999
    assert 0.9 < found["cosine"]["int8"]["least"] < 0.9999
    assert found["files"]["int8"]["bytes"] < found["files"]["float32"]["bytes"]
    assert {name: scores["n_valid"] for name, scores in found["scores"].items()} == {"torch": 2, "int8": 2}
    assert (found["images"], saved["settings"]["subset"]) == (16, 2)
    assert saved["settings"]["versions"]["onnxruntime"]
    assert len(saved["result"]["bars"]) == 3
    assert "int8 / extract" in capsys.readouterr().out
