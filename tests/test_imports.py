"""The house's one rule: imports run one way. And the package stays light to import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tracklearn

PACKAGE = Path(tracklearn.__file__).parent
MAY_IMPORT = {
    "types": set(),
    "core": {"types", "core"},
    "learn": {"types", "core", "learn"},
    "store": {"types", "core", "store"},
    "world": {"types", "world"},
    "app": {"types", "core", "learn", "store", "world", "app"},
}
# The package's own two files belong to no layer: they name what is public and start the command line.
OWN = {PACKAGE / "__init__.py", PACKAGE / "__main__.py"}
FILES = sorted(p for p in PACKAGE.rglob("*.py") if p not in OWN)


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_layers(path: Path) -> set[str]:
    """The layers of this package that a file imports, anywhere in it, relative imports included."""
    found = set()
    parts = ("tracklearn", *path.relative_to(PACKAGE).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = parts[: len(parts) - node.level] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        found |= {n.split(".")[1] for n in names if n.startswith("tracklearn.")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    wrong = {name for name in imported_layers(path) & set(MAY_IMPORT) if name not in MAY_IMPORT[layer(path)]}
    assert not wrong, f"{path.name} of {layer(path)} imports {sorted(wrong)}"


def test_every_layer_is_covered():
    assert {layer(p) for p in FILES} == set(MAY_IMPORT)


@pytest.mark.parametrize("module", ["tracklearn", "tracklearn.app.cli"])
def test_import_is_light(module):
    heavy = "torch,av,numba,cv2,sklearn,scipy,matplotlib,pyarrow,trackers,transformers"
    code = f"import sys, {module}; print(*[m for m in '{heavy}'.split(',') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
