"""Network files made to hang, to take all memory or to crash their runtime: each is one line, in time."""

import subprocess
import sys

import numpy as np
import pytest
from tests.app.made_files import _field, _value, write_loop, write_onnx
from tests.optional import needs

from tracklearn.app.model.onnx import ExportedModel
from tracklearn.store.detect import first_contact, model_files
from tracklearn.store.detect.detector import open_detector
from tracklearn.types import ArrayCrops

FOR_EVER = 2**62
ENDLESS = "did not end within 1 s: the network may loop for ever; where it is only slow, set TRACKLEARN_MODEL"


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setenv("TRACKLEARN_MODEL_SECONDS", "1")


@pytest.fixture(autouse=True)
def _nothing_passed_yet(monkeypatch):
    monkeypatch.setattr(first_contact, "_passed", set())


def refusal(call, *args):
    with pytest.raises(ValueError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("early", [False, True])
def test_a_network_without_end_is_one_line(runtime, early, tmp_path, impatient):
    needs(runtime)
    path = write_loop(tmp_path / "bomb.onnx", FOR_EVER, early=early)
    said = refusal(first_contact.try_out, runtime, path)
    assert ENDLESS in said
    assert str(path) in said


def test_detectors_and_exported_networks_meet_the_file_there(tmp_path, impatient):
    needs("onnxruntime")
    path = write_loop(tmp_path / "bomb.onnx", FOR_EVER)
    assert ENDLESS in refusal(ExportedModel, path)
    assert ENDLESS in refusal(open_detector, f"onnx:{path}")


@pytest.mark.parametrize("early", [False, True])
def test_a_loop_that_ends_is_nothing_to_fear(tmp_path, early):
    needs("onnxruntime")
    crops, rows = ArrayCrops(np.full((2, 16, 8, 3), 200, np.uint8)), np.arange(2)
    plain = ExportedModel(write_onnx(tmp_path / "plain.onnx")).extract(crops, rows)
    looped = ExportedModel(write_loop(tmp_path / "loop.onnx", 3, early=early)).extract(crops, rows)
    np.testing.assert_allclose(looped, plain, atol=1e-6)


def test_a_picture_that_starts_an_endless_loop_is_one_line(tmp_path, monkeypatch):
    """A blank picture asks for no turn; a white one, for more than anybody can wait for."""
    needs("onnxruntime")
    path = write_loop(tmp_path / "sly.onnx", None)
    first_contact.try_out("onnxruntime", path)  # in all the time that a busy machine may take
    monkeypatch.setenv("TRACKLEARN_MODEL_SECONDS", "1")
    model = ExportedModel(path, mean=(0, 0, 0), std=(1e-12, 1e-12, 1e-12))
    assert ENDLESS in refusal(model.extract, ArrayCrops(np.full((1, 16, 8, 3), 255, np.uint8)), np.arange(1))


@pytest.mark.parametrize("side", [2**18, 2**24])
def test_an_input_beyond_all_memory_is_one_line(tmp_path, side):
    needs("onnxruntime")
    path = write_onnx(tmp_path / "huge.onnx", (1, 3, side, side))
    assert "memory" in refusal(ExportedModel, path) or "too big" in refusal(ExportedModel, path)


def test_a_batch_of_none_is_refused(tmp_path):
    needs("onnxruntime")
    assert "expected (batch, 3, height, width)" in refusal(
        ExportedModel, write_onnx(tmp_path / "empty.onnx", (0, 3, 16, 8))
    )


def test_numbers_that_the_file_only_promises_are_refused(tmp_path):
    """An initial value of 2^40 numbers, four bytes of them there."""
    needs("onnxruntime")
    whole = write_onnx(tmp_path / "whole.onnx").read_bytes()
    value = _field(1, 2**40) + _field(2, 1) + _field(8, "big") + _field(9, b"\0\0\0\0")
    used = _field(1, _field(1, "big") + _field(2, "z") + _field(4, "Identity"))
    path = tmp_path / "promise.onnx"
    # A second graph field is merged into the first by the rules of protocol buffers.
    path.write_bytes(whole + _field(7, used + _field(5, value) + _field(12, _value("z", (2**40,), 1))))
    assert "not a model onnxruntime can load" in refusal(ExportedModel, path)


@pytest.mark.parametrize("depth", [50, 5_000])
def test_graphs_within_graphs_within_graphs_are_refused(tmp_path, depth):
    needs("onnxruntime")
    graph = _field(2, "innermost")
    for _ in range(depth):
        branch = _field(1, "then_branch") + _field(6, graph) + _field(20, 5)
        graph = _field(1, _field(1, "c") + _field(2, "y") + _field(4, "If") + _field(5, branch)) + _field(
            2, "g"
        )
    path = tmp_path / "deep.onnx"
    path.write_bytes(_field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 13)))
    assert str(path) in refusal(ExportedModel, path)


def test_a_runtime_that_crashes_is_one_line(tmp_path, monkeypatch):
    """No file that crashes today's runtime is known: a child that does so stands for it."""
    needs("onnxruntime")
    run = subprocess.run
    crash = [sys.executable, "-c", "import os; os.kill(os.getpid(), 11)"]
    monkeypatch.setattr(first_contact.subprocess, "run", lambda _, **options: run(crash, **options))
    said = refusal(first_contact.try_out, "onnxruntime", write_onnx(tmp_path / "m.onnx"))
    assert "onnxruntime ended in the middle of a first run (signal 11)" in said


def test_a_file_is_tried_once_and_again_when_it_has_changed(tmp_path, monkeypatch):
    needs("onnxruntime")
    tried = []
    monkeypatch.setattr(
        first_contact.subprocess,
        "run",
        lambda command, **_: tried.append(command) or subprocess.CompletedProcess(command, 0, b"", b""),
    )
    path = write_onnx(tmp_path / "m.onnx")
    first_contact.try_out("onnxruntime", path)
    first_contact.try_out("onnxruntime", path)
    assert len(tried) == 1
    write_onnx(path, (4, 3, 16, 8), notes={"mean": "0.5 0.5 0.5"})
    first_contact.try_out("onnxruntime", path)
    assert len(tried) == 2


def test_the_current_folder_lends_no_module(tmp_path, monkeypatch):
    needs("onnxruntime")
    (tmp_path / "numpy.py").write_text("raise SystemExit('this is not numpy')")
    monkeypatch.chdir(tmp_path)
    first_contact.try_out("onnxruntime", write_onnx(tmp_path / "m.onnx"))


@pytest.mark.parametrize("text", ["soon", "0", "-3", "nan", "inf"])
def test_a_time_that_is_none_is_refused(text, monkeypatch):
    monkeypatch.setenv("TRACKLEARN_MODEL_SECONDS", text)
    with pytest.raises(ValueError, match=r"TRACKLEARN_MODEL_SECONDS is .*, expected a number of seconds"):
        model_files.seconds_allowed()
