"""Nothing is told to anybody: each optional library is used under a guard, in an empty home folder."""

import socket
import sys

import pytest

from tests.app.made_files import write_onnx
from tests.faults import quiet_guard
from tests.optional import needs

# Used for a moment longer than it takes: what is sent in the background has begun by then.
ONNX = """
from tracklearn.app.model.onnx import ExportedModel
from tracklearn.types import ArrayCrops
import numpy as np, time
model = ExportedModel({path!r}, mean=(0, 0, 0))
print(model.extract(ArrayCrops(np.full((9, 16, 8, 3), 99, np.uint8)), np.arange(9)).shape)
time.sleep(0.5)
"""
OPENVINO = """
from tracklearn.store.detect import model_files
import numpy as np, time
print(model_files.open_openvino({path!r}).run(np.ones((1, 3, 16, 8), np.float32))[0].shape)
time.sleep(0.5)
"""
HUB = """
from tracklearn.store.detect.detector import open_detector
import numpy as np, time
print(open_detector('hub:{path}', threshold=0.1)(np.zeros((120, 200, 3), np.uint8), 0)[0].shape)
time.sleep(0.5)
"""


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    if why := quiet_guard.unable():
        pytest.skip(why)
    return quiet_guard.build(tmp_path_factory.mktemp("guard"))


@pytest.fixture
def heard(guard, tmp_path):
    def run(code, **variables):
        return quiet_guard.listen([sys.executable, "-c", code], guard, tmp_path / "run", variables=variables)

    return run


@pytest.mark.parametrize(
    ("code", "reached"),
    [
        ("import socket; socket.getaddrinfo('nobody.invalid', 80)", "look-up nobody.invalid"),
        ("import socket; socket.gethostbyname('nobody.invalid')", "look-up nobody.invalid"),
        ("import socket; socket.create_connection(('192.0.2.1', 9), 1)", "connect 192.0.2.1:9"),
        (
            "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))",
            "sendto 192.0.2.1:9",
        ),
        ("import urllib.request as r; r.urlopen('http://nobody.invalid/')", "look-up nobody.invalid"),
        (
            "import subprocess, sys; subprocess.run([sys.executable, '-c', "
            "'import socket; socket.getaddrinfo(chr(120), 80)'], check=True)",
            "look-up x",
        ),
    ],
)
def test_the_guard_sees_and_refuses(heard, code, reached):
    found = heard(code)
    assert found.code != 0
    assert found.reached == [reached]


def test_the_guard_sees_files_in_the_home_folder_but_not_the_programs_own(heard):
    code = "from pathlib import Path; h = Path.home(); (h / '.x').mkdir(); (h / '.x' / 'id').touch()"
    code += "; (h / '.y').mkdir(); (h / '.cache' / 'tracklearn' / 'a').mkdir(parents=True)"
    assert heard(code).files == [".x/id", ".y"]


def test_this_machine_may_be_spoken_to(heard):
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = heard(f"import socket; socket.create_connection(('localhost', {server.getsockname()[1]}), 9)")
    assert (found.code, found.reached) == (0, [])


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_what_the_door_keeps_from_happening_does_happen_without_it(heard, name):
    """So the guard catches the fault, and a release that no longer reports is noticed."""
    needs(name)
    found = heard(f"import {name}")
    assert found.code == 0, found.output
    assert not found.quiet


def test_onnxruntime_is_quiet(heard, tmp_path):
    needs("onnxruntime")
    found = heard(ONNX.format(path=str(write_onnx(tmp_path / "m.onnx"))), ORT_DISABLE_TELEMETRY="0")
    assert "(9, 3)" in found.output
    assert found.quiet, found


def test_openvino_is_quiet(heard, tmp_path):
    needs("openvino")
    found = heard(OPENVINO.format(path=str(write_onnx(tmp_path / "m.onnx", (1, 3, 16, 8)))))
    assert "(1, 3)" in found.output
    assert found.quiet, found


@pytest.mark.long
def test_transformers_is_quiet_with_a_folder(heard, tmp_path):
    needs("transformers")
    from tests.store.test_detect import _hub_model

    _hub_model(tmp_path / "model", "rt_detr_v2")
    found = heard(HUB.format(path=tmp_path / "model"))
    assert ", 4)" in found.output
    assert found.quiet, found


@pytest.mark.parametrize("name", ["huggingface_hub", "ray", "fastapi"])
def test_what_is_only_opened_is_quiet(heard, name):
    needs(name)
    found = heard(f"from tracklearn import runtimes; runtimes.load({name!r})")
    assert found.code == 0, found.output
    assert found.quiet, found


def test_drawing_leaves_the_home_folder_alone(heard):
    code = "from tracklearn.store import cache; cache.keep_home_clean()\n"
    code += "import numpy as np; from tracklearn.app.judge import pictures\n"
    code += "print(len(pictures.cmc_picture({'a': np.linspace(0, 1, 50)}, title='t')))"
    found = heard(code)
    assert found.code == 0, found.output
    assert found.quiet, found
