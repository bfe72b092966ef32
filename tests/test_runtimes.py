"""The door of the optional libraries: nobody passes it by, and it closes their telemetry first."""

import ast
import logging
import os
import sys
import tomllib
import types

import pytest

from tests.conftest import ROOT
from tests.optional import needs
from tracklearn import runtimes

DOOR = ROOT / "src" / "tracklearn" / "runtimes.py"
FILES = sorted(p for top in ("src", "tests", "benchmarks") for p in (ROOT / top).rglob("*.py") if p != DOOR)
IMPORTERS = {"import_module", "importorskip", "__import__"}


def imported(path):
    """Top-level packages that a file imports, by statement or by name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        elif isinstance(node, ast.Call) and node.args:
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in IMPORTERS and isinstance(node.args[0], ast.Constant):
                names = [node.args[0].value]
        yield from (str(name).partition(".")[0] for name in names)


def test_no_other_file_imports_a_library_that_may_report():
    found = {str(p.relative_to(ROOT)): sorted(set(imported(p)) & set(runtimes.RUNTIMES)) for p in FILES}
    assert {path: names for path, names in found.items() if names} == {}


def test_the_search_sees_every_way_to_import(tmp_path):
    ways = [
        "import openvino as ov",
        "def f():\n    from onnxruntime.capi import state",
        "importlib.import_module('ray.data')",
        "x = pytest.importorskip('transformers')",
    ]
    (tmp_path / "f.py").write_text("\n".join(ways))
    assert set(imported(tmp_path / "f.py")) == {"openvino", "onnxruntime", "ray", "transformers"}


def test_every_extra_that_is_named_exists():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {r.install for r in runtimes.RUNTIMES.values() if "tracklearn[" in r.install}
    assert named <= {f'"tracklearn[{extra}]"' for extra in extras}


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """No library was imported yet: a made one of each name lies in an empty folder and notes what it sees."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(runtimes, "_opened", set())
    for name, runtime in runtimes.RUNTIMES.items():
        monkeypatch.delitem(sys.modules, name, raising=False)
        # Taken away again afterwards, whatever the test leaves in its place.
        for module in runtime.hidden:
            monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
            del sys.modules[module]
        for variable in (*runtime.environment, "DO_NOT_TRACK"):
            os.environ.pop(variable, None)
        hidden = f"hidden = {{m: sys.modules.get(m, 0) for m in {runtime.hidden}}}"
        code = f"import os, sys\nseen = dict(os.environ)\n{hidden}\n"
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in runtimes.RUNTIMES:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", runtimes.RUNTIMES)
def test_telemetry_is_off_before_the_import(fresh, name):
    runtime = runtimes.RUNTIMES[name]
    for variable in runtime.environment:
        os.environ[variable] = "what the user may have asked for"
    module = runtimes.load(name)
    for variable, value in {**runtime.environment, "DO_NOT_TRACK": "1"}.items():
        assert module.seen[variable] == value
    assert module.hidden == dict.fromkeys(runtime.hidden)


@pytest.mark.parametrize("name", runtimes.RUNTIMES)
def test_a_library_that_is_missing_is_asked_for(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r"is not installed: pip install (\"tracklearn\[\w+\]\"|\w+)$"):
        runtimes.load(name)


def test_a_library_that_is_damaged_is_not_called_missing(fresh, tmp_path):
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('no such symbol: x')")
    with pytest.raises(ValueError, match=r"onnxruntime is installed but cannot be imported \(no such symbol"):
        runtimes.load("onnxruntime")


def test_a_library_outside_the_table_is_a_mistake():
    with pytest.raises(KeyError):
        runtimes.load("numpy")


def test_a_library_that_somebody_imported_before_is_named_with_what_to_do(fresh, caplog, monkeypatch):
    done = []
    early = types.ModuleType("onnxruntime")
    early.disable_telemetry_events = lambda: done.append(True)
    monkeypatch.setitem(sys.modules, "onnxruntime", early)
    with caplog.at_level(logging.WARNING):
        assert runtimes.load("onnxruntime") is early
        assert runtimes.load("onnxruntime") is early
    assert done == [True]
    (record,) = caplog.records
    assert record.getMessage() == (
        "onnxruntime was imported before its telemetry could be switched off: let tracklearn import it "
        "first, or set ORT_DISABLE_TELEMETRY=1 in the environment"
    )


def test_a_library_imported_before_with_its_telemetry_off_is_nothing_to_speak_of(fresh, caplog, monkeypatch):
    early = types.ModuleType("onnxruntime")
    early.disable_telemetry_events = lambda: None
    monkeypatch.setitem(sys.modules, "onnxruntime", early)
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    with caplog.at_level(logging.WARNING):
        runtimes.load("onnxruntime")
    assert not caplog.records


def test_openvino_imported_before_is_told_by_its_reporter(fresh, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", types.ModuleType("openvino"))
    sys.modules["openvino_telemetry"] = types.ModuleType("openvino_telemetry")
    with caplog.at_level(logging.WARNING):
        runtimes.load("openvino")
    assert "uninstall openvino_telemetry" in caplog.text
    assert sys.modules["openvino_telemetry"] is None


def test_the_hub_library_is_quiet_even_when_it_was_imported_before(fresh, monkeypatch):
    constants = types.SimpleNamespace(HF_HUB_DISABLE_TELEMETRY=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", types.ModuleType("huggingface_hub"))
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", constants)
    runtimes.load("huggingface_hub")
    assert constants.HF_HUB_DISABLE_TELEMETRY is True


def test_the_hub_library_reads_the_switch_where_it_is_set():
    """Its own constant: should the library rename it, this fails."""
    assert needs("huggingface_hub.constants").HF_HUB_DISABLE_TELEMETRY is True
