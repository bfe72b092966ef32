"""The benchmark of extraction, on a few pictures."""

import json

import pytest
from tests.optional import needs

from benchmarks import extraction


@pytest.mark.long
def test_every_kind_is_timed_and_the_forms_agree(tmp_path, capsys):
    needs("onnx")
    needs("onnxruntime")
    asked = ["--quick", "--networks", "osnet_x0_25", "--size", "64x32", "--out", str(tmp_path)]
    found = extraction.main(asked)["networks"]["osnet_x0_25"]
    assert set(found["speed"]) > {"network", "folded", "session", "extract", "onnxruntime, 8"}
    assert min(found["speed"].values()) > 0
    assert found["error"] < 1e-5
    best = max(speed for kind, speed in found["speed"].items() if kind.startswith("onnxruntime"))
    assert found["of_onnxruntime"] == pytest.approx(found["speed"]["extract"] / best)
    assert json.loads((tmp_path / "extraction.json").read_text())["settings"]["pictures"] == 8
    assert "extract / onnxruntime" in capsys.readouterr().out
